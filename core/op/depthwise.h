/* Convolutions of every channel with kernels of its own. Read next: depthwise.c. */
#ifndef NYX_OP_DEPTHWISE_H
#define NYX_OP_DEPTHWISE_H

#include "../../kernels/cpu/depthwise.h"
#include "conv.h"

/* Whether the functions below compute it: one input channel and few output channels in
 * each group, and rows that fit the scratch. */
bool nyx__depthwise_takes(const nyx__conv *v, nyx_depthwise_mode mode);

/* Cycles of one thread that they take, about; of what they do not compute, another way.
 */
double nyx__depthwise_cycles(const nyx__conv *v, nyx_depthwise_mode mode);

/* As in conv.h. There are images and channels. */
nyx_status nyx__depthwise_forward(nyx_context *ctx, const nyx__conv *v, const void *x,
                                  const void *weight, const void *bias,
                                  void *y) NYX_MUST_CHECK;
nyx_status nyx__depthwise_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                                const void *weight, void *x) NYX_MUST_CHECK;
nyx_status nyx__depthwise_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                 const void *x, void *weight) NYX_MUST_CHECK;

#endif
