/* Gradients of the reductions, written with ops so that they can be differentiated again:
 * a row's text where it has one, functions for the rest.
 * Read next: kernels/reduce.def, core/grad/row.c (nyx__evaluate). */
#include <math.h>
#include <string.h>

#include "../device/device.h"
#include "../grad/graph.h"
#include "kernels/reduce.h"
#include "reduce.h"

/* One gradient: what every function below needs. g and r have size 1 in the reduced
 * dimensions and so broadcast against x; owned here. */
typedef struct reduced {
  nyx_backward *b;
  nyx_context *ctx;
  const nyx_reduce_row *row;
  const nyx_spec *in;
  uint32_t dims;
  int64_t count;
  nyx_tensor *x; /* borrowed */
  nyx_tensor *g, *r;
} reduced;

nyx_status nyx__keep_dims(nyx_context *ctx, nyx_tensor *t, const nyx_spec *in,
                          uint32_t dims, nyx_tensor **out) {
  if (t->ndim == in->ndim) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  nyx_spec spec;
  nyx__reduce_spec(&spec, t->dtype, in->ndim, in->shape, dims, true);
  nyx_value shape = NYX_LIST(spec.shape, spec.ndim);
  return nyx__apply1(ctx, NYX__OP_reshape, t, &shape, out);
}

nyx_status nyx__expand_to(nyx_context *ctx, nyx_tensor *t, const nyx_spec *in,
                          nyx_tensor **out) {
  if (t->ndim == in->ndim &&
      memcmp(t->shape, in->shape, (size_t)in->ndim * sizeof *in->shape) == 0) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  nyx_value shape = NYX_LIST(in->shape, in->ndim);
  return nyx__apply1(ctx, NYX__OP_expand, t, &shape, out);
}

/* *out = the value of a gradient text over x, the g given and r, expanded to x's shape.
 */
static nyx_status text_gradient(const reduced *s, const char *text, nyx_tensor *g,
                                double p, nyx_tensor **out) {
  nyx_tensor *const value[5] = {g, s->x, NULL, NULL, s->r};
  const double attr[2] = {p, (double)s->count};
  nyx_tensor *small;
  NYX_TRY(nyx__evaluate(s->ctx, text, value, attr, &small));
  nyx_status status = nyx__expand_to(s->ctx, small, s->in, out);
  nyx_tensor_release(small);
  return status;
}

/* How many elements of x (or of |x|, made by `of`) equal the result, the gradient divided
 * by their number, and the mask of them: *out = mask * (g / number). */
static nyx_status share_among_ties(const reduced *s, nyx_tensor *of, nyx_tensor **out) {
  nyx_tensor *mask = NULL, *number = NULL, *part = NULL;
  int64_t dims[NYX_MAX_DIMS];
  int n = 0;
  for (int d = 0; d < s->in->ndim; d++)
    if (s->dims >> d & 1) dims[n++] = d;
  const nyx_value over[2] = {NYX_LIST(dims, n), NYX_I(1)};
  nyx_status status = nyx__apply2(s->ctx, NYX__OP_eq, of, s->r, NULL, &mask);
  if (status == NYX_OK && n)
    status = nyx__apply1(s->ctx, NYX__OP_sum, mask, over, &number);
  if (status == NYX_OK && n)
    status = nyx__apply2(s->ctx, NYX__OP_div, s->g, number, NULL, &part);
  if (status == NYX_OK)
    status = nyx__apply2(s->ctx, NYX__OP_mul, n ? part : s->g, mask, NULL, out);
  nyx_tensor_release(mask);
  nyx_tensor_release(number);
  nyx_tensor_release(part);
  return status;
}

/* The positions base, base + 1, ... of one dimension, shaped to broadcast along it. */
static nyx_status positions_along(const reduced *s, int dim, nyx_tensor **out) {
  int64_t shape[NYX_MAX_DIMS];
  int ndim = s->in->ndim - dim;
  for (int d = 0; d < ndim; d++) shape[d] = d ? 1 : s->in->shape[dim];
  nyx_tensor *host;
  NYX_TRY(nyx_tensor_empty(s->ctx, NYX_INT64, ndim, shape, &host));
  int64_t *position = nyx__data(host);
  for (int64_t i = 0; i < shape[0]; i++) position[i] = i + s->ctx->index_base;
  nyx_status status = nyx_tensor_to(s->ctx, host, nyx_tensor_device(s->g), out);
  nyx_tensor_release(host);
  return status;
}

/* min and max along a dimension: the selected position gets the gradient. */
static nyx_status selected_gradient(const reduced *s, nyx_tensor **out) {
  nyx_tensor *index = NULL, *along = NULL, *mask = NULL;
  int dim = 0;
  while (dim + 1 < s->in->ndim && !(s->dims >> dim & 1)) dim++;
  if (s->in->ndim == 0) {
    *out = nyx_tensor_retain(s->g);
    return NYX_OK;
  }
  nyx_status status = nyx__keep_dims(s->ctx, s->b->out[1], s->in, s->dims, &index);
  if (status == NYX_OK) status = positions_along(s, dim, &along);
  if (status == NYX_OK)
    status = nyx__apply2(s->ctx, NYX__OP_eq, index, along, NULL, &mask);
  if (status == NYX_OK) status = nyx__apply2(s->ctx, NYX__OP_mul, s->g, mask, NULL, out);
  nyx_tensor_release(index);
  nyx_tensor_release(along);
  nyx_tensor_release(mask);
  return status;
}

/* The product of all others along `dim`: of those before times of those after. Exact for
 * zeros, where r / x is not. */
static nyx_status product_of_others(nyx_context *ctx, nyx_tensor *x, int dim,
                                    nyx_tensor **out) {
  nyx_tensor *before, *after;
  const nyx_value forward[3] = {NYX_I(dim), NYX_I(0), NYX_I(1)};
  const nyx_value backward[3] = {NYX_I(dim), NYX_I(1), NYX_I(1)};
  NYX_TRY(nyx__apply1(ctx, NYX__OP_cumprod, x, forward, &before));
  nyx_status status = nyx__apply1(ctx, NYX__OP_cumprod, x, backward, &after);
  if (status == NYX_OK) {
    status = nyx__apply2(ctx, NYX__OP_mul, before, after, NULL, out);
    nyx_tensor_release(after);
  }
  nyx_tensor_release(before);
  return status;
}

/* The same over several dimensions: permuted behind the others, flattened to one, and
 * back. */
static nyx_status product_of_others_in(const reduced *s, nyx_tensor **out) {
  int64_t order[NYX_MAX_DIMS], back[NYX_MAX_DIMS], moved[NYX_MAX_DIMS],
      flat[NYX_MAX_DIMS];
  int n = 0, kept = 0;
  for (uint32_t last = 0; last < 2; last++) {
    for (int d = 0; d < s->in->ndim; d++) {
      if ((s->dims >> d & 1) != last) continue;
      order[n] = d;
      back[d] = n;
      moved[n] = s->in->shape[d];
      if (!last) flat[kept++] = s->in->shape[d];
      n++;
    }
  }
  flat[kept] = s->count;
  const nyx_value to_back = NYX_LIST(order, n), to_flat = NYX_LIST(flat, kept + 1);
  const nyx_value to_moved = NYX_LIST(moved, n), to_front = NYX_LIST(back, n);
  nyx_tensor *t[4] = {NULL};
  nyx_status status = nyx__apply1(s->ctx, NYX__OP_permute, s->x, &to_back, &t[0]);
  if (status == NYX_OK)
    status = nyx__apply1(s->ctx, NYX__OP_reshape, t[0], &to_flat, &t[1]);
  if (status == NYX_OK) status = product_of_others(s->ctx, t[1], kept, &t[2]);
  if (status == NYX_OK)
    status = nyx__apply1(s->ctx, NYX__OP_reshape, t[2], &to_moved, &t[3]);
  if (status == NYX_OK)
    status = nyx__apply1(s->ctx, NYX__OP_permute, t[3], &to_front, out);
  for (int i = 0; i < 4; i++) nyx_tensor_release(t[i]);
  return status;
}

/* Whether r / x is the product of all others: no result is 0 or out of range, so neither
 * is an element. Not where the gradient shall have one of its own, in which r and x would
 * have to cancel. */
static bool can_divide(const reduced *s) {
  const nyx_tensor *r = s->r;
  if (s->ctx->grad_enabled || s->x->lift || !r || r->lift || !nyx__is_contiguous(r) ||
      !nyx__on_cpu(r) || r->dtype != s->x->dtype)
    return false;
  if (r->dtype != NYX_FLOAT32 && r->dtype != NYX_FLOAT64) return false;
  for (int64_t i = 0; i < r->numel; i++) {
    const bool usual = r->dtype == NYX_FLOAT32
                           ? isnormal(((const float *)nyx__data(r))[i])
                           : isnormal(((const double *)nyx__data(r))[i]);
    if (!usual) return false;
  }
  return true;
}

static nyx_status prod_gradient(const reduced *s, nyx_tensor **out) {
  int dim = 0, n = 0;
  for (int d = 0; d < s->in->ndim; d++)
    if (s->dims >> d & 1) dim = d, n++;
  if (n == 0) {
    *out = nyx_tensor_retain(s->g);
    return NYX_OK;
  }
  if (can_divide(s)) return text_gradient(s, "g * (r / x)", s->g, 0, out);
  nyx_tensor *others;
  NYX_TRY(n == 1 ? product_of_others(s->ctx, s->x, dim, &others)
                 : product_of_others_in(s, &others));
  nyx_status status = nyx__apply2(s->ctx, NYX__OP_mul, s->g, others, NULL, out);
  nyx_tensor_release(others);
  return status;
}

/* At x = 0 the subgradient 0, at r = 0 too; the inner selects keep what is not chosen
 * finite, for second gradients. For p = inf the greatest |x| share it. */
static nyx_status norm_gradient(const reduced *s, nyx_tensor **out) {
  double p = s->b->attr[0].f;
  if (p == 0) return NYX_OK; /* zero almost everywhere */
  if (p == 1) return text_gradient(s, "g * nyx_sign(x)", s->g, p, out);
  if (p == 2)
    return text_gradient(
        s,
        "nyx_select(nyx_eq(r, K(0)), K(0), g * x / nyx_select(nyx_eq(r, K(0)), K(1), r))",
        s->g, p, out);
  if (isfinite(p))
    return text_gradient(s,
                         "nyx_select(nyx_eq(x, K(0)), K(0), g * nyx_sign(x) * "
                         "nyx_pow(nyx_select(nyx_eq(x, K(0)), K(1), nyx_abs(x)) / "
                         "nyx_select(nyx_eq(r, K(0)), K(1), r), p - K(1)))",
                         s->g, p, out);
  nyx_tensor *size, *share;
  NYX_TRY(nyx__apply1(s->ctx, NYX__OP_abs, s->x, NULL, &size));
  nyx_status status = share_among_ties(s, size, &share);
  nyx_tensor_release(size);
  if (status != NYX_OK) return status;
  status = text_gradient(s, "g * nyx_sign(x)", share, p, out);
  nyx_tensor_release(share);
  return status;
}

static nyx_status structural_gradient(const reduced *s, nyx_tensor **out) {
  switch ((nyx__reduce_id)s->row->id) {
    case NYX__REDUCE_prod: return prod_gradient(s, out);
    case NYX__REDUCE_norm: return norm_gradient(s, out);
    case NYX__REDUCE_min:
    case NYX__REDUCE_max:
      if (s->b->n_out == 2) return selected_gradient(s, out);
      return share_among_ties(s, s->x, out);
    default: return share_among_ties(s, s->x, out); /* amin, amax */
  }
}

nyx_status nyx__reduce_gradient(nyx_backward *b) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  int dim = b->op->n_attrs - 2;
  reduced s = {
      .b = b, .ctx = b->ctx, .row = b->op->row, .in = &b->in_spec[0], .x = b->in[0]};
  NYX_TRY(nyx__reduce_dims(b->ctx, b->op->attrs[dim].type, &b->attr[dim], s.in->ndim,
                           &s.dims));
  s.count = nyx__reduce_count(s.in->ndim, s.in->shape, s.dims);
  nyx_status status = nyx__keep_dims(b->ctx, b->grad_out[0], s.in, s.dims, &s.g);
  if (status == NYX_OK && b->out[0])
    status = nyx__keep_dims(b->ctx, b->out[0], s.in, s.dims, &s.r);
  if (status == NYX_OK)
    status = s.row->gradient ? text_gradient(&s, s.row->gradient, s.g, 0, &b->grad_in[0])
                             : structural_gradient(&s, &b->grad_in[0]);
  nyx_tensor_release(s.g);
  nyx_tensor_release(s.r);
  return status;
}
