/* Products of complex numbers on one path. Read next: complex.c, core/op/complex_mul.c,
 * core/op/fourier.c (spectra). */
#ifndef NYX_KERNELS_CPU_COMPLEX_H
#define NYX_KERNELS_CPU_COMPLEX_H

#include "cpu.h"

/* Sums of products of spectra, one vector of their numbers: c(i, j) is or gains (`add`)
 * the sum over l < k of a(i, l) b(l, j), i < m, j < n. A number is a vector of real parts
 * and one of imaginary parts behind it; from row to row, term to term, column to column
 * in floats. */
typedef struct nyx_spectrum_product {
  int64_t m, n, k;
  const void *a, *b;
  void *c;
  int64_t a_row, a_term, b_term, b_column, c_row, c_column;
  bool add;
} nyx_spectrum_product;

/* to[k] is made of x[k] and y[k], n numbers, which are pairs of floats; y conjugated with
 * `conj`. A step of 0 takes the same number for all. */
typedef void (*nyx_complex_fn)(int64_t n, const void *x, int64_t x_step, const void *y,
                               int64_t y_step, bool conj, void *to);

/* All for float32, float64. */
typedef struct nyx_complex_kernels {
  nyx_complex_fn multiply[2], divide[2];
  /* The product of n numbers; of none 1. */
  void (*prod[2])(int64_t n, const void *from, void *to);
  /* Every one of the rows of n numbers, and behind it the row times i. */
  void (*matrix[2])(int64_t rows, int64_t n, const void *from, void *to);
  int lanes[2];
  /* n numbers, pairs of floats, to vectors of real and imaginary parts, `step` floats
   * from one such block to the next, zeros in the last beyond n; conjugated with `conj`.
   * And back. */
  void (*spread[2])(int64_t n, const void *from, bool conj, void *to, int64_t step);
  void (*gather[2])(int64_t n, const void *from, int64_t step, void *to);
  /* Rows of every `apart`-th number, plus bias (NULL: none), to where they belong;
   * whether they are all finite without it. */
  bool (*take[2])(const void *from, int64_t rows, int64_t columns, int64_t apart,
                  int64_t from_step, const void *bias, int64_t to_step, void *to);
  void (*products[2])(const nyx_spectrum_product *p);
} nyx_complex_kernels;

#endif
