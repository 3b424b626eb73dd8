/* Complex tensors: what apply.c and copy.c ask of complex.c. */
#ifndef NYX_OP_COMPLEX_H
#define NYX_OP_COMPLEX_H

#include "steps.h"

/* Whether a built-in op without a kernel for complex numbers has a meaning for them, and
 * it: c->dtype is what all inputs have in common. target NULL: a new tensor. */
bool nyx__complex_op(const nyx_op *op);
nyx_status nyx__apply_complex(nyx_call *c, nyx_tensor *target) NYX_MUST_CHECK;

/* The product of matrices of which y is complex, by pairs, and whether it can be had so.
 * `dtype` is theirs in common; id matmul or bmm. */
bool nyx__complex_product(const nyx_tensor *x, const nyx_tensor *y);
nyx_status nyx__complex_matmul(nyx__steps *s, nyx__op_id id, nyx_tensor *x, nyx_tensor *y,
                               nyx_dtype dtype, nyx_tensor **out) NYX_MUST_CHECK;

/* The geometry of z as pairs of floats in one more dimension. */
void nyx__pairs_spec(const nyx_tensor *z, nyx_spec *spec);
/* Writes parts, broadcast and converted, into z; imag NULL: zeros. Not recorded. */
nyx_status nyx__complex_join(nyx_context *ctx, nyx_tensor *real, nyx_tensor *imag,
                             nyx_tensor *z) NYX_MUST_CHECK;

#endif
