/* What cross_entropy, nll_loss and their gradients share. Read next: loss.c,
 * loss_gradient.c. */
#ifndef NYX_OP_LOSS_H
#define NYX_OP_LOSS_H

#include "../tensor/tensor.h"
#include "ops.h"

/* Attributes, in order; nll_loss has no smoothing. */
enum { NYX__LOSS_IGNORE, NYX__LOSS_REDUCTION, NYX__LOSS_SMOOTHING, NYX__LOSS_ATTRS };

typedef enum nyx__loss_reduction {
  NYX__LOSS_NONE,
  NYX__LOSS_SUM,
  NYX__LOSS_MEAN
} nyx__loss_reduction;

typedef struct nyx__loss {
  nyx__loss_reduction reduction;
  bool log_probabilities; /* nll_loss: x is log_softmax's result already */
  bool probabilities;     /* the target's; else it holds labels */
  int class_dim;
  int64_t classes, rows;
  double smoothing;
  bool ignores;
  int64_t ignore; /* as labels are counted */
} nyx__loss;

/* Reads the attributes of a loss or of its gradient op. */
nyx_status nyx__loss_read(nyx_context *ctx, const nyx_op *op, const nyx_tensor *x,
                          const nyx_tensor *target, const nyx_value *attr,
                          nyx__loss *loss) NYX_MUST_CHECK;

/* Gradients of the losses, and of their gradient ops. */
nyx_status nyx__loss_gradient(nyx_backward *b) NYX_MUST_CHECK;
nyx_status nyx__loss_backward_gradient(nyx_backward *b) NYX_MUST_CHECK;

#endif
