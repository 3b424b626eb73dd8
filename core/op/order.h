/* Elements as unsigned keys in the order of the elements, and sorting by them. NaN is
 * larger than everything else and equal to itself; -0 equals 0. Read next: order.c,
 * sort.c. */
#ifndef NYX_OP_ORDER_H
#define NYX_OP_ORDER_H

#include "../tensor/tensor.h"

/* The keys of n elements `stride` elements apart. `down`: in reverse order. */
void nyx__order_keys(nyx_dtype dtype, const void *from, int64_t stride, int64_t n,
                     bool down, uint64_t *key);
/* Bytes of a key that can differ from 0. */
static inline int nyx__order_width(nyx_dtype dtype) {
  return (int)nyx_dtype_size(dtype);
}

/* Bytes of scratch that nyx__order_sort and nyx__order_top need for n elements. */
size_t nyx__order_scratch(nyx_dtype dtype, int64_t n);

/* The positions of n elements in their order; equal elements keep theirs. Returns a list
 * in `scratch`. */
const int64_t *nyx__order_sort(nyx_dtype dtype, const void *from, int64_t stride,
                               int64_t n, bool down, void *scratch);
/* The same for the first k of them. */
const int64_t *nyx__order_top(nyx_dtype dtype, const void *from, int64_t stride,
                              int64_t n, int64_t k, bool down, void *scratch);

#endif
