/* Where a part of a graph ends: what checkpoints need to know about the tensors that a
 * function used without being given them. Read next: graph.h, lua/nyx/checkpoint.lua. */
#include <stdlib.h>

#include "graph.h"

/* An edge that leaves the part, with the place it was found at. */
typedef struct found {
  nyx_edge edge;
  size_t at;
} found;

typedef struct search {
  nyx_context *ctx;
  uint64_t since;
  nyx_tensor *const *known; /* what is left out */
  int n_known;
  unsigned char *seen; /* by order, from since + 1 on */
  size_t room_seen;
  nyx_node **nodes; /* a queue */
  size_t n_nodes, nodes_room;
  found *edges;
  size_t n_edges, edges_room;
} search;

static bool same(nyx_edge a, nyx_edge b) {
  return a.node == b.node && a.leaf == b.leaf && a.index == b.index;
}

/* An edge into the part leads to a node to be searched, any other is a result. */
static nyx_status follow(search *s, nyx_edge e) {
  if (!e.node && !e.leaf) return NYX_OK;
  if (e.node && e.node->order > s->since) {
    size_t i = (size_t)(e.node->order - s->since - 1);
    if (i < s->room_seen && s->seen[i]) return NYX_OK;
    void *nodes =
        nyx__grown(s->ctx, s->nodes, s->n_nodes + 1, &s->nodes_room, sizeof(nyx_node *));
    if (!nodes) return NYX_ERR_MEMORY;
    s->nodes = nodes;
    s->nodes[s->n_nodes++] = e.node;
    if (i < s->room_seen) s->seen[i] = 1;
    return NYX_OK;
  }
  for (int i = 0; i < s->n_known; i++)
    if (same(nyx__edge_of(s->known[i]), e)) return NYX_OK;
  void *edges =
      nyx__grown(s->ctx, s->edges, s->n_edges + 1, &s->edges_room, sizeof(found));
  if (!edges) return NYX_ERR_MEMORY;
  s->edges = edges;
  s->edges[s->n_edges] = (found){e, s->n_edges};
  s->n_edges++;
  return NYX_OK;
}

static int by_target(const void *a, const void *b) {
  const found *x = a, *y = b;
  uintptr_t px = (uintptr_t)x->edge.node | (uintptr_t)x->edge.leaf;
  uintptr_t py = (uintptr_t)y->edge.node | (uintptr_t)y->edge.leaf;
  if (px != py) return px < py ? -1 : 1;
  if (x->edge.index != y->edge.index) return x->edge.index < y->edge.index ? -1 : 1;
  return x->at < y->at ? -1 : x->at > y->at;
}

static int by_place(const void *a, const void *b) {
  const found *x = a, *y = b;
  return x->at < y->at ? -1 : x->at > y->at;
}

/* Keeps the first of equal edges, in the order they were found. */
static void make_unique(search *s) {
  size_t kept = 0;
  if (s->n_edges) qsort(s->edges, s->n_edges, sizeof(found), by_target);
  for (size_t i = 0; i < s->n_edges; i++) {
    if (kept && same(s->edges[kept - 1].edge, s->edges[i].edge)) continue;
    s->edges[kept++] = s->edges[i];
  }
  s->n_edges = kept;
  if (kept) qsort(s->edges, kept, sizeof(found), by_place);
}

static nyx_status run(search *s, nyx_tensor *const *roots, int n) {
  uint64_t now =
      nyx__graph_order() + (uint64_t)(n + s->n_known); /* views may be renewed */
  s->room_seen = now > s->since ? (size_t)(now - s->since) : 0;
  s->seen = nyx_memory_alloc_zeroed(s->room_seen + 1);
  if (!s->seen) return nyx__no_memory(s->ctx, s->room_seen + 1);
  for (int i = 0; i < s->n_known; i++) NYX_TRY(nyx__view_current(s->ctx, s->known[i]));
  for (int i = 0; i < n; i++) {
    NYX_TRY(nyx__view_current(s->ctx, roots[i]));
    NYX_TRY(follow(s, nyx__edge_of(roots[i])));
  }
  for (size_t k = 0; k < s->n_nodes; k++)
    for (int i = 0; i < s->nodes[k]->n_in; i++) NYX_TRY(follow(s, s->nodes[k]->edge[i]));
  make_unique(s);
  return NYX_OK;
}

/* A tensor that stands for an output of a node: one zero, repeated. */
static nyx_status stand_in(nyx_context *ctx, const nyx_edge *e, nyx_tensor **out) {
  nyx_spec spec = e->node->spec[e->node->n_in + e->index];
  nyx_tensor *zero;
  NYX_TRY(nyx_tensor_scalar(ctx, 0, spec.dtype, false, &zero));
  for (int d = 0; d < spec.ndim; d++) spec.stride[d] = 0;
  spec.offset = 0;
  nyx_status status = nyx__tensor_view(ctx, zero->storage, &spec, out);
  nyx_tensor_release(zero);
  if (status == NYX_OK) nyx__node_adopt(e->node, e->index, *out);
  return status;
}

static nyx_status give(search *s, nyx_tensor **inputs, int room) {
  for (int i = 0; i < room; i++) {
    const nyx_edge *e = &s->edges[i].edge;
    nyx_status status = NYX_OK;
    if (e->leaf)
      inputs[i] = nyx_tensor_retain(e->leaf);
    else
      status = stand_in(s->ctx, e, &inputs[i]);
    if (status == NYX_OK) continue;
    while (i-- > 0) {
      nyx_tensor_release(inputs[i]);
      inputs[i] = NULL;
    }
    return status;
  }
  return NYX_OK;
}

uint64_t nyx_graph_now(void) {
  return nyx__graph_order();
}

nyx_status nyx_graph_inputs(nyx_context *ctx, nyx_tensor *const *roots, int n,
                            uint64_t since, nyx_tensor *const *known, int n_known,
                            nyx_tensor **inputs, int room, int *count) {
  search s = {.ctx = ctx, .since = since, .known = known, .n_known = n_known};
  for (int i = 0; i < room; i++) inputs[i] = NULL;
  nyx_status status = run(&s, roots, n);
  *count = (int)s.n_edges;
  if (status == NYX_OK) status = give(&s, inputs, room < *count ? room : *count);
  nyx_memory_free(s.seen);
  nyx_memory_free(s.nodes);
  nyx_memory_free(s.edges);
  return status;
}
