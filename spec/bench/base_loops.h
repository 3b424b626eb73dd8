/* The cases of base.c: plain loops, what they read, and which op does the same. Rows are
 * lists of names and expressions; what is left has a function of its own. Included by
 * base.c. */

typedef struct loop {
  const char *name, *op;
  void (*make)(const struct loop *l); /* in, n_in, attr */
  void (*run)(void);
  nyx_dtype dtype;
  int inputs;
  double low, high; /* of the inputs */
  int axis;         /* -1: none */
  bool fresh;       /* the op makes its result anew each time */
} loop;

static void set_dim(int64_t dim) {
  static int64_t list[1];
  list[0] = dim;
  for (int i = 0; i < op->n_attrs; i++)
    if (strcmp(op->attrs[i].name, "dim") == 0)
      attr[i] = op->attrs[i].type == NYX_ATTR_DIMS ? NYX_LIST(list, 1) : NYX_I(dim);
}
static void make_arrays(const loop *l) {
  const int64_t shape[2] = {SIDE, SIDE};
  for (n_in = 0; n_in < l->inputs; n_in++)
    in[n_in] = tensor(l->dtype, 2, shape, l->low, l->high);
  if (l->axis >= 0) set_dim(l->axis);
}

/* Elementwise */

#define ROW_LOOP(T, R, name, expression)                                                 \
  static __attribute__((noinline)) void name(void) {                                     \
    const T *px = p[0], *py = p[n_in > 1], *pz = p[n_in > 2 ? 2 : 0];                    \
    R *restrict r = result;                                                              \
    for (int i = 0; i < N; i++) {                                                        \
      T x = px[i], y = py[i], z = pz[i];                                                 \
      (void)y, (void)z;                                                                  \
      r[i] = (R)(expression);                                                            \
    }                                                                                    \
  }
/* op, inputs, low, high, the expression in float and in double */
#define FLOAT_ROWS(X)                                                                    \
  X(add, 2, -2, 2, x + y, x + y)                                                         \
  X(mul, 2, -2, 2, (x * y), (x * y))                                                     \
  X(div, 2, 1, 2, x / y, x / y)                                                          \
  X(maximum, 2, -2, 2, x > y ? x : y, x > y ? x : y)                                     \
  X(neg, 1, -2, 2, -x, -x)                                                               \
  X(abs, 1, -2, 2, fabsf(x), fabs(x))                                                    \
  X(square, 1, -2, 2, (x * x), (x * x))                                                  \
  X(sqrt, 1, 0, 2, sqrtf(x), sqrt(x))                                                    \
  X(rsqrt, 1, 1, 2, 1 / sqrtf(x), 1 / sqrt(x))                                           \
  X(reciprocal, 1, 1, 2, 1 / x, 1 / x)                                                   \
  X(relu, 1, -2, 2, x > 0 ? x : 0, x > 0 ? x : 0)                                        \
  X(floor, 1, -9, 9, floorf(x), floor(x))                                                \
  X(round, 1, -9, 9, rintf(x), rint(x))                                                  \
  X(trunc, 1, -9, 9, truncf(x), trunc(x))                                                \
  X(fmod, 2, 1, 9, fmodf(x, y), fmod(x, y))                                              \
  X(pow, 2, 0.5, 2, powf(x, y), pow(x, y))                                               \
  X(hypot, 2, -2, 2, hypotf(x, y), hypot(x, y))                                          \
  X(atan2, 2, -2, 2, atan2f(x, y), atan2(x, y))                                          \
  X(exp, 1, -3, 3, expf(x), exp(x))                                                      \
  X(exp2, 1, -3, 3, exp2f(x), exp2(x))                                                   \
  X(expm1, 1, -3, 3, expm1f(x), expm1(x))                                                \
  X(log, 1, 0.1, 9, logf(x), log(x))                                                     \
  X(log1p, 1, 0.1, 9, log1pf(x), log1p(x))                                               \
  X(log2, 1, 0.1, 9, log2f(x), log2(x))                                                  \
  X(log10, 1, 0.1, 9, log10f(x), log10(x))                                               \
  X(sin, 1, -9, 9, sinf(x), sin(x))                                                      \
  X(cos, 1, -9, 9, cosf(x), cos(x))                                                      \
  X(tan, 1, -9, 9, tanf(x), tan(x))                                                      \
  X(asin, 1, -1, 1, asinf(x), asin(x))                                                   \
  X(acos, 1, -1, 1, acosf(x), acos(x))                                                   \
  X(atan, 1, -9, 9, atanf(x), atan(x))                                                   \
  X(sinh, 1, -3, 3, sinhf(x), sinh(x))                                                   \
  X(cosh, 1, -3, 3, coshf(x), cosh(x))                                                   \
  X(tanh, 1, -3, 3, tanhf(x), tanh(x))                                                   \
  X(asinh, 1, -3, 3, asinhf(x), asinh(x))                                                \
  X(acosh, 1, 1, 9, acoshf(x), acosh(x))                                                 \
  X(atanh, 1, -0.9, 0.9, atanhf(x), atanh(x))                                            \
  X(erf, 1, -3, 3, erff(x), erf(x))                                                      \
  X(erfc, 1, -3, 3, erfcf(x), erfc(x))                                                   \
  X(sigmoid, 1, -3, 3, 1 / (1 + expf(-x)), 1 / (1 + exp(-x)))                            \
  X(silu, 1, -3, 3, x / (1 + expf(-x)), x / (1 + exp(-x)))                               \
  X(lgamma, 1, 0.5, 9, lgammaf(x), lgamma(x))
#define INTEGER_ROWS(X)                                                                  \
  X(add, 2, x + y)                                                                       \
  X(mul, 2, (x * y))                                                                     \
  X(floor_divide, 2, x / y)                                                              \
  X(remainder, 2, x % y)                                                                 \
  X(maximum, 2, x > y ? x : y)                                                           \
  X(bitwise_and, 2, x &y)                                                                \
  X(bitwise_not, 1, ~x)
#define BOOL_ROWS(X)                                                                     \
  X(lt, 2, x < y)                                                                        \
  X(eq, 2, x == y)                                                                       \
  X(logical_not, 1, !x)

#define X(op, n, low, high, single, wide)                                                \
  ROW_LOOP(float, float, op##_f32, single) ROW_LOOP(double, double, op##_f64, wide)
FLOAT_ROWS(X)
#undef X
#define X(op, n, expression)                                                             \
  ROW_LOOP(int32_t, int32_t, op##_i32, expression)                                       \
  ROW_LOOP(int64_t, int64_t, op##_i64, expression)                                       \
  ROW_LOOP(uint8_t, uint8_t, op##_u8, expression)
INTEGER_ROWS(X)
#undef X
#define X(op, n, expression)                                                             \
  ROW_LOOP(float, uint8_t, op##_f32, expression)                                         \
  ROW_LOOP(double, uint8_t, op##_f64, expression)                                        \
  ROW_LOOP(int32_t, uint8_t, op##_i32, expression)                                       \
  ROW_LOOP(int64_t, uint8_t, op##_i64, expression)                                       \
  ROW_LOOP(uint8_t, uint8_t, op##_u8, expression)
BOOL_ROWS(X)
#undef X

/* Along columns (dimension 0), with a row of running values, and along rows. `step` takes
 * v into a, `finish` writes what is left. */
#define AXIS_LOOPS(name, T, A, start, step, finish)                                      \
  static __attribute__((noinline)) void name##_columns(void) {                           \
    const T *restrict x = p[0];                                                          \
    T *restrict r = result;                                                              \
    static A run[SIDE];                                                                  \
    for (int c = 0; c < SIDE; c++) run[c] = (start);                                     \
    for (int64_t i = 0; i < N; i += SIDE)                                                \
      for (int c = 0; c < SIDE; c++) {                                                   \
        A a = run[c], v = (A)x[i + c];                                                   \
        step(r[i + c]);                                                                  \
        run[c] = a;                                                                      \
      }                                                                                  \
    for (int c = 0; c < SIDE; c++) finish(r[c], run[c]);                                 \
  }                                                                                      \
  static __attribute__((noinline)) void name##_rows(void) {                              \
    const T *restrict x = p[0];                                                          \
    T *restrict r = result;                                                              \
    for (int64_t i = 0; i < N; i += SIDE) {                                              \
      A a = (start);                                                                     \
      for (int c = 0; c < SIDE; c++) {                                                   \
        A v = (A)x[i + c];                                                               \
        step(r[i + c]);                                                                  \
      }                                                                                  \
      finish(r[i / SIDE], a);                                                            \
    }                                                                                    \
  }
#define SUM(to) a += v
#define GREATEST(to) a = v > a ? v : a
#define RUNNING_SUM(to) to = a += v
#define RUNNING_SUM_F32(to) to = (float)(a += v)
#define RUNNING_PRODUCT(to) to = a *= v
#define RUNNING_PRODUCT_F32(to) to = (float)(a *= v)
#define KEEP(to, a) to = a
#define MEAN(to, a) to = a / SIDE
#define NOTHING(to, a) (void)a
AXIS_LOOPS(sum_f32, float, float, 0, SUM, KEEP)
AXIS_LOOPS(sum_f64, double, double, 0, SUM, KEEP)
AXIS_LOOPS(sum_i64, int64_t, int64_t, 0, SUM, KEEP)
AXIS_LOOPS(mean_f32, float, float, 0, SUM, MEAN)
AXIS_LOOPS(mean_f64, double, double, 0, SUM, MEAN)
AXIS_LOOPS(amax_f32, float, float, -INFINITY, GREATEST, KEEP)
AXIS_LOOPS(amax_f64, double, double, -INFINITY, GREATEST, KEEP)
AXIS_LOOPS(cumsum_f32, float, double, 0, RUNNING_SUM_F32, NOTHING)
AXIS_LOOPS(cumsum_f64, double, double, 0, RUNNING_SUM, NOTHING)
AXIS_LOOPS(cumsum_i64, int64_t, int64_t, 0, RUNNING_SUM, NOTHING)
AXIS_LOOPS(cumprod_f32, float, double, 1, RUNNING_PRODUCT_F32, NOTHING)
AXIS_LOOPS(cumprod_f64, double, double, 1, RUNNING_PRODUCT, NOTHING)
#define AXIS_ROWS(X)                                                                     \
  X(sum, f32, NYX_FLOAT32)                                                               \
  X(sum, f64, NYX_FLOAT64)                                                               \
  X(sum, i64, NYX_INT64)                                                                 \
  X(mean, f32, NYX_FLOAT32)                                                              \
  X(mean, f64, NYX_FLOAT64)                                                              \
  X(amax, f32, NYX_FLOAT32)                                                              \
  X(amax, f64, NYX_FLOAT64)                                                              \
  X(cumsum, f32, NYX_FLOAT32)                                                            \
  X(cumsum, f64, NYX_FLOAT64)                                                            \
  X(cumsum, i64, NYX_INT64)                                                              \
  X(cumprod, f32, NYX_FLOAT32)                                                           \
  X(cumprod, f64, NYX_FLOAT64)

static __attribute__((noinline)) void softmax_rows(void) {
  for (int i = 0; i < SIDE; i++) {
    const float *restrict x = (const float *)p[0] + i * SIDE;
    float *restrict r = (float *)result + i * SIDE, most = -INFINITY, sum = 0;
    for (int c = 0; c < SIDE; c++) most = x[c] > most ? x[c] : most;
    for (int c = 0; c < SIDE; c++) sum += r[c] = expf(x[c] - most);
    for (int c = 0; c < SIDE; c++) r[c] /= sum;
  }
}
static __attribute__((noinline)) void argmax_rows(void) {
  for (int i = 0; i < SIDE; i++) {
    const float *restrict x = (const float *)p[0] + i * SIDE;
    int at = 0;
    for (int c = 1; c < SIDE; c++)
      if (x[c] > x[at]) at = c;
    ((int64_t *)result)[i] = at;
  }
}
static __attribute__((noinline)) void var_rows(void) {
  for (int i = 0; i < SIDE; i++) {
    const float *restrict x = (const float *)p[0] + i * SIDE;
    float sum = 0, squares = 0;
    for (int c = 0; c < SIDE; c++) sum += x[c];
    for (int c = 0; c < SIDE; c++) squares += (x[c] - sum / SIDE) * (x[c] - sum / SIDE);
    ((float *)result)[i] = squares / (SIDE - 1);
  }
}
static int by_size(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}
static void sort_rows(void) {
  memcpy(result, p[0], (size_t)N * sizeof(float));
  for (int i = 0; i < SIDE; i++)
    qsort((float *)result + i * SIDE, SIDE, sizeof(float), by_size);
}

/* By position: elements, rows. */
static void make_gather(const loop *l) {
  const int64_t shape[2] = {SIDE, SIDE};
  in[0] = tensor(NYX_FLOAT32, 2, shape, -1, 1);
  in[1] = tensor(NYX_INT64, 2, shape, 0, SIDE);
  n_in = 2;
  set_dim(l->axis);
}
#define GATHER_LOOP(name, from)                                                          \
  static __attribute__((noinline)) void name(void) {                                     \
    const float *restrict x = p[0];                                                      \
    const int64_t *restrict at = p[1];                                                   \
    float *restrict r = result;                                                          \
    for (int i = 0; i < SIDE; i++)                                                       \
      for (int c = 0; c < SIDE; c++) r[i * SIDE + c] = x[from];                          \
  }
GATHER_LOOP(gather_rows, i *SIDE + at[i * SIDE + c])
GATHER_LOOP(gather_columns, at[i * SIDE + c] * SIDE + c)
static void make_select(const loop *l) {
  const int64_t shape[2] = {SIDE, SIDE};
  in[0] = tensor(l->dtype, 2, shape, -1, 1);
  in[1] = tensor(NYX_INT64, 1, shape, 0, SIDE);
  n_in = 2;
  set_dim(0);
}
static void select_rows(void) {
  const float *x = p[0];
  const int64_t *at = p[1];
  for (int i = 0; i < SIDE; i++)
    memcpy((float *)result + i * SIDE, x + at[i] * SIDE, SIDE * sizeof(float));
}

/* Products of 256 x 256, row by row of the second factor. */
static void make_product(const loop *l) {
  const int64_t shape[2] = {256, 256};
  for (n_in = 0; n_in < 2; n_in++) in[n_in] = tensor(l->dtype, 2, shape, -1, 1);
}
#define PRODUCT_LOOP(name, T)                                                            \
  static __attribute__((noinline)) void name(void) {                                     \
    const T *restrict a = p[0], *restrict b = p[1];                                      \
    T *restrict r = result;                                                              \
    memset(r, 0, 256 * 256 * sizeof *r);                                                 \
    for (int i = 0; i < 256; i++)                                                        \
      for (int k = 0; k < 256; k++)                                                      \
        for (int j = 0; j < 256; j++) r[i * 256 + j] += a[i * 256 + k] * b[k * 256 + j]; \
  }
PRODUCT_LOOP(matmul_f32, float)
PRODUCT_LOOP(matmul_f64, double)

/* 32 channels of 56 x 56 by 32 kernels of 3 x 3. */
static void make_conv(const loop *l) {
  const int64_t x[4] = {1, 32, 56, 56}, w[4] = {32, 32, 3, 3};
  in[0] = tensor(l->dtype, 4, x, -1, 1);
  in[1] = tensor(l->dtype, 4, w, -1, 1);
  n_in = 2;
}
static __attribute__((noinline)) void conv2d_f32(void) {
  const float *restrict x = p[0], *restrict w = p[1];
  float *restrict r = result;
  memset(r, 0, 32 * 54 * 54 * sizeof *r);
  for (int o = 0; o < 32; o++)
    for (int c = 0; c < 32; c++)
      for (int t = 0; t < 9; t++)
        for (int i = 0; i < 54; i++)
          for (int j = 0; j < 54; j++)
            r[(o * 54 + i) * 54 + j] +=
                x[(c * 56 + i + t / 3) * 56 + j + t % 3] * w[(o * 32 + c) * 9 + t];
}

#define ROW(type, dtype, op, n, low, high)                                               \
  {#op "_" #type, #op, make_arrays, op##_##type, dtype, n, low, high, -1, false},
#define F32_ROW(name, op, make, run, axis)                                               \
  {name, op, make, run, NYX_FLOAT32, 1, -3, 3, axis, false},
static const loop loops[] = {
/* clang-format off */
#define X(op, n, low, high, single, wide)                                                \
  ROW(f32, NYX_FLOAT32, op, n, low, high)                                                \
  ROW(f64, NYX_FLOAT64, op, n, low, high)
  FLOAT_ROWS(X)
#undef X
#define X(op, n, expression)                                                             \
  ROW(i32, NYX_INT32, op, n, 1, 90)                                                      \
  ROW(i64, NYX_INT64, op, n, 1, 90)                                                      \
  ROW(u8, NYX_UINT8, op, n, 1, 90)
  INTEGER_ROWS(X)
#undef X
#define X(op, n, expression)                                                             \
  ROW(f32, NYX_FLOAT32, op, n, 0, 9)                                                     \
  ROW(f64, NYX_FLOAT64, op, n, 0, 9)                                                     \
  ROW(i32, NYX_INT32, op, n, 0, 9)                                                       \
  ROW(i64, NYX_INT64, op, n, 0, 9)                                                       \
  ROW(u8, NYX_UINT8, op, n, 0, 9)
  BOOL_ROWS(X)
#undef X
#define X(op, type, dtype)                                                               \
  {#op "_" #type "_columns", #op, make_arrays, op##_##type##_columns, dtype, 1, 0.9, 1.1, \
   0, false},                                                                            \
  {#op "_" #type "_rows", #op, make_arrays, op##_##type##_rows, dtype, 1, 0.9, 1.1, 1, \
   false},
  AXIS_ROWS(X)
#undef X
  F32_ROW("softmax_f32_rows", "softmax", make_arrays, softmax_rows, 1)
  F32_ROW("argmax_f32_rows", "argmax", make_arrays, argmax_rows, 1)
  F32_ROW("var_f32_rows", "var", make_arrays, var_rows, 1)
  F32_ROW("sort_f32_rows", "sort", make_arrays, sort_rows, 1)
  F32_ROW("gather_f32_rows", "gather", make_gather, gather_rows, 1)
  F32_ROW("gather_f32_columns", "gather", make_gather, gather_columns, 0)
  {"gather_f32_rows_fresh", "gather", make_gather, gather_rows, NYX_FLOAT32, 1, 0, 0, 1,
   true},
  {"gather_f32_columns_fresh", "gather", make_gather, gather_columns, NYX_FLOAT32, 1, 0, 0,
   0, true},
  F32_ROW("index_select_f32", "index_select", make_select, select_rows, 0)
  F32_ROW("matmul_f32", "matmul", make_product, matmul_f32, -1)
  {"matmul_f64", "matmul", make_product, matmul_f64, NYX_FLOAT64, 2, 0, 0, -1, false},
  F32_ROW("conv2d_f32", "conv2d", make_conv, conv2d_f32, -1)
    /* clang-format on */
};
