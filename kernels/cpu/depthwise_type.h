/* The loops of a depthwise convolution over one element type T; included by depthwise.c,
 * once for each. Square kernels of 3 and 5 are in depthwise_square.h, those of many rows
 * in depthwise_large.h; here are the others, by a list of taps. */
#include "pad_type.h"

static T TYPED(total)(V v) {
  UNROLL for (int step = LANES / 2; step > 0; step /= 2) {
    V other;
    UNROLL for (int l = 0; l < LANES; l++) other[l] = v[l ^ step];
    v += other;
  }
  return v[0];
}

#include "depthwise_square.h"

#include "depthwise_large.h"

/* Weighted sums of shifted rows: what outputs and the adjoint are made of. */
typedef struct TYPED(sums) {
  const T *from;         /* the first element of tap 0 */
  int64_t row_step;      /* from one row of the result to the next */
  const int64_t *offset; /* of the taps */
  const T *w;
  int64_t taps;
  T bias;
  T *to;
  int64_t to_step, rows, columns;
  T *end; /* rows narrower than a vector are written whole as far as this */
} TYPED(sums);

static ALWAYS_INLINE void TYPED(sum_list)(const int n, const TYPED(sums) * j,
                                          const T *from, V *sum) {
  for (int64_t t = 0; t < j->taps; t++) {
    const T *at = from + j->offset[t];
    UNROLL for (int r = 0; r < n; r++) sum[r] += j->w[t] * LOAD(at + r * j->row_step);
  }
}

/* n rows of the result, from `row` on. */
static ALWAYS_INLINE void TYPED(list_rows)(const int n, const TYPED(sums) * j,
                                           int64_t row) {
  const T *from = j->from + row * j->row_step;
  T *to = j->to + row * j->to_step;
  for (int64_t at = 0; at < j->columns; at += LANES) {
    int64_t live = j->columns < LANES ? j->columns : LANES;
    if (at + live > j->columns) at = j->columns - LANES; /* some once more */
    V sum[BLOCK];
    UNROLL for (int r = 0; r < n; r++) sum[r] = j->bias + (V){0};
    TYPED(sum_list)(n, j, from + at, sum);
    UNROLL for (int r = 0; r < n; r++)
        TYPED(put)(to + r * j->to_step + at, sum[r], live, j->end);
  }
}

/* All rows, in ascending order; the last ones once more rather than one by one. */
static void TYPED(sum)(const TYPED(sums) * j) {
  int64_t row = 0;
  if (j->rows < BLOCK) {
    for (; row < j->rows; row++) TYPED(list_rows)(1, j, row);
    return;
  }
  for (; row < j->rows; row += BLOCK) {
    if (row + BLOCK > j->rows) row = j->rows - BLOCK;
    TYPED(list_rows)(BLOCK, j, row);
  }
}

static nyx_row_padding TYPED(x_padding)(const plan *p) {
  const nyx_depthwise *d = p->d;
  return (nyx_row_padding){d->in[1],  d->stride[1], d->pad[1],
                           p->phases, p->phase,     .down = 1};
}

/* The padded rows that outputs row..row+rows-1 see. */
static void TYPED(pad_stripe)(const plan *p, const nyx_depthwise_planes *planes,
                              int64_t row, int64_t rows) {
  const nyx_depthwise *d = p->d;
  nyx_row_padding g = TYPED(x_padding)(p);
  TYPED(pad_rows)
  (&g, planes->x, d->in[0], planes->x_limit, row * d->stride[0] - d->pad[0],
   rows * d->stride[0] + p->extra, (T *)(void *)p->padded, p->pitch);
}

/* A stripe's padded rows, as depthwise_large.h reads them: the first is row `first` of an
 * image of `height`, which may be outside. */
static TYPED(large) TYPED(large_of)(const plan *p, int64_t first, int64_t height) {
  const nyx_depthwise *d = p->d;
  return (TYPED(large)){.from = (T *)(void *)p->padded,
                        .pitch = p->pitch,
                        .first = -first,
                        .last = height - first,
                        .high = d->kernel[0],
                        .wide = d->kernel[1]};
}

/* The last stripe has as many rows as the others, some once more. */
static void TYPED(large_forward)(const plan *p, const nyx_depthwise_planes *planes) {
  const nyx_depthwise *d = p->d;
  int64_t plane = d->out[0] * d->out[1];
  TYPED(large) j;
  for (int64_t row = 0; row < d->out[0]; row += p->stripe) {
    if (row + p->stripe > d->out[0]) row = d->out[0] - p->stripe;
    TYPED(pad_stripe)(p, planes, row, p->stripe);
    j = TYPED(large_of)(p, row - d->pad[0], d->in[0]);
    j.rows = p->stripe, j.columns = d->out[1];
    for (int64_t o = 0; o < d->outputs; o++) {
      T *y = (T *)planes->y + o * plane;
      j.w = (T *)planes->weight + o * p->taps;
      j.bias = planes->bias ? ((const T *)planes->bias)[o] : 0;
      j.to = y + row * d->out[1], j.end = y + plane;
      TYPED(large_sum)(&j);
    }
  }
}

static void TYPED(forward)(const nyx_depthwise_planes *planes, void *scratch) {
  const plan *p = scratch;
  const nyx_depthwise *d = p->d;
  if (p->side) {
    TYPED(square_from_x)(p, planes, NYX_DEPTHWISE_FORWARD);
    return;
  }
  if (p->large) {
    TYPED(large_forward)(p, planes);
    return;
  }
  int64_t plane = d->out[0] * d->out[1];
  for (int64_t row = 0; row < d->out[0]; row += p->stripe) {
    int64_t rows = d->out[0] - row < p->stripe ? d->out[0] - row : p->stripe;
    TYPED(pad_stripe)(p, planes, row, rows);
    for (int64_t o = 0; o < d->outputs; o++) {
      T *y = (T *)planes->y + o * plane;
      TYPED(sums)
      j = {.from = (T *)(void *)p->padded,
           .row_step = d->stride[0] * p->pitch,
           .offset = p->offset,
           .w = (T *)planes->weight + o * p->taps,
           .taps = p->taps,
           .bias = planes->bias ? ((const T *)planes->bias)[o] : 0,
           .to = y + row * d->out[1],
           .to_step = d->out[1],
           .rows = rows,
           .columns = d->out[1],
           .end = y + plane};
      TYPED(sum)(&j);
    }
  }
}

/* The adjoint with respect to x: every phase of x is a convolution of y, with stride 1,
 * by the taps that reach it. */

static int64_t TYPED(phase_size)(int64_t all, int64_t phase, int64_t stride) {
  return all > phase ? (all - phase - 1) / stride + 1 : 0;
}

/* to[f + q * step] = phase f's element q, for all phases. */
static void TYPED(mix)(const T *from, int64_t pitch, int64_t n, int64_t step,
                       T *restrict to) {
  int64_t done = 0;
  if (step == 2) {
    const T *even = from, *odd = from + pitch;
    for (; done < n / 2; done++) {
      to[2 * done] = even[done];
      to[2 * done + 1] = odd[done];
    }
  }
  for (int64_t f = 0; f < step; f++) {
    for (int64_t q = done; f + q * step < n; q++) to[f + q * step] = from[f * pitch + q];
  }
}

/* Rows b..b+rows-1 of row phase i, whose padded rows begin at `from`. */
static void TYPED(mix_rows)(const plan *p, const T *from, int64_t i, int64_t b,
                            int64_t rows, T *x) {
  const nyx_depthwise *d = p->d;
  int64_t step = d->stride[1], first = d->pad[1] / step;
  T *result = (T *)(void *)p->result;
  for (int64_t f = 0; f < step; f++) {
    int64_t part = p->parts[i * step + f], columns = TYPED(phase_size)(d->in[1], f, step);
    TYPED(sums)
    j = {.from = from + ((d->pad[1] + f) / step - first),
         .row_step = p->pitch,
         .offset = p->offset + part,
         .w = (T *)(void *)p->weight + part,
         .taps = p->parts[i * step + f + 1] - part,
         .to = result + f * p->pitch,
         .to_step = step * p->pitch,
         .rows = rows,
         .columns = columns,
         .end = result + (BLOCK * step * p->pitch + LANES)};
    TYPED(sum)(&j);
  }
  for (int64_t r = 0; r < rows; r++) {
    TYPED(mix)
    (result + r * step * p->pitch, p->pitch, d->in[1], step,
     x + ((b + r) * d->stride[0] + i) * d->in[1]);
  }
}

/* Strides: the rows of x that the padded rows of y from element a on reach. */
static void TYPED(input_phases)(const plan *p, int64_t a, int64_t rows, T *x) {
  const nyx_depthwise *d = p->d;
  int64_t step = d->stride[0], first = d->pad[0] / step;
  for (int64_t i = 0; i < step; i++) {
    int64_t shift = (d->pad[0] + i) / step - first; /* row b of this phase: element */
    int64_t end = TYPED(phase_size)(d->in[0], i, step), b = a - shift;
    if (end > a + rows - shift) end = a + rows - shift;
    for (b = b > 0 ? b : 0; b < end; b += BLOCK) {
      const T *from = (T *)(void *)p->padded + (b + shift - a) * p->pitch;
      TYPED(mix_rows)(p, from, i, b, end - b < BLOCK ? end - b : BLOCK, x);
    }
  }
}

/* Without: the rows of x from `row` on. */
static void TYPED(input_rows)(const plan *p, int64_t row, int64_t rows, T *x) {
  const nyx_depthwise *d = p->d;
  TYPED(sums)
  j = {.from = (T *)(void *)p->padded,
       .row_step = p->pitch,
       .offset = p->offset,
       .w = (T *)(void *)p->weight,
       .taps = p->taps,
       .to = x + row * d->in[1],
       .to_step = d->in[1],
       .rows = rows,
       .columns = d->in[1],
       .end = x + d->in[0] * d->in[1]};
  TYPED(sum)(&j);
}

/* The weights in the order of the list. */
static void TYPED(order_weights)(const plan *p, const T *weight) {
  T *w = (T *)(void *)p->weight;
  for (int64_t t = 0; t < p->taps; t++) w[t] = weight[p->tap[t]];
}

/* Large kernels: a convolution of y by the kernel turned round. */
static void TYPED(large_input)(const plan *p, const nyx_depthwise_planes *planes) {
  const nyx_depthwise *d = p->d;
  const nyx_row_padding g = {d->out[1], 1, p->across, 1, p->phase, .down = 1};
  T *w = (T *)(void *)p->weight, *x = planes->x;
  TYPED(large) j;
  for (int64_t t = 0; t < p->taps; t++) w[t] = ((T *)planes->weight)[p->taps - 1 - t];
  for (int64_t row = 0; row < d->in[0]; row += p->stripe) {
    if (row + p->stripe > d->in[0]) row = d->in[0] - p->stripe;
    int64_t first = d->pad[0] + row - p->extra;
    TYPED(pad_rows)
    (&g, planes->y, d->out[0], planes->y_limit, first, p->rows, (T *)(void *)p->padded,
     p->pitch);
    j = TYPED(large_of)(p, first, d->out[0]);
    j.rows = p->stripe, j.columns = d->in[1];
    j.w = w, j.bias = 0;
    j.to = x + row * d->in[1], j.end = x + d->in[0] * d->in[1];
    TYPED(large_sum)(&j);
  }
}

static void TYPED(input)(const nyx_depthwise_planes *planes, void *scratch) {
  const plan *p = scratch;
  const nyx_depthwise *d = p->d;
  if (p->side) {
    TYPED(square_input)(p, planes);
    return;
  }
  if (p->large) {
    TYPED(large_input)(p, planes);
    return;
  }
  int64_t first = d->pad[0] / d->stride[0];
  int64_t all = (d->pad[0] + d->in[0] - 1) / d->stride[0] - first + 1;
  nyx_row_padding g = {d->out[1], 1, p->across, 1, p->phase, .down = 1};
  TYPED(order_weights)(p, planes->weight);
  for (int64_t a = 0; a < all; a += p->stripe) {
    int64_t rows = all - a < p->stripe ? all - a : p->stripe;
    for (int64_t o = 0; o < d->outputs; o++) {
      TYPED(pad_rows)
      (&g, (T *)planes->y + o * d->out[0] * d->out[1], d->out[0], planes->y_limit,
       first + a - p->extra, rows + p->extra,
       (T *)(void *)p->padded + o * p->rows * p->pitch, p->pitch);
    }
    if (d->stride[0] == 1 && d->stride[1] == 1) {
      TYPED(input_rows)(p, a, rows, planes->x);
    } else {
      TYPED(input_phases)(p, a, rows, planes->x);
    }
  }
}

/* The adjoint with respect to the weight: sums over all positions, of some taps at once.
 */

/* Rows of y and where output (0, 0) of them begins in the padded rows. */
typedef struct TYPED(dots) {
  const T *y, *y_limit, *x;
  int64_t y_step, x_step, rows, columns;
  const int64_t *offset;
} TYPED(dots);

/* y's elements from `at` on, zeros after the last. */
static ALWAYS_INLINE V TYPED(last_of)(const TYPED(dots) * j, const T *at, int64_t live) {
  V g = {0};
  if (j->y_limit - at >= LANES) return TYPED(keep)(LOAD(at), TYPED(mask)(live));
  for (int64_t l = 0; l < live; l++) g[l] = at[l];
  return g;
}

/* sum[i] += y * x at tap i, of n taps of the list. */
static ALWAYS_INLINE void TYPED(dot)(const int n, const TYPED(dots) * j, const T *x, V g,
                                     const bool last, TYPED(lanes) mask, V *sum) {
  UNROLL for (int i = 0; i < n; i++) {
    V right = LOAD(x + j->offset[i]);
    if (last) right = TYPED(keep)(right, mask);
    sum[i] += g * right;
  }
}

static ALWAYS_INLINE void TYPED(dot_taps)(const int n, const TYPED(dots) * j, T *weight) {
  V sum[TAPS];
  UNROLL for (int i = 0; i < n; i++) sum[i] = (V){0};
  int64_t whole = j->columns / LANES * LANES, rest = j->columns - whole;
  TYPED(lanes) mask = TYPED(mask)(rest);
  for (int64_t r = 0; r < j->rows; r++) {
    const T *y = j->y + r * j->y_step, *x = j->x + r * j->x_step;
    for (int64_t q = 0; q < whole; q += LANES)
      TYPED(dot)(n, j, x + q, LOAD(y + q), false, mask, sum);
    if (rest > 0) {
      V g = TYPED(last_of)(j, y + whole, rest);
      TYPED(dot)(n, j, x + whole, g, true, mask, sum);
    }
  }
  UNROLL for (int i = 0; i < n; i++) weight[i] += TYPED(total)(sum[i]);
}

static void TYPED(dot_list)(const TYPED(dots) * all, int64_t taps, T *weight) {
  TYPED(dots) j = *all;
  for (; taps > 0; taps -= TAPS, j.offset += TAPS, weight += TAPS) {
    switch (taps) {
      case 1: TYPED(dot_taps)(1, &j, weight); break;
      case 2: TYPED(dot_taps)(2, &j, weight); break;
      case 3: TYPED(dot_taps)(3, &j, weight); break;
      case 4: TYPED(dot_taps)(4, &j, weight); break;
      default: TYPED(dot_taps)(TAPS, &j, weight); break;
    }
  }
}

static void TYPED(weight)(const nyx_depthwise_planes *planes, void *scratch) {
  const plan *p = scratch;
  const nyx_depthwise *d = p->d;
  if (p->side) {
    TYPED(square_from_x)(p, planes, NYX_DEPTHWISE_WEIGHT);
    return;
  }
  for (int64_t row = 0; row < d->out[0]; row += p->stripe) {
    int64_t rows = d->out[0] - row < p->stripe ? d->out[0] - row : p->stripe;
    TYPED(pad_stripe)(p, planes, row, rows);
    for (int64_t o = 0; o < d->outputs; o++) {
      T *weight = (T *)planes->weight + o * p->taps;
      TYPED(dots)
      j = {.y = (T *)planes->y + (o * d->out[0] + row) * d->out[1],
           .y_limit = planes->y_limit,
           .x = (T *)(void *)p->padded,
           .y_step = d->out[1],
           .x_step = d->stride[0] * p->pitch,
           .rows = rows,
           .columns = d->out[1],
           .offset = p->offset};
      TYPED(dot_list)(&j, p->taps, weight);
    }
  }
}

static size_t TYPED(scratch)(const nyx_depthwise *d, nyx_depthwise_mode mode) {
  if (!side_of(d, mode)) return scratch_for(d, mode, sizeof(T));
  size_t strips = (size_t)TYPED(strip_count)(d, mode), each = sizeof(TYPED(strip));
  size_t size = 2 * PLAN_BYTES + strips * each;
  return moderate(d) && size <= NYX_DEPTHWISE_SCRATCH ? size : 0;
}

static double TYPED(cycles)(const nyx_depthwise *d, nyx_depthwise_mode mode) {
  return cycles_for(d, mode, sizeof(T));
}

/* The plan, sizes, strips: each aligned as vectors are. */
static void TYPED(prepare)(const nyx_depthwise *d, nyx_depthwise_mode mode,
                           void *scratch) {
  int64_t side = side_of(d, mode);
  if (!side) {
    prepare_for(d, mode, sizeof(T), scratch);
    return;
  }
  char *at = scratch;
  TYPED(square) *square = (TYPED(square) *)(void *)(at + PLAN_BYTES);
  TYPED(strip) *strips = (TYPED(strip) *)(void *)(at + 2 * PLAN_BYTES);
  *square = TYPED(square_of)(d, mode, strips);
  for (int64_t i = 0; i < square->count; i++) strips[i] = TYPED(strip_at)(d, mode, i);
  *(plan *)scratch = (plan){.d = d, .side = side, .square = square};
}

#undef V
#undef LANES
#undef LOAD
#undef STORE
