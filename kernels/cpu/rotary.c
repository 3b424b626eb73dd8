/* Rotary embedding for float32 and float64; the loops are in rotary_type.h. Compiled once
 * per instruction-set path. */
#include "rotary.h"

#include "cpu.h"
#include "vector_bytes.h"

/* The lanes of x that `from` names. */
#if defined(__clang__)
#define SHUFFLE(V, VI, x, from)                                                          \
  ({                                                                                     \
    V shuffled;                                                                          \
    UNROLL for (int k = 0; k < LANES; k++) shuffled[k] = (x)[(from)[k]];                 \
    shuffled;                                                                            \
  })
#else
#define SHUFFLE(V, VI, x, from) __builtin_shuffle(x, from)
#endif

#define TYPED_SOURCE "rotary_type.h"
#include "both_floats.h"

#define KERNEL(type)                                                                     \
  { .halves = halves_##type, .pairs = pairs_##type }

extern const nyx_rotary_kernels NYX_PATH(rotary);
const nyx_rotary_kernels NYX_PATH(rotary) = {.type = {KERNEL(f32), KERNEL(f64)}};
