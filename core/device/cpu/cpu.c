/* The CPU device: host memory, and kernels chosen by instruction set.
 * Read next: path.c (the choice), elementwise.c, reduce.c. */
#include "core/base/cpu.h"
#include "cpu.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static nyx_status cpu_alloc(nyx_context *ctx, nyx_device *dev, size_t bytes,
                            void **data) {
  (void)dev;
  NYX_TRY(nyx__cpu_path_check(ctx));
  *data = nyx_memory_alloc(bytes);
  return *data ? NYX_OK : nyx__no_memory(ctx, bytes);
}

static void cpu_free(nyx_device *dev, void *data) {
  (void)dev;
  nyx_memory_free(data);
}

static nyx_status cpu_copy_in(nyx_context *ctx, nyx_device *dev, void *data,
                              size_t offset, const void *host, size_t bytes) {
  (void)ctx, (void)dev;
  if (bytes) memcpy((char *)data + offset, host, bytes);
  return NYX_OK;
}

static nyx_status cpu_copy_out(nyx_context *ctx, nyx_device *dev, void *data,
                               size_t offset, void *host, size_t bytes) {
  (void)ctx, (void)dev;
  if (bytes) memcpy(host, (const char *)data + offset, bytes);
  return NYX_OK;
}

static nyx_status cpu_structural(nyx_device *dev, nyx_call *call) {
  (void)dev;
  return call->op->cpu(call);
}

static nyx_device cpu = {
    .name = "cpu",
    .float64 = true,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .copy_in = cpu_copy_in,
    .copy_out = cpu_copy_out,
    .elementwise = nyx__cpu_elementwise,
    .reduce = nyx__cpu_reduce,
    .structural = cpu_structural,
};

nyx_device *nyx__cpu(void) {
  return &cpu;
}

static void describe(void) {
  const nyx_cpu_info *info = nyx__cpu_info();
  snprintf(cpu.describe, sizeof cpu.describe, "%s, %s",
           info->brand[0] ? info->brand : "unknown processor", nyx_cpu_path());
}

const char *nyx__cpu_describe(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, describe);
  return cpu.describe;
}
