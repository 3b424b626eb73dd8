/* Products and quotients of complex numbers over one element type T; included by
 * complex.c, once for each. */

static ALWAYS_INLINE void TYPED(multiply_steps)(int64_t n, const T *restrict x,
                                                const int64_t x_step, const T *restrict y,
                                                const int64_t y_step, const T sign,
                                                T *restrict to) {
  for (int64_t k = 0; k < n; k++) {
    const T *a = x + 2 * k * x_step, *b = y + 2 * k * y_step;
    T im = sign * b[1];
    to[2 * k] = a[0] * b[0] - a[1] * im;
    to[2 * k + 1] = a[0] * im + a[1] * b[0];
  }
}

/* The bits of a power of two, and where they begin. */
#define EXPONENT_AT (sizeof(T) == sizeof(float) ? 23 : 52)
#define EXPONENT_BIAS (sizeof(T) == sizeof(float) ? 127 : 1023)
#define POWER(e) ((TINT)(EXPONENT_BIAS + (e)) << EXPONENT_AT)

/* 2^-e for a size in [2^(e-1), 2^e), or what comes nearest. */
static ALWAYS_INLINE T TYPED(scale_of)(T size) {
  const TINT least = POWER(1 - EXPONENT_BIAS), most = POWER(EXPONENT_BIAS - 2);
  T low, high, scale;
  TINT bits;
  memcpy(&low, &least, sizeof low);
  memcpy(&high, &most, sizeof high);
  size = size > low ? size : low;
  size = size < high ? size : high;
  memcpy(&bits, &size, sizeof bits);
  bits = POWER(EXPONENT_BIAS - 1) - (bits & POWER(EXPONENT_BIAS + 1));
  memcpy(&scale, &bits, sizeof scale);
  return scale;
}

/* x / y: by the square of |y|, after both are scaled so that y's larger part is between
 * 1/2 and 1 and no square or product overflows that the quotient does not. By 0: x times
 * infinity; by a number with one infinite part: 0. */
static ALWAYS_INLINE void TYPED(divide_steps)(int64_t n, const T *restrict x,
                                              const int64_t x_step, const T *restrict y,
                                              const int64_t y_step, const T sign,
                                              T *restrict to) {
  const T infinity = (T)INFINITY;
  for (int64_t k = 0; k < n; k++) {
    const T *a = x + 2 * k * x_step, *b = y + 2 * k * y_step;
    T p = b[0], q = sign * b[1];
    T p_size = p > -p ? p : -p, q_size = q > -q ? q : -q;
    T most = p_size > q_size ? p_size : q_size;
    T least = p_size > q_size ? q_size : p_size;
    T scale = TYPED(scale_of)(most), none = least * 0;
    p *= scale, q *= scale;
    T by = 1 / (p * p + q * q);
    T re = a[0] * scale, im = a[1] * scale;
    p = most == infinity ? none : p * by, q = most == infinity ? none : q * by;
    p = most == 0 ? infinity : p, q = most == 0 ? 0 : q;
    to[2 * k] = re * p + im * q;
    to[2 * k + 1] = im * p - re * q;
  }
}

static void TYPED(divide)(int64_t n, const void *x, int64_t x_step, const void *y,
                          int64_t y_step, bool conj, void *to) {
  const T sign = conj ? -1 : 1;
  if (x_step && y_step)
    TYPED(divide_steps)(n, x, 1, y, 1, sign, to);
  else if (x_step)
    TYPED(divide_steps)(n, x, 1, y, 0, sign, to);
  else
    TYPED(divide_steps)(n, x, 0, y, y_step ? 1 : 0, sign, to);
}

#undef EXPONENT_AT
#undef EXPONENT_BIAS
#undef POWER

static void TYPED(multiply)(int64_t n, const void *x, int64_t x_step, const void *y,
                            int64_t y_step, bool conj, void *to) {
  const T sign = conj ? -1 : 1;
  if (x_step && y_step)
    TYPED(multiply_steps)(n, x, 1, y, 1, sign, to);
  else if (x_step)
    TYPED(multiply_steps)(n, x, 1, y, 0, sign, to);
  else
    TYPED(multiply_steps)(n, x, 0, y, y_step ? 1 : 0, sign, to);
}

/* re[k] and im[k] times x[k] of n pairs. */
static ALWAYS_INLINE void TYPED(prod_steps)(int64_t n, const T *restrict x,
                                            T *restrict re, T *restrict im) {
  for (int64_t k = 0; k < n; k++) {
    const T a = re[k], b = im[k], p = x[2 * k], q = x[2 * k + 1];
    re[k] = a * p - b * q;
    im[k] = a * q + b * p;
  }
}

static void TYPED(prod)(int64_t n, const void *from, void *to) {
  const T *x = from;
  T re[SIDE_BY_SIDE] = {1}, im[SIDE_BY_SIDE] = {0}, *out = to;
  int64_t all = n < SIDE_BY_SIDE ? n : SIDE_BY_SIDE, i = all;
  for (int64_t k = 0; k < all; k++) re[k] = x[2 * k], im[k] = x[2 * k + 1];
  for (; i + SIDE_BY_SIDE <= n; i += SIDE_BY_SIDE)
    TYPED(prod_steps)(SIDE_BY_SIDE, x + 2 * i, re, im);
  TYPED(prod_steps)(n - i, x + 2 * i, re, im);
  for (int64_t half; all > 1; all -= half) {
    half = all / 2;
    for (int64_t k = 0, other = all - half; k < half; k++, other++) {
      const T a = re[k], b = im[k];
      re[k] = a * re[other] - b * im[other];
      im[k] = a * im[other] + b * re[other];
    }
  }
  out[0] = re[0], out[1] = im[0];
}

static void TYPED(matrix)(int64_t rows, int64_t n, const void *from, void *to) {
  for (int64_t r = 0; r < rows; r++) {
    const T *restrict x = (const T *)from + 2 * n * r;
    T *restrict same = (T *)to + 4 * n * r, *restrict turned = same + 2 * n;
    for (int64_t k = 0; k < n; k++) {
      same[2 * k] = x[2 * k], same[2 * k + 1] = x[2 * k + 1];
      turned[2 * k] = -x[2 * k + 1], turned[2 * k + 1] = x[2 * k];
    }
  }
}
