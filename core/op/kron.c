/* kron_product: the Kronecker products of matrices, row by row. What Tensor:kron is made
 * of where it can (lua/nyx/products.lua). Read next: steps.h. */
#include <nyx/parallel.h>

#include "../tensor/tensor.h"
#include "index.h"
#include "ops.h"
#include "steps.h"

#define GRAIN 16384                  /* elements that are worth waking a thread for */
#define MOST_DIMS (NYX_MAX_DIMS - 2) /* the gradient has two more */

static int64_t size(const nyx_tensor *t, int from_end) {
  return t->shape[t->ndim - from_end];
}

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *y = c->in[1];
  nyx_spec *spec = &c->spec[0];
  for (int i = 0; i < 2; i++)
    if (c->in[i]->ndim < 2 || c->in[i]->ndim > MOST_DIMS)
      return nyx__error(c->ctx, NDIM_EXPECTED, i ? "y" : "x", NYX__SHAPE(c->in[i]),
                        "2 to 6 dimensions (..., rows, columns)");
  if (!nyx__broadcast(x->ndim - 2, x->shape, y->ndim - 2, y->shape, &spec->ndim,
                      spec->shape))
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(x), NYX__SHAPE(y));
  for (int d = 2; d > 0; d--)
    if (__builtin_mul_overflow(size(x, d), size(y, d), &spec->shape[spec->ndim++]))
      return nyx__error(c->ctx, SIZE_OVERFLOW, NYX__SHAPE(x));
  spec->dtype = c->dtype;
  return NYX_OK;
}

/* Of each entry of the batch x is (rows, columns), y (down, across). */
typedef struct pass {
  const void *x, *y;
  void *to;
  int64_t rows, columns, down, across;
} pass;

/* A row of the result: y's row times each element of x's. Short ones have a length that
 * the compiler knows. */
#define KRON(name, type)                                                                 \
  static inline void name##_row(int64_t columns, int64_t across, const type *x,          \
                                const type *y, type *restrict to) {                      \
    for (int64_t i = 0; i < columns; i++, to += across)                                  \
      for (int64_t k = 0; k < across; k++) to[k] = x[i] * y[k];                          \
  }                                                                                      \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    const pass *p = arg;                                                                 \
    const int64_t n = p->columns;                                                        \
    for (int64_t row = begin; row < end; row++) {                                        \
      const int64_t in_x = row / p->down, entry = in_x / p->rows;                        \
      const type *x = (const type *)p->x + in_x * n;                                     \
      const type *y =                                                                    \
          (const type *)p->y + (entry * p->down + row % p->down) * p->across;            \
      type *to = (type *)p->to + row * n * p->across;                                    \
      switch (p->across) {                                                               \
        case 2: name##_row(n, 2, x, y, to); break;                                       \
        case 3: name##_row(n, 3, x, y, to); break;                                       \
        case 4: name##_row(n, 4, x, y, to); break;                                       \
        case 8: name##_row(n, 8, x, y, to); break;                                       \
        case 16: name##_row(n, 16, x, y, to); break;                                     \
        default: name##_row(n, p->across, x, y, to);                                     \
      }                                                                                  \
    }                                                                                    \
  }
KRON(kron_float, float)
KRON(kron_double, double)

/* t as a batch of matrices with leading dimensions as the result has. */
static nyx_status spread(nyx_call *c, nyx_tensor *t, nyx_tensor **out) {
  const nyx_tensor *like = c->out[0];
  int64_t shape[NYX_MAX_DIMS];
  for (int d = 0; d < like->ndim - 2; d++) shape[d] = like->shape[d];
  for (int d = 2; d > 0; d--) shape[like->ndim - d] = size(t, d);
  return nyx__expanded_as(c->ctx, t, c->dtype, like->ndim, shape, out);
}

static nyx_status cpu(nyx_call *c) {
  nyx_tensor *x = NULL, *y = NULL, *out = c->out[0];
  if (out->numel == 0) return NYX_OK;
  nyx_status status = spread(c, c->in[0], &x);
  if (status == NYX_OK) status = spread(c, c->in[1], &y);
  if (status == NYX_OK) {
    pass p = {.x = nyx__data(x),
              .y = nyx__data(y),
              .to = nyx__data(out),
              .rows = size(x, 2),
              .columns = size(x, 1),
              .down = size(y, 2),
              .across = size(y, 1)};
    const int64_t row = size(out, 1);
    status = nyx__parallel_for(c->ctx, out->numel / row, GRAIN / row + 1,
                               c->dtype == NYX_FLOAT64 ? kron_double : kron_float, &p);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return status;
}

/* Matrices whose last two dimensions become these four. */
static nyx_status split(nyx__steps *s, nyx_tensor *t, const int64_t last[4],
                        nyx_tensor **out) {
  int64_t shape[NYX_MAX_DIMS];
  const int lead = t->ndim - 2;
  for (int d = 0; d < lead; d++) shape[d] = t->shape[d];
  for (int d = 0; d < 4; d++) shape[lead + d] = last[d];
  const nyx_value to = NYX_LIST(shape, lead + 4);
  return nyx__step(s, NYX__OP_reshape, t, NULL, &to, out);
}

/* To input i: the gradient as (..., rows, down, columns, across), times the other, summed
 * over what the other has. */
static nyx_status one_gradient(nyx__steps *s, nyx_backward *b, int i) {
  nyx_tensor *x = b->in[0], *y = b->in[1], *g = b->grad_out[0], *other, *product;
  const int64_t all[4] = {size(x, 2), size(y, 2), size(x, 1), size(y, 1)};
  int64_t of_other[4], dims[2];
  for (int d = 0; d < 4; d++) of_other[d] = d % 2 == i ? 1 : all[d];
  for (int d = 0; d < 2; d++) dims[d] = g->ndim - 2 + 2 * d + (1 - i);
  const nyx_value over[2] = {NYX_LIST(dims, 2), NYX_I(0)};
  NYX_TRY(split(s, g, all, &g));
  NYX_TRY(split(s, b->in[1 - i], of_other, &other));
  NYX_TRY(nyx__step(s, NYX__OP_mul, g, other, NULL, &product));
  NYX_TRY(nyx__step(s, NYX__OP_sum, product, NULL, over, &product));
  return nyx__sum_to(s->ctx, product, &b->in_spec[i], &b->grad_in[i]);
}

static nyx_status gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  nyx_status status = NYX_OK;
  for (int i = 0; b->grad_out[0] && status == NYX_OK && i < 2; i++)
    if (b->need[i]) status = one_gradient(&s, b, i);
  return nyx__steps_end(&s, status);
}

const nyx_op nyx__op_kron_product = {
    .name = "kron_product",
    .group = "linear algebra",
    .doc =
        "The Kronecker products of matrices x (..., n, m) and y (..., k, l): (..., n k, "
        "m l); leading dimensions are batches and broadcast. See kron, which takes "
        "tensors of any dimensions.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES(NYX_FLOAT32) | NYX_DTYPES(NYX_FLOAT64),
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .forward = nyx__forward_product,
    .save_in = NYX_SAVE_ALL,
    .batch = nyx__batch_aligned,
    .cases = "x(2,3) y(4,2)\nx(2,1,2,2) y(3,1,5)\nx(0,2) y(3,2)",
    .domain = {-2, 2},
};
