/* The dialect on GPUs, put before every row in OpenCL C 1.2, CUDA C++ and HIP. The
 * launcher defines T (float, double, int or long), NYX_T_FLOAT or NYX_T_INT as 1,
 * NYX_T_BITS (32 or 64). T is a scalar and a mask an int, 0 or 1. Self-contained: it is
 * embedded as a string. Meaning of the functions: README.md. */
/* clang-format off */
#if defined(__CUDACC__) || defined(__HIPCC__) || defined(__CUDACC_RTC__) ||              \
    defined(__HIPCC_RTC__)
#define NYX_FN static __device__ __forceinline__
#else
#define NYX_FN static inline
#endif
#define K(c) ((T)(c))
#define M int

NYX_FN M nyx_lt(T a, T b) { return a < b; }
NYX_FN M nyx_le(T a, T b) { return a <= b; }
NYX_FN M nyx_gt(T a, T b) { return a > b; }
NYX_FN M nyx_ge(T a, T b) { return a >= b; }
NYX_FN M nyx_eq(T a, T b) { return a == b; }
NYX_FN M nyx_ne(T a, T b) { return a != b; }
NYX_FN M nyx_and(M a, M b) { return a & b; }
NYX_FN M nyx_or(M a, M b) { return a | b; }
NYX_FN M nyx_xor(M a, M b) { return a ^ b; }
NYX_FN M nyx_not(M a) { return !a; }
NYX_FN T nyx_select(M m, T a, T b) { return m ? a : b; }

NYX_FN T nyx_neg(T a) { return -a; }
NYX_FN T nyx_square(T a) { return a * a; }
NYX_FN T nyx_sign(T a) { return a < K(0) ? K(-1) : a > K(0) ? K(1) : a; }

#if defined(NYX_T_FLOAT)

#define NYX_LOWEST K(-INFINITY)
#define NYX_HIGHEST K(INFINITY)

NYX_FN T nyx_min(T a, T b) { return a != a || a < b ? a : b; }
NYX_FN T nyx_max(T a, T b) { return a != a || a > b ? a : b; }
NYX_FN T nyx_abs(T a) { return fabs(a); }
NYX_FN T nyx_fma(T a, T b, T c) { return fma(a, b, c); }
NYX_FN T nyx_sqrt(T a) { return sqrt(a); }
NYX_FN T nyx_rsqrt(T a) { return K(1) / sqrt(a); }
NYX_FN T nyx_reciprocal(T a) { return K(1) / a; }
NYX_FN T nyx_floor(T a) { return floor(a); }
NYX_FN T nyx_ceil(T a) { return ceil(a); }
NYX_FN T nyx_round(T a) { return rint(a); }
NYX_FN T nyx_trunc(T a) { return trunc(a); }
NYX_FN M nyx_isnan(T a) { return a != a; }
NYX_FN M nyx_isinf(T a) { return fabs(a) == K(INFINITY); }
NYX_FN M nyx_isfinite(T a) { return fabs(a) < K(INFINITY); }
NYX_FN M nyx_signbit(T a) { return signbit(a) != 0; }
NYX_FN T nyx_exp(T a) { return exp(a); }
NYX_FN T nyx_exp2(T a) { return exp2(a); }
NYX_FN T nyx_expm1(T a) { return expm1(a); }
NYX_FN T nyx_log(T a) { return log(a); }
NYX_FN T nyx_log1p(T a) { return log1p(a); }
NYX_FN T nyx_log2(T a) { return log2(a); }
NYX_FN T nyx_log10(T a) { return log10(a); }
NYX_FN T nyx_sin(T a) { return sin(a); }
NYX_FN T nyx_cos(T a) { return cos(a); }
NYX_FN T nyx_tan(T a) { return tan(a); }
NYX_FN T nyx_asin(T a) { return asin(a); }
NYX_FN T nyx_acos(T a) { return acos(a); }
NYX_FN T nyx_atan(T a) { return atan(a); }
NYX_FN T nyx_atan2(T a, T b) { return atan2(a, b); }
NYX_FN T nyx_sinh(T a) { return sinh(a); }
NYX_FN T nyx_cosh(T a) { return cosh(a); }
NYX_FN T nyx_tanh(T a) { return tanh(a); }
NYX_FN T nyx_asinh(T a) { return asinh(a); }
NYX_FN T nyx_acosh(T a) { return acosh(a); }
NYX_FN T nyx_atanh(T a) { return atanh(a); }
NYX_FN T nyx_erf(T a) { return erf(a); }
NYX_FN T nyx_erfc(T a) { return erfc(a); }
NYX_FN T nyx_ndtr(T a) { return K(0.5) * erfc(a * K(-0.70710678118654752440)); }
NYX_FN T nyx_lgamma(T a) { return lgamma(a); }
NYX_FN T nyx_nextafter(T a, T b) { return nextafter(a, b); }
NYX_FN T nyx_exponent(T a) {
  int n;
  (void)frexp(a, &n);
  return nyx_isfinite(a) ? (T)n : K(0);
}
NYX_FN T nyx_pow(T a, T b) { return pow(a, b); }
NYX_FN T nyx_hypot(T a, T b) { return hypot(a, b); }
NYX_FN T nyx_sigmoid(T a) {
  T e = exp(-fabs(a));
  return (a < K(0) ? e : K(1)) / (K(1) + e);
}
NYX_FN T nyx_fmod(T a, T b) { return fmod(a, b); }
NYX_FN T nyx_remainder(T a, T b) {
  T left = fmod(a, b);
  return left != K(0) && (left < K(0)) != (b < K(0)) ? left + b : left;
}
NYX_FN T nyx_floor_divide(T a, T b) {
  T left = fmod(a, b), quotient = rint((a - left) / b);
  if (left != K(0) && (left < K(0)) != (b < K(0))) quotient -= K(1);
  return b == K(0) ? a / b : quotient == K(0) ? copysign(K(0), a / b) : quotient;
}

#else

#if NYX_T_BITS == 32
#define NYX_HIGHEST K(0x7fffffff)
#else
#define NYX_HIGHEST K(0x7fffffffffffffff)
#endif
#define NYX_LOWEST (-NYX_HIGHEST - K(1))

NYX_FN T nyx_min(T a, T b) { return a < b ? a : b; }
NYX_FN T nyx_max(T a, T b) { return a > b ? a : b; }
NYX_FN T nyx_abs(T a) { return a < K(0) ? -a : a; }
NYX_FN T nyx_fma(T a, T b, T c) { return a * b + c; }
NYX_FN T nyx_floor(T a) { return a; }
NYX_FN T nyx_ceil(T a) { return a; }
NYX_FN T nyx_round(T a) { return a; }
NYX_FN T nyx_trunc(T a) { return a; }
NYX_FN M nyx_isnan(T a) { return (void)a, 0; }
NYX_FN M nyx_isinf(T a) { return (void)a, 0; }
NYX_FN M nyx_isfinite(T a) { return (void)a, 1; }
NYX_FN M nyx_signbit(T a) { return a < K(0); }
NYX_FN T nyx_bitwise_and(T a, T b) { return a & b; }
NYX_FN T nyx_bitwise_or(T a, T b) { return a | b; }
NYX_FN T nyx_bitwise_xor(T a, T b) { return a ^ b; }
NYX_FN T nyx_bitwise_not(T a) { return ~a; }
NYX_FN T nyx_bitwise_left_shift(T a, T b) {
  return b >= K(0) && b < K(NYX_T_BITS) ? a << (b & (NYX_T_BITS - 1)) : K(0);
}
NYX_FN T nyx_bitwise_right_shift(T a, T b) {
  return a >> (b >= K(0) && b < K(NYX_T_BITS) ? b : K(NYX_T_BITS - 1));
}
NYX_FN T nyx_quotient(T a, T b) { return b == K(0) ? K(0) : b == K(-1) ? -a : a / b; }
NYX_FN T nyx_fmod(T a, T b) { return b == K(0) || b == K(-1) ? K(0) : a % b; }
NYX_FN T nyx_remainder(T a, T b) {
  T left = nyx_fmod(a, b);
  return left != K(0) && (left < K(0)) != (b < K(0)) ? left + b : left;
}
NYX_FN T nyx_floor_divide(T a, T b) {
  T left = nyx_fmod(a, b);
  return nyx_quotient(a, b) - (left != K(0) && (left < K(0)) != (b < K(0)) ? K(1) : K(0));
}
NYX_FN T nyx_pow(T a, T b) {
  T power = K(1);
  if (b < K(0)) return a == K(1) ? K(1) : a == K(-1) ? ((b & K(1)) ? K(-1) : K(1)) : K(0);
  for (; b > K(0); b >>= 1, a *= a)
    if (b & K(1)) power *= a;
  return power;
}

#endif
