/* nyx_apply, the one path every op takes: device, dtype, shape, allocate and launch,
 * record. Read next: table.c (the ops), core/device/device.h (what launch calls),
 * core/grad/graph.c. */
#include <string.h>

#include "../device/device.h"
#include "../grad/graph.h"
#include "../tensor/tensor.h"
#include "../transform/lift.h"
#include "complex.h"
#include "ops.h"

/* Everything one application needs beyond the call itself. */
typedef struct application {
  nyx_call c;
  nyx_tensor *in[NYX_MAX_INPUTS];
  nyx_tensor *converted[2 * NYX_MAX_INPUTS]; /* references to drop at the end */
  int n_converted;
  nyx_value attr[NYX_MAX_ATTRS];
  nyx_edge edge[NYX_MAX_INPUTS];
  nyx_tensor *target; /* written in place; NULL: a new output */
  bool record;
  bool inner;   /* part of another op */
  bool complex; /* the op is made of others, on parts of complex numbers */
} application;

/* What no op has to check again. */
static nyx_status check_value(nyx_context *ctx, const nyx_attr *attr,
                              const nyx_value *v) {
  if (!v->given) return NYX_OK;
  if (attr->type == NYX_ATTR_DTYPE && (v->i < 0 || v->i >= NYX_DTYPE_COUNT))
    return nyx__error(ctx, ATTR_RANGE, attr->name, (long long)v->i, "a dtype");
  if (attr->type == NYX_ATTR_STRING && !v->s)
    return nyx__error(ctx, ATTR_MISSING, attr->name, attr->doc);
  return NYX_OK;
}

/* Checks how many inputs came and fills in attributes that were left out. */
static nyx_status take_arguments(application *a, nyx_tensor *const *inputs, int n,
                                 const nyx_value *attrs) {
  nyx_call *c = &a->c;
  const nyx_op *op = c->op;
  int most = op->variadic ? NYX_MAX_INPUTS : op->max_in;
  if (n < op->min_in || n > most)
    return nyx__error(c->ctx, INPUT_COUNT, n, op->min_in, most);
  c->n_in = op->variadic ? n : op->max_in;
  for (int i = 0; i < c->n_in; i++) {
    a->in[i] = i < n ? inputs[i] : NULL;
    if (!a->in[i] && (i < op->min_in || op->variadic))
      return nyx__error(c->ctx, TENSOR_MISSING, i + 1, op->inputs);
  }
  for (int i = 0; i < op->n_attrs; i++) {
    a->attr[i] = attrs && attrs[i].given ? attrs[i] : op->attrs[i].preset;
    if (op->attrs[i].required && !a->attr[i].given)
      return nyx__error(c->ctx, ATTR_MISSING, op->attrs[i].name, op->attrs[i].doc);
    NYX_TRY(check_value(c->ctx, &op->attrs[i], &a->attr[i]));
  }
  return NYX_OK;
}

static bool any_device(const nyx_tensor *t) {
  return t->weak && t->ndim == 0;
}

/* Step 1: all inputs on one device. */
static nyx_status choose_device(application *a) {
  nyx_call *c = &a->c;
  c->device = NULL;
  for (int i = 0; i < c->n_in; i++) {
    if (!a->in[i] || any_device(a->in[i])) continue;
    nyx_device *device = a->in[i]->storage->device;
    if (c->device && device != c->device)
      return nyx__error(c->ctx, DEVICE_MIXED, c->device->name, device->name,
                        c->device->name);
    if (!c->device) c->device = device;
  }
  if (!c->device) c->device = nyx__cpu();
  return NYX_OK;
}

/* Whether input i holds positions, of which the dtype says nothing. */
static bool is_index(const nyx_op *op, int i) {
  return op->index_in && i < 32 && op->index_in & NYX_SAVE(i);
}

/* The dtype of `class` merged into *have: see promote. */
static void merge_dtype(int *have, nyx_dtype dtype) {
  if (*have == (int)dtype) return;
  *have = *have < 0 ? (int)dtype : (int)nyx_dtype_promote((nyx_dtype)*have, dtype);
}

/* The dtype of the lower class, `have`, raised to the kind of `higher`: of complex
 * numbers the former has the floats, if it has any. */
static int raised(int have, int higher) {
  nyx_dtype low = (nyx_dtype)have, high = (nyx_dtype)higher;
  if (!nyx__complex_dtype(high) || !nyx_dtype_is_float(low)) return higher;
  return (int)nyx_dtype_promote(low, NYX_COMPLEX64);
}

/* PyTorch's rule: tensors with dimensions decide; 0-d tensors, and after them numbers,
 * only raise the kind (bool, integer, float, complex). Returns -1 when there are no
 * inputs. */
static int promote(const application *a) {
  int have[3] = {-1, -1, -1};
  for (int i = 0; i < a->c.n_in; i++) {
    const nyx_tensor *t = a->in[i];
    if (!t || is_index(a->c.op, i)) continue;
    if (!t->weak)
      merge_dtype(&have[t->ndim == 0], t->dtype);
    else
      merge_dtype(&have[2], nyx_dtype_is_float(t->dtype) ? a->c.ctx->default_dtype
                            : t->dtype == NYX_BOOL       ? NYX_BOOL
                                                         : NYX_INT64);
  }
  int result = have[0];
  for (int class = 1; class < 3; class ++) {
    if (have[class] < 0) continue;
    if (result < 0 ||
        nyx_dtype_kind_of((nyx_dtype)have[class]) > nyx_dtype_kind_of((nyx_dtype)result))
      result = result < 0 ? have[class] : raised(result, have[class]);
  }
  return result;
}

static nyx_status dtype_error(application *a) {
  char names[160] = "";
  size_t used = 0;
  for (int d = 0; d < NYX_DTYPE_COUNT; d++) {
    if (!(a->c.op->dtypes & NYX_DTYPES(d))) continue;
    const char *name = nyx_dtype_name((nyx_dtype)d);
    if (used + strlen(name) + 2 > sizeof names) break;
    if (used) names[used++] = ' ';
    strcpy(names + used, name);
    used += strlen(name);
  }
  return nyx__error(a->c.ctx, DTYPE_OP, nyx_dtype_name(a->c.dtype), names);
}

/* Step 2: what mixed precision casts, then the dtype the inputs have in common.
 * Structural ops get inputs of that dtype; elementwise rows and reductions convert inside
 * their kernels. */
static nyx_status choose_dtype(application *a) {
  nyx_call *c = &a->c;
  const nyx_op *op = c->op;
  if (c->ctx->autocast.enabled && op->autocast && !a->inner && !a->target)
    NYX_TRY(nyx__autocast(c, a->converted, &a->n_converted));
  if (op->promotion == NYX_PROMOTE_NONE) {
    c->dtype = c->n_in && a->in[0] ? a->in[0]->dtype : c->ctx->default_dtype;
  } else {
    int common = promote(a);
    c->dtype = common < 0 ? c->ctx->default_dtype : (nyx_dtype)common;
    if (op->promotion == NYX_PROMOTE_FLOAT && !nyx__has_gradient(c->dtype))
      c->dtype = c->ctx->default_dtype;
  }
  if (op->dtypes && !(op->dtypes & NYX_DTYPES(c->dtype))) {
    a->complex = nyx__complex_dtype(c->dtype) && nyx__complex_op(op);
    return a->complex ? NYX_OK : dtype_error(a);
  }
  bool convert = op->promotion != NYX_PROMOTE_NONE &&
                 (op->kind == NYX_OP_STRUCTURAL || op->kind == NYX_OP_PORTABLE);
  for (int i = 0; convert && i < c->n_in; i++) {
    nyx_tensor *t = a->in[i];
    if (!t || t->dtype == c->dtype || is_index(op, i)) continue;
    nyx_value to = NYX_I(c->dtype);
    NYX_TRY(nyx__apply1(c->ctx, NYX__OP_cast, t, &to, &a->in[i]));
    a->converted[a->n_converted++] = a->in[i];
  }
  return NYX_OK;
}

/* Whether the second operand, where it is a number, is one that integers have a result
 * for. In a tensor it would have to be looked for element by element: see the rows. */
static nyx_status check_number(nyx_call *c) {
  const nyx_tensor *y = c->n_in == 2 ? c->in[1] : NULL;
  int id = ((const nyx_row *)c->op->row)->id;
  bool divides =
      id == NYX__OP_floor_divide || id == NYX__OP_remainder || id == NYX__OP_fmod;
  if (!y || !y->weak || y->lift || nyx_dtype_is_float(c->dtype)) return NYX_OK;
  if (!divides && id != NYX__OP_pow) return NYX_OK;
  double value;
  NYX_TRY(nyx_tensor_item(c->ctx, (nyx_tensor *)y, &value));
  if (divides && value == 0)
    return nyx__error(c->ctx, DIVIDE_ZERO, nyx_dtype_name(c->dtype));
  if (!divides && value < 0)
    return nyx__error(c->ctx, POWER_NEGATIVE, nyx_dtype_name(c->dtype), value);
  return NYX_OK;
}

/* Step 3 for elementwise rows: broadcast all inputs; the result lies in memory as the
 * first of them that has its shape and no gaps. */
static nyx_status infer_row(nyx_call *c) {
  nyx_spec *spec = &c->spec[0];
  spec->ndim = c->in[0]->ndim;
  memcpy(spec->shape, c->in[0]->shape, sizeof spec->shape); /* whole: without a call */
  for (int i = 1; i < c->n_in; i++) {
    const nyx_tensor *t = c->in[i];
    if (nyx__has_shape(t, spec->ndim, spec->shape)) continue;
    int ndim;
    int64_t shape[NYX_MAX_DIMS];
    if (!nyx__broadcast(spec->ndim, spec->shape, t->ndim, t->shape, &ndim, shape)) {
      char text[NYX_SHAPE_TEXT];
      return nyx__error(c->ctx, BROADCAST,
                        nyx__shape_text(spec->ndim, spec->shape, text, sizeof text),
                        NYX__SHAPE(t));
    }
    spec->ndim = ndim;
    memcpy(spec->shape, shape, (size_t)ndim * sizeof *shape);
  }
  spec->dtype = ((const nyx_row *)c->op->row)->result_bool ? NYX_BOOL : c->dtype;
  for (int i = 0; i < c->n_in && !nyx__spec_keep(spec, c->in[i]); i++) continue;
  return check_number(c);
}

/* Whether writing `out` element by element can be seen by a later read through `in`. */
static bool clashes(const nyx_tensor *out, const nyx_tensor *in) {
  if (!in || in->storage != out->storage || in == out) return false;
  if (in->offset != out->offset || in->ndim != out->ndim || in->dtype != out->dtype)
    return true;
  for (int d = 0; d < out->ndim; d++)
    if (in->shape[d] != out->shape[d] || in->stride[d] != out->stride[d]) return true;
  return false;
}

/* Whether t may be written: the right shape, a dtype that holds the result, each element
 * at an address of its own. */
static nyx_status check_target(nyx_context *ctx, const nyx_tensor *t,
                               const nyx_spec *spec) {
  if (!nyx__has_shape(t, spec->ndim, spec->shape)) {
    char text[NYX_SHAPE_TEXT];
    return nyx__error(ctx, OUT_SHAPE, NYX__SHAPE(t),
                      nyx__shape_text(spec->ndim, spec->shape, text, sizeof text));
  }
  if (nyx_dtype_kind_of(spec->dtype) > nyx_dtype_kind_of(t->dtype))
    return nyx__error(ctx, DTYPE_OUT, nyx_dtype_name(spec->dtype),
                      nyx_dtype_name(t->dtype), nyx_dtype_name(spec->dtype));
  if (nyx__overlaps(t->ndim, t->shape, t->stride)) return nyx__error(ctx, OUT_OVERLAP);
  return NYX_OK;
}

static nyx_status launch_row(nyx_call *c) {
  const nyx_row *row = c->op->row;
  nyx_elementwise job = {.row = row, .compute = nyx__compute_dtype(c->dtype)};
  job.stops = true; /* but not where it changes one of its inputs */
  for (int i = 0; i < c->n_in; i++) {
    job.in[i] = c->in[i];
    if (c->in[i] && c->in[i]->storage == c->out[0]->storage) job.stops = false;
  }
  for (int i = 0; i < 2 && i < c->op->n_attrs; i++)
    if (c->op->attrs[i].type == NYX_ATTR_FLOAT) job.attr[i] = c->attr[i].f;
  job.out = c->out[0];
  return c->device->elementwise(c->ctx, c->device, &job);
}

static nyx_status launch(nyx_call *c) {
  switch (c->op->kind) {
    case NYX_OP_ELEMENTWISE: return launch_row(c);
    case NYX_OP_REDUCTION: return nyx__reduce_launch(c);
    case NYX_OP_STRUCTURAL: return c->device->structural(c->device, c);
    case NYX_OP_PORTABLE: return c->op->cpu(c);
    case NYX_OP_VIEW:
    case NYX_OP_COMPOSITE: break;
  }
  return NYX_OK;
}

static void drop_outputs(nyx_call *c) {
  for (int i = 0; i < c->n_out; i++) nyx_tensor_release(c->out[i]);
}

/* Whether the target is memory as the op's own would be: of its dtype, in its order,
 * without gaps, nothing that it reads. */
static bool stands_apart(const application *a) {
  const nyx_call *c = &a->c;
  const nyx_tensor *t = a->target;
  const nyx_spec *spec = &c->spec[0];
  if (t->dtype != spec->dtype) return false;
  if (!spec->laid_out && !nyx__is_contiguous(t)) return false;
  for (int d = 0; spec->laid_out && d < t->ndim; d++)
    if (t->shape[d] != 1 && t->stride[d] != spec->stride[d]) return false;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && c->in[i]->storage == t->storage) return false;
  return t->storage->device == c->device;
}

/* Whether the kernel may write the target itself, rather than a new tensor to copy from.
 */
static bool writes_target(const application *a) {
  const nyx_call *c = &a->c;
  if (c->op->kind == NYX_OP_ELEMENTWISE) {
    for (int i = 0; i < c->n_in; i++)
      if (clashes(a->target, c->in[i])) return false;
    return true;
  }
  if (c->op->overwrites) return stands_apart(a);
  return c->op->updates && a->target == c->in[0];
}

static nyx_status make_output(application *a, int i) {
  nyx_call *c = &a->c;
  const nyx_spec *spec = &c->spec[i];
  if (c->op->kind == NYX_OP_VIEW) {
    int64_t numel; /* repeated elements cost nothing, but have to be countable */
    if (!nyx__numel(spec->ndim, spec->shape, sizeof(double), &numel)) {
      char text[NYX_SHAPE_TEXT];
      return nyx__error(c->ctx, SIZE_OVERFLOW,
                        nyx__shape_text(spec->ndim, spec->shape, text, sizeof text));
    }
    NYX_TRY(nyx__tensor_view(c->ctx, c->in[0]->storage, spec, &c->out[i]));
    nyx__view_link(c->ctx, c->in[0], c->out[i]);
    return NYX_OK;
  }
  if (a->target && writes_target(a)) {
    c->out[i] = nyx_tensor_retain(a->target);
    return NYX_OK;
  }
  NYX_TRY(nyx__tensor_of(c->ctx, c->device, spec, &c->out[i]));
  if (i == 0 && c->op->updates && !c->op->fills)
    return nyx__copy_into(c->ctx, c->in[0], c->out[0]);
  return NYX_OK;
}

/* Steps 4 and 5: outputs are made, then the node that records them, then they are
 * computed; a target that the kernel could not write itself is copied to. On failure
 * nothing is left behind, and for lack of memory nothing has been written. */
static nyx_status allocate_and_launch(application *a) {
  nyx_call *c = &a->c;
  memset(c->out, 0, sizeof c->out);
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < c->n_out; i++) status = make_output(a, i);
  nyx_node *node = NULL, *rebased = NULL;
  if (status == NYX_OK && a->record)
    status = nyx__record_begin(c, a->edge, a->target, &node);
  if (status == NYX_OK && node && a->target && a->target->base)
    status = nyx__view_rebase(c->ctx, a->target, node, &rebased);
  if (status == NYX_OK) status = launch(c);
  if (status == NYX_OK && a->target) {
    if (c->out[0] != a->target) {
      status = nyx__copy_into(c->ctx, c->out[0], a->target);
      nyx_tensor_release(c->out[0]);
      c->out[0] = nyx_tensor_retain(a->target);
    }
    nyx_tensor_touch(a->target);
  }
  if (status != NYX_OK) {
    nyx__node_release(rebased);
    nyx__node_release(node);
    drop_outputs(c);
  } else if (node) {
    nyx__record_finish(node, c, a->target && a->target == c->in[0], rebased);
  }
  return status;
}

/* Whether the target may be changed while gradients are on. */
static nyx_status check_change(const application *a) {
  const nyx_call *c = &a->c;
  const nyx_tensor *t = a->target, *base = t->base;
  bool of_leaf = base && base->requires_grad && !base->grad_fn;
  if (!a->record && !t->requires_grad && !of_leaf) return NYX_OK;
  if (t->requires_grad && !t->grad_fn) return nyx__error(c->ctx, GRAD_LEAF_INPLACE);
  if (of_leaf) return nyx__error(c->ctx, GRAD_VIEW_LEAF);
  if (t != c->in[0]) return nyx__error(c->ctx, GRAD_OUT);
  if (t->storage->inference && !c->ctx->inference)
    return nyx__error(c->ctx, INFERENCE_CHANGE);
  if (t->is_view && (!base || t->loose)) return nyx__error(c->ctx, GRAD_VIEW_INPLACE);
  if (!a->record)
    return nyx__error(c->ctx, GRAD_UNDEFINED, c->op->name, "; detach the input first");
  return NYX_OK;
}

/* What will be recorded has to be known before the launch: an in-place op changes the
 * history of its input, and must not run at all where that cannot be recorded. */
static nyx_status prepare_record(application *a) {
  nyx_call *c = &a->c;
  a->record = false;
  if (!c->ctx->grad_enabled) return NYX_OK;
  bool wanted = false;
  for (int i = 0; i < c->n_in; i++) {
    if (!c->in[i]) continue;
    NYX_TRY(nyx__view_current(c->ctx, c->in[i]));
    wanted |= c->in[i]->requires_grad;
  }
  if (a->target) NYX_TRY(nyx__view_current(c->ctx, a->target));
  if (wanted && c->op->no_gradient) return nyx__error(c->ctx, GRAD_REFUSED);
  a->record = wanted && c->op->gradient != NULL;
  if (a->target) NYX_TRY(check_change(a));
  for (int i = 0; a->record && i < c->n_in; i++)
    a->edge[i] = c->in[i] ? nyx__edge_of(c->in[i]) : (nyx_edge){NULL, NULL, 0};
  return NYX_OK;
}

static nyx_status apply(application *a, nyx_tensor *const *inputs, int n,
                        const nyx_value *attrs) {
  nyx_call *c = &a->c;
  NYX_TRY(take_arguments(a, inputs, n, attrs));
  if (nyx__interrupted(c->ctx)) return nyx__error(c->ctx, INTERRUPTED);
  NYX_TRY(choose_device(a));
  NYX_TRY(choose_dtype(a));
  if (a->complex) return nyx__apply_complex(c, a->target);
  for (int i = 0; i < c->n_out; i++) c->spec[i].laid_out = false;
  if (a->target && (c->op->kind == NYX_OP_COMPOSITE || c->op->kind == NYX_OP_VIEW))
    return nyx__error(c->ctx, OUT_VIEW);
  if (c->op->kind == NYX_OP_COMPOSITE) {
    for (int i = 0; i < c->n_out; i++) c->out[i] = NULL;
    return c->op->cpu(c);
  }
  nyx_level level = nyx__highest_level(a->target, c->in, c->n_in);
  /* Lifted tensors have no elements of their own to look at. */
  if (!level || !c->op->by_value) NYX_TRY(c->op->infer ? c->op->infer(c) : infer_row(c));
  if (a->target) {
    if (c->n_out != 1) return nyx__error(c->ctx, OUT_COUNT);
    NYX_TRY(check_target(c->ctx, a->target, &c->spec[0]));
  }
  if (c->op->random && c->ctx->n_levels) NYX_TRY(nyx__random_level(c->ctx, &level));
  if (level) return nyx__apply_lifted(c, level, a->target);
  NYX_TRY(prepare_record(a));
  return allocate_and_launch(a);
}

nyx_status nyx_apply(nyx_context *ctx, const nyx_op *op, nyx_tensor *const *inputs, int n,
                     const nyx_value *attrs, nyx_tensor **outputs) {
  application a; /* large: only what is used gets written */
  a.c.ctx = ctx;
  a.c.op = op;
  a.c.in = a.in;
  a.c.attr = a.attr;
  a.c.payload = NULL;
  a.c.found = NULL;
  a.c.n_out = op->n_out;
  a.n_converted = 0;
  a.target = outputs[0];
  a.record = false;
  a.complex = false;
  const char *where = ctx->where;
  bool inside = ctx->inside; /* messages name the op that was asked for */
  a.inner = inside;
  if (!inside) ctx->where = op->name;
  ctx->inside = true;
  nyx_status status = apply(&a, inputs, n, attrs);
  if (status == NYX_OK && a.target)
    nyx_tensor_release(a.c.out[0]); /* outputs[0] keeps the reference it had */
  for (int i = 0; i < a.n_converted; i++) nyx_tensor_release(a.converted[i]);
  nyx_memory_free(a.c.found);
  if (status == NYX_OK)
    for (int i = 0; i < a.c.n_out; i++) outputs[i] = a.c.out[i];
  ctx->where = where;
  ctx->inside = inside;
  return status;
}

nyx_status nyx__apply1(nyx_context *ctx, nyx__op_id id, nyx_tensor *x,
                       const nyx_value *attrs, nyx_tensor **out) {
  return nyx__applyn(ctx, id, &x, 1, attrs, out);
}

nyx_status nyx__apply2(nyx_context *ctx, nyx__op_id id, nyx_tensor *x, nyx_tensor *y,
                       const nyx_value *attrs, nyx_tensor **out) {
  return nyx__applyn(ctx, id, (nyx_tensor *[]){x, y}, 2, attrs, out);
}

nyx_status nyx__applyn(nyx_context *ctx, nyx__op_id id, nyx_tensor *const *in, int n,
                       const nyx_value *attrs, nyx_tensor **out) {
  nyx_tensor *outputs[NYX_MAX_OUTPUTS] = {NULL};
  const nyx_op *op = nyx__op(id);
  nyx_status status = nyx_apply(ctx, op, in, n, attrs, outputs);
  *out = status == NYX_OK ? outputs[0] : NULL;
  for (int i = 1; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(outputs[i]);
  return status;
}
