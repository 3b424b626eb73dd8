/* Conversions of all dtypes from and to the types kernels compute in, on one path; and
 * the table of everything elementwise. Loops are plain and left to the compiler, except
 * for float16, which has instructions the compiler does not find. Read next:
 * elementwise.h. */
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "elementwise.h"

/* Halves */

static inline float float_of_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
static inline uint32_t bits_of_float(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}

static inline float from_half(uint16_t h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#else
  /* Shifted into place the exponent is 112 too small; multiplying by 2^112 also makes
   * subnormal halves right. What reaches 65536 was infinite or not a number. */
  uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
  float size = float_of_bits(bits) * 0x1p112f;
  uint32_t high = bits_of_float(size) | (size >= 65536.0f ? 0x7f800000u : 0);
  return float_of_bits(high | (uint32_t)(h & 0x8000) << 16);
#endif
}
static inline uint16_t to_half(float f) {
#if defined(__F16C__)
  return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  uint32_t all = bits_of_float(f), bits = all & 0x7fffffffu;
  /* Normal results: to nearest even by adding half of what is cut off. */
  uint32_t normal = (bits + 0xfff + ((bits >> 13) & 1) - (112u << 23)) >> 13;
  /* Subnormal ones: adding 0.5 rounds to the spacing of halves below 2^-14. */
  uint32_t small = bits_of_float(float_of_bits(bits) + 0.5f) - 0x3f000000u;
  uint32_t large = bits > 0x7f800000u ? 0x7e00u | (bits >> 13 & 0x3ffu) : 0x7c00u;
  uint32_t h = bits < 0x38800000u ? small : bits >= 0x47800000u ? large : normal;
  return (uint16_t)(h | (all >> 16 & 0x8000u));
#endif
}
static inline float from_bfloat(uint16_t h) {
  return float_of_bits((uint32_t)h << 16);
}
static inline uint16_t to_bfloat(float f) {
  uint32_t bits = bits_of_float(f);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (uint16_t)(f != f ? (bits >> 16) | 0x40u : rounded);
}

/* Floats to integers: towards zero, cut to the range, a NaN 0. The limits are exact in
 * their float type. */
#define CUT(name, float_type, type, least, most, beyond)                                 \
  static inline type name(float_type v) {                                                \
    return v != v ? 0 : v >= (beyond) ? (most) : v <= (least) ? (type)(least) : (type)v; \
  }
CUT(i32_of_f32, float, int32_t, -0x1p31f, INT32_MAX, 0x1p31f)
#if defined(__SSE2__) && !defined(__AVX512DQ__)
/* One by one: the instruction gives the least integer for what is out of range. */
CUT(i64_beyond_f32, float, int64_t, -0x1p63f, INT64_MAX, 0x1p63f)
CUT(i64_beyond_f64, double, int64_t, -0x1p63, INT64_MAX, 0x1p63)
static inline int64_t i64_of_f32(float v) {
  int64_t cut = _mm_cvttss_si64(_mm_set_ss(v));
  return __builtin_expect(cut == INT64_MIN, 0) ? i64_beyond_f32(v) : cut;
}
static inline int64_t i64_of_f64(double v) {
  int64_t cut = _mm_cvttsd_si64(_mm_set_sd(v));
  return __builtin_expect(cut == INT64_MIN, 0) ? i64_beyond_f64(v) : cut;
}
#else
CUT(i64_of_f32, float, int64_t, -0x1p63f, INT64_MAX, 0x1p63f)
CUT(i64_of_f64, double, int64_t, -0x1p63, INT64_MAX, 0x1p63)
#endif
/* Where `most` is exact as well, as a minimum and a maximum. */
#define CUT_WITHIN(name, float_type, type, least, most)                                  \
  static inline type name(float_type v) {                                                \
    float_type low = v > (least) ? v : (least), in = low < (most) ? low : (most);        \
    type cut = (type)in;                                                                 \
    return v == v ? cut : 0;                                                             \
  }
CUT_WITHIN(i8_of_f32, float, int8_t, -128, 127)
CUT_WITHIN(u8_of_f32, float, uint8_t, 0, 255)
CUT_WITHIN(i8_of_f64, double, int8_t, -128, 127)
CUT_WITHIN(u8_of_f64, double, uint8_t, 0, 255)
CUT_WITHIN(i32_of_f64, double, int32_t, -0x1p31, INT32_MAX)

/* The rest of the conversions by name: <to>_of_<from>. */
#define CAST(name, from, to)                                                             \
  static inline to name(from v) {                                                        \
    return (to)v;                                                                        \
  }
CAST(f32_of_f32, float, float)
CAST(f32_of_f64, double, float)
CAST(f64_of_f32, float, double)
CAST(f64_of_f64, double, double)
#define CASTS(from, type)                                                                \
  CAST(f32_of_##from, type, float)                                                       \
  CAST(f64_of_##from, type, double)                                                      \
  CAST(i32_of_##from, type, int32_t)                                                     \
  CAST(i64_of_##from, type, int64_t)
CASTS(i8, int8_t)
CASTS(u8, uint8_t)
CASTS(i32, int32_t)
CASTS(i64, int64_t)
CAST(i8_of_i32, int32_t, int8_t)
CAST(u8_of_i32, int32_t, uint8_t)
CAST(i8_of_i64, int64_t, int8_t)
CAST(u8_of_i64, int64_t, uint8_t)
#define THROUGH_FLOAT(from, type)                                                        \
  static inline uint16_t f16_of_##from(type v) {                                         \
    return to_half((float)v);                                                            \
  }                                                                                      \
  static inline uint16_t bf16_of_##from(type v) {                                        \
    return to_bfloat((float)v);                                                          \
  }                                                                                      \
  static inline uint8_t b8_of_##from(type v) {                                           \
    return v != 0;                                                                       \
  }
THROUGH_FLOAT(f32, float)
THROUGH_FLOAT(f64, double)
THROUGH_FLOAT(i32, int32_t)
THROUGH_FLOAT(i64, int64_t)
#define FROM_HALF(to, type)                                                              \
  static inline type to##_of_f16(uint16_t v) {                                           \
    return to##_of_f32(from_half(v));                                                    \
  }                                                                                      \
  static inline type to##_of_bf16(uint16_t v) {                                          \
    return to##_of_f32(from_bfloat(v));                                                  \
  }                                                                                      \
  static inline type to##_of_b8(uint8_t v) {                                             \
    return (type)(v != 0);                                                               \
  }
FROM_HALF(f32, float)
FROM_HALF(f64, double)
FROM_HALF(i32, int32_t)
FROM_HALF(i64, int64_t)

/* Blocks */

#define GATHER(from, from_type, to, to_type)                                             \
  static void gather_##from##_##to(int64_t n, const void *src, int64_t stride,           \
                                   void *dst) {                                          \
    const from_type *s = src;                                                            \
    to_type *restrict d = dst;                                                           \
    if (stride == 1) {                                                                   \
      for (int64_t i = 0; i < n; i++) d[i] = to##_of_##from(s[i]);                       \
    } else if (stride == 0) {                                                            \
      const to_type v = to##_of_##from(s[0]);                                            \
      for (int64_t i = 0; i < n; i++) d[i] = v;                                          \
    } else {                                                                             \
      for (int64_t i = 0; i < n; i++) d[i] = to##_of_##from(s[i * stride]);              \
    }                                                                                    \
  }
#define SCATTER(from, from_type, to, to_type)                                            \
  static void scatter_##from##_##to(int64_t n, const void *src, void *dst,               \
                                    int64_t stride) {                                    \
    const from_type *s = src;                                                            \
    to_type *restrict d = dst;                                                           \
    if (stride == 1) {                                                                   \
      for (int64_t i = 0; i < n; i++) d[i] = to##_of_##from(s[i]);                       \
    } else {                                                                             \
      for (int64_t i = 0; i < n; i++) d[i * stride] = to##_of_##from(s[i]);              \
    }                                                                                    \
  }

#define BOTH(name, type)                                                                 \
  GATHER(name, type, f32, float)                                                         \
  GATHER(name, type, f64, double)                                                        \
  GATHER(name, type, i32, int32_t)                                                       \
  GATHER(name, type, i64, int64_t)                                                       \
  SCATTER(f32, float, name, type)                                                        \
  SCATTER(f64, double, name, type)                                                       \
  SCATTER(i32, int32_t, name, type)                                                      \
  SCATTER(i64, int64_t, name, type)
BOTH(f32, float)
BOTH(f64, double)
BOTH(f16, uint16_t)
BOTH(bf16, uint16_t)
BOTH(i8, int8_t)
BOTH(u8, uint8_t)
BOTH(i32, int32_t)
BOTH(i64, int64_t)
BOTH(b8, uint8_t) /* bool */

/* Eight float16 by SSE2: what from_half and to_half do, where the compiler narrows in
 * more steps. Words keep their sign until they are packed, as that is what packing
 * expects. */
#if defined(__SSE2__) && !defined(__F16C__)
static inline __m128i chosen(__m128i mask, __m128i a, __m128i b) {
  return _mm_or_si128(_mm_and_si128(mask, a), _mm_andnot_si128(mask, b));
}
static inline __m128i halves_of(const float *p) {
  const __m128i all = _mm_castps_si128(_mm_loadu_ps(p));
  const __m128i bits = _mm_and_si128(all, _mm_set1_epi32(INT32_MAX));
  const __m128i half = _mm_set1_epi32(0x3f000000);
  const __m128i odd = _mm_srai_epi32(_mm_slli_epi32(bits, 18), 31); /* -1 or 0 */
  const __m128i up = _mm_add_epi32(bits, _mm_set1_epi32(0xfff - (112 << 23)));
  const __m128i normal = _mm_srli_epi32(_mm_sub_epi32(up, odd), 13);
  const __m128 sum = _mm_add_ps(_mm_castsi128_ps(bits), _mm_castsi128_ps(half));
  const __m128i small = _mm_sub_epi32(_mm_castps_si128(sum), half);
  const __m128i is_small = _mm_cmplt_epi32(bits, _mm_set1_epi32(0x38800000));
  const __m128i sign = _mm_srai_epi32(_mm_xor_si128(all, bits), 16);
  return _mm_or_si128(chosen(is_small, small, normal), sign);
}
/* Of floats from 65536 on, infinities and nans among them. */
static inline __m128i large_halves(const float *p, __m128i halves) {
  const __m128i all = _mm_castps_si128(_mm_loadu_ps(p));
  const __m128i bits = _mm_and_si128(all, _mm_set1_epi32(INT32_MAX));
  const __m128i nan = _mm_cmpgt_epi32(bits, _mm_set1_epi32(0x7f800000));
  const __m128i digits = _mm_and_si128(_mm_srli_epi32(bits, 13), _mm_set1_epi32(0x3ff));
  const __m128i kept = _mm_and_si128(nan, _mm_or_si128(digits, _mm_set1_epi32(0x200)));
  const __m128i sign = _mm_srai_epi32(_mm_xor_si128(all, bits), 16);
  const __m128i large = _mm_or_si128(_mm_or_si128(kept, sign), _mm_set1_epi32(0x7c00));
  return chosen(_mm_cmpgt_epi32(bits, _mm_set1_epi32(0x477fffff)), large, halves);
}
static inline bool any_large(const float *p) {
  const __m128 most = _mm_castsi128_ps(_mm_set1_epi32(INT32_MAX));
  const __m128 a = _mm_and_ps(_mm_loadu_ps(p), most);
  const __m128 b = _mm_and_ps(_mm_loadu_ps(p + 4), most), limit = _mm_set1_ps(65536);
  return _mm_movemask_ps(_mm_or_ps(_mm_cmpnlt_ps(a, limit), _mm_cmpnlt_ps(b, limit))) !=
         0;
}
static inline void halves(const float *s, uint16_t *d) {
  __m128i low = halves_of(s), high = halves_of(s + 4);
  if (__builtin_expect(any_large(s), 0)) {
    low = large_halves(s, low);
    high = large_halves(s + 4, high);
  }
  _mm_storeu_si128((void *)d, _mm_packs_epi32(low, high));
}
static inline void floats_of_words(__m128i words, float *d) { /* in the upper halves */
  const __m128i size = _mm_srli_epi32(_mm_and_si128(words, _mm_set1_epi32(INT32_MAX)), 3);
  const __m128 v = _mm_mul_ps(_mm_castsi128_ps(size), _mm_set1_ps(0x1p112f));
  const __m128 large = _mm_and_ps(_mm_cmpge_ps(v, _mm_set1_ps(65536)),
                                  _mm_castsi128_ps(_mm_set1_epi32(0x7f800000)));
  const __m128 sign =
      _mm_and_ps(_mm_castsi128_ps(words), _mm_castsi128_ps(_mm_set1_epi32(INT32_MIN)));
  _mm_storeu_ps(d, _mm_or_ps(_mm_or_ps(v, large), sign));
}
static inline void floats_of_halves(const uint16_t *s, float *d) {
  const __m128i words = _mm_loadu_si128((const void *)s), none = _mm_setzero_si128();
  floats_of_words(_mm_unpacklo_epi16(none, words), d);
  floats_of_words(_mm_unpackhi_epi16(none, words), d + 4);
}
#endif

/* Contiguous float16 by the instructions of F16C, eight or sixteen at a time. */
static void gather_half(int64_t n, const void *src, int64_t stride, void *dst) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; stride == 1 && i + 16 <= n; i += 16)
    _mm512_storeu_ps(
        (float *)dst + i,
        _mm512_cvtph_ps(_mm256_loadu_si256((const void *)((const uint16_t *)src + i))));
#elif defined(__F16C__)
  for (; stride == 1 && i + 8 <= n; i += 8)
    _mm256_storeu_ps(
        (float *)dst + i,
        _mm256_cvtph_ps(_mm_loadu_si128((const void *)((const uint16_t *)src + i))));
#elif defined(__SSE2__)
  for (; stride == 1 && i + 8 <= n; i += 8)
    floats_of_halves((const uint16_t *)src + i, (float *)dst + i);
#endif
  gather_f16_f32(n - i, (const uint16_t *)src + i, stride, (float *)dst + i);
}
static void scatter_half(int64_t n, const void *src, void *dst, int64_t stride) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; stride == 1 && i + 16 <= n; i += 16)
    _mm256_storeu_si256((void *)((uint16_t *)dst + i),
                        _mm512_cvtps_ph(_mm512_loadu_ps((const float *)src + i),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  for (; stride == 1 && i + 8 <= n; i += 8)
    _mm_storeu_si128((void *)((uint16_t *)dst + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps((const float *)src + i),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__SSE2__)
  for (; stride == 1 && i + 8 <= n; i += 8)
    halves((const float *)src + i, (uint16_t *)dst + i);
#endif
  scatter_f32_f16(n - i, (const float *)src + i, (uint16_t *)dst + i, stride);
}

/* Contiguous bfloat16: the upper halves of floats, rounded to nearest even, of nans with
 * a digit that the lower half does not hold. Two vectors of them are put together by one
 * shuffle, where the compiler narrows each. */
#if defined(__AVX512BW__)
static inline __m512i bfloat_above(const float *p) {
  const __m512i bits = _mm512_loadu_si512(p);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(bits),
                                           _mm512_castsi512_ps(bits), _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(_mm512_add_epi32(bits, up), nan, bits,
                              _mm512_set1_epi32(0x400000));
}
#define BFLOAT_STEP 32
static inline void bfloats(const float *s, uint16_t *d) {
  const __m512i every =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31,
                       29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  _mm512_storeu_si512(
      d, _mm512_permutex2var_epi16(bfloat_above(s), every, bfloat_above(s + 16)));
}
static inline void floats_of_bfloats(const uint16_t *s, float *d) {
  for (int i = 0; i < 32; i += 16) {
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(s + i)));
    _mm512_storeu_si512(d + i, _mm512_slli_epi32(words, 16));
  }
}
#elif defined(__AVX2__)
static inline __m256i bfloat_below(const float *p) {
  const __m256 v = _mm256_loadu_ps(p);
  const __m256i bits = _mm256_castps_si256(v), half = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(half, _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i round = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
  const __m256i nan = _mm256_or_si256(half, _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(round, nan,
                            _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
#define BFLOAT_STEP 16
static inline void bfloats(const float *s, uint16_t *d) {
  const __m256i pair = _mm256_packus_epi32(bfloat_below(s), bfloat_below(s + 8));
  _mm256_storeu_si256((void *)d, _mm256_permute4x64_epi64(pair, 0xd8));
}
static inline void floats_of_bfloats(const uint16_t *s, float *d) {
  for (int i = 0; i < 16; i += 8) {
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(s + i)));
    _mm256_storeu_si256((void *)(d + i), _mm256_slli_epi32(words, 16));
  }
}
#elif defined(__SSE2__)
/* Shifted with their signs, as packing expects. */
static inline __m128i bfloat_below(const float *p) {
  const __m128 v = _mm_loadu_ps(p);
  const __m128i bits = _mm_castps_si128(v), nan = _mm_castps_si128(_mm_cmpunord_ps(v, v));
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
  const __m128i up = _mm_add_epi32(odd, _mm_set1_epi32(0x7fff));
  const __m128i round = _mm_add_epi32(bits, _mm_andnot_si128(nan, up));
  const __m128i digit = _mm_and_si128(nan, _mm_set1_epi32(0x400000));
  return _mm_srai_epi32(_mm_or_si128(round, digit), 16);
}
#define BFLOAT_STEP 8
static inline void bfloats(const float *s, uint16_t *d) {
  _mm_storeu_si128((void *)d, _mm_packs_epi32(bfloat_below(s), bfloat_below(s + 4)));
}
static inline void floats_of_bfloats(const uint16_t *s, float *d) {
  const __m128i words = _mm_loadu_si128((const void *)s), none = _mm_setzero_si128();
  _mm_storeu_si128((void *)d, _mm_unpacklo_epi16(none, words));
  _mm_storeu_si128((void *)(d + 4), _mm_unpackhi_epi16(none, words));
}
#endif
#if defined(BFLOAT_STEP)
static void gather_bfloat(int64_t n, const void *src, int64_t stride, void *dst) {
  const uint16_t *s = src;
  float *d = dst;
  int64_t i = 0;
  for (; stride == 1 && i + BFLOAT_STEP <= n; i += BFLOAT_STEP)
    floats_of_bfloats(s + i, d + i);
  gather_bf16_f32(n - i, s + i, stride, d + i);
}
static void scatter_bfloat(int64_t n, const void *src, void *dst, int64_t stride) {
  const float *s = src;
  uint16_t *d = dst;
  int64_t i = 0;
  for (; stride == 1 && i + BFLOAT_STEP <= n; i += BFLOAT_STEP) bfloats(s + i, d + i);
  scatter_f32_bf16(n - i, s + i, d + i, stride);
}
#else
#define gather_bfloat gather_bf16_f32
#define scatter_bfloat scatter_f32_bf16
#endif

/* Contiguous floats to integers by SSE2, in fewer steps than the compiler makes of the
 * above: four to int32, where what is out of range becomes the least; packing cuts
 * further. To int32 itself AVX-512 needs no help. */
#if defined(__SSE2__)
static inline __m128i cut_f32(const float *p) {
  const __m128 v = _mm_loadu_ps(p), beyond = _mm_cmpge_ps(v, _mm_set1_ps(0x1p31f));
  __m128i cut = _mm_xor_si128(_mm_cvttps_epi32(v), _mm_castps_si128(beyond));
  return _mm_and_si128(cut, _mm_castps_si128(_mm_cmpord_ps(v, v)));
}
static inline __m128i cut_two(const double *p) {
  const __m128d v = _mm_loadu_pd(p), low = _mm_min_pd(v, _mm_set1_pd(INT32_MAX));
  return _mm_cvttpd_epi32(_mm_and_pd(low, _mm_cmpord_pd(v, v)));
}
static inline __m128i cut_f64(const double *p) {
  return _mm_unpacklo_epi64(cut_two(p), cut_two(p + 2));
}
/* What only has to be right once it is packed to uint8: there the least integer of a nan
 * becomes 0, and what is above 255 need not be in range. */
static inline __m128i low_f32(const float *p) {
  return _mm_cvttps_epi32(_mm_min_ps(_mm_set1_ps(INT16_MAX), _mm_loadu_ps(p)));
}
#define low_f64 cut_f64
#define CUT_STEPS(from, from_type)                                                       \
  CUT_BYTES(from, from_type, i8, cut_##from, _mm_packs_epi16)                            \
  CUT_BYTES(from, from_type, u8, low_##from, _mm_packus_epi16)                           \
  SCATTER_CUT(from, from_type, i8, int8_t, 16)                                           \
  SCATTER_CUT(from, from_type, u8, uint8_t, 16)
#define CUT_BYTES(from, from_type, to, cut, pack)                                        \
  static inline void from##_to_##to(const from_type *s, void *d) {                       \
    __m128i low = _mm_packs_epi32(cut(s), cut(s + 4));                                   \
    __m128i high = _mm_packs_epi32(cut(s + 8), cut(s + 12));                             \
    _mm_storeu_si128(d, pack(low, high));                                                \
  }
#define SCATTER_CUT(from, from_type, to, to_type, step)                                  \
  static void cut_##from##_##to(int64_t n, const void *src, void *dst, int64_t stride) { \
    const from_type *s = src;                                                            \
    to_type *d = dst;                                                                    \
    int64_t i = 0;                                                                       \
    for (; stride == 1 && i + (step) <= n; i += (step)) from##_to_##to(s + i, d + i);    \
    scatter_##from##_##to(n - i, s + i, d + i * stride, stride);                         \
  }
CUT_STEPS(f32, float)
CUT_STEPS(f64, double)
#endif
#if defined(__SSE2__) && !defined(__AVX512F__)
static inline void f32_to_i32(const float *s, void *d) {
  _mm_storeu_si128(d, cut_f32(s));
}
static inline void f64_to_i32(const double *s, void *d) {
  _mm_storeu_si128(d, cut_f64(s));
}
SCATTER_CUT(f32, float, i32, int32_t, 4)
SCATTER_CUT(f64, double, i32, int32_t, 4)
#else
#define cut_f32_i32 scatter_f32_i32
#define cut_f64_i32 scatter_f64_i32
#endif
#if defined(__SSE2__) && !defined(__AVX2__)
/* Bools: whole masks are packed, where the compiler narrows integers. */
static inline __m128i not_0(const float *p) {
  return _mm_castps_si128(_mm_cmpneq_ps(_mm_loadu_ps(p), _mm_setzero_ps()));
}
static inline void f32_to_b8(const float *s, void *d) {
  __m128i low = _mm_packs_epi32(not_0(s), not_0(s + 4));
  __m128i high = _mm_packs_epi32(not_0(s + 8), not_0(s + 12));
  _mm_storeu_si128(d, _mm_and_si128(_mm_packs_epi16(low, high), _mm_set1_epi8(1)));
}
SCATTER_CUT(f32, float, b8, uint8_t, 16)
#else
#define cut_f32_b8 scatter_f32_b8
#endif
#if !defined(__SSE2__)
#define cut_f32_i8 scatter_f32_i8
#define cut_f32_u8 scatter_f32_u8
#define cut_f64_i8 scatter_f64_i8
#define cut_f64_u8 scatter_f64_u8
#endif

/* Bytes to float64 by way of int32, in pieces: the compiler takes more steps by SSE2. */
#if defined(__SSE2__) && !defined(__AVX2__)
#define WIDENED(from, from_type)                                                         \
  static void widened_##from##_f64(int64_t n, const void *src, int64_t stride,           \
                                   void *dst) {                                          \
    enum { PIECE = 128 };                                                                \
    int32_t wide[PIECE];                                                                 \
    const from_type *s = src;                                                            \
    double *d = dst;                                                                     \
    int64_t i = 0;                                                                       \
    for (; stride == 1 && i + PIECE <= n; i += PIECE) {                                  \
      gather_##from##_i32(PIECE, s + i, 1, wide);                                        \
      gather_i32_f64(PIECE, wide, 1, d + i);                                             \
    }                                                                                    \
    gather_##from##_f64(n - i, s + i, stride, d + i);                                    \
  }
WIDENED(i8, int8_t)
WIDENED(u8, uint8_t)
WIDENED(b8, uint8_t)
#else
#define widened_i8_f64 gather_i8_f64
#define widened_u8_f64 gather_u8_f64
#define widened_b8_f64 gather_b8_f64
#endif

extern const nyx_elementwise_parts NYX_PATH(rows_float32)[NYX_KERNEL_COUNT];
extern const nyx_elementwise_parts NYX_PATH(rows_float64)[NYX_KERNEL_COUNT];
extern const nyx_elementwise_fn NYX_PATH(past_float32)[NYX_KERNEL_COUNT];
extern const nyx_elementwise_parts NYX_PATH(rows_int32)[NYX_KERNEL_COUNT];
extern const nyx_elementwise_parts NYX_PATH(rows_int64)[NYX_KERNEL_COUNT];
extern const nyx_elementwise_fn NYX_PATH(rows_int8)[NYX_KERNEL_COUNT];
extern const nyx_elementwise_fn NYX_PATH(rows_uint8)[NYX_KERNEL_COUNT];
extern const nyx_elementwise_fn NYX_PATH(rows_bool)[NYX_KERNEL_COUNT];

#define GATHERS(name, double_of)                                                         \
  { gather_##name##_f32, double_of, gather_##name##_i32, gather_##name##_i64 }
#define SCATTERS(name, half, bfloat, cut, truth)                                         \
  {                                                                                      \
    [NYX_FLOAT32] = scatter_##name##_f32, [NYX_FLOAT64] = scatter_##name##_f64,          \
    [NYX_FLOAT16] = half, [NYX_BFLOAT16] = bfloat, [NYX_INT8] = cut##_i8,                \
    [NYX_UINT8] = cut##_u8, [NYX_INT32] = cut##_i32, [NYX_INT64] = scatter_##name##_i64, \
    [NYX_BOOL] = truth,                                                                  \
  }
const nyx_elementwise_kernels NYX_PATH(elementwise) = {
    .rows = {NYX_PATH(rows_float32), NYX_PATH(rows_float64), NYX_PATH(rows_int32),
             NYX_PATH(rows_int64)},
    .own = {NYX_PATH(rows_int8), NYX_PATH(rows_uint8), NYX_PATH(rows_bool)},
    .past = NYX_PATH(past_float32),
    .gather = {[NYX_FLOAT32] = GATHERS(f32, gather_f32_f64),
               [NYX_FLOAT64] = GATHERS(f64, gather_f64_f64),
               [NYX_FLOAT16] = {gather_half, gather_f16_f64, gather_f16_i32,
                                gather_f16_i64},
               [NYX_BFLOAT16] = {gather_bfloat, gather_bf16_f64, gather_bf16_i32,
                                 gather_bf16_i64},
               [NYX_INT8] = GATHERS(i8, widened_i8_f64),
               [NYX_UINT8] = GATHERS(u8, widened_u8_f64),
               [NYX_INT32] = GATHERS(i32, gather_i32_f64),
               [NYX_INT64] = GATHERS(i64, gather_i64_f64),
               [NYX_BOOL] = GATHERS(b8, widened_b8_f64)},
    .scatter = {SCATTERS(f32, scatter_half, scatter_bfloat, cut_f32, cut_f32_b8),
                SCATTERS(f64, scatter_f64_f16, scatter_f64_bf16, cut_f64, scatter_f64_b8),
                SCATTERS(i32, scatter_i32_f16, scatter_i32_bf16, scatter_i32,
                         scatter_i32_b8),
                SCATTERS(i64, scatter_i64_f16, scatter_i64_bf16, scatter_i64,
                         scatter_i64_b8)},
};
