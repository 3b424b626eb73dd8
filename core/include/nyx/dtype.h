/* Element types. One row each in core/tensor/dtype.def; kinds order promotion:
 * bool < integer < float < complex. */
#ifndef NYX_DTYPE_H
#define NYX_DTYPE_H

#include "api.h"

typedef enum nyx_dtype {
  NYX_FLOAT32,
  NYX_FLOAT64,
  NYX_FLOAT16,
  NYX_BFLOAT16,
  NYX_INT8,
  NYX_UINT8,
  NYX_INT32,
  NYX_INT64,
  NYX_BOOL,
  NYX_COMPLEX64, /* two float32 side by side: the real part, the imaginary part */
  NYX_COMPLEX128,
  NYX_DTYPE_COUNT
} nyx_dtype;

typedef enum nyx_dtype_kind {
  NYX_KIND_BOOL,
  NYX_KIND_INT,
  NYX_KIND_FLOAT,
  NYX_KIND_COMPLEX
} nyx_dtype_kind;

/* Sets of dtypes, as ops declare them. */
#define NYX_DTYPES(dtype) (1u << (dtype))
#define NYX_DTYPES_FLOAT                                                                 \
  (NYX_DTYPES(NYX_FLOAT32) | NYX_DTYPES(NYX_FLOAT64) | NYX_DTYPES(NYX_FLOAT16) |         \
   NYX_DTYPES(NYX_BFLOAT16))
#define NYX_DTYPES_INT                                                                   \
  (NYX_DTYPES(NYX_INT8) | NYX_DTYPES(NYX_UINT8) | NYX_DTYPES(NYX_INT32) |                \
   NYX_DTYPES(NYX_INT64))
#define NYX_DTYPES_NUMBER (NYX_DTYPES_FLOAT | NYX_DTYPES_INT)
#define NYX_DTYPES_ALL (NYX_DTYPES_NUMBER | NYX_DTYPES(NYX_BOOL)) /* but complex */
#define NYX_DTYPES_COMPLEX (NYX_DTYPES(NYX_COMPLEX64) | NYX_DTYPES(NYX_COMPLEX128))

NYX_API const char *nyx_dtype_name(nyx_dtype dtype); /* "float32"; never NULL */
NYX_API size_t nyx_dtype_size(nyx_dtype dtype);      /* bytes per element */
NYX_API nyx_dtype_kind nyx_dtype_kind_of(nyx_dtype dtype);
NYX_API bool nyx_dtype_is_float(nyx_dtype dtype); /* real: not complex */
NYX_API bool nyx_dtype_is_complex(nyx_dtype dtype);
/* float32 of complex64, float64 of complex128; other dtypes themselves. */
NYX_API nyx_dtype nyx_dtype_real(nyx_dtype dtype);
/* Finds a dtype by name ("float32", or the short "f32"); false when there is none. */
NYX_API bool nyx_dtype_find(const char *name, nyx_dtype *out);
/* The dtype both convert to: the higher kind; within floats the wider, and float16 with
 * bfloat16 gives float32; within integers the wider, uint8 with int8 gives int32; complex
 * with float64 gives complex128. */
NYX_API nyx_dtype nyx_dtype_promote(nyx_dtype a, nyx_dtype b);

#endif
