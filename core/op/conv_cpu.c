/* Convolutions on the CPU. Most go elsewhere: depthwise ones to depthwise.c, those that
 * fill the tiles of a product to conv_product.c, large kernels to fourier.c. Here are 1x1
 * kernels on one image, which are products of two matrices, and the others: tiles of
 * output positions, each gathered into a column matrix that stays in cache, and one
 * matrix product per tile. Work is divided by size alone. Read next: conv_ways.c,
 * conv_type.h (the loops), core/linalg/gemm.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "../linalg/gemm.h"
#include "conv.h"
#include "conv_product.h"
#include "conv_turn.h"
#include "depthwise.h"
#include "fourier.h"
#include "winograd.h"

#define COLUMN_BYTES 524288 /* a tile's column matrix: fits a second-level cache */
#define CHUNK_ROWS 512      /* of the column matrix, in the adjoints */
#define LEAST_ROWS 48       /* and at least, where more units are wanted */
#define UNITS 8             /* wanted of an input's adjoint, for threads to share */
#define RANGE_WORK ((int64_t)1 << 19)    /* multiplications worth waking a thread for */
#define SEGMENTS 16                      /* partial sums of a weight's adjoint, at most */
#define SEGMENT_BYTES ((size_t)64 << 20) /* all of them together, at most */

typedef struct loops {
  void (*gather)(const nyx__conv *v, const void *planes, int64_t channels, int64_t plane,
                 int64_t p0, int64_t p1, void *columns, int64_t ld);
  void (*spread)(const nyx__conv *v, void *planes, int64_t channels, int64_t plane,
                 int64_t p0, int64_t p1, const void *columns, int64_t ld);
  void (*fill_rows)(void *to, const void *values, int64_t rows, int64_t n, int64_t ld);
  void (*accumulate)(void *to, const void *from, int64_t n);
} loops;

#define TYPED_SOURCE "core/op/conv_type.h"
#include "kernels/cpu/both_floats.h"

/* Tiles: several whole images, or a span of the positions of one. */
typedef struct tiling {
  int64_t images, span, per_image, count;
} tiling;

typedef struct tile {
  int64_t n0, n1, p0, p1, columns;
} tile;

/* One computation, shared by the threads. */
typedef struct conv_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const loops *do_;
  int64_t item; /* bytes of an element */
  char *x, *weight, *y;
  const char *bias;
  char *partial;                   /* of a weight's adjoint: segments x weight */
  char *places;                    /* of an image: what one tap sees of its channels */
  int64_t taps, positions, plane;  /* of a kernel, an output plane, an input plane */
  int64_t in_group, out_group;     /* channels per group */
  int64_t chunk, chunks, segments; /* channels per chunk, chunks per group */
  bool pointwise;                  /* a tile of one image is its own column matrix */
  tiling tiles;
  atomic_int status;
} conv_run;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static bool is_pointwise(const nyx__conv *v) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  return wy->kernel * wx->kernel == 1 && wy->stride == 1 && wx->stride == 1 &&
         wy->pad == 0 && wx->pad == 0;
}

/* A kernel of one tap on one image: its column matrix is the image, or some places. */
static bool is_image(const nyx__conv *v) {
  return v->window[0].kernel * v->window[1].kernel == 1 && v->images == 1;
}

static conv_run start(nyx_context *ctx, const nyx__conv *v, const void *x,
                      const void *weight, const void *y) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  conv_run r = {.ctx = ctx,
                .v = v,
                .do_ = v->dtype == NYX_FLOAT32 ? &loops_f32 : &loops_f64,
                .item = (int64_t)nyx_dtype_size(v->dtype),
                .x = (char *)x, /* each computation writes its own result only */
                .weight = (char *)weight,
                .y = (char *)y,
                .taps = wy->kernel * wx->kernel,
                .positions = wy->out * wx->out,
                .plane = wy->in * wx->in,
                .in_group = v->in_channels / v->groups,
                .out_group = v->out_channels / v->groups,
                .segments = 1};
  r.chunk = r.in_group;
  r.chunks = 1;
  r.pointwise = is_pointwise(v);
  atomic_init(&r.status, NYX_OK);
  return r;
}

/* The adjoints divide the channels of a group as well, into `wanted` chunks or more. */
static void divide_channels(conv_run *r, int64_t wanted) {
  int64_t most = CHUNK_ROWS / r->taps > 1 ? CHUNK_ROWS / r->taps : 1;
  r->chunks = parts(r->in_group, most);
  int64_t least = parts(LEAST_ROWS, r->taps), fit = r->in_group / least;
  if (wanted > fit) wanted = fit;
  if (r->chunks < wanted) r->chunks = wanted;
  r->chunk = parts(r->in_group, r->chunks);
  r->chunks = parts(r->in_group, r->chunk);
}

static void plan_tiles(conv_run *r) {
  int64_t images = r->v->images, rows = r->chunk * r->taps;
  int64_t columns = COLUMN_BYTES / (rows * r->item);
  if (columns < 64) columns = 64;
  tiling *t = &r->tiles;
  *t = (tiling){.images = 1, .span = r->positions, .per_image = 1};
  if (r->positions <= columns) {
    t->images = columns / r->positions < images ? columns / r->positions : images;
    t->count = parts(images, t->images);
  } else {
    t->span = (parts(r->positions, parts(r->positions, columns)) + 15) / 16 * 16;
    t->per_image = parts(r->positions, t->span);
    t->count = images * t->per_image;
  }
}

static tile tile_at(const conv_run *r, int64_t i) {
  const tiling *t = &r->tiles;
  tile at = {.n0 = i / t->per_image * t->images, .p0 = i % t->per_image * t->span};
  at.n1 = at.n0 + t->images < r->v->images ? at.n0 + t->images : r->v->images;
  at.p1 = at.p0 + t->span < r->positions ? at.p0 + t->span : r->positions;
  at.columns = (at.n1 - at.n0) * (at.p1 - at.p0);
  return at;
}

static char *x_plane(const conv_run *r, int64_t n, int64_t channel) {
  return r->x + (n * r->v->in_channels + channel) * r->plane * r->item;
}

static char *y_plane(const conv_run *r, int64_t n, int64_t channel) {
  return r->y + (n * r->v->out_channels + channel) * r->positions * r->item;
}

static bool fits(int64_t a, int64_t b, int64_t item) {
  int64_t bytes;
  return !__builtin_mul_overflow(a, b, &bytes) &&
         !__builtin_mul_overflow(bytes, item, &bytes);
}

/* Scratch for a tile: `rows` rows of columns; NULL and the status set when there is none.
 */
static char *scratch(conv_run *r, int64_t rows, const tile *t) {
  char *block = NULL;
  if (fits(rows, t->columns, r->item)) {
    block = nyx_memory_alloc((size_t)(rows * t->columns * r->item));
  }
  if (!block) atomic_store(&r->status, NYX_ERR_MEMORY);
  return block;
}

/* Whether to go on: nobody failed, nobody asked to stop. */
static bool going(conv_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

static nyx_status finish(conv_run *r) {
  switch (atomic_load(&r->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(r->ctx, INTERRUPTED);
    default: return nyx__no_memory(r->ctx, COLUMN_BYTES);
  }
}

/* Channels first..first+count-1 of a tile of x as a column matrix. */
static void gather_tile(conv_run *r, const tile *t, int64_t first, int64_t count,
                        char *columns) {
  int64_t width = t->p1 - t->p0;
  for (int64_t n = t->n0; n < t->n1; n++) {
    r->do_->gather(r->v, x_plane(r, n, first), count, r->plane, t->p0, t->p1,
                   columns + (n - t->n0) * width * r->item, t->columns);
  }
}

/* Moves a tile of whole images between y (channels of a group) and a matrix with a row
 * for each channel. */
static void move_y(conv_run *r, const tile *t, int64_t group, char *matrix, bool to_y) {
  size_t bytes = (size_t)(r->positions * r->item);
  for (int64_t n = t->n0; n < t->n1; n++) {
    for (int64_t o = 0; o < r->out_group; o++) {
      char *plane = y_plane(r, n, group * r->out_group + o);
      char *row = matrix + (o * t->columns + (n - t->n0) * r->positions) * r->item;
      if (to_y) {
        memcpy(plane, row, bytes);
      } else {
        memcpy(row, plane, bytes);
      }
    }
  }
}

/* Forward */

static void forward_tile(conv_run *r, const tile *t, int64_t group) {
  bool one = t->n1 - t->n0 == 1, direct = r->pointwise && one;
  int64_t rows = r->in_group * r->taps, first = group * r->in_group;
  int64_t rows_columns = direct ? 0 : rows, rows_y = one ? 0 : r->out_group;
  char *block = scratch(r, rows_columns + rows_y, t);
  if (!block) return;
  nyx_product p = {.m = r->out_group,
                   .n = t->columns,
                   .k = rows,
                   .a = r->weight + group * r->out_group * rows * r->item,
                   .a_rs = rows,
                   .a_cs = 1,
                   .b = block,
                   .b_rs = t->columns,
                   .b_cs = 1,
                   .add = r->bias != NULL};
  if (direct) {
    p.b = x_plane(r, t->n0, first) + t->p0 * r->item;
    p.b_rs = r->plane;
  } else {
    gather_tile(r, t, first, r->in_group, block);
  }
  p.c = block + rows_columns * t->columns * r->item;
  p.ldc = t->columns;
  if (one) {
    p.c = y_plane(r, t->n0, group * r->out_group) + t->p0 * r->item;
    p.ldc = r->positions;
  }
  if (r->bias) {
    r->do_->fill_rows(p.c, r->bias + group * r->out_group * r->item, p.m, p.n, p.ldc);
  }
  nyx__gemm_here(r->v->dtype, &p);
  if (!one) move_y(r, t, group, p.c, true);
  for (int64_t n = t->n0; n < t->n1; n++)
    nyx__epilogue_there(r->v->after, r->v->dtype,
                        y_plane(r, n, group * r->out_group) + t->p0 * r->item,
                        r->out_group, t->p1 - t->p0, r->positions);
  nyx_memory_free(block);
}

static void forward_range(void *arg, int64_t begin, int64_t end) {
  conv_run *r = arg;
  for (int64_t i = begin; i < end && going(r); i++) {
    tile t = tile_at(r, i / r->v->groups);
    forward_tile(r, &t, i % r->v->groups);
  }
}

/* The adjoint with respect to the input: columns = weight^T y, added where they came from
 */

static void input_tile(conv_run *r, const tile *t, int64_t group, int64_t c0,
                       int64_t c1) {
  bool one = t->n1 - t->n0 == 1, direct = r->pointwise && one;
  int64_t rows = (c1 - c0) * r->taps, first = group * r->in_group + c0;
  int64_t rows_columns = direct ? 0 : rows, rows_y = one ? 0 : r->out_group;
  char *block = scratch(r, rows_columns + rows_y, t);
  if (!block) return;
  char *y = block + rows_columns * t->columns * r->item;
  int64_t all = r->in_group * r->taps; /* a row of the weight */
  nyx_product p = {
      .m = rows,
      .n = t->columns,
      .k = r->out_group,
      .a = r->weight + (group * r->out_group * all + c0 * r->taps) * r->item,
      .a_rs = 1,
      .a_cs = all,
      .b = one ? y_plane(r, t->n0, group * r->out_group) + t->p0 * r->item : y,
      .b_rs = one ? r->positions : t->columns,
      .b_cs = 1,
      .c = direct ? x_plane(r, t->n0, first) + t->p0 * r->item : block,
      .ldc = direct ? r->plane : t->columns};
  if (!one) move_y(r, t, group, y, false);
  nyx__gemm_here(r->v->dtype, &p);
  int64_t width = t->p1 - t->p0;
  for (int64_t n = t->n0; n < t->n1 && !direct; n++) {
    r->do_->spread(r->v, x_plane(r, n, first), c1 - c0, r->plane, t->p0, t->p1,
                   block + (n - t->n0) * width * r->item, t->columns);
  }
  nyx_memory_free(block);
}

/* Units are (images of a tile, group, chunk of channels): each owns its planes of x. */
static void input_range(void *arg, int64_t begin, int64_t end) {
  conv_run *r = arg;
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t c0 = i % r->chunks * r->chunk, group = i / r->chunks % r->v->groups;
    int64_t c1 = c0 + r->chunk < r->in_group ? c0 + r->chunk : r->in_group;
    int64_t first = i / r->chunks / r->v->groups * r->tiles.per_image;
    tile t = tile_at(r, first);
    for (int64_t n = t.n0; n < t.n1; n++) {
      memset(x_plane(r, n, group * r->in_group + c0), 0,
             (size_t)((c1 - c0) * r->plane * r->item));
    }
    for (int64_t part = 0; part < r->tiles.per_image && going(r); part++) {
      t = tile_at(r, first + part);
      input_tile(r, &t, group, c0, c1);
    }
  }
}

/* The adjoint with respect to the weight: y columns^T, summed over tiles */

static void weight_tile(conv_run *r, const tile *t, int64_t group, int64_t c0, int64_t c1,
                        char *weight, bool add) {
  bool one = t->n1 - t->n0 == 1, direct = r->pointwise && one;
  int64_t rows = (c1 - c0) * r->taps, first = group * r->in_group + c0;
  int64_t rows_columns = direct ? 0 : rows, rows_y = one ? 0 : r->out_group;
  char *block = scratch(r, rows_columns + rows_y, t);
  if (!block) return;
  char *y = block + rows_columns * t->columns * r->item;
  int64_t all = r->in_group * r->taps;
  nyx_product p = {
      .m = r->out_group,
      .n = rows,
      .k = t->columns,
      .a = one ? y_plane(r, t->n0, group * r->out_group) + t->p0 * r->item : y,
      .a_rs = one ? r->positions : t->columns,
      .a_cs = 1,
      .b = direct ? x_plane(r, t->n0, first) + t->p0 * r->item : block,
      .b_rs = 1,
      .b_cs = direct ? r->plane : t->columns,
      .c = weight + (group * r->out_group * all + c0 * r->taps) * r->item,
      .ldc = all,
      .add = add};
  if (!one) move_y(r, t, group, y, false);
  if (!direct) gather_tile(r, t, first, c1 - c0, block);
  nyx__gemm_here(r->v->dtype, &p);
  nyx_memory_free(block);
}

static int64_t weight_count(const conv_run *r) {
  return r->v->out_channels * r->in_group * r->taps;
}

/* Units are (segment of the tiles, group, chunk of channels). */
static void weight_range(void *arg, int64_t begin, int64_t end) {
  conv_run *r = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t c0 = i % r->chunks * r->chunk, group = i / r->chunks % r->v->groups;
    int64_t c1 = c0 + r->chunk < r->in_group ? c0 + r->chunk : r->in_group;
    int64_t segment = i / r->chunks / r->v->groups;
    int64_t each = parts(r->tiles.count, r->segments), first = segment * each;
    int64_t last = first + each < r->tiles.count ? first + each : r->tiles.count;
    char *weight =
        r->partial ? r->partial + segment * weight_count(r) * r->item : r->weight;
    for (int64_t at = first; at < last && going(r); at++) {
      tile t = tile_at(r, at);
      weight_tile(r, &t, group, c0, c1, weight, at > first);
    }
  }
}

/* A pointwise convolution of one image is a product, or one for each group, which the
 * threads share better than its tiles. */
static nyx_status of_one_image(const conv_run *r, nyx_product p, int64_t a_group,
                               int64_t b_group) {
  const nyx_gemm g = {.dtype = r->v->dtype,
                      .after = r->v->after,
                      .keep_a = r->v->groups == 1 ? r->v->keep : NULL,
                      .product = p,
                      .batch_ndim = 1,
                      .batch_shape = {r->v->groups},
                      .a_batch = {a_group},
                      .b_batch = {b_group}};
  return nyx__gemm(r->ctx, &g);
}

#define RANGE_PLACES 32768 /* copies worth waking a thread for */

static void gather_range(void *arg, int64_t begin, int64_t end) {
  const conv_run *r = arg;
  r->do_->gather(r->v, x_plane(r, 0, begin), end - begin, r->plane, 0, r->positions,
                 r->places + begin * r->positions * r->item, r->positions);
}

static void spread_range(void *arg, int64_t begin, int64_t end) {
  conv_run *r = arg;
  if (!going(r)) return;
  memset(x_plane(r, 0, begin), 0, (size_t)((end - begin) * r->plane * r->item));
  r->do_->spread(r->v, x_plane(r, 0, begin), end - begin, r->plane, 0, r->positions,
                 r->places + begin * r->positions * r->item, r->positions);
}

static void each_channel(conv_run *r, nyx_range_fn fn) {
  nyx_parallel_for(r->v->in_channels, RANGE_PLACES / (r->positions + r->plane) + 1, fn,
                   r);
}

/* r->places: the image itself, or memory for what a tap sees of it. */
static nyx_status take_places(conv_run *r) {
  r->places = r->x;
  if (r->pointwise) return NYX_OK;
  int64_t item = r->item * r->v->in_channels;
  bool fit = fits(r->positions, r->v->in_channels, r->item);
  r->places = fit ? nyx_memory_alloc((size_t)(r->positions * item)) : NULL;
  return r->places ? NYX_OK : nyx__no_memory(r->ctx, (size_t)(r->positions * item));
}

static void drop_places(const conv_run *r) {
  if (!r->pointwise) nyx_memory_free(r->places);
}

static nyx_status forward_image(conv_run *r) {
  NYX_TRY(take_places(r));
  if (!r->pointwise) each_channel(r, gather_range);
  if (r->bias) {
    r->do_->fill_rows(r->y, r->bias, r->v->out_channels, r->positions, r->positions);
  }
  const nyx_product p = {.m = r->out_group,
                         .n = r->positions,
                         .k = r->in_group,
                         .a = r->weight,
                         .a_rs = r->in_group,
                         .a_cs = 1,
                         .b = r->places,
                         .b_rs = r->positions,
                         .b_cs = 1,
                         .c = r->y,
                         .ldc = r->positions,
                         .add = r->bias != NULL};
  nyx_status status =
      of_one_image(r, p, r->out_group * r->in_group, r->in_group * r->positions);
  drop_places(r);
  return status;
}

static nyx_status input_image(conv_run *r) {
  NYX_TRY(take_places(r));
  const nyx_product p = {.m = r->in_group,
                         .n = r->positions,
                         .k = r->out_group,
                         .a = r->weight,
                         .a_rs = 1,
                         .a_cs = r->in_group,
                         .b = r->y,
                         .b_rs = r->positions,
                         .b_cs = 1,
                         .c = r->places,
                         .ldc = r->positions};
  nyx_status status =
      of_one_image(r, p, r->out_group * r->in_group, r->out_group * r->positions);
  if (status == NYX_OK && !r->pointwise) {
    each_channel(r, spread_range);
    status = finish(r);
  }
  drop_places(r);
  return status;
}

static nyx_status weight_image(conv_run *r) {
  NYX_TRY(take_places(r));
  if (!r->pointwise) each_channel(r, gather_range);
  const nyx_product p = {.m = r->out_group,
                         .n = r->in_group,
                         .k = r->positions,
                         .a = r->y,
                         .a_rs = r->positions,
                         .a_cs = 1,
                         .b = r->places,
                         .b_rs = 1,
                         .b_cs = r->positions,
                         .c = r->weight,
                         .ldc = r->in_group};
  nyx_status status =
      of_one_image(r, p, r->out_group * r->positions, r->in_group * r->positions);
  drop_places(r);
  return status;
}

/* Runs `units` units of about `work` multiplications each. */
static nyx_status run(conv_run *r, int64_t units, double work, nyx_range_fn fn) {
  int64_t grain =
      work < (double)RANGE_WORK ? (int64_t)((double)RANGE_WORK / (work + 1)) : 1;
  nyx_parallel_for(units, grain > 0 ? grain : 1, fn, r);
  return finish(r);
}

/* Stride 1 turns the adjoint with respect to the input into a convolution of its own,
 * stride 2 into four. */
static uint32_t usable_turned(const nyx__conv *v) {
  uint32_t ways = nyx__winograd_takes_input(v) ? 1u << NYX__CONV_WINOGRAD : 0;
  bool product;
  if (nyx__conv_turns(v)) {
    nyx__conv turned = nyx__conv_turned(v);
    product = nyx__conv_product_takes_turned(&turned);
  } else {
    product = nyx__conv_phases_takes(v);
  }
  return product ? ways | 1u << NYX__CONV_PRODUCT : ways;
}

uint32_t nyx__conv_usable(const nyx__conv *v, nyx__conv_mode mode) {
  static const nyx_depthwise_mode depthwise[] = {
      NYX_DEPTHWISE_FORWARD, NYX_DEPTHWISE_INPUT, NYX_DEPTHWISE_WEIGHT};
  uint32_t ways = 1u << NYX__CONV_TILES;
  if (nyx__depthwise_takes(v, depthwise[mode])) ways |= 1u << NYX__CONV_DEPTHWISE;
  if (is_image(v)) ways |= 1u << NYX__CONV_IMAGE;
  if (nyx__fourier_takes(v, mode)) ways |= 1u << NYX__CONV_FOURIER;
  if (mode == NYX__CONV_INPUT) return ways | usable_turned(v);
  bool product = mode == NYX__CONV_FORWARD ? nyx__conv_product_takes(v)
                                           : nyx__conv_product_takes_weight(v);
  if (product) ways |= 1u << NYX__CONV_PRODUCT;
  bool winograd =
      mode == NYX__CONV_FORWARD ? nyx__winograd_takes(v) : nyx__winograd_takes_adjoint(v);
  if (winograd) ways |= 1u << NYX__CONV_WINOGRAD;
  return ways;
}

nyx__conv_way nyx__conv_rule(const nyx__conv *v, nyx__conv_mode mode, uint32_t usable) {
  if (usable >> NYX__CONV_FOURIER & 1) return NYX__CONV_FOURIER;
  if (usable >> NYX__CONV_DEPTHWISE & 1) return NYX__CONV_DEPTHWISE;
  bool product = usable >> NYX__CONV_PRODUCT & 1 && mode == NYX__CONV_FORWARD;
  if (product && is_image(v) && nyx__conv_product_reads_once(v)) return NYX__CONV_PRODUCT;
  if (usable >> NYX__CONV_IMAGE & 1) return NYX__CONV_IMAGE;
  if (usable >> NYX__CONV_WINOGRAD & 1) return NYX__CONV_WINOGRAD;
  return usable >> NYX__CONV_PRODUCT & 1 ? NYX__CONV_PRODUCT : NYX__CONV_TILES;
}

static nyx_status forward_by(nyx_context *ctx, const nyx__conv *v, const void *x,
                             const void *weight, const void *bias, void *y,
                             nyx__conv_way way) {
  if (way == NYX__CONV_DEPTHWISE)
    return nyx__depthwise_forward(ctx, v, x, weight, bias, y);
  if (way == NYX__CONV_WINOGRAD) return nyx__winograd(ctx, v, x, weight, bias, y);
  if (way == NYX__CONV_PRODUCT) return nyx__conv_product(ctx, v, x, weight, bias, y);
  if (way == NYX__CONV_FOURIER) return nyx__fourier(ctx, v, x, weight, bias, y);
  conv_run r = start(ctx, v, x, weight, y);
  r.bias = bias;
  if (way == NYX__CONV_IMAGE) return forward_image(&r);
  plan_tiles(&r);
  double work = (double)(r.tiles.images * r.tiles.span) * (double)r.out_group *
                (double)(r.in_group * r.taps);
  return run(&r, r.tiles.count * v->groups, work, forward_range);
}

static nyx_status input_turned(nyx_context *ctx, const nyx__conv *v, const void *y,
                               const void *weight, void *x) {
  nyx__conv t = nyx__conv_turned(v);
  if (nyx__conv_product_reads_turned(&t))
    return nyx__conv_product_turned(ctx, &t, y, weight, x);
  void *turned;
  NYX_TRY(nyx__conv_turn_weight(ctx, v, weight, &turned));
  nyx_status status = nyx__conv_product(ctx, &t, y, turned, NULL, x);
  nyx_memory_free(turned);
  return status;
}

static nyx_status input_by(nyx_context *ctx, const nyx__conv *v, const void *y,
                           const void *weight, void *x, nyx__conv_way way) {
  if (way == NYX__CONV_DEPTHWISE) return nyx__depthwise_input(ctx, v, y, weight, x);
  if (way == NYX__CONV_WINOGRAD) return nyx__winograd_input(ctx, v, y, weight, x);
  if (way == NYX__CONV_FOURIER) return nyx__fourier_input(ctx, v, y, weight, x);
  if (way == NYX__CONV_PRODUCT && !nyx__conv_turns(v))
    return nyx__conv_phases(ctx, v, y, weight, x);
  if (way == NYX__CONV_PRODUCT) return input_turned(ctx, v, y, weight, x);
  conv_run r = start(ctx, v, x, weight, y);
  if (way == NYX__CONV_IMAGE) return input_image(&r);
  divide_channels(&r, parts(UNITS, v->images * v->groups));
  plan_tiles(&r);
  double work = (double)(r.tiles.images * r.positions) * (double)r.out_group *
                (double)(r.chunk * r.taps);
  return run(&r, r.tiles.count / r.tiles.per_image * v->groups * r.chunks, work,
             input_range);
}

static nyx_status weight_by(nyx_context *ctx, const nyx__conv *v, const void *y,
                            const void *x, void *weight, nyx__conv_way way) {
  if (way == NYX__CONV_DEPTHWISE) return nyx__depthwise_weight(ctx, v, y, x, weight);
  if (way == NYX__CONV_PRODUCT) return nyx__conv_product_weight(ctx, v, y, x, weight);
  if (way == NYX__CONV_WINOGRAD) return nyx__winograd_adjoint(ctx, v, y, x, weight);
  if (way == NYX__CONV_FOURIER) return nyx__fourier_weight(ctx, v, y, x, weight);
  conv_run r = start(ctx, v, x, weight, y);
  int64_t count = weight_count(&r);
  if (way == NYX__CONV_IMAGE) return weight_image(&r);
  divide_channels(&r, 1);
  plan_tiles(&r);
  int64_t most = SEGMENTS / (v->groups * r.chunks) + 1;
  int64_t memory = (int64_t)(SEGMENT_BYTES / (size_t)(count * r.item));
  if (most > memory) most = memory > 1 ? memory : 1;
  if (most > r.tiles.count) most = r.tiles.count;
  r.segments = parts(r.tiles.count, parts(r.tiles.count, most));
  size_t bytes = (size_t)(r.segments * count * r.item);
  if (r.segments > 1 && !(r.partial = nyx_memory_alloc(bytes))) {
    return nyx__no_memory(ctx, bytes);
  }
  double work = (double)(r.tiles.images * r.tiles.span) * (double)r.out_group *
                (double)(r.chunk * r.taps) * (double)parts(r.tiles.count, r.segments);
  nyx_status status = run(&r, r.segments * v->groups * r.chunks, work, weight_range);
  if (status == NYX_OK && r.partial) {
    memcpy(weight, r.partial, (size_t)(count * r.item));
    for (int64_t s = 1; s < r.segments; s++) {
      r.do_->accumulate(weight, r.partial + s * count * r.item, count);
    }
  }
  nyx_memory_free(r.partial);
  return status;
}

nyx_status nyx__conv_by(nyx_context *ctx, const nyx__conv_call *c, void *result,
                        nyx__conv_way way) {
  switch (c->mode) {
    case NYX__CONV_FORWARD:
      return forward_by(ctx, c->v, c->left, c->right, c->bias, result, way);
    case NYX__CONV_INPUT: return input_by(ctx, c->v, c->left, c->right, result, way);
    default: return weight_by(ctx, c->v, c->left, c->right, result, way);
  }
}
