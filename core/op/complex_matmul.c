/* Products of complex matrices: numbers are pairs of floats, so that x (m, k) is a real
 * matrix (m, 2k), and times the real matrix that complex_matrix makes of y it is the
 * pairs of x y. One product of floats, whose result needs no putting together, and no
 * more multiplications than the four of parts have. Read next: complex.c, matmul.c. */
#include "complex.h"

#include <nyx/parallel.h>

#include "../../kernels/cpu/complex.h"
#include "../device/device.h"
#include "../tensor/tensor.h"
#include "steps.h"

#define GRAIN 16384 /* numbers that are worth waking a thread for */

/* complex_matrix: (..., k, n) becomes (..., 2k, 2n), k numbers (2k, 2) */

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  nyx_spec *spec = &c->spec[0];
  if (x->ndim == 0) return nyx__error(c->ctx, MATMUL_NUMBER, "x");
  int rows = x->ndim == 1 ? 0 : x->ndim - 2;
  int64_t shape[NYX_MAX_DIMS] = {0};
  for (int d = 0; d < x->ndim; d++) shape[d] = x->shape[d];
  shape[rows] *= 2;
  shape[rows + 1] = x->ndim == 1 ? 2 : 2 * x->shape[rows + 1];
  nyx__spec(spec, nyx_dtype_real(x->dtype), rows + 2, shape);
  return NYX_OK;
}

typedef struct rows {
  void (*fn)(int64_t rows, int64_t n, const void *from, void *to);
  const char *from;
  char *to;
  int64_t n, bytes; /* numbers of a row, and their bytes */
} rows;

static void run(void *arg, int64_t begin, int64_t end) {
  const rows *r = arg;
  r->fn(end - begin, r->n, r->from + begin * r->bytes, r->to + 2 * begin * r->bytes);
}

static nyx_status cpu(nyx_call *c) {
  nyx_tensor *x;
  if (c->out[0]->numel == 0) return NYX_OK;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  const int64_t n = x->ndim > 1 ? x->shape[x->ndim - 1] : 1;
  rows r = {.fn = nyx__cpu_kernels()->complex->matrix[x->dtype == NYX_COMPLEX128],
            .from = nyx__data(x),
            .to = nyx__data(c->out[0]),
            .n = n,
            .bytes = n * nyx__item(x->dtype)};
  nyx_parallel_for(x->numel / n, 1 + GRAIN / n, run, &r);
  nyx_tensor_release(x);
  return NYX_OK;
}

/* Every other row of g, from `first` on, as numbers. */
static nyx_status half_of(nyx__steps *s, nyx_tensor *g, const nyx_spec *x, int first,
                          nyx_tensor **out) {
  const int dim = x->ndim == 1 ? 0 : x->ndim - 2;
  const nyx_value every[] = {NYX_I(dim), NYX_I(first), NYX_I(x->shape[dim]), NYX_I(2)};
  int64_t shape[NYX_MAX_DIMS];
  for (int d = 0; d < x->ndim; d++) shape[d] = x->shape[d];
  shape[x->ndim] = 2;
  const nyx_value sizes = NYX_LIST(shape, x->ndim + 1);
  NYX_TRY(nyx__step(s, NYX__OP_narrow, g, NULL, every, out));
  NYX_TRY(nyx__step(s, NYX__OP_reshape, *out, NULL, &sizes, out));
  NYX_TRY(nyx__step(s, NYX__OP_contiguous, *out, NULL, NULL, out));
  return nyx__step(s, NYX__OP_view_as_complex, *out, NULL, NULL, out);
}

static nyx_status gradient_steps(nyx__steps *s, nyx_backward *b) {
  const nyx_spec *x = &b->in_spec[0];
  const nyx_dtype dtype = nyx_dtype_real(x->dtype);
  const nyx_value turned = NYX_I(1);
  nyx_tensor *as_is, *times_i, *zero, *one, *i;
  if (b->grad_out[0]->numel == 0)
    return nyx__zeros(s->ctx, b->grad_out[0], x, &b->grad_in[0]);
  NYX_TRY(half_of(s, b->grad_out[0], x, 0, &as_is));
  NYX_TRY(half_of(s, b->grad_out[0], x, 1, &times_i));
  NYX_TRY(nyx_tensor_scalar(s->ctx, 0, dtype, false, &zero));
  nyx__step_keep(s, zero);
  NYX_TRY(nyx_tensor_scalar(s->ctx, 1, dtype, false, &one));
  nyx__step_keep(s, one);
  NYX_TRY(nyx__step(s, NYX__OP_complex, zero, one, NULL, &i));
  NYX_TRY(nyx__step(s, NYX__OP_complex_mul, times_i, i, &turned, &times_i));
  return nyx__apply2(s->ctx, NYX__OP_add, as_is, times_i, NULL, &b->grad_in[0]);
}

static nyx_status gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  return nyx__steps_end(&s, gradient_steps(&s, b));
}

/* Entry by entry where they are vectors: a batch of those is no matrix. */
static nyx_status batch(nyx_batch *b) {
  const nyx_value last = NYX_I(-1);
  if (b->in[0]->ndim > 2) return nyx__batch_leading(b);
  nyx__steps s = {.ctx = b->ctx};
  nyx_tensor *columns;
  nyx_status status = nyx__step(&s, NYX__OP_unsqueeze, b->in[0], NULL, &last, &columns);
  if (status == NYX_OK)
    status = nyx__apply1(b->ctx, NYX__OP_complex_matrix, columns, NULL, &b->out[0]);
  return nyx__steps_end(&s, status);
}

const nyx_op nyx__op_complex_matrix = {
    .name = "complex_matrix",
    .group = "complex",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_COMPLEX,
    .doc =
        "the real matrices (..., 2k, 2n) that multiply numbers seen as pairs as complex "
        "matrices x of (..., k, n) do: every row, and below it the row times i; k "
        "numbers "
        "are a column",
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .forward = nyx__forward_linear,
    .batch = batch,
    .cases = "x(2,3)<complex64\nx(4)<complex64\nx(2,3,2)<complex64",
};

/* The product */

/* x with its last dimension in pairs side by side, `joined` with the one before. */
static nyx_status pairs_of(nyx__steps *s, nyx_tensor *x, bool joined, nyx_tensor **out) {
  NYX_TRY(nyx__step(s, NYX__OP_view_as_real, x, NULL, NULL, out));
  if (!joined) return NYX_OK;
  int64_t shape[NYX_MAX_DIMS];
  for (int d = 0; d < x->ndim; d++) shape[d] = x->shape[d];
  shape[x->ndim - 1] *= 2;
  const nyx_value sizes = NYX_LIST(shape, x->ndim);
  return nyx__step(s, NYX__OP_reshape, *out, NULL, &sizes, out);
}

/* Pairs, in rows where there are any, as numbers. */
static nyx_status numbers_of(nyx__steps *s, nyx_tensor *pairs, bool in_rows,
                             nyx_dtype dtype, nyx_tensor **out) {
  const nyx_value to = NYX_I(nyx_dtype_real(dtype));
  *out = pairs;
  if (pairs->dtype != NYX_FLOAT32 && pairs->dtype != NYX_FLOAT64) /* mixed precision */
    NYX_TRY(nyx__step(s, NYX__OP_cast, pairs, NULL, &to, out));
  if (in_rows) {
    int64_t shape[NYX_MAX_DIMS];
    for (int d = 0; d < pairs->ndim; d++) shape[d] = pairs->shape[d];
    shape[pairs->ndim - 1] /= 2;
    shape[pairs->ndim] = 2;
    const nyx_value sizes = NYX_LIST(shape, pairs->ndim + 1);
    NYX_TRY(nyx__step(s, NYX__OP_reshape, *out, NULL, &sizes, out));
  }
  if ((*out)->lift || !nyx__is_contiguous(*out))
    NYX_TRY(nyx__step(s, NYX__OP_contiguous, *out, NULL, NULL, out));
  return nyx__step(s, NYX__OP_view_as_complex, *out, NULL, NULL, out);
}

bool nyx__complex_product(const nyx_tensor *x, const nyx_tensor *y) {
  const int most = NYX_MAX_DIMS - 1;
  return nyx__complex_dtype(y->dtype) && nyx__on_cpu(x) && nyx__on_cpu(y) &&
         x->ndim > 0 && y->ndim > 0 && x->ndim <= most && y->ndim <= most &&
         x->shape[x->ndim - 1] == y->shape[y->ndim > 1 ? y->ndim - 2 : 0];
}

nyx_status nyx__complex_matmul(nyx__steps *s, nyx__op_id id, nyx_tensor *x, nyx_tensor *y,
                               nyx_dtype dtype, nyx_tensor **out) {
  const bool in_rows = y->ndim > 1;
  nyx_tensor *pairs = x, *matrix, *made;
  if (nyx__complex_dtype(x->dtype)) {
    NYX_TRY(pairs_of(s, x, true, &pairs));
    NYX_TRY(nyx__step(s, NYX__OP_complex_matrix, y, NULL, NULL, &matrix));
  } else {
    NYX_TRY(pairs_of(s, y, in_rows, &matrix));
  }
  NYX_TRY(nyx__step(s, id, pairs, matrix, NULL, &made));
  return numbers_of(s, made, in_rows, dtype, out);
}
