/* Kernels over rows of contiguous floats that the normalizations are made of. Moments are
 * softmax.h's. Read next: norm_type.h, core/op/norm.c. */
#ifndef NYX_KERNELS_CPU_NORM_H
#define NYX_KERNELS_CPU_NORM_H

#include <stdint.h>

/* All of one float type. w and b may be NULL, for 1 and 0. */
typedef struct nyx_norm_kernel {
  /* y = (x - mean) * scale * w + b + shift */
  void (*normalize)(const void *x, int64_t n, double mean, double scale, const void *w,
                    const void *b, double shift, void *y);
  /* *sum += the sum of g * w, *dot += that of g * w * (x - mean) */
  void (*sums)(const void *g, const void *x, const void *w, int64_t n, double mean,
               double *sum, double *dot);
  /* y = g * w * p + (x - mean) * q + r */
  void (*backward)(const void *g, const void *x, const void *w, int64_t n, double mean,
                   double p, double q, double r, void *y);
  /* w += g * (x - mean) * scale, b += g */
  void (*accumulate)(const void *g, const void *x, int64_t n, double mean, double scale,
                     void *w, void *b);
  double (*squares)(const void *x, int64_t n); /* the sum of x * x */
} nyx_norm_kernel;

typedef struct nyx_norm_kernels {
  nyx_norm_kernel type[2]; /* float32, float64 */
} nyx_norm_kernels;

#endif
