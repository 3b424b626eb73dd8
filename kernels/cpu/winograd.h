/* Transforms of Winograd's convolution by 3 x 3 kernels, F(4 x 4, 3 x 3) (Lavin & Gray,
 * "Fast algorithms for convolutional neural networks", 2015): a tile of 4 x 4 outputs is
 * 36 products, of 6 x 6 inputs and a kernel as polynomials' values at the points 0,
 * +-sqrt(1/2), +-sqrt(2) and infinity. Summed over channels each of the 36 is a matrix
 * product, whose panels are written and read here. Summed over tiles instead, with both
 * sides' transforms turned round, it is the gradient of a kernel.
 *
 * With stride 2 the even and the odd rows of what a tile sees are seen by two taps and by
 * one: 2 outputs are 3 products of the former, as polynomials' values at 0, 1 and
 * infinity, and 2 of the latter, and a tile of 2 x 2 outputs 25 instead of 36. The
 * gradient of its input is 4 x 4 places of 25 products as well. Read next:
 * winograd_type.h, core/op/winograd.c, core/op/winograd_weight.c. */
#ifndef NYX_KERNELS_CPU_WINOGRAD_H
#define NYX_KERNELS_CPU_WINOGRAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  NYX_WINOGRAD_SIDE = 4,         /* of a tile of outputs */
  NYX_WINOGRAD_TAPS = 9,         /* of a kernel */
  NYX_WINOGRAD_POINTS = 36,      /* products */
  NYX_WINOGRAD_TILES = 64,       /* of a block, at most */
  NYX_WINOGRAD_FEW = 4,          /* tiles that are multiplied by kernels as these lie */
  NYX_WINOGRAD_FEW_CHANNELS = 8, /* of which so many are together then */
};

/* Tiles beside each other, tiles first..first+count-1 of a block. */
typedef struct nyx_winograd_strip {
  int64_t first, count;
  int64_t x;             /* where the image begins in the input, in elements */
  int64_t top, left;     /* the first row and column that are read; may lie outside */
  int64_t y;             /* where the first output is, in elements */
  int64_t rows, columns; /* outputs: the last tiles may hang over */
  bool infinite;         /* some output was infinite or not a number */
} nyx_winograd_strip;

typedef struct nyx_winograd_block {
  int64_t tiles, strips;
  nyx_winograd_strip *strip;
  int64_t height, width; /* of an input plane */
  int64_t y_width, y_plane;
} nyx_winograd_block;

/* Of one direction: a product `out` is, or gains, a point of the weight times one of the
 * inputs. Pairs of these are the two directions' terms: with stride 1, 36 that are each a
 * product of their own. */
typedef struct nyx_winograd_term {
  uint8_t in, weight, out;
} nyx_winograd_term;

typedef struct nyx_winograd_form {
  int64_t side, step;               /* outputs of a tile; inputs from one to the next */
  int64_t inputs, weights, outputs; /* points, so many matrices' root */
  int64_t terms;
  nyx_winograd_term term[6];
} nyx_winograd_form;

/* Products of few tiles with some output channels' kernels, which are transformed on the
 * way: see winograd_few_type.h. */
typedef struct nyx_winograd_few {
  const void *kernels;
  bool turned;                    /* round, and output channels lie side by side */
  int64_t out_step, channel_step; /* elements to the next output or input channel's */
  int64_t outs, channels;         /* outs: two vectors at most */
  /* (FEW_CHANNELS of the channels, point, channel, tile) */
  const void *inputs;
  int64_t product_step; /* between matrices of products (output channel, tile) */
} nyx_winograd_few;

/* For each of float32 and float64. `step` is from one matrix to the next. */
typedef struct nyx_winograd_kernel {
  const nyx_winograd_form *form;
  int64_t lanes;
  /* Kernels of `width` output channels as a panel of their taps, (channel, tap) by
   * (channel, tap), to a panel of `width` rows of each of the weight's matrices. */
  void (*weight)(const void *taps, int64_t width, int64_t channels, void *to,
                 int64_t step);
  /* The same of kernels turned round, `width` side by side, from channel to channel
   * `apart` elements. */
  void (*turned)(const void *kernels, int64_t apart, int64_t width, int64_t channels,
                 void *to, int64_t step);
  /* Channels of a block of tiles, whose planes follow each other, to rows of matrices:
   * `columns` of a panel, `panel` elements from one panel to the next. Whole vectors are
   * written. `stage` is scratch of stage_bytes, all zeros before the first use. */
  size_t stage_bytes;
  void (*input)(const nyx_winograd_block *b, const void *x, int64_t channels, void *stage,
                void *to, int64_t step, int64_t columns, int64_t panel);
  /* One channel of a block from its row in the products to y, plus bias (NULL: none).
   * `more`: the next channel follows. Strips note what is not finite. */
  void (*output)(const nyx_winograd_block *b, const void *products, int64_t step,
                 const void *bias, void *y, bool more);
  /* For the gradient of the weight. The outputs' gradients in place of the inputs, zeros
   * beyond them (a strip's x, top and left say where they are, height and width the size
   * of a plane); and sums of channels side by side, one for each of the weight's
   * matrices, to the nine taps of each. Whether these are all finite. */
  void (*gradient)(const nyx_winograd_block *b, const void *y, int64_t channels,
                   void *stage, void *to, int64_t step, int64_t columns, int64_t panel);
  bool (*taps)(const void *sums, int64_t step, int64_t channels, void *to);
  /* For channels-last images: the channels of the 36 places that a tile sees, row by row
   * (NULL: zeros), to a row of 36 matrices, in whole vectors; and such a row of products
   * to its 16 places (NULL: not there), plus bias (NULL: none). Whether these are all
   * finite. */
  void (*place)(const void *const *from, int64_t channels, void *to, int64_t step);
  bool (*give)(const void *sums, int64_t step, const void *bias, int64_t channels,
               void *const *to);
  /* All products of NYX_WINOGRAD_FEW tiles, for two vectors of output channels. */
  void (*few)(const nyx_winograd_few *f, void *products);
} nyx_winograd_kernel;

typedef struct nyx_winograd_kernels {
  nyx_winograd_kernel type[2];  /* stride 1 */
  nyx_winograd_kernel half[2];  /* stride 2; without place, give and few */
  nyx_winograd_kernel twice[2]; /* the gradient of its input, under kernels turned round,
                                 * with one row and column of padding; forward only */
} nyx_winograd_kernels;

#endif
