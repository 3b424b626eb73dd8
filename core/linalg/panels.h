/* Products whose B comes in panels of the built-in product: kept from an earlier call, or
 * made of something smaller on the way. Read next: panels.c, kernels/cpu/gemm.h. */
#ifndef NYX_LINALG_PANELS_H
#define NYX_LINALG_PANELS_H

#include "../../kernels/cpu/gemm.h"
#include "../tensor/tensor.h"
#include "epilogue.h"

/* Where the panels of B come from. */
typedef struct nyx_panels {
  /* Those of columns j..j+cols-1 (j a multiple of tile_cols) and terms l..l+terms-1;
   * `scratch` has room for them and for `extra` bytes behind them. */
  const void *(*get)(const void *arg, int64_t j, int64_t cols, int64_t l, int64_t terms,
                     void *scratch);
  const void *arg;
  bool scratch; /* false: `get` needs none */
  size_t extra;
} nyx_panels;

/* Terms of a block of panels where there are k and nothing else counts. */
int64_t nyx__panel_depth(const nyx_gemm_kernel *kernel, int64_t k);

/* C = A B, or C + A B, of float32 or float64, and what comes `after` (NULL: nothing);
 * p's B is not read, `depth` terms make a block. All terms of some hundred rows of A are
 * packed at a time. m, n, k >= 1. */
nyx_status nyx__panels_multiply(nyx_context *ctx, const nyx_gemm_kernel *kernel,
                                nyx_dtype dtype, const nyx_product *p, int64_t depth,
                                const nyx_panels *b,
                                const nyx_epilogue *after) NYX_MUST_CHECK;

/* The same with panels of p's B that `keep` keeps (core/tensor/packed.h). *done false:
 * there is no memory for them, and nothing has been computed. */
nyx_status nyx__panels_kept(nyx_context *ctx, const nyx_gemm_kernel *kernel,
                            nyx_dtype dtype, const nyx_product *p, int64_t depth,
                            nyx_storage *keep, const nyx_epilogue *after,
                            bool *done) NYX_MUST_CHECK;

#endif
