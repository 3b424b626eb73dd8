/* int_mm_reaching: which products of rows of bytes reach a limit, without storing the
 * others. Rows are taken in tiles, whose products with all queries stay in the cache;
 * what a tile finds is a list of its own, so that the order does not depend on the number
 * of threads. `infer` has to know how many there are, so it finds them, and `cpu` copies.
 * Read next: kernels/cpu/reach.h; lua/nyx/prefilter.lua, which asks. */
#include <stdatomic.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/reach.h"
#include "../linalg/gemm.h"
#include "ops.h"

#define TILE_SUMS 65536 /* products of a tile, about */
#define TILE_ROWS 4096  /* at most */
#define FEW 2           /* queries, multiplied row by row: more are a matrix product */
#define MANY 48         /* whose products lie together for each row, not each query */

typedef struct pair {
  int64_t row;
  int32_t query;
  float bound;
} pair;

typedef struct tile_list {
  pair *pairs;
  int64_t count, room;
} tile_list;

typedef struct reach_run {
  nyx_context *ctx;
  const nyx_reach_kernels *kernels;
  nyx__stop stop;
  const int8_t *x, *y; /* queries and rows, of k bytes */
  const float *scale, *extra, *limit;
  int64_t queries, rows, k, tile;
  tile_list *lists; /* one for each tile */
  atomic_int status;
} reach_run;

static bool push(reach_run *r, tile_list *list, int64_t row, int64_t query, int32_t sum) {
  if (list->count == list->room) {
    int64_t room = list->room ? 2 * list->room : 64;
    pair *pairs = nyx_memory_alloc((size_t)room * sizeof *pairs);
    if (!pairs) {
      atomic_store(&r->status, NYX_ERR_MEMORY);
      return false;
    }
    if (list->count) memcpy(pairs, list->pairs, (size_t)list->count * sizeof *pairs);
    nyx_memory_free(list->pairs);
    list->pairs = pairs;
    list->room = room;
  }
  list->pairs[list->count++] =
      (pair){row, (int32_t)query, r->extra[row] + r->scale[row] * (float)sum};
  return true;
}

/* The products of rows first.. and all queries: for each row, or for each query. */
static nyx_status multiply(const reach_run *r, nyx_context *own, int64_t first,
                           int64_t count, int32_t *sums) {
  const int8_t *y = r->y + first * r->k;
  if (r->queries <= FEW) {
    for (int64_t q = 0; q < r->queries; q++)
      r->kernels->dots(y, count, r->k, r->x + q * r->k, sums + q * count);
    return NYX_OK;
  }
  nyx_gemm g = {.dtype = NYX_INT8};
  bool by_row = r->queries >= MANY;
  g.product = (nyx_product){.m = by_row ? count : r->queries,
                            .n = by_row ? r->queries : count,
                            .k = r->k,
                            .a = by_row ? y : r->x,
                            .a_rs = r->k,
                            .a_cs = 1,
                            .b = by_row ? r->x : y,
                            .b_rs = 1,
                            .b_cs = r->k,
                            .c = sums,
                            .ldc = by_row ? r->queries : count};
  return nyx__gemm_low_by(own, &g, NYX_INT32, NYX__LOW_ONE);
}

static void search_tile(reach_run *r, nyx_context *own, int64_t tile, int32_t *sums,
                        int32_t *at) {
  int64_t first = tile * r->tile;
  int64_t count = r->rows - first < r->tile ? r->rows - first : r->tile;
  tile_list *list = &r->lists[tile];
  nyx_status status = multiply(r, own, first, count, sums);
  if (status != NYX_OK) atomic_store(&r->status, status);
  if (status != NYX_OK) return;
  if (r->queries < MANY) {
    for (int64_t q = 0; q < r->queries; q++) {
      int64_t found = r->kernels->rows(sums + q * count, r->scale + first,
                                       r->extra + first, count, r->limit[q], at);
      for (int64_t i = 0; i < found; i++)
        if (!push(r, list, first + at[i], q, sums[q * count + at[i]])) return;
    }
  } else {
    for (int64_t i = 0; i < count; i++) {
      const int32_t *line = sums + i * r->queries;
      int64_t found = r->kernels->queries(line, r->scale[first + i], r->extra[first + i],
                                          r->limit, r->queries, at);
      for (int64_t l = 0; l < found; l++)
        if (!push(r, list, first + i, at[l], line[at[l]])) return;
    }
  }
}

static void search_tiles(void *arg, int64_t first, int64_t end) {
  reach_run *r = arg;
  int64_t most = r->tile > r->queries ? r->tile : r->queries;
  nyx_context own = {.index_base = 0}; /* for messages, which threads cannot share */
  int32_t *sums = nyx_memory_alloc((size_t)(r->tile * r->queries + most) * sizeof *sums);
  if (!sums) atomic_store(&r->status, NYX_ERR_MEMORY);
  for (int64_t t = first; sums && t < end && !nyx__stopped(&r->stop); t++) {
    if (atomic_load_explicit(&r->status, memory_order_relaxed) != NYX_OK) break;
    search_tile(r, &own, t, sums, sums + r->tile * r->queries);
  }
  nyx_memory_free(sums);
}

/* One list of all tiles', in c->found. */
static nyx_status join(nyx_call *c, const reach_run *r, int64_t tiles, int64_t *total) {
  *total = 0;
  for (int64_t t = 0; t < tiles; t++) *total += r->lists[t].count;
  pair *to = nyx_memory_alloc((size_t)*total * sizeof *to);
  if (!to) return nyx__no_memory(c->ctx, (size_t)*total * sizeof *to);
  c->found = to;
  for (int64_t t = 0; t < tiles; to += r->lists[t++].count)
    if (r->lists[t].count)
      memcpy(to, r->lists[t].pairs, (size_t)r->lists[t].count * sizeof *to);
  return NYX_OK;
}

static nyx_status search(nyx_call *c, reach_run *r, int64_t *total) {
  int64_t tile = TILE_SUMS / (r->queries > 0 ? r->queries : 1);
  r->tile = tile > TILE_ROWS ? TILE_ROWS : tile < 64 ? 64 : tile;
  int64_t tiles = (r->rows + r->tile - 1) / r->tile;
  r->lists = nyx_memory_alloc_zeroed((size_t)tiles * sizeof *r->lists);
  if (!r->lists) return nyx__no_memory(c->ctx, (size_t)tiles * sizeof *r->lists);
  nyx__parallel_until(&r->stop, tiles, 4, search_tiles, r);
  nyx_status status = nyx__stop_status(&r->stop);
  if (status == NYX_OK && atomic_load(&r->status) != NYX_OK)
    status = nyx__no_memory(c->ctx, (size_t)(r->tile * r->queries) * sizeof(int32_t));
  if (status == NYX_OK) status = join(c, r, tiles, total);
  for (int64_t t = 0; t < tiles; t++) nyx_memory_free(r->lists[t].pairs);
  nyx_memory_free(r->lists);
  return status;
}

static nyx_status check_inputs(nyx_call *c) {
  const char *const names[] = {"x", "y", "scale", "extra", "limit"};
  nyx_tensor *x = c->in[0], *y = c->in[1];
  for (int i = 0; i < 5; i++) {
    const nyx_tensor *t = c->in[i];
    if (i < 2 ? t->dtype != NYX_INT8 : !nyx_dtype_is_float(t->dtype))
      return nyx__error(c->ctx, DTYPE_INPUT, names[i], nyx_dtype_name(t->dtype),
                        i < 2 ? "int8" : "a float dtype");
    if (i < 2 && t->ndim != 2)
      return nyx__error(c->ctx, NDIM_EXPECTED, names[i], NYX__SHAPE(t), "2 dimensions");
    if (i >= 2 && (t->ndim != 1 || t->shape[0] != (i == 4 ? x : y)->shape[0]))
      return nyx__error(
          c->ctx, NDIM_EXPECTED, names[i], NYX__SHAPE(t),
          i == 4 ? "one number for each row of x" : "one number for each row of y");
  }
  if (x->shape[1] == y->shape[1]) return NYX_OK;
  return nyx__error(c->ctx, NDIM_EXPECTED, "y", NYX__SHAPE(y),
                    "rows as long as those of x");
}

static nyx_status infer_reaching(nyx_call *c) {
  nyx_tensor *plain[5] = {NULL};
  NYX_TRY(check_inputs(c));
  nyx_status status = NYX_OK;
  for (int i = 0; i < 5 && status == NYX_OK; i++)
    status =
        nyx__contiguous_as(c->ctx, c->in[i], i < 2 ? NYX_INT8 : NYX_FLOAT32, &plain[i]);
  int64_t total = 0;
  if (status == NYX_OK) {
    reach_run r = {.ctx = c->ctx,
                   .kernels = nyx__cpu_kernels()->reach,
                   .stop = {.ctx = c->ctx},
                   .x = nyx__data(plain[0]),
                   .y = nyx__data(plain[1]),
                   .scale = nyx__data(plain[2]),
                   .extra = nyx__data(plain[3]),
                   .limit = nyx__data(plain[4]),
                   .queries = plain[0]->shape[0],
                   .rows = plain[1]->shape[0],
                   .k = plain[1]->shape[1]};
    status = search(c, &r, &total);
  }
  for (int i = 0; i < 5; i++) nyx_tensor_release(plain[i]);
  nyx__spec(&c->spec[0], NYX_INT64, 2, (int64_t[]){total, 2});
  nyx__spec(&c->spec[1], NYX_FLOAT32, 1, &total);
  return status;
}

static nyx_status cpu_reaching(nyx_call *c) {
  const pair *found = c->found;
  int64_t *at = nyx__data(c->out[0]), base = c->ctx->index_base;
  float *bound = nyx__data(c->out[1]);
  for (int64_t i = 0; i < c->out[1]->numel; i++) {
    at[2 * i] = found[i].query + base;
    at[2 * i + 1] = found[i].row + base;
    bound[i] = found[i].bound;
  }
  return NYX_OK;
}

const nyx_op nyx__op_int_mm_reaching = {
    .name = "int_mm_reaching",
    .group = "linear algebra",
    .doc =
        "of all products of a row of x and a row of y, bytes summed in int32, those with "
        "extra + scale * product >= limit: positions of both rows, (count, 2), and the "
        "left sides, float32. scale and extra have a number for each row of y, limit has "
        "one for each row of x. In an order that depends on the shapes alone.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES(NYX_INT8),
    .inputs = "x y scale extra limit",
    .min_in = 5,
    .max_in = 5,
    .by_value = true,
    .n_out = 2,
    .infer = infer_reaching,
    .cpu = cpu_reaching,
    .cases =
        "x(3,4)<int8 y(5,4)<int8 scale(5)<float32 extra(5)<float32 limit(3)<float32\n"
        "x(1,4)<int8 y(70,4)<int8 scale(70)<float32 extra(70)<float32 limit(1)<float32\n"
        "x(50,3)<int8 y(9,3)<int8 scale(9)<float32 extra(9)<float32 limit(50)<float32\n"
        "x(2,0)<int8 y(5,0)<int8 scale(5)<float32 extra(5)<float32 limit(2)<float32",
    .domain = {-4, 4},
};
