/* What the op `recurrence`, its kernels' driver and its gradient share. Read next:
 * recurrence.c (the ops), recurrence_lengths.c, recurrence_cpu.c, recurrence_gradient.c.
 */
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
  NYX__REC_WEIGHT_HR,
  NYX__REC_LENGTHS,
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
  int64_t state; /* features of h: `hidden`, or what weight_hr makes of them */
  const char *weight_ih, *weight_hh, *bias_ih, *bias_hh, *weight_hr;
  char *x, *h0, *c0, *grad, *grad_cells; /* read */
  char *y, *gates, *cells;               /* made; backward: read */
  char *dgates, *dh0, *dc0, *dhidden;    /* backward: made */
  char *dstates; /* the same, with weight_hr: all that reaches each h */
  /* Of sequences of different lengths: the lengths as they fall, which sequence each one
   * is of (NULL: they come so), and how many have a step at each position. */
  int64_t *lengths, *order, *live;
} nyx__recurrence;

/* Where step s, counted from 0 in the order of computation, lies. */
static inline int64_t nyx__step_at(const nyx__recurrence *r, int64_t s) {
  return r->reverse ? r->length - 1 - s : s;
}

nyx_status nyx__recurrence_mode(nyx_context *ctx, const char *name,
                                nyx_cell *cell) NYX_MUST_CHECK;

/* recurrence_lengths.c: reads the lengths, if there are any, into r; what they are kept
 * in is freed with nyx_memory_free(r->lengths). */
nyx_status nyx__recurrence_lengths(nyx__recurrence *r,
                                   nyx_tensor *lengths) NYX_MUST_CHECK;
/* y, gates and cells; backward: dgates, dh0, dc0, dhidden and dstates. */
nyx_status nyx__recurrence_run(nyx__recurrence *r, bool backward) NYX_MUST_CHECK;
/* recurrence_cpu.c: the same of sequences whose lengths fall. */
nyx_status nyx__recurrence_steps(nyx__recurrence *r, bool backward) NYX_MUST_CHECK;

nyx_status nyx__recurrence_gradient(nyx_backward *b) NYX_MUST_CHECK;

#endif
