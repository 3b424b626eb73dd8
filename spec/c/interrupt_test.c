/* nyx_context_interrupt while an op runs: ops that take long stop between ranges of work
 * with NYX_ERR_INTERRUPTED, make no output and use the request up. The request comes from
 * a host's job system, before the second range, or from another thread. Read next:
 * core/base/context.h. */
#include <nyx/nyx.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

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

/* What a tensor holds: zeros; different positions in no order; ever larger numbers. */
enum { ZEROS, SPREAD, RISING };

static nyx_tensor *filled(int ndim, const int64_t *shape, nyx_dtype dtype, int kind) {
  nyx_tensor *t = NULL;
  if (nyx_tensor_empty(ctx, dtype, ndim, shape, &t) != NYX_OK) return NULL;
  memset(nyx_tensor_data(t), 0, nyx_tensor_storage_bytes(t));
  for (int64_t i = 0, n = nyx_tensor_numel(t); kind != ZEROS && i < n; i++) {
    int64_t value = kind == RISING ? i : i * 7919 % n;
    if (dtype == NYX_FLOAT32) ((float *)nyx_tensor_data(t))[i] = (float)value + 0.5f;
    if (dtype == NYX_FLOAT64) ((double *)nyx_tensor_data(t))[i] = (double)value + 0.5;
    if (dtype == NYX_INT64) ((int64_t *)nyx_tensor_data(t))[i] = value;
    if (dtype == NYX_BOOL) ((uint8_t *)nyx_tensor_data(t))[i] = value % 2 != 0;
  }
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
    {"order_statistic", {2}, {{1000, 1000}}, {NYX_NONE}},
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
    {"exp", {1}, {{1 << 20}}, {NYX_NONE}},
    {"mul", {2, 2}, {{1000, 1000}, {1000, 1}}, {NYX_NONE}},
};

static nyx_status apply(const long_call *call, nyx_tensor **out, int64_t *live) {
  const nyx_op *op = nyx_op_find(call->op);
  nyx_tensor *in[3] = {NULL};
  nyx_memory_stats before, after;
  int n = 0;
  for (; n < 3 && call->ndim[n] > 0; n++)
    in[n] = filled(call->ndim[n], call->shape[n], NYX_FLOAT32, ZEROS);
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
    int64_t live; /* some ops keep memory from their first call on */
    CHECK_OK(ctx, apply(&calls[i], out, &live));
    for (int k = 0; k < NYX_MAX_OUTPUTS; k++) nyx_tensor_release(out[k]), out[k] = NULL;
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

/* Ops of one long row do much of their work in one range, where the request comes from
 * another thread while they run. */
typedef struct row_call {
  const char *op;
  int64_t n;
  int kind; /* of all inputs */
  int part; /* percent of the op's time before the request */
  nyx_dtype dtype[3];
  int n_in;
  nyx_value attr[NYX_MAX_ATTRS];
} row_call;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { LONG = 1 << 19, LONGER = 1 << 20, TRIES = 8 }; /* which take many times as long */
#else
enum { LONG = 1 << 21, LONGER = 1 << 22, TRIES = 8 };
#endif

static const row_call row_calls[] = {
    {"sort", LONG, SPREAD, 20, {NYX_FLOAT32}, 1, {NYX_I(0)}},
    {"argsort", LONG, SPREAD, 20, {NYX_FLOAT32}, 1, {NYX_I(0)}},
    {"sort", LONG, SPREAD, 20, {NYX_INT64}, 1, {NYX_I(0)}},
    {"topk", LONG, RISING, 20, {NYX_FLOAT32}, 1, {NYX_I(1000), NYX_I(0), NYX_I(1)}},
    {"topk", LONG, RISING, 20, {NYX_INT64}, 1, {NYX_I(1000), NYX_I(0), NYX_I(1)}},
    {"topk", LONG, SPREAD, 20, {NYX_FLOAT32}, 1, {NYX_I(LONG / 8), NYX_I(0), NYX_I(1)}},
    {"topk", LONG, SPREAD, 20, {NYX_INT64}, 1, {NYX_I(LONG / 8), NYX_I(0), NYX_I(0)}},
    {"order_statistic", LONGER, SPREAD, 20, {NYX_FLOAT32}, 1, {NYX_I(0), NYX_I(0)}},
    {"unique", LONG, SPREAD, 20, {NYX_FLOAT32}, 1, {NYX_NONE}},
    {"unique", LONGER, SPREAD, 20, {NYX_INT64}, 1, {NYX_NONE}},
    /* Once its weights have been checked. */
    {"multinomial", LONG, SPREAD, 40, {NYX_FLOAT64}, 1, {NYX_I(LONG / 8), NYX_I(0)}},
    {"multinomial", LONG, SPREAD, 40, {NYX_FLOAT64}, 1, {NYX_I(LONG), NYX_I(1)}},
    {"randperm", LONG, ZEROS, 20, {NYX_FLOAT32}, 0, {NYX_I(LONG)}},
    {"scatter",
     LONGER,
     SPREAD,
     20,
     {NYX_FLOAT32, NYX_INT64, NYX_FLOAT32},
     3,
     {NYX_I(0), NYX_NONE}},
    {"scatter_add",
     LONGER,
     SPREAD,
     20,
     {NYX_FLOAT32, NYX_INT64, NYX_FLOAT32},
     3,
     {NYX_I(0)}},
    {"gather", LONGER, SPREAD, 20, {NYX_FLOAT32, NYX_INT64}, 2, {NYX_I(0)}},
    {"masked_scatter",
     LONGER,
     SPREAD,
     20,
     {NYX_FLOAT32, NYX_BOOL, NYX_FLOAT32},
     3,
     {NYX_NONE}},
    {"nonzero", LONGER, SPREAD, 20, {NYX_BOOL}, 1, {NYX_NONE}},
};

static atomic_int entered;
static long wait_ns;
static long long asked_at; /* by nanoseconds; read once the asker has been joined */

static long long nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void *ask_soon(void *arg) {
  (void)arg;
  while (!atomic_load(&entered)) continue;
  nanosleep(&(struct timespec){wait_ns / 1000000000, wait_ns % 1000000000}, NULL);
  asked_at = nanoseconds();
  nyx_context_interrupt(ctx);
  return NULL;
}

static void release_all(nyx_tensor **out) {
  for (int k = 0; k < NYX_MAX_OUTPUTS; k++) nyx_tensor_release(out[k]), out[k] = NULL;
}

/* Of the shorter of two runs, in nanoseconds. */
static long long time_of(const row_call *call, nyx_tensor *const *in, nyx_tensor **out) {
  long long least = 1LL << 40;
  for (int t = 0; t < 2; t++) {
    long long begin = nanoseconds();
    CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(call->op), in, call->n_in, call->attr, out));
    long long took = nanoseconds() - begin;
    if (took < least) least = took;
    release_all(out);
  }
  return least;
}

/* What became of a request that is made while the op runs. A thread that gets no core
 * asks when most of the work is done: that says nothing, but how long the work takes. */
enum { STOPPED, WENT_ON, TOO_LATE, NOT_ASKED };

static int asked_once(const row_call *call, nyx_tensor *const *in, nyx_tensor **out,
                      long long *least) {
  pthread_t asker;
  wait_ns = (long)(*least * call->part / 100);
  atomic_store(&entered, 0);
  if (pthread_create(&asker, NULL, ask_soon, NULL) != 0) return NOT_ASKED;
  atomic_store(&entered, 1);
  long long begin = nanoseconds();
  nyx_status status =
      nyx_apply(ctx, nyx_op_find(call->op), in, call->n_in, call->attr, out);
  long long took = nanoseconds() - begin;
  pthread_join(asker, NULL);
  (void)nyx_context_interrupted(ctx);
  release_all(out);
  if (status == NYX_ERR_INTERRUPTED) return STOPPED;
  if (took < *least) *least = took;
  return asked_at - begin > took * 3 / 4 ? TOO_LATE : WENT_ON;
}

static void long_rows_stop(void) {
  for (size_t c = 0; c < sizeof row_calls / sizeof *row_calls; c++) {
    const row_call *call = &row_calls[c];
    nyx_tensor *in[3] = {NULL}, *out[NYX_MAX_OUTPUTS] = {NULL};
    nyx_memory_stats before, after;
    int of[4] = {0};
    for (int i = 0; i < call->n_in; i++)
      REQUIRE(CHECK((in[i] = filled(1, &call->n, call->dtype[i], call->kind)) != NULL));
    long long least = time_of(call, in, out);
    nyx_memory_get_stats(&before);
    for (int t = 0; t < 8 * TRIES && of[STOPPED] + of[WENT_ON] < TRIES; t++)
      of[asked_once(call, in, out, &least)]++;
    nyx_memory_get_stats(&after);
    /* Not of all: the thread that works may be the one that gets no core. */
    CHECK_AT(of[STOPPED] > TRIES / 2, "it stops",
             ": %s, call %d: %d times, %d it went on, %d asked too late, %d not asked",
             call->op, (int)c, of[STOPPED], of[WENT_ON], of[TOO_LATE], of[NOT_ASKED]);
    CHECK_AT(after.live == before.live, "nothing is left", ": %s", call->op);
    nyx_status status =
        nyx_apply(ctx, nyx_op_find(call->op), in, call->n_in, call->attr, out);
    CHECK_AT(status == NYX_OK, "the next call runs", ": %s: %s", call->op,
             nyx_context_error(ctx));
    release_all(out);
    for (int i = 0; i < call->n_in; i++) {
      nyx_tensor *same = filled(1, &call->n, call->dtype[i], call->kind);
      CHECK_AT(same && memcmp(nyx_tensor_data(same), nyx_tensor_data(in[i]),
                              nyx_tensor_storage_bytes(same)) == 0,
               "its inputs are as they were", ": %s", call->op);
      nyx_tensor_release(same);
      nyx_tensor_release(in[i]);
    }
  }
}

/* Interrupted while gradients are delivered, leaves have all of it or nothing. */
static void leaves_get_all_or_nothing(void) {
  enum { LEAVES = 3 };
  nyx_tensor *leaf[LEAVES], *sum = NULL, *out[1];
  int64_t shape[1] = {400000};
  for (int i = 0; i < LEAVES; i++) {
    REQUIRE(CHECK((leaf[i] = filled(1, shape, NYX_FLOAT32, ZEROS)) != NULL));
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
  RUN(long_rows_stop);
  RUN(leaves_get_all_or_nothing);
  nyx_context_free(ctx);
  return check_done();
}
