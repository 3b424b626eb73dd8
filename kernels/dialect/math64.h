/* float64 functions as polynomials, for paths that have fma; the base path keeps libm.
 * Without branches but for arguments that are rare: large angles and quotients go to
 * libm, subnormal results take a few steps more. Infinities, NaNs and subnormals are
 * treated as in C; the errors over the whole range are listed in README.md and checked by
 * spec/c/elementwise_test.c. Polynomials are minimax fits (Remez, in 200 bits), their
 * coefficients rounded to double. What must keep more digits than a double has is a sum
 * of two, after Dekker, "A floating-point technique for extending the available
 * precision" (1971). The functions are long and many rows call them, so most are out of
 * line. Included by math.h. */

#define NYX_BIG static __attribute__((noinline, unused, const))

#define NYX_LOG2_E 0x1.71547652b82fep+0
#define NYX_LOG2_E_LOW 0x1.777d0ffda0d24p-56
#define NYX_LN2 0x1.62e42fefa39efp-1
#define NYX_LN2_LOW 0x1.abc9e3b39803fp-56
#define NYX_PI_2 0x1.921fb54442d18p+0
#define NYX_PI_2_LOW 0x1.1a62633145c07p-54
#define NYX_TO_INT 0x1.8p52 /* added, it leaves the nearest integer in the low bits */
#define NYX_SQRT_HALF 0x3fe6a09e667f3bcd /* the bits of sqrt(1/2) */
#define NYX_ONE_BITS 0x3ff0000000000000

/* A polynomial by Horner's rule, the highest coefficient first. */
NYX_FN T nyx__horner(T x, const double *c, int n) {
  T p = K(c[0]);
  for (int i = 1; i < n; i++) p = nyx_fma(p, x, K(c[i]));
  return p;
}
#define NYX_POLY(x, ...)                                                                 \
  nyx__horner(x, (const double[]){__VA_ARGS__},                                          \
              (int)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)))

/* What a + b loses when it is rounded to `sum`; |a| >= |b| or a = 0. */
NYX_FN T nyx__lost(T a, T b, T sum) {
  return (a - sum) + b;
}

/* The exponential family: x = n ln 2 + r, |r| <= ln 2 / 2. */

/* 2^n for an integer n (as a double) from -1022 to 1023. */
NYX_FN T nyx__power(T n) {
  return (T)((I)(n + K(NYX_TO_INT + 1023)) << 52);
}
/* p * 2^n for an integer n from -2044 to 2046, rounded once. */
NYX_FN T nyx__scale(T p, T n) {
#if defined(__AVX512F__)
  return (T)_mm512_scalef_pd(p, n);
#else
  T half = nyx_round(n * K(0.5));
  return p * nyx__power(half) * nyx__power(n - half);
#endif
}
/* The same for p >= 0 and small results, without arithmetic whose result is subnormal,
 * which takes a CPU a hundred cycles and more. The bits of a subnormal are p 2^(n + 1074)
 * as an integer, which adding 2^52 rounds to. */
NYX_FN T nyx__scale_down(T p, T n) {
  T y = nyx__scale(p, nyx__max_or(K(-1010), n));
  if (__builtin_expect(nyx__any_lt(n, K(-1010)), 0)) {
    T units = nyx__scale(p, nyx__min_or(K(0), n) + K(1074));
    M low = nyx_lt(units, K(0x1p52));
    T bits = (T)((I)(units + K(0x1p52)) - (I)K(0x1p52));
    y = nyx_select(low, bits, nyx__scale(p, nyx_select(low, K(0), n)));
  }
  return y;
}
/* e^r = 1 + r + r^2 q(r). */
NYX_FN T nyx__exp_q(T r) {
  return NYX_POLY(r, 0x1.ad7d875016741p-26, 0x1.28ad716e39f1ap-22, 0x1.71df26cd44508p-19,
                  0x1.a0199a0ff21d3p-16, 0x1.a01a0129861b6p-13, 0x1.6c16c18427866p-10,
                  0x1.1111111127ee2p-7, 0x1.5555555550892p-5, 0x1.55555555554f9p-3,
                  0x1.000000000000ap-1);
}
NYX_FN T nyx__exp_of(T r) {
  return nyx_fma(nyx_fma(nyx__exp_q(r), r, K(1)), r, K(1));
}
/* r of x; *n is the exponent, *low what r lost: n times the upper part of ln 2 is taken
 * from x without an error. */
NYX_FN T nyx__exp_reduce_two(T x, T *n, T *low) {
  *n = nyx_fma(x, K(NYX_LOG2_E), K(NYX_TO_INT)) - K(NYX_TO_INT);
  T near = nyx_fma(*n, K(-NYX_LN2), x), r = nyx_fma(*n, K(-NYX_LN2_LOW), near);
  *low = nyx_fma(*n, K(-NYX_LN2_LOW), near - r);
  return r;
}
NYX_FN T nyx__exp_reduce(T x, T *n) {
  *n = nyx_fma(x, K(NYX_LOG2_E), K(NYX_TO_INT)) - K(NYX_TO_INT);
  return nyx_fma(*n, K(-NYX_LN2_LOW), nyx_fma(*n, K(-NYX_LN2), x));
}
NYX_BIG T nyx_exp(T x) {
  T n, r = nyx__exp_reduce(x, &n), p = nyx__exp_of(r);
  if (__builtin_expect(!nyx__any_lt(K(707), nyx_abs(x)), 1)) return p * nyx__power(n);
  T cut = nyx__max_or(K(-746), nyx__min_or(K(710), x));
  r = nyx__exp_reduce(cut, &n);
  return nyx__scale_down(nyx__exp_of(r), n);
}
NYX_FN T nyx__exp_negative(T x) {
  return nyx_exp(x);
}
/* 2^(r + low) for |r| <= 1/2 and a low that is little beside what r has of digits. */
NYX_FN T nyx__exp2_of(T r, T low) {
  T q = NYX_POLY(r, 0x1.e7c4b4d535a07p-32, 0x1.e617b2db2b5e4p-28, 0x1.b526549735257p-24,
                 0x1.62bfc9f82bffdp-20, 0x1.ffcbfbc6c8884p-17, 0x1.4309130dc355dp-13,
                 0x1.5d87fe78c3b11p-10, 0x1.3b2ab6fba07a5p-7, 0x1.c6b08d704a044p-5,
                 0x1.ebfbdff82c5a1p-3);
  T rest = nyx_fma(r, K(NYX_LN2_LOW), low * K(NYX_LN2));
  return K(1) + nyx_fma(r, K(NYX_LN2), nyx_fma(r * r, q, rest));
}
NYX_BIG T nyx_exp2(T x) {
  T cut = nyx__max_or(K(-1076), nyx__min_or(K(1025), x)), n = nyx_round(cut);
  return nyx__scale_down(nyx__exp2_of(cut - n, K(0)), n);
}
/* e^x - 1 = 2^n (e^r - 1) + (2^n - 1), halved on the way so that 2^n cannot overflow. */
NYX_BIG T nyx_expm1(T x) {
  M tiny = nyx_lt(nyx_abs(x), K(0x1p-54)); /* keeps -0 and small results */
  T cut = nyx__max_or(K(-40), nyx__min_or(K(710), nyx_select(tiny, K(0), x)));
  T n, low, r = nyx__exp_reduce_two(cut, &n, &low), half = nyx__power(n - K(1));
  T less = half - K(0.5), high = nyx_fma(half, r, less);
  T rest =
      nyx_fma(half, nyx_fma(r * r, nyx__exp_q(r), low), nyx_fma(half, r, less - high));
  return nyx_select(tiny, x, (high + rest) + (high + rest));
}

/* The logarithms: x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2). */

NYX_FN T nyx__log_parts(T x, T *e) {
  M small = nyx_lt(x, K(0x1p-1022));
  T normal = nyx_select(small, x * K(0x1p54), x);
  U bits = (U)normal + (U)KI(NYX_ONE_BITS - NYX_SQRT_HALF);
  T biased = (T)((I)(bits >> 52) | (I)K(0x1p52));
  *e = biased - nyx_select(small, K(0x1p52 + 1023 + 54), K(0x1p52 + 1023));
  return (T)(((I)bits & KI(0xfffffffffffff)) + KI(NYX_SQRT_HALF)) - K(1);
}
/* The value where x is positive and finite, else what a logarithm gives there: -infinity
 * at 0, NaN below, infinity and NaN themselves. */
NYX_FN T nyx__log_edges(T x, T value) {
#if defined(__AVX512F__)
  __mmask8 usual = _mm512_cmp_pd_mask(x, K(0), _CMP_GT_OQ) &
                   _mm512_cmp_pd_mask(x, K(INFINITY), _CMP_LT_OQ);
  if (__builtin_expect(usual == 0xff, 1)) return value;
#else
  if (__builtin_expect(
          !nyx__any(nyx_not(nyx_and(nyx_gt(x, K(0)), nyx_lt(x, K(INFINITY))))), 1))
    return value;
#endif
  T edge = nyx_select(nyx_eq(x, K(0)), K(-INFINITY), K(NAN));
  value = nyx_select(nyx_gt(x, K(0)), value, edge);
  return nyx_select(nyx_lt(x, K(INFINITY)), value, x);
}
/* log(1 + f) = f - f^2 / 2 + this: with s = f / (2 + f), it is s (f^2 / 2 + s^2 R(s^2)),
 * as 2 s = f - s f and s f = f^2 / 2 - s f^2 / 2. */
NYX_FN T nyx__log_rest(T f, T half_square) {
  T s = f / (K(2) + f), z = s * s;
  T p = NYX_POLY(z, 0x1.2f0d9409b31d3p-3, 0x1.39a0f473b887bp-3, 0x1.7466463275675p-3,
                 0x1.c71c51e7d6fcbp-3, 0x1.2492494217d16p-2, 0x1.999999997fb2dp-2,
                 0x1.5555555555593p-1);
  return s * nyx_fma(z, p, half_square);
}
/* e ln 2 + log(1 + f); e_low is e times the lower part of ln 2, and what f lost. */
NYX_FN T nyx__log_sum(T e, T e_low, T f) {
  T half_square = K(0.5) * f * f;
  T rest = e_low + nyx__log_rest(f, half_square);
  return nyx_fma(e, K(NYX_LN2), f - (half_square - rest));
}
NYX_BIG T nyx_log(T x) {
  T e, f = nyx__log_parts(x, &e);
  return nyx__log_edges(x, nyx__log_sum(e, e * K(NYX_LN2_LOW), f));
}
/* e a + log(1 + f) b, a and b of two parts. */
NYX_FN T nyx__log_times(T e, T f, double a, double a_low, double b, double b_low) {
  T half = K(0.5) * f, high = nyx_fma(-half, f, f);
  T low = nyx_fma(-half, f, f - high) + nyx__log_rest(f, half * f);
  T scaled = high * K(b), whole = e * K(a), sum = whole + scaled;
  T rest = nyx_fma(high, K(b), -scaled) + nyx_fma(high, K(b_low), low * K(b));
  rest += nyx_fma(e, K(a), -whole) + e * K(a_low);
  return sum + (nyx__lost(whole, scaled, sum) + rest);
}
NYX_BIG T nyx_log2(T x) {
  T e, f = nyx__log_parts(x, &e);
  return nyx__log_edges(x, nyx__log_times(e, f, 1, 0, NYX_LOG2_E, NYX_LOG2_E_LOW));
}
NYX_BIG T nyx_log10(T x) {
  T e, f = nyx__log_parts(x, &e);
  T value = nyx__log_times(e, f, 0x1.34413509f79ffp-2, -0x1.9dc1da994fd21p-59,
                           0x1.bcb7b1526e50ep-2, 0x1.95355baaafad3p-57);
  return nyx__log_edges(x, value);
}
NYX_BIG T nyx_log1p(T from) {
  M tiny = nyx_lt(nyx_abs(from), K(0x1p-54));
  T x = nyx_select(tiny, K(0), from), u = K(1) + x;
  T e, large = nyx__log_parts(u, &e);
  /* 1 + f = 2^-e (1 + x), formed so that the 1 + x that was rounded above is not used;
   * for large x, where 2^-e would underflow, it may be. */
  T scale = nyx__power(nyx__max_or(K(-60), -e)), less = scale - K(1);
  M far = nyx_gt(x, K(0x1p52));
  T f = nyx_select(far, large, nyx_fma(scale, x, less));
  T low = nyx_select(far, K(0), nyx_fma(scale, x, less - f));
  T value = nyx__log_sum(e, nyx_fma(e, K(NYX_LN2_LOW), low), f);
  return nyx_select(tiny, from, nyx__log_edges(u, value));
}

/* Angles: x = n pi / 2 + r, |r| <= pi / 4. The first product with a part of pi / 2 is
 * taken from x without an error, what the second loses is *low. */

#define NYX_ANGLE_LIMIT 1e9
NYX_FN T nyx__angle_reduce(T x, I *n, T *low) {
  T shifted = nyx_fma(x, K(0x1.45f306dc9c883p-1), K(NYX_TO_INT));
  *n = (I)shifted;
  T whole = shifted - K(NYX_TO_INT), near = nyx_fma(whole, K(-NYX_PI_2), x);
  T r = nyx_fma(whole, K(-NYX_PI_2_LOW), near);
  *low = nyx_fma(whole, K(-NYX_PI_2_LOW), near - r);
  *low = nyx_fma(whole, K(0x1.f1976b7ed8fbcp-110), *low);
  return r;
}
NYX_FN T nyx__sin_of(T r, T low, T square) {
  T p = NYX_POLY(square, 0x1.5d933fc1aa091p-33, -0x1.ae5e676c0ce5bp-26,
                 0x1.71de3579d0db9p-19, -0x1.a01a019c14edcp-13, 0x1.111111110f89fp-7,
                 -0x1.5555555555549p-3);
  return r + nyx_fma(r * square, p, nyx_fma(square * K(-0.5), low, low));
}
NYX_FN T nyx__cos_of(T r, T low, T square) {
  T p = NYX_POLY(square, -0x1.8faef604bf57bp-37, 0x1.1ee9ec97b541ap-29,
                 -0x1.27e4f80aefdc5p-22, 0x1.a01a019cb316fp-16, -0x1.6c16c16c1518bp-10,
                 0x1.555555555554cp-5);
  T half = K(-0.5) * r, near = nyx_fma(half, r, K(1));
  T rest = nyx_fma(half, r, K(1) - near);
  return near + nyx_fma(square * square, p, nyx_fma(-r, low, rest));
}
/* The sine of the angle r in quarter n. */
NYX_FN T nyx__sin_quarter(T r, T low, I n) {
  T square = r * r;
  M odd = (n & KI(1)) != KI(0);
  T value = nyx_select(odd, nyx__cos_of(r, low, square), nyx__sin_of(r, low, square));
  return (T)((I)value ^ (n & KI(2)) << 62);
}
NYX_BIG T nyx_sin(T x) {
  I n;
  T low, r = nyx__angle_reduce(x, &n, &low);
  T value = nyx_select(nyx_eq(x, K(0)), x, nyx__sin_quarter(r, low, n)); /* keeps -0 */
  NYX_UNLESS_FAR(x, value, nyx_sin_far);
}
NYX_BIG T nyx_cos(T x) {
  I n;
  T low, r = nyx__angle_reduce(x, &n, &low);
  T value = nyx__sin_quarter(r, low, n + KI(1));
  NYX_UNLESS_FAR(x, value, nyx_cos_far);
}
NYX_BIG T nyx_tan(T x) {
  I n;
  T low, r = nyx__angle_reduce(x, &n, &low), square = r * r;
  M odd = (n & KI(1)) != KI(0);
  T sine = nyx__sin_of(r, low, square), cosine = nyx__cos_of(r, low, square);
  T value = nyx_select(odd, -cosine, sine) / nyx_select(odd, sine, cosine);
  value = nyx_select(nyx_eq(x, K(0)), x, value);
  NYX_UNLESS_FAR(x, value, nyx_tan_far);
}

/* x^3 P(x^2), so that asin(x) = x + this, |x| <= 1/2. */
NYX_FN T nyx__asin_rest(T x, T square) {
  T p =
      NYX_POLY(square, 0x1.05cd5afd8e71bp-5, -0x1.0af1dbd301860p-6, 0x1.40aff44058b8dp-6,
               0x1.aab6818281cf8p-8, 0x1.8ee4536d3c04ap-7, 0x1.c6f88a01bbe82p-7,
               0x1.1c6c2729b1540p-6, 0x1.6e89ef8283563p-6, 0x1.f1c72c6d076b7p-6,
               0x1.6db6db41d44d6p-5, 0x1.333333336f88fp-4, 0x1.5555555555387p-3);
  return x * square * p;
}
/* Above 1/2: asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2)). */
NYX_BIG T nyx_asin(T x) {
  T size = nyx_abs(x);
  M high = nyx_gt(size, K(0.5));
  T square = nyx_select(high, (K(1) - size) * K(0.5), size * size);
  T s = nyx_select(high, nyx_sqrt(square), size), rest = nyx__asin_rest(s, square);
  T far = K(NYX_PI_2) - (s + s + (rest + rest - K(NYX_PI_2_LOW)));
  return nyx__flip(nyx_select(high, far, s + rest), x);
}
NYX_BIG T nyx_acos(T x) {
  T size = nyx_abs(x);
  M high = nyx_gt(size, K(0.5));
  T square = nyx_select(high, (K(1) - size) * K(0.5), size * size);
  T s = nyx_select(high, nyx_sqrt(square), size), rest = nyx__asin_rest(s, square);
  T twice = (s + rest) + (s + rest);
  T far =
      nyx_select(nyx_lt(x, K(0)), K(2 * NYX_PI_2) - (twice - K(2 * NYX_PI_2_LOW)), twice);
  T near = K(NYX_PI_2) - (nyx__flip(s, x) + (nyx__flip(rest, x) - K(NYX_PI_2_LOW)));
  return nyx_select(high, far, near);
}

/* The angle of a point up >= 0, along >= 0, of which not both are 0 or infinite: of
 * tan(pi / 8) on after turning it by pi / 4, above 3 pi / 8 by pi / 2. */
NYX_FN T nyx__angle_of(T up, T along) {
  M steep = nyx_gt(up * K(0x1.a827999fcef32p-2), along);
  M middle = nyx_gt(up, along * K(0x1.a827999fcef32p-2));
  T top = nyx_select(steep, -along, nyx_select(middle, up - along, up));
  T t = top / nyx_select(steep, up, nyx_select(middle, up + along, along)), z = t * t;
  T p = NYX_POLY(z, -0x1.252e6f62c3d76p-6, 0x1.37bc766f0e53fp-5, -0x1.9cc9bab84f03ep-5,
                 0x1.df0d816597465p-5, -0x1.10eb9cbaa1e76p-4, 0x1.3b11170cdb32cp-4,
                 -0x1.745cf8c44d9c6p-4, 0x1.c71c70e56d6d2p-4, -0x1.24924922ac550p-3,
                 0x1.999999999585cp-3, -0x1.555555555553dp-2);
  T turn = nyx_select(steep, K(1), nyx_select(middle, K(0.5), K(0)));
  T rest = nyx_fma(turn, K(NYX_PI_2_LOW), t * z * p);
  T a = nyx_fma(turn, K(NYX_PI_2), t); /* the turn's product is exact */
  return a + (nyx_fma(turn, K(NYX_PI_2), -a) + t + rest);
}
NYX_BIG T nyx_atan(T x) {
  T size = nyx__min_or(K(0x1p60), nyx_abs(x));
  return nyx__flip(nyx__angle_of(size, K(1)), x);
}
NYX_BIG T nyx_atan2(T y, T x) {
  T up = nyx_abs(y), along = nyx_abs(x);
  M same = nyx_eq(up, along);      /* both infinite, or 0, too */
  T most = nyx__max_or(up, along); /* their sum may overflow, products lose digits */
  T by = nyx_select(nyx_lt(most, K(0x1p-900)), K(0x1p60), K(1));
  by = nyx_select(nyx_gt(most, K(0x1p1000)), K(0x1p-60), by);
  T a =
      nyx__angle_of(nyx_select(same, K(1), up * by), nyx_select(same, K(1), along * by));
  a = nyx_select(nyx_and(same, nyx_eq(up, K(0))), K(0), a);
  M flat = nyx_and(nyx_eq(along, K(INFINITY)), nyx_not(same));
  M upright = nyx_and(nyx_eq(up, K(INFINITY)), nyx_not(same));
  a = nyx_select(flat, K(0), nyx_select(upright, K(NYX_PI_2), a));
  M left = ((I)x & KI(NYX_SIGN)) != KI(0);
  a = nyx_select(left, K(2 * NYX_PI_2) - (a - K(2 * NYX_PI_2_LOW)), a);
  return nyx_select(nyx_or(nyx_isnan(x), nyx_isnan(y)), x + y, nyx__flip(a, y));
}

/* Hyperbolic functions and their inverses */

/* A quarter of e^x for 0 <= x <= 710.7, in two parts. */
NYX_FN T nyx__exp_quarter(T x, T *low) {
  T n, r_low, r = nyx__exp_reduce_two(x, &n, &r_low), scale = nyx__power(n - K(2));
  T high = K(1) + r;
  *low = scale * (nyx__lost(K(1), r, high) + nyx_fma(r * r, nyx__exp_q(r), r_low));
  return scale * high;
}
NYX_BIG T nyx_sinh(T x) {
  T size = nyx_abs(x), square = x * x, low;
  T p = NYX_POLY(square, 0x1.b4cf77f2edb97p-41, 0x1.611a3a2280f5ap-33,
                 0x1.ae64676685ce1p-26, 0x1.71de3a45f7262p-19, 0x1.a01a01a0291fbp-13,
                 0x1.11111111110a1p-7, 0x1.5555555555556p-3);
  T near = nyx_fma(size * square, p, size);
  T quarter = nyx__exp_quarter(nyx__min_or(K(710.7), size), &low);
  T far = quarter + (low - K(0.0625) / (quarter + low));
  return nyx__flip(nyx_select(nyx_lt(size, K(1)), near, far + far), x);
}
NYX_BIG T nyx_cosh(T x) {
  T low, quarter = nyx__exp_quarter(nyx__min_or(K(710.7), nyx_abs(x)), &low);
  T value = quarter + (low + K(0.0625) / (quarter + low));
  return value + value;
}
/* u / (u + 2) for u = e^2x - 1, as in expm1. */
NYX_BIG T nyx_tanh(T x) {
  T size = nyx__min_or(K(40), K(2) * nyx_abs(x));
  T n, low, r = nyx__exp_reduce_two(size, &n, &low), scale = nyx__power(n);
  T less = scale - K(1), high = nyx_fma(scale, r, less);
  T rest =
      nyx_fma(scale, nyx_fma(r * r, nyx__exp_q(r), low), nyx_fma(scale, r, less - high));
  T u = high + rest;
  return nyx__flip(u / (u + K(2)), x);
}
NYX_BIG T nyx_asinh(T x) {
  T size = nyx_abs(x), square = size * size;
  M far = nyx_gt(size, K(0x1p60)); /* log(2 size), where the square would overflow */
  T near = size + square / (K(1) + nyx_sqrt(K(1) + square));
  T value = nyx_log1p(nyx_select(far, size, near));
  return nyx__flip(nyx_select(far, value + K(NYX_LN2), value), x);
}
NYX_BIG T nyx_acosh(T x) {
  T t = x - K(1);
  M far = nyx_gt(x, K(0x1p60));
  T value = nyx_log1p(nyx_select(far, t, t + nyx_sqrt(nyx_fma(t, t, t + t))));
  value = nyx_select(far, value + K(NYX_LN2), value);
  return nyx_select(nyx_lt(x, K(1)), K(NAN), value);
}
NYX_BIG T nyx_atanh(T x) {
  T size = nyx_abs(x);
  return nyx__flip(K(0.5) * nyx_log1p((size + size) / (K(1) - size)), x);
}

/* Error functions */

#include "erf64.h"

/* Rows of the table, one for each lane. */
NYX_FN void nyx__erf_rows(I row, T *value, T *slope) {
#if defined(__AVX512F__)
  *value = (T)_mm512_i64gather_pd((__m512i)(row + row), nyx__erf_table, 8);
  *slope = (T)_mm512_i64gather_pd((__m512i)(row + row), &nyx__erf_table[0][1], 8);
#else
  __m256d a = _mm256_castpd128_pd256(_mm_load_pd(nyx__erf_table[row[0]]));
  __m256d b = _mm256_castpd128_pd256(_mm_load_pd(nyx__erf_table[row[1]]));
  a = _mm256_insertf128_pd(a, _mm_load_pd(nyx__erf_table[row[2]]), 1);
  b = _mm256_insertf128_pd(b, _mm_load_pd(nyx__erf_table[row[3]]), 1);
  *value = (T)_mm256_unpacklo_pd(a, b);
  *slope = (T)_mm256_unpackhi_pd(a, b);
#endif
}
/* x + x P(x^2) below 1/2. From there on Taylor's series about the nearest multiple of
 * 1/32, whose terms are Hermite polynomials: erf(c + d) = erf(c) + slope (d +
 * g_1 d^2 + g_2 d^3 + ...), g_k = (-1)^k H_k(c) / (k + 1)!, where H_k = 2 c H_(k - 1) -
 * 2 (k - 1) H_(k - 2). */
NYX_BIG T nyx_erf(T x) {
  T size = nyx__min_or(K(NYX_ERF_MOST), nyx_abs(x));
  T p = NYX_POLY(size * size, 0x1.8b392953e878cp-20, -0x1.f22297bb6e88fp-17,
                 0x1.f98d9594d1fcfp-14, -0x1.c02d4ea4882cbp-11, 0x1.565bcbf5e93d7p-8,
                 -0x1.b82ce30f1f0a1p-6, 0x1.ce2f21a03d68fp-4, -0x1.812746b0379b3p-2,
                 0x1.06eba8214db68p-3);
  T near = nyx_fma(size, p, size);
  M high = nyx_ge(size, K(0.5)); /* not of a NaN, which would look up anything */
  if (!nyx__any(high)) return nyx__flip(near, x);
  T from = nyx_select(high, size, K(0.5)), shifted = from + K(NYX_TO_INT / 32);
  T c = shifted - K(NYX_TO_INT / 32), d = from - c, value, slope;
  nyx__erf_rows(((I)shifted & KI(0xff)) - KI(NYX_ERF_FIRST), &value, &slope);
  T g[8] = {K(1), -c}, s;
  for (int k = 2; k < 8; k++)
    g[k] = nyx_fma(c * K(-2.0 / (k + 1)), g[k - 1],
                   K(-2.0 * (k - 1) / (k * (k + 1))) * g[k - 2]);
  s = g[7];
  for (int k = 6; k >= 0; k--) s = nyx_fma(s, d, g[k]);
  return nyx__flip(nyx_select(high, nyx_fma(slope * d, s, value), near), x);
}
/* times erfc(t) for 0 <= t <= 27.3, where t^2 is square + low: e^-t^2 P(u) / (1 + 2 t), u
 * = (t - 4) / (t + 4), after Shepherd and Laframboise, "Chebyshev approximation of (1 +
 * 2x) exp(x^2) erfc x in 0 <= x < infinity" (1981). One division serves both. */
NYX_BIG T nyx__erfc_of(T t, T square, T low, T times) {
  T n = nyx_fma(square, K(-NYX_LOG2_E), K(NYX_TO_INT)) - K(NYX_TO_INT);
  T near = nyx_fma(n, K(-NYX_LN2), -square), less = nyx_fma(n, K(-NYX_LN2_LOW), -low);
  T r = near + less;
  low = nyx__lost(near, less, r);
  T e = K(1) + r, e_low = nyx__lost(K(1), r, e) + nyx_fma(r * r, nyx__exp_q(r), low);
  T twice = nyx_fma(t, K(2), K(1)), more = t + K(4), inverse = K(1) / (twice * more);
  T w = inverse * twice, u = nyx_fma(w, K(-8), K(1));
  T p =
      u * NYX_POLY(u, -0x1.ee830a9bac653p-30, -0x1.d4e204d5e8406p-27,
                   -0x1.0d6a119e441dep-27, 0x1.ee9307349b1b0p-24, 0x1.0e1298bbf9688p-24,
                   -0x1.c0286a21c0943p-21, 0x1.437ff191d734bp-22, 0x1.7fb1d51fff24bp-18,
                   -0x1.78a488f99f37cp-17, -0x1.9969e36fa976cp-16, 0x1.3be0ba402882fp-13,
                   -0x1.a1de864a40537p-13, -0x1.8d4a9e759c20cp-11, 0x1.49c671994cf97p-8,
                   -0x1.096238822d352p-6, 0x1.3079edf9d1b07p-5, -0x1.0fb06dfe4fa9bp-4,
                   0x1.7fee004df83f6p-4, -0x1.9ddb23c3e908ap-4, 0x1.16ecefcfa5f6ap-4,
                   0x1.f7f5df66fd7f4p-7, -0x1.1df1ad154a29bp-3);
  /* What u lost, times about P'(u). */
  T off = nyx_fma(t, K(1) - u, K(-4) * (K(1) + u)) * w;
  off *= NYX_POLY(u, 1.2436, -0.75095, -0.10986, 0.08915, -0.1238);
  T c = K(0x1.3ba5916e9fd7fp+0), top = c + p, top_low = nyx__lost(c, p, top) + off;
  T by = inverse * more, y = top * by;
  T one = nyx__lost(nyx__max_or(K(1), t + t), nyx__min_or(K(1), t + t), twice);
  T left = nyx_fma(-y, one, nyx_fma(-y, twice, top));
  T y_low = (left + top_low) * by;
  T value = nyx_fma(e, y, nyx_fma(e, y_low, e_low * y));
  return nyx__scale_down(value * times, n);
}
NYX_FN T nyx_erfc(T x) {
  T t = nyx__min_or(K(27.3), nyx_abs(x)), square = t * t;
  T value = nyx__erfc_of(t, square, nyx_fma(t, t, -square), K(1));
  return nyx__if_negative(x, K(2) - value, value);
}
NYX_FN T nyx_ndtr(T x) {
  T t = nyx__min_or(K(38.6), nyx_abs(x)), half = K(0.5) * t, square = half * t;
  T tail = nyx__erfc_of(t * K(0.70710678118654752440), square, nyx_fma(half, t, -square),
                        K(0.5));
  return nyx__if_negative(x, tail, K(1) - tail);
}

/* Powers: 2^(y log2(x)), the logarithm and its product with y in two parts. */

/* log2(x) of 0 < x < infinity, to 2^-65 of itself: with s = f / (2 + f), log(1 + f) =
 * 2 s (1 + s^2 / 3 + s^4 P(s^2)). */
NYX_FN T nyx__log2_two(T x, T *low) {
  T e, f = nyx__log_parts(x, &e), d = K(2) + f, d_low = nyx__lost(K(2), f, d);
  T inverse = K(1) / d, s = f * inverse;
  T s_low = nyx_fma(-s, d_low, nyx_fma(-s, d, f)) * inverse;
  T z = s * s, z_low = nyx_fma(s, s, -z) + K(2) * s * s_low;
  T p = NYX_POLY(z, 0x1.eb20970ad5457p-5, 0x1.de31960727444p-5, 0x1.1120c14f0c74cp-4,
                 0x1.3b1362686dc15p-4, 0x1.745d18337599cp-4, 0x1.c71c71c57e0a9p-4,
                 0x1.2492492493049p-3, 0x1.9999999999996p-3);
  T more = nyx_fma(z, p, K(0x1.5555555555555p-56)); /* what 1/3 loses */
  T third = K(0x1.5555555555555p-2) + more;
  T third_low = nyx__lost(K(0x1.5555555555555p-2), more, third);
  T a = z * third, a_low = nyx_fma(z, third, -a) + nyx_fma(z, third_low, z_low * third);
  T b = s * a, b_low = nyx_fma(s, a, -b) + nyx_fma(s, a_low, s_low * a);
  T h = s + b, l = nyx__lost(s, b, h) + (s_low + b_low);
  T scaled = h * K(2 * NYX_LOG2_E), sum = e + scaled;
  T rest = nyx_fma(h, K(2 * NYX_LOG2_E), -scaled);
  rest += nyx_fma(h, K(2 * NYX_LOG2_E_LOW), l * K(2 * NYX_LOG2_E));
  *low = nyx__lost(e, scaled, sum) + rest;
  return sum;
}
NYX_BIG T nyx__pow_any(T x, T y) {
  T size = nyx_abs(x), low, log2 = nyx__log2_two(size, &low);
  log2 = nyx_select(nyx_lt(size, K(INFINITY)), log2, size);
  log2 = nyx_select(nyx_eq(size, K(0)), K(-INFINITY), log2);
  T power = y * log2, rest = nyx_fma(y, low, nyx_fma(y, log2, -power));
  M within = nyx_lt(nyx_abs(power), K(1100));
  T cut = nyx__max_or(K(-1100), nyx__min_or(K(1100), power)), n = nyx_round(cut);
  rest = nyx_select(within, rest, K(0));
  T near = cut - n, r = near + rest; /* rest is below 2^-42, near may be 0 */
  T r_low = nyx_select(nyx_gt(nyx_abs(near), nyx_abs(rest)), nyx__lost(near, rest, r),
                       nyx__lost(rest, near, r));
  return nyx__pow_signs(x, y, nyx__scale_down(nyx__exp2_of(r, r_low), n));
}

/* The sum of squares is formed near 1 where it could overflow or lose digits. */
NYX_FN T nyx_hypot(T x, T y) {
  T a = nyx_abs(x), b = nyx_abs(y);
  M less = nyx_lt(a, b);
  T high = nyx_select(less, b, a), low = nyx_select(less, a, b);
  M huge = nyx_gt(high, K(0x1p500)), tiny = nyx_lt(high, K(0x1p-400));
  T by = nyx_select(huge, K(0x1p-600), nyx_select(tiny, K(0x1p600), K(1)));
  T back = nyx_select(huge, K(0x1p600), nyx_select(tiny, K(0x1p-600), K(1)));
  high *= by, low *= by;
  T value = nyx_sqrt(nyx_fma(high, high, low * low)) * back;
  return nyx_select(nyx_or(nyx_isinf(x), nyx_isinf(y)), K(INFINITY), value);
}

/* x - y trunc(x / y), exactly: below 2^52 the quotient is at most one off, and what is
 * left then has no more digits than y. */
NYX_LANEWISE2(NYX_APART, fmod_far, fmod)
NYX_FN T nyx_fmod(T x, T y) {
  T size = nyx_abs(x), by = nyx_abs(y), quotient = size / by;
  if (__builtin_expect(nyx__any(nyx_not(nyx_lt(quotient, K(0x1p52)))), 0))
    return nyx_fmod_far(x, y);
  T left = nyx_fma(-nyx_trunc(quotient), by, size);
  left = nyx_select(nyx_lt(left, K(0)), left + by, left);
  return nyx__flip(nyx_select(nyx_isinf(y), size, left), x);
}
