/* The product over one element type T; included by gemm.c, once for each. The way of
 * Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008):
 * blocks of A and B are copied into tile order, tiles of C are summed in registers. */

#include "part_type.h"

#define VU TYPED(vecu)
#define TILE_COLS (TILE_VECTORS * LANES)
#define LINE (64 / (int)sizeof(T)) /* elements of a cache line */
#define SHORT 128                  /* terms of a row */
#define BLOCK_COLS ((int64_t)(BLOCK_COL_BYTES / sizeof(T)))

#include "tile_type.h"
#include "transpose_type.h"

/* Rows whose elements are neighbours, LANES of them and of their terms at a time, turned.
 * Lanes from `rows` on become zeros; the panel ends at `end`. Gives the terms that are
 * done. */
static inline int64_t TYPED(pack_along)(const T *from, int64_t rs, int64_t rows,
                                        int64_t width, int64_t depth, const T *end,
                                        T *to) {
  int64_t done = 0;
  /* The next panel's rows, if they are short: of many short rows nothing guesses which
   * are next. In the second cache, as rows may be 4 KiB apart. */
  int64_t ahead = depth <= SHORT ? width * rs : 0;
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
      if (ahead)
        UNROLL for (int r = 0; r < LANES; r++)
            __builtin_prefetch(row[r] + ahead + done, 0, 2);
      TYPED(transpose)(v);
      if (rows < width)
        UNROLL for (int p = 0; p < LANES; p++) v[p] = (V)((TYPED(lanes))v[p] & live);
      if (end - at >= (LANES - 2) * width + LANES) { /* all but the last of the panel */
        UNROLL for (int p = 0; p < LANES - 1; p++, at += width) * (VU *)at = v[p];
        V last = v[LANES - 1];
        memcpy(at, &last, end - at >= LANES ? sizeof(V) : bytes);
        at += width;
        continue;
      }
      T room[LANES * LANES]; /* so that v itself stays in registers */
      UNROLL for (int p = 0; p < LANES; p++) * (VU *)(room + p * LANES) = v[p];
      for (int p = 0; p < LANES; p++, at += width)
        memcpy(at, room + p * LANES, end - at >= LANES ? sizeof(V) : bytes);
    }
  }
  return done;
}

/* Copies rows x depth elements, rows <= width, into one panel of `width` rows, depth by
 * depth, filled up with zeros; the panel has `behind` more terms, which are packed later.
 * Whole vectors are read where they end before the last element, and stored where what
 * lies behind them in the panel is written later. */
static void TYPED(pack_panel)(const T *from, int64_t rs, int64_t cs, int64_t rows,
                              int64_t width, int64_t depth, int64_t behind, T *to) {
  const T *end = to + width * (depth + behind);
  if (rs == 1 && rows == width && cs >= width) {
    const T *last = from + (depth + behind - 1) * cs + width;
    if (width <= LANES && 2 * width >= LANES) { /* whole vectors, but for the last row */
      for (; depth > 1; depth--, from += cs, to += width) {
        __builtin_prefetch(from + 8 * cs);
        *(VU *)to = *(const VU *)from;
      }
    }
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
  int64_t done = cs == 1 ? TYPED(pack_along)(from, rs, rows, width, depth, end, to) : 0;
  for (int64_t p = done; p < depth; p++) {
    for (int64_t r = 0; r < rows; r++) to[p * width + r] = from[r * rs + p * cs];
    for (int64_t r = rows; r < width; r++) to[p * width + r] = 0;
  }
}

/* What else is done during some terms of a tile, the same step for each: the line at
 * `next` is asked for into the second cache, which goes on by `ask` elements. Where a
 * tile copies, that is done once in COPY_EVERY terms, with a vector that is copied: as
 * much as goes between the first and the second cache besides what the tile reads. */
typedef struct TYPED(run) {
  int64_t steps; /* 0 behind the last run */
  const T *next;
  int64_t ask;
  const T *from; /* NULL: nothing is copied */
  T *to;
} TYPED(run);

#define COPY_EVERY 4
#define MOST_RUNS 16

/* Where rows (columns) are neighbours, a piece has some terms of all of them, so that
 * what lies together is read together; else of one panel, which are best read one after
 * the other. */
static void TYPED(divide)(nyx_packing *h, int64_t tiles) {
  int64_t panels = (h->count + h->width - 1) / h->width, each = 1;
  int64_t vectors = (h->width + LANES - 1) / LANES,
          room = h->depth / COPY_EVERY / vectors;
  h->at = 0;
  h->asked = h->staged = false;
  if (h->across == 1) {
    each = panels * vectors < MOST_RUNS ? panels : MOST_RUNS / vectors;
    /* The first tile only asks; one, a last one, may not be whole. */
    h->terms = tiles > 2 ? (h->depth + tiles - 3) / (tiles - 2) : LINE;
    if (tiles && h->terms > room / each) h->terms = room / each;
  } else {
    int64_t unit = LINE * vectors, parts = tiles > panels ? tiles / panels : 1;
    h->terms = ((h->depth + parts - 1) / parts + unit - 1) / unit * unit;
    if (tiles && h->terms > room / unit * unit && room >= unit)
      h->terms = room / unit * unit;
  }
  if (h->terms < 1) h->terms = 1;
  h->piece = each * h->width;
  h->pieces = (h->depth + h->terms - 1) / h->terms * ((panels + each - 1) / each);
}

/* The terms, and rows or columns, of a piece. */
typedef struct TYPED(piece) {
  int64_t l, terms, first, count;
} TYPED(piece);

static TYPED(piece) TYPED(piece_at)(const nyx_packing *h, int64_t at) {
  int64_t parts = (h->depth + h->terms - 1) / h->terms;
  TYPED(piece) p = {at % parts * h->terms, h->terms, at / parts * h->piece, h->piece};
  if (p.l + p.terms > h->depth) p.terms = h->depth - p.l;
  if (p.first + p.count > h->count) p.count = h->count - p.first;
  return p;
}

static const T *TYPED(piece_from)(const nyx_packing *h, const TYPED(piece) * p) {
  return (const T *)h->from + p->first * h->across + p->l * h->along;
}

static void TYPED(pack_piece)(const nyx_packing *h, const TYPED(piece) * p) {
  int64_t behind = h->depth - p->l - p->terms;
  const T *from = TYPED(piece_from)(h, p);
  for (int64_t i = 0; i < p->count; i += h->width, from += h->width * h->across) {
    int64_t at = p->first + i, live = h->count - at < h->width ? h->count - at : h->width;
    int64_t width = h->fill ? h->width : live;
    TYPED(pack_panel)
    (from, h->across, h->along, live, width, p->terms, behind,
     (T *)h->panels + at * h->depth + p->l * width);
  }
}

static void TYPED(pack_next)(nyx_packing *h) {
  const TYPED(piece) p = TYPED(piece_at)(h, h->at++);
  TYPED(pack_piece)(h, &p);
  h->staged = false;
}

static void TYPED(pack)(nyx_packing *h) {
  while (h->at < h->pieces) TYPED(pack_next)(h);
}

/* Rows of A become panels of `width` rows; the last one has as many as are left. */
static void TYPED(pack_a)(const void *a, int64_t rs, int64_t cs, int64_t rows,
                          int64_t width, int64_t depth, void *panels) {
  nyx_packing h = {.from = a,
                   .across = rs,
                   .along = cs,
                   .count = rows,
                   .depth = depth,
                   .width = width,
                   .panels = panels};
  TYPED(divide)(&h, 0);
  TYPED(pack)(&h);
}

/* Columns of B become panels of TILE_COLS columns, the last one filled up with zeros. */
static void TYPED(pack_b)(const void *b, int64_t rs, int64_t cs, int64_t depth,
                          int64_t cols, void *panels) {
  nyx_packing h = {.from = b,
                   .across = cs,
                   .along = rs,
                   .count = cols,
                   .depth = depth,
                   .width = TILE_COLS,
                   .fill = true,
                   .panels = panels};
  TYPED(divide)(&h, 0);
  TYPED(pack)(&h);
}

/* Where a tile's operands lie, and what of its columns is stored: `cols`, from `skip`. */
typedef struct TYPED(tile_job) {
  const T *a, *b;
  int64_t b_step; /* from one row of B to the next */
  T *c;
  int64_t ldc, skip, cols;
  bool add;
  bool copies; /* some runs do */
  int64_t from_step, to_step;
  TYPED(run) runs[MOST_RUNS + 2];
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
  for (const TYPED(run) *w = job->runs; w->steps; w++) {
    const T *next = w->next;
    const int64_t ask = w->ask;
    if (copies && w->from) {
      const int64_t from_step = job->from_step, to_step = job->to_step;
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
  const int64_t ldc = *(const volatile int64_t *)&job->ldc; /* not kept in the loop */
  if (job->cols == vectors * LANES) {
    UNROLL for (int i = 0; i < rows; i++) {
      UNROLL for (int v = 0; v < vectors; v++) {
        VU *c = (VU *)(job->c + i * ldc + v * LANES);
        if (job->add) sum[i][v] += *c;
        *c = sum[i][v];
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
  if (job->copies) {
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

/* Terms of each panel of a piece that cannot be copied by whole vectors: the last ones,
 * behind which a vector would be read, or stored, beyond the end. */
static int64_t TYPED(copy_tail)(const nyx_packing *h, const TYPED(piece) * p) {
  int64_t vectors = (h->width + LANES - 1) / LANES * LANES;
  int64_t tail = (vectors - h->width + h->width - 1) / h->width;
  int64_t end = p->l + p->terms - (h->depth - tail);
  return end < 0 ? 0 : end < p->terms ? end : p->terms;
}

/* Packs between a tile's multiplications what lies as it will in a panel: one tile asks
 * for a piece, the next copies it and asks for the one behind it. Gives the terms of the
 * tile. */
static int64_t TYPED(copy_piece)(nyx_packing *h, TYPED(tile_job) * job,
                                 TYPED(run) * *runs) {
  TYPED(piece) p = TYPED(piece_at)(h, h->at), q = p;
  if (h->asked && h->at + 1 < h->pieces) q = TYPED(piece_at)(h, h->at + 1);
  int64_t steps = h->asked ? p.terms - TYPED(copy_tail)(h, &p) : p.terms;
  const T *from = TYPED(piece_from)(h, &p), *next = TYPED(piece_from)(h, &q);
  T *to = (T *)h->panels + p.first * h->depth + p.l * h->width;
  TYPED(run) *w = *runs;
  if (steps < 1) return 0;
  for (int64_t i = 0; i + h->width <= p.count; i += h->width, to += h->width * h->depth)
    for (int64_t v = (h->width - 1) / LANES * LANES; v >= 0; v -= LANES, w++)
      *w = (TYPED(run)){steps, next + i + v, h->along, h->asked ? from + i + v : NULL,
                        to + v};
  int64_t terms = steps * (w - *runs) * (h->asked ? COPY_EVERY : 1);
  *runs = w;
  job->copies = h->asked && terms > 0;
  job->from_step = h->along;
  job->to_step = h->width;
  h->asked = true;
  return terms;
}

/* What `copy_piece` has left. */
static void TYPED(end_piece)(nyx_packing *h) {
  TYPED(piece) p = TYPED(piece_at)(h, h->at++), rest = p;
  int64_t whole = p.count / h->width * h->width, tail = TYPED(copy_tail)(h, &p);
  p.count = whole;
  p.l += p.terms - tail;
  p.terms = tail;
  if (tail > 0) TYPED(pack_piece)(h, &p);
  rest.first += whole;
  rest.count -= whole;
  if (rest.count > 0) TYPED(pack_piece)(h, &rest);
}

/* Where terms lie together, a piece is turned after the tile that asks for it, into a
 * place that stays in the first cache, and copied from there during the next. */
static int64_t TYPED(copy_turned)(nyx_packing *h, TYPED(tile_job) * job,
                                  TYPED(run) * *runs) {
  TYPED(piece) p = TYPED(piece_at)(h, h->at), q = p;
  if (h->staged && h->at + 1 < h->pieces) q = TYPED(piece_at)(h, h->at + 1);
  int64_t vectors = (h->width + LANES - 1) / LANES, lines = p.terms / LINE;
  int64_t steps = h->staged ? LINE * vectors : q.count;
  const T *next = TYPED(piece_from)(h, &q), *stage = h->stage;
  T *to = (T *)h->panels + p.first * h->depth + p.l * h->width;
  for (int64_t i = 0; i < lines; i++) {
    int64_t v = (vectors - 1 - i * steps / p.terms) * LANES, l = i * steps % p.terms;
    *(*runs)++ =
        (TYPED(run)){steps, next + i * LINE, h->across,
                     h->staged ? stage + l * h->width + v : NULL, to + l * h->width + v};
  }
  job->copies = h->staged;
  job->from_step = job->to_step = h->width;
  return lines * steps * (h->staged ? COPY_EVERY : 1);
}

static void TYPED(turn_piece)(nyx_packing *h) {
  if (h->staged) h->at++;
  h->staged = false;
  if (h->at == h->pieces) return;
  const TYPED(piece) p = TYPED(piece_at)(h, h->at);
  h->staged = true;
  TYPED(pack_panel)
  (TYPED(piece_from)(h, &p), h->across, h->along, p.count, h->width, p.terms, 0,
   h->stage);
}

/* How the next piece can be packed besides a tile of `depth` terms. */
static nyx_packing_way TYPED(way_of)(const nyx_packing *h, int64_t depth) {
  int64_t vectors = (h->width + LANES - 1) / LANES;
  if (h->across == 1) {
    int64_t runs = h->piece / h->width * vectors;
    bool fits = runs <= MOST_RUNS && h->terms * runs * COPY_EVERY <= depth;
    return fits && h->along >= h->width ? NYX_PACKING_COPIES : NYX_PACKING_ALONE;
  }
  const TYPED(piece) p = TYPED(piece_at)(h, h->at);
  if (!h->stage || h->along != 1 || p.count != h->width || p.l + p.terms == h->depth)
    return NYX_PACKING_ALONE;
  bool fits = p.terms % (LINE * vectors) == 0 && p.terms <= LINE * MOST_RUNS &&
              p.terms * vectors * COPY_EVERY <= depth;
  return fits ? NYX_PACKING_TURNS : NYX_PACKING_ALONE;
}

/* One column of tiles of p: from column j on, with B in a panel or in place. */
static void TYPED(column)(const nyx_product *p, int64_t width, const T *a, const T *b,
                          int64_t j) {
  int64_t live = p->n - j < TILE_COLS ? p->n - j : TILE_COLS;
  TYPED(tile_job) job; /* its runs are many */
  job.b = b + j * p->k;
  job.b_step = TILE_COLS;
  job.ldc = p->ldc;
  job.skip = 0;
  job.cols = live;
  job.add = p->add;
  if (!b) { /* the last tile begins earlier than what it stores */
    job.skip = (live > LANES ? TILE_COLS : LANES) - live;
    job.b = (const T *)p->b + j - job.skip;
    job.b_step = p->b_rs;
  }
  /* The next panel of B, spread over these tiles: it may lie in the last cache. */
  int64_t tiles = (p->m + width - 1) / width, size = TILE_COLS * p->k;
  const T *next = j + TILE_COLS < p->n ? b + (j + TILE_COLS) * p->k : p->next;
  int64_t left = b && next ? size : 0, share = (size + tiles - 1) / tiles;
  for (int64_t i = 0; i < p->m; i += width) {
    int64_t rows = p->m - i < width ? p->m - i : width, steps = p->k;
    job.a = a + i * p->k;
    job.c = (T *)p->c + i * p->ldc + j;
    nyx_packing *h =
        p->packing && p->packing->at < p->packing->pieces ? p->packing : NULL;
    TYPED(run) *w = job.runs;
    job.copies = false;
    nyx_packing_way way = h ? TYPED(way_of)(h, p->k) : NYX_PACKING_ALONE;
    if (rows < TILE_ROWS || job.cols <= LANES) h = NULL; /* such tiles do not copy */
    bool ready = h && h->asked;
    if (h && way == NYX_PACKING_COPIES) steps -= TYPED(copy_piece)(h, &job, &w);
    if (h && way == NYX_PACKING_TURNS) steps -= TYPED(copy_turned)(h, &job, &w);
    if (steps > 0) {
      int64_t ask = left > 0 ? (share + steps - 1) / steps : 0;
      *w++ = (TYPED(run)){steps, left > 0 ? next : job.b, ask, NULL, NULL};
      if (left > 0) next += ask * steps;
      left -= ask * steps;
    }
    w->steps = 0;
    TYPED(tile)(rows, &job);
    if (!h) continue;
    if (way == NYX_PACKING_ALONE)
      TYPED(pack_next)(h);
    else if (way == NYX_PACKING_TURNS)
      TYPED(turn_piece)(h);
    else if (ready)
      TYPED(end_piece)(h);
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
#undef TILE_TERM
#undef COPY_EVERY
#undef MOST_RUNS
