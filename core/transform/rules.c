/* Batching rules that many ops share; an op names one of them. Read next: batch.h. */
#include <string.h>

#include "batch.h"

static bool is_position(const nyx_batch *b, int i) {
  return i < 32 && b->op->index_in & NYX_SAVE(i);
}

/* The dimensions of one entry of the first input. */
static int entry_dims(const nyx_batch *b) {
  return b->in[0]->ndim - b->batched[0];
}

nyx_status nyx__batch_leading(nyx_batch *b) {
  for (int i = 1; i < b->n_in; i++)
    if (b->in[i] && b->batched[i] && !is_position(b, i)) return nyx__batch_each(b);
  return nyx__batch_apply(b, b->in, b->attr);
}

/* Attributes with every dimension one further back, as the batch is in front. `ndim` is
 * what negative ones count from. `list` has room for one DIMS or INDICES attribute. */
static nyx_status shift_dims(nyx_batch *b, int ndim, nyx_value *attr, int64_t *list) {
  for (int i = 0; i < b->op->n_attrs; i++) {
    int dim;
    attr[i] = b->attr[i];
    if (!attr[i].given) continue;
    if (b->op->attrs[i].type == NYX_ATTR_DIM) {
      NYX_TRY(nyx__dim(b->ctx, attr[i].i, ndim, &dim));
      attr[i].i = dim + 1;
    } else if (b->op->attrs[i].type == NYX_ATTR_DIMS) {
      for (int k = 0; k < attr[i].n && k < NYX_MAX_DIMS; k++) {
        NYX_TRY(nyx__dim(b->ctx, attr[i].list[k], ndim, &dim));
        list[k] = dim + 1;
      }
      attr[i].list = list;
    }
  }
  return NYX_OK;
}

/* Whether a dimension that the op would choose itself was left out. */
static bool dim_missing(const nyx_batch *b) {
  for (int i = 0; i < b->op->n_attrs; i++) {
    nyx_attr_type type = b->op->attrs[i].type;
    if ((type == NYX_ATTR_DIM || type == NYX_ATTR_DIMS) && !b->attr[i].given) return true;
  }
  return false;
}

/* All inputs with the batch in front, attributes shifted. */
static nyx_status full_inputs(nyx_batch *b, int ndim) {
  nyx_tensor *in[NYX_MAX_INPUTS] = {NULL};
  nyx_value attr[NYX_MAX_ATTRS];
  int64_t list[NYX_MAX_DIMS];
  nyx_status status = shift_dims(b, ndim, attr, list);
  for (int i = 0; status == NYX_OK && i < b->n_in; i++)
    if (b->in[i]) status = nyx__batch_full(b, i, &in[i]);
  if (status == NYX_OK) status = nyx__batch_apply(b, in, attr);
  for (int i = 0; i < b->n_in; i++) nyx_tensor_release(in[i]);
  return status;
}

nyx_status nyx__batch_dims(nyx_batch *b) {
  if (entry_dims(b) == 0 || dim_missing(b)) return nyx__batch_each(b);
  return full_inputs(b, entry_dims(b));
}

nyx_status nyx__batch_new_dim(nyx_batch *b) {
  return full_inputs(b, entry_dims(b) + 1);
}

nyx_status nyx__batch_shape(nyx_batch *b) {
  nyx_value attr[NYX_MAX_ATTRS];
  int64_t shape[NYX_MAX_DIMS] = {b->size};
  nyx_tensor *in;
  int n = b->attr[0].n;
  if (n + 1 > NYX_MAX_DIMS) return nyx__error(b->ctx, NDIM_RANGE, n + 1, NYX_MAX_DIMS);
  memcpy(attr, b->attr, (size_t)b->op->n_attrs * sizeof *attr);
  memcpy(shape + 1, attr[0].list, (size_t)n * sizeof *shape);
  for (int d = 0; b->size == 0 && d < n; d++) /* nothing there to find a -1 from */
    if (shape[1 + d] < 0) shape[1 + d] = b->spec[0].shape[d];
  attr[0].list = shape;
  attr[0].n = n + 1;
  /* expand adds dimensions in front of an entry's */
  NYX_TRY(nyx__batch_align(b, 0, b->op == nyx__op(NYX__OP_expand) ? n : 0, &in));
  nyx_status status = nyx__batch_apply(b, &in, attr);
  nyx_tensor_release(in);
  return status;
}

/* Over all dimensions: an entry becomes one row. */
static nyx_status reduce_all(nyx_batch *b, int dim, bool keepdim) {
  nyx_tensor *row, *result[1];
  int ndim = entry_dims(b);
  int64_t one = 1, shape[NYX_MAX_DIMS] = {b->size, b->size ? -1 : 1};
  if (b->size > 0 && b->in[0]->numel == 0) shape[1] = 0;
  nyx_value attr[NYX_MAX_ATTRS], flat = NYX_LIST(shape, 2);
  memcpy(attr, b->attr, (size_t)b->op->n_attrs * sizeof *attr);
  attr[dim] = b->op->attrs[dim].type == NYX_ATTR_DIMS ? NYX_LIST(&one, 1) : NYX_I(1);
  attr[b->op->n_attrs - 1] = NYX_I(0); /* keepdim */
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_reshape, b->in[0], &flat, &row));
  nyx_status status = nyx__batch_apply(b, &row, attr);
  nyx_tensor_release(row);
  if (status != NYX_OK || !keepdim || ndim == 0) return status;
  for (int d = 1; d <= ndim; d++) shape[d] = 1;
  nyx_value kept = NYX_LIST(shape, ndim + 1);
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_view, b->out[0], &kept, result));
  nyx_tensor_release(b->out[0]);
  b->out[0] = result[0];
  return NYX_OK;
}

nyx_status nyx__batch_reduce(nyx_batch *b) {
  int dim = 0;
  while (b->op->attrs[dim].type != NYX_ATTR_DIM &&
         b->op->attrs[dim].type != NYX_ATTR_DIMS)
    dim++;
  bool list = b->op->attrs[dim].type == NYX_ATTR_DIMS;
  bool given = b->attr[dim].given && (!list || b->attr[dim].n > 0);
  if (b->size == 0) return nyx__batch_each(b);
  if (given && entry_dims(b) > 0) return full_inputs(b, entry_dims(b));
  if (given && b->n_out > 1) return nyx__batch_each(b);
  return reduce_all(b, dim, b->attr[b->op->n_attrs - 1].i != 0);
}

/* t with its first two dimensions as one, or (`parts` > 0) the first one as two. */
nyx_status nyx__batch_fold(nyx_context *ctx, nyx_tensor *t, int64_t parts,
                           nyx_tensor **out) {
  int64_t shape[NYX_MAX_DIMS];
  int ndim = 0, rest = parts ? 1 : 2;
  if (parts) {
    shape[ndim++] = parts;
    shape[ndim++] = t->shape[0] / parts;
  } else {
    shape[ndim++] = t->shape[0] * t->shape[1];
  }
  for (int d = rest; d < t->ndim; d++) shape[ndim++] = t->shape[d];
  nyx_value attr = NYX_LIST(shape, ndim);
  return nyx__apply1(ctx, NYX__OP_reshape, t, &attr, out);
}

nyx_status nyx__batch_images(nyx_batch *b) {
  if (b->size > 0 && entry_dims(b) == 3) return nyx__batch_apply(b, b->in, b->attr);
  return nyx__batch_first(b);
}

nyx_status nyx__batch_first(nyx_batch *b) {
  if (b->size == 0) return nyx__batch_each(b);
  nyx_tensor *in[NYX_MAX_INPUTS], *folded, *split;
  memcpy(in, b->in, (size_t)b->n_in * sizeof *in);
  for (int i = 1; i < b->n_in; i++)
    if (b->in[i] && b->batched[i]) return nyx__batch_each(b);
  if (!b->batched[0]) return nyx__batch_each(b);
  NYX_TRY(nyx__batch_fold(b->ctx, b->in[0], 0, &folded));
  in[0] = folded;
  nyx_status status = nyx__batch_apply(b, in, b->attr);
  nyx_tensor_release(folded);
  for (int k = 0; status == NYX_OK && k < b->n_out; k++) {
    status = nyx__batch_fold(b->ctx, b->out[k], b->size, &split);
    if (status != NYX_OK) break;
    nyx_tensor_release(b->out[k]);
    b->out[k] = split;
  }
  return status;
}
