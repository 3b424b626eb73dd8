/* The columns of a convolution's units: from rows of the images that are padded, or,
 * under a kernel of one tap, from the images. Read next: conv_columns.h,
 * kernels/cpu/patches.h. */
#include "conv_columns.h"

#include <string.h>

#include "../linalg/blas.h"

#define LEAST 12 /* output channels and terms that fill tiles well enough */
#define LARGEST ((int64_t)1 << 24) /* sizes; below it products of two are in range */

bool nyx__columns_usable(void) {
  return nyx__cpu_kernels()->gemm->fast || !nyx__blas();
}

/* Output channels in `units` parts or fewer, and the panels of A that fit these. */
void nyx__columns_divide(product_run *r, int64_t units, int64_t fewest) {
  int64_t tile = r->wide ? r->last->wide_rows : r->gemm->tile_rows;
  units = least(units, r->out_group / fewest);
  int64_t rows = parts(r->out_group, units > 1 ? units : 1), tiles = parts(rows, tile);
  /* A few tiles more than need be are worth units of equal length. */
  if (r->wide && rows % (tiles + 1) == 0) tiles++;
  r->width = parts(rows, tiles);
  r->rows = parts(rows, r->width) * r->width;
  r->row_units = parts(r->out_group, r->rows);
}

/* The most padded rows that r->columns positions in a row need. */
static int64_t rows_needed(const product_run *r) {
  const nyx__window *wy = &r->v->window[0], *wx = &r->v->window[1];
  int64_t images =
      r->per_image ? 1 : least((r->columns - 1) / r->positions + 2, r->v->images);
  int64_t rows = least((r->columns - 1) / wx->out + 2, images * wy->out) + images;
  return rows * r->stride + images * r->span;
}

/* Sizes. False: too large, or too small to fill tiles, or nothing, as the gradient of an
 * image that is all padding. */
bool nyx__columns_describe(product_run *r, const nyx__conv *v) {
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
bool nyx__columns_pad(product_run *r, int64_t channels) {
  int64_t rows = rows_needed(r), slack = 4 * r->patches->lanes * r->item;
  if (rows > LARGEST || r->pitch > SCRATCH_BYTES || rows * r->pitch > SCRATCH_BYTES ||
      channels * rows * r->pitch * r->item > SCRATCH_BYTES)
    return false;
  /* Slack: vectors that begin before the end. */
  r->padded_bytes = (size_t)(channels * rows * r->pitch * r->item + slack);
  return true;
}

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
void nyx__columns_open(const product_run *r, unit *u, int64_t c0, int64_t c1) {
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
void nyx__columns_offsets(const product_run *r, const unit *u, int64_t first,
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
int64_t nyx__columns_patches(const product_run *r, const unit *u, int64_t q,
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

/* The columns' terms from `term` on, in panels; but for the last one, if it is thin. */
void nyx__columns_pack(const product_run *r, unit *u, int64_t term, int64_t depth,
                       char *panels) {
  int64_t end = u->q1 - r->thin;
  nyx__columns_open(r, u, term / r->taps, (term + depth - 1) / r->taps + 1);
  nyx__columns_offsets(r, u, term, depth);
  for (int64_t q = u->q0; q < end; q += r->panel) {
    char *panel = panels + (q - u->q0) * depth * r->item;
    int64_t n = nyx__columns_patches(r, u, q, least(r->panel, end - q));
    if (end - q < r->panel) memset(panel, 0, (size_t)(depth * r->panel * r->item));
    r->patches->pack(u->from, u->offset, depth, u->patch, n, r->panel, panel);
  }
}

/* The scratch of a range of units; false: no memory. Its block is u->padded. */
bool nyx__columns_scratch(product_run *r, unit *u) {
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

nyx_status nyx__columns_finish(const product_run *r) {
  switch (atomic_load(&r->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(r->ctx, INTERRUPTED);
    default: return nyx__no_memory(r->ctx, r->panel_bytes + r->padded_bytes);
  }
}
