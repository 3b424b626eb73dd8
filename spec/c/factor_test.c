/* Factorizations of matrices around the sizes at which they are divided: residuals, what
 * is not a number, threads, requests to stop and failing allocations in the middle. What
 * ops make of them is in spec/lua/linalg_spec.lua. Read next: core/linalg/factor.c. */
#include "paths.h"

#include <float.h>
#include <math.h>
#include <nyx/parallel.h>

#include "core/linalg/factor.h"

/* Below, at and above BLOCKED and PANEL of factor.c, and more than a TILE or CHUNK. */
static const int64_t sizes[] = {1, 2, 63, 255, 256, 257, 384, 385, 520, 641};
enum { SIZES = sizeof sizes / sizeof *sizes };

UNTRACED static double value(nyx_dtype dtype, const void *p, int64_t i) {
  return dtype == NYX_FLOAT64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

UNTRACED static void put(nyx_dtype dtype, void *p, int64_t i, double v) {
  if (dtype == NYX_FLOAT64)
    ((double *)p)[i] = v;
  else
    ((float *)p)[i] = (float)v;
}

UNTRACED static double uniform(void) {
  return (double)next() / 0x1p23 - 1;
}

static void *room(nyx_dtype dtype, int64_t n) {
  return calloc((size_t)(n + 1), nyx_dtype_size(dtype));
}

static double epsilon(nyx_dtype dtype) {
  return dtype == NYX_FLOAT64 ? DBL_EPSILON : (double)FLT_EPSILON;
}

/* A symmetric positive-definite matrix: 1 or less, and n on the diagonal. */
UNTRACED static void *definite(nyx_dtype dtype, int64_t n) {
  void *a = room(dtype, n * n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) {
      const double v = i == j ? (double)n + 1 : uniform();
      put(dtype, a, i * n + j, v);
      put(dtype, a, j * n + i, v);
    }
  return a;
}

/* The largest difference of L L^T and A, by the largest element. */
UNTRACED static double cholesky_residual(nyx_dtype dtype, int64_t n, const void *l,
                                         const void *a) {
  double worst = 0;
  for (int64_t i = 0; i<n; i += n> 100 ? 7 : 1)
    for (int64_t j = 0; j <= i; j++) {
      double sum = 0;
      for (int64_t k = 0; k <= j; k++)
        sum += value(dtype, l, i * n + k) * value(dtype, l, j * n + k);
      worst = fmax(worst, fabs(sum - value(dtype, a, i * n + j)));
    }
  return worst / (double)(n + 1);
}

static void choleskys(void) {
  for (int t = 0; t < 2 * SIZES; t++) {
    const nyx_dtype dtype = t % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    const int64_t n = sizes[t / 2];
    void *a = definite(dtype, n), *l = definite(dtype, n);
    int info = -1;
    memcpy(l, a, (size_t)(n * n) * nyx_dtype_size(dtype));
    for (int64_t i = 0; i < n; i++) /* not read */
      for (int64_t j = i + 1; j < n; j++) put(dtype, l, i * n + j, NAN);
    REQUIRE(CHECK_OK(ctx, nyx__cholesky(ctx, dtype, 1, n, l, &info)));
    CHECK_INT(info, 0);
    const double error = cholesky_residual(dtype, n, l, a);
    CHECK_AT(error < 4 * epsilon(dtype), "L L^T", " of %d: %g", (int)n, error);
    for (int64_t i = 0; i + 1 < n; i++) CHECK(value(dtype, l, i * n + i + 1) == 0);
    /* where it fails */
    for (int64_t at = 0; at < n; at += n / 3 + 1) {
      memcpy(l, a, (size_t)(n * n) * nyx_dtype_size(dtype));
      put(dtype, l, at * n + at, at % 2 ? -1 : NAN);
      REQUIRE(CHECK_OK(ctx, nyx__cholesky(ctx, dtype, 1, n, l, &info)));
      CHECK_INT(info, at + 1);
    }
    free(a);
    free(l);
  }
}

/* The largest difference of L U and A with its rows exchanged. */
UNTRACED static double lu_residual(nyx_dtype dtype, int64_t m, int64_t n, const void *lu,
                                   const int *pivots, void *a) {
  const int64_t k = m < n ? m : n;
  double worst = 0;
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = 0; j < n; j++) {
      const double v = value(dtype, a, j * m + i);
      put(dtype, a, j * m + i, value(dtype, a, j * m + pivots[i] - 1));
      put(dtype, a, j * m + pivots[i] - 1, v);
    }
  for (int64_t i = 0; i<m; i += m> 100 ? 7 : 1)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t l = 0; l < k && l <= i && l <= j; l++)
        sum += (l == i ? 1 : value(dtype, lu, l * m + i)) * value(dtype, lu, j * m + l);
      worst = fmax(worst, fabs(sum - value(dtype, a, j * m + i)));
    }
  return worst;
}

static void one_lu(nyx_dtype dtype, int64_t m, int64_t n) {
  const int64_t k = m < n ? m : n;
  void *a = room(dtype, m * n), *lu = room(dtype, m * n);
  int *pivots = calloc((size_t)k + 1, sizeof *pivots), info = -1;
  for (int64_t i = 0; i < m * n; i++) {
    const double v = uniform();
    put(dtype, a, i, v);
    put(dtype, lu, i, v);
  }
  if (CHECK_OK(ctx, nyx__lu(ctx, dtype, 1, m, n, lu, pivots, &info))) {
    const double error = lu_residual(dtype, m, n, lu, pivots, a);
    CHECK_INT(info, 0);
    CHECK_AT(error < 4 * (double)k * epsilon(dtype), "L U", " of %dx%d: %g", (int)m,
             (int)n, error);
  }
  /* a column of zeros: U's diagonal is zero there, and the rest goes on */
  for (int64_t i = 0; i < m; i++) put(dtype, a, (k - 1) / 2 * m + i, 0);
  if (CHECK_OK(ctx, nyx__lu(ctx, dtype, 1, m, n, a, pivots, &info)))
    CHECK_INT(info, (k - 1) / 2 + 1);
  /* what is not a number leads nowhere */
  for (int64_t i = 0; i < m * n; i++) put(dtype, a, i, i % 3 ? NAN : INFINITY);
  if (CHECK_OK(ctx, nyx__lu(ctx, dtype, 1, m, n, a, pivots, &info)))
    for (int64_t i = 0; i < k; i++) CHECK(pivots[i] > i && pivots[i] <= m);
  free(pivots);
  free(a);
  free(lu);
}

static void lus(void) {
  for (int t = 0; t < 2 * SIZES; t++) {
    const nyx_dtype dtype = t % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    one_lu(dtype, sizes[t / 2], sizes[t / 2]);
    one_lu(dtype, sizes[t / 2], 300);
    one_lu(dtype, 300, sizes[t / 2]);
  }
}

/* Matrices that go by lanes: as many that the last lanes have none, or all one. */

static const int64_t few[] = {1, 2, 3, 7, 8, 13, 16, 31, 33, 64};
enum { FEW = sizeof few / sizeof *few, MANY = 67 };

static void small_choleskys(void) {
  for (int t = 0; t < 2 * FEW; t++) {
    const nyx_dtype dtype = t % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    const int64_t n = few[t / 2], size = n * n;
    const size_t bytes = (size_t)size * nyx_dtype_size(dtype);
    char *all = calloc(MANY, bytes), *l = calloc(MANY, bytes);
    int info[MANY];
    for (int e = 0; e < MANY; e++) {
      void *a = definite(dtype, n);
      memcpy(all + (size_t)e * bytes, a, bytes);
      free(a);
    }
    memcpy(l, all, MANY * bytes);
    for (int e = 0; e < MANY; e++) /* one in three fails */
      if (e % 3 == 2) put(dtype, l, e * size + (e % n) * (n + 1), e % 2 ? -1 : NAN);
    if (CHECK_OK(ctx, nyx__cholesky(ctx, dtype, MANY, n, l, info)))
      for (int e = 0; e < MANY; e++) {
        CHECK_INT(info[e], e % 3 == 2 ? e % n + 1 : 0);
        if (e % 3 == 2) continue;
        const double error =
            cholesky_residual(dtype, n, l + (size_t)e * bytes, all + (size_t)e * bytes);
        CHECK_AT(error < 4 * epsilon(dtype), "L L^T", " of %d: %g", (int)n, error);
        for (int64_t i = 0; i + 1 < n; i++)
          CHECK(value(dtype, l, e * size + i * n + i + 1) == 0);
      }
    free(all);
    free(l);
  }
}

static void small_lu(nyx_dtype dtype, int64_t m, int64_t n) {
  const int64_t k = m < n ? m : n, size = m * n;
  const size_t item = nyx_dtype_size(dtype);
  void *a = room(dtype, MANY * size), *lu = room(dtype, MANY * size);
  int *pivots = calloc(MANY * (size_t)k, sizeof *pivots), info[MANY];
  for (int64_t i = 0; i < MANY * size; i++) {
    const int64_t e = i / size, column = i % size / m;
    double v = uniform();
    if (e % 3 == 1 && column == e % k) v = 0;
    if (e % 5 == 4) v = i % 3 ? NAN : INFINITY;
    if (e % 5 == 3) v = v > 0 ? 1 : -1; /* the first of many */
    put(dtype, a, i, v);
    put(dtype, lu, i, v);
  }
  if (CHECK_OK(ctx, nyx__lu(ctx, dtype, MANY, m, n, lu, pivots, info)))
    for (int64_t e = 0; e < MANY; e++) {
      const int *own = pivots + e * k;
      for (int64_t i = 0; i < k; i++) CHECK(own[i] > i && own[i] <= m);
      if (e % 5 >= 3) continue;
      const size_t at = (size_t)(e * size) * item;
      const double error = lu_residual(dtype, m, n, (char *)lu + at, own, (char *)a + at);
      CHECK_INT(info[e], e % 3 == 1 ? e % k + 1 : 0);
      CHECK_AT(error < 4 * (double)k * epsilon(dtype), "L U", " of %dx%d: %g", (int)m,
               (int)n, error);
      for (int64_t j = 0; j < k; j++) /* the greatest were taken */
        for (int64_t i = j + 1; i < m; i++)
          CHECK(fabs(value(dtype, lu, e * size + j * m + i)) <= 1);
    }
  free(pivots);
  free(a);
  free(lu);
}

static void small_lus(void) {
  for (int t = 0; t < 2 * FEW; t++) {
    const nyx_dtype dtype = t % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    small_lu(dtype, few[t / 2], few[t / 2]);
    small_lu(dtype, few[t / 2], 9);
    small_lu(dtype, 9, few[t / 2]);
  }
}

/* The largest element of A x - b, or x A - b, of one x. */
UNTRACED static double solve_residual(const nyx__triangular *t, int64_t e,
                                      const void *b) {
  const int64_t n = t->left ? t->rows : t->cols, k = t->left ? t->cols : t->rows;
  double worst = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < k; c++) {
      const int64_t size = n * k, first = e * size;
      double sum = -value(t->dtype, b, first + (t->left ? i * k + c : c * n + i));
      for (int64_t l = 0; l < n; l++) {
        const int64_t row = t->left ? i : l, column = t->left ? l : i;
        if (t->upper ? column < row : column > row) continue;
        const double a = t->unit && row == column
                             ? 1
                             : value(t->dtype, t->a,
                                     t->at[e] + (t->turned ? column * t->ld + row
                                                           : row * t->ld + column));
        sum += a * value(t->dtype, t->x, first + (t->left ? l * k + c : c * n + l));
      }
      worst = fmax(worst, fabs(sum));
    }
  return worst;
}

static void small_triangles(void) {
  for (int t = 0; t < 32 * FEW; t++) {
    const nyx_dtype dtype = t % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    const int64_t n = few[t / 32], k = t % 3 ? 1 + t % 9 : 40;
    int64_t at[MANY];
    void *a = definite(dtype, n), *two = room(dtype, 2 * n * n);
    void *x = room(dtype, MANY * n * k), *b = room(dtype, MANY * n * k);
    for (int64_t i = 0; i < n * n; i++) {
      const double v = value(dtype, a, i) / (double)n;
      put(dtype, two, i, v);
      put(dtype, two, n * n + i, i % (n + 1) ? -v : v);
    }
    for (int e = 0; e < MANY; e++) at[e] = e % 2 * n * n;
    for (int64_t i = 0; i < MANY * n * k; i++) put(dtype, b, i, uniform());
    memcpy(x, b, (size_t)(MANY * n * k) * nyx_dtype_size(dtype));
    const bool left = (t & 2) != 0;
    const nyx__triangular job = {.dtype = dtype,
                                 .count = MANY,
                                 .rows = left ? n : k,
                                 .cols = left ? k : n,
                                 .a = two,
                                 .at = at,
                                 .ld = n,
                                 .turned = t & 4,
                                 .upper = t & 8,
                                 .left = left,
                                 .unit = t & 16,
                                 .x = x};
    if (CHECK_OK(ctx, nyx__solve_triangles(ctx, &job)))
      for (int e = 0; e < MANY; e++) {
        const double error = solve_residual(&job, e, b);
        CHECK_AT(error < 16 * epsilon(dtype), "A x - b", " of %d, case %d: %g", (int)n, t,
                 error);
      }
    free(a);
    free(two);
    free(x);
    free(b);
  }
}

/* Triangles in a larger matrix, around the sizes of blocks, for sides around lanes. */
UNTRACED_CHECK static void large_triangles(void) {
  static const int64_t orders[] = {1, 7, 16, 17, 127, 128, 129, 200, 300};
  static const int64_t sides[] = {15, 16, 17, 40, 131};
  const int all = (int)(sizeof orders / sizeof *orders * 32);
  for (int t = 0; t < all; t++) {
    const nyx_dtype dtype = t % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    const int64_t n = orders[t / 32], k = sides[t % 5], ld = n + t % 3, at = t % 7;
    void *a = room(dtype, n * ld + at), *x = room(dtype, n * k), *b = room(dtype, n * k);
    for (int64_t i = 0; i < n * ld + at; i++) put(dtype, a, i, NAN); /* not read */
    const bool left = (t & 2) != 0, turned = t & 4, upper = t & 8, unit = t & 16;
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++)
        if (i == j ? !unit : (upper ? j > i : j < i))
          put(dtype, a, at + (turned ? j * ld + i : i * ld + j),
              i == j ? 1 + uniform() / 4 : uniform() / (double)n);
    for (int64_t i = 0; i < n * k; i++) put(dtype, b, i, uniform());
    memcpy(x, b, (size_t)(n * k) * nyx_dtype_size(dtype));
    const nyx__triangular job = {.dtype = dtype,
                                 .count = 1,
                                 .rows = left ? n : k,
                                 .cols = left ? k : n,
                                 .a = a,
                                 .at = &at,
                                 .ld = ld,
                                 .turned = turned,
                                 .upper = upper,
                                 .left = left,
                                 .unit = unit,
                                 .x = x};
    if (CHECK_OK(ctx, nyx__solve_triangles(ctx, &job))) {
      const double error = solve_residual(&job, 0, b);
      CHECK_AT(error < 16 * epsilon(dtype), "A x - b", " of %d, case %d: %g", (int)n, t,
               error);
    }
    free(a);
    free(x);
    free(b);
  }
}

/* The largest element of A x - b, of MANY that take the matrices at[e], by columns. */
UNTRACED static double solution_residual(nyx_dtype dtype, int64_t n, int64_t k,
                                         const void *a, const int64_t *at, const void *x,
                                         const void *b) {
  double worst = 0;
  for (int64_t i = 0; i < MANY * n * k; i++) {
    const int64_t e = i / (n * k), row = i / k % n;
    double sum = -value(dtype, b, i);
    for (int64_t l = 0; l < n; l++)
      sum +=
          value(dtype, a, at[e] + l * n + row) * value(dtype, x, (e * n + l) * k + i % k);
    worst = fmax(worst, fabs(sum));
  }
  return worst;
}

/* Every other x has the factors of the first matrix. */
static void small_solutions(void) {
  for (int t = 0; t < 2 * FEW; t++) {
    const nyx_dtype dtype = t % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    const int64_t n = few[t / 2], k = 1 + t % 5, size = n * n;
    void *a = room(dtype, MANY * size), *lu = room(dtype, MANY * size);
    void *x = room(dtype, MANY * n * k), *b = room(dtype, MANY * n * k);
    int *pivots = calloc(MANY * (size_t)n, sizeof *pivots), info[MANY];
    int64_t at[MANY];
    for (int64_t i = 0; i < MANY * size; i++) { /* large beside the diagonal */
      const int64_t row = i % n, column = i / n % n;
      put(dtype, a, i, uniform() / (double)n + (row == (column + i / size) % n ? 2 : 0));
    }
    for (int e = 0; e < MANY; e++) at[e] = e % 2 ? 0 : e * size;
    for (int64_t i = 0; i < MANY * n * k; i++) put(dtype, b, i, uniform());
    memcpy(lu, a, (size_t)(MANY * size) * nyx_dtype_size(dtype));
    memcpy(x, b, (size_t)(MANY * n * k) * nyx_dtype_size(dtype));
    nyx_status status = nyx__lu(ctx, dtype, MANY, n, n, lu, pivots, info);
    if (status == NYX_OK)
      status = nyx__lu_solve(ctx, dtype, MANY, n, k, lu, pivots, at, x);
    if (CHECK_OK(ctx, status)) {
      const double worst = solution_residual(dtype, n, k, a, at, x, b);
      CHECK_AT(worst < 16 * epsilon(dtype), "A x - b", " of %d: %g", (int)n, worst);
    }
    free(pivots);
    free(a);
    free(lu);
    free(x);
    free(b);
  }
}

/* The largest element of Y L L^T - I, in some rows. */
UNTRACED static double inverse_residual(nyx_dtype dtype, int64_t n, const void *l,
                                        const void *y) {
  double worst = 0, *row = calloc((size_t)n, sizeof *row);
  for (int64_t i = 0; i<n; i += n> 100 ? 37 : 1) {
    memset(row, 0, (size_t)n * sizeof *row);
    for (int64_t k = 0; k < n; k++)
      for (int64_t j = 0; j <= k; j++)
        row[j] += value(dtype, y, i * n + k) * value(dtype, l, k * n + j);
    for (int64_t j = 0; j < n; j++) {
      double sum = i == j ? -1 : 0;
      for (int64_t k = 0; k <= j; k++) sum += row[k] * value(dtype, l, j * n + k);
      worst = fmax(worst, fabs(sum));
      CHECK(value(dtype, y, i * n + j) == value(dtype, y, j * n + i));
    }
  }
  free(row);
  return worst;
}

static void inverses_of(nyx_dtype dtype, int64_t count, int64_t n) {
  const size_t bytes = (size_t)(n * n) * nyx_dtype_size(dtype);
  char *l = malloc((size_t)count * bytes + 1), *y = malloc((size_t)count * bytes + 1);
  for (int64_t e = 0; e < count; e++) {
    void *a = definite(dtype, n);
    for (int64_t i = 0; i < n * n; i++) /* what is above is not read */
      put(dtype, a, i, i % n > i / n ? NAN : value(dtype, a, i) / (double)n);
    memcpy(l + (size_t)e * bytes, a, bytes);
    free(a);
  }
  if (CHECK_OK(ctx, nyx__cholesky_inverse(ctx, dtype, count, n, l, y)))
    for (int64_t e = 0; e < count; e++) {
      const double error =
          inverse_residual(dtype, n, l + (size_t)e * bytes, y + (size_t)e * bytes);
      CHECK_AT(error < 16 * epsilon(dtype), "Y L L^T", " of %d: %g", (int)n, error);
    }
  free(l);
  free(y);
}

static void inverses(void) {
  for (int t = 0; t < 2 * SIZES; t++)
    inverses_of(t % 2 ? NYX_FLOAT64 : NYX_FLOAT32, 1, sizes[t / 2]);
  for (int t = 0; t < 2 * FEW; t++)
    inverses_of(t % 2 ? NYX_FLOAT64 : NYX_FLOAT32, MANY, few[t / 2]);
  for (int t = 0; t < 2; t++) inverses_of(t % 2 ? NYX_FLOAT64 : NYX_FLOAT32, 17, 130);
}

/* The largest element of Y A - I, in some rows. */
UNTRACED static double general_residual(nyx_dtype dtype, int64_t count, int64_t n,
                                        const void *a, const void *y) {
  double worst = 0;
  for (int64_t i = 0; i<count * n; i += n> 100 ? 29 : 1)
    for (int64_t j = 0; j < n; j++) {
      double sum = i % n == j ? -1 : 0;
      for (int64_t l = 0; l < n; l++)
        sum += value(dtype, y, i * n + l) * value(dtype, a, (i / n * n + l) * n + j);
      worst = fmax(worst, fabs(sum));
    }
  return worst;
}

/* Inverses of matrices whose rows are exchanged, each by another number. */
static void general_inverses_of(nyx_dtype dtype, int64_t count, int64_t n) {
  const size_t bytes = (size_t)(n * n) * nyx_dtype_size(dtype);
  char *a = malloc((size_t)count * bytes + 1), *y = malloc((size_t)count * bytes + 1);
  char *lu = malloc((size_t)count * bytes + 1);
  int *pivots = calloc((size_t)(count * n + 1), sizeof *pivots);
  int *info = calloc((size_t)count, sizeof *info);
  for (int64_t i = 0; i < count * n * n; i++)
    put(dtype, a, i,
        uniform() / (double)n + (i % n == (i / n + i / n / n + 1) % n ? 2 : 0));
  memcpy(lu, a, (size_t)count * bytes);
  if (CHECK_OK(ctx, nyx__inverse(ctx, dtype, count, n, lu, pivots, info, y))) {
    const double worst = general_residual(dtype, count, n, a, y);
    CHECK_AT(worst < 16 * epsilon(dtype), "Y A - I", " of %d: %g", (int)n, worst);
  }
  for (int64_t e = 0; e < count; e++) CHECK(info[e] == 0);
  free(info);
  free(pivots);
  free(lu);
  free(y);
  free(a);
}

static void general_inverses(void) {
  for (int t = 0; t < 2 * SIZES; t++)
    general_inverses_of(t % 2 ? NYX_FLOAT64 : NYX_FLOAT32, 1, sizes[t / 2]);
  for (int t = 0; t < 2 * FEW; t++)
    general_inverses_of(t % 2 ? NYX_FLOAT64 : NYX_FLOAT32, MANY, few[t / 2]);
  for (int t = 0; t < 2; t++)
    general_inverses_of(t % 2 ? NYX_FLOAT64 : NYX_FLOAT32, 17, 130);
}

/* An input far from singular, and symmetric. */
static nyx_tensor *matrices(int ndim, const int64_t *shape, bool grad) {
  nyx_tensor *t;
  const int64_t n = shape[ndim - 1];
  must(nyx_tensor_empty(ctx, NYX_FLOAT64, ndim, shape, &t));
  double *x = nyx_tensor_data(t);
  for (int64_t i = 0; i < nyx_tensor_numel(t); i++)
    x[i] = i / n % n == i % n ? (double)n : 1 / (double)(1 + i / n % n + i % n);
  must(nyx_tensor_set_requires_grad(ctx, t, grad));
  return t;
}

static const char *const ops[] = {
    "cholesky", "cholesky_inverse", "lu_factor", "qr", "determinant", "inverse", "lstsq",
    "solve",    "solve_triangular"};
enum { OPS = sizeof ops / sizeof *ops };

static int inputs_of(const char *name) {
  return strncmp(name, "solve", 5) == 0 || strcmp(name, "lstsq") == 0 ? 2 : 1;
}

/* One call, and its gradient where `backward`. */
static nyx_status once(const char *name, nyx_tensor *a, bool backward,
                       nyx_tensor **result) {
  nyx_tensor *in[] = {a, a}, *out[NYX_MAX_OUTPUTS] = {NULL}, *seed = NULL;
  const nyx_value upper = NYX_I(1), *attr = NULL;
  nyx_value attrs[4] = {upper, NYX_I(1), NYX_I(0), NYX_I(0)};
  if (strcmp(name, "solve_triangular") == 0) attr = attrs;
  nyx_status status = nyx_apply(ctx, nyx_op_find(name), in, inputs_of(name), attr, out);
  nyx_tensor *y = out[0];
  if (status == NYX_OK && backward) {
    status = nyx_tensor_empty(ctx, NYX_FLOAT64, nyx_tensor_ndim(y), nyx_tensor_shape(y),
                              &seed);
    for (int64_t i = 0; status == NYX_OK && i < nyx_tensor_numel(seed); i++)
      ((double *)nyx_tensor_data(seed))[i] = 1;
    if (status == NYX_OK) status = nyx_backward_run(ctx, y, seed, NULL);
    CHECK_OK(ctx, nyx_tensor_set_grad(ctx, a, NULL));
  }
  nyx_tensor_release(seed);
  if (result) *result = nyx_tensor_retain(y);
  for (int i = 0; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(out[i]);
  return status;
}

static size_t live(void) {
  nyx_memory_stats s;
  nyx_memory_get_stats(&s);
  return s.live;
}

static void failing_allocations(void) {
  const int64_t large[] = {300, 300}, many[] = {20, 9, 9};
  for (int k = 0; k < 2 * OPS; k++) {
    const char *name = ops[k / 2];
    nyx_tensor *a = k % 2 ? matrices(2, large, true) : matrices(3, many, true);
    CHECK_OK(ctx, once(name, a, true, NULL));
    nyx_status status = NYX_ERR_MEMORY;
    for (int n = 0; status == NYX_ERR_MEMORY && n < 1000; n += CHECK_STEP) {
      const size_t before = live();
      nyx_memory_fail_after(n);
      status = once(name, a, true, NULL);
      nyx_memory_fail_after(-1);
      CHECK_AT(live() == before, "nothing leaks", ": %s, allocation %d", name, n);
    }
    CHECK_AT(status == NYX_OK, "it fails for memory alone", ": %s: %s", name,
             nyx_context_error(ctx));
    nyx_tensor_release(a);
  }
}

static void threads(void) {
  const int64_t shape[] = {600, 600};
  nyx_tensor *a = matrices(2, shape, false);
  for (int k = 0; k < OPS; k++) {
    nyx_tensor *one = NULL, *other = NULL;
    for (int n = 1; n <= 5; n += 2) {
      must(nyx_parallel_set_threads(n));
      must(once(ops[k], a, false, one ? &other : &one));
      CHECK_AT(!other || memcmp(nyx_tensor_data(one), nyx_tensor_data(other),
                                nyx_tensor_storage_bytes(one)) == 0,
               ops[k], " with %d threads", n);
      nyx_tensor_release(other);
      other = NULL;
    }
    nyx_tensor_release(one);
  }
  must(nyx_parallel_set_threads(0));
  nyx_tensor_release(a);
}

/* A host that asks to stop before the last range of the work number `ask_at`. */
static int works, ask_at;

static void asking_jobs(void *user, int64_t count, void (*job)(void *, int64_t),
                        void *arg) {
  for (int64_t i = 0; i < count; i++) {
    if (works == ask_at && i + 1 == count) nyx_context_interrupt((nyx_context *)user);
    job(arg, i);
  }
  works++;
}

static void interrupts(void) {
  const nyx_job_system host = {.run = asking_jobs, .user = ctx, .threads = 2};
  const int64_t large[] = {700, 700}, many[] = {200, 60, 60};
  for (int k = 0; k < 2 * OPS; k++) {
    const char *name = ops[k / 2];
    nyx_tensor *a = k % 2 ? matrices(2, large, false) : matrices(3, many, false);
    must(once(name, a, false, NULL));
    const size_t before = live();
    int stopped = 0;
    nyx_parallel_set_jobs(&host);
    for (ask_at = 0; ask_at < 100; ask_at += CHECK_STEP) {
      works = 0;
      nyx_status status = once(name, a, false, NULL);
      const bool used = !nyx_context_interrupted(ctx);
      stopped += status == NYX_ERR_INTERRUPTED;
      CHECK_AT(status == NYX_ERR_INTERRUPTED || status == NYX_OK, name, ": %s",
               nyx_context_error(ctx));
      CHECK_AT(used || status == NYX_OK, name, ": the request is used up");
      CHECK_AT(live() == before, name, ": nothing is left");
      if (works <= ask_at) break;
    }
    nyx_parallel_set_jobs(NULL);
    CHECK_AT(stopped > 0, name, " of %dx%d stops", (int)nyx_tensor_shape(a)[0],
             (int)nyx_tensor_shape(a)[1]);
    nyx_tensor_release(a);
  }
}

static void run(void) {
  const nyx_lapack *lapack;
  if (nyx__lapack(ctx, NYX_FLOAT32, &lapack) != NYX_OK) {
    check_skip("factor_test", nyx_context_error(ctx));
    return;
  }
  RUN(choleskys);
  RUN(lus);
  RUN(small_choleskys);
  RUN(small_lus);
  RUN(small_triangles);
  RUN(large_triangles);
  RUN(small_solutions);
  RUN(inverses);
  RUN(general_inverses);
  RUN(failing_allocations);
  RUN(threads);
  RUN(interrupts);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
