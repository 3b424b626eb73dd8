/* softmax, log_softmax, their gradients as ops, and logsumexp. All of them see rows of
 * contiguous elements; a long row is worked on in pieces of fixed size, so that results
 * do not depend on the number of threads. Read next: kernels/cpu/softmax.h. */
#include "softmax.h"

#include <math.h>
#include <nyx/parallel.h>

#include "../grad/graph.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/move.h"
#include "kernels/cpu/softmax.h"
#include "reduce.h"

#define PIECE 32768      /* elements that are looked at together */
#define GRAIN 16384      /* elements of short rows that one task takes */
#define ROW_PIECES 8     /* of rows that one task takes as a whole, where there are */
#define MANY_ROWS 64     /* of them; fewer are shared piece by piece */
#define BLOCK_BYTES 1024 /* of a row that is written past the caches: short bursts */
#define STREAM_ROW 1024  /* bytes from which on a row is: most of it whole lines */
#define COLUMNS_LEAST 16 /* columns that are computed as they lie */

typedef enum row_op {
  SOFTMAX,
  LOG_SOFTMAX,
  SOFTMAX_BACKWARD,
  LOG_SOFTMAX_BACKWARD,
  LSE
} row_op;

/* What one piece of a row contributes, or all of them together: the greatest value and
 * the sum of exponentials over it; backward only a sum. */
typedef struct part {
  double most, sum;
} part;

typedef struct row_job {
  const nyx_softmax_kernel *kernel;
  row_op op;
  size_t size;           /* of an element */
  int64_t rows, n;       /* n elements each */
  int64_t pieces;        /* of a row */
  const char *in, *more; /* x; or g and r */
  char *out;
  part *parts; /* rows * pieces of them; NULL where a task has whole rows */
  const nyx_move_kernels *stream; /* NULL: the result stays in the caches */
} row_job;

const nyx_softmax_kernel *nyx__softmax_kernel(nyx_dtype compute) {
  return nyx__cpu_kernels()->softmax->type[compute == NYX_FLOAT64];
}

/* First look at a piece at element `at`. Softmax leaves exponentials in e. */
static part first_look(const row_job *j, int64_t at, int64_t n, char *e) {
  const char *x = j->in + (size_t)at * j->size;
  part p = {0, 0};
  switch (j->op) {
    case SOFTMAX: p.sum = j->kernel->exp_sum(x, n, &p.most, e); break;
    case LOG_SOFTMAX:
    case LSE: p.sum = j->kernel->exp_sum(x, n, &p.most, NULL); break;
    case SOFTMAX_BACKWARD:
      p.sum = j->kernel->dot(x, j->more + (size_t)at * j->size, n);
      break;
    case LOG_SOFTMAX_BACKWARD: p.sum = j->kernel->sum(x, n); break;
  }
  return p;
}

/* Exponentials over different greatest values are brought to the greater one. */
static part merge(part a, part b) {
  part m = {a.most, 0};
  if (!(a.most >= b.most || isnan(a.most))) m.most = b.most;
  double sa = a.most == m.most ? 1 : exp(a.most - m.most);
  double sb = b.most == m.most ? 1 : exp(b.most - m.most);
  m.sum = a.sum * sa + b.sum * sb;
  return m;
}

/* The number that the second look at a piece needs: `own` is the piece's part, `row` the
 * whole row's. */
static double number_of(const row_job *j, part own, part row) {
  if (j->op == LOG_SOFTMAX) return log(row.sum);
  if (j->op != SOFTMAX) return row.sum;
  if (row.most == -INFINITY) return NAN; /* 0 / 0, as by the formula */
  return (own.most == row.most ? 1 : exp(own.most - row.most)) / row.sum;
}

/* Second look at n elements, into y; e is what the first look left. */
static void second_look(const row_job *j, int64_t at, int64_t n, double most,
                        double number, const char *e, char *y) {
  size_t offset = (size_t)at * j->size;
  const char *x = j->in + offset, *r = j->more ? j->more + offset : NULL;
  switch (j->op) {
    case SOFTMAX: j->kernel->scale(e, n, number, y); break;
    case LOG_SOFTMAX: j->kernel->shift(x, n, most, number, y); break;
    case SOFTMAX_BACKWARD: j->kernel->softmax_backward(x, r, n, number, y); break;
    case LOG_SOFTMAX_BACKWARD: j->kernel->log_softmax_backward(x, r, n, number, y); break;
    case LSE: break;
  }
}

static void write_lse(const row_job *j, int64_t r, part row) {
  double lse = isinf(row.most) ? row.most : row.most + log(row.sum);
  if (j->size == sizeof(double))
    ((double *)j->out)[r] = lse;
  else
    ((float *)j->out)[r] = (float)lse;
}

/* Where piece i begins, and its length. */
static int64_t piece_at(const row_job *j, int64_t i, int64_t *n) {
  int64_t r = i / j->pieces, start = i % j->pieces * PIECE;
  *n = j->n - start < PIECE ? j->n - start : PIECE;
  return r * j->n + start;
}

/* The whole row's part, of those of its pieces. */
static part whole_row(const row_job *j, const part *parts) {
  part row = parts[0];
  bool sums = j->op == SOFTMAX_BACKWARD || j->op == LOG_SOFTMAX_BACKWARD;
  for (int64_t i = 1; i < j->pieces; i++) {
    if (sums)
      row.sum += parts[i].sum;
    else
      row = merge(row, parts[i]);
  }
  return row;
}

/* Asks for a block of the next row: what gradients are made of, which their first look
 * would wait for. Exponentials take long enough for their kernel to do so. */
static void fetch_next(const row_job *j, size_t offset, size_t bytes) {
  if (!j->more) return;
  offset += (size_t)j->n * j->size;
  for (size_t k = 0; k < bytes; k += 64) {
    __builtin_prefetch(j->in + offset + k, 0, 2);
    __builtin_prefetch(j->more + offset + k, 0, 2);
  }
}

/* A piece of the result, block by block where no cache is to hold it. */
static void write_piece(const row_job *j, int64_t at, int64_t n, part own, part row,
                        const char *e) {
  char *y = j->out + (size_t)at * j->size;
  double number = number_of(j, own, row);
  if (!j->stream) {
    second_look(j, at, n, row.most, number, e, y);
    return;
  }
  _Alignas(64) char room[BLOCK_BYTES];
  const int64_t block = BLOCK_BYTES / (int64_t)j->size;
  for (int64_t from = 0; from < n; from += block) {
    int64_t count = n - from < block ? n - from : block;
    size_t offset = (size_t)from * j->size;
    fetch_next(j, (size_t)(at + from) * j->size, (size_t)count * j->size);
    second_look(j, at + from, count, row.most, number, e + offset, room);
    j->stream->stream(count * (int64_t)j->size, room, y + offset);
  }
}

/* The pieces of a row: number i, its first element and how many. */
#define EACH_PIECE(j, i, from, count)                                                    \
  for (int64_t i = 0, from = 0, count;                                                   \
       i < (j)->pieces && (count = (j)->n - from < PIECE ? (j)->n - from : PIECE, true); \
       i++, from += PIECE)

/* e: room for a row of exponentials. */
static void do_row(const row_job *j, int64_t r, char *e) {
  part own[ROW_PIECES];
  EACH_PIECE(j, i, from, n) {
    own[i] = first_look(j, r * j->n + from, n, e + (size_t)from * j->size);
  }
  part row = whole_row(j, own);
  if (j->op == LSE) {
    write_lse(j, r, row);
    return;
  }
  EACH_PIECE(j, i, from, n) {
    write_piece(j, r * j->n + from, n, own[i], row, e + (size_t)from * j->size);
  }
}

/* Exponentials of rows that stream wait in a room, or, where there is no memory for it,
 * in the result like all others. */
static void do_rows(void *arg, int64_t begin, int64_t end) {
  const row_job *j = arg;
  size_t bytes = (size_t)j->n * j->size;
  char *room = j->stream && j->op == SOFTMAX ? nyx_memory_alloc(bytes) : NULL;
  for (int64_t r = begin; r < end; r++)
    do_row(j, r, room ? room : j->out + (size_t)r * bytes);
  nyx_memory_free(room);
  if (j->stream) j->stream->drain();
}

static void do_first(void *arg, int64_t begin, int64_t end) {
  const row_job *j = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t n, at = piece_at(j, i, &n);
    j->parts[i] = first_look(j, at, n, j->out + (size_t)at * j->size);
  }
}

static void do_second(void *arg, int64_t begin, int64_t end) {
  const row_job *j = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t n, at = piece_at(j, i, &n);
    part row = whole_row(j, j->parts + i / j->pieces * j->pieces);
    write_piece(j, at, n, j->parts[i], row, j->out + (size_t)at * j->size);
  }
  if (j->stream) j->stream->drain();
}

static nyx_status do_long_rows(nyx_context *ctx, row_job *j) {
  int64_t items = j->rows * j->pieces;
  size_t bytes = (size_t)items * sizeof(part);
  j->parts = nyx_memory_alloc(bytes);
  if (!j->parts) return nyx__no_memory(ctx, bytes);
  nyx_status status = nyx__parallel_for(ctx, items, 1, do_first, j);
  if (status == NYX_OK && j->op == LSE)
    for (int64_t r = 0; r < j->rows; r++)
      write_lse(j, r, whole_row(j, j->parts + r * j->pieces));
  else if (status == NYX_OK)
    status = nyx__parallel_for(ctx, items, 1, do_second, j);
  nyx_memory_free(j->parts);
  return status;
}

/* Runs `op` over rows: tensors that nyx__reduce_rows made, of one compute dtype. */
static nyx_status run_rows(nyx_context *ctx, row_op op, int64_t n, nyx_tensor *in,
                           nyx_tensor *more, nyx_tensor *out) {
  row_job j = {.kernel = nyx__softmax_kernel(in->dtype),
               .op = op,
               .size = nyx_dtype_size(in->dtype),
               .n = n,
               .rows = op == LSE ? out->numel
                       : n       ? in->numel / n
                                 : 0,
               .pieces = n > PIECE ? (n + PIECE - 1) / PIECE : 1,
               .in = nyx__data(in),
               .more = more ? nyx__data(more) : NULL,
               .out = nyx__data(out)};
  bool whole = j.pieces == 1 || (j.pieces <= ROW_PIECES && j.rows >= MANY_ROWS);
  size_t row = (size_t)n * j.size;
  if (op != LSE && row >= STREAM_ROW && (size_t)j.rows * row >= NYX_STREAM_ROWS)
    j.stream = nyx__cpu_kernels()->move;
  if (op == SOFTMAX && !whole) j.stream = NULL; /* exponentials are in the result */
  if (!whole) return do_long_rows(ctx, &j);
  return nyx__parallel_for(ctx, j.rows, n >= GRAIN ? 1 : GRAIN / (n > 0 ? n : 1), do_rows,
                           &j);
}

nyx_status nyx__float_rows(nyx_context *ctx, nyx_tensor *t, uint32_t dims,
                           nyx_dtype compute, nyx_tensor **out) {
  nyx_tensor *alias;
  NYX_TRY(nyx__reduce_alias(ctx, t, dims, &alias));
  nyx_status status = nyx__contiguous_as(ctx, alias, compute, out);
  nyx_tensor_release(alias);
  return status;
}

/* Runs `op` with `dims` of every tensor as rows, writing c->out[0], which has the shape
 * of the inputs unless op is LSE. */
static nyx_status run(nyx_call *c, row_op op, uint32_t dims) {
  nyx_context *ctx = c->ctx;
  nyx_dtype compute = nyx__compute_dtype(c->dtype);
  nyx_tensor *in = NULL, *more = NULL, *rows = NULL;
  uint32_t kept = op == LSE ? 0 : dims;
  nyx_status status = nyx__float_rows(ctx, c->in[0], dims, compute, &in);
  if (status == NYX_OK && c->n_in > 1)
    status = nyx__float_rows(ctx, c->in[1], dims, compute, &more);
  if (status == NYX_OK) status = nyx__reduce_begin(ctx, c->out[0], kept, compute, &rows);
  int64_t n = nyx__reduce_count(c->in[0]->ndim, c->in[0]->shape, dims);
  if (status == NYX_OK) status = run_rows(ctx, op, n, in, more, rows);
  if (status == NYX_OK) status = nyx__reduce_finish(ctx, rows, kept, c->out[0]);
  nyx_tensor_release(in);
  nyx_tensor_release(more);
  nyx_tensor_release(rows);
  return status;
}

/* softmax and log_softmax: dim. Their gradients: g and the result, dim. */

static const nyx_attr softmax_attrs[] = {
    {"dim", NYX_ATTR_DIM, false, NYX_I(-1),
     "the dimension whose elements belong together"}};

static nyx_status softmax_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &dim));
  if (c->n_in > 1) {
    bool same = c->in[1]->ndim == x->ndim;
    for (int d = 0; same && d < x->ndim; d++) same = c->in[1]->shape[d] == x->shape[d];
    if (!same) return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(x), NYX__SHAPE(c->in[1]));
  }
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

/* Columns that are read as they lie, where what belongs together is not a row. */
typedef struct column_job {
  const nyx_softmax_kernel *kernel;
  row_op op;
  int64_t item, rows, inner, width, parts; /* parts of so many of `inner` columns */
  const char *in, *more;                   /* x; or g and r */
  char *to;
} column_job;

static void do_columns(void *arg, int64_t begin, int64_t end) {
  const column_job *j = arg;
  const nyx_softmax_kernel *k = j->kernel;
  const int64_t step = j->inner, rows = j->rows;
  for (int64_t i = begin; i < end; i++) {
    const int64_t first = i % j->parts * j->width, left = j->inner - first;
    const int64_t at = (i / j->parts * rows * step + first) * j->item;
    const int64_t width = left < j->width ? left : j->width;
    const char *x = j->in + at;
    char *y = j->to + at;
    switch (j->op) {
      case SOFTMAX: k->softmax_columns(x, step, rows, width, y); break;
      case LOG_SOFTMAX: k->log_softmax_columns(x, step, rows, width, y); break;
      case SOFTMAX_BACKWARD:
        k->softmax_backward_columns(x, j->more + at, step, rows, width, y);
        break;
      case LOG_SOFTMAX_BACKWARD:
        k->log_softmax_backward_columns(x, j->more + at, step, rows, width, y);
        break;
      case LSE: break;
    }
  }
}

/* Whether they are: tensors without gaps, columns that fill vectors. */
static bool takes_columns(const nyx_call *c, int64_t inner) {
  for (int i = 0; i < c->n_in; i++)
    if (!nyx__is_contiguous(c->in[i])) return false;
  return inner >= COLUMNS_LEAST && nyx__compute_dtype(c->dtype) == c->dtype &&
         nyx__is_contiguous(c->out[0]) && c->out[0]->numel > 0;
}

static nyx_status run_along(nyx_call *c, row_op op) {
  const nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &dim));
  column_job j = {.kernel = nyx__softmax_kernel(c->dtype), .op = op, .inner = 1};
  for (int d = dim + 1; d < x->ndim; d++) j.inner *= x->shape[d];
  if (!takes_columns(c, j.inner)) return run(c, op, x->ndim ? 1U << dim : 0);
  j.item = (int64_t)nyx_dtype_size(c->dtype);
  j.rows = x->shape[dim];
  const int64_t outer = x->numel / (j.rows * j.inner);
  /* Whole rows are read best, but threads want parts; sums are the same in any. */
  j.width = outer < 4 * nyx_parallel_threads() && nyx_parallel_threads() > 1
                ? NYX_SOFTMAX_COLUMNS / 8
                : NYX_SOFTMAX_COLUMNS;
  j.parts = (j.inner + j.width - 1) / j.width;
  j.in = nyx__data(c->in[0]);
  j.more = c->n_in > 1 ? nyx__data(c->in[1]) : NULL;
  j.to = nyx__data(c->out[0]);
  const int64_t work = j.rows * j.inner / j.parts;
  return nyx__parallel_for(c->ctx, outer * j.parts, GRAIN / (work + 1) + 1, do_columns,
                           &j);
}

static nyx_status softmax_cpu(nyx_call *c) {
  return run_along(c, SOFTMAX);
}
static nyx_status log_softmax_cpu(nyx_call *c) {
  return run_along(c, LOG_SOFTMAX);
}
static nyx_status softmax_backward_cpu(nyx_call *c) {
  return run_along(c, SOFTMAX_BACKWARD);
}
static nyx_status log_softmax_backward_cpu(nyx_call *c) {
  return run_along(c, LOG_SOFTMAX_BACKWARD);
}

static nyx_status softmax_gradient(nyx_backward *b) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  return nyx__apply2(b->ctx, NYX__OP_softmax_backward, b->grad_out[0], b->out[0], b->attr,
                     &b->grad_in[0]);
}

static nyx_status log_softmax_gradient(nyx_backward *b) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  return nyx__apply2(b->ctx, NYX__OP_log_softmax_backward, b->grad_out[0], b->out[0],
                     b->attr, &b->grad_in[0]);
}

/* The sum of t (taken over) along the call's dimension, with size 1 there. */
static nyx_status sum_along(nyx_backward *b, nyx_tensor *t, nyx_tensor **out) {
  int64_t dim[1] = {b->attr[0].i};
  const nyx_value over[2] = {NYX_LIST(dim, 1), NYX_I(1)};
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_sum, t, over, out);
  nyx_tensor_release(t);
  return status;
}

/* With y = r (g - sum(g r)) and the incoming gradient u:
 *   to g: r (u - sum(u r)), the same op;  to r: u (g - sum(g r)) - g sum(u r). */
static nyx_status softmax_backward_gradient(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *u = b->grad_out[0], *g = b->in[0], *r = b->in[1];
  if (!u) return NYX_OK;
  if (b->need[0])
    NYX_TRY(nyx__apply2(ctx, NYX__OP_softmax_backward, u, r, b->attr, &b->grad_in[0]));
  if (!b->need[1]) return NYX_OK;
  nyx_tensor *t = NULL, *gr = NULL, *ur = NULL;
  nyx_status status = nyx__apply2(ctx, NYX__OP_mul, g, r, NULL, &t);
  if (status == NYX_OK) status = sum_along(b, t, &gr);
  if (status == NYX_OK) status = nyx__apply2(ctx, NYX__OP_mul, u, r, NULL, &t);
  if (status == NYX_OK) status = sum_along(b, t, &ur);
  if (status == NYX_OK) {
    nyx_tensor *const value[5] = {u, g, gr, ur, NULL};
    const double attr[2] = {0, 0};
    status = nyx__evaluate(ctx, "g * (x - y) - x * z", value, attr, &b->grad_in[1]);
  }
  nyx_tensor_release(gr);
  nyx_tensor_release(ur);
  return status;
}

/* With y = g - exp(r) sum(g) and the incoming gradient u:
 *   to g: u - sum(u exp(r));  to r: -u exp(r) sum(g). */
static nyx_status log_softmax_backward_gradient(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *u = b->grad_out[0];
  if (!u) return NYX_OK;
  nyx_tensor *e = NULL, *ue = NULL, *sum = NULL;
  nyx_status status = nyx__apply1(ctx, NYX__OP_exp, b->in[1], NULL, &e);
  if (status == NYX_OK) status = nyx__apply2(ctx, NYX__OP_mul, u, e, NULL, &ue);
  if (status == NYX_OK && b->need[0]) {
    status = sum_along(b, nyx_tensor_retain(ue), &sum);
    if (status == NYX_OK)
      status = nyx__apply2(ctx, NYX__OP_sub, u, sum, NULL, &b->grad_in[0]);
    nyx_tensor_release(sum);
    sum = NULL;
  }
  if (status == NYX_OK && b->need[1]) {
    status = sum_along(b, nyx_tensor_retain(b->in[0]), &sum);
    nyx_tensor *const value[5] = {ue, sum, NULL, NULL, NULL};
    const double attr[2] = {0, 0};
    if (status == NYX_OK)
      status = nyx__evaluate(ctx, "-(g * x)", value, attr, &b->grad_in[1]);
    nyx_tensor_release(sum);
  }
  nyx_tensor_release(e);
  nyx_tensor_release(ue);
  return status;
}

#define SOFTMAX_OP(op_name, its_doc)                                                     \
  const nyx_op nyx__op_##op_name = {.name = #op_name,                                    \
                                    .group = "activation",                               \
                                    .doc = its_doc,                                      \
                                    .kind = NYX_OP_STRUCTURAL,                           \
                                    .promotion = NYX_PROMOTE_FLOAT,                      \
                                    .autocast = NYX_AUTOCAST_FLOAT32,                    \
                                    .dtypes = NYX_DTYPES_FLOAT,                          \
                                    .inputs = "x",                                       \
                                    .min_in = 1,                                         \
                                    .max_in = 1,                                         \
                                    .attrs = softmax_attrs,                              \
                                    .n_attrs = 1,                                        \
                                    .n_out = 1,                                          \
                                    .overwrites = true,                                  \
                                    .infer = softmax_infer,                              \
                                    .cpu = op_name##_cpu,                                \
                                    .gradient = op_name##_gradient,                      \
                                    .save_out = NYX_SAVE(0),                             \
                                    .batch = nyx__batch_dims,                            \
                                    .cases = "x(3,4)\nx(3,4); dim=1\nx(2,3,4); dim=2",   \
                                    .domain = {-3, 3}}

#define BACKWARD_OP(op_name, its_doc)                                                    \
  const nyx_op nyx__op_##op_name = {.name = #op_name,                                    \
                                    .group = "gradient",                                 \
                                    .doc = its_doc,                                      \
                                    .kind = NYX_OP_STRUCTURAL,                           \
                                    .promotion = NYX_PROMOTE_COMMON,                     \
                                    .dtypes = NYX_DTYPES_FLOAT,                          \
                                    .inputs = "g r",                                     \
                                    .min_in = 2,                                         \
                                    .max_in = 2,                                         \
                                    .attrs = softmax_attrs,                              \
                                    .n_attrs = 1,                                        \
                                    .n_out = 1,                                          \
                                    .overwrites = true,                                  \
                                    .infer = softmax_infer,                              \
                                    .cpu = op_name##_cpu,                                \
                                    .gradient = op_name##_gradient,                      \
                                    .save_in = NYX_SAVE_ALL,                             \
                                    .batch = nyx__batch_dims,                            \
                                    .cases = "g(3,4) r(3,4)\ng(3,4) r(3,4); dim=1",      \
                                    .domain = {-2, 2}}

SOFTMAX_OP(softmax, "exp(x) / sum(exp(x)) along dim (the last one when left out)");
SOFTMAX_OP(log_softmax,
           "x - logsumexp(x) along dim (the last one when left out): the logarithm of "
           "softmax, exact where that is 0");
BACKWARD_OP(softmax_backward, "r * (g - sum(g * r)): the gradient of r = softmax(x)");
BACKWARD_OP(log_softmax_backward,
            "g - exp(r) * sum(g): the gradient of r = log_softmax(x)");

/* logsumexp: dim, keepdim */

static const nyx_attr logsumexp_attrs[] = {
    {"dim", NYX_ATTR_DIMS, false, NYX_NONE, NYX__DIMS_DOC},
    {"keepdim", NYX_ATTR_BOOL, false, NYX_I(0), NYX__KEEPDIM_DOC}};

static nyx_status logsumexp_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  uint32_t dims;
  NYX_TRY(nyx__reduce_dims(c->ctx, NYX_ATTR_DIMS, &c->attr[0], x->ndim, &dims));
  nyx__reduce_spec(&c->spec[0], c->dtype, x->ndim, x->shape, dims, c->attr[1].i != 0);
  return NYX_OK;
}

static nyx_status logsumexp_run(nyx_call *c) {
  const nyx__reduce_about_rows rows = {NYX__REDUCE_logsumexp, NYX__REDUCE_amax};
  uint32_t dims;
  NYX_TRY(nyx__reduce_dims(c->ctx, NYX_ATTR_DIMS, &c->attr[0], c->in[0]->ndim, &dims));
  if (c->device != nyx__cpu())
    return nyx__reduce_about(c, rows, dims, nyx__compute_dtype(c->dtype), 0);
  return run(c, LSE, dims);
}

/* g * exp(x - r) */
static nyx_status logsumexp_gradient(nyx_backward *b) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  uint32_t dims;
  const nyx_spec *in = &b->in_spec[0];
  NYX_TRY(nyx__reduce_dims(b->ctx, NYX_ATTR_DIMS, &b->attr[0], in->ndim, &dims));
  nyx_tensor *g = NULL, *r = NULL;
  nyx_status status = nyx__keep_dims(b->ctx, b->grad_out[0], in, dims, &g);
  if (status == NYX_OK) status = nyx__keep_dims(b->ctx, b->out[0], in, dims, &r);
  if (status == NYX_OK) {
    nyx_tensor *const value[5] = {g, b->in[0], NULL, NULL, r};
    const double attr[2] = {0, 0};
    status = nyx__evaluate(b->ctx, "g * nyx_exp(x - r)", value, attr, &b->grad_in[0]);
  }
  nyx_tensor_release(g);
  nyx_tensor_release(r);
  return status;
}

const nyx_op nyx__op_logsumexp = {
    .name = "logsumexp",
    .group = "reduction",
    .doc = "log(sum(exp(x))) without overflow; of nothing -inf",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = logsumexp_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .infer = logsumexp_infer,
    .cpu = logsumexp_run,
    .gradient = logsumexp_gradient,
    .save_in = NYX_SAVE(0),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_reduce,
    .cases = "x(3,4)\nx(3,4); dim=1\nx(2,3,4); dim={1,3} keepdim=true",
    .domain = {-3, 3}};
