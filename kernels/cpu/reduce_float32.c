/* Reductions in float32. Read next: reduce_rows.h. */
#define NYX_T_FLOAT32 1
#define REDUCE_NAME(name) NYX_PATH(reduce_float32_##name)
#include "reduce_rows.h"
