/* Tensors as text: goldens, the choice of format, summaries, and what may be touched.
 * Read next: core/tensor/print.c. */
#include <locale.h>
#include <nyx/nyx.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "check.h"
#include "core/device/device.h"
#include "core/tensor/tensor.h"

static nyx_context *ctx;

/* Checks the text of t, which it releases. */
#define CHECK_PRINT(tensor, options, expected)                                           \
  do {                                                                                   \
    nyx_tensor *print_t = (tensor);                                                      \
    char *print_text = NULL;                                                             \
    REQUIRE(CHECK(print_t != NULL));                                                     \
    CHECK_OK(ctx, nyx_tensor_format(ctx, print_t, options, &print_text));                \
    CHECK_STR(print_text, expected);                                                     \
    nyx_memory_free(print_text);                                                         \
    nyx_tensor_release(print_t);                                                         \
  } while (0)

#define SHAPE(...)                                                                       \
  (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) {               \
    __VA_ARGS__                                                                          \
  }

/* A tensor of `dtype` from doubles. */
static nyx_tensor *tensor(nyx_dtype dtype, int ndim, const int64_t *shape,
                          const double *values) {
  nyx_tensor *t = NULL;
  if (nyx_tensor_empty(ctx, dtype, ndim, shape, &t) != NYX_OK) return NULL;
  char *p = nyx_tensor_data(t);
  for (int64_t i = 0; i < t->numel; i++)
    nyx__store_double(dtype, p + (size_t)i * nyx_dtype_size(dtype), values[i]);
  return t;
}

#define TENSOR(dtype, shape, ...) tensor(dtype, shape, (double[]){__VA_ARGS__})

/* 0, 1, 2, ... in `shape`. */
static nyx_tensor *counted(nyx_dtype dtype, int ndim, const int64_t *shape) {
  nyx_tensor *t = NULL;
  if (nyx_tensor_empty(ctx, dtype, ndim, shape, &t) != NYX_OK) return NULL;
  char *p = nyx_tensor_data(t);
  for (int64_t i = 0; i < t->numel; i++)
    nyx__store_int(dtype, p + (size_t)i * nyx_dtype_size(dtype), i);
  return t;
}

static void integers(void) {
  CHECK_PRINT(TENSOR(NYX_INT64, SHAPE(2, 3), 1, -20, 3, 4, 500, 6), NULL,
              "   1  -20    3\n"
              "   4  500    6\n"
              "[int64 tensor of size 2x3]");
  CHECK_PRINT(TENSOR(NYX_UINT8, SHAPE(3), 0, 7, 255), NULL,
              "   0    7  255\n"
              "[uint8 tensor of size 3]");
  nyx_tensor *t = TENSOR(NYX_INT64, SHAPE(2), 0, 0);
  ((int64_t *)nyx_tensor_data(t))[0] = INT64_MIN;
  ((int64_t *)nyx_tensor_data(t))[1] = INT64_MAX;
  CHECK_PRINT(t, NULL,
              " -9223372036854775808   9223372036854775807\n"
              "[int64 tensor of size 2]");
}

static void bools(void) {
  CHECK_PRINT(TENSOR(NYX_BOOL, SHAPE(2, 2), 1, 0, 0, 1), NULL,
              "  true  false\n"
              " false   true\n"
              "[bool tensor of size 2x2]");
}

static void floats(void) {
  CHECK_PRINT(TENSOR(NYX_FLOAT32, SHAPE(2, 2), 0.5, -1.25, 3, 100), NULL,
              "   0.5000   -1.2500\n"
              "   3.0000  100.0000\n"
              "[float32 tensor of size 2x2]");
  /* without fractions they are written as integers, whatever else is among them */
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(5), 1, -2, NAN, INFINITY, -INFINITY), NULL,
              "    1    -2   nan   inf  -inf\n"
              "[float64 tensor of size 5]");
  CHECK_PRINT(TENSOR(NYX_FLOAT16, SHAPE(3), 0.5, NAN, 0), NULL,
              " 0.5000     nan  0.0000\n"
              "[float16 tensor of size 3]");
  CHECK_PRINT(TENSOR(NYX_BFLOAT16, SHAPE(2), 0, 0), NULL,
              " 0  0\n"
              "[bfloat16 tensor of size 2]");
  CHECK_PRINT(TENSOR(NYX_FLOAT32, SHAPE(2), NAN, NAN), NULL,
              " nan  nan\n"
              "[float32 tensor of size 2]");
}

static void scientific_when_the_range_demands_it(void) {
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(2), 1e-5, 0.5), NULL,
              " 1.0000e-05  5.0000e-01\n"
              "[float64 tensor of size 2]");
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(2), 1234567.5, -1), NULL,
              "  1.2346e+06  -1.0000e+00\n"
              "[float64 tensor of size 2]");
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(2), 0.0001, 999999.5), NULL,
              "      0.0001  999999.5000\n"
              "[float64 tensor of size 2]");
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(2), 1e300, 0), NULL,
              " 1.0000e+300   0.0000e+00\n"
              "[float64 tensor of size 2]");
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(1), 1234567890), NULL,
              " 1234567890\n"
              "[float64 tensor of size 1]");
  nyx_print_options two = {.precision = 2};
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(2), 0.001, 0.5), &two,
              " 1.00e-03  5.00e-01\n"
              "[float64 tensor of size 2]");
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(2), 0.25, 10), &two,
              "  0.25  10.00\n"
              "[float64 tensor of size 2]");
  nyx_print_options most = {.precision = 1000};
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(1), 0.1), &most,
              " 0.10000000000000001\n"
              "[float64 tensor of size 1]");
}

static void scalars_and_empty(void) {
  CHECK_PRINT(tensor(NYX_FLOAT32, 0, NULL, (double[]){3.25}), NULL,
              "3.2500\n"
              "[float32 tensor of 0 dimensions]");
  CHECK_PRINT(tensor(NYX_BOOL, 0, NULL, (double[]){1}), NULL,
              "true\n"
              "[bool tensor of 0 dimensions]");
  CHECK_PRINT(counted(NYX_INT32, SHAPE(0)), NULL, "[int32 tensor of size 0]");
  CHECK_PRINT(counted(NYX_INT32, SHAPE(3, 0, 100000)), NULL,
              "[int32 tensor of size 3x0x100000]");
}

static void long_lists_wrap(void) {
  nyx_print_options narrow = {.line_width = 20};
  CHECK_PRINT(counted(NYX_INT64, SHAPE(13)), &narrow,
              "  0   1   2   3   4\n"
              "  5   6   7   8   9\n"
              " 10  11  12\n"
              "[int64 tensor of size 13]");
  nyx_print_options one = {.line_width = 1};
  CHECK_PRINT(counted(NYX_INT64, SHAPE(2)), &one,
              " 0\n"
              " 1\n"
              "[int64 tensor of size 2]");
}

static void wide_tables_come_in_groups_of_columns(void) {
  nyx_print_options narrow = {.line_width = 20, .index_base = 1};
  CHECK_PRINT(counted(NYX_INT64, SHAPE(2, 7)), &narrow,
              "Columns 1 to 5:\n"
              "  0   1   2   3   4\n"
              "  7   8   9  10  11\n"
              "\n"
              "Columns 6 to 7:\n"
              "  5   6\n"
              " 12  13\n"
              "[int64 tensor of size 2x7]");
}

static void blocks_are_headed_by_their_position(void) {
  CHECK_PRINT(counted(NYX_INT64, SHAPE(2, 2, 2)), NULL,
              "(0,.,.) =\n"
              " 0  1\n"
              " 2  3\n"
              "\n"
              "(1,.,.) =\n"
              " 4  5\n"
              " 6  7\n"
              "[int64 tensor of size 2x2x2]");
  nyx_context_set_index_base(ctx, 1); /* as Lua has it */
  CHECK_PRINT(counted(NYX_INT64, SHAPE(2, 1, 1, 2)), NULL,
              "(1,1,.,.) =\n"
              " 0  1\n"
              "\n"
              "(2,1,.,.) =\n"
              " 2  3\n"
              "[int64 tensor of size 2x1x1x2]");
  nyx_context_set_index_base(ctx, 0);
}

static void large_tensors_show_their_edges(void) {
  CHECK_PRINT(counted(NYX_INT64, SHAPE(2000)), NULL,
              "    0     1     2  ...  1997  1998  1999\n"
              "[int64 tensor of size 2000]");
  CHECK_PRINT(counted(NYX_INT32, SHAPE(1000, 1000)), NULL,
              "      0       1       2  ...     997     998     999\n"
              "   1000    1001    1002  ...    1997    1998    1999\n"
              "   2000    2001    2002  ...    2997    2998    2999\n"
              " ...\n"
              " 997000  997001  997002  ...  997997  997998  997999\n"
              " 998000  998001  998002  ...  998997  998998  998999\n"
              " 999000  999001  999002  ...  999997  999998  999999\n"
              "[int32 tensor of size 1000x1000]");
  nyx_print_options few = {.edge_items = 1, .threshold = 10, .index_base = 1};
  CHECK_PRINT(counted(NYX_INT32, SHAPE(3, 4, 2)), &few,
              "(1,.,.) =\n"
              "  0   1\n"
              " ...\n"
              "  6   7\n"
              "\n"
              "...\n"
              "\n"
              "(3,.,.) =\n"
              " 16  17\n"
              " ...\n"
              " 22  23\n"
              "[int32 tensor of size 3x4x2]");
  /* only large dimensions are cut; the gap ends or begins a group of columns */
  nyx_print_options narrow = {.line_width = 20, .threshold = 10};
  CHECK_PRINT(counted(NYX_INT32, SHAPE(2, 50)), &narrow,
              "Columns 0 to 2:\n"
              "  0   1   2  ...\n"
              " 50  51  52  ...\n"
              "\n"
              "Columns 47 to 49:\n"
              " 47  48  49\n"
              " 97  98  99\n"
              "[int32 tensor of size 2x50]");
  narrow.line_width = 15;
  CHECK_PRINT(counted(NYX_INT32, SHAPE(2, 50)), &narrow,
              "Columns 0 to 2:\n"
              "  0   1   2\n"
              " 50  51  52\n"
              "\n"
              "Columns 47 to 48:\n"
              " ...  47  48\n"
              " ...  97  98\n"
              "\n"
              "Columns 49 to 49:\n"
              " 49\n"
              " 99\n"
              "[int32 tensor of size 2x50]");
}

static void many_dimensions_stay_readable(void) {
  int64_t shape[NYX_MAX_DIMS];
  for (int d = 0; d < NYX_MAX_DIMS; d++) shape[d] = 4;
  nyx_tensor *t = counted(NYX_INT32, NYX_MAX_DIMS, shape);
  nyx_print_options wide = {.edge_items = 1 << 30, .threshold = 100};
  REQUIRE(CHECK(t != NULL));
  for (int i = 0; i < 2; i++) {
    char *text = NULL;
    CHECK_OK(ctx, nyx_tensor_format(ctx, t, i ? &wide : NULL, &text));
    CHECK(text && strlen(text) < 40000);
    CHECK_CONTAINS(text, "(0,0,0,0,0,0,.,.) =\n");
    CHECK_CONTAINS(text, "(3,3,3,3,3,3,.,.) =\n");
    CHECK_CONTAINS(text, "65535\n[int32 tensor of size 4x4x4x4x4x4x4x4]");
    nyx_memory_free(text);
  }
  nyx_tensor_release(t);
}

static void views_are_read_by_their_strides(void) {
  nyx_tensor *t = counted(NYX_INT64, SHAPE(2, 3)), *view = NULL;
  nyx_spec spec = {.dtype = NYX_INT64, .ndim = 2, .shape = {3, 2}, .stride = {1, 3}};
  REQUIRE(CHECK_OK(ctx, nyx__tensor_view(ctx, t->storage, &spec, &view)));
  CHECK_PRINT(view, NULL,
              " 0  3\n"
              " 1  4\n"
              " 2  5\n"
              "[int64 tensor of size 3x2]");
  spec = (nyx_spec){
      .dtype = NYX_INT64, .ndim = 1, .shape = {4000}, .stride = {0}, .offset = 5};
  REQUIRE(CHECK_OK(ctx, nyx__tensor_view(ctx, t->storage, &spec, &view)));
  CHECK_PRINT(view, NULL,
              " 5  5  5  ...  5  5  5\n"
              "[int64 tensor of size 4000]");
  nyx_tensor_release(t);
}

static void gradients_are_mentioned(void) {
  nyx_tensor *t = TENSOR(NYX_FLOAT32, SHAPE(1), 1);
  t->requires_grad = true;
  CHECK_PRINT(t, NULL,
              " 1\n"
              "[float32 tensor of size 1, requires_grad]");
}

/* A gigabyte of address space: touching all of it would take long and show in the
 * resident size. */
static void only_what_is_shown_is_touched(void) {
  size_t bytes = (size_t)1 << 30;
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(CHECK(memory != MAP_FAILED));
  nyx_tensor *t = NULL;
  CHECK_OK(ctx, nyx_tensor_wrap(ctx, NYX_FLOAT32, SHAPE(1 << 14, 1 << 14), memory, NULL,
                                NULL, &t));
  CHECK_PRINT(t, NULL,
              " 0  0  0  ...  0  0  0\n"
              " 0  0  0  ...  0  0  0\n"
              " 0  0  0  ...  0  0  0\n"
              " ...\n"
              " 0  0  0  ...  0  0  0\n"
              " 0  0  0  ...  0  0  0\n"
              " 0  0  0  ...  0  0  0\n"
              "[float32 tensor of size 16384x16384]");
  unsigned char *resident = malloc(bytes / 4096);
  size_t touched = 0;
  CHECK_INT(mincore(memory, bytes, resident), 0);
  for (size_t i = 0; i < bytes / 4096; i++) touched += resident[i] & 1;
  CHECK(touched < 8192); /* a dozen pages, or as many huge ones */
  free(resident);
  munmap(memory, bytes);
}

/* A device whose memory happens to be the host's, but which only copies. */

static nyx_status fake_copy_out(nyx_context *c, nyx_device *dev, void *data,
                                size_t offset, void *host, size_t bytes) {
  (void)c, (void)dev;
  memcpy(host, (char *)data + offset, bytes);
  return NYX_OK;
}

static nyx_status fake_alloc(nyx_context *c, nyx_device *dev, size_t bytes, void **data) {
  (void)dev;
  *data = nyx_memory_alloc(bytes);
  return *data ? NYX_OK : nyx__no_memory(c, bytes);
}

static void fake_free(nyx_device *dev, void *data) {
  (void)dev;
  nyx_memory_free(data);
}

/* Copies one strided dimension; the printer asks for no more. */
static nyx_status fake_elementwise(nyx_context *c, nyx_device *dev,
                                   const nyx_elementwise *job) {
  (void)dev;
  nyx_tensor *from = job->in[0], *to = job->out;
  if (from->ndim != 1 || from->dtype != NYX_INT64 || to->dtype != NYX_INT64)
    return nyx_context_fail(c, NYX_ERR_UNSUPPORTED, "the fake device cannot do this");
  const int64_t *x = (const int64_t *)from->storage->data + from->offset;
  for (int64_t i = 0; i < from->numel; i++)
    ((int64_t *)to->storage->data)[i] = x[i * from->stride[0]];
  return NYX_OK;
}

static nyx_device fake = {.name = "fake:1",
                          .alloc = fake_alloc,
                          .free = fake_free,
                          .copy_out = fake_copy_out,
                          .elementwise = fake_elementwise};

static void other_devices(void) {
  nyx_tensor *t = NULL, *view = NULL;
  REQUIRE(CHECK_OK(ctx, nyx_tensor_empty_on(ctx, &fake, NYX_INT64, SHAPE(60, 50), &t)));
  for (int64_t i = 0; i < 3000; i++) ((int64_t *)t->storage->data)[i] = i;
  nyx_spec spec = {.dtype = NYX_INT64, .ndim = 2, .shape = {50, 60}, .stride = {1, 50}};
  REQUIRE(CHECK_OK(ctx, nyx__tensor_view(ctx, t->storage, &spec, &view)));
  CHECK_PRINT(view, &((nyx_print_options){.edge_items = 2}),
              "    0    50  ...  2900  2950\n"
              "    1    51  ...  2901  2951\n"
              " ...\n"
              "   48    98  ...  2948  2998\n"
              "   49    99  ...  2949  2999\n"
              "[int64 tensor of size 50x60 on fake:1]");
  spec = (nyx_spec){.dtype = NYX_INT64, .ndim = 2, .shape = {2, 3}, .stride = {3, 1}};
  REQUIRE(CHECK_OK(ctx, nyx__tensor_view(ctx, t->storage, &spec, &view)));
  CHECK_PRINT(view, NULL,
              " 0  1  2\n"
              " 3  4  5\n"
              "[int64 tensor of size 2x3 on fake:1]");
  /* what the device refuses is reported, and nothing is lost */
  spec = (nyx_spec){.dtype = NYX_INT64, .ndim = 2, .shape = {2, 3}, .stride = {9, 2}};
  REQUIRE(CHECK_OK(ctx, nyx__tensor_view(ctx, t->storage, &spec, &view)));
  char *text = "untouched";
  CHECK_STATUS(nyx_tensor_format(ctx, view, NULL, &text), NYX_ERR_UNSUPPORTED);
  CHECK(text == NULL);
  nyx_tensor_release(view);
  nyx_tensor_release(t);
}

static void every_allocation_may_fail(void) {
  nyx_tensor *t = counted(NYX_FLOAT32, SHAPE(3, 40, 40));
  REQUIRE(CHECK(t != NULL));
  nyx_memory_stats before, after;
  nyx_memory_get_stats(&before);
  int failures = 0;
  for (;; failures++) {
    char *text = NULL;
    nyx_memory_fail_after(failures);
    nyx_status status = nyx_tensor_format(ctx, t, NULL, &text);
    nyx_memory_fail_after(-1);
    if (status == NYX_OK) {
      CHECK_CONTAINS(text, "[float32 tensor of size 3x40x40]");
      nyx_memory_free(text);
      break;
    }
    CHECK_STATUS(status, NYX_ERR_MEMORY);
    CHECK(text == NULL);
    if (failures > 50) break;
  }
  CHECK(failures >= 3 && failures < 50);
  nyx_memory_get_stats(&after);
  CHECK_INT(after.live, before.live);
  nyx_tensor_release(t);
}

/* A host may have set a locale with a decimal comma. */
static void numbers_ignore_the_locale(void) {
  static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8",
                                      "fr_FR.utf8", "de_DE"};
  const char *set = NULL;
  for (size_t i = 0; !set && i < sizeof names / sizeof *names; i++)
    set = setlocale(LC_NUMERIC, names[i]);
  if (!set) printf("# no locale with a decimal comma is installed\n");
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(2), 0.5, -1.5), NULL,
              "  0.5000  -1.5000\n"
              "[float64 tensor of size 2]");
  CHECK_PRINT(TENSOR(NYX_FLOAT64, SHAPE(1), 1e-9), NULL,
              " 1.0000e-09\n"
              "[float64 tensor of size 1]");
  setlocale(LC_NUMERIC, "C");
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(integers);
  RUN(bools);
  RUN(floats);
  RUN(scientific_when_the_range_demands_it);
  RUN(scalars_and_empty);
  RUN(long_lists_wrap);
  RUN(wide_tables_come_in_groups_of_columns);
  RUN(blocks_are_headed_by_their_position);
  RUN(large_tensors_show_their_edges);
  RUN(many_dimensions_stay_readable);
  RUN(views_are_read_by_their_strides);
  RUN(gradients_are_mentioned);
  RUN(only_what_is_shown_is_touched);
  RUN(other_devices);
  RUN(every_allocation_may_fail);
  RUN(numbers_ignore_the_locale);
  nyx_context_free(ctx);
  return check_done();
}
