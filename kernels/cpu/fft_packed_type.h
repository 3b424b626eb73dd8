/* Lines that lie in one piece, several lanes each, over one element type T; included by
 * fft_type.h. Of n = rows x columns numbers column c, every columns-th number from c, is
 * in a lane: the passes transform it. Then each row, turned out of the lanes, is times
 * roots of one and transformed itself (the six steps of Bailey, "FFTs in external or
 * hierarchical memory", 1990, within registers). The lanes of a vector are the columns of
 * one line, or of several, one after the other. */

/* Blocks of `columns` lanes transposed: row i then has block i of every row before. */
static ALWAYS_INLINE void TYPED(transpose_blocks)(V *row, const int columns) {
  const int lines = LANES / columns;
  UNROLL for (int step = columns; step < LANES; step *= 2) {
    const int other = step / columns;
    UNROLL for (int i = 0; i < lines; i++) {
      if (i & other) continue;
      V a = row[i], b = row[i + other];
      row[i] = TYPED(exchange)(a, b, step, false);
      row[i + other] = TYPED(exchange)(a, b, step, true);
    }
  }
}

/* Lines of n numbers into a room: from memory (parts by turns), or from the other room,
 * where each has its real parts before its imaginary ones. */
static ALWAYS_INLINE void TYPED(load_columns)(const nyx_fft_lines *j, const int columns,
                                              const T *apart, int64_t n, bool exchange,
                                              N *x) {
  enum { MOST = LANES };
  const int lines = LANES / columns;
  for (int64_t at = 0; at < n; at += LANES) {
    if (at + LANES > n) at = n - LANES; /* some rows once more */
    V re[MOST], im[MOST];
    UNROLL for (int g = 0; g < lines; g++) {
      const T *line = apart ? apart + (g < j->count ? g : 0) * 2 * n
                            : (const T *)j->from + j->from_at[g];
      N v = apart ? (N){LOAD(line + at), LOAD(line + n + at)}
                  : TYPED(load_numbers)(line + 2 * at);
      v = TYPED(exchanged)(v, exchange);
      re[g] = v.re, im[g] = v.im;
    }
    TYPED(transpose_blocks)(re, columns);
    TYPED(transpose_blocks)(im, columns);
    UNROLL for (int g = 0; g < lines; g++) x[at / columns + g] = (N){re[g], im[g]};
  }
}

/* The rows' transforms, to memory, or to `apart`, as load_columns has it. */
static ALWAYS_INLINE void TYPED(store_rows)(const nyx_fft_lines *j, const int columns,
                                            T *apart, bool exchange, const N *x) {
  const int64_t rows = j->passes->n;
  const int lines = LANES / columns;
  const T *w = j->passes->turn, scale = (T)j->scale;
  for (int64_t at = 0; at < rows; at += LANES) {
    if (at + LANES > rows) at = rows - LANES; /* some once more */
    V re[LANES], im[LANES];
    UNROLL for (int l = 0; l < LANES; l++) re[l] = x[at + l].re;
    TYPED(transpose)(re);
    UNROLL for (int l = 0; l < LANES; l++) im[l] = x[at + l].im;
    TYPED(transpose)(im);
    UNROLL for (int g = 0; g < lines; g++) {
      if (g >= j->count) break;
      N v[LANES];
      v[0] = (N){re[g * columns], im[g * columns]};
      UNROLL for (int c = 1; c < columns; c++) {
        const T *root = w + (c - 1) * 2 * rows + at;
        v[c] = TYPED(times)((N){re[g * columns + c], im[g * columns + c]},
                            (N){LOAD(root), LOAD(root + rows)});
      }
      TYPED(transform)(columns, columns, NULL, v);
      T *line = apart ? apart + g * 2 * rows * columns : (T *)j->to + j->to_at[g];
      UNROLL for (int c = 0; c < columns; c++) {
        const int64_t k = at + c * rows;
        if (apart) {
          STORE(line + k, v[c].re);
          STORE(line + columns * rows + k, v[c].im);
          continue;
        }
        N r = TYPED(exchanged)(v[c], exchange);
        if (scale != 1) r = (N){r.re * scale, r.im * scale};
        TYPED(store_numbers)(line + 2 * k, r);
      }
    }
  }
}

/* Numbers k, k + 1, ... of m: parts `apart` or by turns. */
static ALWAYS_INLINE N TYPED(numbers_at)(const T *z, bool apart, int64_t m, int64_t k) {
  return apart ? (N){LOAD(z + k), LOAD(z + m + k)} : TYPED(load_numbers)(z + 2 * k);
}
static ALWAYS_INLINE void TYPED(put_numbers)(T *z, bool apart, int64_t m, int64_t k,
                                             N v) {
  if (!apart) {
    TYPED(store_numbers)(z + 2 * k, v);
    return;
  }
  STORE(z + k, v.re);
  STORE(z + m + k, v.im);
}

/* Half of the spectrum of n = 2 m real numbers from that of m complex ones, z: those at
 * even places as real, at odd ones as imaginary parts. z[k] + conj z[m - k] is twice the
 * transform of the former, z[k] - conj z[m - k] 2i times that of the latter. For k =
 * begin..end-1 from 1..m/2, and m - k; the first has 0 and m too. */
static ALWAYS_INLINE void TYPED(take_apart)(int64_t m, int64_t begin, int64_t end,
                                            double scale, const T *w, bool apart,
                                            const T *z, T *to) {
  const T by = (T)(0.5 * scale), re = z[0], im = z[apart ? m : 1];
  if (begin == 1) {
    to[0] = (re + im) * (T)scale, to[1] = 0;
    to[2 * m] = (re - im) * (T)scale, to[2 * m + 1] = 0;
  }
  for (int64_t k = begin; k < end; k += LANES) {
    if (k + LANES > end) k = end - LANES; /* some once more */
    const int64_t mirror = m - k - LANES + 1;
    N a = TYPED(numbers_at)(z, apart, m, k);
    N b = TYPED(turned)(TYPED(numbers_at)(z, apart, m, mirror));
    b.im = -b.im;
    N even = TYPED(plus)(a, b);
    N odd = TYPED(times)(TYPED(minus)(a, b), TYPED(load_numbers)(w + 2 * k));
    N low = TYPED(minus_i)(even, odd), high = TYPED(plus_i)(even, odd);
    TYPED(store_numbers)(to + 2 * k, (N){low.re * by, low.im * by});
    high = TYPED(turned)((N){high.re * by, -high.im * by});
    TYPED(store_numbers)(to + 2 * mirror, high);
  }
}

/* The opposite, twice; where parts are apart they are exchanged, for the inverse. */
static ALWAYS_INLINE void TYPED(put_together)(int64_t m, int64_t begin, int64_t end,
                                              const T *w, const T *from, bool apart,
                                              T *z) {
  if (begin == 1) {
    z[apart ? m : 0] = from[0] + from[2 * m];
    z[apart ? 0 : 1] = from[0] - from[2 * m];
  }
  for (int64_t k = begin; k < end; k += LANES) {
    if (k + LANES > end) k = end - LANES;
    const int64_t mirror = m - k - LANES + 1;
    N a = TYPED(load_numbers)(from + 2 * k);
    N b = TYPED(turned)(TYPED(load_numbers)(from + 2 * mirror));
    N root = TYPED(load_numbers)(w + 2 * k);
    b.im = -b.im, root.im = -root.im;
    N even = TYPED(plus)(a, b), odd = TYPED(times)(TYPED(minus)(a, b), root);
    N low = TYPED(plus_i)(even, odd), high = TYPED(turned)(TYPED(minus_i)(even, odd));
    high.im = -high.im;
    TYPED(put_numbers)(z, apart, m, k, TYPED(exchanged)(low, apart));
    TYPED(put_numbers)(z, apart, m, mirror, TYPED(exchanged)(high, apart));
  }
}

static void TYPED(halves)(nyx_fft_kind kind, int64_t m, int64_t begin, int64_t end,
                          double scale, const void *turn, const void *from, void *to) {
  if (kind == NYX_FFT_FROM_REAL)
    TYPED(take_apart)(m, begin, end, scale, turn, false, from, to);
  else
    TYPED(put_together)(m, begin, end, turn, from, false, to);
}

static ALWAYS_INLINE void TYPED(packed)(const nyx_fft_lines *j, const int columns) {
  const int64_t m = j->passes->n * columns;
  const bool inverse = j->kind == NYX_FFT_TO_REAL || j->inverse;
  TYPED(ends) ends = {0};
  N *x = j->room[0], *other = j->room[1];
  if (j->kind == NYX_FFT_TO_REAL) {
    T *apart = (T *)other;
    for (int g = 0; g < j->count; g++) {
      const T *from = (const T *)j->from + j->from_at[g];
      TYPED(put_together)(m, 1, m / 2 + 1, j->turn, from, true, apart + g * 2 * m);
    }
    TYPED(load_columns)(j, columns, apart, m, false, x);
  } else if (columns < LANES) {
    TYPED(load_columns)(j, columns, NULL, m, inverse, x);
  } else {
    ends.from = (const T *)j->from + j->from_at[0];
    ends.from_step = 2 * LANES;
    ends.exchange_from = inverse;
  }
  x = TYPED(run_passes)(j->passes, &ends, x, other);
  if (j->kind != NYX_FFT_FROM_REAL) {
    TYPED(store_rows)(j, columns, NULL, inverse, x);
    return;
  }
  T *apart = x == (N *)j->room[0] ? j->room[1] : j->room[0];
  TYPED(store_rows)(j, columns, apart, false, x);
  for (int g = 0; g < j->count; g++) {
    T *to = (T *)j->to + j->to_at[g];
    TYPED(take_apart)(m, 1, m / 2 + 1, j->scale, j->turn, true, apart + g * 2 * m, to);
  }
}

static void TYPED(packed_lines)(const nyx_fft_lines *j) {
  if (j->passes->columns == LANES)
    TYPED(packed)(j, LANES);
  else if (LANES > 8 && j->passes->columns == 8)
    TYPED(packed)(j, 8);
  else
    TYPED(packed)(j, LANES < 4 ? LANES : 4);
}
