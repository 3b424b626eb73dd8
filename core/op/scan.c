/* Running sums and products along a dimension, forwards or backwards, and the recurrence
 * that is the gradient of a running product. Floats accumulate in double, integers and
 * bools in int64. Read next: reduce_gradient.c, which uses cumprod for prod. */

#include "../grad/graph.h"
#include "../tensor/tensor.h"
#include "ops.h"

#define COLUMNS 256     /* running values one task keeps side by side */
#define RANGE_WORK 8192 /* elements worth waking a thread for */

enum { ATTR_DIM, ATTR_REVERSE, ATTR_EXCLUSIVE, ATTRS };

/* Elements (outer, n, inner) are visited along n. */
typedef struct scan_job {
  bool reverse, exclusive;
  int64_t n, inner, blocks; /* blocks of COLUMNS columns in inner */
  const void *x, *factor;   /* factor: of linear_scan */
  void *y;
} scan_job;

/* name(j, first, width): a running value per column goes through n elements, `before` it
 * at an element and `after` behind. A single column keeps it in a register. */
#define SCAN_FUNCTION(name, S, A, start, body)                                           \
  static inline __attribute__((always_inline)) void name##_of(                           \
      const scan_job *j, int64_t first, int64_t width) {                                 \
    const S *x = j->x, *factor = j->factor;                                              \
    S *y = j->y;                                                                         \
    A run[COLUMNS];                                                                      \
    (void)factor;                                                                        \
    for (int64_t c = 0; c < width; c++) run[c] = (start);                                \
    for (int64_t k = 0; k < j->n; k++) {                                                 \
      int64_t i = first + (j->reverse ? j->n - 1 - k : k) * j->inner;                    \
      for (int64_t c = 0; c < width; c++) {                                              \
        A before = run[c], value = (A)x[i + c], after;                                   \
        body;                                                                            \
        run[c] = after;                                                                  \
      }                                                                                  \
    }                                                                                    \
  }                                                                                      \
  static void name(const scan_job *j, int64_t first, int64_t width) {                    \
    if (width == 1)                                                                      \
      name##_of(j, first, 1);                                                            \
    else                                                                                 \
      name##_of(j, first, width);                                                        \
  }

#define ADD(S) after = before + value, y[i + c] = (S)(j->exclusive ? before : after)
#define MULTIPLY(S) after = before * value, y[i + c] = (S)(j->exclusive ? before : after)
/* y = x + before, carried on times factor; exclusive: y = before, and x + factor y goes
 * on. */
#define RECUR(S)                                                                         \
  double out = j->exclusive ? before : before + value, by = (double)factor[i + c];       \
  y[i + c] = (S)out;                                                                     \
  after = j->exclusive ? value + by * out : by * out

SCAN_FUNCTION(sum_f32, float, double, 0, ADD(float))
SCAN_FUNCTION(sum_f64, double, double, 0, ADD(double))
SCAN_FUNCTION(sum_i64, int64_t, uint64_t, 0, ADD(int64_t)) /* unsigned: wraps */
SCAN_FUNCTION(product_f32, float, double, 1, MULTIPLY(float))
SCAN_FUNCTION(product_f64, double, double, 1, MULTIPLY(double))
SCAN_FUNCTION(product_i64, int64_t, uint64_t, 1, MULTIPLY(int64_t))
SCAN_FUNCTION(linear_f32, float, double, 0, RECUR(float))
SCAN_FUNCTION(linear_f64, double, double, 0, RECUR(double))

typedef void (*scan_fn)(const scan_job *j, int64_t first, int64_t width);

static scan_fn function_of(nyx__op_id op, nyx_dtype compute) {
  bool wide = compute == NYX_FLOAT64;
  if (op == NYX__OP_linear_scan) return wide ? linear_f64 : linear_f32;
  if (op == NYX__OP_cumprod)
    return compute == NYX_INT64 ? product_i64 : wide ? product_f64 : product_f32;
  return compute == NYX_INT64 ? sum_i64 : wide ? sum_f64 : sum_f32;
}

typedef struct scan_run {
  scan_job job;
  scan_fn fn;
} scan_run;

static void do_blocks(void *arg, int64_t begin, int64_t end) {
  const scan_run *r = arg;
  const scan_job *j = &r->job;
  for (int64_t i = begin; i < end; i++) {
    int64_t column = i % j->blocks * COLUMNS, left = j->inner - column;
    r->fn(j, i / j->blocks * j->n * j->inner + column, left < COLUMNS ? left : COLUMNS);
  }
}

static nyx_status scan(nyx_call *c, nyx__op_id op) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *in = NULL, *factor = NULL, *out = NULL, *target = c->out[0];
  int dim;
  NYX_TRY(nyx__dim(ctx, c->attr[ATTR_DIM].i, target->ndim, &dim));
  if (target->numel == 0) return NYX_OK;
  nyx_dtype compute =
      nyx_dtype_is_float(c->dtype) ? nyx__compute_dtype(c->dtype) : NYX_INT64;
  nyx_status status = nyx__contiguous_as(ctx, c->in[0], compute, &in);
  if (status == NYX_OK && c->n_in > 1)
    status = nyx__contiguous_as(ctx, c->in[1], compute, &factor);
  if (status == NYX_OK && target->dtype == compute)
    out = nyx_tensor_retain(target);
  else if (status == NYX_OK)
    status = nyx_tensor_empty(ctx, compute, target->ndim, target->shape, &out);
  if (status == NYX_OK) {
    scan_run r = {.job = {.reverse = c->attr[ATTR_REVERSE].i != 0,
                          .exclusive = c->attr[ATTR_EXCLUSIVE].i != 0,
                          .n = target->ndim ? target->shape[dim] : 1,
                          .inner = 1,
                          .x = nyx__data(in),
                          .factor = factor ? nyx__data(factor) : NULL,
                          .y = nyx__data(out)},
                  .fn = function_of(op, compute)};
    scan_job *j = &r.job;
    for (int d = dim + 1; d < target->ndim; d++) j->inner *= target->shape[d];
    j->blocks = (j->inner + COLUMNS - 1) / COLUMNS;
    int64_t outer = target->numel / (j->n * j->inner);
    int64_t work = j->n * (j->inner < COLUMNS ? j->inner : COLUMNS);
    status =
        nyx__parallel_for(ctx, outer * j->blocks, RANGE_WORK / work + 1, do_blocks, &r);
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

static nyx_status cumsum_cpu(nyx_call *c) {
  return scan(c, NYX__OP_cumsum);
}
static nyx_status cumprod_cpu(nyx_call *c) {
  return scan(c, NYX__OP_cumprod);
}
static nyx_status linear_scan_cpu(nyx_call *c) {
  return scan(c, NYX__OP_linear_scan);
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
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = scan_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = scan_infer,
    .cpu = cumsum_cpu,
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
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = scan_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = scan_infer,
    .cpu = cumprod_cpu,
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
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "g x",
    .min_in = 2,
    .max_in = 2,
    .attrs = scan_attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = scan_infer,
    .cpu = linear_scan_cpu,
    .gradient = linear_scan_gradient,
    .save_in = NYX_SAVE(1),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_dims,
    .cases = SCAN_CASES("g(3,4) x(3,4)", "g(2,3,2) x(2,3,2)"),
    .domain = {-2, 2},
};
