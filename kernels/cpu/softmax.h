/* Kernels over rows of contiguous floats: the parts that softmax, log_softmax, logsumexp
 * and the losses are made of. Long rows come in pieces, whose parts the caller merges.
 * Read next: softmax_rows.h, core/op/softmax.c. */
#ifndef NYX_KERNELS_CPU_SOFTMAX_H
#define NYX_KERNELS_CPU_SOFTMAX_H

#include <stdint.h>

#define NYX_SOFTMAX_COLUMNS 1024

/* All of one float type; n may be 0. Sums are of blocks of 1024 elements, added up in
 * double. */
typedef struct nyx_softmax_kernel {
  /* *most = the greatest of x (nan if any is, -inf of nothing); returns the sum of
   * exp(x - *most), 0 when *most is -inf; those below 1e-37 may count as 0. `e`, if not
   * NULL, receives exp(x - *most). */
  double (*exp_sum)(const void *x, int64_t n, double *most, void *e);
  /* y = x * scale; y may be x */
  void (*scale)(const void *x, int64_t n, double scale, void *y);
  /* y = (x - a) - b */
  void (*shift)(const void *x, int64_t n, double a, double b, void *y);
  double (*sum)(const void *x, int64_t n);
  double (*dot)(const void *x, const void *y, int64_t n);
  /* y = r * (g - s) */
  void (*softmax_backward)(const void *g, const void *r, int64_t n, double s, void *y);
  /* y = g - exp(r) * s */
  void (*log_softmax_backward)(const void *g, const void *r, int64_t n, double s,
                               void *y);
  /* Along columns: `width` of them, at most NYX_SOFTMAX_COLUMNS, of rows `step` elements
   * apart, with the sums they need. */
  void (*softmax_columns)(const void *x, int64_t step, int64_t rows, int64_t width,
                          void *y);
  void (*log_softmax_columns)(const void *x, int64_t step, int64_t rows, int64_t width,
                              void *y);
  void (*softmax_backward_columns)(const void *g, const void *r, int64_t step,
                                   int64_t rows, int64_t width, void *y);
  void (*log_softmax_backward_columns)(const void *g, const void *r, int64_t step,
                                       int64_t rows, int64_t width, void *y);
  /* For the losses, where class c counts q = w (a t + b), t and w NULL for 0 and 1: the
   * sum of q (rest + (most - x)), and *all that of q. */
  double (*fall)(const void *x, const void *t, const void *w, int64_t n, double a,
                 double b, double most, double rest, double *all);
  /* y = y * scale - q */
  void (*take)(const void *t, const void *w, int64_t n, double a, double b, double scale,
               void *y);
  /* *mean of x and the sum of (x - *mean)^2, in two passes, corrected */
  void (*moments)(const void *x, int64_t n, double *mean, double *squares);
  /* The same for `width` columns, of rows `step` elements apart: `rows` rows more, after
   * the `before` ones that are in mean and squares. */
  void (*column_moments)(const void *x, int64_t step, int64_t rows, int64_t width,
                         int64_t before, double *mean, double *squares);
} nyx_softmax_kernel;

typedef struct nyx_softmax_kernels {
  const nyx_softmax_kernel *type[2]; /* float32, float64 */
} nyx_softmax_kernels;

#endif
