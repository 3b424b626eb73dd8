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

/* A value kept for the gradient, and the version its storage had then. */
typedef struct nyx_saved {
  nyx_tensor *tensor; /* outputs: an alias without history, as the node is its history */
  uint32_t version;
} nyx_saved;

struct nyx_node {
  atomic_int refs;
  const nyx_op *op;
  uint64_t order; /* rises with every node of the process: inputs come before outputs */
  nyx_node *next; /* in the list of nodes being freed */
  int n_in, n_out;
  bool freed; /* saved values were dropped by a backward pass */
  /* In the same block as the node: */
  nyx_edge *edge;   /* n_in */
  nyx_saved *saved; /* n_in inputs, then n_out outputs; tensor NULL where not saved */
  nyx_spec *spec;   /* n_in inputs, then n_out outputs */
  nyx_value *attr;  /* op->n_attrs, lists copied */
};

/* Recording an application is done in two steps, so that all that may fail comes before
 * the launch. Begin makes the node: `edge` says where the gradient of each input goes,
 * `target` is what is written in place (NULL: c->out). Finish, after the launch, makes
 * c->out its results and takes the node over. `mutated`: out[0] is in[0]. */
nyx_status nyx__record_begin(nyx_call *c, const nyx_edge *edge, nyx_tensor *target,
                             nyx_node **out) NYX_MUST_CHECK;
void nyx__record_finish(nyx_node *node, nyx_call *c, bool mutated);
/* The edge of a tensor as it is now (borrowed pointers). */
nyx_edge nyx__edge_of(nyx_tensor *t);
void nyx__node_release(nyx_node *node); /* NULL is allowed; never recurses */
void nyx__node_drop_saved(nyx_node *node);

/* Which of g x y z r (bits 0 to 4) the gradient text `part` (1 to 3) of a row names. */
unsigned nyx__row_uses(const nyx_row *row, int part);

/* Whether g can be the gradient of a tensor of this dtype and shape. */
nyx_status nyx__check_grad(nyx_context *ctx, const nyx_tensor *g, nyx_dtype dtype,
                           int ndim, const int64_t *shape) NYX_MUST_CHECK;

/* Evaluates a row's text through nyx_apply, so that the result is recorded: `value` holds
 * g x y z r (NULL where absent), attr p and q. */
nyx_status nyx__evaluate(nyx_context *ctx, const char *text, nyx_tensor *const value[5],
                         const double attr[2], nyx_tensor **out);

#endif
