/* Products with weights of few bits: one output's weights become floats in registers and
 * are multiplied by a few rows at once, so that a single row runs as fast as the packed
 * bytes come from memory. Compiled once per instruction-set path. Read next: quantized.h.
 */
#include "quantized.h"

#include <string.h>

#include "cpu.h"
#include "vector_bytes.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define LANES ((int)(VECTOR_BYTES / 4))
#define BLOCK4 (2 * LANES) /* even terms, then odd ones: how bytes come apart */
#define CHAINS 4           /* sums at a time, which hide the latency of an FMA */
#define BLOCK8 (CHAINS * LANES)

typedef float vec __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t ints __attribute__((vector_size(VECTOR_BYTES)));
typedef float vecu __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

/* LANES bytes as integers. gcc 12 takes __builtin_convertvector apart. */
static ALWAYS_INLINE ints unsigned_bytes(const uint8_t *from) {
#if defined(__AVX512F__)
  return (ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
  return (ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from));
#else
  ints out;
  for (int i = 0; i < LANES; i++) out[i] = from[i];
  return out;
#endif
}
static ALWAYS_INLINE vec signed_bytes(const int8_t *from) {
#if defined(__AVX512F__)
  __m128i bytes = _mm_loadu_si128((const __m128i *)from);
  return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif defined(__AVX2__)
  __m128i bytes = _mm_loadl_epi64((const __m128i *)from);
  return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
  vec out;
  for (int i = 0; i < LANES; i++) out[i] = from[i];
  return out;
#endif
}

/* What turns an int4 into a float: on AVX-512 the table of all 16 values, looked up by
 * the lower four bits of a lane; else the zero point. */
static ALWAYS_INLINE vec values_of(float zero) {
#if defined(__AVX512F__)
  vec table;
  UNROLL for (int i = 0; i < 16; i++) table[i] = (float)i;
  return table - zero;
#else
  return (vec){0} + zero;
#endif
}
static ALWAYS_INLINE vec even_terms(ints bytes, vec values) {
#if defined(__AVX512F__)
  return (vec)_mm512_permutexvar_ps((__m512i)bytes, (__m512)values);
#else
  return __builtin_convertvector(bytes & 15, vec) - values;
#endif
}
static ALWAYS_INLINE vec odd_terms(ints bytes, vec values) {
#if defined(__AVX512F__)
  return even_terms(bytes >> 4, values);
#else
  return __builtin_convertvector(bytes >> 4, vec) - values;
#endif
}

static float sum_of(vec v) {
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}

static int64_t round_up(int64_t n, int64_t part) {
  return (n + part - 1) / part * part;
}

/* int4 */

static void arrange_int4(const float *x, int64_t groups, int64_t group, float *to) {
  for (int64_t g = 0; g < groups; g++, x += group) {
    for (int64_t t = 0; t < group; t += BLOCK4, to += BLOCK4) {
      for (int64_t i = 0; i < LANES; i++) {
        bool inside = t + 2 * i < group;
        to[i] = inside ? x[t + 2 * i] : 0;
        to[LANES + i] = inside ? x[t + 2 * i + 1] : 0;
      }
    }
  }
}

static ALWAYS_INLINE void add_int4(const int rows, const uint8_t *from, vec values,
                                   const float *x, int64_t step, vec *sum) {
  ints bytes = unsigned_bytes(from);
  vec even = even_terms(bytes, values), odd = odd_terms(bytes, values);
  UNROLL for (int r = 0; r < rows; r++) {
    sum[r] += even * *(const vecu *)(x + r * step);
    sum[r] += odd * *(const vecu *)(x + r * step + LANES);
  }
}

/* `rows` is a constant wherever this is used: sums stay in registers. */
static ALWAYS_INLINE void dot_int4_of(const int rows, const nyx_quantized_row *w,
                                      const float *x, int64_t x_step, float *y,
                                      int64_t y_step) {
  const uint8_t *from = w->q;
  vec total[NYX_QUANTIZED_ROWS], values = values_of(8);
  UNROLL for (int r = 0; r < rows; r++) total[r] = (vec){0};
  for (int64_t g = 0; g < w->groups; g++) {
    vec sum[NYX_QUANTIZED_ROWS];
    UNROLL for (int r = 0; r < rows; r++) sum[r] = (vec){0};
    if (w->zero) values = values_of(w->zero[g]);
    int64_t t = 0;
    for (; t + BLOCK4 <= w->group; t += BLOCK4, from += LANES, x += BLOCK4)
      add_int4(rows, from, values, x, x_step, sum);
    if (t < w->group) {
      uint8_t near[LANES];
      memset(near, 0, sizeof near);
      memcpy(near, from, (size_t)(w->group - t) / 2);
      add_int4(rows, near, values, x, x_step, sum);
      from += (w->group - t) / 2, x += BLOCK4;
    }
    UNROLL for (int r = 0; r < rows; r++) total[r] += sum[r] * w->scale[g];
  }
  UNROLL for (int r = 0; r < rows; r++) y[r * y_step] = sum_of(total[r]);
}

static void unpack_int4(const nyx_quantized_row *w, int64_t first, int64_t count,
                        float *to) {
  int64_t g = first / w->group, here = (g + 1) * w->group - first;
  const uint8_t *from = (const uint8_t *)w->q + first / 2;
#if defined(__AVX512F__)
  const vec plain = values_of(8);
#endif
  for (; count > 0; count -= here, from += here / 2, to += here, here = w->group, g++) {
    if (here > count) here = count;
    float scale = w->scale[g], zero = w->zero ? w->zero[g] : 8;
    int64_t t = 0;
#if defined(__AVX512F__)
    const __m512i low =
        _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    vec values = (w->zero ? values_of(zero) : plain) * scale;
    for (; t + BLOCK4 <= here; t += BLOCK4) {
      ints bytes = unsigned_bytes(from + t / 2);
      __m512 even = (__m512)even_terms(bytes, values);
      __m512 odd = (__m512)odd_terms(bytes, values);
      _mm512_storeu_ps(to + t, _mm512_permutex2var_ps(even, low, odd));
      _mm512_storeu_ps(to + t + LANES, _mm512_permutex2var_ps(even, high, odd));
    }
#elif defined(__AVX2__)
    vec values = values_of(zero);
    for (; t + BLOCK4 <= here; t += BLOCK4) {
      ints bytes = unsigned_bytes(from + t / 2);
      __m256 even = (__m256)(even_terms(bytes, values) * scale);
      __m256 odd = (__m256)(odd_terms(bytes, values) * scale);
      __m256 a = _mm256_unpacklo_ps(even, odd), b = _mm256_unpackhi_ps(even, odd);
      _mm256_storeu_ps(to + t, _mm256_permute2f128_ps(a, b, 0x20));
      _mm256_storeu_ps(to + t + LANES, _mm256_permute2f128_ps(a, b, 0x31));
    }
#endif
    for (; t < here; t++) {
      int q = from[t / 2] >> (t % 2 * 4) & 15;
      to[t] = ((float)q - zero) * scale;
    }
  }
}

static void integers_int4(const void *q, int64_t count, int zero, uint16_t *to) {
  typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
  const uint8_t *from = q;
  const vec values = values_of((float)zero);
  int64_t t = 0;
  for (; t + BLOCK4 <= count; t += BLOCK4) {
    ints bytes = unsigned_bytes(from + t / 2);
    words even = (words)even_terms(bytes, values), odd = (words)odd_terms(bytes, values);
    words both = even >> 16 | (odd & 0xffff0000u);
    memcpy(to + t, &both, sizeof both);
  }
  for (; t < count; t++) {
    float value = (float)((from[t / 2] >> (t % 2 * 4) & 15) - zero);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    to[t] = (uint16_t)(bits >> 16);
  }
}

/* int8 */

static void arrange_int8(const float *x, int64_t groups, int64_t group, float *to) {
  int64_t padded = round_up(group, BLOCK8);
  for (int64_t g = 0; g < groups; g++, x += group, to += padded) {
    memcpy(to, x, (size_t)group * sizeof *x);
    memset(to + group, 0, (size_t)(padded - group) * sizeof *x);
  }
}

/* Row r has chains sum[r * chains...]. zero NULL: none. */
static ALWAYS_INLINE void add_int8(const int rows, const int chains, const int8_t *from,
                                   const float *zero, const float *x, int64_t step,
                                   vec *sum) {
  UNROLL for (int i = 0; i < CHAINS; i++) {
    vec q = signed_bytes(from + i * LANES);
    if (zero) q -= *zero;
    UNROLL for (int r = 0; r < rows; r++) {
      sum[r * chains + i % chains] += q * *(const vecu *)(x + r * step + i * LANES);
    }
  }
}

static ALWAYS_INLINE void dot_int8_with(const int rows, const nyx_quantized_row *w,
                                        const float *zeros, const float *x,
                                        int64_t x_step, float *y, int64_t y_step) {
  const int chains = rows > 2 ? 1 : CHAINS / rows;
  const int8_t *from = w->q;
  vec total[NYX_QUANTIZED_ROWS];
  UNROLL for (int r = 0; r < rows; r++) total[r] = (vec){0};
  for (int64_t g = 0; g < w->groups; g++) {
    vec sum[CHAINS];
    UNROLL for (int i = 0; i < rows * chains; i++) sum[i] = (vec){0};
    const float *zero = zeros ? zeros + g : NULL;
    int64_t t = 0;
    for (; t + BLOCK8 <= w->group; t += BLOCK8, from += BLOCK8, x += BLOCK8)
      add_int8(rows, chains, from, zero, x, x_step, sum);
    if (t < w->group) {
      int8_t near[BLOCK8];
      memset(near, 0, sizeof near);
      memcpy(near, from, (size_t)(w->group - t));
      add_int8(rows, chains, near, zero, x, x_step, sum);
      from += w->group - t, x += BLOCK8;
    }
    UNROLL for (int r = 0; r < rows; r++) {
      UNROLL for (int i = 1; i < chains; i++) sum[r * chains] += sum[r * chains + i];
      total[r] += sum[r * chains] * w->scale[g];
    }
  }
  UNROLL for (int r = 0; r < rows; r++) y[r * y_step] = sum_of(total[r]);
}

static ALWAYS_INLINE void dot_int8_of(const int rows, const nyx_quantized_row *w,
                                      const float *x, int64_t x_step, float *y,
                                      int64_t y_step) {
  if (w->zero) {
    dot_int8_with(rows, w, w->zero, x, x_step, y, y_step);
  } else {
    dot_int8_with(rows, w, NULL, x, x_step, y, y_step);
  }
}

static void unpack_int8(const nyx_quantized_row *w, int64_t first, int64_t count,
                        float *to) {
  int64_t g = first / w->group, here = (g + 1) * w->group - first;
  const int8_t *from = (const int8_t *)w->q + first;
  for (; count > 0; count -= here, from += here, to += here, here = w->group, g++) {
    if (here > count) here = count;
    float scale = w->scale[g], zero = w->zero ? w->zero[g] : 0;
    int64_t t = 0;
    for (; t + LANES <= here; t += LANES)
      *(vecu *)(to + t) = (signed_bytes(from + t) - zero) * scale;
    for (; t < here; t++) to[t] = ((float)from[t] - zero) * scale;
  }
}

static void integers_int8(const void *q, int64_t count, int zero, uint16_t *to) {
  const int8_t *from = q;
  for (int64_t t = 0; t < count; t++) {
    float value = (float)(from[t] - zero);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    to[t] = (uint16_t)(bits >> 16);
  }
}

static void add_scaled(int64_t rows, int64_t cols, const float *sums, int64_t sums_apart,
                       const float *scale, const float *x, const float *rest, float *to,
                       int64_t apart) {
  for (int64_t i = 0; i < rows; i++, sums += sums_apart, to += apart) {
    int64_t j = 0;
    for (; j + LANES <= cols; j += LANES) {
      vec more = *(const vecu *)(sums + j) * *(const vecu *)(scale + j);
      if (rest) more += x[i] * *(const vecu *)(rest + j);
      *(vecu *)(to + j) += more;
    }
    for (; j < cols; j++) {
      float more = sums[j] * scale[j];
      if (rest) more += x[i] * rest[j];
      to[j] += more;
    }
  }
}

#define DOT(name)                                                                        \
  static void dot_##name(const nyx_quantized_row *w, int64_t rows, const float *x,       \
                         int64_t x_step, float *y, int64_t y_step) {                     \
    switch (rows) {                                                                      \
      case 1: dot_##name##_of(1, w, x, x_step, y, y_step); break;                        \
      case 2: dot_##name##_of(2, w, x, x_step, y, y_step); break;                        \
      case 3: dot_##name##_of(3, w, x, x_step, y, y_step); break;                        \
      default: dot_##name##_of(4, w, x, x_step, y, y_step);                              \
    }                                                                                    \
  }
DOT(int4)
DOT(int8)

#define KERNEL(name, terms)                                                              \
  {                                                                                      \
    .block = terms, .arrange = arrange_##name, .dot = dot_##name,                        \
    .unpack = unpack_##name, .integers = integers_##name                                 \
  }

extern const nyx_quantized_kernels NYX_PATH(quantized);
const nyx_quantized_kernels NYX_PATH(quantized) = {
    .int4 = KERNEL(int4, BLOCK4), .int8 = KERNEL(int8, BLOCK8), .add_scaled = add_scaled};
