/* Padding: constant, reflect, replicate, circular, on any dimensions, also negative
 * (which crops); and the gradient of the last three, which adds every element back to
 * where it was read. Read next: remap.h. */
#include <string.h>

#include "../device/device.h"
#include "index.h"
#include "ops.h"
#include "remap.h"

typedef enum pad_mode { CONSTANT, REFLECT, REPLICATE, CIRCULAR } pad_mode;

static const char *const mode_names[] = {"constant", "reflect", "replicate", "circular"};

static nyx_status find_mode(nyx_context *ctx, const char *name, pad_mode *mode) {
  for (int i = 0; i < 4; i++)
    if (strcmp(name, mode_names[i]) == 0) {
      *mode = (pad_mode)i;
      return NYX_OK;
    }
  return nyx__error(ctx, ATTR_CHOICE, "mode", name,
                    "constant, reflect, replicate or circular");
}

/* The padding of each dimension. */
typedef struct padding {
  pad_mode mode;
  int ndim;
  int64_t before[NYX_MAX_DIMS];
  int64_t size[NYX_MAX_DIMS];  /* of the input */
  int64_t shape[NYX_MAX_DIMS]; /* of the output */
  uint32_t dims;               /* that are padded */
} padding;

static bool pads_fit(pad_mode mode, int64_t size, int64_t before, int64_t after) {
  int64_t most = before > after ? before : after;
  switch (mode) {
    case REFLECT: return most < size || most <= 0;
    case REPLICATE: return size > 0 || most <= 0;
    case CIRCULAR: return most <= size || most <= 0;
    default: return true;
  }
}

/* Reads pairs (before, after), the last dimension first, for a tensor of shape `size`. */
static nyx_status read_padding(nyx_context *ctx, const nyx_value *pairs, const char *mode,
                               int ndim, const int64_t *size, padding *p) {
  *p = (padding){.ndim = ndim};
  NYX_TRY(find_mode(ctx, mode, &p->mode));
  if (pairs->n % 2 || pairs->n > 2 * ndim)
    return nyx__error(ctx, ATTR_COUNT, "pad", pairs->n,
                      "pairs (before, after), the last dimension first, at most one for "
                      "each dimension");
  for (int d = 0; d < ndim; d++) {
    int k = ndim - 1 - d;
    bool listed = 2 * k < pairs->n;
    int64_t before = listed ? pairs->list[2 * k] : 0;
    int64_t after = listed ? pairs->list[2 * k + 1] : 0;
    p->size[d] = size[d];
    p->before[d] = before;
    if (!pads_fit(p->mode, size[d], before, after) ||
        __builtin_add_overflow(size[d], before, &p->shape[d]) ||
        __builtin_add_overflow(p->shape[d], after, &p->shape[d]) || p->shape[d] < 0 ||
        before < -size[d] || after < -size[d])
      return nyx__error(ctx, PAD_RANGE, (long long)before, (long long)after,
                        d + ctx->index_base, (long long)size[d], mode);
    if (before || after) p->dims |= 1u << d;
  }
  return NYX_OK;
}

/* Where output position `at` of a padded dimension comes from. */
static int64_t source(pad_mode mode, int64_t at, int64_t size) {
  if (at >= 0 && at < size) return at;
  switch (mode) {
    case REFLECT: return at < 0 ? -at : 2 * (size - 1) - at;
    case REPLICATE: return at < 0 ? 0 : size - 1;
    case CIRCULAR: return at < 0 ? at + size : at - size;
    default: return NYX__FILL;
  }
}

static nyx_status open_map(nyx_context *ctx, const padding *p, nyx__remap *map) {
  NYX_TRY(nyx__remap_open(ctx, p->ndim, p->shape, p->dims, map));
  for (int d = 0; d < p->ndim; d++) {
    if (!map->from[d]) continue;
    for (int64_t i = 0; i < p->shape[d]; i++)
      map->from[d][i] = source(p->mode, i - p->before[d], p->size[d]);
  }
  return NYX_OK;
}

/* pad */

static nyx_status pad_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  padding p;
  int64_t value;
  NYX_TRY(read_padding(c->ctx, &c->attr[0], c->attr[1].s, x->ndim, x->shape, &p));
  if (p.mode == CONSTANT)
    NYX_TRY(nyx__value_store(c->ctx, "value", c->attr[2].f, c->dtype, &value));
  nyx__spec(&c->spec[0], c->dtype, p.ndim, p.shape);
  nyx__spec_images(&c->spec[0], x);
  return NYX_OK;
}

static nyx_status pad_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0], *out = c->out[0];
  if (out->numel == 0) return NYX_OK;
  padding p;
  int64_t value = 0;
  NYX_TRY(read_padding(c->ctx, &c->attr[0], c->attr[1].s, x->ndim, x->shape, &p));
  if (p.mode == CONSTANT)
    NYX_TRY(nyx__value_store(c->ctx, "value", c->attr[2].f, c->dtype, &value));
  nyx__remap map;
  NYX_TRY(open_map(c->ctx, &p, &map));
  nyx_status status =
      nyx__remap_copy(c->ctx, &map, x, out, p.mode == CONSTANT ? &value : NULL);
  nyx__remap_close(&map);
  return status;
}

/* The gradient of a constant padding crops what was added and pads what was cropped. */
static nyx_status pad_gradient(nyx_backward *b) {
  nyx_tensor *g;
  pad_mode mode;
  NYX_TRY(find_mode(b->ctx, b->attr[1].s, &mode));
  NYX_TRY(nyx__layout_of(b->ctx, b->grad_out[0], &b->out_spec[0], &g));
  const nyx_spec *x = &b->in_spec[0];
  int64_t back[2 * NYX_MAX_DIMS];
  for (int i = 0; i < b->attr[0].n; i++) back[i] = -b->attr[0].list[i];
  nyx_value crop[] = {NYX_LIST(back, b->attr[0].n), b->attr[1], NYX_F(0)};
  nyx_value add[] = {NYX_LIST(x->shape, x->ndim), b->attr[0], b->attr[1]};
  nyx_status status =
      mode == CONSTANT
          ? nyx__apply1(b->ctx, NYX__OP_pad, g, crop, &b->grad_in[0])
          : nyx__apply1(b->ctx, NYX__OP_pad_backward, g, add, &b->grad_in[0]);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr pad_attrs[] = {
    {"pad",
     NYX_ATTR_INTS,
     true,
     {.given = false},
     "pairs (before, after), the last dimension first; negative numbers crop"},
    {"mode",
     NYX_ATTR_STRING,
     false,
     {.s = "constant", .given = true},
     "constant, reflect, replicate or circular"},
    {"value", NYX_ATTR_FLOAT, false, {.f = 0, .given = true}, "of constant padding"}};

const nyx_op nyx__op_pad = {
    .name = "pad",
    .group = "shape",
    .doc =
        "x with elements added before and after in its last dimensions: a constant, or "
        "x itself mirrored, its border repeated, or continued from the other end.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = pad_attrs,
    .n_attrs = 3,
    .n_out = 1,
    .overwrites = true,
    .infer = pad_infer,
    .cpu = pad_cpu,
    .gradient = pad_gradient,
    .batch = nyx__batch_leading,
    .cases =
        "x(3,4); pad={1,2}\n"
        "x(3,4); pad={1,-2,-1,2} value=2.5\n"
        "x(2,3,4); pad={2,3,1,2} mode=reflect\n"
        "x(2,3,4); pad={2,0,1,5} mode=replicate\n"
        "x(2,3,4); pad={0,0,2,11} mode=replicate\n"
        "x(2,3,4); pad={-1,4,3,2} mode=circular",
    .domain = {-4, 4},
};

/* pad_backward */

static nyx_status pad_backward_padding(nyx_context *ctx, const nyx_value *attr,
                                       padding *p) {
  const nyx_value *shape = &attr[0];
  if (shape->n > NYX_MAX_DIMS) return nyx__error(ctx, NDIM_RANGE, shape->n, NYX_MAX_DIMS);
  for (int d = 0; d < shape->n; d++)
    if (shape->list[d] < 0)
      return nyx__error(ctx, SIZE_NEGATIVE, (long long)shape->list[d],
                        d + ctx->index_base);
  return read_padding(ctx, &attr[1], attr[2].s, shape->n, shape->list, p);
}

static nyx_status pad_backward_infer(nyx_call *c) {
  padding p;
  NYX_TRY(pad_backward_padding(c->ctx, c->attr, &p));
  NYX_TRY(nyx__shape_check(c->ctx, "g", c->in[0], p.ndim, p.shape));
  nyx__spec(&c->spec[0], c->dtype, p.ndim, p.size);
  nyx__spec_images(&c->spec[0], c->in[0]);
  return NYX_OK;
}

static nyx_status pad_backward_cpu(nyx_call *c) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *out = c->out[0], *sum, *g = NULL;
  nyx__remap map = {0};
  padding p;
  int64_t pixel;
  NYX_TRY(pad_backward_padding(ctx, c->attr, &p));
  bool last = nyx__lies_last(out->ndim, out->shape, out->stride);
  memset(nyx__data(out), 0, (size_t)out->numel * nyx_dtype_size(out->dtype));
  if (last)
    NYX_TRY(nyx__last_as(ctx, out, nyx__compute_dtype(out->dtype), NULL, &sum));
  else
    NYX_TRY(nyx__update_begin(ctx, out, true, &sum));
  nyx_status status = NYX_OK;
  if (c->in[0]->numel > 0 && out->numel > 0) {
    bool gaps = p.dims && p.shape[1] > 1; /* see nyx__remap_add */
    status = last ? nyx__last_as(ctx, c->in[0], sum->dtype, gaps ? &pixel : NULL, &g)
                  : nyx__contiguous_as(ctx, c->in[0], sum->dtype, &g);
    if (status == NYX_OK) status = open_map(ctx, &p, &map);
    if (status == NYX_OK) status = nyx__remap_add(ctx, &map, g, sum);
    nyx__remap_close(&map);
    nyx_tensor_release(g);
  }
  return nyx__update_end(ctx, sum, out, status);
}

static nyx_status pad_backward_gradient(nyx_backward *b) {
  nyx_value attrs[] = {b->attr[1], b->attr[2], NYX_F(0)};
  nyx_tensor *g;
  NYX_TRY(nyx__layout_of(b->ctx, b->grad_out[0], &b->out_spec[0], &g));
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_pad, g, attrs, &b->grad_in[0]);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr pad_backward_attrs[] = {
    {"shape", NYX_ATTR_INTS, true, {.given = false}, "of the padded tensor"},
    {"pad", NYX_ATTR_INTS, true, {.given = false}, "as given to pad"},
    {"mode", NYX_ATTR_STRING, true, {.given = false}, "as given to pad"}};

const nyx_op nyx__op_pad_backward = {
    .name = "pad_backward",
    .group = "gradient",
    .doc = "The gradient of pad: every element of g added to where pad read it.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "g",
    .min_in = 1,
    .max_in = 1,
    .attrs = pad_backward_attrs,
    .n_attrs = 3,
    .n_out = 1,
    .overwrites = true,
    .infer = pad_backward_infer,
    .cpu = pad_backward_cpu,
    .gradient = pad_backward_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_shape,
    .cases =
        "g(2,6,9); shape={2,3,4} pad={2,3,1,2} mode=reflect\n"
        "g(2,6,9); shape={2,3,4} pad={2,3,1,2} mode=replicate\n"
        "g(2,6,9); shape={2,3,4} pad={2,3,1,2} mode=circular\n"
        "g(3,7); shape={3,4} pad={1,2} mode=constant",
    .domain = {-4, 4},
};
