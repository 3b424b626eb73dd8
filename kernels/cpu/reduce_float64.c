/* Reductions in float64. Read next: reduce_rows.h. */
#define NYX_T_FLOAT64 1
#define REDUCE_NAME(name) NYX_PATH(reduce_float64_##name)
#include "reduce_rows.h"
