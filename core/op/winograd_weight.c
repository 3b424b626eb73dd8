/* The gradient of 3 x 3 kernels with a quarter of the multiplications: Winograd's
 * convolution (winograd.c) turned round. 36 matrices of transformed inputs (tiles x input
 * channels) and as many of the outputs' gradients (output channels x tiles) are
 * multiplied, and the 36 products summed over tiles become nine taps. Tiles are summed
 * in short blocks, and these in segments with a partial sum each, which keeps float32's
 * errors at twice those of plain sums. Units of work depend on sizes alone, so results
 * do not depend on the number of threads. Read next: kernels/cpu/winograd.h,
 * docs/decisions/012-winograd.md. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/winograd.h"
#include "conv_product.h"
#include "winograd.h"

#define SIDE NYX_WINOGRAD_SIDE
#define TAPS NYX_WINOGRAD_TAPS
#define POINTS NYX_WINOGRAD_POINTS

#define TILES 32   /* of a block: what is summed before it is added to the rest */
#define LONGEST 12 /* blocks of a segment */
#define UNITS 8    /* wanted, for threads to share */
#define ROWS 72    /* output channels of a unit, about */
#define COLUMNS 64 /* input channels, the same */
#define SEGMENT_BYTES ((int64_t)64 << 20) /* partial sums, all of them together */
#define SHARED_BYTES ((int64_t)24 << 20)  /* transforms that several units read */
#define RANGE_WORK (1 << 19)              /* multiplications worth waking a thread for */
/* Of what is transformed, in multiplications of a product: the sums of a kernel, a tile
 * of a channel. */
#define KERNEL_COST 700
#define TILE_COST 500
#define LEAST 16                   /* channels: fewer leave the products idle */
#define LARGEST ((int64_t)1 << 24) /* sizes; below it products of two are in range */

/* Transformed panels of some channels: 36 matrices, `step` elements apart. */
typedef struct panels {
  char *at;
  int64_t step;
} panels;

typedef struct weight_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const nyx_gemm_kernel *gemm;
  const nyx_winograd_kernel *kernel;
  int64_t item;
  const char *x, *y;
  char *to, *partial,
      *shared;                /* shared: transforms of all blocks; NULL: units have own */
  int64_t in, out, all_in;    /* channels of a group; all_in: in whole panels */
  int64_t across, tiles, all; /* tiles of a row, of an image, of all images */
  int64_t width, tile;        /* of the panels of A and B */
  int64_t rows, columns, row_parts, column_parts; /* of a unit; of a group */
  int64_t blocks, segments, each;                 /* of tiles; blocks in a segment */
  int64_t in_step, out_step;                      /* of the panels of a block */
  int64_t stage_step, sum_step;                   /* of staged channels; of sums */
  atomic_bool infinite;
  atomic_int status;
} weight_run;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* From one of 36 matrices to the next: a line further, see winograd.c. */
static int64_t step_of(const weight_run *w, int64_t count) {
  int64_t line = 64 / w->item;
  return (parts(count, line) + 1) * line;
}

/* False: more blocks than short segments may hold. */
static bool plan(weight_run *w, const nyx__conv *v) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  *w =
      (weight_run){.v = v,
                   .gemm = &nyx__cpu_kernels()->gemm->type[v->dtype == NYX_FLOAT64],
                   .kernel = &nyx__cpu_kernels()->winograd->type[v->dtype == NYX_FLOAT64],
                   .item = (int64_t)nyx_dtype_size(v->dtype),
                   .in = v->in_channels / v->groups,
                   .out = v->out_channels / v->groups,
                   .across = parts(wx->out, SIDE)};
  w->tiles = parts(wy->out, SIDE) * w->across;
  w->all = w->tiles * v->images;
  w->tile = w->gemm->tile_cols;
  int64_t out_panels = parts(w->out, w->gemm->tile_rows);
  w->width = parts(w->out, out_panels);
  w->rows = parts(out_panels, parts(w->out, ROWS)) * w->width;
  w->row_parts = parts(w->out, w->rows);
  int64_t in_panels = parts(w->in, w->tile);
  w->columns = parts(in_panels, parts(w->in, COLUMNS)) * w->tile;
  w->column_parts = parts(w->in, w->columns);
  w->all_in = in_panels * w->tile;
  w->blocks = parts(w->all, TILES);
  int64_t units = v->groups * w->row_parts * w->column_parts;
  int64_t bytes = v->out_channels * w->in * TAPS * w->item;
  int64_t most = SEGMENT_BYTES / bytes > 1 ? SEGMENT_BYTES / bytes : 1;
  int64_t short_ones = parts(w->blocks, LONGEST), wanted = parts(UNITS, units);
  w->segments = least(wanted > short_ones ? wanted : short_ones, least(w->blocks, most));
  w->each = parts(w->blocks, w->segments);
  w->segments = parts(w->blocks, w->each);
  bool apart = w->row_parts * w->column_parts > 1;
  int64_t block = POINTS * w->item * TILES * (w->all_in + w->out);
  bool share = apart && v->groups * w->blocks <= SHARED_BYTES / block;
  w->in_step = step_of(w, TILES * (share ? w->all_in : w->columns));
  w->out_step = step_of(w, TILES * (share ? w->out : w->rows));
  w->stage_step = step_of(w, TILES * (w->tile > w->width ? w->tile : w->width));
  w->sum_step = step_of(w, w->rows * w->columns);
  w->shared = share ? (char *)w : NULL; /* set when there is memory */
  atomic_init(&w->infinite, false);
  atomic_init(&w->status, NYX_OK);
  return w->each <= LONGEST;
}

/* Whether fewer multiplications pay for the transforms. */
static bool worth(const weight_run *w) {
  const nyx__conv *v = w->v;
  double in = (double)w->in, out = (double)w->out, all = (double)w->all;
  bool once = w->shared != NULL;
  double tiles =
      in * (double)(once ? 1 : w->row_parts) + out * (double)(once ? 1 : w->column_parts);
  double computed = all * in * out * POINTS + all * tiles * TILE_COST +
                    in * out * KERNEL_COST * (double)w->segments;
  double positions = (double)(v->images * v->window[0].out * v->window[1].out);
  return computed < positions * in * out * TAPS;
}

bool nyx__winograd_takes_adjoint(const nyx__conv *v) {
  for (int i = 0; i < 2; i++) {
    const nyx__window *s = &v->window[i];
    if (s->kernel != 3 || s->stride != 1 || s->dilation != 1) return false;
    if (s->in < 1 || s->out < 1 || s->in > LARGEST || s->out > LARGEST) return false;
  }
  if (v->images < 1 || v->in_channels / v->groups < LEAST ||
      v->out_channels / v->groups < LEAST)
    return false;
  weight_run w;
  return plan(&w, v) && worth(&w) && nyx__conv_product_takes_weight(v);
}

static bool going(weight_run *w) {
  if (nyx__interrupted(w->ctx)) atomic_store(&w->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&w->status, memory_order_relaxed) == NYX_OK;
}

/* What a range of units works in. */
typedef struct scratch {
  nyx_winograd_strip *strip;
  char *stage, *staged, *sums;
  panels in, out;
} scratch;

static bool take_scratch(weight_run *w, scratch *s) {
  int64_t own = w->shared ? 0 : POINTS * w->item;
  size_t part[] = {TILES * sizeof *s->strip,
                   w->kernel->stage_bytes,
                   (size_t)(POINTS * w->stage_step * w->item),
                   (size_t)(POINTS * w->sum_step * w->item),
                   (size_t)(own * w->in_step),
                   (size_t)(own * w->out_step)};
  size_t bytes = 0, at[6];
  for (int i = 0; i < 6; i++) {
    at[i] = bytes;
    bytes += (part[i] + 63) / 64 * 64;
  }
  char *block = nyx_memory_alloc(bytes);
  if (!block) {
    atomic_store(&w->status, NYX_ERR_MEMORY);
    return false;
  }
  *s = (scratch){.strip = (nyx_winograd_strip *)(void *)block,
                 .stage = block + at[1],
                 .staged = block + at[2],
                 .sums = block + at[3],
                 .in = {block + at[4], w->in_step},
                 .out = {block + at[5], w->out_step}};
  memset(s->stage, 0, w->kernel->stage_bytes); /* vectors are read beyond what is there */
  return true;
}

/* The strips of a block of tiles, of the inputs that they see or of their outputs. */
static nyx_winograd_block find_strips(const weight_run *w, int64_t block, bool outputs,
                                      nyx_winograd_strip *strip) {
  const nyx__conv *v = w->v;
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  int64_t t0 = block * TILES, t1 = least(t0 + TILES, w->all);
  int64_t height = outputs ? wy->out : wy->in, width = outputs ? wx->out : wx->in;
  int64_t image = (outputs ? v->out_channels : v->in_channels) * height * width;
  nyx_winograd_block b = {
      .tiles = t1 - t0, .strip = strip, .height = height, .width = width};
  for (int64_t t = t0, next; t < t1; t = next) {
    int64_t y = t % w->tiles / w->across * SIDE, column = t % w->across;
    next = least(t - column + w->across, t1);
    strip[b.strips++] =
        (nyx_winograd_strip){.first = t - t0,
                             .count = next - t,
                             .x = t / w->tiles * image,
                             .top = y - (outputs ? 0 : wy->pad),
                             .left = column * SIDE - (outputs ? 0 : wx->pad)};
  }
  return b;
}

/* Input channels c0..c1-1 of a block, as panels of B at `to`. */
static void pack_inputs(const weight_run *w, const scratch *s, int64_t group,
                        int64_t block, int64_t c0, int64_t c1, const panels *to) {
  nyx_winograd_block b = find_strips(w, block, false, s->strip);
  const char *x = w->x + group * w->in * b.height * b.width * w->item;
  for (int64_t c = c0; c < c1; c += w->tile) {
    int64_t live = least(w->tile, c1 - c);
    w->kernel->input(&b, x + c * b.height * b.width * w->item, live, s->stage, s->staged,
                     w->stage_step, TILES, 0);
    for (int64_t f = 0; f < POINTS; f++)
      w->gemm->pack_b(s->staged + f * w->stage_step * w->item, 1, TILES, b.tiles, live,
                      to->at + (f * to->step + (c - c0) * b.tiles) * w->item);
  }
}

/* Output channels o0..o1-1 of a block, as panels of A. */
static void pack_outputs(const weight_run *w, const scratch *s, int64_t group,
                         int64_t block, int64_t o0, int64_t o1, const panels *to) {
  nyx_winograd_block b = find_strips(w, block, true, s->strip);
  const char *y = w->y + group * w->out * b.height * b.width * w->item;
  for (int64_t o = o0; o < o1; o += w->width) {
    int64_t live = least(w->width, o1 - o);
    w->kernel->gradient(&b, y + o * b.height * b.width * w->item, live, s->stage,
                        s->staged, w->stage_step, TILES, 0);
    for (int64_t f = 0; f < POINTS; f++)
      w->gemm->pack_a(s->staged + f * w->stage_step * w->item, TILES, 1, live, live,
                      b.tiles, to->at + (f * to->step + (o - o0) * b.tiles) * w->item);
  }
}

/* The shared panels of a block from some channel on. */
static panels shared_in(const weight_run *w, int64_t group, int64_t block, int64_t c) {
  int64_t each = POINTS * (w->in_step + w->out_step), at = group * w->blocks + block;
  int64_t tiles = least(TILES, w->all - block * TILES);
  return (panels){w->shared + (at * each + c * tiles) * w->item, w->in_step};
}

static panels shared_out(const weight_run *w, int64_t group, int64_t block, int64_t o) {
  panels p = shared_in(w, group, block, 0);
  int64_t tiles = least(TILES, w->all - block * TILES);
  p.at += (POINTS * w->in_step + o * tiles) * w->item;
  p.step = w->out_step;
  return p;
}

/* Units are (group, block, panel of B or of A). */
static void share_range(void *arg, int64_t begin, int64_t end) {
  weight_run *w = arg;
  int64_t ins = w->all_in / w->tile, all = ins + parts(w->out, w->width);
  scratch s;
  if (!take_scratch(w, &s)) return;
  for (int64_t i = begin; i < end && going(w); i++) {
    int64_t panel = i % all, block = i / all % w->blocks, group = i / all / w->blocks;
    if (panel < ins) {
      int64_t c = panel * w->tile;
      panels to = shared_in(w, group, block, c);
      pack_inputs(w, &s, group, block, c, least(c + w->tile, w->in), &to);
    } else {
      int64_t o = (panel - ins) * w->width;
      panels to = shared_out(w, group, block, o);
      pack_outputs(w, &s, group, block, o, least(o + w->width, w->out), &to);
    }
  }
  nyx_memory_free(s.strip);
}

/* Adds a block of tiles to the sums of output channels o0.. and input channels c0... */
static void add_block(const weight_run *w, const scratch *s, int64_t group, int64_t block,
                      const int64_t o[2], const int64_t c[2], bool add) {
  panels in = s->in, out = s->out;
  if (w->shared) {
    in = shared_in(w, group, block, c[0]);
    out = shared_out(w, group, block, o[0]);
  } else {
    pack_inputs(w, s, group, block, c[0], c[1], &in);
    pack_outputs(w, s, group, block, o[0], o[1], &out);
  }
  for (int64_t f = 0; f < POINTS; f++) {
    nyx_product p = {.m = o[1] - o[0],
                     .n = c[1] - c[0],
                     .k = least(TILES, w->all - block * TILES),
                     .c = s->sums + f * w->sum_step * w->item,
                     .ldc = w->columns,
                     .add = add};
    w->gemm->block(&p, w->width, out.at + f * out.step * w->item,
                   in.at + f * in.step * w->item);
  }
}

/* Units are (segment, group, part of the output channels, part of the inputs). */
static void sum_range(void *arg, int64_t begin, int64_t end) {
  weight_run *w = arg;
  int64_t bytes = w->v->out_channels * w->in * TAPS * w->item;
  scratch s;
  if (!take_scratch(w, &s)) return;
  for (int64_t i = begin; i < end && going(w); i++) {
    int64_t c0 = i % w->column_parts * w->columns;
    int64_t o0 = i / w->column_parts % w->row_parts * w->rows;
    int64_t at = i / w->column_parts / w->row_parts;
    int64_t group = at % w->v->groups, segment = at / w->v->groups;
    const int64_t c[] = {c0, least(c0 + w->columns, w->in)};
    const int64_t o[] = {o0, least(o0 + w->rows, w->out)};
    int64_t first = segment * w->each, last = least(first + w->each, w->blocks);
    for (int64_t b = first; b < last && going(w); b++)
      add_block(w, &s, group, b, o, c, b > first);
    char *to = w->partial ? w->partial + segment * bytes : w->to;
    for (int64_t q = o[0]; q < o[1]; q++) {
      bool finite = w->kernel->taps(
          s.sums + (q - o[0]) * w->columns * w->item, w->sum_step, c[1] - c[0],
          to + ((group * w->out + q) * w->in + c[0]) * TAPS * w->item);
      if (!finite) atomic_store_explicit(&w->infinite, true, memory_order_relaxed);
    }
  }
  nyx_memory_free(s.strip);
}

#define SUM_SEGMENTS(name, T)                                                            \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    const weight_run *w = arg;                                                           \
    const T *from = (const T *)(const void *)w->partial;                                 \
    T *to = (T *)(void *)w->to;                                                          \
    int64_t count = w->v->out_channels * w->in * TAPS;                                   \
    memcpy(to + begin, from + begin, (size_t)(end - begin) * sizeof(T));                 \
    for (int64_t s = 1; s < w->segments; s++) {                                          \
      from += count;                                                                     \
      for (int64_t q = begin; q < end; q++) to[q] += from[q];                            \
    }                                                                                    \
  }
SUM_SEGMENTS(sum_segments_f32, float)
SUM_SEGMENTS(sum_segments_f64, double)

static nyx_status finish(const weight_run *w) {
  switch (atomic_load(&w->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(w->ctx, INTERRUPTED);
    default: return nyx__no_memory(w->ctx, (size_t)(POINTS * w->sum_step * w->item));
  }
}

/* Ranges of units of so many multiplications each. */
static int64_t grain_of(double work) {
  return work < RANGE_WORK ? (int64_t)(RANGE_WORK / (work + 1)) + 1 : 1;
}

static void run_all(weight_run *w) {
  const nyx__conv *v = w->v;
  if (w->shared) {
    int64_t all = w->all_in / w->tile + parts(w->out, w->width);
    nyx_parallel_for(v->groups * w->blocks * all,
                     grain_of((double)(TILES * w->tile) * TILE_COST), share_range, w);
  }
  double work = (double)(w->each * TILES * POINTS) * (double)(w->rows * w->columns);
  nyx_parallel_for(w->segments * v->groups * w->row_parts * w->column_parts,
                   grain_of(work), sum_range, w);
  if (w->partial && going(w))
    nyx_parallel_for(v->out_channels * w->in * TAPS, 1 << 15,
                     v->dtype == NYX_FLOAT32 ? sum_segments_f32 : sum_segments_f64, w);
}

nyx_status nyx__winograd_adjoint(nyx_context *ctx, const nyx__conv *v, const void *y,
                                 const void *x, void *weight) {
  weight_run w;
  plan(&w, v);
  w.ctx = ctx;
  w.x = x;
  w.y = y;
  w.to = weight;
  int64_t each = POINTS * (w.in_step + w.out_step) * w.item;
  size_t partial = (size_t)(w.segments * v->out_channels * w.in * TAPS * w.item);
  size_t shared = (size_t)(v->groups * w.blocks * each);
  if (w.segments > 1 && !(w.partial = nyx_memory_alloc(partial)))
    return nyx__no_memory(ctx, partial);
  if (w.shared && !(w.shared = nyx_memory_alloc(shared))) {
    nyx_memory_free(w.partial);
    return nyx__no_memory(ctx, shared);
  }
  run_all(&w);
  nyx_memory_free(w.partial);
  nyx_memory_free(w.shared);
  NYX_TRY(finish(&w));
  /* An infinity has spread to all taps of its channels: again, plainly. */
  return w.infinite ? nyx__conv_product_weight(ctx, v, y, x, weight) : NYX_OK;
}
