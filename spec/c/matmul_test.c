/* Matrix products against a plain double loop: dtypes, strides, batches, sizes around the
 * limits where another way of computing begins, without a BLAS, without memory, with
 * other numbers of threads; convolution, normalization and embedding against their
 * definitions where the data-driven spec does not reach. */
#include <nyx/nyx.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/linalg/blas.h"
#include "core/linalg/gemm.h"
#include "kernels/cpu/cpu.h"

static nyx_context *ctx;
static uint64_t state = 1;

/* Small multiples of 1/8: sums of many are exact in float32, so results are comparable
 * whatever the order. */
UNTRACED static double number(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int)(state >> 60) / 8 - 1;
}

UNTRACED_CHECK static nyx_tensor *filled(nyx_dtype dtype, int ndim,
                                         const int64_t *shape) {
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) n *= shape[d];
  double *values = calloc((size_t)n + 1, sizeof *values);
  nyx_tensor *wide = NULL, *t = NULL;
  if (!values) return NULL;
  for (int64_t i = 0; i < n; i++) {
    values[i] = nyx_dtype_is_float(dtype) ? number() : number() * 8;
  }
  nyx_status status = nyx_tensor_from_data(ctx, NYX_FLOAT64, ndim, shape, values, &wide);
  if (status == NYX_OK) {
    nyx_value to = NYX_I(dtype);
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    status = nyx_apply(ctx, nyx_op_find("cast"), &wide, 1, &to, out);
    t = out[0];
  }
  CHECK_OK(ctx, status);
  nyx_tensor_release(wide);
  free(values);
  return t;
}

static nyx_tensor *apply(const char *name, nyx_tensor *const *in, int n,
                         const nyx_value *attrs) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(name), in, n, attrs, out));
  for (int i = 1; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(out[i]);
  return out[0];
}

static nyx_tensor *matmul(nyx_tensor *a, nyx_tensor *b) {
  return apply("matmul", (nyx_tensor *[]){a, b}, 2, NULL);
}

static nyx_tensor *transposed(nyx_tensor *t, int d0, int d1) {
  const nyx_value attrs[] = {NYX_I(d0), NYX_I(d1)};
  return apply("transpose", &t, 1, attrs);
}

static double *doubles(nyx_tensor *t) {
  size_t n = (size_t)nyx_tensor_numel(t);
  double *values = calloc(n + 1, sizeof *values);
  if (values)
    CHECK_OK(ctx, nyx_tensor_read(ctx, t, NYX_FLOAT64, values, n * sizeof *values));
  return values;
}

/* The product of two plain matrices, with `bias` added to each row unless that is NULL.
 */
UNTRACED static double *by_loops(const double *a, const double *b, const double *bias,
                                 int64_t m, int64_t n, int64_t k) {
  double *sum = calloc((size_t)(m * n) + 1, sizeof *sum);
  if (!sum) abort();
  for (int64_t i = 0; i < m; i++) {
    double *row = sum + i * n;
    for (int64_t j = 0; j < n && bias; j++) row[j] = bias[j];
    for (int64_t l = 0; l < k; l++)
      for (int64_t j = 0; j < n; j++) row[j] += a[i * k + l] * b[l * n + j];
  }
  return sum;
}

/* Compares out with it. */
UNTRACED_CHECK static void compare(const nyx_tensor *out_, const double *a,
                                   const double *b, const double *bias, int64_t m,
                                   int64_t n, int64_t k, double tolerance) {
  double *got = doubles((nyx_tensor *)out_), *sum = by_loops(a, b, bias, m, n, k);
  double worst = 0;
  for (int64_t i = 0; i < m * n; i++) {
    double off = fabs(got[i] - sum[i]);
    if (!(off <= worst)) worst = off;
  }
  CHECK_NEAR(worst, 0, tolerance);
  free(got);
  free(sum);
}

static void product(nyx_dtype dtype, int64_t m, int64_t n, int64_t k, double tolerance) {
  nyx_tensor *a = filled(dtype, 2, (int64_t[]){m, k});
  nyx_tensor *b = filled(dtype, 2, (int64_t[]){k, n});
  nyx_tensor *c = matmul(a, b);
  double *x = doubles(a), *y = doubles(b);
  REQUIRE(CHECK(c && x && y));
  CHECK_INT(nyx_tensor_dtype(c), dtype);
  compare(c, x, y, NULL, m, n, k, tolerance);
  free(x);
  free(y);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_tensor_release(c);
}

/* A product too large to be followed number by number: several spans of terms and blocks
 * of columns. Held to exact sums of its rows and of its columns, each with a weight. */
UNTRACED_CHECK static void spans(nyx_dtype dtype) {
  enum { M = 49, N = 4100, K = 2500 };
  nyx_tensor *a = filled(dtype, 2, (int64_t[]){M, K});
  nyx_tensor *w = filled(dtype, 2, (int64_t[]){N, K}), *b = transposed(w, 0, 1);
  nyx_tensor *c = matmul(a, b), *weight = filled(NYX_FLOAT64, 1, (int64_t[]){N});
  double *x = doubles(a), *y = doubles(w), *got = doubles(c), *v = doubles(weight);
  double *sum = calloc(K, sizeof *sum);
  REQUIRE(CHECK(x && y && got && v && sum));
  for (int64_t j = 0; j < N; j++)
    for (int64_t l = 0; l < K; l++) sum[l] += v[j] * y[j * K + l];
  double worst = 0;
  for (int64_t i = 0; i < M; i++) {
    double off = 0;
    for (int64_t j = 0; j < N; j++) off += got[i * N + j] * v[j];
    for (int64_t l = 0; l < K; l++) off -= x[i * K + l] * sum[l];
    worst = fmax(worst, fabs(off));
  }
  memset(sum, 0, K * sizeof *sum);
  for (int64_t i = 0; i < M; i++)
    for (int64_t l = 0; l < K; l++) sum[l] += v[i] * x[i * K + l];
  for (int64_t j = 0; j < N; j++) {
    double off = 0;
    for (int64_t i = 0; i < M; i++) off += got[i * N + j] * v[i];
    for (int64_t l = 0; l < K; l++) off -= y[j * K + l] * sum[l];
    worst = fmax(worst, fabs(off));
  }
  CHECK_NEAR(worst, 0, 0);
  double *all[] = {x, y, got, v, sum};
  for (int i = 0; i < 5; i++) free(all[i]);
  nyx_tensor *tensors[] = {a, w, b, c, weight};
  for (int i = 0; i < 5; i++) nyx_tensor_release(tensors[i]);
}

static void sizes(void) {
  static const int64_t size[][3] = {
      {1, 1, 1},       {3, 4, 5},       {17, 33, 65},    {1, 300, 200},  {300, 1, 200},
      {1, 1, 5000},    {85, 97, 300},   {200, 190, 257}, {600, 33, 260}, {14, 5000, 64},
      {5000, 7, 130},  {9, 11, 90000},  {2, 3, 0},       {48, 97, 1000}, {47, 97, 1000},
      {160, 65, 500},  {161, 65, 500},  {100, 4100, 30}, {4150, 49, 50}, {128, 512, 784},
      {75, 4127, 400}, {300, 350, 400}, {165, 48, 3000}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    product(NYX_FLOAT32, size[i][0], size[i][1], size[i][2], 0);
    product(NYX_FLOAT64, size[i][0], size[i][1], size[i][2], 0);
  }
  spans(NYX_FLOAT32);
  spans(NYX_FLOAT64);
  product(NYX_FLOAT32, 1, 3000, 3000, 0);
  product(NYX_FLOAT32, 3000, 1, 3000, 0);
  product(NYX_INT32, 30, 40, 50, 0);
  product(NYX_INT64, 30, 40, 50, 0);
}

/* linear, whose weight lies transposed, adds to a bias: at sizes for each way of
 * computing that. */
static void added_to_bias(nyx_dtype dtype, int64_t m, int64_t n, int64_t k) {
  nyx_tensor *weight = filled(dtype, 2, (int64_t[]){n, k});
  nyx_tensor *in[] = {filled(dtype, 2, (int64_t[]){m, k}), weight,
                      filled(dtype, 1, (int64_t[]){n})};
  nyx_tensor *c = apply("linear", in, 3, NULL), *turned = transposed(weight, 0, 1);
  double *x = doubles(in[0]), *y = doubles(turned), *bias = doubles(in[2]);
  compare(c, x, y, bias, m, n, k, 0);
  free(x);
  free(y);
  free(bias);
  nyx_tensor_release(c);
  nyx_tensor_release(turned);
  for (int i = 0; i < 3; i++) nyx_tensor_release(in[i]);
}

static void biases(void) {
  static const int64_t size[][3] = {
      {3, 4, 5},       {1, 300, 200},   {300, 1, 200},    {600, 33, 260}, {9, 11, 90000},
      {2, 3, 0},       {160, 65, 500},  {161, 65, 500},   {14, 5000, 64}, {4150, 49, 50},
      {75, 4127, 400}, {1, 3000, 3000}, {200, 190, 1000}, {48, 48, 2000}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    added_to_bias(NYX_FLOAT32, size[i][0], size[i][1], size[i][2]);
    added_to_bias(NYX_FLOAT64, size[i][0], size[i][1], size[i][2]);
  }
}

static void half_types(void) {
  product(NYX_FLOAT16, 20, 30, 16, 1e-2);
  product(NYX_BFLOAT16, 20, 30, 16, 1e-1);
  product(NYX_FLOAT16, 2, 3, 700, 2e-2); /* long sums for few elements: converted */
  product(NYX_BFLOAT16, 2, 3, 700, 1e-1);
}

static void integers_wrap(void) {
  int8_t big[] = {100, 100};
  nyx_tensor *a, *b;
  REQUIRE(
      CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_INT8, 2, (int64_t[]){1, 2}, big, &a)));
  REQUIRE(
      CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_INT8, 2, (int64_t[]){2, 1}, big, &b)));
  nyx_tensor *c = matmul(a, b);
  int64_t value = 0;
  CHECK_OK(ctx, nyx_tensor_item_int(ctx, c, &value));
  CHECK_INT(value, (int8_t)20000);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_tensor_release(c);
}

/* All pairs of transposed, stepped and expanded operands equal the contiguous product. */
static void strides_of(nyx_dtype dtype, int64_t size) {
  nyx_tensor *base[2] = {filled(dtype, 2, (int64_t[]){size, size}),
                         filled(dtype, 2, (int64_t[]){size, size})};
  for (int way = 0; way < 16; way += CHECK_STEP) {
    nyx_tensor *view[2];
    double *plain[2];
    for (int side = 0; side < 2; side++) {
      int kind = side ? way / 4 : way % 4;
      if (kind == 0) view[side] = nyx_tensor_retain(base[side]);
      if (kind == 1) view[side] = transposed(base[side], 0, 1);
      if (kind == 2) { /* every second column of a wider matrix */
        nyx_tensor *wide = filled(dtype, 2, (int64_t[]){size, 2 * size});
        const nyx_value narrow[] = {NYX_I(1), NYX_I(0), NYX_I(size), NYX_I(2)};
        view[side] = apply("narrow", &wide, 1, narrow);
        nyx_tensor_release(wide);
      }
      if (kind == 3) { /* one row, repeated */
        nyx_tensor *row = filled(dtype, 2, (int64_t[]){1, size});
        const int64_t shape[] = {size, size};
        const nyx_value to = NYX_LIST(shape, 2);
        view[side] = apply("expand", &row, 1, &to);
        nyx_tensor_release(row);
      }
      plain[side] = doubles(view[side]);
    }
    nyx_tensor *c = matmul(view[0], view[1]);
    compare(c, plain[0], plain[1], NULL, size, size, size, 0);
    nyx_tensor_release(c);
    for (int side = 0; side < 2; side++) {
      nyx_tensor_release(view[side]);
      free(plain[side]);
    }
  }
  nyx_tensor_release(base[0]);
  nyx_tensor_release(base[1]);
}

static void strides(void) {
  strides_of(NYX_FLOAT32, 40);
  strides_of(NYX_FLOAT32, 150); /* B in place */
  strides_of(NYX_FLOAT32, 363); /* both packed */
  strides_of(NYX_FLOAT64, 170);
}

static void batches(void) {
  nyx_tensor *a = filled(NYX_FLOAT32, 4, (int64_t[]){3, 1, 5, 7});
  nyx_tensor *b = filled(NYX_FLOAT32, 3, (int64_t[]){4, 7, 6});
  nyx_tensor *c = matmul(a, b);
  double *x = doubles(a), *y = doubles(b), *z = doubles(c);
  CHECK_INT(nyx_tensor_ndim(c), 4);
  double worst = 0;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 4; j++) {
      for (int e = 0; e < 30; e++) {
        double sum = 0;
        for (int l = 0; l < 7; l++) {
          sum += x[i * 35 + e / 6 * 7 + l] * y[j * 42 + l * 6 + e % 6];
        }
        worst = fmax(worst, fabs(sum - z[(i * 4 + j) * 30 + e]));
      }
    }
  }
  CHECK_NEAR(worst, 0, 0);
  free(x);
  free(y);
  free(z);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_tensor_release(c);
}

/* Batches of tiny products of every size, as they lie and turned. */
static void tiny_batch(nyx_dtype dtype, int64_t count, int64_t m, int64_t n, int64_t k,
                       int turned) {
  nyx_tensor *a = turned & 1 ? filled(dtype, 3, (int64_t[]){count, k, m})
                             : filled(dtype, 3, (int64_t[]){count, m, k});
  nyx_tensor *b = turned & 2 ? filled(dtype, 3, (int64_t[]){count, n, k})
                             : filled(dtype, 3, (int64_t[]){count, k, n});
  nyx_tensor *left = turned & 1 ? transposed(a, 1, 2) : nyx_tensor_retain(a);
  nyx_tensor *right = turned & 2 ? transposed(b, 1, 2) : nyx_tensor_retain(b);
  nyx_tensor *c = matmul(left, right);
  double *x = doubles(left), *y = doubles(right), *z = doubles(c), worst = 0;
  for (int64_t i = 0; i < count * m * n; i++) {
    const double *row = x + i / n * k, *column = y + i / (m * n) * k * n + i % n;
    double sum = 0;
    for (int64_t l = 0; l < k; l++) sum += row[l] * column[l * n];
    worst = fmax(worst, fabs(sum - z[i]));
  }
  CHECK_NEAR(worst, 0, 0);
  free(x);
  free(y);
  free(z);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_tensor_release(left);
  nyx_tensor_release(right);
  nyx_tensor_release(c);
}

static void tiny_batches(void) {
  for (int64_t i = 0; i < 9 * 9 * 9; i++)
    for (int turned = 0; turned < 4; turned++)
      tiny_batch(turned == 1 || i % 7 == 0 ? NYX_FLOAT64 : NYX_FLOAT32, 7, 1 + i % 9,
                 1 + i / 9 % 9, 1 + i / 81, turned);
  for (int64_t n = 1; n <= 4; n++) { /* shared, and looked up from now and then */
    tiny_batch(NYX_FLOAT32, 20001, n, n, n, 0);
    tiny_batch(NYX_FLOAT64, 20001, 3, n, 2, 1);
  }
}

static void fails(const char *name, nyx_tensor *const *in, int n, const nyx_value *attrs,
                  nyx_status expected, const char *text) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  CHECK_STATUS(nyx_apply(ctx, nyx_op_find(name), in, n, attrs, out), expected);
  CHECK_CONTAINS(nyx_context_error(ctx), text);
  CHECK(out[0] == NULL);
}

static void errors(void) {
  nyx_tensor *a = filled(NYX_FLOAT32, 2, (int64_t[]){4, 3});
  nyx_tensor *b = filled(NYX_FLOAT32, 2, (int64_t[]){5, 2});
  nyx_tensor *number_ = filled(NYX_FLOAT32, 0, NULL);
  fails(
      "matmul", (nyx_tensor *[]){a, b}, 2, NULL, NYX_ERR_SHAPE,
      "matmul: inner sizes differ: (4x3) @ (5x2); the second argument must have 3 rows");
  fails("matmul", (nyx_tensor *[]){a, number_}, 2, NULL, NYX_ERR_SHAPE, "0-d");
  fails("linear", (nyx_tensor *[]){a, b}, 2, NULL, NYX_ERR_SHAPE, "3 features");
  nyx_tensor *x = filled(NYX_FLOAT32, 4, (int64_t[]){1, 2, 4, 4});
  nyx_tensor *w = filled(NYX_FLOAT32, 4, (int64_t[]){3, 3, 3, 3});
  nyx_tensor *big = filled(NYX_FLOAT32, 4, (int64_t[]){3, 2, 5, 5});
  fails("conv2d", (nyx_tensor *[]){x, w}, 2, NULL, NYX_ERR_SHAPE, "has 2 channels");
  fails("conv2d", (nyx_tensor *[]){x, big}, 2, NULL, NYX_ERR_SHAPE,
        "the kernel spans 5x5, the padded input has only 4x4");
  int64_t none = 0, huge = INT64_MAX;
  nyx_value attrs[4] = {NYX_LIST(&none, 1)};
  fails("conv2d", (nyx_tensor *[]){x, big}, 2, attrs, NYX_ERR_ARGUMENT, "'stride' is 0");
  attrs[0] = NYX_NONE;
  attrs[1] = (nyx_value)NYX_LIST(&huge, 1);
  fails("conv2d", (nyx_tensor *[]){x, big}, 2, attrs, NYX_ERR_ARGUMENT, "'padding'");
  nyx_tensor *index = filled(NYX_INT64, 1, (int64_t[]){1});
  *(int64_t *)nyx_tensor_data(index) = 4;
  fails("embedding", (nyx_tensor *[]){a, index}, 2, NULL, NYX_ERR_INDEX, "position 4");
  nyx_tensor *all[] = {a, b, number_, x, w, big, index};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) nyx_tensor_release(all[i]);
}

/* Every allocation fails in turn: a status, no result, nothing left behind. */
static void without_memory(void) {
  static const struct {
    const char *op;
    int n_in, ndim[3];
    int64_t shape[3][4];
    nyx_dtype dtype;
  } call[] = {
      {"matmul", 2, {2, 2}, {{200, 300}, {300, 180}}, NYX_FLOAT32},
      {"matmul", 2, {2, 2}, {{20, 30}, {30, 18}}, NYX_FLOAT16},
      {"matmul", 2, {2, 2}, {{8, 90000}, {90000, 8}}, NYX_FLOAT32},
      {"linear", 3, {2, 2, 1}, {{20, 30}, {18, 30}, {18}}, NYX_BFLOAT16},
      {"conv2d", 3, {4, 4, 1}, {{4, 3, 9, 9}, {5, 3, 3, 3}, {5}}, NYX_FLOAT16},
      {"conv2d", 2, {4, 4}, {{4, 3, 9, 9}, {5, 3, 3, 3}}, NYX_FLOAT32},
      {"layer_norm", 2, {2, 1}, {{20, 30}, {30}}, NYX_FLOAT16},
      {"batch_norm_training", 1, {2}, {{20, 30}}, NYX_FLOAT16},
  };
  for (size_t i = 0; i < sizeof call / sizeof *call; i++) {
    nyx_tensor *in[3] = {NULL}, *out[NYX_MAX_OUTPUTS] = {NULL};
    for (int k = 0; k < call[i].n_in; k++) {
      in[k] = filled(call[i].dtype, call[i].ndim[k], call[i].shape[k]);
    }
    nyx_memory_stats before, after;
    nyx_memory_get_stats(&before);
    nyx_status status = NYX_ERR_MEMORY;
    int64_t n = 0;
    for (; status != NYX_OK && n < 500; n++) {
      nyx_memory_fail_after(n);
      status = nyx_apply(ctx, nyx_op_find(call[i].op), in, call[i].n_in, NULL, out);
      nyx_memory_fail_after(-1);
      if (status != NYX_OK) {
        CHECK_STATUS(status, NYX_ERR_MEMORY);
        CHECK(out[0] == NULL);
      }
      for (int k = 0; k < NYX_MAX_OUTPUTS; k++) {
        nyx_tensor_release(out[k]);
        out[k] = NULL;
      }
      nyx_memory_get_stats(&after);
      CHECK_INT(after.live, before.live);
    }
    CHECK_OK(ctx, status);
    CHECK(n > 1);
    for (int k = 0; k < call[i].n_in; k++) nyx_tensor_release(in[k]);
  }
}

/* The same bits with one thread and with five. */
static void threads(void) {
  static const int64_t size[][3] = {{300, 310, 320}, {400, 410, 420}, {130, 70, 900},
                                    {64, 1000, 50},  {7, 9, 200000},  {5000, 10, 300},
                                    {1, 4000, 1000}, {700, 600, 900}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    int64_t m = size[i][0], n = size[i][1], k = size[i][2];
    nyx_tensor *a = filled(NYX_FLOAT32, 2, (int64_t[]){m, k});
    nyx_tensor *b = filled(NYX_FLOAT32, 2, (int64_t[]){k, n});
    float *x = nyx_tensor_data(a); /* values whose sums are rounded */
    for (int64_t j = 0; j < m * k; j++) x[j] = x[j] * 0.1f + 1e-3f * (float)(j % 97);
    CHECK_OK(ctx, nyx_parallel_set_threads(1));
    nyx_tensor *one = matmul(a, b);
    CHECK_OK(ctx, nyx_parallel_set_threads(5));
    nyx_tensor *five = matmul(a, b);
    CHECK(memcmp(nyx_tensor_data(one), nyx_tensor_data(five),
                 (size_t)(m * n) * sizeof(float)) == 0);
    CHECK_OK(ctx, nyx_parallel_set_threads(0));
    nyx_tensor *all[] = {a, b, one, five};
    for (int j = 0; j < 4; j++) nyx_tensor_release(all[j]);
  }
}

/* A rows x cols matrix, or the same that lies transposed. */
static nyx_tensor *lying(nyx_tensor *plain, bool turned) {
  if (!turned) return nyx_tensor_retain(plain);
  nyx_tensor *view = transposed(plain, 0, 1), *copy = apply("contiguous", &view, 1, NULL);
  nyx_tensor *back = transposed(copy, 0, 1);
  nyx_tensor_release(view);
  nyx_tensor_release(copy);
  return back;
}

/* Both factors as they lie and turned, by one thread and by more. Sums are exact, so one
 * element in a wrong place is seen. */
UNTRACED_CHECK static void every_way(nyx_dtype dtype, int64_t m, int64_t n, int64_t k) {
  nyx_tensor *a = filled(dtype, 2, (int64_t[]){m, k});
  nyx_tensor *b = filled(dtype, 2, (int64_t[]){k, n});
  double *x = doubles(a), *y = doubles(b);
  REQUIRE(CHECK(x && y));
  double *sum = by_loops(x, y, NULL, m, n, k);
  for (int way = 0; way < 12; way += CHECK_STEP) {
    static const int threads[] = {1, 2, 5};
    CHECK_OK(ctx, nyx_parallel_set_threads(threads[way / 4]));
    nyx_tensor *left = lying(a, way & 1), *right = lying(b, way & 2);
    nyx_tensor *c = matmul(left, right);
    double *got = doubles(c);
    REQUIRE(CHECK(got));
    CHECK_AT(memcmp(got, sum, (size_t)(m * n) * sizeof *sum) == 0, "the product",
             ": way %d of %d x %d x %d", way, (int)m, (int)n, (int)k);
    free(got);
    nyx_tensor *all[] = {left, right, c};
    for (int i = 0; i < 3; i++) nyx_tensor_release(all[i]);
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
  free(x);
  free(y);
  free(sum);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
}

/* Panels of what comes next are packed while tiles are multiplied: copied or turned, by
 * this thread or by another, whole ones and those that are not. */
static void meanwhile(void) {
  static const int64_t size[][3] = {{420, 500, 900},
                                    {1030, 330, 700},
                                    {300, 1111, 1025},
                                    {200, 1100, 900}, /* columns of a thread's own */
                                    {70, 1001, 1100}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    every_way(NYX_FLOAT32, size[i][0], size[i][1], size[i][2]);
    every_way(NYX_FLOAT64, size[i][0], size[i][1], size[i][2]);
  }
}

/* A vector times a matrix whose rows are summed: pieces of them, parts along the terms
 * where they are many, and what is left of both. */
static void vectors(void) {
  static const int64_t size[][3] = {
      {1, 4100, 1000}, {2610, 1, 1300}, {1, 700, 3001}, {1, 200, 9000}, {9000, 1, 300}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    every_way(NYX_FLOAT32, size[i][0], size[i][1], size[i][2]);
    every_way(NYX_FLOAT64, size[i][0], size[i][1], size[i][2]);
  }
}

/* The last thread comes first: it does what the others have not begun. */
static struct {
  const float *c;
  int64_t n, missing; /* -1: not asked yet */
} first_comer;

static void last_first(void *user, int64_t count, void (*job)(void *, int64_t),
                       void *arg) {
  (void)user;
  for (int64_t i = count - 1; i >= 0; i--) {
    job(arg, i);
    if (first_comer.missing >= 0) continue;
    first_comer.missing = 0;
    for (int64_t k = 0; k < first_comer.n; k++)
      first_comer.missing += isnan(first_comer.c[k]) != 0;
  }
}

static void helpers(void) {
  static const int64_t size[][3] = {{256, 1024, 700}, {700, 640, 700}, {60, 2000, 800}};
  nyx_job_system host = {.run = last_first, .threads = 3};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    int64_t m = size[i][0], n = size[i][1], k = size[i][2];
    nyx_tensor *a = filled(NYX_FLOAT32, 2, (int64_t[]){m, k});
    nyx_tensor *b = filled(NYX_FLOAT32, 2, (int64_t[]){k, n});
    float *c = malloc((size_t)(m * n) * sizeof *c);
    REQUIRE(CHECK(c));
    for (int way = NYX__GEMM_ROWS; way < NYX__GEMM_WAYS; way++) {
      for (int64_t e = 0; e < m * n; e++) c[e] = NAN;
      const nyx_gemm g = {.dtype = NYX_FLOAT32,
                          .product = {.m = m,
                                      .n = n,
                                      .k = k,
                                      .a = nyx_tensor_data(a),
                                      .b = nyx_tensor_data(b),
                                      .a_rs = k,
                                      .a_cs = 1,
                                      .b_rs = n,
                                      .b_cs = 1,
                                      .c = c,
                                      .ldc = n}};
      first_comer.c = c;
      first_comer.n = m * n;
      first_comer.missing = -1;
      nyx_parallel_set_jobs(&host);
      CHECK_OK(ctx, nyx__gemm_by(ctx, &g, (nyx__gemm_way)way));
      nyx_parallel_set_jobs(NULL);
      CHECK_AT(first_comer.missing == 0, "helps", ": way %d, %d x %d: %d are missing",
               way, (int)m, (int)n, (int)first_comer.missing);
    }
    free(c);
    nyx_tensor_release(a);
    nyx_tensor_release(b);
  }
}

/* Several threads with a context each, at once: a BLAS must stand that. */
static void *multiply_often(void *arg) {
  int64_t *wrong = arg;
  nyx_context *own = NULL;
  const int64_t n = 90;
  nyx_tensor *a = NULL, *b = NULL;
  if (nyx_context_new(&own) != NYX_OK ||
      nyx_tensor_empty(own, NYX_FLOAT32, 2, (int64_t[]){n, n}, &a) != NYX_OK ||
      nyx_tensor_empty(own, NYX_FLOAT32, 2, (int64_t[]){n, n}, &b) != NYX_OK) {
    *wrong = -1;
    return NULL;
  }
  float *x = nyx_tensor_data(a), *y = nyx_tensor_data(b);
  for (int64_t i = 0; i < n * n; i++) x[i] = (float)(i % 7), y[i] = (float)(i % 5);
  for (int round = 0; round < CHECK_ROUNDS(300); round++) {
    nyx_tensor *in[] = {a, b}, *out[NYX_MAX_OUTPUTS] = {NULL};
    if (nyx_apply(own, nyx_op_find("matmul"), in, 2, NULL, out) != NYX_OK) ++*wrong;
    int64_t at = (round * 31) % (n * n);
    float sum = 0;
    for (int64_t l = 0; l < n; l++) sum += x[at / n * n + l] * y[l * n + at % n];
    if (out[0] && ((float *)nyx_tensor_data(out[0]))[at] != sum) ++*wrong;
    nyx_tensor_release(out[0]);
  }
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_context_free(own);
  return NULL;
}

static void concurrent(void) {
  pthread_t thread[6];
  int64_t wrong[6] = {0};
  for (int i = 0; i < 6; i++) {
    REQUIRE(CHECK_INT(pthread_create(&thread[i], NULL, multiply_often, &wrong[i]), 0));
  }
  for (int i = 0; i < 6; i++) {
    pthread_join(thread[i], NULL);
    CHECK_INT(wrong[i], 0);
  }
}

static void interrupted(void) {
  nyx_tensor *a = filled(NYX_FLOAT32, 2, (int64_t[]){300, 300}), *out = NULL;
  nyx_gemm g = {.dtype = NYX_FLOAT32, .product = {.m = 300, .n = 300, .k = 300}};
  REQUIRE(
      CHECK_OK(ctx, nyx_tensor_empty(ctx, NYX_FLOAT32, 2, (int64_t[]){300, 300}, &out)));
  g.product.a = g.product.b = nyx_tensor_data(a);
  g.product.c = nyx_tensor_data(out);
  g.product.a_rs = g.product.b_rs = g.product.ldc = 300;
  g.product.a_cs = g.product.b_cs = 1;
  nyx_context_interrupt(ctx);
  CHECK_STATUS(nyx__gemm(ctx, &g), NYX_ERR_INTERRUPTED);
  CHECK_OK(ctx, nyx__gemm(ctx, &g));
  nyx_tensor_release(a);
  nyx_tensor_release(out);
}

/* Values and gradients of conv2d against the definition, for one setting. */
static void convolve(int64_t channels, int64_t outputs, int64_t size, int64_t kernel,
                     int64_t stride, int64_t pad, int64_t dilation, int64_t groups) {
  int64_t n = 3, cg = channels / groups, og = outputs / groups;
  nyx_tensor *x = filled(NYX_FLOAT32, 4, (int64_t[]){n, channels, size, size + 1});
  nyx_tensor *w = filled(NYX_FLOAT32, 4, (int64_t[]){outputs, cg, kernel, kernel});
  nyx_tensor *b = filled(NYX_FLOAT32, 1, (int64_t[]){outputs});
  const nyx_value attrs[] = {NYX_LIST(&stride, 1), NYX_LIST(&pad, 1),
                             NYX_LIST(&dilation, 1), NYX_I(groups)};
  CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, x, true));
  CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, w, true));
  CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, b, true));
  nyx_tensor *y = apply("conv2d", (nyx_tensor *[]){x, w, b}, 3, attrs);
  REQUIRE(CHECK(y != NULL));
  nyx_tensor *g = filled(NYX_FLOAT32, 4, nyx_tensor_shape(y)), *grad[3] = {NULL};
  REQUIRE(
      CHECK_OK(ctx, nyx_gradients(ctx, y, g, (nyx_tensor *[]){x, w, b}, 3, NULL, grad)));
  int64_t oh = nyx_tensor_shape(y)[2], ow = nyx_tensor_shape(y)[3], iw = size + 1;
  double *vx = doubles(x), *vw = doubles(w), *vb = doubles(b), *vg = doubles(g);
  double *expect[4] = {doubles(y), doubles(x), doubles(w), doubles(b)}, *got[4];
  size_t count[4];
  nyx_tensor *result[4] = {y, grad[0], grad[1], grad[2]};
  for (int i = 0; i < 4; i++) {
    got[i] = doubles(result[i]);
    count[i] = (size_t)nyx_tensor_numel(result[i]);
    memset(expect[i], 0, count[i] * sizeof(double));
  }
  for (int64_t at = 0; at < n * outputs * oh * ow; at++) {
    int64_t image = at / (outputs * oh * ow), o = at / (oh * ow) % outputs;
    int64_t oy = at / ow % oh, ox = at % ow;
    expect[0][at] += vb[o];
    expect[3][o] += vg[at];
    for (int64_t t = 0; t < cg * kernel * kernel; t++) {
      int64_t c = o / og * cg + t / (kernel * kernel);
      int64_t iy = oy * stride - pad + t / kernel % kernel * dilation;
      int64_t ix = ox * stride - pad + t % kernel * dilation;
      if (iy < 0 || iy >= size || ix < 0 || ix >= iw) continue;
      int64_t from = ((image * channels + c) * size + iy) * iw + ix;
      int64_t tap = o * cg * kernel * kernel + t;
      expect[0][at] += vx[from] * vw[tap];
      expect[1][from] += vg[at] * vw[tap];
      expect[2][tap] += vg[at] * vx[from];
    }
  }
  for (int i = 0; i < 4; i++) {
    double worst = 0;
    for (size_t j = 0; j < count[i]; j++)
      worst = fmax(worst, fabs(got[i][j] - expect[i][j]));
    CHECK_NEAR(worst, 0, 0);
    free(got[i]);
    free(expect[i]);
    nyx_tensor_release(result[i]);
  }
  free(vx);
  free(vw);
  free(vb);
  free(vg);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  nyx_tensor_release(b);
  nyx_tensor_release(g);
}

static void convolutions(void) {
  convolve(3, 5, 8, 3, 1, 1, 1, 1);
  convolve(4, 6, 30, 3, 2, 2, 2, 2);
  convolve(5, 7, 40, 1, 1, 0, 1, 1);
  convolve(5, 7, 9, 1, 1, 0, 1, 1);
  convolve(6, 6, 20, 5, 1, 2, 1, 6);
  convolve(6, 12, 11, 3, 2, 0, 2, 6);
  convolve(120, 3, 6, 3, 1, 1, 1, 1);
  convolve(1, 9, 28, 5, 1, 0, 1, 1);
}

/* Values of both pools against their definition, with padding, overhang and dilation. */
static void pools(void) {
  const int64_t h = 7, w = 6, kernel[] = {3, 2}, stride[] = {2, 1}, pad[] = {1, 1};
  nyx_tensor *x = filled(NYX_FLOAT32, 3, (int64_t[]){4, h, w});
  const nyx_value most[] = {NYX_LIST(kernel, 2), NYX_LIST(stride, 2), NYX_LIST(pad, 2)};
  const nyx_value all[6] = {NYX_LIST(kernel, 2),
                            NYX_LIST(stride, 2),
                            NYX_LIST(pad, 2),
                            NYX_I(1),
                            NYX_I(0),
                            NYX_NONE};
  nyx_value max_attrs[6] = {most[0], most[1], most[2], NYX_NONE, NYX_I(1), NYX_NONE};
  nyx_tensor *max = apply("max_pool2d", &x, 1, max_attrs);
  nyx_tensor *mean = apply("avg_pool2d", &x, 1, all);
  const int64_t oh = 4, ow = 7;
  CHECK_INT(nyx_tensor_shape(max)[1], oh);
  CHECK_INT(nyx_tensor_shape(mean)[2], ow);
  double *v = doubles(x), *got_max = doubles(max), *got_mean = doubles(mean), off = 0;
  for (int64_t at = 0; at < 4 * oh * ow; at++) {
    double greatest = -INFINITY, sum = 0;
    int count = 0;
    for (int64_t t = 0; t < 6; t++) {
      int64_t iy = at / ow % oh * 2 - 1 + t / 2, ix = at % ow - 1 + t % 2;
      if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
      double value = v[(at / (oh * ow) * h + iy) * w + ix];
      greatest = fmax(greatest, value);
      sum += value;
      count++;
    }
    off = fmax(off, fabs(got_max[at] - greatest));
    off = fmax(off, fabs(got_mean[at] - sum / count));
  }
  CHECK_NEAR(off, 0, 1e-6);
  free(v);
  free(got_max);
  free(got_mean);
  nyx_tensor_release(x);
  nyx_tensor_release(max);
  nyx_tensor_release(mean);
}

/* Values of the normalizations: rows and channels of every length around the vectors'. */
static void normalizations(void) {
  for (int64_t n = 2; n < 70; n += 3) {
    nyx_tensor *x = filled(NYX_FLOAT32, 2, (int64_t[]){5, n}), *y[3];
    y[0] = apply("layer_norm", &x, 1, NULL);
    y[1] = apply("rms_norm", &x, 1, NULL);
    nyx_tensor *turned = transposed(x, 0, 1);
    const nyx_value training[] = {NYX_I(1), NYX_NONE, NYX_NONE};
    nyx_tensor *back = apply("batch_norm", &turned, 1, training);
    y[2] = transposed(back, 0, 1);
    double *v = doubles(x), off = 0;
    for (int way = 0; way < 3; way++) {
      double *got = doubles(y[way]);
      for (int64_t i = 0; i < 5; i++) {
        double mean = 0, square = 0;
        for (int64_t j = 0; j < n && way != 1; j++) mean += v[i * n + j] / (double)n;
        for (int64_t j = 0; j < n; j++) {
          square += (v[i * n + j] - mean) * (v[i * n + j] - mean) / (double)n;
        }
        for (int64_t j = 0; j < n; j++) {
          double expect = (v[i * n + j] - mean) / sqrt(square + 1e-5);
          off = fmax(off, fabs(got[i * n + j] - expect));
        }
      }
      free(got);
      nyx_tensor_release(y[way]);
    }
    CHECK_NEAR(off, 0, 2e-5);
    free(v);
    nyx_tensor_release(x);
    nyx_tensor_release(turned);
    nyx_tensor_release(back);
  }
}

static void embeddings(void) {
  nyx_tensor *weight = filled(NYX_FLOAT32, 2, (int64_t[]){9, 5});
  const int32_t at[] = {8, 0, 3, 3, 7, 1};
  nyx_tensor *index = NULL;
  REQUIRE(CHECK_OK(
      ctx, nyx_tensor_from_data(ctx, NYX_INT32, 2, (int64_t[]){2, 3}, at, &index)));
  nyx_tensor *rows = apply("embedding", (nyx_tensor *[]){weight, index}, 2, NULL);
  const float *from = nyx_tensor_data(weight), *got = nyx_tensor_data(rows);
  CHECK_INT(nyx_tensor_ndim(rows), 3);
  for (int i = 0; i < 6; i++) {
    CHECK(memcmp(got + i * 5, from + at[i] * 5, 5 * sizeof(float)) == 0);
  }
  nyx_tensor_release(weight);
  nyx_tensor_release(index);
  nyx_tensor_release(rows);
}

/* Running statistics follow the definition and are left alone by a failing call. */
static void batch_norm_running(void) {
  float x[] = {1, 10, 3, 20, 5, 60}, start[] = {0.5f, 1}, *value;
  nyx_tensor *t[3];
  REQUIRE(CHECK_OK(
      ctx, nyx_tensor_from_data(ctx, NYX_FLOAT32, 2, (int64_t[]){3, 2}, x, &t[0])));
  for (int i = 1; i < 3; i++) {
    REQUIRE(CHECK_OK(
        ctx, nyx_tensor_from_data(ctx, NYX_FLOAT32, 1, (int64_t[]){2}, start, &t[i])));
  }
  nyx_value attrs[] = {NYX_I(1), NYX_F(0.25), NYX_NONE};
  nyx_tensor *in[] = {t[0], NULL, NULL, t[1], t[2]};
  uint32_t version = nyx_tensor_version(t[1]);
  nyx_tensor *y = apply("batch_norm", in, 5, attrs);
  value = nyx_tensor_data(t[1]);
  CHECK_NEAR(value[0], 0.75 * 0.5 + 0.25 * 3, 1e-6);
  CHECK_NEAR(value[1], 0.75 * 1 + 0.25 * 30, 1e-6);
  value = nyx_tensor_data(t[2]);
  CHECK_NEAR(value[0], 0.75 * 0.5 + 0.25 * 4, 1e-6);
  CHECK_NEAR(value[1], 0.75 * 1 + 0.25 * 700, 1e-4);
  CHECK(nyx_tensor_version(t[1]) != version);
  nyx_tensor_release(y);
  for (int i = 0; i < 3; i++) nyx_tensor_release(t[i]);
}

/* About half of the elements are zero, the others doubled; the same seed, the same ones.
 */
static void dropout(void) {
  nyx_tensor *x = filled(NYX_FLOAT32, 1, (int64_t[]){100000});
  float *value = nyx_tensor_data(x);
  for (int i = 0; i < 100000; i++) value[i] = 1;
  nyx_context_seed(ctx, 7);
  nyx_tensor *a = apply("dropout", &x, 1, NULL);
  nyx_context_seed(ctx, 7);
  nyx_tensor *b = apply("dropout", &x, 1, NULL);
  double sum = 0;
  value = nyx_tensor_data(a);
  for (int i = 0; i < 100000; i++) {
    CHECK(value[i] == 0 || value[i] == 2);
    sum += (double)value[i];
  }
  CHECK_NEAR(sum / 100000, 1, 0.02);
  CHECK(memcmp(value, nyx_tensor_data(b), 100000 * sizeof(float)) == 0);
  nyx_tensor_release(x);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
}

/* What this program does when started with NYX_BLAS=none. */
static int without_blas(void) {
  CHECK(nyx__blas() == NULL);
  CHECK_CONTAINS(nyx_blas_describe(), "none (built-in product)");
  RUN(sizes);
  RUN(biases);
  RUN(strides);
  RUN(batches);
  RUN(tiny_batches);
  RUN(threads);
  return check_done();
}

/* The environment is as it was after the BLAS was opened. */
static void environment(void) {
  unsetenv("OPENBLAS_CORETYPE");
  setenv("OPENBLAS_NUM_THREADS", "3", 1);
  CHECK(strlen(nyx_blas_describe()) > 0);
  CHECK(getenv("OPENBLAS_CORETYPE") == NULL);
  CHECK_STR(getenv("OPENBLAS_NUM_THREADS"), "3");
  const char *width = nyx__cpu_kernels()->width;
  if (nyx__blas() && strcmp(width, "avx512") == 0) {
    CHECK_CONTAINS(nyx_blas_describe(), "SkylakeX");
  }
  if (nyx__blas() && strcmp(width, "avx2") == 0) {
    CHECK_CONTAINS(nyx_blas_describe(), "Haswell");
  }
}

static const char *program;

static void again_without_blas(void) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    setenv("NYX_BLAS", "none", 1);
    if (!freopen("/dev/null", "w", stdout)) _exit(3);
    execl(program, program, (char *)NULL);
    _exit(2);
  }
  int status = 1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char **argv) {
  (void)argc;
  program = argv[0];
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  if (getenv("NYX_BLAS") && strcmp(getenv("NYX_BLAS"), "none") == 0) {
    int result = without_blas();
    nyx_context_free(ctx);
    return result;
  }
  RUN(environment);
  RUN(sizes);
  RUN(biases);
  RUN(half_types);
  RUN(integers_wrap);
  RUN(strides);
  RUN(batches);
  RUN(tiny_batches);
  RUN(errors);
  RUN(without_memory);
  RUN(threads);
  RUN(meanwhile);
  RUN(vectors);
  RUN(helpers);
  RUN(concurrent);
  RUN(interrupted);
  RUN(convolutions);
  RUN(pools);
  RUN(normalizations);
  RUN(embeddings);
  RUN(batch_norm_running);
  RUN(dropout);
  RUN(again_without_blas);
  nyx_context_free(ctx);
  return check_done();
}
