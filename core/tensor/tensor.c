/* Making, sharing and freeing tensors and their storage, and moving values in and out.
 * Read next: shape.c (geometry), core/op/apply.c (where most tensors are made). */
#include "tensor.h"

#include <math.h>
#include <string.h>

#include "../device/cpu/cpu.h"
#include "../device/device.h"
#include "../grad/graph.h"
#include "../transform/lift.h"

/* A storage and the tensor it was made for are one block, which the last of its tensors
 * frees. Few elements on the CPU lie behind them: of the time of a small op an allocation
 * is a tenth. */
typedef struct block {
  nyx_storage storage;
  nyx_tensor first;
} block;
#define FEW_BYTES 1024
#define BLOCK_ROOM ((sizeof(block) + 63) / 64 * 64)

static void *few_data(nyx_storage *s) {
  return (char *)s + BLOCK_ROOM;
}
static nyx_tensor *first_of(nyx_storage *s) {
  return &((block *)s)->first;
}

static void storage_fill(nyx_storage *s, const nyx_context *ctx, nyx_device *device,
                         void *data, size_t bytes) {
  atomic_init(&s->refs, 1);
  atomic_init(&s->version, 0);
  s->inference = ctx && ctx->inference && !ctx->grad_enabled; /* transform.h */
  s->device = device;
  s->data = data;
  s->bytes = bytes;
  s->free_fn = NULL;
  s->free_arg = NULL;
  atomic_init(&s->forms, NULL);
}

static nyx_status storage_new(nyx_context *ctx, nyx_device *device, size_t bytes,
                              nyx_storage **out) {
  bool few = bytes <= FEW_BYTES && device == nyx__cpu();
  size_t room = few ? BLOCK_ROOM + bytes : sizeof(block);
  if (few) NYX_TRY(nyx__cpu_path_check(ctx)); /* as the device does */
  nyx_storage *s = nyx_memory_alloc(room);
  if (!s) return nyx__no_memory(ctx, room);
  void *data = few_data(s);
  if (!few) {
    nyx_status status = device->alloc(ctx, device, bytes, &data);
    if (status != NYX_OK) {
      nyx_memory_free(s);
      return status;
    }
  }
  storage_fill(s, ctx, device, data, bytes);
  *out = s;
  return NYX_OK;
}

void nyx__storage_release(nyx_storage *s) {
  if (!nyx__last_reference(&s->refs)) return;
  nyx__forms_free(atomic_load_explicit(&s->forms, memory_order_relaxed));
  if (s->free_fn)
    s->free_fn(s->free_arg);
  else if (s->data != few_data(s))
    s->device->free(s->device, s->data);
  nyx_memory_free(s);
}

/* A tensor over `storage`, whose reference it takes over. */
static void tensor_fill(nyx_tensor *t, const nyx_context *ctx, nyx_storage *storage,
                        nyx_dtype dtype, int ndim, const int64_t *shape,
                        const int64_t *stride, int64_t offset) {
  atomic_init(&t->refs, 1);
  t->dtype = dtype;
  t->ndim = ndim;
  t->weak = t->requires_grad = t->is_view = t->retains_grad = false;
  t->hooks = NULL;
  t->out_index = 0;
  t->loose = false;
  t->history = 0;
  atomic_init(&t->base_history, 0);
  t->level = ctx ? ctx->last_level : 0;
  t->base = NULL;
  t->offset = offset;
  t->storage = storage;
  t->grad_fn = NULL;
  t->grad = NULL;
  t->lift = NULL;
  t->numel = 1;
  for (int d = 0; d < ndim; d++) {
    t->shape[d] = shape[d];
    t->numel *= shape[d];
  }
  if (stride)
    memcpy(t->stride, stride, (size_t)ndim * sizeof *stride);
  else
    nyx__strides(ndim, shape, t->stride);
}

/* Of a shape that nyx__numel refused. */
static nyx_status size_error(nyx_context *ctx, int ndim, const int64_t *shape) {
  for (int d = 0; d < ndim; d++)
    if (shape[d] < 0)
      return nyx__error(ctx, SIZE_NEGATIVE, (long long)shape[d],
                        d + (ctx ? ctx->index_base : 0));
  char text[NYX_SHAPE_TEXT];
  return nyx__error(ctx, SIZE_OVERFLOW, nyx__shape_text(ndim, shape, text, sizeof text));
}

nyx_status nyx__shape_bytes(nyx_context *ctx, nyx_dtype dtype, int ndim,
                            const int64_t *shape, size_t *bytes) {
  if (ndim < 0 || ndim > NYX_MAX_DIMS)
    return nyx__error(ctx, NDIM_RANGE, ndim, NYX_MAX_DIMS);
  int64_t numel;
  size_t item = nyx_dtype_size(dtype);
  if (!nyx__numel(ndim, shape, item, &numel)) return size_error(ctx, ndim, shape);
  *bytes = (size_t)numel * item;
  return NYX_OK;
}

/* stride NULL: row-major. */
static nyx_status empty(nyx_context *ctx, nyx_device *device, nyx_dtype dtype, int ndim,
                        const int64_t *shape, const int64_t *stride, nyx_tensor **out) {
  *out = NULL;
  size_t bytes;
  NYX_TRY(nyx__shape_bytes(ctx, dtype, ndim, shape, &bytes));
  nyx_storage *storage;
  NYX_TRY(storage_new(ctx, device, bytes, &storage));
  *out = first_of(storage);
  tensor_fill(*out, ctx, storage, dtype, ndim, shape, stride, 0);
  return NYX_OK;
}

nyx_status nyx_tensor_empty_on(nyx_context *ctx, nyx_device *device, nyx_dtype dtype,
                               int ndim, const int64_t *shape, nyx_tensor **out) {
  return empty(ctx, device, dtype, ndim, shape, NULL, out);
}

nyx_status nyx__tensor_of(nyx_context *ctx, nyx_device *device, const nyx_spec *spec,
                          nyx_tensor **out) {
  return empty(ctx, device, spec->dtype, spec->ndim, spec->shape,
               spec->laid_out ? spec->stride : NULL, out);
}

nyx_status nyx_tensor_empty(nyx_context *ctx, nyx_dtype dtype, int ndim,
                            const int64_t *shape, nyx_tensor **out) {
  return nyx_tensor_empty_on(ctx, nyx__cpu(), dtype, ndim, shape, out);
}

nyx_status nyx_tensor_from_data(nyx_context *ctx, nyx_dtype dtype, int ndim,
                                const int64_t *shape, const void *data,
                                nyx_tensor **out) {
  NYX_TRY(nyx_tensor_empty(ctx, dtype, ndim, shape, out));
  if ((*out)->storage->bytes) memcpy((*out)->storage->data, data, (*out)->storage->bytes);
  return NYX_OK;
}

nyx_status nyx_tensor_wrap(nyx_context *ctx, nyx_dtype dtype, int ndim,
                           const int64_t *shape, void *data, void (*free_fn)(void *),
                           void *free_arg, nyx_tensor **out) {
  *out = NULL;
  size_t bytes;
  NYX_TRY(nyx__shape_bytes(ctx, dtype, ndim, shape, &bytes));
  nyx_storage *s = nyx_memory_alloc(sizeof(block));
  nyx_status status = s ? NYX_OK : nyx__no_memory(ctx, sizeof(block));
  if (status == NYX_OK) {
    storage_fill(s, ctx, nyx__cpu(), data, bytes);
    s->free_fn = free_fn ? free_fn : nyx__keep;
    s->free_arg = free_arg;
    *out = first_of(s);
    tensor_fill(*out, ctx, s, dtype, ndim, shape, NULL, 0);
  }
  if (status != NYX_OK && free_fn) free_fn(free_arg);
  return status;
}

void nyx__keep(void *data) {
  (void)data;
}

nyx_status nyx_tensor_scalar(nyx_context *ctx, double value, nyx_dtype dtype, bool weak,
                             nyx_tensor **out) {
  NYX_TRY(nyx_tensor_empty(ctx, dtype, 0, NULL, out));
  nyx__store_double(dtype, (*out)->storage->data, value);
  (*out)->weak = weak;
  return NYX_OK;
}

nyx_status nyx__tensor_view(nyx_context *ctx, nyx_storage *storage, const nyx_spec *spec,
                            nyx_tensor **out) {
  nyx_tensor *t = nyx_memory_alloc(sizeof *t);
  if (!t) return nyx__no_memory(ctx, sizeof *t);
  tensor_fill(t, ctx, storage, spec->dtype, spec->ndim, spec->shape, spec->stride,
              spec->offset);
  *out = t;
  atomic_fetch_add_explicit(&storage->refs, 1, memory_order_relaxed);
  return NYX_OK;
}

nyx_status nyx__tensor_alias(nyx_context *ctx, const nyx_tensor *t, nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec_of(t, &spec);
  NYX_TRY(nyx__tensor_view(ctx, t->storage, &spec, out));
  (*out)->weak = t->weak;
  (*out)->is_view = t->is_view;
  return NYX_OK;
}

nyx_tensor *nyx_tensor_retain(nyx_tensor *t) {
  if (t) atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
  return t;
}

void nyx_tensor_release(nyx_tensor *t) {
  /* A gradient may own history whose gradients own history: nyx__node_release works down
   * the graph without recursion, this loop down a chain of .grad, or to the base. */
  while (t && nyx__last_reference(&t->refs)) {
    nyx_tensor *next = t->grad ? t->grad : t->base;
    if (next != t->base) nyx_tensor_release(t->base);
    if (t->hooks) nyx__hooks_drop(&t->hooks, false);
    if (t->retains_grad) nyx__hooks_move(t, NULL, 0);
    nyx__node_release(t->grad_fn);
    if (t->lift) {
      nyx_tensor_release(t->lift->value);
      nyx_tensor_release(t->lift->tangent);
      nyx_memory_free(t->lift);
    }
    bool alone = t != first_of(t->storage); /* in a block of its own */
    nyx__storage_release(t->storage);
    if (alone) nyx_memory_free(t);
    t = next;
  }
}

nyx_dtype nyx_tensor_dtype(const nyx_tensor *t) {
  return t->dtype;
}
int nyx_tensor_ndim(const nyx_tensor *t) {
  return t->ndim;
}
const int64_t *nyx_tensor_shape(const nyx_tensor *t) {
  return t->shape;
}
const int64_t *nyx_tensor_stride(const nyx_tensor *t) {
  return t->stride;
}
int64_t nyx_tensor_offset(const nyx_tensor *t) {
  return t->offset;
}
int64_t nyx_tensor_numel(const nyx_tensor *t) {
  return t->numel;
}
size_t nyx_tensor_storage_bytes(const nyx_tensor *t) {
  return t->storage->bytes;
}
nyx_device *nyx_tensor_device(const nyx_tensor *t) {
  return t->storage->device;
}
bool nyx_tensor_is_contiguous(const nyx_tensor *t) {
  return nyx__is_contiguous(t);
}
bool nyx_tensor_is_channels_last(const nyx_tensor *t) {
  int64_t stride[4];
  if (t->ndim != 4) return false;
  nyx__last_strides(t->shape, stride);
  return memcmp(stride, t->stride, sizeof stride) == 0;
}
bool nyx_tensor_is_inference(const nyx_tensor *t) {
  return t->storage->inference;
}
bool nyx_tensor_shares(const nyx_tensor *a, const nyx_tensor *b) {
  return a->storage == b->storage;
}
bool nyx_tensor_is_shared(const nyx_tensor *t) {
  return atomic_load(&t->refs) > 1 || atomic_load(&t->storage->refs) > 1;
}
void *nyx_tensor_data(const nyx_tensor *t) {
  return nyx__on_cpu(t) ? nyx__data(t) : NULL;
}
void nyx_tensor_touch(nyx_tensor *t) {
  bool kept = atomic_load_explicit(&t->storage->forms, memory_order_relaxed) != NULL;
  if (t->storage->inference && !kept) return;
  atomic_fetch_add_explicit(&t->storage->version, 1, memory_order_relaxed);
}
uint32_t nyx_tensor_version(const nyx_tensor *t) {
  return atomic_load_explicit(&t->storage->version, memory_order_relaxed);
}

/* The bytes of the only element of t. */
static nyx_status read_one(nyx_context *ctx, const nyx_tensor *t, void *bytes) {
  NYX_TRY(nyx__check_read(ctx, t));
  if (t->numel != 1) {
    const char *where = ctx ? ctx->where : NULL;
    if (ctx) ctx->where = "item";
    nyx_status status = nyx__error(ctx, ITEM_COUNT, NYX__SHAPE(t), (long long)t->numel);
    if (ctx) ctx->where = where;
    return status;
  }
  size_t item = nyx_dtype_size(t->dtype);
  nyx_device *dev = t->storage->device;
  return dev->copy_out(ctx, dev, t->storage->data, (size_t)t->offset * item, bytes, item);
}

nyx_status nyx_tensor_item(nyx_context *ctx, const nyx_tensor *t, double *out) {
  double parts[2];
  if (nyx__complex_dtype(t->dtype))
    return nyx__error(ctx, COMPLEX_ITEM, nyx_dtype_name(t->dtype));
  NYX_TRY(nyx_tensor_item_complex(ctx, t, parts));
  *out = parts[0];
  return NYX_OK;
}

nyx_status nyx_tensor_item_complex(nyx_context *ctx, const nyx_tensor *t, double out[2]) {
  uint64_t bytes[2] = {0, 0};
  nyx_dtype part = nyx_dtype_real(t->dtype);
  NYX_TRY(read_one(ctx, t, bytes));
  out[0] = nyx__load_double(part, bytes);
  out[1] = part == t->dtype ? 0 : nyx__load_double(part, (char *)bytes + nyx__item(part));
  return NYX_OK;
}

nyx_status nyx_tensor_item_int(nyx_context *ctx, const nyx_tensor *t, int64_t *out) {
  uint64_t bytes = 0;
  if (nyx__complex_dtype(t->dtype))
    return nyx__error(ctx, COMPLEX_ITEM, nyx_dtype_name(t->dtype));
  NYX_TRY(read_one(ctx, t, &bytes));
  *out = nyx__load_int(t->dtype, &bytes);
  return NYX_OK;
}

nyx_status nyx_tensor_read(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype, void *data,
                           size_t bytes) {
  size_t item = nyx_dtype_size(dtype);
  NYX_TRY(nyx__check_read(ctx, t));
  if (bytes != (size_t)t->numel * item)
    return nyx__error(ctx, READ_SIZE, bytes, (size_t)t->numel * item, NYX__SHAPE(t),
                      nyx_dtype_name(dtype));
  if (bytes == 0) return NYX_OK;
  nyx_tensor *plain;
  NYX_TRY(nyx__contiguous_as(ctx, t, dtype, &plain));
  nyx_device *dev = plain->storage->device;
  nyx_status status = dev->copy_out(ctx, dev, plain->storage->data,
                                    (size_t)plain->offset * item, data, bytes);
  nyx_tensor_release(plain);
  return status;
}
