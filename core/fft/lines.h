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

/* The same of two sets of lines within planes: plane i of a set begins at i * `plane`. */
typedef struct nyx__fft_side {
  nyx_fft_kind kind;
  int64_t n;
  double scale;
  nyx__fft_set from, to; /* of all planes */
  int64_t from_plane, to_plane;
} nyx__fft_side;

/* Transforms the lines of two directions of `planes` planes, sides[0] and then, in its
 * results, sides[1], as nyx__fft_lines does, but a few planes at a time that stay in the
 * caches meanwhile, if they are many and small enough; *done says whether. */
nyx_status nyx__fft_planes(nyx_context *ctx, int type, int64_t planes, bool inverse,
                           const nyx__fft_side sides[2], bool *done) NYX_MUST_CHECK;

#endif
