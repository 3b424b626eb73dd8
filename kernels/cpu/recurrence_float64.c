/* Recurrent layers' kernels in float64. Read next: recurrence_rows.h. */
#define NYX_T_FLOAT64
#define RECURRENCE_KERNEL NYX_PATH(recurrence_float64)
#include "recurrence_rows.h"
