/* Fills of random numbers, a piece at a time. The order of elements is documented in
 * core/base/random.h and must never depend on how a fill is split. Read next:
 * kernels/cpu/random.c. */
#include "random_fill.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/random.h"

enum { BLOCKS = 128 }; /* made at a time */

/* The words of elements *i..end-1 of a fill, or of the first of them; how many elements,
 * whose words begin at bits[*skip]. */
static int64_t piece(uint64_t seed, uint64_t first, int64_t i, int64_t end, int lanes,
                     uint32_t *bits, int64_t *skip) {
  int64_t block = i / lanes, blocks = (end - 1) / lanes + 1 - block;
  if (blocks > BLOCKS) blocks = BLOCKS;
  nyx__cpu_kernels()->random->blocks(seed, first + (uint64_t)block, blocks, bits);
  *skip = (i - block * lanes) * (4 / lanes);
  int64_t last = (block + blocks) * lanes;
  return (last < end ? last : end) - i;
}

/* Runs `one` for pieces of n elements, whose words are w[0], w[1], ... */
#define EACH_PIECE(lanes, one)                                                           \
  uint32_t bits[4 * BLOCKS];                                                             \
  for (int64_t i = begin, n, skip; i < end; i += n, out += n) {                          \
    n = piece(seed, first, i, end, lanes, bits, &skip);                                  \
    const uint32_t *w = bits + skip;                                                     \
    one;                                                                                 \
  }

void nyx__fill_bits(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                    uint32_t *out) {
  EACH_PIECE(4, memcpy(out, w, (size_t)n * sizeof *out))
}

void nyx__fill_bits64(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                      uint64_t *out) {
  EACH_PIECE(
      2, for (int64_t k = 0; k < n; k++) out[k] = (uint64_t)w[2 * k] << 32 | w[2 * k + 1])
}

void nyx__fill_uniform_float(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                             float *out) {
  EACH_PIECE(4, for (int64_t k = 0; k < n; k++) out[k] = nyx__uniform_float(w[k]))
}

void nyx__fill_uniform_double(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                              double *out) {
  EACH_PIECE(2, for (int64_t k = 0; k < n; k++) out[k] =
                    nyx__uniform_double(w[2 * k], w[2 * k + 1]))
}

void nyx__fill_normal_float(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                            float *out) {
  float normal[4 * BLOCKS]; /* an odd first element is the second of a pair */
  EACH_PIECE(4, {
    int64_t odd = skip % 2;
    nyx__cpu_kernels()->random->normals((n + odd + 1) / 2, w - odd, normal);
    memcpy(out, normal + odd, (size_t)n * sizeof *out);
  })
}

/* Box and Muller as in kernels/cpu/random.c, from multiples of 2^-53; the largest normal
 * is 8.6. */
static void normals(int64_t pairs, const uint32_t *w, double *out) {
  for (int64_t i = 0; i < pairs; i++, w += 4, out += 2) {
    uint64_t u = (uint64_t)w[0] << 32 | w[1], v = (uint64_t)w[2] << 32 | w[3];
    double radius = sqrt(-2.0 * log((double)((u >> 11) + 1) * 0x1p-53));
    double angle = 6.28318530717958647692 * ((double)(v >> 11) * 0x1p-53);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
  }
}

void nyx__fill_normal_double(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                             double *out) {
  double normal[2 * BLOCKS];
  EACH_PIECE(2, {
    int64_t odd = skip / 2;
    normals((n + odd + 1) / 2, w - skip, normal);
    memcpy(out, normal + odd, (size_t)n * sizeof *out);
  })
}
