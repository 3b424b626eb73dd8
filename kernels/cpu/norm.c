/* The rows of the normalizations for float32 and float64; the loops are in norm_type.h.
 * Compiled once per instruction-set path. */
#include "norm.h"

#include <stddef.h>

#include "cpu.h"

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

/* Elements added up in the type itself before the sum goes to double. */
#define SUM_BLOCK 1024

#define T float
#define TYPED(name) name##_f32
#include "norm_type.h"
#undef T
#undef TYPED

#define T double
#define TYPED(name) name##_f64
#include "norm_type.h"
#undef T
#undef TYPED

#define KERNEL(type)                                                                     \
  { normalize_##type, sums_##type, backward_##type, accumulate_##type, squares_##type }

const nyx_norm_kernels NYX_PATH(norm) = {.type = {KERNEL(f32), KERNEL(f64)}};
