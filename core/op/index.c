/* Ops along one dimension at positions from a tensor: gather, scatter, scatter_add,
 * index_select, index_add; and take, over all elements. The loops are in position.c, and
 * in rows.c and remap.c for whole rows; ops at positions in several dimensions in put.c,
 * boolean masks in mask.c. */
#include "index.h"
#include "../transform/batch.h"

#include <stdio.h>
#include <string.h>

#include "../device/device.h"
#include "ops.h"
#include "remap.h"

static nyx_status call_dim(nyx_call *c, int *dim) {
  return nyx__dim(c->ctx, c->attr[0].i, c->in[0]->ndim, dim);
}

static int64_t size_at(const nyx_tensor *t, int d) {
  return t->ndim ? t->shape[d] : 1;
}

static int64_t product(const int64_t *shape, int begin, int end) {
  int64_t n = 1;
  for (int d = begin; d < end; d++) n *= shape[d];
  return n;
}

/* The elements of `index` must lie inside `t` in every dimension but `skip`. */
static nyx_status check_inside(nyx_context *ctx, const nyx_tensor *index,
                               const nyx_tensor *t, const char *name, int skip) {
  if (index->ndim != t->ndim) {
    char expected[64];
    snprintf(expected, sizeof expected, "%d dimensions, as '%s' has", t->ndim, name);
    return nyx__error(ctx, NDIM_EXPECTED, "index", NYX__SHAPE(index), expected);
  }
  for (int d = 0; d < t->ndim; d++)
    if (d != skip && index->shape[d] > t->shape[d])
      return nyx__error(ctx, GATHER_SHAPE, "index", NYX__SHAPE(index), name,
                        NYX__SHAPE(t), d + ctx->index_base);
  return NYX_OK;
}

/* Sets the tables of one side for the index geometry (outer, dim, inner). Tables are
 * written to *table, which moves on; where the strides are regular none is needed. */
static void side_set(nyx__side *s, const nyx_tensor *t, const nyx_tensor *index, int dim,
                     int64_t **table) {
  s->data = nyx__data(t);
  s->step = t->ndim ? t->stride[dim] : 1;
  s->outer_step = 0;
  for (int part = 0; part < 2; part++) {
    int begin = part ? dim + 1 : 0, end = part ? index->ndim : dim;
    int64_t step = part ? 1 : 0, expect = 0, n = product(index->shape, begin, end);
    bool regular = true, first = true; /* a stride may be 0 */
    for (int d = end - 1; d >= begin; d--) {
      if (index->shape[d] == 1) continue;
      if (first && !part) step = t->stride[d];
      if (first) expect = step;
      first = false;
      if (t->stride[d] != expect) regular = false;
      expect = t->stride[d] * index->shape[d];
    }
    if (regular) {
      if (!part) s->outer_step = step;
      continue;
    }
    int64_t *to = *table, count = 1;
    to[0] = 0;
    for (int d = begin; d < end; d++) { /* from the back, as it grows in place */
      int64_t size = index->shape[d];
      for (int64_t i = count - 1; i >= 0; i--) {
        int64_t from = to[i];
        for (int64_t k = size - 1; k >= 0; k--)
          to[i * size + k] = from + k * t->stride[d];
      }
      count *= size;
    }
    *(part ? &s->inner : &s->outer) = to;
    *table += n;
  }
}

/* Runs gather, scatter and their kin: a is addressed by `index` along `dim`, b has its
 * geometry. b may be a single element in memory (step 0). */
static nyx_status along(nyx_context *ctx, nyx__lane_mode mode, const nyx_tensor *a,
                        const nyx_tensor *b, const void *b_value, nyx_tensor *index,
                        int dim) {
  int64_t *tables = NULL;
  nyx__range range = {.size = size_at(a, dim), .dim = dim};
  nyx__held_positions p = {.base = 0};
  if (mode != NYX__GATHER)
    NYX_TRY(nyx__positions_hold(ctx, index, range, mode == NYX__LAST ? b : a, &p));
  nyx__lanes l = {
      .at = p.at, .base = p.base, .at_inner = 1, .dtype = a->dtype, .alpha = 1};
  nyx_status status = NYX_OK;
  if (index->numel > 0) {
    l.outer = product(index->shape, 0, dim);
    l.count = size_at(index, dim);
    l.inner = index->ndim ? product(index->shape, dim + 1, index->ndim) : 1;
    l.at_step = l.inner;
    l.at_outer = l.count * l.inner;
    size_t marks = mode == NYX__LAST ? (size_t)a->numel : 0;
    size_t bytes = (size_t)(l.outer + l.inner) * 2 * sizeof(int64_t) + marks;
    if ((tables = nyx_memory_alloc(bytes))) {
      int64_t *next = tables;
      l.seen = (uint8_t *)tables + (bytes - marks);
      memset(l.seen, 0, marks);
      side_set(&l.a, a, index, dim, &next);
      if (b) {
        side_set(&l.b, b, index, dim, &next);
      } else {
        l.b.data = (char *)b_value; /* only read, as the mode is SCATTER */
        l.b.inner = next;
        for (int64_t i = 0; i < l.inner; i++) next[i] = 0;
      }
      status = mode == NYX__GATHER ? nyx__lanes_gather(ctx, &l, index, range, b)
                                   : nyx__lanes_run(ctx, &l, mode);
    } else {
      status = nyx__no_memory(ctx, bytes);
    }
  }
  nyx_memory_free(tables);
  nyx__positions_drop(&p);
  return status;
}

/* gather */

static nyx_status gather_infer(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  NYX_TRY(nyx__index_check(c->ctx, "index", c->in[1]));
  NYX_TRY(check_inside(c->ctx, c->in[1], c->in[0], "x", dim));
  nyx__spec(&c->spec[0], c->dtype, c->in[1]->ndim, c->in[1]->shape);
  return NYX_OK;
}

static nyx_status gather_cpu(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  return along(c->ctx, NYX__GATHER, c->in[0], c->out[0], NULL, c->in[1], dim);
}

static nyx_status gather_gradient(nyx_backward *b) {
  nyx_tensor *zeros;
  NYX_TRY(nyx__zeros(b->ctx, b->grad_out[0], &b->in_spec[0], &zeros));
  nyx_tensor *in[] = {zeros, b->in[1], b->grad_out[0]};
  nyx_status status =
      nyx__applyn(b->ctx, NYX__OP_scatter_add, in, 3, b->attr, &b->grad_in[0]);
  nyx_tensor_release(zeros);
  return status;
}

static const nyx_attr gather_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, {.given = false}, "the dimension the positions are in"}};

const nyx_op nyx__op_gather = {
    .name = "gather",
    .group = "indexing",
    .doc =
        "Picks along `dim`: out[i][j] = x[index[i][j]][j] for dim 1 of two. `index` has "
        "as many dimensions as x and the shape of the result.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x index",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .attrs = gather_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = gather_infer,
    .cpu = gather_cpu,
    .gradient = gather_gradient,
    .save_in = NYX_SAVE(1),
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases =
        "x(3,4) index(2,4)<3; dim=1\n"
        "x(3,4) index(3,6)<4; dim=2\n"
        "x(2,3,4) index(2,5,2)<3; dim=-2",
    .domain = {-4, 4},
};

/* scatter, scatter_add */

static nyx_status scatter_infer(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  NYX_TRY(nyx__index_check(c->ctx, "index", c->in[1]));
  NYX_TRY(check_inside(c->ctx, c->in[1], c->in[0], "x", dim));
  if (c->n_in > 2 && c->in[2])
    NYX_TRY(check_inside(c->ctx, c->in[1], c->in[2], "src", -1));
  else if (!c->attr[1].given)
    return nyx__error(c->ctx, ATTR_MISSING, "value",
                      "the number to write, where there is no src");
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

static nyx_status scatter_cpu(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  nyx_tensor *out = c->out[0], *src = NULL, *work;
  int64_t value = 0; /* room for one element of any dtype */
  if (c->n_in > 2 && c->in[2])
    NYX_TRY(nyx__apart_as(c->ctx, c->in[2], c->dtype, out, &src));
  else
    NYX_TRY(nyx__value_store(c->ctx, "value", c->attr[1].f, c->dtype, &value));
  nyx_status status = nyx__update_begin(c->ctx, out, false, &work);
  if (status == NYX_OK) {
    status = along(c->ctx, NYX__SCATTER, work, src, &value, c->in[1], dim);
    status = nyx__update_end(c->ctx, work, out, status);
  }
  nyx_tensor_release(src);
  return status;
}

static nyx_status scatter_gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0];
  nyx_value zero[] = {b->attr[0], NYX_F(0)};
  int dim;
  NYX_TRY(nyx__dim(b->ctx, b->attr[0].i, b->in_spec[0].ndim, &dim));
  if (b->need[0])
    NYX_TRY(nyx__apply2(b->ctx, NYX__OP_scatter, g, b->in[1], zero, &b->grad_in[0]));
  if (b->n_in < 3 || !b->need[2]) return NYX_OK;
  nyx_tensor *kept;
  NYX_TRY(nyx__apply2(b->ctx, NYX__OP_scatter_backward, g, b->in[1], b->attr, &kept));
  nyx_status status = nyx__grow_to(b->ctx, kept, &b->in_spec[2], &b->grad_in[2]);
  nyx_tensor_release(kept);
  return status;
}

static const nyx_attr scatter_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, {.given = false}, "the dimension the positions are in"},
    {"value", NYX_ATTR_FLOAT, false, {.given = false}, "written where there is no src"}};

const nyx_op nyx__op_scatter = {
    .name = "scatter",
    .group = "indexing",
    .doc =
        "x with elements of src (or `value`) written along `dim`: out[index[i][j]][j] = "
        "src[i][j] for dim 1 of two. Of equal positions the last one stays.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x index src",
    .min_in = 2,
    .max_in = 3,
    .updates = true,
    .index_in = NYX_SAVE(1),
    .attrs = scatter_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .infer = scatter_infer,
    .cpu = scatter_cpu,
    .gradient = scatter_gradient,
    .save_in = NYX_SAVE(1),
    .batch = nyx__batch_dims,
    .cases =
        "x(3,4) index(2,4)<3 src(2,4); dim=1\n"
        "x(3,4) index(3,6)<4 src(4,7); dim=2\n"
        "x(2,3,4) index(2,2,4)<3; dim=2 value=2.5",
    .domain = {-4, 4},
};

/* scatter_backward */

static nyx_status scatter_backward_infer(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  NYX_TRY(nyx__index_check(c->ctx, "index", c->in[1]));
  NYX_TRY(check_inside(c->ctx, c->in[1], c->in[0], "g", dim));
  nyx__spec(&c->spec[0], c->dtype, c->in[1]->ndim, c->in[1]->shape);
  return NYX_OK;
}

static nyx_status scatter_backward_cpu(nyx_call *c) {
  int dim;
  nyx_tensor *g;
  NYX_TRY(call_dim(c, &dim));
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &g));
  nyx_status status = along(c->ctx, NYX__LAST, g, c->out[0], NULL, c->in[1], dim);
  nyx_tensor_release(g);
  return status;
}

/* What arrived goes back to where it came from, as scatter writes it. */
static nyx_status scatter_backward_gradient(nyx_backward *b) {
  nyx_tensor *zeros;
  nyx_value attr[] = {b->attr[0], NYX_NONE};
  NYX_TRY(nyx__zeros(b->ctx, b->grad_out[0], &b->in_spec[0], &zeros));
  nyx_tensor *in[] = {zeros, b->in[1], b->grad_out[0]};
  nyx_status status = nyx__applyn(b->ctx, NYX__OP_scatter, in, 3, attr, &b->grad_in[0]);
  nyx_tensor_release(zeros);
  return status;
}

const nyx_op nyx__op_scatter_backward = {
    .name = "scatter_backward",
    .group = "gradient",
    .doc =
        "The gradient of scatter's src: as gather, but 0 where a later equal position "
        "overwrote what was written.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "g index",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .attrs = gather_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = scatter_backward_infer,
    .cpu = scatter_backward_cpu,
    .gradient = scatter_backward_gradient,
    .save_in = NYX_SAVE(1),
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases =
        "g(3,4) index(2,4)<3; dim=1\n"
        "g(3,4) index(3,6)<4; dim=2\n"
        "g(2,3,4) index(2,5,2)<3; dim=-2",
    .domain = {-4, 4},
};

static nyx_status scatter_add_infer(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  NYX_TRY(nyx__index_check(c->ctx, "index", c->in[1]));
  NYX_TRY(check_inside(c->ctx, c->in[1], c->in[0], "x", dim));
  NYX_TRY(check_inside(c->ctx, c->in[1], c->in[2], "src", -1));
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

static nyx_status scatter_add_cpu(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  nyx_tensor *sum, *src;
  NYX_TRY(nyx__update_begin(c->ctx, c->out[0], true, &sum));
  nyx_status status = nyx__apart_as(c->ctx, c->in[2], sum->dtype, c->out[0], &src);
  if (status == NYX_OK) status = along(c->ctx, NYX__ADD, sum, src, NULL, c->in[1], dim);
  nyx_tensor_release(src);
  return nyx__update_end(c->ctx, sum, c->out[0], status);
}

static nyx_status scatter_add_gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0], *picked;
  if (b->need[0]) b->grad_in[0] = nyx_tensor_retain(g);
  if (!b->need[2]) return NYX_OK;
  NYX_TRY(nyx__apply2(b->ctx, NYX__OP_gather, g, b->in[1], b->attr, &picked));
  nyx_status status = nyx__grow_to(b->ctx, picked, &b->in_spec[2], &b->grad_in[2]);
  nyx_tensor_release(picked);
  return status;
}

const nyx_op nyx__op_scatter_add = {
    .name = "scatter_add",
    .group = "indexing",
    .doc =
        "x with elements of src added along `dim`: out[index[i][j]][j] += src[i][j] for "
        "dim 1 of two. Equal positions add up, always in the same order.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x index src",
    .min_in = 3,
    .max_in = 3,
    .updates = true,
    .index_in = NYX_SAVE(1),
    .attrs = gather_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = scatter_add_infer,
    .cpu = scatter_add_cpu,
    .gradient = scatter_add_gradient,
    .save_in = NYX_SAVE(1),
    .forward = nyx__forward_linear,
    .batch = nyx__batch_dims,
    .cases =
        "x(3,4) index(2,4)<3 src(2,4); dim=1\n"
        "x(3,4) index(3,6)<4 src(4,7); dim=2",
    .domain = {-4, 4},
};

/* index_select */

/* x needs a dimension to select in, index at most one. */
static nyx_status check_list(nyx_call *c) {
  nyx_tensor *x = c->in[0], *index = c->in[1];
  if (x->ndim == 0)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "at least one dimension");
  if (index->ndim > 1)
    return nyx__error(c->ctx, NDIM_EXPECTED, "index", NYX__SHAPE(index), "one dimension");
  return nyx__index_check(c->ctx, "index", index);
}

static nyx_status index_select_infer(nyx_call *c) {
  int dim;
  NYX_TRY(check_list(c));
  NYX_TRY(call_dim(c, &dim));
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  c->spec[0].shape[dim] = c->in[1]->numel;
  return NYX_OK;
}

static nyx_status index_select_cpu(nyx_call *c) {
  nyx_tensor *x = c->in[0], *out = c->out[0];
  int dim;
  NYX_TRY(call_dim(c, &dim));
  nyx__remap map = {.ndim = x->ndim, .scattered = true};
  for (int d = 0; d < x->ndim; d++) map.shape[d] = out->shape[d];
  nyx__range range = {.size = x->shape[dim], .dim = dim};
  NYX_TRY(nyx__positions(c->ctx, c->in[1], range, &map.from[dim]));
  map.block = map.from[dim];
  nyx_status status = nyx__remap_copy(c->ctx, &map, x, out, NULL);
  nyx__remap_close(&map);
  return status;
}

static nyx_status index_select_gradient(nyx_backward *b) {
  nyx_tensor *zeros;
  NYX_TRY(nyx__zeros(b->ctx, b->grad_out[0], &b->in_spec[0], &zeros));
  nyx_tensor *in[] = {zeros, b->in[1], b->grad_out[0]};
  nyx_value attrs[] = {b->attr[0], NYX_F(1)};
  nyx_status status =
      nyx__applyn(b->ctx, NYX__OP_index_add, in, 3, attrs, &b->grad_in[0]);
  nyx_tensor_release(zeros);
  return status;
}

static const nyx_attr index_select_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, {.given = false}, "the dimension to select in"}};

/* The same positions for every entry; else entry by entry. */
static nyx_status index_select_batch(nyx_batch *b) {
  int dim;
  if (b->batched[1] || b->in[0]->ndim < 2) return nyx__batch_each(b);
  NYX_TRY(nyx__dim(b->ctx, b->attr[0].i, b->in[0]->ndim - 1, &dim));
  const nyx_value attr = NYX_I(dim + 1);
  return nyx__batch_apply(b, b->in, &attr);
}

const nyx_op nyx__op_index_select = {
    .name = "index_select",
    .group = "indexing",
    .doc =
        "The slices of x along `dim` at the positions in `index` (one dimension), in "
        "its order, repeated where it repeats.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x index",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .attrs = index_select_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = index_select_infer,
    .cpu = index_select_cpu,
    .gradient = index_select_gradient,
    .save_in = NYX_SAVE(1),
    .forward = nyx__forward_linear,
    .batch = index_select_batch,
    .cases =
        "x(3,4) index(5)<3; dim=1\n"
        "x(3,4) index(2)<4; dim=-1\n"
        "x(2,3,4) index(4)<3; dim=2",
    .domain = {-4, 4},
};

/* index_add */

static nyx_status index_add_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  int dim;
  NYX_TRY(check_list(c));
  NYX_TRY(call_dim(c, &dim));
  nyx_spec source;
  nyx__spec(&source, c->dtype, x->ndim, x->shape);
  source.shape[dim] = c->in[1]->numel;
  NYX_TRY(nyx__shape_check(c->ctx, "source", c->in[2], x->ndim, source.shape));
  int64_t alpha;
  NYX_TRY(nyx__value_store(c->ctx, "alpha", c->attr[1].f, c->dtype, &alpha));
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

static nyx_status index_add_cpu(nyx_call *c) {
  int dim;
  NYX_TRY(call_dim(c, &dim));
  int64_t *at;
  nyx__range range = {.size = c->in[0]->shape[dim], .dim = dim};
  NYX_TRY(nyx__positions(c->ctx, c->in[1], range, &at));
  nyx_tensor *sum, *start, *source = NULL;
  nyx_status status = nyx__update_fill(c->ctx, c->in[0], c->out[0], true, &sum, &start);
  if (status == NYX_OK)
    status = nyx__apart_as(c->ctx, c->in[2], sum->dtype, c->out[0], &source);
  if (status == NYX_OK) {
    const int64_t *shape = sum->shape;
    nyx__lanes l = {.outer = product(shape, 0, dim),
                    .count = c->in[1]->numel,
                    .inner = product(shape, dim + 1, sum->ndim),
                    .at = at,
                    .at_step = 1,
                    .dtype = sum->dtype,
                    .alpha = c->attr[1].f,
                    .rows = shape[dim],
                    .fill = start != NULL,
                    .start = start ? nyx__data(start) : NULL};
    l.a = (nyx__side){
        .data = nyx__data(sum), .outer_step = shape[dim] * l.inner, .step = l.inner};
    l.b = (nyx__side){
        .data = nyx__data(source), .outer_step = l.count * l.inner, .step = l.inner};
    status = nyx__lanes_run(c->ctx, &l, NYX__ADD);
  }
  nyx_memory_free(at);
  nyx_tensor_release(source);
  return sum ? nyx__update_end(c->ctx, sum, c->out[0], status) : status;
}

static nyx_status index_add_gradient(nyx_backward *b) {
  nyx_tensor *g = b->grad_out[0], *picked, *alpha = NULL;
  if (b->need[0]) b->grad_in[0] = nyx_tensor_retain(g);
  if (!b->need[2]) return NYX_OK;
  NYX_TRY(nyx__apply2(b->ctx, NYX__OP_index_select, g, b->in[1], b->attr, &picked));
  if (b->attr[1].f == 1) {
    b->grad_in[2] = picked;
    return NYX_OK;
  }
  nyx_status status = nyx_tensor_scalar(b->ctx, b->attr[1].f, NYX_FLOAT64, true, &alpha);
  if (status == NYX_OK)
    status = nyx__apply2(b->ctx, NYX__OP_mul, picked, alpha, NULL, &b->grad_in[2]);
  nyx_tensor_release(alpha);
  nyx_tensor_release(picked);
  return status;
}

static const nyx_attr index_add_attrs[] = {
    {"dim", NYX_ATTR_DIM, true, {.given = false}, "the dimension the positions are in"},
    {"alpha", NYX_ATTR_FLOAT, false, {.f = 1, .given = true}, "multiplies source"}};

const nyx_op nyx__op_index_add = {
    .name = "index_add",
    .group = "indexing",
    .doc =
        "x with the slices of `source` along `dim` added at the positions in `index`, "
        "times alpha. Equal positions add up, always in the same order.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_COMMON,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x index source",
    .min_in = 3,
    .max_in = 3,
    .updates = true,
    .fills = true,
    .index_in = NYX_SAVE(1),
    .attrs = index_add_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .infer = index_add_infer,
    .cpu = index_add_cpu,
    .gradient = index_add_gradient,
    .forward = nyx__forward_linear,
    .save_in = NYX_SAVE(1),
    .cases =
        "x(3,4) index(5)<3 source(5,4); dim=1\n"
        "x(2,3,4) index(2)<4 source(2,3,2); dim=3 alpha=2",
    .domain = {-4, 4},
};

/* take */

static nyx_status take_infer(nyx_call *c) {
  NYX_TRY(nyx__index_check(c->ctx, "index", c->in[1]));
  nyx__spec(&c->spec[0], c->dtype, c->in[1]->ndim, c->in[1]->shape);
  return NYX_OK;
}

static nyx_status take_cpu(nyx_call *c) {
  nyx__range range = {.size = c->in[0]->numel, .dim = -1, .wrap = true};
  nyx_tensor *x;
  NYX_TRY(nyx__contiguous(c->ctx, c->in[0], &x));
  nyx__lanes l = {
      .outer = 1, .count = c->in[1]->numel, .inner = 1, .at_step = 1, .dtype = x->dtype};
  l.a = (nyx__side){.data = nyx__data(x), .step = 1};
  l.b = (nyx__side){.data = nyx__data(c->out[0]), .step = 1};
  nyx_status status = nyx__lanes_gather(c->ctx, &l, c->in[1], range, c->out[0]);
  nyx_tensor_release(x);
  return status;
}

static nyx_status take_gradient(nyx_backward *b) {
  nyx_context *ctx = b->ctx;
  const nyx_spec *x = &b->in_spec[0];
  int64_t numel = product(x->shape, 0, x->ndim), all = b->in[1]->numel;
  nyx_value flat = NYX_LIST(&all, 1), shape = NYX_LIST(x->shape, x->ndim);
  nyx_value accumulate = NYX_I(true);
  nyx_spec line;
  nyx__spec(&line, x->dtype, 1, &numel);
  nyx_tensor *zeros = NULL, *g = NULL, *index = NULL, *put = NULL;
  nyx_status status = nyx__zeros(ctx, b->grad_out[0], &line, &zeros);
  if (status == NYX_OK)
    status = nyx__apply1(ctx, NYX__OP_reshape, b->grad_out[0], &flat, &g);
  if (status == NYX_OK)
    status = nyx__apply1(ctx, NYX__OP_reshape, b->in[1], &flat, &index);
  if (status == NYX_OK)
    status = nyx__applyn(ctx, NYX__OP_index_put, (nyx_tensor *[]){zeros, g, index}, 3,
                         &accumulate, &put);
  if (status == NYX_OK)
    status = nyx__apply1(ctx, NYX__OP_reshape, put, &shape, &b->grad_in[0]);
  nyx_tensor_release(zeros);
  nyx_tensor_release(g);
  nyx_tensor_release(index);
  nyx_tensor_release(put);
  return status;
}

const nyx_op nyx__op_take = {
    .name = "take",
    .group = "indexing",
    .doc =
        "The elements of x, seen as one row, at the positions in `index`, in its shape. "
        "Negative positions count from the end.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x index",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .n_out = 1,
    .infer = take_infer,
    .cpu = take_cpu,
    .gradient = take_gradient,
    .forward = nyx__forward_linear,
    .save_in = NYX_SAVE(1),
    .cases = "x(3,4) index(2,3)<12\nx(5) index(7)<5",
    .domain = {-4, 4},
};
