/* The adjoint of a convolution with respect to its input as a convolution itself: of y by
 * the kernels turned round, inputs and outputs exchanged. With stride 1. */
#ifndef NYX_OP_CONV_TURN_H
#define NYX_OP_CONV_TURN_H

#include "conv.h"

/* Whether there is one: the stride is 1, and its sizes are in range. */
bool nyx__conv_turns(const nyx__conv *v);

/* Its padding may be negative: then the outer rows and columns of y are not read. */
nyx__conv nyx__conv_turned(const nyx__conv *v);

/* Its weight, in memory of its own. */
nyx_status nyx__conv_turn_weight(nyx_context *ctx, const nyx__conv *v, const void *weight,
                                 void **turned) NYX_MUST_CHECK;

#endif
