/* The OpenCL device: elementwise rows and reductions, compiled from the rows' own
 * text on first use; everything else is "unsupported". The driver is opened at run time.
 * One lock per device guards its kernels, whose arguments are state. Read next: source.c
 * (what is compiled), cl.h (what is called). */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cl.h"
#include "source.h"

#define MAX_DEVICES 16
#define KEY_SIZE 128
#define SPARES 64

typedef struct kernel_entry {
  char key[KEY_SIZE];
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
  bool has_double;
  pthread_mutex_t lock;
  kernel_entry *kernels;
  pthread_mutex_t spare_lock;
  spare spares[SPARES]; /* the newest last */
  int n_spares;
  size_t spare_bytes, most_spare_bytes;
} opencl_device;

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

static nyx_status opencl_alloc(nyx_context *ctx, nyx_device *dev, size_t bytes,
                               void **data) {
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

static void opencl_free(nyx_device *dev, void *data) {
  opencl_device *d = self(dev);
  size_t bytes = 0;
  cl_int code = cl.GetMemObjectInfo(data, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
  if (code != CL_SUCCESS || bytes > d->most_spare_bytes) {
    cl.ReleaseMemObject(data);
    return;
  }
  pthread_mutex_lock(&d->spare_lock);
  drop_spares(d, SPARES - 1, d->most_spare_bytes - bytes);
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

static cl_kernel known(const opencl_device *d, const char *key) {
  for (const kernel_entry *e = d->kernels; e; e = e->next)
    if (strcmp(e->key, key) == 0) return e->kernel;
  return NULL;
}

static nyx_status check_compute(nyx_context *ctx, const opencl_device *d,
                                nyx_dtype compute) {
  if (compute == NYX_FLOAT64 && !d->has_double)
    return nyx__error(ctx, CL_DOUBLE, d->base.describe);
  return NYX_OK;
}

/* A number as the bytes of the compute type. */
typedef union cl_number {
  float f;
  double d;
  int32_t i;
  int64_t l;
} cl_number;

static cl_number as_compute(nyx_dtype compute, double value) {
  cl_number n;
  nyx__store_double(compute, &n, value);
  return n;
}

/* Sets arguments one after the other; the first failure stays. */
typedef struct arguments {
  cl_kernel kernel;
  uint32_t next;
  cl_int code;
} arguments;

static void argument(arguments *a, size_t size, const void *value) {
  cl_int code = cl.SetKernelArg(a->kernel, a->next++, size, value);
  if (a->code == CL_SUCCESS) a->code = code;
}

/* Starts the kernel with its arguments. A kernel's first run is waited for: it may
 * compile until then (see finish_at_exit). */
static nyx_status launch(nyx_context *ctx, opencl_device *d, arguments *a,
                         const char *name, size_t total, const size_t *width) {
  if (a->code == CL_SUCCESS)
    a->code = cl.EnqueueNDRangeKernel(d->queue, a->kernel, 1, NULL, &total, width, 0,
                                      NULL, NULL);
  if (a->code == CL_SUCCESS && d->kernels->kernel == a->kernel && !d->kernels->started) {
    d->kernels->started = true; /* the newest kernel, for the first time */
    a->code = cl.Finish(d->queue);
    if (!finish_at_exit) finish_at_exit = atexit(nyx__opencl_finish) == 0;
  }
  return a->code == CL_SUCCESS ? NYX_OK : failed(ctx, name, a->code);
}

static void describe_operand(nyx_cl_geometry *s, int k, const nyx_tensor *t,
                             const nyx_tensor *out) {
  nyx__broadcast_strides(t, out->ndim, s->stride[k]);
  s->offset[k] = t->offset;
}

static nyx_status opencl_elementwise(nyx_context *ctx, nyx_device *dev,
                                     const nyx_elementwise *job) {
  opencl_device *d = self(dev);
  size_t item = nyx_dtype_size(job->compute), total;
  unsigned numbers = 0;
  char key[KEY_SIZE];
  cl_kernel kernel;
  NYX_TRY(check_compute(ctx, d, job->compute));
  if (job->out->numel == 0) return NYX_OK;
  int used = snprintf(key, sizeof key, "%s/%d %d:", job->row->name, job->part,
                      (int)job->compute);
  for (int k = 0; k < 5; k++) {
    if (!job->in[k]) continue;
    bool is_number = nyx__on_cpu(job->in[k]);
    if (is_number) numbers |= 1u << k;
    used += snprintf(key + used, sizeof key - (size_t)used, " %d%c",
                     (int)job->in[k]->dtype, is_number ? 'n' : ' ');
  }
  snprintf(key + used, sizeof key - (size_t)used, " %d", (int)job->out->dtype);
  pthread_mutex_lock(&d->lock);
  nyx_status status = NYX_OK;
  if (!(kernel = known(d, key))) {
    char *source = nyx__cl_elementwise_source(job, numbers);
    status = source ? build(ctx, d, key, source, &kernel) : nyx__no_memory(ctx, 16384);
    nyx_memory_free(source);
  }
  if (status == NYX_OK) {
    nyx_cl_geometry s = {.n = job->out->numel, .ndim = job->out->ndim};
    arguments a = {kernel, 0, CL_SUCCESS};
    for (int i = 0; i < job->out->ndim; i++) s.shape[i] = job->out->shape[i];
    for (int k = 0; k < 5; k++) {
      if (!job->in[k]) continue;
      if (numbers >> k & 1) {
        cl_number v = as_compute(
            job->compute, nyx__load_double(job->in[k]->dtype, nyx__data(job->in[k])));
        argument(&a, item, &v);
      } else {
        describe_operand(&s, k, job->in[k], job->out);
        argument(&a, sizeof(cl_mem), &job->in[k]->storage->data);
      }
    }
    describe_operand(&s, NYX_CL_OPERANDS - 1, job->out, job->out);
    cl_number p = as_compute(job->compute, job->attr[0]);
    cl_number q = as_compute(job->compute, job->attr[1]);
    argument(&a, sizeof(cl_mem), &job->out->storage->data);
    argument(&a, sizeof s, &s);
    argument(&a, item, &p);
    argument(&a, item, &q);
    total = (size_t)job->out->numel;
    status = launch(ctx, d, &a, job->row->name, total, NULL);
  }
  pthread_mutex_unlock(&d->lock);
  return status;
}

/* The kernel under `key`, from `source` if it has to be built; frees the source. */
static nyx_status reduce_kernel(nyx_context *ctx, opencl_device *d, const char *key,
                                char *source, cl_kernel *kernel) {
  nyx_status status =
      source ? build(ctx, d, key, source, kernel) : nyx__no_memory(ctx, 16384);
  nyx_memory_free(source);
  return status;
}

static void reduce_key(char *key, const nyx_reduction *job, const char *form) {
  snprintf(key, KEY_SIZE, "reduce %s %s %d: %d %d", job->row->name, form,
           (int)job->compute, (int)job->in->dtype, (int)job->out->dtype);
}

static void reduce_numbers(arguments *a, const nyx_reduction *job, int64_t count) {
  cl_number n = as_compute(job->compute, (double)count);
  cl_number p = as_compute(job->compute, job->attr[0]);
  argument(a, nyx_dtype_size(job->compute), &n);
  argument(a, nyx_dtype_size(job->compute), &p);
}

/* One pass of a full reduction: `groups` groups over the s->n elements of `in`. */
static nyx_status reduce_pass(nyx_context *ctx, opencl_device *d,
                              const nyx_reduction *job, int pass, void *in, void *out,
                              nyx_cl_geometry *s, size_t groups) {
  char key[KEY_SIZE];
  cl_kernel kernel;
  reduce_key(key, job, pass ? "merge" : "groups");
  if (!(kernel = known(d, key)))
    NYX_TRY(reduce_kernel(ctx, d, key, nyx__cl_reduce_source(job, pass), &kernel));
  size_t width = NYX_CL_GROUP, total = groups * width;
  arguments a = {kernel, 0, CL_SUCCESS};
  argument(&a, sizeof(cl_mem), &in);
  argument(&a, sizeof(cl_mem), &out);
  argument(&a, width * nyx_dtype_size(job->compute), NULL);
  argument(&a, sizeof *s, s);
  reduce_numbers(&a, job, job->in->numel);
  return launch(ctx, d, &a, job->row->name, total, &width);
}

/* Full reductions, in two passes; groups depend on the size only, so results do too. */
static nyx_status reduce_all(nyx_context *ctx, nyx_device *dev,
                             const nyx_reduction *job) {
  opencl_device *d = self(dev);
  const nyx_tensor *in = job->in;
  size_t groups = ((size_t)in->numel + 4 * NYX_CL_GROUP - 1) / (4 * NYX_CL_GROUP);
  if (groups > NYX_CL_GROUPS) groups = NYX_CL_GROUPS;
  if (groups == 0) groups = 1;
  void *parts;
  NYX_TRY(opencl_alloc(ctx, dev, groups * nyx_dtype_size(job->compute), &parts));
  nyx_cl_geometry s = {.n = in->numel, .ndim = in->ndim};
  for (int i = 0; i < in->ndim; i++) s.shape[i] = in->shape[i];
  describe_operand(&s, 0, in, in);
  pthread_mutex_lock(&d->lock);
  nyx_status status = reduce_pass(ctx, d, job, 0, in->storage->data, parts, &s, groups);
  s.n = (int64_t)groups;
  s.offset[NYX_CL_OPERANDS - 1] = job->out->offset;
  if (status == NYX_OK)
    status = reduce_pass(ctx, d, job, 1, parts, job->out->storage->data, &s, 1);
  pthread_mutex_unlock(&d->lock);
  opencl_free(dev, parts);
  return status;
}

/* The dimensions of t whose bit in `dims` is `wanted`. */
static nyx_cl_geometry part_of(const nyx_tensor *t, uint32_t dims, bool wanted) {
  nyx_cl_geometry s = {.n = 1};
  for (int d = 0; d < t->ndim; d++) {
    if ((dims >> d & 1) != wanted) continue;
    s.shape[s.ndim] = t->shape[d];
    s.stride[0][s.ndim++] = t->stride[d];
    s.n *= t->shape[d];
  }
  return s;
}

static nyx_status reduce_dims(nyx_context *ctx, nyx_device *dev,
                              const nyx_reduction *job) {
  opencl_device *d = self(dev);
  char key[KEY_SIZE];
  cl_kernel kernel;
  nyx_cl_geometry kept = part_of(job->in, job->dims, false);
  nyx_cl_geometry reduced = part_of(job->in, job->dims, true);
  kept.offset[0] = job->in->offset;
  kept.offset[NYX_CL_OPERANDS - 1] = job->out->offset;
  reduce_key(key, job, "dims");
  pthread_mutex_lock(&d->lock);
  nyx_status status = NYX_OK;
  if (!(kernel = known(d, key)))
    status = reduce_kernel(ctx, d, key, nyx__cl_reduce_dims_source(job), &kernel);
  if (status == NYX_OK) {
    size_t total = (size_t)kept.n;
    arguments a = {kernel, 0, CL_SUCCESS};
    argument(&a, sizeof(cl_mem), &job->in->storage->data);
    argument(&a, sizeof(cl_mem), &job->out->storage->data);
    argument(&a, sizeof kept, &kept);
    argument(&a, sizeof reduced, &reduced);
    reduce_numbers(&a, job, reduced.n);
    status = launch(ctx, d, &a, job->row->name, total, NULL);
  }
  pthread_mutex_unlock(&d->lock);
  return status;
}

static nyx_status opencl_reduce(nyx_context *ctx, nyx_device *dev,
                                const nyx_reduction *job) {
  if (job->index || !job->row->combine) return nyx__error(ctx, UNSUPPORTED, dev->name);
  NYX_TRY(check_compute(ctx, self(dev), job->compute));
  bool all = job->dims == (1u << job->in->ndim) - 1;
  return all ? reduce_all(ctx, dev, job) : reduce_dims(ctx, dev, job);
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
  d->has_double = strstr(extensions, "cl_khr_fp64") != NULL;
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
      d->base.alloc = opencl_alloc;
      d->base.free = opencl_free;
      d->base.copy_in = opencl_copy_in;
      d->base.copy_out = opencl_copy_out;
      d->base.elementwise = opencl_elementwise;
      d->base.reduce = opencl_reduce;
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
