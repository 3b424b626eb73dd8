/* Which CPUs threads use: control groups and topologies as files in a folder of this
 * test, lists as a user writes them, where workers really run, on which node memory lies,
 * and that nobody starts more threads than were asked for. Read next: core/base/cores.h.
 */
#include "core/base/cores.h"

#include <dirent.h>
#include <errno.h>
#include <nyx/nyx.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "core/linalg/blas.h"
#include "core/linalg/gemm.h"

static nyx_context *ctx;
static char folder[64];

/* Writes a file below the folder, and the folders on the way. */
static void put(const char *name, const char *text) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  for (char *p = path + 1; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    (void)mkdir(path, 0700);
    *p = '/';
  }
  FILE *out = fopen(path, "w");
  CHECK(out && fputs(text, out) >= 0 && fclose(out) == 0);
}

static void begin(void) {
  char command[256];
  snprintf(command, sizeof command, "rm -rf %s && mkdir %s", folder, folder);
  CHECK(system(command) == 0);
}

static int quota(const char *membership) {
  char name[128], root[128];
  put("membership", membership);
  snprintf(name, sizeof name, "%s/membership", folder);
  snprintf(root, sizeof root, "%s/cgroup", folder);
  return nyx__cgroup_cores(name, root);
}

static void quotas_of_control_groups(void) {
  begin();
  CHECK_INT(quota("0::/a/b\n"), 0); /* no files */
  put("cgroup/a/b/cpu.max", "max 100000\n");
  CHECK_INT(quota("0::/a/b\n"), 0);
  put("cgroup/a/b/cpu.max", "200000 100000\n");
  CHECK_INT(quota("0::/a/b\n"), 2);
  put("cgroup/a/b/cpu.max", "250000 100000\n"); /* more than two: three threads */
  CHECK_INT(quota("0::/a/b\n"), 3);
  put("cgroup/a/cpu.max", "50000 100000\n"); /* the group above has less */
  CHECK_INT(quota("0::/a/b\n"), 1);
  CHECK_INT(quota("0::/a\n"), 1);
  CHECK_INT(quota("0::/\n"), 0);
  put("cgroup/cpu.max", "400000 100000\n"); /* as a container sees its own */
  CHECK_INT(quota("0::/\n"), 4);
  CHECK_INT(quota("0::/not/here\n"), 4);
  put("cgroup/a/b/cpu.max", "nonsense\n");
  put("cgroup/a/cpu.max", "-1 0\n");
  CHECK_INT(quota("0::/a/b\n"), 4);
  /* the first version */
  put("cgroup/cpu/x/cpu.cfs_quota_us", "-1\n");
  put("cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
  CHECK_INT(quota("5:memory:/y\n1:cpuacct,cpu:/x\n"), 0);
  put("cgroup/cpu/x/cpu.cfs_quota_us", "150000\n");
  CHECK_INT(quota("5:memory:/y\n1:cpuacct,cpu:/x\n"), 2);
  CHECK_INT(quota("5:memory:/x\n1:cpuset:/x\n"), 0); /* not the cpu controller */
  CHECK_INT(quota("no colons\n:\n\n"), 0);
  CHECK_INT(nyx__cgroup_cores("/not/there", "/"), 0);
}

static void lists_of_cpus(void) {
  int cpu[16];
  CHECK_INT(nyx__cpu_list("0-3,8\n", cpu, 16), 5);
  CHECK(cpu[0] == 0 && cpu[3] == 3 && cpu[4] == 8);
  CHECK_INT(nyx__cpu_list("7", cpu, 16), 1);
  CHECK_INT(nyx__cpu_list("3,1,2", cpu, 16), 3);
  CHECK(cpu[0] == 3 && cpu[1] == 1 && cpu[2] == 2);
  static const char *const bad[] = {
      "",    ",",    "1,",   "-1",   "1-", "3-1",  "1--2",   "a",
      "1;2", "1 2",  "0x1",  "0-3,", " 1", "1024", "0-1024", "99999999999999999999",
      "+1",  "1,,2", "1-2-3"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK_AT(nyx__cpu_list(bad[i], cpu, 16) == -1, "refused", ": '%s'", bad[i]);
  CHECK_INT(nyx__cpu_list("0-16", cpu, 16), -1); /* more than there is room for */
  nyx__cpu_set set = {{false}};
  char text[64];
  set.has[0] = set.has[1] = set.has[2] = set.has[5] = set.has[1023] = true;
  nyx__cpu_list_text(&set, text, sizeof text);
  CHECK_STR(text, "0-2,5,1023");
  nyx__cpu_list_text(&set, text, 6); /* cut, not beyond */
  CHECK_STR(text, "0-2,5");
}

/* Two nodes of two cores of two threads, numbered as Linux does: second threads last. */
static void orders_of_cpus(void) {
  char name[128], text[16];
  begin();
  put("node/online", "0-1\n");
  put("node/node0/cpulist", "0-1,4-5\n");
  put("node/node1/cpulist", "2-3,6-7\n");
  for (int cpu = 0; cpu < 8; cpu++) {
    snprintf(name, sizeof name, "cpu/cpu%d/topology/physical_package_id", cpu);
    snprintf(text, sizeof text, "%d\n", cpu % 4 / 2);
    put(name, text);
    snprintf(name, sizeof name, "cpu/cpu%d/topology/core_id", cpu);
    snprintf(text, sizeof text, "%d\n", cpu % 2);
    put(name, text);
  }
  nyx__cpu_set allowed = {{false}};
  for (int cpu = 0; cpu < 8; cpu++) allowed.has[cpu] = true;
  static const int compact[] = {0, 4, 1, 5, 2, 6, 3, 7},
                   spread[] = {0, 2, 1, 3, 4, 6, 5, 7};
  int cpu[8];
  CHECK_INT(nyx__cpu_order(&allowed, false, folder, cpu, 8), 8);
  CHECK(memcmp(cpu, compact, sizeof cpu) == 0);
  CHECK_INT(nyx__cpu_order(&allowed, true, folder, cpu, 8), 8);
  CHECK_AT(memcmp(cpu, spread, sizeof cpu) == 0, "spread", ": %d %d %d %d %d %d %d %d",
           cpu[0], cpu[1], cpu[2], cpu[3], cpu[4], cpu[5], cpu[6], cpu[7]);
  CHECK_INT(nyx__cpu_order(&allowed, true, folder, cpu, 3), 3);
  allowed.has[0] = allowed.has[2] = false; /* only what is allowed */
  CHECK_INT(nyx__cpu_order(&allowed, false, folder, cpu, 8), 6);
  CHECK(cpu[0] == 4 && cpu[1] == 1);
  CHECK_INT(nyx__cpu_order(&allowed, false, "/not/there", cpu, 8), 6);
  CHECK(cpu[0] == 1 && cpu[5] == 7);
  unsigned long long mask;
  CHECK_INT(nyx__nodes(folder, &mask), 2);
  CHECK_INT((long long)mask, 3);
  CHECK_INT(nyx__node_of(folder, 6), 1);
  CHECK_INT(nyx__nodes("/not/there", &mask), 1);
}

/* ---- where workers run */

static int allowed_count(void) {
  nyx__cpu_set set;
  int n = 0;
  if (nyx__allowed_cpus(&set))
    for (int i = 0; i < NYX__CPUS; i++) n += set.has[i];
  return n;
}

typedef struct seen {
  pthread_t caller;
  atomic_int workers, pinned_to, missing;
} seen;

static void look(void *arg, int64_t begin_at, int64_t end) {
  seen *s = arg;
  (void)begin_at, (void)end;
  atomic_fetch_sub(&s->missing, 1);
  for (int i = 0; i < 2000 && atomic_load(&s->missing) > 0; i++) usleep(100);
  if (pthread_equal(s->caller, pthread_self())) return;
  atomic_fetch_add(&s->workers, 1);
  cpu_set_t set;
  CPU_ZERO(&set);
  if (pthread_getaffinity_np(pthread_self(), sizeof set, &set) != 0) return;
  for (int i = 0; i < CPU_SETSIZE; i++)
    if (CPU_COUNT(&set) == 1 && CPU_ISSET(i, &set)) atomic_store(&s->pinned_to, i);
}

/* The CPU that the second thread is pinned to; -1: to none. */
static int place_of_worker(void) {
  seen s = {.caller = pthread_self()};
  atomic_init(&s.workers, 0), atomic_init(&s.pinned_to, -1), atomic_init(&s.missing, 2);
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  nyx_parallel_for(2, 1, look, &s);
  CHECK_INT(atomic_load(&s.workers), 1);
  return atomic_load(&s.pinned_to);
}

static void workers_run_where_they_are_put(void) {
  nyx__cpu_set set;
  char text[16];
  int last = -1, n = allowed_count();
  nyx_parallel_info info;
  REQUIRE(CHECK(nyx__allowed_cpus(&set)));
  for (int i = 0; i < NYX__CPUS; i++) last = set.has[i] ? i : last;
  if (n > 1) CHECK_INT(place_of_worker(), -1);
  snprintf(text, sizeof text, "%d", last);
  CHECK_OK(ctx, nyx_parallel_set_affinity(ctx, text));
  CHECK_INT(place_of_worker(), last);
  CHECK_INT(allowed_count(), n); /* the caller is left alone */
  nyx_parallel_get(&info);
  CHECK_STR(info.affinity, text);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
  CHECK_INT(nyx_parallel_threads(), 1); /* as many as are listed */
  int order[2];
  CHECK_OK(ctx, nyx_parallel_set_affinity(ctx, "spread"));
  if (nyx__cpu_order(&set, true, NYX__SYSTEM, order, 2) == 2)
    CHECK_INT(place_of_worker(), order[1]);
  CHECK_OK(ctx, nyx_parallel_set_affinity(ctx, "compact"));
  if (nyx__cpu_order(&set, false, NYX__SYSTEM, order, 2) == 2)
    CHECK_INT(place_of_worker(), order[1]);
  CHECK_OK(ctx, nyx_parallel_set_affinity(ctx, "none"));
  if (n > 1) CHECK_INT(place_of_worker(), -1);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
  CHECK_INT(nyx_parallel_threads(), nyx__cores());
}

static void set_inside(void *arg, int64_t begin_at, int64_t end) {
  (void)arg, (void)begin_at, (void)end;
  nyx_context *own = NULL;
  if (nyx_context_new(&own) != NYX_OK) return;
  CHECK_STATUS(nyx_parallel_set_affinity(own, "none"), NYX_ERR_STATE);
  nyx_context_free(own);
}

static void wrong_affinities(void) {
  static const char *const bad[] = {
      "", "all", "0-", "Compact",
      "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"};
  nyx_parallel_info info;
  CHECK_OK(ctx, nyx_parallel_set_affinity(ctx, "compact"));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_STATUS(nyx_parallel_set_affinity(ctx, bad[i]), NYX_ERR_ARGUMENT);
    CHECK_CONTAINS(nyx_context_error(ctx), "expected none, compact, spread or a list");
  }
  CHECK_STATUS(nyx_parallel_set_affinity(ctx, "1023"), NYX_ERR_ARGUMENT);
  CHECK_CONTAINS(nyx_context_error(ctx), "names CPU 1023, this thread may use ");
  nyx_parallel_get(&info);
  CHECK_STR(info.affinity, "compact"); /* nothing has changed */
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  nyx_parallel_for(2, 1, set_inside, NULL);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
  CHECK_OK(ctx, nyx_parallel_set_affinity(ctx, "none"));
}

/* ---- memory */

static void memory_lies_where_it_is_put(void) {
#if defined(SYS_get_mempolicy)
  enum { OF_ADDRESS = 2, INTERLEAVE = 3, LOCAL = 4 };
  const struct {
    nyx_numa_mode mode;
    int policy;
  } cases[] = {{NYX_NUMA_INTERLEAVE, INTERLEAVE}, {NYX_NUMA_LOCAL, LOCAL}};
  for (int i = 0; i < 2; i++) {
    nyx_status status = nyx_memory_set_numa(ctx, cases[i].mode);
    if (status == NYX_ERR_UNSUPPORTED) {
      CHECK_CONTAINS(nyx_context_error(ctx), "the system refuses to place memory");
      CHECK_INT(nyx_memory_numa(NULL, 0), NYX_NUMA_NONE);
      continue;
    }
    CHECK_STATUS(status, NYX_OK);
    nyx_memory_trim();
    char *block = nyx_memory_alloc((size_t)5 << 20);
    REQUIRE(CHECK(block));
    block[(size_t)1 << 20] = 1;
    int policy = -1;
    long got = syscall(SYS_get_mempolicy, &policy, NULL, 0UL,
                       (void *)(block + ((size_t)1 << 20)), OF_ADDRESS);
    bool mapped = nyx_memory_numa(NULL, 0) == cases[i].mode;
#if !defined(__SANITIZE_ADDRESS__) /* there blocks come from malloc */
    CHECK(got == 0 && mapped && policy == cases[i].policy);
#else
    (void)got, (void)mapped;
#endif
    nyx_memory_free(block);
  }
  CHECK_OK(ctx, nyx_memory_set_numa(ctx, NYX_NUMA_NONE));
  nyx_memory_trim();
#endif
  CHECK_STATUS(nyx_memory_set_numa(ctx, (nyx_numa_mode)7), NYX_ERR_ARGUMENT);
}

/* ---- nobody starts more threads than were asked for */

static int threads_here(void) {
  int n = 0;
  DIR *tasks = opendir("/proc/self/task");
  if (!tasks) return 0;
  for (struct dirent *e; (e = readdir(tasks));) n += e->d_name[0] != '.';
  closedir(tasks);
  return n;
}

static void multiply(void) {
  enum { N = 300 };
  float *a = nyx_memory_alloc_zeroed(sizeof(float) * N * N);
  float *c = nyx_memory_alloc(sizeof(float) * N * N);
  nyx_gemm g = {.dtype = NYX_FLOAT32,
                .product = {.m = N, .n = N, .k = N, .a = a, .b = a, .c = c, .ldc = N}};
  g.product.a_rs = g.product.b_rs = N, g.product.a_cs = g.product.b_cs = 1;
  nyx_context *own = NULL;
  if (nyx_context_new(&own) == NYX_OK) {
    CHECK_OK(own, nyx__gemm_by(own, &g, NYX__GEMM_SLABS)); /* by the BLAS */
    CHECK_OK(own, nyx__gemm(own, &g));
  }
  nyx_context_free(own);
  nyx_memory_free(a);
  nyx_memory_free(c);
}

static void *multiply_often(void *unused) {
  for (int i = 0; i < 20; i++) multiply();
  return unused;
}

static void no_more_threads_than_asked_for(void) {
  enum { HOSTS = 4 };
  pthread_t host[HOSTS];
  CHECK_STATUS(nyx_parallel_set_threads(1), NYX_OK);
  int before = threads_here();
  multiply(); /* opens the BLAS, which must not start threads of its own */
  CHECK_INT(threads_here(), before);
  CHECK_STATUS(nyx_parallel_set_threads(3), NYX_OK);
  multiply();
  CHECK_INT(threads_here(), before + 2);
  for (int i = 0; i < HOSTS; i++)
    CHECK(pthread_create(&host[i], NULL, multiply_often, NULL) == 0);
  CHECK(threads_here() <= before + 2 + HOSTS);
  for (int i = 0; i < HOSTS; i++) pthread_join(host[i], NULL);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

/* A job system of two threads. What its jobs start themselves, it does at once, as those
 * of engines do. */
typedef struct queue {
  void (*job)(void *arg, int64_t i);
  void *arg;
  int64_t count;
  atomic_llong next;
} queue;

static _Thread_local bool in_a_job;
static atomic_int nested;

static void *take_jobs(void *arg) {
  queue *q = arg;
  in_a_job = true;
  for (int64_t i; (i = atomic_fetch_add(&q->next, 1)) < q->count;) q->job(q->arg, i);
  in_a_job = false;
  return NULL;
}

static void run_jobs(void *user, int64_t count, void (*job)(void *arg, int64_t i),
                     void *arg) {
  (void)user;
  queue q = {job, arg, count, 0};
  pthread_t helper;
  if (in_a_job) {
    atomic_fetch_add(&nested, 1);
    for (int64_t i = 0; i < count; i++) job(arg, i);
    return;
  }
  bool helped = pthread_create(&helper, NULL, take_jobs, &q) == 0;
  take_jobs(&q);
  if (helped) pthread_join(helper, NULL);
}

static void multiply_as_a_job(void *arg, int64_t i) {
  (void)arg, (void)i;
  multiply();
}

static void jobs_of_a_host_call_ops(void) {
  const nyx_job_system jobs = {.run = run_jobs, .threads = 2};
  CHECK_STATUS(nyx_parallel_set_threads(1), NYX_OK); /* no workers are left */
  int before = threads_here();
  nyx_parallel_set_jobs(&jobs);
  multiply(); /* from outside, and from the host's own jobs */
  run_jobs(NULL, 6, multiply_as_a_job, NULL);
  CHECK(atomic_load(&nested) > 0);
  CHECK_INT(threads_here(), before);
  nyx_parallel_set_jobs(NULL);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

static void sharing_is_measured(void) {
  nyx_parallel_latency latency;
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  nyx_parallel_measure(2, &latency);
  CHECK(latency.empty > 0 && latency.empty < 0.01);
  CHECK(latency.spinning > 0 && latency.asleep > latency.empty);
  nyx_parallel_measure(1, &latency);
  CHECK(latency.empty < 1e-4);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  strcpy(folder, "/tmp/nyx_cores_XXXXXX");
  if (!mkdtemp(folder)) return 1;
  RUN(quotas_of_control_groups);
  RUN(lists_of_cpus);
  RUN(orders_of_cpus);
  RUN(workers_run_where_they_are_put);
  RUN(wrong_affinities);
  RUN(memory_lies_where_it_is_put);
  RUN(no_more_threads_than_asked_for);
  RUN(jobs_of_a_host_call_ops);
  RUN(sharing_is_measured);
  char command[256];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  CHECK(system(command) == 0);
  nyx_context_free(ctx);
  return check_done();
}
