/* Numbers whose sums of products are exact in float32 in any order, in arrays of either
 * float type. */
#ifndef NYX_SPEC_EIGHTHS_H
#define NYX_SPEC_EIGHTHS_H

#include "check.h"

static uint64_t state = 1;

/* -1 to 7/8, in eighths. */
UNTRACED static double number(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int)(state >> 60) / 8 - 1;
}

UNTRACED static void put(nyx_dtype dtype, void *to, int64_t i, double value) {
  if (dtype == NYX_FLOAT32)
    ((float *)to)[i] = (float)value;
  else
    ((double *)to)[i] = value;
}
UNTRACED static double get(nyx_dtype dtype, const void *from, int64_t i) {
  return dtype == NYX_FLOAT32 ? (double)((const float *)from)[i]
                              : ((const double *)from)[i];
}

#endif
