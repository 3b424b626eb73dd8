/* The BLAS found at run time: OpenBLAS, or whatever NYX_BLAS names. Read next: blas.c;
 * gemm.h, which decides when to use it; lapack.h, for what else is in its library. */
#ifndef NYX_LINALG_BLAS_H
#define NYX_LINALG_BLAS_H

#include <nyx/device.h>

/* Values of cblas.h. */
enum { NYX_BLAS_ROW_MAJOR = 101, NYX_BLAS_PLAIN = 111, NYX_BLAS_TRANSPOSED = 112 };

typedef struct nyx_blas {
  void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                const float *a, int lda, const float *b, int ldb, float beta, float *c,
                int ldc);
  void (*dgemm)(int order, int trans_a, int trans_b, int m, int n, int k, double alpha,
                const double *a, int lda, const double *b, int ldb, double beta,
                double *c, int ldc);
} nyx_blas;

/* Opens it on the first call, from any thread; NULL when there is none. */
const nyx_blas *nyx__blas(void);
/* Another function of that library, written to *function; false: it has none, or there is
 * no library. */
bool nyx__blas_symbol(const char *name, void *function);

#endif
