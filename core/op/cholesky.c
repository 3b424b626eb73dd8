/* cholesky, cholesky_inverse, and what the ops on matrices share. Read next: factor.h. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "../device/device.h"
#include "factor.h"

nyx_status nyx__matrix_check(nyx_context *ctx, const char *name, const nyx_tensor *t,
                             bool square) {
  if (t->ndim < 2)
    return nyx__error(ctx, NDIM_EXPECTED, name, NYX__SHAPE(t),
                      "2 dimensions or more, matrices (..., rows, columns)");
  if (square && nyx__rows(t) != nyx__columns(t))
    return nyx__error(ctx, MATRIX_SQUARE, name, NYX__SHAPE(t));
  if (nyx__rows(t) > INT_MAX || nyx__columns(t) > INT_MAX)
    return nyx__error(ctx, LAPACK_SIZE, name, NYX__SHAPE(t), INT_MAX);
  return NYX_OK;
}

int64_t nyx__matrices(const nyx_tensor *t) {
  int64_t count = 1;
  for (int d = 0; d < t->ndim - 2; d++) count *= t->shape[d];
  return count;
}

nyx_status nyx__matrices_turned(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec(&spec, t->dtype, t->ndim, t->shape);
  memcpy(spec.stride, t->stride, sizeof spec.stride);
  for (int d = t->ndim - 2; d < t->ndim; d++) {
    const int other = 2 * t->ndim - 3 - d;
    spec.shape[d] = t->shape[other];
    spec.stride[d] = t->stride[other];
  }
  spec.offset = t->offset;
  return nyx__tensor_view(ctx, t->storage, &spec, out);
}

void nyx__spec_columns(nyx_spec *spec) {
  nyx__strides(spec->ndim, spec->shape, spec->stride);
  const int64_t rows = spec->shape[spec->ndim - 2];
  spec->stride[spec->ndim - 2] = 1;
  spec->stride[spec->ndim - 1] = rows > 0 ? rows : 1;
  spec->laid_out = true;
}

nyx_status nyx__ints(nyx_context *ctx, int64_t count, int **out) {
  const size_t bytes = (size_t)(count > 0 ? count : 1) * sizeof **out;
  if (!(*out = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  memset(*out, 0, bytes);
  return NYX_OK;
}

int64_t nyx__flawed(const nyx_tensor *t, const int *info) {
  const int64_t count = nyx__matrices(t);
  for (int64_t e = 0; e < count; e++)
    if (info[e] != 0) return e;
  return -1;
}

const char *nyx__matrix_text(const nyx_context *ctx, const nyx_tensor *t, int64_t entry,
                             char text[NYX__MATRIX_TEXT]) {
  int64_t at[NYX_MAX_DIMS];
  if (t->ndim == 2) return "the matrix";
  for (int d = t->ndim - 3; d >= 0; d--) {
    at[d] = entry % t->shape[d] + ctx->index_base;
    entry /= t->shape[d];
  }
  size_t used = (size_t)snprintf(text, NYX__MATRIX_TEXT, "matrix (");
  for (int d = 0; d < t->ndim - 2 && used < NYX__MATRIX_TEXT - 24; d++)
    used += (size_t)snprintf(text + used, NYX__MATRIX_TEXT - used, "%s%lld",
                             d ? ", " : "", (long long)at[d]);
  snprintf(text + used, NYX__MATRIX_TEXT - used, ") of the batch");
  return text;
}

/* The factor U of A = U^T U is that of A = L L^T with rows and columns exchanged: in
 * memory they are the same. */
static nyx_status cholesky_infer(nyx_call *c) {
  NYX_TRY(nyx__matrix_check(c->ctx, "a", c->in[0], true));
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  if (c->attr[0].i) nyx__spec_columns(&c->spec[0]);
  return NYX_OK;
}

static nyx_status cholesky_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0];
  int *info;
  if (out->numel == 0) return NYX_OK;
  const int64_t count = nyx__matrices(out);
  NYX_TRY(nyx__ints(c->ctx, count, &info));
  nyx_status status = nyx__copy_into(c->ctx, c->in[0], out);
  if (status == NYX_OK)
    status =
        nyx__cholesky(c->ctx, out->dtype, count, nyx__rows(out), nyx__data(out), info);
  const int64_t entry = status == NYX_OK ? nyx__flawed(out, info) : -1;
  if (entry >= 0) {
    char text[NYX__MATRIX_TEXT];
    status = nyx__error(c->ctx, NOT_DEFINITE, nyx__matrix_text(c->ctx, out, entry, text),
                        (long long)info[entry]);
  }
  nyx_memory_free(info);
  return status;
}

/* Murray: "Differentiation of the Cholesky decomposition" (2016): with M = L^T G, S of
 * its lower triangle, mirrored, and half of that, the gradient is L^-T S L^-1, which is
 * symmetric. */
static nyx_status gradient_of_factor(nyx__steps *s, nyx_backward *b) {
  const bool upper = b->attr[0].i != 0;
  const nyx__triangle below = {.turned = !upper, .upper = true};
  const nyx__triangle right = {.turned = upper, .right = true};
  nyx_tensor *l = b->out[0], *g = b->grad_out[0], *m, *t;
  if (upper)
    NYX_TRY(nyx__step_product(s, l, false, g, true, &m));
  else
    NYX_TRY(nyx__step_product(s, l, true, g, false, &m));
  NYX_TRY(nyx__step_triangle(s, m, false, 0, &m));
  NYX_TRY(nyx__step_triangle(s, m, false, -1, &t));
  NYX_TRY(nyx__step_turn(s, t, &t));
  NYX_TRY(nyx__step_text(s, "(x + y) * p", m, t, 0.5, &m));
  NYX_TRY(nyx__step_solve(s, l, below, m, &m));
  NYX_TRY(nyx__step_solve(s, l, right, m, &m));
  b->grad_in[0] = nyx_tensor_retain(m);
  return NYX_OK;
}

static nyx_status cholesky_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  return nyx__steps_end(&s, gradient_of_factor(&s, b));
}

static const nyx_attr cholesky_attrs[] = {
    {"upper",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "give U of a = U^T U, from a's upper triangle, in place of L of a = L L^T"}};

const nyx_op nyx__op_cholesky = {
    .name = "cholesky",
    .group = "linear algebra",
    .doc =
        "The lower triangular L of a = L L^T for symmetric positive-definite matrices a "
        "(..., n, n), of which only the lower triangle is read (upper: the upper one). "
        "An "
        "error names the first matrix that is not positive-definite. The gradient is "
        "symmetric.",
    .kind = NYX_OP_STRUCTURAL,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a",
    .min_in = 1,
    .max_in = 1,
    .attrs = cholesky_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = cholesky_infer,
    .cpu = cholesky_cpu,
    .gradient = cholesky_gradient,
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_leading,
    .cases = "a(3,3)<definite\na(2,4,4)<definite; upper=true\na(2,0,0)<definite",
    .domain = {-2, 2},
};

/* cholesky_inverse */

static nyx_status inverse_infer(nyx_call *c) {
  NYX_TRY(nyx__matrix_check(c->ctx, "x", c->in[0], true));
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

/* L of U = L^T has the same elements, rows and columns exchanged. */
static nyx_status lower_of(nyx_call *c, nyx_tensor **out) {
  nyx_tensor *x = c->in[0], *turned;
  if (!c->attr[0].i) return nyx__contiguous(c->ctx, x, out);
  NYX_TRY(nyx__matrices_turned(c->ctx, x, &turned));
  nyx_status status = nyx__contiguous(c->ctx, turned, out);
  nyx_tensor_release(turned);
  return status;
}

static nyx_status inverse_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *l;
  if (out->numel == 0) return NYX_OK;
  NYX_TRY(lower_of(c, &l));
  nyx_status status = nyx__cholesky_inverse(c->ctx, out->dtype, nyx__matrices(out),
                                            nyx__rows(out), nyx__data(l), nyx__data(out));
  nyx_tensor_release(l);
  return status;
}

/* Of Y = (L L^T)^-1 the differential is -Y (dL L^T + L dL^T) Y: the gradient is the lower
 * triangle of -Y (G + G^T) Y L, and Y L = L^-T. */
static nyx_status gradient_of_inverse(nyx__steps *s, nyx_backward *b) {
  const bool upper = b->attr[0].i != 0;
  const nyx__triangle right = {.turned = !upper, .upper = true, .right = true};
  nyx_tensor *y = b->out[0], *g = b->grad_out[0], *t;
  NYX_TRY(nyx__step_turn(s, g, &t));
  NYX_TRY(nyx__step_text(s, "(x + y) * p", g, t, -1, &t));
  NYX_TRY(nyx__step_product(s, y, false, t, false, &t));
  NYX_TRY(nyx__step_solve(s, b->in[0], right, t, &t));
  if (upper) NYX_TRY(nyx__step_turn(s, t, &t));
  NYX_TRY(nyx__step_triangle(s, t, upper, 0, &t));
  b->grad_in[0] = nyx_tensor_retain(t);
  return NYX_OK;
}

static nyx_status inverse_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  return nyx__steps_end(&s, gradient_of_inverse(&s, b));
}

static const nyx_attr inverse_attrs[] = {{"upper",
                                          NYX_ATTR_BOOL,
                                          false,
                                          {.i = false, .given = true},
                                          "x is U of a = U^T U, in place of L of a = "
                                          "L L^T"}};

const nyx_op nyx__op_cholesky_inverse = {
    .name = "cholesky_inverse",
    .group = "linear algebra",
    .doc =
        "The inverses of matrices a = x x^T (..., n, n) whose factors x, as cholesky "
        "gives "
        "them, are, symmetric; only the lower triangle of x is read (upper: the upper "
        "one). A zero on its diagonal gives infinities or nan.",
    .kind = NYX_OP_STRUCTURAL,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = inverse_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = inverse_infer,
    .cpu = inverse_cpu,
    .gradient = inverse_gradient,
    .save_in = NYX_SAVE(0),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_leading,
    .cases = "x(3,3)<dominant\nx(2,4,4)<dominant; upper=true\nx(2,0,0)",
    .domain = {-2, 2},
};
