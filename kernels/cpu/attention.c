/* The table of attention's kernels on one path, and the random numbers of its dropout,
 * which are the same for both types. Read next: attention.h, attention_rows.h. */
#include "attention.h"

#include "cpu.h"
#define NYX_T_INT64
#include "../dialect/vector.h"

extern const nyx_attention_kernel NYX_PATH(attention_float32),
    NYX_PATH(attention_float64);
extern const nyx_attention_kernels NYX_PATH(attention);

#define ROUNDS 10
#define LOW ((uint64_t)0xffffffff)

/* Products of the lower halves of lanes. */
NYX_FN U halves_product(U a, U b) {
#if defined(__AVX512F__)
  return (U)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (U)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (U)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & LOW) * (b & LOW);
#endif
}

/* Philox as in core/base/random.h, on a counter for each lane: its words are the lower
 * halves of lanes, and what is above them does not matter. */
NYX_FN void philox_lanes(U counter, U query, const U key[ROUNDS][2], U out[4]) {
  const U left = (U){0} + 0xD2511F53u, right = (U){0} + 0xCD9E8D57u;
  U a = counter, b = counter >> 32, c = query, d = query >> 32;
  for (int round = 0; round < ROUNDS; round++) {
    U p = halves_product(a, left), q = halves_product(c, right);
    a = (q >> 32) ^ b ^ key[round][0];
    c = (p >> 32) ^ d ^ key[round][1];
    b = q;
    d = p;
  }
  out[0] = a;
  out[1] = b;
  out[2] = c;
  out[3] = d;
}

typedef int16_t H __attribute__((vector_size(NYX_BYTES)));

/* The bits of 64 keys: block n of 8, of 8 numbers each, gives bits 2 n and 2 n + 1 of all
 * four quarters. */
NYX_FN U kept_lanes(U block, U query, const U key[ROUNDS][2], H limit) {
  U kept = {0};
  for (int n = 0; n < 8; n++) {
    U w[4];
    philox_lanes(block + (uint64_t)n, query, key, w);
    H first = (H)((w[0] & LOW) | w[1] << 32), second = (H)((w[2] & LOW) | w[3] << 32);
    kept |= (U)((first >= limit) & (int16_t)(1 << 2 * n));
    kept |= (U)((second >= limit) & (int16_t)(2 << 2 * n));
  }
  return kept;
}

static void keep(uint64_t seed, int64_t drop, int64_t q, int64_t queries, int64_t group,
                 int64_t groups, uint32_t *words) {
  int64_t n = queries * groups;
  if (drop >= NYX_KEEP_ALL) {
    memset(words, 0, (size_t)(2 * n) * sizeof *words);
    return;
  }
  U key[ROUNDS][2];
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < ROUNDS; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    key[round][0] = (U){0} + k0;
    key[round][1] = (U){0} + k1;
  }
  const H limit = (H){0} + (int16_t)(drop - NYX_KEEP_ALL / 2);
  int64_t g = 0, i = 0; /* the next of all */
  for (int64_t t = 0; t < n; t += NYX_LANES) {
    uint32_t *to[NYX_LANES];
    U block = {0}, query = {0};
    int lanes = n - t < NYX_LANES ? (int)(n - t) : NYX_LANES;
    for (int l = 0; l < lanes; l++) {
      block[l] = (uint64_t)(group + g) * (NYX_KEEP_KEYS / 8);
      query[l] = (uint64_t)(q + i);
      to[l] = words + 2 * g * queries + i;
      if (++i == queries) i = 0, g++;
    }
    U kept = kept_lanes(block, query, key, limit);
    for (int l = 0; l < lanes; l++) {
      to[l][0] = (uint32_t)kept[l];
      to[l][queries] = (uint32_t)(kept[l] >> 32);
    }
  }
}

const nyx_attention_kernels NYX_PATH(attention) = {
    .type = {&NYX_PATH(attention_float32), &NYX_PATH(attention_float64)},
    .keep = keep,
};
