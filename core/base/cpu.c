/* CPU features, names and cache sizes. Bit positions: Intel SDM vol. 2A "CPUID", vol. 1
 * 13.3 (XCR0); AMD APM vol. 3 appendix E; Linux, arch/arm64/elf_hwcaps.rst. Read next:
 * cpu.h. */
#include "cpu.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cores.h"

static nyx_cpu_info info;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

typedef struct regs {
  uint32_t a, b, c, d;
} regs;

/* All zero for a leaf the CPU does not have. */
static regs cpuid(uint32_t leaf, uint32_t sub) {
  regs r = {0, 0, 0, 0};
  if ((uint32_t)__get_cpuid_max(leaf & 0x80000000u, NULL) >= leaf)
    __cpuid_count(leaf, sub, r.a, r.b, r.c, r.d);
  return r;
}

static bool bit(uint32_t word, int i) {
  return (word >> i & 1) != 0;
}

/* Which register states the system saves; 0 without XSAVE. */
static uint64_t saved_states(uint32_t leaf1_c) {
  if (!bit(leaf1_c, 27)) return 0; /* OSXSAVE */
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

static void find_features(void) {
  regs one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1);
  uint64_t states = saved_states(one.c);
  bool ymm = (states & 0x6) == 0x6;    /* SSE and AVX */
  bool zmm = (states & 0xE6) == 0xE6;  /* and opmask, both halves of ZMM */
  bool tile = (states >> 17 & 3) == 3; /* tile configuration and data */
  info.sse2 = bit(one.d, 26);
  info.sse42 = bit(one.c, 20);
  info.avx = ymm && bit(one.c, 28);
  info.fma = info.avx && bit(one.c, 12);
  info.f16c = info.avx && bit(one.c, 29);
  info.avx2 = info.avx && bit(seven.b, 5);
  info.bmi2 = bit(seven.b, 8);
  info.avxvnni = info.avx2 && bit(more.a, 4);
  bool f = zmm && info.avx2 && bit(seven.b, 16);
  info.avx512f = f;
  info.avx512dq = f && bit(seven.b, 17);
  info.avx512cd = f && bit(seven.b, 28);
  info.avx512bw = f && bit(seven.b, 30);
  info.avx512vl = f && bit(seven.b, 31);
  info.avx512vbmi = f && bit(seven.c, 1);
  info.avx512vnni = f && bit(seven.c, 11);
  info.avx512vpopcntdq = f && bit(seven.c, 14);
  info.avx512fp16 = f && bit(seven.d, 23);
  info.avx512bf16 = f && bit(more.a, 5);
  info.amx_tile = tile && bit(seven.d, 24);
  info.amx_bf16 = info.amx_tile && bit(seven.d, 22);
  info.amx_int8 = info.amx_tile && bit(seven.d, 25);
  info.family = (int)(one.a >> 8 & 15);
  info.model = (int)(one.a >> 4 & 15);
  if (info.family == 6 || info.family == 15) info.model |= (int)(one.a >> 12 & 0xF0);
  if (info.family == 15) info.family += (int)(one.a >> 20 & 255);
}

static void find_names(void) {
  regs zero = cpuid(0, 0);
  memcpy(info.vendor, &zero.b, 4);
  memcpy(info.vendor + 4, &zero.d, 4);
  memcpy(info.vendor + 8, &zero.c, 4);
  char text[49] = {0};
  for (uint32_t i = 0; i < 3; i++) {
    regs part = cpuid(0x80000002u + i, 0);
    memcpy(text + 16 * i, &part, sizeof part);
  }
  const char *start = text;
  while (*start == ' ') start++;
  size_t n = strlen(start);
  while (n > 0 && start[n - 1] == ' ') n--;
  memcpy(info.brand, start, n);
}

/* Leaf 4 on Intel and leaf 0x8000001D on AMD list the caches in the same format. */
static void find_caches(void) {
  uint32_t leaf = memcmp(info.vendor, "AuthenticAMD", 12) == 0 ? 0x8000001Du : 4;
  for (uint32_t i = 0; i < 16; i++) {
    regs r = cpuid(leaf, i);
    int type = (int)(r.a & 31), level = (int)(r.a >> 5 & 7);
    if (type == 0) return;
    size_t ways = (r.b >> 22) + 1, parts = (r.b >> 12 & 1023) + 1;
    size_t bytes = ways * parts * ((r.b & 4095) + 1) * ((size_t)r.c + 1);
    if (type == 2) continue; /* instructions */
    info.line = (r.b & 4095) + 1;
    if (level == 1) info.l1d = bytes;
    if (level == 2) info.l2 = bytes;
    if (level == 3) info.l3 = bytes;
  }
}

static void find_all(void) {
  find_features();
  find_names();
  find_caches();
  info.cores = nyx__cores();
}

#else

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static void find_features(void) {
  unsigned long words = getauxval(AT_HWCAP);
  info.neon = (words >> 1 & 1) != 0;
  info.dotprod = (words >> 20 & 1) != 0;
}
#elif defined(__aarch64__) && defined(__APPLE__)
static void find_features(void) {
  info.neon = info.dotprod = true; /* every Apple processor of computers has both */
}
#else
static void find_features(void) {}
#endif

/* What the C library knows of the system's. */
static void find_caches(void) {
#ifdef _SC_LEVEL1_DCACHE_SIZE
  const struct {
    int name;
    size_t *size;
  } caches[] = {{_SC_LEVEL1_DCACHE_SIZE, &info.l1d},
                {_SC_LEVEL2_CACHE_SIZE, &info.l2},
                {_SC_LEVEL3_CACHE_SIZE, &info.l3},
                {_SC_LEVEL1_DCACHE_LINESIZE, &info.line}};
  for (size_t i = 0; i < sizeof caches / sizeof *caches; i++) {
    long size = sysconf(caches[i].name);
    *caches[i].size = size > 0 ? (size_t)size : 0;
  }
#endif
}

static void find_all(void) {
  find_features();
  find_caches();
  info.cores = nyx__cores();
}

#endif

const nyx_cpu_info *nyx__cpu_info(void) {
  pthread_once(&once, find_all);
  return &info;
}
