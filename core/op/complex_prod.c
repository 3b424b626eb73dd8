/* complex_prod: products of complex numbers along a row in one pass, which `prod` takes
 * where nothing is recorded. Read next: complex.c (product_along), kernels/cpu/complex.h.
 */
#include <nyx/parallel.h>

#include "../../kernels/cpu/complex.h"
#include "../tensor/tensor.h"
#include "ops.h"

#define CHUNK 8192  /* numbers multiplied by one call; of sizes only, not of threads */
#define GRAIN 16384 /* numbers that are worth waking a thread for */

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  if (x->ndim == 0) return nyx__error(c->ctx, MATMUL_NUMBER, "x");
  nyx__spec(&c->spec[0], x->dtype, x->ndim, x->shape);
  c->spec[0].shape[x->ndim - 1] = 1;
  return NYX_OK;
}

/* Rows of n numbers in chunks, the product of each to its place in `to`. */
typedef struct rows {
  void (*fn)(int64_t n, const void *from, void *to);
  const char *from;
  char *to;
  int64_t n, chunks, item;
} rows;

static void run(void *arg, int64_t begin, int64_t end) {
  const rows *r = arg;
  for (int64_t i = begin; i < end; i++) {
    const int64_t row = i / r->chunks, first = i % r->chunks * CHUNK;
    const int64_t n = r->n - first < CHUNK ? r->n - first : CHUNK;
    r->fn(n, r->from + (row * r->n + first) * r->item, r->to + i * r->item);
  }
}

static nyx_status multiply(nyx_context *ctx, rows r, int64_t count, void *out) {
  char *parts = out;
  const size_t bytes = (size_t)(count * r.chunks * r.item);
  if (r.chunks > 1 && !(parts = nyx_memory_alloc(bytes)))
    return nyx__no_memory(ctx, bytes);
  r.to = parts;
  const int64_t length = r.n < CHUNK ? r.n : CHUNK;
  nyx_parallel_for(count * r.chunks, 1 + GRAIN / (length + 1), run, &r);
  if (r.chunks == 1) return NYX_OK;
  for (int64_t i = 0; i < count; i++)
    r.fn(r.chunks, parts + i * r.chunks * r.item, (char *)out + i * r.item);
  nyx_memory_free(parts);
  return NYX_OK;
}

static nyx_status cpu(nyx_call *c) {
  nyx_tensor *x;
  if (c->out[0]->numel == 0) return NYX_OK;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  const int64_t n = x->shape[x->ndim - 1];
  const rows r = {.fn = nyx__cpu_kernels()->complex->prod[x->dtype == NYX_COMPLEX128],
                  .from = nyx__data(x),
                  .n = n,
                  .chunks = n > CHUNK ? (n + CHUNK - 1) / CHUNK : 1,
                  .item = nyx__item(x->dtype)};
  nyx_status status = multiply(c->ctx, r, c->out[0]->numel, nyx__data(c->out[0]));
  nyx_tensor_release(x);
  return status;
}

const nyx_op nyx__op_complex_prod = {
    .name = "complex_prod",
    .group = "complex",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "the products of complex numbers along the last dimension, which is kept; `prod` "
        "is "
        "the usual way to say it, and has gradients",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .batch = nyx__batch_leading,
    .cases = "x(2,3)<complex64\nx(70)<complex64",
};
