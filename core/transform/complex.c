/* The complex step (Squire and Trapp 1998; Martins, Sturdza and Alonso 2003): where
 * h is so small that its square vanishes beside 1, Im f(x + i h v) / h is the derivative
 * of f along v, without the subtraction that costs central differences half of their
 * digits. A complex number is a dual whose tangent is the imaginary part (lift.h).
 * Gradients take no part in finding it, so they can be checked against it. Read next:
 * ../grad/expression.c, which computes the texts of rows with complex numbers. */
#include "../grad/graph.h"
#include "lift.h"

/* The imaginary part of what the texts of rows are made of, as a text itself: of
 * f(x + i g), or f(x + i g, y + i z), with the real result r. Real parts decide where a
 * function has cases. Empty: constant between steps. Inverse functions as in Kahan,
 * "Branch cuts for complex elementary functions" (1987): no term cancels another. */
static const struct {
  nyx__op_id id;
  const char *text;
} formulas[] = {
    {NYX__OP_add, "g + z"},
    {NYX__OP_sub, "g - z"},
    {NYX__OP_mul, "x * z + g * y"},
    {NYX__OP_div, "(g * y - x * z) / (y * y + z * z)"},
    {NYX__OP_neg, "-g"},
    {NYX__OP_abs, "g * nyx_sign(x)"},
    {NYX__OP_square, "x * g + g * x"},
    {NYX__OP_reciprocal, "-g / (x * x + g * g)"},
    {NYX__OP_sqrt, "g / (r + r)"},
    {NYX__OP_rsqrt,
     "-(g / (K(2) * nyx_sqrt(x))) / (x + nyx_square(g / (K(2) * "
     "nyx_sqrt(x))))"},
    {NYX__OP_hypot, "(x * g + y * z) / r"},
    /* r sin(Im(w log u)), of -u where u is negative: there w is an integer */
    {NYX__OP_pow,
     "nyx_select(nyx_eq(x, K(0)), nyx_pow(nyx_abs(g), y), r) * nyx_sin(y * "
     "nyx_atan2(nyx_select(nyx_lt(x, K(0)), -g, g), nyx_abs(x)) + nyx_select(nyx_eq(r, "
     "K(0)), K(0), nyx_xlogy(z, nyx_abs(x))))"},
    {NYX__OP_minimum, "nyx_select(nyx_lt(y, x), z, g)"},
    {NYX__OP_maximum, "nyx_select(nyx_gt(y, x), z, g)"},
    {NYX__OP_fmod, "g - z * nyx_trunc(x / y)"},
    {NYX__OP_remainder, "g - z * nyx_floor_divide(x, y)"},
    {NYX__OP_floor_divide, ""},
    {NYX__OP_sign, ""},
    {NYX__OP_exponent, ""},
    {NYX__OP_nextafter, ""},
    {NYX__OP_floor, ""},
    {NYX__OP_ceil, ""},
    {NYX__OP_round, ""},
    {NYX__OP_trunc, ""},
    {NYX__OP_where, "nyx_select(nyx_ne(x, K(0)), y, z)"}, /* y z: imaginary parts */
    {NYX__OP_exp, "r * nyx_sin(g)"},
    {NYX__OP_exp2, "r * nyx_sin(g * K(0.69314718055994530942))"},
    {NYX__OP_expm1, "nyx_exp(x) * nyx_sin(g)"},
    {NYX__OP_log, "nyx_atan2(g, x)"},
    {NYX__OP_log1p, "nyx_atan2(g, K(1) + x)"},
    {NYX__OP_log2, "nyx_atan2(g, x) * K(1.44269504088896340736)"},
    {NYX__OP_log10, "nyx_atan2(g, x) * K(0.43429448190325182765)"},
    {NYX__OP_sin, "nyx_cos(x) * nyx_sinh(g)"},
    {NYX__OP_cos, "-(nyx_sin(x) * nyx_sinh(g))"},
    {NYX__OP_tan,
     "nyx_sinh(g) * nyx_cosh(g) / (nyx_square(nyx_cos(x)) + "
     "nyx_square(nyx_sinh(g)))"},
    {NYX__OP_asin,
     "nyx_asinh(g * nyx_sqrt(K(1) - x) / (K(2) * nyx_sqrt(K(1) + x)) + g * "
     "nyx_sqrt(K(1) + x) / (K(2) * nyx_sqrt(K(1) - x)))"},
    {NYX__OP_acos,
     "-nyx_asinh(g * nyx_sqrt(K(1) - x) / (K(2) * nyx_sqrt(K(1) + x)) + g * "
     "nyx_sqrt(K(1) + x) / (K(2) * nyx_sqrt(K(1) - x)))"},
    {NYX__OP_atan, "K(0.25) * nyx_log1p(K(4) * g / (x * x + nyx_square(K(1) - g)))"},
    {NYX__OP_atan2,
     "K(-0.25) * nyx_log1p(K(4) * (x * z - g * y) / (nyx_square(y + g) + "
     "nyx_square(z - x)))"},
    {NYX__OP_sinh, "nyx_cosh(x) * nyx_sin(g)"},
    {NYX__OP_cosh, "nyx_sinh(x) * nyx_sin(g)"},
    {NYX__OP_tanh,
     "nyx_sin(g) * nyx_cos(g) / (nyx_square(nyx_sinh(x)) + "
     "nyx_square(nyx_cos(g)))"},
    {NYX__OP_asinh,
     "nyx_asin(K(2) * g / (nyx_hypot(x, K(1) + g) + nyx_hypot(x, K(1) - "
     "g)))"},
    {NYX__OP_acosh,
     "K(2) * nyx_atan2(g / (K(2) * nyx_sqrt(x - K(1))), nyx_sqrt(x + "
     "K(1)))"},
    {NYX__OP_atanh, "K(0.5) * nyx_atan2(g + g, (K(1) - x) * (K(1) + x) - g * g)"},
    /* (1 + tanh(u / 2)) / 2 */
    {NYX__OP_sigmoid,
     "K(0.5) * nyx_sin(K(0.5) * g) * nyx_cos(K(0.5) * g) / "
     "(nyx_square(nyx_sinh(K(0.5) * x)) + nyx_square(nyx_cos(K(0.5) * "
     "g)))"},
    /* the integral that defines erf, along the way from x to x + i g */
    {NYX__OP_erf, "K(1.12837916709551257390) * nyx_exp(-(x * x)) * g"},
    {NYX__OP_erfc, "K(-1.12837916709551257390) * nyx_exp(-(x * x)) * g"},
    /* others along the same way: their derivatives, one step of a recurrence away */
    {NYX__OP_erfinv, "K(0.88622692545275801365) * nyx_exp(r * r) * g"},
    {NYX__OP_lgamma, "g * (nyx_digamma(x + K(1)) - K(1) / x)"},
    {NYX__OP_digamma, "g * (nyx_zeta(K(2), x + K(1)) + K(1) / (x * x))"},
    {NYX__OP_zeta, "-(x * z) * (nyx_zeta(x + K(1), y + K(1)) + nyx_pow(y, -(x + K(1))))"},
    {NYX__OP_i0, "g * nyx_i1(x)"},
    {NYX__OP_i0e, "g * (nyx_i1(x) - nyx_sign(x) * nyx_i0(x)) * nyx_exp(-nyx_abs(x))"},
    {NYX__OP_i1, "g * (nyx_i0(x) - r / x)"},
    {NYX__OP_i1e,
     "g * ((nyx_i0(x) - nyx_i1(x) / x) * nyx_exp(-nyx_abs(x)) - nyx_sign(x) * r)"},
    {NYX__OP_ndtr, "K(0.39894228040143267794) * nyx_exp(K(-0.5) * x * x) * g"},
};

static nyx_tensor *part(const nyx__pair *in, int i, int n, nyx_tensor *zero) {
  return i >= n ? NULL : in[i].im ? in[i].im : zero;
}

nyx_status nyx__imaginary_part(nyx_context *ctx, const nyx_op *op, const nyx__pair *in,
                               int n, nyx_tensor *re, nyx_tensor **out) {
  const char *text = NULL;
  *out = NULL;
  if (!nyx_dtype_is_float(re->dtype)) return NYX_OK;
  for (size_t i = 0; i < sizeof formulas / sizeof *formulas; i++)
    if (op == nyx__op(formulas[i].id)) text = formulas[i].text;
  if (!text) return nyx__error(ctx, COMPLEX_RULE, op->name);
  if (!*text) return NYX_OK;
  nyx_tensor *zero;
  NYX_TRY(nyx_tensor_scalar(ctx, 0, NYX_FLOAT64, true, &zero));
  nyx_tensor *value[5] = {part(in, 0, n, zero), in[0].re, n > 1 ? in[1].re : NULL,
                          part(in, 1, n, zero), re};
  if (n == 3) { /* where */
    value[2] = part(in, 1, n, zero);
    value[3] = part(in, 2, n, zero);
  }
  nyx_status status = nyx__evaluate(ctx, text, value, (double[]){0, 0}, out);
  nyx_tensor_release(zero);
  return status;
}

nyx_status nyx__imaginary_parts(nyx_dual *d) {
  bool any = false, floats = false; /* results like x > y have none */
  for (int i = 0; i < d->n_in; i++) any |= d->tangent[i] != NULL;
  for (int k = 0; k < d->n_out; k++) {
    nyx_dtype dtype = d->out[k]->dtype;
    if (!any || !nyx__has_gradient(dtype)) continue;
    if (nyx_dtype_real(dtype) != NYX_FLOAT64)
      return nyx__error(d->ctx, COMPLEX_DTYPE, nyx_dtype_name(dtype));
    floats = true;
  }
  if (!any || !floats) return NYX_OK;
  if (d->op->kind == NYX_OP_ELEMENTWISE) return nyx__row_complex(d);
  bool rule = d->op->kind == NYX_OP_VIEW || d->op->forward == nyx__forward_linear ||
              d->op->forward == nyx__forward_product ||
              d->op->forward == nyx__forward_quotient;
  return rule ? d->op->forward(d) : nyx__error(d->ctx, COMPLEX_RULE, d->op->name);
}
