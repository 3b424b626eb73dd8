/* Channels-last images, for float32 and float64; the loops are in last_type.h. Compiled
 * once per instruction-set path. */
#include "last.h"

#include <stddef.h>
#include <string.h>

#include "cpu.h"
#include "vector_bytes.h"

/* As in gemm.c: sums stay in registers. */
#if VECTOR_BYTES == 64
#define TILE_ROWS 14
#define WIDE_ROWS 9
#elif VECTOR_BYTES == 32
#define TILE_ROWS 6
#define WIDE_ROWS 4
#elif defined(__aarch64__)
#define TILE_ROWS 12
#define WIDE_ROWS 9
#else
#define TILE_ROWS 4
#define WIDE_ROWS 3
#endif
#define TILE_VECTORS 2
#define WIDE_VECTORS 3
#define AHEAD 8   /* rows of B that are asked for before they are needed */
#define NEXT 1024 /* elements of a result that are asked for before their turn */
#define PLACES 8  /* of a depthwise convolution, together */

#define TYPED_SOURCE "last_type.h"
#include "both_floats.h"

#define KERNEL(name, T)                                                                  \
  {                                                                                      \
    TILE_ROWS, product_##name, WIDE_ROWS,                                                \
        WIDE_VECTORS *VECTOR_BYTES / (int64_t)sizeof(T), wide_##name, place_##name,      \
        depthwise_##name, products_##name, max_##name, average_##name, spread_##name,    \
        moments_##name, sums_##name, normalize_##name, backward_##name                   \
  }

const nyx_last_kernels NYX_PATH(last) = {
    .type = {KERNEL(f32, float), KERNEL(f64, double)}};
