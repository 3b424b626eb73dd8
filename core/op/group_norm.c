/* group_norm: each sample's channels in groups. A group is a row of channels / groups *
 * places elements, for the kernels of norm.h, and only weight and bias differ by channel:
 * where channels are long, every one is a call; short ones get a weight for every element
 * and are rows of layer_norm's. Channels-last images are norm_last.c's. Read next:
 * norm.c, norm_last.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "../grad/graph.h"
#include "index.h"
#include "norm.h"

#define RANGE_WORK 16384 /* elements worth waking a thread for */
#define LEAST_PLACES 32  /* of a channel that is worth a call */

enum { GROUPS, EPS, PARAMETERS };

/* One computation. rows: of weight and bias it has those of channels, and in `total` the
 * gradients of channels. */
typedef struct group_run {
  nyx_context *ctx;
  nyx_dtype dtype;
  int64_t images, channels, places;
  nyx__norm_rows rows;
  double *partial; /* gradients of weight and bias, of each channel of each image */
} group_run;

static nyx_status check_groups(nyx_context *ctx, const nyx_tensor *x, int64_t groups) {
  if (x->ndim < 2) return nyx__error(ctx, NORM_CHANNELS, NYX__SHAPE(x));
  if (groups >= 1 && x->shape[1] % groups == 0) return NYX_OK;
  return nyx__error(ctx, NORM_GROUPS, (long long)groups, (long long)x->shape[1],
                    NYX__SHAPE(x));
}

static void *data_of(const nyx_tensor *t) {
  return t ? nyx__data(t) : NULL;
}

static group_run start(nyx_context *ctx, const nyx__norm_data *data, const nyx_tensor *x,
                       const nyx_value *attr) {
  int64_t groups = attr[GROUPS].i;
  group_run r = {.ctx = ctx,
                 .dtype = data->dtype,
                 .images = x->shape[0],
                 .channels = x->shape[1],
                 .places = 1,
                 .rows = {.center = true, .eps = attr[EPS].f, .groups = groups}};
  for (int d = 2; d < x->ndim; d++) r.places *= x->shape[d];
  r.rows.n = r.channels / groups * r.places;
  r.rows.rows = r.rows.n ? r.images * groups : 0;
  nyx__norm_rows_kernels(&r.rows, data->dtype);
  return r;
}

static nyx__norm_last as_last(const group_run *r) {
  return (nyx__norm_last){.ctx = r->ctx,
                          .dtype = r->dtype,
                          .images = r->images,
                          .places = r->places,
                          .channels = r->channels,
                          .groups = r->rows.groups,
                          .x = r->rows.x,
                          .g = r->rows.g,
                          .weight = r->rows.weight,
                          .bias = r->rows.bias,
                          .y = r->rows.y,
                          .weight_out = r->rows.total[0],
                          .bias_out = r->rows.total[1],
                          .eps = r->rows.eps};
}

/* Short channels: parameters for every element of a sample */

/* *p, of channels, becomes what *wide holds: the same for each place. */
static nyx_status widen(const group_run *r, const char **p, char **wide) {
  size_t item = r->rows.item, bytes = (size_t)(r->channels * r->places) * item;
  if (!*p || r->places == 1) return NYX_OK;
  if (!(*wide = nyx_memory_alloc(bytes))) return nyx__no_memory(r->ctx, bytes);
  char *to = *wide;
  for (int64_t c = 0; c < r->channels; c++)
    for (int64_t i = 0; i < r->places; i++, to += item)
      memcpy(to, *p + (size_t)c * item, item);
  *p = *wide;
  return NYX_OK;
}

/* to, of channels = the sum of `wide` over places. */
static void narrow(const group_run *r, const char *wide, char *to) {
  size_t item = r->rows.item;
  for (int64_t c = 0; c < r->channels; c++) {
    double sum = 0;
    for (int64_t i = 0; i < r->places; i++, wide += item)
      sum += nyx__load_double(r->dtype, wide);
    nyx__store_double(r->dtype, to + (size_t)c * item, sum);
  }
}

static nyx_status forward_short(const group_run *r) {
  nyx__norm_rows rows = r->rows;
  char *wide[2] = {NULL};
  nyx_status status = widen(r, &rows.weight, &wide[0]);
  if (status == NYX_OK) status = widen(r, &rows.bias, &wide[1]);
  if (status == NYX_OK) nyx__norm_rows_forward(&rows);
  for (int k = 0; k < 2; k++) nyx_memory_free(wide[k]);
  return status;
}

static nyx_status backward_short(const group_run *r) {
  nyx__norm_rows rows = r->rows;
  size_t bytes = (size_t)(r->channels * r->places) * rows.item;
  char *wide = NULL, *total = NULL;
  bool apart = rows.total[0] && r->places != 1;
  nyx_status status = widen(r, &rows.weight, &wide);
  if (status == NYX_OK && apart && !(total = nyx_memory_alloc(2 * bytes)))
    status = nyx__no_memory(r->ctx, 2 * bytes);
  for (int k = 0; total && k < 2; k++) rows.total[k] = total + (size_t)k * bytes;
  if (status == NYX_OK) status = nyx__norm_rows_backward(r->ctx, &rows);
  for (int k = 0; status == NYX_OK && total && k < 2; k++)
    narrow(r, rows.total[k], r->rows.total[k]);
  nyx_memory_free(wide);
  nyx_memory_free(total);
  return status;
}

/* Long channels: a call for each */

static double value_of(const group_run *r, const char *p, int64_t c, double missing) {
  return p ? nyx__load_double(r->dtype, p + (size_t)c * r->rows.item) : missing;
}

/* Channel c, counted from the first image's first. */
static size_t channel_at(const group_run *r, int64_t c) {
  return (size_t)(c * r->places) * r->rows.item;
}

static void each_row(group_run *r, nyx_range_fn fn) {
  nyx_parallel_for(r->rows.rows, RANGE_WORK / (r->rows.n + 1) + 1, fn, r);
}

static void forward_rows(void *arg, int64_t begin, int64_t end) {
  const group_run *r = arg;
  const nyx__norm_rows *rows = &r->rows;
  int64_t size = r->channels / rows->groups;
  for (int64_t i = begin; i < end; i++) {
    double mean, rstd;
    nyx__norm_statistics(rows, rows->x + channel_at(r, i * size), &mean, &rstd);
    for (int64_t k = i * size; k < (i + 1) * size; k++) {
      int64_t c = k % r->channels;
      size_t at = channel_at(r, k);
      rows->kernel->normalize(rows->x + at, r->places, mean,
                              rstd * value_of(r, rows->weight, c, 1), NULL, NULL,
                              value_of(r, rows->bias, c, 0), rows->y + at);
    }
  }
}

/* weight * rstd * g - rstd * (mean(weight * g) + hat * mean(weight * g * hat)) */
static void backward_rows(void *arg, int64_t begin, int64_t end) {
  const group_run *r = arg;
  const nyx__norm_rows *rows = &r->rows;
  int64_t size = r->channels / rows->groups;
  for (int64_t i = begin; i < end; i++) {
    double mean, rstd, all = 0, all_dot = 0, n = (double)rows->n;
    nyx__norm_statistics(rows, rows->x + channel_at(r, i * size), &mean, &rstd);
    for (int64_t k = i * size; k < (i + 1) * size; k++) {
      double sum = 0, dot = 0, weight = value_of(r, rows->weight, k % r->channels, 1);
      size_t at = channel_at(r, k);
      rows->kernel->sums(rows->g + at, rows->x + at, NULL, r->places, mean, &sum, &dot);
      all += weight * sum;
      all_dot += weight * dot;
      if (!r->partial) continue;
      r->partial[2 * k] = dot * rstd;
      r->partial[2 * k + 1] = sum;
    }
    nyx_norm_row row = {mean, 0, -rstd * rstd * rstd * all_dot / n, -rstd * all / n};
    for (int64_t k = i * size; k < (i + 1) * size; k++) {
      size_t at = channel_at(r, k);
      row.p = rstd * value_of(r, rows->weight, k % r->channels, 1);
      rows->kernel->backward(rows->g + at, rows->x + at, NULL, r->places, 1, r->places,
                             &row, rows->y + at, r->places, NULL, NULL, true);
    }
  }
}

static nyx_status backward_long(group_run *r) {
  size_t bytes = (size_t)(2 * r->images * r->channels) * sizeof(double);
  if (r->rows.total[0] && !(r->partial = nyx_memory_alloc(bytes)))
    return nyx__no_memory(r->ctx, bytes);
  each_row(r, backward_rows);
  for (int part = 0; r->partial && part < 2; part++)
    for (int64_t c = 0; c < r->channels; c++) {
      double sum = 0;
      for (int64_t i = 0; i < r->images; i++)
        sum += r->partial[2 * (i * r->channels + c) + part];
      nyx__store_double(r->dtype, r->rows.total[part] + (size_t)c * r->rows.item, sum);
    }
  nyx_memory_free(r->partial);
  return NYX_OK;
}

/* group_norm_backward */

static nyx_status infer_backward(nyx_call *c) {
  const nyx_tensor *g = c->in[0], *x = c->in[1], *weight = c->in[2];
  NYX_TRY(check_groups(c->ctx, x, c->attr[GROUPS].i));
  NYX_TRY(nyx__shape_check(c->ctx, "grad", g, x->ndim, x->shape));
  if (weight) NYX_TRY(nyx__shape_check(c->ctx, "weight", weight, 1, &x->shape[1]));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  nyx__spec_images(&c->spec[0], x);
  nyx__spec(&c->spec[1], c->dtype, 1, &x->shape[1]);
  nyx__spec(&c->spec[2], c->dtype, 1, &x->shape[1]);
  if (!c->attr[PARAMETERS].i) c->n_out = 1;
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  nyx__norm_data data;
  NYX_TRY(nyx__norm_open(c, 3, &data));
  group_run r = start(c->ctx, &data, c->in[1], c->attr);
  r.rows.g = data_of(data.in[0]);
  r.rows.x = data_of(data.in[1]);
  r.rows.weight = data_of(data.in[2]);
  r.rows.y = data_of(data.out[0]);
  for (int k = 0; c->n_out > 1 && k < 2; k++) r.rows.total[k] = data_of(data.out[1 + k]);
  nyx_status status;
  if (data.last) {
    const nyx__norm_last last = as_last(&r);
    status = nyx__norm_last_backward(&last);
  } else {
    status = r.places < LEAST_PLACES ? backward_short(&r) : backward_long(&r);
  }
  return nyx__norm_close(c, &data, status);
}

static const nyx_attr backward_attrs[] = {
    {.name = "num_groups",
     .type = NYX_ATTR_INT,
     .required = true,
     .doc = "as in group_norm"},
    {.name = "eps",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 1e-5, .given = true},
     .doc = "as in group_norm"},
    {.name = "parameters",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 1, .given = true},
     .doc = "whether to give the gradients of weight and bias too"}};

const nyx_op nyx__op_group_norm_backward = {
    .name = "group_norm_backward",
    .group = "gradient",
    .doc = "the gradients of group_norm: of x, of weight, of bias",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad x weight",
    .min_in = 2,
    .max_in = 3,
    .attrs = backward_attrs,
    .n_attrs = 3,
    .no_gradient = true,
    .n_out = 3,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .cases =
        "grad(2,4,3) x(2,4,3) weight(4); num_groups=2\n"
        "grad(2,4,5,8) x(2,4,5,8); num_groups=1 parameters=false",
};

/* group_norm */

static nyx_status infer_group_norm(nyx_call *c) {
  const nyx_tensor *x = c->in[0], *weight = c->in[1], *bias = c->in[2];
  NYX_TRY(check_groups(c->ctx, x, c->attr[GROUPS].i));
  if (weight) NYX_TRY(nyx__shape_check(c->ctx, "weight", weight, 1, &x->shape[1]));
  if (bias) NYX_TRY(nyx__shape_check(c->ctx, "bias", bias, 1, &x->shape[1]));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  nyx__spec_images(&c->spec[0], x);
  return NYX_OK;
}

static nyx_status cpu_group_norm(nyx_call *c) {
  nyx__norm_data data;
  NYX_TRY(nyx__norm_open(c, c->n_in, &data));
  group_run r = start(c->ctx, &data, c->in[0], c->attr);
  r.rows.x = data_of(data.in[0]);
  r.rows.weight = data_of(data.in[1]);
  r.rows.bias = data_of(data.in[2]);
  r.rows.y = data_of(data.out[0]);
  nyx_status status = NYX_OK;
  if (data.last) {
    const nyx__norm_last last = as_last(&r);
    status = nyx__norm_last_forward(&last);
  } else if (r.places < LEAST_PLACES) {
    status = forward_short(&r);
  } else {
    each_row(&r, forward_rows);
  }
  return nyx__norm_close(c, &data, status);
}

static nyx_status reshape(nyx_context *ctx, nyx_tensor *t, int ndim, const int64_t *shape,
                          nyx_tensor **out) {
  const nyx_value attr = NYX_LIST(shape, ndim);
  return nyx__apply1(ctx, NYX__OP_reshape, t, &attr, out);
}

/* Over x seen as (images, groups, channels of a group, places). */
static nyx_status gradient_by_ops(nyx_backward *b) {
  nyx_tensor *x = b->in[0], *seen[2] = {NULL}, *grad[3] = {NULL};
  int64_t groups = b->attr[GROUPS].i, size = x->shape[1] / groups, places = 1;
  for (int d = 2; d < x->ndim; d++) places *= x->shape[d];
  const int64_t shape[] = {x->shape[0], groups, size, places};
  nyx__norm norm = {.weight = b->in[1],
                    .center = true,
                    .eps = b->attr[EPS].f,
                    .n_dims = 2,
                    .dims = {2, 3}};
  nyx__spec(&norm.parameter, x->dtype, 3, (const int64_t[]){groups, size, 1});
  nyx__norm_wanted wanted = {.x = b->need[0] ? &grad[0] : NULL,
                             .weight = b->need[1] ? &grad[1] : NULL,
                             .bias = b->need[2] ? &grad[2] : NULL};
  nyx_status status = reshape(b->ctx, b->grad_out[0], 4, shape, &seen[0]);
  if (status == NYX_OK) status = reshape(b->ctx, x, 4, shape, &seen[1]);
  norm.x = seen[1];
  if (status == NYX_OK) status = nyx__norm_gradient(b->ctx, &norm, seen[0], &wanted);
  for (int i = 0; i < 3; i++) {
    if (status == NYX_OK && grad[i])
      status = reshape(b->ctx, grad[i], i ? 1 : x->ndim, i ? &x->shape[1] : x->shape,
                       &b->grad_in[i]);
    nyx_tensor_release(grad[i]);
  }
  for (int i = 0; i < 2; i++) nyx_tensor_release(seen[i]);
  return status;
}

/* First-order gradients in one kernel; with ops when they are to be differentiated. */
static nyx_status gradient_group_norm(nyx_backward *b) {
  if (b->ctx->grad_enabled) return gradient_by_ops(b);
  const nyx_value attr[] = {b->attr[GROUPS], b->attr[EPS],
                            NYX_I(b->need[1] || b->need[2])};
  nyx_tensor *in[] = {b->grad_out[0], b->in[0], b->in[1]}, *out[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(nyx_apply(b->ctx, &nyx__op_group_norm_backward, in, 3, attr, out));
  for (int i = 0; i < 3; i++) {
    if (b->need[i])
      b->grad_in[i] = out[i];
    else
      nyx_tensor_release(out[i]);
  }
  return NYX_OK;
}

static const nyx_attr group_norm_attrs[] = {
    {.name = "num_groups",
     .type = NYX_ATTR_INT,
     .required = true,
     .doc = "how many groups the channels are in, which it divides; 1: all together, as "
            "many as channels: every one by itself (instance norm)"},
    {.name = "eps",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 1e-5, .given = true},
     .doc = "added to the variance"}};

const nyx_op nyx__op_group_norm = {
    .name = "group_norm",
    .group = "normalization",
    .doc =
        "each sample of x (batch, channels, ...) with mean 0 and variance 1 over groups "
        "of channels that follow each other, times weight plus bias of each channel (Wu, "
        "He: \"Group normalization\", 2018)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight bias",
    .min_in = 1,
    .max_in = 3,
    .attrs = group_norm_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_group_norm,
    .cpu = cpu_group_norm,
    .gradient = gradient_group_norm,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .batch = nyx__batch_first,
    .cases =
        "x(2,4,3) weight(4) bias(4); num_groups=2\n"
        "x(3,6); num_groups=2\n"
        "x(2,3,2,2) weight(3); num_groups=3 eps=0.1\n"
        "x(2,2,5,7) weight(2) bias(2); num_groups=1",
};
