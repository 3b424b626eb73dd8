/* What products and convolutions have in common of what comes after them in the same pass
 * (core/linalg/epilogue.h), between their ops and their arithmetic. Read next: finish.c,
 * linear.c, conv_activation.c. */
#ifndef NYX_OP_FINISH_H
#define NYX_OP_FINISH_H

#include "../linalg/epilogue.h"
#include "ops.h"

/* What a sum of floats becomes where it is summed, in this order; whatever is NULL is
 * left out. */
typedef struct nyx__finish {
  nyx_tensor *bias;         /* as many elements as a row of results */
  nyx_tensor *before;       /* of the results' shape, added */
  nyx_tensor *sums;         /* of the results' shape and dtype: what they are then */
  const nyx_op *activation; /* a row of float inputs */
  const double *attr;       /* its attributes; NULL: its presets */
  nyx_tensor *other;        /* its second input, if it has one: of the results' shape */
  nyx_tensor *residual;     /* of the results' shape, added */
} nyx__finish;

/* The same in the types and the layout it is computed in. */
typedef struct nyx__finishing {
  nyx_epilogue e;
  nyx_tensor *bias, *before, *sums, *other, *residual; /* what e points into */
} nyx__finishing;

/* For results that are written to `out`: contiguous, or channels-last images. Results of
 * a row are those of its last dimension, f->e.n. */
nyx_status nyx__finish_open(nyx_context *ctx, const nyx__finish *from,
                            const nyx_tensor *out, nyx__finishing *f) NYX_MUST_CHECK;
/* After them, whose status is given: the sums go where they are wanted. */
nyx_status nyx__finish_close(nyx_context *ctx, const nyx__finish *from, nyx__finishing *f,
                             nyx_status status) NYX_MUST_CHECK;

/* The op that an attribute `activation` names, of two inputs where there is another one;
 * NULL: none. */
nyx_status nyx__find_activation(nyx_context *ctx, const nyx_value *activation, bool other,
                                const nyx_op **op) NYX_MUST_CHECK;

#define NYX__KEEP_DOC                                                                    \
  "whether to give the sums as well, which the gradient needs; it computes them again "  \
  "where they were not kept"

/* The gradient of sums that were activated, out[0], and may be results themselves,
 * out[1]; that of input `other`, the activation's second one, goes to grad_in. other < 0:
 * it has none. *g NULL: it is zero. */
nyx_status nyx__gradient_of_sums(nyx_backward *b, const nyx_value *activation, int other,
                                 nyx_tensor *sums, nyx_tensor **g) NYX_MUST_CHECK;

#endif
