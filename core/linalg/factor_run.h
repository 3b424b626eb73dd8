/* What the files of factorizations share: sizes, and from which on a matrix is divided.
 * Read next: factor.c, matrices.c, qr.c. */
#ifndef NYX_LINALG_FACTOR_RUN_H
#define NYX_LINALG_FACTOR_RUN_H

#include "factor.h"

/* Multiplications that are worth waking a thread for. */
#define RANGE ((int64_t)1 << 19)
/* So many matrices are shared whole; fewer are divided, from BLOCKED rows on. */
#define ENOUGH 16
#define BLOCKED 256

static inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static inline int64_t parts(int64_t size, int64_t part) {
  return (size + part - 1) / part;
}

/* Pieces of `work` multiplications that make a range. */
static inline int64_t grain(double work) {
  return work >= (double)RANGE ? 1 : (int64_t)((double)RANGE / (work + 1)) + 1;
}

/* Matrices that are factored or solved with in lanes: nyx__in_lanes says of which number
 * and sizes that is. With x solutions, (n, k) or (k, n): by a triangle, or, where there
 * are pivots, by L and U; without, pivots: LU, none: Cholesky's factors. */
typedef struct nyx__small {
  nyx_dtype dtype;
  int64_t count, m, n, k;
  void *a;
  const int64_t *at; /* where in a the matrix of each x begins; NULL: one after another */
  int *pivots, *info;
  bool turned, upper, unit, left; /* as nyx__triangular has them */
  void *x;
} nyx__small;
bool nyx__in_lanes(int64_t count, int64_t rows, int64_t cols, int64_t k);
nyx_status nyx__small_run(nyx_context *ctx, const nyx__small *s) NYX_MUST_CHECK;

static inline double number(nyx_dtype dtype, const void *p) {
  return dtype == NYX_FLOAT64 ? *(const double *)p : (double)*(const float *)p;
}

#endif
