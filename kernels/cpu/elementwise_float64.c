/* The elementwise rows in float64; all of it is in elementwise_rows.h. */
#define NYX_T_FLOAT64
#define NYX_ROWS NYX_PATH(rows_float64)
#include "elementwise_rows.h"
