/* The table of softmax's rows on one path. Read next: softmax.h, softmax_rows.h. */
#include "softmax.h"

#include "cpu.h"

extern const nyx_softmax_kernel NYX_PATH(softmax_float32), NYX_PATH(softmax_float64);
extern const nyx_softmax_kernels NYX_PATH(softmax);

const nyx_softmax_kernels NYX_PATH(softmax) = {
    .type = {&NYX_PATH(softmax_float32), &NYX_PATH(softmax_float64)}};
