/* conv2d_activation: conv2d with what comes after it in the same pass over the result,
 * something added and an activation. Read next: finish.h, conv.c, linear.c. */
#include "../transform/batch.h"
#include "conv.h"
#include "index.h"

enum { X, WEIGHT, BIAS, RESIDUAL, INPUTS };
enum { ACTIVATION = NYX__CONV_ATTR_COUNT, KEEP, ATTRS };

static nyx_status infer_activation(nyx_call *c) {
  const nyx_op *op;
  NYX_TRY(nyx__find_activation(c->ctx, &c->attr[ACTIVATION], false, &op));
  NYX_TRY(nyx__conv_infer(c));
  if (c->in[RESIDUAL])
    NYX_TRY(nyx__shape_check(c->ctx, "residual", c->in[RESIDUAL], c->spec[0].ndim,
                             c->spec[0].shape));
  c->spec[1] = c->spec[0];
  c->n_out = op && c->attr[KEEP].i ? 2 : 1;
  return NYX_OK;
}

static nyx_status cpu_activation(nyx_call *c) {
  nyx__finish finish = {.before = c->in[RESIDUAL]};
  if (c->n_out > 1) finish.sums = c->out[1];
  NYX_TRY(nyx__find_activation(c->ctx, &c->attr[ACTIVATION], false, &finish.activation));
  return nyx__conv_cpu(c, &finish);
}

/* What was activated, again. */
static nyx_status sum_again(nyx_backward *b, nyx_tensor **sums) {
  nyx_tensor *y;
  NYX_TRY(nyx__applyn(b->ctx, NYX__OP_conv2d, b->in, 3, b->attr, &y));
  if (!b->in[RESIDUAL]) {
    *sums = y;
    return NYX_OK;
  }
  nyx_status status = nyx__apply2(b->ctx, NYX__OP_add, y, b->in[RESIDUAL], NULL, sums);
  nyx_tensor_release(y);
  return status;
}

static nyx_status gradient_activation(nyx_backward *b) {
  nyx_tensor *sums = NULL, *g = NULL;
  nyx_status status = NYX_OK;
  if (b->n_out > 1)
    sums = nyx_tensor_retain(b->out[1]);
  else if (b->attr[ACTIVATION].given)
    status = sum_again(b, &sums);
  if (status == NYX_OK)
    status = nyx__gradient_of_sums(b, &b->attr[ACTIVATION], -1, sums, &g);
  if (status == NYX_OK && g && b->need[RESIDUAL])
    b->grad_in[RESIDUAL] = nyx_tensor_retain(g);
  if (status == NYX_OK && g) status = nyx__conv_gradient(b, g);
  nyx_tensor_release(sums);
  nyx_tensor_release(g);
  return status;
}

/* All entries as one batch of images; with a weight or bias of their own, one after the
 * other. */
static nyx_status batch_activation(nyx_batch *b) {
  bool own = b->batched[WEIGHT] || (b->in[BIAS] && b->batched[BIAS]);
  if (own || b->size == 0) return nyx__batch_each(b);
  bool many = b->in[X]->ndim - b->batched[X] == 4;
  nyx_tensor *in[INPUTS] = {[WEIGHT] = nyx_tensor_retain(b->in[WEIGHT]),
                            [BIAS] = nyx_tensor_retain(b->in[BIAS])};
  nyx_status status = NYX_OK;
  for (int i = X; status == NYX_OK && i < INPUTS; i += RESIDUAL - X) {
    nyx_tensor *full = NULL;
    if (!b->in[i]) continue;
    status = nyx__batch_full(b, i, &full);
    if (status == NYX_OK && many)
      status = nyx__batch_fold(b->ctx, full, 0, &in[i]);
    else
      in[i] = nyx_tensor_retain(full);
    nyx_tensor_release(full);
  }
  if (status == NYX_OK) status = nyx__batch_apply(b, in, b->attr);
  for (int k = 0; many && status == NYX_OK && k < b->n_out; k++) {
    nyx_tensor *split;
    status = nyx__batch_fold(b->ctx, b->out[k], b->size, &split);
    if (status != NYX_OK) break;
    nyx_tensor_release(b->out[k]);
    b->out[k] = split;
  }
  for (int i = 0; i < INPUTS; i++) nyx_tensor_release(in[i]);
  return status;
}

static const nyx_attr activation_attrs[ATTRS] = {
    NYX__CONV_ATTRS,
    {.name = "activation",
     .type = NYX_ATTR_STRING,
     .doc = "an elementwise op of one input: \"relu\", \"silu\", \"hardswish\", "
            "\"leaky_relu\", ...; none when left out"},
    {.name = "keep",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 1, .given = true},
     .doc = NYX__KEEP_DOC}};

const nyx_op nyx__op_conv2d_activation = {
    .name = "conv2d_activation",
    .group = "neural",
    .doc =
        "activation(conv2d(x, weight, bias) + residual) in one pass over the result, "
        "and, where there is an activation, the sums before it; residual, of the "
        "result's shape, is added before the activation, as in a residual net's blocks "
        "(linear_activation adds it after)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight bias residual",
    .min_in = 2,
    .max_in = INPUTS,
    .attrs = activation_attrs,
    .n_attrs = ATTRS,
    .n_out = 2,
    .infer = infer_activation,
    .cpu = cpu_activation,
    .gradient = gradient_activation,
    .save_in = NYX_SAVE(X) | NYX_SAVE(WEIGHT) | NYX_SAVE(BIAS) | NYX_SAVE(RESIDUAL),
    .save_out = NYX_SAVE(1),
    .batch = batch_activation,
    .cases =
        "x(2,3,5,4) weight(4,3,3,2) bias(4); activation=silu\n"
        "x(2,3,5,4) weight(2,3,1,1) bias(2) residual(2,2,5,4); activation=tanh\n"
        "x(3,5,4) weight(2,3,2,2) residual(2,4,3); activation=sigmoid keep=false\n"
        "x(2,2,5,6) weight(3,2,3,3) bias(3); stride={2} padding={1} activation=gelu\n"
        "x(2,4,4,4) weight(6,2,3,3) bias(6) residual(2,6,4,4); padding={1} groups=2 "
        "activation=softplus keep=false\n"
        "x(2,3,4,5) weight(3,1,3,3) bias(3); padding={1} stride={1,2} groups=3 "
        "activation=tanh\n"
        "x(2,3,5,4) weight(2,3,1,1) bias(2) residual(2,2,5,4)",
};
