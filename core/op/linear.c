/* linear, and linear with what comes after it in the same pass: an activation or a gate,
 * something added. Read next: matmul.h, core/linalg/epilogue.h. */
#include "../tensor/tensor.h"
#include "index.h"
#include "matmul.h"

static nyx_status infer_linear(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *w = c->in[1], *bias = c->in[2];
  if (x->ndim == 0) {
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x), "1 dimension or more");
  }
  if (w->ndim != 2) {
    return nyx__error(c->ctx, NDIM_EXPECTED, "weight", NYX__SHAPE(w),
                      "2 dimensions (outputs, features)");
  }
  int64_t features = x->shape[x->ndim - 1], outputs = w->shape[0];
  if (w->shape[1] != features) {
    return nyx__error(c->ctx, LINEAR_FEATURES, NYX__SHAPE(x), (long long)features,
                      NYX__SHAPE(w), (long long)w->shape[1]);
  }
  if (bias && (bias->ndim != 1 || bias->shape[0] != outputs)) {
    return nyx__error(c->ctx, LINEAR_BIAS, NYX__SHAPE(bias), (long long)outputs,
                      NYX__SHAPE(w));
  }
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  c->spec[0].shape[x->ndim - 1] = outputs;
  return NYX_OK;
}

/* The weight (outputs, features) as a right factor. */
static nyx_status right_factor(nyx_call *c, nyx_tensor **turned) {
  nyx_spec spec;
  nyx__spec_of(c->in[1], &spec);
  int64_t size = spec.shape[0], stride = spec.stride[0];
  spec.shape[0] = spec.shape[1], spec.stride[0] = spec.stride[1];
  spec.shape[1] = size, spec.stride[1] = stride;
  return nyx__tensor_view(c->ctx, c->in[1]->storage, &spec, turned);
}

static nyx_status cpu_linear(nyx_call *c) {
  nyx_tensor *turned, *bias = c->in[2], *out = c->out[0];
  NYX_TRY(right_factor(c, &turned));
  const nyx__finish finish = {.bias = bias};
  bool at_once = bias && nyx_dtype_is_float(c->dtype);
  nyx_status status =
      nyx__product(c->ctx, c->in[0], turned, at_once ? &finish : NULL, out);
  if (status == NYX_OK && bias && !at_once)
    status = nyx_apply(c->ctx, nyx__op(NYX__OP_add), (nyx_tensor *[]){out, bias}, 2, NULL,
                       &out);
  nyx_tensor_release(turned);
  return status;
}

/* The gradients of x, weight and bias from that of their product. */
static nyx_status gradient_of(nyx_backward *b, nyx_tensor *g) {
  if (b->need[0]) {
    NYX_TRY(nyx__apply2(b->ctx, NYX__OP_matmul, g, b->in[1], NULL, &b->grad_in[0]));
  }
  if (b->need[1]) NYX_TRY(nyx__inner_product(b->ctx, g, b->in[0], &b->grad_in[1]));
  if (b->n_in > 2 && b->need[2]) {
    NYX_TRY(nyx__sum_to(b->ctx, g, &b->in_spec[2], &b->grad_in[2]));
  }
  return NYX_OK;
}

static nyx_status gradient_linear(nyx_backward *b) {
  return gradient_of(b, b->grad_out[0]);
}

/* One weight for all entries is one product; weights that differ are a batched one. */
static nyx_status batch_linear(nyx_batch *b) {
  bool bias = b->in[2] != NULL;
  if (!b->batched[1] && !(bias && b->batched[2]))
    return nyx__batch_apply(b, b->in, b->attr);
  nyx_context *ctx = b->ctx;
  int ndim = b->in[0]->ndim - b->batched[0];
  nyx_tensor *weight = NULL, *product = NULL, *aligned = NULL;
  nyx_status status = nyx__turned(ctx, b->in[1], &weight);
  nyx_tensor *in[2] = {b->in[0], weight};
  nyx_spec spec = b->spec[0];
  nyx_batch inner = *b;
  inner.op = nyx__op(NYX__OP_matmul);
  inner.in = in;
  inner.n_in = 2;
  inner.spec = &spec;
  inner.out = &product;
  if (status == NYX_OK && !b->batched[0] && !b->batched[1]) { /* the bias alone */
    status = nyx__apply2(ctx, NYX__OP_matmul, in[0], weight, NULL, &product);
  } else if (status == NYX_OK) {
    status = nyx__batch_matmul(&inner);
  }
  if (status == NYX_OK && bias) status = nyx__batch_align(b, 2, ndim, &aligned);
  if (status == NYX_OK && bias)
    status = nyx__apply2(ctx, NYX__OP_add, product, aligned, NULL, &b->out[0]);
  else if (status == NYX_OK)
    b->out[0] = nyx_tensor_retain(product);
  nyx_tensor_release(weight);
  nyx_tensor_release(product);
  nyx_tensor_release(aligned);
  return status;
}

const nyx_op nyx__op_linear = {
    .name = "linear",
    .group = "neural",
    .doc =
        "x @ weight^T + bias over the last dimension of x; weight is (outputs, "
        "features), "
        "bias (outputs)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_NUMBER,
    .inputs = "x weight bias",
    .min_in = 2,
    .max_in = 3,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_linear,
    .cpu = cpu_linear,
    .gradient = gradient_linear,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .forward = nyx__forward_product,
    .batch = batch_linear,
    .cases =
        "x(3,4) weight(2,4) bias(2)\n"
        "x(4) weight(2,4) bias(2)\n"
        "x(2,3,4) weight(5,4)\n"
        "x(0,4) weight(5,4) bias(5)",
};

/* linear_activation */

enum { X, WEIGHT, BIAS, RESIDUAL, OTHER, INPUTS };
enum { ACTIVATION, KEEP, ATTRS };

static nyx_status infer_activation(nyx_call *c) {
  const nyx_op *op;
  NYX_TRY(nyx__find_activation(c->ctx, &c->attr[ACTIVATION], c->in[OTHER] != NULL, &op));
  NYX_TRY(infer_linear(c));
  for (int i = RESIDUAL; i <= OTHER; i++)
    if (c->in[i])
      NYX_TRY(nyx__shape_check(c->ctx, i == RESIDUAL ? "residual" : "other", c->in[i],
                               c->spec[0].ndim, c->spec[0].shape));
  c->spec[1] = c->spec[0];
  c->n_out = op && c->attr[KEEP].i ? 2 : 1;
  return NYX_OK;
}

static nyx_status cpu_activation(nyx_call *c) {
  nyx_tensor *turned;
  nyx__finish finish = {
      .bias = c->in[BIAS], .other = c->in[OTHER], .residual = c->in[RESIDUAL]};
  if (c->n_out > 1) finish.sums = c->out[1];
  NYX_TRY(nyx__find_activation(c->ctx, &c->attr[ACTIVATION], finish.other != NULL,
                               &finish.activation));
  NYX_TRY(right_factor(c, &turned));
  nyx_status status = nyx__product(c->ctx, c->in[X], turned, &finish, c->out[0]);
  nyx_tensor_release(turned);
  return status;
}

/* Sums that were not kept are computed again. */
static nyx_status gradient_activation(nyx_backward *b) {
  nyx_tensor *sums = NULL, *g = NULL;
  nyx_status status = NYX_OK;
  if (b->need[RESIDUAL] && b->grad_out[0])
    b->grad_in[RESIDUAL] = nyx_tensor_retain(b->grad_out[0]);
  if (!b->need[X] && !b->need[WEIGHT] && !b->need[BIAS] && !b->need[OTHER]) return NYX_OK;
  if (b->n_out > 1)
    sums = nyx_tensor_retain(b->out[1]);
  else if (b->attr[ACTIVATION].given)
    status = nyx__applyn(b->ctx, NYX__OP_linear, b->in, 3, NULL, &sums);
  if (status == NYX_OK)
    status = nyx__gradient_of_sums(b, &b->attr[ACTIVATION], OTHER, sums, &g);
  if (status == NYX_OK && g) status = gradient_of(b, g);
  nyx_tensor_release(sums);
  nyx_tensor_release(g);
  return status;
}

/* One weight and bias for all entries: these are further rows of the same product. */
static nyx_status batch_activation(nyx_batch *b) {
  if (b->batched[WEIGHT] || (b->in[BIAS] && b->batched[BIAS])) return nyx__batch_each(b);
  nyx_tensor *in[INPUTS] = {[WEIGHT] = nyx_tensor_retain(b->in[WEIGHT]),
                            [BIAS] = nyx_tensor_retain(b->in[BIAS])};
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < INPUTS; i++)
    if (b->in[i] && i != WEIGHT && i != BIAS) status = nyx__batch_full(b, i, &in[i]);
  if (status == NYX_OK) status = nyx__batch_apply(b, in, b->attr);
  for (int i = 0; i < INPUTS; i++) nyx_tensor_release(in[i]);
  return status;
}

static const nyx_attr activation_attrs[ATTRS] = {
    {.name = "activation",
     .type = NYX_ATTR_STRING,
     .doc =
         "an elementwise op of one input: \"relu\", \"gelu\", \"gelu_tanh\", \"silu\", "
         "\"tanh\", ...; with other, of two: \"swiglu\", \"geglu\", \"gate\", \"mul\", "
         "...; none when left out"},
    {.name = "keep",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 1, .given = true},
     .doc = NYX__KEEP_DOC}};

const nyx_op nyx__op_linear_activation = {
    .name = "linear_activation",
    .group = "neural",
    .doc =
        "activation(x @ weight^T + bias) + residual in one pass over the result, and, "
        "where "
        "there is an activation, the sums before it; weight is (outputs, features), bias "
        "(outputs), "
        "residual of the result's shape; with other, of that shape too, "
        "activation(x @ weight^T + bias, other) + residual, as the gates of SwiGLU",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight bias residual other",
    .min_in = 2,
    .max_in = INPUTS,
    .attrs = activation_attrs,
    .n_attrs = ATTRS,
    .n_out = 2,
    .infer = infer_activation,
    .cpu = cpu_activation,
    .gradient = gradient_activation,
    .save_in = NYX_SAVE(X) | NYX_SAVE(WEIGHT) | NYX_SAVE(BIAS) | NYX_SAVE(OTHER),
    .save_out = NYX_SAVE(1),
    .batch = batch_activation,
    .cases =
        "x(3,4) weight(2,4) bias(2); activation=gelu\n"
        "x(2,3,4) weight(5,4) bias(5) residual(2,3,5); activation=silu\n"
        "x(4) weight(2,4); activation=tanh keep=false\n"
        "x(3,4) weight(2,4) bias(2) residual(3,2); activation=sigmoid keep=false\n"
        "x(3,4) weight(2,4) bias(2) residual(3,2)\n"
        "x(2,3,4) weight(5,4) bias(5) residual(2,3,5) other(2,3,5); activation=swiglu\n"
        "x(3,4) weight(2,4) bias(2) residual(3,2) other(3,2); activation=geglu "
        "keep=false\n"
        "x(0,4) weight(5,4) bias(5); activation=relu",
};
