/* The gradients of cross_entropy and nll_loss to all inputs, and those of their fused
 * gradient ops, written with ops.
 *
 * Names: class c of a row counts q = w t, where w is the class's weight and t what
 * smoothing leaves of the target; Q is q of all classes together, p = softmax(x), D what
 * the mean divides by (labels: the sum of their weights), s = g / D. Then the loss is
 * sum(q (logsumexp(x) - x)) / D and its gradient to x is s (Q p - q). For nll_loss p and
 * the logarithm are 0. Read next: loss.c. */
#include "loss.h"

#include "../grad/graph.h"
#include "reduce.h"

/* Tensors that broadcast against x. Labels become `hot`, 1 at the label's class. */
typedef struct loss_parts {
  nyx_context *ctx;
  nyx__loss loss;
  nyx_spec x_spec;
  nyx_tensor *x; /* borrowed */
  nyx_tensor *hot, *valid, *w, *t, *q, *divisor, *s;
  nyx_tensor *p, *total; /* filled where needed: softmax(x), Q */
} loss_parts;

static nyx_status evaluate(const loss_parts *k, const char *text, nyx_tensor *g,
                           nyx_tensor *x, nyx_tensor *y, nyx_tensor *z,
                           nyx_tensor **out) {
  const double attr[2] = {1 - k->loss.smoothing,
                          k->loss.smoothing / (double)k->loss.classes};
  return nyx__evaluate(k->ctx, text, (nyx_tensor *[]){g, x, y, z, NULL}, attr, out);
}

static nyx_status number(const loss_parts *k, double value, nyx_tensor **out) {
  return nyx_tensor_scalar(k->ctx, value, NYX_FLOAT64, true, out);
}

/* *t = *t as a tensor of x's dtype. */
static nyx_status to_float(const loss_parts *k, nyx_tensor **t) {
  const nyx_value dtype = NYX_I(k->x->dtype);
  nyx_tensor *cast;
  NYX_TRY(nyx__apply1(k->ctx, NYX__OP_cast, *t, &dtype, &cast));
  nyx_tensor_release(*t);
  *t = cast;
  return NYX_OK;
}

/* The sum over classes, with size 1 there. */
static nyx_status class_sum(const loss_parts *k, nyx_tensor *t, nyx_tensor **out) {
  const int64_t dim = k->loss.class_dim;
  const nyx_value attrs[] = {NYX_LIST(&dim, 1), NYX_I(1)};
  return nyx__apply1(k->ctx, NYX__OP_sum, t, attrs, out);
}

/* The shape (classes, 1, ...) that broadcasts against x. */
static void class_spec(const loss_parts *k, nyx_spec *spec) {
  int64_t shape[NYX_MAX_DIMS];
  int ndim = k->x_spec.ndim - k->loss.class_dim;
  for (int d = 0; d < ndim; d++) shape[d] = d ? 1 : k->loss.classes;
  nyx__spec(spec, k->x_spec.dtype, ndim, shape);
}

/* The labels of classes: base, base + 1, ... */
static nyx_status class_labels(const loss_parts *k, nyx_tensor **out) {
  nyx_spec spec;
  class_spec(k, &spec);
  NYX_TRY(nyx_tensor_empty(k->ctx, NYX_INT64, spec.ndim, spec.shape, out));
  int64_t *label = nyx__data(*out);
  for (int64_t c = 0; c < k->loss.classes; c++) label[c] = c + k->ctx->index_base;
  return NYX_OK;
}

/* hot and valid from labels, which have x's dimensions, with one class. */
static nyx_status read_labels(loss_parts *k, nyx_tensor *label) {
  nyx_context *ctx = k->ctx;
  nyx_tensor *classes, *ignore, *hot;
  NYX_TRY(class_labels(k, &classes));
  nyx_status status = nyx__apply2(ctx, NYX__OP_eq, label, classes, NULL, &k->hot);
  nyx_tensor_release(classes);
  if (status != NYX_OK) return status;
  if (!k->loss.ignores) return to_float(k, &k->hot);
  NYX_TRY(nyx_tensor_empty(ctx, NYX_INT64, 0, NULL, &ignore));
  *(int64_t *)nyx__data(ignore) = k->loss.ignore;
  status = nyx__apply2(ctx, NYX__OP_ne, label, ignore, NULL, &k->valid);
  nyx_tensor_release(ignore);
  if (status != NYX_OK) return status;
  NYX_TRY(nyx__apply2(ctx, NYX__OP_logical_and, k->hot, k->valid, NULL, &hot));
  nyx_tensor_release(k->hot);
  k->hot = hot;
  NYX_TRY(to_float(k, &k->hot));
  return to_float(k, &k->valid);
}

static nyx_status read_divisor(loss_parts *k) {
  bool mean = k->loss.reduction == NYX__LOSS_MEAN;
  if (!mean || k->loss.probabilities)
    return number(k, mean ? (double)k->loss.rows : 1, &k->divisor);
  nyx_tensor *weights;
  NYX_TRY(nyx__apply2(k->ctx, NYX__OP_mul, k->w, k->hot, NULL, &weights));
  nyx_status status = nyx__apply1(k->ctx, NYX__OP_sum, weights, NULL, &k->divisor);
  nyx_tensor_release(weights);
  return status;
}

static nyx_status fill_parts(loss_parts *k, nyx_tensor *g, nyx_tensor *target,
                             nyx_tensor *weight) {
  nyx_context *ctx = k->ctx;
  uint32_t dims = 1u << k->loss.class_dim;
  if (weight) {
    nyx_spec spec;
    class_spec(k, &spec);
    const nyx_value shape = NYX_LIST(spec.shape, spec.ndim);
    NYX_TRY(nyx__apply1(ctx, NYX__OP_reshape, weight, &shape, &k->w));
  } else {
    NYX_TRY(number(k, 1, &k->w));
  }
  if (k->loss.probabilities) {
    k->hot = nyx_tensor_retain(target);
    NYX_TRY(to_float(k, &k->hot));
  } else {
    nyx_tensor *label;
    NYX_TRY(nyx__keep_dims(ctx, target, &k->x_spec, dims, &label));
    nyx_status status = read_labels(k, label);
    nyx_tensor_release(label);
    if (status != NYX_OK) return status;
  }
  if (!k->valid) NYX_TRY(number(k, 1, &k->valid));
  if (k->loss.smoothing == 0)
    k->t = nyx_tensor_retain(k->hot);
  else
    NYX_TRY(evaluate(k, "p * x + q * y", NULL, k->hot, k->valid, NULL, &k->t));
  NYX_TRY(nyx__apply2(ctx, NYX__OP_mul, k->w, k->t, NULL, &k->q));
  NYX_TRY(read_divisor(k));
  nyx_tensor *each;
  if (k->loss.reduction == NYX__LOSS_NONE)
    NYX_TRY(nyx__keep_dims(ctx, g, &k->x_spec, dims, &each));
  else
    each = nyx_tensor_retain(g);
  nyx_status status = nyx__apply2(ctx, NYX__OP_div, each, k->divisor, NULL, &k->s);
  nyx_tensor_release(each);
  return status;
}

static void release_parts(loss_parts *k) {
  nyx_tensor *all[] = {k->hot,     k->valid, k->w, k->t,    k->q,
                       k->divisor, k->s,     k->p, k->total};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) nyx_tensor_release(all[i]);
}

static nyx_status open_parts(nyx_backward *b, nyx_tensor *g, nyx_tensor *x,
                             nyx_tensor *target, nyx_tensor *weight, loss_parts *k) {
  *k = (loss_parts){.ctx = b->ctx, .x = x};
  nyx__spec_of(x, &k->x_spec);
  NYX_TRY(nyx__loss_read(b->ctx, b->op, x, target, b->attr, &k->loss));
  nyx_status status = fill_parts(k, g, target, weight);
  if (status != NYX_OK) release_parts(k);
  return status;
}

/* The gradient to the target, from dq, that to q. */
static nyx_status target_gradient(const loss_parts *k, nyx_tensor *dq, nyx_dtype dtype,
                                  nyx_tensor **out) {
  const nyx_value to = NYX_I(dtype);
  nyx_tensor *wide;
  NYX_TRY(evaluate(k, "p * g * x", dq, k->w, NULL, NULL, &wide));
  nyx_status status = nyx__apply1(k->ctx, NYX__OP_cast, wide, &to, out);
  nyx_tensor_release(wide);
  return status;
}

/* That to the weights: through q, and through D where dd, that to it, is given. */
static nyx_status weight_gradient(const loss_parts *k, nyx_tensor *dq, nyx_tensor *dd,
                                  nyx_tensor **out) {
  nyx_spec spec;
  nyx_tensor *each, *sum;
  class_spec(k, &spec);
  NYX_TRY(evaluate(k, dd ? "g * x + y * z" : "g * x", dq, k->t, dd, k->hot, &each));
  nyx_status status = nyx__sum_to(k->ctx, each, &spec, &sum);
  nyx_tensor_release(each);
  if (status != NYX_OK) return status;
  const nyx_value shape = NYX_LIST(&k->loss.classes, 1);
  status = nyx__apply1(k->ctx, NYX__OP_reshape, sum, &shape, out);
  nyx_tensor_release(sum);
  return status;
}

/* Gradients to target and weight, as far as they are wanted. */
static nyx_status spread(const loss_parts *k, nyx_backward *b, int target, nyx_tensor *dq,
                         nyx_tensor *dd) {
  if (b->need[target] && k->loss.probabilities)
    NYX_TRY(target_gradient(k, dq, b->in_spec[target].dtype, &b->grad_in[target]));
  if (b->need[target + 1]) NYX_TRY(weight_gradient(k, dq, dd, &b->grad_in[target + 1]));
  return NYX_OK;
}

/* dq = s (logsumexp(x) - x), dD = -loss g / D. */
static nyx_status loss_spread(loss_parts *k, nyx_backward *b) {
  const nyx_value dim = NYX_I(k->loss.class_dim);
  nyx_tensor *logs, *dq = NULL, *dd = NULL;
  if (k->loss.log_probabilities)
    logs = nyx_tensor_retain(k->x);
  else
    NYX_TRY(nyx__apply1(k->ctx, NYX__OP_log_softmax, k->x, &dim, &logs));
  nyx_status status = evaluate(k, "-(g * x)", k->s, logs, NULL, NULL, &dq);
  if (status == NYX_OK && k->loss.reduction == NYX__LOSS_MEAN && !k->loss.probabilities)
    status = evaluate(k, "-(g * x)", k->s, b->out[0], NULL, NULL, &dd);
  if (status == NYX_OK) status = spread(k, b, 1, dq, dd);
  nyx_tensor_release(logs);
  nyx_tensor_release(dq);
  nyx_tensor_release(dd);
  return status;
}

nyx_status nyx__loss_gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0];
  if (!g) return NYX_OK;
  bool log_probabilities = b->op->n_attrs <= NYX__LOSS_SMOOTHING;
  if (b->need[0])
    NYX_TRY(nyx__applyn(
        b->ctx,
        log_probabilities ? NYX__OP_nll_loss_backward : NYX__OP_cross_entropy_backward,
        (nyx_tensor *[]){g, b->in[0], b->in[1], b->in[2]}, 4, b->attr, &b->grad_in[0]));
  if (!b->need[1] && !b->need[2]) return NYX_OK;
  loss_parts k;
  NYX_TRY(open_parts(b, g, b->in[0], b->in[1], b->in[2], &k));
  nyx_status status = loss_spread(&k, b);
  release_parts(&k);
  return status;
}

/* The gradients of s (Q p - q), where u arrives, r = sum(u p) over classes, and `row` is
 * sum(u (Q p - q)) over classes, the gradient to s. */

static nyx_status to_g(const loss_parts *k, nyx_backward *b, nyx_tensor *row) {
  const nyx_value shape = NYX_LIST(b->in_spec[0].shape, b->in_spec[0].ndim);
  nyx_tensor *each, *sum;
  NYX_TRY(nyx__apply2(k->ctx, NYX__OP_div, row, k->divisor, NULL, &each));
  nyx_status status;
  if (k->loss.reduction == NYX__LOSS_NONE)
    status = nyx__apply1(k->ctx, NYX__OP_reshape, each, &shape, &b->grad_in[0]);
  else if ((status = nyx__apply1(k->ctx, NYX__OP_sum, each, NULL, &sum)) == NYX_OK)
    b->grad_in[0] = sum;
  nyx_tensor_release(each);
  return status;
}

/* s Q p (u - r) */
static nyx_status to_x(const loss_parts *k, nyx_backward *b, nyx_tensor *r) {
  nyx_tensor *scaled;
  NYX_TRY(evaluate(k, "g * x * y", k->s, k->total, k->p, NULL, &scaled));
  nyx_status status =
      evaluate(k, "x * (g - y)", b->grad_out[0], scaled, r, NULL, &b->grad_in[1]);
  nyx_tensor_release(scaled);
  return status;
}

/* dq = s (r - u), dD = -sum(s row) / D; r is NULL for nll_loss. */
static nyx_status backward_spread(const loss_parts *k, nyx_backward *b, nyx_tensor *r,
                                  nyx_tensor *row) {
  nyx_tensor *dq = NULL, *dd = NULL, *each = NULL, *sum = NULL;
  nyx_status status =
      evaluate(k, r ? "g * (x - y)" : "-(g * y)", k->s, r, b->grad_out[0], NULL, &dq);
  if (k->loss.reduction == NYX__LOSS_MEAN && !k->loss.probabilities) {
    if (status == NYX_OK)
      status = nyx__apply2(k->ctx, NYX__OP_mul, k->s, row, NULL, &each);
    if (status == NYX_OK) status = nyx__apply1(k->ctx, NYX__OP_sum, each, NULL, &sum);
    if (status == NYX_OK)
      status = evaluate(k, "-(x / y)", NULL, sum, k->divisor, NULL, &dd);
  }
  if (status == NYX_OK) status = spread(k, b, 2, dq, dd);
  nyx_tensor_release(dq);
  nyx_tensor_release(dd);
  nyx_tensor_release(each);
  nyx_tensor_release(sum);
  return status;
}

/* *out = the sum of a * b over classes. */
static nyx_status class_dot(const loss_parts *k, nyx_tensor *x, nyx_tensor *y,
                            nyx_tensor **out) {
  nyx_tensor *product;
  NYX_TRY(nyx__apply2(k->ctx, NYX__OP_mul, x, y, NULL, &product));
  nyx_status status = class_sum(k, product, out);
  nyx_tensor_release(product);
  return status;
}

static nyx_status backward_gradients(loss_parts *k, nyx_backward *b) {
  nyx_tensor *u = b->grad_out[0], *r = NULL, *uq = NULL, *row = NULL;
  const nyx_value dim = NYX_I(k->loss.class_dim);
  nyx_status status = class_dot(k, u, k->q, &uq);
  if (k->loss.log_probabilities) {
    if (status == NYX_OK) status = nyx__apply1(k->ctx, NYX__OP_neg, uq, NULL, &row);
  } else {
    if (status == NYX_OK)
      status = nyx__apply1(k->ctx, NYX__OP_softmax, k->x, &dim, &k->p);
    if (status == NYX_OK) status = class_sum(k, k->q, &k->total);
    if (status == NYX_OK) status = class_dot(k, u, k->p, &r);
    if (status == NYX_OK) status = evaluate(k, "x * y - z", NULL, k->total, r, uq, &row);
    if (status == NYX_OK && b->need[1]) status = to_x(k, b, r);
  }
  if (status == NYX_OK && b->need[0]) status = to_g(k, b, row);
  if (status == NYX_OK && (b->need[2] || b->need[3]))
    status = backward_spread(k, b, r, row);
  nyx_tensor_release(r);
  nyx_tensor_release(uq);
  nyx_tensor_release(row);
  return status;
}

nyx_status nyx__loss_backward_gradient(nyx_backward *b) {
  if (!b->grad_out[0]) return NYX_OK;
  loss_parts k;
  NYX_TRY(open_parts(b, b->in[0], b->in[1], b->in[2], b->in[3], &k));
  nyx_status status = backward_gradients(&k, b);
  release_parts(&k);
  return status;
}
