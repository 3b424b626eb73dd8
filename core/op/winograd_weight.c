/* The gradient of 3 x 3 kernels with a quarter of the multiplications: Winograd's
 * convolution (winograd.c) turned round. 36 matrices of transformed inputs (tiles x input
 * channels) and as many of the outputs' gradients (output channels x tiles) are
 * multiplied, and the 36 products summed over tiles become nine taps; with stride 2, 25
 * products of 25 and 9 matrices have 16 sums. Tiles are summed
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

#define TAPS NYX_WINOGRAD_TAPS

#define LONGEST 12                        /* blocks of a segment */
#define UNITS 8                           /* wanted, for threads to share */
#define SEGMENT_BYTES ((int64_t)64 << 20) /* partial sums, all of them together */
#define RANGE_WORK (1 << 19)              /* multiplications worth waking a thread for */
/* Of what is transformed, in multiplications of a product: the sums of a kernel, a tile
 * of a channel, both of 36 points. */
#define KERNEL_COST 700
#define TILE_COST 500
#define LEAST 16                   /* channels: fewer leave the products idle */
#define LARGEST ((int64_t)1 << 24) /* sizes; below it products of two are in range */

/* What differs with the form. */
typedef struct division {
  int64_t tiles;         /* of a block: what is summed before it is added to the rest */
  int64_t rows, columns; /* output and input channels of a unit, about */
  int64_t shared_bytes;  /* transforms that several units read */
  bool batches;          /* they are shared by some segments, where not by all */
} division;

/* Stride 2 has fewer sums, of which more fit into the second cache; its transforms do not
 * multiply errors, so sums may be long; and they are so much of its work that writing
 * them to memory costs less than making them twice. */
static const division whole = {32, 72, 64, (int64_t)24 << 20, false};
static const division half = {128, 130, 128, (int64_t)40 << 20, true};

/* Transformed panels of some channels: matrices `step` elements apart. */
typedef struct panels {
  char *at;
  int64_t step;
} panels;

typedef struct weight_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const nyx_gemm_kernel *gemm;
  const nyx_winograd_kernel *kernel;
  const nyx_winograd_form *form;
  int64_t inputs, outputs, weights; /* matrices: of both sides, of sums */
  int64_t item;
  const char *x, *y;
  char *to, *partial,
      *shared; /* shared: transforms of a batch's blocks; NULL: units have own */
  int64_t in, out, all_in;    /* channels of a group; all_in: in whole panels */
  int64_t across, tiles, all; /* tiles of a row, of an image, of all images */
  int64_t width, tile;        /* of the panels of A and B */
  int64_t rows, columns, row_parts, column_parts; /* of a unit; of a group */
  int64_t block, blocks, segments, each; /* tiles of a block; blocks of a segment, most */
  int64_t batch;                /* segments that are done together, to share transforms */
  int64_t first;                /* of a batch, while it is done */
  int64_t in_step, out_step;    /* of the panels of a block */
  int64_t stage_step, sum_step; /* of staged channels; of sums */
  atomic_bool infinite;
  atomic_int status;
} weight_run;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* From one matrix to the next: a line further, see winograd.c. */
static int64_t step_of(const weight_run *w, int64_t count) {
  int64_t line = 64 / w->item;
  return (parts(count, line) + 1) * line;
}

/* False: more blocks than short segments may hold. */
static bool plan(weight_run *w, const nyx__conv *v) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  const nyx_winograd_kernels *kernels = nyx__cpu_kernels()->winograd;
  const nyx_winograd_kernel *kernel =
      &(wy->stride == 2 ? kernels->half : kernels->type)[v->dtype == NYX_FLOAT64];
  const nyx_winograd_form *form = kernel->form;
  const division *by = wy->stride == 2 ? &half : &whole;
  *w = (weight_run){.v = v,
                    .gemm = &nyx__cpu_kernels()->gemm->type[v->dtype == NYX_FLOAT64],
                    .kernel = kernel,
                    .form = form,
                    .inputs = form->inputs * form->inputs,
                    .outputs = form->outputs * form->outputs,
                    .weights = form->weights * form->weights,
                    .item = (int64_t)nyx_dtype_size(v->dtype),
                    .in = v->in_channels / v->groups,
                    .out = v->out_channels / v->groups,
                    .across = parts(wx->out, form->side)};
  w->tiles = parts(wy->out, form->side) * w->across;
  w->all = w->tiles * v->images;
  w->tile = w->gemm->tile_cols;
  int64_t out_panels = parts(w->out, w->gemm->tile_rows);
  w->width = parts(w->out, out_panels);
  w->rows = parts(out_panels, parts(w->out, by->rows)) * w->width;
  w->row_parts = parts(w->out, w->rows);
  int64_t in_panels = parts(w->in, w->tile);
  w->columns = parts(in_panels, parts(w->in, by->columns)) * w->tile;
  w->column_parts = parts(w->in, w->columns);
  w->all_in = in_panels * w->tile;
  int64_t units = v->groups * w->row_parts * w->column_parts;
  /* Blocks of nearly equal size, and as many for each of two threads. */
  w->blocks = parts(w->all, by->tiles);
  if (w->blocks > 1) w->blocks += w->blocks * units % 2;
  w->block = parts(w->all, w->blocks);
  w->blocks = parts(w->all, w->block);
  int64_t bytes = v->out_channels * w->in * TAPS * w->item;
  int64_t most = SEGMENT_BYTES / bytes > 1 ? SEGMENT_BYTES / bytes : 1;
  int64_t short_ones = parts(w->blocks, LONGEST), wanted = parts(UNITS, units);
  if (wanted < short_ones) wanted = short_ones;
  w->segments =
      nyx__conv_segments(w->blocks, least(wanted, least(w->blocks, most)), units);
  w->each = parts(w->blocks, w->segments);
  bool apart = w->row_parts * w->column_parts > 1;
  int64_t block = w->item * w->block * (w->inputs * w->all_in + w->outputs * w->out);
  w->batch = apart ? by->shared_bytes / (block * w->each * v->groups) : 0;
  bool share = w->batch >= (by->batches ? 1 : w->segments);
  w->batch = share ? least(w->batch, w->segments) : w->segments;
  w->in_step = step_of(w, w->block * (share ? w->all_in : w->columns));
  w->out_step = step_of(w, w->block * (share ? w->out : w->rows));
  w->stage_step =
      step_of(w, NYX_WINOGRAD_TILES * (w->tile > w->width ? w->tile : w->width));
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
  double points = in * (double)(w->inputs * (once ? 1 : w->row_parts)) +
                  out * (double)(w->outputs * (once ? 1 : w->column_parts));
  double terms = (double)(w->form->terms * w->form->terms);
  double computed = all * in * out * terms + all * points * TILE_COST / 36 +
                    in * out * KERNEL_COST * (double)(w->segments * w->weights) / 36;
  double positions = (double)(v->images * v->window[0].out * v->window[1].out);
  return computed < positions * in * out * TAPS;
}

bool nyx__winograd_takes_adjoint(const nyx__conv *v) {
  int64_t stride = v->window[0].stride;
  for (int i = 0; i < 2; i++) {
    const nyx__window *s = &v->window[i];
    if (s->kernel != 3 || s->stride != stride || stride > 2 || s->dilation != 1)
      return false;
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
  int64_t own = w->shared ? 0 : w->item;
  int64_t staged = w->inputs > w->outputs ? w->inputs : w->outputs;
  size_t part[] = {NYX_WINOGRAD_TILES * sizeof *s->strip,
                   w->kernel->stage_bytes,
                   (size_t)(staged * w->stage_step * w->item),
                   (size_t)(w->weights * w->sum_step * w->item),
                   (size_t)(own * w->inputs * w->in_step),
                   (size_t)(own * w->outputs * w->out_step)};
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

/* The first block of a segment: these are equal but for a block. */
static int64_t begin_of(const weight_run *w, int64_t segment) {
  return segment * w->blocks / w->segments;
}

/* Tiles of a block. */
static int64_t tiles_of(const weight_run *w, int64_t block) {
  return least(w->block, w->all - block * w->block);
}

/* The strips of tiles t0..t1-1, of the inputs that they see or of their outputs. */
static nyx_winograd_block find_strips(const weight_run *w, int64_t t0, int64_t t1,
                                      bool outputs, nyx_winograd_strip *strip) {
  const nyx__conv *v = w->v;
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  int64_t side = w->form->side, step = outputs ? side : w->form->step;
  int64_t height = outputs ? wy->out : wy->in, width = outputs ? wx->out : wx->in;
  int64_t image = (outputs ? v->out_channels : v->in_channels) * height * width;
  nyx_winograd_block b = {
      .tiles = t1 - t0, .strip = strip, .height = height, .width = width};
  for (int64_t t = t0, next; t < t1; t = next) {
    int64_t row = t % w->tiles / w->across, column = t % w->across;
    next = least(t - column + w->across, t1);
    strip[b.strips++] =
        (nyx_winograd_strip){.first = t - t0,
                             .count = next - t,
                             .x = t / w->tiles * image,
                             .top = row * step - (outputs ? 0 : wy->pad),
                             .left = column * step - (outputs ? 0 : wx->pad)};
  }
  return b;
}

/* Input channels c0..c1-1 of a block, as panels of B at `to`. */
static void pack_inputs(const weight_run *w, const scratch *s, int64_t group,
                        int64_t block, int64_t c0, int64_t c1, const panels *to) {
  int64_t first = block * w->block, tiles = tiles_of(w, block);
  for (int64_t t = 0; t < tiles; t += NYX_WINOGRAD_TILES) {
    int64_t next = least(t + NYX_WINOGRAD_TILES, tiles);
    nyx_winograd_block b = find_strips(w, first + t, first + next, false, s->strip);
    const char *x = w->x + group * w->in * b.height * b.width * w->item;
    for (int64_t c = c0; c < c1; c += w->tile) {
      int64_t live = least(w->tile, c1 - c);
      w->kernel->input(&b, x + c * b.height * b.width * w->item, live, s->stage,
                       s->staged, w->stage_step, NYX_WINOGRAD_TILES, 0);
      char *at = to->at + ((c - c0) * tiles + t * w->tile) * w->item;
      for (int64_t f = 0; f < w->inputs; f++)
        w->gemm->pack_b(s->staged + f * w->stage_step * w->item, 1, NYX_WINOGRAD_TILES,
                        b.tiles, live, at + f * to->step * w->item);
    }
  }
}

/* Output channels o0..o1-1 of a block, as panels of A. */
static void pack_outputs(const weight_run *w, const scratch *s, int64_t group,
                         int64_t block, int64_t o0, int64_t o1, const panels *to) {
  int64_t first = block * w->block, tiles = tiles_of(w, block);
  for (int64_t t = 0; t < tiles; t += NYX_WINOGRAD_TILES) {
    int64_t next = least(t + NYX_WINOGRAD_TILES, tiles);
    nyx_winograd_block b = find_strips(w, first + t, first + next, true, s->strip);
    const char *y = w->y + group * w->out * b.height * b.width * w->item;
    for (int64_t o = o0; o < o1; o += w->width) {
      int64_t live = least(w->width, o1 - o);
      w->kernel->gradient(&b, y + o * b.height * b.width * w->item, live, s->stage,
                          s->staged, w->stage_step, NYX_WINOGRAD_TILES, 0);
      char *at = to->at + ((o - o0) * tiles + t * live) * w->item;
      for (int64_t f = 0; f < w->outputs; f++)
        w->gemm->pack_a(s->staged + f * w->stage_step * w->item, NYX_WINOGRAD_TILES, 1,
                        live, live, b.tiles, at + f * to->step * w->item);
    }
  }
}

/* The shared panels of a block from some channel on. */
static panels shared_in(const weight_run *w, int64_t group, int64_t block, int64_t c) {
  int64_t each = w->inputs * w->in_step + w->outputs * w->out_step;
  int64_t at = group * w->batch * w->each + block - begin_of(w, w->first);
  return (panels){w->shared + (at * each + c * tiles_of(w, block)) * w->item, w->in_step};
}

static panels shared_out(const weight_run *w, int64_t group, int64_t block, int64_t o) {
  panels p = shared_in(w, group, block, 0);
  p.at += (w->inputs * w->in_step + o * tiles_of(w, block)) * w->item;
  p.step = w->out_step;
  return p;
}

/* Segments first.. of a batch. */
static int64_t segments_of(const weight_run *w) {
  return least(w->batch, w->segments - w->first);
}

/* Its blocks. */
static int64_t blocks_of(const weight_run *w) {
  return begin_of(w, w->first + segments_of(w)) - begin_of(w, w->first);
}

/* Units are (group, block, panel of B or of A). */
static void share_range(void *arg, int64_t begin, int64_t end) {
  weight_run *w = arg;
  int64_t ins = w->all_in / w->tile, all = ins + parts(w->out, w->width);
  int64_t blocks = blocks_of(w);
  scratch s;
  if (!take_scratch(w, &s)) return;
  for (int64_t i = begin; i < end && going(w); i++) {
    int64_t panel = i % all, group = i / all / blocks;
    int64_t block = begin_of(w, w->first) + i / all % blocks;
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
  const nyx_winograd_form *form = w->form;
  uint64_t begun = 0; /* sums that have something to be added to */
  for (int64_t i = 0; i < form->terms * form->terms; i++) {
    const nyx_winograd_term *ty = &form->term[i / form->terms];
    const nyx_winograd_term *tx = &form->term[i % form->terms];
    int64_t left = ty->out * form->outputs + tx->out;
    int64_t right = ty->in * form->inputs + tx->in;
    int64_t sum = ty->weight * form->weights + tx->weight;
    nyx_product p = {.m = o[1] - o[0],
                     .n = c[1] - c[0],
                     .k = tiles_of(w, block),
                     .c = s->sums + sum * w->sum_step * w->item,
                     .ldc = w->columns,
                     .add = add || begun >> sum & 1};
    begun |= (uint64_t)1 << sum;
    w->gemm->block(&p, w->width, out.at + left * out.step * w->item,
                   in.at + right * in.step * w->item);
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
    int64_t group = at % w->v->groups, segment = w->first + at / w->v->groups;
    const int64_t c[] = {c0, least(c0 + w->columns, w->in)};
    const int64_t o[] = {o0, least(o0 + w->rows, w->out)};
    int64_t first = begin_of(w, segment), last = begin_of(w, segment + 1);
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
    default: return nyx__no_memory(w->ctx, (size_t)(w->weights * w->sum_step * w->item));
  }
}

/* Ranges of units of so many multiplications each. */
static int64_t grain_of(double work) {
  return work < RANGE_WORK ? (int64_t)(RANGE_WORK / (work + 1)) + 1 : 1;
}

static void run_all(weight_run *w) {
  const nyx__conv *v = w->v;
  int64_t both = w->all_in / w->tile + parts(w->out, w->width); /* panels of a block */
  double terms = (double)(w->form->terms * w->form->terms);
  double work = (double)(w->each * w->block) * terms * (double)(w->rows * w->columns);
  for (w->first = 0; w->first < w->segments && going(w); w->first += w->batch) {
    if (w->shared)
      nyx_parallel_for(v->groups * blocks_of(w) * both,
                       grain_of((double)(w->block * w->tile) * TILE_COST), share_range,
                       w);
    nyx_parallel_for(segments_of(w) * v->groups * w->row_parts * w->column_parts,
                     grain_of(work), sum_range, w);
  }
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
  int64_t each = (w.inputs * w.in_step + w.outputs * w.out_step) * w.item;
  size_t partial = (size_t)(w.segments * v->out_channels * w.in * TAPS * w.item);
  size_t shared = (size_t)(v->groups * w.batch * w.each * each);
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
