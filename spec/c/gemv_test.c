/* Matrices times vectors against a plain double loop: lengths around the vectors', rows
 * with a gap of NaN between them, at the end of an allocation, either storage order,
 * vectors with steps, added or not, on large ones with other numbers of threads. */
#include <nyx/nyx.h>
#include <stdlib.h>
#include <string.h>

#include "core/linalg/gemm.h"
#include "eighths.h"
#include "kernels/cpu/cpu.h"

static nyx_context *ctx;

/* What is multiplied: an m x k matrix whose rows, or else columns, lie together with
 * `gap` elements between them, and a vector with a step. */
typedef struct problem {
  nyx_dtype dtype;
  int64_t m, k, gap, step;
  bool by_columns, add, left; /* left: the vector is the left factor */
} problem;

UNTRACED static int64_t at(const problem *p, int64_t i, int64_t l) {
  return p->by_columns ? l * (p->m + p->gap) + i : i * (p->k + p->gap) + l;
}

static void multiply(const problem *p, const void *matrix, const void *x, void *y) {
  int64_t row = p->by_columns ? 1 : p->k + p->gap;
  int64_t col = p->by_columns ? p->m + p->gap : 1;
  nyx_gemm g = {.dtype = p->dtype};
  g.product = (nyx_product){.m = p->m, .n = 1, .k = p->k, .a = matrix, .b = x, .c = y};
  g.product.a_rs = row, g.product.a_cs = col, g.product.b_rs = p->step, g.product.ldc = 1;
  if (p->left) {
    g.product = (nyx_product){.m = 1, .n = p->m, .k = p->k, .a = x, .b = matrix, .c = y};
    g.product.a_cs = p->step, g.product.b_rs = col, g.product.b_cs = row;
    g.product.ldc = p->m;
  }
  g.product.add = p->add;
  CHECK_OK(ctx, nyx__gemm(ctx, &g));
}

/* The greatest difference from the plain loop. */
UNTRACED_CHECK static double off_by(const problem *p, const void *matrix, const void *x,
                                    const void *y) {
  double worst = 0;
  for (int64_t i = 0; i < p->m; i++) {
    double sum = p->add ? (double)i : 0;
    for (int64_t l = 0; l < p->k; l++)
      sum += get(p->dtype, matrix, at(p, i, l)) * get(p->dtype, x, l * p->step);
    double off = fabs(get(p->dtype, y, i) - sum);
    if (!(off <= worst)) worst = off;
  }
  return worst;
}

static void check(const problem *p) {
  size_t item = nyx_dtype_size(p->dtype);
  int64_t elements = at(p, p->m - 1, p->k - 1) + 1, steps = (p->k - 1) * p->step + 1;
  void *matrix = malloc((size_t)elements * item), *x = malloc((size_t)steps * item);
  void *y = malloc((size_t)p->m * item);
  REQUIRE(CHECK(matrix && x && y));
  for (int64_t i = 0; i < elements; i++) put(p->dtype, matrix, i, NAN);
  for (int64_t i = 0; i < steps; i++) put(p->dtype, x, i, NAN);
  for (int64_t i = 0; i < p->m; i++) {
    put(p->dtype, y, i, p->add ? (double)i : NAN);
    for (int64_t l = 0; l < p->k; l++) put(p->dtype, matrix, at(p, i, l), number());
  }
  for (int64_t l = 0; l < p->k; l++) put(p->dtype, x, l * p->step, number());
  multiply(p, matrix, x, y);
  CHECK_NEAR(off_by(p, matrix, x, y), 0, 0);
  free(matrix);
  free(x);
  free(y);
}

static void lengths(void) {
  static const int64_t sizes[] = {1,  2,  3,  4,  5,  7,  8,  9,  10, 15, 16,
                                  17, 19, 31, 32, 33, 35, 47, 48, 64, 67, 130};
  enum { N = sizeof sizes / sizeof *sizes };
  for (int i = 0; i < N * N; i++) {
    for (int kind = 0; kind < 16; kind++) {
      const problem p = {.dtype = kind & 1 ? NYX_FLOAT64 : NYX_FLOAT32,
                         .m = sizes[i / N],
                         .k = sizes[i % N],
                         .gap = kind & 2 ? i % 5 : 0,
                         .step = kind & 2 ? 1 + i % 3 : 1,
                         .by_columns = kind & 4,
                         .add = i % 2 == 1,
                         .left = kind & 8};
      check(&p);
    }
  }
}

/* Divided between threads: rows, columns, terms. */
static void large(void) {
  static const int64_t shapes[][2] = {{2000, 517},  {517, 2000}, {130, 20011},
                                      {20011, 130}, {3, 300000}, {300000, 3},
                                      {2000, 2051}};
  for (int i = 0; i < 7; i++) {
    for (int kind = 0; kind < 4; kind++) {
      const problem p = {.dtype = i % 2 ? NYX_FLOAT64 : NYX_FLOAT32,
                         .m = shapes[i][0],
                         .k = shapes[i][1],
                         .gap = 2,
                         .step = 1,
                         .by_columns = kind & 1,
                         .left = kind & 2};
      check(&p);
    }
  }
}

/* A matrix stored upside down: no row lies where a longer one would reach. */
static void backwards(void) {
  enum { M = 19, K = 5, GAP = 2 };
  for (int64_t m = 1; m <= M; m++) {
    float *end = malloc((size_t)(m * (K + GAP)) * sizeof *end), x[M], y[M];
    REQUIRE(CHECK(end));
    for (int64_t i = 0; i < m * (K + GAP); i++) end[i] = (float)number();
    for (int i = 0; i < M; i++) x[i] = (float)number();
    const float *top = end + (m - 1) * (K + GAP);
    for (int turn = 0; turn < 2; turn++) { /* its rows' dot products; their sum */
      int64_t n = turn ? K : m, terms = turn ? m : K;
      nyx_gemm g = {.dtype = NYX_FLOAT32};
      g.product = (nyx_product){.m = n, .n = 1, .k = terms, .a = top, .b = x, .c = y};
      g.product.a_rs = turn ? 1 : -(K + GAP), g.product.a_cs = turn ? -(K + GAP) : 1;
      g.product.b_rs = g.product.ldc = 1;
      CHECK_OK(ctx, nyx__gemm(ctx, &g));
      for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t l = 0; l < terms; l++)
          sum += (double)top[i * g.product.a_rs + l * g.product.a_cs] * (double)x[l];
        CHECK_NEAR(y[i], sum, 0);
      }
    }
    free(end);
  }
}

/* Long sums of numbers of one sign, where errors add up: some roundings of the result. */
static void accuracy(void) {
  enum { TERMS = 100000, COLUMNS = 35 };
  const nyx_gemm_kernel *kernel = &nyx__cpu_kernels()->gemm->type[0];
  float *b = malloc((size_t)TERMS * COLUMNS * sizeof *b), *x = malloc(TERMS * sizeof *x);
  float y[COLUMNS], dot;
  REQUIRE(CHECK(b && x));
  for (int64_t i = 0; i < TERMS * COLUMNS; i++) b[i] = (float)(number() + 2) / 3;
  for (int64_t i = 0; i < TERMS; i++) x[i] = (float)(number() + 2) / 7;
  kernel->sum_rows(b, COLUMNS, TERMS, COLUMNS, x, 1, y, false);
  for (int j = 0; j < COLUMNS; j++) {
    double sum = 0;
    for (int64_t l = 0; l < TERMS; l++) sum += (double)x[l] * (double)b[l * COLUMNS + j];
    CHECK_NEAR(y[j], sum, 16 * 0x1p-24 * sum);
  }
  double sum = 0;
  for (int64_t l = 0; l < TERMS; l++) sum += (double)x[l] * (double)b[l];
  kernel->dots(b, TERMS, 1, TERMS, x, &dot, 1, false);
  CHECK_NEAR(dot, sum, 16 * 0x1p-24 * sum);
  free(b);
  free(x);
}

/* Sums that are rounded: the same bits whatever the number of threads. */
static void threads(void) {
  static const int64_t shapes[][2] = {
      {2000, 517}, {200, 20011}, {3, 300000}, {2000, 2051}};
  for (int i = 0; i < 8; i++) {
    const problem p = {.dtype = NYX_FLOAT32,
                       .m = shapes[i / 2][0],
                       .k = shapes[i / 2][1],
                       .step = 1,
                       .by_columns = i % 2 == 1};
    size_t bytes = (size_t)p.m * sizeof(float);
    float *matrix = malloc(bytes * (size_t)p.k), *x = malloc((size_t)p.k * sizeof *x);
    float *one = malloc(bytes), *five = malloc(bytes);
    REQUIRE(CHECK(matrix && x && one && five));
    for (int64_t e = 0; e < p.m * p.k; e++) matrix[e] = (float)number() / 3;
    for (int64_t e = 0; e < p.k; e++) x[e] = (float)number() / 7;
    CHECK_OK(ctx, nyx_parallel_set_threads(1));
    multiply(&p, matrix, x, one);
    CHECK_OK(ctx, nyx_parallel_set_threads(5));
    multiply(&p, matrix, x, five);
    CHECK(memcmp(one, five, bytes) == 0);
    CHECK_OK(ctx, nyx_parallel_set_threads(0));
    float *all[] = {matrix, x, one, five};
    for (int e = 0; e < 4; e++) free(all[e]);
  }
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(lengths);
  RUN(large);
  RUN(backwards);
  RUN(accuracy);
  RUN(threads);
  nyx_context_free(ctx);
  return check_done();
}
