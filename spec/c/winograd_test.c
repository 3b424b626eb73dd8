/* Winograd's convolution against plain loops in double, on every path: sizes around tiles
 * and vectors, both strides, padding of any sign, groups, more channels than a block has
 * terms. Errors are measured in roundings of the sum of absolute products. Then what it
 * is chosen for, and that nothing depends on threads, on how the weight is kept, on
 * infinities elsewhere. The same for the gradients, and for channels-last images. */
#include "core/op/winograd.h"

#include "conv_loops.h"
#include "core/op/conv_last.h"
#include "core/op/conv_product.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "paths.h"

/* Roundings of the largest sum of absolute products of a tile, for values about normal:
 * measured are 9 at most from 16 channels on, 18 with six. With the points 1 and 2
 * instead of the roots of a half and two they would be 40. */
#define BOUND 20
#define HALF_BOUND                                                                       \
  8 /* with stride 2, whose points are 0, 1 and infinity: measured are 5 */

typedef struct shape {
  int64_t images, inputs, outputs, groups, in[2], pad[2], stride;
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, {6, 6}, {0, 0}, 1},
    {1, 4, 4, 1, {1, 1}, {1, 1}, 1},
    {2, 3, 5, 1, {7, 9}, {1, 1}, 1},
    {3, 16, 17, 1, {14, 14}, {1, 1}, 1},
    {2, 20, 33, 1, {8, 8}, {2, 2}, 1},
    {1, 5, 3, 1, {3, 100}, {1, 1}, 1},
    {1, 3, 5, 1, {100, 3}, {1, 0}, 1},
    {5, 40, 64, 1, {7, 7}, {1, 1}, 1},
    {2, 8, 30, 2, {13, 11}, {1, 2}, 1},
    {1, 400, 15, 1, {9, 9}, {0, 0}, 1}, /* more than a block's terms */
    {70, 3, 4, 1, {5, 5}, {1, 1}, 1},   /* images in a vector */
    {40, 2, 3, 1, {3, 3}, {1, 1}, 1},
    {2, 16, 16, 1, {12, 14}, {-1, -2}, 1},
    {1, 2, 3, 1, {5, 6}, {7, 5}, 1}, /* tiles that are all padding */
    {1, 17, 40, 1, {70, 90}, {1, 1}, 1},
    {9, 6, 29, 1, {26, 26}, {0, 0}, 1},
    {1, 33, 100, 1, {33, 34}, {1, 1}, 1},
    {1, 4, 4, 1, {1, 1}, {1, 1}, 2},
    {2, 3, 5, 1, {7, 9}, {1, 1}, 2},
    {3, 16, 17, 1, {14, 14}, {1, 1}, 2},
    {2, 20, 33, 1, {9, 10}, {2, 0}, 2},
    {1, 5, 3, 1, {3, 150}, {1, 1}, 2},
    {1, 3, 5, 1, {150, 4}, {1, 1}, 2},
    {5, 40, 64, 1, {13, 15}, {1, 1}, 2},
    {2, 8, 30, 2, {13, 11}, {1, 2}, 2},
    {1, 400, 15, 1, {9, 9}, {1, 1}, 2},
    {70, 3, 4, 1, {5, 6}, {1, 1}, 2},
    {2, 16, 16, 1, {25, 28}, {-1, -2}, 2},
    {1, 2, 3, 1, {5, 6}, {7, 5}, 2},
    {1, 17, 40, 1, {71, 90}, {1, 1}, 2},
    {9, 6, 30, 3, {28, 27}, {1, 1}, 2},
    {1, 24, 30, 1, {4, 68}, {1, 1}, 1}, /* a tile more than vectors: */
    {1, 400, 20, 1, {28, 28}, {1, 1}, 2},
    {1, 30, 34, 2, {26, 28}, {1, 0}, 2},
    {1, 130, 131, 1, {7, 7}, {1, 1}, 1}, /* so few tiles that lanes are outputs: */
    {2, 128, 129, 1, {4, 8}, {1, 0}, 1},
    {1, 260, 270, 2, {6, 10}, {1, -1}, 1},
    {1, 403, 45, 1, {5, 7}, {2, 1}, 1},
    {3, 127, 130, 1, {3, 4}, {1, 1}, 1},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static nyx__conv conv_of(const shape *s, nyx_dtype dtype) {
  nyx__conv v = {.dtype = dtype,
                 .images = s->images,
                 .in_channels = s->inputs,
                 .out_channels = s->outputs,
                 .groups = s->groups};
  for (int i = 0; i < 2; i++)
    v.window[i] = (nyx__window){.in = s->in[i],
                                .kernel = 3,
                                .stride = s->stride,
                                .pad = s->pad[i],
                                .dilation = 1,
                                .out = (s->in[i] + 2 * s->pad[i] - 3) / s->stride + 1};
  return v;
}

/* About normal: a sum of four. */
UNTRACED static double number(void) {
  double sum = 0;
  for (int i = 0; i < 4; i++) sum += (double)(next() & 0xffff) / 65536 - 0.5;
  return sum * 1.7;
}

/* Data of a convolution: values in double, and as v's dtype. */
typedef struct data {
  nyx__conv v;
  int64_t n[3], taps;                   /* elements of x, weight, y; in a channel's sum */
  double *x, *weight, *bias, *y, *size; /* size: sums of absolute products */
  void *in[3], *out;
} data;

UNTRACED static double *zeros(int64_t n) {
  double *v = calloc((size_t)n + 1, sizeof *v);
  if (!v) abort();
  return v;
}

UNTRACED static void *as_dtype(nyx_dtype dtype, double *from, int64_t n) {
  double *wide = zeros(n);
  float *narrow = (float *)wide;
  for (int64_t i = 0; i < n; i++) {
    if (dtype == NYX_FLOAT64)
      wide[i] = from[i];
    else
      from[i] = narrow[i] = (float)from[i];
  }
  return wide;
}

UNTRACED static double *numbers(int64_t n) {
  double *v = zeros(n);
  for (int64_t i = 0; i < n; i++) v[i] = number();
  return v;
}

UNTRACED static double value(const data *d, const void *from, int64_t i) {
  return d->v.dtype == NYX_FLOAT64 ? ((const double *)from)[i] : ((const float *)from)[i];
}

/* y = x * weight + bias, and the sizes. */
UNTRACED static void plain(data *d) {
  const nyx__window *wy = &d->v.window[0], *wx = &d->v.window[1];
  for (int64_t i = 0; i < d->n[2]; i++) {
    d->y[i] = d->bias[i / wx->out / wy->out % d->v.out_channels];
    d->size[i] = fabs(d->y[i]);
  }
  double *const value[] = {d->y, d->x, d->weight};
  conv_by_loops(&d->v, value, LOOPS_Y, &(loops_sums){d->y, d->size, NULL});
}

static data make_data(const shape *s, nyx_dtype dtype) {
  data d = {.v = conv_of(s, dtype)};
  const nyx__conv *v = &d.v;
  d.n[0] = v->images * v->in_channels * v->window[0].in * v->window[1].in;
  d.n[1] = v->out_channels * (v->in_channels / v->groups) * 9;
  d.n[2] = v->images * v->out_channels * v->window[0].out * v->window[1].out;
  d.x = numbers(d.n[0]);
  d.weight = numbers(d.n[1]);
  d.bias = numbers(v->out_channels);
  d.y = numbers(d.n[2]);
  d.size = numbers(d.n[2]);
  d.in[0] = as_dtype(dtype, d.x, d.n[0]);
  d.in[1] = as_dtype(dtype, d.weight, d.n[1]);
  d.in[2] = as_dtype(dtype, d.bias, v->out_channels);
  d.out = as_dtype(dtype, d.y, d.n[2]);
  return d;
}

static void drop(data *d) {
  void *all[] = {d->x,     d->weight, d->bias,  d->y,  d->size,
                 d->in[0], d->in[1],  d->in[2], d->out};
  for (int i = 0; i < 9; i++) free(all[i]);
}

/* Every allocation fails in turn, of which there are more than `fewest`. */
static void fail_in_turn(data *d, nyx_status (*run)(data *), int fewest) {
  nyx_memory_stats before, after;
  nyx_memory_get_stats(&before);
  nyx_status status = NYX_ERR_MEMORY;
  int n = 0;
  for (; status != NYX_OK && n < 500; n++) {
    nyx_memory_fail_after(n);
    status = run(d);
    nyx_memory_fail_after(-1);
    if (status != NYX_OK) CHECK_STATUS(status, NYX_ERR_MEMORY);
    nyx_memory_get_stats(&after);
    CHECK_INT(after.live, before.live);
  }
  CHECK_OK(ctx, status);
  CHECK(n > fewest);
}

/* The largest size in the tile of output i: what its error is relative to. */
UNTRACED static double tile_size(const data *d, int64_t i) {
  int64_t height = d->v.window[0].out, width = d->v.window[1].out;
  int64_t side = d->v.window[0].stride == 2 ? 2 : 4;
  int64_t x = i % width / side * side, y = i / width % height / side * side;
  int64_t plane = i / width / height * height * width;
  double most = 0;
  for (int64_t r = y; r < y + side && r < height; r++) {
    for (int64_t c = x; c < x + side && c < width; c++)
      most = fmax(most, d->size[plane + r * width + c]);
  }
  return most;
}

static nyx_status run(const data *d, const void *kept, void *y) {
  return nyx__winograd_run(ctx, &d->v, d->in[0], kept, d->in[1], d->in[2], y);
}

UNTRACED_CHECK static void against_loops(void) {
  for (int i = 0; i < 2 * SHAPES; i++) {
    data d = make_data(&shapes[i / 2], i % 2 ? NYX_FLOAT64 : NYX_FLOAT32);
    plain(&d);
    double unit = i % 2 ? 0x1p-53 : 0x1p-24, worst = 0;
    CHECK_OK(ctx, nyx__winograd(ctx, &d.v, d.in[0], d.in[1], d.in[2], d.out));
    for (int64_t q = 0; q < d.n[2]; q++) {
      double off = fabs(value(&d, d.out, q) - d.y[q]) / unit, size = tile_size(&d, q);
      if (off > 0) worst = fmax(worst, off / size);
      if (isnan(off)) worst = INFINITY;
    }
    if (getenv("SHOW")) printf("# %d %g\n", i, worst);
    double bound = shapes[i / 2].stride == 2 ? HALF_BOUND : BOUND;
    CHECK_AT(worst <= bound, "error", " of shape %d: %g roundings", i / 2, worst);
    drop(&d);
  }
}

/* One bit pattern with any number of threads, with the weight kept or not. */
static void same_bits(void) {
  static const int counts[] = {1, 2, 5};
  for (int i = 0; i < SHAPES; i++) {
    data d = make_data(&shapes[i], NYX_FLOAT32);
    size_t bytes = (size_t)d.n[2] * sizeof(float);
    void *kept = malloc(nyx__winograd_weight_bytes(&d.v)), *first = malloc(bytes);
    REQUIRE(CHECK(kept && first));
    CHECK_OK(ctx, run(&d, NULL, first));
    for (int k = 0; k < 6; k++) {
      CHECK_OK(ctx, nyx_parallel_set_threads(counts[k / 2]));
      memset(d.out, 0xff, bytes);
      CHECK_OK(ctx, nyx__winograd_weight(ctx, &d.v, d.in[1], kept));
      CHECK_OK(ctx, run(&d, k % 2 ? kept : NULL, d.out));
      CHECK_AT(memcmp(first, d.out, bytes) == 0, "bits", " of shape %d, way %d", i, k);
    }
    free(kept);
    free(first);
    drop(&d);
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

/* What is not finite, or overflows on the way, is as of the plain product, and so are the
 * results beside it; other images are as they were. */
static void infinities_of(const shape *s) {
  static const float bad[] = {INFINITY, NAN, 3e38f};
  data d = make_data(s, NYX_FLOAT32);
  int64_t image = d.n[2] / 5, x = d.n[0] / 5;
  size_t bytes = (size_t)image * sizeof(float);
  float *before = malloc(5 * bytes), *expect = malloc(bytes), *in = d.in[0], *y = d.out;
  REQUIRE(CHECK(before && expect));
  CHECK_OK(ctx, run(&d, NULL, before));
  for (int i = 0; i < 3; i++) {
    float was = in[3 * x + 100];
    in[3 * x + 100] = bad[i];
    CHECK_OK(ctx, run(&d, NULL, y));
    nyx__conv one = d.v;
    one.images = 1;
    CHECK_OK(ctx, nyx__conv_product(ctx, &one, in + 3 * x, d.in[1], d.in[2], expect));
    CHECK(memcmp(expect, y + 3 * image, bytes) == 0);
    CHECK(memcmp(before, y, 3 * bytes) == 0);
    CHECK(memcmp(before + 4 * image, y + 4 * image, bytes) == 0);
    int64_t finite = 0;
    for (int64_t q = 0; q < image; q++) finite += isfinite(y[3 * image + q]) != 0;
    CHECK(finite >= image - 9 * 24); /* what its element reaches, no others */
    in[3 * x + 100] = was;
  }
  free(before);
  free(expect);
  drop(&d);
}

static void infinities(void) {
  static const shape s = {5, 24, 24, 1, {9, 21}, {1, 1}, 1};
  static const shape half = {5, 24, 24, 1, {18, 41}, {1, 1}, 2};
  infinities_of(&s);
  infinities_of(&half);
}

/* With stride 2 the gradient of the input is a form of its own. */

static data input_data(int i, nyx_dtype dtype) {
  data d = make_data(&shapes[i], dtype);
  free(d.out);
  d.out = as_dtype(dtype, d.y, d.n[2]);
  return d;
}

static bool has_input(int i) {
  const shape *s = &shapes[i];
  return s->stride == 2 && s->pad[0] == 1 && s->pad[1] == 1;
}

/* Errors are relative to the largest size in a tile of 4 x 4. */
UNTRACED_CHECK static void input_against_loops(void) {
  for (int i = 0; i < 2 * SHAPES; i++) {
    if (!has_input(i / 2)) continue;
    data d = input_data(i / 2, i % 2 ? NYX_FLOAT64 : NYX_FLOAT32);
    double *expect = zeros(d.n[0]), *size = zeros(d.n[0]), worst = 0;
    int64_t height = d.v.window[0].in, width = d.v.window[1].in;
    double *const values[] = {d.y, d.x, d.weight};
    conv_by_loops(&d.v, values, LOOPS_X, &(loops_sums){expect, size, NULL});
    double unit = i % 2 ? 0x1p-53 : 0x1p-24;
    CHECK_OK(ctx, nyx__winograd_input(ctx, &d.v, d.out, d.in[1], d.in[0]));
    for (int64_t q = 0; q < d.n[0]; q++) {
      double off = fabs(value(&d, d.in[0], q) - expect[q]) / unit, most = 0;
      int64_t x = q % width / 4 * 4, y = q / width % height / 4 * 4;
      for (int64_t r = y; r < y + 4 && r < height; r++)
        for (int64_t c = x; c < x + 4 && c < width; c++)
          most = fmax(most, size[(q / width / height * height + r) * width + c]);
      if (off > 0) worst = fmax(worst, off / most);
      if (isnan(off)) worst = INFINITY;
    }
    if (getenv("SHOW")) printf("# input %d %g\n", i, worst);
    CHECK_AT(worst <= HALF_BOUND, "error", " of input %d: %g roundings", i / 2, worst);
    free(expect);
    free(size);
    drop(&d);
  }
}

static void input_bits(void) {
  static const int counts[] = {1, 2, 5};
  for (int i = 0; i < SHAPES; i++) {
    if (!has_input(i)) continue;
    data d = input_data(i, NYX_FLOAT32);
    size_t bytes = (size_t)d.n[0] * sizeof(float);
    void *first = malloc(bytes);
    REQUIRE(CHECK(first != NULL));
    for (int k = 0; k < 3; k++) {
      CHECK_OK(ctx, nyx_parallel_set_threads(counts[k]));
      memset(d.in[0], 0xff, bytes);
      CHECK_OK(ctx, nyx__winograd_input(ctx, &d.v, d.out, d.in[1], d.in[0]));
      if (k == 0) memcpy(first, d.in[0], bytes);
      CHECK_AT(memcmp(first, d.in[0], bytes) == 0, "bits", " of input %d, %d threads", i,
               counts[k]);
    }
    free(first);
    drop(&d);
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

/* The image is as of the way by tiles, the others as they were. */
static void input_infinities(void) {
  static const shape s = {3, 24, 24, 1, {18, 41}, {1, 1}, 2};
  static const float bad[] = {INFINITY, NAN, 3e38f};
  data d = make_data(&s, NYX_FLOAT32);
  int64_t image = d.n[0] / 3, at = d.n[2] / 3 + 100;
  size_t bytes = (size_t)image * sizeof(float);
  float *before = malloc(3 * bytes), *expect = malloc(bytes), *x = d.in[0], *y = d.out;
  REQUIRE(CHECK(before && expect));
  for (int64_t q = 0; q < d.n[2]; q++) y[q] = (float)number();
  CHECK_OK(ctx, nyx__winograd_input(ctx, &d.v, y, d.in[1], before));
  for (int i = 0; i < 3; i++) {
    float was = y[at];
    y[at] = bad[i];
    CHECK_OK(ctx, nyx__winograd_input(ctx, &d.v, y, d.in[1], x));
    nyx__conv one = d.v;
    one.images = 1;
    const nyx__conv_call c = {NYX__CONV_INPUT, &one, y + d.n[2] / 3, d.in[1], NULL};
    CHECK_OK(ctx, nyx__conv_by(ctx, &c, expect, NYX__CONV_TILES));
    CHECK(memcmp(expect, x + image, bytes) == 0);
    CHECK(memcmp(before, x, bytes) == 0);
    CHECK(memcmp(before + 2 * image, x + 2 * image, bytes) == 0);
    int64_t finite = 0;
    for (int64_t q = 0; q < image; q++) finite += isfinite(x[image + q]) != 0;
    CHECK(finite >= image - 9 * 24);
    y[at] = was;
  }
  free(before);
  free(expect);
  drop(&d);
}

static nyx_status run_input(data *d) {
  return nyx__winograd_input(ctx, &d->v, d->out, d->in[1], d->in[0]);
}

static void input_without_memory(void) {
  for (int i = 0; i < SHAPES; i++) {
    if (!has_input(i)) continue;
    data d = input_data(i, NYX_FLOAT32);
    fail_in_turn(&d, run_input, 2);
    drop(&d);
  }
}

static void input_choice(void) {
  static const struct {
    shape s;
    bool taken;
  } cases[] = {
      {{16, 128, 128, 1, {56, 56}, {1, 1}, 2}, true},
      {{16, 256, 256, 1, {28, 28}, {1, 1}, 2}, true},
      {{16, 512, 512, 1, {14, 14}, {1, 1}, 2}, true},
      {{1, 128, 128, 1, {56, 56}, {1, 1}, 2}, true},
      {{1, 256, 256, 1, {28, 28}, {1, 1}, 2}, true}, /* of 49 tiles the last is thin */
      {{1, 512, 512, 1, {14, 14}, {1, 1}, 2}, false},
      {{16, 128, 128, 1, {57, 57}, {0, 0}, 2}, false},
      {{16, 3, 64, 1, {56, 56}, {1, 1}, 2}, false},
      {{16, 128, 128, 1, {56, 56}, {1, 1}, 1}, true}, /* a convolution, turned */
      {{1, 64, 64, 1, {0, 8}, {2, 2}, 2}, false},
  };
  if (!nyx__cpu_kernels()->gemm->fast) return; /* a BLAS may be chosen */
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nyx__conv v = conv_of(&cases[i].s, NYX_FLOAT32);
    CHECK_AT(nyx__winograd_takes_input(&v) == cases[i].taken, "choice", " of input %d",
             (int)i);
  }
}

/* With stride 1 it is such a convolution. */
static void gradient(void) {
  static const shape s = {2, 40, 24, 1, {31, 22}, {1, 2}, 1};
  data d = make_data(&s, NYX_FLOAT32);
  shape t = {2, 24, 40, 1, {31, 24}, {1, 0}, 1};
  data turned = make_data(&t, NYX_FLOAT32);
  for (int64_t i = 0; i < d.n[1]; i++) {
    int64_t o = i / 9 / 40, c = i / 9 % 40;
    turned.weight[(c * 24 + o) * 9 + 8 - i % 9] = d.weight[i];
  }
  for (int64_t c = 0; c < 40; c++) turned.bias[c] = 0;
  plain(&turned);
  CHECK_OK(ctx, nyx__conv_input(ctx, &d.v, turned.in[0], d.in[1], d.in[0]));
  for (int64_t i = 0; i < d.n[0]; i++)
    CHECK_NEAR(value(&d, d.in[0], i), turned.y[i],
               BOUND * 0x1p-24 * tile_size(&turned, i));
  drop(&d);
  drop(&turned);
}

/* Sums of more tiles than a block or a segment has. */
static const shape adjoints[] = {
    {40, 16, 17, 1, {14, 14}, {1, 1}, 1}, /* two segments of some blocks */
    {2, 70, 80, 1, {17, 10}, {1, 1}, 1}, /* parts of both channels, which share transforms
                                          */
    {13, 33, 75, 1, {14, 14}, {1, 1}, 1},  {40, 16, 17, 1, {27, 28}, {1, 1}, 2},
    {2, 140, 136, 1, {34, 20}, {1, 1}, 2}, {19, 130, 33, 1, {29, 28}, {1, 1}, 2},
};

static data adjoint_data(int i, nyx_dtype dtype) {
  const int more = sizeof adjoints / sizeof *adjoints;
  data d = make_data(i < more ? &adjoints[i] : &shapes[i - more], dtype);
  free(d.out);
  d.out = as_dtype(dtype, d.y, d.n[2]);
  return d;
}
enum { ADJOINTS = SHAPES + sizeof adjoints / sizeof *adjoints };

/* Errors are relative to the largest of nine taps' sizes: measured are 10 at most, with
 * stride 2 5. */
UNTRACED_CHECK static void adjoint_against_loops(void) {
  for (int i = 0; i < 2 * ADJOINTS; i++) {
    data d = adjoint_data(i / 2, i % 2 ? NYX_FLOAT64 : NYX_FLOAT32);
    double *expect = zeros(d.n[1]), *size = zeros(d.n[1]), worst = 0;
    double *const values[] = {d.y, d.x, d.weight};
    conv_by_loops(&d.v, values, LOOPS_W, &(loops_sums){expect, size, NULL});
    double unit = i % 2 ? 0x1p-53 : 0x1p-24;
    CHECK_OK(ctx, nyx__winograd_adjoint(ctx, &d.v, d.out, d.in[0], d.in[1]));
    for (int64_t q = 0; q < d.n[1]; q++) {
      double off = fabs(value(&d, d.in[1], q) - expect[q]) / unit, most = 0;
      for (int64_t t = q / 9 * 9; t < q / 9 * 9 + 9; t++) most = fmax(most, size[t]);
      if (off > 0) worst = fmax(worst, off / most);
      if (isnan(off)) worst = INFINITY;
    }
    if (getenv("SHOW")) printf("# adjoint %d %g\n", i, worst);
    double bound = d.v.window[0].stride == 2 ? HALF_BOUND : BOUND;
    CHECK_AT(worst <= bound, "error", " of adjoint %d: %g roundings", i / 2, worst);
    free(expect);
    free(size);
    drop(&d);
  }
}

static void adjoint_bits(void) {
  static const int counts[] = {1, 2, 5};
  for (int i = 0; i < ADJOINTS; i++) {
    data d = adjoint_data(i, NYX_FLOAT32);
    size_t bytes = (size_t)d.n[1] * sizeof(float);
    void *first = malloc(bytes);
    REQUIRE(CHECK(first != NULL));
    for (int k = 0; k < 3; k++) {
      CHECK_OK(ctx, nyx_parallel_set_threads(counts[k]));
      memset(d.in[1], 0xff, bytes);
      CHECK_OK(ctx, nyx__winograd_adjoint(ctx, &d.v, d.out, d.in[0], d.in[1]));
      if (k == 0) memcpy(first, d.in[1], bytes);
      CHECK_AT(memcmp(first, d.in[1], bytes) == 0, "bits", " of adjoint %d, %d threads",
               i, counts[k]);
    }
    free(first);
    drop(&d);
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

/* What is not finite makes the result the plain product's. */
static void adjoint_infinities_of(const shape *s) {
  static const float bad[] = {INFINITY, NAN, 3e38f};
  data d = make_data(s, NYX_FLOAT32);
  int64_t x = d.v.window[0].in * d.v.window[1].in;
  size_t bytes = (size_t)d.n[1] * sizeof(float);
  float *expect = malloc(bytes), *got = d.in[1], *y = d.out;
  REQUIRE(CHECK(expect != NULL));
  for (int64_t q = 0; q < d.n[2]; q++) y[q] = (float)number();
  for (int i = 0; i < 6; i++) {
    float *at = i < 3 ? (float *)d.in[0] + 3 * x + 100
                      : y + 5 * d.v.window[0].out * d.v.window[1].out + 11;
    float was = *at;
    *at = bad[i % 3];
    CHECK_OK(ctx, nyx__winograd_adjoint(ctx, &d.v, y, d.in[0], got));
    CHECK_OK(ctx, nyx__conv_product_weight(ctx, &d.v, y, d.in[0], expect));
    CHECK(memcmp(expect, got, bytes) == 0);
    int64_t finite = 0;
    for (int64_t q = 0; q < d.n[1]; q++) finite += isfinite(got[q]) != 0;
    CHECK(finite >= 23 * 24 * 9); /* one channel's kernels are not, at most */
    *at = was;
  }
  free(expect);
  drop(&d);
}

static void adjoint_infinities(void) {
  static const shape s = {2, 24, 24, 1, {9, 21}, {1, 1}, 1};
  static const shape half = {2, 24, 24, 1, {18, 41}, {1, 1}, 2};
  adjoint_infinities_of(&s);
  adjoint_infinities_of(&half);
}

static nyx_status run_adjoint(data *d) {
  return nyx__winograd_adjoint(ctx, &d->v, d->out, d->in[0], d->in[1]);
}

static void adjoint_without_memory(void) {
  for (int i = 0; i < ADJOINTS; i++) {
    data d = adjoint_data(i, NYX_FLOAT32);
    fail_in_turn(&d, run_adjoint, 1);
    drop(&d);
  }
}

static void adjoint_choice(void) {
  static const struct {
    shape s;
    bool taken;
  } cases[] = {
      {{1, 64, 64, 1, {56, 56}, {1, 1}, 1}, true},
      {{1, 128, 128, 1, {28, 28}, {1, 1}, 1}, true},
      {{1, 256, 256, 1, {14, 14}, {1, 1}, 1}, true},
      {{16, 512, 512, 1, {7, 7}, {1, 1}, 1}, true},
      {{1, 512, 512, 1, {7, 7}, {1, 1}, 1}, false}, /* four tiles for 36 sums */
      {{16, 3, 64, 1, {56, 56}, {1, 1}, 1}, false},
      {{1600, 512, 512, 1, {7, 7}, {1, 1}, 1}, false}, /* no memory for short segments */
      {{0, 64, 64, 1, {8, 8}, {1, 1}, 1}, false},
      {{1, 64, 64, 1, {0, 8}, {2, 2}, 1}, false},
      {{16, 128, 128, 1, {56, 56}, {1, 1}, 2}, true},
      {{16, 256, 256, 1, {28, 28}, {1, 1}, 2}, true},
      {{16, 512, 512, 1, {14, 14}, {1, 1}, 2}, true},
      {{1, 512, 512, 1, {14, 14}, {1, 1}, 2}, false},
      {{16, 3, 64, 1, {56, 56}, {1, 1}, 2}, false},
  };
  if (!nyx__cpu_kernels()->gemm->fast) return; /* a BLAS may be chosen */
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nyx__conv v = conv_of(&cases[i].s, NYX_FLOAT32);
    CHECK_AT(nyx__winograd_takes_adjoint(&v) == cases[i].taken, "choice",
             " of adjoint %d", (int)i);
    for (int k = 0; k < 3 && cases[i].taken; k++) {
      nyx__conv other = v;
      if (k == 0) other.window[0].stride = 3 - other.window[0].stride;
      if (k == 1) other.window[1].dilation = 2;
      if (k == 2) other.window[1].kernel = 5;
      CHECK(!nyx__winograd_takes_adjoint(&other));
    }
  }
}

/* Channels-last: element i of (n, c, h, w) is there at: */
UNTRACED static int64_t last_index(int64_t i, int64_t channels, int64_t plane) {
  int64_t n = i / plane / channels, c = i / plane % channels;
  return (n * plane + i % plane) * channels + c;
}

UNTRACED static void *as_last(const data *d, const double *from, int64_t n,
                              int64_t channels, int64_t plane) {
  double *turned = zeros(n);
  for (int64_t i = 0; i < n; i++) turned[last_index(i, channels, plane)] = from[i];
  void *result = as_dtype(d->v.dtype, turned, n);
  free(turned);
  return result;
}

/* The sum that d is, its x and y channels-last; the weight lies as it did. */
static nyx__last_sum last_of(data *d) {
  const nyx__conv *v = &d->v;
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  int64_t in = v->in_channels, out = v->out_channels, ins = in / v->groups;
  void *x = as_last(d, d->x, d->n[0], in, wy->in * wx->in);
  free(d->in[0]);
  d->in[0] = x;
  return (nyx__last_sum){.ctx = ctx,
                         .dtype = v->dtype,
                         .images = v->images,
                         .groups = v->groups,
                         .in = ins,
                         .out = out / v->groups,
                         .window = {*wy, *wx},
                         .x = x,
                         .weight = d->in[1],
                         .bias = d->in[2],
                         .y = d->out,
                         .x_pixel = in,
                         .x_row = in * wx->in,
                         .x_image = in * wx->in * wy->in,
                         .y_pixel = out,
                         .y_row = out * wx->out,
                         .y_image = out * wx->out * wy->out,
                         .w_group = out / v->groups * ins * 9,
                         .w_out = ins * 9,
                         .w_in = 9,
                         .w_tap = {3, 1}};
}

UNTRACED_CHECK static void last_against_loops(void) {
  for (int i = 0; i < 2 * SHAPES; i++) {
    if (shapes[i / 2].stride == 2) continue;
    data d = make_data(&shapes[i / 2], i % 2 ? NYX_FLOAT64 : NYX_FLOAT32);
    plain(&d);
    nyx__last_sum s = last_of(&d);
    int64_t plane = d.v.window[0].out * d.v.window[1].out;
    double unit = i % 2 ? 0x1p-53 : 0x1p-24, worst = 0;
    CHECK_OK(ctx, nyx__winograd_last(&s));
    for (int64_t q = 0; q < d.n[2]; q++) {
      double got = value(&d, d.out, last_index(q, d.v.out_channels, plane));
      double off = fabs(got - d.y[q]) / unit, size = tile_size(&d, q);
      if (off > 0) worst = fmax(worst, off / size);
      if (isnan(off)) worst = INFINITY;
    }
    if (getenv("SHOW")) printf("# last %d %g\n", i, worst);
    CHECK_AT(worst <= BOUND, "error", " of shape %d: %g roundings", i / 2, worst);
    drop(&d);
  }
}

static void last_bits(void) {
  static const int counts[] = {1, 2, 5};
  for (int i = 0; i < SHAPES; i++) {
    if (shapes[i].stride == 2) continue;
    data d = make_data(&shapes[i], NYX_FLOAT32);
    nyx__last_sum s = last_of(&d);
    size_t bytes = (size_t)d.n[2] * sizeof(float);
    void *first = malloc(bytes);
    REQUIRE(CHECK(first != NULL));
    for (int k = 0; k < 3; k++) {
      CHECK_OK(ctx, nyx_parallel_set_threads(counts[k]));
      memset(d.out, 0xff, bytes);
      CHECK_OK(ctx, nyx__winograd_last(&s));
      if (k == 0) memcpy(first, d.out, bytes);
      CHECK_AT(memcmp(first, d.out, bytes) == 0, "bits", " of shape %d, %d threads", i,
               counts[k]);
    }
    free(first);
    drop(&d);
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

static void last_infinities(void) {
  static const shape s = {5, 24, 24, 1, {9, 21}, {1, 1}, 1};
  static const float bad[] = {INFINITY, NAN, 3e38f};
  data d = make_data(&s, NYX_FLOAT32);
  nyx__last_sum sum = last_of(&d);
  int64_t image = d.n[2] / 5, x = d.n[0] / 5;
  size_t bytes = (size_t)image * sizeof(float);
  float *before = malloc(5 * bytes), *expect = malloc(bytes), *in = d.in[0], *y = d.out;
  REQUIRE(CHECK(before && expect));
  CHECK_OK(ctx, nyx__winograd_last(&sum));
  memcpy(before, y, 5 * bytes);
  for (int i = 0; i < 3; i++) {
    float was = in[3 * x + 100];
    in[3 * x + 100] = bad[i];
    CHECK_OK(ctx, nyx__winograd_last(&sum));
    nyx__last_sum one = sum;
    one.images = 1;
    one.x = (const char *)(in + 3 * x);
    one.y = (char *)expect;
    CHECK_OK(ctx, nyx__last_plain(&one));
    CHECK(memcmp(expect, y + 3 * image, bytes) == 0);
    CHECK(memcmp(before, y, 3 * bytes) == 0);
    CHECK(memcmp(before + 4 * image, y + 4 * image, bytes) == 0);
    int64_t finite = 0;
    for (int64_t q = 0; q < image; q++) finite += isfinite(y[3 * image + q]) != 0;
    CHECK(finite >= image - 9 * 24);
    in[3 * x + 100] = was;
  }
  free(before);
  free(expect);
  drop(&d);
}

static void last_choice(void) {
  static const shape taken = {1, 64, 64, 1, {56, 56}, {1, 1}, 1};
  static const shape others[] = {
      {1, 512, 512, 1, {7, 7}, {1, 1}, 1}, /* kernels cost more than they save */
      {1, 256, 256, 1, {14, 14}, {1, 1}, 1},
      {16, 3, 64, 1, {56, 56}, {1, 1}, 1},
      {1, 64, 64, 1, {4, 4}, {1, 1}, 1},
  };
  data d = make_data(&taken, NYX_FLOAT32);
  nyx__last_sum s = last_of(&d);
  CHECK(nyx__winograd_last_takes(&s));
  for (int k = 0; k < 3; k++) {
    nyx__last_sum other = s;
    if (k == 0) other.window[0].stride = 2;
    if (k == 1) other.window[1].dilation = 2;
    if (k == 2) other.window[1].kernel = 5;
    CHECK(!nyx__winograd_last_takes(&other));
  }
  drop(&d);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    d = make_data(&others[i], NYX_FLOAT32);
    s = last_of(&d);
    CHECK_AT(!nyx__winograd_last_takes(&s), "choice", " of case %d", (int)i);
    drop(&d);
  }
}

static nyx_status run_last(data *d) {
  nyx__last_sum s = last_of(d);
  return nyx__winograd_last(&s);
}

static void last_without_memory(void) {
  for (int i = 0; i < SHAPES; i++) {
    if (shapes[i].stride == 2) continue;
    data d = make_data(&shapes[i], NYX_FLOAT32);
    fail_in_turn(&d, run_last, 2);
    drop(&d);
  }
}

static void choice(void) {
  static const struct {
    shape s;
    bool taken;
  } cases[] = {
      {{1, 64, 64, 1, {56, 56}, {1, 1}, 1}, true},
      {{1, 128, 128, 1, {28, 28}, {1, 1}, 1}, true},
      {{1, 256, 256, 1, {14, 14}, {1, 1}, 1}, true},
      {{1, 512, 512, 1, {7, 7}, {1, 1}, 1}, true}, /* four tiles, lanes are outputs */
      {{1, 128, 128, 1, {8, 8}, {1, 1}, 1}, true},
      {{1, 512, 512, 1, {5, 5}, {1, 1}, 1}, false},
      {{1, 64, 64, 1, {8, 8}, {1, 1}, 1}, false},   /* kernels stay in the cache */
      {{2, 512, 512, 1, {7, 7}, {1, 1}, 1}, false}, /* kernels cost more than they save */
      {{16, 512, 512, 1, {7, 7}, {1, 1}, 1}, true},
      {{128, 32, 64, 1, {26, 26}, {0, 0}, 1}, true},
      {{16, 3, 64, 1, {56, 56}, {1, 1}, 1}, false},
      {{1, 64, 64, 1, {4, 4}, {1, 1}, 1}, false},
      {{1, 64, 64, 1, {0, 8}, {2, 2}, 1}, false},
      {{16, 128, 128, 1, {56, 56}, {1, 1}, 2}, true},
      {{16, 256, 256, 1, {28, 28}, {1, 1}, 2}, true},
      {{16, 512, 512, 1, {14, 14}, {1, 1}, 2}, true},
      {{1, 128, 128, 1, {56, 56}, {1, 1}, 2}, true},
      {{1, 256, 256, 1, {28, 28}, {1, 1}, 2}, true}, /* 49 tiles */
      {{1, 512, 512, 1, {14, 14}, {1, 1}, 2}, false},
  };
  if (!nyx__cpu_kernels()->gemm->fast) return; /* a BLAS may be chosen */
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    nyx__conv v = conv_of(&cases[i].s, NYX_FLOAT32);
    CHECK_AT(nyx__winograd_takes(&v) == cases[i].taken, "choice", " of case %d", (int)i);
    for (int k = 0; k < 3 && cases[i].taken; k++) {
      nyx__conv other = v;
      if (k == 0) other.window[0].stride = 3 - other.window[0].stride;
      if (k == 1) other.window[1].dilation = 2;
      if (k == 2) other.window[1].kernel = 5;
      CHECK(!nyx__winograd_takes(&other));
    }
  }
}

static nyx_status run_forward(data *d) {
  return nyx__winograd(ctx, &d->v, d->in[0], d->in[1], d->in[2], d->out);
}

static void without_memory(void) {
  for (int i = 0; i < SHAPES; i++) {
    data d = make_data(&shapes[i], NYX_FLOAT32);
    fail_in_turn(&d, run_forward, 2);
    drop(&d);
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
  static const shape s = {8, 64, 64, 1, {56, 56}, {1, 1}, 1};
  data d = make_data(&s, NYX_FLOAT32);
  nyx_job_system jobs = {.run = asking, .user = ctx, .threads = 2};
  for (int at = 0; at < 24; at += 3) {
    ask_at = at;
    nyx_parallel_set_jobs(&jobs);
    nyx_status status = nyx__winograd(ctx, &d.v, d.in[0], d.in[1], d.in[2], d.out);
    nyx_parallel_set_jobs(NULL);
    CHECK(ask_at < 0);
    CHECK_STATUS(status, NYX_ERR_INTERRUPTED);
  }
  nyx__conv half = d.v; /* of which y has no more than d.out */
  half.window[0].stride = half.window[1].stride = 2;
  half.window[0].out = half.window[1].out = 28;
  for (int at = 0; at < 8; at += 2) {
    ask_at = at;
    nyx_parallel_set_jobs(&jobs);
    nyx_status status = nyx__winograd_input(ctx, &half, d.out, d.in[1], d.in[0]);
    nyx_parallel_set_jobs(NULL);
    CHECK(ask_at < 0);
    CHECK_STATUS(status, NYX_ERR_INTERRUPTED);
  }
  for (int at = 0; at < 8; at += 2) {
    ask_at = at;
    nyx_parallel_set_jobs(&jobs);
    nyx_status status = nyx__winograd_adjoint(ctx, &d.v, d.out, d.in[0], d.in[1]);
    nyx_parallel_set_jobs(NULL);
    CHECK(ask_at < 0);
    CHECK_STATUS(status, NYX_ERR_INTERRUPTED);
  }
  drop(&d);
}

static void all(void) {
  RUN(against_loops);
  RUN(same_bits);
  RUN(infinities);
  RUN(gradient);
  RUN(input_against_loops);
  RUN(input_bits);
  RUN(input_infinities);
  RUN(input_without_memory);
  RUN(input_choice);
  RUN(choice);
  RUN(last_against_loops);
  RUN(last_bits);
  RUN(last_infinities);
  RUN(last_choice);
  RUN(last_without_memory);
  RUN(adjoint_against_loops);
  RUN(adjoint_bits);
  RUN(adjoint_infinities);
  RUN(adjoint_choice);
  RUN(adjoint_without_memory);
  RUN(without_memory);
  RUN(interrupted);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], all);
}
