/* Convolutions as products of spectra. The planes of a batch of tiles are transformed,
 * several at a time, and so are the kernels; then for each vector of numbers of the
 * spectra the matrices of channels, tiles and kernels are multiplied, and what comes of
 * it is transformed back. A correlation takes the conjugate spectra of what is shorter:
 * kernels; for their gradient the outputs'. The input's gradient is a convolution by
 * kernels turned round. Units of work depend on sizes alone, so results do not depend on
 * the number of threads. Read next: fourier.h, fourier_sizes.c, kernels/cpu/complex.h. */
#include "fourier.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/complex.h"
#include "../fft/plan.h"
#include "conv_turn.h"

#define TOGETHER 16384   /* numbers of planes that are transformed together, at most */
#define UNITS 4          /* wanted, for threads to share */
#define RANGE_WORK 60000 /* products of vectors worth waking a thread for */

typedef struct moves {
  void (*put_rows)(const void *from, int64_t rows, int64_t step, int64_t first,
                   int64_t width, int64_t size, void *to);
  void (*put_taps)(const void *from, int64_t rows, int64_t columns, bool backwards,
                   int64_t apart, int64_t size, void *to);
} moves;

#define TYPED_SOURCE "core/op/fourier_type.h"
#include "kernels/cpu/both_floats.h"

/* The spectra of inputs, of outputs and of kernels, for groups that are done together:
 * groups, blocks of numbers, planes. */
enum { INPUTS, OUTPUTS, KERNELS, SETS };

typedef struct spectra {
  char *at;
  int64_t step; /* numbers from a block to the next */
} spectra;

typedef struct fourier_run {
  nyx_context *ctx;
  const nyx__conv_call *call;
  nyx__conv v; /* whose outputs tiles are */
  nyx__fourier_sizes s;
  const nyx_fft_kernels *fft;
  const nyx_complex_kernels *complex;
  const moves *do_;
  int type, lanes;
  int64_t item, in, out, all; /* channels of a group; tiles of all images */
  int64_t planes, most;       /* transformed together; at most */
  nyx__fft_plan *across, *down, *whole;
  const void *turn; /* of rows */
  const char *x, *y, *weight;
  char *to; /* outputs, or the kernels' gradient */
  spectra set[SETS];
  int64_t group, groups, tile, tiles; /* that are done now, from the first on */
  atomic_uchar *infinite;             /* for each image: something was not finite */
  atomic_bool any_infinite;
  atomic_int status;
} fourier_run;

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static bool going(fourier_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

/* Transforms */

/* What a thread works in: tiles, their spectra, and lines on their way. */
typedef struct room {
  char *block, *tiles, *numbers;
  nyx_fft_lines there, back, columns;
  int most;         /* rows at a time */
  int64_t spare[2]; /* where nobody reads: behind the tiles, behind the spectra */
} room;

static size_t lines_bytes(const fourier_run *r) {
  int64_t n = r->across->passes.n, high = r->down ? r->down->passes.n : 0;
  return (size_t)((n > high ? n : high) + 1) * 2 * (size_t)(r->lanes * r->item);
}

/* False: no memory. */
static bool open_room(fourier_run *r, room *m) {
  int64_t high = r->s.side[0].size, wide = r->s.side[1].size;
  int64_t tiles = r->planes * high * wide, numbers = r->planes * high * r->s.across * 2;
  size_t lines = lines_bytes(r),
         rows = (size_t)((tiles + (r->lanes + 1) * wide) * r->item);
  rows = (rows + 63) / 64 * 64;
  size_t complex = (size_t)((numbers + 2 * (r->s.across + high + r->lanes)) * r->item);
  char *block = nyx_memory_alloc(2 * lines + rows + complex + 64);
  if (!block) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return false;
  }
  char *first = block + (64 - (uintptr_t)block % 64) % 64;
  *m = (room){.block = block,
              .tiles = first + 2 * lines,
              .numbers = first + 2 * lines + rows,
              .most = r->lanes / r->across->passes.columns,
              .spare = {tiles + r->lanes * wide, numbers}};
  m->there = (nyx_fft_lines){.passes = &r->across->passes,
                             .kind = NYX_FFT_FROM_REAL,
                             .n = wide,
                             .scale = 1,
                             .turn = r->turn,
                             .from = m->tiles,
                             .to = m->numbers,
                             .from_step = 1,
                             .to_step = 2 * high,
                             .room = {first, first + lines}};
  m->back = m->there;
  m->back.kind = NYX_FFT_TO_REAL;
  m->back.inverse = true;
  m->back.scale = 1 / (double)(high * wide);
  m->back.from = m->numbers;
  m->back.to = m->tiles;
  m->back.from_step = 2 * high;
  m->back.to_step = 1;
  m->columns = m->there;
  m->columns.passes = r->down ? &r->down->passes : NULL;
  m->columns.kind = NYX_FFT_COMPLEX;
  m->columns.n = high;
  m->columns.from = m->numbers;
  m->columns.to = m->numbers;
  m->columns.from_step = m->columns.to_step = 2;
  return true;
}

/* Lines wait until they fill a vector; `fill`: with lines that nobody reads. */
static void send_lines(const fourier_run *r, nyx_fft_lines *j, int most, bool fill,
                       int64_t spare) {
  if (j->count == 0) return;
  for (int l = j->count; l < most; l++) {
    j->from_at[l] = j->from_at[0];
    j->to_at[l] = fill ? spare : j->to_at[0];
  }
  if (fill) j->count = most;
  r->fft->lines[r->type](j);
  j->count = 0;
}

static void add_line(const fourier_run *r, nyx_fft_lines *j, int most, int64_t from,
                     int64_t to) {
  j->from_at[j->count] = from;
  j->to_at[j->count] = to;
  if (++j->count == most) send_lines(r, j, most, false, 0);
}

/* Of all planes, so that they fill vectors. */
static void transform_columns(const fourier_run *r, room *m, int64_t planes,
                              bool inverse) {
  if (!r->down) return;
  m->columns.inverse = inverse;
  for (int64_t k = 0; k < planes * r->s.across; k++) {
    int64_t at = k * r->s.side[0].size * 2;
    add_line(r, &m->columns, r->lanes, at, at);
  }
  send_lines(r, &m->columns, r->lanes, true, m->spare[1]);
}

/* Rows first, first + apart, ... of a plane's tile, which are all that is not zero; they
 * lie one after the other. Their spectra lie side by side, column after column. */
static void transform_rows(const fourier_run *r, room *m, int64_t plane, int64_t first,
                           int64_t rows, int64_t apart) {
  int64_t high = r->s.side[0].size, wide = r->s.side[1].size;
  int64_t tile = plane * high * wide, numbers = plane * high * r->s.across * 2;
  if (rows < high)
    memset(m->numbers + numbers * r->item, 0, (size_t)(high * r->s.across * 2 * r->item));
  for (int64_t i = 0; i < rows; i++)
    add_line(r, &m->there, m->most, tile + i * wide, numbers + 2 * (first + i * apart));
  if (high > 1) send_lines(r, &m->there, m->most, false, 0);
}

/* The opposite: so many rows are wanted. Of neighbours whole vectors are transformed, as
 * these are written faster. */
static void rows_back(const fourier_run *r, room *m, int64_t plane, int64_t rows,
                      int64_t apart) {
  int64_t high = r->s.side[0].size, wide = r->s.side[1].size;
  if (high > 1 && apart == 1) rows = parts(rows, m->most) * m->most;
  for (int64_t i = 0; i < rows; i++)
    add_line(r, &m->back, m->most, plane * high * r->s.across * 2 + 2 * i * apart,
             (plane * high + i) * wide);
  if (high > 1) send_lines(r, &m->back, m->most, true, m->spare[0]);
}

/* Planes of tiles */

typedef struct place {
  int64_t group, at;                 /* of the set's groups; in the group */
  int64_t image, channel, top, left; /* of a tile */
} place;

/* Planes of a group, of the tiles that are done now. */
static int64_t planes_of(const fourier_run *r, int set) {
  if (set == KERNELS) return r->in * r->out;
  return r->tiles * (set == INPUTS ? r->in : r->out);
}

/* What plane i of a set is. */
static place place_of(const fourier_run *r, int set, int64_t i) {
  const int64_t each = planes_of(r, set);
  place p = {.group = i / each, .at = i % each};
  if (set == KERNELS) return p;
  int64_t channels = set == INPUTS ? r->in : r->out, tile = r->tile + p.at / channels;
  p.image = tile / r->s.tiles;
  p.channel = (r->group + p.group) * channels + p.at % channels;
  tile %= r->s.tiles;
  p.top = tile / r->s.side[1].tiles * r->s.side[0].give;
  p.left = tile % r->s.side[1].tiles * r->s.side[1].give;
  return p;
}

static char *spectrum_of(const fourier_run *r, int set, const place *p) {
  const spectra *a = &r->set[set];
  int64_t number = p->group * r->s.blocks * a->step + p->at;
  return a->at + number * 2 * r->lanes * r->item;
}

/* What a tile has of lines of `n`, that begin `pad` before them: its first and how many,
 * at which place. */
static int64_t clip(int64_t n, int64_t at, int64_t length, int64_t *first, int64_t *to) {
  *first = at > 0 ? least(at, n) : 0;
  *to = *first - at;
  int64_t end = least(n, at + length);
  if (*to < 0 || *to >= length) *to = 0, end = *first;
  return end > *first ? end - *first : 0;
}

/* A tile of inputs, or of outputs. */
static void put_tile(const fourier_run *r, room *m, int set, const place *p,
                     int64_t plane) {
  const nyx__fourier_side *side = r->s.side;
  int64_t n[2], at[] = {p->top, p->left}, first[2], to[2], live[2];
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &r->v.window[i];
    int64_t length = side[i].give;
    n[i] = set == INPUTS ? w->in : w->out;
    if (set == INPUTS) {
      at[i] -= w->pad;
      length = least(length + side[i].extent - 1, side[i].size);
    }
    live[i] = clip(n[i], at[i], length, &first[i], &to[i]);
  }
  int64_t channels = set == INPUTS ? r->v.in_channels : r->v.out_channels;
  const char *from = set == INPUTS ? r->x : r->y;
  from += (((p->image * channels + p->channel) * n[0] + first[0]) * n[1] + first[1]) *
          r->item;
  if (live[1] == 0) live[0] = 0;
  r->do_->put_rows(from, live[0], n[1], to[1], live[1], side[1].size,
                   m->tiles + plane * side[0].size * side[1].size * r->item);
  transform_rows(r, m, plane, to[0], live[0], 1);
}

/* A kernel: of the call's weight, whose inputs are v's outputs if it is turned. */
static void put_kernel(const fourier_run *r, room *m, const place *p, int64_t plane) {
  const nyx__window *wy = &r->v.window[0], *wx = &r->v.window[1];
  bool turned = r->call->mode == NYX__CONV_INPUT;
  int64_t at = p->at; /* (output, input) of the convolution whose outputs tiles are */
  if (turned) at = p->at % r->in * r->out + p->at / r->in;
  at += (r->group + p->group) * r->in * r->out;
  r->do_->put_taps(r->weight + at * wy->kernel * wx->kernel * r->item, wy->kernel,
                   wx->kernel, turned, wx->dilation, r->s.side[1].size,
                   m->tiles + plane * r->s.side[0].size * r->s.side[1].size * r->item);
  transform_rows(r, m, plane, 0, wy->kernel, wy->dilation);
}

/* Of all groups that are done now. */
static int64_t count_of(const fourier_run *r, int set) {
  return r->groups * planes_of(r, set);
}

typedef struct passage {
  fourier_run *r;
  int set;
} passage;

/* Units are `planes` planes. */
static void there_range(void *arg, int64_t begin, int64_t end) {
  const passage *s = arg;
  fourier_run *r = s->r;
  room m;
  int64_t all = count_of(r, s->set), numbers = r->s.side[0].size * r->s.across;
  bool conj = s->set != INPUTS;
  if (!open_room(r, &m)) return;
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t first = i * r->planes, planes = least(r->planes, all - first);
    for (int64_t k = 0; k < planes; k++) {
      const place p = place_of(r, s->set, first + k);
      if (s->set == KERNELS)
        put_kernel(r, &m, &p, k);
      else
        put_tile(r, &m, s->set, &p, k);
    }
    send_lines(r, &m.there, m.most, true, m.spare[1]);
    transform_columns(r, &m, planes, false);
    for (int64_t k = 0; k < planes; k++) {
      const place p = place_of(r, s->set, first + k);
      r->complex->spread[r->type](numbers, m.numbers + k * numbers * 2 * r->item, conj,
                                  spectrum_of(r, s->set, &p),
                                  r->set[s->set].step * 2 * r->lanes);
    }
  }
  nyx_memory_free(m.block);
}

/* A tile of outputs to where it belongs. */
static void take_tile(fourier_run *r, const room *m, const place *p, int64_t plane) {
  const nyx__window *wy = &r->v.window[0], *wx = &r->v.window[1];
  const nyx__fourier_side *side = r->s.side;
  int64_t rows = least(side[0].give, wy->out - p->top);
  int64_t columns = least(side[1].give, wx->out - p->left);
  int64_t at = (p->image * r->v.out_channels + p->channel) * wy->out + p->top;
  char *to = r->to + (at * wx->out + p->left) * r->item;
  const char *bias = r->call->mode == NYX__CONV_FORWARD ? r->call->bias : NULL;
  if (bias) bias += p->channel * r->item;
  bool finite =
      r->complex->take[r->type](m->tiles + plane * side[0].size * side[1].size * r->item,
                                rows, columns, 1, side[1].size, bias, wx->out, to);
  if (!finite) {
    atomic_store_explicit(&r->infinite[p->image], 1, memory_order_relaxed);
    atomic_store_explicit(&r->any_infinite, true, memory_order_relaxed);
  }
  nyx__epilogue_there(r->v.after, r->v.dtype, to, rows, columns, wx->out);
}

static void take_kernel(fourier_run *r, const room *m, const place *p, int64_t plane) {
  const nyx__window *wy = &r->v.window[0], *wx = &r->v.window[1];
  int64_t kernel = (r->group + p->group) * r->in * r->out + p->at;
  bool finite = r->complex->take[r->type](
      m->tiles + plane * r->s.side[0].size * r->s.side[1].size * r->item, wy->kernel,
      wx->kernel, wx->dilation, r->s.side[1].size, NULL, wx->kernel,
      r->to + kernel * wy->kernel * wx->kernel * r->item);
  if (!finite) atomic_store_explicit(&r->any_infinite, true, memory_order_relaxed);
}

static void back_range(void *arg, int64_t begin, int64_t end) {
  const passage *s = arg;
  fourier_run *r = s->r;
  room m;
  int64_t all = count_of(r, s->set), numbers = r->s.side[0].size * r->s.across;
  const nyx__window *wy = &r->v.window[0];
  if (!open_room(r, &m)) return;
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t first = i * r->planes, planes = least(r->planes, all - first);
    for (int64_t k = 0; k < planes; k++) {
      const place p = place_of(r, s->set, first + k);
      r->complex->gather[r->type](numbers, spectrum_of(r, s->set, &p),
                                  r->set[s->set].step * 2 * r->lanes,
                                  m.numbers + k * numbers * 2 * r->item);
    }
    transform_columns(r, &m, planes, true);
    for (int64_t k = 0; k < planes; k++) {
      const place p = place_of(r, s->set, first + k);
      if (s->set == KERNELS)
        rows_back(r, &m, k, wy->kernel, wy->dilation);
      else
        rows_back(r, &m, k, least(r->s.side[0].give, wy->out - p.top), 1);
    }
    send_lines(r, &m.back, m.most, true, m.spare[0]);
    for (int64_t k = 0; k < planes; k++) {
      const place p = place_of(r, s->set, first + k);
      if (s->set == KERNELS)
        take_kernel(r, &m, &p, k);
      else
        take_tile(r, &m, &p, k);
    }
  }
  nyx_memory_free(m.block);
}

static void pass_planes(fourier_run *r, int set, nyx_range_fn fn) {
  passage s = {r, set};
  r->planes = least(r->most, parts(count_of(r, set), UNITS));
  if (going(r)) nyx_parallel_for(parts(count_of(r, set), r->planes), 1, fn, &s);
}

/* Products */

/* Units are (group, block of numbers). */
static void multiply_range(void *arg, int64_t begin, int64_t end) {
  fourier_run *r = arg;
  int64_t one = 2 * r->lanes, in = r->in * one, out = r->out * one;
  for (int64_t i = begin; i < end && going(r); i++) {
    int64_t group = i / r->s.blocks, block = i % r->s.blocks;
    char *at[SETS];
    for (int k = 0; k < SETS; k++) {
      int64_t number = (group * r->s.blocks + block) * r->set[k].step;
      at[k] = r->set[k].at + number * one * r->item;
    }
    nyx_spectrum_product p = {.m = r->out,
                              .n = r->tiles,
                              .k = r->in,
                              .a = at[KERNELS],
                              .b = at[INPUTS],
                              .c = at[OUTPUTS],
                              .a_row = in,
                              .a_term = one,
                              .b_term = one,
                              .b_column = in,
                              .c_row = one,
                              .c_column = out};
    if (r->call->mode == NYX__CONV_WEIGHT)
      p = (nyx_spectrum_product){.m = r->out,
                                 .n = r->in,
                                 .k = r->tiles,
                                 .a = at[OUTPUTS],
                                 .b = at[INPUTS],
                                 .c = at[KERNELS],
                                 .a_row = one,
                                 .a_term = out,
                                 .b_term = in,
                                 .b_column = one,
                                 .c_row = in,
                                 .c_column = one,
                                 .add = r->tile > 0};
    r->complex->products[r->type](&p);
  }
}

static void multiply(fourier_run *r) {
  double work = (double)r->in * (double)r->out * (double)r->tiles;
  int64_t grain = work < RANGE_WORK ? (int64_t)(RANGE_WORK / (work + 1)) + 1 : 1;
  if (going(r))
    nyx_parallel_for(r->groups * r->s.blocks, least(grain, 64), multiply_range, r);
}

static void run_tiles(fourier_run *r) {
  bool weight = r->call->mode == NYX__CONV_WEIGHT;
  for (r->tile = 0; r->tile < r->all && going(r); r->tile += r->tiles) {
    r->tiles = least(r->s.batch, r->all - r->tile);
    pass_planes(r, INPUTS, there_range);
    if (weight) pass_planes(r, OUTPUTS, there_range);
    multiply(r);
    if (!weight) pass_planes(r, OUTPUTS, back_range);
  }
}

static nyx_status run_groups(fourier_run *r) {
  bool weight = r->call->mode == NYX__CONV_WEIGHT;
  for (r->group = 0; r->group < r->v.groups && going(r); r->group += r->groups) {
    r->groups = least(r->s.groups, r->v.groups - r->group);
    if (!weight) pass_planes(r, KERNELS, there_range);
    run_tiles(r);
    if (weight) pass_planes(r, KERNELS, back_range);
  }
  switch (atomic_load(&r->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(r->ctx, INTERRUPTED);
    default: return nyx__no_memory(r->ctx, 2 * lines_bytes(r));
  }
}

/* Memory */

static bool take_plans(fourier_run *r) {
  int64_t high = r->s.side[0].size, half = r->s.side[1].size / 2;
  int columns = high == 1 ? nyx__fft_columns(half, r->type) : 1;
  r->across = nyx__fft_plan_get(half, columns, r->type);
  r->whole = nyx__fft_plan_get(2 * half, 0, r->type);
  if (high > 1) r->down = nyx__fft_plan_get(high, 1, r->type);
  if (r->whole) r->turn = nyx__fft_roots(r->whole);
  return r->across && r->turn && (high == 1 || r->down);
}

/* Planes of a power of two would compete for the same lines of a cache: one more. */
static int64_t step_of(int64_t planes) {
  return planes % 8 == 0 ? planes + 1 : planes;
}

static size_t take_spectra(fourier_run *r) {
  const int64_t each[] = {r->s.batch * r->in, r->s.batch * r->out, r->in * r->out};
  size_t offset[SETS], bytes = 0;
  for (int k = 0; k < SETS; k++) {
    r->set[k].step = step_of(each[k]);
    offset[k] = bytes;
    bytes += (size_t)(r->s.groups * r->set[k].step * r->s.bytes);
  }
  char *block = nyx_memory_alloc(bytes);
  for (int k = 0; k < SETS; k++) r->set[k].at = block ? block + offset[k] : NULL;
  return bytes;
}

static fourier_run start(nyx_context *ctx, const nyx__conv_call *c) {
  bool input = c->mode == NYX__CONV_INPUT;
  fourier_run r = {.ctx = ctx,
                   .call = c,
                   .v = input ? nyx__conv_turned(c->v) : *c->v,
                   .fft = nyx__cpu_kernels()->fft,
                   .complex = nyx__cpu_kernels()->complex,
                   .type = c->v->dtype == NYX_FLOAT64,
                   .item = (int64_t)nyx_dtype_size(c->v->dtype)};
  r.do_ = r.type ? &moves_f64 : &moves_f32;
  r.lanes = r.complex->lanes[r.type];
  r.in = r.v.in_channels / r.v.groups;
  r.out = r.v.out_channels / r.v.groups;
  r.x = c->mode == NYX__CONV_WEIGHT ? c->right : c->left;
  r.y = c->mode == NYX__CONV_WEIGHT ? c->left : NULL;
  r.weight = c->mode == NYX__CONV_WEIGHT ? NULL : c->right;
  if (input) r.v.after = NULL;
  nyx__fourier_sizes_of(c->v, c->mode, &r.s);
  r.all = r.v.images * r.s.tiles;
  r.most = TOGETHER / (r.s.side[0].size * r.s.side[1].size);
  r.most = r.s.side[0].size == 1 ? r.lanes : least(r.most > 1 ? r.most : 1, 8);
  atomic_init(&r.any_infinite, false);
  atomic_init(&r.status, NYX_OK);
  return r;
}

/* Images that are not finite, or a whole gradient of kernels, by another way. */
static nyx_status run_again(const fourier_run *r, int64_t n, int64_t images) {
  const nyx__conv *from = r->call->v;
  nyx__conv v = *from;
  nyx__conv_call c = *r->call;
  char *to = r->to;
  c.v = &v;
  if (c.mode != NYX__CONV_WEIGHT) {
    int64_t x = r->v.window[0].in * r->v.window[1].in * r->v.in_channels;
    int64_t y = r->v.window[0].out * r->v.window[1].out * r->v.out_channels;
    v.images = images;
    c.left = r->x + n * x * r->item;
    to += n * y * r->item;
  }
  uint32_t usable = nyx__conv_usable(&v, c.mode) & ~(1u << NYX__CONV_FOURIER);
  return nyx__conv_by(r->ctx, &c, to, nyx__conv_rule(&v, c.mode, usable));
}

static nyx_status run_infinite(const fourier_run *r) {
  if (!r->any_infinite) return NYX_OK;
  if (r->call->mode == NYX__CONV_WEIGHT) return run_again(r, 0, r->v.images);
  for (int64_t n = 0, next; n < r->v.images; n = next) {
    next = n + 1;
    if (!atomic_load_explicit(&r->infinite[n], memory_order_relaxed)) continue;
    while (next < r->v.images && r->infinite[next]) next++;
    NYX_TRY(run_again(r, n, next - n));
  }
  return NYX_OK;
}

static nyx_status run_call(nyx_context *ctx, const nyx__conv_call *c, void *to) {
  fourier_run r = start(ctx, c);
  size_t bytes = (size_t)r.v.images * sizeof *r.infinite;
  nyx_status status = NYX_OK;
  r.to = to;
  if (!(r.infinite = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  for (int64_t n = 0; n < r.v.images; n++) atomic_init(&r.infinite[n], 0);
  bytes = take_spectra(&r);
  if (!r.set[0].at || !take_plans(&r)) status = nyx__no_memory(ctx, bytes);
  if (status == NYX_OK) status = run_groups(&r);
  nyx__fft_plan_release(r.down);
  nyx__fft_plan_release(r.whole);
  nyx__fft_plan_release(r.across);
  nyx_memory_free(r.set[0].at);
  if (status == NYX_OK) status = run_infinite(&r);
  nyx_memory_free(r.infinite);
  return status;
}

nyx_status nyx__fourier(nyx_context *ctx, const nyx__conv *v, const void *x,
                        const void *weight, const void *bias, void *y) {
  const nyx__conv_call c = {NYX__CONV_FORWARD, v, x, weight, bias};
  return run_call(ctx, &c, y);
}

nyx_status nyx__fourier_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                              const void *weight, void *x) {
  const nyx__conv_call c = {NYX__CONV_INPUT, v, y, weight, NULL};
  return run_call(ctx, &c, x);
}

nyx_status nyx__fourier_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                               const void *x, void *weight) {
  const nyx__conv_call c = {NYX__CONV_WEIGHT, v, y, x, NULL};
  return run_call(ctx, &c, weight);
}
