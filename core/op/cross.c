/* cross_product: the cross products of vectors of three elements along a dimension, in
 * one pass. What Tensor:cross is made of where it can (lua/nyx/products.lua). Read next:
 * ops.h. */
#include <nyx/parallel.h>

#include "../tensor/tensor.h"
#include "ops.h"

#define GRAIN 8192 /* vectors that are worth waking a thread for */

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *y = c->in[1];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &dim));
  if (x->ndim == 0 || x->shape[dim] != 3)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "size 3 along dimension 'dim'");
  if (!nyx__has_shape(y, x->ndim, x->shape))
    return nyx__error(c->ctx, NDIM_EXPECTED, "y", NYX__SHAPE(y), "the shape of 'x'");
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

/* Vectors whose elements are `inner` apart, so many of them side by side. */
typedef struct pass {
  const void *x, *y;
  void *to;
  int64_t inner;
} pass;

/* A block of `inner` vectors has its first elements, then its second, then its third
 * ones; a range may begin and end within one. */
#define CROSS(name, type)                                                                \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    const pass *p = arg;                                                                 \
    const int64_t n = p->inner;                                                          \
    for (int64_t i = begin, stop; i < end; i = stop) {                                   \
      const int64_t block = i / n, at = block * 3 * n;                                   \
      stop = (block + 1) * n < end ? (block + 1) * n : end;                              \
      const type *x = (const type *)p->x + at, *y = (const type *)p->y + at;             \
      type *restrict to = (type *)p->to + at;                                            \
      for (int64_t k = i - block * n; k < stop - block * n; k++) {                       \
        const type x0 = x[k], x1 = x[k + n], x2 = x[k + 2 * n];                          \
        const type y0 = y[k], y1 = y[k + n], y2 = y[k + 2 * n];                          \
        to[k] = x1 * y2 - x2 * y1;                                                       \
        to[k + n] = x2 * y0 - x0 * y2;                                                   \
        to[k + 2 * n] = x0 * y1 - x1 * y0;                                               \
      }                                                                                  \
    }                                                                                    \
  }
CROSS(cross_float, float)
CROSS(cross_double, double)

static nyx_status cpu(nyx_call *c) {
  nyx_tensor *x = NULL, *y = NULL, *out = c->out[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, out->ndim, &dim));
  nyx_status status = nyx__contiguous(c->ctx, c->in[0], &x);
  if (status == NYX_OK) status = nyx__contiguous(c->ctx, c->in[1], &y);
  if (status == NYX_OK) {
    pass p = {.x = nyx__data(x), .y = nyx__data(y), .to = nyx__data(out), .inner = 1};
    for (int d = dim + 1; d < out->ndim; d++) p.inner *= out->shape[d];
    status = nyx__parallel_for(c->ctx, out->numel / 3, GRAIN,
                               c->dtype == NYX_FLOAT64 ? cross_double : cross_float, &p);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return status;
}

/* Of x cross y: y cross g to x, g cross x to y. */
static nyx_status gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0];
  if (!g) return NYX_OK;
  if (b->need[0])
    NYX_TRY(
        nyx__apply2(b->ctx, NYX__OP_cross_product, b->in[1], g, b->attr, &b->grad_in[0]));
  if (b->need[1])
    NYX_TRY(
        nyx__apply2(b->ctx, NYX__OP_cross_product, g, b->in[0], b->attr, &b->grad_in[1]));
  return NYX_OK;
}

static const nyx_attr attrs[] = {{.name = "dim",
                                  .type = NYX_ATTR_DIM,
                                  .preset = NYX_I(-1),
                                  .doc = "the dimension that the vectors lie along"}};

const nyx_op nyx__op_cross_product = {
    .name = "cross_product",
    .group = "linear algebra",
    .doc =
        "The cross products of vectors of 3 elements along dim (the last one when left "
        "out), of two tensors of equal shape. See cross, which broadcasts.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES(NYX_FLOAT32) | NYX_DTYPES(NYX_FLOAT64),
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .attrs = attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .forward = nyx__forward_product,
    .save_in = NYX_SAVE_ALL,
    .batch = nyx__batch_dims,
    .cases = "x(4,3) y(4,3)\nx(3,5) y(3,5); dim=1\nx(2,3,4) y(2,3,4); dim=2",
    .domain = {-2, 2},
};
