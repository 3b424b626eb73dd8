/* The rows of the normalizations for float32 and float64; the loops are in norm_type.h.
 * Compiled once per instruction-set path. */
#include "norm.h"

#include <stddef.h>

#include "cpu.h"
#include "vector_bytes.h"

/* Elements added up in the type itself before the sum goes to double. */
#define SUM_BLOCK 1024

#define TYPED_SOURCE "norm_type.h"
#include "both_floats.h"

#define KERNEL(type)                                                                     \
  { normalize_##type, sums_##type, backward_##type, accumulate_##type, squares_##type }

const nyx_norm_kernels NYX_PATH(norm) = {.type = {KERNEL(f32), KERNEL(f64)}};
