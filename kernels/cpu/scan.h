/* Running sums, products, extremes and recurrences along rows and columns, on one path.
 * Floats accumulate in double, integers in uint64_t, which wraps around.
 * Read next: scan.c, scan_type.h, core/op/scan.c (who calls). */
#ifndef NYX_KERNELS_CPU_SCAN_H
#define NYX_KERNELS_CPU_SCAN_H

#include "cpu.h"

#define NYX_SCAN_COLUMNS 1024 /* running values that are kept side by side, at most */

/* `width` columns next to each other, of n elements each that lie `step` apart. */
typedef struct nyx_scan {
  bool reverse;   /* from the last element to the first */
  bool exclusive; /* without the element itself */
  int64_t n, step, width;
  const void *x, *factor; /* factor: of the recurrence */
  void *y;                /* of sums NULL: only the total is wanted */
  const void *before; /* of sums: accumulators added to the columns' results, or NULL */
  void *total;        /* of sums: where to write what the columns add up to, or NULL */
  int64_t base;       /* of extremes: the position of the first element */
} nyx_scan;

typedef void (*nyx_scan_fn)(const nyx_scan *s);

/* Sums of elements that are not negative never fall, nor do they where a column is cut
 * and its later parts get the totals of the earlier ones, added up in order, as `before`.
 */
typedef struct nyx_scan_kernels {
  nyx_scan_fn sum[3], product[3]; /* float, double, int64_t */
  /* y = x + before, carried on times factor; exclusive: y = before, and x + factor y goes
   * on. */
  nyx_scan_fn linear[2];  /* float, double */
  nyx_scan_fn log_sum[2]; /* float, double: log(sum of e^x) */
  /* y: int64_t, where the greatest or least element so far is, of equal ones the last; a
   * NaN is beyond all numbers. float, double, int64_t. */
  nyx_scan_fn greatest[3], least[3];
} nyx_scan_kernels;

#endif
