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
NYX_FN T nyx_min(T a, T b) {
  return nyx_select(nyx_lt(b, a), b, a);
}
NYX_FN T nyx_max(T a, T b) {
  return nyx_select(nyx_gt(b, a), b, a);
}
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
/* Quotient towards zero and what remains, of one element. */
static inline S nyx__quotient1(S a, S b) {
  return b == 0 ? 0 : b == -1 ? (S)(0 - (SU)a) : a / b;
}
static inline S nyx__left1(S a, S b) {
  return b == 0 || b == -1 ? 0 : a % b;
}

#define NYX_LANEWISE2(name, expression)                                                  \
  static __attribute__((noinline, unused, const)) T nyx_##name(T x, T y) {               \
    T r;                                                                                 \
    for (int i = 0; i < NYX_LANES; i++) {                                                \
      const S a = x[i], b = y[i];                                                        \
      r[i] = (expression);                                                               \
    }                                                                                    \
    return r;                                                                            \
  }

static inline S nyx__floor_divide1(S a, S b) {
  S q = nyx__quotient1(a, b), left = nyx__left1(a, b);
  return (S)(q - (left != 0 && (left < 0) != (b < 0)));
}
static inline S nyx__remainder1(S a, S b) {
  S left = nyx__left1(a, b);
  return left != 0 && (left < 0) != (b < 0) ? (S)(left + b) : left;
}
/* a to the power b; 1 / a^-b cut to an integer when b is negative. */
static inline S nyx__pow1(S a, S b) {
  SU power = 1, square = (SU)a;
  if (b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
  for (SU e = (SU)b; e; e >>= 1, square *= square)
    if (e & 1) power *= square;
  return (S)power;
}
NYX_LANEWISE2(floor_divide, nyx__floor_divide1(a, b))
NYX_LANEWISE2(remainder, nyx__remainder1(a, b))
NYX_LANEWISE2(fmod, nyx__left1(a, b))
NYX_LANEWISE2(pow, nyx__pow1(a, b))
#endif
