/* The optimisers' update loops: one pass over a parameter, its gradient and its state.
 * Compiled once per instruction-set path. Formulas: optim_type.h. */
#include "optim.h"

#include <tgmath.h>

#define TYPED_SOURCE "optim_type.h"
#include "both_floats.h"

const nyx_optim_kernels NYX_PATH(optim) = {
    .sgd = {sgd_f32, sgd_f64},
    .adam = {adam_f32, adam_f64},
    .rmsprop = {rmsprop_f32, rmsprop_f64},
};
