/* Functions with gradients of the host's own (core/grad/function.c) on lifted tensors:
 * the graph holds plain tensors, so the highest level is taken off and the function is
 * recorded below, as one that puts the level back before it calls the host. Its tangents
 * come from its gradient, as those of ops do. Read next: forward.c, batch.c. */
#include <string.h>

#include "../grad/graph.h"
#include "lift.h"

/* The tensors of one recording: what the host gave, or that without the highest level. */
typedef struct tensors {
  nyx_tensor *in[NYX_MAX_INPUTS], *out[NYX_MAX_INPUTS], *saved[NYX_MAX_INPUTS];
  int n, n_out, n_saved;
} tensors;

static bool at(const nyx_tensor *t, nyx_level level) {
  return nyx__level_of(t) == level;
}

static void lower(nyx_tensor *const *from, nyx_tensor **to, int n, nyx_level level) {
  for (int i = 0; i < n; i++) to[i] = at(from[i], level) ? from[i]->lift->value : from[i];
}

/* ------------------------------------------------------------------ batches */

typedef uint64_t mask; /* of inputs, outputs or saved values */
_Static_assert(NYX_MAX_INPUTS <= 64, "a bit for each");

/* The payload of a function recorded below a batch. */
typedef struct entries {
  nyx_function inner; /* of one entry; its payload is owned */
  int64_t size;
  mask in, out, saved; /* which have entries */
  char name[];
} entries;

static void free_entries(void *payload) {
  entries *e = payload;
  if (e->inner.free) e->inner.free(e->inner.payload);
  nyx_memory_free(e);
}

static mask mask_of(nyx_tensor *const *t, int n, nyx_level level) {
  mask m = 0;
  for (int i = 0; i < n; i++)
    if (at(t[i], level)) m |= (mask)1 << i;
  return m;
}

/* Lifts those of from[n] that have entries. */
static nyx_status lift_entries(nyx_context *ctx, nyx_tensor *const *from, int n, mask m,
                               nyx_level level, nyx_tensor **to) {
  for (int i = 0; i < n; i++) {
    if (from[i] && m >> i & 1)
      NYX_TRY(nyx__put_batch(ctx, from[i], level, &to[i]));
    else
      to[i] = nyx_tensor_retain(from[i]);
  }
  return NYX_OK;
}

static void spec_of_entry(const nyx_spec *from, int n, mask m, nyx_spec *to) {
  for (int i = 0; i < n; i++) {
    to[i] = from[i];
    if (!(m >> i & 1) || to[i].ndim == 0) continue;
    to[i].ndim--;
    memmove(to[i].shape, to[i].shape + 1, (size_t)to[i].ndim * sizeof *to[i].shape);
  }
}

/* The gradient of an input from that of its entries; an input that all entries share gets
 * the sum. */
static nyx_status lower_gradient(nyx_context *ctx, nyx_tensor *g, bool own,
                                 nyx_level level, nyx_tensor **out) {
  nyx_tensor *full;
  NYX_TRY(nyx__take_batch(ctx, g, level, &full));
  if (own) {
    *out = full;
    return NYX_OK;
  }
  const int64_t first = 0;
  const nyx_value sum[] = {NYX_LIST(&first, 1), NYX_I(0)};
  nyx_status status = nyx__apply1(ctx, NYX__OP_sum, full, sum, out);
  nyx_tensor_release(full);
  return status;
}

static void release_all(nyx_tensor **t, int n) {
  for (int i = 0; i < n; i++) nyx_tensor_release(t[i]);
}

/* The gradient of a function recorded below a batch: that of every entry. */
static nyx_status entries_backward(nyx_backward *b) {
  const entries *e = b->payload;
  nyx_context *ctx = b->ctx;
  nyx_tensor *grad_out[NYX_MAX_INPUTS] = {NULL}, *saved[NYX_MAX_INPUTS] = {NULL};
  nyx_tensor *grad_in[NYX_MAX_INPUTS] = {NULL};
  nyx_spec in_spec[NYX_MAX_INPUTS], out_spec[NYX_MAX_INPUTS];
  nyx_level level;
  NYX_TRY(nyx_batch_begin(ctx, e->size, &level));
  spec_of_entry(b->in_spec, b->n_in, e->in, in_spec);
  spec_of_entry(b->out_spec, b->n_out, e->out, out_spec);
  nyx_backward inner = *b;
  inner.in_spec = in_spec;
  inner.out_spec = out_spec;
  inner.grad_out = grad_out;
  inner.grad_in = grad_in;
  inner.saved = saved;
  inner.payload = e->inner.payload;
  nyx_status status = lift_entries(ctx, b->grad_out, b->n_out, e->out, level, grad_out);
  if (status == NYX_OK)
    status = lift_entries(ctx, b->saved, b->n_saved, e->saved, level, saved);
  if (status == NYX_OK) status = e->inner.backward(&inner);
  for (int i = 0; status == NYX_OK && i < b->n_in; i++)
    if (grad_in[i] && b->need[i])
      status = lower_gradient(ctx, grad_in[i], e->in >> i & 1, level, &b->grad_in[i]);
  nyx_transform_end(ctx, level);
  release_all(grad_in, b->n_in);
  release_all(grad_out, b->n_out);
  release_all(saved, b->n_saved);
  return status;
}

static int64_t size_of(const tensors *t, nyx_level level) {
  for (int i = 0; i < t->n; i++)
    if (at(t->in[i], level)) return t->in[i]->lift->value->shape[0];
  for (int i = 0; i < t->n_out; i++)
    if (at(t->out[i], level)) return t->out[i]->lift->value->shape[0];
  for (int i = 0; i < t->n_saved; i++)
    if (at(t->saved[i], level)) return t->saved[i]->lift->value->shape[0];
  return 0;
}

static nyx_status record_below(nyx_context *ctx, const nyx_function *f, const tensors *t,
                               nyx_level level) {
  tensors to = *t;
  lower(t->in, to.in, t->n, level);
  lower(t->out, to.out, t->n_out, level);
  lower(t->saved, to.saved, t->n_saved, level);
  return nyx_record_function(ctx, f, to.in, to.n, to.out, to.n_out, to.saved, to.n_saved);
}

static nyx_status record_batch(nyx_context *ctx, const nyx_function *f, const tensors *t,
                               nyx_level level) {
  nyx_status status = NYX_OK;
  for (int k = 0; status == NYX_OK && k < t->n_out; k++)
    if (t->out[k] && !at(t->out[k], level))
      status = nyx__lift_in_place(ctx, t->out[k], level, NULL);
  size_t bytes = sizeof(entries) + strlen(f->name) + 1;
  entries *e = status == NYX_OK ? nyx_memory_alloc(bytes) : NULL;
  if (!e) {
    if (f->free) f->free(f->payload);
    return status == NYX_OK ? nyx__no_memory(ctx, bytes) : status;
  }
  e->inner = *f;
  e->inner.name = strcpy(e->name, f->name);
  e->size = size_of(t, level);
  e->in = mask_of(t->in, t->n, level);
  e->out = mask_of(t->out, t->n_out, level);
  e->saved = mask_of(t->saved, t->n_saved, level);
  const nyx_function below = {e->name, entries_backward, e, free_entries};
  return record_below(ctx, &below, t, level);
}

/* ------------------------------------------------------------------ duals */

/* What the record and the tangents both need of the host. */
typedef struct shared {
  atomic_int refs;
  nyx_function inner;
} shared;

static void free_shared(void *payload) {
  shared *s = payload;
  if (atomic_fetch_sub(&s->refs, 1) != 1) return;
  if (s->inner.free) s->inner.free(s->inner.payload);
  nyx_memory_free(s);
}

static nyx_status shared_backward(nyx_backward *b) {
  const shared *s = b->payload;
  nyx_backward inner = *b;
  inner.payload = s->inner.payload;
  return s->inner.backward(&inner);
}

/* The results' tangents, which follow from the gradient, take the place of those that the
 * ops of the host left. */
static nyx_status set_tangents(nyx_context *ctx, const tensors *t, nyx_tensor **tangent,
                               nyx_level level) {
  for (int k = 0; k < t->n_out; k++) {
    nyx_tensor *out = t->out[k];
    if (!out || !nyx__has_gradient(out->dtype)) continue;
    if (!at(out, level)) {
      if (tangent[k]) NYX_TRY(nyx__lift_in_place(ctx, out, level, tangent[k]));
      continue;
    }
    nyx_tensor *next = nyx_tensor_retain(tangent[k]);
    if (!next) NYX_TRY(nyx__zeros_of(ctx, out->lift->value, &next));
    nyx_tensor_release(out->lift->tangent);
    out->lift->tangent = next;
  }
  return NYX_OK;
}

static nyx_status find_tangents(nyx_context *ctx, const nyx_function *f, const tensors *t,
                                nyx_level level) {
  tensors to = *t;
  nyx_tensor *tangent[NYX_MAX_INPUTS], *found[NYX_MAX_INPUTS] = {NULL};
  bool any = false;
  lower(t->in, to.in, t->n, level);
  lower(t->out, to.out, t->n_out, level);
  lower(t->saved, to.saved, t->n_saved, level);
  for (int i = 0; i < t->n; i++) {
    tangent[i] = at(t->in[i], level) ? t->in[i]->lift->tangent : NULL;
    any |= tangent[i] != NULL;
  }
  const nyx_op op = {.name = f->name, .n_out = t->n_out, .gradient = f->backward};
  nyx_dual d = {.ctx = ctx,
                .op = &op,
                .payload = f->payload,
                .n_in = t->n,
                .n_out = t->n_out,
                .in = to.in,
                .tangent = tangent,
                .out = to.out,
                .tangent_out = found,
                .saved = to.saved,
                .n_saved = t->n_saved};
  nyx_status status = any ? nyx__forward_transposed(&d) : NYX_OK;
  if (status == NYX_OK) status = nyx__own_tangents(&d);
  if (status == NYX_OK) status = set_tangents(ctx, t, found, level);
  release_all(found, t->n_out);
  return status;
}

static nyx_status record_dual(nyx_context *ctx, const nyx_function *f, const tensors *t,
                              nyx_level level) {
  shared *s = nyx_memory_alloc(sizeof *s);
  if (!s) {
    if (f->free) f->free(f->payload);
    return nyx__no_memory(ctx, sizeof *s);
  }
  atomic_init(&s->refs, 2);
  s->inner = *f;
  const nyx_function below = {f->name, shared_backward, s, free_shared};
  nyx_status status = record_below(ctx, &below, t, level);
  if (status == NYX_OK) status = find_tangents(ctx, &below, t, level);
  free_shared(s);
  return status;
}

/* ------------------------------------------------------------------ complex numbers */

/* The results have the imaginary parts that the host's own ops left: its gradient takes
 * no part in them. What is recorded would have to be differentiated at the level. */
static nyx_status leave_complex(nyx_context *ctx, const nyx_function *f,
                                const tensors *t) {
  bool wanted = false;
  for (int i = 0; i < t->n; i++) wanted |= t->in[i] && nyx_tensor_requires_grad(t->in[i]);
  if (f->free) f->free(f->payload);
  return wanted && ctx->grad_enabled ? nyx__error(ctx, COMPLEX_GRADIENT) : NYX_OK;
}

nyx_status nyx__lifted_function(nyx_context *ctx, const nyx_function *f,
                                nyx_tensor *const *in, int n, nyx_tensor *const *out,
                                int n_out, nyx_tensor *const *saved, int n_saved,
                                nyx_level level) {
  tensors t = {.n = n, .n_out = n_out, .n_saved = n_saved};
  memcpy(t.in, in, (size_t)n * sizeof *in);
  memcpy(t.out, out, (size_t)n_out * sizeof *out);
  memcpy(t.saved, saved, (size_t)n_saved * sizeof *saved);
  for (int i = 0; i < ctx->n_levels; i++) {
    if (ctx->levels[i].id != level) continue;
    if (ctx->levels[i].size == NYX__COMPLEX) return leave_complex(ctx, f, &t);
    return (ctx->levels[i].size < 0 ? record_dual : record_batch)(ctx, f, &t, level);
  }
  if (f->free) f->free(f->payload);
  return nyx__error(ctx, LEVEL_CLOSED);
}
