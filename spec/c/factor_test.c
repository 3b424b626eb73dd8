/* Factorizations of matrices around the sizes at which they are divided: residuals, what
 * is not a number, threads, requests to stop and failing allocations in the middle. What
 * ops make of them is in spec/lua/linalg_spec.lua. Read next: core/linalg/factor.c. */
#include "tensors.h"

#include <float.h>
#include <math.h>
#include <nyx/parallel.h>

#include "core/linalg/factor.h"

/* Below, at and above BLOCKED and PANEL of factor.c, and more than a TILE or CHUNK. */
static const int64_t sizes[] = {1, 2, 63, 255, 256, 257, 384, 385, 520, 641};
enum { SIZES = sizeof sizes / sizeof *sizes };

static double value(nyx_dtype dtype, const void *p, int64_t i) {
  return dtype == NYX_FLOAT64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

static void put(nyx_dtype dtype, void *p, int64_t i, double v) {
  if (dtype == NYX_FLOAT64)
    ((double *)p)[i] = v;
  else
    ((float *)p)[i] = (float)v;
}

static double uniform(void) {
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

static const char *const ops[] = {"cholesky",    "lu_factor", "qr",
                                  "determinant", "solve",     "solve_triangular"};
enum { OPS = sizeof ops / sizeof *ops };

static int inputs_of(const char *name) {
  return strncmp(name, "solve", 5) == 0 ? 2 : 1;
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
    for (int n = 0; status == NYX_ERR_MEMORY && n < 1000; n++) {
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
    for (ask_at = 0; ask_at < 100; ask_at++) {
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

int main(void) {
  const nyx_lapack *lapack;
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  if (nyx__lapack(ctx, NYX_FLOAT32, &lapack) != NYX_OK) {
    check_skip("factor_test", nyx_context_error(ctx));
    return check_done();
  }
  RUN(choleskys);
  RUN(lus);
  RUN(failing_allocations);
  RUN(threads);
  RUN(interrupts);
  nyx_context_free(ctx);
  return check_done();
}
