/* Rows of an image with zeros around them, over one element type T: what convolutions
 * read instead of the image, so that their loops know no borders. With a stride the
 * columns of a row are split by their remainder (its phases): what one tap reads for
 * neighbouring outputs lies side by side. Included where T, TINT and TYPED are defined;
 * needs vector_bytes.h and patches.h. */

#include "part_type.h"

/* All ones in the first `live` lanes. */
static inline TYPED(lanes) TYPED(mask)(int64_t live) {
  TYPED(lanes) number;
  UNROLL for (int l = 0; l < LANES; l++) number[l] = l;
  return number < (TINT)live;
}

/* v with zeros in all but the first lanes: not multiplied, there may be infinities. */
static inline V TYPED(keep)(V v, TYPED(lanes) mask) {
  return (V)((TYPED(lanes))v & mask);
}

/* The first `live` elements; `end` is where whole vectors may be written as far as. */
static ALWAYS_INLINE void TYPED(put)(T *to, V v, int64_t live, const T *end) {
#if defined(__AVX512F__)
  (void)end;
  if (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << live) - 1), (__m512)v);
  } else {
    _mm512_mask_storeu_pd(to, (__mmask8)((1u << live) - 1), (__m512d)v);
  }
#elif defined(__AVX2__)
  (void)end;
  if (sizeof(T) == 4) {
    _mm256_maskstore_ps((float *)to, (__m256i)TYPED(mask)(live), (__m256)v);
  } else {
    _mm256_maskstore_pd((double *)to, (__m256i)TYPED(mask)(live), (__m256d)v);
  }
#else
  if (live == LANES || end - to >= LANES)
    STORE(to, v);
  else
    TYPED(store_part)(to, v, TYPED(mask)(live));
#endif
}

/* Lanes 0, 2, 4... of two vectors. */
static inline V TYPED(evens)(V a, V b) {
#if defined(__clang__)
  V r = a;
  UNROLL for (int l = 0; l < LANES; l++) r[l] =
      2 * l < LANES ? a[2 * l] : b[2 * l - LANES];
  return r;
#else
  TYPED(lanes) from = {0};
  UNROLL for (int l = 0; l < LANES; l++) from[l] = 2 * l;
  return __builtin_shuffle(a, b, from);
#endif
}

/* to[q] = from[q * step] for q < n. Zeros may be written behind these, before `room`.
 * Memory before `limit` may be read. */
static ALWAYS_INLINE void TYPED(copy_step)(T *to, const T *from, int64_t n,
                                           const int64_t step, int64_t room,
                                           const T *limit) {
  int64_t q = 0;
  if (step == 1) {
    for (; q + LANES <= n; q += LANES) STORE(to + q, LOAD(from + q));
  }
  for (; q < n; q += LANES) {
    const T *at = from + q * step;
    int64_t live = n - q < LANES ? n - q : LANES;
    if (step == 1 && limit - at >= LANES) {
      TYPED(put)(to + q, TYPED(keep)(LOAD(at), TYPED(mask)(live)), live, to + room);
    } else if (step == 2 && limit - at >= 2 * LANES) {
      V all = TYPED(evens)(LOAD(at), LOAD(at + LANES));
      TYPED(put)(to + q, TYPED(keep)(all, TYPED(mask)(live)), live, to + room);
    } else {
      for (int64_t l = 0; l < live; l++) to[q + l] = at[l * step];
    }
  }
}

/* Which elements of a phase are inside the image: n from `lo` on, which is `column`. */
static inline void TYPED(inside)(const nyx_row_padding *g, int64_t f, int64_t *lo,
                                 int64_t *column, int64_t *n) {
  int64_t first = f - g->pad;
  *lo = first < 0 ? (g->step - 1 - first) / g->step : 0;
  *column = *lo * g->step + first;
  *n = *column < g->width ? (g->width - 1 - *column) / g->step + 1 : 0;
  if (*n > g->phase - *lo) *n = g->phase - *lo;
}

/* Rows that are needed when the same rows of another plane are: nothing guesses them. */
static ALWAYS_INLINE void TYPED(ask_ahead)(const nyx_row_padding *g, const T *row) {
  const char *next = (const char *)(row + g->ahead);
  for (int64_t p = 0; p < g->width * (int64_t)sizeof(T); p += 64)
    __builtin_prefetch(next + p);
}

/* `count` rows of a plane of `height` rows, from `first` on, to rows `pitch` apart. The
 * zeros beside the image are there already. */
static void TYPED(pad_rows)(const nyx_row_padding *g, const T *plane, int64_t height,
                            const T *limit, int64_t first, int64_t count, T *to,
                            int64_t pitch) {
  const int64_t down = g->down, step = down * g->width;
  int64_t begin = first < 0 ? (down - 1 - first) / down : 0;
  int64_t end = height > first ? (height - 1 - first) / down + 1 : 0;
  if (begin > count) begin = count;
  if (end > count) end = count;
  if (end < begin) end = begin;
  memset(to, 0, (size_t)(begin * pitch) * sizeof(T));
  memset(to + end * pitch, 0, (size_t)((count - end) * pitch) * sizeof(T));
  const T *image = plane + (first + begin * down) * g->width;
  for (int64_t r = begin; g->ahead && r < end; r++)
    TYPED(ask_ahead)(g, image + (r - begin) * step);
  for (int64_t f = 0; f < g->phases; f++) {
    int64_t lo, column, n;
    TYPED(inside)(g, f, &lo, &column, &n);
    if (n < 1) continue;
    T *row = to + f * g->phase + lo;
    const T *from = image + column;
    int64_t room = g->phase - lo, r = begin;
    row += begin * pitch;
    if (g->step == 1) {
      for (; r < end; r++, row += pitch, from += step)
        TYPED(copy_step)(row, from, n, 1, room, limit);
    } else if (g->step == 2) {
      for (; r < end; r++, row += pitch, from += step)
        TYPED(copy_step)(row, from, n, 2, room, limit);
    } else {
      for (; r < end; r++, row += pitch, from += step)
        TYPED(copy_step)(row, from, n, g->step, room, limit);
    }
  }
}
