/* inverse: by the factors of the transpose, which a row-major matrix is for LAPACK. Read
 * next: factor.h, solve.c. */
#include <string.h>

#include "../device/device.h"
#include "factor.h"

static nyx_status inverse_infer(nyx_call *c) {
  NYX_TRY(nyx__matrix_check(c->ctx, "a", c->in[0], true));
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

/* `ints`: pivots of all matrices, and info of each. */
static nyx_status invert(nyx_call *c, nyx_tensor *factors, int *ints) {
  nyx_tensor *out = c->out[0];
  const int64_t count = nyx__matrices(out), n = nyx__rows(out);
  int *info = ints + count * n;
  NYX_TRY(nyx__copy_into(c->ctx, c->in[0], factors));
  NYX_TRY(nyx__inverse(c->ctx, out->dtype, count, n, nyx__data(factors), ints, info,
                       nyx__data(out)));
  const int64_t entry = nyx__flawed(out, info);
  char text[NYX__MATRIX_TEXT];
  if (entry < 0) return NYX_OK;
  return nyx__error(c->ctx, SINGULAR, nyx__matrix_text(c->ctx, out, entry, text),
                    (long long)(info[entry] - 1 + c->ctx->index_base),
                    "the U of its transpose's LU factorization");
}

static nyx_status inverse_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *factors = NULL;
  int *ints = NULL;
  nyx_spec spec;
  if (out->numel == 0) return NYX_OK;
  nyx__spec(&spec, out->dtype, out->ndim, out->shape);
  NYX_TRY(nyx__tensor_of(c->ctx, c->device, &spec, &factors));
  nyx_status status = nyx__ints(c->ctx, nyx__matrices(out) * (nyx__rows(out) + 1), &ints);
  if (status == NYX_OK) status = invert(c, factors, ints);
  nyx_memory_free(ints);
  nyx_tensor_release(factors);
  return status;
}

/* -Y^T G Y^T (Giles: "Collected matrix derivative results for forward and reverse mode
 * algorithmic differentiation", 2008, 2.2.3). */
static nyx_status gradient_of_inverse(nyx__steps *s, nyx_backward *b) {
  nyx_tensor *y = b->out[0], *t;
  NYX_TRY(nyx__step_product(s, y, true, b->grad_out[0], false, &t));
  NYX_TRY(nyx__step_product(s, t, false, y, true, &t));
  NYX_TRY(nyx__step(s, NYX__OP_neg, t, NULL, NULL, &t));
  b->grad_in[0] = nyx_tensor_retain(t);
  return NYX_OK;
}

static nyx_status inverse_gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  return nyx__steps_end(&s, gradient_of_inverse(&s, b));
}

const nyx_op nyx__op_inverse = {
    .name = "inverse",
    .group = "linear algebra",
    .doc =
        "The inverses of matrices a (..., n, n), by LU with partial pivoting. An error "
        "names the first matrix that is singular. To solve a x = b, linalg.solve is "
        "faster and more accurate.",
    .kind = NYX_OP_STRUCTURAL,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .infer = inverse_infer,
    .cpu = inverse_cpu,
    .gradient = inverse_gradient,
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_leading,
    .cases = "a(3,3)<regular\na(2,4,4)<regular\na(2,0,0)",
    .domain = {-2, 2},
};
