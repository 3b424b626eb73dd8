/* Running sums and products along a dimension, forwards or backwards, the recurrence that
 * is the gradient of a running product, sums of exponentials, and where the greatest or
 * least element so far is. Floats accumulate in double, integers and bools in int64. Read
 * next: kernels/cpu/scan.h, scan_rows.c (other devices), reduce_gradient.c, which uses
 * cumprod for prod. */
#include "scan.h"

#include <string.h>

#include "../device/device.h"
#include "../grad/graph.h"
#include "../tensor/tensor.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/scan.h"

#define RANGE_WORK 8192      /* elements worth waking a thread for */
#define RANGE_MOST (1 << 22) /* elements of blocks that are scanned side by side */
#define PART_WORK 16384      /* elements of a part, when sums are cut along n */
#define ENOUGH 32            /* tasks: then nothing is cut along n */
#define NARROW 256           /* columns of a block where threads want several */
#define ACCUMULATOR_BYTES 8  /* double, uint64_t */

enum { ATTR_DIM, ATTR_REVERSE, ATTR_EXCLUSIVE, ATTRS };

/* Elements (outer, n, inner) are visited along n. A task is one part along n of one block
 * of columns: the first pass finds what all parts but the last add up to, the second
 * one scans. Where there is a block for every thread its parts are scanned one after the
 * other instead, which reads them once. Parts depend on sizes only and are added up
 * alike, so results do not depend on threads. */
typedef struct scan_job {
  nyx_scan_fn fn;
  bool reverse, exclusive;
  bool integer; /* accumulators are uint64_t */
  int64_t outer, n, inner;
  int64_t block, blocks;  /* columns of a block, blocks in inner */
  int64_t parts, length;  /* along n, in the order of the scan */
  size_t item, item_y;    /* bytes of an element, and of a result */
  int64_t base;           /* of cumargmax: the position of the first element */
  const char *x, *factor; /* factor: of linear_scan */
  char *y;
  char *carry; /* (outer, parts, inner) accumulators; NULL: one part */
} scan_job;

static nyx_scan_fn function_of(const nyx__scan_way *way, nyx_dtype compute) {
  const nyx_scan_kernels *k = nyx__cpu_kernels()->scan;
  int type = compute == NYX_INT64 ? 2 : compute == NYX_FLOAT64;
  switch (way->op) {
    case NYX__OP_linear_scan: return k->linear[type];
    case NYX__OP_logcumsumexp: return k->log_sum[type];
    case NYX__OP_cumargmax: return way->least ? k->least[type] : k->greatest[type];
    case NYX__OP_cumprod: return k->product[type];
    default: return k->sum[type];
  }
}

/* What the kernel needs for a task: block b of outer element o, part p. */
static nyx_scan task_of(const scan_job *j, int64_t o, int64_t b, int64_t p) {
  int64_t column = b * j->block, left = j->inner - column, first = p * j->length;
  nyx_scan s = {.reverse = j->reverse,
                .exclusive = j->exclusive,
                .n = j->n - first < j->length ? j->n - first : j->length,
                .step = j->inner,
                .base = j->base,
                .width = left < j->block ? left : j->block};
  int64_t row = j->reverse ? j->n - first - s.n : first;
  size_t at = (size_t)((o * j->n + row) * j->inner + column);
  s.x = j->x + at * j->item;
  if (j->factor) s.factor = j->factor + at * j->item;
  s.y = j->y + at * j->item_y;
  return s;
}

static char *carry_of(const scan_job *j, int64_t o, int64_t b, int64_t p) {
  int64_t at = (o * j->parts + p) * j->inner + b * j->block;
  return j->carry + at * ACCUMULATOR_BYTES;
}

static void find_totals(void *arg, int64_t begin, int64_t end) {
  const scan_job *j = arg;
  int64_t parts = j->parts - 1;
  for (int64_t i = begin; i < end; i++) {
    int64_t p = i % parts, b = i / parts % j->blocks, o = i / parts / j->blocks;
    nyx_scan s = task_of(j, o, b, p);
    s.y = NULL;
    s.total = carry_of(j, o, b, p + 1);
    j->fn(&s);
  }
}

static void do_parts(void *arg, int64_t begin, int64_t end) {
  const scan_job *j = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t p = i % j->parts, b = i / j->parts % j->blocks, o = i / j->parts / j->blocks;
    nyx_scan s = task_of(j, o, b, p);
    if (j->carry) s.before = carry_of(j, o, b, p);
    j->fn(&s);
  }
}

/* What `width` columns have before part p is added to their totals of it. */
static void add_before(const scan_job *j, int64_t o, int64_t b, int64_t p,
                       int64_t width) {
  const void *before = carry_of(j, o, b, p);
  void *total = carry_of(j, o, b, p + 1);
  for (int64_t i = 0; j->integer && i < width; i++)
    ((uint64_t *)total)[i] += ((const uint64_t *)before)[i];
  for (int64_t i = 0; !j->integer && i < width; i++)
    ((double *)total)[i] += ((const double *)before)[i];
}

/* The totals of the parts become those of all parts before. One after the other, as the
 * last sum of a part is made: see kernels/cpu/scan.h. */
static void add_totals(const scan_job *j) {
  for (int64_t o = 0; o < j->outer; o++)
    for (int64_t p = 0; p + 1 < j->parts; p++) add_before(j, o, 0, p, j->inner);
}

/* All parts of blocks of columns, in order: blocks side by side in turn, as their rows
 * lie together. */
static void do_blocks(void *arg, int64_t begin, int64_t end) {
  const scan_job *j = arg;
  for (int64_t i = begin, next; i < end; i = next) {
    const int64_t o = i / j->blocks, first = i % j->blocks;
    next = (o + 1) * j->blocks < end ? (o + 1) * j->blocks : end;
    for (int64_t p = 0; p < j->parts; p++)
      for (int64_t b = first; b < first + next - i; b++) {
        nyx_scan s = task_of(j, o, b, p);
        s.before = carry_of(j, o, b, p);
        if (p + 1 < j->parts) s.total = carry_of(j, o, b, p + 1);
        j->fn(&s);
        if (s.total) add_before(j, o, b, p, s.width);
      }
  }
}

/* Columns of a block. Sums and products take as many as running values are kept for, as
 * rows are then read in one go, unless threads want more blocks or one would keep an
 * interrupt waiting. */
static int64_t block_of(const scan_job *j, nyx__op_id op) {
  const int64_t threads = nyx_parallel_threads();
  int64_t block = NYX_SCAN_COLUMNS, share = j->outer * j->inner / (4 * threads);
  if (j->n * block > RANGE_MOST) block = RANGE_MOST / j->n;
  if (threads > 1 && block > share) block = share;
  const bool wide = op == NYX__OP_cumsum || op == NYX__OP_cumprod;
  return wide && block > NARROW ? block / NARROW * NARROW : NARROW;
}

/* Cuts sums along n where there are too few columns to share. */
static void cut(scan_job *j, nyx__op_id op) {
  j->parts = 1;
  j->length = j->n;
  int64_t narrow = (j->inner + NARROW - 1) / NARROW; /* whatever blocks threads take */
  if (op != NYX__OP_cumsum || j->outer * narrow >= ENOUGH) return;
  int64_t width = j->inner < NARROW ? j->inner : NARROW;
  int64_t length = PART_WORK / width;
  if (j->n < 2 * length) return;
  j->length = length;
  j->parts = (j->n + length - 1) / length;
}

/* Blocks of columns that one range takes: a thread's share, but not more than an
 * interrupt may wait for. */
static int64_t side_by_side(const scan_job *j, int64_t columns, int64_t width) {
  const int64_t threads = nyx_parallel_threads();
  int64_t most = RANGE_MOST / (j->n * width), share = (columns + threads - 1) / threads;
  if (most < 1) most = 1;
  return share < most ? share : most;
}

static nyx_status run_scan(nyx_context *ctx, scan_job *j, const nyx__scan_way *way,
                           nyx_dtype compute) {
  j->integer = compute == NYX_INT64;
  j->block = block_of(j, way->op);
  j->blocks = (j->inner + j->block - 1) / j->block;
  j->fn = function_of(way, compute);
  cut(j, way->op);
  int64_t columns = j->outer * j->blocks;
  int64_t width = j->inner < j->block ? j->inner : j->block;
  int64_t grain = RANGE_WORK / (j->length * width) + 1;
  if (j->parts == 1) return nyx__parallel_for(ctx, columns, grain, do_parts, j);
  size_t bytes = (size_t)(j->outer * j->parts * j->inner) * ACCUMULATOR_BYTES;
  if (!(j->carry = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  for (int64_t o = 0; o < j->outer; o++)
    memset(carry_of(j, o, 0, 0), 0, (size_t)j->inner * ACCUMULATOR_BYTES);
  nyx_status status;
  if (columns >= nyx_parallel_threads()) {
    grain = side_by_side(j, columns, width);
    status = nyx__parallel_for(ctx, columns, grain, do_blocks, j);
  } else {
    status = nyx__parallel_for(ctx, columns * (j->parts - 1), grain, find_totals, j);
    if (status == NYX_OK) {
      add_totals(j);
      status = nyx__parallel_for(ctx, columns * j->parts, grain, do_parts, j);
    }
  }
  nyx_memory_free(j->carry);
  return status;
}

static nyx_status scan(nyx_call *c, nyx__scan_way way) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *in = NULL, *factor = NULL, *out = NULL, *target = c->out[0];
  NYX_TRY(nyx__dim(ctx, c->attr[ATTR_DIM].i, target->ndim, &way.dim));
  if (target->numel == 0) return NYX_OK;
  if (c->device != nyx__cpu()) return nyx__scan_rows(c, &way);
  nyx_dtype compute =
      nyx_dtype_is_float(c->dtype) ? nyx__compute_dtype(c->dtype) : NYX_INT64;
  nyx_status status = nyx__contiguous_as(ctx, c->in[0], compute, &in);
  if (status == NYX_OK && c->n_in > 1)
    status = nyx__contiguous_as(ctx, c->in[1], compute, &factor);
  nyx_dtype made = way.op == NYX__OP_cumargmax ? NYX_INT64 : compute;
  if (status == NYX_OK && target->dtype == made)
    out = nyx_tensor_retain(target);
  else if (status == NYX_OK)
    status = nyx_tensor_empty(ctx, made, target->ndim, target->shape, &out);
  if (status == NYX_OK) {
    scan_job j = {.reverse = way.reverse,
                  .exclusive = way.exclusive,
                  .n = target->ndim ? target->shape[way.dim] : 1,
                  .inner = 1,
                  .item = nyx_dtype_size(compute),
                  .item_y = nyx_dtype_size(made),
                  .base = ctx->index_base,
                  .x = nyx__data(in),
                  .factor = factor ? nyx__data(factor) : NULL,
                  .y = nyx__data(out)};
    for (int d = way.dim + 1; d < target->ndim; d++) j.inner *= target->shape[d];
    j.outer = target->numel / (j.n * j.inner);
    status = run_scan(ctx, &j, &way, compute);
    if (status == NYX_OK && out != target) status = nyx__copy_into(ctx, out, target);
  }
  nyx_tensor_release(in);
  nyx_tensor_release(factor);
  nyx_tensor_release(out);
  return status;
}

static nyx_status scan_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[ATTR_DIM].i, x->ndim, &dim));
  if (c->n_in > 1) {
    bool same = c->in[1]->ndim == x->ndim;
    for (int d = 0; same && d < x->ndim; d++) same = c->in[1]->shape[d] == x->shape[d];
    if (!same) return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(x), NYX__SHAPE(c->in[1]));
  }
  nyx__spec(&c->spec[0], nyx_dtype_is_float(c->dtype) ? c->dtype : NYX_INT64, x->ndim,
            x->shape);
  return NYX_OK;
}

/* A scan that has all attributes. */
static nyx_status scan_as_asked(nyx_call *c, nyx__op_id op) {
  return scan(c, (nyx__scan_way){.op = op,
                                 .reverse = c->attr[ATTR_REVERSE].i != 0,
                                 .exclusive = c->attr[ATTR_EXCLUSIVE].i != 0});
}
static nyx_status cumsum_run(nyx_call *c) {
  return scan_as_asked(c, NYX__OP_cumsum);
}
static nyx_status cumprod_run(nyx_call *c) {
  return scan_as_asked(c, NYX__OP_cumprod);
}
static nyx_status linear_scan_run(nyx_call *c) {
  return scan_as_asked(c, NYX__OP_linear_scan);
}

/* The attributes of a scan the other way. */
#define OTHER_WAY(b, exclusive)                                                          \
  { (b)->attr[ATTR_DIM], NYX_I(!(b)->attr[ATTR_REVERSE].i), NYX_I(exclusive) }

static nyx_status cumsum_gradient(nyx_backward *b) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  const nyx_value back[ATTRS] = OTHER_WAY(b, b->attr[ATTR_EXCLUSIVE].i);
  return nyx__apply1(b->ctx, NYX__OP_cumsum, b->grad_out[0], back, &b->grad_in[0]);
}

/* Element i of y is that before it times x[i]; so the gradient that arrives at element i
 * of y, its own and what comes back through the next, times all elements before: no
 * division, right where x is 0 too. */
static nyx_status cumprod_gradient(nyx_backward *b) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  const nyx_value back[ATTRS] = OTHER_WAY(b, b->attr[ATTR_EXCLUSIVE].i);
  const nyx_value others[ATTRS] = {b->attr[ATTR_DIM], b->attr[ATTR_REVERSE], NYX_I(1)};
  nyx_tensor *arriving, *before;
  NYX_TRY(nyx__apply2(b->ctx, NYX__OP_linear_scan, b->grad_out[0], b->in[0], back,
                      &arriving));
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_cumprod, b->in[0], others, &before);
  if (status == NYX_OK) {
    status = nyx__apply2(b->ctx, NYX__OP_mul, arriving, before, NULL, &b->grad_in[0]);
    nyx_tensor_release(before);
  }
  nyx_tensor_release(arriving);
  return status;
}

/* With e[k] = u[k+1] + x[k+1] e[k+1], the exclusive scan of the incoming gradient u the
 * other way: to x it is e y, to g it is e, or u + x e where the scan was inclusive. */
static nyx_status linear_scan_gradient(nyx_backward *b) {
  nyx_tensor *u = b->grad_out[0], *e;
  if (!u) return NYX_OK;
  const nyx_value back[ATTRS] = OTHER_WAY(b, 1);
  NYX_TRY(nyx__apply2(b->ctx, NYX__OP_linear_scan, u, b->in[1], back, &e));
  nyx_status status = NYX_OK;
  if (b->need[1])
    status = nyx__apply2(b->ctx, NYX__OP_mul, e, b->out[0], NULL, &b->grad_in[1]);
  if (status == NYX_OK && b->need[0]) {
    if (b->attr[ATTR_EXCLUSIVE].i)
      b->grad_in[0] = nyx_tensor_retain(e);
    else
      status =
          nyx__evaluate(b->ctx, "g + x * y", (nyx_tensor *[]){u, b->in[1], e, NULL, NULL},
                        (double[]){0, 0}, &b->grad_in[0]);
  }
  nyx_tensor_release(e);
  return status;
}

static const nyx_attr scan_attrs[ATTRS] = {
    {"dim", NYX_ATTR_DIM, true, NYX_NONE, "the dimension to go along"},
    {"reverse", NYX_ATTR_BOOL, false, NYX_I(0), "go from the last element to the first"},
    {"exclusive", NYX_ATTR_BOOL, false, NYX_I(0),
     "leave out the element itself, so that the first result is that of nothing"}};

#define SCAN_CASES(inputs, larger)                                                       \
  inputs "; dim=1\n" inputs "; dim=2 reverse=true\n" larger                              \
         "; dim=2 exclusive=true\n" larger "; dim=-1 reverse=true exclusive=true"

const nyx_op nyx__op_cumsum = {
    .name = "cumsum",
    .group = "reduction",
    .doc = "running sums along dim; integers and bools give int64",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = scan_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .overwrites = true,
    .infer = scan_infer,
    .cpu = cumsum_run,
    .gradient = cumsum_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = SCAN_CASES("x(3,4)", "x(2,3,2)"),
    .domain = {-2, 2},
};

const nyx_op nyx__op_cumprod = {
    .name = "cumprod",
    .group = "reduction",
    .doc = "running products along dim; integers and bools give int64",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = scan_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .overwrites = true,
    .infer = scan_infer,
    .cpu = cumprod_run,
    .gradient = cumprod_gradient,
    .save_in = NYX_SAVE(0),
    .batch = nyx__batch_dims,
    .cases = SCAN_CASES("x(3,4)", "x(2,3,2)"),
    .domain = {-2, 2},
};

const nyx_op nyx__op_linear_scan = {
    .name = "linear_scan",
    .group = "gradient",
    .doc =
        "y[k] = g[k] + x[k-1] * y[k-1] along dim, from y[0] = g[0]; exclusive: y[k] = "
        "g[k-1] + x[k-1] * y[k-1], from 0. The part of cumprod's gradient that comes "
        "back "
        "through later elements",
    .kind = NYX_OP_PORTABLE,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "g x",
    .min_in = 2,
    .max_in = 2,
    .attrs = scan_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .overwrites = true,
    .infer = scan_infer,
    .cpu = linear_scan_run,
    .gradient = linear_scan_gradient,
    .save_in = NYX_SAVE(1),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_dims,
    .cases = SCAN_CASES("g(3,4) x(3,4)", "g(2,3,2) x(2,3,2)"),
    .domain = {-2, 2},
};

static nyx_status logcumsumexp_run(nyx_call *c) {
  return scan(c, (nyx__scan_way){.op = NYX__OP_logcumsumexp});
}

/* With p = e^(x - y), the part that an element has of the sum up to it, in 0..1: what
 * arrives at element k of y, its own gradient and 1 - p[k+1] of that at the next, times
 * p. No exponential grows, whatever the range of x. A y that is infinite passes nothing.
 */
static nyx_status logcumsumexp_gradient(nyx_backward *b) {
  if (!b->need[0] || !b->grad_out[0]) return NYX_OK;
  const nyx_value back[ATTRS] = {b->attr[ATTR_DIM], NYX_I(1), NYX_I(0)};
  const double none[2] = {0, 0};
  nyx_tensor *part, *rest = NULL, *arriving = NULL;
  NYX_TRY(nyx__evaluate(b->ctx, "nyx_exp(nyx_select(nyx_isinf(y), K(-1000), x - y))",
                        (nyx_tensor *[]){NULL, b->in[0], b->out[0], NULL, NULL}, none,
                        &part));
  nyx_status status = nyx__evaluate(
      b->ctx, "K(1) - x", (nyx_tensor *[]){NULL, part, NULL, NULL, NULL}, none, &rest);
  if (status == NYX_OK)
    status =
        nyx__apply2(b->ctx, NYX__OP_linear_scan, b->grad_out[0], rest, back, &arriving);
  if (status == NYX_OK)
    status = nyx__apply2(b->ctx, NYX__OP_mul, part, arriving, NULL, &b->grad_in[0]);
  nyx_tensor_release(part);
  nyx_tensor_release(rest);
  nyx_tensor_release(arriving);
  return status;
}

const nyx_op nyx__op_logcumsumexp = {
    .name = "logcumsumexp",
    .group = "reduction",
    .doc = "log(e^x[1] + ... + e^x[k]) for each k along dim, without overflow",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = scan_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = scan_infer,
    .cpu = logcumsumexp_run,
    .gradient = logcumsumexp_gradient,
    .save_in = NYX_SAVE(0),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_dims,
    .cases = "x(3,4); dim=1\nx(2,3,2); dim=2\nx(70); dim=-1",
    .domain = {-4, 4},
};

static nyx_status cumargmax_infer(nyx_call *c) {
  NYX_TRY(scan_infer(c));
  c->spec[0].dtype = NYX_INT64;
  return NYX_OK;
}

static nyx_status cumargmax_run(nyx_call *c) {
  return scan(c, (nyx__scan_way){.op = NYX__OP_cumargmax, .least = !c->attr[1].i});
}

static const nyx_attr extreme_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, NYX_NONE, "the dimension to go along"},
    {"largest", NYX_ATTR_BOOL, false, NYX_I(1), "the greatest element, else the least"}};

const nyx_op nyx__op_cumargmax = {
    .name = "cumargmax",
    .group = "reduction",
    .doc =
        "where the greatest element so far is, for each element along dim; of equal ones "
        "the last; NaN counts as beyond all numbers. What cummax and cummin are made of",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = extreme_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = cumargmax_infer,
    .cpu = cumargmax_run,
    .batch = nyx__batch_dims,
    .cases = "x(3,4); dim=1\nx(2,3,2); dim=2 largest=false\nx(70); dim=-1",
    .domain = {-4, 4},
};
