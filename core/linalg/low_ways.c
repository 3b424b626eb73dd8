/* Which way a product of narrow types goes: the fixed rule's, or the one that was
 * measured to be faster here. Read next: core/base/tune.h, low.c. */
#include "../base/tune.h"
#include "gemm.h"

#define WORTH 32768.0 /* multiplications; of fewer the choice costs more than it wins */

static const char *const ways[NYX__LOW_WAYS] = {
    [NYX__LOW_SHARED] = "shared",        [NYX__LOW_ONE] = "one_thread",
    [NYX__LOW_SHALLOW] = "shallow",      [NYX__LOW_DEEP] = "deep",
    [NYX__LOW_SMALL] = "small_units",    [NYX__LOW_LARGE] = "large_units",
    [NYX__LOW_PACKED] = "packed_in_full"};
static const char *const sizes[] = {"dtype",   "out",   "batch", "rows",
                                    "columns", "terms", "a",     "b"};
static const nyx__choice choice = {.name = "narrow_product",
                                   .ways = ways,
                                   .sizes = sizes,
                                   .n_ways = NYX__LOW_WAYS,
                                   .n_sizes = sizeof sizes / sizeof *sizes};

/* How an operand lies: 1 by rows, 2 by columns, 0 neither. */
static int64_t layout(int64_t rs, int64_t cs) {
  return cs == 1 ? 1 : rs == 1 ? 2 : 0;
}

/* A product that is measured goes to a matrix of its own, with nothing after. */
typedef struct trial {
  nyx_context *ctx;
  nyx_gemm g;
  nyx_dtype out;
} trial;

static nyx_status try_way(void *arg, int way, void *result) {
  trial *t = arg;
  t->g.product.c = result;
  return nyx__gemm_low_by(t->ctx, &t->g, t->out, (nyx__low_way)way);
}

static nyx_status measured_way(nyx_context *ctx, const nyx_gemm *g, nyx_dtype out,
                               int64_t count, int *way) {
  const nyx_product *p = &g->product;
  const nyx__tune_key key = {
      .choice = &choice,
      .size = {g->dtype, out, nyx__tune_class(count), nyx__tune_class(p->m),
               nyx__tune_class(p->n), nyx__tune_class(p->k), layout(p->a_rs, p->a_cs),
               layout(p->b_rs, p->b_cs)},
      .usable = nyx__gemm_low_usable(g),
      .rule = NYX__LOW_SHARED};
  trial t = {ctx, *g, out};
  t.g.product.ldc = p->n;
  t.g.after = NULL;
  size_t bytes = (size_t)(count * p->m * p->n) * nyx_dtype_size(out);
  return nyx__tune(&key, bytes, try_way, &t, way);
}

nyx_status nyx__gemm_low(nyx_context *ctx, const nyx_gemm *g, nyx_dtype out) {
  int way = NYX__LOW_SHARED;
  if (nyx__tuned() && !g->keep_b) {
    const nyx_product *p = &g->product;
    int64_t count = 1;
    for (int d = 0; d < g->batch_ndim; d++) count *= g->batch_shape[d];
    double work = (double)count * (double)p->m * (double)p->n * (double)p->k;
    if (work >= WORTH) NYX_TRY(measured_way(ctx, g, out, count, &way));
  }
  return nyx__gemm_low_by(ctx, g, out, (nyx__low_way)way);
}
