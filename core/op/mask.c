/* Ops over boolean masks: masked_select, masked_fill, masked_scatter, and nonzero, which
 * turns a mask into positions. */
#include <nyx/parallel.h>
#include <string.h>

#include "../device/device.h"
#include "index.h"
#include "ops.h"

enum { PIECE = 1 << 17 }; /* elements between two looks whether to stop */

static nyx_status check_mask(nyx_context *ctx, const nyx_tensor *mask) {
  if (mask->dtype == NYX_BOOL) return NYX_OK;
  return nyx__error(ctx, DTYPE_INPUT, "mask", nyx_dtype_name(mask->dtype),
                    "bool; compare first, as in x > 0");
}

/* What x and the mask broadcast to, of c->dtype. */
static nyx_status mask_spec(nyx_call *c, nyx_spec *spec) {
  nyx_tensor *x = c->in[0], *mask = c->in[1];
  NYX_TRY(check_mask(c->ctx, mask));
  spec->dtype = c->dtype;
  if (!nyx__broadcast(x->ndim, x->shape, mask->ndim, mask->shape, &spec->ndim,
                      spec->shape))
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(x), NYX__SHAPE(mask));
  int64_t numel; /* of expanded views together: what is counted below has to fit */
  if (nyx__numel(spec->ndim, spec->shape, sizeof(double), &numel)) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(c->ctx, SIZE_OVERFLOW,
                    nyx__shape_text(spec->ndim, spec->shape, text, sizeof text));
}

/* Shapes that depend on values can only be found where the values are. */
static nyx_status check_cpu(nyx_call *c) {
  if (c->device == nyx__cpu()) return NYX_OK;
  return nyx__error(c->ctx, UNSUPPORTED, nyx_device_name(c->device));
}

static int64_t count_true(const uint8_t *flags, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += flags[i] != 0;
  return count;
}

/* How many elements of `shape` the mask selects. */
static nyx_status mask_count(nyx_call *c, nyx_tensor *mask, const nyx_spec *spec,
                             int64_t *out) {
  nyx_tensor *t;
  NYX_TRY(nyx__contiguous(c->ctx, mask, &t));
  int64_t repeat = 1; /* of each flag */
  for (int d = 0; d < spec->ndim; d++) {
    int own = d - (spec->ndim - mask->ndim);
    if (own < 0 || mask->shape[own] != spec->shape[d]) repeat *= spec->shape[d];
  }
  *out = count_true(nyx__data(t), t->numel) * repeat;
  nyx_tensor_release(t);
  return NYX_OK;
}

/* masked_select */

static nyx_status masked_select_infer(nyx_call *c) {
  NYX_TRY(check_cpu(c));
  nyx_spec spec;
  NYX_TRY(mask_spec(c, &spec));
  int64_t count;
  NYX_TRY(mask_count(c, c->in[1], &spec, &count));
  nyx__spec(&c->spec[0], c->dtype, 1, &count);
  return NYX_OK;
}

/* A mask that is followed: elements are moved from `at` to `end`, of which `n` of `count`
 * selected ones came before. */
typedef struct walk {
  const void *from;
  const uint8_t *mask;
  void *to;
  int64_t at, end, n, count;
} walk;

/* Loops without branches, as masks are hard to predict: what is not selected is written
 * over. They end with the last of `count` selected elements, and so within both tensors.
 */
#define COMPRESS(T)                                                                      \
  static void compress_##T(walk *w) {                                                    \
    const T *src = w->from;                                                              \
    const uint8_t *mask = w->mask;                                                       \
    T *dst = w->to;                                                                      \
    int64_t n = w->n, count = w->count, end = w->end;                                    \
    for (int64_t i = w->at; i < end && n < count; i++) {                                 \
      dst[n] = src[i];                                                                   \
      n += mask[i] != 0;                                                                 \
    }                                                                                    \
    w->n = n;                                                                            \
  }                                                                                      \
  static void decompress_##T(walk *w) {                                                  \
    const T *src = w->from;                                                              \
    const uint8_t *mask = w->mask;                                                       \
    T *dst = w->to;                                                                      \
    int64_t n = w->n, count = w->count, end = w->end;                                    \
    for (int64_t i = w->at; i < end && n < count; i++) {                                 \
      dst[i] = mask[i] ? src[n] : dst[i];                                                \
      n += mask[i] != 0;                                                                 \
    }                                                                                    \
    w->n = n;                                                                            \
  }
COMPRESS(uint8_t)
COMPRESS(uint16_t)
COMPRESS(uint32_t)
COMPRESS(uint64_t)

static void (*walker_of(size_t item, bool compress))(walk *) {
  switch (item) {
    case 1: return compress ? compress_uint8_t : decompress_uint8_t;
    case 2: return compress ? compress_uint16_t : decompress_uint16_t;
    case 4: return compress ? compress_uint32_t : decompress_uint32_t;
    default: return compress ? compress_uint64_t : decompress_uint64_t;
  }
}

/* Walks over `size` elements, and stops when asked. */
static nyx_status follow_mask(nyx_context *ctx, walk *w, int64_t size, size_t item,
                              bool compress) {
  nyx__stop stop = {.ctx = ctx};
  void (*const step)(walk *) = walker_of(item, compress);
  for (; w->at < size && w->n < w->count && !nyx__stopped(&stop); w->at = w->end) {
    w->end = size - w->at < PIECE ? size : w->at + PIECE;
    step(w);
  }
  return nyx__stop_status(&stop);
}

static nyx_status masked_select_cpu(nyx_call *c) {
  nyx_spec spec;
  NYX_TRY(mask_spec(c, &spec));
  nyx_tensor *x, *mask = NULL;
  NYX_TRY(nyx__expanded_as(c->ctx, c->in[0], c->dtype, spec.ndim, spec.shape, &x));
  nyx_status status =
      nyx__expanded_as(c->ctx, c->in[1], NYX_BOOL, spec.ndim, spec.shape, &mask);
  if (status == NYX_OK) {
    walk w = {.from = nyx__data(x),
              .mask = nyx__data(mask),
              .to = nyx__data(c->out[0]),
              .count = c->out[0]->numel};
    status = follow_mask(c->ctx, &w, x->numel, nyx_dtype_size(c->dtype), true);
  }
  nyx_tensor_release(mask);
  nyx_tensor_release(x);
  return status;
}

/* The gradient, put back at the places the mask selects, then summed over what was
 * broadcast. */
static nyx_status masked_select_gradient(nyx_backward *b) {
  nyx_tensor *mask = b->in[1], *zeros = NULL, *put = NULL;
  nyx_spec spec = {.dtype = b->in_spec[0].dtype};
  nyx__broadcast(b->in_spec[0].ndim, b->in_spec[0].shape, mask->ndim, mask->shape,
                 &spec.ndim, spec.shape);
  nyx_status status = nyx__zeros(b->ctx, b->grad_out[0], &spec, &zeros);
  if (status == NYX_OK)
    status = nyx__applyn(b->ctx, NYX__OP_masked_scatter,
                         (nyx_tensor *[]){zeros, mask, b->grad_out[0]}, 3, NULL, &put);
  if (status == NYX_OK) status = nyx__sum_to(b->ctx, put, &b->in_spec[0], &b->grad_in[0]);
  nyx_tensor_release(zeros);
  nyx_tensor_release(put);
  return status;
}

const nyx_op nyx__op_masked_select = {
    .name = "masked_select",
    .group = "indexing",
    .doc =
        "The elements of x where the mask is true, in one dimension, row by row. x and "
        "mask broadcast.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x mask",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .by_value = true,
    .n_out = 1,
    .infer = masked_select_infer,
    .cpu = masked_select_cpu,
    .gradient = masked_select_gradient,
    .forward = nyx__forward_linear,
    .save_in = NYX_SAVE(1),
    .cases = "x(3,4) mask(3,4)<bool\nx(4) mask(3,4)<bool\nx(3,4) mask(4)<bool",
    .domain = {-4, 4},
};

/* masked_fill */

static nyx_status masked_fill_infer(nyx_call *c) {
  int64_t value;
  NYX_TRY(nyx__value_store(c->ctx, "value", c->attr[0].f, c->dtype, &value));
  return mask_spec(c, &c->spec[0]);
}

typedef struct fill_job {
  const uint8_t *mask;
  void *to;
  int64_t value;
  size_t item;
} fill_job;

#define FILL(T)                                                                          \
  {                                                                                      \
    T *restrict to = j->to, value;                                                       \
    const uint8_t *restrict mask = j->mask;                                              \
    memcpy(&value, &j->value, sizeof value);                                             \
    for (int64_t i = begin; i < end; i++) to[i] = mask[i] ? value : to[i];               \
  }

static void fill_range(void *arg, int64_t begin, int64_t end) {
  const fill_job *j = arg;
  switch (j->item) {
    case 1: FILL(uint8_t) break;
    case 2: FILL(uint16_t) break;
    case 4: FILL(uint32_t) break;
    default: FILL(uint64_t) break;
  }
}

/* The mask, expanded to out's shape. */
static nyx_status wide_mask(nyx_call *c, nyx_tensor **mask) {
  const nyx_tensor *out = c->out[0];
  nyx_tensor *wide;
  *mask = NULL;
  NYX_TRY(nyx__expanded(c->ctx, c->in[1], out->ndim, out->shape, &wide));
  nyx_status status = nyx__apart_as(c->ctx, wide, NYX_BOOL, out, mask);
  nyx_tensor_release(wide);
  return status;
}

static nyx_status masked_fill_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *mask, *work;
  NYX_TRY(wide_mask(c, &mask));
  fill_job j = {.mask = nyx__data(mask), .item = nyx_dtype_size(out->dtype)};
  nyx_status status =
      nyx__value_store(c->ctx, "value", c->attr[0].f, out->dtype, &j.value);
  if (status == NYX_OK) status = nyx__update_begin(c->ctx, out, false, &work);
  if (status == NYX_OK) {
    j.to = nyx__data(work);
    status = nyx__parallel_for(c->ctx, out->numel, 1 << 15, fill_range, &j);
    status = nyx__update_end(c->ctx, work, out, status);
  }
  nyx_tensor_release(mask);
  return status;
}

static nyx_status masked_fill_gradient(nyx_backward *b) {
  nyx_value zero = NYX_F(0);
  nyx_tensor *g;
  NYX_TRY(nyx__apply2(b->ctx, NYX__OP_masked_fill, b->grad_out[0], b->in[1], &zero, &g));
  nyx_status status = nyx__sum_to(b->ctx, g, &b->in_spec[0], &b->grad_in[0]);
  nyx_tensor_release(g);
  return status;
}

static const nyx_attr masked_fill_attrs[] = {
    {"value", NYX_ATTR_FLOAT, true, {.given = false}, "written where the mask is true"}};

const nyx_op nyx__op_masked_fill = {
    .name = "masked_fill",
    .group = "indexing",
    .doc = "x with `value` where the mask is true. x and mask broadcast.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x mask",
    .min_in = 2,
    .max_in = 2,
    .updates = true,
    .index_in = NYX_SAVE(1),
    .attrs = masked_fill_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = masked_fill_infer,
    .cpu = masked_fill_cpu,
    .gradient = masked_fill_gradient,
    .save_in = NYX_SAVE(1),
    .batch = nyx__batch_aligned,
    .cases =
        "x(3,4) mask(3,4)<bool; value=2\nx(4) mask(3,4)<bool; value=-1\n"
        "x(3,4) mask(4)<bool; value=0",
    .domain = {-4, 4},
};

/* masked_scatter */

static nyx_status masked_scatter_infer(nyx_call *c) {
  NYX_TRY(check_cpu(c));
  NYX_TRY(mask_spec(c, &c->spec[0]));
  int64_t count;
  NYX_TRY(mask_count(c, c->in[1], &c->spec[0], &count));
  int64_t own = c->in[2]->numel;
  if (count > own || (count < own && c->attr[0].i))
    return nyx__error(c->ctx, MASK_COUNT, (long long)count, "source", (long long)own,
                      c->attr[0].i ? "as many" : "as many or more");
  return NYX_OK;
}

static nyx_status masked_scatter_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *mask, *source = NULL, *work;
  NYX_TRY(wide_mask(c, &mask));
  nyx_status status = nyx__apart_as(c->ctx, c->in[2], out->dtype, out, &source);
  if (status == NYX_OK) status = nyx__update_begin(c->ctx, out, false, &work);
  if (status == NYX_OK) {
    const uint8_t *flags = nyx__data(mask);
    walk w = {.from = nyx__data(source),
              .mask = flags,
              .to = nyx__data(work),
              .count = count_true(flags, mask->numel)};
    status = follow_mask(c->ctx, &w, mask->numel, nyx_dtype_size(out->dtype), false);
    status = nyx__update_end(c->ctx, work, out, status);
  }
  nyx_tensor_release(source);
  nyx_tensor_release(mask);
  return status;
}

static nyx_status masked_scatter_gradient(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *g = b->grad_out[0], *mask = b->in[1];
  if (b->need[0]) {
    nyx_value zero = NYX_F(0);
    nyx_tensor *rest;
    NYX_TRY(nyx__apply2(ctx, NYX__OP_masked_fill, g, mask, &zero, &rest));
    nyx_status status = nyx__sum_to(ctx, rest, &b->in_spec[0], &b->grad_in[0]);
    nyx_tensor_release(rest);
    NYX_TRY(status);
  }
  if (!b->need[2]) return NYX_OK;
  const nyx_spec *source = &b->in_spec[2];
  int64_t numel = 1;
  for (int d = 0; d < source->ndim; d++) numel *= source->shape[d];
  nyx_spec line;
  nyx__spec(&line, source->dtype, 1, &numel);
  nyx_value shape = NYX_LIST(source->shape, source->ndim);
  nyx_tensor *taken = NULL, *all = NULL;
  nyx_status status = nyx__apply2(ctx, NYX__OP_masked_select, g, mask, NULL, &taken);
  if (status == NYX_OK) status = nyx__grow_to(ctx, taken, &line, &all);
  if (status == NYX_OK)
    status = nyx__apply1(ctx, NYX__OP_reshape, all, &shape, &b->grad_in[2]);
  nyx_tensor_release(taken);
  nyx_tensor_release(all);
  return status;
}

static const nyx_attr masked_scatter_attrs[] = {
    {"exact", NYX_ATTR_BOOL, false, NYX_I(false),
     "source may have no more elements than the mask selects"}};

const nyx_op nyx__op_masked_scatter = {
    .name = "masked_scatter",
    .group = "indexing",
    .doc =
        "x with the elements of `source`, in order, where the mask is true. x and mask "
        "broadcast; source needs as many elements as the mask selects.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x mask source",
    .min_in = 3,
    .max_in = 3,
    .updates = true,
    .index_in = NYX_SAVE(1),
    .attrs = masked_scatter_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = masked_scatter_infer,
    .cpu = masked_scatter_cpu,
    .gradient = masked_scatter_gradient,
    .forward = nyx__forward_linear,
    .save_in = NYX_SAVE(1),
    .cases = "x(3,4) mask(3,4)<bool source(3,5)\nx(4) mask(3,4)<bool source(12)",
    .domain = {-4, 4},
};

/* nonzero */

static nyx_status nonzero_infer(nyx_call *c) {
  NYX_TRY(check_cpu(c));
  nyx_tensor *flags;
  NYX_TRY(nyx__contiguous_as(c->ctx, c->in[0], NYX_BOOL, &flags));
  int64_t shape[2] = {count_true(nyx__data(flags), flags->numel), c->in[0]->ndim};
  nyx_tensor_release(flags);
  nyx__spec(&c->spec[0], NYX_INT64, 2, shape);
  return NYX_OK;
}

/* Positions of the true ones of n flags of a row, the first of which is at `at`, from
 * `to` on and no further than `end`. Without branches, as masks are hard to predict, but
 * for eight flags that are all false. */
static int64_t *row_positions(const uint8_t *flag, int64_t n, int ndim, const int64_t *at,
                              int64_t base, int64_t *to, const int64_t *end) {
  const int64_t first = at[ndim - 1] + base;
  for (int64_t j = 0; j < n && to < end;) {
    uint64_t eight = 1;
    if (n - j >= 8) memcpy(&eight, flag + j, sizeof eight);
    int64_t stop = n - j >= 8 ? j + 8 : n;
    if (eight == 0) {
      j = stop;
      continue;
    }
    for (; j < stop && to < end; j++) {
      for (int d = 0; d < ndim - 1; d++) to[d] = at[d] + base;
      to[ndim - 1] = first + j;
      to += ndim & -(int64_t)(flag[j] != 0);
    }
  }
  return to;
}

static nyx_status nonzero_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0], *flags;
  if (c->out[0]->numel == 0) return NYX_OK;
  NYX_TRY(nyx__contiguous_as(c->ctx, x, NYX_BOOL, &flags));
  const uint8_t *flag = nyx__data(flags);
  int64_t *to = nyx__data(c->out[0]), at[NYX_MAX_DIMS] = {0};
  const int64_t *end = to + c->out[0]->numel;
  int last = x->ndim - 1;
  int64_t row = x->shape[last], looked = PIECE; /* elements since */
  nyx_status status = NYX_OK;
  for (int64_t i = 0, n; i < x->numel; i += n) {
    n = row - at[last] < PIECE ? row - at[last] : PIECE;
    if ((looked += n) > PIECE && (looked = 0, nyx__interrupted(c->ctx))) {
      status = nyx__error(c->ctx, INTERRUPTED);
      break;
    }
    to = row_positions(flag + i, n, last + 1, at, c->ctx->index_base, to, end);
    at[last] += n;
    for (int d = last; d > 0 && at[d] == x->shape[d]; d--) at[d] = 0, at[d - 1]++;
  }
  nyx_tensor_release(flags);
  return status;
}

const nyx_op nyx__op_nonzero = {
    .name = "nonzero",
    .group = "indexing",
    .doc =
        "The positions of the elements that are not zero, one row of int64 for each, in "
        "row-major order: shape (count, dimensions of x).",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .by_value = true,
    .n_out = 1,
    .infer = nonzero_infer,
    .cpu = nonzero_cpu,
    .cases = "x(3,4)\nx(5)\nx()",
    .domain = {-4, 4},
};
