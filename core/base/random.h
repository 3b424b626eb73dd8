/* Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel
 * random numbers: as easy as 1, 2, 3", 2011). Block b of a seed is a pure function of
 * both, so any thread or device can compute any part of a stream. Read next:
 * core/op/random_fill.c.
 *
 * Which bits give which element of a fill whose first block is `first` (from
 * nyx__random_take):
 *   32-bit numbers   element i = lane i % 4 of block first + i / 4
 *   64-bit numbers   element i = lanes 2 (i % 2) (high half) and 2 (i % 2) + 1 (low half)
 *                    of block first + i / 2
 *   normals          made from pairs of uniforms (Box-Muller) of the same block: elements
 *                    2k (cosine) and 2k + 1 (sine) share what uniforms 2k and 2k + 1 use
 */
#ifndef NYX_BASE_RANDOM_H
#define NYX_BASE_RANDOM_H

#include <stdint.h>

#define NYX_RANDOM_LANES32 4 /* 32-bit numbers per block */
#define NYX_RANDOM_LANES64 2 /* 64-bit numbers per block */

/* Rounds of Philox 4x32 on `counter` with `key`. */
static inline void nyx__philox_rounds(int rounds, const uint32_t counter[4],
                                      const uint32_t key[2], uint32_t out[4]) {
  uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < rounds; round++) {
    uint64_t p = (uint64_t)0xD2511F53u * a, q = (uint64_t)0xCD9E8D57u * c;
    a = (uint32_t)(q >> 32) ^ b ^ k0;
    c = (uint32_t)(p >> 32) ^ d ^ k1;
    b = (uint32_t)q;
    d = (uint32_t)p;
    k0 += 0x9E3779B9u; /* the golden ratio */
    k1 += 0xBB67AE85u; /* the square root of 3, less 1 */
  }
  out[0] = a;
  out[1] = b;
  out[2] = c;
  out[3] = d;
}

/* Ten of them, with which all numbers are made but those of attention's dropout. */
static inline void nyx__philox(const uint32_t counter[4], const uint32_t key[2],
                               uint32_t out[4]) {
  nyx__philox_rounds(10, counter, key, out);
}

/* Block `block` of the stream of `seed`: 4 x 32 bits. */
static inline void nyx__random_block(uint64_t seed, uint64_t block, uint32_t out[4]) {
  uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0, 0};
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  nyx__philox(counter, key, out);
}

/* Blocks that n numbers take, `lanes` of them per block (NYX_RANDOM_LANES*). */
static inline uint64_t nyx__random_blocks(int64_t n, int lanes) {
  return ((uint64_t)n + (uint64_t)lanes - 1) / (uint64_t)lanes;
}

/* Uniform in [0, 1), every multiple of 2^-24 or 2^-53 equally likely. */
static inline float nyx__uniform_float(uint32_t bits) {
  return (float)(bits >> 8) * 0x1p-24f;
}
static inline double nyx__uniform_double(uint32_t high, uint32_t low) {
  return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}

#endif
