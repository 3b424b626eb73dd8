/* Lifted tensors: what forward mode and vmap hand to a function in place of plain ones. A
 * transform opens a level; a tensor lifted to it holds a value and a tangent (dual), or
 * one value per entry of a batch, and looks from outside like the value of one entry. A
 * complex number is a dual whose second part is imaginary: only how ops find it differs.
 * nyx_apply sends a call with lifted inputs to apply_lifted, which takes the highest
 * level off, applies ops to what is below, and puts it back: levels nest in any order,
 * and the graph of reverse mode only ever holds plain tensors. Read next: lift.c,
 * forward.c (duals), complex.c, batch.c (batches), reverse.c (gradients). */
#ifndef NYX_TRANSFORM_LIFT_H
#define NYX_TRANSFORM_LIFT_H

#include <nyx/transform.h>

#include "../op/ops.h"
#include "../tensor/tensor.h"

/* Inside a lifted tensor, which shares the storage of `value`. */
struct nyx_lift {
  nyx_level level;
  bool batch;          /* else dual */
  bool is_complex;     /* a dual whose tangent is an imaginary part */
  nyx_tensor *value;   /* batch: the entries along its first dimension */
  nyx_tensor *tangent; /* dual: of the shape and dtype of value */
};

static inline nyx_level nyx__level_of(const nyx_tensor *t) {
  return t && t->lift ? t->lift->level : 0;
}

/* The highest level among one tensor and others; each may be NULL. 0: none is lifted. */
static inline nyx_level nyx__highest_level(const nyx_tensor *one,
                                           nyx_tensor *const *others, int n) {
  nyx_level level = nyx__level_of(one);
  for (int i = 0; i < n; i++)
    if (nyx__level_of(others[i]) > level) level = nyx__level_of(others[i]);
  return level;
}

/* A tensor at `level` on top of value (retained); tangent NULL: a batch. `value` is of
 * lower levels. */
nyx_status nyx__lift(nyx_context *ctx, nyx_level level, nyx_tensor *value,
                     nyx_tensor *tangent, nyx_tensor **out) NYX_MUST_CHECK;

/* `level` on top of t itself, which has lower ones at most: what holds t sees it, with a
 * tangent, or (NULL) once for every entry of the batch. */
nyx_status nyx__lift_in_place(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                              nyx_tensor *tangent) NYX_MUST_CHECK;

/* t without `level`, wherever among its levels that is: the batch as first dimension, or
 * the value of the dual. What has no such level is repeated, or stays. */
nyx_status nyx__take_batch(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                           nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__take_value(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                           nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__take_tangent(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                             nyx_tensor **out) NYX_MUST_CHECK; /* *out NULL: zero */
/* The opposite: `level` put in its place among the levels of t. */
nyx_status nyx__put_batch(nyx_context *ctx, nyx_tensor *t, nyx_level level,
                          nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__put_dual(nyx_context *ctx, nyx_tensor *value, nyx_tensor *tangent,
                         nyx_level level, nyx_tensor **out) NYX_MUST_CHECK;
bool nyx__has_level(const nyx_tensor *t, nyx_level level);
/* Whether t has an imaginary part at some level. */
bool nyx__is_complex(const nyx_tensor *t);
/* Whether the elements of t can be read as numbers. */
nyx_status nyx__check_read(nyx_context *ctx, const nyx_tensor *t) NYX_MUST_CHECK;

/* t with its dimensions in the order in which those of `like` lie in memory, row-major,
 * so that what has a view of `like` has one of t; a copy also if `copying`. */
nyx_status nyx__in_order_of(nyx_context *ctx, const nyx_tensor *like, nyx_tensor *t,
                            bool copying, nyx_tensor **out) NYX_MUST_CHECK;

/* t at every open level that `like` has, so that what is written to `like` can be written
 * to t: repeated for the entries of a batch, with tangent zero. t itself where there is
 * nothing to do. */
nyx_status nyx__in_levels(nyx_context *ctx, const nyx_tensor *like, nyx_tensor *t,
                          nyx_tensor **out) NYX_MUST_CHECK;

/* Zeros of t's shape and dtype that require a gradient, in every batch that t or one of
 * its tangents is in. */
nyx_status nyx__zero_leaf(nyx_context *ctx, nyx_tensor *t,
                          nyx_tensor **out) NYX_MUST_CHECK;
/* Plain zeros of t's shape and dtype. */
nyx_status nyx__zeros_of(nyx_context *ctx, nyx_tensor *t,
                         nyx_tensor **out) NYX_MUST_CHECK;

/* lifted.c: step 4 of nyx_apply where an input or the target (NULL: none) is lifted. */
nyx_status nyx__apply_lifted(nyx_call *c, nyx_level level,
                             nyx_tensor *target) NYX_MUST_CHECK;
/* forward.c, batch.c: the call on what is below `level`; c->in hold it, c->spec is what
 * one entry gives. Fill c->out. The rule fills the tangents of the results. */
nyx_status nyx__apply_dual(nyx_call *c, nyx_level level,
                           nyx_status (*rule)(nyx_dual *)) NYX_MUST_CHECK;
nyx_status nyx__tangents(nyx_dual *d) NYX_MUST_CHECK;
/* complex.c */
nyx_status nyx__imaginary_parts(nyx_dual *d) NYX_MUST_CHECK;
nyx_status nyx__apply_batch(nyx_call *c, nyx_level level) NYX_MUST_CHECK;

/* batch.c: the level that a random op is to be applied at, given the highest one of its
 * inputs in *level. */
nyx_status nyx__random_level(nyx_context *ctx, nyx_level *level) NYX_MUST_CHECK;

/* reverse.c: nyx_gradients where the root or an input is lifted, or the seed is a dual. A
 * seed that is only a batch goes through the pass as it is. */
bool nyx__lifted_pass(const nyx_tensor *root, const nyx_tensor *seed,
                      nyx_tensor *const *inputs, int n);
nyx_status nyx__lifted_gradients(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                                 nyx_tensor *const *inputs, int n,
                                 const nyx_backward_options *options,
                                 nyx_tensor **grads) NYX_MUST_CHECK;

/* forward.c: the tangents from the gradient of d->op, of the function that is there. */
nyx_status nyx__own_tangents(nyx_dual *d) NYX_MUST_CHECK;

/* function.c: nyx_record_function where a tensor is lifted; takes f->payload over. */
nyx_status nyx__lifted_function(nyx_context *ctx, const nyx_function *f,
                                nyx_tensor *const *in, int n, nyx_tensor *const *out,
                                int n_out, nyx_tensor *const *saved, int n_saved,
                                nyx_level level) NYX_MUST_CHECK;

/* For gradients that call a kernel where nothing will be differentiated again: whether
 * one of the tensors (NULL is allowed) is lifted, so that ops are needed. */
static inline bool nyx__any_lifted(nyx_tensor *const *t, int n) {
  for (int i = 0; i < n; i++)
    if (t[i] && t[i]->lift) return true;
  return false;
}

#endif
