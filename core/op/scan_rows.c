/* Scans made of elementwise rows, by doubling: after the step of s every element holds
 * what the 2 s elements up to it come to (Hillis and Steele, "Data Parallel Algorithms",
 * 1986). n log2(n) work in log2(n) steps, each of them over all elements at once: what
 * devices do that have rows, and nothing that waits for its neighbour. In float64 where
 * the device has it, as on the CPU. Read next: scan.c. */
#include "scan.h"

#include "../device/device.h"

typedef struct job {
  nyx_context *ctx;
  nyx_device *device;
  nyx__scan_way way;
  nyx_dtype compute;
  int64_t n;
} job;

/* What is carried from step to step: the results so far, and of linear_scan the products
 * of the factors they were multiplied by. */
typedef struct state {
  nyx_tensor *y, *factor;
} state;

static void drop(state *s) {
  nyx_tensor_release(s->y);
  nyx_tensor_release(s->factor);
  *s = (state){NULL, NULL};
}

/* Elements first .. first + count - 1 of t in the order of the scan. */
static nyx_status stretch(const job *j, const nyx_tensor *t, int64_t first, int64_t count,
                          nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec_of(t, &spec);
  if (t->ndim) {
    int d = j->way.dim;
    int64_t at = j->way.reverse ? j->n - first - count : first;
    spec.offset += at * spec.stride[d];
    spec.shape[d] = count;
  }
  return nyx__tensor_view(j->ctx, t->storage, &spec, out);
}

/* to[first ..] = row(x[first ..], y[first - lag ..], z[first - lag ..]); z may be NULL.
 */
static nyx_status apply(const job *j, nyx__op_id row, nyx_tensor *const in[3],
                        const int64_t lag[3], int64_t first, nyx_tensor *to) {
  nyx_elementwise e = {.row = nyx__row(row), .compute = j->compute, .attr = {1, 1}};
  nyx_status status = NYX_OK;
  for (int i = 0; i < 3 && status == NYX_OK; i++)
    if (in[i]) status = stretch(j, in[i], first - lag[i], j->n - first, &e.in[i]);
  if (status == NYX_OK) status = stretch(j, to, first, j->n - first, &e.out);
  if (status == NYX_OK) status = j->device->elementwise(j->ctx, j->device, &e);
  for (int i = 0; i < 3; i++) nyx_tensor_release(e.in[i]);
  nyx_tensor_release(e.out);
  return status;
}

/* to[at .. at + count - 1] = from[first ..] */
static nyx_status copy(const job *j, nyx_tensor *from, int64_t first, nyx_tensor *to,
                       int64_t at, int64_t count) {
  nyx_tensor *a = NULL, *b = NULL;
  nyx_status status = stretch(j, from, first, count, &a);
  if (status == NYX_OK) status = stretch(j, to, at, count, &b);
  if (status == NYX_OK) status = nyx__copy_into(j->ctx, a, b);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  return status;
}

/* t in the compute type; `shifted`: `value` and then all elements but the last. */
static nyx_status begin(const job *j, nyx_tensor *t, bool shifted, double value,
                        nyx_tensor **out) {
  NYX_TRY(nyx_tensor_empty_on(j->ctx, j->device, j->compute, t->ndim, t->shape, out));
  if (!shifted) return nyx__copy_into(j->ctx, t, *out);
  nyx_tensor *number = NULL, *first = NULL;
  nyx_status status = nyx_tensor_scalar(j->ctx, value, j->compute, true, &number);
  if (status == NYX_OK) status = stretch(j, *out, 0, 1, &first);
  if (status == NYX_OK) status = nyx__copy_into(j->ctx, number, first);
  if (status == NYX_OK && j->n > 1) status = copy(j, t, 0, *out, 1, j->n - 1);
  nyx_tensor_release(number);
  nyx_tensor_release(first);
  return status;
}

/* to[s ..] = from[s ..] with from[.. n - s - 1]; the first s elements are done. */
static nyx_status step(const job *j, const state *from, const state *to, int64_t s) {
  const int64_t lag[3] = {0, s, s}, linear_lag[3] = {0, 0, s};
  if (j->way.op == NYX__OP_linear_scan) {
    NYX_TRY(apply(j, NYX__OP_addcmul, (nyx_tensor *[]){from->y, from->factor, from->y},
                  linear_lag, s, to->y));
    NYX_TRY(apply(j, NYX__OP_mul, (nyx_tensor *[]){from->factor, from->factor, NULL}, lag,
                  s, to->factor));
    NYX_TRY(copy(j, from->factor, 0, to->factor, 0, s));
  } else {
    nyx__op_id row = j->way.op == NYX__OP_cumprod ? NYX__OP_mul : NYX__OP_add;
    NYX_TRY(apply(j, row, (nyx_tensor *[]){from->y, from->y, NULL}, lag, s, to->y));
  }
  return copy(j, from->y, 0, to->y, 0, s);
}

static nyx_status run(nyx_call *c, const job *j, state s[2]) {
  const nyx_tensor *x = c->in[0];
  bool linear = j->way.op == NYX__OP_linear_scan;
  double nothing = j->way.op == NYX__OP_cumprod ? 1 : 0;
  NYX_TRY(begin(j, c->in[0], j->way.exclusive, nothing, &s[0].y));
  if (linear) NYX_TRY(begin(j, c->in[1], true, 0, &s[0].factor));
  for (int i = 0; i < 1 + linear && j->n > 1; i++)
    NYX_TRY(nyx_tensor_empty_on(j->ctx, j->device, j->compute, x->ndim, x->shape,
                                i ? &s[1].factor : &s[1].y));
  int from = 0;
  for (int64_t length = 1; length < j->n; length *= 2, from = !from)
    NYX_TRY(step(j, &s[from], &s[!from], length));
  return nyx__copy_into(j->ctx, s[from].y, c->out[0]);
}

nyx_status nyx__scan_rows(nyx_call *c, const nyx__scan_way *way) {
  const nyx_tensor *x = c->in[0];
  job j = {.ctx = c->ctx, .device = c->device, .way = *way};
  j.n = x->ndim ? x->shape[way->dim] : 1;
  j.compute = !nyx_dtype_is_float(c->dtype) ? NYX_INT64
              : c->device->float64          ? NYX_FLOAT64
                                            : nyx__compute_dtype(c->dtype);
  state s[2] = {{NULL, NULL}, {NULL, NULL}};
  nyx_status status = run(c, &j, s);
  drop(&s[0]);
  drop(&s[1]);
  return status;
}
