/* softclip(x, limit) = limit * tanh(x / limit), an op written outside of Nyx with the
 * public headers alone: shape rule, CPU kernel, gradient, description. Read next:
 * <nyx/op.h>, module.c. */
#include "softclip.h"

#include <math.h>

/* How many elements one job does: tanh takes some ten nanoseconds. */
#define GRAIN 4096

static nyx_status infer(nyx_call *c) {
  double limit = c->attr[0].f;
  if (!(limit > 0 && isfinite(limit)))
    return nyx_context_fail(c->ctx, NYX_ERR_ARGUMENT,
                            "limit is %g, expected a finite number above 0", limit);
  const nyx_tensor *x = c->in[0];
  nyx_spec *spec = &c->spec[0];
  spec->dtype = c->dtype;
  spec->ndim = nyx_tensor_ndim(x);
  for (int d = 0; d < spec->ndim; d++) spec->shape[d] = nyx_tensor_shape(x)[d];
  return NYX_OK;
}

/* ------------------------------------------------------------------ on the CPU */

/* y[i] = softclip(x[i]); y may be x. */
typedef struct work {
  const void *x;
  void *y;
  double limit;
} work;

static void do_float(void *arg, int64_t begin, int64_t end) {
  const work *w = arg;
  const float *x = w->x;
  float *y = w->y, limit = (float)w->limit;
  for (int64_t i = begin; i < end; i++) y[i] = limit * tanhf(x[i] / limit);
}

static void do_double(void *arg, int64_t begin, int64_t end) {
  const work *w = arg;
  const double *x = w->x;
  double *y = w->y;
  for (int64_t i = begin; i < end; i++) y[i] = w->limit * tanh(x[i] / w->limit);
}

/* x row by row as `dtype` in y, then in place. */
static nyx_status compute(nyx_call *c, nyx_dtype dtype, nyx_tensor *y) {
  int64_t n = nyx_tensor_numel(y);
  void *data = nyx_tensor_data(y);
  work w = {.x = data, .y = data, .limit = c->attr[0].f};
  if (nyx_tensor_is_contiguous(c->in[0]) && nyx_tensor_dtype(c->in[0]) == dtype) {
    w.x = nyx_tensor_data(c->in[0]);
  } else {
    nyx_status status =
        nyx_tensor_read(c->ctx, c->in[0], dtype, data, (size_t)n * nyx_dtype_size(dtype));
    if (status != NYX_OK) return status;
  }
  nyx_parallel_for(n, GRAIN, dtype == NYX_FLOAT64 ? do_double : do_float, &w);
  return NYX_OK;
}

/* The input comes with any strides, in the call's dtype. float16 and bfloat16 are
 * computed in float32 and rounded once. */
static nyx_status cpu(nyx_call *c) {
  if (c->dtype == NYX_FLOAT32 || c->dtype == NYX_FLOAT64)
    return compute(c, c->dtype, c->out[0]);
  nyx_tensor *wide;
  nyx_status status = nyx_tensor_empty(c->ctx, NYX_FLOAT32, nyx_tensor_ndim(c->in[0]),
                                       nyx_tensor_shape(c->in[0]), &wide);
  if (status != NYX_OK) return status;
  status = compute(c, NYX_FLOAT32, wide);
  if (status == NYX_OK)
    status = nyx_apply(c->ctx, nyx_op_find("cast"), &wide, 1,
                       (nyx_value[]){NYX_I(c->dtype)}, c->out);
  nyx_tensor_release(wide);
  return status;
}

/* ------------------------------------------------------------------ gradient */

static nyx_status binary(nyx_context *ctx, const char *op, nyx_tensor *a, nyx_tensor *b,
                         nyx_tensor **out) {
  return nyx_apply(ctx, nyx_op_find(op), (nyx_tensor *[]){a, b}, 2, NULL, out);
}

/* dx = g * (1 - (y / limit)^2). Ops of Nyx, so that it has a gradient in its turn; weak
 * scalars leave the dtype as it is. */
static nyx_status gradient(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *limit = NULL, *one = NULL, *ratio = NULL, *square = NULL, *slope = NULL;
  nyx_status status = nyx_tensor_scalar(ctx, b->attr[0].f, NYX_FLOAT64, true, &limit);
  if (status == NYX_OK) status = nyx_tensor_scalar(ctx, 1, NYX_FLOAT64, true, &one);
  if (status == NYX_OK) status = binary(ctx, "div", b->out[0], limit, &ratio);
  if (status == NYX_OK) status = binary(ctx, "mul", ratio, ratio, &square);
  if (status == NYX_OK) status = binary(ctx, "sub", one, square, &slope);
  if (status == NYX_OK)
    status = binary(ctx, "mul", b->grad_out[0], slope, &b->grad_in[0]);
  nyx_tensor *made[] = {limit, one, ratio, square, slope};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++) nyx_tensor_release(made[i]);
  return status;
}

/* ------------------------------------------------------------------ description */

static const nyx_attr attrs[] = {
    {"limit", NYX_ATTR_FLOAT, false, NYX_F(1), "the results' bound, above 0"}};

const nyx_op nyx_example_softclip = {
    .name = "softclip",
    .group = "example",
    .doc =
        "limit * tanh(x / limit): x near 0, bent smoothly to stay within -limit..limit",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .save_out = NYX_SAVE(0),
    .cases = "x(3,4)\nx(2,3); limit=0.5\nx(); limit=3",
};
