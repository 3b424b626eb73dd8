/* Philox as in core/base/random.h, on vectors: a counter for each pair of lanes. Include
 * after dialect/vector.h with integers of 32 bits. Read next: random.c, attention.c. */
#ifndef NYX_KERNELS_CPU_PHILOX_H
#define NYX_KERNELS_CPU_PHILOX_H

typedef uint64_t Q __attribute__((vector_size(NYX_BYTES))); /* lanes of 64 bits */
#define PAIRS (NYX_LANES / 2)

NYX_FN U even_products(U a, U b) {
#if defined(__AVX512F__)
  return (U)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (U)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (U)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (U)(((Q)a & 0xffffffff) * ((Q)b & 0xffffffff));
#endif
}

/* The keys of so many rounds. */
NYX_FN void philox_keys(int rounds, uint64_t seed, U key[][2]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < rounds; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    key[round][0] = (U){0} + k0;
    key[round][1] = (U){0} + k1;
  }
}

/* The words are the even ones, and what is in the others does not matter: products have
 * 64 bits, and their upper half is the even lane of the pair turned around. `counter` is
 * the first two words of the counter, `query` the others. */
NYX_FN void philox_pairs(int rounds, Q counter, Q query, const U key[][2], U out[4]) {
  const U left = (U){0} + 0xD2511F53u, right = (U){0} + 0xCD9E8D57u;
  U a = (U)counter, b = NYX_SWAPPED(a, 1), c = (U)query, d = NYX_SWAPPED(c, 1);
  for (int round = 0; round < rounds; round++) {
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

#endif
