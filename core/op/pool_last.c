/* Pooling of channels-last images: all channels of a place at once. Units are rows of the
 * result; of an adjoint, some channels of an image, whose windows may overlap. Read next:
 * kernels/cpu/last.h, pool.c. */
#include "pool_last.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/last.h"

#define RANGE_WORK 65536 /* elements worth waking a thread for */
#define CHANNELS 64      /* of a unit of an adjoint */

typedef struct pool_run {
  const nyx__window *w;
  const nyx_last_kernel *last;
  int64_t item, images, channels, blocks; /* blocks: of channels */
  int64_t pixel; /* elements from one place of `from` to the next */
  const char *from;
  char *to;
  int64_t *index; /* of max_pool2d: positions in the plane, counted from base */
  int64_t base;
  const nyx_pool_box *const *box;
  atomic_bool no_memory;
} pool_run;

/* Calls fn for `units` with channels-last data of a computed dtype. */
static nyx_status run(nyx_call *c, pool_run *r, nyx_range_fn fn, int64_t units,
                      int64_t work) {
  nyx_dtype dtype = c->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  nyx_tensor *in, *out;
  NYX_TRY(nyx__last_as(c->ctx, c->in[0], dtype, &r->pixel, &in));
  nyx_status status = nyx__last_as(c->ctx, c->out[0], dtype, NULL, &out);
  if (status == NYX_OK) {
    r->last = &nyx__cpu_kernels()->last->type[dtype == NYX_FLOAT64];
    r->item = (int64_t)nyx_dtype_size(dtype);
    r->from = nyx__data(in);
    r->to = nyx__data(out);
    atomic_init(&r->no_memory, false);
    status = nyx__parallel_for(c->ctx, units, RANGE_WORK / (work + 1) + 1, fn, r);
    if (status == NYX_OK && atomic_load(&r->no_memory))
      status = nyx__no_memory(c->ctx, sizeof(void *));
    if (status == NYX_OK && out != c->out[0])
      status = nyx__copy_into(c->ctx, out, c->out[0]);
    nyx_tensor_release(out);
  }
  nyx_tensor_release(in);
  return status;
}

static pool_run start(const nyx_call *c, const nyx__window *w) {
  return (pool_run){.w = w,
                    .images = c->in[0]->shape[0],
                    .channels = c->in[0]->shape[1],
                    .base = c->ctx->index_base};
}

/* The taps *lo..*hi-1 of output o that are inside, and where the first would be. */
static int64_t inside(const nyx__window *w, int64_t o, int64_t *lo, int64_t *hi) {
  int64_t first = o * w->stride - w->pad;
  *lo = first < 0 ? (-first + w->dilation - 1) / w->dilation : 0;
  *hi = first >= w->in ? 0 : (w->in - 1 - first) / w->dilation + 1;
  if (*hi > w->kernel) *hi = w->kernel;
  return first;
}

/* Lists the places that output (oy, ox) sees, and their positions in the plane. */
static int64_t find_taps(const pool_run *r, int64_t n, int64_t oy, int64_t ox,
                         const void **x, int32_t *at) {
  const nyx__window *wy = &r->w[0], *wx = &r->w[1];
  int64_t y_lo, y_hi, x_lo, x_hi, taps = 0;
  int64_t y = inside(wy, oy, &y_lo, &y_hi), left = inside(wx, ox, &x_lo, &x_hi);
  for (int64_t i = y_lo; i < y_hi; i++) {
    int64_t row = (y + i * wy->dilation) * wx->in;
    for (int64_t j = x_lo; j < x_hi; j++) {
      int64_t place = row + left + j * wx->dilation;
      at[taps] = (int32_t)place;
      x[taps++] = r->from + (n * wy->in * wx->in + place) * r->pixel * r->item;
    }
  }
  return taps;
}

/* A window that sees nothing: all of a small plane lies in a gap of it. */
static void fill_lowest(const pool_run *r, int64_t at) {
  for (int64_t c = 0; c < r->channels; c++) {
    if (r->item == (int64_t)sizeof(float))
      ((float *)(void *)r->to)[at + c] = -(float)__builtin_inff();
    else
      ((double *)(void *)r->to)[at + c] = -__builtin_inf();
    r->index[at + c] = r->base;
  }
}

static void max_rows(void *arg, int64_t begin, int64_t end) {
  pool_run *r = arg;
  const nyx__window *wy = &r->w[0], *wx = &r->w[1];
  size_t most = (size_t)(wy->kernel < wy->in ? wy->kernel : wy->in) *
                (size_t)(wx->kernel < wx->in ? wx->kernel : wx->in);
  const void **x = nyx_memory_alloc(most * (sizeof *x + sizeof(int32_t)));
  if (!x) {
    atomic_store(&r->no_memory, true);
    return;
  }
  int32_t *at = (int32_t *)(void *)(x + most);
  for (int64_t row = begin; row < end; row++) {
    for (int64_t ox = 0; ox < wx->out; ox++) {
      int64_t to = (row * wx->out + ox) * r->channels;
      int64_t taps = find_taps(r, row / wy->out, row % wy->out, ox, x, at);
      if (taps > 0)
        r->last->max(x, at, taps, r->channels, r->base, r->to + to * r->item,
                     r->index + to);
      else
        fill_lowest(r, to);
    }
  }
  nyx_memory_free(x);
}

nyx_status nyx__max_pool_last(nyx_call *c, const nyx__window w[2]) {
  pool_run r = start(c, w);
  if (c->out[0]->numel == 0) return NYX_OK;
  r.index = nyx__data(c->out[1]);
  return run(c, &r, max_rows, r.images * w[0].out,
             w[1].out * r.channels * w[0].kernel * w[1].kernel);
}

/* The box of output (oy, ox) at the place it begins at, of places `pixel` elements
 * apart; false: empty. */
static bool box_at(const pool_run *r, int64_t n, int64_t oy, int64_t ox, int64_t pixel,
                   int64_t *first, nyx_last_box *box) {
  nyx_pool_box by = r->box[0][oy], bx = r->box[1][ox];
  *box = (nyx_last_box){.rows = by.hi - by.lo,
                        .row_step = r->w[1].in * pixel,
                        .cols = bx.hi - bx.lo,
                        .col_step = pixel};
  *first = ((n * r->w[0].in + by.lo) * r->w[1].in + bx.lo) * pixel;
  return box->rows > 0 && box->cols > 0;
}

static void average_rows(void *arg, int64_t begin, int64_t end) {
  const pool_run *r = arg;
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / r->w[0].out, oy = row % r->w[0].out, first;
    char *to = r->to + row * r->w[1].out * r->channels * r->item;
    for (int64_t ox = 0; ox < r->w[1].out; ox++, to += r->channels * r->item) {
      nyx_last_box box;
      double divisor = r->box[0][oy].scale * r->box[1][ox].scale;
      if (!box_at(r, n, oy, ox, r->pixel, &first, &box)) box.rows = first = 0;
      r->last->average(r->from + first * r->item, &box, r->channels, divisor, to);
    }
  }
}

/* Units are (image, block of channels). */
static void spread_units(void *arg, int64_t begin, int64_t end) {
  const pool_run *r = arg;
  int64_t plane = r->w[0].in * r->w[1].in, positions = r->w[0].out * r->w[1].out;
  for (int64_t i = begin; i < end; i++) {
    int64_t n = i / r->blocks, c = i % r->blocks * CHANNELS, first;
    int64_t count = r->channels - c < CHANNELS ? r->channels - c : CHANNELS;
    char *image = r->to + (n * plane * r->channels + c) * r->item;
    for (int64_t q = 0; q < plane; q++)
      memset(image + q * r->channels * r->item, 0, (size_t)(count * r->item));
    for (int64_t q = 0; q < positions; q++) {
      nyx_last_box box;
      int64_t oy = q / r->w[1].out, ox = q % r->w[1].out;
      if (!box_at(r, n, oy, ox, r->channels, &first, &box)) continue;
      r->last->spread(r->from + ((n * positions + q) * r->pixel + c) * r->item, &box,
                      count, r->box[0][oy].scale * r->box[1][ox].scale,
                      r->to + (first + c) * r->item);
    }
  }
}

nyx_status nyx__average_last(nyx_call *c, const nyx__window w[2],
                             const nyx_pool_box *const box[2], bool adjoint) {
  pool_run r = start(c, w);
  r.box = box;
  if (c->out[0]->numel == 0) return NYX_OK;
  int64_t work = w[0].in * w[1].in + w[0].out * w[1].out;
  r.blocks = (r.channels + CHANNELS - 1) / CHANNELS;
  if (adjoint) return run(c, &r, spread_units, r.images * r.blocks, work * CHANNELS);
  return run(c, &r, average_rows, r.images * w[0].out,
             work / (w[0].out + 1) * r.channels);
}
