/* Mixed precision: which inputs of an op are cast, and the casts of parameters that are
 * kept so that a layer used twice casts its weight once. Read next: apply.c. */
#include "../tensor/tensor.h"
#include "ops.h"

/* The cast of a leaf, and the version of the leaf it was made from. */
typedef struct kept_cast {
  nyx_tensor *leaf, *cast; /* retained */
  uint32_t version;
} kept_cast;

/* A hash table by the leaf's address. */
typedef struct nyx__cast_cache {
  size_t room, used; /* room: a power of two */
  kept_cast entry[];
} nyx__cast_cache;

static kept_cast *slot_of(nyx__cast_cache *cache, const nyx_tensor *leaf) {
  size_t i = (size_t)(((uintptr_t)leaf >> 4) * 0x9E3779B97F4A7C15ull >> 20);
  for (;; i++) {
    kept_cast *at = &cache->entry[i & (cache->room - 1)];
    if (!at->leaf || at->leaf == leaf) return at;
  }
}

/* A place for one more entry; false where there is no memory, and nothing is kept. */
static bool make_room(nyx_context *ctx) {
  nyx__cast_cache *old = ctx->casts;
  if (old && 2 * (old->used + 1) <= old->room) return true;
  size_t room = old ? 2 * old->room : 64;
  nyx__cast_cache *cache =
      nyx_memory_alloc_zeroed(sizeof *cache + room * sizeof *cache->entry);
  if (!cache) return false;
  cache->room = room;
  for (size_t i = 0; old && i < old->room; i++) {
    if (!old->entry[i].leaf) continue;
    *slot_of(cache, old->entry[i].leaf) = old->entry[i];
    cache->used++;
  }
  nyx_memory_free(old);
  ctx->casts = cache;
  return true;
}

void nyx__autocast_forget(nyx_context *ctx) {
  nyx__cast_cache *cache = ctx->casts;
  ctx->casts = NULL;
  for (size_t i = 0; cache && i < cache->room; i++) {
    nyx_tensor_release(cache->entry[i].cast);
    nyx_tensor_release(cache->entry[i].leaf);
  }
  nyx_memory_free(cache);
}

static nyx_status cast(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                       nyx_tensor **out) {
  const nyx_value to = NYX_I(dtype);
  return nyx__apply1(ctx, NYX__OP_cast, t, &to, out);
}

/* The cast of a leaf, from the cache where it is there and still right. */
static nyx_status cast_leaf(nyx_context *ctx, nyx_tensor *leaf, nyx_dtype dtype,
                            nyx_tensor **out) {
  uint32_t version = nyx_tensor_version(leaf);
  kept_cast *at = ctx->casts ? slot_of(ctx->casts, leaf) : NULL;
  if (at && at->leaf && at->version == version && at->cast->dtype == dtype) {
    *out = nyx_tensor_retain(at->cast);
    return NYX_OK;
  }
  NYX_TRY(cast(ctx, leaf, dtype, out));
  if (!make_room(ctx)) return NYX_OK;
  at = slot_of(ctx->casts, leaf);
  if (!at->leaf) {
    at->leaf = nyx_tensor_retain(leaf);
    ctx->casts->used++;
  }
  nyx_tensor_release(at->cast);
  at->cast = nyx_tensor_retain(*out);
  at->version = version;
  return NYX_OK;
}

/* What input t is cast to; its own dtype: it stays. */
static nyx_dtype wanted(const nyx_call *c, const nyx_tensor *t) {
  bool half = t->dtype == NYX_FLOAT16 || t->dtype == NYX_BFLOAT16;
  if (c->op->autocast == NYX_AUTOCAST_FLOAT32) return half ? NYX_FLOAT32 : t->dtype;
  return half || t->dtype == NYX_FLOAT32 ? c->ctx->autocast.dtype : t->dtype;
}

static bool is_index(const nyx_op *op, int i) {
  return i < 32 && op->index_in & NYX_SAVE(i);
}

nyx_status nyx__autocast(nyx_call *c, nyx_tensor **made, int *n_made) {
  nyx_context *ctx = c->ctx;
  if (ctx->autocast.device && ctx->autocast.device != c->device) return NYX_OK;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && !c->in[i]->weak && c->in[i]->dtype == NYX_FLOAT64) return NYX_OK;
  for (int i = 0; i < c->n_in; i++) {
    nyx_tensor *t = c->in[i];
    if (!t || t->weak || is_index(c->op, i)) continue;
    nyx_dtype dtype = wanted(c, t);
    if (dtype == t->dtype) continue;
    bool parameter =
        t->requires_grad && !t->grad_fn && !t->lift && t->dtype == NYX_FLOAT32;
    NYX_TRY(
        (parameter && ctx->grad_enabled ? cast_leaf : cast)(ctx, t, dtype, &c->in[i]));
    made[(*n_made)++] = c->in[i];
  }
  return NYX_OK;
}

nyx_autocast_mode nyx_context_autocast(const nyx_context *ctx) {
  return ctx->autocast;
}

nyx_status nyx_context_set_autocast(nyx_context *ctx, nyx_autocast_mode mode) {
  if (mode.enabled && mode.dtype != NYX_BFLOAT16 && mode.dtype != NYX_FLOAT16)
    return nyx__error(ctx, AUTOCAST_DTYPE,
                      mode.dtype < NYX_DTYPE_COUNT ? nyx_dtype_name(mode.dtype) : "?");
  if (!mode.enabled) nyx__autocast_forget(ctx);
  ctx->autocast = mode;
  return NYX_OK;
}
