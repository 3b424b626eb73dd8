/* Products of half types and of bytes on every unit that this CPU has: against float64
 * within a bound, and exactly. Read next: core/linalg/low.c, paths.h. */
#include <sys/mman.h>

#include "core/base/context.h"
#include "core/linalg/gemm.h"
#include "core/tensor/tensor.h"
#include "kernels/cpu/low.h"
#include "paths.h"

/* A matrix of raw elements in room for any of the strides below. */
typedef struct matrix {
  nyx_dtype dtype;
  int64_t rows, cols, rs, cs;
  void *data;
} matrix;

static const struct {
  nyx_dtype a, b, out;
} kinds[] = {{NYX_BFLOAT16, NYX_BFLOAT16, NYX_FLOAT32},
             {NYX_FLOAT16, NYX_FLOAT16, NYX_FLOAT32},
             {NYX_INT8, NYX_INT8, NYX_INT32},
             {NYX_UINT8, NYX_INT8, NYX_INT32}};
enum { KINDS = 4 };

UNTRACED static double get(const matrix *m, int64_t i, int64_t j) {
  int64_t at = i * m->rs + j * m->cs;
  switch (m->dtype) {
    case NYX_BFLOAT16: return (double)nyx__bfloat_to_float(((uint16_t *)m->data)[at]);
    case NYX_FLOAT16: return (double)nyx__half_to_float(((uint16_t *)m->data)[at]);
    case NYX_INT8: return ((int8_t *)m->data)[at];
    default: return ((uint8_t *)m->data)[at];
  }
}

UNTRACED static void set(matrix *m, int64_t i, int64_t j, double value) {
  int64_t at = i * m->rs + j * m->cs;
  switch (m->dtype) {
    case NYX_BFLOAT16:
      ((uint16_t *)m->data)[at] = nyx__float_to_bfloat((float)value);
      break;
    case NYX_FLOAT16: ((uint16_t *)m->data)[at] = nyx__float_to_half((float)value); break;
    default: ((uint8_t *)m->data)[at] = (uint8_t)(int)value;
  }
}

/* layout 0: rows, 1: columns lie together, 2: gaps between all elements, 3: all rows are
 * the same one. */
UNTRACED static matrix fill(nyx_dtype dtype, int64_t rows, int64_t cols, int layout) {
  matrix m = {.dtype = dtype, .rows = rows, .cols = cols, .rs = cols, .cs = 1};
  if (layout == 1) m.rs = 1, m.cs = rows;
  if (layout == 2) m.rs = 2 * cols + 3, m.cs = 2;
  if (layout == 3) m.rs = 0;
  m.data = malloc((size_t)((rows + 1) * (2 * cols + 3)) * nyx_dtype_size(dtype));
  if (!m.data) exit(1);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < cols; j++) {
      double v = (double)(next() % 256);
      if (dtype == NYX_INT8) v -= 128;
      if (nyx_dtype_is_float(dtype)) v = (v - 128) / 77;
      set(&m, i, j, v);
    }
  }
  return m;
}

static bool has_kernel(nyx_dtype dtype) {
  const nyx_low_kernels *kernels = nyx__low_kernels();
  if (dtype == NYX_FLOAT16) return kernels->f16 != NULL;
  return dtype != NYX_BFLOAT16 || kernels->bf16 != NULL;
}

static nyx_gemm describe(const matrix *a, const matrix *b, void *c) {
  return (nyx_gemm){.dtype = a->dtype,
                    .product = {.m = a->rows,
                                .n = b->cols,
                                .k = a->cols,
                                .a = a->data,
                                .a_rs = a->rs,
                                .a_cs = a->cs,
                                .b = b->data,
                                .b_rs = b->rs,
                                .b_cs = b->cs,
                                .c = c,
                                .ldc = b->cols}};
}

/* Sums of k products in float32, in any order, are off by no more than k roundings. */
UNTRACED static bool right(nyx_dtype dtype, int64_t k, double sum, double size,
                           const void *c, int64_t at) {
  if (nyx_dtype_is_float(dtype)) {
    double got = (double)((const float *)c)[at];
    return fabs(got - sum) <= (double)(k + 1) * 0x1p-24 * size;
  }
  return ((const int32_t *)c)[at] == (int32_t)(uint32_t)(int64_t)sum;
}

/* How many elements of c, of every step-th row, are not right. */
UNTRACED static int64_t count_wrong(const matrix *a, const matrix *b, const float *bias,
                                    const void *c, int64_t step) {
  int64_t k = a->cols, n = b->cols, wrong = 0;
  double *right_factor = malloc((size_t)((k + 2) * n + 1) * sizeof *right_factor);
  double *sum = right_factor + k * n, *size = sum + n;
  if (!right_factor) exit(1);
  for (int64_t l = 0; l < k; l++)
    for (int64_t j = 0; j < n; j++) right_factor[l * n + j] = get(b, l, j);
  for (int64_t i = 0; i < a->rows; i += step) {
    for (int64_t j = 0; j < n; j++) {
      sum[j] = bias ? (double)bias[j] : 0;
      size[j] = fabs(sum[j]);
    }
    for (int64_t l = 0; l < k; l++) {
      double left = get(a, i, l);
      for (int64_t j = 0; j < n; j++) {
        double term = left * right_factor[l * n + j];
        sum[j] += term;
        size[j] += fabs(term);
      }
    }
    for (int64_t j = 0; j < n; j++)
      wrong += !right(a->dtype, k, sum[j], size[j], c, i * n + j);
  }
  free(right_factor);
  return wrong;
}

UNTRACED_CHECK static void check_product(const matrix *a, const matrix *b, nyx_dtype out,
                                         const float *bias) {
  if (!has_kernel(a->dtype)) return;
  int32_t *c = malloc((size_t)(a->rows * b->cols) * 4 + 4);
  if (!c) exit(1);
  c[a->rows * b->cols] = 77; /* what is behind C stays as it is */
  nyx_gemm g = describe(a, b, c);
  const nyx_epilogue after = {.n = b->cols, .bias = bias};
  g.after = &after;
  CHECK_OK(ctx, nyx__gemm_low(ctx, &g, out));
  int64_t step = a->rows * b->cols * a->cols > 100000000 ? 13 : 1;
  int64_t wrong = count_wrong(a, b, bias, c, step);
  CHECK_AT(wrong == 0, nyx_dtype_name(a->dtype), " %lldx%lldx%lld: %lld wrong",
           (long long)a->rows, (long long)b->cols, (long long)a->cols, (long long)wrong);
  CHECK_INT(c[a->rows * b->cols], 77);
  free(c);
}

static void product(int kind, int64_t m, int64_t n, int64_t k, int layout_a,
                    int layout_b) {
  matrix a = fill(kinds[kind].a, m, k, layout_a);
  matrix b = fill(kinds[kind].b, k, n, layout_b);
  check_product(&a, &b, kinds[kind].out, NULL);
  free(a.data);
  free(b.data);
}

static void edges(void) {
  static const int64_t size[] = {1, 14, 15, 16, 17, 31, 33, 63, 64, 65};
  for (int kind = 0; kind < KINDS; kind++) {
    for (int i = 0; i < 10; i++) {
      for (int j = 0; j < 10; j++) {
        product(kind, size[i], size[j], size[(i * 3 + j) % 10], i % 2, j % 2);
        product(kind, size[i], size[j], size[(i + j * 7 + 1) % 10] + 2, j % 3, i % 3);
      }
    }
  }
}

static void sizes(void) {
  static const int64_t size[][3] = {{130, 300, 1100}, {20, 30, 20000}, {4200, 33, 40},
                                    {33, 4400, 40},   {257, 129, 513}, {3, 5, 0},
                                    {1, 700, 700},    {700, 1, 700}};
  for (int kind = 0; kind < KINDS; kind++) {
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
      product(kind, size[i][0], size[i][1], size[i][2], 0, 0);
  }
}

/* More rows than are packed at a time, and few left, whose long sums are cut into parts.
 */
static void rows_left(void) {
  product(0, 4200, 30, 4100, 0, 0);
  product(2, 4200, 30, 4100, 0, 0);
}

/* Whole cache lines of a row, some apart, as units read them in place: the last element
 * lies before memory that must not be touched, what is between rows is not a number. */
static void in_place(int kind, int64_t m, int64_t n, int64_t k, int64_t gap,
                     int64_t shift) {
  matrix from = fill(kinds[kind].a, m, k, 0), b = fill(kinds[kind].b, k, n, 1), a = from;
  int64_t item = (int64_t)nyx_dtype_size(a.dtype), page = 1 << 16; /* or less */
  a.rs = k + gap;
  int64_t bytes = ((m - 1) * a.rs + k + shift) * item;
  int64_t room = (bytes + page - 1) / page * page;
  char *at = mmap(NULL, (size_t)(room + page), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED || mprotect(at + room, (size_t)page, PROT_NONE)) exit(1);
  memset(at, 0xff, (size_t)room);
  a.data = at + room - bytes;
  for (int64_t i = 0; i < m; i++)
    memcpy((char *)a.data + i * a.rs * item, (char *)from.data + i * k * item,
           (size_t)(k * item));
  check_product(&a, &b, kinds[kind].out, NULL);
  munmap(at, (size_t)(room + page));
  free(from.data);
  free(b.data);
}

static void rows_in_place(void) {
  for (int kind = 0; kind < KINDS; kind++) {
    int64_t line = 64 / (int64_t)nyx_dtype_size(kinds[kind].a);
    for (int64_t m = 31; m <= 65; m += m == 33 ? 30 : 1) {
      in_place(kind, m, 70, line, 0, 0);
      in_place(kind, m, 70, 3 * line, line, 0);
      in_place(kind, m, 70, 3 * line, 0, 1);            /* lines are cut */
      in_place(kind, m, 70, 3 * line, 1, 0);            /* other lines in each row */
      in_place(kind, m, 70, 3 * line + 5, line - 5, 0); /* terms that fill no line */
    }
    in_place(kind, 290, 310, 18 * line, 3 * line, 0); /* two blocks of terms */
    in_place(kind, 100, 90, 9 * line, 119 * line, 0); /* 8 KiB apart */
    in_place(kind, 4150, 40, 2 * line, 0, 0);         /* more than are packed at a time */
    in_place(kind, 70, 20, 300 * line, 0, 0);         /* parts of the terms */
  }
}

/* Few rows by columns whose terms lie together, or that do themselves, with all rests of
 * blocks of terms and of columns. */
static void few_rows(void) {
  static const int64_t rows[] = {1, 2, 3, 4, 5, 7, 15, 31, 32, 33, 35, 63, 64, 65};
  float bias[700];
  for (int j = 0; j < 700; j++) bias[j] = (float)(j % 97);
  for (int kind = 0; kind < 2; kind++) {
    for (int64_t k = 1; k < 140; k += k < 40 ? 1 : 7) {
      product(kind, 1, 90, k, (int)(k % 3), 1);
      product(kind, rows[k % 14], 80 + k % 30, k, (int)(k % 3), 1);
      product(kind, 1 + k % 2, 90 + k, k, (int)(k % 3), 0);
      product(kind, rows[k % 14], 1 + k % 40 * 5, k, (int)(k % 3), 0);
    }
    for (int r = 0; r < 14; r++) {
      product(kind, rows[r], 97 + 13 * r, 480 + 11 * r, 0, 1);
      product(kind, rows[r], 97 + 13 * r, 300 + 11 * r, 0, 0);
    }
    for (int64_t k = 60; k < 2000; k += 1300) {
      for (int r = 0; r < 14; r += 2) {
        matrix a = fill(kinds[kind].a, rows[r], k, 2);
        matrix b = fill(kinds[kind].b, k, 700, r % 4 == 0);
        check_product(&a, &b, NYX_FLOAT32, bias);
        free(a.data);
        free(b.data);
      }
    }
    product(kind, 6, 100, 17000, 0, 1); /* partial sums */
    product(kind, 6, 150, 4130, 0, 0);
    product(kind, 1, 100, 2050, 1, 0);
  }
}

/* Sums that are cut into parts, and more columns than are packed at a time. */
static void biases(void) {
  static const int64_t size[][3] = {
      {10, 30, 20000}, {70, 30, 20000}, {3, 4200, 20}, {70, 4200, 20}};
  float bias[4200];
  for (int j = 0; j < 4200; j++) bias[j] = (float)(j % 97) * 100;
  for (int kind = 0; kind < 2; kind++) {
    for (int i = 0; i < 4; i++) {
      matrix a = fill(kinds[kind].a, size[i][0], size[i][2], 0);
      matrix b = fill(kinds[kind].b, size[i][2], size[i][1], 0);
      check_product(&a, &b, NYX_FLOAT32, bias);
      free(a.data);
      free(b.data);
    }
  }
}

static void strides(void) {
  for (int kind = 0; kind < KINDS; kind++) {
    for (int way = 0; way < 16; way++) product(kind, 75, 100, 140, way % 4, way / 4);
  }
}

/* Bytes at the ends of their ranges, and sums that wrap. */
static void extremes(void) {
  static const int64_t k[] = {1, 3, 64, 1000, 70000};
  for (int way = 0; way < 8; way++) {
    nyx_dtype dtype = way & 1 ? NYX_UINT8 : NYX_INT8;
    double left = way & 1 ? (way & 2 ? 255 : 128) : (way & 2 ? -128 : 127);
    for (int i = 0; i < 5; i++) {
      matrix a = fill(dtype, 3, k[i], 0), b = fill(NYX_INT8, k[i], 17, 0);
      for (int64_t l = 0; l < k[i]; l++) {
        for (int64_t row = 0; row < 3; row++) set(&a, row, l, left);
        for (int64_t col = 0; col < 17; col++) set(&b, l, col, way & 4 ? -128 : 127);
      }
      check_product(&a, &b, NYX_INT32, NULL);
      free(a.data);
      free(b.data);
    }
  }
}

/* Infinities and NaN stay in their rows and columns. */
static void special_values(void) {
  for (int kind = 0; kind < 2; kind++) {
    if (!has_kernel(kinds[kind].a)) continue;
    for (int layout = 0; layout < 2; layout++) {
      matrix a = fill(kinds[kind].a, 33, 70, 0), b = fill(kinds[kind].b, 70, 33, layout);
      float c[33 * 33];
      for (int64_t l = 0; l < 70; l++) set(&b, l, 4, 1), set(&a, 7, l, 1);
      set(&a, 3, 69, INFINITY);
      set(&b, 69, 20, NAN);
      nyx_gemm g = describe(&a, &b, c);
      CHECK_OK(ctx, nyx__gemm_low(ctx, &g, NYX_FLOAT32));
      for (int i = 0; i < 33; i++) {
        for (int j = 0; j < 33; j++) {
          if (j == 20)
            CHECK(isnan(c[i * 33 + j]));
          else
            CHECK((i == 3) == !isfinite(c[i * 33 + j]));
        }
      }
      CHECK(isinf(c[3 * 33 + 4]));
      free(a.data);
      free(b.data);
    }
  }
}

/* A batch with strides of its own, each entry with a bias, stored as a half type. */
static void batches(void) {
  for (int kind = 0; kind < 2; kind++) {
    if (!has_kernel(kinds[kind].a)) continue;
    const int64_t m = 9, n = 20, k = 40;
    matrix a = fill(kinds[kind].a, 30 * m, k, 0), b = fill(kinds[kind].b, 2 * k, n, 0);
    static uint16_t c[60 * 9 * 20];
    float bias[20];
    for (int j = 0; j < n; j++) bias[j] = (float)j;
    nyx_gemm g = describe(&a, &b, c);
    g.product.m = m, g.product.k = k;
    g.batch_ndim = 2;
    g.batch_shape[0] = 30, g.batch_shape[1] = 2;
    g.a_batch[0] = m * k, g.b_batch[1] = k * n;
    const nyx_epilogue after = {.n = n, .bias = bias};
    g.after = &after;
    CHECK_OK(ctx, nyx__gemm_low(ctx, &g, kinds[kind].a));
    matrix out = {.dtype = kinds[kind].a, .rs = n, .cs = 1, .data = c};
    double worst = 0;
    for (int64_t at = 0; at < 60 * m * n; at++) {
      int64_t entry = at / (m * n), i = at / n % m, j = at % n;
      double sum = (double)j;
      for (int64_t l = 0; l < k; l++)
        sum += get(&a, entry / 2 * m + i, l) * get(&b, entry % 2 * k + l, j);
      worst = fmax(worst, fabs(get(&out, at / n, j) - sum) / fmax(1, fabs(sum)));
    }
    CHECK_NEAR(worst, 0, kind ? 0x1p-10 : 0x1p-8);
    free(a.data);
    free(b.data);
  }
}

/* The same bits with one thread and with five. */
/* Many threads have smaller units. */
static void threads(void) {
  static const int64_t size[][3] = {{300, 310, 700},
                                    {20, 30, 20000},
                                    {70, 30, 20000},
                                    {10, 3000, 500},
                                    {10, 3000, 500}};
  for (int kind = 0; kind < KINDS; kind++) {
    if (!has_kernel(kinds[kind].a)) continue;
    for (int s = 0; s < 5; s++) {
      int64_t m = size[s][0], n = size[s][1], k = size[s][2];
      matrix a = fill(kinds[kind].a, m, k, 0), b = fill(kinds[kind].b, k, n, s == 4);
      size_t bytes = (size_t)(m * n) * 4;
      void *one = malloc(bytes), *many = malloc(bytes);
      nyx_gemm g = describe(&a, &b, one);
      CHECK_OK(ctx, nyx_parallel_set_threads(1));
      CHECK_OK(ctx, nyx__gemm_low(ctx, &g, kinds[kind].out));
      CHECK_OK(ctx, nyx_parallel_set_threads(11));
      g.product.c = many;
      CHECK_OK(ctx, nyx__gemm_low(ctx, &g, kinds[kind].out));
      CHECK_OK(ctx, nyx_parallel_set_threads(0));
      CHECK(memcmp(one, many, bytes) == 0);
      free(one);
      free(many);
      free(a.data);
      free(b.data);
    }
  }
}

/* Few threads pack all columns of bytes for themselves and help one another, also where
 * the last rows or columns fill no tile. */
static void columns_of_each_thread(void) {
  static const int64_t size[][3] = {{450, 300, 500}, {660, 64, 512}, {1030, 70, 200}};
  for (int threads = 1; threads <= 3; threads++) {
    CHECK_OK(ctx, nyx_parallel_set_threads(threads));
    for (int kind = 2; kind < KINDS; kind++) {
      for (int layout = 0; layout < 4; layout++) {
        for (int i = 0; i < 3; i++)
          product(kind, size[i][0], size[i][1], size[i][2], layout % 2, layout / 2);
      }
    }
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

static void interrupted(void) {
  for (int kind = 0; kind < KINDS; kind++) {
    if (!has_kernel(kinds[kind].a)) continue;
    for (int layout = 0; layout < 5; layout++) { /* of which two are of few rows */
      CHECK_OK(ctx, nyx_parallel_set_threads(layout == 4));
      matrix a = fill(kinds[kind].a, layout / 2 == 1 ? 10 : 300, 300, 0);
      matrix b = fill(kinds[kind].b, 300, 300, layout % 2);
      int32_t *c = malloc(300 * 300 * 4);
      nyx_gemm g = describe(&a, &b, c);
      nyx_context_interrupt(ctx);
      CHECK_STATUS(nyx__gemm_low(ctx, &g, kinds[kind].out), NYX_ERR_INTERRUPTED);
      CHECK_OK(ctx, nyx__gemm_low(ctx, &g, kinds[kind].out));
      free(c);
      free(a.data);
      free(b.data);
    }
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

/* Every allocation fails in turn: a status, nothing left behind. */
static void without_memory(void) {
  for (int kind = 0; kind < KINDS; kind++) {
    if (!has_kernel(kinds[kind].a)) continue;
    for (int few = 0; few < 4; few++) {
      CHECK_OK(ctx, nyx_parallel_set_threads(few == 3));
      matrix a = fill(kinds[kind].a, few % 3 ? 12 : 200, 300, 0);
      matrix b = fill(kinds[kind].b, 300, 180, few == 1);
      int32_t *c = malloc(200 * 180 * 4);
      nyx_gemm g = describe(&a, &b, c);
      nyx_memory_stats before, after;
      nyx_memory_get_stats(&before);
      nyx_status status = NYX_ERR_MEMORY;
      int64_t n = 0;
      for (; status != NYX_OK && n < 100; n++) {
        nyx_memory_fail_after(n);
        status = nyx__gemm_low(ctx, &g, kinds[kind].out);
        nyx_memory_fail_after(-1);
        if (status != NYX_OK) CHECK_STATUS(status, NYX_ERR_MEMORY);
        nyx_memory_get_stats(&after);
        CHECK_INT(after.live, before.live);
      }
      CHECK_OK(ctx, status);
      CHECK(n > 1);
      free(c);
      free(a.data);
      free(b.data);
    }
  }
  CHECK_OK(ctx, nyx_parallel_set_threads(0));
}

/* No thread that multiplied keeps tiles: XINUSE says what is not in its initial state. */
static void tiles_are_released(void) {
#if defined(__x86_64__)
  if (strcmp(nyx_cpu_unit(NYX_INT8), "AMX") != 0) return;
  product(2, 100, 100, 100, 0, 0);
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
  CHECK_INT(low >> 17 & 3, 0);
#endif
}

static nyx_status int_mm(nyx_tensor *x, nyx_tensor *y, nyx_tensor **out) {
  return nyx__apply2(ctx, ID(int_mm), x, y, NULL, out);
}

static void op(void) {
  nyx_tensor *x = make(NYX_UINT8, SHAPE(1, 2), (double[]){255, 1});
  nyx_tensor *y = make(NYX_INT8, SHAPE(2, 1), (double[]){-128, 100}), *z = NULL;
  nyx_tensor *wide = make(NYX_INT32, SHAPE(2, 1), (double[]){1, 1});
  REQUIRE(CHECK_OK(ctx, int_mm(x, y, &z)));
  CHECK_INT(nyx_tensor_dtype(z), NYX_INT32);
  CHECK_INT(*(int32_t *)nyx_tensor_data(z), 255 * -128 + 100);
  nyx_tensor_release(z);
  z = NULL;
  CHECK_STATUS(int_mm(y, x, &z), NYX_ERR_DTYPE);
  CHECK_CONTAINS(nyx_context_error(ctx), "int_mm: 'y' is uint8, expected int8");
  CHECK_STATUS(int_mm(x, wide, &z), NYX_ERR_DTYPE);
  CHECK_CONTAINS(nyx_context_error(ctx), "int_mm: 'y' is int32, expected int8");
  CHECK_STATUS(int_mm(wide, y, &z), NYX_ERR_DTYPE);
  CHECK_CONTAINS(nyx_context_error(ctx), "int_mm: not defined for int32");
  CHECK_STATUS(int_mm(y, y, &z), NYX_ERR_SHAPE);
  CHECK_CONTAINS(nyx_context_error(ctx), "int_mm: inner sizes differ: (2x1) @ (2x1)");
  CHECK(z == NULL);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_tensor_release(wide);
}

/* What doctor says, and that the path keeps to itself. */
static void units(void) {
  const char *path = nyx_cpu_path(), *byte = nyx_cpu_unit(NYX_INT8);
  CHECK(nyx_cpu_unit(NYX_BFLOAT16) && nyx_cpu_unit(NYX_FLOAT16));
  CHECK(nyx_cpu_unit(NYX_FLOAT32) == NULL);
  bool plain = !strcmp(path, "base") || !strcmp(path, "avx2") || !strcmp(path, "avx512");
  if (plain) CHECK_STR(byte, "pairs of int16");
  if (!strcmp(path, "avx512vnni")) CHECK_STR(byte, "AVX-512 VNNI");
  if (!strcmp(path, "avx512bf16")) CHECK_STR(nyx_cpu_unit(NYX_BFLOAT16), "AVX-512 BF16");
}

static void run(void) {
  RUN(units);
  RUN(edges);
  RUN(sizes);
  RUN(rows_left);
  RUN(rows_in_place);
  RUN(few_rows);
  RUN(biases);
  RUN(strides);
  RUN(extremes);
  RUN(special_values);
  RUN(batches);
  RUN(threads);
  RUN(columns_of_each_thread);
  RUN(interrupted);
  RUN(without_memory);
  RUN(tiles_are_released);
  RUN(op);
}

int main(int argc, char **argv) {
  (void)argc;
  static const char *const names[] = {"base",       "dotprod", "avx2",
                                      "avxvnni",    "avx512",  "avx512vnni",
                                      "avx512bf16", "amx",     NULL};
  return on_paths(argv[0], names, run);
}
