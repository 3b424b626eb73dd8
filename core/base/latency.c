/* What it costs to share work among threads, for --doctor and the benchmark. Read next:
 * parallel.c. */
#include <nyx/parallel.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MOST_ROUNDS 200
#define ASLEEP_ROUNDS 21
#define SLEEP_US 1500 /* longer than workers spin */
#define PATIENCE 0.01 /* seconds: where threads do not come, as in nested calls */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void nothing(void *arg, int64_t begin, int64_t end) {
  (void)arg, (void)begin, (void)end;
}

/* Ranges that end when all have begun: each needs a thread of its own. */
typedef struct meeting {
  atomic_int missing;
} meeting;

static void meet(void *arg, int64_t begin, int64_t end) {
  meeting *m = arg;
  atomic_fetch_sub(&m->missing, (int)(end - begin));
  double start = 0;
  for (unsigned i = 0; atomic_load_explicit(&m->missing, memory_order_relaxed) > 0; i++) {
    if (i % 1024 != 1023) continue;
    if (start == 0) start = now();
    if (now() - start > PATIENCE) return;
  }
}

static int by_size(const void *left, const void *right) {
  double x = *(const double *)left, y = *(const double *)right;
  return (x > y) - (x < y);
}

static double median(int ranges, int rounds, bool together, unsigned pause_us) {
  double seconds[MOST_ROUNDS];
  for (int i = 0; i < rounds; i++) {
    meeting m;
    atomic_init(&m.missing, ranges);
    if (pause_us) usleep(pause_us);
    double start = now();
    nyx_parallel_for(ranges, 1, together ? meet : nothing, &m);
    seconds[i] = now() - start;
  }
  qsort(seconds, (size_t)rounds, sizeof *seconds, by_size);
  return seconds[rounds / 2];
}

void nyx_parallel_measure(int ranges, nyx_parallel_latency *out) {
  int most = nyx_parallel_threads();
  ranges = ranges < 1 ? 1 : ranges > most ? most : ranges;
  (void)median(ranges, 20, true, 0);
  out->empty = median(ranges, MOST_ROUNDS, false, 0);
  out->spinning = median(ranges, MOST_ROUNDS, true, 0);
  out->asleep = median(ranges, ASLEEP_ROUNDS, true, SLEEP_US);
}
