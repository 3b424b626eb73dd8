/* Memory policies by mbind(2), called directly: there is nothing of libnuma that one call
 * would need. Read next: numa.h, cores.c. */
#include "numa.h"

#include <errno.h>
#include <nyx/memory.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include "context.h"
#include "cores.h"

/* linux/mempolicy.h */
enum { DEFAULT = 0, INTERLEAVE = 3, LOCAL = 4 };

static atomic_int mode; /* nyx_numa_mode */
static unsigned long long nodes = 1;
static char problem[256]; /* with NYX_NUMA */
static pthread_once_t environment = PTHREAD_ONCE_INIT;

/* 0, or errno. */
static int place(void *pages, size_t bytes, nyx_numa_mode wanted) {
#if defined(__linux__) && defined(SYS_mbind)
  int policy = wanted == NYX_NUMA_INTERLEAVE ? INTERLEAVE
               : wanted == NYX_NUMA_LOCAL    ? LOCAL
                                             : DEFAULT;
  unsigned long long mask = policy == INTERLEAVE ? nodes : 0;
  long result = syscall(SYS_mbind, pages, bytes, policy, mask ? &mask : NULL,
                        mask ? 8 * sizeof mask + 1 : 0UL, 0U);
  return result == 0 ? 0 : errno;
#else
  (void)pages, (void)bytes, (void)wanted;
  return ENOSYS;
#endif
}

/* Tries it on a page of its own. */
static int set(nyx_numa_mode wanted) {
  int error = 0;
  if (wanted != NYX_NUMA_NONE) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *block =
        mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return ENOMEM;
    nyx__nodes(NYX__SYSTEM, &nodes);
    error = place(block, page, wanted);
    munmap(block, page);
  }
  if (error == 0) atomic_store(&mode, (int)wanted);
  return error;
}

static void read_environment(void) {
  const char *text = getenv("NYX_NUMA");
  if (!text || !*text || strcmp(text, "none") == 0) return;
  bool local = strcmp(text, "local") == 0;
  if (!local && strcmp(text, "interleave") != 0) {
    snprintf(problem, sizeof problem,
             "NYX_NUMA: '%.60s', expected none, local or interleave", text);
    return;
  }
  int error = set(local ? NYX_NUMA_LOCAL : NYX_NUMA_INTERLEAVE);
  if (error)
    snprintf(problem, sizeof problem, "NYX_NUMA: the system refuses to place memory (%s)",
             strerror(error));
}

void nyx__numa_place(void *pages, size_t bytes) {
  pthread_once(&environment, read_environment);
  nyx_numa_mode wanted = (nyx_numa_mode)atomic_load_explicit(&mode, memory_order_relaxed);
  if (wanted != NYX_NUMA_NONE) (void)place(pages, bytes, wanted);
}

nyx_status nyx_memory_set_numa(nyx_context *ctx, nyx_numa_mode wanted) {
  if (wanted < NYX_NUMA_NONE || wanted > NYX_NUMA_INTERLEAVE)
    return nyx__error(ctx, NUMA_MODE, (int)wanted);
  pthread_once(&environment, read_environment);
  int error = set(wanted);
  return error ? nyx__error(ctx, NUMA_SYSTEM, strerror(error)) : NYX_OK;
}

nyx_numa_mode nyx_memory_numa(char *why, size_t room) {
  pthread_once(&environment, read_environment);
  if (room) snprintf(why, room, "%s", problem);
  return (nyx_numa_mode)atomic_load(&mode);
}
