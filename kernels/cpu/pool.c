/* Pooling for float32 and float64. Compiled once per instruction-set path. */
#include "pool.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "cpu.h"
#include "reduce.h"
#include "vector_bytes.h"

#define CHUNK 512                         /* outputs at a time */
#define ROOM 2048                         /* columns of a row at a time */
#define MOST_STRIDE 8                     /* of outputs that are computed side by side */
#define ROOM_MORE (MOST_STRIDE * 16 + 16) /* read behind them, for nothing */
#define WIDE 16 /* elements side by side are summed in vectors from here on */

extern const nyx_reduce_kernels NYX_PATH(reduce);

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* Every second lane of two vectors. */
#define EVENS_2 0, 2
#define EVENS_4 EVENS_2, 4, 6
#define EVENS_8 EVENS_4, 8, 10, 12, 14
#define EVENS_16 EVENS_8, 16, 18, 20, 22, 24, 26, 28, 30
#if VECTOR_BYTES == 64
#define EVENS_f32 EVENS_16
#define EVENS_f64 EVENS_8
#elif VECTOR_BYTES == 32
#define EVENS_f32 EVENS_8
#define EVENS_f64 EVENS_4
#else
#define EVENS_f32 EVENS_4
#define EVENS_f64 EVENS_2
#endif

#define TYPED_SOURCE "pool_type.h"
#include "both_floats.h"

const nyx_pool_kernels NYX_PATH(pool) = {
    .max = {max_plane_f32, max_plane_f64},
    .average = {average_plane_f32, average_plane_f64},
    .spread = {spread_plane_f32, spread_plane_f64}};
