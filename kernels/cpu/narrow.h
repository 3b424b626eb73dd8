/* A few rows of floats times a large matrix of a narrow type, which is read once, where
 * it lies: a part of some columns becomes floats in the first cache and is multiplied by
 * all rows. Single-threaded; core/linalg/low.c and quantized.c split the work. Read next:
 * narrow.c; few_type.h, the same for matrices of floats. */
#ifndef NYX_KERNELS_CPU_NARROW_H
#define NYX_KERNELS_CPU_NARROW_H

#include <stdint.h>

#define NYX_NARROW_COLS 6 /* at most, for one `dots` */

typedef struct nyx_narrow_columns nyx_narrow_columns;

/* Terms first..first+count-1 of a column as floats, in room for whole vectors; `first` is
 * a multiple of 512. */
typedef void (*nyx_widen_fn)(const nyx_narrow_columns *b, int64_t column, int64_t first,
                             int64_t count, float *to);

/* Columns of the matrix, whose terms lie together. */
struct nyx_narrow_columns {
  nyx_widen_fn widen;
  int64_t count;
  const char *from;   /* the first one's terms */
  int64_t pitch;      /* bytes from one column to the next */
  int bits;           /* of a term */
  const void *detail; /* what `widen` knows besides */
};

typedef struct nyx_narrow_kernels {
  int64_t cols; /* whose sums are computed together */
  int64_t most; /* more rows are better multiplied by packed panels */
  /* So many are better multiplied by weights of few bits in registers, of int4 one more.
   */
  int64_t quantized;
  /* Rows i..i+count-1 of x, k terms each, in the order in which `dots` reads them, behind
   * packed rows 0..i-1; i is a multiple of 4. */
  void (*pack)(const float *x, int64_t apart, int64_t i, int64_t count, int64_t k,
               float *packed);
  /* y[r * apart + c] = packed row r . column c. The order of a sum does not depend on the
   * rows and columns beside it. */
  void (*dots)(const nyx_narrow_columns *b, const float *packed, int64_t rows, int64_t k,
               float *y, int64_t apart);
} nyx_narrow_kernels;

/* Floats of `rows` packed rows of k terms. */
static inline int64_t nyx_narrow_room(int64_t rows, int64_t k) {
  return (rows + 3) / 4 * 4 * ((k + 15) / 16 * 16);
}

#endif
