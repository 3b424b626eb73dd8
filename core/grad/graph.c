/* Recording: the nodes that nyx_apply leaves behind, and how they go away.
 * Read next: backward.c. */
#include "graph.h"

#include <nyx/memory.h>
#include <string.h>

#include "../op/ops.h"
#include "../transform/lift.h"

static atomic_uint_fast64_t next_order = 1;

uint64_t nyx__graph_order(void) {
  return atomic_load_explicit(&next_order, memory_order_relaxed) - 1;
}

nyx_edge nyx__edge_of(nyx_tensor *t) {
  nyx_edge edge = {NULL, NULL, 0};
  if (!t->requires_grad) return edge;
  edge.node = t->grad_fn;
  edge.index = t->out_index;
  if (!edge.node) edge.leaf = t;
  return edge;
}

/* What the host says about the code that runs now; NULL when it does not know. */
static char *origin_of(nyx_context *ctx) {
  const nyx_anomaly *anomaly = ctx->anomaly;
  char text[NYX_ORIGIN_SIZE] = "";
  if (anomaly->where) anomaly->where(anomaly->arg, text, sizeof text);
  char *origin = text[0] ? nyx_memory_alloc(strlen(text) + 1) : NULL;
  return origin ? strcpy(origin, text) : NULL;
}

/* Lays node, edges, saved values, specs and attributes out in one block. */
nyx_node *nyx__node_new(const nyx_call *c, int n_more, size_t tail) {
  size_t n_all = (size_t)(c->n_in + c->n_out), n_attrs = (size_t)c->op->n_attrs;
  size_t n_saved = n_all + (size_t)n_more;
  size_t lists = 0, text = 0;
  for (size_t i = 0; i < n_attrs; i++) {
    nyx_attr_type type = c->op->attrs[i].type;
    if (!c->attr[i].given) continue;
    if (type == NYX_ATTR_INTS || type == NYX_ATTR_DIMS) lists += (size_t)c->attr[i].n;
    if (type == NYX_ATTR_STRING) text += strlen(c->attr[i].s) + 1;
  }
  size_t bytes = sizeof(nyx_node) + (size_t)c->n_in * sizeof(nyx_edge) +
                 n_saved * sizeof(nyx_saved) + n_all * sizeof(nyx_spec) +
                 n_attrs * sizeof(nyx_value) + lists * sizeof(int64_t) + text + tail;
  nyx_node *node = nyx_memory_alloc(bytes);
  if (!node) return NULL;
  atomic_init(&node->refs, 1);
  node->op = c->op;
  node->order = atomic_fetch_add_explicit(&next_order, 1, memory_order_relaxed);
  node->next = NULL;
  node->n_in = c->n_in;
  node->n_out = c->n_out;
  node->n_saved = (int)n_saved;
  node->freed = false;
  node->hooks = NULL;
  node->origin = c->ctx->anomaly ? origin_of(c->ctx) : NULL;
  node->payload = NULL;
  node->free_payload = NULL;
  node->edge = (nyx_edge *)(node + 1);
  node->saved = (nyx_saved *)(node->edge + c->n_in);
  node->spec = (nyx_spec *)(node->saved + n_saved);
  memset(node->saved, 0, n_saved * sizeof *node->saved);
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

static void copy_history(const nyx_tensor *from, nyx_tensor *to) {
  to->requires_grad = from->requires_grad;
  to->grad_fn = from->grad_fn;
  to->out_index = from->out_index;
  if (to->grad_fn) atomic_fetch_add_explicit(&to->grad_fn->refs, 1, memory_order_relaxed);
}

/* Within inference mode only transforms record, for a moment. */
static nyx_status check_inference(nyx_context *ctx, const nyx_tensor *t) {
  if (t->storage->inference && !t->weak && !ctx->inference)
    return nyx__error(ctx, INFERENCE_SAVE);
  return NYX_OK;
}

/* Whether t never gets a history, or not before it has been copied. */
static bool stays_itself(const nyx_tensor *t) {
  bool leaf = t->requires_grad && !t->grad_fn;
  return leaf || t->weak || !nyx__has_gradient(t->dtype);
}

/* Else an alias with the history of now, or none where that is the node. */
nyx_status nyx__node_save(nyx_context *ctx, nyx_saved *saved, nyx_tensor *t,
                          bool holder) {
  NYX_TRY(check_inference(ctx, t));
  if (!holder && stays_itself(t)) {
    saved->tensor = nyx_tensor_retain(t);
    return NYX_OK;
  }
  NYX_TRY(nyx__tensor_alias(ctx, t, &saved->tensor));
  if (!holder) copy_history(t, saved->tensor);
  return NYX_OK;
}

static void save_storage(nyx_saved *saved, const nyx_tensor *t) {
  saved->storage = t->storage;
  atomic_fetch_add_explicit(&t->storage->refs, 1, memory_order_relaxed);
}

/* An input: its geometry is a spec of the node, its history an edge. */
static nyx_status save_input(nyx_context *ctx, nyx_saved *saved, nyx_tensor *t) {
  NYX_TRY(check_inference(ctx, t));
  if (stays_itself(t))
    saved->tensor = nyx_tensor_retain(t);
  else
    save_storage(saved, t);
  return NYX_OK;
}

nyx_status nyx__saved_value(nyx_context *ctx, nyx_node *node, int i, bool history,
                            nyx_tensor **out) {
  const nyx_saved *saved = &node->saved[i];
  int own = i - node->n_in - node->n_out; /* from 0 on: what a function keeps */
  int output = own >= 0 ? saved->output : i - node->n_in;
  if (saved->tensor && (output < 0 || !history)) {
    *out = nyx_tensor_retain(saved->tensor);
    return NYX_OK;
  }
  if (saved->tensor)
    NYX_TRY(nyx__tensor_alias(ctx, saved->tensor, out));
  else
    NYX_TRY(nyx__tensor_view(ctx, saved->storage, &node->spec[i], out));
  nyx_tensor *t = *out;
  if (!history || !nyx__has_gradient(t->dtype)) return NYX_OK;
  if (output >= 0)
    nyx__node_adopt(node, output, t);
  else if (node->edge[i].node)
    nyx__node_adopt(node->edge[i].node, node->edge[i].index, t);
  return NYX_OK;
}

/* A copy of what is about to be overwritten. */
static nyx_status save_copy(nyx_context *ctx, nyx_saved *saved, nyx_tensor *t) {
  NYX_TRY(nyx_tensor_empty_on(ctx, t->storage->device, t->dtype, t->ndim, t->shape,
                              &saved->tensor));
  NYX_TRY(nyx__copy_into(ctx, t, saved->tensor));
  copy_history(t, saved->tensor);
  return NYX_OK;
}

nyx_status nyx__record_begin(nyx_call *c, const nyx_edge *edge, nyx_tensor *target,
                             nyx_node **out) {
  uint32_t save_in, save_out;
  save_masks(c, edge, &save_in, &save_out);
  nyx_node *node = nyx__node_new(c, 0, 0);
  if (!node) return nyx__no_memory(c->ctx, sizeof *node);
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
      status = t == target ? save_copy(c->ctx, &node->saved[i], t)
                           : save_input(c->ctx, &node->saved[i], t);
  }
  for (int i = 0; i < c->n_out; i++) {
    nyx_tensor *result = i == 0 && target ? target : c->out[i];
    nyx__spec_of(result, &node->spec[c->n_in + i]);
    if (wanted(save_out, i)) save_storage(&node->saved[c->n_in + i], result);
  }
  if (status != NYX_OK) {
    nyx__node_release(node);
    return status;
  }
  *out = node;
  return NYX_OK;
}

void nyx__node_adopt(nyx_node *node, int i, nyx_tensor *t) {
  if (t->retains_grad) nyx__hooks_move(t, node, i);
  nyx__node_release(t->grad_fn);
  atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
  t->grad_fn = node;
  t->out_index = i;
  t->requires_grad = true;
  t->history++;
}

void nyx__record_finish(nyx_node *node, nyx_call *c, bool mutated, nyx_node *rebased) {
  for (int i = 0; i < c->n_in + c->n_out; i++) {
    nyx_saved *saved = &node->saved[i];
    const nyx_storage *storage = nyx__saved_storage(saved);
    if (!storage) continue;
    saved->version = atomic_load_explicit(&storage->version, memory_order_relaxed);
    /* A view of what the op has just overwritten: its version says so when it is asked
     * for. */
    if (mutated && i < c->n_in && storage == c->out[0]->storage) saved->version--;
  }
  for (int i = 0; i < c->n_out; i++) {
    if (i == 0 && rebased)
      nyx__view_rebased(c->out[0], rebased);
    else if (nyx__has_gradient(c->out[i]->dtype))
      nyx__node_adopt(node, i, c->out[i]);
  }
  nyx__node_release(node);
}

void nyx__node_drop_saved(nyx_node *node) {
  for (int i = 0; i < node->n_saved; i++) {
    nyx_saved saved = node->saved[i];
    if (!nyx__saved_storage(&saved)) continue;
    node->freed = true;
    node->saved[i].tensor = NULL;
    node->saved[i].storage = NULL;
    nyx_tensor_release(saved.tensor);
    if (saved.storage) nyx__storage_release(saved.storage);
  }
  /* A node that kept nothing can run again. But what hosts gave may hold on to tensors of
   * the graph. */
  if (node->payload) node->freed = true;
  if (node->hooks && nyx__hooks_drop(&node->hooks, true)) node->freed = true;
  void *payload = node->payload;
  node->payload = NULL;
  if (payload && node->free_payload) node->free_payload(payload);
}

/* Nodes that lost their last reference wait in a list of this thread, so that a graph of
 * any depth is freed by a loop: releasing a node's tensors comes back here and only
 * appends. */
static _Thread_local nyx_node *dead_first;
static _Thread_local bool freeing;

void nyx__node_release(nyx_node *node) {
  if (!node || !nyx__last_reference(&node->refs)) return;
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
    if (dead->hooks) nyx__hooks_drop(&dead->hooks, false);
    nyx_memory_free(dead->origin);
    nyx_memory_free(dead);
  }
  freeing = false;
}

/* The state of single tensors */

bool nyx_tensor_requires_grad(const nyx_tensor *t) {
  if (!t->lift) return nyx__view_stale(t) || t->requires_grad;
  return nyx_tensor_requires_grad(t->lift->value) ||
         (t->lift->tangent && nyx_tensor_requires_grad(t->lift->tangent));
}
bool nyx_tensor_is_leaf(const nyx_tensor *t) {
  return !nyx__view_stale(t) && t->grad_fn == NULL;
}
nyx_tensor *nyx_tensor_grad(const nyx_tensor *t) {
  return t->grad;
}

const char *nyx_tensor_grad_op(const nyx_tensor *t) {
  if (nyx__view_stale(t)) return nyx__op_as_strided.name;
  return t->grad_fn ? t->grad_fn->op->name : NULL;
}

nyx_status nyx_tensor_set_requires_grad(nyx_context *ctx, nyx_tensor *t, bool on) {
  if (t->lift) return nyx__error(ctx, LIFTED_LEAF, "requires_grad");
  NYX_TRY(nyx__view_current(ctx, t));
  if (t->grad_fn) {
    if (on) return NYX_OK;
    return nyx__error(ctx, GRAD_NOT_LEAF, t->grad_fn->op->name);
  }
  if (on && !nyx__has_gradient(t->dtype))
    return nyx__error(ctx, GRAD_DTYPE, nyx_dtype_name(t->dtype));
  if (on && t->storage->inference && !ctx->inference)
    return nyx__error(ctx, INFERENCE_LEAF);
  t->requires_grad = on;
  if (on) nyx__view_unlink(t);
  return NYX_OK;
}

nyx_status nyx_tensor_set_grad(nyx_context *ctx, nyx_tensor *t, nyx_tensor *grad) {
  if (grad) NYX_TRY(nyx__check_grad(ctx, grad, t->dtype, t->ndim, t->shape));
  if (t->lift || (grad && grad->lift)) return nyx__error(ctx, LIFTED_LEAF, "grad");
  nyx_tensor *old = t->grad;
  t->grad = nyx_tensor_retain(grad);
  nyx_tensor_release(old);
  return NYX_OK;
}

nyx_status nyx__check_grad(nyx_context *ctx, const nyx_tensor *g, nyx_dtype dtype,
                           int ndim, const int64_t *shape) {
  if (g->dtype == dtype && nyx__has_shape(g, ndim, shape)) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(ctx, GRAD_SHAPE, NYX__SHAPE(g), nyx_dtype_name(g->dtype),
                    nyx__shape_text(ndim, shape, text, sizeof text),
                    nyx_dtype_name(dtype));
}

/* A dual loses its tangent: it is a constant from here on. An imaginary part is part of
 * the value. */
nyx_status nyx_tensor_detach(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  if (!t->lift) {
    NYX_TRY(nyx__tensor_alias(ctx, t, out));
    (*out)->is_view = false; /* it may have a history of its own */
    return NYX_OK;
  }
  nyx_tensor *value, *imaginary = NULL;
  NYX_TRY(nyx_tensor_detach(ctx, t->lift->value, &value));
  if (!t->lift->batch && !t->lift->is_complex) {
    *out = value;
    return NYX_OK;
  }
  nyx_status status = NYX_OK;
  if (t->lift->is_complex) status = nyx_tensor_detach(ctx, t->lift->tangent, &imaginary);
  if (status == NYX_OK) status = nyx__lift(ctx, t->lift->level, value, imaginary, out);
  nyx_tensor_release(value);
  nyx_tensor_release(imaginary);
  return status;
}
