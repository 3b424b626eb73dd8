/* Sorting: rows around the limits of insertion, digits and blocks, for every dtype and in
 * both directions, against a stable sort of the C library; and unique. Read next:
 * core/op/order.c. */
#include "tensors.h"

#include <math.h>
#include <nyx/parallel.h>

#include "core/op/order.h"

typedef struct entry {
  double value;
  int64_t at;
} entry;

static bool down_now;

/* NaN is larger than all numbers and equal to itself; positions make it stable. */
UNTRACED static int compare(const void *a, const void *b) {
  const entry *x = a, *y = b;
  int order = isnan(x->value) || isnan(y->value)
                  ? (int)isnan(x->value) - (int)isnan(y->value)
                  : (x->value > y->value) - (x->value < y->value);
  if (order != 0) return down_now ? -order : order;
  return (x->at > y->at) - (x->at < y->at);
}

/* Which values a row holds. */
enum { WIDE, CLOSE, SAME, SPECIAL, ZEROS, ENDS, KINDS };

UNTRACED static double value_of(nyx_dtype dtype, int kind, int64_t i) {
  static const double special[] = {0, -0.0, NAN, INFINITY, -INFINITY, 1, -1};
  double v = (double)next();
  if (kind == CLOSE) v = (double)(next() % 100);
  if (kind == SAME) v = 5;
  if (kind == SPECIAL && nyx_dtype_is_float(dtype)) v = special[next() % 7];
  if (kind == ZEROS) v = -(double)(next() % 2) * (double)(next() % 2);
  if (kind == ENDS && nyx_dtype_is_float(dtype)) v = next() % 9 ? -INFINITY : NAN;
  if (kind == WIDE && dtype == NYX_INT64)
    v = i % 5 ? (double)next() * 0x1p38 : i % 2 ? -0x1p63 : 0x1p62;
  if (kind == WIDE && nyx_dtype_is_float(dtype)) v = v / 256 - 32768;
  return v;
}

UNTRACED_CHECK static void top_of_row(nyx_dtype dtype, const void *x, int64_t stride,
                                      int64_t n, int64_t k, bool down, int kind,
                                      const entry *want) {
  nyx__stop stop = {.ctx = ctx};
  void *scratch = malloc(nyx__order_scratch(dtype, n, k) + 1); /* to the byte */
  nyx__order o = nyx__order_top(&stop, dtype, x, stride, n, k, down, scratch);
  for (int64_t i = 0; i < k; i++)
    if (!CHECK_AT(nyx__order_at(&o, i) == want[i].at, nyx_dtype_name(dtype),
                  ": %d of the first %d of %d, kind %d%s", (int)i, (int)k, (int)n, kind,
                  down ? ", down" : ""))
      break;
  free(scratch);
}

UNTRACED_CHECK static void sort_row(nyx_dtype dtype, int64_t n, int kind, bool down,
                                    int64_t stride) {
  size_t item = nyx_dtype_size(dtype);
  char *x = calloc((size_t)(n * stride + 1), item);
  entry *want = malloc((size_t)(n + 1) * sizeof *want);
  void *scratch = malloc(nyx__order_scratch(dtype, n, n) + 1);
  for (int64_t i = 0; i < n; i++) {
    nyx__store_double(dtype, x + (size_t)(i * stride) * item, value_of(dtype, kind, i));
    double stored = nyx__load_double(dtype, x + (size_t)(i * stride) * item);
    want[i] = (entry){stored, i};
  }
  nyx__stop stop = {.ctx = ctx};
  down_now = down;
  qsort(want, (size_t)n, sizeof *want, compare);
  nyx__order o = nyx__order_sort(&stop, dtype, x, stride, n, down, scratch);
  const nyx__order_bits bits = nyx__order_bits_of(&o);
  for (int64_t i = 0; i < n; i++) {
    int64_t at = nyx__order_at(&o, i);
    uint64_t made = nyx__order_value(&bits, nyx__order_key(&o, i));
    bool right = at == want[i].at;
    if (o.exact)
      right = right && memcmp(&made, x + (size_t)(at * stride) * item, item) == 0;
    if (!CHECK_AT(right, nyx_dtype_name(dtype), ": %d of %d, kind %d%s", (int)i, (int)n,
                  kind, down ? ", down" : ""))
      break;
  }
  free(scratch);
  const int64_t first[] = {1, 4, 7, 10, 13, 16, 19, n / 17, 1025, n / 5, n / 3};
  for (int f = 0; f < 11; f++)
    if (first[f] > 0 && first[f] <= n)
      top_of_row(dtype, x, stride, n, first[f], down, kind, want);
  free(want);
  free(x);
}

static void rows(void) {
  static const int64_t sizes[] = {0,    1,    2,     48,   49,    777,  4095,
                                  4096, 1023, 33000, 8192, 70001, 66000};
  for (int dtype = 0; dtype < NYX_BOOL; dtype++)
    for (int s = 0; s < 13; s++)
      for (int kind = 0; kind < CHECK_ROUNDS(KINDS); kind++)
        for (int down = 0; down < 2; down++)
          sort_row((nyx_dtype)dtype, sizes[s], kind, down, 1 + s % 2);
}

/* unique, by counting where values are close and by sorting where they are not. */
UNTRACED_CHECK static void unique_values(nyx_dtype dtype, int64_t n, int kind) {
  entry *v = malloc((size_t)(n + 1) * sizeof *v);
  nyx_tensor *x, *out[3] = {NULL};
  must(nyx_tensor_empty(ctx, dtype, 1, &n, &x));
  for (int64_t i = 0; i < n; i++) {
    char *at = (char *)nyx_tensor_data(x) + (size_t)i * nyx_dtype_size(dtype);
    nyx__store_double(dtype, at, value_of(dtype, kind, i));
    v[i] = (entry){nyx__load_double(dtype, at), i};
  }
  down_now = false;
  qsort(v, (size_t)n, sizeof *v, compare);
  must(nyx_apply(ctx, nyx__op(ID(unique)), &x, 1, NULL, out));
  const int64_t *inverse = nyx_tensor_data(out[1]), *counts = nyx_tensor_data(out[2]);
  int64_t rank = -1, here = 0, bad = 0;
  for (int64_t i = 0; i < n; i++) {
    bool fresh_one = i == 0 || v[i].value > v[i - 1].value ||
                     (isnan(v[i].value) && !isnan(v[i - 1].value));
    if (fresh_one) {
      bad += rank >= 0 && counts[rank] != here;
      rank++;
      here = 0;
      bad +=
          memcmp((char *)nyx_tensor_data(out[0]) + (size_t)rank * nyx_dtype_size(dtype),
                 (char *)nyx_tensor_data(x) + (size_t)v[i].at * nyx_dtype_size(dtype),
                 nyx_dtype_size(dtype)) != 0;
    }
    here++;
    bad += inverse[v[i].at] != rank;
  }
  CHECK_AT(bad == 0 && nyx_tensor_numel(out[0]) == rank + 1, nyx_dtype_name(dtype),
           ": %d of %d, kind %d", (int)bad, (int)n, kind);
  for (int i = 0; i < 3; i++) nyx_tensor_release(out[i]);
  nyx_tensor_release(x);
  free(v);
}

static void uniques(void) {
  static const int64_t sizes[] = {0, 1, 30, 5000, 70001};
  for (int dtype = 0; dtype < NYX_BOOL; dtype++)
    for (int s = 0; s < 5; s++)
      for (int kind = 0; kind < CHECK_ROUNDS(KINDS); kind++)
        unique_values((nyx_dtype)dtype, sizes[s], kind);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN_ONE_THREAD(rows);
  RUN(uniques);
  CHECK_OK(ctx, nyx_parallel_set_threads(3));
  RUN(rows);
  nyx_context_free(ctx);
  return check_done();
}
