/* What each instruction-set path exports. Every kernels/cpu/NAME.c is compiled once per
 * path with -DNYX_CPU_PATH=base|avx2|avx512 and that path's flags; the symbols it defines
 * carry the path's name through NYX_PATH(). path.c gathers them in the one table of the
 * path. nyx__cpu_kernels() is the table of the path chosen at start
 * (core/device/cpu/path.c). */
#ifndef NYX_KERNELS_CPU_H
#define NYX_KERNELS_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NYX_PATH_JOIN2(name, path) nyx__##name##_##path
#define NYX_PATH_JOIN(name, path) NYX_PATH_JOIN2(name, path)
#define NYX_PATH(name) NYX_PATH_JOIN(name, NYX_CPU_PATH) /* nyx__<name>_<path> */

struct nyx_elementwise_kernels; /* elementwise.h */
struct nyx_reduce_kernels;      /* reduce.h */
struct nyx_gemm_kernels;        /* gemm.h; path.c: .gemm = &NYX_PATH(gemm) */

struct nyx_low_kernels;        /* low.h; path.c: .low = &NYX_PATH(low) */
struct nyx_move_kernels;       /* move.h */
struct nyx_scan_kernels;       /* scan.h */
struct nyx_softmax_kernels;    /* softmax.h */
struct nyx_norm_kernels;       /* norm.h */
struct nyx_attention_kernels;  /* attention.h */
struct nyx_recurrence_kernels; /* recurrence.h */
struct nyx_optim_kernels;      /* optim.h; path.c: .optim = &NYX_PATH(optim) */
struct nyx_depthwise_kernels;  /* depthwise.h */
struct nyx_patches_kernels;    /* patches.h */
struct nyx_pool_kernels;       /* pool.h */
struct nyx_quantized_kernels;  /* quantized.h */
struct nyx_winograd_kernels;   /* winograd.h */
struct nyx_last_kernels;       /* last.h */
struct nyx_rotary_kernels;     /* rotary.h */
struct nyx_narrow_kernels;     /* narrow.h */
struct nyx_fft_kernels;        /* fft.h */
struct nyx_complex_kernels;    /* complex.h */
struct nyx_random_kernels;     /* random.h */
struct nyx_distance_kernels;   /* distance.h */
struct nyx_reach_kernels;      /* reach.h */
struct nyx_matrices_kernels;   /* matrices.h */

typedef struct nyx_cpu_kernels {
  const char *name;  /* "base", "avx2", "avx512", or what is beyond: "amx" */
  const char *width; /* the path that the tables are of: "avx512" for "amx" */
  const struct nyx_elementwise_kernels *elementwise;
  const struct nyx_reduce_kernels *reduce;
  const struct nyx_gemm_kernels *gemm;
  const struct nyx_low_kernels *low;
  const struct nyx_move_kernels *move;
  const struct nyx_scan_kernels *scan;
  const struct nyx_softmax_kernels *softmax;
  const struct nyx_norm_kernels *norm;
  const struct nyx_attention_kernels *attention;
  const struct nyx_recurrence_kernels *recurrence;
  const struct nyx_optim_kernels *optim;
  const struct nyx_depthwise_kernels *depthwise;
  const struct nyx_patches_kernels *patches;
  const struct nyx_pool_kernels *pool;
  const struct nyx_quantized_kernels *quantized;
  const struct nyx_winograd_kernels *winograd;
  const struct nyx_last_kernels *last;
  const struct nyx_rotary_kernels *rotary;
  const struct nyx_narrow_kernels *narrow;
  const struct nyx_fft_kernels *fft;
  const struct nyx_complex_kernels *complex;
  const struct nyx_random_kernels *random;
  const struct nyx_distance_kernels *distance;
  const struct nyx_reach_kernels *reach;
  const struct nyx_matrices_kernels *matrices;
} nyx_cpu_kernels;

/* Chosen once by CPUID and XGETBV, or by NYX_CPU; never NULL. */
const nyx_cpu_kernels *nyx__cpu_kernels(void);

#endif
