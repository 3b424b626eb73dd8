/* The gradient of recurrence: those of the gates and of the first states in one op, or
 * step by step with ops where it has to be differentiated itself; those of x, weights and
 * biases are one product, or one sum, over all steps. Read next: recurrence.c. */
#include <string.h>

#include "../grad/graph.h"
#include "../transform/lift.h"
#include "recurrence.h"

/* Gradients of the products with weight_ih and with weight_hh (one tensor but for a GRU),
 * of the first states, and of the states where they are projected; NULL: zero, or none.
 */
typedef struct results {
  nyx_tensor *dgates, *dhidden, *dh0, *dc0, *dstates;
} results;

/* `length` positions of a dimension. */
static nyx_status part_of(nyx_context *ctx, nyx_tensor *t, int64_t dim, int64_t start,
                          int64_t length, nyx_tensor **out) {
  const nyx_value attr[] = {NYX_I(dim), NYX_I(start), NYX_I(length), NYX_I(1)};
  return nyx__apply1(ctx, NYX__OP_narrow, t, attr, out);
}

/* (length, batch, 1): 1 where a sequence has a step there or (begin) its last one, else 0
 * (dtype NYX_BOOL: true and false). */
static nyx_status mask_of(nyx_backward *b, const nyx__recurrence *r, bool begin,
                          nyx_dtype dtype, nyx_tensor **out) {
  nyx_context *ctx = b->ctx;
  const int64_t shape[] = {r->length, 1, 1};
  const nyx_value last = NYX_I(1);
  nyx_tensor *steps = NULL, *lengths = NULL, *mask = NULL;
  NYX_TRY(nyx_tensor_empty(ctx, NYX_INT64, 3, shape, &steps));
  for (int64_t t = 0; t < r->length; t++) ((int64_t *)nyx__data(steps))[t] = t + begin;
  nyx_status status =
      nyx__apply1(ctx, NYX__OP_unsqueeze, b->in[NYX__REC_LENGTHS], &last, &lengths);
  if (status == NYX_OK)
    status =
        nyx__apply2(ctx, begin ? NYX__OP_eq : NYX__OP_gt, lengths, steps, NULL, &mask);
  if (status == NYX_OK) status = nyx__to_dtype(ctx, mask, dtype, out);
  nyx_tensor_release(steps);
  nyx_tensor_release(lengths);
  nyx_tensor_release(mask);
  return status;
}

/* ------------------------------------------------------------------ step by step */

/* Everything it is made of; `held` is released after every step. */
typedef struct parts {
  nyx_backward *b;
  nyx__recurrence r;
  nyx_tensor *weight, *y, *gates, *cells, *h0, *c0; /* all in the dtype of gates */
  nyx_tensor *project, *live, *begin; /* weight_hr; (length, batch, 1): see mask_of */
  nyx_tensor *dy, *dsaved, *dcells;
  nyx_tensor *dh, *carry; /* what the later step gave: to the state, past its gates */
  nyx_tensor **dgates, **dhidden; /* by position; dhidden of a GRU only */
  nyx_tensor **dstates;           /* the same, of projected states only */
  nyx_tensor *held[48];
  int n;
} parts;

static nyx_tensor *hold(parts *p, nyx_tensor *t) {
  return p->held[p->n++] = t;
}

static void let_go(parts *p) {
  while (p->n > 0) nyx_tensor_release(p->held[--p->n]);
}

static nyx_status evaluate(parts *p, const char *text, nyx_tensor *g, nyx_tensor *x,
                           nyx_tensor *y, nyx_tensor *z, nyx_tensor *r,
                           nyx_tensor **out) {
  NYX_TRY(nyx__evaluate(p->b->ctx, text, (nyx_tensor *[]){g, x, y, z, r},
                        (double[]){0, 0}, out));
  hold(p, *out);
  return NYX_OK;
}

/* Position t, as a sequence of one step. */
static nyx_status step_of(parts *p, nyx_tensor *all, int64_t t, nyx_tensor **out) {
  NYX_TRY(part_of(p->b->ctx, all, 0, t, 1, out));
  hold(p, *out);
  return NYX_OK;
}

/* All `blocks` blocks of columns of position t. */
static nyx_status blocks_of(parts *p, nyx_tensor *all, int64_t t, int64_t blocks,
                            nyx_tensor **out) {
  nyx_tensor *row;
  NYX_TRY(step_of(p, all, t, &row));
  for (int64_t k = 0; k < blocks; k++) {
    NYX_TRY(part_of(p->b->ctx, row, 2, k * p->r.hidden, p->r.hidden, &out[k]));
    hold(p, out[k]);
  }
  return NYX_OK;
}

static nyx_status joined(parts *p, nyx_tensor *const *list, int n, int64_t dim,
                         nyx_tensor **out) {
  const nyx_value attr = NYX_I(dim);
  return nyx__applyn(p->b->ctx, NYX__OP_cat, list, n, &attr, out);
}

/* The state before step s, of y and h0 or of cells and c0. */
static nyx_status before(parts *p, nyx_tensor *all, nyx_tensor *first, int64_t s,
                         nyx_tensor **out) {
  nyx_tensor *last, *begin;
  *out = first;
  if (s == 0) return NYX_OK;
  NYX_TRY(step_of(p, all, nyx__step_at(&p->r, s - 1), &last));
  *out = last;
  if (!p->begin) return NYX_OK;
  NYX_TRY(step_of(p, p->begin, nyx__step_at(&p->r, s), &begin)); /* `last` is 0 there */
  return evaluate(p, "g + x * y", last, begin, first, NULL, NULL, out);
}

/* Of t, what belongs to sequences that have step s; t becomes what belongs to others. */
static nyx_status split(parts *p, int64_t s, nyx_tensor **t, nyx_tensor **own) {
  nyx_tensor *live, *rest;
  *own = *t;
  if (!p->live) return NYX_OK;
  NYX_TRY(step_of(p, p->live, nyx__step_at(&p->r, s), &live));
  NYX_TRY(evaluate(p, "x * y", NULL, *t, live, NULL, NULL, own));
  NYX_TRY(evaluate(p, "x * (K(1) - y)", NULL, *t, live, NULL, NULL, &rest));
  nyx_tensor_release(*t);
  *t = nyx_tensor_retain(rest);
  return NYX_OK;
}

/* *t, what is left over for others, plus `own`. */
static nyx_status unite(parts *p, nyx_tensor *own, nyx_tensor **t) {
  nyx_tensor *sum = own;
  if (p->live) NYX_TRY(evaluate(p, "x + y", NULL, own, *t, NULL, NULL, &sum));
  nyx_tensor_release(*t);
  *t = nyx_tensor_retain(sum);
  return NYX_OK;
}

static nyx_status lstm_step(parts *p, int64_t s, nyx_tensor *dh) {
  int64_t t = nyx__step_at(&p->r, s);
  nyx_tensor *v[4], *g[4], *d[4], *cell, *last, *dc, *more, *carry;
  NYX_TRY(blocks_of(p, p->gates, t, 4, v));
  NYX_TRY(blocks_of(p, p->dsaved, t, 4, g));
  NYX_TRY(step_of(p, p->cells, t, &cell));
  NYX_TRY(step_of(p, p->dcells, t, &more));
  NYX_TRY(before(p, p->cells, p->c0, s, &last));
  NYX_TRY(split(p, s, &p->carry, &carry));
  NYX_TRY(evaluate(p, "x + y", NULL, more, carry, NULL, NULL, &more));
  NYX_TRY(evaluate(p, "g * y * (K(1) - nyx_square(nyx_tanh(x))) + z", dh, cell, v[3],
                   more, NULL, &dc));
  const char *sigmoid = "(g * x + z) * y * (K(1) - y)";
  NYX_TRY(evaluate(p, sigmoid, dc, v[2], v[0], g[0], NULL, &d[0]));
  NYX_TRY(evaluate(p, sigmoid, dc, last, v[1], g[1], NULL, &d[1]));
  NYX_TRY(evaluate(p, "(g * x + z) * (K(1) - y * y)", dc, v[0], v[2], g[2], NULL, &d[2]));
  NYX_TRY(evaluate(p, "(g * nyx_tanh(x) + z) * y * (K(1) - y)", dh, cell, v[3], g[3],
                   NULL, &d[3]));
  NYX_TRY(joined(p, d, 4, 2, &p->dgates[t]));
  NYX_TRY(evaluate(p, "x * y", NULL, dc, v[1], NULL, NULL, &more));
  return unite(p, more, &p->carry);
}

static nyx_status gru_step(parts *p, int64_t s, nyx_tensor *dh) {
  int64_t t = nyx__step_at(&p->r, s);
  nyx_tensor *v[4], *g[4], *d[3], *last, *dn, *more, *carry;
  NYX_TRY(blocks_of(p, p->gates, t, 4, v));
  NYX_TRY(blocks_of(p, p->dsaved, t, 4, g));
  NYX_TRY(before(p, p->y, p->h0, s, &last));
  NYX_TRY(split(p, s, &p->carry, &carry));
  NYX_TRY(evaluate(p, "x + y", NULL, dh, carry, NULL, NULL, &dh));
  NYX_TRY(evaluate(p, "(g * (K(1) - x) + z) * (K(1) - y * y)", dh, v[1], v[2], g[2], NULL,
                   &dn));
  NYX_TRY(evaluate(p, "(g * x + z) * y * (K(1) - y)", dn, v[3], v[0], g[0], NULL, &d[0]));
  NYX_TRY(evaluate(p, "(g * (x - r) + z) * y * (K(1) - y)", dh, last, v[1], g[1], v[2],
                   &d[1]));
  d[2] = dn;
  NYX_TRY(joined(p, d, 3, 2, &p->dgates[t]));
  NYX_TRY(evaluate(p, "g * x + z", dn, v[0], NULL, g[3], NULL, &d[2]));
  NYX_TRY(joined(p, d, 3, 2, &p->dhidden[t]));
  NYX_TRY(evaluate(p, "x * y", NULL, dh, v[1], NULL, NULL, &more));
  return unite(p, more, &p->carry);
}

static nyx_status plain_step(parts *p, int64_t s, nyx_tensor *dh) {
  int64_t t = nyx__step_at(&p->r, s);
  bool relu = p->r.cell == NYX_CELL_RELU;
  const char *text = relu ? "nyx_select(nyx_le(x, K(0)), K(0), g)" : "g * (K(1) - x * x)";
  nyx_tensor *y;
  NYX_TRY(step_of(p, p->y, t, &y));
  NYX_TRY(evaluate(p, text, dh, y, NULL, NULL, NULL, &dh));
  p->dgates[t] = nyx_tensor_retain(dh);
  return NYX_OK;
}

/* p->dh, of the state before step s, from what the step gave to its product. */
static nyx_status go_back(parts *p, int64_t s) {
  int64_t t = nyx__step_at(&p->r, s);
  nyx_tensor *d = p->r.cell == NYX_CELL_GRU ? p->dhidden[t] : p->dgates[t], *dh;
  NYX_TRY(nyx__apply2(p->b->ctx, NYX__OP_matmul, d, p->weight, NULL, &dh));
  return unite(p, hold(p, dh), &p->dh);
}

/* What reaches the cells, from what reaches the states of step s. */
static nyx_status unproject(parts *p, int64_t s, nyx_tensor **dh) {
  if (!p->project) return NYX_OK;
  p->dstates[nyx__step_at(&p->r, s)] = nyx_tensor_retain(*dh);
  NYX_TRY(nyx__apply2(p->b->ctx, NYX__OP_matmul, *dh, p->project, NULL, dh));
  hold(p, *dh);
  return NYX_OK;
}

static nyx_status all_steps(parts *p) {
  for (int64_t s = p->r.length - 1; s >= 0; s--) {
    nyx_tensor *dh, *later;
    NYX_TRY(step_of(p, p->dy, nyx__step_at(&p->r, s), &dh));
    NYX_TRY(split(p, s, &p->dh, &later));
    NYX_TRY(evaluate(p, "x + y", NULL, dh, later, NULL, NULL, &dh));
    NYX_TRY(unproject(p, s, &dh));
    switch (p->r.cell) {
      case NYX_CELL_LSTM: NYX_TRY(lstm_step(p, s, dh)); break;
      case NYX_CELL_GRU: NYX_TRY(gru_step(p, s, dh)); break;
      default: NYX_TRY(plain_step(p, s, dh));
    }
    NYX_TRY(go_back(p, s));
    let_go(p);
  }
  return NYX_OK;
}

/* A list of steps as a sequence: groups of them, then groups of those. The list ends
 * empty. */
static nyx_status join_steps(parts *p, nyx_tensor **list, nyx_tensor **out) {
  int64_t n = p->r.length;
  while (n > 1) {
    int64_t made = 0;
    for (int64_t i = 0; i < n; i += NYX_MAX_INPUTS) {
      int64_t group = n - i < NYX_MAX_INPUTS ? n - i : NYX_MAX_INPUTS;
      nyx_tensor *all;
      NYX_TRY(joined(p, list + i, (int)group, 0, &all));
      for (int64_t k = i; k < i + group; k++) {
        nyx_tensor_release(list[k]);
        list[k] = NULL;
      }
      list[made++] = all;
    }
    n = made;
  }
  *out = list[0];
  list[0] = NULL;
  return NYX_OK;
}

/* t in the dtype of the gates; zeros like `spec` where it is NULL. */
static nyx_status wide(parts *p, nyx_tensor *t, const nyx_spec *spec, nyx_tensor **out) {
  nyx_spec own = *spec;
  own.dtype = p->r.dtype;
  if (t) return nyx__to_dtype(p->b->ctx, t, own.dtype, out);
  return nyx__zeros(p->b->ctx, p->b->in[NYX__REC_WEIGHT_HH], &own, out);
}

/* Replaces *t by its product with mask, if there is one. */
static nyx_status masked(parts *p, nyx_tensor *mask, nyx_tensor **t) {
  nyx_tensor *own = *t;
  if (!mask) return NYX_OK;
  *t = NULL;
  nyx_status status = nyx__apply2(p->b->ctx, NYX__OP_mul, own, mask, NULL, t);
  nyx_tensor_release(own);
  return status;
}

/* Masks of sequences of different lengths, and no gradient of what lies behind the ends.
 */
static nyx_status open_masks(parts *p) {
  nyx_backward *b = p->b;
  if (!b->in[NYX__REC_LENGTHS]) return NYX_OK;
  NYX_TRY(mask_of(b, &p->r, false, p->r.dtype, &p->live));
  if (p->r.reverse) NYX_TRY(mask_of(b, &p->r, true, p->r.dtype, &p->begin));
  NYX_TRY(masked(p, p->live, &p->dy));
  if (p->dsaved) NYX_TRY(masked(p, p->live, &p->dsaved));
  return p->dcells ? masked(p, p->live, &p->dcells) : NYX_OK;
}

/* Everything in one dtype, and what is absent as zeros. */
static nyx_status open_parts(parts *p) {
  nyx_backward *b = p->b;
  const nyx_spec *spec = b->out_spec;
  nyx_spec state = spec[NYX__REC_Y], cell = state;
  state.shape[0] = cell.shape[0] = 1;
  cell.shape[2] = p->r.hidden;
  nyx_tensor *first = NULL;
  NYX_TRY(
      wide(p, b->in[NYX__REC_WEIGHT_HH], &b->in_spec[NYX__REC_WEIGHT_HH], &p->weight));
  if (b->in[NYX__REC_WEIGHT_HR])
    NYX_TRY(nyx__to_dtype(b->ctx, b->in[NYX__REC_WEIGHT_HR], p->r.dtype, &p->project));
  NYX_TRY(wide(p, b->out[NYX__REC_Y], &spec[NYX__REC_Y], &p->y));
  NYX_TRY(wide(p, b->grad_out[NYX__REC_Y], &spec[NYX__REC_Y], &p->dy));
  NYX_TRY(wide(p, NULL, &state, &p->dh));
  NYX_TRY(wide(p, NULL, &cell, &p->carry));
  NYX_TRY(wide(p, NULL, &cell, &first));
  const nyx_value shape[] = {NYX_LIST(state.shape, 3), NYX_LIST(cell.shape, 3)};
  nyx_tensor *const in[] = {b->in[NYX__REC_H0], b->in[NYX__REC_C0]};
  nyx_tensor **const out[] = {&p->h0, &p->c0};
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 2; i++) {
    nyx_tensor *t = NULL;
    if (!in[i]) {
      *out[i] = nyx_tensor_retain(first);
      continue;
    }
    status = nyx__to_dtype(b->ctx, in[i], p->r.dtype, &t);
    if (status == NYX_OK)
      status = nyx__apply1(b->ctx, NYX__OP_reshape, t, &shape[i], out[i]);
    nyx_tensor_release(t);
  }
  nyx_tensor_release(first);
  if (status != NYX_OK || nyx__cells[p->r.cell].saved == 0) return status;
  p->gates = nyx_tensor_retain(b->out[NYX__REC_GATES]);
  NYX_TRY(wide(p, b->grad_out[NYX__REC_GATES], &spec[NYX__REC_GATES], &p->dsaved));
  if (p->r.cell != NYX_CELL_LSTM) return NYX_OK;
  p->cells = nyx_tensor_retain(b->out[NYX__REC_CELLS]);
  return wide(p, b->grad_out[NYX__REC_CELLS], &spec[NYX__REC_CELLS], &p->dcells);
}

/* The first states' gradients, (batch, hidden) as they are. */
static nyx_status close_states(parts *p, results *out) {
  nyx_context *ctx = p->b->ctx;
  const nyx_value dim = NYX_I(0);
  nyx_tensor *sum = NULL;
  if (p->r.cell == NYX_CELL_LSTM)
    NYX_TRY(nyx__apply1(ctx, NYX__OP_squeeze, p->carry, &dim, &out->dc0));
  if (p->r.cell == NYX_CELL_GRU)
    NYX_TRY(nyx__apply2(ctx, NYX__OP_add, p->dh, p->carry, NULL, &sum));
  else
    sum = nyx_tensor_retain(p->dh);
  nyx_status status = nyx__apply1(ctx, NYX__OP_squeeze, sum, &dim, &out->dh0);
  nyx_tensor_release(sum);
  return status;
}

static nyx_status close_parts(parts *p, results *out) {
  if (p->project) NYX_TRY(join_steps(p, p->dstates, &out->dstates));
  NYX_TRY(join_steps(p, p->dgates, &out->dgates));
  if (p->r.cell == NYX_CELL_GRU)
    NYX_TRY(join_steps(p, p->dhidden, &out->dhidden));
  else
    out->dhidden = nyx_tensor_retain(out->dgates);
  return close_states(p, out);
}

static nyx_status by_ops(nyx_backward *b, const nyx__recurrence *r, results *out) {
  parts p = {.b = b, .r = *r};
  size_t bytes = (size_t)r->length * 3 * sizeof *p.dgates;
  p.dgates = nyx_memory_alloc(bytes);
  if (!p.dgates) return nyx__no_memory(b->ctx, bytes);
  memset(p.dgates, 0, bytes);
  p.dhidden = p.dgates + r->length;
  p.dstates = p.dhidden + r->length;
  nyx_status status = open_parts(&p);
  if (status == NYX_OK) status = open_masks(&p);
  if (status == NYX_OK) status = all_steps(&p);
  if (status == NYX_OK) status = close_parts(&p, out);
  let_go(&p);
  for (int64_t i = 0; i < 3 * r->length; i++) nyx_tensor_release(p.dgates[i]);
  nyx_memory_free(p.dgates);
  nyx_tensor *all[] = {p.weight, p.y,      p.gates,  p.cells, p.h0,      p.c0,   p.dy,
                       p.dh,     p.dsaved, p.dcells, p.carry, p.project, p.live, p.begin};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) nyx_tensor_release(all[i]);
  return status;
}

/* ------------------------------------------------------------------ all at once */

static nyx_status by_kernel(nyx_backward *b, const nyx__recurrence *r, results *out) {
  bool lstm = r->cell == NYX_CELL_LSTM, gru = r->cell == NYX_CELL_GRU;
  nyx_tensor *in[] = {b->in[NYX__REC_WEIGHT_HH],
                      b->out[NYX__REC_Y],
                      lstm || gru ? b->out[NYX__REC_GATES] : NULL,
                      lstm ? b->out[NYX__REC_CELLS] : NULL,
                      b->in[NYX__REC_H0],
                      b->in[NYX__REC_C0],
                      b->grad_out[NYX__REC_Y],
                      lstm ? b->grad_out[NYX__REC_CELLS] : NULL,
                      b->in[NYX__REC_WEIGHT_HR],
                      b->in[NYX__REC_LENGTHS]};
  const int n_in = sizeof in / sizeof *in;
  nyx_tensor *made[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(
      nyx_apply(b->ctx, nyx__op(NYX__OP_recurrence_backward), in, n_in, b->attr, made));
  int i = 0;
  out->dgates = made[i++];
  out->dh0 = made[i++];
  if (lstm) out->dc0 = made[i++];
  out->dhidden = gru ? made[i++] : nyx_tensor_retain(out->dgates);
  if (b->in[NYX__REC_WEIGHT_HR]) out->dstates = made[i++];
  return NYX_OK;
}

/* ------------------------------------------------------------------ the weights' */

/* x^T y of all rows of two sequences, or of two matrices. */
static nyx_status over_rows(nyx_context *ctx, nyx_tensor *x, nyx_tensor *y,
                            nyx_tensor **out) {
  const nyx_value turn[] = {NYX_I(0), NYX_I(1)};
  nyx_tensor *flat[2] = {NULL}, *both[] = {x, y}, *turned = NULL;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 2; i++) {
    int64_t columns = both[i]->shape[both[i]->ndim - 1], rows = both[i]->shape[0];
    if (both[i]->ndim == 3) rows *= both[i]->shape[1];
    const int64_t shape[] = {rows, columns};
    const nyx_value to = NYX_LIST(shape, 2);
    status = nyx__apply1(ctx, NYX__OP_reshape, both[i], &to, &flat[i]);
  }
  if (status == NYX_OK)
    status = nyx__apply1(ctx, NYX__OP_transpose, flat[0], turn, &turned);
  if (status == NYX_OK)
    status = nyx__apply2(ctx, NYX__OP_matmul, turned, flat[1], NULL, out);
  nyx_tensor_release(flat[0]);
  nyx_tensor_release(flat[1]);
  nyx_tensor_release(turned);
  return status;
}

/* The same of `length` steps of d, from d0 on, and of y, from y0 on. */
static nyx_status over_steps(nyx_context *ctx, nyx_tensor *d, int64_t d0, nyx_tensor *y,
                             int64_t y0, int64_t length, nyx_tensor **out) {
  nyx_tensor *later = NULL, *earlier = NULL;
  nyx_status status = part_of(ctx, d, 0, d0, length, &later);
  if (status == NYX_OK) status = part_of(ctx, y, 0, y0, length, &earlier);
  if (status == NYX_OK) status = over_rows(ctx, later, earlier, out);
  nyx_tensor_release(later);
  nyx_tensor_release(earlier);
  return status;
}

/* What of d (length, batch, columns) belongs to the first step of each sequence. */
static nyx_status first_step(nyx_backward *b, const nyx__recurrence *r, nyx_tensor *d,
                             nyx_tensor **out) {
  nyx_tensor *begin = NULL, *all = NULL;
  if (!r->reverse || !b->in[NYX__REC_LENGTHS])
    return part_of(b->ctx, d, 0, nyx__step_at(r, 0), 1, out);
  const nyx_value first[] = {NYX_LIST(((int64_t[]){0}), 1), NYX_I(true)};
  nyx_status status = mask_of(b, r, true, d->dtype, &begin);
  if (status == NYX_OK) status = nyx__apply2(b->ctx, NYX__OP_mul, d, begin, NULL, &all);
  if (status == NYX_OK) status = nyx__apply1(b->ctx, NYX__OP_sum, all, first, out);
  nyx_tensor_release(begin);
  nyx_tensor_release(all);
  return status;
}

/* The sum over all steps of d^T times the state before, which is 0 behind the ends. */
static nyx_status weight_gradient(nyx_backward *b, const nyx__recurrence *r,
                                  nyx_tensor *d, nyx_tensor **out) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *y = NULL, *h0 = NULL, *later = NULL, *first = NULL;
  nyx_status status = nyx__to_dtype(ctx, b->out[NYX__REC_Y], d->dtype, &y);
  int64_t n = r->length, back = r->reverse;
  if (status == NYX_OK && n > 1)
    status = over_steps(ctx, d, 1 - back, y, back, n - 1, &later);
  if (status == NYX_OK && b->in[NYX__REC_H0]) {
    nyx_tensor *step = NULL;
    status = nyx__to_dtype(ctx, b->in[NYX__REC_H0], d->dtype, &h0);
    if (status == NYX_OK) status = first_step(b, r, d, &step);
    if (status == NYX_OK) status = over_rows(ctx, step, h0, &first);
    nyx_tensor_release(step);
  }
  if (status == NYX_OK && later && first)
    status = nyx__apply2(ctx, NYX__OP_add, later, first, NULL, out);
  else if (status == NYX_OK && (later || first))
    *out = nyx_tensor_retain(later ? later : first);
  else if (status == NYX_OK)
    status = nyx__zeros(ctx, d, &b->in_spec[NYX__REC_WEIGHT_HH], out);
  nyx_tensor_release(y);
  nyx_tensor_release(h0);
  nyx_tensor_release(later);
  nyx_tensor_release(first);
  return status;
}

/* Gives `t` to input i, in its dtype; NULL: nothing. Takes it over. */
static nyx_status give(nyx_backward *b, int i, nyx_tensor *t) {
  nyx_status status = NYX_OK;
  if (b->need[i] && t)
    status = nyx__to_dtype(b->ctx, t, b->in_spec[i].dtype, &b->grad_in[i]);
  nyx_tensor_release(t);
  return status;
}

/* Copies `from` (steps, batch, columns) to steps t0.. and columns j.. of `to`. */
static nyx_status put(nyx_context *ctx, nyx_tensor *from, nyx_tensor *to, int64_t t0,
                      int64_t j) {
  nyx_tensor *steps = NULL, *place = NULL;
  nyx_status status = part_of(ctx, to, 0, t0, from->shape[0], &steps);
  if (status == NYX_OK) status = part_of(ctx, steps, 2, j, from->shape[2], &place);
  if (status == NYX_OK) status = nyx__copy_into(ctx, from, place);
  nyx_tensor_release(steps);
  nyx_tensor_release(place);
  return status;
}

/* x, zero behind the ends, where it may hold what is no number. */
static nyx_status clean_input(nyx_backward *b, const nyx__recurrence *r, nyx_dtype dtype,
                              nyx_tensor **out) {
  nyx_tensor *x = NULL, *live = NULL, *zero = NULL;
  const nyx_spec none = {.dtype = dtype};
  NYX_TRY(nyx__to_dtype(b->ctx, b->in[NYX__REC_X], dtype, &x));
  *out = x;
  if (!b->in[NYX__REC_LENGTHS]) return NYX_OK;
  *out = NULL;
  nyx_status status = mask_of(b, r, false, NYX_BOOL, &live);
  if (status == NYX_OK) status = nyx__zeros(b->ctx, x, &none, &zero);
  if (status == NYX_OK)
    status =
        nyx__applyn(b->ctx, NYX__OP_where, (nyx_tensor *[]){live, x, zero}, 3, NULL, out);
  nyx_tensor_release(x);
  nyx_tensor_release(live);
  nyx_tensor_release(zero);
  return status;
}

/* Every step's input and the state before it, side by side. */
static nyx_status side_by_side(nyx_backward *b, const nyx__recurrence *r, nyx_dtype dtype,
                               nyx_tensor **out) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *x = NULL, *y = NULL, *first = NULL, *h0 = b->in[NYX__REC_H0];
  const int64_t input = b->in_spec[NYX__REC_X].shape[2];
  const int64_t shape[] = {r->length, r->batch, input + r->state};
  nyx_spec state = {.dtype = dtype, .ndim = 3, .shape = {1, r->batch, r->state}};
  const nyx_value one = NYX_I(0);
  NYX_TRY(clean_input(b, r, dtype, &x));
  nyx_status status = nyx_tensor_empty(ctx, dtype, 3, shape, out);
  if (status == NYX_OK)
    status = h0 ? nyx__apply1(ctx, NYX__OP_unsqueeze, h0, &one, &first)
                : nyx__zeros(ctx, x, &state, &first);
  if (status == NYX_OK) status = put(ctx, x, *out, 0, 0);
  if (status == NYX_OK) status = put(ctx, first, *out, nyx__step_at(r, 0), input);
  if (status == NYX_OK)
    status = part_of(ctx, b->out[NYX__REC_Y], 0, r->reverse, r->length - 1, &y);
  if (status == NYX_OK) status = put(ctx, y, *out, !r->reverse, input);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_tensor_release(first);
  return status;
}

/* Both weights' gradients as one product, which reads the gates' only once. */
static nyx_status give_both(nyx_backward *b, const nyx__recurrence *r, const results *d) {
  nyx_context *ctx = b->ctx;
  const int ids[] = {NYX__REC_WEIGHT_IH, NYX__REC_WEIGHT_HH};
  nyx_tensor *right = NULL, *both = NULL;
  int64_t j = 0;
  nyx_status status = side_by_side(b, r, d->dgates->dtype, &right);
  if (status == NYX_OK) status = over_rows(ctx, d->dgates, right, &both);
  for (int i = 0; status == NYX_OK && i < 2; i++) {
    nyx_tensor *view = NULL, *own = NULL;
    int64_t columns = b->in_spec[ids[i]].shape[1];
    status = part_of(ctx, both, 1, j, columns, &view);
    if (status == NYX_OK) status = nyx__contiguous(ctx, view, &own);
    if (status == NYX_OK) status = give(b, ids[i], own);
    nyx_tensor_release(view);
    j += columns;
  }
  nyx_tensor_release(right);
  nyx_tensor_release(both);
  return status;
}

/* That of weight_hr: of what reaches the states, and the states before projection. */
static nyx_status give_projection(nyx_backward *b, const nyx__recurrence *r,
                                  const results *d) {
  nyx_context *ctx = b->ctx;
  nyx_tensor *o = NULL, *raw = NULL, *states = NULL, *t = NULL;
  if (!b->need[NYX__REC_WEIGHT_HR]) return NYX_OK;
  NYX_TRY(part_of(ctx, b->out[NYX__REC_GATES], 2, 3 * r->hidden, r->hidden, &o));
  nyx_status status =
      nyx__evaluate(ctx, "x * nyx_tanh(y)",
                    (nyx_tensor *[]){NULL, o, b->out[NYX__REC_CELLS], NULL, NULL},
                    (double[]){0, 0}, &raw);
  if (status == NYX_OK) status = nyx__to_dtype(ctx, d->dstates, r->dtype, &states);
  if (status == NYX_OK) status = over_rows(ctx, states, raw, &t);
  nyx_tensor_release(o);
  nyx_tensor_release(raw);
  nyx_tensor_release(states);
  return status == NYX_OK ? give(b, NYX__REC_WEIGHT_HR, t) : status;
}

static nyx_status give_weights(nyx_backward *b, const nyx__recurrence *r, bool recorded,
                               const results *d) {
  nyx_tensor *x, *t = NULL;
  bool both = b->need[NYX__REC_WEIGHT_IH] && b->need[NYX__REC_WEIGHT_HH];
  bool plain = !(b->in[NYX__REC_LENGTHS] && r->reverse && b->in[NYX__REC_H0]);
  NYX_TRY(give_projection(b, r, d));
  if (both && plain && !recorded && d->dgates == d->dhidden) return give_both(b, r, d);
  if (b->need[NYX__REC_WEIGHT_IH]) {
    NYX_TRY(clean_input(b, r, d->dgates->dtype, &x));
    nyx_status status = over_rows(b->ctx, d->dgates, x, &t);
    nyx_tensor_release(x);
    if (status != NYX_OK) return status;
    NYX_TRY(give(b, NYX__REC_WEIGHT_IH, t));
  }
  t = NULL;
  if (!b->need[NYX__REC_WEIGHT_HH]) return NYX_OK;
  NYX_TRY(weight_gradient(b, r, d->dhidden, &t));
  return give(b, NYX__REC_WEIGHT_HH, t);
}

/* The product that gives the gradient of any linear's input. */
static nyx_status give_input(nyx_backward *b, const results *d) {
  nyx_tensor *weight, *dx = NULL;
  NYX_TRY(nyx__to_dtype(b->ctx, b->in[NYX__REC_WEIGHT_IH], d->dgates->dtype, &weight));
  nyx_status status = nyx__apply2(b->ctx, NYX__OP_matmul, d->dgates, weight, NULL, &dx);
  nyx_tensor_release(weight);
  return status == NYX_OK ? give(b, NYX__REC_X, dx) : status;
}

static nyx_status give_biases(nyx_backward *b, const results *d) {
  const int ids[] = {NYX__REC_BIAS_IH, NYX__REC_BIAS_HH};
  nyx_tensor *from[] = {d->dgates, d->dhidden}, *sum = NULL;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < 2; i++) {
    if (!b->need[ids[i]]) continue;
    if (!sum || from[0] != from[1]) {
      nyx_tensor_release(sum);
      sum = NULL;
      status = nyx__sum_to(b->ctx, from[i], &b->in_spec[ids[i]], &sum);
    }
    if (status == NYX_OK) status = give(b, ids[i], nyx_tensor_retain(sum));
  }
  nyx_tensor_release(sum);
  return status;
}

static nyx_status give_all(nyx_backward *b, const nyx__recurrence *r, bool recorded,
                           const results *d) {
  if (b->need[NYX__REC_X]) NYX_TRY(give_input(b, d));
  NYX_TRY(give(b, NYX__REC_H0, nyx_tensor_retain(d->dh0)));
  NYX_TRY(give(b, NYX__REC_C0, nyx_tensor_retain(d->dc0)));
  NYX_TRY(give_weights(b, r, recorded, d));
  return give_biases(b, d);
}

nyx_status nyx__recurrence_gradient(nyx_backward *b) {
  nyx__recurrence r = {.ctx = b->ctx};
  results d = {0};
  NYX_TRY(nyx__recurrence_mode(b->ctx, b->attr[NYX__REC_MODE].s, &r.cell));
  const int64_t *shape = b->out_spec[NYX__REC_Y].shape;
  r.dtype = nyx__compute_dtype(b->out_spec[NYX__REC_Y].dtype);
  r.reverse = b->attr[NYX__REC_REVERSE].i != 0;
  r.length = shape[0];
  r.batch = shape[1];
  r.state = shape[2];
  r.hidden = b->in_spec[NYX__REC_WEIGHT_HH].shape[0] / nyx__cells[r.cell].gates;
  bool gates = nyx__cells[r.cell].saved > 0 && b->grad_out[NYX__REC_GATES];
  bool ops = b->ctx->grad_enabled || gates || nyx__any_lifted(b->grad_out, b->n_out) ||
             nyx__any_lifted(b->in, b->n_in) || nyx__any_lifted(b->out, b->n_out);
  nyx_status status = ops ? by_ops(b, &r, &d) : by_kernel(b, &r, &d);
  if (status == NYX_OK) status = give_all(b, &r, ops, &d);
  nyx_tensor_release(d.dgates);
  nyx_tensor_release(d.dhidden);
  nyx_tensor_release(d.dh0);
  nyx_tensor_release(d.dc0);
  nyx_tensor_release(d.dstates);
  return status;
}
