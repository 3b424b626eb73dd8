/* The product over one element type T; included by gemm.c, once for each. The way of
 * Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008):
 * blocks of A and B are copied into tile order, tiles of C are summed in registers. */

#include "part_type.h"

#define VU TYPED(vecu)
#define TILE_COLS (TILE_VECTORS * LANES)
#define LINE (64 / (int)sizeof(T)) /* elements of a cache line */
#define BLOCK_COLS ((int64_t)(BLOCK_COL_BYTES / sizeof(T)))

#include "tile_type.h"
#include "transpose_type.h"

/* Rows whose elements are neighbours, LANES of them and of their terms at a time, turned.
 * Lanes from `rows` on become zeros. Gives the terms that are done. */
static inline int64_t TYPED(pack_along)(const T *from, int64_t rs, int64_t rows,
                                        int64_t width, int64_t depth, T *to) {
  const T *end = to + width * depth;
  int64_t done = 0;
  /* Whole vectors are stored where what lies behind them is written later: the first
   * lanes come last. */
  for (int64_t first = (width - 1) / LANES * LANES; first >= 0; first -= LANES) {
    const T *row[LANES];
    TYPED(lanes) live;
    for (int r = 0; r < LANES; r++) {
      row[r] = from + (first + r < rows ? first + r : rows - 1) * rs;
      live[r] = -(first + r < rows);
    }
    size_t bytes = sizeof(T) * (size_t)(width - first < LANES ? width - first : LANES);
    T *at = to + first;
    for (done = 0; done + LANES <= depth; done += LANES) {
      V v[LANES];
      UNROLL for (int r = 0; r < LANES; r++) v[r] = *(const VU *)(row[r] + done);
      TYPED(transpose)(v);
      if (rows < width)
        UNROLL for (int p = 0; p < LANES; p++) v[p] = (V)((TYPED(lanes))v[p] & live);
      if (end - at >= (LANES - 1) * width + LANES) {
        UNROLL for (int p = 0; p < LANES; p++, at += width) * (VU *)at = v[p];
        continue;
      }
      for (int p = 0; p < LANES; p++, at += width)
        memcpy(at, &v[p], end - at >= LANES ? sizeof(V) : bytes);
    }
  }
  return done;
}

/* Copies rows x depth elements, rows <= width, into one panel of `width` rows, depth by
 * depth, filled up with zeros. Whole vectors are read where they end before the last
 * element, and stored where what lies behind them in the panel is written later. */
static void TYPED(pack_panel)(const T *from, int64_t rs, int64_t cs, int64_t rows,
                              int64_t width, int64_t depth, T *to) {
  const T *end = to + width * depth;
  if (rs == 1 && rows == width && cs >= width) {
    const T *last = from + (depth - 1) * cs + width;
    for (int64_t p = 0; p < depth; p++, from += cs, to += width) {
      for (int64_t r = 0; r < width; r += LINE)
        __builtin_prefetch(from + 8 * cs + r); /* far apart: nothing guesses them */
      for (int64_t r = 0; r < width; r += LANES) {
        if (to + r + LANES <= end && from + r + LANES <= last)
          *(VU *)(to + r) = *(const VU *)(from + r);
        else
          for (int64_t i = r; i < width; i++) to[i] = from[i];
      }
    }
    return;
  }
  int64_t done = cs == 1 ? TYPED(pack_along)(from, rs, rows, width, depth, to) : 0;
  for (int64_t p = done; p < depth; p++) {
    for (int64_t r = 0; r < rows; r++) to[p * width + r] = from[r * rs + p * cs];
    for (int64_t r = rows; r < width; r++) to[p * width + r] = 0;
  }
}

/* Rows of A become panels of `width` rows; the last one has as many as are left. */
static void TYPED(pack_a)(const void *a, int64_t rs, int64_t cs, int64_t rows,
                          int64_t width, int64_t depth, void *panels) {
  for (int64_t i = 0; i < rows; i += width) {
    const T *from = (const T *)a + i * rs;
    T *to = (T *)panels + i * depth;
    int64_t live = rows - i < width ? rows - i : width;
    TYPED(pack_panel)(from, rs, cs, live, live, depth, to);
  }
}

/* Columns of B become panels of TILE_COLS columns, the last one filled up with zeros. */
static void TYPED(pack_b)(const void *b, int64_t rs, int64_t cs, int64_t depth,
                          int64_t cols, void *panels) {
  T *to = panels;
  for (int64_t j = 0; j < cols; j += TILE_COLS, to += depth * TILE_COLS) {
    int64_t live = cols - j < TILE_COLS ? cols - j : TILE_COLS;
    TYPED(pack_panel)((const T *)b + j * cs, cs, rs, live, TILE_COLS, depth, to);
  }
}

/* Where a tile's operands lie, and what of its columns is stored: `cols`, from `skip`. */
typedef struct TYPED(tile_job) {
  const T *a, *b;
  int64_t b_step, depth; /* from one row of B to the next; rows */
  const T *next;         /* asked for into the second cache, `ask` elements each row */
  int64_t ask;
  T *c;
  int64_t ldc, skip, cols;
  bool add;
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

/* c = a b or c + a b for `rows` rows of `vectors` vectors, constants wherever this is
 * used: their sums stay in registers. */
static ALWAYS_INLINE void TYPED(tile_of)(const int rows, const int vectors,
                                         const TYPED(tile_job) * job) {
  const T *a = job->a, *b = job->b, *next = job->next;
  const int64_t step = job->b_step, ldc = job->ldc, ask = job->ask;
  V sum[TILE_ROWS][TILE_VECTORS];
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++) sum[i][v] = (V){0};
  }
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < vectors; v++)
        __builtin_prefetch(job->c + i * ldc + v * LANES, 1);
  }
  for (int64_t p = 0; p < job->depth; p++, a += rows, b += step, next += ask) {
    V right[TILE_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) {
      right[v] = (V) * (const VU *)(b + v * LANES);
      if (v * LANES % LINE == 0) __builtin_prefetch(b + AHEAD * step + v * LANES);
    }
    __builtin_prefetch(a + AHEAD * rows);
    __builtin_prefetch(next, 0, 2);
    UNROLL for (int i = 0; i < rows; i++) TILE_ROW(i, vectors, sum[i], a + i, right);
  }
  if (job->cols == vectors * LANES) {
    UNROLL for (int i = 0; i < rows; i++) {
      UNROLL for (int v = 0; v < vectors; v++) {
        VU *to = (VU *)(job->c + i * ldc + v * LANES);
        if (job->add) sum[i][v] += *to;
        *to = sum[i][v];
      }
    }
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

static void TYPED(tile)(int64_t rows, const TYPED(tile_job) * job) {
  switch (rows) {
#define CASE(n)                                                                          \
  case n:                                                                                \
    if (job->cols > LANES)                                                               \
      TYPED(tile_of)(n, TILE_VECTORS, job);                                              \
    else                                                                                 \
      TYPED(tile_of)(n, 1, job);                                                         \
    break
    CASE(1);
    CASE(2);
    CASE(3);
    CASE(4);
#if TILE_ROWS > 4
    CASE(5);
    CASE(6);
#endif
#if TILE_ROWS > 6
    CASE(7);
    CASE(8);
    CASE(9);
    CASE(10);
    CASE(11);
    CASE(12);
#endif
#if TILE_ROWS > 12
    CASE(13);
    CASE(14);
#endif
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

/* One column of tiles of p: from column j on, with B in a panel or in place. */
static void TYPED(column)(const nyx_product *p, int64_t width, const T *a, const T *b,
                          int64_t j) {
  int64_t live = p->n - j < TILE_COLS ? p->n - j : TILE_COLS;
  TYPED(tile_job) job = {.b = b + j * p->k, .b_step = TILE_COLS};
  job.depth = p->k;
  job.ldc = p->ldc;
  job.cols = live;
  job.add = p->add;
  if (!b) { /* the last tile begins earlier than what it stores */
    job.skip = (live > LANES ? TILE_COLS : LANES) - live;
    job.b = (const T *)p->b + j - job.skip;
    job.b_step = p->b_rs;
  }
  /* The next panel of B, spread over these tiles: it may lie in the last cache. */
  int64_t tiles = (p->m + width - 1) / width;
  bool more = j + TILE_COLS < p->n;
  if (b && (more || p->next)) job.ask = (TILE_COLS + tiles - 1) / tiles;
  job.next = !job.ask ? job.b : more ? job.b + p->k * TILE_COLS : p->next;
  for (int64_t i = 0; i < p->m; i += width, job.next += job.ask * p->k) {
    job.a = a + i * p->k;
    job.c = (T *)p->c + i * p->ldc + j;
    TYPED(tile)(p->m - i < width ? p->m - i : width, &job);
  }
}

static void TYPED(block)(const nyx_product *p, int64_t width, const void *a,
                         const void *b) {
  for (int64_t j = 0; j < p->n; j += TILE_COLS) TYPED(column)(p, width, a, b, j);
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
