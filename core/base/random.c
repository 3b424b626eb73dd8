/* Fills of random numbers, and uniform bits turned into normals. The order of elements is
 * documented in random.h and must never depend on how a fill is split. */
#include "random.h"

#include <math.h>
#include <string.h>

/* Box and Muller, 1958. The radius takes its uniform from (0, 1], so that the logarithm
 * is finite: multiples of 2^-32 (2^-53), the largest normal is 6.7 (8.6). */
void nyx__normal_float(uint32_t u, uint32_t v, float out[2]) {
  float radius = sqrtf(-2.0f * logf(((float)u + 1.0f) * 0x1p-32f));
  float angle = 6.28318530717958647692f * nyx__uniform_float(v);
  out[0] = radius * cosf(angle);
  out[1] = radius * sinf(angle);
}

void nyx__normal_double(uint64_t u, uint64_t v, double out[2]) {
  double radius = sqrt(-2.0 * log((double)((u >> 11) + 1) * 0x1p-53));
  double angle = 6.28318530717958647692 * ((double)(v >> 11) * 0x1p-53);
  out[0] = radius * cos(angle);
  out[1] = radius * sin(angle);
}

typedef struct block {
  union {
    uint32_t bits[4];
    float f[4];
    double d[2];
  };
} block;

typedef void (*shape_fn)(uint32_t bits[4], block *out);

/* Elements begin..end-1, `lanes` to a block of 16 bytes, shaped by `shape`. */
static inline void fill(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                        int lanes, shape_fn shape, char *out) {
  size_t item = sizeof(block) / (size_t)lanes;
  for (int64_t i = begin; i < end;) {
    uint32_t bits[4];
    block b;
    nyx__random_block(seed, first + (uint64_t)(i / lanes), bits);
    shape(bits, &b);
    int lane = (int)(i % lanes);
    if (lane == 0 && end - i >= lanes) {
      memcpy(out, &b, sizeof b);
      out += sizeof b;
      i += lanes;
      continue;
    }
    for (; lane < lanes && i < end; lane++, i++, out += item)
      memcpy(out, (const char *)&b + (size_t)lane * item, item);
  }
}

static inline void shape_bits(uint32_t bits[4], block *out) {
  for (int k = 0; k < 4; k++) out->bits[k] = bits[k];
}

static inline void shape_uniform_float(uint32_t bits[4], block *out) {
  for (int k = 0; k < 4; k++) out->f[k] = nyx__uniform_float(bits[k]);
}

static inline void shape_uniform_double(uint32_t bits[4], block *out) {
  for (int k = 0; k < 2; k++)
    out->d[k] = nyx__uniform_double(bits[2 * k], bits[2 * k + 1]);
}

static inline void shape_normal_float(uint32_t bits[4], block *out) {
  nyx__normal_float(bits[0], bits[1], out->f);
  nyx__normal_float(bits[2], bits[3], out->f + 2);
}

static inline void shape_normal_double(uint32_t bits[4], block *out) {
  nyx__normal_double((uint64_t)bits[0] << 32 | bits[1], (uint64_t)bits[2] << 32 | bits[3],
                     out->d);
}

void nyx__fill_bits(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                    uint32_t *out) {
  fill(seed, first, begin, end, 4, shape_bits, (char *)out);
}

void nyx__fill_uniform_float(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                             float *out) {
  fill(seed, first, begin, end, 4, shape_uniform_float, (char *)out);
}

void nyx__fill_uniform_double(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                              double *out) {
  fill(seed, first, begin, end, 2, shape_uniform_double, (char *)out);
}

void nyx__fill_normal_float(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                            float *out) {
  fill(seed, first, begin, end, 4, shape_normal_float, (char *)out);
}

void nyx__fill_normal_double(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                             double *out) {
  fill(seed, first, begin, end, 2, shape_normal_double, (char *)out);
}
