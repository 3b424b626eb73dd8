/* The elementwise rows in float32; all of it is in elementwise_rows.h. */
#define NYX_T_FLOAT32
#define NYX_ROWS NYX_PATH(rows_float32)
#define NYX_ROWS_PAST NYX_PATH(past_float32)
#include "elementwise_rows.h"
