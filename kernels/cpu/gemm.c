/* The built-in matrix product for float32 and float64; the algorithm is in gemm_type.h,
 * written once over a vector type. Compiled once per instruction-set path. */
#include "gemm.h"

#include <string.h>

#include "cpu.h"
#include "vector_bytes.h"

#if VECTOR_BYTES == 64
#define TILE_ROWS 14 /* 28 accumulators, 2 of B and 1 of A: 31 of 32 registers */
#elif VECTOR_BYTES == 32
#define TILE_ROWS 6
#elif defined(__aarch64__)
#define TILE_ROWS 12
#else
#define TILE_ROWS 4 /* without FMA a product needs a register of its own */
#endif
#define TILE_VECTORS 2
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define REGISTERS 32
#define FEW_DOTS 64
#else
#define REGISTERS 16
#define FEW_DOTS 32 /* tiles of 6 by two vectors need fewer loads */
#endif
#define AHEAD 20 /* rows of B that are asked for before they are needed */

/* Blocks: a block of A (about 84 rows x DEPTH) stays in the second cache; a panel of B
 * (DEPTH x one tile) comes from there too once it is deeper than the first holds, which
 * costs less than adding to C more often (measured from 160 to 512 on Zen 4). */
#define DEPTH 384
#define BLOCK_ROWS (TILE_ROWS * (84 / TILE_ROWS))
#define BLOCK_COL_BYTES 2048
/* Scratch: the block of A, then that of B; doubles are the larger case of A. */
#define WORK_A ((size_t)BLOCK_ROWS * DEPTH * sizeof(double))
#define WORK_B ((size_t)DEPTH * BLOCK_COL_BYTES)

#define TYPED_SOURCE "gemm_type.h"
#include "both_floats.h"
#define TYPED_SOURCE "tiny_type.h"
#include "both_floats.h"

#define KERNEL(name, T)                                                                  \
  {                                                                                      \
    .product = product_##name, .direct = direct_##name, .tile_rows = TILE_ROWS,          \
    .tile_cols = TILE_VECTORS * VECTOR_BYTES / (int64_t)sizeof(T),                       \
    .block_rows = BLOCK_ROWS, .depth = DEPTH, .pack_a = pack_a_##name,                   \
    .pack_b = pack_b_##name, .divide = divide_##name, .pack = pack_##name,               \
    .block = block_##name, .patched = patched_##name, .thin = thin_##name,               \
    .thin_taps = thin_taps_##name, .dots = dots_##name, .sum_rows = sum_rows_##name,     \
    .few_dots = FEW_DOTS, .pack_few = pack_few_##name, .few = few_##name,                \
    .few_near = few_near_##name, .tiny = tiny_##name                                     \
  }

const nyx_gemm_kernels NYX_PATH(gemm) = {
    .type = {KERNEL(f32, float), KERNEL(f64, double)},
    .work_bytes = WORK_A + WORK_B,
#if defined(__FMA__)
    .fast = true,
#endif
};
