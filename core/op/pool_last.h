/* Pooling of channels-last images. Read next: pool_last.c. */
#ifndef NYX_OP_POOL_LAST_H
#define NYX_OP_POOL_LAST_H

#include "../../kernels/cpu/pool.h"
#include "window.h"

/* Computes a call whose input's sizes are w[i].in, into outputs that are channels-last. A
 * plane has fewer than 2^31 elements. */
nyx_status nyx__max_pool_last(nyx_call *c, const nyx__window w[2]) NYX_MUST_CHECK;
/* An average with w[i].out boxes, or its adjoint, whose input has these sizes. */
nyx_status nyx__average_last(nyx_call *c, const nyx__window w[2],
                             const nyx_pool_box *const box[2],
                             bool adjoint) NYX_MUST_CHECK;

#endif
