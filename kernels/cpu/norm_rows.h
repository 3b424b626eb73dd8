/* The kernels of norm.h over one float type: included by norm_<type>.c, which chooses the
 * type and NORM_KERNEL, the symbol. Rows are short beside what memory needs to answer:
 * the first pass over something asks for what lies AHEAD of it, in most cases the next
 * row. Read next: norm.h, softmax_lanes.h. */
#include "cpu.h"
#include "norm.h"
#include "softmax_lanes.h"

/* Elements added up in the type itself before the sum goes to double. */
#define SUM_BLOCK 1024
#define AHEAD (4096 / (int64_t)sizeof(S)) /* elements */

NYX_FN T weighted(const S *g, const S *w, int64_t i, int64_t part) {
  T v = load_lanes(g + i, part);
  return w ? v * load_lanes(w + i, part) : v;
}

NYX_FN void normalize_row(const S *x, int64_t n, T mean, T scale, const S *w, const S *b,
                          T shift, S *y) {
  EACH_VECTOR(i, part, 0, n) {
    __builtin_prefetch(y + i + AHEAD, 1);
    T v = (load_lanes(x + i, part) - mean) * scale;
    if (w) v *= load_lanes(w + i, part);
    if (b) v += load_lanes(b + i, part);
    store_lanes(y + i, part, v + shift);
  }
}

static void normalize(const void *x, int64_t n, double mean_, double scale_,
                      const void *w, const void *b, double shift_, void *y) {
  T mean = nyx__attr(mean_), scale = nyx__attr(scale_), shift = nyx__attr(shift_);
  if (w && b)
    normalize_row(x, n, mean, scale, w, b, shift, y);
  else if (w)
    normalize_row(x, n, mean, scale, w, NULL, shift, y);
  else
    normalize_row(x, n, mean, scale, NULL, b, shift, y);
}

/* Lanes beyond `part` hold no g, which makes them 0. */
NYX_FN void sums_of(const S *g, const S *x, const S *w, int64_t n, T mean, double *sum,
                    double *dot) {
  for (int64_t from = 0; from < n; from += SUM_BLOCK) {
    int64_t end = from + SUM_BLOCK < n ? from + SUM_BLOCK : n, i = from;
    T s = K(0), d = K(0), s2 = K(0), d2 = K(0);
    for (; i + 2 * NYX_LANES <= end; i += 2 * NYX_LANES) {
      const int64_t j = i + NYX_LANES;
      __builtin_prefetch(g + i + AHEAD);
      __builtin_prefetch(g + j + AHEAD);
      T u = weighted(g, w, i, NYX_LANES), v = weighted(g, w, j, NYX_LANES);
      s += u;
      s2 += v;
      d = nyx_fma(u, nyx__load(x + i) - mean, d);
      d2 = nyx_fma(v, nyx__load(x + j) - mean, d2);
    }
    EACH_VECTOR(j, part, i, end) {
      T u = weighted(g, w, j, part);
      s += u;
      d = nyx_fma(u, load_lanes(x + j, part) - mean, d);
    }
    *sum += (double)total(s + s2);
    *dot += (double)total(d + d2);
  }
}

static void sums(const void *g, const void *x, const void *w, int64_t n, double mean,
                 double *sum, double *dot) {
  if (w)
    sums_of(g, x, w, n, nyx__attr(mean), sum, dot);
  else
    sums_of(g, x, NULL, n, nyx__attr(mean), sum, dot);
}

NYX_FN void backward_of(const S *g, const S *x, const S *w, int64_t n, int rows,
                        int64_t step, const nyx_norm_row *row, S *y, int64_t y_step,
                        S *w_sum, S *b_sum, bool first) {
  const bool near = y_step != step; /* y is, in a room: the next rows are not */
  const int64_t ahead = rows * y_step <= 4 * AHEAD ? rows * y_step : AHEAD;
  T mean[NYX_NORM_ROWS], p[NYX_NORM_ROWS], q[NYX_NORM_ROWS], r[NYX_NORM_ROWS];
  for (int k = 0; k < rows; k++) {
    mean[k] = nyx__attr(row[k].mean);
    p[k] = nyx__attr(row[k].p);
    q[k] = nyx__attr(row[k].q);
    r[k] = nyx__attr(row[k].r);
  }
  EACH_VECTOR(i, part, 0, n) {
    T weight = w ? load_lanes(w + i, part) : K(1), s = K(0), b = K(0);
    for (int k = 0; k < rows; k++) {
      const int64_t at = k * step + i;
      S *to = y + k * y_step + i;
      if (near) {
        __builtin_prefetch(g + at + rows * step, 0, 2);
        __builtin_prefetch(x + at + rows * step, 0, 2);
      } else {
        __builtin_prefetch(to + ahead, 1);
      }
      T v = load_lanes(g + at, part), d = load_lanes(x + at, part) - mean[k];
      T scaled = v * p[k];
      b += v;
      s = nyx_fma(scaled, d, s);
      store_lanes(to, part, nyx_fma(scaled, weight, nyx_fma(d, q[k], r[k])));
    }
    if (!w_sum) continue;
    if (!first) {
      s += load_lanes(w_sum + i, part);
      b += load_lanes(b_sum + i, part);
    }
    store_lanes(w_sum + i, part, s);
    store_lanes(b_sum + i, part, b);
  }
}

static void backward(const void *g, const void *x, const void *w, int64_t n, int rows,
                     int64_t step, const nyx_norm_row *row, void *y, int64_t y_step,
                     void *w_sum, void *b_sum, bool first) {
  if (rows == NYX_NORM_ROWS && w_sum && w)
    backward_of(g, x, w, n, NYX_NORM_ROWS, step, row, y, y_step, w_sum, b_sum, first);
  else if (rows == NYX_NORM_ROWS && w)
    backward_of(g, x, w, n, NYX_NORM_ROWS, step, row, y, y_step, NULL, NULL, first);
  else if (w_sum)
    backward_of(g, x, w, n, rows, step, row, y, y_step, w_sum, b_sum, first);
  else
    backward_of(g, x, w, n, rows, step, row, y, y_step, NULL, NULL, first);
}

static double squares(const void *from, int64_t n) {
  const S *x = from;
  double sum = 0;
  for (int64_t start = 0; start < n; start += SUM_BLOCK) {
    int64_t end = start + SUM_BLOCK < n ? start + SUM_BLOCK : n, i = start;
    T s[4] = {K(0), K(0), K(0), K(0)};
    for (; i + 4 * NYX_LANES <= end; i += 4 * NYX_LANES)
      for (int k = 0; k < 4; k++) {
        T v = nyx__load(x + i + k * NYX_LANES);
        __builtin_prefetch(x + i + k * NYX_LANES + AHEAD);
        s[k] = nyx_fma(v, v, s[k]);
      }
    EACH_VECTOR(j, part, i, end) {
      T v = load_lanes(x + j, part);
      s[0] = nyx_fma(v, v, s[0]);
    }
    sum += (double)total((s[0] + s[1]) + (s[2] + s[3]));
  }
  return sum;
}

static void add(const void *from, int64_t n, void *to) {
  const S *x = from;
  S *y = to;
  EACH_VECTOR(i, part, 0, n) {
    store_lanes(y + i, part, load_lanes(y + i, part) + load_lanes(x + i, part));
  }
}

extern const nyx_norm_kernel NORM_KERNEL;
const nyx_norm_kernel NORM_KERNEL = {.normalize = normalize,
                                     .sums = sums,
                                     .backward = backward,
                                     .squares = squares,
                                     .add = add};
