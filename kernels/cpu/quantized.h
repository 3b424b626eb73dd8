/* Weights of few bits, turned into floats on the way into a product: int8, or two int4 to
 * a byte, with a scale for each group of terms. Single-threaded;
 * core/linalg/quantized.c splits the work. Read next: quantized.c. */
#ifndef NYX_KERNELS_CPU_QUANTIZED_H
#define NYX_KERNELS_CPU_QUANTIZED_H

#include <stdint.h>

#define NYX_QUANTIZED_ROWS 4 /* of x, at most, for one `dot` */

/* One output's weights: term t is (q[t] - zero[t / group]) * scale[t / group]. An int4 q
 * is 0..15, term 2 i in the lower half of byte i; an int8 one is -128..127. `group` is
 * even for int4. zero NULL: 8 for int4, 0 for int8. */
typedef struct nyx_quantized_row {
  const void *q;
  const float *scale, *zero;
  int64_t groups, group;
} nyx_quantized_row;

typedef struct nyx_quantized_kernel {
  /* In an arranged x each group is filled up to a multiple of `block` terms. */
  int64_t block;
  void (*arrange)(const float *x, int64_t groups, int64_t group, float *to);
  /* y[r * y_step] = w . row r of an arranged x, rows x_step apart. */
  void (*dot)(const nyx_quantized_row *w, int64_t rows, const float *x, int64_t x_step,
              float *y, int64_t y_step);
  /* Terms first..first+count-1 as floats; `first` even for int4. */
  void (*unpack)(const nyx_quantized_row *w, int64_t first, int64_t count, float *to);
} nyx_quantized_kernel;

typedef struct nyx_quantized_kernels {
  nyx_quantized_kernel int4, int8;
} nyx_quantized_kernels;

#endif
