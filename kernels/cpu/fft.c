/* Fourier transforms of lines; fft_type.h has the algorithm, written once over a vector
 * type. Compiled once per instruction-set path. */
#include "fft.h"

#include <string.h>

#include "vector_bytes.h"

#define TYPED_SOURCE "fft_type.h"
#include "both_floats.h"

extern const nyx_fft_kernels NYX_PATH(fft);
const nyx_fft_kernels NYX_PATH(fft) = {
    .lanes = {VECTOR_BYTES / (int)sizeof(float), VECTOR_BYTES / (int)sizeof(double)},
    .lines = {lines_f32, lines_f64},
    .halves = {halves_f32, halves_f64},
};
