/* Winograd's convolution for float32 and float64; the loops are in winograd_type.h.
 * Compiled once per instruction-set path. */
#include "winograd.h"

#include <string.h>

#include "cpu.h"
#include "vector_bytes.h"

#define SIDE NYX_WINOGRAD_SIDE
#define SEEN 6   /* inputs that a tile sees in each direction, and points */
#define PHASES 4 /* columns of a tile */

#define TYPED_SOURCE "winograd_type.h"
#include "both_floats.h"

#define KERNEL(name, T)                                                                  \
  {                                                                                      \
    VECTOR_BYTES / sizeof(T), weight_##name, sizeof(stage_##name), input_##name,         \
        output_##name, gradient_##name, taps_##name, place_##name, give_##name           \
  }

const nyx_winograd_kernels NYX_PATH(winograd) = {
    .type = {KERNEL(f32, float), KERNEL(f64, double)}};
