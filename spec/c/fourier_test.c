/* Convolutions as products of spectra against plain loops in double, on every path: one
 * tile and several, padding of all sizes, dilation, groups, lines. Errors are measured in
 * roundings of the largest sum of absolute products. Then that nothing depends on threads
 * or on infinities elsewhere; without memory, interrupted; and what it is chosen for. */
#include "core/op/fourier.h"

#include "conv_loops.h"
#include "core/linalg/blas.h"
#include "kernels/cpu/complex.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "paths.h"

/* Roundings of the largest sum of absolute products of a result, for values about normal:
 * measured are 5.2 at most, sums term after term have up to 4.6. */
#define BOUND 8

typedef struct shape {
  int64_t images, inputs, outputs, groups, in[2], kernel[2], pad[2], dilation[2];
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, {16, 16}, {5, 5}, {2, 2}, {1, 1}},
    {2, 3, 5, 1, {20, 23}, {5, 5}, {2, 2}, {1, 1}},
    {1, 9, 8, 1, {64, 70}, {7, 7}, {3, 3}, {1, 1}},
    {3, 4, 6, 2, {33, 17}, {9, 4}, {0, 3}, {1, 1}},
    {2, 5, 5, 5, {28, 28}, {21, 21}, {10, 10}, {1, 1}},
    {2, 3, 6, 3, {31, 90}, {13, 13}, {6, 6}, {1, 1}},
    {1, 2, 3, 1, {40, 50}, {5, 5}, {4, 4}, {2, 2}},
    {2, 4, 4, 1, {50, 40}, {3, 3}, {7, 1}, {7, 3}},
    {1, 2, 2, 1, {12, 12}, {5, 7}, {9, 12}, {1, 1}},  /* more padding than kernel */
    {1, 2, 3, 1, {30, 31}, {30, 31}, {0, 0}, {1, 1}}, /* one place */
    {1, 3, 2, 1, {9, 200}, {1, 33}, {0, 16}, {1, 1}},
    {1, 3, 2, 1, {200, 9}, {33, 1}, {16, 0}, {1, 1}},
    {2, 3, 4, 1, {1, 900}, {1, 100}, {0, 50}, {1, 1}}, /* lines */
    {1, 2, 2, 2, {1, 5000}, {1, 700}, {0, 0}, {1, 1}},
    {1, 1, 7, 1, {1, 300}, {1, 20}, {0, 0}, {1, 5}},
    {40, 2, 3, 1, {18, 18}, {5, 5}, {2, 2}, {1, 1}},
    {1, 70, 30, 1, {12, 14}, {5, 5}, {2, 2}, {1, 1}},
    {4, 3, 5, 1, {250, 270}, {5, 5}, {2, 2}, {1, 1}},   /* several batches of tiles */
    {2, 7, 7, 7, {100, 120}, {13, 13}, {6, 6}, {1, 1}}, /* some groups at a time */
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static nyx__conv conv_of(const shape *s, nyx_dtype dtype) {
  nyx__conv v = {.dtype = dtype,
                 .images = s->images,
                 .in_channels = s->inputs,
                 .out_channels = s->outputs,
                 .groups = s->groups};
  for (int i = 0; i < 2; i++) {
    int64_t extent = (s->kernel[i] - 1) * s->dilation[i] + 1;
    v.window[i] = (nyx__window){.in = s->in[i],
                                .kernel = s->kernel[i],
                                .stride = 1,
                                .pad = s->pad[i],
                                .dilation = s->dilation[i],
                                .out = s->in[i] + 2 * s->pad[i] - extent + 1};
  }
  return v;
}

/* What each mode computes of the two others: y, x, weight. */
typedef struct data {
  nyx__conv v;
  int64_t n[3];
  double *value[3], *bias;
  void *in[3], *bias_in, *out;
} data;

/* About normal: a sum of four. */
UNTRACED static double number(void) {
  double sum = 0;
  for (int i = 0; i < 4; i++) sum += (double)(next() & 0xffff) / 65536 - 0.5;
  return sum * 1.7;
}

UNTRACED static double *zeros(int64_t n) {
  double *v = calloc((size_t)n + 1, sizeof *v);
  if (!v) abort();
  return v;
}

/* Numbers, and the same as elements of the dtype. */
UNTRACED static void *numbers(nyx_dtype dtype, int64_t n, double **value) {
  double *wide = zeros(n), *all = zeros(n);
  for (int64_t i = 0; i < n; i++) {
    all[i] = number();
    if (dtype == NYX_FLOAT64)
      wide[i] = all[i];
    else
      all[i] = ((float *)wide)[i] = (float)all[i];
  }
  *value = all;
  return wide;
}

UNTRACED static double element(const data *d, const void *from, int64_t i) {
  return d->v.dtype == NYX_FLOAT64 ? ((const double *)from)[i] : ((const float *)from)[i];
}

static data make_data(const shape *s, nyx_dtype dtype) {
  data d = {.v = conv_of(s, dtype)};
  const nyx__window *wy = &d.v.window[0], *wx = &d.v.window[1];
  d.n[0] = s->images * s->outputs * wy->out * wx->out;
  d.n[1] = s->images * s->inputs * wy->in * wx->in;
  d.n[2] = s->outputs * (s->inputs / s->groups) * wy->kernel * wx->kernel;
  int64_t most = 0;
  for (int k = 0; k < 3; k++) {
    d.in[k] = numbers(dtype, d.n[k], &d.value[k]);
    if (d.n[k] > most) most = d.n[k];
  }
  d.bias_in = numbers(dtype, s->outputs, &d.bias);
  d.out = zeros(most);
  return d;
}

static void drop(data *d) {
  for (int k = 0; k < 3; k++) free(d->in[k]), free(d->value[k]);
  free(d->bias_in);
  free(d->bias);
  free(d->out);
}

static nyx__conv_call call_of(const data *d, int mode) {
  static const int left[] = {1, 0, 0}, right[] = {2, 2, 1};
  return (nyx__conv_call){(nyx__conv_mode)mode, &d->v, d->in[left[mode]],
                          d->in[right[mode]], mode ? NULL : d->bias_in};
}

static nyx_status run(const data *d, int mode, void *to) {
  const nyx__conv_call c = call_of(d, mode);
  return nyx__conv_by(ctx, &c, to, NYX__CONV_FOURIER);
}

/* The results of a mode by definition, in double, the sums of absolute products, and the
 * same sums in float32, term after term. */
UNTRACED static void plain(const data *d, int mode, double *sum, double *size,
                           float *narrow) {
  const nyx__conv *v = &d->v;
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  for (int64_t i = 0; i < d->n[mode]; i++) {
    sum[i] = mode ? 0 : d->bias[i / (wy->out * wx->out) % v->out_channels];
    narrow[i] = (float)sum[i];
    size[i] = fabs(sum[i]);
  }
  conv_by_loops(v, d->value, mode, &(loops_sums){sum, size, narrow});
}

UNTRACED_CHECK static void against_loops(void) {
  for (int i = 0; i < 2 * SHAPES; i++) {
    data d = make_data(&shapes[i / 2], i % 2 ? NYX_FLOAT64 : NYX_FLOAT32);
    double unit = i % 2 ? 0x1p-53 : 0x1p-24;
    for (int mode = 0; mode < 3; mode++) {
      double *sum = zeros(d.n[mode]), *size = zeros(d.n[mode]);
      float *narrow = (float *)zeros(d.n[mode]);
      double worst = 0, most = 0, direct = 0, squares = 0, direct_squares = 0;
      plain(&d, mode, sum, size, narrow);
      memset(d.out, 0xff, (size_t)d.n[mode] * nyx_dtype_size(d.v.dtype));
      CHECK_OK(ctx, run(&d, mode, d.out));
      for (int64_t q = 0; q < d.n[mode]; q++) {
        double off = fabs(element(&d, d.out, q) - sum[q]);
        double by = fabs((double)narrow[q] - sum[q]);
        worst = off <= worst ? worst : off; /* also what is not a number */
        direct = fmax(direct, by);
        squares += off * off;
        direct_squares += by * by;
        most = fmax(most, size[q]);
      }
      if (getenv("SHOW"))
        printf("# %d mode %d: %.3f, plain %.3f; rms by plain's %.2f\n", i, mode,
               worst / unit / most, direct / unit / most, sqrt(squares / direct_squares));
      CHECK_AT(worst <= BOUND * unit * most, "error", " of shape %d, mode %d: %g", i / 2,
               mode, worst / unit / most);
      free(sum);
      free(size);
      free(narrow);
    }
    drop(&d);
  }
}

/* One bit pattern with any number of threads. */
static void same_bits(void) {
  static const int counts[] = {1, 2, 5};
  for (int i = 0; i < SHAPES; i++) {
    data d = make_data(&shapes[i], NYX_FLOAT32);
    for (int mode = 0; mode < 3; mode++) {
      size_t bytes = (size_t)d.n[mode] * sizeof(float);
      void *first = malloc(bytes);
      REQUIRE(CHECK(first != NULL));
      for (int k = 0; k < 3; k++) {
        CHECK_OK(ctx, nyx_parallel_set_threads(counts[k]));
        memset(d.out, 0xff, bytes);
        CHECK_OK(ctx, run(&d, mode, k ? d.out : first));
        CHECK_AT(k == 0 || memcmp(first, d.out, bytes) == 0, "bits",
                 " of shape %d, mode %d", i, mode);
      }
      free(first);
    }
    drop(&d);
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

/* What is not finite, or overflows on the way, is as another way has it, and so are the
 * results beside it; other images are as they were. */
static void infinities_of(int mode) {
  static const float bad[] = {INFINITY, NAN, 3e38f};
  static const shape s = {3, 2, 2, 1, {20, 24}, {5, 5}, {2, 2}, {1, 1}};
  data d = make_data(&s, NYX_FLOAT32);
  int from = mode == NYX__CONV_FORWARD ? 1 : 0;
  bool images = mode != NYX__CONV_WEIGHT;
  int64_t count = d.n[mode] / (images ? 3 : 1), at = d.n[from] / 3 + 30;
  size_t bytes = (size_t)d.n[mode] * sizeof(float), image = (size_t)count * sizeof(float);
  float *before = malloc(bytes), *expect = malloc(bytes), *y = d.out;
  REQUIRE(CHECK(before && expect));
  CHECK_OK(ctx, run(&d, mode, before));
  for (int i = 0; i < 3; i++) {
    float was = ((float *)d.in[from])[at];
    ((float *)d.in[from])[at] = bad[i];
    CHECK_OK(ctx, run(&d, mode, y));
    const nyx__conv_call c = call_of(&d, mode);
    uint32_t usable = nyx__conv_usable(&d.v, (nyx__conv_mode)mode);
    CHECK(!(usable >> NYX__CONV_FOURIER & 1));
    CHECK_OK(ctx, nyx__conv_by(ctx, &c, expect,
                               nyx__conv_rule(&d.v, (nyx__conv_mode)mode, usable)));
    int64_t finite = 0, differ = 0;
    for (int64_t q = images ? count : 0; q < (images ? 2 * count : count); q++) {
      finite += isfinite(y[q]) != 0;
      differ += isfinite(y[q]) != isfinite(expect[q]);
      differ +=
          isfinite(y[q]) && fabsf(y[q] - expect[q]) > 1e-3f * fabsf(expect[q]) + 1e-3f;
    }
    CHECK_INT(differ, 0);
    if (images) {
      CHECK(memcmp(before, y, image) == 0);
      CHECK(memcmp(before + 2 * count, y + 2 * count, image) == 0);
      CHECK(finite >= count - 2 * 25); /* what its element reaches, no others */
    } else {
      CHECK(finite >= count / 2); /* of the other output channel */
    }
    ((float *)d.in[from])[at] = was;
  }
  free(before);
  free(expect);
  drop(&d);
}

static void infinities(void) {
  for (int mode = 0; mode < 3; mode++) infinities_of(mode);
}

/* Every allocation fails in turn. */
static void without_memory(void) {
  static const shape s = {3, 3, 4, 1, {30, 40}, {7, 7}, {3, 3}, {1, 1}};
  data d = make_data(&s, NYX_FLOAT32);
  for (int mode = 0; mode < 3; mode++) {
    nyx_memory_stats before, after;
    nyx_memory_get_stats(&before);
    nyx_status status = NYX_ERR_MEMORY;
    int n = 0;
    for (; status != NYX_OK && n < 500; n++) {
      nyx_memory_fail_after(n);
      status = run(&d, mode, d.out);
      nyx_memory_fail_after(-1);
      if (status != NYX_OK) CHECK_STATUS(status, NYX_ERR_MEMORY);
      nyx_memory_get_stats(&after);
      if (status != NYX_OK) CHECK(after.live <= before.live + 65536); /* plans are kept */
    }
    CHECK_OK(ctx, status);
    CHECK(n > 4);
    nyx_memory_get_stats(&before);
    CHECK_OK(ctx, run(&d, mode, d.out));
    nyx_memory_get_stats(&after);
    CHECK_INT(after.live, before.live);
  }
  drop(&d);
}

static int64_t ask_at; /* which of the jobs asks to stop */

static void asking(void *user, int64_t count, void (*job)(void *, int64_t), void *arg) {
  for (int64_t i = 0; i < count; i++) {
    if (ask_at-- == 0) nyx_context_interrupt((nyx_context *)user);
    job(arg, i);
  }
}

static void interrupted(void) {
  static const shape s = {6, 16, 16, 1, {40, 56}, {7, 7}, {3, 3}, {1, 1}};
  data d = make_data(&s, NYX_FLOAT32);
  nyx_job_system jobs = {.run = asking, .user = ctx, .threads = 2};
  for (int mode = 0; mode < 3; mode++) {
    for (int at = 0; at < 6; at++) {
      ask_at = at;
      nyx_parallel_set_jobs(&jobs);
      nyx_status status = run(&d, mode, d.out);
      nyx_parallel_set_jobs(NULL);
      CHECK(ask_at < 0);
      CHECK_STATUS(status, NYX_ERR_INTERRUPTED);
    }
  }
  drop(&d);
}

static bool taken(const shape *s, int mode) {
  const nyx__conv v = conv_of(s, NYX_FLOAT32);
  return nyx__fourier_takes(&v, (nyx__conv_mode)mode);
}

/* Large kernels, with many channels smaller ones; depthwise where rows that are read once
 * for several of the result are slower, as they are for kernels' gradients; never with a
 * stride, never Winograd's, nor what is nearly nothing or beyond the bounds. */
static void choice(void) {
  static const shape yes[] = {
      {1, 96, 96, 96, {56, 56}, {31, 31}, {15, 15}, {1, 1}},
      {1, 64, 64, 64, {1, 4000}, {1, 512}, {0, 256}, {1, 1}},
      {16, 64, 64, 1, {32, 32}, {5, 5}, {2, 2}, {1, 1}},
      {1, 16, 16, 1, {128, 128}, {11, 11}, {5, 5}, {1, 1}},
      {1, 1, 1, 1, {512, 512}, {31, 31}, {15, 15}, {1, 1}},
  };
  static const shape no[] = {
      {1, 96, 96, 96, {56, 56}, {7, 7}, {3, 3}, {1, 1}},
      {16, 64, 64, 1, {56, 56}, {3, 3}, {1, 1}, {1, 1}},
      {1, 256, 256, 1, {14, 14}, {5, 5}, {2, 2}, {1, 1}},
      {1, 16, 16, 1, {16, 16}, {5, 5}, {2, 2}, {1, 1}},
      {1, 64, 64, 1, {64, 64}, {1, 1}, {0, 0}, {1, 1}},
      {1, 4000, 4000, 1, {64, 64}, {31, 31}, {15, 15}, {1, 1}}, /* 256 MiB and more */
  };
  bool wide = nyx__cpu_kernels()->complex->lanes[0] == 16;        /* as counted */
  bool products = nyx__cpu_kernels()->gemm->fast || !nyx__blas(); /* as fast as lanes */
  for (int mode = 0; mode < 3; mode++) {
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
      if (products || yes[i].inputs == yes[i].groups)
        CHECK_AT(taken(&yes[i], mode), "taken", ": %d, mode %d", (int)i, mode);
    static const shape near[] = {
        {1, 128, 128, 128, {56, 56}, {13, 13}, {6, 6}, {1, 1}},
        {1, 128, 128, 128, {28, 28}, {21, 21}, {10, 10}, {1, 1}},
        {16, 128, 128, 128, {32, 32}, {13, 13}, {6, 6}, {1, 1}},
    };
    for (size_t i = 0; wide && i < sizeof near / sizeof *near; i++)
      CHECK_AT(taken(&near[i], mode) == (mode == NYX__CONV_WEIGHT), "near",
               ": %d, mode %d", (int)i, mode);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
      CHECK_AT(!taken(&no[i], mode), "not taken", ": %d, mode %d", (int)i, mode);
    nyx__conv v = conv_of(&yes[0], NYX_FLOAT32);
    v.window[0].stride = v.window[1].stride = 2;
    CHECK(!nyx__fourier_takes(&v, (nyx__conv_mode)mode));
  }
}

static void all(void) {
  RUN(against_loops);
  RUN(same_bits);
  RUN(infinities);
  RUN(without_memory);
  RUN(interrupted);
  RUN(choice);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], all);
}
