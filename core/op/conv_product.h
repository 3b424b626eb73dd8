/* Dense convolutions as products with a column matrix that is never stored. Read next:
 * conv_product.c. */
#ifndef NYX_OP_CONV_PRODUCT_H
#define NYX_OP_CONV_PRODUCT_H

#include "conv.h"

/* Whether it is worth it, and its scratch is bounded: at most about 17 MiB per thread,
 * usually less than one, and where few columns are shared 1 KiB for each term. */
bool nyx__conv_product_takes(const nyx__conv *v);
/* Whether it reads columns rather than packing them, which few output channels pay. */
bool nyx__conv_product_reads_columns(const nyx__conv *v);
/* Whether it is with all columns in a tile, so that a weight beyond the second cache is
 * read once, where it lies. */
bool nyx__conv_product_reads_once(const nyx__conv *v);

/* y = x * weight + bias; bias may be NULL. As in conv.h, but padding may be negative:
 * then the outer rows and columns of x are not read. Packs the weight once, in memory of
 * its own. There are images and channels. */
nyx_status nyx__conv_product(nyx_context *ctx, const nyx__conv *v, const void *x,
                             const void *weight, const void *bias,
                             void *y) NYX_MUST_CHECK;

/* The same for the adjoint with respect to x, which `t` is as a convolution
 * (conv_turn.h). */
bool nyx__conv_product_takes_turned(const nyx__conv *t);
/* Whether with the weight where it lies, not turned. */
bool nyx__conv_product_reads_turned(const nyx__conv *t);
nyx_status nyx__conv_product_turned(nyx_context *ctx, const nyx__conv *t, const void *y,
                                    const void *weight, void *x) NYX_MUST_CHECK;

/* The adjoint with respect to x of one small image, with stride 2: conv_phases.c. Where
 * the weight is beyond the second cache, which is read once. Scratch: 1 KiB and a half
 * for each term, and for each row of a unit 4 KiB. */
bool nyx__conv_phases_takes(const nyx__conv *v);
nyx_status nyx__conv_phases(nyx_context *ctx, const nyx__conv *v, const void *y,
                            const void *weight, void *x) NYX_MUST_CHECK;

/* In how many segments a sum of blocks is divided that `wanted` would make short enough,
 * of `units` units of work each: fewer if these are as short, one more where two threads
 * would not have as many units. */
int64_t nyx__conv_segments(int64_t blocks, int64_t wanted, int64_t units);

/* The adjoint with respect to the weight; at most 64 MiB of partial sums. */
bool nyx__conv_product_takes_weight(const nyx__conv *v);
nyx_status nyx__conv_product_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                    const void *x, void *weight) NYX_MUST_CHECK;

#endif
