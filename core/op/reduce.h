/* What ops that reduce dimensions share: which dimensions, the result's shape, rows for
 * kernels, and shapes for gradients. Read next: reduce.c, reduce_gradient.c, variance.c.
 */
#ifndef NYX_OP_REDUCE_H
#define NYX_OP_REDUCE_H

#include "../device/device.h"
#include "kernels/reduce.h"
#include "ops.h"

/* The attributes every reduction ends with. */
#define NYX__DIMS_DOC "the dimensions to reduce; all when left out"
#define NYX__KEEPDIM_DOC "keep reduced dimensions with size 1"

/* The bit set of reduced dimensions that a DIM or DIMS attribute names: all when it was
 * left out or is an empty list. */
nyx_status nyx__reduce_dims(nyx_context *ctx, nyx_attr_type type, const nyx_value *dim,
                            int ndim, uint32_t *dims) NYX_MUST_CHECK;
/* spec = dtype and the shape of `in` without `dims` (keepdim: with size 1 there). */
void nyx__reduce_spec(nyx_spec *spec, nyx_dtype dtype, int ndim, const int64_t *shape,
                      uint32_t dims, bool keepdim);
/* How many elements are reduced to one. */
int64_t nyx__reduce_count(int ndim, const int64_t *shape, uint32_t dims);

/* On devices other than the CPU: writes c->out[0], the reduction of c->in[0] over `dims`
 * by a row about the results of another (kernels/reduce.def). */
typedef struct nyx__reduce_about_rows {
  nyx__reduce_id row, centre;
} nyx__reduce_about_rows;
nyx_status nyx__reduce_about(nyx_call *c, nyx__reduce_about_rows about, uint32_t dims,
                             nyx_dtype compute, double p) NYX_MUST_CHECK;

/* A contiguous version of t with `dims` moved behind the others, so that the elements
 * that are reduced together are a row; not recorded. */
nyx_status nyx__reduce_rows(nyx_context *ctx, nyx_tensor *t, uint32_t dims,
                            nyx_tensor **out) NYX_MUST_CHECK;
/* The same dimensions moved in an alias of t, without a copy. */
nyx_status nyx__reduce_alias(nyx_context *ctx, const nyx_tensor *t, uint32_t dims,
                             nyx_tensor **out) NYX_MUST_CHECK;
/* Where such rows are written when `t` is the output: an alias of it where that is plain
 * and of `compute`, else a new tensor, which nyx__reduce_finish copies to t. */
nyx_status nyx__reduce_begin(nyx_context *ctx, const nyx_tensor *t, uint32_t dims,
                             nyx_dtype compute, nyx_tensor **rows) NYX_MUST_CHECK;
nyx_status nyx__reduce_finish(nyx_context *ctx, nyx_tensor *rows, uint32_t dims,
                              nyx_tensor *t) NYX_MUST_CHECK;

/* For gradients, recorded: a result of reducing `in` over `dims`, with or without
 * keepdim, given size 1 in the reduced dimensions; and t expanded to the shape of `in`.
 */
nyx_status nyx__keep_dims(nyx_context *ctx, nyx_tensor *t, const nyx_spec *in,
                          uint32_t dims, nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__expand_to(nyx_context *ctx, nyx_tensor *t, const nyx_spec *in,
                          nyx_tensor **out) NYX_MUST_CHECK;

/* The gradient of every reduction row (reduce_gradient.c). */
nyx_status nyx__reduce_gradient(nyx_backward *b) NYX_MUST_CHECK;

#endif
