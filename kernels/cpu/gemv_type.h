/* A matrix times a vector over one element type T; included by gemm.c, once for each.
 * Both read the matrix once, at the speed of memory where it is large: four rows at a
 * time for their dot products, or eight for their sum. The order of a result's sum does
 * not depend on the rows and columns beside it. */
#define DOT_ROWS 4 /* with two sums each: eight chains of multiply-adds */
#define SUM_ROWS 8
#define SUM_COLS ((int64_t)(8192 / sizeof(T))) /* of y: half of a small first cache */
#define SUM_TERMS 8192 /* of a partial sum: rounding errors grow with its length */
#define FAR ((int64_t)(1024 / sizeof(T))) /* elements asked for ahead in a row */

typedef T TYPED(quad) __attribute__((vector_size(16)));

/* The sum of all lanes. */
static ALWAYS_INLINE T TYPED(across)(V sum) {
  TYPED(quad) part[VECTOR_BYTES / 16];
  memcpy(part, &sum, sizeof part);
  UNROLL for (int w = VECTOR_BYTES / 32; w > 0; w /= 2) {
    UNROLL for (int i = 0; i < w; i++) part[i] += part[i + w];
  }
  T total = part[0][0] + part[0][1];
  return sizeof(T) == 8
             ? total
             : total + (part[0][2 % (16 / sizeof(T))] + part[0][3 % (16 / sizeof(T))]);
}

/* y[r] = or += row r of a times x. */
static ALWAYS_INLINE void TYPED(dot_rows)(const int rows, const T *a, int64_t rs,
                                          int64_t k, const T *x, T *y, int64_t step,
                                          bool add) {
  V sum[DOT_ROWS][2];
  UNROLL for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (V){0};
  int64_t p = 0;
  for (; p + 2 * LANES <= k; p += 2 * LANES) {
    V x0 = (V) * (const VU *)(x + p), x1 = (V) * (const VU *)(x + p + LANES);
    UNROLL for (int r = 0; r < rows; r++) {
      const T *at = a + r * rs + p;
      UNROLL for (int e = 0; e < 2 * LANES; e += LINE) __builtin_prefetch(at + FAR + e);
      sum[r][0] += x0 * (V) * (const VU *)at;
      sum[r][1] += x1 * (V) * (const VU *)(at + LANES);
    }
  }
  for (; p + LANES <= k; p += LANES) {
    V x0 = (V) * (const VU *)(x + p);
    UNROLL for (int r = 0; r < rows; r++) sum[r][0] +=
        x0 * (V) * (const VU *)(a + r * rs + p);
  }
  UNROLL for (int r = 0; r < rows; r++) {
    T total = TYPED(across)(sum[r][0] + sum[r][1]);
    for (int64_t e = p; e < k; e++) total += a[r * rs + e] * x[e];
    y[r * step] = add ? y[r * step] + total : total;
  }
}

/* Of `rows` rows of n < LANES elements, how many have a whole vector's elements from
 * their beginning to the end of the last row. */
static int64_t TYPED(readable)(int64_t rs, int64_t rows, int64_t n) {
  int64_t left = (rows - 1) * rs + n - LANES; /* behind a vector at the first row */
  return rs > 0 && left >= 0 ? left / rs + 1 : 0;
}

/* Rows shorter than a vector, LANES of them at a time, turned around in registers: whole
 * vectors are read, what lies behind a row is not used. */
static int64_t TYPED(short_dots)(const T *a, int64_t rs, int64_t m, int64_t k, const T *x,
                                 T *y, int64_t step, bool add) {
  int64_t i = 0;
  for (int64_t safe = TYPED(readable)(rs, m, k); i + LANES <= safe; i += LANES) {
    V row[LANES], sum = {0};
    UNROLL for (int r = 0; r < LANES; r++) row[r] = (V) * (const VU *)(a + (i + r) * rs);
    TYPED(transpose)(row);
    UNROLL for (int e = 0; e < LANES - 1; e++) {
      if (e < k) sum += x[e] * row[e];
    }
    T each[LANES];
    memcpy(each, &sum, sizeof each);
    for (int r = 0; r < LANES; r++) {
      T *to = y + (i + r) * step;
      *to = add ? *to + each[r] : each[r];
    }
  }
  return i;
}

static void TYPED(dots)(const void *a, int64_t rs, int64_t m, int64_t k, const void *x,
                        void *y, int64_t step, bool add) {
  const T *from = a;
  T *to = y;
  int64_t i = k < LANES ? TYPED(short_dots)(from, rs, m, k, x, to, step, add) : 0;
  for (; i + DOT_ROWS <= m; i += DOT_ROWS)
    TYPED(dot_rows)(DOT_ROWS, from + i * rs, rs, k, x, to + i * step, step, add);
  for (; i < m; i++)
    TYPED(dot_rows)(1, from + i * rs, rs, k, x, to + i * step, step, add);
}

/* y = or += the sum of `rows` rows of b, each times an element of x: whole vectors. What
 * is read next is asked for: in these rows, then in as many behind them, which are too
 * far apart to be foreseen. */
static ALWAYS_INLINE void TYPED(sum_some)(const int rows, const T *b, int64_t rs,
                                          int64_t n, const T *x, int64_t xs, T *y,
                                          bool add) {
  const int64_t ahead = FAR < n ? FAR : n;
  T w[SUM_ROWS];
  UNROLL for (int r = 0; r < rows; r++) w[r] = x[r * xs];
  for (int64_t j = 0; j < n; j += LANES) {
    V sum = (V){0}; /* of these rows first: errors of y are an eighth as many */
    const T *ask = j + ahead < n ? b + j + ahead : b + rows * rs + j + ahead - n;
    UNROLL for (int r = 0; r < rows; r++) {
      if (LANES >= LINE || j % LINE == 0) __builtin_prefetch(ask + r * rs);
      sum += w[r] * (V) * (const VU *)(b + r * rs + j);
    }
    if (add) sum += *(VU *)(y + j);
    *(VU *)(y + j) = sum;
  }
}

/* The columns that do not fill a vector. Whole ones are read of all rows but those that
 * end where b does. */
static void TYPED(sum_last)(const T *b, int64_t rs, int64_t k, int64_t n, const T *x,
                            int64_t xs, T *y, bool add) {
  V sum[4] = {{0}};
  int64_t l = 0;
  for (int64_t safe = TYPED(readable)(rs, k, n); l + 4 <= safe; l += 4) {
    UNROLL for (int r = 0; r < 4; r++) sum[r] +=
        x[(l + r) * xs] * (V) * (const VU *)(b + (l + r) * rs);
  }
  T each[LANES];
  sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  memcpy(each, sum, sizeof each);
  for (; l < k; l++) {
    for (int64_t j = 0; j < n; j++) each[j] += x[l * xs] * b[l * rs + j];
  }
  for (int64_t j = 0; j < n; j++) y[j] = add ? y[j] + each[j] : each[j];
}

/* SUM_TERMS rows and SUM_COLS columns at most. */
static void TYPED(sum_part)(const T *b, int64_t rs, int64_t k, int64_t n, const T *x,
                            int64_t xs, T *y, bool add) {
  int64_t whole = n / LANES * LANES, l = 0;
  for (; l + SUM_ROWS <= k; l += SUM_ROWS) {
    TYPED(sum_some)(SUM_ROWS, b + l * rs, rs, whole, x + l * xs, xs, y, add || l > 0);
  }
  for (; l < k; l++)
    TYPED(sum_some)(1, b + l * rs, rs, whole, x + l * xs, xs, y, add || l > 0);
  if (whole < n) TYPED(sum_last)(b + whole, rs, k, n - whole, x, xs, y + whole, add);
}

static void TYPED(sum_rows)(const void *b, int64_t rs, int64_t k, int64_t n,
                            const void *x, int64_t xs, void *y, bool add) {
  T part[SUM_COLS] __attribute__((aligned(64)));
  for (int64_t j = 0; j < n; j += SUM_COLS) {
    T *to = (T *)y + j;
    int64_t cols = n - j < SUM_COLS ? n - j : SUM_COLS;
    for (int64_t l = 0; l < k; l += SUM_TERMS) {
      int64_t rows = k - l < SUM_TERMS ? k - l : SUM_TERMS;
      TYPED(sum_part)
      ((const T *)b + l * rs + j, rs, rows, cols, (const T *)x + l * xs, xs,
       l == 0 ? to : part, l == 0 && add);
      for (int64_t i = 0; i < cols && l > 0; i++) to[i] += part[i];
    }
  }
}

#undef DOT_ROWS
#undef SUM_ROWS
#undef SUM_COLS
#undef SUM_TERMS
#undef FAR
