/* Softmax's rows in float32. Read next: softmax_rows.h. */
#define NYX_T_FLOAT32
#define SOFTMAX_KERNEL NYX_PATH(softmax_float32)
#include "softmax_rows.h"
