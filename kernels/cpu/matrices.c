/* Small matrices in lanes and right-hand sides by triangles; matrices_type.h and
 * triangle_type.h have the algorithms, written once over a vector type. Compiled once per
 * instruction-set path. */
#include "matrices.h"

#include <math.h>

#include "vector_bytes.h"

#define TYPED_SOURCE "matrices_type.h"
#include "both_floats.h"

extern const nyx_matrices_kernels NYX_PATH(matrices);
const nyx_matrices_kernels NYX_PATH(matrices) = {
    .lanes = {VECTOR_BYTES / (int)sizeof(float), VECTOR_BYTES / (int)sizeof(double)},
    .lu = {lu_f32, lu_f64},
    .cholesky = {cholesky_f32, cholesky_f64},
    .solve = {solve_f32, solve_f64},
    .triangle = {solve_sides_f32, solve_sides_f64},
};
