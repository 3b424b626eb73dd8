/* The choice of CPU kernels: the widest path this CPU and its operating system run, or
 * the one NYX_CPU names. Some names are a path and an extension for products of narrow
 * types, which unit.c looks up. Read next: kernels/cpu/cpu.h, core/base/cpu.h. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/cpu.h"
#include "cpu.h"

extern const nyx_cpu_kernels nyx__kernels_base;
#if defined(__x86_64__)
extern const nyx_cpu_kernels nyx__kernels_avx2, nyx__kernels_avx512;
#endif

#define MOST 7

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const nyx_cpu_kernels *usable[MOST]; /* narrowest first */
static int usable_count;
static const nyx_cpu_kernels *chosen;
/* The same once it is known to be right: the short way for every call after. */
static _Atomic(const nyx_cpu_kernels *) ready;
static const char *refused; /* NYX_CPU when it cannot be followed */
static char known[96];      /* names of the usable paths */

static void add(const nyx_cpu_kernels *kernels) {
  size_t length = strlen(known);
  usable[usable_count++] = kernels;
  snprintf(known + length, sizeof known - length, "%s%s", length ? ", " : "",
           kernels->name);
}

/* A path under another name, where the compiler knew its extension. */
__attribute__((unused)) static void extend(bool usable_here, const nyx_cpu_kernels *path,
                                           const char *name) {
  static nyx_cpu_kernels extended[MOST];
  if (!usable_here) return;
  nyx_cpu_kernels *kernels = &extended[usable_count];
  *kernels = *path;
  kernels->name = name;
  add(kernels);
}

#if defined(__x86_64__)
/* Dot products of bfloat16 run at twice the rate of float32 on AMD, at half of it on
 * Intel, where they are used when asked for. */
static void find_paths(void) {
  const nyx_cpu_info *cpu = nyx__cpu_info();
  if (!cpu->avx2 || !cpu->fma || !cpu->f16c) return;
#ifdef NYX_PATH_avx2
  add(&nyx__kernels_avx2);
#endif
#ifdef NYX_UNIT_avxvnni
  extend(cpu->avxvnni, &nyx__kernels_avx2, "avxvnni");
#endif
  chosen = usable[usable_count - 1];
  if (!cpu->avx512f || !cpu->avx512bw || !cpu->avx512dq || !cpu->avx512vl) return;
  add(&nyx__kernels_avx512);
#ifdef NYX_UNIT_avx512vnni
  extend(cpu->avx512vnni, &nyx__kernels_avx512, "avx512vnni");
#endif
  chosen = usable[usable_count - 1];
#ifdef NYX_UNIT_avx512bf16
  extend(cpu->avx512bf16, &nyx__kernels_avx512, "avx512bf16");
  if (strcmp(cpu->vendor, "AuthenticAMD") == 0) chosen = usable[usable_count - 1];
#endif
#ifdef NYX_UNIT_amx
  extend(cpu->amx_bf16 && cpu->amx_int8, &nyx__kernels_avx512, "amx");
  if (cpu->amx_bf16 && cpu->amx_int8) chosen = usable[usable_count - 1];
#endif
}
#else
static void find_paths(void) {
#ifdef NYX_UNIT_dotprod
  extend(nyx__cpu_info()->dotprod, &nyx__kernels_base, "dotprod");
  chosen = usable[usable_count - 1];
#endif
}
#endif

static void choose(void) {
  const char *forced = getenv("NYX_CPU");
  add(&nyx__kernels_base);
  chosen = &nyx__kernels_base;
  find_paths();
  if (!forced || !*forced) return;
  refused = forced;
  chosen = &nyx__kernels_base;
  for (int i = 0; i < usable_count; i++)
    if (strcmp(usable[i]->name, forced) == 0) {
      chosen = usable[i];
      refused = NULL;
    }
}

static void choose_once(void) {
  pthread_once(&once, choose);
  if (!refused) atomic_store_explicit(&ready, chosen, memory_order_release);
}

const nyx_cpu_kernels *nyx__cpu_kernels(void) {
  const nyx_cpu_kernels *kernels = atomic_load_explicit(&ready, memory_order_acquire);
  if (kernels) return kernels;
  choose_once();
  return chosen;
}

const char *nyx_cpu_path(void) {
  return nyx__cpu_kernels()->name;
}

nyx_status nyx__cpu_path_check(nyx_context *ctx) {
  if (atomic_load_explicit(&ready, memory_order_acquire)) return NYX_OK;
  choose_once();
  return refused ? nyx__error(ctx, CPU_PATH, refused, known) : NYX_OK;
}

const nyx_cpu_kernels *nyx__cpu_path_find(const char *name) {
  choose_once();
  for (int i = 0; i < usable_count; i++)
    if (strcmp(usable[i]->name, name) == 0) return usable[i];
  return NULL;
}
