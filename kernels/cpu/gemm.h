/* The built-in matrix product of one instruction-set path: what Nyx uses without a BLAS,
 * for strides no BLAS takes and for products too small for one. Single-threaded;
 * core/linalg/gemm.c splits larger products. Read next: gemm.c, gemm_type.h. */
#ifndef NYX_KERNELS_CPU_GEMM_H
#define NYX_KERNELS_CPU_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "patches.h"

/* How a piece is packed: alone, after a tile; copied during one, which lies in panels as
 * it does in the matrix; or turned after one, and copied during the next. */
typedef enum nyx_packing_way {
  NYX_PACKING_ALONE,
  NYX_PACKING_COPIES,
  NYX_PACKING_TURNS
} nyx_packing_way;

#define NYX_STAGE_BYTES (33 << 10)

/* Rows of A, or columns of B, on their way into panels, in pieces: element (i, l) lies at
 * i * across + l * along, i < count, l < depth terms. */
typedef struct nyx_packing {
  const void *from;
  int64_t across, along, count, depth;
  int64_t width; /* of a panel; `fill`: of the last one too, with zeros */
  bool fill;
  void *panels;
  void *stage; /* NYX_STAGE_BYTES for pieces that have to be turned, or NULL */
  /* Set by `divide`: terms of a piece; its rows or columns, whole panels; the next piece
   * and their number; whether it is on its way into the second cache, or staged. */
  int64_t terms, piece, at, pieces;
  bool asked, staged;
  nyx_packing_way way;
} nyx_packing;

/* C = A B, or C + A B when `add`. A is m x k, B k x n; their elements lie at row * rs +
 * col * cs, any strides. Rows of C are contiguous, ldc apart. All in elements. */
typedef struct nyx_product {
  int64_t m, n, k;
  const void *a, *b;
  int64_t a_rs, a_cs, b_rs, b_cs;
  void *c;
  int64_t ldc;
  bool add;
  /* What comes after these, or NULL: asked for in time. A panel of B, or rows of an A
   * that is read where it is. */
  const void *next;
  nyx_packing *packing; /* `block` packs a piece after each tile; or NULL */
} nyx_product;

/* A matrix of `depth` rows whose vectors are patches, of `columns` columns in all: those
 * of row l lie at from + offset[l]. And how a product with it is stored. */
typedef struct nyx_patched {
  const void *from;
  const int64_t *offset;
  const nyx_patch *patch; /* without gaps, each from its first column to the next one's */
  int64_t count, columns, depth;
  int64_t ldc;
  bool add;
} nyx_patched;

/* From row to row of an A that is copied to be read in place by rows, in elements of T:
 * so that 128 columns of all rows lie in all sets of the first cache. */
#define NYX_APART(T) (128 + 64 / (int64_t)sizeof(T))

#define NYX_TINY 4 /* rows, columns, terms at most */

#define NYX_FEW_MOST 64
#define NYX_FEW_LEAST 64 /* more than a tile has */

/* For each of float32 and float64. m, n, k >= 1. */
typedef struct nyx_gemm_kernel {
  /* All of it, in one thread. `work` is scratch of work_bytes bytes, 64-byte aligned. */
  void (*product)(const nyx_product *p, void *work);
  /* The same without scratch, slowly. */
  void (*direct)(const nyx_product *p);

  /* The parts of `product`, for several threads. Blocks of at most `depth` terms: A is
   * packed into panels of `width` <= tile_rows rows, B into panels of tile_cols columns.
   * Panel i of A begins at row i * width times the depth, panel j of B at column j *
   * tile_cols times the depth. */
  int64_t tile_rows, tile_cols, block_rows, depth;
  void (*pack_a)(const void *a, int64_t rs, int64_t cs, int64_t rows, int64_t width,
                 int64_t depth, void *panels);
  void (*pack_b)(const void *b, int64_t rs, int64_t cs, int64_t depth, int64_t cols,
                 void *panels);
  /* Into pieces that are packed besides at most `tiles` tiles of as many terms; 0: into
   * pieces that are packed at once. Then `block` packs some, `pack` what is left. */
  void (*divide)(nyx_packing *h, int64_t tiles);
  void (*pack)(nyx_packing *h);
  /* p from its panels. a NULL: A is read where it is, and nothing is packed or asked for
   * besides; its a_rs or its a_cs is 1. b NULL: B is read where it is; its b_cs must be
   * 1, and before a column that is not the first of a tile lie tile_cols others. */
  void (*block)(const nyx_product *p, int64_t width, const void *a, const void *b);

  /* A panel of A, of `rows` <= tile_rows rows, by patches that are read where they lie:
   * whole vectors, written in part. To the bits of `block`. */
  void (*patched)(const nyx_patched *p, const void *a, int64_t rows, void *c);

  /* One more column of such a product, which would not be worth a vector: thin_type.h.
   * rows <= tile_rows, of a panel as wide (rs 0) or rs apart with terms side by side, to
   * the same bits; depth elements of x side by side; y[i * step], i < rows. */
  void (*thin)(const void *a, int64_t rs, int64_t rows, int64_t depth, const void *x,
               void *y, int64_t step, bool add);
  /* The same where a row is kernels of `channels` that lie `step` apart, and rows are
   * neighbours: element (row, channel, tap) at channel * step + row * taps + tap. Sums of
   * each row and tap are or gain (`add`) what these channels give; of x a channel has
   * taps and lanes elements, its taps over and over. y: all is summed to y[row * y_step];
   * NULL: there is more to come. */
  void (*thin_taps)(const void *a, int64_t step, int64_t channels, int64_t rows,
                    int64_t taps, const void *x, void *sums, bool add, void *y,
                    int64_t y_step);

  /* `count` products at most NYX_TINY in every direction, none of which adds:
   * tiny_type.h. From one to the next, A and B are so many elements further, C its m
   * rows. */
  void (*tiny)(const nyx_product *p, int64_t count, int64_t a_next, int64_t b_next);

  /* Matrix times vector: gemv_type.h. y[i * step], i < m, is or gains (`add`) the dot
   * product of row i of a and x, k elements side by side each. */
  void (*dots)(const void *a, int64_t rs, int64_t m, int64_t k, const void *x, void *y,
               int64_t step, bool add);
  /* y[j], j < n, is or gains the sum over k rows of b of x[l * xs] b[l * rs + j]. */
  void (*sum_rows)(const void *b, int64_t rs, int64_t k, int64_t n, const void *x,
                   int64_t xs, void *y, bool add);

  /* A few rows times a matrix that is read once, or (`turned`) a matrix times a few
   * columns: few_type.h. The few are two to NYX_FEW_MOST. Of the matrix either terms or
   * neighbours lie together; there are NYX_FEW_LEAST of the latter, or others before
   * them. The few have to be packed, whole, into (few + 3) * (k + 15) elements, 64-byte
   * aligned. */
  int64_t few_dots; /* so many pay where terms lie together; else all */
  void (*pack_few)(const nyx_product *p, bool turned, void *packed);
  void (*few)(const nyx_product *p, bool turned, const void *packed);
  /* One to NYX_FEW_MOST rows times a piece of a matrix, whose neighbours lie together,
   * summed in C: that is to stay in the first cache, and has room for whole vectors. The
   * terms that were packed may go on behind those of p, a multiple of 8 then. */
  void (*few_near)(const nyx_product *p, const void *packed);
} nyx_gemm_kernel;

typedef struct nyx_gemm_kernels {
  nyx_gemm_kernel type[2]; /* float32, float64 */
  size_t work_bytes;
  bool fast; /* as good as a BLAS for large products */
} nyx_gemm_kernels;

#endif
