/* The normalizations' rows in float64. Read next: norm_rows.h. */
#define NYX_T_FLOAT64
#define NORM_KERNEL NYX_PATH(norm_float64)
#include "norm_rows.h"
