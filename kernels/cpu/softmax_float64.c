/* Softmax's rows in float64. Read next: softmax_rows.h. */
#define NYX_T_FLOAT64
#define SOFTMAX_KERNEL NYX_PATH(softmax_float64)
#include "softmax_rows.h"
