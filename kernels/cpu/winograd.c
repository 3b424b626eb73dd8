/* Winograd's convolution for float32 and float64; the loops are in winograd_type.h.
 * Compiled once per instruction-set path. */
#include "winograd.h"

#include <string.h>

#include "cpu.h"
#include "vector_bytes.h"

#define SIDE NYX_WINOGRAD_SIDE /* the most that a tile has */
#define SEEN 6                 /* and sees in each direction, and points */
#define PHASES 4               /* columns from a tile to the next, at most */

/* What a tile sees of a plane: its rows and columns, those from a tile to the next, and
 * the points of a direction. */
enum kind { INPUT, OUTPUTS, HALF_INPUT, HALF_OUTPUTS, TWICE_INPUT };
static const struct {
  int seen, step, points;
} kinds[] = {[INPUT] = {6, 4, 6},
             [OUTPUTS] = {4, 4, 6},
             [HALF_INPUT] = {5, 4, 5},
             [HALF_OUTPUTS] = {2, 2, 3},
             [TWICE_INPUT] = {3, 2, 4}};

/* What becomes of products: tiles of a side, from the points of a direction. */
enum result { WHOLE, HALF, TWICE };
static const struct {
  int side, points;
} results[] = {[WHOLE] = {4, 6}, [HALF] = {2, 3}, [TWICE] = {4, 5}};

#define TYPED_SOURCE "winograd_type.h"
#include "both_floats.h"

static const nyx_winograd_form whole = {
    .side = 4,
    .step = 4,
    .inputs = 6,
    .weights = 6,
    .outputs = 6,
    .terms = 6,
    .term = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {4, 4, 4}, {5, 5, 5}}};

/* The last point of a weight is its middle tap, which two inputs meet alone. */
static const nyx_winograd_form half = {
    .side = 2,
    .step = 4,
    .inputs = 5,
    .weights = 4,
    .outputs = 3,
    .terms = 5,
    .term = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 0}, {4, 3, 2}}};

static const nyx_winograd_form twice = {
    .side = 4,
    .step = 2,
    .inputs = 4,
    .weights = 4,
    .outputs = 5,
    .terms = 5,
    .term = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {1, 3, 4}}};

#define KERNEL(name, T)                                                                  \
  {                                                                                      \
    &whole, VECTOR_BYTES / sizeof(T), weight_##name, turned_##name,                      \
        sizeof(stage_##name), input_##name, output_##name, gradient_##name, taps_##name, \
        place_##name, give_##name, few_##name                                            \
  }
#define KERNEL_HALF(name, T)                                                             \
  {                                                                                      \
    .form = &half, .lanes = VECTOR_BYTES / sizeof(T), .weight = half_weight_##name,      \
    .turned = half_turned_##name, .stage_bytes = sizeof(stage_##name),                   \
    .input = half_input_##name, .output = half_output_##name,                            \
    .gradient = half_gradient_##name, .taps = half_taps_##name                           \
  }
#define KERNEL_TWICE(name, T)                                                            \
  {                                                                                      \
    .form = &twice, .lanes = VECTOR_BYTES / sizeof(T), .weight = half_weight_##name,     \
    .turned = half_turned_##name, .stage_bytes = sizeof(stage_##name),                   \
    .input = twice_input_##name, .output = twice_output_##name                           \
  }

const nyx_winograd_kernels NYX_PATH(winograd) = {
    .type = {KERNEL(f32, float), KERNEL(f64, double)},
    .half = {KERNEL_HALF(f32, float), KERNEL_HALF(f64, double)},
    .twice = {KERNEL_TWICE(f32, float), KERNEL_TWICE(f64, double)}};
