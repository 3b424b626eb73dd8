/* layer_norm and rms_norm, which normalize rows, and the gradient of every normalization
 * written with ops. Read next: batch_norm.c, kernels/cpu/norm_rows.h. */
#include "norm.h"

#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../grad/graph.h"
#include "index.h"
#include "softmax.h"

#define RANGE_WORK 16384 /* elements worth waking a thread for */
#define CHUNKS 32        /* partial sums of the parameters' gradients, at most */
#define COLUMNS 4096     /* of them that one task adds up */
#define PIECE 2048       /* elements of a row read twice before the next ones */
#define BLOCK_BYTES 2048 /* of a row that is written past the caches */
#define STREAM_ROW 1024  /* bytes from which on a row is: most of it whole lines */

const nyx_norm_kernel *nyx__norm_kernel(nyx_dtype compute) {
  return nyx__cpu_kernels()->norm->type[compute == NYX_FLOAT64];
}

nyx_status nyx__norm_open(nyx_call *c, int n_in, nyx__norm_data *data) {
  const nyx_tensor *y = c->out[0];
  *data = (nyx__norm_data){.n_in = n_in, .n_out = c->n_out};
  data->dtype = c->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  data->last = nyx__lies_last(y->ndim, y->shape, y->stride);
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < n_in; i++) {
    nyx_tensor *t = c->in[i];
    if (t && data->last && t->ndim == 4)
      status = nyx__last_as(c->ctx, t, data->dtype, NULL, &data->in[i]);
    else if (t)
      status = nyx__contiguous_as(c->ctx, t, data->dtype, &data->in[i]);
  }
  for (int i = 0; status == NYX_OK && i < c->n_out; i++) {
    nyx_tensor *out = c->out[i];
    if (out->dtype == data->dtype) {
      data->out[i] = nyx_tensor_retain(out);
    } else if (i == 0 && data->last) {
      status = nyx__last_as(c->ctx, out, data->dtype, NULL, &data->out[i]);
    } else {
      status =
          nyx_tensor_empty(c->ctx, data->dtype, out->ndim, out->shape, &data->out[i]);
    }
  }
  return status == NYX_OK ? NYX_OK : nyx__norm_close(c, data, status);
}

nyx_status nyx__norm_close(nyx_call *c, nyx__norm_data *data, nyx_status status) {
  for (int i = 0; i < data->n_out; i++) {
    if (status == NYX_OK && data->out[i] != c->out[i]) {
      status = nyx__copy_into(c->ctx, data->out[i], c->out[i]);
    }
    nyx_tensor_release(data->out[i]);
  }
  for (int i = 0; i < data->n_in; i++) nyx_tensor_release(data->in[i]);
  return status;
}

/* The gradient with ops */

/* *out = text over up to five tensors, in the order g x y z r. */
static nyx_status evaluate(nyx_context *ctx, const char *text, nyx_tensor *g,
                           nyx_tensor *x, nyx_tensor *y, nyx_tensor *z, nyx_tensor *r,
                           double p, nyx_tensor **out) {
  return nyx__evaluate(ctx, text, (nyx_tensor *[]){g, x, y, z, r}, (double[]){p, 0}, out);
}

static nyx_status mean_over(nyx_context *ctx, const nyx__norm *norm, nyx_tensor *t,
                            nyx_tensor **out) {
  const nyx_value attr[] = {NYX_LIST(norm->dims, norm->n_dims), NYX_I(1)};
  return nyx__apply1(ctx, NYX__OP_mean, t, attr, out);
}

/* Everything the gradients are made of. */
typedef struct norm_parts {
  nyx_tensor *centered, *rstd, *hat, *square, *mean;
  nyx_tensor *weight, *g; /* g * weight */
  nyx_tensor *product, *mean_g, *mean_product;
} norm_parts;

/* The statistics and x normalized. */
static nyx_status statistics(nyx_context *ctx, const nyx__norm *norm, norm_parts *t) {
  nyx_tensor *x = norm->x;
  if (norm->mean) {
    t->mean = nyx_tensor_retain(norm->mean);
  } else if (norm->center) {
    NYX_TRY(mean_over(ctx, norm, x, &t->mean));
  }
  if (t->mean) {
    NYX_TRY(nyx__apply2(ctx, NYX__OP_sub, x, t->mean, NULL, &t->centered));
  } else {
    t->centered = nyx_tensor_retain(x);
  }
  if (norm->rstd) {
    t->rstd = nyx_tensor_retain(norm->rstd);
  } else {
    NYX_TRY(nyx__apply2(ctx, NYX__OP_mul, t->centered, t->centered, NULL, &t->square));
    nyx_tensor *variance;
    NYX_TRY(mean_over(ctx, norm, t->square, &variance));
    nyx_status status = evaluate(ctx, "nyx_rsqrt(x + p)", NULL, variance, NULL, NULL,
                                 NULL, norm->eps, &t->rstd);
    nyx_tensor_release(variance);
    if (status != NYX_OK) return status;
  }
  return nyx__apply2(ctx, NYX__OP_mul, t->centered, t->rstd, NULL, &t->hat);
}

static nyx_status gradient_of_x(nyx_context *ctx, const nyx__norm *norm, nyx_tensor *g,
                                norm_parts *t, nyx_tensor **out) {
  if (norm->weight) {
    const nyx_value shape = NYX_LIST(norm->parameter.shape, norm->parameter.ndim);
    NYX_TRY(nyx__apply1(ctx, NYX__OP_reshape, norm->weight, &shape, &t->weight));
    NYX_TRY(nyx__apply2(ctx, NYX__OP_mul, g, t->weight, NULL, &t->g));
  } else {
    t->g = nyx_tensor_retain(g);
  }
  if (norm->rstd) return nyx__apply2(ctx, NYX__OP_mul, t->g, t->rstd, NULL, out);
  NYX_TRY(nyx__apply2(ctx, NYX__OP_mul, t->g, t->hat, NULL, &t->product));
  NYX_TRY(mean_over(ctx, norm, t->product, &t->mean_product));
  if (!norm->center) {
    return evaluate(ctx, "z * (g - r * y)", t->g, NULL, t->mean_product, t->rstd, t->hat,
                    0, out);
  }
  NYX_TRY(mean_over(ctx, norm, t->g, &t->mean_g));
  return evaluate(ctx, "z * (g - x - r * y)", t->g, t->mean_g, t->mean_product, t->rstd,
                  t->hat, 0, out);
}

static nyx_status gradients(nyx_context *ctx, const nyx__norm *norm, nyx_tensor *g,
                            const nyx__norm_wanted *wanted, norm_parts *t) {
  if (wanted->bias) NYX_TRY(nyx__sum_to(ctx, g, &norm->parameter, wanted->bias));
  if (!wanted->x && !wanted->weight) return NYX_OK;
  NYX_TRY(statistics(ctx, norm, t));
  if (wanted->weight) {
    nyx_tensor *product;
    NYX_TRY(nyx__apply2(ctx, NYX__OP_mul, g, t->hat, NULL, &product));
    nyx_status status = nyx__sum_to(ctx, product, &norm->parameter, wanted->weight);
    nyx_tensor_release(product);
    if (status != NYX_OK) return status;
  }
  return wanted->x ? gradient_of_x(ctx, norm, g, t, wanted->x) : NYX_OK;
}

nyx_status nyx__norm_gradient(nyx_context *ctx, const nyx__norm *norm, nyx_tensor *g,
                              const nyx__norm_wanted *wanted) {
  norm_parts t = {.centered = NULL};
  nyx_status status = gradients(ctx, norm, g, wanted, &t);
  nyx_tensor *all[] = {t.centered, t.rstd, t.hat,     t.square, t.mean,
                       t.weight,   t.g,    t.product, t.mean_g, t.mean_product};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) nyx_tensor_release(all[i]);
  return status;
}

/* Rows: the dimensions that are normalized are the last ones */

/* How many dimensions are normalized, and their sizes: the attribute, else the weight's
 * shape, else the last dimension. */
static nyx_status read_rows(nyx_context *ctx, const nyx_tensor *x,
                            const nyx_tensor *weight, const nyx_value *shape, int *n,
                            int64_t sizes[NYX_MAX_DIMS]) {
  *n = shape->given ? shape->n : weight ? weight->ndim : 1;
  const int64_t *from = shape->given ? shape->list : weight ? weight->shape : NULL;
  bool fits = *n >= 1 && *n <= x->ndim;
  for (int d = 0; fits && d < *n; d++) {
    sizes[d] = x->shape[x->ndim - *n + d];
    if (from && from[d] != sizes[d]) fits = false;
  }
  if (fits) return NYX_OK;
  char text[NYX_SHAPE_TEXT] = "1 dimension or more";
  if (from)
    nyx__shape_text(*n < NYX_MAX_DIMS ? *n : NYX_MAX_DIMS, from, text, sizeof text);
  return nyx__error(ctx, NORM_SHAPE, NYX__SHAPE(x), text);
}

void nyx__norm_rows_kernels(nyx__norm_rows *r, nyx_dtype compute) {
  r->kernel = nyx__norm_kernel(compute);
  r->moments = nyx__softmax_kernel(compute);
  r->item = nyx_dtype_size(compute);
}

/* What is known of a row, or of its first elements. The last two are those of its
 * gradient: the sum of g * w, and of g * w * (x - mean). */
typedef struct row_sums {
  double mean, squares, sum, dot;
} row_sums;

/* One piece, which stays in the first cache between its readings. g may be NULL. */
static inline row_sums piece_sums(const nyx__norm_rows *r, const char *x, const char *g,
                                  const char *w, int64_t n) {
  row_sums s = {0, 0, 0, 0};
  if (r->center)
    r->moments->moments(x, n, &s.mean, &s.squares);
  else
    s.squares = r->kernel->squares(x, n);
  if (g) r->kernel->sums(g, x, w, n, s.mean, &s.sum, &s.dot);
  return s;
}

/* Those of `count` elements and of n more. Chan, Golub, LeVeque: "Algorithms for
 * computing the sample variance", 1983 */
static row_sums merged(row_sums a, int64_t count, row_sums b, int64_t n) {
  double delta = b.mean - a.mean, share = (double)n / (double)(count + n);
  double mean = a.mean + delta * share;
  return (row_sums){
      .mean = mean,
      .squares = a.squares + b.squares + delta * delta * share * (double)count,
      .sum = a.sum + b.sum,
      .dot = a.dot + b.dot + (a.mean - mean) * a.sum + (b.mean - mean) * b.sum};
}

/* Of a whole row, in one way through the memory. */
static inline row_sums sums_of(const nyx__norm_rows *r, const char *x, const char *g,
                               const char *w) {
  row_sums s = piece_sums(r, x, g, w, r->n < PIECE ? r->n : PIECE);
  for (int64_t from = PIECE; from < r->n; from += PIECE) {
    size_t at = (size_t)from * r->item;
    int64_t n = r->n - from < PIECE ? r->n - from : PIECE;
    s = merged(s, from, piece_sums(r, x + at, g ? g + at : NULL, w ? w + at : NULL, n),
               n);
  }
  return s;
}

static double rstd_of(const nyx__norm_rows *r, const row_sums *s) {
  return 1 / sqrt(s->squares / (double)r->n + r->eps);
}

void nyx__norm_statistics(const nyx__norm_rows *r, const char *x, double *mean,
                          double *rstd) {
  row_sums s = sums_of(r, x, NULL, NULL);
  *mean = s.mean;
  *rstd = rstd_of(r, &s);
}

/* Where among the parameters those of row i are: no division where rows may be short. */
static size_t group_at(const nyx__norm_rows *r, int64_t i) {
  return r->groups == 1 ? 0 : (size_t)(i % r->groups * r->n) * r->item;
}

static const char *of_row(const nyx__norm_rows *r, const char *p, int64_t i) {
  return p ? p + group_at(r, i) : NULL;
}

/* Rows that share their parameters, which are read for all of them at once. */
static int rows_together(const nyx__norm_rows *r) {
  return r->groups == 1 ? NYX_NORM_ROWS : 1;
}

/* Elements of a row that are done at once, of all rows that go together. */
static int64_t block_of(const nyx__norm_rows *r) {
  return r->stream ? BLOCK_BYTES / (int64_t)r->item : r->n;
}

/* Asks for a block of the rows after `count`: what is written waits for memory anyway. */
static void fetch_next(const nyx__norm_rows *r, const char *x, int count, size_t bytes) {
  const char *next = x + (size_t)(count * r->n) * r->item;
  for (size_t k = 0; k < bytes; k += 64) __builtin_prefetch(next + k, 0, 2);
}

/* Rows i.. of the result, which its statistics are known of, block by block. */
static void normalize_rows(const nyx__norm_rows *r, int64_t i, int count,
                           const double *mean, const double *rstd) {
  const char *w = of_row(r, r->weight, i), *b = of_row(r, r->bias, i);
  int64_t block = block_of(r);
  _Alignas(64) char room[BLOCK_BYTES];
  for (int64_t from = 0; from < r->n; from += block) {
    int64_t n = r->n - from < block ? r->n - from : block;
    size_t column = (size_t)from * r->item, bytes = (size_t)n * r->item;
    for (int k = 0; k < count; k++) {
      size_t at = (size_t)((i + k) * r->n) * r->item + column;
      r->kernel->normalize(r->x + at, n, mean[k], rstd[k], w ? w + column : NULL,
                           b ? b + column : NULL, 0, r->stream ? room : r->y + at);
      if (!r->stream) continue;
      fetch_next(r, r->x + at, count, bytes);
      r->stream->stream((int64_t)bytes, room, r->y + at);
    }
  }
}

static void forward_rows(void *arg, int64_t begin, int64_t end) {
  const nyx__norm_rows *r = arg;
  int together = r->stream ? rows_together(r) : 1;
  for (int64_t i = begin; i < end; i += together) {
    double mean[NYX_NORM_ROWS], rstd[NYX_NORM_ROWS];
    int count = end - i < together ? (int)(end - i) : together;
    for (int k = 0; k < count; k++)
      nyx__norm_statistics(r, r->x + (size_t)((i + k) * r->n) * r->item, &mean[k],
                           &rstd[k]);
    normalize_rows(r, i, count, mean, rstd);
  }
  if (r->stream) r->stream->drain();
}

/* Results that no cache holds are written past them, whole lines of them. */
static void choose_stream(nyx__norm_rows *r) {
  size_t row = (size_t)r->n * r->item;
  if (row >= STREAM_ROW && (size_t)r->rows * row >= NYX_STREAM_ROWS)
    r->stream = nyx__cpu_kernels()->move;
}

void nyx__norm_rows_forward(nyx__norm_rows *r) {
  choose_stream(r);
  int64_t grain = RANGE_WORK / (r->n + 1) + 1, together = r->stream ? NYX_NORM_ROWS : 1;
  nyx_parallel_for(r->rows, grain < together ? together : grain, forward_rows, r);
}

static nyx_status infer_rows(nyx_call *c, const nyx_tensor *bias) {
  int n;
  int64_t sizes[NYX_MAX_DIMS];
  const nyx_tensor *x = c->in[0], *weight = c->in[1];
  NYX_TRY(read_rows(c->ctx, x, weight, &c->attr[0], &n, sizes));
  if (weight) NYX_TRY(nyx__shape_check(c->ctx, "weight", weight, n, sizes));
  if (bias) NYX_TRY(nyx__shape_check(c->ctx, "bias", bias, n, sizes));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

static nyx__norm_rows start(const nyx__norm_data *data, const nyx_tensor *x, int n,
                            bool center, double eps) {
  nyx__norm_rows r = {.center = center, .eps = eps, .rows = 1, .n = 1, .groups = 1};
  nyx__norm_rows_kernels(&r, data->dtype);
  for (int d = 0; d < x->ndim; d++) {
    if (d < x->ndim - n) {
      r.rows *= x->shape[d];
    } else {
      r.n *= x->shape[d];
    }
  }
  if (r.n == 0) r.rows = 0;
  return r;
}

static void *data_of(const nyx_tensor *t) {
  return t ? nyx__data(t) : NULL;
}

static nyx_status cpu_rows(nyx_call *c, bool center) {
  int n;
  int64_t sizes[NYX_MAX_DIMS];
  NYX_TRY(read_rows(c->ctx, c->in[0], c->in[1], &c->attr[0], &n, sizes));
  nyx__norm_data data;
  NYX_TRY(nyx__norm_open(c, c->n_in, &data));
  nyx__norm_rows r = start(&data, data.in[0], n, center, c->attr[1].f);
  r.x = data_of(data.in[0]);
  r.weight = data_of(data.in[1]);
  r.bias = center ? data_of(data.in[2]) : NULL;
  r.y = data_of(data.out[0]);
  nyx__norm_rows_forward(&r);
  return nyx__norm_close(c, &data, NYX_OK);
}

/* layer_norm_backward: for both, with `center` */

enum { BACK_SHAPE, BACK_EPS, BACK_CENTER, BACK_PARAMETERS, BACK_ATTRS };

static nyx_status infer_backward(nyx_call *c) {
  int n;
  int64_t sizes[NYX_MAX_DIMS];
  const nyx_tensor *g = c->in[0], *x = c->in[1], *weight = c->in[2];
  NYX_TRY(read_rows(c->ctx, x, weight, &c->attr[BACK_SHAPE], &n, sizes));
  NYX_TRY(nyx__shape_check(c->ctx, "grad", g, x->ndim, x->shape));
  if (weight) NYX_TRY(nyx__shape_check(c->ctx, "weight", weight, n, sizes));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  nyx__spec(&c->spec[1], c->dtype, n, sizes);
  nyx__spec(&c->spec[2], c->dtype, n, sizes);
  if (!c->attr[BACK_PARAMETERS].i) c->n_out = 1;
  return NYX_OK;
}

/* rstd * (gw - mean(gw) - hat * mean(gw * hat)) */
static nyx_norm_row gradient_row(const nyx__norm_rows *r, int64_t i) {
  size_t at = (size_t)(i * r->n) * r->item;
  row_sums s = sums_of(r, r->x + at, r->g + at, of_row(r, r->weight, i));
  double rstd = rstd_of(r, &s), n = (double)r->n;
  return (nyx_norm_row){s.mean, rstd, -rstd * rstd * rstd * s.dot / n,
                        r->center ? -rstd * s.sum / n : 0};
}

/* The gradient to rows i.. of x, and what they add to those of the parameters. */
static void gradient_rows_of(const nyx__norm_rows *r, int64_t i, int count,
                             const nyx_norm_row *row, char *sums, bool first) {
  const char *w = of_row(r, r->weight, i);
  size_t all = (size_t)(r->groups * r->n) * r->item;
  int64_t block = block_of(r);
  _Alignas(64) char room[NYX_NORM_ROWS * BLOCK_BYTES];
  for (int64_t from = 0; from < r->n; from += block) {
    int64_t n = r->n - from < block ? r->n - from : block;
    size_t column = (size_t)from * r->item, bytes = (size_t)n * r->item;
    size_t at = (size_t)(i * r->n) * r->item + column;
    char *own = sums ? sums + column : NULL;
    r->kernel->backward(r->g + at, r->x + at, w ? w + column : NULL, n, count, r->n, row,
                        r->stream ? room : r->y + at, r->stream ? n : r->n, own,
                        own ? own + all : NULL, first);
    for (int k = 0; r->stream && k < count; k++)
      r->stream->stream((int64_t)bytes, room + (size_t)k * bytes,
                        r->y + at + (size_t)(k * r->n) * r->item);
  }
}

static void backward_rows(void *arg, int64_t begin, int64_t end) {
  const nyx__norm_rows *r = arg;
  size_t all = (size_t)(r->groups * r->n) * r->item;
  int together = rows_together(r);
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t first = unit * r->chunk;
    int64_t last = first + r->chunk < r->rows ? first + r->chunk : r->rows;
    char *sums = r->sums ? r->sums + (size_t)unit * 2 * all : NULL;
    for (int64_t i = first; i < last; i += together) {
      nyx_norm_row row[NYX_NORM_ROWS];
      int count = last - i < together ? (int)(last - i) : together;
      for (int k = 0; k < count; k++) row[k] = gradient_row(r, i + k);
      gradient_rows_of(r, i, count, row, sums ? sums + group_at(r, i) : NULL,
                       i - first < r->groups);
    }
  }
  if (r->stream) r->stream->drain();
}

/* The columns begin..end of weight and bias = the partial sums of all units, in order. */
static void add_sums(void *arg, int64_t begin, int64_t end) {
  const nyx__norm_rows *r = arg;
  size_t bytes = (size_t)(r->groups * r->n) * r->item, at = (size_t)begin * r->item;
  size_t count = (size_t)(end - begin) * r->item;
  for (int part = 0; part < 2; part++) {
    char *to = r->total[part] + at;
    const char *from = r->sums + (size_t)part * bytes + at;
    if (r->units == 0) memset(to, 0, count);
    for (int64_t u = 0; u < r->units; u++, from += 2 * bytes) {
      if (u == 0)
        memcpy(to, from, count);
      else
        r->kernel->add(from, end - begin, to);
    }
  }
}

nyx_status nyx__norm_rows_backward(nyx_context *ctx, nyx__norm_rows *r) {
  int64_t width = r->groups * r->n, samples = r->rows / r->groups;
  int64_t least = RANGE_WORK / (width + 1) + 1;
  r->chunk = (samples + CHUNKS - 1) / CHUNKS;
  if (r->chunk < least) r->chunk = least;
  r->units = (samples + r->chunk - 1) / r->chunk;
  r->chunk *= r->groups;
  size_t bytes = (size_t)r->units * 2 * (size_t)width * r->item;
  if (r->total[0] && !(r->sums = nyx_memory_alloc(bytes)))
    return nyx__no_memory(ctx, bytes);
  choose_stream(r);
  nyx_parallel_for(r->units, 1, backward_rows, r);
  if (r->total[0]) nyx_parallel_for(width, COLUMNS, add_sums, r);
  nyx_memory_free(r->sums);
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  int n;
  int64_t sizes[NYX_MAX_DIMS];
  NYX_TRY(read_rows(c->ctx, c->in[1], c->in[2], &c->attr[BACK_SHAPE], &n, sizes));
  nyx__norm_data data;
  NYX_TRY(nyx__norm_open(c, 3, &data));
  nyx__norm_rows r =
      start(&data, data.in[1], n, c->attr[BACK_CENTER].i != 0, c->attr[BACK_EPS].f);
  r.g = data_of(data.in[0]);
  r.x = data_of(data.in[1]);
  r.weight = data_of(data.in[2]);
  r.y = data_of(data.out[0]);
  for (int k = 0; c->n_out > 1 && k < 2; k++) r.total[k] = data_of(data.out[1 + k]);
  return nyx__norm_close(c, &data, nyx__norm_rows_backward(c->ctx, &r));
}

static const nyx_attr backward_attrs[] = {
    {.name = "normalized_shape", .type = NYX_ATTR_INTS, .doc = "as in layer_norm"},
    {.name = "eps",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 1e-5, .given = true},
     .doc = "as in layer_norm"},
    {.name = "center",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 1, .given = true},
     .doc = "false: of rms_norm"},
    {.name = "parameters",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 1, .given = true},
     .doc = "whether to give the gradients of weight and bias too"}};

const nyx_op nyx__op_layer_norm_backward = {
    .name = "layer_norm_backward",
    .group = "gradient",
    .doc = "the gradients of layer_norm and rms_norm: of x, of weight, of bias",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad x weight",
    .min_in = 2,
    .max_in = 3,
    .attrs = backward_attrs,
    .n_attrs = BACK_ATTRS,
    .no_gradient = true,
    .n_out = 3,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .cases =
        "grad(3,4) x(3,4) weight(4)\n"
        "grad(2,3,4) x(2,3,4); normalized_shape={3,4} center=false",
};

/* First-order gradients in one kernel; with ops when they are to be differentiated. */
static nyx_status gradient_rows(nyx_backward *b, bool center) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *g = b->grad_out[0], *x = b->in[0], *weight = b->in[1];
  bool bias = center && b->need[2];
  int n;
  int64_t sizes[NYX_MAX_DIMS];
  NYX_TRY(read_rows(ctx, x, weight, &b->attr[0], &n, sizes));
  if (ctx->grad_enabled) {
    nyx__norm norm = {.x = x, .weight = weight, .center = center, .eps = b->attr[1].f};
    norm.n_dims = n;
    for (int d = 0; d < n; d++) norm.dims[d] = x->ndim - n + d;
    nyx__spec(&norm.parameter, x->dtype, n, sizes);
    nyx__norm_wanted wanted = {.x = b->need[0] ? &b->grad_in[0] : NULL,
                               .weight = b->need[1] ? &b->grad_in[1] : NULL,
                               .bias = bias ? &b->grad_in[2] : NULL};
    return nyx__norm_gradient(ctx, &norm, g, &wanted);
  }
  const nyx_value attr[] = {NYX_LIST(sizes, n), b->attr[1], NYX_I(center),
                            NYX_I(b->need[1] || bias)};
  nyx_tensor *in[] = {g, x, weight}, *out[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(nyx_apply(ctx, &nyx__op_layer_norm_backward, in, 3, attr, out));
  for (int i = 0; i < 3; i++) {
    bool wanted = i < 2 ? b->need[i] : bias;
    if (wanted) {
      b->grad_in[i] = out[i];
    } else {
      nyx_tensor_release(out[i]);
    }
  }
  return NYX_OK;
}

static const nyx_attr rows_attrs[] = {{.name = "normalized_shape",
                                       .type = NYX_ATTR_INTS,
                                       .doc = "sizes of the last dimensions, which are "
                                              "normalized together; the weight's shape "
                                              "when left out, or the last dimension"},
                                      {.name = "eps",
                                       .type = NYX_ATTR_FLOAT,
                                       .preset = {.f = 1e-5, .given = true},
                                       .doc = "added to the variance"}};

static nyx_status infer_layer_norm(nyx_call *c) {
  return infer_rows(c, c->in[2]);
}
static nyx_status cpu_layer_norm(nyx_call *c) {
  return cpu_rows(c, true);
}
static nyx_status gradient_layer_norm(nyx_backward *b) {
  return gradient_rows(b, true);
}

const nyx_op nyx__op_layer_norm = {
    .name = "layer_norm",
    .group = "normalization",
    .doc =
        "x with mean 0 and variance 1 over its last dimensions, times weight plus bias "
        "(Ba, Kiros, Hinton: \"Layer normalization\", 2016)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight bias",
    .min_in = 1,
    .max_in = 3,
    .attrs = rows_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_layer_norm,
    .cpu = cpu_layer_norm,
    .gradient = gradient_layer_norm,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .batch = nyx__batch_leading,
    .cases =
        "x(3,4) weight(4) bias(4)\n"
        "x(3,4)\n"
        "x(2,3,4) weight(3,4) bias(3,4); normalized_shape={3,4}\n"
        "x(2,3,4) weight(4); eps=0.1",
};

static nyx_status infer_rms_norm(nyx_call *c) {
  return infer_rows(c, NULL);
}
static nyx_status cpu_rms_norm(nyx_call *c) {
  return cpu_rows(c, false);
}
static nyx_status gradient_rms_norm(nyx_backward *b) {
  return gradient_rows(b, false);
}

const nyx_op nyx__op_rms_norm = {
    .name = "rms_norm",
    .group = "normalization",
    .doc =
        "x divided by the root of its mean square over the last dimensions, times weight "
        "(Zhang, Sennrich: \"Root mean square layer normalization\", 2019)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight",
    .min_in = 1,
    .max_in = 2,
    .attrs = rows_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_rms_norm,
    .cpu = cpu_rms_norm,
    .gradient = gradient_rms_norm,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .batch = nyx__batch_leading,
    .cases =
        "x(3,4) weight(4)\n"
        "x(2,3,4); normalized_shape={3,4} eps=0.01",
};
