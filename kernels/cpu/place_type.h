/* Tiles whose left factor is read where it lies, over one element type T; included by
 * gemm_type.h. For factors that are in the first two caches and are used once or twice,
 * so that packing them would cost more than it gives. Sums have the order that they have
 * with panels, to the same bits. */

#define APART ((int)NYX_APART(T))

/* As tile_of. `apart`: from row to row, a constant too, as 14 pointers would not stay in
 * registers, and computing them would take the ports of the multiplications. */
static ALWAYS_INLINE void TYPED(place_of)(const int rows, const int vectors,
                                          const int apart, const nyx_product *p,
                                          const T *a, const TYPED(tile_job) * job) {
  const int64_t a_step = p->a_cs, b_step = job->b_step;
  const T *b = job->b;
  V sum[TILE_ROWS][TILE_VECTORS];
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++) {
      sum[i][v] = (V){0};
      __builtin_prefetch(job->c + i * job->ldc + v * LANES, 1);
    }
  }
  for (int64_t terms = p->k; terms > 0; terms--, a += a_step, b += b_step) {
    V right[TILE_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) {
      right[v] = (V) * (const VU *)(b + v * LANES);
      if (v * LANES % LINE == 0) __builtin_prefetch(b + AHEAD * b_step + v * LANES);
    }
    if (apart == 1) __builtin_prefetch(a + AHEAD * a_step);
    UNROLL for (int i = 0; i < rows; i++)
        TILE_ROW(i, vectors, sum[i], a + i * apart, right);
  }
  TYPED(store_tile)(rows, vectors, sum, job);
}

/* As many of `rows` rows as a tile takes. */
static int64_t TYPED(place)(int64_t rows, const nyx_product *p, const T *left,
                            const TYPED(tile_job) * job) {
#define CASE(n)                                                                          \
  if (rows >= (n)) {                                                                     \
    if (p->a_rs == 1 && job->cols > LANES)                                               \
      TYPED(place_of)(n, TILE_VECTORS, 1, p, left, job);                                 \
    else if (p->a_rs == 1)                                                               \
      TYPED(place_of)(n, 1, 1, p, left, job);                                            \
    else if (job->cols > LANES)                                                          \
      TYPED(place_of)(n, TILE_VECTORS, APART, p, left, job);                             \
    else                                                                                 \
      TYPED(place_of)(n, 1, APART, p, left, job);                                        \
    return n;                                                                            \
  }
  CASE(TILE_ROWS)
#if TILE_ROWS > 8
  CASE(8)
#endif
#if TILE_ROWS > 4
  CASE(4)
#endif
  CASE(2)
  CASE(1)
#undef CASE
  return 0;
}

/* One column of tiles of p. */
static void TYPED(column_in_place)(const nyx_product *p, const T *b, int64_t j) {
  TYPED(tile_job) job;
  TYPED(open_column)(p, b, j, &job);
  for (int64_t i = 0; i < p->m;) {
    job.c = (T *)p->c + i * p->ldc + j;
    i += TYPED(place)(p->m - i, p, (const T *)p->a + i * p->a_rs, &job);
  }
}
