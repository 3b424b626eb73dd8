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
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
/* Every copy would have checks of its own, and take GCC up to a minute per file. */
#define UNROLL _Pragma("GCC unroll 1")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Makes the compiler hold a vector in a register: it would read one again for each use,
 * and most lie across two lines of the cache. */
#if defined(__x86_64__)
#define HOLD(v) __asm__("" : "+v"(v))
#else
#define HOLD(v) (void)(v)
#endif

/* What reads or writes a part of a vector: an instruction, or else many that are rarely
 * needed. */
#if defined(__AVX2__)
#define PART_INLINE ALWAYS_INLINE
#else
#define PART_INLINE __attribute__((noinline, unused))
#endif

#endif
