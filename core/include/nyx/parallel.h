/* Work on several cores. A small persistent pool by default; a host that has its own job
 * system (a game engine) supplies it instead. */
#ifndef NYX_PARALLEL_H
#define NYX_PARALLEL_H

#include "status.h"

/* Does items begin..end-1. Runs on any thread, at the same time as other ranges. */
typedef void (*nyx_range_fn)(void *arg, int64_t begin, int64_t end);

/* Runs fn over 0..n-1 in ranges of `grain` items (the last may be shorter) and returns
 * when all are done. The ranges depend on n and grain only, never on the number of
 * threads, so results do not either. n <= grain runs here without waking anybody. Calls
 * from inside fn run in the calling thread. */
NYX_API void nyx_parallel_for(int64_t n, int64_t grain, nyx_range_fn fn, void *arg);

/* Threads that work at once, the caller included. Default: NYX_THREADS (1 to 256; what is
 * wrong there is ignored, and nyx_parallel_get says why), or the cores this process may
 * use: those of its affinity, or as many as the CPU quota of its control group is worth,
 * or those that NYX_AFFINITY lists. Setting it stops and restarts the
 * pool; n < 1 restores the default. Fails with NYX_ERR_ARGUMENT beyond 256, and with
 * NYX_ERR_STATE inside a range. */
NYX_API int nyx_parallel_threads(void);
NYX_API NYX_MUST_CHECK nyx_status nyx_parallel_set_threads(int n);

/* Where the pool's own threads run. The thread that calls an op is the host's and stays
 * where the host has it; place 1 is left to it, the pool's threads take the others in
 * turn. The names: "none" (default, wherever the system puts them), "compact" (the
 * allowed CPUs from one to its nearest neighbour: second threads of a core, the same
 * node), "spread" (whole cores first, nodes by turns), or a list as "0-3,8", whose length
 * is then the default number of threads. NYX_AFFINITY says it in the environment; what is
 * wrong there is ignored, and nyx_parallel_get has why. Restarts the pool. Fails with
 * NYX_ERR_ARGUMENT for other texts and CPUs this thread may not use, NYX_ERR_UNSUPPORTED
 * where the system cannot, NYX_ERR_STATE inside a range; then nothing changes.
 *
 * Memory lies where it is first touched: what a parallel op fills, near the threads that
 * filled it. See nyx_memory_set_numa for other policies. */
NYX_API NYX_MUST_CHECK nyx_status nyx_parallel_set_affinity(nyx_context *ctx,
                                                            const char *text);

typedef struct nyx_parallel_info {
  int threads;
  char affinity[64]; /* "none", "compact", "spread", or the list */
  char allowed[256]; /* the CPUs this thread may use, a list; "" where unknown */
  int quota;         /* CPUs the control group's quota is worth, rounded up; 0: none */
  int nodes;         /* memory nodes */
  char problem[256]; /* with NYX_AFFINITY; "" */
  char threads_problem[128]; /* with NYX_THREADS; "" */
} nyx_parallel_info;

NYX_API void nyx_parallel_get(nyx_parallel_info *out);

/* What it costs to share work: medians in seconds, of regions of `ranges` ranges. For
 * reports and benchmarks; takes some 50 ms. */
typedef struct nyx_parallel_latency {
  double empty;    /* a region with nothing to do, as its caller sees it */
  double spinning; /* until every range has its own thread and all are back, right after
                    * another region */
  double asleep;   /* the same after the workers went to sleep */
} nyx_parallel_latency;

NYX_API void nyx_parallel_measure(int ranges, nyx_parallel_latency *out);

/* A host's job system: run(user, count, job, arg) must call job(arg, i) once for every i
 * in 0..count-1, on any threads, and return when all have returned. */
typedef struct nyx_job_system {
  void (*run)(void *user, int64_t count, void (*job)(void *arg, int64_t i), void *arg);
  void *user;
  int threads; /* how many jobs run at once */
} nyx_job_system;

/* Replaces the pool; NULL brings it back. Call it while no op is running. */
NYX_API void nyx_parallel_set_jobs(const nyx_job_system *jobs);

#endif
