/* Ops that order elements: sort, argsort, topk, unique, searchsorted. The order and the
 * algorithms are in order.c. */
#include <string.h>

#include "../device/device.h"
#include "index.h"
#include "ops.h"
#include "order.h"

/* Rows along one dimension, sorted in parallel. */
typedef struct row_job {
  const nyx_tensor *x, *values, *indices; /* values may be NULL */
  int dim;
  int64_t n, k;  /* elements of a row, of the result */
  int64_t inner; /* rows (o, i) of the results begin at o * k * inner + i */
  bool down;
  int64_t base;
  atomic_bool no_memory;
} row_job;

/* The offset in x of row `row`, where the last dimension but `dim` counts fastest. */
static int64_t row_start(const nyx_tensor *x, int dim, int64_t row) {
  int64_t offset = 0;
  for (int d = x->ndim - 1; d >= 0; d--) {
    if (d == dim) continue;
    offset += row % x->shape[d] * x->stride[d];
    row /= x->shape[d];
  }
  return offset;
}

static void pick(size_t item, const char *from, int64_t stride, const int64_t *at,
                 int64_t n, char *to, int64_t to_stride) {
#define PICK(T)                                                                          \
  for (int64_t i = 0; i < n; i++)                                                        \
  ((T *)(void *)to)[i * to_stride] = ((const T *)(const void *)from)[at[i] * stride]
  switch (item) {
    case 1: PICK(uint8_t); break;
    case 2: PICK(uint16_t); break;
    case 4: PICK(uint32_t); break;
    default: PICK(uint64_t); break;
  }
}

static void row_range(void *arg, int64_t begin, int64_t end) {
  row_job *j = arg;
  const nyx_tensor *x = j->x;
  void *scratch = nyx_memory_alloc(nyx__order_scratch(x->dtype, j->n));
  if (!scratch) {
    atomic_store(&j->no_memory, true);
    return;
  }
  size_t item = nyx_dtype_size(x->dtype);
  int64_t stride = x->ndim ? x->stride[j->dim] : 1;
  for (int64_t row = begin; row < end; row++) {
    const char *from =
        (const char *)nyx__data(x) + row_start(x, j->dim, row) * (int64_t)item;
    int64_t to = row / j->inner * j->k * j->inner + row % j->inner;
    const int64_t *at =
        nyx__order_top(x->dtype, from, stride, j->n, j->k, j->down, scratch);
    if (j->values)
      pick(item, from, stride, at, j->k, (char *)nyx__data(j->values) + (size_t)to * item,
           j->inner);
    int64_t *index = (int64_t *)nyx__data(j->indices) + to;
    for (int64_t i = 0; i < j->k; i++) index[i * j->inner] = at[i] + j->base;
  }
  nyx_memory_free(scratch);
}

/* Writes the first k of every row along `dim`. */
static nyx_status order_rows(nyx_call *c, int dim, int64_t k, bool down,
                             const nyx_tensor *values, const nyx_tensor *indices) {
  if (indices->numel == 0) return NYX_OK;
  const nyx_tensor *x = c->in[0];
  row_job j = {.x = x,
               .values = values,
               .indices = indices,
               .dim = dim,
               .n = x->ndim ? x->shape[dim] : 1,
               .k = k,
               .inner = 1,
               .down = down,
               .base = c->ctx->index_base};
  for (int d = dim + 1; d < x->ndim; d++) j.inner *= x->shape[d];
  NYX_TRY(nyx__parallel_for(c->ctx, x->numel / j.n, (1 << 13) / j.n + 1, row_range, &j));
  if (atomic_load(&j.no_memory))
    return nyx__no_memory(c->ctx, nyx__order_scratch(x->dtype, j.n));
  return NYX_OK;
}

/* The gradient at the positions found, zero elsewhere. */
static nyx_status order_gradient(nyx_backward *b, nyx_value dim) {
  if (!b->grad_out[0]) return NYX_OK;
  nyx_tensor *zeros;
  NYX_TRY(nyx__zeros(b->ctx, b->grad_out[0], &b->in_spec[0], &zeros));
  nyx_tensor *in[] = {zeros, b->out[1], b->grad_out[0]};
  nyx_status status =
      nyx__applyn(b->ctx, NYX__OP_scatter_add, in, 3, &dim, &b->grad_in[0]);
  nyx_tensor_release(zeros);
  return status;
}

/* sort, argsort */

static nyx_status sort_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &dim));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  nyx__spec(&c->spec[1], NYX_INT64, x->ndim, x->shape);
  return NYX_OK;
}

static nyx_status sort_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &dim));
  int64_t n = x->ndim ? x->shape[dim] : 1;
  return order_rows(c, dim, n, c->attr[1].i, c->out[0], c->out[1]);
}

static nyx_status sort_gradient(nyx_backward *b) {
  return order_gradient(b, b->attr[0]);
}

static const nyx_attr sort_attrs[] = {
    {"dim", NYX_ATTR_DIM, false, {.i = -1, .given = true}, "the dimension to sort along"},
    {"descending",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "the largest first"},
    {"stable",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "equal elements keep their order; they always do"}};

const nyx_op nyx__op_sort = {
    .name = "sort",
    .group = "sorting",
    .doc =
        "The elements in order along `dim`, and where they were. Stable; NaN counts as "
        "larger than every number.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = sort_attrs,
    .n_attrs = 3,
    .n_out = 2,
    .infer = sort_infer,
    .cpu = sort_cpu,
    .gradient = sort_gradient,
    .save_out = NYX_SAVE(1),
    .batch = nyx__batch_dims,
    .cases = "x(3,4)\nx(5,3); dim=1 descending=true\nx(2,70)",
    .domain = {-4, 4},
};

static nyx_status argsort_infer(nyx_call *c) {
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, c->in[0]->ndim, &dim));
  nyx__spec(&c->spec[0], NYX_INT64, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

static nyx_status argsort_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[0].i, x->ndim, &dim));
  int64_t n = x->ndim ? x->shape[dim] : 1;
  return order_rows(c, dim, n, c->attr[1].i, NULL, c->out[0]);
}

const nyx_op nyx__op_argsort = {
    .name = "argsort",
    .group = "sorting",
    .doc = "The positions that put x in order along `dim`; see sort.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = sort_attrs,
    .n_attrs = 3,
    .n_out = 1,
    .infer = argsort_infer,
    .cpu = argsort_cpu,
    .batch = nyx__batch_dims,
    .cases = "x(3,4)\nx(5,3); dim=1 descending=true",
    .domain = {-4, 4},
};

/* topk */

static nyx_status topk_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[1].i, x->ndim, &dim));
  int64_t n = x->ndim ? x->shape[dim] : 1, k = c->attr[0].i;
  if (k < 0 || k > n)
    return nyx__error(c->ctx, ATTR_RANGE, "k", (long long)k,
                      "at least 0 and at most the size of the dimension");
  for (int i = 0; i < 2; i++) {
    nyx__spec(&c->spec[i], i ? NYX_INT64 : c->dtype, x->ndim, x->shape);
    if (x->ndim) c->spec[i].shape[dim] = k;
  }
  return NYX_OK;
}

static nyx_status topk_cpu(nyx_call *c) {
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[1].i, c->in[0]->ndim, &dim));
  return order_rows(c, dim, c->attr[0].i, c->attr[2].i, c->out[0], c->out[1]);
}

static nyx_status topk_gradient(nyx_backward *b) {
  return order_gradient(b, b->attr[1]);
}

static const nyx_attr topk_attrs[] = {
    {"k", NYX_ATTR_INT, true, {.given = false}, "how many"},
    {"dim", NYX_ATTR_DIM, false, {.i = -1, .given = true}, "the dimension to look along"},
    {"largest",
     NYX_ATTR_BOOL,
     false,
     {.i = true, .given = true},
     "the largest, else the smallest"},
    {"sorted",
     NYX_ATTR_BOOL,
     false,
     {.i = true, .given = true},
     "in order; they always are"}};

const nyx_op nyx__op_topk = {
    .name = "topk",
    .group = "sorting",
    .doc =
        "The k largest (or smallest) elements along `dim` in order, and where they "
        "were. Of equal ones the first comes first; NaN counts as larger than every "
        "number.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = topk_attrs,
    .n_attrs = 4,
    .n_out = 2,
    .infer = topk_infer,
    .cpu = topk_cpu,
    .gradient = topk_gradient,
    .save_out = NYX_SAVE(1),
    .batch = nyx__batch_dims,
    .cases = "x(3,4); k=2\nx(5,3); k=3 dim=1 largest=false\nx(2,80); k=3",
    .domain = {-4, 4},
};

/* unique */

/* The elements of x (contiguous) in order: *at the positions, *rank how many different
 * elements come before; both in *block, for nyx_memory_free. */
static nyx_status rank(nyx_context *ctx, const nyx_tensor *x, void **block,
                       const int64_t **at, int64_t **ranks, int64_t *count) {
  size_t scratch = nyx__order_scratch(x->dtype, x->numel);
  size_t words = (size_t)x->numel * sizeof(int64_t), bytes = scratch + 2 * words;
  *block = nyx_memory_alloc(bytes);
  if (!*block) return nyx__no_memory(ctx, bytes);
  uint64_t *key = (uint64_t *)(void *)((char *)*block + scratch);
  *ranks = (int64_t *)(void *)(key + x->numel);
  nyx__order_keys(x->dtype, nyx__data(x), 1, x->numel, false, key);
  *at = nyx__order_sort(x->dtype, nyx__data(x), 1, x->numel, false, *block);
  *count = 0;
  for (int64_t i = 0; i < x->numel; i++) {
    if (i == 0 || key[(*at)[i]] != key[(*at)[i - 1]]) ++*count;
    (*ranks)[i] = *count - 1;
  }
  return NYX_OK;
}

static nyx_status unique_infer(nyx_call *c) {
  nyx_tensor *x;
  void *block;
  const int64_t *at;
  int64_t *ranks, count = 0;
  if (c->device != nyx__cpu())
    return nyx__error(c->ctx, UNSUPPORTED, nyx_device_name(c->device));
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  nyx_status status = rank(c->ctx, x, &block, &at, &ranks, &count);
  nyx_memory_free(block);
  nyx_tensor_release(x);
  NYX_TRY(status);
  nyx__spec(&c->spec[0], c->dtype, 1, &count);
  nyx__spec(&c->spec[1], NYX_INT64, c->in[0]->ndim, c->in[0]->shape);
  nyx__spec(&c->spec[2], NYX_INT64, 1, &count);
  return NYX_OK;
}

static nyx_status unique_cpu(nyx_call *c) {
  nyx_tensor *x;
  void *block;
  const int64_t *at;
  int64_t *ranks, count = 0;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  nyx_status status = rank(c->ctx, x, &block, &at, &ranks, &count);
  if (status == NYX_OK) {
    size_t item = nyx_dtype_size(x->dtype);
    const char *from = nyx__data(x);
    char *to = nyx__data(c->out[0]);
    int64_t *inverse = nyx__data(c->out[1]), *counts = nyx__data(c->out[2]);
    memset(counts, 0, (size_t)count * sizeof *counts);
    for (int64_t i = 0; i < x->numel; i++) {
      int64_t r = ranks[i];
      if (counts[r]++ == 0)
        memcpy(to + (size_t)r * item, from + (size_t)at[i] * item, item);
      inverse[at[i]] = r + c->ctx->index_base;
    }
  }
  nyx_memory_free(block);
  nyx_tensor_release(x);
  return status;
}

const nyx_op nyx__op_unique = {
    .name = "unique",
    .group = "sorting",
    .doc =
        "The different elements of x in order; for each element of x the position of "
        "its equal among them; and how often each occurs. NaNs are equal here.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .by_value = true,
    .n_out = 3,
    .infer = unique_infer,
    .cpu = unique_cpu,
    .cases = "x(3,4)\nx(70)",
    .domain = {-4, 4},
};

/* searchsorted */

static nyx_status searchsorted_infer(nyx_call *c) {
  nyx_tensor *sorted = c->in[0], *values = c->in[1];
  bool fits = sorted->ndim == 1 || (sorted->ndim == values->ndim && sorted->ndim > 0);
  for (int d = 0; fits && sorted->ndim > 1 && d < sorted->ndim - 1; d++)
    fits = sorted->shape[d] == values->shape[d];
  if (!fits)
    return nyx__error(c->ctx, NDIM_EXPECTED, "sorted", NYX__SHAPE(sorted),
                      "one dimension, or the sizes of values in all but the last");
  nyx__spec(&c->spec[0], NYX_INT64, values->ndim, values->shape);
  return NYX_OK;
}

/* How many of n ordered keys come before `key`; `right`: or equal it. */
static int64_t search(const uint64_t *keys, int64_t n, uint64_t key, bool right) {
  int64_t low = 0, high = n;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (keys[middle] < key || (right && keys[middle] == key))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

typedef struct search_job {
  const uint64_t *keys, *wanted;
  int64_t *to;
  int64_t n, per_row, base; /* keys in a row, values that look there (all: one row) */
  bool right;
} search_job;

static void search_range(void *arg, int64_t begin, int64_t end) {
  const search_job *j = arg;
  for (int64_t i = begin; i < end; i++)
    j->to[i] =
        search(j->keys + i / j->per_row * j->n, j->n, j->wanted[i], j->right) + j->base;
}

static nyx_status searchsorted_cpu(nyx_call *c) {
  nyx_tensor *sorted = NULL, *values = NULL;
  if (c->out[0]->numel == 0) return NYX_OK;
  uint64_t *keys = NULL;
  nyx_status status = nyx__contiguous(c->ctx, c->in[0], &sorted);
  if (status == NYX_OK) status = nyx__contiguous(c->ctx, c->in[1], &values);
  if (status == NYX_OK) {
    size_t bytes = (size_t)(sorted->numel + values->numel) * sizeof *keys;
    if (!(keys = nyx_memory_alloc(bytes))) status = nyx__no_memory(c->ctx, bytes);
  }
  if (status == NYX_OK) {
    uint64_t *wanted = keys + sorted->numel;
    nyx__order_keys(c->dtype, nyx__data(sorted), 1, sorted->numel, false, keys);
    nyx__order_keys(c->dtype, nyx__data(values), 1, values->numel, false, wanted);
    search_job j = {.keys = keys,
                    .wanted = wanted,
                    .to = nyx__data(c->out[0]),
                    .n = sorted->shape[sorted->ndim - 1],
                    .per_row = values->numel,
                    .base = c->ctx->index_base,
                    .right = c->attr[0].i};
    if (sorted->ndim > 1) j.per_row = values->shape[values->ndim - 1];
    status = nyx__parallel_for(c->ctx, values->numel, 1 << 12, search_range, &j);
  }
  nyx_memory_free(keys);
  nyx_tensor_release(values);
  nyx_tensor_release(sorted);
  return status;
}

static const nyx_attr searchsorted_attrs[] = {{"right",
                                               NYX_ATTR_BOOL,
                                               false,
                                               {.i = false, .given = true},
                                               "after equal elements, else before them"}};

const nyx_op nyx__op_searchsorted = {
    .name = "searchsorted",
    .group = "sorting",
    .doc =
        "Where each of `values` would have to be inserted into `sorted` to keep its last "
        "dimension in order; int64 positions.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "sorted values",
    .min_in = 2,
    .max_in = 2,
    .attrs = searchsorted_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = searchsorted_infer,
    .cpu = searchsorted_cpu,
    .cases = "sorted(5) values(2,3)\nsorted(2,5) values(2,3); right=true",
    .domain = {-4, 4},
};
