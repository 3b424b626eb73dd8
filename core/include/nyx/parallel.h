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

/* Threads that work at once, the caller included. Default: NYX_THREADS, or the cores this
 * process may run on. Setting it stops and restarts the pool; n < 1 restores the default.
 * Fails with NYX_ERR_ARGUMENT beyond 256, and with NYX_ERR_STATE inside a range. */
NYX_API int nyx_parallel_threads(void);
NYX_API NYX_MUST_CHECK nyx_status nyx_parallel_set_threads(int n);

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
