/* Functions with gradients of the host's own: nodes without an op of the table, and what
 * is asked of a context about backward passes. Read next: graph.h, backward.c. */
#include <string.h>

#include "../transform/lift.h"
#include "graph.h"

/* A node whose op lies in it, behind its other parts. */
static nyx_node *function_node(nyx_context *ctx, const nyx_function *f, int n, int n_out,
                               int n_saved) {
  nyx_op op = {.name = f->name,
               .group = "function",
               .doc = "a function of the host",
               .kind = NYX_OP_STRUCTURAL,
               .inputs = "input",
               .max_in = n,
               .n_out = n_out,
               .gradient = f->backward};
  nyx_call c;
  c.ctx = ctx;
  c.op = &op;
  c.n_in = n;
  c.n_out = n_out;
  nyx_node *node = nyx__node_new(&c, n_saved, sizeof op + strlen(f->name) + 1);
  if (!node) return NULL;
  nyx_op *own = (nyx_op *)node->attr;
  char *name = strcpy((char *)(own + 1), f->name);
  *own = op;
  own->name = name;
  node->op = own;
  for (int i = 0; i < n; i++) node->edge[i] = (nyx_edge){NULL, NULL, 0};
  return node;
}

static nyx_status check(nyx_context *ctx, const nyx_function *f,
                        nyx_tensor *const *inputs, int n, nyx_tensor *const *outputs,
                        int n_out, int n_saved) {
  const struct {
    int n;
    const char *what;
  } counts[] = {{n, "inputs"}, {n_out, "outputs"}, {n_saved, "saved tensors"}};
  for (int i = 0; i < 3; i++)
    if (counts[i].n > NYX_MAX_INPUTS)
      return nyx__error(ctx, FUNCTION_COUNT, f->name, counts[i].n, counts[i].what,
                        NYX_MAX_INPUTS);
  for (int k = 0; k < n_out; k++) {
    bool bad = outputs[k] && outputs[k]->requires_grad;
    for (int i = 0; outputs[k] && i < n; i++) bad |= outputs[k] == inputs[i];
    if (bad) return nyx__error(ctx, FUNCTION_OUTPUT, f->name, k + ctx->index_base);
  }
  return NYX_OK;
}

/* Fills the node; it can be released at any point. */
static nyx_status fill(nyx_context *ctx, nyx_node *node, nyx_tensor *const *inputs,
                       nyx_tensor *const *outputs, nyx_tensor *const *saved) {
  const nyx_spec none = {.ndim = 0};
  for (int i = 0; i < node->n_in; i++) {
    node->spec[i] = none;
    if (!inputs[i]) continue;
    nyx__spec_of(inputs[i], &node->spec[i]);
    node->edge[i] = nyx__edge_of(inputs[i]);
    if (node->edge[i].node)
      atomic_fetch_add_explicit(&node->edge[i].node->refs, 1, memory_order_relaxed);
    nyx_tensor_retain(node->edge[i].leaf);
  }
  for (int k = 0; k < node->n_out; k++) {
    node->spec[node->n_in + k] = none;
    if (outputs[k]) nyx__spec_of(outputs[k], &node->spec[node->n_in + k]);
  }
  nyx_saved *more = node->saved + node->n_in + node->n_out;
  for (int i = 0; i < node->n_saved - node->n_in - node->n_out; i++) {
    more[i].output = -1;
    for (int k = 0; k < node->n_out; k++)
      if (outputs[k] && outputs[k] == saved[i]) more[i].output = k;
    NYX_TRY(nyx__node_save(ctx, &more[i], saved[i], more[i].output >= 0));
    more[i].version = nyx_tensor_version(saved[i]);
  }
  return NYX_OK;
}

static nyx_status record(nyx_context *ctx, const nyx_function *f,
                         nyx_tensor *const *inputs, int n, nyx_tensor *const *outputs,
                         int n_out, nyx_tensor *const *saved, int n_saved,
                         bool *recorded) {
  if (!ctx->grad_enabled) return NYX_OK;
  bool wanted = false;
  for (int i = 0; i < n; i++) {
    if (!inputs[i]) continue;
    NYX_TRY(nyx__view_current(ctx, inputs[i]));
    wanted |= inputs[i]->requires_grad;
  }
  if (!wanted) return NYX_OK;
  for (int i = 0; i < n_saved; i++) NYX_TRY(nyx__view_current(ctx, saved[i]));
  nyx_node *node = function_node(ctx, f, n, n_out, n_saved);
  if (!node) return nyx__no_memory(ctx, sizeof *node);
  nyx_status status = fill(ctx, node, inputs, outputs, saved);
  if (status == NYX_OK) {
    node->payload = f->payload;
    node->free_payload = f->free;
    *recorded = true;
    for (int k = 0; k < n_out; k++) {
      if (!outputs[k]) continue;
      nyx__view_unlink(outputs[k]);
      if (nyx__has_gradient(outputs[k]->dtype)) nyx__node_adopt(node, k, outputs[k]);
    }
    /* Memory of an input may not be changed behind its back. */
    for (int i = 0; i < n; i++)
      for (int k = 0; inputs[i] && k < n_out; k++)
        if (outputs[k] && nyx_tensor_shares(inputs[i], outputs[k]))
          outputs[k]->is_view = true;
  }
  nyx__node_release(node);
  return status;
}

nyx_status nyx_record_function(nyx_context *ctx, const nyx_function *f,
                               nyx_tensor *const *inputs, int n,
                               nyx_tensor *const *outputs, int n_out,
                               nyx_tensor *const *saved, int n_saved) {
  bool recorded = false;
  nyx_status status = check(ctx, f, inputs, n, outputs, n_out, n_saved);
  nyx_level level = 0;
  if (status == NYX_OK) {
    const nyx_level all[] = {nyx__highest_level(NULL, inputs, n),
                             nyx__highest_level(NULL, outputs, n_out),
                             nyx__highest_level(NULL, saved, n_saved)};
    for (int i = 0; i < 3; i++)
      if (all[i] > level) level = all[i];
  }
  if (level)
    return nyx__lifted_function(ctx, f, inputs, n, outputs, n_out, saved, n_saved, level);
  if (status == NYX_OK)
    status = record(ctx, f, inputs, n, outputs, n_out, saved, n_saved, &recorded);
  if (!recorded && f->free) f->free(f->payload);
  return status;
}

/* What a context is asked to watch */

void nyx_context_set_anomaly(nyx_context *ctx, const nyx_anomaly *anomaly) {
  ctx->anomaly = anomaly;
}
const nyx_anomaly *nyx_context_anomaly(const nyx_context *ctx) {
  return ctx->anomaly;
}

void nyx_context_set_profiler(nyx_context *ctx, const nyx_profiler *profiler) {
  ctx->profiler = profiler;
}
const nyx_profiler *nyx_context_profiler(const nyx_context *ctx) {
  return ctx->profiler;
}
