/* Promises of the public headers that no other test checks: views nobody can count,
 * targets that repeat elements, messages, positions beyond the base, what failures leave
 * alone. Read next: core/include/nyx. */
#include <nyx/nyx.h>

#include "check.h"
#include "tensors.h"

static nyx_tensor *line(nyx_dtype dtype, int64_t n) {
  nyx_tensor *t = NULL;
  if (nyx_tensor_empty(ctx, dtype, 1, &n, &t) != NYX_OK) return NULL;
  memset(nyx_tensor_data(t), 0, nyx_tensor_storage_bytes(t));
  return t;
}

static nyx_status call(const char *name, nyx_tensor *x, const nyx_value *attr,
                       nyx_tensor **out) {
  *out = NULL;
  return nyx_apply(ctx, nyx_op_find(name), &x, 1, attr, out);
}

/* Windows over windows repeat elements at no cost, until they cannot be counted. */
static void views_stay_countable(void) {
  nyx_tensor *x = line(NYX_FLOAT32, 1 << 20), *next;
  nyx_status status = NYX_OK;
  int steps = 0;
  for (; status == NYX_OK && steps < 6; steps++) {
    nyx_value attr[] = {NYX_I(0), NYX_I(nyx_tensor_shape(x)[0] / 2), NYX_I(1)};
    status = call("unfold", x, attr, &next);
    if (status != NYX_OK) break;
    nyx_tensor_release(x);
    x = next;
  }
  CHECK_STATUS(status, NYX_ERR_SHAPE);
  CHECK_CONTAINS(nyx_context_error(ctx), "unfold: ");
  CHECK(steps > 1 && nyx_tensor_numel(x) > 0);
  nyx_tensor_release(x);
  x = line(NYX_INT8, 1);
  int64_t huge[] = {(int64_t)1 << 62};
  nyx_value shape = NYX_LIST(huge, 1);
  CHECK_STATUS(call("expand", x, &shape, &next), NYX_ERR_SHAPE);
  huge[0] = (int64_t)1 << 59;
  REQUIRE(CHECK_OK(ctx, call("expand", x, &shape, &next)));
  double none;
  CHECK_STATUS(nyx_tensor_read(ctx, next, NYX_FLOAT64, &none, 0), NYX_ERR_ARGUMENT);
  nyx_tensor_release(next);
  nyx_tensor_release(x);
}

/* What expanded inputs broadcast to may be more than anybody can count. */
static void broadcasts_stay_countable(void) {
  nyx_tensor *one = line(NYX_BOOL, 1), *number = line(NYX_INT64, 1), *x, *y, *out[1];
  int64_t rows[] = {(int64_t)1 << 40, 1}, columns[] = {1, (int64_t)1 << 40};
  nyx_value shape = NYX_LIST(rows, 2);
  REQUIRE(CHECK_OK(ctx, call("expand", one, &shape, &x)));
  REQUIRE(CHECK_OK(ctx, call("expand", number, &shape, &y)));
  shape = NYX_LIST(columns, 2);
  nyx_tensor *a, *b;
  REQUIRE(CHECK_OK(ctx, call("expand", one, &shape, &a)));
  REQUIRE(CHECK_OK(ctx, call("expand", number, &shape, &b)));
  const struct {
    const char *name;
    int n;
    nyx_tensor *in[3];
  } calls[] = {{"masked_select", 2, {b, x}},
               {"masked_fill", 2, {b, x}},
               {"add", 2, {y, b}},
               {"index", 3, {x, y, b}}};
  for (int i = 0; i < 4; i++) {
    out[0] = NULL;
    const nyx_op *op = nyx_op_find(calls[i].name);
    nyx_value zero = NYX_F(0);
    nyx_status status =
        nyx_apply(ctx, op, calls[i].in, calls[i].n, op->n_attrs ? &zero : NULL, out);
    CHECK_AT(status == NYX_ERR_SHAPE, "the shape is refused", ": %s: %s", calls[i].name,
             nyx_context_error(ctx));
  }
  nyx_tensor *all[] = {one, number, x, y, a, b};
  for (int i = 0; i < 6; i++) nyx_tensor_release(all[i]);
}

/* Inputs of one op are on one device, whatever serves the op. */
static void devices_do_not_mix(void) {
  nyx_device *device;
  if (nyx_device_find(ctx, "opencl", &device) != NYX_OK) {
    printf("# no OpenCL device: devices_do_not_mix checks nothing\n");
    return;
  }
  nyx_tensor *x = line(NYX_FLOAT32, 3), *there, *out[1] = {NULL};
  REQUIRE(CHECK_OK(ctx, nyx_tensor_to(ctx, x, device, &there)));
  static const char *const names[] = {"cat", "stack", "add"};
  for (int i = 0; i < 3; i++) {
    nyx_tensor *in[] = {x, there};
    CHECK_STATUS(nyx_apply(ctx, nyx_op_find(names[i]), in, 2, NULL, out), NYX_ERR_DEVICE);
    CHECK_CONTAINS(nyx_context_error(ctx), "inputs are on cpu and opencl");
  }
  nyx_tensor_release(there);
  nyx_tensor_release(x);
}

static void overlapping_targets_are_refused(void) {
  nyx_tensor *x = line(NYX_FLOAT32, 6), *windows, *one;
  nyx_value attr[] = {NYX_I(0), NYX_I(3), NYX_I(1)};
  REQUIRE(CHECK_OK(ctx, call("unfold", x, attr, &windows)));
  CHECK_OK(ctx, nyx_tensor_scalar(ctx, 1, NYX_FLOAT32, true, &one));
  nyx_tensor *in[] = {windows, one}, *out[] = {windows};
  CHECK_STATUS(nyx_apply(ctx, nyx_op_find("add"), in, 2, NULL, out), NYX_ERR_ARGUMENT);
  CHECK(out[0] == windows);
  CHECK_NEAR(*(float *)nyx_tensor_data(x), 0, 0);
  nyx_tensor_release(windows);
  attr[2] = NYX_I(3); /* side by side: no element twice */
  REQUIRE(CHECK_OK(ctx, call("unfold", x, attr, &windows)));
  in[0] = out[0] = windows;
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("add"), in, 2, NULL, out));
  CHECK_NEAR(((float *)nyx_tensor_data(x))[5], 1, 0);
  nyx_tensor_release(windows);
  nyx_tensor_release(one);
  nyx_tensor_release(x);
}

static void messages_name_the_op_that_was_asked_for(void) {
  nyx_tensor *x = line(NYX_FLOAT32, 6), *value, *out[1] = {NULL};
  int64_t start[] = {4}, length[] = {5}, step[] = {1};
  nyx_value attr[] = {NYX_LIST(start, 1), NYX_LIST(length, 1), NYX_LIST(step, 1)};
  CHECK_OK(ctx, nyx_tensor_scalar(ctx, 1, NYX_FLOAT32, true, &value));
  nyx_tensor *in[] = {x, value};
  CHECK_STATUS(nyx_apply(ctx, nyx_op_find("assign"), in, 2, attr, out), NYX_ERR_INDEX);
  CHECK_CONTAINS(nyx_context_error(ctx), "assign: 5 elements from position 4");
  nyx_value dtype = NYX_I(-1);
  CHECK_STATUS(call("to", x, &dtype, &out[0]), NYX_ERR_ARGUMENT);
  CHECK_STR(nyx_context_error(ctx), "to: 'dtype' is -1, expected a dtype");
  nyx_tensor_release(value);
  nyx_tensor_release(x);
}

/* The user's own numbers, also where the base cannot be added. */
static void positions_are_said_as_the_user_counts(void) {
  nyx_tensor *x = line(NYX_FLOAT32, 3), *number, *out;
  CHECK_OK(ctx, nyx_tensor_scalar(ctx, 1, NYX_FLOAT32, false, &number));
  nyx_context_set_index_base(ctx, 1);
  nyx_value attr[4] = {NYX_I(0), NYX_I(INT64_MAX)};
  CHECK_STATUS(call("select", x, attr, &out), NYX_ERR_INDEX);
  attr[1] = NYX_I(3);
  CHECK_STATUS(call("select", x, attr, &out), NYX_ERR_INDEX);
  CHECK_CONTAINS(nyx_context_error(ctx), "position 4 is out of range for dimension 1");
  attr[1] = NYX_I(0);
  CHECK_STATUS(call("select", number, attr, &out), NYX_ERR_INDEX);
  CHECK_CONTAINS(nyx_context_error(ctx), "dimension 1 is out of range");
  attr[2] = NYX_I(1), attr[3] = NYX_I(INT64_MAX); /* a step of any size is no step */
  CHECK_OK(ctx, call("narrow", x, attr, &out));
  nyx_tensor_release(out);
  nyx_context_set_index_base(ctx, 0);
  nyx_tensor_release(number);
  nyx_tensor_release(x);
}

/* A tensor of positions after one that was left out is not ignored. */
static void positions_have_no_gaps(void) {
  nyx_tensor *x = line(NYX_FLOAT32, 3), *at = line(NYX_INT64, 1), *out[1] = {NULL};
  nyx_tensor *in[] = {x, at, NULL, at};
  CHECK_STATUS(nyx_apply(ctx, nyx_op_find("index"), in, 4, NULL, out), NYX_ERR_ARGUMENT);
  CHECK_CONTAINS(nyx_context_error(ctx), "input 3 (index2) is missing");
  nyx_tensor_release(at);
  nyx_tensor_release(x);
}

/* The gradient of a value in a narrower dtype comes in that dtype. */
static void assigned_values_have_gradients_of_their_dtype(void) {
  nyx_tensor *x = line(NYX_FLOAT64, 3), *value = line(NYX_FLOAT32, 2), *out[1] = {NULL};
  int64_t start[] = {1}, length[] = {2}, step[] = {1};
  nyx_value attr[] = {NYX_LIST(start, 1), NYX_LIST(length, 1), NYX_LIST(step, 1)};
  CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, value, true));
  nyx_tensor *in[] = {x, value}, *seed = line(NYX_FLOAT64, 3);
  ((double *)nyx_tensor_data(seed))[2] = 5;
  REQUIRE(CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("assign"), in, 2, attr, out)));
  CHECK_OK(ctx, nyx_backward_run(ctx, out[0], seed, NULL));
  nyx_tensor *g = nyx_tensor_grad(value);
  if (CHECK(g && nyx_tensor_dtype(g) == NYX_FLOAT32))
    CHECK_NEAR(((float *)nyx_tensor_data(g))[1], 5, 0);
  nyx_tensor_release(out[0]);
  nyx_tensor_release(seed);
  nyx_tensor_release(value);
  nyx_tensor_release(x);
}

/* A gradient that was set to a view which repeats elements is replaced, not added to. */
static void expanded_gradients_are_replaced(void) {
  nyx_tensor *x = line(NYX_FLOAT32, 3), *one, *wide, *seed = line(NYX_FLOAT32, 3);
  nyx_tensor *out[1] = {NULL};
  CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, x, true));
  CHECK_OK(ctx, nyx_tensor_scalar(ctx, 1, NYX_FLOAT32, false, &one));
  nyx_value shape = NYX_LIST((const int64_t[]){3}, 1);
  REQUIRE(CHECK_OK(ctx, call("expand", one, &shape, &wide)));
  CHECK_OK(ctx, nyx_tensor_set_grad(ctx, x, wide));
  for (int i = 0; i < 3; i++) ((float *)nyx_tensor_data(seed))[i] = (float)i;
  REQUIRE(CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("neg"), &x, 1, NULL, out)));
  CHECK_OK(ctx, nyx_backward_run(ctx, out[0], seed, NULL));
  float got[3];
  CHECK_OK(ctx, nyx_tensor_read(ctx, nyx_tensor_grad(x), NYX_FLOAT32, got, sizeof got));
  for (int i = 0; i < 3; i++) CHECK_NEAR(got[i], 1 - i, 0);
  CHECK_NEAR(*(float *)nyx_tensor_data(one), 1, 0);
  nyx_tensor_release(out[0]);
  nyx_tensor_release(wide);
  nyx_tensor_release(one);
  nyx_tensor_release(seed);
  nyx_tensor_release(x);
}

static int freed;
static void count_free(void *arg) {
  (void)arg;
  freed++;
}

static void wrapped_memory_is_freed_once(void) {
  float data[4] = {1, 2, 3, 4};
  int64_t shape[] = {4}, wrong[] = {-1};
  nyx_tensor *t, *view;
  freed = 0;
  CHECK_STATUS(nyx_tensor_wrap(ctx, NYX_FLOAT32, 1, wrong, data, count_free, NULL, &t),
               NYX_ERR_SHAPE);
  CHECK(t == NULL);
  CHECK_INT(freed, 0); /* the arguments were not valid: nothing was taken */
  nyx_status status = NYX_ERR_MEMORY;
  for (int n = 0; status != NYX_OK; n++) { /* each of its allocations fails once */
    freed = 0;
    nyx_memory_fail_after(n);
    status = nyx_tensor_wrap(ctx, NYX_FLOAT32, 1, shape, data, count_free, NULL, &t);
    nyx_memory_fail_after(-1);
    if (n == 0 || status != NYX_OK) CHECK_STATUS(status, NYX_ERR_MEMORY);
    if (status == NYX_OK) break;
    CHECK(t == NULL);
    CHECK_INT(freed, 1);
  }
  CHECK_INT(freed, 0);
  CHECK_OK(ctx, nyx_tensor_detach(ctx, t, &view));
  nyx_tensor_release(t);
  CHECK_INT(freed, 0);
  nyx_tensor_release(view);
  CHECK_INT(freed, 1);
}

static nyx_memory_stats memory_now(void) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  return stats;
}

/* A tensor is one block with its storage and few elements, which views keep after it. */
static void the_last_tensor_frees_the_block(void) {
  const float data[3] = {1, 2, 3};
  float read[3] = {0};
  const int64_t shape[] = {3};
  nyx_tensor *t = NULL, *view = NULL;
  nyx_memory_stats before = memory_now();
  REQUIRE(CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_FLOAT32, 1, shape, data, &t)));
  CHECK_INT((int64_t)(memory_now().allocated - before.allocated), 1);
  REQUIRE(CHECK_OK(ctx, nyx_tensor_detach(ctx, t, &view)));
  nyx_tensor_release(t);
  t = NULL; /* takes what the block would have left behind, had it been freed */
  REQUIRE(CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_FLOAT32, 1, shape, read, &t)));
  CHECK_OK(ctx, nyx_tensor_read(ctx, view, NYX_FLOAT32, read, sizeof read));
  for (int i = 0; i < 3; i++) CHECK_INT((int)read[i], (int)data[i]);
  nyx_tensor_release(t);
  nyx_tensor_release(view);
  CHECK_INT((int64_t)memory_now().live, (int64_t)before.live);
}

static nyx_status nothing(nyx_call *c) {
  (void)c;
  return NYX_OK;
}

static void incomplete_ops_are_refused(void) {
  nyx_op op = {.name = "header_test_op",
               .group = "g",
               .doc = "d",
               .inputs = "x",
               .kind = NYX_OP_STRUCTURAL,
               .min_in = 1,
               .max_in = 1,
               .n_out = 1,
               .infer = nothing,
               .cpu = nothing};
  nyx_op bad[5] = {op, op, op, op, op};
  bad[0].n_attrs = -1;
  bad[1].min_in = 2;
  bad[2].min_in = -1;
  bad[3].n_attrs = 1; /* and no attrs */
  bad[4].max_in = NYX_MAX_INPUTS + 1;
  for (int i = 0; i < 5; i++) {
    nyx_op *one = &bad[i];
    CHECK_AT(nyx_op_register(ctx, one) == NYX_ERR_ARGUMENT, "it is refused", ": %d", i);
  }
  CHECK(nyx_op_find("header_test_op") == NULL);
}

/* Rows have texts, other ops and inputs without a gradient none. */
static void texts_of_rows(void) {
  const nyx_op *row = nyx_op_find("where");
  CHECK_STR(nyx_op_text(nyx_op_find("sub"), 0), "x - y");
  CHECK_STR(nyx_op_text(nyx_op_find("sub"), 2), "-g");
  CHECK(nyx_op_text(row, 1) == NULL && nyx_op_text(row, 3) != NULL);
  CHECK(nyx_op_text(row, -1) == NULL && nyx_op_text(row, 4) == NULL);
  CHECK(nyx_op_text(nyx_op_find("sum"), 0) == NULL);
  CHECK(nyx_op_text(nyx_op_find("matmul"), 0) == NULL && nyx_op_text(NULL, 0) == NULL);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(views_stay_countable);
  RUN(broadcasts_stay_countable);
  RUN(devices_do_not_mix);
  RUN(overlapping_targets_are_refused);
  RUN(messages_name_the_op_that_was_asked_for);
  RUN(positions_are_said_as_the_user_counts);
  RUN(positions_have_no_gaps);
  RUN(assigned_values_have_gradients_of_their_dtype);
  RUN(expanded_gradients_are_replaced);
  RUN(wrapped_memory_is_freed_once);
  RUN(the_last_tensor_frees_the_block);
  RUN(incomplete_ops_are_refused);
  RUN(texts_of_rows);
  nyx_context_free(ctx);
  return check_done();
}
