/* Measured choices: every way of a product, a convolution and a reduction computes the
 * same, the fastest way is taken and kept, files that are not as they were written are
 * left alone, and nothing is measured where it must not be. Read next: core/base/tune.h.
 */
#include <math.h>
#include <nyx/nyx.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "core/base/tune.h"
#include "core/linalg/blas.h"
#include "core/linalg/gemm.h"
#include "core/op/conv.h"
#include "core/tensor/tensor.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/low.h"

static nyx_context *ctx;
static double (*real_clock)(void); /* tests with ways of their own have another */

/* ---- every way computes the same: small multiples of 1/8, whose sums are exact */

static uint32_t next(void) {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

static float *numbers(int64_t n) {
  float *out = nyx_memory_alloc((size_t)(n + 1) * sizeof *out);
  for (int64_t i = 0; out && i < n; i++) out[i] = (float)(next() % 16) / 8 - 1;
  return out;
}

static void compare(const float *got, const float *expected, int64_t n, const char *what,
                    int way, double slack) {
  int64_t differ = 0;
  for (int64_t i = 0; i < n; i++)
    differ += !(fabs((double)got[i] - expected[i]) <= slack);
  CHECK_AT(differ == 0, what, ": way %d, %lld of %lld differ", way, (long long)differ,
           (long long)n);
}

static void product_ways(int64_t m, int64_t n, int64_t k, int64_t batch, bool turned) {
  float *a = numbers(batch * m * k), *b = numbers(k * n), *start = numbers(batch * m * n);
  float *c = numbers(batch * m * n), *expected = numbers(batch * m * n);
  nyx_gemm g = {.dtype = NYX_FLOAT32,
                .product = {.m = m, .n = n, .k = k, .a = a, .b = b, .ldc = n},
                .batch_ndim = batch > 1,
                .batch_shape = {batch},
                .a_batch = {m * k}};
  g.product.a_rs = turned ? 1 : k, g.product.a_cs = turned ? m : 1;
  g.product.b_rs = turned ? 1 : n, g.product.b_cs = turned ? k : 1;
  uint32_t usable = nyx__gemm_usable(&g);
  CHECK(usable >> nyx__gemm_rule(&g) & 1);
  for (int add = 0; add < 2; add++) {
    g.product.add = add;
    for (int way = 0; way < NYX__GEMM_WAYS; way++) {
      if (!(usable >> way & 1)) continue;
      g.product.c = way ? c : expected;
      memcpy(g.product.c, start, (size_t)(batch * m * n) * sizeof *c);
      CHECK_OK(ctx, nyx__gemm_by(ctx, &g, (nyx__gemm_way)way));
      if (way) compare(c, expected, batch * m * n, "a product", way, 0);
    }
  }
  float *all[] = {a, b, c, start, expected};
  for (int i = 0; i < 5; i++) nyx_memory_free(all[i]);
}

static void every_way_of_a_product(void) {
  static const int64_t m[] = {1, 8, 9, 48, 131}, n[] = {1, 33, 48, 49, 200, 1500},
                       k[] = {1, 17, 400, 1030};
  for (size_t i = 0; i < 5 * 6 * 4; i++) {
    product_ways(m[i % 5], n[i / 5 % 6], k[i / 30], 1, false);
    product_ways(m[i % 5], n[i / 5 % 6], k[i / 30], 1, true);
  }
  product_ways(50, 70, 300, 3, false);
  product_ways(20, 130, 64, 19, true);
}

/* ---- products of narrow types, whose results are compared as bits */

static int low_ways_seen[NYX__LOW_WAYS];

static void *narrow(nyx_dtype dtype, int64_t n) {
  char *out = nyx_memory_alloc((size_t)n * nyx_dtype_size(dtype));
  for (int64_t i = 0; out && i < n; i++) {
    float value = (float)(next() % 16) / 8 - 1;
    if (dtype == NYX_BFLOAT16) ((uint16_t *)(void *)out)[i] = nyx__float_to_bfloat(value);
    if (dtype == NYX_FLOAT16) ((uint16_t *)(void *)out)[i] = nyx__float_to_half(value);
    if (nyx_dtype_size(dtype) == 1) out[i] = (char)next();
  }
  return out;
}

static void narrow_product_ways(nyx_dtype dtype, int64_t m, int64_t n, int64_t k,
                                int64_t batch, bool turned) {
  bool bytes = nyx_dtype_size(dtype) == 1;
  nyx_dtype out = bytes ? NYX_INT32 : NYX_FLOAT32;
  void *a = narrow(dtype, batch * m * k), *b = narrow(bytes ? NYX_INT8 : dtype, k * n);
  size_t size = (size_t)(batch * m * n) * 4;
  void *c = nyx_memory_alloc(size), *expected = nyx_memory_alloc(size);
  nyx_gemm g = {.dtype = dtype,
                .product = {.m = m, .n = n, .k = k, .a = a, .b = b, .ldc = n},
                .batch_ndim = batch > 1,
                .batch_shape = {batch},
                .a_batch = {m * k}};
  g.product.a_rs = turned ? 1 : k, g.product.a_cs = turned ? m : 1;
  g.product.b_rs = turned ? 1 : n, g.product.b_cs = turned ? k : 1;
  uint32_t usable = nyx__gemm_low_usable(&g);
  CHECK(usable & 1);
  for (int way = 0; way < NYX__LOW_WAYS; way++) {
    if (!(usable >> way & 1)) continue;
    low_ways_seen[way]++;
    g.product.c = way ? c : expected;
    memset(g.product.c, 0xff, size);
    CHECK_OK(ctx, nyx__gemm_low_by(ctx, &g, out, (nyx__low_way)way));
    CHECK_AT(memcmp(g.product.c, expected, size) == 0, nyx_dtype_name(dtype),
             " %lldx%lldx%lld: way %d differs", (long long)m, (long long)n, (long long)k,
             way);
  }
  void *all[] = {a, b, c, expected};
  for (int i = 0; i < 4; i++) nyx_memory_free(all[i]);
}

static void every_way_of_a_narrow_product(void) {
  static const nyx_dtype dtypes[] = {NYX_BFLOAT16, NYX_FLOAT16, NYX_INT8, NYX_UINT8};
  static const int64_t size[][3] = {{1, 300, 1100},   {33, 17, 64},   {131, 140, 300},
                                    {300, 290, 1088}, {20, 30, 9000}, {40, 600, 2112},
                                    {1040, 1030, 64}};
  memset(low_ways_seen, 0, sizeof low_ways_seen);
  const nyx_low_kernels *kernels = nyx__low_kernels();
  for (int d = 0; d < 4; d++) {
    if (d < 2 && !(d ? kernels->f16 : kernels->bf16)) continue;
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
      narrow_product_ways(dtypes[d], size[i][0], size[i][1], size[i][2], 1, false);
      narrow_product_ways(dtypes[d], size[i][0], size[i][1], size[i][2], 1, true);
    }
    narrow_product_ways(dtypes[d], 50, 70, 320, 3, false);
    narrow_product_ways(dtypes[d], 20, 130, 64, 19, true);
  }
  for (int way = 0; way < NYX__LOW_WAYS; way++)
    CHECK_AT(low_ways_seen[way] > 0 || (way == NYX__LOW_PACKED && !kernels->s8->in_place),
             "a way was used", ": %d", way);
}

static int64_t out_size(int64_t in, int64_t kernel, int64_t stride, int64_t pad,
                        int64_t dilation) {
  return (in + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
}

static int ways_seen[NYX__CONV_WAYS];

static void convolution_ways(int64_t images, int64_t in, int64_t out, int64_t groups,
                             int64_t size, int64_t kernel, int64_t stride, int64_t pad,
                             int64_t dilation) {
  int64_t side = out_size(size, kernel, stride, pad, dilation);
  nyx__window w = {size, kernel, stride, pad, dilation, side};
  nyx__conv v = {NYX_FLOAT32, images, in, out, groups, {w, w}, in, out, NULL, NULL};
  int64_t counts[] = {images * out * side * side, images * in * size * size,
                      out * (in / groups) * kernel * kernel};
  float *y = numbers(counts[0]), *x = numbers(counts[1]), *weight = numbers(counts[2]);
  float *bias = numbers(out), *got = numbers(counts[0] + counts[1] + counts[2]);
  float *expected = numbers(counts[0] + counts[1] + counts[2]);
  const nyx__conv_call calls[] = {{NYX__CONV_FORWARD, &v, x, weight, bias},
                                  {NYX__CONV_INPUT, &v, y, weight, NULL},
                                  {NYX__CONV_WEIGHT, &v, y, x, NULL}};
  int64_t taps = kernel * kernel;
  for (int mode = 0; mode < 3; mode++) {
    uint32_t usable = nyx__conv_usable(&v, (nyx__conv_mode)mode);
    nyx__conv_way rule = nyx__conv_rule(&v, (nyx__conv_mode)mode, usable);
    CHECK(usable >> rule & 1);
    CHECK_OK(ctx, nyx__conv_by(ctx, &calls[mode], expected, NYX__CONV_TILES));
    for (int way = 0; way < NYX__CONV_WAYS; way++) {
      if (!(usable >> way & 1)) continue;
      ways_seen[way]++;
      memset(got, 0xff, (size_t)counts[mode] * sizeof *got);
      CHECK_OK(ctx, nyx__conv_by(ctx, &calls[mode], got, (nyx__conv_way)way));
      /* Winograd's sums are rounded: 20 roundings of a sum of numbers up to 1 at most
       * (docs/decisions/012-winograd.md); Fourier's: 8 (020-fourier-convolution.md). */
      double slack = way == NYX__CONV_WINOGRAD ? 20 * 0x1p-24 * (double)(in * taps) : 0;
      int64_t terms = mode == NYX__CONV_WEIGHT ? images * side * side : in * taps;
      if (way == NYX__CONV_FOURIER) slack = 8 * 0x1p-24 * (double)terms;
      compare(got, expected, counts[mode], "a convolution", way, slack);
    }
  }
  float *all[] = {y, x, weight, bias, got, expected};
  for (int i = 0; i < 6; i++) nyx_memory_free(all[i]);
}

static void every_way_of_a_convolution(void) {
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_OFF, NULL));
  memset(ways_seen, 0, sizeof ways_seen);
  convolution_ways(1, 16, 24, 1, 14, 1, 1, 0, 1);
  convolution_ways(3, 16, 24, 1, 14, 1, 1, 0, 1);
  convolution_ways(1, 32, 32, 2, 9, 1, 1, 0, 1);
  convolution_ways(2, 13, 17, 1, 12, 3, 1, 1, 1);
  convolution_ways(2, 16, 16, 1, 15, 3, 2, 1, 1);
  convolution_ways(2, 32, 32, 1, 20, 3, 1, 1, 1);
  convolution_ways(2, 16, 32, 2, 15, 5, 1, 4, 2);
  convolution_ways(2, 12, 12, 12, 16, 3, 1, 1, 1);
  convolution_ways(2, 6, 12, 6, 17, 3, 2, 1, 1);
  convolution_ways(1, 2, 3, 1, 8, 3, 1, 0, 1);
  convolution_ways(1, 2, 20, 1, 40, 21, 1, 3, 1);
  convolution_ways(2, 4, 6, 1, 40, 15, 1, 7, 1);
  convolution_ways(3, 5, 5, 5, 40, 21, 1, 10, 1);
  bool products = nyx__cpu_kernels()->gemm->fast || !nyx__blas();
  for (int way = 0; way < NYX__CONV_WAYS; way++)
    CHECK_AT(ways_seen[way] > 0 ||
                 (!products && (way == NYX__CONV_PRODUCT || way == NYX__CONV_WINOGRAD)),
             "a way was used", ": %d", way);
}

/* ---- a choice of this test: ways that take so many microseconds */

static const char *const ways[] = {"slow", "quick", "middling"};
static const char *const sizes[] = {"kind", "size"};
static const nyx__choice choice = {"test_choice", ways, sizes, 3, 2};

typedef struct work {
  int microseconds[3];
  nyx_status status[3];
  atomic_int runs;
} work;

/* They take that long by a clock of the test, whatever else the machine does. */
static atomic_llong ticks; /* microseconds */
static double by_ticks(void) {
  return (double)atomic_load(&ticks) * 1e-6;
}

static nyx_status do_work(void *arg, int way, void *result) {
  work *w = arg;
  memset(result, 1, 64);
  atomic_fetch_add(&w->runs, 1);
  atomic_fetch_add(&ticks, w->microseconds[way]);
  return w->status[way];
}

static const work usual = {.microseconds = {400, 40, 160}};

/* The way for a size, the rule's being 0. */
static int ask(work *w, int64_t size, uint32_t usable) {
  const nyx__tune_key key = {&choice, {7, size}, usable, 0};
  int way = -1;
  CHECK_STATUS(nyx__tune(&key, 64, do_work, w, &way), NYX_OK);
  return way;
}

static char folder[64], file[128];

static char *contents(void) {
  static char text[1 << 16];
  FILE *in = fopen(file, "rb");
  size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
  if (in) fclose(in);
  text[n] = '\0';
  return text;
}

static void write_bytes(const char *text, size_t n) {
  FILE *out = fopen(file, "wb");
  CHECK(out && fwrite(text, 1, n, out) == n && fclose(out) == 0);
}

static void begin(nyx_tune_mode mode) {
  nyx__tune_clock = by_ticks;
  unlink(file);
  CHECK_OK(ctx, nyx_tune_set(ctx, mode, file));
}

static nyx_tune_info info(void) {
  nyx_tune_info i;
  nyx_tune_get(&i);
  return i;
}

static void sizes_are_put_together(void) {
  static const int64_t expected[][2] = {{0, 0},      {1, 1},      {7, 7},   {8, 8},
                                        {9, 8},      {10, 10},    {15, 14}, {16, 16},
                                        {1000, 896}, {1024, 1024}};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
    CHECK_INT(nyx__tune_class(expected[i][0]), expected[i][1]);
}

static void the_fastest_is_taken_and_kept(void) {
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  int64_t changed = info().changed;
  CHECK_INT(ask(&w, 1, 7), 1);
  int runs = atomic_load(&w.runs);
  CHECK(runs > 12);
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK_INT(atomic_load(&w.runs), runs);
  CHECK_INT(info().known, 1);
  CHECK_INT(info().changed, changed + 2);
  /* a call of the same class for which that way does not do */
  CHECK_INT(ask(&w, 1, 5), 0);
  /* the rule's way is the best: */
  w = (work){.microseconds = {50, 150, 400}};
  CHECK_INT(ask(&w, 2, 7), 0);
  /* too little is gained by the other: */
  w = (work){.microseconds = {400, 390, 800}};
  CHECK_INT(ask(&w, 3, 3), 0);
  nyx_tune_row row;
  REQUIRE(CHECK(nyx_tune_at(2, &row)));
  CHECK_STR(row.choice, "test_choice");
  CHECK_STR(row.way, "quick");
  CHECK_STR(row.rule, "slow");
  CHECK_CONTAINS(row.size, "kind 7, size 1");
  CHECK(row.seconds > 30e-6 && row.seconds < row.rule_seconds);
  CHECK(!nyx_tune_at(3, &row));

  /* as another process would: from the file, running nothing */
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_USE, file));
  CHECK(nyx__tuned());
  CHECK_INT(info().known, 3);
  w = usual;
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK_INT(ask(&w, 2, 7), 0);
  CHECK_INT(ask(&w, 9, 7), 0);
  CHECK_INT(atomic_load(&w.runs), 0);
}

static void off_is_the_rule(void) {
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_OFF, NULL));
  CHECK(!nyx__tuned());
  unlink(file);
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_USE, file));
  CHECK(!nyx__tuned()); /* nothing known: not even asked */
}

static void each_number_of_threads_is_measured(void) {
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  CHECK_STATUS(nyx_parallel_set_threads(1), NYX_OK);
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  w = (work){.microseconds = {40, 400, 400}};
  CHECK_INT(ask(&w, 1, 7), 0);
  CHECK_INT(info().known, 2);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

/* ---- files */

static void hostile_files_are_left_alone(void) {
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK_INT(ask(&w, 2, 7), 1);
  static char good[1 << 16], bad[1 << 17];
  strcpy(good, contents());
  size_t length = strlen(good);
  CHECK(length > 100);
  const char *line = strstr(good, "test_choice"), *end = strstr(good, "\nend ") + 1;
  size_t head = (size_t)(line - good);
  static const char *const lines[] = {
      "test_choice 2,7,1 quick 1 slow\n",
      "test_choice 2,7,1 quick 0 slow 5\n",
      "test_choice 2,7,1 quick -1 slow 5\n",
      "test_choice 2,7,1 quick 1 slow 5 \n",
      "test_choice 2,,1 quick 1 slow 5\n",
      "test_choice 2,-7,1 quick 1 slow 5\n",
      "test_choice 2,7,99999999999999999999 quick 1 slow 5\n",
      "test_choice 2,7,1, quick 1 slow 5\n",
      "test_choice 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18 quick 1 slow 5\n",
      "test_choice quick 1 slow 5\n",
      "test_choice 2,7,1 quick 1e3 slow 5\n",
      "Test 2,7,1 quick 1 slow 5\n",
      "os.execute('x') 2,7,1 quick 1 slow 5\n",
      "a_name_of_more_than_twenty_three_letters 2,7,1 quick 1 slow 5\n",
      "test_choice 2,7,1 quick 1 a_name_of_more_than_twenty_three_letters 5\n",
      "\n",
      " test_choice 2,7,1 quick 1 slow 5\n",
      "test_choice  2,7,1 quick 1 slow 5\n",
      "test_choice 2,7,1 quick 1 slow 5\r\n"};
  int count = (int)(sizeof lines / sizeof *lines);
  for (int i = 0; i < count + 8; i++) {
    size_t n = 0;
    if (i < count) { /* a bad line in a good file */
      n = (size_t)snprintf(bad, sizeof bad, "%.*s%send 1\n", (int)head, good, lines[i]);
    } else if (i == count) { /* cut anywhere */
      n = (size_t)(end - good);
    } else if (i == count + 1) {
      n = length - 1;
    } else if (i == count + 2) {
      n = head - 3;
    } else if (i == count + 3) {
      n = head + 20;
    } else if (i == count + 4) { /* the number of lines */
      n = (size_t)snprintf(bad, sizeof bad, "%.*send 3\n", (int)(end - good), good);
    } else if (i == count + 5) { /* something after the end, and a zero byte */
      n = (size_t)snprintf(bad, sizeof bad, "%smore\n", good);
    } else if (i == count + 6) {
      memcpy(bad, good, length);
      bad[length] = '\0';
      n = length + 1;
    } else { /* another machine */
      n = (size_t)snprintf(bad, sizeof bad, "nyx tuning 1\nversion 0.0.9\n%s",
                           strstr(good, "cpu "));
    }
    if (i >= count && i < count + 4) memcpy(bad, good, n);
    write_bytes(bad, n);
    nyx_status status = nyx_tune_set(ctx, NYX_TUNE_MEASURE, file);
    CHECK_AT(status == NYX_ERR_IO, "refused", ": file %d", i);
    CHECK_CONTAINS(nyx_context_error(ctx), file);
    CHECK_CONTAINS(info().problem, "remove");
    CHECK_INT(info().known, 0);
    /* measuring goes on, in memory */
    if (i % 8 == 0) CHECK_INT(ask(&w, 1, 7), 1);
    FILE *in = fopen(file, "rb");
    static char after[1 << 17];
    CHECK_AT(in && fread(after, 1, sizeof after, in) == n && memcmp(after, bad, n) == 0,
             "the file is as it was", ": file %d", i);
    if (in) fclose(in);
  }
  write_bytes(good, length);
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_MEASURE, file));
  CHECK_INT(info().known, 2);
  write_bytes("", 0); /* a crash of the system leaves such: used, and filled */
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_MEASURE, file));
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK(strlen(contents()) > 100);
}

static void what_is_no_file(void) {
  CHECK_STATUS(nyx_tune_set(ctx, NYX_TUNE_MEASURE, folder), NYX_ERR_IO);
  CHECK_CONTAINS(nyx_context_error(ctx), "no plain file");
  unlink(file);
  CHECK(mkfifo(file, 0600) == 0); /* must not wait for a writer */
  CHECK_STATUS(nyx_tune_set(ctx, NYX_TUNE_USE, file), NYX_ERR_IO);
  unlink(file);
  FILE *out = fopen(file, "wb");
  CHECK(out && ftruncate(fileno(out), (off_t)1 << 33) == 0 && fclose(out) == 0);
  CHECK_STATUS(nyx_tune_set(ctx, NYX_TUNE_USE, file), NYX_ERR_IO);
  CHECK_CONTAINS(nyx_context_error(ctx), "1 MiB");
  char name[2000];
  memset(name, 'x', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  CHECK_STATUS(nyx_tune_set(ctx, NYX_TUNE_USE, name), NYX_ERR_ARGUMENT);
}

static void a_link_stays_one(void) {
  char link[200];
  struct stat about;
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  CHECK_INT(ask(&w, 1, 7), 1);
  size_t before = strlen(contents());
  snprintf(link, sizeof link, "%s/link.txt", folder);
  CHECK(symlink(file, link) == 0);
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_MEASURE, link));
  CHECK_INT(ask(&w, 2, 7), 1);
  CHECK(lstat(link, &about) == 0 && S_ISLNK(about.st_mode));
  CHECK(strlen(contents()) > before);
  unlink(link);
}

static void an_unwritable_folder(void) {
  char below[200];
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  CHECK_INT(ask(&w, 1, 7), 1);
  snprintf(below, sizeof below, "%s/below/tune.txt", file); /* a file is no folder */
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_MEASURE, below));
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK_CONTAINS(info().problem, "cannot be written");
  CHECK_INT(info().known, 1);
  int runs = atomic_load(&w.runs);
  CHECK_INT(ask(&w, 1, 7), 1);
  CHECK_INT(atomic_load(&w.runs), runs);
}

static void processes_add_to_one_file(void) {
  enum { PROCESSES = 4, EACH = 3 };
  begin(NYX_TUNE_MEASURE);
  CHECK_STATUS(nyx_parallel_set_threads(1), NYX_OK);
  pid_t child[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) {
    if ((child[i] = fork()) != 0) continue;
    work w = {.microseconds = {100, 10, 100}};
    for (int k = 0; k < EACH; k++) {
      const nyx__tune_key key = {&choice, {i, k}, 7, 0};
      int way;
      if (nyx__tune(&key, 64, do_work, &w, &way) != NYX_OK) _exit(1);
    }
    _exit(0);
  }
  for (int i = 0; i < PROCESSES; i++) {
    int status = 1;
    CHECK(waitpid(child[i], &status, 0) == child[i] && status == 0);
  }
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_MEASURE, file));
  CHECK_INT(info().known, PROCESSES * EACH);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

/* ---- what fails, and where nothing is measured */

static void failing_ways(void) {
  begin(NYX_TUNE_MEASURE);
  work w = usual;
  w.status[1] = NYX_ERR_MEMORY; /* the quickest fails: the next is taken */
  CHECK_INT(ask(&w, 1, 7), 2);
  w = usual;
  w.status[0] = NYX_ERR_MEMORY; /* the rule's fails, as the call itself will */
  CHECK_INT(ask(&w, 2, 7), 0);
  CHECK_INT(info().known, 1);
  w = usual;
  w.status[2] = NYX_ERR_INTERRUPTED;
  const nyx__tune_key key = {&choice, {7, 3}, 7, 0};
  int way;
  CHECK_STATUS(nyx__tune(&key, 64, do_work, &w, &way), NYX_ERR_INTERRUPTED);
  CHECK_INT(info().known, 1);
  CHECK_INT(ask(&w, 3, 3), 1); /* and is not in the way of the next */
}

static void without_memory(void) {
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  for (int n = 0; n < 6; n++) { /* the result, the entry, the file's text */
    nyx_memory_fail_after(n);
    int way = ask(&w, 10 + n, 7);
    nyx_memory_fail_after(-1);
    CHECK(way == 0 || way == 1);
  }
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_MEASURE, NULL));
  begin(NYX_TUNE_MEASURE);
  CHECK_INT(ask(&w, 1, 7), 1);
  nyx_memory_fail_after(0);
  nyx_status status = nyx_tune_set(ctx, NYX_TUNE_MEASURE, file);
  nyx_memory_fail_after(-1);
  CHECK_STATUS(status, NYX_ERR_IO);
  CHECK_CONTAINS(info().problem, "memory");
}

static void ask_inside(void *arg, int64_t begin_at, int64_t end) {
  (void)begin_at, (void)end;
  CHECK_INT(ask(arg, 1, 7), 0);
}

static void not_inside_a_range(void) {
  work w = usual;
  begin(NYX_TUNE_MEASURE);
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  nyx_parallel_for(4, 1, ask_inside, &w);
  CHECK_INT(atomic_load(&w.runs), 0);
  CHECK_INT(info().known, 0);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

static atomic_bool holding, let_go;

static void hold(void *arg, int64_t begin_at, int64_t end) {
  (void)arg, (void)begin_at, (void)end;
  atomic_store(&holding, true);
  while (!atomic_load(&let_go)) usleep(100);
}

static void *hold_the_pool(void *arg) {
  nyx_parallel_for(2, 1, hold, arg);
  return NULL;
}

static void nothing(void *arg, int64_t begin_at, int64_t end) {
  (void)arg, (void)begin_at, (void)end;
}

static nyx_status work_in_the_pool(void *arg, int way, void *result) {
  nyx_parallel_for(2, 1, nothing, NULL);
  return do_work(arg, way, result);
}

static void not_while_others_use_the_pool(void) {
  work w = usual;
  pthread_t other;
  begin(NYX_TUNE_MEASURE);
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  atomic_store(&holding, false), atomic_store(&let_go, false);
  REQUIRE(CHECK(pthread_create(&other, NULL, hold_the_pool, NULL) == 0));
  while (!atomic_load(&holding)) usleep(100);
  const nyx__tune_key key = {&choice, {7, 1}, 7, 0};
  int way = -1;
  int64_t refused = info().refused;
  CHECK_STATUS(nyx__tune(&key, 64, work_in_the_pool, &w, &way), NYX_OK);
  CHECK_INT(way, 0);
  CHECK_INT(info().known, 0);
  CHECK_INT(info().refused, refused + 1);
  int runs = atomic_load(&w.runs);
  CHECK(runs <= 2);
  CHECK_STATUS(nyx__tune(&key, 64, work_in_the_pool, &w, &way), NYX_OK);
  CHECK_INT(atomic_load(&w.runs), runs); /* not tried again at once */
  atomic_store(&let_go, true);
  pthread_join(other, NULL);
  atomic_fetch_add(&ticks, 1100000);
  CHECK_STATUS(nyx__tune(&key, 64, work_in_the_pool, &w, &way), NYX_OK);
  CHECK_INT(way, 1);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

static void *ask_much(void *arg) {
  int64_t first = *(int *)arg;
  work w = {.microseconds = {60, 10, 60}};
  for (int64_t i = 0; i < 40; i++) {
    const nyx__tune_key key = {&choice, {first * (i % 2), i % 5}, 7, 0};
    int way = -1;
    CHECK_STATUS(nyx__tune(&key, 64, do_work, &w, &way), NYX_OK);
    CHECK(way >= 0 && way <= 2);
    if (i % 7 == 0) CHECK(info().known >= 0);
  }
  return NULL;
}

static void several_threads(void) {
  pthread_t thread[3];
  int number[] = {1, 2, 3};
  begin(NYX_TUNE_MEASURE);
  for (int i = 0; i < 3; i++)
    CHECK(pthread_create(&thread[i], NULL, ask_much, &number[i]) == 0);
  for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
  CHECK(info().known > 0);
  int64_t known = info().known;
  CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_USE, file));
  CHECK_INT(info().known, known);
}

/* ---- through the ops */

static nyx_tensor *tensor(int ndim, const int64_t *shape) {
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) n *= shape[d];
  float *values = numbers(n);
  nyx_tensor *t = NULL;
  CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_FLOAT32, ndim, shape, values, &t));
  nyx_memory_free(values);
  return t;
}

/* Measures `op` on x, then has it go every way by files that say so, and compares. */
static void follow_files(const char *choice_name, const char *const *way, int n_ways,
                         const char *op, nyx_tensor *x, const nyx_value *attrs) {
  nyx_tensor *first[2] = {NULL}, *out[2] = {NULL};
  begin(NYX_TUNE_MEASURE);
  nyx__tune_clock = real_clock;
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(op), &x, 1, attrs, first));
  static char text[1 << 16];
  char label[40];
  strcpy(text, contents());
  snprintf(label, sizeof label, "\n%s ", choice_name);
  char *line = strstr(text, label);
  REQUIRE(CHECK(line));
  char *at = strchr(line + strlen(label), ' ') + 1, *rest = strchr(at, ' ');
  const char *rule = strchr(rest + 1, ' ') + 1;
  int64_t changed = info().changed;
  int others = 0;
  for (int i = 0; i < n_ways; i++) {
    size_t n = strlen(way[i]);
    others += strncmp(rule, way[i], n) != 0 || rule[n] != ' ';
    FILE *file_out = fopen(file, "wb");
    REQUIRE(CHECK(file_out));
    fprintf(file_out, "%.*s%s%s", (int)(at - text), text, way[i], rest);
    fclose(file_out);
    CHECK_OK(ctx, nyx_tune_set(ctx, NYX_TUNE_USE, file));
    out[0] = out[1] = NULL;
    CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(op), &x, 1, attrs, out));
    for (int o = 0; o < 2 && out[o]; o++) {
      size_t bytes =
          (size_t)nyx_tensor_numel(out[o]) * nyx_dtype_size(nyx_tensor_dtype(out[o]));
      CHECK_AT(memcmp(nyx_tensor_data(out[o]), nyx_tensor_data(first[o]), bytes) == 0, op,
               " by %s: output %d differs", way[i], o);
      nyx_tensor_release(out[o]);
    }
  }
  CHECK_INT(others, n_ways - 1);
  CHECK_INT(info().changed, changed + others);
  for (int o = 0; o < 2; o++) nyx_tensor_release(first[o]);
}

/* An elementwise op cut in every way: the same bits. */
static void every_grain_of_a_row(void) {
  static const char *const grains[] = {"grain_128k", "grain_16k", "grain_32k",
                                       "grain_512k", "one_thread"};
  int64_t n = 300007;
  nyx_tensor *x = tensor(1, &n);
  CHECK_STATUS(nyx_parallel_set_threads(3), NYX_OK);
  follow_files("elementwise", grains, 5, "tanh", x, NULL);
  nyx_tensor_release(x);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

/* Reductions of numbers whose sums are exact, over the last dimension, the first, those
 * around one that is kept, and one between. */
static void every_way_of_a_reduction(void) {
  static const char *const ways_of[] = {
      "rows",    "rows_8k",    "rows_256k",    "rows_one_thread",
      "columns", "columns_8k", "columns_256k", "columns_one_thread"};
  static const int64_t around[] = {0, 2}, first[] = {0}, last[] = {2}, middle[] = {1};
  const nyx_value dims[] = {NYX_LIST(around, 2), NYX_LIST(first, 1), NYX_LIST(last, 1),
                            NYX_LIST(middle, 1)};
  nyx_tensor *wide = tensor(3, (int64_t[]){130, 9, 150});
  nyx_tensor *narrow_one = tensor(3, (int64_t[]){3000, 7, 5});
  CHECK_STATUS(nyx_parallel_set_threads(3), NYX_OK);
  for (int d = 0; d < 4; d++) {
    const nyx_value attrs[] = {dims[d], NYX_I(0)};
    follow_files("reduction", ways_of, 8, "sum", wide, attrs);
    follow_files("reduction", ways_of, 8, "sum", narrow_one, attrs);
    if (d == 0) continue;
    const nyx_value one[] = {NYX_I(d == 1 ? 0 : d == 2 ? 2 : 1), NYX_I(0)};
    follow_files("reduction", ways_of, 8, "max", wide, one);
    follow_files("reduction", ways_of, 8, "argmin", narrow_one, one);
  }
  nyx_tensor_release(wide);
  nyx_tensor_release(narrow_one);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

static nyx_tensor *make_bytes(int64_t n) {
  int8_t *values = narrow(NYX_INT8, n * n);
  nyx_tensor *t = NULL;
  CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_INT8, 2, (int64_t[]){n, n}, values, &t));
  nyx_memory_free(values);
  return t;
}

static void ops_are_measured(void) {
  begin(NYX_TUNE_MEASURE);
  nyx__tune_clock = real_clock;
  nyx_tensor *a = tensor(2, (int64_t[]){40, 50}), *b = tensor(2, (int64_t[]){50, 60});
  nyx_tensor *x = tensor(4, (int64_t[]){1, 12, 16, 16});
  nyx_tensor *w = tensor(4, (int64_t[]){12, 12, 3, 3});
  nyx_tensor *rows = tensor(2, (int64_t[]){200, 100});
  nyx_tensor *bytes = make_bytes(60), *out[2][4] = {{NULL}};
  for (int tuned = 0; tuned < 2; tuned++) {
    CHECK_OK(ctx, nyx_tune_set(ctx, tuned ? NYX_TUNE_MEASURE : NYX_TUNE_OFF, NULL));
    CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("matmul"), (nyx_tensor *[]){a, b}, 2, NULL,
                            &out[tuned][0]));
    CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("conv2d"), (nyx_tensor *[]){x, w, NULL}, 3,
                            NULL, &out[tuned][1]));
    CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("int_mm"), (nyx_tensor *[]){bytes, bytes}, 2,
                            NULL, &out[tuned][2]));
    CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("sum"), &rows, 1, NULL, &out[tuned][3]));
  }
  for (int i = 0; i < 4; i++) {
    int64_t n = nyx_tensor_numel(out[0][i]);
    CHECK_AT(memcmp(nyx_tensor_data(out[1][i]), nyx_tensor_data(out[0][i]),
                    (size_t)n * 4) == 0,
             "an op", ": %d", i);
    nyx_tensor_release(out[0][i]);
    nyx_tensor_release(out[1][i]);
  }
  CHECK(strstr(contents(), "\nproduct ") && strstr(contents(), "\nconv_forward "));
  CHECK(strstr(contents(), "\nnarrow_product ") && strstr(contents(), "\nreduction "));
  nyx_tensor_release(bytes);
  nyx_tensor_release(rows);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  strcpy(folder, "/tmp/nyx_tune_XXXXXX");
  if (!mkdtemp(folder)) return 1;
  snprintf(file, sizeof file, "%s/tune.txt", folder);
  real_clock = nyx__tune_clock;
  RUN(processes_add_to_one_file);
  RUN(every_way_of_a_product);
  RUN(every_way_of_a_narrow_product);
  RUN(every_way_of_a_convolution);
  RUN(sizes_are_put_together);
  RUN(the_fastest_is_taken_and_kept);
  RUN(off_is_the_rule);
  RUN(each_number_of_threads_is_measured);
  RUN(hostile_files_are_left_alone);
  RUN(what_is_no_file);
  RUN(a_link_stays_one);
  RUN(an_unwritable_folder);
  RUN(failing_ways);
  RUN(without_memory);
  RUN(not_inside_a_range);
  RUN(not_while_others_use_the_pool);
  RUN(several_threads);
  RUN(every_grain_of_a_row);
  RUN(every_way_of_a_reduction);
  RUN(ops_are_measured);
  unlink(file);
  CHECK(rmdir(folder) == 0);
  nyx_context_free(ctx);
  return check_done();
}
