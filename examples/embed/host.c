/* A host that keeps control: a limit on memory, and its own threads for Nyx's work, as a
 * game engine would lend them. Read next: <nyx/memory.h>, <nyx/parallel.h>. */
#include <nyx/nyx.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* ------------------------------------------------------------------ a job system */

/* Real ones keep their threads and share them with other work; this one starts two for
 * each batch, which is enough to show the contract. */
enum { THREADS = 2 };

typedef struct batch {
  void (*job)(void *arg, int64_t i);
  void *arg;
  int64_t count;
  _Atomic int64_t next;
} batch;

static void *work(void *arg) {
  batch *b = arg;
  for (int64_t i; (i = atomic_fetch_add(&b->next, 1)) < b->count;) b->job(b->arg, i);
  return NULL;
}

/* Calls job(arg, i) for every i below count; returns when all are done. */
static void run(void *user, int64_t count, void (*job)(void *arg, int64_t i), void *arg) {
  batch b = {.job = job, .arg = arg, .count = count};
  pthread_t thread[THREADS];
  bool started[THREADS];
  for (int i = 0; i < THREADS; i++)
    started[i] = pthread_create(&thread[i], NULL, work, &b) == 0;
  work(&b); /* also where no thread could be started */
  for (int i = 0; i < THREADS; i++)
    if (started[i]) pthread_join(thread[i], NULL);
  *(int64_t *)user += count;
}

/* ------------------------------------------------------------------ the work */

/* The sum of tanh over n numbers. */
static nyx_status sum_of_tanh(nyx_context *ctx, int64_t n, double *out) {
  nyx_tensor *x = NULL, *y = NULL, *sum = NULL;
  nyx_status status = nyx_tensor_empty(ctx, NYX_FLOAT32, 1, &n, &x);
  if (status != NYX_OK) return status;
  float *data = nyx_tensor_data(x);
  for (int64_t i = 0; i < n; i++) data[i] = (float)i / (float)n;
  status = nyx_apply(ctx, nyx_op_find("tanh"), &x, 1, NULL, &y);
  if (status == NYX_OK) status = nyx_apply(ctx, nyx_op_find("sum"), &y, 1, NULL, &sum);
  if (status == NYX_OK) status = nyx_tensor_item(ctx, sum, out);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_tensor_release(sum);
  return status;
}

int main(void) {
  const int64_t million = 1 << 20;
  nyx_context *ctx;
  if (nyx_context_new(&ctx) != NYX_OK) return 1;

  double with_pool, with_host;
  int64_t jobs = 0;
  nyx_job_system system = {.run = run, .user = &jobs, .threads = THREADS + 1};
  bool ok = sum_of_tanh(ctx, million, &with_pool) == NYX_OK;
  nyx_parallel_set_jobs(&system);
  ok = ok && sum_of_tanh(ctx, million, &with_host) == NYX_OK;
  nyx_parallel_set_jobs(NULL);
  if (!ok) {
    printf("failed: %s\n", nyx_context_error(ctx));
    return 1;
  }
  printf("the host ran %s jobs; the result is %s\n", jobs > 0 ? "some" : "no",
         with_pool == with_host ? "the same" : "another");

  nyx_memory_set_limit(16u << 20); /* two tensors of 4 MiB fit, two of 64 MiB do not */
  ok = sum_of_tanh(ctx, 16 * million, &with_host) == NYX_ERR_MEMORY;
  printf("beyond the limit: %s\n", nyx_context_error(ctx));
  ok = sum_of_tanh(ctx, million, &with_host) == NYX_OK && ok;
  printf("within it: %s\n",
         with_pool == with_host ? "the same result" : "another result");
  nyx_context_free(ctx);

  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  printf("left: %zu bytes\n", stats.live);
  return ok && with_pool == with_host && jobs > 0 ? 0 : 1;
}
