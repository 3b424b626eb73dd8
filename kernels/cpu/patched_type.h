/* Tiles whose columns are patches (patches.h): vectors of neighbours that are read where
 * they lie, each term at an offset of its own, so that few rows need not pay for packing
 * them. Included by gemm_type.h, once for each element type T. */

typedef struct TYPED(patched_job) {
  const T *a, *from;
  const int64_t *offset;
  int64_t depth, columns;
  const nyx_patch *patch;
  T *c;
  int64_t ldc;
  bool add;
} TYPED(patched_job);

/* Both counts are constants wherever this is used: the sums stay in registers. No
 * TILE_ROW: vectors across two lines need the loads that it spends. */
static ALWAYS_INLINE void TYPED(patched_tile)(const int rows, const int vectors,
                                              const TYPED(patched_job) * j) {
  const T *a = j->a, *at[TILE_VECTORS];
  const int64_t *offset = j->offset;
  V sum[TILE_ROWS][TILE_VECTORS], right[TILE_VECTORS];
  UNROLL for (int v = 0; v < vectors; v++) at[v] = j->from + j->patch[v].from;
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = (V){0};
  }
  for (int64_t l = 0; l < j->depth; l++, a += rows) {
    UNROLL for (int v = 0; v < vectors; v++) {
      right[v] = LOAD(at[v] + offset[l]);
      HOLD(right[v]);
    }
    UNROLL for (int i = 0; i < rows; i++) {
      UNROLL for (int v = 0; v < vectors; v++) sum[i][v] += a[i] * right[v];
    }
  }
  UNROLL for (int v = 0; v < vectors; v++) {
    int64_t end = v + 1 < vectors ? j->patch[v + 1].to : j->columns;
    TYPED(part) part = TYPED(part_of)(0, end - j->patch[v].to);
    UNROLL for (int i = 0; i < rows; i++) {
      T *to = j->c + i * j->ldc + j->patch[v].to;
      TYPED(store_part)
      (to, j->add ? sum[i][v] + TYPED(load_part)(to, part) : sum[i][v], part);
    }
  }
}

static void TYPED(patched)(const nyx_patched *p, const void *a, int64_t rows, void *c) {
  TYPED(patched_job)
  j = {.a = a,
       .from = p->from,
       .offset = p->offset,
       .depth = p->depth,
       .c = c,
       .ldc = p->ldc,
       .add = p->add};
  int64_t left;
  for (j.patch = p->patch; (left = p->patch + p->count - j.patch) > 0;
       j.patch += TILE_VECTORS) {
    j.columns = left > TILE_VECTORS ? j.patch[TILE_VECTORS].to : p->columns;
    switch (rows) {
#define CASE(n)                                                                          \
  case n:                                                                                \
    if (left >= TILE_VECTORS)                                                            \
      TYPED(patched_tile)(n, TILE_VECTORS, &j);                                          \
    else                                                                                 \
      TYPED(patched_tile)(n, 1, &j);                                                     \
    break;
      EACH_TILE_ROWS(CASE)
#undef CASE
    }
  }
}
