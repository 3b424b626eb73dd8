/* Forward mode: the tangents of an op's results from those of its inputs. An elementwise
 * row is its gradient text with the tangent in the place of g, since its Jacobian is
 * diagonal (core/grad/row.c). An op that is linear says so; any other has its tangents
 * from its gradient: g -> J^T g is linear in g, so the gradient of <J^T g, t> by g is J
 * t. Read next: lift.h, core/include/nyx/op.h (nyx_dual). */
#include <string.h>

#include "../grad/graph.h"
#include "../op/steps.h"
#include "lift.h"

/* Adds `term` (given away) to *sum. */
static nyx_status add_term(nyx_context *ctx, nyx_tensor **sum, nyx_tensor *term) {
  if (!*sum) {
    *sum = term;
    return NYX_OK;
  }
  nyx_tensor *both;
  nyx_status status = nyx__apply2(ctx, NYX__OP_add, *sum, term, NULL, &both);
  nyx_tensor_release(term);
  if (status != NYX_OK) return status;
  nyx_tensor_release(*sum);
  *sum = both;
  return NYX_OK;
}

/* The op itself applied to other inputs. */
static nyx_status apply_same(nyx_dual *d, nyx_tensor *const *in, nyx_tensor **out) {
  nyx_tensor *made[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(nyx_apply(d->ctx, d->op, in, d->n_in, d->attr, made));
  *out = made[0];
  for (int i = 1; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(made[i]);
  return NYX_OK;
}

nyx_status nyx__forward_linear(nyx_dual *d) {
  nyx_tensor *in[NYX_MAX_INPUTS], *zeros[NYX_MAX_INPUTS] = {NULL};
  nyx_status status = NYX_OK;
  for (int i = 0; i < d->n_in; i++) {
    in[i] = d->tangent[i] ? d->tangent[i] : d->in[i];
    bool position = i < 32 && d->op->index_in & NYX_SAVE(i);
    if (status != NYX_OK || d->tangent[i] || !d->in[i] || position) continue;
    status = nyx__zeros_of(d->ctx, d->in[i], &zeros[i]);
    in[i] = zeros[i];
  }
  if (status == NYX_OK) status = apply_same(d, in, &d->tangent_out[0]);
  for (int i = 0; i < d->n_in; i++) nyx_tensor_release(zeros[i]);
  return status;
}

nyx_status nyx__forward_product(nyx_dual *d) {
  nyx_tensor *in[3] = {d->tangent[0], d->in[1], NULL}, *term, *zeros = NULL;
  bool bias = d->n_in > 2 && d->tangent[2];
  if (bias) in[2] = d->tangent[2];
  if (!d->tangent[0] && bias) NYX_TRY(nyx__zeros_of(d->ctx, d->in[0], &zeros));
  if (zeros) in[0] = zeros;
  nyx_status status = NYX_OK;
  if (in[0]) status = apply_same(d, in, &d->tangent_out[0]);
  nyx_tensor_release(zeros);
  NYX_TRY(status);
  if (!d->tangent[1]) return NYX_OK;
  in[0] = d->in[0];
  in[1] = d->tangent[1];
  in[2] = NULL;
  NYX_TRY(apply_same(d, in, &term));
  return add_term(d->ctx, &d->tangent_out[0], term);
}

/* Of z = x / y: (dx - z dy) / y. */
nyx_status nyx__forward_quotient(nyx_dual *d) {
  nyx__steps s = {.ctx = d->ctx};
  nyx_tensor *top = d->tangent[0];
  nyx_status status = NYX_OK;
  if (d->tangent[1]) {
    nyx_tensor *less;
    status = nyx__step(&s, NYX__OP_complex_mul, d->out[0], d->tangent[1], d->attr, &less);
    if (status == NYX_OK && top)
      status = nyx__step(&s, NYX__OP_sub, top, less, NULL, &top);
    else if (status == NYX_OK)
      status = nyx__step(&s, NYX__OP_neg, less, NULL, NULL, &top);
  }
  if (status == NYX_OK)
    status = nyx__apply2(d->ctx, NYX__OP_complex_div, top, d->in[1], d->attr,
                         &d->tangent_out[0]);
  return nyx__steps_end(&s, status);
}

/* Everything the transposed rule holds for the time of a call. */
typedef struct transposed {
  nyx_tensor *g[NYX_MAX_INPUTS]; /* what will be differentiated by; functions may have
                                    as many results */
  nyx_tensor *grad_in[NYX_MAX_INPUTS]; /* J^T g, of every input with a tangent */
  nyx_spec spec[2 * NYX_MAX_INPUTS];
  bool need[NYX_MAX_INPUTS];
} transposed;

static nyx_status run_gradient(nyx_dual *d, transposed *t) {
  for (int i = 0; i < d->n_in; i++) {
    t->need[i] = d->tangent[i] != NULL;
    t->spec[i] = (nyx_spec){.ndim = 0};
    if (d->in[i]) nyx__spec_of(d->in[i], &t->spec[i]);
  }
  for (int i = 0; i < d->n_out; i++) {
    t->spec[d->n_in + i] = (nyx_spec){.ndim = 0};
    if (!d->out[i]) continue;
    nyx__spec_of(d->out[i], &t->spec[d->n_in + i]);
    if (nyx__has_gradient(d->out[i]->dtype))
      NYX_TRY(nyx__zero_leaf(d->ctx, d->out[i], &t->g[i]));
  }
  nyx_backward b = {.ctx = d->ctx,
                    .op = d->op,
                    .attr = d->attr,
                    .n_in = d->n_in,
                    .n_out = d->n_out,
                    .in = d->in,
                    .out = d->out,
                    .in_spec = t->spec,
                    .out_spec = t->spec + d->n_in,
                    .grad_out = t->g,
                    .need = t->need,
                    .grad_in = t->grad_in,
                    .payload = d->payload,
                    .saved = d->saved,
                    .n_saved = d->n_saved};
  bool grad = d->ctx->grad_enabled;
  d->ctx->grad_enabled = true;
  nyx_status status = d->op->gradient(&b);
  d->ctx->grad_enabled = grad;
  return status;
}

/* The gradients of <grad_in[i], tangent[i]> by every g, added to the tangents. */
static nyx_status pull_through(nyx_dual *d, transposed *t, int i, bool record) {
  nyx_backward_options options = {.create_graph = record, .retain_graph = true};
  nyx_tensor *g[NYX_MAX_INPUTS], *found[NYX_MAX_INPUTS];
  int at[NYX_MAX_INPUTS], n = 0;
  for (int k = 0; k < d->n_out; k++) {
    if (!t->g[k]) continue;
    g[n] = t->g[k];
    at[n++] = k;
  }
  NYX_TRY(nyx_gradients(d->ctx, t->grad_in[i], d->tangent[i], g, n, &options, found));
  nyx_status status = NYX_OK;
  for (int k = 0; k < n; k++) {
    if (!found[k]) continue;
    if (status == NYX_OK)
      status = add_term(d->ctx, &d->tangent_out[at[k]], found[k]);
    else
      nyx_tensor_release(found[k]);
  }
  return status;
}

nyx_status nyx__forward_transposed(nyx_dual *d) {
  transposed t;
  memset(t.g, 0, sizeof t.g);
  memset(t.grad_in, 0, (size_t)d->n_in * sizeof *t.grad_in);
  bool record = false;
  for (int i = 0; i < d->n_in; i++) {
    if (d->in[i] && nyx_tensor_requires_grad(d->in[i])) record = true;
    if (d->tangent[i] && nyx_tensor_requires_grad(d->tangent[i])) record = true;
  }
  record = record && d->ctx->grad_enabled;
  nyx_status status = run_gradient(d, &t);
  for (int i = 0; i < d->n_in; i++) {
    if (status == NYX_OK && t.grad_in[i] && nyx_tensor_requires_grad(t.grad_in[i]))
      status = pull_through(d, &t, i, record);
    nyx_tensor_release(t.grad_in[i]);
  }
  for (int k = 0; k < d->n_out; k++) nyx_tensor_release(t.g[k]);
  return status;
}

nyx_status nyx__tangents(nyx_dual *d) {
  bool any = false, floats = false; /* results like x:to "int64" have none */
  for (int i = 0; i < d->n_in; i++) any |= d->tangent[i] != NULL;
  for (int k = 0; k < d->n_out; k++) floats |= nyx__has_gradient(d->out[k]->dtype);
  if (any && floats && d->op->no_gradient) return nyx__error(d->ctx, GRAD_REFUSED);
  if (!any || !floats || (!d->op->gradient && !d->op->forward)) return NYX_OK;
  if (d->op->forward) return d->op->forward(d);
  if (d->op->gradient == nyx__row_gradient) return nyx__row_forward(d);
  return nyx__forward_transposed(d);
}

/* Whether t shares memory with one of others. */
static bool shares(const nyx_tensor *t, nyx_tensor *const *others, int n) {
  for (int i = 0; i < n; i++)
    if (others[i] && others[i]->storage == t->storage) return true;
  return false;
}

/* The tangents of results that have memory of their own have theirs, in the same order
 * and at their levels too: later changes in place and views then find them as
 * they find the results. */
nyx_status nyx__own_tangents(nyx_dual *d) {
  if (d->op->kind == NYX_OP_VIEW) return NYX_OK;
  for (int k = 0; k < d->n_out; k++) {
    nyx_tensor *t = d->tangent_out[k], *full, *copy;
    if (!t) continue;
    bool shared = shares(t, d->tangent, d->n_in) || shares(t, d->in, d->n_in) ||
                  shares(t, d->out, d->n_out) || shares(t, d->tangent_out, k);
    NYX_TRY(nyx__in_levels(d->ctx, d->out[k], t, &full));
    nyx_status status =
        nyx__in_order_of(d->ctx, d->out[k], full, shared || full != t, &copy);
    nyx_tensor_release(full);
    NYX_TRY(status);
    full = copy;
    nyx_tensor_release(t);
    d->tangent_out[k] = full;
  }
  return NYX_OK;
}

nyx_status nyx__apply_dual(nyx_call *c, nyx_level level, nyx_status (*rule)(nyx_dual *)) {
  nyx_tensor *value[NYX_MAX_INPUTS], *tangent[NYX_MAX_INPUTS];
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL}, *tangent_out[NYX_MAX_OUTPUTS] = {NULL};
  for (int i = 0; i < c->n_in; i++) {
    bool here = nyx__level_of(c->in[i]) == level;
    value[i] = here ? c->in[i]->lift->value : c->in[i];
    tangent[i] = here ? c->in[i]->lift->tangent : NULL;
  }
  nyx_status status = nyx_apply(c->ctx, c->op, value, c->n_in, c->attr, out);
  if (status != NYX_OK) return status;
  int n_out = 0;
  while (n_out < NYX_MAX_OUTPUTS && out[n_out]) n_out++;
  nyx_dual d = {.ctx = c->ctx,
                .op = c->op,
                .attr = c->attr,
                .payload = c->payload,
                .n_in = c->n_in,
                .n_out = n_out,
                .in = value,
                .tangent = tangent,
                .out = out,
                .tangent_out = tangent_out};
  status = rule(&d);
  if (status == NYX_OK) status = nyx__own_tangents(&d);
  for (int k = 0; k < n_out; k++) {
    if (status == NYX_OK && tangent_out[k])
      status = nyx__lift(c->ctx, level, out[k], tangent_out[k], &c->out[k]);
    else if (status == NYX_OK)
      c->out[k] = nyx_tensor_retain(out[k]);
    nyx_tensor_release(out[k]);
    nyx_tensor_release(tangent_out[k]);
  }
  return status;
}
