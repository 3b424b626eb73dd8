/* Products of bfloat16 by dot products (AVX-512-BF16), for CPUs where these are faster
 * than multiply-adds in float32. Read next: ../low.h, ../low_pack.h. */
#include <immintrin.h>
#include <stdbool.h>

#include "../cpu.h"
#include "../low.h"

#define TILE_ROWS 14 /* 28 sums, 2 of B and 1 of A: 31 of 32 registers */
#define TILE_COLS 32

#define S uint16_t
#define E 2
#define WIDEN 0
#define PACK(name) name##_bf16
#include "../low_pack.h"

static void pack_a(const void *a, int64_t rs, int64_t cs, int64_t rows, int64_t depth,
                   void *panels) {
  rows_bf16(a, rs, cs, rows, depth, 0, panels);
}

static void pack_b(const void *b, int64_t rs, int64_t cs, int64_t depth, int64_t cols,
                   void *panels) {
  columns_bf16(b, rs, cs, depth, cols, (depth + 31) / 32 * 64 * TILE_COLS, panels);
}

static inline void tile(int64_t steps, const char *a, const char *b, float *c,
                        int64_t ldc, bool add) {
  __m512 sum[TILE_ROWS][2];
  UNROLL for (int i = 0; i < TILE_ROWS; i++) {
    UNROLL for (int v = 0; v < 2; v++) {
      sum[i][v] = add ? _mm512_loadu_ps(c + i * ldc + 16 * v) : _mm512_setzero_ps();
    }
  }
  for (; steps > 0; steps--, a += 64 * TILE_ROWS) {
    for (int g = 0; g < 16; g++, b += 4 * TILE_COLS) {
      __m512bh left = (__m512bh)_mm512_loadu_si512(b);
      __m512bh right = (__m512bh)_mm512_loadu_si512(b + 64);
      UNROLL for (int i = 0; i < TILE_ROWS; i++) {
        int32_t pair;
        memcpy(&pair, a + i * 64 + g * 4, 4);
        __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
        sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, left);
        sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, right);
      }
    }
  }
  UNROLL for (int i = 0; i < TILE_ROWS; i++) {
    UNROLL for (int v = 0; v < 2; v++) _mm512_storeu_ps(c + i * ldc + 16 * v, sum[i][v]);
  }
}

static void block(const nyx_low_block *k) {
  int64_t steps = k->terms / 32;
  for (int64_t j = 0; j < k->cols; j += TILE_COLS) {
    for (int64_t i = 0; i < k->rows; i += TILE_ROWS) {
      tile(steps, (const char *)k->a + i * steps * 64,
           (const char *)k->b + j * steps * 64, (float *)k->c + i * k->ldc + j, k->ldc,
           k->add);
    }
  }
}

const nyx_low_kernel nyx__low_avx512bf16 = {.unit = "AVX-512 BF16",
                                            .tile_rows = TILE_ROWS,
                                            .tile_cols = TILE_COLS,
                                            .item = 2,
                                            .step = 32,
                                            .depth = 512,
                                            .least = 80,
                                            .pack_a = pack_a,
                                            .pack_b = pack_b,
                                            .block = block};
