/* What the files of factorizations share: sizes, and from which on a matrix is divided.
 * Read next: factor.c, qr.c. */
#ifndef NYX_LINALG_FACTOR_RUN_H
#define NYX_LINALG_FACTOR_RUN_H

#include "factor.h"

/* Multiplications that are worth waking a thread for. */
#define RANGE ((int64_t)1 << 19)
/* So many matrices are shared whole; fewer are divided, from BLOCKED rows on. */
#define ENOUGH 16
#define BLOCKED 256

static inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static inline int64_t parts(int64_t size, int64_t part) {
  return (size + part - 1) / part;
}

/* Pieces of `work` multiplications that make a range. */
static inline int64_t grain(double work) {
  return work >= (double)RANGE ? 1 : (int64_t)((double)RANGE / (work + 1)) + 1;
}

static inline double number(nyx_dtype dtype, const void *p) {
  return dtype == NYX_FLOAT64 ? *(const double *)p : (double)*(const float *)p;
}

#endif
