/* Running extremes and recurrences; sums and products, which are vectors across columns,
 * sums along rows too, are in scan_type.h. Compiled once per instruction-set path. */
#include "scan.h"

#include <math.h>
#include <string.h>

#include "vector_bytes.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* name(s): a running value per column goes through n elements, `before` it at an element
 * and `after` behind. A single column keeps it in a register. */
#define COLUMNS_FUNCTION(name, T, A, start, body)                                        \
  static ALWAYS_INLINE void name##_of(const nyx_scan *s, int64_t width) {                \
    const T *x = s->x, *factor = s->factor;                                              \
    T *y = s->y;                                                                         \
    A run[NYX_SCAN_COLUMNS];                                                             \
    (void)factor;                                                                        \
    for (int64_t c = 0; c < width; c++) run[c] = (start);                                \
    for (int64_t k = 0; k < s->n; k++) {                                                 \
      int64_t i = (s->reverse ? s->n - 1 - k : k) * s->step;                             \
      for (int64_t c = 0; c < width; c++) {                                              \
        A before = run[c], value = (A)x[i + c], after;                                   \
        body;                                                                            \
        run[c] = after;                                                                  \
      }                                                                                  \
    }                                                                                    \
  }                                                                                      \
  static void name(const nyx_scan *s) {                                                  \
    if (s->width == 1)                                                                   \
      name##_of(s, 1);                                                                   \
    else                                                                                 \
      name##_of(s, s->width);                                                            \
  }

#define RECUR(T)                                                                         \
  double out = s->exclusive ? before : before + value, by = (double)factor[i + c];       \
  y[i + c] = (T)out;                                                                     \
  after = s->exclusive ? value + by * out : by * out

COLUMNS_FUNCTION(linear_f32, float, double, 0, RECUR(float))
COLUMNS_FUNCTION(linear_f64, double, double, 0, RECUR(double))

/* log(e^before + e^value); of two infinities that are the same, that one. */
#define LOG_ADD(T)                                                                       \
  double high = before > value ? before : value, low = before > value ? value : before;  \
  after = low == high ? high + 0.69314718055994530942 : high + log1p(exp(low - high));   \
  y[i + c] = (T)after

COLUMNS_FUNCTION(log_sum_f32, float, double, -INFINITY, LOG_ADD(float))
COLUMNS_FUNCTION(log_sum_f64, double, double, -INFINITY, LOG_ADD(double))

/* name(s): the position of the element that no later one beats. */
#define EXTREME_FUNCTION(name, T, beats)                                                 \
  static ALWAYS_INLINE void name##_of(const nyx_scan *s, int64_t width) {                \
    const T *x = s->x;                                                                   \
    int64_t *y = s->y, at[NYX_SCAN_COLUMNS];                                             \
    T best[NYX_SCAN_COLUMNS];                                                            \
    if (s->n > 0) memcpy(best, x, (size_t)width * sizeof *best);                         \
    for (int64_t c = 0; c < width; c++) at[c] = s->base;                                 \
    for (int64_t k = 0; k < s->n; k++) {                                                 \
      const T *row = x + k * s->step;                                                    \
      for (int64_t c = 0; c < width; c++) {                                              \
        T value = row[c];                                                                \
        bool next = (value beats best[c]) | (value != value);                            \
        best[c] = next ? value : best[c];                                                \
        at[c] = next ? s->base + k : at[c];                                              \
      }                                                                                  \
      memcpy(y + k * s->step, at, (size_t)width * sizeof *at);                           \
    }                                                                                    \
  }                                                                                      \
  static void name(const nyx_scan *s) {                                                  \
    if (s->width == 1)                                                                   \
      name##_of(s, 1);                                                                   \
    else                                                                                 \
      name##_of(s, s->width);                                                            \
  }

EXTREME_FUNCTION(greatest_f32, float, >=)
EXTREME_FUNCTION(greatest_f64, double, >=)
EXTREME_FUNCTION(greatest_i64, int64_t, >=)
EXTREME_FUNCTION(least_f32, float, <=)
EXTREME_FUNCTION(least_f64, double, <=)
EXTREME_FUNCTION(least_i64, int64_t, <=)

#define GROUP 8 /* elements of a row that are summed together, on every path */
#define LANES ((int)(VECTOR_BYTES / sizeof(double)))
#define PARTS (GROUP / LANES) /* vectors that hold a group */
#define COLUMN_ROWS 4         /* rows of columns that are summed together */

#if VECTOR_BYTES == 64
#define LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7
#elif VECTOR_BYTES == 32
#define LANE_NUMBERS 0, 1, 2, 3
#else
#define LANE_NUMBERS 0, 1
#endif

/* As many 64-bit lanes as a vector has: which lanes of others, or which bits to keep. */
typedef int64_t lanes __attribute__((vector_size(VECTOR_BYTES)));

#define T float
#define A double
#define TYPED(name) name##_f32
#if defined(__AVX512F__) /* GCC converts halves and puts them together */
#define WIDEN(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#elif defined(__AVX__)
#define WIDEN(p) _mm256_cvtps_pd(_mm_loadu_ps(p))
#elif defined(__SSE2__) /* GCC converts one after the other, and puts them together */
#define WIDEN(p) _mm_cvtps_pd((__m128)_mm_loadl_epi64((const __m128i *)(const void *)(p)))
#define NARROW(p, v) _mm_storel_epi64((__m128i *)(void *)(p), (__m128i)_mm_cvtpd_ps(v))
/* Four floats at once take half the loads and stores. */
static ALWAYS_INLINE __m128d widen_pair(const float *p, __m128d *high) {
  __m128 v = _mm_loadu_ps(p);
  *high = _mm_cvtps_pd(_mm_movehl_ps(v, v));
  return _mm_cvtps_pd(v);
}
static ALWAYS_INLINE void narrow_pair(float *p, __m128d low, __m128d high) {
  _mm_storeu_ps(p, _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high)));
}
#define WIDEN_PAIR(p, high) (V) widen_pair(p, (__m128d *)(high))
#define NARROW_PAIR(p, low, high) narrow_pair(p, (__m128d)(low), (__m128d)(high))
#endif
#include "scan_type.h"
#undef WIDEN
#undef NARROW
#undef WIDEN_PAIR
#undef NARROW_PAIR
#undef T
#undef A
#undef TYPED

#define T double
#define A double
#define TYPED(name) name##_f64
#include "scan_type.h"
#undef T
#undef A
#undef TYPED

#define T int64_t
#define A uint64_t
#define TYPED(name) name##_i64
#include "scan_type.h"

extern const nyx_scan_kernels NYX_PATH(scan);
const nyx_scan_kernels NYX_PATH(scan) = {
    .sum = {sum_f32, sum_f64, sum_i64},
    .product = {product_f32, product_f64, product_i64},
    .linear = {linear_f32, linear_f64},
    .log_sum = {log_sum_f32, log_sum_f64},
    .greatest = {greatest_f32, greatest_f64, greatest_i64},
    .least = {least_f32, least_f64, least_i64},
};
