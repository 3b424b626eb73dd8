/* Attention's kernels in float32. Read next: attention_rows.h. */
#define NYX_T_FLOAT32
#define ATTENTION_KERNEL NYX_PATH(attention_float32)
#include "attention_rows.h"
