/* Fourier transforms of many lines: as many at a time as a vector has lanes; long ones as
 * a matrix, first its columns, then its rows (Bailey, "FFTs in external or hierarchical
 * memory", 1990); lengths with large prime factors by a convolution with a chirp
 * (Bluestein, "A linear filtering approach to the computation of discrete Fourier
 * transform", 1970). Read next: lines.h, plan.c, kernels/cpu/fft_type.h. */
#include "lines.h"

#include <nyx/memory.h>
#include <nyx/parallel.h>
#include <stdlib.h>
#include <string.h>

#include "../base/context.h"

#define LONG 4096        /* numbers: more leave the second cache, in every lane */
#define ALONE (1 << 15)  /* few lines of more are matrices too, so that threads share */
#define PACKED (1 << 15) /* likewise, of lines in one piece, several lanes each */
#define HALVES 4096      /* numbers that a thread takes apart at a time */
#define BLOCK (1 << 20)  /* numbers that odd lines take at a time */
#define SHORT_WORK 1024  /* numbers of short lines that a kernel takes at a time */
#define PLANE 2048       /* numbers of planes that are transformed both ways at a time */
#define PLANE_MOST 65536 /* numbers of one: more leave the second cache */
#define PLANES 8         /* so many times as many are dealt out whole */
#define WORK (1 << 13)   /* numbers that are worth waking a thread for */

#define TYPED_SOURCE "../../core/fft/lines_type.h"
#include "../../kernels/cpu/both_floats.h"

typedef struct transform {
  nyx_context *ctx;
  nyx_fft_kind kind;
  int type;
  int64_t n;
  bool inverse;
  double scale;
  nyx__fft_set from, to;
  nyx__fft_plan *plan;
  const void *turn, *lane_factor, *line_factor;
  atomic_int status;
} transform;

static size_t item_of(const transform *t) {
  return t->type ? sizeof(double) : sizeof(float);
}

static int64_t line_at(const nyx__fft_set *s, int64_t i) {
  return i / s->inner * s->outer_step + i % s->inner * s->inner_step;
}

/* Where lines i, i + 1, ... begin; without divisions where there is one way to go. */
static void lines_at(const nyx__fft_set *s, int64_t i, int count, int64_t *at) {
  bool one = s->inner == 1 || s->inner == s->count;
  int64_t step = s->inner == 1 ? s->outer_step : s->inner_step;
  int64_t within = one ? i : i % s->inner, line = one ? 0 : i / s->inner * s->outer_step;
  if (one || within + count <= s->inner) {
    for (int l = 0; l < count; l++) at[l] = line + (within + l) * step;
    return;
  }
  for (int l = 0; l < count; l++) {
    at[l] = line + within * step;
    if (++within == s->inner) within = 0, line += s->outer_step;
  }
}

static void *at(const transform *t, const nyx__fft_set *s, int64_t i) {
  return (char *)s->data + line_at(s, i) * (int64_t)item_of(t);
}

static bool going(transform *t) {
  if (nyx__interrupted(t->ctx)) atomic_store(&t->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&t->status, memory_order_relaxed) == NYX_OK;
}

static nyx_status finished(transform *t) {
  nyx_status status = (nyx_status)atomic_load(&t->status);
  if (status == NYX_ERR_MEMORY) return nyx__no_memory(t->ctx, (size_t)t->n * item_of(t));
  if (status == NYX_ERR_INTERRUPTED) return nyx__error(t->ctx, INTERRUPTED);
  return status;
}

/* Lines by lanes */

/* How many lines are cut into groups from their first: all, or those of one outer index,
 * so that lanes lie side by side, unless they are fewer than half of the lanes. */
static int64_t row_of(const transform *t, int lanes) {
  int64_t inner = t->from.inner;
  return inner == 1 || inner < lanes / 2 ? t->from.count : inner;
}

static int64_t groups_of(const transform *t, int lanes) {
  int64_t row = row_of(t, lanes);
  return t->from.count / row * ((row + lanes - 1) / lanes);
}

/* The first line of group i, and how many it has. */
static int64_t group_of(const transform *t, int lanes, int64_t i, int *count) {
  int64_t row = row_of(t, lanes), first = 0;
  if (row < t->from.count) { /* no divisions where there is one */
    int64_t groups = (row + lanes - 1) / lanes;
    first = i / groups * row;
    i %= groups;
  }
  *count = row - i * lanes < lanes ? (int)(row - i * lanes) : lanes;
  return first + i * lanes;
}

/* How many lines a kernel takes at a time. */
static int lines_of(const transform *t) {
  int columns = t->plan->passes.columns, lanes = nyx__cpu_kernels()->fft->lanes[t->type];
  if (columns != NYX_FFT_SHORT) return lanes / columns;
  int64_t lines = SHORT_WORK / t->plan->n, least = lanes / 2 / t->plan->passes.n;
  if (lines < least) lines = least;
  return lines < 1 ? 1 : lines > NYX_FFT_LANES ? NYX_FFT_LANES : (int)lines;
}

static void run_lanes(void *arg, int64_t begin, int64_t end) {
  transform *t = arg;
  const nyx_fft_kernels *kernels = nyx__cpu_kernels()->fft;
  int lanes = kernels->lanes[t->type], lines = lines_of(t);
  int64_t n = t->plan->passes.n;
  size_t room = (size_t)(n + 1) * 2 * (size_t)lanes * item_of(t);
  if (t->plan->passes.columns == NYX_FFT_SHORT)
    room = (size_t)(lines * t->plan->n) * 2 * item_of(t);
  char *rooms = nyx_memory_alloc(2 * room + 64);
  if (!rooms) {
    atomic_store(&t->status, NYX_ERR_MEMORY);
    return;
  }
  char *first = rooms + (64 - (uintptr_t)rooms % 64) % 64;
  nyx_fft_lines j = {.passes = &t->plan->passes,
                     .kind = t->kind,
                     .n = t->n,
                     .inverse = t->inverse,
                     .scale = t->scale,
                     .turn = t->turn,
                     .lane_factor = t->lane_factor,
                     .from = t->from.data,
                     .to = t->to.data,
                     .from_step = t->from.step,
                     .to_step = t->to.step,
                     .room = {first, first + room}};
  for (int64_t i = begin; i < end && going(t); i++) {
    int64_t line = group_of(t, lines, i, &j.count);
    lines_at(&t->from, line, j.count, j.from_at);
    lines_at(&t->to, line, j.count, j.to_at);
    for (int l = j.count; l < lines; l++)
      j.from_at[l] = j.from_at[0], j.to_at[l] = j.to_at[0];
    if (t->line_factor)
      j.line_factor = (const char *)t->line_factor + (size_t)(i * n) * 2 * item_of(t);
    kernels->lines[t->type](&j);
  }
  nyx_memory_free(rooms);
}

static nyx_status by_lanes(transform *t) {
  int lines = lines_of(t);
  nyx_parallel_for(groups_of(t, lines), 1 + WORK / (t->plan->n * lines), run_lanes, t);
  return finished(t);
}

/* Long lines as matrices */

/* The factor of n nearest to its root from below; 1: there is none. */
static int64_t root_of(int64_t n) {
  int64_t best = 1;
  for (int64_t d = 2; d * d <= n; d++)
    if (n % d == 0) best = d;
  return best;
}

/* One direction of a matrix, with the factors behind it. */
static nyx_status side(const transform *t, nyx__fft_plan *plan, double scale,
                       const char *factors, const nyx__fft_set *from,
                       const nyx__fft_set *to) {
  int lanes = nyx__cpu_kernels()->fft->lanes[t->type];
  size_t ahead = (size_t)(plan->n * lanes) * 2 * item_of(t);
  transform s = {.ctx = t->ctx,
                 .kind = NYX_FFT_COMPLEX,
                 .type = t->type,
                 .n = plan->n,
                 .inverse = t->inverse,
                 .scale = scale,
                 .from = *from,
                 .to = *to,
                 .plan = plan,
                 .lane_factor = factors,
                 .line_factor = factors ? factors + ahead : NULL};
  return by_lanes(&s);
}

/* Line i of complex numbers, n = rows x cols: column j is transformed, element k of it
 * multiplied by the root of one to the power j k, then every row; its results are cols
 * apart. */
static nyx_status matrix(transform *t, nyx__fft_plan *down, nyx__fft_plan *right,
                         const void *factors, int64_t i, void *room) {
  int64_t rows = down->n, cols = right->n;
  const nyx__fft_set from = {at(t, &t->from, i), cols, cols, 0, t->from.step,
                             cols * t->from.step};
  const nyx__fft_set middle = {room, cols, cols, 0, 2, 2 * cols};
  const nyx__fft_set lines = {room, rows, rows, 0, 2 * cols, 2};
  const nyx__fft_set to = {at(t, &t->to, i), rows, rows, 0, t->to.step,
                           rows * t->to.step};
  NYX_TRY(side(t, down, 1, factors, &from, &middle));
  return side(t, right, t->scale, NULL, &lines, &to);
}

static nyx_status by_matrices(transform *t, int64_t rows) {
  nyx__fft_plan *whole = nyx__fft_plan_get(t->n, 0, t->type);
  nyx__fft_plan *down = nyx__fft_plan_get(rows, 1, t->type);
  nyx__fft_plan *right = nyx__fft_plan_get(t->n / rows, 1, t->type);
  int lanes = nyx__cpu_kernels()->fft->lanes[t->type];
  const void *factors = whole ? nyx__fft_factors(whole, rows, lanes) : NULL;
  void *room = nyx_memory_alloc((size_t)t->n * 2 * item_of(t));
  nyx_status status = NYX_OK;
  if (!down || !right || !factors || !room)
    status = nyx__no_memory(t->ctx, (size_t)t->n * 2 * item_of(t));
  for (int64_t i = 0; status == NYX_OK && i < t->from.count; i++)
    status = matrix(t, down, right, factors, i, room);
  nyx_memory_free(room);
  nyx__fft_plan_release(right);
  nyx__fft_plan_release(down);
  nyx__fft_plan_release(whole);
  return status;
}

/* Long real lines: matrices of pairs */

typedef struct half_line {
  const transform *t;
  const void *turn, *from;
  void *to;
} half_line;

static int64_t blocks_of(int64_t m) {
  return m / 2 < HALVES ? 1 : m / 2 / HALVES;
}

/* The last block has what is left. */
static void run_halves(void *arg, int64_t begin, int64_t end) {
  const half_line *h = arg;
  const transform *t = h->t;
  int64_t m = t->n / 2, blocks = blocks_of(m);
  for (int64_t i = begin; i < end; i++)
    nyx__cpu_kernels()->fft->halves[t->type](
        t->kind, m, 1 + i * HALVES, i == blocks - 1 ? m / 2 + 1 : 1 + (i + 1) * HALVES,
        t->scale, h->turn, h->from, h->to);
}

static nyx_status half_line_by_matrix(transform *t, int64_t rows, const void *turn,
                                      int64_t i, void *room) {
  bool back = t->kind == NYX_FFT_TO_REAL;
  void *from = at(t, &t->from, i), *to = at(t, &t->to, i);
  transform pairs = *t;
  half_line h = {t, turn, back ? from : room, back ? room : to};
  pairs.kind = NYX_FFT_COMPLEX;
  pairs.n = t->n / 2;
  pairs.inverse = back;
  pairs.from = (nyx__fft_set){back ? room : from, 1, 1, 0, 0, 2};
  pairs.to = (nyx__fft_set){back ? to : room, 1, 1, 0, 0, 2};
  if (!back) pairs.scale = 1;
  if (back) nyx_parallel_for(blocks_of(pairs.n), 1, run_halves, &h);
  NYX_TRY(by_matrices(&pairs, rows));
  if (!back) nyx_parallel_for(blocks_of(pairs.n), 1, run_halves, &h);
  return NYX_OK;
}

static nyx_status by_halves(transform *t, int64_t rows) {
  nyx__fft_plan *whole = nyx__fft_plan_get(t->n, 0, t->type);
  const void *turn = whole ? nyx__fft_roots(whole) : NULL;
  void *room = nyx_memory_alloc((size_t)t->n * item_of(t));
  nyx_status status = NYX_OK;
  if (!turn || !room) status = nyx__no_memory(t->ctx, (size_t)t->n * item_of(t));
  for (int64_t i = 0; status == NYX_OK && i < t->from.count; i++)
    status = half_line_by_matrix(t, rows, turn, i, room);
  nyx_memory_free(room);
  nyx__fft_plan_release(whole);
  return status;
}

/* Lines that are made plain and complex first */

typedef struct plain_lines {
  transform *t;
  int64_t first, count, room; /* lines; numbers of each */
  char *data;
  const char *by; /* of a chirp: what every line is multiplied by */
  int64_t terms;
} plain_lines;

static void gather_lines(void *arg, int64_t begin, int64_t end) {
  const plain_lines *p = arg;
  const transform *t = p->t;
  bool exchange = t->inverse || t->kind == NYX_FFT_TO_REAL;
  for (int64_t i = begin; i < end; i++) {
    void *to = p->data + (size_t)(i * p->room) * 2 * item_of(t);
    const void *from = at(t, &t->from, p->first + i);
    if (t->type)
      gather_line_f64(t->kind, exchange, t->n, from, t->from.step, to, p->room);
    else
      gather_line_f32(t->kind, exchange, t->n, from, t->from.step, to, p->room);
  }
}

static void scatter_lines(void *arg, int64_t begin, int64_t end) {
  const plain_lines *p = arg;
  const transform *t = p->t;
  bool exchange = t->inverse || t->kind == NYX_FFT_TO_REAL;
  for (int64_t i = begin; i < end; i++) {
    const void *from = p->data + (size_t)(i * p->room) * 2 * item_of(t);
    void *to = at(t, &t->to, p->first + i);
    if (t->type)
      scatter_line_f64(t->kind, exchange, t->n, t->scale, from, to, t->to.step);
    else
      scatter_line_f32(t->kind, exchange, t->n, t->scale, from, to, t->to.step);
  }
}

static void multiply_lines(void *arg, int64_t begin, int64_t end) {
  const plain_lines *p = arg;
  for (int64_t i = begin; i < end; i++) {
    void *line = p->data + (size_t)(i * p->room) * 2 * item_of(p->t);
    if (p->t->type)
      multiply_f64(p->terms, line, (const void *)p->by, line);
    else
      multiply_f32(p->terms, line, (const void *)p->by, line);
  }
}

static void on_lines(plain_lines *p, void (*range)(void *, int64_t, int64_t)) {
  nyx_parallel_for(p->count, 1 + WORK / p->room, range, p);
}

/* Lines of p->room numbers, to another place. */
static nyx_status transform_plain(const plain_lines *p, bool inverse, char *from,
                                  char *to) {
  transform *t = p->t;
  const nyx__fft_set a = {from, p->count, 1, 2 * p->room, 0, 2};
  const nyx__fft_set b = {to, p->count, 1, 2 * p->room, 0, 2};
  return nyx__fft_lines(t->ctx, NYX_FFT_COMPLEX, t->type, p->room, inverse, 1, &a, &b);
}

/* The chirp of a plan, and the transform of its conjugate divided by `room`; NULL: no
 * memory, or what the transform says. */
static const char *filter_of(transform *t, int64_t room, nyx_status *status) {
  size_t item = 2 * item_of(t), bytes = (size_t)(t->n + 2 * room) * item;
  void *kept = atomic_load(&t->plan->filter);
  if (kept) return kept;
  char *block = nyx_memory_alloc(bytes);
  if (!block) {
    *status = nyx__no_memory(t->ctx, bytes);
    return NULL;
  }
  char *filter = block + (size_t)t->n * item, *around = filter + (size_t)room * item;
  if (t->type)
    make_chirp_f64(t->n, room, (void *)block, (void *)around);
  else
    make_chirp_f32(t->n, room, (void *)block, (void *)around);
  const nyx__fft_set a = {around, 1, 1, 0, 0, 2}, b = {filter, 1, 1, 0, 0, 2};
  *status = nyx__fft_lines(t->ctx, NYX_FFT_COMPLEX, t->type, room, false,
                           1 / (double)room, &a, &b);
  if (*status == NYX_OK) return nyx__fft_keep(&t->plan->filter, block);
  nyx_memory_free(block);
  return NULL;
}

/* A convolution: x c, transformed, times the transform of conj c, back again, times c. */
static nyx_status by_chirp(plain_lines *p, char *other) {
  transform *t = p->t;
  nyx_status status = NYX_OK;
  const char *chirp = filter_of(t, p->room, &status);
  if (!chirp) return status;
  char *data = p->data;
  p->by = chirp;
  p->terms = t->n;
  on_lines(p, multiply_lines);
  NYX_TRY(transform_plain(p, false, data, other));
  p->data = other;
  p->by = chirp + (size_t)t->n * 2 * item_of(t);
  p->terms = p->room;
  on_lines(p, multiply_lines);
  p->data = data;
  NYX_TRY(transform_plain(p, true, other, data));
  p->by = chirp;
  p->terms = t->n;
  on_lines(p, multiply_lines);
  return NYX_OK;
}

static nyx_status by_plain_lines(transform *t) {
  bool chirp = t->plan != NULL;
  int64_t room = chirp ? nyx__fft_smooth(2 * t->n - 1) : t->n;
  int64_t most = BLOCK / room < 1 ? 1 : BLOCK / room;
  if (most > t->from.count) most = t->from.count;
  size_t bytes = (size_t)(most * room) * 2 * item_of(t);
  char *data = nyx_memory_alloc(2 * bytes);
  if (!data) return nyx__no_memory(t->ctx, 2 * bytes);
  nyx_status status = NYX_OK;
  for (int64_t i = 0; status == NYX_OK && i < t->from.count; i += most) {
    plain_lines p = {.t = t, .first = i, .count = most, .room = room, .data = data};
    if (p.count > t->from.count - i) p.count = t->from.count - i;
    on_lines(&p, gather_lines);
    if (chirp) {
      status = by_chirp(&p, data + bytes);
    } else {
      status = transform_plain(&p, false, data, data + bytes);
      p.data = data + bytes;
    }
    if (status == NYX_OK) on_lines(&p, scatter_lines);
  }
  nyx_memory_free(data);
  return status;
}

/* Which way */

/* Whether the elements of every line lie side by side, of real ones pairs of them. */
static bool in_one_piece(const transform *t) {
  if (t->kind != NYX_FFT_COMPLEX && t->n % 2) return false;
  return t->from.step == (t->kind == NYX_FFT_FROM_REAL ? 1 : 2) &&
         t->to.step == (t->kind == NYX_FFT_TO_REAL ? 1 : 2);
}

/* Columns of lines of n complex numbers. */
static int columns_of(const transform *t, int64_t n) {
  int lanes = nyx__cpu_kernels()->fft->lanes[t->type];
  if (!in_one_piece(t)) return 1;
  int64_t least = t->kind == NYX_FFT_COMPLEX ? lanes : 2 * lanes;
  int64_t most = NYX_FFT_SHORT_ROWS / 2 * lanes;
  if (lanes >= 8 && n >= least && n <= most && (n & (n - 1)) == 0) return NYX_FFT_SHORT;
  return nyx__fft_columns(n, t->type);
}

/* Rows of the matrix that a line of n numbers becomes; 0: it stays a line. */
static int64_t rows_of(const transform *t, int64_t n) {
  int lanes = nyx__cpu_kernels()->fft->lanes[t->type];
  bool few = t->from.count * n >= ALONE && t->from.count < lanes && n >= LONG / 4;
  bool alone = t->from.count == 1 && n >= ALONE;
  if (columns_of(t, n) > 1 ? n <= PACKED && !alone : n <= LONG && !few) return 0;
  int64_t rows = root_of(n);
  return rows >= lanes / 2 ? rows : 0;
}

/* Pairs of real numbers go as complex ones through half as long a plan; *whole has their
 * roots. Both are the caller's to release, whatever comes. */
static nyx_status plan_smooth(transform *t, nyx__fft_plan **whole) {
  bool pairs = t->kind != NYX_FFT_COMPLEX && t->n % 2 == 0;
  int64_t n = pairs ? t->n / 2 : t->n;
  *whole = pairs ? nyx__fft_plan_get(t->n, 0, t->type) : NULL;
  if (*whole) t->turn = nyx__fft_roots(*whole);
  t->plan = nyx__fft_plan_get(n, columns_of(t, n), t->type);
  if (t->plan && (!pairs || t->turn)) return NYX_OK;
  return nyx__no_memory(t->ctx, (size_t)t->n * 2 * item_of(t));
}

static nyx_status smooth_lines(transform *t) {
  nyx__fft_plan *whole;
  nyx_status status = plan_smooth(t, &whole);
  if (status == NYX_OK) status = by_lanes(t);
  nyx__fft_plan_release(t->plan);
  nyx__fft_plan_release(whole);
  return status;
}

/* Planes */

typedef struct plane_run {
  transform side[2];
  const nyx__fft_side *sides;
  int64_t planes, together;
  atomic_int status;
} plane_run;

/* The lines of some planes. */
static nyx__fft_set within(const transform *t, const nyx__fft_set *all, int64_t planes,
                           int64_t plane, int64_t first, int64_t count) {
  nyx__fft_set s = *all;
  s.data = (char *)s.data + first * plane * (int64_t)item_of(t);
  s.count = all->count / planes * count;
  return s;
}

static void run_planes(void *arg, int64_t begin, int64_t end) {
  plane_run *p = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t first = i * p->together, count = p->together;
    if (count > p->planes - first) count = p->planes - first;
    for (int k = 0; k < 2; k++) {
      transform t = p->side[k];
      t.from = within(&t, &t.from, p->planes, p->sides[k].from_plane, first, count);
      t.to = within(&t, &t.to, p->planes, p->sides[k].to_plane, first, count);
      run_lanes(&t, 0, groups_of(&t, lines_of(&t)));
      int status = atomic_load(&t.status);
      if (status != NYX_OK) atomic_store(&p->status, status);
      if (atomic_load_explicit(&p->status, memory_order_relaxed) != NYX_OK) return;
    }
  }
}

nyx_status nyx__fft_planes(nyx_context *ctx, int type, int64_t planes, bool inverse,
                           const nyx__fft_side sides[2], bool *done) {
  int64_t size = sides[0].n * sides[1].n; /* numbers of a plane */
  int64_t together = size < PLANE ? PLANE / size : 1;
  plane_run p = {.sides = sides, .planes = planes, .together = together};
  *done = planes >= PLANES * together && size <= PLANE_MOST;
  for (int k = 0; k < 2; k++) {
    transform *t = &p.side[k];
    *t = (transform){.ctx = ctx,
                     .kind = sides[k].kind,
                     .type = type,
                     .n = sides[k].n,
                     .inverse = inverse,
                     .scale = sides[k].scale,
                     .from = sides[k].from,
                     .to = sides[k].to};
    bool pairs = t->kind != NYX_FFT_COMPLEX && in_one_piece(t);
    *done = *done && nyx__fft_is_smooth(t->n) && !rows_of(t, pairs ? t->n / 2 : t->n);
  }
  if (!*done) return NYX_OK;
  nyx__fft_plan *whole[2] = {NULL};
  nyx_status status = NYX_OK;
  for (int k = 0; k < 2 && status == NYX_OK; k++)
    status = plan_smooth(&p.side[k], &whole[k]);
  if (status == NYX_OK)
    nyx_parallel_for((planes + together - 1) / together, 1 + WORK / (size * together),
                     run_planes, &p);
  atomic_store(&p.side[0].status, atomic_load(&p.status));
  if (status == NYX_OK) status = finished(&p.side[0]);
  for (int k = 0; k < 2; k++) {
    nyx__fft_plan_release(p.side[k].plan);
    nyx__fft_plan_release(whole[k]);
  }
  return status;
}

nyx_status nyx__fft_lines(nyx_context *ctx, nyx_fft_kind kind, int type, int64_t n,
                          bool inverse, double scale, const nyx__fft_set *from,
                          const nyx__fft_set *to) {
  if (from->count == 0) return NYX_OK;
  transform t = {.ctx = ctx,
                 .kind = kind,
                 .type = type,
                 .n = n,
                 .inverse = inverse,
                 .scale = scale,
                 .from = *from,
                 .to = *to};
  if (!nyx__fft_is_smooth(n)) {
    t.plan = nyx__fft_plan_get(n, 0, type);
    if (!t.plan) return nyx__no_memory(ctx, (size_t)n * 2 * item_of(&t));
    nyx_status status = by_plain_lines(&t);
    nyx__fft_plan_release(t.plan);
    return status;
  }
  bool pairs = kind != NYX_FFT_COMPLEX && in_one_piece(&t);
  int64_t rows = rows_of(&t, pairs ? n / 2 : n);
  if (rows && pairs) return by_halves(&t, rows);
  if (rows && kind != NYX_FFT_COMPLEX) return by_plain_lines(&t);
  return rows ? by_matrices(&t, rows) : smooth_lines(&t);
}
