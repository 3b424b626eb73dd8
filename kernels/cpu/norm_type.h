/* The loops over one element type T; included by norm.c, once for each. */

typedef T TYPED(vec) __attribute__((vector_size(VECTOR_BYTES)));
/* The same, at any address of a T. */
typedef T TYPED(vecu)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));

#define V TYPED(vec)
#define LOAD(p) (*(const TYPED(vecu) *)(p))
#define LANES ((int)(VECTOR_BYTES / sizeof(T)))

static double TYPED(total)(V v) {
  double sum = 0;
  for (int l = 0; l < LANES; l++) sum += (double)v[l];
  return sum;
}

static void TYPED(normalize)(const void *x_, int64_t n, double mean_, double scale_,
                             const void *w_, const void *b_, double shift_, void *y_) {
  const T *x = x_, *w = w_, *b = b_;
  T *y = y_, mean = (T)mean_, scale = (T)scale_, shift = (T)shift_;
  if (w && b) {
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * w[i] + b[i] + shift;
  } else if (w) {
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * w[i] + shift;
  } else if (b) {
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale + b[i] + shift;
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale + shift;
  }
}

static void TYPED(sums)(const void *g_, const void *x_, const void *w_, int64_t n,
                        double mean_, double *sum, double *dot) {
  const T *g = g_, *x = x_, *w = w_;
  T mean = (T)mean_;
  for (int64_t from = 0; from < n; from += SUM_BLOCK) {
    int64_t end = from + SUM_BLOCK < n ? from + SUM_BLOCK : n, i = from;
    V s = {0}, d = {0};
    for (; i + LANES <= end; i += LANES) {
      V gw = LOAD(g + i);
      if (w) gw *= LOAD(w + i);
      s += gw;
      d += gw * (LOAD(x + i) - mean);
    }
    double last_s = 0, last_d = 0;
    for (; i < end; i++) {
      double gw = w ? (double)g[i] * (double)w[i] : (double)g[i];
      last_s += gw;
      last_d += gw * (double)(x[i] - mean);
    }
    *sum += TYPED(total)(s) + last_s;
    *dot += TYPED(total)(d) + last_d;
  }
}

static void TYPED(backward)(const void *g_, const void *x_, const void *w_, int64_t n,
                            double mean_, double p_, double q_, double r_, void *y_) {
  const T *g = g_, *x = x_, *w = w_;
  T *y = y_, mean = (T)mean_, p = (T)p_, q = (T)q_, r = (T)r_;
  if (w) {
    for (int64_t i = 0; i < n; i++) y[i] = g[i] * w[i] * p + ((x[i] - mean) * q + r);
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = g[i] * p + ((x[i] - mean) * q + r);
  }
}

static void TYPED(accumulate)(const void *g_, const void *x_, int64_t n, double mean_,
                              double scale_, void *w_, void *b_) {
  const T *restrict g = g_, *restrict x = x_;
  T *restrict w = w_, *restrict b = b_;
  T mean = (T)mean_, scale = (T)scale_;
  for (int64_t i = 0; w && i < n; i++) w[i] += g[i] * ((x[i] - mean) * scale);
  for (int64_t i = 0; b && i < n; i++) b[i] += g[i];
}

static double TYPED(squares)(const void *x_, int64_t n) {
  const T *x = x_;
  double sum = 0;
  for (int64_t from = 0; from < n; from += SUM_BLOCK) {
    int64_t end = from + SUM_BLOCK < n ? from + SUM_BLOCK : n, i = from;
    V s = {0};
    for (; i + LANES <= end; i += LANES) s += LOAD(x + i) * LOAD(x + i);
    double last = 0;
    for (; i < end; i++) last += (double)x[i] * (double)x[i];
    sum += TYPED(total)(s) + last;
  }
  return sum;
}

#undef V
#undef LOAD
#undef LANES
