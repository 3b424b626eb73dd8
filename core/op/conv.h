/* A convolution's geometry, between its ops (conv.c), the choice of a way to compute them
 * (conv_ways.c) and their arithmetic (conv_cpu.c). */
#ifndef NYX_OP_CONV_H
#define NYX_OP_CONV_H

#include "../tensor/tensor.h"
#include "finish.h"
#include "window.h"

typedef struct nyx__conv {
  nyx_dtype dtype;      /* NYX_FLOAT32 or NYX_FLOAT64 */
  int64_t images;       /* n */
  int64_t in_channels;  /* c */
  int64_t out_channels; /* o */
  int64_t groups;
  nyx__window window[2];    /* height, width */
  int64_t x_pixel, y_pixel; /* channels-last: elements from place to place */
  nyx_storage *keep; /* of the weight, if packed forms of it are to be kept; else NULL */
  const nyx_epilogue *after; /* for y, by whoever has written it; NULL: nothing */
} nyx__conv;

/* The op conv2d, for one that begins with its inputs and attributes (conv_activation.c):
 * the shape of out[0]; its arithmetic, with what comes after (NULL: nothing); the
 * gradients of x, weight and bias from that of their convolution. */
nyx_status nyx__conv_infer(nyx_call *c) NYX_MUST_CHECK;
nyx_status nyx__conv_cpu(nyx_call *c, const nyx__finish *finish) NYX_MUST_CHECK;
nyx_status nyx__conv_gradient(nyx_backward *b, nyx_tensor *grad) NYX_MUST_CHECK;

/* Stride, padding, dilation and groups, in this order. */
#define NYX__CONV_ATTRS                                                                  \
  {.name = "stride",                                                                     \
   .type = NYX_ATTR_INTS,                                                                \
   .preset = {.list = nyx__conv_one, .n = 1, .given = true},                             \
   .doc = "step of the kernel, one number or {height, width}"},                          \
      {.name = "padding",                                                                \
       .type = NYX_ATTR_INTS,                                                            \
       .preset = {.list = nyx__conv_zero, .n = 1, .given = true},                        \
       .doc = "zeros around the input, one number or {height, width}"},                  \
      {.name = "dilation",                                                               \
       .type = NYX_ATTR_INTS,                                                            \
       .preset = {.list = nyx__conv_one, .n = 1, .given = true},                         \
       .doc = "distance between the kernel's taps, one number or {height, width}"},      \
  {                                                                                      \
    .name = "groups", .type = NYX_ATTR_INT, .preset = {.i = 1, .given = true},           \
    .doc = "channels are split into this many independent convolutions"                  \
  }
#define NYX__CONV_ATTR_COUNT 4
extern const int64_t nyx__conv_one[1], nyx__conv_zero[1];

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

/* One of these, which is not empty: x or y, and the weight or x. */
typedef enum nyx__conv_mode {
  NYX__CONV_FORWARD,
  NYX__CONV_INPUT,
  NYX__CONV_WEIGHT
} nyx__conv_mode;

typedef struct nyx__conv_call {
  nyx__conv_mode mode;
  const nyx__conv *v;
  const void *left, *right, *bias;
} nyx__conv_call;

/* The ways to compute it, from which a fixed rule chooses. */
typedef enum nyx__conv_way {
  NYX__CONV_DEPTHWISE, /* depthwise.c */
  NYX__CONV_WINOGRAD,  /* winograd.c: 3 x 3 kernels, with fewer multiplications */
  NYX__CONV_PRODUCT,   /* conv_product.c, conv_phases.c */
  NYX__CONV_FOURIER,   /* fourier.c: large kernels, as products of spectra */
  NYX__CONV_IMAGE,     /* a 1x1 kernel on one image: a matrix product, or one per group */
  NYX__CONV_TILES,     /* column matrices of a part of the positions */
  NYX__CONV_WAYS
} nyx__conv_way;

uint32_t nyx__conv_usable(const nyx__conv *v, nyx__conv_mode mode); /* bit i: way i */
nyx__conv_way nyx__conv_rule(const nyx__conv *v, nyx__conv_mode mode, uint32_t usable);
nyx_status nyx__conv_by(nyx_context *ctx, const nyx__conv_call *c, void *result,
                        nyx__conv_way way) NYX_MUST_CHECK;

#endif
