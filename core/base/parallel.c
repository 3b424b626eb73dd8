/* The thread pool. Workers start at the first call that has work for them, wait by
 * spinning a moment and then by sleeping. One call at a time owns the pool; a second
 * caller, as any nested one, does its ranges itself. Read next: nyx/parallel.h.
 *
 * Each thread has a part of the ranges of its own, the same in every call of as many, and
 * takes from the others' when that is used up: what one op wrote is in the cache of the
 * core that reads it in the next. Ops that go through memory sweep: every other one of
 * them takes a thread's ranges from the last to the first, so that it begins with what
 * the cache still has where that does not hold all (docs/decisions/011).
 *
 * One word says all about the current job: its number, whether workers may still enter,
 * and how many are inside. The caller opens it, takes part, closes it when the ranges are
 * used up, and returns when nobody is inside, so a worker that wakes late costs nothing.
 */
#include "parallel.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "cores.h"
#include "cpu.h"

#define MAX_THREADS 256
#define SPINS 1500 /* pauses before a worker or caller sleeps: some 10 to 50 us */

#define OPEN ((uint64_t)1 << 16)
#define INSIDE (OPEN - 1)
#define NUMBER_SHIFT 32

typedef struct job {
  nyx_range_fn fn;
  void *arg;
  int64_t n, grain, ranges, parts;
  bool back; /* each thread takes its own from the last to the first */
} job;

static struct {
  pthread_mutex_t owner; /* held by the call that uses the workers */
  int workers;           /* running; changes under owner */
  pthread_t thread[MAX_THREADS];
  atomic_int spins; /* SPINS, or 0 when there are more threads than cores */

  job job; /* written while nobody is inside */
  _Alignas(64) _Atomic uint64_t state;
  struct {
    _Alignas(64) atomic_llong next; /* the first range of the part that nobody took */
  } part[MAX_THREADS];

  pthread_mutex_t sleep;
  pthread_cond_t wake, done;
  atomic_int sleepers;         /* workers that wait for `wake` */
  atomic_bool caller_sleeping; /* the caller waits for `done` */
  atomic_bool stopping;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER,
          .sleep = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static atomic_bool swept_back;    /* by the last call of nyx__parallel_sweep */
static atomic_int wanted_threads; /* 0: not asked for yet */
static bool chosen_threads;       /* by nyx_parallel_set_threads; under pool.owner */

/* Where workers run; under pool.owner. */
typedef struct affinity {
  char text[64];
  int cpu[MAX_THREADS], count; /* in turn; none: wherever the system puts them */
  bool listed;
} affinity;

static affinity placed = {.text = "none"};
static char affinity_problem[256]; /* with NYX_AFFINITY */
static pthread_once_t environment = PTHREAD_ONCE_INIT;
static void read_environment(void);

static nyx_job_system host;
static atomic_bool host_set;

/* True while this thread runs ranges: calls from there are not split again. */
static _Thread_local bool inside;
static _Thread_local unsigned refusals; /* calls that found the pool taken */

bool nyx__parallel_inside(void) {
  return inside;
}

unsigned nyx__parallel_refusals(void) {
  return refusals;
}

static void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

static void run_range(const job *j, int64_t i) {
  int64_t begin = i * j->grain;
  int64_t end = j->n - begin > j->grain ? begin + j->grain : j->n;
  j->fn(j->arg, begin, end);
}

/* What is taken i-th of ranges begin..end-1. */
static int64_t in_turn(const job *j, int64_t begin, int64_t end, int64_t i) {
  return j->back ? begin + end - 1 - i : i;
}

static void run_here(const job *j) {
  for (int64_t i = 0; i < j->ranges; i++) run_range(j, in_turn(j, 0, j->ranges, i));
}

static int64_t part_begin(const job *j, int64_t part) {
  return part * j->ranges / j->parts;
}

/* Takes ranges until there are none, those of thread `me` first. */
static void run_shared(const job *j, int64_t me) {
  for (int64_t k = 0; k < j->parts; k++) {
    int64_t part = (me + k) % j->parts, i;
    int64_t begin = part_begin(j, part), end = part_begin(j, part + 1);
    atomic_llong *next = &pool.part[part].next;
    while (atomic_load_explicit(next, memory_order_relaxed) < end &&
           (i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < end)
      run_range(j, in_turn(j, begin, end, i));
  }
}

/* Workers */

/* Enters the current job unless it is closed or was seen before. */
static bool enter(uint32_t *seen) {
  uint64_t state = atomic_load(&pool.state);
  while ((state & OPEN) && (uint32_t)(state >> NUMBER_SHIFT) != *seen) {
    if (atomic_compare_exchange_weak(&pool.state, &state, state + 1)) {
      *seen = (uint32_t)(state >> NUMBER_SHIFT);
      return true;
    }
  }
  return false;
}

static void leave(void) {
  uint64_t before = atomic_fetch_sub(&pool.state, 1);
  if ((before & (OPEN | INSIDE)) != 1) return; /* open, or not the last one */
  if (!atomic_load(&pool.caller_sleeping)) return;
  pthread_mutex_lock(&pool.sleep);
  pthread_cond_signal(&pool.done);
  pthread_mutex_unlock(&pool.sleep);
}

/* Waits for a job and enters it; false when the pool stops. */
static bool wait_for_job(uint32_t *seen) {
  for (int i = atomic_load_explicit(&pool.spins, memory_order_relaxed); i > 0; i--) {
    if (atomic_load_explicit(&pool.stopping, memory_order_relaxed)) return false;
    if (enter(seen)) return true;
    pause_a_little();
  }
  bool entered = false;
  pthread_mutex_lock(&pool.sleep);
  atomic_fetch_add(&pool.sleepers, 1); /* before the check: see wake_workers */
  while (!(entered = enter(seen)) && !atomic_load(&pool.stopping))
    pthread_cond_wait(&pool.wake, &pool.sleep);
  atomic_fetch_sub(&pool.sleepers, 1);
  pthread_mutex_unlock(&pool.sleep);
  return entered;
}

/* Thread `me`; 0 is the caller. */
static void *work(void *me) {
  inside = true;
  uint32_t seen = 0;
  while (wait_for_job(&seen)) {
    run_shared(&pool.job, (intptr_t)me);
    leave();
  }
  return NULL;
}

/* After the state was opened: a worker either sees that or is counted here. */
static void wake_workers(int64_t ranges) {
  int sleepers = atomic_load(&pool.sleepers);
  if (sleepers == 0) return;
  pthread_mutex_lock(&pool.sleep);
  if (ranges - 1 < sleepers)
    for (int64_t i = 1; i < ranges; i++) pthread_cond_signal(&pool.wake);
  else
    pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.sleep);
}

static bool nobody_inside(void) {
  return (atomic_load(&pool.state) & INSIDE) == 0;
}

static void wait_for_workers(void) {
  for (int i = atomic_load_explicit(&pool.spins, memory_order_relaxed); i > 0; i--) {
    if (nobody_inside()) return;
    pause_a_little();
  }
  pthread_mutex_lock(&pool.sleep);
  atomic_store(&pool.caller_sleeping, true); /* before the check: see leave */
  while (!nobody_inside()) pthread_cond_wait(&pool.done, &pool.sleep);
  atomic_store(&pool.caller_sleeping, false);
  pthread_mutex_unlock(&pool.sleep);
}

/* Starting and stopping; the caller owns the pool */

/* In a forked child there are no workers, and nobody else holds a lock. */
static void forget_after_fork(void) {
  static const pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static const pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
  pool.owner = pool.sleep = mutex;
  pool.wake = pool.done = cond;
  pool.workers = 0;
  atomic_store(&pool.sleepers, 0);
  atomic_store(&pool.caller_sleeping, false);
  atomic_store(&pool.state, 0);
}

static void register_fork_handler(void) {
  pthread_atfork(NULL, NULL, forget_after_fork);
}

/* As many workers as are wanted, or as the system gives. Signals stay with the host's
 * threads. */
static void start_workers(int threads) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, register_fork_handler);
  pthread_once(&environment, read_environment);
  atomic_store(&pool.spins, threads <= nyx__cpu_info()->cores ? SPINS : 0);
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  while (pool.workers < threads - 1) {
    pthread_t *thread = &pool.thread[pool.workers];
    intptr_t me = pool.workers + 1;
    if (pthread_create(thread, NULL, work, (void *)me) != 0) break;
    pool.workers++;
#ifdef __linux__
    pthread_setname_np(*thread, "nyx-worker");
    if (placed.count == 0) continue;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(placed.cpu[pool.workers % placed.count], &set);
    pthread_setaffinity_np(*thread, sizeof set, &set); /* the CPU may be gone: no harm */
#endif
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void stop_workers(void) {
  pthread_mutex_lock(&pool.sleep);
  atomic_store(&pool.stopping, true);
  pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.sleep);
  for (int i = 0; i < pool.workers; i++) pthread_join(pool.thread[i], NULL);
  pool.workers = 0;
  atomic_store(&pool.stopping, false);
}

/* At exit, or when the library is unloaded. Where exit was called by a range, the workers
 * cannot be waited for and end with the process. */
static __attribute__((destructor)) void stop_at_unload(void) {
  if (inside) return;
  pthread_mutex_lock(&pool.owner);
  stop_workers();
  atomic_store(&wanted_threads, 1);
  pthread_mutex_unlock(&pool.owner);
}

/* Settings */

/* What NYX_THREADS says; 0 where it says nothing, -1 where it is no such number. */
static int environment_threads(void) {
  const char *text = getenv("NYX_THREADS");
  if (!text || !*text) return 0;
  char *end;
  long n = strtol(text, &end, 10);
  return *end == '\0' && n >= 1 && n <= MAX_THREADS ? (int)n : -1;
}

static int default_threads(void) {
  int n = environment_threads();
  if (n > 0) return n;
  pthread_once(&environment, read_environment);
  if (placed.listed) return placed.count;
  int cores = nyx__cpu_info()->cores;
  return cores < MAX_THREADS ? cores : MAX_THREADS;
}

static int pool_threads(void) {
  int n = atomic_load_explicit(&wanted_threads, memory_order_relaxed);
  if (n > 0) return n;
  int expected = 0;
  n = default_threads();
  return atomic_compare_exchange_strong(&wanted_threads, &expected, n) ? n : expected;
}

int nyx_parallel_threads(void) {
  return atomic_load(&host_set) ? host.threads : pool_threads();
}

nyx_status nyx_parallel_set_threads(int n) {
  if (n > MAX_THREADS) return NYX_ERR_ARGUMENT;
  if (inside) return NYX_ERR_STATE; /* the pool cannot be stopped from within */
  pthread_mutex_lock(&pool.owner);
  stop_workers();
  atomic_store(&wanted_threads, n < 1 ? default_threads() : n);
  chosen_threads = n >= 1;
  pthread_mutex_unlock(&pool.owner);
  return NYX_OK;
}

/* Affinity */

/* Fills `a` from text; false and why when that cannot be. */
static nyx_status read_affinity(nyx_context *ctx, const char *text, affinity *a) {
  nyx__cpu_set allowed;
  *a = (affinity){.text = ""};
  bool known = nyx__allowed_cpus(&allowed), spread = strcmp(text, "spread") == 0;
  if (strlen(text) >= sizeof a->text) return nyx__error(ctx, AFFINITY_TEXT, text);
  strcpy(a->text, text);
  if (strcmp(text, "none") == 0) return NYX_OK;
  if (!known) return nyx__error(ctx, AFFINITY_SYSTEM, text);
  if (spread || strcmp(text, "compact") == 0) {
    a->count = nyx__cpu_order(&allowed, spread, NYX__SYSTEM, a->cpu, MAX_THREADS);
    return NYX_OK;
  }
  a->count = nyx__cpu_list(text, a->cpu, MAX_THREADS);
  a->listed = true;
  if (a->count < 1) return nyx__error(ctx, AFFINITY_TEXT, text);
  for (int i = 0; i < a->count; i++) {
    char list[200];
    if (allowed.has[a->cpu[i]]) continue;
    nyx__cpu_list_text(&allowed, list, sizeof list);
    return nyx__error(ctx, AFFINITY_CPU, text, a->cpu[i], list);
  }
  return NYX_OK;
}

static void read_environment(void) {
  const char *text = getenv("NYX_AFFINITY");
  nyx_context *ctx = NULL;
  affinity a;
  if (!text || !*text || nyx_context_new(&ctx) != NYX_OK) return;
  if (read_affinity(ctx, text, &a) == NYX_OK) {
    placed = a;
  } else {
    snprintf(affinity_problem, sizeof affinity_problem, "NYX_AFFINITY: %.200s",
             nyx_context_error(ctx));
  }
  nyx_context_free(ctx);
}

nyx_status nyx_parallel_set_affinity(nyx_context *ctx, const char *text) {
  affinity a;
  NYX_TRY(read_affinity(ctx, text, &a));
  if (inside) return nyx__error(ctx, AFFINITY_INSIDE);
  pthread_once(&environment, read_environment);
  pthread_mutex_lock(&pool.owner);
  stop_workers();
  placed = a;
  affinity_problem[0] = '\0';
  if (!chosen_threads) atomic_store(&wanted_threads, 0);
  pthread_mutex_unlock(&pool.owner);
  return NYX_OK;
}

void nyx_parallel_get(nyx_parallel_info *out) {
  unsigned long long mask;
  nyx__cpu_set allowed;
  *out = (nyx_parallel_info){.threads = nyx_parallel_threads()};
  out->quota = nyx__cgroup_cores("/proc/self/cgroup", "/sys/fs/cgroup");
  out->nodes = nyx__nodes(NYX__SYSTEM, &mask);
  if (nyx__allowed_cpus(&allowed))
    nyx__cpu_list_text(&allowed, out->allowed, sizeof out->allowed);
  pthread_once(&environment, read_environment);
  if (!inside) pthread_mutex_lock(&pool.owner);
  strcpy(out->affinity, placed.text);
  strcpy(out->problem, affinity_problem);
  if (!chosen_threads && environment_threads() < 0)
    snprintf(out->threads_problem, sizeof out->threads_problem,
             "NYX_THREADS: '%.60s', expected a whole number from 1 to %d",
             getenv("NYX_THREADS"), MAX_THREADS);
  if (!inside) pthread_mutex_unlock(&pool.owner);
}

void nyx_parallel_set_jobs(const nyx_job_system *jobs) {
  atomic_store(&host_set, false);
  if (!jobs) return;
  host = *jobs;
  if (host.threads < 1) host.threads = 1;
  atomic_store(&host_set, true);
}

/* Work */

static void host_job(void *arg, int64_t i) {
  bool before = inside;
  inside = true;
  run_range(arg, i);
  inside = before;
}

static void run_in_pool(const job *j, int threads) {
  if (pool.workers < threads - 1) start_workers(threads);
  pool.job = *j;
  pool.job.parts = threads < j->ranges ? threads : j->ranges;
  for (int64_t k = 0; k < pool.job.parts; k++)
    atomic_store_explicit(&pool.part[k].next, part_begin(&pool.job, k),
                          memory_order_relaxed);
  uint64_t number = (atomic_load(&pool.state) >> NUMBER_SHIFT) + 1;
  if ((uint32_t)number == 0) number = 1; /* 0 is what a new worker has seen */
  atomic_store(&pool.state, number << NUMBER_SHIFT | OPEN);
  wake_workers(j->ranges);
  run_shared(&pool.job, 0);
  atomic_fetch_and(&pool.state, ~OPEN);
  wait_for_workers();
}

/* All of j, in the pool if that is free. */
static void share(job *j, int threads, bool sweeps) {
  bool taken = threads > 1 && pthread_mutex_trylock(&pool.owner) != 0;
  if (taken) {
    refusals++;
    run_here(j);
    return;
  }
  if (sweeps) {
    j->back = !atomic_load_explicit(&swept_back, memory_order_relaxed);
    atomic_store_explicit(&swept_back, j->back, memory_order_relaxed);
  }
  if (threads == 1) {
    run_here(j);
    return;
  }
  inside = true;
  run_in_pool(j, threads);
  inside = false;
  pthread_mutex_unlock(&pool.owner);
}

static void run(int64_t n, int64_t grain, nyx_range_fn fn, void *arg, bool sweeps) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  job j = {fn, arg, n, grain, (n - 1) / grain + 1, 1, false};
  if (j.ranges == 1 || inside)
    run_here(&j);
  else if (atomic_load_explicit(&host_set, memory_order_acquire))
    host.run(host.user, j.ranges, host_job, &j);
  else
    share(&j, pool_threads(), sweeps);
}

void nyx_parallel_for(int64_t n, int64_t grain, nyx_range_fn fn, void *arg) {
  run(n, grain, fn, arg, false);
}

void nyx__parallel_sweep(int64_t n, int64_t grain, nyx_range_fn fn, void *arg) {
  run(n, grain, fn, arg, true);
}
