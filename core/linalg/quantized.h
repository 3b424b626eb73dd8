/* Products with a weight of few bits. Read next: quantized.c, quantized_low.c;
 * core/op/quantized.c. */
#ifndef NYX_LINALG_QUANTIZED_H
#define NYX_LINALG_QUANTIZED_H

#include "../../kernels/cpu/quantized.h"
#include "../tensor/tensor.h"

/* outputs x terms elements, (q - zero) * scale, each row in `groups` groups of equal size
 * with a scale and a zero point of their own. All contiguous on the CPU. */
typedef struct nyx_quantized {
  const void *q; /* int8, or two int4 to a byte: kernels/cpu/quantized.h */
  bool int4;
  int64_t outputs, terms, groups;
  nyx_dtype scale_dtype, zero_dtype; /* floats */
  const void *scale, *zero;          /* zero NULL: 8 for int4, 0 for int8 */
} nyx_quantized;

/* With more rows, scales and zero points are best float32. */
#define NYX_QUANTIZED_SOME 8

/* y (rows x outputs) = x (rows x terms) times the weight turned, + bias (may be NULL). */
nyx_status nyx__quantized_product(nyx_context *ctx, const nyx_quantized *w,
                                  const float *x, int64_t rows, const float *bias,
                                  float *y) NYX_MUST_CHECK;

/* quantized_low.c: the same for x, and y, of bfloat16, where the CPU has a unit for them:
 * with groups of whole steps of it, scales and zero points in float32. */
bool nyx__quantized_low_takes(const nyx_quantized *w, int64_t rows);
nyx_status nyx__quantized_low(nyx_context *ctx, const nyx_quantized *w, const void *x,
                              int64_t rows, const float *bias, void *y) NYX_MUST_CHECK;

/* The weight itself, contiguous, as any float dtype. */
nyx_status nyx__dequantize(nyx_context *ctx, const nyx_quantized *w, nyx_dtype dtype,
                           void *to) NYX_MUST_CHECK;

#endif
