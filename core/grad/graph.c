/* Recording: the nodes that nyx_apply leaves behind, and how they go away.
 * Read next: backward.c. */
#include "graph.h"

#include <nyx/memory.h>
#include <string.h>

#include "../op/ops.h"

static atomic_uint_fast64_t next_order = 1;

nyx_edge nyx__edge_of(nyx_tensor *t) {
  nyx_edge edge = {NULL, NULL, 0};
  if (!t->requires_grad) return edge;
  edge.node = t->grad_fn;
  edge.index = t->out_index;
  if (!edge.node) edge.leaf = t;
  return edge;
}

/* Lays node, edges, saved values, specs and attributes out in one block. */
static nyx_node *node_new(const nyx_call *c) {
  size_t n_all = (size_t)(c->n_in + c->n_out), n_attrs = (size_t)c->op->n_attrs;
  size_t lists = 0, text = 0;
  for (size_t i = 0; i < n_attrs; i++) {
    nyx_attr_type type = c->op->attrs[i].type;
    if (!c->attr[i].given) continue;
    if (type == NYX_ATTR_INTS || type == NYX_ATTR_DIMS) lists += (size_t)c->attr[i].n;
    if (type == NYX_ATTR_STRING) text += strlen(c->attr[i].s) + 1;
  }
  size_t bytes = sizeof(nyx_node) + (size_t)c->n_in * sizeof(nyx_edge) +
                 n_all * (sizeof(nyx_saved) + sizeof(nyx_spec)) +
                 n_attrs * sizeof(nyx_value) + lists * sizeof(int64_t) + text;
  nyx_node *node = nyx_memory_alloc(bytes);
  if (!node) return NULL;
  atomic_init(&node->refs, 1);
  node->op = c->op;
  node->order = atomic_fetch_add_explicit(&next_order, 1, memory_order_relaxed);
  node->next = NULL;
  node->n_in = c->n_in;
  node->n_out = c->n_out;
  node->freed = false;
  node->edge = (nyx_edge *)(node + 1);
  node->saved = (nyx_saved *)(node->edge + c->n_in);
  node->spec = (nyx_spec *)(node->saved + n_all);
  node->attr = (nyx_value *)(node->spec + n_all);
  int64_t *list = (int64_t *)(node->attr + n_attrs);
  char *chars = (char *)(list + lists);
  for (size_t i = 0; i < n_attrs; i++) {
    nyx_attr_type type = c->op->attrs[i].type;
    node->attr[i] = c->attr[i];
    if (!c->attr[i].given) continue;
    if (type == NYX_ATTR_INTS || type == NYX_ATTR_DIMS) {
      node->attr[i].list = list;
      for (int k = 0; k < c->attr[i].n; k++) *list++ = c->attr[i].list[k];
    } else if (type == NYX_ATTR_STRING) {
      node->attr[i].s = chars;
      chars += strlen(strcpy(chars, c->attr[i].s)) + 1;
    }
  }
  return node;
}

/* Which inputs and outputs the gradient will ask for. An elementwise row needs only what
 * the texts of the wanted gradients name. */
static void save_masks(const nyx_call *c, const nyx_edge *edge, uint32_t *in,
                       uint32_t *out) {
  *in = c->op->save_in;
  *out = c->op->save_out;
  if (c->op->gradient != nyx__row_gradient) return;
  *in = *out = 0;
  for (int i = 0; i < c->n_in; i++) {
    if (!edge[i].node && !edge[i].leaf) continue;
    unsigned uses = nyx__row_uses(c->op->row, i + 1);
    *in |= uses >> 1 & 7u; /* x y z */
    *out |= uses >> 4;     /* r */
  }
}

static bool wanted(uint32_t mask, int i) {
  return mask == NYX_SAVE_ALL || (i < 32 && (mask >> i & 1));
}

/* Keeps t for the node. Not the tensor that will hold the node: an alias of it. */
static nyx_status keep(nyx_context *ctx, nyx_saved *saved, nyx_tensor *t, bool holder) {
  if (holder) return nyx__tensor_alias(ctx, t, &saved->tensor);
  saved->tensor = nyx_tensor_retain(t);
  return NYX_OK;
}

nyx_status nyx__record_begin(nyx_call *c, const nyx_edge *edge, nyx_tensor *target,
                             nyx_node **out) {
  uint32_t save_in, save_out;
  save_masks(c, edge, &save_in, &save_out);
  nyx_node *node = node_new(c);
  if (!node) return nyx__no_memory(c->ctx, sizeof *node);
  memset(node->saved, 0, (size_t)(c->n_in + c->n_out) * sizeof *node->saved);
  nyx_status status = NYX_OK;
  for (int i = 0; i < c->n_in; i++) {
    nyx_tensor *t = c->in[i];
    if (t)
      nyx__spec_of(t, &node->spec[i]);
    else
      node->spec[i] = (nyx_spec){.ndim = 0};
    node->edge[i] = edge[i];
    if (edge[i].node)
      atomic_fetch_add_explicit(&edge[i].node->refs, 1, memory_order_relaxed);
    nyx_tensor_retain(edge[i].leaf);
    if (status == NYX_OK && t && wanted(save_in, i))
      status = keep(c->ctx, &node->saved[i], t, t == target);
  }
  for (int i = 0; i < c->n_out; i++) {
    nyx_tensor *result = i == 0 && target ? target : c->out[i];
    nyx__spec_of(result, &node->spec[c->n_in + i]);
    if (status == NYX_OK && wanted(save_out, i))
      status = keep(c->ctx, &node->saved[c->n_in + i], result, true);
  }
  if (status != NYX_OK) {
    nyx__node_release(node);
    return status;
  }
  *out = node;
  return NYX_OK;
}

void nyx__record_finish(nyx_node *node, nyx_call *c, bool mutated) {
  for (int i = 0; i < c->n_in + c->n_out; i++) {
    nyx_saved *saved = &node->saved[i];
    if (!saved->tensor) continue;
    saved->version = nyx_tensor_version(saved->tensor);
    /* A value the op has just overwritten: its version says so when it is asked for. */
    if (mutated && i < c->n_in && saved->tensor->storage == c->out[0]->storage)
      saved->version--;
  }
  for (int i = 0; i < c->n_out; i++) {
    if (!nyx_dtype_is_float(c->out[i]->dtype)) continue;
    nyx__node_release(c->out[i]->grad_fn);
    atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
    c->out[i]->grad_fn = node;
    c->out[i]->out_index = i;
    c->out[i]->requires_grad = true;
  }
  nyx__node_release(node);
}

void nyx__node_drop_saved(nyx_node *node) {
  for (int i = 0; i < node->n_in + node->n_out; i++) {
    nyx_tensor *t = node->saved[i].tensor;
    node->saved[i].tensor = NULL;
    nyx_tensor_release(t);
  }
  node->freed = true;
}

/* Nodes that lost their last reference wait in a list of this thread, so that a graph of
 * any depth is freed by a loop: releasing a node's tensors comes back here and only
 * appends. */
static _Thread_local nyx_node *dead_first;
static _Thread_local bool freeing;

void nyx__node_release(nyx_node *node) {
  if (!node || atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) != 1)
    return;
  node->next = dead_first;
  dead_first = node;
  if (freeing) return;
  freeing = true;
  while (dead_first) {
    nyx_node *dead = dead_first;
    dead_first = dead->next;
    nyx__node_drop_saved(dead);
    for (int i = 0; i < dead->n_in; i++) {
      nyx__node_release(dead->edge[i].node);
      nyx_tensor_release(dead->edge[i].leaf);
    }
    nyx_memory_free(dead);
  }
  freeing = false;
}

/* The state of single tensors */

bool nyx_tensor_requires_grad(const nyx_tensor *t) {
  return t->requires_grad;
}
bool nyx_tensor_is_leaf(const nyx_tensor *t) {
  return t->grad_fn == NULL;
}
nyx_tensor *nyx_tensor_grad(const nyx_tensor *t) {
  return t->grad;
}

const char *nyx_tensor_grad_op(const nyx_tensor *t) {
  return t->grad_fn ? t->grad_fn->op->name : NULL;
}

nyx_status nyx_tensor_set_requires_grad(nyx_context *ctx, nyx_tensor *t, bool on) {
  if (t->grad_fn) {
    if (on) return NYX_OK;
    return nyx__error(ctx, GRAD_NOT_LEAF, t->grad_fn->op->name);
  }
  if (on && !nyx_dtype_is_float(t->dtype))
    return nyx__error(ctx, GRAD_DTYPE, nyx_dtype_name(t->dtype));
  t->requires_grad = on;
  return NYX_OK;
}

nyx_status nyx_tensor_set_grad(nyx_context *ctx, nyx_tensor *t, nyx_tensor *grad) {
  if (grad) NYX_TRY(nyx__check_grad(ctx, grad, t->dtype, t->ndim, t->shape));
  nyx_tensor *old = t->grad;
  t->grad = nyx_tensor_retain(grad);
  nyx_tensor_release(old);
  return NYX_OK;
}

nyx_status nyx__check_grad(nyx_context *ctx, const nyx_tensor *g, nyx_dtype dtype,
                           int ndim, const int64_t *shape) {
  if (g->dtype == dtype && g->ndim == ndim &&
      memcmp(g->shape, shape, (size_t)ndim * sizeof *shape) == 0)
    return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(ctx, GRAD_SHAPE, NYX__SHAPE(g), nyx_dtype_name(g->dtype),
                    nyx__shape_text(ndim, shape, text, sizeof text),
                    nyx_dtype_name(dtype));
}

nyx_status nyx_tensor_detach(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  return nyx__tensor_alias(ctx, t, out);
}
