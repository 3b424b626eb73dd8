/* The table of the normalizations' rows on one path. Read next: norm.h, norm_rows.h. */
#include "norm.h"

#include "cpu.h"

extern const nyx_norm_kernel NYX_PATH(norm_float32), NYX_PATH(norm_float64);
extern const nyx_norm_kernels NYX_PATH(norm);

const nyx_norm_kernels NYX_PATH(norm) = {
    .type = {&NYX_PATH(norm_float32), &NYX_PATH(norm_float64)}};
