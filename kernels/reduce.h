/* The ids of the rows of reduce.def, in its order: NYX__REDUCE_sum. They index the kernel
 * tables of every device. Read next: reduce.def, core/op/reduce.c. */
#ifndef NYX_KERNELS_REDUCE_H
#define NYX_KERNELS_REDUCE_H

typedef enum nyx__reduce_id {
#define NYX_REDUCE(name, ...) NYX__REDUCE_##name,
#define NYX_REDUCE_PART(name, ...) NYX__REDUCE_##name,
#define NYX_REDUCE_ABOUT(name, ...) NYX__REDUCE_##name,
#include "reduce.def"
#undef NYX_REDUCE
#undef NYX_REDUCE_PART
#undef NYX_REDUCE_ABOUT
  NYX__REDUCE_COUNT
} nyx__reduce_id;

/* Whether x takes the place of the least (greatest) element a so far: the text of
 * positions. The first of equals keeps it, and so does the first nan. */
#define NYX_REDUCE_LESS(x, a) nyx_or(nyx_lt(x, a), nyx_and(nyx_ne(x, x), nyx_eq(a, a)))
#define NYX_REDUCE_GREATER(x, a) nyx_or(nyx_gt(x, a), nyx_and(nyx_ne(x, x), nyx_eq(a, a)))

#endif
