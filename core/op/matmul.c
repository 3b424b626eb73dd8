/* matmul and bmm: shapes, gradients, and how any strides become a batch of products. Read
 * next: linear.c, core/linalg/gemm.c. */
#include "matmul.h"

#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../linalg/gemm.h"
#include "../tensor/packed.h"
#include "../transform/batch.h"
#include "ops.h"

/* Rows and columns of an operand; a 1-d one is a row on the left, a column on the right.
 */
static int64_t left_rows(const nyx_tensor *a) {
  return a->ndim > 1 ? a->shape[a->ndim - 2] : 1;
}
static int64_t right_cols(const nyx_tensor *b) {
  return b->ndim > 1 ? b->shape[b->ndim - 1] : 1;
}
static int batch_dims(int ndim) {
  return ndim > 2 ? ndim - 2 : 0;
}

static nyx_status infer_matmul(nyx_call *c) {
  const nyx_tensor *a = c->in[0], *b = c->in[1];
  if (a->ndim == 0) return nyx__error(c->ctx, MATMUL_NUMBER, "x");
  if (b->ndim == 0) return nyx__error(c->ctx, MATMUL_NUMBER, "y");
  int64_t inner = a->shape[a->ndim - 1];
  if (inner != b->shape[b->ndim > 1 ? b->ndim - 2 : 0]) {
    return nyx__error(c->ctx, MATMUL_INNER, NYX__SHAPE(a), NYX__SHAPE(b),
                      (long long)inner);
  }
  nyx_spec *spec = &c->spec[0];
  if (!nyx__broadcast(batch_dims(a->ndim), a->shape, batch_dims(b->ndim), b->shape,
                      &spec->ndim, spec->shape)) {
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(a), NYX__SHAPE(b));
  }
  if (a->ndim > 1) spec->shape[spec->ndim++] = left_rows(a);
  if (b->ndim > 1) spec->shape[spec->ndim++] = right_cols(b);
  spec->dtype = c->dtype;
  return NYX_OK;
}

/* Describes a @ b, all of their strides; `c` receives the results, contiguous. */
static void describe(nyx_gemm *g, const nyx_tensor *a, const nyx_tensor *b, void *c) {
  int na = a->ndim, nb = b->ndim;
  *g = (nyx_gemm){.dtype = a->dtype};
  if (nyx__keeps_packed(b->storage)) g->keep_b = b->storage;
  g->product = (nyx_product){.m = left_rows(a),
                             .n = right_cols(b),
                             .k = a->shape[na - 1],
                             .a = nyx__data(a),
                             .b = nyx__data(b),
                             .a_rs = na > 1 ? a->stride[na - 2] : 0,
                             .a_cs = a->stride[na - 1],
                             .b_rs = b->stride[nb > 1 ? nb - 2 : 0],
                             .b_cs = nb > 1 ? b->stride[nb - 1] : 0,
                             .c = c};
  g->product.ldc = g->product.n;
  int batch_a = batch_dims(na), batch_b = batch_dims(nb);
  int n = batch_a > batch_b ? batch_a : batch_b;
  for (int d = 0; d < n; d++) {
    int da = d - (n - batch_a), db = d - (n - batch_b);
    int64_t size_a = da >= 0 ? a->shape[da] : 1, size_b = db >= 0 ? b->shape[db] : 1;
    int64_t size = size_a == 1 ? size_b : size_a;
    if (size == 1) continue;
    int i = g->batch_ndim++;
    g->batch_shape[i] = size;
    g->a_batch[i] = size_a == 1 ? 0 : a->stride[da];
    g->b_batch[i] = size_b == 1 ? 0 : b->stride[db];
  }
}

/* Batches that share the right matrix are further rows of the left one. */
static void collapse(nyx_gemm *g) {
  nyx_product *p = &g->product;
  while (g->batch_ndim > 0) {
    int d = g->batch_ndim - 1;
    if (g->b_batch[d] != 0 || g->batch_shape[d] == 0) return;
    if (p->m == 1) {
      p->a_rs = g->a_batch[d];
    } else if (g->a_batch[d] != p->m * p->a_rs) {
      return;
    }
    p->m *= g->batch_shape[d];
    g->batch_ndim--;
  }
}

/* The dtype products of `dtype` are computed in. */
static nyx_dtype compute_dtype(nyx_dtype dtype) {
  return dtype == NYX_FLOAT16 || dtype == NYX_BFLOAT16 ? NYX_FLOAT32 : dtype;
}

/* left @ right and what comes after, stored as they are: floats, whose results and sums
 * are of their type or, `low`, half types. */
static nyx_status multiply(nyx_context *ctx, const nyx_gemm *plain,
                           const nyx__finish *finish, nyx_tensor *out, bool low) {
  nyx_gemm g = *plain;
  nyx__finishing f;
  if (!finish) return low ? nyx__gemm_low(ctx, &g, out->dtype) : nyx__gemm(ctx, &g);
  NYX_TRY(nyx__finish_open(ctx, finish, out, &f));
  g.after = &f.e;
  nyx_status status = low ? nyx__gemm_low(ctx, &g, out->dtype) : nyx__gemm(ctx, &g);
  return nyx__finish_close(ctx, finish, &f, status);
}

/* By float32 copies of half types. */
static nyx_status multiply_wide(nyx_context *ctx, nyx_tensor *left, nyx_tensor *right,
                                const nyx__finish *finish, nyx_tensor *out) {
  nyx_tensor *a = NULL, *b = NULL, *to = NULL;
  nyx_gemm g;
  nyx_status status = nyx__contiguous_as(ctx, left, NYX_FLOAT32, &a);
  if (status == NYX_OK) status = nyx__contiguous_as(ctx, right, NYX_FLOAT32, &b);
  if (status == NYX_OK)
    status = nyx_tensor_empty(ctx, NYX_FLOAT32, out->ndim, out->shape, &to);
  if (status == NYX_OK) {
    describe(&g, a, b, nyx__data(to));
    collapse(&g);
    status = multiply(ctx, &g, finish, to, false);
  }
  if (status == NYX_OK) status = nyx__copy_into(ctx, to, out);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_tensor_release(to);
  return status;
}

nyx_status nyx__product(nyx_context *ctx, nyx_tensor *left, nyx_tensor *right,
                        const nyx__finish *finish, nyx_tensor *out) {
  nyx_gemm g;
  describe(&g, left, right, nyx__data(out));
  collapse(&g);
  if (compute_dtype(out->dtype) == out->dtype)
    return multiply(ctx, &g, finish, out, false);
  if (nyx__gemm_low_takes(&g)) return multiply(ctx, &g, finish, out, true);
  return multiply_wide(ctx, left, right, finish, out);
}

static nyx_status cpu_matmul(nyx_call *c) {
  return nyx__product(c->ctx, c->in[0], c->in[1], NULL, c->out[0]);
}

/* Gradients */

nyx_status nyx__turned(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  const nyx_value attrs[] = {NYX_I(-2), NYX_I(-1)};
  return nyx__apply1(ctx, NYX__OP_transpose, t, attrs, out);
}

static nyx_status reshaped(nyx_context *ctx, nyx_tensor *t, int ndim,
                           const int64_t *shape, nyx_tensor **out) {
  if (t->ndim == ndim && memcmp(t->shape, shape, (size_t)ndim * sizeof *shape) == 0) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  const nyx_value attr = NYX_LIST(shape, ndim);
  return nyx__apply1(ctx, NYX__OP_reshape, t, &attr, out);
}

nyx_status nyx__inner_product(nyx_context *ctx, nyx_tensor *x, nyx_tensor *y,
                              nyx_tensor **out) {
  nyx_tensor *flat_x = NULL, *flat_y = NULL, *turned = NULL;
  int64_t cols_x = x->shape[x->ndim - 1], cols_y = y->shape[y->ndim - 1], rows = 1;
  for (int d = 0; d < x->ndim - 1; d++) rows *= x->shape[d];
  nyx_status status = reshaped(ctx, x, 2, (int64_t[]){rows, cols_x}, &flat_x);
  if (status == NYX_OK) {
    status = reshaped(ctx, y, 2, (int64_t[]){rows, cols_y}, &flat_y);
  }
  if (status == NYX_OK) status = nyx__turned(ctx, flat_x, &turned);
  if (status == NYX_OK) {
    status = nyx__apply2(ctx, NYX__OP_matmul, turned, flat_y, NULL, out);
  }
  nyx_tensor_release(flat_x);
  nyx_tensor_release(flat_y);
  nyx_tensor_release(turned);
  return status;
}

/* The shape of an operand as a matrix (or a batch of them). */
static nyx_spec matrix_spec(const nyx_spec *spec, bool left) {
  nyx_spec m = *spec;
  if (spec->ndim == 1) {
    m.ndim = 2;
    m.shape[0] = left ? 1 : spec->shape[0];
    m.shape[1] = left ? spec->shape[0] : 1;
  }
  return m;
}

/* grad_in = sum_to(left @ right), with one of the two transposed first. */
static nyx_status gradient_product(nyx_backward *b, nyx_tensor *left, nyx_tensor *right,
                                   bool turn_left, const nyx_spec *matrix, int i) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *turned = NULL, *full = NULL, *summed = NULL;
  nyx_status status = nyx__turned(ctx, turn_left ? left : right, &turned);
  if (status == NYX_OK) {
    status = nyx__apply2(ctx, NYX__OP_matmul, turn_left ? turned : left,
                         turn_left ? right : turned, NULL, &full);
  }
  if (status == NYX_OK) status = nyx__sum_to(ctx, full, matrix, &summed);
  if (status == NYX_OK) {
    status =
        reshaped(ctx, summed, b->in_spec[i].ndim, b->in_spec[i].shape, &b->grad_in[i]);
  }
  nyx_tensor_release(turned);
  nyx_tensor_release(full);
  nyx_tensor_release(summed);
  return status;
}

/* d(a b) = g b^T for a, a^T g for b. */
static nyx_status gradient_matmul(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  nyx_spec left_spec = matrix_spec(&b->in_spec[0], true);
  nyx_spec right_spec = matrix_spec(&b->in_spec[1], false);
  /* g with the rows and columns that 1-d operands left out */
  nyx_spec g_spec = b->out_spec[0];
  g_spec.ndim = batch_dims(left_spec.ndim);
  if (batch_dims(right_spec.ndim) > g_spec.ndim)
    g_spec.ndim = batch_dims(right_spec.ndim);
  g_spec.shape[g_spec.ndim++] = left_spec.shape[left_spec.ndim - 2];
  g_spec.shape[g_spec.ndim++] = right_spec.shape[right_spec.ndim - 1];
  nyx_tensor *g = NULL, *left = NULL, *right = NULL;
  nyx_status status = reshaped(ctx, b->grad_out[0], g_spec.ndim, g_spec.shape, &g);
  if (status == NYX_OK && b->need[0]) {
    status = reshaped(ctx, b->in[1], right_spec.ndim, right_spec.shape, &right);
    if (status == NYX_OK) status = gradient_product(b, g, right, false, &left_spec, 0);
  }
  if (status == NYX_OK && b->need[1]) {
    status = reshaped(ctx, b->in[0], left_spec.ndim, left_spec.shape, &left);
    if (status == NYX_OK && b->in_spec[1].ndim == 2) {
      status = nyx__inner_product(ctx, left, g, &b->grad_in[1]);
    } else if (status == NYX_OK) {
      status = gradient_product(b, left, g, true, &right_spec, 1);
    }
  }
  nyx_tensor_release(g);
  nyx_tensor_release(left);
  nyx_tensor_release(right);
  return status;
}

/* An operand that is a vector becomes a matrix of one row or column, so that the batch is
 * a leading dimension; `side` is -2 for a row, -1 for a column. */
static nyx_status batch_operand(nyx_batch *b, int i, int ndim, int64_t side,
                                nyx_tensor **out) {
  nyx_tensor *t = b->in[i], *matrix;
  nyx_status status;
  bool vector = t->ndim - b->batched[i] == 1;
  if (vector) {
    const nyx_value dim = NYX_I(side);
    NYX_TRY(nyx__apply1(b->ctx, NYX__OP_unsqueeze, t, &dim, &matrix));
  } else {
    matrix = nyx_tensor_retain(t);
  }
  b->in[i] = matrix;
  status = nyx__batch_align(b, i, ndim, out);
  b->in[i] = t;
  nyx_tensor_release(matrix);
  return status;
}

nyx_status nyx__batch_matmul(nyx_batch *b) {
  int ndim[2], most;
  for (int i = 0; i < 2; i++) ndim[i] = b->in[i]->ndim - b->batched[i];
  most = ndim[0] > ndim[1] ? ndim[0] : ndim[1];
  if (most < 2) most = 2;
  nyx_tensor *x, *y = NULL, *full = NULL;
  NYX_TRY(batch_operand(b, 0, most, -2, &x));
  nyx_status status = batch_operand(b, 1, most, -1, &y);
  if (status == NYX_OK) status = nyx__apply2(b->ctx, NYX__OP_matmul, x, y, NULL, &full);
  if (status == NYX_OK) { /* without the rows and columns that vectors were given */
    int64_t shape[NYX_MAX_DIMS] = {b->size};
    for (int d = 0; d < b->spec[0].ndim; d++) shape[d + 1] = b->spec[0].shape[d];
    status = reshaped(b->ctx, full, b->spec[0].ndim + 1, shape, &b->out[0]);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_tensor_release(full);
  return status;
}

const nyx_op nyx__op_matmul = {
    .name = "matmul",
    .group = "linear algebra",
    .doc =
        "the matrix product x @ y; leading dimensions are batches and broadcast; a 1-d x "
        "is a row, a 1-d y a column, and the dimension added is removed again",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_NUMBER,
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_matmul,
    .cpu = cpu_matmul,
    .gradient = gradient_matmul,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .forward = nyx__forward_product,
    .batch = nyx__batch_matmul,
    .cases =
        "x(3,4) y(4,5)\n"
        "x(4) y(4)\n"
        "x(4) y(4,3)\n"
        "x(3,4) y(4)\n"
        "x(2,3,4) y(4,5)\n"
        "x(2,3,4) y(4)\n"
        "x(4) y(2,4,3)\n"
        "x(2,1,3,4) y(3,4,2)\n"
        "x(2,3,0) y(0,2)\n"
        "x(0,3) y(3,2)",
};

static nyx_status infer_int_mm(nyx_call *c) {
  if (c->in[1]->dtype != NYX_INT8) {
    return nyx__error(c->ctx, DTYPE_INPUT, "y", nyx_dtype_name(c->in[1]->dtype), "int8");
  }
  NYX_TRY(infer_matmul(c));
  c->spec[0].dtype = NYX_INT32;
  return NYX_OK;
}

static nyx_status cpu_int_mm(nyx_call *c) {
  nyx_gemm g;
  describe(&g, c->in[0], c->in[1], nyx__data(c->out[0]));
  collapse(&g);
  return nyx__gemm_low(c->ctx, &g, NYX_INT32);
}

const nyx_op nyx__op_int_mm = {
    .name = "int_mm",
    .group = "linear algebra",
    .doc =
        "the matrix product of an int8 or uint8 x and an int8 y, summed in int32: exact "
        "up "
        "to 65,000 terms of any size, wrapping beyond; shapes as for matmul, which keeps "
        "the dtype of its inputs instead and wraps in it",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES(NYX_INT8) | NYX_DTYPES(NYX_UINT8),
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_int_mm,
    .cpu = cpu_int_mm,
    .cases =
        "x(3,4)<int8 y(4,5)<int8\n"
        "x(3,4)<uint8 y(4,5)<int8\n"
        "x(4)<int8 y(4)<int8\n"
        "x(2,1,3,4)<int8 y(3,4,2)<int8\n"
        "x(2,3,0)<uint8 y(0,2)<int8",
};

static nyx_status compute_bmm(nyx_call *c) {
  for (int i = 0; i < 2; i++) {
    if (c->in[i]->ndim != 3) {
      return nyx__error(c->ctx, NDIM_EXPECTED, i == 0 ? "x" : "y", NYX__SHAPE(c->in[i]),
                        "3 dimensions (batch, rows, columns); matmul takes any");
    }
  }
  if (c->in[0]->shape[0] != c->in[1]->shape[0]) {
    return nyx__error(c->ctx, BATCH_SIZES, NYX__SHAPE(c->in[0]), NYX__SHAPE(c->in[1]));
  }
  return nyx__apply2(c->ctx, NYX__OP_matmul, c->in[0], c->in[1], NULL, &c->out[0]);
}

const nyx_op nyx__op_bmm = {
    .name = "bmm",
    .group = "linear algebra",
    .doc = "matmul of two batches of matrices of the same number, without broadcasting",
    .kind = NYX_OP_COMPOSITE,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_NUMBER,
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .n_out = 1,
    .cpu = compute_bmm,
    .cases = "x(2,3,4) y(2,4,5)",
};
