/* The rows that int8 has in its own width; all of it is in elementwise_rows.h. */
#define NYX_T_INT8
#define NYX_ROWS NYX_PATH(rows_int8)
#include "elementwise_rows.h"
