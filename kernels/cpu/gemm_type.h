/* The product over one element type T; included by gemm.c, once for each. The way of
 * Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008):
 * blocks of A and B are copied into tile order, tiles of C are summed in registers. */

#include "part_type.h"

#define VU TYPED(vecu)
#define TILE_COLS (TILE_VECTORS * LANES)
#define LINE (64 / (int)sizeof(T)) /* elements of a cache line */
#define BLOCK_COLS ((int64_t)(BLOCK_COL_BYTES / sizeof(T)))

#include "tile_type.h"

#include "packing_type.h" /* needs what the former define */

/* Where a tile's operands lie, and what of its columns is stored: `cols`, from `skip`. */
typedef struct TYPED(tile_job) {
  const T *a, *b;
  int64_t b_step; /* from one row of B to the next */
  T *c;
  int64_t ldc, skip, cols;
  bool add;
  TYPED(beside) beside;
} TYPED(tile_job);

/* A tile that is not wholly stored. Not inlined: once for all heights, it is long. */
static __attribute__((noinline)) void TYPED(store_edge)(const TYPED(tile_job) * job,
                                                        int64_t rows, const T *edge) {
  for (int64_t i = 0; i < rows; i++) {
    T *to = job->c + i * job->ldc;
    const T *from = edge + i * TILE_COLS + job->skip;
    for (int64_t j = 0; j < job->cols; j++) to[j] = job->add ? to[j] + from[j] : from[j];
  }
}

/* The sums of a tile to C; the counts are constants, as in what follows. */
static ALWAYS_INLINE void TYPED(store_whole)(const int rows, const int vectors,
                                             const bool add, V (*sum)[TILE_VECTORS], T *c,
                                             int64_t ldc) {
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++) {
      VU *to = (VU *)(c + i * ldc + v * LANES);
      *to = add ? sum[i][v] + *to : sum[i][v];
    }
  }
}

static ALWAYS_INLINE void TYPED(store_tile)(const int rows, const int vectors,
                                            V (*sum)[TILE_VECTORS],
                                            const TYPED(tile_job) * job) {
  const int64_t ldc = *(const volatile int64_t *)&job->ldc; /* not kept in the loop */
  if (job->cols == vectors * LANES) {
    if (job->add)
      TYPED(store_whole)(rows, vectors, true, sum, job->c, ldc);
    else
      TYPED(store_whole)(rows, vectors, false, sum, job->c, ldc);
    return;
  }
  T edge[TILE_ROWS * TILE_COLS] __attribute__((aligned(VECTOR_BYTES)));
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++) {
      *(V *)(edge + i * TILE_COLS + v * LANES) = sum[i][v];
    }
  }
  TYPED(store_edge)(job, rows, edge);
}

/* One term of a tile; the lines of A and B that come soon are asked for. */
#define TILE_TERM(rows, vectors, sum, a, b, step)                                        \
  do {                                                                                   \
    V right[TILE_VECTORS];                                                               \
    UNROLL for (int v = 0; v < (vectors); v++) {                                         \
      right[v] = (V) * (const VU *)((b) + v * LANES);                                    \
      if (v * LANES % LINE == 0) __builtin_prefetch((b) + AHEAD * (step) + v * LANES);   \
    }                                                                                    \
    __builtin_prefetch((a) + AHEAD * (rows));                                            \
    UNROLL for (int i = 0; i < (rows); i++)                                              \
        TILE_ROW(i, vectors, (sum)[i], (a) + i, right);                                  \
  } while (0)

/* c = a b or c + a b for `rows` rows of `vectors` vectors, constants wherever this is
 * used: their sums stay in registers. So does all that the loop needs: there is little
 * room for more. */
static ALWAYS_INLINE void TYPED(tile_of)(const int rows, const int vectors,
                                         const bool copies, const TYPED(tile_job) * job) {
  const T *a = job->a, *b = job->b;
  const int64_t step = job->b_step;
  V sum[TILE_ROWS][TILE_VECTORS];
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = (V){0};
  }
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++)
        __builtin_prefetch(job->c + i * job->ldc + v * LANES, 1);
  }
  for (const TYPED(run) *w = job->beside.runs; w->steps; w++) {
    const T *next = w->next;
    const int64_t ask = w->ask;
    if (copies && w->from) {
      const int64_t from_step = job->beside.from_step, to_step = job->beside.to_step;
      const T *from = w->from;
      T *to = w->to;
      for (int64_t p = w->steps; p > 0; p--, from += from_step, to += to_step) {
        *(VU *)to = *(const VU *)from;
        __builtin_prefetch(next, 0, 2);
        next += ask;
        UNROLL for (int k = 0; k < COPY_EVERY; k++, a += rows, b += step)
            TILE_TERM(rows, vectors, sum, a, b, step);
      }
    } else {
      for (int64_t p = w->steps; p > 0; p--, a += rows, b += step, next += ask) {
        __builtin_prefetch(next, 0, 2);
        TILE_TERM(rows, vectors, sum, a, b, step);
      }
    }
  }
  TYPED(store_tile)(rows, vectors, sum, job);
}

static void TYPED(tile)(int64_t rows, const TYPED(tile_job) * job) {
  if (job->beside.copies) {
    TYPED(tile_of)(TILE_ROWS, TILE_VECTORS, true, job);
    return;
  }
  switch (rows) {
#define CASE(n)                                                                          \
  case n:                                                                                \
    if (job->cols > LANES)                                                               \
      TYPED(tile_of)(n, TILE_VECTORS, false, job);                                       \
    else                                                                                 \
      TYPED(tile_of)(n, 1, false, job);                                                  \
    break;
    EACH_TILE_ROWS(CASE)
#undef CASE
  }
}

static void TYPED(direct)(const nyx_product *p) {
  const T *a = p->a, *b = p->b;
  for (int64_t i = 0; i < p->m; i++) {
    T *restrict c = (T *)p->c + i * p->ldc;
    if (!p->add) memset(c, 0, sizeof(T) * (size_t)p->n);
    for (int64_t l = 0; l < p->k; l++) {
      T left = a[i * p->a_rs + l * p->a_cs];
      const T *restrict row = b + l * p->b_rs;
      if (p->b_cs == 1) {
        for (int64_t j = 0; j < p->n; j++) c[j] += left * row[j];
      } else {
        for (int64_t j = 0; j < p->n; j++) c[j] += left * row[j * p->b_cs];
      }
    }
  }
}

/* What all tiles of a column share: from column j on, with B in a panel or in place. */
static void TYPED(open_column)(const nyx_product *p, const T *b, int64_t j,
                               TYPED(tile_job) * job) {
  int64_t live = p->n - j < TILE_COLS ? p->n - j : TILE_COLS;
  job->b = b + j * p->k;
  job->b_step = TILE_COLS;
  job->ldc = p->ldc;
  job->skip = 0;
  job->cols = live;
  job->add = p->add;
  if (!b) { /* the last tile begins earlier than what it stores */
    job->skip = (live > LANES ? TILE_COLS : LANES) - live;
    job->b = (const T *)p->b + j - job->skip;
    job->b_step = p->b_rs;
  }
}

#include "place_type.h"

/* One column of tiles of p. */
static void TYPED(column)(const nyx_product *p, int64_t width, const T *a, const T *b,
                          int64_t j) {
  TYPED(tile_job) job; /* its runs are many */
  TYPED(open_column)(p, b, j, &job);
  /* The next panel of B, spread over these tiles: it may lie in the last cache. */
  int64_t tiles = (p->m + width - 1) / width, size = TILE_COLS * p->k;
  const T *next = j + TILE_COLS < p->n ? b + (j + TILE_COLS) * p->k : p->next;
  int64_t left = b && next ? size : 0, share = (size + tiles - 1) / tiles;
  for (int64_t i = 0; i < p->m; i += width) {
    int64_t rows = p->m - i < width ? p->m - i : width, steps = p->k;
    job.a = a + i * p->k;
    job.c = (T *)p->c + i * p->ldc + j;
    nyx_packing *h = p->packing;
    /* Tiles that are not whole do not copy. */
    if (h && (h->at == h->pieces || rows < TILE_ROWS || job.cols <= LANES)) h = NULL;
    TYPED(run) *w = job.beside.runs;
    job.beside.copies = false;
    if (h) steps -= TYPED(pack_during)(h, p->k, &job.beside, &w);
    if (steps > 0) {
      int64_t ask = left > 0 ? (share + steps - 1) / steps : 0;
      *w++ = (TYPED(run)){steps, left > 0 ? next : job.b, ask, NULL, NULL};
      if (left > 0) next += ask * steps;
      left -= ask * steps;
    }
    w->steps = 0;
    TYPED(tile)(rows, &job);
    if (h) TYPED(pack_after)(h);
  }
}

static void TYPED(block)(const nyx_product *p, int64_t width, const void *a,
                         const void *b) {
  for (int64_t j = 0; j < p->n; j += TILE_COLS) {
    if (a)
      TYPED(column)(p, width, a, b, j);
    else
      TYPED(column_in_place)(p, b, j);
  }
}

static void TYPED(product)(const nyx_product *p, void *work) {
  T *a = work, *b = (T *)((char *)work + WORK_A);
  for (int64_t j = 0; j < p->n; j += BLOCK_COLS) {
    for (int64_t l = 0; l < p->k; l += DEPTH) {
      nyx_product q = *p;
      q.n = p->n - j < BLOCK_COLS ? p->n - j : BLOCK_COLS;
      q.k = p->k - l < DEPTH ? p->k - l : DEPTH;
      q.add = p->add || l > 0;
      TYPED(pack_b)
      ((const T *)p->b + l * p->b_rs + j * p->b_cs, p->b_rs, p->b_cs, q.k, q.n, b);
      for (int64_t i = 0; i < p->m; i += BLOCK_ROWS) {
        q.m = p->m - i < BLOCK_ROWS ? p->m - i : BLOCK_ROWS;
        q.c = (T *)p->c + i * p->ldc + j;
        TYPED(pack_a)
        ((const T *)p->a + i * p->a_rs + l * p->a_cs, p->a_rs, p->a_cs, q.m, TILE_ROWS,
         q.k, a);
        TYPED(block)(&q, TILE_ROWS, a, b);
      }
    }
  }
}

#include "patched_type.h"
#include "thin_type.h"

#include "gemv_type.h"

#include "few_type.h" /* needs what the former defines */

#undef V
#undef VU
#undef LANES
#undef LOAD
#undef STORE
#undef TILE_COLS
#undef BLOCK_COLS
#undef LINE
#undef TILE_ROW
#undef TILE_TERM
#undef COPY_EVERY
#undef SHORT
#undef MOST_RUNS
