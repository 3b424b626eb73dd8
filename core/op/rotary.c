/* rotary: rotary position embedding, which turns pairs of features by angles that grow
 * with the position. Cosines and sines come as tables or are made here, once for all
 * heads. Read next: kernels/cpu/rotary.h, lua/nyx/nn/rotary.lua. */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/elementwise.h"
#include "../../kernels/cpu/rotary.h"
#include "../grad/graph.h"
#include "../transform/batch.h"
#include "attention.h"
#include "index.h"

#define RANGE_WORK 16384 /* elements worth waking a thread for */
#define TABLE_WORK 2048  /* the same of angles */
#define PIECE 512        /* pairs of a half type, or angles, at a time */

#define MOST_OFFSET (INT64_C(1) << 53) /* beyond it doubles skip positions */

enum { X, POSITIONS, COS, SIN };
enum { OFFSET, BASE, DIM, INTERLEAVED, REVERSE, ATTRS };

/* ------------------------------------------------------------------ shapes */

static nyx_status check_positions(nyx_call *c, const nyx_tensor *x, const nyx_tensor *p) {
  NYX_TRY(nyx__index_check(c->ctx, "positions", p));
  bool fits = p->ndim >= 1 && p->ndim < x->ndim;
  for (int back = 1; fits && back <= p->ndim; back++) {
    int64_t size = p->shape[p->ndim - back], own = x->shape[x->ndim - 1 - back];
    fits = size == own || (size == 1 && back > 1);
  }
  if (fits) return NYX_OK;
  return nyx__error(c->ctx, ROTARY_POSITIONS, NYX__SHAPE(p), NYX__SHAPE(x));
}

/* Both tables, or none; `half`: pairs of a row. */
static nyx_status check_tables(nyx_call *c, int64_t *half) {
  const nyx_tensor *x = c->in[X], *cosine = c->in[COS], *sine = c->in[SIN];
  const nyx_value *dim = &c->attr[DIM];
  int64_t features = x->shape[x->ndim - 1];
  if (!cosine != !sine)
    return nyx__error(c->ctx, TENSOR_MISSING, cosine ? SIN + 1 : COS + 1,
                      cosine ? "sin" : "cos");
  int64_t wanted = dim->given ? dim->i : cosine ? -1 : features;
  if (cosine) {
    if (cosine->ndim != 2)
      return nyx__error(c->ctx, NDIM_EXPECTED, "cos", NYX__SHAPE(cosine),
                        "2 dimensions (positions, pairs)");
    NYX_TRY(nyx__shape_check(c->ctx, "sin", sine, 2, cosine->shape));
    for (int i = COS; i <= SIN; i++)
      if (!nyx_dtype_is_float(c->in[i]->dtype))
        return nyx__error(c->ctx, DTYPE_INPUT, i == COS ? "cos" : "sin",
                          nyx_dtype_name(c->in[i]->dtype), "a float dtype");
    if (wanted < 0) wanted = cosine->shape[1] <= features ? 2 * cosine->shape[1] : 0;
  }
  if (wanted < 0 || wanted % 2 || wanted > features ||
      (cosine && wanted != 2 * cosine->shape[1]))
    return nyx__error(c->ctx, ROTARY_DIM, (long long)wanted, NYX__SHAPE(x),
                      cosine ? NYX__SHAPE(cosine) : "none");
  *half = wanted / 2;
  return NYX_OK;
}

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[X];
  int64_t half;
  if (x->ndim < 2)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x),
                      "2 dimensions or more (.., length, features)");
  NYX_TRY(check_tables(c, &half));
  if (c->in[POSITIONS]) NYX_TRY(check_positions(c, x, c->in[POSITIONS]));
  if (!(c->attr[BASE].f > 0))
    return nyx__error(c->ctx, ATTR_NUMBER, "base", c->attr[BASE].f, "above 0");
  if (c->attr[OFFSET].i < -MOST_OFFSET || c->attr[OFFSET].i > MOST_OFFSET)
    return nyx__error(c->ctx, ATTR_RANGE, "offset", (long long)c->attr[OFFSET].i,
                      "at most 2^53 to either side");
  nyx__spec(&c->spec[0], c->dtype, x->ndim, x->shape);
  return NYX_OK;
}

/* ------------------------------------------------------------------ tables */

/* One call: matrices of `length` rows of d features, the first 2 half of which turn. */
typedef struct rotation {
  const nyx_rotary_kernel *kernel;
  nyx_gather_fn gather; /* NULL: x has the type that is computed in */
  nyx_scatter_fn scatter;
  nyx_dtype compute;
  int64_t item; /* bytes, of the tables */
  int64_t length, d, half;
  bool interleaved;
  double sign;
  nyx__heads x, rows; /* rows: the table's row of each row of x, int64 */
  int64_t first;      /* without `rows`: of the first one */
  const char *cosine, *sine;
  char *y, *made; /* made: tables made here */
  double base;
  const int64_t *position; /* of the rows of such tables; NULL: first, first + 1 .. */
} rotation;

/* Angles are products and their functions those of double: float32 would be off by the
 * angle's own rounding, which grows with the position. */
static void make_rows(void *arg, int64_t begin, int64_t end) {
  const rotation *r = arg;
  const nyx_elementwise_kernels *e = nyx__cpu_kernels()->elementwise;
  const nyx_elementwise_parts *all = e->rows[NYX_IN_FLOAT64];
  nyx_scatter_fn store = e->scatter[NYX_IN_FLOAT64][r->compute];
  const double none[2] = {0, 0};
  double angle[PIECE], value[PIECE];
  const void *in[] = {angle, angle, angle, angle, angle};
  for (int64_t i0 = 0; i0 < r->half; i0 += PIECE) {
    double speed[PIECE];
    int64_t n = r->half - i0 < PIECE ? r->half - i0 : PIECE;
    for (int64_t i = 0; i < n; i++)
      speed[i] = pow(r->base, -(double)(i0 + i) / (double)r->half);
    for (int64_t row = begin; row < end; row++) {
      double at = (double)r->first + (double)(r->position ? r->position[row] : row);
      int64_t to = (row * r->half + i0) * r->item;
      for (int64_t i = 0; i < n; i++) angle[i] = at * speed[i];
      all[NYX_KERNEL_cos][0](n, in, value, none);
      store(n, value, (char *)r->cosine + to, 1);
      all[NYX_KERNEL_sin][0](n, in, value, none);
      store(n, value, (char *)r->sine + to, 1);
    }
  }
}

static nyx_status make_tables(nyx_context *ctx, rotation *r, int64_t rows) {
  size_t bytes = (size_t)(2 * rows * r->half * r->item) + 1;
  if (!(r->made = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  r->cosine = r->made;
  r->sine = r->made + rows * r->half * r->item;
  nyx_parallel_for(rows, TABLE_WORK / (r->half + 1) + 1, make_rows, r);
  return NYX_OK;
}

/* Which row of the tables each row of x takes: `at`, of the positions' own shape, as
 * matrices of one column. */
static void open_rows(rotation *r, const nyx_tensor *x, const nyx_tensor *p,
                      int64_t *at) {
  int64_t stride[NYX_MAX_DIMS];
  nyx__strides(p->ndim, p->shape, stride);
  r->rows = (nyx__heads){.data = (char *)at, .item = sizeof *at, .ndim = x->ndim - 2};
  r->rows.row = stride[p->ndim - 1];
  for (int d = 0; d < r->rows.ndim; d++) {
    int own = d - (x->ndim - 1 - p->ndim);
    r->rows.shape[d] = x->shape[d];
    r->rows.stride[d] = own < 0 || p->shape[own] == 1 ? 0 : stride[own];
  }
}

/* Positions counted from 0, with the offset, in the tables' range where there are some.
 */
static nyx_status read_positions(nyx_call *c, int64_t **at) {
  const nyx_tensor *table = c->in[COS];
  nyx__range range = {.size = table ? table->shape[0] : INT64_C(1) << 53, .dim = 0};
  int64_t offset = c->attr[OFFSET].i, last = table ? table->shape[0] - offset : 0;
  if (table && (offset < 0 || last < 0))
    return nyx__error(c->ctx, ATTR_RANGE, "offset", (long long)offset,
                      "0 or more, and within the tables");
  if (table) range.size = last;
  return nyx__positions(c->ctx, c->in[POSITIONS], range, at);
}

static nyx_status check_length(nyx_call *c, int64_t length) {
  const nyx_tensor *table = c->in[COS];
  int64_t offset = c->attr[OFFSET].i;
  if (!table || (offset >= 0 && offset <= table->shape[0] - length)) return NYX_OK;
  return nyx__error(c->ctx, ROTARY_LENGTH, (long long)offset + c->ctx->index_base,
                    (long long)(offset + length - 1 + c->ctx->index_base),
                    (long long)table->shape[0]);
}

/* ------------------------------------------------------------------ rotation */

/* n pairs of a half type from pair i0 on, through floats. */
static void turn_narrow(const rotation *r, const char *x, const char *c, const char *s,
                        char *y) {
  float from[2 * PIECE], to[2 * PIECE];
  for (int64_t i = 0; i < r->half; i += PIECE) {
    int64_t n = r->half - i < PIECE ? r->half - i : PIECE, b = (r->half + i) * 2;
    const char *cosine = c + i * r->item, *sine = s + i * r->item;
    if (r->interleaved) {
      r->gather(2 * n, x + 4 * i, 1, from);
      r->kernel->pairs(n, from, cosine, sine, r->sign, to);
      r->scatter(2 * n, to, y + 4 * i, 1);
      continue;
    }
    r->gather(n, x + 2 * i, 1, from);
    r->gather(n, x + b, 1, from + n);
    r->kernel->halves(n, from, from + n, cosine, sine, r->sign, to, to + n);
    r->scatter(n, to, y + 2 * i, 1);
    r->scatter(n, to + n, y + b, 1);
  }
}

static void turn_row(const rotation *r, const char *x, int64_t row, char *y) {
  int64_t at = row * r->half * r->item, half = r->half * r->item;
  const char *c = r->cosine + at, *s = r->sine + at;
  if (r->gather)
    turn_narrow(r, x, c, s, y);
  else if (r->interleaved)
    r->kernel->pairs(r->half, x, c, s, r->sign, y);
  else
    r->kernel->halves(r->half, x, x + half, c, s, r->sign, y, y + half);
  int64_t turned = 2 * r->half * r->x.item;
  if (2 * r->half < r->d)
    memcpy(y + turned, x + turned, (size_t)(r->d * r->x.item - turned));
}

static void turn_rows(void *arg, int64_t begin, int64_t end) {
  const rotation *r = arg;
  while (begin < end) {
    int64_t matrix = begin / r->length, l = begin % r->length;
    int64_t stop = l + (end - begin) < r->length ? l + (end - begin) : r->length;
    const char *x = nyx__head(&r->x, matrix);
    const char *rows = r->rows.data ? nyx__head(&r->rows, matrix) : NULL;
    for (; l < stop; l++, begin++) {
      int64_t row = rows ? ((const int64_t *)rows)[l * r->rows.row] : r->first + l;
      turn_row(r, x + l * r->x.row * r->x.item, row, r->y + begin * r->d * r->x.item);
    }
  }
}

/* Everything a call holds. */
typedef struct operands {
  nyx_tensor *x, *cosine, *sine;
  int64_t *at;
} operands;

static nyx_status open(nyx_call *c, rotation *r, operands *o) {
  nyx_tensor *x = c->in[X], *p = c->in[POSITIONS];
  if (x->shape[x->ndim - 1] == 1 || x->stride[x->ndim - 1] == 1)
    o->x = nyx_tensor_retain(x);
  else
    NYX_TRY(nyx__contiguous(c->ctx, x, &o->x));
  nyx__heads_of(o->x, &r->x);
  if (p) {
    NYX_TRY(read_positions(c, &o->at));
    open_rows(r, x, p, o->at);
  } else {
    NYX_TRY(check_length(c, r->length));
  }
  r->first = c->attr[OFFSET].i;
  if (!c->in[COS]) {
    r->position = o->at;
    NYX_TRY(make_tables(c->ctx, r, p ? p->numel : r->length));
    for (int64_t i = 0; p && i < p->numel; i++) o->at[i] = i;
    r->first = 0;
    return NYX_OK;
  }
  for (int64_t i = 0; p && i < p->numel; i++) o->at[i] += r->first;
  NYX_TRY(nyx__contiguous_as(c->ctx, c->in[COS], r->compute, &o->cosine));
  NYX_TRY(nyx__contiguous_as(c->ctx, c->in[SIN], r->compute, &o->sine));
  r->cosine = nyx__data(o->cosine);
  r->sine = nyx__data(o->sine);
  return NYX_OK;
}

static nyx_status cpu(nyx_call *c) {
  const nyx_cpu_kernels *kernels = nyx__cpu_kernels();
  const nyx_tensor *x = c->in[X];
  if (x->numel == 0) return NYX_OK;
  nyx_dtype compute = nyx__compute_dtype(c->dtype);
  rotation r = {.kernel = &kernels->rotary->type[compute == NYX_FLOAT64],
                .compute = compute,
                .item = (int64_t)nyx_dtype_size(compute),
                .length = x->shape[x->ndim - 2],
                .d = x->shape[x->ndim - 1],
                .interleaved = c->attr[INTERLEAVED].i != 0,
                .sign = c->attr[REVERSE].i ? -1 : 1,
                .base = c->attr[BASE].f,
                .y = nyx__data(c->out[0])};
  if (c->dtype != compute) {
    r.gather = kernels->elementwise->gather[c->dtype][NYX_IN_FLOAT32];
    r.scatter = kernels->elementwise->scatter[NYX_IN_FLOAT32][c->dtype];
  }
  operands o = {NULL, NULL, NULL, NULL};
  nyx_status status = check_tables(c, &r.half);
  if (status == NYX_OK) status = open(c, &r, &o);
  if (status == NYX_OK)
    nyx_parallel_for(x->numel / r.d, RANGE_WORK / r.d + 1, turn_rows, &r);
  nyx_memory_free(r.made);
  nyx_memory_free(o.at);
  nyx_tensor_release(o.x);
  nyx_tensor_release(o.cosine);
  nyx_tensor_release(o.sine);
  return status;
}

/* ------------------------------------------------------------------ gradients */

/* The first or second element of each pair of t. */
static nyx_status part_of(nyx_backward *b, nyx_tensor *t, int64_t half, int second,
                          nyx_tensor **out) {
  bool pairs = b->attr[INTERLEAVED].i != 0;
  const nyx_value attr[] = {NYX_I(-1), NYX_I(pairs ? second : second * half), NYX_I(half),
                            NYX_I(pairs ? 2 : 1)};
  return nyx__apply1(b->ctx, NYX__OP_narrow, t, attr, out);
}

/* The rows of the tables that x took, one after the other: as many as t has. */
static nyx_status rows_taken(nyx_backward *b, const nyx_tensor *t, nyx_tensor **out) {
  nyx_context *ctx = b->ctx;
  const nyx_spec *x = &b->in_spec[X];
  nyx_tensor *at = NULL, *full = NULL;
  nyx_status status;
  if (b->in[POSITIONS]) {
    nyx_tensor *offset = NULL;
    status = nyx_tensor_scalar(ctx, (double)b->attr[OFFSET].i, NYX_INT64, true, &offset);
    if (status == NYX_OK)
      status = nyx__apply2(ctx, NYX__OP_add, b->in[POSITIONS], offset, NULL, &at);
    nyx_tensor_release(offset);
  } else {
    double from = (double)(b->attr[OFFSET].i + ctx->index_base);
    const nyx_value attr[] = {NYX_F(from), NYX_F(from + (double)x->shape[x->ndim - 2]),
                              NYX_F(1), NYX_I(NYX_INT64)};
    status = nyx__applyn(ctx, NYX__OP_arange, NULL, 0, attr, &at);
  }
  const nyx_value shape = NYX_LIST(x->shape, x->ndim - 1);
  int64_t numel[] = {t->numel / t->shape[t->ndim - 1]};
  const nyx_value flat = NYX_LIST(numel, 1);
  if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_expand, at, &shape, &full);
  if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_reshape, full, &flat, out);
  nyx_tensor_release(at);
  nyx_tensor_release(full);
  return status;
}

/* The gradient of a table, from that of the row each row of x took. */
static nyx_status into_table(nyx_backward *b, nyx_tensor *t, int i) {
  nyx_context *ctx = b->ctx;
  const nyx_spec *spec = &b->in_spec[i];
  nyx_tensor *rows = NULL, *flat = NULL, *sum = NULL;
  int64_t shape[] = {-1, spec->shape[1]};
  const nyx_value attr = NYX_LIST(shape, 2);
  const nyx_value table[] = {NYX_I(spec->shape[0]), NYX_NONE};
  nyx_status status = rows_taken(b, t, &rows);
  if (status == NYX_OK) status = nyx__apply1(ctx, NYX__OP_reshape, t, &attr, &flat);
  if (status == NYX_OK)
    status = nyx__apply2(ctx, NYX__OP_embedding_backward, flat, rows, table, &sum);
  if (status == NYX_OK) status = nyx__to_dtype(ctx, sum, spec->dtype, &b->grad_in[i]);
  nyx_tensor_release(rows);
  nyx_tensor_release(flat);
  nyx_tensor_release(sum);
  return status;
}

/* y = (a c - b s, b c + a s) with the gradient (g, h): that of c is g a + h b, of s it is
 * h a - g b, negated when rotated back. */
static nyx_status gradient_of_tables(nyx_backward *b) {
  int64_t half = b->in_spec[COS].shape[1];
  nyx_tensor *part[4] = {NULL}, *sum = NULL;
  nyx_status status = NYX_OK;
  if (b->in_spec[X].shape[b->in_spec[X].ndim - 1] == 0 || half == 0) return NYX_OK;
  for (int i = 0; status == NYX_OK && i < 4; i++)
    status = part_of(b, i < 2 ? b->grad_out[0] : b->in[X], half, i % 2, &part[i]);
  for (int i = COS; status == NYX_OK && i <= SIN; i++) {
    if (!b->need[i]) continue;
    const double sign[2] = {b->attr[REVERSE].i ? -1 : 1, 0};
    nyx_tensor *value[] = {part[0], part[1], part[2], part[3], NULL};
    status = nyx__evaluate(b->ctx, i == COS ? "g * y + x * z" : "p * (x * y - g * z)",
                           value, sign, &sum);
    if (status == NYX_OK) status = into_table(b, sum, i);
    nyx_tensor_release(sum);
    sum = NULL;
  }
  for (int i = 0; i < 4; i++) nyx_tensor_release(part[i]);
  return status;
}

static nyx_status gradient(nyx_backward *b) {
  nyx_tensor *in[] = {b->grad_out[0], b->in[POSITIONS], b->in[COS], b->in[SIN]};
  if (b->need[X]) {
    nyx_value attr[ATTRS];
    memcpy(attr, b->attr, sizeof attr);
    attr[REVERSE].i = !attr[REVERSE].i;
    NYX_TRY(nyx__applyn(b->ctx, NYX__OP_rotary, in, b->n_in, attr, &b->grad_in[X]));
  }
  if (b->n_in > SIN && (b->need[COS] || b->need[SIN])) return gradient_of_tables(b);
  return NYX_OK;
}

/* Linear in x as long as the tables have no tangent. */
static nyx_status forward(nyx_dual *d) {
  nyx_tensor *in[] = {d->tangent[X], NULL, NULL, NULL};
  for (int i = POSITIONS; i < d->n_in; i++) {
    in[i] = d->in[i];
    if (i >= COS && d->tangent[i]) return nyx__forward_transposed(d);
  }
  if (!in[X]) return NYX_OK;
  return nyx__applyn(d->ctx, NYX__OP_rotary, in, d->n_in, d->attr, &d->tangent_out[0]);
}

/* ------------------------------------------------------------------ the op */

/* The batch is one more leading dimension; tables that differ go entry by entry. */
static nyx_status batch(nyx_batch *b) {
  nyx_tensor *in[4] = {NULL};
  nyx_status status = NYX_OK;
  for (int i = COS; i < b->n_in; i++)
    if (b->in[i] && b->batched[i]) return nyx__batch_each(b);
  for (int i = POSITIONS; i < b->n_in; i++)
    if (b->in[i]) in[i] = nyx_tensor_retain(b->in[i]);
  status = nyx__batch_full(b, X, &in[X]);
  if (status == NYX_OK && b->n_in > POSITIONS && in[POSITIONS]) {
    nyx_tensor_release(in[POSITIONS]);
    in[POSITIONS] = NULL;
    status = nyx__batch_align(b, POSITIONS, in[X]->ndim - 2, &in[POSITIONS]);
  }
  if (status == NYX_OK) status = nyx__batch_apply(b, in, b->attr);
  for (int i = 0; i < 4; i++) nyx_tensor_release(in[i]);
  return status;
}

static const nyx_attr attrs[] = {
    {.name = "offset",
     .type = NYX_ATTR_INT,
     .preset = {.i = 0, .given = true},
     .doc = "added to positions: how many come before the first row"},
    {.name = "base",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 10000, .given = true},
     .doc = "without tables: pair i of n turns by base^(-i / n) a position, i from 0"},
    {.name = "dim",
     .type = NYX_ATTR_INT,
     .doc = "how many features turn, an even number; the others stay; all when left out, "
            "or as many as the tables have"},
    {.name = "interleaved",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 0, .given = true},
     .doc = "pairs are neighbours (1, 2), (3, 4) .. as in GPT-J, else feature i of the "
            "first half and of the second, as in GPT-NeoX"},
    {.name = "reverse",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 0, .given = true},
     .doc = "turn back, by the negative angles"}};

const nyx_op nyx__op_rotary = {
    .name = "rotary",
    .group = "neural",
    .doc =
        "rotary position embedding (Su et al.: \"RoFormer\", 2021) of x (.., length, "
        "features): pairs of features turn by an angle that is the position times a "
        "speed "
        "of the pair's. positions (.., length) are integers that broadcast over leading "
        "dimensions, 1, 2, .. when left out; the first position does not turn. Or cos "
        "and "
        "sin (positions, pairs) hold, in row p, what position p turns by, for other "
        "speeds",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x positions cos sin",
    .min_in = 1,
    .max_in = 4,
    .index_in = NYX_SAVE(POSITIONS),
    .attrs = attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .gradient = gradient,
    .save_in = NYX_SAVE_ALL,
    .forward = forward,
    .batch = batch,
    .cases =
        "x(3,4)\n"
        "x(2,3,6); offset=5 base=100 interleaved=true\n"
        "x(2,2,3,7) positions(2,1,3)<9; dim=4\n"
        "x(2,3,5) cos(6,2) sin(6,2); offset=2\n"
        "x(2,3,36) positions(3)<4 cos(5,17) sin(5,17); interleaved=true reverse=true",
    .domain = {-2, 2},
};
