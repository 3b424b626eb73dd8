/* The random numbers of one path. The words are the same on all, normals differ in their
 * last bits. Read next: random.h, philox.h. */
#include "random.h"

#include <string.h>

#include "cpu.h"
#define NYX_T_FLOAT32
#include "../dialect/vector.h"
#include "philox.h"

extern const nyx_random_kernels NYX_PATH(random);

#define ROUNDS 10

#if PAIRS == 8
#define FIRST 0, 8, 1, 9, 2, 10, 3, 11
#define SECOND 4, 12, 5, 13, 6, 14, 7, 15
#define ORDER                                                                            \
  { 0, 1, 2, 3, 4, 5, 6, 7 }
#elif PAIRS == 4
#define FIRST 0, 4, 1, 5
#define SECOND 2, 6, 3, 7
#define ORDER                                                                            \
  { 0, 1, 2, 3 }
#else
#define FIRST 0, 2
#define SECOND 1, 3
#define ORDER                                                                            \
  { 0, 1 }
#endif

static void blocks(uint64_t seed, uint64_t block, int64_t count, uint32_t *out) {
  const Q low = (Q){0} + 0xffffffff;
  U key[ROUNDS][2], w[4];
  philox_keys(ROUNDS, seed, key);
  Q counter = (Q)ORDER + block;
  for (int64_t i = 0; i < count; i += PAIRS, counter += (uint64_t)PAIRS) {
    philox_pairs(ROUNDS, counter, (Q){0}, key, w);
    Q ab = ((Q)w[0] & low) | ((Q)NYX_SWAPPED(w[1], 1) & ~low);
    Q cd = ((Q)w[2] & low) | ((Q)NYX_SWAPPED(w[3], 1) & ~low);
    const Q all[2] = {__builtin_shufflevector(ab, cd, FIRST),
                      __builtin_shufflevector(ab, cd, SECOND)};
    int64_t left = count - i < PAIRS ? count - i : PAIRS;
    memcpy(out + 4 * i, all, (size_t)left * 16);
  }
}

/* A word as a float, rounded once. */
NYX_FN T word(U u) {
#if defined(__AVX512F__)
  return (T)_mm512_cvtepu32_ps((__m512i)u);
#else
  /* Two halves of 16 bits are exact, and so is the upper one's multiple of 2^16. */
  T high = __builtin_convertvector((I)(u >> 16), T);
  return high * K(0x1p16) + __builtin_convertvector((I)(u & 0xffff), T);
#endif
}

#if NYX_LANES == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LEFT 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define RIGHT 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif NYX_LANES == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LEFT 0, 8, 1, 9, 2, 10, 3, 11
#define RIGHT 4, 12, 5, 13, 6, 14, 7, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define LEFT 0, 4, 1, 5
#define RIGHT 2, 6, 3, 7
#endif

/* The radius takes its uniform from (0, 1], so that the logarithm is finite: multiples of
 * 2^-32, the largest normal is 6.7. The angle is a multiple of 2^-24 of a turn: a quarter
 * and, exactly, what is left of it. */
NYX_FN void pairs(U u, U v, T *cosine, T *sine) {
  T radius = nyx_sqrt(K(-2) * nyx_log((word(u) + K(1)) * K(0x1p-32)));
  T turn = __builtin_convertvector((I)(v >> 8), T) * K(0x1p-22);
  T shifted = turn + K(NYX_TO_INT), rest = turn - (shifted - K(NYX_TO_INT));
  T angle = rest * K(NYX_PI_2);
  I quarter = (I)shifted;
  *sine = radius * nyx__sin_quarter(angle, quarter);
  *cosine = radius * nyx__sin_quarter(angle, quarter + KI(1));
}

static void normals(int64_t count, const uint32_t *bits, float *out) {
  for (int64_t i = 0; i < count; i += NYX_LANES) {
    U in[2] = {{0}};
    T to[2], cosine, sine;
    size_t bytes =
        (size_t)(count - i < NYX_LANES ? count - i : NYX_LANES) * 2 * sizeof(float);
    memcpy(in, bits + 2 * i, bytes);
    pairs(__builtin_shufflevector(in[0], in[1], EVEN),
          __builtin_shufflevector(in[0], in[1], ODD), &cosine, &sine);
    to[0] = __builtin_shufflevector(cosine, sine, LEFT);
    to[1] = __builtin_shufflevector(cosine, sine, RIGHT);
    memcpy(out + 2 * i, to, bytes);
  }
}

const nyx_random_kernels NYX_PATH(random) = {.blocks = blocks, .normals = normals};
