/* Elementwise kernels in int32: every row must give exactly what plain C gives, also
 * where arithmetic wraps. Read next: elementwise_rows.h. */
#define NYX_T_INT32
#include "elementwise_rows.h"

#define NYX_INT_COMPUTE NYX_IN_INT32
DEFINE_RUN(run, int32_t)
#include "elementwise_int.h"
