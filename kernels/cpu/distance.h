/* Distances of rows from rows, and their gradients, on one path. Read next:
 * distance_rows.h, core/op/distance.c. */
#ifndef NYX_KERNELS_CPU_DISTANCE_H
#define NYX_KERNELS_CPU_DISTANCE_H

#include <stdint.h>

typedef enum nyx_distance {
  NYX_DISTANCE_SUM,  /* of magnitudes, p = 1 */
  NYX_DISTANCE_ROOT, /* of the sum of squares, p = 2 */
  NYX_DISTANCE_MOST, /* the greatest magnitude, p = infinity */
  NYX_DISTANCES
} nyx_distance;

/* What `turned` is padded to, with zeros, in bytes: no path has longer vectors. */
#define NYX_DISTANCE_PAD 64

/* Rows of x, `width` elements each, and n others, which are turned: element k of the
 * j-th at turned[k * step + j], step a multiple of NYX_DISTANCE_PAD bytes. */
typedef struct nyx_distance_job {
  int64_t width, n, step;
  const void *x, *turned;
  void *out;      /* rows of n distances; of the gradient rows of `width` */
  const void *g;  /* the gradient of the distances, rows of n */
  const void *at; /* the distances; not read for the sum */
} nyx_distance_job;

/* Rows begin..end-1. */
typedef void (*nyx_distance_fn)(const nyx_distance_job *job, int64_t begin, int64_t end);

typedef struct nyx_distance_kernel {
  nyx_distance_fn forward[NYX_DISTANCES];
  nyx_distance_fn gradient[NYX_DISTANCES]; /* of the rows of x; where the root is 0, 0;
                                            * columns that are farthest share it */
} nyx_distance_kernel;

typedef struct nyx_distance_kernels {
  const nyx_distance_kernel *type[2]; /* float32, float64 */
} nyx_distance_kernels;

#endif
