/* Winograd's convolution of channels-last images by 3 x 3 kernels: winograd.c with the
 * other order of everything. Vectors are channels of a place, a tile's 36 transformed
 * inputs are rows that a product reads where they lie, and its results are rows again.
 * The weight is transformed once, to panels; a unit of work takes a block of tiles, with
 * all output channels or some. What is computed for an output does not depend on this
 * division. Read next: kernels/cpu/winograd.h, conv_last.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/last.h"
#include "../../kernels/cpu/winograd.h"
#include "conv_last.h"

#define SIDE NYX_WINOGRAD_SIDE
#define SEEN 6 /* places that a tile sees in each direction */
#define TAPS NYX_WINOGRAD_TAPS
#define POINTS NYX_WINOGRAD_POINTS

#define TILES 56                          /* of a block, at most */
#define INPUT_BYTES ((int64_t)1 << 20)    /* its transformed inputs, about */
#define UNITS 8                           /* wanted, for threads to share */
#define WEIGHT_BYTES ((int64_t)256 << 20) /* a transformed weight, at most */
#define WEIGHT_CHANNELS 32                /* of the weight, transformed together */
#define RANGE_WORK ((double)(1 << 19))    /* multiplications worth waking a thread for */
/* Of what is transformed, in multiplications of a product: a kernel, a tile of a
 * channel. */
#define KERNEL_COST 1300
#define TILE_COST 320
#define LEAST 16                   /* channels: shorter sums leave the products idle */
#define LARGEST ((int64_t)1 << 24) /* sizes; below it products of two are in range */

typedef struct last_run {
  const nyx__last_sum *s;
  const nyx_gemm_kernel *gemm;
  const nyx_last_kernel *last;
  const nyx_winograd_kernel *kernel;
  int64_t item, tile;            /* bytes of an element; columns of a panel */
  int64_t across, tiles, all;    /* tiles of a row, of an image, of all images */
  int64_t block, blocks;         /* tiles of a block; blocks */
  int64_t panels, splits, split; /* of a group; divisions of them; panels in one */
  int64_t row;                   /* of transformed inputs: whole vectors */
  int64_t weight_step, input_step, product_step; /* from one of the 36 to the next */
  char *weight;
  atomic_uchar *infinite; /* for each image: something was not finite */
  atomic_int status;
} last_run;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* From one of 36 matrices to the next: a line further, see winograd.c. */
static int64_t step_of(const last_run *r, int64_t count) {
  int64_t line = 64 / r->item;
  return (parts(count, line) + 1) * line;
}

static void plan(last_run *r, const nyx__last_sum *s) {
  int k = s->dtype == NYX_FLOAT64;
  *r = (last_run){.s = s,
                  .gemm = &nyx__cpu_kernels()->gemm->type[k],
                  .last = &nyx__cpu_kernels()->last->type[k],
                  .kernel = &nyx__cpu_kernels()->winograd->type[k],
                  .item = (int64_t)nyx_dtype_size(s->dtype),
                  .across = parts(s->window[1].out, SIDE)};
  int64_t rows = r->last->tile_rows;
  r->tile = r->gemm->tile_cols;
  r->tiles = parts(s->window[0].out, SIDE) * r->across;
  r->all = r->tiles * s->images;
  r->row = parts(s->in, r->kernel->lanes) * r->kernel->lanes;
  r->panels = parts(s->out, r->tile);
  int64_t most = least(INPUT_BYTES / (POINTS * r->row * r->item), TILES);
  if (parts(r->all, most) < UNITS) most = least(most, 2 * rows);
  r->block = most > rows ? most / rows * rows : rows;
  r->blocks = parts(r->all, r->block);
  int64_t splits = least(parts(UNITS / 2, r->blocks * s->groups), r->panels);
  r->split = parts(r->panels, splits);
  r->splits = parts(r->panels, r->split);
  r->weight_step = step_of(r, s->in * r->tile);
  r->input_step = step_of(r, r->block * r->row);
  r->product_step = step_of(r, r->block * r->tile);
  atomic_init(&r->status, NYX_OK);
}

static double weight_bytes(const last_run *r) {
  return (double)(r->s->groups * r->panels) * (double)(POINTS * r->weight_step * r->item);
}

bool nyx__winograd_last_takes(const nyx__last_sum *s) {
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &s->window[i];
    if (w->kernel != 3 || w->stride != 1 || w->dilation != 1) return false;
    if (w->in < 1 || w->out < 1 || w->in > LARGEST || w->out > LARGEST) return false;
  }
  if (nyx_dtype_size(s->dtype) < sizeof(float) || s->in < LEAST || s->out < LEAST)
    return false;
  last_run r;
  plan(&r, s);
  if (weight_bytes(&r) > (double)WEIGHT_BYTES) return false;
  double in = (double)s->in, out = (double)s->out, all = (double)r.all;
  double computed = all * in * out * POINTS + in * out * KERNEL_COST +
                    all * (in * (double)r.splits + out) * TILE_COST;
  double positions =
      (double)s->images * (double)s->window[0].out * (double)s->window[1].out;
  return computed < positions * in * out * TAPS;
}

static bool going(last_run *r) {
  if (nyx__interrupted(r->s->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

/* The weight in panels: (group, panel, point, input channel). */

static char *weight_at(const last_run *r, int64_t group, int64_t panel) {
  return r->weight + (group * r->panels + panel) * POINTS * r->weight_step * r->item;
}

/* Items are (group, panel, some input channels). */
static void weight_range(void *arg, int64_t begin, int64_t end) {
  last_run *r = arg;
  const nyx__last_sum *s = r->s;
  int64_t blocks = parts(s->in, WEIGHT_CHANNELS), line = r->tile * r->item;
  size_t bytes = (size_t)(WEIGHT_CHANNELS * line);
  char *taps = nyx_memory_alloc(bytes * (TAPS + 1));
  char *tap = taps + TAPS * (int64_t)bytes;
  if (!taps) atomic_store(&r->status, NYX_ERR_MEMORY);
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t c = i % blocks * WEIGHT_CHANNELS, n = least(WEIGHT_CHANNELS, s->in - c);
    int64_t panel = i / blocks % r->panels, group = i / blocks / r->panels;
    int64_t o = panel * r->tile, live = least(r->tile, s->out - o);
    for (int64_t t = 0; t < TAPS; t++) {
      int64_t at = group * s->w_group + o * s->w_out + c * s->w_in + t / 3 * s->w_tap[0] +
                   t % 3 * s->w_tap[1];
      r->gemm->pack_b(s->weight + at * r->item, s->w_in, s->w_out, n, live, tap);
      for (int64_t k = 0; k < n; k++)
        memcpy(taps + (k * TAPS + t) * line, tap + k * line, (size_t)line);
    }
    r->kernel->weight(taps, r->tile, n, weight_at(r, group, panel) + c * line,
                      r->weight_step);
  }
  nyx_memory_free(taps);
}

/* A block of tiles */

typedef struct unit {
  int64_t group, t0, t1, panel0, panel1;
  char *inputs, *products;
  const void **a;
  void **c;
} unit;

/* Tile t: its image, and its first row and column of results. */
static void find_tile(const last_run *r, int64_t t, int64_t at[3]) {
  at[0] = t / r->tiles;
  at[1] = t % r->tiles / r->across * SIDE;
  at[2] = t % r->across * SIDE;
}

static void transform_inputs(const last_run *r, const unit *u) {
  const nyx__last_sum *s = r->s;
  for (int64_t t = u->t0; t < u->t1; t++) {
    const void *from[SEEN * SEEN];
    int64_t at[3];
    find_tile(r, t, at);
    const char *image = s->x + (at[0] * s->x_image + u->group * s->in) * r->item;
    for (int64_t i = 0; i < SEEN * SEEN; i++) {
      int64_t y = at[1] - s->window[0].pad + i / SEEN;
      int64_t x = at[2] - s->window[1].pad + i % SEEN;
      bool inside = y >= 0 && y < s->window[0].in && x >= 0 && x < s->window[1].in;
      from[i] = inside ? image + (y * s->x_row + x * s->x_pixel) * r->item : NULL;
    }
    r->kernel->place(from, s->in, u->inputs + (t - u->t0) * r->row * r->item,
                     r->input_step);
  }
}

/* The 36 products of a panel of output channels. */
static void multiply(const last_run *r, const unit *u, int64_t panel) {
  const nyx__last_sum *s = r->s;
  int64_t tiles = u->t1 - u->t0, depth = r->gemm->depth;
  for (int64_t f = 0; f < POINTS; f++) {
    const char *b = weight_at(r, u->group, panel) + f * r->weight_step * r->item;
    for (int64_t q = 0; q < tiles; q++) {
      u->a[q] = u->inputs + (f * r->input_step + q * r->row) * r->item;
      u->c[q] = u->products + (f * r->product_step + q * r->tile) * r->item;
    }
    for (int64_t c = 0; c < s->in; c += depth) {
      const nyx_last_product p = {.m = tiles,
                                  .n = least(r->tile, s->out - panel * r->tile),
                                  .a = u->a,
                                  .run = &c,
                                  .runs = 1,
                                  .length = least(depth, s->in - c),
                                  .b = b + c * r->tile * r->item,
                                  .c = u->c,
                                  .add = c > 0};
      r->last->product(&p);
    }
  }
}

static void give_outputs(const last_run *r, const unit *u, int64_t panel) {
  const nyx__last_sum *s = r->s;
  int64_t o = u->group * s->out + panel * r->tile;
  const char *bias = s->bias ? s->bias + o * r->item : NULL;
  for (int64_t t = u->t0; t < u->t1; t++) {
    void *to[SIDE * SIDE];
    int64_t at[3];
    find_tile(r, t, at);
    char *image = s->y + (at[0] * s->y_image + o) * r->item;
    for (int64_t i = 0; i < SIDE * SIDE; i++) {
      int64_t y = at[1] + i / SIDE, x = at[2] + i % SIDE;
      bool inside = y < s->window[0].out && x < s->window[1].out;
      to[i] = inside ? image + (y * s->y_row + x * s->y_pixel) * r->item : NULL;
    }
    const char *sums = u->products + (t - u->t0) * r->tile * r->item;
    if (!r->kernel->give(sums, r->product_step, bias,
                         least(r->tile, s->out - panel * r->tile), to))
      atomic_store_explicit(&r->infinite[at[0]], 1, memory_order_relaxed);
  }
}

/* What comes after, for some panels of output channels, which have been written. */
static void end_outputs(const last_run *r, const unit *u, int64_t first, int64_t last) {
  const nyx__last_sum *s = r->s;
  int64_t cols = least(last * r->tile, s->out) - first * r->tile;
  for (int64_t t = u->t0; t < u->t1; t++) {
    int64_t at[3];
    find_tile(r, t, at);
    const int64_t rows = least(SIDE, s->window[0].out - at[1]);
    char *to = s->y + (at[0] * s->y_image + at[1] * s->y_row + at[2] * s->y_pixel +
                       u->group * s->out + first * r->tile) *
                          r->item;
    for (int64_t i = 0; i < rows; i++, to += s->y_row * r->item)
      nyx__epilogue_there(s->after, s->dtype, to, least(SIDE, s->window[1].out - at[2]),
                          cols, s->y_pixel);
  }
}

/* The scratch of a range of units; false: no memory. Its block is u->inputs. */
static bool take_scratch(last_run *r, unit *u) {
  size_t inputs = (size_t)(POINTS * r->input_step * r->item);
  size_t products = (size_t)(POINTS * r->product_step * r->item);
  size_t pointers = (size_t)r->block * sizeof(void *);
  char *block = nyx_memory_alloc(inputs + products + 2 * pointers);
  if (!block) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return false;
  }
  *u = (unit){.inputs = block, .products = block + inputs};
  u->a = (const void **)(void *)(u->products + products);
  u->c = (void **)(void *)(u->products + products + pointers);
  return true;
}

/* Units are (block, group, division of the panels). */
static void block_range(void *arg, int64_t begin, int64_t end) {
  last_run *r = arg;
  unit u;
  if (!take_scratch(r, &u)) return;
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t block = i / r->splits / r->s->groups, first = i % r->splits * r->split;
    int64_t last = least(first + r->split, r->panels);
    u.group = i / r->splits % r->s->groups;
    u.t0 = block * r->block;
    u.t1 = least(u.t0 + r->block, r->all);
    transform_inputs(r, &u);
    for (int64_t p = first; p < last && going(r); p++) {
      multiply(r, &u, p);
      give_outputs(r, &u, p);
    }
    if (r->s->after) end_outputs(r, &u, first, last);
  }
  nyx_memory_free(u.inputs);
}

/* The images that are not finite, again. */
static nyx_status run_infinite(const last_run *r) {
  nyx__last_sum s = *r->s;
  s.images = 1;
  for (int64_t n = 0; n < r->s->images; n++) {
    if (!atomic_load_explicit(&r->infinite[n], memory_order_relaxed)) continue;
    s.x = r->s->x + n * s.x_image * r->item;
    s.y = r->s->y + n * s.y_image * r->item;
    NYX_TRY(nyx__last_plain(&s));
  }
  return NYX_OK;
}

static void run_all(last_run *r) {
  const nyx__last_sum *s = r->s;
  double kernels = (double)(r->tile * WEIGHT_CHANNELS) * KERNEL_COST;
  nyx_parallel_for(s->groups * r->panels * parts(s->in, WEIGHT_CHANNELS),
                   nyx__last_grain(kernels, RANGE_WORK), weight_range, r);
  double work = (double)(r->block * POINTS * r->split) * (double)(r->tile * s->in);
  if (going(r))
    nyx_parallel_for(r->blocks * s->groups * r->splits, nyx__last_grain(work, RANGE_WORK),
                     block_range, r);
}

nyx_status nyx__winograd_last(const nyx__last_sum *s) {
  last_run r;
  plan(&r, s);
  size_t bytes = (size_t)weight_bytes(&r), flags = (size_t)s->images * sizeof *r.infinite;
  if (!(r.weight = nyx_memory_alloc(bytes))) return nyx__no_memory(s->ctx, bytes);
  if (!(r.infinite = nyx_memory_alloc(flags))) {
    nyx_memory_free(r.weight);
    return nyx__no_memory(s->ctx, flags);
  }
  for (int64_t n = 0; n < s->images; n++) atomic_init(&r.infinite[n], 0);
  run_all(&r);
  nyx_memory_free(r.weight);
  nyx_status status =
      nyx__last_finish(s->ctx, &r.status, (size_t)(POINTS * r.input_step * r.item));
  if (status == NYX_OK) status = run_infinite(&r);
  nyx_memory_free(r.infinite);
  return status;
}
