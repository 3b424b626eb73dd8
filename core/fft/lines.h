/* Fourier transforms of many lines in memory. Read next: lines.c. */
#ifndef NYX_FFT_LINES_H
#define NYX_FFT_LINES_H

#include <nyx/context.h>

#include "plan.h"

/* `count` lines: line i begins at i / inner * outer_step + i % inner * inner_step, its
 * elements are `step` apart; all in floats, of which a complex number has two. */
typedef struct nyx__fft_set {
  void *data;
  int64_t count, inner, outer_step, inner_step, step;
} nyx__fft_set;

/* Transforms lines of n numbers (see nyx_fft_kind); `type` 0: float32, 1: float64.
 * The sets do not overlap, or are the same one, of complex numbers. By all threads. */
nyx_status nyx__fft_lines(nyx_context *ctx, nyx_fft_kind kind, int type, int64_t n,
                          bool inverse, double scale, const nyx__fft_set *from,
                          const nyx__fft_set *to) NYX_MUST_CHECK;

#endif
