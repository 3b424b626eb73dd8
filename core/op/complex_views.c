/* Two real tensors as a complex one, and views of complex numbers as pairs and parts.
 * Read next: complex.c, views.c. */
#include <string.h>

#include "../device/device.h"
#include "complex_steps.h"

/* complex: two real tensors as one */

static nyx_status complex_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *y = c->in[1];
  int ndim = x->ndim;
  int64_t shape[NYX_MAX_DIMS];
  memcpy(shape, x->shape, sizeof shape);
  if (y && !nyx__broadcast(x->ndim, x->shape, y->ndim, y->shape, &ndim, shape))
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(x), NYX__SHAPE(y));
  nyx__spec(&c->spec[0], nyx_dtype_promote(c->dtype, NYX_COMPLEX64), ndim, shape);
  return NYX_OK;
}

static nyx_status complex_cpu(nyx_call *c) {
  return nyx__complex_join(c->ctx, c->in[0], c->in[1], c->out[0]);
}

static nyx_status complex_gradient(nyx_backward *b) {
  scratch s = {.steps = {.ctx = b->ctx}};
  for (int i = 0; i < b->n_in && s.status == NYX_OK; i++) {
    nyx_tensor *sum = NULL, *g = b->need[i] ? part(&s, b->grad_out[0], i) : NULL;
    if (!g) continue;
    s.status = nyx__sum_to(b->ctx, g, &b->in_spec[i], &sum);
    if (keep(&s, sum))
      s.status = nyx__to_dtype(b->ctx, sum, b->in_spec[i].dtype, &b->grad_in[i]);
  }
  return end(&s, NULL, NULL);
}

const nyx_op nyx__op_complex = {
    .name = "complex",
    .group = "complex",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .doc =
        "complex numbers of real and imaginary parts, which broadcast; imag left out: 0. "
        "float64 gives complex128, other dtypes complex64",
    .inputs = "real imag",
    .min_in = 1,
    .max_in = 2,
    .n_out = 1,
    .infer = complex_infer,
    .cpu = complex_cpu,
    .gradient = complex_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_aligned,
    .cases = "real(2,3) imag(2,3)\nreal(3,1) imag(2)\nreal(2)",
};

/* view_as_real, view_as_complex */

static nyx_status real_infer(nyx_call *c) {
  const nyx_tensor *z = c->in[0];
  if (z->ndim == NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, z->ndim + 1, NYX_MAX_DIMS);
  nyx__pairs_spec(z, &c->spec[0]);
  return NYX_OK;
}

static nyx_status to_numbers(nyx_context *ctx, nyx_tensor *pairs, nyx_tensor **out) {
  scratch s = {.steps = {.ctx = ctx}};
  nyx_tensor *z = numbers_of(&s, pairs);
  return end(&s, z, out);
}

static nyx_status real_gradient(nyx_backward *b) {
  return to_numbers(b->ctx, b->grad_out[0], &b->grad_in[0]);
}

static nyx_status real_forward(nyx_dual *d) {
  return nyx__apply1(d->ctx, NYX__OP_view_as_real, d->tangent[0], NULL,
                     &d->tangent_out[0]);
}

const nyx_op nyx__op_view_as_real = {
    .name = "view_as_real",
    .group = "complex",
    .kind = NYX_OP_VIEW,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc = "a view of complex numbers as pairs of floats in a new last dimension",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .infer = real_infer,
    .gradient = real_gradient,
    .forward = real_forward,
    .batch = nyx__batch_leading,
    .cases = "x(2,3)<complex64",
};

static nyx_status numbers_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  int last = x->ndim - 1;
  bool fits =
      last >= 0 && x->shape[last] == 2 && x->stride[last] == 1 && x->offset % 2 == 0;
  for (int d = 0; fits && d < last; d++) fits = x->stride[d] % 2 == 0 || x->shape[d] < 2;
  if (!fits) return nyx__error(c->ctx, COMPLEX_VIEW, NYX__SHAPE(x));
  nyx_spec *s = &c->spec[0];
  nyx__spec_of(x, s);
  s->dtype = nyx_dtype_promote(x->dtype, NYX_COMPLEX64);
  s->ndim = last;
  s->offset /= 2;
  for (int d = 0; d < last; d++) s->stride[d] /= 2;
  return NYX_OK;
}

static nyx_status numbers_gradient(nyx_backward *b) {
  return nyx__apply1(b->ctx, NYX__OP_view_as_real, b->grad_out[0], NULL, &b->grad_in[0]);
}

static nyx_status numbers_forward(nyx_dual *d) {
  return to_numbers(d->ctx, d->tangent[0], &d->tangent_out[0]);
}

const nyx_op nyx__op_view_as_complex = {
    .name = "view_as_complex",
    .group = "complex",
    .kind = NYX_OP_VIEW,
    .dtypes = NYX_DTYPES(NYX_FLOAT32) | NYX_DTYPES(NYX_FLOAT64),
    .doc =
        "a view of pairs of floats, side by side in the last dimension, as complex "
        "numbers",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .infer = numbers_infer,
    .gradient = numbers_gradient,
    .forward = numbers_forward,
    .batch = nyx__batch_leading,
    .cases = "x(3,4,2)",
};

/* complex_part */

static nyx_status part_infer(nyx_call *c) {
  nyx_spec *s = &c->spec[0];
  nyx__spec_of(c->in[0], s);
  s->dtype = nyx_dtype_real(s->dtype);
  s->offset = 2 * s->offset + (c->attr[0].i != 0);
  for (int d = 0; d < s->ndim; d++) s->stride[d] *= 2;
  return NYX_OK;
}

static nyx_status part_gradient(nyx_backward *b) {
  scratch s = {.steps = {.ctx = b->ctx}};
  nyx_tensor *g = b->grad_out[0];
  nyx_tensor *z = b->attr[0].i ? join(&s, number(&s, 0), g) : op1(&s, NYX__OP_complex, g);
  return end(&s, z, &b->grad_in[0]);
}

static const nyx_attr part_attrs[] = {
    {"imag", NYX_ATTR_BOOL, false, NYX_I(0), "the imaginary part"}};

const nyx_op nyx__op_complex_part = {
    .name = "complex_part",
    .group = "complex",
    .kind = NYX_OP_VIEW,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "a view of one part of complex numbers; `real` and `imag` are the usual way to "
        "say it",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .attrs = part_attrs,
    .n_attrs = 1,
    .infer = part_infer,
    .gradient = part_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_leading,
    .cases = "x(2,3)<complex64\nx(3)<complex64; imag=true",
};
