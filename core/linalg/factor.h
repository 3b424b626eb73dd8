/* Factorizations and solutions of batches of matrices, in place, shared by the threads:
 * one matrix is a piece of work where there are many or they are small, else each is
 * divided. All is decided by sizes, so results do not depend on the number of threads.
 * Matrices follow each other in memory without gaps; float32 or float64. All fail when
 * interrupted, where there is no LAPACK, and without memory. Read next: factor.c,
 * qr.c, lapack.h; core/op/cholesky.c, lu.c, qr.c, solve.c, the ops. */
#ifndef NYX_LINALG_FACTOR_H
#define NYX_LINALG_FACTOR_H

#include "lapack.h"

/* Of row-major symmetric matrices (n, n) the lower triangles become factors L, A = L L^T;
 * what lies above is not read, and becomes 0. info: one for each, 0 or the order (from 1)
 * of the first leading minor that is not positive. */
nyx_status nyx__cholesky(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t n,
                         void *a, int *info) NYX_MUST_CHECK;

/* The inverses of L L^T, symmetric, row-major; of L its lower triangle is read. Zeros on
 * a diagonal give infinities or what is not a number. */
nyx_status nyx__cholesky_inverse(nyx_context *ctx, nyx_dtype dtype, int64_t count,
                                 int64_t n, const void *l, void *out) NYX_MUST_CHECK;

/* Column-major matrices (m, n) become L, without its ones, and U of P L U = A. pivots:
 * min(m, n) for each matrix; row i was exchanged with row pivots[i], both from 1, in
 * turn. info: 0, or the first (from 1) element of U's diagonal that is exactly 0. */
nyx_status nyx__lu(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t m, int64_t n,
                   void *a, int *pivots, int *info) NYX_MUST_CHECK;

/* Row-major x (n, k) become solutions of A x = b by column-major factors, those of matrix
 * i from element at[i] of lu on. */
nyx_status nyx__lu_solve(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t n,
                         int64_t k, const void *lu, const int *pivots, const int64_t *at,
                         void *x) NYX_MUST_CHECK;

/* Row-major matrices `a` become the factors of their transposes, as nyx__lu leaves them,
 * and out, row-major, the inverses. A matrix whose info is not 0 has none. */
nyx_status nyx__inverse(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t n,
                        void *a, int *pivots, int *info, void *out) NYX_MUST_CHECK;

/* The first k columns, k <= min(m, q), of column-major matrices q (m, q_cols) hold A's;
 * or, where `r` holds A itself (m <= n), they are found there. Afterwards r, column-major
 * (r_rows, n), is upper triangular, and the columns of q, unless it is NULL, are
 * orthonormal; A = q r. */
typedef struct nyx__qr_job {
  nyx_dtype dtype;
  int64_t count, m, n;
  void *a;        /* A, (m, n) without gaps; a_step elements from one to the next */
  int64_t a_step; /* may lie in q or be r */
  void *q;        /* (m, q_cols), or NULL */
  int64_t q_cols;
  void *r; /* (r_rows, n) */
  int64_t r_rows;
  void *b; /* (m, b_cols), column-major, or NULL; becomes Q^T b, without q */
  int64_t b_cols;
} nyx__qr_job;
nyx_status nyx__qr(nyx_context *ctx, const nyx__qr_job *job) NYX_MUST_CHECK;

/* Row-major x (rows, cols) become solutions of A x = b (left) or x A = b. The matrix of
 * x number i begins at element at[i] of a; its rows, or its columns (`turned`), are ld
 * elements apart, the elements in them side by side. */
typedef struct nyx__triangular {
  nyx_dtype dtype;
  int64_t count, rows, cols;
  const void *a;
  const int64_t *at;
  int64_t ld;
  bool turned, upper, left, unit;
  void *x;
} nyx__triangular;
nyx_status nyx__solve_triangles(nyx_context *ctx,
                                const nyx__triangular *t) NYX_MUST_CHECK;

#endif
