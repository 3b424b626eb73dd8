/* The elementwise rows in int32; all of it is in elementwise_rows.h. */
#define NYX_T_INT32
#define NYX_ROWS NYX_PATH(rows_int32)
#include "elementwise_rows.h"
