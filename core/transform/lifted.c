/* An op where an input is lifted: its results, and results written to an existing tensor.
 * Read next: forward.c, batch.c. */
#include <string.h>

#include "lift.h"

/* Writes `value` to all of t, recorded as any change in place. */
static nyx_status write_all(nyx_context *ctx, nyx_tensor *t, nyx_tensor *value) {
  int64_t start[NYX_MAX_DIMS] = {0}, step[NYX_MAX_DIMS];
  for (int d = 0; d < t->ndim; d++) step[d] = 1;
  const nyx_value attrs[] = {NYX_LIST(start, t->ndim), NYX_LIST(t->shape, t->ndim),
                             NYX_LIST(step, t->ndim)};
  nyx_tensor *out[1] = {t};
  return nyx_apply(ctx, nyx__op(NYX__OP_assign), (nyx_tensor *[]){t, value}, 2, attrs,
                   out);
}

/* Turns t, which has no tangent yet, into a dual with tangent zero. What holds t sees the
 * dual from then on; views of it could not, so there must be none. Nor could what is
 * outside of the function: t must have been made inside. */
static nyx_status become_dual(nyx_context *ctx, nyx_tensor *t, nyx_level level) {
  if (t->level < level || t->retains_grad || t->is_view || t->lift ||
      atomic_load(&t->storage->refs) != 1)
    return nyx__error(ctx, DUAL_WRITE);
  nyx_tensor *zeros;
  NYX_TRY(nyx__zeros_of(ctx, t, &zeros));
  nyx_status status = nyx__lift_in_place(ctx, t, level, zeros);
  nyx_tensor_release(zeros);
  return status;
}

/* Whether t has a batch that `other` lacks. */
static bool has_more_batches(const nyx_tensor *t, const nyx_tensor *other) {
  for (; t->lift; t = t->lift->value)
    if (t->lift->batch && !nyx__has_level(other, t->lift->level)) return true;
  return false;
}

/* How many tensors have the memory of t because it is lifted, itself included. */
static int64_t owners(const nyx_tensor *t) {
  int64_t n = 1;
  for (; t->lift; t = t->lift->value) n++;
  return n;
}

/* Writes to the tangent of a dual. One that is the same for all entries of a batch cannot
 * hold what differs: it is replaced where no view of it could tell. */
static nyx_status write_tangent(nyx_context *ctx, nyx_lift *lift, nyx_tensor *tangent) {
  if (!has_more_batches(tangent, lift->tangent))
    return write_all(ctx, lift->tangent, tangent);
  if (lift->tangent->is_view ||
      (int64_t)atomic_load(&lift->tangent->storage->refs) != owners(lift->tangent))
    return nyx__error(ctx, BATCH_WRITE);
  nyx_tensor *cast, *copy;
  NYX_TRY(nyx__to_dtype(ctx, tangent, lift->tangent->dtype, &cast));
  nyx_status status = nyx__apply1(ctx, NYX__OP_clone, cast, NULL, &copy);
  nyx_tensor_release(cast);
  if (status != NYX_OK) return status;
  nyx_tensor_release(lift->tangent);
  lift->tangent = copy;
  return NYX_OK;
}

static nyx_status write_dual(nyx_context *ctx, nyx_tensor *target, nyx_tensor *value,
                             nyx_level level) {
  nyx_tensor *plain, *tangent, *zero = NULL;
  NYX_TRY(nyx__take_value(ctx, value, level, &plain));
  nyx_status status = nyx__take_tangent(ctx, value, level, &tangent);
  if (status == NYX_OK && tangent && nyx__level_of(target) != level)
    status = become_dual(ctx, target, level);
  bool dual = nyx__level_of(target) == level;
  if (status == NYX_OK && dual && !tangent) {
    status = nyx_tensor_scalar(ctx, 0, target->dtype, true, &zero);
    tangent = zero;
  }
  if (status == NYX_OK)
    status = write_all(ctx, dual ? target->lift->value : target, plain);
  if (status == NYX_OK && dual) status = write_tangent(ctx, target->lift, tangent);
  nyx_tensor_release(plain);
  nyx_tensor_release(tangent);
  return status;
}

static nyx_status write_batch(nyx_context *ctx, nyx_tensor *target, nyx_tensor *value,
                              nyx_level level) {
  if (nyx__level_of(target) != level) return nyx__error(ctx, BATCH_WRITE);
  nyx_tensor *full;
  NYX_TRY(nyx__take_batch(ctx, value, level, &full));
  nyx_status status = write_all(ctx, target->lift->value, full);
  nyx_tensor_release(full);
  return status;
}

/* The history of a change in place needs the value from before: a copy takes the place of
 * the target among the inputs, and is *old. NULL: nothing is recorded. */
static nyx_status keep_old(nyx_call *c, nyx_tensor *target, nyx_tensor **old) {
  *old = NULL;
  bool input = false, record = false;
  for (int i = 0; i < c->n_in; i++) {
    input |= c->in[i] == target;
    record |= c->in[i] && nyx_tensor_requires_grad(c->in[i]);
  }
  if (!input || !record || !c->ctx->grad_enabled || !c->op->gradient) return NYX_OK;
  NYX_TRY(nyx__apply1(c->ctx, NYX__OP_clone, target, NULL, old));
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] == target) c->in[i] = *old;
  return NYX_OK;
}

nyx_status nyx__apply_lifted(nyx_call *c, nyx_level level, nyx_tensor *target) {
  nyx_context *ctx = c->ctx;
  bool open = false, batch = true, is_complex = false;
  for (int i = 0; i < ctx->n_levels; i++)
    if (ctx->levels[i].id == level) {
      open = true;
      batch = ctx->levels[i].size >= 0;
      is_complex = ctx->levels[i].size == NYX__COMPLEX;
    }
  if (!open) return nyx__error(ctx, LEVEL_CLOSED);
  for (int k = 0; k < NYX_MAX_OUTPUTS; k++) c->out[k] = NULL;
  nyx_tensor *old = NULL;
  if (target) NYX_TRY(keep_old(c, target, &old));
  nyx_status (*rule)(nyx_dual *) = is_complex ? nyx__imaginary_parts : nyx__tangents;
  nyx_status status =
      batch ? nyx__apply_batch(c, level) : nyx__apply_dual(c, level, rule);
  nyx_tensor_release(old);
  if (status == NYX_OK && target) {
    status = (batch ? write_batch : write_dual)(ctx, target, c->out[0], level);
    nyx_tensor_release(c->out[0]);
    c->out[0] = nyx_tensor_retain(target);
  }
  if (status == NYX_OK) return NYX_OK;
  for (int k = 0; k < NYX_MAX_OUTPUTS; k++) {
    nyx_tensor_release(c->out[k]);
    c->out[k] = NULL;
  }
  return status;
}
