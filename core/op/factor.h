/* What the ops on square and other matrices share. Read next: cholesky.c, lu.c, qr.c,
 * solve.c, inverse.c, lstsq.c; core/linalg/factor.h, which computes them; steps.h, for
 * their gradients. */
#ifndef NYX_OP_FACTOR_H
#define NYX_OP_FACTOR_H

#include "../linalg/factor.h"
#include "../transform/batch.h"
#include "index.h"
#include "ops.h"
#include "steps.h"

#define NYX__FACTOR_DTYPES (NYX_DTYPES(NYX_FLOAT32) | NYX_DTYPES(NYX_FLOAT64))

/* Checks that `t` is a matrix, or a batch of them, of a size that LAPACK takes; square
 * ones. */
nyx_status nyx__matrix_check(nyx_context *ctx, const char *name, const nyx_tensor *t,
                             bool square) NYX_MUST_CHECK;
static inline int64_t nyx__rows(const nyx_tensor *t) {
  return t->shape[t->ndim - 2];
}
static inline int64_t nyx__columns(const nyx_tensor *t) {
  return t->shape[t->ndim - 1];
}
/* How many matrices there are. */
int64_t nyx__matrices(const nyx_tensor *t);
/* A view of t whose matrices have rows and columns exchanged. */
nyx_status nyx__matrices_turned(nyx_context *ctx, nyx_tensor *t,
                                nyx_tensor **out) NYX_MUST_CHECK;
/* Lays the matrices of spec out column-major, as LAPACK has them. */
void nyx__spec_columns(nyx_spec *spec);

/* `count` ints, cleared; freed with nyx_memory_free. At least one. */
nyx_status nyx__ints(nyx_context *ctx, int64_t count, int **out) NYX_MUST_CHECK;
/* The first of t's matrices for which info is not 0; -1: none. */
int64_t nyx__flawed(const nyx_tensor *t, const int *info);
/* Which one that is, for messages: "the matrix", "matrix (2, 1) of the batch". */
#define NYX__MATRIX_TEXT 96
const char *nyx__matrix_text(const nyx_context *ctx, const nyx_tensor *t, int64_t entry,
                             char text[NYX__MATRIX_TEXT]);

/* lu.c. Of square matrices `a`, which becomes LU, column-major: pivots, counted as the
 * context counts, and info (see nyx__lu), and LAPACK's own pivots (NULL: not wanted). */
nyx_status nyx__factor_lu(nyx_context *ctx, nyx_tensor *lu, nyx_tensor *pivots, int *own,
                          int *info) NYX_MUST_CHECK;
/* The gradient of A from that of its LU, with ops. */
nyx_status nyx__step_lu_gradient(nyx__steps *s, nyx_tensor *g, nyx_tensor *lu,
                                 nyx_tensor *pivots, nyx_tensor **out) NYX_MUST_CHECK;
/* A^-1 b and A^-T b by the factors of A, with ops. */
nyx_status nyx__step_lu_solution(nyx__steps *s, nyx_tensor *lu, nyx_tensor *pivots,
                                 nyx_tensor *b, nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__step_lu_adjoint(nyx__steps *s, nyx_tensor *lu, nyx_tensor *pivots,
                                nyx_tensor *b, nyx_tensor **out) NYX_MUST_CHECK;
/* qr.c. The gradient of A, not wide, from those of its q and r; NULL: zero. */
nyx_status nyx__step_qr_gradient(nyx__steps *s, nyx_tensor *q, nyx_tensor *r,
                                 nyx_tensor *gq, nyx_tensor *gr,
                                 nyx_tensor **out) NYX_MUST_CHECK;

#endif
