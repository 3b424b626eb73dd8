/* The kernels of every row of reduce.def, on one path: over contiguous elements of a
 * compute type. Read next: reduce_rows.h (how a row becomes functions),
 * core/device/cpu/reduce.c (who calls them). */
#ifndef NYX_KERNELS_CPU_REDUCE_H
#define NYX_KERNELS_CPU_REDUCE_H

#include "../reduce.h"
#include "elementwise.h"

/* Accumulators are of the compute type. NULL where a row does not exist for a type. */
typedef struct nyx_reduce_kernel {
  /* acc[0..n-1] = the accumulator of nothing */
  void (*init)(int64_t n, void *acc, double p);
  /* *acc = the reduction of x[0..n-1]; several vectors side by side, sixteen times each
   * and then merged: n numbers are summed in at most 32 + n / (64 * lanes) steps */
  void (*row)(int64_t n, const void *x, void *acc, double p);
  /* acc[i] = combine(acc[i], x[i]), and so on with the next of `rows`, `stride` elements
   * further each */
  void (*columns)(int64_t rows, int64_t n, const void *x, int64_t stride, void *acc,
                  double p);
  /* acc[i] = merge(acc[i], b[i]) */
  void (*merge)(int64_t n, const void *b, void *acc, double p);
  /* acc[i] = the result for `count` elements */
  void (*finish)(int64_t n, void *acc, double count, double p);
} nyx_reduce_kernel;

struct nyx_reduce_kernels {
  const nyx_reduce_kernel *rows[NYX_IN_COUNT]; /* [compute][row id] */
  /* The first position in x[0..n-1], n > 0, of *value (of a nan if it is one), or n. */
  int64_t (*find[NYX_IN_COUNT])(int64_t n, const void *x, const void *value);
  /* The first position in x[0..n-1] of an element that comes before *value (`least`), or
   * after it, in the order in which nan is last; or n. */
  int64_t (*beyond[NYX_IN_COUNT])(int64_t n, const void *x, bool least,
                                  const void *value);
  /* Where x[i] is less (greater, unless `least`) than best[i], or the first nan: best[i]
   * = x[i] and where[i] = row. `where` holds integers of the size of the compute type. */
  void (*follow[NYX_IN_COUNT])(int64_t n, const void *x, int64_t row, bool least,
                               void *best, void *where);
};
typedef struct nyx_reduce_kernels nyx_reduce_kernels;

#endif
