/* Products of complex numbers over one element type T; included by complex.c, once for
 * each. */

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
