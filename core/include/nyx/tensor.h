/* Tensors: a shape, strides and an offset over storage that views share. Reference
 * counted, atomically; functions borrow their arguments and give away *out. Positions and
 * dimensions count from 0 here. */
#ifndef NYX_TENSOR_H
#define NYX_TENSOR_H

#include "context.h"

/* A new contiguous CPU tensor with undefined contents. ndim 0..NYX_MAX_DIMS, sizes >= 0.
 */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_empty(nyx_context *ctx, nyx_dtype dtype,
                                                   int ndim, const int64_t *shape,
                                                   nyx_tensor **out);
/* The same on a device (device.h). */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_empty_on(nyx_context *ctx,
                                                      nyx_device *device, nyx_dtype dtype,
                                                      int ndim, const int64_t *shape,
                                                      nyx_tensor **out);
/* Copies `data`, row-major elements of `dtype`. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_from_data(nyx_context *ctx, nyx_dtype dtype,
                                                       int ndim, const int64_t *shape,
                                                       const void *data,
                                                       nyx_tensor **out);
/* Uses `data` in place, row-major; free_fn(free_arg), if any, is called once when the
 * last view is gone, or at once when this call fails after validating its arguments. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_wrap(nyx_context *ctx, nyx_dtype dtype,
                                                  int ndim, const int64_t *shape,
                                                  void *data, void (*free_fn)(void *),
                                                  void *free_arg, nyx_tensor **out);
/* A 0-d tensor holding `value`. A weak one does not take part in dtype promotion unless
 * its kind is higher, as a number in `x + 2`; it may be combined with tensors of any
 * device. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_scalar(nyx_context *ctx, double value,
                                                    nyx_dtype dtype, bool weak,
                                                    nyx_tensor **out);

NYX_API nyx_tensor *nyx_tensor_retain(nyx_tensor *t); /* returns t; NULL is allowed */
NYX_API void nyx_tensor_release(nyx_tensor *t);       /* NULL is allowed */

NYX_API nyx_dtype nyx_tensor_dtype(const nyx_tensor *t);
NYX_API int nyx_tensor_ndim(const nyx_tensor *t);
NYX_API const int64_t *nyx_tensor_shape(const nyx_tensor *t);  /* ndim sizes */
NYX_API const int64_t *nyx_tensor_stride(const nyx_tensor *t); /* in elements */
NYX_API int64_t nyx_tensor_offset(const nyx_tensor *t);        /* in elements */
NYX_API int64_t nyx_tensor_numel(const nyx_tensor *t);
NYX_API size_t nyx_tensor_storage_bytes(const nyx_tensor *t);
NYX_API nyx_device *nyx_tensor_device(const nyx_tensor *t);
NYX_API bool nyx_tensor_is_contiguous(const nyx_tensor *t);
/* Whether t is images (batch, channels, height, width) with the strides of channels-last
 * memory: batch, height, width, channels. */
NYX_API bool nyx_tensor_is_channels_last(const nyx_tensor *t);
/* Whether its memory was made in inference mode (context.h). */
NYX_API bool nyx_tensor_is_inference(const nyx_tensor *t);
/* Whether the two share storage. */
NYX_API bool nyx_tensor_shares(const nyx_tensor *a, const nyx_tensor *b);
/* Whether its storage lives on when one reference to t is given up. */
NYX_API bool nyx_tensor_is_shared(const nyx_tensor *t);

/* The first element's address; NULL for a tensor that is not in CPU memory. Elements
 * follow at the strides. Writers call nyx_tensor_touch afterwards. */
NYX_API void *nyx_tensor_data(const nyx_tensor *t);
/* Says that the contents changed: gradients that saved the old ones will refuse to run.
 */
NYX_API void nyx_tensor_touch(nyx_tensor *t);
NYX_API uint32_t nyx_tensor_version(const nyx_tensor *t);

/* A weight that is used many times unchanged: ops that pack it for their kernels keep
 * what they packed with its storage, for all tensors that share it, and pack again after
 * an in-place change (nyx_tensor_touch says so). Results are the same; a product of a few
 * rows may differ in the last bits, where it would be computed without packing. Takes
 * about as much memory as the weight for each kind of op and of view, counted like all
 * other; without memory ops go on as they do for any tensor. `on` false gives it back.
 * Default: off. Fails without memory for the mark itself. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_keep_packed(nyx_context *ctx, nyx_tensor *t,
                                                         bool on);
NYX_API bool nyx_tensor_keeps_packed(const nyx_tensor *t);
/* Bytes that are kept for it now. */
NYX_API size_t nyx_tensor_packed_bytes(const nyx_tensor *t);

/* The value of a tensor with exactly one element. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_item(nyx_context *ctx, const nyx_tensor *t,
                                                  double *out);
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_item_int(nyx_context *ctx,
                                                      const nyx_tensor *t, int64_t *out);
/* The same, real and imaginary part; the latter is 0 unless t is complex. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_item_complex(nyx_context *ctx,
                                                          const nyx_tensor *t,
                                                          double out[2]);
/* Copies all elements, row-major, converted to `dtype`, to `data` of `bytes` bytes. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_read(nyx_context *ctx, nyx_tensor *t,
                                                  nyx_dtype dtype, void *data,
                                                  size_t bytes);

/* Options of nyx_tensor_format. */
typedef struct nyx_print_options {
  int precision;  /* digits after the point; default 4 */
  int edge_items; /* items shown at each end of a summarised dimension; default 3 */
  int threshold;  /* more elements than this are summarised; default 1000 */
  int line_width; /* columns; default 80 */
  int index_base; /* what the first position is called; default the context's */
} nyx_print_options;

/* Readable text at any size. *out is given: free it with nyx_memory_free. `options` may
 * be NULL, members 0 mean the default. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_format(nyx_context *ctx, nyx_tensor *t,
                                                    const nyx_print_options *options,
                                                    char **out);

#endif
