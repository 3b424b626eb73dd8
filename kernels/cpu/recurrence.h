/* What a recurrent layer does to one step of some rows of a batch, besides its product.
 * Read next: recurrence_rows.h, core/op/recurrence_cpu.c. */
#ifndef NYX_KERNELS_CPU_RECURRENCE_H
#define NYX_KERNELS_CPU_RECURRENCE_H

#include <stdint.h>

typedef enum nyx_cell {
  NYX_CELL_LSTM, /* i f g o; the gates as they are saved, too */
  NYX_CELL_GRU,  /* r z n; saved are r z n, and n's part of the product */
  NYX_CELL_TANH,
  NYX_CELL_RELU,
  NYX_CELLS
} nyx_cell;

/* `rows` rows and `width` columns of the hidden state. A row of dgates has one block of
 * `hidden` columns for each gate, one of saved gates always four, and all others one; a
 * row of the product has blocks of `tile` columns: one for each gate (a GRU's n has two:
 * of the input and of the state), in `backward` one. Pointers are to the first row and
 * the first of the columns. */
typedef struct nyx_cell_step {
  int64_t rows, width, hidden, tile;
  const void *product; /* of input and weight plus that of state and weight; backward:
                        * what later steps give to the gradient of the state */
  const void *bias;    /* of the product's blocks, `hidden` apart; NULL: none */
  const void *before, *cell_before; /* the states before; the latter of an LSTM only */
  const void *grad, *grad_cell;     /* backward; NULL: zero */
  void *y, *cell, *gates;           /* made; backward: read */
  void *dgates, *dhidden; /* dhidden: of a GRU, what n's part of the state gets */
  void *carry; /* in and out: what reaches the cell (GRU: the state) past the gates */
} nyx_cell_step;

typedef struct nyx_recurrence_kernel {
  void (*forward[NYX_CELLS])(const nyx_cell_step *s);
  void (*backward[NYX_CELLS])(const nyx_cell_step *s);
} nyx_recurrence_kernel;

typedef struct nyx_recurrence_kernels {
  const nyx_recurrence_kernel *type[2]; /* float32, float64 */
} nyx_recurrence_kernels;

#endif
