/* Images whose channels lie together in memory (channels-last): a place is one position
 * of one image, with all its channels side by side. Read next: last_type.h;
 * core/op/conv_last.c, core/op/pool_last.c and core/op/norm_last.c, which share
 * places among threads. */
#ifndef NYX_KERNELS_CPU_LAST_H
#define NYX_KERNELS_CPU_LAST_H

#include <stdbool.h>
#include <stdint.h>

#define NYX_LAST_STEP 9

/* c = a b (+ bias, or + c): a row of A is read where it lies, in runs of terms that are
 * side by side; B is in panels as a matrix product has them (gemm.h), runs * length rows
 * deep. */
typedef struct nyx_last_product {
  int64_t m, n;         /* places, output channels */
  const void *const *a; /* of m places */
  const int64_t *run;   /* elements from there to each run */
  int64_t runs, length; /* length: terms of a run */
  const void *b, *bias; /* bias: whole panels; NULL: none */
  void *const *c;       /* of m places */
  bool add;             /* to what is there; then without bias */
  /* For `wide` only. step: NYX_LAST_STEP where runs are of one term and the rows of A so
   * many elements apart, as those of 3 x 3 kernels turned; else 0. Then also `ahead`: as
   * many elements behind these runs lie the next ones, which are asked for. */
  int64_t step, ahead;
} nyx_last_product;

/* y = bias + the sum over taps of x * w, channel by channel, for `count` places that lie
 * x_step and y_step elements apart. */
typedef struct nyx_last_depthwise {
  const void *const *x, *const *w; /* of each tap */
  int64_t taps, count, x_step, y_step, channels;
  const void *bias; /* or NULL */
  void *y;
} nyx_last_depthwise;

/* Rectangles of places: rows and columns, and elements from one to the next. */
typedef struct nyx_last_box {
  int64_t rows, row_step, cols, col_step;
} nyx_last_box;

/* For each of float32 and float64. */
typedef struct nyx_last_kernel {
  int64_t tile_rows; /* places that are multiplied together */
  void (*product)(const nyx_last_product *p);
  /* The same by tiles of fewer places and more columns, as B's panels have then: to the
   * same bits. A is read less often where all columns fit. */
  int64_t wide_rows, wide_cols;
  void (*wide)(const nyx_last_product *p);
  /* Columns first..first+length-1 of panels `columns` wide and `depth` deep: row q of
   * them from from[q]; NULL: zeros. */
  void (*place)(const void *const *from, int64_t count, int64_t first, int64_t length,
                int64_t columns, int64_t depth, void *panels);
  void (*depthwise)(const nyx_last_depthwise *p);
  /* sum += x * g, over `count` places */
  void (*products)(const void *x, int64_t x_step, const void *g, int64_t g_step,
                   int64_t count, int64_t channels, void *sum);
  /* The greatest of `taps` places, channel by channel, and the number `at` of where it
   * was; the first of equal ones, or the first NaN. */
  void (*max)(const void *const *x, const int32_t *at, int64_t taps, int64_t channels,
              int64_t base, void *to, int64_t *index);
  /* to = the sum over a box, divided; row by row. */
  void (*average)(const void *from, const nyx_last_box *box, int64_t channels,
                  double divisor, void *to);
  /* box += from, divided */
  void (*spread)(const void *from, const nyx_last_box *box, int64_t channels,
                 double divisor, void *to);
  /* Of `rows` places that follow each other, for each channel: mean, and the sum of
   * squares of what is left without it. */
  void (*moments)(const void *x, int64_t rows, int64_t channels, void *mean,
                  void *squares);
  /* sum = the sum of g, dot = that of g * (x - mean) */
  void (*sums)(const void *g, const void *x, const void *mean, int64_t rows,
               int64_t channels, void *sum, void *dot);
  /* y = (x - mean) * scale + shift */
  void (*normalize)(const void *x, int64_t rows, int64_t channels, const void *mean,
                    const void *scale, const void *shift, void *y);
  /* y = g * p + (x - mean) * q + r */
  void (*backward)(const void *g, const void *x, int64_t rows, int64_t channels,
                   const void *mean, const void *p, const void *q, const void *r,
                   void *y);
} nyx_last_kernel;

typedef struct nyx_last_kernels {
  nyx_last_kernel type[2];
} nyx_last_kernels;

#endif
