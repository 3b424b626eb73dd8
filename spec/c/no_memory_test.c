/* Every op of the table, forward and backward, with every allocation failing in turn: the
 * call reports it, leaks nothing and leaves its inputs as they were. The calls come from
 * what ops say of themselves. Read next: core/include/nyx/op.h (the syntax of `cases`).
 */
#include <nyx/nyx.h>
#include <stdlib.h>

#include "check.h"

#define MAX_INPUTS 8

static nyx_context *ctx;

typedef struct sample {
  nyx_tensor *in[MAX_INPUTS];
  int n;
  nyx_value attr[NYX_MAX_ATTRS];
  int64_t lists[NYX_MAX_ATTRS][16];
  char words[NYX_MAX_ATTRS][32];
} sample;

static size_t live(void) {
  nyx_memory_stats s;
  nyx_memory_get_stats(&s);
  return s.live;
}

/* A float64 tensor of values in 0.6..1.4, or, with below > 0, positions under it, or,
 * with below < 0, a mask. */
static nyx_tensor *filled(int ndim, const int64_t *shape, int64_t below, double lo,
                          double hi) {
  nyx_tensor *t = NULL;
  nyx_dtype dtype = below > 0 ? NYX_INT64 : below < 0 ? NYX_BOOL : NYX_FLOAT64;
  if (nyx_tensor_empty(ctx, dtype, ndim, shape, &t) != NYX_OK) return NULL;
  for (int64_t i = 0; i < nyx_tensor_numel(t); i++) {
    double part = (double)(i * 7 % 10) / 10 + 0.03;
    if (below > 0)
      ((int64_t *)nyx_tensor_data(t))[i] = i % below;
    else if (below < 0)
      ((uint8_t *)nyx_tensor_data(t))[i] = i % 3 != 1;
    else
      ((double *)nyx_tensor_data(t))[i] = lo + (hi - lo) * part;
  }
  return t;
}

static int input_named(const nyx_op *op, const char *name, size_t length) {
  int i = 0;
  if (op->variadic) return -1;
  for (const char *p = op->inputs; *p; i++) {
    size_t n = strcspn(p, " ");
    if (n == length && memcmp(p, name, n) == 0) return i;
    p += n + strspn(p + n, " ");
  }
  return -1;
}

/* Reads "name(2,3)<5" and "name(2,3)<bool" items up to the semicolon. */
static const char *read_inputs(const nyx_op *op, const char *p, const char *end,
                               sample *s) {
  while (p < end && *p != ';') {
    while (p < end && *p == ' ') p++;
    const char *name = p;
    while (p < end && *p != '(' && *p != ';') p++;
    if (p >= end || *p == ';') break;
    int at = input_named(op, name, (size_t)(p - name));
    if (at < 0) at = s->n;
    int64_t shape[NYX_MAX_DIMS], below = 0;
    int ndim = 0;
    p++;
    while (p < end && *p != ')') {
      char *next;
      shape[ndim++] = strtoll(p, &next, 10);
      p = next + (*next == ',');
    }
    p++;
    if (p < end && *p == '<') {
      char *next;
      bool mask = strncmp(p + 1, "bool", 4) == 0;
      below = mask ? -1 : strtoll(p + 1, &next, 10);
      p = mask ? p + 5 : next;
    }
    s->in[at] = filled(ndim, shape, below, 0.6, 1.4);
    if (at >= s->n) s->n = at + 1;
  }
  return p < end ? p + 1 : end;
}

/* Reads "name=value" items; dimensions and positions are 1-based, as in Lua. */
static void read_attrs(const nyx_op *op, const char *p, const char *end, sample *s) {
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

static void drop(sample *s) {
  for (int i = 0; i < MAX_INPUTS; i++) nyx_tensor_release(s->in[i]);
}

/* One call and, where there is one, its backward pass. */
static nyx_status once(const nyx_op *op, sample *s) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_status status = nyx_apply(ctx, op, s->in, s->n, s->attr, out);
  if (status == NYX_OK && nyx_tensor_requires_grad(out[0]) &&
      !nyx_tensor_is_leaf(out[0]) && nyx_tensor_numel(out[0]) > 0) {
    nyx_tensor *seed = NULL;
    status = nyx_tensor_empty(ctx, nyx_tensor_dtype(out[0]), nyx_tensor_ndim(out[0]),
                              nyx_tensor_shape(out[0]), &seed);
    if (status == NYX_OK) {
      double *data = nyx_tensor_data(seed);
      for (int64_t i = 0; i < nyx_tensor_numel(seed); i++) data[i] = 1;
      status = nyx_backward_run(ctx, out[0], seed, NULL);
    }
    nyx_tensor_release(seed);
  }
  for (int i = 0; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(out[i]);
  for (int i = 0; i < s->n; i++)
    if (s->in[i]) CHECK(nyx_tensor_set_grad(ctx, s->in[i], NULL) == NYX_OK);
  return status;
}

/* Fails the first, the second, ... allocation until the call has all that it needs. */
static void every_failure(const nyx_op *op, sample *s, const char *text, int length) {
  double first[MAX_INPUTS];
  for (int i = 0; i < s->n; i++) {
    if (!s->in[i]) continue;
    if (nyx_tensor_dtype(s->in[i]) == NYX_FLOAT64 && op->gradient)
      CHECK(nyx_tensor_set_requires_grad(ctx, s->in[i], true) == NYX_OK);
    if (nyx_tensor_dtype(s->in[i]) == NYX_FLOAT64 && nyx_tensor_numel(s->in[i]) > 0)
      first[i] = *(double *)nyx_tensor_data(s->in[i]);
  }
  nyx_status status = once(op, s); /* opens what is opened once */
  CHECK_AT(status == NYX_OK, "the call itself", ": %s %.*s: %s", op->name, length, text,
           nyx_context_error(ctx));
  bool updates = op->updates || strstr(op->name, "_step") != NULL;
  for (int n = 0; status == NYX_OK && n < 2000; n++) {
    size_t before = live();
    nyx_memory_fail_after(n);
    nyx_status failing = once(op, s);
    nyx_memory_fail_after(-1);
    size_t leaked = live() - before;
    CHECK_AT(leaked == 0, "nothing leaks", ": %s %.*s, allocation %d: %zu bytes",
             op->name, length, text, n, leaked);
    for (int i = 0; i < s->n; i++)
      if (s->in[i] && !updates && nyx_tensor_dtype(s->in[i]) == NYX_FLOAT64 &&
          nyx_tensor_numel(s->in[i]) > 0)
        CHECK_AT(*(double *)nyx_tensor_data(s->in[i]) == first[i], "inputs stay",
                 ": %s %.*s", op->name, length, text);
    if (failing == NYX_OK) return;
    if (!CHECK_AT(failing == NYX_ERR_MEMORY, "the status is memory", ": %s %.*s: %s (%s)",
                  op->name, length, text, nyx_status_name(failing),
                  nyx_context_error(ctx)))
      return;
  }
}

static void structural_ops(void) {
  for (int i = 0; i < nyx_op_count(); i++) {
    const nyx_op *op = nyx_op_at(i);
    for (const char *p = op->cases; p && *p;) {
      int length = (int)strcspn(p, "\n");
      sample s = {.n = 0};
      const char *end = p + length;
      read_attrs(op, read_inputs(op, p, end, &s), end, &s);
      every_failure(op, &s, p, length);
      drop(&s);
      p = end + (*end == '\n');
    }
  }
}

static void rows_and_reductions(void) {
  for (int i = 0; i < nyx_op_count(); i++) {
    const nyx_op *op = nyx_op_at(i);
    if (op->kind != NYX_OP_ELEMENTWISE && op->kind != NYX_OP_REDUCTION) continue;
    if (!(op->dtypes & NYX_DTYPES(NYX_FLOAT64))) continue;
    sample s = {.n = op->max_in};
    int64_t shape[2] = {3, 4};
    bool row = op->kind == NYX_OP_ELEMENTWISE;
    for (int k = 0; k < op->max_in; k++)
      s.in[k] = filled(k ? 1 : 2, k ? shape + 1 : shape, 0, row ? op->domain[0] : 0.6,
                       row ? op->domain[1] : 1.4);
    every_failure(op, &s, "", 0);
    drop(&s);
  }
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(rows_and_reductions);
  RUN(structural_ops);
  nyx_context_free(ctx);
  return check_done();
}
