/* Complex tensors. Two floats side by side are a number, so every view, copy and cast
 * serves them as it is; what computes is made here from ops on their parts, which record
 * themselves: gradients, transforms and devices need nothing of their own. The gradient
 * of z is dL/dRe z + i dL/dIm z, as in PyTorch (the conjugate Wirtinger derivative).
 * Read next: complex_steps.h, apply.c (where ops come here), complex_views.c. */
#include "complex.h"

#include <math.h>
#include <nyx/grad.h>
#include <string.h>

#include "../device/device.h"
#include "complex_steps.h"
#include "reduce.h"

/* x with a last dimension of one, beside pairs. */
static nyx_tensor *beside(scratch *s, nyx_tensor *x) {
  const nyx_value last = NYX_I(-1);
  return x->ndim == 0 ? x : ops(s, NYX__OP_unsqueeze, &x, 1, &last);
}

/* What ops are for complex numbers */

/* Whether input i is a number among those that have a common dtype, not a position or a
 * mask. */
static bool takes_part(const nyx_call *c, int i) {
  bool index = i < 32 && c->op->index_in & NYX_SAVE(i);
  return !index && c->op->promotion != NYX_PROMOTE_NONE;
}

/* "value" is a real number: the imaginary part gets 0. */
static void leave_value_out(const nyx_op *op, nyx_value *attr) {
  for (int i = 0; i < op->n_attrs; i++)
    if (attr[i].given && op->attrs[i].type == NYX_ATTR_FLOAT &&
        strcmp(op->attrs[i].name, "value") == 0)
      attr[i].f = 0;
}

/* The same for both parts: what moves elements or adds them up. */
static nyx_tensor *by_parts(scratch *s, const nyx_call *c) {
  nyx_tensor *in[NYX_MAX_INPUTS], *own[NYX_MAX_INPUTS], *half[2];
  nyx_value attr[NYX_MAX_ATTRS];
  for (int i = 0; i < c->op->n_attrs; i++) attr[i] = c->attr[i];
  for (int i = 0; i < c->n_in; i++)
    in[i] = takes_part(c, i) ? converted(s, c->in[i]) : c->in[i];
  for (int k = 0; k < 2; k++) {
    for (int i = 0; i < c->n_in; i++)
      own[i] = is_complex(in[i]) ? part(s, in[i], k) : in[i];
    if (k == 1) leave_value_out(c->op, attr);
    half[k] = ops(s, s->id, own, c->n_in, attr);
  }
  return join(s, half[0], half[1]);
}

/* Whether pairs of it have a dimension too many. */
static bool most_dims(const nyx_tensor *t) {
  return t && t->ndim == NYX_MAX_DIMS;
}

/* The same for pairs: sums, negation, copies. */
static nyx_tensor *by_pairs(scratch *s, const nyx_call *c) {
  nyx_tensor *in[NYX_MAX_INPUTS];
  for (int i = 0; i < c->n_in; i++)
    if (most_dims(c->in[i])) return by_parts(s, c);
  for (int i = 0; i < c->n_in; i++)
    if (!(in[i] = pairs_of(s, c->in[i]))) return NULL;
  return numbers_of(s, ops(s, s->id, in, c->n_in, c->attr));
}

/* Sums over dimensions of the pairs; the last is not one of them. */
static nyx_tensor *sum_of_pairs(scratch *s, const nyx_call *c) {
  nyx_tensor *x = c->in[0];
  nyx_value attr[] = {c->attr[0], c->attr[1]};
  int64_t list[NYX_MAX_DIMS];
  uint32_t dims;
  int n = 0;
  if (most_dims(x) || x->ndim == 0) return by_parts(s, c);
  s->status = nyx__reduce_dims(c->ctx, NYX_ATTR_DIMS, &c->attr[0], x->ndim, &dims);
  for (int d = 0; d < x->ndim; d++)
    if (dims >> d & 1) list[n++] = d;
  attr[0] = NYX_LIST(list, n);
  nyx_tensor *pairs = pairs_of(s, x);
  return numbers_of(s, ops(s, s->id, &pairs, 1, attr));
}

static nyx_tensor *running_sums(scratch *s, const nyx_call *c) {
  nyx_value attr[NYX_MAX_ATTRS];
  int d;
  if (most_dims(c->in[0]) || c->in[0]->ndim == 0) return by_parts(s, c);
  for (int i = 0; i < c->op->n_attrs; i++) attr[i] = c->attr[i];
  s->status = nyx__dim(c->ctx, c->attr[0].i, c->in[0]->ndim, &d);
  attr[0] = NYX_I(d);
  nyx_tensor *pairs = pairs_of(s, c->in[0]);
  return numbers_of(s, ops(s, s->id, &pairs, 1, attr));
}

static nyx_tensor *product(scratch *s, nyx__op_id id, nyx_tensor *x, nyx_tensor *y) {
  nyx_tensor *a = re(s, x), *b = im(s, x), *p = re(s, y), *q = im(s, y);
  if (s->status != NYX_OK) return NULL;
  if (!q) return join(s, op2(s, id, a, p), op2(s, id, b, p));
  if (!b) return join(s, op2(s, id, a, p), op2(s, id, a, q));
  return join(s, op2(s, NYX__OP_sub, op2(s, id, a, p), op2(s, id, b, q)),
              op2(s, NYX__OP_add, op2(s, id, a, q), op2(s, id, b, p)));
}

static nyx_tensor *matrices(scratch *s, const nyx_call *c) {
  nyx_tensor *x = c->in[0], *y = c->in[1], *out = NULL;
  if (!nyx__complex_product(x, y)) return product(s, s->id, x, y);
  s->status = nyx__complex_matmul(&s->steps, s->id, x, y, s->dtype, &out);
  return s->status == NYX_OK ? out : NULL;
}

/* By a real factor: pairs, in one pass. */
static nyx_tensor *scaled(scratch *s, nyx__op_id id, nyx_tensor *z, nyx_tensor *x) {
  if (s->status != NYX_OK) return NULL;
  if (most_dims(z) || most_dims(x))
    return join(s, op2(s, id, re(s, z), x), op2(s, id, im(s, z), x));
  return numbers_of(s, op2(s, id, pairs_of(s, z), beside(s, x)));
}

/* In one pass where the device has a kernel for it. */
static nyx_tensor *times(scratch *s, nyx_tensor *x, nyx_tensor *y) {
  if (s->status != NYX_OK) return NULL;
  bool kernel = nyx__on_cpu(x) && nyx__on_cpu(y);
  return kernel ? op2(s, NYX__OP_complex_mul, x, y) : product(s, NYX__OP_mul, x, y);
}

static nyx_tensor *multiply(scratch *s, const nyx_call *c) {
  nyx_tensor *x = c->in[0], *y = c->in[1];
  if (!is_complex(y)) return scaled(s, NYX__OP_mul, x, y);
  if (!is_complex(x)) return scaled(s, NYX__OP_mul, y, x);
  return times(s, x, y);
}

/* Pairs times (1, -1), in one pass. */
static nyx_tensor *conjugate(scratch *s, nyx_tensor *z) {
  if (s->status != NYX_OK) return NULL;
  if (most_dims(z)) return join(s, part(s, z, 0), op1(s, NYX__OP_neg, part(s, z, 1)));
  const nyx_dtype dtype = nyx_dtype_real(z->dtype);
  nyx_tensor *turn = join(s, scalar(s, 1, dtype, false), scalar(s, -1, dtype, false));
  nyx_tensor *signs = op1(s, NYX__OP_view_as_real, turn);
  return numbers_of(s, op2(s, NYX__OP_mul, op1(s, NYX__OP_view_as_real, z), signs));
}

/* x / y, y divided by the size of its larger part first, so that no square overflows. It
 * changes no result, so it counts as a constant. */
static nyx_tensor *quotient_of_parts(scratch *s, nyx_tensor *x, nyx_tensor *y) {
  nyx_tensor *p = part(s, y, 0), *q = part(s, y, 1), *size = NULL;
  nyx_tensor *most =
      op2(s, NYX__OP_maximum, op1(s, NYX__OP_abs, p), op1(s, NYX__OP_abs, q));
  if (s->status == NYX_OK) s->status = nyx_tensor_detach(s->steps.ctx, most, &size);
  most = keep(s, size);
  p = op2(s, NYX__OP_div, p, most);
  q = op2(s, NYX__OP_div, q, most);
  nyx_tensor *square =
      op2(s, NYX__OP_add, op1(s, NYX__OP_square, p), op1(s, NYX__OP_square, q));
  nyx_tensor *by = op2(s, NYX__OP_mul, square, most);
  nyx_tensor *turned = join(s, p, op1(s, NYX__OP_neg, q));
  return scaled(s, NYX__OP_div, op2(s, NYX__OP_mul, x, turned), by);
}

static nyx_tensor *quotient(scratch *s, nyx_tensor *x, nyx_tensor *y) {
  if (s->status != NYX_OK) return NULL;
  if (!nyx__on_cpu(x) || !nyx__on_cpu(y)) return quotient_of_parts(s, x, y);
  return op2(s, NYX__OP_complex_div, converted(s, x), y);
}

static nyx_tensor *divide(scratch *s, const nyx_call *c) {
  if (!is_complex(c->in[1])) return scaled(s, NYX__OP_div, c->in[0], c->in[1]);
  return quotient(s, c->in[0], c->in[1]);
}

static nyx_tensor *reciprocal(scratch *s, const nyx_call *c) {
  return quotient(s, number(s, 1), c->in[0]);
}

static nyx_tensor *square(scratch *s, const nyx_call *c) {
  return times(s, c->in[0], c->in[0]);
}

/* Whether nothing is recorded of x and no transform follows it. */
static bool plain(const scratch *s, const nyx_tensor *x) {
  return !x->lift && !(s->steps.ctx->grad_enabled && nyx_tensor_requires_grad(x));
}

/* |z|, whose gradient at 0 is 0, as PyTorch's; hypot's is not a number. */
static nyx_tensor *size_of(scratch *s, nyx_tensor *z) {
  if (s->status != NYX_OK) return NULL;
  nyx_tensor *a = part(s, z, 0), *b = part(s, z, 1);
  if (plain(s, z)) return op2(s, NYX__OP_hypot, a, b);
  nyx_tensor *none = number(s, 0);
  nyx_tensor *zero = op2(s, NYX__OP_logical_and, op2(s, NYX__OP_eq, a, none),
                         op2(s, NYX__OP_eq, b, none));
  nyx_tensor *other = choose(s, zero, number(s, 1), a);
  return choose(s, zero, none, op2(s, NYX__OP_hypot, other, b));
}

static nyx_tensor *angle_of(scratch *s, nyx_tensor *z) {
  return op2(s, NYX__OP_atan2, part(s, z, 1), part(s, z, 0));
}

static nyx_tensor *from_polar(scratch *s, nyx_tensor *size, nyx_tensor *angle) {
  return join(s, op2(s, NYX__OP_mul, size, op1(s, NYX__OP_cos, angle)),
              op2(s, NYX__OP_mul, size, op1(s, NYX__OP_sin, angle)));
}

static nyx_tensor *absolute(scratch *s, const nyx_call *c) {
  return size_of(s, c->in[0]);
}

static nyx_tensor *exponential(scratch *s, nyx_tensor *z) {
  return from_polar(s, op1(s, NYX__OP_exp, part(s, z, 0)), part(s, z, 1));
}

static nyx_tensor *logarithm(scratch *s, nyx_tensor *z) {
  return join(s, op1(s, NYX__OP_log, size_of(s, z)), angle_of(s, z));
}

static nyx_tensor *exp_of(scratch *s, const nyx_call *c) {
  return exponential(s, c->in[0]);
}

static nyx_tensor *log_of(scratch *s, const nyx_call *c) {
  return logarithm(s, c->in[0]);
}

/* The root in the right half-plane: t = sqrt((|z| + |Re z|) / 2) is its real part where
 * Re z >= 0, the size of its imaginary part elsewhere; the other is Im z / 2t. Where Re z
 * is negative the sign of an imaginary 0 counts, as in C. */
static nyx_tensor *root_of(scratch *s, nyx_tensor *z) {
  nyx_tensor *a = part(s, z, 0), *b = part(s, z, 1);
  nyx_tensor *half = number(s, 0.5), *none = number(s, 0);
  nyx_tensor *sum = op2(s, NYX__OP_add, size_of(s, z), op1(s, NYX__OP_abs, a));
  nyx_tensor *t = op1(s, NYX__OP_sqrt, op2(s, NYX__OP_mul, sum, half));
  nyx_tensor *zero = op2(s, NYX__OP_eq, t, none);
  nyx_tensor *by = choose(s, zero, number(s, 1), t);
  nyx_tensor *u = op2(s, NYX__OP_div, op2(s, NYX__OP_mul, b, half), by);
  nyx_tensor *below = op1(s, NYX__OP_signbit, b);
  nyx_tensor *right = op2(s, NYX__OP_ge, a, none);
  nyx_tensor *turned = choose(s, below, op1(s, NYX__OP_neg, t), t);
  return join(s, choose(s, right, t, choose(s, below, op1(s, NYX__OP_neg, u), u)),
              choose(s, right, u, turned));
}

static nyx_tensor *root(scratch *s, const nyx_call *c) {
  return root_of(s, c->in[0]);
}

static nyx_tensor *root_reciprocal(scratch *s, const nyx_call *c) {
  return quotient(s, number(s, 1), root_of(s, c->in[0]));
}

static nyx_tensor *scaled_by(scratch *s, nyx_tensor *z, double factor) {
  return op2(s, NYX__OP_mul, z, number(s, factor));
}

static nyx_tensor *log2_of(scratch *s, const nyx_call *c) {
  return scaled_by(s, logarithm(s, c->in[0]), 1.44269504088896340736);
}

static nyx_tensor *log10_of(scratch *s, const nyx_call *c) {
  return scaled_by(s, logarithm(s, c->in[0]), 0.43429448190325182765);
}

/* log(1 + z): |1 + z|^2 = 1 + a (a + 2) + b^2 is near 1 where z is small. */
static nyx_tensor *log1p_of(scratch *s, const nyx_call *c) {
  nyx_tensor *a = part(s, c->in[0], 0), *b = part(s, c->in[0], 1);
  nyx_tensor *more = op2(s, NYX__OP_mul, a, op2(s, NYX__OP_add, a, number(s, 2)));
  more = op2(s, NYX__OP_add, more, op1(s, NYX__OP_square, b));
  nyx_tensor *x = op2(s, NYX__OP_mul, op1(s, NYX__OP_log1p, more), number(s, 0.5));
  return join(s, x, op2(s, NYX__OP_atan2, b, op2(s, NYX__OP_add, a, number(s, 1))));
}

static nyx_tensor *exp2_of(scratch *s, const nyx_call *c) {
  return exponential(s, scaled_by(s, c->in[0], 0.69314718055994530942));
}

/* e^z - 1 = (e^a - 1) cos b - 2 sin^2(b / 2) + i e^a sin b */
static nyx_tensor *expm1_of(scratch *s, const nyx_call *c) {
  nyx_tensor *a = part(s, c->in[0], 0), *b = part(s, c->in[0], 1);
  nyx_tensor *half = op1(s, NYX__OP_sin, op2(s, NYX__OP_mul, b, number(s, 0.5)));
  nyx_tensor *less = op2(s, NYX__OP_mul, op1(s, NYX__OP_square, half), number(s, 2));
  nyx_tensor *x = op2(s, NYX__OP_mul, op1(s, NYX__OP_expm1, a), op1(s, NYX__OP_cos, b));
  return join(s, op2(s, NYX__OP_sub, x, less),
              op2(s, NYX__OP_mul, op1(s, NYX__OP_exp, a), op1(s, NYX__OP_sin, b)));
}

/* 1 / (1 + e^-z) */
static nyx_tensor *sigmoid_of(scratch *s, const nyx_call *c) {
  nyx_tensor *e = exponential(s, op1(s, NYX__OP_neg, c->in[0]));
  return quotient(s, number(s, 1), op2(s, NYX__OP_add, e, number(s, 1)));
}

/* z / |z|, 0 at 0. */
static nyx_tensor *direction(scratch *s, const nyx_call *c) {
  nyx_tensor *size = size_of(s, c->in[0]), *zero = op2(s, NYX__OP_eq, size, number(s, 0));
  return op2(s, NYX__OP_div, c->in[0], choose(s, zero, number(s, 1), size));
}

/* Whether y is the number 2 and nothing else: no function of anything. */
static bool is_two(scratch *s, const nyx_tensor *y) {
  return y->ndim == 0 && plain(s, y) && !is_complex(y) && nyx__on_cpu(y) &&
         nyx__load_double(y->dtype, nyx__data(y)) == 2;
}

/* exp(y log x); 0 to a power with a positive real part is 0. */
static nyx_tensor *power(scratch *s, const nyx_call *c) {
  nyx_tensor *x = c->in[0], *y = c->in[1];
  if (is_two(s, y) && is_complex(x)) return times(s, x, x);
  nyx_tensor *base = converted(s, x);
  if (s->status != NYX_OK) return NULL;
  nyx_tensor *zero = op2(s, NYX__OP_eq, size_of(s, base), number(s, 0));
  nyx_tensor *safe = choose(s, zero, number(s, 1), base);
  if (s->status != NYX_OK) return NULL;
  nyx_tensor *all = exponential(s, op2(s, NYX__OP_mul, logarithm(s, safe), y));
  nyx_tensor *one = op2(s, NYX__OP_eq, y, number(s, 0));
  nyx_tensor *none = choose(s, one, number(s, 1), number(s, 0));
  return choose(s, zero, none, all);
}

/* op(re) f(im), op'(re) f'(im) */
static nyx_tensor *crossed(scratch *s, nyx_tensor *z, const nyx__op_id id[4],
                           bool minus) {
  nyx_tensor *a = part(s, z, 0), *b = part(s, z, 1);
  nyx_tensor *x = op2(s, NYX__OP_mul, op1(s, id[0], a), op1(s, id[1], b));
  nyx_tensor *y = op2(s, NYX__OP_mul, op1(s, id[2], a), op1(s, id[3], b));
  return join(s, x, minus ? op1(s, NYX__OP_neg, y) : y);
}

static nyx_tensor *sine(scratch *s, const nyx_call *c) {
  static const nyx__op_id id[] = {NYX__OP_sin, NYX__OP_cosh, NYX__OP_cos, NYX__OP_sinh};
  return crossed(s, c->in[0], id, false);
}

static nyx_tensor *cosine(scratch *s, const nyx_call *c) {
  static const nyx__op_id id[] = {NYX__OP_cos, NYX__OP_cosh, NYX__OP_sin, NYX__OP_sinh};
  return crossed(s, c->in[0], id, true);
}

static nyx_tensor *sinh_of(scratch *s, const nyx_call *c) {
  static const nyx__op_id id[] = {NYX__OP_sinh, NYX__OP_cos, NYX__OP_cosh, NYX__OP_sin};
  return crossed(s, c->in[0], id, false);
}

static nyx_tensor *cosh_of(scratch *s, const nyx_call *c) {
  static const nyx__op_id id[] = {NYX__OP_cosh, NYX__OP_cos, NYX__OP_sinh, NYX__OP_sin};
  return crossed(s, c->in[0], id, false);
}

/* x + iy = tanh(a + ib): with t = tanh(a), r = 1 / cosh(a) and d = t^2 + (r cos(b))^2,
 * t / d + i r^2 sin(b) cos(b) / d. Beyond 44, where r^2 is nothing beside t^2, a is cut
 * in r, which would have no gradient where cosh overflows. */
static void tangent(scratch *s, nyx_tensor *a, nyx_tensor *b, nyx_tensor **x,
                    nyx_tensor **y) {
  const nyx_value limits[] = {NYX_F(-44), NYX_F(44)};
  nyx_tensor *t = op1(s, NYX__OP_tanh, a), *near = ops(s, NYX__OP_clamp, &a, 1, limits);
  nyx_tensor *r = op1(s, NYX__OP_reciprocal, op1(s, NYX__OP_cosh, near));
  nyx_tensor *cosine = op2(s, NYX__OP_mul, r, op1(s, NYX__OP_cos, b));
  nyx_tensor *sine = op2(s, NYX__OP_mul, r, op1(s, NYX__OP_sin, b));
  nyx_tensor *d =
      op2(s, NYX__OP_add, op1(s, NYX__OP_square, t), op1(s, NYX__OP_square, cosine));
  *x = op2(s, NYX__OP_div, t, d);
  *y = op2(s, NYX__OP_div, op2(s, NYX__OP_mul, sine, cosine), d);
}

static nyx_tensor *tanh_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y;
  tangent(s, part(s, c->in[0], 0), part(s, c->in[0], 1), &x, &y);
  return join(s, x, y);
}

/* -i tanh(iz) */
static nyx_tensor *tan_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y, *b = op1(s, NYX__OP_neg, part(s, c->in[0], 1));
  tangent(s, b, part(s, c->in[0], 0), &x, &y);
  return join(s, y, op1(s, NYX__OP_neg, x));
}

/* Inverse functions after Kahan, "Branch cuts for complex elementary functions" (1987):
 * no term cancels another, and on cuts the sign of a zero says from which side. */

/* sqrt(1 - (a + ib)) and sqrt(1 + (a + ib)) as parts. */
typedef struct roots {
  nyx_tensor *minus[2], *plus[2];
} roots;

static roots roots_of(scratch *s, nyx_tensor *a, nyx_tensor *b) {
  nyx_tensor *one = number(s, 1);
  nyx_tensor *minus =
      root_of(s, join(s, op2(s, NYX__OP_sub, one, a), op1(s, NYX__OP_neg, b)));
  nyx_tensor *plus = root_of(s, join(s, op2(s, NYX__OP_add, a, one), b));
  return (roots){{part(s, minus, 0), part(s, minus, 1)},
                 {part(s, plus, 0), part(s, plus, 1)}};
}

/* a d - b c, or a d + b c. */
static nyx_tensor *cross(scratch *s, nyx__op_id id, nyx_tensor *a, nyx_tensor *d,
                         nyx_tensor *b, nyx_tensor *c) {
  return op2(s, id, op2(s, NYX__OP_mul, a, d), op2(s, NYX__OP_mul, b, c));
}

/* x + iy = asin(a + ib) */
static void arc_sine(scratch *s, nyx_tensor *a, nyx_tensor *b, nyx_tensor **x,
                     nyx_tensor **y) {
  roots r = roots_of(s, a, b);
  nyx_tensor *across =
      cross(s, NYX__OP_sub, r.minus[0], r.plus[0], r.minus[1], r.plus[1]);
  *x = op2(s, NYX__OP_atan2, a, across);
  *y = op1(s, NYX__OP_asinh,
           cross(s, NYX__OP_sub, r.minus[0], r.plus[1], r.minus[1], r.plus[0]));
}

static nyx_tensor *asin_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y;
  arc_sine(s, part(s, c->in[0], 0), part(s, c->in[0], 1), &x, &y);
  return join(s, x, y);
}

/* -i asin(iz) */
static nyx_tensor *asinh_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y, *b = op1(s, NYX__OP_neg, part(s, c->in[0], 1));
  arc_sine(s, b, part(s, c->in[0], 0), &x, &y);
  return join(s, y, op1(s, NYX__OP_neg, x));
}

/* x + iy = acos(a + ib) */
static void arc_cosine(scratch *s, nyx_tensor *z, nyx_tensor **x, nyx_tensor **y) {
  roots r = roots_of(s, part(s, z, 0), part(s, z, 1));
  *x = scaled_by(s, op2(s, NYX__OP_atan2, r.minus[0], r.plus[0]), 2);
  *y = op1(s, NYX__OP_asinh,
           cross(s, NYX__OP_sub, r.plus[0], r.minus[1], r.plus[1], r.minus[0]));
}

static nyx_tensor *acos_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y;
  arc_cosine(s, c->in[0], &x, &y);
  return join(s, x, y);
}

/* i acos(z) or -i acos(z), that which lies in the right half-plane. */
static nyx_tensor *acosh_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y;
  arc_cosine(s, c->in[0], &x, &y);
  nyx_tensor *below = op1(s, NYX__OP_signbit, part(s, c->in[0], 1));
  return join(s, choose(s, below, y, op1(s, NYX__OP_neg, y)),
              choose(s, below, op1(s, NYX__OP_neg, x), x));
}

/* x + iy = atanh(a + ib): log1p(4a / ((1 - a)^2 + b^2)) / 4, and half the angle of
 * ((1 - a) (1 + a) - b^2, 2b). */
static void arc_tangent(scratch *s, nyx_tensor *a, nyx_tensor *b, nyx_tensor **x,
                        nyx_tensor **y) {
  nyx_tensor *one = number(s, 1), *square = op1(s, NYX__OP_square, b);
  nyx_tensor *size = op1(s, NYX__OP_abs, a);
  nyx_tensor *less = op2(s, NYX__OP_sub, one, size);
  nyx_tensor *by = op2(s, NYX__OP_add, op1(s, NYX__OP_square, less), square);
  nyx_tensor *ratio = op2(s, NYX__OP_div, scaled_by(s, size, 4), by);
  nyx_tensor *grown = scaled_by(s, op1(s, NYX__OP_log1p, ratio), 0.25);
  nyx_tensor *below = op1(s, NYX__OP_signbit, a);
  *x = choose(s, below, op1(s, NYX__OP_neg, grown), grown);
  nyx_tensor *across = op2(s, NYX__OP_mul, less, op2(s, NYX__OP_add, one, size));
  *y = scaled_by(
      s, op2(s, NYX__OP_atan2, scaled_by(s, b, 2), op2(s, NYX__OP_sub, across, square)),
      0.5);
}

static nyx_tensor *atanh_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y;
  arc_tangent(s, part(s, c->in[0], 0), part(s, c->in[0], 1), &x, &y);
  return join(s, x, y);
}

/* -i atanh(iz) */
static nyx_tensor *atan_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x, *y, *b = op1(s, NYX__OP_neg, part(s, c->in[0], 1));
  arc_tangent(s, b, part(s, c->in[0], 0), &x, &y);
  return join(s, y, op1(s, NYX__OP_neg, x));
}

/* Reductions that are not sums */

static nyx_tensor *slice(scratch *s, nyx_tensor *x, int d, int64_t first, int64_t n) {
  const nyx_value attr[] = {NYX_I(d), NYX_I(first), NYX_I(n), NYX_I(1)};
  return ops(s, NYX__OP_narrow, &x, 1, attr);
}

/* One half times the other until one element is left along d; products divide nothing, so
 * zeros have their gradient. */
static nyx_tensor *product_along(scratch *s, nyx_tensor *x, int d) {
  const nyx_value at = NYX_I(d);
  if (s->status != NYX_OK) return NULL;
  int64_t dims[] = {d}, n = x->shape[d];
  if (d == x->ndim - 1 && nyx__on_cpu(x) && plain(s, x))
    return op1(s, NYX__OP_complex_prod, x);
  if (n == 0) {
    const nyx_value sum[] = {NYX_LIST(dims, 1), NYX_I(1)};
    return op2(s, NYX__OP_add, ops(s, NYX__OP_sum, &x, 1, sum), number(s, 1));
  }
  for (; n > 1 && s->status == NYX_OK; n -= n / 2) {
    int64_t half = n / 2;
    nyx_tensor *last = n % 2 ? slice(s, x, d, n - 1, 1) : NULL;
    nyx_tensor *y =
        op2(s, NYX__OP_mul, slice(s, x, d, 0, half), slice(s, x, d, half, half));
    x = last ? ops(s, NYX__OP_cat, (nyx_tensor *[]){y, last}, 2, &at) : y;
  }
  return x;
}

static nyx_tensor *product_of(scratch *s, const nyx_call *c) {
  nyx_tensor *x = c->in[0];
  nyx_spec shape;
  uint32_t dims;
  s->status = nyx__reduce_dims(c->ctx, NYX_ATTR_DIMS, &c->attr[0], x->ndim, &dims);
  if (s->status != NYX_OK) return NULL;
  nyx__reduce_spec(&shape, x->dtype, x->ndim, x->shape, dims, c->attr[1].i != 0);
  for (int d = c->in[0]->ndim - 1; d >= 0 && s->status == NYX_OK; d--)
    if (dims >> d & 1) x = product_along(s, x, d);
  const nyx_value sizes = NYX_LIST(shape.shape, shape.ndim);
  return ops(s, NYX__OP_reshape, &x, 1, &sizes);
}

/* The mean of |z - mean|^2: those of both parts. */
static nyx_tensor *variance_of(scratch *s, const nyx_call *c) {
  nyx_tensor *a = part(s, c->in[0], 0), *b = part(s, c->in[0], 1);
  return op2(s, NYX__OP_add, ops(s, NYX__OP_var, &a, 1, c->attr),
             ops(s, NYX__OP_var, &b, 1, c->attr));
}

/* Its root, without a gradient where that is 0, as of real numbers. */
static nyx_tensor *deviation_of(scratch *s, const nyx_call *c) {
  nyx_tensor *square = variance_of(s, c), *none = number(s, 0);
  nyx_tensor *zero = op2(s, NYX__OP_eq, square, none);
  nyx_tensor *safe = choose(s, zero, number(s, 1), square);
  return choose(s, zero, none, op1(s, NYX__OP_sqrt, safe));
}

/* The imaginary part as an operand: 0 of real numbers. */
static nyx_tensor *im_or_zero(scratch *s, nyx_tensor *x) {
  return is_complex(x) ? im(s, x) : number(s, 0);
}

static nyx_tensor *select_where(scratch *s, const nyx_call *c) {
  nyx_tensor *which = c->in[0], *x = c->in[1], *y = c->in[2];
  if (is_complex(which)) {
    s->status =
        nyx__error(s->steps.ctx, DTYPE_INPUT, "x", nyx_dtype_name(which->dtype), "bool");
    return NULL;
  }
  if (most_dims(which) || most_dims(x) || most_dims(y))
    return join(s, choose(s, which, re(s, x), re(s, y)),
                choose(s, which, im_or_zero(s, x), im_or_zero(s, y)));
  x = pairs_of(s, x), y = pairs_of(s, y);
  return numbers_of(s, choose(s, beside(s, which), x, y));
}

/* Of both parts, put together by `id`; real numbers have 0 as the other one. */
static nyx_tensor *both(scratch *s, const nyx_call *c, nyx__op_id id) {
  nyx_tensor *in[2], *half[2];
  for (int k = 0; k < 2; k++) {
    for (int i = 0; i < c->n_in; i++)
      in[i] = k ? im_or_zero(s, c->in[i]) : re(s, c->in[i]);
    half[k] = ops(s, s->id, in, c->n_in, NULL);
  }
  return op2(s, id, half[0], half[1]);
}

static nyx_tensor *all_of(scratch *s, const nyx_call *c) {
  return both(s, c, NYX__OP_logical_and);
}

static nyx_tensor *any_of(scratch *s, const nyx_call *c) {
  return both(s, c, NYX__OP_logical_or);
}

/* The same of |z|. */
static nyx_tensor *of_size(scratch *s, const nyx_call *c) {
  nyx_tensor *size = size_of(s, c->in[0]);
  return ops(s, s->id, &size, 1, c->attr);
}

static nyx_tensor *(*const meaning[NYX__OP_BUILTIN_COUNT])(scratch *,
                                                           const nyx_call *) = {
    [NYX__OP_add] = by_pairs,
    [NYX__OP_sub] = by_pairs,
    [NYX__OP_neg] = by_pairs,
    [NYX__OP_clone] = by_pairs,
    [NYX__OP_mul] = multiply,
    [NYX__OP_div] = divide,
    [NYX__OP_reciprocal] = reciprocal,
    [NYX__OP_square] = square,
    [NYX__OP_pow] = power,
    [NYX__OP_abs] = absolute,
    [NYX__OP_exp] = exp_of,
    [NYX__OP_log] = log_of,
    [NYX__OP_sqrt] = root,
    [NYX__OP_rsqrt] = root_reciprocal,
    [NYX__OP_sign] = direction,
    [NYX__OP_exp2] = exp2_of,
    [NYX__OP_expm1] = expm1_of,
    [NYX__OP_log1p] = log1p_of,
    [NYX__OP_log2] = log2_of,
    [NYX__OP_log10] = log10_of,
    [NYX__OP_sigmoid] = sigmoid_of,
    [NYX__OP_sin] = sine,
    [NYX__OP_cos] = cosine,
    [NYX__OP_sinh] = sinh_of,
    [NYX__OP_cosh] = cosh_of,
    [NYX__OP_tan] = tan_of,
    [NYX__OP_tanh] = tanh_of,
    [NYX__OP_asin] = asin_of,
    [NYX__OP_acos] = acos_of,
    [NYX__OP_atan] = atan_of,
    [NYX__OP_asinh] = asinh_of,
    [NYX__OP_acosh] = acosh_of,
    [NYX__OP_atanh] = atanh_of,
    [NYX__OP_prod] = product_of,
    [NYX__OP_var] = variance_of,
    [NYX__OP_std] = deviation_of,
    [NYX__OP_where] = select_where,
    [NYX__OP_eq] = all_of,
    [NYX__OP_isfinite] = all_of,
    [NYX__OP_ne] = any_of,
    [NYX__OP_isnan] = any_of,
    [NYX__OP_isinf] = any_of,
    [NYX__OP_norm] = of_size,
    [NYX__OP_matmul] = matrices,
    [NYX__OP_bmm] = matrices,
    [NYX__OP_sum] = sum_of_pairs,
    [NYX__OP_mean] = sum_of_pairs,
    [NYX__OP_cumsum] = running_sums,
    [NYX__OP_cat] = by_parts,
    [NYX__OP_stack] = by_parts,
    [NYX__OP_flip] = by_parts,
    [NYX__OP_roll] = by_parts,
    [NYX__OP_pad] = by_parts,
    [NYX__OP_tile] = by_parts,
    [NYX__OP_repeat_interleave] = by_parts,
    [NYX__OP_tril] = by_parts,
    [NYX__OP_triu] = by_parts,
    [NYX__OP_take] = by_parts,
    [NYX__OP_gather] = by_parts,
    [NYX__OP_scatter] = by_parts,
    [NYX__OP_scatter_add] = by_parts,
    [NYX__OP_scatter_backward] = by_parts,
    [NYX__OP_index] = by_parts,
    [NYX__OP_index_put] = by_parts,
    [NYX__OP_index_add] = by_parts,
    [NYX__OP_index_select] = by_parts,
    [NYX__OP_masked_fill] = by_parts,
    [NYX__OP_masked_select] = by_parts,
};

bool nyx__complex_op(const nyx_op *op) {
  int id = nyx__op_id_of(op);
  return id >= 0 && meaning[id];
}

/* Only without a history: that of `target` would have to change. */
static nyx_status write_target(nyx_call *c, nyx_tensor *result, nyx_tensor *target) {
  if (!nyx__has_shape(target, result->ndim, result->shape)) {
    return nyx__error(c->ctx, OUT_SHAPE, NYX__SHAPE(target), NYX__SHAPE(result));
  }
  if (nyx_dtype_kind_of(result->dtype) > nyx_dtype_kind_of(target->dtype))
    return nyx__error(c->ctx, DTYPE_OUT, nyx_dtype_name(result->dtype),
                      nyx_dtype_name(target->dtype), nyx_dtype_name(result->dtype));
  if (nyx__overlaps(target->ndim, target->shape, target->stride))
    return nyx__error(c->ctx, OUT_OVERLAP);
  bool recorded = target->requires_grad || result->requires_grad;
  if (c->ctx->grad_enabled && recorded) return nyx__error(c->ctx, COMPLEX_INPLACE);
  if (target->lift || result->lift) return nyx__error(c->ctx, COMPLEX_INPLACE);
  NYX_TRY(nyx__copy_into(c->ctx, result, target));
  nyx_tensor_touch(target);
  return NYX_OK;
}

nyx_status nyx__apply_complex(nyx_call *c, nyx_tensor *target) {
  scratch s = {.steps = {.ctx = c->ctx}, .dtype = c->dtype};
  s.id = (nyx__op_id)nyx__op_id_of(c->op);
  nyx_tensor *result = meaning[s.id](&s, c);
  if (s.status == NYX_OK && target) {
    s.status = write_target(c, result, target);
    result = target;
  }
  return end(&s, result, &c->out[0]);
}

/* real, imag, conj, angle, polar */

static nyx_status take_part(nyx_call *c, int which) {
  nyx_tensor *x = c->in[0];
  scratch s = {.steps = {.ctx = c->ctx}};
  if (!is_complex(x)) {
    if (which == 1)
      return nyx__error(c->ctx, DTYPE_OP, nyx_dtype_name(x->dtype),
                        "complex64 complex128");
    return nyx__apply1(c->ctx, NYX__OP_alias, x, NULL, &c->out[0]);
  }
  nyx_tensor *y = part(&s, x, which);
  return end(&s, y, &c->out[0]);
}

static nyx_status real_make(nyx_call *c) {
  return take_part(c, 0);
}

static nyx_status imag_make(nyx_call *c) {
  return take_part(c, 1);
}

static nyx_status conj_make(nyx_call *c) {
  scratch s = {.steps = {.ctx = c->ctx}};
  if (!is_complex(c->in[0]))
    return nyx__apply1(c->ctx, NYX__OP_alias, c->in[0], NULL, &c->out[0]);
  nyx_tensor *y = conjugate(&s, c->in[0]);
  return end(&s, y, &c->out[0]);
}

/* Of real numbers: 0, or pi below 0; nan stays. */
static nyx_status angle_make(nyx_call *c) {
  scratch s = {.steps = {.ctx = c->ctx}};
  nyx_tensor *x = c->in[0], *y;
  if (is_complex(x)) {
    y = angle_of(&s, x);
  } else {
    nyx_tensor *below = op2(&s, NYX__OP_lt, x, number(&s, 0));
    nyx_dtype dtype = nyx_dtype_is_float(x->dtype) ? x->dtype : c->ctx->default_dtype;
    y = choose(&s, below, scalar(&s, M_PI, dtype, false), scalar(&s, 0, dtype, false));
    y = choose(&s, op1(&s, NYX__OP_isnan, x), x, y);
  }
  return end(&s, y, &c->out[0]);
}

static nyx_status polar_make(nyx_call *c) {
  scratch s = {.steps = {.ctx = c->ctx}};
  nyx_tensor *y = from_polar(&s, c->in[0], c->in[1]);
  return end(&s, y, &c->out[0]);
}

#define MADE(op_name, text, in_names, count, make, samples)                              \
  {                                                                                      \
    .name = op_name, .group = "complex", .kind = NYX_OP_COMPOSITE, .doc = text,          \
    .inputs = in_names, .min_in = count, .max_in = count, .n_out = 1, .cpu = make,       \
    .cases = samples,                                                                    \
  }

const nyx_op nyx__op_real =
    MADE("real", "the real part, a view; of a real tensor x itself, as a view", "x", 1,
         real_make, "x(2,3)");
const nyx_op nyx__op_imag = MADE("imag", "the imaginary part of a complex tensor, a view",
                                 "x", 1, imag_make, "x(2,3)<complex64");
const nyx_op nyx__op_conj =
    MADE("conj", "the conjugate, a copy; of a real tensor x itself, as a view", "x", 1,
         conj_make, "x(2,3)");
const nyx_op nyx__op_angle =
    MADE("angle", "the angle in radians, from -pi to pi; of real numbers 0, below 0 pi",
         "x", 1, angle_make, "x(2,3)");
const nyx_op nyx__op_polar = MADE("polar", "abs (cos angle + i sin angle)", "abs angle",
                                  2, polar_make, "abs(2,3) angle(2,3)");
