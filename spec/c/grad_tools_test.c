/* The tools of reverse mode from C: hooks and who frees them, retained gradients,
 * functions of the host, anomaly mode and the profiler. Read next: core/grad/hook.c,
 * core/grad/function.c. */
#include <stdlib.h>

#include "tensors.h"

static nyx_tensor *leaf(int n, const double *values) {
  int64_t shape = n;
  nyx_tensor *t = make(NYX_FLOAT64, 1, &shape, values);
  must(nyx_tensor_set_requires_grad(ctx, t, true));
  return t;
}

/* An op of one or two inputs, taking over x. */
static nyx_tensor *eat(nyx__op_id id, nyx_tensor *x, nyx_tensor *y) {
  nyx_tensor *out = apply(id, x, y, NULL, NULL);
  nyx_tensor_release(x);
  return out;
}

/* A hook that notes what it sees, and what becomes of it. */
typedef struct notes {
  int calls, freed;
  double first;            /* the first element of the last gradient */
  int fail_at;             /* the call that fails, from 1; 0: none */
  double factor;           /* gives the gradient times this; 0: gives nothing */
  bool wrong;              /* gives one element too many */
  bool recorded;           /* whether what it gave has a history */
  nyx_hook_handle *remove; /* taken out of its list meanwhile */
} notes;

static nyx_status note(nyx_context *c, void *arg, nyx_tensor *grad,
                       nyx_tensor **replacement) {
  notes *n = arg;
  n->calls++;
  n->first = read(grad)[0];
  if (n->remove) nyx_hook_remove(n->remove);
  if (n->calls == n->fail_at) return nyx_context_fail(c, NYX_ERR_STATE, "note failed");
  if (n->wrong) {
    int64_t size = nyx_tensor_numel(grad) + 1;
    return nyx_tensor_empty(c, NYX_FLOAT64, 1, &size, replacement);
  }
  if (n->factor == 0) return NYX_OK;
  nyx_tensor *factor;
  must(nyx_tensor_scalar(c, n->factor, NYX_FLOAT64, true, &factor));
  nyx_status status = nyx__apply2(c, ID(mul), grad, factor, NULL, replacement);
  nyx_tensor_release(factor);
  if (*replacement) n->recorded = nyx_tensor_grad_op(*replacement) != NULL;
  return status;
}

static void note_free(void *arg) {
  ((notes *)arg)->freed++;
}

static nyx_hook hook_of(notes *n) {
  return (nyx_hook){note, n, note_free};
}

static nyx_hook_handle *hang(nyx_tensor *t, notes *n) {
  nyx_hook hook = hook_of(n);
  nyx_hook_handle *handle = NULL;
  CHECK_OK(ctx, nyx_tensor_register_hook(ctx, t, &hook, &handle));
  return handle;
}

static void hooks_see_whole_gradients(void) {
  notes on_x = {.factor = 10}, on_y = {.factor = 3}, also_y = {0};
  nyx_tensor *x = leaf(2, (double[]){2, 3}), *y = apply(ID(mul), x, x, NULL, NULL);
  nyx_hook_release(hang(x, &on_x));
  nyx_hook_release(hang(y, &on_y));
  nyx_hook_release(hang(y, &also_y));
  nyx_tensor *z = eat(ID(sum), apply(ID(mul), y, y, NULL, NULL), NULL); /* x^4 */
  CHECK_OK(ctx, nyx_backward_run(ctx, z, NULL, NULL));
  CHECK_NEAR(on_y.first, 8, 0);    /* both of y's users: 2 y */
  CHECK_NEAR(also_y.first, 24, 0); /* what the hook before gave */
  CHECK_NEAR(on_x.first, 96, 0);   /* 2 x 24 */
  CHECK_NEAR(read(nyx_tensor_grad(x))[0], 960, 0);
  CHECK_INT(on_x.calls, 1);
  CHECK_INT(on_y.freed, 1); /* with the graph */
  CHECK_INT(on_x.freed, 0);
  nyx_tensor_release(z);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
  CHECK_INT(on_x.freed, 1);
  CHECK_INT(on_y.freed, 1);
}

static void hooks_run_in_gradients_and_are_recorded(void) {
  notes on_x = {.factor = 2}, on_y = {.factor = 5};
  nyx_tensor *x = leaf(1, (double[]){3}), *y = apply(ID(mul), x, x, NULL, NULL);
  nyx_hook_release(hang(x, &on_x));
  nyx_hook_release(hang(y, &on_y));
  nyx_tensor *z = apply(ID(mul), y, x, NULL, NULL); /* dz/dx = 5 (2 x x) + x^2, times 2 */
  nyx_backward_options record = {.create_graph = true};
  nyx_tensor *g[2], *second = NULL;
  CHECK_OK(ctx, nyx_gradients(ctx, z, NULL, (nyx_tensor *[]){x, y}, 2, &record, g));
  CHECK_NEAR(read(g[0])[0], 2 * (10 * 9 + 9), 0);
  CHECK_NEAR(read(g[1])[0], 15, 0); /* as the hook gave it */
  CHECK(on_x.recorded && on_y.recorded);
  CHECK(nyx_tensor_grad(x) == NULL);
  CHECK_OK(ctx, nyx_gradients(ctx, g[0], NULL, &x, 1, NULL, &second));
  /* g[0] = 2 (10 x^2 + y): its gradient meets the hooks again. */
  CHECK_INT(on_x.calls, 2);
  CHECK_NEAR(read(second)[0], 360, 0); /* PyTorch's */
  nyx_tensor_release(second);
  nyx_tensor_release(g[0]);
  nyx_tensor_release(g[1]);
  nyx_tensor_release(z);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void a_failing_hook_changes_nothing(void) {
  notes bad = {.fail_at = 1}, wrong = {.wrong = true};
  nyx_tensor *x = leaf(2, (double[]){1, 2});
  nyx_tensor *y = eat(ID(sum), apply(ID(exp), x, NULL, NULL, NULL), NULL);
  nyx_backward_options keep = {.retain_graph = true};
  nyx_hook_handle *handle = hang(x, &bad);
  CHECK_STATUS(nyx_backward_run(ctx, y, NULL, &keep), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "note failed");
  CHECK(nyx_tensor_grad(x) == NULL);
  nyx_hook_remove(handle);
  CHECK_INT(bad.freed, 1);
  nyx_hook_remove(handle); /* once is enough */
  CHECK_INT(bad.freed, 1);
  nyx_hook_release(handle);
  nyx_hook_release(hang(x, &wrong));
  CHECK_STATUS(nyx_backward_run(ctx, y, NULL, &keep), NYX_ERR_SHAPE);
  CHECK_CONTAINS(nyx_context_error(ctx),
                 "a hook of a leaf gave a tensor of shape (3), dtype float64");
  CHECK(nyx_tensor_grad(x) == NULL);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void hooks_remove_themselves_and_others(void) {
  notes first = {0}, second = {0}, third = {0};
  nyx_tensor *x = leaf(1, (double[]){1}), *y = apply(ID(exp), x, NULL, NULL, NULL);
  nyx_hook_handle *a = hang(x, &first), *b = hang(x, &second), *c = hang(x, &third);
  first.remove = b; /* the one that would be next */
  third.remove = c;
  nyx_backward_options keep = {.retain_graph = true};
  CHECK_OK(ctx, nyx_backward_run(ctx, y, NULL, &keep));
  first.remove = NULL;
  CHECK_OK(ctx, nyx_backward_run(ctx, y, NULL, &keep));
  CHECK_INT(first.calls, 2);
  CHECK_INT(second.calls, 0);
  CHECK_INT(third.calls, 1);
  CHECK_INT(second.freed + third.freed, 2);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
  nyx_hook_remove(a); /* gone with x */
  CHECK_INT(first.freed, 1);
  nyx_hook_release(a);
  nyx_hook_release(b);
  nyx_hook_release(c);
}

static nyx_status clear_grad(nyx_context *c, void *arg, nyx_tensor *x,
                             nyx_tensor **replacement) {
  notes *n = arg;
  (void)replacement;
  n->calls++;
  n->first = read(nyx_tensor_grad(x))[0];
  return nyx_tensor_set_grad(c, x, NULL);
}

static void post_hooks_follow_accumulation(void) {
  notes n = {0};
  nyx_hook hook = {clear_grad, &n, note_free};
  nyx_tensor *x = leaf(1, (double[]){3}), *other = leaf(1, (double[]){1});
  nyx_tensor *y = apply(ID(mul), x, x, NULL, NULL);
  CHECK_OK(ctx, nyx_tensor_register_post_accumulate_hook(ctx, x, &hook, NULL));
  CHECK_STATUS(nyx_tensor_register_post_accumulate_hook(ctx, y, &hook, NULL),
               NYX_ERR_STATE);
  nyx_tensor *g = NULL;
  nyx_backward_options keep = {.retain_graph = true};
  CHECK_OK(ctx, nyx_gradients(ctx, y, NULL, &x, 1, &keep, &g));
  CHECK_INT(n.calls, 0);
  CHECK_OK(ctx, nyx_backward_run(ctx, y, NULL, NULL));
  CHECK_NEAR(n.first, 6, 0);
  CHECK(nyx_tensor_grad(x) == NULL);
  nyx_tensor *z = apply(ID(exp), other, NULL, NULL, NULL);
  CHECK_OK(ctx, nyx_backward_run(ctx, z, NULL, NULL));
  CHECK_INT(n.calls, 1);
  nyx_tensor_release(z);
  nyx_tensor_release(g);
  nyx_tensor_release(y);
  nyx_tensor_release(other);
  nyx_tensor_release(x);
  CHECK_INT(n.freed, 1);
}

static void only_what_requires_gradients_has_hooks(void) {
  notes n = {0};
  nyx_hook hook = hook_of(&n);
  nyx_tensor *x = make(NYX_FLOAT64, 1, (int64_t[]){1}, (double[]){1});
  CHECK_STATUS(nyx_tensor_register_hook(ctx, x, &hook, NULL), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "requires_grad_()");
  CHECK_STATUS(nyx_tensor_retain_grad(ctx, x), NYX_ERR_STATE);
  CHECK_INT(n.freed, 0);
  nyx_tensor_release(x);
}

static void tensors_retain_their_gradient(void) {
  nyx_tensor *x = leaf(2, (double[]){2, 5}), *y = apply(ID(mul), x, x, NULL, NULL);
  nyx_tensor *early = apply(ID(exp), x, NULL, NULL, NULL);
  CHECK_OK(ctx, nyx_tensor_retain_grad(ctx, early));
  nyx_tensor *sum = apply(ID(add), y, early, NULL, NULL);
  nyx_tensor_release(early); /* the node does not keep it */
  CHECK_OK(ctx, nyx_tensor_retain_grad(ctx, y));
  CHECK_OK(ctx, nyx_tensor_retain_grad(ctx, y));
  CHECK(nyx_tensor_retains_grad(y) && !nyx_tensor_retains_grad(x));
  notes n = {.factor = 3};
  nyx_hook_release(hang(y, &n)); /* later, and yet the gradient is what it gives */
  nyx_tensor *seed = make(NYX_FLOAT64, 1, (int64_t[]){2}, (double[]){10, 20});
  nyx_backward_options keep = {.retain_graph = true};
  CHECK_OK(ctx, nyx_backward_run(ctx, sum, seed, &keep));
  CHECK_NEAR(read(nyx_tensor_grad(y))[1], 60, 0);
  CHECK_NEAR(read(nyx_tensor_grad(x))[0], 30 * 4 + 10 * exp(2), 1e-12);
  CHECK_OK(ctx, nyx_backward_run(ctx, sum, seed, NULL));
  CHECK_NEAR(read(nyx_tensor_grad(y))[1], 120, 0);
  CHECK_NEAR(read(seed)[1], 20, 0);
  nyx_tensor_release(seed);
  nyx_tensor_release(sum);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

static void a_retained_gradient_follows_changes_in_place(void) {
  nyx_tensor *x = leaf(1, (double[]){2}), *y = apply(ID(mul), x, x, NULL, NULL);
  CHECK_OK(ctx, nyx_tensor_retain_grad(ctx, y));
  nyx_tensor *three = make(NYX_FLOAT64, 1, (int64_t[]){1}, (double[]){3});
  nyx_tensor *target[1] = {y};
  must(nyx_apply(ctx, nyx__op(ID(mul)), (nyx_tensor *[]){y, three}, 2, NULL, target));
  nyx_tensor *z = apply(ID(mul), y, three, NULL, NULL);
  CHECK_OK(ctx, nyx_backward_run(ctx, z, NULL, NULL));
  CHECK_NEAR(read(nyx_tensor_grad(y))[0], 3, 0); /* of what y is now */
  CHECK_NEAR(read(nyx_tensor_grad(x))[0], 36, 0);
  nyx_tensor_release(z);
  nyx_tensor_release(three);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
}

/* ------------------------------------------------------------------ functions */

typedef struct cube {
  int calls, freed;
  bool wrong;
} cube;

/* 3 x^2 g, written with ops. */
static nyx_status cube_backward(nyx_backward *b) {
  cube *c = b->payload;
  c->calls++;
  if (c->wrong) return nyx__apply1(b->ctx, ID(sum), b->grad_out[0], NULL, &b->grad_in[0]);
  nyx_tensor *square = NULL, *part = NULL, *three;
  must(nyx_tensor_scalar(b->ctx, 3, NYX_FLOAT64, true, &three));
  nyx_status status =
      nyx__apply2(b->ctx, ID(mul), b->saved[0], b->saved[0], NULL, &square);
  if (status == NYX_OK) status = nyx__apply2(b->ctx, ID(mul), square, three, NULL, &part);
  if (status == NYX_OK)
    status = nyx__apply2(b->ctx, ID(mul), part, b->grad_out[0], NULL, &b->grad_in[0]);
  nyx_tensor_release(three);
  nyx_tensor_release(square);
  nyx_tensor_release(part);
  return status;
}

static void cube_free(void *arg) {
  ((cube *)arg)->freed++;
}

static nyx_tensor *cube_of(nyx_tensor *x, cube *c, nyx_status expected) {
  nyx_tensor *square, *out;
  nyx_context_set_grad_enabled(ctx, false);
  must(nyx__apply2(ctx, ID(mul), x, x, NULL, &square));
  must(nyx__apply2(ctx, ID(mul), square, x, NULL, &out));
  nyx_context_set_grad_enabled(ctx, true);
  nyx_function f = {
      .name = "cube", .backward = cube_backward, .payload = c, .free = cube_free};
  CHECK_STATUS(nyx_record_function(ctx, &f, &x, 1, &out, 1, &x, 1), expected);
  nyx_tensor_release(square);
  return out;
}

static void functions_have_gradients_of_any_order(void) {
  cube c = {0};
  nyx_tensor *x = leaf(2, (double[]){2, -1}), *y = cube_of(x, &c, NYX_OK);
  CHECK_STR(nyx_tensor_grad_op(y), "cube");
  nyx_tensor *z = eat(ID(sum), y, NULL), *g, *second;
  nyx_backward_options record = {.create_graph = true};
  CHECK_OK(ctx, nyx_gradients(ctx, z, NULL, &x, 1, &record, &g));
  CHECK_NEAR(read(g)[0], 12, 0);
  CHECK_INT(c.freed, 0);
  nyx_tensor *total = eat(ID(sum), g, NULL);
  CHECK_OK(ctx, nyx_gradients(ctx, total, NULL, &x, 1, NULL, &second));
  CHECK_NEAR(read(second)[0], 12, 0);
  CHECK_NEAR(read(second)[1], -6, 0);
  nyx_tensor_release(second);
  nyx_tensor_release(total);
  nyx_tensor_release(z);
  nyx_tensor_release(x);
  CHECK_INT(c.freed, 1);
}

static void functions_check_what_they_are_given(void) {
  cube c = {.wrong = true}, unused = {0}, changed = {0};
  nyx_tensor *x = leaf(2, (double[]){2, 3}), *y = cube_of(x, &c, NYX_OK);
  nyx_tensor *z = eat(ID(sum), y, NULL);
  CHECK_STATUS(nyx_backward_run(ctx, z, NULL, NULL), NYX_ERR_SHAPE);
  CHECK_CONTAINS(nyx_context_error(ctx),
                 "cube gave a gradient of shape () and dtype "
                 "float64 for input 0, expected (2)");
  CHECK(nyx_tensor_grad(x) == NULL);
  nyx_tensor_release(z);
  CHECK_INT(c.freed, 1);
  /* Not recorded: the payload goes at once. */
  nyx_function f = {"cube", cube_backward, &unused, cube_free};
  nyx_tensor *plain = make(NYX_FLOAT64, 1, (int64_t[]){2}, (double[]){1, 2});
  nyx_tensor *out = make(NYX_FLOAT64, 1, (int64_t[]){2}, (double[]){1, 8});
  CHECK_OK(ctx, nyx_record_function(ctx, &f, &plain, 1, &out, 1, NULL, 0));
  CHECK_INT(unused.freed, 1);
  CHECK(!nyx_tensor_requires_grad(out));
  CHECK_STATUS(nyx_record_function(ctx, &f, &x, 1, &x, 1, NULL, 0), NYX_ERR_STATE);
  CHECK_INT(unused.freed, 2);
  /* A saved value that changes. */
  y = cube_of(x, &changed, NYX_OK);
  nyx_tensor_touch(x);
  z = eat(ID(sum), y, NULL);
  CHECK_STATUS(nyx_backward_run(ctx, z, NULL, NULL), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "cube");
  CHECK_INT(changed.calls, 0);
  nyx_tensor_release(z);
  nyx_tensor_release(out);
  nyx_tensor_release(plain);
  nyx_tensor_release(x);
}

/* Saves its own result: no cycle, and history when the pass is recorded. */
static nyx_status exp_backward(nyx_backward *b) {
  return nyx__apply2(b->ctx, ID(mul), b->saved[0], b->grad_out[0], NULL, &b->grad_in[0]);
}

static void a_saved_result_is_no_cycle(void) {
  cube c = {0};
  nyx_memory_stats before, after;
  nyx_memory_get_stats(&before);
  nyx_tensor *x = leaf(1, (double[]){0.5}), *y;
  nyx_context_set_grad_enabled(ctx, false);
  must(nyx__apply1(ctx, ID(exp), x, NULL, &y));
  nyx_context_set_grad_enabled(ctx, true);
  nyx_function f = {"exp", exp_backward, &c, cube_free};
  CHECK_OK(ctx, nyx_record_function(ctx, &f, &x, 1, &y, 1, &y, 1));
  nyx_backward_options record = {.create_graph = true};
  nyx_tensor *g = nyx_tensor_retain(y);
  for (int order = 1; order <= 3; order++) {
    nyx_tensor *next;
    CHECK_OK(ctx, nyx_gradients(ctx, g, NULL, &x, 1, &record, &next));
    nyx_tensor_release(g);
    g = next;
    CHECK_NEAR(read(g)[0], exp(0.5), 1e-15);
  }
  nyx_tensor_release(g);
  nyx_tensor_release(y);
  nyx_tensor_release(x);
  CHECK_INT(c.freed, 1);
  nyx_memory_get_stats(&after);
  CHECK_INT(after.live, before.live);
}

/* ------------------------------------------------------------------ watching */

static void say_where(void *arg, char *text, size_t size) {
  snprintf(text, size, "line %d", *(int *)arg);
}

static void anomaly_mode_names_the_op_and_its_place(void) {
  int line = 1;
  nyx_anomaly anomaly = {say_where, &line};
  nyx_tensor *x = leaf(2, (double[]){4, 0}), *zero, *root, *z;
  must(nyx_tensor_scalar(ctx, 0, NYX_FLOAT64, true, &zero));
  nyx_backward_options keep = {.retain_graph = true};
  nyx_context_set_anomaly(ctx, &anomaly);
  CHECK(nyx_context_anomaly(ctx) == &anomaly);
  line = 7;
  root = apply(ID(sqrt), x, NULL, NULL, NULL);
  line = 8;
  z = eat(ID(sum), eat(ID(mul), nyx_tensor_retain(root), zero), NULL); /* 0 * inf */
  CHECK_STATUS(nyx_backward_run(ctx, z, NULL, &keep), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx),
                 "the gradient of sqrt gave nan for input 0; it was applied at line 7");
  CHECK(nyx_tensor_grad(x) == NULL);
  nyx_context_set_anomaly(ctx, NULL);
  CHECK_OK(ctx, nyx_backward_run(ctx, z, NULL, NULL));
  CHECK(isnan(read(nyx_tensor_grad(x))[1]));
  nyx_tensor_release(z);
  nyx_tensor_release(root);
  nyx_tensor_release(zero);
  nyx_tensor_release(x);
}

typedef struct tally {
  int steps, muls, sums;
  uint64_t bytes;
} tally;

static void count_step(void *arg, const nyx_profile_step *step) {
  tally *t = arg;
  t->steps++;
  t->muls += strcmp(step->name, "mul") == 0;
  t->sums += strcmp(step->name, "sum") == 0;
  if (strcmp(step->name, "mul") == 0) t->bytes += step->bytes;
  CHECK(step->seconds >= 0 && step->seconds < 60);
}

static void the_profiler_sees_every_node(void) {
  tally t = {0};
  nyx_profiler profiler = {count_step, &t};
  double values[1000] = {1};
  nyx_tensor *x = leaf(1000, values), *y = apply(ID(mul), x, x, NULL, NULL);
  nyx_tensor *z = eat(ID(sum), eat(ID(mul), y, x), NULL);
  nyx_context_set_profiler(ctx, &profiler);
  CHECK_OK(ctx, nyx_backward_run(ctx, z, NULL, NULL));
  nyx_context_set_profiler(ctx, NULL);
  CHECK_INT(t.muls, 2);
  CHECK_INT(t.sums, 1);
  CHECK_INT(t.steps, 4); /* and the accumulation */
  CHECK(t.bytes >= 4 * 8000 && t.bytes < 20 * 8000);
  nyx_tensor_release(z);
  nyx_tensor_release(x);
}

/* ------------------------------------------------------------------ memory */

static nyx_status double_it(nyx_context *c, void *arg, nyx_tensor *grad,
                            nyx_tensor **replacement) {
  (void)arg;
  return nyx__apply2(c, ID(add), grad, grad, NULL, replacement);
}

/* Everything above wherever memory ends: a status, no leak, no leaf changed. */
static nyx_status all_of_it(nyx_tensor *x, nyx_tensor *value) {
  static cube c;
  nyx_tensor *y = NULL, *out = NULL, *z = NULL;
  nyx_hook hook = {double_it, NULL, NULL};
  nyx_status status = nyx__apply2(ctx, ID(mul), x, x, NULL, &y);
  if (status == NYX_OK) status = nyx_tensor_register_hook(ctx, y, &hook, NULL);
  if (status == NYX_OK) status = nyx_tensor_retain_grad(ctx, y);
  if (status == NYX_OK) status = nyx_tensor_detach(ctx, value, &out);
  nyx_function f = {"exp", exp_backward, &c, cube_free};
  if (status == NYX_OK) {
    nyx_tensor *saved[2] = {out, x};
    status = nyx_record_function(ctx, &f, &y, 1, &out, 1, saved, 2);
  }
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(sum), out, NULL, &z);
  if (status == NYX_OK) status = nyx_backward_run(ctx, z, NULL, NULL);
  if (status == NYX_OK) CHECK(nyx_tensor_grad(y) && nyx_tensor_grad(x));
  if (status != NYX_OK) CHECK(nyx_tensor_grad(x) == NULL);
  nyx_tensor_release(z);
  nyx_tensor_release(out);
  nyx_tensor_release(y);
  return status;
}

static void memory_may_end_anywhere(void) {
  nyx_tensor *x = leaf(2, (double[]){1, 2});
  nyx_tensor *value = make(NYX_FLOAT64, 1, (int64_t[]){2}, (double[]){1, 1});
  nyx_hook hook = {double_it, NULL, NULL};
  CHECK_OK(ctx, nyx_tensor_register_hook(ctx, x, &hook, NULL));
  must(all_of_it(x, value));
  must(nyx_tensor_set_grad(ctx, x, NULL));
  nyx_memory_stats before, after;
  nyx_memory_get_stats(&before);
  nyx_status status = NYX_ERR_MEMORY;
  int failures = 0;
  for (; status != NYX_OK && failures < 1000; failures++) {
    nyx_memory_fail_after(failures);
    status = all_of_it(x, value);
    nyx_memory_fail_after(-1);
    CHECK(status == NYX_OK || status == NYX_ERR_MEMORY);
  }
  CHECK(failures > 10 && failures < 1000);
  must(nyx_tensor_set_grad(ctx, x, NULL));
  nyx_memory_get_stats(&after);
  CHECK_INT(after.live, before.live);
  nyx_tensor_release(value);
  nyx_tensor_release(x);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(hooks_see_whole_gradients);
  RUN(hooks_run_in_gradients_and_are_recorded);
  RUN(a_failing_hook_changes_nothing);
  RUN(hooks_remove_themselves_and_others);
  RUN(post_hooks_follow_accumulation);
  RUN(only_what_requires_gradients_has_hooks);
  RUN(tensors_retain_their_gradient);
  RUN(a_retained_gradient_follows_changes_in_place);
  RUN(functions_have_gradients_of_any_order);
  RUN(functions_check_what_they_are_given);
  RUN(a_saved_result_is_no_cycle);
  RUN(anomaly_mode_names_the_op_and_its_place);
  RUN(the_profiler_sees_every_node);
  RUN(memory_may_end_anywhere);
  nyx_context_free(ctx);
  return check_done();
}
