/* Winograd's convolution by 3 x 3 kernels. The weight is transformed once. Then each unit
 * of work takes a block of tiles through all three steps while it is in the second cache:
 * transformed matrices (channels x tiles; 36, or 25 with stride 2), their products with
 * the weight's, for a few output channels at a time, and the outputs. Where there are few
 * tiles, the first step is done for all of them and units share the output channels too.
 * Of up to four tiles units transform the kernels as they multiply.
 * What is computed for an output does not depend on this division. Read next:
 * kernels/cpu/winograd.h. */
#include "winograd.h"

#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/winograd.h"
#include "../tensor/packed.h"
#include "conv_product.h"
#include "conv_turn.h"

#define TAPS NYX_WINOGRAD_TAPS
#define FEW NYX_WINOGRAD_FEW
#define FEW_CHANNELS NYX_WINOGRAD_FEW_CHANNELS

#define UNITS 16                         /* wanted, for threads to share */
#define INPUT_BYTES (768 << 10)          /* the transformed inputs of a block */
#define PRODUCT_BYTES (256 << 10)        /* its products with some output channels */
#define SHARED_BYTES (8 << 20)           /* the transformed inputs of all, where shared */
#define WEIGHT_BYTES ((size_t)256 << 20) /* a transformed weight, four times as large */
#define WEIGHT_CHANNELS 32               /* of the weight, transformed together */
#define RANGE_WORK (1 << 19)             /* multiplications worth waking a thread for */
/* Of what is transformed, in multiplications of a product: a kernel, the same with stride
 * 2, a tile of a channel to or from 36 points. Measured on Sapphire Rapids. */
#define KERNEL_COST 600
#define HALF_KERNEL_COST 400
#define TILE_COST 320
#define FEW_KERNELS (1 << 14)      /* that few tiles are worth */
#define FEW_GRAIN 64               /* channels of few tiles worth waking a thread for */
#define FEW_KERNEL_COST 150        /* where it stays in the first cache */
#define LEAST 16                   /* channels: shorter sums leave the products idle */
#define LARGEST ((int64_t)1 << 24) /* sizes; below it products of two are in range */

typedef struct winograd_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const nyx_gemm_kernel *gemm;
  const nyx_winograd_kernel *kernel;
  const nyx_winograd_form *form;
  int64_t n_in, n_weight, n_out; /* matrices: of inputs, of the weight, of products */
  int64_t item;
  const char *x, *bias, *weight, *transformed;
  char *y, *to; /* to: the transformed weight, when it is written */
  int64_t in_group, out_group, plane, positions;
  int64_t across, tiles, all;     /* tiles of a row, of an image, of all images */
  int64_t width, depth;           /* of the panels of A; channels at a time */
  int64_t columns, block, blocks; /* tiles of a panel of B, of a block; blocks */
  int64_t rows, row_units;        /* output channels at a time; such parts of a group */
  int64_t weight_step, input_step, product_step; /* from a matrix to the next */
  bool own;  /* units transform what they need of the weight */
  bool few;  /* so few tiles that lanes are output channels; see winograd_few_type.h */
  bool thin; /* the last tile would need a vector of its own: 49 are 3 x 16 and it */
  /* The convolution whose gradient of the input this is: its weight lies (input channel,
   * output channel, tap) for this one, taps backwards. NULL: none. */
  const nyx__conv *adjoint;
  size_t strip_bytes, input_bytes, product_bytes, taps_bytes, weight_bytes;
  char *inputs;           /* of all blocks, where they are shared */
  atomic_uchar *infinite; /* for each image: something was not finite */
  atomic_int status;
} winograd_run;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* From one matrix of `count` elements to the next: a line further, or all would
 * compete for the same lines of a cache. */
static int64_t step_of(const winograd_run *r, int64_t count) {
  int64_t line = 64 / r->item;
  return (parts(count, line) + 1) * line;
}

/* Tiles of a block, output channels at a time. */
static void divide(winograd_run *r) {
  int64_t lanes = r->kernel->lanes;
  if (r->few) {
    r->columns = r->block = FEW;
    r->blocks = 1;
    r->rows = 2 * lanes;
    r->row_units = parts(r->out_group, r->rows);
    return;
  }
  int64_t most =
      INPUT_BYTES / (r->n_in * r->item * r->in_group) / r->columns * r->columns;
  most = least(most > r->columns ? most : r->columns, NYX_WINOGRAD_TILES);
  if (r->all <= NYX_WINOGRAD_TILES) most = NYX_WINOGRAD_TILES;
  r->blocks = parts(r->all, most);
  if (r->blocks > 1 && r->blocks < UNITS) r->blocks = parts(r->all, r->columns);
  r->block = parts(parts(r->all, r->blocks), lanes) * lanes;
  r->blocks = parts(r->all, r->block);
  int64_t panels =
      r->own ? 1 : PRODUCT_BYTES / (r->n_out * r->item * r->block) / r->width;
  r->rows = least((panels > 1 ? panels : 1) * r->width, r->out_group);
  r->row_units = parts(r->out_group, r->rows);
}

/* All tiles are one block, with a vector for the last. */
static bool last_is_thin(const winograd_run *r) {
  int64_t lanes = r->kernel->lanes;
  return r->all <= NYX_WINOGRAD_TILES && r->all > lanes && r->all % lanes == 1;
}

static void describe(winograd_run *r, const nyx__conv *v,
                     const nyx_winograd_kernel *kernels) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  const nyx_winograd_kernel *kernel = &kernels[v->dtype == NYX_FLOAT64];
  const nyx_winograd_form *form = kernel->form;
  *r = (winograd_run){.v = v,
                      .gemm = &nyx__cpu_kernels()->gemm->type[v->dtype == NYX_FLOAT64],
                      .kernel = kernel,
                      .form = form,
                      .n_in = form->inputs * form->inputs,
                      .n_weight = form->weights * form->weights,
                      .n_out = form->outputs * form->outputs,
                      .item = (int64_t)nyx_dtype_size(v->dtype),
                      .in_group = v->in_channels / v->groups,
                      .out_group = v->out_channels / v->groups,
                      .plane = wy->in * wx->in,
                      .positions = wy->out * wx->out,
                      .across = parts(wx->out, form->side)};
  r->tiles = parts(wy->out, form->side) * r->across;
  r->all = r->tiles * v->images;
  r->columns = r->gemm->tile_cols;
  r->width = parts(r->out_group, parts(r->out_group, r->gemm->tile_rows));
  r->depth = parts(r->in_group, parts(r->in_group, r->gemm->depth));
  r->weight_step = step_of(r, r->out_group * r->in_group);
  r->few = kernel->few && r->all <= FEW && r->in_group * r->out_group >= FEW_KERNELS;
  atomic_init(&r->status, NYX_OK);
}

/* Inputs are some channels of all points; see nyx_winograd_few. */
static void plan_few(winograd_run *r) {
  int64_t inputs = parts(r->in_group, FEW_CHANNELS) * FEW_CHANNELS * FEW;
  r->input_step = step_of(r, FEW_CHANNELS * FEW);
  r->product_step = step_of(r, r->rows * FEW);
  r->strip_bytes = FEW * sizeof(nyx_winograd_strip);
  r->input_bytes = (size_t)(r->n_in * inputs * r->item);
  r->product_bytes = (size_t)(r->n_out * r->product_step * r->item);
  r->taps_bytes = (size_t)(r->n_in * r->input_step * r->item); /* on the way */
}

/* After describe. */
static void plan(winograd_run *r, bool own) {
  r->own = own;
  divide(r);
  if (r->few) {
    plan_few(r);
    return;
  }
  int64_t panels = parts(r->block, r->columns) * r->columns;
  r->input_step = step_of(r, panels * r->in_group);
  r->product_step = step_of(r, r->rows * r->block);
  r->strip_bytes = (size_t)r->block * sizeof(nyx_winograd_strip);
  r->thin = last_is_thin(r);
  r->input_bytes =
      (size_t)(r->n_in * (r->input_step + (r->thin ? r->in_group : 0)) * r->item);
  r->product_bytes = (size_t)(r->n_out * r->product_step * r->item);
  if (!r->own) return;
  r->weight_step = step_of(r, r->rows * r->depth);
  r->taps_bytes = (size_t)(WEIGHT_CHANNELS * TAPS * r->width * r->item);
  r->weight_bytes = (size_t)(r->n_weight * r->weight_step * r->item);
}

/* Whether fewer multiplications pay for the transforms, whose costs are counted in
 * multiplications of the products too. */
static bool worth(const winograd_run *r, double direct) {
  double lanes = (double)r->kernel->lanes, all = (double)r->all;
  double in = (double)r->in_group, out = (double)r->out_group;
  double terms = (double)(r->form->terms * r->form->terms);
  double columns = last_is_thin(r) ? all : ceil(all / lanes) * lanes;
  double computed = (r->few ? FEW : columns) * in * out * terms;
  double kernel = r->few             ? FEW_KERNEL_COST
                  : r->n_weight < 36 ? HALF_KERNEL_COST
                                     : KERNEL_COST;
  double kernels = in * out * kernel;
  double points = in * (double)r->n_in + out * (double)r->n_out;
  double tiles = all * points * TILE_COST / 36;
  return computed + kernels + tiles < direct;
}

static const nyx_winograd_kernel *kernels_of(const nyx__conv *v) {
  const nyx_winograd_kernels *all = nyx__cpu_kernels()->winograd;
  return v->window[0].stride == 2 ? all->half : all->type;
}

/* Whether the sizes are those of such a convolution. */
static bool has_form(const nyx__conv *v) {
  int64_t stride = v->window[0].stride;
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &v->window[i];
    if (w->kernel != 3 || w->stride != stride || stride > 2 || w->dilation != 1)
      return false;
    if (w->in < 1 || w->out < 1 || w->in > LARGEST || w->out > LARGEST) return false;
  }
  return v->in_channels / v->groups >= LEAST && v->out_channels / v->groups >= LEAST;
}

static size_t weight_bytes(const winograd_run *r) {
  return (size_t)(r->v->groups * r->n_weight * r->weight_step * r->item);
}

static bool pays(const winograd_run *r, int64_t direct) {
  if (r->all > NYX_WINOGRAD_TILES && weight_bytes(r) > WEIGHT_BYTES) return false;
  double positions = (double)(r->v->images * direct);
  return worth(r, positions * (double)r->in_group * (double)r->out_group * TAPS);
}

bool nyx__winograd_takes(const nyx__conv *v) {
  winograd_run r;
  if (!has_form(v)) return false;
  describe(&r, v, kernels_of(v));
  return pays(&r, r.positions) && nyx__conv_product_takes(v);
}

static bool going(winograd_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

static nyx_status finish(const winograd_run *r) {
  switch (atomic_load(&r->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(r->ctx, INTERRUPTED);
    default: return nyx__no_memory(r->ctx, r->input_bytes + r->product_bytes);
  }
}

/* Ranges of units of so many multiplications each. */
static int64_t grain_of(double work) {
  return work < RANGE_WORK ? (int64_t)(RANGE_WORK / (work + 1)) + 1 : 1;
}

/* The weight */

/* Where a panel of A of the first matrix begins: groups, matrices, blocks of channels,
 * panels. */
static int64_t panel_at(const winograd_run *r, int64_t group, int64_t channel,
                        int64_t row) {
  int64_t depth = least(r->depth, r->in_group - channel);
  return group * r->n_weight * r->weight_step + channel * r->out_group + row * depth;
}

size_t nyx__winograd_weight_bytes(const nyx__conv *v) {
  winograd_run r;
  describe(&r, v, kernels_of(v));
  return weight_bytes(&r);
}

/* The channels first..last-1 of a panel of rows. */
static void transform_panel(const winograd_run *r, int64_t group, int64_t row,
                            int64_t live, int64_t first, int64_t last, char *taps,
                            char *to) {
  int64_t kernel = (group * r->out_group + row) * r->in_group;
  if (r->adjoint) {
    kernel = (group * r->in_group + first) * r->out_group + row;
    r->kernel->turned(r->weight + kernel * TAPS * r->item, r->out_group * TAPS, live,
                      last - first, to, r->weight_step);
    return;
  }
  const char *from = r->weight + kernel * TAPS * r->item;
  for (int64_t c = first; c < last; c += WEIGHT_CHANNELS) {
    int64_t n = least(WEIGHT_CHANNELS, last - c);
    r->gemm->pack_a(from + c * TAPS * r->item, r->in_group * TAPS, 1, live, live,
                    n * TAPS, taps);
    r->kernel->weight(taps, live, n, to + (c - first) * live * r->item, r->weight_step);
  }
}

/* Items are (group, panel, block of channels, piece of it): the panels of a small weight
 * are few for the threads. */
static void weight_range(void *arg, int64_t begin, int64_t end) {
  winograd_run *r = arg;
  int64_t panels = parts(r->out_group, r->width), blocks = parts(r->in_group, r->depth);
  int64_t pieces = parts(r->depth, WEIGHT_CHANNELS);
  char *taps = nyx_memory_alloc((size_t)(WEIGHT_CHANNELS * TAPS * r->width * r->item));
  if (!taps) atomic_store(&r->status, NYX_ERR_MEMORY);
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t block = i / pieces % blocks * r->depth;
    int64_t first = block + i % pieces * WEIGHT_CHANNELS;
    int64_t last = least(least(first + WEIGHT_CHANNELS, block + r->depth), r->in_group);
    int64_t row = i / pieces / blocks % panels * r->width;
    int64_t group = i / pieces / blocks / panels,
            live = least(r->width, r->out_group - row);
    if (first >= last) continue;
    transform_panel(
        r, group, row, live, first, last, taps,
        r->to + (panel_at(r, group, block, row) + (first - block) * live) * r->item);
  }
  nyx_memory_free(taps);
}

static nyx_status transform_weight(winograd_run *r) {
  int64_t panels = parts(r->out_group, r->width), blocks = parts(r->in_group, r->depth);
  int64_t pieces = parts(r->depth, WEIGHT_CHANNELS);
  nyx_parallel_for(r->v->groups * panels * blocks * pieces,
                   grain_of((double)(r->width * WEIGHT_CHANNELS) * KERNEL_COST),
                   weight_range, r);
  return finish(r);
}

nyx_status nyx__winograd_weight(nyx_context *ctx, const nyx__conv *v, const void *weight,
                                void *to) {
  winograd_run r;
  describe(&r, v, kernels_of(v));
  r.ctx = ctx;
  r.weight = weight;
  r.to = to;
  return transform_weight(&r);
}

/* A block of tiles */

typedef struct unit {
  int64_t group, t0, t1; /* tiles */
  nyx_winograd_block block;
  nyx_winograd_strip *strip;
  char *stage, *inputs, *products, *taps, *weights;
} unit;

/* The strips of tiles t0..t1-1 of all images. */
static void find_strips(const winograd_run *r, unit *u) {
  const nyx__window *wy = &r->v->window[0], *wx = &r->v->window[1];
  const int64_t side = r->form->side, step = r->form->step;
  int64_t n = 0;
  for (int64_t t = u->t0, next; t < u->t1; t = next) {
    int64_t image = t / r->tiles, row = t % r->tiles / r->across;
    int64_t column = t % r->across, x = column * side, y = row * side;
    next = least(t - column + r->across, u->t1);
    u->strip[n++] = (nyx_winograd_strip){
        .first = t - u->t0,
        .count = next - t,
        .x = image * r->v->in_channels * r->plane,
        .top = row * step - wy->pad,
        .left = column * step - wx->pad,
        .y = image * r->v->out_channels * r->positions + y * wx->out + x,
        .rows = least(side, wy->out - y),
        .columns = least((next - t) * side, wx->out - x)};
  }
  u->block = (nyx_winograd_block){.tiles = u->t1 - u->t0,
                                  .strips = n,
                                  .strip = u->strip,
                                  .height = wy->in,
                                  .width = wx->in,
                                  .y_width = wx->out,
                                  .y_plane = r->positions};
}

/* Channels of the last tile of matrix i, side by side behind the panels. */
static char *thin_at(const winograd_run *r, const unit *u, int64_t i, int64_t channel) {
  int64_t at = r->n_in * r->input_step + i * r->in_group + channel;
  return u->inputs + at * r->item;
}

/* Copies them from the panels, where channel c is at `at`, its block `depth` deep. */
static void copy_thin(const winograd_run *r, const unit *u, int64_t c, int64_t channels,
                      int64_t at, int64_t depth) {
  int64_t tile = r->all - 1;
  at += tile / r->columns * r->columns * depth + tile % r->columns;
  for (int64_t i = 0; i < r->n_in; i++)
    r->gemm->pack_a(u->inputs + (i * r->input_step + at) * r->item, 1, r->columns, 1, 1,
                    channels, thin_at(r, u, i, c));
}

/* Channels c0..c1-1 of few tiles. Rows of vectors are written elsewhere first: beyond the
 * tiles are the next channels', which another thread may have written. */
static void transform_few(const winograd_run *r, const unit *u, int64_t c0, int64_t c1) {
  for (int64_t c = c0, next; c < c1; c = next) {
    int64_t chunk = c / FEW_CHANNELS, first = c % FEW_CHANNELS;
    next = least((chunk + 1) * FEW_CHANNELS, c1);
    r->kernel->input(&u->block, r->x + (u->group * r->in_group + c) * r->plane * r->item,
                     next - c, u->stage, u->taps, r->input_step, FEW, FEW);
    for (int64_t i = 0; i < r->n_in; i++) {
      int64_t to = ((chunk * r->n_in + i) * FEW_CHANNELS + first) * FEW;
      memcpy(u->inputs + to * r->item, u->taps + i * r->input_step * r->item,
             (size_t)((next - c) * FEW * r->item));
    }
  }
}

static void multiply_few(const winograd_run *r, const unit *u, int64_t row,
                         int64_t rows) {
  int64_t kernel = (u->group * r->out_group + row) * r->in_group;
  if (r->adjoint) kernel = u->group * r->in_group * r->out_group + row;
  const nyx_winograd_few f = {.kernels = r->weight + kernel * TAPS * r->item,
                              .turned = r->adjoint != NULL,
                              .out_step = r->adjoint ? TAPS : r->in_group * TAPS,
                              .channel_step = r->adjoint ? r->out_group * TAPS : TAPS,
                              .outs = rows,
                              .channels = r->in_group,
                              .inputs = u->inputs,
                              .product_step = r->product_step};
  r->kernel->few(&f, u->products);
}

/* Channels c0..c1-1 of a block: panels of B, blocks of channels one after another. */
static void transform_inputs(const winograd_run *r, const unit *u, int64_t c0,
                             int64_t c1) {
  if (r->few) {
    transform_few(r, u, c0, c1);
    return;
  }
  int64_t panels = parts(r->block, r->columns) * r->columns;
  for (int64_t c = c0, next; c < c1; c = next) {
    int64_t first = c / r->depth * r->depth, depth = least(r->depth, r->in_group - first);
    int64_t at = first * panels + (c - first) * r->columns;
    next = least(first + depth, c1);
    r->kernel->input(&u->block, r->x + (u->group * r->in_group + c) * r->plane * r->item,
                     next - c, u->stage, u->inputs + at * r->item, r->input_step,
                     r->columns, r->columns * depth);
    if (r->thin) copy_thin(r, u, c, next - c, at, depth);
  }
}

/* Rows of the weight, of channels c.., for this unit alone. */
static void transform_rows(const winograd_run *r, const unit *u, int64_t row,
                           int64_t rows, int64_t c, int64_t depth) {
  for (int64_t i = 0; i < rows; i += r->width) {
    transform_panel(r, u->group, row + i, least(r->width, rows - i), c, c + depth,
                    u->taps, u->weights + i * depth * r->item);
  }
}

/* A product's last tile. */
static void multiply_thin(const winograd_run *r, const nyx_product *p, const char *a,
                          const char *x) {
  for (int64_t i = 0; i < p->m; i += r->width)
    r->gemm->thin(a + i * p->k * r->item, 0, least(r->width, p->m - i), p->k, x,
                  (char *)p->c + (i * p->ldc + p->n) * r->item, p->ldc, p->add);
}

/* Channels c..c+depth-1 of the products of output channels row..row+rows-1. */
static void multiply_terms(const winograd_run *r, const unit *u, int64_t rows, int64_t c,
                           int64_t depth, const char *a) {
  const nyx_winograd_form *form = r->form;
  int64_t lanes = r->kernel->lanes;
  int64_t panels = parts(r->block, r->columns) * r->columns;
  uint64_t begun = 0; /* products that have something to be added to */
  for (int64_t i = 0; i < form->terms * form->terms; i++) {
    const nyx_winograd_term *y = &form->term[i / form->terms];
    const nyx_winograd_term *x = &form->term[i % form->terms];
    int64_t in = y->in * form->inputs + x->in, out = y->out * form->outputs + x->out;
    int64_t weight = y->weight * form->weights + x->weight;
    nyx_product p = {.m = rows,
                     .n = parts(u->t1 - u->t0 - r->thin, lanes) * lanes,
                     .k = depth,
                     .c = u->products + out * r->product_step * r->item,
                     .ldc = r->block,
                     .add = c > 0 || begun >> out & 1};
    begun |= (uint64_t)1 << out;
    const char *left = a + weight * r->weight_step * r->item;
    r->gemm->block(&p, r->width, left,
                   u->inputs + (in * r->input_step + c * panels) * r->item);
    if (r->thin) multiply_thin(r, &p, left, thin_at(r, u, in, c));
  }
}

/* The products of output channels row..row+rows-1. */
static void multiply(winograd_run *r, const unit *u, int64_t row, int64_t rows) {
  for (int64_t c = 0; c < r->in_group && going(r); c += r->depth) {
    int64_t depth = least(r->depth, r->in_group - c);
    const char *a =
        r->own ? u->weights : r->transformed + panel_at(r, u->group, c, row) * r->item;
    if (r->own) transform_rows(r, u, row, rows, c, depth);
    multiply_terms(r, u, rows, c, depth, a);
  }
}

/* What comes after, for `rows` output channels from `channel` on, which have been
 * written: strips that fill whole lines one after the other are one piece of a plane. */
static void end_rows(const winograd_run *r, const unit *u, int64_t channel,
                     int64_t rows) {
  int64_t width = r->v->window[1].out;
  for (int64_t i = 0, next; i < u->block.strips; i = next) {
    const nyx_winograd_strip *s = &u->strip[i];
    char *y = r->y + (channel * r->positions + s->y) * r->item;
    int64_t count = s->rows * s->columns;
    next = i + 1;
    if (s->columns < width) {
      for (int64_t o = 0; o < rows; o++, y += r->positions * r->item)
        nyx__epilogue_there(r->v->after, r->v->dtype, y, s->rows, s->columns, width);
      continue;
    }
    for (; next < u->block.strips; next++) {
      const nyx_winograd_strip *t = &u->strip[next];
      if (t->columns < width || t->y != s->y + count) break;
      count += t->rows * t->columns;
    }
    nyx__epilogue_there(r->v->after, r->v->dtype, y, rows, count, r->positions);
  }
}

static void run_rows(winograd_run *r, const unit *u, int64_t row) {
  int64_t rows = least(r->rows, r->out_group - row);
  if (r->few)
    multiply_few(r, u, row, rows);
  else
    multiply(r, u, row, rows);
  for (int64_t o = 0; o < rows; o++) {
    int64_t channel = u->group * r->out_group + row + o;
    const char *bias = r->bias ? r->bias + channel * r->item : NULL;
    r->kernel->output(&u->block, u->products + o * r->block * r->item, r->product_step,
                      bias, r->y + channel * r->positions * r->item, o + 1 < rows);
  }
  if (r->v->after) end_rows(r, u, u->group * r->out_group + row, rows);
  for (int64_t i = 0; i < u->block.strips; i++) {
    int64_t image = (u->t0 + u->strip[i].first) / r->tiles;
    if (u->strip[i].infinite)
      atomic_store_explicit(&r->infinite[image], 1, memory_order_relaxed);
  }
}

/* The scratch of a range of units; false: no memory. Its block is u->strip. */
static bool take_scratch(winograd_run *r, unit *u) {
  size_t part[] = {
      r->strip_bytes,   r->kernel->stage_bytes, r->inputs ? 0 : r->input_bytes,
      r->product_bytes, r->taps_bytes,          r->weight_bytes};
  size_t bytes = 0, at[6];
  for (int i = 0; i < 6; i++) {
    at[i] = bytes;
    bytes += (part[i] + 63) / 64 * 64;
  }
  char *block = nyx_memory_alloc(bytes);
  if (!block) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return false;
  }
  *u = (unit){.strip = (nyx_winograd_strip *)(void *)block,
              .stage = block + at[1],
              .inputs = block + at[2],
              .products = block + at[3],
              .taps = block + at[4],
              .weights = block + at[5]};
  memset(u->stage, 0,
         r->kernel->stage_bytes); /* vectors are read beyond what is written */
  return true;
}

/* Block i of (block, group). */
static void find_block(const winograd_run *r, int64_t i, unit *u) {
  u->group = i % r->v->groups;
  u->t0 = i / r->v->groups * r->block;
  u->t1 = least(u->t0 + r->block, r->all);
  if (r->inputs) u->inputs = r->inputs + i * (int64_t)r->input_bytes;
  find_strips(r, u);
}

/* Units are (block, group). */
static void block_range(void *arg, int64_t begin, int64_t end) {
  winograd_run *r = arg;
  unit u;
  if (!take_scratch(r, &u)) return;
  for (int64_t i = begin; i < end && going(r); i++) {
    find_block(r, i, &u);
    transform_inputs(r, &u, 0, r->in_group);
    for (int64_t row = 0; row < r->out_group && going(r); row += r->rows)
      run_rows(r, &u, row);
  }
  nyx_memory_free(u.strip);
}

/* Units are (block, group, channel). */
static void input_range(void *arg, int64_t begin, int64_t end) {
  winograd_run *r = arg;
  unit u;
  if (!take_scratch(r, &u)) return;
  for (int64_t i = begin, next; i < end && going(r); i = next) {
    int64_t first = i / r->in_group * r->in_group;
    next = least(first + r->in_group, end);
    find_block(r, i / r->in_group, &u);
    transform_inputs(r, &u, i - first, next - first);
  }
  nyx_memory_free(u.strip);
}

/* Units are (block, group, rows). */
static void rows_range(void *arg, int64_t begin, int64_t end) {
  winograd_run *r = arg;
  unit u;
  if (!take_scratch(r, &u)) return;
  for (int64_t i = begin; i < end && going(r); i++) {
    find_block(r, i / r->row_units, &u);
    run_rows(r, &u, i % r->row_units * r->rows);
  }
  nyx_memory_free(u.strip);
}

/* All blocks. Where they are few, the first step goes before the others. */
static nyx_status run_blocks(winograd_run *r) {
  int64_t units = r->blocks * r->v->groups, bytes = units * (int64_t)r->input_bytes;
  double terms = (double)(r->form->terms * r->form->terms);
  double work = (double)r->block * (double)r->in_group * terms;
  if (!r->own && (units >= UNITS || bytes > SHARED_BYTES)) {
    nyx_parallel_for(units, grain_of(work * (double)r->out_group), block_range, r);
    return finish(r);
  }
  if (!(r->inputs = nyx_memory_alloc((size_t)bytes)))
    return nyx__no_memory(r->ctx, (size_t)bytes);
  int64_t grain = least(grain_of(work / (double)r->in_group * 8), r->in_group);
  if (r->few) grain = FEW_GRAIN;
  nyx_parallel_for(units * r->in_group, grain, input_range, r);
  nyx_parallel_for(units * r->row_units, grain_of(work * (double)r->rows), rows_range, r);
  nyx_memory_free(r->inputs);
  return finish(r);
}

/* Images n..next-1 by a way that keeps an infinity where it is. */
static nyx_status run_again(const winograd_run *r, int64_t n, int64_t next) {
  const void *x = r->x + n * r->v->in_channels * r->plane * r->item;
  void *y = r->y + n * r->v->out_channels * r->positions * r->item;
  nyx__conv v = r->adjoint ? *r->adjoint : *r->v;
  v.images = next - n;
  if (!r->adjoint) return nyx__conv_product(r->ctx, &v, x, r->weight, r->bias, y);
  const nyx__conv_call c = {NYX__CONV_INPUT, &v, x, r->weight, NULL};
  return nyx__conv_by(r->ctx, &c, y,
                      nyx__conv_turns(&v) ? NYX__CONV_PRODUCT : NYX__CONV_TILES);
}

/* The images that are not finite, again. */
static nyx_status run_infinite(const winograd_run *r) {
  for (int64_t n = 0, next; n < r->v->images; n = next) {
    next = n + 1;
    if (!atomic_load_explicit(&r->infinite[n], memory_order_relaxed)) continue;
    while (next < r->v->images && r->infinite[next]) next++;
    NYX_TRY(run_again(r, n, next));
  }
  return NYX_OK;
}

/* After describe. transformed NULL: units transform what they need. */
static nyx_status run_with(winograd_run *r, const void *transformed) {
  if (r->few) transformed = NULL; /* four times what is read otherwise */
  size_t bytes = (size_t)r->v->images * sizeof *r->infinite;
  plan(r, !transformed);
  r->transformed = transformed;
  if (!(r->infinite = nyx_memory_alloc(bytes))) return nyx__no_memory(r->ctx, bytes);
  for (int64_t n = 0; n < r->v->images; n++) atomic_init(&r->infinite[n], 0);
  nyx_status status = run_blocks(r);
  if (status == NYX_OK) status = run_infinite(r);
  nyx_memory_free(r->infinite);
  return status;
}

/* After describe. The weight is transformed where more than a block uses it. */
static nyx_status run_all(winograd_run *r) {
  if (r->all <= NYX_WINOGRAD_TILES) return run_with(r, NULL);
  size_t bytes = weight_bytes(r);
  if (!(r->to = nyx_memory_alloc(bytes))) return nyx__no_memory(r->ctx, bytes);
  nyx_status status = transform_weight(r);
  if (status == NYX_OK) status = run_with(r, r->to);
  nyx_memory_free(r->to);
  return status;
}

static winograd_run start(nyx_context *ctx, const nyx__conv *v,
                          const nyx_winograd_kernel *kernels, const void *x,
                          const void *weight, const void *bias, void *y) {
  winograd_run r;
  describe(&r, v, kernels);
  r.ctx = ctx;
  r.x = x;
  r.weight = weight;
  r.bias = bias;
  r.y = y;
  return r;
}

nyx_status nyx__winograd_run(nyx_context *ctx, const nyx__conv *v, const void *x,
                             const void *transformed, const void *weight,
                             const void *bias, void *y) {
  winograd_run r = start(ctx, v, kernels_of(v), x, weight, bias, y);
  return run_with(&r, transformed);
}

typedef struct keeping {
  nyx_context *ctx;
  const nyx__conv *v;
  const void *weight;
} keeping;

static bool make_weight(void *arg, void *data) {
  const keeping *k = arg;
  return nyx__winograd_weight(k->ctx, k->v, k->weight, data) == NYX_OK;
}

/* The transformed weight that its storage keeps; NULL: none. */
static nyx__packed *kept_weight(nyx_context *ctx, const winograd_run *r,
                                const void *weight) {
  const nyx__conv *v = r->v;
  size_t bytes = nyx__winograd_weight_bytes(v);
  if (!v->keep || bytes > WEIGHT_BYTES || r->few) return NULL;
  const nyx__packed_key key = {
      .kind = NYX_PACKED_WINOGRAD,
      .kernel = r->gemm,
      .from = weight,
      .size = {v->out_channels, v->in_channels, v->groups, v->window[0].stride}};
  keeping k = {ctx, v, weight};
  return nyx__packed_get(v->keep, &key, bytes, make_weight, &k);
}

nyx_status nyx__winograd(nyx_context *ctx, const nyx__conv *v, const void *x,
                         const void *weight, const void *bias, void *y) {
  winograd_run r = start(ctx, v, kernels_of(v), x, weight, bias, y);
  nyx__packed *kept = kept_weight(ctx, &r, weight);
  if (!kept) return run_all(&r);
  nyx_status status = run_with(&r, kept->data);
  nyx__packed_release(kept);
  return status;
}

/* The gradient of the input: with stride 1 a convolution by turned kernels, with stride 2
 * four places for two outputs, of which one and three are seen by two taps. */

/* As a convolution; with stride 2 its tiles see 3 x 3 outputs from the place on that is
 * theirs. */
static nyx__conv turned(const nyx__conv *v) {
  nyx__conv t = nyx__conv_turned(v);
  if (v->window[0].stride == 2) t.window[0].pad = t.window[1].pad = 0;
  return t;
}

static const nyx_winograd_kernel *turned_kernels(const nyx__conv *v) {
  const nyx_winograd_kernels *all = nyx__cpu_kernels()->winograd;
  return v->window[0].stride == 2 ? all->twice : all->type;
}

bool nyx__winograd_takes_input(const nyx__conv *v) {
  if (!has_form(v)) return false;
  nyx__conv t = turned(v);
  if (nyx__conv_turns(v)) return nyx__winograd_takes(&t);
  if (!nyx__cpu_kernels()->gemm->fast) return false;
  if (v->window[0].pad != 1 || v->window[1].pad != 1) return false;
  winograd_run r;
  describe(&r, &t, turned_kernels(v));
  return pays(&r, r.plane);
}

nyx_status nyx__winograd_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                               const void *weight, void *x) {
  nyx__conv t = turned(v);
  winograd_run r = start(ctx, &t, turned_kernels(v), y, weight, NULL, x);
  r.adjoint = v;
  return run_all(&r);
}
