/* The column matrix (terms x output positions) of a convolution, which is never stored
 * whole: sizes of its parts, and where the columns of a unit of work are packed from.
 * Read next: conv_columns.c, conv_product.c, conv_weight.c. */
#ifndef NYX_OP_CONV_COLUMNS_H
#define NYX_OP_CONV_COLUMNS_H

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/last.h"
#include "../../kernels/cpu/patches.h"
#include "conv.h"

#define SCRATCH_BYTES ((int64_t)8 << 20)
#define RANGE_WORK ((double)(1 << 19)) /* multiplications worth waking a thread for */

typedef struct product_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const nyx_gemm_kernel *gemm;
  const nyx_last_kernel *last;
  const nyx_patches_kernel *patches;
  int64_t item;
  const char *x, *weight, *bias;
  char *y, *a;         /* a: the packed weight; NULL: read in place, or packed by units */
  char *shared;        /* the packed columns, where the units share them */
  int64_t shared_step; /* bytes of a block of terms there */
  int64_t row_step, term_step; /* of the weight, in elements */
  int64_t taps, positions, plane, in_group, out_group, terms;
  nyx_row_padding padding;
  int64_t pitch, span;       /* of padded rows; rows that one output row sees */
  int64_t stride;            /* padded rows from one output row to the next */
  int64_t width, depth;      /* of the panels of A; terms at a time */
  int64_t panel;             /* columns of a panel of B */
  int64_t columns, rows;     /* of a unit, at most */
  int64_t blocks, per_image; /* column blocks; those of an image, 0: they mix images */
  int64_t row_units;         /* divisions of the output channels of a group */
  bool straight;             /* one tap, no padding: columns are packed from the images */
  bool once;     /* one block of columns: no block of the weight is used again */
  bool in_place; /* then its rows are read where they lie */
  bool wide;     /* by tiles of all columns, so that each is read once */
  bool turned;   /* where they lie (channel, row, tap), taps backwards */
  bool read;     /* columns are not packed, but read from the padded rows */
  bool thin; /* the last column would need a vector of its own: 49 are 3 x 16 and it */
  size_t padded_bytes, panel_bytes, result_bytes, offset_bytes, patch_bytes;
  size_t piece_bytes, a_bytes, sum_bytes;
  atomic_int status;
} product_run;

/* Columns q0..q1-1 of a unit whose result goes to `c`: of one image, where it belongs
 * (`there`), or tiles that images share, to be copied. */
typedef struct piece {
  int64_t q0, q1, ldc;
  char *c;
  bool there;
} piece;

/* A unit: columns q0..q1-1 of all images' positions, rows o0..o1-1 of a group. */
typedef struct unit {
  int64_t group, q0, q1, o0, o1;
  char *padded, *panels, *result, *a, *sums;
  int64_t *offset;
  nyx_patch *patch;
  piece *piece;
  int64_t pieces;
  const char *from; /* where columns are packed from: padded rows, or the images */
  int64_t channel;  /* elements from one channel to the next there */
} unit;

static inline int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Rows of the weight that are multiplied together. */
static inline int64_t row_block(const product_run *r) {
  return r->gemm->block_rows / r->gemm->tile_rows * r->width;
}

static inline char *y_at(const product_run *r, int64_t n, int64_t channel) {
  return r->y + (n * r->v->out_channels + channel) * r->positions * r->item;
}

/* Ranges of units of so many multiplications each. */
static inline int64_t grain_of(double work) {
  return work < RANGE_WORK ? (int64_t)(RANGE_WORK / (work + 1)) + 1 : 1;
}

static inline bool going(product_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

bool nyx__columns_usable(void);
/* Sizes. False: too large, or too small to fill tiles, or nothing, as the gradient of an
 * image that is all padding. */
bool nyx__columns_describe(product_run *r, const nyx__conv *v);
/* Output channels in `units` parts or fewer, and the panels of A that fit these. */
void nyx__columns_divide(product_run *r, int64_t units, int64_t fewest);
/* The padded rows of `channels` channels; false: too large. */
bool nyx__columns_pad(product_run *r, int64_t channels);

/* The scratch of a range of units; false: no memory. Its block is u->padded. */
bool nyx__columns_scratch(product_run *r, unit *u);
/* Channels c0..c1-1 of the group for this unit's columns to be packed from. */
void nyx__columns_open(const product_run *r, unit *u, int64_t c0, int64_t c1);
/* Where the terms from `first` on read. */
void nyx__columns_offsets(const product_run *r, const unit *u, int64_t first,
                          int64_t depth);
/* The vectors of some columns from q on, into u->patch; gives their number. */
int64_t nyx__columns_patches(const product_run *r, const unit *u, int64_t q,
                             int64_t columns);
/* The columns' terms from `term` on, in panels; but for the last one, if it is thin. */
void nyx__columns_pack(const product_run *r, unit *u, int64_t term, int64_t depth,
                       char *panels);
/* What became of all units. */
nyx_status nyx__columns_finish(const product_run *r) NYX_MUST_CHECK;

#endif
