/* The kernels of all elementwise rows and of all dtype conversions, on one path.
 * Read next: elementwise_rows.h (how a row becomes functions), convert.c,
 * core/device/cpu/elementwise.c (who calls them). */
#ifndef NYX_KERNELS_CPU_ELEMENTWISE_H
#define NYX_KERNELS_CPU_ELEMENTWISE_H

#include <nyx/dtype.h>

#include "cpu.h"

/* The position of every row of elementwise.def. */
enum {
#define NYX_UNARY(name, ...) NYX_KERNEL_##name,
#define NYX_BINARY(name, ...) NYX_KERNEL_##name,
#define NYX_TERNARY(name, ...) NYX_KERNEL_##name,
#include "../elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY
  NYX_KERNEL_COUNT
};

/* The types kernels compute in; and those that some rows also have kernels of their own
 * for, which take operands of that type only. */
enum { NYX_IN_FLOAT32, NYX_IN_FLOAT64, NYX_IN_INT32, NYX_IN_INT64, NYX_IN_COUNT };
enum { NYX_OWN_INT8, NYX_OWN_UINT8, NYX_OWN_BOOL, NYX_OWN_COUNT };

/* out[0..n-1] from contiguous inputs of the compute type: x y z, or g x y z r for a
 * gradient. Every pointer that the text does not use may be any valid address. Rows with
 * a bool result write bytes, the others the compute type; attr is p and q. out may be one
 * of the inputs. */
typedef void (*nyx_elementwise_fn)(int64_t n, const void *const *in, void *out,
                                   const double *attr);
/* Forward, then the gradients of x, y, z; NULL where there is none. */
typedef nyx_elementwise_fn nyx_elementwise_parts[4];
/* Bytes from what is computed to the inputs that are asked for, by functions that write
 * past the caches: the caches' own guesses end too soon for many instructions. */
#define NYX_AHEAD_BYTES 4096
#define NYX_AHEAD_FROM 16384 /* elements: fewer are in the first cache, or soon */
#define NYX_AHEAD_LEAST 256  /* elements: fewer are a piece of a tile and end there */

/* n elements of some dtype, `stride` elements apart, to or from contiguous elements of a
 * compute type. Floats become the nearest integer towards zero, cut to the range of the
 * type, a NaN 0; integers wrap; bool is x != 0. */
typedef void (*nyx_gather_fn)(int64_t n, const void *src, int64_t stride, void *dst);
typedef void (*nyx_scatter_fn)(int64_t n, const void *src, void *dst, int64_t stride);

typedef struct nyx_elementwise_kernels {
  const nyx_elementwise_parts *rows[NYX_IN_COUNT]; /* [compute][row][part] */
  /* [type][row], forward; NULL: none, or none that differs from int8's. */
  const nyx_elementwise_fn *own[NYX_OWN_COUNT];
  /* [row], forward in float32: writes past the caches (see move.h), to where a line of 64
   * bytes begins, and asks for inputs ahead. NULL: a bool result. */
  const nyx_elementwise_fn *past;
  nyx_gather_fn gather[NYX_DTYPE_COUNT][NYX_IN_COUNT];
  nyx_scatter_fn scatter[NYX_IN_COUNT][NYX_DTYPE_COUNT];
} nyx_elementwise_kernels;

#endif
