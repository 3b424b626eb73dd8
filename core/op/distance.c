/* distances: the p-norms of the differences of all rows of two matrices, for p = 1, 2 and
 * infinity, with a gradient that makes none of these differences in memory. What
 * Tensor:cdist is made of where it can (lua/nyx/products.lua). Read next:
 * kernels/cpu/distance.h. */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/distance.h"
#include "../tensor/tensor.h"
#include "../transform/batch.h"
#include "index.h"
#include "ops.h"
#include "steps.h"

#define RANGE (1 << 16) /* differences that are worth a range */

static int64_t rows(const nyx_tensor *t) {
  return t->shape[t->ndim - 2];
}
static int64_t width(const nyx_tensor *t) {
  return t->shape[t->ndim - 1];
}

static nyx_status kind_of(nyx_context *ctx, const nyx_value *p, nyx_distance *kind) {
  *kind = p->f == 1   ? NYX_DISTANCE_SUM
          : p->f == 2 ? NYX_DISTANCE_ROOT
                      : NYX_DISTANCE_MOST;
  if (p->f == 1 || p->f == 2 || p->f == INFINITY) return NYX_OK;
  return nyx__error(ctx, ATTR_NUMBER, "p", p->f, "1, 2 or infinity; cdist takes any");
}

/* The shape of the distances of x and y. */
static nyx_status infer_pairs(nyx_call *c, const nyx_tensor *x, const nyx_tensor *y,
                              nyx_spec *spec) {
  for (int i = 0; i < 2; i++) {
    const nyx_tensor *t = i ? y : x;
    if (t->ndim < 2)
      return nyx__error(c->ctx, NDIM_EXPECTED, i ? "y" : "x", NYX__SHAPE(t),
                        "2 dimensions or more (..., rows, columns)");
  }
  if (width(x) != width(y))
    return nyx__error(c->ctx, DISTANCE_COLUMNS, NYX__SHAPE(x), NYX__SHAPE(y));
  if (!nyx__broadcast(x->ndim - 2, x->shape, y->ndim - 2, y->shape, &spec->ndim,
                      spec->shape))
    return nyx__error(c->ctx, BROADCAST, NYX__SHAPE(x), NYX__SHAPE(y));
  spec->shape[spec->ndim++] = rows(x);
  spec->shape[spec->ndim++] = rows(y);
  spec->dtype = c->dtype;
  return NYX_OK;
}

static nyx_status infer(nyx_call *c) {
  nyx_distance kind;
  NYX_TRY(kind_of(c->ctx, &c->attr[0], &kind));
  return infer_pairs(c, c->in[0], c->in[1], &c->spec[0]);
}

/* All pairs of a batch of matrices of equal size. */
typedef struct pairs {
  nyx_distance_job job; /* of the first matrices */
  nyx_distance_fn fn;
  size_t item;
  int64_t rows, out_width; /* of x, of a row of results */
  const void *y;
  char *turned;
} pairs;

/* Columns of y become lines, `step` from one to the next. */
static void turn_range(void *arg, int64_t begin, int64_t end) {
  const pairs *p = arg;
  const int64_t n = p->job.n, step = p->job.step, lines = p->job.width;
  for (int64_t i = begin; i < end; i++) {
    const int64_t from = i / lines * lines * n + i % lines;
    char *to = p->turned + (size_t)(i * step) * p->item;
    memset(to + (size_t)n * p->item, 0, (size_t)(step - n) * p->item);
    if (p->item == sizeof(float))
      for (int64_t j = 0; j < n; j++)
        ((float *)to)[j] = ((const float *)p->y)[from + j * lines];
    else
      for (int64_t j = 0; j < n; j++)
        ((double *)to)[j] = ((const double *)p->y)[from + j * lines];
  }
}

static const void *moved(const void *p, int64_t elements, size_t item) {
  return p ? (const char *)p + (size_t)elements * item : NULL;
}

static void pair_range(void *arg, int64_t begin, int64_t end) {
  const pairs *p = arg;
  const nyx_distance_job *all = &p->job;
  while (begin < end) {
    const int64_t entry = begin / p->rows, first = entry * p->rows;
    const int64_t stop = end < first + p->rows ? end : first + p->rows;
    nyx_distance_job job = *all;
    job.x = moved(all->x, first * all->width, p->item);
    job.turned = p->turned + (size_t)(entry * all->width * all->step) * p->item;
    job.out = (char *)all->out + (size_t)(first * p->out_width) * p->item;
    job.g = moved(all->g, first * all->n, p->item);
    job.at = moved(all->at, first * all->n, p->item);
    p->fn(&job, begin - first, stop - first);
    begin = stop;
  }
}

/* x and y are contiguous and of the batch `count`; the rest of p is filled in. */
static nyx_status run(nyx_context *ctx, pairs *p, const nyx_tensor *x,
                      const nyx_tensor *y, int64_t count) {
  nyx_distance_job *job = &p->job;
  p->item = nyx_dtype_size(x->dtype);
  p->rows = rows(x);
  p->y = nyx__data(y);
  const int64_t pad = NYX_DISTANCE_PAD / (int64_t)p->item;
  job->n = rows(y);
  job->width = width(x);
  job->step = (job->n + pad - 1) / pad * pad;
  job->x = nyx__data(x);
  const size_t bytes = (size_t)(count * job->width * job->step + 1) * p->item;
  if (!(p->turned = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  nyx_status status =
      nyx__parallel_for(ctx, count * job->width, RANGE / job->step + 1, turn_range, p);
  const int64_t grain = RANGE / (job->n * (job->width + 1)) / 4 * 4 + 4;
  if (status == NYX_OK)
    status = nyx__parallel_for(ctx, count * p->rows, grain, pair_range, p);
  nyx_memory_free(p->turned);
  return status;
}

/* t as a batch of matrices with leading dimensions as `like` has. */
static nyx_status spread(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                         const nyx_tensor *like, nyx_tensor **out) {
  int64_t shape[NYX_MAX_DIMS];
  for (int d = 0; d < like->ndim - 2; d++) shape[d] = like->shape[d];
  shape[like->ndim - 2] = rows(t);
  shape[like->ndim - 1] = width(t);
  return nyx__expanded_as(ctx, t, dtype, like->ndim, shape, out);
}

static int64_t batch_of(const nyx_tensor *t) {
  int64_t count = 1;
  for (int d = 0; d < t->ndim - 2; d++) count *= t->shape[d];
  return count;
}

static const nyx_distance_kernel *kernel(nyx_dtype dtype) {
  return nyx__cpu_kernels()->distance->type[dtype == NYX_FLOAT64];
}

static nyx_status cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0], *x = NULL, *y = NULL;
  nyx_distance kind;
  NYX_TRY(kind_of(c->ctx, &c->attr[0], &kind));
  if (out->numel == 0) return NYX_OK;
  pairs p = {.fn = kernel(c->dtype)->forward[kind], .out_width = rows(c->in[1])};
  p.job.out = nyx__data(out);
  nyx_status status = spread(c->ctx, c->in[0], c->dtype, out, &x);
  if (status == NYX_OK) status = spread(c->ctx, c->in[1], c->dtype, out, &y);
  if (status == NYX_OK) status = run(c->ctx, &p, x, y, batch_of(out));
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  return status;
}

/* The gradient of x's rows, one for each entry of the batch. */

enum { X, Y, GRAD, AT };

static nyx_status infer_backward(nyx_call *c) {
  nyx_distance kind;
  nyx_spec *spec = &c->spec[0];
  NYX_TRY(kind_of(c->ctx, &c->attr[0], &kind));
  NYX_TRY(infer_pairs(c, c->in[X], c->in[Y], spec));
  NYX_TRY(nyx__shape_check(c->ctx, "grad", c->in[GRAD], spec->ndim, spec->shape));
  NYX_TRY(nyx__shape_check(c->ctx, "distances", c->in[AT], spec->ndim, spec->shape));
  spec->shape[spec->ndim - 1] = width(c->in[X]);
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  nyx_tensor *out = c->out[0], *of[4] = {NULL};
  nyx_distance kind;
  NYX_TRY(kind_of(c->ctx, &c->attr[0], &kind));
  if (out->numel == 0) return NYX_OK;
  if (rows(c->in[Y]) == 0) {
    memset(nyx__data(out), 0, (size_t)out->numel * nyx_dtype_size(out->dtype));
    return NYX_OK;
  }
  pairs p = {.fn = kernel(c->dtype)->gradient[kind], .out_width = width(out)};
  nyx_status status = NYX_OK;
  for (int i = X; status == NYX_OK && i <= AT; i++)
    status = spread(c->ctx, c->in[i], c->dtype, out, &of[i]);
  if (status == NYX_OK) {
    p.job.out = nyx__data(out);
    p.job.g = nyx__data(of[GRAD]);
    p.job.at = nyx__data(of[AT]);
    status = run(c->ctx, &p, of[X], of[Y], batch_of(out));
  }
  for (int i = X; i <= AT; i++) nyx_tensor_release(of[i]);
  return status;
}

/* All differences, each times what the gradient of its distance gives it. */
static nyx_status weighted(nyx__steps *s, nyx_backward *b, nyx_distance kind,
                           nyx_tensor **out) {
  static const char *const weight =
      "nyx_select(nyx_eq(y, K(0)), K(0), x / nyx_select(nyx_eq(y, K(0)), K(1), y))";
  const nyx_value before_last = NYX_I(-2), first_of_two = NYX_I(-3), last = NYX_I(-1);
  nyx_tensor *x, *y, *g = b->grad_out[0], *at = b->out[0], *difference, *here;
  NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, b->in[0], NULL, &before_last, &x));
  NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, b->in[1], NULL, &first_of_two, &y));
  NYX_TRY(nyx__step(s, NYX__OP_sub, x, y, NULL, &difference));
  if (kind == NYX_DISTANCE_ROOT) NYX_TRY(nyx__step_text(s, weight, g, at, 0, &g));
  NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, g, NULL, &last, &g));
  if (kind == NYX_DISTANCE_MOST) {
    NYX_TRY(nyx__step(s, NYX__OP_unsqueeze, at, NULL, &last, &at));
    const int64_t columns[] = {-1};
    const nyx_value along[] = {NYX_LIST(columns, 1), NYX_I(1)};
    NYX_TRY(nyx__step_text(s, "nyx_select(nyx_eq(nyx_abs(x), y), K(1), K(0))", difference,
                           at, 0, &here));
    NYX_TRY(nyx__step(s, NYX__OP_sum, here, NULL, along, &at));
    NYX_TRY(nyx__step_text(s, "x / nyx_max(y, K(1))", here, at, 0, &here));
    NYX_TRY(nyx__step(s, NYX__OP_mul, here, g, NULL, &g));
  }
  if (kind != NYX_DISTANCE_ROOT)
    NYX_TRY(nyx__step(s, NYX__OP_sign, difference, NULL, NULL, &difference));
  return nyx__step(s, NYX__OP_mul, g, difference, NULL, out);
}

/* What is differentiated again goes through all differences. */
static nyx_status gradients_by_ops(nyx__steps *s, nyx_backward *b, nyx_distance kind) {
  nyx_tensor *all, *t;
  NYX_TRY(weighted(s, b, kind, &all));
  for (int i = 0; i < 2; i++) {
    if (!b->need[i]) continue;
    const int64_t over[] = {i ? -3 : -2};
    const nyx_value along[] = {NYX_LIST(over, 1), NYX_I(0)};
    NYX_TRY(nyx__step(s, NYX__OP_sum, all, NULL, along, &t));
    if (i) NYX_TRY(nyx__step(s, NYX__OP_neg, t, NULL, NULL, &t));
    NYX_TRY(nyx__sum_to(s->ctx, t, &b->in_spec[i], &b->grad_in[i]));
  }
  return NYX_OK;
}

static nyx_status gradients(nyx__steps *s, nyx_backward *b) {
  nyx_distance kind;
  nyx_tensor *in[] = {b->in[0], b->in[1], b->grad_out[0], b->out[0]}, *t;
  NYX_TRY(kind_of(s->ctx, &b->attr[0], &kind));
  if (s->ctx->grad_enabled || nyx__any_lifted(in, 4)) return gradients_by_ops(s, b, kind);
  for (int i = 0; i < 2; i++) {
    if (!b->need[i]) continue;
    if (i) { /* the rows of y, from those of x */
      in[X] = b->in[1], in[Y] = b->in[0];
      for (int k = GRAD; k <= AT; k++) NYX_TRY(nyx__step_turn(s, in[k], &in[k]));
    }
    NYX_TRY(nyx__stepn(s, NYX__OP_distances_backward, in, 4, b->attr, &t));
    NYX_TRY(nyx__sum_to(s->ctx, t, &b->in_spec[i], &b->grad_in[i]));
  }
  return NYX_OK;
}

static nyx_status gradient(nyx_backward *b) {
  nyx__steps s = {.ctx = b->ctx};
  if (!b->grad_out[0]) return NYX_OK;
  return nyx__steps_end(&s, gradients(&s, b));
}

static const nyx_attr attrs[] = {{.name = "p",
                                  .type = NYX_ATTR_FLOAT,
                                  .preset = {.f = 2, .given = true},
                                  .doc = "of the norm: 1, 2 or infinity"}};

#define DTYPES (NYX_DTYPES(NYX_FLOAT32) | NYX_DTYPES(NYX_FLOAT64))

const nyx_op nyx__op_distances = {
    .name = "distances",
    .group = "linear algebra",
    .doc =
        "The p-norm of the difference of every row of x (..., n, k) and every row of y "
        "(..., m, k), (..., n, m); leading dimensions are batches and broadcast. See "
        "cdist, which takes any p.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = DTYPES,
    .inputs = "x y",
    .min_in = 2,
    .max_in = 2,
    .attrs = attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1),
    .save_out = NYX_SAVE(0),
    .batch = nyx__batch_aligned,
    .cases =
        "x(3,4) y(5,4)\n"
        "x(2,1,3,5) y(3,4,5); p=1\n"
        "x(5,3) y(20,3); p=1e999\n"
        "x(2,0) y(3,0)\n"
        "x(0,2) y(3,2)",
    .domain = {-2, 2},
};

const nyx_op nyx__op_distances_backward = {
    .name = "distances_backward",
    .group = "gradient",
    .doc =
        "the gradient of x's rows, (..., n, k), from that of distances; of two equal "
        "rows 0 "
        "where p = 2, shared by the farthest columns where p is infinite",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = DTYPES,
    .inputs = "x y grad distances",
    .min_in = 4,
    .max_in = 4,
    .attrs = attrs,
    .n_attrs = 1,
    .n_out = 1,
    .no_gradient = true,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .cases =
        "x(3,4) y(5,4) grad(3,5) distances(3,5)\n"
        "x(2,3,4) y(2,5,4) grad(2,3,5) distances(2,3,5); p=1",
    .domain = {-2, 2},
};
