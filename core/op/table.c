/* The op table: rows of the .def files, then structural ops, then what extensions add.
 * Read next: apply.c, kernels/elementwise.def, structural.def. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "../tensor/tensor.h"
#include "ops.h"

#define MAX_EXTENSIONS 1024

static const nyx_op *builtin[NYX__OP_BUILTIN_COUNT];
static pthread_once_t builtin_once = PTHREAD_ONCE_INIT;

static const nyx_op *extension[MAX_EXTENSIONS];
static atomic_int extension_count;
static pthread_mutex_t extension_lock = PTHREAD_MUTEX_INITIALIZER;

static void gather(void) {
  static const nyx_op *const structural[] = {
#define NYX_STRUCTURAL(name) &nyx__op_##name,
#include "structural.def"
#undef NYX_STRUCTURAL
  };
  const nyx_op *rows;
  int n = 0;
  for (int i = 0, count = nyx__elementwise_ops(&rows); i < count; i++)
    builtin[n++] = &rows[i];
  for (int i = 0, count = nyx__reduce_ops(&rows); i < count; i++) builtin[n++] = &rows[i];
  for (size_t i = 0; i < sizeof structural / sizeof *structural; i++)
    builtin[n++] = structural[i];
}

const nyx_op *nyx__op(nyx__op_id id) {
  pthread_once(&builtin_once, gather);
  return builtin[id];
}

int nyx__op_id_of(const nyx_op *op) {
  pthread_once(&builtin_once, gather);
  for (int i = 0; i < NYX__OP_BUILTIN_COUNT; i++)
    if (builtin[i] == op) return i;
  return -1;
}

int nyx_op_count(void) {
  return NYX__OP_BUILTIN_COUNT +
         atomic_load_explicit(&extension_count, memory_order_acquire);
}

const nyx_op *nyx_op_at(int i) {
  if (i < 0 || i >= nyx_op_count()) return NULL;
  return i < NYX__OP_BUILTIN_COUNT ? nyx__op((nyx__op_id)i)
                                   : extension[i - NYX__OP_BUILTIN_COUNT];
}

static const nyx_op *named(const nyx_op *const *ops, int n, const char *name) {
  /* Most differ in the first letter: a call for each takes longer than a small op. */
  for (int i = 0; i < n; i++)
    if (ops[i]->name[0] == name[0] && strcmp(ops[i]->name, name) == 0) return ops[i];
  return NULL;
}

const nyx_op *nyx_op_find(const char *name) {
  int extensions = nyx_op_count() - NYX__OP_BUILTIN_COUNT;
  pthread_once(&builtin_once, gather);
  const nyx_op *op = named(builtin, NYX__OP_BUILTIN_COUNT, name);
  return op ? op : named(extension, extensions, name);
}

nyx_status nyx_op_register(nyx_context *ctx, const nyx_op *op) {
  nyx_status status = NYX_OK;
  bool complete =
      op->name && op->group && op->doc && op->inputs && op->infer && op->cpu &&
      (op->kind == NYX_OP_STRUCTURAL || op->kind == NYX_OP_PORTABLE) &&
      op->n_attrs >= 0 && op->n_attrs <= NYX_MAX_ATTRS &&
      (op->attrs || op->n_attrs == 0) && op->n_out >= 1 && op->n_out <= NYX_MAX_OUTPUTS &&
      op->min_in >= 0 && (op->variadic || op->min_in <= op->max_in) &&
      op->max_in <= NYX_MAX_INPUTS;
  if (!complete) return nyx__error(ctx, OP_INCOMPLETE, op->name ? op->name : "?");
  pthread_mutex_lock(&extension_lock);
  int n = atomic_load(&extension_count);
  if (nyx_op_find(op->name) == op)
    status = NYX_OK; /* loaded a second time, by another Lua state */
  else if (nyx_op_find(op->name))
    status = nyx__error(ctx, OP_TAKEN, op->name);
  else if (n == MAX_EXTENSIONS)
    status = nyx__error(ctx, OP_TABLE_FULL, op->name, MAX_EXTENSIONS);
  else {
    extension[n] = op;
    atomic_store_explicit(&extension_count, n + 1, memory_order_release);
  }
  pthread_mutex_unlock(&extension_lock);
  return status;
}

void nyx__spec(nyx_spec *spec, nyx_dtype dtype, int ndim, const int64_t *shape) {
  spec->dtype = dtype;
  spec->ndim = ndim;
  spec->offset = 0;
  spec->laid_out = false;
  for (int d = 0; d < ndim && d < NYX_MAX_DIMS; d++) spec->shape[d] = shape[d];
  if (ndim <= NYX_MAX_DIMS) nyx__strides(ndim, spec->shape, spec->stride);
}

bool nyx__spec_keep(nyx_spec *spec, const nyx_tensor *t) {
  if (!nyx__has_shape(t, spec->ndim, spec->shape)) return false;
  bool last = t->ndim == 4 && nyx__lies_last(t->ndim, t->shape, t->stride);
  if (!last && nyx__is_contiguous(t)) return true;
  spec->laid_out = nyx__close_gaps(t->ndim, t->shape, t->stride, spec->stride);
  return spec->laid_out;
}

void nyx__spec_images(nyx_spec *spec, const nyx_tensor *t) {
  if (nyx__lies_last(t->ndim, t->shape, t->stride)) nyx__spec_last(spec);
}

void nyx__spec_last(nyx_spec *spec) {
  nyx__last_strides(spec->shape, spec->stride);
  spec->laid_out = true;
}

void nyx__spec_of(const nyx_tensor *t, nyx_spec *spec) {
  spec->dtype = t->dtype;
  spec->ndim = t->ndim;
  spec->offset = t->offset;
  spec->laid_out = false;
  memcpy(spec->shape, t->shape, sizeof spec->shape); /* whole: without a call */
  memcpy(spec->stride, t->stride, sizeof spec->stride);
}
