/* Putting elements of several tensors side by side. */
#ifndef NYX_OP_JOIN_H
#define NYX_OP_JOIN_H

#include "../tensor/tensor.h"

/* to[i * n + k] = in[k][i]: n contiguous tensors of the CPU, at most NYX_MAX_INPUTS, of
 * one size and dtype with elements of at most 8 bytes, into memory apart from theirs. */
nyx_status nyx__zip(nyx_context *ctx, nyx_tensor *const *in, int n,
                    char *to) NYX_MUST_CHECK;

#endif
