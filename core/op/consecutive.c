/* unique_consecutive: elements that differ from the one before. Blocks of the input are
 * looked at apart from each other: what they hold of the results is counted first, then
 * written where it belongs. Read next: order.h, whose keys say what is equal. */
#include <nyx/parallel.h>
#include <string.h>

#include "../device/device.h"
#include "../tensor/tensor.h"
#include "ops.h"
#include "order.h"

enum {
  KEYS = 1024,     /* made at a time */
  BLOCK = 1 << 14, /* elements */
};

/* What infer finds out: of each block how many runs begin before it, and where the first
 * one begins from it on. */
typedef struct block {
  int64_t before, first;
} block;

typedef struct runs {
  nyx__stop *stop;
  nyx_dtype dtype;
  size_t item;
  int64_t n, blocks;
  const char *from;
  block *block; /* and one behind the last */
  char *to;
  int64_t *inverse, *counts, base;
} runs;

/* begins[k]: where the k-th run begins of those that do among n elements from `at` on;
 * returns how many. In rank, unless it is NULL, each element's run, from `first`. */
static int64_t find(const runs *r, int64_t at, int64_t n, int64_t *begins, int64_t *rank,
                    int64_t first) {
  uint64_t key[KEYS + 1];
  const int64_t more = at > 0; /* the element before them */
  const char *from = r->from + (size_t)at * r->item;
  int64_t count = 0;
  if (more && memcmp(from - r->item, from, (size_t)n * r->item) == 0) {
    for (int64_t i = 0; rank && i < n; i++) rank[i] = first;
    return 0;
  }
  nyx__order_keys(r->dtype, from - (size_t)more * r->item, 1, n + more, false,
                  key + 1 - more);
  if (!more) key[0] = ~key[1];
  for (int64_t i = 0; i < n; i++) {
    begins[count] = at + i;
    count += key[i + 1] != key[i];
    if (rank) rank[i] = first + count;
  }
  return count;
}

static void count_range(void *arg, int64_t begin, int64_t end) {
  const runs *r = arg;
  int64_t begins[KEYS];
  for (int64_t b = begin; b < end; b++) {
    block *of = &r->block[b];
    const int64_t stop = (b + 1) * BLOCK < r->n ? (b + 1) * BLOCK : r->n;
    *of = (block){.before = 0, .first = -1};
    for (int64_t i = b * BLOCK; i < stop && !nyx__stopped(r->stop); i += KEYS) {
      const int64_t n = stop - i < KEYS ? stop - i : KEYS;
      const int64_t count = find(r, i, n, begins, NULL, 0);
      if (count > 0 && of->before == 0) of->first = begins[0];
      of->before += count;
    }
  }
}

/* Counts become sums of those before; returns the sum of all. */
static int64_t add_up(const runs *r) {
  int64_t sum = 0, next = r->n;
  for (int64_t b = 0; b < r->blocks; b++) {
    const int64_t count = r->block[b].before;
    r->block[b].before = sum;
    sum += count;
  }
  for (int64_t b = r->blocks; b >= 0; b--) {
    if (b == r->blocks || r->block[b].first < 0) r->block[b].first = next;
    next = r->block[b].first;
  }
  return sum;
}

static runs runs_of(nyx__stop *stop, const nyx_tensor *x, block *of) {
  return (runs){.stop = stop,
                .dtype = x->dtype,
                .item = nyx_dtype_size(x->dtype),
                .n = x->numel,
                .blocks = (x->numel + BLOCK - 1) / BLOCK,
                .from = nyx__data(x),
                .block = of};
}

static nyx_status infer(nyx_call *c) {
  nyx_tensor *x;
  nyx__stop stop = {.ctx = c->ctx};
  if (c->device != nyx__cpu())
    return nyx__error(c->ctx, UNSUPPORTED, nyx_device_name(c->device));
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  runs r = runs_of(&stop, x, NULL);
  const size_t bytes = (size_t)(r.blocks + 1) * sizeof *r.block;
  nyx_status status = NYX_OK;
  int64_t count = 0;
  if (!(c->found = r.block = nyx_memory_alloc(bytes)))
    status = nyx__no_memory(c->ctx, bytes);
  if (status == NYX_OK) {
    nyx__parallel_until(&stop, r.blocks, 1, count_range, &r);
    status = nyx__stop_status(&stop);
  }
  if (status == NYX_OK) count = add_up(&r);
  nyx_tensor_release(x);
  NYX_TRY(status);
  nyx__spec(&c->spec[0], c->dtype, 1, &count);
  nyx__spec(&c->spec[1], NYX_INT64, c->in[0]->ndim, c->in[0]->shape);
  nyx__spec(&c->spec[2], NYX_INT64, 1, &count);
  return NYX_OK;
}

/* Elements at `begins`. */
#define COPY(T)                                                                          \
  for (int64_t k = 0; k < count; k++)                                                    \
  ((T *)(void *)r->to)[first + k] = ((const T *)(const void *)r->from)[begins[k]]

static void copy(const runs *r, const int64_t *begins, int64_t count, int64_t first) {
  switch (r->item) {
    case 1: COPY(uint8_t); break;
    case 2: COPY(uint16_t); break;
    case 4: COPY(uint32_t); break;
    default: COPY(uint64_t); break;
  }
}

static void write_range(void *arg, int64_t begin, int64_t end) {
  const runs *r = arg;
  int64_t begins[KEYS];
  for (int64_t b = begin; b < end; b++) {
    const int64_t stop = (b + 1) * BLOCK < r->n ? (b + 1) * BLOCK : r->n;
    int64_t first = r->block[b].before, last = -1; /* where the run before them began */
    for (int64_t i = b * BLOCK; i < stop && !nyx__stopped(r->stop); i += KEYS) {
      const int64_t n = stop - i < KEYS ? stop - i : KEYS;
      const int64_t count = find(r, i, n, begins, r->inverse + i, first - 1 + r->base);
      if (count == 0) continue;
      if (last >= 0) r->counts[first - 1] = begins[0] - last;
      for (int64_t k = 1; k < count; k++)
        r->counts[first + k - 1] = begins[k] - begins[k - 1];
      copy(r, begins, count, first);
      last = begins[count - 1];
      first += count;
    }
    if (last >= 0) r->counts[first - 1] = r->block[b + 1].first - last;
  }
}

static nyx_status cpu(nyx_call *c) {
  nyx__stop stop = {.ctx = c->ctx};
  nyx_tensor *x;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  runs r = runs_of(&stop, x, c->found);
  r.to = nyx__data(c->out[0]);
  r.inverse = nyx__data(c->out[1]);
  r.counts = nyx__data(c->out[2]);
  r.base = c->ctx->index_base;
  nyx__parallel_until(&stop, r.blocks, 1, write_range, &r);
  nyx_tensor_release(x);
  return nyx__stop_status(&stop);
}

const nyx_op nyx__op_runs = {
    .name = "runs",
    .group = "sorting",
    .doc =
        "The elements of x, row-major, that differ from the one before; for each element "
        "of x the position of its equal among them; and how often each stood there. NaNs "
        "are equal here. See unique_consecutive, which takes a dimension.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .by_value = true,
    .n_out = 3,
    .infer = infer,
    .cpu = cpu,
    .cases = "x(3,4)\nx(70)<bool\nx(2)\nx(0)",
    .domain = {-4, 4},
};
