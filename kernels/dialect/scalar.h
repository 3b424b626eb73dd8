/* The dialect in plain C, one element at a time, with libm: what tests compare kernels
 * with. It is gpu.h and special.h themselves over double or an integer. Define
 * NYX_T_FLOAT64, NYX_T_INT32 or NYX_T_INT64 and include this once; integers wrap with
 * -fwrapv. */
#include <math.h>
#include <stdint.h>

#if defined(NYX_T_FLOAT64)
#define T double
#define NYX_T_FLOAT 1
#define NYX_T_BITS 64
#elif defined(NYX_T_INT64)
#define T int64_t
#define NYX_T_INT 1
#define NYX_T_BITS 64
#else
#define T int32_t
#define NYX_T_INT 1
#define NYX_T_BITS 32
#endif
#include "gpu.h"
#if defined(NYX_T_FLOAT)
#include "special.h"
#endif
