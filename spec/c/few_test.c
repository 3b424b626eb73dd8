/* Products that leave a factor where it lies, against a plain double loop: a few rows
 * times a large matrix, and a large matrix times few columns, by the kernels that read it
 * once; many rows and a small matrix, by tiles that read the rows in place. Few of every
 * number, sizes around those of vectors, tiles and blocks, gaps of NaN between rows,
 * either storage order of both factors, batches, added or not, whatever the number of
 * threads. Whether the second are chosen. */
#include <nyx/nyx.h>
#include <stdlib.h>
#include <string.h>

#include "core/linalg/blas.h"
#include "core/linalg/gemm.h"
#include "eighths.h"
#include "kernels/cpu/cpu.h"

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
  nyx__gemm_way way;
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
  REQUIRE(CHECK(nyx__gemm_usable(&g) >> p->way & 1));
  CHECK_OK(ctx, nyx__gemm_by(ctx, &g, p->way));
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
  problem p = {.way = NYX__GEMM_FEW, .count = 1, .k = k};
  p.dtype = kind & 1 ? NYX_FLOAT64 : NYX_FLOAT32;
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

/* Rows of A that are read where they lie, times a B that is, or its panels. */
static problem placed(int64_t m, int64_t n, int64_t k, int kind) {
  problem p = turned(m, n, k, kind & ~2);
  p.way = NYX__GEMM_PLACE;
  return p;
}

static void tiles_in_place(void) {
  static const int64_t m[] = {1, 2, 3, 5, 6, 7, 12, 13, 14, 15, 22, 27, 28, 29, 43, 200};
  static const int64_t n[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 49, 65, 100};
  static const int64_t k[] = {1, 2, 15, 16, 17, 64, 70};
  for (int i = 0; i < 16 * 14; i++) {
    for (int kind = 0; kind < 16; kind++) {
      problem p = placed(m[i / 14], n[i % 14], k[(i + kind) % 7], kind);
      p.gap = (i + kind / 2) % 3;
      p.add = i % 2;
      p.count = kind & 2 ? 3 : 1;
      check(&p);
    }
  }
}

/* Several blocks of terms, parts of them and of rows and columns for threads, rows that
 * are asked for, batches whose B is packed panel by panel, rows a power of two apart. */
static void large_in_place(void) {
  for (int kind = 0; kind < 16; kind++) {
    if (kind & 2) continue;
    problem all[] = {placed(5000, 33, 70, kind),   placed(2100, 49, 400, kind),
                     placed(50, 2000, 40, kind),   placed(40, 40, 8300, kind),
                     placed(70, 130, 800, kind),   placed(300, 64, 1024, kind),
                     placed(1030, 70, 1000, kind), placed(120, 90, 33, kind)};
    all[7].count = 20;
    all[3].count = kind == 4 ? 2 : 1;
    for (int i = 0; i < 8; i++) {
      all[i].gap = i % 3 * 2;
      all[i].add = i % 2;
      check(&all[i]);
    }
  }
}

/* Whether rows of m x k floats are read in place for a matrix of k x n, in the layouts
 * that turned() numbers. */
static bool reads_in_place(int64_t count, int64_t m, int64_t n, int64_t k, int kind) {
  nyx_gemm g = {.batch_ndim = 1, .batch_shape = {count}};
  g.product = (nyx_product){.m = m, .n = n, .k = k, .ldc = n};
  g.product.a_rs = kind & 4 ? 1 : k, g.product.a_cs = kind & 4 ? m : 1;
  g.product.b_rs = kind & 8 ? 1 : n, g.product.b_cs = kind & 8 ? k : 1;
  g.dtype = NYX_FLOAT32;
  return nyx__gemm_rule(&g) == NYX__GEMM_PLACE;
}

static void chosen(void) {
  enum { TURNED_A = 4, TURNED_B = 8 };
  for (int kind = 0; kind <= TURNED_B; kind += TURNED_B) {
    CHECK(reads_in_place(1, 16384, 64, 64, kind));
    CHECK(reads_in_place(1, 4096, 64, 256, kind));
    CHECK(reads_in_place(1, 8192, 64, 128, kind));
    CHECK(reads_in_place(1, 2000, 48, 1024, kind));
    CHECK(reads_in_place(12, 1024, 1024, 64, kind));
    CHECK(reads_in_place(1, 64, 64, 16384, kind));
    CHECK(!reads_in_place(1, 63, 128, 256, kind));   /* few rows */
    CHECK(!reads_in_place(1, 1000, 257, 129, kind)); /* many columns and terms */
    CHECK(!reads_in_place(1, 2000, 300, 1000, kind));
    CHECK(!reads_in_place(1, 2000, 128, 2048, kind)); /* a large B */
    CHECK(!reads_in_place(1, 2000, 15, 128, kind));   /* few columns */
    CHECK(!reads_in_place(1, 2000, 64, 0, kind));     /* no terms, which no block has */
  }
  CHECK(reads_in_place(1, 100000, 16, 32, TURNED_B));
  CHECK(reads_in_place(64, 64, 64, 64, TURNED_B));
  CHECK(reads_in_place(1, 16384, 64, 64, TURNED_A));
  CHECK(reads_in_place(1, 5000, 64, 64, TURNED_A));
  CHECK(!reads_in_place(1, 5000, 64, 65, TURNED_A));
  CHECK(!reads_in_place(1, 5000, 31, 64, TURNED_A));
  CHECK(reads_in_place(1, 64, 64, 16384, TURNED_A));
  CHECK(reads_in_place(1, 8, 32, 4096, TURNED_A));
  CHECK(!reads_in_place(1, 8, 31, 4096, TURNED_A));
  CHECK(!reads_in_place(1, 64, 64, 4095, TURNED_A));
  bool small = !nyx__blas() || strcmp(nyx__cpu_kernels()->width, "avx512") != 0;
  CHECK(reads_in_place(1, 64, 64, 64, 0) == small); /* a BLAS packs nothing either */
}

/* Sums that are rounded: the same bits with one thread and five, and of the same rows and
 * columns in a larger product. */
static void threads(void) {
  for (int i = 0; i < 32; i++) {
    int kind = i % 16;
    problem p = turned(11, 1000, 1300, kind), q = p;
    if (i >= 16) {
      if (kind & 2) continue;
      p = q = placed(1000, 40, 600, kind);
    }
    *(kind & 2 ? &q.n : &q.m) += 10;
    matrix a = matrix_of(p.dtype, 1, q.m, q.k, 3, p.a_by_columns);
    matrix b = matrix_of(p.dtype, 1, q.k, q.n, 3, p.b_by_columns);
    matrix one = matrix_of(p.dtype, 1, p.m, p.n, 0, false);
    matrix five = matrix_of(p.dtype, 1, p.m, p.n, 0, false);
    matrix more = matrix_of(p.dtype, 1, q.m, q.n, 0, false);
    REQUIRE(CHECK(a.data && b.data && one.data && five.data && more.data));
    fill(&a);
    fill(&b);
    for (int64_t r = 0; r < q.m; r++)
      put(p.dtype, a.data, at(&a, 0, r, 1), 1.0 / (double)(3 * r + 3));
    CHECK_OK(ctx, nyx_parallel_set_threads(1));
    multiply(&p, &a, &b, &one);
    CHECK_OK(ctx, nyx_parallel_set_threads(5));
    multiply(&p, &a, &b, &five);
    multiply(&q, &a, &b, &more);
    CHECK_OK(ctx, nyx_parallel_set_threads(0));
    int64_t differ = 0;
    for (int64_t r = 0; r < p.m; r++) {
      for (int64_t j = 0; j < p.n; j++) {
        double expected = get(p.dtype, one.data, at(&one, 0, r, j));
        differ += get(p.dtype, five.data, at(&five, 0, r, j)) != expected;
        differ += get(p.dtype, more.data, at(&more, 0, r, j)) != expected;
      }
    }
    CHECK_AT(differ == 0, "kind", " %d: %lld", kind, (long long)differ);
    matrix *all[] = {&a, &b, &one, &five, &more};
    for (int e = 0; e < 5; e++) free(all[e]->data);
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
  RUN(tiles_in_place);
  RUN(large_in_place);
  RUN(chosen);
  RUN(threads);
  RUN(accuracy);
  nyx_context_free(ctx);
  return check_done();
}
