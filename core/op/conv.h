/* A convolution's geometry, between its ops (conv.c) and its arithmetic (conv_cpu.c). */
#ifndef NYX_OP_CONV_H
#define NYX_OP_CONV_H

#include "../tensor/tensor.h"
#include "window.h"

typedef struct nyx__conv {
  nyx_dtype dtype;      /* NYX_FLOAT32 or NYX_FLOAT64 */
  int64_t images;       /* n */
  int64_t in_channels;  /* c */
  int64_t out_channels; /* o */
  int64_t groups;
  nyx__window window[2]; /* height, width */
  nyx_storage *keep; /* of the weight, if packed forms of it are to be kept; else NULL */
} nyx__conv;

/* Contiguous data: x (n, c, h, w), weight (o, c / groups, kh, kw), y (n, o, oh, ow). */
/* y = x * weight + bias; bias may be NULL. */
nyx_status nyx__conv_forward(nyx_context *ctx, const nyx__conv *v, const void *x,
                             const void *weight, const void *bias,
                             void *y) NYX_MUST_CHECK;
/* x = the adjoint with respect to the input, of y. */
nyx_status nyx__conv_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                           const void *weight, void *x) NYX_MUST_CHECK;
/* weight = the adjoint with respect to the weight, of y. */
nyx_status nyx__conv_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                            const void *x, void *weight) NYX_MUST_CHECK;

#endif
