/* The vtable behind every device. A device computes elementwise rows and reductions from
 * the row's own text, and structural ops where it has a kernel; the rest is
 * "unsupported". Read next: cpu/cpu.c, opencl/opencl.c, core/op/apply.c. */
#ifndef NYX_DEVICE_DEVICE_H
#define NYX_DEVICE_DEVICE_H

#include <nyx/device.h>

#include "../op/ops.h"
#include "../tensor/tensor.h"

/* One elementwise computation: the forward text of a row (part 0; inputs x y z) or its
 * gradient with respect to x, y, z (part 1, 2, 3; inputs g x y z r). Inputs broadcast to
 * out's shape and are converted to `compute`; the result is converted to out's dtype.
 * Any strides. Inputs the text does not use are NULL. Weak scalars may be CPU tensors.
 * An input may be out itself (same geometry), never overlap it otherwise. */
typedef struct nyx_elementwise {
  const nyx_row *row;
  int part;
  nyx_dtype compute; /* FLOAT32, FLOAT64, INT32 or INT64 */
  nyx_tensor *in[5];
  nyx_tensor *out;
  double attr[2]; /* p and q */
  bool stops;     /* may fail with INTERRUPTED: a half-written out is of no harm */
} nyx_elementwise;

/* One reduction: over the dimensions in the bit set `dims` of `in`, into out and index,
 * contiguous, with the kept dimensions in order. The input's elements are converted to
 * `compute`, the result to out's dtype. Exactly one of out and index may be NULL. With
 * index, over one dimension or all: the first position of the least (rows min, argmin) or
 * greatest value, nan counting as both. A job with index and no elements to reduce is
 * refused before it comes here; without index, finish is applied to init. */
typedef struct nyx_reduction {
  const nyx_reduce_row *row;
  nyx_dtype compute; /* FLOAT32, FLOAT64, INT32 or INT64 */
  nyx_tensor *in;
  uint32_t dims;
  nyx_tensor *out;
  nyx_tensor *index;  /* int64, counted from the context's index base */
  double attr[2];     /* p */
  nyx_tensor *centre; /* c of the rows about it: contiguous, as out, but of `compute` */
} nyx_reduction;

struct nyx_device {
  const char *name; /* "cpu", "opencl" */
  char describe[160];
  bool float64; /* whether it computes in float64 */

  /* Memory. alloc gives storage->data; copy_in and copy_out move bytes from and to host
   * memory; offsets are bytes into the buffer. */
  nyx_status (*alloc)(nyx_context *ctx, nyx_device *dev, size_t bytes, void **data);
  void (*free)(nyx_device *dev, void *data);
  nyx_status (*copy_in)(nyx_context *ctx, nyx_device *dev, void *data, size_t offset,
                        const void *host, size_t bytes);
  nyx_status (*copy_out)(nyx_context *ctx, nyx_device *dev, void *data, size_t offset,
                         void *host, size_t bytes);

  nyx_status (*elementwise)(nyx_context *ctx, nyx_device *dev,
                            const nyx_elementwise *job);
  nyx_status (*reduce)(nyx_context *ctx, nyx_device *dev, const nyx_reduction *job);
  nyx_status (*structural)(nyx_device *dev, nyx_call *call);
};

nyx_device *nyx__cpu(void); /* never NULL */
static inline bool nyx__on_cpu(const nyx_tensor *t) {
  return t->storage->device == nyx__cpu();
}
/* The OpenCL device number `i`, opened on first use. */
nyx_status nyx__opencl(nyx_context *ctx, int i, nyx_device **out);
/* Waits for everything that was started there; nothing when OpenCL was never opened. */
void nyx__opencl_finish(void);
/* Releases the buffers that are kept for the next result. */
void nyx__opencl_trim(void);

#endif
