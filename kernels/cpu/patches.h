/* Blocks of a convolution's column matrix, in the panels of a matrix product: rows are
 * (channel, tap), columns are output positions. The matrix is never stored; panels are
 * packed from rows of the images with zeros around them (pad_type.h). Read next:
 * patches_type.h, core/op/conv_product.c. */
#ifndef NYX_KERNELS_CPU_PATCHES_H
#define NYX_KERNELS_CPU_PATCHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a row is laid out: element q of phase f is column q * step + f - pad of the image,
 * zero outside; phases are `phase` elements apart. Rows are `down` rows of the image
 * apart; those `ahead` elements further are asked for (0: none are). See pad_type.h. */
typedef struct nyx_row_padding {
  int64_t width, step, pad, phases, phase, down, ahead;
} nyx_row_padding;

/* A vector of a panel's row: neighbouring columns, read `from` elements after a tap's
 * first and written from column `to` on. In ascending order: each may write beyond its
 * columns. */
typedef struct nyx_patch {
  int64_t from, to;
} nyx_patch;

/* For each of float32 and float64. */
typedef struct nyx_patches_kernel {
  int64_t lanes;
  /* Rows first..first+count-1 of a plane to rows phases * phase apart, which were all
   * zeros before the first use. Elements before `limit` may be read. */
  void (*pad)(const nyx_row_padding *g, const void *plane, int64_t height,
              const void *limit, int64_t first, int64_t count, void *to);
  /* depth rows of a panel of `columns` columns; row i reads at from + offset[i]. Writes
   * a vector more than the panel has, at most. */
  void (*pack)(const void *from, const int64_t *offset, int64_t depth,
               const nyx_patch *patches, int64_t count, int64_t columns, void *panel);
  /* The same block turned: a panel of `columns` terms, of which there are `terms`, with a
   * row for each of the patches' columns. offset has an entry for each term. Writes up to
   * lanes - 1 rows more, at most. */
  void (*pack_turned)(const void *from, const int64_t *offset, int64_t terms,
                      const nyx_patch *patches, int64_t count, int64_t columns,
                      void *panel);
} nyx_patches_kernel;

typedef struct nyx_patches_kernels {
  nyx_patches_kernel type[2];
} nyx_patches_kernels;

#endif
