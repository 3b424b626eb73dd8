/* The dialect's functions for integer vectors. Arithmetic wraps; nothing traps: division
 * by 0 gives 0, and the least value divided by -1 itself. Included by vector.h. */

NYX_FN T nyx_neg(T a) {
  return -a;
}
NYX_FN T nyx_abs(T a) {
  return nyx_select(nyx_lt(a, K(0)), -a, a);
}
NYX_FN T nyx_sign(T a) {
  return nyx_select(nyx_lt(a, K(0)), K(-1), nyx_select(nyx_gt(a, K(0)), K(1), K(0)));
}
#if (defined(NYX_T_UINT8) || defined(NYX_T_BOOL)) && NYX_BYTES == 16 && defined(__SSE2__)
/* Without SSE4 unsigned bytes are the only ones of a byte with instructions for it. */
NYX_FN T nyx_min(T a, T b) {
  return (T)_mm_min_epu8((__m128i)a, (__m128i)b);
}
NYX_FN T nyx_max(T a, T b) {
  return (T)_mm_max_epu8((__m128i)a, (__m128i)b);
}
#else
NYX_FN T nyx_min(T a, T b) {
  return nyx_select(nyx_lt(b, a), b, a);
}
NYX_FN T nyx_max(T a, T b) {
  return nyx_select(nyx_gt(b, a), b, a);
}
#endif
NYX_FN T nyx_fma(T a, T b, T c) {
  return a * b + c;
}
NYX_FN T nyx_square(T a) {
  return a * a;
}

NYX_FN T nyx_floor(T a) {
  return a;
}
NYX_FN T nyx_ceil(T a) {
  return a;
}
NYX_FN T nyx_round(T a) {
  return a;
}
NYX_FN T nyx_trunc(T a) {
  return a;
}

NYX_FN M nyx_isnan(T a) {
  return nyx_ne(a, a);
}
NYX_FN M nyx_isinf(T a) {
  return nyx_ne(a, a);
}
NYX_FN M nyx_isfinite(T a) {
  return nyx_eq(a, a);
}
NYX_FN M nyx_signbit(T a) {
  return nyx_lt(a, K(0));
}

NYX_FN T nyx_bitwise_and(T a, T b) {
  return a & b;
}
NYX_FN T nyx_bitwise_or(T a, T b) {
  return a | b;
}
NYX_FN T nyx_bitwise_xor(T a, T b) {
  return a ^ b;
}
NYX_FN T nyx_bitwise_not(T a) {
  return ~a;
}

/* Counts outside 0..bits-1 shift everything out: 0, or the sign to the right. */
NYX_FN T nyx_bitwise_left_shift(T a, T b) {
  M fits = nyx_and(nyx_ge(b, K(0)), nyx_lt(b, K(NYX_T_BITS)));
  return nyx_select(fits, a << (b & K(NYX_T_BITS - 1)), K(0));
}
NYX_FN T nyx_bitwise_right_shift(T a, T b) {
  M fits = nyx_and(nyx_ge(b, K(0)), nyx_lt(b, K(NYX_T_BITS)));
  return a >> nyx_select(fits, b, K(NYX_T_BITS - 1));
}

#if NYX_T_BITS > 8
#if NYX_T_BITS == 32 && defined(__SSE2__)
/* Float64 holds numbers of 32 bits and, where they are not integers, keeps quotients of
 * them apart from the integers above: cut, they are exact, and two vectors of half the
 * lanes are faster than an element at a time. b is not 0. The one quotient beyond the
 * range, of the least value and -1, is cut to the least value by the instruction. */
NYX_FN T nyx__cut_quotient(T a, T b) {
#if defined(__AVX512F__)
#define NYX_HALF(v, k) _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64((__m512i)v, k))
#define NYX_CUT_HALF(k) _mm512_cvttpd_epi32(_mm512_div_pd(NYX_HALF(a, k), NYX_HALF(b, k)))
  const __m256i low = NYX_CUT_HALF(0), high = NYX_CUT_HALF(1);
  return (T)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#elif defined(__AVX2__)
#define NYX_HALF(v, k) _mm256_cvtepi32_pd(_mm256_extracti128_si256((__m256i)v, k))
#define NYX_CUT_HALF(k) _mm256_cvttpd_epi32(_mm256_div_pd(NYX_HALF(a, k), NYX_HALF(b, k)))
  return (T)_mm256_set_m128i(NYX_CUT_HALF(1), NYX_CUT_HALF(0));
#else
#define NYX_HALF(v, k) _mm_cvtepi32_pd(_mm_srli_si128((__m128i)v, 8 * k))
#define NYX_CUT_HALF(k) _mm_cvttpd_epi32(_mm_div_pd(NYX_HALF(a, k), NYX_HALF(b, k)))
  return (T)_mm_unpacklo_epi64(NYX_CUT_HALF(0), NYX_CUT_HALF(1));
#endif
}

/* Quotient towards zero, and what remains. */
NYX_FN T nyx__quotient(T a, T b, T *left) {
  const M zero = nyx_eq(b, K(0));
  const T by = b - zero, q = nyx__cut_quotient(a, by); /* 1 for 0 */
  *left = a - q * by;
  return q & ~zero;
}
/* Whether the quotient was cut upwards: what remains has the other sign. */
NYX_FN M nyx__cut_up(T left, T b) {
  return nyx_and(nyx_ne(left, K(0)), nyx_lt(left ^ b, K(0)));
}
NYX_FN T nyx_floor_divide(T a, T b) {
  T left, q = nyx__quotient(a, b, &left);
  return nyx_select(nyx__cut_up(left, b), q - K(1), q);
}
NYX_FN T nyx_remainder(T a, T b) {
  T left;
  nyx__quotient(a, b, &left);
  return nyx_select(nyx__cut_up(left, b), left + b, left);
}
NYX_FN T nyx_fmod(T a, T b) {
  T left;
  nyx__quotient(a, b, &left);
  return left;
}
#else
/* The same, an element at a time. */
static inline S nyx__quotient1(S a, S b, S *left) {
  *left = 0;
  if ((SU)b + 1 <= 1) return b ? (S)(0 - (SU)a) : 0; /* 0 or -1 */
  const S q = a / b;
  *left = a - q * b;
  return q;
}
static inline S nyx__floor_divide1(S a, S b) {
  S left, q = nyx__quotient1(a, b, &left);
  return q - (S)((left != 0) & ((left ^ b) < 0));
}
static inline S nyx__remainder1(S a, S b) {
  S left;
  nyx__quotient1(a, b, &left);
  return left + (b & -(S)((left != 0) & ((left ^ b) < 0)));
}
static inline S nyx__fmod1(S a, S b) {
  S left;
  nyx__quotient1(a, b, &left);
  return left;
}
#define NYX_QUOTIENT(name)                                                               \
  static __attribute__((noinline, unused, const)) T nyx_##name(T a, T b) {               \
    T r;                                                                                 \
    for (int i = 0; i < NYX_LANES; i++) r[i] = nyx__##name##1(a[i], b[i]);               \
    return r;                                                                            \
  }
NYX_QUOTIENT(floor_divide)
NYX_QUOTIENT(remainder)
NYX_QUOTIENT(fmod)
#endif

/* a to the power b; 1 / a^-b cut to an integer when b is negative. */
static inline S nyx__pow1(S a, S b) {
  SU power = 1, square = (SU)a;
  if (b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
  for (SU e = (SU)b; e; e >>= 1, square *= square)
    if (e & 1) power *= square;
  return (S)power;
}
static __attribute__((noinline, unused, const)) T nyx_pow(T x, T y) {
  for (int i = 0; i < NYX_LANES; i++) x[i] = nyx__pow1(x[i], y[i]);
  return x;
}
#endif
