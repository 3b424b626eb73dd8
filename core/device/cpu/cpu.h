/* The parts of the CPU device. Read next: cpu.c, path.c, elementwise.c, reduce.c. */
#ifndef NYX_DEVICE_CPU_CPU_H
#define NYX_DEVICE_CPU_CPU_H

#include "../../../kernels/cpu/cpu.h"
#include "../device.h"

nyx_status nyx__cpu_elementwise(nyx_context *ctx, nyx_device *dev,
                                const nyx_elementwise *job) NYX_MUST_CHECK;
nyx_status nyx__cpu_reduce(nyx_context *ctx, nyx_device *dev,
                           const nyx_reduction *job) NYX_MUST_CHECK;

/* "Intel Xeon ..., avx512"; found out on first use. */
const char *nyx__cpu_describe(void);

/* Fails when NYX_CPU names a path that does not exist or that this CPU cannot run; then
 * the base path stands in, so that the message can be shown. */
nyx_status nyx__cpu_path_check(nyx_context *ctx) NYX_MUST_CHECK;
/* The table of a path, NULL if this CPU cannot run it: tests go through all of them. */
const nyx_cpu_kernels *nyx__cpu_path_find(const char *name);

#endif
