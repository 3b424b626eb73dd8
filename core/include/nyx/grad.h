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
/* The graph: what recorded a tensor, and what that was computed from. Pointers that are
 * given are borrowed from the node, but for that of nyx_tensor_grad_node. */
typedef struct nyx_node nyx_node;
/* Where the gradient of an input goes: to output `index` of another node, or to a leaf;
 * both NULL where none is wanted. `spec`: dtype and shape; NULL out of range. */
typedef struct nyx_node_edge {
  nyx_node *node;
  nyx_tensor *leaf;
  int index;
  const nyx_spec *spec;
} nyx_node_edge;
/* The node that made t, given away; NULL for leaves. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_grad_node(nyx_context *ctx, nyx_tensor *t,
                                                       nyx_node **out);
NYX_API nyx_node *nyx_node_retain(nyx_node *node);       /* returns it; NULL is allowed */
NYX_API void nyx_node_release(nyx_node *node);           /* NULL is allowed */
NYX_API const char *nyx_node_name(const nyx_node *node); /* of the op or function */
/* Rises with every node of the process: a node's inputs have lower ones. */
NYX_API uint64_t nyx_node_order(const nyx_node *node);
NYX_API bool nyx_node_freed(
    const nyx_node *node); /* a backward pass dropped its values */
NYX_API int nyx_node_input_count(const nyx_node *node);
NYX_API nyx_node_edge nyx_node_input(const nyx_node *node, int i);
NYX_API int nyx_node_output_count(const nyx_node *node);
NYX_API const nyx_spec *nyx_node_output(const nyx_node *node, int i); /* NULL: no such */
/* Values kept for the gradient: one place for every input, then every output, then those
 * of a function. False where nothing is kept; else *out is what. */
NYX_API int nyx_node_saved_count(const nyx_node *node);
NYX_API bool nyx_node_saved(const nyx_node *node, int i, nyx_spec *out);

/* A view of the same storage without history. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_detach(nyx_context *ctx, nyx_tensor *t,
                                                    nyx_tensor **out);

/* Hooks: functions of the host that a backward pass calls. One gets the gradient of a
 * tensor, borrowed, and may give another (of the same shape, dtype and device) in
 * *replacement, which is NULL before; failing stops the pass. `free` (NULL is allowed)
 * is called once, when the hook can no longer run. */
typedef struct nyx_hook {
  nyx_status (*call)(nyx_context *ctx, void *arg, nyx_tensor *grad,
                     nyx_tensor **replacement);
  void *arg;
  void (*free)(void *arg);
} nyx_hook;

/* A registered hook. The handle keeps nothing alive but itself. */
typedef struct nyx_hook_handle nyx_hook_handle;

/* Runs `hook` on the gradient of t, in nyx_backward_run and nyx_gradients: once all of it
 * has arrived, before it is handed on or accumulated. Hooks run in the order they came.
 * They belong to what recorded t, or to the leaf; those of results are dropped by a pass
 * that frees the graph. `handle` may be NULL. When this fails hook->free is not called.
 */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_register_hook(nyx_context *ctx,
                                                           nyx_tensor *t,
                                                           const nyx_hook *hook,
                                                           nyx_hook_handle **handle);
/* For leaves: `hook` gets the leaf itself (and no replacement) after nyx_backward_run has
 * given all leaves their gradients. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_register_post_accumulate_hook(
    nyx_context *ctx, nyx_tensor *leaf, const nyx_hook *hook, nyx_hook_handle **handle);
/* Removes the hook, wherever it is; no effect when it is gone. */
NYX_API void nyx_hook_remove(nyx_hook_handle *handle);
/* Gives the handle back; the hook stays. NULL is allowed. */
NYX_API void nyx_hook_release(nyx_hook_handle *handle);

/* nyx_backward_run accumulates the gradient of t as if it were a leaf. For leaves, which
 * keep theirs anyway, this does nothing. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_retain_grad(nyx_context *ctx, nyx_tensor *t);
NYX_API bool nyx_tensor_retains_grad(const nyx_tensor *t); /* false for leaves */

/* A function with a gradient of its own, as the host computes it. */
typedef struct nyx_function {
  const char *name; /* copied */
  /* As the gradient of an op (nyx_backward in op.h), with payload and saved. */
  nyx_status (*backward)(nyx_backward *b);
  void *payload;
  void (*free)(void *payload); /* NULL is allowed */
} nyx_function;

/* Records that outputs[n_out] were computed from inputs[n] by `function`, where gradients
 * are on and an input requires one. An input may be NULL. The outputs are new tensors
 * without history; NULL for what is not differentiable. saved[n_saved] are kept for
 * backward (b->saved), which fails when one is changed in place in between. payload is
 * given away in any case: it is freed with the record, at once where there is none. At
 * most NYX_MAX_INPUTS inputs, outputs and saved values each. */
NYX_API NYX_MUST_CHECK nyx_status nyx_record_function(
    nyx_context *ctx, const nyx_function *function, nyx_tensor *const *inputs, int n,
    nyx_tensor *const *outputs, int n_out, nyx_tensor *const *saved, int n_saved);

/* Anomaly mode: what is recorded remembers where, and a backward pass fails at the first
 * gradient with a NaN, saying which op gave it and where that was applied. */
typedef struct nyx_anomaly {
  /* Writes where the host is now, "script.lua:12", to text; leaves it when unknown. NULL:
   * no places. */
  void (*where)(void *arg, char *text, size_t size);
  void *arg;
} nyx_anomaly;
#define NYX_ORIGIN_SIZE 320
/* NULL switches it off, as in a new context. *anomaly must stay valid until then. */
NYX_API void nyx_context_set_anomaly(nyx_context *ctx, const nyx_anomaly *anomaly);
NYX_API const nyx_anomaly *nyx_context_anomaly(const nyx_context *ctx);

/* What a step of a backward pass took. */
typedef struct nyx_profile_step {
  const char
      *name;      /* the op whose gradient was computed; "accumulate": the leaves' sums */
  double seconds; /* of the host; devices may still be at work */
  uint64_t bytes; /* handed out by the allocator, in the whole process */
} nyx_profile_step;

/* Is told of every step. */
typedef struct nyx_profiler {
  void (*step)(void *arg, const nyx_profile_step *step);
  void *arg;
} nyx_profiler;
/* NULL switches it off, as in a new context. *profiler must stay valid until then. */
NYX_API void nyx_context_set_profiler(nyx_context *ctx, const nyx_profiler *profiler);
NYX_API const nyx_profiler *nyx_context_profiler(const nyx_context *ctx);

typedef struct nyx_backward_options {
  bool retain_graph; /* keep saved values for another run */
  bool create_graph; /* record the backward pass itself; implies retain_graph */
  bool where_needed; /* nyx_gradients: create_graph if root also depends on variables
                        that are not among the inputs */
  bool cut; /* nyx_gradients: the graph ends at the inputs, as if all were leaves;
               their hooks do not run */
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

/* What every op recorded later in this process exceeds. */
NYX_API uint64_t nyx_graph_now(void);
/* What the ops recorded after `since` under roots[n] took from outside besides
 * known[n_known]: leaves, and for results of earlier ops a stand-in of the same shape,
 * dtype and history, all zeros; each once, in a fixed order. Gives their number in *count
 * and the first `room` of them in inputs (to be released). */
NYX_API NYX_MUST_CHECK nyx_status nyx_graph_inputs(
    nyx_context *ctx, nyx_tensor *const *roots, int n, uint64_t since,
    nyx_tensor *const *known, int n_known, nyx_tensor **inputs, int room, int *count);

#endif
