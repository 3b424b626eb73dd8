/* Reductions in int64. Read next: reduce_rows.h. */
#define NYX_T_INT64 1
#define REDUCE_NAME(name) NYX_PATH(reduce_int64_##name)
#include "reduce_rows.h"
