/* The backward pass: collects the graph under a root, walks it from the newest node to
 * the oldest, and hands every node's gradient to its inputs. Read next: graph.h, row.c.
 */
#include <nyx/memory.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../device/device.h"
#include "../op/ops.h"
#include "../transform/lift.h"
#include "graph.h"

/* A node or a leaf that the pass reaches, with the gradients that arrived so far. */
typedef struct place {
  nyx_node *node;   /* or */
  nyx_tensor *leaf; /* one of them NULL */
  size_t
      first_grad; /* index into pass.grads: one per output of the node, one for a leaf */
  bool needed;    /* something asked for lies at or under it */
  bool kept;      /* its gradients are results of the pass */
} place;

/* A tensor inside the graph that keeps its gradient; both retained. */
typedef struct kept_grad {
  nyx_tensor *tensor, *grad;
} kept_grad;

typedef struct pass {
  nyx_context *ctx;
  bool retain, create, where_needed, cut;
  place *places;
  size_t n_places, room;
  size_t *index; /* hash table over places: position + 1, 0 empty; a power of two */
  size_t index_room;
  nyx_tensor **grads;
  size_t n_grads, grads_room;
  bool accumulate; /* into leaves, and tensors that retain their gradient */
  kept_grad *retained;
  size_t n_retained, retained_room;
} pass;

static size_t hash(const void *key) {
  return (size_t)(((uintptr_t)key >> 4) * 0x9E3779B97F4A7C15ull >> 20);
}

static const void *key_of(const place *p) {
  return p->node ? (const void *)p->node : (const void *)p->leaf;
}

void *nyx__grown(nyx_context *ctx, void *block, size_t wanted, size_t *room,
                 size_t item) {
  if (wanted <= *room) return block;
  size_t more = *room ? *room : 32;
  while (more < wanted) more *= 2;
  void *next = nyx_memory_alloc(more * item);
  if (!next) {
    nyx__fail_memory(ctx, more * item);
    return NULL;
  }
  if (*room) memcpy(next, block, *room * item);
  nyx_memory_free(block);
  *room = more;
  return next;
}

static place *find(const pass *p, const void *key) {
  if (!p->index_room) return NULL;
  for (size_t i = hash(key) & (p->index_room - 1); p->index[i];
       i = (i + 1) & (p->index_room - 1))
    if (key_of(&p->places[p->index[i] - 1]) == key) return &p->places[p->index[i] - 1];
  return NULL;
}

static nyx_status rehash(pass *p) {
  size_t room = p->index_room ? p->index_room * 2 : 64;
  size_t *index = nyx_memory_alloc_zeroed(room * sizeof *index);
  if (!index) return nyx__no_memory(p->ctx, room * sizeof *index);
  nyx_memory_free(p->index);
  p->index = index;
  p->index_room = room;
  for (size_t k = 0; k < p->n_places; k++) {
    size_t i = hash(key_of(&p->places[k])) & (room - 1);
    while (index[i]) i = (i + 1) & (room - 1);
    index[i] = k + 1;
  }
  return NYX_OK;
}

/* Adds a place unless it is known. *added says which. */
static nyx_status visit(pass *p, nyx_node *node, nyx_tensor *leaf, bool *added) {
  const void *key = node ? (const void *)node : (const void *)leaf;
  *added = false;
  if (find(p, key)) return NYX_OK;
  size_t outputs = node ? (size_t)node->n_out : 1;
  place *places =
      nyx__grown(p->ctx, p->places, p->n_places + 1, &p->room, sizeof *places);
  if (!places) return NYX_ERR_MEMORY;
  p->places = places;
  nyx_tensor **grads =
      nyx__grown(p->ctx, p->grads, p->n_grads + outputs, &p->grads_room, sizeof *grads);
  if (!grads) return NYX_ERR_MEMORY;
  p->grads = grads;
  if (2 * (p->n_places + 1) > p->index_room) NYX_TRY(rehash(p));
  p->places[p->n_places] = (place){.node = node, .leaf = leaf, .first_grad = p->n_grads};
  for (size_t i = 0; i < outputs; i++) p->grads[p->n_grads++] = NULL;
  size_t i = hash(key) & (p->index_room - 1);
  while (p->index[i]) i = (i + 1) & (p->index_room - 1);
  p->index[i] = ++p->n_places;
  *added = true;
  return NYX_OK;
}

/* Newest first; leaves last. */
static int newer(const void *a, const void *b) {
  const place *x = a, *y = b;
  uint64_t ox = x->node ? x->node->order : 0, oy = y->node ? y->node->order : 0;
  return ox < oy ? 1 : ox > oy ? -1 : 0;
}

/* All places under the root, newest first. Places are visited in the order they are
 * found: the array itself is the queue. */
static nyx_status collect(pass *p, nyx_tensor *root) {
  bool added;
  NYX_TRY(visit(p, root->grad_fn, root->grad_fn ? NULL : root, &added));
  for (size_t k = 0; k < p->n_places; k++) {
    nyx_node *node = p->places[k].node;
    for (int i = 0; node && i < node->n_in; i++)
      if (node->edge[i].node || node->edge[i].leaf)
        NYX_TRY(visit(p, node->edge[i].node, node->edge[i].leaf, &added));
  }
  qsort(p->places, p->n_places, sizeof *p->places, newer);
  memset(p->index, 0, p->index_room * sizeof *p->index);
  for (size_t k = 0; k < p->n_places; k++) {
    size_t i = hash(key_of(&p->places[k])) & (p->index_room - 1);
    while (p->index[i]) i = (i + 1) & (p->index_room - 1);
    p->index[i] = k + 1;
  }
  return NYX_OK;
}

static place *target_of(const pass *p, const nyx_edge *e) {
  if (!e->node && !e->leaf) return NULL;
  return find(p, e->node ? (const void *)e->node : (const void *)e->leaf);
}

/* Adds g (given away) to *slot. A sum that nobody else sees is extended in place. */
static nyx_status accumulate(pass *p, nyx_tensor **slot, nyx_tensor *g) {
  if (!*slot) {
    *slot = g;
    return NYX_OK;
  }
  nyx_tensor *sum[1] = {NULL};
  bool mine = !p->create && !(*slot)->lift && !g->lift &&
              atomic_load(&(*slot)->refs) == 1 &&
              atomic_load(&(*slot)->storage->refs) == 1 && nyx__is_contiguous(*slot);
  if (mine) sum[0] = *slot;
  nyx_status status =
      nyx_apply(p->ctx, nyx__op(NYX__OP_add), (nyx_tensor *[]){*slot, g}, 2, NULL, sum);
  nyx_tensor_release(g);
  if (status == NYX_OK && !mine) {
    nyx_tensor_release(*slot);
    *slot = sum[0];
  }
  return status;
}

/* Saved values as the gradient sees them; fails when one was changed since. They get
 * their history back when the pass itself is recorded. */
static nyx_status unpack(pass *p, nyx_node *node, nyx_tensor **values) {
  for (int i = 0; i < node->n_saved; i++) values[i] = NULL;
  for (int i = 0; i < node->n_saved; i++) {
    const nyx_saved *saved = &node->saved[i];
    const nyx_storage *storage = nyx__saved_storage(saved);
    if (!storage) continue;
    if (atomic_load_explicit(&storage->version, memory_order_relaxed) != saved->version)
      return nyx__error(p->ctx, GRAD_CHANGED, node->op->name);
    NYX_TRY(nyx__saved_value(p->ctx, node, i, p->create, &values[i]));
  }
  return NYX_OK;
}

static void release_all(nyx_tensor **t, int n) {
  for (int i = 0; i < n; i++) nyx_tensor_release(t[i]);
}

/* Fails when g holds a NaN, in any entry of a batch. Not recorded. */
static nyx_status check_nan(pass *p, const nyx_node *node, int input, nyx_tensor *g) {
  for (; g->lift; g = g->lift->value)
    if (g->lift->tangent) NYX_TRY(check_nan(p, node, input, g->lift->tangent));
  nyx_tensor *nans = NULL, *any = NULL;
  int64_t found = 0;
  p->ctx->grad_enabled = false;
  nyx_status status = nyx__apply1(p->ctx, NYX__OP_isnan, g, NULL, &nans);
  if (status == NYX_OK) status = nyx__apply1(p->ctx, NYX__OP_any, nans, NULL, &any);
  if (status == NYX_OK) status = nyx_tensor_item_int(p->ctx, any, &found);
  p->ctx->grad_enabled = p->create;
  nyx_tensor_release(nans);
  nyx_tensor_release(any);
  if (status != NYX_OK || !found) return status;
  return nyx__error(p->ctx, ANOMALY_NAN, node->op->name, input + p->ctx->index_base,
                    node->origin ? "; it was applied at " : "",
                    node->origin ? node->origin : "");
}

static nyx_status check_input_grad(pass *p, const nyx_node *node, int input,
                                   const nyx_tensor *g) {
  const nyx_spec *s = &node->spec[input];
  if (nyx__check_grad(NULL, g, s->dtype, s->ndim, s->shape) == NYX_OK) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(p->ctx, FUNCTION_GRAD, node->op->name, NYX__SHAPE(g),
                    nyx_dtype_name(g->dtype), input + p->ctx->index_base,
                    nyx__shape_text(s->ndim, s->shape, text, sizeof text),
                    nyx_dtype_name(s->dtype));
}

/* Hands the gradients of a node's inputs on. All of them are given away. */
static nyx_status hand_on(pass *p, const nyx_node *node, const bool *need,
                          nyx_tensor **grad_in, nyx_status status) {
  for (int i = 0; i < node->n_in; i++) {
    nyx_tensor *g = grad_in[i];
    if (!g) continue;
    if (status == NYX_OK && need[i]) status = check_input_grad(p, node, i, g);
    if (status == NYX_OK && need[i] && p->ctx->anomaly) status = check_nan(p, node, i, g);
    if (status == NYX_OK && need[i]) {
      place *to = target_of(p, &node->edge[i]);
      status = accumulate(p, &p->grads[to->first_grad + (size_t)node->edge[i].index], g);
    } else {
      nyx_tensor_release(g);
    }
  }
  return status;
}

/* Runs one node: computes the gradients of its inputs and hands them on. */
static nyx_status run_node(pass *p, place *at) {
  nyx_node *node = at->node;
  nyx_tensor *values[3 * NYX_MAX_INPUTS]; /* the first n_saved are set */
  nyx_tensor *grad_in[NYX_MAX_INPUTS] = {NULL};
  bool need[NYX_MAX_INPUTS];
  bool any = false;
  for (int i = 0; i < node->n_in; i++) {
    place *to = target_of(p, &node->edge[i]);
    need[i] = to && to->needed;
    any |= need[i];
  }
  if (!any) return NYX_OK;
  if (node->freed) return nyx__error(p->ctx, GRAD_FREED);
  nyx_backward b = {.ctx = p->ctx,
                    .op = node->op,
                    .attr = node->attr,
                    .n_in = node->n_in,
                    .n_out = node->n_out,
                    .in = values,
                    .out = values + node->n_in,
                    .in_spec = node->spec,
                    .out_spec = node->spec + node->n_in,
                    .grad_out = p->grads + at->first_grad,
                    .need = need,
                    .grad_in = grad_in,
                    .payload = node->payload,
                    .saved = values + node->n_in + node->n_out,
                    .n_saved = node->n_saved - node->n_in - node->n_out};
  nyx_status status = unpack(p, node, values);
  if (status == NYX_OK) status = node->op->gradient(&b);
  release_all(values, node->n_saved);
  status = hand_on(p, node, need, grad_in, status);
  if (!p->retain) nyx__node_drop_saved(node);
  return status;
}

/* Keeps the gradients that tensors in the graph asked for until the pass has succeeded.
 */
static nyx_status retain_grads(pass *p, const place *at) {
  const nyx__hook *h = NULL;
  nyx_tensor *t;
  int i;
  while ((h = nyx__hooks_next_retained(at->node, h, &t, &i)) != NULL) {
    nyx_tensor *g = p->grads[at->first_grad + (size_t)i];
    if (!g) continue;
    kept_grad *retained = nyx__grown(p->ctx, p->retained, p->n_retained + 1,
                                     &p->retained_room, sizeof *retained);
    if (!retained) return NYX_ERR_MEMORY;
    p->retained = retained;
    p->retained[p->n_retained++] =
        (kept_grad){nyx_tensor_retain(t), nyx_tensor_retain(g)};
  }
  return NYX_OK;
}

/* The hooks of a place whose gradients are complete. */
static nyx_status run_hooks(pass *p, const place *at) {
  nyx__hook *const *list = at->node ? &at->node->hooks : &at->leaf->hooks;
  const char *owner = at->node ? at->node->op->name : "a leaf";
  int n = at->node ? at->node->n_out : 1;
  for (int i = 0; i < n && *list; i++) {
    nyx_tensor **grad = &p->grads[at->first_grad + (size_t)i];
    if (*grad) NYX_TRY(nyx__hooks_run(p->ctx, list, i, owner, grad));
  }
  return at->node && at->node->hooks && p->accumulate ? retain_grads(p, at) : NYX_OK;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A step of the pass under the eyes of the profiler. `node` NULL: delivery. */
typedef struct watch {
  const nyx_profiler *profiler;
  double begin;
  uint64_t handed;
} watch;

static watch watch_begin(const pass *p) {
  watch w = {p->ctx->profiler, 0, 0};
  if (!w.profiler) return w;
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  w.handed = stats.handed;
  w.begin = now();
  return w;
}

static void watch_end(const watch *w, const char *name) {
  if (!w->profiler) return;
  nyx_profile_step step = {.name = name, .seconds = now() - w->begin};
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  step.bytes = stats.handed - w->handed;
  w->profiler->step(w->profiler->arg, &step);
}

/* Marks what leads to something asked for: oldest first, so inputs come before users. */
static void mark_needed(pass *p) {
  for (size_t k = p->n_places; k-- > 0;) {
    place *at = &p->places[k];
    for (int i = 0; at->node && !at->needed && i < at->node->n_in; i++) {
      place *to = target_of(p, &at->node->edge[i]);
      if (to && to->needed) at->needed = true;
    }
  }
}

static nyx_status seed_of(pass *p, nyx_tensor *root, nyx_tensor *seed, nyx_tensor **out) {
  if (!root->requires_grad) return nyx__error(p->ctx, GRAD_NONE);
  if (seed) {
    NYX_TRY(nyx__check_grad(p->ctx, seed, root->dtype, root->ndim, root->shape));
    *out = nyx_tensor_retain(seed);
    return NYX_OK;
  }
  if (root->numel != 1) return nyx__error(p->ctx, GRAD_SCALAR, NYX__SHAPE(root));
  if (nyx__complex_dtype(root->dtype))
    return nyx__error(p->ctx, GRAD_COMPLEX, nyx_dtype_name(root->dtype));
  nyx_tensor *one;
  NYX_TRY(nyx_tensor_scalar(p->ctx, 1, root->dtype, true, &one));
  nyx_status status = nyx_tensor_empty_on(p->ctx, root->storage->device, root->dtype,
                                          root->ndim, root->shape, out);
  if (status == NYX_OK) status = nyx__copy_into(p->ctx, one, *out);
  if (status != NYX_OK) nyx_tensor_release(*out);
  nyx_tensor_release(one);
  return status;
}

/* Runs every needed node, newest first. The gradients of leaves, and of places that are
 * kept, stay in p->grads. */
static nyx_status walk(pass *p) {
  for (size_t k = 0; k < p->n_places; k++) {
    place *at = &p->places[k];
    if (!at->needed || (p->cut && at->kept)) continue;
    bool arrived = false;
    int n = at->node ? at->node->n_out : 1;
    for (int i = 0; i < n; i++) arrived |= p->grads[at->first_grad + (size_t)i] != NULL;
    if (!arrived) continue;
    if (at->node ? at->node->hooks : at->leaf->hooks) NYX_TRY(run_hooks(p, at));
    if (!at->node) continue;
    watch w = watch_begin(p);
    NYX_TRY(run_node(p, at));
    for (int i = 0; i < n && !at->kept; i++) {
      nyx_tensor **grad = &p->grads[at->first_grad + (size_t)i];
      nyx_tensor_release(*grad);
      *grad = NULL;
    }
    watch_end(&w, at->node->op->name);
  }
  return NYX_OK;
}

static bool adds_in_place(const pass *p, const nyx_tensor *leaf) {
  const nyx_tensor *sum = leaf->grad;
  return sum && !p->create && !sum->requires_grad && !nyx__complex_dtype(sum->dtype) &&
         !nyx__overlaps(sum->ndim, sum->shape, sum->stride);
}

/* sum += g; neither interrupted nor short of memory. */
static nyx_status add_to(nyx_context *ctx, nyx_tensor *sum, nyx_tensor *g) {
  nyx_elementwise job = {.row = nyx__row(NYX__OP_add),
                         .compute = nyx__compute_dtype(sum->dtype),
                         .in = {sum, g},
                         .out = sum};
  nyx_device *device = sum->storage->device;
  NYX_TRY(device->elementwise(ctx, device, &job));
  nyx_tensor_touch(sum);
  return NYX_OK;
}

/* Whether nobody else can see or write g, which lies in memory as the leaf does. */
static bool is_own(const nyx_tensor *leaf, const nyx_tensor *g) {
  if (atomic_load(&g->refs) != 1 || atomic_load(&g->storage->refs) != 1) return false;
  if (nyx__lies_last(leaf->ndim, leaf->shape, leaf->stride))
    return nyx_tensor_is_channels_last(g);
  return nyx__is_contiguous(g);
}

static nyx_status copy_like(nyx_context *ctx, const nyx_tensor *leaf, nyx_tensor *g,
                            nyx_tensor **out) {
  bool last = nyx__lies_last(leaf->ndim, leaf->shape, leaf->stride);
  const nyx_value format = last ? NYX_S("channels_last") : NYX_S("contiguous");
  return nyx__apply1(ctx, NYX__OP_relayout, g, &format, out);
}

/* Whether g lies in the gradient of a leaf that is about to change. */
static bool is_some_grad(const pass *p, const nyx_tensor *g) {
  if (atomic_load(&g->refs) == 1 && atomic_load(&g->storage->refs) == 1) return false;
  for (size_t k = 0; k < p->n_places; k++) {
    const nyx_tensor *leaf = p->places[k].leaf;
    if (leaf && leaf->grad && leaf->grad->storage == g->storage) return true;
  }
  for (size_t i = 0; i < p->n_retained; i++) {
    const nyx_tensor *grad = p->retained[i].tensor->grad;
    if (grad && grad->storage == g->storage) return true;
  }
  return false;
}

/* Makes *slot what will become the leaf's gradient, unless that is added to in place.
 * What others can see or write is copied: a gradient is the leaf's own. */
static nyx_status prepare_leaf(pass *p, nyx_tensor *leaf, nyx_tensor **slot) {
  nyx_tensor *g = *slot, *made = NULL;
  if (adds_in_place(p, leaf)) {
    if (!is_some_grad(p, g)) return NYX_OK;
    NYX_TRY(copy_like(p->ctx, leaf, g, &made));
  } else if (leaf->grad) {
    NYX_TRY(nyx__apply2(p->ctx, NYX__OP_add, leaf->grad, g, NULL, &made));
  } else {
    if (is_own(leaf, g)) return NYX_OK;
    NYX_TRY(copy_like(p->ctx, leaf, g, &made));
  }
  nyx_tensor_release(g);
  *slot = made;
  return NYX_OK;
}

static nyx_status give(const pass *p, nyx_tensor *leaf, nyx_tensor **slot) {
  if (adds_in_place(p, leaf)) return add_to(p->ctx, leaf->grad, *slot);
  nyx_tensor_release(leaf->grad);
  leaf->grad = *slot;
  *slot = NULL;
  return NYX_OK;
}

/* Gives every leaf its gradient, and what retains one. All that can fail or be
 * interrupted comes first, so that a failure leaves all as they were. */
static nyx_status deliver(pass *p) {
  for (size_t k = 0; k < p->n_places; k++) {
    nyx_tensor **slot = &p->grads[p->places[k].first_grad];
    if (p->places[k].leaf && *slot) NYX_TRY(prepare_leaf(p, p->places[k].leaf, slot));
  }
  for (size_t i = 0; i < p->n_retained; i++)
    NYX_TRY(prepare_leaf(p, p->retained[i].tensor, &p->retained[i].grad));
  for (size_t k = 0; k < p->n_places; k++) {
    nyx_tensor *leaf = p->places[k].leaf, **slot = &p->grads[p->places[k].first_grad];
    if (leaf && *slot) NYX_TRY(give(p, leaf, slot));
  }
  for (size_t i = 0; i < p->n_retained; i++)
    NYX_TRY(give(p, p->retained[i].tensor, &p->retained[i].grad));
  return NYX_OK;
}

/* deliver, and what waits for it. A leaf whose gradient did not arrive is left out. */
static nyx_status accumulate_leaves(pass *p) {
  for (size_t k = 0; k < p->n_places; k++) {
    place *at = &p->places[k];
    at->kept = at->leaf && p->grads[at->first_grad];
  }
  watch w = watch_begin(p);
  NYX_TRY(deliver(p));
  watch_end(&w, "accumulate");
  for (size_t k = 0; k < p->n_places; k++) {
    const place *at = &p->places[k];
    if (at->kept && at->leaf->hooks) NYX_TRY(nyx__hooks_run_post(p->ctx, at->leaf));
  }
  return NYX_OK;
}

/* Where the gradient of an input of nyx_gradients arrives; NULL: the root does not depend
 * on it. */
static nyx_tensor **slot_of(const pass *p, nyx_tensor *t) {
  nyx_edge edge = nyx__edge_of(t);
  place *at = target_of(p, &edge);
  return at ? &p->grads[at->first_grad + (size_t)edge.index] : NULL;
}

/* Marks what leads to the inputs. */
static void ask_for(pass *p, nyx_tensor *const *inputs, int n) {
  for (int i = 0; i < n; i++) {
    nyx_edge edge = nyx__edge_of(inputs[i]);
    place *at = target_of(p, &edge);
    if (at) at->needed = at->kept = true;
  }
  mark_needed(p);
}

/* Whether the graph has leaves that nothing was asked for. */
static bool depends_on_others(const pass *p) {
  for (size_t k = 0; k < p->n_places; k++)
    if (p->places[k].leaf && !p->places[k].needed) return true;
  return false;
}

static nyx_status run(pass *p, nyx_tensor *root, nyx_tensor *seed,
                      nyx_tensor *const *inputs, int n, nyx_tensor **grads) {
  nyx_tensor *first;
  NYX_TRY(seed_of(p, root, seed, &first));
  nyx_status status = collect(p, root);
  if (status != NYX_OK) {
    nyx_tensor_release(first);
    return status;
  }
  *slot_of(p, root) = first;
  for (size_t k = 0; !inputs && k < p->n_places; k++)
    p->places[k].needed = p->places[k].leaf != NULL;
  ask_for(p, inputs, n);
  if (p->where_needed && depends_on_others(p))
    p->create = p->retain = p->ctx->grad_enabled = true;
  NYX_TRY(walk(p));
  if (!inputs) return accumulate_leaves(p);
  for (int i = 0; i < n; i++) {
    nyx_tensor **slot = slot_of(p, inputs[i]);
    grads[i] = slot ? nyx_tensor_retain(*slot) : NULL;
  }
  return NYX_OK;
}

/* Whatever hooks drop: the graph under root stays until the end. */
static void free_pass(pass *p) {
  for (size_t i = 0; i < p->n_grads; i++) nyx_tensor_release(p->grads[i]);
  for (size_t i = 0; i < p->n_retained; i++) {
    nyx_tensor_release(p->retained[i].tensor);
    nyx_tensor_release(p->retained[i].grad);
  }
  nyx_memory_free(p->retained);
  nyx_memory_free(p->grads);
  nyx_memory_free(p->places);
  nyx_memory_free(p->index);
}

nyx_status nyx__depends_on_others(nyx_context *ctx, nyx_tensor *root,
                                  nyx_tensor *const *inputs, int n, bool *others) {
  pass p = {.ctx = ctx};
  nyx_status status = collect(&p, root);
  if (status == NYX_OK) {
    ask_for(&p, inputs, n);
    *others = depends_on_others(&p);
  }
  free_pass(&p);
  return status;
}

static nyx_status backward(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                           nyx_tensor *const *inputs, int n,
                           const nyx_backward_options *options, nyx_tensor **grads) {
  pass p = {.ctx = ctx, .accumulate = inputs == NULL};
  NYX_TRY(nyx__view_current(ctx, root));
  for (int i = 0; i < n; i++) NYX_TRY(nyx__view_current(ctx, inputs[i]));
  nyx_node *top = root->grad_fn;
  if (top) atomic_fetch_add_explicit(&top->refs, 1, memory_order_relaxed);
  nyx_tensor_retain(root);
  for (int i = 0; i < n; i++) nyx_tensor_retain(inputs[i]);
  p.create = options && options->create_graph;
  p.where_needed = options && options->where_needed && ctx->grad_enabled;
  p.cut = options && options->cut;
  p.retain = options && (options->retain_graph || options->create_graph);
  bool enabled = ctx->grad_enabled;
  const char *where = ctx->where;
  bool inside = ctx->inside;
  nyx_autocast_mode autocast = ctx->autocast; /* gradients are of the dtypes recorded */
  nyx__autocast_forget(ctx); /* this pass may free the graph of what was kept */
  ctx->autocast.enabled = false;
  ctx->grad_enabled = p.create;
  ctx->where = "backward";
  ctx->inside = false;
  nyx_status status = run(&p, root, seed, inputs, n, grads);
  ctx->grad_enabled = enabled;
  ctx->where = where;
  ctx->inside = inside;
  ctx->autocast = autocast;
  for (int i = 0; i < n; i++) nyx_tensor_release(inputs[i]);
  nyx_tensor_release(root);
  nyx__node_release(top);
  free_pass(&p);
  return status;
}

nyx_status nyx_backward_run(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                            const nyx_backward_options *options) {
  if (root->lift || (seed && seed->lift)) return nyx__error(ctx, GRAD_LIFTED);
  return backward(ctx, root, seed, NULL, 0, options, NULL);
}

nyx_status nyx_gradients(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                         nyx_tensor *const *inputs, int n,
                         const nyx_backward_options *options, nyx_tensor **grads) {
  for (int i = 0; i < n; i++) grads[i] = NULL;
  if (nyx__lifted_pass(root, seed, inputs, n))
    return nyx__lifted_gradients(ctx, root, seed, inputs, n, options, grads);
  return backward(ctx, root, seed, inputs, n, options, grads);
}
