/* Elementwise kernels in int64: every row must give exactly what plain C gives, also
 * where arithmetic wraps. Read next: elementwise_rows.h. */
#define NYX_T_INT64
#include "elementwise_rows.h"

#define NYX_INT_COMPUTE NYX_IN_INT64
DEFINE_RUN(run, int64_t)
#include "elementwise_int.h"
