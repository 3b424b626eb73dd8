/* complex_mul and complex_div: products and quotients of complex tensors in one pass,
 * which `*` and `/` are where the device has them. Read next: complex.c,
 * kernels/cpu/complex.h. */
#include "../../kernels/cpu/complex.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../tensor/tensor.h"
#include "ops.h"
#include "steps.h"

#define GRAIN 8192 /* numbers that are worth waking a thread for */

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *y = c->in[1];
  int ndim;
  int64_t shape[NYX_MAX_DIMS];
  if (!nyx__broadcast(x->ndim, x->shape, y->ndim, y->shape, &ndim, shape))
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(x), NYX__SHAPE(y));
  nyx__spec(&c->spec[0], c->dtype, ndim, shape);
  return NYX_OK;
}

/* t in the result's shape, row by row; one number stays one. */
static nyx_status operand(nyx_call *c, nyx_tensor *t, nyx_tensor **out) {
  const nyx_tensor *to = c->out[0];
  if (t->numel == 1 || nyx__has_shape(t, to->ndim, to->shape))
    return nyx__contiguous_as(c->ctx, t, c->dtype, out);
  NYX_TRY(nyx_tensor_empty_on(c->ctx, c->device, c->dtype, to->ndim, to->shape, out));
  nyx_status status = nyx__copy_into(c->ctx, t, *out);
  if (status != NYX_OK) {
    nyx_tensor_release(*out);
    *out = NULL;
  }
  return status;
}

typedef struct pass {
  nyx_complex_fn fn;
  const char *x, *y;
  char *to;
  int64_t x_step, y_step, item;
  bool conj;
} pass;

static void run(void *arg, int64_t begin, int64_t end) {
  const pass *p = arg;
  p->fn(end - begin, p->x + begin * p->x_step * p->item, p->x_step,
        p->y + begin * p->y_step * p->item, p->y_step, p->conj, p->to + begin * p->item);
}

static nyx_status compute(nyx_call *c, const nyx_complex_fn fn[2]) {
  nyx_tensor *x = NULL, *y = NULL, *out = c->out[0];
  nyx_status status = operand(c, c->in[0], &x);
  if (status == NYX_OK) status = operand(c, c->in[1], &y);
  if (status == NYX_OK) {
    pass p = {.fn = fn[c->dtype == NYX_COMPLEX128],
              .x = nyx__data(x),
              .y = nyx__data(y),
              .to = nyx__data(out),
              .x_step = x->numel > 1,
              .y_step = y->numel > 1,
              .item = nyx__item(c->dtype),
              .conj = c->attr[0].i != 0};
    nyx_parallel_for(out->numel, GRAIN, run, &p);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return status;
}

static nyx_status multiply(nyx_call *c) {
  return compute(c, nyx__cpu_kernels()->complex->multiply);
}

static nyx_status divide(nyx_call *c) {
  return compute(c, nyx__cpu_kernels()->complex->divide);
}

/* The gradient of input i: g times the conjugate of the other, summed over what was
 * broadcast. */
static nyx_status one_gradient(nyx_backward *b, int i) {
  nyx_tensor *g = b->grad_out[0], *other = b->in[1 - i], *each;
  bool conj = b->attr[0].i != 0;
  const nyx_value turned = NYX_I(i == 1 || !conj);
  nyx_tensor *in[2] = {g, other};
  if (i == 1 && conj) in[0] = other, in[1] = g;
  NYX_TRY(nyx__applyn(b->ctx, NYX__OP_complex_mul, in, 2, &turned, &each));
  nyx_status status = nyx__sum_to(b->ctx, each, &b->in_spec[i], &b->grad_in[i]);
  nyx_tensor_release(each);
  return status;
}

static nyx_status multiply_gradient(nyx_backward *b) {
  for (int i = 0; i < 2; i++)
    if (b->need[i]) NYX_TRY(one_gradient(b, i));
  return NYX_OK;
}

/* Of z = x / y: to x goes g by the conjugate of y, to y that times -z's conjugate; where
 * y is conjugated itself, g / y, and the conjugate of the other. */
static nyx_status divide_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  nyx_tensor *g = b->grad_out[0], *to_x, *to_y;
  const bool conj = b->attr[0].i != 0;
  const nyx_value other = NYX_I(!conj), turned = NYX_I(1);
  nyx_status status = nyx__step(&s, NYX__OP_complex_div, g, b->in[1], &other, &to_x);
  if (status == NYX_OK && b->need[0])
    status = nyx__sum_to(b->ctx, to_x, &b->in_spec[0], &b->grad_in[0]);
  if (status == NYX_OK && b->need[1]) {
    nyx_tensor *z = b->out[0];
    status = nyx__step(&s, NYX__OP_complex_mul, conj ? z : to_x, conj ? to_x : z, &turned,
                       &to_y);
    if (status == NYX_OK) status = nyx__step(&s, NYX__OP_neg, to_y, NULL, NULL, &to_y);
    if (status == NYX_OK)
      status = nyx__sum_to(b->ctx, to_y, &b->in_spec[1], &b->grad_in[1]);
  }
  return nyx__steps_end(&s, status);
}

static const nyx_attr attrs[] = {
    {"conj", NYX_ATTR_BOOL, false, NYX_I(0), "the conjugate of y is the factor"}};

const nyx_op nyx__op_complex_mul = {
    .name = "complex_mul",
    .group = "complex",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "x y of complex tensors, or x times the conjugate of y; x * y is the usual way "
        "to say it",
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .attrs = attrs,
    .n_attrs = 1,
    .infer = infer,
    .cpu = multiply,
    .gradient = multiply_gradient,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .forward = nyx__forward_product,
    .batch = nyx__batch_aligned,
    .cases =
        "x(2,3)<complex64 y(2,3)<complex64\n"
        "x(3,1)<complex64 y(2)<complex64; conj=true\n"
        "x(2,2)<complex64 y(1)<complex64",
};

const nyx_op nyx__op_complex_div = {
    .name = "complex_div",
    .group = "complex",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "x / y of complex tensors, or x by the conjugate of y; x / y is the usual way to "
        "say it. By a number with one infinite part 0; of 1 by 0 inf+nani",
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .attrs = attrs,
    .n_attrs = 1,
    .infer = infer,
    .cpu = divide,
    .gradient = divide_gradient,
    .save_in = NYX_SAVE(1),
    .save_out = NYX_SAVE(0),
    .forward = nyx__forward_quotient,
    .batch = nyx__batch_aligned,
    .cases =
        "x(2,3)<complex64 y(2,3)<complex64\n"
        "x(3,1)<complex64 y(2)<complex64; conj=true\n"
        "x(2,2)<complex64 y(1)<complex64",
};
