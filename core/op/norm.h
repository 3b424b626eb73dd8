/* What the normalizations share. Read next: norm.c, batch_norm.c. */
#ifndef NYX_OP_NORM_H
#define NYX_OP_NORM_H

#include "../../kernels/cpu/norm.h"
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

/* batch_norm_last.c: channels-last images, `rows` places of all of them together. weight
 * and bias may be NULL; variance receives the sums of squares around the mean. */
typedef struct nyx__batch_norm_last {
  nyx_context *ctx;
  nyx_dtype dtype;
  int64_t rows, channels;
  const char *x, *g, *weight, *bias, *mean_in, *rstd_in;
  char *y, *mean, *rstd, *weight_out, *bias_out;
  double eps, *variance;
} nyx__batch_norm_last;
nyx_status nyx__batch_norm_last_forward(const nyx__batch_norm_last *b) NYX_MUST_CHECK;
/* y is the gradient of x. */
nyx_status nyx__batch_norm_last_backward(const nyx__batch_norm_last *b) NYX_MUST_CHECK;

#endif
