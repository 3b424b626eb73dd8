/* The machine's own limit for multiply-add in float32: independent chains in registers on
 * every thread, for the widest vectors the CPU has. Prints GFLOP/s. Read next: run.py. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHAINS 16
#define STEPS 2000000L

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define DEFINE(name, bytes, isa)                                                         \
  typedef float name##_vector __attribute__((vector_size(bytes)));                       \
  __attribute__((target(isa), noinline)) static float name(long steps) {                 \
    name##_vector a[CHAINS], x = (name##_vector){0} + 0.999f,                            \
                             y = (name##_vector){0} + 1e-3f;                             \
    for (int i = 0; i < CHAINS; i++) a[i] = x * (float)i;                                \
    for (long s = 0; s < steps; s++)                                                     \
      for (int i = 0; i < CHAINS; i++) a[i] = a[i] * x + y;                              \
    for (int i = 1; i < CHAINS; i++) a[0] += a[i];                                       \
    return a[0][0];                                                                      \
  }
DEFINE(fma512, 64, "avx512f")
DEFINE(fma256, 32, "avx2,fma")

static int wide;
static volatile float sink;

static void *work(void *arg) {
  (void)arg;
  sink = wide ? fma512(STEPS) : fma256(STEPS);
  return NULL;
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  pthread_t thread[256];
  double best = 0;
  if (threads < 1 || threads > 256) return 1;
  wide = __builtin_cpu_supports("avx512f");
  for (int round = 0; round < 5; round++) {
    double start = now();
    for (int i = 1; i < threads; i++) pthread_create(&thread[i], NULL, work, NULL);
    work(NULL);
    for (int i = 1; i < threads; i++) pthread_join(thread[i], NULL);
    double rate =
        2.0 * threads * CHAINS * (wide ? 16 : 8) * STEPS / (now() - start) * 1e-9;
    if (rate > best) best = rate;
  }
  printf("%.1f\n", best);
  return 0;
}
