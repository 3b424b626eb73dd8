/* vmap: an op on every entry of a batch. Elementwise rows broadcast with the batch in
 * front; other ops name a rule (rules.c, or one in their own file), and where there is
 * none the entries are taken one by one. Read next: lift.h, rules.c,
 * core/include/nyx/op.h (nyx_batch). */
#include "batch.h"

#include <string.h>

#include "../device/device.h"

/* The shape that in[i] has for one entry. */
static int entry_ndim(const nyx_batch *b, int i) {
  return b->in[i]->ndim - b->batched[i];
}

nyx_status nyx__batch_align(nyx_batch *b, int i, int ndim, nyx_tensor **out) {
  nyx_tensor *t = b->in[i];
  int missing = ndim - entry_ndim(b, i);
  if (!b->batched[i] || missing <= 0) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  if (t->ndim + missing > NYX_MAX_DIMS)
    return nyx__error(b->ctx, NDIM_RANGE, t->ndim + missing, NYX_MAX_DIMS);
  int64_t shape[NYX_MAX_DIMS] = {t->shape[0]};
  for (int d = 0; d < missing; d++) shape[1 + d] = 1;
  for (int d = 1; d < t->ndim; d++) shape[missing + d] = t->shape[d];
  nyx_value attr = NYX_LIST(shape, t->ndim + missing);
  return nyx__apply1(b->ctx, NYX__OP_view, t, &attr, out);
}

nyx_status nyx__batch_full(nyx_batch *b, int i, nyx_tensor **out) {
  nyx_tensor *t = b->in[i];
  if (b->batched[i]) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  if (t->ndim == NYX_MAX_DIMS)
    return nyx__error(b->ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
  int64_t shape[NYX_MAX_DIMS] = {b->size};
  for (int d = 0; d < t->ndim; d++) shape[d + 1] = t->shape[d];
  nyx_value attr = NYX_LIST(shape, t->ndim + 1);
  return nyx__apply1(b->ctx, NYX__OP_expand, t, &attr, out);
}

nyx_status nyx__batch_apply(nyx_batch *b, nyx_tensor *const *in, const nyx_value *attr) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(nyx_apply(b->ctx, b->op, in, b->n_in, attr, out));
  for (int k = 0; k < NYX_MAX_OUTPUTS; k++) {
    if (k < b->n_out)
      b->out[k] = out[k];
    else
      nyx_tensor_release(out[k]);
  }
  return NYX_OK;
}

nyx_status nyx__batch_aligned(nyx_batch *b) {
  nyx_tensor *in[NYX_MAX_INPUTS] = {NULL};
  nyx_status status = NYX_OK;
  int ndim = 0;
  for (int i = 0; i < b->n_in; i++)
    if (b->in[i] && entry_ndim(b, i) > ndim) ndim = entry_ndim(b, i);
  for (int i = 0; status == NYX_OK && i < b->n_in; i++)
    if (b->in[i]) status = nyx__batch_align(b, i, ndim, &in[i]);
  if (status == NYX_OK) status = nyx__batch_apply(b, in, b->attr);
  for (int i = 0; i < b->n_in; i++) nyx_tensor_release(in[i]);
  return status;
}

/* Entry e of input i. */
static nyx_status entry_of(nyx_batch *b, int i, int64_t e, nyx_tensor **out) {
  if (!b->in[i] || !b->batched[i]) {
    *out = nyx_tensor_retain(b->in[i]);
    return NYX_OK;
  }
  const nyx_value at[] = {NYX_I(0), NYX_I(e)};
  return nyx__apply1(b->ctx, NYX__OP_select, b->in[i], at, out);
}

static nyx_status one_entry(nyx_batch *b, int64_t e, nyx_tensor **out) {
  nyx_tensor *in[NYX_MAX_INPUTS] = {NULL};
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < b->n_in; i++)
    status = entry_of(b, i, e, &in[i]);
  if (status == NYX_OK) status = nyx_apply(b->ctx, b->op, in, b->n_in, b->attr, out);
  for (int i = 0; i < b->n_in; i++) nyx_tensor_release(in[i]);
  return status;
}

/* Stacks `n` tensors, of which one op takes NYX_MAX_INPUTS. */
static nyx_status stack(nyx_context *ctx, nyx_tensor *const *part, int64_t n,
                        nyx_tensor **out) {
  const nyx_value first = NYX_I(0);
  *out = NULL;
  for (int64_t i = 1; i < n; i++) {
    bool same = part[i]->ndim == part[0]->ndim &&
                memcmp(part[i]->shape, part[0]->shape,
                       (size_t)part[0]->ndim * sizeof *part[0]->shape) == 0;
    if (!same)
      return nyx__error(ctx, BATCH_SHAPES, NYX__SHAPE(part[0]), NYX__SHAPE(part[i]));
  }
  for (int64_t i = 0; i < n;) {
    nyx_tensor *next, *list[NYX_MAX_INPUTS], *joined;
    int64_t room = NYX_MAX_INPUTS - (*out != NULL);
    int64_t count = n - i < room ? n - i : room;
    NYX_TRY(nyx__applyn(ctx, NYX__OP_stack, part + i, (int)count, &first, &next));
    i += count;
    if (!*out) {
      *out = next;
      continue;
    }
    list[0] = *out;
    list[1] = next;
    nyx_status status = nyx__applyn(ctx, NYX__OP_cat, list, 2, &first, &joined);
    nyx_tensor_release(next);
    nyx_tensor_release(*out);
    *out = NULL;
    if (status != NYX_OK) return status;
    *out = joined;
  }
  return NYX_OK;
}

/* One entry after the other; the results of all are held until they are stacked. `same`:
 * every entry draws the same random numbers. */
static nyx_status one_by_one(nyx_batch *b, bool same) {
  size_t bytes = (size_t)(b->size * b->n_out + 1) * sizeof(nyx_tensor *);
  nyx_tensor **part = nyx_memory_alloc_zeroed(bytes);
  if (!part) return nyx__no_memory(b->ctx, bytes);
  nyx_status status = NYX_OK;
  const nyx_random_state random = nyx_context_random_state(b->ctx);
  for (int64_t e = 0; status == NYX_OK && e < b->size; e++) {
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    if (same) nyx_context_set_random_state(b->ctx, random);
    status = one_entry(b, e, out);
    for (int k = 0; k < NYX_MAX_OUTPUTS; k++) {
      if (k < b->n_out && status == NYX_OK)
        part[k * b->size + e] = out[k];
      else if (status == NYX_OK)
        nyx_tensor_release(out[k]);
    }
  }
  for (int k = 0; status == NYX_OK && k < b->n_out; k++)
    status = stack(b->ctx, part + k * b->size, b->size, &b->out[k]);
  for (int64_t i = 0; i < b->size * b->n_out; i++) nyx_tensor_release(part[i]);
  nyx_memory_free(part);
  return status;
}

static nyx_device *device_of(const nyx_batch *b) {
  for (int i = 0; i < b->n_in; i++)
    if (b->batched[i]) return b->in[i]->storage->device;
  return b->n_in && b->in[0] ? b->in[0]->storage->device : nyx__cpu();
}

/* An empty batch: no entry says what the results are, the op's shapes do. */
static nyx_status no_entries(nyx_batch *b) {
  if (b->op->by_value) return nyx__error(b->ctx, BATCH_EMPTY);
  for (int k = 0; k < b->n_out; k++) {
    nyx_spec spec = b->spec[k];
    if (spec.ndim == NYX_MAX_DIMS)
      return nyx__error(b->ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
    memmove(spec.shape + 1, spec.shape, (size_t)spec.ndim * sizeof *spec.shape);
    spec.shape[0] = 0;
    spec.ndim++;
    NYX_TRY(nyx_tensor_empty_on(b->ctx, device_of(b), spec.dtype, spec.ndim, spec.shape,
                                &b->out[k]));
  }
  return NYX_OK;
}

nyx_status nyx__batch_each(nyx_batch *b) {
  return b->size == 0 ? no_entries(b) : one_by_one(b, false);
}

/* Random numbers. Levels are done from the innermost out: one where all entries draw the
 * same has nothing to do unless an input differs between them. */

static int place_of(const nyx_context *ctx, nyx_level level) {
  int i = 0;
  while (i < ctx->n_levels - 1 && ctx->levels[i].id != level) i++;
  return i;
}

nyx_status nyx__random_level(nyx_context *ctx, nyx_level *level) {
  for (int i = ctx->n_levels - 1; i >= 0; i--) {
    nyx_level id = ctx->levels[i].id;
    if (ctx->levels[i].size < 0 || (ctx->drawing && id >= ctx->drawing)) continue;
    if (id < *level) return NYX_OK; /* what is above comes off first */
    if (ctx->levels[i].randomness == NYX_RANDOMNESS_ERROR)
      return nyx__error(ctx, BATCH_RANDOM);
    bool same = ctx->levels[i].randomness == NYX_RANDOMNESS_SAME;
    if (same && id > *level) continue;
    *level = id;
    return NYX_OK;
  }
  return NYX_OK;
}

/* An op that makes its result from a shape, for all entries at once. */
static nyx_status draw_shape(nyx_batch *b, int at) {
  nyx_value attr[NYX_MAX_ATTRS];
  int64_t shape[NYX_MAX_DIMS] = {b->size};
  int n = b->attr[at].n;
  if (n + 1 > NYX_MAX_DIMS) return nyx__error(b->ctx, NDIM_RANGE, n + 1, NYX_MAX_DIMS);
  memcpy(attr, b->attr, (size_t)b->op->n_attrs * sizeof *attr);
  if (n) memcpy(shape + 1, attr[at].list, (size_t)n * sizeof *shape);
  attr[at] = NYX_LIST(shape, n + 1);
  return nyx__batch_apply(b, b->in, attr);
}

static nyx_status draw(nyx_batch *b, nyx_level level, bool any) {
  nyx_context *ctx = b->ctx;
  const nyx_op *op = b->op;
  bool same = ctx->levels[place_of(ctx, level)].randomness == NYX_RANDOMNESS_SAME;
  int shape = 0;
  while (shape < op->n_attrs && strcmp(op->attrs[shape].name, "shape") != 0) shape++;
  int64_t outer = ctx->drawing;
  ctx->drawing = level;
  nyx_status status;
  if (b->size == 0)
    status = no_entries(b);
  else if (any && !same && op->batch)
    status = op->batch(b);
  else if (!any && !same && shape < op->n_attrs)
    status = draw_shape(b, shape);
  else
    status = one_by_one(b, same);
  ctx->drawing = outer;
  return status;
}

/* A row converts inside its kernel, by the dtype and by whether an input has dimensions:
 * an entry without them is of the dtype all have in common before it gets one. */
static nyx_status row(nyx_batch *b, nyx_dtype dtype) {
  nyx_tensor *owned[3] = {NULL};
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < b->n_in; i++) {
    if (!b->batched[i] || entry_ndim(b, i) > 0 || b->in[i]->dtype == dtype) continue;
    status = nyx__to_dtype(b->ctx, b->in[i], dtype, &owned[i]);
    if (status == NYX_OK) b->in[i] = owned[i];
  }
  if (status == NYX_OK) status = nyx__batch_aligned(b);
  for (int i = 0; i < b->n_in; i++) nyx_tensor_release(owned[i]);
  return status;
}

nyx_status nyx__apply_batch(nyx_call *c, nyx_level level) {
  nyx_tensor *in[NYX_MAX_INPUTS], *out[NYX_MAX_OUTPUTS] = {NULL};
  bool batched[NYX_MAX_INPUTS];
  nyx_batch b = {.ctx = c->ctx,
                 .op = c->op,
                 .attr = c->attr,
                 .payload = c->payload,
                 .n_in = c->n_in,
                 .n_out = c->n_out,
                 .in = in,
                 .batched = batched,
                 .spec = c->spec,
                 .out = out};
  bool any = false;
  for (int i = 0; i < c->n_in; i++) {
    batched[i] = nyx__level_of(c->in[i]) == level;
    in[i] = batched[i] ? c->in[i]->lift->value : c->in[i];
    if (batched[i]) b.size = in[i]->shape[0];
    any |= batched[i];
  }
  if (!any && !c->op->random) { /* only what is written to is lifted */
    return nyx_apply(c->ctx, c->op, c->in, c->n_in, c->attr, c->out);
  }
  for (int i = 0; i < c->n_in; i++) /* one memory cannot remember what all entries do */
    if (c->in[i] && !batched[i] && c->op->state_in & NYX_SAVE(i))
      return nyx__error(c->ctx, BATCH_WRITE);
  nyx_status status;
  if (!any) b.size = c->ctx->levels[place_of(c->ctx, level)].size;
  if (c->op->random)
    status = draw(&b, level, any);
  else if (c->op->kind == NYX_OP_ELEMENTWISE)
    status = row(&b, c->dtype);
  else
    status = c->op->batch ? c->op->batch(&b) : nyx__batch_each(&b);
  for (int k = 0; k < b.n_out; k++) {
    if (status == NYX_OK) status = nyx__lift(c->ctx, level, out[k], NULL, &c->out[k]);
    nyx_tensor_release(out[k]);
  }
  return status;
}
