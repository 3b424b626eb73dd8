/* Products and quotients of complex numbers; the loops of complex_type.h are left to the
 * compiler. Compiled once per instruction-set path. */
#include "complex.h"

#include <math.h>
#include <string.h>

#include "vector_bytes.h"

#define SIDE_BY_SIDE 32 /* products that are merged at the end */

#define TYPED_SOURCE "complex_type.h"
#include "both_floats.h"

#define TYPED_SOURCE "spectrum_type.h"
#include "both_floats.h"

extern const nyx_complex_kernels NYX_PATH(complex);
const nyx_complex_kernels NYX_PATH(complex) = {
    .multiply = {multiply_f32, multiply_f64},
    .divide = {divide_f32, divide_f64},
    .prod = {prod_f32, prod_f64},
    .matrix = {matrix_f32, matrix_f64},
    .lanes = {VECTOR_BYTES / (int)sizeof(float), VECTOR_BYTES / (int)sizeof(double)},
    .spread = {spread_f32, spread_f64},
    .gather = {gather_f32, gather_f64},
    .take = {take_f32, take_f64},
    .products = {products_f32, products_f64},
};
