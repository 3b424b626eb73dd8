/* Random tensors of any dtype in several layouts. Read next: tensors.h, reduce_test.c. */
#ifndef NYX_SPEC_LAYOUTS_H
#define NYX_SPEC_LAYOUTS_H

#include "tensors.h"

/* Layouts of the same shape: contiguous; the first and the last dimension swapped in
 * memory; two elements apart; one row repeated. */
enum { PLAIN, TURNED, SPACED, REPEATED, LAYOUTS };

/* A float in -2..2, where `near_one` close to 1 or -1. */
UNTRACED __attribute__((unused)) static double random_value(nyx_dtype dtype,
                                                            bool near_one) {
  double u = (double)next() / 0x1p24;
  if (nyx_dtype_is_float(dtype))
    return near_one ? (next() % 2 ? 0.999 + 0.002 * u : -1.001 + 0.002 * u) : 4 * u - 2;
  if (near_one) return next() % 2 ? 1 : dtype == NYX_UINT8 || dtype == NYX_BOOL ? 1 : -1;
  double whole = (double)(next() % 21);
  return dtype == NYX_UINT8 || dtype == NYX_BOOL ? whole : whole - 10;
}

UNTRACED __attribute__((unused)) static nyx_tensor *random_tensor(nyx_dtype dtype,
                                                                  int ndim,
                                                                  const int64_t *shape,
                                                                  bool near_one) {
  __attribute__((unused)) static double values[2 * MAX];
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) n *= shape[d];
  for (int64_t i = 0; i < n; i++) values[i] = random_value(dtype, near_one);
  return make(dtype, ndim, shape, values);
}

__attribute__((unused)) static nyx_tensor *laid_out(nyx_dtype dtype, int ndim,
                                                    const int64_t *shape, int layout,
                                                    bool near_one) {
  int64_t wide[NYX_MAX_DIMS] = {0};
  for (int d = 0; d < ndim; d++) wide[d] = shape[d];
  nyx_tensor *t, *view = NULL;
  if (layout == TURNED) return scramble(random_tensor(dtype, ndim, shape, near_one));
  if (layout == SPACED) {
    wide[ndim - 1] *= 2;
    t = random_tensor(dtype, ndim, wide, near_one);
    must(nyx__apply1(ctx, ID(narrow), t,
                     ATTRS(NYX_I(ndim - 1), NYX_I(0), NYX_I(shape[ndim - 1]), NYX_I(2)),
                     &view));
  } else if (layout == REPEATED) {
    wide[0] = 1;
    t = random_tensor(dtype, ndim, wide, near_one);
    must(nyx__apply1(ctx, ID(expand), t, ATTRS(NYX_LIST(shape, ndim)), &view));
  } else {
    return random_tensor(dtype, ndim, shape, near_one);
  }
  nyx_tensor_release(t);
  return view;
}

/* A bound on relative rounding errors of one or two operations. */
__attribute__((unused)) static double epsilon(nyx_dtype dtype) {
  return dtype == NYX_FLOAT64    ? 1e-15
         : dtype == NYX_FLOAT16  ? 1e-3
         : dtype == NYX_BFLOAT16 ? 8e-3
                                 : 3e-7;
}

/* The last `count` rows of a tensor of any. */
__attribute__((unused)) static nyx_tensor *last_rows(nyx_tensor *t, int64_t count) {
  const nyx_value attrs[] = {NYX_I(0), NYX_I(nyx_tensor_shape(t)[0] - count),
                             NYX_I(count), NYX_I(1)};
  nyx_tensor *out;
  must(nyx__apply1(ctx, ID(narrow), t, attrs, &out));
  return out;
}

/* Whether the last elements of t, contiguous as `end` is, have the bytes of those. */
__attribute__((unused)) static bool ends_with(const nyx_tensor *t,
                                              const nyx_tensor *end) {
  size_t item = nyx_dtype_size(nyx_tensor_dtype(t));
  size_t bytes = (size_t)nyx_tensor_numel(end) * item;
  const char *from =
      (const char *)nyx_tensor_data(t) + (size_t)nyx_tensor_numel(t) * item - bytes;
  return memcmp(from, nyx_tensor_data(end), bytes) == 0;
}

#endif
