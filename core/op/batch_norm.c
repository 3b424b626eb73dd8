/* batch_norm: in training a fused op with the batch's own statistics, which also updates
 * the running ones; in evaluation elementwise ops with the running ones, the last of
 * which is one pass of its own where nothing else is asked for. Read next: norm.c (the
 * gradient with ops), kernels/cpu/norm_rows.h. */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../device/device.h"
#include "../grad/graph.h"
#include "index.h"
#include "norm.h"
#include "softmax.h"

#define RANGE_WORK 16384 /* elements worth waking a thread for */
/* Planes (one channel of one image) smaller than this are gathered first. */
#define LEAST_PLANE 16
/* Known statistics: from here on planes gain by a call for each. */
#define LEAST_SCALED 48
#define PIECE 16384           /* elements of a plane that one thread takes */
#define PAST_BYTES (16 << 20) /* results from here on are written past the caches */
#define PAST_PLANE 256        /* elements: of planes that are mostly whole lines */
#define BLOCK 512             /* of them at a time */

/* (images, channels, plane): how a tensor is seen here. */
typedef struct planes {
  int64_t images, channels, plane;
  bool gathered; /* copied to (channels, images * plane), seen as one image */
  bool last;     /* planes of one place: the images are places of one, channels last */
} planes;

static planes seen_whole(const nyx_tensor *x) {
  planes p = {.images = x->shape[0], .channels = x->shape[1], .plane = 1};
  for (int d = 2; d < x->ndim; d++) p.plane *= x->shape[d];
  return p;
}

static planes planes_of(const nyx_tensor *x) {
  planes p = seen_whole(x);
  p.last = p.plane == 1;
  if (p.plane < LEAST_PLANE && p.images > 1 && !p.last) {
    p.gathered = true;
    p.plane *= p.images;
    p.images = 1;
  }
  return p;
}

/* t (contiguous, shaped like x) with channels first, as a view. */
static nyx_status channels_first(nyx_context *ctx, nyx_tensor *t, nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec_of(t, &spec);
  for (int d = 0; d < 2; d++) {
    spec.shape[d] = t->shape[1 - d];
    spec.stride[d] = t->stride[1 - d];
  }
  return nyx__tensor_view(ctx, t->storage, &spec, out);
}

/* A contiguous version as `planes` sees it; t itself, retained, when nothing moves. */
static nyx_status gather_planes(nyx_context *ctx, const planes *p, nyx_tensor *t,
                                nyx_tensor **out) {
  if (!p->gathered) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  nyx_tensor *view;
  NYX_TRY(channels_first(ctx, t, &view));
  nyx_status status = nyx__contiguous(ctx, view, out);
  nyx_tensor_release(view);
  return status;
}

/* A place for a result like `to`: `to` itself, retained, or a tensor that scatter_planes
 * copies there. */
static nyx_status result_planes(nyx_context *ctx, const planes *p, nyx_tensor *to,
                                nyx_tensor **out) {
  if (!p->gathered) {
    *out = nyx_tensor_retain(to);
    return NYX_OK;
  }
  int64_t shape[NYX_MAX_DIMS];
  memcpy(shape, to->shape, sizeof shape);
  shape[0] = to->shape[1];
  shape[1] = to->shape[0];
  return nyx_tensor_empty(ctx, to->dtype, to->ndim, shape, out);
}

static nyx_status scatter_planes(nyx_context *ctx, const planes *p, nyx_tensor *from,
                                 nyx_tensor *to) {
  if (!p->gathered) return NYX_OK;
  nyx_tensor *view;
  NYX_TRY(channels_first(ctx, to, &view));
  nyx_status status = nyx__copy_into(ctx, from, view);
  nyx_tensor_release(view);
  return status;
}

/* One computation, shared by the threads; units are channels. */
typedef struct batch_run {
  planes p;
  const nyx_norm_kernel *kernel;
  const nyx_softmax_kernel *moments;
  nyx_dtype dtype;
  size_t item;
  double eps, count; /* elements per channel */
  const char *x, *g;
  char *y;
  const char *weight, *bias, *mean_in, *rstd_in;
  char *mean, *rstd; /* of the forward pass */
  char *weight_out, *bias_out;
  double *variance;             /* per channel, times count */
  const nyx_move_kernels *past; /* NULL: y stays in the caches */
} batch_run;

static batch_run start(const planes *p, nyx_dtype dtype) {
  return (batch_run){.p = *p,
                     .kernel = nyx__norm_kernel(dtype),
                     .moments = nyx__softmax_kernel(dtype),
                     .dtype = dtype,
                     .item = nyx_dtype_size(dtype),
                     .count = (double)p->images * (double)p->plane};
}

static double get(const batch_run *r, const char *array, int64_t c) {
  return nyx__load_double(r->dtype, array + (size_t)c * r->item);
}

static void set(const batch_run *r, char *array, int64_t c, double value) {
  nyx__store_double(r->dtype, array + (size_t)c * r->item, value);
}

static size_t plane_at(const batch_run *r, int64_t image, int64_t c) {
  return (size_t)((image * r->p.channels + c) * r->p.plane) * r->item;
}

static void *data_of(const nyx_tensor *t) {
  return t ? nyx__data(t) : NULL;
}

static void run(batch_run *r, nyx_range_fn fn) {
  int64_t work = r->p.images * r->p.plane;
  nyx_parallel_for(r->p.channels, RANGE_WORK / (work + 1) + 1, fn, r);
}

static void forward_channels(void *arg, int64_t begin, int64_t end) {
  const batch_run *r = arg;
  double size = (double)r->p.plane;
  for (int64_t c = begin; c < end; c++) {
    /* Chan, Golub, LeVeque: "Algorithms for computing the sample variance", 1983 */
    double mean = 0, squares = 0, count = 0;
    for (int64_t n = 0; n < r->p.images; n++) {
      double plane_mean, plane_squares;
      r->moments->moments(r->x + plane_at(r, n, c), r->p.plane, &plane_mean,
                          &plane_squares);
      double delta = plane_mean - mean;
      squares += plane_squares + delta * delta * size * count / (count + size);
      count += size;
      mean += delta * size / count;
    }
    double rstd = 1 / sqrt(squares / r->count + r->eps);
    r->variance[c] = squares;
    set(r, r->mean, c, mean);
    set(r, r->rstd, c, rstd);
    double scale = r->weight ? rstd * get(r, r->weight, c) : rstd;
    double shift = r->bias ? get(r, r->bias, c) : 0;
    for (int64_t n = 0; n < r->p.images; n++) {
      size_t at = plane_at(r, n, c);
      r->kernel->normalize(r->x + at, r->p.plane, mean, scale, NULL, NULL, shift,
                           r->y + at);
    }
  }
}

static void backward_channels(void *arg, int64_t begin, int64_t end) {
  const batch_run *r = arg;
  for (int64_t c = begin; c < end; c++) {
    double mean = get(r, r->mean_in, c), rstd = get(r, r->rstd_in, c), sum = 0, dot = 0;
    for (int64_t n = 0; n < r->p.images; n++) {
      size_t at = plane_at(r, n, c);
      r->kernel->sums(r->g + at, r->x + at, NULL, r->p.plane, mean, &sum, &dot);
    }
    set(r, r->weight_out, c, dot * rstd);
    set(r, r->bias_out, c, sum);
    /* weight * rstd * (g - mean(g) - hat * mean(g * hat)) */
    double p = r->weight ? rstd * get(r, r->weight, c) : rstd;
    double q = -p * rstd * rstd * dot / r->count, s = -p * sum / r->count;
    const nyx_norm_row row = {mean, p, q, s};
    for (int64_t n = 0; n < r->p.images; n++) {
      size_t at = plane_at(r, n, c);
      r->kernel->backward(r->g + at, r->x + at, NULL, r->p.plane, 1, 0, &row, r->y + at,
                          0, NULL, NULL, true);
    }
  }
}

/* running = running + momentum * (value - running), for both; value is known in r. */
static void update_running(nyx_tensor *running, const batch_run *r, double momentum,
                           bool variance) {
  if (!running) return;
  size_t item = nyx_dtype_size(running->dtype);
  char *data = nyx__data(running);
  for (int64_t c = 0; c < r->p.channels; c++) {
    char *at = data + c * running->stride[0] * (int64_t)item;
    double old = nyx__load_double(running->dtype, at);
    double value = variance ? r->variance[c] / (r->count - 1) : get(r, r->mean, c);
    nyx__store_double(running->dtype, at, old + momentum * (value - old));
  }
  nyx_tensor_touch(running);
}

/* What r is for channels-last images of the same data. */
static nyx__norm_last as_last(nyx_context *ctx, const batch_run *r) {
  return (nyx__norm_last){.ctx = ctx,
                          .dtype = r->dtype,
                          .images = 1,
                          .places = (int64_t)r->count,
                          .channels = r->p.channels,
                          .groups = r->p.channels,
                          .x = r->x,
                          .g = r->g,
                          .y = r->y,
                          .weight = r->weight,
                          .bias = r->bias,
                          .mean_in = r->mean_in,
                          .rstd_in = r->rstd_in,
                          .mean = r->mean,
                          .rstd = r->rstd,
                          .weight_out = r->weight_out,
                          .bias_out = r->bias_out,
                          .eps = r->eps,
                          .variance = r->variance};
}

static nyx_status check_channels(nyx_call *c, const char *const names[], int first,
                                 int last) {
  const nyx_tensor *x = c->in[0];
  if (x->ndim < 2) return nyx__error(c->ctx, NORM_CHANNELS, NYX__SHAPE(x));
  for (int i = first; i < last; i++) {
    nyx_tensor *t = c->in[i];
    if (!t) continue;
    NYX_TRY(nyx__shape_check(c->ctx, names[i], t, 1, &x->shape[1]));
    if (!nyx_dtype_is_float(t->dtype)) {
      return nyx__error(c->ctx, DTYPE_INPUT, names[i], nyx_dtype_name(t->dtype),
                        "a float dtype");
    }
  }
  return NYX_OK;
}

static const char *const names[] = {"x", "weight", "bias", "running_mean", "running_var"};

/* batch_norm_training */

static nyx_dtype compute_dtype(nyx_dtype dtype) {
  return dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
}

static nyx_status infer_training(nyx_call *c) {
  NYX_TRY(check_channels(c, names, 1, 5));
  const nyx_tensor *x = c->in[0];
  if (x->shape[1] > 0 && x->numel / x->shape[1] < 2) {
    return nyx__error(c->ctx, NORM_ONE, NYX__SHAPE(x));
  }
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  nyx__spec_images(&c->spec[0], x);
  nyx__spec(&c->spec[1], compute_dtype(c->dtype), 1, &x->shape[1]);
  nyx__spec(&c->spec[2], compute_dtype(c->dtype), 1, &x->shape[1]);
  return NYX_OK;
}

static nyx_status cpu_training(nyx_call *c) {
  planes p = planes_of(c->in[0]);
  nyx__norm_data data;
  NYX_TRY(nyx__norm_open(c, 3, &data));
  if (data.last) p.last = true, p.gathered = false; /* places are one after the other */
  batch_run r = start(&p, data.dtype);
  size_t bytes = (size_t)p.channels * sizeof(double);
  nyx_tensor *x = NULL, *y = NULL;
  nyx_status status = gather_planes(c->ctx, &p, data.in[0], &x);
  if (status == NYX_OK) status = result_planes(c->ctx, &p, data.out[0], &y);
  if (status == NYX_OK && !(r.variance = nyx_memory_alloc(bytes))) {
    status = nyx__no_memory(c->ctx, bytes);
  }
  if (status == NYX_OK) {
    r.eps = c->attr[1].f;
    r.x = data_of(x);
    r.y = data_of(y);
    r.weight = data_of(data.in[1]);
    r.bias = data_of(data.in[2]);
    r.mean = data_of(data.out[1]);
    r.rstd = data_of(data.out[2]);
    if (p.last) {
      const nyx__norm_last last = as_last(c->ctx, &r);
      status = nyx__norm_last_forward(&last);
    } else {
      run(&r, forward_channels);
    }
    if (status == NYX_OK) status = scatter_planes(c->ctx, &p, y, data.out[0]);
  }
  status = nyx__norm_close(c, &data, status);
  if (status == NYX_OK) {
    r.mean = data_of(c->out[1]);
    update_running(c->in[3], &r, c->attr[0].f, false);
    update_running(c->in[4], &r, c->attr[0].f, true);
  }
  nyx_memory_free(r.variance);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return status;
}

/* t in another shape and dtype: given. */
static nyx_status converted(nyx_context *ctx, nyx_tensor *t, const nyx_spec *spec,
                            nyx_tensor **out) {
  nyx_tensor *shaped;
  const nyx_value shape = NYX_LIST(spec->shape, spec->ndim), dtype = NYX_I(spec->dtype);
  size_t bytes = (size_t)spec->ndim * sizeof *spec->shape;
  if (t->ndim == spec->ndim && memcmp(t->shape, spec->shape, bytes) == 0)
    return nyx__to_dtype(ctx, t, spec->dtype, out);
  NYX_TRY(nyx__apply1(ctx, NYX__OP_reshape, t, &shape, &shaped));
  if (shaped->dtype == spec->dtype) {
    *out = shaped;
    return NYX_OK;
  }
  nyx_status status = nyx__apply1(ctx, NYX__OP_cast, shaped, &dtype, out);
  nyx_tensor_release(shaped);
  return status;
}

/* (channels, 1, ..., 1): what broadcasts against x. */
static nyx_spec channel_spec(const nyx_spec *x) {
  nyx_spec spec = {.dtype = compute_dtype(x->dtype), .ndim = x->ndim - 1};
  for (int d = 0; d < spec.ndim; d++) spec.shape[d] = d == 0 ? x->shape[1] : 1;
  return spec;
}

/* *gradient += what the gradients of the mean and of rstd give for x. */
static nyx_status add_statistics(nyx_backward *b, nyx_tensor **gradient) {
  nyx_context *ctx = b->ctx;
  nyx_spec spec = channel_spec(&b->in_spec[0]);
  nyx_tensor *x = b->in[0], *in[4] = {NULL}, *sum = NULL;
  nyx_tensor *from[4] = {b->grad_out[1], b->grad_out[2], b->out[1], b->out[2]};
  double count[2] = {1, 0};
  for (int d = 0; d < x->ndim; d++) count[0] *= d == 1 ? 1 : (double)x->shape[d];
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 4; i++) {
    if (from[i]) status = converted(ctx, from[i], &spec, &in[i]);
  }
  if (status == NYX_OK && in[0]) {
    status =
        nyx__evaluate(ctx, "x + y / p",
                      (nyx_tensor *[]){NULL, *gradient, in[0], NULL, NULL}, count, &sum);
    if (status == NYX_OK) {
      nyx_tensor_release(*gradient);
      *gradient = sum;
    }
  }
  if (status == NYX_OK && in[1]) { /* d rstd / dx = -rstd^3 (x - mean) / count */
    nyx_tensor *centered = NULL;
    status = nyx__apply2(ctx, NYX__OP_sub, x, in[2], NULL, &centered);
    if (status == NYX_OK) {
      status = nyx__evaluate(ctx, "x - g * (r * r * r * y / p)",
                             (nyx_tensor *[]){in[1], *gradient, centered, NULL, in[3]},
                             count, &sum);
    }
    nyx_tensor_release(centered);
    if (status == NYX_OK) {
      nyx_tensor_release(*gradient);
      *gradient = sum;
    }
  }
  for (int i = 0; i < 4; i++) nyx_tensor_release(in[i]);
  return status;
}

static nyx_status gradient_by_ops(nyx_backward *b, nyx_tensor *g) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *x = b->in[0], *grad[3] = {NULL};
  nyx__norm norm = {.x = x, .weight = b->in[1], .center = true, .eps = b->attr[1].f};
  for (int d = 0; d < x->ndim; d++) {
    if (d != 1) norm.dims[norm.n_dims++] = d;
  }
  norm.parameter = channel_spec(&b->in_spec[0]);
  nyx__norm_wanted wanted = {.x = b->need[0] ? &grad[0] : NULL,
                             .weight = b->need[1] ? &grad[1] : NULL,
                             .bias = b->need[2] ? &grad[2] : NULL};
  nyx_status status = nyx__norm_gradient(ctx, &norm, g, &wanted);
  if (status == NYX_OK && b->need[0]) status = add_statistics(b, &grad[0]);
  for (int i = 0; i < 3; i++) {
    if (status == NYX_OK && grad[i]) {
      status = converted(ctx, grad[i], &b->in_spec[i], &b->grad_in[i]);
    }
    nyx_tensor_release(grad[i]);
  }
  return status;
}

static nyx_status gradient_training(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *g = b->grad_out[0];
  if (ctx->grad_enabled || b->grad_out[1] || b->grad_out[2] || !g) {
    nyx_tensor *zeros = NULL;
    if (!g) NYX_TRY(nyx__zeros(ctx, b->in[0], &b->out_spec[0], &zeros));
    nyx_status status = gradient_by_ops(b, g ? g : zeros);
    nyx_tensor_release(zeros);
    return status;
  }
  NYX_TRY(nyx__layout_of(ctx, g, &b->out_spec[0], &g));
  nyx_tensor *in[] = {g, b->in[0], b->out[1], b->out[2], b->in[1]};
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_status status = nyx_apply(ctx, &nyx__op_batch_norm_backward, in, 5, NULL, out);
  nyx_tensor_release(g);
  if (status != NYX_OK) return status;
  for (int i = 0; i < 3; i++) {
    if (status == NYX_OK && b->need[i]) {
      status = converted(ctx, out[i], &b->in_spec[i], &b->grad_in[i]);
    }
    nyx_tensor_release(out[i]);
  }
  return status;
}

static const nyx_attr training_attrs[] = {
    {.name = "momentum",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 0.1, .given = true},
     .doc = "how much of the new statistics goes into the running ones"},
    {.name = "eps",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 1e-5, .given = true},
     .doc = "added to the variance"}};

const nyx_op nyx__op_batch_norm_training = {
    .name = "batch_norm_training",
    .group = "normalization",
    .doc =
        "batch_norm with the batch's own statistics; also gives each channel's mean and "
        "1 "
        "/ sqrt(variance + eps), and updates running_mean and running_var in place",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight bias running_mean running_var",
    .min_in = 1,
    .max_in = 5,
    .attrs = training_attrs,
    .n_attrs = 2,
    .state_in = NYX_SAVE(3) | NYX_SAVE(4),
    .n_out = 3,
    .infer = infer_training,
    .cpu = cpu_training,
    .gradient = gradient_training,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .save_out = NYX_SAVE(1) | NYX_SAVE(2),
    .cases =
        "x(4,3) weight(3) bias(3)\n"
        "x(2,3,2,2)\n"
        "x(3,2,4,5) weight(2)",
};

/* batch_norm_backward */

static nyx_status infer_backward(nyx_call *c) {
  const nyx_tensor *g = c->in[0], *x = c->in[1];
  static const char *const parameters[] = {"mean", "rstd", "weight"};
  if (x->ndim < 2) return nyx__error(c->ctx, NORM_CHANNELS, NYX__SHAPE(x));
  NYX_TRY(nyx__shape_check(c->ctx, "grad", g, x->ndim, x->shape));
  for (int i = 2; i < 5; i++) {
    if (!c->in[i]) continue;
    NYX_TRY(nyx__shape_check(c->ctx, parameters[i - 2], c->in[i], 1, &x->shape[1]));
  }
  nyx__spec(&c->spec[0], x->dtype, x->ndim, x->shape);
  nyx__spec_images(&c->spec[0], x);
  nyx__spec(&c->spec[1], compute_dtype(c->dtype), 1, &x->shape[1]);
  nyx__spec(&c->spec[2], compute_dtype(c->dtype), 1, &x->shape[1]);
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  planes p = planes_of(c->in[1]);
  nyx__norm_data data;
  NYX_TRY(nyx__norm_open(c, 5, &data));
  if (data.last) p.last = true, p.gathered = false;
  batch_run r = start(&p, data.dtype);
  nyx_tensor *g = NULL, *x = NULL, *y = NULL;
  nyx_status status = gather_planes(c->ctx, &p, data.in[0], &g);
  if (status == NYX_OK) status = gather_planes(c->ctx, &p, data.in[1], &x);
  if (status == NYX_OK) status = result_planes(c->ctx, &p, data.out[0], &y);
  if (status == NYX_OK) {
    r.g = data_of(g);
    r.x = data_of(x);
    r.y = data_of(y);
    r.mean_in = data_of(data.in[2]);
    r.rstd_in = data_of(data.in[3]);
    r.weight = data_of(data.in[4]);
    r.weight_out = data_of(data.out[1]);
    r.bias_out = data_of(data.out[2]);
    if (p.last) {
      const nyx__norm_last last = as_last(c->ctx, &r);
      status = nyx__norm_last_backward(&last);
    } else {
      run(&r, backward_channels);
    }
    if (status == NYX_OK) status = scatter_planes(c->ctx, &p, y, data.out[0]);
  }
  nyx_tensor_release(g);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return nyx__norm_close(c, &data, status);
}

const nyx_op nyx__op_batch_norm_backward = {
    .name = "batch_norm_backward",
    .group = "gradient",
    .doc = "the gradients of batch_norm_training: of x, of weight, of bias",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad x mean rstd weight",
    .min_in = 4,
    .max_in = 5,
    .no_gradient = true,
    .n_out = 3,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .cases =
        "grad(4,3) x(4,3) mean(3) rstd(3) weight(3)\n"
        "grad(2,3,4,5) x(2,3,4,5) mean(3) rstd(3)",
};

/* batch_norm */

/* n elements of channel c, from byte `at` on: x * scale + shift. */
static void scale_piece(const batch_run *r, int64_t c, size_t at, int64_t n) {
  const double scale = get(r, r->weight, c), shift = get(r, r->bias, c);
  if (!r->past) {
    r->kernel->normalize(r->x + at, n, 0, scale, NULL, NULL, shift, r->y + at);
    return;
  }
  _Alignas(64) char room[BLOCK * sizeof(double)];
  for (int64_t left = n, now; left > 0; left -= now, at += (size_t)now * r->item) {
    now = left < BLOCK ? left : BLOCK;
    r->kernel->normalize(r->x + at, now, 0, scale, NULL, NULL, shift, room);
    r->past->stream(now * (int64_t)r->item, room, r->y + at);
  }
}

/* Pieces begin..end-1, plane by plane. */
static void scale_pieces(void *arg, int64_t begin, int64_t end) {
  const batch_run *r = arg;
  const int64_t pieces = (r->p.plane + PIECE - 1) / PIECE;
  for (int64_t i = begin; i < end; i++) {
    const int64_t plane = i / pieces, from = i % pieces * PIECE;
    const int64_t left = r->p.plane - from;
    scale_piece(r, plane % r->p.channels, plane_at(r, 0, plane) + (size_t)from * r->item,
                left < PIECE ? left : PIECE);
  }
  if (r->past) r->past->drain();
}

/* Whether nothing of x * scale + shift is left to others: gradients, tensors that are
 * lifted, other devices; nor conversions, other layouts and short planes, which
 * elementwise ops know. */
static bool scales_planes(nyx_context *ctx, const nyx_tensor *x, const nyx_tensor *scale,
                          const nyx_tensor *shift, const planes *p) {
  if (ctx->n_levels || x->dtype != scale->dtype || !nyx__on_cpu(x)) return false;
  if (ctx->grad_enabled &&
      (x->requires_grad || scale->requires_grad || shift->requires_grad))
    return false;
  return p->plane >= LEAST_SCALED && x->numel > 0 && nyx__is_contiguous(x);
}

/* *out = x * scale + shift; in one pass rounded once where there is fma, by the op twice.
 */
static nyx_status scale_channels(nyx_context *ctx, nyx_tensor *x, nyx_tensor *scale,
                                 nyx_tensor *shift, nyx_tensor **out) {
  const planes p = seen_whole(x);
  nyx_tensor *in[] = {shift, x, scale};
  if (!scales_planes(ctx, x, scale, shift, &p))
    return nyx__applyn(ctx, NYX__OP_addcmul, in, 3, NULL, out);
  nyx_spec spec;
  nyx__spec(&spec, x->dtype, x->ndim, x->shape);
  NYX_TRY(nyx__tensor_of(ctx, nyx__cpu(), &spec, out));
  batch_run r = start(&p, x->dtype);
  r.x = data_of(x);
  r.y = data_of(*out);
  r.weight = data_of(scale);
  r.bias = data_of(shift);
  if (p.plane >= PAST_PLANE && x->numel * (int64_t)r.item >= PAST_BYTES)
    r.past = nyx__cpu_kernels()->move;
  const int64_t pieces = (p.plane + PIECE - 1) / PIECE;
  nyx_status status =
      nyx__parallel_for(ctx, p.images * p.channels * pieces,
                        RANGE_WORK / (p.plane / pieces + 1) + 1, scale_pieces, &r);
  if (status == NYX_OK) return NYX_OK;
  nyx_tensor_release(*out);
  *out = NULL;
  return status;
}

/* With the running statistics: x * scale + shift, from values of each channel. */
static nyx_status evaluation(nyx_call *c, double eps) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *x = c->in[0], *in[4] = {NULL};
  nyx_tensor *scale = NULL, *shift = NULL, *result = NULL;
  nyx_spec spec, shape;
  nyx__spec_of(x, &spec);
  shape = channel_spec(&spec);
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 4; i++) { /* weight bias mean variance */
    if (c->in[i + 1]) status = converted(ctx, c->in[i + 1], &shape, &in[i]);
  }
  double attr[] = {eps, 0};
  nyx_tensor *values[] = {NULL, in[0], in[2], in[3], NULL};
  if (status == NYX_OK) {
    status = nyx__evaluate(ctx, in[0] ? "x * nyx_rsqrt(z + p)" : "nyx_rsqrt(z + p)",
                           values, attr, &scale);
  }
  values[1] = in[1];
  values[4] = scale;
  if (status == NYX_OK) {
    status = nyx__evaluate(ctx, in[1] ? "x - y * r" : "-(y * r)", values, attr, &shift);
  }
  if (status == NYX_OK) status = scale_channels(ctx, x, scale, shift, &result);
  if (status == NYX_OK) status = converted(ctx, result, &spec, &c->out[0]);
  for (int i = 0; i < 4; i++) nyx_tensor_release(in[i]);
  nyx_tensor_release(scale);
  nyx_tensor_release(shift);
  nyx_tensor_release(result);
  return status;
}

static nyx_status compute_batch_norm(nyx_call *c) {
  NYX_TRY(check_channels(c, names, 1, 5));
  const nyx_value attr[] = {c->attr[1], c->attr[2]};
  if (c->attr[0].i) {
    const nyx_tensor *x = c->in[0];
    if (x->shape[1] > 0 && x->numel / x->shape[1] < 2) {
      return nyx__error(c->ctx, NORM_ONE, NYX__SHAPE(x));
    }
    return nyx__applyn(c->ctx, NYX__OP_batch_norm_training, c->in, 5, attr, &c->out[0]);
  }
  if (!c->in[3] || !c->in[4]) return nyx__error(c->ctx, NORM_RUNNING);
  return evaluation(c, c->attr[2].f);
}

static const nyx_attr batch_norm_attrs[] = {
    {.name = "training",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 0, .given = true},
     .doc = "whether to use the batch's own statistics and update the running ones"},
    {.name = "momentum",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 0.1, .given = true},
     .doc = "how much of the new statistics goes into the running ones"},
    {.name = "eps",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 1e-5, .given = true},
     .doc = "added to the variance"}};

const nyx_op nyx__op_batch_norm = {
    .name = "batch_norm",
    .group = "normalization",
    .doc =
        "each channel of x (batch, channels, ...) with mean 0 and variance 1, times "
        "weight "
        "plus bias (Ioffe, Szegedy: \"Batch normalization\", 2015); in training "
        "running_mean and running_var are updated in place, else they are used",
    .kind = NYX_OP_COMPOSITE,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight bias running_mean running_var",
    .min_in = 1,
    .max_in = 5,
    .attrs = batch_norm_attrs,
    .n_attrs = 3,
    .n_out = 1,
    .cpu = compute_batch_norm,
    .cases =
        "x(4,3) weight(3) bias(3); training=true\n"
        "x(2,3,4,5) weight(3) bias(3); training=true eps=0.01\n"
        "x(4,3) weight(3) bias(3) running_mean(3) running_var(3)\n"
        "x(2,3,4,5) weight(3) bias(3) running_mean(3) running_var(3); eps=0.01\n"
        "x(2,3,7,7) weight(3) bias(3) running_mean(3) running_var(3)",
    .domain = {0.5, 2},
};
