/* The dialect on the CPU: T is a vector as wide as the path's registers. Define one of
 * NYX_T_FLOAT32, NYX_T_FLOAT64, NYX_T_INT32, NYX_T_INT64, NYX_T_INT8, NYX_T_UINT8,
 * NYX_T_BOOL and include this once; float types get their functions from math.h, the last
 * three have no division and nothing that crosses lanes. Texts are branch free: masks
 * come from comparisons and go into nyx_select. Flags it needs: README.md. Read next:
 * float.h, math.h, int.h. */
#ifndef NYX_DIALECT_VECTOR_H
#define NYX_DIALECT_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define NYX_FN static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__)
#define NYX_BYTES 64
#elif defined(__AVX2__)
#define NYX_BYTES 32
#else
#define NYX_BYTES 16
#endif

/* S is the element, I and U integers of its size, F the float of its size. */
#if defined(NYX_T_FLOAT32)
typedef float S;
#elif defined(NYX_T_FLOAT64)
typedef double S;
#elif defined(NYX_T_INT32)
typedef int32_t S;
#elif defined(NYX_T_INT64)
typedef int64_t S;
#elif defined(NYX_T_INT8)
typedef int8_t S;
#elif defined(NYX_T_UINT8) || defined(NYX_T_BOOL)
typedef uint8_t S;
#else
#error "define NYX_T_FLOAT32 or one of its kin"
#endif
#if defined(NYX_T_FLOAT32) || defined(NYX_T_FLOAT64)
#define NYX_T_FLOAT 1
#else
#define NYX_T_FLOAT 0
#endif
#if defined(NYX_T_FLOAT32) || defined(NYX_T_INT32)
#define NYX_T_BITS 32
typedef int32_t SI;
typedef uint32_t SU;
typedef float SF;
#elif defined(NYX_T_INT8) || defined(NYX_T_UINT8) || defined(NYX_T_BOOL)
#define NYX_T_BITS 8
typedef int8_t SI;
typedef uint8_t SU;
#else
#define NYX_T_BITS 64
typedef int64_t SI;
typedef uint64_t SU;
typedef double SF;
#endif
#define NYX_LANES (NYX_BYTES * 8 / NYX_T_BITS)

typedef S T __attribute__((vector_size(NYX_BYTES)));
typedef SI I __attribute__((vector_size(NYX_BYTES)));
typedef SU U __attribute__((vector_size(NYX_BYTES)));
typedef I M; /* a mask: all bits of a lane set, or none */
typedef S T_at __attribute__((vector_size(NYX_BYTES), aligned(1), may_alias));

/* Memory. Partial loads and stores touch the first n elements, 0 < n < NYX_LANES. Any
 * byte but 0 is true; 1 is what texts see and what is stored. */

NYX_FN T nyx__truth(T v) {
#if defined(NYX_T_BOOL)
  return (T)((v != (T){0}) & 1);
#else
  return v;
#endif
}
NYX_FN T nyx__load(const S *p) {
  return nyx__truth(*(const T_at *)p);
}
NYX_FN void nyx__store(S *p, T v) {
  *(T_at *)p = nyx__truth(v);
}
#if defined(NYX_T_FLOAT32)
/* Past the caches, to whole vectors of memory. */
NYX_FN void nyx__store_past(S *p, T v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)v);
#elif defined(__SSE2__)
  _mm_stream_ps(p, (__m128)v);
#else
  nyx__store(p, v);
#endif
}
#endif

#if defined(__AVX512BW__) && NYX_T_BITS == 8
#define NYX_PART(n) (((__mmask64)1 << (n)) - 1)
NYX_FN T nyx__load_part(const S *p, int64_t n) {
  return nyx__truth((T)_mm512_maskz_loadu_epi8(NYX_PART(n), p));
}
NYX_FN void nyx__store_part(S *p, int64_t n, T v) {
  _mm512_mask_storeu_epi8(p, NYX_PART(n), (__m512i)nyx__truth(v));
}
#elif defined(__AVX512F__) && NYX_T_BITS > 8
#if NYX_T_BITS == 32
#define NYX_PART(n) ((__mmask16)((1u << (n)) - 1))
NYX_FN T nyx__load_part(const S *p, int64_t n) {
  return (T)_mm512_maskz_loadu_epi32(NYX_PART(n), p);
}
NYX_FN void nyx__store_part(S *p, int64_t n, T v) {
  _mm512_mask_storeu_epi32(p, NYX_PART(n), (__m512i)v);
}
#else
#define NYX_PART(n) ((__mmask8)((1u << (n)) - 1))
NYX_FN T nyx__load_part(const S *p, int64_t n) {
  return (T)_mm512_maskz_loadu_epi64(NYX_PART(n), p);
}
NYX_FN void nyx__store_part(S *p, int64_t n, T v) {
  _mm512_mask_storeu_epi64(p, NYX_PART(n), (__m512i)v);
}
#endif
#elif defined(__AVX2__) && NYX_T_BITS > 8
#if NYX_T_BITS == 32
#define NYX_PART(n) (__m256i)(((I){0} + (SI)(n)) > (I){0, 1, 2, 3, 4, 5, 6, 7})
NYX_FN T nyx__load_part(const S *p, int64_t n) {
  return (T)_mm256_maskload_epi32((const int *)(const void *)p, NYX_PART(n));
}
NYX_FN void nyx__store_part(S *p, int64_t n, T v) {
  _mm256_maskstore_epi32((int *)(void *)p, NYX_PART(n), (__m256i)v);
}
#else
#define NYX_PART(n) (__m256i)(((I){0} + (SI)(n)) > (I){0, 1, 2, 3})
NYX_FN T nyx__load_part(const S *p, int64_t n) {
  return (T)_mm256_maskload_epi64((const long long *)(const void *)p, NYX_PART(n));
}
NYX_FN void nyx__store_part(S *p, int64_t n, T v) {
  _mm256_maskstore_epi64((long long *)(void *)p, NYX_PART(n), (__m256i)v);
}
#endif
#else
static __attribute__((noinline, pure, unused)) T nyx__load_part(const S *p, int64_t n) {
  T v = {0};
  memcpy(&v, p, (size_t)n * sizeof(S));
  return nyx__truth(v);
}
static __attribute__((noinline, unused)) void nyx__store_part(S *p, int64_t n, T v) {
  v = nyx__truth(v);
  memcpy(p, &v, (size_t)n * sizeof(S));
}
#endif

/* Constants and attributes */

#if NYX_LANES == 2
#define NYX_EACH(s) s, s
#elif NYX_LANES == 4
#define NYX_EACH(s) s, s, s, s
#elif NYX_LANES == 8
#define NYX_EACH(s) s, s, s, s, s, s, s, s
#else
#define NYX_EACH(s) s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s
#endif
#if NYX_T_BITS > 8
NYX_FN T nyx__splat(S s) {
  return (T){NYX_EACH(s)};
}
NYX_FN I nyx__splat_int(SI s) {
  return (I){NYX_EACH(s)};
}
#else
NYX_FN T nyx__splat(S s) {
  return (T){0} + s;
}
#endif
#define K(c) nyx__splat((S)(c))
#define KI(c) nyx__splat_int((SI)(c))

/* The least and the greatest T: infinities of floats. */
#if NYX_T_FLOAT
#define NYX_LOWEST K(-INFINITY)
#define NYX_HIGHEST K(INFINITY)
#else
#define NYX_LOWEST K((SU)1 << (NYX_T_BITS - 1))
#define NYX_HIGHEST K(~((SU)1 << (NYX_T_BITS - 1)))
#endif

/* An attribute as a T: integers are cut to their range, not a number is 0. */
NYX_FN T nyx__attr(double a) {
#if NYX_T_FLOAT
  return nyx__splat((S)a);
#elif defined(NYX_T_UINT8) || defined(NYX_T_BOOL)
  return nyx__splat(a >= UINT8_MAX ? UINT8_MAX : a > 0 ? (S)a : 0);
#else
  const double limit = (double)((SU)1 << (NYX_T_BITS - 1));
  const SI most = (SI)(((SU)1 << (NYX_T_BITS - 1)) - 1);
  if (a != a) return nyx__splat(0);
  if (a >= limit) return nyx__splat(most);
  if (a <= -limit) return nyx__splat(-most - 1);
  return nyx__splat((S)a);
#endif
}

/* Bits. Casts between vectors of one size keep the bits. */

NYX_FN T nyx__select_bits(M m, T a, T b) {
  return (T)((m & (I)a) | (~m & (I)b));
}

/* Whether any lane of a mask is set. */
NYX_FN bool nyx__any(M m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m, (__m512i)m) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)m, (__m256i)m);
#elif defined(__SSE2__)
  return _mm_movemask_epi8((__m128i)m) != 0;
#else
  SI any = 0;
  for (int i = 0; i < NYX_LANES; i++) any |= m[i];
  return any != 0;
#endif
}

#if NYX_T_BITS > 8
/* The first lane that is set, of a mask that has one. */
NYX_FN int nyx__first_lane(M m) {
#if defined(__AVX512DQ__)
#if NYX_T_BITS == 32
  return __builtin_ctz(_mm512_movepi32_mask((__m512i)m));
#else
  return __builtin_ctz(_mm512_movepi64_mask((__m512i)m));
#endif
#elif defined(__AVX2__) && !defined(__AVX512F__)
  return __builtin_ctz((unsigned)_mm256_movemask_epi8((__m256i)m)) / (NYX_T_BITS / 8);
#elif defined(__SSE2__) && !defined(__AVX2__)
  return __builtin_ctz((unsigned)_mm_movemask_epi8((__m128i)m)) / (NYX_T_BITS / 8);
#else
  int lane = 0;
  while (!m[lane]) lane++;
  return lane;
#endif
}
#endif

/* Comparison, logic on masks, selection. A comparison with a NaN is false, ne true. */

#if NYX_T_BITS == 64 && !NYX_T_FLOAT && defined(__SSE2__) && !defined(__AVX2__)
/* Without SSE4 GCC compares 64-bit integers one by one. Both halves have to be the same;
 * what is less leaves a difference below 0, unless that is beyond the range. */
NYX_FN M nyx_eq(T a, T b) {
  const __m128i same = _mm_cmpeq_epi32((__m128i)a, (__m128i)b);
  return (M)_mm_and_si128(same, _mm_shuffle_epi32(same, 0xb1));
}
NYX_FN M nyx_lt(T a, T b) {
  const T less = a - b, sign = less ^ ((a ^ b) & (less ^ a));
  return (M)_mm_shuffle_epi32(_mm_srai_epi32((__m128i)sign, 31), 0xf5);
}
NYX_FN M nyx_ne(T a, T b) {
  return ~nyx_eq(a, b);
}
NYX_FN M nyx_gt(T a, T b) {
  return nyx_lt(b, a);
}
NYX_FN M nyx_le(T a, T b) {
  return ~nyx_lt(b, a);
}
NYX_FN M nyx_ge(T a, T b) {
  return ~nyx_lt(a, b);
}
#else
NYX_FN M nyx_lt(T a, T b) {
  return (M)(a < b);
}
NYX_FN M nyx_le(T a, T b) {
  return (M)(a <= b);
}
NYX_FN M nyx_gt(T a, T b) {
  return (M)(a > b);
}
NYX_FN M nyx_ge(T a, T b) {
  return (M)(a >= b);
}
NYX_FN M nyx_eq(T a, T b) {
  return (M)(a == b);
}
NYX_FN M nyx_ne(T a, T b) {
  return (M)(a != b);
}
#endif
NYX_FN M nyx_and(M a, M b) {
  return a & b;
}
NYX_FN M nyx_or(M a, M b) {
  return a | b;
}
NYX_FN M nyx_xor(M a, M b) {
  return a ^ b;
}
NYX_FN M nyx_not(M a) {
  return ~a;
}
NYX_FN T nyx_select(M m, T a, T b) {
  return nyx__select_bits(m, a, b);
}

#if NYX_T_BITS > 8
/* Lanes. NYX_SWAPPED(v, d): lanes d (1, 2, 4 or 8) apart exchanged. */

#if NYX_LANES == 2
#define NYX_LANE_NUMBERS 0, 1
#define NYX_SWAPPED(v, d) __builtin_shufflevector(v, v, 0 ^ (d), 1 ^ (d))
#elif NYX_LANES == 4
#define NYX_LANE_NUMBERS 0, 1, 2, 3
#define NYX_SWAPPED(v, d)                                                                \
  __builtin_shufflevector(v, v, 0 ^ (d), 1 ^ (d), 2 ^ (d), 3 ^ (d))
#elif NYX_LANES == 8
#define NYX_LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7
#define NYX_SWAPPED(v, d)                                                                \
  __builtin_shufflevector(v, v, 0 ^ (d), 1 ^ (d), 2 ^ (d), 3 ^ (d), 4 ^ (d), 5 ^ (d),    \
                          6 ^ (d), 7 ^ (d))
#else
#define NYX_LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define NYX_SWAPPED(v, d)                                                                \
  __builtin_shufflevector(v, v, 0 ^ (d), 1 ^ (d), 2 ^ (d), 3 ^ (d), 4 ^ (d), 5 ^ (d),    \
                          6 ^ (d), 7 ^ (d), 8 ^ (d), 9 ^ (d), 10 ^ (d), 11 ^ (d),        \
                          12 ^ (d), 13 ^ (d), 14 ^ (d), 15 ^ (d))
#endif

/* The first n lanes of a, the others of b. */
NYX_FN T nyx__first_lanes(T a, int64_t n, T b) {
  return nyx_select((M)((I){NYX_LANE_NUMBERS} < KI(n)), a, b);
}
#endif

/* One byte, 0 or 1, per lane. */
NYX_FN void nyx__store_mask(uint8_t *p, M m) {
#if NYX_T_BITS == 8
  *(T_at *)p = (T)(m & 1);
#elif defined(__AVX512F__) && NYX_LANES == 16
  __mmask16 k = _mm512_movepi32_mask((__m512i)m);
  _mm_storeu_si128((__m128i *)p, _mm_maskz_set1_epi8(k, 1));
#elif defined(__AVX2__) && NYX_BYTES == 32 && NYX_LANES == 8
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)m),
                                  _mm256_extracti128_si256((__m256i)m, 1));
  __m128i bytes = _mm_and_si128(_mm_packs_epi16(words, words), _mm_set1_epi8(1));
  _mm_storel_epi64((__m128i *)(void *)p, bytes);
#elif defined(__SSE2__) && NYX_BYTES == 16 && NYX_LANES == 4
  __m128i words = _mm_packs_epi32((__m128i)m, (__m128i)m);
  int bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words)) & 0x01010101;
  memcpy(p, &bytes, sizeof bytes);
#else
  typedef uint8_t B __attribute__((vector_size(NYX_LANES)));
  B b = __builtin_convertvector(m & 1, B);
  memcpy(p, &b, NYX_LANES);
#endif
}
/* The same of NYX_MASKS vectors, on the base path a whole register's bytes, or several.
 */
#if NYX_BYTES == 16 && NYX_T_BITS == 8
#define NYX_MASKS 4
NYX_FN void nyx__store_masks(uint8_t *p, const M *m) {
  for (int k = 0; k < NYX_MASKS; k++) nyx__store_mask(p + k * NYX_LANES, m[k]);
}
#elif defined(__SSE2__) && NYX_BYTES == 16
#define NYX_MASKS (16 / NYX_LANES)
NYX_FN void nyx__store_masks(uint8_t *p, const M *m) {
  __m128i half[2], *to = (__m128i *)(void *)p;
  for (int k = 0; k < 2; k++) {
#if NYX_T_BITS == 32
    half[k] = _mm_packs_epi32((__m128i)m[2 * k], (__m128i)m[2 * k + 1]);
#else
    const __m128i low = _mm_packs_epi32((__m128i)m[4 * k], (__m128i)m[4 * k + 1]);
    const __m128i high = _mm_packs_epi32((__m128i)m[4 * k + 2], (__m128i)m[4 * k + 3]);
    half[k] = _mm_packs_epi32(low, high);
#endif
  }
  _mm_storeu_si128(to,
                   _mm_and_si128(_mm_packs_epi16(half[0], half[1]), _mm_set1_epi8(1)));
}
#else
#define NYX_MASKS 1
#endif
NYX_FN void nyx__store_mask_part(uint8_t *p, int64_t n, M m) {
  uint8_t b[NYX_LANES];
  nyx__store_mask(b, m);
  memcpy(p, b, (size_t)n);
}

#if NYX_T_FLOAT
#include "float.h"
#include "math.h"
#else
#include "int.h"
#endif

#endif
