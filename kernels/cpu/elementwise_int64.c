/* The elementwise rows in int64; all of it is in elementwise_rows.h. */
#define NYX_T_INT64
#define NYX_ROWS NYX_PATH(rows_int64)
#include "elementwise_rows.h"
