/* The normalizations' rows in float32. Read next: norm_rows.h. */
#define NYX_T_FLOAT32
#define NORM_KERNEL NYX_PATH(norm_float32)
#include "norm_rows.h"
