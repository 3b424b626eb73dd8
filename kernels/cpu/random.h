/* Random bits, and normal numbers made of them, on one path. Read next: random.c,
 * core/op/random_fill.c (who calls). */
#ifndef NYX_KERNELS_CPU_RANDOM_H
#define NYX_KERNELS_CPU_RANDOM_H

#include <stdint.h>

typedef struct nyx_random_kernels {
  /* Blocks block..block+count-1 of the stream of `seed` (core/base/random.h), four words
   * each. */
  void (*blocks)(uint64_t seed, uint64_t block, int64_t count, uint32_t *out);
  /* Pairs of standard normals from pairs of words: Box and Muller, 1958. */
  void (*normals)(int64_t pairs, const uint32_t *bits, float *out);
} nyx_random_kernels;

#endif
