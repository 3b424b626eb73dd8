/* The kernels of softmax.h over one float type: included by softmax_<type>.c, which
 * chooses the type and SOFTMAX_KERNEL, the symbol. Read next: softmax.h,
 * softmax_lanes.h. */
#include <string.h>

#include "cpu.h"
#include "softmax.h"
#include "softmax_lanes.h"

/* Elements added up in the type itself before the sum goes to double. */
#define SUM_BLOCK 1024
#define AHEAD (4096 / (int64_t)sizeof(S)) /* elements to ask memory for in advance */

/* The greatest of x that is a number; -inf of nothing. */
static S greatest_number(const S *x, int64_t n) {
  T a[4] = {NYX_LOWEST, NYX_LOWEST, NYX_LOWEST, NYX_LOWEST};
  int64_t i = 0;
  for (; i + 4 * NYX_LANES <= n; i += 4 * NYX_LANES)
    for (int k = 0; k < 4; k++) {
      __builtin_prefetch(x + i + k * NYX_LANES + AHEAD);
      a[k] = nyx__max_or(nyx__load(x + i + k * NYX_LANES), a[k]);
    }
  for (; i + NYX_LANES <= n; i += NYX_LANES) a[0] = nyx__max_or(nyx__load(x + i), a[0]);
  if (i < n)
    a[1] = nyx__max_or(nyx__first_lanes(nyx__load_part(x + i, n - i), n - i, NYX_LOWEST),
                       a[1]);
  return greatest(nyx__max_or(nyx__max_or(a[0], a[1]), nyx__max_or(a[2], a[3])));
}

static bool any_nan(const S *x, int64_t n) {
  M found = KI(0);
  EACH_VECTOR(i, part, 0, n) {
    T v = nyx__first_lanes(load_lanes(x + i, part), part, K(0));
    found = nyx_or(found, nyx_ne(v, v));
  }
  return nyx__any(found);
}

NYX_FN double exp_sum_to(const S *x, int64_t n, S most, S *e) {
  double sum = 0;
  T shift = nyx__splat(most);
  const bool is_long = n >= 4 * AHEAD; /* the next row is asked for in the meantime */
  for (int64_t from = 0; from < n; from += SUM_BLOCK) {
    int64_t end = from + SUM_BLOCK < n ? from + SUM_BLOCK : n, i = from;
    T s = K(0), t = K(0);
    for (; i + 2 * NYX_LANES <= end; i += 2 * NYX_LANES) {
      T u = exp_of(nyx__load(x + i) - shift);
      T v = exp_of(nyx__load(x + i + NYX_LANES) - shift);
      if (is_long) {
        __builtin_prefetch(x + i + n, 0, 2);
        __builtin_prefetch(x + i + NYX_LANES + n, 0, 2);
      }
      if (e) {
        __builtin_prefetch(e + i + AHEAD, 1);
        __builtin_prefetch(e + i + NYX_LANES + AHEAD, 1);
        nyx__store(e + i, u);
        nyx__store(e + i + NYX_LANES, v);
      }
      s += u;
      t += v;
    }
    for (; i + NYX_LANES <= end; i += NYX_LANES) {
      T v = exp_of(nyx__load(x + i) - shift);
      if (e) nyx__store(e + i, v);
      s += v;
    }
    if (i < end) {
      T v = exp_of(nyx__load_part(x + i, end - i) - shift);
      if (e) nyx__store_part(e + i, end - i, v);
      t += nyx__first_lanes(v, end - i, K(0));
    }
    sum += (double)total(s + t);
  }
  return sum;
}

/* A row that fits one vector. */
NYX_FN double exp_sum_short(const S *x, int64_t n, S *most, S *e) {
  T v = nyx__first_lanes(load_lanes(x, n), n, NYX_LOWEST);
  *most = greatest(nyx__max_or(v, NYX_LOWEST));
  v = exp_of(v - nyx__splat(*most));
  if (e) store_lanes(e, n, v);
  return (double)total(nyx__first_lanes(v, n, K(0)));
}

static double exp_sum(const void *from, int64_t n, double *most, void *to) {
  const S *x = from;
  S m, *e = to;
  double sum = 0;
  bool is_short = n > 0 && n <= NYX_LANES;
  if (is_short)
    sum = exp_sum_short(x, n, &m, e);
  else
    m = greatest_number(x, n);
  *most = (double)m;
  if (m == (S)-INFINITY) { /* all of them are -inf or nan */
    if (e) memset(e, 0, (size_t)n * sizeof *e);
    if (!any_nan(x, n)) return 0;
    *most = NAN;
    return NAN;
  }
  if (!is_short) sum = e ? exp_sum_to(x, n, m, e) : exp_sum_to(x, n, m, NULL);
  /* inf - inf is not a number either. */
  if (isnan(sum) && (m != (S)INFINITY || any_nan(x, n))) *most = NAN;
  return sum;
}

static void scale(const void *from, int64_t n, double by, void *to) {
  const S *x = from;
  S *y = to;
  T factor = nyx__attr(by);
  EACH_VECTOR(i, part, 0, n) {
    store_lanes(y + i, part, load_lanes(x + i, part) * factor);
  }
}

static void shift(const void *from, int64_t n, double a_, double b_, void *to) {
  const S *x = from;
  S *y = to;
  T a = nyx__attr(a_), b = nyx__attr(b_);
  EACH_VECTOR(i, part, 0, n) {
    store_lanes(y + i, part, load_lanes(x + i, part) - a - b);
  }
}

/* The sums of one block of products (or of x alone: y is NULL). */
NYX_FN S block_sum(const S *x, const S *y, int64_t n) {
  T a[4] = {K(0), K(0), K(0), K(0)};
  int64_t i = 0;
  for (; i + 4 * NYX_LANES <= n; i += 4 * NYX_LANES)
    for (int k = 0; k < 4; k++) {
      T v = nyx__load(x + i + k * NYX_LANES);
      __builtin_prefetch(x + i + k * NYX_LANES + AHEAD);
      if (y) __builtin_prefetch(y + i + k * NYX_LANES + AHEAD);
      a[k] = y ? nyx_fma(v, nyx__load(y + i + k * NYX_LANES), a[k]) : a[k] + v;
    }
  EACH_VECTOR(j, part, i, n) {
    T v = load_lanes(x + j, part);
    if (y) v *= load_lanes(y + j, part);
    a[1] += nyx__first_lanes(v, part, K(0));
  }
  return total((a[0] + a[1]) + (a[2] + a[3]));
}

static double sum(const void *from, int64_t n) {
  const S *x = from;
  double all = 0;
  for (int64_t i = 0; i < n; i += SUM_BLOCK)
    all += (double)block_sum(x + i, NULL, n - i < SUM_BLOCK ? n - i : SUM_BLOCK);
  return all;
}

static double dot(const void *from, const void *with, int64_t n) {
  const S *x = from, *y = with;
  double all = 0;
  for (int64_t i = 0; i < n; i += SUM_BLOCK)
    all += (double)block_sum(x + i, y + i, n - i < SUM_BLOCK ? n - i : SUM_BLOCK);
  return all;
}

static void softmax_backward(const void *g_, const void *r_, int64_t n, double s_,
                             void *to) {
  const S *g = g_, *r = r_;
  S *y = to;
  T s = nyx__attr(s_);
  EACH_VECTOR(i, part, 0, n) {
    __builtin_prefetch(y + i + AHEAD, 1);
    store_lanes(y + i, part, load_lanes(r + i, part) * (load_lanes(g + i, part) - s));
  }
}

static void log_softmax_backward(const void *g_, const void *r_, int64_t n, double s_,
                                 void *to) {
  const S *g = g_, *r = r_;
  S *y = to;
  T s = nyx__attr(-s_);
  EACH_VECTOR(i, part, 0, n) {
    T e = exp_of(nyx__min_or(K(89), load_lanes(r + i, part)));
    store_lanes(y + i, part, nyx_fma(e, s, load_lanes(g + i, part)));
  }
}

/* sum[c] = the sum of g (times r, if not NULL) down column c: of SUM_ROWS rows each,
 * added up in double. */
#define SUM_ROWS 256
static void column_sums(const S *g, const S *r, int64_t step, int64_t rows, int64_t width,
                        S *sum) {
  double all[NYX_SOFTMAX_COLUMNS];
  S some[NYX_SOFTMAX_COLUMNS];
  for (int64_t c = 0; c < width; c++) all[c] = 0;
  for (int64_t from = 0; from < rows; from += SUM_ROWS) {
    const int64_t end = rows - from < SUM_ROWS ? rows : from + SUM_ROWS;
    for (int64_t c = 0; c < width; c += NYX_LANES) nyx__store(some + c, K(0));
    for (int64_t i = from; i < end; i++) {
      const S *gi = g + i * step, *ri = r ? r + i * step : NULL;
      EACH_VECTOR(c, part, 0, width) {
        T v = load_lanes(gi + c, part);
        if (ri) v *= load_lanes(ri + c, part);
        nyx__store(some + c, nyx__load(some + c) + v);
      }
    }
    for (int64_t c = 0; c < width; c++) all[c] += (double)some[c];
  }
  for (int64_t c = 0; c < width; c++) sum[c] = (S)all[c];
}

/* most[c] = the greatest number in column c, sum[c] = the sum of exp(x - most[c]) down
 * it, nan where any is; `e`, if not NULL, receives the exponentials. */
static void column_exp_sums(const S *x, int64_t step, int64_t rows, int64_t width,
                            S *most, S *sum, S *e) {
  double all[NYX_SOFTMAX_COLUMNS];
  for (int64_t c = 0; c < width; c++) all[c] = 0;
  for (int64_t c = 0; c < width; c += NYX_LANES) nyx__store(most + c, NYX_LOWEST);
  for (int64_t i = 0; i < rows; i++) EACH_VECTOR(c, part, 0, width) {
      T v = load_lanes(x + i * step + c, part);
      nyx__store(most + c, nyx__max_or(v, nyx__load(most + c)));
    }
  for (int64_t from = 0; from < rows; from += SUM_ROWS) {
    const int64_t end = rows - from < SUM_ROWS ? rows : from + SUM_ROWS;
    for (int64_t c = 0; c < width; c += NYX_LANES) nyx__store(sum + c, K(0));
    for (int64_t i = from; i < end; i++) EACH_VECTOR(c, part, 0, width) {
        T v = exp_of(load_lanes(x + i * step + c, part) - nyx__load(most + c));
        if (e) store_lanes(e + i * step + c, part, v);
        nyx__store(sum + c, nyx__load(sum + c) + v);
      }
    for (int64_t c = 0; c < width && rows > SUM_ROWS; c++) all[c] += (double)sum[c];
  }
  for (int64_t c = 0; c < width && rows > SUM_ROWS; c++) sum[c] = (S)all[c];
}

static void softmax_columns(const void *x, int64_t step, int64_t rows, int64_t width,
                            void *to) {
  S *y = to, most[NYX_SOFTMAX_COLUMNS], by[NYX_SOFTMAX_COLUMNS];
  column_exp_sums(x, step, rows, width, most, by, y);
  for (int64_t c = 0; c < width; c += NYX_LANES)
    nyx__store(by + c, K(1) / nyx__load(by + c));
  for (int64_t i = 0; i < rows; i++, y += step) EACH_VECTOR(c, part, 0, width)
  store_lanes(y + c, part, load_lanes(y + c, part) * nyx__load(by + c));
}

static void log_softmax_columns(const void *from, int64_t step, int64_t rows,
                                int64_t width, void *to) {
  const S *x = from;
  S *y = to, most[NYX_SOFTMAX_COLUMNS], less[NYX_SOFTMAX_COLUMNS];
  column_exp_sums(x, step, rows, width, most, less, NULL);
  for (int64_t c = 0; c < width; c += NYX_LANES)
    nyx__store(less + c, nyx_log(nyx__load(less + c)));
  for (int64_t i = 0; i < rows; i++, x += step, y += step)
    EACH_VECTOR(c, part, 0, width) {
      const T v = load_lanes(x + c, part) - nyx__load(most + c);
      store_lanes(y + c, part, v - nyx__load(less + c));
    }
}

static void softmax_backward_columns(const void *g_, const void *r_, int64_t step,
                                     int64_t rows, int64_t width, void *to) {
  const S *g = g_, *r = r_;
  S *y = to, sum[NYX_SOFTMAX_COLUMNS] = {0};
  column_sums(g, r, step, rows, width, sum);
  for (int64_t i = 0; i < rows; i++, g += step, r += step, y += step)
    EACH_VECTOR(c, part, 0, width) {
      const T by = load_lanes(g + c, part) - nyx__load(sum + c);
      store_lanes(y + c, part, load_lanes(r + c, part) * by);
    }
}

static void log_softmax_backward_columns(const void *g_, const void *r_, int64_t step,
                                         int64_t rows, int64_t width, void *to) {
  const S *g = g_, *r = r_;
  S *y = to, sum[NYX_SOFTMAX_COLUMNS] = {0};
  column_sums(g, NULL, step, rows, width, sum);
  for (int64_t i = 0; i < rows; i++, g += step, r += step, y += step)
    EACH_VECTOR(c, part, 0, width) {
      const T e = exp_of(nyx__min_or(K(89), load_lanes(r + c, part)));
      store_lanes(y + c, part, nyx_fma(e, -nyx__load(sum + c), load_lanes(g + c, part)));
    }
}

/* A vector's elements as doubles: targets may have signs, and losses cancel. */
#if NYX_T_BITS == 32
#define WIDE 2
#define to_wide nyx__to_double
#else
#define WIDE 1
typedef T D;
#define NYX_D(c) K(c)
NYX_FN void to_wide(T x, D *d) {
  d[0] = x;
}
#endif

NYX_FN double wide_total(const D *v) {
  enum { COUNT = NYX_BYTES / sizeof(double) };
  double sum = 0;
  for (int k = 0; k < WIDE; k++)
    for (int i = 0; i < COUNT; i++) sum += v[k][i];
  return sum;
}

NYX_FN double fall_of(const S *x, const S *t, const S *w, int64_t n, double a, double b,
                      double most, double rest, double *all) {
  D s[WIDE], c[WIDE];
  for (int k = 0; k < WIDE; k++) s[k] = c[k] = NYX_D(0);
  EACH_VECTOR(i, part, 0, n) {
    D xs[WIDE], ts[WIDE], ws[WIDE];
    T v = load_lanes(x + i, part), one = K(1);
    if (part < NYX_LANES) { /* what lies beyond the row counts 0 */
      v = nyx__first_lanes(v, part, nyx__splat((S)most));
      one = nyx__first_lanes(one, part, K(0));
    }
    to_wide(v, xs);
    if (t) to_wide(load_lanes(t + i, part), ts);
    to_wide(w ? load_lanes(w + i, part) : one, ws);
    for (int k = 0; k < WIDE; k++) {
      D q = ws[k] * (t ? a * ts[k] + b : NYX_D(b));
      s[k] += q * (rest + (most - xs[k]));
      c[k] += q;
    }
  }
  *all = wide_total(c);
  return wide_total(s);
}

static double fall(const void *x, const void *t, const void *w, int64_t n, double a,
                   double b, double most, double rest, double *all) {
  if (t) return fall_of(x, t, w, n, a, b, most, rest, all);
  return fall_of(x, NULL, w, n, a, b, most, rest, all);
}

NYX_FN T counted(const S *t, const S *w, int64_t i, int64_t part, T a, T b) {
  T q = t ? nyx_fma(a, load_lanes(t + i, part), b) : b;
  return w ? q * load_lanes(w + i, part) : q;
}

static void take(const void *t, const void *w, int64_t n, double a_, double b_,
                 double scale_, void *to) {
  S *y = to;
  T a = nyx__attr(a_), b = nyx__attr(b_), scale = nyx__attr(scale_);
  EACH_VECTOR(i, part, 0, n) {
    T q = counted(t, w, i, part, a, b);
    store_lanes(y + i, part, load_lanes(y + i, part) * scale - q);
  }
}

/* The second pass goes over the differences from the rounded mean; their sum, 0 but for
 * rounding, corrects both results. */
static void moments(const void *from, int64_t n, double *mean, double *squares) {
  const S *x = from;
  S about = (S)(sum(x, n) / (double)n);
  T center = nyx__splat(about);
  double all = 0, all_squares = 0;
  for (int64_t start = 0; start < n; start += SUM_BLOCK) {
    int64_t end = start + SUM_BLOCK < n ? start + SUM_BLOCK : n, i = start;
    T s[4] = {K(0), K(0), K(0), K(0)}, q[4] = {K(0), K(0), K(0), K(0)};
    for (; i + 4 * NYX_LANES <= end; i += 4 * NYX_LANES)
      for (int k = 0; k < 4; k++) {
        T d = nyx__load(x + i + k * NYX_LANES) - center;
        s[k] += d;
        q[k] = nyx_fma(d, d, q[k]);
      }
    EACH_VECTOR(j, part, i, end) {
      T d = load_lanes(x + j, part) - center;
      if (part < NYX_LANES) d = nyx__first_lanes(d, part, K(0));
      s[0] += d;
      q[0] = nyx_fma(d, d, q[0]);
    }
    all += (double)total((s[0] + s[1]) + (s[2] + s[3]));
    all_squares += (double)total((q[0] + q[1]) + (q[2] + q[3]));
  }
  double rest = all / (double)n;
  *mean = isfinite(rest) ? (double)about + rest : (double)about;
  *squares = all_squares - all * rest;
  if (n == 0) *squares = 0;
}

#define MOMENT_VECTORS 4 /* side by side: a cache line or four of each row */

/* The moments of `rows` elements, of which `off` are off from center by `sum`, go into
 * those of `before`: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm
 * for Computing Sample Variances" (1979). */
static void merge_moments(int64_t n, int64_t rows, int64_t before, const S *center,
                          const S *sum, const S *square, double *mean, double *squares) {
  const double more = 1 / (double)rows, share = (double)rows / (double)(rows + before);
  const double weight = (double)before * share;
  for (int64_t i = 0; i < n && before == 0; i++) mean[i] = squares[i] = 0;
  for (int64_t i = 0; i < n; i++) {
    double rest = (double)sum[i] * more, apart = (double)center[i] + rest - mean[i];
    double own = (double)square[i] - (double)sum[i] * rest;
    mean[i] += apart * share;
    squares[i] += own + apart * (apart * weight); /* 0 of the first, however large */
  }
}

/* Twice over the same rows, which are few enough to be near the second time. */
static void column_moments(const void *from, int64_t step, int64_t rows, int64_t width,
                           int64_t before, double *mean, double *squares) {
  const T count = K(rows);
  for (int64_t c = 0; c < width; c += MOMENT_VECTORS * NYX_LANES) {
    const S *x = (const S *)from + c;
    int64_t n =
        width - c < MOMENT_VECTORS * NYX_LANES ? width - c : MOMENT_VECTORS * NYX_LANES;
    T center[MOMENT_VECTORS], sum[MOMENT_VECTORS], square[MOMENT_VECTORS];
    for (int k = 0; k < MOMENT_VECTORS; k++) center[k] = sum[k] = square[k] = K(0);
    if (n == MOMENT_VECTORS * NYX_LANES) {
      for (int64_t r = 0; r < rows; r++)
        for (int k = 0; k < MOMENT_VECTORS; k++) {
          __builtin_prefetch(x + (rows + r) * step + k * NYX_LANES);
          center[k] += nyx__load(x + r * step + k * NYX_LANES);
        }
      for (int k = 0; k < MOMENT_VECTORS; k++) center[k] /= count;
      for (int64_t r = 0; r < rows; r++)
        for (int k = 0; k < MOMENT_VECTORS; k++) {
          T d = nyx__load(x + r * step + k * NYX_LANES) - center[k];
          sum[k] += d;
          square[k] = nyx_fma(d, d, square[k]);
        }
    } else {
      for (int k = 0; k * NYX_LANES < n; k++) {
        int64_t part = n - k * NYX_LANES < NYX_LANES ? n - k * NYX_LANES : NYX_LANES;
        const S *at = x + k * NYX_LANES;
        for (int64_t r = 0; r < rows; r++) center[k] += load_lanes(at + r * step, part);
        center[k] /= count;
        for (int64_t r = 0; r < rows; r++) {
          T d = load_lanes(at + r * step, part) - center[k];
          sum[k] += d;
          square[k] = nyx_fma(d, d, square[k]);
        }
      }
    }
    merge_moments(n, rows, before, (const S *)center, (const S *)sum, (const S *)square,
                  mean + c, squares + c);
  }
}

extern const nyx_softmax_kernel SOFTMAX_KERNEL;
const nyx_softmax_kernel SOFTMAX_KERNEL = {
    .exp_sum = exp_sum,
    .scale = scale,
    .shift = shift,
    .sum = sum,
    .dot = dot,
    .softmax_backward = softmax_backward,
    .log_softmax_backward = log_softmax_backward,
    .softmax_columns = softmax_columns,
    .log_softmax_columns = log_softmax_columns,
    .softmax_backward_columns = softmax_backward_columns,
    .log_softmax_backward_columns = log_softmax_backward_columns,
    .fall = fall,
    .take = take,
    .moments = moments,
    .column_moments = column_moments,
};
