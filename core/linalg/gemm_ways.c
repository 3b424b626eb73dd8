/* Which way a matrix product goes: the fixed rule's, or the one that was measured to be
 * faster here. Read next: core/base/tune.h, gemm.c. */
#include "../base/tune.h"

#include <string.h>

#include "blas.h"
#include "gemm.h"

#define WORTH 32768.0 /* multiplications; of fewer the choice costs more than it wins */

static const char *const ways[NYX__GEMM_WAYS] = {
    [NYX__GEMM_SLABS] = "slabs",
    [NYX__GEMM_FINE] = "fine_slabs",
    [NYX__GEMM_ONE] = "one_thread",
    [NYX__GEMM_SLABS_OWN] = "own_slabs",
    [NYX__GEMM_ONE_OWN] = "own_one_thread",
    [NYX__GEMM_ROWS] = "in_place_rows",
    [NYX__GEMM_COLUMNS] = "in_place_columns",
    [NYX__GEMM_PACKED] = "packed",
    [NYX__GEMM_PACKED_SHALLOW] = "packed_shallow",
    [NYX__GEMM_PACKED_DEEP] = "packed_deep"};
static const char *const sizes[] = {"dtype",   "blas",  "batch", "rows",
                                    "columns", "terms", "a",     "b"};
static const nyx__choice choice = {.name = "product",
                                   .ways = ways,
                                   .sizes = sizes,
                                   .n_ways = NYX__GEMM_WAYS,
                                   .n_sizes = sizeof sizes / sizeof *sizes};

/* How an operand lies: 1 by rows, 2 by columns, 0 neither. */
static int64_t layout(int64_t rs, int64_t cs) {
  return cs == 1 ? 1 : rs == 1 ? 2 : 0;
}

/* A product that is measured goes to a matrix of its own and adds nothing. */
typedef struct trial {
  nyx_context *ctx;
  nyx_gemm g;
} trial;

static nyx_status try_way(void *arg, int way, void *result) {
  trial *t = arg;
  t->g.product.c = result;
  return nyx__gemm_by(t->ctx, &t->g, (nyx__gemm_way)way);
}

static nyx_status measured_way(nyx_context *ctx, const nyx_gemm *g, int64_t count,
                               int *way) {
  const nyx_product *p = &g->product;
  const nyx__tune_key key = {
      .choice = &choice,
      .size = {g->dtype, nyx__blas() != NULL, nyx__tune_class(count),
               nyx__tune_class(p->m), nyx__tune_class(p->n), nyx__tune_class(p->k),
               layout(p->a_rs, p->a_cs), layout(p->b_rs, p->b_cs)},
      .usable = nyx__gemm_usable(g),
      .rule = *way};
  trial t = {ctx, *g};
  t.g.product.ldc = p->n;
  t.g.product.add = false;
  t.g.after = NULL;
  size_t bytes = (size_t)(count * p->m * p->n) * nyx_dtype_size(g->dtype);
  return nyx__tune(&key, bytes, try_way, &t, way);
}

nyx_status nyx__gemm(nyx_context *ctx, const nyx_gemm *g) {
  int way = (int)nyx__gemm_rule(g);
  if (nyx__tuned() && !g->keep_a && !g->keep_b) {
    const nyx_product *p = &g->product;
    int64_t count = 1;
    for (int d = 0; d < g->batch_ndim; d++) count *= g->batch_shape[d];
    double work = (double)count * (double)p->m * (double)p->n * (double)p->k;
    if (work >= WORTH) NYX_TRY(measured_way(ctx, g, count, &way));
  }
  return nyx__gemm_by(ctx, g, (nyx__gemm_way)way);
}
