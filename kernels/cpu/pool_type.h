/* Pooling over one element type T; averages are in pool_average_type.h. */

#include "part_type.h"

/* Of a row that has room for some vectors more: lane l is from[l * stride]. */
static ALWAYS_INLINE V TYPED(spaced)(const T *from, int64_t stride) {
  if (stride == 1) return LOAD(from);
  if (stride == 2)
    return __builtin_shufflevector(LOAD(from), LOAD(from + LANES), TYPED(OF)(EVENS));
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

/* The same over all taps, for a vector of outputs or more, with steps of one or two
 * elements, of which one more than the last is read. Whether it is right: without `nans`,
 * which take as long again, not where the sum of all but the first taps, whose NaNs stay,
 * is no number. */
static ALWAYS_INLINE bool TYPED(take_all)(const nyx_max_pool *p, const T *from,
                                          int64_t rows, int64_t stride, bool nans,
                                          int64_t count, TINT *best, T *to) {
  const int64_t row = p->dilation[0] * p->in[1];
  V sum = {0};
  for (int64_t at = 0; at < count; at += LANES) {
    if (at + LANES > count) at = count - LANES;
    const T *here = from + at * stride;
    V most = TYPED(spaced)(here, stride), others = {0};
    TYPED(lanes) where = {0};
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = i == 0; j < p->kernel[1]; j++) {
        const int64_t shift = i * row + j * p->dilation[1];
        const V value = TYPED(spaced)(here + shift, stride);
        const TYPED(lanes) more = nans ? ~(value <= most) & (most == most) : value > most;
        most = nans ? (V)((more & (TYPED(lanes))value) | (~more & (TYPED(lanes))most))
                    : TYPED(greater)(value, most);
        where = (more & (TINT)shift) | (~more & where);
        if (!nans) others += value;
      }
    if (!nans) sum += others;
    STORE(to + at, most);
    memcpy(best + at, &where, sizeof where);
  }
  T all = 0;
  for (int l = 0; l < LANES; l++) all += sum[l];
  return all == all;
}

/* take_all of windows of two by two, two columns apart. */
static ALWAYS_INLINE bool TYPED(take_pairs)(const T *from, int64_t row, int64_t count,
                                            TINT *best, T *to) {
  V sum[3] = {{0}};
  T all = 0;
  for (int64_t at = 0; at < count; at += LANES) {
    if (at + LANES > count) at = count - LANES;
    V most[2];
    TYPED(lanes) right[2];
    for (int i = 0; i < 2; i++) {
      const T *here = from + 2 * at + i * row;
      const V a = LOAD(here), b = LOAD(here + LANES);
      const V even = __builtin_shufflevector(a, b, TYPED(OF)(EVENS));
      const V odd = __builtin_shufflevector(a, b, TYPED(OF)(ODDS));
      right[i] = odd > even;
      most[i] = TYPED(greater)(odd, even);
      sum[i] += odd;
      if (i == 1) sum[2] += even;
    }
    const TYPED(lanes) below = most[1] > most[0];
    const TYPED(lanes) where = (below & ((TINT)row - right[1])) | (~below & -right[0]);
    STORE(to + at, TYPED(greater)(most[1], most[0]));
    memcpy(best + at, &where, sizeof where);
  }
  sum[0] += sum[1] + sum[2];
  for (int l = 0; l < LANES; l++) all += sum[0][l];
  return all == all;
}

/* `count` outputs by vectors, all taps of which are inside, from `from` on in a plane
 * that ends at `end`; false: nothing is done. */
static bool TYPED(take_vectors)(const nyx_max_pool *p, const T *from, const T *end,
                                int64_t rows, int64_t count, TINT *best, T *to) {
  const int64_t stride = p->stride[1], row = p->dilation[0] * p->in[1];
  const int64_t furthest = (rows - 1) * row + (p->kernel[1] - 1) * p->dilation[1];
  if (count < LANES || stride > 2) return false;
  if (stride == 1)
    return TYPED(take_all)(p, from, rows, 1, false, count, best, to) ||
           TYPED(take_all)(p, from, rows, 1, true, count, best, to);
  if (p->kernel[1] == 2 && p->dilation[1] == 1 && rows == 2 &&
      TYPED(take_pairs)(from, row, count, best, to))
    return true;
  if (end - from <= (count - 1) * stride + furthest + 1) return false;
  return TYPED(take_all)(p, from, rows, 2, false, count, best, to) ||
         TYPED(take_all)(p, from, rows, 2, true, count, best, to);
}

/* Outputs first..first+count-1 of a row, at most CHUNK, all taps of which are inside;
 * `end`: of the plane. */
static void TYPED(max_chunk)(const nyx_max_pool *p, const T *from, const T *end,
                             int64_t rows, int64_t first, int64_t count, int64_t at,
                             int64_t *index, T *to) {
  const int64_t stride = p->stride[1], row = p->dilation[0] * p->in[1];
  TINT best[CHUNK];
  from += first * stride - p->pad[1];
  if (!TYPED(take_vectors)(p, from, end, rows, count, best, to)) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i * stride], best[i] = 0;
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < p->kernel[1]; j++) {
        int64_t shift = i * row + j * p->dilation[1];
        TYPED(take)(from + shift, stride, (TINT)shift, count, to, best);
      }
  }
  at += first * stride - p->pad[1];
  for (int64_t i = 0; i < count; i++, at += stride) index[i] = at + (uint32_t)best[i];
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

/* Steps of two, columns that follow each other: rows and neighbours at once. */

/* The greatest of `rows` rows, two or more, of a vector of columns. All but the first are
 * added to *sum: a NaN of that stays. */
static ALWAYS_INLINE V TYPED(over)(const T *from, int64_t step, int64_t rows, V *sum) {
  V all = LOAD(from + step), most = TYPED(greater)(all, LOAD(from));
  for (int64_t i = 2; i < rows; i++) {
    const V value = LOAD(from + i * step);
    all += value;
    most = TYPED(greater)(value, most);
  }
  *sum += all;
  return most;
}

/* The same of one column, of which all are added. */
static ALWAYS_INLINE T TYPED(over_one)(const T *from, int64_t step, int64_t rows,
                                       T *sum) {
  T most = *from;
  for (int64_t i = 0; i < rows; i++) {
    const T value = from[i * step];
    *sum += value;
    most = value > most ? value : most;
  }
  return most;
}

/* `count` outputs, a vector or more, of windows of 2 or 3 columns from `from` on, of the
 * first of which the first column may be `missing`; whether the sum of all is a number.
 * Of three columns the first is the last of the window before. */
static ALWAYS_INLINE bool TYPED(by_twos)(const T *from, int64_t step, int64_t rows,
                                         int64_t kernel, bool missing, int64_t count,
                                         T *to) {
  V sum[3] = {{0}}, before = {0};
  T all = 0;
  if (kernel == 3)
    before[0] = missing ? -(T)INFINITY : TYPED(over_one)(from, step, rows, &all);
  from += kernel == 3;
  for (int64_t i = 0; i < count; i += LANES) {
    if (i + LANES > count) { /* some once more */
      i = count - LANES;
      if (kernel == 3) before[0] = TYPED(over_one)(from + 2 * i - 1, step, rows, &all);
    }
    const V a = TYPED(over)(from + 2 * i, step, rows, &sum[0]);
    const V b = TYPED(over)(from + 2 * i + LANES, step, rows, &sum[1]);
    const V odd = __builtin_shufflevector(a, b, TYPED(OF)(ODDS));
    V most = TYPED(greater)(odd, __builtin_shufflevector(a, b, TYPED(OF)(EVENS)));
    sum[2] += odd; /* one of an even column is in the result */
    if (kernel == 3) {
      V first = __builtin_shufflevector(odd, odd, TYPED(OF)(TURNED));
      const T last = first[0];
      first[0] = before[0];
      before[0] = last;
      most = TYPED(greater)(first, most);
    }
    STORE(to + i, most);
  }
  sum[0] += sum[1] + sum[2];
  for (int l = 0; l < LANES; l++) all += sum[0][l];
  return all == all;
}

/* by_twos with numbers of rows and columns that the compiler knows, where there is one:
 * 1 or 0, else -1. */
static int TYPED(known_twos)(const nyx_max_pool *p, const T *from, int64_t rows,
                             bool missing, int64_t count, T *to) {
  const int64_t kernel = p->kernel[1], step = p->dilation[0] * p->in[1];
  if (p->stride[1] != 2 || p->dilation[1] != 1 || count < LANES) return -1;
  if (kernel == 2 && rows == 2) return TYPED(by_twos)(from, step, 2, 2, false, count, to);
  if (kernel == 3 && rows == 3)
    return TYPED(by_twos)(from, step, 3, 3, missing, count, to);
  if (kernel == 3 && rows == 2)
    return TYPED(by_twos)(from, step, 2, 3, missing, count, to);
  return -1;
}

/* max_row, positions left out. */
static void TYPED(exact_row)(const nyx_max_pool *p, const T *from, const T *last,
                             int64_t rows, int64_t begin, int64_t end, T *to) {
  int64_t where[CHUNK];
  for (int64_t ox = begin, n; ox < end; ox += n) {
    n = end - ox < CHUNK ? end - ox : CHUNK;
    TYPED(max_row)(p, from, last, rows, ox, ox + n, 0, 0, where, to + ox);
  }
}

/* Output `ox` by itself, where columns follow each other. */
static T TYPED(one_value)(const nyx_max_pool *p, const T *from, int64_t rows,
                          int64_t ox) {
  const int64_t step = p->dilation[0] * p->in[1], x = ox * p->stride[1] - p->pad[1];
  const int64_t lo = x > 0 ? x : 0, end = x + p->kernel[1];
  const int64_t hi = end < p->in[1] ? end : p->in[1];
  T most = -(T)INFINITY;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t c = lo; c < hi; c++) {
      const T value = from[i * step + c];
      most = !(value <= most) && most == most ? value : most;
    }
  return most;
}

/* A row by twos, but for the windows that hang over; false: nothing is done. */
static bool TYPED(twos_row)(const nyx_max_pool *p, const T *from, const T *last,
                            int64_t rows, T *to) {
  const int64_t pad = p->pad[1], all = p->out[1], room = p->in[1] + pad - p->kernel[1];
  const bool missing = p->kernel[1] == 3 && pad == 1;
  const int64_t begin = missing ? 0 : (pad + 1) / 2, inside = room < 0 ? 0 : room / 2 + 1;
  const int64_t end = inside < all ? inside : all;
  const int known = TYPED(known_twos)(p, from + 2 * begin - pad, rows, missing,
                                      end - begin, to + begin);
  if (known < 0) return false;
  if (!known) TYPED(exact_row)(p, from, last, rows, begin, end, to);
  for (int64_t ox = 0; ox < begin; ox++) to[ox] = TYPED(one_value)(p, from, rows, ox);
  for (int64_t ox = end; ox < all; ox++) to[ox] = TYPED(one_value)(p, from, rows, ox);
  return true;
}

static void TYPED(values_row)(const nyx_max_pool *p, const T *from, const T *last,
                              int64_t rows, T *to) {
  const int64_t width = (p->kernel[1] - 1) * p->dilation[1] + 1, stride = p->stride[1];
  T row[ROOM + ROOM_MORE];
  int64_t most = width > ROOM ? 0 : (ROOM - width) / stride + 1;
  if (stride > MOST_STRIDE) most = 0;
  if (most > CHUNK) most = CHUNK;
  for (int64_t ox = 0, count; ox < p->out[1]; ox += count) {
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
      TYPED(across)(p, row, count, to + ox);
    else
      TYPED(exact_row)(p, from, last, rows, ox, ox + count, to);
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
    else if (!TYPED(twos_row)(p, from, last, rows, to))
      TYPED(values_row)(p, from, last, rows, to);
  }
}

#include "pool_average_type.h"

#undef V
#undef LANES
#undef LOAD
#undef STORE
