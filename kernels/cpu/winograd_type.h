/* The loops over one element type T; included by winograd.c, once for each. */

#include "part_type.h"
#include "transpose_type.h"

/* Numbers of lanes, at any address. */
typedef TINT TYPED(lanesu)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));

#define ROOT_HALF ((T)0.70710678118654752440)
#define ROOT_TWO ((T)1.41421356237309504880)

/* Six inputs to the points. */
static ALWAYS_INLINE void TYPED(input_points)(const V d[SEEN], V to[SEEN]) {
  V even_half = d[4] - 2 * d[2], odd_half = d[3] - 2 * d[1];
  V even_two = d[4] - (T)0.5 * d[2], odd_two = d[3] - (T)0.5 * d[1];
  to[0] = d[0] - (T)2.5 * d[2] + d[4];
  to[1] = even_half + ROOT_HALF * odd_half;
  to[2] = even_half - ROOT_HALF * odd_half;
  to[3] = even_two + ROOT_TWO * odd_two;
  to[4] = even_two - ROOT_TWO * odd_two;
  to[5] = d[1] - (T)2.5 * d[3] + d[5];
}

/* Three taps to the points. */
static ALWAYS_INLINE void TYPED(weight_points)(V g0, V g1, V g2, V to[SEEN]) {
  const T half = (T)(-2.0 / 3), two = (T)(1.0 / 6);
  V even_half = half * (g0 + (T)0.5 * g2), even_two = two * (g0 + 2 * g2);
  to[0] = g0;
  to[1] = even_half + half * ROOT_HALF * g1;
  to[2] = even_half - half * ROOT_HALF * g1;
  to[3] = even_two + two * ROOT_TWO * g1;
  to[4] = even_two - two * ROOT_TWO * g1;
  to[5] = g2;
}

/* The points to four outputs. */
static ALWAYS_INLINE void TYPED(output_points)(const V m[SEEN], V to[SIDE]) {
  V even_half = m[1] + m[2], odd_half = ROOT_HALF * (m[1] - m[2]);
  V even_two = m[3] + m[4], odd_two = ROOT_TWO * (m[3] - m[4]);
  to[0] = m[0] + even_half + even_two;
  to[1] = odd_half + odd_two;
  to[2] = (T)0.5 * even_half + 2 * even_two;
  to[3] = (T)0.5 * odd_half + 2 * odd_two + m[5];
}

/* Four outputs to the points, and the points to three taps: the two before, turned round,
 * for the gradient of the weight. */
static ALWAYS_INLINE void TYPED(gradient_points)(const V d[SIDE], V to[SEEN]) {
  V even_half = d[0] + (T)0.5 * d[2], odd_half = ROOT_HALF * (d[1] + (T)0.5 * d[3]);
  V even_two = d[0] + 2 * d[2], odd_two = ROOT_TWO * (d[1] + 2 * d[3]);
  to[0] = d[0];
  to[1] = even_half + odd_half;
  to[2] = even_half - odd_half;
  to[3] = even_two + odd_two;
  to[4] = even_two - odd_two;
  to[5] = d[3];
}

static ALWAYS_INLINE void TYPED(tap_points)(const V m[SEEN], V to[3]) {
  V even_half = (T)(-2.0 / 3) * (m[1] + m[2]), odd_half = (T)(-2.0 / 3) * (m[1] - m[2]);
  V even_two = (T)(1.0 / 6) * (m[3] + m[4]), odd_two = (T)(1.0 / 6) * (m[3] - m[4]);
  to[0] = m[0] + even_half + even_two;
  to[1] = ROOT_HALF * odd_half + ROOT_TWO * odd_two;
  to[2] = (T)0.5 * even_half + 2 * even_two + m[5];
}

/* What a tile sees of one direction to the points. */
static ALWAYS_INLINE void TYPED(seen_points)(const enum kind k, const V d[SEEN],
                                             V to[SEEN]) {
  switch (k) {
    case INPUT: TYPED(input_points)(d, to); break;
    case OUTPUTS: TYPED(gradient_points)(d, to); break;
    case HALF_INPUT: /* what the outer taps see, what the middle one sees */
      to[0] = d[0] - d[2];
      to[1] = d[2];
      to[2] = d[4] - d[2];
      to[3] = d[1];
      to[4] = d[3];
      break;
    case HALF_OUTPUTS:
      to[0] = d[0];
      to[1] = d[0] + d[1];
      to[2] = d[1];
      break;
    case TWICE_INPUT:
      to[0] = d[0] - d[1];
      to[1] = d[1];
      to[2] = d[2] - d[1];
      to[3] = d[0];
      break;
  }
}

/* Three taps to the points of either kind. */
static ALWAYS_INLINE void TYPED(taken_points)(const bool halves, V g0, V g1, V g2,
                                              V to[SEEN]) {
  if (!halves) {
    TYPED(weight_points)(g0, g1, g2, to);
    return;
  }
  to[0] = g0;
  to[1] = g0 + g2;
  to[2] = g2;
  to[3] = g1;
}

/* Products to outputs. */
static ALWAYS_INLINE void TYPED(given_points)(const enum result r, const V m[SEEN],
                                              V to[SIDE]) {
  switch (r) {
    case WHOLE: TYPED(output_points)(m, to); break;
    case HALF:
      to[0] = m[0] + m[1];
      to[1] = m[1] + m[2];
      break;
    case TWICE:
      to[0] = m[3];
      to[1] = m[0] + m[1];
      to[2] = m[4];
      to[3] = m[1] + m[2];
      break;
  }
}

/* Sums to three taps. */
static ALWAYS_INLINE void TYPED(summed_points)(const bool halves, const V m[SEEN],
                                               V to[3]) {
  if (!halves) {
    TYPED(tap_points)(m, to);
    return;
  }
  to[0] = m[0] + m[1];
  to[1] = m[3];
  to[2] = m[1] + m[2];
}

#define TAP_VECTORS ((NYX_WINOGRAD_TAPS + LANES - 1) / LANES)

/* What is asked for in time, as nothing guesses it: kernels of so many channels further,
 * and as many elements further in each matrix, which takes most of the time otherwise. */
#define KERNELS_AHEAD 4
#define MATRIX_AHEAD (3 * LANES)

/* The taps of `count` kernels side by side, backwards; lanes are kernels. */
static ALWAYS_INLINE void TYPED(load_kernels)(const T *from, int64_t count,
                                              V taps[NYX_WINOGRAD_TAPS]) {
  UNROLL for (int v = 0; v < TAP_VECTORS; v++) {
    V row[LANES];
    TYPED(part) some = TYPED(part_of)(0, NYX_WINOGRAD_TAPS - v * LANES);
    UNROLL for (int l = 0; l < LANES; l++) row[l] =
        l < count ? TYPED(load_part)(from + l * NYX_WINOGRAD_TAPS + v * LANES, some)
                  : (V){0};
    TYPED(transpose)(row);
    UNROLL for (int l = 0; l < LANES; l++) {
      const int tap = NYX_WINOGRAD_TAPS - 1 - v * LANES - l;
      if (tap >= 0) taps[tap] = row[l];
    }
  }
}

/* A vector of output channels at a time; what it writes beyond the panel's width is
 * written over by the next channel. turned: from kernels, not a panel of taps. */
static ALWAYS_INLINE void TYPED(any_weight)(const bool halves, const bool turned,
                                            const void *from_, int64_t apart,
                                            int64_t width, int64_t channels, void *to,
                                            int64_t step) {
  const int points = halves ? 4 : SEEN;
  const T *from = from_;
  T *at = to;
  const T *end = at + channels * width;
  for (int64_t c = 0; c < channels; c++, at += width, from += apart) {
    for (int64_t r = 0; r < width; r += LANES) {
      TYPED(part) live = TYPED(part_of)(0, width - r);
      bool whole = end - at - r >= LANES;
      V taps[NYX_WINOGRAD_TAPS], column[3][SEEN], all[SEEN];
      if (turned) {
        const T *next = from + KERNELS_AHEAD * apart + r * NYX_WINOGRAD_TAPS;
        for (int l = 0; l < LANES * NYX_WINOGRAD_TAPS; l += 64 / (int)sizeof(T))
          __builtin_prefetch(next + l);
        TYPED(load_kernels)(from + r * NYX_WINOGRAD_TAPS, width - r, taps);
      } else {
        UNROLL for (int t = 0; t < NYX_WINOGRAD_TAPS; t++) taps[t] =
            TYPED(load_part)(from + t * width + r, live);
      }
      UNROLL for (int j = 0; j < 3; j++)
          TYPED(taken_points)(halves, taps[j], taps[j + 3], taps[j + 6], column[j]);
      T *out = at + r;
      UNROLL for (int i = 0; i < points; i++) {
        TYPED(taken_points)(halves, column[0][i], column[1][i], column[2][i], all);
        UNROLL for (int j = 0; j < points; j++, out += step) {
          __builtin_prefetch(out + MATRIX_AHEAD, 1);
          if (whole)
            STORE(out, all[j]);
          else
            TYPED(store_part)(out, all[j], live);
        }
      }
    }
  }
}

#define WEIGHT(name, from_kernels, halves)                                               \
  static void TYPED(name)(const void *taps, int64_t width, int64_t channels, void *to,   \
                          int64_t step) {                                                \
    TYPED(any_weight)                                                                    \
    (halves, false, taps, width * NYX_WINOGRAD_TAPS, width, channels, to, step);         \
  }                                                                                      \
  static void TYPED(from_kernels)(const void *kernels, int64_t apart, int64_t width,     \
                                  int64_t channels, void *to, int64_t step) {            \
    TYPED(any_weight)(halves, true, kernels, apart, width, channels, to, step);          \
  }
WEIGHT(weight, turned, false)
WEIGHT(half_weight, half_turned, true)
#undef WEIGHT

/* The stage: what the transform down the columns gives, a plane for each of its rows and
 * each column of a tile. A strip of n tiles takes n + 1 slots of a plane, because a tile
 * also sees the first columns of the next. Then where vectors of tiles begin,
 * and their slots from there. */
#define SLOTS (2 * NYX_WINOGRAD_TILES + 3 * LANES)
#define PLANES (SEEN * PHASES)
#define VECTORS (NYX_WINOGRAD_TILES / LANES)

typedef struct TYPED(stage) {
  T plane[PLANES][SLOTS];
  TINT from[VECTORS][LANES];
  int64_t first[VECTORS];
} TYPED(stage);

static void TYPED(find_slots)(const nyx_winograd_block *b, TYPED(stage) * stage) {
  const nyx_winograd_strip *s = b->strip;
  int64_t before = 0; /* strips before the tile */
  for (int64_t t = 0; t < b->tiles; t += LANES) {
    int64_t first = 0;
    for (int64_t l = 0; l < LANES; l++) {
      while (before + 1 < b->strips && t + l >= s[before + 1].first) before++;
      if (l == 0) first = before;
      stage->from[t / LANES][l] = (TINT)(l + before - first);
    }
    stage->first[t / LANES] = t + first;
  }
}

/* Two vectors of columns of some rows, to 2 LANES / step slots of each plane; more is
 * written, and written over by what comes next. */
static ALWAYS_INLINE void TYPED(stage_vectors)(const enum kind k,
                                               const T *const row[SEEN], int64_t column,
                                               const TYPED(part) live[2],
                                               const bool whole, T *stage) {
  V d[2][SEEN], all[2][SEEN];
  const int seen = kinds[k].seen, phases = kinds[k].step, points = kinds[k].points;
  UNROLL for (int h = 0; h < 2; h++) {
    UNROLL for (int i = 0; i < seen; i++) d[h][i] =
        whole || row[i] ? TYPED(load_part)(row[i] + column + h * LANES, live[h]) : (V){0};
    TYPED(seen_points)(k, d[h], all[h]);
  }
  UNROLL for (int f = 0; f < phases; f++) {
    TYPED(lanes) from;
    UNROLL for (int l = 0; l < LANES; l++) from[l] = (phases * l + f) % (2 * LANES);
    UNROLL for (int i = 0; i < points; i++)
        STORE(stage + (i * phases + f) * SLOTS, TYPED(pick)(all[0][i], all[1][i], from));
  }
}

/* The same strip of the next channel is asked for meanwhile: nothing guesses it. */
static ALWAYS_INLINE void TYPED(stage_strip)(const enum kind k,
                                             const nyx_winograd_block *b,
                                             const nyx_winograd_strip *s, const T *plane,
                                             bool more, T *stage) {
  const T *row[SEEN];
  const int seen = kinds[k].seen, step = kinds[k].step;
  int64_t columns = s->count * step + seen - step;
  bool whole = s->top >= 0 && s->top + seen <= b->height;
  for (int i = 0; i < seen; i++) {
    int64_t y = s->top + i;
    row[i] = y >= 0 && y < b->height ? plane + y * b->width : NULL;
  }
  for (int64_t q = 0; q < columns; q += 2 * LANES, stage += 2 * LANES / step) {
    int64_t column = s->left + q;
    TYPED(part)
    live[] = {TYPED(part_of)(-column, b->width - column),
              TYPED(part_of)(-column - LANES, b->width - column - LANES)};
    for (int i = 0; more && i < seen; i++) {
      const char *next = (const char *)(row[i] + b->height * b->width + column);
      if (row[i])
        for (int64_t p = 0; p < 2 * VECTOR_BYTES; p += 64) __builtin_prefetch(next + p);
    }
    if (whole)
      TYPED(stage_vectors)(k, row, column, live, true, stage);
    else
      TYPED(stage_vectors)(k, row, column, live, false, stage);
  }
}

/* A vector of tiles, whose slots are from[] after the first. */
static ALWAYS_INLINE void TYPED(tile_vector)(const enum kind k, const T *stage,
                                             const bool together, TYPED(lanes) from,
                                             T *to, int64_t step) {
  const int seen = kinds[k].seen, phases = kinds[k].step, points = kinds[k].points;
  UNROLL for (int i = 0; i < points; i++) {
    V d[SEEN], all[SEEN];
    UNROLL for (int j = 0; j < seen; j++) {
      const T *at = stage + (i * phases + j % phases) * SLOTS + j / phases;
      d[j] = together ? LOAD(at) : TYPED(pick)(LOAD(at), LOAD(at + LANES), from);
    }
    TYPED(seen_points)(k, d, all);
    UNROLL for (int j = 0; j < points; j++, to += step) STORE(to, all[j]);
  }
}

static ALWAYS_INLINE void TYPED(tiles)(const enum kind k, const nyx_winograd_block *b,
                                       const T *plane, int64_t channels,
                                       TYPED(stage) * stage, T *row, int64_t step,
                                       int64_t columns, int64_t panel) {
  TYPED(find_slots)(b, stage);
  for (int64_t c = 0; c < channels; c++, plane += b->height * b->width, row += columns) {
    for (int64_t i = 0; i < b->strips; i++) {
      const nyx_winograd_strip *s = &b->strip[i];
      TYPED(stage_strip)
      (k, b, s, plane + s->x, c + 1 < channels, stage->plane[0] + s->first + i);
    }
    for (int64_t t = 0; t < b->tiles; t += LANES) {
      const TINT *from = stage->from[t / LANES];
      const T *tiles = stage->plane[0] + stage->first[t / LANES];
      T *at = row + t / columns * panel + t % columns;
      TYPED(lanes) slots = *(const TYPED(lanesu) *)from;
      if (from[LANES - 1] == LANES - 1)
        TYPED(tile_vector)(k, tiles, true, slots, at, step);
      else
        TYPED(tile_vector)(k, tiles, false, slots, at, step);
    }
  }
}

#define TILES(name, kind)                                                                \
  static void TYPED(name)(const nyx_winograd_block *b, const void *x, int64_t channels,  \
                          void *stage, void *to, int64_t step, int64_t columns,          \
                          int64_t panel) {                                               \
    TYPED(tiles)(kind, b, x, channels, stage, to, step, columns, panel);                 \
  }
TILES(input, INPUT)
TILES(gradient, OUTPUTS)
TILES(half_input, HALF_INPUT)
TILES(half_gradient, HALF_OUTPUTS)
TILES(twice_input, TWICE_INPUT)
#undef TILES

/* The nine taps of `channels` lanes, side by side. A channel's vectors reach beyond its
 * taps, where the next one's are written after them, but for the last. */
static ALWAYS_INLINE void TYPED(store_taps)(const V taps[NYX_WINOGRAD_TAPS],
                                            int64_t channels, T *to) {
  V turned[TAP_VECTORS][LANES];
  UNROLL for (int v = 0; v < TAP_VECTORS; v++) {
    UNROLL for (int l = 0; l < LANES; l++) turned[v][l] =
        v * LANES + l < NYX_WINOGRAD_TAPS ? taps[v * LANES + l] : (V){0};
    TYPED(transpose)(turned[v]);
  }
  for (int64_t l = 0; l < channels; l++, to += NYX_WINOGRAD_TAPS) {
    UNROLL for (int v = 0; v < TAP_VECTORS; v++) {
      if (v * LANES + LANES <= NYX_WINOGRAD_TAPS ||
          (channels - l) * NYX_WINOGRAD_TAPS >= TAP_VECTORS * LANES)
        STORE(to + v * LANES, turned[v][l]);
      else
        TYPED(store_part)
      (to + v * LANES, turned[v][l], TYPED(part_of)(0, NYX_WINOGRAD_TAPS - v * LANES));
    }
  }
}

/* A vector of channels at a time, whose nine taps are put side by side. */
static ALWAYS_INLINE bool TYPED(any_taps)(const bool halves, const void *sums,
                                          int64_t step, int64_t channels, void *to) {
  const int points = halves ? 4 : SEEN;
  T *out = to;
  V check = {0};
  for (int64_t c = 0; c < channels; c += LANES) {
    const T *from = (const T *)sums + c;
    TYPED(part) live = TYPED(part_of)(0, channels - c);
    V column[3][SEEN], taps[NYX_WINOGRAD_TAPS];
    UNROLL for (int j = 0; j < points; j++) {
      V m[SEEN], all[3];
      UNROLL for (int i = 0; i < points; i++) m[i] =
          TYPED(load_part)(from + (i * points + j) * step, live);
      TYPED(summed_points)(halves, m, all);
      UNROLL for (int i = 0; i < 3; i++) column[i][j] = all[i];
    }
    UNROLL for (int i = 0; i < 3; i++)
        TYPED(summed_points)(halves, column[i], taps + 3 * i);
    UNROLL for (int i = 0; i < NYX_WINOGRAD_TAPS; i++) check += 0 * taps[i];
    int64_t n = channels - c < LANES ? channels - c : LANES;
    if (halves) { /* a gradient takes 2 % less so */
      for (int64_t l = 0; l < n; l++)
        UNROLL for (int i = 0; i < NYX_WINOGRAD_TAPS; i++)
            out[l * NYX_WINOGRAD_TAPS + i] = ((const T *)taps)[i * LANES + l];
    } else {
      TYPED(store_taps)(taps, n, out);
    }
    out += n * NYX_WINOGRAD_TAPS;
  }
  T sum = 0;
  for (int l = 0; l < LANES; l++) sum += check[l];
  return sum == 0;
}

static bool TYPED(taps)(const void *sums, int64_t step, int64_t channels, void *to) {
  return TYPED(any_taps)(false, sums, step, channels, to);
}

static bool TYPED(half_taps)(const void *sums, int64_t step, int64_t channels, void *to) {
  return TYPED(any_taps)(true, sums, step, channels, to);
}

#define ROW ((SIDE + 1) * LANES) /* a vector may be read beyond what is written */

/* The two or four columns of a row of outputs, side by side. */
static ALWAYS_INLINE void TYPED(interleave)(const int side, const V y[SIDE], T *to) {
  TYPED(lanes) low, high;
  UNROLL for (int l = 0; l < LANES; l++) {
    low[l] = l / 2 + l % 2 * LANES;
    high[l] = (LANES + l) / 2 + l % 2 * LANES;
  }
  if (side == 2) {
    STORE(to, TYPED(pick)(y[0], y[1], low));
    STORE(to + LANES, TYPED(pick)(y[0], y[1], high));
    return;
  }
  V even[2] = {TYPED(pick)(y[0], y[2], low), TYPED(pick)(y[0], y[2], high)};
  V odd[2] = {TYPED(pick)(y[1], y[3], low), TYPED(pick)(y[1], y[3], high)};
  UNROLL for (int h = 0; h < 2; h++) {
    STORE(to + 2 * h * LANES, TYPED(pick)(even[h], odd[h], low));
    STORE(to + (2 * h + 1) * LANES, TYPED(pick)(even[h], odd[h], high));
  }
}

#include "winograd_few_type.h"

/* A vector of tiles from their products to rows of outputs; the sum of what makes 0 * y
 * not 0. */
static ALWAYS_INLINE V TYPED(output_vector)(const enum result r, const T *from,
                                            int64_t step, T bias, T rows[SIDE][ROW]) {
  const int side = results[r].side, points = results[r].points;
  V column[SIDE][SEEN], check = {0};
  UNROLL for (int j = 0; j < points; j++) {
    V m[SEEN], y[SIDE];
    UNROLL for (int i = 0; i < points; i++) m[i] = LOAD(from + (i * points + j) * step);
    TYPED(given_points)(r, m, y);
    UNROLL for (int i = 0; i < side; i++) column[i][j] = y[i];
  }
  UNROLL for (int i = 0; i < side; i++) {
    V y[SIDE];
    TYPED(given_points)(r, column[i], y);
    UNROLL for (int j = 0; j < side; j++) {
      y[j] += bias;
      check += 0 * y[j];
    }
    TYPED(interleave)(side, y, rows[i]);
  }
  return check;
}

/* Tiles t..t+LANES-1 of a strip, from rows of outputs that begin with tile t. */
static ALWAYS_INLINE void TYPED(store_strip)(const int side, const nyx_winograd_block *b,
                                             const nyx_winograd_strip *s, int64_t t,
                                             const T rows[SIDE][ROW], T *y) {
  int64_t skip = s->first > t ? s->first - t : 0; /* tiles of the rows */
  int64_t at = (t + skip - s->first) * side;      /* columns of the strip */
  int64_t n = (LANES - skip) * side;
  if (n > s->columns - at) n = s->columns - at;
  TYPED(part) live = TYPED(part_of)(0, n % LANES);
  T *to = y + s->y + at;
  const T *from = rows[0] + skip * side;
  for (int64_t i = 0; i < s->rows; i++, to += b->y_width, from += ROW) {
    UNROLL for (int q = 0; q < side * LANES; q += LANES) {
      if (n - q >= LANES)
        STORE(to + q, LOAD(from + q));
      else if (n > q)
        TYPED(store_part)(to + q, LOAD(from + q), live);
    }
  }
}

/* The lines of y that the next channel will write. */
static inline void TYPED(ask_for)(const nyx_winograd_block *b, const T *y) {
  for (const nyx_winograd_strip *s = b->strip; s < b->strip + b->strips; s++) {
    for (int64_t i = 0; i < s->rows; i++) {
      const char *to = (const char *)(y + s->y + i * b->y_width);
      for (int64_t p = 0; p < s->columns * (int64_t)sizeof(T); p += 64)
        __builtin_prefetch(to + p, 1);
    }
  }
}

/* Which strips have results that are not finite: some have. */
static void TYPED(note_infinite)(const nyx_winograd_block *b, const T *y) {
  for (nyx_winograd_strip *s = b->strip; s < b->strip + b->strips; s++) {
    for (int64_t i = 0; i < s->rows && !s->infinite; i++) {
      const T *row = y + s->y + i * b->y_width;
      for (int64_t j = 0; j < s->columns; j++) s->infinite |= !(0 * row[j] == 0);
    }
  }
}

static ALWAYS_INLINE void TYPED(any_output)(const enum result r,
                                            const nyx_winograd_block *b,
                                            const void *products, int64_t step,
                                            const void *bias, void *y, bool more) {
  T rows[SIDE][ROW] __attribute__((aligned(VECTOR_BYTES)));
  T plus = bias ? *(const T *)bias : 0;
  V check = {0};
  const nyx_winograd_strip *s = b->strip, *end = s + b->strips;
  if (more) TYPED(ask_for)(b, (const T *)y + b->y_plane);
  for (int64_t t = 0; t < b->tiles; t += LANES) {
    V all = TYPED(output_vector)(r, (const T *)products + t, step, plus, rows);
    if (b->tiles - t < LANES) { /* the other lanes are of no tile */
      TYPED(lanes) number;
      UNROLL for (int l = 0; l < LANES; l++) number[l] = l;
      all = (V)((TYPED(lanes))all & (number < (TINT)(b->tiles - t)));
    }
    check += all;
    for (; s < end && s->first < t + LANES; s++) {
      TYPED(store_strip)(results[r].side, b, s, t, rows, y);
      if (s->first + s->count > t + LANES) break; /* it goes on in the next vector */
    }
  }
  T sum = 0;
  for (int l = 0; l < LANES; l++) sum += check[l];
  if (sum != 0) TYPED(note_infinite)(b, y);
}

#define OUTPUT(name, result)                                                             \
  static void TYPED(name)(const nyx_winograd_block *b, const void *products,             \
                          int64_t step, const void *bias, void *y, bool more) {          \
    TYPED(any_output)(result, b, products, step, bias, y, more);                         \
  }
OUTPUT(output, WHOLE)
OUTPUT(half_output, HALF)
OUTPUT(twice_output, TWICE)
#undef OUTPUT

/* Channels-last: the channels of a place lie side by side, a vector of them is done at a
 * time. */
static void TYPED(place)(const void *const *from, int64_t channels, void *to,
                         int64_t step) {
  for (int64_t c = 0; c < channels; c += LANES) {
    TYPED(part) live = TYPED(part_of)(0, channels - c);
    V row[SEEN][SEEN], all[SEEN];
    UNROLL for (int j = 0; j < SEEN; j++) {
      V d[SEEN];
      UNROLL for (int i = 0; i < SEEN; i++) {
        const T *at = from[i * SEEN + j];
        d[i] = at ? TYPED(load_part)(at + c, live) : (V){0};
      }
      TYPED(input_points)(d, all);
      UNROLL for (int i = 0; i < SEEN; i++) row[i][j] = all[i];
    }
    T *out = (T *)to + c;
    UNROLL for (int i = 0; i < SEEN; i++) {
      TYPED(input_points)(row[i], all);
      UNROLL for (int j = 0; j < SEEN; j++, out += step) STORE(out, all[j]);
    }
  }
}

static bool TYPED(give)(const void *sums, int64_t step, const void *bias,
                        int64_t channels, void *const *to) {
  V check = {0};
  for (int64_t c = 0; c < channels; c += LANES) {
    TYPED(part) live = TYPED(part_of)(0, channels - c);
    const T *from = (const T *)sums + c;
    V plus = bias ? TYPED(load_part)((const T *)bias + c, live) : (V){0};
    V row[SIDE][SEEN], y[SIDE];
    UNROLL for (int j = 0; j < SEEN; j++) {
      V m[SEEN];
      UNROLL for (int i = 0; i < SEEN; i++) m[i] =
          TYPED(load_part)(from + (i * SEEN + j) * step, live);
      TYPED(output_points)(m, y);
      UNROLL for (int i = 0; i < SIDE; i++) row[i][j] = y[i];
    }
    UNROLL for (int i = 0; i < SIDE; i++) {
      TYPED(output_points)(row[i], y);
      UNROLL for (int j = 0; j < SIDE; j++) {
        T *at = to[i * SIDE + j];
        if (!at) continue;
        y[j] += plus;
        check += 0 * y[j];
        TYPED(store_part)(at + c, y[j], live);
      }
    }
  }
  T sum = 0;
  for (int l = 0; l < LANES; l++) sum += check[l];
  return sum == 0;
}

#undef V
#undef LANES
#undef LOAD
#undef STORE
#undef ROOT_HALF
#undef ROOT_TWO
#undef SLOTS
#undef PLANES
#undef VECTORS
#undef TAP_VECTORS
#undef KERNELS_AHEAD
#undef MATRIX_AHEAD
#undef ROW
