/* Every op of the table, forward and backward, of complex tensors too where it takes
 * them, and rows at complex levels, with every allocation failing in turn: the call
 * reports it, leaks nothing and leaves its inputs as they were. The calls come from what
 * ops say of themselves. Read next: cases.h. */
#include <nyx/nyx.h>

#include "cases.h"
#include "check.h"

static nyx_context *ctx;

static size_t live(void) {
  nyx_memory_stats s;
  nyx_memory_get_stats(&s);
  return s.live;
}

static int from_output; /* the one that backward begins at */

/* One call and, where there is one, its backward pass. */
static nyx_status once(cases_sample *s) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_status status = nyx_apply(ctx, s->op, s->in, s->n, s->attr, out);
  nyx_tensor *y = out[from_output];
  if (status == NYX_OK && y && nyx_tensor_requires_grad(y) && !nyx_tensor_is_leaf(y) &&
      nyx_tensor_numel(y) > 0) {
    nyx_tensor *seed = NULL;
    status = nyx_tensor_empty(ctx, nyx_tensor_dtype(y), nyx_tensor_ndim(y),
                              nyx_tensor_shape(y), &seed);
    if (status == NYX_OK) {
      double *data = nyx_tensor_data(seed);
      size_t n = nyx_tensor_storage_bytes(seed) / sizeof *data;
      for (size_t i = 0; i < n; i++) data[i] = 1;
      status = nyx_backward_run(ctx, y, seed, NULL);
    }
    nyx_tensor_release(seed);
  }
  for (int i = 0; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(out[i]);
  for (int i = 0; i < s->n; i++)
    if (s->in[i]) CHECK(nyx_tensor_set_grad(ctx, s->in[i], NULL) == NYX_OK);
  return status;
}

/* One call at a complex level. */
static nyx_status once_complex(cases_sample *s) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL}, *in[CASES_INPUTS] = {NULL};
  nyx_tensor *part[2] = {NULL};
  nyx_level level;
  nyx_status status = nyx_complex_begin(ctx, &level);
  if (status != NYX_OK) return status;
  for (int i = 0; i < s->n && status == NYX_OK; i++) {
    if (nyx_tensor_dtype(s->in[i]) == NYX_FLOAT64)
      status = nyx_complex_lift(ctx, level, s->in[i], s->in[i], &in[i]);
    else
      in[i] = nyx_tensor_retain(s->in[i]);
  }
  if (status == NYX_OK) status = nyx_apply(ctx, s->op, in, s->n, s->attr, out);
  if (status == NYX_OK)
    status = nyx_complex_lower(ctx, level, out[0], &part[0], &part[1]);
  nyx_transform_end(ctx, level);
  for (int i = 0; i < s->n; i++) nyx_tensor_release(in[i]);
  for (int i = 0; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(out[i]);
  for (int i = 0; i < 2; i++) nyx_tensor_release(part[i]);
  return status;
}

static nyx_status (*call)(cases_sample *s) = once;

/* Fails the first, the second, ... allocation until the call has all that it needs. */
static void every_failure(cases_sample *s) {
  const nyx_op *op = s->op;
  const char *text = s->text;
  int length = s->length;
  double first[CASES_INPUTS];
  for (int i = 0; i < s->n; i++) {
    if (!s->in[i]) continue;
    if (nyx_tensor_dtype(s->in[i]) == NYX_FLOAT64 && op->gradient)
      CHECK(nyx_tensor_set_requires_grad(ctx, s->in[i], true) == NYX_OK);
    if (nyx_tensor_dtype(s->in[i]) == NYX_FLOAT64 && nyx_tensor_numel(s->in[i]) > 0)
      first[i] = *(double *)nyx_tensor_data(s->in[i]);
  }
  nyx_status status = call(s); /* opens what is opened once */
  CHECK_AT(status == NYX_OK, "the call itself", ": %s %.*s: %s", op->name, length, text,
           nyx_context_error(ctx));
  bool updates = op->updates || strstr(op->name, "_step") != NULL;
  for (int n = 0; status == NYX_OK && n < 2000; n++) {
    size_t before = live();
    nyx_memory_fail_after(n);
    nyx_status failing = call(s);
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

/* The same in place: what fails has changed nothing, also of what ops update besides
 * their output. */
static void in_place(cases_sample *s) {
  if (s->op->n_out != 1 || s->n == 0 || !s->in[0]) return;
  size_t bytes[CASES_INPUTS] = {0};
  char *before[CASES_INPUTS] = {NULL};
  for (int i = 0; i < s->n; i++) {
    if (!s->in[i]) continue;
    bytes[i] = nyx_tensor_storage_bytes(s->in[i]);
    if (!CHECK((before[i] = malloc(bytes[i] + 1)) != NULL)) return;
    if (bytes[i]) memcpy(before[i], nyx_tensor_data(s->in[i]), bytes[i]);
  }
  nyx_status status = NYX_ERR_MEMORY;
  for (int n = 0; status == NYX_ERR_MEMORY && n < 2000; n++) {
    nyx_tensor *out[1] = {s->in[0]};
    size_t used = live();
    nyx_memory_fail_after(n);
    status = nyx_apply(ctx, s->op, s->in, s->n, s->attr, out);
    nyx_memory_fail_after(-1);
    CHECK_AT(live() == used, "nothing leaks", ": %s %.*s, allocation %d", s->op->name,
             s->length, s->text, n);
    for (int i = 0; status != NYX_OK && i < s->n; i++)
      CHECK_AT(!bytes[i] || !memcmp(before[i], nyx_tensor_data(s->in[i]), bytes[i]),
               "inputs stay", ": %s %.*s, allocation %d, input %d", s->op->name,
               s->length, s->text, n, i);
  }
  for (int i = 0; i < s->n; i++) free(before[i]);
}

static const cases_options options = {.dtype = NYX_FLOAT64, .scale = 1};

static void structural_ops(void) {
  for (int i = 0; i < nyx_op_count(); i++)
    cases_of_op(ctx, nyx_op_at(i), &options, every_failure);
}

static void rows_and_reductions(void) {
  for (int i = 0; i < nyx_op_count(); i++) {
    const nyx_op *op = nyx_op_at(i);
    if (op->kind == NYX_OP_ELEMENTWISE || op->kind == NYX_OP_REDUCTION)
      cases_of_row(ctx, op, &options, every_failure);
  }
}

/* Gradients of further results, which ops may compute in another way. */
static void further_outputs(void) {
  for (from_output = 1; from_output < NYX_MAX_OUTPUTS; from_output++)
    for (int i = 0; i < nyx_op_count(); i++)
      if (nyx_op_at(i)->n_out > from_output)
        cases_of_op(ctx, nyx_op_at(i), &options, every_failure);
  from_output = 0;
}

static void complex_rows(void) {
  call = once_complex;
  for (int i = 0; i < nyx_op_count(); i++)
    if (nyx_op_at(i)->kind == NYX_OP_ELEMENTWISE)
      cases_of_row(ctx, nyx_op_at(i), &options, every_failure);
  call = once;
}

/* Ops that have a meaning for complex tensors, of some and of all inputs that hold
 * numbers; others refuse them. */
static int complex_calls;

static void if_taken(cases_sample *s) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_status status = nyx_apply(ctx, s->op, s->in, s->n, s->attr, out);
  for (int k = 0; k < NYX_MAX_OUTPUTS; k++) nyx_tensor_release(out[k]);
  if (status != NYX_OK) return;
  for (int i = 0; i < s->n; i++)
    if (s->in[i] && s->op->kind != NYX_OP_VIEW &&
        nyx_dtype_is_complex(nyx_tensor_dtype(s->in[i])))
      CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, s->in[i], true));
  complex_calls++;
  every_failure(s);
}

static void one_of_row(const nyx_op *op, uint32_t which) {
  static const int64_t shape[] = {2, 3};
  cases_sample s = {.op = op, .text = "", .n = op->max_in};
  for (int k = 0; k < op->max_in; k++)
    s.in[k] = cases_filled(ctx, which >> k & 1 ? NYX_COMPLEX128 : NYX_FLOAT64, k ? 1 : 2,
                           k ? shape + 1 : shape, 0, 0.6, 1.4);
  if_taken(&s);
  cases_drop(&s);
}

static void complex_tensors(void) {
  const cases_options complex = {.dtype = NYX_COMPLEX128, .scale = 1};
  for (int i = 0; i < nyx_op_count(); i++) {
    const nyx_op *op = nyx_op_at(i);
    bool row = op->kind == NYX_OP_ELEMENTWISE || op->kind == NYX_OP_REDUCTION;
    for (uint32_t which = 1; row && which < 1u << op->max_in; which++)
      one_of_row(op, which);
    if (!row) cases_of_op(ctx, op, &complex, if_taken);
  }
  CHECK_AT(complex_calls > 80, "calls", ": %d", complex_calls);
}

static void in_place_ops(void) {
  cases_of_all(ctx, &options, in_place);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(rows_and_reductions);
  RUN(structural_ops);
  RUN(further_outputs);
  RUN(complex_rows);
  RUN(complex_tensors);
  RUN(in_place_ops);
  nyx_context_free(ctx);
  return check_done();
}
