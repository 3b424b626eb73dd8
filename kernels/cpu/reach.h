/* Which pairs of rows of bytes have a product that reaches a limit. Single-threaded;
 * core/op/reach.c splits the work. Read next: reach.c. */
#ifndef NYX_KERNELS_CPU_REACH_H
#define NYX_KERNELS_CPU_REACH_H

#include <stdint.h>

typedef struct nyx_reach_kernels {
  /* sums[i] = row i . q, for `count` rows of k bytes that lie together. */
  void (*dots)(const int8_t *rows, int64_t count, int64_t k, const int8_t *q,
               int32_t *sums);
  /* The i < count with extra[i] + scale[i] * sums[i] >= limit: writes them to `at`, in
   * order, and returns how many. */
  int64_t (*rows)(const int32_t *sums, const float *scale, const float *extra,
                  int64_t count, float limit, int32_t *at);
  /* Those with extra + scale * sums[i] >= limit[i]. */
  int64_t (*queries)(const int32_t *sums, float scale, float extra, const float *limit,
                     int64_t count, int32_t *at);
} nyx_reach_kernels;

#endif
