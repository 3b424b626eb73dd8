/* Fourier transforms of some lines at once, one in each lane of a vector, on one path.
 * Read next: fft_type.h, core/fft/plan.h (which makes the plans). */
#ifndef NYX_KERNELS_CPU_FFT_H
#define NYX_KERNELS_CPU_FFT_H

#include "cpu.h"

#define NYX_FFT_PASSES 48 /* at most: of 2^48 elements */
#define NYX_FFT_RADIX 16  /* at most */
#define NYX_FFT_LANES 16  /* at most */
/* Stands for columns that stay as they lie in memory (fft_short_type.h): of lines of n
 * complex numbers in one piece, n a power of two from twice the numbers in a vector to
 * 128 times, where vectors have 8 lanes or more; real ones of 4 vectors or more. No
 * number of columns. */
#define NYX_FFT_SHORT 3
#define NYX_FFT_SHORT_ROWS 64 /* at most */

/* How a line of n complex numbers is transformed: in passes over factors of n. Or n rows
 * of several columns: passes over each column, one in a lane, and then all rows. */
typedef struct nyx_fft_passes {
  int64_t n;
  int columns; /* 1, 4, 8 or the lanes, which are not fewer; NYX_FFT_SHORT */
  /* e^(-2 pi i k c / (n columns)): for c = 1..columns-1 the real parts, k = 0..n-1, and
   * then the imaginary ones. Of short lines for k = 0..n-1 a vector of real parts and one
   * of imaginary ones, each twice, the first of two with the other sign, for c = 0.. the
   * numbers of a vector less 1; then so for the inverse. */
  const void *turn;
  /* e^(-2 pi i k j / n) in all lanes, as above: for j = 1..n / m - 1, k = 1..m - 1, of
   * short lines and columns of n = 32, 64 and 128, m = 8, 8 and 16; for the inverse too.
   */
  const void *down[2];
  int count;
  int radix[NYX_FFT_PASSES];
  /* e^(-2 pi i p j / length) of each pass: for p = 0..length / radix - 1, j = 1..radix -
   * 1 the real and the imaginary part, of the type that is transformed. */
  const void *twiddle[NYX_FFT_PASSES];
  const void *root[NYX_FFT_PASSES]; /* e^(-2 pi i j / radix), j = 0..radix - 1 */
} nyx_fft_passes;

/* Lines of n numbers, or of n real ones with n/2 + 1 complex ones, which stand for all as
 * the others are their conjugates. Places and steps are in floats (a complex number is
 * two of them). */
typedef enum nyx_fft_kind {
  NYX_FFT_COMPLEX,
  NYX_FFT_FROM_REAL,
  NYX_FFT_TO_REAL
} nyx_fft_kind;

typedef struct nyx_fft_lines {
  /* Over n; n / 2 where real numbers go in pairs. Of more than one column: lines of
   * elements that lie side by side, real ones of an even n, and at least as many rows as
   * lanes. */
  const nyx_fft_passes *passes;
  nyx_fft_kind kind;
  int64_t n;        /* of a line, in its real form where it has one */
  bool inverse;     /* e^(+2 pi i ...), of complex lines */
  double scale;     /* of the results */
  const void *turn; /* e^(-2 pi i k / n), k = 0..n/2, where pairs are taken apart */
  /* NULL, or roots of one: element k of lane l is multiplied by line_factor[k], a number,
   * times lane l of lane_factor[k], two vectors, or by the conjugate: inverse. */
  const void *lane_factor, *line_factor;
  /* Lines, up to lanes / columns, or NYX_FFT_LANES short ones; those behind them read any
   * line. */
  int count;
  const void *from;
  void *to;
  int64_t from_step, to_step; /* to the next element of a line */
  int64_t from_at[NYX_FFT_LANES], to_at[NYX_FFT_LANES];
  /* 2 vectors for each number of a pass and one more, aligned as they; for each short
   * line of real numbers as much as these take. */
  void *room[2];
} nyx_fft_lines;

typedef struct nyx_fft_kernels {
  int lanes[2]; /* of float32, float64 */
  void (*lines[2])(const nyx_fft_lines *j);
  /* What makes half of the spectrum of 2 m real numbers of that of m complex ones
   * (NYX_FFT_FROM_REAL, times scale), or twice the opposite, for numbers begin..end-1 of
   * 1..m/2, a vector or more of them, and for what mirrors them. `turn` as above. */
  void (*halves[2])(nyx_fft_kind kind, int64_t m, int64_t begin, int64_t end,
                    double scale, const void *turn, const void *from, void *to);
} nyx_fft_kernels;

#endif
