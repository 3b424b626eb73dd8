/* Sample calls of every op, read from what ops say of themselves: the `cases` of
 * structural ops (syntax: core/include/nyx/op.h), and inputs made up for rows and
 * reductions. Shared by the tests that go through the whole op table. */
#ifndef NYX_SPEC_CASES_H
#define NYX_SPEC_CASES_H

#include <nyx/nyx.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define CASES_INPUTS 12

/* One call. `attr` points into the sample itself: do not copy one. */
typedef struct cases_sample {
  const nyx_op *op;
  const char *text; /* the line it was read from, `length` bytes; "" for rows */
  int length;
  nyx_tensor *in[CASES_INPUTS];
  int n;
  nyx_value attr[NYX_MAX_ATTRS];
  int64_t lists[NYX_MAX_ATTRS][16];
  char words[NYX_MAX_ATTRS][32];
} cases_sample;

/* How inputs are made. */
typedef struct cases_options {
  nyx_dtype dtype; /* of inputs that are neither positions nor masks */
  int64_t scale;   /* sizes above 1 are multiplied by it */
} cases_options;

/* A tensor of values in lo..hi, or, with below > 0, int64 positions under it, or, with
 * below < 0, a mask. NULL when there is no memory. */
UNTRACED static nyx_tensor *cases_filled(nyx_context *ctx, nyx_dtype dtype, int ndim,
                                         const int64_t *shape, int64_t below, double lo,
                                         double hi) {
  nyx_tensor *wide = NULL, *t = NULL;
  nyx_dtype made = below > 0 ? NYX_INT64 : below < 0 ? NYX_BOOL : NYX_FLOAT64;
  if (nyx_tensor_empty(ctx, made, ndim, shape, &wide) != NYX_OK) return NULL;
  const int base = nyx_context_index_base(ctx);
  const int64_t n = nyx_tensor_numel(wide);
  void *data = nyx_tensor_data(wide);
  for (int64_t i = 0; i < n; i++) {
    double part = (double)(i * 7 % 10) / 10 + 0.03;
    if (below > 0)
      ((int64_t *)data)[i] = i % below + base;
    else if (below < 0)
      ((uint8_t *)data)[i] = i % 3 != 1;
    else
      ((double *)data)[i] = lo + (hi - lo) * part;
  }
  if (below || dtype == NYX_FLOAT64) return wide;
  if (nyx_tensor_empty(ctx, dtype, ndim, shape, &t) == NYX_OK &&
      nyx_tensor_read(ctx, wide, dtype, nyx_tensor_data(t),
                      nyx_tensor_storage_bytes(t)) != NYX_OK) {
    nyx_tensor_release(t);
    t = NULL;
  }
  nyx_tensor_release(wide);
  return t;
}

/* Makes matrices far from singular, or (symmetric) positive-definite, of float32 or
 * float64 values in 0.6..1.4. */
UNTRACED static void cases_make_regular(nyx_tensor *t, bool symmetric) {
  const int64_t *shape = nyx_tensor_shape(t) + nyx_tensor_ndim(t) - 2;
  const int64_t m = shape[0], n = shape[1];
  float *narrow = nyx_tensor_data(t);
  double *wide = nyx_tensor_data(t);
  bool is_wide = nyx_tensor_dtype(t) == NYX_FLOAT64;
  const int64_t numel = nyx_tensor_numel(t);
  for (int64_t e = 0; e < numel; e++) {
    const int64_t i = e / n % m, j = e % n;
    const int64_t from = symmetric && i > j ? e - (i - j) * (n - 1) : e;
    if (is_wide)
      wide[e] = wide[from] + (i == j ? 2 * (double)n : 0);
    else
      narrow[e] = narrow[from] + (i == j ? 2 * (float)n : 0);
  }
}

static int cases_input_named(const nyx_op *op, const char *name, size_t length) {
  int i = 0;
  if (op->variadic) return -1;
  for (const char *p = op->inputs; *p; i++) {
    size_t n = strcspn(p, " ");
    if (n == length && memcmp(p, name, n) == 0) return i;
    p += n + strspn(p + n, " ");
  }
  return -1;
}

/* What follows the '<' of an input at p: how many positions, "bool", or the name of a
 * dtype. Returns what is behind it. */
static const char *cases_read_kind(const char *p, int64_t *below, nyx_dtype *dtype) {
  char *next;
  size_t length = strcspn(p, " ;\n");
  *below = strtoll(p, &next, 10);
  if (strncmp(p, "bool", 4) == 0) *below = -1;
  for (int d = 0; d < NYX_DTYPE_COUNT && *below == 0; d++) {
    const char *name = nyx_dtype_name((nyx_dtype)d);
    if (strlen(name) == length && memcmp(p, name, length) == 0) *dtype = (nyx_dtype)d;
  }
  return p + length;
}

/* Reads "name(2,3)<5", "name(2,3)<bool", "name(2,3)<int8" and "name(3,3)<definite" items
 * up to the semicolon. */
static const char *cases_read_inputs(nyx_context *ctx, const cases_options *options,
                                     const char *p, const char *end, cases_sample *s) {
  while (p < end && *p != ';') {
    while (p < end && *p == ' ') p++;
    const char *name = p;
    while (p < end && *p != '(' && *p != ';') p++;
    if (p >= end || *p == ';') break;
    int at = cases_input_named(s->op, name, (size_t)(p - name));
    if (at < 0) at = s->n;
    int64_t shape[NYX_MAX_DIMS], below = 0;
    nyx_dtype dtype = options->dtype;
    int ndim = 0;
    p++;
    while (p < end && *p != ')') {
      char *next;
      int64_t size = strtoll(p, &next, 10);
      shape[ndim++] = size > 1 ? size * options->scale : size;
      p = next + (*next == ',');
    }
    p++;
    const char *kind = p;
    if (p < end && *p == '<') {
      p = cases_read_kind(p + 1, &below, &dtype);
    }
    double unit = nyx_dtype_is_float(dtype) ? 1 : 10;
    s->in[at] = cases_filled(ctx, dtype, ndim, shape, below, 0.6 * unit, 1.4 * unit);
    bool definite = strncmp(kind, "<definite", 9) == 0;
    bool matrices = definite || strncmp(kind, "<regular", 8) == 0 ||
                    strncmp(kind, "<dominant", 9) == 0;
    if (matrices && s->in[at] && (dtype == NYX_FLOAT64 || dtype == NYX_FLOAT32))
      cases_make_regular(s->in[at], definite);
    if (at >= s->n) s->n = at + 1;
  }
  return p < end ? p + 1 : end;
}

/* Reads "name=value" items; dimensions and positions are 1-based, as in Lua. */
static void cases_read_attrs(const char *p, const char *end, cases_sample *s) {
  const nyx_op *op = s->op;
  while (p < end) {
    while (p < end && *p == ' ') p++;
    const char *name = p;
    while (p < end && *p != '=') p++;
    if (p >= end) return;
    int at = -1;
    for (int i = 0; i < op->n_attrs; i++)
      if (strlen(op->attrs[i].name) == (size_t)(p - name) &&
          memcmp(op->attrs[i].name, name, (size_t)(p - name)) == 0)
        at = i;
    p++;
    const char *value = p;
    if (*p == '{')
      while (p < end && *p++ != '}') continue;
    else
      while (p < end && *p != ' ') p++;
    if (at < 0) continue;
    nyx_attr_type type = op->attrs[at].type;
    bool based = type == NYX_ATTR_DIM || type == NYX_ATTR_INDEX || type == NYX_ATTR_DIMS;
    if (type == NYX_ATTR_INTS || type == NYX_ATTR_DIMS) {
      int n = 0;
      const char *q = value + (*value == '{');
      while (q < p && *q != '}' && n < 16) {
        char *next;
        int64_t v = strtoll(q, &next, 10);
        if (next == q) break;
        s->lists[at][n++] = based && v > 0 ? v - 1 : v;
        q = next + strspn(next, ", ");
      }
      s->attr[at] = NYX_LIST(s->lists[at], n);
    } else if (type == NYX_ATTR_STRING || type == NYX_ATTR_DTYPE) {
      size_t length = (size_t)(p - value);
      if (length > 31) length = 31;
      memcpy(s->words[at], value, length);
      nyx_dtype dtype = NYX_FLOAT32;
      if (type == NYX_ATTR_STRING)
        s->attr[at] = NYX_S(s->words[at]);
      else if (nyx_dtype_find(s->words[at], &dtype))
        s->attr[at] = NYX_I(dtype);
    } else if (type == NYX_ATTR_FLOAT) {
      s->attr[at] = NYX_F(strtod(value, NULL));
    } else if (type == NYX_ATTR_BOOL) {
      s->attr[at] = NYX_I(*value == 't');
    } else {
      int64_t v = strtoll(value, NULL, 10);
      s->attr[at] = NYX_I(based && v > 0 ? v - 1 : v);
    }
  }
}

static void cases_drop(cases_sample *s) {
  for (int i = 0; i < CASES_INPUTS; i++) nyx_tensor_release(s->in[i]);
}

/* Calls visit with every sample of a structural op. */
__attribute__((unused)) static void cases_of_op(nyx_context *ctx, const nyx_op *op,
                                                const cases_options *options,
                                                void (*visit)(cases_sample *s)) {
  for (const char *p = op->cases; p && *p;) {
    cases_sample s = {.op = op, .text = p, .length = (int)strcspn(p, "\n")};
    const char *end = p + s.length;
    cases_read_attrs(cases_read_inputs(ctx, options, p, end, &s), end, &s);
    visit(&s);
    cases_drop(&s);
    p = end + (*end == '\n');
  }
}

/* The same for a row or a reduction: one call, on a matrix and, where there are more
 * inputs, vectors of its columns. */
__attribute__((unused)) static void cases_of_row(nyx_context *ctx, const nyx_op *op,
                                                 const cases_options *options,
                                                 void (*visit)(cases_sample *s)) {
  if (!(op->dtypes & NYX_DTYPES(options->dtype))) return;
  cases_sample s = {.op = op, .text = "", .n = op->max_in};
  int64_t shape[2] = {3 * options->scale, 4 * options->scale};
  bool row = op->kind == NYX_OP_ELEMENTWISE;
  for (int k = 0; k < op->max_in; k++)
    s.in[k] = cases_filled(ctx, options->dtype, k ? 1 : 2, k ? shape + 1 : shape, 0,
                           row ? op->domain[0] : 0.6, row ? op->domain[1] : 1.4);
  visit(&s);
  cases_drop(&s);
}

/* Every sample of every op. */
__attribute__((unused)) static void cases_of_all(nyx_context *ctx,
                                                 const cases_options *options,
                                                 void (*visit)(cases_sample *s)) {
  for (int i = 0; i < nyx_op_count(); i++) {
    const nyx_op *op = nyx_op_at(i);
    if (op->kind == NYX_OP_ELEMENTWISE || op->kind == NYX_OP_REDUCTION)
      cases_of_row(ctx, op, options, visit);
    else
      cases_of_op(ctx, op, options, visit);
  }
}

#endif
