/* What happens to the result of a product or a convolution where it has just been summed,
 * while it is still in the cache of whoever summed it: a bias, an activation or a gate,
 * something added. Read next: epilogue.c; gemm.c, low.c and core/op/conv_product.c, which
 * call it for what they have finished. */
#ifndef NYX_LINALG_EPILOGUE_H
#define NYX_LINALG_EPILOGUE_H

#include "../../kernels/cpu/elementwise.h"
#include "../tensor/tensor.h"

/* In this order; whatever is NULL is left out. The results of a batch lie one after the
 * other, `n` elements to a row, and count as rows of one matrix. */
typedef struct nyx_epilogue {
  int64_t n;
  const void *bias; /* n elements that sums begin with, of the dtype that is summed in */
  const void *before; /* as `residual` */
  void *sums;         /* room for all results as they are then, in the dtype of C */
  nyx_elementwise_fn activation; /* a row of the dtype that is summed in */
  double attr[2];                /* its attributes */
  const void *other;    /* the second input of a row that has two: as `residual` */
  const void *residual; /* as many elements as results, of the dtype of C */
  const void *results;  /* where they begin, for nyx__epilogue_there */
} nyx_epilogue;

/* rows x cols elements of C, from (row, col) on, where `c` points; `ldc` elements from
 * one row to the next. */
typedef struct nyx_region {
  void *c;
  int64_t ldc, row, rows, col, cols;
} nyx_region;

/* Before they are summed, by whoever sums them: writes the bias; false: there is none. C
 * is float32 or float64. e may be NULL. */
bool nyx__epilogue_begin(const nyx_epilogue *e, nyx_dtype dtype, const nyx_region *r);

/* Once they are summed: the rest. */
void nyx__epilogue_end(const nyx_epilogue *e, nyx_dtype dtype, const nyx_region *r);

/* The same, of whoever writes results where they belong and knows no more of them: rows
 * of `cols` elements, `ld` from one to the next. */
void nyx__epilogue_there(const nyx_epilogue *e, nyx_dtype dtype, void *c, int64_t rows,
                         int64_t cols, int64_t ld);

/* The rest for `cols` float32 sums of one row, which become elements of `out`, a half
 * type or float32, at `to`. */
void nyx__epilogue_store(const nyx_epilogue *e, nyx_dtype out, float *sums, int64_t row,
                         int64_t col, int64_t cols, void *to);

#endif
