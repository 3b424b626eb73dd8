/* A few rows times a large matrix, and a large matrix times few columns, by the kernels
 * that read it once, against a plain double loop: few of every number, lengths around the
 * vectors' and the blocks', gaps of NaN between rows, either storage order of both
 * factors, batches, added or not, whatever the number of threads. */
#include <nyx/nyx.h>
#include <stdlib.h>
#include <string.h>

#include "core/linalg/gemm.h"
#include "eighths.h"

static nyx_context *ctx;

/* count matrices, rows x cols: elements at i * rs + j * cs, `gap` behind each line. */
typedef struct matrix {
  nyx_dtype dtype;
  int64_t count, rows, cols, rs, cs, each;
  void *data;
} matrix;

static matrix matrix_of(nyx_dtype dtype, int64_t count, int64_t rows, int64_t cols,
                        int64_t gap, bool by_columns) {
  matrix m = {.dtype = dtype, .count = count, .rows = rows, .cols = cols};
  m.rs = by_columns ? 1 : cols + gap;
  m.cs = by_columns ? rows + gap : 1;
  m.each = by_columns ? cols * m.cs : rows * m.rs;
  /* To the byte: reading behind the last element is seen by the address sanitizer. */
  int64_t size = (count - 1) * m.each + (rows - 1) * m.rs + (cols - 1) * m.cs + 1;
  m.data = malloc((size_t)size * nyx_dtype_size(dtype));
  for (int64_t i = 0; m.data && i < size; i++) put(dtype, m.data, i, NAN);
  return m;
}

UNTRACED static int64_t at(const matrix *m, int64_t e, int64_t i, int64_t j) {
  return e * m->each + i * m->rs + j * m->cs;
}

UNTRACED static void fill(const matrix *m) {
  for (int64_t e = 0; e < m->count; e++) {
    for (int64_t i = 0; i < m->rows; i++) {
      for (int64_t j = 0; j < m->cols; j++)
        put(m->dtype, m->data, at(m, e, i, j), number());
    }
  }
}

typedef struct problem {
  nyx_dtype dtype;
  int64_t count, m, n, k, gap;
  bool a_by_columns, b_by_columns, add;
} problem;

static void multiply(const problem *p, const matrix *a, const matrix *b,
                     const matrix *c) {
  nyx_gemm g = {.dtype = p->dtype, .batch_ndim = 1, .batch_shape = {p->count}};
  g.product = (nyx_product){.m = p->m, .n = p->n, .k = p->k, .add = p->add};
  g.product.a = a->data, g.product.a_rs = a->rs, g.product.a_cs = a->cs;
  g.product.b = b->data, g.product.b_rs = b->rs, g.product.b_cs = b->cs;
  g.product.c = c->data, g.product.ldc = c->rs;
  g.a_batch[0] = a->each, g.b_batch[0] = b->each;
  REQUIRE(CHECK(nyx__gemm_usable(&g) >> NYX__GEMM_FEW & 1));
  CHECK_OK(ctx, nyx__gemm_by(ctx, &g, NYX__GEMM_FEW));
}

/* How many results are wrong, or elements between them touched. */
UNTRACED static int64_t wrong(const problem *p, const matrix *a, const matrix *b,
                              const matrix *c) {
  int64_t count = 0;
  for (int64_t e = 0; e < p->count; e++) {
    for (int64_t i = 0; i < p->m; i++) {
      for (int64_t j = 0; j < p->n; j++) {
        double sum = p->add ? (double)(i + j) : 0;
        for (int64_t l = 0; l < p->k; l++)
          sum += get(p->dtype, a->data, at(a, e, i, l)) *
                 get(p->dtype, b->data, at(b, e, l, j));
        count += !(get(p->dtype, c->data, at(c, e, i, j)) == sum);
      }
      bool last = e == p->count - 1 && i == p->m - 1;
      for (int64_t j = p->n; j < c->rs && !last; j++)
        count += !isnan(get(p->dtype, c->data, at(c, e, i, j)));
    }
  }
  return count;
}

static void check(const problem *p) {
  matrix a = matrix_of(p->dtype, p->count, p->m, p->k, p->gap, p->a_by_columns);
  matrix b = matrix_of(p->dtype, p->count, p->k, p->n, p->gap, p->b_by_columns);
  matrix c = matrix_of(p->dtype, p->count, p->m, p->n, p->gap, false);
  REQUIRE(CHECK(a.data && b.data && c.data));
  fill(&a);
  fill(&b);
  for (int64_t e = 0; e < p->count && p->add; e++) {
    for (int64_t i = 0; i < p->m; i++) {
      for (int64_t j = 0; j < p->n; j++)
        put(p->dtype, c.data, at(&c, e, i, j), (double)(i + j));
    }
  }
  multiply(p, &a, &b, &c);
  int64_t off = wrong(p, &a, &b, &c);
  CHECK_AT(off == 0, nyx_dtype_name(p->dtype), " %lldx%lldx%lld, layouts %d %d: %lld",
           (long long)p->m, (long long)p->n, (long long)p->k, p->a_by_columns,
           p->b_by_columns, (long long)off);
  free(a.data);
  free(b.data);
  free(c.data);
}

/* Rows or columns, by `kind`. */
static problem turned(int64_t few, int64_t many, int64_t k, int kind) {
  problem p = {.dtype = kind & 1 ? NYX_FLOAT64 : NYX_FLOAT32, .count = 1, .k = k};
  p.m = kind & 2 ? many : few;
  p.n = kind & 2 ? few : many;
  p.a_by_columns = kind & 4;
  p.b_by_columns = kind & 8;
  return p;
}

static void lengths(void) {
  static const int64_t few[] = {2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 18, 19, 33, 64};
  static const int64_t k[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 511, 513, 530};
  static const int64_t many[] = {64, 65, 67, 71, 79, 96, 99, 131};
  enum { FEW = sizeof few / sizeof *few, K = sizeof k / sizeof *k };
  for (int i = 0; i < FEW * K; i++) {
    for (int kind = 0; kind < 16; kind++) {
      problem p = turned(few[i / K], many[(i + kind) % 8], k[i % K], kind);
      p.gap = i % 3;
      p.add = i % 2;
      check(&p);
    }
  }
}

/* Several blocks of columns, spans of terms, parts for threads. */
static void large(void) {
  for (int kind = 0; kind < 16; kind++) {
    problem p = turned(kind % 3 + 2, 1500, 1100, kind);
    check(&p);
    p = turned(19, 64, 8200, kind);
    check(&p);
    p = turned(40, 700, 300, kind);
    p.gap = 5;
    check(&p);
    p = turned(9, 100, 70, kind);
    p.count = 3;
    p.add = true;
    check(&p);
  }
}

/* Sums that are rounded: the same bits with one thread and five, and of the same rows and
 * columns in a larger product. */
static void threads(void) {
  for (int kind = 0; kind < 16; kind++) {
    problem p = turned(11, 1000, 1300, kind), q = p;
    *(kind & 2 ? &q.n : &q.m) += 10;
    matrix a = matrix_of(p.dtype, 1, q.m, q.k, 3, p.a_by_columns);
    matrix b = matrix_of(p.dtype, 1, q.k, q.n, 3, p.b_by_columns);
    matrix one = matrix_of(p.dtype, 1, p.m, p.n, 0, false);
    matrix five = matrix_of(p.dtype, 1, p.m, p.n, 0, false);
    matrix more = matrix_of(p.dtype, 1, q.m, q.n, 0, false);
    REQUIRE(CHECK(a.data && b.data && one.data && five.data && more.data));
    fill(&a);
    fill(&b);
    for (int64_t i = 0; i < q.m; i++)
      put(p.dtype, a.data, at(&a, 0, i, 1), 1.0 / (double)(3 * i + 3));
    CHECK_OK(ctx, nyx_parallel_set_threads(1));
    multiply(&p, &a, &b, &one);
    CHECK_OK(ctx, nyx_parallel_set_threads(5));
    multiply(&p, &a, &b, &five);
    multiply(&q, &a, &b, &more);
    CHECK_OK(ctx, nyx_parallel_set_threads(0));
    int64_t differ = 0;
    for (int64_t i = 0; i < p.m; i++) {
      for (int64_t j = 0; j < p.n; j++) {
        double expected = get(p.dtype, one.data, at(&one, 0, i, j));
        differ += get(p.dtype, five.data, at(&five, 0, i, j)) != expected;
        differ += get(p.dtype, more.data, at(&more, 0, i, j)) != expected;
      }
    }
    CHECK_AT(differ == 0, "kind", " %d: %lld", kind, (long long)differ);
    matrix *all[] = {&a, &b, &one, &five, &more};
    for (int i = 0; i < 5; i++) free(all[i]->data);
  }
}

/* Long sums of numbers of one sign, where errors add up: some roundings of the result. */
static void accuracy(void) {
  for (int kind = 0; kind < 16; kind += 2) {
    problem p = turned(3, 66, 100000, kind);
    matrix a = matrix_of(p.dtype, 1, p.m, p.k, 0, p.a_by_columns);
    matrix b = matrix_of(p.dtype, 1, p.k, p.n, 0, p.b_by_columns);
    matrix c = matrix_of(p.dtype, 1, p.m, p.n, 0, false);
    REQUIRE(CHECK(a.data && b.data && c.data));
    for (int64_t i = 0; i < p.m * p.k; i++)
      ((float *)a.data)[i] = (float)(number() + 2) / 3;
    for (int64_t i = 0; i < p.n * p.k; i++)
      ((float *)b.data)[i] = (float)(number() + 2) / 7;
    multiply(&p, &a, &b, &c);
    for (int64_t e = 0; e < 66; e++) {
      int64_t i = kind & 2 ? e : e % 3, j = kind & 2 ? e % 3 : e;
      double sum = 0;
      for (int64_t l = 0; l < p.k; l++)
        sum +=
            get(p.dtype, a.data, at(&a, 0, i, l)) * get(p.dtype, b.data, at(&b, 0, l, j));
      CHECK_NEAR(get(p.dtype, c.data, at(&c, 0, i, j)), sum, 16 * 0x1p-24 * sum);
    }
    free(a.data);
    free(b.data);
    free(c.data);
  }
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(lengths);
  RUN(large);
  RUN(threads);
  RUN(accuracy);
  nyx_context_free(ctx);
  return check_done();
}
