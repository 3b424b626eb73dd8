/* Every op of the table with arguments nobody means: hostile sizes, positions, numbers,
 * lists and dtypes, missing and empty inputs. Whatever comes, the call returns; a failure
 * has a message that begins with the op, makes no output, leaks nothing and leaves the
 * inputs as they were. Under sanitizers this finds what reads or overflows. Read next:
 * cases.h. */
#include <nyx/nyx.h>
#include <time.h>

#include "cases.h"
#include "check.h"

static nyx_context *ctx;
static int calls, failures;

static size_t live(void) {
  nyx_memory_stats s;
  nyx_memory_get_stats(&s);
  return s.live;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A sum over the bytes of all inputs' storage. */
static uint64_t fingerprint(nyx_tensor *const *in, int n) {
  uint64_t h = 1469598103934665603u;
  for (int i = 0; i < n; i++) {
    if (!in[i] || nyx_tensor_numel(in[i]) == 0) continue;
    const unsigned char *p = nyx_tensor_data(in[i]);
    size_t bytes =
        nyx_tensor_storage_bytes(in[i]) -
        (size_t)nyx_tensor_offset(in[i]) * nyx_dtype_size(nyx_tensor_dtype(in[i]));
    for (size_t k = 0; k < bytes; k++) h = (h ^ p[k]) * 1099511628211u;
  }
  return h;
}

/* One call, forward and, where it is recorded, backward. */
static void attempt(const cases_sample *s, nyx_tensor *const *in, int n,
                    const nyx_value *attr, const char *what) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  const nyx_op *op = s->op;
  uint64_t before = fingerprint(in, n);
  size_t used = live();
  double start = now();
  nyx_memory_set_limit(used + ((size_t)8 << 20));
  nyx_status status = nyx_apply(ctx, op, in, n, attr, out);
  calls++;
  if (status != NYX_OK) {
    failures++;
    size_t length = strlen(op->name);
    const char *message = nyx_context_error(ctx);
    CHECK_AT(strncmp(message, op->name, length) == 0 && message[length] == ':',
             "the message begins with the op", ": %s %.*s [%s]: \"%s\"", op->name,
             s->length, s->text, what, message);
    for (int i = 0; i < NYX_MAX_OUTPUTS; i++)
      CHECK_AT(out[i] == NULL, "no output", ": %s %.*s [%s]", op->name, s->length,
               s->text, what);
  } else if (nyx_tensor_requires_grad(out[0]) && nyx_tensor_numel(out[0]) < 100000) {
    nyx_tensor *seed = NULL;
    if (nyx_tensor_empty(ctx, nyx_tensor_dtype(out[0]), nyx_tensor_ndim(out[0]),
                         nyx_tensor_shape(out[0]), &seed) == NYX_OK) {
      memset(nyx_tensor_data(seed), 0, nyx_tensor_storage_bytes(seed));
      nyx_status back = nyx_backward_run(ctx, out[0], seed, NULL);
      CHECK_AT(back == NYX_OK || back == NYX_ERR_UNSUPPORTED || back == NYX_ERR_MEMORY,
               "the backward pass", ": %s %.*s [%s]: %s", op->name, s->length, s->text,
               what, nyx_context_error(ctx));
    }
    nyx_tensor_release(seed);
  }
  nyx_memory_set_limit(0);
  for (int i = 0; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(out[i]);
  for (int i = 0; i < n; i++)
    if (in[i]) CHECK(nyx_tensor_set_grad(ctx, in[i], NULL) == NYX_OK);
  if (live() != used) nyx_memory_trim(); /* plans of Fourier transforms stay until then */
  CHECK_AT(live() == used, "nothing leaks", ": %s %.*s [%s]: %lld bytes", op->name,
           s->length, s->text, what, (long long)(live() - used));
  CHECK_AT(fingerprint(in, n) == before || strstr(op->name, "_step") ||
               strstr(op->name, "batch_norm"),
           "the inputs stay", ": %s %.*s [%s]", op->name, s->length, s->text, what);
  CHECK_AT(now() - start < 20, "it ends soon", ": %s %.*s [%s]: %.1f s", op->name,
           s->length, s->text, what, now() - start);
}

/* Attributes: each in turn gets every hostile value of its type */

static const int64_t counts[] = {INT64_MIN,
                                 INT64_MIN + 1,
                                 -((int64_t)1 << 32),
                                 -3,
                                 -2,
                                 -1,
                                 0,
                                 1,
                                 2,
                                 3,
                                 7,
                                 8,
                                 9,
                                 64,
                                 ((int64_t)1 << 31),
                                 (int64_t)1 << 32,
                                 (int64_t)1 << 61,
                                 (int64_t)1 << 62,
                                 INT64_MAX - 1,
                                 INT64_MAX};
enum { COUNTS = sizeof counts / sizeof *counts };

static void number_attr(const cases_sample *s, int at, const char *name) {
  static const double numbers[] = {NAN,    INFINITY, -INFINITY, 0,     -0.0,   -1,
                                   1,      0.5,      2,         1e300, -1e300, 1e-320,
                                   9.3e18, -9.3e18,  4e9,       255.5};
  nyx_value attr[NYX_MAX_ATTRS];
  char what[96];
  memcpy(attr, s->attr, sizeof attr);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    attr[at] = NYX_F(numbers[i]);
    snprintf(what, sizeof what, "%s = %g", name, numbers[i]);
    attempt(s, s->in, s->n, attr, what);
  }
}

static void count_attr(const cases_sample *s, int at, const char *name) {
  nyx_value attr[NYX_MAX_ATTRS];
  char what[96];
  memcpy(attr, s->attr, sizeof attr);
  for (int i = 0; i < COUNTS; i++) {
    attr[at] = NYX_I(counts[i]);
    snprintf(what, sizeof what, "%s = %lld", name, (long long)counts[i]);
    attempt(s, s->in, s->n, attr, what);
  }
}

static void list_attr(const cases_sample *s, int at, const char *name) {
  nyx_value attr[NYX_MAX_ATTRS];
  int64_t list[40];
  char what[96];
  memcpy(attr, s->attr, sizeof attr);
  int own = s->attr[at].given ? s->attr[at].n : 2;
  for (int i = 0; i < COUNTS; i++) {
    for (int n = 0; n < 40; n = n < 5    ? n + 1
                                : n == 5 ? 8
                                : n == 8 ? 9
                                : n == 9 ? 17
                                         : 40) {
      for (int k = 0; k < n; k++) list[k] = counts[i];
      attr[at] = NYX_LIST(list, n);
      snprintf(what, sizeof what, "%s = %d times %lld", name, n, (long long)counts[i]);
      attempt(s, s->in, s->n, attr, what);
    }
    for (int k = 0; s->attr[at].given && k < own;
         k++) { /* one element of the usual list */
      memcpy(list, s->attr[at].list, (size_t)own * sizeof *list);
      list[k] = counts[i];
      attr[at] = NYX_LIST(list, own);
      snprintf(what, sizeof what, "%s[%d] = %lld", name, k, (long long)counts[i]);
      attempt(s, s->in, s->n, attr, what);
    }
  }
}

static void text_attr(const cases_sample *s, int at, const char *name) {
  static char longest[4000];
  memset(longest, 'x', sizeof longest - 1);
  const char *words[] = {"",    "bogus",    "mean",    "none",
                         "sum", "constant", "reflect", longest};
  nyx_value attr[NYX_MAX_ATTRS];
  char what[96];
  memcpy(attr, s->attr, sizeof attr);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    attr[at] = NYX_S(words[i]);
    snprintf(what, sizeof what, "%s = %.20s", name, words[i]);
    attempt(s, s->in, s->n, attr, what);
  }
}

static void dtype_attr(const cases_sample *s, int at, const char *name) {
  nyx_value attr[NYX_MAX_ATTRS];
  char what[96];
  memcpy(attr, s->attr, sizeof attr);
  for (int i = -2; i < NYX_DTYPE_COUNT + 2; i++) {
    attr[at] = NYX_I(i);
    snprintf(what, sizeof what, "%s = %d", name, i);
    attempt(s, s->in, s->n, attr, what);
  }
}

static void require_grads(cases_sample *s) {
  for (int i = 0; i < s->n; i++)
    if (s->in[i] && s->op->gradient && nyx_dtype_is_float(nyx_tensor_dtype(s->in[i])))
      CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, s->in[i], true));
}

static void hostile_attrs(cases_sample *s) {
  require_grads(s);
  for (int i = 0; i < s->op->n_attrs; i++) {
    const nyx_attr *a = &s->op->attrs[i];
    nyx_value attr[NYX_MAX_ATTRS];
    memcpy(attr, s->attr, sizeof attr);
    attr[i] = NYX_NONE;
    attempt(s, s->in, s->n, attr, "an attribute left out");
    switch (a->type) {
      case NYX_ATTR_FLOAT: number_attr(s, i, a->name); break;
      case NYX_ATTR_INTS:
      case NYX_ATTR_DIMS: list_attr(s, i, a->name); break;
      case NYX_ATTR_STRING: text_attr(s, i, a->name); break;
      case NYX_ATTR_DTYPE: dtype_attr(s, i, a->name); break;
      case NYX_ATTR_INT:
      case NYX_ATTR_BOOL:
      case NYX_ATTR_DIM:
      case NYX_ATTR_INDEX: count_attr(s, i, a->name); break;
    }
  }
}

/* Inputs: each in turn, and all at once, get hostile shapes and dtypes */

typedef struct shape {
  int n;
  int64_t size[NYX_MAX_DIMS];
} shape;

static const shape shapes[] = {
    {0, {0}},
    {1, {0}},
    {1, {1}},
    {1, {5}},
    {2, {0, 0}},
    {2, {0, 3}},
    {2, {3, 0}},
    {2, {1, 1}},
    {2, {0, (int64_t)1 << 40}},
    {2, {(int64_t)1 << 40, 0}},
    {3, {2, 0, 3}},
    {3, {0, 2, 3}},
    {3, {(int64_t)1 << 24, (int64_t)1 << 24, 0}},
    {4, {0, 1, 2, 2}},
    {4, {1, 0, 2, 2}},
    {4, {1, 2, 0, 2}},
    {4, {1, 2, 2, 0}},
    {4, {1, 1, 1, 1}},
    {4, {0, 0, 0, 0}},
    {4, {(int64_t)1 << 30, 0, (int64_t)1 << 24, 1}},
    {5, {1, 2, 1, 2, 2}},
    {8, {1, 2, 1, 2, 1, 2, 1, 2}},
    {8, {0, 2, 1, 2, 1, 2, 1, 2}},
    {8, {2, 1, 1, 1, 1, 1, 1, 0}},
};

static nyx_tensor *in_shape(const nyx_tensor *like, const shape *to, int64_t below) {
  nyx_dtype dtype = nyx_tensor_dtype(like);
  return cases_filled(ctx, dtype, to->n, to->size,
                      dtype == NYX_BOOL                          ? -1
                      : nyx_dtype_kind_of(dtype) == NYX_KIND_INT ? below
                                                                 : 0,
                      0.6, 1.4);
}

static void hostile_shapes(cases_sample *s) {
  char what[96];
  require_grads(s);
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
    nyx_tensor *in[CASES_INPUTS];
    for (int which = -1; which < s->n; which++) { /* -1: all */
      memcpy(in, s->in, sizeof in);
      for (int i = 0; i < s->n; i++) {
        if (!s->in[i] || (which >= 0 && i != which)) continue;
        in[i] = in_shape(s->in[i], &shapes[k], 1);
        if (!CHECK(in[i] != NULL)) return;
        if (nyx_tensor_requires_grad(s->in[i]))
          CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, in[i], true));
      }
      snprintf(what, sizeof what, "shape %d of input %d", (int)k, which);
      attempt(s, in, s->n, s->attr, what);
      for (int i = 0; i < s->n; i++)
        if (in[i] != s->in[i]) nyx_tensor_release(in[i]);
    }
  }
}

static void hostile_dtypes(cases_sample *s) {
  char what[96];
  for (int dtype = 0; dtype < NYX_DTYPE_COUNT; dtype++) {
    for (int which = -1; which < s->n; which++) {
      nyx_tensor *in[CASES_INPUTS];
      memcpy(in, s->in, sizeof in);
      for (int i = 0; i < s->n; i++) {
        if (!s->in[i] || (which >= 0 && i != which)) continue;
        bool loses = nyx_dtype_is_complex(nyx_tensor_dtype(s->in[i]));
        if (loses && !nyx_dtype_is_complex((nyx_dtype)dtype)) continue;
        int n = nyx_tensor_ndim(s->in[i]);
        CHECK_OK(ctx, nyx_tensor_empty(ctx, (nyx_dtype)dtype, n,
                                       nyx_tensor_shape(s->in[i]), &in[i]));
        CHECK_OK(ctx,
                 nyx_tensor_read(ctx, s->in[i], (nyx_dtype)dtype, nyx_tensor_data(in[i]),
                                 nyx_tensor_storage_bytes(in[i])));
        if (s->op->gradient && nyx_dtype_is_float((nyx_dtype)dtype))
          CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, in[i], true));
      }
      snprintf(what, sizeof what, "input %d as %s", which,
               nyx_dtype_name((nyx_dtype)dtype));
      attempt(s, in, s->n, s->attr, what);
      for (int i = 0; i < s->n; i++)
        if (in[i] != s->in[i]) nyx_tensor_release(in[i]);
    }
  }
}

static void hostile_counts(cases_sample *s) {
  nyx_tensor *in[NYX_MAX_INPUTS + 2];
  for (int i = 0; i < NYX_MAX_INPUTS + 2; i++) in[i] = s->n ? s->in[i % s->n] : NULL;
  for (int n = 0; n < NYX_MAX_INPUTS + 2; n = n < s->n + 2 ? n + 1 : n + 31)
    attempt(s, in, n, s->attr, "another number of inputs");
  for (int i = 0; i < s->n; i++) {
    nyx_tensor *was = in[i];
    in[i] = NULL;
    attempt(s, in, s->n, s->attr, "a missing input");
    in[i] = was;
  }
}

static const cases_options options = {.dtype = NYX_FLOAT64, .scale = 1};

static void attributes(void) {
  cases_of_all(ctx, &options, hostile_attrs);
}

static void attributes_in_base_1(void) {
  nyx_context_set_index_base(ctx, 1);
  cases_of_all(ctx, &options, hostile_attrs);
  nyx_context_set_index_base(ctx, 0);
}

static void sizes(void) {
  cases_of_all(ctx, &options, hostile_shapes);
}

static void dtypes(void) {
  cases_of_all(ctx, &options, hostile_dtypes);
}

static void missing_inputs(void) {
  cases_of_all(ctx, &options, hostile_counts);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(missing_inputs);
  RUN(dtypes);
  RUN(sizes);
  RUN(attributes);
  RUN(attributes_in_base_1);
  printf("# %d calls, %d refused\n", calls, failures);
  nyx_context_free(ctx);
  return check_done();
}
