/* Patches of images as panels, for float32 and float64; the loops are in patches_type.h.
 * Compiled once per instruction-set path. */
#include "patches.h"

#include <string.h>

#include "cpu.h"
#include "vector_bytes.h"

#define TYPED_SOURCE "patches_type.h"
#include "both_floats.h"

#define KERNEL(name, T)                                                                  \
  { VECTOR_BYTES / sizeof(T), pad_##name, pack_##name, pack_turned_##name }

const nyx_patches_kernels NYX_PATH(patches) = {
    .type = {KERNEL(f32, float), KERNEL(f64, double)}};
