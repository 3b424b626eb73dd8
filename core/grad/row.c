/* The gradient of every elementwise row, from its text: one fused kernel at first order,
 * the same text evaluated op by op when the backward pass is itself recorded. Read next:
 * kernels/elementwise.def, expression.c. */
#include <ctype.h>
#include <pthread.h>
#include <string.h>

#include "../device/device.h"
#include "../op/ops.h"
#include "../transform/lift.h"
#include "graph.h"

static unsigned char uses[NYX_ROW_COUNT][3];
static pthread_once_t uses_once = PTHREAD_ONCE_INIT;

/* The variables a text names, as bits in the order g x y z r. */
static unsigned variables(const char *text) {
  static const char names[] = "gxyzr";
  unsigned found = 0;
  for (const char *p = text; p && *p;) {
    if (!isalpha((unsigned char)*p) && *p != '_') {
      p++;
      continue;
    }
    size_t length = 0;
    while (isalnum((unsigned char)p[length]) || p[length] == '_') length++;
    const char *name = length == 1 ? strchr(names, *p) : NULL;
    if (name) found |= 1u << (name - names);
    p += length;
  }
  return found;
}

static void find_uses(void) {
  for (int id = 0; id < NYX_ROW_COUNT; id++)
    for (int i = 0; i < 3; i++)
      uses[id][i] = (unsigned char)variables(nyx__row((nyx__op_id)id)->gradient[i]);
}

unsigned nyx__row_uses(const nyx_row *row, int part) {
  pthread_once(&uses_once, find_uses);
  return uses[row->id][part - 1];
}

nyx_status nyx__sum_to(nyx_context *ctx, nyx_tensor *g, const nyx_spec *spec,
                       nyx_tensor **out) {
  if (nyx__has_shape(g, spec->ndim, spec->shape)) {
    *out = nyx_tensor_retain(g);
    return NYX_OK;
  }
  int64_t dims[NYX_MAX_DIMS];
  int n = 0, lead = g->ndim - spec->ndim;
  for (int d = 0; d < g->ndim; d++)
    if (d < lead || (spec->shape[d - lead] == 1 && g->shape[d] != 1)) dims[n++] = d;
  nyx_value sum[] = {NYX_LIST(dims, n), NYX_I(1)};
  nyx_value shape = NYX_LIST(spec->shape, spec->ndim);
  nyx_tensor *kept;
  NYX_TRY(nyx__apply1(ctx, NYX__OP_sum, g, sum, &kept));
  nyx_status status = nyx__apply1(ctx, NYX__OP_reshape, kept, &shape, out);
  nyx_tensor_release(kept);
  return status;
}

/* Sums to the input's shape and converts to its dtype; takes g over. */
static nyx_status fit(nyx_context *ctx, nyx_tensor *g, const nyx_spec *spec,
                      nyx_tensor **out) {
  nyx_tensor *summed;
  nyx_status status = nyx__sum_to(ctx, g, spec, &summed);
  nyx_tensor_release(g);
  if (status != NYX_OK) return status;
  status = nyx__to_dtype(ctx, summed, spec->dtype, out);
  nyx_tensor_release(summed);
  return status;
}

/* One kernel for part `part` of a row over the broadcast shape, which lies in memory as
 * the result does. value: g x y z r. */
static nyx_status fused(nyx_context *ctx, const nyx_row *row, int part,
                        const nyx_spec *result, nyx_tensor *const value[5],
                        const double attr[2], nyx_tensor **out) {
  nyx_device *dev = value[0]->storage->device;
  nyx_spec spec = *result;
  spec.laid_out = nyx__close_gaps(spec.ndim, spec.shape, spec.stride, spec.stride);
  NYX_TRY(nyx__tensor_of(ctx, dev, &spec, out));
  nyx_elementwise job = {.row = row,
                         .part = part,
                         .compute = nyx__compute_dtype(result->dtype),
                         .out = *out,
                         .attr = {attr[0], attr[1]},
                         .stops = true};
  unsigned used = nyx__row_uses(row, part);
  for (int k = 0; k < 5; k++) job.in[k] = used >> k & 1 ? value[k] : NULL;
  nyx_status status = dev->elementwise(ctx, dev, &job);
  if (status != NYX_OK) {
    nyx_tensor_release(*out);
    *out = NULL;
  }
  return status;
}

static void read_attrs(const nyx_op *op, const nyx_value *value, double attr[2]) {
  for (int i = 0; i < 2; i++) attr[i] = i < op->n_attrs ? value[i].f : 0;
}

/* The gradients from value: g x y z r. */
static nyx_status gradients(nyx_backward *b, nyx_tensor *const value[5]) {
  const nyx_row *row = b->op->row;
  bool by_ops = b->ctx->grad_enabled || nyx__any_lifted(value, 5);
  double attr[2];
  read_attrs(b->op, b->attr, attr);
  for (int i = 0; i < b->n_in; i++) {
    const char *text = row->gradient[i];
    if (!b->need[i] || !text) continue;
    nyx_tensor *g;
    if (strcmp(text, "g") == 0)
      g = nyx_tensor_retain(value[0]);
    else if (by_ops)
      NYX_TRY(nyx__evaluate(b->ctx, text, value, attr, &g));
    else
      NYX_TRY(fused(b->ctx, row, i + 1, b->out_spec, value, attr, &g));
    NYX_TRY(fit(b->ctx, g, &b->in_spec[i], &b->grad_in[i]));
  }
  return NYX_OK;
}

/* An input without a gradient is a constant of the others' gradients too: theirs of it
 * would be a part of what it is. */
nyx_status nyx__row_gradient(nyx_backward *b) {
  nyx_tensor *value[5] = {b->grad_out[0], b->in[0], b->n_in > 1 ? b->in[1] : NULL,
                          b->n_in > 2 ? b->in[2] : NULL, b->out[0]};
  const nyx_row *row = b->op->row;
  nyx_tensor *constant[3] = {NULL};
  nyx_status status = NYX_OK;
  for (int i = 0; i < b->n_in && status == NYX_OK; i++) {
    nyx_tensor *x = value[i + 1];
    if (row->gradient[i] || !x || x->lift || !x->requires_grad) continue;
    status = nyx_tensor_detach(b->ctx, x, &constant[i]);
    value[i + 1] = constant[i];
  }
  if (status == NYX_OK) status = gradients(b, value);
  for (int i = 0; i < 3; i++) nyx_tensor_release(constant[i]);
  return status;
}

/* The tangent that input i brings. */
static nyx_status row_tangent(nyx_dual *d, int i, const nyx_spec *result,
                              nyx_tensor **out) {
  const nyx_row *row = d->op->row;
  nyx_tensor *value[5] = {d->tangent[i], d->in[0], d->n_in > 1 ? d->in[1] : NULL,
                          d->n_in > 2 ? d->in[2] : NULL, d->out[0]};
  double attr[2];
  read_attrs(d->op, d->attr, attr);
  bool by_ops = nyx__any_lifted(value, 5);
  for (int k = 0; d->ctx->grad_enabled && k < 5; k++)
    by_ops |= value[k] && value[k]->requires_grad;
  if (by_ops) return nyx__evaluate(d->ctx, row->gradient[i], value, attr, out);
  return fused(d->ctx, row, i + 1, result, value, attr, out);
}

/* Expands to the result's shape and converts to its dtype; takes t over. */
static nyx_status spread(nyx_context *ctx, nyx_tensor *t, const nyx_spec *result,
                         nyx_tensor **out) {
  nyx_tensor *full = t;
  nyx_status status = NYX_OK;
  if (!nyx__has_shape(t, result->ndim, result->shape)) {
    nyx_value shape = NYX_LIST(result->shape, result->ndim);
    status = nyx__apply1(ctx, NYX__OP_expand, t, &shape, &full);
    nyx_tensor_release(t);
  }
  if (status != NYX_OK) return status;
  status = nyx__to_dtype(ctx, full, result->dtype, out);
  nyx_tensor_release(full);
  return status;
}

nyx_status nyx__row_forward(nyx_dual *d) {
  const nyx_row *row = d->op->row;
  nyx_spec result;
  nyx__spec_of(d->out[0], &result);
  nyx_tensor *sum = NULL, *term, *both;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < d->n_in; i++) {
    if (!d->tangent[i] || !row->gradient[i]) continue;
    status = row_tangent(d, i, &result, &term);
    if (status != NYX_OK) break;
    if (!sum) {
      sum = term;
      continue;
    }
    status = nyx__apply2(d->ctx, NYX__OP_add, sum, term, NULL, &both);
    nyx_tensor_release(term);
    if (status != NYX_OK) break;
    nyx_tensor_release(sum);
    sum = both;
  }
  if (sum && status == NYX_OK) return spread(d->ctx, sum, &result, &d->tangent_out[0]);
  nyx_tensor_release(sum);
  return status;
}

nyx_status nyx__row_complex(nyx_dual *d) {
  const nyx_row *row = d->op->row;
  nyx_tensor *value[5] = {NULL}, *imaginary[3] = {NULL}, *part;
  nyx_spec result;
  double attr[2];
  nyx__spec_of(d->out[0], &result);
  read_attrs(d->op, d->attr, attr);
  for (int i = 0; i < d->n_in; i++) {
    value[i + 1] = d->in[i];
    imaginary[i] = d->tangent[i];
  }
  NYX_TRY(nyx__evaluate_complex(d->ctx, row->forward, value, imaginary, attr, &part));
  return part ? spread(d->ctx, part, &result, &d->tangent_out[0]) : NYX_OK;
}
