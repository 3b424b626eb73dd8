/* How a convolution is cut into tiles for Fourier transforms, and whether it pays. The
 * costs are cycles of one thread, measured on Emerald Rapids with vectors of 64 bytes:
 * they say which tile is cheapest, and that against the other ways. Read next: fourier.c.
 */
#include <math.h>

#include "../../kernels/cpu/complex.h"
#include "../../kernels/cpu/gemm.h"
#include "../linalg/blas.h"
#include "conv_product.h"
#include "conv_turn.h"
#include "depthwise.h"
#include "fourier.h"

#define LEAST_GAIN 1.25
#define LEAST_TAPS 9                      /* fewer have no chance */
#define LEAST_WORK 2e6                    /* multiplications, likewise */
#define LARGEST ((int64_t)1 << 20)        /* sizes of images */
#define WEIGHT_BYTES ((int64_t)256 << 20) /* spectra of kernels, all of them */
#define BATCH_BYTES ((int64_t)16 << 20)   /* of tiles, of a batch */
#define GROUP_BYTES ((int64_t)2 << 20)    /* of groups that are done together */
#define PLANE ((int64_t)1 << 16)          /* numbers of a tile, at most */

/* Lines that passes do fast. Rows are read and written a vector at a time, columns half
 * of one. */
static const int16_t row_sizes[] = {16,   32,   48,   64,   80,   96,  128, 160,
                                    192,  256,  320,  384,  512,  640, 768, 1024,
                                    1536, 2048, 3072, 4096, 6144, 8192};
static const int16_t column_sizes[] = {8,   16,  24,  32,   40,   48,  64,  72,
                                       80,  96,  128, 160,  192,  256, 320, 384,
                                       512, 640, 768, 1024, 2048, 4096};
#define SIZES(list) (int)(sizeof list / sizeof *list)

static int64_t parts(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Lines of `size` numbers, if they can be: one tile where zeros before the image and
 * behind it may be the same; or several, which see an extent more than they give. */
static bool side_of(const nyx__window *w, int64_t size, nyx__fourier_side *s) {
  int64_t extent = (w->kernel - 1) * w->dilation + 1;
  int64_t behind = w->out + extent - 1 - w->pad - w->in;
  int64_t whole = w->in + (w->pad > behind ? w->pad : behind);
  if (w->pad < 0 || behind < 0) whole = w->out + extent - 1;
  if (whole < w->out) whole = w->out;
  if (whole < extent) whole = extent;
  *s = (nyx__fourier_side){.size = size, .give = w->out, .tiles = 1, .extent = extent};
  if (size >= whole) return true;
  s->give = size - extent + 1;
  if (s->give < 1) return false;
  s->tiles = parts(w->out, s->give);
  s->give = parts(w->out, s->tiles);
  return true;
}

/* A way to cut a side, and the cycles for a vector of its lines. */
typedef struct option {
  nyx__fourier_side side;
  double line;
} option;

#define OPTIONS 24

/* Cycles for a vector of lines of n complex numbers. */
static double line_cost(double n) {
  return n * (4.6 * log2(n + 1) + 13);
}

/* The ways to cut a side, from that with the shortest lines on. */
static int options_of(const nyx__window *w, const int16_t *list, int count, bool real,
                      option to[OPTIONS]) {
  int n = 0;
  for (int i = 0; i < count; i++) {
    option *o = &to[n];
    if (!side_of(w, list[i], &o->side)) continue;
    if (o->side.tiles > 1 && 4 * o->side.extent > 3 * list[i]) continue;
    double half = real ? 0.5 * list[i] : list[i];
    o->line = line_cost(half) + (real ? 15.0 * list[i] : 6.0 * list[i]);
    n++;
    if (o->side.tiles == 1) break;
  }
  return n;
}

/* Of a plane of `live` rows that are not all zeros, there or back. */
static double plane_cost(const nyx__fourier_sizes *s, const option *a, const option *b,
                         int64_t live, double lanes) {
  double rows = a->side.size == 1 ? 1 / lanes : (double)parts(live, (int64_t)lanes);
  double down = a->side.size == 1 ? 0 : (double)s->across / lanes * a->line;
  double moved = 8 * (double)s->blocks + (double)(live * b->side.size) / lanes * 6 + 600;
  return rows * b->line + down + moved;
}

/* Fills the sizes of s, and its cost. */
static void count_cost(const nyx__conv *v, nyx__conv_mode mode, int lanes,
                       const option *a, const option *b, nyx__fourier_sizes *s) {
  double in = (double)(v->in_channels / v->groups), groups = (double)v->groups;
  double out = (double)(v->out_channels / v->groups);
  s->side[0] = a->side;
  s->side[1] = b->side;
  s->across = b->side.size / 2 + 1;
  s->blocks = parts(a->side.size * s->across, lanes);
  s->tiles = a->side.tiles * b->side.tiles;
  double all = (double)(v->images * s->tiles);
  int64_t seen = a->side.give + a->side.extent - 1;
  seen = least(least(a->side.size, seen), v->window[0].in);
  int64_t taps = mode == NYX__CONV_WEIGHT ? a->side.extent : v->window[0].kernel;
  s->cost = groups * (in * out * plane_cost(s, a, b, taps, lanes) +
                      all * in * plane_cost(s, a, b, seen, lanes) +
                      all * out * plane_cost(s, a, b, a->side.give, lanes) +
                      all * in * out * (double)s->blocks * 3.3);
}

/* Tiles and groups that are done together, by the bytes of their spectra. */
static bool divide(const nyx__conv *v, int lanes, nyx__fourier_sizes *s) {
  int64_t in = v->in_channels / v->groups, out = v->out_channels / v->groups;
  int64_t item = (int64_t)nyx_dtype_size(v->dtype), all = v->images * s->tiles;
  s->bytes = s->blocks * 2 * lanes * item;
  double weight = (double)s->bytes * (double)in * (double)out;
  double tile = (double)s->bytes * (double)(in + out);
  if (weight > (double)WEIGHT_BYTES || tile > 4.0 * (double)BATCH_BYTES) return false;
  int64_t most = (int64_t)((double)BATCH_BYTES / tile);
  s->batch = least(all, most < 1 ? 1 : most);
  s->batch = parts(all, parts(all, s->batch));
  double each = tile * (double)s->batch + weight;
  int64_t groups = (int64_t)((double)GROUP_BYTES / each);
  s->groups = least(v->groups, groups < 1 ? 1 : groups);
  return true;
}

static bool has_form(const nyx__conv *v) {
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &v->window[i];
    if (w->stride != 1 || w->in < 1 || w->out < 1 || w->in > LARGEST ||
        w->out > LARGEST || w->pad > LARGEST || w->kernel > LARGEST ||
        w->dilation > LARGEST)
      return false;
    if ((w->kernel - 1) * w->dilation >= w->in + 2 * w->pad) return false;
  }
  return v->images > 0 && v->in_channels > 0 && v->out_channels > 0;
}

/* The convolution whose output tiles are: that of y by kernels turned round, for x. */
static nyx__conv seen_as(const nyx__conv *v, nyx__conv_mode mode) {
  return mode == NYX__CONV_INPUT ? nyx__conv_turned(v) : *v;
}

bool nyx__fourier_sizes_of(const nyx__conv *v, nyx__conv_mode mode,
                           nyx__fourier_sizes *best) {
  int lanes = nyx__cpu_kernels()->complex->lanes[v->dtype == NYX_FLOAT64];
  if (!has_form(v)) return false;
  const nyx__conv t = seen_as(v, mode);
  bool any = false;
  nyx__fourier_sizes s;
  option down[OPTIONS], across[OPTIONS];
  static const int16_t one[] = {1};
  bool line = t.window[0].in == 1 && t.window[0].out == 1 && t.window[0].kernel == 1;
  int n = line ? options_of(&t.window[0], one, 1, false, down)
               : options_of(&t.window[0], column_sizes, SIZES(column_sizes), false, down);
  int m = options_of(&t.window[1], row_sizes, SIZES(row_sizes), true, across);
  for (int i = 0; i < n * m; i++) {
    const option *a = &down[i / m], *b = &across[i % m];
    if (a->side.size * b->side.size > PLANE) continue;
    count_cost(&t, mode, lanes, a, b, &s);
    if ((any && s.cost >= best->cost) || !divide(&t, lanes, &s)) continue;
    *best = s;
    any = true;
  }
  return any;
}

/* Cycles of one thread by the other ways, about, of `work` multiplications: those of
 * depthwise ones, or a product's with the column matrix, which few output channels leave
 * idle, less so where it is not packed. A BLAS is as fast on every path. */
static double direct_cost(const nyx__conv *v, nyx__conv_mode mode, double work,
                          double lanes) {
  static const nyx_depthwise_mode depthwise[] = {
      NYX_DEPTHWISE_FORWARD, NYX_DEPTHWISE_INPUT, NYX_DEPTHWISE_WEIGHT};
  if (nyx__depthwise_takes(v, depthwise[mode]))
    return nyx__depthwise_cycles(v, depthwise[mode]);
  const nyx__conv t = seen_as(v, mode);
  double out = (double)(t.out_channels / t.groups);
  if (!nyx__cpu_kernels()->gemm->fast && nyx__blas())
    lanes = 64 / (double)nyx_dtype_size(v->dtype);
  double more = nyx__conv_product_reads_columns(&t) ? 4 : 10;
  return work / (2 * lanes) * (out + more) / (0.9 * out);
}

bool nyx__fourier_takes(const nyx__conv *v, nyx__conv_mode mode) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  double taps = (double)wy->kernel * (double)wx->kernel;
  double work = taps * (double)wy->out * (double)wx->out * (double)v->images *
                (double)v->out_channels * (double)(v->in_channels / v->groups);
  if (taps < LEAST_TAPS || work < LEAST_WORK || !has_form(v)) return false;
  bool small = wy->kernel == 3 && wx->kernel == 3; /* Winograd's, if not dilated */
  if (small && wy->dilation == 1 && wx->dilation == 1) return false;
  nyx__fourier_sizes s;
  int lanes = nyx__cpu_kernels()->complex->lanes[v->dtype == NYX_FLOAT64];
  return nyx__fourier_sizes_of(v, mode, &s) &&
         s.cost * LEAST_GAIN < direct_cost(v, mode, work, lanes);
}
