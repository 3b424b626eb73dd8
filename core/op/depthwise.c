/* Depthwise convolutions on the CPU, shared among threads: units are a channel of an
 * image, or a channel of all images where they are summed, so that results do not depend
 * on the number of threads. Read next: kernels/cpu/depthwise.h. */
#include "depthwise.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"

#define RANGE_WORK ((double)(1 << 17)) /* multiplications worth waking a thread for */
#define MOST_OUTPUTS 4                 /* more are a matrix product's */

typedef struct depthwise_run {
  nyx_context *ctx;
  const nyx_depthwise_kernel *kernel;
  nyx_depthwise d;
  nyx_depthwise_mode mode;
  nyx_dtype dtype;
  const nyx_epilogue *after;
  int64_t item, images, channels;
  char *x, *weight, *y;
  const char *bias;
  size_t scratch;
  atomic_int status;
} depthwise_run;

static nyx_depthwise sizes(const nyx__conv *v) {
  nyx_depthwise d = {.outputs = v->out_channels / v->groups};
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &v->window[i];
    d.in[i] = w->in;
    d.kernel[i] = w->kernel;
    d.stride[i] = w->stride;
    d.pad[i] = w->pad;
    d.dilation[i] = w->dilation;
    d.out[i] = w->out;
  }
  return d;
}

static const nyx_depthwise_kernel *kernel_of(nyx_dtype dtype) {
  return &nyx__cpu_kernels()->depthwise->type[dtype == NYX_FLOAT64];
}

bool nyx__depthwise_takes(const nyx__conv *v, nyx_depthwise_mode mode) {
  if (v->in_channels != v->groups || v->out_channels / v->groups > MOST_OUTPUTS) {
    return false;
  }
  nyx_depthwise d = sizes(v);
  if (d.outputs == 0) return false;
  for (int i = 0; i < 2; i++)
    if (d.in[i] == 0 || d.out[i] == 0) return false;
  return kernel_of(v->dtype)->scratch(&d, mode) > 0;
}

double nyx__depthwise_cycles(const nyx__conv *v, nyx_depthwise_mode mode) {
  nyx_depthwise d = sizes(v);
  return (double)v->images * (double)v->in_channels *
         kernel_of(v->dtype)->cycles(&d, mode);
}

static bool going(depthwise_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

/* What channel c of image n is made of. */
static nyx_depthwise_planes planes_at(const depthwise_run *r, int64_t n, int64_t c) {
  const nyx_depthwise *d = &r->d;
  int64_t x_plane = d->in[0] * d->in[1] * r->item;
  int64_t y_planes = d->outputs * d->out[0] * d->out[1] * r->item;
  int64_t weights = d->outputs * d->kernel[0] * d->kernel[1] * r->item;
  return (nyx_depthwise_planes){
      .x = r->x + (n * r->channels + c) * x_plane,
      .y = r->y + (n * r->channels + c) * y_planes,
      .weight = r->weight + c * weights,
      .x_limit = r->x + r->images * r->channels * x_plane,
      .y_limit = r->y + r->images * r->channels * y_planes,
      .bias = r->bias ? r->bias + c * d->outputs * r->item : NULL};
}

static void run_planes(depthwise_run *r, int64_t begin, int64_t end, void *scratch) {
  int64_t n = begin / r->channels, c = begin % r->channels;
  int64_t plane = r->d.outputs * r->d.out[0] * r->d.out[1];
  for (int64_t i = begin; i < end && going(r); i++) {
    nyx_depthwise_planes p = planes_at(r, n, c);
    r->kernel->run[r->mode](&p, scratch);
    nyx__epilogue_there(r->after, r->dtype, p.y, 1, plane, plane);
    if (++c == r->channels) n++, c = 0;
  }
}

/* Channels, each over all images in order. */
static void run_channels(depthwise_run *r, int64_t begin, int64_t end, void *scratch) {
  int64_t weights = r->d.outputs * r->d.kernel[0] * r->d.kernel[1];
  for (int64_t c = begin; c < end; c++) {
    memset(r->weight + c * weights * r->item, 0, (size_t)(weights * r->item));
    for (int64_t n = 0; n < r->images && going(r); n++) {
      nyx_depthwise_planes p = planes_at(r, n, c);
      r->kernel->run[r->mode](&p, scratch);
    }
  }
}

static void run_range(void *arg, int64_t begin, int64_t end) {
  depthwise_run *r = arg;
  void *scratch = nyx_memory_alloc(r->scratch);
  if (!scratch) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return;
  }
  r->kernel->prepare(&r->d, r->mode, scratch);
  if (r->mode == NYX_DEPTHWISE_WEIGHT) {
    run_channels(r, begin, end, scratch);
  } else {
    run_planes(r, begin, end, scratch);
  }
  nyx_memory_free(scratch);
}

static nyx_status run(nyx_context *ctx, const nyx__conv *v, nyx_depthwise_mode mode,
                      const void *x, const void *weight, const void *bias,
                      const void *y) {
  depthwise_run r = {.ctx = ctx,
                     .kernel = kernel_of(v->dtype),
                     .d = sizes(v),
                     .mode = mode,
                     .dtype = v->dtype,
                     .after = v->after,
                     .item = (int64_t)nyx_dtype_size(v->dtype),
                     .images = v->images,
                     .channels = v->in_channels,
                     .x = (char *)x, /* each mode writes its own result only */
                     .weight = (char *)weight,
                     .y = (char *)y,
                     .bias = bias};
  atomic_init(&r.status, NYX_OK);
  r.scratch = r.kernel->scratch(&r.d, mode);
  int64_t units = v->in_channels;
  double work = (double)(r.d.out[0] * r.d.out[1]) *
                (double)(r.d.kernel[0] * r.d.kernel[1]) * (double)r.d.outputs;
  if (mode == NYX_DEPTHWISE_WEIGHT) {
    work *= (double)v->images;
  } else {
    units *= v->images;
  }
  int64_t grain = work < RANGE_WORK ? (int64_t)(RANGE_WORK / (work + 1)) : 1;
  nyx_parallel_for(units, grain > 0 ? grain : 1, run_range, &r);
  switch (atomic_load(&r.status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(ctx, INTERRUPTED);
    default: return nyx__no_memory(ctx, r.scratch);
  }
}

nyx_status nyx__depthwise_forward(nyx_context *ctx, const nyx__conv *v, const void *x,
                                  const void *weight, const void *bias, void *y) {
  return run(ctx, v, NYX_DEPTHWISE_FORWARD, x, weight, bias, y);
}

nyx_status nyx__depthwise_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                                const void *weight, void *x) {
  return run(ctx, v, NYX_DEPTHWISE_INPUT, x, weight, NULL, y);
}

nyx_status nyx__depthwise_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                                 const void *x, void *weight) {
  return run(ctx, v, NYX_DEPTHWISE_WEIGHT, x, weight, NULL, y);
}
