/* lu_factor, and pivot_rows, which exchanges rows as it did. Read next: factor.h. */
#include <string.h>

#include "../device/device.h"
#include "factor.h"

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* lu_factor */

static nyx_status lu_infer(nyx_call *c) {
  const nyx_tensor *a = c->in[0];
  NYX_TRY(nyx__matrix_check(c->ctx, "a", a, false));
  nyx__spec(&c->spec[0], c->dtype, a->ndim, a->shape);
  nyx__spec_columns(&c->spec[0]);
  nyx__spec(&c->spec[1], NYX_INT64, a->ndim - 1, a->shape);
  c->spec[1].shape[a->ndim - 2] = least(nyx__rows(a), nyx__columns(a));
  return NYX_OK;
}

nyx_status nyx__factor_lu(nyx_context *ctx, nyx_tensor *lu, nyx_tensor *pivots, int *own,
                          int *info) {
  const int64_t count = nyx__matrices(lu), m = nyx__rows(lu), n = nyx__columns(lu);
  int *made = NULL;
  if (lu->numel == 0) return NYX_OK;
  if (!own) NYX_TRY(nyx__ints(ctx, pivots->numel, &made));
  if (!own) own = made;
  nyx_status status = nyx__lu(ctx, lu->dtype, count, m, n, nyx__data(lu), own, info);
  int64_t *to = nyx__data(pivots);
  for (int64_t i = 0; status == NYX_OK && i < pivots->numel; i++)
    to[i] = own[i] - 1 + ctx->index_base;
  nyx_memory_free(made);
  return status;
}

static nyx_status lu_cpu(nyx_call *c) {
  int *info;
  NYX_TRY(nyx__ints(c->ctx, nyx__matrices(c->out[0]), &info));
  nyx_status status = nyx__copy_into(c->ctx, c->in[0], c->out[0]);
  if (status == NYX_OK) status = nyx__factor_lu(c->ctx, c->out[0], c->out[1], NULL, info);
  nyx_memory_free(info);
  return status;
}

static nyx_status pivoted(nyx__steps *s, nyx_tensor *x, nyx_tensor *pivots,
                          nyx_tensor **out) {
  const nyx_value back = NYX_I(1);
  return nyx__step(s, NYX__OP_pivot_rows, x, pivots, &back, out);
}

/* Of square blocks A = L U without its exchanges: L^-T (lower triangle of L^T G_L,
 * without its diagonal, + upper one of G_U U^T) U^-T (de Hoog, Anderssen, Lukas:
 * "Differentiation of matrix functionals using triangular factorization", 2011). What is
 * left of a wide or a tall matrix depends on one of the factors too, whose gradient it
 * changes: `rest` is g2 U2^T or L2^T g2. */
static nyx_status square_gradient(nyx__steps *s, nyx_tensor *lu, nyx_tensor *g,
                                  nyx_tensor *rest, bool wide, nyx_tensor **out) {
  nyx_tensor *l, *u, *gl, *gu, *lower, *upper;
  NYX_TRY(nyx__step_triangle(s, lu, false, -1, &l));
  NYX_TRY(nyx__step_triangle(s, lu, true, 0, &u));
  NYX_TRY(nyx__step_triangle(s, g, false, -1, &gl));
  NYX_TRY(nyx__step_triangle(s, g, true, 0, &gu));
  NYX_TRY(nyx__step_product(s, l, true, gl, false, &lower));
  NYX_TRY(nyx__step(s, NYX__OP_add, lower, gl, NULL, &lower)); /* the ones of L */
  NYX_TRY(nyx__step_product(s, gu, false, u, true, &upper));
  if (rest && wide) NYX_TRY(nyx__step(s, NYX__OP_sub, lower, rest, NULL, &lower));
  if (rest && !wide) NYX_TRY(nyx__step(s, NYX__OP_sub, upper, rest, NULL, &upper));
  NYX_TRY(nyx__step_triangle(s, lower, false, -1, &lower));
  NYX_TRY(nyx__step_triangle(s, upper, true, 0, &upper));
  NYX_TRY(nyx__step(s, NYX__OP_add, lower, upper, NULL, out));
  NYX_TRY(nyx__step_solve(
      s, lu, (nyx__triangle){.turned = true, .upper = true, .unit = true}, *out, out));
  return nyx__step_solve(s, lu, (nyx__triangle){.turned = true, .right = true}, *out,
                         out);
}

nyx_status nyx__step_lu_gradient(nyx__steps *s, nyx_tensor *g, nyx_tensor *lu,
                                 nyx_tensor *pivots, nyx_tensor **out) {
  const int64_t m = nyx__rows(lu), n = nyx__columns(lu), k = least(m, n);
  const bool wide = m < n;
  const int dim = wide ? -1 : -2;
  nyx_tensor *lu1 = lu, *g1 = g, *lu2 = NULL, *g2 = NULL, *rest = NULL;
  if (m != n) {
    NYX_TRY(nyx__step_part(s, lu, dim, 0, k, &lu1));
    NYX_TRY(nyx__step_part(s, g, dim, 0, k, &g1));
    NYX_TRY(nyx__step_part(s, lu, dim, k, (wide ? n : m) - k, &lu2));
    NYX_TRY(nyx__step_part(s, g, dim, k, (wide ? n : m) - k, &g2));
    if (wide)
      NYX_TRY(nyx__step_product(s, g2, false, lu2, true, &rest));
    else
      NYX_TRY(nyx__step_product(s, lu2, true, g2, false, &rest));
  }
  NYX_TRY(square_gradient(s, lu1, g1, rest, wide, out));
  if (m != n) { /* A2 = L U2, or L2 U */
    const nyx__triangle left = {.turned = true, .upper = true, .unit = true};
    const nyx__triangle right = {.turned = true, .right = true};
    NYX_TRY(nyx__step_solve(s, lu1, wide ? left : right, g2, &g2));
    const nyx_value along = NYX_I(dim);
    NYX_TRY(nyx__step(s, NYX__OP_cat, *out, g2, &along, out));
  }
  return pivoted(s, *out, pivots, out);
}

nyx_status nyx__step_lu_solution(nyx__steps *s, nyx_tensor *lu, nyx_tensor *pivots,
                                 nyx_tensor *b, nyx_tensor **out) {
  NYX_TRY(nyx__step(s, NYX__OP_pivot_rows, b, pivots, NULL, out));
  NYX_TRY(nyx__step_solve(s, lu, (nyx__triangle){.unit = true}, *out, out));
  return nyx__step_solve(s, lu, (nyx__triangle){.upper = true}, *out, out);
}

nyx_status nyx__step_lu_adjoint(nyx__steps *s, nyx_tensor *lu, nyx_tensor *pivots,
                                nyx_tensor *b, nyx_tensor **out) {
  NYX_TRY(nyx__step_solve(s, lu, (nyx__triangle){.turned = true}, b, out));
  NYX_TRY(nyx__step_solve(
      s, lu, (nyx__triangle){.turned = true, .upper = true, .unit = true}, *out, out));
  return pivoted(s, *out, pivots, out);
}

static nyx_status lu_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  nyx_tensor *g = NULL;
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  nyx_status status = nyx__step_lu_gradient(&s, b->grad_out[0], b->out[0], b->out[1], &g);
  if (status == NYX_OK) b->grad_in[0] = nyx_tensor_retain(g);
  return nyx__steps_end(&s, status);
}

const nyx_op nyx__op_lu_factor = {
    .name = "lu_factor",
    .group = "linear algebra",
    .doc =
        "a = P L U for matrices a (..., m, n), by partial pivoting: L, without the ones "
        "on its diagonal, and U in one matrix, and the pivots (int64): row i was "
        "exchanged with row pivots[i], one after the other; see pivot_rows. A singular a "
        "gives a zero on the diagonal of U.",
    .kind = NYX_OP_STRUCTURAL,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a",
    .min_in = 1,
    .max_in = 1,
    .n_out = 2,
    .infer = lu_infer,
    .cpu = lu_cpu,
    .gradient = lu_gradient,
    .save_out = NYX_SAVE(0) | NYX_SAVE(1),
    .batch = nyx__batch_leading,
    .cases = "a(3,3)<regular\na(2,3,5)<regular\na(2,5,3)<regular\na(2,0,3)",
    .domain = {-2, 2},
};

/* pivot_rows */

static nyx_status pivot_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *pivots = c->in[1];
  nyx_spec *spec = &c->spec[0];
  NYX_TRY(nyx__index_check(c->ctx, "pivots", pivots));
  NYX_TRY(nyx__matrix_check(c->ctx, "x", x, false));
  if (pivots->ndim < 1 || pivots->shape[pivots->ndim - 1] > nyx__rows(x) ||
      !nyx__broadcast(x->ndim - 2, x->shape, pivots->ndim - 1, pivots->shape, &spec->ndim,
                      spec->shape))
    return nyx__error(c->ctx, PIVOTS_SHAPE, NYX__SHAPE(pivots), NYX__SHAPE(x),
                      (long long)nyx__rows(x));
  if (spec->ndim + 2 > NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, spec->ndim + 2, NYX_MAX_DIMS);
  spec->shape[spec->ndim++] = nyx__rows(x);
  spec->shape[spec->ndim++] = nyx__columns(x);
  spec->dtype = c->dtype;
  return NYX_OK;
}

typedef struct pivot_job {
  const char *from;
  char *to;
  const int64_t *source; /* of every row of every matrix */
  size_t line;           /* bytes of a row */
  int64_t rows;
} pivot_job;

static void pivot_range(void *arg, int64_t begin, int64_t end) {
  const pivot_job *j = arg;
  for (int64_t r = begin; r < end; r++)
    memcpy(j->to + (size_t)r * j->line,
           j->from + (size_t)(r - r % j->rows + j->source[r]) * j->line, j->line);
}

/* Where the rows of a matrix come from. */
static void follow(const int64_t *pivots, int64_t k, int64_t rows, bool back,
                   int64_t *source) {
  for (int64_t i = 0; i < rows; i++) source[i] = i;
  for (int64_t step = 0; step < k; step++) {
    const int64_t i = back ? k - 1 - step : step, row = source[i];
    source[i] = source[pivots[i]];
    source[pivots[i]] = row;
  }
}

static nyx_status pivot_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *x = NULL, *pivots = NULL;
  int64_t *at = NULL, *source = NULL, shape[NYX_MAX_DIMS];
  if (out->numel == 0) return NYX_OK;
  const int ndim = out->ndim;
  const int64_t rows = nyx__rows(out), count = nyx__matrices(out);
  const int64_t k = c->in[1]->shape[c->in[1]->ndim - 1];
  const nyx__range range = {.size = rows, .dim = ndim - 2};
  const size_t bytes = (size_t)(count * rows) * sizeof *source;
  memcpy(shape, out->shape, sizeof shape);
  shape[ndim - 2] = k;
  nyx_status status = nyx__expanded_as(c->ctx, c->in[0], c->dtype, ndim, out->shape, &x);
  if (status == NYX_OK)
    status =
        nyx__expanded_as(c->ctx, c->in[1], c->in[1]->dtype, ndim - 1, shape, &pivots);
  if (status == NYX_OK) status = nyx__positions(c->ctx, pivots, range, &at);
  if (status == NYX_OK && !(source = nyx_memory_alloc(bytes)))
    status = nyx__no_memory(c->ctx, bytes);
  if (status == NYX_OK) {
    const size_t line = (size_t)nyx__columns(out) * nyx_dtype_size(c->dtype);
    pivot_job j = {nyx__data(x), nyx__data(out), source, line, rows};
    for (int64_t e = 0; e < count; e++)
      follow(at + e * k, k, rows, c->attr[0].i, source + e * rows);
    status = nyx__parallel_for(c->ctx, count * rows, (1 << 16) / (int64_t)line + 1,
                               pivot_range, &j);
  }
  nyx_memory_free(source);
  nyx_memory_free(at);
  nyx_tensor_release(pivots);
  nyx_tensor_release(x);
  return status;
}

static nyx_status pivot_gradient(nyx_backward *b) {
  const nyx_value other = NYX_I(!b->attr[0].i);
  nyx__steps s = {.ctx = b->ctx};
  nyx_tensor *g;
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  nyx_status status =
      nyx__step(&s, NYX__OP_pivot_rows, b->grad_out[0], b->in[1], &other, &g);
  if (status == NYX_OK) status = nyx__sum_to(b->ctx, g, &b->in_spec[0], &b->grad_in[0]);
  return nyx__steps_end(&s, status);
}

static nyx_status pivot_forward(nyx_dual *d) {
  if (!d->tangent[0]) return NYX_OK;
  nyx_tensor *in[] = {d->tangent[0], d->in[1]};
  return nyx_apply(d->ctx, d->op, in, 2, d->attr, &d->tangent_out[0]);
}

/* Pivots have one dimension less than what they pivot. */
static nyx_status pivot_batch(nyx_batch *b) {
  int ndim = b->in[0]->ndim - b->batched[0], own = b->in[1]->ndim - b->batched[1] + 1;
  nyx_tensor *in[2] = {NULL};
  if (own > ndim) ndim = own;
  nyx_status status = nyx__batch_align(b, 0, ndim, &in[0]);
  if (status == NYX_OK) status = nyx__batch_align(b, 1, ndim - 1, &in[1]);
  if (status == NYX_OK) status = nyx__batch_apply(b, in, b->attr);
  nyx_tensor_release(in[0]);
  nyx_tensor_release(in[1]);
  return status;
}

static const nyx_attr pivot_attrs[] = {
    {"inverse",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "undo the exchanges, P x, in place of making them, P^T x"}};

const nyx_op nyx__op_pivot_rows = {
    .name = "pivot_rows",
    .group = "linear algebra",
    .doc =
        "The rows of x (..., m, n) exchanged as lu_factor's pivots (..., k) say: row i "
        "with row pivots[i], one after the other. Leading dimensions broadcast.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x pivots",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .attrs = pivot_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = pivot_infer,
    .cpu = pivot_cpu,
    .gradient = pivot_gradient,
    .save_in = NYX_SAVE(1),
    .forward = pivot_forward,
    .batch = pivot_batch,
    .cases =
        "x(4,3) pivots(3)<4\nx(2,4,3) pivots(4)<4; inverse=true\n"
        "x(4,2) pivots(2,3)<4\nx(3,0) pivots(3)<3",
    .domain = {-2, 2},
};
