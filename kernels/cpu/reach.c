/* Products of bytes that reach a limit: few do, so that each loop first asks whether any
 * of some does. Compiled once per instruction-set path. Read next: reach.h. */
#include "reach.h"

#include "cpu.h"

#define SOME 64

static void dots(const int8_t *rows, int64_t count, int64_t k, const int8_t *q,
                 int32_t *sums) {
  for (int64_t i = 0; i < count; i++, rows += k) {
    int32_t sum = 0;
    for (int64_t l = 0; l < k; l++) sum += (int32_t)rows[l] * q[l];
    sums[i] = sum;
  }
}

static int64_t rows(const int32_t *sums, const float *scale, const float *extra,
                    int64_t count, float limit, int32_t *at) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += SOME) {
    int64_t end = count - i < SOME ? count - i : SOME;
    int any = 0;
    for (int64_t l = i; l < i + end; l++)
      any |= extra[l] + scale[l] * (float)sums[l] >= limit;
    if (!any) continue;
    for (int64_t l = i; l < i + end; l++)
      if (extra[l] + scale[l] * (float)sums[l] >= limit) at[found++] = (int32_t)l;
  }
  return found;
}

static int64_t queries(const int32_t *sums, float scale, float extra, const float *limit,
                       int64_t count, int32_t *at) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += SOME) {
    int64_t end = count - i < SOME ? count - i : SOME;
    int any = 0;
    for (int64_t l = i; l < i + end; l++)
      any |= extra + scale * (float)sums[l] >= limit[l];
    if (!any) continue;
    for (int64_t l = i; l < i + end; l++)
      if (extra + scale * (float)sums[l] >= limit[l]) at[found++] = (int32_t)l;
  }
  return found;
}

extern const nyx_reach_kernels NYX_PATH(reach);
const nyx_reach_kernels NYX_PATH(reach) = {dots, rows, queries};
