/* scaled_dot_product_attention, and what it is made of: attention, which also gives each
 * query's log-sum-exp, from which attention_backward computes the gradients without the
 * matrix of all pairs. Read next: attention.h, attention_cpu.c. */
#include "attention.h"

#include <math.h>

#include "../grad/graph.h"
#include "../transform/batch.h"
#include "index.h"

enum { IS_CAUSAL, SCALE, OFFSET, DROPOUT_P, ATTRS };
static const nyx_attr attrs[] = {
    {.name = "is_causal",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 0, .given = true},
     .doc = "whether query i sees the keys up to i only"},
    {.name = "scale",
     .type = NYX_ATTR_FLOAT,
     .doc = "what scores are multiplied by; 1 / sqrt(d) when left out"},
    {.name = "offset",
     .type = NYX_ATTR_INT,
     .preset = {.i = 0, .given = true},
     .doc =
         "with is_causal: query i sees the keys up to i + offset; keys - queries where "
         "the queries are the last ones"},
    {.name = "dropout_p",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 0, .given = true},
     .doc =
         "the probability that a weight is 0; the others are divided by 1 - dropout_p"}};

/* Within what makes a difference. */
static int64_t offset_of(const nyx_value *attr, int64_t queries, int64_t keys) {
  int64_t offset = attr[OFFSET].i;
  return offset > keys ? keys : offset < -queries ? -queries : offset;
}

/* ------------------------------------------------------------------ shapes */

static nyx_status misfit(nyx_context *ctx, const nyx_tensor *q, const nyx_tensor *k,
                         const nyx_tensor *v) {
  return nyx__error(ctx, ATTENTION_SHAPES, NYX__SHAPE(q), NYX__SHAPE(k), NYX__SHAPE(v));
}

/* The size of a dimension that counts from the end; of one that is missing: 1. */
static int64_t size_of(const nyx_tensor *t, int back) {
  return t->ndim >= back ? t->shape[t->ndim - back] : 1;
}

static nyx_status check_dtypes(nyx_context *ctx, nyx_tensor *const qkv[3],
                               const nyx_tensor *mask) {
  static const char *const names[] = {"query", "key", "value"};
  nyx_dtype dtype = qkv[0]->dtype;
  for (int i = 1; i < 3; i++)
    if (qkv[i]->dtype != dtype)
      return nyx__error(ctx, DTYPE_INPUT, names[i], nyx_dtype_name(qkv[i]->dtype),
                        nyx_dtype_name(dtype));
  if (mask && mask->dtype != NYX_BOOL && !nyx_dtype_is_float(mask->dtype))
    return nyx__error(ctx, DTYPE_INPUT, "attn_mask", nyx_dtype_name(mask->dtype),
                      "bool or a float dtype");
  return NYX_OK;
}

/* (.., heads, queries, keys): what the mask has to broadcast to. It is never stored, but
 * for gradients of higher order, and has to be countable. */
static nyx_status scores_spec(nyx_context *ctx, const nyx_tensor *q, const nyx_tensor *k,
                              nyx_spec *spec) {
  int64_t numel;
  nyx__spec(spec, q->dtype, q->ndim, q->shape);
  spec->shape[q->ndim - 1] = size_of(k, 2);
  if (nyx__numel(spec->ndim, spec->shape, sizeof(double), &numel)) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(ctx, SIZE_OVERFLOW,
                    nyx__shape_text(spec->ndim, spec->shape, text, sizeof text));
}

static nyx_status check_mask(nyx_context *ctx, const nyx_tensor *mask,
                             const nyx_spec *scores) {
  bool fits = mask->ndim <= scores->ndim;
  for (int d = 1; fits && d <= mask->ndim; d++) {
    int64_t size = size_of(mask, d);
    fits = size == 1 || size == scores->shape[scores->ndim - d];
  }
  if (fits) return NYX_OK;
  char text[NYX_SHAPE_TEXT];
  return nyx__error(ctx, ATTENTION_MASK, NYX__SHAPE(mask),
                    nyx__shape_text(scores->ndim, scores->shape, text, sizeof text));
}

/* Seeds where there is dropout: one for every head of queries. */
static nyx_status check_seeds(nyx_context *ctx, const nyx_tensor *q,
                              const nyx_tensor *seeds, double p) {
  NYX_TRY(nyx__attention_probability(ctx, p));
  if (!seeds && p == 0) return NYX_OK;
  if (!seeds)
    return nyx__error(ctx, ATTR_MISSING, "seeds",
                      "with dropout_p: int64, a random number for each head of queries");
  if (seeds->dtype != NYX_INT64)
    return nyx__error(ctx, DTYPE_INPUT, "seeds", nyx_dtype_name(seeds->dtype), "int64");
  return nyx__shape_check(ctx, "seeds", seeds, q->ndim - 2, q->shape);
}

/* Checks that all fit and reads sizes. qkv, mask and seeds (NULL is allowed) as in the
 * op. */
static nyx_status read(nyx_context *ctx, nyx_tensor *const qkv[3], nyx_tensor *mask,
                       nyx_tensor *seeds, const nyx_value *attr, nyx__attention *a) {
  const nyx_tensor *q = qkv[0], *k = qkv[1], *v = qkv[2];
  NYX_TRY(check_dtypes(ctx, qkv, mask));
  bool fits = q->ndim >= 2 && k->ndim == q->ndim && v->ndim == q->ndim &&
              size_of(q, 1) == size_of(k, 1) && size_of(k, 2) == size_of(v, 2) &&
              size_of(k, 3) == size_of(v, 3);
  for (int back = 4; fits && back <= q->ndim; back++)
    fits = size_of(q, back) == size_of(k, back) && size_of(k, back) == size_of(v, back);
  int64_t heads = size_of(q, 3), key_heads = size_of(k, 3);
  if (!fits || (key_heads == 0 ? heads != 0 : heads % key_heads != 0))
    return misfit(ctx, q, k, v);
  nyx_spec scores;
  NYX_TRY(scores_spec(ctx, q, k, &scores));
  if (mask) NYX_TRY(check_mask(ctx, mask, &scores));
  NYX_TRY(check_seeds(ctx, q, seeds, attr[DROPOUT_P].f));
  *a = (nyx__attention){.ctx = ctx, .dtype = nyx__compute_dtype(q->dtype)};
  a->lq = size_of(q, 2);
  a->lk = size_of(k, 2);
  a->d = size_of(q, 1);
  a->dv = size_of(v, 1);
  a->group = key_heads ? heads / key_heads : 1;
  a->key_heads = 1;
  for (int d = 0; d < k->ndim - 2; d++) a->key_heads *= k->shape[d];
  a->causal = attr[IS_CAUSAL].i != 0;
  a->ahead = a->causal ? offset_of(attr, a->lq, a->lk) : 0;
  a->scale = attr[SCALE].given ? attr[SCALE].f : 1 / sqrt((double)a->d);
  nyx__attention_drop(a, attr[DROPOUT_P].f);
  return NYX_OK;
}

static nyx_status infer(nyx_call *c) {
  nyx__attention a;
  NYX_TRY(read(c->ctx, c->in, c->in[3], c->in[4], c->attr, &a));
  const nyx_tensor *q = c->in[0];
  nyx__spec(&c->spec[0], c->dtype, q->ndim, q->shape);
  c->spec[0].shape[q->ndim - 1] = a.dv;
  nyx__spec(&c->spec[1], a.dtype, q->ndim - 1, q->shape);
  return NYX_OK;
}

/* ------------------------------------------------------------------ computation */

/* Everything a call holds: inputs in the dtype that is computed in, contiguous or (rows)
 * at least by rows, and outputs. */
typedef struct operands {
  nyx_tensor *in[8], *out[3];
} operands;

static nyx_status by_rows(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                          nyx_tensor **out) {
  if (t->dtype != dtype || (size_of(t, 1) > 1 && t->stride[t->ndim - 1] != 1))
    return nyx__contiguous_as(ctx, t, dtype, out);
  *out = nyx_tensor_retain(t);
  return NYX_OK;
}

/* The mask's matrices, one per head of queries. */
static nyx_status open_mask(nyx__attention *a, nyx_tensor *mask, const nyx_tensor *q,
                            nyx_tensor **out) {
  int64_t stride[NYX_MAX_DIMS];
  a->flags = mask->dtype == NYX_BOOL;
  if (a->flags || mask->dtype == a->dtype)
    *out = nyx_tensor_retain(mask);
  else
    NYX_TRY(nyx__contiguous_as(a->ctx, mask, a->dtype, out));
  nyx__heads_of(q, &a->mask);
  nyx__broadcast_strides(*out, q->ndim, stride);
  a->mask.data = nyx__data(*out);
  a->mask.item = (int64_t)nyx_dtype_size((*out)->dtype);
  for (int d = 0; d < q->ndim - 2; d++) a->mask.stride[d] = stride[d];
  a->mask.row = stride[q->ndim - 2];
  a->mask.column = stride[q->ndim - 1];
  return NYX_OK;
}

static nyx_status open_seeds(nyx__attention *a, nyx_tensor *seeds, nyx_tensor **out) {
  NYX_TRY(nyx__contiguous_as(a->ctx, seeds, NYX_INT64, out));
  a->seeds = nyx__data(*out);
  return NYX_OK;
}

/* qkv, the mask and seeds (NULL is allowed) become in[0..4]; outputs are made, or the
 * call's own. keys: the dtype that keys and values are to have. */
static nyx_status open_operands(nyx_call *c, nyx_tensor *const qkv[3], nyx_tensor *mask,
                                nyx_tensor *seeds, nyx_dtype keys, nyx__attention *a,
                                operands *o) {
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 3; i++)
    status = by_rows(c->ctx, qkv[i], i == 0 ? a->dtype : keys, &o->in[i]);
  if (status == NYX_OK && mask) status = open_mask(a, mask, qkv[0], &o->in[3]);
  if (status == NYX_OK && seeds && a->drop > 0) status = open_seeds(a, seeds, &o->in[4]);
  for (int i = 0; status == NYX_OK && i < c->n_out; i++) {
    if (c->out[i]->dtype == a->dtype)
      o->out[i] = nyx_tensor_retain(c->out[i]);
    else
      status = nyx_tensor_empty(c->ctx, a->dtype, c->out[i]->ndim, c->out[i]->shape,
                                &o->out[i]);
  }
  if (status != NYX_OK) return status;
  nyx__heads_of(o->in[0], &a->q);
  nyx__heads_of(o->in[1], &a->k);
  nyx__heads_of(o->in[2], &a->v);
  nyx__attention_plan(a);
  return NYX_OK;
}

static nyx_status close_operands(nyx_call *c, operands *o, nyx_status status) {
  for (int i = 0; i < c->n_out; i++)
    if (status == NYX_OK && o->out[i] != c->out[i])
      status = nyx__copy_into(c->ctx, o->out[i], c->out[i]);
  for (int i = 0; i < 8; i++) nyx_tensor_release(o->in[i]);
  for (int i = 0; i < 3; i++) nyx_tensor_release(o->out[i]);
  return status;
}

static nyx_status cpu(nyx_call *c) {
  nyx__attention a;
  operands o = {{NULL}, {NULL}};
  NYX_TRY(read(c->ctx, c->in, c->in[3], c->in[4], c->attr, &a));
  nyx_dtype keys = nyx__attention_few(&a) ? c->in[1]->dtype : a.dtype;
  const nyx_cpu_kernels *kernels = nyx__cpu_kernels();
  if (keys != a.dtype && kernels->attention->type[0]->halves)
    a.kind = keys == NYX_FLOAT16 ? NYX_KEYS_FLOAT16 : NYX_KEYS_BFLOAT16;
  else if (keys != a.dtype)
    a.widen = kernels->elementwise->gather[keys][NYX_IN_FLOAT32];
  nyx_status status = open_operands(c, c->in, c->in[3], c->in[4], keys, &a, &o);
  if (status == NYX_OK) {
    a.out = nyx__data(o.out[0]);
    a.lse = nyx__data(o.out[1]);
    status = nyx__attention_forward(&a);
  }
  return close_operands(c, &o, status);
}

/* attention_backward: grad query key value result lse attn_mask seeds */

static nyx_status infer_backward(nyx_call *c) {
  nyx__attention a;
  NYX_TRY(read(c->ctx, c->in + 1, c->in[6], c->in[7], c->attr, &a));
  nyx_spec result;
  nyx__spec(&result, c->dtype, c->in[1]->ndim, c->in[1]->shape);
  result.shape[result.ndim - 1] = a.dv;
  NYX_TRY(nyx__shape_check(c->ctx, "grad", c->in[0], result.ndim, result.shape));
  NYX_TRY(nyx__shape_check(c->ctx, "result", c->in[4], result.ndim, result.shape));
  NYX_TRY(nyx__shape_check(c->ctx, "lse", c->in[5], result.ndim - 1, result.shape));
  for (int i = 0; i < 3; i++)
    nyx__spec(&c->spec[i], c->in[i + 1]->dtype, c->in[i + 1]->ndim, c->in[i + 1]->shape);
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  nyx__attention a;
  nyx__heads g;
  operands o = {{NULL}, {NULL}};
  NYX_TRY(read(c->ctx, c->in + 1, c->in[6], c->in[7], c->attr, &a));
  nyx_status status = open_operands(c, c->in + 1, c->in[6], c->in[7], a.dtype, &a, &o);
  if (status == NYX_OK) status = by_rows(c->ctx, c->in[0], a.dtype, &o.in[5]);
  for (int i = 6; status == NYX_OK && i < 8; i++)
    status = nyx__contiguous_as(c->ctx, c->in[i - 2], a.dtype, &o.in[i]);
  if (status == NYX_OK) {
    nyx__heads_of(o.in[5], &g);
    a.out = nyx__data(o.in[6]);
    a.lse = nyx__data(o.in[7]);
    status = nyx__attention_backward(&a, &g, nyx__data(o.out[0]), nyx__data(o.out[1]),
                                     nyx__data(o.out[2]));
  }
  return close_operands(c, &o, status);
}

/* ------------------------------------------------------------------ gradient with ops */

/* Everything it is made of; `held` counts what has to be released. */
typedef struct parts {
  nyx_backward *b;
  nyx_dtype dtype;
  int64_t group, key_heads;
  double scale;
  nyx_tensor *held[48];
  int n;
} parts;

static nyx_tensor *hold(parts *p, nyx_tensor *t) {
  return p->held[p->n++] = t;
}

static nyx_status apply(parts *p, nyx__op_id id, nyx_tensor *x, nyx_tensor *y,
                        const nyx_value *attr, nyx_tensor **out) {
  NYX_TRY(nyx__applyn(p->b->ctx, id, (nyx_tensor *[]){x, y}, y ? 2 : 1, attr, out));
  hold(p, *out);
  return NYX_OK;
}

static nyx_status evaluate(parts *p, const char *text, nyx_tensor *x, nyx_tensor *y,
                           nyx_tensor *z, nyx_tensor **out) {
  const double attr[2] = {p->scale, 0};
  NYX_TRY(
      nyx__evaluate(p->b->ctx, text, (nyx_tensor *[]){NULL, x, y, z, NULL}, attr, out));
  hold(p, *out);
  return NYX_OK;
}

static nyx_status turned(parts *p, nyx_tensor *t, nyx_tensor **out) {
  const nyx_value dims[] = {NYX_I(-2), NYX_I(-1)};
  return apply(p, NYX__OP_transpose, t, NULL, dims, out);
}

static nyx_status to_dtype(parts *p, nyx_tensor *t, nyx_tensor **out) {
  NYX_TRY(nyx__to_dtype(p->b->ctx, t, p->dtype, out));
  hold(p, *out);
  return NYX_OK;
}

/* Keys or values once for each head of queries. */
static nyx_status spread(parts *p, nyx_tensor *t, nyx_tensor **out) {
  NYX_TRY(to_dtype(p, t, out));
  if (p->group == 1) return NYX_OK;
  const nyx_value attr[] = {NYX_I(p->group), NYX_I(-3)};
  return apply(p, NYX__OP_repeat_interleave, *out, NULL, attr, out);
}

/* The opposite for gradients, which become that of input i. */
static nyx_status gather(parts *p, nyx_tensor *t, int i) {
  const nyx_spec *spec = &p->b->in_spec[i];
  if (p->group > 1) {
    int64_t shape[NYX_MAX_DIMS + 1], over[] = {-3};
    int n = 0;
    for (int d = 0; d < spec->ndim; d++) {
      shape[n++] = spec->shape[d];
      if (d == spec->ndim - 3) shape[n++] = p->group;
    }
    if (n > NYX_MAX_DIMS) return nyx__error(p->b->ctx, NDIM_RANGE, n, NYX_MAX_DIMS);
    const nyx_value attr = NYX_LIST(shape, n), dims[] = {NYX_LIST(over, 1), NYX_I(0)};
    NYX_TRY(apply(p, NYX__OP_reshape, t, NULL, &attr, &t));
    NYX_TRY(apply(p, NYX__OP_sum, t, NULL, dims, &t));
  }
  return nyx__to_dtype(p->b->ctx, t, spec->dtype, &p->b->grad_in[i]);
}

/* The weights again: e^(score - log-sum-exp), whose history is right since lse has one.
 */
static nyx_status weights(parts *p, nyx_tensor *q, nyx_tensor *k, nyx_tensor **out) {
  nyx_backward *b = p->b;
  nyx_tensor *keys, *scores, *mask = b->in[3], *hidden, *lse;
  const nyx_value last = NYX_I(-1), never = NYX_F(-INFINITY);
  NYX_TRY(turned(p, k, &keys));
  NYX_TRY(apply(p, NYX__OP_matmul, q, keys, NULL, &scores));
  NYX_TRY(evaluate(p, "p * x", scores, NULL, NULL, &scores));
  if (mask && mask->dtype == NYX_BOOL) {
    NYX_TRY(apply(p, NYX__OP_logical_not, mask, NULL, NULL, &hidden));
    NYX_TRY(apply(p, NYX__OP_masked_fill, scores, hidden, &never, &scores));
  } else if (mask) {
    NYX_TRY(to_dtype(p, mask, &mask));
    NYX_TRY(apply(p, NYX__OP_add, scores, mask, NULL, &scores));
  }
  if (b->attr[IS_CAUSAL].i) {
    int64_t shape[] = {q->shape[q->ndim - 2], k->shape[k->ndim - 2]};
    const nyx_value all[] = {NYX_LIST(shape, 2), NYX_I(NYX_BOOL)};
    const nyx_value above = NYX_I(1 + offset_of(b->attr, shape[0], shape[1]));
    NYX_TRY(nyx__applyn(b->ctx, NYX__OP_ones, NULL, 0, all, &hidden));
    hold(p, hidden);
    NYX_TRY(apply(p, NYX__OP_triu, hidden, NULL, &above, &hidden));
    NYX_TRY(apply(p, NYX__OP_masked_fill, scores, hidden, &never, &scores));
  }
  NYX_TRY(apply(p, NYX__OP_unsqueeze, b->out[1], NULL, &last, &lse));
  return evaluate(p, "nyx_exp(x - y)", scores, lse, NULL, out);
}

/* x times what dropout makes of weights; x itself where there is none. */
static nyx_status dropped(parts *p, nyx_tensor *x, nyx_tensor **out) {
  nyx_backward *b = p->b;
  nyx_tensor *mask;
  double probability = b->attr[DROPOUT_P].f;
  *out = x;
  if (probability == 0) return NYX_OK;
  const nyx_value attr[] = {NYX_F(probability), NYX_I(x->shape[x->ndim - 2]),
                            NYX_I(x->shape[x->ndim - 1]), NYX_I(p->dtype)};
  NYX_TRY(apply(p, NYX__OP_attention_dropout_mask, b->in[4], NULL, attr, &mask));
  return apply(p, NYX__OP_mul, x, mask, NULL, out);
}

/* The gradient of the scores: weights * (g v^T - (g . out) + that of lse), where g v^T is
 * dropped as the weights are. */
static nyx_status scores_gradient(parts *p, nyx_tensor *w, nyx_tensor *g, nyx_tensor *v,
                                  nyx_tensor **out) {
  nyx_backward *b = p->b;
  nyx_tensor *values, *product, *delta, *own;
  int64_t over[] = {-1};
  const nyx_value last = NYX_I(-1), dims[] = {NYX_LIST(over, 1), NYX_I(1)};
  NYX_TRY(turned(p, v, &values));
  NYX_TRY(apply(p, NYX__OP_matmul, g, values, NULL, &product));
  NYX_TRY(dropped(p, product, &product));
  NYX_TRY(to_dtype(p, b->out[0], &own));
  NYX_TRY(apply(p, NYX__OP_mul, g, own, NULL, &delta));
  NYX_TRY(apply(p, NYX__OP_sum, delta, NULL, dims, &delta));
  if (b->grad_out[1]) {
    NYX_TRY(apply(p, NYX__OP_unsqueeze, b->grad_out[1], NULL, &last, &own));
    NYX_TRY(apply(p, NYX__OP_sub, delta, own, NULL, &delta));
  }
  return evaluate(p, "x * (y - z)", w, product, delta, out);
}

static nyx_status all_gradients(parts *p) {
  nyx_backward *b = p->b;
  nyx_tensor *g = b->grad_out[0], *q, *k, *v, *w, *s, *t;
  if (!g) {
    NYX_TRY(nyx__zeros(b->ctx, b->out[0], &b->out_spec[0], &g));
    hold(p, g);
  }
  NYX_TRY(to_dtype(p, g, &g));
  NYX_TRY(to_dtype(p, b->in[0], &q));
  NYX_TRY(spread(p, b->in[1], &k));
  NYX_TRY(spread(p, b->in[2], &v));
  NYX_TRY(weights(p, q, k, &w));
  if (b->need[2]) {
    NYX_TRY(dropped(p, w, &t));
    NYX_TRY(turned(p, t, &t));
    NYX_TRY(apply(p, NYX__OP_matmul, t, g, NULL, &t));
    NYX_TRY(gather(p, t, 2));
  }
  NYX_TRY(scores_gradient(p, w, g, v, &s));
  if (b->n_in > 3 && b->need[3]) {
    NYX_TRY(nyx__sum_to(b->ctx, s, &b->in_spec[3], &t));
    hold(p, t);
    NYX_TRY(nyx__to_dtype(b->ctx, t, b->in_spec[3].dtype, &b->grad_in[3]));
  }
  if (b->need[0]) {
    NYX_TRY(apply(p, NYX__OP_matmul, s, k, NULL, &t));
    NYX_TRY(evaluate(p, "p * x", t, NULL, NULL, &t));
    NYX_TRY(nyx__to_dtype(b->ctx, t, b->in_spec[0].dtype, &b->grad_in[0]));
  }
  if (!b->need[1]) return NYX_OK;
  NYX_TRY(turned(p, s, &t));
  NYX_TRY(apply(p, NYX__OP_matmul, t, q, NULL, &t));
  NYX_TRY(evaluate(p, "p * x", t, NULL, NULL, &t));
  return gather(p, t, 1);
}

static nyx_status gradient_by_ops(nyx_backward *b) {
  const nyx_spec *q = &b->in_spec[0], *k = &b->in_spec[1];
  parts p = {.b = b, .dtype = nyx__compute_dtype(q->dtype), .group = 1};
  if (q->ndim > 2 && k->shape[k->ndim - 3] > 0)
    p.group = q->shape[q->ndim - 3] / k->shape[k->ndim - 3];
  double d = (double)q->shape[q->ndim - 1];
  p.scale = b->attr[SCALE].given ? b->attr[SCALE].f : 1 / sqrt(d);
  nyx_status status = all_gradients(&p);
  for (int i = 0; i < p.n; i++) nyx_tensor_release(p.held[i]);
  return status;
}

/* First-order gradients in one kernel; with ops when they are to be differentiated, and
 * where the matrix of all pairs is wanted anyway, as the gradient of a mask. */
static nyx_status gradient(nyx_backward *b) {
  nyx_tensor *in[] = {b->grad_out[0], b->in[0],  b->in[1], b->in[2],
                      b->out[0],      b->out[1], b->in[3], b->in[4]};
  bool mask = b->n_in > 3 && b->need[3];
  if (b->ctx->grad_enabled || mask || b->grad_out[1] || nyx__any_lifted(in, 8))
    return gradient_by_ops(b);
  if (!in[0]) return NYX_OK;
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(nyx_apply(b->ctx, nyx__op(NYX__OP_attention_backward), in, 8, b->attr, out));
  for (int i = 0; i < 3; i++) {
    if (b->need[i])
      b->grad_in[i] = out[i];
    else
      nyx_tensor_release(out[i]);
  }
  return NYX_OK;
}

/* ------------------------------------------------------------------ batches, the ops */

/* The batch is one more leading dimension. */
static nyx_status batch(nyx_batch *b) {
  nyx_tensor *in[5] = {NULL};
  nyx_status status = NYX_OK;
  if (b->size == 0) return nyx__batch_each(b);
  int ndim = b->in[0]->ndim - b->batched[0];
  for (int i = 0; status == NYX_OK && i < 3; i++) status = nyx__batch_full(b, i, &in[i]);
  if (status == NYX_OK && b->in[3]) status = nyx__batch_align(b, 3, ndim, &in[3]);
  if (status == NYX_OK && b->in[4]) status = nyx__batch_full(b, 4, &in[4]);
  if (status == NYX_OK) status = nyx__batch_apply(b, in, b->attr);
  for (int i = 0; i < 5; i++) nyx_tensor_release(in[i]);
  return status;
}

const nyx_op nyx__op_attention = {
    .name = "attention",
    .group = "neural",
    .doc =
        "scaled_dot_product_attention of tensors that have the same leading dimensions, "
        "and each query's log-sum-exp of the scores (inf where none takes part). With "
        "dropout_p, seeds says which weights are dropped, as attention_dropout_mask "
        "does: int64 (.., heads)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "query key value attn_mask seeds",
    .min_in = 3,
    .max_in = 5,
    .attrs = attrs,
    .n_attrs = ATTRS,
    .n_out = 2,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .save_in = NYX_SAVE(0) | NYX_SAVE(1) | NYX_SAVE(2) | NYX_SAVE(3) | NYX_SAVE(4),
    .save_out = NYX_SAVE(0) | NYX_SAVE(1),
    .batch = batch,
    .cases =
        "query(3,4) key(5,4) value(5,2)\n"
        "query(2,3,4) key(2,5,4) value(2,5,3); scale=0.7\n"
        "query(4,2,3) key(2,3,3) value(2,3,2) attn_mask(2,3)<bool\n"
        "query(2,2,9,3) key(2,1,10,3) value(2,1,10,2); is_causal=true\n"
        "query(1,2,10,2) key(1,2,9,2) value(1,2,9,3) attn_mask(2,10,9); is_causal=true\n"
        "query(6,2,3) key(2,5,3) value(2,5,2); is_causal=true offset=3\n"
        "query(2,11,2) key(2,10,2) value(2,10,3); is_causal=true offset=-2\n"
        "query(2,9,3) key(2,5,3) value(2,5,2) seeds(2)<int64; dropout_p=0.3\n"
        "query(2,4,3,2) key(2,2,6,2) value(2,2,6,3) attn_mask(3,6) seeds(2,4)<int64; "
        "dropout_p=0.5 is_causal=true offset=3",
    .domain = {-2, 2},
};

const nyx_op nyx__op_attention_backward = {
    .name = "attention_backward",
    .group = "gradient",
    .doc = "the gradients of attention: of query, key and value",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad query key value result lse attn_mask seeds",
    .min_in = 6,
    .max_in = 8,
    .attrs = attrs,
    .n_attrs = ATTRS,
    .no_gradient = true,
    .n_out = 3,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .cases =
        "grad(2,3,4) query(2,3,5) key(2,6,5) value(2,6,4) result(2,3,4) lse(2,3)\n"
        "grad(4,3,2) query(4,3,2) key(2,3,2) value(2,3,2) result(4,3,2) lse(4,3) "
        "attn_mask(3,3)<bool; is_causal=true scale=0.5\n"
        "grad(2,3,2) query(2,3,4) key(2,5,4) value(2,5,2) result(2,3,2) lse(2,3); "
        "is_causal=true offset=2\n"
        "grad(2,3,2) query(2,3,4) key(2,5,4) value(2,5,2) result(2,3,2) lse(2,3) "
        "seeds(2)<int64; dropout_p=0.4",
};

/* ------------------------------------------------------------------ the composite */

/* t expanded to leading dimensions lead[n], `heads` heads, and its own matrix. */
static nyx_status expanded(nyx_context *ctx, nyx_tensor *t, int n, const int64_t *lead,
                           int64_t heads, nyx_tensor **out) {
  int64_t shape[NYX_MAX_DIMS];
  int ndim = n + 3;
  if (ndim > NYX_MAX_DIMS) return nyx__error(ctx, NDIM_RANGE, ndim, NYX_MAX_DIMS);
  for (int d = 0; d < n; d++) shape[d] = lead[d];
  shape[n] = heads;
  shape[n + 1] = size_of(t, 2);
  shape[n + 2] = size_of(t, 1);
  bool same = t->ndim == ndim;
  for (int d = 0; same && d < ndim; d++) same = t->shape[d] == shape[d];
  if (same) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  const nyx_value attr = NYX_LIST(shape, ndim);
  return nyx__apply1(ctx, NYX__OP_expand, t, &attr, out);
}

/* Leading dimensions broadcast, and a single head of one of them is for all of another.
 */
static nyx_status broadcast(nyx_call *c, nyx_tensor *in[3]) {
  nyx_tensor *const *t = c->in;
  int64_t lead[NYX_MAX_DIMS], heads = size_of(t[1], 3);
  int n = 0, most = 0;
  bool fits = true;
  for (int i = 0; i < 3; i++) {
    if (t[i]->ndim < 2) return misfit(c->ctx, t[0], t[1], t[2]);
    int own = t[i]->ndim > 3 ? t[i]->ndim - 3 : 0;
    fits = fits && nyx__broadcast(n, lead, own, t[i]->shape, &n, lead);
    if (t[i]->ndim > most) most = t[i]->ndim;
  }
  if (!fits) return misfit(c->ctx, t[0], t[1], t[2]);
  for (int i = 0; i < 3 && most == 2; i++) in[i] = nyx_tensor_retain(t[i]);
  if (most == 2) return NYX_OK;
  if (heads == 1) heads = size_of(t[2], 3);
  if (heads != size_of(t[2], 3) && size_of(t[2], 3) != 1)
    return misfit(c->ctx, t[0], t[1], t[2]);
  int64_t own[] = {size_of(t[0], 3) == 1 ? heads : size_of(t[0], 3), heads, heads};
  for (int i = 0; i < 3; i++) NYX_TRY(expanded(c->ctx, t[i], n, lead, own[i], &in[i]));
  return NYX_OK;
}

/* A seed for each head of q, where q is. */
static nyx_status draw_seeds(nyx_context *ctx, const nyx_tensor *q, nyx_tensor **out) {
  nyx_tensor *seeds;
  const nyx_value attr[] = {NYX_I(0), NYX_I(INT64_MAX), NYX_LIST(q->shape, q->ndim - 2),
                            NYX_I(NYX_INT64)};
  NYX_TRY(nyx__applyn(ctx, NYX__OP_randint, NULL, 0, attr, &seeds));
  nyx_status status = nyx_tensor_to(ctx, seeds, q->storage->device, out);
  nyx_tensor_release(seeds);
  return status;
}

static nyx_status compute(nyx_call *c) {
  nyx_tensor *in[5] = {NULL, NULL, NULL, c->in[3], NULL};
  NYX_TRY(check_dtypes(c->ctx, c->in, c->in[3]));
  NYX_TRY(nyx__attention_probability(c->ctx, c->attr[DROPOUT_P].f));
  nyx_status status = broadcast(c, in);
  if (status == NYX_OK && c->attr[DROPOUT_P].f > 0)
    status = draw_seeds(c->ctx, in[0], &in[4]);
  if (status == NYX_OK)
    status = nyx__applyn(c->ctx, NYX__OP_attention, in, 5, c->attr, &c->out[0]);
  for (int i = 0; i < 3; i++) nyx_tensor_release(in[i]);
  nyx_tensor_release(in[4]);
  return status;
}

const nyx_op nyx__op_scaled_dot_product_attention = {
    .name = "scaled_dot_product_attention",
    .group = "neural",
    .doc =
        "softmax(scale * query @ key^T + attn_mask) @ value, without the matrix of all "
        "pairs, also backward (Dao et al.: \"FlashAttention\", 2022); query (.., heads, "
        "queries, d), key (.., key heads, keys, d), value (.., key heads, keys, dv), "
        "heads a "
        "multiple of key heads; attn_mask broadcasts to (.., heads, queries, keys): "
        "bool, "
        "true where a key takes part, or numbers that are added; a query that sees no "
        "key "
        "gives 0. Up to 8 queries, as in decoding, read keys and values once, in place. "
        "dropout_p drops weights, as in training: which ones is drawn anew by every "
        "call. "
        "The gradient of a mask and higher orders store all pairs",
    .kind = NYX_OP_COMPOSITE,
    .promotion = NYX_PROMOTE_NONE,
    .autocast = NYX_AUTOCAST_LOW,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "query key value attn_mask",
    .min_in = 3,
    .max_in = 4,
    .attrs = attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .cpu = compute,
    .cases =
        "query(3,4) key(5,4) value(5,2)\n"
        "query(2,4,2,3) key(2,2,3,3) value(2,2,3,2) attn_mask(2,3)<bool\n"
        "query(3,1,9,2) key(2,4,2) value(3,1,4,2); is_causal=true scale=0.5\n"
        "query(2,4,1,3) key(2,2,5,3) value(2,2,5,2); is_causal=true offset=4",
    .domain = {-2, 2},
};
