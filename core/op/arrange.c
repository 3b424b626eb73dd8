/* Arranging elements anew: flip, roll, tile, repeat_interleave, tril and triu, one_hot.
 * Read next: remap.h. */
#include <nyx/parallel.h>
#include <string.h>

#include "../device/device.h"
#include "index.h"
#include "ops.h"
#include "remap.h"

/* Sums g, of shape (outer, a, b, inner), over a (first) or b and gives it shape `shape`,
 * of n sizes. */
static nyx_status fold(nyx_context *ctx, nyx_tensor *g, const int64_t four[4], bool first,
                       int n, const int64_t *shape, nyx_tensor **out) {
  nyx_tensor *parts, *sum = NULL;
  nyx_spec spec;
  nyx__spec(&spec, g->dtype, 4, four);
  spec.shape[first ? 1 : 2] = 1;
  nyx_value split = NYX_LIST(four, 4), joined = NYX_LIST(shape, n);
  NYX_TRY(nyx__apply1(ctx, NYX__OP_reshape, g, &split, &parts));
  nyx_status status = nyx__sum_to(ctx, parts, &spec, &sum);
  if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_reshape, sum, &joined, out);
  nyx_tensor_release(sum);
  nyx_tensor_release(parts);
  return status;
}

static int64_t product(const int64_t *shape, int begin, int end) {
  int64_t n = 1;
  for (int d = begin; d < end; d++) n *= shape[d];
  return n;
}

/* flip */

/* The dimensions listed, as a bit set. */
static nyx_status read_dims(nyx_context *ctx, const nyx_value *list, int ndim,
                            uint32_t *dims) {
  *dims = 0;
  for (int i = 0; i < list->n; i++) {
    int d;
    NYX_TRY(nyx__dim(ctx, list->list[i], ndim, &d));
    if (ndim) *dims |= 1u << d;
  }
  return NYX_OK;
}

static nyx_status flip_infer(nyx_call *c) {
  uint32_t dims;
  NYX_TRY(read_dims(c->ctx, &c->attr[0], c->in[0]->ndim, &dims));
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  nyx__spec_keep(&c->spec[0], c->in[0]);
  return NYX_OK;
}

/* A copy of x as it lies the other way round: its last element first, steps backwards. */
static nyx_status flip_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0], *back;
  if (x->numel == 0) return NYX_OK;
  uint32_t dims;
  nyx_spec spec;
  NYX_TRY(read_dims(c->ctx, &c->attr[0], x->ndim, &dims));
  nyx__spec_of(x, &spec);
  for (int d = 0; d < x->ndim; d++) {
    if (!(dims >> d & 1)) continue;
    spec.offset += (x->shape[d] - 1) * x->stride[d];
    spec.stride[d] = -x->stride[d];
  }
  NYX_TRY(nyx__tensor_view(c->ctx, x->storage, &spec, &back));
  nyx_status status = nyx__copy_fresh(c->ctx, back, c->out[0]);
  nyx_tensor_release(back);
  return status;
}

static nyx_status flip_gradient(nyx_backward *b) {
  nyx_tensor *g;
  NYX_TRY(nyx__layout_of(b->ctx, b->grad_out[0], &b->out_spec[0], &g));
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_flip, g, b->attr, &b->grad_in[0]);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr flip_attrs[] = {
    {"dims", NYX_ATTR_DIMS, true, {.given = false}, "the dimensions to reverse"}};

const nyx_op nyx__op_flip = {
    .name = "flip",
    .group = "shape",
    .doc = "x with the order of the elements reversed along `dims`; a copy.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = flip_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = flip_infer,
    .cpu = flip_cpu,
    .gradient = flip_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(3,4); dims={1}\nx(2,3,4); dims={-1,1}",
    .domain = {-4, 4},
};

/* roll */

static nyx_status roll_infer(nyx_call *c) {
  const nyx_value *shifts = &c->attr[0], *dims = &c->attr[1];
  uint32_t ignored;
  if (dims->given) NYX_TRY(read_dims(c->ctx, dims, c->in[0]->ndim, &ignored));
  if (shifts->n != (dims->given ? dims->n : 1))
    return nyx__error(c->ctx, ATTR_COUNT, "shifts", shifts->n,
                      "one for each of dims, or a single one without dims");
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  if (dims->given) nyx__spec_images(&c->spec[0], c->in[0]);
  return NYX_OK;
}

/* Adds the effect of one shift to a table of positions. */
static void roll_table(int64_t *from, int64_t size, int64_t shift) {
  shift = (shift % size + size) % size;
  for (int64_t i = 0; i < size; i++)
    from[i] = from[i] >= shift ? from[i] - shift : from[i] - shift + size;
}

static nyx_status roll_cpu(nyx_call *c) {
  const nyx_value *shifts = &c->attr[0], *list = &c->attr[1];
  nyx_tensor *x;
  uint32_t dims = 1;
  if (c->in[0]->numel == 0) return NYX_OK;
  if (list->given) NYX_TRY(read_dims(c->ctx, list, c->in[0]->ndim, &dims));
  if (list->given) {
    x = nyx_tensor_retain(c->in[0]);
  } else { /* all elements as one row */
    nyx_tensor *plain;
    NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &plain));
    nyx_spec row = {.dtype = plain->dtype,
                    .ndim = 1,
                    .shape = {plain->numel},
                    .stride = {1},
                    .offset = plain->offset};
    nyx_status view = nyx__tensor_view(c->ctx, plain->storage, &row, &x);
    nyx_tensor_release(plain);
    NYX_TRY(view);
  }
  nyx__remap map;
  nyx_status status = nyx__remap_open(c->ctx, x->ndim, x->shape, dims, &map);
  if (status == NYX_OK) {
    for (int d = 0; d < x->ndim; d++)
      for (int64_t i = 0; map.from[d] && i < x->shape[d]; i++) map.from[d][i] = i;
    for (int i = 0; i < shifts->n && x->ndim; i++) {
      int d = 0;
      if (list->given && nyx__dim(c->ctx, list->list[i], x->ndim, &d) != NYX_OK) continue;
      roll_table(map.from[d], x->shape[d], shifts->list[i]);
    }
    status = nyx__remap_copy(c->ctx, &map, x, c->out[0], NULL);
    nyx__remap_close(&map);
  }
  nyx_tensor_release(x);
  return status;
}

static nyx_status roll_gradient(nyx_backward *b) {
  const nyx_spec *x = &b->in_spec[0];
  int n = b->attr[0].n;
  int64_t *back = nyx_memory_alloc((size_t)n * sizeof *back);
  if (!back) return nyx__no_memory(b->ctx, (size_t)n * sizeof *back);
  for (int i = 0; i < n; i++) {
    int64_t size = product(x->shape, 0, x->ndim);
    int d = 0;
    if (b->attr[1].given && nyx__dim(b->ctx, b->attr[1].list[i], x->ndim, &d) == NYX_OK &&
        x->ndim)
      size = x->shape[d];
    back[i] = size ? -(b->attr[0].list[i] % size) : 0;
  }
  nyx_value attrs[] = {NYX_LIST(back, n), b->attr[1]};
  nyx_tensor *g;
  nyx_status status = nyx__layout_of(b->ctx, b->grad_out[0], &b->out_spec[0], &g);
  if (status == NYX_OK) {
    status = nyx__apply1(b->ctx, NYX__OP_roll, g, attrs, &b->grad_in[0]);
    nyx_tensor_release(g);
  }
  nyx_memory_free(back);
  return status;
}

static const nyx_attr roll_attrs[] = {
    {"shifts", NYX_ATTR_INTS, true, {.given = false}, "how far, one for each of dims"},
    {"dims",
     NYX_ATTR_DIMS,
     false,
     {.given = false},
     "the dimensions to roll; all elements as one row when left out"}};

const nyx_op nyx__op_roll = {
    .name = "roll",
    .group = "shape",
    .doc =
        "x with its elements moved on by `shifts` along `dims`; what leaves at the end "
        "comes back at the start.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = roll_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = roll_infer,
    .cpu = roll_cpu,
    .gradient = roll_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases =
        "x(3,4); shifts={1} dims={2}\nx(3,4); shifts={5}\n"
        "x(2,3,4); shifts={-1,6} dims={1,-1}",
    .domain = {-4, 4},
};

/* tile */

/* Shape of x with sizes of 1 in front, up to as many dimensions as there are repeats; and
 * the repeats of each. */
typedef struct tiling {
  int ndim;
  int64_t size[NYX_MAX_DIMS], repeat[NYX_MAX_DIMS], shape[NYX_MAX_DIMS];
} tiling;

static nyx_status read_tiling(nyx_context *ctx, const nyx_value *repeats, int ndim,
                              const int64_t *size, tiling *t) {
  t->ndim = repeats->n > ndim ? repeats->n : ndim;
  if (t->ndim > NYX_MAX_DIMS) return nyx__error(ctx, NDIM_RANGE, t->ndim, NYX_MAX_DIMS);
  for (int d = 0; d < t->ndim; d++) {
    int own = d - (t->ndim - ndim), k = d - (t->ndim - repeats->n);
    t->size[d] = own < 0 ? 1 : size[own];
    t->repeat[d] = k < 0 ? 1 : repeats->list[k];
    if (t->repeat[d] < 0)
      return nyx__error(ctx, ATTR_RANGE, "repeats", (long long)t->repeat[d],
                        "counts of at least 0");
    if (__builtin_mul_overflow(t->size[d], t->repeat[d], &t->shape[d]))
      return nyx__error(ctx, REPEATS, (long long)t->repeat[d], (long long)t->size[d]);
  }
  return NYX_OK;
}

static nyx_status tile_infer(nyx_call *c) {
  tiling t;
  NYX_TRY(read_tiling(c->ctx, &c->attr[0], c->in[0]->ndim, c->in[0]->shape, &t));
  nyx__spec(&c->spec[0], c->dtype, t.ndim, t.shape);
  return NYX_OK;
}

static nyx_status tile_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0], *wide;
  if (c->out[0]->numel == 0) return NYX_OK;
  tiling t;
  NYX_TRY(read_tiling(c->ctx, &c->attr[0], x->ndim, x->shape, &t));
  NYX_TRY(nyx__expanded(c->ctx, x, t.ndim, t.size, &wide));
  uint32_t dims = 0;
  for (int d = 0; d < t.ndim; d++)
    if (t.repeat[d] != 1) dims |= 1u << d;
  nyx__remap map;
  nyx_status status = nyx__remap_open(c->ctx, t.ndim, t.shape, dims, &map);
  if (status == NYX_OK) {
    for (int d = 0; d < t.ndim; d++)
      for (int64_t i = 0; map.from[d] && i < t.shape[d]; i++)
        map.from[d][i] = i % t.size[d];
    status = nyx__remap_copy(c->ctx, &map, wide, c->out[0], NULL);
    nyx__remap_close(&map);
  }
  nyx_tensor_release(wide);
  return status;
}

/* Sums the copies, one dimension after the other. */
static nyx_status tile_gradient(nyx_backward *b) {
  const nyx_spec *x = &b->in_spec[0];
  tiling t;
  NYX_TRY(read_tiling(b->ctx, &b->attr[0], x->ndim, x->shape, &t));
  if (product(t.shape, 0, t.ndim) == 0) return NYX_OK;
  nyx_tensor *g = nyx_tensor_retain(b->grad_out[0]);
  for (int d = 0; d < t.ndim; d++) {
    if (t.repeat[d] == 1) continue;
    int64_t four[4] = {product(t.shape, 0, d), t.repeat[d], t.size[d],
                       product(t.shape, d + 1, t.ndim)};
    nyx_tensor *next = NULL;
    t.shape[d] = t.size[d];
    nyx_status status = fold(b->ctx, g, four, true, t.ndim, t.shape, &next);
    nyx_tensor_release(g);
    NYX_TRY(status);
    g = next;
  }
  nyx_value shape = NYX_LIST(x->shape, x->ndim);
  nyx_status status = nyx__apply1(b->ctx, NYX__OP_reshape, g, &shape, &b->grad_in[0]);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr tile_attrs[] = {
    {"repeats",
     NYX_ATTR_INTS,
     true,
     {.given = false},
     "how often along each dimension; counted from the last"}};

const nyx_op nyx__op_tile = {
    .name = "tile",
    .group = "shape",
    .doc =
        "x repeated along its dimensions; more repeats than dimensions add dimensions "
        "in front.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = tile_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = tile_infer,
    .cpu = tile_cpu,
    .gradient = tile_gradient,
    .forward = nyx__forward_linear,
    .cases = "x(3,4); repeats={2,3}\nx(2,3); repeats={2,1,2}\nx(2,3,2); repeats={3,1}",
    .domain = {-4, 4},
};

/* repeat_interleave */

/* The shape of x, or of all its elements as one row when `dim` is left out. */
static nyx_status interleaved(nyx_context *ctx, const nyx_value *attr, int ndim,
                              const int64_t *shape, nyx_spec *spec, int *dim) {
  *dim = 0;
  if (attr[0].i < 0)
    return nyx__error(ctx, ATTR_RANGE, "repeats", (long long)attr[0].i, "at least 0");
  if (attr[1].given) {
    NYX_TRY(nyx__dim(ctx, attr[1].i, ndim, dim));
    spec->ndim = ndim;
    for (int d = 0; d < ndim; d++) spec->shape[d] = shape[d];
  }
  if (!attr[1].given || ndim == 0) {
    spec->ndim = 1;
    spec->shape[0] = product(shape, 0, ndim);
  }
  return NYX_OK;
}

static nyx_status repeat_interleave_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  nyx_spec *spec = &c->spec[0];
  int dim;
  NYX_TRY(interleaved(c->ctx, c->attr, x->ndim, x->shape, spec, &dim));
  spec->dtype = c->dtype;
  int64_t size = spec->shape[dim];
  if (__builtin_mul_overflow(size, c->attr[0].i, &spec->shape[dim]))
    return nyx__error(c->ctx, REPEATS, (long long)c->attr[0].i, (long long)size);
  return NYX_OK;
}

static nyx_status repeat_interleave_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *x = c->in[0], *plain;
  if (out->numel == 0) return NYX_OK;
  nyx_spec spec = {.dtype = x->dtype};
  int dim;
  NYX_TRY(interleaved(c->ctx, c->attr, x->ndim, x->shape, &spec, &dim));
  NYX_TRY(nyx__contiguous(c->ctx, x, &plain));
  nyx__strides(spec.ndim, spec.shape, spec.stride);
  spec.offset = plain->offset;
  nyx_tensor *source;
  nyx_status status = nyx__tensor_view(c->ctx, plain->storage, &spec, &source);
  nyx_tensor_release(plain);
  NYX_TRY(status);
  nyx__remap map;
  status = nyx__remap_open(c->ctx, out->ndim, out->shape, 1u << dim, &map);
  if (status == NYX_OK) {
    for (int64_t i = 0; i < out->shape[dim]; i++) map.from[dim][i] = i / c->attr[0].i;
    status = nyx__remap_copy(c->ctx, &map, source, out, NULL);
    nyx__remap_close(&map);
  }
  nyx_tensor_release(source);
  return status;
}

static nyx_status repeat_interleave_gradient(nyx_backward *b) {
  const nyx_spec *x = &b->in_spec[0];
  nyx_spec spec = {.ndim = 0};
  int dim;
  NYX_TRY(interleaved(b->ctx, b->attr, x->ndim, x->shape, &spec, &dim));
  if (b->attr[0].i == 0) return NYX_OK;
  int64_t four[4] = {product(spec.shape, 0, dim), spec.shape[dim], b->attr[0].i,
                     product(spec.shape, dim + 1, spec.ndim)};
  return fold(b->ctx, b->grad_out[0], four, false, x->ndim, x->shape, &b->grad_in[0]);
}

static const nyx_attr repeat_interleave_attrs[] = {
    {"repeats", NYX_ATTR_INT, true, {.given = false}, "how often each element comes"},
    {"dim",
     NYX_ATTR_DIM,
     false,
     {.given = false},
     "the dimension; all elements as one row when left out"}};

const nyx_op nyx__op_repeat_interleave = {
    .name = "repeat_interleave",
    .group = "shape",
    .doc =
        "x with every element (or slice along `dim`) repeated, the copies side by side.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = repeat_interleave_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = repeat_interleave_infer,
    .cpu = repeat_interleave_cpu,
    .gradient = repeat_interleave_gradient,
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases = "x(3,4); repeats=2\nx(3,4); repeats=3 dim=1\nx(2,3,4); repeats=2 dim=-1",
    .domain = {-4, 4},
};

/* tril, triu */

typedef struct triangle_job {
  const char *from;
  char *to;
  size_t item;
  int64_t rows, columns, diagonal;
  bool upper;
} triangle_job;

static void triangle_range(void *arg, int64_t begin, int64_t end) {
  const triangle_job *j = arg;
  size_t line = (size_t)j->columns * j->item;
  for (int64_t r = begin; r < end; r++) {
    int64_t cut = r % j->rows + j->diagonal + (j->upper ? 0 : 1);
    if (cut < 0) cut = 0;
    if (cut > j->columns) cut = j->columns;
    size_t left = (size_t)cut * j->item;
    const char *from = j->from + (size_t)r * line;
    char *to = j->to + (size_t)r * line;
    if (j->upper) {
      memset(to, 0, left);
      memcpy(to + left, from + left, line - left);
    } else {
      memcpy(to, from, left);
      memset(to + left, 0, line - left);
    }
  }
}

static nyx_status triangle_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  if (x->ndim < 2)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x), "at least 2 dimensions");
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

static nyx_status triangle_cpu(nyx_call *c) {
  nyx_tensor *x;
  if (c->out[0]->numel == 0) return NYX_OK;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  triangle_job j = {.from = nyx__data(x),
                    .to = nyx__data(c->out[0]),
                    .item = nyx_dtype_size(x->dtype),
                    .rows = x->shape[x->ndim - 2],
                    .columns = x->shape[x->ndim - 1],
                    .diagonal = c->attr[0].i,
                    .upper = c->op == &nyx__op_triu};
  if (j.diagonal < -j.rows) j.diagonal = -j.rows;
  if (j.diagonal > j.columns) j.diagonal = j.columns;
  nyx_parallel_for(x->numel / j.columns, (1 << 14) / j.columns + 1, triangle_range, &j);
  nyx_tensor_release(x);
  return NYX_OK;
}

static nyx_status triangle_gradient(nyx_backward *b) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(nyx_apply(b->ctx, b->op, &b->grad_out[0], 1, b->attr, out));
  b->grad_in[0] = out[0];
  return NYX_OK;
}

static const nyx_attr triangle_attrs[] = {
    {"diagonal",
     NYX_ATTR_INT,
     false,
     {.i = 0, .given = true},
     "where to cut: 0 the main diagonal, above it positive, below it negative"}};

#define TRIANGLE(which, text)                                                            \
  {                                                                                      \
    .name = which, .group = "shape", .doc = text, .kind = NYX_OP_STRUCTURAL,             \
    .dtypes = NYX_DTYPES_ALL, .inputs = "x", .min_in = 1, .max_in = 1,                   \
    .attrs = triangle_attrs, .n_attrs = 1, .n_out = 1, .infer = triangle_infer,          \
    .cpu = triangle_cpu, .gradient = triangle_gradient, .forward = nyx__forward_linear,  \
    .batch = nyx__batch_leading,                                                         \
    .cases = "x(3,4)\nx(4,3); diagonal=1\nx(2,3,3); diagonal=-1", .domain = {-4, 4},     \
  }

const nyx_op nyx__op_tril =
    TRIANGLE("tril", "The lower triangle of the last two dimensions, zeros above it.");
const nyx_op nyx__op_triu =
    TRIANGLE("triu", "The upper triangle of the last two dimensions, zeros below it.");

/* one_hot */

static nyx_status one_hot_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  int64_t classes = c->attr[0].i;
  NYX_TRY(nyx__index_check(c->ctx, "x", x));
  if (x->ndim == NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, x->ndim + 1, NYX_MAX_DIMS);
  if (classes == -1 && c->device != nyx__cpu())
    return nyx__error(c->ctx, UNSUPPORTED, nyx_device_name(c->device));
  if (classes == -1 && x->numel > 0) {
    int64_t *at;
    nyx__range range = {.size = INT64_MAX, .dim = x->ndim};
    NYX_TRY(nyx__positions(c->ctx, x, range, &at));
    for (int64_t i = 0; i < x->numel; i++)
      if (at[i] >= classes) classes = at[i] + 1;
    nyx_memory_free(at);
  }
  if (classes < 1)
    return nyx__error(c->ctx, ATTR_RANGE, "num_classes", (long long)classes,
                      "at least 1");
  nyx__spec(&c->spec[0], NYX_INT64, x->ndim, x->shape);
  c->spec[0].shape[c->spec[0].ndim++] = classes;
  return NYX_OK;
}

static nyx_status one_hot_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0];
  int64_t *at, *to = nyx__data(out), classes = out->shape[out->ndim - 1];
  nyx__range range = {.size = classes, .dim = out->ndim - 1};
  NYX_TRY(nyx__positions(c->ctx, c->in[0], range, &at));
  memset(to, 0, (size_t)out->numel * sizeof *to);
  for (int64_t i = 0; i < c->in[0]->numel; i++) to[i * classes + at[i]] = 1;
  nyx_memory_free(at);
  return NYX_OK;
}

static const nyx_attr one_hot_attrs[] = {
    {"num_classes",
     NYX_ATTR_INT,
     false,
     {.i = -1, .given = true},
     "the size of the new dimension; -1: the largest label"}};

const nyx_op nyx__op_one_hot = {
    .name = "one_hot",
    .group = "indexing",
    .doc =
        "A new last dimension that is 1 at the position x names and 0 elsewhere; int64.",
    .kind = NYX_OP_STRUCTURAL,
    .inputs = "x",
    .dtypes = NYX_DTYPES_ALL,
    .min_in = 1,
    .max_in = 1,
    .index_in = NYX_SAVE(0),
    .attrs = one_hot_attrs,
    .n_attrs = 1,
    .by_value = true,
    .n_out = 1,
    .infer = one_hot_infer,
    .cpu = one_hot_cpu,
    .batch = nyx__batch_leading,
    .cases = "x(2,3)<4; num_classes=4\nx(5)<3",
    .domain = {-4, 4},
};
