/* A tensor that is reduced has two sides: the dimensions that are kept and those that are
 * reduced, each with neighbours in memory merged. Read next: cpu/reduce.c,
 * opencl/reduce.c. */
#ifndef NYX_DEVICE_SIDES_H
#define NYX_DEVICE_SIDES_H

#include "../tensor/tensor.h"

/* Dimensions of one side, kept or reduced: sizes of 1 dropped, neighbours in memory
 * merged. */
typedef struct side {
  int n;
  int64_t shape[NYX_MAX_DIMS], stride[NYX_MAX_DIMS];
  int64_t count;
} side;

/* The dimensions of t whose bit in `dims` is `wanted`. `any_order` allows sorting them by
 * stride, which turns a transposed tensor back into rows. */
static inline side side_of(const nyx_tensor *t, uint32_t dims, bool wanted,
                           bool any_order) {
  side s = {.n = 0, .count = 1};
  for (int d = 0; d < t->ndim; d++) {
    if ((dims >> d & 1) != wanted) continue;
    s.count *= t->shape[d];
    if (t->shape[d] == 1) continue;
    int at = s.n++;
    for (; any_order && at > 0 && s.stride[at - 1] < t->stride[d]; at--) {
      s.shape[at] = s.shape[at - 1];
      s.stride[at] = s.stride[at - 1];
    }
    s.shape[at] = t->shape[d];
    s.stride[at] = t->stride[d];
  }
  int n = 0;
  for (int d = 0; d < s.n; d++) {
    if (n > 0 && s.stride[n - 1] == s.stride[d] * s.shape[d]) {
      s.shape[n - 1] *= s.shape[d];
      s.stride[n - 1] = s.stride[d];
    } else {
      s.shape[n] = s.shape[d];
      s.stride[n++] = s.stride[d];
    }
  }
  s.n = n;
  return s;
}

/* Where element i of a side is, in elements. */
static inline int64_t place(const side *s, int64_t i) {
  if (s->n == 1) return i * s->stride[0];
  int64_t at = 0;
  for (int d = s->n - 1; d >= 0; d--) {
    at += i % s->shape[d] * s->stride[d];
    i /= s->shape[d];
  }
  return at;
}

/* The size and stride of a side's innermost dimension. */
static inline int64_t inner_size(const side *s) {
  return s->n ? s->shape[s->n - 1] : 1;
}
static inline int64_t inner_stride(const side *s) {
  return s->n ? s->stride[s->n - 1] : 1;
}

#endif
