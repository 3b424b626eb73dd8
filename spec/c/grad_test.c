/* Reverse mode from C: values, accumulation, history, what may not be changed, and graphs
 * too deep for recursion. Read next: core/grad/backward.c. */
#include <nyx/nyx.h>

#include "check.h"

static nyx_context *ctx;

static const nyx_op *op(const char *name) {
  return nyx_op_find(name);
}

static nyx_tensor *vector(int64_t n, const double *values) {
  nyx_tensor *t = NULL;
  CHECK(nyx_tensor_from_data(ctx, NYX_FLOAT64, 1, &n, values, &t) == NYX_OK);
  return t;
}

static nyx_tensor *leaf(int64_t n, const double *values) {
  nyx_tensor *t = vector(n, values);
  CHECK(nyx_tensor_set_requires_grad(ctx, t, true) == NYX_OK);
  return t;
}

/* Applies an op and returns its first output, NULL when it failed. */
static nyx_tensor *call(const char *name, nyx_tensor *a, nyx_tensor *b) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_status status =
      nyx_apply(ctx, op(name), (nyx_tensor *[]){a, b}, b ? 2 : 1, NULL, out);
  return status == NYX_OK ? out[0] : NULL;
}

/* call, taking over the references of its arguments. */
static nyx_tensor *eat(const char *name, nyx_tensor *a, nyx_tensor *b) {
  nyx_tensor *out = call(name, a, b);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  return out;
}

static double at(nyx_tensor *t, int i) {
  return t ? ((const double *)nyx_tensor_data(t))[i] : NAN;
}

static void product_rule(void) {
  nyx_tensor *x = leaf(2, (double[]){3, 4}), *y = leaf(2, (double[]){5, 6});
  nyx_tensor *z = eat("sum", call("mul", x, y), NULL);
  CHECK(nyx_backward_run(ctx, z, NULL, NULL) == NYX_OK);
  CHECK_NEAR(at(nyx_tensor_grad(x), 1), 6, 0);
  CHECK_NEAR(at(nyx_tensor_grad(y), 0), 3, 0);
  CHECK_STR(nyx_tensor_grad_op(z), "sum");
  CHECK(nyx_tensor_is_leaf(x) && !nyx_tensor_is_leaf(z));
  nyx_tensor_release(z);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void gradients_accumulate_and_are_their_own(void) {
  nyx_tensor *x = leaf(2, (double[]){1, 2});
  nyx_tensor *seed = vector(2, (double[]){10, 20});
  for (int i = 0; i < 2; i++) {
    nyx_tensor *y = call("clone", x, NULL);
    CHECK(nyx_backward_run(ctx, y, seed, NULL) == NYX_OK);
    nyx_tensor_release(y);
  }
  CHECK_NEAR(at(nyx_tensor_grad(x), 1), 40, 0);
  CHECK_NEAR(at(seed, 1), 20, 0); /* the seed was not taken for the gradient */
  nyx_tensor_release(seed);
  nyx_tensor_release(x);
}

static void a_tensor_used_twice(void) {
  nyx_tensor *x = leaf(1, (double[]){3});
  nyx_tensor *y = eat("mul", call("mul", x, x), nyx_tensor_retain(x));
  CHECK(nyx_backward_run(ctx, y, NULL, NULL) == NYX_OK);
  CHECK_NEAR(at(nyx_tensor_grad(x), 0), 27, 0);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void third_derivative(void) {
  nyx_tensor *x = leaf(1, (double[]){0.7}), *g = call("tanh", x, NULL);
  nyx_backward_options record = {.create_graph = true};
  for (int order = 1; order <= 3; order++) {
    nyx_tensor *next = NULL;
    CHECK(nyx_gradients(ctx, g, NULL, &x, 1, &record, &next) == NYX_OK);
    nyx_tensor_release(g);
    g = next;
  }
  double t = tanh(0.7), s = 1 - t * t; /* (tanh)''' = 4 t^2 s - 2 s^2 */
  CHECK_NEAR(at(g, 0), 4 * t * t * s - 2 * s * s, 1e-14);
  nyx_tensor_release(g);
  nyx_tensor_release(x);
}

static void only_what_was_asked_for(void) {
  nyx_tensor *x = leaf(1, (double[]){2}), *y = leaf(1, (double[]){5});
  nyx_tensor *other = leaf(1, (double[]){1}), *z = call("mul", x, y);
  nyx_tensor *grads[2], *inputs[2] = {x, other};
  CHECK(nyx_gradients(ctx, z, NULL, inputs, 2, NULL, grads) == NYX_OK);
  CHECK_NEAR(at(grads[0], 0), 5, 0);
  CHECK(grads[1] == NULL);
  CHECK(nyx_tensor_grad(x) == NULL && nyx_tensor_grad(y) == NULL);
  nyx_tensor_release(grads[0]);
  nyx_tensor_release(z);
  nyx_tensor_release(other);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void a_freed_graph_says_so(void) {
  nyx_tensor *x = leaf(1, (double[]){2}), *y = call("mul", x, x);
  nyx_backward_options keep = {.retain_graph = true};
  CHECK(nyx_backward_run(ctx, y, NULL, &keep) == NYX_OK);
  CHECK(nyx_backward_run(ctx, y, NULL, NULL) == NYX_OK);
  CHECK_NEAR(at(nyx_tensor_grad(x), 0), 8, 0);
  CHECK(nyx_backward_run(ctx, y, NULL, NULL) == NYX_ERR_STATE);
  CHECK(strstr(nyx_context_error(ctx), "retain_graph") != NULL);
  CHECK_NEAR(at(nyx_tensor_grad(x), 0), 8, 0);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void a_changed_value_is_refused(void) {
  nyx_tensor *x = leaf(1, (double[]){2}), *y = call("exp", x, NULL);
  nyx_tensor *z = call("mul", y, y), *target[1] = {y};
  nyx_context_set_grad_enabled(ctx, false);
  CHECK(nyx_apply(ctx, op("add"), (nyx_tensor *[]){y, y}, 2, NULL, target) == NYX_OK);
  nyx_context_set_grad_enabled(ctx, true);
  CHECK(nyx_backward_run(ctx, z, NULL, NULL) == NYX_ERR_STATE);
  CHECK(strstr(nyx_context_error(ctx), "in place") != NULL);
  CHECK(nyx_tensor_grad(x) == NULL);
  nyx_tensor_release(z);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void in_place_has_a_history(void) {
  nyx_tensor *x = leaf(2, (double[]){2, 3}), *y = call("mul", x, x), *target[1] = {y};
  nyx_tensor *three = vector(1, (double[]){3});
  CHECK(nyx_apply(ctx, op("mul"), (nyx_tensor *[]){y, three}, 2, NULL, target) == NYX_OK);
  CHECK(target[0] == y);
  nyx_tensor *z = call("sum", y, NULL);
  CHECK(nyx_backward_run(ctx, z, NULL, NULL) == NYX_OK);
  CHECK_NEAR(at(nyx_tensor_grad(x), 1), 18, 0);
  target[0] = x;
  CHECK(nyx_apply(ctx, op("mul"), (nyx_tensor *[]){x, three}, 2, NULL, target) ==
        NYX_ERR_STATE);
  CHECK_NEAR(at(x, 0), 2, 0);
  nyx_tensor_release(z);
  nyx_tensor_release(three);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void in_place_is_all_or_nothing(void) {
  nyx_tensor *x = leaf(2, (double[]){2, 3}), *y = call("clone", x, NULL);
  nyx_tensor *three = leaf(1, (double[]){3}), *target[1] = {y};
  nyx_status status = NYX_ERR_MEMORY;
  int failures = 0;
  for (int n = 0; status == NYX_ERR_MEMORY && n < 100; n++) {
    nyx_memory_fail_after(n);
    status = nyx_apply(ctx, op("mul"), (nyx_tensor *[]){y, three}, 2, NULL, target);
    nyx_memory_fail_after(-1);
    if (status != NYX_ERR_MEMORY) break;
    failures++;
    CHECK_NEAR(at(y, 1), 3, 0);
    CHECK_STR(nyx_tensor_grad_op(y), "clone");
  }
  CHECK(status == NYX_OK && failures > 0);
  CHECK_NEAR(at(y, 1), 9, 0);
  nyx_tensor_release(three);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void in_place_on_itself_remembers_what_was(void) {
  nyx_tensor *x = leaf(1, (double[]){3}), *y = call("clone", x, NULL), *target[1] = {y};
  CHECK(nyx_apply(ctx, op("mul"), (nyx_tensor *[]){y, y}, 2, NULL, target) == NYX_OK);
  CHECK(nyx_backward_run(ctx, y, NULL, NULL) == NYX_OK);
  CHECK_NEAR(at(nyx_tensor_grad(x), 0), 6, 0);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void the_graph_can_be_looked_at(void) {
  nyx_tensor *x = leaf(2, (double[]){1, 2}), *y = call("exp", x, NULL);
  nyx_tensor *z = call("mul", y, x);
  nyx_node *node, *none;
  CHECK(nyx_tensor_grad_node(ctx, x, &none) == NYX_OK && none == NULL);
  CHECK(nyx_tensor_grad_node(ctx, z, &node) == NYX_OK && node != NULL);
  nyx_tensor_release(z); /* the node is held */
  CHECK_STR(nyx_node_name(node), "mul");
  CHECK(nyx_node_input_count(node) == 2 && nyx_node_output_count(node) == 1);
  nyx_node_edge first = nyx_node_input(node, 0), second = nyx_node_input(node, 1);
  CHECK(first.node && !first.leaf && first.index == 0 && first.spec->shape[0] == 2);
  CHECK_STR(nyx_node_name(first.node), "exp");
  CHECK(nyx_node_order(first.node) < nyx_node_order(node));
  CHECK(second.leaf == x && !second.node);
  CHECK(nyx_node_input(node, 2).spec == NULL && nyx_node_output(node, 1) == NULL);
  nyx_spec saved;
  CHECK(nyx_node_saved_count(node) == 3 && !nyx_node_saved(node, 2, &saved));
  CHECK(nyx_node_saved(node, 1, &saved) && saved.ndim == 1 && saved.shape[0] == 2);
  CHECK(!nyx_node_freed(node));
  nyx_tensor_release(y);
  nyx_node_release(node);
  nyx_tensor_release(x);
}

static void broadcast_gradients_are_summed(void) {
  double values[6] = {1, 2, 3, 4, 5, 6};
  int64_t shape[2] = {2, 3};
  nyx_tensor *x = NULL, *b = leaf(3, (double[]){1, 1, 1});
  CHECK(nyx_tensor_from_data(ctx, NYX_FLOAT32, 2, shape, (float[6]){1, 2, 3, 4, 5, 6},
                             &x) == NYX_OK);
  nyx_tensor *z = eat("sum", call("mul", x, b), NULL);
  CHECK(nyx_tensor_dtype(z) == NYX_FLOAT64);
  CHECK(nyx_backward_run(ctx, z, NULL, NULL) == NYX_OK);
  for (int i = 0; i < 3; i++)
    CHECK_NEAR(at(nyx_tensor_grad(b), i), values[i] + values[i + 3], 0);
  nyx_tensor_release(z);
  nyx_tensor_release(b);
  nyx_tensor_release(x);
}

static void numbers_do_not_widen(void) {
  nyx_tensor *x = NULL, *two = NULL, *y, *i = NULL;
  int64_t n = 1;
  CHECK(nyx_tensor_from_data(ctx, NYX_FLOAT32, 1, &n, (float[]){1.5f}, &x) == NYX_OK);
  CHECK(nyx_tensor_from_data(ctx, NYX_INT32, 1, &n, (int32_t[]){3}, &i) == NYX_OK);
  CHECK(nyx_tensor_scalar(ctx, 2, NYX_FLOAT64, true, &two) == NYX_OK);
  y = call("mul", x, two);
  CHECK(nyx_tensor_dtype(y) == NYX_FLOAT32);
  nyx_tensor_release(y);
  y = call("mul", i, two); /* a float number raises an integer tensor to float */
  CHECK(nyx_tensor_dtype(y) == NYX_FLOAT32);
  nyx_tensor_release(y);
  nyx_tensor_release(two);
  CHECK(nyx_tensor_scalar(ctx, 2, NYX_INT64, true, &two) == NYX_OK);
  y = call("mul", i, two);
  CHECK(nyx_tensor_dtype(y) == NYX_INT32);
  nyx_tensor_release(y);
  nyx_tensor_release(two);
  nyx_tensor_release(i);
  nyx_tensor_release(x);
}

static void a_deep_graph_needs_no_stack(void) {
  nyx_tensor *x = leaf(1, (double[]){1}), *one = vector(1, (double[]){1});
  nyx_tensor *y = nyx_tensor_retain(x);
  const int deep = CHECK_ROUNDS(1000000);
  for (int i = 0; i < deep; i++) y = eat("add", y, nyx_tensor_retain(one));
  CHECK(nyx_backward_run(ctx, y, NULL, NULL) == NYX_OK);
  CHECK_NEAR(at(nyx_tensor_grad(x), 0), 1, 0);
  CHECK_NEAR(at(y, 0), deep + 1, 0);
  nyx_tensor_release(y);
  nyx_tensor_release(one);
  nyx_tensor_release(x);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  nyx_memory_stats before, after;
  nyx_memory_get_stats(&before);
  RUN(product_rule);
  RUN(gradients_accumulate_and_are_their_own);
  RUN(a_tensor_used_twice);
  RUN(third_derivative);
  RUN(only_what_was_asked_for);
  RUN(a_freed_graph_says_so);
  RUN(a_changed_value_is_refused);
  RUN(in_place_has_a_history);
  RUN(in_place_is_all_or_nothing);
  RUN(in_place_on_itself_remembers_what_was);
  RUN(the_graph_can_be_looked_at);
  RUN(broadcast_gradients_are_summed);
  RUN(numbers_do_not_widen);
  RUN(a_deep_graph_needs_no_stack);
  nyx_memory_get_stats(&after);
  CHECK_INT(after.live, before.live);
  nyx_context_free(ctx);
  return check_done();
}
