/* Inside a tensor and its storage, and the geometry helpers the core shares.
 * Read next: tensor.c, shape.c, core/op/apply.c. */
#ifndef NYX_TENSOR_TENSOR_H
#define NYX_TENSOR_TENSOR_H

#include <nyx/device.h>
#include <nyx/memory.h>
#include <nyx/op.h>
#include <nyx/tensor.h>
#include <stdatomic.h>

#include "../base/context.h"
#include "dtype.h"

typedef struct nyx__forms nyx__forms;

typedef struct nyx_storage {
  atomic_int refs;
  atomic_uint version; /* raised by every write */
  bool inference;      /* made in inference mode: writes are not counted */
  nyx_device *device;
  void *data; /* an address on the CPU, a buffer handle elsewhere */
  size_t bytes;
  void (*free_fn)(void *); /* borrowed memory; NULL: the device frees it */
  void *free_arg;
  _Atomic(nyx__forms *) forms; /* packed.h; NULL until it is to keep some */
} nyx_storage;

typedef struct nyx_node nyx_node;
typedef struct nyx_lift nyx_lift;
typedef struct nyx_hook_handle nyx__hook;

struct nyx_tensor {
  atomic_int refs;
  nyx_dtype dtype;
  int ndim;
  bool weak;          /* a number: see nyx_tensor_scalar */
  bool requires_grad; /* a leaf that wants one, or made by a recorded op */
  bool is_view;       /* made by a view op: in-place changes reach its base */
  bool retains_grad;  /* not a leaf, but grad is filled like a leaf's */
  int out_index;      /* which output of grad_fn this is */
  /* core/grad/view.c: */
  bool loose;                    /* a view that cannot follow its base */
  uint32_t history;              /* how often this tensor was given a history */
  _Atomic uint32_t base_history; /* of base, when this view got its own */
  nyx_tensor *base; /* what this is a view of, never a view itself, where changes of
                       one reach the history of the other; else NULL */
  int64_t numel;
  int64_t offset;
  nyx_storage *storage;
  nyx_node *grad_fn; /* NULL for leaves */
  nyx_tensor *grad;
  nyx__hook *hooks; /* of a leaf: core/grad/hook.c */
  nyx_lift *lift;   /* NULL unless a transform made it: core/transform/lift.h */
  int64_t level;    /* the latest transform when this was made; 0: none yet */
  int64_t shape[NYX_MAX_DIMS];
  int64_t stride[NYX_MAX_DIMS];
};

/* Gives a reference back; true: it was the last. A thread that holds the only one needs
 * no atomic step to say so, as nobody else can take another. */
static inline bool nyx__last_reference(atomic_int *refs) {
  return atomic_load_explicit(refs, memory_order_acquire) == 1 ||
         atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}
void nyx__storage_release(nyx_storage *s);

/* packed.c */
bool nyx__forms_on(const nyx__forms *f);
void nyx__forms_free(nyx__forms *f); /* NULL is allowed */
/* A new tensor over `storage` (retained) with the geometry of `spec`. */
nyx_status nyx__tensor_view(nyx_context *ctx, nyx_storage *storage, const nyx_spec *spec,
                            nyx_tensor **out);
/* Checks a shape and says how many bytes it takes. */
nyx_status nyx__shape_bytes(nyx_context *ctx, nyx_dtype dtype, int ndim,
                            const int64_t *shape, size_t *bytes) NYX_MUST_CHECK;
/* A free_fn that leaves the memory to its owner. */
void nyx__keep(void *data);
/* Whether the history of a view is out of date: its base got another one since. */
static inline bool nyx__view_stale(const nyx_tensor *t) {
  return t->base &&
         t->base->history != atomic_load_explicit(&t->base_history, memory_order_acquire);
}
/* A new tensor as `spec` says: row-major, or with its strides where it is laid out. */
nyx_status nyx__tensor_of(nyx_context *ctx, nyx_device *device, const nyx_spec *spec,
                          nyx_tensor **out) NYX_MUST_CHECK;
/* The same geometry and storage, without history. */
nyx_status nyx__tensor_alias(nyx_context *ctx, const nyx_tensor *t, nyx_tensor **out);
/* A contiguous version: t itself, retained, or a copy; not recorded. Kernels that want
 * plain rows begin with this. */
nyx_status nyx__contiguous(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out);
/* Contiguous and of `dtype`: t itself, retained, or a converted copy; not recorded. */
nyx_status nyx__contiguous_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                              nyx_tensor **out);
/* The same for images (batch, channels, height, width), channels-last in memory. With
 * `pixel` they may have gaps between the channels of one place and of the next, as slices
 * of channels do: it becomes the elements from place to place. */
nyx_status nyx__last_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype, int64_t *pixel,
                        nyx_tensor **out);
/* Copies src, broadcast and converted, into dst (any strides, same device); not recorded.
 */
nyx_status nyx__copy_into(nyx_context *ctx, nyx_tensor *src, nyx_tensor *dst);
/* The same where a half-written dst is of no harm: it stops when asked. */
nyx_status nyx__copy_fresh(nyx_context *ctx, nyx_tensor *src, nyx_tensor *dst);

static inline bool nyx__has_shape(const nyx_tensor *t, int ndim, const int64_t *shape) {
  bool same = t->ndim == ndim;
  for (int d = 0; same && d < ndim; d++) same = t->shape[d] == shape[d];
  return same;
}

static inline bool nyx__is_contiguous(const nyx_tensor *t) {
  int64_t expect = 1;
  for (int d = t->ndim - 1; d >= 0; d--) {
    if (t->shape[d] != 1 && t->stride[d] != expect) return t->numel == 0;
    expect *= t->shape[d];
  }
  return true;
}

static inline void *nyx__data(const nyx_tensor *t) { /* CPU tensors only */
  return (char *)t->storage->data + t->offset * nyx__item(t->dtype);
}

/* shape.c */

/* The number of elements; false on overflow (of elements or of bytes). */
bool nyx__numel(int ndim, const int64_t *shape, size_t item, int64_t *out);
void nyx__strides(int ndim, const int64_t *shape, int64_t *stride); /* row-major */
/* "3x4" (or "" for 0-d) in `buffer`, cut to `size`; returns buffer. */
char *nyx__shape_text(int ndim, const int64_t *shape, char *buffer, size_t size);
#define NYX_SHAPE_TEXT 176
/* "3x4" of a tensor, in a temporary that lives as long as the enclosing block. */
#define NYX__SHAPE(t)                                                                    \
  nyx__shape_text((t)->ndim, (t)->shape, (char[NYX_SHAPE_TEXT]){0}, NYX_SHAPE_TEXT)
/* Broadcasts shape `a` and `b` into `out`; false when they do not fit. out may be a. */
bool nyx__broadcast(int na, const int64_t *a, int nb, const int64_t *b, int *ndim,
                    int64_t *out);
/* Strides of t as if expanded to (ndim, shape), which it must broadcast to: 0 where
 * repeated. */
void nyx__broadcast_strides(const nyx_tensor *t, int ndim, int64_t *stride);
/* A position or dimension as the user said it: from the end it has no base. */
int64_t nyx__said(const nyx_context *ctx, int64_t position);
/* Whether elements fill memory without gaps or repeats, in whatever order. */
bool nyx__is_dense(int ndim, const int64_t *shape, const int64_t *stride);
/* Dimensions from the innermost in memory on, as PyTorch orders them where strides are
 * equal. */
void nyx__memory_order(int ndim, const int64_t *shape, const int64_t *stride, int *order);
/* Strides without gaps and dimensions in the order of `stride`, which is left as it is
 * where it has none; false where positions share an element. dense may be stride. */
bool nyx__close_gaps(int ndim, const int64_t *shape, const int64_t *stride,
                     int64_t *dense);
/* Channels-last: images (batch, channels, height, width) whose memory has the order
 * batch, height, width, channels; their strides, and whether those of a tensor have this
 * order and not that of rows at the same time, perhaps with gaps: slices of such images.
 */
void nyx__last_strides(const int64_t shape[4], int64_t stride[4]);
bool nyx__lies_last(int ndim, const int64_t *shape, const int64_t *stride);
/* Whether two positions of such a tensor may be one element in memory. */
bool nyx__overlaps(int ndim, const int64_t *shape, const int64_t *stride);
/* Checks a dimension (negative from the end) of an ndim-dimensional tensor; 0-d tensors
 * accept 0 and -1. */
nyx_status nyx__dim(nyx_context *ctx, int64_t dim, int ndim, int *out);

/* dtype conversions of one element, for printing and setters; CPU memory only. */
double nyx__load_double(nyx_dtype dtype, const void *p);
int64_t nyx__load_int(nyx_dtype dtype, const void *p);
void nyx__store_double(nyx_dtype dtype, void *p, double value);
void nyx__store_int(nyx_dtype dtype, void *p, int64_t value);
float nyx__half_to_float(uint16_t h);
uint16_t nyx__float_to_half(float f); /* to nearest even */
float nyx__bfloat_to_float(uint16_t h);
uint16_t nyx__float_to_bfloat(float f); /* to nearest even */

#endif
