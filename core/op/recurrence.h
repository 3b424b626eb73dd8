/* What the op `recurrence`, its kernels' driver and its gradient share. Read next:
 * recurrence.c (the ops), recurrence_cpu.c, recurrence_gradient.c. */
#ifndef NYX_OP_RECURRENCE_H
#define NYX_OP_RECURRENCE_H

#include "../../kernels/cpu/recurrence.h"
#include "../tensor/tensor.h"
#include "ops.h"

/* Inputs, outputs and attributes of recurrence, in order. */
enum {
  NYX__REC_X,
  NYX__REC_WEIGHT,
  NYX__REC_H0,
  NYX__REC_C0,
  NYX__REC_BIAS,
  NYX__REC_INPUTS
};
enum { NYX__REC_Y, NYX__REC_GATES, NYX__REC_CELLS };
enum { NYX__REC_MODE, NYX__REC_REVERSE, NYX__REC_ATTRS };
/* Outputs of recurrence_backward; the third is that of c0 for an LSTM, and that of the
 * products with the weight for a GRU. */
enum { NYX__REC_DX, NYX__REC_DH0, NYX__REC_DC0, NYX__REC_DHIDDEN = NYX__REC_DC0 };

/* What a mode is: blocks of `hidden` columns in x, and of those saved. */
typedef struct nyx__cell {
  const char *name;
  int64_t gates, saved;
} nyx__cell;
extern const nyx__cell nyx__cells[NYX_CELLS];

/* One computation. All arrays are contiguous; NULL: absent, zero. */
typedef struct nyx__recurrence {
  nyx_context *ctx;
  nyx_dtype dtype; /* computed in: float32 or float64 */
  nyx_cell cell;
  bool reverse;
  int64_t length, batch, hidden;
  const char *x, *weight, *h0, *c0, *bias;
  char *y, *gates, *cells; /* made; backward: read */
  const char *grad, *grad_cells;
  char *dx, *dh0, *dc0, *dhidden; /* backward: made */
} nyx__recurrence;

/* Where step s, counted from 0 in the order of computation, lies. */
static inline int64_t nyx__step_at(const nyx__recurrence *r, int64_t s) {
  return r->reverse ? r->length - 1 - s : s;
}

nyx_status nyx__recurrence_mode(nyx_context *ctx, const char *name,
                                nyx_cell *cell) NYX_MUST_CHECK;

/* y, gates and cells. */
nyx_status nyx__recurrence_forward(nyx__recurrence *r) NYX_MUST_CHECK;
/* dx, dh0, dc0 and dhidden. */
nyx_status nyx__recurrence_backward(nyx__recurrence *r) NYX_MUST_CHECK;

nyx_status nyx__recurrence_gradient(nyx_backward *b) NYX_MUST_CHECK;

#endif
