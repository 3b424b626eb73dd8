/* Kernels over rows of contiguous floats that the normalizations are made of. Moments are
 * softmax.h's. Read next: norm_rows.h, core/op/norm.c. */
#ifndef NYX_KERNELS_CPU_NORM_H
#define NYX_KERNELS_CPU_NORM_H

#include <stdbool.h>
#include <stdint.h>

/* What the gradient of one row is made of. */
typedef struct nyx_norm_row {
  double mean, p, q, r;
} nyx_norm_row;

#define NYX_NORM_ROWS 2 /* rows that go through `backward` together */

/* All of one float type. w and b may be NULL, for 1 and 0. Sums are of blocks of 1024
 * elements, added up in double. */
typedef struct nyx_norm_kernel {
  /* y = (x - mean) * scale * w + b + shift */
  void (*normalize)(const void *x, int64_t n, double mean, double scale, const void *w,
                    const void *b, double shift, void *y);
  /* *sum += the sum of g * w, *dot += that of g * w * (x - mean) */
  void (*sums)(const void *g, const void *x, const void *w, int64_t n, double mean,
               double *sum, double *dot);
  /* y = g * w * p + (x - mean) * q + r, for n columns of up to NYX_NORM_ROWS rows, which
   * are `step` elements apart, in y `y_step`: where y goes on is asked for, nothing where
   * both are 0, of one row. Where they differ, y is near, and the next rows of g and x
   * are asked for instead. Where w_sum is not NULL it receives g * (x - mean) * p, and
   * b_sum g, of these rows together: added to what is there, unless `first`. */
  void (*backward)(const void *g, const void *x, const void *w, int64_t n, int rows,
                   int64_t step, const nyx_norm_row *row, void *y, int64_t y_step,
                   void *w_sum, void *b_sum, bool first);
  double (*squares)(const void *x, int64_t n);    /* the sum of x * x */
  void (*add)(const void *x, int64_t n, void *y); /* y += x */
} nyx_norm_kernel;

typedef struct nyx_norm_kernels {
  const nyx_norm_kernel *type[2]; /* float32, float64 */
} nyx_norm_kernels;

#endif
