/* Evaluates the text of a row through nyx_apply, one op per operator and call, so that
 * the result has a history of its own. The grammar is that of kernels/elementwise.def:
 *   sum: product {(+|-) product}   product: unary {(*|/) unary}   unary: [-] primary
 *   primary: name | K(number) | nyx_name(sum, ...) | (sum)
 * A value is a pair of a real and an imaginary part, which is NULL for real numbers: then
 * the ops are all there is. Read next: row.c, ../transform/complex.c,
 * kernels/dialect/README.md. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "../op/ops.h"
#include "graph.h"

typedef struct reader {
  nyx_context *ctx;
  const char *at;
  nyx_tensor *const *value;     /* g x y z r */
  nyx_tensor *const *imaginary; /* the imaginary parts of x y z; NULL: all real */
  const double *attr;           /* p q */
} reader;

static nyx_status sum(reader *r, nyx__pair *out);

static bool skip(reader *r, char c) {
  while (isspace((unsigned char)*r->at)) r->at++;
  if (*r->at != c) return false;
  r->at++;
  return true;
}

static nyx_status syntax(reader *r) {
  return nyx__error(r->ctx, ROW_TEXT, r->at);
}

/* The op a function of the dialect stands for. */
static const nyx_op *op_of(const char *name, size_t length) {
  static const char *const alias[][2] = {{"select", "where"},  {"min", "minimum"},
                                         {"max", "maximum"},   {"and", "logical_and"},
                                         {"or", "logical_or"}, {"not", "logical_not"}};
  char op[40];
  if (length >= sizeof op) return NULL;
  memcpy(op, name, length);
  op[length] = '\0';
  for (size_t i = 0; i < sizeof alias / sizeof *alias; i++)
    if (strcmp(op, alias[i][0]) == 0) return nyx_op_find(alias[i][1]);
  return nyx_op_find(op);
}

static nyx_status number(reader *r, nyx__pair *out) {
  char *end;
  double value;
  if (!skip(r, '(')) return syntax(r);
  value = strtod(r->at, &end);
  if (end == r->at) return syntax(r);
  r->at = end;
  if (!skip(r, ')')) return syntax(r);
  return nyx_tensor_scalar(r->ctx, value, NYX_FLOAT64, true, &out->re);
}

static void release(nyx__pair *p) {
  nyx_tensor_release(p->re);
  nyx_tensor_release(p->im);
}

/* The real part. What is made of numbers alone stays a number, in float64: by the rules
 * of promotion it would become a tensor of the default dtype. */
static nyx_status apply_real(reader *r, const nyx_op *op, const nyx__pair *in, int n,
                             nyx_tensor **out) {
  nyx_tensor *made[NYX_MAX_OUTPUTS] = {NULL}, *strong[3] = {NULL}, *weak[3];
  bool numbers = true;
  for (int i = 0; i < n; i++) {
    weak[i] = in[i].re;
    numbers = numbers && weak[i]->weak && weak[i]->ndim == 0;
  }
  nyx_status status = NYX_OK;
  for (int i = 0; numbers && status == NYX_OK && i < n; i++) {
    status = nyx__tensor_alias(r->ctx, weak[i], &strong[i]);
    if (status == NYX_OK) strong[i]->weak = false;
  }
  if (status == NYX_OK)
    status = nyx_apply(r->ctx, op, numbers ? strong : weak, n, NULL, made);
  for (int i = 0; i < n; i++) nyx_tensor_release(strong[i]);
  if (status != NYX_OK) return status;
  made[0]->weak = numbers;
  *out = made[0];
  return NYX_OK;
}

/* Applies an op of at most three inputs. */
static nyx_status apply(reader *r, const nyx_op *op, const nyx__pair *in, int n,
                        nyx__pair *out) {
  bool real = true;
  NYX_TRY(apply_real(r, op, in, n, &out->re));
  out->im = NULL;
  for (int i = 0; i < n; i++) real = real && !in[i].im;
  if (real) return NYX_OK;
  nyx_status status = nyx__imaginary_part(r->ctx, op, in, n, out->re, &out->im);
  if (status != NYX_OK) nyx_tensor_release(out->re);
  return status;
}

static nyx_status apply2(reader *r, nyx__op_id id, nyx__pair a, nyx__pair b,
                         nyx__pair *out) {
  return apply(r, nyx__op(id), (const nyx__pair[]){a, b}, 2, out);
}

/* nyx_name(...), the name read already. nyx_fma(a, b, c) is a * b + c. */
static nyx_status call(reader *r, const char *name, size_t length, nyx__pair *out) {
  nyx__pair in[3];
  int n = 0;
  nyx_status status = NYX_OK;
  if (!skip(r, '(')) return syntax(r);
  do {
    status = n < 3 ? sum(r, &in[n]) : syntax(r);
    if (status != NYX_OK) break;
    n++;
  } while (skip(r, ','));
  if (status == NYX_OK && !skip(r, ')')) status = syntax(r);
  if (status == NYX_OK && n == 3 && length == 3 && memcmp(name, "fma", 3) == 0) {
    nyx__pair product;
    status = apply2(r, NYX__OP_mul, in[0], in[1], &product);
    if (status == NYX_OK) {
      status = apply2(r, NYX__OP_add, product, in[2], out);
      release(&product);
    }
  } else if (status == NYX_OK) {
    const nyx_op *op = op_of(name, length);
    status = op ? apply(r, op, in, n, out) : syntax(r);
  }
  while (n > 0) release(&in[--n]);
  return status;
}

static nyx_status variable(reader *r, char name, nyx__pair *out) {
  static const char names[] = "gxyzr";
  if (name == 'p' || name == 'q')
    return nyx_tensor_scalar(r->ctx, r->attr[name - 'p'], NYX_FLOAT64, true, &out->re);
  const char *found = strchr(names, name);
  nyx_tensor *value = found ? r->value[found - names] : NULL;
  if (!value) return syntax(r);
  bool input = r->imaginary && *found >= 'x';
  out->re = nyx_tensor_retain(value);
  out->im = nyx_tensor_retain(input ? r->imaginary[*found - 'x'] : NULL);
  return NYX_OK;
}

static nyx_status primary(reader *r, nyx__pair *out) {
  *out = (nyx__pair){NULL, NULL};
  if (skip(r, '(')) {
    NYX_TRY(sum(r, out));
    if (skip(r, ')')) return NYX_OK;
    release(out);
    return syntax(r);
  }
  while (isspace((unsigned char)*r->at)) r->at++;
  const char *name = r->at;
  size_t length = 0;
  while (isalnum((unsigned char)name[length]) || name[length] == '_') length++;
  r->at += length;
  if (length == 1 && *name == 'K') return number(r, out);
  if (length == 1) return variable(r, *name, out);
  if (length > 4 && memcmp(name, "nyx_", 4) == 0)
    return call(r, name + 4, length - 4, out);
  r->at = name;
  return syntax(r);
}

static nyx_status unary(reader *r, nyx__pair *out) {
  nyx__pair x;
  if (!skip(r, '-')) return primary(r, out);
  NYX_TRY(unary(r, &x));
  nyx_status status = apply(r, nyx__op(NYX__OP_neg), &x, 1, out);
  release(&x);
  return status;
}

typedef nyx_status (*part)(reader *r, nyx__pair *out);

/* part {(op[0]|op[1]) part}, from the left. */
static nyx_status chain(reader *r, part next, const char op[2], const nyx__op_id id[2],
                        nyx__pair *out) {
  nyx__pair left, right, result;
  NYX_TRY(next(r, &left));
  for (;;) {
    int k = skip(r, op[0]) ? 0 : skip(r, op[1]) ? 1 : -1;
    if (k < 0) break;
    nyx_status status = next(r, &right);
    if (status == NYX_OK) {
      status = apply2(r, id[k], left, right, &result);
      release(&right);
    }
    release(&left);
    if (status != NYX_OK) return status;
    left = result;
  }
  *out = left;
  return NYX_OK;
}

static nyx_status product(reader *r, nyx__pair *out) {
  return chain(r, unary, "*/", (nyx__op_id[]){NYX__OP_mul, NYX__OP_div}, out);
}

static nyx_status sum(reader *r, nyx__pair *out) {
  return chain(r, product, "+-", (nyx__op_id[]){NYX__OP_add, NYX__OP_sub}, out);
}

static nyx_status text(reader *r, nyx__pair *out) {
  NYX_TRY(sum(r, out));
  while (isspace((unsigned char)*r->at)) r->at++;
  if (*r->at == '\0') return NYX_OK;
  release(out);
  return syntax(r);
}

nyx_status nyx__evaluate(nyx_context *ctx, const char *row, nyx_tensor *const value[5],
                         const double attr[2], nyx_tensor **out) {
  reader r = {ctx, row, value, NULL, attr};
  nyx__pair result;
  *out = NULL;
  NYX_TRY(text(&r, &result));
  *out = result.re;
  return NYX_OK;
}

nyx_status nyx__evaluate_complex(nyx_context *ctx, const char *row,
                                 nyx_tensor *const value[5],
                                 nyx_tensor *const imaginary[3], const double attr[2],
                                 nyx_tensor **out) {
  reader r = {ctx, row, value, imaginary, attr};
  nyx__pair result;
  *out = NULL;
  NYX_TRY(text(&r, &result));
  nyx_tensor_release(result.re);
  *out = result.im;
  return NYX_OK;
}
