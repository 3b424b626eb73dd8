/* The loops over channels-last images of one element type T; included by last.c, once for
 * each. Plain loops over channels are left to the compiler, which makes vectors of them.
 */

#include "part_type.h"

#define TILE_COLS (TILE_VECTORS * LANES)
#define WIDE_COLS (WIDE_VECTORS * LANES)

#include "tile_type.h"

/* Products */

/* Columns j.. of places i.., fewer than a tile has. Not inlined: once for all heights, it
 * is long. */
static __attribute__((noinline)) void TYPED(store_edge)(int rows, int panel,
                                                        const nyx_last_product *p,
                                                        int64_t i, int64_t j,
                                                        const T *edge) {
  for (int r = 0; r < rows; r++) {
    T *to = (T *)p->c[i + r] + j;
    const T *from = edge + r * panel;
    for (int64_t q = 0; q < p->n - j; q++) to[q] = p->add ? to[q] + from[q] : from[q];
  }
}

/* A term of a tile, where element `left` is that of row r of A. */
#define TERM(left)                                                                       \
  do {                                                                                   \
    V right[WIDE_VECTORS];                                                               \
    UNROLL for (int v = 0; v < vectors; v++) {                                           \
      right[v] = LOAD(b + v * LANES);                                                    \
      __builtin_prefetch(b + AHEAD * panel + v * LANES);                                 \
    }                                                                                    \
    UNROLL for (int r = 0; r < rows; r++) TILE_ROW(r, vectors, sum[r], left, right);     \
  } while (0)

/* Places i.. and one panel of B, of `panel` columns, whose columns j.. are stored. rows,
 * vectors, panel and step are constants wherever this is used. step: runs of one term, of
 * rows so many elements apart, which need no registers each; 0: any. */
static ALWAYS_INLINE void TYPED(tile_of)(const int rows, const int vectors,
                                         const int panel, const int step,
                                         const nyx_last_product *p, int64_t i, int64_t j,
                                         const T *b) {
  V sum[TILE_ROWS][WIDE_VECTORS];
  const int64_t length = p->length, cols = p->n - j;
  const T *bias = p->bias ? (const T *)p->bias + j : NULL;
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int v = 0; v < vectors; v++) sum[r][v] =
        bias ? LOAD(bias + v * LANES) : (V){0};
  }
  const int64_t *const runs = p->run + p->runs;
  if (step) {
    const T *const first = p->a[i], *const later = first + p->ahead;
    for (const int64_t *run = p->run; run < runs; run++, b += panel) {
      const T *at = first + *run, *next = later + *run;
      UNROLL for (int r = 0; r < rows; r += 3) __builtin_prefetch(next + r * step, 0, 2);
      TERM(at + r * step);
    }
  } else {
    const T *a[TILE_ROWS];
    UNROLL for (int r = 0; r < rows; r++) a[r] = p->a[i + r];
    for (const int64_t *run = p->run; run < runs; run++)
      for (int64_t q = *run, end = q + length; q < end; q++, b += panel) TERM(a[r] + q);
  }
  if (cols >= vectors * LANES) {
    UNROLL for (int r = 0; r < rows; r++) {
      T *to = (T *)p->c[i + r] + j;
      UNROLL for (int v = 0; v < vectors; v++) {
        if (p->add) sum[r][v] += LOAD(to + v * LANES);
        STORE(to + v * LANES, sum[r][v]);
      }
    }
    return;
  }
  T edge[TILE_ROWS * WIDE_COLS] __attribute__((aligned(VECTOR_BYTES)));
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int v = 0; v < vectors; v++) {
      *(V *)(edge + r * panel + v * LANES) = sum[r][v];
    }
  }
  TYPED(store_edge)(rows, panel, p, i, j, edge);
}

static void TYPED(tile)(int64_t rows, const nyx_last_product *p, int64_t i, int64_t j,
                        const T *b) {
  switch (rows) {
#define CASE(count)                                                                      \
  case count:                                                                            \
    if (p->n - j > LANES)                                                                \
      TYPED(tile_of)(count, TILE_VECTORS, TILE_COLS, 0, p, i, j, b);                     \
    else                                                                                 \
      TYPED(tile_of)(count, 1, TILE_COLS, 0, p, i, j, b);                                \
    break;
    EACH_TILE_ROWS(CASE)
#undef CASE
  }
}

static void TYPED(product)(const nyx_last_product *p) {
  int64_t tiles = (p->m + TILE_ROWS - 1) / TILE_ROWS;
  int64_t rows = tiles ? (p->m + tiles - 1) / tiles : 1; /* of nearly equal height */
  const T *b = p->b;
  for (int64_t j = 0; j < p->n; j += TILE_COLS, b += p->runs * p->length * TILE_COLS)
    for (int64_t i = 0; i < p->m; i += rows)
      TYPED(tile)(p->m - i < rows ? p->m - i : rows, p, i, j, b);
}

/* Tiles of more columns and fewer rows. */
static void TYPED(wide_tile)(int64_t rows, const nyx_last_product *p, int64_t i,
                             int64_t j, const T *b) {
  switch (rows) {
#define CASE(count)                                                                      \
  case count:                                                                            \
    if (p->step == NYX_LAST_STEP)                                                        \
      TYPED(tile_of)(count, WIDE_VECTORS, WIDE_COLS, NYX_LAST_STEP, p, i, j, b);         \
    else                                                                                 \
      TYPED(tile_of)(count, WIDE_VECTORS, WIDE_COLS, 0, p, i, j, b);                     \
    break
    CASE(1);
    CASE(2);
    CASE(3);
#if WIDE_ROWS > 3
    CASE(4);
#endif
#if WIDE_ROWS > 4
    CASE(5);
    CASE(6);
    CASE(7);
    CASE(8);
    CASE(9);
#endif
#undef CASE
  }
}

static void TYPED(wide)(const nyx_last_product *p) {
  const T *b = p->b;
  for (int64_t j = 0; j < p->n; j += WIDE_COLS, b += p->runs * p->length * WIDE_COLS)
    for (int64_t i = 0; i < p->m; i += WIDE_ROWS)
      TYPED(wide_tile)(p->m - i < WIDE_ROWS ? p->m - i : WIDE_ROWS, p, i, j, b);
}

static void TYPED(place)(const void *const *from, int64_t count, int64_t first,
                         int64_t length, int64_t columns, int64_t depth, void *panels) {
  for (int64_t done = 0, n; done < length; done += n) {
    int64_t column = (first + done) % columns;
    T *to = (T *)panels + (first + done) / columns * columns * depth + column;
    n = length - done < columns - column ? length - done : columns - column;
    for (int64_t q = 0; q < count; q++, to += columns) {
      const T *at = from[q];
      if (at && n == TILE_COLS) {
        UNROLL for (int v = 0; v < TILE_VECTORS; v++)
            STORE(to + v * LANES, LOAD(at + done + v * LANES));
      } else {
        for (int64_t k = 0; k < n; k++) to[k] = at ? at[done + k] : 0;
      }
    }
  }
}

/* Depthwise */

/* Channels c.., a vector of them, of `count` neighbouring places: a constant. */
static ALWAYS_INLINE void TYPED(places)(const int count, const nyx_last_depthwise *p,
                                        int64_t i, int64_t c) {
  V sum[PLACES];
  const int64_t step = p->x_step;
  UNROLL for (int k = 0; k < count; k++) sum[k] =
      p->bias ? LOAD((const T *)p->bias + c) : (V){0};
  for (int64_t t = 0; t < p->taps; t++) {
    V w = LOAD((const T *)p->w[t] + c);
    const T *x = (const T *)p->x[t] + i * step + c;
    UNROLL for (int k = 0; k < count; k++) sum[k] += LOAD(x + k * step) * w;
  }
  T *y = (T *)p->y + i * p->y_step + c;
  UNROLL for (int k = 0; k < count; k++) STORE(y + k * p->y_step, sum[k]);
}

static void TYPED(depthwise)(const nyx_last_depthwise *p) {
  for (int64_t c = 0; c < p->channels; c += LANES) {
    if (p->channels < LANES) {
      for (int64_t i = 0; i < p->count; i++)
        for (int64_t k = 0; k < p->channels; k++) {
          T sum = p->bias ? ((const T *)p->bias)[k] : 0;
          for (int64_t t = 0; t < p->taps; t++)
            sum += ((const T *)p->x[t])[i * p->x_step + k] * ((const T *)p->w[t])[k];
          ((T *)p->y)[i * p->y_step + k] = sum;
        }
      return;
    }
    /* The last vector begins earlier, and writes some channels again. */
    int64_t at = c + LANES <= p->channels ? c : p->channels - LANES, i = 0;
    for (; i + PLACES <= p->count; i += PLACES) TYPED(places)(PLACES, p, i, at);
    for (; i + 2 <= p->count; i += 2) TYPED(places)(2, p, i, at);
    for (; i < p->count; i++) TYPED(places)(1, p, i, at);
  }
}

static void TYPED(products)(const void *x_, int64_t x_step, const void *g_,
                            int64_t g_step, int64_t count, int64_t channels, void *sum) {
  T *to = sum;
  int64_t c = 0;
  for (; c + LANES <= channels; c += LANES) {
    const T *x = (const T *)x_ + c, *g = (const T *)g_ + c;
    V s[4] = {{0}, {0}, {0}, {0}};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4, x += 4 * x_step, g += 4 * g_step) {
      UNROLL for (int k = 0; k < 4; k++) s[k] +=
          LOAD(x + k * x_step) * LOAD(g + k * g_step);
    }
    for (; i < count; i++, x += x_step, g += g_step) s[0] += LOAD(x) * LOAD(g);
    STORE(to + c, LOAD(to + c) + ((s[0] + s[1]) + (s[2] + s[3])));
  }
  for (; c < channels; c++) {
    T s = 0;
    for (int64_t i = 0; i < count; i++)
      s += ((const T *)x_)[i * x_step + c] * ((const T *)g_)[i * g_step + c];
    to[c] += s;
  }
}

/* Pooling */

#define CHUNK 256 /* channels at a time, whose positions stay in the first cache */

static void TYPED(max)(const void *const *x, const int32_t *at, int64_t taps,
                       int64_t channels, int64_t base, void *result, int64_t *index) {
  for (int64_t c = 0; c < channels; c += CHUNK) {
    int64_t n = channels - c < CHUNK ? channels - c : CHUNK;
    TINT best[CHUNK];
    T most[CHUNK];
    memcpy(most, (const T *)x[0] + c, (size_t)n * sizeof(T));
    for (int64_t k = 0; k < n; k++) best[k] = at[0];
    for (int64_t t = 1; t < taps; t++) {
      const T *from = (const T *)x[t] + c;
      const TINT here = at[t];
      for (int64_t k = 0; k < n; k++) {
        T value = from[k], before = most[k];
        bool more = !(value <= before) && before == before;
        most[k] = more ? value : before;
        best[k] = more ? here : best[k];
      }
    }
    memcpy((T *)result + c, most, (size_t)n * sizeof(T));
    for (int64_t k = 0; k < n; k++) index[c + k] = base + best[k];
  }
}

static void TYPED(average)(const void *from, const nyx_last_box *box, int64_t channels,
                           double divisor, void *result) {
  const T by = (T)divisor;
  for (int64_t c = 0; c < channels; c += CHUNK) {
    int64_t n = channels - c < CHUNK ? channels - c : CHUNK;
    T all[CHUNK], row[CHUNK];
    memset(all, 0, sizeof all);
    for (int64_t i = 0; i < box->rows; i++) {
      memset(row, 0, sizeof row);
      for (int64_t j = 0; j < box->cols; j++) {
        const T *x = (const T *)from + i * box->row_step + j * box->col_step + c;
        for (int64_t k = 0; k < n; k++) row[k] += x[k];
      }
      for (int64_t k = 0; k < n; k++) all[k] += row[k];
    }
    T *to = (T *)result + c;
    for (int64_t k = 0; k < n; k++) to[k] = all[k] / by;
  }
}

static void TYPED(spread)(const void *from, const nyx_last_box *box, int64_t channels,
                          double divisor, void *result) {
  const T by = (T)divisor;
  for (int64_t c = 0; c < channels; c += CHUNK) {
    int64_t n = channels - c < CHUNK ? channels - c : CHUNK;
    T part[CHUNK];
    for (int64_t k = 0; k < n; k++) part[k] = ((const T *)from)[c + k] / by;
    for (int64_t i = 0; i < box->rows; i++) {
      for (int64_t j = 0; j < box->cols; j++) {
        T *to = (T *)result + i * box->row_step + j * box->col_step + c;
        for (int64_t k = 0; k < n; k++) to[k] += part[k];
      }
    }
  }
}

/* Batch norm: WIDE vectors of channels at a time, whose sums and factors stay in
 * registers while the places go by; then single vectors, then what is left. */

#define WIDE 4
#define EACH(c, call)                                                                    \
  for (; c + WIDE * LANES <= channels; c += WIDE * LANES) call(WIDE);                    \
  for (; c + LANES <= channels; c += LANES) call(1)

static ALWAYS_INLINE void TYPED(moments_of)(const int n, const T *x, int64_t rows,
                                            int64_t step, T *mean, T *squares) {
  V m[WIDE], s[WIDE];
  UNROLL for (int v = 0; v < n; v++) m[v] = s[v] = (V){0};
  for (int64_t i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < n; v++) m[v] += LOAD(x + i * step + v * LANES);
  }
  UNROLL for (int v = 0; v < n; v++) m[v] /= (T)rows;
  for (int64_t i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < n; v++) {
      V d = LOAD(x + i * step + v * LANES) - m[v];
      s[v] += d * d;
    }
  }
  UNROLL for (int v = 0; v < n; v++) {
    STORE(mean + v * LANES, m[v]);
    STORE(squares + v * LANES, s[v]);
  }
}

static void TYPED(moments)(const void *x_, int64_t rows, int64_t channels, void *mean_,
                           void *squares_) {
  const T *x = x_;
  T *mean = mean_, *squares = squares_;
  int64_t c = 0;
#define MOMENTS(n) TYPED(moments_of)(n, x + c, rows, channels, mean + c, squares + c)
  EACH(c, MOMENTS);
#undef MOMENTS
  for (; c < channels; c++) {
    T sum = 0, square = 0;
    for (int64_t i = 0; i < rows; i++) sum += x[i * channels + c];
    mean[c] = sum / (T)rows;
    for (int64_t i = 0; i < rows; i++) {
      T d = x[i * channels + c] - mean[c];
      square += d * d;
    }
    squares[c] = square;
  }
}

static ALWAYS_INLINE void TYPED(sums_of)(const int n, const T *g, const T *x,
                                         const T *mean, int64_t rows, int64_t step,
                                         T *sum, T *dot) {
  V m[WIDE], s[WIDE], d[WIDE];
  UNROLL for (int v = 0; v < n; v++) {
    m[v] = LOAD(mean + v * LANES);
    s[v] = d[v] = (V){0};
  }
  for (int64_t i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < n; v++) {
      const int64_t at = i * step + v * LANES;
      V u = LOAD(g + at);
      s[v] += u;
      d[v] += u * (LOAD(x + at) - m[v]);
    }
  }
  UNROLL for (int v = 0; v < n; v++) {
    STORE(sum + v * LANES, s[v]);
    STORE(dot + v * LANES, d[v]);
  }
}

static void TYPED(sums)(const void *g_, const void *x_, const void *mean_, int64_t rows,
                        int64_t channels, void *sum_, void *dot_) {
  const T *g = g_, *x = x_, *mean = mean_;
  T *sum = sum_, *dot = dot_;
  int64_t c = 0;
#define SUMS(n)                                                                          \
  TYPED(sums_of)(n, g + c, x + c, mean + c, rows, channels, sum + c, dot + c)
  EACH(c, SUMS);
#undef SUMS
  for (; c < channels; c++) {
    T s = 0, d = 0;
    for (int64_t i = 0; i < rows; i++) {
      T u = g[i * channels + c];
      s += u;
      d += u * (x[i * channels + c] - mean[c]);
    }
    sum[c] = s;
    dot[c] = d;
  }
}

static ALWAYS_INLINE void TYPED(normalize_of)(const int n, const T *x, int64_t rows,
                                              int64_t step, const T *mean, const T *scale,
                                              const T *shift, T *y) {
  V m[WIDE], k[WIDE], s[WIDE];
  UNROLL for (int v = 0; v < n; v++) {
    m[v] = LOAD(mean + v * LANES);
    k[v] = LOAD(scale + v * LANES);
    s[v] = LOAD(shift + v * LANES);
  }
  for (int64_t i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < n; v++) {
      const int64_t at = i * step + v * LANES;
      __builtin_prefetch(y + at + NEXT, 1);
      STORE(y + at, (LOAD(x + at) - m[v]) * k[v] + s[v]);
    }
  }
}

static void TYPED(normalize)(const void *x_, int64_t rows, int64_t channels,
                             const void *mean_, const void *scale_, const void *shift_,
                             void *y_) {
  const T *x = x_, *mean = mean_, *scale = scale_, *shift = shift_;
  T *y = y_;
  int64_t c = 0;
#define NORMALIZE(n)                                                                     \
  TYPED(normalize_of)(n, x + c, rows, channels, mean + c, scale + c, shift + c, y + c)
  EACH(c, NORMALIZE);
#undef NORMALIZE
  for (; c < channels; c++)
    for (int64_t i = 0; i < rows; i++)
      y[i * channels + c] = (x[i * channels + c] - mean[c]) * scale[c] + shift[c];
}

static ALWAYS_INLINE void TYPED(backward_of)(const int n, const T *g, const T *x,
                                             int64_t rows, int64_t step, const T *mean,
                                             const T *p, const T *q, const T *r, T *y) {
  V m[WIDE], kp[WIDE], kq[WIDE], kr[WIDE];
  UNROLL for (int v = 0; v < n; v++) {
    m[v] = LOAD(mean + v * LANES);
    kp[v] = LOAD(p + v * LANES);
    kq[v] = LOAD(q + v * LANES);
    kr[v] = LOAD(r + v * LANES);
  }
  for (int64_t i = 0; i < rows; i++) {
    UNROLL for (int v = 0; v < n; v++) {
      const int64_t at = i * step + v * LANES;
      __builtin_prefetch(y + at + NEXT, 1);
      STORE(y + at, LOAD(g + at) * kp[v] + ((LOAD(x + at) - m[v]) * kq[v] + kr[v]));
    }
  }
}

static void TYPED(backward)(const void *g_, const void *x_, int64_t rows,
                            int64_t channels, const void *mean_, const void *p_,
                            const void *q_, const void *r_, void *y_) {
  const T *g = g_, *x = x_, *mean = mean_, *p = p_, *q = q_, *r = r_;
  T *y = y_;
  int64_t c = 0;
#define BACKWARD(n)                                                                      \
  TYPED(backward_of)                                                                     \
  (n, g + c, x + c, rows, channels, mean + c, p + c, q + c, r + c, y + c)
  EACH(c, BACKWARD);
#undef BACKWARD
  for (; c < channels; c++)
    for (int64_t i = 0; i < rows; i++) {
      const int64_t at = i * channels + c;
      y[at] = g[at] * p[c] + ((x[at] - mean[c]) * q[c] + r[c]);
    }
}

#undef V
#undef LANES
#undef LOAD
#undef STORE
#undef TILE_COLS
#undef WIDE_COLS
#undef TILE_ROW
#undef TERM
#undef CHUNK
#undef WIDE
#undef EACH
