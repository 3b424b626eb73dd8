/* layer_norm, rms_norm and their gradient kernel against plain loops in double: widths
 * around those of vectors, one row to many, with and without parameters, on every path of
 * the CPU. Read next: tensors.h, paths.h. */
#include <nyx/parallel.h>

#include "layouts.h"
#include "paths.h"

typedef struct norm_case {
  nyx_dtype dtype;
  int64_t rows, n;
  bool center, weighted;
  double offset; /* the mean of x */
} norm_case;

typedef struct norm_result {
  double y[MAX], x[MAX], weight[MAX], bias[MAX];
  double largest; /* term of a parameter's gradient */
} norm_result;

/* y = hat * w + b; the gradient g to all of them. */
static void norm_of(const norm_case *c, const double *x, const double *w, const double *b,
                    const double *g, norm_result *out) {
  double n = (double)c->n;
  memset(out, 0, sizeof *out);
  for (int64_t r = 0; r < c->rows; r++) {
    const double *xr = x + r * c->n, *gr = g + r * c->n;
    double mean = 0, squares = 0, sum = 0, dot = 0;
    for (int64_t i = 0; c->center && i < c->n; i++) mean += xr[i] / n;
    for (int64_t i = 0; i < c->n; i++) squares += (xr[i] - mean) * (xr[i] - mean);
    double rstd = 1 / sqrt(squares / n + 1e-5);
    for (int64_t i = 0; i < c->n; i++) {
      double hat = (xr[i] - mean) * rstd, weight = w ? w[i] : 1;
      out->y[r * c->n + i] = hat * weight + (b ? b[i] : 0);
      sum += gr[i] * weight;
      dot += gr[i] * weight * hat;
      out->weight[i] += gr[i] * hat;
      out->bias[i] += gr[i];
      out->largest = fmax(out->largest, fabs(gr[i]) * fmax(1, fabs(hat)));
    }
    for (int64_t i = 0; i < c->n; i++) {
      double hat = (xr[i] - mean) * rstd, gw = gr[i] * (w ? w[i] : 1);
      out->x[r * c->n + i] = rstd * (gw - (c->center ? sum / n : 0) - hat * dot / n);
    }
  }
}

static bool near_all(const norm_case *c, const char *what, nyx_tensor *t,
                     const double *want, double room) {
  double *got = read(t);
  for (int64_t i = 0; i < t->numel; i++)
    if (!(fabs(got[i] - want[i]) <= room * (1 + fabs(want[i]))))
      return CHECK_AT(
          false, what,
          " of %s, %d rows of %d, center %d, weight %d, offset %g: element %d "
          "is %.9g, expected %.9g",
          nyx_dtype_name(c->dtype), (int)c->rows, (int)c->n, c->center, c->weighted,
          c->offset, (int)i, got[i], want[i]);
  return true;
}

static void compare(const norm_case *c) {
  static norm_result want;
  static double values[MAX];
  const int64_t shape[2] = {c->rows, c->n};
  for (int64_t i = 0; i < c->rows * c->n; i++)
    values[i] = c->offset + random_value(c->dtype, false);
  nyx_tensor *x = make(c->dtype, 2, shape, values);
  nyx_tensor *g = random_tensor(c->dtype, 2, shape, false);
  nyx_tensor *w = c->weighted ? random_tensor(c->dtype, 1, &c->n, false) : NULL;
  nyx_tensor *b =
      c->weighted && c->center ? random_tensor(c->dtype, 1, &c->n, false) : NULL;
  norm_of(c, read(x), w ? read(w) : NULL, b ? read(b) : NULL, read(g), &want);

  nyx_tensor *y = NULL, *in[] = {x, w, b}, *out[NYX_MAX_OUTPUTS] = {NULL};
  CHECK_OK(ctx, nyx__applyn(ctx, c->center ? ID(layer_norm) : ID(rms_norm), in,
                            c->center ? 3 : 2, NULL, &y));
  const nyx_value attr[] = {NYX_LIST(&c->n, 1), NYX_F(1e-5), NYX_I(c->center), NYX_I(1)};
  nyx_tensor *back[] = {g, x, w};
  CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(layer_norm_backward)), back, 3, attr, out));
  double room = 8 * epsilon(c->dtype) * (1 + c->offset);
  if (y) near_all(c, "layer_norm", y, want.y, room);
  if (out[0]) {
    near_all(c, "gradient to x", out[0], want.x, room);
    double all = room * want.largest * sqrt((double)c->rows);
    near_all(c, "gradient to weight", out[1], want.weight, all);
    near_all(c, "gradient to bias", out[2], want.bias, all);
  }
  nyx_tensor *done[] = {x, g, w, b, y, out[0], out[1], out[2]};
  for (int i = 0; i < 8; i++) nyx_tensor_release(done[i]);
}

static void any_width(void) {
  for (int options = 0; options < 8; options++) {
    norm_case c = {.dtype = options & 1 ? NYX_FLOAT64 : NYX_FLOAT32,
                   .center = options & 2,
                   .weighted = options & 4};
    for (c.n = 2; c.n < 70; c.n++)
      for (c.rows = 1; c.rows < 6; c.rows++) compare(&c);
    static const int64_t sizes[][2] = {{150, 130}, {7, 1025}, {3, 5000}, {2, 8192}};
    for (int k = 0; k < 4; k++) {
      c.rows = sizes[k][0];
      c.n = sizes[k][1];
      c.offset = 0;
      compare(&c);
      c.offset = c.center ? 100 : 0;
      compare(&c);
    }
  }
}

/* The parameters' gradients come from many rows and columns at once. */
static void any_number_of_threads(void) {
  const int64_t shape[2] = {301, 9001};
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64};
  for (int k = 0; k < 2; k++) {
    nyx_tensor *x, *first[3] = {NULL};
    const nyx_value standard = NYX_I(dtypes[k]);
    const nyx_value attrs[] = {NYX_LIST(shape, 2), standard};
    must(nyx__applyn(ctx, ID(randn), NULL, 0, attrs, &x));
    for (int threads = 1; threads <= 3; threads++) {
      nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL}, *in[] = {x, x};
      must(nyx_parallel_set_threads(threads));
      must(nyx_apply(ctx, nyx__op(ID(layer_norm_backward)), in, 2, NULL, out));
      for (int i = 0; i < 3; i++) {
        if (!first[i]) {
          first[i] = out[i];
          continue;
        }
        size_t bytes = (size_t)out[i]->numel * nyx_dtype_size(dtypes[k]);
        CHECK_AT(memcmp(nyx_tensor_data(out[i]), nyx_tensor_data(first[i]), bytes) == 0,
                 "layer_norm_backward", ": result %d with %d threads", i, threads);
        nyx_tensor_release(out[i]);
      }
    }
    for (int i = 0; i < 3; i++) nyx_tensor_release(first[i]);
    nyx_tensor_release(x);
  }
  must(nyx_parallel_set_threads(0));
}

/* The gradients of weight and bias that x as its own gradient gives, of one column. */
static bool sums_of_column(const nyx_tensor *x, int64_t column, double weight,
                           double bias) {
  const float *v = nyx_tensor_data(x);
  int64_t n = x->shape[1];
  double all = 0, products = 0;
  for (int64_t r = 0; r < x->shape[0]; r++) {
    const float *row = v + r * n;
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)row[i] / (double)n;
    for (int64_t i = 0; i < n; i++)
      squares += ((double)row[i] - mean) * ((double)row[i] - mean);
    double g = row[column];
    all += g;
    products += g * (g - mean) / sqrt(squares / (double)n + 1e-5);
  }
  double room = 1e-6 * (double)x->shape[0];
  return fabs(weight - products) < room && fabs(bias - all) < room;
}

/* Results beyond any cache are written past them, block by block: nothing else differs
 * from the last rows alone. */
static void past_the_caches(void) {
  static const int64_t shapes[][2] = {{9001, 1003}, {263, 32771}};
  for (int k = 0; k < 4; k++) {
    const int64_t *shape = shapes[k % 2];
    const bool center = k < 2;
    const nyx_value size = NYX_LIST(shape + 1, 1);
    nyx_tensor *x, *w, *y, *few_y, *out[NYX_MAX_OUTPUTS] = {NULL};
    nyx_tensor *few[NYX_MAX_OUTPUTS] = {NULL};
    const nyx_value attrs[] = {NYX_LIST(shape, 2), NYX_I(NYX_FLOAT32)};
    must(nyx__applyn(ctx, ID(randn), NULL, 0, attrs, &x));
    must(nyx__applyn(ctx, ID(randn), NULL, 0, (nyx_value[]){size, NYX_I(NYX_FLOAT32)},
                     &w));
    nyx_tensor *last = last_rows(x, 3);
    nyx_tensor *in[] = {x, w, w}, *in_few[] = {last, w, w};
    nyx__op_id op = center ? ID(layer_norm) : ID(rms_norm);
    must(nyx__applyn(ctx, op, in, center ? 3 : 2, NULL, &y));
    must(nyx__applyn(ctx, op, in_few, center ? 3 : 2, NULL, &few_y));
    const nyx_value back[] = {size, NYX_F(1e-5), NYX_I(center), NYX_I(1)};
    nyx_tensor *both[] = {x, x, w}, *both_few[] = {last, last, w};
    must(nyx_apply(ctx, nyx__op(ID(layer_norm_backward)), both, 3, back, out));
    must(nyx_apply(ctx, nyx__op(ID(layer_norm_backward)), both_few, 3, back, few));
    CHECK(ends_with(y, few_y));
    CHECK(ends_with(out[0], few[0]));
    const float *weight = nyx_tensor_data(out[1]), *bias = nyx_tensor_data(out[2]);
    const int64_t n = shape[1], columns[] = {0, 1000, n - 1};
    for (int i = 0; center && i < 3; i++)
      CHECK(sums_of_column(x, columns[i], (double)weight[columns[i]],
                           (double)bias[columns[i]]));
    nyx_tensor *done[] = {x, w, last, y, few_y};
    for (int i = 0; i < 5; i++) nyx_tensor_release(done[i]);
    for (int i = 0; i < 3; i++) nyx_tensor_release(out[i]);
    for (int i = 0; i < 3; i++) nyx_tensor_release(few[i]);
  }
}

static void no_rows(void) {
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(0, 3), NULL), *in[] = {x, x};
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  must(nyx_apply(ctx, nyx__op(ID(layer_norm_backward)), in, 2, NULL, out));
  CHECK(holds(out[0], SHAPE(0, 3), NULL));
  CHECK(holds(out[1], SHAPE(3), VALUES(0, 0, 0)));
  CHECK(holds(out[2], SHAPE(3), VALUES(0, 0, 0)));
  nyx_tensor_release(x);
}

static void run(void) {
  RUN(any_width);
  RUN(any_number_of_threads);
  RUN(past_the_caches);
  RUN(no_rows);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
