/* Reading and writing at positions in several leading dimensions at once: index and
 * index_put. The tensors of positions broadcast against each other. Along a single
 * dimension see index.c. */
#include "../device/device.h"
#include "index.h"
#include "ops.h"
#include "remap.h"

/* The leading dimensions that positions are given for, and what those broadcast to. */
typedef struct place {
  nyx_tensor **index;
  int count; /* leading dimensions of x */
  int ndim;  /* of the positions */
  int64_t shape[NYX_MAX_DIMS];
  int64_t numel;
} place;

static nyx_status place_find(nyx_call *c, int first, place *p) {
  static const char *const names[] = {"index",  "index2", "index3", "index4",
                                      "index5", "index6", "index7", "index8"};
  *p = (place){.index = c->in + first, .numel = 1};
  for (; first + p->count < c->n_in && p->index[p->count]; p->count++) {
    nyx_tensor *t = p->index[p->count];
    NYX_TRY(nyx__index_check(c->ctx, names[p->count], t));
    int64_t before[NYX_MAX_DIMS];
    int n_before = p->ndim;
    for (int d = 0; d < n_before; d++) before[d] = p->shape[d];
    if (!nyx__broadcast(n_before, before, t->ndim, t->shape, &p->ndim, p->shape)) {
      char text[NYX_SHAPE_TEXT];
      return nyx__error(c->ctx, BROADCAST,
                        nyx__shape_text(n_before, before, text, sizeof text),
                        NYX__SHAPE(t));
    }
  }
  for (int i = first + p->count; i < c->n_in; i++)
    if (c->in[i])
      return nyx__error(c->ctx, TENSOR_MISSING, first + p->count + 1, names[p->count]);
  if (p->count > c->in[0]->ndim) {
    nyx_tensor *x = c->in[0];
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "a dimension for each tensor of positions");
  }
  if (nyx__numel(p->ndim, p->shape, sizeof(int64_t), &p->numel)) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(c->ctx, SIZE_OVERFLOW,
                    nyx__shape_text(p->ndim, p->shape, text, sizeof text));
}

/* The shape of x[positions]: that of the positions, then the rest of x. */
static nyx_status place_spec(nyx_call *c, const place *p, nyx_spec *spec) {
  const nyx_tensor *x = c->in[0];
  int rest = x->ndim - p->count;
  if (p->ndim + rest > NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, p->ndim + rest, NYX_MAX_DIMS);
  nyx__spec(spec, c->dtype, p->ndim, p->shape);
  for (int d = 0; d < rest; d++) spec->shape[p->ndim + d] = x->shape[p->count + d];
  spec->ndim = p->ndim + rest;
  return NYX_OK;
}

/* For each position the sum over dimensions of position times `stride`, in a block for
 * nyx_memory_free. */
static nyx_status place_offsets(nyx_call *c, const place *p, const int64_t *stride,
                                int64_t **out) {
  size_t bytes = (size_t)p->numel * sizeof(int64_t);
  int64_t *sum = nyx_memory_alloc_zeroed(bytes);
  *out = NULL;
  if (!sum) return nyx__no_memory(c->ctx, bytes);
  nyx_status status = NYX_OK;
  for (int d = 0; d < p->count && status == NYX_OK; d++) {
    nyx_tensor *view;
    int64_t *at = NULL;
    nyx__range range = {.size = c->in[0]->shape[d], .dim = d, .wrap = true};
    status = nyx__expanded(c->ctx, p->index[d], p->ndim, p->shape, &view);
    if (status != NYX_OK) break;
    status = nyx__positions(c->ctx, view, range, &at);
    nyx_tensor_release(view);
    if (status != NYX_OK) break;
    for (int64_t i = 0; i < p->numel; i++) sum[i] += at[i] * stride[d];
    nyx_memory_free(at);
  }
  if (status != NYX_OK) {
    nyx_memory_free(sum);
    return status;
  }
  *out = sum;
  return NYX_OK;
}

/* index */

static nyx_status index_infer(nyx_call *c) {
  place p;
  NYX_TRY(place_find(c, 1, &p));
  return place_spec(c, &p, &c->spec[0]);
}

/* The indexed dimensions become one of stride 1 whose positions are element offsets. */
static nyx_status index_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0], *lines;
  place p;
  NYX_TRY(place_find(c, 1, &p));
  int64_t *from;
  NYX_TRY(place_offsets(c, &p, x->stride, &from));
  int rest = x->ndim - p.count;
  nyx_spec spec = {.dtype = x->dtype, .ndim = rest + 1, .offset = x->offset};
  spec.shape[0] = spec.stride[0] = 1;
  nyx__remap map = {.ndim = rest + 1,
                    .shape = {p.numel},
                    .from = {from},
                    .block = from,
                    .scattered = true};
  for (int d = 0; d < rest; d++) {
    spec.shape[d + 1] = map.shape[d + 1] = x->shape[p.count + d];
    spec.stride[d + 1] = x->stride[p.count + d];
  }
  nyx_status status = nyx__tensor_view(c->ctx, x->storage, &spec, &lines);
  if (status == NYX_OK) {
    status = nyx__remap_copy(c->ctx, &map, lines, c->out[0], NULL);
    nyx_tensor_release(lines);
  }
  nyx__remap_close(&map);
  return status;
}

static nyx_status index_gradient(nyx_backward *b) {
  nyx_tensor *in[NYX_MAX_DIMS + 2] = {NULL, b->grad_out[0]};
  nyx_value accumulate = NYX_I(true);
  int n = 2;
  for (int i = 1; i < b->n_in && b->in[i]; i++) in[n++] = b->in[i];
  NYX_TRY(nyx__zeros(b->ctx, b->grad_out[0], &b->in_spec[0], &in[0]));
  nyx_status status =
      nyx__applyn(b->ctx, NYX__OP_index_put, in, n, &accumulate, &b->grad_in[0]);
  nyx_tensor_release(in[0]);
  return status;
}

const nyx_op nyx__op_index = {
    .name = "index",
    .group = "indexing",
    .doc =
        "x at positions in its first dimensions, one tensor of positions for each; they "
        "broadcast: out[i] = x[index[i]][index2[i]]. The other dimensions follow. "
        "Negative positions count from the end.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x index index2 index3 index4 index5 index6 index7 index8",
    .min_in = 2,
    .max_in = NYX_MAX_DIMS + 1,
    .index_in = 0x1fe,
    .n_out = 1,
    .infer = index_infer,
    .cpu = index_cpu,
    .gradient = index_gradient,
    .forward = nyx__forward_linear,
    .save_in = 0x1fe,
    .cases =
        "x(3,4) index(5)<3 index2(5)<4\n"
        "x(3,4,2) index(2,3)<3\n"
        "x(3,4,2) index(2,1)<3 index2(3)<4",
    .domain = {-4, 4},
};

/* index_put */

static nyx_status index_put_infer(nyx_call *c) {
  place p;
  nyx_spec target, whole;
  NYX_TRY(place_find(c, 2, &p));
  NYX_TRY(place_spec(c, &p, &target));
  nyx_tensor *values = c->in[1];
  bool fits = nyx__broadcast(target.ndim, target.shape, values->ndim, values->shape,
                             &whole.ndim, whole.shape) &&
              whole.ndim == target.ndim;
  for (int d = 0; fits && d < whole.ndim; d++) fits = whole.shape[d] == target.shape[d];
  if (!fits) {
    char text[NYX_SHAPE_TEXT];
    return nyx__error(c->ctx, EXPAND, NYX__SHAPE(values),
                      nyx__shape_text(target.ndim, target.shape, text, sizeof text));
  }
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

static nyx_status index_put_run(nyx_call *c, const place *p, const nyx_spec *target,
                                nyx_tensor *work, nyx_tensor *start, nyx_tensor *values) {
  int64_t stride[NYX_MAX_DIMS], *at, rest = 1;
  nyx__strides(p->count, work->shape, stride); /* rows of the other dimensions */
  NYX_TRY(place_offsets(c, p, stride, &at));
  for (int d = p->ndim; d < target->ndim; d++) rest *= target->shape[d];
  nyx__lanes l = {.outer = 1,
                  .count = p->numel,
                  .inner = rest,
                  .at = at,
                  .at_step = 1,
                  .dtype = work->dtype,
                  .alpha = 1,
                  .rows = rest ? work->numel / rest : 0,
                  .fill = start != NULL,
                  .start = start ? nyx__data(start) : NULL};
  l.a = (nyx__side){.data = nyx__data(work), .step = rest};
  l.b = (nyx__side){.data = nyx__data(values), .step = rest};
  nyx_status status = nyx__lanes_run(c->ctx, &l, c->attr[0].i ? NYX__ADD : NYX__SCATTER);
  nyx_memory_free(at);
  return status;
}

static nyx_status index_put_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *work, *start, *wide, *values = NULL;
  place p;
  nyx_spec target;
  NYX_TRY(place_find(c, 2, &p));
  NYX_TRY(place_spec(c, &p, &target));
  NYX_TRY(nyx__update_fill(c->ctx, c->in[0], out, c->attr[0].i, &work, &start));
  nyx_status status = nyx__expanded(c->ctx, c->in[1], target.ndim, target.shape, &wide);
  if (status == NYX_OK) {
    status = nyx__apart_as(c->ctx, wide, work->dtype, out, &values);
    nyx_tensor_release(wide);
  }
  if (status == NYX_OK) status = index_put_run(c, &p, &target, work, start, values);
  nyx_tensor_release(values);
  return nyx__update_end(c->ctx, work, out, status);
}

/* Which of the positions a later equal one overwrote, as a mask with a size of 1 for each
 * of the `rest` dimensions: each position writes its number, then reads it back. */
static nyx_status overwritten(nyx_backward *b, nyx_tensor *const *index, int count,
                              const nyx_spec *target, nyx_tensor **out) {
  nyx_context *ctx = b->ctx;
  int rest = b->in_spec[0].ndim - count, ndim = target->ndim - rest;
  nyx_spec lines;
  nyx__spec(&lines, NYX_INT64, count, b->in_spec[0].shape);
  int64_t shape[NYX_MAX_DIMS], numel = 1;
  for (int d = 0; d < target->ndim; d++) {
    shape[d] = d < ndim ? target->shape[d] : 1;
    numel *= shape[d];
  }
  nyx_value number[] = {NYX_F(0), NYX_F((double)numel), NYX_F(1), NYX_I(NYX_INT64)};
  nyx_value head = NYX_LIST(shape, ndim), mask = NYX_LIST(shape, target->ndim);
  nyx_tensor *flat = NULL, *own = NULL, *read = NULL, *lost = NULL;
  nyx_tensor *put[NYX_MAX_DIMS + 2] = {NULL}, *get[NYX_MAX_DIMS + 1] = {NULL};
  for (int i = 0; i < count; i++) put[i + 2] = get[i + 1] = index[i];
  nyx_status status = nyx__applyn(ctx, NYX__OP_arange, NULL, 0, number, &flat);
  if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_reshape, flat, &head, &own);
  if (status == NYX_OK) status = nyx__zeros(ctx, own, &lines, &put[0]);
  put[1] = own;
  if (status == NYX_OK)
    status = nyx__applyn(ctx, NYX__OP_index_put, put, count + 2, NULL, &get[0]);
  if (status == NYX_OK)
    status = nyx__applyn(ctx, NYX__OP_index, get, count + 1, NULL, &read);
  if (status == NYX_OK) status = nyx__apply2(ctx, NYX__OP_ne, read, own, NULL, &lost);
  if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_reshape, lost, &mask, out);
  nyx_tensor *done[] = {flat, own, put[0], get[0], read, lost};
  for (int i = 0; i < 6; i++) nyx_tensor_release(done[i]);
  return status;
}

/* x: what was not overwritten; values: what arrived at their places. */
static nyx_status index_put_gradient(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *g = b->grad_out[0], *in[NYX_MAX_DIMS + 2] = {g};
  int count = 0;
  while (count + 2 < b->n_in && b->in[count + 2]) {
    in[count + 2] = b->in[count + 2];
    count++;
  }
  bool accumulate = b->attr[0].i;
  if (b->need[0] && accumulate) b->grad_in[0] = nyx_tensor_retain(g);
  if (b->need[0] && !accumulate) {
    NYX_TRY(nyx_tensor_scalar(ctx, 0, g->dtype, true, &in[1]));
    nyx_status put =
        nyx__applyn(ctx, NYX__OP_index_put, in, count + 2, b->attr, &b->grad_in[0]);
    nyx_tensor_release(in[1]);
    NYX_TRY(put);
  }
  if (!b->need[1]) return NYX_OK;
  in[1] = g;
  nyx_tensor *picked = NULL, *lost = NULL, *kept = NULL;
  nyx_value zero = NYX_F(0);
  nyx_status status = nyx__applyn(ctx, NYX__OP_index, in + 1, count + 1, NULL, &picked);
  if (status == NYX_OK && !accumulate) {
    nyx_spec target;
    nyx__spec(&target, picked->dtype, picked->ndim, picked->shape);
    status = overwritten(b, in + 2, count, &target, &lost);
    if (status == NYX_OK)
      status = nyx__apply2(ctx, NYX__OP_masked_fill, picked, lost, &zero, &kept);
  }
  if (status == NYX_OK)
    status = nyx__sum_to(ctx, accumulate ? picked : kept, &b->in_spec[1], &b->grad_in[1]);
  nyx_tensor_release(picked);
  nyx_tensor_release(lost);
  nyx_tensor_release(kept);
  return status;
}

static const nyx_attr index_put_attrs[] = {
    {"accumulate",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "add to what is there; equal positions add up"}};

const nyx_op nyx__op_index_put = {
    .name = "index_put",
    .group = "indexing",
    .doc =
        "x with `values` written at positions in its first dimensions, one tensor of "
        "positions for each; see index. values broadcast to the shape index gives. Of "
        "equal positions the last one stays, or all add up.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x values index index2 index3 index4 index5 index6 index7 index8",
    .min_in = 3,
    .max_in = NYX_MAX_DIMS + 2,
    .updates = true,
    .fills = true,
    .index_in = 0x3fc,
    .attrs = index_put_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = index_put_infer,
    .cpu = index_put_cpu,
    .gradient = index_put_gradient,
    .forward = nyx__forward_linear,
    .save_in = 0x3fc,
    .cases =
        "x(3,4) values(5) index(5)<3 index2(5)<4; accumulate=true\n"
        "x(3,4) values(5) index(5)<3 index2(5)<4\n"
        "x(3,4,2) values(2) index(2,3)<3\n"
        "x(3,4,2) values(2,3,2) index(2,1)<3 index2(3)<4; accumulate=true",
    .domain = {-4, 4},
};
