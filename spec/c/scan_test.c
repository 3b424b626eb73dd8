/* Running sums of rows and columns that are long enough to be cut: the exact bits, which
 * neither the path nor the number of threads may change, how near they are to the truth,
 * and that they never fall where nothing is negative; the exact bits of products. Short
 * ones, and recurrences: reduce_test.c. Read next: paths.h, kernels/cpu/scan.h. */
#include "paths.h"

#include "core/tensor/tensor.h"

enum { GROUP = 8, COLUMNS = 256, PART = 16384, ENOUGH = 32 };

static double uniform(void) {
  return (double)next() / 0x1p24;
}

/* The sums of one column in the order that core/op/scan.c and its kernels promise: of
 * `group` elements at a time in a row, or a row of pairs. */
static void model(const double *v, int64_t n, int64_t length, int64_t group,
                  bool exclusive, double *y) {
  double carry = 0;
  for (int64_t first = 0; first < n; first += length) {
    int64_t end = first + length < n ? first + length : n;
    double run = 0;
    for (int64_t k = first; k < end;) {
      int64_t count = end - k >= group ? group : 1;
      double p[GROUP];
      memcpy(p, v + k, (size_t)count * sizeof *p);
      for (int half = 1; half < count; half *= 2)
        for (int i = 0; i < count; i++)
          if (i & half) p[i] += p[(i & -2 * half) + half - 1];
      for (int i = 0; i < count; i++)
        y[k + i] = carry + (run + (exclusive ? (i ? p[i - 1] : 0) : p[i]));
      run += p[count - 1];
      k += count;
    }
    carry += run;
  }
}

static nyx_tensor *sums_of(nyx_tensor *x, int dim, int options) {
  return apply(ID(cumsum), x, NULL, NULL,
               ATTRS(NYX_I(dim), NYX_I(options & 1), NYX_I(options >> 1)));
}

static double element(const nyx_tensor *t, int64_t i) {
  return nyx__load_double(
      t->dtype, (const char *)nyx__data(t) + (size_t)i * nyx_dtype_size(t->dtype));
}

static void compare(const nyx_tensor *x, const nyx_tensor *y, int options) {
  int64_t n = x->shape[1], inner = x->shape[2];
  int64_t width = inner < COLUMNS ? inner : COLUMNS, length = PART / width;
  if (x->shape[0] * ((inner + COLUMNS - 1) / COLUMNS) >= ENOUGH || n < 2 * length)
    length = n;
  double *v = malloc((size_t)n * 2 * sizeof *v), *want = v + n;
  int64_t wrong = 0;
  for (int64_t c = 0; c < x->shape[0] * inner; c++) {
    int64_t first = c / inner * n * inner + c % inner;
    for (int64_t k = 0; k < n; k++)
      v[k] = element(x, first + (options & 1 ? n - 1 - k : k) * inner);
    model(v, n, length, inner > 2 ? 1 : GROUP / inner, options >> 1, want);
    for (int64_t k = 0; k < n; k++) {
      double got = element(y, first + (options & 1 ? n - 1 - k : k) * inner);
      wrong += got != (x->dtype == NYX_FLOAT32 ? (double)(float)want[k] : want[k]);
    }
  }
  free(v);
  CHECK_AT(wrong == 0, "sums", " of %s %d x %d x %d, options %d: %d differ",
           nyx_dtype_name(x->dtype), (int)x->shape[0], (int)n, (int)inner, options,
           (int)wrong);
}

static bool same_bytes(const nyx_tensor *a, const nyx_tensor *b) {
  size_t bytes = (size_t)a->numel * nyx_dtype_size(a->dtype);
  return memcmp(nyx__data(a), nyx__data(b), bytes) == 0;
}

static nyx_tensor *filled(nyx_dtype dtype, const int64_t *shape) {
  nyx_tensor *x;
  must(nyx_tensor_empty(ctx, dtype, 3, shape, &x));
  size_t item = nyx_dtype_size(dtype);
  for (int64_t i = 0; i < x->numel; i++) {
    char *p = (char *)nyx__data(x) + (size_t)i * item;
    if (dtype == NYX_INT64)
      nyx__store_int(dtype, p, (int64_t)next() - (1 << 23));
    else
      nyx__store_double(dtype, p, (uniform() - 0.3) * exp2(floor(uniform() * 30)));
  }
  return x;
}

static const int64_t shapes[][3] = {{1, 100003, 1}, {3, 33001, 1}, {40, 1003, 1},
                                    {2, 20011, 2},  {1, 303, 300}, {33, 502, 21},
                                    {1, 150, 1100}}; /* two wide blocks in one thread */

static void promised_order(void) {
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_INT64};
  for (int k = 0; k < 6; k++)
    for (int d = 0; d < 3; d++) {
      nyx_tensor *x = filled(dtypes[d], shapes[k]);
      for (int options = 0; options < 4; options++) {
        nyx_tensor *y = sums_of(x, 1, options);
        compare(x, y, options);
        nyx_tensor_release(y);
      }
      nyx_tensor_release(x);
    }
}

static void same_for_any_threads(void) {
  for (int k = 0; k < 6; k++) {
    nyx_tensor *x = filled(NYX_FLOAT64, shapes[k]), *one = NULL;
    for (int threads = 1; threads <= 5; threads += 2) {
      must(nyx_parallel_set_threads(threads));
      nyx_tensor *y = sums_of(x, 1, 0);
      if (one) CHECK_AT(same_bytes(one, y), "sums", " with %d threads", threads);
      nyx_tensor_release(one);
      one = y;
    }
    nyx_tensor_release(one);
    nyx_tensor_release(x);
  }
  must(nyx_parallel_set_threads(0));
}

/* Products are made one after the other in every column, whatever is beside it; that
 * with a negative zero is one too. */
static void products_in_order(void) {
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_INT64};
  static const int64_t wide[][3] = {{2, 9, 1},   {1, 7, 2},    {3, 6, 5},
                                    {1, 13, 31}, {2, 11, 300}, {1, 150, 1100}};
  for (int k = 0; k < 6 * 3 * 4 * 2; k++) {
    const int64_t *shape = wide[k % 6], n = shape[1], inner = shape[2];
    const int options = k / 18 % 4;
    nyx_tensor *x = filled(dtypes[k / 6 % 3], shape);
    for (int64_t i = 0; i < x->numel && x->dtype != NYX_INT64; i++)
      nyx__store_double(x->dtype,
                        (char *)nyx__data(x) + (size_t)i * nyx_dtype_size(x->dtype),
                        i < x->numel - 1 ? 0.5 + uniform() : -0.0);
    must(nyx_parallel_set_threads(1 + k / 72));
    nyx_tensor *y = apply(ID(cumprod), x, NULL, NULL,
                          ATTRS(NYX_I(1), NYX_I(options & 1), NYX_I(options >> 1)));
    int64_t wrong = 0;
    for (int64_t c = 0; c < shape[0] * inner; c++) {
      double run = 1;
      uint64_t whole = 1;
      for (int64_t j = 0; j < n; j++) {
        const int64_t i =
            c / inner * n * inner + c % inner + (options & 1 ? n - 1 - j : j) * inner;
        const double before = run;
        const uint64_t whole_before = whole;
        run *= element(x, i);
        if (x->dtype == NYX_INT64) {
          whole *= (uint64_t)((const int64_t *)nyx__data(x))[i];
          wrong += (uint64_t)((const int64_t *)nyx__data(y))[i] !=
                   (options >> 1 ? whole_before : whole);
        } else {
          const double want = options >> 1 ? before : run;
          const double got = element(y, i);
          wrong += got != (x->dtype == NYX_FLOAT32 ? (double)(float)want : want) ||
                   !signbit(got) != !signbit(want);
        }
      }
    }
    CHECK_AT(wrong == 0, "products", " of %s %d x %d x %d, options %d: %d differ",
             nyx_dtype_name(x->dtype), (int)shape[0], (int)n, (int)inner, options,
             (int)wrong);
    nyx_tensor_release(x);
    nyx_tensor_release(y);
  }
  must(nyx_parallel_set_threads(0));
}

/* Integers wrap around, wherever they are cut. */
static void wraps(void) {
  nyx_tensor *x = filled(NYX_INT64, (int64_t[]){1, 50000, 1});
  int64_t *v = nyx__data(x);
  uint64_t sum = 0;
  for (int64_t i = 0; i < x->numel; i++) v[i] = INT64_MAX - i * 12345;
  nyx_tensor *y = sums_of(x, 1, 0);
  const int64_t *got = nyx__data(y);
  int64_t wrong = 0;
  for (int64_t i = 0; i < x->numel; i++)
    wrong += (int64_t)(sum += (uint64_t)v[i]) != got[i];
  CHECK_INT(wrong, 0);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
}

/* Against long double, on which a running sum of doubles loses many more digits: float32
 * is as good as rounded once, float64 better than one sum after another. */
static void near_the_truth(void) {
  for (int wide = 0; wide < 2; wide++) {
    nyx_dtype dtype = wide ? NYX_FLOAT64 : NYX_FLOAT32;
    nyx_tensor *x = filled(dtype, (int64_t[]){1, 1 << 20, 1});
    for (int64_t i = 0; i < x->numel; i++) {
      void *p = (char *)nyx__data(x) + (size_t)i * nyx_dtype_size(dtype);
      nyx__store_double(dtype, p, uniform() + uniform() * 0x1p-30);
    }
    nyx_tensor *y = sums_of(x, 1, 0);
    long double truth = 0, worst = 0, worst_plain = 0;
    double plain = 0;
    for (int64_t i = 0; i < x->numel; i++) {
      truth += (long double)element(x, i);
      plain += element(x, i);
      long double error = fabsl((long double)element(y, i) - truth) / truth;
      if (error > worst) worst = error;
      long double other = fabsl((long double)plain - truth) / truth;
      if (other > worst_plain) worst_plain = other;
    }
    if (wide)
      CHECK_AT(worst < worst_plain / 4, "float64", ": worst %Lg, one by one %Lg", worst,
               worst_plain);
    else
      CHECK_AT(worst < 0x1.000002p-24L, "float32", ": worst %Lg", worst);
    nyx_tensor_release(x);
    nyx_tensor_release(y);
  }
}

/* Probabilities add up to something to search in: no step may go down, and one of nothing
 * must stay. */
static void never_falls(void) {
  for (int wide = 0; wide < 2; wide++)
    for (int k = 0; k < 6; k++) {
      nyx_tensor *x = filled(wide ? NYX_FLOAT64 : NYX_FLOAT32, shapes[k]);
      size_t item = nyx_dtype_size(x->dtype);
      for (int64_t i = 0; i < x->numel; i++) {
        double v = next() % 3 ? 0 : exp2(-uniform() * 60);
        nyx__store_double(x->dtype, (char *)nyx__data(x) + (size_t)i * item, v);
      }
      for (int options = 0; options < 4; options++) {
        nyx_tensor *y = sums_of(x, 1, options);
        int64_t n = x->shape[1], inner = x->shape[2], falls = 0;
        for (int64_t i = 0; i < x->numel; i++) {
          if (i / inner % n == n - 1) continue;
          double step = element(y, i + inner) - element(y, i);
          falls += options & 1 ? step > 0 : step < 0;
        }
        CHECK_AT(falls == 0, "sums", " of %d columns of %d, options %d: %d steps down",
                 (int)(x->numel / n), (int)n, options, (int)falls);
        nyx_tensor_release(y);
      }
      nyx_tensor_release(x);
    }
}

/* Infinities and NaN in one part reach all later ones, as they do one by one. */
static void special_values(void) {
  nyx_tensor *x = filled(NYX_FLOAT32, (int64_t[]){1, 70000, 1});
  float *v = nyx__data(x);
  for (int64_t i = 0; i < x->numel; i++) v[i] = -0.0f;
  v[20003] = INFINITY;
  v[60001] = -INFINITY;
  nyx_tensor *y = sums_of(x, 1, 0);
  const float *got = nyx__data(y);
  int64_t wrong = 0;
  for (int64_t i = 0; i < x->numel; i++)
    wrong += i < 20003   ? got[i] != 0 || signbit(got[i])
             : i < 60001 ? got[i] != INFINITY
                         : !isnan(got[i]);
  CHECK_INT(wrong, 0);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
}

static void without_memory(void) {
  nyx_tensor *x = filled(NYX_FLOAT32, (int64_t[]){1, 70000, 1}), *y = NULL;
  const nyx_value attrs[] = {NYX_I(1), NYX_I(0), NYX_I(0)};
  nyx_status status = NYX_ERR_MEMORY;
  for (int after = 0; status == NYX_ERR_MEMORY && after < 20; after++) {
    nyx_memory_fail_after(after);
    status = nyx__apply1(ctx, ID(cumsum), x, attrs, &y);
    nyx_memory_fail_after(-1);
    CHECK(status == NYX_OK || status == NYX_ERR_MEMORY);
  }
  CHECK(status == NYX_OK);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
}

static void run(void) {
  RUN(promised_order);
  RUN(same_for_any_threads);
  RUN(products_in_order);
  RUN(wraps);
  RUN(near_the_truth);
  RUN(never_falls);
  RUN(special_values);
  RUN(without_memory);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
