/* What the machine's arithmetic units can do: independent chains in registers on every
 * thread. `compute KIND THREADS` prints billions of operations a second, 0 where the CPU
 * has no such unit. Kinds: fma32 fma64, vnni (8-bit dot products), bf16dot, amx_int8,
 * amx_bf16, popcount (in bytes); int8 and bf16, the best unit for products of these. Read
 * next: memory.c, limits.py. */
#include "limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHAINS 12 /* more than latency times ports, fewer than registers */
static int rounds = 5;

static volatile double sink;

/* Multiply-adds of a type over vectors of some bytes. */
#define DEFINE_FMA(name, type, bytes, isa)                                               \
  typedef type name##_vector __attribute__((vector_size(bytes)));                        \
  isa __attribute__((noinline)) static void name(int thread, long steps) {               \
    name##_vector a[CHAINS], x = (name##_vector){0} + (type)0.999,                       \
                             y = (name##_vector){0} + (type)1e-3;                        \
    (void)thread;                                                                        \
    for (int i = 0; i < CHAINS; i++) a[i] = x * (type)i;                                 \
    for (long s = 0; s < steps * 1000; s++)                                              \
      for (int i = 0; i < CHAINS; i++) a[i] = a[i] * x + y;                              \
    for (int i = 1; i < CHAINS; i++) a[0] += a[i];                                       \
    sink = (double)a[0][0];                                                              \
  }

/* Steps of 1000 * CHAINS instructions a second, as billions of operations. */
static double rate(work fn, int threads, double operations) {
  return best_rate(fn, threads, 0.04, rounds) * threads * 1000 * CHAINS * operations *
         1e-9;
}

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define HAS(feature) __builtin_cpu_supports(feature)

DEFINE_FMA(fma32_wide, float, 64, __attribute__((target("avx512f"))))
DEFINE_FMA(fma32_avx2, float, 32, __attribute__((target("avx2,fma"))))
DEFINE_FMA(fma32_base, float, 16, )
DEFINE_FMA(fma64_wide, double, 64, __attribute__((target("avx512f"))))
DEFINE_FMA(fma64_avx2, double, 32, __attribute__((target("avx2,fma"))))
DEFINE_FMA(fma64_base, double, 16, )

static double fma_peak(int threads, int bits) {
  int lanes = 512 / bits;
  if (HAS("avx512f"))
    return rate(bits == 32 ? fma32_wide : fma64_wide, threads, 2 * lanes);
  lanes /= 2;
  if (HAS("fma")) return rate(bits == 32 ? fma32_avx2 : fma64_avx2, threads, 2 * lanes);
  lanes /= 2;
  return rate(bits == 32 ? fma32_base : fma64_base, threads, 2 * lanes);
}

/* CHAINS times `expression`, the next value of the vector `a[i]` of `type`; x is another.
 */
#define DEFINE_CHAIN(name, isa, type, expression)                                        \
  __attribute__((target(isa), noinline)) static void name(int thread, long steps) {      \
    type a[CHAINS], x = (type){0} + (char)(thread + 1);                                  \
    for (int i = 0; i < CHAINS; i++) a[i] = x * (char)i;                                 \
    for (long s = 0; s < steps * 1000; s++) {                                            \
      for (int i = 0; i < CHAINS; i++) a[i] = expression;                                \
      __asm__ volatile("" : "+v"(x));                                                    \
    }                                                                                    \
    for (int i = 1; i < CHAINS; i++) a[0] += a[i];                                       \
    sink = (double)a[0][0];                                                              \
  }

DEFINE_CHAIN(vnni_wide, "avx512f,avx512vnni", __m512i, _mm512_dpbusd_epi32(a[i], x, x))
DEFINE_CHAIN(popcount_wide, "avx512f,avx512vpopcntdq", __m512i,
             _mm512_add_epi64(a[i], _mm512_popcnt_epi64(_mm512_xor_si512(a[i], x))))
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
DEFINE_CHAIN(vnni_half, "avxvnni", __m256i, _mm256_dpbusd_avx_epi32(a[i], x, x))
#define HAVE_AVX_VNNI
#endif
/* Without VNNI: pairs to 16 bits, pairs of those to 32, and a sum. */
DEFINE_CHAIN(dot8_avx2, "avx2", __m256i,
             _mm256_add_epi32(a[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a[i], x), x)))
DEFINE_CHAIN(bf16_wide, "avx512f,avx512bf16", __m512,
             _mm512_dpbf16_ps(a[i], (__m512bh)x, (__m512bh)x))

__attribute__((target("popcnt"), noinline)) static void popcount_word(int thread,
                                                                      long steps) {
  unsigned long a[CHAINS], x = (unsigned long)thread + 1;
  for (int i = 0; i < CHAINS; i++) a[i] = (unsigned long)i;
  for (long s = 0; s < steps * 1000; s++)
    for (int i = 0; i < CHAINS; i++) a[i] += (unsigned long)__builtin_popcountl(a[i] ^ x);
  for (int i = 0; i < CHAINS; i++) sink = (double)a[i];
}

static double vnni_peak(int threads) {
  if (HAS("avx512vnni")) return rate(vnni_wide, threads, 128);
#ifdef HAVE_AVX_VNNI
  unsigned a, b, c, d;
  __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(1));
  if (HAS("avx2") && (a >> 4 & 1)) return rate(vnni_half, threads, 64);
#endif
  return 0;
}

static double popcount_peak(int threads) {
  if (HAS("avx512vpopcntdq")) return rate(popcount_wide, threads, 64);
  return HAS("popcnt") ? rate(popcount_word, threads, 8) : 0;
}

/* Tiles: the kernel has to be asked for their state first. */
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define HAVE_AMX
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

typedef struct tile_config {
  unsigned char palette, start, reserved[14];
  unsigned short columns[16];
  unsigned char rows[16];
} tile_config;

__attribute__((target("amx-tile"))) static void configure_tiles(void) {
  tile_config config = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    config.columns[i] = 64;
    config.rows[i] = 16;
  }
  __asm__ volatile("" ::"r"(&config) : "memory"); /* all of it is written by now */
  _tile_loadconfig(&config);
}

#define DEFINE_TILES(name, isa, product)                                                 \
  __attribute__((target("amx-tile," isa), noinline)) static void name(int thread,        \
                                                                      long steps) {      \
    (void)thread;                                                                        \
    configure_tiles();                                                                   \
    _tile_zero(0);                                                                       \
    _tile_zero(1);                                                                       \
    _tile_zero(2);                                                                       \
    _tile_zero(3);                                                                       \
    _tile_zero(4);                                                                       \
    _tile_zero(5);                                                                       \
    for (long s = 0; s < steps * 250 * CHAINS; s++) {                                    \
      product(0, 4, 5);                                                                  \
      product(1, 4, 5);                                                                  \
      product(2, 4, 5);                                                                  \
      product(3, 4, 5);                                                                  \
    }                                                                                    \
    _tile_release();                                                                     \
  }
DEFINE_TILES(tiles_int8, "amx-int8", _tile_dpbssd)
DEFINE_TILES(tiles_bf16, "amx-bf16", _tile_dpbf16ps)
#endif

static double amx_peak(int threads, int bits) {
#ifdef HAVE_AMX
  unsigned a, b, c, d;
  __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
  if (!(d >> 24 & 1) || !(d >> (bits == 8 ? 25 : 22) & 1)) return 0;
  unsigned low, high; /* what the system saves: tile configuration and data */
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low >> 17 & 3) != 3) return 0;
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)) return 0;
  pid_t child = fork(); /* some machines announce tiles and do not have them */
  if (child == 0) {
    configure_tiles();
    _exit(0);
  }
  int status = 1;
  if (child < 0 || waitpid(child, &status, 0) < 0 || status) return 0;
  if (bits == 8) return rate(tiles_int8, threads, 2 * 16 * 16 * 64);
  return rate(tiles_bf16, threads, 2 * 16 * 16 * 32);
#else
  (void)threads, (void)bits;
  return 0;
#endif
}

static double bf16_peak(int threads) {
  return HAS("avx512bf16") ? rate(bf16_wide, threads, 64) : 0;
}
static double dot8_peak(int threads) {
  return HAS("avx2") ? rate(dot8_avx2, threads, 64) : 0;
}

#else /* other machines: vectors of 16 bytes */
DEFINE_FMA(fma32_base, float, 16, )
DEFINE_FMA(fma64_base, double, 16, )

static double fma_peak(int threads, int bits) {
  return rate(bits == 32 ? fma32_base : fma64_base, threads, 256 / bits);
}
static double none(int threads) {
  (void)threads;
  return 0;
}
static double amx_peak(int threads, int bits) {
  (void)bits;
  return none(threads);
}
#define vnni_peak none
#define popcount_peak none
#define bf16_peak none
#define dot8_peak none
#endif

static double max(double a, double b) {
  return a > b ? a : b;
}

static double measure(const char *kind, int threads) {
  if (!strcmp(kind, "fma32")) return fma_peak(threads, 32);
  if (!strcmp(kind, "fma64")) return fma_peak(threads, 64);
  if (!strcmp(kind, "vnni")) return vnni_peak(threads);
  if (!strcmp(kind, "bf16dot")) return bf16_peak(threads);
  if (!strcmp(kind, "amx_int8")) return amx_peak(threads, 8);
  if (!strcmp(kind, "amx_bf16")) return amx_peak(threads, 16);
  if (!strcmp(kind, "popcount")) return popcount_peak(threads);
  if (!strcmp(kind, "int8"))
    return max(max(vnni_peak(threads), dot8_peak(threads)),
               max(amx_peak(threads, 8), fma_peak(threads, 32)));
  if (!strcmp(kind, "bf16"))
    return max(max(bf16_peak(threads), amx_peak(threads, 16)), fma_peak(threads, 32));
  return -1;
}

int main(int argc, char **argv) {
  int threads = argc > 2 ? atoi(argv[2]) : 1;
  if (argc > 3) rounds = atoi(argv[3]);
  if (argc < 2 || threads < 1 || threads > MAX_THREADS || rounds < 1) return 1;
  double peak = measure(argv[1], threads);
  if (peak < 0) return 1;
  printf("%.1f\n", peak);
  return 0;
}
