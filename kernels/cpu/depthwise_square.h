/* Depthwise convolutions by square kernels of 3 and 5, stride 1 or 2, over one element
 * type T; included by depthwise_type.h. Images are read where they lie: a strip is a
 * vector of columns, and knows for each tap across which lanes are inside the image, so
 * that nothing is copied and borders cost no more than the rest. Rows outside the image
 * are left out. */

/* What is at these lanes, zeros elsewhere. Memory from `begin` to `limit` may be read. */
static ALWAYS_INLINE V TYPED(load_some)(const T *at, const TYPED(part) * part,
                                        const T *begin, const T *limit) {
#if defined(__AVX2__)
  (void)begin, (void)limit;
#else /* one by one only where it must be */
  if (at >= begin && limit - at >= LANES) return TYPED(keep)(LOAD(at), *part);
#endif
  return TYPED(load_part)(at, *part);
}

/* Lanes 1, 3, 5... of two vectors. */
static inline V TYPED(odds)(V a, V b) {
  V r = a;
#if defined(__clang__)
  UNROLL for (int l = 0; l < LANES; l++) r[l] =
      2 * l + 1 < LANES ? a[2 * l + 1] : b[2 * l + 1 - LANES];
#else
  TYPED(lanes) from = {0};
  UNROLL for (int l = 0; l < LANES; l++) from[l] = 2 * l + 1;
  r = __builtin_shuffle(a, b, from);
#endif
  return r;
}

/* Lanes from `first` on of a and b in turn. */
static ALWAYS_INLINE V TYPED(mixed)(V a, V b, const int first) {
  V r = a;
#if defined(__clang__)
  UNROLL for (int l = 0; l < LANES; l++) r[l] = (l & 1 ? b : a)[first + l / 2];
#else
  TYPED(lanes) from = {0};
  UNROLL for (int l = 0; l < LANES; l++) from[l] = first + l / 2 + (l & 1) * LANES;
  r = __builtin_shuffle(a, b, from);
#endif
  return r;
}

/* A vector of columns: where its lane 0 reads, from a row's beginning, at the first tap
 * across, and which lanes are in the image at each. Stride 2 reads two vectors for each
 * pair of taps. Its adjoint has lanes of y, two columns of x for each. */
typedef struct TYPED(strip) {
  TYPED(part) in[6], lanes; /* lanes: of y */
  int64_t from, to, live;
  bool whole; /* all lanes are inside, everywhere */
} TYPED(strip);

/* The sizes are the same for all planes; the others are set in the loops' own copy. */
typedef struct TYPED(square) {
  int64_t height, width, pad; /* of the plane that taps read */
  int64_t rows, columns;      /* of the result; or of y, where that is the kernel */
  const TYPED(strip) * strips;
  int64_t count;
  const T *from;
  T *w; /* the kernel: read, or added to */
  T bias;
  T *to; /* the result, or y */
} TYPED(square);

static ALWAYS_INLINE V TYPED(read)(const bool whole, const TYPED(square) * j,
                                   const TYPED(part) * in, const T *at) {
  return whole ? LOAD(at)
               : TYPED(load_some)(at, in, j->from, j->from + j->height * j->width);
}

/* What the k taps across see of a row, from `at` on. */
static ALWAYS_INLINE void TYPED(see)(const int k, const int s, const bool whole,
                                     const TYPED(square) * j, const TYPED(strip) * p,
                                     const T *at, V *x) {
  if (s == 1) {
    UNROLL for (int c = 0; c < k; c++) {
      x[c] = TYPED(read)(whole, j, &p->in[c], at + c);
      HOLD(x[c]);
    }
  } else {
    UNROLL for (int c = 0; c < k; c += 2) {
      V a = TYPED(read)(whole, j, &p->in[c], at + c);
      V b = TYPED(read)(whole, j, &p->in[c + 1], at + c + LANES);
      x[c] = TYPED(evens)(a, b);
      if (c + 1 < k) x[c + 1] = TYPED(odds)(a, b);
    }
  }
}

/* Whether parts of vectors cost no more than whole ones, so that strips that are wholly
 * inside need no loops of their own: as good as 10 % less time with stride 2, 3 to 10
 * more with stride 1. Nor do they where rows are left over or planes are narrow. */
#if defined(__AVX512F__)
#define PARTS_ARE_FREE(stride) ((stride) == 2)
#else
#define PARTS_ARE_FREE(stride) false
#endif

/* Whether they cost so much that columns of a whole one are rather done twice. */
#if defined(__AVX2__)
#define PARTS_COST false
#else
#define PARTS_COST true
#endif

#if defined(__AVX512F__)
#define SUM_ROWS 7 /* summed together: what registers hold; usual heights divide by 7 */
#define DOT_ROWS 4 /* of y; and of a plane one vector wide */
#define DOT_ROWS_NARROW 7
#define DOT_TAPS 3 /* rows of a 5x5 kernel */
#else
#define SUM_ROWS 4
#define DOT_ROWS 2
#define DOT_ROWS_NARROW 2
#define DOT_TAPS 1
#endif

static ALWAYS_INLINE bool TYPED(has_row)(const TYPED(square) * j, int64_t row) {
  return (uint64_t)row < (uint64_t)j->height;
}

/* n rows of a strip of the result. All of k, s and n are constants. */
static ALWAYS_INLINE void TYPED(sum_strip)(const int n, const int k, const int s,
                                           const bool whole, const TYPED(square) * j,
                                           const TYPED(strip) * p, const V *w,
                                           int64_t row) {
  V sum[SUM_ROWS], x[5];
  int64_t first = row * s - j->pad;
  const T *at = j->from + first * j->width + p->from;
  UNROLL for (int r = 0; r < n; r++) sum[r] = j->bias - (V){0};
  UNROLL for (int i = 0; i < (n - 1) * s + k; i++, at += j->width) {
    if (!TYPED(has_row)(j, first + i)) continue;
    TYPED(see)(k, s, whole, j, p, at, x);
    UNROLL for (int r = 0; r < n; r++) {
      int t = i - r * s;
      if (t < 0 || t >= k) continue;
      UNROLL for (int c = 0; c < k; c++) sum[r] += w[t * k + c] * x[c];
    }
  }
  T *to = j->to + row * j->columns + p->to;
  UNROLL for (int r = 0; r < n; r++, to += j->columns)
      TYPED(put)(to, sum[r], whole ? LANES : p->live, to);
}

static ALWAYS_INLINE void TYPED(sum_block)(const int n, const int k, const int s,
                                           const TYPED(square) * j, TYPED(strip) * p,
                                           const V *w, int64_t row) {
  for (int64_t i = 0; i < j->count; i++) {
    if (j->count > 1) *p = j->strips[i];
    if (p->whole && n > 1 && !PARTS_ARE_FREE(s))
      TYPED(sum_strip)(n, k, s, true, j, p, w, row);
    else
      TYPED(sum_strip)(n, k, s, false, j, p, w, row);
  }
}

/* All rows; the last ones once more rather than one by one. What is used all the time is
 * copied, that it may stay in registers. */
static ALWAYS_INLINE void TYPED(sum_all)(const int k, const int s, TYPED(square) j) {
  TYPED(strip) p = j.strips[0];
  V w[25];
  UNROLL for (int t = 0; t < k * k; t++) w[t] = j.w[t] - (V){0};
  int64_t row = 0;
  if (j.rows < SUM_ROWS) {
    for (; row < j.rows; row++) TYPED(sum_block)(1, k, s, &j, &p, w, row);
    return;
  }
  for (; row < j.rows; row += SUM_ROWS) {
    if (row + SUM_ROWS > j.rows) row = j.rows - SUM_ROWS;
    TYPED(sum_block)(SUM_ROWS, k, s, &j, &p, w, row);
  }
}

/* The adjoint with respect to x, stride 2. In the padded image u = x + pad, tap t of y's
 * element a adds to u = 2a + t. `odd` is the padding's parity across, a constant: column
 * 2q + f of x is reached by the taps c with c + pad + f even, from y's column
 * q + (f + pad - c) / 2, which is e below plus what the strip adds. */
static ALWAYS_INLINE void TYPED(mix_strip)(const TYPED(square) * j,
                                           const TYPED(strip) * p, int64_t row,
                                           const V *sum) {
  if ((uint64_t)row >= (uint64_t)j->rows) return;
  T *to = j->to + row * j->columns + p->to;
  int64_t live = p->live;
  TYPED(put)(to, TYPED(mixed)(sum[0], sum[1], 0), live < LANES ? live : LANES, to);
  if (live <= LANES) return;
  to += LANES;
  TYPED(put)(to, TYPED(mixed)(sum[0], sum[1], LANES / 2), live - LANES, to);
}

/* Rows 2a and 2a + 1 of u: y's row a - i adds to them by the kernel's rows 2i and 2i + 1.
 */
static ALWAYS_INLINE void TYPED(spread_strip)(const int k, const int odd,
                                              const bool whole, const TYPED(square) * j,
                                              const TYPED(strip) * p, const V *w,
                                              int64_t a) {
  V sum[2][2] = {{{0}, {0}}, {{0}, {0}}}, y[3];
  const T *at = j->from + a * j->width + p->from;
  UNROLL for (int i = 0; i <= k / 2; i++, at -= j->width) {
    if (!TYPED(has_row)(j, a - i)) continue;
    UNROLL for (int e = 0; e <= k / 2; e++) {
      y[e] = TYPED(read)(whole, j, &p->in[e], at + e);
      HOLD(y[e]);
    }
    UNROLL for (int d = 0; d < 2; d++) {
      const int t = 2 * i + d;
      if (t >= k) continue;
      UNROLL for (int c = 0; c < k; c++) {
        int f = (c + odd) & 1, e = (f + odd - c) / 2 - odd + k / 2;
        sum[d][f] += w[t * k + c] * y[e];
      }
    }
  }
  TYPED(mix_strip)(j, p, 2 * a - j->pad, sum[0]);
  TYPED(mix_strip)(j, p, 2 * a - j->pad + 1, sum[1]);
}

static ALWAYS_INLINE void TYPED(spread_all)(const int k, const int odd, TYPED(square) j) {
  TYPED(strip) p = j.strips[0];
  V w[25];
  UNROLL for (int t = 0; t < k * k; t++) w[t] = j.w[t] - (V){0};
  for (int64_t a = j.pad / 2; 2 * a < j.rows + j.pad; a++) {
    for (int64_t i = 0; i < j.count; i++) {
      if (j.count > 1) p = j.strips[i];
      if (p.whole && !PARTS_ARE_FREE(2))
        TYPED(spread_strip)(k, odd, true, &j, &p, w, a);
      else
        TYPED(spread_strip)(k, odd, false, &j, &p, w, a);
    }
  }
}

/* The adjoint with respect to the weight: `taps` rows of the kernel from t0 on, n rows of
 * y. Lanes that are not in both y and the image count as zeros in both: there may be
 * infinities. */
static ALWAYS_INLINE void TYPED(dot_strip)(const int n, const int k, const int s,
                                           const int taps, int64_t t0, const bool whole,
                                           const TYPED(square) * j,
                                           const TYPED(strip) * p, int64_t row, V *sum) {
  V g[DOT_ROWS_NARROW], x[5];
  int64_t first = row * s - j->pad + t0;
  const T *from = j->from + first * j->width + p->from;
  const T *y = j->to + row * j->columns + p->to;
  UNROLL for (int r = 0; r < n; r++) {
    const T *at = y + r * j->columns;
    g[r] = whole ? LOAD(at)
                 : TYPED(load_some)(at, &p->lanes, j->to, j->to + j->rows * j->columns);
  }
  UNROLL for (int i = 0; i < (n - 1) * s + taps; i++, from += j->width) {
    if (!TYPED(has_row)(j, first + i)) continue;
    TYPED(see)(k, s, whole, j, p, from, x);
    UNROLL for (int r = 0; r < n; r++) {
      int t = i - r * s;
      if (t < 0 || t >= taps) continue;
      UNROLL for (int c = 0; c < k; c++) sum[t * k + c] += g[r] * x[c];
    }
  }
}

static ALWAYS_INLINE void TYPED(dot_block)(const int n, const int k, const int s,
                                           const int taps, int64_t t0,
                                           const TYPED(square) * j, TYPED(strip) * p,
                                           int64_t row, V *sum) {
  for (int64_t i = 0; i < j->count; i++) {
    if (j->count > 1) *p = j->strips[i];
    if (p->whole && n == DOT_ROWS && !PARTS_ARE_FREE(s))
      TYPED(dot_strip)(n, k, s, taps, t0, true, j, p, row, sum);
    else
      TYPED(dot_strip)(n, k, s, taps, t0, false, j, p, row, sum);
  }
}

static ALWAYS_INLINE void TYPED(dot_rows)(const int n, const int k, const int s,
                                          const int taps, int64_t t0,
                                          const TYPED(square) * j) {
  V sum[15];
  TYPED(strip) p = j->strips[0];
  UNROLL for (int i = 0; i < taps * k; i++) sum[i] = (V){0};
  int64_t row = 0;
  for (; row + n <= j->rows; row += n)
    TYPED(dot_block)(n, k, s, taps, t0, j, &p, row, sum);
  for (; row < j->rows; row++) TYPED(dot_block)(1, k, s, taps, t0, j, &p, row, sum);
  UNROLL for (int i = 0; i < taps * k; i++) j->w[t0 * k + i] += TYPED(total)(sum[i]);
}

static ALWAYS_INLINE void TYPED(dot_all)(const int k, const int s, TYPED(square) j) {
  if (k == 3 && j.count == 1 && DOT_ROWS_NARROW > DOT_ROWS) {
    TYPED(dot_rows)(DOT_ROWS_NARROW, k, s, 3, 0, &j);
    return;
  }
  const int taps = k == 3 ? 3 : DOT_TAPS;
  int64_t t = 0;
  for (; t + taps <= k; t += taps) TYPED(dot_rows)(DOT_ROWS, k, s, taps, t, &j);
  if (k % taps > 0) TYPED(dot_rows)(DOT_ROWS, k, s, k % taps, t, &j);
}

/* By mode, side and stride; the adjoint with respect to x has stride 2 here, and the
 * padding's parity instead. With stride 1 it is a sum by the kernel turned round. */

#define OF_SIZE(name, k, s)                                                              \
  static void TYPED(name##_##k##_##s)(const TYPED(square) * sizes, const T *from, T *w,  \
                                      T bias, T *to) {                                   \
    TYPED(square) j = *sizes;                                                            \
    j.from = from, j.w = w, j.bias = bias, j.to = to;                                    \
    TYPED(name##_all)(k, s, j);                                                          \
  }
OF_SIZE(sum, 3, 1)
OF_SIZE(sum, 3, 2)
OF_SIZE(sum, 5, 1)
OF_SIZE(sum, 5, 2)
OF_SIZE(spread, 3, 0)
OF_SIZE(spread, 3, 1)
OF_SIZE(spread, 5, 0)
OF_SIZE(spread, 5, 1)
OF_SIZE(dot, 3, 1)
OF_SIZE(dot, 3, 2)
OF_SIZE(dot, 5, 1)
OF_SIZE(dot, 5, 2)
#undef OF_SIZE

static void (*const TYPED(of_size)[3][2][2])(const TYPED(square) * sizes, const T *from,
                                             T *w, T bias, T *to) = {
    [NYX_DEPTHWISE_FORWARD] = {{TYPED(sum_3_1), TYPED(sum_3_2)},
                               {TYPED(sum_5_1), TYPED(sum_5_2)}},
    [NYX_DEPTHWISE_INPUT] = {{TYPED(spread_3_0), TYPED(spread_3_1)},
                             {TYPED(spread_5_0), TYPED(spread_5_1)}},
    [NYX_DEPTHWISE_WEIGHT] = {{TYPED(dot_3_1), TYPED(dot_3_2)},
                              {TYPED(dot_5_1), TYPED(dot_5_2)}}};

/* Strips */

static int64_t TYPED(strip_count)(const nyx_depthwise *d, nyx_depthwise_mode mode) {
  if (mode != NYX_DEPTHWISE_INPUT) return (d->out[1] + LANES - 1) / LANES;
  int64_t columns = d->stride[1] * LANES;
  return (d->in[1] + columns - 1) / columns;
}

/* Lanes of the columns from `from` on that are in a row of `width`. Strips are made once
 * for all planes: not inlined for each tap. */
static __attribute__((noinline)) TYPED(part)
    TYPED(in_row)(int64_t from, int64_t width, int64_t live) {
  return TYPED(part_of)(-from, width - from < live ? width - from : live);
}

/* Strip i of what has `columns` columns, of a row of `width` with zeros before it. The
 * last one may begin earlier and be made of `again`, columns that are written twice. */
static TYPED(strip)
    TYPED(sum_strip_at)(int64_t k, int64_t s, int64_t columns, int64_t width, int64_t pad,
                        bool again, int64_t i) {
  int64_t to = i * LANES;
  if (again && PARTS_COST && columns >= LANES && to + LANES > columns)
    to = columns - LANES;
  int64_t live = columns - to < LANES ? columns - to : LANES;
  TYPED(strip)
  p = {.lanes = TYPED(part_of)(0, live), .from = to * s - pad, .to = to, .live = live};
  for (int64_t c = 0; c < k; c += s) {
    p.in[c] = TYPED(in_row)(p.from + c, width, s * live);
    if (s == 2) p.in[c + 1] = TYPED(in_row)(p.from + c + LANES, width, 2 * live - LANES);
  }
  p.whole = live == LANES && p.from >= 0 && p.from + k - 1 + s * LANES <= width;
  return p;
}

static TYPED(strip) TYPED(spread_strip_at)(const nyx_depthwise *d, int64_t i) {
  int64_t k = d->kernel[1], odd = d->pad[1] & 1, to = i * 2 * LANES;
  int64_t live = d->in[1] - to < 2 * LANES ? d->in[1] - to : 2 * LANES;
  TYPED(strip)
  p = {.from = to / 2 + (d->pad[1] + odd) / 2 - k / 2, .to = to, .live = live};
  for (int64_t e = 0; e <= k / 2; e++)
    p.in[e] = TYPED(in_row)(p.from + e, d->out[1], LANES);
  p.whole = live == 2 * LANES && p.from >= 0 && p.from + k / 2 + LANES <= d->out[1];
  return p;
}

static TYPED(strip)
    TYPED(strip_at)(const nyx_depthwise *d, nyx_depthwise_mode mode, int64_t i) {
  int64_t k = d->kernel[1], s = d->stride[1];
  if (mode != NYX_DEPTHWISE_INPUT)
    return TYPED(sum_strip_at)(k, s, d->out[1], d->in[1], d->pad[1],
                               mode == NYX_DEPTHWISE_FORWARD, i);
  if (s == 2) return TYPED(spread_strip_at)(d, i);
  return TYPED(sum_strip_at)(k, 1, d->in[1], d->out[1], k - 1 - d->pad[1], true, i);
}

static TYPED(square) TYPED(square_of)(const nyx_depthwise *d, nyx_depthwise_mode mode,
                                      const TYPED(strip) * strips) {
  bool input = mode == NYX_DEPTHWISE_INPUT, turned = input && d->stride[0] == 1;
  const int64_t *from = input ? d->out : d->in, *to = input ? d->in : d->out;
  return (TYPED(square)){.height = from[0],
                         .width = from[1],
                         .pad = turned ? d->kernel[0] - 1 - d->pad[0] : d->pad[0],
                         .rows = to[0],
                         .columns = to[1],
                         .strips = strips,
                         .count = TYPED(strip_count)(d, mode)};
}

/* One plane of x, and the kernels that see it with their planes of y. */

static void TYPED(square_from_x)(const plan *p, const nyx_depthwise_planes *planes,
                                 nyx_depthwise_mode mode) {
  const nyx_depthwise *d = p->d;
  for (int64_t o = 0; o < d->outputs; o++) {
    T bias = planes->bias ? ((const T *)planes->bias)[o] : 0;
    TYPED(of_size)
    [mode][p->side == 5][d->stride[0] - 1](
        p->square, planes->x, (T *)planes->weight + o * p->side * p->side, bias,
        (T *)planes->y + o * d->out[0] * d->out[1]);
  }
}

static void TYPED(square_input)(const plan *p, const nyx_depthwise_planes *planes) {
  const nyx_depthwise *d = p->d;
  const T *y = planes->y, *weight = planes->weight;
  int64_t taps = p->side * p->side;
  T turned[25];
  if (d->stride[0] == 2) {
    TYPED(of_size)
    [NYX_DEPTHWISE_INPUT][p->side == 5][d->pad[1] & 1](p->square, y, planes->weight, 0,
                                                       planes->x);
    return;
  }
  for (int64_t t = 0; t < taps; t++) turned[t] = weight[taps - 1 - t];
  TYPED(of_size)
  [NYX_DEPTHWISE_FORWARD][p->side == 5][0](p->square, y, turned, 0, planes->x);
}
