/* dropout: a random mask of zeros and 1 / (1 - p), and the product with it. Read next:
 * core/base/random.h (which numbers a seed gives). */
#include "../tensor/tensor.h"
#include "ops.h"
#include "random_fill.h"

#define CHUNK 1024 /* numbers made at a time */
#define GRAIN 32768

static nyx_status check_probability(nyx_context *ctx, double p) {
  if (p >= 0 && p <= 1) return NYX_OK;
  return nyx__error(ctx, ATTR_NUMBER, "p", p, "0 to 1");
}

typedef struct mask_run {
  uint64_t seed, first;
  uint64_t drop; /* numbers below this are dropped */
  double keep;   /* the value of those that stay */
  nyx_dtype dtype;
  void *to;
} mask_run;

static void fill_mask(void *arg, int64_t begin, int64_t end) {
  const mask_run *r = arg;
  uint32_t bits[CHUNK];
  for (int64_t i = begin; i < end; i += CHUNK) {
    int64_t n = end - i < CHUNK ? end - i : CHUNK;
    nyx__fill_bits(r->seed, r->first, i, i + n, bits);
    if (r->dtype == NYX_FLOAT32) {
      float *to = (float *)r->to + i, keep = (float)r->keep;
      for (int64_t q = 0; q < n; q++) to[q] = bits[q] >= r->drop ? keep : 0;
    } else {
      double *to = (double *)r->to + i;
      for (int64_t q = 0; q < n; q++) to[q] = bits[q] >= r->drop ? r->keep : 0;
    }
  }
}

static nyx_status infer_mask(nyx_call *c) {
  NYX_TRY(check_probability(c->ctx, c->attr[0].f));
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  nyx__spec_keep(&c->spec[0], c->in[0]);
  return NYX_OK;
}

static nyx_status cpu_mask(nyx_call *c) {
  double p = c->attr[0].f;
  nyx_tensor *to = nyx_tensor_retain(c->out[0]);
  if (nyx_dtype_size(c->dtype) < sizeof(float)) {
    nyx_tensor_release(to);
    NYX_TRY(
        nyx_tensor_empty(c->ctx, NYX_FLOAT32, c->out[0]->ndim, c->out[0]->shape, &to));
  }
  mask_run r = {.seed = c->ctx->seed, .dtype = to->dtype, .to = nyx__data(to)};
  r.first = nyx__random_take(c->ctx, nyx__random_blocks(to->numel, NYX_RANDOM_LANES32));
  r.drop = (uint64_t)(p * 0x1p32);
  r.keep = p < 1 ? 1 / (1 - p) : 0;
  nyx_status status = nyx__parallel_for(c->ctx, to->numel, GRAIN, fill_mask, &r);
  if (status == NYX_OK && to != c->out[0]) status = nyx__copy_into(c->ctx, to, c->out[0]);
  nyx_tensor_release(to);
  return status;
}

static const nyx_attr mask_attrs[] = {{.name = "p",
                                       .type = NYX_ATTR_FLOAT,
                                       .preset = {.f = 0.5, .given = true},
                                       .doc = "the probability of a zero"}};

const nyx_op nyx__op_dropout_mask = {
    .name = "dropout_mask",
    .group = "random",
    .random = true,
    .doc = "a tensor like x of random zeros, with probability p, and 1 / (1 - p)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = mask_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = infer_mask,
    .cpu = cpu_mask,
    .cases = "x(3,4); p=0.25",
};

static nyx_status compute_dropout(nyx_call *c) {
  NYX_TRY(check_probability(c->ctx, c->attr[0].f));
  if (!c->attr[1].i || c->attr[0].f == 0) {
    c->out[0] = nyx_tensor_retain(c->in[0]);
    return NYX_OK;
  }
  nyx_tensor *mask;
  NYX_TRY(nyx__apply1(c->ctx, NYX__OP_dropout_mask, c->in[0], c->attr, &mask));
  nyx_status status = nyx__apply2(c->ctx, NYX__OP_mul, c->in[0], mask, NULL, &c->out[0]);
  nyx_tensor_release(mask);
  return status;
}

static const nyx_attr dropout_attrs[] = {{.name = "p",
                                          .type = NYX_ATTR_FLOAT,
                                          .preset = {.f = 0.5, .given = true},
                                          .doc = "the probability of a zero"},
                                         {.name = "training",
                                          .type = NYX_ATTR_BOOL,
                                          .preset = {.i = 1, .given = true},
                                          .doc = "false: x itself"}};

const nyx_op nyx__op_dropout = {
    .name = "dropout",
    .group = "random",
    .doc =
        "x with random elements zero, with probability p, and the others divided by 1 - "
        "p "
        "(Srivastava et al.: \"Dropout\", 2014)",
    .kind = NYX_OP_COMPOSITE,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = dropout_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .cpu = compute_dropout,
    .cases =
        "x(3,4); p=0.25 training=false\n"
        "x(3,4); p=0",
};
