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
/* The others; those of one, the last first. */
#define ODDS_2 1, 3
#define ODDS_4 ODDS_2, 5, 7
#define ODDS_8 ODDS_4, 9, 11, 13, 15
#define ODDS_16 ODDS_8, 17, 19, 21, 23, 25, 27, 29, 31
#define TURNED_2 1, 0
#define TURNED_4 3, 0, 1, 2
#define TURNED_8 7, 0, 1, 2, 3, 4, 5, 6
#define TURNED_16 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
#if VECTOR_BYTES == 64
#define OF_f32(lanes) lanes##_16
#define OF_f64(lanes) lanes##_8
#elif VECTOR_BYTES == 32
#define OF_f32(lanes) lanes##_8
#define OF_f64(lanes) lanes##_4
#else
#define OF_f32(lanes) lanes##_4
#define OF_f64(lanes) lanes##_2
#endif

#define TYPED_SOURCE "pool_type.h"
#include "both_floats.h"

const nyx_pool_kernels NYX_PATH(pool) = {
    .max = {max_plane_f32, max_plane_f64},
    .average = {average_plane_f32, average_plane_f64},
    .spread = {spread_plane_f32, spread_plane_f64}};
