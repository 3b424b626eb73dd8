/* Element types and shapes: names, promotion, conversion of single elements, half floats
 * bit by bit, counting with overflow, broadcasting. Read next: core/tensor/dtype.c. */
#include <nyx/nyx.h>
#include <stdlib.h>

#include "check.h"
#include "core/base/random.h"
#include "core/tensor/tensor.h"

static nyx_context *ctx;

/* Names and promotion */

static void names_and_sizes(void) {
  static const struct {
    nyx_dtype dtype;
    const char *name, *short_name;
    size_t size;
    nyx_dtype_kind kind;
  } row[] = {{NYX_FLOAT32, "float32", "f32", 4, NYX_KIND_FLOAT},
             {NYX_FLOAT64, "float64", "f64", 8, NYX_KIND_FLOAT},
             {NYX_FLOAT16, "float16", "f16", 2, NYX_KIND_FLOAT},
             {NYX_BFLOAT16, "bfloat16", "bf16", 2, NYX_KIND_FLOAT},
             {NYX_INT8, "int8", "i8", 1, NYX_KIND_INT},
             {NYX_UINT8, "uint8", "u8", 1, NYX_KIND_INT},
             {NYX_INT32, "int32", "i32", 4, NYX_KIND_INT},
             {NYX_INT64, "int64", "i64", 8, NYX_KIND_INT},
             {NYX_BOOL, "bool", "b8", 1, NYX_KIND_BOOL},
             {NYX_COMPLEX64, "complex64", "c64", 8, NYX_KIND_COMPLEX},
             {NYX_COMPLEX128, "complex128", "c128", 16, NYX_KIND_COMPLEX}};
  CHECK_INT(sizeof row / sizeof *row, NYX_DTYPE_COUNT);
  for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
    nyx_dtype found = NYX_DTYPE_COUNT;
    CHECK_STR(nyx_dtype_name(row[i].dtype), row[i].name);
    CHECK_INT(nyx_dtype_size(row[i].dtype), row[i].size);
    CHECK_INT(nyx_dtype_kind_of(row[i].dtype), row[i].kind);
    CHECK_INT(nyx_dtype_is_float(row[i].dtype), row[i].kind == NYX_KIND_FLOAT);
    CHECK_INT(nyx_dtype_is_complex(row[i].dtype), row[i].kind == NYX_KIND_COMPLEX);
    CHECK(nyx_dtype_find(row[i].name, &found) && found == row[i].dtype);
    CHECK(nyx_dtype_find(row[i].short_name, &found) && found == row[i].dtype);
  }
  nyx_dtype untouched = NYX_INT8;
  CHECK(!nyx_dtype_find("float", &untouched));
  CHECK(!nyx_dtype_find("", &untouched));
  CHECK(!nyx_dtype_find(NULL, &untouched));
  CHECK_INT(untouched, NYX_INT8);
  CHECK_STR(nyx_dtype_name((nyx_dtype)-1), "unknown");
  CHECK_STR(nyx_dtype_name(NYX_DTYPE_COUNT), "unknown");
  CHECK_INT(nyx_dtype_size(NYX_DTYPE_COUNT), 0);
}

static void promotion_table(void) {
  static const char *const order[] = {"f32", "f64", "f16", "bf16", "i8",
                                      "u8",  "i32", "i64", "b8"};
  static const char *const table[9][9] = {
      {"f32", "f64", "f32", "f32", "f32", "f32", "f32", "f32", "f32"},
      {"f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64"},
      {"f32", "f64", "f16", "f32", "f16", "f16", "f16", "f16", "f16"},
      {"f32", "f64", "f32", "bf16", "bf16", "bf16", "bf16", "bf16", "bf16"},
      {"f32", "f64", "f16", "bf16", "i8", "i32", "i32", "i64", "i8"},
      {"f32", "f64", "f16", "bf16", "i32", "u8", "i32", "i64", "u8"},
      {"f32", "f64", "f16", "bf16", "i32", "i32", "i32", "i64", "i32"},
      {"f32", "f64", "f16", "bf16", "i64", "i64", "i64", "i64", "i64"},
      {"f32", "f64", "f16", "bf16", "i8", "u8", "i32", "i64", "b8"}};
  for (int i = 0; i < 9; i++) {
    for (int k = 0; k < 9; k++) {
      nyx_dtype a, b, expected;
      REQUIRE(CHECK(nyx_dtype_find(order[i], &a) && nyx_dtype_find(order[k], &b) &&
                    nyx_dtype_find(table[i][k], &expected)));
      CHECK_STR(nyx_dtype_name(nyx_dtype_promote(a, b)), nyx_dtype_name(expected));
    }
  }
}

/* Half floats */

/* What the bits mean, by the definition: (-1)^s 2^(e - bias) (1 + f / 2^digits). */
static double meaning(uint32_t bits, int digits, int exponent_bits) {
  int exponent = (int)(bits >> digits) & ((1 << exponent_bits) - 1);
  int bias = (1 << (exponent_bits - 1)) - 1;
  double fraction = (double)(bits & ((1u << digits) - 1)) / (double)(1u << digits);
  double sign = bits >> (digits + exponent_bits) ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction != 0 ? NAN : sign * INFINITY;
  return exponent ? sign * ldexp(1 + fraction, exponent - bias)
                  : sign * ldexp(fraction, 1 - bias);
}

static bool same(double a, double b) {
  return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static void all_half_floats(void) {
  for (uint32_t h = 0; h < 65536; h++) {
    float f = nyx__half_to_float((uint16_t)h), b = nyx__bfloat_to_float((uint16_t)h);
    if (!same((double)f, meaning(h, 10, 5))) CHECK_AT(false, "half", " %04x", h);
    if (!same((double)b, meaning(h, 7, 8))) CHECK_AT(false, "bfloat", " %04x", h);
    uint16_t f_back = nyx__float_to_half(f), b_back = nyx__float_to_bfloat(b);
    if (isnan(f))
      CHECK(isnan(nyx__half_to_float(f_back)));
    else
      CHECK_INT(f_back, h);
    if (isnan(b))
      CHECK(isnan(nyx__bfloat_to_float(b_back)));
    else
      CHECK_INT(b_back, h);
  }
}

/* Between neighbours: just below, at and just above the middle, from float and double. */
static void all_half_roundings(void) {
  for (uint32_t h = 0; h < 0x7C00; h++) {
    double low = meaning(h, 10, 5);
    double high = h == 0x7BFF ? 65536 : meaning(h + 1, 10, 5);
    float middle = (float)((low + high) / 2); /* exact */
    uint32_t even = h & 1 ? h + 1 : h;
    float below = nextafterf(middle, 0), above = nextafterf(middle, INFINITY);
    CHECK_INT(nyx__float_to_half(middle), even);
    CHECK_INT(nyx__float_to_half(below), h);
    CHECK_INT(nyx__float_to_half(above), h + 1);
    CHECK_INT(nyx__float_to_half(-middle), even | 0x8000);
    uint16_t stored;
    nyx__store_double(NYX_FLOAT16, &stored, nextafter((double)middle, 0));
    CHECK_INT(stored, h); /* in float32 this would be the middle */
    nyx__store_double(NYX_FLOAT16, &stored, nextafter((double)middle, INFINITY));
    CHECK_INT(stored, h + 1);
    nyx__store_double(NYX_FLOAT16, &stored, -nextafter((double)middle, INFINITY));
    CHECK_INT(stored, (h + 1) | 0x8000);
  }
  for (uint32_t h = 0; h < 0x7F80; h++) {
    uint32_t bits = h << 16 | 0x8000;
    float middle;
    memcpy(&middle, &bits, sizeof middle);
    CHECK_INT(nyx__float_to_bfloat(middle), h & 1 ? h + 1 : h);
    CHECK_INT(nyx__float_to_bfloat(nextafterf(middle, 0)), h);
    if (h < 0x7F7F) CHECK_INT(nyx__float_to_bfloat(nextafterf(middle, INFINITY)), h + 1);
    uint16_t stored;
    nyx__store_double(NYX_BFLOAT16, &stored, nextafter((double)middle, 0));
    CHECK_INT(stored, h);
    nyx__store_double(NYX_BFLOAT16, &stored, nextafter((double)middle, INFINITY));
    CHECK_INT(stored, h + 1);
  }
}

static void half_limits(void) {
  CHECK_INT(nyx__float_to_half(65504), 0x7BFF);
  CHECK_INT(nyx__float_to_half(65519.996f), 0x7BFF);
  CHECK_INT(nyx__float_to_half(65520), 0x7C00);
  CHECK_INT(nyx__float_to_half(3e38f), 0x7C00);
  CHECK_INT(nyx__float_to_half(-INFINITY), 0xFC00);
  CHECK_INT(nyx__float_to_half(-0.0f), 0x8000);
  CHECK_INT(nyx__float_to_half(1e-40f), 0);
  CHECK_INT(nyx__float_to_bfloat(INFINITY), 0x7F80);
  CHECK_INT(nyx__float_to_bfloat(-0.0f), 0x8000);
  uint32_t nan_bits = 0x7F800001; /* its payload would be cut to infinity */
  float nan;
  memcpy(&nan, &nan_bits, sizeof nan);
  CHECK(isnan(nyx__bfloat_to_float(nyx__float_to_bfloat(nan))));
  CHECK(isnan(nyx__half_to_float(nyx__float_to_half(nan))));
}

/* Elements */

static double stored(nyx_dtype dtype, double value) {
  uint64_t memory = 0xA5A5A5A5A5A5A5A5;
  nyx__store_double(dtype, &memory, value);
  return nyx__load_double(dtype, &memory);
}

static int64_t stored_int(nyx_dtype dtype, int64_t value) {
  uint64_t memory = 0xA5A5A5A5A5A5A5A5;
  nyx__store_int(dtype, &memory, value);
  return nyx__load_int(dtype, &memory);
}

static void numbers_stored_as_integers(void) {
  static const struct {
    nyx_dtype dtype;
    double low, high;
  } row[] = {{NYX_INT8, -128, 127},
             {NYX_UINT8, 0, 255},
             {NYX_INT32, INT32_MIN, INT32_MAX},
             {NYX_INT64, -0x1p63, 0x1p63}}; /* INT64_MAX is 2^63 as a double */
  for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
    nyx_dtype d = row[i].dtype;
    CHECK_NEAR(stored(d, 2.9), 2, 0);
    CHECK_NEAR(stored(d, -0.9), 0, 0);
    CHECK_NEAR(stored(d, NAN), 0, 0);
    CHECK_NEAR(stored(d, INFINITY), row[i].high, 0);
    CHECK_NEAR(stored(d, -INFINITY), row[i].low, 0);
    CHECK_NEAR(stored(d, 1e300), row[i].high, 0);
    CHECK_NEAR(stored(d, row[i].high), row[i].high, 0);
    CHECK_NEAR(stored(d, row[i].high + 0.5), row[i].high, 0);
    CHECK_NEAR(stored(d, row[i].high * 2 + 10), row[i].high, 0);
    CHECK_NEAR(stored(d, row[i].low), row[i].low, 0);
    CHECK_NEAR(stored(d, row[i].low * 2 - 10), row[i].low, 0);
  }
  CHECK_INT(stored_int(NYX_INT64, INT64_MAX), INT64_MAX);
  CHECK_INT(stored_int(NYX_INT64, INT64_MIN), INT64_MIN);
  CHECK_INT(stored_int(NYX_INT8, 128), -128);
  CHECK_INT(stored_int(NYX_INT8, -129), 127);
  CHECK_INT(stored_int(NYX_UINT8, -1), 255);
  CHECK_INT(stored_int(NYX_UINT8, 256), 0);
  CHECK_INT(stored_int(NYX_INT32, (int64_t)1 << 31), INT32_MIN);
  CHECK_INT(stored_int(NYX_INT32, INT64_MIN), 0);
}

static void numbers_stored_as_bools_and_floats(void) {
  CHECK_NEAR(stored(NYX_BOOL, 0.1), 1, 0);
  CHECK_NEAR(stored(NYX_BOOL, -0.0), 0, 0);
  CHECK_NEAR(stored(NYX_BOOL, NAN), 1, 0);
  CHECK_INT(stored_int(NYX_BOOL, INT64_MIN), 1);
  CHECK_INT(stored_int(NYX_BOOL, 256), 1);
  CHECK_NEAR(stored(NYX_FLOAT32, 0.1), (double)0.1f, 0);
  CHECK_NEAR(stored(NYX_FLOAT64, 0.1), 0.1, 0);
  CHECK_NEAR(stored(NYX_FLOAT16, 0.1), 0.0999755859375, 0);
  CHECK_NEAR(stored(NYX_BFLOAT16, 0.1), 0.10009765625, 0);
  CHECK(stored(NYX_FLOAT32, 1e300) == INFINITY);
  CHECK(stored(NYX_FLOAT16, -1e300) == -INFINITY);
  CHECK(stored(NYX_BFLOAT16, 1e300) == INFINITY);
  CHECK(isnan(stored(NYX_FLOAT16, NAN)) && isnan(stored(NYX_BFLOAT16, NAN)));
  CHECK(signbit(stored(NYX_FLOAT16, -1e-300)) && stored(NYX_FLOAT16, -1e-300) == 0);
  CHECK_NEAR(stored_int(NYX_FLOAT16, 2049), 2048, 0);
  CHECK_INT(stored_int(NYX_FLOAT32, (1 << 24) + 1), 1 << 24);
  float f = NAN;
  CHECK_INT(nyx__load_int(NYX_FLOAT32, &f), 0);
  f = -1e30f;
  CHECK_INT(nyx__load_int(NYX_FLOAT32, &f), INT64_MIN);
  f = 1e30f;
  CHECK_INT(nyx__load_int(NYX_FLOAT32, &f), INT64_MAX);
}

/* Random doubles of all sizes against rounding done on the number line. */
static void halves_of_random_doubles(void) {
  for (uint64_t i = 0; i < 200000; i++) {
    uint32_t bits[4];
    nyx__random_block(11, i, bits);
    double value =
        ldexp(1 + nyx__uniform_double(bits[0], bits[1]), (int)(bits[2] % 50) - 30);
    if (bits[3] & 1) value = -value;
    int exponent = ilogb(value) < -14 ? -14 : ilogb(value);
    double step = ldexp(1, exponent - 10), expected = nearbyint(value / step) * step;
    if (fabs(expected) > 65504) expected = copysign(INFINITY, value);
    uint16_t half;
    nyx__store_double(NYX_FLOAT16, &half, value);
    if (!same((double)nyx__half_to_float(half), expected))
      CHECK_AT(false, "half", " of %a is %a, expected %a", value,
               (double)nyx__half_to_float(half), expected);
  }
}

/* Shapes */

static bool counts(int ndim, const int64_t *shape, size_t item, int64_t expected) {
  int64_t n = -1;
  return nyx__numel(ndim, shape, item, &n) && n == expected;
}

static bool refuses(int ndim, const int64_t *shape, size_t item) {
  int64_t n;
  return !nyx__numel(ndim, shape, item, &n);
}

static void element_counts(void) {
  CHECK(counts(0, NULL, 4, 1));
  CHECK(counts(3, (int64_t[]){2, 3, 4}, 8, 24));
  CHECK(counts(3, (int64_t[]){2, 0, 4}, 8, 0));
  CHECK(counts(1, (int64_t[]){INT64_MAX}, 1, INT64_MAX));
  CHECK(counts(1, (int64_t[]){INT64_MAX / 8}, 8, INT64_MAX / 8));
  CHECK(refuses(1, (int64_t[]){INT64_MAX / 8 + 1}, 8));
  CHECK(refuses(1, (int64_t[]){-1}, 4));
  CHECK(refuses(2, (int64_t[]){0, -1}, 4));
  CHECK(refuses(2, (int64_t[]){(int64_t)1 << 32, (int64_t)1 << 31}, 1));
  CHECK(refuses(2, (int64_t[]){(int64_t)1 << 32, (int64_t)1 << 32}, 1));
  /* no elements, but strides that overflow */
  CHECK(refuses(3, (int64_t[]){0, (int64_t)1 << 62, (int64_t)1 << 62}, 1));
}

static void row_major_strides(void) {
  int64_t stride[3];
  nyx__strides(3, (int64_t[]){2, 3, 4}, stride);
  CHECK(stride[0] == 12 && stride[1] == 4 && stride[2] == 1);
  nyx__strides(3, (int64_t[]){2, 0, 4}, stride);
  CHECK(stride[0] == 4 && stride[1] == 4 && stride[2] == 1);
}

static void shapes_as_text(void) {
  char text[NYX_SHAPE_TEXT];
  CHECK_STR(nyx__shape_text(0, NULL, text, sizeof text), "");
  CHECK_STR(nyx__shape_text(1, (int64_t[]){7}, text, sizeof text), "7");
  CHECK_STR(nyx__shape_text(3, (int64_t[]){3, 4, 0}, text, sizeof text), "3x4x0");
  int64_t longest[NYX_MAX_DIMS];
  for (int d = 0; d < NYX_MAX_DIMS; d++) longest[d] = INT64_MIN;
  CHECK_INT(strlen(nyx__shape_text(NYX_MAX_DIMS, longest, text, sizeof text)),
            20 * NYX_MAX_DIMS + NYX_MAX_DIMS - 1);
  CHECK_STR(nyx__shape_text(3, (int64_t[]){30, 40, 50}, text, 5), "30x4");
  CHECK_STR(nyx__shape_text(3, (int64_t[]){30, 40, 50}, text, 1), "");
}

static void broadcast_shapes(void) {
  int64_t out[NYX_MAX_DIMS];
  int n = -1;
  CHECK(nyx__broadcast(0, NULL, 0, NULL, &n, out) && n == 0);
  CHECK(nyx__broadcast(2, (int64_t[]){3, 1}, 1, (int64_t[]){4}, &n, out));
  CHECK(n == 2 && out[0] == 3 && out[1] == 4);
  CHECK(nyx__broadcast(1, (int64_t[]){1}, 3, (int64_t[]){2, 0, 5}, &n, out));
  CHECK(n == 3 && out[0] == 2 && out[1] == 0 && out[2] == 5);
  CHECK(nyx__broadcast(1, (int64_t[]){1}, 1, (int64_t[]){0}, &n, out) && out[0] == 0);
  CHECK(!nyx__broadcast(1, (int64_t[]){2}, 1, (int64_t[]){0}, &n, out));
  CHECK(!nyx__broadcast(2, (int64_t[]){3, 2}, 1, (int64_t[]){3}, &n, out));
  int64_t a[NYX_MAX_DIMS] = {5, 1}, b[] = {2, 3, 1, 7}; /* out is a */
  CHECK(nyx__broadcast(2, a, 4, b, &n, a));
  CHECK(n == 4 && a[0] == 2 && a[1] == 3 && a[2] == 5 && a[3] == 7);

  nyx_tensor t = {.ndim = 3, .shape = {4, 1, 6}, .stride = {6, 6, 1}};
  int64_t stride[5];
  nyx__broadcast_strides(&t, 5, stride);
  CHECK(stride[0] == 0 && stride[1] == 0 && stride[2] == 6 && stride[3] == 0 &&
        stride[4] == 1);
}

static void dimensions(void) {
  int d = 99;
  CHECK_STATUS(nyx__dim(ctx, 2, 3, &d), NYX_OK);
  CHECK_INT(d, 2);
  CHECK_STATUS(nyx__dim(ctx, -3, 3, &d), NYX_OK);
  CHECK_INT(d, 0);
  CHECK_STATUS(nyx__dim(ctx, -1, 0, &d), NYX_OK);
  CHECK_INT(d, 0);
  CHECK_STATUS(nyx__dim(ctx, 0, 0, &d), NYX_OK);
  CHECK_STATUS(nyx__dim(ctx, 1, 0, &d), NYX_ERR_INDEX);
  CHECK_STATUS(nyx__dim(ctx, 3, 3, &d), NYX_ERR_INDEX);
  CHECK_STR(nyx_context_error(ctx),
            "dimension 3 is out of range for a tensor of 3 dimensions");
  nyx_context_set_index_base(ctx, 1); /* the user said 4 */
  CHECK_STATUS(nyx__dim(ctx, 3, 3, &d), NYX_ERR_INDEX);
  CHECK_CONTAINS(nyx_context_error(ctx), "dimension 4 ");
  CHECK_STATUS(nyx__dim(ctx, -4, 3, &d), NYX_ERR_INDEX);
  CHECK_CONTAINS(nyx_context_error(ctx), "dimension -4 ");
  CHECK_STATUS(nyx__dim(ctx, INT64_MAX, 3, &d), NYX_ERR_INDEX);
  CHECK_STATUS(nyx__dim(ctx, INT64_MIN, 3, &d), NYX_ERR_INDEX);
  CHECK_STATUS(nyx__dim(NULL, 9, 3, &d), NYX_ERR_INDEX);
  nyx_context_set_index_base(ctx, 0);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(names_and_sizes);
  RUN(promotion_table);
  RUN(all_half_floats);
  RUN(all_half_roundings);
  RUN(half_limits);
  RUN(numbers_stored_as_integers);
  RUN(numbers_stored_as_bools_and_floats);
  RUN(halves_of_random_doubles);
  RUN(element_counts);
  RUN(row_major_strides);
  RUN(shapes_as_text);
  RUN(broadcast_shapes);
  RUN(dimensions);
  nyx_context_free(ctx);
  return check_done();
}
