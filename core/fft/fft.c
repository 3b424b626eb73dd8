/* The Fourier transforms as ops: complex to complex and real to the half of its transform
 * that says all, along some dimensions, and back along one. lua/nyx/fft.lua makes
 * PyTorch's functions of them. Read next: lines.h, core/op/complex.c. */
#include <string.h>

#include "../op/ops.h"
#include "../tensor/tensor.h"
#include "lines.h"

#define DIM_ATTR                                                                         \
  { "dim", NYX_ATTR_DIM, false, NYX_I(-1), "the dimension" }
#define SCALE_ATTR                                                                       \
  { "scale", NYX_ATTR_FLOAT, false, NYX_F(1), "what every result is multiplied by" }

static const int64_t last[] = {-1};
#define DIMS_ATTR(doc)                                                                   \
  { "dim", NYX_ATTR_DIMS, false, NYX_LIST(last, 1), doc }

/* Checks the dimension, which has to have elements, and takes it as all results have it,
 * with `size` in its place. */
static nyx_status infer_line(nyx_call *c, int64_t given, nyx_dtype dtype, int64_t size) {
  const nyx_tensor *x = c->in[0];
  int dim;
  if (x->ndim == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", "", "at least one dimension");
  NYX_TRY(nyx__dim(c->ctx, given, x->ndim, &dim));
  nyx__spec(&c->spec[0], dtype, x->ndim, x->shape);
  c->spec[0].shape[dim] = size < 0 ? x->shape[dim] : size;
  nyx__strides(x->ndim, c->spec[0].shape, c->spec[0].stride);
  if (x->shape[dim] == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "elements in the dimension that is transformed");
  return NYX_OK;
}

/* The same for several dimensions, of which the last one has `size` in its place. */
static nyx_status infer_lines(nyx_call *c, nyx_dtype dtype, int64_t size) {
  const nyx_value *dims = &c->attr[0];
  if (dims->n == 0)
    return nyx__error(c->ctx, ATTR_RANGE, "size of dim", 0LL, "1 or more");
  for (int i = 0; i < dims->n; i++)
    NYX_TRY(infer_line(c, dims->list[i], dtype, i == dims->n - 1 ? size : -1));
  return NYX_OK;
}

/* The lines of t along dim, `item` floats an element. */
static nyx__fft_set lines_of(const nyx_tensor *t, int dim, int64_t item) {
  nyx__fft_set s = {.data = nyx__data(t), .count = 1, .inner = 1};
  for (int d = 0; d < t->ndim; d++)
    if (d != dim) s.count *= t->shape[d];
  for (int d = dim + 1; d < t->ndim; d++) s.inner *= t->shape[d];
  s.step = s.inner * item;
  s.inner_step = item;
  s.outer_step = s.step * t->shape[dim];
  if (s.inner == 0) s.inner = 1; /* no lines */
  return s;
}

/* x, which is contiguous, along one dimension; `x` may be c's result itself where both
 * are complex. */
static nyx_status run_one(nyx_call *c, nyx_fft_kind kind, const nyx_tensor *x,
                          int64_t given, bool inverse, double scale) {
  const nyx_tensor *out = c->out[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, given, x->ndim, &dim));
  const nyx__fft_set from = lines_of(x, dim, kind == NYX_FFT_FROM_REAL ? 1 : 2);
  const nyx__fft_set to = lines_of(out, dim, kind == NYX_FFT_TO_REAL ? 1 : 2);
  int64_t n = kind == NYX_FFT_TO_REAL ? out->shape[dim] : x->shape[dim];
  return nyx__fft_lines(c->ctx, kind, nyx_dtype_real(out->dtype) == NYX_FLOAT64, n,
                        inverse, scale, &from, &to);
}

/* Along the last two of x, if they are the last two of `n` dimensions: planes of results
 * stay in the caches from one to the other. *done: how many dimensions, 2 or 0. */
static nyx_status run_planes(nyx_call *c, nyx_fft_kind kind, const nyx_tensor *x,
                             const int64_t *dims, int n, bool inverse, double scale,
                             int *done) {
  const nyx_tensor *out = c->out[0];
  int across, before, ndim = x->ndim;
  if (n < 2 || ndim < 3) return NYX_OK;
  NYX_TRY(nyx__dim(c->ctx, dims[n - 1], ndim, &across));
  NYX_TRY(nyx__dim(c->ctx, dims[n - 2], ndim, &before));
  if (across != ndim - 1 || before != ndim - 2) return NYX_OK;
  int64_t planes = 1, rows = x->shape[before];
  for (int d = 0; d < before; d++) planes *= x->shape[d];
  const int item = kind == NYX_FFT_FROM_REAL ? 1 : 2;
  const int64_t from = rows * x->shape[across] * item, to = rows * out->shape[across] * 2;
  const nyx__fft_side sides[2] = {
      {kind, x->shape[across], scale, lines_of(x, across, item), lines_of(out, across, 2),
       from, to},
      {NYX_FFT_COMPLEX, rows, 1, lines_of(out, before, 2), lines_of(out, before, 2), to,
       to},
  };
  bool whole;
  NYX_TRY(nyx__fft_planes(c->ctx, nyx_dtype_real(out->dtype) == NYX_FLOAT64, planes,
                          inverse, sides, &whole));
  *done = whole ? 2 : 0;
  return NYX_OK;
}

/* Along the last of `n` dimensions, where kinds of numbers change, and then, in the
 * result, along the others. */
static nyx_status run(nyx_call *c, nyx_fft_kind kind, const int64_t *dims, int n,
                      bool inverse, double scale) {
  nyx_tensor *x, *out = c->out[0];
  NYX_TRY(nyx__contiguous_as(
      c->ctx, c->in[0], kind == NYX_FFT_FROM_REAL ? nyx_dtype_real(out->dtype) : c->dtype,
      &x));
  int done = 0;
  nyx_status status = run_planes(c, kind, x, dims, n, inverse, scale, &done);
  if (status == NYX_OK && !done)
    status = run_one(c, kind, x, dims[n - 1], inverse, scale);
  if (!done) done = 1;
  for (int i = n - 1 - done; status == NYX_OK && i >= 0; i--)
    status = run_one(c, NYX_FFT_COMPLEX, out, dims[i], inverse, 1);
  nyx_tensor_release(x);
  return status;
}

/* complex to complex */

static nyx_status complex_infer(nyx_call *c) {
  return infer_lines(c, c->dtype, -1);
}

static nyx_status complex_cpu(nyx_call *c) {
  return run(c, NYX_FFT_COMPLEX, c->attr[0].list, c->attr[0].n, c->attr[1].i != 0,
             c->attr[2].f);
}

/* The adjoint of the transform is the inverse, but for its scale. */
static nyx_status complex_gradient(nyx_backward *b) {
  const nyx_value attr[] = {b->attr[0], NYX_I(b->attr[1].i == 0), b->attr[2]};
  return nyx__apply1(b->ctx, NYX__OP_fft_complex, b->grad_out[0], attr, &b->grad_in[0]);
}

static const nyx_attr complex_attrs[] = {DIMS_ATTR("the dimensions, one after the other"),
                                         {"inverse", NYX_ATTR_BOOL, false, NYX_I(0),
                                          "e^(+2 pi i j k / n) in place of e^(-...)"},
                                         SCALE_ATTR};

const nyx_op nyx__op_fft_complex = {
    .name = "fft_complex",
    .group = "fourier",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "the sums over j of x[j] e^(-2 pi i j k / n) along one or more dimensions, n the "
        "size of each; nyx.fft has PyTorch's functions",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = complex_attrs,
    .n_attrs = 3,
    .infer = complex_infer,
    .cpu = complex_cpu,
    .gradient = complex_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases =
        "x(3,6)<complex64; dim={2}\n"
        "x(7,2)<complex64; dim={1} inverse=true scale=0.5\n"
        "x(3,4,2)<complex64; dim={1,-2,3}",
};

/* real to complex */

static nyx_status real_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  const nyx_value *dims = &c->attr[0];
  int dim = 0;
  bool any = x->ndim && dims->n;
  if (any) NYX_TRY(nyx__dim(c->ctx, dims->list[dims->n - 1], x->ndim, &dim));
  return infer_lines(c, nyx_dtype_promote(c->dtype, NYX_COMPLEX64),
                     any ? x->shape[dim] / 2 + 1 : 0);
}

static nyx_status real_cpu(nyx_call *c) {
  return run(c, NYX_FFT_FROM_REAL, c->attr[0].list, c->attr[0].n, false, c->attr[1].f);
}

/* x times weights along dim: `inner` for all but the first and, of an even n, the last of
 * its n / 2 + 1 elements, which are 1. */
static nyx_status weigh(nyx_context *ctx, nyx_tensor *x, int dim, int64_t n, double inner,
                        nyx_tensor **out) {
  nyx_tensor *weight;
  int64_t shape[NYX_MAX_DIMS], size = n / 2 + 1;
  for (int d = 0; d < x->ndim; d++) shape[d] = d == dim ? size : 1;
  nyx_dtype dtype = nyx_dtype_real(x->dtype);
  NYX_TRY(nyx_tensor_empty(ctx, dtype, x->ndim, shape, &weight));
  char *at = nyx__data(weight);
  for (int64_t k = 0; k < size; k++, at += nyx__item(dtype))
    nyx__store_double(dtype, at, k == 0 || 2 * k == n ? 1 : inner);
  nyx_status status = nyx__apply2(ctx, NYX__OP_mul, x, weight, NULL, out);
  nyx_tensor_release(weight);
  return status;
}

/* Re of the sums over k <= n / 2 of g[k] e^(+2 pi i j k / n): what the transform back
 * gives for halves of the inner ones, as it adds their conjugates. Along the other
 * dimensions as of complex numbers. */
static nyx_status real_gradient(nyx_backward *b) {
  int dim, others = b->attr[0].n - 1;
  NYX_TRY(nyx__dim(b->ctx, b->attr[0].list[others], b->in_spec->ndim, &dim));
  int64_t n = b->in_spec->shape[dim];
  const nyx_value across[] = {NYX_LIST(b->attr[0].list, others), NYX_I(1), NYX_F(1)};
  const nyx_value attr[] = {NYX_I(n), NYX_I(dim), b->attr[1]};
  nyx_tensor *g = nyx_tensor_retain(b->grad_out[0]), *half = NULL, *back = NULL;
  nyx_status status = NYX_OK;
  if (others) {
    nyx_tensor_release(g);
    status = nyx__apply1(b->ctx, NYX__OP_fft_complex, b->grad_out[0], across, &g);
    if (status != NYX_OK) g = NULL;
  }
  if (status == NYX_OK) status = weigh(b->ctx, g, dim, n, 0.5, &half);
  if (status == NYX_OK)
    status = nyx__apply1(b->ctx, NYX__OP_fft_to_real, half, attr, &back);
  if (status == NYX_OK)
    status = nyx__to_dtype(b->ctx, back, b->in_spec->dtype, &b->grad_in[0]);
  nyx_tensor_release(back);
  nyx_tensor_release(half);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr real_attrs[] = {
    DIMS_ATTR("the dimensions: real numbers along the last of them"), SCALE_ATTR};

const nyx_op nyx__op_fft_from_real = {
    .name = "fft_from_real",
    .group = "fourier",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .doc =
        "the first n/2 + 1 results of the transform of real numbers along a dimension of "
        "size n, of which the others are the conjugates, and its transform along others",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = real_attrs,
    .n_attrs = 2,
    .infer = real_infer,
    .cpu = real_cpu,
    .gradient = real_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(3,6); dim={2}\nx(7,2); dim={1} scale=0.5\nx(3,4,2); dim={1,2}",
};

/* complex to real */

static nyx_status back_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  int dim = 0;
  int64_t n = c->attr[0].i;
  if (x->ndim) NYX_TRY(nyx__dim(c->ctx, c->attr[1].i, x->ndim, &dim));
  if (n < 1) return nyx__error(c->ctx, ATTR_RANGE, "n", (long long)n, "1 or more");
  if (x->ndim && x->shape[dim] != n / 2 + 1)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "n/2 + 1 elements in the dimension");
  return infer_line(c, c->attr[1].i, nyx_dtype_real(c->dtype), n);
}

static nyx_status back_cpu(nyx_call *c) {
  return run(c, NYX_FFT_TO_REAL, &c->attr[1].i, 1, true, c->attr[2].f);
}

static nyx_status back_gradient(nyx_backward *b) {
  int dim;
  nyx_tensor *g;
  NYX_TRY(nyx__dim(b->ctx, b->attr[1].i, b->in_spec->ndim, &dim));
  const int64_t dims[] = {dim};
  const nyx_value attr[] = {NYX_LIST(dims, 1), b->attr[2]};
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_fft_from_real, b->grad_out[0], attr, &g));
  nyx_status status = weigh(b->ctx, g, dim, b->attr[0].i, 2, &b->grad_in[0]);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr back_attrs[] = {
    {"n", NYX_ATTR_INT, true, NYX_NONE, "the size of the result"}, DIM_ATTR, SCALE_ATTR};

const nyx_op nyx__op_fft_to_real = {
    .name = "fft_to_real",
    .group = "fourier",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "n real numbers along a dimension whose transform begins with the n/2 + 1 of x: "
        "the inverse of fft_from_real, times n",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = back_attrs,
    .n_attrs = 3,
    .infer = back_infer,
    .cpu = back_cpu,
    .gradient = back_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(3,4)<complex64; n=6 dim=2\nx(4,2)<complex64; n=7 dim=1",
};
