/* What comes after a product, in every way a product can go: a bias, the sums kept, an
 * activation, a gate, a residual, alone and together, in numbers whose sums are exact in
 * any order. Products divided into slabs, shared, with kept panels, in parts along their
 * terms, of a batch, in half types. */
#include <nyx/nyx.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "core/linalg/gemm.h"
#include "core/op/ops.h"
#include "kernels/cpu/cpu.h"

static nyx_context *ctx;
static uint64_t state = 1;

UNTRACED static double number(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int)(state >> 60) / 4 - 2;
}

enum { BIAS = 1, SUMS = 2, ACTIVATION = 4, RESIDUAL = 8, GATE = 16, ALL = 31 };

typedef struct problem {
  nyx_dtype dtype, out;
  int64_t count, m, n, k;
  int what;
  double *values[4]; /* A of all entries, B, residual, what sums are multiplied by */
  double *plain;     /* the product alone */
  void *data[4], *bias, *sums, *c;
} problem;

UNTRACED static double get(nyx_dtype dtype, const void *from, int64_t i) {
  return nyx__load_double(dtype, (const char *)from + (size_t)i * nyx_dtype_size(dtype));
}

UNTRACED static void fill(nyx_dtype dtype, int64_t n, void **to, double **values) {
  double *v = malloc((size_t)n * sizeof *v);
  *to = malloc((size_t)n * nyx_dtype_size(dtype));
  REQUIRE(CHECK(v && *to));
  for (int64_t i = 0; i < n; i++) v[i] = number();
  nyx__cpu_kernels()->elementwise->scatter[NYX_IN_FLOAT64][dtype](n, v, *to, 1);
  if (values)
    *values = v;
  else
    free(v);
}

/* Row by row of B, once for all ways. */
UNTRACED static double *multiplied(const problem *p) {
  double *c = calloc((size_t)(p->count * p->m * p->n), sizeof *c);
  if (!c) exit(1);
  for (int64_t i = 0; i < p->count * p->m; i++) {
    for (int64_t l = 0; l < p->k; l++) {
      double a = p->values[0][i * p->k + l];
      for (int64_t j = 0; j < p->n; j++)
        c[i * p->n + j] += a * p->values[1][l * p->n + j];
    }
  }
  return c;
}

static void prepare(problem *p) {
  int64_t rows = p->count * p->m;
  nyx_dtype sum = p->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  fill(p->dtype, rows * p->k, &p->data[0], &p->values[0]);
  fill(p->dtype, p->k * p->n, &p->data[1], &p->values[1]);
  for (int i = 2; i < 4; i++) fill(p->out, rows * p->n, &p->data[i], &p->values[i]);
  fill(sum, p->n, &p->bias, NULL);
  fill(p->out, rows * p->n, &p->sums, NULL);
  fill(p->out, rows * p->n, &p->c, NULL);
  p->plain = multiplied(p);
}

static void release(problem *p) {
  for (int i = 0; i < 4; i++) {
    free(p->values[i]);
    free(p->data[i]);
  }
  free(p->plain);
  free(p->bias);
  free(p->sums);
  free(p->c);
}

static void describe(problem *p, nyx_gemm *g, nyx_epilogue *e) {
  *g = (nyx_gemm){.dtype = p->dtype, .after = e, .batch_ndim = 1};
  g->product = (nyx_product){.m = p->m, .n = p->n, .k = p->k, .a_rs = p->k, .a_cs = 1};
  g->product.a = p->data[0], g->product.b = p->data[1], g->product.c = p->c;
  g->product.b_rs = p->n, g->product.b_cs = 1, g->product.ldc = p->n;
  g->batch_shape[0] = p->count;
  g->a_batch[0] = p->m * p->k;
  if (p->count == 1) g->batch_ndim = 0;
  *e = (nyx_epilogue){.n = p->n};
  int in = p->dtype == NYX_FLOAT64 ? NYX_IN_FLOAT64 : NYX_IN_FLOAT32;
  if (p->what & BIAS) e->bias = p->bias;
  if (p->what & SUMS) e->sums = p->sums;
  if (p->what & RESIDUAL) e->residual = p->data[2];
  nyx__op_id row = p->what & GATE ? NYX__OP_mul : NYX__OP_relu;
  if (p->what & GATE) e->other = p->data[3];
  if (p->what & (ACTIVATION | GATE))
    e->activation = nyx__cpu_kernels()->elementwise->rows[in][nyx__row(row)->id][0];
}

/* How many results, or kept sums, are not what they have to be. */
UNTRACED static int64_t wrong(const problem *p) {
  nyx_dtype sum_type = p->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  int64_t count = 0;
  for (int64_t i = 0; i < p->count * p->m; i++) {
    for (int64_t j = 0; j < p->n; j++) {
      double sum = p->plain[i * p->n + j];
      if (p->what & BIAS) sum += get(sum_type, p->bias, j);
      if (p->what & SUMS) count += get(p->out, p->sums, i * p->n + j) != sum;
      if (p->what & GATE)
        sum *= p->values[3][i * p->n + j];
      else if (p->what & ACTIVATION && sum < 0)
        sum = 0;
      if (p->what & RESIDUAL) sum += p->values[2][i * p->n + j];
      count += get(p->out, p->c, i * p->n + j) != sum;
    }
  }
  return count;
}

/* By every way. */
static void product(nyx_dtype dtype, int64_t count, int64_t m, int64_t n, int64_t k,
                    int what) {
  problem p = {.dtype = dtype, .out = dtype, .count = count, .m = m, .n = n, .k = k};
  p.what = what;
  prepare(&p);
  nyx_gemm g;
  nyx_epilogue e;
  describe(&p, &g, &e);
  uint32_t usable = nyx__gemm_usable(&g);
  for (int way = 0; way < NYX__GEMM_WAYS; way++) {
    if (!(usable & 1u << way)) continue;
    CHECK_OK(ctx, nyx__gemm_by(ctx, &g, (nyx__gemm_way)way));
    int64_t off = wrong(&p);
    CHECK_AT(off == 0, nyx_dtype_name(dtype), " way %d, %lld of %lldx%lldx%lld, %d: %lld",
             way, (long long)count, (long long)m, (long long)n, (long long)k, what,
             (long long)off);
    memset(p.c, 0, (size_t)(count * m * n) * nyx_dtype_size(dtype));
    memset(p.sums, 0, (size_t)(count * m * n) * nyx_dtype_size(dtype));
  }
  release(&p);
}

static void ways(void) {
  for (int what = 1; what <= ALL; what++) {
    product(NYX_FLOAT32, 1, 60, 70, 50, what);
    product(NYX_FLOAT64, 1, 60, 70, 50, what);
    product(NYX_FLOAT32, 1, 1, 70, 50, what);
    product(NYX_FLOAT32, 1, 70, 1, 50, what);
  }
  product(NYX_FLOAT32, 1, 300, 517, 1100, ALL);
  product(NYX_FLOAT64, 1, 20, 517, 300, ALL);
  product(NYX_FLOAT32, 3, 130, 200, 90, ALL);
  product(NYX_FLOAT32, 40, 9, 20, 30, ALL);
  product(NYX_FLOAT32, 1, 9, 20, 30000, ALL);   /* parts along the terms */
  product(NYX_FLOAT32, 1, 60, 4200, 9, ALL);    /* columns in two parts */
  product(NYX_FLOAT32, 1, 50, 4100, 2400, ALL); /* spans of terms */
  product(NYX_FLOAT32, 1, 5, 300, 70, ALL);     /* few rows */
  product(NYX_FLOAT64, 3, 300, 7, 70, ALL);     /* few columns */
  product(NYX_FLOAT32, 1, 5, 6, 0, ALL);
}

static void halves(void) {
  for (int what = 0; what <= ALL; what++) {
    for (int kind = 0; kind < 8; kind++) {
      nyx_dtype dtype = kind & 1 ? NYX_FLOAT16 : NYX_BFLOAT16;
      problem p = {.dtype = dtype, .out = NYX_FLOAT32, .count = 1, .what = what};
      p.m = kind & 2 ? 300 : 20, p.n = kind & 4 ? 300 : 33, p.k = 40;
      if (kind == 2 || kind == 3) p.m = 1; /* a row: dot products */
      prepare(&p);
      nyx_gemm g;
      nyx_epilogue e;
      describe(&p, &g, &e);
      if (p.m == 1) { /* with the terms of a column side by side */
        g.product.b_rs = 1, g.product.b_cs = p.k;
        nyx_scatter_fn store =
            nyx__cpu_kernels()->elementwise->scatter[NYX_IN_FLOAT64][dtype];
        for (int64_t j = 0; j < p.n; j++)
          for (int64_t l = 0; l < p.k; l++)
            store(1, p.values[1] + l * p.n + j, (char *)p.data[1] + (j * p.k + l) * 2, 1);
      }
      if (nyx__gemm_low_takes(&g)) {
        CHECK_OK(ctx, nyx__gemm_low(ctx, &g, p.out));
        CHECK_INT(wrong(&p), 0);
      }
      release(&p);
    }
  }
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(ways);
  RUN(halves);
  nyx_context_free(ctx);
  return check_done();
}
