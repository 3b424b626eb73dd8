/* The OpenCL device: opening it, its memory, kernels compiled on first use and kept.
 * Elementwise rows and reductions run there; other ops where these are all they need. The
 * driver is opened at run time. One lock per device guards its kernels, whose arguments
 * are state. Read next: elementwise.c, reduce.c, source.c (what is compiled), cl.h (what
 * is called). */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opencl.h"
#include "source.h"

#define MAX_DEVICES 16

static cl_library cl;
static bool cl_open;
static opencl_device *_Atomic devices[MAX_DEVICES];
static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;

/* Drivers compile and run kernels in threads of their own, and crash when the process
 * takes their libraries down meanwhile. So the queues are finished when a context goes,
 * and at exit; what a driver sets up on its first compilation is taken down before
 * handlers registered earlier run, hence the registration after that (launch). */
static atomic_bool finish_at_exit;

void nyx__opencl_finish(void) {
  for (int i = 0; i < MAX_DEVICES; i++)
    if (devices[i]) cl.Finish(devices[i]->queue);
}

static opencl_device *self(nyx_device *dev) {
  return (opencl_device *)dev;
}

static nyx_status failed(nyx_context *ctx, const char *what, cl_int code) {
  bool memory = code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_RESOURCES ||
                code == CL_OUT_OF_HOST_MEMORY || code == CL_INVALID_BUFFER_SIZE;
  return memory ? nyx__error(ctx, CL_MEMORY, what, (int)code)
                : nyx__error(ctx, CL_FAILED, what, (int)code);
}

/* Opening */

static nyx_status open_library(nyx_context *ctx) {
  if (cl_open) return NYX_OK;
  void *library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen("libOpenCL.so", RTLD_NOW | RTLD_LOCAL);
  if (!library) return nyx__error(ctx, CL_MISSING);
#define CL_FUNCTION(result, name, arguments)                                             \
  *(void **)&cl.name = dlsym(library, "cl" #name);                                       \
  if (!cl.name) return nyx__error(ctx, CL_SYMBOL, "cl" #name);
  CL_FUNCTIONS
#undef CL_FUNCTION
  cl_open = true;
  return NYX_OK;
}

/* The device number `number`, counting through all platforms. */
static nyx_status find_device(nyx_context *ctx, int number, cl_device *out) {
  cl_platform platforms[MAX_DEVICES];
  uint32_t n_platforms = 0, seen = 0;
  cl_int code = cl.GetPlatformIDs(MAX_DEVICES, platforms, &n_platforms);
  if (code == CL_PLATFORM_NOT_FOUND_KHR || n_platforms == 0)
    return nyx__error(ctx, CL_NO_PLATFORM);
  if (code != CL_SUCCESS) return failed(ctx, "clGetPlatformIDs", code);
  for (uint32_t i = 0; i < n_platforms && i < MAX_DEVICES; i++) {
    cl_device ids[MAX_DEVICES];
    uint32_t n = 0;
    code = cl.GetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, MAX_DEVICES, ids, &n);
    if (code != CL_SUCCESS || n == 0) continue;
    if (n > MAX_DEVICES) n = MAX_DEVICES;
    if ((uint32_t)number < seen + n) {
      *out = ids[(uint32_t)number - seen];
      return NYX_OK;
    }
    seen += n;
  }
  return nyx__error(ctx, CL_NO_DEVICE, number, (int)seen);
}

/* Memory */

/* Buffers are kept for the next result of their size: a new one costs a driver as much as
 * hundreds of megabytes of arithmetic. The queue runs commands in order, so what still
 * uses a buffer comes before whatever its next owner starts. */

static size_t rounded(size_t bytes) {
  size_t part = bytes < 4096 ? 256 : 4096;
  return bytes ? (bytes + part - 1) / part * part : part;
}

static void remove_spare(opencl_device *d, int i) {
  d->spare_bytes -= d->spares[i].bytes;
  d->n_spares--;
  memmove(d->spares + i, d->spares + i + 1, (size_t)(d->n_spares - i) * sizeof(spare));
}

static cl_mem take_spare(opencl_device *d, size_t bytes) {
  cl_mem found = NULL;
  pthread_mutex_lock(&d->spare_lock);
  for (int i = d->n_spares - 1; i >= 0 && !found; i--) {
    if (d->spares[i].bytes != bytes) continue;
    found = d->spares[i].buffer;
    remove_spare(d, i);
  }
  pthread_mutex_unlock(&d->spare_lock);
  return found;
}

/* Releases the oldest until there are at most so many of so many bytes. */
static void drop_spares(opencl_device *d, int most, size_t most_bytes) {
  while (d->n_spares > most || d->spare_bytes > most_bytes) {
    cl.ReleaseMemObject(d->spares[0].buffer); /* commands that use it keep it alive */
    remove_spare(d, 0);
  }
}

static void drop_all_spares(opencl_device *d) {
  pthread_mutex_lock(&d->spare_lock);
  drop_spares(d, 0, 0);
  pthread_mutex_unlock(&d->spare_lock);
}

void nyx__opencl_trim(void) {
  for (int i = 0; i < MAX_DEVICES; i++)
    if (devices[i]) drop_all_spares(devices[i]);
}

nyx_status nyx__cl_alloc(nyx_context *ctx, nyx_device *dev, size_t bytes, void **data) {
  opencl_device *d = self(dev);
  cl_int code = CL_SUCCESS;
  size_t room = rounded(bytes);
  if ((*data = take_spare(d, room))) return NYX_OK;
  *data = cl.CreateBuffer(d->context, CL_MEM_READ_WRITE, room, NULL, &code);
  if (code != CL_SUCCESS) {
    drop_all_spares(d);
    *data = cl.CreateBuffer(d->context, CL_MEM_READ_WRITE, room, NULL, &code);
  }
  return code == CL_SUCCESS ? NYX_OK : failed(ctx, "clCreateBuffer", code);
}

void nyx__cl_free(nyx_device *dev, void *data) {
  opencl_device *d = self(dev);
  size_t bytes = 0;
  cl_int code = cl.GetMemObjectInfo(data, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
  if (code != CL_SUCCESS || bytes > d->most_spare_bytes) {
    cl.ReleaseMemObject(data);
    return;
  }
  pthread_mutex_lock(&d->spare_lock);
  drop_spares(d, NYX_CL_SPARES - 1, d->most_spare_bytes - bytes);
  d->spares[d->n_spares++] = (spare){data, bytes};
  d->spare_bytes += bytes;
  pthread_mutex_unlock(&d->spare_lock);
}

static nyx_status opencl_copy_in(nyx_context *ctx, nyx_device *dev, void *data,
                                 size_t offset, const void *host, size_t bytes) {
  if (bytes == 0) return NYX_OK;
  cl_int code = cl.EnqueueWriteBuffer(self(dev)->queue, data, CL_TRUE, offset, bytes,
                                      host, 0, NULL, NULL);
  return code == CL_SUCCESS ? NYX_OK : failed(ctx, "clEnqueueWriteBuffer", code);
}

static nyx_status opencl_copy_out(nyx_context *ctx, nyx_device *dev, void *data,
                                  size_t offset, void *host, size_t bytes) {
  if (bytes == 0) return NYX_OK;
  cl_int code = cl.EnqueueReadBuffer(self(dev)->queue, data, CL_TRUE, offset, bytes, host,
                                     0, NULL, NULL);
  return code == CL_SUCCESS ? NYX_OK : failed(ctx, "clEnqueueReadBuffer", code);
}

/* Kernels */

static nyx_status build_error(nyx_context *ctx, opencl_device *d, cl_program program,
                              const char *key, cl_int code) {
  char log[600] = "";
  size_t length = 0;
  cl.GetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log,
                         &length);
  return nyx__error(ctx, CL_BUILD, key, (int)code, log);
}

/* Compiles a source and remembers the kernel under `key`. */
static nyx_status build(nyx_context *ctx, opencl_device *d, const char *key,
                        const char *source, cl_kernel *out) {
  cl_int code;
  kernel_entry *entry = nyx_memory_alloc(sizeof *entry);
  if (!entry) return nyx__no_memory(ctx, sizeof *entry);
  cl_program program = cl.CreateProgramWithSource(d->context, 1, &source, NULL, &code);
  nyx_status status = NYX_OK;
  if (code != CL_SUCCESS) {
    nyx_memory_free(entry);
    return failed(ctx, "clCreateProgramWithSource", code);
  }
  code = cl.BuildProgram(program, 1, &d->id, "-cl-std=CL1.2", NULL, NULL);
  if (code != CL_SUCCESS) {
    status = build_error(ctx, d, program, key, code);
  } else {
    entry->kernel = cl.CreateKernel(program, "run", &code);
    if (code != CL_SUCCESS) status = failed(ctx, "clCreateKernel", code);
  }
  cl.ReleaseProgram(program); /* the kernel keeps it */
  if (status != NYX_OK) {
    nyx_memory_free(entry);
    return status;
  }
  snprintf(entry->key, sizeof entry->key, "%s", key);
  entry->started = false;
  entry->next = d->kernels;
  d->kernels = entry;
  *out = entry->kernel;
  return NYX_OK;
}

cl_kernel nyx__cl_known(const opencl_device *d, const char *key) {
  for (const kernel_entry *e = d->kernels; e; e = e->next)
    if (strcmp(e->key, key) == 0) return e->kernel;
  return NULL;
}

nyx_status nyx__cl_build(nyx_context *ctx, opencl_device *d, const char *key,
                         char *source, cl_kernel *out) {
  nyx_status status =
      source ? build(ctx, d, key, source, out) : nyx__no_memory(ctx, 16384);
  nyx_memory_free(source);
  return status;
}

nyx_status nyx__cl_check(nyx_context *ctx, const opencl_device *d, nyx_dtype compute) {
  if (compute == NYX_FLOAT64 && !d->base.float64)
    return nyx__error(ctx, CL_DOUBLE, d->base.describe);
  return NYX_OK;
}

/* Arguments. The first failure stays. */

void nyx__cl_argument(cl_arguments *a, size_t size, const void *value) {
  cl_int code = cl.SetKernelArg(a->kernel, a->next++, size, value);
  if (a->code == CL_SUCCESS) a->code = code;
}

void nyx__cl_number(cl_arguments *a, nyx_dtype compute, double value) {
  union {
    float f;
    double d;
    int32_t i;
    int64_t l;
  } n;
  nyx__store_double(compute, &n, value);
  nyx__cl_argument(a, nyx_dtype_size(compute), &n);
}

void nyx__cl_index(cl_arguments *a, bool narrow, int64_t value) {
  int32_t small = (int32_t)value;
  nyx__cl_argument(a, narrow ? sizeof small : sizeof value,
                   narrow ? (void *)&small : (void *)&value);
}

void nyx__cl_geometry(cl_arguments *a, bool narrow, const nyx_cl_geometry *s) {
  enum { NUMBERS = sizeof *s / sizeof(int64_t) };
  const int64_t *from = (const int64_t *)(const void *)s;
  int32_t small[NUMBERS];
  for (int i = 0; narrow && i < NUMBERS; i++) small[i] = (int32_t)from[i];
  nyx__cl_argument(a, narrow ? sizeof small : sizeof *s,
                   narrow ? (const void *)small : (const void *)s);
}

/* Counts and places below this are int: a place is the sum of one along what is kept and
 * one along what is reduced. */
#define NARROW ((int64_t)1 << 30)

bool nyx__cl_narrow(const nyx_cl_geometry *s) {
  if (s->n >= NARROW) return false;
  for (int k = 0; k < NYX_CL_OPERANDS; k++) {
    int64_t reach = llabs(s->offset[k]);
    for (int d = 0; d < s->ndim; d++)
      if (s->shape[d] > 1) reach += (s->shape[d] - 1) * llabs(s->stride[k][d]);
    if (reach >= NARROW) return false;
  }
  return true;
}

/* A kernel's first run is waited for: it may compile until then (see finish_at_exit). */
nyx_status nyx__cl_launch(nyx_context *ctx, opencl_device *d, cl_arguments *a,
                          const char *name, size_t groups) {
  const size_t width = NYX_CL_GROUP, total = groups * width;
  if (a->code == CL_SUCCESS)
    a->code = cl.EnqueueNDRangeKernel(d->queue, a->kernel, 1, NULL, &total, &width, 0,
                                      NULL, NULL);
  if (a->code == CL_SUCCESS && d->kernels->kernel == a->kernel && !d->kernels->started) {
    d->kernels->started = true; /* the newest kernel, for the first time */
    a->code = cl.Finish(d->queue);
    if (!finish_at_exit) finish_at_exit = atexit(nyx__opencl_finish) == 0;
  }
  return a->code == CL_SUCCESS ? NYX_OK : failed(ctx, name, a->code);
}

static nyx_status opencl_structural(nyx_device *dev, nyx_call *call) {
  return nyx__error(call->ctx, UNSUPPORTED, dev->name);
}

/* Finding and keeping devices */

static nyx_status open_device(nyx_context *ctx, int number, opencl_device *d) {
  cl_int code;
  char name[100] = "", extensions[4096] = "";
  uint64_t memory = 0;
  NYX_TRY(find_device(ctx, number, &d->id));
  d->context = cl.CreateContext(NULL, 1, &d->id, NULL, NULL, &code);
  if (code != CL_SUCCESS) return failed(ctx, "clCreateContext", code);
  d->queue = cl.CreateCommandQueue(d->context, d->id, 0, &code);
  if (code != CL_SUCCESS) return failed(ctx, "clCreateCommandQueue", code);
  cl.GetDeviceInfo(d->id, CL_DEVICE_NAME, sizeof name - 1, name, NULL);
  cl.GetDeviceInfo(d->id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof memory, &memory, NULL);
  cl.GetDeviceInfo(d->id, CL_DEVICE_EXTENSIONS, sizeof extensions - 1, extensions, NULL);
  d->base.float64 = strstr(extensions, "cl_khr_fp64") != NULL;
  d->most_spare_bytes = (size_t)memory / 8;
  snprintf(d->base.describe, sizeof d->base.describe, "%s, %.1f GiB", name,
           (double)memory / (1024.0 * 1024 * 1024));
  return NYX_OK;
}

nyx_status nyx__opencl(nyx_context *ctx, int number, nyx_device **out) {
  if (number >= MAX_DEVICES) return nyx__error(ctx, CL_NO_DEVICE, number, MAX_DEVICES);
  pthread_mutex_lock(&devices_lock);
  nyx_status status = open_library(ctx);
  opencl_device *d = devices[number];
  if (status == NYX_OK && !d) {
    d = nyx_memory_alloc_zeroed(sizeof *d);
    status = d ? open_device(ctx, number, d) : nyx__no_memory(ctx, sizeof *d);
    if (status == NYX_OK) {
      snprintf(d->name, sizeof d->name, number ? "opencl:%d" : "opencl", number);
      d->base.name = d->name;
      d->base.alloc = nyx__cl_alloc;
      d->base.free = nyx__cl_free;
      d->base.copy_in = opencl_copy_in;
      d->base.copy_out = opencl_copy_out;
      d->base.elementwise = nyx__cl_elementwise;
      d->base.reduce = nyx__cl_reduce;
      d->base.structural = opencl_structural;
      pthread_mutex_init(&d->lock, NULL);
      pthread_mutex_init(&d->spare_lock, NULL);
      devices[number] = d;
    } else {
      nyx_memory_free(d);
    }
  }
  if (status == NYX_OK) *out = &d->base;
  pthread_mutex_unlock(&devices_lock);
  return status;
}
