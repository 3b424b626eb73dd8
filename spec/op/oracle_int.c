/* The oracle in 64-bit integers. */
#define NYX_T_INT64 1
#define ORACLE(name) oracle_int_##name
#include "oracle_rows.h"
