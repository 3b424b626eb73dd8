/* The gradient of every elementwise row, from its text: one fused kernel at first order,
 * the same text evaluated op by op when the backward pass is itself recorded. Read next:
 * kernels/elementwise.def, expression.c. */
#include <ctype.h>
#include <pthread.h>
#include <string.h>

#include "../device/device.h"
#include "../op/ops.h"
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

static bool same_shape(const nyx_tensor *t, const nyx_spec *spec) {
  return t->ndim == spec->ndim &&
         memcmp(t->shape, spec->shape, (size_t)t->ndim * sizeof *t->shape) == 0;
}

nyx_status nyx__sum_to(nyx_context *ctx, nyx_tensor *g, const nyx_spec *spec,
                       nyx_tensor **out) {
  if (same_shape(g, spec)) {
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

/* One kernel, over the broadcast shape; written in the input's dtype when nothing is left
 * to sum. */
static nyx_status fused(nyx_backward *b, int i, nyx_tensor *const value[5],
                        const double attr[2], nyx_tensor **out) {
  const nyx_row *row = b->op->row;
  const nyx_spec *result = b->out_spec;
  nyx_tensor *g = value[0];
  NYX_TRY(nyx_tensor_empty_on(b->ctx, g->storage->device, result->dtype, result->ndim,
                              result->shape, out));
  nyx_elementwise job = {.row = row,
                         .part = i + 1,
                         .compute = nyx__compute_dtype(result->dtype),
                         .out = *out,
                         .attr = {attr[0], attr[1]}};
  unsigned used = nyx__row_uses(row, i + 1);
  for (int k = 0; k < 5; k++) job.in[k] = used >> k & 1 ? value[k] : NULL;
  nyx_device *dev = g->storage->device;
  nyx_status status = dev->elementwise(b->ctx, dev, &job);
  if (status != NYX_OK) {
    nyx_tensor_release(*out);
    *out = NULL;
  }
  return status;
}

nyx_status nyx__row_gradient(nyx_backward *b) {
  const nyx_row *row = b->op->row;
  nyx_tensor *value[5] = {b->grad_out[0], b->in[0], b->n_in > 1 ? b->in[1] : NULL,
                          b->n_in > 2 ? b->in[2] : NULL, b->out[0]};
  double attr[2] = {0, 0};
  for (int i = 0; i < 2 && i < b->op->n_attrs; i++) attr[i] = b->attr[i].f;
  for (int i = 0; i < b->n_in; i++) {
    const char *text = row->gradient[i];
    if (!b->need[i] || !text) continue;
    nyx_tensor *g;
    if (strcmp(text, "g") == 0)
      g = nyx_tensor_retain(value[0]);
    else if (b->ctx->grad_enabled)
      NYX_TRY(nyx__evaluate(b->ctx, text, value, attr, &g));
    else
      NYX_TRY(fused(b, i, value, attr, &g));
    NYX_TRY(fit(b->ctx, g, &b->in_spec[i], &b->grad_in[i]));
  }
  return NYX_OK;
}
