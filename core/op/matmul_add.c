/* matmul_add: a product and what is added to it, both with factors, in one pass over the
 * result. What addmm, baddbmm and addbmm are made of (lua/nyx/products.lua). Read next:
 * matmul.h, core/linalg/epilogue.h. */
#include "../tensor/tensor.h"
#include "index.h"
#include "matmul.h"
#include "steps.h"

enum { X, A, B, INPUTS };
enum { BETA, ALPHA, ATTRS };

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[X];
  nyx_spec *spec = &c->spec[0];
  nyx_call product = *c;
  int ndim;
  int64_t shape[NYX_MAX_DIMS];
  for (int i = A; i <= B; i++)
    if (c->in[i]->ndim < 2)
      return nyx__error(c->ctx, NDIM_EXPECTED, i == A ? "a" : "b", NYX__SHAPE(c->in[i]),
                        "2 dimensions or more (..., rows, columns)");
  product.in = c->in + A;
  NYX_TRY(nyx__op_matmul.infer(&product));
  *spec = product.spec[0];
  bool fits = nyx__broadcast(x->ndim, x->shape, spec->ndim, spec->shape, &ndim, shape);
  fits = fits && ndim == spec->ndim;
  for (int d = 0; fits && d < ndim; d++) fits = shape[d] == spec->shape[d];
  if (fits) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(c->ctx, ADDED_SHAPE, NYX__SHAPE(x),
                    nyx__shape_text(spec->ndim, spec->shape, text, sizeof text));
}

/* Whether x has one row for all rows of the result. */
static bool one_row(const nyx_tensor *x, const nyx_tensor *out) {
  for (int d = 0; d < x->ndim - 1; d++)
    if (x->shape[d] != 1) return false;
  return x->ndim > 0 && x->shape[x->ndim - 1] == out->shape[out->ndim - 1];
}

static nyx_status cpu(nyx_call *c) {
  const double beta = c->attr[BETA].f, alpha = c->attr[ALPHA].f;
  const double factors[] = {alpha, beta};
  nyx_tensor *out = c->out[0], *x = NULL;
  nyx__finish finish = {.bias = NULL};
  nyx_status status = NYX_OK;
  if (beta == 1 && alpha == 1 && one_row(c->in[X], out)) {
    finish.bias = c->in[X];
  } else {
    status = nyx__expanded(c->ctx, c->in[X], out->ndim, out->shape, &x);
    if (beta == 1 && alpha == 1) {
      finish.residual = x;
    } else {
      finish.activation = nyx__op(NYX__OP_axpby);
      finish.attr = factors;
      finish.other = x;
    }
  }
  if (status == NYX_OK) status = nyx__product(c->ctx, c->in[A], c->in[B], &finish, out);
  nyx_tensor_release(x);
  return status;
}

static nyx_status gradients(nyx__steps *s, nyx_backward *b) {
  const nyx_value beta = b->attr[BETA], alpha = b->attr[ALPHA];
  nyx_tensor *g = b->grad_out[0], *scaled = g;
  if (b->need[X]) {
    if (beta.f != 1) NYX_TRY(nyx__step_text(s, "x * p", g, NULL, beta.f, &scaled));
    NYX_TRY(nyx__sum_to(s->ctx, scaled, &b->in_spec[X], &b->grad_in[X]));
  }
  if (!b->need[A] && !b->need[B]) return NYX_OK;
  if (alpha.f != 1) NYX_TRY(nyx__step_text(s, "x * p", g, NULL, alpha.f, &g));
  nyx_backward product = *b;
  product.op = &nyx__op_matmul;
  product.n_in = 2;
  product.in = b->in + A;
  product.in_spec = b->in_spec + A;
  product.need = b->need + A;
  product.grad_in = b->grad_in + A;
  product.grad_out = &g;
  return nyx__op_matmul.gradient(&product);
}

static nyx_status gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  if (!b->grad_out[0]) return NYX_OK;
  return nyx__steps_end(&s, gradients(&s, b));
}

/* One product for all entries is added to what each of them has. */
static nyx_status batch(nyx_batch *b) {
  if (b->batched[A] || b->batched[B]) return nyx__batch_aligned(b);
  const nyx_value factors[] = {b->attr[BETA], b->attr[ALPHA]};
  nyx_tensor *x = NULL, *product = NULL;
  nyx_status status =
      nyx__apply2(b->ctx, NYX__OP_matmul, b->in[A], b->in[B], NULL, &product);
  if (status == NYX_OK) status = nyx__batch_align(b, X, b->spec[0].ndim, &x);
  if (status == NYX_OK)
    status = nyx__apply2(b->ctx, NYX__OP_axpby, x, product, factors, &b->out[0]);
  nyx_tensor_release(x);
  nyx_tensor_release(product);
  return status;
}

static const nyx_attr attrs[ATTRS] = {{.name = "beta",
                                       .type = NYX_ATTR_FLOAT,
                                       .preset = {.f = 1, .given = true},
                                       .doc = "what x is multiplied by"},
                                      {.name = "alpha",
                                       .type = NYX_ATTR_FLOAT,
                                       .preset = {.f = 1, .given = true},
                                       .doc = "what the product is multiplied by"}};

const nyx_op nyx__op_matmul_add = {
    .name = "matmul_add",
    .group = "linear algebra",
    .doc =
        "beta * x + alpha * (a @ b) of matrices a and b, whose leading dimensions are "
        "batches and broadcast; x broadcasts to the product. See addmm.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x a b",
    .min_in = INPUTS,
    .max_in = INPUTS,
    .attrs = attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .overwrites = true,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .save_in = NYX_SAVE(A) | NYX_SAVE(B),
    .batch = batch,
    .cases =
        "x(3,5) a(3,4) b(4,5)\n"
        "x(3,5) a(3,4) b(4,5); beta=0.5 alpha=2\n"
        "x(5) a(3,4) b(4,5)\n"
        "x(3,1) a(2,3,4) b(2,4,5); alpha=-1\n"
        "x(1) a(2,0) b(0,3)",
};
