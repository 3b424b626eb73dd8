/* Max pooling of planes. Read next: pool_type.h, core/op/pool.c. */
#ifndef NYX_KERNELS_CPU_POOL_H
#define NYX_KERNELS_CPU_POOL_H

#include <stdint.h>

/* Of {height, width}: output o sees the inputs o * stride - pad + t * dilation for
 * t = 0..kernel-1 that are inside; where there are none, it is -infinity at base. */
typedef struct nyx_max_pool {
  int64_t in[2], out[2], kernel[2], stride[2], pad[2], dilation[2];
} nyx_max_pool;

/* For float32 and float64: the greatest elements, and where in the plane they were,
 * counted from base. The first of equal ones counts; a NaN is greatest. */
typedef struct nyx_pool_kernels {
  void (*max[2])(const nyx_max_pool *p, const void *from, int64_t base, void *to,
                 int64_t *index);
} nyx_pool_kernels;

#endif
