/* recurrence: all steps of a recurrent layer, in one direction (Hochreiter, Schmidhuber:
 * "Long short-term memory", 1997; Cho et al.: "Learning phrase representations using RNN
 * encoder-decoder", 2014, with the reset gate after the product; Elman: "Finding
 * structure in time", 1990). nn.LSTM, nn.GRU and nn.RNN are made of it. Read next:
 * recurrence.h, recurrence_cpu.c. */
#include "recurrence.h"

#include <string.h>

#include "../transform/batch.h"
#include "index.h"
#include "norm.h"

const nyx__cell nyx__cells[NYX_CELLS] = {
    [NYX_CELL_LSTM] = {"lstm", 4, 4, 4, {0, 1, 2, 3}, {0, 1, 2, 3}},
    [NYX_CELL_GRU] = {"gru", 3, 4, 4, {0, 1, 2, -1}, {0, 1, -1, 2}},
    [NYX_CELL_TANH] = {"tanh", 1, 1, 0, {0}, {0}},
    [NYX_CELL_RELU] = {"relu", 1, 1, 0, {0}, {0}},
};

static const nyx_attr attrs[] = {
    {.name = "mode",
     .type = NYX_ATTR_STRING,
     .required = true,
     .doc = "lstm, gru, tanh or relu"},
    {.name = "reverse",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 0, .given = true},
     .doc = "whether it goes from the last step to the first"}};

nyx_status nyx__recurrence_mode(nyx_context *ctx, const char *name, nyx_cell *cell) {
  for (int i = 0; i < NYX_CELLS; i++) {
    *cell = (nyx_cell)i;
    if (strcmp(nyx__cells[i].name, name) == 0) return NYX_OK;
  }
  return nyx__error(ctx, ATTR_CHOICE, "mode", name, "lstm, gru, tanh or relu");
}

/* ------------------------------------------------------------------ shapes */

/* The mode, and the sizes of cells and states. */
static nyx_status read_mode(nyx_call *c, const nyx_tensor *weight,
                            const nyx_tensor *project, nyx__recurrence *r) {
  *r = (nyx__recurrence){.ctx = c->ctx, .dtype = nyx__compute_dtype(c->dtype)};
  NYX_TRY(nyx__recurrence_mode(c->ctx, c->attr[NYX__REC_MODE].s, &r->cell));
  r->reverse = c->attr[NYX__REC_REVERSE].i != 0;
  const nyx__cell *cell = &nyx__cells[r->cell];
  int64_t rows = weight->ndim == 2 ? weight->shape[0] : -1;
  if (project && r->cell != NYX_CELL_LSTM)
    return nyx__error(c->ctx, RECURRENCE_PROJECTION, cell->name);
  if (rows < 0 || rows % cell->gates != 0 ||
      (!project && rows != cell->gates * weight->shape[1]))
    return nyx__error(c->ctx, RECURRENCE_WEIGHT, NYX__SHAPE(weight), cell->name,
                      (long long)cell->gates,
                      project ? "features of weight_hr" : "hidden");
  r->hidden = rows / cell->gates;
  r->state = weight->shape[1];
  if (!project) return NYX_OK;
  const int64_t shape[] = {r->state, r->hidden};
  NYX_TRY(nyx__shape_check(c->ctx, "weight_hr", project, 2, shape));
  if (project->numel > 0) return NYX_OK;
  return nyx__error(c->ctx, RECURRENCE_STATE, NYX__SHAPE(project));
}

/* Checks that there is a length for each of the sequences, if any. */
static nyx_status check_lengths(const nyx__recurrence *r, const nyx_tensor *lengths) {
  if (!lengths) return NYX_OK;
  NYX_TRY(nyx__index_check(r->ctx, "lengths", lengths));
  return nyx__shape_check(r->ctx, "lengths", lengths, 1, &r->batch);
}

/* All sizes of recurrence. */
static nyx_status read_sizes(nyx_call *c, nyx__recurrence *r) {
  const nyx_tensor *x = c->in[NYX__REC_X], *weight = c->in[NYX__REC_WEIGHT_IH];
  NYX_TRY(read_mode(c, c->in[NYX__REC_WEIGHT_HH], c->in[NYX__REC_WEIGHT_HR], r));
  int64_t all = nyx__cells[r->cell].gates * r->hidden;
  if (x->ndim != 3 || weight->ndim != 2 || weight->shape[0] != all ||
      weight->shape[1] != x->shape[2] || x->shape[0] < 1 || x->shape[2] < 1)
    return nyx__error(c->ctx, RECURRENCE_INPUT, NYX__SHAPE(x), NYX__SHAPE(weight),
                      (long long)all);
  r->length = x->shape[0];
  r->batch = x->shape[1];
  r->input = x->shape[2];
  return NYX_OK;
}

/* Checks h0 and c0, which may be NULL. */
static nyx_status check_states(const nyx__recurrence *r, const nyx_tensor *h0,
                               const nyx_tensor *c0) {
  const int64_t shape[] = {r->batch, r->hidden}, state[] = {r->batch, r->state};
  if (h0) NYX_TRY(nyx__shape_check(r->ctx, "h0", h0, 2, state));
  if (!c0) return NYX_OK;
  if (r->cell != NYX_CELL_LSTM)
    return nyx__error(r->ctx, RECURRENCE_CELL, nyx__cells[r->cell].name);
  return nyx__shape_check(r->ctx, "c0", c0, 2, shape);
}

static nyx_status infer(nyx_call *c) {
  nyx__recurrence r;
  nyx_tensor **in = c->in;
  NYX_TRY(read_sizes(c, &r));
  NYX_TRY(check_states(&r, in[NYX__REC_H0], in[NYX__REC_C0]));
  NYX_TRY(check_lengths(&r, in[NYX__REC_LENGTHS]));
  const nyx__cell *cell = &nyx__cells[r.cell];
  const int64_t all = cell->gates * r.hidden;
  if (in[NYX__REC_BIAS_IH])
    NYX_TRY(nyx__shape_check(c->ctx, "bias_ih", in[NYX__REC_BIAS_IH], 1, &all));
  if (in[NYX__REC_BIAS_HH])
    NYX_TRY(nyx__shape_check(c->ctx, "bias_hh", in[NYX__REC_BIAS_HH], 1, &all));
  const int64_t state[] = {r.length, r.batch, r.state};
  const int64_t cells[] = {r.length, r.batch, r.hidden};
  const int64_t gates[] = {r.length, r.batch, cell->saved * r.hidden};
  nyx__spec(&c->spec[NYX__REC_Y], c->dtype, 3, state);
  nyx__spec(&c->spec[NYX__REC_GATES], r.dtype, 3, gates);
  nyx__spec(&c->spec[NYX__REC_CELLS], r.dtype, 3, cells);
  c->n_out = r.cell == NYX_CELL_LSTM ? 3 : r.cell == NYX_CELL_GRU ? 2 : 1;
  return NYX_OK;
}

/* ------------------------------------------------------------------ computation */

static char *data_of(const nyx_tensor *t) {
  return t ? nyx__data(t) : NULL;
}

/* All of it, with the lengths, and what was opened closed. */
static nyx_status run_and_close(nyx_call *c, nyx__recurrence *r, nyx_tensor *lengths,
                                nyx__norm_data *data, bool backward) {
  nyx_status status = nyx__recurrence_lengths(r, lengths);
  if (status == NYX_OK) status = nyx__recurrence_run(r, backward);
  nyx_memory_free(r->lengths);
  return nyx__norm_close(c, data, status);
}

static nyx_status cpu(nyx_call *c) {
  nyx__recurrence r;
  nyx__norm_data data;
  NYX_TRY(read_sizes(c, &r));
  NYX_TRY(nyx__norm_open(c, NYX__REC_LENGTHS, &data));
  r.x = data_of(data.in[NYX__REC_X]);
  r.weight_ih = data_of(data.in[NYX__REC_WEIGHT_IH]);
  r.weight_hh = data_of(data.in[NYX__REC_WEIGHT_HH]);
  r.bias_ih = data_of(data.in[NYX__REC_BIAS_IH]);
  r.bias_hh = data_of(data.in[NYX__REC_BIAS_HH]);
  r.h0 = data_of(data.in[NYX__REC_H0]);
  r.c0 = data_of(data.in[NYX__REC_C0]);
  r.weight_hr = data_of(data.in[NYX__REC_WEIGHT_HR]);
  r.y = data_of(data.out[NYX__REC_Y]);
  if (c->n_out > NYX__REC_GATES) r.gates = data_of(data.out[NYX__REC_GATES]);
  if (c->n_out > NYX__REC_CELLS) r.cells = data_of(data.out[NYX__REC_CELLS]);
  return run_and_close(c, &r, c->in[NYX__REC_LENGTHS], &data, false);
}

/* recurrence_backward */

enum {
  WEIGHT_HH,
  RESULT,
  GATES,
  CELLS,
  H0,
  C0,
  GRAD,
  GRAD_CELLS,
  WEIGHT_HR,
  LENGTHS,
  BACK_INPUTS
};

static nyx_status read_backward(nyx_call *c, nyx__recurrence *r) {
  const nyx_tensor *y = c->in[RESULT];
  NYX_TRY(read_mode(c, c->in[WEIGHT_HH], c->in[WEIGHT_HR], r));
  if (y->ndim != 3 || y->shape[0] < 1 || y->shape[2] != r->state)
    return nyx__error(c->ctx, RECURRENCE_RESULT, NYX__SHAPE(y), (long long)r->state);
  r->length = y->shape[0];
  r->batch = y->shape[1];
  return check_lengths(r, c->in[LENGTHS]);
}

/* An input that a mode cannot do without. */
static nyx_status need(nyx_call *c, int i, const char *name, const int64_t *shape) {
  if (!c->in[i]) return nyx__error(c->ctx, TENSOR_MISSING, i + c->ctx->index_base, name);
  return nyx__shape_check(c->ctx, name, c->in[i], 3, shape);
}

static nyx_status infer_backward(nyx_call *c) {
  nyx__recurrence r;
  nyx_tensor **in = c->in;
  NYX_TRY(read_backward(c, &r));
  NYX_TRY(check_states(&r, in[H0], in[C0]));
  const nyx__cell *cell = &nyx__cells[r.cell];
  const int64_t state[] = {r.length, r.batch, r.state};
  const int64_t cells[] = {r.length, r.batch, r.hidden};
  const int64_t gates[] = {r.length, r.batch, cell->gates * r.hidden};
  const int64_t saved[] = {r.length, r.batch, cell->saved * r.hidden};
  bool lstm = r.cell == NYX_CELL_LSTM;
  if (cell->saved > 0) NYX_TRY(need(c, GATES, "gates", saved));
  if (lstm) NYX_TRY(need(c, CELLS, "cells", cells));
  if (in[GRAD]) NYX_TRY(nyx__shape_check(c->ctx, "grad", in[GRAD], 3, state));
  if (in[GRAD_CELLS])
    NYX_TRY(nyx__shape_check(c->ctx, "grad_cells", in[GRAD_CELLS], 3, cells));
  c->n_out = 0;
  nyx__spec(&c->spec[c->n_out++], c->dtype, 3, gates);
  nyx__spec(&c->spec[c->n_out++], c->dtype, 2, state + 1);
  if (lstm) nyx__spec(&c->spec[c->n_out++], c->dtype, 2, cells + 1);
  if (r.cell == NYX_CELL_GRU) nyx__spec(&c->spec[c->n_out++], c->dtype, 3, gates);
  if (in[WEIGHT_HR]) nyx__spec(&c->spec[c->n_out++], c->dtype, 3, state);
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  nyx__recurrence r;
  nyx__norm_data data;
  NYX_TRY(read_backward(c, &r));
  NYX_TRY(nyx__norm_open(c, LENGTHS, &data));
  r.weight_hh = data_of(data.in[WEIGHT_HH]);
  r.y = data_of(data.in[RESULT]);
  r.gates = data_of(data.in[GATES]);
  r.cells = data_of(data.in[CELLS]);
  r.h0 = data_of(data.in[H0]);
  r.c0 = data_of(data.in[C0]);
  r.grad = data_of(data.in[GRAD]);
  r.grad_cells = data_of(data.in[GRAD_CELLS]);
  r.weight_hr = data_of(data.in[WEIGHT_HR]);
  int i = 0;
  r.dgates = data_of(data.out[i++]);
  r.dh0 = data_of(data.out[i++]);
  if (r.cell == NYX_CELL_LSTM) r.dc0 = data_of(data.out[i++]);
  if (r.cell == NYX_CELL_GRU) r.dhidden = data_of(data.out[i++]);
  if (r.weight_hr) r.dstates = data_of(data.out[i++]);
  return run_and_close(c, &r, c->in[LENGTHS], &data, true);
}

/* ------------------------------------------------------------------ batches, the ops */

/* (batch, length, rows, columns) as (length, batch * rows, columns), or back: `parts`. */
static nyx_status fold(nyx_context *ctx, nyx_tensor *t, int64_t parts, nyx_tensor **out) {
  const int64_t order[] = {1, 0, 2, 3};
  const nyx_value turn = NYX_LIST(order, 4);
  nyx_tensor *flat = NULL, *turned = NULL;
  nyx_status status;
  if (parts == 0) {
    const int64_t shape[] = {t->shape[1], t->shape[0] * t->shape[2], t->shape[3]};
    const nyx_value to = NYX_LIST(shape, 3);
    status = nyx__apply1(ctx, NYX__OP_permute, t, &turn, &turned);
    if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_reshape, turned, &to, out);
  } else {
    const int64_t shape[] = {t->shape[0], parts, t->shape[1] / parts, t->shape[2]};
    const nyx_value to = NYX_LIST(shape, 4);
    status = nyx__apply1(ctx, NYX__OP_reshape, t, &to, &flat);
    if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_permute, flat, &turn, out);
  }
  nyx_tensor_release(flat);
  nyx_tensor_release(turned);
  return status;
}

/* Input i with the batch as further rows. */
static nyx_status more_rows(nyx_batch *b, int i, nyx_tensor **out) {
  nyx_tensor *full;
  if (!b->in[i]) return NYX_OK;
  NYX_TRY(nyx__batch_full(b, i, &full));
  nyx_status status = i == NYX__REC_X ? fold(b->ctx, full, 0, out)
                                      : nyx__batch_fold(b->ctx, full, 0, out);
  nyx_tensor_release(full);
  return status;
}

/* Entries that share the weights are further rows. */
static nyx_status batch(nyx_batch *b) {
  nyx_tensor *in[NYX__REC_INPUTS] = {NULL};
  nyx_status status = NYX_OK;
  bool shared = b->size > 0;
  for (int i = NYX__REC_WEIGHT_IH; i <= NYX__REC_BIAS_HH; i++)
    shared = shared && !(b->in[i] && b->batched[i]);
  shared = shared && !(b->in[NYX__REC_WEIGHT_HR] && b->batched[NYX__REC_WEIGHT_HR]);
  if (!shared) return nyx__batch_each(b);
  for (int i = 0; status == NYX_OK && i < NYX__REC_INPUTS; i++) {
    bool rows =
        i == NYX__REC_X || i == NYX__REC_H0 || i == NYX__REC_C0 || i == NYX__REC_LENGTHS;
    if (rows)
      status = more_rows(b, i, &in[i]);
    else if (b->in[i])
      in[i] = nyx_tensor_retain(b->in[i]);
  }
  if (status == NYX_OK) status = nyx__batch_apply(b, in, b->attr);
  for (int i = 0; i < NYX__REC_INPUTS; i++) nyx_tensor_release(in[i]);
  for (int k = 0; status == NYX_OK && k < b->n_out && b->out[k]; k++) {
    nyx_tensor *split;
    status = fold(b->ctx, b->out[k], b->size, &split);
    if (status != NYX_OK) break;
    nyx_tensor_release(b->out[k]);
    b->out[k] = split;
  }
  return status;
}

const nyx_op nyx__op_recurrence = {
    .name = "recurrence",
    .group = "neural",
    .doc =
        "All steps of a layer of an LSTM, a GRU or a simple RNN in one direction, of x "
        "(length, batch, features); weight_ih (gates * hidden, features), weight_hh "
        "(gates * hidden, hidden) and the biases (gates * hidden) have PyTorch's order "
        "of "
        "gates: i f g o, r z n, or one; h0 and c0 (batch, hidden) are zero when left "
        "out. "
        "weight_hr (state, hidden), of an lstm, makes states of fewer features (Sak et "
        "al. "
        "2014), with which weight_hh is (gates * hidden, state), and h0 (batch, state). "
        "lengths (batch), integers from 0 to length: how many steps each sequence has, "
        "where these differ; behind its end all results are 0, x is not looked at, and "
        "with reverse it begins at its own end. Results: the states (length, batch, "
        "state), of lstm and gru the gates, of lstm the cells.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x weight_ih weight_hh bias_ih bias_hh h0 c0 weight_hr lengths",
    .min_in = 3,
    .max_in = NYX__REC_INPUTS,
    .attrs = attrs,
    .n_attrs = NYX__REC_ATTRS,
    .n_out = 3,
    .infer = infer,
    .cpu = cpu,
    .gradient = nyx__recurrence_gradient,
    .save_in = NYX_SAVE(NYX__REC_X) | NYX_SAVE(NYX__REC_WEIGHT_IH) |
               NYX_SAVE(NYX__REC_WEIGHT_HH) | NYX_SAVE(NYX__REC_H0) |
               NYX_SAVE(NYX__REC_C0) | NYX_SAVE(NYX__REC_WEIGHT_HR) |
               NYX_SAVE(NYX__REC_LENGTHS),
    .index_in = NYX_SAVE(NYX__REC_LENGTHS),
    .save_out = NYX_SAVE_ALL,
    .batch = batch,
    .cases =
        "x(3,2,3) weight_ih(8,3) weight_hh(8,2); mode=lstm\n"
        "x(2,2,2) weight_ih(12,2) weight_hh(12,3) bias_ih(12) bias_hh(12) h0(2,3) "
        "c0(2,3); "
        "mode=lstm reverse=true\n"
        "x(3,1,2) weight_ih(6,2) weight_hh(6,2) bias_ih(6) bias_hh(6); mode=gru "
        "reverse=true\n"
        "x(1,2,4) weight_ih(3,4) weight_hh(3,3) bias_ih(3) bias_hh(3) h0(2,3); "
        "mode=tanh\n"
        "x(3,2,2) weight_ih(3,2) weight_hh(3,3); mode=relu\n"
        "x(3,2,2) weight_ih(12,2) weight_hh(12,2) weight_hr(2,3); mode=lstm\n"
        "x(2,2,2) weight_ih(12,2) weight_hh(12,2) bias_ih(12) h0(2,2) c0(2,3) "
        "weight_hr(2,3) lengths(2)<2; mode=lstm reverse=true\n"
        "x(3,3,1) weight_ih(8,1) weight_hh(8,2) h0(3,2) c0(3,2) lengths(3)<3; mode=lstm\n"
        "x(3,3,1) weight_ih(6,1) weight_hh(6,2) bias_hh(6) h0(3,2) lengths(3)<3; "
        "mode=gru "
        "reverse=true\n"
        "x(3,3,2) weight_ih(2,2) weight_hh(2,2) lengths(3)<3; mode=tanh",
    .domain = {-1, 1},
};

const nyx_op nyx__op_recurrence_backward = {
    .name = "recurrence_backward",
    .group = "gradient",
    .doc =
        "The gradients of recurrence: of the products with weight_ih, of h0, for lstm of "
        "c0, for gru of the products with weight_hh, and with weight_hr of the states.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .index_in = NYX_SAVE(LENGTHS),
    .inputs =
        "weight_hh result gates cells h0 c0 grad grad_cells weight_hr "
        "lengths",
    .min_in = 2,
    .max_in = BACK_INPUTS,
    .attrs = attrs,
    .n_attrs = NYX__REC_ATTRS,
    .no_gradient = true,
    .n_out = 4,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .cases =
        "weight_hh(8,2) result(3,2,2) gates(3,2,8) cells(3,2,2); mode=lstm\n"
        "weight_hh(8,2) result(3,2,2) gates(3,2,8) cells(3,2,2) h0(2,2) c0(2,2) "
        "grad(3,2,2) grad_cells(3,2,2); mode=lstm\n"
        "weight_hh(3,3) result(3,2,3); mode=tanh\n"
        "weight_hh(12,2) result(3,2,2) gates(3,2,12) cells(3,2,3) grad(3,2,2) "
        "weight_hr(2,3) lengths(2)<3; mode=lstm",
};
