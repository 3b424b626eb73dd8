/* Copies that are described by one table of positions per dimension: pad, flip, roll,
 * tile, repeat_interleave, index_select, index, embedding. Read next: remap.c, pad.c,
 * arrange.c. */
#ifndef NYX_OP_REMAP_H
#define NYX_OP_REMAP_H

#include "../tensor/tensor.h"

/* In a table: this output position has no source and takes the fill value. */
#define NYX__FILL INT64_MIN

/* Output element (o0, o1, ...) is input element (from[0][o0], from[1][o1], ...).
 * from[d] is NULL where positions stay as they are. */
typedef struct nyx__remap {
  int ndim;
  int64_t shape[NYX_MAX_DIMS]; /* of the output */
  int64_t *from[NYX_MAX_DIMS];
  int64_t *block; /* owns the tables */
  bool
      scattered; /* the tables are somebody's positions: no runs of neighbours, no fill */
} nyx__remap;

/* Allocates a table, to be filled by the caller, for each dimension in the bit set
 * `dims`. End with nyx__remap_close, also after a failure. */
nyx_status nyx__remap_open(nyx_context *ctx, int ndim, const int64_t *shape,
                           uint32_t dims, nyx__remap *map) NYX_MUST_CHECK;
void nyx__remap_close(nyx__remap *map);

/* out = in through the map. `in` has any strides, out in's dtype; it is contiguous, with
 * as many elements as the map, or has the map's shape and no gaps. `fill` is one element
 * of it; NULL when no table holds NYX__FILL. */
nyx_status nyx__remap_copy(nyx_context *ctx, const nyx__remap *map, const nyx_tensor *in,
                           nyx_tensor *out, const void *fill) NYX_MUST_CHECK;
/* The adjoint: out[from(o)] += g[o]. g has the map's shape, out the input's; both are
 * float32 or float64 in the same order of dimensions without gaps, though rows of several
 * elements of g may lie apart, evenly, where some table is. Sums in the order of g,
 * whatever the threads. */
nyx_status nyx__remap_add(nyx_context *ctx, const nyx__remap *map, const nyx_tensor *g,
                          nyx_tensor *out) NYX_MUST_CHECK;

#endif
