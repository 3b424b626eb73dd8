/* An OpenCL device inside: its memory, its kernels, and how they are started. Read next:
 * opencl.c, elementwise.c, reduce.c (what is computed), source.h (what is compiled). */
#ifndef NYX_DEVICE_OPENCL_OPENCL_H
#define NYX_DEVICE_OPENCL_OPENCL_H

#include <pthread.h>

#include "../device.h"
#include "cl.h"
#include "source.h"

#define NYX_CL_KEY 128 /* bytes of a kernel's name among the known ones */
#define NYX_CL_SPARES 64

typedef struct kernel_entry {
  char key[NYX_CL_KEY];
  cl_kernel kernel;
  bool started;
  struct kernel_entry *next;
} kernel_entry;

/* A buffer that nobody uses. */
typedef struct spare {
  cl_mem buffer;
  size_t bytes;
} spare;

typedef struct opencl_device {
  nyx_device base; /* first: a nyx_device is one of these */
  char name[16];
  cl_device id;
  cl_context context;
  cl_queue queue;
  pthread_mutex_t lock; /* of the kernels, whose arguments are state */
  kernel_entry *kernels;
  pthread_mutex_t spare_lock;
  spare spares[NYX_CL_SPARES]; /* the newest last */
  int n_spares;
  size_t spare_bytes, most_spare_bytes;
} opencl_device;

nyx_status nyx__cl_alloc(nyx_context *ctx, nyx_device *dev, size_t bytes,
                         void **data) NYX_MUST_CHECK;
void nyx__cl_free(nyx_device *dev, void *data);

/* What the vtable names. */
nyx_status nyx__cl_elementwise(nyx_context *ctx, nyx_device *dev,
                               const nyx_elementwise *job) NYX_MUST_CHECK;
nyx_status nyx__cl_reduce(nyx_context *ctx, nyx_device *dev,
                          const nyx_reduction *job) NYX_MUST_CHECK;

/* An error where the device cannot compute in this type. */
nyx_status nyx__cl_check(nyx_context *ctx, const opencl_device *d,
                         nyx_dtype compute) NYX_MUST_CHECK;

/* All below under d->lock. The kernel kept under `key`, or NULL; compiled from `source`,
 * which is freed (NULL: out of memory), and kept. */
cl_kernel nyx__cl_known(const opencl_device *d, const char *key);
nyx_status nyx__cl_build(nyx_context *ctx, opencl_device *d, const char *key,
                         char *source, cl_kernel *out) NYX_MUST_CHECK;

/* Whether int holds every count and place of a geometry. */
bool nyx__cl_narrow(const nyx_cl_geometry *s);

/* A kernel's arguments, set one after the other: anything, a number of the compute type,
 * a count or place, a geometry. `narrow` is that of the source. */
typedef struct cl_arguments {
  cl_kernel kernel;
  uint32_t next;
  cl_int code;
} cl_arguments;

void nyx__cl_argument(cl_arguments *a, size_t size, const void *value);
void nyx__cl_number(cl_arguments *a, nyx_dtype compute, double value);
void nyx__cl_index(cl_arguments *a, bool narrow, int64_t value);
void nyx__cl_geometry(cl_arguments *a, bool narrow, const nyx_cl_geometry *s);
/* Starts the kernel in so many groups of NYX_CL_GROUP; `name` is for errors. */
nyx_status nyx__cl_launch(nyx_context *ctx, opencl_device *d, cl_arguments *a,
                          const char *name, size_t groups) NYX_MUST_CHECK;

#endif
