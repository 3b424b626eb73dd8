/* Dense convolutions as products: y = weight (output channels x terms) times the column
 * matrix (terms x output positions), terms being (input channel, tap). The weight is
 * packed once; then each unit of work packs its own columns, block of terms by block of
 * terms, from rows of the images that it has padded (or, under a kernel of one tap, from
 * the images), and multiplies. A weight that few positions use is read where it lies, and
 * all units share the columns. Units depend on sizes alone, so results do not depend on
 * the number of threads. Read next: kernels/cpu/patches.h, kernels/cpu/gemm.h,
 * kernels/cpu/last.h. */
#include "conv_product.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/last.h"
#include "../../kernels/cpu/patches.h"
#include "../linalg/blas.h"
#include "../linalg/gemm.h"
#include "../tensor/packed.h"

#define UNITS 16               /* wanted, for threads to share */
#define UNIT_BYTES 1024        /* a row of a unit's columns, about */
#define RESULT_BYTES (1 << 18) /* a unit's result, where it is not written in place */
#define RESULT_ROWS 512        /* and its rows, at most */
#define LEAST_ROWS 112         /* of the weight, where its rows are divided */
#define SHARED_ROWS 64         /* where the columns are shared */
#define TURNED_ROWS 128        /* and the weight lies turned, but at least */
#define TURNED_UNITS 4         /* such units, with */
#define TURNED_TERMS 288       /* at a time: of few channels, which are guessed */
#define LEAST 12               /* output channels and terms that fill tiles well enough */
#define SCRATCH_BYTES ((int64_t)8 << 20)
#define RANGE_WORK ((double)(1 << 19)) /* multiplications worth waking a thread for */
#define COPY_WORK 32                   /* an element, packed, in these */
#define LARGEST ((int64_t)1 << 24)     /* sizes; below it products of two are in range */
#define MOST_TILE_ROWS 16              /* in any kernel */
#define PAGE 4096 /* rows so far apart share few lines of the first cache */

typedef struct product_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const nyx_gemm_kernel *gemm;
  const nyx_last_kernel *last;
  const nyx_patches_kernel *patches;
  int64_t item;
  const char *x, *weight, *bias;
  char *y, *a;         /* a: the packed weight; NULL: read in place, or packed by units */
  char *shared;        /* the packed columns, where the units share them */
  int64_t shared_step; /* bytes of a block of terms there */
  int64_t row_step, term_step; /* of the weight, in elements */
  int64_t taps, positions, plane, in_group, out_group, terms;
  nyx_row_padding padding;
  int64_t pitch, span;       /* of padded rows; rows that one output row sees */
  int64_t stride;            /* padded rows from one output row to the next */
  int64_t width, depth;      /* of the panels of A; terms at a time */
  int64_t panel;             /* columns of a panel of B */
  int64_t columns, rows;     /* of a unit, at most */
  int64_t blocks, per_image; /* column blocks; those of an image, 0: they mix images */
  int64_t row_units;         /* divisions of the output channels of a group */
  bool straight;             /* one tap, no padding: columns are packed from the images */
  bool once;     /* one block of columns: no block of the weight is used again */
  bool in_place; /* then its rows are read where they lie */
  bool wide;     /* by tiles of all columns, so that each is read once */
  bool turned;   /* where they lie (channel, row, tap), taps backwards */
  bool thin; /* the last column would need a vector of its own: 49 are 3 x 16 and it */
  size_t padded_bytes, panel_bytes, result_bytes, offset_bytes, patch_bytes;
  size_t piece_bytes, a_bytes, sum_bytes;
  atomic_int status;
} product_run;

/* Columns q0..q1-1 of a unit whose result goes to `c`: of one image, where it belongs
 * (`there`), or tiles that images share, to be copied. */
typedef struct piece {
  int64_t q0, q1, ldc;
  char *c;
  bool there;
} piece;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* `n` in equal parts of about `most`, each so many whole `step`s. */
static int64_t equal(int64_t n, int64_t most, int64_t step) {
  return parts(parts(n, parts(n, most)), step) * step;
}

/* Output channels in `units` parts or fewer, and the panels of A that fit these. */
static void divide_rows(product_run *r, int64_t units, int64_t fewest) {
  int64_t tile = r->wide ? r->last->wide_rows : r->gemm->tile_rows;
  units = least(units, r->out_group / fewest);
  int64_t rows = parts(r->out_group, units > 1 ? units : 1), tiles = parts(rows, tile);
  /* A few tiles more than need be are worth units of equal length. */
  if (r->wide && rows % (tiles + 1) == 0) tiles++;
  r->width = parts(rows, tiles);
  r->rows = parts(rows, r->width) * r->width;
  r->row_units = parts(r->out_group, r->rows);
}

/* All columns at once, for a weight that is read where it lies unless panels of it are
 * kept. Rows a page apart share a set of the first cache, which has room for a wide
 * tile's. */
static void divide_once(product_run *r) {
  const nyx__conv *v = r->v;
  int64_t lanes = r->patches->lanes;
  r->columns = r->positions * v->images;
  r->per_image = v->images == 1;
  r->blocks = 1;
  r->thin = r->per_image && r->columns > lanes && r->columns % lanes == 1;
  int64_t vectors = parts(r->columns - r->thin, lanes);
  r->wide = !v->keep && vectors * lanes % r->last->wide_cols == 0;
  r->in_place = r->wide || r->terms * r->item % PAGE != 0;
  if (r->wide) r->panel = r->last->wide_cols;
  int64_t few = r->out_group / TURNED_ROWS;
  if (few < TURNED_UNITS) few = TURNED_UNITS;
  divide_rows(r, r->turned ? few : UNITS, SHARED_ROWS);
}

/* Columns for a unit, and how the output channels are divided. Where columns mix images a
 * unit has fewer, and fewer rows. */
static void divide(product_run *r) {
  const nyx__conv *v = r->v;
  int64_t lanes = r->patches->lanes, count = r->positions * v->images;
  int64_t waste = parts(r->positions, lanes) * lanes - r->positions;
  int64_t most = UNIT_BYTES / r->item, fewest = 4 * lanes;
  bool in_place = v->images == 1 || waste <= r->positions / 24;
  int64_t each = in_place ? r->positions : count;
  r->once = count <= most;
  if (r->once) {
    divide_once(r);
    return;
  }
  int64_t row_units = in_place ? 1 : parts(r->out_group, RESULT_ROWS);
  divide_rows(r, row_units, 1);
  most += most / 4; /* rather than a small rest */
  if (!in_place) most = least(most, RESULT_BYTES / (r->rows * r->item));
  for (most = most > fewest ? most : fewest;; most = most / 2) {
    r->columns = equal(each, most > fewest ? most : fewest, lanes);
    r->per_image = in_place ? parts(r->positions, r->columns) : 0;
    r->blocks = in_place ? r->per_image * v->images : parts(count, r->columns);
    if (r->blocks * r->row_units * v->groups >= UNITS || most <= fewest) break;
  }
  row_units = parts(UNITS, r->blocks * v->groups);
  if (row_units > r->row_units) divide_rows(r, row_units, LEAST_ROWS);
}

/* The most padded rows that r->columns positions in a row need. */
static int64_t rows_needed(const product_run *r) {
  const nyx__window *wy = &r->v->window[0], *wx = &r->v->window[1];
  int64_t images =
      r->per_image ? 1 : least((r->columns - 1) / r->positions + 2, r->v->images);
  int64_t rows = least((r->columns - 1) / wx->out + 2, images * wy->out) + images;
  return rows * r->stride + images * r->span;
}

/* Rows of the weight that are multiplied together. */
static int64_t row_block(const product_run *r) {
  return r->gemm->block_rows / r->gemm->tile_rows * r->width;
}

/* Sizes. False: too large, or too small to fill tiles, or nothing, as the gradient of an
 * image that is all padding. */
static bool describe(product_run *r, const nyx__conv *v) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  *r = (product_run){
      .v = v,
      .gemm = &nyx__cpu_kernels()->gemm->type[v->dtype == NYX_FLOAT64],
      .last = &nyx__cpu_kernels()->last->type[v->dtype == NYX_FLOAT64],
      .patches = &nyx__cpu_kernels()->patches->type[v->dtype == NYX_FLOAT64],
      .item = (int64_t)nyx_dtype_size(v->dtype),
      .in_group = v->in_channels / v->groups,
      .out_group = v->out_channels / v->groups,
      .term_step = 1};
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &v->window[i];
    if (w->in > LARGEST || w->out > LARGEST || w->pad > LARGEST || w->kernel > 64 ||
        w->stride > 64 || w->dilation > LARGEST / 64 || w->in < 1 || w->out < 1)
      return false;
  }
  r->taps = wy->kernel * wx->kernel;
  r->positions = wy->out * wx->out;
  r->plane = wy->in * wx->in;
  r->terms = r->row_step = r->in_group * r->taps;
  if (r->out_group < LEAST || r->terms < LEAST) return false;
  int64_t across = (wx->kernel - 1) * wx->dilation + 1;
  r->span = (wy->kernel - 1) * wy->dilation + 1;
  r->stride = wy->kernel > 1 ? wy->stride : 1; /* rows between are seen by nobody */
  r->straight =
      r->taps == 1 && wy->stride == 1 && wx->stride == 1 && wy->pad == 0 && wx->pad == 0;
  r->padding = (nyx_row_padding){.width = wx->in,
                                 .step = wx->stride,
                                 .pad = wx->pad,
                                 .phases = least(wx->stride, across),
                                 .phase = wx->out + (across - 1) / wx->stride,
                                 .down = wy->kernel > 1 ? 1 : wy->stride,
                                 .ahead = r->plane};
  r->pitch = r->padding.phases * r->padding.phase;
  r->width = parts(r->out_group, parts(r->out_group, r->gemm->tile_rows));
  r->panel = r->gemm->tile_cols;
  return true;
}

/* The padded rows of `channels` channels; false: too large. */
static bool plan_padded(product_run *r, int64_t channels) {
  int64_t rows = rows_needed(r), slack = 4 * r->patches->lanes * r->item;
  if (rows > LARGEST || r->pitch > SCRATCH_BYTES || rows * r->pitch > SCRATCH_BYTES ||
      channels * rows * r->pitch * r->item > SCRATCH_BYTES)
    return false;
  /* Slack: vectors that begin before the end. */
  r->padded_bytes = (size_t)(channels * rows * r->pitch * r->item + slack);
  return true;
}

/* Terms of the last column of a block of `depth` of them, side by side: those of a
 * channel go on from the first until a vector may begin at any, where the weight lies
 * turned. */
static int64_t thin_terms(const product_run *r, int64_t depth) {
  return r->turned ? depth / r->taps * (r->taps + r->patches->lanes) : depth;
}

/* Elements for them, and for a vector that may be written beyond. */
static int64_t thin_room(const product_run *r) {
  return r->thin ? thin_terms(r, r->depth) + r->patches->lanes : 0;
}

/* Terms at a time. */
static int64_t depth_of(const product_run *r) {
  if (!r->turned) return equal(r->terms, r->gemm->depth, 16);
  int64_t most = TURNED_TERMS / r->taps;
  return equal(r->in_group, most > 1 ? most : 1, 1) * r->taps;
}

/* turned: the weight lies as that of the convolution that this is the adjoint of. */
static bool plan(product_run *r, const nyx__conv *v, bool turned) {
  if (!describe(r, v)) return false;
  r->turned = turned;
  r->depth = depth_of(r);
  divide(r);
  if (!plan_padded(r, least((r->depth - 1) / r->taps + 2, r->in_group))) return false;
  int64_t panels = parts(r->columns - r->thin, r->panel);
  r->panel_bytes =
      (size_t)((r->depth * panels * r->panel + 4 * r->patches->lanes) * r->item);
  r->result_bytes = r->per_image ? 0 : (size_t)(r->rows * r->columns * r->item);
  r->offset_bytes = (size_t)(r->depth + thin_room(r)) * sizeof(int64_t);
  r->patch_bytes = (size_t)r->columns * sizeof(nyx_patch);
  r->piece_bytes = (size_t)parts(r->columns, r->panel) * sizeof(piece);
  bool packs = r->once && !r->in_place;
  r->sum_bytes = r->thin && r->turned ? (size_t)(r->rows * r->taps * r->item) : 0;
  r->a_bytes = packs ? (size_t)(row_block(r) * r->depth * r->item) : 0;
  return true;
}

static bool usable(void) {
  return nyx__cpu_kernels()->gemm->fast || !nyx__blas();
}

bool nyx__conv_product_takes(const nyx__conv *v) {
  product_run r;
  return usable() && plan(&r, v, false);
}

/* Whether all columns fit a tile, and the weight does not stay in the second cache: where
 * it does, other ways are as good or better. */
static bool reads_once(product_run *r, const nyx__conv *v, bool turned) {
  nyx__conv bare = *v; /* kept or not, it goes the same way: to the same bits */
  bare.keep = NULL;
  return plan(r, &bare, turned) && r->wide &&
         v->out_channels * r->terms * r->item > nyx__gemm_in_place_bytes();
}

bool nyx__conv_product_reads_once(const nyx__conv *v) {
  product_run r;
  return usable() && reads_once(&r, v, false);
}

static bool going(product_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

/* The packed weight: groups, blocks of terms, panels. */
static char *panel_at(const product_run *r, int64_t group, int64_t term, int64_t row) {
  int64_t depth = least(r->depth, r->terms - term);
  int64_t at = group * r->out_group * r->terms + term * r->out_group + row * depth;
  return r->a + at * r->item;
}

static void pack_rows(const product_run *r, int64_t group, int64_t term, int64_t row,
                      int64_t rows, char *to) {
  const char *from = r->weight + (group * r->out_group * r->terms + row * r->row_step +
                                  term * r->term_step) *
                                     r->item;
  r->gemm->pack_a(from, r->row_step, r->term_step, rows, r->width,
                  least(r->depth, r->terms - term), to);
}

/* Items are panels: (group, block of terms, panel). */
static void pack_weight(void *arg, int64_t begin, int64_t end) {
  const product_run *r = arg;
  int64_t panels = parts(r->out_group, r->width), blocks = parts(r->terms, r->depth);
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i % panels * r->width, term = i / panels % blocks * r->depth;
    int64_t group = i / panels / blocks;
    pack_rows(r, group, term, row, least(r->width, r->out_group - row),
              panel_at(r, group, term, row));
  }
}

static bool pack_all(void *arg, void *data) {
  product_run *r = arg;
  r->a = data;
  int64_t panels = parts(r->out_group, r->width) * parts(r->terms, r->depth);
  nyx_parallel_for(panels * r->v->groups, 8, pack_weight, r);
  return true;
}

/* The packed weight that its storage keeps; NULL: none. */
static nyx__packed *kept_weight(product_run *r, size_t bytes) {
  const nyx__conv *v = r->v;
  if (!v->keep) return NULL;
  const nyx__packed_key key = {
      .kind = NYX_PACKED_CONV,
      .kernel = r->gemm,
      .from = r->weight,
      .size = {v->out_channels, v->groups, r->terms, r->width, r->depth}};
  return nyx__packed_get(v->keep, &key, bytes, pack_all, r);
}

/* A unit: columns q0..q1-1 of all images' positions, rows o0..o1-1 of a group. */
typedef struct unit {
  int64_t group, q0, q1, o0, o1;
  char *padded, *panels, *result, *a, *sums;
  int64_t *offset;
  nyx_patch *patch;
  piece *piece;
  int64_t pieces;
  const char *from; /* where columns are packed from: padded rows, or the images */
  int64_t channel;  /* elements from one channel to the next there */
} unit;

/* Part of an image: output rows y0..y1-1 of image n. */
typedef struct image_part {
  int64_t n, y0, y1;
} image_part;

/* The part that begins at column q, and where the next one begins. */
static image_part part_at(const product_run *r, const unit *u, int64_t q, int64_t *next) {
  int64_t n = q / r->positions, first = n * r->positions;
  *next = least(first + r->positions, u->q1);
  return (image_part){.n = n,
                      .y0 = (q - first) / r->v->window[1].out,
                      .y1 = (*next - 1 - first) / r->v->window[1].out + 1};
}

static int64_t part_rows(const product_run *r, const image_part *p) {
  return (p->y1 - p->y0 - 1) * r->stride + r->span;
}

/* How much a channel of a unit takes. */
static void measure(const product_run *r, unit *u) {
  u->channel = 0;
  for (int64_t q = u->q0, next; q < u->q1; q = next) {
    image_part p = part_at(r, u, q, &next);
    u->channel += part_rows(r, &p) * r->pitch;
  }
}

/* Pads what channels c0..c1-1 of the group have for this unit. */
static void pad_channels(const product_run *r, const unit *u, int64_t c0, int64_t c1) {
  const nyx__window *wy = &r->v->window[0];
  const char *limit = r->x + r->v->images * r->v->in_channels * r->plane * r->item;
  int64_t next, at = 0;
  for (int64_t q = u->q0; q < u->q1; q = next) {
    image_part p = part_at(r, u, q, &next);
    int64_t rows = part_rows(r, &p);
    int64_t first = p.n * r->v->in_channels + u->group * r->in_group;
    for (int64_t c = c0; c < c1; c++) {
      r->patches->pad(&r->padding, r->x + (first + c) * r->plane * r->item, wy->in, limit,
                      p.y0 * wy->stride - wy->pad, rows,
                      u->padded + ((c - c0) * u->channel + at) * r->item);
    }
    at += rows * r->pitch;
  }
}

/* Whether channels up to c1 are packed from the images: vectors may be read beyond a
 * plane, but not beyond the last one. */
static bool sees_images(const product_run *r, const unit *u, int64_t c1) {
  int64_t n = (u->q1 - 1) / r->positions, lanes = r->patches->lanes;
  int64_t seen = n * r->v->in_channels + u->group * r->in_group + c1;
  int64_t behind = r->v->images * r->v->in_channels - seen;
  bool whole = u->q0 / r->positions == n && (u->q1 - u->q0) % lanes == 0;
  return r->straight && (whole || behind * r->plane >= lanes);
}

/* Channels c0..c1-1 of the group for this unit's columns to be packed from. */
static void open_channels(const product_run *r, unit *u, int64_t c0, int64_t c1) {
  if (sees_images(r, u, c1)) {
    u->from = r->x + (u->group * r->in_group + c0) * r->plane * r->item;
    u->channel = r->plane;
    return;
  }
  measure(r, u);
  pad_channels(r, u, c0, c1);
  u->from = u->padded;
}

/* Where the terms from `first` on read. */
static void find_offsets(const product_run *r, const unit *u, int64_t first,
                         int64_t depth) {
  const nyx__window *wy = &r->v->window[0], *wx = &r->v->window[1];
  int64_t t = first % r->taps, c = 0, i = t / wx->kernel, j = t % wx->kernel;
  for (int64_t l = 0; l < depth; l++) {
    int64_t row = r->turned ? wy->kernel - 1 - i : i;
    int64_t column = (r->turned ? wx->kernel - 1 - j : j) * wx->dilation;
    u->offset[l] = c * u->channel + row * wy->dilation * r->pitch +
                   column % wx->stride * r->padding.phase + column / wx->stride;
    if (++j < wx->kernel) continue;
    j = 0;
    if (++i < wy->kernel) continue;
    i = 0;
    c++;
  }
}

/* The vectors of some columns from q on, in the images. */
static int64_t find_vectors(const product_run *r, const unit *u, int64_t q,
                            int64_t columns) {
  int64_t end = least(q + columns, u->q1), n = 0;
  for (int64_t at = q, next; at < end; at = next) {
    int64_t image = at / r->positions, first = image * r->positions;
    int64_t from = image * r->v->in_channels * r->plane + at - first;
    next = least(first + r->positions, end);
    for (int64_t l = 0; l < next - at; l += r->patches->lanes)
      u->patch[n++] = (nyx_patch){from + l, at - q + l};
  }
  return n;
}

/* The vectors of some columns from q on; `base` is where the images' parts begin. */
static int64_t find_patches(const product_run *r, const unit *u, int64_t q,
                            int64_t columns) {
  if (u->from != u->padded) return find_vectors(r, u, q, columns);
  const nyx__window *wx = &r->v->window[1];
  int64_t end = least(q + columns, u->q1), first = q, base = 0, next, n = 0;
  for (int64_t at = u->q0; at < end; at = next) {
    image_part p = part_at(r, u, at, &next);
    int64_t origin = p.n * r->positions;
    while (q < least(next, end)) {
      int64_t y = (q - origin) / wx->out, x = (q - origin) % wx->out;
      int64_t live = least(wx->out - x, least(next, end) - q);
      int64_t from = base + (y - p.y0) * r->stride * r->pitch + x;
      for (int64_t l = 0; l < live; l += r->patches->lanes)
        u->patch[n++] = (nyx_patch){from + l, q - first + l};
      q += live;
    }
    base += part_rows(r, &p) * r->pitch;
  }
  return n;
}

static char *thin_at(const product_run *r, const char *panels) {
  return (char *)panels + r->shared_step - thin_room(r) * r->item;
}

/* The last column, whose terms' offsets have been found. */
static void pack_thin(const product_run *r, unit *u, int64_t depth, char *to) {
  const int64_t *offset = u->offset;
  if (r->turned) {
    int64_t *next = u->offset + depth;
    offset = next;
    for (const int64_t *from = u->offset; from < offset; from += r->taps)
      for (int64_t l = 0, t = 0; l < r->taps + r->patches->lanes; l++) {
        *next++ = from[t];
        if (++t == r->taps) t = 0;
      }
  }
  int64_t n = find_patches(r, u, u->q1 - 1, 1);
  r->patches->pack(u->from, offset, thin_terms(r, depth), u->patch, n, 1, to);
}

/* The columns' terms from `term` on. */
static void pack_columns(const product_run *r, unit *u, int64_t term, int64_t depth,
                         char *panels) {
  int64_t end = u->q1 - r->thin;
  open_channels(r, u, term / r->taps, (term + depth - 1) / r->taps + 1);
  find_offsets(r, u, term, depth);
  for (int64_t q = u->q0; q < end; q += r->panel) {
    char *panel = panels + (q - u->q0) * depth * r->item;
    int64_t n = find_patches(r, u, q, least(r->panel, end - q));
    if (end - q < r->panel) memset(panel, 0, (size_t)(depth * r->panel * r->item));
    r->patches->pack(u->from, u->offset, depth, u->patch, n, r->panel, panel);
  }
  if (r->thin) pack_thin(r, u, depth, thin_at(r, panels));
}

static char *y_at(const product_run *r, int64_t n, int64_t channel) {
  return r->y + (n * r->v->out_channels + channel) * r->positions * r->item;
}

/* Where the result of a unit goes. A tile is of one piece. */
static void find_pieces(const product_run *r, unit *u) {
  int64_t tile = r->per_image ? u->q1 - u->q0 : r->panel;
  u->pieces = 0;
  for (int64_t q = u->q0; q < u->q1; q += tile) {
    int64_t end = least(q + tile, u->q1), n = q / r->positions;
    bool there = (end - 1) / r->positions == n;
    piece *before = u->pieces > 0 ? &u->piece[u->pieces - 1] : NULL;
    if (before && before->there == there && (!there || before->q0 / r->positions == n)) {
      before->q1 = end;
      continue;
    }
    piece p = {.q0 = q, .q1 = end, .there = there};
    p.ldc = there ? r->positions : r->columns;
    p.c = there ? y_at(r, n, u->group * r->out_group + u->o0) +
                      (q - n * r->positions) * r->item
                : u->result + (q - u->q0) * r->item;
    u->piece[u->pieces++] = p;
  }
}

/* Where a term of a row lies in the weight. */
static const char *weight_at(const product_run *r, int64_t group, int64_t row,
                             int64_t term) {
  int64_t at = (group * r->out_group + row) * r->terms + term;
  if (r->turned)
    at = ((group * r->in_group + term / r->taps) * r->out_group + row) * r->taps;
  return r->weight + at * r->item;
}

/* By a few rows of the weight where they lie: some terms, while they are in the first
 * cache, with all columns. */
static void multiply_rows(const product_run *r, const unit *u, int64_t row, int64_t term,
                          int64_t depth, const char *panels) {
  const void *a[MOST_TILE_ROWS];
  void *to[MOST_TILE_ROWS];
  const int64_t all = 0;
  nyx_last_product p = {.m = least(r->width, u->o1 - row),
                        .a = a,
                        .run = r->turned ? u->offset : &all,
                        .runs = r->turned ? depth / r->taps : 1,
                        .length = r->turned ? r->taps : depth,
                        .c = to,
                        .add = term > 0};
  for (int64_t i = 0; i < p.m; i++) a[i] = weight_at(r, u->group, row + i, term);
  for (const piece *at = u->piece; at < u->piece + u->pieces; at++) {
    for (int64_t i = 0; i < p.m; i++)
      to[i] = at->c + (row + i - u->o0) * at->ldc * r->item;
    p.n = at->q1 - at->q0 - r->thin;
    p.b = panels + (at->q0 - u->q0) * depth * r->item;
    (r->wide ? r->last->wide : r->last->product)(&p);
    if (r->thin && !r->turned)
      r->gemm->thin(a[0], r->terms, p.m, depth, thin_at(r, panels),
                    (char *)to[0] + p.n * r->item, at->ldc, term > 0);
  }
}

/* The last column of rows that are packed. */
static void multiply_thin(const product_run *r, const nyx_product *p, const char *a,
                          const char *thin) {
  for (int64_t i = 0; i < p->m; i += r->width)
    r->gemm->thin(a + i * p->k * r->item, 0, least(r->width, p->m - i), p->k, thin,
                  (char *)p->c + (i * p->ldc + p->n) * r->item, p->ldc, p->add);
}

static void multiply(const product_run *r, const unit *u, const char *panels,
                     int64_t term, int64_t depth) {
  int64_t block = row_block(r);
  for (int64_t row = u->o0; row < u->o1; row += block) {
    nyx_product p = {.m = least(block, u->o1 - row), .k = depth, .add = term > 0};
    if (!r->a) pack_rows(r, u->group, term, row, p.m, u->a);
    const char *a = r->a ? panel_at(r, u->group, term, row) : u->a;
    for (int64_t i = 0; i < u->pieces; i++) {
      const piece *at = &u->piece[i];
      p.n = at->q1 - at->q0 - r->thin;
      p.c = at->c + (row - u->o0) * at->ldc * r->item;
      p.ldc = at->ldc;
      p.next = i + 1 < u->pieces ? panels + (at->q1 - u->q0) * depth * r->item : NULL;
      r->gemm->block(&p, r->width, a, panels + (at->q0 - u->q0) * depth * r->item);
      if (r->thin) multiply_thin(r, &p, a, thin_at(r, panels));
    }
  }
}

/* What comes after, for columns q.. of one image, which have been written. */
static void end_columns(const product_run *r, const unit *u, int64_t q, int64_t columns) {
  int64_t n = q / r->positions, channel = u->group * r->out_group + u->o0;
  nyx__epilogue_there(r->v->after, r->v->dtype,
                      y_at(r, n, channel) + (q - n * r->positions) * r->item,
                      u->o1 - u->o0, columns, r->positions);
}

/* A piece to the images it is of. */
static void spread(const product_run *r, const unit *u, const piece *p) {
  for (int64_t q = p->q0, next; q < p->q1; q = next) {
    int64_t n = q / r->positions, first = q - n * r->positions;
    next = least((n + 1) * r->positions, p->q1);
    for (int64_t o = u->o0; o < u->o1; o++) {
      memcpy(y_at(r, n, u->group * r->out_group + o) + first * r->item,
             p->c + ((o - u->o0) * p->ldc + q - p->q0) * r->item,
             (size_t)((next - q) * r->item));
    }
    end_columns(r, u, q, next - q);
  }
}

static void add_bias(const product_run *r, const unit *u, const piece *p) {
  char *c = p->c;
  for (int64_t o = u->o0; o < u->o1; o++, c += p->ldc * r->item) {
    int64_t channel = u->group * r->out_group + o;
    if (r->v->dtype == NYX_FLOAT32) {
      float b = ((const float *)(const void *)r->bias)[channel],
            *row = (float *)(void *)c;
      for (int64_t q = 0; q < p->q1 - p->q0; q++) row[q] += b;
    } else {
      double b = ((const double *)(const void *)r->bias)[channel];
      double *row = (double *)(void *)c;
      for (int64_t q = 0; q < p->q1 - p->q0; q++) row[q] += b;
    }
  }
}

/* Where the columns' terms from `term` on are, that the units share. */
static char *shared_at(const product_run *r, int64_t group, int64_t term) {
  int64_t blocks = parts(r->terms, r->depth);
  return r->shared + (group * blocks + term / r->depth) * r->shared_step;
}

/* The last column where the weight lies turned: summed tap by tap, and in the end to
 * where it belongs. */
static void multiply_taps(const product_run *r, const unit *u, int64_t term,
                          int64_t depth) {
  const piece *p = u->piece;
  void *to = p->c + (r->positions - 1) * r->item;
  r->gemm->thin_taps(weight_at(r, u->group, u->o0, term), r->out_group * r->taps,
                     depth / r->taps, u->o1 - u->o0, r->taps,
                     thin_at(r, shared_at(r, u->group, term)), u->sums, term > 0,
                     term + depth < r->terms ? NULL : to, p->ldc);
}

/* With shared columns. Where these stay in the second cache, all terms of a few rows go
 * by before the next: they are guessed while they come from the last one, as the starts
 * of many short pieces are not. Where the weight lies turned, a row's terms are such
 * pieces: of a few channels all rows go by. */
static void multiply_in_place(product_run *r, const unit *u) {
  int64_t rows = r->wide && !r->turned ? r->width : u->o1 - u->o0;
  for (int64_t c = 0; r->turned && c < r->depth / r->taps; c++)
    u->offset[c] = c * r->out_group * r->taps;
  for (int64_t o = u->o0; o < u->o1; o += rows) {
    for (int64_t term = 0; term < r->terms && going(r); term += r->depth) {
      int64_t depth = least(r->depth, r->terms - term);
      for (int64_t row = o; row < least(o + rows, u->o1); row += r->width)
        multiply_rows(r, u, row, term, depth, shared_at(r, u->group, term));
      if (r->turned && r->thin) multiply_taps(r, u, term, depth);
    }
  }
}

static void multiply_packed(product_run *r, unit *u) {
  for (int64_t term = 0; term < r->terms && going(r); term += r->depth) {
    int64_t depth = least(r->depth, r->terms - term);
    const char *panels = r->shared ? shared_at(r, u->group, term) : u->panels;
    if (!r->shared) pack_columns(r, u, term, depth, u->panels);
    multiply(r, u, panels, term, depth);
  }
}

static void run_unit(product_run *r, unit *u) {
  find_pieces(r, u);
  if (r->in_place)
    multiply_in_place(r, u);
  else
    multiply_packed(r, u);
  for (const piece *p = u->piece; p < u->piece + u->pieces; p++) {
    if (r->bias) add_bias(r, u, p);
    if (p->there)
      end_columns(r, u, p->q0, p->q1 - p->q0);
    else
      spread(r, u, p);
  }
}

/* Unit i: (column block, group, division of the rows). */
static void find_unit(const product_run *r, int64_t i, unit *u) {
  int64_t block = i / r->row_units / r->v->groups;
  u->o0 = i % r->row_units * r->rows;
  u->o1 = least(u->o0 + r->rows, r->out_group);
  u->group = i / r->row_units % r->v->groups;
  if (r->per_image) {
    int64_t first = block / r->per_image * r->positions;
    u->q0 = first + block % r->per_image * r->columns;
    u->q1 = least(u->q0 + r->columns, first + r->positions);
  } else {
    u->q0 = block * r->columns;
    u->q1 = least(u->q0 + r->columns, r->positions * r->v->images);
  }
}

/* The scratch of a range of units; false: no memory. Its block is u->padded. */
static bool take_scratch(product_run *r, unit *u) {
  size_t part[] = {r->padded_bytes, r->panel_bytes, r->result_bytes, r->offset_bytes,
                   r->patch_bytes,  r->piece_bytes, r->a_bytes,      r->sum_bytes};
  size_t bytes = 0, at[8];
  for (int i = 0; i < 8; i++) {
    at[i] = bytes;
    bytes += (part[i] + 63) / 64 * 64;
  }
  char *block = nyx_memory_alloc(bytes);
  if (!block) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return false;
  }
  *u = (unit){.padded = block,
              .panels = block + at[1],
              .result = block + at[2],
              .offset = (int64_t *)(void *)(block + at[3]),
              .patch = (nyx_patch *)(void *)(block + at[4]),
              .piece = (piece *)(void *)(block + at[5]),
              .a = block + at[6],
              .sums = block + at[7]};
  if (!r->straight) /* beside the images; see pad_type.h */
    memset(u->padded, 0, r->padded_bytes);
  return true;
}

static void run_range(void *arg, int64_t begin, int64_t end) {
  product_run *r = arg;
  unit u;
  if (!take_scratch(r, &u)) return;
  for (int64_t i = begin; i < end && going(r); i++) {
    find_unit(r, i, &u);
    run_unit(r, &u);
  }
  nyx_memory_free(u.padded);
}

/* Items are (group, block of terms): the columns that the units share. */
static void share_range(void *arg, int64_t begin, int64_t end) {
  product_run *r = arg;
  unit u;
  if (!take_scratch(r, &u)) return;
  int64_t blocks = parts(r->terms, r->depth);
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t term = i % blocks * r->depth;
    u.group = i / blocks;
    u.q1 = r->columns;
    int64_t depth = least(r->depth, r->terms - term);
    pack_columns(r, &u, term, depth, shared_at(r, u.group, term));
  }
  nyx_memory_free(u.padded);
}

static nyx_status finish(const product_run *r) {
  switch (atomic_load(&r->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(r->ctx, INTERRUPTED);
    default: return nyx__no_memory(r->ctx, r->panel_bytes + r->padded_bytes);
  }
}

/* Ranges of units of so many multiplications each. */
static int64_t grain_of(double work) {
  return work < RANGE_WORK ? (int64_t)(RANGE_WORK / (work + 1)) + 1 : 1;
}

/* With r->a, or the weight where it is. */
static nyx_status run_units(product_run *r) {
  int64_t groups = r->v->groups, blocks = groups * parts(r->terms, r->depth);
  if (r->once) {
    r->shared_step = parts((int64_t)r->panel_bytes + thin_room(r) * r->item, 64) * 64;
    size_t bytes = (size_t)(blocks * r->shared_step);
    if (!(r->shared = nyx_memory_alloc(bytes))) return nyx__no_memory(r->ctx, bytes);
    nyx_parallel_for(blocks, grain_of((double)(r->columns * r->depth * COPY_WORK)),
                     share_range, r);
    r->panel_bytes = r->padded_bytes = 0;
  }
  double work = (double)(r->columns * r->rows) * (double)r->terms;
  if (going(r))
    nyx_parallel_for(r->blocks * groups * r->row_units, grain_of(work), run_range, r);
  nyx_memory_free(r->shared);
  return finish(r);
}

static nyx_status run_product(product_run *r) {
  size_t bytes = (size_t)(r->v->out_channels * r->terms * r->item);
  nyx__packed *kept = kept_weight(r, bytes);
  if (kept) {
    r->a = kept->data;
    r->in_place = false;
  } else if (!r->once) {
    if (!(r->a = nyx_memory_alloc(bytes))) return nyx__no_memory(r->ctx, bytes);
    pack_all(r, r->a);
  }
  nyx_status status = run_units(r);
  if (!kept) nyx_memory_free(r->a);
  nyx__packed_release(kept);
  return status;
}

nyx_status nyx__conv_product(nyx_context *ctx, const nyx__conv *v, const void *x,
                             const void *weight, const void *bias, void *y) {
  product_run r;
  plan(&r, v, false);
  r.ctx = ctx;
  r.x = x;
  r.weight = weight;
  r.bias = bias;
  r.y = y;
  atomic_init(&r.status, NYX_OK);
  return run_product(&r);
}

bool nyx__conv_product_reads_turned(const nyx__conv *t) {
  product_run r;
  return t->window[0].kernel * t->window[1].kernel == 1 || reads_once(&r, t, true);
}

nyx_status nyx__conv_product_turned(nyx_context *ctx, const nyx__conv *t, const void *y,
                                    const void *weight, void *x) {
  product_run r;
  plan(&r, t, t->window[0].kernel * t->window[1].kernel > 1);
  r.ctx = ctx;
  r.x = y;
  r.weight = weight;
  if (!r.turned) {
    r.row_step = 1;
    r.term_step = r.out_group;
  }
  r.y = x;
  atomic_init(&r.status, NYX_OK);
  return run_product(&r);
}

bool nyx__conv_product_takes_turned(const nyx__conv *t) {
  product_run r; /* turning a weight that is used once costs more than it gains */
  if (!usable() || !plan(&r, t, false)) return false;
  return !r.once || (r.taps > 1 && reads_once(&r, t, true));
}

/* The adjoint with respect to the weight: y (output channels x positions) times the
 * column matrix turned (positions x terms). Positions are summed in blocks of r->columns,
 * in segments with a partial sum each: few where they are short, as sums cost as much to
 * write and read as many terms. */

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
  divide_rows(r, parts(WEIGHT_UNITS, units), CHUNK_ROWS);
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
  if (!describe(r, v)) return false;
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
  if (!plan_padded(r, w->chunk)) return false;
  int64_t terms = parts(w->chunk * r->taps, tile) * tile, lanes = r->patches->lanes;
  r->panel_bytes = (size_t)((r->columns * terms + lanes * tile) * r->item);
  r->offset_bytes = (size_t)terms * sizeof(int64_t);
  r->patch_bytes = (size_t)r->columns * sizeof(nyx_patch);
  r->a_bytes = (size_t)(row_block(r) * r->columns * r->item);
  return r->panel_bytes <= (size_t)SCRATCH_BYTES;
}

bool nyx__conv_product_takes_weight(const nyx__conv *v) {
  weight_run w;
  return usable() && plan_weight(&w, v);
}

/* The terms of channels c0.., turned, for all columns of the unit. */
static void pack_terms(const product_run *r, const unit *u, int64_t terms) {
  int64_t tile = r->gemm->tile_cols, columns = u->q1 - u->q0;
  int64_t n = find_patches(r, u, u->q0, columns);
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
  open_channels(r, u, c0, c1);
  find_offsets(r, u, 0, terms);
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
  if (!take_scratch(r, &u)) return;
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
  return finish(r);
}
