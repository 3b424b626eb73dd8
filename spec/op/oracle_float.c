/* The oracle in double precision. */
#define NYX_T_FLOAT64 1
#define ORACLE(name) oracle_float_##name
#include "oracle_rows.h"
