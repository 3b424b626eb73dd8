/* Levels, and putting tensors on them and taking them off. Read next: lift.h. */
#include "lift.h"

#include <nyx/memory.h>
#include <string.h>

#include "../grad/graph.h"

/* Opening and closing levels */

/* Numbers of levels are never used twice, so that one of another context is unknown. */
static atomic_int_fast64_t latest;

static nyx_status begin(nyx_context *ctx, int64_t size, nyx_level *level) {
  if (ctx->n_levels == NYX_MAX_LEVELS)
    return nyx__error(ctx, LEVEL_COUNT, NYX_MAX_LEVELS);
  *level = ctx->last_level = atomic_fetch_add(&latest, 1) + 1;
  ctx->levels[ctx->n_levels].id = *level;
  ctx->levels[ctx->n_levels].randomness = NYX_RANDOMNESS_ERROR;
  ctx->levels[ctx->n_levels++].size = size;
  return NYX_OK;
}

nyx_status nyx_dual_begin(nyx_context *ctx, nyx_level *level) {
  return begin(ctx, NYX__DUAL, level);
}

nyx_status nyx_complex_begin(nyx_context *ctx, nyx_level *level) {
  return begin(ctx, NYX__COMPLEX, level);
}

nyx_status nyx_batch_begin(nyx_context *ctx, int64_t size, nyx_level *level) {
  if (size < 0) return nyx__error(ctx, SIZE_NEGATIVE, (long long)size, 0);
  return begin(ctx, size, level);
}

void nyx_transform_end(nyx_context *ctx, nyx_level level) {
  while (ctx->n_levels > 0 && ctx->levels[ctx->n_levels - 1].id >= level) ctx->n_levels--;
}

/* The size of an open level, or its kind where that is not a batch. */
static nyx_status size_of(nyx_context *ctx, nyx_level level, int64_t *size) {
  for (int i = 0; i < ctx->n_levels; i++) {
    if (ctx->levels[i].id != level) continue;
    *size = ctx->levels[i].size;
    return NYX_OK;
  }
  return nyx__error(ctx, LEVEL_CLOSED);
}

nyx_status nyx_batch_randomness(nyx_context *ctx, nyx_level level,
                                nyx_randomness randomness) {
  for (int i = 0; i < ctx->n_levels; i++) {
    if (ctx->levels[i].id != level) continue;
    ctx->levels[i].randomness = randomness;
    return NYX_OK;
  }
  return nyx__error(ctx, LEVEL_CLOSED);
}

bool nyx_tensor_has_level(const nyx_tensor *t, nyx_level level) {
  return nyx__has_level(t, level);
}

bool nyx_tensor_is_lifted(const nyx_tensor *t) {
  return t->lift != NULL;
}

bool nyx__has_level(const nyx_tensor *t, nyx_level level) {
  for (; t && t->lift && t->lift->level >= level; t = t->lift->value) {
    if (t->lift->level == level) return true;
    if (!t->lift->batch && nyx__has_level(t->lift->tangent, level)) return true;
  }
  return false;
}

bool nyx__is_complex(const nyx_tensor *t) {
  for (; t && t->lift; t = t->lift->value)
    if (t->lift->is_complex || nyx__is_complex(t->lift->tangent)) return true;
  return false;
}

nyx_status nyx__check_read(nyx_context *ctx, const nyx_tensor *t) {
  for (const nyx_tensor *part = t; part->lift; part = part->lift->value) {
    if (part->lift->batch) return nyx__error(ctx, BATCH_READ, NYX__SHAPE(t));
    if (part->lift->is_complex) return nyx__error(ctx, COMPLEX_READ);
  }
  return NYX_OK;
}

static bool is_complex_level(const nyx_context *ctx, nyx_level level) {
  for (int i = 0; i < ctx->n_levels; i++)
    if (ctx->levels[i].id == level) return ctx->levels[i].size == NYX__COMPLEX;
  return false;
}

/* Making lifted tensors */

nyx_status nyx__lift(nyx_context *ctx, nyx_level level, nyx_tensor *value,
                     nyx_tensor *tangent, nyx_tensor **out) {
  *out = NULL;
  nyx_lift *lift = nyx_memory_alloc(sizeof *lift);
  if (!lift) return nyx__no_memory(ctx, sizeof *lift);
  bool is_complex = tangent && is_complex_level(ctx, level);
  *lift = (nyx_lift){level, tangent == NULL, is_complex, value, tangent};
  nyx_spec spec;
  nyx__spec_of(value, &spec);
  if (!tangent) {
    spec.ndim--;
    for (int d = 0; d < spec.ndim; d++) {
      spec.shape[d] = spec.shape[d + 1];
      spec.stride[d] = spec.stride[d + 1];
    }
  }
  nyx_status status = nyx__tensor_view(ctx, value->storage, &spec, out);
  if (status != NYX_OK) {
    nyx_memory_free(lift);
    return status;
  }
  nyx_tensor_retain(value);
  nyx_tensor_retain(tangent);
  (*out)->weak = tangent && value->weak;
  (*out)->is_view = value->is_view;
  (*out)->lift = lift;
  return NYX_OK;
}

static nyx_status swap_first(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  const nyx_value dims[] = {NYX_I(0), NYX_I(1)};
  return nyx__apply1(ctx, NYX__OP_transpose, t, dims, out);
}

/* t `size` times along a new first dimension; a view. */
static nyx_status repeat(nyx_context *ctx, nyx_tensor *t, int64_t size,
                         nyx_tensor **out) {
  if (t->ndim == NYX_MAX_DIMS)
    return nyx__error(ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
  int64_t shape[NYX_MAX_DIMS] = {size};
  for (int d = 0; d < t->ndim; d++) shape[d + 1] = t->shape[d];
  nyx_value attr = NYX_LIST(shape, t->ndim + 1);
  return nyx__apply1(ctx, NYX__OP_expand, t, &attr, out);
}

/* Rebuilds the top level of t over new parts, which are given away. */
static nyx_status rebuild(nyx_context *ctx, const nyx_tensor *t, nyx_tensor *value,
                          nyx_tensor *tangent, nyx_tensor **out) {
  nyx_status status = nyx__lift(ctx, t->lift->level, value, tangent, out);
  nyx_tensor_release(value);
  nyx_tensor_release(tangent);
  return status;
}

nyx_status nyx__take_batch(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                           nyx_tensor **out) {
  nyx_level top = nyx__level_of(t);
  if (top < level) {
    int64_t size;
    NYX_TRY(size_of(ctx, level, &size));
    return repeat(ctx, t, size, out);
  }
  if (top == level) {
    *out = nyx_tensor_retain(t->lift->value);
    return NYX_OK;
  }
  nyx_tensor *below, *swapped, *tangent = NULL;
  NYX_TRY(nyx__take_batch(ctx, t->lift->value, level, &below));
  if (!t->lift->batch) {
    nyx_status status = nyx__take_batch(ctx, t->lift->tangent, level, &tangent);
    if (status == NYX_OK) return rebuild(ctx, t, below, tangent, out);
    nyx_tensor_release(below);
    return status;
  }
  nyx_status status = swap_first(ctx, below, &swapped);
  nyx_tensor_release(below);
  return status == NYX_OK ? rebuild(ctx, t, swapped, NULL, out) : status;
}

/* The levels and the history of `from` become those of `to`, which has none. */
static void take_over(nyx_tensor *from, nyx_tensor *to) {
  to->lift = from->lift;
  to->requires_grad = from->requires_grad;
  to->grad_fn = from->grad_fn;
  to->out_index = from->out_index;
  from->lift = NULL;
  from->requires_grad = false;
  from->grad_fn = NULL;
}

nyx_status nyx__lift_in_place(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                              nyx_tensor *tangent) {
  nyx_tensor *inner, *value = NULL, *shell = NULL;
  NYX_TRY(nyx__tensor_alias(ctx, t, &inner));
  take_over(t, inner);
  nyx_status status = NYX_OK;
  if (tangent)
    value = nyx_tensor_retain(inner);
  else
    status = nyx__take_batch(ctx, inner, level, &value);
  if (status == NYX_OK) status = nyx__lift(ctx, level, value, tangent, &shell);
  take_over(status == NYX_OK ? shell : inner, t);
  nyx_tensor_release(shell);
  nyx_tensor_release(value);
  nyx_tensor_release(inner);
  return status;
}

nyx_status nyx__put_batch(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                          nyx_tensor **out) {
  if (nyx__level_of(t) < level) return nyx__lift(ctx, level, t, NULL, out);
  nyx_tensor *swapped, *value, *tangent;
  nyx_status status;
  if (t->lift->batch) {
    NYX_TRY(swap_first(ctx, t->lift->value, &swapped));
    status = nyx__put_batch(ctx, swapped, level, &value);
    nyx_tensor_release(swapped);
    return status == NYX_OK ? rebuild(ctx, t, value, NULL, out) : status;
  }
  NYX_TRY(nyx__put_batch(ctx, t->lift->value, level, &value));
  status = nyx__put_batch(ctx, t->lift->tangent, level, &tangent);
  if (status == NYX_OK) return rebuild(ctx, t, value, tangent, out);
  nyx_tensor_release(value);
  return status;
}

nyx_status nyx__take_value(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                           nyx_tensor **out) {
  nyx_level top = nyx__level_of(t);
  if (top <= level) {
    *out = nyx_tensor_retain(top == level ? t->lift->value : t);
    return NYX_OK;
  }
  nyx_tensor *value, *tangent = NULL;
  NYX_TRY(nyx__take_value(ctx, t->lift->value, level, &value));
  nyx_status status = NYX_OK;
  if (!t->lift->batch) status = nyx__take_value(ctx, t->lift->tangent, level, &tangent);
  if (status == NYX_OK) return rebuild(ctx, t, value, tangent, out);
  nyx_tensor_release(value);
  return status;
}

nyx_status nyx__take_tangent(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                             nyx_tensor **out) {
  *out = NULL;
  nyx_level top = nyx__level_of(t);
  if (top < level) return NYX_OK;
  if (top == level) {
    *out = nyx_tensor_retain(t->lift->tangent);
    return NYX_OK;
  }
  nyx_tensor *value, *tangent = NULL;
  NYX_TRY(nyx__take_tangent(ctx, t->lift->value, level, &value));
  if (t->lift->batch) {
    return value ? rebuild(ctx, t, value, NULL, out) : NYX_OK;
  }
  nyx_status status = nyx__take_tangent(ctx, t->lift->tangent, level, &tangent);
  if (status == NYX_OK && !value && !tangent) return NYX_OK;
  if (status == NYX_OK && !value) status = nyx__zeros_of(ctx, tangent, &value);
  if (status == NYX_OK && !tangent) status = nyx__zeros_of(ctx, value, &tangent);
  if (status == NYX_OK) return rebuild(ctx, t, value, tangent, out);
  nyx_tensor_release(value);
  nyx_tensor_release(tangent);
  return status;
}

nyx_status nyx__put_dual(nyx_context *ctx, nyx_tensor *value, nyx_tensor *tangent,
                         nyx_level level, nyx_tensor **out) {
  nyx_tensor *top = nyx__level_of(value) >= nyx__level_of(tangent) ? value : tangent;
  if (nyx__level_of(top) < level) return nyx__lift(ctx, level, value, tangent, out);
  nyx_level over = top->lift->level;
  bool batch = top->lift->batch;
  nyx_tensor *part[4] = {NULL}, *first = NULL, *second = NULL;
  nyx_status status;
  if (batch) {
    status = nyx__take_batch(ctx, value, over, &part[0]);
    if (status == NYX_OK) status = nyx__take_batch(ctx, tangent, over, &part[1]);
    if (status == NYX_OK) status = nyx__put_dual(ctx, part[0], part[1], level, &first);
  } else {
    status = nyx__take_value(ctx, value, over, &part[0]);
    if (status == NYX_OK) status = nyx__take_value(ctx, tangent, over, &part[1]);
    if (status == NYX_OK) status = nyx__take_tangent(ctx, value, over, &part[2]);
    if (status == NYX_OK) status = nyx__take_tangent(ctx, tangent, over, &part[3]);
    for (int i = 2; i < 4; i++)
      if (status == NYX_OK && !part[i]) status = nyx__zeros_of(ctx, value, &part[i]);
    if (status == NYX_OK) status = nyx__put_dual(ctx, part[0], part[1], level, &first);
    if (status == NYX_OK) status = nyx__put_dual(ctx, part[2], part[3], level, &second);
  }
  if (status == NYX_OK) status = nyx__lift(ctx, over, first, second, out);
  for (int i = 0; i < 4; i++) nyx_tensor_release(part[i]);
  nyx_tensor_release(first);
  nyx_tensor_release(second);
  return status;
}

nyx_status nyx__zeros_of(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec_of(t, &spec);
  return nyx__zeros(ctx, t, &spec, out);
}

nyx_status nyx__zero_leaf(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec_of(t, &spec);
  int64_t shape[NYX_MAX_DIMS];
  nyx_level batch[NYX_MAX_LEVELS];
  int ndim = 0, n = 0;
  for (int i = 0; i < ctx->n_levels; i++) {
    if (ctx->levels[i].size < 0 || !nyx__has_level(t, ctx->levels[i].id)) continue;
    if (ndim + spec.ndim == NYX_MAX_DIMS)
      return nyx__error(ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
    batch[n++] = ctx->levels[i].id;
    shape[ndim++] = ctx->levels[i].size;
  }
  for (int d = 0; d < spec.ndim; d++) shape[ndim++] = spec.shape[d];
  memcpy(spec.shape, shape, (size_t)ndim * sizeof *shape);
  spec.ndim = ndim;
  NYX_TRY(nyx__zeros(ctx, t, &spec, out));
  (*out)->requires_grad = true;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < n; i++) {
    nyx_tensor *inner = *out;
    status = nyx__lift(ctx, batch[i], inner, NULL, out);
    nyx_tensor_release(inner);
  }
  return status;
}

/* Whether the values of t, not only their tangents, differ between the entries. */
static bool values_differ(const nyx_tensor *t, nyx_level level) {
  for (; t->lift && t->lift->level >= level; t = t->lift->value)
    if (t->lift->level == level) return true;
  return false;
}

/* *t, given away, in one more batch. */
static nyx_status into_batch(nyx_context *ctx, nyx_tensor **t, nyx_level level) {
  nyx_tensor *full, *before = *t;
  *t = NULL;
  nyx_status status = nyx__take_batch(ctx, before, level, &full); /* repeats it */
  nyx_tensor_release(before);
  NYX_TRY(status);
  status = nyx__put_batch(ctx, full, level, t);
  nyx_tensor_release(full);
  return status;
}

static nyx_status in_batches(nyx_context *ctx, const nyx_tensor *like, nyx_tensor *t,
                             nyx_tensor **out) {
  *out = nyx_tensor_retain(t);
  for (int i = 0; i < ctx->n_levels; i++) {
    nyx_level level = ctx->levels[i].id;
    if (ctx->levels[i].size < 0 || values_differ(*out, level)) continue;
    if (!like || nyx__has_level(like, level)) NYX_TRY(into_batch(ctx, out, level));
  }
  return NYX_OK;
}

/* *t, given away, as a dual with tangent zero. */
static nyx_status into_dual(nyx_context *ctx, nyx_tensor **t, nyx_level level) {
  nyx_tensor *before = *t, *plain, *zeros = NULL;
  *t = NULL;
  nyx_status status = nyx__zeros_of(ctx, before, &plain);
  if (status == NYX_OK) {
    status = in_batches(ctx, before, plain, &zeros);
    nyx_tensor_release(plain);
  }
  if (status == NYX_OK) status = nyx__put_dual(ctx, before, zeros, level, t);
  nyx_tensor_release(before);
  nyx_tensor_release(zeros);
  return status;
}

nyx_status nyx__in_levels(nyx_context *ctx, const nyx_tensor *like, nyx_tensor *t,
                          nyx_tensor **out) {
  NYX_TRY(in_batches(ctx, like, t, out));
  for (int i = 0; i < ctx->n_levels; i++) {
    nyx_level level = ctx->levels[i].id;
    bool dual = ctx->levels[i].size < 0 && nyx__has_level(like, level);
    if (dual && !nyx__has_level(*out, level)) NYX_TRY(into_dual(ctx, out, level));
  }
  return NYX_OK;
}

/* The public functions */

/* The size of an open level of a kind; 0 for batches. */
static nyx_status check_level(nyx_context *ctx, nyx_level level, int64_t kind,
                              int64_t *size) {
  NYX_TRY(size_of(ctx, level, size));
  bool same = kind < 0 ? *size == kind : *size >= 0;
  return same ? NYX_OK : nyx__error(ctx, LEVEL_CLOSED);
}

nyx_status nyx__in_order_of(nyx_context *ctx, const nyx_tensor *like, nyx_tensor *t,
                            bool copying, nyx_tensor **out) {
  int64_t order[NYX_MAX_DIMS], back[NYX_MAX_DIMS];
  for (int d = 0; d < like->ndim; d++) {
    int at = d;
    for (; at > 0 && like->stride[order[at - 1]] < like->stride[d]; at--)
      order[at] = order[at - 1];
    order[at] = d;
  }
  for (int d = 0; d < like->ndim; d++) back[order[d]] = d;
  const nyx_value there = NYX_LIST(order, like->ndim), again = NYX_LIST(back, like->ndim);
  nyx_tensor *turned, *copy;
  NYX_TRY(nyx__apply1(ctx, NYX__OP_permute, t, &there, &turned));
  if (!copying && nyx_tensor_is_contiguous(turned)) {
    nyx_tensor_release(turned);
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  nyx_status status = nyx__apply1(ctx, NYX__OP_relayout, turned, NULL, &copy);
  nyx_tensor_release(turned);
  if (status != NYX_OK) return status;
  status = nyx__apply1(ctx, NYX__OP_permute, copy, &again, out);
  nyx_tensor_release(copy);
  return status;
}

static nyx_status lift_pair(nyx_context *ctx, nyx_level level, int64_t kind,
                            nyx_tensor *value, nyx_tensor *tangent, nyx_tensor **out) {
  int64_t size;
  *out = NULL;
  NYX_TRY(check_level(ctx, level, kind, &size));
  if (!nyx__has_gradient(value->dtype))
    return nyx__error(ctx, GRAD_DTYPE, nyx_dtype_name(value->dtype));
  NYX_TRY(nyx__check_grad(ctx, tangent, value->dtype, value->ndim, value->shape));
  if (value->storage->device != tangent->storage->device)
    return nyx__error(ctx, DEVICE_MIXED, nyx_device_name(value->storage->device),
                      nyx_device_name(tangent->storage->device),
                      nyx_device_name(value->storage->device));
  nyx_tensor *full, *along;
  NYX_TRY(nyx__in_levels(ctx, value, tangent, &full));
  nyx_status status = nyx__in_order_of(ctx, value, full, full != tangent, &along);
  nyx_tensor_release(full);
  NYX_TRY(status);
  status = nyx__put_dual(ctx, value, along, level, out);
  nyx_tensor_release(along);
  return status;
}

static nyx_status lower_pair(nyx_context *ctx, nyx_level level, int64_t kind,
                             nyx_tensor *t, nyx_tensor **value, nyx_tensor **tangent) {
  int64_t size;
  *value = *tangent = NULL;
  NYX_TRY(check_level(ctx, level, kind, &size));
  NYX_TRY(nyx__take_value(ctx, t, level, value));
  nyx_status status = nyx__take_tangent(ctx, t, level, tangent);
  if (status == NYX_OK) return NYX_OK;
  nyx_tensor_release(*value);
  *value = NULL;
  return status;
}

nyx_status nyx_dual_lift(nyx_context *ctx, nyx_level level, nyx_tensor *value,
                         nyx_tensor *tangent, nyx_tensor **out) {
  return lift_pair(ctx, level, NYX__DUAL, value, tangent, out);
}
nyx_status nyx_dual_lower(nyx_context *ctx, nyx_level level, nyx_tensor *t,
                          nyx_tensor **value, nyx_tensor **tangent) {
  return lower_pair(ctx, level, NYX__DUAL, t, value, tangent);
}

nyx_status nyx_complex_lift(nyx_context *ctx, nyx_level level, nyx_tensor *real,
                            nyx_tensor *imaginary, nyx_tensor **out) {
  if (real->dtype != NYX_FLOAT64) {
    *out = NULL;
    return nyx__error(ctx, COMPLEX_DTYPE, nyx_dtype_name(real->dtype));
  }
  return lift_pair(ctx, level, NYX__COMPLEX, real, imaginary, out);
}
nyx_status nyx_complex_lower(nyx_context *ctx, nyx_level level, nyx_tensor *t,
                             nyx_tensor **real, nyx_tensor **imaginary) {
  return lower_pair(ctx, level, NYX__COMPLEX, t, real, imaginary);
}

/* t with dimension `from` at `to`. */
static nyx_status move_dim(nyx_context *ctx, nyx_tensor *t, int from, int to,
                           nyx_tensor **out) {
  int64_t order[NYX_MAX_DIMS];
  int n = 0;
  for (int d = 0; d < t->ndim; d++)
    if (d != from) order[n++] = d;
  for (int d = n; d > to; d--) order[d] = order[d - 1];
  order[to] = from;
  nyx_value attr = NYX_LIST(order, t->ndim);
  return nyx__apply1(ctx, NYX__OP_permute, t, &attr, out);
}

nyx_status nyx_batch_lift(nyx_context *ctx, nyx_level level, nyx_tensor *t, int64_t dim,
                          nyx_tensor **out) {
  int64_t size;
  int at;
  *out = NULL;
  NYX_TRY(check_level(ctx, level, 0, &size));
  if (t->ndim == 0) return nyx__error(ctx, BATCH_NUMBER);
  NYX_TRY(nyx__dim(ctx, dim, t->ndim, &at));
  if (t->shape[at] != size)
    return nyx__error(ctx, BATCH_SIZE, NYX__SHAPE(t), (long long)nyx__said(ctx, at),
                      (long long)size);
  nyx_tensor *first;
  NYX_TRY(move_dim(ctx, t, at, 0, &first));
  nyx_status status = nyx__put_batch(ctx, first, level, out);
  nyx_tensor_release(first);
  return status;
}

nyx_status nyx_batch_lower(nyx_context *ctx, nyx_level level, nyx_tensor *t, int64_t dim,
                           nyx_tensor **out) {
  int64_t size;
  int at;
  *out = NULL;
  NYX_TRY(check_level(ctx, level, 0, &size));
  nyx_tensor *first;
  NYX_TRY(nyx__take_batch(ctx, t, level, &first));
  nyx_status status = nyx__dim(ctx, dim, first->ndim, &at);
  if (status == NYX_OK) status = move_dim(ctx, first, 0, at, out);
  nyx_tensor_release(first);
  return status;
}

static nyx_status variable(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  if (t->lift) {
    nyx_tensor *value;
    NYX_TRY(variable(ctx, t->lift->value, &value));
    return rebuild(ctx, t, value, nyx_tensor_retain(t->lift->tangent), out);
  }
  if (!nyx__has_gradient(t->dtype))
    return nyx__error(ctx, GRAD_DTYPE, nyx_dtype_name(t->dtype));
  if (nyx_tensor_requires_grad(t) && ctx->grad_enabled)
    return nyx__apply1(ctx, NYX__OP_alias, t, NULL, out);
  NYX_TRY(nyx__tensor_alias(ctx, t, out));
  (*out)->requires_grad = true;
  return NYX_OK;
}

nyx_status nyx_transform_variable(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  nyx_tensor *full;
  *out = NULL;
  NYX_TRY(in_batches(ctx, NULL, t, &full));
  nyx_status status = variable(ctx, full, out);
  nyx_tensor_release(full);
  return status;
}

void nyx_transform_set_recording(nyx_context *ctx, bool on) {
  ctx->grad_enabled = on;
}

int nyx_transform_depth(const nyx_context *ctx) {
  return ctx->n_levels;
}

static nyx_tensor *innermost(nyx_tensor *t) {
  while (t->lift) t = t->lift->value;
  return t;
}

/* Whether t, or a tangent in it, has history that ends elsewhere too. */
static nyx_status has_others(nyx_context *ctx, nyx_tensor *t,
                             nyx_tensor *const *variables, int n, bool *others) {
  for (; t->lift; t = t->lift->value) {
    if (t->lift->tangent)
      NYX_TRY(has_others(ctx, t->lift->tangent, variables, n, others));
    if (*others) return NYX_OK;
  }
  NYX_TRY(nyx__view_current(ctx, t));
  return t->requires_grad ? nyx__depends_on_others(ctx, t, variables, n, others) : NYX_OK;
}

static nyx_status without_history(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  if (!t->lift) return nyx__tensor_alias(ctx, t, out);
  nyx_tensor *value, *tangent = NULL;
  NYX_TRY(without_history(ctx, t->lift->value, &value));
  nyx_status status = NYX_OK;
  if (t->lift->tangent) status = without_history(ctx, t->lift->tangent, &tangent);
  if (status == NYX_OK) return rebuild(ctx, t, value, tangent, out);
  nyx_tensor_release(value);
  return status;
}

nyx_status nyx_transform_result(nyx_context *ctx, nyx_tensor *t,
                                nyx_tensor *const *variables, int n, nyx_tensor **out) {
  bool others = false;
  *out = NULL;
  nyx_tensor **plain = nyx_memory_alloc((size_t)(n + 1) * sizeof *plain);
  if (!plain) return nyx__no_memory(ctx, (size_t)(n + 1) * sizeof *plain);
  for (int i = 0; i < n; i++) plain[i] = innermost(variables[i]);
  nyx_status status = has_others(ctx, t, plain, n, &others);
  nyx_memory_free(plain);
  if (status != NYX_OK) return status;
  if (!others || !ctx->grad_enabled) return without_history(ctx, t, out);
  *out = nyx_tensor_retain(t);
  return NYX_OK;
}
