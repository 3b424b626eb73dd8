/* Pooling over the last two dimensions: max_pool2d, avg_pool2d, adaptive_avg_pool2d and
 * the adjoints of the averages. Read next: window.c (sizes), index.c (whose scatter_add
 * is the gradient of max_pool2d). */
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/pool.h"
#include "pool_last.h"
#include "window.h"

#define RANGE_WORK 65536 /* elements worth waking a thread for */

static const int64_t ones[] = {1}, zeros[] = {0};

/* The sizes of x or of its gradient: planes of height x width. */
static nyx_status read_planes(nyx_context *ctx, const char *name, const nyx_tensor *t,
                              int64_t size[2]) {
  if (t->ndim != 3 && t->ndim != 4) {
    return nyx__error(ctx, WINDOW_INPUT, name, NYX__SHAPE(t));
  }
  size[0] = t->shape[t->ndim - 2];
  size[1] = t->shape[t->ndim - 1];
  return NYX_OK;
}

/* Whether the result of a call is channels-last: its input is. Positions in a plane have
 * 32 bits there. */
static bool gives_last(const nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  return nyx__lies_last(x->ndim, x->shape, x->stride) &&
         (double)x->shape[2] * (double)x->shape[3] < 0x1p31;
}

static void choose_layout(nyx_call *c) {
  for (int i = 0; i < c->n_out && gives_last(c); i++) nyx__spec_last(&c->spec[i]);
}

static void planes_spec(nyx_dtype dtype, const nyx_tensor *like, int64_t height,
                        int64_t width, nyx_spec *spec) {
  nyx__spec(spec, dtype, like->ndim, like->shape);
  spec->shape[like->ndim - 2] = height;
  spec->shape[like->ndim - 1] = width;
}

/* Reads kernel_size, stride (the kernel's by default) and padding. */
static nyx_status read_windows(nyx_context *ctx, const nyx_value *kernel,
                               const nyx_value *stride, const nyx_value *padding,
                               nyx__window w[2]) {
  int64_t k[2], s[2], p[2];
  NYX_TRY(nyx__pair(ctx, "kernel_size", kernel, 1, k));
  NYX_TRY(nyx__pair(ctx, "stride", stride->given ? stride : kernel, 1, s));
  NYX_TRY(nyx__pair(ctx, "padding", padding, 0, p));
  for (int i = 0; i < 2; i++) {
    w[i].kernel = k[i];
    w[i].stride = s[i];
    w[i].pad = p[i];
    w[i].dilation = 1;
    if (p[i] > k[i] / 2) {
      return nyx__error(ctx, ATTR_RANGE, "padding", (long long)p[i],
                        "half of the kernel's size or less");
    }
  }
  return NYX_OK;
}

/* One computation over planes, shared by the threads. */
typedef struct pool_run {
  nyx__window w[2];
  const void *from;
  void *to;
  int64_t *index; /* of max_pool2d: positions in the plane, counted from base */
  int64_t base;
  const nyx_pool_box *box[2]; /* of the averages: w[i].out of them */
} pool_run;

/* Calls fn with contiguous data of a computed dtype; half types compute in float32. */
static nyx_status run_planes(nyx_call *c, pool_run *r, nyx_range_fn f32, nyx_range_fn f64,
                             int64_t work) {
  nyx_dtype dtype = c->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  nyx_tensor *in, *out;
  NYX_TRY(nyx__contiguous_as(c->ctx, c->in[0], dtype, &in));
  nyx_status status = NYX_OK;
  if (dtype == c->dtype) {
    out = nyx_tensor_retain(c->out[0]);
  } else {
    status = nyx_tensor_empty(c->ctx, dtype, c->out[0]->ndim, c->out[0]->shape, &out);
  }
  if (status == NYX_OK) {
    r->from = nyx__data(in);
    r->to = nyx__data(out);
    const int64_t *shape = c->in[0]->shape;
    int64_t planes = shape[0] * (c->in[0]->ndim == 4 ? shape[1] : 1);
    status = nyx__parallel_for(c->ctx, planes, RANGE_WORK / (work + 1) + 1,
                               dtype == NYX_FLOAT32 ? f32 : f64, r);
    if (status == NYX_OK && out != c->out[0])
      status = nyx__copy_into(c->ctx, out, c->out[0]);
    nyx_tensor_release(out);
  }
  nyx_tensor_release(in);
  return status;
}

/* max_pool2d */

enum {
  MAX_KERNEL,
  MAX_STRIDE,
  MAX_PADDING,
  MAX_DILATION,
  MAX_CEIL,
  MAX_INDICES,
  MAX_ATTRS
};

#define MAX_POOL_ATTRS                                                                   \
  {.name = "kernel_size",                                                                \
   .type = NYX_ATTR_INTS,                                                                \
   .required = true,                                                                     \
   .doc = "size of the window, one number or {height, width}"},                          \
      {.name = "stride",                                                                 \
       .type = NYX_ATTR_INTS,                                                            \
       .doc = "step of the window; its size when left out"},                             \
      {.name = "padding",                                                                \
       .type = NYX_ATTR_INTS,                                                            \
       .preset = {.list = zeros, .n = 1, .given = true},                                 \
       .doc = "places around the input that are never the greatest"},                    \
      {.name = "dilation",                                                               \
       .type = NYX_ATTR_INTS,                                                            \
       .preset = {.list = ones, .n = 1, .given = true},                                  \
       .doc = "distance between the places of a window"},                                \
  {                                                                                      \
    .name = "ceil_mode", .type = NYX_ATTR_BOOL, .preset = {.i = 0, .given = true},       \
    .doc = "whether a last window may hang over the end"                                 \
  }

static nyx_status read_max(nyx_call *c, nyx__window w[2]) {
  int64_t dilation[2], size[2];
  const nyx_value *attr = c->attr;
  NYX_TRY(read_planes(c->ctx, "x", c->in[0], size));
  NYX_TRY(
      read_windows(c->ctx, &attr[MAX_KERNEL], &attr[MAX_STRIDE], &attr[MAX_PADDING], w));
  NYX_TRY(nyx__pair(c->ctx, "dilation", &attr[MAX_DILATION], 1, dilation));
  for (int i = 0; i < 2; i++) {
    w[i].in = size[i];
    w[i].dilation = dilation[i];
  }
  return nyx__windows_out(c->ctx, w, attr[MAX_CEIL].i != 0);
}

static nyx_status infer_max(nyx_call *c) {
  nyx__window w[2] = {{0}};
  NYX_TRY(read_max(c, w));
  planes_spec(c->dtype, c->in[0], w[0].out, w[1].out, &c->spec[0]);
  planes_spec(NYX_INT64, c->in[0], w[0].out, w[1].out, &c->spec[1]);
  if (!c->attr[MAX_INDICES].i) c->n_out = 1;
  choose_layout(c);
  return NYX_OK;
}

/* Planes begin..end-1. */
static void max_planes(const pool_run *r, int64_t begin, int64_t end, bool wide) {
  const nyx__window *w = r->w;
  nyx_max_pool p;
  for (int i = 0; i < 2; i++) {
    p.in[i] = w[i].in;
    p.out[i] = w[i].out;
    p.kernel[i] = w[i].kernel;
    p.stride[i] = w[i].stride;
    p.pad[i] = w[i].pad;
    p.dilation[i] = w[i].dilation;
  }
  int64_t in = p.in[0] * p.in[1], out = p.out[0] * p.out[1], item = wide ? 8 : 4;
  for (int64_t plane = begin; plane < end; plane++) {
    nyx__cpu_kernels()->pool->max[wide](&p, (const char *)r->from + plane * in * item,
                                        r->base, (char *)r->to + plane * out * item,
                                        r->index ? r->index + plane * out : NULL);
  }
}

static void max_pool_f32(void *arg, int64_t begin, int64_t end) {
  max_planes(arg, begin, end, false);
}

static void max_pool_f64(void *arg, int64_t begin, int64_t end) {
  max_planes(arg, begin, end, true);
}

/* Channels-last images always have positions. */
static nyx_status max_last(nyx_call *c, const nyx__window w[2]) {
  nyx_tensor *kept = NULL;
  if (c->n_out > 1) return nyx__max_pool_last(c, w);
  nyx__spec_last(&c->spec[1]);
  NYX_TRY(nyx__tensor_of(c->ctx, c->device, &c->spec[1], &kept));
  c->out[1] = kept;
  nyx_status status = nyx__max_pool_last(c, w);
  c->out[1] = NULL;
  nyx_tensor_release(kept);
  return status;
}

static nyx_status cpu_max(nyx_call *c) {
  pool_run r = {.base = c->ctx->index_base,
                .index = c->n_out > 1 ? nyx__data(c->out[1]) : NULL};
  NYX_TRY(read_max(c, r.w));
  if (gives_last(c)) return max_last(c, r.w);
  return run_planes(c, &r, max_pool_f32, max_pool_f64,
                    r.w[0].out * r.w[1].out * r.w[0].kernel * r.w[1].kernel);
}

/* t (images, channels, height, width), channels-last, as (images, places, channels): a
 * view. */
static nyx_status as_places(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  const nyx_value order = NYX_LIST(((const int64_t[]){0, 2, 3, 1}), 4);
  const nyx_value shape = NYX_LIST(
      ((const int64_t[]){t->shape[0], t->shape[2] * t->shape[3], t->shape[1]}), 3);
  nyx_tensor *turned;
  NYX_TRY(nyx__apply1(ctx, NYX__OP_permute, t, &order, &turned));
  nyx_status status = nyx__apply1(ctx, NYX__OP_reshape, turned, &shape, out);
  nyx_tensor_release(turned);
  return status;
}

/* The opposite, for images like x. */
static nyx_status as_images(nyx_context *ctx, nyx_tensor *t, const nyx_spec *x,
                            nyx_tensor **out) {
  const nyx_value order = NYX_LIST(((const int64_t[]){0, 3, 1, 2}), 4);
  const nyx_value shape = NYX_LIST(
      ((const int64_t[]){x->shape[0], x->shape[2], x->shape[3], x->shape[1]}), 4);
  nyx_tensor *full;
  NYX_TRY(nyx__apply1(ctx, NYX__OP_reshape, t, &shape, &full));
  nyx_status status = nyx__apply1(ctx, NYX__OP_permute, full, &order, out);
  nyx_tensor_release(full);
  return status;
}

/* gradient_max where x is channels-last. */
static nyx_status gradient_max_last(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  const nyx_spec *x = &b->in_spec[0];
  nyx_spec flat = {.dtype = x->dtype, .ndim = 3};
  flat.shape[0] = x->shape[0];
  flat.shape[1] = x->shape[2] * x->shape[3];
  flat.shape[2] = x->shape[1];
  const nyx_value dim = NYX_I(1);
  nyx_tensor *g, *in[3] = {NULL}, *sum = NULL;
  NYX_TRY(nyx__layout_of(ctx, b->grad_out[0], &b->out_spec[0], &g));
  nyx_status status = nyx__zeros(ctx, g, &flat, &in[0]);
  if (status == NYX_OK) status = as_places(ctx, b->out[1], &in[1]);
  if (status == NYX_OK) status = as_places(ctx, g, &in[2]);
  if (status == NYX_OK) status = nyx__applyn(ctx, NYX__OP_scatter_add, in, 3, &dim, &sum);
  if (status == NYX_OK) status = as_images(ctx, sum, x, &b->grad_in[0]);
  for (int i = 0; i < 3; i++) nyx_tensor_release(in[i]);
  nyx_tensor_release(sum);
  nyx_tensor_release(g);
  return status;
}

/* Adds g at the positions of the greatest elements. */
static nyx_status gradient_max(nyx_backward *b) {
  if (!b->grad_out[0] || !b->need[0]) return NYX_OK;
  if (b->n_out < 2)
    return nyx__error(b->ctx, GRAD_UNDEFINED, b->op->name, "; keep the indices");
  if (nyx__lies_last(b->in_spec->ndim, b->in_spec->shape, b->in_spec->stride))
    return gradient_max_last(b);
  nyx_context *ctx = b->ctx;
  const nyx_spec *x = &b->in_spec[0];
  nyx_spec flat = *x; /* one dimension for each plane */
  flat.ndim = x->ndim - 1;
  flat.shape[flat.ndim - 1] = x->shape[x->ndim - 2] * x->shape[x->ndim - 1];
  int64_t flat_out[NYX_MAX_DIMS];
  for (int d = 0; d < flat.ndim - 1; d++) flat_out[d] = x->shape[d];
  const nyx_spec *y = &b->out_spec[0];
  flat_out[flat.ndim - 1] = y->shape[y->ndim - 2] * y->shape[y->ndim - 1];
  const nyx_value to_flat = NYX_LIST(flat_out, flat.ndim), dim = NYX_I(-1);
  const nyx_value back = NYX_LIST(x->shape, x->ndim);
  nyx_tensor *in[3] = {NULL}, *sum = NULL;
  nyx_status status = nyx__zeros(ctx, b->grad_out[0], &flat, &in[0]);
  if (status == NYX_OK) {
    status = nyx__apply1(ctx, NYX__OP_reshape, b->out[1], &to_flat, &in[1]);
  }
  if (status == NYX_OK) {
    status = nyx__apply1(ctx, NYX__OP_reshape, b->grad_out[0], &to_flat, &in[2]);
  }
  if (status == NYX_OK) {
    status = nyx__applyn(ctx, NYX__OP_scatter_add, in, 3, &dim, &sum);
  }
  if (status == NYX_OK) {
    status = nyx__apply1(ctx, NYX__OP_reshape, sum, &back, &b->grad_in[0]);
  }
  for (int i = 0; i < 3; i++) nyx_tensor_release(in[i]);
  nyx_tensor_release(sum);
  return status;
}

static const nyx_attr max_indices_attrs[] = {
    MAX_POOL_ATTRS,
    {.name = "indices",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 1, .given = true},
     .doc = "whether to give the positions, without which there is no gradient"}};

const nyx_op nyx__op_max_pool2d_with_indices = {
    .name = "max_pool2d_with_indices",
    .group = "pooling",
    .doc =
        "max_pool2d, and the position of each greatest element in its plane, counted row "
        "by row",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = max_indices_attrs,
    .n_attrs = MAX_ATTRS,
    .n_out = 2,
    .infer = infer_max,
    .cpu = cpu_max,
    .gradient = gradient_max,
    .save_out = NYX_SAVE(1),
    .batch = nyx__batch_images,
    .cases =
        "x(2,3,4,5); kernel_size={2}\n"
        "x(2,5,6); kernel_size={2,3} stride={1,2} padding={1} dilation={2,1}",
};

/* Positions are found for those who ask, and for the gradient. */
static nyx_status compute_max(nyx_call *c) {
  nyx__window w[2] = {{0}};
  NYX_TRY(read_max(c, w)); /* errors under this op's name */
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_value attr[MAX_ATTRS];
  memcpy(attr, c->attr, sizeof attr);
  const bool asked = c->attr[MAX_INDICES].i != 0;
  const bool plain =
      !c->ctx->n_levels && !(c->ctx->grad_enabled && c->in[0]->requires_grad);
  attr[MAX_INDICES] = NYX_I(asked || !plain);
  NYX_TRY(nyx_apply(c->ctx, &nyx__op_max_pool2d_with_indices, c->in, 1, attr, out));
  c->out[0] = out[0];
  if (asked) {
    c->out[1] = out[1];
  } else {
    nyx_tensor_release(out[1]);
    c->n_out = 1;
  }
  return NYX_OK;
}

static const nyx_attr max_attrs[] = {
    MAX_POOL_ATTRS,
    {.name = "return_indices",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 0, .given = true},
     .doc = "whether to give the positions too, counted row by row in each plane"}};

const nyx_op nyx__op_max_pool2d = {
    .name = "max_pool2d",
    .group = "pooling",
    .doc =
        "the greatest element of each window of images (batch, channels, height, width), "
        "or one without batch; nan if any is; integers give the default float dtype",
    .kind = NYX_OP_COMPOSITE,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = max_attrs,
    .n_attrs = MAX_ATTRS,
    .n_out = 2,
    .cpu = compute_max,
    .cases =
        "x(2,3,4,5); kernel_size={2}\n"
        "x(2,3,5,5); kernel_size={2} ceil_mode=true\n"
        "x(2,3,5); kernel_size={4} ceil_mode=true\n"
        "x(1,2,6,6); kernel_size={3} stride={2} padding={1}\n"
        "x(2,5,6); kernel_size={2,3} stride={1,2} dilation={2,1}\n"
        "x(2,4,4); kernel_size={2} return_indices=true",
};

/* Averages: the inputs of a position are a box. */

static void average_planes(const pool_run *r, int64_t begin, int64_t end, bool wide,
                           bool spread) {
  const nyx_pool_kernels *kernels = nyx__cpu_kernels()->pool;
  nyx_average_pool p;
  for (int i = 0; i < 2; i++) {
    p.in[i] = r->w[i].in;
    p.out[i] = r->w[i].out;
    p.box[i] = r->box[i];
  }
  const int64_t item = wide ? 8 : 4, in = p.in[0] * p.in[1] * item;
  const int64_t out = p.out[0] * p.out[1] * item;
  const int64_t step = spread ? out : in, to_step = spread ? in : out;
  for (int64_t plane = begin; plane < end; plane++)
    (spread ? kernels->spread : kernels->average)[wide](
        &p, (const char *)r->from + plane * step, (char *)r->to + plane * to_step);
}

#define AVERAGE(name, wide, spread)                                                      \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    average_planes(arg, begin, end, wide, spread);                                       \
  }
AVERAGE(average_f32, false, false)
AVERAGE(average_f64, true, false)
AVERAGE(average_adjoint_f32, false, true)
AVERAGE(average_adjoint_f64, true, true)

/* Fills the boxes of one dimension. */
typedef void (*boxes_fn)(const nyx_value *attr, const nyx__window *w, int dim,
                         nyx_pool_box *to);

/* Runs an average (or its adjoint) over the windows w. */
static nyx_status run_average(nyx_call *c, const nyx_value *attr, const nyx__window w[2],
                              boxes_fn fill, bool adjoint) {
  size_t bytes = (size_t)(w[0].out + w[1].out) * sizeof(nyx_pool_box);
  nyx_pool_box *boxes = nyx_memory_alloc(bytes);
  if (!boxes) return nyx__no_memory(c->ctx, bytes);
  pool_run r = {.w = {w[0], w[1]}, .box = {boxes, boxes + w[0].out}};
  fill(attr, &w[0], 0, boxes);
  fill(attr, &w[1], 1, boxes + w[0].out);
  int64_t work = w[0].in * w[1].in + w[0].out * w[1].out;
  nyx_status status;
  if (gives_last(c))
    status = nyx__average_last(c, w, r.box, adjoint);
  else
    status = run_planes(c, &r, adjoint ? average_adjoint_f32 : average_f32,
                        adjoint ? average_adjoint_f64 : average_f64, work);
  nyx_memory_free(boxes);
  return status;
}

/* avg_pool2d */

enum {
  AVG_KERNEL,
  AVG_STRIDE,
  AVG_PADDING,
  AVG_CEIL,
  AVG_COUNT_PAD,
  AVG_DIVISOR,
  AVG_ATTRS
};

#define AVG_POOL_ATTRS                                                                   \
  {.name = "kernel_size",                                                                \
   .type = NYX_ATTR_INTS,                                                                \
   .required = true,                                                                     \
   .doc = "size of the window, one number or {height, width}"},                          \
      {.name = "stride",                                                                 \
       .type = NYX_ATTR_INTS,                                                            \
       .doc = "step of the window; its size when left out"},                             \
      {.name = "padding",                                                                \
       .type = NYX_ATTR_INTS,                                                            \
       .preset = {.list = zeros, .n = 1, .given = true},                                 \
       .doc = "zeros around the input"},                                                 \
      {.name = "ceil_mode",                                                              \
       .type = NYX_ATTR_BOOL,                                                            \
       .preset = {.i = 0, .given = true},                                                \
       .doc = "whether a last window may hang over the end"},                            \
      {.name = "count_include_pad",                                                      \
       .type = NYX_ATTR_BOOL,                                                            \
       .preset = {.i = 1, .given = true},                                                \
       .doc = "whether the zeros of the padding count"},                                 \
  {                                                                                      \
    .name = "divisor_override", .type = NYX_ATTR_INT,                                    \
    .doc = "divides by this instead of the number of elements"                           \
  }

/* Reads the attributes, for an input of `size`. */
static nyx_status read_avg(nyx_context *ctx, const nyx_value *attr, const int64_t size[2],
                           nyx__window w[2]) {
  NYX_TRY(read_windows(ctx, &attr[AVG_KERNEL], &attr[AVG_STRIDE], &attr[AVG_PADDING], w));
  const nyx_value *divisor = &attr[AVG_DIVISOR];
  if (divisor->given && divisor->i == 0) {
    return nyx__error(ctx, ATTR_RANGE, "divisor_override", 0LL, "not 0");
  }
  for (int i = 0; i < 2; i++) w[i].in = size[i];
  return nyx__windows_out(ctx, w, attr[AVG_CEIL].i != 0);
}

static void avg_boxes(const nyx_value *attr, const nyx__window *w, int dim,
                      nyx_pool_box *to) {
  const nyx_value *divisor = &attr[AVG_DIVISOR];
  for (int64_t o = 0; o < w->out; o++) {
    int64_t start = o * w->stride - w->pad, end = start + w->kernel;
    if (end > w->in + w->pad) end = w->in + w->pad;
    int64_t lo = start > 0 ? start : 0, hi = end < w->in ? end : w->in;
    if (hi < lo) hi = lo; /* a window of padding only */
    int64_t count = attr[AVG_COUNT_PAD].i ? end - start : hi - lo;
    to[o] = (nyx_pool_box){lo, hi, count > 0 ? (double)count : 1};
    if (divisor->given) to[o].scale = dim == 0 ? (double)divisor->i : 1;
  }
}

static nyx_status infer_avg(nyx_call *c) {
  int64_t size[2];
  nyx__window w[2] = {{0}};
  NYX_TRY(read_planes(c->ctx, "x", c->in[0], size));
  NYX_TRY(read_avg(c->ctx, c->attr, size, w));
  planes_spec(c->dtype, c->in[0], w[0].out, w[1].out, &c->spec[0]);
  choose_layout(c);
  return NYX_OK;
}

static nyx_status cpu_avg(nyx_call *c) {
  int64_t size[2];
  nyx__window w[2] = {{0}};
  NYX_TRY(read_planes(c->ctx, "x", c->in[0], size));
  NYX_TRY(read_avg(c->ctx, c->attr, size, w));
  return run_average(c, c->attr, w, avg_boxes, false);
}

/* The gradients of the averages and of their adjoints are each other, with the size of
 * the plane as a further first attribute of the adjoint. */
static nyx_status gradient_by_adjoint(nyx_backward *b, nyx__op_id adjoint) {
  if (!b->need[0]) return NYX_OK;
  const nyx_spec *x = &b->in_spec[0];
  nyx_value attr[NYX_MAX_ATTRS] = {NYX_LIST(x->shape + (x->ndim - 2), 2)};
  for (int i = 0; i < b->op->n_attrs; i++) attr[i + 1] = b->attr[i];
  nyx_tensor *g;
  NYX_TRY(nyx__layout_of(b->ctx, b->grad_out[0], &b->out_spec[0], &g));
  nyx_status status = nyx__apply1(b->ctx, adjoint, g, attr, &b->grad_in[0]);
  nyx_tensor_release(g);
  return status;
}

static nyx_status gradient_avg(nyx_backward *b) {
  return gradient_by_adjoint(b, NYX__OP_avg_pool2d_backward);
}

static const nyx_attr avg_attrs[] = {AVG_POOL_ATTRS};

const nyx_op nyx__op_avg_pool2d = {
    .name = "avg_pool2d",
    .group = "pooling",
    .doc =
        "the mean of each window of images (batch, channels, height, width), or one "
        "without batch; integers give the default float dtype",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = avg_attrs,
    .n_attrs = AVG_ATTRS,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_avg,
    .cpu = cpu_avg,
    .gradient = gradient_avg,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_images,
    .cases =
        "x(2,3,4,5); kernel_size={2}\n"
        "x(2,5,5); kernel_size={2} ceil_mode=true\n"
        "x(2,3,5); kernel_size={4} ceil_mode=true\n"
        "x(1,2,6,5); kernel_size={3,2} stride={2,1} padding={1}\n"
        "x(1,2,6,5); kernel_size={3} padding={1} count_include_pad=false\n"
        "x(1,2,4,4); kernel_size={2} divisor_override=3",
};

/* Reads the size of the plane and checks that the windows give the gradient's size. */
static nyx_status read_adjoint(nyx_call *c, const int64_t out[2]) {
  int64_t size[2];
  NYX_TRY(read_planes(c->ctx, "grad", c->in[0], size));
  if (size[0] == out[0] && size[1] == out[1]) return NYX_OK;
  nyx_spec spec;
  planes_spec(c->dtype, c->in[0], out[0], out[1], &spec);
  char text[NYX_SHAPE_TEXT];
  return nyx__error(c->ctx, POOL_GRADIENT, NYX__SHAPE(c->in[0]),
                    nyx__shape_text(spec.ndim, spec.shape, text, sizeof text));
}

static nyx_status read_avg_adjoint(nyx_call *c, nyx__window w[2]) {
  int64_t size[2];
  NYX_TRY(nyx__pair(c->ctx, "size", &c->attr[0], 0, size));
  NYX_TRY(read_avg(c->ctx, c->attr + 1, size, w));
  return read_adjoint(c, (int64_t[]){w[0].out, w[1].out});
}

static nyx_status infer_avg_adjoint(nyx_call *c) {
  nyx__window w[2] = {{0}};
  NYX_TRY(read_avg_adjoint(c, w));
  planes_spec(c->dtype, c->in[0], w[0].in, w[1].in, &c->spec[0]);
  choose_layout(c);
  return NYX_OK;
}

static nyx_status cpu_avg_adjoint(nyx_call *c) {
  nyx__window w[2] = {{0}};
  NYX_TRY(read_avg_adjoint(c, w));
  return run_average(c, c->attr + 1, w, avg_boxes, true);
}

static nyx_status gradient_avg_adjoint(nyx_backward *b) {
  if (!b->need[0]) return NYX_OK;
  return nyx__apply1(b->ctx, NYX__OP_avg_pool2d, b->grad_out[0], b->attr + 1,
                     &b->grad_in[0]);
}

#define PLANE_SIZE_ATTR                                                                  \
  {                                                                                      \
    .name = "size", .type = NYX_ATTR_INTS, .required = true,                             \
    .doc = "height and width of the input that was pooled"                               \
  }

static const nyx_attr avg_adjoint_attrs[] = {PLANE_SIZE_ATTR, AVG_POOL_ATTRS};

const nyx_op nyx__op_avg_pool2d_backward = {
    .name = "avg_pool2d_backward",
    .group = "gradient",
    .doc = "the gradient of avg_pool2d's input: the adjoint, applied to grad",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad",
    .min_in = 1,
    .max_in = 1,
    .attrs = avg_adjoint_attrs,
    .n_attrs = AVG_ATTRS + 1,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_avg_adjoint,
    .cpu = cpu_avg_adjoint,
    .gradient = gradient_avg_adjoint,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_images,
    .cases =
        "grad(2,3,2,2); size={4,5} kernel_size={2}\n"
        "grad(1,2,3,6); size={6,5} kernel_size={3,2} stride={2,1} padding={1}",
};

/* adaptive_avg_pool2d: position o sees floor(o * in / out) .. ceil((o + 1) * in / out)
 * - 1. */

static void adaptive_boxes(const nyx_value *attr, const nyx__window *w, int dim,
                           nyx_pool_box *to) {
  (void)attr;
  (void)dim;
  for (int64_t o = 0; o < w->out; o++) {
    /* quotient and remainder keep o * in from overflowing */
    int64_t whole = w->in / w->out, rest = w->in % w->out;
    int64_t lo = o * whole + o * rest / w->out;
    int64_t hi = (o + 1) * whole + ((o + 1) * rest + w->out - 1) / w->out;
    to[o] = (nyx_pool_box){lo, hi, hi > lo ? (double)(hi - lo) : 1};
  }
}

static nyx_status read_adaptive(nyx_call *c, nyx__window w[2]) {
  int64_t in[2], out[2];
  NYX_TRY(read_planes(c->ctx, "x", c->in[0], in));
  NYX_TRY(nyx__pair(c->ctx, "output_size", &c->attr[0], 1, out));
  for (int i = 0; i < 2; i++) w[i] = (nyx__window){.in = in[i], .out = out[i]};
  if (in[0] > 0 && in[1] > 0) return NYX_OK;
  return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(c->in[0]),
                    "a height and a width of 1 or more");
}

static nyx_status infer_adaptive(nyx_call *c) {
  nyx__window w[2];
  NYX_TRY(read_adaptive(c, w));
  planes_spec(c->dtype, c->in[0], w[0].out, w[1].out, &c->spec[0]);
  choose_layout(c);
  return NYX_OK;
}

static nyx_status cpu_adaptive(nyx_call *c) {
  nyx__window w[2];
  NYX_TRY(read_adaptive(c, w));
  return run_average(c, c->attr, w, adaptive_boxes, false);
}

static nyx_status gradient_adaptive(nyx_backward *b) {
  return gradient_by_adjoint(b, NYX__OP_adaptive_avg_pool2d_backward);
}

static const nyx_attr adaptive_attrs[] = {
    {.name = "output_size",
     .type = NYX_ATTR_INTS,
     .required = true,
     .doc = "height and width of the result, one number or {height, width}"}};

const nyx_op nyx__op_adaptive_avg_pool2d = {
    .name = "adaptive_avg_pool2d",
    .group = "pooling",
    .doc = "the means of windows of nearly equal size that make a result of output_size",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = adaptive_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_adaptive,
    .cpu = cpu_adaptive,
    .gradient = gradient_adaptive,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_images,
    .cases =
        "x(2,3,4,5); output_size={1}\n"
        "x(2,5,7); output_size={2,3}\n"
        "x(1,2,2,3); output_size={4,3}",
};

static nyx_status read_adaptive_adjoint(nyx_call *c, nyx__window w[2]) {
  int64_t in[2], out[2];
  NYX_TRY(nyx__pair(c->ctx, "size", &c->attr[0], 1, in));
  NYX_TRY(nyx__pair(c->ctx, "output_size", &c->attr[1], 1, out));
  for (int i = 0; i < 2; i++) w[i] = (nyx__window){.in = in[i], .out = out[i]};
  return read_adjoint(c, out);
}

static nyx_status infer_adaptive_adjoint(nyx_call *c) {
  nyx__window w[2];
  NYX_TRY(read_adaptive_adjoint(c, w));
  planes_spec(c->dtype, c->in[0], w[0].in, w[1].in, &c->spec[0]);
  choose_layout(c);
  return NYX_OK;
}

static nyx_status cpu_adaptive_adjoint(nyx_call *c) {
  nyx__window w[2];
  NYX_TRY(read_adaptive_adjoint(c, w));
  return run_average(c, c->attr, w, adaptive_boxes, true);
}

static nyx_status gradient_adaptive_adjoint(nyx_backward *b) {
  if (!b->need[0]) return NYX_OK;
  return nyx__apply1(b->ctx, NYX__OP_adaptive_avg_pool2d, b->grad_out[0], b->attr + 1,
                     &b->grad_in[0]);
}

static const nyx_attr adaptive_adjoint_attrs[] = {PLANE_SIZE_ATTR,
                                                  {.name = "output_size",
                                                   .type = NYX_ATTR_INTS,
                                                   .required = true,
                                                   .doc = "height and width of grad"}};

const nyx_op nyx__op_adaptive_avg_pool2d_backward = {
    .name = "adaptive_avg_pool2d_backward",
    .group = "gradient",
    .doc = "the gradient of adaptive_avg_pool2d's input: the adjoint, applied to grad",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad",
    .min_in = 1,
    .max_in = 1,
    .attrs = adaptive_adjoint_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_adaptive_adjoint,
    .cpu = cpu_adaptive_adjoint,
    .gradient = gradient_adaptive_adjoint,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_images,
    .cases =
        "grad(2,3,1,1); size={4,5} output_size={1}\n"
        "grad(2,2,3); size={5,7} output_size={2,3}",
};
