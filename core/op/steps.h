/* What a gradient makes on its way: results of ops that are all released at its end, so
 * that a formula is one NYX_TRY a line. For those on matrices the steps that they share.
 * Ops on complex numbers are made so too. Read next: steps.c. */
#ifndef NYX_OP_STEPS_H
#define NYX_OP_STEPS_H

#include "ops.h"

#define NYX__STEPS (64 + 4 * NYX_MAX_INPUTS)

typedef struct nyx__steps {
  nyx_context *ctx;
  nyx_tensor *made[NYX__STEPS];
  int n;
} nyx__steps;

/* Takes over a tensor that was made in another way. */
nyx_tensor *nyx__step_keep(nyx__steps *s, nyx_tensor *t);
/* Releases everything; returns status. */
nyx_status nyx__steps_end(nyx__steps *s, nyx_status status) NYX_MUST_CHECK;

/* *out, which belongs to the steps: the first result of an op of one input, or two; of
 * more. attrs NULL: presets. */
nyx_status nyx__step(nyx__steps *s, nyx__op_id id, nyx_tensor *a, nyx_tensor *b,
                     const nyx_value *attrs, nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__stepn(nyx__steps *s, nyx__op_id id, nyx_tensor *const *in, int n,
                      const nyx_value *attrs, nyx_tensor **out) NYX_MUST_CHECK;
/* A row's text over x and y (NULL: x alone), with p. */
nyx_status nyx__step_text(nyx__steps *s, const char *text, nyx_tensor *x, nyx_tensor *y,
                          double p, nyx_tensor **out) NYX_MUST_CHECK;

/* Of matrices: exchanges rows and columns; keeps a triangle, from a diagonal on; x, or
 * the last rows or columns of it from `first` on, or the first `length`. */
nyx_status nyx__step_turn(nyx__steps *s, nyx_tensor *x, nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__step_triangle(nyx__steps *s, nyx_tensor *x, bool upper, int64_t diagonal,
                              nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__step_part(nyx__steps *s, nyx_tensor *x, int dim, int64_t first,
                          int64_t length, nyx_tensor **out) NYX_MUST_CHECK;
/* A product in which either factor may be transposed. */
nyx_status nyx__step_product(nyx__steps *s, nyx_tensor *a, bool turn_a, nyx_tensor *b,
                             bool turn_b, nyx_tensor **out) NYX_MUST_CHECK;

/* How solve_triangular sees a matrix. `turned`: it is transposed first, and its triangle
 * is that of `upper` afterwards. */
typedef struct nyx__triangle {
  bool turned, upper, right, unit;
} nyx__triangle;
nyx_status nyx__step_solve(nyx__steps *s, nyx_tensor *a, nyx__triangle how, nyx_tensor *b,
                           nyx_tensor **out) NYX_MUST_CHECK;

#endif
