/* The adjoint of a convolution with stride 2 with respect to the input, of one small
 * image. Places of the input fall into four phases, by whether their row and their column
 * are even or odd; a phase is a convolution with stride 1 of the outputs' gradients by
 * its taps of the kernels. The weight, larger than the second cache, is read once, where
 * it lies: while some channels' kernels are in the first cache, all phases go by. Units
 * depend on sizes alone, so results do not depend on the number of threads. Read next:
 * conv_product.c, which does the same with stride 1. */
#include <nyx/parallel.h>
#include <string.h>

#include "../linalg/gemm.h"
#include "conv_columns.h"
#include "conv_product.h"

#define PHASES 4
#define MOST_TAPS 4                /* of a phase */
#define UNIT_BYTES 1024            /* a row of a phase's columns */
#define SHARED_ROWS 64             /* of a unit, at least */
#define UNIT_ROWS 128              /* about */
#define UNITS 4                    /* but at least so many */
#define BLOCK_TERMS 288            /* at a time, about */
#define MOST_TILE_ROWS 16          /* in any kernel */
#define COPY_WORK 32               /* an element, packed, in multiplications */
#define LARGEST ((int64_t)1 << 24) /* sizes; below it products of two are in range */

/* What one phase sees: taps, and where their columns are in a block of the shared ones.
 */
typedef struct phase {
  nyx__conv v; /* with stride 1, to the places of the phase */
  product_run r;
  int64_t row, column;    /* 0 or 1 */
  int64_t tap[MOST_TAPS]; /* of the kernel, as its columns have them */
  int64_t before;         /* taps of the phases before */
} phase;

typedef struct phases_run {
  phase phase[PHASES];
  const nyx__conv *v;
  product_run *r;                 /* that of the first phase, for what all share */
  int64_t taps, depth;            /* of a kernel; channels of a block */
  int64_t line;                   /* columns of a phase in scratch */
  int64_t panels_step, thin_step; /* of a block: columns, and the last one's terms */
  char *shared, *x;
} phases_run;

/* One direction of a phase: every second tap from `first` on, the last of which sees the
 * output that is `behind` places before the phase's. */
static nyx__window every_second(const nyx__window *w, int64_t odd, int64_t *first) {
  *first = (odd + w->pad) % 2;
  int64_t kernel = (w->kernel - *first + 1) / 2;
  int64_t behind = *first + 2 * (kernel - 1) - w->pad - odd;
  return (nyx__window){.in = w->out,
                       .kernel = kernel,
                       .stride = 1,
                       .dilation = 1,
                       .pad = behind / 2,
                       .out = w->in / 2};
}

static bool plan_phase(phases_run *p, int i) {
  phase *f = &p->phase[i];
  const nyx__conv *v = p->v;
  int64_t first[2];
  *f = (phase){.v = *v, .row = i / 2, .column = i % 2};
  f->v.keep = NULL;
  f->v.in_channels = v->out_channels;
  f->v.out_channels = v->in_channels;
  f->v.window[0] = every_second(&v->window[0], f->row, &first[0]);
  f->v.window[1] = every_second(&v->window[1], f->column, &first[1]);
  if (f->v.window[0].kernel < 1 || f->v.window[1].kernel < 1) return false;
  product_run *r = &f->r;
  if (!nyx__columns_describe(r, &f->v)) return false;
  for (int64_t t = 0; t < r->taps; t++) {
    int64_t k = t / f->v.window[1].kernel, l = t % f->v.window[1].kernel;
    f->tap[t] = (first[0] + 2 * k) * v->window[1].kernel + first[1] + 2 * l;
  }
  f->before = i ? f[-1].before + f[-1].r.taps : 0;
  r->turned = r->once = r->in_place = r->wide = true;
  r->straight = false; /* padding may be zeros behind the image, which it does not say */
  r->panel = r->last->wide_cols;
  r->columns = r->positions;
  r->per_image = r->blocks = 1;
  r->thin = r->positions > r->patches->lanes && r->positions % r->patches->lanes == 1;
  return r->positions * r->item <= UNIT_BYTES && (r->positions - r->thin) % r->panel == 0;
}

static bool plan(phases_run *p, const nyx__conv *v) {
  *p = (phases_run){.v = v, .r = &p->phase[0].r};
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &v->window[i];
    if (w->stride != 2 || w->dilation != 1 || w->kernel != 3 || w->in % 2 ||
        w->in > LARGEST || w->pad >= w->kernel || w->out > LARGEST)
      return false;
  }
  if (v->images != 1) return false;
  p->taps = v->window[0].kernel * v->window[1].kernel;
  for (int i = 0; i < PHASES; i++)
    if (!plan_phase(p, i)) return false;
  product_run *r = p->r;
  int64_t most = BLOCK_TERMS / p->taps > 1 ? BLOCK_TERMS / p->taps : 1;
  p->depth = parts(r->in_group, parts(r->in_group, most));
  int64_t units = r->out_group / UNIT_ROWS;
  nyx__columns_divide(r, units > UNITS ? units : UNITS, SHARED_ROWS);
  int64_t lanes = r->patches->lanes;
  p->line = parts(r->positions, lanes) * lanes;
  p->panels_step = p->depth * p->taps * (r->positions - r->thin) + 4 * lanes;
  p->panels_step = parts(p->panels_step, lanes) * lanes;
  p->thin_step = r->thin ? p->depth * (p->taps + lanes) + lanes : 0;
  p->thin_step = parts(p->thin_step, lanes) * lanes;
  for (int i = 0; i < PHASES; i++) {
    product_run *each = &p->phase[i].r;
    if (!nyx__columns_pad(each, p->depth)) return false;
    each->offset_bytes = (size_t)(p->depth * each->taps) * sizeof(int64_t);
    each->patch_bytes = (size_t)each->columns * sizeof(nyx_patch);
  }
  return true;
}

bool nyx__conv_phases_takes(const nyx__conv *v) {
  phases_run p;
  int64_t taps = v->window[0].kernel * v->window[1].kernel;
  int64_t kernels = v->out_channels * (v->in_channels / v->groups);
  return nyx__columns_usable() && plan(&p, v) &&
         kernels * taps * p.r->item > nyx__gemm_in_place_bytes();
}

/* The shared columns of a block of channels; behind those of all phases the last ones. */

static char *block_at(const phases_run *p, int64_t group, int64_t block) {
  int64_t blocks = parts(p->r->in_group, p->depth);
  return p->shared +
         (group * blocks + block) * (p->panels_step + p->thin_step) * p->r->item;
}

static char *panels_at(const phases_run *p, const phase *f, char *block) {
  const product_run *r = p->r;
  return block + f->before * p->depth * (r->positions - r->thin) * r->item;
}

static char *thin_at(const phases_run *p, char *block) {
  return block + p->panels_step * p->r->item;
}

static int64_t channels_of(const phases_run *p, int64_t block) {
  return least(p->depth, p->r->in_group - block * p->depth);
}

/* Where in a plane of outputs' gradients tap t of a phase's last place reads; -1: beside
 * it. */
static int64_t last_read(const phase *f, int64_t t) {
  const nyx__window *wy = &f->v.window[0], *wx = &f->v.window[1];
  int64_t y = wy->out - 1 - wy->pad + wy->kernel - 1 - t / wx->kernel;
  int64_t x = wx->out - 1 - wx->pad + wx->kernel - 1 - t % wx->kernel;
  bool inside = y >= 0 && y < wy->in && x >= 0 && x < wx->in;
  return inside ? y * wx->in + x : -1;
}

/* What the taps of a channel see of the last places, over and over: see gemm.h. */
#define PACK_LAST(name, T)                                                               \
  static void name(const phases_run *p, const char *plane, int64_t channels, char *to) { \
    const T *from = (const T *)(const void *)plane;                                      \
    int64_t at[NYX_LAST_STEP], step = p->taps + p->r->patches->lanes;                    \
    for (const phase *f = p->phase; f < p->phase + PHASES; f++)                          \
      for (int64_t t = 0; t < f->r.taps; t++) at[f->tap[t]] = last_read(f, t);           \
    for (int64_t c = 0; c < channels; c++, from += p->r->plane) {                        \
      T *terms = (T *)(void *)to + c * step;                                             \
      for (int64_t t = 0; t < p->taps; t++) terms[t] = at[t] < 0 ? 0 : from[at[t]];      \
      for (int64_t t = p->taps; t < step; t++) terms[t] = terms[t - p->taps];            \
    }                                                                                    \
  }
PACK_LAST(pack_last_f32, float)
PACK_LAST(pack_last_f64, double)

static void share_last(const phases_run *p, int64_t group, int64_t block) {
  const product_run *r = p->r;
  int64_t plane = group * r->in_group + block * p->depth;
  const char *from = r->x + plane * r->plane * r->item;
  char *to = thin_at(p, block_at(p, group, block));
  (r->item == sizeof(float) ? pack_last_f32 : pack_last_f64)(p, from,
                                                             channels_of(p, block), to);
}

/* Items are (group, block of channels). */
static void share_range(void *arg, int64_t begin, int64_t end) {
  phases_run *p = arg;
  int64_t blocks = parts(p->r->in_group, p->depth);
  for (phase *f = p->phase; f < p->phase + PHASES; f++) {
    unit u;
    if (!nyx__columns_scratch(&f->r, &u)) {
      atomic_store(&p->r->status, NYX_ERR_MEMORY);
      return;
    }
    u.q1 = f->r.columns;
    for (int64_t i = begin; i < end && going(p->r); i++) {
      u.group = i / blocks;
      int64_t block = i % blocks;
      nyx__columns_pack(&f->r, &u, block * p->depth * f->r.taps,
                        channels_of(p, block) * f->r.taps,
                        panels_at(p, f, block_at(p, u.group, block)));
    }
    nyx_memory_free(u.padded);
  }
  for (int64_t i = begin; i < end && p->r->thin; i++)
    share_last(p, i / blocks, i % blocks);
}

/* Rows o0..o1-1 of a group: input channels. */
typedef struct part {
  int64_t group, o0, o1;
  int64_t *run;         /* for each phase, where the terms of a block lie in a row */
  char *results, *sums; /* of (phase, row, place); of the last places, (row, tap) */
} part;

static char *result_at(const phases_run *p, const part *u, int64_t f, int64_t row) {
  return u->results + (f * p->r->rows + row) * p->line * p->r->item;
}

static const char *weight_at(const phases_run *p, const part *u, int64_t row,
                             int64_t block) {
  const product_run *r = p->r;
  int64_t channel = u->group * r->in_group + block * p->depth;
  return r->weight + (channel * r->out_group + row) * p->taps * r->item;
}

/* A few rows of a block of channels, whose kernels stay in the first cache. The phase
 * with most terms goes first: it waits for them. */
static void multiply_rows(const phases_run *p, const part *u, int64_t row, int64_t block,
                          char *panels) {
  const product_run *r = p->r;
  const void *a[MOST_TILE_ROWS];
  void *to[MOST_TILE_ROWS];
  nyx_last_product q = {.m = least(r->width, u->o1 - row),
                        .n = r->positions - r->thin,
                        .a = a,
                        .length = 1,
                        .step = p->taps,
                        .c = to,
                        .add = block > 0,
                        .ahead = block + 1 < parts(r->in_group, p->depth)
                                     ? p->depth * r->out_group * p->taps
                                     : 0};
  for (int64_t i = 0; i < q.m; i++) a[i] = weight_at(p, u, row + i, block);
  for (int64_t f = PHASES - 1; f >= 0; f--) {
    const phase *at = &p->phase[f];
    q.run = u->run + at->before * p->depth;
    q.runs = channels_of(p, block) * at->r.taps;
    q.b = panels_at(p, at, panels);
    for (int64_t i = 0; i < q.m; i++) to[i] = result_at(p, u, f, row - u->o0 + i);
    r->last->wide(&q);
  }
}

static void multiply(phases_run *p, const part *u) {
  const product_run *r = p->r;
  int64_t blocks = parts(r->in_group, p->depth);
  for (int64_t b = 0; b < blocks && going(p->r); b++) {
    char *panels = block_at(p, u->group, b);
    for (int64_t row = u->o0; row < u->o1; row += r->width)
      multiply_rows(p, u, row, b, panels);
    if (r->thin)
      r->gemm->thin_taps(weight_at(p, u, u->o0, b), r->out_group * p->taps,
                         channels_of(p, b), u->o1 - u->o0, p->taps, thin_at(p, panels),
                         u->sums, b > 0, NULL, 0);
  }
}

/* The phases of a row beside and below each other, where they belong. */
#define SPREAD(name, T)                                                                  \
  static void name(const phases_run *p, const part *u, int64_t row) {                    \
    const product_run *r = p->r;                                                         \
    const int64_t height = p->v->window[0].in, width = p->v->window[1].in / 2;           \
    const int64_t channel = u->group * r->out_group + u->o0 + row;                       \
    const T *sums = (const T *)(const void *)u->sums + row * p->taps;                    \
    T *from[PHASES], *x = (T *)(void *)p->x + channel * height * 2 * width;              \
    for (int64_t f = 0; f < PHASES; f++) {                                               \
      from[f] = (T *)(void *)result_at(p, u, f, row);                                    \
      T sum = 0;                                                                         \
      for (int64_t t = 0; r->thin && t < p->phase[f].r.taps; t++)                        \
        sum += sums[p->phase[f].tap[t]];                                                 \
      if (r->thin) from[f][r->positions - 1] = sum;                                      \
    }                                                                                    \
    for (int64_t i = 0; i < height; i++, x += 2 * width) {                               \
      const T *even = from[i % 2 * 2] + i / 2 * width;                                   \
      const T *odd = from[i % 2 * 2 + 1] + i / 2 * width;                                \
      for (int64_t j = 0; j < width; j++) {                                              \
        x[2 * j] = even[j];                                                              \
        x[2 * j + 1] = odd[j];                                                           \
      }                                                                                  \
    }                                                                                    \
  }
SPREAD(spread_f32, float)
SPREAD(spread_f64, double)

/* The scratch of a range of units; false: no memory. Its block is u->results. */
static bool take_scratch(phases_run *p, part *u) {
  const product_run *r = p->r;
  size_t results = (size_t)(PHASES * r->rows * p->line * r->item);
  size_t sums = r->thin ? (size_t)(parts(r->rows * p->taps * r->item, 64) * 64) : 0;
  size_t runs = (size_t)(p->depth * p->taps) * sizeof *u->run;
  char *block = nyx_memory_alloc(results + sums + runs);
  if (!block) {
    atomic_store(&p->r->status, NYX_ERR_MEMORY);
    return false;
  }
  *u = (part){.results = block,
              .sums = block + results,
              .run = (int64_t *)(void *)(block + results + sums)};
  int64_t *at = u->run;
  for (const phase *f = p->phase; f < p->phase + PHASES; f++)
    for (int64_t c = 0; c < p->depth; c++)
      for (int64_t t = 0; t < f->r.taps; t++)
        *at++ = c * r->out_group * p->taps + f->tap[t];
  return true;
}

/* Units are (group, division of the rows). */
static void part_range(void *arg, int64_t begin, int64_t end) {
  phases_run *p = arg;
  const product_run *r = p->r;
  part u;
  if (!take_scratch(p, &u)) return;
  for (int64_t i = begin; i < end && going(p->r); i++) {
    u.group = i / r->row_units;
    u.o0 = i % r->row_units * r->rows;
    u.o1 = least(u.o0 + r->rows, r->out_group);
    multiply(p, &u);
    for (int64_t row = 0; row < u.o1 - u.o0; row++)
      (r->item == sizeof(float) ? spread_f32 : spread_f64)(p, &u, row);
  }
  nyx_memory_free(u.results);
}

nyx_status nyx__conv_phases(nyx_context *ctx, const nyx__conv *v, const void *y,
                            const void *weight, void *x) {
  phases_run p;
  plan(&p, v);
  p.x = x;
  for (int i = 0; i < PHASES; i++) {
    p.phase[i].r.ctx = ctx;
    p.phase[i].r.x = y;
    atomic_init(&p.phase[i].r.status, NYX_OK);
  }
  product_run *r = p.r;
  r->weight = weight;
  int64_t blocks = v->groups * parts(r->in_group, p.depth);
  size_t bytes = (size_t)(blocks * (p.panels_step + p.thin_step) * r->item);
  if (!(p.shared = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  nyx_parallel_for(blocks,
                   grain_of((double)(r->positions * p.depth * p.taps * COPY_WORK)),
                   share_range, &p);
  double work = (double)(r->positions * r->rows) * (double)(r->in_group * p.taps);
  if (going(r))
    nyx_parallel_for(v->groups * r->row_units, grain_of(work), part_range, &p);
  nyx_memory_free(p.shared);
  return nyx__columns_finish(r);
}
