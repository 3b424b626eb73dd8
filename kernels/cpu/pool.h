/* Pooling of planes. Read next: pool_type.h, pool_average_type.h, core/op/pool.c. */
#ifndef NYX_KERNELS_CPU_POOL_H
#define NYX_KERNELS_CPU_POOL_H

#include <stdint.h>

/* Of {height, width}: output o sees the inputs o * stride - pad + t * dilation for
 * t = 0..kernel-1 that are inside; where there are none, it is -infinity at base. */
typedef struct nyx_max_pool {
  int64_t in[2], out[2], kernel[2], stride[2], pad[2], dilation[2];
} nyx_max_pool;

/* The inputs lo..hi-1 of a position of an average, and what their sum is divided by. */
typedef struct nyx_pool_box {
  int64_t lo, hi;
  double scale;
} nyx_pool_box;

/* Of {height, width}: out boxes, none of whose ends lies before that of the one before,
 * in planes of `in`. */
typedef struct nyx_average_pool {
  int64_t in[2], out[2];
  const nyx_pool_box *box[2];
} nyx_average_pool;

/* For float32 and float64. */
typedef struct nyx_pool_kernels {
  /* The greatest elements, and where in the plane they were, counted from base; NULL: not
   * where. The first of equal ones counts; a NaN is greatest. */
  void (*max[2])(const nyx_max_pool *p, const void *from, int64_t base, void *to,
                 int64_t *index);
  /* The means of boxes; the adjoint, from as many as boxes to a plane. */
  void (*average[2])(const nyx_average_pool *p, const void *from, void *to);
  void (*spread[2])(const nyx_average_pool *p, const void *from, void *to);
} nyx_pool_kernels;

#endif
