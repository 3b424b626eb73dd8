/* Convolutions of channels-last images as products: y (places x output channels) =
 * patches (places x terms) times the weight (terms x output channels), terms being (tap,
 * input channel). A patch is read where it lies, in runs: the channels of one tap, or of
 * a row of taps, are side by side. Only where there is padding is it read from rows with
 * zeros around them, which a unit of work copies for itself. The weight is packed once:
 * first, or, where a unit has all places, by the unit as it goes, since what is packed is
 * then not used again. Units depend on sizes alone, so results do not depend on the
 * number of threads. Read next: kernels/cpu/last.h, kernels/cpu/gemm.h, depthwise_last.c,
 * winograd_last.c. */
#include "conv_last.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/last.h"

#define UNITS 16                        /* wanted, for threads to share */
#define TILES 16                        /* of places in a unit, at most */
#define LEAST_TILES 4                   /* and at least, where more units are wanted */
#define WEIGHT_BYTES ((int64_t)1 << 20) /* of so much, units rather share columns */
#define MOST_PLACES 256                 /* of a unit, in any kernel */
#define SCRATCH_BYTES ((double)(64 << 20))
#define RANGE_WORK ((double)(1 << 19)) /* multiplications worth waking a thread for */
#define LARGEST ((int64_t)1 << 24)     /* sizes; below it products of two are in range */
#define PAGE 4096 /* places so far apart share few lines of the first cache */

typedef struct last_run {
  const nyx__last_sum *s;
  const nyx_gemm_kernel *gemm;
  const nyx_last_kernel *last;
  int64_t item, tile;   /* bytes of an element; columns of a panel */
  bool padded;          /* patches come from a copy */
  int64_t pixel;        /* elements from one place of what patches are read from */
  int64_t runs, length; /* of a patch */
  int64_t pieces, piece, together; /* of a run; its terms; or runs of a block */
  int64_t panels, splits, split;   /* of a group; divisions of them; panels in one */
  int64_t spans, span;             /* divisions of a row of places; places in one */
  int64_t rows, blocks;            /* of places in a unit; divisions of all rows */
  int64_t across, down;            /* places of x that a span, and an output row, see */
  bool own;     /* units have all places, and pack what they need of the weight */
  char *packed; /* groups x (bias, blocks of terms x panels); own: the bias alone */
  char *shared; /* the padded image, where units share it */
  int64_t group_bytes;
  size_t padded_bytes, panel_bytes;
  atomic_int status;
} last_run;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t extent(const nyx__window *w) {
  return (w->kernel - 1) * w->dilation + 1;
}

/* Whether some tap of some place is outside. */
static bool overhangs(const nyx__window *w) {
  return w->pad > 0 || (w->out - 1) * w->stride - w->pad + extent(w) > w->in;
}

/* Places of units: spans of one row, or several rows. */
static void divide(last_run *r) {
  const nyx__last_sum *s = r->s;
  int64_t height = s->window[0].out * s->images, width = s->window[1].out;
  int64_t terms = r->runs * r->length, most = TILES, tile = r->last->tile_rows;
  bool heavy = terms * s->out * r->item >= WEIGHT_BYTES;
  r->panels = parts(s->out, r->tile);
  for (;; most /= 2) {
    int64_t places = most * tile;
    r->spans = parts(width, places);
    r->span = (parts(parts(width, r->spans), tile)) * tile;
    r->span = least(r->spans > 1 ? r->span : width, width);
    r->spans = parts(width, r->span);
    r->rows = r->spans > 1 ? 1 : places / width;
    r->rows = parts(height, parts(height, r->rows));
    r->blocks = parts(height, r->rows);
    bool enough = r->blocks * r->spans * s->groups >= UNITS;
    if (enough || heavy || most <= LEAST_TILES) break;
  }
  int64_t wanted = parts(UNITS, r->blocks * r->spans * s->groups);
  r->split = parts(r->panels, least(wanted, r->panels));
  r->splits = parts(r->panels, r->split);
}

/* Runs, and the blocks of terms they make. */
static void find_runs(last_run *r) {
  const nyx__last_sum *s = r->s;
  bool merged = s->window[1].dilation == 1 && r->pixel == s->in;
  r->runs = s->window[0].kernel * (merged ? 1 : s->window[1].kernel);
  r->length = s->in * (merged ? s->window[1].kernel : 1);
  r->pieces = parts(r->length, r->gemm->depth);
  r->piece = parts(r->length, r->pieces);
  int64_t most = r->gemm->depth / r->piece;
  r->together = r->pieces > 1 ? 1 : parts(r->runs, parts(r->runs, most));
}

static void plan(last_run *r, const nyx__last_sum *s) {
  const nyx__window *wy = &s->window[0], *wx = &s->window[1];
  *r = (last_run){.s = s,
                  .gemm = &nyx__cpu_kernels()->gemm->type[s->dtype == NYX_FLOAT64],
                  .last = &nyx__cpu_kernels()->last->type[s->dtype == NYX_FLOAT64],
                  .item = (int64_t)nyx_dtype_size(s->dtype),
                  .pixel = s->x_pixel};
  r->tile = r->gemm->tile_cols;
  bool aliases = s->x_pixel * wx->stride * r->item % PAGE == 0;
  r->padded = overhangs(wy) || overhangs(wx) || aliases;
  if (r->padded) r->pixel = s->in + (s->in * wx->stride * r->item % PAGE ? 0 : r->tile);
  find_runs(r);
  divide(r);
  r->down = extent(wy);
  r->across = (r->span - 1) * wx->stride + extent(wx);
  /* A unit's rows are of as many images as begin in them, and one more. */
  int64_t images = least((r->rows - 1) / wy->out + 2, s->images);
  int64_t rows = r->rows * wy->stride + images * r->down;
  r->padded_bytes = r->padded ? (size_t)(rows * r->across * r->pixel * r->item) : 0;
  r->own = r->blocks * r->spans == 1;
  int64_t terms = r->own ? 0 : r->runs * r->length;
  r->group_bytes = (terms + 1) * r->panels * r->tile * r->item;
  r->panel_bytes = r->own ? (size_t)(r->together * r->piece * r->tile * r->item) : 0;
  atomic_init(&r->status, NYX_OK);
}

static bool going(last_run *r) {
  if (nyx__interrupted(r->s->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

/* A block of terms: part of a run, or whole runs. */
typedef struct term_block {
  int64_t run, runs, from, length; /* from, length: of each run */
  int64_t first;                   /* term */
} term_block;

static int64_t block_count(const last_run *r) {
  return r->pieces > 1 ? r->runs * r->pieces : parts(r->runs, r->together);
}

static term_block block_at(const last_run *r, int64_t i) {
  term_block b = {.run = i * r->together, .length = r->length};
  if (r->pieces > 1) {
    b = (term_block){.run = i / r->pieces, .runs = 1, .from = i % r->pieces * r->piece};
    b.length = least(r->piece, r->length - b.from);
  } else {
    b.runs = least(r->together, r->runs - b.run);
  }
  b.first = b.run * r->length + b.from;
  return b;
}

/* The weight in panels */

static char *bias_at(const last_run *r, int64_t group) {
  return r->packed + group * r->group_bytes;
}

static char *panel_at(const last_run *r, int64_t group, const term_block *b,
                      int64_t panel) {
  int64_t at = (b->first + 1) * r->panels + panel * b->runs * b->length;
  return bias_at(r, group) + at * r->tile * r->item;
}

/* Terms first..first+count-1 of columns j.. to a panel; they are of one tap, or follow
 * one another evenly. */
static void pack_terms(const last_run *r, int64_t group, int64_t first, int64_t count,
                       int64_t j, char *to) {
  const nyx__last_sum *s = r->s;
  bool even = s->w_tap[1] == s->in * s->w_in && r->length > s->in;
  for (int64_t n; count > 0; first += n, count -= n) {
    int64_t tap = first / s->in, c = first % s->in;
    n = least(count, even ? r->length - first % r->length : s->in - c);
    int64_t ky = tap / s->window[1].kernel, kx = tap % s->window[1].kernel;
    int64_t at = group * s->w_group + j * s->w_out + c * s->w_in + ky * s->w_tap[0] +
                 kx * s->w_tap[1];
    r->gemm->pack_b(s->weight + at * r->item, s->w_in, s->w_out, n,
                    least(r->tile, s->out - j), to);
    to += n * r->tile * r->item;
  }
}

/* Items are (group, panel, block of terms): the terms of a column follow one another. */
static void pack_range(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  int64_t blocks = block_count(r);
  for (int64_t i = begin; i < end; i++) {
    int64_t panel = i / blocks % r->panels, group = i / r->panels / blocks;
    term_block b = block_at(r, i % blocks);
    pack_terms(r, group, b.first, b.runs * b.length, panel * r->tile,
               panel_at(r, group, &b, panel));
  }
}

static void pack_bias(const last_run *r) {
  const nyx__last_sum *s = r->s;
  size_t bytes = (size_t)(s->out * r->item);
  for (int64_t g = 0; s->bias && g < s->groups; g++) {
    memset(bias_at(r, g), 0, (size_t)(r->panels * r->tile * r->item));
    memcpy(bias_at(r, g), s->bias + g * s->out * r->item, bytes);
  }
}

/* Units */

typedef struct unit {
  int64_t group, row0, row1, x0, x1, panel0, panel1;
  char *padded, *panel;
  const char **a;
  char **c;
  int64_t *run;
  int64_t places;
} unit;

/* Padded rows that `rows` rows of places see. */
static int64_t seen(const last_run *r, int64_t rows) {
  return (rows - 1) * r->s->window[0].stride + r->down;
}

/* Copies padded rows first..end-1 of those that the places from row y on see of image n,
 * with zeros around them. What strides of a single tap skip is not copied. */
static void pad_rows(const last_run *r, const unit *u, int64_t n, int64_t y,
                     int64_t first, int64_t end, char *to) {
  const nyx__last_sum *s = r->s;
  const nyx__window *wy = &s->window[0], *wx = &s->window[1];
  int64_t left = u->x0 * wx->stride - wx->pad;
  int64_t step_y = wy->kernel > 1 ? 1 : wy->stride;
  int64_t step_x = wx->kernel > 1 ? 1 : wx->stride;
  int64_t lo = left < 0 ? least(-left, r->across) : 0;
  int64_t hi = least(r->across, wx->in - left), pixel = r->pixel * r->item;
  size_t bytes = (size_t)(s->in * r->item);
  if (hi < lo) hi = lo;
  first = parts(first, step_y) * step_y;
  to += first * r->across * pixel;
  for (int64_t i = first; i < end; i += step_y, to += step_y * r->across * pixel) {
    int64_t at = y * wy->stride - wy->pad + i;
    if (at < 0 || at >= wy->in) {
      memset(to, 0, (size_t)(r->across * pixel));
      continue;
    }
    const char *from =
        s->x +
        (n * s->x_image + at * s->x_row + u->group * s->in + left * s->x_pixel) * r->item;
    memset(to, 0, (size_t)(lo * pixel));
    if (r->pixel == s->x_pixel && step_x == 1) {
      memcpy(to + lo * pixel, from + lo * pixel, (size_t)((hi - lo) * pixel));
    } else {
      for (int64_t x = parts(lo, step_x) * step_x; x < hi; x += step_x)
        memcpy(to + x * pixel, from + x * s->x_pixel * r->item, bytes);
    }
    memset(to + hi * pixel, 0, (size_t)((r->across - hi) * pixel));
  }
}

/* Where the patches of a unit begin, and where results go. */
static void find_places(const last_run *r, unit *u) {
  const nyx__last_sum *s = r->s;
  const nyx__window *wy = &s->window[0], *wx = &s->window[1];
  char *padded = r->shared ? r->shared : u->padded;
  u->places = 0;
  for (int64_t row = u->row0, rows; row < u->row1; row += rows) {
    int64_t n = row / wy->out, y = row % wy->out;
    rows = least(u->row1 - row, wy->out - y);
    if (r->padded && !r->shared) pad_rows(r, u, n, y, 0, seen(r, rows), padded);
    for (int64_t i = 0; i < rows; i++) {
      int64_t at = n * s->y_image + (y + i) * s->y_row + u->group * s->out;
      const char *from = padded + i * wy->stride * r->across * r->pixel * r->item;
      char *to = s->y + (at + u->x0 * s->y_pixel + u->panel0 * r->tile) * r->item;
      if (!r->padded)
        from = s->x + (n * s->x_image + ((y + i) * wy->stride - wy->pad) * s->x_row +
                       (u->x0 * wx->stride - wx->pad) * s->x_pixel + u->group * s->in) *
                          r->item;
      for (int64_t x = u->x0; x < u->x1; x++) {
        u->a[u->places] = from;
        u->c[u->places++] = to;
        from += wx->stride * r->pixel * r->item;
        to += s->y_pixel * r->item;
      }
    }
    padded += seen(r, rows) * r->across * r->pixel * r->item;
  }
}

/* Where each run begins, after the first term of a patch. */
static void find_offsets(const last_run *r, int64_t *run) {
  const nyx__last_sum *s = r->s;
  int64_t row = r->padded ? r->across * r->pixel : s->x_row;
  int64_t across = r->runs / s->window[0].kernel;
  for (int64_t i = 0; i < r->runs; i++) {
    run[i] = i / across * s->window[0].dilation * row +
             i % across * s->window[1].dilation * r->pixel;
  }
}

/* What comes after, for results that have been written. */
static void end_unit(const last_run *r, const unit *u) {
  const nyx__last_sum *s = r->s;
  int64_t places = u->x1 - u->x0;
  int64_t cols = least(u->panel1 * r->tile, s->out) - u->panel0 * r->tile;
  for (int64_t q = 0; q < u->places; q += places)
    nyx__epilogue_there(s->after, s->dtype, u->c[q], places, cols, s->y_pixel);
}

static void run_unit(const last_run *r, unit *u) {
  find_places(r, u);
  int64_t *run = u->run + r->runs; /* of a block */
  for (int64_t i = 0; i < block_count(r); i++) {
    term_block b = block_at(r, i);
    const char *bias = r->s->bias && i == 0 ? bias_at(r, u->group) : NULL;
    for (int64_t k = 0; k < b.runs; k++) run[k] = u->run[b.run + k] + b.from;
    for (int64_t j = u->panel0; j < u->panel1; j++) {
      const char *panel = r->own ? u->panel : panel_at(r, u->group, &b, j);
      if (r->own)
        pack_terms(r, u->group, b.first, b.runs * b.length, j * r->tile, u->panel);
      /* One panel at a time: it stays in the cache for all places. */
      const nyx_last_product p = {.m = u->places,
                                  .n = least(r->tile, r->s->out - j * r->tile),
                                  .a = (const void *const *)u->a,
                                  .run = run,
                                  .runs = b.runs,
                                  .length = b.length,
                                  .b = panel,
                                  .bias = bias ? bias + j * r->tile * r->item : NULL,
                                  .c = (void *const *)u->c,
                                  .add = i > 0};
      if (j > u->panel0)
        for (int64_t q = 0; q < u->places; q++) u->c[q] += r->tile * r->item;
      r->last->product(&p);
    }
    int64_t back = (u->panel1 - u->panel0 - 1) * r->tile * r->item;
    for (int64_t q = 0; q < u->places; q++) u->c[q] -= back;
  }
  if (r->s->after) end_unit(r, u);
}

/* Unit i: (rows, span, group, division of the panels). */
static void find_unit(const last_run *r, int64_t i, unit *u) {
  const nyx__last_sum *s = r->s;
  int64_t at = i / r->splits / s->groups;
  u->panel0 = i % r->splits * r->split;
  u->panel1 = least(u->panel0 + r->split, r->panels);
  u->group = i / r->splits % s->groups;
  u->x0 = at % r->spans * r->span;
  u->x1 = least(u->x0 + r->span, s->window[1].out);
  u->row0 = at / r->spans * r->rows;
  u->row1 = least(u->row0 + r->rows, s->window[0].out * s->images);
}

static void run_range(void *arg, int64_t begin, int64_t end) {
  last_run *r = arg;
  size_t places = (size_t)(r->rows * r->span), runs = (size_t)(2 * r->runs);
  size_t bytes = places * 2 * sizeof(char *) + runs * sizeof(int64_t);
  bytes = (bytes + 63) / 64 * 64;
  size_t padded = r->shared ? 0 : (r->padded_bytes + 63) / 64 * 64;
  char *block = nyx_memory_alloc(bytes + padded + r->panel_bytes);
  if (!block) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return;
  }
  unit u = {.a = (const char **)(void *)block,
            .padded = block + bytes,
            .panel = block + bytes + padded};
  u.c = (char **)(void *)(block + places * sizeof(char *));
  u.run = (int64_t *)(void *)(block + places * 2 * sizeof(char *));
  find_offsets(r, u.run);
  for (int64_t i = begin; i < end && going(r); i++) {
    find_unit(r, i, &u);
    run_unit(r, &u);
  }
  nyx_memory_free(block);
}

/* Items are padded rows of the image, which is one. */
static void share_range(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  const unit u = {.group = 0};
  pad_rows(r, &u, 0, 0, begin, end, r->shared);
}

nyx_status nyx__last_finish(nyx_context *ctx, atomic_int *status, size_t bytes) {
  switch (atomic_load(status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(ctx, INTERRUPTED);
    default: return nyx__no_memory(ctx, bytes);
  }
}

int64_t nyx__last_grain(double work, double range) {
  int64_t grain = work < range ? (int64_t)(range / (work + 1)) : 1;
  return grain > 0 ? grain : 1;
}

nyx_status nyx__last_plain(const nyx__last_sum *s) {
  last_run r;
  plan(&r, s);
  size_t bytes = (size_t)(r.group_bytes * s->groups);
  if (!(r.packed = nyx_memory_alloc(bytes))) return nyx__no_memory(s->ctx, bytes);
  pack_bias(&r);
  if (!r.own) nyx_parallel_for(s->groups * block_count(&r) * r.panels, 4, pack_range, &r);
  if (r.padded && r.own && r.splits > 1 && s->images * s->groups == 1) {
    if (!(r.shared = nyx_memory_alloc(r.padded_bytes))) {
      nyx_memory_free(r.packed);
      return nyx__no_memory(s->ctx, r.padded_bytes);
    }
    nyx_parallel_for(seen(&r, s->window[0].out), 2, share_range, &r);
  }
  double work = (double)(r.rows * r.span) * (double)(r.runs * r.length) *
                (double)(r.split * r.tile);
  nyx_parallel_for(r.blocks * r.spans * s->groups * r.splits,
                   nyx__last_grain(work, RANGE_WORK), run_range, &r);
  nyx_memory_free(r.shared);
  nyx_memory_free(r.packed);
  return nyx__last_finish(s->ctx, &r.status, r.padded_bytes + r.panel_bytes);
}

static nyx_status run_sum(const nyx__last_sum *s) {
  if (nyx_dtype_size(s->dtype) < sizeof(float)) return nyx__conv_low(s);
  if (s->in == 1 && s->out == 1) return nyx__depthwise_last(s);
  return nyx__winograd_last_takes(s) ? nyx__winograd_last(s) : nyx__last_plain(s);
}

/* Forward */

/* About what a unit copies at most, forward or for the input. */
static double padded_bytes(const nyx__conv *v, bool input) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  int64_t height = input ? wy->in : wy->out, width = input ? wx->in : wx->out;
  int64_t step_y = input ? 1 : wy->stride, step_x = input ? 1 : wx->stride;
  int64_t channels = (input ? v->out_channels : v->in_channels) / v->groups;
  int64_t span = least(width, MOST_PLACES), rows = parts(MOST_PLACES, span);
  int64_t images = least(rows / height + 2, v->images);
  double down = (double)(rows * step_y) + (double)images * (double)extent(wy);
  double across = (double)(span * step_x + extent(wx));
  return down * across * (double)(channels + 64) * (double)sizeof(double);
}

bool nyx__conv_last_takes(const nyx__conv *v) {
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &v->window[i];
    if (w->in > LARGEST || w->out > LARGEST || w->pad > LARGEST || w->kernel > 64 ||
        w->stride > 64 || w->dilation > LARGEST / 64 || w->in < 1 || w->out < 1)
      return false;
  }
  return padded_bytes(v, false) < SCRATCH_BYTES && padded_bytes(v, true) < SCRATCH_BYTES;
}

static nyx__last_sum sum_of(nyx_context *ctx, const nyx__conv *v,
                            const nyx__last_weight *weight) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  int64_t out = v->out_channels, in = v->in_channels;
  return (nyx__last_sum){.ctx = ctx,
                         .dtype = v->dtype,
                         .images = v->images,
                         .groups = v->groups,
                         .in = in / v->groups,
                         .out = out / v->groups,
                         .window = {*wy, *wx},
                         .weight = weight->data,
                         .x_pixel = v->x_pixel,
                         .x_row = v->x_pixel * wx->in,
                         .x_image = v->x_pixel * wx->in * wy->in,
                         .y_pixel = v->y_pixel,
                         .y_row = v->y_pixel * wx->out,
                         .y_image = v->y_pixel * wx->out * wy->out,
                         .w_group = out / v->groups * weight->stride[0],
                         .w_out = weight->stride[0],
                         .w_in = weight->stride[1],
                         .w_tap = {weight->stride[2], weight->stride[3]}};
}

/* Places that see one place each, in order, are one row of one image. */
static void flatten(nyx__last_sum *s) {
  nyx__window *wy = &s->window[0], *wx = &s->window[1];
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &s->window[i];
    if (w->kernel != 1 || w->stride != 1 || w->pad != 0 || w->in != w->out) return;
  }
  int64_t all = s->images * wy->in * wx->in;
  bool whole = s->y_row == s->y_pixel * wx->out && s->y_image == s->y_row * wy->out;
  if (!whole || all > LARGEST) return;
  *wy = (nyx__window){.in = 1, .out = 1, .kernel = 1, .stride = 1, .dilation = 1};
  wx->in = wx->out = all;
  s->images = 1;
  s->x_row = s->x_image = s->x_pixel * all;
  s->y_row = s->y_image = s->y_pixel * all;
}

nyx_status nyx__conv_last(nyx_context *ctx, const nyx__conv *v, const void *x,
                          const nyx__last_weight *weight, const void *bias, void *y) {
  nyx__last_sum s = sum_of(ctx, v, weight);
  s.x = x;
  s.bias = bias;
  s.y = y;
  s.after = v->after;
  flatten(&s);
  return run_sum(&s);
}

/* The adjoint with respect to the input: the places of x in steps of the stride are a
 * convolution of y by those taps that reach them, turned round. */

static int64_t divisor(int64_t a, int64_t b) {
  while (b) {
    int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/* The window of phase f: *tap the first of its taps, *step from one to the next. Without
 * taps: kernel 0. */
static nyx__window phase_of(const nyx__window *w, int64_t f, int64_t *tap,
                            int64_t *step) {
  nyx__window p = {
      .in = w->out, .stride = 1, .out = f < w->in ? (w->in - f - 1) / w->stride + 1 : 0};
  int64_t k = 0;
  *step = w->stride / divisor(w->stride, w->dilation);
  while (k < *step && (f + w->pad - k * w->dilation) % w->stride != 0) k++;
  *tap = k;
  if (k == *step || k >= w->kernel) return p;
  p.kernel = (w->kernel - 1 - k) / *step + 1;
  p.dilation = *step * w->dilation / w->stride;
  p.pad = (p.kernel - 1) * p.dilation - (f + w->pad - k * w->dilation) / w->stride;
  return p;
}

/* Zeros for the places of a phase that no tap reaches. */
static void clear_phase(const nyx__last_sum *s) {
  size_t item = nyx_dtype_size(s->dtype);
  size_t bytes = (size_t)(s->groups * s->out) * item;
  for (int64_t n = 0; n < s->images; n++)
    for (int64_t y = 0; y < s->window[0].out; y++)
      for (int64_t x = 0; x < s->window[1].out; x++)
        memset(s->y + (size_t)(n * s->y_image + y * s->y_row + x * s->y_pixel) * item, 0,
               bytes);
}

static nyx_status run_phase(const nyx__last_sum *whole, const nyx__conv *v,
                            const int64_t f[2], char *x) {
  nyx__last_sum s = *whole;
  int64_t tap[2], step[2], item = (int64_t)nyx_dtype_size(s.dtype);
  for (int i = 0; i < 2; i++)
    s.window[i] = phase_of(&v->window[i], f[i], &tap[i], &step[i]);
  if (s.window[0].out == 0 || s.window[1].out == 0) return NYX_OK;
  s.y = x + (f[0] * whole->y_row + f[1] * whole->y_pixel) * item;
  s.y_row = whole->y_row * v->window[0].stride;
  s.y_pixel = whole->y_pixel * v->window[1].stride;
  if (s.window[0].kernel == 0 || s.window[1].kernel == 0) {
    clear_phase(&s);
    return NYX_OK;
  }
  for (int i = 0; i < 2; i++) { /* from the last tap back */
    int64_t end = tap[i] + (s.window[i].kernel - 1) * step[i];
    s.weight += end * whole->w_tap[i] * item;
    s.w_tap[i] = -step[i] * whole->w_tap[i];
  }
  flatten(&s);
  return run_sum(&s);
}

nyx_status nyx__conv_last_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                                const nyx__last_weight *weight, void *x) {
  nyx__last_sum s = sum_of(ctx, v, weight), t = s;
  t.in = s.out;
  t.out = s.in;
  t.w_in = s.w_out;
  t.w_out = s.w_in;
  t.x = y;
  t.x_pixel = s.y_pixel;
  t.x_row = s.y_row;
  t.x_image = s.y_image;
  t.y_pixel = s.x_pixel;
  t.y_row = s.x_row;
  t.y_image = s.x_image;
  nyx_status status = NYX_OK;
  for (int64_t i = 0; i < v->window[0].stride; i++)
    for (int64_t j = 0; status == NYX_OK && j < v->window[1].stride; j++)
      status = run_phase(&t, v, (int64_t[]){i, j}, x);
  return status;
}

/* The adjoint with respect to the weight: y turned (output channels x places) times the
 * patches (places x terms), which are copied to panels. Places are summed in blocks, in
 * segments with a partial sum each. */

#define SEGMENTS 16                       /* partial sums, at most */
#define SEGMENT_BYTES ((int64_t)64 << 20) /* all of them together */
#define CHUNK_TERMS 512                   /* of a unit, about */

typedef struct weight_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const nyx_gemm_kernel *gemm;
  const nyx_last_kernel *last;
  int64_t item, in, out, terms, positions; /* in, out: of a group; positions: all */
  int64_t width, block_rows;               /* of panels of y; rows multiplied together */
  int64_t chunk, chunks, depth;            /* terms and places of a block */
  int64_t blocks, segments, each;
  int64_t merged; /* taps of a row that are read together: few channels */
  int64_t a_at, from_at, slots_at; /* parts of the scratch, after the panels */
  size_t scratch;
  const char *x, *y;
  char *to, *partial;
  atomic_int status;
} weight_run;

static void plan_weight(weight_run *w, const nyx__conv *v) {
  *w = (weight_run){.v = v,
                    .gemm = &nyx__cpu_kernels()->gemm->type[v->dtype == NYX_FLOAT64],
                    .last = &nyx__cpu_kernels()->last->type[v->dtype == NYX_FLOAT64],
                    .item = (int64_t)nyx_dtype_size(v->dtype),
                    .in = v->in_channels / v->groups,
                    .out = v->out_channels / v->groups,
                    .positions = v->images * v->window[0].out * v->window[1].out};
  int64_t tile = w->gemm->tile_cols;
  w->terms = w->in * v->window[0].kernel * v->window[1].kernel;
  w->chunk = parts(parts(w->terms, parts(w->terms, CHUNK_TERMS)), tile) * tile;
  w->chunks = parts(w->terms, w->chunk);
  w->width = parts(w->out, parts(w->out, w->gemm->tile_rows));
  w->block_rows = w->gemm->block_rows / w->gemm->tile_rows * w->width;
  w->depth = parts(w->positions, parts(w->positions, w->gemm->depth));
  w->blocks = parts(w->positions, w->depth);
  int64_t bytes = v->out_channels * w->terms * w->item;
  int64_t segments = least(SEGMENTS / (v->groups * w->chunks) + 1, w->blocks);
  if (segments > SEGMENT_BYTES / bytes) segments = SEGMENT_BYTES / bytes;
  if (segments < 1) segments = 1;
  w->each = parts(w->blocks, segments);
  w->segments = parts(w->blocks, w->each);
  bool few = w->in < tile && v->x_pixel == w->in && v->window[1].dilation == 1;
  w->merged = few ? v->window[1].kernel : 1;
  w->a_at = w->chunk * w->depth * w->item;
  w->from_at = parts(w->a_at + w->block_rows * w->depth * w->item, 64) * 64;
  w->slots_at = w->from_at + w->depth * (int64_t)sizeof(void *);
  int64_t slots = w->merged > 1 ? w->depth * w->merged * w->in * w->item : 0;
  w->scratch = (size_t)(w->slots_at + slots);
  atomic_init(&w->status, NYX_OK);
}

/* What is read of x for places q0..q1-1: `merged` taps of row ky from kx on, side by
 * side, from element c on; NULL: all outside. What is partly outside is copied to a slot.
 */
static void find_taps(const weight_run *w, int64_t group, int64_t ky, int64_t kx,
                      int64_t c, int64_t q0, int64_t q1, const void **from, char *slots) {
  const nyx__window *wy = &w->v->window[0], *wx = &w->v->window[1];
  int64_t pixel = w->v->x_pixel * w->item;
  for (int64_t q = q0; q < q1;) {
    int64_t row = q / wx->out, x = q - row * wx->out, n = row / wy->out;
    int64_t y = row % wy->out * wy->stride - wy->pad + ky * wy->dilation;
    int64_t end = least(wx->out, x + q1 - q);
    const char *line = w->x + (n * wy->in + y) * wx->in * pixel + group * w->in * w->item;
    bool inside = y >= 0 && y < wy->in;
    for (; x < end; x++, q++) {
      int64_t at = x * wx->stride - wx->pad + kx * wx->dilation;
      int64_t lo = at < 0 ? -at : 0, hi = least(w->merged, wx->in - at);
      from[q - q0] = NULL;
      if (!inside || lo >= hi) continue;
      const char *here = line + at * pixel;
      if (hi - lo < w->merged) {
        char *slot = slots + (q - q0) * w->merged * pixel;
        memset(slot, 0, (size_t)(w->merged * pixel));
        memcpy(slot + lo * pixel, here + lo * pixel, (size_t)((hi - lo) * pixel));
        here = slot;
      }
      from[q - q0] = here + c * w->item;
    }
  }
}

/* Terms t0..t1-1 of places q0..q1-1 as panels. */
static void pack_patches(const weight_run *w, int64_t group, int64_t t0, int64_t t1,
                         int64_t q0, int64_t q1, char *panels) {
  int64_t tile = w->gemm->tile_cols, depth = q1 - q0, across = w->v->window[1].kernel;
  int64_t tail = (t1 - t0) / tile * tile; /* the last panel, if it is not full */
  const void **from = (const void **)(void *)(panels + w->from_at);
  if (tail < t1 - t0)
    memset(panels + tail * depth * w->item, 0, (size_t)(tile * depth * w->item));
  for (int64_t t = t0, n; t < t1; t += n) {
    int64_t run = w->merged * w->in, c = t % run, tap = t / run * w->merged;
    n = least(run - c, t1 - t);
    find_taps(w, group, tap / across, tap % across, c, q0, q1, from,
              panels + w->slots_at);
    w->last->place(from, depth, t - t0, n, tile, depth, panels);
  }
}

/* Adds a block of places to terms t0..t1-1 of a group's weight at `to`. */
static void weight_block(const weight_run *w, int64_t group, int64_t t0, int64_t t1,
                         int64_t block, char *to, bool add, char *scratch) {
  int64_t q0 = block * w->depth, q1 = least(q0 + w->depth, w->positions);
  int64_t all = w->v->y_pixel, first = group * w->out;
  char *a = scratch + w->a_at;
  pack_patches(w, group, t0, t1, q0, q1, scratch);
  for (int64_t row = 0; row < w->out; row += w->block_rows) {
    nyx_product p = {.m = least(w->block_rows, w->out - row),
                     .n = t1 - t0,
                     .k = q1 - q0,
                     .c = to + ((first + row) * w->terms + t0) * w->item,
                     .ldc = w->terms,
                     .add = add};
    w->gemm->pack_a(w->y + (q0 * all + first + row) * w->item, 1, all, p.m, w->width, p.k,
                    a);
    w->gemm->block(&p, w->width, a, scratch);
  }
}

static bool still_going(weight_run *w) {
  if (nyx__interrupted(w->ctx)) atomic_store(&w->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&w->status, memory_order_relaxed) == NYX_OK;
}

/* Units are (segment, group, chunk of terms). */
static void weight_range(void *arg, int64_t begin, int64_t end) {
  weight_run *w = arg;
  int64_t bytes = w->v->out_channels * w->terms * w->item;
  char *scratch = nyx_memory_alloc(w->scratch);
  if (!scratch) {
    atomic_store(&w->status, NYX_ERR_MEMORY);
    return;
  }
  for (int64_t i = begin; i < end; i++) {
    int64_t t0 = i % w->chunks * w->chunk, group = i / w->chunks % w->v->groups;
    int64_t segment = i / w->chunks / w->v->groups, first = segment * w->each;
    char *to = w->partial ? w->partial + segment * bytes : w->to;
    for (int64_t b = first; b < least(first + w->each, w->blocks) && still_going(w); b++)
      weight_block(w, group, t0, least(t0 + w->chunk, w->terms), b, to, b > first,
                   scratch);
  }
  nyx_memory_free(scratch);
}

#define SUM_SEGMENTS(name, T)                                                            \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    const weight_run *w = arg;                                                           \
    const T *from = (const T *)(const void *)w->partial;                                 \
    T *to = (T *)(void *)w->to;                                                          \
    int64_t count = w->v->out_channels * w->terms;                                       \
    memcpy(to + begin, from + begin, (size_t)(end - begin) * sizeof(T));                 \
    for (int64_t s = 1; s < w->segments; s++) {                                          \
      from += count;                                                                     \
      for (int64_t q = begin; q < end; q++) to[q] += from[q];                            \
    }                                                                                    \
  }
SUM_SEGMENTS(sum_segments_f32, float)
SUM_SEGMENTS(sum_segments_f64, double)

nyx_status nyx__conv_last_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                 const void *x, void *weight) {
  weight_run w;
  if (nyx_dtype_size(v->dtype) < sizeof(float)) {
    const nyx__last_weight none = {.data = NULL};
    nyx__last_sum s = sum_of(ctx, v, &none);
    s.x = x;
    s.y = (char *)y; /* only read */
    return nyx__conv_low_weight(&s, weight);
  }
  if (v->in_channels == v->groups && v->out_channels == v->groups)
    return nyx__depthwise_last_weight(ctx, v, y, x, weight);
  plan_weight(&w, v);
  w.ctx = ctx;
  w.x = x;
  w.y = y;
  w.to = weight;
  int64_t count = v->out_channels * w.terms;
  size_t bytes = (size_t)(w.segments * count * w.item);
  if (w.segments > 1 && !(w.partial = nyx_memory_alloc(bytes)))
    return nyx__no_memory(ctx, bytes);
  double work = (double)(w.each * w.depth) * (double)w.chunk * (double)w.out;
  nyx_parallel_for(w.segments * v->groups * w.chunks, nyx__last_grain(work, RANGE_WORK),
                   weight_range, &w);
  if (w.partial && still_going(&w))
    nyx_parallel_for(count, 1 << 15,
                     v->dtype == NYX_FLOAT32 ? sum_segments_f32 : sum_segments_f64, &w);
  nyx_memory_free(w.partial);
  return nyx__last_finish(ctx, &w.status, w.scratch);
}
