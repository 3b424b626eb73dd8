/* cross_entropy and nll_loss with their fused gradients: one pass over rows of classes,
 * stable by log-sum-exp. Rows are added up in ranges of fixed size, so that results do
 * not depend on the number of threads. Read next: loss_gradient.c (gradients with ops),
 * softmax.h (rows). */
#include "loss.h"

#include <math.h>
#include <nyx/parallel.h>
#include <stdio.h>
#include <string.h>

#include "../transform/batch.h"
#include "kernels/cpu/softmax.h"
#include "reduce.h"
#include "softmax.h"

#define GRAIN 16384 /* elements that one task takes */

nyx_status nyx__loss_read(nyx_context *ctx, const nyx_op *op, const nyx_tensor *x,
                          const nyx_tensor *target, const nyx_value *attr,
                          nyx__loss *loss) {
  *loss = (nyx__loss){.class_dim = x->ndim > 1, .rows = 1};
  loss->probabilities = nyx_dtype_is_float(target->dtype);
  loss->ignores = attr[NYX__LOSS_IGNORE].given;
  if (loss->ignores) loss->ignore = attr[NYX__LOSS_IGNORE].i;
  const char *name = attr[NYX__LOSS_REDUCTION].s;
  if (strcmp(name, "mean") == 0)
    loss->reduction = NYX__LOSS_MEAN;
  else if (strcmp(name, "sum") == 0)
    loss->reduction = NYX__LOSS_SUM;
  else if (strcmp(name, "none") == 0)
    loss->reduction = NYX__LOSS_NONE;
  else
    return nyx__error(ctx, REDUCTION_NAME, name);
  loss->log_probabilities = op->n_attrs <= NYX__LOSS_SMOOTHING;
  if (!loss->log_probabilities) loss->smoothing = attr[NYX__LOSS_SMOOTHING].f;
  if (!(loss->smoothing >= 0 && loss->smoothing <= 1))
    return nyx__error(ctx, ATTR_NUMBER, "label_smoothing", loss->smoothing, "0 to 1");
  if (x->ndim == 0)
    return nyx__error(ctx, NDIM_EXPECTED, "x", "",
                      "(classes), (batch, classes) or (batch, classes, ...)");
  loss->classes = x->shape[loss->class_dim];
  for (int d = 0; d < x->ndim; d++)
    if (d != loss->class_dim) loss->rows *= x->shape[d];
  return NYX_OK;
}

static nyx_status check_target(nyx_context *ctx, const nyx__loss *loss,
                               const nyx_tensor *x, const nyx_tensor *target) {
  nyx_spec expected;
  nyx__reduce_spec(&expected, x->dtype, x->ndim, x->shape, 1u << loss->class_dim, false);
  bool whole = loss->probabilities && !loss->log_probabilities;
  int ndim = whole ? x->ndim : expected.ndim;
  const int64_t *shape = whole ? x->shape : expected.shape;
  bool same = target->ndim == ndim;
  for (int d = 0; same && d < ndim; d++) same = target->shape[d] == shape[d];
  if (!same) {
    char other[NYX_SHAPE_TEXT + 32] = "", text[NYX_SHAPE_TEXT];
    if (!loss->log_probabilities)
      snprintf(other, sizeof other, ", or (%s) with probabilities", NYX__SHAPE(x));
    return nyx__error(ctx, TARGET_SHAPE, nyx_dtype_name(target->dtype),
                      NYX__SHAPE(target), NYX__SHAPE(x),
                      nyx__shape_text(expected.ndim, expected.shape, text, sizeof text),
                      other);
  }
  if (target->dtype == NYX_BOOL || (loss->probabilities && !whole))
    return nyx__error(ctx, DTYPE_INPUT, "target", nyx_dtype_name(target->dtype),
                      "class positions (integers)");
  if (loss->probabilities && loss->ignores)
    return nyx__error(ctx, DTYPE_INPUT, "target", nyx_dtype_name(target->dtype),
                      "class positions (integers), because 'ignore_index' is given");
  return NYX_OK;
}

static nyx_status check_inputs(nyx_call *c, nyx_tensor *x, nyx_tensor *target,
                               nyx_tensor *weight, nyx__loss *loss) {
  NYX_TRY(nyx__loss_read(c->ctx, c->op, x, target, c->attr, loss));
  NYX_TRY(check_target(c->ctx, loss, x, target));
  if (weight && (weight->ndim != 1 || weight->shape[0] != loss->classes))
    return nyx__error(c->ctx, CLASS_WEIGHT, NYX__SHAPE(weight), (long long)loss->classes);
  return NYX_OK;
}

/* The spec of the loss itself. */
static void loss_spec(const nyx__loss *loss, nyx_dtype dtype, const nyx_tensor *x,
                      nyx_spec *spec) {
  if (loss->reduction == NYX__LOSS_NONE)
    nyx__reduce_spec(spec, dtype, x->ndim, x->shape, 1u << loss->class_dim, false);
  else
    nyx__spec(spec, dtype, 0, NULL);
}

/* What the rows are computed from. Elements are float or double, as `size` says. */
typedef struct loss_job {
  const nyx_softmax_kernel *kernel;
  nyx__loss loss;
  size_t size;
  int base;             /* of labels */
  const int64_t *label; /* or: */
  const char *probability;
  const char *x, *weight;  /* weight may be NULL */
  double weights, divisor; /* of all classes; of the sum of losses */
  nyx_tensor *owned[4];    /* what the pointers point into */
  const char *g;           /* backward */
  char *y;                 /* the gradient; or losses, one per row, or NULL: */
  double *sums;            /* one per range of `grain` rows */
  int64_t grain;
} loss_job;

static double element(const loss_job *j, const char *from, int64_t i) {
  return j->size == sizeof(double) ? ((const double *)from)[i] : ((const float *)from)[i];
}
static void set_element(const loss_job *j, char *to, int64_t i, double value) {
  if (j->size == sizeof(double))
    ((double *)to)[i] = value;
  else
    ((float *)to)[i] = (float)value;
}
static double weight_of(const loss_job *j, int64_t class) {
  return j->weight ? element(j, j->weight, class) : 1;
}

static void release_job(loss_job *j) {
  for (int i = 0; i < 4; i++) nyx_tensor_release(j->owned[i]);
}

/* A label's class, counted from 0; -1: ignored. */
static int64_t class_of(const loss_job *j, int64_t row) {
  int64_t label = j->label[row];
  if (j->loss.ignores && label == j->loss.ignore) return -1;
  return label - j->base;
}

/* Checks labels and adds up their weights. */
static nyx_status read_labels(nyx_context *ctx, loss_job *j) {
  double sum = 0;
  for (int64_t i = 0; i < j->loss.rows; i++) {
    int64_t label = j->label[i];
    if (j->loss.ignores && label == j->loss.ignore) continue;
    if (label < j->base || label - j->base >= j->loss.classes) {
      char ignore[24] = "not given";
      if (j->loss.ignores)
        snprintf(ignore, sizeof ignore, "%lld", (long long)j->loss.ignore);
      return nyx__error(ctx, CLASS_RANGE, (long long)label, (long long)j->loss.classes,
                        j->base, ignore);
    }
    sum += weight_of(j, label - j->base);
  }
  if (j->loss.reduction == NYX__LOSS_MEAN) j->divisor = sum;
  return NYX_OK;
}

/* t with the classes moved behind the other dimensions, contiguous, of `compute`. */
static nyx_status class_rows(nyx_context *ctx, nyx_tensor *t, int class_dim,
                             nyx_dtype compute, nyx_tensor **out) {
  if (class_dim == t->ndim - 1) return nyx__contiguous_as(ctx, t, compute, out);
  return nyx__float_rows(ctx, t, 1u << class_dim, compute, out);
}

static nyx_status fill_job(nyx_context *ctx, loss_job *j, nyx_dtype compute,
                           nyx_tensor *x, nyx_tensor *target, nyx_tensor *weight) {
  nyx__loss *loss = &j->loss;
  NYX_TRY(class_rows(ctx, x, loss->class_dim, compute, &j->owned[0]));
  j->x = nyx__data(j->owned[0]);
  if (weight) {
    NYX_TRY(nyx__contiguous_as(ctx, weight, compute, &j->owned[1]));
    j->weight = nyx__data(j->owned[1]);
  }
  j->weights = weight ? j->kernel->sum(j->weight, loss->classes) : (double)loss->classes;
  j->divisor = loss->reduction == NYX__LOSS_MEAN ? (double)loss->rows : 1;
  if (loss->probabilities) {
    NYX_TRY(class_rows(ctx, target, loss->class_dim, compute, &j->owned[2]));
    j->probability = nyx__data(j->owned[2]);
    return NYX_OK;
  }
  NYX_TRY(nyx__contiguous_as(ctx, target, NYX_INT64, &j->owned[2]));
  j->label = nyx__data(j->owned[2]);
  return read_labels(ctx, j);
}

static nyx_status open_job(nyx_context *ctx, loss_job *j, const nyx__loss *loss,
                           nyx_dtype compute, nyx_tensor *x, nyx_tensor *target,
                           nyx_tensor *weight) {
  *j = (loss_job){.kernel = nyx__softmax_kernel(compute),
                  .loss = *loss,
                  .size = nyx_dtype_size(compute),
                  .base = ctx->index_base,
                  .grain = GRAIN / (loss->classes + 1) + 1};
  nyx_status status = fill_job(ctx, j, compute, x, target, weight);
  if (status != NYX_OK) release_job(j);
  return status;
}

/* Class c counts q = w (a t + b), t its probability; b is what smoothing gives to all,
 * and what it leaves to a label is added by itself. */
static double even_share(const loss_job *j) {
  return j->loss.smoothing / (double)j->loss.classes;
}
static double own_share(const loss_job *j, int64_t class) {
  return (1 - j->loss.smoothing) * weight_of(j, class);
}

static double row_loss(const loss_job *j, int64_t row) {
  int64_t n = j->loss.classes, class = j->label ? class_of(j, row) : 0;
  if (class < 0) return 0;
  size_t offset = (size_t)(row * n) * j->size;
  const char *x = j->x + offset;
  double most = 0, rest = 0, loss = 0, all = 0; /* log(sum(exp(x))) = most + rest */
  if (!j->loss.log_probabilities) rest = log(j->kernel->exp_sum(x, n, &most, NULL));
  if (j->label) {
    loss = own_share(j, class) * (rest + (most - element(j, x, class)));
    if (j->loss.smoothing == 0) return loss;
  }
  return loss + j->kernel->fall(x, j->label ? NULL : j->probability + offset, j->weight,
                                n, 1 - j->loss.smoothing, even_share(j), most, rest,
                                &all);
}

static void do_losses(void *arg, int64_t begin, int64_t end) {
  const loss_job *j = arg;
  double sum = 0;
  for (int64_t i = begin; i < end; i++) {
    double loss = row_loss(j, i);
    sum += loss;
    if (j->y) set_element(j, j->y, i, loss);
  }
  if (j->sums) j->sums[begin / j->grain] = sum;
}

/* *out = the sum of all rows, of range after range. */
static nyx_status add_losses(nyx_context *ctx, loss_job *j, double *out) {
  double few[16];
  int64_t ranges = (j->loss.rows + j->grain - 1) / j->grain;
  size_t bytes = (size_t)ranges * sizeof *j->sums;
  j->sums = bytes <= sizeof few ? few : nyx_memory_alloc(bytes);
  if (!j->sums) return nyx__no_memory(ctx, bytes);
  nyx_parallel_for(j->loss.rows, j->grain, do_losses, j);
  *out = 0;
  for (int64_t i = 0; i < ranges; i++) *out += j->sums[i];
  if (j->sums != few) nyx_memory_free(j->sums);
  return NYX_OK;
}

static nyx_status loss_infer(nyx_call *c) {
  nyx__loss loss;
  NYX_TRY(check_inputs(c, c->in[0], c->in[1], c->in[2], &loss));
  loss_spec(&loss, c->dtype, c->in[0], &c->spec[0]);
  return NYX_OK;
}

static nyx_status each_loss(nyx_call *c, loss_job *j, nyx_dtype compute) {
  nyx_tensor *out = c->out[0], *rows;
  if (out->dtype == compute)
    rows = nyx_tensor_retain(out);
  else
    NYX_TRY(nyx_tensor_empty(c->ctx, compute, out->ndim, out->shape, &rows));
  j->y = nyx__data(rows);
  nyx_parallel_for(j->loss.rows, j->grain, do_losses, j);
  nyx_status status = rows == out ? NYX_OK : nyx__copy_into(c->ctx, rows, out);
  nyx_tensor_release(rows);
  return status;
}

static nyx_status loss_cpu(nyx_call *c) {
  nyx__loss loss;
  loss_job j;
  nyx_dtype compute = nyx__compute_dtype(c->dtype);
  NYX_TRY(nyx__loss_read(c->ctx, c->op, c->in[0], c->in[1], c->attr, &loss));
  NYX_TRY(open_job(c->ctx, &j, &loss, compute, c->in[0], c->in[1], c->in[2]));
  nyx_status status;
  if (loss.reduction == NYX__LOSS_NONE) {
    status = each_loss(c, &j, compute);
  } else {
    double sum;
    status = add_losses(c->ctx, &j, &sum);
    if (status == NYX_OK)
      nyx__store_double(c->out[0]->dtype, nyx__data(c->out[0]), sum / j.divisor);
  }
  release_job(&j);
  return status;
}

/* The gradients: s (Q softmax(x) - q) where class c counts q[c], Q of all classes
 * together, and s is the gradient of the row's loss. */

static void gradient_row(const loss_job *j, int64_t row) {
  int64_t n = j->loss.classes, class = j->label ? class_of(j, row) : 0;
  size_t offset = (size_t)(row * n) * j->size;
  const char *x = j->x + offset, *target = j->label ? NULL : j->probability + offset;
  char *y = j->y + offset;
  bool each = j->loss.reduction == NYX__LOSS_NONE;
  double s = element(j, j->g, each ? row : 0) / j->divisor, most, all = 0;
  double kept = 1 - j->loss.smoothing, even = even_share(j);
  if (class < 0 || j->loss.log_probabilities) {
    memset(y, 0, (size_t)n * j->size);
  } else {
    double sum = j->kernel->exp_sum(x, n, &most, y);
    if (target)
      j->kernel->fall(x, target, j->weight, n, kept, even, most, 0, &all);
    else
      all = own_share(j, class) + even * j->weights;
    if (target || even != 0)
      j->kernel->take(target, j->weight, n, s * kept, s * even, s * all / sum, y);
    else
      j->kernel->scale(y, n, s * all / sum, y);
  }
  if (j->label && class >= 0)
    set_element(j, y, class, element(j, y, class) - s * own_share(j, class));
}

static void do_gradients(void *arg, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) gradient_row(arg, i);
}

static nyx_status backward_infer(nyx_call *c) {
  nyx__loss loss;
  nyx_spec expected;
  const nyx_tensor *g = c->in[0], *x = c->in[1];
  NYX_TRY(check_inputs(c, c->in[1], c->in[2], c->in[3], &loss));
  loss_spec(&loss, c->dtype, x, &expected);
  bool same = g->ndim == expected.ndim;
  for (int d = 0; same && d < g->ndim; d++) same = g->shape[d] == expected.shape[d];
  if (!same) {
    char text[NYX_SHAPE_TEXT + 2] = "(";
    nyx__shape_text(expected.ndim, expected.shape, text + 1, NYX_SHAPE_TEXT);
    strcat(text, ")");
    return nyx__error(c->ctx, NDIM_EXPECTED, "g", NYX__SHAPE(g), text);
  }
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

static nyx_status write_gradients(nyx_context *ctx, loss_job *j, nyx_dtype compute,
                                  nyx_tensor *out) {
  nyx_tensor *rows;
  uint32_t dims = 1u << j->loss.class_dim;
  NYX_TRY(nyx__reduce_begin(ctx, out, dims, compute, &rows));
  j->y = nyx__data(rows);
  nyx_parallel_for(j->loss.rows, j->grain, do_gradients, j);
  nyx_status status = nyx__reduce_finish(ctx, rows, dims, out);
  nyx_tensor_release(rows);
  return status;
}

static nyx_status backward_cpu(nyx_call *c) {
  nyx__loss loss;
  loss_job j;
  nyx_dtype compute = nyx__compute_dtype(c->dtype);
  if (c->out[0]->numel == 0) return NYX_OK;
  NYX_TRY(nyx__loss_read(c->ctx, c->op, c->in[1], c->in[2], c->attr, &loss));
  NYX_TRY(open_job(c->ctx, &j, &loss, compute, c->in[1], c->in[2], c->in[3]));
  nyx_status status = nyx__contiguous_as(c->ctx, c->in[0], compute, &j.owned[3]);
  if (status == NYX_OK) {
    j.g = nyx__data(j.owned[3]);
    status = write_gradients(c->ctx, &j, compute, c->out[0]);
  }
  release_job(&j);
  return status;
}

/* The table's entries */

static const nyx_attr loss_attrs[NYX__LOSS_ATTRS] = {
    {"ignore_index", NYX_ATTR_INT, false, NYX_NONE,
     "a label whose rows count nothing, as labels are counted"},
    {"reduction", NYX_ATTR_STRING, false, NYX_S("mean"),
     "\"mean\" (by weight), \"sum\" or \"none\""},
    {"label_smoothing", NYX_ATTR_FLOAT, false, NYX_F(0),
     "the part of every target, 0 to 1, that goes to all classes evenly"}};

#define ENTROPY_CASES                                                                    \
  "x(4,3) target(4)<3\n"                                                                 \
  "x(5) target()<5; reduction=sum\n"                                                     \
  "x(4,3) target(4)<3 weight(3); label_smoothing=0.2\n"                                  \
  "x(2,3,2) target(2,2)<3; ignore_index=2 reduction=none label_smoothing=0.1\n"          \
  "x(4,3) target(4)<3; ignore_index=1\n"                                                 \
  "x(4,3) target(4,3) weight(3); reduction=sum label_smoothing=0.3\n"                    \
  "x(2,3,2) target(2,3,2)"

/* Batching: the rows of all entries are rows of one loss, which is reduced afterwards.
 * Where the mean is a weighted one, entry by entry. */
static nyx_status batch_loss(nyx_batch *b) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *in[3] = {NULL}, *part[3] = {NULL}, *rows = NULL;
  nyx_value attr[NYX__LOSS_ATTRS];
  const char *reduction = b->attr[NYX__LOSS_REDUCTION].s;
  bool mean = strcmp(reduction, "mean") == 0;
  bool weighted = (b->n_in > 2 && b->in[2]) || b->attr[NYX__LOSS_IGNORE].given;
  bool one_row = b->in[0]->ndim - b->batched[0] == 1;
  if ((mean && weighted) || (b->n_in > 2 && b->in[2] && b->batched[2]) || b->size == 0)
    return nyx__batch_each(b);
  memcpy(attr, b->attr, (size_t)b->op->n_attrs * sizeof *attr);
  attr[NYX__LOSS_REDUCTION] = NYX_S("none");
  in[2] = b->n_in > 2 ? b->in[2] : NULL;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 2; i++) {
    status = nyx__batch_full(b, i, &part[i]);
    if (status == NYX_OK && !one_row) {
      status = nyx__batch_fold(ctx, part[i], 0, &in[i]);
      nyx_tensor_release(part[i]);
      part[i] = in[i];
    }
    in[i] = part[i];
  }
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  if (status == NYX_OK) status = nyx_apply(ctx, b->op, in, b->n_in, attr, out);
  if (status == NYX_OK && one_row) {
    b->out[0] = nyx_tensor_retain(out[0]);
  } else if (status == NYX_OK) {
    status = nyx__batch_fold(ctx, out[0], b->size, &rows);
    int64_t dims[NYX_MAX_DIMS];
    int n = rows ? rows->ndim - 1 : 0;
    for (int d = 0; d < n; d++) dims[d] = d + 1;
    const nyx_value over[] = {NYX_LIST(dims, n), NYX_I(0)};
    if (status == NYX_OK && strcmp(reduction, "none") == 0)
      b->out[0] = nyx_tensor_retain(rows);
    else if (status == NYX_OK)
      status =
          nyx__apply1(ctx, mean ? NYX__OP_mean : NYX__OP_sum, rows, over, &b->out[0]);
  }
  nyx_tensor_release(part[0]);
  nyx_tensor_release(part[1]);
  nyx_tensor_release(out[0]);
  nyx_tensor_release(rows);
  return status;
}

const nyx_op nyx__op_cross_entropy = {
    .name = "cross_entropy",
    .group = "loss",
    .doc =
        "-log_softmax(x) at the target: x is (classes), (batch, classes) or (batch, "
        "classes, ...), target class positions of that shape without classes, or "
        "probabilities of that shape; weight has one number per class. The mean is over "
        "the weights of the labels; over probabilities it is over rows",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x target weight",
    .min_in = 2,
    .max_in = 3,
    .index_in = NYX_SAVE(1),
    .attrs = loss_attrs,
    .n_attrs = NYX__LOSS_ATTRS,
    .n_out = 1,
    .infer = loss_infer,
    .cpu = loss_cpu,
    .gradient = nyx__loss_gradient,
    .save_in = NYX_SAVE_ALL,
    .save_out = NYX_SAVE(0),
    .batch = batch_loss,
    .cases = ENTROPY_CASES,
    .domain = {-3, 3},
};

const nyx_op nyx__op_nll_loss = {
    .name = "nll_loss",
    .group = "loss",
    .doc =
        "-x at the target, where x is log_softmax's result: the rest is as in "
        "cross_entropy with class positions",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x target weight",
    .min_in = 2,
    .max_in = 3,
    .index_in = NYX_SAVE(1),
    .attrs = loss_attrs,
    .n_attrs = NYX__LOSS_SMOOTHING,
    .n_out = 1,
    .infer = loss_infer,
    .cpu = loss_cpu,
    .gradient = nyx__loss_gradient,
    .save_in = NYX_SAVE_ALL,
    .save_out = NYX_SAVE(0),
    .batch = batch_loss,
    .cases =
        "x(4,3) target(4)<3\n"
        "x(5) target()<5 weight(5)\n"
        "x(4,3) target(4)<3 weight(3); reduction=sum\n"
        "x(2,3,2) target(2,2)<3 weight(3); ignore_index=2 reduction=none\n"
        "x(4,3) target(4)<3 weight(3); ignore_index=1",
    .domain = {-3, 3},
};

#define BACKWARD_OP(op_name, its_doc, attr_count, its_cases)                             \
  const nyx_op nyx__op_##op_name = {.name = #op_name,                                    \
                                    .group = "gradient",                                 \
                                    .doc = its_doc,                                      \
                                    .kind = NYX_OP_STRUCTURAL,                           \
                                    .promotion = NYX_PROMOTE_COMMON,                     \
                                    .dtypes = NYX_DTYPES_FLOAT,                          \
                                    .inputs = "g x target weight",                       \
                                    .min_in = 3,                                         \
                                    .max_in = 4,                                         \
                                    .index_in = NYX_SAVE(2),                             \
                                    .attrs = loss_attrs,                                 \
                                    .n_attrs = attr_count,                               \
                                    .n_out = 1,                                          \
                                    .overwrites = true,                                  \
                                    .infer = backward_infer,                             \
                                    .cpu = backward_cpu,                                 \
                                    .gradient = nyx__loss_backward_gradient,             \
                                    .save_in = NYX_SAVE_ALL,                             \
                                    .cases = its_cases,                                  \
                                    .domain = {-3, 3}}

BACKWARD_OP(cross_entropy_backward,
            "the gradient of cross_entropy to x, in one pass; g is that of the loss",
            NYX__LOSS_ATTRS,
            "g() x(4,3) target(4)<3\n"
            "g(4) x(4,3) target(4)<3 weight(3); reduction=none label_smoothing=0.2\n"
            "g() x(2,3,2) target(2,2)<3 weight(3); ignore_index=2\n"
            "g() x(4,3) target(4,3) weight(3); reduction=sum label_smoothing=0.3");
BACKWARD_OP(nll_loss_backward,
            "the gradient of nll_loss to x, in one pass; g is that of the loss",
            NYX__LOSS_SMOOTHING,
            "g() x(4,3) target(4)<3\n"
            "g(2,2) x(2,3,2) target(2,2)<3 weight(3); reduction=none\n"
            "g() x(4,3) target(4)<3 weight(3); ignore_index=2");
