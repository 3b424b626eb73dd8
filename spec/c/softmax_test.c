/* softmax, log_softmax and the losses made of them against plain loops in double: every
 * float dtype, any strides, every option, on every path of the CPU. Read next: layouts.h,
 * paths.h, reduce_test.c. */
#include <nyx/parallel.h>

#include "layouts.h"
#include "paths.h"

/* Softmax */

static void softmax_of(const double *x, int64_t n, double *p, double *logs) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, x[i]);
  for (int64_t i = 0; i < n; i++) sum += exp(x[i] - most);
  for (int64_t i = 0; i < n; i++) {
    logs[i] = x[i] - most - log(sum);
    p[i] = exp(logs[i]);
  }
}

/* The gradients of softmax and log_softmax at their result r. */
static void backward_of(bool is_log, const double *g, const double *r, int64_t n,
                        double *y) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += is_log ? g[i] : g[i] * r[i];
  for (int64_t i = 0; i < n; i++)
    y[i] = is_log ? g[i] - exp(r[i]) * sum : r[i] * (g[i] - sum);
}

static double *row_of(const double *v, int64_t first, int64_t n, int64_t step) {
  static double rows[4][MAX];
  static int used;
  double *row = rows[used++ % 4];
  for (int64_t i = 0; i < n; i++) row[i] = v[first + i * step];
  return row;
}

static void compare_softmax(nyx_dtype dtype, int ndim, const int64_t *shape, int layout,
                            int dim) {
  static double want[4][MAX];
  static const nyx__op_id ops[] = {ID(softmax), ID(log_softmax), ID(softmax_backward),
                                   ID(log_softmax_backward)};
  nyx_tensor *x = laid_out(dtype, ndim, shape, layout, false);
  nyx_tensor *g = laid_out(dtype, ndim, shape, (layout + 1) % LAYOUTS, false);
  double *xv = read(x), *gv = read(g), *got[4];
  for (int k = 0; k < 4; k++) {
    nyx_tensor *y =
        apply(ops[k], k < 2 ? x : g, k < 2 ? NULL : x, NULL, ATTRS(NYX_I(dim)));
    got[k] = read(y);
    nyx_tensor_release(y);
  }
  int64_t inner = 1, n = shape[dim];
  for (int d = dim + 1; d < ndim; d++) inner *= shape[d];
  for (int64_t r = 0; r < x->numel / n; r++) {
    int64_t first = r / inner * n * inner + r % inner;
    double *xr = row_of(xv, first, n, inner), *gr = row_of(gv, first, n, inner), size = 0;
    softmax_of(xr, n, want[0], want[1]);
    backward_of(false, gr, xr, n, want[2]);
    backward_of(true, gr, xr, n, want[3]);
    for (int64_t i = 0; i < n; i++) size += fabs(gr[i]) * 3 * fabs(xr[i]) + fabs(gr[i]);
    for (int k = 0; k < 4; k++)
      for (int64_t i = 0; i < n; i++) {
        double room =
            epsilon(dtype) * (k < 2 ? 8 + 2 * fabs(want[k][i]) : 8 * (8 + size));
        if (k == 0)
          room = epsilon(dtype) * 6 * want[0][i] + 1e-7 * (dtype == NYX_FLOAT16);
        double error = fabs(got[k][first + i * inner] - want[k][i]);
        if (error <= room) continue;
        CHECK_AT(false, nyx__op(ops[k])->name,
                 " of %s, dim %d, layout %d: %.9g, not %.9g", nyx_dtype_name(dtype), dim,
                 layout, got[k][first + i * inner], want[k][i]);
        break;
      }
  }
  nyx_tensor_release(x);
  nyx_tensor_release(g);
}

static void softmax_in_any_layout(void) {
  static const int64_t shapes[][3] = {{3, 4, 5},   {2, 33, 3}, {1, 7, 1},
                                      {5, 1, 700}, {2, 2, 16}, {17, 1, 130}};
  for (int dtype = 0; dtype < NYX_DTYPE_COUNT; dtype++) {
    if (!nyx_dtype_is_float((nyx_dtype)dtype)) continue;
    for (int k = 0; k < 6; k++)
      for (int round = 0; round < 12; round++)
        compare_softmax((nyx_dtype)dtype, 3, shapes[k], round % 4, round / 4);
    for (int64_t n = 1; n < 70; n++)
      compare_softmax((nyx_dtype)dtype, 1, &n, n % 2 ? SPACED : PLAIN, 0);
  }
}

/* Columns that are read as they lie against the same as rows. */
static void columns_as_rows(void) {
  static const int64_t shapes[][3] = {{2, 3, 15},   {1, 300, 16},   {3, 257, 17},
                                      {1, 1, 127},  {2, 70, 255},   {1, 9, 1023},
                                      {1, 5, 1025}, {1, 600, 2100}, {4, 0, 20}};
  static const nyx__op_id ops[] = {ID(softmax), ID(log_softmax), ID(softmax_backward),
                                   ID(log_softmax_backward)};
  const nyx_value turn[] = {NYX_I(1), NYX_I(2)};
  for (int k = 0; k < 18; k++) {
    const nyx_dtype dtype = k < 9 ? NYX_FLOAT32 : NYX_FLOAT64;
    const nyx_value attrs[] = {NYX_LIST(shapes[k % 9], 3), NYX_I(dtype)};
    nyx_tensor *x[2], *turned[2], *rows[2];
    for (int i = 0; i < 2; i++) {
      must(nyx__applyn(ctx, ID(randn), NULL, 0, attrs, &x[i]));
      turned[i] = apply(ID(transpose), x[i], NULL, NULL, turn);
      rows[i] = apply(ID(contiguous), turned[i], NULL, NULL, NULL);
    }
    for (int i = 0; i < 4; i++) {
      nyx_tensor *more = i < 2 ? NULL : x[1], *more_rows = i < 2 ? NULL : rows[1];
      nyx_tensor *y = apply(ops[i], x[0], more, NULL, ATTRS(NYX_I(1)));
      nyx_tensor *want = apply(ops[i], rows[0], more_rows, NULL, ATTRS(NYX_I(2)));
      nyx_tensor *back = apply(ID(transpose), want, NULL, NULL, turn), *error, *most;
      error = apply(ID(sub), y, back, NULL, NULL);
      most = apply(ID(abs), error, NULL, NULL, NULL);
      double worst = 0;
      for (int64_t e = 0; e < most->numel; e++)
        worst =
            fmax(worst, nyx__load_double(dtype, (char *)nyx_tensor_data(most) +
                                                    (size_t)e * nyx_dtype_size(dtype)));
      const double room = dtype == NYX_FLOAT32 ? 3e-3 : 1e-11;
      CHECK_AT(worst <= (i < 2 ? room / 1000 : room), nyx__op(ops[i])->name,
               " of %d rows of %d: %g", (int)shapes[k % 9][1], (int)shapes[k % 9][2],
               worst);
      nyx_tensor *all[] = {y, want, back, error, most};
      for (int t = 0; t < 5; t++) nyx_tensor_release(all[t]);
    }
    for (int i = 0; i < 2; i++) {
      nyx_tensor_release(x[i]);
      nyx_tensor_release(turned[i]);
      nyx_tensor_release(rows[i]);
    }
  }
}

/* What is special in one column leaves those beside it alone. */
static void special_columns(void) {
  enum { COLUMNS = 20, ROWS = 3 };
  static const double column[][ROWS] = {
      {1, -INFINITY, 1},   {-INFINITY, -INFINITY, -INFINITY},
      {1, NAN, -INFINITY}, {INFINITY, 1, 2},
      {NAN, NAN, NAN},     {1e30, -1e30, 1e30}};
  const int64_t shape[] = {ROWS, COLUMNS}, n = ROWS;
  double all[ROWS * COLUMNS];
  for (int i = 0; i < ROWS * COLUMNS; i++) all[i] = column[i % COLUMNS % 6][i / COLUMNS];
  for (int k = 0; k < 4; k++) {
    const nyx_dtype dtype = k % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    const nyx__op_id op = k < 2 ? ID(softmax) : ID(log_softmax);
    nyx_tensor *x = make(dtype, 2, shape, all);
    nyx_tensor *y = apply(op, x, NULL, NULL, ATTRS(NYX_I(0)));
    double got[ROWS * COLUMNS];
    memcpy(got, read(y), sizeof got);
    for (int c = 0; c < COLUMNS; c++) {
      nyx_tensor *row = make(dtype, 1, &n, column[c % 6]);
      nyx_tensor *want = apply(op, row, NULL, NULL, NULL);
      for (int i = 0; i < ROWS; i++) {
        const double a = got[i * COLUMNS + c], b = read(want)[i];
        CHECK_AT(a == b || (isnan(a) && isnan(b)) || fabs(a - b) < 1e-6,
                 nyx__op(op)->name, " column %d: %g, not %g", c, a, b);
      }
      nyx_tensor_release(row);
      nyx_tensor_release(want);
    }
    nyx_tensor_release(x);
    nyx_tensor_release(y);
  }
}

/* Rows so long that several tasks share one, also with the greatest value, an infinity or
 * a nan in another piece. */
static void long_rows(void) {
  int64_t shape[2] = {2, 100003};
  nyx_tensor *x, *first = NULL;
  must(nyx_tensor_empty(ctx, NYX_FLOAT32, 2, shape, &x));
  float *v = nyx_tensor_data(x);
  double sum[2] = {0};
  for (int64_t i = 0; i < x->numel; i++) {
    v[i] = (float)random_value(NYX_FLOAT32, false);
    if (i % shape[1] == 70000) v[i] = 9;
    sum[i / shape[1]] += exp((double)v[i]);
  }
  for (int threads = 1; threads <= 3; threads++) {
    must(nyx_parallel_set_threads(threads));
    nyx_tensor *y = apply(ID(softmax), x, NULL, NULL, ATTRS(NYX_I(1)));
    nyx_tensor *l = apply(ID(log_softmax), x, NULL, NULL, ATTRS(NYX_I(1)));
    nyx_tensor *e = apply(ID(logsumexp), x, NULL, NULL, ATTRS(LIST(1), NYX_NONE));
    const float *p = nyx_tensor_data(y), *logs = nyx_tensor_data(l);
    double off = 0, off_log = 0, total[2] = {0};
    for (int64_t i = 0; i < x->numel; i++) {
      double want = exp((double)v[i]) / sum[i / shape[1]];
      off = fmax(off, fabs((double)p[i] - want) / want);
      off_log = fmax(off_log, fabs((double)logs[i] - log(want)));
      total[i / shape[1]] += (double)p[i];
    }
    CHECK_NEAR(off, 0, 1e-6);
    CHECK_NEAR(off_log, 0, 3e-6);
    for (int r = 0; r < 2; r++) {
      CHECK_NEAR(total[r], 1, 1e-6);
      CHECK_NEAR(read(e)[r], log(sum[r]), 2e-6);
    }
    if (first) {
      CHECK(memcmp(nyx_tensor_data(first), p, (size_t)x->numel * sizeof *p) == 0);
    } else {
      first = nyx_tensor_retain(y);
    }
    nyx_tensor_release(y);
    nyx_tensor_release(l);
    nyx_tensor_release(e);
  }
  must(nyx_parallel_set_threads(0));
  nyx_tensor_release(first);
  const float odd[] = {NAN, INFINITY};
  for (int k = 0; k < 2; k++) { /* all of that row is nan, the other stays */
    v[90000] = odd[k];
    nyx_tensor *y = apply(ID(softmax), x, NULL, NULL, ATTRS(NYX_I(1)));
    nyx_tensor *e = apply(ID(logsumexp), x, NULL, NULL, ATTRS(LIST(1), NYX_NONE));
    const float *p = nyx_tensor_data(y);
    CHECK(isnan(p[0]) && isnan(p[90000]) && isnan(p[shape[1] - 1]));
    CHECK(!isnan(p[shape[1]]));
    CHECK(k == 0 ? isnan(read(e)[0]) : read(e)[0] == INFINITY);
    nyx_tensor_release(y);
    nyx_tensor_release(e);
  }
  nyx_tensor_release(x);
}

static bool row_is(nyx__op_id op, int64_t n, const double *x, const double *want,
                   double room) {
  for (int dtype = NYX_FLOAT32; dtype <= NYX_FLOAT64; dtype++) {
    nyx_tensor *t = make((nyx_dtype)dtype, 1, &n, x);
    nyx_tensor *y = apply(op, t, NULL, NULL, NULL);
    double *got = read(y);
    for (int64_t i = 0; i < y->numel; i++) {
      bool equal = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
      if (equal || fabs(got[i] - want[i]) <= room) continue;
      printf("# %s: element %d is %g, expected %g\n", nyx_dtype_name((nyx_dtype)dtype),
             (int)i, got[i], want[i]);
      return false;
    }
    nyx_tensor_release(t);
    nyx_tensor_release(y);
  }
  return true;
}

/* Results beyond any cache are written past them, and rows of several pieces are then one
 * task's: nothing else differs from the last rows alone. */
static void rows_past_the_caches(void) {
  static const int64_t shapes[][2] = {{9001, 1003}, {97, 100003}, {3, 3000001}};
  static const nyx__op_id ops[] = {ID(softmax), ID(log_softmax), ID(softmax_backward),
                                   ID(log_softmax_backward)};
  for (int k = 0; k < 3; k++) {
    const nyx_value attrs[] = {NYX_LIST(shapes[k], 2), NYX_I(NYX_FLOAT32)};
    nyx_tensor *x[2], *last[2];
    for (int i = 0; i < 2; i++) {
      must(nyx__applyn(ctx, ID(randn), NULL, 0, attrs, &x[i]));
      last[i] = last_rows(x[i], 2);
    }
    for (int i = 0; i < 4; i++) {
      nyx_tensor *y = apply(ops[i], x[0], i < 2 ? NULL : x[1], NULL, ATTRS(NYX_I(1)));
      nyx_tensor *few =
          apply(ops[i], last[0], i < 2 ? NULL : last[1], NULL, ATTRS(NYX_I(1)));
      CHECK_AT(ends_with(y, few), nyx__op(ops[i])->name, " of %d rows of %d",
               (int)shapes[k][0], (int)shapes[k][1]);
      nyx_tensor_release(y);
      nyx_tensor_release(few);
    }
    for (int i = 0; i < 2; i++) {
      nyx_tensor_release(x[i]);
      nyx_tensor_release(last[i]);
    }
  }
}

static void special_rows(void) {
  const double inf = INFINITY;
  CHECK(row_is(ID(softmax), 3, VALUES(1e30, 1e30, -1e30), VALUES(0.5, 0.5, 0), 0));
  CHECK(row_is(ID(softmax), 3, VALUES(3, -inf, 3), VALUES(0.5, 0, 0.5), 0));
  CHECK(row_is(ID(softmax), 2, VALUES(-inf, -inf), VALUES(NAN, NAN), 0));
  CHECK(row_is(ID(softmax), 3, VALUES(1, NAN, -inf), VALUES(NAN, NAN, NAN), 0));
  CHECK(row_is(ID(log_softmax), 2, VALUES(-inf, 5), VALUES(-inf, 0), 0));
  CHECK(row_is(ID(log_softmax), 2, VALUES(0, -1000), VALUES(0, -1000), 0));
  CHECK(row_is(ID(log_softmax), 2, VALUES(20, 0), VALUES(-2.061153620314381e-09, -20),
               1e-8));
  CHECK(row_is(ID(log_softmax), 2, VALUES(-inf, -inf), VALUES(NAN, NAN), 0));
  CHECK(row_is(ID(logsumexp), 3, VALUES(-inf, -inf, -inf), VALUES(-inf), 0));
  CHECK(row_is(ID(logsumexp), 3, VALUES(-inf, inf, 1), VALUES(inf), 0));
  CHECK(row_is(ID(logsumexp), 3, VALUES(inf, NAN, 1), VALUES(NAN), 0));
  CHECK(row_is(ID(logsumexp), 2, VALUES(1e4, 1e4), VALUES(1e4 + log(2)), 1e-3));
  double many[100], want[100];
  for (int i = 0; i < 100; i++) many[i] = -inf, want[i] = NAN;
  CHECK(row_is(ID(softmax), 100, many, want, 0));
  many[77] = -2;
  for (int i = 0; i < 100; i++) want[i] = i == 77;
  CHECK(row_is(ID(softmax), 100, many, want, 0));
  nyx_tensor *x = make(NYX_FLOAT32, 0, NULL, VALUES(7));
  CHECK(holds(apply(ID(softmax), x, NULL, NULL, NULL), 0, NULL, VALUES(1)));
  CHECK(fails(ID(softmax), x, NULL, NULL, ATTRS(NYX_I(1)), NYX_ERR_INDEX, "softmax: "));
  nyx_tensor_release(x);
  x = make(NYX_FLOAT32, SHAPE(2, 0), NULL);
  CHECK(holds(apply(ID(softmax), x, NULL, NULL, NULL), SHAPE(2, 0), NULL));
  CHECK(holds(apply(ID(logsumexp), x, NULL, NULL, ATTRS(LIST(1), NYX_NONE)), SHAPE(2),
              VALUES(-inf, -inf)));
  nyx_tensor_release(x);
}

/* Losses */

typedef struct loss_case {
  bool nll, probabilities, weighted, ignores;
  const char *reduction;
  double smoothing;
  int64_t batch, classes, inner; /* inner 0: x is (batch, classes); batch 0: (classes) */
} loss_case;

/* What the definition says, over rows of classes: losses per row, and the gradient of
 * their weighted sum to x. */
typedef struct loss_result {
  double rows[MAX], grad[MAX], loss;
} loss_result;

static void loss_of(const loss_case *c, int64_t rows, const double *x,
                    const double *label, const double *target, const double *w,
                    double ignore, const double *g, loss_result *out) {
  static double p[MAX], logs[MAX], q[MAX];
  int64_t n = c->classes;
  double divisor = c->probabilities ? (double)rows : 0;
  out->loss = 0;
  for (int64_t r = 0; !c->probabilities && r < rows; r++)
    if (!(c->ignores && label[r] == ignore))
      divisor += c->weighted ? w[(int64_t)label[r] - ctx->index_base] : 1;
  bool mean = strcmp(c->reduction, "mean") == 0, each = strcmp(c->reduction, "none") == 0;
  if (!mean) divisor = 1;
  for (int64_t r = 0; r < rows; r++) {
    bool ignored = !c->probabilities && c->ignores && label[r] == ignore;
    double all = 0, s = (each ? g[r] : g[0]) / divisor;
    softmax_of(x + r * n, n, p, logs);
    out->rows[r] = 0;
    for (int64_t k = 0; k < n; k++) {
      double own =
          c->probabilities ? target[r * n + k] : label[r] - ctx->index_base == (double)k;
      q[k] = (1 - c->smoothing) * own + c->smoothing / (double)n;
      if (c->weighted) q[k] *= w[k];
      if (ignored) q[k] = 0;
      all += q[k];
      out->rows[r] -= q[k] == 0 ? 0 : q[k] * (c->nll ? x[r * n + k] : logs[k]);
    }
    for (int64_t k = 0; k < n; k++)
      out->grad[r * n + k] = s * ((c->nll ? 0 : all * p[k]) - q[k]);
    for (int64_t k = 0; ignored && k < n; k++) out->grad[r * n + k] = 0;
    out->loss += out->rows[r] / divisor;
  }
}

/* t's values with its second dimension moved last. */
static double *classes_last(nyx_tensor *t) {
  if (t->ndim < 2) return read(t);
  nyx_tensor *view;
  int64_t order[] = {0, 2, 1};
  if (t->ndim == 2) return read(t);
  must(nyx__apply1(ctx, ID(permute), t, ATTRS(NYX_LIST(order, 3)), &view));
  double *values = read(view);
  nyx_tensor_release(view);
  return values;
}

static bool near_all(const double *got, const double *want, int64_t n, double room,
                     const char *what) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabs(got[i] - want[i]) <= room * (1 + fabs(want[i]))) &&
        !(isnan(got[i]) && isnan(want[i])))
      return CHECK_AT(false, what, ": element %d is %.9g, expected %.9g", (int)i, got[i],
                      want[i]);
  return true;
}

/* Above 0. */
static nyx_tensor *weights(nyx_dtype dtype, int64_t n) {
  nyx_tensor *t = laid_out(dtype, 1, &n, PLAIN, true), *above;
  must(nyx__apply1(ctx, ID(abs), t, NULL, &above));
  nyx_tensor_release(t);
  return above;
}

/* Sums of float64 keep the room of all tests only where terms of both signs do not
 * cancel: then the oracle is as far off as what it is compared with. */
static void drop_signs(nyx_tensor *t) {
  double *v = nyx_tensor_data(t);
  for (size_t i = 0; i < nyx_tensor_storage_bytes(t) / sizeof *v; i++) v[i] = fabs(v[i]);
}

static void compare_loss(const loss_case *c, nyx_dtype dtype, int layout) {
  static loss_result want;
  int64_t shape[3] = {c->batch, c->classes, c->inner}, kept[2] = {c->batch, c->inner};
  int ndim = c->batch == 0 ? 1 : c->inner == 0 ? 2 : 3;
  const int64_t *x_shape = c->batch ? shape : shape + 1;
  double ignore = 2 + ctx->index_base;
  nyx_tensor *x = laid_out(dtype, ndim, x_shape, layout, false);
  nyx_tensor *target = c->probabilities
                           ? laid_out(dtype, ndim, x_shape, (layout + 2) % LAYOUTS, true)
                           : positions(c->classes, ndim - 1, kept);
  if (!c->probabilities)
    target = scramble(target);
  else if (dtype == NYX_FLOAT64)
    drop_signs(target);
  nyx_tensor *weight = c->weighted ? weights(dtype, c->classes) : NULL;
  bool each = strcmp(c->reduction, "none") == 0;
  nyx_tensor *g = laid_out(dtype, each ? ndim - 1 : 0, kept, PLAIN, false);
  int64_t rows = x->numel / c->classes;
  loss_of(c, rows, classes_last(x), read(target), classes_last(target),
          weight ? read(weight) : NULL, ignore, read(g), &want);
  const nyx_value attr[] = {c->ignores ? NYX_I((int64_t)ignore) : NYX_NONE,
                            NYX_S(c->reduction), NYX_F(c->smoothing)};
  nyx_tensor *y =
      apply(c->nll ? ID(nll_loss) : ID(cross_entropy), x, target, weight, attr);
  nyx_tensor *in[] = {g, x, target, weight}, *dx = NULL;
  CHECK_OK(ctx,
           nyx__applyn(ctx, c->nll ? ID(nll_loss_backward) : ID(cross_entropy_backward),
                       in, 4, attr, &dx));
  char what[160];
  snprintf(what, sizeof what, "%s %s of %s, %s%s%s smoothing %g, %dd, layout %d",
           c->nll ? "nll_loss" : "cross_entropy", c->reduction, nyx_dtype_name(dtype),
           c->probabilities ? "probabilities " : "", c->weighted ? "weight " : "",
           c->ignores ? "ignore" : "", c->smoothing, ndim, layout);
  double room = 8 * epsilon(dtype);
  if (y) near_all(read(y), each ? want.rows : &want.loss, each ? rows : 1, room, what);
  if (dx) near_all(classes_last(dx), want.grad, x->numel, room, what);
  nyx_tensor *all[] = {x, target, weight, g, y, dx};
  for (int i = 0; i < 6; i++) nyx_tensor_release(all[i]);
}

static void every_loss(void) {
  static const char *const reductions[] = {"mean", "sum", "none"};
  static const int64_t sizes[][3] = {{64, 10, 0}, {0, 7, 0}, {3, 5, 4}, {9, 33, 0}};
  for (int base = 0; base < 2; base++) {
    ctx->index_base = base;
    for (int options = 0; options < 32; options++)
      for (int round = 0; round < 3 * 4 * 4; round++) {
        const int64_t *size = sizes[round / 3 % 4];
        loss_case c = {.nll = options & 1,
                       .probabilities = options >> 1 & 1,
                       .weighted = options >> 2 & 1,
                       .ignores = options >> 3 & 1,
                       .reduction = reductions[round % 3],
                       .smoothing = options >> 4 ? 0.15 : 0,
                       .batch = size[0],
                       .classes = size[1],
                       .inner = size[2]};
        if (c.probabilities && (c.ignores || c.nll)) continue;
        if (c.nll && c.smoothing > 0) continue;
        for (int layout = 0; layout < LAYOUTS; layout++)
          compare_loss(&c, (nyx_dtype)(round / 12), c.batch ? layout : layout % 3);
      }
  }
  ctx->index_base = 0;
}

/* Large differences and masks do not overflow. */
static void stable_losses(void) {
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(3, 2), VALUES(1e4, -1e4, -INFINITY, 3, 88, 90)),
             *y;
  nyx_tensor *t = make(NYX_INT64, SHAPE(3), VALUES(1, 1, 0));
  y = apply(ID(cross_entropy), x, t, NULL, ATTRS(NYX_NONE, NYX_S("none"), NYX_NONE));
  CHECK_NEAR(read(y)[0], 2e4, 0);
  CHECK_NEAR(read(y)[1], 0, 0);
  CHECK_NEAR(read(y)[2], 2 + log1p(exp(-2)), 1e-6);
  nyx_tensor_release(y);
  nyx_tensor_release(t);
  t = make(NYX_INT64, SHAPE(3), VALUES(5, 5, 5)); /* all ignored: 0 / 0 */
  const nyx_value ignore[] = {NYX_I(5), NYX_NONE, NYX_NONE};
  y = apply(ID(cross_entropy), x, t, NULL, ignore);
  CHECK(isnan(read(y)[0]));
  nyx_tensor_release(y);
  nyx_tensor_release(x);
  nyx_tensor_release(t);
  x = make(NYX_FLOAT32, SHAPE(0, 4), NULL);
  t = make(NYX_INT64, SHAPE(0), NULL);
  y = apply(ID(cross_entropy), x, t, NULL, NULL);
  CHECK(isnan(read(y)[0]));
  nyx_tensor_release(y);
  y = apply(ID(cross_entropy), x, t, NULL, ATTRS(NYX_NONE, NYX_S("sum"), NYX_NONE));
  CHECK_NEAR(read(y)[0], 0, 0);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
  nyx_tensor_release(t);
}

/* A sum over many rows has the same bits for any number of threads, and is exact. */
static void many_rows(void) {
  int64_t shape[2] = {40000, 3};
  double first = 0, sum = 0, value;
  nyx_tensor *x, *t;
  must(nyx_tensor_empty(ctx, NYX_FLOAT32, 2, shape, &x));
  must(nyx_tensor_empty(ctx, NYX_INT64, 1, shape, &t));
  float *v = nyx_tensor_data(x);
  int64_t *label = nyx_tensor_data(t);
  for (int64_t r = 0; r < shape[0]; r++) {
    double p[3], logs[3], row[3];
    for (int k = 0; k < 3; k++) {
      v[3 * r + k] = (float)random_value(NYX_FLOAT32, false);
      row[k] = (double)v[3 * r + k];
    }
    label[r] = next() % 3;
    softmax_of(row, 3, p, logs);
    sum -= logs[label[r]];
  }
  for (int threads = 1; threads <= 3; threads++) {
    must(nyx_parallel_set_threads(threads));
    nyx_tensor *y = apply(ID(cross_entropy), x, t, NULL, NULL);
    must(nyx_tensor_item(ctx, y, &value));
    CHECK_NEAR(value, sum / (double)shape[0], 2e-7);
    if (threads > 1) CHECK_NEAR(value, first, 0);
    first = value;
    nyx_tensor_release(y);
  }
  must(nyx_parallel_set_threads(0));
  nyx_tensor_release(x);
  nyx_tensor_release(t);
}

static void errors(void) {
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(2, 3), VALUES(1, 2, 3, 4, 5, 6));
  nyx_tensor *t = make(NYX_INT64, SHAPE(2), VALUES(1, 3)), *w = NULL;
  nyx_tensor *bools = make(NYX_BOOL, SHAPE(2), VALUES(1, 0));
  nyx__op_id op = ID(cross_entropy);
  CHECK(fails(op, x, t, NULL, NULL, NYX_ERR_INDEX,
              "class 3 in the target is out of range"));
  CHECK(fails(op, x, t, NULL, NULL, NYX_ERR_INDEX, "3 classes, counted from 0"));
  ctx->index_base = 1; /* now 1 and 3 are classes */
  nyx_tensor_release(apply(op, x, t, NULL, NULL));
  nyx_tensor *zero = make(NYX_UINT8, SHAPE(2), VALUES(0, 1));
  CHECK(fails(op, x, zero, NULL, NULL, NYX_ERR_INDEX, "class 0"));
  CHECK(fails(op, x, zero, NULL, ATTRS(NYX_I(-1), NYX_NONE, NYX_NONE), NYX_ERR_INDEX,
              "'ignore_index' is -1"));
  nyx_tensor_release(apply(op, x, zero, NULL, ATTRS(NYX_I(0), NYX_NONE, NYX_NONE)));
  ctx->index_base = 0;
  CHECK(fails(op, x, bools, NULL, NULL, NYX_ERR_DTYPE, "bool"));
  CHECK(fails(op, x, x, NULL, ATTRS(NYX_I(1), NYX_NONE, NYX_NONE), NYX_ERR_DTYPE,
              "ignore_index"));
  CHECK(fails(ID(nll_loss), x, x, NULL, NULL, NYX_ERR_SHAPE, "integers of shape (2)"));
  CHECK(fails(op, x, t, NULL, ATTRS(NYX_NONE, NYX_S("avg"), NYX_NONE), NYX_ERR_ARGUMENT,
              "\"avg\""));
  CHECK(fails(op, x, t, NULL, ATTRS(NYX_NONE, NYX_NONE, NYX_F(1.5)), NYX_ERR_ARGUMENT,
              "label_smoothing"));
  w = make(NYX_FLOAT32, SHAPE(2), VALUES(1, 1));
  CHECK(fails(op, x, t, w, NULL, NYX_ERR_SHAPE, "3 classes"));
  nyx_tensor_release(t);
  t = make(NYX_INT64, SHAPE(3), VALUES(1, 0, 1));
  CHECK(fails(op, x, t, NULL, NULL, NYX_ERR_SHAPE, "the target is int64 of shape (3)"));
  nyx_tensor *number = make(NYX_FLOAT32, 0, NULL, VALUES(1));
  CHECK(fails(op, number, t, NULL, NULL, NYX_ERR_SHAPE, "(batch, classes)"));
  nyx_tensor *in[] = {w, x, bools}, *out = NULL;
  CHECK_STATUS(nyx__applyn(ctx, ID(cross_entropy_backward), in, 3, NULL, &out),
               NYX_ERR_DTYPE);
  nyx_tensor *all[] = {x, t, w, bools, zero, number};
  for (int i = 0; i < 6; i++) nyx_tensor_release(all[i]);
}

static void run(void) {
  RUN(softmax_in_any_layout);
  RUN(columns_as_rows);
  RUN(special_columns);
  RUN(long_rows);
  RUN(rows_past_the_caches);
  RUN(special_rows);
  RUN(every_loss);
  RUN(stable_losses);
  RUN(many_rows);
  RUN(errors);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
