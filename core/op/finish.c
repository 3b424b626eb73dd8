/* See finish.h. Read next: core/linalg/epilogue.c. */
#include "finish.h"

#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../tensor/tensor.h"

static bool lies_last(const nyx_tensor *t) {
  return nyx__lies_last(t->ndim, t->shape, t->stride);
}

/* t as `like` lies, with the data of its elements; nothing where there is no t. */
static nyx_status laid(nyx_context *ctx, nyx_tensor *t, const nyx_tensor *like,
                       nyx_tensor **out, const void **data) {
  if (!t) return NYX_OK;
  if (lies_last(like))
    NYX_TRY(nyx__last_as(ctx, t, like->dtype, NULL, out));
  else
    NYX_TRY(nyx__contiguous_as(ctx, t, like->dtype, out));
  *data = nyx__data(*out);
  return NYX_OK;
}

/* Where sums are written: the tensor that is wanted, or one that lies as the results. */
static nyx_status sums_like(nyx_context *ctx, nyx_tensor *wanted, const nyx_tensor *out,
                            nyx_tensor **sums) {
  size_t strides = (size_t)out->ndim * sizeof *out->stride;
  if (wanted->dtype == out->dtype && memcmp(wanted->stride, out->stride, strides) == 0) {
    *sums = nyx_tensor_retain(wanted);
    return NYX_OK;
  }
  nyx_spec spec;
  nyx__spec(&spec, out->dtype, out->ndim, out->shape);
  if (lies_last(out)) nyx__spec_last(&spec);
  return nyx__tensor_of(ctx, out->storage->device, &spec, sums);
}

static void release(nyx__finishing *f) {
  nyx_tensor_release(f->bias);
  nyx_tensor_release(f->before);
  nyx_tensor_release(f->sums);
  nyx_tensor_release(f->other);
  nyx_tensor_release(f->residual);
}

nyx_status nyx__finish_open(nyx_context *ctx, const nyx__finish *from,
                            const nyx_tensor *out, nyx__finishing *f) {
  nyx_dtype dtype = nyx__compute_dtype(out->dtype);
  int in = dtype == NYX_FLOAT64 ? NYX_IN_FLOAT64 : NYX_IN_FLOAT32;
  *f = (nyx__finishing){.e = {.n = out->ndim > 0 ? out->shape[out->ndim - 1] : 1,
                              .results = nyx__data(out)}};
  nyx_status status = NYX_OK;
  if (from->bias) status = nyx__contiguous_as(ctx, from->bias, dtype, &f->bias);
  if (f->bias) f->e.bias = nyx__data(f->bias);
  if (status == NYX_OK) status = laid(ctx, from->before, out, &f->before, &f->e.before);
  if (status == NYX_OK) status = laid(ctx, from->other, out, &f->other, &f->e.other);
  if (status == NYX_OK)
    status = laid(ctx, from->residual, out, &f->residual, &f->e.residual);
  if (status == NYX_OK && from->sums) status = sums_like(ctx, from->sums, out, &f->sums);
  if (f->sums) f->e.sums = nyx__data(f->sums);
  if (from->activation) {
    const nyx_op *op = from->activation;
    f->e.activation =
        nyx__cpu_kernels()->elementwise->rows[in][((const nyx_row *)op->row)->id][0];
    for (int i = 0; i < op->n_attrs && i < 2; i++)
      f->e.attr[i] = from->attr ? from->attr[i] : op->attrs[i].preset.f;
  }
  if (status != NYX_OK) release(f);
  return status;
}

nyx_status nyx__finish_close(nyx_context *ctx, const nyx__finish *from, nyx__finishing *f,
                             nyx_status status) {
  if (status == NYX_OK && f->sums != from->sums)
    status = nyx__copy_into(ctx, f->sums, from->sums);
  release(f);
  return status;
}

nyx_status nyx__find_activation(nyx_context *ctx, const nyx_value *activation, bool other,
                                const nyx_op **op) {
  *op = NULL;
  if (!activation->given && other)
    return nyx__error(ctx, ATTR_MISSING, "activation",
                      "what combines the sums with 'other': mul, swiglu and the like");
  if (!activation->given) return NYX_OK;
  *op = nyx_op_find(activation->s);
  bool row = *op && (*op)->kind == NYX_OP_ELEMENTWISE;
  row = row && (*op)->max_in == 1 + other && (*op)->gradient &&
        ((*op)->dtypes & NYX_DTYPES_FLOAT) == NYX_DTYPES_FLOAT;
  for (int i = 0; row && i < (*op)->n_attrs; i++) row = (*op)->attrs[i].preset.given;
  if (row) return NYX_OK;
  return nyx__error(ctx, ATTR_CHOICE, "activation", activation->s,
                    other ? "an op of two float inputs, as there is 'other', and no "
                            "required attribute: mul, gate, swiglu, geglu and the like"
                          : "an op of one float input and no required attribute: relu, "
                            "gelu, gelu_tanh, silu, sigmoid, tanh and the like");
}

/* What comes through the activation, for the sums and for its other input. */
static nyx_status gradient_through(nyx_backward *b, const nyx_op *op, int other,
                                   nyx_tensor *sums, nyx_tensor **through) {
  nyx_value attr[2];
  nyx_tensor *in[NYX_MAX_INPUTS] = {sums, other < 0 ? NULL : b->in[other]};
  nyx_tensor *grad_in[2] = {NULL, NULL}, *value = NULL;
  const nyx_spec spec[2] = {b->out_spec[0], b->in_spec[other < 0 ? 0 : other]};
  bool need[2] = {false, other >= 0 && b->need[other]};
  nyx_backward inner = {
      .ctx = b->ctx, .op = op, .attr = attr, .n_in = op->max_in, .n_out = 1};
  for (int i = 0; i < b->n_in; i++) need[0] |= i != other && b->need[i];
  for (int i = 0; i < op->n_attrs; i++) attr[i] = op->attrs[i].preset;
  if (op->save_out) NYX_TRY(nyx_apply(b->ctx, op, in, op->max_in, attr, &value));
  inner.in = in;
  inner.out = &value;
  inner.in_spec = spec;
  inner.out_spec = b->out_spec;
  inner.grad_out = b->grad_out;
  inner.need = need;
  inner.grad_in = grad_in;
  nyx_status status = nyx__row_gradient(&inner);
  nyx_tensor_release(value);
  if (status == NYX_OK)
    *through = grad_in[0];
  else
    nyx_tensor_release(grad_in[0]);
  if (other >= 0)
    b->grad_in[other] = grad_in[1];
  else
    nyx_tensor_release(grad_in[1]);
  return status;
}

nyx_status nyx__gradient_of_sums(nyx_backward *b, const nyx_value *activation, int other,
                                 nyx_tensor *sums, nyx_tensor **g) {
  nyx_tensor *through = NULL, *direct = b->n_out > 1 ? b->grad_out[1] : NULL;
  const nyx_op *op;
  NYX_TRY(nyx__find_activation(b->ctx, activation, other >= 0 && b->in[other], &op));
  if (op && op->max_in == 1) other = -1;
  if (b->grad_out[0] && !op)
    through = nyx_tensor_retain(b->grad_out[0]);
  else if (b->grad_out[0])
    NYX_TRY(gradient_through(b, op, other, sums, &through));
  if (!through || !direct) {
    *g = through ? through : nyx_tensor_retain(direct);
    return NYX_OK;
  }
  nyx_status status = nyx__apply2(b->ctx, NYX__OP_add, through, direct, NULL, g);
  nyx_tensor_release(through);
  return status;
}
