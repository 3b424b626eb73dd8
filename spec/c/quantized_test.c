/* Products with weights of few bits on every path: against float64 within a bound, for
 * few and many rows, groups of any size, every dtype of scales. Read next:
 * core/linalg/quantized.c, paths.h. */
#include "core/linalg/quantized.h"
#include "core/tensor/tensor.h"
#include "kernels/cpu/low.h"
#include "paths.h"

#include <nyx/parallel.h>

/* A weight with what it is in float64, and raw parts in some dtype. */
typedef struct weight {
  nyx_quantized q;
  uint8_t *bytes;
  void *scale, *zero;
  double *value;
} weight;

UNTRACED static double random_number(void) {
  return (double)((float)(next() % 4001) / 1000 - 2); /* a float32 */
}

/* `count` numbers of a dtype, all float32; what they became goes to `exact`. */
UNTRACED_CHECK static void *numbers(nyx_dtype dtype, int64_t count, double add,
                                    double *exact) {
  char *out = malloc((size_t)count * 8 + 8);
  if (!out) exit(1);
  for (int64_t i = 0; i < count; i++) {
    char *at = out + (size_t)i * nyx_dtype_size(dtype);
    nyx__store_double(dtype, at, (double)((float)random_number() + (float)add));
    exact[i] = nyx__load_double(dtype, at);
  }
  return out;
}

UNTRACED_CHECK static weight fill(bool int4, int64_t outputs, int64_t groups,
                                  int64_t group, nyx_dtype dtype, bool with_zeros) {
  int64_t terms = groups * group, bytes = outputs * terms / (int4 ? 2 : 1);
  weight w = {.bytes = malloc((size_t)bytes + 1),
              .value = malloc((size_t)(outputs * terms) * 8 + 8)};
  double *scale = malloc((size_t)(outputs * groups) * 8 + 8),
         *zero = malloc((size_t)(outputs * groups) * 8 + 8);
  if (!w.bytes || !w.value || !scale || !zero) exit(1);
  for (int64_t i = 0; i < bytes; i++) w.bytes[i] = (uint8_t)next();
  w.scale = numbers(dtype, outputs * groups, 0, scale);
  w.zero = numbers(dtype, outputs * groups, int4 ? 7 : 3, zero);
  w.q = (nyx_quantized){.q = w.bytes,
                        .int4 = int4,
                        .outputs = outputs,
                        .terms = terms,
                        .groups = groups,
                        .scale_dtype = dtype,
                        .zero_dtype = dtype,
                        .scale = w.scale,
                        .zero = with_zeros ? w.zero : NULL};
  for (int64_t i = 0; i < outputs * terms; i++) {
    int q = int4 ? w.bytes[i / 2] >> (i % 2 * 4) & 15 : (int8_t)w.bytes[i];
    w.value[i] = (q - (with_zeros ? zero[i / group] : int4 ? 8 : 0)) * scale[i / group];
  }
  free(scale);
  free(zero);
  return w;
}

static void empty(weight *w) {
  free(w->bytes);
  free(w->scale);
  free(w->zero);
  free(w->value);
}

/* Sums of k products in float32, in any order, of weights that are rounded twice. */
UNTRACED static int64_t wrong_elements(const weight *w, const float *x, int64_t rows,
                                       const float *bias, const float *y) {
  int64_t wrong = 0, terms = w->q.terms;
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t n = 0; n < w->q.outputs; n++) {
      double sum = bias ? (double)bias[n] : 0, size = fabs(sum);
      for (int64_t t = 0; t < terms; t++) {
        double term = (double)x[i * terms + t] * w->value[n * terms + t];
        sum += term;
        size += fabs(term);
      }
      double off = fabs((double)y[i * w->q.outputs + n] - sum);
      wrong += !(off <= (double)(terms + 4) * 0x1p-24 * size);
    }
  }
  return wrong;
}

static void product(bool int4, int64_t rows, int64_t outputs, int64_t groups,
                    int64_t group, nyx_dtype dtype, bool with_zeros, bool with_bias) {
  weight w = fill(int4, outputs, groups, group, dtype, with_zeros);
  float *x = malloc((size_t)(rows * w.q.terms) * 4 + 4),
        *y = malloc((size_t)(rows * outputs) * 4 + 4),
        *bias = malloc((size_t)outputs * 4 + 4);
  if (!x || !y || !bias) exit(1);
  for (int64_t i = 0; i < rows * w.q.terms; i++) x[i] = (float)random_number();
  for (int64_t i = 0; i < outputs; i++) bias[i] = (float)random_number();
  for (int64_t i = 0; i < rows * outputs; i++) y[i] = NAN;
  y[rows * outputs] = 77; /* what is behind the result stays as it is */
  CHECK_OK(ctx, nyx__quantized_product(ctx, &w.q, x, rows, with_bias ? bias : NULL, y));
  int64_t wrong = wrong_elements(&w, x, rows, with_bias ? bias : NULL, y);
  CHECK_AT(wrong == 0, int4 ? "int4" : "int8",
           " %lld rows, %lld outputs, %lld groups of %lld: %lld wrong", (long long)rows,
           (long long)outputs, (long long)groups, (long long)group, (long long)wrong);
  CHECK(y[rows * outputs] == 77);
  free(x);
  free(y);
  free(bias);
  empty(&w);
}

static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT16, NYX_BFLOAT16, NYX_FLOAT64};

/* Every number of rows about where the way changes, groups that do not fill vectors. */
static void edges(void) {
  static const int64_t group[] = {2, 6, 30, 32, 34, 62, 64, 66, 96, 128, 130};
  for (int i = 0; i < 11; i++) {
    for (int64_t rows = 1; rows <= 67; rows += rows > 9 ? 11 : 1) {
      for (int kind = 0; kind < 4; kind++) {
        product(kind % 2, rows, 1 + (i * 7 + rows) % 37, 1 + i % 4, group[i],
                dtypes[(i + rows + kind) % 4], kind / 2, (i + kind) % 3 == 0);
      }
    }
  }
  for (int64_t group_of_bytes = 1; group_of_bytes < 80; group_of_bytes += 3) {
    product(false, 1, 5, 3, group_of_bytes, NYX_FLOAT32, false, true);
    product(false, 20, 33, 2, group_of_bytes, NYX_FLOAT32, true, true);
  }
}

/* Many terms, columns and rows: several units, blocks of terms and of rows. */
static void large(void) {
  for (int kind = 0; kind < 4; kind++) {
    product(kind % 2, 1, 700, 32, 32, dtypes[kind], kind / 2, true);
    product(kind % 2, 4, 300, 1, 2050, NYX_FLOAT32, kind / 2, false);
    product(kind % 2, 33, 417, 25, 42, NYX_FLOAT32, kind / 2, true);
    product(kind % 2, 64, 131, 9, 166, dtypes[kind], kind / 2, true);
    product(kind % 2, 5, 50, 34, 258, NYX_FLOAT32, kind / 2, false); /* partial sums */
    product(kind % 2, 70, 417, 25, 42, NYX_FLOAT32, kind / 2, true);
    product(kind % 2, 600, 140, 8, 56, NYX_FLOAT32, kind / 2, true);
  }
}

/* Zero points: none, fractions, integers of which some are beyond what q can be. */
typedef enum zeros { NONE, FRACTIONS, WHOLE } zeros;

static void use_whole_zeros(weight *w) {
  const nyx_quantized *q = &w->q;
  int64_t group = q->terms / q->groups;
  for (int64_t i = 0; i < q->outputs * q->terms; i++) {
    int64_t g = i / group, other = g * 37 % 300 - 150;
    w->value[i] += (((float *)w->zero)[g] - (double)other) * ((float *)w->scale)[g];
  }
  for (int64_t g = 0; g < q->outputs * q->groups; g++)
    ((float *)w->zero)[g] = (float)(g * 37 % 300 - 150);
}

/* bfloat16 by the CPU's unit. The bias takes the sums of the first row off again, so that
 * rounding the result hides nothing of the error of the sums. */
static void low_product(bool int4, int64_t rows, int64_t outputs, int64_t groups,
                        int64_t group, zeros kind, bool with_bias) {
  weight w = fill(int4, outputs, groups, group, NYX_FLOAT32, kind != NONE);
  if (kind == WHOLE) use_whole_zeros(&w);
  int64_t terms = w.q.terms, wrong = 0;
  uint16_t *x = malloc((size_t)(rows * terms) * 2),
           *y = malloc((size_t)(rows * outputs + 1) * 2);
  float *bias = malloc((size_t)outputs * 4);
  if (!x || !y || !bias) exit(1);
  for (int64_t i = 0; i < rows * terms; i++)
    x[i] = nyx__float_to_bfloat((float)random_number());
  for (int64_t n = 0; n < outputs; n++) {
    double sum = 0;
    for (int64_t t = 0; t < terms; t++)
      sum += (double)nyx__bfloat_to_float(x[t]) * w.value[n * terms + t];
    bias[n] = (float)-sum;
  }
  for (int64_t i = 0; i <= rows * outputs; i++) y[i] = 0x7fc1;
  REQUIRE(CHECK(nyx__quantized_low_takes(&w.q, rows)));
  CHECK_OK(ctx, nyx__quantized_low(ctx, &w.q, x, rows, with_bias ? bias : NULL, y));
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t n = 0; n < outputs; n++) {
      double sum = with_bias ? (double)bias[n] : 0, size = fabs(sum);
      for (int64_t t = 0; t < terms; t++) {
        double term =
            (double)nyx__bfloat_to_float(x[i * terms + t]) * w.value[n * terms + t];
        sum += term;
        size += fabs(term);
      }
      double off = fabs((double)nyx__bfloat_to_float(y[i * outputs + n]) - sum);
      double bound = (double)(terms + 4) * 0x1p-24 * size;
      wrong += !(off <= bound + 0x1p-8 * (fabs(sum) + bound));
    }
  }
  CHECK_AT(wrong == 0, int4 ? "int4" : "int8",
           " %lld rows, %lld outputs, %lld groups of %lld: %lld wrong", (long long)rows,
           (long long)outputs, (long long)groups, (long long)group, (long long)wrong);
  CHECK_INT(y[rows * outputs], 0x7fc1);
  free(x);
  free(y);
  free(bias);
  empty(&w);
}

/* Whether this path has a unit that takes such a weight. */
static bool has_unit(void) {
  const nyx_low_kernel *kernel = nyx__low_kernels()->bf16;
  return kernel && kernel->item == 2;
}

static void by_unit(void) {
  static const int64_t group[][2] = {{1, 32}, {3, 64}, {4, 128}, {1, 1056}, {2, 544}};
  static const int64_t rows[] = {9, 16, 33, 290}, outputs[] = {1, 31, 70, 290};
  weight w = fill(true, 4, 2, 32, NYX_FLOAT32, true),
         odd = fill(false, 4, 2, 33, NYX_FLOAT32, false);
  CHECK(!nyx__quantized_low_takes(&odd.q, 100));
  w.q.zero_dtype = NYX_FLOAT16;
  CHECK(!nyx__quantized_low_takes(&w.q, 100));
  w.q.zero_dtype = NYX_FLOAT32;
  CHECK(!nyx__quantized_low_takes(&w.q, NYX_QUANTIZED_SOME));
  CHECK(nyx__quantized_low_takes(&w.q, NYX_QUANTIZED_SOME + 1) == has_unit());
  empty(&w);
  empty(&odd);
  for (int i = 0; i < 5 * 4 * 2 && has_unit(); i++)
    for (zeros kind = NONE; kind <= WHOLE; kind++)
      low_product(i % 2, rows[i / 2 % 4], outputs[(i / 2 + i / 8) % 4], group[i / 8][0],
                  group[i / 8][1], kind, i % 3 != 0);
}

/* The op takes that way, with the same bits on any number of threads. */
static void op_by_unit(void) {
  enum { ROWS = 40, OUTPUTS = 700, TERMS = 256 };
  if (!has_unit()) return;
  weight w = fill(true, OUTPUTS, 2, TERMS / 2, NYX_FLOAT32, false);
  nyx_tensor *x = fresh(NYX_BFLOAT16, SHAPE(2, ROWS / 2, TERMS)), *packed = NULL;
  nyx_tensor *scales = NULL, *bias = fresh(NYX_BFLOAT16, SHAPE(OUTPUTS)),
             *out[2] = {NULL};
  must(nyx_tensor_from_data(ctx, NYX_UINT8, SHAPE(OUTPUTS, TERMS / 2), w.bytes, &packed));
  must(nyx_tensor_from_data(ctx, NYX_FLOAT32, SHAPE(OUTPUTS, 2), w.scale, &scales));
  for (int i = 0; i < ROWS * TERMS; i++)
    ((uint16_t *)nyx_tensor_data(x))[i] = nyx__float_to_bfloat((float)random_number());
  float add[OUTPUTS];
  for (int i = 0; i < OUTPUTS; i++)
    add[i] = (float)(i % 50),
    ((uint16_t *)nyx_tensor_data(bias))[i] = nyx__float_to_bfloat(add[i]);
  static uint16_t expected[ROWS * OUTPUTS];
  CHECK_OK(ctx, nyx__quantized_low(ctx, &w.q, nyx_tensor_data(x), ROWS, add, expected));
  for (int i = 0; i < 2; i++) {
    nyx_tensor *in[] = {x, packed, scales, NULL, bias};
    must(nyx_parallel_set_threads(i ? 3 : 1));
    CHECK_OK(ctx, nyx__applyn(ctx, ID(linear_quantized), in, 5, NULL, &out[i]));
    CHECK(memcmp(nyx_tensor_data(out[i]), expected, sizeof expected) == 0);
  }
  must(nyx_parallel_set_threads(0));
  nyx_context_interrupt(ctx);
  CHECK_STATUS(nyx__quantized_low(ctx, &w.q, nyx_tensor_data(x), ROWS, NULL, expected),
               NYX_ERR_INTERRUPTED);
  for (int n = 0; n < 2; n++) { /* x in panels, a unit */
    nyx_memory_fail_after(n);
    nyx_status status =
        nyx__quantized_low(ctx, &w.q, nyx_tensor_data(x), ROWS, NULL, expected);
    nyx_memory_fail_after(-1);
    CHECK_STATUS(status, NYX_ERR_MEMORY);
  }
  nyx_tensor *all[] = {x, packed, scales, bias, out[0], out[1]};
  for (int i = 0; i < 6; i++) nyx_tensor_release(all[i]);
  empty(&w);
}

/* The weight as floats of every dtype: one rounding each for the difference, the product
 * and the dtype. */
static void weights(void) {
  static const double unit[] = {0x1p-24, 0x1p-11, 0x1p-8, 0x1p-53};
  for (int i = 0; i < 16; i++) {
    weight w = fill(i % 2, 9, 3, i % 2 ? 38 : 37, dtypes[i / 2 % 4], i / 8);
    nyx_dtype dtype = dtypes[i / 2 % 4];
    int64_t count = w.q.outputs * w.q.terms, wrong = 0;
    char *to = malloc((size_t)count * 8);
    if (!to) exit(1);
    CHECK_OK(ctx, nyx__dequantize(ctx, &w.q, dtype, to));
    for (int64_t e = 0; e < count; e++) {
      double got = nyx__load_double(dtype, to + (size_t)e * nyx_dtype_size(dtype));
      wrong += !(fabs(got - w.value[e]) <= (unit[i / 2 % 4] * 1.001 + 0x1p-53 +
                                            (dtype == NYX_FLOAT64 ? 0 : 2 * 0x1p-24)) *
                                                   fabs(w.value[e]) +
                                               0x1p-25);
    }
    CHECK_AT(wrong == 0, nyx_dtype_name(dtype), " %d: %lld wrong", i, (long long)wrong);
    free(to);
    empty(&w);
  }
}

/* The same bits whatever the number of threads. */
static void threads(void) {
  enum { ROWS = 67, OUTPUTS = 900 };
  weight w = fill(true, OUTPUTS, 16, 64, NYX_FLOAT32, true);
  float *x = malloc(ROWS * 1024 * 4), *y[2];
  if (!x) exit(1);
  for (int i = 0; i < ROWS * 1024; i++) x[i] = (float)random_number();
  for (int64_t rows = 1; rows <= ROWS; rows += ROWS / 2) {
    for (int i = 0; i < 2; i++) {
      if (!(y[i] = malloc(ROWS * OUTPUTS * 4))) exit(1);
      must(nyx_parallel_set_threads(i ? 3 : 1));
      CHECK_OK(ctx, nyx__quantized_product(ctx, &w.q, x, rows, NULL, y[i]));
    }
    CHECK(memcmp(y[0], y[1], (size_t)(rows * OUTPUTS) * 4) == 0);
    free(y[0]);
    free(y[1]);
  }
  must(nyx_parallel_set_threads(0));
  free(x);
  empty(&w);
}

/* What the op refuses. */
static void refusals(void) {
  nyx_tensor *x = fresh(NYX_FLOAT32, SHAPE(3, 8)),
             *packed = fresh(NYX_UINT8, SHAPE(5, 4));
  nyx_tensor *scales = fresh(NYX_FLOAT32, SHAPE(5, 2)),
             *odd = fresh(NYX_FLOAT32, SHAPE(5, 3));
  nyx_tensor *bytes = fresh(NYX_INT8, SHAPE(5, 8)), *wide = fresh(NYX_INT32, SHAPE(5, 2));
  nyx_tensor *none = fresh(NYX_FLOAT32, SHAPE(5, 0)),
             *cube = fresh(NYX_UINT8, SHAPE(5, 2, 2));
  nyx_tensor *eight = fresh(NYX_FLOAT32, SHAPE(5, 8)),
             *number = fresh(NYX_FLOAT32, 0, NULL);
  nyx__op_id id = ID(linear_quantized);
  CHECK(fails(id, x, packed, odd, NULL, NYX_ERR_SHAPE, "groups dividing the 8"));
  CHECK(fails(id, x, packed, none, NULL, NYX_ERR_SHAPE, "groups dividing the 8"));
  CHECK(fails(id, x, packed, eight, NULL, NYX_ERR_SHAPE, "even number each"));
  CHECK(fails(id, x, packed, x, NULL, NYX_ERR_SHAPE, "expected (5) or (5, groups)"));
  CHECK(fails(id, x, packed, wide, NULL, NYX_ERR_DTYPE, "float dtype"));
  CHECK(fails(id, x, scales, scales, NULL, NYX_ERR_DTYPE, "two int4 to a byte"));
  CHECK(fails(id, x, cube, scales, NULL, NYX_ERR_SHAPE, "2 dimensions"));
  CHECK(fails(id, eight, bytes, number, NULL, NYX_ERR_SHAPE, "expected (5)"));
  CHECK(fails(id, scales, packed, scales, NULL, NYX_ERR_SHAPE, "takes 8"));
  CHECK(fails(id, number, packed, scales, NULL, NYX_ERR_SHAPE, "1 dimension"));
  CHECK(fails(id, packed, packed, scales, NULL, NYX_ERR_DTYPE, "uint8"));
  nyx_tensor *in[] = {x, packed, scales, odd, NULL}, *out = NULL;
  CHECK(nyx__applyn(ctx, id, in, 4, NULL, &out) == NYX_ERR_SHAPE);
  in[3] = NULL, in[4] = odd;
  CHECK(nyx__applyn(ctx, id, in, 5, NULL, &out) == NYX_ERR_SHAPE);
  nyx_tensor *all[] = {x, packed, scales, odd, bytes, wide, none, cube, eight, number};
  for (int i = 0; i < 10; i++) nyx_tensor_release(all[i]);
}

static void run(void) {
  RUN(edges);
  RUN(large);
  RUN(weights);
  RUN(threads);
  RUN(by_unit);
  RUN(op_by_unit);
  RUN(refusals);
}

int main(int argc, char **argv) {
  (void)argc;
  static const char *const names[] = {"base",       "avx2", "avx512",
                                      "avx512bf16", "amx",  NULL};
  return on_paths(argv[0], names, run);
}
