/* The reductions: their op table entries from kernels/reduce.def, their shapes and the
 * jobs devices compute. Read next: kernels/reduce.def, reduce_gradient.c,
 * core/device/cpu/reduce.c. */
#include "reduce.h"

#include <math.h>
#include <string.h>

#include "kernels/reduce.h"

#define COUNT_ONE(...) +1
enum {
#define NYX_REDUCE COUNT_ONE
  OP_COUNT = 0
#include "kernels/reduce.def"
#undef NYX_REDUCE
};

/* Attributes: an optional p, then dim and keepdim. */
static const nyx_attr dims_attrs[] = {
    {"dim", NYX_ATTR_DIMS, false, NYX_NONE, NYX__DIMS_DOC},
    {"keepdim", NYX_ATTR_BOOL, false, NYX_I(0), NYX__KEEPDIM_DOC}};
static const nyx_attr dim_attrs[] = {
    {"dim", NYX_ATTR_DIM, false, NYX_NONE, "the dimension to reduce; all when left out"},
    {"keepdim", NYX_ATTR_BOOL, false, NYX_I(0), NYX__KEEPDIM_DOC}};

static const char dims_cases[] =
    "x(3,4)\nx(3,4); dim=1\nx(2,3,4); dim={1,3} keepdim=true\nx(5); dim=-1";
static const char dim_cases[] = "x(3,4)\nx(3,4); dim=1\nx(2,3,4); dim=2 keepdim=true";
static const char p_cases[] =
    "x(3,4)\nx(3,4); dim=1\nx(2,3,4); p=1 dim={1,3} keepdim=true\nx(3,4); p=3 dim=2";

static nyx_status reduce_infer(nyx_call *c);

#define FLOATS NYX_ROW_FLOATS
#define NUMBERS NYX_ROW_NUMBERS

static nyx_reduce_row rows[] = {
#define NYX_REDUCE(name, types, result, attrs, init, combine, merge, finish, grad, doc)  \
  {#name, NYX__REDUCE_##name, types,  NYX_REDUCE_##result,                               \
   #init, #combine,           #merge, #finish,                                           \
   #grad},
#define NYX_REDUCE_PART(name, types, init, combine, merge, finish)                       \
  {#name, NYX__REDUCE_##name, types, NYX_REDUCE_SAME, #init, #combine, #merge, #finish,  \
   NULL},
#define NYX_REDUCE_ABOUT NYX_REDUCE_PART
#include "kernels/reduce.def"
#undef NYX_REDUCE
#undef NYX_REDUCE_PART
#undef NYX_REDUCE_ABOUT
};

#define NOATTR NULL, 0
#define ATTR1(name, preset) #name, preset
#define PRESET(...) PRESET_OF(__VA_ARGS__)
#define PRESET_OF(name, preset)                                                          \
  { name, preset }
static const struct parameter {
  const char *name;
  double preset;
} parameters[] = {
#define NYX_REDUCE(name, types, result, attrs, ...) PRESET(attrs),
#include "kernels/reduce.def"
#undef NYX_REDUCE
};

static const char *const docs[] = {
#define NYX_REDUCE(name, types, result, attrs, init, combine, merge, finish, grad, doc)  \
  doc,
#include "kernels/reduce.def"
#undef NYX_REDUCE
};

/* Whether the name `c` (a letter) occurs in a row's text. */
static bool mentions(const char *text, char c) {
  for (const char *p = text; *p;) {
    size_t n =
        strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    if (n == 1 && *p == c) return true;
    p += n ? n : 1;
  }
  return false;
}

static void make_op(nyx_op *op, nyx_attr *attrs, nyx_reduce_row *row, int id) {
  bool single = row->result == NYX_REDUCE_INDEX;
  bool has_p = parameters[id].name != NULL;
  bool text = strcmp(row->init, "NOTEXT") != 0;
  bool gradient = strcmp(row->gradient, "NOGRAD") != 0;
  bool structural = strcmp(row->gradient, "STRUCTURAL") == 0;
  bool sums = row->types == FLOATS || row->result == NYX_REDUCE_WIDE;
  if (!text) row->init = row->combine = row->merge = row->finish = NULL;
  *op = (nyx_op){.name = row->name,
                 .group = "reduction",
                 .doc = docs[id],
                 .kind = NYX_OP_REDUCTION,
                 .promotion = NYX_PROMOTE_COMMON,
                 .autocast = sums ? NYX_AUTOCAST_FLOAT32 : NYX_AUTOCAST_NONE,
                 .dtypes = row->types == FLOATS ? NYX_DTYPES_FLOAT : NYX_DTYPES_ALL,
                 .inputs = "x",
                 .min_in = 1,
                 .max_in = 1,
                 .attrs = single ? dim_attrs : dims_attrs,
                 .n_attrs = 2,
                 .n_out = single && text ? 2 : 1,
                 .infer = reduce_infer,
                 .cases = has_p    ? p_cases
                          : single ? dim_cases
                                   : dims_cases,
                 .domain = {-2, 2},
                 .row = row};
  if (has_p) {
    attrs[0] = (nyx_attr){parameters[id].name, NYX_ATTR_FLOAT, false,
                          NYX_F(parameters[id].preset), "the order of the norm"};
    memcpy(attrs + 1, dims_attrs, sizeof dims_attrs);
    op->attrs = attrs;
    op->n_attrs = 3;
  }
  if (gradient) {
    op->gradient = nyx__reduce_gradient;
    if (structural || mentions(row->gradient, 'x')) op->save_in = NYX_SAVE(0);
    if (structural || mentions(row->gradient, 'r')) op->save_out = NYX_SAVE_ALL;
    if (!op->save_in && !op->save_out) op->forward = nyx__forward_linear;
  }
  if (!gradient || structural) row->gradient = NULL;
}

int nyx__reduce_ops(const nyx_op **first) {
  static nyx_op ops[OP_COUNT];
  static nyx_attr attrs[OP_COUNT][3];
  if (!ops[0].name)
    for (int i = 0; i < OP_COUNT; i++) make_op(&ops[i], attrs[i], &rows[i], i);
  *first = ops;
  return OP_COUNT;
}

nyx_status nyx__reduce_dims(nyx_context *ctx, nyx_attr_type type, const nyx_value *dim,
                            int ndim, uint32_t *dims) {
  bool list = type == NYX_ATTR_DIMS;
  int n = !dim->given ? 0 : list ? dim->n : 1;
  *dims = n ? 0 : (1u << ndim) - 1;
  for (int i = 0; i < n; i++) {
    int64_t value = list ? dim->list[i] : dim->i;
    int d;
    NYX_TRY(nyx__dim(ctx, value, ndim, &d));
    if (ndim == 0) continue;
    if (*dims >> d & 1)
      return nyx__error(ctx, DIM_TWICE, (long long)(d + ctx->index_base));
    *dims |= 1u << d;
  }
  return NYX_OK;
}

void nyx__reduce_spec(nyx_spec *spec, nyx_dtype dtype, int ndim, const int64_t *shape,
                      uint32_t dims, bool keepdim) {
  int64_t out[NYX_MAX_DIMS];
  int n = 0;
  for (int d = 0; d < ndim; d++) {
    bool reduced = dims >> d & 1;
    if (!reduced || keepdim) out[n++] = reduced ? 1 : shape[d];
  }
  nyx__spec(spec, dtype, n, out);
}

int64_t nyx__reduce_count(int ndim, const int64_t *shape, uint32_t dims) {
  int64_t count = 1;
  for (int d = 0; d < ndim; d++)
    if (dims >> d & 1) count *= shape[d];
  return count;
}

/* The parts of a call: p, the dimensions. */
static nyx_status read_attrs(nyx_context *ctx, const nyx_op *op, const nyx_value *attr,
                             int ndim, uint32_t *dims, bool *keepdim) {
  int dim = op->n_attrs - 2;
  *keepdim = attr[dim + 1].i != 0;
  return nyx__reduce_dims(ctx, op->attrs[dim].type, &attr[dim], ndim, dims);
}

static nyx_dtype result_dtype(const nyx_reduce_row *row, nyx_dtype in) {
  switch (row->result) {
    case NYX_REDUCE_WIDE: return nyx_dtype_is_float(in) ? in : NYX_INT64;
    case NYX_REDUCE_BOOL: return NYX_BOOL;
    case NYX_REDUCE_COUNT: return NYX_INT64;
    case NYX_REDUCE_INDEX: return row->combine ? in : NYX_INT64;
    case NYX_REDUCE_SAME: break;
  }
  return in;
}

static nyx_dtype compute_dtype(const nyx_reduce_row *row, nyx_dtype in) {
  bool is_float = nyx_dtype_is_float(in);
  if (row->result == NYX_REDUCE_COUNT) return is_float ? NYX_FLOAT64 : NYX_INT64;
  if (row->result == NYX_REDUCE_WIDE && !is_float) return NYX_INT64;
  return nyx__compute_dtype(in);
}

static nyx_status reduce_infer(nyx_call *c) {
  const nyx_reduce_row *row = c->op->row;
  const nyx_tensor *x = c->in[0];
  uint32_t dims;
  bool keepdim;
  NYX_TRY(read_attrs(c->ctx, c->op, c->attr, x->ndim, &dims, &keepdim));
  bool extreme = row->result == NYX_REDUCE_INDEX || row->id == NYX__REDUCE_amin ||
                 row->id == NYX__REDUCE_amax;
  if (extreme && nyx__reduce_count(x->ndim, x->shape, dims) == 0)
    return nyx__error(c->ctx, REDUCE_EMPTY, NYX__SHAPE(x));
  nyx__reduce_spec(&c->spec[0], result_dtype(row, c->dtype), x->ndim, x->shape, dims,
                   keepdim);
  if (c->op->n_out == 2) {
    c->n_out = c->attr[c->op->n_attrs - 2].given ? 2 : 1;
    nyx__reduce_spec(&c->spec[1], NYX_INT64, x->ndim, x->shape, dims, keepdim);
  }
  return NYX_OK;
}

/* The row that computes the p-norm. */
static int norm_row(double p) {
  if (p == 2) return NYX__REDUCE_norm;
  if (p == 0) return NYX__REDUCE_norm_zero;
  if (p == 1) return NYX__REDUCE_norm_one;
  if (isinf(p)) return p > 0 ? NYX__REDUCE_norm_max : NYX__REDUCE_norm_min;
  return NYX__REDUCE_norm_any;
}

nyx_status nyx__reduce_launch(nyx_call *c) {
  const nyx_reduce_row *row = c->op->row;
  nyx_reduction job = {.row = row, .in = c->in[0]};
  bool keepdim;
  NYX_TRY(read_attrs(c->ctx, c->op, c->attr, job.in->ndim, &job.dims, &keepdim));
  if (c->out[0]->numel == 0) return NYX_OK;
  job.compute = compute_dtype(row, c->dtype);
  if (c->op->n_attrs == 3) job.attr[0] = c->attr[0].f;
  if (row->id == NYX__REDUCE_norm) job.row = &rows[norm_row(job.attr[0])];
  if (row->combine) {
    job.out = c->out[0];
    job.index = c->n_out == 2 ? c->out[1] : NULL;
  } else {
    job.index = c->out[0];
  }
  return c->device->reduce(c->ctx, c->device, &job);
}

nyx_status nyx__reduce_about(nyx_call *c, nyx__reduce_about_rows about, uint32_t dims,
                             nyx_dtype compute, double p) {
  nyx_tensor *out = c->out[0], *centre;
  nyx_device *device = c->device;
  if (out->numel == 0) return NYX_OK;
  NYX_TRY(nyx_tensor_empty_on(c->ctx, device, compute, out->ndim, out->shape, &centre));
  nyx_reduction job = {.row = &rows[about.centre],
                       .compute = compute,
                       .in = c->in[0],
                       .dims = dims,
                       .out = centre};
  nyx_status status = device->reduce(c->ctx, device, &job);
  if (status == NYX_OK) {
    job.row = &rows[about.row];
    job.centre = centre;
    job.out = out;
    job.attr[0] = p;
    status = device->reduce(c->ctx, device, &job);
  }
  nyx_tensor_release(centre);
  return status;
}

/* Writes the shape and strides of t with `dims` moved behind the others to `moved`. */
static void move_dims(const nyx_tensor *t, uint32_t dims, nyx_tensor *moved) {
  int n = 0;
  for (uint32_t last = 0; last < 2; last++) {
    for (int d = 0; d < t->ndim; d++) {
      if ((dims >> d & 1) != last) continue;
      moved->shape[n] = t->shape[d];
      moved->stride[n++] = t->stride[d];
    }
  }
}

nyx_status nyx__reduce_alias(nyx_context *ctx, const nyx_tensor *t, uint32_t dims,
                             nyx_tensor **out) {
  NYX_TRY(nyx__tensor_alias(ctx, t, out));
  move_dims(t, dims, *out);
  return NYX_OK;
}

nyx_status nyx__reduce_rows(nyx_context *ctx, nyx_tensor *t, uint32_t dims,
                            nyx_tensor **out) {
  nyx_tensor *alias;
  NYX_TRY(nyx__reduce_alias(ctx, t, dims, &alias));
  nyx_status status = nyx__contiguous(ctx, alias, out);
  nyx_tensor_release(alias);
  return status;
}

nyx_status nyx__reduce_begin(nyx_context *ctx, const nyx_tensor *t, uint32_t dims,
                             nyx_dtype compute, nyx_tensor **out) {
  nyx_tensor *alias;
  NYX_TRY(nyx__reduce_alias(ctx, t, dims, &alias));
  if (t->dtype == compute && nyx__is_contiguous(alias)) {
    *out = alias;
    return NYX_OK;
  }
  nyx_status status = nyx_tensor_empty(ctx, compute, alias->ndim, alias->shape, out);
  nyx_tensor_release(alias);
  return status;
}

/* Rows are seen with t's dimensions in their places: a copy reads across memory and
 * writes along it. */
nyx_status nyx__reduce_finish(nyx_context *ctx, nyx_tensor *from, uint32_t dims,
                              nyx_tensor *t) {
  nyx_tensor *back;
  if (from->storage == t->storage) return NYX_OK;
  NYX_TRY(nyx__tensor_alias(ctx, from, &back));
  int n = 0;
  for (uint32_t last = 0; last < 2; last++) {
    for (int d = 0; d < t->ndim; d++) {
      if ((dims >> d & 1) != last) continue;
      back->shape[d] = from->shape[n];
      back->stride[d] = from->stride[n++];
    }
  }
  nyx_status status = nyx__copy_into(ctx, back, t);
  nyx_tensor_release(back);
  return status;
}
