/* Ops that order elements: sort, argsort, topk, order_statistic, unique, searchsorted.
 * The order and the algorithms are in order.c. */
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
  nyx__stop stop;
  atomic_bool no_memory;
} row_job;

enum {
  KEYS = 1024,      /* made at a time */
  TOGETHER = 4,     /* values that look for their places */
  WRITTEN = 1 << 16 /* elements of an order that one range writes; keys made by one */
};

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

/* An order that is written down: the elements, and their positions. */
typedef struct writing {
  const nyx__order *order;
  const void *from;
  int64_t stride;
  void *to; /* may be NULL */
  int64_t *index, step, base;
} writing;

/* Elements begin..end-1 of an order, from their keys or from where they are in the row.
 */
#define WRITE(T, list, key_of, at_of)                                                    \
  for (int64_t i = begin; i < end && to; i++)                                            \
    to[i * step] = o->exact ? (T)nyx__order_value(&bits, key_of(list[i]))                \
                            : from[at_of(list[i]) * stride];                             \
  for (int64_t i = begin; i < end; i++) index[i * step] = at_of(list[i]) + base
#define WRITE_LIST(T)                                                                    \
  if (o->words) {                                                                        \
    WRITE(T, o->words, WORD_KEY, WORD_AT);                                               \
  } else {                                                                               \
    WRITE(T, o->entries, ENTRY_KEY, ENTRY_AT);                                           \
  }
#define WRITER(T)                                                                        \
  static void write_##T(void *arg, int64_t begin, int64_t end) {                         \
    const writing *w = arg;                                                              \
    const nyx__order *o = w->order;                                                      \
    const nyx__order_bits bits = nyx__order_bits_of(o);                                  \
    const T *from = w->from;                                                             \
    T *to = w->to;                                                                       \
    int64_t *index = w->index;                                                           \
    const int64_t step = w->step, stride = w->stride, base = w->base;                    \
    WRITE_LIST(T)                                                                        \
  }
#define WORD_KEY(w) ((w) >> 32)
#define WORD_AT(w) ((int64_t)((w)&UINT32_MAX))
#define ENTRY_KEY(e) ((e).key)
#define ENTRY_AT(e) ((e).at)
WRITER(uint8_t)
WRITER(uint16_t)
WRITER(uint32_t)
WRITER(uint64_t)

static nyx_range_fn writer_of(size_t item) {
  switch (item) {
    case 1: return write_uint8_t;
    case 2: return write_uint16_t;
    case 4: return write_uint32_t;
    default: return write_uint64_t;
  }
}

static void row_range(void *arg, int64_t begin, int64_t end) {
  row_job *j = arg;
  const nyx_tensor *x = j->x;
  void *scratch = nyx_memory_alloc(nyx__order_scratch(x->dtype, j->n, j->k));
  if (!scratch) {
    atomic_store(&j->no_memory, true);
    return;
  }
  size_t item = nyx_dtype_size(x->dtype);
  int64_t stride = x->ndim ? x->stride[j->dim] : 1;
  const nyx_range_fn write = writer_of(item);
  for (int64_t row = begin; row < end; row++) {
    const char *from =
        (const char *)nyx__data(x) + row_start(x, j->dim, row) * (int64_t)item;
    int64_t to = row / j->inner * j->k * j->inner + row % j->inner;
    const nyx__order o =
        nyx__order_top(&j->stop, x->dtype, from, stride, j->n, j->k, j->down, scratch);
    if (nyx__stopped(&j->stop)) break;
    writing w = {
        .order = &o,
        .from = from,
        .stride = stride,
        .to = j->values ? (char *)nyx__data(j->values) + (size_t)to * item : NULL,
        .index = (int64_t *)nyx__data(j->indices) + to,
        .step = j->inner,
        .base = j->base};
    nyx__parallel_until(&j->stop, j->k, WRITTEN, write, &w);
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
               .base = c->ctx->index_base,
               .stop = {.ctx = c->ctx}};
  for (int d = dim + 1; d < x->ndim; d++) j.inner *= x->shape[d];
  nyx__parallel_until(&j.stop, x->numel / j.n, (1 << 13) / j.n + 1, row_range, &j);
  if (atomic_load(&j.no_memory))
    return nyx__no_memory(c->ctx, nyx__order_scratch(x->dtype, j.n, k));
  return nyx__stop_status(&j.stop);
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

/* order_statistic */

typedef struct rank_job {
  const nyx_tensor *x, *values, *indices;
  int dim;
  int64_t n, k; /* k from 1; 0: of the middle */
  bool skip;    /* NaN, of the middle */
  int64_t base;
  nyx__stop stop;
  atomic_bool no_memory;
} rank_job;

/* Which element is wanted, from 0: the first NaN where there is one in the middle. */
static int64_t rank_of(const rank_job *j, const uint64_t *key) {
  const uint64_t top = nyx__order_top_key(j->x->dtype);
  int64_t numbers = j->n;
  if (j->k) return j->k - 1;
  if (nyx_dtype_is_float(j->x->dtype))
    for (int64_t i = 0; i < j->n; i++) numbers -= key[i] == top;
  if (numbers < j->n && !j->skip) return numbers;
  return numbers > 0 ? (numbers - 1) / 2 : 0;
}

static void rank_range(void *arg, int64_t begin, int64_t end) {
  rank_job *j = arg;
  const nyx_tensor *x = j->x;
  const size_t item = nyx_dtype_size(x->dtype);
  const int64_t stride = x->ndim ? x->stride[j->dim] : 1;
  uint64_t *key = nyx_memory_alloc((size_t)j->n * 2 * sizeof *key);
  if (!key) {
    atomic_store(&j->no_memory, true);
    return;
  }
  for (int64_t row = begin; row < end && !nyx__stopped(&j->stop); row++) {
    const char *from =
        (const char *)nyx__data(x) + row_start(x, j->dim, row) * (int64_t)item;
    int64_t before, at = 0;
    for (int64_t i = 0, n; i < j->n && !nyx__stopped(&j->stop); i += n) {
      n = j->n - i < WRITTEN ? j->n - i : WRITTEN;
      nyx__order_keys(x->dtype, from + i * stride * (int64_t)item, stride, n, false,
                      key + i);
    }
    if (nyx__stopped(&j->stop)) break;
    const uint64_t found =
        nyx__order_find(&j->stop, key, j->n, rank_of(j, key), key + j->n, &before);
    if (nyx__stopped(&j->stop)) break;
    while (key[at] != found || before-- > 0) at++;
    memcpy((char *)nyx__data(j->values) + (size_t)row * item,
           from + at * stride * (int64_t)item, item);
    ((int64_t *)nyx__data(j->indices))[row] = at + j->base;
  }
  nyx_memory_free(key);
}

static nyx_status rank_infer(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(nyx__dim(c->ctx, c->attr[1].i, x->ndim, &dim));
  const int64_t n = x->ndim ? x->shape[dim] : 1, k = c->attr[0].i;
  if (n == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "elements in the dimension");
  if (k < 0 || k > n)
    return nyx__error(c->ctx, ATTR_RANGE, "k", (long long)k,
                      "at least 0 and at most the size of the dimension");
  for (int i = 0; i < 2; i++) {
    nyx__spec(&c->spec[i], i ? NYX_INT64 : c->dtype, x->ndim, x->shape);
    if (x->ndim) c->spec[i].shape[dim] = 1;
  }
  return NYX_OK;
}

static nyx_status rank_cpu(nyx_call *c) {
  const nyx_tensor *x = c->in[0];
  rank_job j = {.x = x,
                .values = c->out[0],
                .indices = c->out[1],
                .k = c->attr[0].i,
                .skip = c->attr[2].i != 0,
                .base = c->ctx->index_base,
                .stop = {.ctx = c->ctx}};
  NYX_TRY(nyx__dim(c->ctx, c->attr[1].i, x->ndim, &j.dim));
  j.n = x->ndim ? x->shape[j.dim] : 1;
  nyx__parallel_until(&j.stop, x->numel / j.n, (1 << 13) / j.n + 1, rank_range, &j);
  if (atomic_load(&j.no_memory))
    return nyx__no_memory(c->ctx, (size_t)j.n * 2 * sizeof(uint64_t));
  return nyx__stop_status(&j.stop);
}

static nyx_status rank_gradient(nyx_backward *b) {
  return order_gradient(b, b->attr[1]);
}

static const nyx_attr rank_attrs[] = {
    {"k",
     NYX_ATTR_INT,
     false,
     {.i = 0, .given = true},
     "which, from 1, the smallest; 0: the lower of two in the middle"},
    {"dim", NYX_ATTR_DIM, false, {.i = -1, .given = true}, "the dimension to look along"},
    {"skip_nan",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "the middle of what is not NaN, else the first NaN where there is one"}};

const nyx_op nyx__op_order_statistic = {
    .name = "order_statistic",
    .group = "sorting",
    .doc =
        "The element along `dim` that would be in place k if they were sorted, and where "
        "it is, without sorting them; the dimension keeps size 1. Of equal ones the one "
        "that a stable sort puts there; NaN counts as larger than every number. median, "
        "nanmedian and kthvalue are made of it.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = rank_attrs,
    .n_attrs = 3,
    .n_out = 2,
    .infer = rank_infer,
    .cpu = rank_cpu,
    .gradient = rank_gradient,
    .save_out = NYX_SAVE(1),
    .batch = nyx__batch_dims,
    .cases = "x(3,4); k=2\nx(5,3); dim=1\nx(2,90); k=30",
    .domain = {-4, 4},
};

/* unique */

/* What infer found out and the kernel writes down: an order; or, where keys are close to
 * each other, by key less `least` how many different ones come before. */
typedef struct unique_found {
  nyx__order order;
  uint64_t least;
  int64_t *rank; /* NULL: by order */
} unique_found;

/* The least and the greatest key. */
static void unique_span(nyx__stop *stop, const nyx_tensor *x, uint64_t *least,
                        uint64_t *most) {
  uint64_t key[KEYS];
  *least = UINT64_MAX, *most = 0;
  for (int64_t i = 0, n; i < x->numel && !nyx__stopped(stop); i += n) {
    n = x->numel - i < KEYS ? x->numel - i : KEYS;
    nyx__order_keys(x->dtype,
                    (const char *)nyx__data(x) + (size_t)i * nyx_dtype_size(x->dtype), 1,
                    n, false, key);
    for (int64_t k = 0; k < n; k++) {
      *least = key[k] < *least ? key[k] : *least;
      *most = key[k] > *most ? key[k] : *most;
    }
  }
}

static void clear_range(void *arg, int64_t begin, int64_t end) {
  memset((int64_t *)arg + begin, 0, (size_t)(end - begin) * sizeof(int64_t));
}

/* Marks what occurs, then numbers it. */
static int64_t rank_keys(nyx__stop *stop, const nyx_tensor *x, const unique_found *f,
                         int64_t span) {
  uint64_t key[KEYS];
  int64_t count = 0;
  nyx__parallel_until(stop, span, WRITTEN, clear_range, f->rank);
  for (int64_t i = 0, n; i < x->numel && !nyx__stopped(stop); i += n) {
    n = x->numel - i < KEYS ? x->numel - i : KEYS;
    nyx__order_keys(x->dtype,
                    (const char *)nyx__data(x) + (size_t)i * nyx_dtype_size(x->dtype), 1,
                    n, false, key);
    for (int64_t k = 0; k < n; k++) f->rank[key[k] - f->least] = 1;
  }
  for (int64_t i = 0, n; i < span && !nyx__stopped(stop); i += n) {
    n = span - i < KEYS ? span - i : KEYS;
    for (int64_t k = i; k < i + n; k++) {
      int64_t here = f->rank[k];
      f->rank[k] = count;
      count += here;
    }
  }
  return count;
}

static bool differs(const nyx__order *o, int64_t i) {
  return i == 0 || nyx__order_key(o, i) != nyx__order_key(o, i - 1);
}

static nyx_status find_unique(nyx_call *c, const nyx_tensor *x, int64_t *count) {
  nyx__stop stop = {.ctx = c->ctx};
  uint64_t least, most;
  unique_span(&stop, x, &least, &most);
  NYX_TRY(nyx__stop_status(&stop));
  bool close = x->numel > 0 && most - least < 4 * (uint64_t)x->numel;
  int64_t span = close ? (int64_t)(most - least) + 1 : 0;
  size_t bytes = close ? (size_t)span * sizeof(int64_t)
                       : nyx__order_scratch(x->dtype, x->numel, x->numel);
  unique_found *f = c->found = nyx_memory_alloc(sizeof *f + bytes);
  if (!f) return nyx__no_memory(c->ctx, sizeof *f + bytes);
  *f = (unique_found){.least = least, .rank = close ? (int64_t *)(void *)(f + 1) : NULL};
  *count = 0;
  if (close) {
    *count = rank_keys(&stop, x, f, span);
    return nyx__stop_status(&stop);
  }
  f->order = nyx__order_sort(&stop, x->dtype, nyx__data(x), 1, x->numel, false, f + 1);
  for (int64_t i = 0, n; i < x->numel && !nyx__stopped(&stop); i += n) {
    n = x->numel - i < KEYS ? x->numel - i : KEYS;
    for (int64_t k = i; k < i + n; k++) *count += differs(&f->order, k);
  }
  return nyx__stop_status(&stop);
}

static nyx_status unique_infer(nyx_call *c) {
  nyx_tensor *x;
  int64_t count = 0;
  if (c->device != nyx__cpu())
    return nyx__error(c->ctx, UNSUPPORTED, nyx_device_name(c->device));
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  nyx_status status = find_unique(c, x, &count);
  nyx_tensor_release(x);
  NYX_TRY(status);
  nyx__spec(&c->spec[0], c->dtype, 1, &count);
  nyx__spec(&c->spec[1], NYX_INT64, c->in[0]->ndim, c->in[0]->shape);
  nyx__spec(&c->spec[2], NYX_INT64, 1, &count);
  return NYX_OK;
}

/* Where results go. */
typedef struct unique_target {
  const char *from;
  char *to;
  size_t item;
  int64_t *inverse, *counts, base;
} unique_target;

static void write_one(const unique_target *t, int64_t at, int64_t rank) {
  if (t->counts[rank]++ == 0)
    memcpy(t->to + (size_t)rank * t->item, t->from + (size_t)at * t->item, t->item);
  t->inverse[at] = rank + t->base;
}

static void write_ranked(nyx__stop *stop, const nyx_tensor *x, const unique_found *f,
                         const unique_target *t) {
  uint64_t key[KEYS];
  for (int64_t i = 0, n; i < x->numel && !nyx__stopped(stop); i += n) {
    n = x->numel - i < KEYS ? x->numel - i : KEYS;
    nyx__order_keys(x->dtype, t->from + (size_t)i * t->item, 1, n, false, key);
    for (int64_t k = 0; k < n; k++) write_one(t, i + k, f->rank[key[k] - f->least]);
  }
}

static void write_ordered(nyx__stop *stop, const nyx__order *o, const unique_target *t) {
  int64_t rank = -1;
  for (int64_t i = 0, n; i < o->n && !nyx__stopped(stop); i += n) {
    n = o->n - i < KEYS ? o->n - i : KEYS;
    for (int64_t k = i; k < i + n; k++) {
      rank += differs(o, k);
      write_one(t, nyx__order_at(o, k), rank);
    }
  }
}

static nyx_status unique_cpu(nyx_call *c) {
  const unique_found *f = c->found;
  nyx__stop stop = {.ctx = c->ctx};
  nyx_tensor *x;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  const unique_target t = {.from = nyx__data(x),
                           .to = nyx__data(c->out[0]),
                           .item = nyx_dtype_size(x->dtype),
                           .inverse = nyx__data(c->out[1]),
                           .counts = nyx__data(c->out[2]),
                           .base = c->ctx->index_base};
  nyx__parallel_until(&stop, c->out[2]->numel, WRITTEN, clear_range, t.counts);
  if (f->rank)
    write_ranked(&stop, x, f, &t);
  else
    write_ordered(&stop, &f->order, &t);
  nyx_tensor_release(x);
  return nyx__stop_status(&stop);
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

/* How many of n ordered keys come before each of `wanted`, or equal it: some of them
 * together and without branches, as what a comparison gives cannot be foreseen. */
#define SEARCH(name, compare)                                                            \
  static void name(const uint64_t *keys, int64_t n, const uint64_t wanted[TOGETHER],     \
                   int64_t at[TOGETHER]) {                                               \
    for (int k = 0; k < TOGETHER; k++) at[k] = 0;                                        \
    for (int64_t left = n; left > 1; left -= left / 2)                                   \
      for (int k = 0; k < TOGETHER; k++)                                                 \
        at[k] += -(int64_t)(keys[at[k] + left / 2 - 1] compare wanted[k]) & (left / 2);  \
    for (int k = 0; k < TOGETHER; k++) at[k] += n > 0 && keys[at[k]] compare wanted[k];  \
  }
SEARCH(search_left, <)
SEARCH(search_right, <=)

/* The keys of a contiguous tensor. */
typedef struct key_job {
  const nyx_tensor *x;
  uint64_t *to;
} key_job;

static void keys_at(const nyx_tensor *x, int64_t at, int64_t n, uint64_t *to) {
  const size_t item = nyx_dtype_size(x->dtype);
  nyx__order_keys(x->dtype, (const char *)nyx__data(x) + (size_t)at * item, 1, n, false,
                  to);
}

static void key_range(void *arg, int64_t begin, int64_t end) {
  const key_job *j = arg;
  keys_at(j->x, begin, end - begin, j->to + begin);
}

typedef struct search_job {
  const uint64_t *keys;
  const nyx_tensor *values;
  int64_t *to;
  int64_t n, per_row, base; /* keys in a row, values that look there (all: one row) */
  bool right;
} search_job;

/* n values of one row, from `first` on. */
static void search_piece(const search_job *j, int64_t first, int64_t n) {
  uint64_t key[KEYS + TOGETHER];
  int64_t found[TOGETHER];
  const uint64_t *keys = j->keys + first / j->per_row * j->n;
  keys_at(j->values, first, n, key);
  for (int k = 0; k < TOGETHER; k++) key[n + k] = 0; /* looked for to no purpose */
  for (int64_t i = 0; i < n; i += TOGETHER) {
    const int64_t left = n - i < TOGETHER ? n - i : TOGETHER;
    (j->right ? search_right : search_left)(keys, j->n, key + i, found);
    for (int64_t k = 0; k < left; k++) j->to[first + i + k] = found[k] + j->base;
  }
}

static void search_range(void *arg, int64_t begin, int64_t end) {
  const search_job *j = arg;
  for (int64_t i = begin, n; i < end; i += n) {
    const int64_t row = j->per_row - i % j->per_row;
    n = end - i < KEYS ? end - i : KEYS;
    n = n < row ? n : row;
    search_piece(j, i, n);
  }
}

static nyx_status searchsorted_cpu(nyx_call *c) {
  nyx_tensor *sorted = NULL, *values = NULL;
  if (c->out[0]->numel == 0) return NYX_OK;
  uint64_t *keys = NULL;
  nyx_status status = nyx__contiguous(c->ctx, c->in[0], &sorted);
  if (status == NYX_OK) status = nyx__contiguous(c->ctx, c->in[1], &values);
  if (status == NYX_OK) {
    size_t bytes = (size_t)(sorted->numel + 1) * sizeof *keys;
    if (!(keys = nyx_memory_alloc(bytes))) status = nyx__no_memory(c->ctx, bytes);
  }
  if (status == NYX_OK) {
    nyx__stop stop = {.ctx = c->ctx};
    nyx__parallel_until(&stop, sorted->numel, WRITTEN, key_range,
                        &(key_job){sorted, keys});
    search_job j = {.keys = keys,
                    .values = values,
                    .to = nyx__data(c->out[0]),
                    .n = sorted->shape[sorted->ndim - 1],
                    .per_row = values->numel,
                    .base = c->ctx->index_base,
                    .right = c->attr[0].i};
    if (sorted->ndim > 1) j.per_row = values->shape[values->ndim - 1];
    nyx__parallel_until(&stop, values->numel, 1 << 12, search_range, &j);
    status = nyx__stop_status(&stop);
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
