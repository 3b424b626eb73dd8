/* embedding: rows of a table at given positions, and its adjoint, which adds rows to a
 * table. Read next: remap.c (the copying), rows.c (the adding). */
#include <string.h>

#include "../transform/batch.h"
#include "index.h"
#include "ops.h"
#include "remap.h"

/* The padding row, counted from 0; -1 when there is none. */
static nyx_status read_padding(nyx_context *ctx, const nyx_value *attr, int64_t rows,
                               int64_t *out) {
  *out = -1;
  if (!attr->given) return NYX_OK;
  int64_t row = attr->i < 0 ? attr->i + rows : attr->i;
  if (row < 0 || row >= rows) {
    return nyx__error(ctx, INDEX_RANGE, (long long)nyx__said(ctx, attr->i),
                      ctx->index_base, (long long)rows);
  }
  *out = row;
  return NYX_OK;
}

static nyx_status infer_embedding(nyx_call *c) {
  const nyx_tensor *weight = c->in[0], *index = c->in[1];
  if (weight->ndim != 2) {
    return nyx__error(c->ctx, NDIM_EXPECTED, "weight", NYX__SHAPE(weight),
                      "2 dimensions (rows, features)");
  }
  int64_t padding;
  NYX_TRY(nyx__index_check(c->ctx, "index", index));
  NYX_TRY(read_padding(c->ctx, &c->attr[0], weight->shape[0], &padding));
  if (index->ndim == NYX_MAX_DIMS) {
    return nyx__error(c->ctx, NDIM_RANGE, index->ndim + 1, NYX_MAX_DIMS);
  }
  nyx__spec(&c->spec[0], c->dtype, index->ndim, index->shape);
  c->spec[0].shape[c->spec[0].ndim++] = weight->shape[1];
  return NYX_OK;
}

static nyx_status cpu_embedding(nyx_call *c) {
  nyx_tensor *weight = c->in[0];
  nyx__range range = {.size = weight->shape[0], .dim = 0};
  nyx__remap map = {
      .ndim = 2, .shape = {c->in[1]->numel, weight->shape[1]}, .scattered = true};
  NYX_TRY(nyx__positions(c->ctx, c->in[1], range, &map.from[0]));
  map.block = map.from[0];
  nyx_status status = nyx__remap_copy(c->ctx, &map, weight, c->out[0], NULL);
  nyx__remap_close(&map);
  return status;
}

static nyx_status gradient_embedding(nyx_backward *b) {
  if (!b->need[0]) return NYX_OK;
  const nyx_value attrs[] = {NYX_I(b->in_spec[0].shape[0]), b->attr[0]};
  return nyx__apply2(b->ctx, NYX__OP_embedding_backward, b->grad_out[0], b->in[1], attrs,
                     &b->grad_in[0]);
}

#define PADDING_ATTR                                                                     \
  { .name = "padding_idx", .type = NYX_ATTR_INDEX, .doc = "a row that gets no gradient" }

static const nyx_attr embedding_attrs[] = {PADDING_ATTR};

/* Positions of any shape look up one table; tables that differ go entry by entry. */
static nyx_status batch_embedding(nyx_batch *b) {
  if (b->batched[0]) return nyx__batch_each(b);
  return nyx__batch_apply(b, b->in, b->attr);
}

const nyx_op nyx__op_embedding = {
    .name = "embedding",
    .group = "neural",
    .doc =
        "rows of weight (rows, features) at the positions in index: a result of index's "
        "shape and a last dimension of features",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "weight index",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .attrs = embedding_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_embedding,
    .cpu = cpu_embedding,
    .gradient = gradient_embedding,
    .save_in = NYX_SAVE(1),
    .batch = batch_embedding,
    .cases =
        "weight(5,3) index(4)<5\n"
        "weight(4,2) index(2,3)<4\n"
        "weight(4,2) index()<4",
};

/* embedding_backward */

static nyx_status infer_backward(nyx_call *c) {
  const nyx_tensor *g = c->in[0], *index = c->in[1];
  int64_t rows = c->attr[0].i, padding, shape[NYX_MAX_DIMS];
  NYX_TRY(nyx__index_check(c->ctx, "index", index));
  if (rows < 0)
    return nyx__error(c->ctx, ATTR_RANGE, "rows", (long long)rows, "0 or more");
  NYX_TRY(read_padding(c->ctx, &c->attr[1], rows, &padding));
  for (int d = 0; d < index->ndim && d < NYX_MAX_DIMS - 1; d++)
    shape[d] = index->shape[d];
  if (index->ndim == NYX_MAX_DIMS) {
    return nyx__error(c->ctx, NDIM_RANGE, index->ndim + 1, NYX_MAX_DIMS);
  }
  shape[index->ndim] = g->ndim ? g->shape[g->ndim - 1] : 0;
  NYX_TRY(nyx__shape_check(c->ctx, "grad", g, index->ndim + 1, shape));
  nyx__spec(&c->spec[0], c->dtype, 2, (int64_t[]){rows, shape[index->ndim]});
  return NYX_OK;
}

/* sum = the rows of g added up at their positions; half types in float32. */
static nyx_status add_rows(nyx_context *ctx, const nyx_tensor *g, const int64_t *at,
                           int64_t count, int64_t padding, nyx_tensor *sum) {
  size_t bytes = (size_t)sum->shape[1] * nyx_dtype_size(sum->dtype);
  nyx__lanes l = {.outer = 1,
                  .count = count,
                  .inner = sum->shape[1],
                  .at = at,
                  .at_step = 1,
                  .dtype = sum->dtype,
                  .alpha = 1,
                  .rows = sum->shape[0],
                  .fill = true};
  l.a = (nyx__side){.data = nyx__data(sum), .step = sum->shape[1]};
  l.b = (nyx__side){.data = nyx__data(g), .step = sum->shape[1]};
  NYX_TRY(nyx__lanes_run(ctx, &l, NYX__ADD));
  if (padding >= 0) memset((char *)nyx__data(sum) + (size_t)padding * bytes, 0, bytes);
  return NYX_OK;
}

static nyx_status cpu_backward(nyx_call *c) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *g = NULL, *sum = NULL;
  int64_t *at, padding;
  nyx__range range = {.size = c->attr[0].i, .dim = 0};
  nyx_dtype dtype = c->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  NYX_TRY(read_padding(ctx, &c->attr[1], range.size, &padding));
  NYX_TRY(nyx__positions(ctx, c->in[1], range, &at));
  nyx_status status = nyx__contiguous_as(ctx, c->in[0], dtype, &g);
  if (status == NYX_OK && dtype == c->dtype) {
    sum = nyx_tensor_retain(c->out[0]);
  } else if (status == NYX_OK) {
    status = nyx_tensor_empty(ctx, dtype, 2, c->out[0]->shape, &sum);
  }
  if (status == NYX_OK) status = add_rows(ctx, g, at, c->in[1]->numel, padding, sum);
  if (status == NYX_OK && sum != c->out[0]) status = nyx__copy_into(ctx, sum, c->out[0]);
  nyx_tensor_release(g);
  nyx_tensor_release(sum);
  nyx_memory_free(at);
  return status;
}

/* *out = t (shaped index x features) with zeros where index holds the padding row. */
static nyx_status without_padding(nyx_context *ctx, nyx_tensor *t, nyx_tensor *index,
                                  int64_t padding, nyx_tensor **out) {
  nyx_tensor *row = NULL, *other = NULL, *mask = NULL;
  int64_t shape[NYX_MAX_DIMS];
  memcpy(shape, index->shape, sizeof shape);
  shape[index->ndim] = 1;
  const nyx_value attr = NYX_LIST(shape, index->ndim + 1);
  nyx_status status =
      nyx_tensor_scalar(ctx, (double)(padding + ctx->index_base), NYX_INT64, true, &row);
  if (status == NYX_OK) status = nyx__apply2(ctx, NYX__OP_ne, index, row, NULL, &other);
  if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_reshape, other, &attr, &mask);
  if (status == NYX_OK) status = nyx__apply2(ctx, NYX__OP_mul, t, mask, NULL, out);
  nyx_tensor_release(row);
  nyx_tensor_release(other);
  nyx_tensor_release(mask);
  return status;
}

static nyx_status gradient_backward(nyx_backward *b) {
  if (!b->need[0]) return NYX_OK;
  int64_t padding;
  nyx_tensor *rows;
  NYX_TRY(read_padding(b->ctx, &b->attr[1], b->attr[0].i, &padding));
  NYX_TRY(nyx__apply2(b->ctx, NYX__OP_embedding, b->grad_out[0], b->in[1], NULL, &rows));
  if (padding < 0) {
    b->grad_in[0] = rows;
    return NYX_OK;
  }
  nyx_status status = without_padding(b->ctx, rows, b->in[1], padding, &b->grad_in[0]);
  nyx_tensor_release(rows);
  return status;
}

static const nyx_attr backward_attrs[] = {
    {.name = "rows", .type = NYX_ATTR_INT, .required = true, .doc = "rows of the table"},
    PADDING_ATTR};

const nyx_op nyx__op_embedding_backward = {
    .name = "embedding_backward",
    .group = "gradient",
    .doc =
        "the gradient of embedding's weight: the rows of grad added up at their "
        "positions",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "grad index",
    .min_in = 2,
    .max_in = 2,
    .index_in = NYX_SAVE(1),
    .attrs = backward_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = infer_backward,
    .cpu = cpu_backward,
    .gradient = gradient_backward,
    .save_in = NYX_SAVE(1),
    .cases =
        "grad(4,3) index(4)<5; rows=5\n"
        "grad(2,3,2) index(2,3)<4; rows=4 padding_idx=2",
};
