/* The caching allocator behind every tensor and every internal structure: 64-byte aligned
 * blocks, sorted into size classes and reused. One per process, safe from any thread. It
 * keeps at most 256 MiB more than is live for reuse, and beyond that what was given back
 * to the system and missed soon, as in every step of a training: within the next 4096
 * blocks of more than 32 KiB. What idles for as long goes back again. The statistics
 * count whole blocks, up to a quarter and 64 bytes more than was asked for. */
#ifndef NYX_MEMORY_H
#define NYX_MEMORY_H

#include "status.h"

typedef struct nyx_memory_stats {
  size_t live;        /* bytes handed out and not yet given back */
  size_t peak;        /* the highest `live` since start or nyx_memory_reset_peak */
  size_t cached;      /* bytes kept for reuse */
  size_t limit;       /* most bytes live + cached; 0 means none */
  uint64_t allocated; /* blocks handed out since start */
  uint64_t reused;    /* of these, from the cache */
  uint64_t handed;    /* bytes of all blocks handed out since start */
} nyx_memory_stats;

NYX_API void nyx_memory_get_stats(nyx_memory_stats *out);
NYX_API void nyx_memory_reset_peak(void);

/* The most bytes that may be live + cached, 0 for no limit. Allocations beyond it first
 * empty the cache and then fail with NYX_ERR_MEMORY. */
NYX_API void nyx_memory_set_limit(size_t bytes);

/* On which memory node blocks of a megabyte and more lie, from the next that is taken
 * from the system on (nyx_memory_trim gives back those that are kept). Default: none, the
 * system's own policy or that of numactl, which is that of the first touch.
 * NYX_NUMA=local or interleave says it in the environment; what is wrong there is
 * ignored, and nyx_memory_numa says why. Fails with NYX_ERR_UNSUPPORTED where the system
 * refuses, as containers may; then nothing changes. */
typedef enum nyx_numa_mode {
  NYX_NUMA_NONE,
  NYX_NUMA_LOCAL,     /* where it is touched first, whatever the process's policy */
  NYX_NUMA_INTERLEAVE /* page by page over all nodes */
} nyx_numa_mode;

NYX_API NYX_MUST_CHECK nyx_status nyx_memory_set_numa(nyx_context *ctx,
                                                      nyx_numa_mode mode);
/* The mode; `problem`, of `room` bytes (0: none), gets what is wrong with NYX_NUMA. */
NYX_API nyx_numa_mode nyx_memory_numa(char *problem, size_t room);

/* Gives cached blocks back to the system, what Fourier transforms keep for lengths of
 * late, and the buffers that are kept for devices: for programs that end a large
 * computation and then do something else. */
NYX_API void nyx_memory_trim(void);

/* For tests: after `n` more allocations, every further one fails (n = 0: from the next
 * one on) until a negative n switches this off. */
NYX_API void nyx_memory_fail_after(int64_t n);

/* A 64-byte aligned block of at least `bytes` (0 gives a valid block), NULL when there is
 * no memory. Contents undefined. Extensions may use these for scratch. */
NYX_API void *nyx_memory_alloc(size_t bytes);
NYX_API void *nyx_memory_alloc_zeroed(size_t bytes);
NYX_API void nyx_memory_free(void *block); /* NULL is allowed */

#endif
