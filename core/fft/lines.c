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

#define LONG 4096       /* numbers: more leave the second cache, in every lane */
#define ALONE (1 << 15) /* few lines of more are matrices too, so that threads share */
#define BLOCK (1 << 20) /* numbers that odd lines take at a time */
#define WORK (1 << 15)  /* numbers that are worth waking a thread for */

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
  const void *turn, *factor;
  atomic_int status;
} transform;

static size_t item_of(const transform *t) {
  return t->type ? sizeof(double) : sizeof(float);
}

static int64_t line_at(const nyx__fft_set *s, int64_t i) {
  return i / s->inner * s->outer_step + i % s->inner * s->inner_step;
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

static void run_lanes(void *arg, int64_t begin, int64_t end) {
  transform *t = arg;
  const nyx_fft_kernels *kernels = nyx__cpu_kernels()->fft;
  int lanes = kernels->lanes[t->type];
  size_t room = (size_t)(t->n + 1) * 2 * (size_t)lanes * item_of(t);
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
                     .factor = t->factor,
                     .from = t->from.data,
                     .to = t->to.data,
                     .from_step = t->from.step,
                     .to_step = t->to.step,
                     .room = {first, first + room}};
  for (int64_t i = begin * lanes; i < end * lanes && i < t->from.count && going(t);
       i += lanes) {
    j.count = t->from.count - i < lanes ? (int)(t->from.count - i) : lanes;
    for (int l = 0; l < lanes; l++) {
      int64_t line = i + (l < j.count ? l : 0);
      j.from_at[l] = line_at(&t->from, line);
      j.to_at[l] = line_at(&t->to, line);
      j.factor_step[l] = line;
    }
    kernels->lines[t->type](&j);
  }
  nyx_memory_free(rooms);
}

static nyx_status by_lanes(transform *t) {
  int lanes = nyx__cpu_kernels()->fft->lanes[t->type];
  int64_t groups = (t->from.count + lanes - 1) / lanes;
  nyx_parallel_for(groups, 1 + WORK / (t->n * lanes), run_lanes, t);
  return finished(t);
}

/* Complex lines of one plan. */
static nyx_status complex_lines(nyx_context *ctx, int type, nyx__fft_plan *plan,
                                bool inverse, double scale, const void *factor,
                                const nyx__fft_set *from, const nyx__fft_set *to) {
  transform t = {.ctx = ctx,
                 .kind = NYX_FFT_COMPLEX,
                 .type = type,
                 .n = plan->n,
                 .inverse = inverse,
                 .scale = scale,
                 .from = *from,
                 .to = *to,
                 .plan = plan,
                 .factor = factor};
  return by_lanes(&t);
}

/* Long lines as matrices */

/* The factor of n nearest to its root from below; 1: there is none. */
static int64_t columns_of(const nyx__fft_plan *plan) {
  int64_t best = 1;
  for (int64_t d = 2; d * d <= plan->n; d++)
    if (plan->n % d == 0) best = d;
  return best;
}

/* Line i of complex numbers, n = rows x cols: column j is transformed, element k of it
 * multiplied by the root of one to the power j k, then every row; its results are cols
 * apart. */
static nyx_status matrix(transform *t, nyx__fft_plan *down, nyx__fft_plan *right,
                         const void *roots, int64_t i, void *room) {
  int64_t rows = down->n, cols = right->n;
  const nyx__fft_set from = {at(t, &t->from, i), cols, cols, 0, t->from.step,
                             cols * t->from.step};
  const nyx__fft_set middle = {room, cols, cols, 0, 2, 2 * cols};
  const nyx__fft_set lines = {room, rows, rows, 0, 2 * cols, 2};
  const nyx__fft_set to = {at(t, &t->to, i), rows, rows, 0, t->to.step,
                           rows * t->to.step};
  NYX_TRY(complex_lines(t->ctx, t->type, down, t->inverse, 1, roots, &from, &middle));
  return complex_lines(t->ctx, t->type, right, t->inverse, t->scale, NULL, &lines, &to);
}

static nyx_status by_matrices(transform *t, int64_t rows) {
  nyx__fft_plan *down = nyx__fft_plan_get(rows, t->type);
  nyx__fft_plan *right = nyx__fft_plan_get(t->n / rows, t->type);
  const void *roots = nyx__fft_roots(t->plan);
  void *room = nyx_memory_alloc((size_t)t->n * 2 * item_of(t));
  nyx_status status = NYX_OK;
  if (!down || !right || !roots || !room)
    status = nyx__no_memory(t->ctx, (size_t)t->n * 2 * item_of(t));
  for (int64_t i = 0; status == NYX_OK && i < t->from.count; i++)
    status = matrix(t, down, right, roots, i, room);
  nyx_memory_free(room);
  nyx__fft_plan_release(right);
  nyx__fft_plan_release(down);
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
  char *block = malloc(bytes); /* as the rest of the plan */
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
  free(block);
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
  bool chirp = t->plan->chirp;
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

/* Rows of the matrix that a line becomes; 0: it stays a line. */
static int64_t rows_of(const transform *t) {
  int lanes = nyx__cpu_kernels()->fft->lanes[t->type];
  bool few = t->from.count * t->n >= ALONE && t->from.count < lanes && t->n >= LONG / 4;
  if (t->plan->chirp || (t->n <= LONG && !few)) return 0;
  int64_t rows = columns_of(t->plan);
  return rows >= lanes / 2 ? rows : 0;
}

/* Pairs of real numbers go as complex ones through half as long a plan. */
static nyx_status real_by_lanes(transform *t) {
  nyx__fft_plan *whole = t->plan;
  if (t->n % 2 == 0) {
    t->plan = nyx__fft_plan_get(t->n / 2, t->type);
    t->turn = nyx__fft_roots(whole);
  }
  nyx_status status = NYX_OK;
  if (!t->plan || (t->n % 2 == 0 && !t->turn))
    status = nyx__no_memory(t->ctx, (size_t)t->n * 2 * item_of(t));
  if (status == NYX_OK) status = by_lanes(t);
  if (t->plan != whole) nyx__fft_plan_release(t->plan);
  t->plan = whole;
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
                 .to = *to,
                 .plan = nyx__fft_plan_get(n, type)};
  if (!t.plan) return nyx__no_memory(ctx, (size_t)n * 2 * item_of(&t));
  int64_t rows = rows_of(&t);
  nyx_status status;
  if (t.plan->chirp || (rows && kind != NYX_FFT_COMPLEX))
    status = by_plain_lines(&t);
  else if (rows)
    status = by_matrices(&t, rows);
  else if (kind != NYX_FFT_COMPLEX)
    status = real_by_lanes(&t);
  else
    status = by_lanes(&t);
  nyx__fft_plan_release(t.plan);
  return status;
}
