/* What float vectors can do in a few instructions: fma, roots, rounding, minima, the bits
 * of a float. Intrinsics only where the vector extensions have no operator. Included by
 * vector.h; math.h builds on it. */

/* One NYX_X86(avx512, avx2) expression per primitive; the base path is plain C. */
#if NYX_T_BITS == 32
#define NYX_512(op) _mm512_##op##_ps
#define NYX_512_MASK(op) _mm512_##op##_ps_mask
#define NYX_256(op) _mm256_##op##_ps
#define NYX_128(op) _mm_##op##_ps
#define NYX_DIGITS 23 /* bits of the fraction */
#else
#define NYX_512(op) _mm512_##op##_pd
#define NYX_512_MASK(op) _mm512_##op##_pd_mask
#define NYX_256(op) _mm256_##op##_pd
#define NYX_128(op) _mm_##op##_pd
#define NYX_DIGITS 52
#endif
#define NYX_BIAS (NYX_T_BITS == 32 ? 127 : 1023)
#define NYX_SIGN ((SI)((SU)1 << (NYX_T_BITS - 1)))

NYX_FN T nyx_neg(T a) {
  return -a;
}
NYX_FN T nyx_abs(T a) {
  return (T)((I)a & KI(~NYX_SIGN));
}
/* The size of a with the sign of b. */
NYX_FN T nyx__with_sign(T a, T b) {
  return (T)(((I)a & KI(~NYX_SIGN)) | ((I)b & KI(NYX_SIGN)));
}
/* a with its sign changed where b is negative. */
NYX_FN T nyx__flip(T a, T b) {
  return (T)((I)a ^ ((I)b & KI(NYX_SIGN)));
}

NYX_FN T nyx__minus_abs(T a) {
  return (T)((I)a | KI(NYX_SIGN));
}
/* a where x is negative or -0, else b; either for a NaN. */
NYX_FN T nyx__if_negative(T x, T a, T b) {
#if defined(__AVX512F__)
#if NYX_T_BITS == 32
  return (T)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)x), b, a);
#else
  return (T)_mm512_mask_blend_pd(_mm512_movepi64_mask((__m512i)x), b, a);
#endif
#elif defined(__AVX2__)
  return (T)NYX_256(blendv)(b, a, x);
#else
  return nyx__select_bits((M)((I)x < KI(0)), a, b);
#endif
}
/* Whether a < b in any lane. */
NYX_FN bool nyx__any_lt(T a, T b) {
#if defined(__AVX512F__)
  return NYX_512_MASK(cmp)(a, b, _CMP_LT_OQ) != 0;
#else
  return nyx__any(nyx_lt(a, b));
#endif
}

/* a * b + c, rounded once where the path has the instruction, else twice. */
NYX_FN T nyx_fma(T a, T b, T c) {
#if defined(__AVX512F__)
  return (T)NYX_512(fmadd)(a, b, c);
#elif defined(__AVX2__)
  return (T)NYX_256(fmadd)(a, b, c);
#else
  return a * b + c;
#endif
}

NYX_FN T nyx_sqrt(T a) {
#if defined(__AVX512F__)
  return (T)NYX_512(sqrt)(a);
#elif defined(__AVX2__)
  return (T)NYX_256(sqrt)(a);
#elif defined(__SSE2__)
  return (T)NYX_128(sqrt)(a);
#else
  T r;
  for (int i = 0; i < NYX_LANES; i++)
    r[i] = NYX_T_BITS == 32 ? (S)sqrtf((float)a[i]) : (S)sqrt((double)a[i]);
  return r;
#endif
}

/* The lesser and the greater; b when either is not a number. */
NYX_FN T nyx__min_or(T a, T b) {
#if defined(__AVX512F__)
  return (T)NYX_512(min)(a, b);
#elif defined(__AVX2__)
  return (T)NYX_256(min)(a, b);
#elif defined(__SSE2__)
  return (T)NYX_128(min)(a, b);
#else
  return nyx_select(nyx_lt(a, b), a, b);
#endif
}
NYX_FN T nyx__max_or(T a, T b) {
#if defined(__AVX512F__)
  return (T)NYX_512(max)(a, b);
#elif defined(__AVX2__)
  return (T)NYX_256(max)(a, b);
#elif defined(__SSE2__)
  return (T)NYX_128(max)(a, b);
#else
  return nyx_select(nyx_gt(a, b), a, b);
#endif
}
/* Not a number when either is not. Without an instruction to choose lanes, all bits set
 * are not a number, too. */
NYX_FN T nyx__unless_nan(T a, T b) {
#if defined(__SSE2__) && !defined(__AVX2__)
  return (T)(nyx_ne(a, a) | (M)b);
#else
  return nyx_select(nyx_ne(a, a), a, b);
#endif
}
NYX_FN T nyx_min(T a, T b) {
  return nyx__unless_nan(a, nyx__min_or(a, b));
}
NYX_FN T nyx_max(T a, T b) {
  return nyx__unless_nan(a, nyx__max_or(a, b));
}

/* Rounding. The base path adds and takes away 2^23 (2^52), which leaves integers. */
#if defined(__AVX512F__)
#define NYX_ROUNDED(a, mode) ((T)NYX_512(roundscale)(a, (mode) | _MM_FROUND_NO_EXC))
#elif defined(__AVX2__)
#define NYX_ROUNDED(a, mode) ((T)NYX_256(round)(a, (mode) | _MM_FROUND_NO_EXC))
#endif
#if defined(NYX_ROUNDED)
NYX_FN T nyx_round(T a) {
  return NYX_ROUNDED(a, _MM_FROUND_TO_NEAREST_INT);
}
NYX_FN T nyx_floor(T a) {
  return NYX_ROUNDED(a, _MM_FROUND_TO_NEG_INF);
}
NYX_FN T nyx_ceil(T a) {
  return NYX_ROUNDED(a, _MM_FROUND_TO_POS_INF);
}
NYX_FN T nyx_trunc(T a) {
  return NYX_ROUNDED(a, _MM_FROUND_TO_ZERO);
}
#else
NYX_FN T nyx_round(T a) {
  const T big = K((SU)1 << NYX_DIGITS);
  T size = nyx_abs(a);
  return nyx_select(nyx_lt(size, big), nyx__with_sign((size + big) - big, a), a);
}
NYX_FN T nyx_floor(T a) {
  T r = nyx_round(a);
  return nyx__with_sign(nyx_select(nyx_gt(r, a), r - K(1), r), a);
}
NYX_FN T nyx_ceil(T a) {
  T r = nyx_round(a);
  return nyx__with_sign(nyx_select(nyx_lt(r, a), r + K(1), r), a);
}
NYX_FN T nyx_trunc(T a) {
  T size = nyx_abs(a), r = nyx_round(size);
  return nyx__with_sign(nyx_select(nyx_gt(r, size), r - K(1), r), a);
}
#endif

NYX_FN M nyx_isnan(T a) {
  return nyx_ne(a, a);
}
NYX_FN M nyx_isinf(T a) {
  return nyx_eq(nyx_abs(a), K(INFINITY));
}
NYX_FN M nyx_isfinite(T a) {
  return nyx_lt(nyx_abs(a), K(INFINITY));
}

NYX_FN M nyx_signbit(T a) {
  return (I)a < (I){0};
}

/* -1, 0 or 1, and a itself when it is 0 or not a number. */
NYX_FN T nyx_sign(T a) {
  M moves = nyx_or(nyx_lt(a, K(0)), nyx_gt(a, K(0)));
  return nyx_select(moves, nyx__with_sign(K(1), a), a);
}
NYX_FN T nyx_square(T a) {
  return a * a;
}
NYX_FN T nyx_reciprocal(T a) {
  return K(1) / a;
}
NYX_FN T nyx_rsqrt(T a) {
  return K(1) / nyx_sqrt(a);
}
