/* Views: ops without a kernel, which give new strides over the same storage, and the
 * gradient each of them has in terms of the others. Read next: copy.c,
 * core/tensor/shape.c. */
#include <string.h>

#include "../tensor/tensor.h"
#include "../transform/batch.h"
#include "ops.h"

#define DIM(at) (c->attr[at].i)

/* Starts the output of a view as its input is. */
static nyx_spec *same(nyx_call *c) {
  nyx__spec_of(c->in[0], &c->spec[0]);
  return &c->spec[0];
}

static void remove_dim(nyx_spec *s, int dim) {
  for (int d = dim; d + 1 < s->ndim; d++) {
    s->shape[d] = s->shape[d + 1];
    s->stride[d] = s->stride[d + 1];
  }
  s->ndim--;
}

static void insert_dim(nyx_spec *s, int dim, int64_t size, int64_t stride) {
  for (int d = s->ndim; d > dim; d--) {
    s->shape[d] = s->shape[d - 1];
    s->stride[d] = s->stride[d - 1];
  }
  s->shape[dim] = size;
  s->stride[dim] = stride;
  s->ndim++;
}

/* The gradient of views that pick a region: zeros of the input's shape with g in the
 * region. Regions are found by asking the view itself about a tensor of that shape, which
 * is contiguous or channels-last like the input: then zeros are made in memory's order of
 * dimensions. */
static nyx_status region_gradient(nyx_backward *b) {
  static const int64_t turned[] = {0, 3, 1, 2};
  const nyx_value order = NYX_LIST(turned, 4);
  const int64_t *x = b->in_spec->shape;
  bool last = nyx__lies_last(b->in_spec->ndim, x, b->in_spec->stride);
  nyx_tensor plain = {.dtype = b->in_spec->dtype, .ndim = b->in_spec->ndim, .numel = 1};
  for (int d = 0; d < plain.ndim; d++) plain.numel *= plain.shape[d] = x[d];
  if (last)
    nyx__last_strides(x, plain.stride);
  else
    nyx__strides(plain.ndim, plain.shape, plain.stride);
  nyx_tensor *in = &plain;
  nyx_call c = {.ctx = b->ctx,
                .op = b->op,
                .in = &in,
                .n_in = 1,
                .attr = b->attr,
                .dtype = plain.dtype,
                .n_out = 1};
  NYX_TRY(b->op->infer(&c));
  nyx_value attr[] = {NYX_LIST(x, plain.ndim), NYX_I(c.spec[0].offset),
                      NYX_LIST(c.spec[0].stride, c.spec[0].ndim)};
  if (!last)
    return nyx__apply1(b->ctx, NYX__OP_embed, b->grad_out[0], attr, &b->grad_in[0]);
  const int64_t places[] = {x[0], x[2], x[3], x[1]};
  nyx_tensor *zeros;
  attr[0] = NYX_LIST(places, 4);
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_embed, b->grad_out[0], attr, &zeros));
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_permute, zeros, &order, &b->grad_in[0]);
  nyx_tensor_release(zeros);
  return status;
}

/* The gradient of views that keep all elements in their order. */
static nyx_status reshape_gradient(nyx_backward *b) {
  nyx_value shape = NYX_LIST(b->in_spec->shape, b->in_spec->ndim);
  return nyx__apply1(b->ctx, NYX__OP_reshape, b->grad_out[0], &shape, &b->grad_in[0]);
}

/* alias */

static nyx_status alias_infer(nyx_call *c) {
  same(c);
  return NYX_OK;
}

static nyx_status alias_gradient(nyx_backward *b) {
  b->grad_in[0] = nyx_tensor_retain(b->grad_out[0]);
  return NYX_OK;
}

const nyx_op nyx__op_alias = {
    .name = "alias",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc = "another view of all of x",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .infer = alias_infer,
    .gradient = alias_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_leading,
    .cases = "x(2,3)",
};

/* transpose, permute */

static nyx_status transpose_infer(nyx_call *c) {
  nyx_spec *s = same(c);
  int a, b;
  NYX_TRY(nyx__dim(c->ctx, DIM(0), s->ndim, &a));
  NYX_TRY(nyx__dim(c->ctx, DIM(1), s->ndim, &b));
  if (s->ndim == 0) return NYX_OK;
  int64_t size = s->shape[a], stride = s->stride[a];
  s->shape[a] = s->shape[b], s->stride[a] = s->stride[b];
  s->shape[b] = size, s->stride[b] = stride;
  return NYX_OK;
}

static nyx_status transpose_gradient(nyx_backward *b) {
  return nyx__apply1(b->ctx, NYX__OP_transpose, b->grad_out[0], b->attr, &b->grad_in[0]);
}

static const nyx_attr transpose_attrs[] = {
    {"dim0", NYX_ATTR_DIM, true, NYX_NONE, "one dimension"},
    {"dim1", NYX_ATTR_DIM, true, NYX_NONE, "the other dimension"}};

const nyx_op nyx__op_transpose = {
    .name = "transpose",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc = "x with two dimensions exchanged; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = transpose_attrs,
    .n_attrs = 2,
    .infer = transpose_infer,
    .gradient = transpose_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(2,3,4); dim0=1 dim1=3",
};

/* Reads a permutation of the dimensions. */
static nyx_status permutation(nyx_context *ctx, const nyx_value *v, int ndim,
                              int *order) {
  uint32_t seen = 0;
  if (v->n != ndim) return nyx__error(ctx, PERMUTATION, ndim);
  for (int i = 0; i < ndim; i++) {
    NYX_TRY(nyx__dim(ctx, v->list[i], ndim, &order[i]));
    seen |= 1u << order[i];
  }
  return seen == (1u << ndim) - 1 ? NYX_OK : nyx__error(ctx, PERMUTATION, ndim);
}

static nyx_status permute_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  nyx_spec *s = same(c);
  int order[NYX_MAX_DIMS];
  NYX_TRY(permutation(c->ctx, &c->attr[0], x->ndim, order));
  for (int d = 0; d < x->ndim; d++) {
    s->shape[d] = x->shape[order[d]];
    s->stride[d] = x->stride[order[d]];
  }
  return NYX_OK;
}

static nyx_status permute_gradient(nyx_backward *b) {
  int order[NYX_MAX_DIMS];
  int64_t inverse[NYX_MAX_DIMS];
  NYX_TRY(permutation(b->ctx, &b->attr[0], b->in_spec->ndim, order));
  for (int d = 0; d < b->in_spec->ndim; d++) inverse[order[d]] = d;
  nyx_value dims = NYX_LIST(inverse, b->in_spec->ndim);
  return nyx__apply1(b->ctx, NYX__OP_permute, b->grad_out[0], &dims, &b->grad_in[0]);
}

static nyx_status permute_batch(nyx_batch *b) {
  int ndim = b->in[0]->ndim - 1, order[NYX_MAX_DIMS];
  int64_t list[NYX_MAX_DIMS] = {0};
  NYX_TRY(permutation(b->ctx, &b->attr[0], ndim, order));
  for (int d = 0; d < ndim; d++) list[d + 1] = order[d] + 1;
  nyx_value dims = NYX_LIST(list, ndim + 1);
  return nyx__batch_apply(b, b->in, &dims);
}

static const nyx_attr permute_attrs[] = {
    {"dims", NYX_ATTR_DIMS, true, NYX_NONE, "every dimension once, in the new order"}};

const nyx_op nyx__op_permute = {
    .name = "permute",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc = "x with its dimensions in another order; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = permute_attrs,
    .n_attrs = 1,
    .infer = permute_infer,
    .gradient = permute_gradient,
    .forward = nyx__forward_linear,
    .batch = permute_batch,
    .cases = "x(2,3,4); dims={3,1,2}",
};

/* view */

static nyx_status view_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  nyx_spec *s = &c->spec[0];
  int64_t shape[NYX_MAX_DIMS];
  NYX_TRY(nyx__target_shape(c->ctx, x, &c->attr[0], shape));
  s->dtype = x->dtype;
  s->ndim = c->attr[0].n;
  s->offset = x->offset;
  memcpy(s->shape, shape, (size_t)s->ndim * sizeof *shape);
  if (nyx__view_strides(x, s->ndim, s->shape, s->stride)) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(c->ctx, VIEW_STRIDES, NYX__SHAPE(x),
                    nyx__shape_text(s->ndim, s->shape, text, sizeof text));
}

/* A tangent may lie otherwise than x. */
static nyx_status view_forward(nyx_dual *d) {
  if (!d->tangent[0]) return NYX_OK;
  return nyx__apply1(d->ctx, NYX__OP_reshape, d->tangent[0], d->attr, &d->tangent_out[0]);
}

static const nyx_attr view_attrs[] = {
    {"shape", NYX_ATTR_INTS, true, NYX_NONE, "the new sizes"}};

const nyx_op nyx__op_view = {
    .name = "view",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc =
        "x in another shape with the same elements; never copies, and fails where only a "
        "copy could do it (see reshape); one size may be -1",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = view_attrs,
    .n_attrs = 1,
    .infer = view_infer,
    .gradient = reshape_gradient,
    .forward = view_forward,
    .batch = nyx__batch_shape,
    .cases = "x(2,6); shape={3,-1}",
};

/* expand */

static nyx_status expand_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  nyx_spec *s = &c->spec[0];
  int n = c->attr[0].n, lead = n - x->ndim;
  if (n > NYX_MAX_DIMS) return nyx__error(c->ctx, NDIM_RANGE, n, NYX_MAX_DIMS);
  bool fits = lead >= 0;
  for (int d = 0; fits && d < n; d++) {
    int64_t have = d < lead ? 1 : x->shape[d - lead], want = c->attr[0].list[d];
    if (want == -1 && d >= lead) want = have;
    fits = want >= 0 && (want == have || have == 1);
    s->shape[d] = want;
    s->stride[d] = d >= lead && want == have ? x->stride[d - lead] : 0;
  }
  s->dtype = x->dtype;
  s->ndim = n;
  s->offset = x->offset;
  if (fits) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(c->ctx, EXPAND, NYX__SHAPE(x),
                    nyx__shape_text(n, c->attr[0].list, text, sizeof text));
}

static nyx_status expand_gradient(nyx_backward *b) {
  return nyx__sum_to(b->ctx, b->grad_out[0], b->in_spec, &b->grad_in[0]);
}

static const nyx_attr expand_attrs[] = {
    {"shape", NYX_ATTR_INTS, true, NYX_NONE, "the new sizes"}};

const nyx_op nyx__op_expand = {
    .name = "expand",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc =
        "x with sizes of 1 repeated, without copying; -1 keeps a size, dimensions may be "
        "added in front",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = expand_attrs,
    .n_attrs = 1,
    .infer = expand_infer,
    .gradient = expand_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_shape,
    .cases = "x(2,1); shape={4,2,3}",
};

/* select, narrow */

/* A position, negative from the end, within a size. */
static nyx_status position(nyx_context *ctx, int64_t index, int dim, int64_t size,
                           int64_t *out) {
  *out = index < 0 ? index + size : index;
  if (*out >= 0 && *out < size) return NYX_OK;
  return nyx__error(ctx, INDEX_RANGE, (long long)nyx__said(ctx, index),
                    dim + ctx->index_base, (long long)size);
}

static nyx_status select_infer(nyx_call *c) {
  nyx_spec *s = same(c);
  int dim;
  int64_t index;
  if (s->ndim == 0)
    return nyx__error(c->ctx, DIM_RANGE, (long long)nyx__said(c->ctx, DIM(0)), 0);
  NYX_TRY(nyx__dim(c->ctx, DIM(0), s->ndim, &dim));
  NYX_TRY(position(c->ctx, c->attr[1].i, dim, s->shape[dim], &index));
  s->offset += index * s->stride[dim];
  remove_dim(s, dim);
  return NYX_OK;
}

static const nyx_attr select_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, NYX_NONE, "the dimension"},
    {"index", NYX_ATTR_INDEX, true, NYX_NONE, "the position; negative from the end"}};

const nyx_op nyx__op_select = {
    .name = "select",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc = "one position of a dimension, which disappears; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = select_attrs,
    .n_attrs = 2,
    .infer = select_infer,
    .gradient = region_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(2,3,4); dim=2 index=3\nx(2,3); dim=-1 index=-1",
};

static nyx_status narrow_infer(nyx_call *c) {
  nyx_spec *s = same(c);
  int dim;
  NYX_TRY(nyx__dim(c->ctx, DIM(0), s->ndim, &dim));
  if (s->ndim == 0)
    return nyx__error(c->ctx, DIM_RANGE, (long long)nyx__said(c->ctx, DIM(0)), 0);
  int64_t start = c->attr[1].i, length = c->attr[2].i, step = c->attr[3].i;
  int64_t size = s->shape[dim];
  if (step < 1)
    return nyx__error(c->ctx, ATTR_RANGE, "step", (long long)step, "1 or more");
  int64_t from = start < 0 ? start + size : start;
  bool fits = length >= 0 && from >= 0 && from <= size &&
              (length == 0 || (from < size && (length - 1) <= (size - 1 - from) / step));
  if (!fits)
    return nyx__error(c->ctx, SLICE_RANGE, (long long)length,
                      (long long)nyx__said(c->ctx, start), dim + c->ctx->index_base,
                      (long long)size);
  s->offset += from * s->stride[dim];
  s->shape[dim] = length;
  if (length > 1) s->stride[dim] *= step; /* else a step of any size is no step */
  return NYX_OK;
}

static const nyx_attr narrow_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, NYX_NONE, "the dimension"},
    {"start", NYX_ATTR_INDEX, true, NYX_NONE, "the first position"},
    {"length", NYX_ATTR_INT, true, NYX_NONE, "how many positions"},
    {"step", NYX_ATTR_INT, false, NYX_I(1), "the distance between positions"}};

const nyx_op nyx__op_narrow = {
    .name = "narrow",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc = "`length` positions of a dimension from `start`, every `step`th; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = narrow_attrs,
    .n_attrs = 4,
    .infer = narrow_infer,
    .gradient = region_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(2,5); dim=2 start=2 length=3\nx(2,5); dim=2 start=1 length=3 step=2",
};

/* squeeze, unsqueeze */

static nyx_status squeeze_infer(nyx_call *c) {
  nyx_spec *s = same(c);
  if (c->attr[0].given) {
    int dim;
    NYX_TRY(nyx__dim(c->ctx, DIM(0), s->ndim, &dim));
    if (s->ndim > 0 && s->shape[dim] == 1) remove_dim(s, dim);
    return NYX_OK;
  }
  for (int d = s->ndim - 1; d >= 0; d--)
    if (s->shape[d] == 1) remove_dim(s, d);
  return NYX_OK;
}

/* The batch may have one entry: only the entry's own dimensions go. */
static nyx_status squeeze_batch(nyx_batch *b) {
  const nyx_spec *spec = &b->spec[0];
  int64_t shape[NYX_MAX_DIMS] = {b->size};
  for (int d = 0; d < spec->ndim; d++) shape[d + 1] = spec->shape[d];
  nyx_value attr = NYX_LIST(shape, spec->ndim + 1);
  return nyx__apply1(b->ctx, NYX__OP_view, b->in[0], &attr, &b->out[0]);
}

static const nyx_attr squeeze_attrs[] = {
    {"dim", NYX_ATTR_DIM, false, NYX_NONE, "the dimension; all when left out"}};

const nyx_op nyx__op_squeeze = {
    .name = "squeeze",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc =
        "x without its dimensions of size 1, or without `dim` if its size is 1; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = squeeze_attrs,
    .n_attrs = 1,
    .infer = squeeze_infer,
    .gradient = reshape_gradient,
    .forward = nyx__forward_linear,
    .batch = squeeze_batch,
    .cases = "x(2,1,3,1)\nx(2,1,3); dim=2",
};

static nyx_status unsqueeze_infer(nyx_call *c) {
  nyx_spec *s = same(c);
  int dim;
  if (s->ndim == NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, s->ndim + 1, NYX_MAX_DIMS);
  NYX_TRY(nyx__dim(c->ctx, DIM(0), s->ndim + 1, &dim));
  insert_dim(s, dim, 1, dim < s->ndim ? s->shape[dim] * s->stride[dim] : 1);
  return NYX_OK;
}

static const nyx_attr unsqueeze_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, NYX_NONE, "where the new dimension will be"}};

const nyx_op nyx__op_unsqueeze = {
    .name = "unsqueeze",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc = "x with a dimension of size 1 inserted; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = unsqueeze_attrs,
    .n_attrs = 1,
    .infer = unsqueeze_infer,
    .gradient = reshape_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_new_dim,
    .cases = "x(2,3); dim=2\nx(2,3); dim=-1",
};

/* diagonal, unfold, as_strided */

static nyx_status diagonal_infer(nyx_call *c) {
  nyx_spec *s = same(c);
  int a, b;
  if (s->ndim < 2)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(c->in[0]),
                      "two dimensions or more");
  NYX_TRY(nyx__dim(c->ctx, DIM(1), s->ndim, &a));
  NYX_TRY(nyx__dim(c->ctx, DIM(2), s->ndim, &b));
  if (a == b) return nyx__error(c->ctx, PERMUTATION, 2);
  int64_t shift = c->attr[0].i, rows = s->shape[a], cols = s->shape[b];
  int64_t skip_rows = shift < 0 ? (shift < -rows ? rows : -shift) : 0;
  int64_t skip_cols = shift > 0 ? (shift > cols ? cols : shift) : 0;
  int64_t length =
      rows - skip_rows < cols - skip_cols ? rows - skip_rows : cols - skip_cols;
  int64_t stride = s->stride[a] + s->stride[b];
  if (length > 0) s->offset += skip_rows * s->stride[a] + skip_cols * s->stride[b];
  remove_dim(s, a > b ? a : b);
  remove_dim(s, a > b ? b : a);
  insert_dim(s, s->ndim, length, stride);
  return NYX_OK;
}

static const nyx_attr diagonal_attrs[] = {
    {"offset", NYX_ATTR_INT, false, NYX_I(0), "above (> 0) or below the main diagonal"},
    {"dim1", NYX_ATTR_DIM, false, NYX_I(0), "the rows"},
    {"dim2", NYX_ATTR_DIM, false, NYX_I(1), "the columns"}};

const nyx_op nyx__op_diagonal = {
    .name = "diagonal",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc = "the diagonal over two dimensions, as a new last dimension; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = diagonal_attrs,
    .n_attrs = 3,
    .infer = diagonal_infer,
    .gradient = region_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(3,4)\nx(3,4); offset=1\nx(2,3,3); offset=-1 dim1=2 dim2=3",
};

static nyx_status unfold_infer(nyx_call *c) {
  nyx_spec *s = same(c);
  int dim;
  int64_t size = c->attr[1].i, step = c->attr[2].i;
  if (s->ndim == 0 || s->ndim == NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(c->in[0]),
                      "1 to 7 dimensions");
  NYX_TRY(nyx__dim(c->ctx, DIM(0), s->ndim, &dim));
  if (size < 1 || size > s->shape[dim])
    return nyx__error(c->ctx, ATTR_RANGE, "size", (long long)size,
                      "1 to the size of the dimension");
  if (step < 1)
    return nyx__error(c->ctx, ATTR_RANGE, "step", (long long)step, "1 or more");
  int64_t stride = s->stride[dim];
  s->shape[dim] = (s->shape[dim] - size) / step + 1;
  s->stride[dim] = s->shape[dim] > 1 ? stride * step : stride;
  insert_dim(s, s->ndim, size, stride);
  return NYX_OK;
}

static const nyx_attr unfold_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, NYX_NONE, "the dimension"},
    {"size", NYX_ATTR_INT, true, NYX_NONE, "positions in a window"},
    {"step", NYX_ATTR_INT, false, NYX_I(1), "positions between windows"}};

const nyx_op nyx__op_unfold = {
    .name = "unfold",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc =
        "windows of `size` positions along a dimension, `step` apart, as a new last "
        "dimension; a view",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = unfold_attrs,
    .n_attrs = 3,
    .infer = unfold_infer,
    .gradient = region_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(2,7); dim=2 size=3 step=2\nx(5); dim=1 size=3",
};

static nyx_status as_strided_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  nyx_spec *s = &c->spec[0];
  NYX_TRY(nyx__check_region(c->ctx, x->numel, &c->attr[0], &c->attr[1], c->attr[2].i));
  if (!nyx__is_contiguous(x)) return nyx__error(c->ctx, REGION_PLAIN);
  s->dtype = x->dtype;
  s->ndim = c->attr[0].n;
  s->offset = x->offset + c->attr[2].i;
  for (int d = 0; d < s->ndim; d++) {
    s->shape[d] = c->attr[0].list[d];
    s->stride[d] = c->attr[1].list[d];
  }
  return NYX_OK;
}

static nyx_status as_strided_gradient(nyx_backward *b) {
  nyx_value attr[] = {NYX_LIST(b->in_spec->shape, b->in_spec->ndim), b->attr[2],
                      b->attr[1]};
  return nyx__apply1(b->ctx, NYX__OP_embed, b->grad_out[0], attr, &b->grad_in[0]);
}

static nyx_status as_strided_batch(nyx_batch *b) {
  int64_t size[NYX_MAX_DIMS] = {b->size}, stride[NYX_MAX_DIMS] = {1};
  int n = b->attr[0].n;
  if (n == NYX_MAX_DIMS)
    return nyx__error(b->ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
  nyx_tensor *plain;
  for (int d = 1; d < b->in[0]->ndim; d++) stride[0] *= b->in[0]->shape[d];
  memcpy(size + 1, b->attr[0].list, (size_t)n * sizeof *size);
  memcpy(stride + 1, b->attr[1].list, (size_t)n * sizeof *stride);
  const nyx_value attr[] = {NYX_LIST(size, n + 1), NYX_LIST(stride, n + 1), b->attr[2]};
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_contiguous, b->in[0], NULL, &plain));
  nyx_status status = nyx__batch_apply(b, &plain, attr);
  nyx_tensor_release(plain);
  return status;
}

static const nyx_attr as_strided_attrs[] = {
    {"size", NYX_ATTR_INTS, true, NYX_NONE, "the sizes"},
    {"stride", NYX_ATTR_INTS, true, NYX_NONE, "the strides, in elements"},
    {"offset", NYX_ATTR_INT, false, NYX_I(0), "the first element, counted from 0"}};

const nyx_op nyx__op_as_strided = {
    .name = "as_strided",
    .group = "view",
    .kind = NYX_OP_VIEW,
    .doc =
        "any sizes, strides (in elements, not negative) and offset over a contiguous x; "
        "a "
        "view; the opposite of embed",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = as_strided_attrs,
    .n_attrs = 3,
    .infer = as_strided_infer,
    .gradient = as_strided_gradient,
    .forward = nyx__forward_linear,
    .batch = as_strided_batch,
    .cases = "x(3,4); size={2,2} stride={4,1} offset=1\nx(6); size={4,3} stride={1,1}",
};
