/* The table of attention's kernels on one path, and the random numbers of its dropout,
 * which are the same for both types. Read next: attention.h, attention_rows.h. */
#include "attention.h"

#include "cpu.h"
#define NYX_T_INT32
#include "../dialect/vector.h"

extern const nyx_attention_kernel NYX_PATH(attention_float32),
    NYX_PATH(attention_float64);
extern const nyx_attention_kernels NYX_PATH(attention);

#define ROUNDS NYX_KEEP_ROUNDS

typedef uint64_t D __attribute__((vector_size(NYX_BYTES))); /* lanes of 64 bits */
#define PAIRS (NYX_LANES / 2)
typedef int16_t H __attribute__((vector_size(NYX_BYTES)));

/* Philox as in core/base/random.h, on a counter for each pair of lanes. Its words are the
 * even ones, and what is in the others does not matter: products have 64 bits, and their
 * upper half is the even lane of the pair turned around. */

NYX_FN U even_products(U a, U b) {
#if defined(__AVX512F__)
  return (U)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (U)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (U)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (U)(((D)a & 0xffffffff) * ((D)b & 0xffffffff));
#endif
}

NYX_FN void philox_pairs(D counter, D query, const U key[ROUNDS][2], U out[4]) {
  const U left = (U){0} + 0xD2511F53u, right = (U){0} + 0xCD9E8D57u;
  U a = (U)counter, b = NYX_SWAPPED(a, 1), c = (U)query, d = NYX_SWAPPED(c, 1);
  for (int round = 0; round < ROUNDS; round++) {
    U p = even_products(a, left), q = even_products(c, right);
    a = NYX_SWAPPED(q, 1) ^ b ^ key[round][0];
    c = NYX_SWAPPED(p, 1) ^ d ^ key[round][1];
    b = q;
    d = p;
  }
  out[0] = a;
  out[1] = b;
  out[2] = c;
  out[3] = d;
}

/* The even lanes of a, and those of b behind them. */
NYX_FN H both(U a, U b) {
  const M odd = (M)((D){0} + 0xffffffff00000000u);
  return (H)nyx__select_bits(odd, (T)NYX_SWAPPED(b, 1), (T)a);
}

/* The bits of 64 keys: block n of 8, of 8 numbers each, gives bits 2 n and 2 n + 1 of all
 * four quarters. */
NYX_FN D kept_pairs(D block, D query, const U key[ROUNDS][2], H limit) {
  D kept = {0};
  for (int n = 0; n < 8; n++) {
    U w[4];
    philox_pairs(block + (uint64_t)n, query, key, w);
    kept |= (D)((both(w[0], w[1]) >= limit) & (int16_t)(1 << 2 * n));
    kept |= (D)((both(w[2], w[3]) >= limit) & (int16_t)(2 << 2 * n));
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
  for (int64_t t = 0; t < n; t += PAIRS) {
    uint32_t *to[PAIRS];
    D block = {0}, query = {0};
    int pairs = n - t < PAIRS ? (int)(n - t) : PAIRS;
    for (int l = 0; l < pairs; l++) {
      block[l] = (uint64_t)(group + g) * (NYX_KEEP_KEYS / 8);
      query[l] = (uint64_t)(q + i);
      to[l] = words + 2 * g * queries + i;
      if (++i == queries) i = 0, g++;
    }
    D kept = kept_pairs(block, query, key, limit);
    for (int l = 0; l < pairs; l++) {
      to[l][0] = (uint32_t)kept[l];
      to[l][queries] = (uint32_t)(kept[l] >> 32);
    }
  }
}

const nyx_attention_kernels NYX_PATH(attention) = {
    .type = {&NYX_PATH(attention_float32), &NYX_PATH(attention_float64)},
    .keep = keep,
};
