/* What the machine's memory can do at a working-set size: `memory KIND BYTES THREADS
 * [ROUNDS]` prints GB/s, the best of 5 rounds. Kinds: read (a sum), copy (y = x), triad
 * (z = x + s y). BYTES is all arrays together, and each byte counts once, read or
 * written: what a cache fetches before a write does not. The better of ordinary and
 * non-temporal stores counts. Read next: compute.c, limits.py. */
#include "limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

static float *array[3]; /* x, y, z */
static size_t
    per_thread; /* floats of one array that a thread works on, a multiple of 64 */
static volatile float sink;

/* The loops for vectors of some bytes; `stream` writes past the caches. */
#define DEFINE_LOOPS(name, bytes, isa, stream)                                           \
  typedef float name##_vector __attribute__((vector_size(bytes)));                       \
  isa static void name##_read(int thread, long steps) {                                  \
    const size_t n = per_thread * sizeof(float) / bytes;                                 \
    const name##_vector *x = (const name##_vector *)array[0] + (size_t)thread * n;       \
    name##_vector sum[8] = {0};                                                          \
    for (long s = 0; s < steps; s++) {                                                   \
      for (size_t i = 0; i + 8 <= n; i += 8)                                             \
        for (size_t k = 0; k < 8; k++) sum[k] += x[i + k];                               \
      __asm__ volatile("" ::: "memory");                                                 \
    }                                                                                    \
    for (int k = 1; k < 8; k++) sum[0] += sum[k];                                        \
    sink = sum[0][0];                                                                    \
  }                                                                                      \
  DEFINE_WRITES(name, name##_copy, isa, bytes, 1, x[i + k], name##_store)                \
  DEFINE_WRITES(name, name##_triad, isa, bytes, 2, x[i + k] + y[i + k] * 0.5f,           \
                name##_store)                                                            \
  DEFINE_WRITES(name, name##_copy_past, isa, bytes, 1, x[i + k], stream)                 \
  DEFINE_WRITES(name, name##_triad_past, isa, bytes, 2, x[i + k] + y[i + k] * 0.5f,      \
                stream)                                                                  \
  static work name(const char *kind, int past) {                                         \
    if (!strcmp(kind, "read")) return name##_read;                                       \
    if (!strcmp(kind, "copy")) return past ? name##_copy_past : name##_copy;             \
    return past ? name##_triad_past : name##_triad;                                      \
  }

#define DEFINE_WRITES(name, function, isa, bytes, to, value, write)                      \
  isa static void function(int thread, long steps) {                                     \
    const size_t n = per_thread * sizeof(float) / bytes;                                 \
    const name##_vector *x = (const name##_vector *)array[0] + (size_t)thread * n;       \
    const name##_vector *y = (const name##_vector *)array[1] + (size_t)thread * n;       \
    name##_vector *out = (name##_vector *)array[to] + (size_t)thread * n;                \
    (void)y;                                                                             \
    for (long s = 0; s < steps; s++) {                                                   \
      for (size_t i = 0; i + 4 <= n; i += 4)                                             \
        for (size_t k = 0; k < 4; k++) write(out + i + k, value);                        \
      __asm__ volatile("" ::: "memory");                                                 \
    }                                                                                    \
  }

#define wide_store(to, value) (*(to) = (value))
#define half_store(to, value) (*(to) = (value))
#define base_store(to, value) (*(to) = (value))

#if defined(__x86_64__)
#include <immintrin.h>
#define wide_stream(to, value) _mm512_stream_ps((float *)(to), (__m512)(value))
#define half_stream(to, value) _mm256_stream_ps((float *)(to), (__m256)(value))
#define base_stream(to, value) _mm_stream_ps((float *)(to), (__m128)(value))
DEFINE_LOOPS(wide, 64, __attribute__((target("avx512f"))), wide_stream)
DEFINE_LOOPS(half, 32, __attribute__((target("avx2"))), half_stream)
DEFINE_LOOPS(base, 16, , base_stream)

static work loop(const char *kind, int past) {
  if (__builtin_cpu_supports("avx512f")) return wide(kind, past);
  return __builtin_cpu_supports("avx2") ? half(kind, past) : base(kind, past);
}
#else
DEFINE_LOOPS(base, 16, , base_store)
static work loop(const char *kind, int past) {
  return base(kind, past);
}
#endif

int main(int argc, char **argv) {
  if (argc < 4) return 1;
  const char *kind = argv[1];
  double bytes = atof(argv[2]);
  int threads = atoi(argv[3]);
  int rounds = argc > 4 ? atoi(argv[4]) : 5;
  int arrays = !strcmp(kind, "read") ? 1 : !strcmp(kind, "copy") ? 2 : 3;
  if (threads < 1 || threads > MAX_THREADS || bytes < 1 || rounds < 1) return 1;
  per_thread = (size_t)(bytes / arrays / threads / sizeof(float)) / 64 * 64;
  if (per_thread == 0) per_thread = 64;
  size_t size = per_thread * (size_t)threads * sizeof(float);
  for (int i = 0; i < arrays; i++) {
    array[i] = aligned_alloc(HUGE_PAGE, (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    if (array[i] == NULL) return 1;
    madvise(array[i], size, MADV_HUGEPAGE);
    for (size_t k = 0; k < size / sizeof(float); k++) array[i][k] = (float)(k & 1023);
  }
  if (arrays == 1) array[1] = array[0];
  double best = 0;
  for (int past = 0; past < (arrays > 1 ? 2 : 1); past++) {
    double rate = best_rate(loop(kind, past), threads, 0.02, rounds);
    if (rate > best) best = rate;
  }
  printf("%.2f\n", best * (double)size * arrays * 1e-9);
  return 0;
}
