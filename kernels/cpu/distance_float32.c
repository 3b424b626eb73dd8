/* Distances of rows in float32. Read next: distance_rows.h. */
#define NYX_T_FLOAT32
#define DISTANCE_KERNEL NYX_PATH(distance_float32)
#include "distance_rows.h"
