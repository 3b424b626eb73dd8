/* float32 functions as polynomials, without branches but for arguments that are rare:
 * sin, cos and tan of large angles and fmod of large quotients go to libm. Infinities,
 * NaNs and subnormals are treated as in C; the errors over the whole range are listed in
 * README.md and checked by spec/c/elementwise_test.c. Polynomials are minimax fits
 * (Remez) with coefficients rounded to float one by one; range reductions after Cody and
 * Waite, "Software Manual for the Elementary Functions" (1980). Included by math.h. */

#define NYX_LOG2_E 0x1.715476p+0
#define NYX_LN2_HIGH 0x1.63p-1 /* 9 bits: times an exponent it is exact */
#define NYX_LN2_LOW -0x1.bd0106p-13
#define NYX_PI_2 0x1.921fb6p+0
#define NYX_PI_2_LOW -0x1.777a5cp-25
#define NYX_TO_INT 0x1.8p23 /* added, it leaves the nearest integer in the low bits */
#define NYX_SQRT_HALF 0x3f3504f3 /* the bits of sqrt(1/2) */
#define NYX_ONE_BITS (127 << 23)

/* Polynomials by Horner's rule, the highest coefficient first. */
NYX_FN T nyx__poly3(T x, float c2, float c1, float c0) {
  return nyx_fma(nyx_fma(K(c2), x, K(c1)), x, K(c0));
}
NYX_FN T nyx__poly4(T x, float c3, float c2, float c1, float c0) {
  return nyx_fma(nyx__poly3(x, c3, c2, c1), x, K(c0));
}
NYX_FN T nyx__poly5(T x, float c4, float c3, float c2, float c1, float c0) {
  return nyx_fma(nyx__poly4(x, c4, c3, c2, c1), x, K(c0));
}
NYX_FN T nyx__poly6(T x, float c5, float c4, float c3, float c2, float c1, float c0) {
  return nyx_fma(nyx__poly5(x, c5, c4, c3, c2, c1), x, K(c0));
}
NYX_FN T nyx__poly7(T x, float c6, float c5, float c4, float c3, float c2, float c1,
                    float c0) {
  return nyx_fma(nyx__poly6(x, c6, c5, c4, c3, c2, c1), x, K(c0));
}
NYX_FN T nyx__poly8(T x, float c7, float c6, float c5, float c4, float c3, float c2,
                    float c1, float c0) {
  return nyx_fma(nyx__poly7(x, c7, c6, c5, c4, c3, c2, c1), x, K(c0));
}
NYX_FN T nyx__poly9(T x, float c8, float c7, float c6, float c5, float c4, float c3,
                    float c2, float c1, float c0) {
  return nyx_fma(nyx__poly8(x, c8, c7, c6, c5, c4, c3, c2, c1), x, K(c0));
}

/* The exponential family: x = n ln 2 + r, |r| <= ln 2 / 2. */

/* p * 2^n for an integer n (as a float) from -252 to 254, rounded once. */
NYX_FN T nyx__scale(T p, T n) {
#if defined(__AVX512F__)
  return (T)_mm512_scalef_ps(p, n);
#else
  I whole = (I)(n + K(NYX_TO_INT)) - (I)K(NYX_TO_INT), half = whole >> 1;
  return p * (T)((half + KI(127)) << 23) * (T)((whole - half + KI(127)) << 23);
#endif
}
/* The same for p >= 0 and small results, without arithmetic whose result is subnormal,
 * which takes a CPU a hundred cycles and more. The bits of a subnormal are p 2^(n + 149)
 * as an integer, which adding 2^23 rounds to. */
NYX_FN T nyx__scale_down(T p, T n) {
  T y = nyx__scale(p, nyx__max_or(K(-115), n));
  if (__builtin_expect(nyx__any_lt(n, K(-115)), 0)) {
    T units = nyx__scale(p, nyx__min_or(K(0), n) + K(149));
    M low = nyx_lt(units, K(0x1p23f));
    T bits = (T)((I)(units + K(0x1p23f)) - (I)K(0x1p23f));
    y = nyx_select(low, bits, nyx__scale(p, nyx_select(low, K(0), n)));
  }
  return y;
}
/* e^r - 1 = r + r^2 q(r). */
NYX_FN T nyx__exp_q(T r) {
  return nyx__poly5(r, 0x1.6ae8a8p-10f, 0x1.1240dep-7f, 0x1.555842p-5f, 0x1.555488p-3f,
                    0x1.fffffcp-2f);
}
NYX_FN T nyx__exp_of(T r) {
  return nyx_fma(nyx_fma(nyx__exp_q(r), r, K(1)), r, K(1));
}
/* r of x; *n is the exponent. `low` is added to x after the reduction. */
NYX_FN T nyx__exp_reduce(T x, T *n) {
  *n = nyx_fma(x, K(NYX_LOG2_E), K(NYX_TO_INT)) - K(NYX_TO_INT);
  return nyx_fma(*n, K(-NYX_LN2_LOW), nyx_fma(*n, K(-NYX_LN2_HIGH), x));
}
/* r of x = n ln 2 / times + r for a small n: in one step where the path has fma, as n
 * times what a float's ln 2 is off, 2e-9, is little then. */
NYX_FN T nyx__exp_reduce_near(T x, float times, T *n) {
  *n = nyx_fma(x, K(NYX_LOG2_E * times), K(NYX_TO_INT)) - K(NYX_TO_INT);
#if defined(__AVX2__)
  return nyx_fma(*n, K(-0x1.62e430p-1f / times), x);
#else
  return *n * K(-NYX_LN2_LOW / times) + (*n * K(-NYX_LN2_HIGH / times) + x);
#endif
}
/* x cut to where e^x is neither 0 nor infinite, and a little beyond. */
NYX_FN T nyx__exp_clamp(T x) {
  return nyx__max_or(K(-104), nyx__min_or(K(89), x));
}

/* e^x for -87 <= x <= 89: normal numbers. */
NYX_FN T nyx__exp_normal(T x) {
  T n, r = nyx__exp_reduce(x, &n);
  return nyx__scale(nyx__exp_of(r), n);
}
/* e^x for -104 <= x <= 89. */
NYX_FN T nyx__exp_between(T x) {
  T n, r = nyx__exp_reduce(x, &n);
  return nyx__scale_down(nyx__exp_of(r), n);
}
NYX_FN T nyx_exp(T x) {
#if defined(__AVX512F__)
  /* Nothing is cut: from infinities r becomes a NaN, but scalef of that by an infinite n
   * is infinite or 0; far beyond 89 r is large, the polynomial above 0 all the same. */
  T n, r = nyx__exp_reduce(x, &n);
  if (__builtin_expect(!nyx__any_lt(n, K(-125)), 1)) return nyx__scale(nyx__exp_of(r), n);
#endif
  return nyx__exp_between(nyx__exp_clamp(x));
}
/* e^x for x <= 89. */
NYX_FN T nyx__exp_negative(T x) {
  return nyx__exp_between(nyx__max_or(K(-104), x));
}
NYX_FN T nyx_exp2(T x) {
  T cut = nyx__max_or(K(-151), nyx__min_or(K(129), x)), n = nyx_round(cut);
  return nyx__scale_down(nyx__exp_of((cut - n) * K(0x1.62e430p-1)), n);
}
/* e^x - 1 = 2^n (e^r - 1) + (2^n - 1), halved on the way so that 2^n cannot overflow. */
NYX_FN T nyx_expm1(T x) {
  /* As in log1p. */
  M tiny = nyx_lt(nyx_abs(x), K(0x1p-25));
  T cut = nyx__max_or(K(-18), nyx__min_or(K(89), nyx_select(tiny, K(0), x)));
  T n, r = nyx__exp_reduce(cut, &n);
  T less = nyx_fma(r * r, nyx__exp_q(r), r), half = nyx__scale(K(0.5), n);
  T value = nyx_fma(half, less, half - K(0.5));
  return nyx_select(tiny, x, value + value);
}
/* e^x / 2 for x >= 0, to 2^128. */
NYX_FN T nyx__exp_half(T x) {
  T n, r = nyx__exp_reduce(nyx__min_or(K(91), x), &n);
  return nyx__scale(nyx__exp_of(r), n - K(1));
}

#if defined(__AVX512F__)
#include "table32.h"
#endif

/* The logarithms: x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2). */

/* f^3 P(f) - f^2 / 2, so that log(1 + f) = f + this. */
NYX_FN T nyx__log_rest(T f) {
  T p = nyx__poly8(f, -0x1.424c7ep-4f, 0x1.07e626p-3f, -0x1.0cdbb0p-3f, 0x1.226b76p-3f,
                   -0x1.54789ep-3f, 0x1.99a5b8p-3f, -0x1.000220p-2f, 0x1.55554ap-2f);
  T square = f * f;
  return nyx_fma(square * f, p, K(-0.5) * square);
}
NYX_FN T nyx__log_parts(T x, T *e) {
  M small = nyx_lt(x, K(0x1p-126));
  I bits = (I)nyx_select(small, x * K(0x1p25), x) - KI(NYX_SQRT_HALF);
  *e = __builtin_convertvector((bits >> 23) - (small & KI(25)), T);
  return (T)((bits & KI(0x7fffff)) + KI(NYX_SQRT_HALF)) - K(1);
}
/* The value where x is positive and finite, else what a logarithm of `base` gives there:
 * -infinity at 0, NaN below, infinity and NaN themselves. */
NYX_FN T nyx__log_edges(T x, T value) {
  T edge = nyx_select(nyx_eq(x, K(0)), K(-INFINITY), K(NAN));
  value = nyx_select(nyx_gt(x, K(0)), value, edge);
  return nyx_select(nyx_lt(x, K(INFINITY)), value, x);
}
NYX_FN T nyx__log_sum(T e, T f) {
  T rest = nyx_fma(e, K(NYX_LN2_LOW), nyx__log_rest(f));
  return nyx_fma(e, K(NYX_LN2_HIGH), f + rest);
}
NYX_FN T nyx__log_any(T x) {
  T e, f = nyx__log_parts(x, &e);
  return nyx__log_edges(x, nyx__log_sum(e, f));
}
/* f 7/16 + low. Without fma a product is rounded, but not one by a power of two. */
NYX_FN T nyx__seven_sixteenths(T f, T low) {
#if defined(__AVX2__)
  return nyx_fma(f, K(0x1.cp-2), low);
#else
  return K(0.5) * f + (low - K(0.0625) * f);
#endif
}
NYX_FN T nyx__log2_any(T x) {
  T e, f = nyx__log_parts(x, &e), rest = nyx__log_rest(f);
  /* f + rest without losing the last bits of f: log2(e) = 1.4375 + 0.00519.... */
  T low = nyx_fma(f, K(0x1.547652p-8), rest * K(NYX_LOG2_E));
#if defined(__AVX2__)
  return nyx__log_edges(x, e + nyx_fma(f, K(0x1.7p+0), low));
#else
  return nyx__log_edges(x, e + (f + nyx__seven_sixteenths(f, low)));
#endif
}
NYX_FN T nyx__log10_any(T x) {
  T e, f = nyx__log_parts(x, &e), rest = nyx__log_rest(f);
  /* log10(e) = 0.4375 - 0.00320..., log10(2) = 0.30078125 + 0.000248.... */
  T low = nyx_fma(f, K(-0x1.a42756p-9), rest * K(0x1.bcb7b2p-2));
  low = nyx_fma(e, K(0x1.04d428p-12), low);
  return nyx__log_edges(x, nyx_fma(e, K(0x1.34p-2), nyx__seven_sixteenths(f, low)));
}
#if defined(__AVX512F__)
/* What the tables are not made for is left to lanes that need it. */
#define NYX_LOGARITHM(name)                                                              \
  NYX_FN T nyx_##name(T x) {                                                             \
    T near = nyx__##name##_near(x);                                                      \
    __mmask16 others = _mm512_fpclass_ps_mask(x, 0xff); /* not normal and positive */    \
    if (__builtin_expect(others == 0, 1)) return near;                                   \
    return (T)_mm512_mask_blend_ps(others, near, nyx__##name##_any(x));                  \
  }
#else
#define NYX_LOGARITHM(name)                                                              \
  NYX_FN T nyx_##name(T x) {                                                             \
    return nyx__##name##_any(x);                                                         \
  }
#endif
NYX_LOGARITHM(log)
NYX_LOGARITHM(log2)
NYX_LOGARITHM(log10)
NYX_FN T nyx_log1p(T from) {
  /* Tiny x, and -0, are their own result; their squares would be subnormal. */
  M tiny = nyx_lt(nyx_abs(from), K(0x1p-25));
  T x = nyx_select(tiny, K(0), from), u = K(1) + x;
  I bits = (I)u - KI(NYX_SQRT_HALF), e = bits >> 23;
  /* 1 + f = 2^-e (1 + x), formed so that the 1 + x that was rounded above is not used;
   * for large x, where 2^-e would underflow, it may be. */
  T scale = (T)((KI(127) - e) << 23), whole = K(1);
  T large = (T)((bits & KI(0x7fffff)) + KI(NYX_SQRT_HALF)) - whole;
  T f = nyx_select(nyx_gt(x, K(0x1p30)), large, nyx_fma(scale, x, scale - whole));
  T value = nyx__log_edges(u, nyx__log_sum(__builtin_convertvector(e, T), f));
  return nyx_select(tiny, from, value);
}

/* Angles: x = n pi / 2 + r, |r| <= pi / 4. The constants add up to pi / 2; n times each
 * is exact with fma, and without it because each but the last has few bits. */

#if defined(__AVX2__)
#define NYX_ANGLE_LIMIT 100000.0
NYX_FN T nyx__angle_rest(T x, T n) {
  T r = nyx_fma(n, K(-0x1.921fb6p+0), x);
  r = nyx_fma(n, K(0x1.777a5cp-25), r);
  return nyx_fma(n, K(0x1.ee59dap-50), r);
}
#else
#define NYX_ANGLE_LIMIT 8000.0
NYX_FN T nyx__angle_rest(T x, T n) {
  T r = x - n * K(0x1.92p+0);
  r = r - n * K(0x1.fb4p-12);
  r = r - n * K(0x1.444p-24);
  return r - n * K(0x1.68c234p-39);
}
#endif
/* r of x; *n is the quarter, of which the lowest two bits count. */
NYX_FN T nyx__angle_reduce(T x, I *n) {
  T shifted = nyx_fma(x, K(0x1.45f306p-1), K(NYX_TO_INT));
  *n = (I)shifted;
  return nyx__angle_rest(x, shifted - K(NYX_TO_INT));
}
NYX_FN T nyx__sin_of(T r, T square) {
  T p = nyx__poly3(square, -0x1.995282p-13f, 0x1.110776p-7f, -0x1.555546p-3f);
  return nyx_fma(r * square, p, r);
}
NYX_FN T nyx__cos_of(T square) {
  T p = nyx__poly3(square, 0x1.99e0eep-16f, -0x1.6c0c1ap-10f, 0x1.55554ap-5f);
  return nyx_fma(nyx_fma(square, p, K(-0.5)), square, K(1));
}
/* The sine of the angle r in quarter n. */
NYX_FN T nyx__sin_quarter(T r, I n) {
  T square = r * r;
  M odd = (n & KI(1)) != KI(0);
  T value = nyx_select(odd, nyx__cos_of(square), nyx__sin_of(r, square));
  return (T)((I)value ^ (n & KI(2)) << 30);
}
NYX_FN T nyx_sin(T x) {
  I n;
  T r = nyx__angle_reduce(x, &n);
  T value = nyx_select(nyx_eq(x, K(0)), x, nyx__sin_quarter(r, n)); /* keeps -0 */
  NYX_UNLESS_FAR(x, value, nyx_sin_far);
}
NYX_FN T nyx_cos(T x) {
  I n;
  T r = nyx__angle_reduce(x, &n), value = nyx__sin_quarter(r, n + KI(1));
  NYX_UNLESS_FAR(x, value, nyx_cos_far);
}
NYX_FN T nyx_tan(T x) {
  I n;
  T r = nyx__angle_reduce(x, &n), square = r * r;
  T p = nyx__poly7(square, 0x1.231988p-8f, -0x1.837190p-15f, 0x1.66a9e0p-7f,
                   0x1.5bf930p-6f, 0x1.baee2ep-5f, 0x1.110d22p-3f, 0x1.555562p-2f);
  T value = nyx_fma(r * square, p, r);
  value = nyx_select((n & KI(1)) != KI(0), K(-1) / value, value);
  value = nyx_select(nyx_eq(x, K(0)), x, value);
  NYX_UNLESS_FAR(x, value, nyx_tan_far);
}

/* x^3 P(x^2), so that asin(x) = x + this, |x| <= 1/2. */
NYX_FN T nyx__asin_rest(T x, T square) {
  T p = nyx__poly6(square, 0x1.349e46p-5f, 0x1.d589f4p-7f, 0x1.04cd0cp-5f, 0x1.6ca7dcp-5f,
                   0x1.3338aap-4f, 0x1.55554cp-3f);
  return x * square * p;
}
/* Above 1/2: asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2)). */
NYX_FN T nyx_asin(T x) {
  T size = nyx_abs(x);
  M high = nyx_gt(size, K(0.5));
  T square = nyx_select(high, (K(1) - size) * K(0.5), size * size);
  T s = nyx_select(high, nyx_sqrt(square), size), rest = nyx__asin_rest(s, square);
  T far = K(NYX_PI_2) - (s + s + (rest + rest + K(-NYX_PI_2_LOW)));
  return nyx__flip(nyx_select(high, far, s + rest), x);
}
NYX_FN T nyx_acos(T x) {
  T size = nyx_abs(x);
  M high = nyx_gt(size, K(0.5));
  T square = nyx_select(high, (K(1) - size) * K(0.5), size * size);
  T s = nyx_select(high, nyx_sqrt(square), size), rest = nyx__asin_rest(s, square);
  T twice = (s + rest) + (s + rest);
  T far = nyx_select(nyx_lt(x, K(0)), K(2 * NYX_PI_2) - (twice + K(-2 * NYX_PI_2_LOW)),
                     twice);
  T near = K(NYX_PI_2) - (nyx__flip(s, x) + (nyx__flip(rest, x) + K(-NYX_PI_2_LOW)));
  return nyx_select(high, far, near);
}

/* atan of a quotient between 0 and 1. */
NYX_FN T nyx__atan_of(T t) {
  T square = t * t;
  T p = nyx__poly9(square, -0x1.dcc6a6p-10f, 0x1.696692p-7f, -0x1.012f28p-5f,
                   0x1.dc9854p-5f, -0x1.58bcfep-4f, 0x1.c0c8e2p-4f, -0x1.24262ap-3f,
                   0x1.999266p-3f, -0x1.555540p-2f);
  return nyx_fma(t * square, p, t);
}
NYX_FN T nyx__from_right_angle(T a) {
  return K(NYX_PI_2) - (a + K(-NYX_PI_2_LOW));
}
NYX_FN T nyx_atan(T x) {
  T size = nyx_abs(x);
  M high = nyx_gt(size, K(1));
  T a = nyx__atan_of(nyx_select(high, K(1), size) / nyx_select(high, size, K(1)));
  return nyx__flip(nyx_select(high, nyx__from_right_angle(a), a), x);
}
NYX_FN T nyx_atan2(T y, T x) {
  T up = nyx_abs(y), along = nyx_abs(x);
  M steep = nyx_gt(up, along);
  T low = nyx_select(steep, along, up), high = nyx_select(steep, up, along);
  T t = nyx_select(nyx_eq(low, high), K(1), low / high); /* both infinite, or 0 */
  T a = nyx__atan_of(nyx_select(nyx_eq(high, K(0)), K(0), t));
  a = nyx_select(steep, nyx__from_right_angle(a), a);
  M left = ((I)x & KI(NYX_SIGN)) != KI(0);
  a = nyx_select(left, K(2 * NYX_PI_2) - (a + K(-2 * NYX_PI_2_LOW)), a);
  return nyx_select(nyx_or(nyx_isnan(x), nyx_isnan(y)), x + y, nyx__flip(a, y));
}

/* Hyperbolic functions and their inverses */

NYX_FN T nyx_sinh(T x) {
  T size = nyx_abs(x), square = x * x, half = nyx__exp_half(size);
  T p = nyx__poly4(square, 0x1.75a6f4p-19f, 0x1.a02156p-13f, 0x1.1110e2p-7f,
                   0x1.555556p-3f);
  T near = nyx_fma(size * square, p, size);
  return nyx__flip(nyx_select(nyx_lt(size, K(1)), near, half - K(0.25) / half), x);
}
NYX_FN T nyx_cosh(T x) {
  T half = nyx__exp_half(nyx_abs(x));
  return half + K(0.25) / half;
}
#if defined(__AVX512F__)
NYX_FN T nyx_tanh(T x) {
  T size = nyx__min_or(K(9.1), nyx_abs(x));
  return nyx__flip(nyx__piecewise(nyx__tanh_table, NYX_TANH_WIDTH, size), x);
}
#else
/* u / (u + 1) for u = (e^2x - 1) / 2; with 2x = n ln 2 + 2h, u = 2^n (e^2h - 1) / 2 +
 * (2^n - 1) / 2. */
NYX_FN T nyx_tanh(T x) {
  T size = nyx__min_or(K(10), nyx_abs(x)), n, h = nyx__exp_reduce_near(size, 2, &n);
  T q = nyx__poly5(h, 0x1.6ae8a8p-5f, 0x1.1240dep-3f, 0x1.555842p-2f, 0x1.555488p-1f,
                   0x1.fffffcp-1f);
  T scale = nyx__scale(K(1), n), less = nyx_fma(h * h, q, h);
  T u = nyx_fma(scale, less, nyx_fma(scale, K(0.5), K(-0.5)));
  return nyx__flip(u / (u + K(1)), x);
}
#endif
NYX_FN T nyx_asinh(T x) {
  T size = nyx_abs(x), square = size * size;
  M far = nyx_gt(size, K(0x1p30)); /* log(2 size), where the square would overflow */
  T near = size + square / (K(1) + nyx_sqrt(K(1) + square));
  T value = nyx_log1p(nyx_select(far, size, near));
  return nyx__flip(nyx_select(far, value + K(0x1.62e430p-1), value), x);
}
NYX_FN T nyx_acosh(T x) {
  T t = x - K(1);
  M far = nyx_gt(x, K(0x1p30));
  T value = nyx_log1p(nyx_select(far, t, t + nyx_sqrt(t + t + t * t)));
  value = nyx_select(far, value + K(0x1.62e430p-1), value);
  return nyx_select(nyx_lt(x, K(1)), K(NAN), value);
}
NYX_FN T nyx_atanh(T x) {
  T size = nyx_abs(x);
  return nyx__flip(K(0.5) * nyx_log1p((size + size) / (K(1) - size)), x);
}

/* Error functions */

/* x + x P(x^2) to 1, from there 1 - e^-(x Q(x)). */
NYX_FN T nyx_erf(T x) {
  T size = nyx__min_or(K(4), nyx_abs(x)), square = size * size;
  T p = nyx__poly7(square, 0x1.4771fep-14f, -0x1.a3515ep-11f, 0x1.53f224p-8f,
                   -0x1.b7f71ap-6f, 0x1.ce2ce6p-4f, -0x1.81273ep-2f, 0x1.06eba8p-3f);
  T q = nyx__poly6(size, -0x1.b9c244p-13f, 0x1.a1b932p-9f, -0x1.758816p-6f,
                   0x1.ae8e6cp-4f, 0x1.458bb0p-1f, 0x1.20e412p+0f);
  T n, r = nyx__exp_reduce(-(size * q), &n);
  T far = K(1) - nyx__scale(nyx__exp_of(r), n);
  return nyx__flip(nyx_select(nyx_lt(size, K(1)), nyx_fma(size, p, size), far), x);
}
/* e^-(s t^2) = 2^n e^r for s = 1 or 1/2. t^2 is the exact square of the upper half of t,
 * and a rest. */
NYX_FN T nyx__minus_square(T t, float s, T *n) {
  T upper = (T)((I)t & KI(~0xfff)), rest = (t - upper) * (t + upper);
  *n = nyx_fma(t * t, K(-NYX_LOG2_E) * K(s), K(NYX_TO_INT)) - K(NYX_TO_INT);
  T r = nyx_fma(*n, K(-NYX_LN2_HIGH), -(upper * upper * K(s)));
  return nyx_fma(*n, K(-NYX_LN2_LOW), r) - rest * K(s);
}
/* e^-t^2 times a polynomial in (t - 4) / (t + 4) over 1 + 2t, t = |x|. */
NYX_FN T nyx_erfc(T x) {
  T t = nyx__min_or(K(10.1), nyx_abs(x)), n, r = nyx__minus_square(t, 1, &n);
  T u = (t - K(4)) / (t + K(4));
  T p = nyx__poly8(u, 0x1.477220p-10f, 0x1.0655a2p-7f, -0x1.f10088p-7f, 0x1.29359ap-5f,
                   -0x1.12449ep-4f, 0x1.801f6ap-4f, -0x1.9d7aa2p-4f, 0x1.16f054p-4f);
  p = nyx_fma(p, u, K(0x1.f7d158p-7));
  p = nyx_fma(p, u, K(-0x1.1df1c0p-3));
  p = nyx_fma(p, u, K(0x1.3ba592p+0));
  T value = nyx__scale_down(nyx__exp_of(r) * (p / nyx_fma(t, K(2), K(1))), n);
  return nyx_select(nyx_lt(x, K(0)), K(2) - value, value);
}
/* The lower tail of the normal distribution from t = 6.5 on: e^-(t^2 / 2) / t times a
 * polynomial in 1 / t^2. */
NYX_FN T nyx__ndtr_far(T t) {
  t = nyx__min_or(K(14.5), t);
  T n, r = nyx__minus_square(t, 0.5f, &n), inverse = K(1) / t, u = inverse * inverse;
  T p = nyx_fma(u, K(0x1.819cccp+4f), K(-0x1.64ac4ap+2f));
  p = nyx_fma(p, u, K(0x1.312a06p+0f));
  p = nyx_fma(p, u, K(-0x1.987d66p-2f));
  p = nyx_fma(p, u, K(0x1.988450p-2f));
  return nyx__scale_down(nyx__exp_of(r) * (p * inverse), n);
}
/* The lower tail at -t, 0 <= t <= 6.5; beyond it is anything. The other side is 1 minus
 * this: so the lower tail keeps its digits, which 1 + erf would lose. */
#if defined(__AVX512F__)
NYX_FN T nyx__ndtr_near(T t) {
  return nyx__piecewise(nyx__ndtr_table, NYX_NDTR_WIDTH, t);
}
#else
/* As e^(s R(s)) / 2 for s = -t. The half is in the polynomial of e^r. */
NYX_FN T nyx__ndtr_near(T t) {
  T s = -nyx__min_or(K(6.5), t);
  T p = nyx__poly8(s, -0x1.71fe04p-30f, -0x1.c995c8p-25f, -0x1.f2cb74p-21f,
                   -0x1.388546p-17f, -0x1.e254f2p-15f, -0x1.9f524ep-13f, 0x1.c198ccp-18f,
                   0x1.3cf1b6p-8f);
  p = nyx_fma(p, s, K(0x1.29f030p-5f));
  p = nyx_fma(p, s, K(-0x1.45f074p-2f));
  p = nyx_fma(p, s, K(0x1.988474p-1f));
  T n, r = nyx__exp_reduce_near(s * p, 1, &n);
  T q = nyx__poly5(r, 0x1.6ae8a8p-11f, 0x1.1240dep-8f, 0x1.555842p-6f, 0x1.555488p-4f,
                   0x1.fffffcp-3f);
  return nyx__scale(nyx_fma(nyx_fma(q, r, K(0.5)), r, K(0.5)), n);
}
#endif
NYX_FN T nyx_ndtr(T x) {
  T t = nyx_abs(x), tail = nyx__ndtr_near(t);
  if (__builtin_expect(nyx__any_lt(K(6.5), t), 0))
    tail = nyx_select(nyx_gt(t, K(6.5)), nyx__ndtr_far(t), tail);
#if defined(__AVX512F__)
  __mmask16 upper = _mm512_testn_epi32_mask((__m512i)x, (__m512i)KI(NYX_SIGN));
  return (T)_mm512_mask_sub_ps(tail, upper, K(1), tail);
#else
  return nyx__if_negative(x, tail, K(1) - tail);
#endif
}

/* In float64: what needs more digits than a float has. D holds half of the lanes. */

#define NYX_HALF (NYX_LANES / 2)
typedef double D __attribute__((vector_size(NYX_BYTES)));
typedef int64_t DI __attribute__((vector_size(NYX_BYTES)));
typedef float H __attribute__((vector_size(NYX_BYTES / 2)));
#if NYX_HALF == 2
#define NYX_D(c) ((D){c, c})
#define NYX_DI(c) ((DI){c, c})
#elif NYX_HALF == 4
#define NYX_D(c) ((D){c, c, c, c})
#define NYX_DI(c) ((DI){c, c, c, c})
#else
#define NYX_D(c) ((D){c, c, c, c, c, c, c, c})
#define NYX_DI(c) ((DI){c, c, c, c, c, c, c, c})
#endif

/* Through memory these would wait for each other. */
#if defined(__SSE2__) && NYX_HALF == 2
NYX_FN void nyx__to_double(T x, D *d) {
  d[0] = (D)_mm_cvtps_pd((__m128)x);
  d[1] = (D)_mm_cvtps_pd(_mm_movehl_ps((__m128)x, (__m128)x));
}
NYX_FN T nyx__to_float(const D *d) {
  return (T)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)d[0]), _mm_cvtpd_ps((__m128d)d[1]));
}
#else
NYX_FN void nyx__to_double(T x, D *d) {
  H half[2];
  memcpy(half, &x, sizeof half);
  d[0] = __builtin_convertvector(half[0], D);
  d[1] = __builtin_convertvector(half[1], D);
}
NYX_FN T nyx__to_float(const D *d) {
  H half[2] = {__builtin_convertvector(d[0], H), __builtin_convertvector(d[1], H)};
  T x;
  memcpy(&x, half, sizeof x);
  return x;
}
#endif
NYX_FN D nyx__select_double(DI m, D a, D b) {
  return (D)((m & (DI)a) | (~m & (DI)b));
}

/* log2(a) for 0 < a < infinity that came from a float: a = 2^e m, sqrt(1/2) <= m <
 * sqrt(2), and log2(m) = s L(s^2) for s = (m - 1) / (m + 1). Relative error 2^-37. */
NYX_FN D nyx__log2_double(D a) {
  const int64_t root = 0x3fe6a09e667f3bcd, one = 0x3ff0000000000000;
  DI bits = (DI)a + NYX_DI(one - root);
  D e = (D)((bits >> 52 & NYX_DI(0x7ff)) | NYX_DI(0x4330000000000000));
  D m = (D)((bits & NYX_DI(0xfffffffffffff)) + NYX_DI(root));
  D s = (m - NYX_D(1)) / (m + NYX_D(1)), t = s * s, tt = t * t;
  D p = NYX_D(0x1.5ce7cd8f69a61p-2) * tt +
        (NYX_D(0x1.a58d8fc49d905p-2) * t + NYX_D(0x1.27777fda50da3p-1));
  p = p * tt + (NYX_D(0x1.ec709d12e192ap-1) * t + NYX_D(0x1.71547652bede5p+1));
  return p * s + (e - NYX_D(0x1p52 + 1023));
}
/* 2^w, -200 <= w <= 200. Relative error 2^-29, a thirtieth of a float's ulp. */
NYX_FN D nyx__exp2_double(D w) {
  D shifted = w + NYX_D(0x1.8p52), r = w - (shifted - NYX_D(0x1.8p52)), rr = r * r;
  D upper = NYX_D(0x1.5f4569ed09c4cp-10) * r + NYX_D(0x1.3b2dbbf2b7451p-7);
  D lower = NYX_D(0x1.c6aed4bb44817p-5) * r + NYX_D(0x1.ebfbdadc66767p-3);
  D low = NYX_D(0x1.62e430c7e6cdap-1) * r + NYX_D(0x1.0000000261693p+0);
  D p = (NYX_D(0x1.41d313d5dbf4fp-13) * rr + upper) * (rr * rr) + (lower * rr + low);
  return p * (D)(((DI)shifted + NYX_DI(1023)) << 52);
}
/* A NaN stays one, as the second operand of these instructions. */
NYX_FN D nyx__cut_double(D w, double most) {
#if defined(__AVX512F__)
  return (D)_mm512_max_pd(NYX_D(-most), _mm512_min_pd(NYX_D(most), w));
#elif defined(__AVX2__)
  return (D)_mm256_max_pd(NYX_D(-most), _mm256_min_pd(NYX_D(most), w));
#elif defined(__SSE2__)
  return (D)_mm_max_pd(NYX_D(-most), _mm_min_pd(NYX_D(most), w));
#else
  w = nyx__select_double((DI)(w > NYX_D(most)), NYX_D(most), w);
  return nyx__select_double((DI)(w < NYX_D(-most)), NYX_D(-most), w);
#endif
}

/* x^y for 0 < x < infinity that is not 1. */
NYX_FN T nyx__pow_positive(T x, T y) {
  D a[2], b[2];
  nyx__to_double(x, a);
  nyx__to_double(y, b);
  for (int i = 0; i < 2; i++)
    a[i] = nyx__exp2_double(nyx__cut_double(b[i] * nyx__log2_double(a[i]), 200));
  return nyx__to_float(a);
}
NYX_FN T nyx__pow_any(T x, T y) {
  T size = nyx_abs(x), value = nyx__pow_positive(size, y);
  M none = nyx_eq(size, K(0)), all = nyx_eq(size, K(INFINITY)), down = nyx_lt(y, K(0));
  value = nyx_select(nyx_or(none, all),
                     nyx_select(nyx_xor(none, down), K(0), K(INFINITY)), value);
  value = nyx_select(nyx_or(nyx_isnan(x), nyx_isnan(y)), x + y, value);
  return nyx__pow_signs(x, y, value);
}

NYX_FN T nyx_hypot(T x, T y) {
  D a[2], b[2];
  nyx__to_double(x, a);
  nyx__to_double(y, b);
  for (int i = 0; i < 2; i++) a[i] = a[i] * a[i] + b[i] * b[i];
#if defined(__AVX512F__)
  for (int i = 0; i < 2; i++) a[i] = (D)_mm512_sqrt_pd(a[i]);
#elif defined(__AVX2__)
  for (int i = 0; i < 2; i++) a[i] = (D)_mm256_sqrt_pd(a[i]);
#elif defined(__SSE2__)
  for (int i = 0; i < 2; i++) a[i] = (D)_mm_sqrt_pd(a[i]);
#else
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < NYX_HALF; j++) a[i][j] = sqrt(a[i][j]);
#endif
  return nyx_select(nyx_or(nyx_isinf(x), nyx_isinf(y)), K(INFINITY), nyx__to_float(a));
}

/* x - y trunc(x / y), exactly: below 2^28 the quotient has at most 28 bits, so its
 * product with y fits float64, and it is at most one off. */
NYX_LANEWISE2(NYX_APART, fmod_far, fmod)
NYX_FN T nyx_fmod(T x, T y) {
  T size = nyx_abs(x), by = nyx_abs(y), quotient = size / by;
  if (__builtin_expect(nyx__any(nyx_not(nyx_lt(quotient, K(0x1p28)))), 0))
    return nyx_fmod_far(x, y);
  D a[2], b[2];
  nyx__to_double(size, a);
  nyx__to_double(by, b);
  for (int i = 0; i < 2; i++) {
    D q = a[i] / b[i], nearest = (q + NYX_D(0x1p52)) - NYX_D(0x1p52);
    a[i] = a[i] - nearest * b[i];
    a[i] = nyx__select_double((DI)(a[i] < NYX_D(0)), a[i] + b[i], a[i]);
  }
  return nyx__flip(nyx_select(nyx_isinf(y), size, nyx__to_float(a)), x);
}

/* floor(x / y): below 2^28 the quotient in float64 reaches no integer that the exact one
 * does not, and above the result is rounded anyway. */
NYX_FN T nyx_floor_divide(T x, T y) {
  D a[2], b[2];
  nyx__to_double(x, a);
  nyx__to_double(y, b);
  for (int i = 0; i < 2; i++) {
    const DI sign = NYX_DI(INT64_MIN);
    D q = a[i] / b[i], size = (D)((DI)q & ~sign);
    D r = (D)((DI)((size + NYX_D(0x1p52)) - NYX_D(0x1p52)) | ((DI)q & sign));
    r = nyx__select_double((DI)(r > q), r - NYX_D(1), r);
    a[i] = nyx__select_double((DI)(size < NYX_D(0x1p52)), r, q);
  }
  T quotient = nyx__to_float(a);
  M under = nyx_and(nyx_isinf(y), nyx_xor(nyx_lt(x, K(0)), nyx_lt(y, K(0))));
  quotient = nyx_select(nyx_and(under, nyx_ne(x, K(0))), K(-1), quotient);
  M lost = nyx_and(nyx_isinf(x), nyx_ne(y, K(0)));
  return nyx_select(nyx_or(lost, nyx_isnan(x)), x - x, quotient);
}
