/* Running sums and products of elements of a type T in A; included by scan.c, once for
 * each. Sums of a row, or of a row of pairs (`width` 2), are made in groups of eight, of
 * whichever vectors the path has, and in the same order: results are the same on all
 * paths. */

#define V TYPED(sums)
#define TU TYPED(elements)

typedef A V __attribute__((vector_size(VECTOR_BYTES)));
/* LANES elements at any address. */
typedef T TU
    __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));

/* The lanes of v that `from` names, which is below 2 LANES: those of w from LANES on. */
static ALWAYS_INLINE V TYPED(picked)(V v, V w, lanes from) {
#if defined(__clang__)
  V r = v;
  UNROLL for (int l = 0; l < LANES; l++) r[l] =
      from[l] < LANES ? v[from[l] % LANES] : w[from[l] % LANES];
  return r;
#else
  return __builtin_shuffle(v, w, from);
#endif
}

/* p: from elements to their running sums. Twice as many in each step: the second half of
 * each 2, 4, 8 has the last sum of the first half added. So element k's sum is that of
 * some first elements plus that of the rest, each made the same way for element k + 1 or
 * of one element less: where no element is negative, no sum is below the one before. */
static ALWAYS_INLINE void TYPED(sum_group)(V p[PARTS], const int width) {
  const lanes lane = {LANE_NUMBERS}, of_pair = lane & (width - 1);
  const V none = {0};
  UNROLL for (int half = width; half < GROUP; half *= 2) {
    UNROLL for (int j = 0; j < PARTS; j++) {
      int first = j * LANES, last = (first & -2 * half) + half - width;
      if (half < LANES) {
        lanes from = (lane & -2 * half) + (half - width) + of_pair;
        lanes second = (lane & half) != 0;
        p[j] += TYPED(picked)(p[j], none, (from & second) | (LANES & ~second));
      } else if (first & half) {
        V source = p[last / LANES];
        p[j] += TYPED(picked)(source, source, of_pair + (LANES - width));
      }
    }
  }
}

static ALWAYS_INLINE V TYPED(widen)(const T *x) {
#ifdef WIDEN
  return (V)WIDEN(x);
#else
  return __builtin_convertvector(*(const TU *)x, V);
#endif
}

static ALWAYS_INLINE void TYPED(store_vector)(V v, T *y) {
#ifdef NARROW
  NARROW(y, v);
#else
  *(TU *)y = __builtin_convertvector(v, TU);
#endif
}

/* The other way around. */
static ALWAYS_INLINE V TYPED(turned)(V v, const int width) {
  const lanes lane = {LANE_NUMBERS};
  return TYPED(picked)(v, v, LANES - width - (lane & -width) + (lane & (width - 1)));
}

static ALWAYS_INLINE void TYPED(load_group)(const T *x, bool reverse, const int width,
                                            V p[PARTS]) {
  UNROLL for (int j = 0; j < PARTS; j++) {
    int at = (reverse ? PARTS - 1 - j : j) * LANES;
    V v = TYPED(widen)(x + at);
    p[j] = reverse ? TYPED(turned)(v, width) : v;
  }
}

static ALWAYS_INLINE void TYPED(store_group)(const V p[PARTS], bool reverse,
                                             const int width, T *y) {
  UNROLL for (int j = 0; j < PARTS; j++) {
    int at = (reverse ? PARTS - 1 - j : j) * LANES;
    TYPED(store_vector)(reverse ? TYPED(turned)(p[j], width) : p[j], y + at);
  }
}

/* The last sums of GROUP groups that sum_group would make: pairs, of pairs, of pairs. */
static ALWAYS_INLINE void TYPED(group_totals)(const T *x, bool reverse, A total[GROUP]) {
  const lanes lane = {LANE_NUMBERS};
  V v[GROUP * PARTS];
  UNROLL for (int j = 0; j < GROUP; j++) {
    int at = (reverse ? GROUP - 1 - j : j) * GROUP;
    TYPED(load_group)(x + at, reverse, 1, v + j * PARTS);
  }
  UNROLL for (int n = GROUP * PARTS / 2; n >= PARTS; n /= 2)
      UNROLL for (int j = 0; j < n; j++) v[j] =
          TYPED(picked)(v[2 * j], v[2 * j + 1], 2 * lane) +
          TYPED(picked)(v[2 * j], v[2 * j + 1], 2 * lane + 1);
  memcpy(total, v, GROUP * sizeof *total);
}

/* What a row adds up to, as sum_row_of would. */
static ALWAYS_INLINE A TYPED(row_total)(const nyx_scan *s, bool reverse) {
  const T *x = s->x;
  A run = 0;
  int64_t k = 0;
  for (; k + GROUP * GROUP <= s->n; k += GROUP * GROUP) {
    A total[GROUP];
    TYPED(group_totals)(x + (reverse ? s->n - GROUP * GROUP - k : k), reverse, total);
    for (int j = 0; j < GROUP; j++) run += total[j];
  }
  for (; k + GROUP <= s->n; k += GROUP) {
    V p[PARTS];
    TYPED(load_group)(x + (reverse ? s->n - GROUP - k : k), reverse, 1, p);
    TYPED(sum_group)(p, 1);
    run += p[PARTS - 1][LANES - 1];
  }
  for (; k < s->n; k++) run += (A)x[reverse ? s->n - 1 - k : k];
  return run;
}

/* A row, whose elements lie together. */
static ALWAYS_INLINE void TYPED(sum_row_of)(const nyx_scan *s, bool reverse,
                                            bool exclusive) {
  const lanes lane = {LANE_NUMBERS};
  const T *x = s->x;
  T *y = s->y;
  A before = s->before ? *(const A *)s->before : 0, run = 0;
  int64_t k = 0;
  for (; k + GROUP <= s->n; k += GROUP) {
    int64_t i = reverse ? s->n - GROUP - k : k;
    V p[PARTS], out[PARTS], none = {0};
    TYPED(load_group)(x + i, reverse, 1, p);
    TYPED(sum_group)(p, 1);
    UNROLL for (int j = 0; j < PARTS; j++) {
      V shifted = TYPED(picked)(j ? p[j ? j - 1 : 0] : none, p[j], lane + (LANES - 1));
      out[j] = before + (run + (exclusive ? shifted : p[j]));
    }
    TYPED(store_group)(out, reverse, 1, y + i);
    run += p[PARTS - 1][LANES - 1];
  }
  for (; k < s->n; k++) {
    int64_t i = reverse ? s->n - 1 - k : k;
    A after = run + (A)x[i];
    y[i] = (T)(before + (exclusive ? run : after));
    run = after;
  }
  if (s->total) *(A *)s->total = run;
}

static void TYPED(sum_row)(const nyx_scan *s) {
  if (!s->y)
    *(A *)s->total = s->reverse ? TYPED(row_total)(s, true) : TYPED(row_total)(s, false);
  else if (s->reverse)
    TYPED(sum_row_of)(s, true, s->exclusive);
  else
    TYPED(sum_row_of)(s, false, s->exclusive);
}

/* A row of pairs, first with first and second with second. */
static ALWAYS_INLINE void TYPED(sum_pairs_of)(const nyx_scan *s, bool reverse,
                                              bool exclusive, bool store) {
  const lanes lane = {LANE_NUMBERS}, of_pair = lane & 1;
  const T *x = s->x;
  T *y = s->y;
  const int64_t n = 2 * s->n;
  A base[2] = {0, 0}, sum[2];
  V before, run = {0};
  if (s->before) memcpy(base, s->before, sizeof base);
  for (int l = 0; l < LANES; l++) before[l] = base[l % 2];
  int64_t k = 0;
  for (; k + GROUP <= n; k += GROUP) {
    int64_t i = reverse ? n - GROUP - k : k;
    V p[PARTS], out[PARTS], none = {0};
    TYPED(load_group)(x + i, reverse, 2, p);
    TYPED(sum_group)(p, 2);
    UNROLL for (int j = 0; j < PARTS && store; j++) {
      V shifted = TYPED(picked)(j ? p[j ? j - 1 : 0] : none, p[j], lane + (LANES - 2));
      out[j] = before + (run + (exclusive ? shifted : p[j]));
    }
    if (store) TYPED(store_group)(out, reverse, 2, y + i);
    run += TYPED(picked)(p[PARTS - 1], p[PARTS - 1], of_pair + (LANES - 2));
  }
  for (int c = 0; c < 2; c++) sum[c] = run[c];
  for (; k < n; k++) {
    int c = (int)(k % 2);
    int64_t i = reverse ? n - 2 - k + 2 * c : k;
    A after = sum[c] + (A)x[i];
    if (store) y[i] = (T)(base[c] + (exclusive ? sum[c] : after));
    sum[c] = after;
  }
  if (s->total) memcpy(s->total, sum, sizeof sum);
}

static void TYPED(sum_pairs)(const nyx_scan *s) {
  if (!s->y && s->reverse)
    TYPED(sum_pairs_of)(s, true, false, false);
  else if (!s->y)
    TYPED(sum_pairs_of)(s, false, false, false);
  else if (s->reverse)
    TYPED(sum_pairs_of)(s, true, s->exclusive, true);
  else
    TYPED(sum_pairs_of)(s, false, s->exclusive, true);
}

/* The next running value; and of a column, what is before it and its own. */
static ALWAYS_INLINE V TYPED(next)(bool product, V run, V x) {
  return product ? run * x : run + x;
}
static ALWAYS_INLINE V TYPED(whole)(bool product, V before, V run) {
  return product ? run : before + run;
}

/* `rows` rows of columns side by side, `step` apart. What goes on is loaded before
 * anything is stored: rows of x and y are often a whole number of pages apart. */
static ALWAYS_INLINE void TYPED(scan_rows)(bool product, int rows, int64_t width,
                                           int64_t step, const T *x, T *y, A *run,
                                           const A *before, bool exclusive) {
  int64_t c = 0;
#ifdef WIDEN_PAIR
  for (; c + 2 * LANES <= width; c += 2 * LANES) {
    V low[COLUMN_ROWS + 1], high[COLUMN_ROWS + 1];
    const V base = *(const V *)(before + c), base_high = *(const V *)(before + c + LANES);
    low[0] = *(const V *)(run + c), high[0] = *(const V *)(run + c + LANES);
    UNROLL for (int r = 0; r < rows; r++) {
      V more, next = WIDEN_PAIR(x + r * step + c, &more);
      low[r + 1] = TYPED(next)(product, low[r], next);
      high[r + 1] = TYPED(next)(product, high[r], more);
    }
    UNROLL for (int r = 0; r < rows && y; r++) {
      int at = exclusive ? r : r + 1;
      NARROW_PAIR(y + r * step + c, TYPED(whole)(product, base, low[at]),
                  TYPED(whole)(product, base_high, high[at]));
    }
    *(V *)(run + c) = low[rows], *(V *)(run + c + LANES) = high[rows];
  }
#endif
  for (; c + LANES <= width; c += LANES) {
    V v[COLUMN_ROWS + 1], base = *(const V *)(before + c);
    v[0] = *(const V *)(run + c);
    UNROLL for (int r = 0; r < rows; r++) v[r + 1] =
        TYPED(next)(product, v[r], TYPED(widen)(x + r * step + c));
    UNROLL for (int r = 0; r < rows && y; r++) TYPED(store_vector)(
        TYPED(whole)(product, base, v[exclusive ? r : r + 1]), y + r * step + c);
    *(V *)(run + c) = v[rows];
  }
  for (; c < width; c++)
    for (int r = 0; r < rows; r++) {
      const A value = (A)x[r * step + c],
              after = product ? run[c] * value : run[c] + value;
      const A own = exclusive ? run[c] : after;
      if (y) y[r * step + c] = (T)(product ? own : before[c] + own);
      run[c] = after;
    }
}

/* Columns side by side, whose number is a constant where there are few: several rows at a
 * time, so that running values are read and written less often. */
static ALWAYS_INLINE void TYPED(scan_columns_of)(const nyx_scan *s, bool product,
                                                 int64_t width, bool exclusive,
                                                 bool store) {
  _Alignas(64) A run[NYX_SCAN_COLUMNS], before[NYX_SCAN_COLUMNS];
  const int64_t step = s->reverse ? -s->step : s->step;
  const T *x = (const T *)s->x + (s->reverse ? (s->n - 1) * s->step : 0);
  T *y = store ? (T *)s->y + (x - (const T *)s->x) : NULL;
  int64_t k = 0;
  for (int64_t c = 0; c < width; c++) run[c] = product;
  for (int64_t c = 0; c < width; c++)
    before[c] = s->before ? ((const A *)s->before)[c] : 0;
  for (int rows; k < s->n; k += rows) {
    const T *from = x + k * step;
    T *to = store ? y + k * step : NULL;
    rows = s->n - k >= COLUMN_ROWS ? COLUMN_ROWS : 1;
    if (rows > 1) TYPED(scan_rows)
    (product, COLUMN_ROWS, width, step, from, to, run, before, exclusive);
    else TYPED(scan_rows)(product, 1, width, step, from, to, run, before, exclusive);
  }
  if (s->total) memcpy(s->total, run, (size_t)width * sizeof *run);
}

static ALWAYS_INLINE void TYPED(scan_columns)(const nyx_scan *s, bool product,
                                              int64_t width) {
  if (!s->y)
    TYPED(scan_columns_of)(s, product, width, false, false);
  else if (s->exclusive)
    TYPED(scan_columns_of)(s, product, width, true, true);
  else
    TYPED(scan_columns_of)(s, product, width, false, true);
}

static void TYPED(sum)(const nyx_scan *s) {
  if (s->width == 1 && s->step == 1) {
    TYPED(sum_row)(s);
    return;
  }
  if (s->width == 2 && s->step == 2) {
    TYPED(sum_pairs)(s);
    return;
  }
  switch (s->width) {
    case 3: TYPED(scan_columns)(s, false, 3); break;
    case 4: TYPED(scan_columns)(s, false, 4); break;
    default: TYPED(scan_columns)(s, false, s->width);
  }
}

/* A single product stays in a register. */
static void TYPED(product)(const nyx_scan *s) {
  if (s->width > 1) {
    if (s->exclusive)
      TYPED(scan_columns_of)(s, true, s->width, true, true);
    else
      TYPED(scan_columns_of)(s, true, s->width, false, true);
    return;
  }
  const T *x = s->x;
  T *y = s->y;
  A run = 1;
  for (int64_t k = 0; k < s->n; k++) {
    const int64_t i = (s->reverse ? s->n - 1 - k : k) * s->step;
    const A after = run * (A)x[i];
    y[i] = (T)(s->exclusive ? run : after);
    run = after;
  }
}

#undef V
#undef TU
