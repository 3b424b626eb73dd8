/* The loops of a convolution over one element type T; included by conv_cpu.c, once for
 * each. A column matrix has one row for each (channel, tap) and one column for each
 * output position of a tile. */

/* Copies of a few elements, without a call. */
static inline void TYPED(copy)(T *to, const T *from, int64_t n) {
  enum { STEP = 16 / sizeof(T) };
  if (n > 256) {
    memcpy(to, from, sizeof(T) * (size_t)n);
    return;
  }
  int64_t q = 0;
  for (; q + STEP <= n; q += STEP) memcpy(to + q, from + q, 16);
  for (; q < n; q++) to[q] = from[q];
}

/* to[q * step] += from[q] */
static inline void TYPED(add_spread)(T *restrict to, const T *restrict from, int64_t n,
                                     int64_t step) {
  if (step == 1) {
    for (int64_t q = 0; q < n; q++) to[q] += from[q];
  } else {
    for (int64_t q = 0; q < n; q++) to[q * step] += from[q];
  }
}

/* One tap of a tile: which output columns see the input, and where. */
typedef struct TYPED(tap) {
  int64_t y_lo, y_hi, x_lo, x_hi; /* output positions for which it is inside */
  int64_t y, x;                   /* input position of output (0, 0), may be outside */
} TYPED(tap);

static TYPED(tap) TYPED(tap_at)(const nyx__conv *v, int64_t t) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  int64_t i = t / wx->kernel, j = t % wx->kernel;
  TYPED(tap) tap = {.y = i * wy->dilation - wy->pad, .x = j * wx->dilation - wx->pad};
  nyx__window_inside(wy, i, &tap.y_lo, &tap.y_hi);
  nyx__window_inside(wx, j, &tap.x_lo, &tap.x_hi);
  return tap;
}

/* Positions p0..p1-1 of one plane, as one row of the column matrix. */
static void TYPED(gather_tap)(const nyx__conv *v, const TYPED(tap) * tap, const T *plane,
                              int64_t p0, int64_t p1, T *to) {
  const int64_t width = v->window[1].out, step = v->window[1].stride;
  const int64_t x_lo = tap->x_lo, x_hi = tap->x_hi, y_lo = tap->y_lo, y_hi = tap->y_hi;
  const int64_t row = v->window[0].stride * v->window[1].in;
  int64_t oy = p0 / width, begin = p0 % width, left = p1 - p0;
  const T *from = plane + (v->window[0].stride * oy + tap->y) * v->window[1].in + tap->x;
  for (; left > 0; oy++, begin = 0, from += row) {
    int64_t end = begin + left < width ? begin + left : width, o = begin;
    int64_t lo = x_lo > begin ? x_lo : begin, hi = x_hi < end ? x_hi : end;
    left -= end - begin;
    if (oy >= y_lo && oy < y_hi && lo < hi) {
      for (; o < lo; o++) *to++ = 0;
      if (step == 1) {
        TYPED(copy)(to, from + lo, hi - lo);
      } else {
        for (int64_t q = 0; q < hi - lo; q++) to[q] = from[(lo + q) * step];
      }
      to += hi - lo;
      o = hi;
    }
    for (; o < end; o++) *to++ = 0;
  }
}

/* The column matrix of `channels` planes, `plane` elements apart: rows are ld apart. */
static void TYPED(gather)(const nyx__conv *v, const void *planes, int64_t channels,
                          int64_t plane, int64_t p0, int64_t p1, void *columns,
                          int64_t ld) {
  int64_t taps = v->window[0].kernel * v->window[1].kernel;
  for (int64_t t = 0; t < taps; t++) {
    TYPED(tap) tap = TYPED(tap_at)(v, t);
    for (int64_t c = 0; c < channels; c++) {
      TYPED(gather_tap)
      (v, &tap, (const T *)planes + c * plane, p0, p1,
       (T *)columns + (c * taps + t) * ld);
    }
  }
}

/* The adjoint of gather_tap: adds the row to the plane. */
static void TYPED(spread_tap)(const nyx__conv *v, const TYPED(tap) * tap, T *plane,
                              int64_t p0, int64_t p1, const T *from) {
  const int64_t width = v->window[1].out, step = v->window[1].stride;
  const int64_t row = v->window[0].stride * v->window[1].in;
  int64_t oy = p0 / width, begin = p0 % width, left = p1 - p0;
  T *to = plane + (v->window[0].stride * oy + tap->y) * v->window[1].in + tap->x;
  for (; left > 0; oy++, begin = 0, to += row) {
    int64_t end = begin + left < width ? begin + left : width;
    int64_t lo = tap->x_lo > begin ? tap->x_lo : begin;
    int64_t hi = tap->x_hi < end ? tap->x_hi : end;
    if (oy >= tap->y_lo && oy < tap->y_hi && lo < hi) {
      TYPED(add_spread)(to + lo * step, from + (lo - begin), hi - lo, step);
    }
    from += end - begin;
    left -= end - begin;
  }
}

/* Three taps side by side in steps of two, as of most kernels that halve an image: the
 * first of one position meets the last of the one before. from: rows ld apart. */
static inline void TYPED(add_three)(T *restrict to, const T *restrict from, int64_t ld,
                                    int64_t n) {
  const T *restrict middle = from + ld, *restrict last = from + 2 * ld;
  to[0] += from[0];
  for (int64_t q = 0; q < n - 1; q++) {
    to[2 * q + 1] += middle[q];
    to[2 * q + 2] += last[q] + from[q + 1];
  }
  to[2 * n - 1] += middle[n - 1];
  to[2 * n] += last[n - 1];
}

/* Such rows of a kernel; where one is outside, tap by tap. */
static void TYPED(spread_three)(const nyx__conv *v, const TYPED(tap) tap[3], T *plane,
                                int64_t p0, int64_t p1, const T *from, int64_t ld) {
  const int64_t width = v->window[1].out, row = v->window[0].stride * v->window[1].in;
  const int64_t x_lo = tap[0].x_lo, x_hi = tap[2].x_hi;
  int64_t oy = p0 / width, begin = p0 % width, left = p1 - p0;
  T *to = plane + (v->window[0].stride * oy + tap->y) * v->window[1].in + tap->x;
  for (; left > 0; oy++, begin = 0, to += row) {
    int64_t end = begin + left < width ? begin + left : width;
    int64_t lo = x_lo > begin ? x_lo : begin, hi = x_hi < end ? x_hi : end;
    if (oy >= tap->y_lo && oy < tap->y_hi) {
      if (lo < hi) TYPED(add_three)(to + 2 * lo, from + (lo - begin), ld, hi - lo);
      for (int64_t o = begin; o < end; o++) {
        if (o == lo && lo < hi) o = hi; /* done */
        for (int64_t j = 0; o < end && j < 3; j++) {
          if (o >= tap[j].x_lo && o < tap[j].x_hi)
            to[2 * o + j] += from[j * ld + o - begin];
        }
      }
    }
    from += end - begin;
    left -= end - begin;
  }
}

/* The adjoint of gather. */
static void TYPED(spread)(const nyx__conv *v, void *planes, int64_t channels,
                          int64_t plane, int64_t p0, int64_t p1, const void *columns,
                          int64_t ld) {
  const nyx__window *wx = &v->window[1];
  int64_t taps = v->window[0].kernel * wx->kernel;
  bool threes = wx->stride == 2 && wx->kernel == 3 && wx->dilation == 1;
  for (int64_t t = 0; threes && t < taps; t += 3) {
    const TYPED(tap)
        tap[] = {TYPED(tap_at)(v, t), TYPED(tap_at)(v, t + 1), TYPED(tap_at)(v, t + 2)};
    for (int64_t c = 0; c < channels; c++) {
      TYPED(spread_three)
      (v, tap, (T *)planes + c * plane, p0, p1, (const T *)columns + (c * taps + t) * ld,
       ld);
    }
  }
  for (int64_t t = 0; !threes && t < taps; t++) {
    TYPED(tap) tap = TYPED(tap_at)(v, t);
    for (int64_t c = 0; c < channels; c++) {
      TYPED(spread_tap)
      (v, &tap, (T *)planes + c * plane, p0, p1,
       (const T *)columns + (c * taps + t) * ld);
    }
  }
}

/* Rows of `n` elements set to one value each, `ld` apart. */
static void TYPED(fill_rows)(void *to, const void *values, int64_t rows, int64_t n,
                             int64_t ld) {
  for (int64_t r = 0; r < rows; r++) {
    T value = ((const T *)values)[r], *row = (T *)to + r * ld;
    for (int64_t q = 0; q < n; q++) row[q] = value;
  }
}

/* to += from */
static void TYPED(accumulate)(void *to, const void *from, int64_t n) {
  T *restrict t = to;
  const T *restrict f = from;
  for (int64_t q = 0; q < n; q++) t[q] += f[q];
}

static const loops TYPED(loops) = {TYPED(gather), TYPED(spread), TYPED(fill_rows),
                                   TYPED(accumulate)};
