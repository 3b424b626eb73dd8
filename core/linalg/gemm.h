/* Matrix products of float32, float64 and integers, split over the threads by size. Read
 * next: gemm.c; core/op/matmul.c, the op. */
#ifndef NYX_LINALG_GEMM_H
#define NYX_LINALG_GEMM_H

#include "../../kernels/cpu/gemm.h"
#include "../tensor/tensor.h"

/* Products of equal size. Those of a batch lie at the batch strides (elements, any) from
 * one another in A and B; their results follow each other, m * ldc apart. */
typedef struct nyx_gemm {
  nyx_dtype dtype; /* any but the half types and bool; integers wrap */
  nyx_product product;
  int batch_ndim;
  int64_t batch_shape[NYX_MAX_DIMS];
  int64_t a_batch[NYX_MAX_DIMS], b_batch[NYX_MAX_DIMS];
} nyx_gemm;

/* Computes all of it. Fails when interrupted, or without memory for partial sums. */
nyx_status nyx__gemm(nyx_context *ctx, const nyx_gemm *g) NYX_MUST_CHECK;

/* One product in the calling thread, for kernels that are parallel themselves. */
void nyx__gemm_here(nyx_dtype dtype, const nyx_product *p);

#endif
