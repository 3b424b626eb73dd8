/* conv2d and its two adjoints, which are each other's gradients: conv2d is linear in the
 * input and in the weight. Read next: conv_cpu.c (the arithmetic), window.c (sizes). */
#include "conv.h"

#include <string.h>

#include "../tensor/packed.h"
#include "../transform/batch.h"
#include "conv_last.h"

const int64_t nyx__conv_one[] = {1}, nyx__conv_zero[] = {0};
enum { STRIDE, PADDING, DILATION, GROUPS };

/* Reads stride, padding, dilation and groups. */
static nyx_status read_attrs(nyx_context *ctx, const nyx_value *attr, nyx__conv *v) {
  int64_t stride[2], padding[2], dilation[2];
  NYX_TRY(nyx__pair(ctx, "stride", &attr[STRIDE], 1, stride));
  NYX_TRY(nyx__pair(ctx, "padding", &attr[PADDING], 0, padding));
  NYX_TRY(nyx__pair(ctx, "dilation", &attr[DILATION], 1, dilation));
  v->groups = attr[GROUPS].i;
  if (v->groups < 1) {
    return nyx__error(ctx, ATTR_RANGE, "groups", (long long)v->groups, "1 or more");
  }
  for (int i = 0; i < 2; i++) {
    v->window[i].stride = stride[i];
    v->window[i].pad = padding[i];
    v->window[i].dilation = dilation[i];
  }
  return NYX_OK;
}

/* Reads the sizes of an image tensor (channels, height, width), or a batch of them. */
static nyx_status read_images(nyx_context *ctx, const char *name, const nyx_tensor *t,
                              int64_t *images, int64_t *channels, int64_t size[2]) {
  if (t->ndim != 3 && t->ndim != 4) {
    return nyx__error(ctx, WINDOW_INPUT, name, NYX__SHAPE(t));
  }
  const int64_t *shape = t->shape + (t->ndim - 3);
  *images = t->ndim == 4 ? t->shape[0] : 1;
  *channels = shape[0];
  size[0] = shape[1];
  size[1] = shape[2];
  return NYX_OK;
}

static nyx_status read_weight(nyx_context *ctx, const nyx_tensor *t, nyx__conv *v) {
  if (t->ndim != 4) return nyx__error(ctx, CONV_WEIGHT, NYX__SHAPE(t));
  v->out_channels = t->shape[0];
  if (__builtin_mul_overflow(t->shape[1], v->groups, &v->in_channels)) {
    return nyx__error(ctx, ATTR_RANGE, "groups", (long long)v->groups,
                      "a divisor of the number of channels");
  }
  for (int i = 0; i < 2; i++) {
    v->window[i].kernel = t->shape[2 + i];
    if (t->shape[2 + i] < 1 || t->shape[1] < 1) {
      return nyx__error(ctx, CONV_WEIGHT, NYX__SHAPE(t));
    }
  }
  return NYX_OK;
}

static nyx_status check_groups(nyx_context *ctx, const nyx__conv *v) {
  if (v->in_channels % v->groups != 0 || v->in_channels == 0) {
    return nyx__error(ctx, CONV_GROUPS, (long long)v->groups, (long long)v->in_channels,
                      "input");
  }
  if (v->out_channels % v->groups != 0) {
    return nyx__error(ctx, CONV_GROUPS, (long long)v->groups, (long long)v->out_channels,
                      "output");
  }
  return NYX_OK;
}

/* Checks that y is what the convolution gives. */
static nyx_status check_y(nyx_context *ctx, const nyx_tensor *y, const nyx__conv *v) {
  int64_t images, channels, size[2];
  NYX_TRY(read_images(ctx, "grad", y, &images, &channels, size));
  if (images == v->images && channels == v->out_channels && size[0] == v->window[0].out &&
      size[1] == v->window[1].out) {
    return NYX_OK;
  }
  int64_t shape[] = {v->images, v->out_channels, v->window[0].out, v->window[1].out};
  char text[NYX_SHAPE_TEXT];
  return nyx__error(ctx, CONV_GRADIENT, NYX__SHAPE(y),
                    nyx__shape_text(4, shape, text, sizeof text));
}

/* The shape of an image tensor like `like`, with other channels and sizes. */
static void images_spec(const nyx_call *c, const nyx_tensor *like, int64_t channels,
                        int64_t height, int64_t width, nyx_spec *spec) {
  nyx__spec(spec, c->dtype, like->ndim, like->shape);
  spec->shape[like->ndim - 3] = channels;
  spec->shape[like->ndim - 2] = height;
  spec->shape[like->ndim - 1] = width;
}

/* Half types are computed in float32. */
static nyx_dtype compute_dtype(nyx_dtype dtype) {
  return dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
}

static bool lies_last(const nyx_tensor *t) {
  return nyx__lies_last(t->ndim, t->shape, t->stride);
}

/* The result is channels-last where one of the tensors that have channels is, of `count`:
 * images or a weight. */
static void choose_layout(nyx_call *c, int count) {
  bool last = false;
  for (int i = 0; i < count; i++) last |= lies_last(c->in[i]);
  if (last && c->spec[0].ndim == 4) nyx__spec_last(&c->spec[0]);
}

/* One of the three computations, on contiguous data and on channels-last data; of the
 * latter the weight is taken as it lies. */
typedef struct conv_fn {
  nyx_status (*plain)(nyx_context *ctx, const nyx__conv *v, void *const in[3], void *out);
  nyx_status (*last)(nyx_context *ctx, const nyx__conv *v, nyx_tensor *const in[3],
                     void *out);
  int weight; /* which input it is; -1: none */
  int x, y;   /* the same */
} conv_fn;

/* The dtype of channels-last data: half types stay where products gain by it. */
static nyx_dtype last_dtype(const nyx_call *c, const nyx__conv *v) {
  return nyx__conv_low_takes(c->dtype, v) ? c->dtype : compute_dtype(c->dtype);
}

/* Where a computation writes: c's result, retained, or channels-last memory of a dtype.
 */
static nyx_status last_result(nyx_call *c, nyx_dtype dtype, nyx_tensor **out) {
  nyx_spec spec;
  if (c->out[0]->dtype == dtype && lies_last(c->out[0])) {
    *out = nyx_tensor_retain(c->out[0]);
    return NYX_OK;
  }
  nyx__spec(&spec, dtype, 4, c->out[0]->shape);
  nyx__spec_last(&spec);
  return nyx__tensor_of(c->ctx, c->device, &spec, out);
}

/* fn on data, and what comes after in results that have rows of n elements. */
typedef struct conv_job {
  const conv_fn *fn;
  const nyx__finish *finish; /* NULL: nothing */
} conv_job;

static nyx_status run(nyx_context *ctx, nyx__conv *v, const conv_job *job,
                      nyx_tensor *const in[3], nyx_tensor *out, bool last) {
  void *data[3] = {NULL}, *to = nyx__data(out);
  nyx__finishing f;
  nyx_status status;
  if (job->finish) {
    NYX_TRY(nyx__finish_open(ctx, job->finish, out, &f));
    f.e.n = last ? v->out_channels : v->window[0].out * v->window[1].out;
    v->after = &f.e;
  }
  for (int i = 0; i < 3; i++) data[i] = in[i] ? nyx__data(in[i]) : NULL;
  status = last ? job->fn->last(ctx, v, in, to) : job->fn->plain(ctx, v, data, to);
  v->after = NULL;
  return job->finish ? nyx__finish_close(ctx, job->finish, &f, status) : status;
}

static nyx_status compute_last(nyx_call *c, nyx__conv *v, const conv_job *job) {
  const conv_fn *fn = job->fn;
  nyx_context *ctx = c->ctx;
  nyx_tensor *in[3] = {NULL}, *out = NULL;
  nyx_status status = NYX_OK;
  v->dtype = last_dtype(c, v);
  v->x_pixel = v->in_channels;
  v->y_pixel = v->out_channels;
  if (c->out[0]->numel == 0) return NYX_OK;
  for (int i = 0; status == NYX_OK && i < c->n_in && i < 3; i++) {
    nyx_tensor *t = c->in[i];
    if (!t) continue;
    if (i == 2)
      status = nyx__contiguous_as(ctx, t, compute_dtype(c->dtype), &in[i]);
    else if (i == fn->weight && t->dtype == v->dtype)
      in[i] = nyx_tensor_retain(t);
    else
      status = nyx__last_as(ctx, t, v->dtype,
                            i == fn->x   ? &v->x_pixel
                            : i == fn->y ? &v->y_pixel
                                         : NULL,
                            &in[i]);
  }
  nyx_dtype result = fn->weight < 0 ? compute_dtype(c->dtype) : v->dtype;
  if (status == NYX_OK) status = last_result(c, result, &out);
  if (status == NYX_OK) status = run(ctx, v, job, in, out, true);
  if (status == NYX_OK && out != c->out[0]) status = nyx__copy_into(ctx, out, c->out[0]);
  for (int i = 0; i < 3; i++) nyx_tensor_release(in[i]);
  nyx_tensor_release(out);
  return status;
}

static nyx__last_weight weight_of(const nyx_tensor *t) {
  nyx__last_weight w = {.data = nyx__data(t)};
  memcpy(w.stride, t->stride, sizeof w.stride);
  return w;
}

static nyx_status compute(nyx_call *c, nyx__conv *v, const conv_job *job) {
  nyx_context *ctx = c->ctx;
  bool last = lies_last(c->out[0]);
  if (c->in[0]->ndim == 4 && v->images > 0) last |= nyx__conv_low_takes(c->dtype, v);
  if (last && nyx__conv_last_takes(v)) return compute_last(c, v, job);
  v->dtype = compute_dtype(c->dtype);
  nyx_tensor *in[3] = {NULL}, *out = NULL;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < c->n_in && i < 3; i++)
    if (c->in[i]) status = nyx__contiguous_as(ctx, c->in[i], v->dtype, &in[i]);
  if (status == NYX_OK && v->dtype == c->dtype && nyx__is_contiguous(c->out[0])) {
    out = nyx_tensor_retain(c->out[0]);
  } else if (status == NYX_OK) {
    status = nyx_tensor_empty(ctx, v->dtype, c->out[0]->ndim, c->out[0]->shape, &out);
  }
  if (status == NYX_OK) status = run(ctx, v, job, in, out, false);
  if (status == NYX_OK && out != c->out[0]) {
    status = nyx__copy_into(ctx, out, c->out[0]);
  }
  for (int i = 0; i < 3; i++) nyx_tensor_release(in[i]);
  nyx_tensor_release(out);
  return status;
}

/* conv2d */

static nyx_status read_conv2d(nyx_call *c, nyx__conv *v) {
  nyx_context *ctx = c->ctx;
  const nyx_tensor *x = c->in[0], *weight = c->in[1];
  int64_t channels, size[2];
  NYX_TRY(read_attrs(ctx, c->attr, v));
  NYX_TRY(read_images(ctx, "x", x, &v->images, &channels, size));
  NYX_TRY(read_weight(ctx, weight, v));
  if (channels != v->in_channels) {
    return nyx__error(ctx, CONV_CHANNELS, NYX__SHAPE(x), (long long)channels,
                      NYX__SHAPE(weight), (long long)v->groups,
                      (long long)v->in_channels);
  }
  NYX_TRY(check_groups(ctx, v));
  v->window[0].in = size[0];
  v->window[1].in = size[1];
  return nyx__windows_out(ctx, v->window, false);
}

nyx_status nyx__conv_infer(nyx_call *c) {
  nyx__conv v = {0};
  NYX_TRY(read_conv2d(c, &v));
  const nyx_tensor *bias = c->in[2];
  if (bias && (bias->ndim != 1 || bias->shape[0] != v.out_channels)) {
    return nyx__error(c->ctx, CONV_BIAS, NYX__SHAPE(bias), (long long)v.out_channels);
  }
  images_spec(c, c->in[0], v.out_channels, v.window[0].out, v.window[1].out, &c->spec[0]);
  choose_layout(c, 2);
  return NYX_OK;
}

static nyx_status forward(nyx_context *ctx, const nyx__conv *v, void *const in[3],
                          void *out) {
  return nyx__conv_forward(ctx, v, in[0], in[1], in[2], out);
}

static nyx_status forward_last(nyx_context *ctx, const nyx__conv *v,
                               nyx_tensor *const in[3], void *out) {
  const nyx__last_weight weight = weight_of(in[1]);
  return nyx__conv_last(ctx, v, nyx__data(in[0]), &weight,
                        in[2] ? nyx__data(in[2]) : NULL, out);
}

nyx_status nyx__conv_cpu(nyx_call *c, const nyx__finish *finish) {
  static const conv_fn fn = {forward, forward_last, 1, 0, -1};
  nyx__conv v = {0};
  NYX_TRY(read_conv2d(c, &v));
  const nyx_tensor *weight = c->in[1]; /* forms of a copy would be lost with it */
  bool as_it_is = weight->dtype == compute_dtype(c->dtype) && nyx__is_contiguous(weight);
  if (as_it_is && nyx__keeps_packed(weight->storage)) v.keep = weight->storage;
  return compute(c, &v, &(conv_job){&fn, finish});
}

static nyx_status cpu_conv2d(nyx_call *c) {
  return nyx__conv_cpu(c, NULL);
}

/* x's gradient from y's and the weight, with the attributes stride... and a size. */
static nyx_status apply_input(nyx_backward *b, const nyx_value *attr, nyx_tensor *y,
                              nyx_tensor *weight, const nyx_spec *x, nyx_tensor **out) {
  nyx_value attrs[NYX__CONV_ATTR_COUNT + 1] = {NYX_LIST(x->shape + (x->ndim - 2), 2)};
  for (int i = 0; i < NYX__CONV_ATTR_COUNT; i++) attrs[i + 1] = attr[i];
  return nyx__apply2(b->ctx, NYX__OP_conv2d_input, y, weight, attrs, out);
}

static nyx_status apply_weight(nyx_backward *b, const nyx_value *attr, nyx_tensor *y,
                               nyx_tensor *x, const nyx_spec *weight, nyx_tensor **out) {
  nyx_value attrs[NYX__CONV_ATTR_COUNT + 1] = {NYX_LIST(weight->shape + 2, 2)};
  for (int i = 0; i < NYX__CONV_ATTR_COUNT; i++) attrs[i + 1] = attr[i];
  return nyx__apply2(b->ctx, NYX__OP_conv2d_weight, y, x, attrs, out);
}

static nyx_status apply_conv(nyx_backward *b, const nyx_value *attr, nyx_tensor *x,
                             nyx_tensor *weight, nyx_tensor **out) {
  return nyx__apply2(b->ctx, NYX__OP_conv2d, x, weight, attr, out);
}

/* The sum of g over everything but channels. */
static nyx_status bias_gradient(nyx_backward *b, nyx_tensor *g) {
  nyx_spec channels = b->in_spec[2], planes = channels;
  planes.ndim = 3;
  planes.shape[1] = planes.shape[2] = 1;
  nyx_tensor *sum;
  NYX_TRY(nyx__sum_to(b->ctx, g, &planes, &sum));
  const nyx_value shape = NYX_LIST(channels.shape, 1);
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_reshape, sum, &shape, &b->grad_in[2]);
  nyx_tensor_release(sum);
  return status;
}

nyx_status nyx__conv_gradient(nyx_backward *b, nyx_tensor *grad) {
  nyx_tensor *g, *made = NULL; /* a gradient lies as what it is the gradient of */
  NYX_TRY(nyx__layout_of(b->ctx, grad, &b->out_spec[0], &g));
  nyx_status status = NYX_OK;
  if (b->need[0])
    status = apply_input(b, b->attr, g, b->in[1], &b->in_spec[0], &b->grad_in[0]);
  if (status == NYX_OK && b->need[1])
    status = apply_weight(b, b->attr, g, b->in[0], &b->in_spec[1], &made);
  if (status == NYX_OK && made)
    status = nyx__layout_of(b->ctx, made, &b->in_spec[1], &b->grad_in[1]);
  nyx_tensor_release(made);
  nyx_tensor_release(g);
  if (status != NYX_OK) return status;
  return b->n_in > 2 && b->need[2] ? bias_gradient(b, grad) : NYX_OK;
}

static nyx_status gradient_conv2d(nyx_backward *b) {
  return nyx__conv_gradient(b, b->grad_out[0]);
}

/* Batching. Entries with one weight are more images; entries with weights of their own
 * are more groups of channels. */

/* Input i with the channels of all entries side by side, (images, entries * channels,
 * height, width), or as weights: (entries * outputs, ...). */
static nyx_status beside(nyx_batch *b, int i, bool images, nyx_tensor **out) {
  nyx_tensor *full, *turned = NULL;
  NYX_TRY(nyx__batch_full(b, i, &full));
  int64_t shape[NYX_MAX_DIMS];
  nyx_status status = NYX_OK;
  int n = 0, ndim = full->ndim;
  bool many = images && ndim == 5;
  if (many) {
    const nyx_value dims[] = {NYX_I(0), NYX_I(1)};
    status = nyx__apply1(b->ctx, NYX__OP_transpose, full, dims, &turned);
    nyx_tensor_release(full);
    if (status != NYX_OK) return status;
    full = turned;
    shape[n++] = full->shape[0];
  }
  shape[n] = full->shape[many] * full->shape[many + 1];
  n++;
  for (int d = many + 2; d < ndim; d++) shape[n++] = full->shape[d];
  const nyx_value attr = NYX_LIST(shape, n);
  status = nyx__apply1(b->ctx, NYX__OP_reshape, full, &attr, out);
  nyx_tensor_release(full);
  return status;
}

/* The opposite, for the result. */
static nyx_status apart(nyx_batch *b, nyx_tensor *t, bool images, nyx_tensor **out) {
  const nyx_spec *spec = &b->spec[0];
  bool many = images && spec->ndim == 4;
  int64_t shape[NYX_MAX_DIMS];
  int n = 0;
  if (many) shape[n++] = spec->shape[0];
  shape[n++] = b->size;
  for (int d = many; d < spec->ndim; d++) shape[n++] = spec->shape[d];
  const nyx_value attr = NYX_LIST(shape, n), dims[] = {NYX_I(0), NYX_I(1)};
  if (!many) return nyx__apply1(b->ctx, NYX__OP_reshape, t, &attr, out);
  nyx_tensor *split;
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_reshape, t, &attr, &split));
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_transpose, split, dims, out);
  nyx_tensor_release(split);
  return status;
}

/* images[i]: input i is images, else weights; the last one says so of the result. */
static nyx_status as_groups(nyx_batch *b, const bool images[3]) {
  nyx_tensor *in[3] = {NULL}, *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_value attr[NYX_MAX_ATTRS];
  if (b->size == 0) return nyx__batch_each(b);
  memcpy(attr, b->attr, (size_t)b->op->n_attrs * sizeof *attr);
  attr[b->op->n_attrs - 1].i *= b->size; /* groups */
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < b->n_in; i++)
    if (b->in[i]) status = beside(b, i, i < 2 && images[i], &in[i]);
  if (status == NYX_OK) status = nyx_apply(b->ctx, b->op, in, b->n_in, attr, out);
  if (status == NYX_OK) status = apart(b, out[0], images[2], &b->out[0]);
  for (int i = 0; i < 3; i++) nyx_tensor_release(in[i]);
  nyx_tensor_release(out[0]);
  return status;
}

static nyx_status batch_conv2d(nyx_batch *b) {
  bool own = b->batched[1] || (b->n_in > 2 && b->in[2] && b->batched[2]);
  return own ? as_groups(b, (bool[]){true, false, true}) : nyx__batch_images(b);
}

static nyx_status batch_conv2d_input(nyx_batch *b) {
  return b->batched[1] ? as_groups(b, (bool[]){true, false, true}) : nyx__batch_images(b);
}

static nyx_status batch_conv2d_weight(nyx_batch *b) {
  return as_groups(b, (bool[]){true, true, false});
}

static const nyx_attr conv2d_attrs[] = {NYX__CONV_ATTRS};

const nyx_op nyx__op_conv2d = {
    .name = "conv2d",
    .group = "neural",
    .doc =
        "the cross-correlation of images (batch, channels, height, width), or one "
        "without "
        "batch, with weight (outputs, channels / groups, height, width), plus bias; "
        "integers give the default float dtype",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight bias",
    .min_in = 2,
    .max_in = 3,
    .attrs = conv2d_attrs,
    .n_attrs = NYX__CONV_ATTR_COUNT,
    .n_out = 1,
    .overwrites = true,
    .infer = nyx__conv_infer,
    .cpu = cpu_conv2d,
    .gradient = gradient_conv2d,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .forward = nyx__forward_product,
    .batch = batch_conv2d,
    .cases =
        "x(2,3,5,4) weight(4,3,3,2) bias(4)\n"
        "x(2,3,5,4) weight(2,3,1,1)\n"
        "x(3,5,4) weight(2,3,2,2) bias(2)\n"
        "x(2,2,5,6) weight(3,2,3,3) bias(3); stride={2} padding={1}\n"
        "x(1,2,6,7) weight(2,2,2,3); stride={1,2} padding={0,1} dilation={2,1}\n"
        "x(2,4,4,4) weight(6,2,3,3) bias(6); padding={1} groups=2\n"
        "x(2,3,4,5) weight(3,1,3,3) bias(3); padding={1} stride={1,2} groups=3\n"
        "x(1,2,4,4) weight(4,1,2,2); groups=2",
};

/* conv2d_input */

static nyx_status read_input(nyx_call *c, nyx__conv *v) {
  nyx_context *ctx = c->ctx;
  int64_t size[2], channels, out_size[2];
  NYX_TRY(nyx__pair(ctx, "size", &c->attr[0], 0, size));
  NYX_TRY(read_attrs(ctx, c->attr + 1, v));
  NYX_TRY(read_images(ctx, "grad", c->in[0], &v->images, &channels, out_size));
  NYX_TRY(read_weight(ctx, c->in[1], v));
  NYX_TRY(check_groups(ctx, v));
  v->window[0].in = size[0];
  v->window[1].in = size[1];
  NYX_TRY(nyx__windows_out(ctx, v->window, false));
  return check_y(ctx, c->in[0], v);
}

static nyx_status infer_input(nyx_call *c) {
  nyx__conv v = {0};
  NYX_TRY(read_input(c, &v));
  images_spec(c, c->in[0], v.in_channels, v.window[0].in, v.window[1].in, &c->spec[0]);
  choose_layout(c, 2);
  return NYX_OK;
}

static nyx_status input(nyx_context *ctx, const nyx__conv *v, void *const in[3],
                        void *out) {
  return nyx__conv_input(ctx, v, in[0], in[1], out);
}

static nyx_status input_last(nyx_context *ctx, const nyx__conv *v,
                             nyx_tensor *const in[3], void *out) {
  const nyx__last_weight weight = weight_of(in[1]);
  return nyx__conv_last_input(ctx, v, nyx__data(in[0]), &weight, out);
}

static nyx_status cpu_input(nyx_call *c) {
  static const conv_fn fn = {input, input_last, 1, -1, 0};
  nyx__conv v = {0};
  NYX_TRY(read_input(c, &v));
  return compute(c, &v, &(conv_job){&fn, NULL});
}

static nyx_status gradient_input(nyx_backward *b) {
  nyx_tensor *u = b->grad_out[0]; /* shaped like x */
  if (b->need[0]) NYX_TRY(apply_conv(b, b->attr + 1, u, b->in[1], &b->grad_in[0]));
  if (b->need[1]) {
    NYX_TRY(apply_weight(b, b->attr + 1, b->in[0], u, &b->in_spec[1], &b->grad_in[1]));
  }
  return NYX_OK;
}

static const nyx_attr input_attrs[] = {{.name = "size",
                                        .type = NYX_ATTR_INTS,
                                        .required = true,
                                        .doc = "height and width of the input"},
                                       NYX__CONV_ATTRS};

const nyx_op nyx__op_conv2d_input = {
    .name = "conv2d_input",
    .group = "gradient",
    .doc = "the gradient of conv2d's input: the adjoint of conv2d, applied to grad",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad weight",
    .min_in = 2,
    .max_in = 2,
    .attrs = input_attrs,
    .n_attrs = NYX__CONV_ATTR_COUNT + 1,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_input,
    .cpu = cpu_input,
    .gradient = gradient_input,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .forward = nyx__forward_product,
    .batch = batch_conv2d_input,
    .cases =
        "grad(2,4,3,3) weight(4,3,3,2); size={5,4}\n"
        "grad(2,4,3,4) weight(4,1,2,2); size={5,6} stride={2} padding={1} groups=2",
};

/* conv2d_weight */

static nyx_status read_weight_gradient(nyx_call *c, nyx__conv *v) {
  nyx_context *ctx = c->ctx;
  int64_t kernel[2], size[2], out_size[2], images;
  NYX_TRY(nyx__pair(ctx, "kernel_size", &c->attr[0], 1, kernel));
  NYX_TRY(read_attrs(ctx, c->attr + 1, v));
  NYX_TRY(read_images(ctx, "grad", c->in[0], &images, &v->out_channels, out_size));
  NYX_TRY(read_images(ctx, "x", c->in[1], &v->images, &v->in_channels, size));
  NYX_TRY(check_groups(ctx, v));
  for (int i = 0; i < 2; i++) {
    v->window[i].in = size[i];
    v->window[i].kernel = kernel[i];
  }
  NYX_TRY(nyx__windows_out(ctx, v->window, false));
  return check_y(ctx, c->in[0], v);
}

static nyx_status infer_weight(nyx_call *c) {
  nyx__conv v = {0};
  NYX_TRY(read_weight_gradient(c, &v));
  int64_t shape[] = {v.out_channels, v.in_channels / v.groups, v.window[0].kernel,
                     v.window[1].kernel};
  nyx__spec(&c->spec[0], c->dtype, 4, shape);
  choose_layout(c, 2);
  return NYX_OK;
}

static nyx_status weight(nyx_context *ctx, const nyx__conv *v, void *const in[3],
                         void *out) {
  return nyx__conv_weight(ctx, v, in[0], in[1], out);
}

static nyx_status weight_last(nyx_context *ctx, const nyx__conv *v,
                              nyx_tensor *const in[3], void *out) {
  if (v->images > 0)
    return nyx__conv_last_weight(ctx, v, nyx__data(in[0]), nyx__data(in[1]), out);
  memset(out, 0,
         (size_t)v->out_channels * (size_t)(v->in_channels / v->groups) *
             (size_t)(v->window[0].kernel * v->window[1].kernel) *
             nyx_dtype_size(v->dtype));
  return NYX_OK;
}

static nyx_status cpu_weight(nyx_call *c) {
  static const conv_fn fn = {weight, weight_last, -1, 1, 0};
  nyx__conv v = {0};
  NYX_TRY(read_weight_gradient(c, &v));
  return compute(c, &v, &(conv_job){&fn, NULL});
}

static nyx_status gradient_weight(nyx_backward *b) {
  nyx_tensor *u = b->grad_out[0]; /* shaped like the weight */
  if (b->need[0]) NYX_TRY(apply_conv(b, b->attr + 1, b->in[1], u, &b->grad_in[0]));
  if (b->need[1]) {
    NYX_TRY(apply_input(b, b->attr + 1, b->in[0], u, &b->in_spec[1], &b->grad_in[1]));
  }
  return NYX_OK;
}

static const nyx_attr weight_attrs[] = {{.name = "kernel_size",
                                         .type = NYX_ATTR_INTS,
                                         .required = true,
                                         .doc = "height and width of the weight"},
                                        NYX__CONV_ATTRS};

const nyx_op nyx__op_conv2d_weight = {
    .name = "conv2d_weight",
    .group = "gradient",
    .doc = "the gradient of conv2d's weight, from the result's gradient and the input",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad x",
    .min_in = 2,
    .max_in = 2,
    .attrs = weight_attrs,
    .n_attrs = NYX__CONV_ATTR_COUNT + 1,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_weight,
    .cpu = cpu_weight,
    .gradient = gradient_weight,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .forward = nyx__forward_product,
    .batch = batch_conv2d_weight,
    .cases =
        "grad(2,4,3,3) x(2,3,5,4); kernel_size={3,2}\n"
        "grad(2,4,3,4) x(2,2,5,6); kernel_size={2} stride={2} padding={1} groups=2",
};
