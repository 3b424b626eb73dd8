/* Convolutions by large kernels as products of spectra: of tiles of the images and of the
 * kernels, both with zeros behind them. Read next: fourier.c, fourier_sizes.c (tiles, and
 * whether it pays), docs/decisions/020-fourier-convolution.md. */
#ifndef NYX_OP_FOURIER_H
#define NYX_OP_FOURIER_H

#include "conv.h"

/* Of one direction: lines of `size` numbers, of which a tile gives `give` outputs. */
typedef struct nyx__fourier_side {
  int64_t size, give, tiles;
  int64_t extent; /* from a kernel's first tap to its last, both included */
} nyx__fourier_side;

typedef struct nyx__fourier_sizes {
  nyx__fourier_side side[2];
  int64_t across; /* numbers of a row of a spectrum: half of it, and one */
  int64_t blocks; /* vectors of numbers of a spectrum */
  int64_t tiles;  /* of an image */
  int64_t bytes;  /* of a spectrum */
  int64_t groups; /* done together, and */
  int64_t batch;  /* tiles, of all images' */
  double cost;    /* cycles of one thread, about */
} nyx__fourier_sizes;

/* Whether it is computed this way, and faster: stride 1, and tiles whose spectra are
 * within bounds. Scratch: 256 MiB at most for the spectra of kernels, 16 MiB for those of
 * tiles or of what one tile has of all channels, 16 MiB per thread. */
bool nyx__fourier_takes(const nyx__conv *v, nyx__conv_mode mode);
/* The same, without asking whether it is faster. */
bool nyx__fourier_sizes_of(const nyx__conv *v, nyx__conv_mode mode,
                           nyx__fourier_sizes *s);

/* As in conv.h. Images, and weights, whose results are not finite are computed again
 * another way, so that an infinity reaches what its element reaches, no others. */
nyx_status nyx__fourier(nyx_context *ctx, const nyx__conv *v, const void *x,
                        const void *weight, const void *bias, void *y) NYX_MUST_CHECK;
nyx_status nyx__fourier_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                              const void *weight, void *x) NYX_MUST_CHECK;
nyx_status nyx__fourier_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                               const void *x, void *weight) NYX_MUST_CHECK;

#endif
