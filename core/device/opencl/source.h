/* OpenCL C printed from rows. Read next: source.c, opencl.c. */
#ifndef NYX_DEVICE_OPENCL_SOURCE_H
#define NYX_DEVICE_OPENCL_SOURCE_H

#include "../device.h"

/* How the kernels see their operands: sizes and strides in elements, operand 5 the
 * output. The same declaration opens every source. */
#define NYX_CL_OPERANDS 6
typedef struct nyx_cl_geometry {
  int64_t n, ndim;
  int64_t shape[NYX_MAX_DIMS];
  int64_t stride[NYX_CL_OPERANDS][NYX_MAX_DIMS];
  int64_t offset[NYX_CL_OPERANDS];
} nyx_cl_geometry;

/* Work-items in a group of a reduction, and groups of its first pass at most. */
#define NYX_CL_GROUP 256
#define NYX_CL_GROUPS 1024

/* The dialect as text: kernels/dialect/gpu.h, embedded by the build. */
extern const char nyx__gpu_dialect[];

/* Sources in memory from nyx_memory_alloc; NULL when there is none. The kernel is named
 * "run". An elementwise kernel takes the used inputs in order (a buffer, or a T where
 * `number` has the bit), the output, the geometry, p and q. */
char *nyx__cl_elementwise_source(const nyx_elementwise *job, unsigned number);
/* Pass 0 reads `in` and writes one accumulator per group; pass 1 reads these and writes
 * the result. Both take: source, destination, local memory, geometry, count n, p. */
char *nyx__cl_reduce_source(const nyx_reduction *job, int pass);
/* A reduction over some dimensions, one work-item for each result. Takes: source,
 * destination, the geometry of the kept dimensions and of the reduced ones, count n, p.
 */
char *nyx__cl_reduce_dims_source(const nyx_reduction *job);

#endif
