/* Products of complex numbers on one path. Read next: complex.c, core/op/complex_mul.c.
 */
#ifndef NYX_KERNELS_CPU_COMPLEX_H
#define NYX_KERNELS_CPU_COMPLEX_H

#include "cpu.h"

/* to[k] = x[k] y[k] of n numbers, which are pairs of floats; y conjugated with `conj`. A
 * step of 0 takes the same number for all. */
typedef struct nyx_complex_kernels {
  void (*multiply[2])(int64_t n, const void *x, int64_t x_step, const void *y,
                      int64_t y_step, bool conj, void *to); /* float32, float64 */
} nyx_complex_kernels;

#endif
