/* The graph as hosts may look at it. Read next: graph.h, core/include/nyx/grad.h. */
#include "graph.h"

nyx_status nyx_tensor_grad_node(nyx_context *ctx, nyx_tensor *t, nyx_node **out) {
  *out = NULL;
  NYX_TRY(nyx__view_current(ctx, t));
  *out = nyx_node_retain(t->grad_fn);
  return NYX_OK;
}

nyx_node *nyx_node_retain(nyx_node *node) {
  if (node) atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
  return node;
}

void nyx_node_release(nyx_node *node) {
  nyx__node_release(node);
}

const char *nyx_node_name(const nyx_node *node) {
  return node->op->name;
}
uint64_t nyx_node_order(const nyx_node *node) {
  return node->order;
}
bool nyx_node_freed(const nyx_node *node) {
  return node->freed;
}
int nyx_node_input_count(const nyx_node *node) {
  return node->n_in;
}
int nyx_node_output_count(const nyx_node *node) {
  return node->n_out;
}

nyx_node_edge nyx_node_input(const nyx_node *node, int i) {
  nyx_node_edge edge = {NULL, NULL, 0, NULL};
  if (i < 0 || i >= node->n_in) return edge;
  edge.node = node->edge[i].node;
  edge.leaf = node->edge[i].leaf;
  edge.index = node->edge[i].index;
  edge.spec = &node->spec[i];
  return edge;
}

const nyx_spec *nyx_node_output(const nyx_node *node, int i) {
  return i >= 0 && i < node->n_out ? &node->spec[node->n_in + i] : NULL;
}

int nyx_node_saved_count(const nyx_node *node) {
  return node->n_saved;
}
bool nyx_node_saved(const nyx_node *node, int i, nyx_spec *out) {
  if (i < 0 || i >= node->n_saved || !nyx__saved_storage(&node->saved[i])) return false;
  if (node->saved[i].tensor)
    nyx__spec_of(node->saved[i].tensor, out);
  else
    *out = node->spec[i];
  return true;
}
