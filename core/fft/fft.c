/* The Fourier transforms as ops, along one dimension each: complex to complex, real to
 * the half of its transform that says all, and back. lua/nyx/fft.lua makes PyTorch's
 * functions of them. Read next: lines.h, core/op/complex.c. */
#include <string.h>

#include "../op/ops.h"
#include "../tensor/tensor.h"
#include "lines.h"

#define DIM_ATTR                                                                         \
  { "dim", NYX_ATTR_DIM, false, NYX_I(-1), "the dimension" }
#define SCALE_ATTR                                                                       \
  { "scale", NYX_ATTR_FLOAT, false, NYX_F(1), "what every result is multiplied by" }

/* Checks the dimension, which has to have elements, and takes it as all results have it,
 * with `size` in its place. */
static nyx_status infer_line(nyx_call *c, int dim_attr, nyx_dtype dtype, int64_t size) {
  const nyx_tensor *x = c->in[0];
  int dim;
  if (x->ndim == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", "", "at least one dimension");
  NYX_TRY(nyx__dim(c->ctx, c->attr[dim_attr].i, x->ndim, &dim));
  nyx__spec(&c->spec[0], dtype, x->ndim, x->shape);
  c->spec[0].shape[dim] = size < 0 ? x->shape[dim] : size;
  nyx__strides(x->ndim, c->spec[0].shape, c->spec[0].stride);
  if (x->shape[dim] == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "elements in the dimension that is transformed");
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

static nyx_status run(nyx_call *c, nyx_fft_kind kind, int dim_attr, bool inverse,
                      double scale) {
  nyx_tensor *x, *out = c->out[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[dim_attr].i, c->in[0]->ndim, &dim));
  nyx_dtype real = nyx_dtype_real(out->dtype);
  NYX_TRY(nyx__contiguous_as(c->ctx, c->in[0],
                             kind == NYX_FFT_FROM_REAL ? real : c->dtype, &x));
  const nyx__fft_set from = lines_of(x, dim, kind == NYX_FFT_FROM_REAL ? 1 : 2);
  const nyx__fft_set to = lines_of(out, dim, kind == NYX_FFT_TO_REAL ? 1 : 2);
  int64_t n = kind == NYX_FFT_TO_REAL ? out->shape[dim] : x->shape[dim];
  nyx_status status =
      nyx__fft_lines(c->ctx, kind, real == NYX_FLOAT64, n, inverse, scale, &from, &to);
  nyx_tensor_release(x);
  return status;
}

/* complex to complex */

static nyx_status complex_infer(nyx_call *c) {
  return infer_line(c, 0, c->dtype, -1);
}

static nyx_status complex_cpu(nyx_call *c) {
  return run(c, NYX_FFT_COMPLEX, 0, c->attr[1].i != 0, c->attr[2].f);
}

/* The adjoint of the transform is the inverse, but for its scale. */
static nyx_status complex_gradient(nyx_backward *b) {
  const nyx_value attr[] = {b->attr[0], NYX_I(b->attr[1].i == 0), b->attr[2]};
  return nyx__apply1(b->ctx, NYX__OP_fft_complex, b->grad_out[0], attr, &b->grad_in[0]);
}

static const nyx_attr complex_attrs[] = {DIM_ATTR,
                                         {"inverse", NYX_ATTR_BOOL, false, NYX_I(0),
                                          "e^(+2 pi i j k / n) in place of e^(-...)"},
                                         SCALE_ATTR};

const nyx_op nyx__op_fft_complex = {
    .name = "fft_complex",
    .group = "fourier",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "the sums over j of x[j] e^(-2 pi i j k / n) along a dimension of size n; "
        "nyx.fft has PyTorch's functions",
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
    .cases = "x(3,6)<complex64; dim=2\nx(7,2)<complex64; dim=1 inverse=true scale=0.5",
};

/* real to complex */

static nyx_status real_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  int dim = 0;
  if (x->ndim) NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &dim));
  return infer_line(c, 0, nyx_dtype_promote(c->dtype, NYX_COMPLEX64),
                    x->ndim ? x->shape[dim] / 2 + 1 : 0);
}

static nyx_status real_cpu(nyx_call *c) {
  return run(c, NYX_FFT_FROM_REAL, 0, false, c->attr[1].f);
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
 * gives for halves of the inner ones, as it adds their conjugates. */
static nyx_status real_gradient(nyx_backward *b) {
  int dim;
  nyx_tensor *g;
  NYX_TRY(nyx__dim(b->ctx, b->attr[0].i, b->in_spec->ndim, &dim));
  int64_t n = b->in_spec->shape[dim];
  const nyx_value attr[] = {NYX_I(n), NYX_I(dim), b->attr[1]};
  NYX_TRY(weigh(b->ctx, b->grad_out[0], dim, n, 0.5, &g));
  nyx_tensor *back = NULL;
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_fft_to_real, g, attr, &back);
  if (status == NYX_OK)
    status = nyx__to_dtype(b->ctx, back, b->in_spec->dtype, &b->grad_in[0]);
  nyx_tensor_release(back);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr real_attrs[] = {DIM_ATTR, SCALE_ATTR};

const nyx_op nyx__op_fft_from_real = {
    .name = "fft_from_real",
    .group = "fourier",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .doc =
        "the first n/2 + 1 results of the transform of real numbers along a dimension of "
        "size n; the others are their conjugates",
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
    .cases = "x(3,6); dim=2\nx(7,2); dim=1 scale=0.5",
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
  return infer_line(c, 1, nyx_dtype_real(c->dtype), n);
}

static nyx_status back_cpu(nyx_call *c) {
  return run(c, NYX_FFT_TO_REAL, 1, true, c->attr[2].f);
}

static nyx_status back_gradient(nyx_backward *b) {
  int dim;
  nyx_tensor *g;
  NYX_TRY(nyx__dim(b->ctx, b->attr[1].i, b->in_spec->ndim, &dim));
  const nyx_value attr[] = {NYX_I(dim), b->attr[2]};
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
