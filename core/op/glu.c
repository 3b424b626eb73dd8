/* glu: gated linear units over the halves of the last dimension, as one product with a
 * packed weight gives them; and its gradient, one pass each. The values and gradients are
 * those of the rows gate, swiglu and geglu. Read next: kernels/elementwise.def. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/elementwise.h"
#include "../grad/graph.h"
#include "../tensor/tensor.h"
#include "../transform/lift.h"
#include "index.h"
#include "ops.h"

#define PIECE 2048       /* elements of a half at a time: all of them stay in the L1 */
#define RANGE_WORK 16384 /* elements worth waking a thread for */

/* The row that an activation is: of x, the gate, and y, which it multiplies. */
static nyx_status read_row(nyx_context *ctx, const nyx_value *attr, nyx__op_id *op) {
  static const struct {
    const char *name;
    nyx__op_id op;
  } rows[] = {
      {"sigmoid", NYX__OP_gate}, {"silu", NYX__OP_swiglu}, {"gelu", NYX__OP_geglu}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    *op = rows[i].op;
    if (strcmp(attr->s, rows[i].name) == 0) return NYX_OK;
  }
  return nyx__error(ctx, ATTR_CHOICE, "activation", attr->s, "sigmoid, silu or gelu");
}

static nyx_status check_halves(nyx_context *ctx, const nyx_tensor *x) {
  if (x->ndim > 0 && x->shape[x->ndim - 1] % 2 == 0) return NYX_OK;
  return nyx__error(ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                    "an even last size: values and gates");
}

static nyx_status infer(nyx_call *c) {
  nyx__op_id op;
  const nyx_tensor *x = c->in[0];
  NYX_TRY(read_row(c->ctx, &c->attr[0], &op));
  NYX_TRY(check_halves(c->ctx, x));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  c->spec[0].shape[x->ndim - 1] /= 2;
  return NYX_OK;
}

/* Rows of `half` values and `half` gates, with or without a gradient. */
typedef struct halves {
  const nyx_elementwise_fn *parts; /* of the row */
  nyx_gather_fn gather;            /* NULL: of the type that is computed in */
  nyx_scatter_fn scatter;
  size_t item;
  int64_t half, pieces; /* of a row */
  const char *g, *x;    /* g NULL: forward */
  char *out;
} halves;

/* n elements as the kernel wants them. */
static const void *operand(const halves *h, int64_t n, const char *from, float *room) {
  if (!h->gather) return from;
  h->gather(n, from, 1, room);
  return room;
}

static void compute(const halves *h, int part, int64_t n, const void *const *in,
                    char *to) {
  const double none[2] = {0, 0};
  float room[PIECE];
  h->parts[part](n, in, h->scatter ? (void *)room : to, none);
  if (h->scatter) h->scatter(n, room, to, 1);
}

static void run_pieces(void *arg, int64_t begin, int64_t end) {
  const halves *h = arg;
  float room[3][PIECE];
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / h->pieces, first = i % h->pieces * PIECE;
    int64_t n = h->half - first < PIECE ? h->half - first : PIECE;
    size_t narrow = (size_t)(row * h->half + first) * h->item;
    size_t value = (size_t)(2 * row * h->half + first) * h->item;
    size_t gate = value + (size_t)h->half * h->item;
    const void *x = operand(h, n, h->x + gate, room[0]);
    const void *y = operand(h, n, h->x + value, room[1]);
    if (!h->g) {
      compute(h, 0, n, (const void *[]){x, y, x, x, x}, h->out + narrow);
      continue;
    }
    const void *g = operand(h, n, h->g + narrow, room[2]);
    const void *in[] = {g, x, y, x, x};
    compute(h, 1, n, in, h->out + gate);
    compute(h, 2, n, in, h->out + value);
  }
}

/* x, and g unless it is NULL, into c->out[0]. */
static nyx_status run(nyx_call *c, nyx_tensor *g, nyx_tensor *x) {
  const nyx_elementwise_kernels *e = nyx__cpu_kernels()->elementwise;
  nyx_dtype compute_in = nyx__compute_dtype(c->dtype);
  int in = compute_in == NYX_FLOAT64 ? NYX_IN_FLOAT64 : NYX_IN_FLOAT32;
  nyx_tensor *own_g = NULL, *own_x = NULL;
  nyx__op_id op;
  NYX_TRY(read_row(c->ctx, &c->attr[0], &op));
  if (x->numel == 0) return NYX_OK;
  nyx_status status = nyx__contiguous_as(c->ctx, x, c->dtype, &own_x);
  if (status == NYX_OK && g) status = nyx__contiguous_as(c->ctx, g, c->dtype, &own_g);
  if (status == NYX_OK) {
    halves h = {.parts = e->rows[in][nyx__row(op)->id],
                .item = nyx_dtype_size(c->dtype),
                .half = x->shape[x->ndim - 1] / 2,
                .g = own_g ? nyx__data(own_g) : NULL,
                .x = nyx__data(own_x),
                .out = nyx__data(c->out[0])};
    if (c->dtype != compute_in) {
      h.gather = e->gather[c->dtype][in];
      h.scatter = e->scatter[in][c->dtype];
    }
    h.pieces = (h.half + PIECE - 1) / PIECE;
    int64_t longest = h.half < PIECE ? h.half : PIECE;
    nyx_parallel_for(x->numel / (2 * h.half) * h.pieces, RANGE_WORK / (3 * longest) + 1,
                     run_pieces, &h);
  }
  nyx_tensor_release(own_g);
  nyx_tensor_release(own_x);
  return status;
}

static nyx_status cpu(nyx_call *c) {
  return run(c, NULL, c->in[0]);
}

static nyx_status infer_backward(nyx_call *c) {
  nyx__op_id op;
  const nyx_tensor *x = c->in[1];
  int64_t shape[NYX_MAX_DIMS];
  NYX_TRY(read_row(c->ctx, &c->attr[0], &op));
  NYX_TRY(check_halves(c->ctx, x));
  for (int d = 0; d < x->ndim; d++) shape[d] = x->shape[d];
  shape[x->ndim - 1] /= 2;
  NYX_TRY(nyx__shape_check(c->ctx, "grad", c->in[0], x->ndim, shape));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  return run(c, c->in[0], c->in[1]);
}

/* With ops: the gradients of values and gates, side by side. */
static nyx_status gradient_by_ops(nyx_backward *b, nyx__op_id op) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *x = b->in[0], *half[2] = {NULL, NULL}, *both[2] = {NULL, NULL};
  int64_t n = x->shape[x->ndim - 1] / 2;
  const nyx_value last = NYX_I(-1);
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 2; i++) {
    const nyx_value attr[] = {last, NYX_I(i * n), NYX_I(n), NYX_I(1)};
    status = nyx__apply1(ctx, NYX__OP_narrow, x, attr, &half[i]);
  }
  nyx_tensor *value[] = {b->grad_out[0], half[1], half[0], NULL, NULL};
  for (int i = 0; status == NYX_OK && i < 2; i++)
    status = nyx__evaluate(ctx, nyx__row(op)->gradient[1 - i], value, (double[]){0, 0},
                           &both[i]);
  if (status == NYX_OK)
    status = nyx__applyn(ctx, NYX__OP_cat, both, 2, &last, &b->grad_in[0]);
  for (int i = 0; i < 2; i++) {
    nyx_tensor_release(half[i]);
    nyx_tensor_release(both[i]);
  }
  return status;
}

static nyx_status gradient(nyx_backward *b) {
  nyx_tensor *in[] = {b->grad_out[0], b->in[0]};
  nyx__op_id op;
  if (!b->need[0] || !in[0]) return NYX_OK;
  NYX_TRY(read_row(b->ctx, &b->attr[0], &op));
  if (b->ctx->grad_enabled || nyx__any_lifted(in, 2)) return gradient_by_ops(b, op);
  return nyx__applyn(b->ctx, NYX__OP_glu_backward, in, 2, b->attr, &b->grad_in[0]);
}

static const nyx_attr attrs[] = {
    {.name = "activation",
     .type = NYX_ATTR_STRING,
     .preset = {.s = "sigmoid", .given = true},
     .doc = "of the gates: \"sigmoid\", \"silu\" (SwiGLU) or \"gelu\" (GEGLU)"}};

const nyx_op nyx__op_glu = {
    .name = "glu",
    .group = "activation",
    .doc =
        "the first half of x's last dimension times the activation of the second half "
        "(Dauphin et al. 2016; Shazeer 2020)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_FLOAT,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .save_in = NYX_SAVE(0),
    .batch = nyx__batch_leading,
    .cases = "x(4)\nx(3,6); activation=silu\nx(2,3,34); activation=gelu",
    .domain = {-3, 3},
};

const nyx_op nyx__op_glu_backward = {
    .name = "glu_backward",
    .group = "gradient",
    .doc = "the gradient of glu",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad x",
    .min_in = 2,
    .max_in = 2,
    .attrs = attrs,
    .n_attrs = 1,
    .no_gradient = true,
    .n_out = 1,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .cases = "grad(2,3) x(2,6); activation=silu\ngrad(2) x(4); activation=gelu",
};
