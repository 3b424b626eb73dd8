/* Reductions, scans and variances against plain loops in double: every dtype and any
 * strides, over all sets of dimensions, on every path of the CPU; accuracy of long sums,
 * nan and infinities, ties, empty tensors, and results that do not depend on the number
 * of threads. Read next: layouts.h, paths.h, softmax_test.c. */
#include <nyx/parallel.h>

#include "layouts.h"
#include "paths.h"

#define SCAN(dim) NYX_I(dim), NYX_NONE, NYX_NONE

/* One op over sets of dimensions */

typedef struct sample {
  nyx__op_id op;
  double p; /* of norm; the correction of var and std */
} sample;

/* The values of v that are reduced together, group after group; returns their number. */
UNTRACED static int64_t group(const double *v, int ndim, const int64_t *shape,
                              uint32_t dims, double *grouped) {
  static int64_t filled[MAX];
  int64_t n = 1, count = 1;
  for (int d = 0; d < ndim; d++) {
    n *= shape[d];
    if (dims >> d & 1) count *= shape[d];
  }
  int64_t groups = n / count;
  memset(filled, 0, (size_t)groups * sizeof *filled);
  for (int64_t i = 0; i < n; i++) {
    int64_t rest = i, at = 0, step = 1;
    for (int d = ndim - 1; d >= 0; d--) {
      if (!(dims >> d & 1)) {
        at += rest % shape[d] * step;
        step *= shape[d];
      }
      rest /= shape[d];
    }
    grouped[at * count + filled[at]++] = v[i];
  }
  return groups;
}

UNTRACED static double p_norm(const double *v, int64_t n, double p) {
  double r = p == -INFINITY ? INFINITY : 0;
  for (int64_t i = 0; i < n; i++) {
    double size = fabs(v[i]);
    if (p == INFINITY)
      r = fmax(r, size);
    else if (p == -INFINITY)
      r = fmin(r, size);
    else if (p == 0)
      r += size != 0;
    else
      r += pow(size, p);
  }
  return p == 0 || isinf(p) ? r : pow(r, 1 / p);
}

UNTRACED static double squares(const double *v, int64_t n, double *mean) {
  double sum = 0, result = 0;
  for (int64_t i = 0; i < n; i++) sum += v[i];
  *mean = sum / (double)n;
  for (int64_t i = 0; i < n; i++) result += (v[i] - *mean) * (v[i] - *mean);
  return result;
}

/* The result for one group, and the size its error is measured by. */
UNTRACED static double reference(const sample *s, const double *v, int64_t n,
                                 double *size) {
  double r = 0, most = -INFINITY, least = INFINITY, mean;
  int64_t where_most = 0, where_least = 0;
  *size = 0;
  for (int64_t i = 0; i < n; i++) {
    *size += fabs(v[i]);
    if (v[i] > most) most = v[i], where_most = i;
    if (v[i] < least) least = v[i], where_least = i;
  }
  switch (s->op) {
    case ID(sum):
    case ID(mean):
      for (int64_t i = 0; i < n; i++) r += v[i];
      if (s->op == ID(sum)) return r;
      *size /= (double)n;
      return r / (double)n;
    case ID(prod):
      for (r = 1; n > 0; n--) r *= v[n - 1], *size += fabs(r);
      return r;
    case ID(amin):
    case ID(min): return least;
    case ID(amax):
    case ID(max): return most;
    case ID(argmin): return (double)where_least;
    case ID(argmax): return (double)where_most;
    case ID(any): return most != 0 || least != 0;
    case ID(all):
      for (int64_t i = 0; i < n; i++) r += v[i] == 0;
      return r == 0;
    case ID(count_nonzero):
      for (int64_t i = 0; i < n; i++) r += v[i] != 0;
      return r;
    case ID(norm): return p_norm(v, n, s->p);
    case ID(logsumexp):
      for (int64_t i = 0; i < n; i++) r += exp(v[i] - most);
      return most + log(r);
    case ID(var): return squares(v, n, &mean) / fmax((double)n - s->p, 0);
    case ID(std): return sqrt(squares(v, n, &mean) / fmax((double)n - s->p, 0));
    default: return NAN;
  }
}

/* The attributes of an op that has dim, keepdim and perhaps p or correction. */
static void fill_attrs(const sample *s, nyx_value dim, bool keepdim, nyx_value *attr) {
  const nyx_op *op = nyx__op(s->op);
  for (int i = 0; i < op->n_attrs; i++)
    attr[i] = strcmp(op->attrs[i].name, "dim") == 0       ? dim
              : strcmp(op->attrs[i].name, "keepdim") == 0 ? NYX_I(keepdim)
                                                          : NYX_F(s->p);
}

UNTRACED_CHECK static bool check_groups(const sample *s, nyx_dtype dtype, nyx_tensor *y,
                                        const double *grouped, int64_t groups,
                                        int64_t count, const char *what) {
  double *got = read(y);
  /* Additions one after the other, see core/device/cpu/reduce.c. */
  double steps = (double)(count < 1024 ? count : 1024) / 16;
  for (int64_t i = 0; i < groups; i++) {
    double size, want = reference(s, grouped + i * count, count, &size);
    double base = s->op == ID(argmin) || s->op == ID(argmax) ? ctx->index_base : 0;
    double error = fabs(got[i] - (want + base));
    bool inexact = nyx_dtype_is_float(dtype) && nyx_dtype_is_float(y->dtype);
    double room = inexact ? (4 + steps / 4) * epsilon(dtype) * (fabs(want) + size) : 0;
    bool both_nan = isnan(got[i]) && isnan(want);
    if (!both_nan && !(got[i] == want + base) && !(error <= room))
      return CHECK_AT(false, nyx__op(s->op)->name, " of %s, %s: %.17g, expected %.17g",
                      nyx_dtype_name(dtype), what, got[i], want + base);
  }
  return true;
}

static void compare(const sample *s, nyx_dtype dtype, int ndim, const int64_t *shape,
                    int layout) {
  static double grouped[MAX];
  const nyx_op *op = nyx__op(s->op);
  nyx_tensor *x = laid_out(dtype, ndim, shape, layout, s->op == ID(prod));
  double *v = read(x);
  bool single = op->attrs[op->n_attrs - 2].type == NYX_ATTR_DIM;
  uint32_t all = (1u << ndim) - 1;
  for (uint32_t dims = 1; dims <= all; dims++) {
    if (single && (dims & (dims - 1)) && dims != all) continue;
    int64_t list[NYX_MAX_DIMS];
    int n = 0;
    for (int d = 0; d < ndim; d++)
      if (dims >> d & 1) list[n++] = d;
    nyx_value attr[4], dim = NYX_NONE;
    if (single && n == 1)
      dim = NYX_I(list[0]);
    else if (!single && dims != all)
      dim = NYX_LIST(list, n);
    fill_attrs(s, dim, dims % 2 == 0, attr);
    int64_t groups = group(v, ndim, shape, dims, grouped);
    nyx_tensor *out[2] = {NULL};
    char what[80];
    snprintf(what, sizeof what, "%dd, layout %d, dimensions %#x", ndim, layout, dims);
    if (!CHECK_OK(ctx, nyx_apply(ctx, op, &x, 1, attr, out))) break;
    CHECK_INT(nyx_tensor_numel(out[0]), groups);
    int64_t count = nyx_tensor_numel(x) / groups;
    check_groups(s, dtype, out[0], grouped, groups, count, what);
    if (out[1]) { /* min and max with dim */
      sample position = {s->op == ID(min) ? ID(argmin) : ID(argmax), 0};
      check_groups(&position, dtype, out[1], grouped, groups, count, what);
    }
    nyx_tensor_release(out[0]);
    nyx_tensor_release(out[1]);
  }
  nyx_tensor_release(x);
}

static void every_reduction(void) {
  static const sample samples[] = {
      {ID(sum), 0},           {ID(mean), 0},         {ID(prod), 0},      {ID(amin), 0},
      {ID(amax), 0},          {ID(min), 0},          {ID(max), 0},       {ID(argmin), 0},
      {ID(argmax), 0},        {ID(any), 0},          {ID(all), 0},       {ID(norm), 0},
      {ID(count_nonzero), 0}, {ID(norm), 1},         {ID(norm), 2},      {ID(norm), 3},
      {ID(norm), INFINITY},   {ID(norm), -INFINITY}, {ID(logsumexp), 0}, {ID(var), 1},
      {ID(var), 0},           {ID(std), 1},          {ID(std), 2.5}};
  static const int64_t shapes[][3] = {
      {3, 4, 5},    {2, 70, 3},   {1, 7, 1},    {40, 3, 17}, {9, 1, 9},
      {1, 3, 5000}, {4500, 1, 2}, {150, 2, 30}, {5, 3, 200}, {3, 1111, 2}};
  for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
    for (int dtype = 0; dtype < NYX_DTYPE_COUNT; dtype++) {
      if (!(nyx__op(samples[i].op)->dtypes & NYX_DTYPES(dtype))) continue;
      for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++)
        for (int layout = 0; layout < LAYOUTS; layout++)
          compare(&samples[i], (nyx_dtype)dtype, 3, shapes[k], layout);
      compare(&samples[i], (nyx_dtype)dtype, 1, (int64_t[]){9001}, PLAIN);
      compare(&samples[i], (nyx_dtype)dtype, 1, (int64_t[]){777}, SPACED);
    }
}

/* Rounding equal numbers errs to one side, so that errors add up with the length of what
 * is summed one after the other. */
static void equal_numbers(void) {
  static const int64_t lengths[] = {1000, 4096, 100000};
  for (int i = 0; i < 3; i++) {
    int64_t n = lengths[i];
    double value, want = (double)n * (double)0.1f;
    nyx_tensor *x, *y;
    must(nyx_tensor_empty(ctx, NYX_FLOAT32, 1, &n, &x));
    for (int64_t k = 0; k < n; k++) ((float *)nyx_tensor_data(x))[k] = 0.1f;
    y = apply(ID(sum), x, NULL, NULL, NULL);
    must(nyx_tensor_item(ctx, y, &value));
    CHECK_NEAR(value, want, 3 * 0x1p-23 * want);
    nyx_tensor_release(y);
    nyx_tensor_release(x);
  }
}

/* Long sums: a running float32 sum of 1e7 values near 0.5 would be wrong in the third
 * digit. */
static void long_sums(void) {
  int64_t n = 10000000, shape[2] = {n / 4, 4};
  nyx_tensor *x, *wide, *y = NULL;
  must(nyx_tensor_empty(ctx, NYX_FLOAT32, 1, &n, &x));
  float *v = nyx_tensor_data(x);
  double sum = 0, column[4] = {0}, deviation = 0;
  for (int64_t i = 0; i < n; i++) {
    v[i] = (float)next() / 0x1p24f;
    sum += (double)v[i];
    column[i % 4] += (double)v[i];
  }
  double mean = sum / (double)n, value;
  for (int64_t i = 0; i < n; i++)
    deviation += ((double)v[i] - mean) * ((double)v[i] - mean);
  static const nyx__op_id ops[] = {ID(sum), ID(mean), ID(var)};
  double want[] = {sum, mean, deviation / (double)(n - 1)};
  for (int i = 0; i < 3; i++) {
    y = apply(ops[i], x, NULL, NULL, NULL);
    must(nyx_tensor_item(ctx, y, &value));
    CHECK_NEAR(value, want[i], 3e-7 * want[i]);
    nyx_tensor_release(y);
  }
  must(nyx__apply1(ctx, ID(reshape), x, ATTRS(NYX_LIST(shape, 2)), &wide));
  y = apply(ID(sum), wide, NULL, NULL, ATTRS(LIST(0), NYX_I(0)));
  for (int i = 0; i < 4; i++) CHECK_NEAR(read(y)[i], column[i], 3e-7 * column[i]);
  nyx_tensor_release(y);
  y = apply(ID(cumsum), x, NULL, NULL, ATTRS(SCAN(0)));
  CHECK_NEAR(((float *)nyx_tensor_data(y))[n - 1], sum, 1e-7 * sum);
  nyx_tensor_release(y);
  nyx_tensor_release(wide);
  nyx_tensor_release(x);
}

/* Wide enough for columns to be read row by row from end to end, and a rest. */
UNTRACED_CHECK static void many_wide_rows(void) {
  enum { OUTER = 2, ROWS = 531, WIDTH = 4099 };
  int64_t shape[3] = {OUTER, ROWS, WIDTH};
  nyx_tensor *x, *sum, *most;
  must(nyx_tensor_empty(ctx, NYX_FLOAT32, 3, shape, &x));
  float *v = nyx_tensor_data(x);
  for (int64_t i = 0; i < x->numel; i++) v[i] = (float)random_value(NYX_FLOAT32, i % 2);
  sum = apply(ID(sum), x, NULL, NULL, ATTRS(LIST(1), NYX_I(0)));
  most = apply(ID(amax), x, NULL, NULL, ATTRS(LIST(1), NYX_I(0)));
  const float *sums = nyx_tensor_data(sum), *extremes = nyx_tensor_data(most);
  for (int64_t o = 0; o < OUTER; o++)
    for (int64_t c = 0; c < WIDTH; c++) {
      double total = 0, size = 0, greatest = -INFINITY;
      for (int64_t r = 0; r < ROWS; r++) {
        double value = (double)v[(o * ROWS + r) * WIDTH + c];
        total += value;
        size += fabs(value);
        if (value > greatest) greatest = value;
      }
      REQUIRE(CHECK_NEAR((double)sums[o * WIDTH + c], total, 64 * 0x1p-24 * size));
      REQUIRE(CHECK((double)extremes[o * WIDTH + c] == greatest));
    }
  nyx_tensor_release(most);
  nyx_tensor_release(sum);
  nyx_tensor_release(x);
}

/* The same bits for any number of threads */

static bool equal_bytes(nyx_tensor *a, nyx_tensor *b) {
  return a && b && nyx_tensor_numel(a) == nyx_tensor_numel(b) &&
         memcmp(nyx_tensor_data(a), nyx_tensor_data(b),
                (size_t)nyx_tensor_numel(a) * nyx_dtype_size(a->dtype)) == 0;
}

static void same_for_any_threads(void) {
  static const nyx__op_id ops[] = {ID(sum), ID(mean),      ID(prod), ID(norm),
                                   ID(max), ID(logsumexp), ID(var),  ID(argmax)};
  int64_t shape[2] = {530, 4200};
  nyx_tensor *x, *turned;
  must(nyx_tensor_empty(ctx, NYX_FLOAT32, 2, shape, &x));
  float *v = nyx_tensor_data(x);
  for (int64_t i = 0; i < x->numel; i++) v[i] = (float)random_value(NYX_FLOAT32, i % 2);
  must(nyx__apply1(ctx, ID(transpose), x, ATTRS(NYX_I(0), NYX_I(1)), &turned));
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    for (int dim = -1; dim < 4; dim++) {
      const sample s = {ops[i], 2};
      const nyx_op *op = nyx__op(ops[i]);
      int64_t list = dim % 2;
      nyx_value attr[4], value = NYX_LIST(&list, 1);
      if (op->attrs[op->n_attrs - 2].type == NYX_ATTR_DIM) value = NYX_I(list);
      fill_attrs(&s, dim < 0 ? NYX_NONE : value, false, attr);
      nyx_tensor *one = NULL;
      for (int threads = 1; threads <= 4; threads++) {
        must(nyx_parallel_set_threads(threads));
        nyx_tensor *y = apply(ops[i], dim < 2 ? x : turned, NULL, NULL, attr);
        if (one)
          CHECK_AT(equal_bytes(one, y), op->name, ", dim %d, %d threads", dim, threads);
        nyx_tensor_release(one);
        one = y;
      }
      nyx_tensor_release(one);
    }
  must(nyx_parallel_set_threads(0));
  nyx_tensor_release(turned);
  nyx_tensor_release(x);
}

/* Matrices of few columns, which are seen as wider ones: several, and a long one. */
static void narrow_for_any_threads(void) {
  static const nyx__op_id ops[] = {ID(sum), ID(mean), ID(prod), ID(amax)};
  static const int64_t shapes[][3] = {{900, 131, 2}, {1, 70007, 3}};
  for (int k = 0; k < 2; k++) {
    nyx_tensor *x;
    must(nyx_tensor_empty(ctx, NYX_FLOAT32, 3, shapes[k], &x));
    float *v = nyx_tensor_data(x);
    for (int64_t i = 0; i < x->numel; i++) v[i] = (float)random_value(NYX_FLOAT32, true);
    for (int i = 0; i < 4; i++) {
      nyx_tensor *one = NULL;
      for (int threads = 1; threads <= 4; threads++) {
        must(nyx_parallel_set_threads(threads));
        nyx_tensor *y = apply(ops[i], x, NULL, NULL, ATTRS(LIST(1), NYX_NONE));
        if (one) CHECK_AT(equal_bytes(one, y), nyx__op(ops[i])->name, ", %d", threads);
        nyx_tensor_release(one);
        one = y;
      }
      nyx_tensor_release(one);
    }
    nyx_tensor_release(x);
  }
  must(nyx_parallel_set_threads(0));
}

/* nan, infinities, ties, nothing */

/* op of a float32 vector, all of it. */
static double of(nyx__op_id op, int64_t n, const double *values) {
  nyx_tensor *x = make(NYX_FLOAT32, 1, &n, values), *y = apply(op, x, NULL, NULL, NULL);
  double result = -12345;
  if (y) must(nyx_tensor_item(ctx, y, &result));
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return result;
}
#define OF(op, ...)                                                                      \
  of(ID(op), (int64_t)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)),                \
     (double[]){__VA_ARGS__})

static void special_values(void) {
  CHECK(isnan(OF(amax, 1, NAN, 3)) && isnan(OF(amin, 1, NAN, 3)));
  CHECK(isnan(OF(max, NAN, 1)) && isnan(OF(min, 1, NAN)));
  CHECK_NEAR(OF(argmax, 1, NAN, 3, NAN), 1, 0);
  CHECK_NEAR(OF(argmin, 1, 0, NAN, NAN), 2, 0);
  CHECK_NEAR(OF(argmax, 1, 3, 2, 3), 1, 0);
  CHECK_NEAR(OF(argmin, 2, 1, 1, 1), 1, 0);
  CHECK_NEAR(OF(argmax, -INFINITY, -INFINITY), 0, 0);
  CHECK_NEAR(OF(amax, -INFINITY, 1, INFINITY), INFINITY, 0);
  CHECK(isnan(OF(sum, INFINITY, -INFINITY)));
  CHECK_NEAR(OF(sum, INFINITY, 1), INFINITY, 0);
  CHECK(isnan(OF(prod, INFINITY, 0)));
  CHECK_NEAR(OF(any, 0, NAN), 1, 0);
  CHECK_NEAR(OF(all, 1, NAN), 1, 0);
  CHECK_NEAR(OF(count_nonzero, 0, NAN, -0.0, 1), 2, 0);
  CHECK_NEAR(OF(norm, INFINITY, 1), INFINITY, 0);
  CHECK(isnan(OF(var, 1, INFINITY, 2)) && isnan(OF(std, 1, NAN)));
  CHECK(isnan(OF(var, 3)));
  CHECK_NEAR(OF(std, 1e6, 1e6 + 1, 1e6 + 2), 1, 1e-6);
  for (int64_t at = 0; at < 300; at++) { /* whatever lane a nan is in */
    double v[300] = {0};
    v[at] = NAN;
    if (!CHECK(isnan(of(ID(amax), 300, v)) && isnan(of(ID(logsumexp), 300, v)))) break;
    if (!CHECK(of(ID(argmin), 300, v) == (double)at)) break;
    v[at] = 5;
    if (!CHECK(of(ID(argmax), 300, v) == (double)at)) break;
  }
}

/* Variances down columns: widths around vectors and blocks, heights around the rows gone
 * over twice and the pieces, values far from 0, numbers that are none. */
static void variance_down(int64_t rows, int64_t columns, nyx_dtype dtype) {
  int64_t n = 2 * rows * columns;
  double *v = malloc((size_t)n * sizeof *v), *want = malloc((size_t)(2 * columns) * 8);
  double *one = malloc((size_t)rows * sizeof *one), mean;
  for (int64_t i = 0; i < n; i++) v[i] = 1000 + (double)(next() % 4096) / 256;
  v[columns + 1] = INFINITY;
  v[columns + 2] = NAN;
  for (int64_t c = 0; c < 2 * columns; c++) {
    const double *from = v + c / columns * rows * columns + c % columns;
    for (int64_t r = 0; r < rows; r++) one[r] = from[r * columns];
    want[c] = squares(one, rows, &mean) / (double)(rows - 1);
  }
  nyx_tensor *x = make(dtype, SHAPE(2, rows, columns), v), *first = NULL;
  for (int threads = 1; threads < 4; threads++) {
    must(nyx_parallel_set_threads(threads));
    nyx_tensor *y = apply(ID(var), x, NULL, NULL, ATTRS(LIST(1), NYX_NONE, NYX_NONE));
    const double *got = read(y);
    for (int64_t c = 0; c < 2 * columns; c++)
      if (!CHECK_AT(isfinite(want[c]) ? fabs(got[c] - want[c]) <= 1e-6 * want[c]
                                      : isnan(got[c]),
                    "var", ": column %d of %d x %d: %g, expected %g", (int)c, (int)rows,
                    (int)columns, got[c], want[c]))
        break;
    if (first)
      CHECK(memcmp(nyx_tensor_data(first), nyx_tensor_data(y),
                   (size_t)(2 * columns) * nyx_dtype_size(dtype)) == 0);
    nyx_tensor_release(first);
    first = y;
  }
  must(nyx_parallel_set_threads(0));
  nyx_tensor_release(first);
  nyx_tensor_release(x);
  free(one);
  free(want);
  free(v);
}

static void variances_down(void) {
  static const int64_t rows[] = {2, 31, 33, 1024, 1057, 2100};
  static const int64_t columns[] = {8, 9, 64, 67, 256, 259};
  for (int i = 0; i < 6; i++)
    for (int k = 0; k < 6; k++)
      variance_down(rows[i], columns[k], (i + k) % 2 ? NYX_FLOAT64 : NYX_FLOAT32);
  double large[40 * 8], zero[8] = {0};
  for (int i = 0; i < 40 * 8; i++) large[i] = 0x1p664; /* its square is infinite */
  nyx_tensor *x = make(NYX_FLOAT64, SHAPE(40, 8), large);
  CHECK(holds(apply(ID(var), x, NULL, NULL, ATTRS(LIST(0), NYX_NONE, NYX_NONE)), SHAPE(8),
              zero));
  nyx_tensor_release(x);
}

/* Positions down columns, in several parts of rows: the first of equals, the first nan.
 */
static void positions_in_columns(void) {
  enum { ROWS = 200, COLUMNS = 40 };
  static double v[ROWS * COLUMNS], want[2][COLUMNS];
  static const nyx__op_id ops[] = {ID(argmin), ID(argmax)};
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_BFLOAT16, NYX_INT8,
                                     NYX_INT64};
  for (int d = 0; d < 5; d++) {
    bool with_nan = nyx_dtype_is_float(dtypes[d]);
    for (int64_t i = 0; i < ROWS * COLUMNS; i++)
      v[i] = with_nan && next() % 300 == 0 ? NAN : (double)(next() % 5) - 2;
    for (int c = 0; c < COLUMNS; c++)
      for (int most = 0; most < 2; most++) {
        int at = 0;
        for (int r = 1; r < ROWS && !isnan(v[at * COLUMNS + c]); r++) {
          double x = v[r * COLUMNS + c], best = v[at * COLUMNS + c];
          if (isnan(x) || (most ? x > best : x < best)) at = r;
        }
        want[most][c] = at;
      }
    nyx_tensor *x = make(dtypes[d], SHAPE(ROWS, COLUMNS), v);
    for (int most = 0; most < 2; most++)
      CHECK(holds(apply(ops[most], x, NULL, NULL, ATTRS(NYX_I(0), NYX_NONE)),
                  SHAPE(COLUMNS), want[most]));
    nyx_tensor_release(x);
  }
}

/* Extremes of bytes, and whether there are others than 0, in their own width: in several
 * blocks of columns and parts of rows, with nothing but zeros, one that is negative. */
static void extremes_of_bytes(void) {
  static const nyx_dtype dtypes[] = {NYX_INT8, NYX_UINT8, NYX_BOOL};
  static const int64_t shapes[][2] = {
      {150, 4500}, {700, 40}, {65, 1030}, {1, 300}, {40, 3}};
  static const nyx__op_id ops[] = {ID(amin), ID(amax), ID(any), ID(all)};
  for (int round = 0; round < 3 * 5; round++) {
    const nyx_dtype dtype = dtypes[round % 3];
    const int64_t *shape = shapes[round / 3], rows = shape[0], cols = shape[1];
    nyx_tensor *x;
    must(nyx_tensor_empty(ctx, dtype, 2, shape, &x));
    signed char *v = nyx__data(x);
    for (int64_t i = 0; i < rows * cols; i++) {
      const int kind = (int)(i % cols % 4), value = (int)next();
      const bool zero = kind == 0 || (kind == 1 && i / cols != rows / 2);
      v[i] = zero ? 0 : dtype == NYX_BOOL ? 1 : kind == 1 ? -3 : (signed char)(value | 1);
      if (kind == 3 && value % 50 == 0) v[i] = 0;
    }
    for (int op = 0; op < 4; op++)
      for (int dim = 0; dim < 2; dim++) {
        nyx_tensor *y = apply(ops[op], x, NULL, NULL, ATTRS(LIST(dim), NYX_NONE));
        const int64_t n = shape[dim], step = dim ? 1 : cols, next_one = dim ? cols : 1;
        int64_t wrong = 0;
        for (int64_t k = 0; k < rows * cols / n; k++) {
          double want = op == 3;
          for (int64_t i = 0; i < n; i++) {
            double at = nyx__load_double(dtype, v + k * next_one + i * step);
            if (op == 2 || op == 3)
              want = op == 2 ? want != 0 || at != 0 : want != 0 && at != 0;
            else if (i == 0 || (op == 0 ? at < want : at > want))
              want = at;
          }
          wrong += nyx__load_double(y->dtype, (char *)nyx__data(y) + k) != want;
        }
        CHECK_AT(wrong == 0, nyx__op(ops[op])->name, " of %s %d x %d over %d: %d wrong",
                 nyx_dtype_name(dtype), (int)rows, (int)cols, dim, (int)wrong);
        nyx_tensor_release(y);
      }
    nyx_tensor_release(x);
  }
}

static void positions_count_from_the_base(void) {
  ctx->index_base = 1;
  CHECK_NEAR(OF(argmax, 1, 3, 2, 3), 2, 0);
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(2, 3), VALUES(1, 3, 2, 7, 7, 6));
  nyx_tensor *out[2] = {NULL};
  CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(max)), &x, 1, ATTRS(NYX_I(1), NYX_I(0)), out));
  CHECK(holds(out[0], SHAPE(2), VALUES(3, 7)));
  CHECK(holds(out[1], SHAPE(2), VALUES(2, 1)));
  ctx->index_base = 0;
  nyx_tensor_release(x);
}

static void of_nothing(void) {
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(0), VALUES(0)), *y;
  const nyx__op_id ops[] = {ID(sum), ID(mean), ID(prod), ID(any),
                            ID(all), ID(norm), ID(var),  ID(logsumexp)};
  const double want[] = {0, NAN, 1, 0, 1, 0, NAN, -INFINITY};
  for (int i = 0; i < 8; i++) {
    y = apply(ops[i], x, NULL, NULL, NULL);
    CHECK_AT(holds(y, 0, NULL, &want[i]), nyx__op(ops[i])->name, " %s", "of nothing");
  }
  y = apply(ID(cumsum), x, NULL, NULL, ATTRS(SCAN(0)));
  CHECK(holds(y, SHAPE(0), NULL));
  CHECK(fails(ID(amax), x, NULL, NULL, NULL, NYX_ERR_SHAPE, "no elements"));
  CHECK(fails(ID(argmin), x, NULL, NULL, NULL, NYX_ERR_SHAPE, "no elements"));
  nyx_tensor_release(x);
  x = make(NYX_FLOAT32, SHAPE(0, 3), VALUES(0));
  CHECK(holds(apply(ID(amax), x, NULL, NULL, ATTRS(LIST(1), NYX_NONE)), SHAPE(0), NULL));
  CHECK(holds(apply(ID(sum), x, NULL, NULL, ATTRS(LIST(0), NYX_NONE, NYX_NONE)), SHAPE(3),
              VALUES(0, 0, 0)));
  CHECK(holds(apply(ID(std), x, NULL, NULL, ATTRS(LIST(0), NYX_NONE, NYX_NONE)), SHAPE(3),
              VALUES(NAN, NAN, NAN)));
  nyx_tensor_release(x);
}

static void integers_widen_and_wrap(void) {
  nyx_tensor *x = make(NYX_UINT8, SHAPE(3), VALUES(200, 200, 200)), *y;
  y = apply(ID(sum), x, NULL, NULL, NULL);
  CHECK_INT(y->dtype, NYX_INT64);
  CHECK(holds(y, 0, NULL, VALUES(600)));
  y = apply(ID(cumprod), x, NULL, NULL, ATTRS(SCAN(0)));
  CHECK_INT(y->dtype, NYX_INT64);
  CHECK(holds(y, SHAPE(3), VALUES(200, 40000, 8e6)));
  nyx_tensor_release(x);
  x = make(NYX_INT64, SHAPE(3), VALUES(0x1p62, 0x1p62, 4));
  CHECK(holds(apply(ID(sum), x, NULL, NULL, NULL), 0, NULL, VALUES(-0x1p63)));
  CHECK(holds(apply(ID(prod), x, NULL, NULL, NULL), 0, NULL, VALUES(0)));
  CHECK(holds(apply(ID(cumsum), x, NULL, NULL, ATTRS(SCAN(0))), SHAPE(3),
              VALUES(0x1p62, -0x1p63, -0x1p63)));
  nyx_tensor_release(x);
  x = make(NYX_BOOL, SHAPE(4), VALUES(1, 0, 1, 1));
  CHECK(holds(apply(ID(sum), x, NULL, NULL, NULL), 0, NULL, VALUES(3)));
  nyx_tensor_release(x);
}

static void errors(void) {
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(2, 3), VALUES(1, 2, 3, 4, 5, 6));
  nyx_tensor *i = make(NYX_INT64, SHAPE(2), VALUES(1, 2));
  CHECK(fails(ID(sum), x, NULL, NULL, ATTRS(LIST(2), NYX_NONE), NYX_ERR_INDEX, "sum: "));
  CHECK(fails(ID(sum), x, NULL, NULL, ATTRS(LIST(1, -1), NYX_NONE), NYX_ERR_ARGUMENT,
              "twice"));
  CHECK(fails(ID(var), x, NULL, NULL, ATTRS(LIST(-3), NYX_NONE, NYX_NONE), NYX_ERR_INDEX,
              "var: "));
  CHECK(fails(ID(cumsum), x, NULL, NULL, ATTRS(SCAN(5)), NYX_ERR_INDEX, "cumsum: "));
  CHECK(fails(ID(cumsum), x, NULL, NULL, NULL, NYX_ERR_ARGUMENT, "'dim' is missing"));
  CHECK(fails(ID(mean), i, NULL, NULL, NULL, NYX_ERR_DTYPE, "int64"));
  CHECK(fails(ID(var), i, NULL, NULL, NULL, NYX_ERR_DTYPE, "int64"));
  CHECK(fails(ID(var), x, NULL, NULL, ATTRS(NYX_NONE, NYX_F(NAN), NYX_NONE),
              NYX_ERR_ARGUMENT, "correction"));
  nyx_tensor_release(x);
  nyx_tensor_release(i);
}

/* Scans */

UNTRACED static void scan_of(const double *v, const double *factor, int64_t n,
                             bool product, bool reverse, bool exclusive, double *y) {
  double run = product;
  for (int64_t k = 0; k < n; k++) {
    int64_t i = reverse ? n - 1 - k : k;
    double before = run;
    if (factor) { /* linear_scan */
      y[i] = exclusive ? before : v[i] + before;
      run = factor[i] * y[i] + (exclusive ? v[i] : 0);
      continue;
    }
    run = product ? before * v[i] : before + v[i];
    y[i] = exclusive ? before : run;
  }
}

static void compare_scan(nyx__op_id op, nyx_dtype dtype, const int64_t *shape, int layout,
                         int dim, int options) {
  static double row[3][MAX];
  bool linear = op == ID(linear_scan), product = op == ID(cumprod);
  nyx_tensor *x = laid_out(dtype, 3, shape, layout, product);
  nyx_tensor *factor = linear ? laid_out(dtype, 3, shape, layout, true) : NULL;
  nyx_tensor *y = apply(op, x, factor, NULL,
                        ATTRS(NYX_I(dim), NYX_I(options & 1), NYX_I(options >> 1)));
  double *v = read(x), *f = factor ? read(factor) : NULL, *got = read(y);
  int64_t inner = 1, n = shape[dim];
  for (int d = dim + 1; d < 3; d++) inner *= shape[d];
  for (int64_t r = 0; r < x->numel / n; r++) {
    int64_t first = r / inner * n * inner + r % inner;
    double size = 1;
    for (int64_t k = 0; k < n; k++) {
      row[0][k] = v[first + k * inner];
      if (f) row[1][k] = f[first + k * inner];
      size += fabs(row[0][k]);
    }
    scan_of(row[0], f ? row[1] : NULL, n, product, options & 1, options >> 1, row[2]);
    for (int64_t k = 0; k < n; k++) {
      double error = fabs(got[first + k * inner] - row[2][k]);
      double room =
          nyx_dtype_is_float(dtype) ? epsilon(dtype) * (size + fabs(row[2][k])) : 0;
      if (error <= room) continue;
      CHECK_AT(false, nyx__op(op)->name,
               " of %s, dim %d, layout %d, options %d: %g, not %g", nyx_dtype_name(dtype),
               dim, layout, options, got[first + k * inner], row[2][k]);
      break;
    }
  }
  nyx_tensor_release(x);
  nyx_tensor_release(factor);
  nyx_tensor_release(y);
}

static void scans(void) {
  static const int64_t shapes[][3] = {{3, 4, 5}, {2, 70, 3}, {5, 1, 700}, {600, 2, 1}};
  static const nyx__op_id ops[] = {ID(cumsum), ID(cumprod), ID(linear_scan)};
  for (int op = 0; op < 3; op++)
    for (int dtype = 0; dtype < NYX_DTYPE_COUNT; dtype++) {
      if (!(nyx__op(ops[op])->dtypes & NYX_DTYPES(dtype))) continue;
      for (int k = 0; k < 4; k++)
        for (int round = 0; round < CHECK_ROUNDS(48); round++)
          compare_scan(ops[op], (nyx_dtype)dtype, shapes[k], round % 4, round / 4 % 3,
                       round / 12);
    }
}

/* Products with zeros, where dividing by the element does not give the gradient. Every
 * product is linear in each element: a difference of results is exact. */

UNTRACED static double weighted(nyx__op_id op, const nyx_value *attr, const double *v,
                                int64_t n) {
  nyx_tensor *x = make(NYX_FLOAT64, 1, &n, v), *y = apply(op, x, NULL, NULL, attr);
  double *values = read(y), sum = 0;
  for (int64_t i = 0; i < y->numel; i++) sum += values[i] * (double)(i + 1);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return sum;
}

static void zeros_at(nyx__op_id op, const nyx_value *attr, unsigned zeros) {
  enum { N = 5 };
  double v[N], weight[N], want[N];
  const int64_t n = N;
  for (int i = 0; i < N; i++) {
    v[i] = zeros >> i & 1 ? 0 : (double)(next() % 16) / 8 + 0.5;
    weight[i] = i + 1;
  }
  for (int i = 0; i < N; i++) {
    double at = v[i];
    v[i] = at + 1;
    want[i] = weighted(op, attr, v, n);
    v[i] = at - 1;
    want[i] = (want[i] - weighted(op, attr, v, n)) / 2;
    v[i] = at;
  }
  nyx_tensor *x = make(NYX_FLOAT64, 1, &n, v), *grad = NULL;
  must(nyx_tensor_set_requires_grad(ctx, x, true));
  nyx_tensor *y = apply(op, x, NULL, NULL, attr);
  nyx_tensor *seed = make(NYX_FLOAT64, y->ndim, y->shape, weight);
  CHECK_OK(ctx, nyx_gradients(ctx, y, seed, &x, 1, NULL, &grad));
  double *got = read(grad);
  for (int i = 0; i < N; i++) CHECK_NEAR(got[i], want[i], 1e-11);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_tensor_release(seed);
  nyx_tensor_release(grad);
}

static void products_with_zeros(void) {
  for (unsigned zeros = 0; zeros < 32; zeros++) {
    zeros_at(ID(prod), NULL, zeros);
    for (int options = 0; options < 4; options++)
      zeros_at(ID(cumprod), ATTRS(NYX_I(0), NYX_I(options & 1), NYX_I(options >> 1)),
               zeros);
  }
}

/* Results that are no numbers to divide by, though the products of all others are; one
 * row of these beside a usual one. */
static void products_out_of_range(void) {
  const double rows[][4] = {{1e30, 1e30, 2, 3}, {1e-30, 1e-30, 2, 3}, {2, 3, 4, 5}};
  for (int k = 0; k < 3; k++) {
    double v[8], want[8];
    for (int i = 0; i < 8; i++) {
      const double *row = rows[i < 4 ? 2 : k];
      v[i] = row[i % 4];
      want[i] = 1;
      for (int other = 0; other < 4; other++)
        if (other != i % 4) want[i] *= row[other];
    }
    nyx_tensor *x = make(NYX_FLOAT32, SHAPE(2, 4), v), *grad = NULL;
    must(nyx_tensor_set_requires_grad(ctx, x, true));
    nyx_tensor *y = apply(ID(prod), x, NULL, NULL, ATTRS(LIST(1), NYX_I(0)));
    nyx_tensor *seed = make(NYX_FLOAT32, SHAPE(2), VALUES(1, 1));
    CHECK_OK(ctx, nyx_gradients(ctx, y, seed, &x, 1, NULL, &grad));
    double *got = read(grad);
    for (int i = 0; i < 8; i++) {
      const bool beyond = want[i] > 3.5e38;
      const double room = want[i] < 1e-38 ? 1e-38 : 1e-6 * want[i];
      CHECK_AT(beyond ? isinf(got[i]) : fabs(got[i] - want[i]) <= room, "prod",
               " case %d, element %d: %g, not %g", k, i, got[i], want[i]);
    }
    nyx_tensor *all[] = {x, y, seed, grad};
    for (int t = 0; t < 4; t++) nyx_tensor_release(all[t]);
  }
}

/* A product is linear in each element: its second derivative there is 0, not what is left
 * of two quotients. */
static void products_twice(void) {
  const nyx_backward_options options = {.create_graph = true};
  for (int k = 0; k < 20; k++) {
    double v[5];
    for (int i = 0; i < 5; i++) v[i] = 0.3 + fmod((5 * k + i) * 0.618034, 1);
    nyx_tensor *x = make(NYX_FLOAT32, SHAPE(5), v), *g = NULL;
    must(nyx_tensor_set_requires_grad(ctx, x, true));
    nyx_tensor *y = apply(ID(prod), x, NULL, NULL, ATTRS(LIST(0), NYX_I(0)));
    CHECK_OK(ctx, nyx_gradients(ctx, y, NULL, &x, 1, &options, &g));
    for (int64_t i = 0; i < 5; i++) {
      nyx_tensor *one = apply(ID(select), g, NULL, NULL, ATTRS(NYX_I(0), NYX_I(i)));
      nyx_tensor *second = NULL;
      CHECK_OK(ctx, nyx_gradients(ctx, one, NULL, &x, 1, &options, &second));
      CHECK_NEAR(read(second)[i], 0, 0);
      nyx_tensor_release(one);
      nyx_tensor_release(second);
    }
    nyx_tensor *all[] = {x, y, g};
    for (int t = 0; t < 3; t++) nyx_tensor_release(all[t]);
  }
}

/* Equal extremes share their gradient; the one that dim selects takes all. */
static void ties(void) {
  nyx_tensor *x = make(NYX_FLOAT64, SHAPE(4), VALUES(3, 1, 3, 2)), *y, *grad = NULL;
  must(nyx_tensor_set_requires_grad(ctx, x, true));
  y = apply(ID(amax), x, NULL, NULL, NULL);
  CHECK_OK(ctx, nyx_gradients(ctx, y, NULL, &x, 1, NULL, &grad));
  CHECK(holds(grad, SHAPE(4), VALUES(0.5, 0, 0.5, 0)));
  nyx_tensor_release(y);
  grad = NULL;
  y = apply(ID(max), x, NULL, NULL, ATTRS(NYX_I(0), NYX_NONE));
  CHECK_OK(ctx, nyx_gradients(ctx, y, NULL, &x, 1, NULL, &grad));
  CHECK(holds(grad, SHAPE(4), VALUES(1, 0, 0, 0)));
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void run(void) {
  RUN(every_reduction);
  RUN(equal_numbers);
  RUN(long_sums);
  RUN(many_wide_rows);
  RUN(same_for_any_threads);
  RUN(narrow_for_any_threads);
  RUN(special_values);
  RUN(variances_down);
  RUN(positions_in_columns);
  RUN(extremes_of_bytes);
  RUN(positions_count_from_the_base);
  RUN(of_nothing);
  RUN(integers_widen_and_wrap);
  RUN(errors);
  RUN(scans);
  RUN(products_with_zeros);
  RUN(products_out_of_range);
  RUN(products_twice);
  RUN(ties);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
