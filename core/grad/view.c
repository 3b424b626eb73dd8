/* Views and the history of what they are views of. A view holds its base, the tensor it
 * was made from in the end, and a count of the histories that had then. A change of the
 * view in place gives the base a new history: the old one with the changed region put in
 * (as_strided_scatter). Views whose base got a new history since are out of date, and get
 * one that picks their region from it (as_strided) when they are used next. Nodes hold
 * neither views nor bases (nyx_saved), so no cycle can form. Read next: core/op/views.c,
 * apply.c; docs/decisions/008-changes-through-views.md. */
#include <pthread.h>
#include <string.h>

#include "graph.h"

void nyx__view_link(const nyx_context *ctx, nyx_tensor *from, nyx_tensor *view) {
  nyx_tensor *base = from->base ? from->base : from;
  view->is_view = true;
  if (!ctx->grad_enabled || !nyx_dtype_is_float(from->dtype) || base->is_view) return;
  view->base = nyx_tensor_retain(base);
  view->base_history = base->history;
  /* Positions in the base are positions in memory only where it is contiguous. */
  view->loose = base == from ? !nyx__is_contiguous(from) : from->loose;
}

void nyx__view_unlink(nyx_tensor *view) {
  nyx_tensor *base = view->base;
  view->base = NULL;
  nyx_tensor_release(base);
}

/* A node of `id` over in[n]: its inputs' edges and its output's spec are the caller's. */
static nyx_node *node_of(nyx_context *ctx, nyx__op_id id, nyx_tensor *const *in, int n,
                         const nyx_value *attr) {
  nyx_call c;
  c.ctx = ctx;
  c.op = nyx__op(id);
  c.attr = attr;
  c.n_in = n;
  c.n_out = 1;
  nyx_node *node = nyx__node_new(&c, 0, 0);
  for (int i = 0; node && i < n; i++) {
    nyx__spec_of(in[i], &node->spec[i]);
    node->edge[i] = (nyx_edge){NULL, NULL, 0};
  }
  return node;
}

static void set_edge(nyx_node *node, int i, nyx_edge edge) {
  node->edge[i] = edge;
  if (edge.node) atomic_fetch_add_explicit(&edge.node->refs, 1, memory_order_relaxed);
  nyx_tensor_retain(edge.leaf);
}

/* The view as a region of its base with history `edge`; NULL: no memory. */
static nyx_node *region_node(nyx_context *ctx, const nyx_tensor *view, nyx_edge edge) {
  nyx_tensor *base = view->base;
  const nyx_value attr[] = {NYX_LIST(view->shape, view->ndim),
                            NYX_LIST(view->stride, view->ndim),
                            NYX_I(view->offset - base->offset)};
  nyx_node *node = node_of(ctx, NYX__OP_as_strided, &base, 1, attr);
  if (!node) return NULL;
  nyx__spec_of(view, &node->spec[1]);
  set_edge(node, 0, edge);
  return node;
}

/* Threads that only read a view may all find it out of date. */
static pthread_mutex_t renewing = PTHREAD_MUTEX_INITIALIZER;

nyx_status nyx__view_renew(nyx_context *ctx, nyx_tensor *view) {
  if (view->loose) return nyx__error(ctx, GRAD_VIEW_LOOSE);
  nyx_node *node = region_node(ctx, view, nyx__edge_of(view->base));
  if (!node) return nyx__no_memory(ctx, sizeof *node);
  nyx_node *before = NULL;
  pthread_mutex_lock(&renewing);
  if (nyx__view_stale(view)) {
    before = view->grad_fn; /* goes when the lock is open: it may be the last of many */
    if (before) atomic_fetch_add_explicit(&before->refs, 1, memory_order_relaxed);
    nyx__node_adopt(node, 0, view);
    atomic_store_explicit(&view->base_history, view->base->history, memory_order_release);
  }
  pthread_mutex_unlock(&renewing);
  nyx__node_release(before);
  nyx__node_release(node);
  return NYX_OK;
}

nyx_status nyx__view_rebase(nyx_context *ctx, nyx_tensor *view, nyx_node *node,
                            nyx_node **out) {
  nyx_tensor *base = view->base;
  const nyx_value attr[] = {NYX_LIST(view->stride, view->ndim),
                            NYX_I(view->offset - base->offset)};
  nyx_node *whole =
      node_of(ctx, NYX__OP_as_strided_scatter, (nyx_tensor *[]){base, view}, 2, attr);
  if (!whole) return nyx__no_memory(ctx, sizeof *whole);
  nyx__spec_of(base, &whole->spec[2]);
  set_edge(whole, 0, nyx__edge_of(base));
  set_edge(whole, 1, (nyx_edge){node, NULL, 0});
  *out = region_node(ctx, view, (nyx_edge){whole, NULL, 0});
  nyx__node_release(whole);
  return *out ? NYX_OK : nyx__no_memory(ctx, sizeof **out);
}

void nyx__view_rebased(nyx_tensor *view, nyx_node *node) {
  nyx__node_adopt(node->edge[0].node, 0, view->base);
  nyx__node_adopt(node, 0, view);
  view->base_history = view->base->history;
  nyx__node_release(node);
}
