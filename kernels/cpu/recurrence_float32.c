/* Recurrent layers' kernels in float32. Read next: recurrence_rows.h. */
#define NYX_T_FLOAT32
#define RECURRENCE_KERNEL NYX_PATH(recurrence_float32)
#include "recurrence_rows.h"
