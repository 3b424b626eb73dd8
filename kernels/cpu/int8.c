/* Products of bytes summed in int32, exactly: by the dot products of VNNI or of ARM where
 * this is compiled for them, else as pairs of int16. Read next: low.h, low_pack.h. */
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include <stdbool.h>

#include "cpu.h"
#include "low.h"
#include "vector_bytes.h"

#if VECTOR_BYTES == 64
#define TILE_ROWS 14 /* and 2 vectors: 28 sums, 2 of B, 1 of A */
#elif VECTOR_BYTES == 32
#define TILE_ROWS 6 /* and 2 vectors: 12 sums */
#elif defined(__aarch64__)
#define TILE_ROWS 6 /* and 4 vectors: 24 sums, 4 of B, 1 of A */
#else
#define TILE_ROWS 2 /* and 4 vectors: 8 sums */
#endif
#define TILE_VECTORS (VECTOR_BYTES == 16 ? 4 : 2)
#define TILE_COLS (TILE_VECTORS * VECTOR_BYTES / 4)

typedef int32_t vec __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vec_anywhere
    __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

/* sum + the dot products of groups. VNNI multiplies unsigned bytes by signed ones, ARM
 * signed by signed: on the left the other kind has 128 added or taken off by FLIP_, which
 * START times the sum of a column makes up for; EXTRA_ bytes behind a panel hold that. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
#define DOTS
#define ITEM 1
#define FLIPPED 0x80808080u
#define STARTS (4 * TILE_COLS)
#if defined(__ARM_FEATURE_DOTPROD)
#define START 128
#define FLIP_s8 0
#define FLIP_u8 FLIPPED
#define EXTRA_s8 0
#define EXTRA_u8 STARTS
#else
#define START -128
#define FLIP_s8 FLIPPED
#define FLIP_u8 0
#define EXTRA_s8 STARTS
#define EXTRA_u8 0
#endif
static inline vec dot(vec sum, vec a, vec b) {
#if defined(__AVX512VNNI__)
  return (vec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVXVNNI__)
  return (vec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#else
  return (vec)vdotq_s32((int32x4_t)sum, (int8x16_t)a, (int8x16_t)b);
#endif
}
#else
#define ITEM 2
#define FLIP_s8 0
#define FLIP_u8 0
#define EXTRA_s8 0
#define EXTRA_u8 0
static inline vec dot(vec sum, vec a, vec b) {
#if VECTOR_BYTES == 64 && defined(__AVX512BW__)
  return sum + (vec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif VECTOR_BYTES == 32 && defined(__AVX2__)
  return sum + (vec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
  return sum + (vec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif VECTOR_BYTES == 16 && defined(__aarch64__)
  int16x8_t left = (int16x8_t)a, right = (int16x8_t)b;
  int32x4_t low = vmull_s16(vget_low_s16(left), vget_low_s16(right));
  return sum + (vec)vpaddq_s32(low, vmull_high_s16(left, right));
#else
  return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}
#endif

#define E (4 / ITEM)
#define WIDEN (ITEM == 2)
#define STEP_TERMS (64 / ITEM)

#define S int8_t
#define PACK(name) name##_s8
#include "low_pack.h"
#undef S
#undef PACK

#define S uint8_t
#define PACK(name) name##_u8
#include "low_pack.h"

static void pack_a_s8(const void *a, int64_t rs, int64_t cs, int64_t rows, int64_t depth,
                      void *panels) {
  rows_s8(a, rs, cs, rows, depth, FLIP_s8, panels);
}
static void pack_a_u8(const void *a, int64_t rs, int64_t cs, int64_t rows, int64_t depth,
                      void *panels) {
  rows_u8(a, rs, cs, rows, depth, FLIP_u8, panels);
}

#ifdef DOTS
static void correct(const char *panel, int64_t groups, char *to) {
  enum { CHAINS = 4 }; /* of groups, of which a step has a multiple */
  vec one = (vec){0} + 0x01010101, sum[CHAINS][TILE_VECTORS] = {{{0}}};
  for (int64_t g = 0; g < groups; g += CHAINS) {
    const vec_anywhere *from = (const vec_anywhere *)panel + g * TILE_VECTORS;
    UNROLL for (int i = 0; i < CHAINS; i++) {
      UNROLL for (int v = 0; v < TILE_VECTORS; v++) sum[i][v] =
          dot(sum[i][v], one, from[i * TILE_VECTORS + v]);
    }
  }
  for (int v = 0; v < TILE_VECTORS; v++) {
    vec all = (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]);
    ((vec_anywhere *)to)[v] = all * START;
  }
}
#endif

static void pack_b_for(const void *b, int64_t rs, int64_t cs, int64_t depth, int64_t cols,
                       int64_t extra, char *panels) {
  int64_t steps = (depth + STEP_TERMS - 1) / STEP_TERMS, bytes = steps * 64 * TILE_COLS;
  columns_s8(b, rs, cs, depth, cols, bytes + extra, panels);
#ifdef DOTS
  for (int64_t j = 0; j < cols && extra; j += TILE_COLS, panels += bytes + extra) {
    correct(panels, steps * 16, panels + bytes);
  }
#endif
}
static void pack_b_s8(const void *b, int64_t rs, int64_t cs, int64_t depth, int64_t cols,
                      void *panels) {
  pack_b_for(b, rs, cs, depth, cols, EXTRA_s8, panels);
}
static void pack_b_u8(const void *b, int64_t rs, int64_t cs, int64_t depth, int64_t cols,
                      void *panels) {
  pack_b_for(b, rs, cs, depth, cols, EXTRA_u8, panels);
}

/* Rows of C that are asked for at a step: it may be the result itself, far from caches.
 */
#define ASKED 2
static ALWAYS_INLINE void ask(const int32_t *c, int64_t ldc, int64_t step) {
  for (int64_t i = ASKED * step; i < ASKED * (step + 1) && i < TILE_ROWS; i++) {
    UNROLL for (int at = 0; at < TILE_COLS; at += 16)
        __builtin_prefetch(c + i * ldc + at);
  }
}

/* `start`, when not NULL, is added to every row. */
static inline void tile(int64_t steps, const char *a, const char *b,
                        const vec_anywhere *start, int32_t *c, int64_t ldc, bool add) {
  vec sum[TILE_ROWS][TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_ROWS; i++) {
    UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
      sum[i][v] = (vec){0};
      if (start) sum[i][v] = start[v];
      if (add) sum[i][v] += ((const vec_anywhere *)(c + i * ldc))[v];
    }
  }
  for (int64_t step = 0; step < steps; step++, a += 64 * TILE_ROWS) {
    ask(c, ldc, step);
    for (int g = 0; g < 16; g++, b += 4 * TILE_COLS) {
      vec right[TILE_VECTORS];
      UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
        right[v] = ((const vec_anywhere *)b)[v];
      }
      UNROLL for (int i = 0; i < TILE_ROWS; i++) {
        int32_t group;
        memcpy(&group, a + i * 64 + g * 4, 4);
        vec left = (vec){0} + group;
        UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
          sum[i][v] = dot(sum[i][v], left, right[v]);
        }
      }
    }
  }
  UNROLL for (int i = 0; i < TILE_ROWS; i++) {
    UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
      ((vec_anywhere *)(c + i * ldc))[v] = sum[i][v];
    }
  }
}

static inline void block(const nyx_low_block *k, int64_t extra) {
  int64_t steps = k->terms / STEP_TERMS, row = steps * 64;
  for (int64_t j = 0; j < k->cols; j += TILE_COLS) {
    const char *panel = (const char *)k->b + j / TILE_COLS * (row * TILE_COLS + extra);
    const char *start = extra ? panel + row * TILE_COLS : NULL;
    for (int64_t i = 0; i < k->rows; i += TILE_ROWS) {
      tile(steps, (const char *)k->a + i * row, panel, (const vec_anywhere *)start,
           (int32_t *)k->c + i * k->ldc + j, k->ldc, k->add);
    }
  }
}
static void block_s8(const nyx_low_block *k) {
  block(k, EXTRA_s8);
}
static void block_u8(const nyx_low_block *k) {
  block(k, EXTRA_u8);
}

#if defined(__AVX512VNNI__)
#define UNIT "AVX-512 VNNI"
#elif defined(__AVXVNNI__)
#define UNIT "AVX-VNNI"
#elif defined(__ARM_FEATURE_DOTPROD)
#define UNIT "ARM dot products"
#else
#define UNIT "pairs of int16"
#endif
#define KERNEL(name)                                                                     \
  {                                                                                      \
    .unit = UNIT, .tile_rows = TILE_ROWS, .tile_cols = TILE_COLS, .item = ITEM,          \
    .step = STEP_TERMS, .depth = 1024 / ITEM, .extra = EXTRA_##name,                     \
    .pack_a = pack_a_##name, .pack_b = pack_b_##name, .block = block_##name              \
  }
const nyx_low_kernel NYX_PATH(low_bytes)[2] = {KERNEL(s8), KERNEL(u8)};
