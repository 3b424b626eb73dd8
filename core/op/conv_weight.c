/* The adjoint of a convolution with respect to the weight: y (output channels x
 * positions) times the column matrix turned (positions x terms). Positions are summed in
 * blocks of r->columns, in segments with a partial sum each: few where they are short, as
 * sums cost as much to write and read as many terms. Read next: conv_columns.h,
 * conv_product.h. */
#include <nyx/parallel.h>
#include <string.h>

#include "conv_columns.h"
#include "conv_product.h"

#define SEGMENTS 16                       /* partial sums, at most */
#define SEGMENT_BYTES ((int64_t)64 << 20) /* all of them together */
#define CHUNK_TERMS 512                   /* of a unit */
#define CHUNK_ROWS 256                    /* and rows, at least where these are divided */
#define WEIGHT_UNITS 8                    /* wanted where sums are short */
#define LONG 3                            /* blocks of a sum that is not */

typedef struct weight_run {
  product_run p;
  char *to, *partial;
  int64_t chunk, chunks;    /* input channels of a unit; units of a group */
  int64_t blocks, segments; /* of positions; of these, equal but for a block */
} weight_run;

int64_t nyx__conv_segments(int64_t blocks, int64_t wanted, int64_t units) {
  int64_t fewest = parts(blocks, parts(blocks, wanted));
  bool odd = fewest > 1 && fewest * units % 2 != 0;
  return least(odd ? fewest + 1 : fewest, blocks);
}

/* The units of a group: chunks of channels, rows, segments. */
static void divide_weight(weight_run *w) {
  product_run *r = &w->p;
  int64_t units = r->v->groups * w->chunks;
  nyx__columns_divide(r, parts(WEIGHT_UNITS, units), CHUNK_ROWS);
  units *= r->row_units;
  int64_t segments = SEGMENTS / units + 1, enough = parts(WEIGHT_UNITS, units);
  if (enough < w->blocks / LONG) enough = w->blocks / LONG;
  segments = least(least(segments, enough), w->blocks);
  int64_t most = SEGMENT_BYTES / (r->v->out_channels * r->terms * r->item);
  segments = least(segments, most > 1 ? most : 1);
  w->segments = nyx__conv_segments(w->blocks, segments, units);
}

static bool plan_weight(weight_run *w, const nyx__conv *v) {
  product_run *r = &w->p;
  *w = (weight_run){.chunks = 1};
  if (!nyx__columns_describe(r, v)) return false;
  int64_t tile = r->gemm->tile_cols, all = v->images * r->positions;
  int64_t most = CHUNK_TERMS / r->taps > 1 ? CHUNK_TERMS / r->taps : 1;
  w->chunk = parts(r->in_group, parts(r->in_group, most));
  if (w->chunk < r->in_group && w->chunk >= tile) /* whole panels */
    w->chunk = (w->chunk + tile / 2) / tile * tile;
  w->chunks = parts(r->in_group, w->chunk);
  r->columns = parts(all, parts(all, r->gemm->depth)); /* here: the depth */
  r->columns = least((r->columns + 15) / 16 * 16, r->gemm->depth);
  w->blocks = parts(all, r->columns);
  divide_weight(w);
  if (!nyx__columns_pad(r, w->chunk)) return false;
  int64_t terms = parts(w->chunk * r->taps, tile) * tile, lanes = r->patches->lanes;
  r->panel_bytes = (size_t)((r->columns * terms + lanes * tile) * r->item);
  r->offset_bytes = (size_t)terms * sizeof(int64_t);
  r->patch_bytes = (size_t)r->columns * sizeof(nyx_patch);
  r->a_bytes = (size_t)(row_block(r) * r->columns * r->item);
  return r->panel_bytes <= (size_t)SCRATCH_BYTES;
}

bool nyx__conv_product_takes_weight(const nyx__conv *v) {
  weight_run w;
  return nyx__columns_usable() && plan_weight(&w, v);
}

/* The terms of channels c0.., turned, for all columns of the unit. */
static void pack_terms(const product_run *r, const unit *u, int64_t terms) {
  int64_t tile = r->gemm->tile_cols, columns = u->q1 - u->q0;
  int64_t n = nyx__columns_patches(r, u, u->q0, columns);
  for (int64_t t = 0; t < terms; t += tile) {
    r->patches->pack_turned(u->from, u->offset + t, least(tile, terms - t), u->patch, n,
                            tile, u->panels + t * columns * r->item);
  }
}

/* Rows row.. of y, of the unit's columns, as panels of A. */
static void pack_y(const product_run *r, const unit *u, int64_t row, int64_t rows) {
  int64_t columns = u->q1 - u->q0, next;
  for (int64_t i = 0; i < rows; i += r->width) {
    int64_t live = least(r->width, rows - i);
    for (int64_t q = u->q0; q < u->q1; q = next) {
      int64_t n = q / r->positions, first = q - n * r->positions;
      next = least((n + 1) * r->positions, u->q1);
      const char *from = y_at(r, n, u->group * r->out_group + row + i) + first * r->item;
      r->gemm->pack_a(from, r->positions, 1, live, live, next - q,
                      u->a + (i * columns + (q - u->q0) * live) * r->item);
    }
  }
}

/* Adds a block of positions to what channels c0..c1-1 have of the weight at `to`. */
static void weight_block(const product_run *r, unit *u, int64_t c0, int64_t c1, char *to,
                         bool add) {
  int64_t terms = (c1 - c0) * r->taps, block = row_block(r);
  nyx__columns_open(r, u, c0, c1);
  nyx__columns_offsets(r, u, 0, terms);
  pack_terms(r, u, terms);
  for (int64_t row = u->o0; row < u->o1; row += block) {
    int64_t at = (u->group * r->out_group + row) * r->terms + c0 * r->taps;
    nyx_product p = {.m = least(block, u->o1 - row),
                     .n = terms,
                     .k = u->q1 - u->q0,
                     .c = to + at * r->item,
                     .ldc = r->terms,
                     .add = add};
    pack_y(r, u, row, p.m);
    r->gemm->block(&p, r->width, u->a, u->panels);
  }
}

/* Units are (segment, group, chunk of channels, rows). */
static void weight_range(void *arg, int64_t begin, int64_t end) {
  weight_run *w = arg;
  product_run *r = &w->p;
  int64_t all = r->v->images * r->positions;
  int64_t bytes = r->v->out_channels * r->terms * r->item;
  unit u;
  if (!nyx__columns_scratch(r, &u)) return;
  for (int64_t i = begin; i < end; i++) {
    int64_t chunk = i / r->row_units, segment = chunk / w->chunks / r->v->groups;
    int64_t c0 = chunk % w->chunks * w->chunk, c1 = least(c0 + w->chunk, r->in_group);
    int64_t first = segment * w->blocks / w->segments;
    int64_t last = (segment + 1) * w->blocks / w->segments;
    u.group = chunk / w->chunks % r->v->groups;
    u.o0 = i % r->row_units * r->rows;
    u.o1 = least(u.o0 + r->rows, r->out_group);
    for (int64_t b = first; b < last && going(r); b++) {
      u.q0 = b * r->columns;
      u.q1 = least(u.q0 + r->columns, all);
      weight_block(r, &u, c0, c1, w->partial ? w->partial + segment * bytes : w->to,
                   b > first);
    }
  }
  nyx_memory_free(u.padded);
}

#define SUM_SEGMENTS(name, T)                                                            \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    const weight_run *w = arg;                                                           \
    const T *from = (const T *)(const void *)w->partial;                                 \
    T *to = (T *)(void *)w->to;                                                          \
    int64_t count = w->p.v->out_channels * w->p.terms;                                   \
    memcpy(to + begin, from + begin, (size_t)(end - begin) * sizeof(T));                 \
    for (int64_t s = 1; s < w->segments; s++) {                                          \
      from += count;                                                                     \
      for (int64_t q = begin; q < end; q++) to[q] += from[q];                            \
    }                                                                                    \
  }
SUM_SEGMENTS(sum_segments_f32, float)
SUM_SEGMENTS(sum_segments_f64, double)

nyx_status nyx__conv_product_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                    const void *x, void *weight) {
  weight_run w;
  plan_weight(&w, v);
  product_run *r = &w.p;
  r->ctx = ctx;
  r->x = x;
  r->y = (char *)y; /* only read here */
  w.to = weight;
  atomic_init(&r->status, NYX_OK);
  int64_t count = v->out_channels * r->terms;
  size_t bytes = (size_t)(w.segments * count * r->item);
  if (w.segments > 1 && !(w.partial = nyx_memory_alloc(bytes))) {
    return nyx__no_memory(ctx, bytes);
  }
  double work = (double)(parts(w.blocks, w.segments) * r->columns) *
                (double)(w.chunk * r->taps) * (double)r->rows;
  nyx_parallel_for(w.segments * v->groups * w.chunks * r->row_units, grain_of(work),
                   weight_range, &w);
  if (w.partial && going(r)) {
    nyx_parallel_for(count, 1 << 15,
                     v->dtype == NYX_FLOAT32 ? sum_segments_f32 : sum_segments_f64, &w);
  }
  nyx_memory_free(w.partial);
  return nyx__columns_finish(r);
}
