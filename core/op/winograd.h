/* Convolutions by 3 x 3 kernels with a quarter of the multiplications, or with two
 * thirds of them where the stride is 2. Read next: winograd.c,
 * docs/decisions/012-winograd.md. */
#ifndef NYX_OP_WINOGRAD_H
#define NYX_OP_WINOGRAD_H

#include "conv.h"

/* Whether it is a convolution of that kind, and faster this way, by sizes. Scratch: 256
 * MiB at most for the weight; 8 MiB, or 9 KiB for an input channel; 1 MiB per thread, or
 * 5 KiB for an input channel. */
bool nyx__winograd_takes(const nyx__conv *v);

/* y = x * weight + bias as in conv.h; padding may be negative, as in conv_product.h. */
nyx_status nyx__winograd(nyx_context *ctx, const nyx__conv *v, const void *x,
                         const void *weight, const void *bias, void *y) NYX_MUST_CHECK;

/* The same in two steps: the weight, transformed and packed, depends on v's channels,
 * groups, stride and dtype only. `bytes` of memory at `to`; without memory for scratch it
 * fails. */
size_t nyx__winograd_weight_bytes(const nyx__conv *v);
nyx_status nyx__winograd_weight(nyx_context *ctx, const nyx__conv *v, const void *weight,
                                void *to) NYX_MUST_CHECK;
/* NULL for the transformed weight: units of work transform what they need, which is
 * faster where few tiles use it; up to four tiles always do. `weight` is read where
 * results are not finite: those images are computed again by nyx__conv_product, so that
 * an infinity reaches what its element reaches, no others. */
nyx_status nyx__winograd_run(nyx_context *ctx, const nyx__conv *v, const void *x,
                             const void *transformed, const void *weight,
                             const void *bias, void *y) NYX_MUST_CHECK;

/* The adjoint with respect to the input; with stride 2 the padding is 1. The same
 * scratch. */
bool nyx__winograd_takes_input(const nyx__conv *v);
nyx_status nyx__winograd_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                               const void *weight, void *x) NYX_MUST_CHECK;

/* The adjoint with respect to the weight, from y and x, in the same way:
 * winograd_weight.c. Scratch: 64 MiB of partial sums and 24 MiB of transforms (stride 2:
 * 40) at most, 4 MiB per thread. */
bool nyx__winograd_takes_adjoint(const nyx__conv *v);
nyx_status nyx__winograd_adjoint(nyx_context *ctx, const nyx__conv *v, const void *y,
                                 const void *x, void *weight) NYX_MUST_CHECK;

#endif
