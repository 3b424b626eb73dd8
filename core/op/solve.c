/* solve_triangular; solve and determinant, which factor a matrix and give the factors
 * too, for their gradients. Read next: factor.h, lua/nyx/linalg.lua. */
#include <math.h>
#include <string.h>

#include "../device/device.h"
#include "factor.h"

/* The batch that matrices a and b make together: fills the leading dimensions of spec. */
static nyx_status leading(nyx_call *c, nyx_spec *spec) {
  const nyx_tensor *a = c->in[0], *b = c->in[1];
  if (!nyx__broadcast(a->ndim - 2, a->shape, b->ndim - 2, b->shape, &spec->ndim,
                      spec->shape))
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(a), NYX__SHAPE(b));
  spec->dtype = c->dtype;
  spec->shape[spec->ndim++] = nyx__rows(b);
  spec->shape[spec->ndim++] = nyx__columns(b);
  return NYX_OK;
}

/* Where in memory the matrix of t for each of x's begins, in elements. Freed with
 * nyx_memory_free. */
static nyx_status starts(nyx_context *ctx, const nyx_tensor *t, const nyx_tensor *x,
                         int64_t **out) {
  const int64_t count = nyx__matrices(x);
  int64_t stride[NYX_MAX_DIMS];
  const size_t bytes = (size_t)(count > 0 ? count : 1) * sizeof **out;
  if (!(*out = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  nyx__broadcast_strides(t, x->ndim, stride);
  for (int64_t e = 0; e < count; e++) {
    int64_t at = 0, rest = e;
    for (int d = x->ndim - 3; d >= 0; d--) {
      at += rest % x->shape[d] * stride[d];
      rest /= x->shape[d];
    }
    (*out)[e] = at;
  }
  return NYX_OK;
}

/* solve_triangular */

enum { UPPER, LEFT, UNIT, CHECK, ATTRS };

static nyx_status triangular_infer(nyx_call *c) {
  const nyx_tensor *a = c->in[0], *b = c->in[1];
  NYX_TRY(nyx__matrix_check(c->ctx, "a", a, true));
  NYX_TRY(nyx__matrix_check(c->ctx, "b", b, false));
  const bool left = c->attr[LEFT].i != 0;
  if ((left ? nyx__rows(b) : nyx__columns(b)) != nyx__rows(a))
    return nyx__error(c->ctx, SOLVE_SIDES, NYX__SHAPE(b), NYX__SHAPE(a),
                      left ? "rows" : "columns");
  return leading(c, &c->spec[0]);
}

/* a itself where its rows or its columns lie together, else a copy. */
static nyx_status readable(nyx_context *ctx, nyx_tensor *a, nyx_tensor **out,
                           nyx__triangular *t) {
  const int64_t n = nyx__rows(a), rs = a->stride[a->ndim - 2],
                cs = a->stride[a->ndim - 1];
  const bool rows = n == 1 || (cs == 1 && rs >= n && rs <= INT32_MAX);
  const bool columns = rs == 1 && cs >= n && cs <= INT32_MAX;
  t->turned = !rows && columns;
  t->ld = n == 1 ? 1 : rows ? rs : columns ? cs : n;
  if (rows || columns) {
    *out = nyx_tensor_retain(a);
    return NYX_OK;
  }
  return nyx__contiguous(ctx, a, out);
}

/* Fails at the first exact zero on a diagonal. */
static nyx_status check_diagonals(nyx_context *ctx, const nyx_tensor *a) {
  const int64_t count = nyx__matrices(a), n = nyx__rows(a);
  const size_t item = nyx_dtype_size(a->dtype);
  int64_t *at;
  NYX_TRY(starts(ctx, a, a, &at));
  nyx_status status = NYX_OK;
  for (int64_t e = 0; status == NYX_OK && e < count; e++)
    for (int64_t i = 0; status == NYX_OK && i < n; i++) {
      const int64_t place = at[e] + i * (a->stride[a->ndim - 2] + a->stride[a->ndim - 1]);
      const char *p = (const char *)nyx__data(a) + (size_t)place * item;
      char text[NYX__MATRIX_TEXT];
      if (nyx__load_double(a->dtype, p) == 0)
        status = nyx__error(ctx, SINGULAR, nyx__matrix_text(ctx, a, e, text),
                            (long long)(i + ctx->index_base), "it");
    }
  nyx_memory_free(at);
  return status;
}

static nyx_status triangular_cpu(nyx_call *c) {
  nyx_tensor *x = c->out[0], *a = NULL;
  int64_t *at = NULL;
  nyx_status status = NYX_OK;
  if (c->attr[CHECK].i && !c->attr[UNIT].i) NYX_TRY(check_diagonals(c->ctx, c->in[0]));
  if (x->numel == 0) return NYX_OK;
  nyx__triangular t = {.dtype = x->dtype,
                       .count = nyx__matrices(x),
                       .rows = nyx__rows(x),
                       .cols = nyx__columns(x),
                       .upper = c->attr[UPPER].i,
                       .left = c->attr[LEFT].i,
                       .unit = c->attr[UNIT].i,
                       .x = nyx__data(x)};
  status = readable(c->ctx, c->in[0], &a, &t);
  if (status == NYX_OK) status = starts(c->ctx, a, x, &at);
  if (status == NYX_OK) status = nyx__copy_into(c->ctx, c->in[1], x);
  if (status == NYX_OK) {
    t.a = nyx__data(a);
    t.at = at;
    status = nyx__solve_triangles(c->ctx, &t);
  }
  nyx_memory_free(at);
  nyx_tensor_release(a);
  return status;
}

/* -(g x^T), or -(x^T g): the gradient of A from that of b, before anything is summed. */
static nyx_status matrix_gradient(nyx__steps *s, nyx_tensor *g, nyx_tensor *x, bool left,
                                  nyx_tensor **out) {
  if (left)
    NYX_TRY(nyx__step_product(s, g, false, x, true, out));
  else
    NYX_TRY(nyx__step_product(s, x, true, g, false, out));
  return nyx__step(s, NYX__OP_neg, *out, NULL, NULL, out);
}

/* Giles: "Collected matrix derivative results for forward and reverse mode algorithmic
 * differentiation" (2008), 2.3.1, kept to the triangle that is read. */
static nyx_status triangular_gradients(nyx__steps *s, nyx_backward *b) {
  const bool upper = b->attr[UPPER].i, left = b->attr[LEFT].i, unit = b->attr[UNIT].i;
  nyx_tensor *g, *t;
  NYX_TRY(nyx__step_solve(s, b->in[0], (nyx__triangle){true, !upper, !left, unit},
                          b->grad_out[0], &g));
  if (b->need[1]) NYX_TRY(nyx__sum_to(s->ctx, g, &b->in_spec[1], &b->grad_in[1]));
  if (!b->need[0]) return NYX_OK;
  NYX_TRY(matrix_gradient(s, g, b->out[0], left, &t));
  NYX_TRY(nyx__step_triangle(s, t, upper, unit ? (upper ? 1 : -1) : 0, &t));
  return nyx__sum_to(s->ctx, t, &b->in_spec[0], &b->grad_in[0]);
}

static nyx_status triangular_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  if (!b->grad_out[0]) return NYX_OK;
  return nyx__steps_end(&s, triangular_gradients(&s, b));
}

static const nyx_attr triangular_attrs[ATTRS] = {
    {"upper",
     NYX_ATTR_BOOL,
     true,
     {.given = false},
     "a's upper triangle, else the lower"},
    {"left", NYX_ATTR_BOOL, false, {.i = true, .given = true}, "a x = b, else x a = b"},
    {"unitriangular",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "ones on a's diagonal, which is not read"},
    {"check",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "a zero on a diagonal is an error, else it gives infinities or nan"}};

const nyx_op nyx__op_solve_triangular = {
    .name = "solve_triangular",
    .group = "linear algebra",
    .doc =
        "x with a x = b for triangular matrices a (..., n, n), of which only the "
        "triangle "
        "is read, and b (..., n, k); left=false: x a = b for b (..., k, n). Leading "
        "dimensions broadcast.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a b",
    .min_in = 2,
    .max_in = 2,
    .attrs = triangular_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = triangular_infer,
    .cpu = triangular_cpu,
    .gradient = triangular_gradient,
    .save_in = NYX_SAVE(0),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_aligned,
    .cases =
        "a(3,3)<dominant b(3,2); upper=true\n"
        "a(3,3)<dominant b(2,2,3); upper=false left=false\n"
        "a(2,3,3)<dominant b(3,2); upper=false unitriangular=true\n"
        "a(2,1,3,3)<dominant b(3,3,1); upper=true check=true\n"
        "a(0,0) b(0,2); upper=true",
    .domain = {-2, 2},
};

/* solve */

enum { X, SOLVE_LU, SOLVE_PIVOTS };

static void factor_specs(nyx_call *c, int at) {
  const nyx_tensor *a = c->in[0];
  nyx__spec(&c->spec[at], c->dtype, a->ndim, a->shape);
  nyx__spec_columns(&c->spec[at]);
  nyx__spec(&c->spec[at + 1], NYX_INT64, a->ndim - 1, a->shape);
}

static nyx_status solve_infer(nyx_call *c) {
  const nyx_tensor *a = c->in[0], *b = c->in[1];
  NYX_TRY(nyx__matrix_check(c->ctx, "a", a, true));
  NYX_TRY(nyx__matrix_check(c->ctx, "b", b, false));
  if (nyx__rows(b) != nyx__rows(a))
    return nyx__error(c->ctx, SOLVE_SIDES, NYX__SHAPE(b), NYX__SHAPE(a), "rows");
  factor_specs(c, SOLVE_LU);
  return leading(c, &c->spec[X]);
}

static nyx_status solve_cpu(nyx_call *c) {
  nyx_tensor *x = c->out[X], *lu = c->out[SOLVE_LU];
  const int64_t n = nyx__rows(lu);
  int *own = NULL, *info = NULL;
  int64_t *at = NULL;
  if (lu->numel == 0) return NYX_OK;
  nyx_status status = nyx__ints(c->ctx, c->out[SOLVE_PIVOTS]->numel, &own);
  if (status == NYX_OK) status = nyx__ints(c->ctx, nyx__matrices(lu), &info);
  if (status == NYX_OK) status = nyx__copy_into(c->ctx, c->in[0], lu);
  if (status == NYX_OK)
    status = nyx__factor_lu(c->ctx, lu, c->out[SOLVE_PIVOTS], own, info);
  const int64_t entry = status == NYX_OK ? nyx__flawed(lu, info) : -1;
  if (entry >= 0) {
    char text[NYX__MATRIX_TEXT];
    status = nyx__error(c->ctx, SINGULAR, nyx__matrix_text(c->ctx, lu, entry, text),
                        (long long)(info[entry] - 1 + c->ctx->index_base),
                        "the U of its LU factorization");
  }
  if (status == NYX_OK && x->numel > 0) {
    status = starts(c->ctx, lu, x, &at);
    if (status == NYX_OK) status = nyx__copy_into(c->ctx, c->in[1], x);
    if (status == NYX_OK)
      status = nyx__lu_solve(c->ctx, x->dtype, nyx__matrices(x), n, nyx__columns(x),
                             nyx__data(lu), own, at, nyx__data(x));
  }
  nyx_memory_free(at);
  nyx_memory_free(info);
  nyx_memory_free(own);
  return status;
}

/* Whether a gradient will be differentiated: then it goes from A, not from factors that
 * are numbers here. */
static bool recorded(const nyx_backward *b) {
  return b->ctx->grad_enabled || nyx__any_lifted(b->in, b->n_in);
}

/* A^-T g, from A itself. */
static nyx_status adjoint(nyx__steps *s, nyx_backward *b, nyx_tensor *g,
                          nyx_tensor **out) {
  nyx_tensor *turned;
  NYX_TRY(nyx__step_turn(s, b->in[0], &turned));
  return nyx__step(s, NYX__OP_solve, turned, g, NULL, out);
}

/* Adds `more` to *sum; NULL: zero. */
static nyx_status add(nyx__steps *s, nyx_tensor **sum, nyx_tensor *more) {
  if (*sum && more) return nyx__step(s, NYX__OP_add, *sum, more, NULL, sum);
  if (more) *sum = more;
  return NYX_OK;
}

/* Giles (2008), 2.2.3 and 2.3.1, and what comes through the factors. */
static nyx_status solve_gradients(nyx__steps *s, nyx_backward *b) {
  nyx_tensor *lu = b->out[SOLVE_LU], *pivots = b->out[SOLVE_PIVOTS], *sum = NULL, *t;
  if (b->grad_out[X]) {
    if (recorded(b))
      NYX_TRY(adjoint(s, b, b->grad_out[X], &t));
    else
      NYX_TRY(nyx__step_lu_adjoint(s, lu, pivots, b->grad_out[X], &t));
    if (b->need[1]) NYX_TRY(nyx__sum_to(s->ctx, t, &b->in_spec[1], &b->grad_in[1]));
    if (b->need[0]) {
      NYX_TRY(matrix_gradient(s, t, b->out[X], true, &t));
      NYX_TRY(nyx__sum_to(s->ctx, t, &b->in_spec[0], &t));
      sum = nyx__step_keep(s, t);
    }
  }
  if (!b->need[0]) return NYX_OK;
  if (b->grad_out[SOLVE_LU]) {
    NYX_TRY(nyx__step_lu_gradient(s, b->grad_out[SOLVE_LU], lu, pivots, &t));
    NYX_TRY(add(s, &sum, t));
  }
  b->grad_in[0] = nyx_tensor_retain(sum);
  return NYX_OK;
}

static nyx_status solve_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  return nyx__steps_end(&s, solve_gradients(&s, b));
}

/* The factors are a's, which may be the same for all entries, or lie in a batch with ones
 * behind it. */
static nyx_status solve_batch(nyx_batch *b) {
  NYX_TRY(nyx__batch_aligned(b));
  for (int k = SOLVE_LU; k <= SOLVE_PIVOTS; k++) {
    int64_t shape[NYX_MAX_DIMS] = {b->size};
    nyx_tensor *factor;
    const int ndim = b->spec[k].ndim + 1;
    for (int d = 1; d < ndim; d++) shape[d] = b->spec[k].shape[d - 1];
    const nyx_value attr = NYX_LIST(shape, ndim);
    NYX_TRY(nyx__apply1(b->ctx, b->batched[0] ? NYX__OP_view : NYX__OP_expand, b->out[k],
                        &attr, &factor));
    nyx_tensor_release(b->out[k]);
    b->out[k] = factor;
  }
  return NYX_OK;
}

const nyx_op nyx__op_solve = {
    .name = "solve",
    .group = "linear algebra",
    .doc =
        "x with a x = b for matrices a (..., n, n) and b (..., n, k), by LU with partial "
        "pivoting, and a's factors as lu_factor gives them. Leading dimensions "
        "broadcast. "
        "An error names the first matrix that is singular. See linalg.solve, which gives "
        "x alone and takes vectors.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a b",
    .min_in = 2,
    .max_in = 2,
    .n_out = 3,
    .infer = solve_infer,
    .cpu = solve_cpu,
    .gradient = solve_gradient,
    .save_in = NYX_SAVE(0),
    .save_out = NYX_SAVE(X) | NYX_SAVE(SOLVE_LU) | NYX_SAVE(SOLVE_PIVOTS),
    .batch = solve_batch,
    .cases =
        "a(3,3)<regular b(3,2)\na(3,3)<regular b(2,3,1)\na(2,3,3)<regular b(3,2)\n"
        "a(0,0) b(0,2)",
    .domain = {-2, 2},
};

/* determinant: a matrix's and its transpose's are the same, and a row-major matrix is its
 * transpose for LAPACK, so that nothing is turned. */

enum { LU, PIVOTS, FIRST, SECOND };

static nyx_status determinant_infer(nyx_call *c) {
  NYX_TRY(nyx__matrix_check(c->ctx, "a", c->in[0], true));
  factor_specs(c, LU);
  for (int k = FIRST; k <= SECOND; k++)
    nyx__spec(&c->spec[k], c->dtype, c->in[0]->ndim - 2, c->in[0]->shape);
  return NYX_OK;
}

typedef struct determinant_job {
  nyx_dtype dtype;
  const char *lu;
  const int64_t *pivots;
  int64_t n, base;
  bool log;
  char *first, *second;
} determinant_job;

/* Keeps numbers in the middle of the range of doubles, times two to the exponent. */
static double middle(double x, int *exponent) {
  const double size = fabs(x);
  int more = 0;
  if (size > 0x1p-400 && size < 0x1p400) return x;
  x = frexp(x, &more);
  if (isfinite(x)) *exponent += more;
  return x;
}

static void determinant_range(void *arg, int64_t begin, int64_t end) {
  const determinant_job *j = arg;
  const size_t item = nyx_dtype_size(j->dtype);
  for (int64_t e = begin; e < end; e++) {
    double product = 1, parity = 1; /* product times two to the `exponent` */
    int exponent = 0;
    for (int64_t i = 0; i < j->n; i++) {
      const size_t at = (size_t)(e * j->n * j->n + i * (j->n + 1)) * item;
      if (j->pivots[e * j->n + i] - j->base != i) parity = -parity;
      const double u = nyx__load_double(j->dtype, j->lu + at);
      product = middle(product * middle(u, &exponent), &exponent);
    }
    const double sign = parity * (double)((product > 0) - (product < 0));
    nyx__store_double(j->dtype, j->first + (size_t)e * item,
                      !j->log              ? ldexp(product, exponent) * parity
                      : product != product ? product
                                           : sign);
    nyx__store_double(j->dtype, j->second + (size_t)e * item,
                      j->log ? log(fabs(product)) + exponent * M_LN2 : parity);
  }
}

/* out[LU] becomes the factors of in[0]'s transpose. */
static nyx_status factor_transpose(nyx_call *c) {
  nyx_tensor *lu = c->out[LU], *turned;
  int *info;
  NYX_TRY(nyx__matrices_turned(c->ctx, lu, &turned));
  nyx_status status = nyx__copy_into(c->ctx, c->in[0], turned);
  nyx_tensor_release(turned);
  NYX_TRY(status);
  NYX_TRY(nyx__ints(c->ctx, nyx__matrices(lu), &info));
  status = nyx__factor_lu(c->ctx, lu, c->out[PIVOTS], NULL, info);
  nyx_memory_free(info);
  return status;
}

static nyx_status determinant_cpu(nyx_call *c) {
  nyx_tensor *lu = c->out[LU];
  if (c->out[FIRST]->numel == 0) return NYX_OK;
  NYX_TRY(factor_transpose(c));
  determinant_job j = {.dtype = lu->dtype,
                       .lu = nyx__data(lu),
                       .pivots = nyx__data(c->out[PIVOTS]),
                       .n = nyx__rows(lu),
                       .base = c->ctx->index_base,
                       .log = c->attr[0].i,
                       .first = nyx__data(c->out[FIRST]),
                       .second = nyx__data(c->out[SECOND])};
  return nyx__parallel_for(c->ctx, c->out[FIRST]->numel, (1 << 14) / (j.n + 1) + 1,
                           determinant_range, &j);
}

/* LU with what is exactly 0 on U's diagonal replaced by something small beside the rest,
 * and the product of that diagonal: what the gradient, the adjugate, is made of where the
 * matrix is singular. */
static nyx_status regular(nyx__steps *s, nyx_tensor **lu, nyx_tensor **product) {
  const int64_t last[] = {-2, -1}, n = nyx__rows(*lu), end[] = {-1};
  const nyx_value on[] = {NYX_I(0), NYX_I(-2), NYX_I(-1)};
  const nyx_value over[] = {NYX_LIST(last, 2), NYX_I(0)}, wide = NYX_I(-1);
  const nyx_value along[] = {NYX_LIST(end, 1), NYX_I(0)};
  const nyx_value square[] = {NYX_I(n), NYX_I(n), NYX_I(NYX_BOOL)};
  const double part = (*lu)->dtype == NYX_FLOAT64 ? 0x1p-52 : 0x1p-23;
  nyx_tensor *small, *d, *eye;
  NYX_TRY(nyx__step(s, NYX__OP_abs, *lu, NULL, NULL, &small));
  NYX_TRY(nyx__step(s, NYX__OP_amax, small, NULL, over, &small));
  NYX_TRY(nyx__step_text(s, "nyx_select(nyx_eq(x, K(0)), K(1), x * p)", small, NULL, part,
                         &small));
  NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, small, NULL, &wide, &small));
  NYX_TRY(nyx__step(s, NYX__OP_diagonal, *lu, NULL, on, &d));
  NYX_TRY(nyx__stepn(s, NYX__OP_where, (nyx_tensor *[]){d, d, small}, 3, NULL, &d));
  NYX_TRY(nyx__step(s, NYX__OP_prod, d, NULL, along, product));
  NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, d, NULL, &wide, &d));
  NYX_TRY(nyx__stepn(s, NYX__OP_eye, NULL, 0, square, &eye));
  return nyx__stepn(s, NYX__OP_where, (nyx_tensor *[]){eye, d, *lu}, 3, NULL, lu);
}

/* g times A^-T, times the determinant where it is not the logarithm's (Giles, 2008,
 * 2.2.4). */
static nyx_status value_gradient(nyx__steps *s, nyx_backward *b, nyx_tensor *g,
                                 nyx_tensor **out) {
  const bool log = b->attr[0].i;
  const int64_t n = nyx__rows(b->out[LU]);
  const nyx_value square[] = {NYX_I(n), NYX_I(n), NYX_I(b->out[LU]->dtype)};
  const nyx_value wide = NYX_I(-1);
  nyx_tensor *lu = b->out[LU], *value = log ? NULL : b->out[FIRST], *eye;
  if (!log && !recorded(b)) {
    NYX_TRY(regular(s, &lu, &value));
    NYX_TRY(nyx__step(s, NYX__OP_mul, value, b->out[SECOND], NULL, &value));
  }
  if (value) NYX_TRY(nyx__step(s, NYX__OP_mul, g, value, NULL, &g));
  for (int i = 0; i < 2; i++)
    NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, g, NULL, &wide, &g));
  NYX_TRY(nyx__stepn(s, NYX__OP_eye, NULL, 0, square, &eye));
  if (recorded(b))
    NYX_TRY(adjoint(s, b, eye, out));
  else
    NYX_TRY(nyx__step_lu_solution(s, lu, b->out[PIVOTS], eye, out));
  return nyx__step(s, NYX__OP_mul, *out, g, NULL, out);
}

static nyx_status determinant_gradients(nyx__steps *s, nyx_backward *b) {
  nyx_tensor *g = b->grad_out[b->attr[0].i ? SECOND : FIRST], *sum = NULL, *t;
  if (!b->need[0] || nyx__rows(b->out[LU]) == 0) return NYX_OK;
  if (g) NYX_TRY(value_gradient(s, b, g, &sum));
  if (b->grad_out[LU]) {
    NYX_TRY(nyx__step_lu_gradient(s, b->grad_out[LU], b->out[LU], b->out[PIVOTS], &t));
    NYX_TRY(nyx__step_turn(s, t, &t));
    NYX_TRY(add(s, &sum, t));
  }
  b->grad_in[0] = nyx_tensor_retain(sum);
  return NYX_OK;
}

static nyx_status determinant_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  return nyx__steps_end(&s, determinant_gradients(&s, b));
}

static const nyx_attr determinant_attrs[] = {
    {"log",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "give the determinant's sign and the logarithm of its magnitude"}};

const nyx_op nyx__op_determinant = {
    .name = "determinant",
    .group = "linear algebra",
    .doc =
        "Of matrices a (..., n, n) the factors of their transposes as lu_factor gives "
        "them, then (...) the determinant and the sign of the row exchanges; log: its "
        "sign, 0 of a singular "
        "matrix, and the logarithm of its magnitude. What det, slogdet and logdet are "
        "made of. Further derivatives than the first need regular matrices.",
    .kind = NYX_OP_STRUCTURAL,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a",
    .min_in = 1,
    .max_in = 1,
    .attrs = determinant_attrs,
    .n_attrs = 1,
    .n_out = 4,
    .infer = determinant_infer,
    .cpu = determinant_cpu,
    .gradient = determinant_gradient,
    .save_in = NYX_SAVE(0),
    .save_out = NYX_SAVE(LU) | NYX_SAVE(PIVOTS) | NYX_SAVE(FIRST) | NYX_SAVE(SECOND),
    .batch = nyx__batch_leading,
    .cases = "a(3,3)<regular\na(2,4,4)<regular; log=true\na(2,2,3,3)<regular\na(0,0)",
    .domain = {-2, 2},
};
