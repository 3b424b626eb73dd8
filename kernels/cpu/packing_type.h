/* Packing of A and B into panels, over one element type T; included by gemm_type.h. A
 * panel is packed at once, or piece by piece while tiles are multiplied: what a tile
 * reads leaves room between the caches, and a copy that is spread over it costs next to
 * nothing (docs/decisions/018-packing-meanwhile.md). */

#include "transpose_type.h"

#define SHORT 128    /* terms of a row */
#define COPY_EVERY 4 /* terms of a tile */
#define MOST_RUNS 16

/* Rows whose elements are neighbours, LANES of them and of their terms at a time, turned.
 * Lanes from `rows` on become zeros; what lies `ahead` elements further is asked for,
 * into the second cache as rows may be 4 KiB apart (0: nothing); the panel ends at `end`.
 * Gives the terms that are done. */
static inline int64_t TYPED(pack_along)(const T *from, int64_t rs, int64_t rows,
                                        int64_t width, int64_t depth, int64_t ahead,
                                        const T *end, T *to) {
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
 * `ahead`: see above. Whole vectors are read where they end before the last element, and
 * stored where what lies behind them in the panel is written later. */
static void TYPED(pack_panel)(const T *from, int64_t rs, int64_t cs, int64_t rows,
                              int64_t width, int64_t depth, int64_t behind, int64_t ahead,
                              T *to) {
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
  int64_t done =
      cs == 1 ? TYPED(pack_along)(from, rs, rows, width, depth, ahead, end, to) : 0;
  for (int64_t p = done; p < depth; p++) {
    for (int64_t r = 0; r < rows; r++) to[p * width + r] = from[r * rs + p * cs];
    for (int64_t r = rows; r < width; r++) to[p * width + r] = 0;
  }
}

/* Where rows (columns) are neighbours, a piece has some terms of all of them, so that
 * what lies together is read together; else of one panel, which are best read one after
 * the other. */
static void TYPED(divide)(nyx_packing *h, int64_t tiles) {
  h->at = h->pieces = 0;
  h->asked = h->staged = false;
  if (h->count < 1 || h->depth < 1) return;
  int64_t panels = (h->count + h->width - 1) / h->width, each = 1;
  int64_t vectors = (h->width + LANES - 1) / LANES,
          room = h->depth / COPY_EVERY / vectors;
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
  if (h->terms < 1) h->terms = 1; /* across, with little room */
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
  /* Of many short rows nothing guesses which are next. */
  int64_t ahead = h->depth <= SHORT ? h->width * h->across : 0;
  const T *from = TYPED(piece_from)(h, p);
  for (int64_t i = 0; i < p->count; i += h->width, from += h->width * h->across) {
    int64_t at = p->first + i, live = h->count - at < h->width ? h->count - at : h->width;
    int64_t width = h->fill ? h->width : live;
    TYPED(pack_panel)
    (from, h->across, h->along, live, width, p->terms, behind, ahead,
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

typedef struct TYPED(beside) {
  bool copies; /* some runs do, steps between elements of `from` and `to` */
  int64_t from_step, to_step;
  TYPED(run) runs[MOST_RUNS + 2];
} TYPED(beside);

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
static int64_t TYPED(copy_piece)(nyx_packing *h, TYPED(beside) * during,
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
  during->copies = h->asked && terms > 0;
  during->from_step = h->along;
  during->to_step = h->width;
  return terms;
}

/* What `copy_piece` has left, unless it only asked. */
static void TYPED(end_piece)(nyx_packing *h) {
  if (!h->asked) {
    h->asked = true;
    return;
  }
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
static int64_t TYPED(copy_turned)(nyx_packing *h, TYPED(beside) * during,
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
  during->copies = h->staged;
  during->from_step = during->to_step = h->width;
  return lines * steps * (h->staged ? COPY_EVERY : 1);
}

static void TYPED(turn_piece)(nyx_packing *h) {
  if (h->staged) h->at++;
  h->staged = false;
  if (h->at == h->pieces) return;
  const TYPED(piece) p = TYPED(piece_at)(h, h->at);
  h->staged = true;
  TYPED(pack_panel)
  (TYPED(piece_from)(h, &p), h->across, h->along, p.count, h->width, p.terms, 0, 0,
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

/* What a tile of `depth` terms does besides for h: adds its runs, and gives their terms.
 */
static int64_t TYPED(pack_during)(nyx_packing *h, int64_t depth, TYPED(beside) * during,
                                  TYPED(run) * *runs) {
  switch (h->way = TYPED(way_of)(h, depth)) {
    case NYX_PACKING_COPIES: return TYPED(copy_piece)(h, during, runs);
    case NYX_PACKING_TURNS: return TYPED(copy_turned)(h, during, runs);
    default: return 0;
  }
}

static void TYPED(pack_after)(nyx_packing *h) {
  switch (h->way) {
    case NYX_PACKING_COPIES: TYPED(end_piece)(h); break;
    case NYX_PACKING_TURNS: TYPED(turn_piece)(h); break;
    default: TYPED(pack_next)(h);
  }
}
