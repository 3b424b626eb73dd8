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
  /* q - zero as bfloat16, which it is exactly, for a zero that q could be; `count` even
   * for int4. */
  void (*integers)(const void *q, int64_t count, int zero, uint16_t *to);
} nyx_quantized_kernel;

typedef struct nyx_quantized_kernels {
  nyx_quantized_kernel int4, int8;
  /* to += sums, column j times scale[j], and x[row] * rest[j] (NULL: nothing more); rows
   * lie that far apart. */
  void (*add_scaled)(int64_t rows, int64_t cols, const float *sums, int64_t sums_apart,
                     const float *scale, const float *x, const float *rest, float *to,
                     int64_t apart);
} nyx_quantized_kernels;

#endif
