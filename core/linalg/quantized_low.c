/* Products of bfloat16 rows with a weight of few bits, by the CPU's unit for bfloat16.
 * Integers of up to eight bits are bfloat16 numbers, and so is x: products are exact, as
 * in float32, and sums of a group's terms are multiplied by its scale afterwards. So is
 * what a zero point is off the nearest integer, by the sum of the group's x. Units of C
 * are summed in scratch, as in low.c; whoever sums one unpacks and packs the weights that
 * it needs, a block of terms at a time. Read next: quantized.c, kernels/cpu/low.h.
 */
#include <nyx/parallel.h>
#include <stdatomic.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/elementwise.h"
#include "../../kernels/cpu/low.h"
#include "epilogue.h"
#include "quantized.h"

#define UNIT 256 /* the most rows and columns */
#define TILES 2  /* of them at a time, both ways */
#define PIECE 256

typedef struct low_run {
  nyx_context *ctx;
  const nyx_quantized *w;
  const nyx_low_kernel *kernel;
  const nyx_quantized_kernels *quantized;
  int64_t rows, panels; /* of x */
  const uint16_t *x;
  const float *bias;
  uint16_t *y;
  char *a;                                 /* x in panels */
  float *x_sums;                           /* of each block's terms, by row */
  int64_t group, depth;                    /* terms: of a group, at a time */
  int64_t unit_rows, unit_cols, row_units; /* whole panels, padded */
  atomic_int status;
} low_run;

/* What a unit is summed in. */
typedef struct unit_room {
  float *all;      /* unit_rows x unit_cols */
  float *sums;     /* TILES x TILES tiles */
  uint16_t *plain; /* unit_cols rows of `depth` terms */
  char *panels;    /* the same, packed */
  float *scales;   /* unit_cols, as all below */
  float *rest;     /* what zero points are off `zero`, times -scale */
  int *zero;
} unit_room;

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t round_up(int64_t n, int64_t part) {
  return (n + part - 1) / part * part;
}

bool nyx__quantized_low_takes(const nyx_quantized *w, int64_t rows) {
  const nyx_low_kernel *kernel = nyx__low_kernels()->bf16;
  if (!kernel || kernel->item != sizeof(uint16_t) || rows <= NYX_QUANTIZED_SOME)
    return false;
  if (w->zero && w->zero_dtype != NYX_FLOAT32) return false;
  return w->terms > 0 && w->terms / w->groups % kernel->step == 0 &&
         w->scale_dtype == NYX_FLOAT32;
}

/* Where the block of terms from l on, `terms` of them, of the rows from i on lies. */
static char *a_panel(const low_run *r, int64_t l, int64_t terms, int64_t i) {
  return r->a + (l * r->panels * r->kernel->tile_rows + terms * i) * r->kernel->item;
}

/* Blocks of terms that a group has, and the terms of one of them. */
static int64_t blocks_of(const low_run *r) {
  return (r->group + r->depth - 1) / r->depth;
}

/* Of bfloat16 numbers, a multiple of 16 of them. */
static float sum_of(const uint16_t *x, int64_t terms) {
  nyx_gather_fn gather =
      nyx__cpu_kernels()->elementwise->gather[NYX_BFLOAT16][NYX_IN_FLOAT32];
  float piece[PIECE], sum[16] = {0}, all = 0;
  for (int64_t t = 0; t < terms; t += PIECE) {
    int64_t here = least(PIECE, terms - t);
    gather(here, x + t, 1, piece);
    for (int64_t e = 0; e < here; e += 16)
      for (int l = 0; l < 16; l++) sum[l] += piece[e + l];
  }
  for (int l = 0; l < 16; l++) all += sum[l];
  return all;
}

static void pack_blocks(void *arg, int64_t begin, int64_t end) {
  const low_run *r = arg;
  int64_t blocks = blocks_of(r);
  for (int64_t item = begin; item < end; item++) {
    int64_t first = item % blocks * r->depth, l = item / blocks * r->group + first;
    int64_t terms = least(r->depth, r->group - first);
    r->kernel->pack_a(r->x + l, r->w->terms, 1, r->rows, terms, a_panel(r, l, terms, 0));
    for (int64_t i = 0; i < r->rows && r->w->zero; i++)
      r->x_sums[item * r->rows + i] = sum_of(r->x + i * r->w->terms + l, terms);
  }
}

/* Columns from j on of B in panels, terms l to l + terms. A row's next bytes are asked
 * for while others are unpacked: they are too far apart to be foreseen. */
static void pack_weights(const low_run *r, const unit_room *room, int64_t l,
                         int64_t terms, int64_t j, int64_t cols) {
  const nyx_quantized *w = r->w;
  const nyx_quantized_kernel *kernel =
      w->int4 ? &r->quantized->int4 : &r->quantized->int8;
  int64_t halves = w->int4 ? 2 : 1, bytes = terms / halves;
  for (int64_t n = 0; n < cols; n++) {
    const char *q = (const char *)w->q + ((j + n) * w->terms + l) / halves;
    for (int64_t next = bytes; next < 2 * bytes; next += 64) __builtin_prefetch(q + next);
    kernel->integers(q, terms, room->zero[n], room->plain + n * terms);
  }
  r->kernel->pack_b(room->plain, 1, terms, terms, cols, room->panels);
}

/* The products of a block of terms, some tiles at a time, which stay in the first cache
 * until they are scaled and added. `x`: the sums of its rows, NULL: not needed. */
static void add_block(const low_run *r, const unit_room *room, int64_t l, int64_t terms,
                      int64_t i, int64_t rows, int64_t cols, const float *x) {
  const nyx_low_kernel *k = r->kernel;
  const int64_t most_rows = TILES * k->tile_rows, most_cols = TILES * k->tile_cols;
  nyx_low_block block = {.terms = terms, .c = room->sums, .ldc = most_cols};
  for (int64_t col = 0; col < cols; col += most_cols) {
    int64_t live_cols = least(most_cols, cols - col);
    block.cols = round_up(live_cols, k->tile_cols);
    block.b = room->panels + col * terms * k->item;
    for (int64_t row = 0; row < rows; row += most_rows) {
      int64_t live = least(most_rows, rows - row);
      block.rows = round_up(live, k->tile_rows);
      block.a = a_panel(r, l, terms, i + row);
      k->block(&block);
      r->quantized->add_scaled(live, live_cols, room->sums, most_cols, room->scales + col,
                               x ? x + row : NULL, x ? room->rest + col : NULL,
                               room->all + row * r->unit_cols + col, r->unit_cols);
    }
  }
}

/* Of `cols` columns from j on: scales, and zero points as an integer, which `integers`
 * takes off, and what is left. Whether anything is. */
static bool set_columns(const low_run *r, const unit_room *room, int64_t g, int64_t j,
                        int64_t cols) {
  const nyx_quantized *w = r->w;
  const float *scale = w->scale, *zero = w->zero;
  const float from = w->int4 ? 0 : -128, to = w->int4 ? 15 : 127;
  bool any = false;
  for (int64_t n = 0; n < cols; n++) {
    int64_t at = (j + n) * w->groups + g;
    room->scales[n] = scale[at];
    room->zero[n] = w->int4 ? 8 : 0;
    if (!zero) continue;
    float whole = zero[at] > from ? zero[at] < to ? zero[at] : to : from;
    room->zero[n] = (int)(whole + 128.5f) - 128;
    float left = zero[at] - (float)room->zero[n];
    room->rest[n] = -scale[at] * left;
    any |= left != 0;
  }
  return any;
}

/* A group's share of a unit. */
static void add_group(const low_run *r, const unit_room *room, int64_t g, int64_t i,
                      int64_t rows, int64_t j, int64_t cols) {
  const bool any = set_columns(r, room, g, j, cols);
  int64_t block = g * blocks_of(r);
  for (int64_t first = 0; first < r->group; first += r->depth, block++) {
    int64_t l = g * r->group + first, terms = least(r->depth, r->group - first);
    pack_weights(r, room, l, terms, j, cols);
    add_block(r, room, l, terms, i, rows, cols,
              any ? r->x_sums + block * r->rows + i : NULL);
  }
}

static void multiply_unit(const low_run *r, int64_t unit, const unit_room *room) {
  int64_t i = unit % r->row_units * r->unit_rows, j = unit / r->row_units * r->unit_cols;
  int64_t rows = least(r->unit_rows, r->rows - i);
  int64_t cols = least(r->unit_cols, r->w->outputs - j);
  for (int64_t row = 0; row < rows; row++) {
    float *to = room->all + row * r->unit_cols;
    memset(to, 0, (size_t)cols * sizeof *to);
    if (r->bias) memcpy(to, r->bias + j, (size_t)cols * sizeof *to);
  }
  for (int64_t g = 0; g < r->w->groups; g++) add_group(r, room, g, i, rows, j, cols);
  for (int64_t row = 0; row < rows; row++)
    nyx__epilogue_store(NULL, NYX_BFLOAT16, room->all + row * r->unit_cols, 0, 0, cols,
                        r->y + (i + row) * r->w->outputs + j);
}

static void multiply_units(void *arg, int64_t begin, int64_t end) {
  low_run *r = arg;
  const nyx_low_kernel *k = r->kernel;
  size_t all = (size_t)(r->unit_rows * r->unit_cols) * sizeof(float);
  size_t sums = (size_t)(TILES * k->tile_rows * TILES * k->tile_cols) * sizeof(float);
  size_t terms = (size_t)(r->unit_cols * r->depth) * sizeof(uint16_t);
  size_t cols = (size_t)r->unit_cols * sizeof(float);
  char *room = nyx_memory_alloc(all + sums + 2 * terms + 3 * cols);
  if (!room) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return;
  }
  const unit_room u = {.all = (float *)(void *)room,
                       .sums = (float *)(void *)(room + all),
                       .plain = (uint16_t *)(void *)(room + all + sums),
                       .panels = room + all + sums + terms,
                       .scales = (float *)(void *)(room + all + sums + 2 * terms),
                       .rest = (float *)(void *)(room + all + sums + 2 * terms + cols),
                       .zero = (int *)(void *)(room + all + sums + 2 * terms + 2 * cols)};
  if (k->begin) k->begin();
  for (int64_t unit = begin; unit < end; unit++) {
    if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
    if (atomic_load(&r->status) == NYX_OK) multiply_unit(r, unit, &u);
  }
  if (k->end) k->end();
  nyx_memory_free(room);
}

/* Units of equal size. */
static int64_t equal_parts(int64_t size, int64_t tile, int64_t *part) {
  int64_t tiles = (size + tile - 1) / tile, most = UNIT / tile;
  int64_t parts = (tiles + most - 1) / most;
  *part = (tiles + parts - 1) / parts * tile;
  return (size + *part - 1) / *part;
}

nyx_status nyx__quantized_low(nyx_context *ctx, const nyx_quantized *w, const void *x,
                              int64_t rows, const float *bias, void *y) {
  const nyx_low_kernel *kernel = nyx__low_kernels()->bf16;
  low_run r = {.ctx = ctx,
               .w = w,
               .kernel = kernel,
               .quantized = nyx__cpu_kernels()->quantized,
               .rows = rows,
               .panels = (rows + kernel->tile_rows - 1) / kernel->tile_rows,
               .x = x,
               .bias = bias,
               .y = y,
               .group = w->terms / w->groups};
  atomic_init(&r.status, NYX_OK);
  r.depth = least(kernel->depth, r.group);
  r.row_units = equal_parts(rows, kernel->tile_rows, &r.unit_rows);
  int64_t col_units = equal_parts(w->outputs, kernel->tile_cols, &r.unit_cols);
  int64_t blocks = w->groups * blocks_of(&r);
  size_t panels = (size_t)(r.panels * kernel->tile_rows * w->terms * kernel->item);
  size_t bytes = panels + (size_t)(w->zero ? blocks * rows : 0) * sizeof(float);
  if (!(r.a = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  r.x_sums = (float *)(void *)(r.a + panels);
  nyx_parallel_for(blocks, 1 + 65536 / (rows * r.depth), pack_blocks, &r);
  nyx_parallel_for(r.row_units * col_units, 1, multiply_units, &r);
  nyx_memory_free(r.a);
  switch (atomic_load(&r.status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(ctx, INTERRUPTED);
    default: return nyx__no_memory(ctx, (size_t)(UNIT * UNIT) * sizeof(float));
  }
}
