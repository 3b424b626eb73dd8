/* Joining a list of tensors: cat along a dimension they have, stack along a new one. Each
 * input is copied to its part of the result, on any device. */
#include "join.h"

#include <nyx/parallel.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/move.h"
#include "../device/device.h"
#include "ops.h"

#define ZIP_BYTES 8192        /* of the result that are made at a time */
#define ZIP_RANGE (256 << 10) /* and by one thread, at least */

static nyx_status call_dim(nyx_call *c, int ndim, int *dim) {
  return nyx__dim(c->ctx, c->attr[0].i, ndim, dim);
}

/* Copies t to the part of out at `start` of dimension `dim`; `drop`: t lacks `dim`. */
static nyx_status copy_part(nyx_context *ctx, nyx_tensor *t, nyx_tensor *out, int dim,
                            int64_t start, bool drop) {
  nyx_spec spec;
  nyx__spec(&spec, out->dtype, t->ndim, t->shape);
  spec.offset = out->offset + start * out->stride[dim];
  for (int d = 0; d < t->ndim; d++)
    spec.stride[d] = out->stride[drop && d >= dim ? d + 1 : d];
  nyx_tensor *part;
  NYX_TRY(nyx__tensor_view(ctx, out->storage, &spec, &part));
  nyx_status status = nyx__copy_into(ctx, t, part);
  nyx_tensor_release(part);
  return status;
}

/* Parts of one element each, side by side: all inputs are read together. */

typedef struct zip_job {
  const char *from[NYX_MAX_INPUTS];
  int64_t k;
  int64_t item;
  char *to;
  int64_t most; /* rows of k elements at a time */
  nyx_zip_fn zip;
  const nyx_move_kernels *stream; /* NULL: the result stays in the caches */
} zip_job;

static void zip_range(void *arg, int64_t begin, int64_t end) {
  const zip_job *j = arg;
  const void *from[NYX_MAX_INPUTS];
  _Alignas(64) char room[ZIP_BYTES];
  for (int64_t at = begin, n; at < end; at += n) {
    n = end - at < j->most ? end - at : j->most;
    for (int64_t i = 0; i < j->k; i++) from[i] = j->from[i] + at * j->item;
    char *to = j->to + at * j->k * j->item;
    j->zip(n, j->k, from, j->stream ? room : to);
    if (j->stream) j->stream->stream(n * j->k * j->item, room, to);
  }
  if (j->stream) j->stream->drain();
}

/* Whether nothing but the inputs' order has to be known to join them along `dim`. */
static bool can_zip(const nyx_call *c, int dim) {
  const nyx_tensor *out = c->out[0];
  const int64_t item = nyx__item(out->dtype);
  if (out->storage->device != nyx__cpu() || !nyx__is_contiguous(out) || c->n_in < 2 ||
      out->shape[dim] != c->n_in || item > 8 || c->n_in * item > ZIP_BYTES)
    return false;
  for (int d = dim + 1; d < out->ndim; d++)
    if (out->shape[d] != 1) return false;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i]->dtype != out->dtype || c->in[i]->numel * c->n_in != out->numel ||
        !nyx__is_contiguous(c->in[i]))
      return false;
  return true;
}

nyx_status nyx__zip(nyx_context *ctx, nyx_tensor *const *in, int n, char *to) {
  const nyx_move_kernels *move = nyx__cpu_kernels()->move;
  zip_job j = {.k = n, .item = nyx__item(in[0]->dtype), .to = to};
  const int64_t row = j.k * j.item, rows = in[0]->numel;
  j.most = ZIP_BYTES / row;
  j.zip = move->zip[__builtin_ctzll((uint64_t)j.item)];
  if (rows * row >= NYX_STREAM_BYTES) j.stream = move;
  for (int i = 0; i < n; i++) j.from[i] = nyx__data(in[i]);
  return nyx__parallel_for(ctx, rows, (ZIP_RANGE + row - 1) / row, zip_range, &j);
}

/* cat */

/* As in PyTorch an empty list, shape (0), joins tensors of any shape. */
static bool is_nothing(int ndim, const int64_t *shape) {
  return ndim == 1 && shape[0] == 0;
}

static int first_real(const nyx_call *c) {
  int i = 0;
  while (i < c->n_in - 1 && is_nothing(c->in[i]->ndim, c->in[i]->shape)) i++;
  return i;
}

/* Channels-last images joined are channels-last. */
static bool all_last(const nyx_call *c) {
  for (int i = 0; i < c->n_in; i++) {
    const nyx_tensor *t = c->in[i];
    if (!is_nothing(t->ndim, t->shape) && !nyx__lies_last(t->ndim, t->shape, t->stride))
      return false;
  }
  return c->spec[0].ndim == 4;
}

static nyx_status cat_infer(nyx_call *c) {
  int first = first_real(c), dim;
  const nyx_tensor *model = c->in[first];
  nyx_spec *spec = &c->spec[0];
  nyx__spec(spec, c->dtype, model->ndim, model->shape);
  if (model->ndim == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "tensors", "",
                      "at least one dimension; stack joins numbers");
  NYX_TRY(call_dim(c, model->ndim, &dim));
  for (int i = first + 1; i < c->n_in; i++) {
    const nyx_tensor *t = c->in[i];
    if (is_nothing(t->ndim, t->shape)) continue;
    bool fits = t->ndim == model->ndim;
    for (int d = 0; fits && d < t->ndim; d++)
      fits = d == dim || t->shape[d] == model->shape[d];
    if (!fits)
      return nyx__error(c->ctx, CAT_SHAPE, i + 1, NYX__SHAPE(t), first + 1,
                        NYX__SHAPE(model), dim + c->ctx->index_base);
    if (__builtin_add_overflow(spec->shape[dim], t->shape[dim], &spec->shape[dim]))
      return nyx__error(c->ctx, SIZE_OVERFLOW, NYX__SHAPE(t));
  }
  if (all_last(c)) nyx__spec_last(spec);
  return NYX_OK;
}

static nyx_status cat_run(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, c->out[0]->ndim, &dim));
  if (can_zip(c, dim)) return nyx__zip(c->ctx, c->in, c->n_in, nyx__data(c->out[0]));
  int64_t start = 0;
  for (int i = 0; i < c->n_in; i++) {
    nyx_tensor *t = c->in[i];
    if (t->numel) NYX_TRY(copy_part(c->ctx, t, c->out[0], dim, start, false));
    if (t->ndim == c->out[0]->ndim) start += t->shape[dim];
  }
  return NYX_OK;
}

static nyx_status cat_gradient(nyx_backward *b) {
  int dim, ndim = b->out_spec[0].ndim;
  NYX_TRY(nyx__dim(b->ctx, b->attr[0].i, ndim, &dim));
  int64_t start = 0;
  for (int i = 0; i < b->n_in; i++) {
    if (b->in_spec[i].ndim != ndim) continue; /* an empty list: no gradient */
    int64_t length = b->in_spec[i].shape[dim];
    nyx_value part[] = {NYX_I(dim), NYX_I(start), NYX_I(length), NYX_I(1)};
    if (b->need[i])
      NYX_TRY(nyx__apply1(b->ctx, NYX__OP_narrow, b->grad_out[0], part, &b->grad_in[i]));
    start += length;
  }
  return NYX_OK;
}

static const nyx_attr cat_attrs[] = {
    {"dim", NYX_ATTR_DIM, false, {.i = 0, .given = true}, "the dimension to join along"}};

const nyx_op nyx__op_cat = {
    .name = "cat",
    .group = "shape",
    .doc = "Joins a list of tensors along `dim`; their other sizes must be equal.",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "tensors",
    .min_in = 1,
    .max_in = NYX_MAX_INPUTS,
    .variadic = true,
    .attrs = cat_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = cat_infer,
    .cpu = cat_run,
    .gradient = cat_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "a(2,3) b(4,3)\na(2,3) b(2,1) c(2,2); dim=2\na(2,3,2) b(2,1,2); dim=-2",
    .domain = {-4, 4},
};

/* stack */

static nyx_status stack_infer(nyx_call *c) {
  const nyx_tensor *model = c->in[0];
  nyx_spec *spec = &c->spec[0];
  if (model->ndim == NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, model->ndim + 1, NYX_MAX_DIMS);
  for (int i = 1; i < c->n_in; i++) {
    const nyx_tensor *t = c->in[i];
    bool same = t->ndim == model->ndim;
    for (int d = 0; same && d < t->ndim; d++) same = t->shape[d] == model->shape[d];
    if (!same)
      return nyx__error(c->ctx, STACK_SHAPE, i + 1, NYX__SHAPE(t), 1, NYX__SHAPE(model));
  }
  int dim;
  NYX_TRY(call_dim(c, model->ndim + 1, &dim));
  spec->dtype = c->dtype;
  spec->ndim = model->ndim + 1;
  for (int d = 0; d < spec->ndim; d++)
    spec->shape[d] = d == dim ? c->n_in : model->shape[d > dim ? d - 1 : d];
  return NYX_OK;
}

static nyx_status stack_run(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, c->out[0]->ndim, &dim));
  if (can_zip(c, dim)) return nyx__zip(c->ctx, c->in, c->n_in, nyx__data(c->out[0]));
  for (int i = 0; i < c->n_in; i++)
    NYX_TRY(copy_part(c->ctx, c->in[i], c->out[0], dim, i, true));
  return NYX_OK;
}

static nyx_status stack_gradient(nyx_backward *b) {
  for (int i = 0; i < b->n_in; i++) {
    nyx_value at[] = {b->attr[0], NYX_I(i)};
    if (b->need[i])
      NYX_TRY(nyx__apply1(b->ctx, NYX__OP_select, b->grad_out[0], at, &b->grad_in[i]));
  }
  return NYX_OK;
}

static const nyx_attr stack_attrs[] = {{"dim",
                                        NYX_ATTR_DIM,
                                        false,
                                        {.i = 0, .given = true},
                                        "where the new dimension will be"}};

const nyx_op nyx__op_stack = {
    .name = "stack",
    .group = "shape",
    .doc = "Joins a list of tensors of one shape along a new dimension.",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "tensors",
    .min_in = 1,
    .max_in = NYX_MAX_INPUTS,
    .variadic = true,
    .attrs = stack_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = stack_infer,
    .cpu = stack_run,
    .gradient = stack_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_new_dim,
    .cases = "a(2,3) b(2,3)\na(2,3) b(2,3) c(2,3); dim=-1\na() b()",
    .domain = {-4, 4},
};
