/* How lines of a length are transformed: factors, roots of one, and what the last lengths
 * needed, kept for the next call. Read next: plan.c, kernels/cpu/fft.h. */
#ifndef NYX_FFT_PLAN_H
#define NYX_FFT_PLAN_H

#include "../../kernels/cpu/fft.h"
#include "../base/context.h"

/* Of complex lines of `n` numbers of one type. */
typedef struct nyx__fft_plan {
  atomic_int refs;
  int64_t n;
  int type;               /* 0: float32, 1: float64 */
  nyx_fft_passes passes;  /* unless n has a factor beyond NYX_FFT_RADIX */
  bool chirp;             /* it has one */
  void *block;            /* what the passes point to */
  _Atomic(void *) roots;  /* see below; NULL until somebody asks */
  _Atomic(void *) filter; /* fft.c: the chirp, n numbers, and its transform; likewise */
} nyx__fft_plan;

/* The least length from n on that passes can do. */
int64_t nyx__fft_smooth(int64_t n);
/* A reference to the plan for n >= 1; NULL: no memory. */
nyx__fft_plan *nyx__fft_plan_get(int64_t n, int type);
void nyx__fft_plan_release(nyx__fft_plan *p);

/* e^(-2 pi i k / n) for k = 0..n-1, which the plan keeps; NULL: no memory. */
const void *nyx__fft_roots(nyx__fft_plan *p);
/* Gives `block` to the plan as *at unless it has one, and what it has then. */
void *nyx__fft_keep(_Atomic(void *) *at, void *block);

/* e^(-2 pi i k / n): into a float or a double pair. */
void nyx__fft_root(int64_t k, int64_t n, int type, void *out);

#endif
