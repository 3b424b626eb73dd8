/* Depthwise convolutions of channels-last images: all channels of a place at once. Units
 * are output rows, or some channels of all images where these are summed, so that results
 * do not depend on the number of threads. Read next: kernels/cpu/last.h, conv_last.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/last.h"
#include "conv_last.h"

#define RANGE_WORK ((double)(1 << 17)) /* multiplications worth waking a thread for */
#define CHANNELS 32                    /* of a unit of the weight's adjoint */

typedef struct depthwise_run {
  const nyx__last_sum *s;
  const nyx_last_kernel *last;
  int64_t item, taps;
  char *weight; /* taps x channels */
  atomic_int status;
} depthwise_run;

static const nyx_last_kernel *kernel_of(nyx_dtype dtype) {
  return &nyx__cpu_kernels()->last->type[dtype == NYX_FLOAT64];
}

/* n elements of `item` bytes, 4 or 8, from places so many elements apart. */
static void move(char *to, int64_t to_step, const char *from, int64_t from_step,
                 int64_t n, int64_t item) {
  if (item == 4) {
    for (int64_t i = 0; i < n; i++)
      memcpy(to + i * to_step * 4, from + i * from_step * 4, 4);
  } else {
    for (int64_t i = 0; i < n; i++)
      memcpy(to + i * to_step * 8, from + i * from_step * 8, 8);
  }
}

/* The weight with the channels of a tap side by side. */
static void turn_weight(const depthwise_run *r) {
  const nyx__last_sum *s = r->s;
  int64_t across = s->window[1].kernel;
  for (int64_t t = 0; t < r->taps; t++) {
    int64_t at = t / across * s->w_tap[0] + t % across * s->w_tap[1];
    move(r->weight + t * s->groups * r->item, 1, s->weight + at * r->item, s->w_group,
         s->groups, r->item);
  }
}

/* Places x0..x1-1 of a row, which see the same taps of it: columns j0..j1-1. */
static void run_places(const depthwise_run *r, int64_t n, int64_t y, int64_t x0,
                       int64_t x1, const int64_t j[2], const void **x, const void **w) {
  const nyx__last_sum *s = r->s;
  const nyx__window *wy = &s->window[0], *wx = &s->window[1];
  int64_t taps = 0;
  for (int64_t i = 0; i < wy->kernel; i++) {
    int64_t at_y = y * wy->stride - wy->pad + i * wy->dilation;
    if (at_y < 0 || at_y >= wy->in) continue;
    for (int64_t k = j[0]; k < j[1]; k++) {
      int64_t at_x = x0 * wx->stride - wx->pad + k * wx->dilation;
      int64_t at = n * s->x_image + at_y * s->x_row + at_x * s->x_pixel;
      x[taps] = s->x + at * r->item;
      w[taps++] = r->weight + (i * wx->kernel + k) * s->groups * r->item;
    }
  }
  const nyx_last_depthwise p = {
      .x = x,
      .w = w,
      .taps = taps,
      .count = x1 - x0,
      .x_step = wx->stride * s->x_pixel,
      .y_step = s->y_pixel,
      .channels = s->groups,
      .bias = s->bias,
      .y = s->y + (n * s->y_image + y * s->y_row + x0 * s->y_pixel) * r->item};
  r->last->depthwise(&p);
}

/* The taps j[0]..j[1]-1 across that place x sees. */
static void taps_at(const nyx__window *w, int64_t x, int64_t j[2]) {
  int64_t first = x * w->stride - w->pad;
  j[0] = first < 0 ? (-first + w->dilation - 1) / w->dilation : 0;
  j[1] = first >= w->in ? 0 : (w->in - 1 - first) / w->dilation + 1;
  if (j[1] > w->kernel) j[1] = w->kernel;
  if (j[0] > j[1]) j[0] = j[1];
}

static void run_rows(void *arg, int64_t begin, int64_t end) {
  depthwise_run *r = arg;
  const nyx__last_sum *s = r->s;
  const nyx__window *wx = &s->window[1];
  const void **list = nyx_memory_alloc((size_t)(2 * r->taps) * sizeof *list);
  if (!list) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return;
  }
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / s->window[0].out, y = row % s->window[0].out, next;
    if (nyx__interrupted(s->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
    if (atomic_load_explicit(&r->status, memory_order_relaxed) != NYX_OK) break;
    for (int64_t x = 0; x < wx->out; x = next) {
      int64_t j[2], same[2];
      taps_at(wx, x, j);
      for (next = x + 1; next < wx->out; next++) {
        taps_at(wx, next, same);
        if (same[0] != j[0] || same[1] != j[1]) break;
      }
      run_places(r, n, y, x, next, j, list, list + r->taps);
    }
    nyx__epilogue_there(s->after, s->dtype,
                        s->y + (n * s->y_image + y * s->y_row) * r->item, wx->out,
                        s->groups, s->y_pixel);
  }
  nyx_memory_free(list);
}

nyx_status nyx__depthwise_last(const nyx__last_sum *s) {
  depthwise_run r = {.s = s,
                     .last = kernel_of(s->dtype),
                     .item = (int64_t)nyx_dtype_size(s->dtype),
                     .taps = s->window[0].kernel * s->window[1].kernel};
  atomic_init(&r.status, NYX_OK);
  size_t bytes = (size_t)(r.taps * s->groups * r.item);
  if (!(r.weight = nyx_memory_alloc(bytes))) return nyx__no_memory(s->ctx, bytes);
  turn_weight(&r);
  double work = (double)(s->window[1].out * s->groups) * (double)r.taps;
  nyx_parallel_for(s->images * s->window[0].out, nyx__last_grain(work, RANGE_WORK),
                   run_rows, &r);
  nyx_memory_free(r.weight);
  return nyx__last_finish(s->ctx, &r.status, (size_t)r.taps * 2 * sizeof(void *));
}

/* The adjoint with respect to the weight */

typedef struct weight_run {
  nyx_context *ctx;
  const nyx__conv *v;
  const nyx_last_kernel *last;
  int64_t item, taps;
  const char *x, *y;
  char *weight; /* channels x taps */
  atomic_int status;
} weight_run;

/* Adds what row y of image n has for channels c0.. to sum, taps x count. */
static void add_row(const weight_run *w, int64_t n, int64_t y, int64_t c0, int64_t count,
                    char *sum) {
  const nyx__window *wy = &w->v->window[0], *wx = &w->v->window[1];
  int64_t x_pixel = w->v->x_pixel, y_pixel = w->v->y_pixel, lo, hi;
  const char *g = w->y + ((n * wy->out + y) * wx->out * y_pixel + c0) * w->item;
  for (int64_t t = 0; t < w->taps; t++, sum += count * w->item) {
    int64_t at_y = y * wy->stride - wy->pad + t / wx->kernel * wy->dilation;
    if (at_y < 0 || at_y >= wy->in) continue;
    nyx__window_inside(wx, t % wx->kernel, &lo, &hi);
    int64_t at_x = lo * wx->stride - wx->pad + t % wx->kernel * wx->dilation;
    const char *x =
        w->x + (((n * wy->in + at_y) * wx->in + at_x) * x_pixel + c0) * w->item;
    w->last->products(x, wx->stride * x_pixel, g + lo * y_pixel * w->item, y_pixel,
                      hi - lo, count, sum);
  }
}

/* Units are CHANNELS channels. */
static void weight_units(void *arg, int64_t begin, int64_t end) {
  weight_run *w = arg;
  int64_t channels = w->v->in_channels, rows = w->v->images * w->v->window[0].out;
  size_t bytes = (size_t)(w->taps * CHANNELS * w->item);
  char *sum = nyx_memory_alloc(bytes);
  if (!sum) {
    atomic_store(&w->status, NYX_ERR_MEMORY);
    return;
  }
  for (int64_t i = begin; i < end; i++) {
    int64_t c0 = i * CHANNELS;
    int64_t count = channels - c0 < CHANNELS ? channels - c0 : CHANNELS;
    memset(sum, 0, bytes);
    for (int64_t row = 0; row < rows; row++) {
      if (nyx__interrupted(w->ctx)) atomic_store(&w->status, NYX_ERR_INTERRUPTED);
      if (atomic_load_explicit(&w->status, memory_order_relaxed) != NYX_OK) break;
      add_row(w, row / w->v->window[0].out, row % w->v->window[0].out, c0, count, sum);
    }
    for (int64_t t = 0; t < w->taps; t++)
      move(w->weight + (c0 * w->taps + t) * w->item, w->taps, sum + t * count * w->item,
           1, count, w->item);
  }
  nyx_memory_free(sum);
}

nyx_status nyx__depthwise_last_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                      const void *x, void *weight) {
  weight_run w = {.ctx = ctx,
                  .v = v,
                  .last = kernel_of(v->dtype),
                  .item = (int64_t)nyx_dtype_size(v->dtype),
                  .taps = v->window[0].kernel * v->window[1].kernel,
                  .x = x,
                  .y = y,
                  .weight = weight};
  atomic_init(&w.status, NYX_OK);
  double work = (double)(v->images * v->window[0].out * v->window[1].out) *
                (double)(w.taps * CHANNELS);
  nyx_parallel_for((v->in_channels + CHANNELS - 1) / CHANNELS,
                   nyx__last_grain(work, RANGE_WORK), weight_units, &w);
  return nyx__last_finish(ctx, &w.status, (size_t)(w.taps * CHANNELS * w.item));
}
