/* lstsq: least squares by QR, whose Q is applied and never formed. Read next: factor.h,
 * core/linalg/qr.c, lua/nyx/linalg.lua. */
#include <string.h>

#include "../device/device.h"
#include "factor.h"

enum { X, RESIDUALS, R };

static nyx_status lstsq_infer(nyx_call *c) {
  const nyx_tensor *a = c->in[0], *b = c->in[1];
  nyx_spec *x = &c->spec[X];
  NYX_TRY(nyx__matrix_check(c->ctx, "a", a, false));
  NYX_TRY(nyx__matrix_check(c->ctx, "b", b, false));
  const int64_t m = nyx__rows(a), n = nyx__columns(a);
  if (m < n) return nyx__error(c->ctx, LSTSQ_WIDE, NYX__SHAPE(a));
  if (nyx__rows(b) != m)
    return nyx__error(c->ctx, SOLVE_SIDES, NYX__SHAPE(b), NYX__SHAPE(a), "rows");
  if (!nyx__broadcast(a->ndim - 2, a->shape, b->ndim - 2, b->shape, &x->ndim, x->shape))
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(a), NYX__SHAPE(b));
  const int lead = x->ndim;
  x->dtype = c->dtype;
  x->ndim = lead + 2;
  x->shape[lead] = n;
  x->shape[lead + 1] = nyx__columns(b);
  nyx__spec(&c->spec[RESIDUALS], c->dtype, lead + 1, x->shape);
  c->spec[RESIDUALS].shape[lead] = nyx__columns(b);
  nyx__spec(&c->spec[R], c->dtype, lead + 2, x->shape);
  c->spec[R].shape[lead + 1] = n;
  nyx__spec_columns(&c->spec[R]);
  return NYX_OK;
}

/* A copy of t, column-major, once, or for every matrix of x. */
static nyx_status columns_of(nyx_call *c, nyx_tensor *t, bool once, nyx_tensor **out) {
  const nyx_tensor *x = once ? t : c->out[X];
  nyx_tensor *all;
  nyx_spec spec;
  nyx__spec(&spec, t->dtype, x->ndim, x->shape);
  spec.shape[x->ndim - 2] = nyx__rows(t);
  spec.shape[x->ndim - 1] = nyx__columns(t);
  nyx__spec_columns(&spec);
  NYX_TRY(nyx__tensor_of(c->ctx, c->device, &spec, out));
  nyx_status status = nyx__expanded(c->ctx, t, spec.ndim, spec.shape, &all);
  if (status == NYX_OK) {
    status = nyx__copy_into(c->ctx, all, *out);
    nyx_tensor_release(all);
  }
  if (status != NYX_OK) {
    nyx_tensor_release(*out);
    *out = NULL;
  }
  return status;
}

/* What Q^T b leaves: the first n rows go to x, the squares of the others into sums. */
static void split(const nyx_call *c, const nyx_tensor *b) {
  const nyx_tensor *x = c->out[X];
  const int64_t count = nyx__matrices(x), m = nyx__rows(b), n = nyx__rows(x),
                k = nyx__columns(x);
  const size_t item = nyx_dtype_size(x->dtype);
  for (int64_t e = 0; e < count; e++)
    for (int64_t j = 0; j < k; j++) {
      const char *from = (const char *)nyx__data(b) + (size_t)((e * k + j) * m) * item;
      char *to = (char *)nyx__data(x) + (size_t)(e * n * k + j) * item;
      double sum = 0;
      for (int64_t i = 0; i < n; i++)
        memcpy(to + (size_t)(i * k) * item, from + (size_t)i * item, item);
      for (int64_t i = n; i < m; i++) {
        const double v = nyx__load_double(x->dtype, from + (size_t)i * item);
        sum += v * v;
      }
      nyx__store_double(x->dtype,
                        (char *)nyx__data(c->out[RESIDUALS]) + (size_t)(e * k + j) * item,
                        sum);
    }
}

/* The first zero on the diagonal of an R is an error. */
static nyx_status check_rank(nyx_call *c) {
  const nyx_tensor *r = c->out[R];
  const int64_t count = nyx__matrices(r), n = nyx__rows(r);
  const size_t item = nyx_dtype_size(r->dtype);
  for (int64_t at = 0; at < count * n; at++) {
    const char *p =
        (const char *)nyx__data(r) + (size_t)(at / n * n * n + at % n * (n + 1)) * item;
    char text[NYX__MATRIX_TEXT];
    if (nyx__load_double(r->dtype, p) == 0)
      return nyx__error(c->ctx, SINGULAR, nyx__matrix_text(c->ctx, r, at / n, text),
                        (long long)(at % n + c->ctx->index_base),
                        "the R of its QR factorization");
  }
  return NYX_OK;
}

/* One matrix a for all b takes these as columns of one: they follow each other. */
static nyx_status solve_for(nyx_call *c, nyx_tensor *a, nyx_tensor *b, int64_t *at) {
  nyx_tensor *x = c->out[X], *r = c->out[R];
  const int64_t count = nyx__matrices(x), n = nyx__rows(x), factored = nyx__matrices(a);
  const size_t bytes = (size_t)(n * n) * nyx_dtype_size(x->dtype);
  const nyx__qr_job job = {.dtype = x->dtype,
                           .count = factored,
                           .m = nyx__rows(a),
                           .n = n,
                           .a = nyx__data(a),
                           .a_step = nyx__rows(a) * n,
                           .r = nyx__data(r),
                           .r_rows = n,
                           .b = nyx__data(b),
                           .b_cols = nyx__columns(b) * count / factored};
  NYX_TRY(nyx__qr(c->ctx, &job));
  for (int64_t e = factored; e < count; e++)
    memcpy((char *)nyx__data(r) + (size_t)e * bytes, nyx__data(r), bytes);
  NYX_TRY(check_rank(c));
  split(c, b);
  if (x->numel == 0) return NYX_OK;
  for (int64_t e = 0; e < count; e++) at[e] = e * n * n;
  const nyx__triangular t = {.dtype = x->dtype,
                             .count = count,
                             .rows = n,
                             .cols = nyx__columns(x),
                             .a = nyx__data(r),
                             .at = at,
                             .ld = n,
                             .turned = true,
                             .upper = true,
                             .left = true,
                             .x = nyx__data(x)};
  return nyx__solve_triangles(c->ctx, &t);
}

static nyx_status lstsq_cpu(nyx_call *c) {
  nyx_tensor *a = NULL, *b = NULL;
  int64_t *at = NULL;
  const int64_t count = nyx__matrices(c->out[X]);
  const size_t bytes = (size_t)(count > 0 ? count : 1) * sizeof *at;
  nyx_status status = columns_of(c, c->in[0], nyx__matrices(c->in[0]) == 1, &a);
  if (status == NYX_OK) status = columns_of(c, c->in[1], false, &b);
  if (status == NYX_OK && !(at = nyx_memory_alloc(bytes)))
    status = nyx__no_memory(c->ctx, bytes);
  if (status == NYX_OK && c->out[R]->numel > 0)
    status = solve_for(c, a, b, at);
  else if (status == NYX_OK)
    split(c, b); /* nothing to solve for: sums of b's own squares */
  nyx_memory_free(at);
  nyx_tensor_release(b);
  nyx_tensor_release(a);
  return status;
}

/* R, from A itself where a gradient will be differentiated. */
static nyx_status upper_of(nyx__steps *s, nyx_backward *b, nyx_tensor **out) {
  nyx_tensor *qr[NYX_MAX_OUTPUTS] = {NULL};
  *out = b->out[R];
  if (!b->ctx->grad_enabled && !nyx__any_lifted(b->in, b->n_in)) return NYX_OK;
  NYX_TRY(nyx_apply(b->ctx, nyx__op(NYX__OP_qr), b->in, 1, NULL, qr));
  nyx__step_keep(s, qr[0]);
  *out = nyx__step_keep(s, qr[1]);
  return NYX_OK;
}

/* Of x = (A^T A)^-1 A^T b, by z = (A^T A)^-1 g = R^-1 R^-T g and e = b - A x, which A^T
 * takes to zero (Golub, Pereyra: "The differentiation of pseudo-inverses and nonlinear
 * least squares problems whose variables separate", 1973): b has the gradient w = A z, A
 * has e z^T - w x^T; of sums e^2, 2 e h is added to w. Gives that of A, before anything
 * is summed, where it is wanted. */
static nyx_status solution_gradients(nyx__steps *s, nyx_backward *b, nyx_tensor *r,
                                     nyx_tensor **out) {
  nyx_tensor *g = b->grad_out[X], *h = b->grad_out[RESIDUALS], *a = b->in[0];
  nyx_tensor *x = b->out[X], *e, *z = NULL, *w = NULL, *t;
  const nyx_value above = NYX_I(-2);
  NYX_TRY(nyx__step_product(s, a, false, x, false, &e));
  NYX_TRY(nyx__step(s, NYX__OP_sub, b->in[1], e, NULL, &e));
  if (g) {
    NYX_TRY(nyx__step_solve(s, r, (nyx__triangle){.turned = true}, g, &z));
    NYX_TRY(nyx__step_solve(s, r, (nyx__triangle){.upper = true}, z, &z));
    NYX_TRY(nyx__step_product(s, a, false, z, false, &w));
  }
  if (h) {
    NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, h, NULL, &above, &h));
    NYX_TRY(nyx__step_text(s, "x * y * p", e, h, 2, &t));
    if (w) NYX_TRY(nyx__step(s, NYX__OP_add, w, t, NULL, &w));
    if (!w) w = t;
  }
  if (b->need[1]) NYX_TRY(nyx__sum_to(s->ctx, w, &b->in_spec[1], &b->grad_in[1]));
  if (!b->need[0]) return NYX_OK;
  NYX_TRY(nyx__step_product(s, w, false, x, true, &t));
  if (z) {
    NYX_TRY(nyx__step_product(s, e, false, z, true, &e));
    NYX_TRY(nyx__step(s, NYX__OP_sub, e, t, NULL, &t));
  } else {
    NYX_TRY(nyx__step(s, NYX__OP_neg, t, NULL, NULL, &t));
  }
  *out = t;
  return NYX_OK;
}

/* Through R, whose Q is A R^-1. */
static nyx_status factor_gradient(nyx__steps *s, nyx_backward *b, nyx_tensor *r,
                                  nyx_tensor **out) {
  const nyx__triangle right = {.upper = true, .right = true};
  nyx_tensor *q;
  NYX_TRY(nyx__step_solve(s, r, right, b->in[0], &q));
  return nyx__step_qr_gradient(s, q, r, NULL, b->grad_out[R], out);
}

static nyx_status lstsq_gradients(nyx__steps *s, nyx_backward *b) {
  nyx_tensor *r, *sum = NULL, *t = NULL;
  NYX_TRY(upper_of(s, b, &r));
  if (b->grad_out[X] || b->grad_out[RESIDUALS])
    NYX_TRY(solution_gradients(s, b, r, &sum));
  if (!b->need[0]) return NYX_OK;
  if (b->grad_out[R]) NYX_TRY(factor_gradient(s, b, r, &t));
  if (sum && t) NYX_TRY(nyx__step(s, NYX__OP_add, sum, t, NULL, &sum));
  if (!sum && !t) return NYX_OK;
  return nyx__sum_to(s->ctx, sum ? sum : t, &b->in_spec[0], &b->grad_in[0]);
}

static nyx_status lstsq_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  return nyx__steps_end(&s, lstsq_gradients(&s, b));
}

const nyx_op nyx__op_lstsq = {
    .name = "lstsq",
    .group = "linear algebra",
    .doc =
        "The x of least |a x - b| for matrices a (..., m, n) of full rank, m >= n, and b "
        "(..., m, k), by QR; the sums of squares that are left (..., k); and r of a = q "
        "r. Leading dimensions broadcast. An error "
        "names the first matrix with a zero on r's diagonal. See linalg.lstsq, which "
        "takes vectors and wide matrices too.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a b",
    .min_in = 2,
    .max_in = 2,
    .n_out = 3,
    .infer = lstsq_infer,
    .cpu = lstsq_cpu,
    .gradient = lstsq_gradient,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .save_out = NYX_SAVE(X) | NYX_SAVE(R),
    .batch = nyx__batch_aligned,
    .cases =
        "a(5,3)<regular b(5,2)\na(3,3)<regular b(2,3,1)\na(2,4,3)<regular b(4,2)\n"
        "a(3,0) b(3,2)\na(0,0) b(0,2)",
    .domain = {-2, 2},
};
