/* Which way a matrix product goes, of wide types and of narrow ones: the fixed rule's, or
 * the one that was measured to be faster here. Read next: core/base/tune.h, gemm.c,
 * low.c.
 */
#include "../base/tune.h"

#include "blas.h"
#include "gemm.h"

#define WORTH 32768.0 /* multiplications; of fewer the choice costs more than it wins */

static const char *const wide_ways[NYX__GEMM_WAYS] = {
    [NYX__GEMM_SLABS] = "slabs",
    [NYX__GEMM_FINE] = "fine_slabs",
    [NYX__GEMM_ONE] = "one_thread",
    [NYX__GEMM_FEW] = "few_rows",
    [NYX__GEMM_SLABS_OWN] = "own_slabs",
    [NYX__GEMM_ONE_OWN] = "own_one_thread",
    [NYX__GEMM_PLACE] = "in_place",
    [NYX__GEMM_ROWS] = "in_place_rows",
    [NYX__GEMM_COLUMNS] = "in_place_columns",
    [NYX__GEMM_PACKING] = "packed_columns",
    [NYX__GEMM_PACKED] = "packed",
    [NYX__GEMM_PACKED_SHALLOW] = "packed_shallow",
    [NYX__GEMM_PACKED_DEEP] = "packed_deep"};
static const char *const narrow_ways[NYX__LOW_WAYS] = {
    [NYX__LOW_SHARED] = "shared",        [NYX__LOW_ONE] = "one_thread",
    [NYX__LOW_SHALLOW] = "shallow",      [NYX__LOW_DEEP] = "deep",
    [NYX__LOW_SMALL] = "small_units",    [NYX__LOW_LARGE] = "large_units",
    [NYX__LOW_PACKED] = "packed_in_full"};
enum { SIZES = 8 };
static const char *const wide_sizes[SIZES] = {"dtype",   "blas",  "batch", "rows",
                                              "columns", "terms", "a",     "b"};
static const char *const narrow_sizes[SIZES] = {"dtype",   "out",   "batch", "rows",
                                                "columns", "terms", "a",     "b"};
static const nyx__choice wide = {.name = "product",
                                 .ways = wide_ways,
                                 .sizes = wide_sizes,
                                 .n_ways = NYX__GEMM_WAYS,
                                 .n_sizes = SIZES};
static const nyx__choice narrow = {.name = "narrow_product",
                                   .ways = narrow_ways,
                                   .sizes = narrow_sizes,
                                   .n_ways = NYX__LOW_WAYS,
                                   .n_sizes = SIZES};

/* How an operand lies: 1 by rows, 2 by columns, 0 neither. */
static int64_t layout(int64_t rs, int64_t cs) {
  return cs == 1 ? 1 : rs == 1 ? 2 : 0;
}

/* A product that is measured goes to a matrix of its own and adds nothing. */
typedef struct trial {
  nyx_context *ctx;
  nyx_gemm g;
  nyx_dtype out;
} trial;

static nyx_status try_wide(void *arg, int way, void *result) {
  trial *t = arg;
  t->g.product.c = result;
  return nyx__gemm_by(t->ctx, &t->g, (nyx__gemm_way)way);
}

static nyx_status try_narrow(void *arg, int way, void *result) {
  trial *t = arg;
  t->g.product.c = result;
  return nyx__gemm_low_by(t->ctx, &t->g, t->out, (nyx__low_way)way);
}

/* The way that was measured, where it is worth it. `kind` is the second size of a key. */
static nyx_status choose(nyx_context *ctx, const nyx__choice *choice, const nyx_gemm *g,
                         int64_t kind, nyx_dtype out, int *way) {
  const nyx_product *p = &g->product;
  int64_t count = 1;
  for (int d = 0; d < g->batch_ndim; d++) count *= g->batch_shape[d];
  double work = (double)count * (double)p->m * (double)p->n * (double)p->k;
  if (work < WORTH) return NYX_OK;
  bool is_wide = choice == &wide;
  const nyx__tune_key key = {
      .choice = choice,
      .size = {g->dtype, kind, nyx__tune_class(count), nyx__tune_class(p->m),
               nyx__tune_class(p->n), nyx__tune_class(p->k), layout(p->a_rs, p->a_cs),
               layout(p->b_rs, p->b_cs)},
      .usable = is_wide ? nyx__gemm_usable(g) : nyx__gemm_low_usable(g),
      .rule = *way};
  trial t = {ctx, *g, out};
  t.g.product.ldc = p->n;
  t.g.product.add = false;
  t.g.after = NULL;
  size_t bytes = (size_t)(count * p->m * p->n) * nyx_dtype_size(out);
  return nyx__tune(&key, bytes, is_wide ? try_wide : try_narrow, &t, way);
}

nyx_status nyx__gemm(nyx_context *ctx, const nyx_gemm *g) {
  int way = (int)nyx__gemm_rule(g);
  if (nyx__tuned() && !g->keep_a && !g->keep_b)
    NYX_TRY(choose(ctx, &wide, g, nyx__blas() != NULL, g->dtype, &way));
  return nyx__gemm_by(ctx, g, (nyx__gemm_way)way);
}

nyx_status nyx__gemm_low(nyx_context *ctx, const nyx_gemm *g, nyx_dtype out) {
  int way = NYX__LOW_SHARED;
  if (nyx__tuned() && !g->keep_b) NYX_TRY(choose(ctx, &narrow, g, out, out, &way));
  return nyx__gemm_low_by(ctx, g, out, (nyx__low_way)way);
}
