/* The rows that bool has in its own width; all of it is in elementwise_rows.h. */
#define NYX_T_BOOL
#define NYX_ROWS NYX_PATH(rows_bool)
#include "elementwise_rows.h"
