/* Matrix products, split over the threads by size. Read next: gemm.c (float32, float64,
 * integers), gemm_ways.c (measuring how), low.c (half types, bytes into
 * int32); core/op/matmul.c, the ops. */
#ifndef NYX_LINALG_GEMM_H
#define NYX_LINALG_GEMM_H

#include "../../kernels/cpu/gemm.h"
#include "../tensor/tensor.h"
#include "epilogue.h"

/* Products of equal size. Those of a batch lie at the batch strides (elements, any) from
 * one another in A and B; their results follow each other, m * ldc apart. */
typedef struct nyx_gemm {
  nyx_dtype dtype; /* any but the half types and bool; integers wrap */
  nyx_product product;
  int batch_ndim;
  int64_t batch_shape[NYX_MAX_DIMS];
  int64_t a_batch[NYX_MAX_DIMS], b_batch[NYX_MAX_DIMS];
  /* Where A or B lies, if packed forms of it are to be kept: packed.h. */
  nyx_storage *keep_a, *keep_b;
  const nyx_epilogue *after; /* NULL: nothing */
} nyx_gemm;

/* Computes all of it. Fails when interrupted, or without memory for partial sums. */
nyx_status nyx__gemm(nyx_context *ctx, const nyx_gemm *g) NYX_MUST_CHECK;

/* The ways to do that, from which a fixed rule by size chooses. All are within the
 * accuracy of the op, they sum in different orders. */
typedef enum nyx__gemm_way {
  NYX__GEMM_SLABS,     /* parts, each a call of a BLAS */
  NYX__GEMM_FINE,      /* more, thinner ones */
  NYX__GEMM_ONE,       /* undivided, in this thread */
  NYX__GEMM_FEW,       /* parts that read few rows or columns with all of the rest once */
  NYX__GEMM_SLABS_OWN, /* the built-in product in place of the BLAS */
  NYX__GEMM_ONE_OWN,
  NYX__GEMM_PLACE,   /* parts, of which nothing but a B that lies turned is packed */
  NYX__GEMM_ROWS,    /* shared by the threads, B where it is: each takes rows */
  NYX__GEMM_COLUMNS, /* or columns */
  NYX__GEMM_PACKING, /* or columns, which it packs */
  NYX__GEMM_PACKED,  /* shared, both packed */
  NYX__GEMM_PACKED_SHALLOW, /* in blocks of fewer terms */
  NYX__GEMM_PACKED_DEEP,    /* or more */
  NYX__GEMM_WAYS
} nyx__gemm_way;

/* A matrix B of so many bytes stays in the second cache as it is. */
int64_t nyx__gemm_in_place_bytes(void);
/* Terms of a block of a product whose B is packed, at most. */
int64_t nyx__gemm_depth(const nyx_gemm_kernel *kernel, int64_t item);
nyx__gemm_way nyx__gemm_rule(const nyx_gemm *g);
uint32_t nyx__gemm_usable(const nyx_gemm *g); /* bit i: way i can compute it */
nyx_status nyx__gemm_by(nyx_context *ctx, const nyx_gemm *g,
                        nyx__gemm_way way) NYX_MUST_CHECK;

/* low.c: products of types narrower than what they are summed in. dtype is A's: bfloat16
 * or float16, both factors, summed in float32 and stored as `out`, which is one of these
 * or float32; or int8 or uint8 times an int8 B, exact sums in int32, with nothing after.
 * Does not add to C. */
nyx_status nyx__gemm_low(nyx_context *ctx, const nyx_gemm *g,
                         nyx_dtype out) NYX_MUST_CHECK;

/* The ways to do that, of which the first is the rule: all within the accuracy of the op,
 * equal bits of bytes. They differ in one thing each; of few rows of a half type, which
 * the first two need not pack, in that. */
typedef enum nyx__low_way {
  NYX__LOW_SHARED,  /* by all threads, A in place where it can be */
  NYX__LOW_ONE,     /* in this thread */
  NYX__LOW_SHALLOW, /* in blocks of half as many terms */
  NYX__LOW_DEEP,    /* of twice as many */
  NYX__LOW_SMALL,   /* in units of C of half as many rows and columns */
  NYX__LOW_LARGE,   /* of twice as many */
  NYX__LOW_PACKED,  /* A packed, where it could be read in place */
  NYX__LOW_WAYS
} nyx__low_way;

uint32_t nyx__gemm_low_usable(const nyx_gemm *g); /* bit i: way i can compute it */
nyx_status nyx__gemm_low_by(nyx_context *ctx, const nyx_gemm *g, nyx_dtype out,
                            nyx__low_way way) NYX_MUST_CHECK;

/* Whether there are kernels for a half type, and they are faster than converting the
 * inputs: they waste what is left of a tile. */
bool nyx__gemm_low_takes(const nyx_gemm *g);
/* Whether it has tiles of its own in the CPU, many times as fast as float32: then copying
 * what is multiplied is worth it. */
bool nyx__gemm_low_tiles(nyx_dtype dtype);

/* One product in the calling thread, for kernels that are parallel themselves. */
void nyx__gemm_here(nyx_dtype dtype, const nyx_product *p);

#endif
