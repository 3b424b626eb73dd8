/* Convolutions of channels-last images. Read next: conv_last.c, depthwise_last.c. */
#ifndef NYX_OP_CONV_LAST_H
#define NYX_OP_CONV_LAST_H

#include "conv.h"

/* A weight (outputs, channels / groups, height, width), wherever its elements lie. */
typedef struct nyx__last_weight {
  const void *data;
  int64_t stride[4]; /* in elements */
} nyx__last_weight;

/* Whether sizes are such that scratch is bounded; else convert to contiguous. */
bool nyx__conv_last_takes(const nyx__conv *v);

/* As in conv.h, for x (n, h, w, c) and y (n, oh, ow, o) in this order in memory. There
 * are images and channels. Packs the weight once, in memory of its own. */
nyx_status nyx__conv_last(nyx_context *ctx, const nyx__conv *v, const void *x,
                          const nyx__last_weight *weight, const void *bias,
                          void *y) NYX_MUST_CHECK;
nyx_status nyx__conv_last_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                                const nyx__last_weight *weight, void *x) NYX_MUST_CHECK;
/* weight (o, kh, kw, c / groups), channels-last too; at most 64 MiB of partial sums. */
nyx_status nyx__conv_last_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                 const void *x, void *weight) NYX_MUST_CHECK;

/* A sum over taps and channels at each place of y: what a convolution is, and what its
 * adjoint is for every step-th place of x. Offsets and steps are in elements. */
typedef struct nyx__last_sum {
  nyx_context *ctx;
  nyx_dtype dtype;
  int64_t images, groups, in, out; /* in, out: channels of a group */
  nyx__window window[2];           /* of x's places; padding may be negative */
  const char *x, *weight, *bias;   /* bias may be NULL */
  char *y;
  int64_t x_pixel, x_row, x_image, y_pixel, y_row, y_image;
  int64_t w_group, w_out, w_in, w_tap[2];
  const nyx_epilogue *after; /* as in nyx__conv */
} nyx__last_sum;

/* What both files end with: the error that a status among threads stands for, `bytes`
 * being a thread's scratch; and how many units of so many multiplications make a range.
 */
nyx_status nyx__last_finish(nyx_context *ctx, atomic_int *status,
                            size_t bytes) NYX_MUST_CHECK;
int64_t nyx__last_grain(double work, double range);

/* winograd_last.c: 3 x 3 kernels with a quarter of the multiplications, where that is
 * faster, by sizes. Scratch: 256 MiB at most for the weight, 2 MiB per thread. Images
 * with results that are not finite are computed again by the plain sum (conv_last.c). */
bool nyx__winograd_last_takes(const nyx__last_sum *s);
nyx_status nyx__winograd_last(const nyx__last_sum *s) NYX_MUST_CHECK;
nyx_status nyx__last_plain(const nyx__last_sum *s) NYX_MUST_CHECK;

/* depthwise_last.c: one channel in and out of each group. */
nyx_status nyx__depthwise_last(const nyx__last_sum *s) NYX_MUST_CHECK;
/* weight (channels, taps) = the adjoint with respect to it. */
nyx_status nyx__depthwise_last_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                      const void *x, void *weight) NYX_MUST_CHECK;

/* conv_low.c: half types, as products of half types where the CPU has tiles for them.
 * Then v->dtype may be one; bias is float32, and so is a weight's adjoint. */
bool nyx__conv_low_takes(nyx_dtype dtype, const nyx__conv *v);
nyx_status nyx__conv_low(const nyx__last_sum *s) NYX_MUST_CHECK;
nyx_status nyx__conv_low_weight(const nyx__last_sum *s, float *weight) NYX_MUST_CHECK;

#endif
