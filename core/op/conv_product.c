/* Dense convolutions as products: y = weight (output channels x terms) times the column
 * matrix (terms x output positions), terms being (input channel, tap). The weight is
 * packed once; then each unit of work packs its own columns, block of terms by block of
 * terms, from rows of the images that it has padded (or, under a kernel of one tap, from
 * the images), and multiplies. A weight that few positions use is read where it lies, and
 * all units share the columns. Of few output channels columns are not packed, but read
 * from the padded rows. Units depend on sizes alone, so results do not depend on
 * the number of threads. Read next: kernels/cpu/patches.h, kernels/cpu/gemm.h,
 * kernels/cpu/last.h. */
#include "conv_product.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../linalg/gemm.h"
#include "../tensor/packed.h"
#include "conv_columns.h"

#define UNITS 16               /* wanted, for threads to share */
#define UNIT_BYTES 1024        /* a row of a unit's columns, about */
#define RESULT_BYTES (1 << 18) /* a unit's result, where it is not written in place */
#define RESULT_ROWS 512        /* and its rows, at most */
#define LEAST_ROWS 112         /* of the weight, where its rows are divided */
#define SHARED_ROWS 64         /* where the columns are shared */
#define TURNED_ROWS 128        /* and the weight lies turned, but at least */
#define TURNED_UNITS 4         /* such units, with */
#define TURNED_TERMS 288       /* at a time: of few channels, which are guessed */
#define COPY_WORK 32           /* an element, packed, in these */
#define MOST_TILE_ROWS 16      /* in any kernel */
#define READ_WASTE 4           /* times columns, by rows: lanes worth not packing those */
#define READ_VECTORS 4         /* then, with all rows */
#define READ_TERMS 128         /* and at a time: shorter sums lose fewer digits */
#define PAGE 4096              /* rows so far apart share few lines of the first cache */

/* `n` in equal parts of about `most`, each so many whole `step`s. */
static int64_t equal(int64_t n, int64_t most, int64_t step) {
  return parts(parts(n, parts(n, most)), step) * step;
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
  nyx__columns_divide(r, r->turned ? few : UNITS, SHARED_ROWS);
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
  nyx__columns_divide(r, row_units, 1);
  most += most / 4; /* rather than a small rest */
  if (!in_place) most = least(most, RESULT_BYTES / (r->rows * r->item));
  for (most = most > fewest ? most : fewest;; most = most / 2) {
    r->columns = equal(each, most > fewest ? most : fewest, lanes);
    r->per_image = in_place ? parts(r->positions, r->columns) : 0;
    r->blocks = in_place ? r->per_image * v->images : parts(count, r->columns);
    if (r->blocks * r->row_units * v->groups >= UNITS || most <= fewest) break;
  }
  row_units = parts(UNITS, r->blocks * v->groups);
  if (row_units > r->row_units) nyx__columns_divide(r, row_units, LEAST_ROWS);
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

/* Whether columns are read where they are padded. Packing one costs as much as some rows
 * of the product; read so, rows of the image end with a vector that is not full. */
static bool reads_columns(const product_run *r, bool turned) {
  int64_t width = r->v->window[1].out, lanes = r->patches->lanes;
  int64_t waste = parts(width, lanes) * lanes - width;
  return !turned && !r->once && r->per_image && !r->straight &&
         waste * r->out_group <= READ_WASTE * width;
}

/* turned: the weight lies as that of the convolution that this is the adjoint of. */
static bool plan(product_run *r, const nyx__conv *v, bool turned) {
  if (!nyx__columns_describe(r, v)) return false;
  r->turned = turned;
  r->depth = depth_of(r);
  divide(r);
  r->read = reads_columns(r, turned);
  if (r->read) r->depth = equal(r->terms, READ_TERMS, 16);
  if (!nyx__columns_pad(r, least((r->depth - 1) / r->taps + 2, r->in_group)))
    return false;
  int64_t panels = parts(r->columns - r->thin, r->panel);
  r->panel_bytes =
      r->read
          ? 0
          : (size_t)((r->depth * panels * r->panel + 4 * r->patches->lanes) * r->item);
  r->result_bytes = r->per_image ? 0 : (size_t)(r->rows * r->columns * r->item);
  r->offset_bytes = (size_t)(r->depth + thin_room(r)) * sizeof(int64_t);
  r->patch_bytes = (size_t)r->columns * sizeof(nyx_patch);
  r->piece_bytes = (size_t)parts(r->columns, r->panel) * sizeof(piece);
  bool packs = r->once && !r->in_place;
  r->sum_bytes = r->thin && r->turned ? (size_t)(r->rows * r->taps * r->item) : 0;
  r->a_bytes = packs ? (size_t)(row_block(r) * r->depth * r->item) : 0;
  return true;
}

bool nyx__conv_product_takes(const nyx__conv *v) {
  product_run r;
  return nyx__columns_usable() && plan(&r, v, false);
}

bool nyx__conv_product_reads_columns(const nyx__conv *v) {
  product_run r;
  return nyx__columns_usable() && plan(&r, v, false) && r.read;
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
  return nyx__columns_usable() && reads_once(&r, v, false);
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
  int64_t n = nyx__columns_patches(r, u, u->q1 - 1, 1);
  r->patches->pack(u->from, offset, thin_terms(r, depth), u->patch, n, 1, to);
}

/* The columns' terms from `term` on. */
static void pack_columns(const product_run *r, unit *u, int64_t term, int64_t depth,
                         char *panels) {
  nyx__columns_pack(r, u, term, depth, panels);
  if (r->thin) pack_thin(r, u, depth, thin_at(r, panels));
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

/* Whether the terms of a turned weight's rows are read one by one: rows are kernels then,
 * side by side, which one place in memory stands for. */
static bool by_terms(const product_run *r) {
  return r->wide && r->turned && r->taps == NYX_LAST_STEP;
}

/* By a few rows of the weight where they lie: some terms, while they are in the first
 * cache, with all columns. */
static void multiply_rows(const product_run *r, const unit *u, int64_t row, int64_t term,
                          int64_t depth, const char *panels) {
  const void *a[MOST_TILE_ROWS];
  void *to[MOST_TILE_ROWS];
  const int64_t all = 0, length = by_terms(r) ? 1 : r->turned ? r->taps : depth;
  nyx_last_product p = {.m = least(r->width, u->o1 - row),
                        .a = a,
                        .run = r->turned ? u->offset : &all,
                        .runs = depth / length,
                        .length = length,
                        .c = to,
                        .add = term > 0,
                        .step = by_terms(r) ? r->taps : 0,
                        .ahead = term + depth < r->terms ? depth * r->out_group : 0};
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

/* A unit's columns where they are padded: some vectors with all rows, while what these
 * see stays in the first cache. */
static void multiply_read(const product_run *r, unit *u, int64_t term, int64_t depth) {
  const piece *at = u->piece;
  nyx__columns_open(r, u, term / r->taps, (term + depth - 1) / r->taps + 1);
  nyx__columns_offsets(r, u, term, depth);
  int64_t n = nyx__columns_patches(r, u, u->q0, u->q1 - u->q0);
  nyx_patched p = {.from = u->from,
                   .offset = u->offset,
                   .depth = depth,
                   .ldc = at->ldc,
                   .add = term > 0};
  for (int64_t i = 0; i < n; i += READ_VECTORS) {
    p.patch = &u->patch[i];
    p.count = least(READ_VECTORS, n - i);
    p.columns = n - i > READ_VECTORS ? u->patch[i + READ_VECTORS].to : u->q1 - u->q0;
    for (int64_t row = u->o0; row < u->o1; row += r->width)
      r->gemm->patched(&p, panel_at(r, u->group, term, row), least(r->width, u->o1 - row),
                       at->c + (row - u->o0) * at->ldc * r->item);
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

/* Where the runs of a row's terms begin in a weight that lies turned. */
static void find_runs(const product_run *r, const unit *u) {
  int64_t *at = u->offset, each = by_terms(r) ? r->taps : 1;
  for (int64_t c = 0; c < r->depth / r->taps; c++)
    for (int64_t t = 0; t < each; t++) *at++ = c * r->out_group * r->taps + t;
}

/* With shared columns. Where these stay in the second cache, all terms of a few rows go
 * by before the next: they are guessed while they come from the last one, as the starts
 * of many short pieces are not. Where the weight lies turned, a row's terms are such
 * pieces: of a few channels all rows go by. */
static void multiply_in_place(product_run *r, const unit *u) {
  int64_t rows = r->wide && !r->turned ? r->width : u->o1 - u->o0;
  if (r->turned) find_runs(r, u);
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
    if (r->read) {
      multiply_read(r, u, term, depth);
      continue;
    }
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

static void run_range(void *arg, int64_t begin, int64_t end) {
  product_run *r = arg;
  unit u;
  if (!nyx__columns_scratch(r, &u)) return;
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
  if (!nyx__columns_scratch(r, &u)) return;
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
  return nyx__columns_finish(r);
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
  if (!nyx__columns_usable() || !plan(&r, t, false)) return false;
  return !r.once || (r.taps > 1 && reads_once(&r, t, true));
}
