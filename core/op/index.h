/* Positions given as tensors: checking them, and moving or adding elements at them.
 * Shared by the ops of index.c, put.c, mask.c and embedding.c. */
#ifndef NYX_OP_INDEX_H
#define NYX_OP_INDEX_H

#include "../tensor/tensor.h"

/* Fails with DTYPE_INPUT unless t holds integers. */
nyx_status nyx__index_check(nyx_context *ctx, const char *name,
                            const nyx_tensor *t) NYX_MUST_CHECK;

/* Whose size positions are checked against. */
typedef struct nyx__range {
  int64_t size;
  int dim;   /* named in the message; -1: positions count all elements */
  bool wrap; /* negative positions count from the end */
} nyx__range;

/* The positions in `index` (row-major, counted from 0) in a block to be freed with
 * nyx_memory_free. Fails with INDEX_RANGE at the first one outside the range. */
nyx_status nyx__positions(nyx_context *ctx, nyx_tensor *index, nyx__range range,
                          int64_t **out) NYX_MUST_CHECK;

/* The same without a copy where `index` is contiguous int64, and lies apart from
 * `written` (or NULL): positions count from *base. *held is released with
 * nyx_tensor_release, *block freed with nyx_memory_free. */
typedef struct nyx__held_positions {
  const int64_t *at;
  int64_t base;
  nyx_tensor *held;
  int64_t *block;
} nyx__held_positions;
nyx_status nyx__positions_hold(nyx_context *ctx, nyx_tensor *index, nyx__range range,
                               const nyx_tensor *written,
                               nyx__held_positions *out) NYX_MUST_CHECK;
void nyx__positions_drop(nyx__held_positions *positions);

/* Moves between an addressed tensor `a` and a plain one `b`. Both have the geometry
 * (outer, k, inner): element (o, k, i) of b meets element (o, at, i) of a, where `at` is
 * the position for (o, k, i). */
typedef enum nyx__lane_mode {
  NYX__GATHER,  /* b = a */
  NYX__SCATTER, /* a = b; the last of equal positions stays */
  NYX__LAST,    /* b = a at the last of equal positions, 0 at others; see `seen` */
  NYX__ADD      /* a = a + alpha * b, in the order of k; bools: or */
} nyx__lane_mode;

typedef struct nyx__side { /* offsets are in elements */
  char *data;
  int64_t *outer, *inner; /* tables; NULL: o * outer_step, i */
  int64_t outer_step, step;
} nyx__side;

typedef struct nyx__lanes {
  int64_t outer, count, inner;
  const int64_t *at; /* at[o * at_outer + k * at_step + i * at_inner] */
  int64_t at_outer, at_step, at_inner;
  int64_t base; /* what positions count from */
  nyx__side a, b;
  nyx_dtype dtype;
  double alpha;
  uint8_t
      *seen; /* for NYX__LAST: zeros, one for each element of a, which is contiguous */
  /* Where a is all of (outer, rows, inner), row-major, rows can be grouped by where they
   * go; and a may have no values yet: `fill` with those of `start`, or with zeros. */
  int64_t rows; /* 0: not so */
  bool fill;
  const void *start; /* NULL: zeros */
  /* For NYX__GATHER: where to say that a position was not in 0..size-1, whose element is
   * then left as it was. NULL: all are known to be. */
  atomic_bool *outside;
  int64_t size;
} nyx__lanes;

nyx_status nyx__lanes_run(nyx_context *ctx, const nyx__lanes *lanes,
                          nyx__lane_mode mode) NYX_MUST_CHECK;
/* Gathers at the positions in `index`, which l has no `at` for yet. Nothing is written to
 * `out`, which is b's, where one is outside the range, unless nobody else has it. */
nyx_status nyx__lanes_gather(nyx_context *ctx, nyx__lanes *l, nyx_tensor *index,
                             nyx__range range, const nyx_tensor *out) NYX_MUST_CHECK;
/* rows.c: whether whole rows are grouped, and doing so. */
bool nyx__lanes_grouped(const nyx__lanes *lanes, nyx__lane_mode mode);
nyx_status nyx__lanes_rows(nyx_context *ctx, const nyx__lanes *lanes,
                           nyx__lane_mode mode) NYX_MUST_CHECK;
/* to[i] += alpha * from[i]; bools: or, unless alpha is 0. */
typedef void (*nyx__row_fn)(void *to, const void *from, int64_t n, double alpha);
nyx__row_fn nyx__add_row(nyx_dtype dtype);

/* `value` as one element of dtype at *p; fails with VALUE_DTYPE where an integer dtype
 * cannot hold it. */
nyx_status nyx__value_store(nyx_context *ctx, const char *name, double value,
                            nyx_dtype dtype, void *p) NYX_MUST_CHECK;

/* Makes sure that `t` has shape `shape`, else NDIM_EXPECTED. */
nyx_status nyx__shape_check(nyx_context *ctx, const char *name, const nyx_tensor *t,
                            int ndim, const int64_t *shape) NYX_MUST_CHECK;

/* t as if expanded to a shape it broadcasts to; not recorded. */
nyx_status nyx__expanded(nyx_context *ctx, nyx_tensor *t, int ndim, const int64_t *shape,
                         nyx_tensor **out) NYX_MUST_CHECK;
/* The same as a contiguous tensor of `dtype`. */
nyx_status nyx__expanded_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype, int ndim,
                            const int64_t *shape, nyx_tensor **out) NYX_MUST_CHECK;

/* For gradients: t with zeros appended up to the shape of `spec`. Recorded. */
nyx_status nyx__grow_to(nyx_context *ctx, nyx_tensor *t, const nyx_spec *spec,
                        nyx_tensor **out) NYX_MUST_CHECK;

/* What ops that update out[0] write to: out itself, retained, where it is contiguous,
 * else a copy; for sums in the half types a float32 copy. nyx__update_end writes it back,
 * when `status` is NYX_OK, and releases it. */
nyx_status nyx__update_begin(nyx_context *ctx, nyx_tensor *out, bool sums,
                             nyx_tensor **work) NYX_MUST_CHECK;
/* The same for ops that fill out[0] themselves (nyx_op.fills) with the values of x.
 * *start is x where they are still missing in *work, else NULL; it is borrowed. */
nyx_status nyx__update_fill(nyx_context *ctx, nyx_tensor *x, nyx_tensor *out, bool sums,
                            nyx_tensor **work, nyx_tensor **start) NYX_MUST_CHECK;
nyx_status nyx__update_end(nyx_context *ctx, nyx_tensor *work, nyx_tensor *out,
                           nyx_status status) NYX_MUST_CHECK;
/* t, contiguous and of `dtype`, in memory that is not out's: safe to read while out is
 * written in place. */
nyx_status nyx__apart_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                         const nyx_tensor *out, nyx_tensor **result) NYX_MUST_CHECK;

#endif
