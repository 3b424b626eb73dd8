/* Reductions in int32. Read next: reduce_rows.h. */
#define NYX_T_INT32 1
#define REDUCE_NAME(name) NYX_PATH(reduce_int32_##name)
#include "reduce_rows.h"
