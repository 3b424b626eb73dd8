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
  NYX__REC_WEIGHT_IH,
  NYX__REC_WEIGHT_HH,
  NYX__REC_BIAS_IH,
  NYX__REC_BIAS_HH,
  NYX__REC_H0,
  NYX__REC_C0,
  NYX__REC_INPUTS
};
enum { NYX__REC_Y, NYX__REC_GATES, NYX__REC_CELLS };
enum { NYX__REC_MODE, NYX__REC_REVERSE, NYX__REC_ATTRS };
/* What a mode is: its gates; blocks of `hidden` columns of its products, and of what it
 * saves; the gate whose rows of weight_ih and of weight_hh go into each block, or -1. */
typedef struct nyx__cell {
  const char *name;
  int64_t gates, blocks, saved;
  int8_t input[4], state[4];
} nyx__cell;
extern const nyx__cell nyx__cells[NYX_CELLS];

/* One computation. All arrays are contiguous; NULL: absent, zero. */
typedef struct nyx__recurrence {
  nyx_context *ctx;
  nyx_dtype dtype; /* computed in: float32 or float64 */
  nyx_cell cell;
  bool reverse;
  int64_t length, batch, input, hidden;
  const char *x, *weight_ih, *weight_hh, *bias_ih, *bias_hh, *h0, *c0;
  char *y, *gates, *cells; /* made; backward: read */
  const char *grad, *grad_cells;
  char *dx, *dgates, *dh0, *dc0, *dhidden; /* backward: made; dx NULL: not wanted */
} nyx__recurrence;

/* Where step s, counted from 0 in the order of computation, lies. */
static inline int64_t nyx__step_at(const nyx__recurrence *r, int64_t s) {
  return r->reverse ? r->length - 1 - s : s;
}

nyx_status nyx__recurrence_mode(nyx_context *ctx, const char *name,
                                nyx_cell *cell) NYX_MUST_CHECK;

/* y, gates and cells. */
nyx_status nyx__recurrence_forward(nyx__recurrence *r) NYX_MUST_CHECK;
/* dx, dgates, dh0, dc0 and dhidden. */
nyx_status nyx__recurrence_backward(nyx__recurrence *r) NYX_MUST_CHECK;

nyx_status nyx__recurrence_gradient(nyx_backward *b) NYX_MUST_CHECK;

#endif
