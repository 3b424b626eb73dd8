/* The table of distances on one path. Read next: distance.h, distance_rows.h. */
#include "distance.h"

#include "cpu.h"

extern const nyx_distance_kernel NYX_PATH(distance_float32), NYX_PATH(distance_float64);
extern const nyx_distance_kernels NYX_PATH(distance);

const nyx_distance_kernels NYX_PATH(distance) = {
    .type = {&NYX_PATH(distance_float32), &NYX_PATH(distance_float64)}};
