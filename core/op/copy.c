/* Ops that copy, or may: casts, transfers between devices, contiguous, reshape, and the
 * ones that write regions: embed (into zeros), assign and as_strided_scatter (into a
 * tensor). Read next: views.c, core/device/device.h. */
#include <string.h>

#include "../device/device.h"
#include "../tensor/tensor.h"
#include "../transform/batch.h"
#include "complex.h"
#include "join.h"
#include "ops.h"

/* Copies without recording */

/* Complex numbers, fewer than NYX_MAX_DIMS dimensions of them, as pairs. */
static void pair_up(nyx_spec *spec) {
  spec->dtype = nyx_dtype_real(spec->dtype);
  spec->offset *= 2;
  for (int d = 0; d < spec->ndim; d++) spec->stride[d] *= 2;
  spec->shape[spec->ndim] = 2;
  spec->stride[spec->ndim++] = 1;
}

void nyx__pairs_spec(const nyx_tensor *z, nyx_spec *spec) {
  nyx__spec_of(z, spec);
  pair_up(spec);
}

/* Part 0 or 1 of z in place. */
static nyx_status part_of(nyx_context *ctx, nyx_tensor *z, int which, nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec_of(z, &spec);
  spec.dtype = nyx_dtype_real(z->dtype);
  spec.offset = 2 * spec.offset + which;
  for (int d = 0; d < z->ndim; d++) spec.stride[d] *= 2;
  return nyx__tensor_view(ctx, z->storage, &spec, out);
}

/* Whether parts only have to be put side by side. */
static bool zips(const nyx_tensor *real, const nyx_tensor *imag, const nyx_tensor *z) {
  const nyx_dtype dtype = nyx_dtype_real(z->dtype);
  return imag && z->storage->device == nyx__cpu() && nyx__is_contiguous(z) &&
         real->dtype == dtype && nyx__is_contiguous(real) && real->numel == z->numel &&
         imag->dtype == dtype && nyx__is_contiguous(imag) && imag->numel == z->numel;
}

nyx_status nyx__complex_join(nyx_context *ctx, nyx_tensor *real, nyx_tensor *imag,
                             nyx_tensor *z) {
  nyx_tensor *zero = NULL, *part[2] = {NULL};
  if (zips(real, imag, z))
    return nyx__zip(ctx, (nyx_tensor *[]){real, imag}, 2, nyx__data(z));
  nyx_status status = part_of(ctx, z, 0, &part[0]);
  if (status == NYX_OK) status = part_of(ctx, z, 1, &part[1]);
  if (status == NYX_OK && !imag)
    status = nyx_tensor_scalar(ctx, 0, part[0]->dtype, true, &zero);
  if (status == NYX_OK) status = nyx__copy_into(ctx, real, part[0]);
  if (status == NYX_OK) status = nyx__copy_into(ctx, imag ? imag : zero, part[1]);
  nyx_tensor_release(zero);
  nyx_tensor_release(part[0]);
  nyx_tensor_release(part[1]);
  return status;
}

static nyx_status copy(nyx_context *ctx, nyx_tensor *src, nyx_tensor *dst, bool stops);

/* Where one side or both are complex. */
static nyx_status copy_complex(nyx_context *ctx, nyx_tensor *src, nyx_tensor *dst,
                               bool stops) {
  nyx_tensor *from[2] = {NULL};
  if (!nyx__complex_dtype(dst->dtype))
    return nyx__error(ctx, COMPLEX_REAL, nyx_dtype_name(src->dtype),
                      nyx_dtype_name(dst->dtype));
  if (!nyx__complex_dtype(src->dtype)) return nyx__complex_join(ctx, src, NULL, dst);
  if (dst->ndim < NYX_MAX_DIMS && src->ndim < NYX_MAX_DIMS) { /* as pairs: one pass */
    nyx_spec spec[2];
    nyx_tensor *to = NULL;
    nyx__pairs_spec(src, &spec[0]);
    nyx__pairs_spec(dst, &spec[1]);
    NYX_TRY(nyx__tensor_view(ctx, src->storage, &spec[0], &from[0]));
    nyx_status status = nyx__tensor_view(ctx, dst->storage, &spec[1], &to);
    if (status == NYX_OK) status = copy(ctx, from[0], to, stops);
    nyx_tensor_release(from[0]);
    nyx_tensor_release(to);
    return status;
  }
  nyx_status status = part_of(ctx, src, 0, &from[0]);
  if (status == NYX_OK) status = part_of(ctx, src, 1, &from[1]);
  if (status == NYX_OK) status = nyx__complex_join(ctx, from[0], from[1], dst);
  nyx_tensor_release(from[0]);
  nyx_tensor_release(from[1]);
  return status;
}

static nyx_status copy(nyx_context *ctx, nyx_tensor *src, nyx_tensor *dst, bool stops) {
  if (nyx__complex_dtype(src->dtype) || nyx__complex_dtype(dst->dtype))
    return copy_complex(ctx, src, dst, stops);
  nyx_elementwise job = {.row = nyx__row(NYX__OP_clone),
                         .compute = nyx__compute_dtype(src->dtype),
                         .in = {src},
                         .out = dst,
                         .stops = stops};
  if (dst->numel == 0) return NYX_OK;
  nyx_device *dev = dst->storage->device;
  return dev->elementwise(ctx, dev, &job);
}

nyx_status nyx__copy_into(nyx_context *ctx, nyx_tensor *src, nyx_tensor *dst) {
  return copy(ctx, src, dst, false);
}

nyx_status nyx__copy_fresh(nyx_context *ctx, nyx_tensor *src, nyx_tensor *dst) {
  return copy(ctx, src, dst, true);
}

nyx_status nyx__contiguous_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                              nyx_tensor **out) {
  if (t->dtype == dtype && nyx__is_contiguous(t)) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  NYX_TRY(nyx_tensor_empty_on(ctx, t->storage->device, dtype, t->ndim, t->shape, out));
  nyx_status status = nyx__copy_into(ctx, t, *out);
  if (status != NYX_OK) {
    nyx_tensor_release(*out);
    *out = NULL;
  }
  return status;
}

nyx_status nyx__contiguous(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  return nyx__contiguous_as(ctx, t, t->dtype, out);
}

nyx_status nyx__zeros(nyx_context *ctx, const nyx_tensor *like, const nyx_spec *spec,
                      nyx_tensor **out) {
  nyx_tensor *zero;
  NYX_TRY(nyx_tensor_scalar(ctx, 0, spec->dtype, true, &zero));
  nyx_status status = nyx_tensor_empty_on(ctx, like->storage->device, spec->dtype,
                                          spec->ndim, spec->shape, out);
  if (status == NYX_OK) {
    status = nyx__copy_into(ctx, zero, *out);
    if (status != NYX_OK) {
      nyx_tensor_release(*out);
      *out = NULL;
    }
  }
  nyx_tensor_release(zero);
  return status;
}

nyx_status nyx__to_dtype(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                         nyx_tensor **out) {
  nyx_value to = NYX_I(dtype);
  if (t->dtype != dtype) return nyx__apply1(ctx, NYX__OP_cast, t, &to, out);
  *out = nyx_tensor_retain(t);
  return NYX_OK;
}

/* cast */

static nyx_status cast_infer(nyx_call *c) {
  nyx_dtype to = (nyx_dtype)c->attr[0].i;
  if (nyx__complex_dtype(c->in[0]->dtype) && !nyx__complex_dtype(to))
    return nyx__error(c->ctx, COMPLEX_REAL, nyx_dtype_name(c->in[0]->dtype),
                      nyx_dtype_name(to));
  nyx__spec(&c->spec[0], (nyx_dtype)c->attr[0].i, c->in[0]->ndim, c->in[0]->shape);
  nyx__spec_keep(&c->spec[0], c->in[0]);
  return NYX_OK;
}

static nyx_status cast_cpu(nyx_call *c) {
  return nyx__copy_into(c->ctx, c->in[0], c->out[0]);
}

static nyx_status cast_gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0];
  if (nyx__complex_dtype(g->dtype) && !nyx__complex_dtype(b->in_spec->dtype)) {
    nyx_tensor *part;
    NYX_TRY(nyx__apply1(b->ctx, NYX__OP_real, g, NULL, &part));
    nyx_status status = nyx__to_dtype(b->ctx, part, b->in_spec->dtype, &b->grad_in[0]);
    nyx_tensor_release(part);
    return status;
  }
  return nyx__to_dtype(b->ctx, b->grad_out[0], b->in_spec->dtype, &b->grad_in[0]);
}

static const nyx_attr cast_attrs[] = {
    {"dtype", NYX_ATTR_DTYPE, true, NYX_NONE, "the new dtype"}};

const nyx_op nyx__op_cast = {
    .name = "cast",
    .group = "conversion",
    .kind = NYX_OP_PORTABLE,
    .doc = "a copy converted to a dtype; floats to integers drop the fraction",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .overwrites = true,
    .attrs = cast_attrs,
    .n_attrs = 1,
    .infer = cast_infer,
    .cpu = cast_cpu,
    .gradient = cast_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_leading,
    .cases = "x(2,3); dtype=float64",
};

/* transfer: the one op whose output is on another device */

static nyx_status transfer_infer(nyx_call *c) {
  nyx_device *from; /* only checked, so that backward does not fail for its name */
  NYX_TRY(nyx_device_find(c->ctx, c->attr[1].s, &from));
  NYX_TRY(nyx_device_find(c->ctx, c->attr[0].s, &c->device));
  nyx__spec(&c->spec[0], c->in[0]->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

/* Through host memory; on the host itself the bytes are used where they are. */
static nyx_status transfer_cpu(nyx_call *c) {
  nyx_tensor *x;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  nyx_device *from = x->storage->device, *to = c->device;
  size_t bytes = (size_t)x->numel * nyx_dtype_size(x->dtype);
  size_t offset = (size_t)x->offset * nyx_dtype_size(x->dtype);
  nyx_status status;
  if (from == nyx__cpu()) {
    status = to->copy_in(c->ctx, to, c->out[0]->storage->data, 0,
                         (char *)x->storage->data + offset, bytes);
  } else if (to == nyx__cpu()) {
    status = from->copy_out(c->ctx, from, x->storage->data, offset,
                            c->out[0]->storage->data, bytes);
  } else {
    void *host = nyx_memory_alloc(bytes);
    status = host ? from->copy_out(c->ctx, from, x->storage->data, offset, host, bytes)
                  : nyx__no_memory(c->ctx, bytes);
    if (status == NYX_OK)
      status = to->copy_in(c->ctx, to, c->out[0]->storage->data, 0, host, bytes);
    nyx_memory_free(host);
  }
  nyx_tensor_release(x);
  return status;
}

/* The gradient goes back to where the input was: its device's name is in the spec's
 * stead, as attribute "from". */
static nyx_status transfer_gradient(nyx_backward *b) {
  nyx_value back[] = {b->attr[1], b->attr[0]};
  return nyx__apply1(b->ctx, NYX__OP_transfer, b->grad_out[0], back, &b->grad_in[0]);
}

static const nyx_attr transfer_attrs[] = {
    {"device", NYX_ATTR_STRING, true, NYX_NONE, "the device's name"},
    {"from", NYX_ATTR_STRING, false, NYX_S("cpu"), "where its gradient goes"}};

const nyx_op nyx__op_transfer = {
    .name = "transfer",
    .group = "conversion",
    .kind = NYX_OP_PORTABLE,
    .doc = "a copy on another device; `to` is the usual way to say it",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = transfer_attrs,
    .n_attrs = 2,
    .infer = transfer_infer,
    .cpu = transfer_cpu,
    .gradient = transfer_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_leading,
    .cases = "x(2,3); device=cpu",
};

nyx_status nyx_tensor_to(nyx_context *ctx, nyx_tensor *t, nyx_device *device,
                         nyx_tensor **out) {
  if (t->storage->device == device) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  nyx_value attr[] = {NYX_S(device->name), NYX_S(t->storage->device->name)};
  return nyx__apply1(ctx, NYX__OP_transfer, t, attr, out);
}

/* Memory formats */

nyx_status nyx__memory_format(nyx_context *ctx, const nyx_value *format, const char *name,
                              int ndim, const int64_t *shape, bool *last) {
  *last = strcmp(format->s, "channels_last") == 0;
  if (!*last && strcmp(format->s, "contiguous") != 0)
    return nyx__error(ctx, ATTR_CHOICE, "memory_format", format->s,
                      "\"contiguous\" or \"channels_last\"");
  if (!*last || ndim == 4) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(ctx, NDIM_EXPECTED, name,
                    nyx__shape_text(ndim, shape, text, sizeof text),
                    "(batch, channels, height, width) for channels_last");
}

static nyx_status in_format(nyx_context *ctx, nyx_tensor *x, const nyx_value *format,
                            nyx_tensor **out) {
  bool last;
  NYX_TRY(nyx__memory_format(ctx, format, "x", x->ndim, x->shape, &last));
  if (last ? nyx_tensor_is_channels_last(x) : nyx__is_contiguous(x)) {
    *out = nyx_tensor_retain(x);
    return NYX_OK;
  }
  return nyx__apply1(ctx, NYX__OP_relayout, x, format, out);
}

nyx_status nyx__layout_of(nyx_context *ctx, nyx_tensor *t, const nyx_spec *like,
                          nyx_tensor **out) {
  bool last = nyx__lies_last(like->ndim, like->shape, like->stride);
  const nyx_value format = last ? NYX_S("channels_last") : NYX_S("contiguous");
  if (last == nyx__lies_last(t->ndim, t->shape, t->stride)) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  return in_format(ctx, t, &format, out);
}

/* Whether t has places `pixel` elements apart, each with its channels side by side. */
static bool in_places(const nyx_tensor *t, int64_t pixel) {
  const int64_t *shape = t->shape;
  const int64_t step[] = {shape[2] * shape[3] * pixel, 1, shape[3] * pixel, pixel};
  for (int d = 0; d < 4; d++)
    if (shape[d] != 1 && t->stride[d] != step[d]) return false;
  return pixel >= shape[1];
}

nyx_status nyx__last_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype, int64_t *pixel,
                        nyx_tensor **out) {
  const int wide = t->shape[3] > 1 ? 3 : t->shape[2] > 1 ? 2 : 0;
  int64_t gap = t->shape[1]; /* from place to place, where there are several */
  if (pixel && t->shape[wide] > 1) gap = t->stride[wide];
  if (t->dtype == dtype && in_places(t, gap)) {
    if (pixel) *pixel = gap;
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  nyx_spec spec;
  nyx__spec(&spec, dtype, 4, t->shape);
  nyx__spec_last(&spec);
  if (pixel) *pixel = t->shape[1];
  NYX_TRY(nyx__tensor_of(ctx, t->storage->device, &spec, out));
  nyx_status status = nyx__copy_into(ctx, t, *out);
  if (status != NYX_OK) {
    nyx_tensor_release(*out);
    *out = NULL;
  }
  return status;
}

/* Composites that give the input itself where nothing has to be done */

static nyx_status to_make(nyx_call *c) {
  nyx_tensor *x = c->in[0], *y;
  nyx_dtype dtype = c->attr[0].given ? (nyx_dtype)c->attr[0].i : x->dtype;
  nyx_status status = NYX_OK;
  NYX_TRY(nyx__to_dtype(c->ctx, x, dtype, &y));
  if (c->attr[1].given) {
    nyx_device *device;
    nyx_tensor *moved = NULL;
    status = nyx_device_find(c->ctx, c->attr[1].s, &device);
    if (status == NYX_OK) status = nyx_tensor_to(c->ctx, y, device, &moved);
    nyx_tensor_release(y);
    y = moved;
  }
  if (status == NYX_OK && c->attr[2].given) {
    status = in_format(c->ctx, y, &c->attr[2], &c->out[0]);
    nyx_tensor_release(y);
  } else {
    c->out[0] = y;
  }
  return status;
}

static const nyx_attr to_attrs[] = {
    {"dtype", NYX_ATTR_DTYPE, false, NYX_NONE, "the dtype; x's own when left out"},
    {"device", NYX_ATTR_STRING, false, NYX_NONE, "the device; x's own when left out"},
    NYX__ATTR_FORMAT(NYX_NONE)};

const nyx_op nyx__op_to = {
    .name = "to",
    .group = "conversion",
    .kind = NYX_OP_COMPOSITE,
    .doc =
        "x in a dtype, on a device and in a memory format; x itself when it is so "
        "already",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = to_attrs,
    .n_attrs = 3,
    .cpu = to_make,
    .cases = "x(2,3); dtype=float64 device=cpu",
};

static nyx_status contiguous_make(nyx_call *c) {
  return in_format(c->ctx, c->in[0], &c->attr[0], &c->out[0]);
}

static const nyx_attr contiguous_attrs[] = {NYX__ATTR_FORMAT(NYX_S("contiguous"))};

const nyx_op nyx__op_contiguous = {
    .name = "contiguous",
    .group = "conversion",
    .kind = NYX_OP_COMPOSITE,
    .doc =
        "x with its elements row by row in memory, or channels-last; x itself when they "
        "are so already",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = contiguous_attrs,
    .n_attrs = 1,
    .cpu = contiguous_make,
    .cases =
        "x(2,3)\n"
        "x(2,3,2,4); memory_format=channels_last",
};

static nyx_status relayout_infer(nyx_call *c) {
  bool last;
  const nyx_tensor *x = c->in[0];
  NYX_TRY(nyx__memory_format(c->ctx, &c->attr[0], "x", x->ndim, x->shape, &last));
  nyx__spec(&c->spec[0], x->dtype, x->ndim, x->shape);
  if (last) nyx__spec_last(&c->spec[0]);
  return NYX_OK;
}

static nyx_status relayout_gradient(nyx_backward *b) {
  return nyx__layout_of(b->ctx, b->grad_out[0], &b->in_spec[0], &b->grad_in[0]);
}

/* Entries of a batch keep what order they have: one is a matter of speed. */
static nyx_status relayout_batch(nyx_batch *b) {
  const nyx_value contiguous = NYX_S("contiguous");
  return nyx__batch_apply(b, b->in, &contiguous);
}

const nyx_op nyx__op_relayout = {
    .name = "relayout",
    .group = "conversion",
    .kind = NYX_OP_PORTABLE,
    .doc = "a copy of x in a memory format; `contiguous` is the usual way to say it",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = contiguous_attrs,
    .n_attrs = 1,
    .infer = relayout_infer,
    .cpu = cast_cpu,
    .gradient = relayout_gradient,
    .forward = nyx__forward_linear,
    .batch = relayout_batch,
    .cases =
        "x(2,3)\n"
        "x(2,3,2,4); memory_format=channels_last",
};

nyx_status nyx__target_shape(nyx_context *ctx, const nyx_tensor *x,
                             const nyx_value *wanted, int64_t *shape) {
  char text[NYX_SHAPE_TEXT];
  int n = wanted->n, unknown = -1;
  if (n > NYX_MAX_DIMS) return nyx__error(ctx, NDIM_RANGE, n, NYX_MAX_DIMS);
  nyx__shape_text(n, wanted->list, text, sizeof text);
  for (int d = 0; d < n; d++) {
    shape[d] = wanted->list[d];
    if (shape[d] == -1 && unknown >= 0) return nyx__error(ctx, RESHAPE_INFER, text);
    if (shape[d] == -1) {
      unknown = d;
      shape[d] = 1;
    } else if (shape[d] < 0) {
      return nyx__error(ctx, SIZE_NEGATIVE, (long long)shape[d], d + ctx->index_base);
    }
  }
  int64_t numel;
  if (!nyx__numel(n, shape, 1, &numel)) return nyx__error(ctx, SIZE_OVERFLOW, text);
  if (unknown >= 0) {
    if (numel == 0 || x->numel % numel != 0)
      return nyx__error(ctx, RESHAPE_AMBIGUOUS, text, (long long)x->numel);
    shape[unknown] = x->numel / numel;
  } else if (numel != x->numel) {
    return nyx__error(ctx, RESHAPE_COUNT, text, (long long)numel, NYX__SHAPE(x),
                      (long long)x->numel);
  }
  return NYX_OK;
}

/* Walks both shapes from the last dimension: runs of x's dimensions that lie in memory
 * like one dimension are cut into the new sizes. */
bool nyx__view_strides(const nyx_tensor *x, int ndim, const int64_t *shape,
                       int64_t *stride) {
  if (x->numel == 0) {
    nyx__strides(ndim, shape, stride);
    return true;
  }
  int d = ndim - 1;
  for (int e = x->ndim - 1; e >= 0;) {
    int64_t run = x->shape[e], step = x->stride[e];
    while (e > 0 &&
           (x->shape[e - 1] == 1 || run == 1 || x->stride[e - 1] == step * run)) {
      e--;
      if (run == 1) step = x->stride[e];
      run *= x->shape[e];
    }
    e--;
    int64_t filled = 1;
    while (d >= 0 && (filled < run || shape[d] == 1)) {
      stride[d] = step * filled;
      filled *= shape[d--];
    }
    if (filled != run) return false;
  }
  while (d >= 0) stride[d--] = 1; /* sizes of 1 in front of a 0-d tensor */
  return true;
}

static nyx_status reshape_make(nyx_call *c) {
  nyx_tensor *x = c->in[0], *plain;
  int64_t shape[NYX_MAX_DIMS], stride[NYX_MAX_DIMS];
  NYX_TRY(nyx__target_shape(c->ctx, x, &c->attr[0], shape));
  nyx_value attr = NYX_LIST(shape, c->attr[0].n);
  if (nyx__view_strides(x, attr.n, shape, stride))
    return nyx__apply1(c->ctx, NYX__OP_view, x, &attr, &c->out[0]);
  NYX_TRY(nyx__apply1(c->ctx, NYX__OP_relayout, x, NULL, &plain));
  nyx_status status = nyx__apply1(c->ctx, NYX__OP_view, plain, &attr, &c->out[0]);
  nyx_tensor_release(plain);
  return status;
}

static const nyx_attr reshape_attrs[] = {
    {"shape", NYX_ATTR_INTS, true, NYX_NONE, "the new sizes"}};

const nyx_op nyx__op_reshape = {
    .name = "reshape",
    .group = "view",
    .kind = NYX_OP_COMPOSITE,
    .doc =
        "x in another shape with the same elements in row-major order: a view where the "
        "strides allow one, else a copy; one size may be -1",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = reshape_attrs,
    .n_attrs = 1,
    .cpu = reshape_make,
    .cases = "x(2,6); shape={3,-1}",
};

static nyx_status flatten_make(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  int first, last, n = 0;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &first));
  NYX_TRY(nyx__dim(c->ctx, c->attr[1].i, x->ndim, &last));
  if (first > last)
    return nyx__error(c->ctx, ATTR_RANGE, "start_dim",
                      first + (long long)c->ctx->index_base, "at most end_dim");
  int64_t shape[NYX_MAX_DIMS + 1];
  for (int d = 0; d < first; d++) shape[n++] = x->shape[d];
  shape[n] = 1;
  for (int d = first; d <= last && d < x->ndim; d++) shape[n] *= x->shape[d];
  n++;
  for (int d = last + 1; d < x->ndim; d++) shape[n++] = x->shape[d];
  nyx_value attr = NYX_LIST(shape, n);
  return nyx__apply1(c->ctx, NYX__OP_reshape, c->in[0], &attr, &c->out[0]);
}

static const nyx_attr flatten_attrs[] = {
    {"start_dim", NYX_ATTR_DIM, false, NYX_I(0), "the first dimension"},
    {"end_dim", NYX_ATTR_DIM, false, NYX_I(-1), "the last dimension"}};

const nyx_op nyx__op_flatten = {
    .name = "flatten",
    .group = "view",
    .kind = NYX_OP_COMPOSITE,
    .doc = "x with the dimensions start_dim to end_dim made one",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = flatten_attrs,
    .n_attrs = 2,
    .cpu = flatten_make,
    .cases = "x(2,3,4)\nx(2,3,4); start_dim=2 end_dim=3",
};

/* embed */

nyx_status nyx__check_region(nyx_context *ctx, int64_t numel, const nyx_value *size,
                             const nyx_value *stride, int64_t offset) {
  bool fits = size->n <= NYX_MAX_DIMS && size->n == stride->n && offset >= 0;
  bool empty = false;
  int64_t last = offset;
  for (int d = 0; fits && d < size->n; d++) {
    fits = size->list[d] >= 0 && stride->list[d] >= 0;
    if (size->list[d] == 0) empty = true;
  }
  for (int d = 0; fits && !empty && d < size->n; d++) {
    int64_t reach;
    fits = !__builtin_mul_overflow(size->list[d] - 1, stride->list[d], &reach) &&
           !__builtin_add_overflow(last, reach, &last);
  }
  if (fits && (empty || last < numel)) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  int n = size->n <= NYX_MAX_DIMS ? size->n : NYX_MAX_DIMS;
  return nyx__error(ctx, REGION_RANGE, nyx__shape_text(n, size->list, text, sizeof text),
                    (long long)offset, (long long)numel);
}

static nyx_status embed_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  const nyx_value *shape = &c->attr[0];
  int64_t numel;
  if (shape->n > NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, shape->n, NYX_MAX_DIMS);
  if (!nyx__numel(shape->n, shape->list, nyx_dtype_size(x->dtype), &numel)) {
    char text[NYX_SHAPE_TEXT];
    return nyx__error(c->ctx, SIZE_OVERFLOW,
                      nyx__shape_text(shape->n, shape->list, text, sizeof text));
  }
  nyx_value size = NYX_LIST(x->shape, x->ndim);
  NYX_TRY(nyx__check_region(c->ctx, numel, &size, &c->attr[2], c->attr[1].i));
  nyx__spec(&c->spec[0], x->dtype, shape->n, shape->list);
  return NYX_OK;
}

/* One window at a time along the dimension of the largest stride until none overlap. */
static nyx_status add_region(nyx_call *c, const nyx_spec *spec, nyx_tensor *x) {
  nyx_tensor *region, *part;
  int widest = 0;
  if (!nyx__overlaps(spec->ndim, spec->shape, spec->stride)) {
    NYX_TRY(nyx__tensor_view(c->ctx, c->out[0]->storage, spec, &region));
    nyx_elementwise job = {.row = nyx__row(NYX__OP_add),
                           .compute = nyx__compute_dtype(x->dtype),
                           .in = {region, x},
                           .out = region};
    nyx_status status = c->device->elementwise(c->ctx, c->device, &job);
    nyx_tensor_release(region);
    return status;
  }
  for (int d = 1; d < spec->ndim; d++)
    if (spec->shape[d] > 1 &&
        (spec->shape[widest] == 1 || spec->stride[d] > spec->stride[widest]))
      widest = d;
  nyx_spec one = *spec, from;
  nyx__spec_of(x, &from);
  one.shape[widest] = from.shape[widest] = 1;
  for (int64_t i = 0; i < spec->shape[widest]; i++) {
    NYX_TRY(nyx__tensor_view(c->ctx, x->storage, &from, &part));
    nyx_status status = add_region(c, &one, part);
    nyx_tensor_release(part);
    if (status != NYX_OK) return status;
    one.offset += spec->stride[widest];
    from.offset += from.stride[widest];
  }
  return NYX_OK;
}

static nyx_status embed_cpu(nyx_call *c) {
  nyx_tensor *zero;
  nyx_spec spec = {
      .dtype = c->in[0]->dtype, .ndim = c->in[0]->ndim, .offset = c->attr[1].i};
  NYX_TRY(nyx_tensor_scalar(c->ctx, 0, c->out[0]->dtype, true, &zero));
  nyx_status status = nyx__copy_into(c->ctx, zero, c->out[0]);
  nyx_tensor_release(zero);
  if (status != NYX_OK || c->in[0]->numel == 0) return status;
  for (int d = 0; d < spec.ndim; d++) {
    spec.shape[d] = c->in[0]->shape[d];
    spec.stride[d] = c->attr[2].list[d];
  }
  if (!nyx__complex_dtype(spec.dtype)) return add_region(c, &spec, c->in[0]);
  nyx_spec pairs;
  nyx_tensor *x;
  if (spec.ndim == NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, spec.ndim + 1, NYX_MAX_DIMS);
  nyx__pairs_spec(c->in[0], &pairs);
  pair_up(&spec);
  NYX_TRY(nyx__tensor_view(c->ctx, c->in[0]->storage, &pairs, &x));
  status = add_region(c, &spec, x);
  nyx_tensor_release(x);
  return status;
}

static nyx_status embed_gradient(nyx_backward *b) {
  nyx_tensor *plain;
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_contiguous, b->grad_out[0], NULL, &plain));
  nyx_value attr[] = {NYX_LIST(b->in_spec->shape, b->in_spec->ndim), b->attr[2],
                      b->attr[1]};
  nyx_status status =
      nyx__apply1(b->ctx, NYX__OP_as_strided, plain, attr, &b->grad_in[0]);
  nyx_tensor_release(plain);
  return status;
}

static nyx_status embed_batch(nyx_batch *b) {
  int n = b->attr[0].n, m = b->attr[2].n;
  int64_t shape[NYX_MAX_DIMS] = {b->size}, stride[NYX_MAX_DIMS] = {1};
  if (n == NYX_MAX_DIMS || m == NYX_MAX_DIMS)
    return nyx__error(b->ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
  for (int d = 0; d < n; d++) stride[0] *= shape[d + 1] = b->attr[0].list[d];
  memcpy(stride + 1, b->attr[2].list, (size_t)m * sizeof *stride);
  const nyx_value attr[] = {NYX_LIST(shape, n + 1), b->attr[1], NYX_LIST(stride, m + 1)};
  return nyx__batch_apply(b, b->in, attr);
}

static const nyx_attr embed_attrs[] = {
    {"shape", NYX_ATTR_INTS, true, NYX_NONE, "the sizes of the result"},
    {"offset", NYX_ATTR_INT, true, NYX_NONE, "the first element, counted from 0"},
    {"stride", NYX_ATTR_INTS, true, NYX_NONE, "strides of x's dimensions there"}};

const nyx_op nyx__op_embed = {
    .name = "embed",
    .group = "gradient",
    .kind = NYX_OP_PORTABLE,
    .doc =
        "zeros of `shape` with x added in the region that offset and strides describe; "
        "the "
        "opposite of as_strided and the gradient of views",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = embed_attrs,
    .n_attrs = 3,
    .infer = embed_infer,
    .cpu = embed_cpu,
    .gradient = embed_gradient,
    .forward = nyx__forward_linear,
    .batch = embed_batch,
    .cases =
        "x(2,2); shape={3,4} offset=1 stride={4,1}\n"
        "x(4,3); shape={6} offset=0 stride={1,1}",
};

/* assign */

/* The region of t that start, length and step describe, through recorded views. A length
 * of -1 takes one position and drops the dimension. */
static nyx_status region_of(nyx_context *ctx, nyx_tensor *t, const nyx_value *attr,
                            nyx_tensor **out) {
  nyx_tensor *at = nyx_tensor_retain(t);
  nyx_status status = NYX_OK;
  for (int d = t->ndim - 1; status == NYX_OK && d >= 0; d--) {
    int64_t start = attr[0].list[d], length = attr[1].list[d], step = attr[2].list[d];
    if (start == 0 && length == t->shape[d] && step == 1) continue;
    nyx_tensor *next;
    nyx_value narrow[] = {NYX_I(d), NYX_I(start), NYX_I(length), NYX_I(step)};
    status = nyx__apply1(ctx, length == -1 ? NYX__OP_select : NYX__OP_narrow, at, narrow,
                         &next);
    if (status != NYX_OK) break;
    nyx_tensor_release(at);
    at = next;
  }
  if (status != NYX_OK)
    nyx_tensor_release(at);
  else
    *out = at;
  return status;
}

static nyx_status assign_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *value = c->in[1];
  for (int i = 0; i < 3; i++)
    if (c->attr[i].n != x->ndim)
      return nyx__error(c->ctx, NDIM_EXPECTED, c->op->attrs[i].name, NYX__SHAPE(x),
                        "one number for each dimension of x");
  if (nyx_dtype_kind_of(value->dtype) > nyx_dtype_kind_of(x->dtype) && !value->weak)
    return nyx__error(c->ctx, DTYPE_OUT, nyx_dtype_name(value->dtype),
                      nyx_dtype_name(x->dtype), nyx_dtype_name(x->dtype));
  nyx__spec(&c->spec[0], x->dtype, x->ndim, x->shape);
  return NYX_OK;
}

static nyx_status assign_cpu(nyx_call *c) {
  nyx_tensor *region, *value = c->in[1];
  bool grad = c->ctx->grad_enabled;
  c->ctx->grad_enabled = false;
  nyx_status status = region_of(c->ctx, c->out[0], c->attr, &region);
  c->ctx->grad_enabled = grad;
  if (status != NYX_OK) return status;
  int ndim;
  int64_t shape[NYX_MAX_DIMS];
  bool fits = nyx__broadcast(region->ndim, region->shape, value->ndim, value->shape,
                             &ndim, shape) &&
              ndim == region->ndim;
  for (int d = 0; fits && d < ndim; d++) fits = shape[d] == region->shape[d];
  nyx_tensor *apart = NULL; /* a value that shares memory is copied first */
  if (!fits)
    status = nyx__error(c->ctx, ASSIGN_SHAPE, NYX__SHAPE(value), NYX__SHAPE(region));
  else if (value->storage == region->storage)
    status = nyx__apply1(c->ctx, NYX__OP_clone, value, NULL, &apart);
  if (status == NYX_OK) status = nyx__copy_into(c->ctx, apart ? apart : value, region);
  nyx_tensor_release(apart);
  nyx_tensor_release(region);
  return status;
}

/* x keeps its gradient outside the region, value has the one inside. */
static nyx_status assign_gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0], *zero, *region;
  if (b->need[0]) {
    NYX_TRY(nyx_tensor_scalar(b->ctx, 0, g->dtype, true, &zero));
    nyx_status status =
        nyx__apply2(b->ctx, NYX__OP_assign, g, zero, b->attr, &b->grad_in[0]);
    nyx_tensor_release(zero);
    if (status != NYX_OK) return status;
  }
  if (b->need[1]) {
    NYX_TRY(region_of(b->ctx, g, b->attr, &region));
    nyx_tensor *sum = NULL;
    nyx_status status = nyx__sum_to(b->ctx, region, &b->in_spec[1], &sum);
    if (status == NYX_OK)
      status = nyx__to_dtype(b->ctx, sum, b->in_spec[1].dtype, &b->grad_in[1]);
    nyx_tensor_release(sum);
    nyx_tensor_release(region);
    if (status != NYX_OK) return status;
  }
  return NYX_OK;
}

/* The same region of every entry. A value of fewer dimensions than the region gets ones
 * in front. */
static nyx_status assign_batch(nyx_batch *b) {
  int ndim = b->spec[0].ndim, region = 0;
  int64_t list[3][NYX_MAX_DIMS] = {{0}, {b->size}, {1}};
  if (ndim == NYX_MAX_DIMS)
    return nyx__error(b->ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
  nyx_value attr[3];
  for (int i = 0; i < 3; i++) {
    memcpy(list[i] + 1, b->attr[i].list, (size_t)ndim * sizeof *list[i]);
    attr[i] = NYX_LIST(list[i], ndim + 1);
  }
  for (int d = 0; d < ndim; d++) region += b->attr[1].list[d] != -1;
  nyx_tensor *in[2] = {NULL};
  nyx_status status = nyx__batch_full(b, 0, &in[0]);
  if (status == NYX_OK) status = nyx__batch_align(b, 1, region, &in[1]);
  if (status == NYX_OK) status = nyx__batch_apply(b, in, attr);
  nyx_tensor_release(in[0]);
  nyx_tensor_release(in[1]);
  return status;
}

static const nyx_attr assign_attrs[] = {
    {"start", NYX_ATTR_INTS, true, NYX_NONE, "first positions, counted from 0"},
    {"length", NYX_ATTR_INTS, true, NYX_NONE,
     "how many positions; -1 selects one and drops the dimension"},
    {"step", NYX_ATTR_INTS, true, NYX_NONE, "distances between positions"}};

const nyx_op nyx__op_assign = {
    .name = "assign",
    .group = "indexing",
    .kind = NYX_OP_PORTABLE,
    .updates = true,
    .doc =
        "x with `value`, broadcast and converted, in a region; in place it is what "
        "x[...] = value does",
    .inputs = "x value",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .attrs = assign_attrs,
    .n_attrs = 3,
    .infer = assign_infer,
    .cpu = assign_cpu,
    .gradient = assign_gradient,
    .forward = nyx__forward_linear,
    .batch = assign_batch,
    .cases =
        "x(3,4) value(2); start={1,0} length={-1,2} step={1,2}\n"
        "x(3,4) value(3,1); start={0,1} length={3,2} step={1,1}",
};

/* as_strided_scatter */

static nyx_status scatter_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *value = c->in[1];
  nyx_value size = NYX_LIST(value->shape, value->ndim);
  if (nyx_dtype_kind_of(value->dtype) > nyx_dtype_kind_of(x->dtype))
    return nyx__error(c->ctx, DTYPE_OUT, nyx_dtype_name(value->dtype),
                      nyx_dtype_name(x->dtype), nyx_dtype_name(x->dtype));
  NYX_TRY(nyx__check_region(c->ctx, x->numel, &size, &c->attr[0], c->attr[1].i));
  if (nyx__overlaps(value->ndim, value->shape, c->attr[0].list))
    return nyx__error(c->ctx, OUT_OVERLAP);
  nyx__spec(&c->spec[0], x->dtype, x->ndim, x->shape);
  return NYX_OK;
}

static nyx_status scatter_cpu(nyx_call *c) {
  nyx_tensor *x = c->out[0], *value = c->in[1], *apart = NULL, *region;
  if (!nyx__is_contiguous(x)) return nyx__error(c->ctx, REGION_PLAIN);
  nyx_spec spec;
  nyx__spec_of(value, &spec);
  spec.dtype = x->dtype;
  spec.offset = x->offset + c->attr[1].i;
  for (int d = 0; d < spec.ndim; d++) spec.stride[d] = c->attr[0].list[d];
  NYX_TRY(nyx__tensor_view(c->ctx, x->storage, &spec, &region));
  nyx_status status = NYX_OK;
  if (value->storage == x->storage) /* what is read is copied before it is written */
    status = nyx__apply1(c->ctx, NYX__OP_clone, value, NULL, &apart);
  if (status == NYX_OK) status = nyx__copy_into(c->ctx, apart ? apart : value, region);
  nyx_tensor_release(apart);
  nyx_tensor_release(region);
  return status;
}

/* g with the region cleared, and the region of g. */
static nyx_status scatter_gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0], *plain, *region;
  const nyx_spec *value = &b->in_spec[1];
  if (b->need[0]) {
    nyx_tensor *zeros;
    NYX_TRY(nyx__zeros(b->ctx, g, value, &zeros));
    nyx_status status = nyx__apply2(b->ctx, NYX__OP_as_strided_scatter, g, zeros, b->attr,
                                    &b->grad_in[0]);
    nyx_tensor_release(zeros);
    if (status != NYX_OK) return status;
  }
  if (!b->need[1]) return NYX_OK;
  const nyx_value attr[] = {NYX_LIST(value->shape, value->ndim), b->attr[0], b->attr[1]};
  NYX_TRY(nyx__apply1(b->ctx, NYX__OP_contiguous, g, NULL, &plain));
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_as_strided, plain, attr, &region);
  nyx_tensor_release(plain);
  if (status != NYX_OK) return status;
  status = nyx__to_dtype(b->ctx, region, value->dtype, &b->grad_in[1]);
  nyx_tensor_release(region);
  return status;
}

static nyx_status scatter_batch(nyx_batch *b) {
  int n = b->spec[0].ndim, m = b->attr[0].n;
  int64_t stride[NYX_MAX_DIMS] = {1};
  if (n == NYX_MAX_DIMS || m == NYX_MAX_DIMS)
    return nyx__error(b->ctx, NDIM_RANGE, NYX_MAX_DIMS + 1, NYX_MAX_DIMS);
  for (int d = 0; d < n; d++) stride[0] *= b->spec[0].shape[d];
  memcpy(stride + 1, b->attr[0].list, (size_t)m * sizeof *stride);
  const nyx_value attr[] = {NYX_LIST(stride, m + 1), b->attr[1]};
  nyx_tensor *in[2] = {NULL};
  nyx_status status = nyx__batch_full(b, 0, &in[0]);
  if (status == NYX_OK) status = nyx__batch_full(b, 1, &in[1]);
  if (status == NYX_OK) status = nyx__batch_apply(b, in, attr);
  nyx_tensor_release(in[0]);
  nyx_tensor_release(in[1]);
  return status;
}

static const nyx_attr scatter_attrs[] = {
    {"stride", NYX_ATTR_INTS, true, NYX_NONE, "strides of value's dimensions in x"},
    {"offset", NYX_ATTR_INT, false, NYX_I(0), "the first element, counted from 0"}};

const nyx_op nyx__op_as_strided_scatter = {
    .name = "as_strided_scatter",
    .group = "indexing",
    .kind = NYX_OP_PORTABLE,
    .updates = true,
    .doc =
        "x with `value` in the region that its shape, strides (in elements of a "
        "contiguous "
        "x) and an offset describe; what a change through a view does to its base",
    .inputs = "x value",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .attrs = scatter_attrs,
    .n_attrs = 2,
    .infer = scatter_infer,
    .cpu = scatter_cpu,
    .gradient = scatter_gradient,
    .forward = nyx__forward_linear,
    .batch = scatter_batch,
    .cases =
        "x(3,4) value(2,2); stride={4,1} offset=1\n"
        "x(3,4) value(3); stride={5}",
};
