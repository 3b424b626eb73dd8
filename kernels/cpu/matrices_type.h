/* LU, Cholesky and solutions over one element type T; included by matrices.c. Every
 * vector holds one element of as many matrices as it has lanes, so that all is done as
 * for one matrix of vectors; only rows are exchanged lane by lane. Sums are taken to
 * their end at once (Crout), so that they stay in registers. */

#include "part_type.h"
#include "transpose_type.h"

#define M TYPED(lanes)

static ALWAYS_INLINE V TYPED(choose)(M m, V a, V b) {
  return (V)((m & (M)a) | (~m & (M)b));
}

static ALWAYS_INLINE V TYPED(root)(V v) {
  T lane[LANES] __attribute__((aligned(VECTOR_BYTES)));
  *(V *)lane = v;
  for (int l = 0; l < LANES; l++)
    lane[l] = sizeof(T) == sizeof(float) ? (T)sqrtf((float)lane[l]) : (T)sqrt(lane[l]);
  return *(V *)lane;
}

/* `size` elements of every lane into (back from) a vector for each. */
static __attribute__((noinline)) void TYPED(gather)(const nyx_matrices *j,
                                                    void *const *from, int64_t size,
                                                    V *to) {
  const T *line[LANES];
  for (int l = 0; l < LANES; l++) line[l] = from[l < j->count ? l : 0];
  for (int64_t at = 0; at < size && size >= LANES; at += LANES) {
    if (at + LANES > size) at = size - LANES; /* some once more */
    V v[LANES];
    UNROLL for (int l = 0; l < LANES; l++) v[l] = LOAD(line[l] + at);
    TYPED(transpose)(v);
    UNROLL for (int l = 0; l < LANES; l++) to[at + l] = v[l];
  }
  for (int64_t at = 0; at < size && size < LANES; at++) {
    T lane[LANES] __attribute__((aligned(VECTOR_BYTES)));
    for (int l = 0; l < LANES; l++) lane[l] = line[l][at];
    to[at] = *(V *)lane;
  }
}

static __attribute__((noinline)) void TYPED(scatter)(const nyx_matrices *j, const V *from,
                                                     int64_t size, void *const *to) {
  for (int64_t at = 0; at < size && size >= LANES; at += LANES) {
    if (at + LANES > size) at = size - LANES;
    V v[LANES];
    UNROLL for (int l = 0; l < LANES; l++) v[l] = from[at + l];
    TYPED(transpose)(v);
    if (j->count == LANES)
      UNROLL for (int l = 0; l < LANES; l++) STORE((T *)to[l] + at, v[l]);
    else
      for (int l = 0; l < j->count; l++) STORE((T *)to[l] + at, v[l]);
  }
  for (int64_t at = 0; at < size && size < LANES; at++)
    for (int l = 0; l < j->count; l++) ((T *)to[l])[at] = ((const T *)&from[at])[l];
}

/* to[i to_step] -= sum over t < terms of x[i x_step + t x_term] y[t y_term], for each i <
 * count. */
static __attribute__((noinline)) void TYPED(take)(V *to, int64_t to_step, int64_t count,
                                                  int64_t terms, const V *x,
                                                  int64_t x_step, int64_t x_term,
                                                  const V *y, int64_t y_term) {
  enum { SOME = 6 };
  int64_t i = 0;
  for (; i + SOME <= count; i += SOME) {
    V sum[SOME];
    UNROLL for (int r = 0; r < SOME; r++) sum[r] = (V){0};
    for (int64_t t = 0; t < terms; t++) {
      const V by = y[t * y_term];
      UNROLL for (int r = 0; r < SOME; r++) sum[r] +=
          x[(i + r) * x_step + t * x_term] * by;
    }
    UNROLL for (int r = 0; r < SOME; r++) to[(i + r) * to_step] -= sum[r];
  }
  for (; i < count; i++) {
    V sum = {0};
    for (int64_t t = 0; t < terms; t++) sum += x[i * x_step + t * x_term] * y[t * y_term];
    to[i * to_step] -= sum;
  }
}

/* Exchanges row k of every lane with row `at`, which is not before it. */
static void TYPED(exchange_rows)(int64_t m, int64_t n, V *a, int64_t k, M at) {
  int64_t row[LANES];
  M is[LANES];
  int count = 0;
  for (int l = 0; l < LANES; l++) {
    const int64_t i = at[l];
    bool known = i == k;
    for (int r = 0; r < count; r++) known |= row[r] == i;
    if (known) continue;
    is[count] = at == (TINT)i;
    row[count++] = i;
  }
  for (int64_t c = 0; c < n; c++, a += m) {
    const V before = a[k];
    V now = before;
    for (int r = 0; r < count; r++) {
      const V other = a[row[r]];
      a[row[r]] = TYPED(choose)(is[r], before, other);
      now = TYPED(choose)(is[r], other, now);
    }
    a[k] = now;
  }
}

/* The first of the greatest magnitudes of column k from its diagonal down. What is not a
 * number is not greater than anything, nor less. */
static M TYPED(pivot_of)(int64_t m, const V *column, int64_t k) {
  const M sign = (M){0} + (TINT)((TINT)1 << (8 * sizeof(T) - 1));
  V most = (V)((M)column[k] & ~sign);
  M at = (M){0} + (TINT)k;
  for (int64_t i = k + 1; i < m; i++) {
    const V size = (V)((M)column[i] & ~sign);
    const M more = size > most;
    most = TYPED(choose)(more, size, most);
    at = (more & ((M){0} + (TINT)i)) | (~more & at);
  }
  return at;
}

static void TYPED(lu)(const nyx_matrices *j) {
  const int64_t m = j->m, n = j->n, steps = m < n ? m : n;
  V *a = j->room;
  M info = {0};
  TYPED(gather)(j, j->a, m * n, a);
  for (int64_t k = 0; k < steps; k++) {
    V *column = a + k * m;
    TYPED(take)(column + k, 1, m - k, k, a + k, 1, m, column, 1);
    const M at = TYPED(pivot_of)(m, column, k);
    for (int l = 0; l < j->count; l++) j->pivots[l][k] = (int)at[l] + 1;
    TYPED(exchange_rows)(m, n, a, k, at);
    const V pivot = column[k];
    const M zero = pivot == 0;
    info |= zero & (info == 0) & ((M){0} + (TINT)(k + 1));
    for (int64_t i = k + 1; i < m; i++)
      column[i] = TYPED(choose)(zero, column[i], column[i] / pivot);
    if (k + 1 < n)
      TYPED(take)(column + m + k, m, n - k - 1, k, column + m, m, 1, a + k, m);
  }
  for (int l = 0; l < j->count; l++) *j->info[l] = (int)info[l];
  TYPED(scatter)(j, a, m * n, j->a);
}

static void TYPED(cholesky)(const nyx_matrices *j) {
  const int64_t n = j->n;
  V *a = j->room;
  M info = {0};
  TYPED(gather)(j, j->a, n * n, a);
  for (int64_t k = 0; k < n; k++) {
    V *row = a + k * n;
    TYPED(take)(row + k, n, n - k, k, row, n, 1, row, 1);
    const M good = row[k] > 0;
    info |= ~good & (info == 0) & ((M){0} + (TINT)(k + 1));
    row[k] = TYPED(root)(row[k]);
    const V by = 1 / row[k];
    for (int64_t i = k + 1; i < n; i++) a[i * n + k] *= by;
  }
  for (int l = 0; l < j->count; l++) *j->info[l] = (int)info[l];
  TYPED(scatter)(j, a, n * n, j->a);
}

/* Right-hand sides x[i row + c column] become solutions by the triangle a[i down + t
 * right]. */
static __attribute__((noinline)) void TYPED(triangle)(int64_t n, int64_t k, const V *a,
                                                      int64_t down, int64_t right,
                                                      bool upper, bool unit, V *x,
                                                      int64_t row, int64_t column) {
  for (int64_t step = 0; step < n; step++) {
    const int64_t i = upper ? n - 1 - step : step, known = upper ? i + 1 : 0;
    V *to = x + i * row;
    TYPED(take)
    (to, column, k, step, x + known * row, column, row, a + i * down + known * right,
     right);
    if (unit) continue;
    const V by = 1 / a[i * (down + right)];
    for (int64_t c = 0; c < k; c++) to[c * column] *= by;
  }
}

static void TYPED(solve)(const nyx_matrices *j) {
  const int64_t n = j->n, k = j->k;
  V *a = j->room, *x = a + n * n;
  const int64_t row = j->left ? k : 1, column = j->left ? 1 : n;
  /* x A = b is A^T x^T = b^T */
  const bool turned = j->turned == j->left;
  TYPED(gather)(j, j->a, n * n, a);
  TYPED(gather)(j, j->x, n * k, x);
  const int64_t down = turned ? 1 : n, right = turned ? n : 1;
  if (j->lu) TYPED(triangle)(n, k, a, down, right, false, true, x, row, column);
  TYPED(triangle)(n, k, a, down, right, j->upper == j->left, j->unit, x, row, column);
  TYPED(scatter)(j, x, n * k, j->x);
}

#include "triangle_type.h"

#undef M
#undef V
#undef LANES
#undef LOAD
#undef STORE
