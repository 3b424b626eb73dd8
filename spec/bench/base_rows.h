/* Rows and columns of base.c: softmax and norms with their gradients, losses, and
 * reductions that base_loops.h has not got. Plain loops over 1000 x 1000 float32, a row
 * of running values where they go along columns. Included by base.c. */

/* `x` elements, `g` what arrives from above, `r` what is written. */
#define ROWS(name, ...)                                                                  \
  static __attribute__((noinline)) void name(void) {                                     \
    for (int i = 0; i < SIDE; i++) {                                                     \
      const float *restrict x = (const float *)p[0] + i * SIDE;                          \
      const float *restrict g = n_in > 1 ? (const float *)p[1] + i * SIDE : x;           \
      float *restrict r = (float *)result + i * SIDE;                                    \
      (void)g, (void)r;                                                                  \
      __VA_ARGS__                                                                        \
    }                                                                                    \
  }
#define EACH for (int c = 0; c < SIDE; c++)
#define DOWN for (int64_t i = 0; i < N; i += SIDE)

ROWS(log_softmax_rows, {
  float most = -INFINITY, sum = 0;
  EACH most = x[c] > most ? x[c] : most;
  EACH sum += expf(x[c] - most);
  sum = most + logf(sum);
  EACH r[c] = x[c] - sum;
})
ROWS(logsumexp_rows, {
  float most = -INFINITY, sum = 0;
  EACH most = x[c] > most ? x[c] : most;
  EACH sum += expf(x[c] - most);
  ((float *)result)[i] = most + logf(sum);
})
/* Their inputs are g and r. */
ROWS(softmax_backward_rows, {
  float sum = 0;
  EACH sum += x[c] * g[c];
  EACH r[c] = g[c] * (x[c] - sum);
})
ROWS(log_softmax_backward_rows, {
  float sum = 0;
  EACH sum += x[c];
  EACH r[c] = x[c] - expf(g[c]) * sum;
})

static __attribute__((noinline)) void softmax_columns(void) {
  const float *restrict x = p[0];
  float *restrict r = result;
  static float most[SIDE], sum[SIDE];
  EACH most[c] = -INFINITY;
  EACH sum[c] = 0;
  DOWN EACH most[c] = x[i + c] > most[c] ? x[i + c] : most[c];
  DOWN EACH sum[c] += r[i + c] = expf(x[i + c] - most[c]);
  EACH sum[c] = 1 / sum[c];
  DOWN EACH r[i + c] *= sum[c];
}
static __attribute__((noinline)) void log_softmax_columns(void) {
  const float *restrict x = p[0];
  float *restrict r = result;
  static float most[SIDE], sum[SIDE];
  EACH most[c] = -INFINITY;
  EACH sum[c] = 0;
  DOWN EACH most[c] = x[i + c] > most[c] ? x[i + c] : most[c];
  DOWN EACH sum[c] += expf(x[i + c] - most[c]);
  EACH most[c] += logf(sum[c]);
  DOWN EACH r[i + c] = x[i + c] - most[c];
}
static __attribute__((noinline)) void softmax_backward_columns(void) {
  const float *restrict g = p[0], *restrict y = p[1];
  float *restrict r = result;
  static float sum[SIDE];
  EACH sum[c] = 0;
  DOWN EACH sum[c] += g[i + c] * y[i + c];
  DOWN EACH r[i + c] = y[i + c] * (g[i + c] - sum[c]);
}
static __attribute__((noinline)) void log_softmax_backward_columns(void) {
  const float *restrict g = p[0], *restrict y = p[1];
  float *restrict r = result;
  static float sum[SIDE];
  EACH sum[c] = 0;
  DOWN EACH sum[c] += g[i + c];
  DOWN EACH r[i + c] = g[i + c] - expf(y[i + c]) * sum[c];
}

static __attribute__((noinline)) void argmax_columns(void) {
  const float *restrict x = p[0];
  static float most[SIDE];
  static int32_t at[SIDE];
  EACH most[c] = x[c];
  EACH at[c] = 0;
  for (int i = 1; i < SIDE; i++) EACH {
      float v = x[i * SIDE + c];
      at[c] = v > most[c] ? i : at[c];
      most[c] = v > most[c] ? v : most[c];
    }
  EACH((int64_t *)result)[c] = at[c];
}
/* Both passes in float, as rows have them. */
static __attribute__((noinline)) void var_columns(void) {
  const float *restrict x = p[0];
  float *restrict r = result;
  static float mean[SIDE];
  EACH r[c] = mean[c] = 0;
  DOWN EACH mean[c] += x[i + c];
  EACH mean[c] /= SIDE;
  DOWN EACH r[c] += (x[i + c] - mean[c]) * (x[i + c] - mean[c]);
  EACH r[c] /= SIDE - 1;
}
ROWS(norm_rows, {
  float sum = 0;
  EACH sum += x[c] * x[c];
  ((float *)result)[i] = sqrtf(sum);
})
static __attribute__((noinline)) void norm_columns(void) {
  const float *restrict x = p[0];
  float *restrict r = result;
  EACH r[c] = 0;
  DOWN EACH r[c] += x[i + c] * x[i + c];
  EACH r[c] = sqrtf(r[c]);
}

/* Norms: weights and biases are the inputs behind x, or behind g and x. */
static void make_norm(const loop *l) {
  const int64_t shape[2] = {SIDE, SIDE};
  for (n_in = 0; n_in < l->inputs; n_in++)
    in[n_in] =
        tensor(NYX_FLOAT32, n_in < l->axis ? 2 : 1, shape + (n_in >= l->axis), 0.5, 2);
}
ROWS(layer_norm_rows, {
  const float *restrict w = p[1];
  const float *restrict b = p[2];
  float mean = 0, squares = 0;
  EACH mean += x[c];
  mean /= SIDE;
  EACH squares += (x[c] - mean) * (x[c] - mean);
  float scale = 1 / sqrtf(squares / SIDE + 1e-5f);
  EACH r[c] = (x[c] - mean) * scale * w[c] + b[c];
})
ROWS(rms_norm_rows, {
  const float *restrict w = p[1];
  float squares = 0;
  EACH squares += x[c] * x[c];
  float scale = 1 / sqrtf(squares / SIDE + 1e-5f);
  EACH r[c] = x[c] * scale * w[c];
})
static __attribute__((noinline)) void layer_norm_backward_rows(void) {
  const float *restrict w = p[2];
  static float by_weight[SIDE], by_bias[SIDE];
  EACH by_weight[c] = by_bias[c] = 0;
  for (int i = 0; i < SIDE; i++) {
    const float *restrict g = (const float *)p[0] + i * SIDE;
    const float *restrict x = (const float *)p[1] + i * SIDE;
    float *restrict r = (float *)result + i * SIDE;
    float mean = 0, squares = 0, sum = 0, product = 0;
    EACH mean += x[c];
    mean /= SIDE;
    EACH squares += (x[c] - mean) * (x[c] - mean);
    float scale = 1 / sqrtf(squares / SIDE + 1e-5f);
    EACH {
      float gw = g[c] * w[c], y = (x[c] - mean) * scale;
      sum += gw;
      product += gw * y;
      by_weight[c] += g[c] * y;
      by_bias[c] += g[c];
    }
    sum /= SIDE;
    product /= SIDE;
    EACH r[c] = scale * (g[c] * w[c] - sum - (x[c] - mean) * scale * product);
  }
  memcpy((float *)result + N, by_weight, sizeof by_weight);
  memcpy((float *)result + N + SIDE, by_bias, sizeof by_bias);
}
/* Of a batch of rows: every column is a channel. */
static __attribute__((noinline)) void batch_norm_columns(void) {
  const float *restrict x = p[0], *restrict w = p[1], *restrict b = p[2];
  float *restrict r = result;
  static float mean[SIDE], scale[SIDE];
  EACH mean[c] = scale[c] = 0;
  DOWN EACH mean[c] += x[i + c];
  EACH mean[c] /= SIDE;
  DOWN EACH scale[c] += (x[i + c] - mean[c]) * (x[i + c] - mean[c]);
  EACH scale[c] = w[c] / sqrtf(scale[c] / SIDE + 1e-5f);
  EACH mean[c] = b[c] - mean[c] * scale[c];
  DOWN EACH r[i + c] = x[i + c] * scale[c] + mean[c];
}
static __attribute__((noinline)) void batch_norm_backward_columns(void) {
  const float *restrict g = p[0], *restrict x = p[1], *restrict mean = p[2];
  const float *restrict rstd = p[3], *restrict w = p[4];
  float *restrict r = result;
  float *restrict by_weight = r + N, *restrict by_bias = r + N + SIDE;
  static float of_x[SIDE], of_g[SIDE], rest[SIDE];
  EACH by_weight[c] = by_bias[c] = 0;
  DOWN EACH {
    by_weight[c] += g[i + c] * (x[i + c] - mean[c]);
    by_bias[c] += g[i + c];
  }
  EACH {
    by_weight[c] *= rstd[c];
    of_g[c] = w[c] * rstd[c];
    of_x[c] = of_g[c] * by_weight[c] * rstd[c] / SIDE;
    rest[c] = of_x[c] * mean[c] - of_g[c] * by_bias[c] / SIDE;
  }
  DOWN EACH r[i + c] = of_g[c] * g[i + c] - of_x[c] * x[i + c] + rest[c];
}

/* Images: 10 x 100 channels of 1000 places, in 10 groups. */
#define PLANES 100
static void make_images(const loop *l) {
  const int64_t shape[4] = {10, PLANES, 25, 40};
  for (n_in = 0; n_in < l->inputs; n_in++)
    in[n_in] =
        tensor(NYX_FLOAT32, n_in < l->axis ? 4 : 1, shape + (n_in >= l->axis), 0.5, 2);
  set("num_groups", NYX_I(10));
}
static __attribute__((noinline)) void batch_norm_images(void) {
  const float *x = p[0], *w = p[1], *b = p[2];
  float *restrict r = result;
  for (int k = 0; k < PLANES; k++) {
    float mean = 0, squares = 0;
    for (int i = k; i < SIDE; i += PLANES) EACH mean += x[i * SIDE + c];
    mean /= 10 * SIDE;
    for (int i = k; i < SIDE; i += PLANES)
      EACH squares += (x[i * SIDE + c] - mean) * (x[i * SIDE + c] - mean);
    float scale = w[k] / sqrtf(squares / (10 * SIDE) + 1e-5f);
    for (int i = k; i < SIDE; i += PLANES)
      EACH r[i * SIDE + c] = (x[i * SIDE + c] - mean) * scale + b[k];
  }
}
/* With statistics that are there: one pass. */
static __attribute__((noinline)) void batch_norm_known(void) {
  const float *w = p[1], *b = p[2], *mean = p[3], *var = p[4];
  for (int i = 0; i < SIDE; i++) {
    const float *restrict x = (const float *)p[0] + i * SIDE;
    float *restrict r = (float *)result + i * SIDE;
    int k = i % PLANES;
    float scale = w[k] / sqrtf(var[k] + 1e-5f), rest = b[k] - mean[k] * scale;
    EACH r[c] = x[c] * scale + rest;
  }
}
static __attribute__((noinline)) void group_norm_images(void) {
  const float *w = p[1], *b = p[2];
  for (int i = 0; i < PLANES; i++) {
    const float *restrict x = (const float *)p[0] + i * 10 * SIDE;
    float *restrict r = (float *)result + i * 10 * SIDE;
    float mean = 0, squares = 0;
    for (int c = 0; c < 10 * SIDE; c++) mean += x[c];
    mean /= 10 * SIDE;
    for (int c = 0; c < 10 * SIDE; c++) squares += (x[c] - mean) * (x[c] - mean);
    float scale = 1 / sqrtf(squares / (10 * SIDE) + 1e-5f);
    for (int k = 0; k < 10; k++) {
      float by = scale * w[i % 10 * 10 + k], rest = b[i % 10 * 10 + k] - mean * by;
      EACH r[k * SIDE + c] = x[k * SIDE + c] * by + rest;
    }
  }
}

/* Losses of rows with a label each. */
static void make_labels(const loop *l) {
  const int64_t shape[2] = {SIDE, SIDE};
  n_in = 0;
  if (l->inputs > 2) in[n_in++] = tensor(NYX_FLOAT32, 0, shape, 1, 1);
  in[n_in++] = tensor(NYX_FLOAT32, 2, shape, -3, 3);
  in[n_in++] = tensor(NYX_INT64, 1, shape, 0, SIDE);
}
static __attribute__((noinline)) void cross_entropy_rows(void) {
  const int64_t *at = p[1];
  double loss = 0;
  for (int i = 0; i < SIDE; i++) {
    const float *restrict x = (const float *)p[0] + i * SIDE;
    float most = -INFINITY, sum = 0;
    if ((uint64_t)at[i] >= SIDE) return;
    EACH most = x[c] > most ? x[c] : most;
    EACH sum += expf(x[c] - most);
    loss += most + logf(sum) - x[at[i]];
  }
  *(float *)result = (float)(loss / SIDE);
}
static __attribute__((noinline)) void cross_entropy_backward_rows(void) {
  const int64_t *at = p[2];
  for (int i = 0; i < SIDE; i++) {
    const float *restrict x = (const float *)p[1] + i * SIDE;
    float *restrict r = (float *)result + i * SIDE, most = -INFINITY, sum = 0;
    if ((uint64_t)at[i] >= SIDE) return;
    EACH most = x[c] > most ? x[c] : most;
    EACH sum += r[c] = expf(x[c] - most);
    float scale = *(const float *)p[0] / SIDE / sum;
    EACH r[c] *= scale;
    r[at[i]] -= *(const float *)p[0] / SIDE;
  }
}

/* name, make, inputs, the axis or how many inputs are whole, low, high */
#define ROW_CASE(op, way, make, n, axis, low, high)                                      \
  {#op "_f32_" #way, #op, make, op##_##way, NYX_FLOAT32, n, low, high, axis},
static const loop row_loops[] = {
    /* clang-format off */
  ROW_CASE(softmax, columns, make_arrays, 1, 0, -3, 3)
  ROW_CASE(log_softmax, rows, make_arrays, 1, 1, -3, 3)
  ROW_CASE(log_softmax, columns, make_arrays, 1, 0, -3, 3)
  ROW_CASE(logsumexp, rows, make_arrays, 1, 1, -3, 3)
  ROW_CASE(softmax_backward, rows, make_arrays, 2, 1, -3, 3)
  ROW_CASE(softmax_backward, columns, make_arrays, 2, 0, -3, 3)
  ROW_CASE(log_softmax_backward, rows, make_arrays, 2, 1, -3, 3)
  ROW_CASE(log_softmax_backward, columns, make_arrays, 2, 0, -3, 3)
  ROW_CASE(argmax, columns, make_arrays, 1, 0, -3, 3)
  ROW_CASE(var, columns, make_arrays, 1, 0, -3, 3)
  ROW_CASE(norm, rows, make_arrays, 1, 1, -3, 3)
  ROW_CASE(norm, columns, make_arrays, 1, 0, -3, 3)
  ROW_CASE(layer_norm, rows, make_norm, 3, 1, 0, 0)
  ROW_CASE(rms_norm, rows, make_norm, 2, 1, 0, 0)
  ROW_CASE(layer_norm_backward, rows, make_norm, 3, 2, 0, 0)
  {"batch_norm_f32_columns", "batch_norm_training", make_norm, batch_norm_columns,
   NYX_FLOAT32, 3, 0, 0, 1},
  ROW_CASE(batch_norm_backward, columns, make_norm, 5, 2, 0, 0)
  {"batch_norm_f32_images", "batch_norm_training", make_images, batch_norm_images,
   NYX_FLOAT32, 3, 0, 0, 1},
  ROW_CASE(batch_norm, known, make_images, 5, 1, 0, 0)
  ROW_CASE(group_norm, images, make_images, 3, 1, 0, 0)
  ROW_CASE(cross_entropy, rows, make_labels, 2, -1, 0, 0)
  ROW_CASE(cross_entropy_backward, rows, make_labels, 3, -1, 0, 0)
    /* clang-format on */
};
