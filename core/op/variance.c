/* var and std. Rows of contiguous elements take two passes, columns of contiguous rows
 * two passes over a few rows at a time. What is long is worked on in pieces of fixed
 * size, whose moments are merged in order, so that results do not depend on the number of
 * threads. Read next: softmax.h (rows), kernels/cpu/softmax.h (moments).
 */
#include <math.h>
#include <nyx/parallel.h>

#include "../device/sides.h"
#include "../grad/graph.h"
#include "kernels/cpu/softmax.h"
#include "reduce.h"
#include "softmax.h"

#define PIECE 32768     /* elements of a row that one task takes */
#define GRAIN 16384     /* elements of short rows that one task takes */
#define PIECE_ROWS 1024 /* the same down columns, of which one task takes COLUMNS */
#define COLUMNS 256
#define NEAR_ROWS 32  /* gone over twice: of COLUMNS they fit the second cache */
#define MIN_COLUMNS 8 /* fewer are copied into rows */

enum { ATTR_DIM, ATTR_CORRECTION, ATTR_KEEPDIM, ATTRS };

/* The mean of a piece and the sum of squared differences from it. */
typedef struct moments {
  double mean, squares;
} moments;

typedef struct variance_job {
  const nyx_softmax_kernel *kernel;
  bool root;                       /* std */
  size_t size;                     /* of an element */
  int64_t rows, n, length, pieces; /* n elements in pieces of `length` */
  double divisor;
  const char *x;
  char *y;
  moments *parts; /* rows * pieces of them; NULL for short rows */
} variance_job;

static void write_row(const variance_job *j, int64_t r, double squares) {
  double value = squares / j->divisor;
  if (j->root) value = sqrt(value);
  if (j->size == sizeof(double))
    ((double *)j->y)[r] = value;
  else
    ((float *)j->y)[r] = (float)value;
}

static void do_rows(void *arg, int64_t begin, int64_t end) {
  const variance_job *j = arg;
  for (int64_t r = begin; r < end; r++) {
    moments m;
    j->kernel->moments(j->x + (size_t)(r * j->n) * j->size, j->n, &m.mean, &m.squares);
    write_row(j, r, m.squares);
  }
}

static int64_t length_of(const variance_job *j, int64_t piece) {
  int64_t left = j->n - piece * j->length;
  return left < j->length ? left : j->length;
}

static void do_pieces(void *arg, int64_t begin, int64_t end) {
  const variance_job *j = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t piece = i % j->pieces, at = i / j->pieces * j->n + piece * j->length;
    j->kernel->moments(j->x + (size_t)at * j->size, length_of(j, piece),
                       &j->parts[i].mean, &j->parts[i].squares);
  }
}

/* The sum of squares of all pieces: Chan, Golub and LeVeque, "Updating Formulae and a
 * Pairwise Algorithm for Computing Sample Variances" (1979). */
static double merged(const variance_job *j, const moments *part) {
  double mean = part[0].mean, squares = part[0].squares, n = (double)j->length;
  for (int64_t i = 1; i < j->pieces; i++) {
    double more = (double)length_of(j, i), all = n + more;
    double apart = part[i].mean - mean;
    squares += part[i].squares + apart * apart * (n * more / all);
    mean += apart * (more / all);
    n = all;
  }
  return squares;
}

static nyx_status variances(nyx_context *ctx, variance_job *j) {
  if (j->pieces <= 1) {
    nyx_parallel_for(j->rows, GRAIN / (j->n + 1) + 1, do_rows, j);
    return NYX_OK;
  }
  int64_t items = j->rows * j->pieces;
  size_t bytes = (size_t)items * sizeof(moments);
  j->parts = nyx_memory_alloc(bytes);
  if (!j->parts) return nyx__no_memory(ctx, bytes);
  nyx_parallel_for(items, 1, do_pieces, j);
  for (int64_t r = 0; r < j->rows; r++)
    write_row(j, r, merged(j, j->parts + r * j->pieces));
  nyx_memory_free(j->parts);
  return NYX_OK;
}

/* Columns */

typedef struct column_job {
  variance_job to; /* rows: of the result; pieces of PIECE_ROWS elements */
  side kept;
  int64_t inner, blocks, step; /* columns side by side, in blocks; from row to row */
} column_job;

static void do_columns(void *arg, int64_t begin, int64_t end) {
  const column_job *j = arg;
  const variance_job *to = &j->to;
  for (int64_t task = begin; task < end; task++) {
    double mean[COLUMNS], squares[COLUMNS];
    int64_t piece = task % to->pieces, block = task / to->pieces;
    int64_t column = block % j->blocks * COLUMNS, left = j->inner - column;
    int64_t first = block / j->blocks * j->inner + column;
    int64_t width = left < COLUMNS ? left : COLUMNS, n = length_of(to, piece);
    const char *x =
        to->x +
        (size_t)(place(&j->kept, first) + piece * to->length * j->step) * to->size;
    for (int64_t r = 0; r < n; r += NEAR_ROWS)
      to->kernel->column_moments(x + (size_t)(r * j->step) * to->size, j->step,
                                 n - r < NEAR_ROWS ? n - r : NEAR_ROWS, width, r, mean,
                                 squares);
    for (int64_t i = 0; i < width; i++)
      if (to->parts)
        to->parts[(first + i) * to->pieces + piece] = (moments){mean[i], squares[i]};
      else
        write_row(to, first + i, squares[i]);
  }
}

static nyx_status column_variances(nyx_context *ctx, column_job *j) {
  variance_job *to = &j->to;
  int64_t width = j->inner < COLUMNS ? j->inner : COLUMNS;
  int64_t tasks = to->rows / j->inner * j->blocks * to->pieces;
  if (to->pieces > 1) {
    size_t bytes = (size_t)(to->rows * to->pieces) * sizeof(moments);
    if (!(to->parts = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  }
  nyx_parallel_for(tasks, GRAIN / (width * length_of(to, 0)) + 1, do_columns, j);
  for (int64_t r = 0; to->parts && r < to->rows; r++)
    write_row(to, r, merged(to, to->parts + r * to->pieces));
  nyx_memory_free(to->parts);
  return NYX_OK;
}

/* Whether x, of the compute type, is columns as it lies; then in j how. */
static bool as_columns(const nyx_tensor *x, uint32_t dims, column_job *j) {
  side reduced = side_of(x, dims, true, true);
  j->kept = side_of(x, dims, false, false);
  j->inner = inner_size(&j->kept);
  j->step = inner_stride(&reduced);
  j->blocks = (j->inner + COLUMNS - 1) / COLUMNS;
  return reduced.n == 1 && j->kept.count > 0 && reduced.count > 0 && j->kept.n > 0 &&
         inner_stride(&j->kept) == 1 && j->inner >= MIN_COLUMNS && j->step != 1;
}

/* n - correction, 0 where that is negative. */
static double divisor_of(int64_t n, double correction) {
  double left = (double)n - correction;
  return left > 0 ? left : 0;
}

/* Elsewhere: the mean and the squares about it in float64 where the device has it, as the
 * moments here are. */
static nyx_status run_there(nyx_call *c, bool root, uint32_t dims) {
  const nyx_tensor *x = c->in[0];
  const nyx__reduce_about_rows rows = {root ? NYX__REDUCE_std : NYX__REDUCE_var,
                                       NYX__REDUCE_mean};
  nyx_dtype compute = c->device->float64 ? NYX_FLOAT64 : nyx__compute_dtype(c->dtype);
  int64_t n = nyx__reduce_count(x->ndim, x->shape, dims);
  return nyx__reduce_about(c, rows, dims, compute,
                           divisor_of(n, c->attr[ATTR_CORRECTION].f));
}

static nyx_status run(nyx_call *c, bool root) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *in = NULL, *out, *target = c->out[0], *x = c->in[0];
  nyx_dtype compute = nyx__compute_dtype(c->dtype);
  uint32_t dims;
  column_job columns;
  NYX_TRY(nyx__reduce_dims(ctx, NYX_ATTR_DIMS, &c->attr[ATTR_DIM], x->ndim, &dims));
  if (c->device != nyx__cpu()) return run_there(c, root, dims);
  bool down = x->dtype == compute && as_columns(x, dims, &columns);
  if (!down) NYX_TRY(nyx__float_rows(ctx, x, dims, compute, &in));
  nyx_status status = NYX_OK;
  if (target->dtype == compute)
    out = nyx_tensor_retain(target);
  else
    status = nyx_tensor_empty(ctx, compute, target->ndim, target->shape, &out);
  if (status == NYX_OK) {
    int64_t n = nyx__reduce_count(x->ndim, x->shape, dims);
    variance_job j = {.kernel = nyx__softmax_kernel(compute),
                      .root = root,
                      .size = nyx_dtype_size(compute),
                      .rows = target->numel,
                      .n = n,
                      .length = down ? PIECE_ROWS : PIECE,
                      .divisor = divisor_of(n, c->attr[ATTR_CORRECTION].f),
                      .x = nyx__data(down ? x : in),
                      .y = nyx__data(out)};
    j.pieces = (n + j.length - 1) / j.length;
    columns.to = j;
    status = down ? column_variances(ctx, &columns) : variances(ctx, &j);
    if (status == NYX_OK && out != target) status = nyx__copy_into(ctx, out, target);
    nyx_tensor_release(out);
  }
  nyx_tensor_release(in);
  return status;
}

static nyx_status var_run(nyx_call *c) {
  return run(c, false);
}
static nyx_status std_run(nyx_call *c) {
  return run(c, true);
}

static nyx_status variance_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  uint32_t dims;
  double correction = c->attr[ATTR_CORRECTION].f;
  NYX_TRY(nyx__reduce_dims(c->ctx, NYX_ATTR_DIMS, &c->attr[ATTR_DIM], x->ndim, &dims));
  if (!isfinite(correction))
    return nyx__error(c->ctx, ATTR_NUMBER, "correction", correction, "a finite number");
  nyx__reduce_spec(&c->spec[0], c->dtype, x->ndim, x->shape, dims,
                   c->attr[ATTR_KEEPDIM].i != 0);
  return NYX_OK;
}

/* A text over g, x, y (x's mean), r (the result) and p (a factor over n - correction). */
static nyx_status gradient(nyx_backward *b, const char *text, double factor) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  nyx_context *ctx = b->ctx;
  const nyx_spec *in = &b->in_spec[0];
  uint32_t dims;
  int64_t over[NYX_MAX_DIMS];
  int n = 0;
  NYX_TRY(nyx__reduce_dims(ctx, NYX_ATTR_DIMS, &b->attr[ATTR_DIM], in->ndim, &dims));
  for (int d = 0; d < in->ndim; d++)
    if (dims >> d & 1) over[n++] = d;
  int64_t count = nyx__reduce_count(in->ndim, in->shape, dims);
  const double attr[2] = {factor / divisor_of(count, b->attr[ATTR_CORRECTION].f), 0};
  const nyx_value mean_attrs[] = {NYX_LIST(over, n), NYX_I(1)};
  nyx_tensor *g = NULL, *r = NULL, *mean = NULL;
  nyx_status status = nyx__keep_dims(ctx, b->grad_out[0], in, dims, &g);
  if (status == NYX_OK && b->out[0])
    status = nyx__keep_dims(ctx, b->out[0], in, dims, &r);
  if (status == NYX_OK)
    status = nyx__apply1(ctx, NYX__OP_mean, b->in[0], mean_attrs, &mean);
  if (status == NYX_OK)
    status = nyx__evaluate(ctx, text, (nyx_tensor *[]){g, b->in[0], mean, NULL, r}, attr,
                           &b->grad_in[0]);
  nyx_tensor_release(g);
  nyx_tensor_release(r);
  nyx_tensor_release(mean);
  return status;
}

static nyx_status var_gradient(nyx_backward *b) {
  return gradient(b, "g * p * (x - y)", 2);
}

/* Where all elements are equal, 0. */
static nyx_status std_gradient(nyx_backward *b) {
  return gradient(b, "nyx_select(nyx_eq(r, K(0)), K(0), g * p / r) * (x - y)", 1);
}

static const nyx_attr variance_attrs[ATTRS] = {
    {"dim", NYX_ATTR_DIMS, false, NYX_NONE, NYX__DIMS_DOC},
    {"correction", NYX_ATTR_FLOAT, false, NYX_F(1),
     "taken from the number of elements before dividing by it: 1 for the variance of "
     "what "
     "a sample was drawn from, 0 for that of the elements themselves"},
    {"keepdim", NYX_ATTR_BOOL, false, NYX_I(0), NYX__KEEPDIM_DOC}};

#define VARIANCE_CASES                                                                   \
  "x(3,4)\nx(3,4); dim=1\nx(2,3,4); dim={1,3} correction=0 keepdim=true\n"               \
  "x(5); dim=-1 correction=1.5"

const nyx_op nyx__op_var = {
    .name = "var",
    .group = "reduction",
    .doc =
        "the variance: squared differences from the mean, added up and divided by n - "
        "correction, or by 0 where that is negative",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = variance_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = variance_infer,
    .cpu = var_run,
    .gradient = var_gradient,
    .save_in = NYX_SAVE(0),
    .batch = nyx__batch_reduce,
    .cases = VARIANCE_CASES,
    .domain = {-2, 2},
};

const nyx_op nyx__op_std = {
    .name = "std",
    .group = "reduction",
    .doc = "the standard deviation: the square root of var",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = variance_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = variance_infer,
    .cpu = std_run,
    .gradient = std_gradient,
    .save_in = NYX_SAVE(0),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_reduce,
    .cases = VARIANCE_CASES,
    .domain = {-2, 2},
};
