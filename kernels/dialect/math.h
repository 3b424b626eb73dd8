/* The functions of float vectors: float32 has the polynomials of math32.h, float64 those
 * of math64.h where the path has fma, else libm, lane by lane. What they share is here.
 * Included by vector.h. */

#if NYX_T_BITS == 32
#define NYX_LIBM(name) name##f
#else
#define NYX_LIBM(name) name
#endif
/* A function of libm on every lane. `how` is NYX_FN, or NYX_APART for what is rare. */
#define NYX_APART static __attribute__((noinline, unused, const))
#define NYX_LANEWISE1(how, name, function)                                               \
  how T nyx_##name(T x) {                                                                \
    T r = x;                                                                             \
    for (int i = 0; i < NYX_LANES; i++) r[i] = NYX_LIBM(function)(x[i]);                 \
    return r;                                                                            \
  }
#define NYX_LANEWISE2(how, name, function)                                               \
  how T nyx_##name(T x, T y) {                                                           \
    T r = x;                                                                             \
    for (int i = 0; i < NYX_LANES; i++) r[i] = NYX_LIBM(function)(x[i], y[i]);           \
    return r;                                                                            \
  }

NYX_LANEWISE1(NYX_APART, sin_far, sin)
NYX_LANEWISE1(NYX_APART, cos_far, cos)
NYX_LANEWISE1(NYX_APART, tan_far, tan)
/* The value, but libm's where |x| is beyond the reduction. A lane's result does not
 * depend on its neighbours. */
#define NYX_UNLESS_FAR(x, value, function)                                               \
  do {                                                                                   \
    M far = nyx_gt(nyx_abs(x), K(NYX_ANGLE_LIMIT));                                      \
    if (__builtin_expect(nyx__any(far), 0))                                              \
      return nyx_select(far, function(nyx_select(far, x, K(0))), value);                 \
    return value;                                                                        \
  } while (0)

/* x^y, given |x|^y, with what C says of ones, signs and roots of negative numbers. */
NYX_FN T nyx__pow_signs(T x, T y, T value) {
  M one = nyx_or(nyx_eq(y, K(0)), nyx_eq(nyx_abs(x), K(1)));
  value = nyx_select(one, K(1), value);
  if (!nyx__any((M)((I)x & KI(NYX_SIGN)))) return value;
  T whole = nyx_floor(y), half = y * K(0.5);
  M integer = nyx_eq(whole, y), odd = nyx_and(integer, nyx_ne(nyx_floor(half), half));
  value = (T)((I)value | ((I)x & odd & KI(NYX_SIGN)));
  M root = nyx_and(nyx_lt(x, K(0)), nyx_and(nyx_gt(x, K(-INFINITY)), nyx_not(integer)));
  return nyx_select(root, K(NAN), value);
}

#if NYX_T_BITS == 32
#include "math32.h"
#elif defined(__AVX2__)
#include "math64.h"
#else
NYX_LANEWISE1(NYX_FN, exp, exp)
NYX_FN T nyx__exp_negative(T x) {
  return nyx_exp(x);
}
NYX_LANEWISE1(NYX_FN, exp2, exp2)
NYX_LANEWISE1(NYX_FN, expm1, expm1)
NYX_LANEWISE1(NYX_FN, log, log)
NYX_LANEWISE1(NYX_FN, log1p, log1p)
NYX_LANEWISE1(NYX_FN, log2, log2)
NYX_LANEWISE1(NYX_FN, log10, log10)
NYX_LANEWISE1(NYX_FN, sin, sin)
NYX_LANEWISE1(NYX_FN, cos, cos)
NYX_LANEWISE1(NYX_FN, tan, tan)
NYX_LANEWISE1(NYX_FN, asin, asin)
NYX_LANEWISE1(NYX_FN, acos, acos)
NYX_LANEWISE1(NYX_FN, atan, atan)
NYX_LANEWISE2(NYX_FN, atan2, atan2)
NYX_LANEWISE1(NYX_FN, sinh, sinh)
NYX_LANEWISE1(NYX_FN, cosh, cosh)
NYX_LANEWISE1(NYX_FN, tanh, tanh)
NYX_LANEWISE1(NYX_FN, asinh, asinh)
NYX_LANEWISE1(NYX_FN, acosh, acosh)
NYX_LANEWISE1(NYX_FN, atanh, atanh)
NYX_LANEWISE1(NYX_FN, erf, erf)
NYX_LANEWISE1(NYX_FN, erfc, erfc)
NYX_FN T nyx_ndtr(T x) {
  return K(0.5) * nyx_erfc(x * K(-0.70710678118654752440));
}
NYX_LANEWISE2(NYX_FN, _pow_any, pow)
NYX_LANEWISE2(NYX_FN, hypot, hypot)
NYX_LANEWISE2(NYX_FN, fmod, fmod)
#endif

/* e^-|x| does not overflow, and keeps small results exact. With AVX-512 that is left to
 * lanes that need it, as e^-x takes fewer instructions. */
NYX_FN T nyx_sigmoid(T x) {
#if defined(__AVX512F__) && NYX_T_BITS == 32
  T size = nyx_abs(x), near = K(1) / (K(1) + nyx__exp_normal(-x));
  if (__builtin_expect(!nyx__any_lt(K(87), size), 1)) return near;
#endif
  T e = nyx__exp_negative(nyx__minus_abs(x));
  T value = nyx__if_negative(x, e, K(1)) / (K(1) + e);
#if defined(__AVX512F__) && NYX_T_BITS == 32
  value = nyx_select(nyx_gt(size, K(87)), value, near);
#endif
  return value;
}

#if defined(__AVX2__)
/* x^3 with what both products lost, unless that is less than the least numbers. */
#define NYX_CUBE_LEAST (NYX_T_BITS == 32 ? 0x1p-36 : 0x1p-330)
NYX_FN T nyx__cube(T x) {
  T square = x * x, cube = square * x;
  T lost = nyx_fma(square, x, -cube) + nyx_fma(x, x, -square) * x, whole = cube + lost;
  return nyx_select(nyx_isfinite(whole), whole, cube);
}
#endif

/* The powers people write most take a few instructions; every lane gets the same value
 * whatever its neighbours are. */
NYX_FN T nyx__pow_known(T x, T y) {
  M square = nyx_eq(y, K(2)), root = nyx_eq(y, K(0.5)), same = nyx_eq(y, K(1));
  M inverse = nyx_eq(y, K(-1)), one = nyx_eq(y, K(0));
  T quick = nyx_select(square, x * x, nyx_select(same, x, K(1)));
  M known = nyx_or(nyx_or(square, same), one);
  if (nyx__any(nyx_or(root, inverse))) {
    quick = nyx_select(inverse, nyx_reciprocal(x), quick);
    quick = nyx_select(root, nyx_sqrt(x + K(0)), quick); /* -0 becomes 0 */
    root = nyx_and(root, nyx_ne(x, K(-INFINITY)));
    known = nyx_or(known, nyx_or(inverse, root));
  }
#if defined(__AVX2__)
  M third = nyx_and(nyx_eq(y, K(3)), nyx_ge(nyx_abs(x), K(NYX_CUBE_LEAST)));
  if (nyx__any(third)) {
    quick = nyx_select(third, nyx__cube(x), quick);
    known = nyx_or(known, third);
  }
#endif
  if (!nyx__any(nyx_not(known))) return quick;
  return nyx_select(known, quick, nyx__pow_any(x, y));
}
#if NYX_T_BITS == 64 && defined(__AVX2__)
NYX_FN T nyx_pow(T x, T y) {
  return nyx__pow_known(x, y);
}
#else
static __attribute__((noinline, unused, const)) T nyx__pow_apart(T x, T y) {
  return nyx__pow_known(x, y);
}
/* Whether any of those powers is asked for costs as much as a quarter of a power on the
 * base path, so first it is seen that no y is a multiple of 1/2. */
NYX_FN T nyx_pow(T x, T y) {
  T twice = y + y;
#if NYX_T_BITS == 32
  T whole = __builtin_convertvector(__builtin_convertvector(twice, I), T);
  M plain = nyx_and(nyx_and(nyx_gt(x, K(0)), nyx_lt(x, K(INFINITY))), nyx_ne(x, K(1)));
  M apart = nyx_or(nyx_not(plain), nyx_eq(twice, whole));
#else
  T whole = (twice + K(0x1.8p52)) - K(0x1.8p52); /* right for small ones, as those are */
  M apart = nyx_eq(twice, whole);
#endif
  if (__builtin_expect(nyx__any(apart), 0)) return nyx__pow_apart(x, y);
#if NYX_T_BITS == 32
  return nyx__pow_positive(x, y);
#else
  return nyx__pow_any(x, y);
#endif
}
#endif

/* Whether the remainder of x / y has the sign of x where y has the other. */
NYX_FN M nyx__crosses(T left, T y) {
  return nyx_and(nyx_ne(left, K(0)), nyx_xor(nyx_lt(left, K(0)), nyx_lt(y, K(0))));
}
NYX_FN T nyx_remainder(T x, T y) {
  T left = nyx_fmod(x, y);
  return nyx_select(nyx__crosses(left, y), left + y, left);
}
#if NYX_T_BITS == 64
NYX_FN T nyx_floor_divide(T x, T y) {
  T left = nyx_fmod(x, y), quotient = nyx_round((x - left) / y);
  quotient = nyx_select(nyx__crosses(left, y), quotient - K(1), quotient);
  quotient = nyx_select(nyx_eq(quotient, K(0)), nyx__with_sign(K(0), x / y), quotient);
  return nyx_select(nyx_eq(y, K(0)), x / y, quotient);
}
#endif

#include "special.h"
