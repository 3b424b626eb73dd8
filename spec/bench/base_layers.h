/* Layers of base.c: products, convolutions, pooling, attention, an LSTM, optimisers and
 * random numbers, as loops in the order that the cache likes. Included by base.c. */

/* Eight sums side by side, which a compiler may keep in vectors. */
static inline float dot(const float *restrict a, const float *restrict b, int n) {
  float s[8] = {0};
  for (int i = 0; i < n; i += 8)
    for (int k = 0; k < 8; k++) s[k] += a[i + k] * b[i + k];
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}
static inline void add_scaled(float *restrict r, float a, const float *restrict b,
                              int n) {
  for (int i = 0; i < n; i++) r[i] += a * b[i];
}

/* Inputs of these shapes, from -1 to 1; int8 to 0. */
static void shaped(nyx_dtype dtype, int ndim, const int64_t *shape) {
  in[n_in++] = tensor(dtype, ndim, shape, -1, 1);
}
#define SHAPED(dtype, ...)                                                               \
  shaped(dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),               \
         (const int64_t[]){__VA_ARGS__})
#define MAKE(name, ...)                                                                  \
  static void make_##name(const loop *l) {                                               \
    (void)l;                                                                             \
    n_in = 0;                                                                            \
    __VA_ARGS__                                                                          \
  }

/* Products */

MAKE(matrix_vector, SHAPED(NYX_FLOAT32, SIDE, SIDE); SHAPED(NYX_FLOAT32, SIDE);)
static __attribute__((noinline)) void matrix_vector(void) {
  for (int i = 0; i < SIDE; i++)
    ((float *)result)[i] = dot((const float *)p[0] + i * SIDE, p[1], SIDE);
}
MAKE(vector_matrix, SHAPED(NYX_FLOAT32, SIDE); SHAPED(NYX_FLOAT32, SIDE, SIDE);)
static __attribute__((noinline)) void vector_matrix(void) {
  const float *x = p[0];
  memset(result, 0, SIDE * sizeof *x);
  for (int i = 0; i < SIDE; i++)
    add_scaled(result, x[i], (const float *)p[1] + i * SIDE, SIDE);
}
/* A layer of 256 by 256 for 8 rows. */
MAKE(linear, SHAPED(NYX_FLOAT32, 8, 256); SHAPED(NYX_FLOAT32, 256, 256);
     SHAPED(NYX_FLOAT32, 256);)
static __attribute__((noinline)) void linear(void) {
  const float *b = p[2];
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 256; j++)
      ((float *)result)[i * 256 + j] =
          b[j] + dot((const float *)p[0] + i * 256, (const float *)p[1] + j * 256, 256);
}
MAKE(int_product, SHAPED(NYX_INT8, 256, 256); SHAPED(NYX_INT8, 256, 256);)
static __attribute__((noinline)) void int_product(void) {
  const int8_t *restrict a = p[0], *restrict b = p[1];
  int32_t *restrict r = result;
  memset(r, 0, 256 * 256 * sizeof *r);
  for (int i = 0; i < 256; i++)
    for (int k = 0; k < 256; k++)
      for (int j = 0; j < 256; j++) r[i * 256 + j] += a[i * 256 + k] * b[k * 256 + j];
}
/* Many small ones. */
#define SMALL_PRODUCT(side, count)                                                       \
  MAKE(small_##side, SHAPED(NYX_FLOAT32, count, side, side);                             \
       SHAPED(NYX_FLOAT32, count, side, side);)                                          \
  static __attribute__((noinline)) void small_##side(void) {                             \
    for (int n = 0; n < count; n++) {                                                    \
      const float *restrict a = (const float *)p[0] + n * side * side;                   \
      const float *restrict b = (const float *)p[1] + n * side * side;                   \
      float *restrict r = (float *)result + n * side * side;                             \
      for (int i = 0; i < side; i++) {                                                   \
        float row[side] = {0};                                                           \
        for (int k = 0; k < side; k++)                                                   \
          for (int j = 0; j < side; j++) row[j] += a[i * side + k] * b[k * side + j];    \
        memcpy(r + i * side, row, sizeof row);                                           \
      }                                                                                  \
    }                                                                                    \
  }
SMALL_PRODUCT(3, 10000)
SMALL_PRODUCT(4, 10000)
SMALL_PRODUCT(16, 1000)

/* Convolutions of 56 x 56; those of 3 x 3 without padding. */

MAKE(depthwise, SHAPED(NYX_FLOAT32, 1, 64, 56, 56); SHAPED(NYX_FLOAT32, 64, 1, 3, 3);
     set("groups", NYX_I(64));)
static __attribute__((noinline)) void depthwise(void) {
  for (int k = 0; k < 64; k++) {
    const float *restrict x = (const float *)p[0] + k * 56 * 56;
    const float *restrict w = (const float *)p[1] + k * 9;
    float *restrict r = (float *)result + k * 54 * 54;
    for (int i = 0; i < 54; i++, x += 56, r += 54)
      for (int j = 0; j < 54; j++)
        r[j] = x[j] * w[0] + x[j + 1] * w[1] + x[j + 2] * w[2] + x[j + 56] * w[3] +
               x[j + 57] * w[4] + x[j + 58] * w[5] + x[j + 112] * w[6] +
               x[j + 113] * w[7] + x[j + 114] * w[8];
  }
}
MAKE(pointwise, SHAPED(NYX_FLOAT32, 1, 64, 28, 28); SHAPED(NYX_FLOAT32, 64, 64, 1, 1);)
static __attribute__((noinline)) void pointwise(void) {
  memset(result, 0, 64 * 784 * sizeof(float));
  for (int o = 0; o < 64; o++)
    for (int c = 0; c < 64; c++)
      add_scaled((float *)result + o * 784, ((const float *)p[1])[o * 64 + c],
                 (const float *)p[0] + c * 784, 784);
}
static const int64_t conv_in[2] = {56, 56}, conv_kernel[2] = {3, 3};
MAKE(conv_input, SHAPED(NYX_FLOAT32, 1, 32, 54, 54); SHAPED(NYX_FLOAT32, 32, 32, 3, 3);
     set("size", NYX_LIST(conv_in, 2));)
static __attribute__((noinline)) void conv_input(void) {
  const float *g = p[0], *w = p[1];
  float *r = result;
  memset(r, 0, 32 * 56 * 56 * sizeof *r);
  for (int o = 0; o < 32; o++)
    for (int c = 0; c < 32; c++)
      for (int t = 0; t < 9; t++)
        for (int i = 0; i < 54; i++)
          add_scaled(r + (c * 56 + i + t / 3) * 56 + t % 3, w[(o * 32 + c) * 9 + t],
                     g + (o * 54 + i) * 54, 54);
}
MAKE(conv_weight, SHAPED(NYX_FLOAT32, 1, 32, 54, 54); SHAPED(NYX_FLOAT32, 1, 32, 56, 56);
     set("kernel_size", NYX_LIST(conv_kernel, 2));)
static __attribute__((noinline)) void conv_weight(void) {
  const float *g = p[0], *x = p[1];
  float *r = result;
  for (int o = 0; o < 32; o++)
    for (int c = 0; c < 32; c++)
      for (int t = 0; t < 9; t++) {
        float sum[2] = {0};
        for (int i = 0; i < 54; i++) {
          const float *from = x + (c * 56 + i + t / 3) * 56 + t % 3;
          const float *by = g + (o * 54 + i) * 54;
          sum[0] += dot(by, from, 48);
          for (int j = 48; j < 54; j++) sum[1] += by[j] * from[j];
        }
        r[(o * 32 + c) * 9 + t] = sum[0] + sum[1];
      }
}

/* Pooling of 100 planes of 100 x 100. */

static const int64_t two[2] = {2, 2}, three[2] = {3, 3}, ones[2] = {1, 1};
static const int64_t pooled_from[2] = {100, 100};
MAKE(pool2, SHAPED(NYX_FLOAT32, 1, 100, 100, 100); set("kernel_size", NYX_LIST(two, 2));
     set("output_size", NYX_LIST(ones, 2));)
MAKE(pool3, SHAPED(NYX_FLOAT32, 1, 100, 100, 100); set("kernel_size", NYX_LIST(three, 2));
     set("stride", NYX_LIST(two, 2)); set("padding", NYX_LIST(ones, 2));)
MAKE(unpool2, SHAPED(NYX_FLOAT32, 1, 100, 50, 50); set("kernel_size", NYX_LIST(two, 2));
     set("size", NYX_LIST(pooled_from, 2));)
#define POOL_LOOP(name, expression)                                                      \
  static __attribute__((noinline)) void name(void) {                                     \
    float *restrict r = result;                                                          \
    for (int i = 0; i < 5000; i++) {                                                     \
      const float *restrict x = (const float *)p[0] + i * 200;                           \
      for (int j = 0; j < 50; j++) {                                                     \
        float a = x[2 * j], b = x[2 * j + 1], c = x[2 * j + 100], d = x[2 * j + 101];    \
        r[i * 50 + j] = (expression);                                                    \
      }                                                                                  \
    }                                                                                    \
  }
static inline float greater(float a, float b) {
  return a > b ? a : b;
}
POOL_LOOP(max_pool_2, greater(greater(a, b), greater(c, d)))
POOL_LOOP(avg_pool_2, (a + b + c + d) * 0.25f)
static __attribute__((noinline)) void max_pool_2_indices(void) {
  float *restrict r = result;
  int64_t *restrict at = (int64_t *)result + 5000 * 50;
  for (int i = 0; i < 5000; i++) {
    const float *restrict x = (const float *)p[0] + i * 200;
    for (int j = 0; j < 50; j++) {
      int best = 2 * j;
      best = x[2 * j + 1] > x[best] ? 2 * j + 1 : best;
      best = x[2 * j + 100] > x[best] ? 2 * j + 100 : best;
      best = x[2 * j + 101] > x[best] ? 2 * j + 101 : best;
      r[i * 50 + j] = x[best];
      at[i * 50 + j] = i % 50 * 200 + best;
    }
  }
}
/* 3 x 3, every second place, a border of one: the first row and column see less. */
static __attribute__((noinline)) void max_pool_3(void) {
  for (int k = 0; k < 100; k++) {
    const float *restrict x = (const float *)p[0] + k * 10000;
    for (int i = 0; i < 50; i++) {
      float *restrict r = (float *)result + (k * 50 + i) * 50, row[100];
      const float *at = x + 2 * i * 100, *over = i ? at - 100 : at;
      for (int j = 0; j < 100; j++)
        row[j] = greater(greater(over[j], at[j]), at[j + 100]);
      r[0] = greater(row[0], row[1]);
      for (int j = 1; j < 50; j++)
        r[j] = greater(greater(row[2 * j - 1], row[2 * j]), row[2 * j + 1]);
    }
  }
}
static __attribute__((noinline)) void avg_pool_all(void) {
  for (int k = 0; k < 100; k++) {
    const float *x = (const float *)p[0] + k * 10000;
    float s[8] = {0}, sum = 0;
    for (int i = 0; i < 10000; i += 8)
      for (int q = 0; q < 8; q++) s[q] += x[i + q];
    for (int q = 0; q < 8; q++) sum += s[q];
    ((float *)result)[k] = sum / 10000;
  }
}
static __attribute__((noinline)) void avg_unpool_2(void) {
  for (int i = 0; i < 5000; i++) {
    const float *restrict g = (const float *)p[0] + i * 50;
    float *restrict r = (float *)result + i * 200;
    for (int j = 0; j < 100; j++) r[j] = g[j / 2] * 0.25f;
    memcpy(r + 100, r, 100 * sizeof *r);
  }
}

/* One head of 256 queries and keys of 64. */
MAKE(attention, SHAPED(NYX_FLOAT32, 256, 64); SHAPED(NYX_FLOAT32, 256, 64);
     SHAPED(NYX_FLOAT32, 256, 64);)
static __attribute__((noinline)) void attention(void) {
  const float *key = p[1], *value = p[2];
  for (int i = 0; i < 256; i++) {
    const float *query = (const float *)p[0] + i * 64;
    float *r = (float *)result + i * 64, weight[256], most = -INFINITY, sum = 0;
    for (int j = 0; j < 256; j++) weight[j] = dot(query, key + j * 64, 64) * 0.125f;
    for (int j = 0; j < 256; j++) most = greater(weight[j], most);
    for (int j = 0; j < 256; j++) sum += weight[j] = expf(weight[j] - most);
    memset(r, 0, 64 * sizeof *r);
    for (int j = 0; j < 256; j++) add_scaled(r, weight[j] / sum, value + j * 64, 64);
  }
}

/* 16 steps of 8 sequences, 64 features, 128 states. */
enum { STEPS = 16, LINES = 8, FEATURES = 64, STATES = 128 };
MAKE(lstm, SHAPED(NYX_FLOAT32, STEPS, LINES, FEATURES);
     SHAPED(NYX_FLOAT32, 4 * STATES, FEATURES); SHAPED(NYX_FLOAT32, 4 * STATES, STATES);
     SHAPED(NYX_FLOAT32, 4 * STATES); SHAPED(NYX_FLOAT32, 4 * STATES);
     set("mode", NYX_S("lstm"));)
static inline float logistic(float x) {
  return 1 / (1 + expf(-x));
}
/* Keeps gates and cells too, as the op does. */
static __attribute__((noinline)) void lstm(void) {
  const float *b1 = p[3], *b2 = p[4];
  float *h = result, *gate = h + STEPS * LINES * STATES;
  float *cell = gate + STEPS * LINES * STATES * 4;
  static const float zero[STATES];
  for (int t = 0; t < STEPS * LINES;
       t++, h += STATES, cell += STATES, gate += 4 * STATES) {
    const float *before = t < LINES ? zero : h - LINES * STATES;
    const float *was = t < LINES ? zero : cell - LINES * STATES;
    for (int j = 0; j < 4 * STATES; j++)
      gate[j] = b1[j] + b2[j] +
                dot((const float *)p[0] + t * FEATURES,
                    (const float *)p[1] + j * FEATURES, FEATURES) +
                dot(before, (const float *)p[2] + j * STATES, STATES);
    for (int j = 0; j < STATES; j++) {
      float *g = gate + j;
      g[0] = logistic(g[0]);
      g[STATES] = logistic(g[STATES]);
      g[2 * STATES] = tanhf(g[2 * STATES]);
      g[3 * STATES] = logistic(g[3 * STATES]);
      cell[j] = g[STATES] * was[j] + g[0] * g[2 * STATES];
      h[j] = g[3 * STATES] * tanhf(cell[j]);
    }
  }
}

/* Steps of optimisers over a million parameters, in place. */
MAKE(
    steps, for (; n_in < l->inputs;)
               in[n_in++] = tensor(NYX_FLOAT32, 1, (const int64_t[]){N}, 0.5, 1);
    set("lr", NYX_F(0.001)); set("step", NYX_I(10));
    if (l->high > 0) set("momentum", NYX_F(0.9)); if (l->low > 0) {
      set("decoupled", NYX_I(1));
      set("weight_decay", NYX_F(0.01));
    })
static __attribute__((noinline)) void sgd(void) {
  float *restrict x = (float *)(uintptr_t)p[0];
  const float *restrict g = p[1];
  for (int i = 0; i < N; i++) x[i] -= 0.001f * g[i];
}
static __attribute__((noinline)) void sgd_momentum(void) {
  float *restrict x = (float *)(uintptr_t)p[0], *restrict v = (float *)(uintptr_t)p[2];
  const float *restrict g = p[1];
  for (int i = 0; i < N; i++) x[i] -= 0.001f * (v[i] = 0.9f * v[i] + g[i]);
}
static __attribute__((noinline)) void adam(void) {
  float *restrict x = (float *)(uintptr_t)p[0], *restrict m = (float *)(uintptr_t)p[2];
  float *restrict v = (float *)(uintptr_t)p[3];
  const float *restrict g = p[1];
  const float by = (float)(0.001 / (1 - pow(0.9, 10)));
  const float root = (float)(1 / sqrt(1 - pow(0.999, 10)));
  for (int i = 0; i < N; i++) {
    m[i] = 0.9f * m[i] + 0.1f * g[i];
    v[i] = 0.999f * v[i] + 0.001f * g[i] * g[i];
    x[i] -= by * m[i] / (sqrtf(v[i]) * root + 1e-8f);
  }
}
static __attribute__((noinline)) void adamw(void) {
  float *restrict x = (float *)(uintptr_t)p[0];
  const float keep = 1 - 0.001f * 0.01f;
  float *restrict m = (float *)(uintptr_t)p[2], *restrict v = (float *)(uintptr_t)p[3];
  const float *restrict g = p[1];
  const float by = (float)(0.001 / (1 - pow(0.9, 10)));
  const float root = (float)(1 / sqrt(1 - pow(0.999, 10)));
  for (int i = 0; i < N; i++) {
    m[i] = 0.9f * m[i] + 0.1f * g[i];
    v[i] = 0.999f * v[i] + 0.001f * g[i] * g[i];
    x[i] = x[i] * keep - by * m[i] / (sqrtf(v[i]) * root + 1e-8f);
  }
}

/* Random numbers: Philox 4x32-10, as Nyx draws them, a block of four words after the
 * other. */
static const int64_t line[1] = {N};
MAKE(random, if (l->inputs > 0) SHAPED(NYX_FLOAT32, N); set("shape", NYX_LIST(line, 1));
     set("low", NYX_I(0)); set("high", NYX_I(1000)); set("p", NYX_F(0.25));
     set("n", NYX_I(N)); set("training", NYX_I(1));
     if (l->dtype == NYX_FLOAT64) set("dtype", NYX_I(NYX_FLOAT64));)
static inline void philox(uint64_t block, uint32_t w[4]) {
  uint32_t a = (uint32_t)block, b = (uint32_t)(block >> 32), c = 0, d = 0;
  uint32_t k0 = 1, k1 = 0;
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    uint64_t left = (uint64_t)a * 0xD2511F53u, right = (uint64_t)c * 0xCD9E8D57u;
    a = (uint32_t)(right >> 32) ^ b ^ k0;
    c = (uint32_t)(left >> 32) ^ d ^ k1;
    b = (uint32_t)right;
    d = (uint32_t)left;
  }
  w[0] = a, w[1] = b, w[2] = c, w[3] = d;
}
#define RANDOM_LOOP(name, per, ...)                                                      \
  static __attribute__((noinline)) void name(void) {                                     \
    const float *restrict x = p[0];                                                      \
    (void)x;                                                                             \
    for (int64_t i = 0; i < N; i += per) {                                               \
      uint32_t w[4];                                                                     \
      philox((uint64_t)(i / per), w);                                                    \
      for (int64_t k = 0; k < per; k++) __VA_ARGS__                                      \
    }                                                                                    \
  }
RANDOM_LOOP(uniforms, 4, ((float *)result)[i + k] = (float)(w[k] >> 8) * 0x1p-24f;)
RANDOM_LOOP(uniforms_f64, 2,
            ((double *)result)[i + k] =
                (double)((w[2 * k] | (uint64_t)w[2 * k + 1] << 32) >> 11) * 0x1p-53;)
RANDOM_LOOP(normals, 4, {
  float radius = sqrtf(-2 * logf(((float)w[k & 2] + 1) * 0x1p-32f));
  float angle = (float)(w[k | 1] >> 8) * (6.2831853f * 0x1p-24f);
  ((float *)result)[i + k] = radius * (k & 1 ? sinf(angle) : cosf(angle));
})
RANDOM_LOOP(below_thousand, 2, {
  uint64_t u = w[2 * k] | (uint64_t)w[2 * k + 1] << 32;
  ((int64_t *)result)[i + k] =
      (int64_t)((__extension__(unsigned __int128) u) * 1000 >> 64);
})
RANDOM_LOOP(quarter, 4, ((float *)result)[i + k] = w[k] < 1u << 30;)
RANDOM_LOOP(dropped, 4,
            ((float *)result)[i + k] = w[k] < 1u << 30 ? 0 : x[i + k] * (1 / 0.75f);)
static void permuted(void) {
  int64_t *r = result;
  for (int64_t i = 0; i < N; i++) r[i] = i;
  for (int64_t i = N - 1; i > 0; i -= 2) {
    uint32_t w[4];
    philox((uint64_t)i, w);
    for (int64_t k = 0; k < 2 && i - k > 0; k++) {
      uint64_t u = w[2 * k] | (uint64_t)w[2 * k + 1] << 32;
      int64_t at =
          (int64_t)((__extension__(unsigned __int128) u) * (uint64_t)(i - k + 1) >> 64);
      int64_t kept = r[i - k];
      r[i - k] = r[at], r[at] = kept;
    }
  }
}

#define LAYER(name, op, make, run) {name, op, make_##make, run, NYX_FLOAT32, 0, 0, 0, -1},
#define STEP(name, op, run, n, low, high)                                                \
  {name, op, make_steps, run, NYX_FLOAT32, n, low, high, -1},
static const loop layer_loops[] = {
    /* clang-format off */
  LAYER("matrix_vector_f32", "matmul", matrix_vector, matrix_vector)
  LAYER("vector_matrix_f32", "matmul", vector_matrix, vector_matrix)
  LAYER("linear_f32", "linear", linear, linear)
  LAYER("int_mm_i8", "int_mm", int_product, int_product)
  LAYER("matmul_f32_3", "matmul", small_3, small_3)
  LAYER("matmul_f32_4", "matmul", small_4, small_4)
  LAYER("matmul_f32_16", "matmul", small_16, small_16)
  LAYER("conv2d_f32_depthwise", "conv2d", depthwise, depthwise)
  LAYER("conv2d_f32_pointwise", "conv2d", pointwise, pointwise)
  LAYER("conv2d_input_f32", "conv2d_input", conv_input, conv_input)
  LAYER("conv2d_weight_f32", "conv2d_weight", conv_weight, conv_weight)
  LAYER("max_pool2d_f32_2", "max_pool2d", pool2, max_pool_2)
  LAYER("max_pool2d_f32_3", "max_pool2d", pool3, max_pool_3)
  LAYER("max_pool2d_indices_f32_2", "max_pool2d_with_indices", pool2, max_pool_2_indices)
  LAYER("avg_pool2d_f32_2", "avg_pool2d", pool2, avg_pool_2)
  LAYER("avg_pool2d_f32_all", "adaptive_avg_pool2d", pool2, avg_pool_all)
  LAYER("avg_pool2d_backward_f32", "avg_pool2d_backward", unpool2, avg_unpool_2)
  LAYER("attention_f32", "scaled_dot_product_attention", attention, attention)
  LAYER("lstm_f32", "recurrence", lstm, lstm)
  STEP("sgd_f32", "sgd_step", sgd, 2, 0, 0)
  STEP("sgd_f32_momentum", "sgd_step", sgd_momentum, 3, 0, 1)
  STEP("adam_f32", "adam_step", adam, 4, 0, 0)
  STEP("adamw_f32", "adam_step", adamw, 4, 1, 0)
  LAYER("rand_f32", "rand", random, uniforms)
  {"rand_f64", "rand", make_random, uniforms_f64, NYX_FLOAT64, 0, 0, 0, -1},
  LAYER("randn_f32", "randn", random, normals)
  LAYER("randint_i64", "randint", random, below_thousand)
  LAYER("randperm_i64", "randperm", random, permuted)
  {"bernoulli_f32", "bernoulli", make_random, quarter, NYX_FLOAT32, 1, 0, 0, -1},
  {"dropout_f32", "dropout", make_random, dropped, NYX_FLOAT32, 1, 0, 0, -1},
    /* clang-format on */
};
