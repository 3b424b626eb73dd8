/* The ids of the rows of reduce.def, in its order: NYX__REDUCE_sum. They index the kernel
 * tables of every device. Read next: reduce.def, core/op/reduce.c. */
#ifndef NYX_KERNELS_REDUCE_H
#define NYX_KERNELS_REDUCE_H

typedef enum nyx__reduce_id {
#define NYX_REDUCE(name, ...) NYX__REDUCE_##name,
#define NYX_REDUCE_PART(name, ...) NYX__REDUCE_##name,
#include "reduce.def"
#undef NYX_REDUCE
#undef NYX_REDUCE_PART
  NYX__REDUCE_COUNT
} nyx__reduce_id;

#endif
