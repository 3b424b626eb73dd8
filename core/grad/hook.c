/* Hooks: what hosts ask to be told during a backward pass, and tensors that keep their
 * gradient. A list of hooks belongs to a leaf, or to the node that made a tensor, so that
 * it outlives the tensor. Read next: graph.h, backward.c (when they run). */
#include <nyx/memory.h>
#include <string.h>

#include "../device/device.h"
#include "graph.h"

typedef enum hook_kind { HOOK_GRAD, HOOK_POST, HOOK_RETAIN } hook_kind;

/* An entry of a list, in the order they came. The list holds one reference, the host's
 * handle another, a running hook a third: hooks may remove themselves. */
struct nyx_hook_handle {
  atomic_int refs;
  hook_kind kind;
  int index;       /* which output of the node */
  uint64_t number; /* rises along a list */
  nyx_hook hook;
  nyx_tensor
      *tensor;      /* HOOK_RETAIN: who keeps the gradient; it leaves when it is freed */
  nyx__hook **list; /* NULL: in none */
  nyx__hook *next;
};

static void entry_release(nyx__hook *h) {
  if (!h || atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1) return;
  nyx_memory_free(h);
}

/* Tells the host once that the hook will not run again. */
static void finish(nyx__hook *h) {
  void (*done)(void *) = h->hook.free;
  h->hook.free = NULL;
  if (done) done(h->hook.arg);
}

static void append(nyx__hook **list, nyx__hook *h) {
  nyx__hook **link = list;
  uint64_t last = 0;
  for (; *link; link = &(*link)->next) last = (*link)->number;
  h->number = last + 1;
  h->list = list;
  h->next = NULL;
  *link = h;
}

static void unlink_entry(nyx__hook *h) {
  nyx__hook **link = h->list;
  while (*link != h) link = &(*link)->next;
  *link = h->next;
  h->list = NULL;
  h->next = NULL;
}

static nyx_status add(nyx_context *ctx, nyx_tensor *t, hook_kind kind,
                      const nyx_hook *hook, nyx_hook_handle **handle) {
  nyx__hook *h = nyx_memory_alloc(sizeof *h);
  if (!h) return nyx__no_memory(ctx, sizeof *h);
  atomic_init(&h->refs, handle ? 2 : 1);
  h->kind = kind;
  h->index = t->grad_fn ? t->out_index : 0;
  h->hook = hook ? *hook : (nyx_hook){NULL, NULL, NULL};
  h->tensor = kind == HOOK_RETAIN ? t : NULL;
  append(t->grad_fn ? &t->grad_fn->hooks : &t->hooks, h);
  if (handle) *handle = h;
  return NYX_OK;
}

nyx_status nyx_tensor_register_hook(nyx_context *ctx, nyx_tensor *t, const nyx_hook *hook,
                                    nyx_hook_handle **handle) {
  if (t->lift) return nyx__error(ctx, HOOK_LIFTED, "register_hook");
  NYX_TRY(nyx__view_current(ctx, t));
  if (!t->requires_grad) return nyx__error(ctx, HOOK_NO_GRAD, "register_hook");
  if (t->grad_fn && t->grad_fn->freed) return nyx__error(ctx, GRAD_FREED);
  return add(ctx, t, HOOK_GRAD, hook, handle);
}

nyx_status nyx_tensor_register_post_accumulate_hook(nyx_context *ctx, nyx_tensor *leaf,
                                                    const nyx_hook *hook,
                                                    nyx_hook_handle **handle) {
  if (leaf->lift)
    return nyx__error(ctx, HOOK_LIFTED, "register_post_accumulate_grad_hook");
  NYX_TRY(nyx__view_current(ctx, leaf));
  if (!leaf->requires_grad)
    return nyx__error(ctx, HOOK_NO_GRAD, "register_post_accumulate_grad_hook");
  if (leaf->grad_fn) return nyx__error(ctx, HOOK_LEAF, leaf->grad_fn->op->name);
  return add(ctx, leaf, HOOK_POST, hook, handle);
}

void nyx_hook_remove(nyx_hook_handle *h) {
  if (!h->list) return;
  unlink_entry(h);
  finish(h);
  entry_release(h);
}

void nyx_hook_release(nyx_hook_handle *h) {
  entry_release(h);
}

nyx_status nyx_tensor_retain_grad(nyx_context *ctx, nyx_tensor *t) {
  if (t->lift) return nyx__error(ctx, HOOK_LIFTED, "retain_grad");
  NYX_TRY(nyx__view_current(ctx, t));
  if (!t->requires_grad) return nyx__error(ctx, HOOK_NO_GRAD, "retain_grad");
  if (!t->grad_fn || t->retains_grad) return NYX_OK;
  NYX_TRY(add(ctx, t, HOOK_RETAIN, NULL, NULL));
  t->retains_grad = true;
  return NYX_OK;
}

bool nyx_tensor_retains_grad(const nyx_tensor *t) {
  return t->retains_grad;
}

void nyx__hooks_move(nyx_tensor *t, nyx_node *to, int index) {
  nyx__hook *h = t->grad_fn ? t->grad_fn->hooks : NULL;
  while (h && h->tensor != t) h = h->next;
  t->retains_grad = false;
  if (!h) return;
  unlink_entry(h);
  if (!to) {
    entry_release(h);
    return;
  }
  h->index = index;
  append(&to->hooks, h);
  t->retains_grad = true;
}

bool nyx__hooks_drop(nyx__hook **list, bool functions) {
  bool any = false;
  /* What a hook frees may come back here for the same list: nothing is kept over it. */
  for (nyx__hook *h = *list; h;) {
    if (functions && h->kind == HOOK_RETAIN) {
      h = h->next;
      continue;
    }
    any = true;
    unlink_entry(h);
    finish(h);
    entry_release(h);
    h = *list;
  }
  return any;
}

const nyx__hook *nyx__hooks_next_retained(const nyx_node *node, const nyx__hook *after,
                                          nyx_tensor **t, int *index) {
  const nyx__hook *h = after ? after->next : node->hooks;
  while (h && h->kind != HOOK_RETAIN) h = h->next;
  if (h) *t = h->tensor;
  if (h) *index = h->index;
  return h;
}

/* The first hook of a kind and output numbered after..last, retained; NULL: none. */
static nyx__hook *take(nyx__hook *const *list, hook_kind kind, int index, uint64_t after,
                       uint64_t last) {
  nyx__hook *h = *list;
  while (h && (h->number <= after || h->kind != kind || h->index != index)) h = h->next;
  if (!h || h->number > last) return NULL;
  atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
  return h;
}

static uint64_t last_number(const nyx__hook *h) {
  uint64_t last = 0;
  for (; h; h = h->next) last = h->number;
  return last;
}

/* Calls one hook. Whatever it does to the context is put back. */
static nyx_status call(nyx_context *ctx, const nyx__hook *h, nyx_tensor *grad,
                       nyx_tensor **replacement) {
  bool enabled = ctx->grad_enabled, inside = ctx->inside;
  const char *where = ctx->where;
  nyx_status status = h->hook.call(ctx, h->hook.arg, grad, replacement);
  ctx->grad_enabled = enabled;
  ctx->inside = inside;
  ctx->where = where;
  return status;
}

static nyx_status check(nyx_context *ctx, const char *owner, const nyx_tensor *old,
                        const nyx_tensor *g) {
  if (g->dtype == old->dtype && g->ndim == old->ndim &&
      g->storage->device == old->storage->device &&
      memcmp(g->shape, old->shape, (size_t)g->ndim * sizeof *g->shape) == 0)
    return NYX_OK;
  return nyx__error(ctx, HOOK_GRAD, owner, NYX__SHAPE(g), nyx_dtype_name(g->dtype),
                    g->storage->device->name, NYX__SHAPE(old), nyx_dtype_name(old->dtype),
                    old->storage->device->name);
}

nyx_status nyx__hooks_run(nyx_context *ctx, nyx__hook *const *list, int index,
                          const char *owner, nyx_tensor **grad) {
  uint64_t last = last_number(*list), done = 0;
  nyx_status status = NYX_OK;
  for (nyx__hook *h;
       status == NYX_OK && (h = take(list, HOOK_GRAD, index, done, last)) != NULL;) {
    nyx_tensor *given = NULL;
    done = h->number;
    status = call(ctx, h, *grad, &given);
    if (status == NYX_OK && given) status = check(ctx, owner, *grad, given);
    if (status == NYX_OK && given) {
      nyx_tensor_release(*grad);
      *grad = given;
    } else {
      nyx_tensor_release(given);
    }
    entry_release(h);
  }
  return status;
}

nyx_status nyx__hooks_run_post(nyx_context *ctx, nyx_tensor *leaf) {
  uint64_t last = last_number(leaf->hooks), done = 0;
  nyx_status status = NYX_OK;
  for (nyx__hook *h;
       status == NYX_OK && (h = take(&leaf->hooks, HOOK_POST, 0, done, last)) != NULL;) {
    nyx_tensor *given = NULL;
    done = h->number;
    status = call(ctx, h, leaf, &given);
    nyx_tensor_release(given);
    entry_release(h);
  }
  return status;
}
