/* Making, reading and comparing small tensors, for tests of ops: one context, values as
 * doubles. Read next: check.h, index_test.c. */
#ifndef NYX_SPEC_TENSORS_H
#define NYX_SPEC_TENSORS_H

#include <nyx/nyx.h>
#include <stdlib.h>

#include "check.h"
#include "core/op/ops.h"

static nyx_context *ctx;

/* Shorthand */

#define ID(name) NYX__OP_##name
#define SHAPE(...)                                                                       \
  (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) {               \
    __VA_ARGS__                                                                          \
  }
#define LIST(...)                                                                        \
  NYX_LIST(((int64_t[]){__VA_ARGS__}),                                                   \
           (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define ATTRS(...)                                                                       \
  (nyx_value[]) {                                                                        \
    __VA_ARGS__                                                                          \
  }

enum { MAX = 20000 };

__attribute__((unused)) static void must(nyx_status status) {
  if (status == NYX_OK) return;
  printf("Bail out! %s: %s\n", nyx_status_name(status), nyx_context_error(ctx));
  exit(1);
}

__attribute__((unused)) static nyx_tensor *make(nyx_dtype dtype, int ndim,
                                                const int64_t *shape,
                                                const double *values) {
  nyx_tensor *wide, *out;
  must(nyx_tensor_from_data(ctx, NYX_FLOAT64, ndim, shape, values, &wide));
  nyx_value to = NYX_I(dtype);
  must(nyx__apply1(ctx, ID(cast), wide, &to, &out));
  nyx_tensor_release(wide);
  return out;
}

static uint32_t state = 1;
UNTRACED __attribute__((unused)) static uint32_t next(void) {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

/* Small multiples of 1/8: exact in every float dtype. */
__attribute__((unused)) static nyx_tensor *fresh(nyx_dtype dtype, int ndim,
                                                 const int64_t *shape) {
  static double values[MAX];
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) n *= shape[d];
  for (int64_t i = 0; i < n; i++) {
    values[i] = (double)(next() % 200) / 8 - 12;
    if (!nyx_dtype_is_float(dtype)) values[i] = floor(values[i]);
    if (dtype == NYX_UINT8 || dtype == NYX_BOOL) values[i] = fabs(values[i]);
  }
  return make(dtype, ndim, shape, values);
}

__attribute__((unused)) static nyx_tensor *positions(int64_t below, int ndim,
                                                     const int64_t *shape) {
  static double values[MAX];
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) n *= shape[d];
  int base = nyx_context_index_base(ctx);
  for (int64_t i = 0; i < n; i++) values[i] = (double)(next() % (uint32_t)below) + base;
  return make(NYX_INT64, ndim, shape, values);
}

/* The same values at other strides. Consumes t. */
__attribute__((unused)) static nyx_tensor *scramble(nyx_tensor *t) {
  int n = nyx_tensor_ndim(t);
  if (n < 2) return t;
  nyx_tensor *turned, *plain, *back;
  must(nyx__apply1(ctx, ID(transpose), t, ATTRS(NYX_I(0), NYX_I(n - 1)), &turned));
  must(nyx__apply1(ctx, ID(contiguous), turned, NULL, &plain));
  must(nyx__apply1(ctx, ID(transpose), plain, ATTRS(NYX_I(0), NYX_I(n - 1)), &back));
  nyx_tensor_release(t);
  nyx_tensor_release(turned);
  nyx_tensor_release(plain);
  return back;
}

/* All elements as doubles, in one of several buffers. */
__attribute__((unused)) static double *read(nyx_tensor *t) {
  static double buffers[8][MAX];
  static int used;
  double *b = buffers[used++ % 8];
  must(nyx_tensor_read(ctx, t, NYX_FLOAT64, b, (size_t)nyx_tensor_numel(t) * sizeof *b));
  return b;
}

__attribute__((unused)) static bool same(const double *a, const double *b, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (!(a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))) {
      printf("# element %d: %g, expected %g\n", (int)i, a[i], b[i]);
      return false;
    }
  return true;
}

/* t has this shape and these values; releases t. */
__attribute__((unused)) static bool holds(nyx_tensor *t, int ndim, const int64_t *shape,
                                          const double *values) {
  if (!t) return false;
  bool ok = nyx_tensor_ndim(t) == ndim;
  for (int d = 0; ok && d < ndim; d++) ok = nyx_tensor_shape(t)[d] == shape[d];
  if (!ok) printf("# wrong shape\n");
  ok = ok && same(read(t), values, nyx_tensor_numel(t));
  nyx_tensor_release(t);
  return ok;
}
#define VALUES(...)                                                                      \
  (double[]) {                                                                           \
    __VA_ARGS__                                                                          \
  }

__attribute__((unused)) static nyx_tensor *apply(nyx__op_id id, nyx_tensor *a,
                                                 nyx_tensor *b, nyx_tensor *c,
                                                 const nyx_value *attrs) {
  nyx_tensor *in[3] = {a, b, c}, *out = NULL;
  int n = c ? 3 : b ? 2 : a ? 1 : 0;
  CHECK_OK(ctx, nyx__applyn(ctx, id, in, n, attrs, &out));
  return out;
}

__attribute__((unused)) static bool fails(nyx__op_id id, nyx_tensor *a, nyx_tensor *b,
                                          nyx_tensor *c, const nyx_value *attrs,
                                          nyx_status expected, const char *part) {
  nyx_tensor *in[3] = {a, b, c}, *out = NULL;
  int n = c ? 3 : b ? 2 : a ? 1 : 0;
  nyx_status status = nyx__applyn(ctx, id, in, n, attrs, &out);
  nyx_tensor_release(out);
  if (status == expected && strstr(nyx_context_error(ctx), part)) return true;
  printf("# %s: %s\n", nyx_status_name(status), nyx_context_error(ctx));
  return false;
}

#endif
