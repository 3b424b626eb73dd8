/* Factors of small matrices and solutions by them, one matrix in each lane of a vector,
 * and solutions of many right-hand sides by one triangle, on one path. Read next:
 * matrices_type.h, triangle_type.h, core/linalg/factor.c. */
#ifndef NYX_KERNELS_CPU_MATRICES_H
#define NYX_KERNELS_CPU_MATRICES_H

#include "cpu.h"

#define NYX_MATRICES_LANES 16 /* at most */
#define NYX_MATRICES_ROWS 64  /* at most, of what is factored or solved with */

typedef struct nyx_matrices {
  int count; /* matrices, up to the lanes; those behind them are the first once more */
  int64_t m, n;
  /* Of each lane (m, n), column-major for LU, row-major (n, n) for Cholesky; a triangle
   * with its rows, or its columns (`turned`), one after the other. */
  void *a[NYX_MATRICES_LANES];
  int *pivots[NYX_MATRICES_LANES], *info[NYX_MATRICES_LANES]; /* as factor.h has them */
  bool turned, upper, unit;
  /* Right-hand sides, row-major (n, k), or (k, n) where A is on the right: not `left`. */
  bool left;
  int64_t k;
  void *x[NYX_MATRICES_LANES];
  bool lu;    /* a holds L and U, as the factorization left them: solves with both */
  void *room; /* a vector for every element of a and x, aligned as they are */
} nyx_matrices;

/* A triangle (n, n) of any strides, in elements, and right-hand sides (n, count), rows
 * x_ld elements apart, which become solutions of A x = b. A zero on the diagonal gives
 * infinities and what is not a number. */
#define NYX_TRIANGLE_ROWS 128 /* at most */
#define NYX_TRIANGLE_ROOM                                                                \
  (NYX_TRIANGLE_ROWS * (NYX_TRIANGLE_ROWS + 16) / 2) /* elements */
typedef struct nyx_triangle {
  const void *a;
  int64_t n, a_rs, a_cs;
  bool upper, unit; /* unit: ones on the diagonal, which is not read */
  void *x;
  int64_t x_ld, count;
  void *room;
} nyx_triangle;

typedef struct nyx_matrices_kernels {
  int lanes[2]; /* of float32, float64 */
  void (*lu[2])(const nyx_matrices *j);
  void (*cholesky[2])(const nyx_matrices *j);
  void (*solve[2])(const nyx_matrices *j);
  void (*triangle[2])(const nyx_triangle *t);
} nyx_matrices_kernels;

#endif
