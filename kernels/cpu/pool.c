/* Max pooling for float32 and float64. Compiled once per instruction-set path. */
#include "pool.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "cpu.h"
#include "vector_bytes.h"

#define CHUNK 512 /* outputs at a time */

#define TYPED_SOURCE "pool_type.h"
#include "both_floats.h"

const nyx_pool_kernels NYX_PATH(pool) = {.max = {max_plane_f32, max_plane_f64}};
