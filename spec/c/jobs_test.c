/* A host's job system in place of the pool, as a game writes one: threads that sleep
 * until there are jobs and take them one after the other. Ops give the same bits through
 * it, jobs that start ops of their own end, and two threads of the host may work at once.
 *
 * `jobs_test --time [THREADS]` measures instead: the same ops by turns through the pool,
 * through jobs of threads that sleep at once, and of threads that look for jobs a moment
 * longer, as the pool's do; medians, and their ratios to the pool's.
 *
 * `jobs_test --blas LIBRARY [THREADS]` measures the same ops behind a product of a BLAS
 * that the host has loaded for itself, in one thread and in as many as there are, which
 * look for work for a while: what they cost Nyx. LIBRARY is an OpenBLAS. Read next:
 * core/base/parallel.c. */
#include <dlfcn.h>
#include <nyx/nyx.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tensors.h"

/* The host */

enum { MOST_THREADS = 16 };

typedef struct batch {
  void (*job)(void *arg, int64_t i);
  void *arg;
  int64_t count;
  atomic_llong next;
  atomic_int inside; /* workers; changes under the lock */
  struct batch *below;
} batch;

typedef struct jobs {
  pthread_mutex_t lock;
  pthread_cond_t wake, done;
  batch *_Atomic open; /* those with jobs left to take, the latest first */
  int patience;        /* looks before a thread sleeps */
  bool stop;
  int workers;
  pthread_t thread[MOST_THREADS];
  atomic_llong taken; /* by workers, in all */
} jobs;

static int64_t take_jobs(batch *b) {
  int64_t n = 0, i;
  while ((i = atomic_fetch_add(&b->next, 1)) < b->count) {
    b->job(b->arg, i);
    n++;
  }
  return n;
}

static void close_batch(jobs *j, batch *b) {
  batch *first = j->open;
  if (first == b) j->open = b->below;
  for (batch *p = first; p && p != b; p = p->below)
    if (p->below == b) p->below = b->below;
}

static void pause_a_little(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static void *work(void *arg) {
  jobs *j = arg;
  pthread_mutex_lock(&j->lock);
  for (;;) {
    pthread_mutex_unlock(&j->lock);
    for (int i = 0; i < j->patience && !j->open; i++) pause_a_little();
    pthread_mutex_lock(&j->lock);
    while (!j->open && !j->stop) pthread_cond_wait(&j->wake, &j->lock);
    if (j->stop) break;
    batch *b = j->open;
    b->inside++;
    pthread_mutex_unlock(&j->lock);
    atomic_fetch_add(&j->taken, take_jobs(b));
    pthread_mutex_lock(&j->lock);
    close_batch(j, b);
    if (--b->inside == 0) pthread_cond_broadcast(&j->done);
  }
  pthread_mutex_unlock(&j->lock);
  return NULL;
}

static void run_jobs(void *user, int64_t count, void (*job)(void *arg, int64_t i),
                     void *arg) {
  jobs *j = user;
  batch b = {.job = job, .arg = arg, .count = count};
  pthread_mutex_lock(&j->lock);
  b.below = j->open;
  j->open = &b;
  pthread_cond_broadcast(&j->wake);
  pthread_mutex_unlock(&j->lock);
  take_jobs(&b);
  pthread_mutex_lock(&j->lock);
  close_batch(j, &b);
  pthread_mutex_unlock(&j->lock);
  for (int i = 0; i < j->patience && b.inside; i++) pause_a_little();
  pthread_mutex_lock(&j->lock);
  while (b.inside) pthread_cond_wait(&j->done, &j->lock);
  pthread_mutex_unlock(&j->lock);
}

static void start_jobs(jobs *j, int threads, int patience) {
  *j = (jobs){.lock = PTHREAD_MUTEX_INITIALIZER,
              .patience = patience,
              .wake = PTHREAD_COND_INITIALIZER,
              .done = PTHREAD_COND_INITIALIZER};
  for (; j->workers < threads - 1; j->workers++)
    if (pthread_create(&j->thread[j->workers], NULL, work, j) != 0) break;
}

static void stop_jobs(jobs *j) {
  pthread_mutex_lock(&j->lock);
  j->stop = true;
  pthread_cond_broadcast(&j->wake);
  pthread_mutex_unlock(&j->lock);
  for (int i = 0; i < j->workers; i++) pthread_join(j->thread[i], NULL);
}

/* Ops */

static nyx_tensor *normal(int64_t rows, int64_t cols) {
  const int64_t shape[] = {rows, cols};
  const nyx_value attrs[] = {NYX_LIST(shape, 2), NYX_NONE};
  nyx_tensor *t = NULL;
  must(nyx__applyn(ctx, ID(randn), NULL, 0, attrs, &t));
  return t;
}

static nyx_tensor *add(nyx_tensor *x) {
  nyx_tensor *y = NULL;
  must(nyx__apply2(ctx, ID(add), x, x, NULL, &y));
  return y;
}

static nyx_tensor *product(nyx_tensor *x) {
  nyx_tensor *y = NULL;
  must(nyx__apply2(ctx, ID(matmul), x, x, NULL, &y));
  return y;
}

static nyx_tensor *chain(nyx_tensor *x) {
  nyx_tensor *y = nyx_tensor_retain(x), *next;
  for (int i = 0; i < 50; i++) {
    must(nyx__apply1(ctx, i % 2 ? ID(tanh) : ID(neg), y, NULL, &next));
    nyx_tensor_release(y);
    y = next;
  }
  return y;
}

static nyx_tensor *softmax(nyx_tensor *x) {
  nyx_tensor *y = NULL;
  must(nyx__apply1(ctx, ID(softmax), x, ATTRS(NYX_I(1)), &y));
  return y;
}

static const struct {
  const char *name;
  int64_t rows, cols;
  nyx_tensor *(*run)(nyx_tensor *x);
} ops[] = {{"add 1M", 1000, 1000, add},
           {"matmul 256", 256, 256, product},
           {"chain of 50, 1000 elements", 10, 100, chain},
           {"chain of 50, 100k elements", 100, 1000, chain},
           {"softmax 4096x1024", 4096, 1024, softmax}};

enum { OPS = sizeof ops / sizeof *ops };

/* Checks */

static jobs host;

/* NULL: through the pool again. */
static void through(jobs *j) {
  const nyx_job_system system = {run_jobs, j, j ? j->workers + 1 : 1};
  nyx_parallel_set_jobs(j ? &system : NULL);
}

static bool same_bits(nyx_tensor *a, nyx_tensor *b) {
  return nyx_tensor_storage_bytes(a) == nyx_tensor_storage_bytes(b) &&
         memcmp(nyx_tensor_data(a), nyx_tensor_data(b), nyx_tensor_storage_bytes(a)) == 0;
}

static void the_same_bits(void) {
  start_jobs(&host, 3, 0);
  for (int k = 0; k < OPS; k++) {
    nyx_tensor *x = normal(ops[k].rows, ops[k].cols), *pool, *own;
    pool = ops[k].run(x);
    through(&host);
    own = ops[k].run(x);
    through(NULL);
    CHECK_AT(same_bits(pool, own), ops[k].name, ": other bits");
    nyx_tensor_release(x);
    nyx_tensor_release(pool);
    nyx_tensor_release(own);
  }
  stop_jobs(&host);
}

/* Both give each their own context; each range starts an op of its own. */
static void nested(void *wrong, int64_t begin, int64_t end) {
  nyx_context *own = NULL;
  for (int64_t i = begin; i < end; i++) {
    nyx_tensor *x = NULL, *y = NULL;
    double sum = 0;
    const int64_t shape[] = {200000};
    const nyx_value ones[] = {NYX_LIST(shape, 1), NYX_NONE};
    bool ok = nyx_context_new(&own) == NYX_OK &&
              nyx__applyn(own, ID(ones), NULL, 0, ones, &x) == NYX_OK &&
              nyx__apply1(own, ID(sum), x, NULL, &y) == NYX_OK &&
              nyx_tensor_item(own, y, &sum) == NYX_OK && sum == 200000;
    if (!ok) atomic_fetch_add((atomic_int *)wrong, 1);
    nyx_tensor_release(x);
    nyx_tensor_release(y);
    nyx_context_free(own);
  }
}

static void *many_nested(void *wrong) {
  for (int i = 0; i < 20; i++) nyx_parallel_for(8, 1, nested, wrong);
  return NULL;
}

static void nested_and_together(void) {
  atomic_int wrong = 0;
  pthread_t other[2];
  start_jobs(&host, 3, 0);
  through(&host);
  for (int i = 0; i < 2; i++) pthread_create(&other[i], NULL, many_nested, &wrong);
  many_nested(&wrong);
  for (int i = 0; i < 2; i++) pthread_join(other[i], NULL);
  through(NULL);
  stop_jobs(&host);
  CHECK_INT(atomic_load(&wrong), 0);
}

/* No more jobs at a time than threads take turns at: what is small is not handed out. */
static void small_ops_wake_nobody(void) {
  start_jobs(&host, 3, 0);
  through(&host);
  nyx_tensor *x = normal(10, 100), *y = chain(x);
  through(NULL);
  stop_jobs(&host);
  CHECK_INT(atomic_load(&host.taken), 0);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
}

/* Times */

enum { ROUNDS = 41 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* Microseconds of one call, of some after two that are not timed. */
static double time_of(int k, nyx_tensor *x, jobs *own, int calls) {
  double start = 0;
  through(own);
  for (int i = -1; i <= calls; i++) {
    if (i == 1) start = now();
    nyx_tensor_release(ops[k].run(x));
  }
  double spent = now() - start;
  through(NULL);
  return spent / calls;
}

static int by_size(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

static double median(double *values) {
  qsort(values, ROUNDS, sizeof *values, by_size);
  return values[ROUNDS / 2];
}

static void print_times(int threads) {
  static jobs looking;
  jobs *const ways[] = {NULL, &host, &looking};
  must(nyx_parallel_set_threads(threads));
  start_jobs(&host, nyx_parallel_threads(), 0);
  start_jobs(&looking, nyx_parallel_threads(), 1500); /* as in parallel.c */
  printf("%d threads; medians of %d turns, microseconds\n%-28s %8s %8s %5s %8s %5s\n",
         nyx_parallel_threads(), ROUNDS, "", "pool", "sleeping", "", "looking", "");
  for (int k = 0; k < OPS; k++) {
    nyx_tensor *x = normal(ops[k].rows, ops[k].cols);
    double us[3][ROUNDS], ratio[3][ROUNDS];
    int calls = (int)(3000 / time_of(k, x, NULL, 3)) + 1;
    for (int i = 0; i < ROUNDS; i++)
      for (int way = 0; way < 3; way++) {
        us[way][i] = time_of(k, x, ways[way], calls);
        ratio[way][i] = us[way][i] / us[0][i];
      }
    nyx_tensor_release(x);
    printf("%-28s %8.1f %8.1f %5.2f %8.1f %5.2f\n", ops[k].name, median(us[0]),
           median(us[1]), median(ratio[1]), median(us[2]), median(ratio[2]));
  }
  stop_jobs(&host);
  stop_jobs(&looking);
}

/* The host's BLAS */

enum { SIDE = 512 };

typedef struct openblas {
  void (*sgemm)(int order, int turn_a, int turn_b, int m, int n, int k, float alpha,
                const float *a, int lda, const float *b, int ldb, float beta, float *c,
                int ldc);
  void (*set_threads)(int n);
  float *a, *b, *c;
} openblas;

static bool symbol(void *lib, const char *name, void *function) {
  void *address = dlsym(lib, name);
  memcpy(function, &address, sizeof address);
  return address != NULL;
}

/* The host's product, then one call of an op: microseconds of the latter. */
static double time_behind(const openblas *blas, int threads, int k, nyx_tensor *x) {
  blas->set_threads(threads);
  blas->sgemm(101, 111, 111, SIDE, SIDE, SIDE, 1, blas->a, SIDE, blas->b, SIDE, 0,
              blas->c, SIDE); /* row by row, neither turned */
  double start = now();
  nyx_tensor_release(ops[k].run(x));
  return now() - start;
}

static int print_behind_blas(const char *name, int threads) {
  openblas blas;
  void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!lib || !symbol(lib, "cblas_sgemm", &blas.sgemm) ||
      !symbol(lib, "openblas_set_num_threads", &blas.set_threads)) {
    printf("%s: not found, or no OpenBLAS\n", name);
    return 1;
  }
  must(nyx_parallel_set_threads(threads));
  nyx_tensor *matrix[3];
  for (int i = 0; i < 3; i++) matrix[i] = normal(SIDE, SIDE);
  blas.a = nyx_tensor_data(matrix[0]);
  blas.b = nyx_tensor_data(matrix[1]);
  blas.c = nyx_tensor_data(matrix[2]);
  int most = nyx_parallel_threads();
  printf(
      "behind a product of %d by the host's BLAS in 1 and %d threads; medians of %d "
      "turns, microseconds\n%-28s %8s %8s\n",
      SIDE, most, ROUNDS, "", "1", "all");
  for (int k = 0; k < OPS; k++) {
    nyx_tensor *x = normal(ops[k].rows, ops[k].cols);
    double us[2][ROUNDS], ratio[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
      const struct timespec pause = {0, 100 * 1000 * 1000}; /* until all sleep */
      for (int way = 0; way < 2; way++) {
        nanosleep(&pause, NULL);
        us[way][i] = time_behind(&blas, way == 0 ? 1 : most, k, x);
      }
      ratio[i] = us[1][i] / us[0][i];
    }
    nyx_tensor_release(x);
    printf("%-28s %8.1f %8.1f %5.2f\n", ops[k].name, median(us[0]), median(us[1]),
           median(ratio));
  }
  for (int i = 0; i < 3; i++) nyx_tensor_release(matrix[i]);
  return 0;
}

int main(int argc, char **argv) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  if (argc > 1 && strcmp(argv[1], "--time") == 0) {
    print_times(argc > 2 ? atoi(argv[2]) : 0);
    nyx_context_free(ctx);
    return 0;
  }
  if (argc > 2 && strcmp(argv[1], "--blas") == 0) {
    int failed = print_behind_blas(argv[2], argc > 3 ? atoi(argv[3]) : 0);
    nyx_context_free(ctx);
    return failed;
  }
  must(nyx_parallel_set_threads(3));
  RUN(the_same_bits);
  RUN(nested_and_together);
  RUN(small_ops_wake_nobody);
  nyx_context_free(ctx);
  return check_done();
}
