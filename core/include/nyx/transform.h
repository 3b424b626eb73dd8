/* Transforms of functions of tensors: forward-mode differentiation, the complex step, and
 * vectorisation over a batch. A transform opens a level, lifts tensors to it, runs the
 * function (any code that applies ops), takes the results off the level and closes it.
 * Levels nest, and with nyx_gradients in any order. */
#ifndef NYX_TRANSFORM_H
#define NYX_TRANSFORM_H

#include "grad.h"

/* Names a level of a context; later ones are greater. 0 is none. */
typedef int64_t nyx_level;

/* Opens a level: for duals, complex numbers, or batches of `size` entries. At most 16 are
 * open. Close them in the opposite order; what is still lifted then cannot be used. */
NYX_API NYX_MUST_CHECK nyx_status nyx_dual_begin(nyx_context *ctx, nyx_level *level);
NYX_API NYX_MUST_CHECK nyx_status nyx_complex_begin(nyx_context *ctx, nyx_level *level);
NYX_API NYX_MUST_CHECK nyx_status nyx_batch_begin(nyx_context *ctx, int64_t size,
                                                  nyx_level *level);
NYX_API void nyx_transform_end(nyx_context *ctx, nyx_level level);

/* What random ops draw while a batch is open: nothing, they fail (what a batch begins
 * with); numbers of its own for every entry; or the same for all entries. */
typedef enum nyx_randomness {
  NYX_RANDOMNESS_ERROR,
  NYX_RANDOMNESS_DIFFERENT,
  NYX_RANDOMNESS_SAME
} nyx_randomness;
NYX_API NYX_MUST_CHECK nyx_status nyx_batch_randomness(nyx_context *ctx, nyx_level level,
                                                       nyx_randomness randomness);

/* A dual of value and tangent (of the same shape, dtype and device). */
NYX_API NYX_MUST_CHECK nyx_status nyx_dual_lift(nyx_context *ctx, nyx_level level,
                                                nyx_tensor *value, nyx_tensor *tangent,
                                                nyx_tensor **out);
/* The parts of t; *tangent NULL: zero. */
NYX_API NYX_MUST_CHECK nyx_status nyx_dual_lower(nyx_context *ctx, nyx_level level,
                                                 nyx_tensor *t, nyx_tensor **value,
                                                 nyx_tensor **tangent);
/* The number real + i imaginary, of one shape, both float64. With imaginary = h v and h
 * so small (1e-20) that its square vanishes beside 1, the imaginary part of f's result is
 * h times the derivative of f along v, to the last digits and found without any gradient:
 * elementwise rows compute the text of their value with complex numbers, linear ops and
 * products are applied to both parts. Real parts are what ops give without the level;
 * they alone decide comparisons. Other ops, reading elements, and gradients fail. */
NYX_API NYX_MUST_CHECK nyx_status nyx_complex_lift(nyx_context *ctx, nyx_level level,
                                                   nyx_tensor *real,
                                                   nyx_tensor *imaginary,
                                                   nyx_tensor **out);
/* The parts of t; *imaginary NULL: zero. */
NYX_API NYX_MUST_CHECK nyx_status nyx_complex_lower(nyx_context *ctx, nyx_level level,
                                                    nyx_tensor *t, nyx_tensor **real,
                                                    nyx_tensor **imaginary);
/* The entries of t along dimension `dim` (of the size of the level), one by one. */
NYX_API NYX_MUST_CHECK nyx_status nyx_batch_lift(nyx_context *ctx, nyx_level level,
                                                 nyx_tensor *t, int64_t dim,
                                                 nyx_tensor **out);
/* All entries of t, as dimension `dim` of *out; what is the same for all is repeated. */
NYX_API NYX_MUST_CHECK nyx_status nyx_batch_lower(nyx_context *ctx, nyx_level level,
                                                  nyx_tensor *t, int64_t dim,
                                                  nyx_tensor **out);

/* t as a variable to differentiate by: the same values, with a history of its own that
 * ends in t; in every open batch, so that each entry has its own gradient. */
NYX_API NYX_MUST_CHECK nyx_status nyx_transform_variable(nyx_context *ctx, nyx_tensor *t,
                                                         nyx_tensor **out);
/* t without the history it has through `variables` (from nyx_transform_variable): as it
 * is where it also depends on other variables, otherwise its values (and tangents) alone.
 */
NYX_API NYX_MUST_CHECK nyx_status nyx_transform_result(nyx_context *ctx, nyx_tensor *t,
                                                       nyx_tensor *const *variables,
                                                       int n, nyx_tensor **out);
/* Whether ops are recorded, as nyx_context_set_grad_enabled, but in inference mode too:
 * for the function that is differentiated. */
NYX_API void nyx_transform_set_recording(nyx_context *ctx, bool on);
/* How many levels are open. */
NYX_API int nyx_transform_depth(const nyx_context *ctx);
/* Whether t is lifted to a level, and to this one. */
NYX_API bool nyx_tensor_is_lifted(const nyx_tensor *t);
NYX_API bool nyx_tensor_has_level(const nyx_tensor *t, nyx_level level);

#endif
