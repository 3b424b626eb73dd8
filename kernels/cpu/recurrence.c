/* The table of recurrent layers' kernels on one path. Read next: recurrence.h,
 * recurrence_rows.h. */
#include "recurrence.h"

#include "cpu.h"

extern const nyx_recurrence_kernel NYX_PATH(recurrence_float32),
    NYX_PATH(recurrence_float64);
extern const nyx_recurrence_kernels NYX_PATH(recurrence);

const nyx_recurrence_kernels NYX_PATH(recurrence) = {
    .type = {&NYX_PATH(recurrence_float32), &NYX_PATH(recurrence_float64)}};
