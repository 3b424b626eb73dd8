/* What ops on complex numbers are made with: ops on their parts, or on pairs of floats.
 * Read next: complex.c, complex_views.c. */
#ifndef NYX_OP_COMPLEX_STEPS_H
#define NYX_OP_COMPLEX_STEPS_H

#include "../tensor/tensor.h"
#include "complex.h"

/* The steps of one op. After a failure, which status keeps, nothing more is made. */
typedef struct scratch {
  nyx__steps steps;
  nyx__op_id id;   /* what was asked for */
  nyx_dtype dtype; /* of the complex operands */
  nyx_status status;
} scratch;

static inline nyx_tensor *keep(scratch *s, nyx_tensor *t) {
  return s->status == NYX_OK ? nyx__step_keep(&s->steps, t) : NULL;
}

static inline nyx_tensor *ops(scratch *s, nyx__op_id id, nyx_tensor *const *in, int n,
                              const nyx_value *attr) {
  nyx_tensor *out = NULL;
  if (s->status == NYX_OK) s->status = nyx__stepn(&s->steps, id, in, n, attr, &out);
  return s->status == NYX_OK ? out : NULL;
}

static inline nyx_tensor *op1(scratch *s, nyx__op_id id, nyx_tensor *x) {
  return ops(s, id, &x, 1, NULL);
}

static inline nyx_tensor *op2(scratch *s, nyx__op_id id, nyx_tensor *x, nyx_tensor *y) {
  return ops(s, id, (nyx_tensor *[]){x, y}, 2, NULL);
}

static inline nyx_tensor *scalar(scratch *s, double value, nyx_dtype dtype, bool weak) {
  nyx_tensor *out = NULL;
  if (s->status != NYX_OK) return NULL;
  s->status = nyx_tensor_scalar(s->steps.ctx, value, dtype, weak, &out);
  return keep(s, out);
}

static inline nyx_tensor *number(scratch *s, double value) {
  return scalar(s, value, NYX_FLOAT64, true);
}

static inline nyx_tensor *choose(scratch *s, nyx_tensor *which, nyx_tensor *x,
                                 nyx_tensor *y) {
  return ops(s, NYX__OP_where, (nyx_tensor *[]){which, x, y}, 3, NULL);
}

/* Parts */

static inline bool is_complex(const nyx_tensor *t) {
  return t && nyx__complex_dtype(t->dtype);
}

static inline nyx_tensor *part(scratch *s, nyx_tensor *z, int which) {
  const nyx_value imag = NYX_I(which);
  return ops(s, NYX__OP_complex_part, &z, 1, &imag);
}

static inline nyx_tensor *re(scratch *s, nyx_tensor *x) {
  return is_complex(x) ? part(s, x, 0) : x;
}

/* NULL where x is real. */
static inline nyx_tensor *im(scratch *s, nyx_tensor *x) {
  return is_complex(x) ? part(s, x, 1) : NULL;
}

static inline nyx_tensor *join(scratch *s, nyx_tensor *real, nyx_tensor *imag) {
  return op2(s, NYX__OP_complex, real, imag);
}

/* x in the dtype of all; NULL where x is. */
static inline nyx_tensor *converted(scratch *s, nyx_tensor *x) {
  const nyx_value to = NYX_I(s->dtype);
  return !x || x->dtype == s->dtype ? x : ops(s, NYX__OP_cast, &x, 1, &to);
}

/* x as pairs of its floats. */
static inline nyx_tensor *pairs_of(scratch *s, nyx_tensor *x) {
  return op1(s, NYX__OP_view_as_real, converted(s, x));
}

/* Pairs, each row by row next to another, as complex numbers. */
static inline nyx_tensor *numbers_of(scratch *s, nyx_tensor *pairs) {
  if (s->status != NYX_OK) return NULL;
  bool plain = !pairs->lift && nyx__is_contiguous(pairs);
  return op1(s, NYX__OP_view_as_complex,
             plain ? pairs : op1(s, NYX__OP_contiguous, pairs));
}

/* Gives the result away, and all else back; out NULL: there is none. */
static inline nyx_status end(scratch *s, nyx_tensor *result, nyx_tensor **out) {
  if (out && s->status == NYX_OK) *out = nyx_tensor_retain(result);
  return nyx__steps_end(&s->steps, s->status);
}

#endif
