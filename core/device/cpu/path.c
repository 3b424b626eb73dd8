/* The choice of CPU kernels: the widest path this CPU and its operating system run, or
 * the one NYX_CPU names. Read next: kernels/cpu/cpu.h, core/base/cpu.h. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/cpu.h"
#include "cpu.h"

extern const nyx_cpu_kernels nyx__kernels_base;
#if defined(__x86_64__)
extern const nyx_cpu_kernels nyx__kernels_avx2, nyx__kernels_avx512;
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const nyx_cpu_kernels *usable[3]; /* narrowest first */
static int usable_count;
static const nyx_cpu_kernels *chosen;
static const char *refused; /* NYX_CPU when it cannot be followed */
static char known[32];      /* names of the usable paths */

static void add(const nyx_cpu_kernels *kernels) {
  size_t length = strlen(known);
  usable[usable_count++] = kernels;
  snprintf(known + length, sizeof known - length, "%s%s", length ? ", " : "",
           kernels->name);
}

static void choose(void) {
  const char *forced = getenv("NYX_CPU");
  add(&nyx__kernels_base);
#if defined(__x86_64__)
  const nyx_cpu_info *cpu = nyx__cpu_info();
  bool avx2 = cpu->avx2 && cpu->fma && cpu->f16c;
  if (avx2) add(&nyx__kernels_avx2);
  if (avx2 && cpu->avx512f && cpu->avx512bw && cpu->avx512dq && cpu->avx512vl)
    add(&nyx__kernels_avx512);
#endif
  chosen = usable[usable_count - 1];
  if (!forced || !*forced) return;
  refused = forced;
  chosen = &nyx__kernels_base;
  for (int i = 0; i < usable_count; i++)
    if (strcmp(usable[i]->name, forced) == 0) {
      chosen = usable[i];
      refused = NULL;
    }
}

const nyx_cpu_kernels *nyx__cpu_kernels(void) {
  pthread_once(&once, choose);
  return chosen;
}

const char *nyx_cpu_path(void) {
  return nyx__cpu_kernels()->name;
}

nyx_status nyx__cpu_path_check(nyx_context *ctx) {
  pthread_once(&once, choose);
  return refused ? nyx__error(ctx, CPU_PATH, refused, known) : NYX_OK;
}

const nyx_cpu_kernels *nyx__cpu_path_find(const char *name) {
  pthread_once(&once, choose);
  for (int i = 0; i < usable_count; i++)
    if (strcmp(usable[i]->name, name) == 0) return usable[i];
  return NULL;
}
