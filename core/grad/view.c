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
  if (!ctx->grad_enabled || !nyx__has_gradient(from->dtype) || base->is_view) return;
  if (view->dtype != from->dtype) return; /* complex and real: other positions */
  view->base = nyx_tensor_retain(base);
  view->base_history = base->history;
  /* Positions in the base are positions in memory only where it has no gaps. */
  view->loose =
      base == from ? !nyx__is_dense(from->ndim, from->shape, from->stride) : from->loose;
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

/* The base with its dimensions in the order in which they lie in memory, in which it is
 * contiguous: `order[i]` is the base's dimension i of that, `back[d]` the opposite. */
typedef struct in_memory {
  nyx_tensor plain; /* no more than a description */
  int64_t order[NYX_MAX_DIMS], back[NYX_MAX_DIMS];
} in_memory;

static in_memory in_memory_of(const nyx_tensor *base) {
  in_memory m;
  int n = base->ndim, innermost[NYX_MAX_DIMS];
  m.plain = (nyx_tensor){.dtype = base->dtype, .ndim = n, .offset = base->offset};
  nyx__memory_order(n, base->shape, base->stride, innermost);
  for (int i = 0; i < n; i++) {
    int d = innermost[n - 1 - i];
    m.order[i] = d;
    m.back[d] = i;
    m.plain.shape[i] = base->shape[d];
  }
  nyx__strides(n, m.plain.shape, m.plain.stride);
  return m;
}

/* `from` with its dimensions in another order, as `to`. */
static nyx_node *turned_node(nyx_context *ctx, nyx_tensor *from, const nyx_tensor *to,
                             const int64_t *order, nyx_edge edge) {
  const nyx_value dims = NYX_LIST(order, from->ndim);
  nyx_node *node = node_of(ctx, NYX__OP_permute, &from, 1, &dims);
  if (!node) return NULL;
  nyx__spec_of(to, &node->spec[1]);
  set_edge(node, 0, edge);
  return node;
}

/* The view as a region of its base with history `edge`; NULL: no memory. */
static nyx_node *region_node(nyx_context *ctx, const nyx_tensor *view, nyx_edge edge) {
  nyx_tensor *base = view->base;
  const nyx_value attr[] = {NYX_LIST(view->shape, view->ndim),
                            NYX_LIST(view->stride, view->ndim),
                            NYX_I(view->offset - base->offset)};
  nyx_node *turned = NULL;
  in_memory m;
  if (!nyx__is_contiguous(base)) {
    m = in_memory_of(base);
    turned = turned_node(ctx, base, &m.plain, m.order, edge);
    if (!turned) return NULL;
    base = &m.plain;
    edge = (nyx_edge){turned, NULL, 0};
  }
  nyx_node *node = node_of(ctx, NYX__OP_as_strided, &base, 1, attr);
  if (node) {
    nyx__spec_of(view, &node->spec[1]);
    set_edge(node, 0, edge);
  }
  nyx__node_release(turned);
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

/* The base with history `edge` and the view, whose history is `node`, put in. */
static nyx_node *whole_node(nyx_context *ctx, nyx_tensor *base, nyx_tensor *view,
                            nyx_node *node, nyx_edge edge) {
  const nyx_value attr[] = {NYX_LIST(view->stride, view->ndim),
                            NYX_I(view->offset - view->base->offset)};
  nyx_node *whole =
      node_of(ctx, NYX__OP_as_strided_scatter, (nyx_tensor *[]){base, view}, 2, attr);
  if (!whole) return NULL;
  nyx__spec_of(base, &whole->spec[2]);
  set_edge(whole, 0, edge);
  set_edge(whole, 1, (nyx_edge){node, NULL, 0});
  return whole;
}

/* The same of a base whose memory has another order of dimensions, in that and back. */
static nyx_node *whole_turned(nyx_context *ctx, nyx_tensor *view, nyx_node *node) {
  nyx_tensor *base = view->base;
  in_memory m = in_memory_of(base);
  nyx_node *whole = NULL, *back = NULL;
  nyx_node *turned = turned_node(ctx, base, &m.plain, m.order, nyx__edge_of(base));
  if (turned) whole = whole_node(ctx, &m.plain, view, node, (nyx_edge){turned, NULL, 0});
  if (whole) back = turned_node(ctx, &m.plain, base, m.back, (nyx_edge){whole, NULL, 0});
  nyx__node_release(turned);
  nyx__node_release(whole);
  return back;
}

nyx_status nyx__view_rebase(nyx_context *ctx, nyx_tensor *view, nyx_node *node,
                            nyx_node **out) {
  nyx_tensor *base = view->base;
  nyx_node *whole = nyx__is_contiguous(base)
                        ? whole_node(ctx, base, view, node, nyx__edge_of(base))
                        : whole_turned(ctx, view, node);
  if (!whole) return nyx__no_memory(ctx, sizeof *whole);
  *out = region_node(ctx, view, (nyx_edge){whole, NULL, 0});
  nyx__node_release(whole);
  return *out ? NYX_OK : nyx__no_memory(ctx, sizeof **out);
}

void nyx__view_rebased(nyx_tensor *view, nyx_node *node) {
  nyx_node *whole = node->edge[0].node;
  if (!nyx__is_contiguous(view->base)) whole = whole->edge[0].node; /* before it turned */
  nyx__node_adopt(whole, 0, view->base);
  nyx__node_adopt(node, 0, view);
  view->base_history = view->base->history;
  nyx__node_release(node);
}
