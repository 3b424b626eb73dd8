/* What compute.c and memory.c share: a clock, and a function run on every thread at once.
 */
#ifndef NYX_BENCH_LIMITS_H
#define NYX_BENCH_LIMITS_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define MAX_THREADS 256

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef void (*work)(int thread, long steps);

static work team_work;
static long team_steps;
static int team_size;
static atomic_int team_ready;

static void *team_member(void *thread) {
  atomic_fetch_add(&team_ready, 1);
  while (atomic_load(&team_ready) < team_size) continue;
  team_work((int)(long)thread, team_steps);
  return NULL;
}

/* Seconds from when all threads are there to when the last has made its steps. */
static double on_threads(work fn, int threads, long steps) {
  pthread_t id[MAX_THREADS];
  team_work = fn;
  team_steps = steps;
  team_size = threads + 1;
  atomic_store(&team_ready, 0);
  for (long i = 0; i < threads; i++) pthread_create(&id[i], NULL, team_member, (void *)i);
  while (atomic_load(&team_ready) < threads) continue;
  double start = now();
  atomic_fetch_add(&team_ready, 1);
  for (int i = 0; i < threads; i++) pthread_join(id[i], NULL);
  return now() - start;
}

/* The best rate of some rounds, in steps of one thread a second. Other tenants of a
 * machine only ever lower it. */
static double best_rate(work fn, int threads, double round_seconds, int rounds) {
  long steps = 1;
  double seconds = on_threads(fn, threads, steps);
  while (seconds < round_seconds / 4 && steps < 1L << 40)
    seconds = on_threads(fn, threads, steps *= 4);
  steps = (long)((double)steps * round_seconds / seconds) + 1;
  double best = 0;
  for (int round = 0; round < rounds; round++) {
    double rate = (double)steps / on_threads(fn, threads, steps);
    if (rate > best) best = rate;
  }
  return best;
}

#endif
