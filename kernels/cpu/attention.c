/* The table of attention's kernels on one path, and the random numbers of its dropout,
 * which are the same for both types. Read next: attention.h, attention_rows.h. */
#include "attention.h"

#include "cpu.h"
#define NYX_T_INT32
#include "../dialect/vector.h"
#include "philox.h"

extern const nyx_attention_kernel NYX_PATH(attention_float32),
    NYX_PATH(attention_float64);
extern const nyx_attention_kernels NYX_PATH(attention);

#define ROUNDS NYX_KEEP_ROUNDS

typedef int16_t H __attribute__((vector_size(NYX_BYTES)));

/* The even lanes of a, and those of b behind them. */
NYX_FN H both(U a, U b) {
  const M odd = (M)((Q){0} + 0xffffffff00000000u);
  return (H)nyx__select_bits(odd, (T)NYX_SWAPPED(b, 1), (T)a);
}

/* The bits of 64 keys: block n of 8, of 8 numbers each, gives bits 2 n and 2 n + 1 of all
 * four quarters. */
NYX_FN Q kept_pairs(Q block, Q query, const U key[ROUNDS][2], H limit) {
  Q kept = {0};
  for (int n = 0; n < 8; n++) {
    U w[4];
    philox_pairs(ROUNDS, block + (uint64_t)n, query, key, w);
    kept |= (Q)((both(w[0], w[1]) >= limit) & (int16_t)(1 << 2 * n));
    kept |= (Q)((both(w[2], w[3]) >= limit) & (int16_t)(2 << 2 * n));
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
  philox_keys(ROUNDS, seed, key);
  const H limit = (H){0} + (int16_t)(drop - NYX_KEEP_ALL / 2);
  int64_t g = 0, i = 0; /* the next of all */
  for (int64_t t = 0; t < n; t += PAIRS) {
    uint32_t *to[PAIRS];
    Q block = {0}, query = {0};
    int pairs = n - t < PAIRS ? (int)(n - t) : PAIRS;
    for (int l = 0; l < pairs; l++) {
      block[l] = (uint64_t)(group + g) * (NYX_KEEP_KEYS / 8);
      query[l] = (uint64_t)(q + i);
      to[l] = words + 2 * g * queries + i;
      if (++i == queries) i = 0, g++;
    }
    Q kept = kept_pairs(block, query, key, limit);
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
