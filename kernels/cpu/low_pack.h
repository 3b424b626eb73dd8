/* Packing for products of narrow types; included once for each type, by a file that
 * defines S (the type in memory), E (how many terms a group of four bytes holds, what a
 * dot product adds up at once), WIDEN (1: bytes become int16), PACK(name), and once for
 * all TILE_ROWS and TILE_COLS (a multiple of 16). A panel of A is, for each step of 16
 * groups, 64 bytes of each row; a panel of B is, for each group, a word of each column.
 */
#ifndef NYX_KERNELS_CPU_LOW_PACK_H
#define NYX_KERNELS_CPU_LOW_PACK_H
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#include "vector_bytes.h"

typedef uint32_t words __attribute__((vector_size(64)));
typedef uint32_t words_anywhere __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint8_t piece8 __attribute__((vector_size(16)));
typedef uint16_t piece16 __attribute__((vector_size(16)));
typedef uint32_t piece32 __attribute__((vector_size(16)));
typedef uint64_t piece64 __attribute__((vector_size(16)));

#define CHUNK 64 /* neighbouring lanes packed together: a cache line of bytes */

/* Elements of a and b by turns, from the i-th on. */
#define ZIP8(a, b, i)                                                                    \
  __builtin_shufflevector(a, b, i, i + 16, i + 1, i + 17, i + 2, i + 18, i + 3, i + 19,  \
                          i + 4, i + 20, i + 5, i + 21, i + 6, i + 22, i + 7, i + 23)
#define ZIP16(a, b, i)                                                                   \
  __builtin_shufflevector(a, b, i, i + 8, i + 1, i + 9, i + 2, i + 10, i + 3, i + 11)
#define ZIP32(a, b, i) __builtin_shufflevector(a, b, i, i + 4, i + 1, i + 5)
#define ZIP64(a, b, i) __builtin_shufflevector(a, b, i, i + 2)

/* Word i of lane j becomes word j of lane i: blocks of 4 x 4 words, then the blocks. */
static inline void turn(words w[16]) {
#if defined(__AVX512F__)
  __m512i t[16];
  UNROLL for (int i = 0; i < 16; i += 4) {
    __m512i a = (__m512i)w[i], b = (__m512i)w[i + 1];
    __m512i c = (__m512i)w[i + 2], d = (__m512i)w[i + 3];
    __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    t[i] = _mm512_unpacklo_epi64(ab, cd);
    t[i + 1] = _mm512_unpackhi_epi64(ab, cd);
    ab = _mm512_unpackhi_epi32(a, b), cd = _mm512_unpackhi_epi32(c, d);
    t[i + 2] = _mm512_unpacklo_epi64(ab, cd);
    t[i + 3] = _mm512_unpackhi_epi64(ab, cd);
  }
  UNROLL for (int i = 0; i < 4; i++) {
    __m512i even = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
    __m512i below = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
    w[i] = (words)_mm512_shuffle_i32x4(even, below, 0x88);
    w[i + 8] = (words)_mm512_shuffle_i32x4(even, below, 0xdd);
    even = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
    below = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
    w[i + 4] = (words)_mm512_shuffle_i32x4(even, below, 0x88);
    w[i + 12] = (words)_mm512_shuffle_i32x4(even, below, 0xdd);
  }
#else
  piece32 from[16][4], to[16][4];
  memcpy(from, w, sizeof from);
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 4; j++) {
      piece32 a = from[i][j], b = from[i + 1][j], c = from[i + 2][j], d = from[i + 3][j];
      piece64 ab = (piece64)ZIP32(a, b, 0), cd = (piece64)ZIP32(c, d, 0);
      to[4 * j][i / 4] = (piece32)ZIP64(ab, cd, 0);
      to[4 * j + 1][i / 4] = (piece32)ZIP64(ab, cd, 1);
      ab = (piece64)ZIP32(a, b, 2), cd = (piece64)ZIP32(c, d, 2);
      to[4 * j + 2][i / 4] = (piece32)ZIP64(ab, cd, 0);
      to[4 * j + 3][i / 4] = (piece32)ZIP64(ab, cd, 1);
    }
  }
  memcpy(w, to, sizeof to);
#endif
}

#if defined(__AVX512BW__)
/* E pieces of 16 terms behind one another: word i gets term i of each. A quarter gets the
 * terms of its words, then they go to their places in it. */
static inline words zip_pieces(__m512i pieces, int e) {
  const __m512i four =
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i two = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m128i bytes =
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m128i halves =
      _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
  pieces = e == 4 ? _mm512_permutexvar_epi32(four, pieces)
                  : _mm512_permutexvar_epi64(two, pieces);
  return (words)_mm512_shuffle_epi8(pieces,
                                    _mm512_broadcast_i32x4(e == 4 ? bytes : halves));
}
#endif
#endif

#define STEP (16 * E) /* terms */

#if WIDEN && !defined(__AVX512BW__)
/* 16 bytes as int16. */
static inline void PACK(widen)(const S *from, piece16 to[2]) {
  piece8 x, sign = {0};
  memcpy(&x, from, sizeof x);
  if ((S)-1 < 0) sign = (piece8)(x > 127);
  to[0] = (piece16)ZIP8(x, sign, 0);
  to[1] = (piece16)ZIP8(x, sign, 8);
}
#endif

/* The next step's words of one lane, whose terms are neighbours. */
static inline words PACK(along_terms)(const S *from) {
#if WIDEN && defined(__AVX512BW__)
  __m256i bytes = _mm256_loadu_si256((const __m256i *)from);
  return (words)((S)-1 < 0 ? _mm512_cvtepi8_epi16(bytes) : _mm512_cvtepu8_epi16(bytes));
#elif WIDEN
  words out;
  piece16 half[4];
  PACK(widen)(from, half);
  PACK(widen)(from + 16, half + 2);
  memcpy(&out, half, sizeof out);
  return out;
#else
  return *(const words_anywhere *)from;
#endif
}

/* A group of 16 lanes that are neighbours, its terms at row[0] to row[E - 1]. */
static inline words PACK(along_lanes)(const S *const *row) {
#if defined(__AVX512BW__) && E == 4
  __m512i all = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)row[0]));
  all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i *)row[1]), 1);
  all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i *)row[2]), 2);
  all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i *)row[3]), 3);
  return zip_pieces(all, E);
#elif defined(__AVX512BW__) && WIDEN
  __m256i both = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)row[0]));
  both = _mm256_inserti128_si256(both, _mm_loadu_si128((const __m128i *)row[1]), 1);
  return zip_pieces((S)-1 < 0 ? _mm512_cvtepi8_epi16(both) : _mm512_cvtepu8_epi16(both),
                    E);
#elif defined(__AVX512BW__)
  __m512i both = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)row[0]));
  both = _mm512_inserti64x4(both, _mm256_loadu_si256((const __m256i *)row[1]), 1);
  return zip_pieces(both, E);
#else
  words out;
  piece16 a[2], b[2], quarter[4];
#if E == 4
  piece8 x[4];
  for (int e = 0; e < 4; e++) memcpy(&x[e], row[e], sizeof *x);
  a[0] = (piece16)ZIP8(x[0], x[1], 0), a[1] = (piece16)ZIP8(x[0], x[1], 8);
  b[0] = (piece16)ZIP8(x[2], x[3], 0), b[1] = (piece16)ZIP8(x[2], x[3], 8);
#elif WIDEN
  PACK(widen)(row[0], a);
  PACK(widen)(row[1], b);
#else
  memcpy(a, row[0], sizeof a);
  memcpy(b, row[1], sizeof b);
#endif
  quarter[0] = ZIP16(a[0], b[0], 0), quarter[1] = ZIP16(a[0], b[0], 4);
  quarter[2] = ZIP16(a[1], b[1], 0), quarter[3] = ZIP16(a[1], b[1], 4);
  memcpy(&out, quarter, sizeof out);
  return out;
#endif
}

/* The same of up to 16 lanes, and up to E terms: those that are missing are zero. */
static inline words PACK(group)(const S *from, int64_t term, int64_t lanes,
                                int64_t terms) {
  static const S zero[16];
  S near[E][16];
  const S *row[E];
  UNROLL for (int e = 0; e < E; e++) {
    row[e] = e < terms ? from + e * term : zero;
    if (lanes >= 16) continue;
    memset(near[e], 0, sizeof near[e]);
    memcpy(near[e], row[e], (size_t)lanes * sizeof(S));
    row[e] = near[e];
  }
  return PACK(along_lanes)(row);
}

/* A step of one lane from any strides; terms that are missing are zero. */
static inline words PACK(lane)(const S *from, int64_t term, int64_t terms) {
  S near[STEP];
  if (term == 1 && terms >= STEP) return PACK(along_terms)(from);
  memset(near, 0, sizeof near);
  for (int64_t t = 0; t < STEP && t < terms; t++) near[t] = from[t * term];
  return PACK(along_terms)(near);
}

/* Steps of 16 lanes, lane by lane, which are turned in place when groups are wanted. */
static inline void PACK(lanes)(const S *from, int64_t lane, int64_t term, int64_t lanes,
                               int64_t terms, words w[16]) {
  for (int64_t l = 0; l < 16; l++)
    w[l] = l < lanes ? PACK(lane)(from + l * lane, term, terms) : (words){0};
}

/* Rows of a panel of A from row i on, a step of them. */
static inline void PACK(put_rows)(const words w[16], int64_t i, int64_t rows,
                                  int64_t row_bytes, uint32_t flip, char *to) {
  for (int64_t l = i; l < rows && l < i + 16; l++) {
    int64_t panel = l / TILE_ROWS, row = l % TILE_ROWS;
    *(words *)(to + panel * TILE_ROWS * row_bytes + row * 64) = w[l - i] ^ flip;
  }
}

/* A step of rows whose terms lie together, all of which are there. */
static inline void PACK(rows_step)(const S *from, int64_t rs, int64_t rows,
                                   int64_t row_bytes, uint32_t flip, char *to) {
  for (int64_t i = 0; i < rows; i += TILE_ROWS, to += TILE_ROWS * row_bytes) {
    int64_t live = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
    words *at = (words *)to;
    for (int64_t l = 0; l < live; l++, from += rs) at[l] = PACK(along_terms)(from) ^ flip;
  }
}

/* Panels of A. `flip` is what every word is changed by: signed bytes become unsigned. */
static inline void PACK(rows)(const void *a, int64_t rs, int64_t cs, int64_t rows,
                              int64_t depth, uint32_t flip, char *to) {
  int64_t row_bytes = (depth + STEP - 1) / STEP * 64;
  int64_t whole = cs == 1 && rs != 1 ? depth / STEP * STEP : 0;
  const S *from = a;
  for (int64_t t = 0; t < whole; t += STEP)
    PACK(rows_step)(from + t, rs, rows, row_bytes, flip, to + t / STEP * TILE_ROWS * 64);
  for (int64_t i = 0; i < rows && rs != 1; i += 16) {
    for (int64_t t = whole; t < depth; t += STEP) {
      words w[16];
      PACK(lanes)(from + i * rs + t * cs, rs, cs, rows - i, depth - t, w);
      PACK(put_rows)(w, i, rows, row_bytes, flip, to + t / STEP * TILE_ROWS * 64);
    }
  }
  /* Read along the lanes, whole cache lines while they are near. */
  for (int64_t i = 0; i < rows && rs == 1; i += CHUNK) {
    int64_t lanes = rows - i < CHUNK ? rows - i : CHUNK;
    for (int64_t t = 0; t < depth; t += STEP) {
      words w[CHUNK];
      for (int64_t g = 0; g < 16; g++) {
        for (int64_t l = 0; l < lanes; l += 16)
          w[l + g] = PACK(group)(from + i + l + (t + g * E) * cs, cs, lanes - l,
                                 depth - t - g * E);
      }
      for (int64_t l = 0; l < lanes; l += 16) {
        turn(w + l);
        PACK(put_rows)
        (w + l, i + l, rows, row_bytes, flip, to + t / STEP * TILE_ROWS * 64);
      }
    }
  }
}

/* Panels of B, panel_bytes apart: `step` is where a step of the first begins. */
static inline words *PACK(column)(char *step, int64_t panel_bytes, int64_t j) {
  return (words *)(step + j / TILE_COLS * panel_bytes + j % TILE_COLS * 4);
}

/* A step of columns that are neighbours, all of which are there. */
static inline void PACK(columns_step)(const S *from, int64_t rs, int64_t cols,
                                      int64_t panel_bytes, char *to) {
  for (int64_t g = 0; g < 16; g++, from += E * rs, to += TILE_COLS * 4) {
    char *panel = to;
    for (int64_t j = 0; j < cols; j += TILE_COLS, panel += panel_bytes) {
      UNROLL for (int v = 0; v < TILE_COLS; v += 16) {
        const S *row[E];
        UNROLL for (int e = 0; e < E; e++) row[e] = from + e * rs + j + v;
        *(words *)(panel + v * 4) = PACK(along_lanes)(row);
      }
    }
  }
}

static inline void PACK(columns)(const void *b, int64_t rs, int64_t cs, int64_t depth,
                                 int64_t cols, int64_t panel_bytes, char *to) {
  int64_t all = (cols + TILE_COLS - 1) / TILE_COLS * TILE_COLS;
  int64_t whole = cs == 1 && cols == all ? depth / STEP * STEP : 0;
  const S *from = b;
  for (int64_t t = 0; t < whole; t += STEP)
    PACK(columns_step)(from + t * rs, rs, cols, panel_bytes, to + t * 4 / E * TILE_COLS);
  for (int64_t t = whole; t < depth && cs == 1; t += STEP) {
    char *step = to + t * 4 / E * TILE_COLS;
    for (int64_t g = 0; g < 16; g++, step += TILE_COLS * 4) {
      for (int64_t j = 0; j < cols; j += 16) {
        *PACK(column)(step, panel_bytes, j) =
            PACK(group)(from + (t + g * E) * rs + j, rs, cols - j, depth - t - g * E);
      }
      if (all - cols >= 16) *PACK(column)(step, panel_bytes, all - 16) = (words){0};
    }
  }
  for (int64_t j = 0; j < all && cs != 1; j += 16) {
    for (int64_t t = 0; t < depth; t += STEP) {
      words w[16];
      PACK(lanes)(from + j * cs + t * rs, cs, rs, cols - j, depth - t, w);
      turn(w);
      words *step = PACK(column)(to + t * 4 / E * TILE_COLS, panel_bytes, j);
      for (int g = 0; g < 16; g++) step[g * TILE_COLS / 16] = w[g];
    }
  }
}

#undef STEP
