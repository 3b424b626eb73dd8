/* The graph that backward walks: one node per recorded op, edges to the nodes (or leaves)
 * of its inputs. A graph belongs to one thread at a time; reference counts are atomic.
 * Read next: graph.c (recording), backward.c (the walk), row.c (gradients from row text).
 */
#ifndef NYX_GRAD_GRAPH_H
#define NYX_GRAD_GRAPH_H

#include <nyx/grad.h>

#include "../op/ops.h"
#include "../tensor/tensor.h"

/* Where the gradient of one input goes: output `index` of `node`, or the leaf. Both NULL:
 * the input does not want one. */
typedef struct nyx_edge {
  nyx_node *node;
  nyx_tensor *leaf;
  int index;
} nyx_edge;

/* A value kept for the gradient, and the version its storage had then. Kept is a tensor
 * or, for inputs and outputs that may be given another history later, through which they
 * would hold the node, only their storage: the rest is in the node. */
typedef struct nyx_saved {
  nyx_tensor *tensor;
  nyx_storage *storage;
  uint32_t version;
  int output; /* of a function's own values: which output this is, or -1 */
} nyx_saved;

struct nyx_node {
  atomic_int refs;
  const nyx_op *op;
  uint64_t order; /* rises with every node of the process: inputs come before outputs */
  nyx_node *next; /* in the list of nodes being freed */
  int n_in, n_out;
  int n_saved;      /* n_in + n_out, and what a function keeps for itself */
  bool freed;       /* what it kept was dropped by a backward pass */
  nyx__hook *hooks; /* on its outputs, hook.c */
  char *origin;     /* where it was made, in anomaly mode; else NULL */
  void *payload;    /* of a function, function.c */
  void (*free_payload)(void *);
  /* In the same block as the node: */
  nyx_edge *edge;   /* n_in */
  nyx_saved *saved; /* n_saved: inputs, outputs, more */
  nyx_spec *spec;   /* n_in inputs, then n_out outputs */
  nyx_value *attr;  /* op->n_attrs, lists copied */
};

/* Recording an application is done in two steps, so that all that may fail comes before
 * the launch. Begin makes the node: `edge` says where the gradient of each input goes,
 * `target` is what is written in place (NULL: c->out). Finish, after the launch, makes
 * c->out its results and takes the node over. `mutated`: out[0] is in[0]. `rebased`: of
 * nyx__view_rebase where out[0] is a view with a base, else NULL; is taken over, too. */
nyx_status nyx__record_begin(nyx_call *c, const nyx_edge *edge, nyx_tensor *target,
                             nyx_node **out) NYX_MUST_CHECK;
void nyx__record_finish(nyx_node *node, nyx_call *c, bool mutated, nyx_node *rebased);
/* A node of the call's op, inputs and outputs, with room for n_more saved values and
 * `tail` bytes behind its attributes; edges, saved values and specs are for the caller to
 * fill. NULL: no memory. */
nyx_node *nyx__node_new(const nyx_call *c, int n_more, size_t tail);
static inline nyx_storage *nyx__saved_storage(const nyx_saved *saved) {
  return saved->tensor ? saved->tensor->storage : saved->storage; /* NULL: not saved */
}
/* The i-th saved value, with the history it had if `history`. */
nyx_status nyx__saved_value(nyx_context *ctx, nyx_node *node, int i, bool history,
                            nyx_tensor **out) NYX_MUST_CHECK;
/* Keeps t for the node, see nyx_saved. `holder`: t will hold the node. */
nyx_status nyx__node_save(nyx_context *ctx, nyx_saved *saved, nyx_tensor *t,
                          bool holder) NYX_MUST_CHECK;
/* t becomes output i of the node. */
void nyx__node_adopt(nyx_node *node, int i, nyx_tensor *t);
/* The number of the latest node; see nyx_node.order. */
uint64_t nyx__graph_order(void);
/* The edge of a tensor as it is now (borrowed pointers). */
nyx_edge nyx__edge_of(nyx_tensor *t);
void nyx__node_release(nyx_node *node); /* NULL is allowed; never recurses */
void nyx__node_drop_saved(nyx_node *node);

/* view.c */

/* Makes `view`, the result of a view op, follow the history of what `from` is a view of.
 */
void nyx__view_link(const nyx_context *ctx, nyx_tensor *from, nyx_tensor *view);
/* The view leaves its base: it becomes a variable of its own. */
void nyx__view_unlink(nyx_tensor *view);
/* Gives a view whose base has another history since the one that follows from it. What
 * reads grad_fn of a tensor comes here first. */
nyx_status nyx__view_renew(nyx_context *ctx, nyx_tensor *view) NYX_MUST_CHECK;
static inline nyx_status nyx__view_current(nyx_context *ctx, nyx_tensor *t) {
  return nyx__view_stale(t) ? nyx__view_renew(ctx, t) : NYX_OK;
}
/* For a change in place of a view with a base, which `node` records: makes the nodes that
 * will be the histories of the two. *out is the view's. */
nyx_status nyx__view_rebase(nyx_context *ctx, nyx_tensor *view, nyx_node *node,
                            nyx_node **out) NYX_MUST_CHECK;
/* They become so; takes the node over. */
void nyx__view_rebased(nyx_tensor *view, nyx_node *node);

/* Which of g x y z r (bits 0 to 4) the gradient text `part` (1 to 3) of a row names. */
unsigned nyx__row_uses(const nyx_row *row, int part);

/* hook.c */

/* Runs the hooks on *grad, the gradient of output `index` of what `list` belongs to (NULL
 * is allowed); they may replace it. `owner` names it in messages. */
nyx_status nyx__hooks_run(nyx_context *ctx, nyx__hook *const *list, int index,
                          const char *owner, nyx_tensor **grad) NYX_MUST_CHECK;
/* Runs what waits for the gradient of a leaf. */
nyx_status nyx__hooks_run_post(nyx_context *ctx, nyx_tensor *leaf) NYX_MUST_CHECK;
/* The first tensor after `after` (NULL: of all) that keeps the gradient of an output of
 * this node, with the output's number. */
const nyx__hook *nyx__hooks_next_retained(const nyx_node *node, const nyx__hook *after,
                                          nyx_tensor **t, int *index);
/* Drops all of a list; `functions`: but for what retain_grad left there. Says whether
 * there was one. */
bool nyx__hooks_drop(nyx__hook **list, bool functions);
/* The tensor t leaves its node, for `to` where that is not NULL. */
void nyx__hooks_move(nyx_tensor *t, nyx_node *to, int index);

/* Whether g can be the gradient of a tensor of this dtype and shape. */
nyx_status nyx__check_grad(nyx_context *ctx, const nyx_tensor *g, nyx_dtype dtype,
                           int ndim, const int64_t *shape) NYX_MUST_CHECK;

/* An array of *room items with room for `wanted`: the old block, or a copy that takes its
 * place. NULL: no memory, which the context says, and the old block stays. */
void *nyx__grown(nyx_context *ctx, void *block, size_t wanted, size_t *room, size_t item);

/* Whether a recorded root depends on variables that are not among inputs[n]. */
nyx_status nyx__depends_on_others(nyx_context *ctx, nyx_tensor *root,
                                  nyx_tensor *const *inputs, int n,
                                  bool *others) NYX_MUST_CHECK;

/* Evaluates a row's text through nyx_apply, so that the result is recorded: `value` holds
 * g x y z r (NULL where absent), attr p and q. */
nyx_status nyx__evaluate(nyx_context *ctx, const char *text, nyx_tensor *const value[5],
                         const double attr[2], nyx_tensor **out);

/* A complex number; im NULL: real. */
typedef struct nyx__pair {
  nyx_tensor *re, *im;
} nyx__pair;
/* The imaginary part (NULL: zero) of a text where x y z have the imaginary parts
 * imaginary[3] (NULL: zero). */
nyx_status nyx__evaluate_complex(nyx_context *ctx, const char *text,
                                 nyx_tensor *const value[5],
                                 nyx_tensor *const imaginary[3], const double attr[2],
                                 nyx_tensor **out);
/* The same of one row that texts are made of, applied to in[n] with the real result `re`
 * (core/transform/complex.c). */
nyx_status nyx__imaginary_part(nyx_context *ctx, const nyx_op *op, const nyx__pair *in,
                               int n, nyx_tensor *re, nyx_tensor **out);

#endif
