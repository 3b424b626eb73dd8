/* What convolution and pooling share: windows that slide over the last two dimensions.
 * Read next: window.c, conv.c, pool.c. */
#ifndef NYX_OP_WINDOW_H
#define NYX_OP_WINDOW_H

#include "../tensor/tensor.h"
#include "ops.h"

/* One dimension: output position o sees the inputs o * stride - pad + t * dilation for
 * t = 0..kernel-1. */
typedef struct nyx__window {
  int64_t in, kernel, stride, pad, dilation, out;
} nyx__window;

/* Reads an attribute of one number (used for both dimensions) or two, each >= least. */
nyx_status nyx__pair(nyx_context *ctx, const char *name, const nyx_value *value,
                     int64_t least, int64_t out[2]) NYX_MUST_CHECK;

/* Fills `out` of the two windows from the rest. In ceil mode a last window may hang over
 * the end, as long as it begins inside the input or the padding before it. */
nyx_status nyx__windows_out(nyx_context *ctx, nyx__window *w,
                            bool ceil_mode) NYX_MUST_CHECK;

/* The output positions lo..hi-1 for which tap t is inside the input. */
static inline void nyx__window_inside(const nyx__window *w, int64_t t, int64_t *lo,
                                      int64_t *hi) {
  int64_t shift = w->pad - t * w->dilation; /* input = o * stride - shift */
  int64_t first = shift > 0 ? (shift + w->stride - 1) / w->stride : 0;
  int64_t last = w->in - 1 + shift; /* o * stride <= last */
  int64_t end = last < 0 ? 0 : last / w->stride + 1;
  *hi = end < w->out ? end : w->out;
  *lo = first < *hi ? first : *hi;
}

#endif
