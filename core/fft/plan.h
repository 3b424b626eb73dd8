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
  int type;                /* 0: float32, 1: float64 */
  nyx_fft_passes passes;   /* over n / columns, unless columns is 0 */
  void *block;             /* what the passes point to */
  _Atomic(void *) roots;   /* see below; NULL until somebody asks */
  _Atomic(void *) factors; /* likewise */
  _Atomic(void *) filter; /* lines.c: the chirp, n numbers, and its transform; likewise */
} nyx__fft_plan;

/* Whether passes can do n >= 1. */
bool nyx__fft_is_smooth(int64_t n);
/* One from n on that they can do fast. */
int64_t nyx__fft_smooth(int64_t n);
/* Columns of a line of n complex numbers in one piece, as many as there can be. */
int nyx__fft_columns(int64_t n, int type);
/* A reference to the plan for n >= 1, smooth, in lines of `columns` (see nyx_fft_passes);
 * 0: any n, for what else a plan has. NULL: no memory. */
nyx__fft_plan *nyx__fft_plan_get(int64_t n, int columns, int type);
void nyx__fft_plan_release(nyx__fft_plan *p);
/* Forgets the plans of late; they go with those that use them. */
void nyx__fft_trim(void);

/* e^(-2 pi i k / n) for k = 0..n/2, which the plan keeps; NULL: no memory. */
const void *nyx__fft_roots(nyx__fft_plan *p);
/* What the columns of a matrix of `rows`, always the same number, are multiplied by: one
 * nyx_fft_lines.lane_factor for all groups of `lanes` columns, then a line_factor for
 * each. Likewise. */
const void *nyx__fft_factors(nyx__fft_plan *p, int64_t rows, int lanes);
/* Gives `block` to the plan as *at unless it has one, and what it has then. */
void *nyx__fft_keep(_Atomic(void *) *at, void *block);

/* e^(-2 pi i k / n): into a float or a double pair. */
void nyx__fft_root(int64_t k, int64_t n, int type, void *out);

#endif
