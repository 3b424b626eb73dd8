/* What matmul and linear share. Read next: matmul.c, linear.c. */
#ifndef NYX_OP_MATMUL_H
#define NYX_OP_MATMUL_H

#include "../transform/batch.h"
#include "finish.h"
#include "ops.h"

/* out = left @ right and what comes after (NULL: nothing), on the CPU. All are of one
 * dtype; half types are summed in float32. */
nyx_status nyx__product(nyx_context *ctx, nyx_tensor *left, nyx_tensor *right,
                        const nyx__finish *finish, nyx_tensor *out) NYX_MUST_CHECK;

/* For gradients, of ops. t with its last two dimensions exchanged. */
nyx_status nyx__turned(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) NYX_MUST_CHECK;
/* x^T y: the gradient of a right factor (x the left one, y the incoming gradient), or of
 * a linear's weight. Both may have leading dimensions, which are summed over: they become
 * rows of one product. */
nyx_status nyx__inner_product(nyx_context *ctx, nyx_tensor *x, nyx_tensor *y,
                              nyx_tensor **out) NYX_MUST_CHECK;
/* The batching rule of matmul. */
nyx_status nyx__batch_matmul(nyx_batch *b) NYX_MUST_CHECK;

#endif
