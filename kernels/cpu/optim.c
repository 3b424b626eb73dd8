/* The optimisers' update loops: one pass over a parameter, its gradient and its state.
 * Compiled once per instruction-set path. Formulas: optim_loops.h. */
#include "optim.h"

#include <math.h>

#define T float
#define SQRT sqrtf
#define NAME(name) name##_float
#include "optim_loops.h"
#undef T
#undef SQRT
#undef NAME

#define T double
#define SQRT sqrt
#define NAME(name) name##_double
#include "optim_loops.h"

const nyx_optim_kernels NYX_PATH(optim) = {
    .sgd = {sgd_float, sgd_double},
    .adam = {adam_float, adam_double},
    .rmsprop = {rmsprop_float, rmsprop_double},
};
