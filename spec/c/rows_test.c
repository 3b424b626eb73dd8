/* Whole rows read, added and written at positions: index_select, index, embedding, and
 * index_add, index_put, embedding_backward, which group rows by where they go. Each is
 * compared bit by bit with a plain loop, on every path, for sizes on both sides of what
 * is grouped and of what goes past the caches, with several numbers of threads.
 * Read next: paths.h, core/op/rows.c, core/op/remap.c. */
#include "paths.h"

#include "core/tensor/tensor.h"

UNTRACED_CHECK static char *at(const nyx_tensor *t, int64_t i) {
  return (char *)nyx__data(t) + (size_t)i * nyx_dtype_size(t->dtype);
}

UNTRACED_CHECK static double element(const nyx_tensor *t, int64_t i) {
  return nyx__load_double(t->dtype, at(t, i));
}

static nyx_tensor *filled(nyx_dtype dtype, int ndim, const int64_t *shape) {
  nyx_tensor *t;
  must(nyx_tensor_empty(ctx, dtype, ndim, shape, &t));
  for (int64_t i = 0; i < t->numel; i++) {
    double v = (double)next() / 0x1p20 - 8;
    if (!nyx_dtype_is_float(dtype)) v = floor(v * (dtype == NYX_INT64 ? 1e6 : 15));
    if (dtype == NYX_UINT8) v = fabs(v);
    if (dtype == NYX_BOOL) v = next() % 2;
    nyx__store_double(dtype, at(t, i), v);
  }
  return t;
}

/* `used` of the positions below `below`, so that there are rows without and rows with
 * many. */
static nyx_tensor *list(int64_t below, int64_t used, int64_t count) {
  nyx_tensor *t;
  must(nyx_tensor_empty(ctx, NYX_INT64, 1, &count, &t));
  int64_t *p = nyx__data(t);
  for (int64_t i = 0; i < count; i++) p[i] = (int64_t)(next() % (uint32_t)used) % below;
  return t;
}

/* x of shape (outer, rows, inner), positions along its second dimension. */
typedef struct sample {
  nyx_dtype dtype;
  int64_t outer, rows, inner, count, used;
} sample;

static const sample samples[] = {
    {NYX_FLOAT32, 1, 40, 3, 100, 40},        /* short rows: not grouped */
    {NYX_FLOAT32, 1, 50000, 20, 30, 50000},  /* most rows get nothing */
    {NYX_FLOAT32, 1, 70, 2500, 200, 20},     /* several buffers, long chains */
    {NYX_FLOAT32, 3, 50, 129, 90, 50},       /* repeated over an outer dimension */
    {NYX_FLOAT32, 1, 2000, 601, 1500, 2000}, /* past the caches, lines never aligned */
    {NYX_FLOAT64, 2, 600, 513, 700, 300},    {NYX_FLOAT32, 1, 5, 100, 0, 5},
    {NYX_FLOAT16, 1, 90, 70, 200, 60},       {NYX_BFLOAT16, 2, 30, 33, 50, 30},
    {NYX_INT8, 1, 90, 70, 200, 60},          {NYX_UINT8, 1, 90, 70, 200, 60},
    {NYX_INT32, 1, 300, 40, 900, 200},       {NYX_INT64, 2, 60, 40, 90, 60},
    {NYX_BOOL, 1, 90, 70, 60, 60},           {NYX_FLOAT32, 2, 3, 0, 4, 3}};

enum { SAMPLES = sizeof samples / sizeof *samples };

static const char *named(const sample *s) {
  static char text[128];
  snprintf(text, sizeof text, "%s %d x %d x %d, %d positions", nyx_dtype_name(s->dtype),
           (int)s->outer, (int)s->rows, (int)s->inner, (int)s->count);
  return text;
}

/* want[at] += alpha * v, as the dtype does it; half types are summed in float. */
UNTRACED static void add(const sample *s, double *want, double alpha, double v) {
  switch (s->dtype) {
    case NYX_FLOAT64: *want += alpha * v; break;
    case NYX_INT8: *want = (int8_t)(int)(*want + alpha * v); break;
    case NYX_UINT8: *want = (uint8_t)(int)(*want + alpha * v); break;
    case NYX_INT32:
    case NYX_INT64: *want += alpha * v; break;
    case NYX_BOOL: *want = *want != 0 || (alpha != 0 && v != 0); break;
    default: {
      float product = (float)alpha * (float)v;
      *want = (double)((float)*want + product);
    }
  }
}

UNTRACED_CHECK static bool as_wanted(const sample *s, const nyx_tensor *got,
                                     const double *want) {
  char wanted[8];
  for (int64_t i = 0; i < got->numel; i++) {
    nyx__store_double(s->dtype, wanted, want[i]);
    if (memcmp(wanted, at(got, i), nyx_dtype_size(s->dtype)) != 0) {
      printf("# element %d: %.17g, expected %.17g\n", (int)i, element(got, i), want[i]);
      return false;
    }
  }
  return true;
}

/* The rows of `source` added or written into what x holds; alpha NAN: written. */
UNTRACED_CHECK static double *moved(const sample *s, const nyx_tensor *x,
                                    const nyx_tensor *index, const nyx_tensor *source,
                                    double alpha) {
  double *want = malloc(((size_t)x->numel + 1) * sizeof *want);
  for (int64_t i = 0; i < x->numel; i++) want[i] = element(x, i);
  const int64_t *p = nyx__data(index);
  for (int64_t o = 0; o < s->outer; o++)
    for (int64_t k = 0; k < s->count; k++)
      for (int64_t i = 0; i < s->inner; i++) {
        double *to = &want[(o * s->rows + p[k]) * s->inner + i];
        double v = element(source, (o * s->count + k) * s->inner + i);
        if (isnan(alpha))
          *to = v;
        else
          add(s, to, alpha, v);
      }
  return want;
}

static nyx_tensor *turned(nyx_tensor *t, int a, int b) {
  nyx_tensor *view;
  must(nyx__apply1(ctx, ID(transpose), t, ATTRS(NYX_I(a), NYX_I(b)), &view));
  return view;
}

/* The same values, columns first in memory. */
static nyx_tensor *strided(nyx_tensor *t) {
  nyx_tensor *view = turned(t, 0, t->ndim - 1), *plain;
  must(nyx__apply1(ctx, ID(contiguous), view, NULL, &plain));
  nyx_tensor *back = turned(plain, 0, t->ndim - 1);
  nyx_tensor_release(view);
  nyx_tensor_release(plain);
  return back;
}

static nyx_tensor *plain_of(nyx_tensor *t) {
  nyx_tensor *plain;
  must(nyx__apply1(ctx, ID(contiguous), t, NULL, &plain));
  return plain;
}

static void added(const sample *s, double alpha) {
  nyx_tensor *x = filled(s->dtype, SHAPE(s->outer, s->rows, s->inner));
  nyx_tensor *source = filled(s->dtype, SHAPE(s->outer, s->count, s->inner));
  nyx_tensor *index = list(s->rows, s->used, s->count), *other = strided(x), *out, *got;
  const nyx_value attrs[] = {NYX_I(1), NYX_F(alpha)};
  double *want = moved(s, x, index, source, alpha);
  for (int threads = 1; threads <= 5; threads += 2) {
    must(nyx_parallel_set_threads(threads));
    out = apply(ID(index_add), x, index, source, attrs);
    CHECK_AT(as_wanted(s, out, want), "index_add", " of %s, %d threads", named(s),
             threads);
    nyx_tensor_release(out);
  }
  out = apply(ID(index_add), other, index, source, attrs);
  CHECK_AT(as_wanted(s, out, want), "index_add", " of strided %s", named(s));
  nyx_tensor_release(out);
  nyx_tensor *changed[] = {x, other};
  for (int i = 0; i < 2; i++) {
    out = changed[i];
    must(nyx_apply(ctx, nyx__op(ID(index_add)), (nyx_tensor *[]){out, index, source}, 3,
                   attrs, &out));
    got = plain_of(out);
    CHECK_AT(as_wanted(s, got, want), "index_add_", " of %s, strided %d", named(s), i);
    nyx_tensor_release(got);
  }
  free(want);
  nyx_tensor_release(x);
  nyx_tensor_release(other);
  nyx_tensor_release(source);
  nyx_tensor_release(index);
}

static void adding(void) {
  for (int i = 0; i < SAMPLES; i++) {
    added(&samples[i], 1);
    added(&samples[i], 3);
    added(&samples[i], 0);
  }
  must(nyx_parallel_set_threads(0));
}

/* Positions in the first dimension; the last of equal ones stays, or all add up. */
static void putting(void) {
  for (int i = 0; i < SAMPLES; i++) {
    sample s = samples[i];
    s.outer = 1;
    nyx_tensor *x = filled(s.dtype, SHAPE(s.rows, s.inner));
    nyx_tensor *source = filled(s.dtype, SHAPE(s.count, s.inner));
    nyx_tensor *index = list(s.rows, s.used, s.count);
    for (int sums = 0; sums < 2; sums++) {
      double *want = moved(&s, x, index, source, sums ? 1 : NAN);
      for (int threads = 1; threads <= 5; threads += 2) {
        must(nyx_parallel_set_threads(threads));
        nyx_tensor *out = apply(ID(index_put), x, source, index, ATTRS(NYX_I(sums)));
        CHECK_AT(as_wanted(&s, out, want), "index_put", " of %s, %d threads, sums %d",
                 named(&s), threads, sums);
        nyx_tensor_release(out);
      }
      free(want);
    }
    double *want = moved(&s, x, index, source, NAN);
    nyx_tensor *out = x;
    must(nyx_apply(ctx, nyx__op(ID(index_put)), (nyx_tensor *[]){x, source, index}, 3,
                   NULL, &out));
    CHECK_AT(as_wanted(&s, x, want), "index_put_", " of %s", named(&s));
    free(want);
    nyx_tensor_release(x);
    nyx_tensor_release(source);
    nyx_tensor_release(index);
  }
  must(nyx_parallel_set_threads(0));
}

static void compare_embedding(const sample *s, int64_t padding) {
  nyx_tensor *zeros = filled(s->dtype, SHAPE(s->rows, s->inner));
  memset(nyx__data(zeros), 0, (size_t)zeros->numel * nyx_dtype_size(s->dtype));
  nyx_tensor *g = filled(s->dtype, SHAPE(s->count, s->inner));
  nyx_tensor *index = list(s->rows, s->used, s->count);
  double *want = moved(s, zeros, index, g, 1);
  for (int64_t i = 0; padding >= 0 && i < s->inner; i++) want[padding * s->inner + i] = 0;
  const nyx_value attrs[] = {NYX_I(s->rows), padding < 0 ? NYX_NONE : NYX_I(padding)};
  for (int threads = 1; threads <= 5; threads += 2) {
    must(nyx_parallel_set_threads(threads));
    nyx_tensor *out = apply(ID(embedding_backward), g, index, NULL, attrs);
    CHECK_AT(as_wanted(s, out, want), "embedding_backward", " of %s, %d threads",
             named(s), threads);
    nyx_tensor_release(out);
  }
  free(want);
  nyx_tensor_release(zeros);
  nyx_tensor_release(g);
  nyx_tensor_release(index);
}

static void embedding_gradients(void) {
  for (int i = 0; i < SAMPLES; i++) {
    sample s = samples[i];
    s.outer = 1;
    if (!nyx_dtype_is_float(s.dtype)) continue;
    compare_embedding(&s, -1);
    compare_embedding(&s, 2);
  }
  must(nyx_parallel_set_threads(0));
}

/* out[o][k][i] is x[o][index[k]][i]. */
UNTRACED_CHECK static bool picked(const sample *s, const nyx_tensor *x,
                                  const nyx_tensor *index, const nyx_tensor *out) {
  const int64_t *p = nyx__data(index);
  size_t bytes = (size_t)s->inner * nyx_dtype_size(s->dtype);
  for (int64_t o = 0; o < s->outer; o++)
    for (int64_t k = 0; k < s->count; k++)
      if (memcmp(at(out, (o * s->count + k) * s->inner),
                 at(x, (o * s->rows + p[k]) * s->inner), bytes) != 0)
        return false;
  return true;
}

static void picking(void) {
  for (int i = 0; i < SAMPLES; i++) {
    sample s = samples[i];
    if (i % 2) s.count *= 3; /* some results go past the caches */
    nyx_tensor *x = filled(s.dtype, SHAPE(s.outer, s.rows, s.inner)), *other = strided(x);
    nyx_tensor *index = list(s.rows, s.used, s.count), *out;
    for (int round = 0; round < 2; round++) {
      out = apply(ID(index_select), round ? other : x, index, NULL, ATTRS(NYX_I(1)));
      CHECK_AT(picked(&s, x, index, out), "index_select", " of %s, strided %d", named(&s),
               round);
      nyx_tensor_release(out);
    }
    nyx_tensor *flat = NULL, *turned_flat;
    must(nyx__apply1(ctx, ID(reshape), x, ATTRS(LIST(s.outer * s.rows, s.inner)), &flat));
    turned_flat = strided(flat);
    s.rows *= s.outer;
    s.outer = 1;
    for (int round = 0; round < 4; round++) {
      nyx_tensor *from = round % 2 ? turned_flat : flat;
      out = apply(round < 2 ? ID(index) : ID(embedding), from, index, NULL, NULL);
      CHECK_AT(picked(&s, flat, index, out), "rows", " of %s, round %d", named(&s),
               round);
      nyx_tensor_release(out);
    }
    nyx_tensor_release(flat);
    nyx_tensor_release(turned_flat);
    nyx_tensor_release(x);
    nyx_tensor_release(other);
    nyx_tensor_release(index);
  }
}

/* Runs of neighbours in blocks of bytes, past the caches: roll, and pad with its fill. */
static void long_runs(void) {
  nyx_tensor *x = filled(NYX_FLOAT32, SHAPE(1100, 1021)), *rolled, *padded;
  rolled = apply(ID(roll), x, NULL, NULL, ATTRS(LIST(7, 300), LIST(0, 1)));
  padded = apply(ID(pad), x, NULL, NULL,
                 ATTRS(LIST(3, 2, 1, 0), NYX_S("constant"), NYX_F(2.5)));
  int64_t wrong = 0;
  for (int64_t r = 0; r < 1100; r++)
    for (int64_t c = 0; c < 1021; c++) {
      double v = element(x, r * 1021 + c);
      wrong += v != element(rolled, (r + 7) % 1100 * 1021 + (c + 300) % 1021);
      wrong += v != element(padded, (r + 1) * 1026 + c + 3);
    }
  for (int64_t c = 0; c < 1026; c++) wrong += element(padded, c) != 2.5;
  for (int64_t r = 1; r < 1101; r++) wrong += element(padded, r * 1026 + 2) != 2.5;
  CHECK_INT(wrong, 0);
  nyx_tensor_release(x);
  nyx_tensor_release(rolled);
  nyx_tensor_release(padded);
}

/* A change in place that finds no memory has changed nothing. */
static void without_memory(void) {
  const sample s = {NYX_FLOAT32, 1, 60, 40, 90, 60};
  for (int op = 0; op < 2; op++) {
    nyx_tensor *x = filled(s.dtype, SHAPE(s.rows, s.inner)), *kept = plain_of(x), *copy;
    must(nyx_tensor_empty(ctx, s.dtype, 2, x->shape, &copy));
    memcpy(nyx__data(copy), nyx__data(x), (size_t)x->numel * sizeof(float));
    nyx_tensor *source = filled(s.dtype, SHAPE(s.count, s.inner));
    nyx_tensor *index = list(s.rows, s.used, s.count);
    nyx_tensor *in[] = {x, op ? source : index, op ? index : source};
    const nyx_value add_attrs[] = {NYX_I(0), NYX_F(1)}, put_attrs[] = {NYX_I(1)};
    const nyx_op *which = nyx__op(op ? ID(index_put) : ID(index_add));
    nyx_status status = NYX_ERR_MEMORY;
    for (int after = 0; status == NYX_ERR_MEMORY && after < 50; after++) {
      nyx_tensor *out = x;
      nyx_memory_fail_after(after);
      status = nyx_apply(ctx, which, in, 3, op ? put_attrs : add_attrs, &out);
      nyx_memory_fail_after(-1);
      bool same = memcmp(nyx__data(x), nyx__data(copy), (size_t)x->numel * 4) == 0;
      CHECK_AT(status == NYX_OK || same, which->name, " after %d allocations", after);
    }
    CHECK(status == NYX_OK);
    nyx_tensor_release(x);
    nyx_tensor_release(kept);
    nyx_tensor_release(copy);
    nyx_tensor_release(source);
    nyx_tensor_release(index);
  }
}

static void run(void) {
  RUN(adding);
  RUN(putting);
  RUN(embedding_gradients);
  RUN(picking);
  RUN(long_runs);
  RUN(without_memory);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
