/* linear_quantized and dequantize_weight: weights of few bits that stay as they are.
 * Gradients are those of a linear layer with the weight as floats. Read next:
 * core/linalg/quantized.c; lua/nyx/nn/quantized.lua. */
#include "../linalg/quantized.h"

#include <string.h>

#include "../linalg/gemm.h"
#include "ops.h"
#include "steps.h"

/* How the weight is made of its parts; x's dtype says in what it is computed. */
typedef struct parts {
  nyx_tensor *packed, *scales, *zeros; /* contiguous, retained; zeros may be NULL */
  nyx_quantized w;
} parts;

static int64_t features_of(const nyx_tensor *packed) {
  return packed->shape[1] * (packed->dtype == NYX_UINT8 ? 2 : 1);
}
static int64_t groups_of(const nyx_tensor *scales) {
  return scales->ndim == 2 ? scales->shape[1] : 1;
}

static nyx_status check_numbers(nyx_context *ctx, const char *name, const nyx_tensor *t,
                                const nyx_tensor *packed) {
  if (!nyx_dtype_is_float(t->dtype))
    return nyx__error(ctx, DTYPE_INPUT, name, nyx_dtype_name(t->dtype), "a float dtype");
  int64_t features = features_of(packed), outputs = packed->shape[0];
  bool fits = (t->ndim == 1 || t->ndim == 2) && t->shape[0] == outputs;
  int64_t groups = fits ? groups_of(t) : 0;
  fits = fits && groups > 0 && features % groups == 0;
  if (fits && packed->dtype == NYX_UINT8) fits = features / groups % 2 == 0;
  if (fits) return NYX_OK;
  return nyx__error(ctx, QUANTIZED_SCALES, name, NYX__SHAPE(t), (long long)outputs,
                    (long long)outputs, (long long)features,
                    packed->dtype == NYX_UINT8 ? ", of an even number each" : "");
}

/* Checks packed, scales and zeros (may be NULL). */
static nyx_status check_weight(nyx_context *ctx, const nyx_tensor *packed,
                               const nyx_tensor *scales, const nyx_tensor *zeros) {
  if (packed->dtype != NYX_UINT8 && packed->dtype != NYX_INT8)
    return nyx__error(ctx, DTYPE_INPUT, "packed", nyx_dtype_name(packed->dtype),
                      "int8, or uint8 with two int4 to a byte");
  if (packed->ndim != 2)
    return nyx__error(ctx, NDIM_EXPECTED, "packed", NYX__SHAPE(packed),
                      "2 dimensions (outputs, features; half as many with int4)");
  NYX_TRY(check_numbers(ctx, "scales", scales, packed));
  if (!zeros) return NYX_OK;
  NYX_TRY(check_numbers(ctx, "zeros", zeros, packed));
  if (groups_of(zeros) == groups_of(scales)) return NYX_OK;
  return nyx__error(ctx, NDIM_EXPECTED, "zeros", NYX__SHAPE(zeros),
                    "one for each of the scales");
}

static void close_parts(parts *p) {
  nyx_tensor_release(p->packed);
  nyx_tensor_release(p->scales);
  nyx_tensor_release(p->zeros);
}

/* Contiguous parts; scales and zero points as `dtype` where `convert`. */
static nyx_status open_parts(nyx_context *ctx, nyx_tensor *const *in, bool convert,
                             nyx_dtype dtype, parts *p) {
  nyx_tensor *packed = in[0], *scales = in[1], *zeros = in[2];
  *p = (parts){0};
  nyx_status status = nyx__contiguous(ctx, packed, &p->packed);
  if (status == NYX_OK)
    status = nyx__contiguous_as(ctx, scales, convert ? dtype : scales->dtype, &p->scales);
  if (status == NYX_OK && zeros)
    status = nyx__contiguous_as(ctx, zeros, convert ? dtype : zeros->dtype, &p->zeros);
  if (status != NYX_OK) {
    close_parts(p);
    return status;
  }
  p->w = (nyx_quantized){.q = nyx__data(p->packed),
                         .int4 = packed->dtype == NYX_UINT8,
                         .outputs = packed->shape[0],
                         .terms = features_of(packed),
                         .groups = groups_of(scales),
                         .scale_dtype = p->scales->dtype,
                         .scale = nyx__data(p->scales)};
  if (p->zeros) p->w.zero_dtype = p->zeros->dtype, p->w.zero = nyx__data(p->zeros);
  return NYX_OK;
}

/* Gradients */

static nyx_status cast(nyx__steps *s, nyx_tensor *t, nyx_dtype dtype, nyx_tensor **out) {
  *out = t;
  if (!t) return NYX_OK;
  NYX_TRY(nyx__to_dtype(s->ctx, t, dtype, out));
  nyx__step_keep(s, *out);
  return NYX_OK;
}

static nyx_status weight_of(nyx__steps *s, nyx_tensor *packed, nyx_tensor *scales,
                            nyx_tensor *zeros, nyx_tensor **out) {
  nyx_tensor *in[] = {packed, scales, zeros};
  return nyx__stepn(s, NYX__OP_dequantize_weight, in, zeros ? 3 : 2, NULL, out);
}

static nyx_status reshape(nyx__steps *s, nyx_tensor *t, int ndim, const int64_t *shape,
                          nyx_tensor **out) {
  const nyx_value attr = NYX_LIST(shape, ndim);
  return nyx__step(s, NYX__OP_reshape, t, NULL, &attr, out);
}

/* Sums g (outputs x features) over each group, in the shape of the scales. */
static nyx_status sum_groups(nyx__steps *s, nyx_tensor *g, const nyx_tensor *scales,
                             nyx_tensor **out) {
  int64_t groups = groups_of(scales), over[] = {-1};
  int64_t shape[] = {g->shape[0], groups, g->shape[1] / groups};
  const nyx_value dims[] = {NYX_LIST(over, 1), NYX_I(0)};
  nyx_tensor *t;
  NYX_TRY(reshape(s, g, 3, shape, &t));
  NYX_TRY(nyx__step(s, NYX__OP_sum, t, NULL, dims, &t));
  return reshape(s, t, scales->ndim, scales->shape, out);
}

/* From that of the weight, g, the gradients of inputs `at` (scales) and the next (zero
 * points): w = (q - zero) scale. */
static nyx_status number_gradients(nyx__steps *s, nyx_backward *b, nyx_tensor *g,
                                   int at) {
  nyx_tensor *scales, *zeros, *zero, *ones, *w, *t;
  nyx_spec spec = b->in_spec[at];
  spec.dtype = g->dtype;
  NYX_TRY(cast(s, b->in[at], g->dtype, &scales));
  NYX_TRY(cast(s, b->n_in > at + 1 ? b->in[at + 1] : NULL, g->dtype, &zeros));
  if (b->need[at]) {
    NYX_TRY(nyx__zeros(s->ctx, scales, &spec, &zero));
    nyx__step_keep(s, zero);
    NYX_TRY(nyx__step(s, NYX__OP_exp, zero, NULL, NULL, &ones));
    NYX_TRY(weight_of(s, b->in[at - 1], ones, zeros, &w));
    NYX_TRY(nyx__step(s, NYX__OP_mul, g, w, NULL, &t));
    NYX_TRY(sum_groups(s, t, scales, &t));
    NYX_TRY(nyx__to_dtype(s->ctx, t, b->in_spec[at].dtype, &b->grad_in[at]));
  }
  if (zeros && b->need[at + 1]) {
    NYX_TRY(sum_groups(s, g, scales, &t));
    NYX_TRY(nyx__step(s, NYX__OP_mul, t, scales, NULL, &t));
    NYX_TRY(nyx__step(s, NYX__OP_neg, t, NULL, NULL, &t));
    NYX_TRY(reshape(s, t, b->in_spec[at + 1].ndim, b->in_spec[at + 1].shape, &t));
    NYX_TRY(nyx__to_dtype(s->ctx, t, b->in_spec[at + 1].dtype, &b->grad_in[at + 1]));
  }
  return NYX_OK;
}

/* dequantize_weight */

static nyx_status infer_dequantize(nyx_call *c) {
  NYX_TRY(check_weight(c->ctx, c->in[0], c->in[1], c->in[2]));
  const int64_t shape[] = {c->in[0]->shape[0], features_of(c->in[0])};
  nyx__spec(&c->spec[0], c->in[1]->dtype, 2, shape);
  return NYX_OK;
}

static nyx_status cpu_dequantize(nyx_call *c) {
  parts p;
  NYX_TRY(open_parts(c->ctx, c->in, false, NYX_FLOAT32, &p));
  nyx_status status =
      nyx__dequantize(c->ctx, &p.w, c->out[0]->dtype, nyx__data(c->out[0]));
  close_parts(&p);
  return status;
}

static nyx_status gradient_dequantize(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  return nyx__steps_end(&s, number_gradients(&s, b, b->grad_out[0], 1));
}

const nyx_op nyx__op_dequantize_weight = {
    .name = "dequantize_weight",
    .group = "neural",
    .doc =
        "the weight (outputs, features) that quantize_weight packed, (q - zero) * scale, "
        "in "
        "the dtype of scales",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .inputs = "packed scales zeros",
    .min_in = 2,
    .max_in = 3,
    .n_out = 1,
    .infer = infer_dequantize,
    .cpu = cpu_dequantize,
    .gradient = gradient_dequantize,
    .save_in = NYX_SAVE_ALL,
    .cases =
        "packed(3,4)<uint8 scales(3,2)\n"
        "packed(3,6)<uint8 scales(3,3) zeros(3,3)\n"
        "packed(3,5)<int8 scales(3)\n"
        "packed(2,6)<int8 scales(2,2) zeros(2,2)",
};

/* linear_quantized */

static nyx_status infer_linear(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *packed = c->in[1], *bias = c->in[4];
  if (x->ndim == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x), "1 dimension or more");
  NYX_TRY(check_weight(c->ctx, packed, c->in[2], c->in[3]));
  int64_t features = x->shape[x->ndim - 1], outputs = packed->shape[0];
  if (features_of(packed) != features)
    return nyx__error(c->ctx, QUANTIZED_FEATURES, NYX__SHAPE(x), (long long)features,
                      NYX__SHAPE(packed), nyx_dtype_name(packed->dtype),
                      (long long)features_of(packed));
  if (bias && (bias->ndim != 1 || bias->shape[0] != outputs))
    return nyx__error(c->ctx, LINEAR_BIAS, NYX__SHAPE(bias), (long long)outputs,
                      NYX__SHAPE(packed));
  if (bias && !nyx_dtype_is_float(bias->dtype))
    return nyx__error(c->ctx, DTYPE_INPUT, "bias", nyx_dtype_name(bias->dtype),
                      "a float dtype");
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  c->spec[0].shape[x->ndim - 1] = outputs;
  return NYX_OK;
}

/* y = x w^T + bias in float64, by the weight as a whole: for checking others. */
static nyx_status product_double(nyx_context *ctx, const nyx_quantized *w,
                                 const nyx_tensor *x, int64_t rows, const double *bias,
                                 double *y) {
  nyx_tensor *wide;
  NYX_TRY(
      nyx_tensor_empty(ctx, NYX_FLOAT64, 2, (int64_t[]){w->outputs, w->terms}, &wide));
  nyx_status status = nyx__dequantize(ctx, w, NYX_FLOAT64, nyx__data(wide));
  const nyx_epilogue after = {.n = w->outputs, .bias = bias};
  nyx_gemm g = {.dtype = NYX_FLOAT64,
                .after = &after,
                .product = {.m = rows,
                            .n = w->outputs,
                            .k = w->terms,
                            .a = nyx__data(x),
                            .a_rs = w->terms,
                            .a_cs = 1,
                            .b = nyx__data(wide),
                            .b_rs = 1,
                            .b_cs = w->terms,
                            .c = y,
                            .ldc = w->outputs}};
  if (status == NYX_OK) status = nyx__gemm(ctx, &g);
  nyx_tensor_release(wide);
  return status;
}

static nyx_status cpu_linear(nyx_call *c) {
  nyx_context *ctx = c->ctx;
  nyx_dtype dtype = c->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  if (c->out[0]->numel == 0) return NYX_OK;
  int64_t rows = c->out[0]->numel / c->in[1]->shape[0];
  nyx_tensor *x = NULL, *bias = NULL, *y = NULL;
  parts p = {0};
  /* Scales are converted where they are used, or once for many rows. */
  bool convert = dtype == NYX_FLOAT32 && rows > NYX_QUANTIZED_SOME;
  nyx_status status = open_parts(ctx, c->in + 1, convert, dtype, &p);
  /* In bfloat16 where rows go to the CPU's unit as they are. */
  bool low = status == NYX_OK && c->dtype == NYX_BFLOAT16 &&
             nyx__quantized_low_takes(&p.w, rows);
  nyx_dtype io = low ? NYX_BFLOAT16 : dtype;
  if (status == NYX_OK) status = nyx__contiguous_as(ctx, c->in[0], io, &x);
  if (status == NYX_OK && c->in[4])
    status = nyx__contiguous_as(ctx, c->in[4], dtype, &bias);
  if (status == NYX_OK && io == c->dtype) {
    y = nyx_tensor_retain(c->out[0]);
  } else if (status == NYX_OK) {
    status = nyx_tensor_empty(ctx, dtype, c->out[0]->ndim, c->out[0]->shape, &y);
  }
  const void *add = bias ? nyx__data(bias) : NULL;
  if (status == NYX_OK && low) {
    status = nyx__quantized_low(ctx, &p.w, nyx__data(x), rows, add, nyx__data(y));
  } else if (status == NYX_OK && dtype == NYX_FLOAT64) {
    status = product_double(ctx, &p.w, x, rows, add, nyx__data(y));
  } else if (status == NYX_OK) {
    status = nyx__quantized_product(ctx, &p.w, nyx__data(x), rows, add, nyx__data(y));
  }
  if (status == NYX_OK && y != c->out[0]) status = nyx__copy_into(ctx, y, c->out[0]);
  close_parts(&p);
  nyx_tensor_release(x);
  nyx_tensor_release(bias);
  nyx_tensor_release(y);
  return status;
}

/* The gradient of the weight as floats: g^T x, rows of all leading dimensions. */
static nyx_status weight_gradient(nyx__steps *s, nyx_tensor *g, nyx_tensor *x,
                                  nyx_tensor **out) {
  int64_t rows = 1, features = x->shape[x->ndim - 1], outputs = g->shape[g->ndim - 1];
  for (int d = 0; d < x->ndim - 1; d++) rows *= x->shape[d];
  const nyx_value turn[] = {NYX_I(0), NYX_I(1)};
  nyx_tensor *left, *right;
  NYX_TRY(reshape(s, g, 2, (int64_t[]){rows, outputs}, &left));
  NYX_TRY(reshape(s, x, 2, (int64_t[]){rows, features}, &right));
  NYX_TRY(nyx__step(s, NYX__OP_transpose, left, NULL, turn, &left));
  return nyx__step(s, NYX__OP_matmul, left, right, NULL, out);
}

static nyx_status linear_gradients(nyx__steps *s, nyx_backward *b) {
  nyx_dtype dtype = b->in_spec[0].dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  nyx_tensor *g, *scales, *zeros, *w, *x, *t;
  NYX_TRY(cast(s, b->grad_out[0], dtype, &g));
  if (b->need[0]) {
    NYX_TRY(cast(s, b->in[2], dtype, &scales));
    NYX_TRY(cast(s, b->n_in > 3 ? b->in[3] : NULL, dtype, &zeros));
    NYX_TRY(weight_of(s, b->in[1], scales, zeros, &w));
    NYX_TRY(nyx__step(s, NYX__OP_matmul, g, w, NULL, &t));
    NYX_TRY(nyx__to_dtype(s->ctx, t, b->in_spec[0].dtype, &b->grad_in[0]));
  }
  if (b->need[2] || (b->n_in > 3 && b->need[3])) {
    NYX_TRY(cast(s, b->in[0], dtype, &x));
    NYX_TRY(weight_gradient(s, g, x, &w));
    NYX_TRY(number_gradients(s, b, w, 2));
  }
  if (b->n_in > 4 && b->need[4]) {
    NYX_TRY(nyx__sum_to(s->ctx, g, &b->in_spec[4], &t));
    nyx__step_keep(s, t);
    NYX_TRY(nyx__to_dtype(s->ctx, t, b->in_spec[4].dtype, &b->grad_in[4]));
  }
  return NYX_OK;
}

static nyx_status gradient_linear(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  return nyx__steps_end(&s, linear_gradients(&s, b));
}

const nyx_op nyx__op_linear_quantized = {
    .name = "linear_quantized",
    .group = "neural",
    .doc =
        "linear by the weight that quantize_weight packed: x @ ((q - zero) * scale)^T + "
        "bias, "
        "in float32 (float64 for such an x), in the dtype of x. packed is int8 (outputs, "
        "features) or uint8 (outputs, features / 2), two int4 0..15 to a byte, the first "
        "in its lower half; scales and zeros (8 and 0 when left out), of any float "
        "dtype, "
        "are "
        "(outputs) or (outputs, groups)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x packed scales zeros bias",
    .min_in = 3,
    .max_in = 5,
    .n_out = 1,
    .infer = infer_linear,
    .cpu = cpu_linear,
    .gradient = gradient_linear,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1) | NYX_SAVE(2) | NYX_SAVE(3),
    .cases =
        "x(3,8) packed(2,4)<uint8 scales(2,2)\n"
        "x(8) packed(2,4)<uint8 scales(2) bias(2)\n"
        "x(2,3,6) packed(5,6)<int8 scales(5)\n"
        "x(2,3,6) packed(5,6)<int8 scales(5,2) zeros(5,2) bias(5)\n"
        "x(2,12) packed(3,6)<uint8 scales(3,2) zeros(3,2) bias(3)\n"
        "x(0,4) packed(5,4)<int8 scales(5)",
};
