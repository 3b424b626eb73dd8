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

#define CHUNK 64 /* rows or columns packed together: a cache line of bytes */

/* 16 bytes as words; gcc 12 does it one by one for __builtin_convertvector. */
static inline words widened(const uint8_t *from) {
#if defined(__AVX512F__)
  return (words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
  __m256i half[2];
  half[0] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from));
  half[1] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(from + 8)));
  words out;
  memcpy(&out, half, sizeof out);
  return out;
#else
  uint32_t word[16];
  words out;
  for (int i = 0; i < 16; i++) word[i] = from[i];
  memcpy(&out, word, sizeof out);
  return out;
#endif
}

/* Word i of lane j becomes word j of lane i. */
static inline void turn(words w[16]) {
#if defined(__AVX512F__) && !defined(__clang__)
  UNROLL for (uint32_t step = 1; step < 16; step *= 2) {
    words low = {0}, high = {0}; /* lanes of a below 16, then lanes of b */
    UNROLL for (uint32_t l = 0; l < 16; l++) {
      low[l] = l & step ? 16 + l - step : l;
      high[l] = l & step ? 16 + l : l + step;
    }
    UNROLL for (uint32_t i = 0; i < 16; i++) {
      if (i & step) continue;
      words a = w[i], b = w[i + step];
      w[i] = __builtin_shuffle(a, b, low);
      w[i + step] = __builtin_shuffle(a, b, high);
    }
  }
#else
  uint32_t from[16][16], to[16][16];
  memcpy(from, w, sizeof from);
  for (int i = 0; i < 16; i++) {
    for (int j = 0; j < 16; j++) to[i][j] = from[j][i];
  }
  memcpy(w, to, sizeof to);
#endif
}
#endif

#define STEP (16 * E) /* terms */
#define PART (32 / E) /* bits of a term */
#define MASK ((1u << PART) - 1)

typedef S PACK(line) __attribute__((vector_size(16 * sizeof(S)), aligned(1), may_alias));
typedef int32_t PACK(signed_words) __attribute__((vector_size(64)));

/* The next step's words of one lane, whose terms are neighbours. */
static inline words PACK(along_terms)(const S *from) {
#if WIDEN
  typedef S narrow __attribute__((vector_size(32), aligned(1), may_alias));
  typedef int16_t wide __attribute__((vector_size(64)));
  return (words) __builtin_convertvector(*(const narrow *)from, wide);
#else
  return *(const words_anywhere *)from;
#endif
}

/* A group of 16 lanes that are neighbours. */
static inline words PACK(along_lanes)(const S *from, int64_t stride) {
  words out = {0};
  UNROLL for (int e = 0; e < E; e++) {
    words term = sizeof(S) == 1
                     ? widened((const uint8_t *)from + e * stride)
                     : (words) __builtin_convertvector(
                           *(const PACK(line) *)(from + e * stride), PACK(signed_words));
    if (WIDEN && (S)-1 < 0) term = ((term ^ 0x80) - 0x80) & MASK;
    out |= term << (uint32_t)(PART * e);
  }
  return out;
}

/* The same as along_terms from any strides; terms that are missing are zero. */
static inline words PACK(lane)(const S *from, int64_t stride, int64_t terms) {
  S near[STEP];
  if (stride == 1 && terms >= STEP) return PACK(along_terms)(from);
  memset(near, 0, sizeof near);
  for (int64_t t = 0; t < STEP && t < terms; t++) near[t] = from[t * stride];
  return PACK(along_terms)(near);
}

/* A step of up to CHUNK lanes, 16 at a time by lane or else by group: read along memory,
 * then turned. Along lanes whole cache lines are read while they are near. */
static inline void PACK(chunk)(const S *from, int64_t lane, int64_t term, int64_t lanes,
                               int64_t terms, bool by_lane, words w[CHUNK]) {
  int64_t done = 0;
  if (lane == 1 && terms >= STEP) {
    done = lanes / 16 * 16;
    for (int g = 0; g < 16; g++) {
      for (int64_t l = 0; l < done; l += 16) {
        w[l + g] = PACK(along_lanes)(from + l + g * E * term, term);
      }
    }
    for (int64_t l = 0; l < done && by_lane; l += 16) turn(w + l);
  }
  for (int64_t l = done; l < lanes; l++) w[l] = PACK(lane)(from + l * lane, term, terms);
  for (int64_t l = done; l < lanes && !by_lane; l += 16) {
    for (int64_t rest = lanes; rest < l + 16; rest++) w[rest] = (words){0};
    turn(w + l);
  }
}

/* Panels of A. `flip` is what every word is changed by: signed bytes become unsigned. */
static inline void PACK(rows)(const void *a, int64_t rs, int64_t cs, int64_t rows,
                              int64_t depth, uint32_t flip, char *to) {
  int64_t row_bytes = (depth + STEP - 1) / STEP * 64;
  for (int64_t i = 0; i < rows; i += CHUNK) {
    for (int64_t t = 0; t < depth; t += STEP) {
      words w[CHUNK];
      int64_t lanes = rows - i < CHUNK ? rows - i : CHUNK;
      PACK(chunk)((const S *)a + i * rs + t * cs, rs, cs, lanes, depth - t, true, w);
      for (int64_t l = 0; l < lanes; l++) {
        int64_t panel = (i + l) / TILE_ROWS, row = (i + l) % TILE_ROWS;
        words *place = (words *)(to + panel * TILE_ROWS * row_bytes) + row;
        place[t / STEP * TILE_ROWS] = w[l] ^ flip;
      }
    }
  }
}

/* Panels of B, panel_bytes apart. */
static inline void PACK(columns)(const void *b, int64_t rs, int64_t cs, int64_t depth,
                                 int64_t cols, int64_t panel_bytes, char *to) {
  for (int64_t j = 0; j < cols; j += CHUNK) {
    for (int64_t t = 0; t < depth; t += STEP) {
      words w[CHUNK];
      int64_t lanes = cols - j < CHUNK ? cols - j : CHUNK;
      PACK(chunk)((const S *)b + j * cs + t * rs, cs, rs, lanes, depth - t, false, w);
      for (int64_t l = 0; l < (lanes + TILE_COLS - 1) / TILE_COLS * TILE_COLS; l += 16) {
        int64_t panel = (j + l) / TILE_COLS, col = (j + l) % TILE_COLS;
        char *place = to + panel * panel_bytes + t / STEP * (64 * TILE_COLS) + col * 4;
        for (int g = 0; g < 16; g++) {
          words group = l < lanes ? w[l + g] : (words){0};
          memcpy(place + g * TILE_COLS * 4, &group, 64);
        }
      }
    }
  }
}

#undef STEP
#undef PART
#undef MASK
