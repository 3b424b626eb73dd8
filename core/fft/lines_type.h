/* What long and odd lines need beside passes, over one element type T; included by
 * lines.c, once for each. Numbers are pairs of T. */

/* to[k] = a[k] b[k], or its conjugate's parts exchanged: for the inverse. */
static void TYPED(multiply)(int64_t n, const T *a, const T *b, T *to) {
  for (int64_t k = 0; k < 2 * n; k += 2) {
    T re = a[k] * b[k] - a[k + 1] * b[k + 1], im = a[k] * b[k + 1] + a[k + 1] * b[k];
    to[k] = re, to[k + 1] = im;
  }
}

/* A line into n numbers side by side, the others of them, up to `room`, zeros. `have` are
 * there: of real lines all n, of half ones n / 2 + 1. */
static void TYPED(gather_line)(nyx_fft_kind kind, bool exchange, int64_t n, const T *from,
                               int64_t step, T *to, int64_t room) {
  int64_t have = kind == NYX_FFT_TO_REAL ? n / 2 + 1 : n;
  for (int64_t k = 0; k < have; k++, from += step) {
    to[2 * k] = from[0];
    to[2 * k + 1] = kind == NYX_FFT_FROM_REAL ? 0 : from[1];
  }
  if (kind == NYX_FFT_TO_REAL) {
    to[1] = 0;
    if (n % 2 == 0) to[n + 1] = 0;
    for (int64_t k = have; k < n; k++)
      to[2 * k] = to[2 * (n - k)], to[2 * k + 1] = -to[2 * (n - k) + 1];
  }
  for (int64_t k = 0; exchange && k < n; k++) {
    T re = to[2 * k];
    to[2 * k] = to[2 * k + 1], to[2 * k + 1] = re;
  }
  for (int64_t k = 2 * n; k < 2 * room; k++) to[k] = 0;
}

static void TYPED(scatter_line)(nyx_fft_kind kind, bool exchange, int64_t n, double scale,
                                const T *from, T *to, int64_t step) {
  int64_t wanted = kind == NYX_FFT_FROM_REAL ? n / 2 + 1 : n;
  const T by = (T)scale;
  int real = exchange ? 1 : 0;
  for (int64_t k = 0; k < wanted; k++, to += step) {
    to[0] = from[2 * k + real] * by;
    if (kind != NYX_FFT_TO_REAL) to[1] = from[2 * k + 1 - real] * by;
  }
}

/* The chirp e^(-i pi k^2 / n), and for k = 0..room-1 its conjugate, around 0. */
static void TYPED(make_chirp)(int64_t n, int64_t room, T *chirp, T *around) {
  for (int64_t k = 0; k < 2 * room; k++) around[k] = 0;
  for (int64_t k = 0, square = 0; k < n; square = (square + 2 * k + 1) % (2 * n), k++) {
    nyx__fft_root(square, 2 * n, sizeof(T) == sizeof(double), chirp + 2 * k);
    around[2 * k] = chirp[2 * k], around[2 * k + 1] = -chirp[2 * k + 1];
    if (k) memcpy(around + 2 * (room - k), around + 2 * k, 2 * sizeof(T));
  }
}
