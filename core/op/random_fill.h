/* Fills of random numbers; core/base/random.h says which bits give which element. Read
 * next: random_fill.c. */
#ifndef NYX_OP_RANDOM_FILL_H
#define NYX_OP_RANDOM_FILL_H

#include "../base/random.h"

/* Elements begin..end-1 of a fill, to out[0..end-begin-1]: bodies of nyx_parallel_for. */
void nyx__fill_bits(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                    uint32_t *out);
void nyx__fill_uniform_float(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                             float *out);
void nyx__fill_uniform_double(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                              double *out);
void nyx__fill_normal_float(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                            float *out);
void nyx__fill_normal_double(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                             double *out);

/* Numbers of 64 bits. */
void nyx__fill_bits64(uint64_t seed, uint64_t first, int64_t begin, int64_t end,
                      uint64_t *out);

#endif
