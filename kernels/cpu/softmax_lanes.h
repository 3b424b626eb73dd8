/* What the kernels of softmax and of attention share: sums over the lanes of a vector,
 * the parts of vectors at the end of a row, e^x. Read next: kernels/dialect/vector.h. */
#ifndef NYX_KERNELS_CPU_SOFTMAX_LANES_H
#define NYX_KERNELS_CPU_SOFTMAX_LANES_H

#include "../dialect/vector.h"

/* All lanes of v in one. */
NYX_FN S total(T v) {
#if NYX_LANES >= 16
  v += NYX_SWAPPED(v, 8);
#endif
#if NYX_LANES >= 8
  v += NYX_SWAPPED(v, 4);
#endif
#if NYX_LANES >= 4
  v += NYX_SWAPPED(v, 2);
#endif
  v += NYX_SWAPPED(v, 1);
  return v[0];
}
NYX_FN S greatest(T v) {
#if NYX_LANES >= 16
  v = nyx__max_or(v, NYX_SWAPPED(v, 8));
#endif
#if NYX_LANES >= 8
  v = nyx__max_or(v, NYX_SWAPPED(v, 4));
#endif
#if NYX_LANES >= 4
  v = nyx__max_or(v, NYX_SWAPPED(v, 2));
#endif
  v = nyx__max_or(v, NYX_SWAPPED(v, 1));
  return v[0];
}

/* The loop all rows share: `body` for every vector x of `from`, of which the first `part`
 * lanes count (all when `part` is NYX_LANES). */
#define EACH_VECTOR(i, part, begin, end)                                                 \
  for (int64_t i = (begin), part;                                                        \
       i < (end) && (part = (end)-i < NYX_LANES ? (end)-i : NYX_LANES, true);            \
       i += NYX_LANES)

NYX_FN T load_lanes(const S *p, int64_t part) {
  return part < NYX_LANES ? nyx__load_part(p, part) : nyx__load(p);
}
NYX_FN void store_lanes(S *p, int64_t part, T v) {
  if (part < NYX_LANES)
    nyx__store_part(p, part, v);
  else
    nyx__store(p, v);
}

/* e^x for x <= 89; 0 where that is no normal float32, as processors take a hundred times
 * longer for others: softmax of masked scores (-inf) is full of them. */
NYX_FN T exp_of(T x) {
#if NYX_T_BITS == 32
  return nyx_select(nyx_lt(x, K(-87)), K(0), nyx__exp_normal(nyx__max_or(K(-87), x)));
#else
  return nyx_exp(x);
#endif
}

#endif
