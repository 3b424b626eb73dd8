/* Products of types narrower than what they are summed in: halves in float32, bytes in
 * int32. One struct of functions per unit that computes them (AMX tiles, dot products,
 * plain vectors); core/linalg/low.c does everything around. Read next: low_pack.h,
 * int8.c, half.c, unit/. */
#ifndef NYX_KERNELS_CPU_LOW_H
#define NYX_KERNELS_CPU_LOW_H

#include <stdbool.h>
#include <stdint.h>

/* C (float32 or int32, rows ldc apart) = A B, or C + A B. Rows and columns are whole
 * panels, terms whole steps. */
typedef struct nyx_low_block {
  int64_t rows, cols, terms;
  const void *a, *b;
  int64_t a_pitch; /* not 0: A is rows in place, so many bytes apart */
  void *c;
  int64_t ldc;
  bool add;
} nyx_low_block;

/* A is packed into panels of tile_rows rows, B into panels of tile_cols columns, by
 * blocks of at most `depth` terms, which are filled up to whole `step`s; what lies beyond
 * the matrix is zero in its terms and anything in its rows and columns. A panel of A
 * takes tile_rows * terms * item bytes, one of B as much per column and `extra` bytes
 * more. */
typedef struct nyx_low_kernel {
  const char *unit; /* what computes, for people: "AMX" */
  int64_t tile_rows, tile_cols;
  int64_t item;        /* bytes of a term in a panel */
  int64_t step, depth; /* terms */
  int64_t extra;       /* bytes */
  bool in_place;       /* whether it takes rows of A in place, as the matrix has them */
  /* Long sums for fewer elements of C are faster through converted inputs. */
  int64_t least;
  /* From elements at row * rs + col * cs of the narrow type. */
  void (*pack_a)(const void *a, int64_t rs, int64_t cs, int64_t rows, int64_t depth,
                 void *panels);
  void (*pack_b)(const void *b, int64_t rs, int64_t cs, int64_t depth, int64_t cols,
                 void *panels);
  void (*block)(const nyx_low_block *block);
  void (*begin)(void), (*end)(void); /* around blocks, in each thread; NULL: nothing */
} nyx_low_kernel;

/* y[i] = row i . x, for `count` rows of k half type elements, `pitch` elements apart,
 * summed in float32: as fast as the rows come from memory. */
typedef void (*nyx_low_dot)(const void *rows, int64_t pitch, int64_t count,
                            const float *x, int64_t k, float *y);

/* NULL: no kernel, the inputs are converted as a whole. Bytes have one always. */
typedef struct nyx_low_kernels {
  const nyx_low_kernel *bf16, *f16;
  nyx_low_dot dot_bf16, dot_f16; /* where bf16 and f16 are not NULL */
  const nyx_low_kernel *s8, *u8; /* int8 times int8, uint8 times int8 */
} nyx_low_kernels;

/* The kernels of the path in use, with what its CPU has beyond the path's instructions
 * (core/device/cpu/unit.c); never NULL. */
const nyx_low_kernels *nyx__low_kernels(void);

#endif
