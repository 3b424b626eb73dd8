/* The CPU's elementwise driver: any strides, broadcasting, every pair of dtypes, in
 * place, on one thread and several; and the conversions it uses, on every path. Each
 * result is compared with one computed element by element here. Read next:
 * core/device/cpu/elementwise.c. */
#include <float.h>
#include <nyx/parallel.h>
#include <stdlib.h>

#include "check.h"
#include "core/device/cpu/cpu.h"
#include "core/op/ops.h"
#include "core/tensor/tensor.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/move.h"

static nyx_context *ctx;

static uint64_t random_state = 7;
UNTRACED static uint64_t random_bits(void) { /* splitmix64 */
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
UNTRACED static int64_t below(int64_t n) {
  return (int64_t)(random_bits() % (uint64_t)n);
}

UNTRACED static double wrapped(int64_t i, nyx_dtype dtype) {
  return dtype == NYX_INT8    ? (double)(int8_t)i
         : dtype == NYX_UINT8 ? (double)(uint8_t)i
         : dtype == NYX_INT32 ? (double)(int32_t)i
                              : (double)i;
}
/* What writing v, computed in `compute`, to `dtype` must give: integers wrap, floats are
 * cut to the range. */
UNTRACED static double converted(double v, nyx_dtype compute, nyx_dtype dtype) {
  static const double least[] = {
      [NYX_INT8] = -128, [NYX_INT32] = -0x1p31, [NYX_INT64] = -0x1p63};
  static const double most[] = {[NYX_INT8] = 127,
                                [NYX_UINT8] = 255,
                                [NYX_INT32] = 0x1p31 - 1,
                                [NYX_INT64] = 0x1p63};
  if (dtype == NYX_BOOL) return v != 0;
  if (nyx_dtype_is_float(dtype)) return v;
  if (nyx_dtype_is_float(compute))
    return isnan(v)           ? 0
           : v < least[dtype] ? least[dtype]
           : v > most[dtype]  ? most[dtype]
                              : trunc(v);
  return wrapped((int64_t)v, dtype);
}

/* A tensor of some shape, laid out in one of these ways over storage of its own. */
enum { PLAIN, TRANSPOSED, STEPPED, BROADCAST, SCALAR, LAYOUTS };

UNTRACED_CHECK static nyx_tensor *laid_out(nyx_dtype dtype, int ndim,
                                           const int64_t *shape, int layout) {
  int64_t stride[NYX_MAX_DIMS] = {0}, total = layout == STEPPED ? 2 : 1;
  int order[NYX_MAX_DIMS];
  for (int d = 0; d < ndim; d++) order[d] = d;
  for (int d = ndim - 1; d > 0 && layout == TRANSPOSED; d--) {
    int other = (int)below(d + 1), swap = order[d];
    order[d] = order[other];
    order[other] = swap;
  }
  for (int d = ndim - 1; d >= 0; d--) {
    bool repeated = layout == SCALAR || (layout == BROADCAST && below(2));
    stride[order[d]] = repeated ? 0 : total;
    if (!repeated) total *= shape[order[d]] + (layout == STEPPED);
  }
  nyx_tensor *store, *t;
  total += 3;
  if (!CHECK_OK(ctx, nyx_tensor_empty(ctx, dtype, 1, &total, &store))) exit(1);
  for (int64_t i = 0; i < total; i++) {
    double v = (double)below(17) - 8;
    if (dtype == NYX_UINT8) v = fabs(v);
    if (dtype == NYX_BOOL) v = v > 0;
    nyx__store_double(dtype, (char *)nyx__data(store) + i * (int)nyx_dtype_size(dtype),
                      v);
  }
  nyx_spec spec = {.dtype = dtype, .ndim = ndim, .offset = 3};
  for (int d = 0; d < ndim; d++) {
    spec.shape[d] = stride[d] == 0 && layout == BROADCAST ? 1 : shape[d];
    spec.stride[d] = stride[d];
  }
  if (layout == SCALAR) spec.ndim = 0;
  if (!CHECK_OK(ctx, nyx__tensor_view(ctx, store->storage, &spec, &t))) exit(1);
  nyx_tensor_release(store);
  return t;
}

/* The element of t that broadcasts to position `at` of an ndim-dimensional shape. */
UNTRACED_CHECK static double element(const nyx_tensor *t, int ndim, const int64_t *at) {
  int64_t offset = 0;
  for (int d = 0; d < t->ndim; d++)
    if (t->shape[d] != 1) offset += at[ndim - t->ndim + d] * t->stride[d];
  return nyx__load_double(t->dtype,
                          (char *)nyx__data(t) + offset * (int)nyx_dtype_size(t->dtype));
}

UNTRACED static double reference(int id, const double *v) {
  switch (id) {
    case NYX_KERNEL_clone: return v[0];
    case NYX_KERNEL_sub: return v[0] - v[1];
    case NYX_KERNEL_maximum: return v[0] > v[1] ? v[0] : v[1];
    case NYX_KERNEL_lt: return v[0] < v[1];
    default: return v[0] != 0 ? v[1] : v[2]; /* where */
  }
}

static nyx_dtype any_compute(void) {
  static const nyx_dtype computes[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_INT32, NYX_INT64};
  return computes[below(4)];
}

UNTRACED_CHECK static void compare(int id, nyx_dtype compute, int ndim,
                                   const int64_t *shape, const nyx_dtype *dtype,
                                   const int *layout) {
  const nyx_row *row = nyx__row((nyx__op_id)id);
  nyx_elementwise job = {.row = row, .compute = compute};
  for (int k = 0; k < row->arity; k++)
    job.in[k] = laid_out(dtype[k], ndim, shape, layout[k]);
  job.out = laid_out(dtype[3], ndim, shape, layout[3] % BROADCAST);
  int64_t n = job.out->numel, at[NYX_MAX_DIMS] = {0};
  double *want = malloc((size_t)(n + 1) * sizeof *want);
  for (int64_t i = 0; i < n; i++) {
    double v[3] = {0};
    for (int k = 0; k < row->arity; k++) v[k] = element(job.in[k], ndim, at);
    want[i] = converted(reference(id, v), job.compute, dtype[3]);
    for (int d = ndim - 1; d >= 0 && ++at[d] == shape[d]; d--) at[d] = 0;
  }
  CHECK_OK(ctx, nyx__cpu_elementwise(ctx, nyx__cpu(), &job));
  memset(at, 0, sizeof at);
  for (int64_t i = 0; i < n; i++) {
    double got = element(job.out, ndim, at);
    if (!CHECK_AT(got == want[i], row->name,
                  ": element %lld of %lld, %s %s %s -> %s in %s, layouts %d %d %d %d: "
                  "got %g, expected %g",
                  (long long)i, (long long)n, nyx_dtype_name(dtype[0]),
                  nyx_dtype_name(dtype[1]), nyx_dtype_name(dtype[2]),
                  nyx_dtype_name(dtype[3]), nyx_dtype_name(job.compute), layout[0],
                  layout[1], layout[2], layout[3], got, want[i]))
      break;
    for (int d = ndim - 1; d >= 0 && ++at[d] == shape[d]; d--) at[d] = 0;
  }
  free(want);
  for (int k = 0; k < row->arity; k++) nyx_tensor_release(job.in[k]);
  nyx_tensor_release(job.out);
}

static const int ids[] = {NYX_KERNEL_clone, NYX_KERNEL_sub, NYX_KERNEL_maximum,
                          NYX_KERNEL_lt, NYX_KERNEL_where};

static void small_shapes(void) {
  for (int round = 0; round < CHECK_ROUNDS(20000); round++) {
    int64_t shape[NYX_MAX_DIMS];
    int ndim = (int)below(6), layout[4];
    nyx_dtype dtype[4];
    bool mixed = below(2);
    for (int d = 0; d < ndim; d++) shape[d] = below(20) ? 1 + below(7) : 0;
    for (int k = 0; k < 4; k++) {
      layout[k] = (int)below(LAYOUTS);
      dtype[k] = mixed || k == 0 ? (nyx_dtype)below(NYX_COMPLEX64) : dtype[0];
    }
    compare(ids[below(5)], any_compute(), ndim, shape, dtype, layout);
  }
}

/* By a mask of bytes elements of one type are only moved, whatever their size. */
static void choices(void) {
  static const nyx_dtype masks[] = {NYX_BOOL, NYX_UINT8, NYX_INT8};
  for (int round = 0; round < CHECK_ROUNDS(4000); round++) {
    const int ndim = (int)below(4);
    int64_t shape[3] = {1 + below(9), 1 + below(90), 1 + below(round % 50 ? 90 : 3000)};
    const nyx_dtype dtype = (nyx_dtype)below(NYX_BOOL + 1);
    nyx_dtype types[4] = {masks[below(3)], dtype, dtype, dtype};
    int layout[4];
    for (int k = 0; k < 4; k++) layout[k] = (int)below(LAYOUTS);
    for (int k = 1; k < 3; k++) /* a number may be of another type */
      if (layout[k] == SCALAR && below(2))
        types[k] = nyx_dtype_is_float(dtype) ? NYX_FLOAT64 : NYX_UINT8;
    if (dtype == NYX_BOOL) types[1] = types[2] = NYX_BOOL;
    compare(NYX_KERNEL_where, nyx__compute_dtype(dtype), ndim, shape, types, layout);
  }
}

/* Several blocks and several threads; rows longer and shorter than a block. */
static void large_shapes(void) {
  static const int64_t shapes[][3] = {{3, 211, 307}, {70000, 3, 1}, {2, 40, 2500},
                                      {1, 300, 900}, {700, 2, 111}, {64, 1, 4096}};
  for (int round = 0; round < CHECK_ROUNDS(90); round++) {
    int layout[4];
    nyx_dtype dtype[4];
    for (int k = 0; k < 4; k++) {
      layout[k] = (int)below(LAYOUTS);
      dtype[k] = below(2) ? NYX_FLOAT32 : (nyx_dtype)below(NYX_COMPLEX64);
    }
    compare(ids[round % 5], any_compute(), 3, shapes[round % 6], dtype, layout);
  }
}

/* Both sides of the limits of tiles, panels and of what is written past the caches. */
static void turned_shapes(void) {
  static const int64_t shapes[][2] = {{32, 64},   {33, 65},    {513, 127},  {1030, 66},
                                      {64, 1031}, {1023, 515}, {1100, 1030}};
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_BFLOAT16, NYX_UINT8};
  for (int round = 0; round < 4 * 7 * 2; round += CHECK_STEP) {
    nyx_dtype one = dtypes[round % 4];
    const nyx_dtype dtype[4] = {one, one, one, one};
    const int layout[4] = {TRANSPOSED, round % 3 ? PLAIN : TRANSPOSED, PLAIN,
                           round % 5 ? PLAIN : TRANSPOSED};
    compare(ids[round / 28], any_compute(), 2, shapes[round / 4 % 7], dtype, layout);
  }
}

/* Copies from and to whole tensors, whose rows may begin with a line of the cache. */
UNTRACED_CHECK static void turned_copies(void) {
  static const int64_t shapes[][3] = {{3, 70, 64}, {2, 1100, 1088}, {5, 257, 130}};
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_BFLOAT16, NYX_UINT8};
  for (int round = 0; round < 12; round++) {
    const int64_t *shape = shapes[round / 4];
    const nyx_value dims[] = {NYX_I(1), NYX_I(2)};
    nyx_tensor *x, *y, *turned;
    CHECK_OK(ctx, nyx_tensor_empty(ctx, dtypes[round % 4], 3, shape, &x));
    size_t item = nyx_dtype_size(x->dtype);
    for (int64_t i = 0; i < x->numel; i++) {
      uint64_t bits = random_bits();
      memcpy((char *)nyx__data(x) + (size_t)i * item, &bits, item);
    }
    CHECK_OK(ctx, nyx__apply1(ctx, NYX__OP_transpose, x, dims, &turned));
    CHECK_OK(ctx, nyx__apply1(ctx, NYX__OP_contiguous, turned, NULL, &y));
    int64_t bad = 0;
    for (int64_t i = 0; i < x->numel; i++) {
      int64_t o = i / shape[2] / shape[1], r = i / shape[2] % shape[1], c = i % shape[2];
      int64_t to = (o * shape[2] + c) * shape[1] + r;
      bad += memcmp((char *)nyx__data(x) + (size_t)i * item,
                    (char *)nyx__data(y) + (size_t)to * item, item) != 0;
    }
    CHECK_AT(bad == 0, nyx_dtype_name(x->dtype), ": %d of %d x %d x %d", (int)bad,
             (int)shape[0], (int)shape[1], (int)shape[2]);
    nyx_tensor_release(x);
    nyx_tensor_release(y);
    nyx_tensor_release(turned);
  }
}

/* A whole tensor and a turned one, with a result past the caches whose rows begin with a
 * line. */
UNTRACED_CHECK static void turned_differences(void) {
  const int64_t rows = 1100, cols = 1088, shape[] = {rows, cols}, other[] = {cols, rows};
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64};
  for (int d = 0; d < 2; d++) {
    const nyx_value dims[] = {NYX_I(0), NYX_I(1)};
    nyx_tensor *x, *y, *turned, *out;
    CHECK_OK(ctx, nyx_tensor_empty(ctx, dtypes[d], 2, shape, &x));
    CHECK_OK(ctx, nyx_tensor_empty(ctx, dtypes[d], 2, other, &y));
    const size_t item = nyx_dtype_size(x->dtype);
    for (int64_t i = 0; i < rows * cols; i++) {
      nyx__store_double(x->dtype, (char *)nyx__data(x) + (size_t)i * item,
                        (double)below(999));
      nyx__store_double(y->dtype, (char *)nyx__data(y) + (size_t)i * item,
                        (double)below(999));
    }
    CHECK_OK(ctx, nyx__apply1(ctx, NYX__OP_transpose, y, dims, &turned));
    CHECK_OK(ctx, nyx__apply2(ctx, NYX__OP_sub, x, turned, NULL, &out));
    int64_t bad = 0;
    for (int64_t i = 0; i < rows * cols; i++) {
      const int64_t at[] = {i / cols, i % cols};
      bad += element(out, 2, at) != element(x, 2, at) - element(turned, 2, at);
    }
    CHECK_AT(bad == 0, nyx_dtype_name(x->dtype), ": %d differ", (int)bad);
    nyx_tensor_release(x);
    nyx_tensor_release(y);
    nyx_tensor_release(turned);
    nyx_tensor_release(out);
  }
}

/* Results in order that are written past the caches, in pieces of a block; in float32
 * without a buffer, from where a line of the cache begins. */
static void results_past_the_caches(void) {
  for (int layout = 0; layout < LAYOUTS; layout += CHECK_STEP)
    for (int single = 0; single < 2; single++) {
      const nyx_dtype one = single ? NYX_FLOAT32 : NYX_FLOAT64;
      const nyx_dtype dtype[] = {one, one, one, one};
      const int64_t shape[] = {single ? 4 : 2, 1049, 1001};
      compare(NYX_KERNEL_sub, one, 3, shape, dtype, (int[]){PLAIN, layout, 0, PLAIN});
      compare(NYX_KERNEL_clone, one, 3, shape, dtype, (int[]){layout, 0, 0, PLAIN});
    }
}

/* Into rows that begin with a line of the cache; nothing beside them is written. */
UNTRACED_CHECK static void whole_lines_on(const nyx_cpu_kernels *k) {
  enum { MOST = 150, STEP = 256 };
  static char src[MOST * STEP * 8];
  _Alignas(64) static char dst[MOST * STEP * 8];
  for (size_t i = 0; i < sizeof src; i++) src[i] = (char)random_bits();
  for (int round = 0; round < 8 * 60; round++) {
    const int size = round % 4, past = round / 4 % 2;
    const size_t item = (size_t)1 << size;
    const int64_t line = 64 / (int)item;
    int64_t rows = 1 + below(MOST), cols = 1 + below(NYX_TURN_BYTES / (int)item), bad = 0;
    if (below(2)) rows += -rows & (line - 1);
    if (below(2)) cols += -cols & (line - 1);
    if (rows > MOST) rows = MOST - MOST % line;
    memset(dst, 0, sizeof dst);
    (past ? k->move->turn_past : k->move->turn)[size](rows, cols, src, MOST, dst, STEP);
    k->move->drain();
    for (int64_t r = 0; r < MOST; r++)
      for (int64_t c = 0; c < STEP; c++) {
        const char zero[8] = {0}, *from = src + (size_t)(c * MOST + r) * item;
        bool inside = r < rows && c < cols;
        bad += memcmp(dst + (size_t)(r * STEP + c) * item, inside ? from : zero, item);
      }
    CHECK_AT(bad == 0, k->name, ": %d x %d of %d bytes, %s the caches", (int)rows,
             (int)cols, (int)item, past ? "past" : "into");
  }
}

/* Of any length, to a place of their own or one of the sources, and not beyond. */
UNTRACED_CHECK static void choices_on(const nyx_cpu_kernels *k) {
  enum { MOST = 150 };
  static char a[MOST * 8 + 16], b[MOST * 8 + 16], to[MOST * 8 + 16];
  static uint8_t mask[MOST];
  for (int round = 0; round < CHECK_ROUNDS(2000); round++) {
    const int size = (int)below(4), target = (int)below(3);
    const int64_t item = (int64_t)1 << size, n = below(MOST + 1);
    char want[MOST * 8], *out = target == 0 ? to : target == 1 ? a : b;
    for (int i = 0; i < MOST; i++) mask[i] = below(2) ? (uint8_t)random_bits() : 0;
    for (size_t i = 0; i < sizeof a; i++)
      a[i] = (char)random_bits(), b[i] = (char)random_bits();
    for (int64_t i = 0; i < n; i++)
      memcpy(want + i * item, (mask[i] ? a : b) + 8 + i * item, (size_t)item);
    memset(out + 8 + n * item, 77, 8);
    k->move->choose[size](n, (const void *[]){mask, a + 8, b + 8}, out + 8, NULL);
    bool beyond = false;
    for (int64_t i = 0; i < 8; i++) beyond |= out[8 + n * item + i] != 77;
    CHECK_AT(memcmp(out + 8, want, (size_t)(n * item)) == 0 && !beyond, k->name,
             ": %d of %d bytes, target %d", (int)n, (int)item, target);
  }
}

/* Kernels of every path: blocks of all shapes around the squares that are turned in
 * registers; and bytes from and to any address. */
UNTRACED_CHECK static void moves_on(const nyx_cpu_kernels *k) {
  enum { MOST = 67, STEP = 71 };
  static char src[MOST * STEP * 8 + 300], dst[MOST * STEP * 8 + 300];
  for (size_t i = 0; i < sizeof src; i++) src[i] = (char)random_bits();
  for (int size = 0; size < 4; size++) {
    size_t item = (size_t)1 << size;
    for (int round = 0; round < CHECK_ROUNDS(200); round++) {
      int64_t rows = below(MOST + 1), cols = below(MOST + 1), bad = 0;
      memset(dst, 0, sizeof dst);
      k->move->transpose[size](rows, cols, src, STEP, dst, STEP);
      for (int64_t r = 0; r < MOST; r++)
        for (int64_t c = 0; c < STEP; c++) {
          const char zero[8] = {0}, *from = src + (size_t)(c * STEP + r) * item;
          bool inside = r < rows && c < cols;
          bad += memcmp(dst + (size_t)(r * STEP + c) * item, inside ? from : zero, item);
        }
      CHECK_AT(bad == 0, k->name, ": %d x %d of %d bytes", (int)rows, (int)cols,
               (int)item);
    }
  }
  whole_lines_on(k);
  for (int round = 0; round < CHECK_ROUNDS(500); round++) {
    int64_t n = below(300), from = below(70), to = 1 + below(70);
    memset(dst, 1, sizeof dst);
    k->move->stream(n, src + from, dst + to);
    k->move->drain();
    CHECK_AT(memcmp(src + from, dst + to, (size_t)n) == 0 && dst[to - 1] == 1 &&
                 dst[to + n] == 1,
             k->name, ": %d bytes from %d to %d", (int)n, (int)from, (int)to);
  }
}

/* Adding to itself, through views of every kind. */
UNTRACED_CHECK static void in_place(void) {
  for (int round = 0; round < CHECK_ROUNDS(2000); round++) {
    int64_t shape[3] = {1 + below(9), 1 + below(9), 1 + below(round % 50 ? 9 : 3000)};
    nyx_dtype dtype = (nyx_dtype)below(NYX_BOOL);
    nyx_tensor *x = laid_out(dtype, 3, shape, (int)below(BROADCAST));
    nyx_tensor *y = laid_out(dtype, 3, shape, (int)below(LAYOUTS));
    nyx_elementwise job = {.row = nyx__row(NYX__OP_add),
                           .compute = nyx_dtype_is_float(dtype) ? NYX_FLOAT32 : NYX_INT32,
                           .in = {x, y},
                           .out = x};
    double *want = malloc((size_t)x->numel * sizeof *want);
    for (int64_t i = 0; i < x->numel; i++) {
      int64_t at[3] = {i / shape[2] / shape[1], i / shape[2] % shape[1], i % shape[2]};
      want[i] = converted(element(x, 3, at) + element(y, 3, at), job.compute, dtype);
    }
    CHECK_OK(ctx, nyx__cpu_elementwise(ctx, nyx__cpu(), &job));
    for (int64_t i = 0; i < x->numel; i++) {
      int64_t at[3] = {i / shape[2] / shape[1], i / shape[2] % shape[1], i % shape[2]};
      CHECK_NEAR(element(x, 3, at), want[i], 0);
    }
    free(want);
    nyx_tensor_release(x);
    nyx_tensor_release(y);
  }
}

/* Conversions, on every path, against nyx__load_double and nyx__store_double */

static const double numbers[] = {0,
                                 1,
                                 -1,
                                 0.5,
                                 -0.5,
                                 1.5,
                                 -1.5,
                                 127,
                                 128,
                                 -128,
                                 -129,
                                 255,
                                 256,
                                 300.75,
                                 2047.5,
                                 65504,
                                 65519.99,
                                 65520,
                                 -65520,
                                 2147483647,
                                 2147483648.,
                                 -2147483648.,
                                 -2147483649.,
                                 4e9,
                                 9.3e18,
                                 -9.3e18,
                                 1e30,
                                 -1e30,
                                 6e-8,
                                 5.9e-8,
                                 2.9e-8,
                                 3e-8,
                                 6.1e-5,
                                 6.09e-5,
                                 1.0009765625,
                                 1.00048828125,
                                 1.001464843750,
                                 3.4e38,
                                 1e-40,
                                 1e-45,
                                 INFINITY,
                                 -INFINITY,
                                 NAN,
                                 16777217,
                                 0.1,
                                 -0.1};
/* Several times over, so that each is in some vector and not only in what is left. */
enum { DIFFERENT = sizeof numbers / sizeof *numbers, NUMBERS = 4 * DIFFERENT };

static const nyx_dtype compute_dtype[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_INT32, NYX_INT64};

UNTRACED static bool same(double a, double b) {
  return a == b || (isnan(a) && isnan(b));
}

UNTRACED_CHECK static void conversions_on(const nyx_cpu_kernels *k) {
  for (int c = 0; c < NYX_IN_COUNT; c++)
    for (int d = 0; d < NYX_COMPLEX64; d++)
      for (int64_t stride = 0; stride < 4; stride++) {
        nyx_dtype from = compute_dtype[c], to = (nyx_dtype)d;
        size_t wide = nyx_dtype_size(from), narrow = nyx_dtype_size(to);
        char src[NUMBERS * 8], dst[NUMBERS * 8 * 4 + 8], back[NUMBERS * 8];
        memset(dst, 0, sizeof dst);
        for (int i = 0; i < NUMBERS; i++)
          nyx__store_double(from, src + (size_t)i * wide, numbers[i % DIFFERENT]);
        if (stride > 0)
          k->elementwise->scatter[c][d](NUMBERS, src, dst, stride);
        else
          k->elementwise->scatter[c][d](1, src + 9 * wide, dst, 1);
        k->elementwise->gather[d][c](NUMBERS, dst, stride, back);
        for (int i = 0; i < NUMBERS; i++) {
          double v = nyx__load_double(from, src + (size_t)(stride ? i : 9) * wide);
          double stored = nyx__load_double(to, dst + (size_t)(stride * i) * narrow);
          double loaded = nyx__load_double(from, back + (size_t)i * wide);
          char one[8];
          nyx__store_double(to, one, converted(v, from, to));
          double want = nyx__load_double(to, one);
          if (!nyx_dtype_is_float(from) && nyx_dtype_kind_of(to) == NYX_KIND_INT)
            want =
                wrapped(nyx__load_int(from, src + (size_t)(stride ? i : 9) * wide), to);
          if (to == NYX_INT64 && fabs(v) >= 0x1p63) want = v > 0 ? 0x1p63 : -0x1p63;
          CHECK_AT(same(stored, want), nyx_dtype_name(to),
                   " from %s on %s, stride %d: %g gave %.17g, expected %.17g",
                   nyx_dtype_name(from), k->name, (int)stride, v, stored, want);
          if (nyx_dtype_is_float(from))
            want = from == NYX_FLOAT32 ? (float)stored : stored;
          else if (nyx_dtype_is_float(to))
            want = converted(stored, to, from);
          else
            want = wrapped(nyx__load_int(to, dst + (size_t)(stride * i) * narrow), from);
          CHECK_AT(same(loaded, want), nyx_dtype_name(from),
                   " from %s on %s, stride %d: %.17g gave %.17g, expected %.17g",
                   nyx_dtype_name(to), k->name, (int)stride, stored, loaded, want);
        }
      }
}
/* All 65536 halves to float and back. */
UNTRACED_CHECK static void halves_on(const nyx_cpu_kernels *k) {
  static uint16_t in[65536], out[65536];
  static float wide[65536];
  for (int d = NYX_FLOAT16; d <= NYX_BFLOAT16; d++) {
    int bad = 0;
    for (int i = 0; i < 65536; i++) in[i] = (uint16_t)i;
    k->elementwise->gather[d][NYX_IN_FLOAT32](65536, in, 1, wide);
    k->elementwise->scatter[NYX_IN_FLOAT32][d](65536, wide, out, 1);
    for (int i = 0; i < 65536; i++) {
      float want =
          d == NYX_FLOAT16 ? nyx__half_to_float(in[i]) : nyx__bfloat_to_float(in[i]);
      bool right = isnan(want) ? isnan(wide[i]) : want == wide[i] && out[i] == in[i];
      bad += !right;
    }
    CHECK_AT(bad == 0, "halves", ": %d of %s on %s", bad, nyx_dtype_name((nyx_dtype)d),
             k->name);
  }
}
/* NaNs whose digits are all in the part that is cut off stay NaNs, of their sign. */
UNTRACED_CHECK static void low_nans_on(const nyx_cpu_kernels *k) {
  enum { MANY = 70 };
  uint32_t in[MANY];
  uint16_t out[MANY];
  for (int d = NYX_FLOAT16; d <= NYX_BFLOAT16; d++) {
    int bad = 0;
    for (int i = 0; i < MANY; i++) in[i] = (i % 3 ? 0x7f800001u : 0xff800001u);
    k->elementwise->scatter[NYX_IN_FLOAT32][d](MANY, in, out, 1);
    for (int i = 0; i < MANY; i++) {
      float back =
          d == NYX_FLOAT16 ? nyx__half_to_float(out[i]) : nyx__bfloat_to_float(out[i]);
      bad += !isnan(back) || (out[i] >> 15) != (in[i] >> 31);
    }
    CHECK_AT(bad == 0, "nans", ": %d of %s on %s", bad, nyx_dtype_name((nyx_dtype)d),
             k->name);
  }
}
static void conversions(void) {
  static const char *const paths[] = {"base", "avx2", "avx512"};
  for (int p = 0; p < 3; p++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[p]);
    if (!k) continue;
    conversions_on(k);
    halves_on(k);
    low_nans_on(k);
    moves_on(k);
    choices_on(k);
  }
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(conversions);
  RUN(small_shapes);
  RUN(choices);
  RUN_ONE_THREAD(large_shapes);
  RUN_ONE_THREAD(turned_shapes);
  RUN_ONE_THREAD(turned_copies);
  RUN_ONE_THREAD(turned_differences);
  CHECK_OK(ctx, nyx_parallel_set_threads(3));
  RUN(large_shapes);
  RUN(turned_shapes);
  RUN(turned_copies);
  RUN(turned_differences);
  RUN(results_past_the_caches);
  RUN(in_place);
  nyx_context_free(ctx);
  return check_done();
}
