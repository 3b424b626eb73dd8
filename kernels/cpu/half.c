/* Products of float16 and bfloat16 by the float32 kernel of the path, whose panels are
 * made from converted pieces: no converted copy of a whole matrix. Also the path's table
 * of products of narrow types. Read next: low.h, gemm.h. */
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "elementwise.h"
#include "gemm.h"
#include "low.h"
#include "vector_bytes.h"

extern const nyx_elementwise_kernels NYX_PATH(elementwise);
extern const nyx_gemm_kernels NYX_PATH(gemm);
extern const nyx_low_kernel NYX_PATH(low_bytes)[2];
extern const nyx_low_kernels NYX_PATH(low);

#if defined(__FMA__) /* else a BLAS, if there is one, is better than the path's kernel   \
                      */
#if defined(__AVX512F__)
#define TILE_ROWS 14
#define TILE_COLS 32
#else
#define TILE_ROWS 6
#define TILE_COLS 16
#endif
#define DEPTH 384 /* all three as in gemm.c */
#define PIECE 128 /* terms converted at once */

#define FLOAT32 (&NYX_PATH(gemm).type[0])

/* lanes x terms elements as floats, by lane; lanes up to `all` and nothing else zero. */
static void convert(nyx_gather_fn gather, const uint16_t *from, int64_t lane,
                    int64_t term, int64_t lanes, int64_t terms, int64_t all, float *to) {
  for (int64_t l = 0; l < lanes; l++)
    gather(terms, from + l * lane, term, to + l * PIECE);
  for (int64_t l = lanes; l < all; l++) memset(to + l * PIECE, 0, PIECE * sizeof *to);
}

/* The same by term: reads along lanes. */
static void convert_turned(nyx_gather_fn gather, const uint16_t *from, int64_t term,
                           int64_t lanes, int64_t terms, int64_t all, float *to) {
  for (int64_t t = 0; t < terms; t++, to += all) {
    gather(lanes, from + t * term, 1, to);
    for (int64_t l = lanes; l < all; l++) to[l] = 0;
  }
}

/* Panels of `all` lanes each: rows of A, or columns of B. */
static void pack(nyx_gather_fn gather, const uint16_t *from, int64_t lane, int64_t term,
                 int64_t lanes, int64_t depth, bool is_a, float *panels) {
  const int64_t all = is_a ? TILE_ROWS : TILE_COLS;
  float piece[TILE_COLS * PIECE] __attribute__((aligned(64)));
  for (int64_t i = 0; i < lanes; i += all) {
    int64_t live = lanes - i < all ? lanes - i : all;
    for (int64_t t = 0; t < depth; t += PIECE) {
      int64_t terms = depth - t < PIECE ? depth - t : PIECE, rs = PIECE, cs = 1;
      const uint16_t *source = from + i * lane + t * term;
      if (lane == 1) {
        convert_turned(gather, source, term, live, terms, all, piece);
        rs = 1, cs = all;
      } else {
        convert(gather, source, lane, term, live, terms, all, piece);
      }
      if (is_a) {
        FLOAT32->pack_a(piece, rs, cs, all, all, terms, panels);
      } else {
        FLOAT32->pack_b(piece, cs, rs, terms, all, panels);
      }
      panels += all * terms;
    }
  }
}

#define PACKERS(name, dtype)                                                             \
  static void pack_a_##name(const void *a, int64_t rs, int64_t cs, int64_t rows,         \
                            int64_t depth, void *panels) {                               \
    pack(NYX_PATH(elementwise).gather[dtype][NYX_IN_FLOAT32], a, rs, cs, rows, depth,    \
         true, panels);                                                                  \
  }                                                                                      \
  static void pack_b_##name(const void *b, int64_t rs, int64_t cs, int64_t depth,        \
                            int64_t cols, void *panels) {                                \
    pack(NYX_PATH(elementwise).gather[dtype][NYX_IN_FLOAT32], b, cs, rs, cols, depth,    \
         false, panels);                                                                 \
  }
PACKERS(bf16, NYX_BFLOAT16)
PACKERS(f16, NYX_FLOAT16)

static void block(const nyx_low_block *k) {
  const nyx_product p = {
      .m = k->rows, .n = k->cols, .k = k->terms, .c = k->c, .ldc = k->ldc, .add = k->add};
  FLOAT32->block(&p, TILE_ROWS, k->a, k->b);
}

/* One row after the other, four sums at a time, which hide the latency of an FMA. */
#define CHAINS 4
#if defined(__AVX512F__)
typedef float vec __attribute__((vector_size(64)));
typedef float vec_anywhere __attribute__((vector_size(64), aligned(4), may_alias));
static ALWAYS_INLINE vec bf16_floats(const uint16_t *from) {
  __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
  return (vec)_mm512_slli_epi32(words, 16);
}
static ALWAYS_INLINE vec f16_floats(const uint16_t *from) {
  return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
#else
typedef float vec __attribute__((vector_size(32)));
typedef float vec_anywhere __attribute__((vector_size(32), aligned(4), may_alias));
static ALWAYS_INLINE vec bf16_floats(const uint16_t *from) {
  __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
  return (vec)_mm256_slli_epi32(words, 16);
}
static ALWAYS_INLINE vec f16_floats(const uint16_t *from) {
  return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}
#endif
enum { LANES = sizeof(vec) / sizeof(float), BLOCK = CHAINS * LANES };

#define DOT(name)                                                                        \
  static ALWAYS_INLINE void add_##name(const uint16_t *row, const float *x, vec *sum) {  \
    UNROLL for (int i = 0; i < CHAINS; i++) sum[i] +=                                    \
        name##_floats(row + i * LANES) * *(const vec_anywhere *)(x + i * LANES);         \
  }                                                                                      \
  static void dot_##name(const void *rows, int64_t pitch, int64_t count, const float *x, \
                         int64_t k, float *y) {                                          \
    const uint16_t *row = rows;                                                          \
    int64_t whole = k / BLOCK * BLOCK;                                                   \
    float x_rest[BLOCK] = {0};                                                           \
    memcpy(x_rest, x + whole, (size_t)(k - whole) * sizeof *x);                          \
    for (int64_t i = 0; i < count; i++, row += pitch) {                                  \
      vec sum[CHAINS] = {{0}};                                                           \
      for (int64_t t = 0; t < whole; t += BLOCK) add_##name(row + t, x + t, sum);        \
      if (whole < k) {                                                                   \
        uint16_t rest[BLOCK] = {0};                                                      \
        memcpy(rest, row + whole, (size_t)(k - whole) * sizeof *rest);                   \
        add_##name(rest, x_rest, sum);                                                   \
      }                                                                                  \
      vec all = (sum[0] + sum[1]) + (sum[2] + sum[3]);                                   \
      y[i] = 0;                                                                          \
      for (int l = 0; l < LANES; l++) y[i] += all[l];                                    \
    }                                                                                    \
  }
DOT(bf16)
DOT(f16)

#define KERNEL(name)                                                                     \
  {                                                                                      \
    .unit = "float32 FMA", .tile_rows = TILE_ROWS, .tile_cols = TILE_COLS,               \
    .item = sizeof(float), .step = 1, .depth = DEPTH, .least = 80,                       \
    .pack_a = pack_a_##name, .pack_b = pack_b_##name, .block = block                     \
  }
static const nyx_low_kernel bf16 = KERNEL(bf16), f16 = KERNEL(f16);
#endif

const nyx_low_kernels NYX_PATH(low) = {
#if defined(__FMA__)
    .bf16 = &bf16,
    .f16 = &f16,
    .dot_bf16 = dot_bf16,
    .dot_f16 = dot_f16,
#endif
    .s8 = &NYX_PATH(low_bytes)[0],
    .u8 = &NYX_PATH(low_bytes)[1]};
