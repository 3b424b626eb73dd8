/* Pooling over one element type T; averages are in pool_average_type.h. */

#include "part_type.h"

/* Of a row that has room for some vectors more: lane l is from[l * stride]. */
static ALWAYS_INLINE V TYPED(spaced)(const T *from, int64_t stride) {
  if (stride == 1) return LOAD(from);
  if (stride == 2)
    return __builtin_shufflevector(LOAD(from), LOAD(from + LANES), TYPED(EVENS));
  V v = {0};
  UNROLL for (int l = 0; l < LANES; l++) v[l] = from[l * stride];
  return v;
}

/* Max pooling: for the outputs of a row whose windows lie inside,
 * tap by tap, so that neighbouring outputs are compared together; those at the border one
 * by one. Positions are kept in TINT, which is as wide as T, relative to the first window
 * of a chunk. */

/* The greatest so far of `count` neighbouring outputs against one tap of each, the i-th
 * `stride` after the one before. */
static ALWAYS_INLINE void TYPED(take)(const T *restrict from, int64_t stride, TINT at,
                                      int64_t count, T *restrict most,
                                      TINT *restrict best) {
  for (int64_t i = 0; i < count; i++) {
    T value = from[i * stride], before = most[i];
    bool more = !(value <= before) && before == before; /* a NaN is, once */
    most[i] = more ? value : before;
    best[i] = more ? at : best[i];
  }
}

/* The same over all taps, for a vector of outputs or more, with steps of one or two
 * elements, of which one more than the last is read. */
static ALWAYS_INLINE void TYPED(take_all)(const nyx_max_pool *p, const T *from,
                                          int64_t rows, int64_t stride, int64_t count,
                                          TINT *best, T *to) {
  const int64_t row = p->dilation[0] * p->in[1];
  for (int64_t at = 0; at < count; at += LANES) {
    if (at + LANES > count) at = count - LANES;
    const T *here = from + at * stride;
    V most = TYPED(spaced)(here, stride);
    TYPED(lanes) where = {0};
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < p->kernel[1]; j++) {
        const int64_t shift = i * row + j * p->dilation[1];
        const V value = TYPED(spaced)(here + shift, stride);
        const TYPED(lanes) more = ~(value <= most) & (most == most);
        most = (V)((more & (TYPED(lanes))value) | (~more & (TYPED(lanes))most));
        where = (more & (TINT)shift) | (~more & where);
      }
    STORE(to + at, most);
    memcpy(best + at, &where, sizeof where);
  }
}

/* Outputs first..first+count-1 of a row, at most CHUNK, all taps of which are inside;
 * `end`: of the plane. */
static void TYPED(max_chunk)(const nyx_max_pool *p, const T *from, const T *end,
                             int64_t rows, int64_t first, int64_t count, int64_t at,
                             int64_t *index, T *to) {
  const int64_t stride = p->stride[1], row = p->dilation[0] * p->in[1];
  const int64_t furthest = (rows - 1) * row + (p->kernel[1] - 1) * p->dilation[1];
  TINT best[CHUNK];
  from += first * stride - p->pad[1];
  if (stride == 1 && count >= LANES) {
    TYPED(take_all)(p, from, rows, 1, count, best, to);
  } else if (stride == 2 && count >= LANES &&
             end - from > (count - 1) * stride + furthest + 1) {
    TYPED(take_all)(p, from, rows, 2, count, best, to);
  } else {
    for (int64_t i = 0; i < count; i++) to[i] = from[i * stride], best[i] = 0;
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < p->kernel[1]; j++) {
        int64_t shift = i * row + j * p->dilation[1];
        TYPED(take)(from + shift, stride, (TINT)shift, count, to, best);
      }
  }
  at += first * stride - p->pad[1];
  for (int64_t i = 0; i < count; i++) index[i] = at + i * stride + best[i];
}

/* One output, whose taps t of row i are inside for lo <= t < hi. */
static void TYPED(max_one)(const nyx_max_pool *p, const T *from, int64_t rows, int64_t x,
                           int64_t lo, int64_t hi, int64_t at, int64_t *index, T *to) {
  int64_t best = x + lo * p->dilation[1];
  T most = from[best];
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = lo; j < hi; j++) {
      int64_t here = i * p->dilation[0] * p->in[1] + x + j * p->dilation[1];
      if (!(from[here] <= most) && most == most) {
        most = from[here];
        best = here;
      }
    }
  }
  *to = most;
  *index = at + best;
}

/* The taps lo..hi-1 of output o that are inside, and where the first would be. */
static int64_t TYPED(inside)(const nyx_max_pool *p, int i, int64_t o, int64_t *lo,
                             int64_t *hi) {
  int64_t start = o * p->stride[i] - p->pad[i], dilation = p->dilation[i];
  *lo = start < 0 ? (-start + dilation - 1) / dilation : 0;
  *hi = p->kernel[i];
  if (start + (*hi - 1) * dilation >= p->in[i])
    *hi = (p->in[i] - start + dilation - 1) / dilation;
  return start;
}

/* Outputs begin..end-1 of a row, `rows` of whose rows are inside, from `from` on; `at`:
 * where that is in the plane, which ends at `last`. */
static void TYPED(max_row)(const nyx_max_pool *p, const T *from, const T *last,
                           int64_t rows, int64_t begin, int64_t end, int64_t at,
                           int64_t base, int64_t *index, T *to) {
  /* Positions in a window are numbers of the type TINT where this is so. */
  bool small = (double)p->kernel[0] * (double)p->dilation[0] * (double)p->in[1] < 1e9;
  for (int64_t ox = begin; ox < end;) {
    int64_t lo, hi, x = TYPED(inside)(p, 1, ox, &lo, &hi), count = 0;
    if (rows < 1 || lo >= hi) { /* all of a small plane lies in a gap of the window */
      to[ox - begin] = -(T)INFINITY;
      index[ox++ - begin] = base;
    } else if (small && lo == 0 && hi == p->kernel[1]) {
      int64_t room = p->in[1] - 1 - (p->kernel[1] - 1) * p->dilation[1] + p->pad[1];
      count = room / p->stride[1] + 1 - ox;
      if (count > end - ox) count = end - ox;
      if (count > CHUNK) count = CHUNK;
      TYPED(max_chunk)
      (p, from, last, rows, ox, count, at + base, index + (ox - begin),
       to + (ox - begin));
      ox += count;
    } else {
      TYPED(max_one)
      (p, from, rows, x, lo, hi, at + base, index + (ox - begin), to + (ox - begin));
      ox++;
    }
  }
}

/* The greatest alone: of the rows first, then of neighbours. A NaN, which comparisons
 * pass by, shows in a sum of all; so do infinities of both signs, for nothing. */

/* `before` unless value is greater; one instruction on x86. */
static ALWAYS_INLINE V TYPED(greater)(V value, V before) {
#if defined(__AVX512F__)
  return sizeof(T) == 4 ? (V)_mm512_max_ps((__m512)value, (__m512)before)
                        : (V)_mm512_max_pd((__m512d)value, (__m512d)before);
#elif defined(__AVX2__)
  return sizeof(T) == 4 ? (V)_mm256_max_ps((__m256)value, (__m256)before)
                        : (V)_mm256_max_pd((__m256d)value, (__m256d)before);
#elif defined(__SSE2__)
  return sizeof(T) == 4 ? (V)_mm_max_ps((__m128)value, (__m128)before)
                        : (V)_mm_max_pd((__m128d)value, (__m128d)before);
#else
  const TYPED(lanes) more = value > before;
  return (V)((more & (TYPED(lanes))value) | (~more & (TYPED(lanes))before));
#endif
}

/* to[c] = the greatest of `rows` rows, `step` apart; whether their sum is a number. `to`
 * has room for a vector more. */
static bool TYPED(over_rows)(const T *from, int64_t step, int64_t rows, int64_t columns,
                             T *to) {
  V sum = {0}, more = {0};
  T all = 0;
  if (columns < LANES) {
    const TYPED(part) part = TYPED(part_of)(0, columns);
    V most = TYPED(load_part)(from, part);
    sum = most;
    for (int64_t i = 1; i < rows; i++) {
      const V value = TYPED(load_part)(from + i * step, part);
      sum += value;
      most = TYPED(greater)(value, most);
    }
    STORE(to, most);
  } else {
    for (int64_t c = 0; c < columns; c += LANES) {
      if (c + LANES > columns) c = columns - LANES; /* some once more */
      const T *row = from + c;
      V most = LOAD(row);
      sum += most;
      for (int64_t i = 1; i < rows; i++) {
        row += step;
        const V value = LOAD(row);
        more += value;
        most = TYPED(greater)(value, most);
      }
      STORE(to + c, most);
    }
    sum += more;
  }
  for (int l = 0; l < LANES; l++) all += sum[l];
  return all == all;
}

/* The greatest of `kernel` columns, `dilation` apart, the first `stride` after that of
 * the output before. */
static ALWAYS_INLINE void TYPED(over_columns)(const T *from, int64_t kernel,
                                              int64_t stride, int64_t dilation,
                                              int64_t count, T *to) {
  for (int64_t i = 0; i < count; i += LANES) {
    if (count >= LANES && i + LANES > count) i = count - LANES;
    const T *row = from + i * stride;
    V most = TYPED(spaced)(row, stride);
    for (int64_t j = 1; j < kernel; j++)
      most = TYPED(greater)(TYPED(spaced)(row + j * dilation, stride), most);
    if (count < LANES)
      memcpy(to, &most, (size_t)count * sizeof(T));
    else
      STORE(to + i, most);
  }
}

static void TYPED(across)(const nyx_max_pool *p, const T *row, int64_t count, T *to) {
  const int64_t kernel = p->kernel[1], dilation = p->dilation[1];
  if (p->stride[1] == 2 && kernel == 2)
    TYPED(over_columns)(row, 2, 2, dilation, count, to);
  else if (p->stride[1] == 2 && kernel == 3)
    TYPED(over_columns)(row, 3, 2, dilation, count, to);
  else if (p->stride[1] == 1)
    TYPED(over_columns)(row, kernel, 1, dilation, count, to);
  else if (p->stride[1] == 2)
    TYPED(over_columns)(row, kernel, 2, dilation, count, to);
  else
    TYPED(over_columns)(row, kernel, p->stride[1], dilation, count, to);
}

static void TYPED(values_row)(const nyx_max_pool *p, const T *from, const T *last,
                              int64_t rows, T *to) {
  const int64_t width = (p->kernel[1] - 1) * p->dilation[1] + 1, stride = p->stride[1];
  T row[ROOM + ROOM_MORE];
  int64_t most = width > ROOM ? 0 : (ROOM - width) / stride + 1, where[CHUNK];
  if (stride > MOST_STRIDE) most = 0;
  if (most > CHUNK) most = CHUNK;
  for (int64_t ox = 0, count; ox < p->out[1]; ox += count, to += count) {
    count = most > 0 ? most : CHUNK;
    if (count > p->out[1] - ox) count = p->out[1] - ox;
    int64_t begin = ox * stride - p->pad[1], end = begin + (count - 1) * stride + width;
    int64_t lo = begin > 0 ? begin : 0, hi = end < p->in[1] ? end : p->in[1];
    bool known = most > 0 && rows > 0 && lo < hi;
    if (known) {
      known = TYPED(over_rows)(from + lo, p->dilation[0] * p->in[1], rows, hi - lo,
                               row + (lo - begin));
      for (int64_t c = begin; c < lo; c++) row[c - begin] = -(T)INFINITY;
      for (int64_t c = hi; c < end; c++) row[c - begin] = -(T)INFINITY;
    }
    if (known)
      TYPED(across)(p, row, count, to);
    else
      TYPED(max_row)(p, from, last, rows, ox, ox + count, 0, 0, where, to);
  }
}

static void TYPED(max_plane)(const nyx_max_pool *p, const void *plane, int64_t base,
                             void *result, int64_t *index) {
  T *to = result;
  for (int64_t oy = 0; oy < p->out[0]; oy++, to += p->out[1]) {
    int64_t lo, hi, y = TYPED(inside)(p, 0, oy, &lo, &hi);
    int64_t rows = hi - lo, at = rows > 0 ? (y + lo * p->dilation[0]) * p->in[1] : 0;
    const T *from = (const T *)plane + at, *last = (const T *)plane + p->in[0] * p->in[1];
    int64_t *where = index ? index + oy * p->out[1] : NULL;
    if (where)
      TYPED(max_row)(p, from, last, rows, 0, p->out[1], at, base, where, to);
    else
      TYPED(values_row)(p, from, last, rows, to);
  }
}

#include "pool_average_type.h"

#undef V
#undef LANES
#undef LOAD
#undef STORE
