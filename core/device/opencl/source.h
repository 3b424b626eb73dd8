/* OpenCL C printed from rows. Read next: source.c, opencl.h. */
#ifndef NYX_DEVICE_OPENCL_SOURCE_H
#define NYX_DEVICE_OPENCL_SOURCE_H

#include "../device.h"

/* How the kernels see their operands: sizes and strides in elements, operand 5 the
 * output. The same declaration opens every source, with int in narrow ones. */
#define NYX_CL_OPERANDS 6
typedef struct nyx_cl_geometry {
  int64_t n, ndim;
  int64_t shape[NYX_MAX_DIMS];
  int64_t stride[NYX_CL_OPERANDS][NYX_MAX_DIMS];
  int64_t offset[NYX_CL_OPERANDS];
} nyx_cl_geometry;

/* Work-items in a group; groups of a reduction beyond which it is not cut further. */
#define NYX_CL_GROUP 256
#define NYX_CL_GROUPS 1024

/* The dialect as text: kernels/dialect/gpu.h, and special.h, which floats have besides;
 * embedded by the build. */
extern const char nyx__gpu_dialect[], nyx__gpu_special[];

typedef struct nyx_cl_form {
  bool narrow;   /* counts and places are int, not long */
  bool in_order; /* element i of every operand is i elements behind its first */
} nyx_cl_form;

/* Sources in memory from nyx_memory_alloc; NULL when there is none. The kernel is named
 * "run". An elementwise kernel takes the used inputs in order (a buffer, or a T where
 * `number` has the bit), the output, the geometry, p and q; a work-item for an element.
 */
char *nyx__cl_elementwise_source(const nyx_elementwise *job, unsigned number,
                                 const nyx_cl_form *form);

/* A reduction is one kernel over the input, or one that leaves accumulators of parts and
 * one that merges these. */
typedef enum nyx_cl_pass { NYX_CL_WHOLE, NYX_CL_PARTS, NYX_CL_MERGE } nyx_cl_pass;

/* A group is `down` work-items for each of NYX_CL_GROUP / down results side by side;
 * neighbours are along the reduced elements (`rows`) or the results. Group i takes
 * elements (i / blocks) * length .. + length - 1 of results from i % blocks on. The
 * kernel takes the source; parts, or the result and the positions, as the job has them;
 * local memory for an accumulator of each work-item; the geometries of the kept and of
 * the reduced dimensions; blocks, down, length, rows; and, for results, the count n, p,
 * the index base; and the job's centre, if it has one. In kept.offset are the input's
 * offset (0), the positions' (1), the centre's (2), the result's (5). */
char *nyx__cl_reduce_source(const nyx_reduction *job, nyx_cl_pass pass, bool narrow);

/* The bytes of an accumulator there. */
size_t nyx__cl_accumulator(const nyx_reduction *job, bool narrow);

#endif
