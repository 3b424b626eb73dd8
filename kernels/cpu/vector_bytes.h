/* How wide the vectors of this instruction-set path are. */
#ifndef NYX_KERNELS_CPU_VECTOR_BYTES_H
#define NYX_KERNELS_CPU_VECTOR_BYTES_H

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

#endif
