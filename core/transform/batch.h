/* What batching rules are made of. Read next: batch.c, rules.c. */
#ifndef NYX_TRANSFORM_BATCH_H
#define NYX_TRANSFORM_BATCH_H

#include "lift.h"

/* Input i with ones behind the batch, so that an entry has at least ndim dimensions. */
nyx_status nyx__batch_align(nyx_batch *b, int i, int ndim,
                            nyx_tensor **out) NYX_MUST_CHECK;
/* Input i with the batch in front, repeated where it is the same for all. */
nyx_status nyx__batch_full(nyx_batch *b, int i, nyx_tensor **out) NYX_MUST_CHECK;
/* The op on other inputs and attributes; fills b->out. */
nyx_status nyx__batch_apply(nyx_batch *b, nyx_tensor *const *in,
                            const nyx_value *attr) NYX_MUST_CHECK;
/* t with its first two dimensions as one, or (parts > 0) the first one as two. */
nyx_status nyx__batch_fold(nyx_context *ctx, nyx_tensor *t, int64_t parts,
                           nyx_tensor **out) NYX_MUST_CHECK;
/* One entry after the other: for what a rule does not cover. */
nyx_status nyx__batch_each(nyx_batch *b) NYX_MUST_CHECK;

#endif
