/* Depthwise convolutions, where every channel has kernels of its own: one plane at a
 * time, in one thread. Square kernels of 3 and 5 read them where they lie
 * (depthwise_square.h); for others rows are copied with zeros around them (pad_type.h),
 * and those of large kernels are read once for several rows of a result
 * (depthwise_large.h). Read next: depthwise_type.h, core/op/depthwise.c, which shares
 * planes among threads. */
#ifndef NYX_KERNELS_CPU_DEPTHWISE_H
#define NYX_KERNELS_CPU_DEPTHWISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sizes, all of {height, width}: output o sees the inputs o * stride - pad + t * dilation
 * for t = 0..kernel-1. */
typedef struct nyx_depthwise {
  int64_t in[2], kernel[2], stride[2], pad[2], dilation[2], out[2];
  int64_t outputs; /* planes of y for each of x, each with a kernel of its own */
} nyx_depthwise;

/* A plane of x, its kernels and its planes of y, which follow one another. What lies
 * after what is read, up to the limits, belongs to the same tensors. */
typedef struct nyx_depthwise_planes {
  void *x, *weight, *y;
  const void *x_limit, *y_limit;
  const void *bias; /* one for each output, or NULL */
} nyx_depthwise_planes;

typedef enum nyx_depthwise_mode {
  NYX_DEPTHWISE_FORWARD, /* writes y */
  NYX_DEPTHWISE_INPUT,   /* writes x */
  NYX_DEPTHWISE_WEIGHT   /* adds to weight */
} nyx_depthwise_mode;

/* For each of float32 and float64. */
typedef struct nyx_depthwise_kernel {
  /* Bytes of scratch, at most NYX_DEPTHWISE_SCRATCH; 0: too large, go another way. */
  size_t (*scratch)(const nyx_depthwise *d, nyx_depthwise_mode mode);
  /* Cycles that a plane of x takes, about, with vectors of 64 bytes as measured. */
  double (*cycles)(const nyx_depthwise *d, nyx_depthwise_mode mode);
  /* Fills a 64-byte aligned scratch; then `run` may be called with it any number of
   * times, by one thread at a time. d must stay. */
  void (*prepare)(const nyx_depthwise *d, nyx_depthwise_mode mode, void *scratch);
  void (*run[3])(const nyx_depthwise_planes *p, void *scratch);
} nyx_depthwise_kernel;

#define NYX_DEPTHWISE_SCRATCH ((size_t)1 << 20)

typedef struct nyx_depthwise_kernels {
  nyx_depthwise_kernel type[2];
} nyx_depthwise_kernels;

#endif
