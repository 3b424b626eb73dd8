/* The built-in matrix product of one instruction-set path: what Nyx uses without a BLAS,
 * for strides no BLAS takes and for products too small for one. Single-threaded;
 * core/linalg/gemm.c splits larger products. Read next: gemm.c, gemm_type.h. */
#ifndef NYX_KERNELS_CPU_GEMM_H
#define NYX_KERNELS_CPU_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* C = A B, or C + A B when `add`. A is m x k, B k x n; their elements lie at row * rs +
 * col * cs, any strides. Rows of C are contiguous, ldc apart. All in elements. */
typedef struct nyx_product {
  int64_t m, n, k;
  const void *a, *b;
  int64_t a_rs, a_cs, b_rs, b_cs;
  void *c;
  int64_t ldc;
  bool add;
} nyx_product;

/* For each of float32 and float64. m, n, k >= 1. */
typedef struct nyx_gemm_kernel {
  /* All of it, in one thread. `work` is scratch of work_bytes bytes, 64-byte aligned. */
  void (*product)(const nyx_product *p, void *work);
  /* The same without scratch, slowly. */
  void (*direct)(const nyx_product *p);

  /* The parts of `product`, for several threads: B is cut into blocks of `depth` rows,
   * packed once into panels of tile_cols columns (the last one filled up with zeros); A
   * into blocks of block_rows rows. */
  int64_t tile_rows, tile_cols, block_rows, depth;
  void (*pack)(const void *b, int64_t rs, int64_t cs, int64_t depth, int64_t cols,
               void *panels);
  /* p with B packed: m <= block_rows, k <= depth; `work` as in `product`. */
  void (*block)(const nyx_product *p, const void *panels, void *work);
} nyx_gemm_kernel;

typedef struct nyx_gemm_kernels {
  nyx_gemm_kernel type[2]; /* float32, float64 */
  size_t work_bytes;
  bool fast; /* as good as a BLAS for large products */
} nyx_gemm_kernels;

#endif
