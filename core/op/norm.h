/* What the normalizations share. Read next: norm.c, batch_norm.c, group_norm.c. */
#ifndef NYX_OP_NORM_H
#define NYX_OP_NORM_H

#include "../../kernels/cpu/move.h"
#include "../../kernels/cpu/norm.h"
#include "../../kernels/cpu/softmax.h"
#include "../tensor/tensor.h"
#include "ops.h"

/* The kernels for float32 or float64. */
const nyx_norm_kernel *nyx__norm_kernel(nyx_dtype compute);

/* y = (x - mean) * rstd * weight + bias, with statistics over `dims`, as its gradient
 * sees it. */
typedef struct nyx__norm {
  nyx_tensor *x, *weight;  /* weight may be NULL */
  nyx_tensor *mean, *rstd; /* statistics that do not depend on x; NULL: x's own */
  bool center;             /* false: the mean is taken as 0 */
  double eps;
  int n_dims;
  int64_t dims[NYX_MAX_DIMS];
  nyx_spec parameter; /* weight and bias, shaped to broadcast against x */
} nyx__norm;

/* What gradients are wanted; NULL: not this one. */
typedef struct nyx__norm_wanted {
  nyx_tensor **x, **weight, **bias;
} nyx__norm_wanted;

/* The gradients, with ops: differentiable again. `weight` and `bias` come in the shape of
 * the parameter spec. */
nyx_status nyx__norm_gradient(nyx_context *ctx, const nyx__norm *norm, nyx_tensor *g,
                              const nyx__norm_wanted *wanted) NYX_MUST_CHECK;

/* Contiguous tensors of a computed dtype for in[0..n-1] (NULL stays NULL) and, for half
 * types, a float32 stand-in for each output. Where the first output is channels-last,
 * images are too. End with nyx__norm_close. */
typedef struct nyx__norm_data {
  nyx_tensor *in[NYX_MAX_OUTPUTS + 5], *out[NYX_MAX_OUTPUTS];
  int n_in, n_out;
  nyx_dtype dtype;
  bool last;
} nyx__norm_data;
nyx_status nyx__norm_open(nyx_call *c, int n_in, nyx__norm_data *data) NYX_MUST_CHECK;
/* Writes stand-ins back (when status is NYX_OK), releases all and returns the status. */
nyx_status nyx__norm_close(nyx_call *c, nyx__norm_data *data,
                           nyx_status status) NYX_MUST_CHECK;

/* norm.c: `rows` rows of n elements, one after the other in memory; `groups` of them make
 * a sample, and row i has the parameters i % groups of as many times n. Fill in what
 * comes before `chunk`; the rest is the functions' own. */
typedef struct nyx__norm_rows {
  bool center; /* false: the mean is taken as 0 */
  double eps;
  int64_t rows, n, groups;
  const char *x, *weight, *bias, *g; /* weight and bias may be NULL */
  char *y;                           /* backward: the gradient of x */
  char *total[2];                    /* of weight and bias; NULL: not wanted */
  const nyx_norm_kernel *kernel;
  const nyx_softmax_kernel *moments;
  size_t item;
  int64_t chunk, units; /* rows of a unit, which is one thread's */
  char *sums; /* the parameters' partial gradients: weight and bias of each unit */
  const nyx_move_kernels *stream; /* NULL: y stays in the caches */
} nyx__norm_rows;
void nyx__norm_rows_kernels(nyx__norm_rows *r, nyx_dtype compute);
void nyx__norm_rows_forward(nyx__norm_rows *r);
nyx_status nyx__norm_rows_backward(nyx_context *ctx, nyx__norm_rows *r) NYX_MUST_CHECK;
/* Of row x: its mean, and 1 / sqrt(variance + eps). */
void nyx__norm_statistics(const nyx__norm_rows *r, const char *x, double *mean,
                          double *rstd);

/* norm_last.c: channels-last images of `places` each, normalized in groups of channels
 * that follow each other; for batch norm, all places are of one image and every channel
 * is a group. weight and bias may be NULL. */
typedef struct nyx__norm_last {
  nyx_context *ctx;
  nyx_dtype dtype;
  int64_t images, places, channels, groups;
  const char *x, *g, *weight, *bias;
  const char *mean_in, *rstd_in; /* of each group of each image; NULL: x's own */
  char *y;                       /* backward: the gradient of x */
  char *mean, *rstd;             /* results of the forward pass; NULL: not wanted */
  double *variance;              /* the sums of squares around the mean; the same */
  char *weight_out, *bias_out;   /* gradients */
  double eps;
} nyx__norm_last;
nyx_status nyx__norm_last_forward(const nyx__norm_last *b) NYX_MUST_CHECK;
nyx_status nyx__norm_last_backward(const nyx__norm_last *b) NYX_MUST_CHECK;

#endif
