/* The table of attention's kernels on one path. Read next: attention.h,
 * attention_rows.h. */
#include "attention.h"

#include "cpu.h"

extern const nyx_attention_kernel NYX_PATH(attention_float32),
    NYX_PATH(attention_float64);
extern const nyx_attention_kernels NYX_PATH(attention);

const nyx_attention_kernels NYX_PATH(attention) = {
    .type = {&NYX_PATH(attention_float32), &NYX_PATH(attention_float64)}};
