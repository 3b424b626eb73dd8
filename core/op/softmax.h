/* What the losses share with softmax. Read next: softmax.c, loss.c. */
#ifndef NYX_OP_SOFTMAX_H
#define NYX_OP_SOFTMAX_H

#include "../tensor/tensor.h"

struct nyx_softmax_kernel;

/* The kernels for float32 or float64. */
const struct nyx_softmax_kernel *nyx__softmax_kernel(nyx_dtype compute);
/* A contiguous tensor of `compute` elements with `dims` moved behind the others. */
nyx_status nyx__float_rows(nyx_context *ctx, nyx_tensor *t, uint32_t dims,
                           nyx_dtype compute, nyx_tensor **out) NYX_MUST_CHECK;

#endif
