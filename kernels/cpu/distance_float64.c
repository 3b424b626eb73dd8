/* Distances of rows in float64. Read next: distance_rows.h. */
#define NYX_T_FLOAT64
#define DISTANCE_KERNEL NYX_PATH(distance_float64)
#include "distance_rows.h"
