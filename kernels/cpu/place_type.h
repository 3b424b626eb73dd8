/* Tiles whose left factor is read where it lies, over one element type T; included by
 * gemm_type.h. For factors that are in the first two caches and are used once or twice,
 * so that packing them would cost more than it gives. Sums have the order that they have
 * with panels, to the same bits. */

/* Rows whose places follow from one pointer and three steps, by what an address may be
 * made of: 14 pointers would not stay in registers, and computing them would take the
 * ports of the multiplications. */
#define PLACE_ROWS 7
#if TILE_ROWS > 2 * PLACE_ROWS
#error "a tile has rows that no pointer leads to"
#endif

/* Bytes from row to row, times 1, 3 and 5. */
typedef struct TYPED(steps) {
  int64_t one, three, five;
} TYPED(steps);

static ALWAYS_INLINE const T *TYPED(place_row)(const int i, const char *a,
                                               const TYPED(steps) * by) {
  switch (i) {
    case 0: return (const T *)a;
    case 1: return (const T *)(a + by->one);
    case 2: return (const T *)(a + by->one * 2);
    case 3: return (const T *)(a + by->three);
    case 4: return (const T *)(a + by->one * 4);
    case 5: return (const T *)(a + by->five);
    default: return (const T *)(a + by->three * 2);
  }
}

/* Keeps the compiler from knowing one by another, and computing it anew. */
#define APART_FROM(x) __asm__("" : "+r"(x))

/* Lines that are asked for in each term, so that in the terms of a line all rows are. */
#define PLACE_ASKS ((TILE_ROWS + LINE - 1) / LINE)

/* One term of rows that begin at `first` and `second`, or beside each other at a. */
#define PLACE_TERM                                                                       \
  do {                                                                                   \
    V right[TILE_VECTORS];                                                               \
    UNROLL for (int v = 0; v < vectors; v++) {                                           \
      right[v] = (V) * (const VU *)(b + v * LANES);                                      \
      if (v * LANES % LINE == 0) __builtin_prefetch(b + AHEAD * b_step + v * LANES);     \
    }                                                                                    \
    if (beside) __builtin_prefetch(a + AHEAD * a_step);                                  \
    UNROLL for (int i = 0; i < rows; i++) {                                              \
      const T *at = beside           ? a + i                                             \
                    : i < PLACE_ROWS ? TYPED(place_row)(i, first, &by)                   \
                                     : TYPED(place_row)(i - PLACE_ROWS, second, &by);    \
      /* Loading once takes as many instructions as computing where. */                  \
      TILE_ROW(beside ? i : 0, vectors, sum[i], at, right);                              \
    }                                                                                    \
    a += a_step;                                                                         \
    first += a_step * (int64_t)sizeof(T);                                                \
    second += a_step * (int64_t)sizeof(T);                                               \
    b += b_step;                                                                         \
  } while (0)

/* As tile_of. Constants: whether the rows lie `beside` each other, else their terms do;
 * whether what follows in as many rows at `next` is asked for meanwhile. */
static ALWAYS_INLINE void TYPED(place_of)(const int rows, const int vectors,
                                          const bool beside, const bool asks,
                                          const nyx_product *p, const T *a, const T *next,
                                          const TYPED(tile_job) * job) {
  const int64_t a_step = beside ? p->a_cs : 1, b_step = job->b_step;
  const T *b = job->b;
  V sum[TILE_ROWS][TILE_VECTORS];
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++) {
      sum[i][v] = (V){0};
      if (!asks) __builtin_prefetch(job->c + i * job->ldc + v * LANES, 1);
    }
  }
  TYPED(steps) by = {.one = p->a_rs * (int64_t)sizeof(T)};
  by.three = 3 * by.one;
  by.five = 5 * by.one;
  const char *first = (const char *)a, *second = first + PLACE_ROWS * by.one;
  if (!beside) {
    APART_FROM(by.three);
    APART_FROM(by.five);
    APART_FROM(second);
  }
  if (asks) {
    const T *to = job->c; /* a line of each row after the other, as those of A */
    const int64_t c_step = job->ldc;
    for (int64_t left = p->k; left > 0; left -= LINE, next += LINE) {
      const char *ask = (const char *)next;
      for (int64_t terms = left < LINE ? left : LINE; terms > 0; terms--) {
        UNROLL for (int q = 0; q < PLACE_ASKS; q++)
            __builtin_prefetch(ask + q * LINE * by.one, 0, 2);
        __builtin_prefetch(to, 1);
        ask += by.one;
        to += c_step;
        PLACE_TERM;
      }
      to = job->c + (vectors - 1) * LANES;
    }
  } else {
    for (int64_t terms = p->k; terms > 0; terms--) PLACE_TERM;
  }
  TYPED(store_tile)(rows, vectors, sum, job);
}

/* As many of `rows` rows as a tile takes. */
static int64_t TYPED(place)(int64_t rows, const nyx_product *p, const T *left,
                            const T *next, const TYPED(tile_job) * job) {
  if (next && rows >= TILE_ROWS && p->a_rs != 1 && job->cols > LANES) {
    TYPED(place_of)(TILE_ROWS, TILE_VECTORS, false, true, p, left, next, job);
    return TILE_ROWS;
  }
#define CASE(n)                                                                          \
  if (rows >= (n)) {                                                                     \
    if (p->a_rs == 1 && job->cols > LANES)                                               \
      TYPED(place_of)(n, TILE_VECTORS, true, false, p, left, NULL, job);                 \
    else if (p->a_rs == 1)                                                               \
      TYPED(place_of)(n, 1, true, false, p, left, NULL, job);                            \
    else if (job->cols > LANES)                                                          \
      TYPED(place_of)(n, TILE_VECTORS, false, false, p, left, NULL, job);                \
    else                                                                                 \
      TYPED(place_of)(n, 1, false, false, p, left, NULL, job);                           \
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
    const T *left = (const T *)p->a + i * p->a_rs, *next = left + TILE_ROWS * p->a_rs;
    if (i + TILE_ROWS >= p->m) next = p->next;
    job.c = (T *)p->c + i * p->ldc + j;
    i += TYPED(place)(p->m - i, p, left, p->next && j == 0 ? next : NULL, &job);
  }
}

#undef PLACE_ROWS
#undef PLACE_ASKS
#undef PLACE_TERM
#undef APART_FROM
