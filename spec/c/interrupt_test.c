/* nyx_context_interrupt while an op runs: ops that take long stop between ranges of work
 * with NYX_ERR_INTERRUPTED, make no output and use the request up. The request comes from
 * a host's job system, before the second range. Read next: core/base/context.h. */
#include <nyx/nyx.h>

#include "check.h"

static nyx_context *ctx;
static int64_t ranges; /* of all work that was handed out */
static int ask_in;     /* works that run before the request comes */

static void asking_jobs(void *user, int64_t count, void (*job)(void *, int64_t),
                        void *arg) {
  for (int64_t i = 0; i < count; i++) {
    if (i == 1 && ask_in == 0) nyx_context_interrupt((nyx_context *)user);
    job(arg, i);
  }
  ask_in--;
  ranges += count;
}

static nyx_tensor *filled(int ndim, const int64_t *shape, nyx_dtype dtype) {
  nyx_tensor *t = NULL;
  if (nyx_tensor_empty(ctx, dtype, ndim, shape, &t) != NYX_OK) return NULL;
  memset(nyx_tensor_data(t), 0, nyx_tensor_storage_bytes(t));
  return t;
}

typedef struct long_call {
  const char *op;
  int ndim[3];
  int64_t shape[3][4];
  nyx_value attr[NYX_MAX_ATTRS];
} long_call;

static const int64_t image[] = {300, 300}, two[] = {2}, many[] = {1 << 20},
                     half[] = {3, 3};

static const long_call calls[] = {
    {"matmul", {2, 2}, {{700, 700}, {700, 700}}, {NYX_NONE}},
    {"bmm", {3, 3}, {{64, 100, 100}, {64, 100, 100}}, {NYX_NONE}},
    {"linear", {2, 2}, {{700, 700}, {700, 700}}, {NYX_NONE}},
    {"conv2d", {4, 4}, {{8, 8, 80, 80}, {16, 8, 3, 3}}, {NYX_NONE}},
    {"max_pool2d", {4}, {{8, 8, 100, 100}}, {NYX_LIST(two, 1)}},
    {"max_pool2d_with_indices", {4}, {{8, 8, 100, 100}}, {NYX_LIST(two, 1)}},
    {"avg_pool2d", {4}, {{8, 8, 100, 100}}, {NYX_LIST(two, 1)}},
    {"avg_pool2d_backward",
     {4},
     {{8, 8, 150, 150}},
     {NYX_LIST(image, 2), NYX_LIST(two, 1)}},
    {"adaptive_avg_pool2d", {4}, {{8, 8, 100, 100}}, {NYX_LIST(half, 2)}},
    {"sort", {2}, {{1000, 1000}}, {NYX_NONE}},
    {"argsort", {2}, {{1000, 1000}}, {NYX_NONE}},
    {"topk", {2}, {{1000, 1000}}, {NYX_I(5)}},
    {"rand", {-1}, {{0}}, {NYX_LIST(many, 1)}},
    {"randn", {-1}, {{0}}, {NYX_LIST(many, 1)}},
    {"randint", {-1}, {{0}}, {NYX_I(0), NYX_I(9), NYX_LIST(many, 1)}},
    {"uniform", {1}, {{1 << 20}}, {NYX_NONE}},
    {"normal", {1}, {{1 << 20}}, {NYX_NONE}},
    {"bernoulli", {1}, {{1 << 20}}, {NYX_F(0.5)}},
    {"dropout", {1}, {{1 << 20}}, {NYX_NONE}},
    {"cumsum", {2}, {{1000, 1000}}, {NYX_I(1)}},
    {"softmax", {2}, {{1000, 1000}}, {NYX_I(1)}},
    {"softmax", {1}, {{1 << 20}}, {NYX_I(0)}},
    {"flip", {2}, {{1000, 1000}}, {NYX_LIST((const int64_t[]){0}, 1)}},
};

static nyx_status apply(const long_call *call, nyx_tensor **out, int64_t *live) {
  const nyx_op *op = nyx_op_find(call->op);
  nyx_tensor *in[3] = {NULL};
  nyx_memory_stats before, after;
  int n = 0;
  for (; n < 3 && call->ndim[n] > 0; n++)
    in[n] = filled(call->ndim[n], call->shape[n], NYX_FLOAT32);
  nyx_memory_get_stats(&before);
  nyx_status status = nyx_apply(ctx, op, in, n, call->attr, out);
  nyx_memory_get_stats(&after);
  *live = (int64_t)after.live - (int64_t)before.live;
  for (int i = 0; i < n; i++) nyx_tensor_release(in[i]);
  return status;
}

static void long_ops_stop(void) {
  nyx_job_system host = {.run = asking_jobs, .user = ctx, .threads = 2};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    int64_t live;
    ranges = ask_in = 0;
    nyx_parallel_set_jobs(&host);
    nyx_status status = apply(&calls[i], out, &live);
    nyx_parallel_set_jobs(NULL);
    CHECK_AT(ranges > 1, "the work is split", ": %s", calls[i].op);
    CHECK_AT(status == NYX_ERR_INTERRUPTED, "it stops", ": %s: %s", calls[i].op,
             nyx_status_name(status));
    CHECK_AT(out[0] == NULL && live == 0, "nothing is left", ": %s", calls[i].op);
    CHECK_AT(!nyx_context_interrupted(ctx), "the request is used up", ": %s",
             calls[i].op);
    status = apply(&calls[i], out, &live);
    CHECK_AT(status == NYX_OK, "the next call runs", ": %s: %s", calls[i].op,
             nyx_context_error(ctx));
    for (int k = 0; k < NYX_MAX_OUTPUTS; k++) nyx_tensor_release(out[k]);
  }
}

/* Interrupted while gradients are delivered, leaves have all of it or nothing. */
static void leaves_get_all_or_nothing(void) {
  enum { LEAVES = 3 };
  nyx_tensor *leaf[LEAVES], *sum = NULL, *out[1];
  int64_t shape[1] = {400000};
  for (int i = 0; i < LEAVES; i++) {
    REQUIRE(CHECK((leaf[i] = filled(1, shape, NYX_FLOAT32)) != NULL));
    CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, leaf[i], true));
  }
  const nyx_op *add = nyx_op_find("add"), *total = nyx_op_find("sum");
  nyx_job_system host = {.run = asking_jobs, .user = ctx, .threads = 2};
  for (int round = 0; round < 12; round++) {
    out[0] = NULL;
    REQUIRE(CHECK_OK(ctx, nyx_apply(ctx, add, leaf, 2, NULL, out)));
    sum = out[0], out[0] = NULL;
    nyx_tensor *next[2] = {sum, leaf[2]};
    REQUIRE(CHECK_OK(ctx, nyx_apply(ctx, add, next, 2, NULL, out)));
    nyx_tensor_release(sum);
    sum = out[0], out[0] = NULL;
    REQUIRE(CHECK_OK(ctx, nyx_apply(ctx, total, &sum, 1, NULL, out)));
    nyx_tensor_release(sum);
    sum = out[0];
    float before[LEAVES] = {0}, after[LEAVES] = {0};
    for (int i = 0; i < LEAVES; i++)
      if (nyx_tensor_grad(leaf[i]))
        before[i] = *(float *)nyx_tensor_data(nyx_tensor_grad(leaf[i]));
    ask_in = round - 1;
    if (round > 0) nyx_parallel_set_jobs(&host);
    nyx_status status = nyx_backward_run(ctx, sum, NULL, NULL);
    nyx_parallel_set_jobs(NULL);
    (void)nyx_context_interrupted(ctx); /* when it came too late */
    nyx_tensor_release(sum);
    for (int i = 0; i < LEAVES; i++) {
      if (nyx_tensor_grad(leaf[i]))
        after[i] = *(float *)nyx_tensor_data(nyx_tensor_grad(leaf[i]));
      CHECK_NEAR(after[i] - before[i], status == NYX_OK ? 1 : 0, 0);
    }
  }
  for (int i = 0; i < LEAVES; i++) nyx_tensor_release(leaf[i]);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(long_ops_stop);
  RUN(leaves_get_all_or_nothing);
  nyx_context_free(ctx);
  return check_done();
}
