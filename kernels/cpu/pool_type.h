/* Max pooling over one element type T: for the outputs of a row whose windows lie inside,
 * tap by tap, so that neighbouring outputs are compared together; those at the border one
 * by one. Positions are kept in TINT, which is as wide as T, relative to the first window
 * of a chunk. */

/* The greatest so far of `count` neighbouring outputs against one tap of each, the i-th
 * `stride` after the one before. */
static ALWAYS_INLINE void TYPED(take)(const T *restrict from, int64_t stride, TINT at,
                                      int64_t count, T *restrict most,
                                      TINT *restrict best) {
  for (int64_t i = 0; i < count; i++) {
    T value = from[i * stride], before = most[i];
    bool more = !(value <= before) && before == before; /* a NaN is, once */
    most[i] = more ? value : before;
    best[i] = more ? at : best[i];
  }
}

/* Outputs first..first+count-1 of a row, at most CHUNK, all taps of which are inside. */
static void TYPED(max_chunk)(const nyx_max_pool *p, const T *from, int64_t rows,
                             int64_t first, int64_t count, int64_t at, int64_t *index,
                             T *to) {
  const int64_t stride = p->stride[1], row = p->dilation[0] * p->in[1];
  TINT best[CHUNK] = {0};
  from += first * stride - p->pad[1];
  for (int64_t i = 0; i < count; i++) to[i] = from[i * stride];
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < p->kernel[1]; j++) {
      int64_t shift = i * row + j * p->dilation[1];
      if (stride == 1)
        TYPED(take)(from + shift, 1, (TINT)shift, count, to, best);
      else if (stride == 2)
        TYPED(take)(from + shift, 2, (TINT)shift, count, to, best);
      else
        TYPED(take)(from + shift, stride, (TINT)shift, count, to, best);
    }
  }
  at += first * stride - p->pad[1];
  for (int64_t i = 0; i < count; i++) index[i] = at + i * stride + best[i];
}

/* One output, whose taps t of row i are inside for lo <= t < hi. */
static void TYPED(max_one)(const nyx_max_pool *p, const T *from, int64_t rows, int64_t x,
                           int64_t lo, int64_t hi, int64_t at, int64_t *index, T *to) {
  int64_t best = x + lo * p->dilation[1];
  T most = from[best];
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = lo; j < hi; j++) {
      int64_t here = i * p->dilation[0] * p->in[1] + x + j * p->dilation[1];
      if (!(from[here] <= most) && most == most) {
        most = from[here];
        best = here;
      }
    }
  }
  *to = most;
  *index = at + best;
}

/* The taps lo..hi-1 of output o that are inside, and where the first would be. */
static int64_t TYPED(inside)(const nyx_max_pool *p, int i, int64_t o, int64_t *lo,
                             int64_t *hi) {
  int64_t start = o * p->stride[i] - p->pad[i], dilation = p->dilation[i];
  *lo = start < 0 ? (-start + dilation - 1) / dilation : 0;
  *hi = p->kernel[i];
  if (start + (*hi - 1) * dilation >= p->in[i])
    *hi = (p->in[i] - start + dilation - 1) / dilation;
  return start;
}

static void TYPED(max_plane)(const nyx_max_pool *p, const void *plane, int64_t base,
                             void *result, int64_t *index) {
  /* Positions in a window are numbers of the type TINT where this is so. */
  bool small = (double)p->kernel[0] * (double)p->dilation[0] * (double)p->in[1] < 1e9;
  T *to = result;
  for (int64_t oy = 0; oy < p->out[0]; oy++, to += p->out[1], index += p->out[1]) {
    int64_t lo, hi, y = TYPED(inside)(p, 0, oy, &lo, &hi);
    int64_t rows = hi - lo, at = rows > 0 ? (y + lo * p->dilation[0]) * p->in[1] : 0;
    const T *from = (const T *)plane + at;
    for (int64_t ox = 0; ox < p->out[1];) {
      int64_t x = TYPED(inside)(p, 1, ox, &lo, &hi), count = 0;
      if (rows < 1 || lo >= hi) { /* all of a small plane lies in a gap of the window */
        to[ox] = -(T)INFINITY;
        index[ox++] = base;
      } else if (small && lo == 0 && hi == p->kernel[1]) {
        int64_t last = p->in[1] - 1 - (p->kernel[1] - 1) * p->dilation[1] + p->pad[1];
        count = last / p->stride[1] + 1 - ox;
        if (count > p->out[1] - ox) count = p->out[1] - ox;
        if (count > CHUNK) count = CHUNK;
        TYPED(max_chunk)(p, from, rows, ox, count, at + base, index + ox, to + ox);
        ox += count;
      } else {
        TYPED(max_one)(p, from, rows, x, lo, hi, at + base, index + ox, to + ox);
        ox++;
      }
    }
  }
}
