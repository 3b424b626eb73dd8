/* conv2d and its two adjoints against plain loops in double: kernels, strides, padding,
 * dilation, groups, depthwise with one and two outputs, widths around the length of a
 * vector; without memory, interrupted, and with other numbers of threads. */
#include <nyx/nyx.h>
#include <stdlib.h>

#include "conv_loops.h"

static nyx_context *ctx;
static uint64_t state = 1;

/* Small multiples of 1/8: their sums are exact in float32, whatever the order. */
UNTRACED static double number(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int)(state >> 60) / 8 - 1;
}

/* Sizes of {height, width}. */
typedef struct shape {
  int64_t images, inputs, outputs, groups, in[2], kernel[2], stride[2], pad[2],
      dilation[2];
} shape;

enum { Y = LOOPS_Y, X = LOOPS_X, W = LOOPS_W, KINDS = LOOPS };

static int64_t out_size(const shape *s, int i) {
  return (s->in[i] + 2 * s->pad[i] - (s->kernel[i] - 1) * s->dilation[i] - 1) /
             s->stride[i] +
         1;
}

static void sizes_of(const shape *s, int kind, int64_t size[4]) {
  int64_t x[] = {s->images, s->inputs, s->in[0], s->in[1]};
  int64_t w[] = {s->outputs, s->inputs / s->groups, s->kernel[0], s->kernel[1]};
  int64_t y[] = {s->images, s->outputs, out_size(s, 0), out_size(s, 1)};
  memcpy(size, kind == X ? x : kind == W ? w : y, 4 * sizeof *size);
}

static int64_t count_of(const shape *s, int kind) {
  int64_t size[4];
  sizes_of(s, kind, size);
  return size[0] * size[1] * size[2] * size[3];
}

static nyx__conv conv_of(const shape *s) {
  nyx__conv v = {.images = s->images,
                 .in_channels = s->inputs,
                 .out_channels = s->outputs,
                 .groups = s->groups};
  for (int i = 0; i < 2; i++)
    v.window[i] = (nyx__window){s->in[i],  s->kernel[i],   s->stride[i],
                                s->pad[i], s->dilation[i], out_size(s, i)};
  return v;
}

static nyx_tensor *tensor(const shape *s, int kind, nyx_dtype dtype,
                          const double *values) {
  int64_t size[4];
  sizes_of(s, kind, size);
  nyx_tensor *wide = NULL, *out[NYX_MAX_OUTPUTS] = {NULL};
  CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_FLOAT64, 4, size, values, &wide));
  nyx_value to = NYX_I(dtype);
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("cast"), &wide, 1, &to, out));
  nyx_tensor_release(wide);
  return out[0];
}

/* The op that computes `kind` from the two others, t. */
static nyx_status call(const shape *s, int kind, nyx_tensor *const t[KINDS],
                       nyx_tensor **out) {
  static const char *const name[] = {"conv2d", "conv2d_input", "conv2d_weight"};
  nyx_value attrs[] = {
      kind == X ? (nyx_value)NYX_LIST(s->in, 2) : (nyx_value)NYX_LIST(s->kernel, 2),
      NYX_LIST(s->stride, 2), NYX_LIST(s->pad, 2), NYX_LIST(s->dilation, 2),
      NYX_I(s->groups)};
  nyx_tensor *in[] = {t[kind == Y ? X : Y], t[kind == W ? X : W]};
  nyx_tensor *all[NYX_MAX_OUTPUTS] = {NULL};
  nyx_status status =
      nyx_apply(ctx, nyx_op_find(name[kind]), in, 2, attrs + (kind == Y), all);
  *out = all[0];
  return status;
}

static void describe(const shape *s, int kind, double worst) {
  char text[200];
  snprintf(text, sizeof text,
           "kind %d: %dx%dx%dx%d to %d, groups %d, kernel %dx%d, stride %dx%d, "
           "pad %dx%d, dilation %dx%d: off by %g",
           kind, (int)s->images, (int)s->inputs, (int)s->in[0], (int)s->in[1],
           (int)s->outputs, (int)s->groups, (int)s->kernel[0], (int)s->kernel[1],
           (int)s->stride[0], (int)s->stride[1], (int)s->pad[0], (int)s->pad[1],
           (int)s->dilation[0], (int)s->dilation[1], worst);
  CHECK_AT(false, text, "%s", "");
}

/* All three against the plain loops, exactly. */
UNTRACED_CHECK static void compare(const shape *s, nyx_dtype dtype) {
  double *v[KINDS], *expect[KINDS];
  nyx_tensor *t[KINDS], *got;
  for (int k = 0; k < KINDS; k++) {
    size_t n = (size_t)count_of(s, k);
    v[k] = calloc(n + 1, sizeof(double));
    expect[k] = calloc(n + 1, sizeof(double));
    REQUIRE(CHECK(v[k] && expect[k]));
    for (size_t i = 0; i < n; i++) v[k][i] = number();
    t[k] = tensor(s, k, dtype, v[k]);
  }
  for (int k = 0; k < KINDS; k++) {
    double worst = 0;
    const nyx__conv conv = conv_of(s);
    conv_by_loops(&conv, v, k, &(loops_sums){expect[k], NULL, NULL});
    if (!CHECK_OK(ctx, call(s, k, t, &got))) continue;
    size_t n = (size_t)count_of(s, k);
    double *result = calloc(n + 1, sizeof(double));
    CHECK_OK(ctx, nyx_tensor_read(ctx, got, NYX_FLOAT64, result, n * sizeof(double)));
    for (size_t i = 0; i < n; i++) {
      double off = fabs(result[i] - expect[k][i]);
      if (!(off <= worst)) worst = off;
    }
    if (!(worst == 0)) describe(s, k, worst);
    free(result);
    nyx_tensor_release(got);
  }
  for (int k = 0; k < KINDS; k++) {
    free(v[k]);
    free(expect[k]);
    nyx_tensor_release(t[k]);
  }
}

static bool possible(const shape *s) {
  for (int i = 0; i < 2; i++) {
    if (s->in[i] + 2 * s->pad[i] < (s->kernel[i] - 1) * s->dilation[i] + 1) return false;
  }
  return true;
}

/* Every width, kernel, stride, padding and dilation, for inputs -> outputs channels. */
static void sweep(int64_t inputs, int64_t outputs, int64_t groups) {
  static const int64_t widths[] = {1, 2, 15, 16, 17, 33}, kernels[] = {1, 2, 3, 5, 7};
  static const int64_t batches[] = {3, 1, 3, 0};
  int at = 0;
  for (int i = 0; i < 6 * 5 * 3 * 4 * 2; i++) {
    int64_t kernel = kernels[i % 5], stride = 1 + i / 5 % 3, pad = i / 15 % 4;
    int64_t dilation = 1 + i / 60 % 2, width = widths[i / 120];
    shape s = {.images = batches[at % 4],
               .inputs = inputs,
               .outputs = outputs,
               .groups = groups,
               .in = {1 + at % 11, width},
               .kernel = {kernel, kernel},
               .stride = {stride, stride},
               .pad = {pad, pad},
               .dilation = {dilation, dilation}};
    if (at % 3 == 0) { /* unlike in both directions */
      s.kernel[0] = kernels[at % 5];
      s.stride[0] = 1 + at % 3;
      s.pad[0] = at % 4;
      s.dilation[0] = 1 + at % 2;
    }
    if (s.in[0] + 2 * s.pad[0] < (s.kernel[0] - 1) * s.dilation[0] + 1) s.in[0] = 13;
    if (!possible(&s)) continue;
    compare(&s, at % 5 == 4 ? NYX_FLOAT64 : NYX_FLOAT32);
    at++;
  }
  CHECK(at > 400);
}

static void dense(void) {
  sweep(3, 5, 1);
}
static void many_outputs(void) {
  sweep(4, 20, 1);
}
static void grouped(void) {
  sweep(4, 6, 2);
}
static void depthwise(void) {
  sweep(3, 3, 3);
}
static void depthwise_twice(void) {
  sweep(3, 6, 3);
}

/* Sizes that are divided: planes taller than a stripe of padded rows, many channels,
 * several images in a block of columns. */
static const shape large[] = {
    {2, 5, 5, 5, {150, 40}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {1, 3, 6, 3, {150, 70}, {5, 5}, {2, 2}, {2, 2}, {1, 1}},
    {1, 2, 2, 2, {90, 60}, {4, 3}, {3, 2}, {5, 1}, {3, 2}},
    {2, 3, 3, 3, {20, 80}, {5, 5}, {1, 1}, {2, 2}, {1, 1}}, /* wider than vectors: */
    {2, 3, 3, 3, {23, 128}, {5, 5}, {2, 2}, {2, 2}, {1, 1}},
    {1, 3, 3, 3, {22, 121}, {5, 5}, {2, 2}, {1, 1}, {1, 1}},
    {1, 3, 3, 3, {16, 128}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {1, 3, 3, 3, {15, 120}, {3, 3}, {2, 2}, {2, 2}, {1, 1}},
    {1, 3, 6, 3, {11, 90}, {3, 3}, {2, 2}, {0, 0}, {1, 1}},
    {1, 2, 2, 2, {3000, 3}, {3, 3}, {1, 2}, {1, 1}, {1, 1}},
    {1, 2, 2, 2, {3, 3000}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {1, 2, 2, 2, {30, 300}, {3, 3}, {1, 1}, {90, 90}, {99, 99}},
    {1, 2, 2, 2, {9, 9}, {2, 2}, {70, 70}, {80, 80}, {20, 20}},
    {2, 3, 3, 3, {20, 14}, {7, 7}, {1, 1}, {3, 3}, {1, 1}}, /* kernels of many rows: */
    {1, 2, 4, 2, {33, 50}, {9, 8}, {1, 1}, {4, 3}, {1, 1}},
    {1, 2, 2, 2, {91, 112}, {9, 9}, {1, 1}, {4, 4}, {1, 1}}, /* in stripes */
    {1, 2, 2, 2, {7, 9}, {7, 3}, {1, 1}, {3, 9}, {1, 1}},
    {1, 2, 2, 2, {8, 40}, {31, 9}, {1, 1}, {15, 4}, {1, 1}},
    {1, 2, 2, 2, {30, 25}, {23, 4}, {1, 1}, {6, 2}, {1, 1}},
    {1, 2, 2, 2, {16, 17}, {8, 1}, {1, 1}, {0, 0}, {1, 1}},
    {3, 1, 1, 1, {15, 35}, {7, 7}, {1, 1}, {9, 12}, {1, 1}},
    {1, 9, 13, 1, {33, 32}, {5, 5}, {1, 1}, {2, 2}, {1, 1}}, /* columns are not packed: */
    {2, 6, 60, 2, {20, 48}, {3, 5}, {2, 1}, {1, 2}, {1, 1}},
    {1, 30, 16, 1, {25, 60}, {4, 5}, {1, 2}, {2, 1}, {1, 1}},
    {1, 5, 33, 1, {40, 47}, {3, 3}, {1, 1}, {3, 3}, {3, 3}},
    {1, 33, 40, 1, {20, 30}, {3, 2}, {1, 1}, {1, 1}, {1, 1}},
    {5, 40, 64, 1, {7, 7}, {2, 3}, {1, 1}, {1, 1}, {1, 1}},
    {3, 64, 33, 1, {14, 14}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {5, 40, 64, 1, {7, 7}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {9, 33, 70, 1, {11, 9}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {3, 64, 48, 1, {14, 14}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {2, 48, 64, 1, {15, 13}, {1, 1}, {2, 2}, {0, 0}, {1, 1}},
    {2, 40, 50, 1, {16, 17}, {1, 1}, {3, 2}, {2, 3}, {1, 1}},
    {2, 24, 30, 1, {20, 20}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}, /* images in vectors: */
    {4, 48, 64, 2, {12, 12}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {3, 72, 700, 1, {9, 11}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}, /* rows divided */
    {6, 20, 530, 1, {13, 13}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {2, 64, 64, 2, {12, 11}, {3, 3}, {1, 1}, {2, 2}, {2, 2}},
    {1, 3, 32, 1, {70, 50}, {7, 7}, {2, 2}, {3, 3}, {1, 1}},
    {9, 20, 24, 1, {5, 6}, {3, 5}, {1, 1}, {0, 2}, {1, 1}},
    {1, 2, 20, 1, {60, 45}, {21, 21}, {2, 2}, {3, 3}, {1, 1}},
    {1, 16, 300, 1, {40, 33}, {3, 5}, {1, 1}, {0, 0}, {1, 1}},
    {1, 64, 40, 1, {9, 8}, {4, 4}, {1, 1}, {1, 1}, {1, 1}},    /* rows a page apart */
    {1, 80, 300, 1, {17, 18}, {3, 3}, {2, 2}, {1, 1}, {1, 1}}, /* outputs divided: */
    {3, 60, 600, 2, {7, 9}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {1, 200, 300, 1, {7, 7}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}, /* products: */
    {1, 120, 130, 2, {14, 13}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {1, 70, 45, 1, {9, 9}, {3, 3}, {1, 1}, {0, 0}, {1, 1}}, /* a column more than vectors:
                                                             */
    {1, 60, 64, 2, {13, 14}, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {1, 64, 40, 1, {8, 8}, {4, 4}, {1, 1}, {1, 1}, {1, 1}},
    {1, 64, 40, 1, {6, 14}, {4, 4}, {1, 1}, {1, 1}, {1, 1}}, /* the same, packed */
    {1, 44, 150, 2, {7, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, /* three vectors: */
    {1, 70, 150, 1, {5, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {3, 60, 70, 1, {4, 4}, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {1, 420, 260, 2, {7, 7}, {3, 3}, {1, 1}, {2, 2}, {2, 2}}, /* beyond a cache: */
    {1, 300, 170, 1, {6, 8}, {3, 3}, {1, 1}, {2, 2}, {2, 2}},
    {1, 900, 500, 1, {7, 7}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {1, 500, 900, 1, {14, 13}, {1, 1}, {2, 2}, {0, 0}, {1, 1}},
    {1, 280, 420, 2, {14, 14}, {3, 3}, {2, 2}, {1, 1}, {1, 1}}, /* in phases: */
    {1, 150, 330, 1, {12, 16}, {3, 3}, {2, 2}, {1, 2}, {1, 1}},
    {1, 130, 370, 1, {14, 14}, {3, 3}, {2, 2}, {0, 2}, {1, 1}},
};
enum { LARGE = sizeof large / sizeof *large };

static void large_ones(void) {
  for (int i = 0; i < LARGE; i++) {
    compare(&large[i], NYX_FLOAT32);
    compare(&large[i], NYX_FLOAT64);
  }
}

/* Values whose sums are rounded. */
static void inputs_of(const shape *s, nyx_tensor *t[KINDS]) {
  for (int k = 0; k < KINDS; k++) {
    size_t n = (size_t)count_of(s, k);
    double *v = calloc(n + 1, sizeof(double));
    REQUIRE(CHECK(v != NULL));
    for (size_t i = 0; i < n; i++) v[i] = number() * 0.1 + 1e-3 * (double)(i % 97);
    t[k] = tensor(s, k, NYX_FLOAT32, v);
    free(v);
  }
}

static void threads(void) {
  static const int counts[] = {1, 2, 5};
  for (int i = 0; i < LARGE; i++) {
    nyx_tensor *t[KINDS], *got[3];
    inputs_of(&large[i], t);
    for (int k = 0; k < KINDS; k++) {
      for (int n = 0; n < 3; n++) {
        CHECK_OK(ctx, nyx_parallel_set_threads(counts[n]));
        CHECK_OK(ctx, call(&large[i], k, t, &got[n]));
      }
      size_t bytes = (size_t)count_of(&large[i], k) * sizeof(float);
      for (int n = 1; n < 3; n++)
        CHECK(memcmp(nyx_tensor_data(got[0]), nyx_tensor_data(got[n]), bytes) == 0);
      for (int n = 0; n < 3; n++) nyx_tensor_release(got[n]);
    }
    for (int k = 0; k < KINDS; k++) nyx_tensor_release(t[k]);
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

/* Every allocation fails in turn: a status, no result, nothing left behind. */
static void without_memory(void) {
  for (int i = 0; i < LARGE; i++) {
    nyx_tensor *t[KINDS], *got = NULL;
    inputs_of(&large[i], t);
    for (int k = 0; k < KINDS; k++) {
      nyx_memory_stats before, after;
      nyx_memory_get_stats(&before);
      nyx_status status = NYX_ERR_MEMORY;
      int n = 0;
      for (; status != NYX_OK && n < 500; n++) {
        nyx_memory_fail_after(n);
        status = call(&large[i], k, t, &got);
        nyx_memory_fail_after(-1);
        if (status != NYX_OK) CHECK_STATUS(status, NYX_ERR_MEMORY);
        CHECK((got != NULL) == (status == NYX_OK));
        nyx_tensor_release(got);
        nyx_memory_get_stats(&after);
        CHECK_INT(after.live, before.live);
      }
      CHECK_OK(ctx, status);
      CHECK(n > 1);
    }
    for (int k = 0; k < KINDS; k++) nyx_tensor_release(t[k]);
  }
}

/* The request comes with the `ask_at`th range of work. */
static int64_t ask_at;

static void asking(void *user, int64_t count, void (*job)(void *, int64_t), void *arg) {
  for (int64_t i = 0; i < count; i++) {
    if (ask_at-- == 0) nyx_context_interrupt((nyx_context *)user);
    job(arg, i);
  }
}

static void interrupted(void) {
  for (int i = 0; i < LARGE; i++) {
    nyx_tensor *t[KINDS], *got = NULL;
    inputs_of(&large[i], t);
    nyx_job_system jobs = {.run = asking, .user = ctx, .threads = 2};
    for (int k = 0; k < KINDS; k++) {
      ask_at = 1;
      nyx_parallel_set_jobs(&jobs);
      nyx_status status = call(&large[i], k, t, &got);
      nyx_parallel_set_jobs(NULL);
      if (ask_at < 0) CHECK_STATUS(status, NYX_ERR_INTERRUPTED);
      CHECK((got != NULL) == (status == NYX_OK));
      nyx_tensor_release(got);
    }
    for (int k = 0; k < KINDS; k++) nyx_tensor_release(t[k]);
  }
}

/* An infinity reaches those results that its element reaches, no others. */
static void infinities(void) {
  static const int64_t width[] = {5, 16, 17, 40};
  for (int i = 0; i < 8; i++) {
    int64_t channels = i < 4 ? 1 : 24;
    shape s = {1,      channels, channels, 1,     {9, width[i % 4]},
               {3, 3}, {1, 1},   {0, 0},   {1, 1}};
    nyx_tensor *t[KINDS], *got;
    inputs_of(&s, t);
    int64_t n = count_of(&s, X), kernel = 9 * channels * channels;
    float *x = nyx_tensor_data(t[X]);
    x[n - 1] = x[s.in[1] - 1] = INFINITY; /* right corners: only right taps see them */
    CHECK_OK(ctx, call(&s, W, t, &got));
    const float *w = nyx_tensor_data(got);
    for (int64_t j = 0; j < kernel; j++) {
      bool left = j % 3 != 2,
           first = j / 9 % channels != 0 && j / 9 % channels != channels - 1;
      if (left || first) CHECK(isfinite(w[j]));
    }
    nyx_tensor_release(got);
    for (int k = 0; k < KINDS; k++) nyx_tensor_release(t[k]);
  }
}

/* Elements that no output sees change nothing: strides leave out the last row and column.
 */
static void unseen(void) {
  static const int64_t widths[] = {6, 8, 16, 18, 32, 34, 66, 132};
  for (int i = 0; i < 16; i++) {
    int64_t kernel = 3 + i / 8 * 2, width = widths[i % 8];
    shape s = {2, 2, 2, 2, {14, width}, {kernel, kernel}, {2, 2}, {0, 0}, {1, 1}};
    nyx_tensor *t[KINDS], *got;
    inputs_of(&s, t);
    float *x = nyx_tensor_data(t[X]);
    for (int64_t j = 0; j < count_of(&s, X); j++)
      if (j % width == width - 1 || j / width % 14 == 13) x[j] = NAN;
    for (int k = W; k <= Y; k++) {
      CHECK_OK(ctx, call(&s, k, t, &got));
      const float *v = nyx_tensor_data(got);
      for (int64_t j = 0; j < count_of(&s, k); j++) CHECK(isfinite(v[j]));
      nyx_tensor_release(got);
    }
    for (int k = 0; k < KINDS; k++) nyx_tensor_release(t[k]);
  }
}

/* No images, no outputs, images that are all padding: empty results, or zeros. */
static void empty(void) {
  for (int64_t groups = 1; groups <= 16; groups += 15) {
    for (int64_t outputs = 0; outputs <= 16; outputs += 16) {
      shape s = {0, 16, outputs, groups, {9, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
      for (s.images = 0; s.images < 2; s.images++) compare(&s, NYX_FLOAT32);
      for (int side = 0; side < 2; side++) {
        shape flat = {2, 16, outputs, groups, {9, 9}, {3, 3}, {1, 1}, {2, 2}, {1, 1}};
        flat.in[side] = 0;
        compare(&flat, NYX_FLOAT32);
      }
    }
  }
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(dense);
  RUN(many_outputs);
  RUN(grouped);
  RUN(depthwise);
  RUN(depthwise_twice);
  RUN(large_ones);
  RUN(threads);
  RUN(without_memory);
  RUN(interrupted);
  RUN(infinities);
  RUN(unseen);
  RUN(empty);
  nyx_context_free(ctx);
  return check_done();
}
