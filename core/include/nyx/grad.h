/* Reverse-mode differentiation. Ops on tensors that require gradients leave a graph of
 * nodes; nyx_backward_run walks it from a result to the leaves. */
#ifndef NYX_GRAD_H
#define NYX_GRAD_H

#include "op.h"

NYX_API bool nyx_tensor_requires_grad(const nyx_tensor *t);
/* Only leaves (tensors no recorded op made) of a float dtype can be set. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_set_requires_grad(nyx_context *ctx,
                                                               nyx_tensor *t, bool on);
NYX_API bool nyx_tensor_is_leaf(const nyx_tensor *t);
/* The accumulated gradient, borrowed; NULL when there is none. */
NYX_API nyx_tensor *nyx_tensor_grad(const nyx_tensor *t);
/* Replaces it (retained; NULL clears it). Shape, dtype and device must match. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_set_grad(nyx_context *ctx, nyx_tensor *t,
                                                      nyx_tensor *grad);
/* The name of the op that made t in the graph; NULL for leaves. */
NYX_API const char *nyx_tensor_grad_op(const nyx_tensor *t);
/* A view of the same storage without history. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_detach(nyx_context *ctx, nyx_tensor *t,
                                                    nyx_tensor **out);

typedef struct nyx_backward_options {
  bool retain_graph; /* keep saved values for another run */
  bool create_graph; /* record the backward pass itself; implies retain_graph */
} nyx_backward_options;

/* Accumulates d(root)/d(leaf) into every leaf that requires a gradient. `seed` is the
 * gradient of root itself; NULL means 1 and needs a root with one element. `options` may
 * be NULL. On failure leaves keep the gradients they had. */
NYX_API NYX_MUST_CHECK nyx_status nyx_backward_run(nyx_context *ctx, nyx_tensor *root,
                                                   nyx_tensor *seed,
                                                   const nyx_backward_options *options);
/* The gradients of root with respect to inputs[n], given in grads[n]; nothing is
 * accumulated. An input that root does not depend on gives NULL. */
NYX_API NYX_MUST_CHECK nyx_status nyx_gradients(nyx_context *ctx, nyx_tensor *root,
                                                nyx_tensor *seed,
                                                nyx_tensor *const *inputs, int n,
                                                const nyx_backward_options *options,
                                                nyx_tensor **grads);

#endif
