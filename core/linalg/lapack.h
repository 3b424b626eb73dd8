/* LAPACK, from the library that the BLAS is in: nothing is linked. Matrices are
 * column-major, arguments addresses, integers 32 bits wide, positions from 1. Read next:
 * blas.h, factor.h. */
#ifndef NYX_LINALG_LAPACK_H
#define NYX_LINALG_LAPACK_H

#include <stddef.h>

#include "../tensor/tensor.h"

/* The routines of one type, by LAPACK's names for them. Fortran passes the length of
 * every text behind all arguments. */
typedef struct nyx_lapack {
  void (*potrf)(const char *uplo, const int *n, void *a, const int *lda, int *info,
                size_t);
  void (*getrf)(const int *m, const int *n, void *a, const int *lda, int *ipiv,
                int *info);
  void (*laswp)(const int *n, void *a, const int *lda, const int *k1, const int *k2,
                const int *ipiv, const int *incx);
  void (*geqrf)(const int *m, const int *n, void *a, const int *lda, void *tau,
                void *work, const int *lwork, int *info);
  void (*orgqr)(const int *m, const int *n, const int *k, void *a, const int *lda,
                const void *tau, void *work, const int *lwork, int *info);
  void (*ormqr)(const char *side, const char *trans, const int *m, const int *n,
                const int *k, const void *a, const int *lda, const void *tau, void *c,
                const int *ldc, void *work, const int *lwork, int *info, size_t, size_t);
  void (*larft)(const char *direct, const char *storev, const int *n, const int *k,
                const void *v, const int *ldv, const void *tau, void *t, const int *ldt,
                size_t, size_t);
  void (*larfb)(const char *side, const char *trans, const char *direct,
                const char *storev, const int *m, const int *n, const int *k,
                const void *v, const int *ldv, const void *t, const int *ldt, void *c,
                const int *ldc, void *work, const int *ldwork, size_t, size_t, size_t,
                size_t);
  void (*trsm)(const char *side, const char *uplo, const char *trans, const char *diag,
               const int *m, const int *n, const void *alpha, const void *a,
               const int *lda, void *b, const int *ldb, size_t, size_t, size_t, size_t);
} nyx_lapack;

/* Those of float32 or float64. Fails with UNSUPPORTED where there are none. */
nyx_status nyx__lapack(nyx_context *ctx, nyx_dtype dtype,
                       const nyx_lapack **out) NYX_MUST_CHECK;

#endif
