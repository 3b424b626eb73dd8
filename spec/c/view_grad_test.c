/* Changes in place through views: who gets which history, wherever memory ends, that
 * nothing holds itself, and graphs of any depth. Values against PyTorch are in
 * spec/peers/changes.py. Read next: core/grad/view.c. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tensors.h"

static nyx_tensor *leaf(int n, const double *values) {
  int64_t shape = n;
  nyx_tensor *t = make(NYX_FLOAT64, 1, &shape, values);
  must(nyx_tensor_set_requires_grad(ctx, t, true));
  return t;
}

static nyx_status change(nyx__op_id id, nyx_tensor *t, nyx_tensor *by) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {t};
  return nyx_apply(ctx, nyx__op(id), (nyx_tensor *[]){t, by}, 2, NULL, out);
}

static nyx_status narrow(nyx_tensor *t, int64_t start, int64_t length, nyx_tensor **out) {
  const nyx_value attr[] = {NYX_I(0), NYX_I(start), NYX_I(length), NYX_I(1)};
  return nyx__apply1(ctx, ID(narrow), t, attr, out);
}

static void base_and_views_get_the_history(void) {
  nyx_tensor *x = leaf(3, (double[]){1, 2, 3}), *z = leaf(2, (double[]){10, 20});
  nyx_tensor *y, *view, *other, *sum;
  must(nyx__apply2(ctx, ID(mul), x, x, NULL, &y));
  must(narrow(y, 0, 2, &view));
  must(narrow(y, 1, 2, &other));
  CHECK_OK(ctx, change(ID(mul), view, z));
  CHECK_STR(nyx_tensor_grad_op(y), "as_strided_scatter");
  CHECK_STR(nyx_tensor_grad_op(view), "as_strided");
  CHECK_STR(nyx_tensor_grad_op(other), "as_strided");
  must(nyx__apply1(ctx, ID(sum), other, NULL, &sum));
  CHECK_OK(ctx, nyx_backward_run(ctx, sum, NULL, NULL));
  double *g = read(nyx_tensor_grad(x));
  CHECK_NEAR(g[0], 0, 0);
  CHECK_NEAR(g[1], 80, 0);
  CHECK_NEAR(g[2], 6, 0);
  CHECK_NEAR(read(nyx_tensor_grad(z))[1], 4, 0);
  nyx_tensor *all[] = {x, z, y, view, other, sum};
  for (int i = 0; i < 6; i++) nyx_tensor_release(all[i]);
}

/* The base becomes part of the graph with what is written to a view of it. */
static void a_plain_base_follows(void) {
  nyx_tensor *x = leaf(2, (double[]){1, 2}), *sum;
  nyx_tensor *base = make(NYX_FLOAT64, SHAPE(3), (double[]){5, 6, 7}), *view;
  must(narrow(base, 1, 2, &view));
  CHECK(!nyx_tensor_requires_grad(view));
  CHECK_OK(ctx, change(ID(mul), view, x));
  CHECK(nyx_tensor_requires_grad(base) && !nyx_tensor_is_leaf(base));
  must(nyx__apply1(ctx, ID(sum), base, NULL, &sum));
  CHECK_OK(ctx, nyx_backward_run(ctx, sum, NULL, NULL));
  CHECK_NEAR(read(nyx_tensor_grad(x))[0], 6, 0);
  CHECK_NEAR(read(nyx_tensor_grad(x))[1], 7, 0);
  nyx_tensor *all[] = {x, sum, base, view};
  for (int i = 0; i < 4; i++) nyx_tensor_release(all[i]);
}

static void what_cannot_be_is_refused(void) {
  nyx_tensor *x = leaf(3, (double[]){1, 2, 3}), *view, *by, *y, *blind;
  by = make(NYX_FLOAT64, SHAPE(2), (double[]){4, 5});
  must(narrow(x, 0, 2, &view));
  CHECK(change(ID(mul), view, by) == NYX_ERR_STATE);
  CHECK(strstr(nyx_context_error(ctx), "view of a leaf") != NULL);
  CHECK_NEAR(read(x)[0], 1, 0);
  nyx_context_set_grad_enabled(ctx, false);
  CHECK_OK(ctx, change(ID(mul), view, by));
  must(nyx__apply1(ctx, ID(exp), by, NULL, &y));
  must(narrow(y, 0, 2, &blind));
  nyx_context_set_grad_enabled(ctx, true);
  CHECK_NEAR(read(x)[0], 4, 0);
  CHECK(change(ID(mul), blind, view) == NYX_ERR_STATE);
  CHECK(strstr(nyx_context_error(ctx), "no_grad") != NULL);
  CHECK_NEAR(read(y)[0], exp(4), 1e-12);
  nyx_tensor *all[] = {x, view, by, y, blind};
  for (int i = 0; i < 5; i++) nyx_tensor_release(all[i]);
}

/* A graph that was saved, changed and hung onto its own tensors, and is then dropped. */
static nyx_status tangle(nyx_tensor *x) {
  nyx_tensor *y = NULL, *view = NULL, *w = NULL, *row = NULL, *sum = NULL, *g = NULL;
  nyx_status status = nyx__apply1(ctx, ID(exp), x, NULL, &y);
  if (status == NYX_OK) status = narrow(y, 0, 2, &view);
  if (status == NYX_OK) status = nyx_tensor_retain_grad(ctx, view);
  if (status == NYX_OK) status = nyx__apply2(ctx, ID(mul), view, view, NULL, &w);
  if (status == NYX_OK) status = narrow(y, 1, 2, &row);
  if (status == NYX_OK) status = change(ID(add), row, w); /* hangs on what saved view */
  if (status == NYX_OK) status = change(ID(add), w, w);
  if (status == NYX_OK) status = change(ID(mul), view, w);
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(sum), row, NULL, &sum);
  nyx_backward_options create = {.create_graph = true};
  if (status == NYX_OK) { /* what the gradients of exp and mul need has changed since */
    status = nyx_gradients(ctx, sum, NULL, &x, 1, &create, &g);
    CHECK(status == NYX_ERR_STATE || status == NYX_ERR_MEMORY);
    if (status == NYX_ERR_STATE) status = NYX_OK;
  }
  nyx_tensor *all[] = {y, view, w, row, sum, g};
  for (int i = 0; i < 6; i++) nyx_tensor_release(all[i]);
  return status;
}

static void memory_may_end_anywhere(void) {
  nyx_tensor *x = leaf(3, (double[]){0.1, 0.2, 0.3});
  must(tangle(x));
  nyx_memory_stats before, after;
  nyx_memory_get_stats(&before);
  nyx_status status = NYX_ERR_MEMORY;
  int failures = 0;
  for (; status != NYX_OK && failures < 1000; failures++) {
    nyx_memory_fail_after(failures);
    status = tangle(x);
    nyx_memory_fail_after(-1);
    CHECK(status == NYX_OK || status == NYX_ERR_MEMORY);
  }
  CHECK(failures > 10 && failures < 1000);
  nyx_memory_get_stats(&after);
  CHECK_INT(after.live, before.live);
  nyx_tensor_release(x);
}

/* For lack of memory a change either happens with its history, or not at all. `before`
 * and `after`: the op that the base comes from. */
static void all_or_nothing(nyx_tensor *y, const char *before, const char *after) {
  nyx_tensor *view, *three = make(NYX_FLOAT64, SHAPE(1), (double[]){3});
  must(narrow(y, 0, 1, &view));
  nyx_status status = NYX_ERR_MEMORY;
  double first = read(y)[0];
  nyx_memory_stats start, end;
  nyx_memory_get_stats(&start);
  int failures = 0;
  for (; status != NYX_OK && failures < 100; failures++) {
    nyx_memory_fail_after(failures);
    status = change(ID(mul), view, three);
    nyx_memory_fail_after(-1);
    nyx_memory_get_stats(&end);
    if (status != NYX_OK) CHECK_INT(end.live, start.live);
    CHECK_STR(nyx_tensor_grad_op(y), status == NYX_OK ? after : before);
    CHECK_STR(nyx_tensor_grad_op(view), status == NYX_OK ? "as_strided" : "narrow");
    CHECK_NEAR(read(y)[0], status == NYX_OK ? 3 * first : first, 0);
  }
  CHECK(status == NYX_OK && failures > 2);
  nyx_tensor_release(view);
  nyx_tensor_release(three);
}

static void a_change_is_all_or_nothing(void) {
  nyx_tensor *x = leaf(6, (double[]){3, 4, 5, 6, 7, 8}), *y, *z, *turned;
  must(nyx__apply1(ctx, ID(clone), x, NULL, &y));
  all_or_nothing(y, "clone", "as_strided_scatter");
  const nyx_value shape = NYX_LIST(((int64_t[]){2, 3}), 2),
                  order = NYX_LIST(((int64_t[]){1, 0}), 2);
  must(nyx__apply1(ctx, ID(reshape), x, &shape, &z));
  must(nyx__apply1(ctx, ID(permute), z, &order, &turned));
  nyx_tensor_release(y);
  must(nyx__apply1(ctx, ID(exp), turned, NULL, &y));
  CHECK(!nyx_tensor_is_contiguous(y));
  all_or_nothing(y, "exp", "permute");
  nyx_tensor *all[] = {x, y, z, turned};
  for (int i = 0; i < 4; i++) nyx_tensor_release(all[i]);
}

static nyx_tensor *seen; /* by two threads */

static void *square_it(void *arg) {
  (void)arg;
  nyx_context *own;
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  if (nyx_context_new(&own) != NYX_OK) return NULL;
  nyx_status status =
      nyx_apply(own, nyx__op(ID(mul)), (nyx_tensor *[]){seen, seen}, 2, NULL, out);
  bool good = status == NYX_OK && nyx_tensor_requires_grad(out[0]);
  nyx_tensor_release(out[0]);
  nyx_context_free(own);
  return good ? &seen : NULL;
}

/* A view that is out of date gets its new history from whoever reads it first. */
static void threads_may_read_a_view(void) {
  for (int i = 0; i < 20; i++) {
    nyx_tensor *x = leaf(3, (double[]){1, 2, 3}), *y, *view;
    must(nyx__apply2(ctx, ID(mul), x, x, NULL, &y));
    must(narrow(y, 0, 2, &view));
    must(change(ID(mul), y, x));
    seen = view;
    pthread_t thread[2];
    for (int k = 0; k < 2; k++) CHECK(!pthread_create(&thread[k], NULL, square_it, NULL));
    for (int k = 0; k < 2; k++) {
      void *good = NULL;
      pthread_join(thread[k], &good);
      CHECK(good != NULL);
    }
    CHECK_STR(nyx_tensor_grad_op(view), "as_strided");
    nyx_tensor *all[] = {x, y, view};
    for (int k = 0; k < 3; k++) nyx_tensor_release(all[k]);
  }
}

static void a_deep_graph_needs_no_stack(void) {
  nyx_tensor *x = leaf(2, (double[]){1, 2}), *y, *view, *other, *sum, *one;
  must(nyx__apply1(ctx, ID(clone), x, NULL, &y));
  must(nyx_tensor_scalar(ctx, 1, NYX_FLOAT64, true, &one));
  must(narrow(y, 0, 1, &view));
  must(narrow(y, 1, 1, &other));
  for (int i = 0; i < 100000; i++) must(change(ID(mul), i % 2 ? view : other, one));
  must(nyx__apply1(ctx, ID(sum), y, NULL, &sum));
  nyx_tensor *all[] = {y, view, other, one, sum, x};
  for (int i = 0; i < 6; i++) nyx_tensor_release(all[i]);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  nyx_memory_stats stats;
  RUN(base_and_views_get_the_history);
  RUN(a_plain_base_follows);
  RUN(what_cannot_be_is_refused);
  RUN(memory_may_end_anywhere);
  RUN(a_change_is_all_or_nothing);
  RUN(threads_may_read_a_view);
  RUN(a_deep_graph_needs_no_stack);
  nyx_context_free(ctx);
  nyx_memory_get_stats(&stats);
  CHECK_INT(stats.live, 0);
  return check_done();
}
