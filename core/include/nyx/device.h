/* Devices by name: "cpu", "opencl", "opencl:1". GPU drivers are opened at run time. */
#ifndef NYX_DEVICE_H
#define NYX_DEVICE_H

#include "tensor.h"

/* Finds and opens a device; it lives as long as the process. */
NYX_API NYX_MUST_CHECK nyx_status nyx_device_find(nyx_context *ctx, const char *name,
                                                  nyx_device **out);
NYX_API const char *nyx_device_name(const nyx_device *device);
/* What it is, in words: "Intel Xeon, avx512". */
NYX_API const char *nyx_device_describe(const nyx_device *device);
/* Copies to a device; gives t itself, retained, when it is there already. Differentiable.
 */
NYX_API NYX_MUST_CHECK nyx_status nyx_tensor_to(nyx_context *ctx, nyx_tensor *t,
                                                nyx_device *device, nyx_tensor **out);

/* The CPU path in use: "base", "avx2", "avx512", or one of these with more for products
 * of narrow types: "avxvnni", "avx512vnni", "avx512bf16", "amx". What computes products
 * of bfloat16, float16 or int8: "AMX", "float32 FMA", ...; NULL for dtypes without. And
 * the BLAS and its kernel, or "none (...)" and why. Asking for these two opens them. */
NYX_API const char *nyx_cpu_path(void);
NYX_API const char *nyx_cpu_unit(nyx_dtype dtype);
NYX_API const char *nyx_blas_describe(void);

#endif
