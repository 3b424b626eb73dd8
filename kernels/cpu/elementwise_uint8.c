/* The rows that uint8 has in its own width; all of it is in elementwise_rows.h. */
#define NYX_T_UINT8
#define NYX_ROWS NYX_PATH(rows_uint8)
#include "elementwise_rows.h"
