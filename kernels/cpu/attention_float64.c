/* Attention's kernels in float64. Read next: attention_rows.h. */
#define NYX_T_FLOAT64
#define ATTENTION_KERNEL NYX_PATH(attention_float64)
#include "attention_rows.h"
