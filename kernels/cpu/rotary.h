/* Rotation of pairs of elements, each by an angle of its own: rotary embedding on one
 * path. Read next: rotary_type.h, core/op/rotary.c (who calls). */
#ifndef NYX_KERNELS_CPU_ROTARY_H
#define NYX_KERNELS_CPU_ROTARY_H

#include <stdint.h>

/* Over one float type. `sign` is 1, or -1 to rotate back. */
typedef struct nyx_rotary_kernel {
  /* to_a = a cos - b sin, to_b = b cos + a sin, n elements each */
  void (*halves)(int64_t n, const void *a, const void *b, const void *cos,
                 const void *sin, double sign, void *to_a, void *to_b);
  /* The same where a and b alternate: x and y have 2 n elements. */
  void (*pairs)(int64_t n, const void *x, const void *cos, const void *sin, double sign,
                void *y);
} nyx_rotary_kernel;

typedef struct nyx_rotary_kernels {
  nyx_rotary_kernel type[2]; /* float32, float64 */
} nyx_rotary_kernels;

#endif
