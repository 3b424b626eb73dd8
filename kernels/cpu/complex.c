/* Products of complex numbers; the loops are left to the compiler. Compiled once per
 * instruction-set path. */
#include "complex.h"

#include "vector_bytes.h"

#define TYPED_SOURCE "complex_type.h"
#include "both_floats.h"

extern const nyx_complex_kernels NYX_PATH(complex);
const nyx_complex_kernels NYX_PATH(complex) = {
    .multiply = {multiply_f32, multiply_f64},
};
