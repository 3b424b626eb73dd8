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
 * of narrow types: "avxvnni", "avx512vnni", "avx512bf16", "amx"; on 64-bit ARM "base",
 * which is NEON, or "dotprod". What computes products of bfloat16, float16 or int8:
 * "AMX", "float32 FMA", ...; NULL for dtypes without. And the BLAS and its kernel, or
 * "none (...)" and why. Asking for these two opens them. */
NYX_API const char *nyx_cpu_path(void);
NYX_API const char *nyx_cpu_unit(nyx_dtype dtype);
NYX_API const char *nyx_blas_describe(void);

/* What the CPU has, and what of it the kernels use. Bytes are 0 where they are unknown.
 */
typedef struct nyx_cpu_facts {
  const char *name;        /* "AMD EPYC 9B45"; "" when unknown */
  const char *features;    /* instruction sets beyond the baseline: "avx2 fma"; or "" */
  int cores;               /* this process may use, by affinity and cgroup */
  size_t line, l1, l2, l3; /* bytes: of a line, of the data caches; l3 is shared */
  int vector_bytes;        /* of the path in use */
  int vector_registers;    /* it has */
  size_t in_place_bytes;   /* a matrix up to here is multiplied where it is */
} nyx_cpu_facts;

NYX_API void nyx_cpu_get(nyx_cpu_facts *out);

/* How products of a dtype are blocked: the part of the result that stays in registers,
 * and the packed parts of the factors that stay in caches. */
typedef struct nyx_cpu_tile {
  const char *unit;      /* what multiplies: "vectors", "AMX", ... */
  int64_t rows, columns; /* of the result in registers */
  int registers;  /* vector registers for it and for what it is made of; 0: others */
  int64_t depth;  /* terms of a block */
  size_t a_bytes; /* of a block of the first factor, for the second-level cache */
  size_t b_bytes; /* of a panel of the second, for the first */
} nyx_cpu_tile;

/* False for dtypes whose products have no kernel of their own. */
NYX_API bool nyx_cpu_tile_of(nyx_dtype dtype, nyx_cpu_tile *out);

#endif
