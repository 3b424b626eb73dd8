/* Weights that stay packed between calls, on every path: the same results, after changes
 * too; memory that comes back; threads that share one. Read next: core/tensor/packed.h,
 * paths.h. */
#include <nyx/parallel.h>
#include <pthread.h>

#include "core/linalg/blas.h"
#include "core/linalg/gemm.h"
#include "core/tensor/packed.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/low.h"
#include "kernels/cpu/narrow.h"
#include "paths.h"

/* Numbers -2..2 in steps of 1/1000; integers -100..100. */
UNTRACED static nyx_tensor *numbers(nyx_dtype dtype, int ndim, const int64_t *shape) {
  nyx_tensor *wide, *out;
  must(nyx_tensor_empty(ctx, NYX_FLOAT64, ndim, shape, &wide));
  double *at = nyx_tensor_data(wide), scale = nyx_dtype_is_float(dtype) ? 1000 : 20;
  for (int64_t i = 0; i < nyx_tensor_numel(wide); i++)
    at[i] = ((double)(next() % 4001) - 2000) / scale;
  nyx_value to = NYX_I(dtype);
  must(nyx__apply1(ctx, ID(cast), wide, &to, &out));
  nyx_tensor_release(wide);
  return out;
}

static void mark(nyx_tensor *t, bool on) {
  CHECK_OK(ctx, nyx_tensor_keep_packed(ctx, t, on));
  CHECK(nyx_tensor_keeps_packed(t) == on);
}

static bool equal(const nyx_tensor *a, const nyx_tensor *b) {
  return a && b && nyx_tensor_numel(a) == nyx_tensor_numel(b) &&
         memcmp(nyx_tensor_data(a), nyx_tensor_data(b), a->storage->bytes) == 0;
}

/* Products of k terms in float32 or float64, each off by no more than k roundings. */
UNTRACED_CHECK static bool near(nyx_tensor *a, nyx_tensor *b, int64_t k) {
  if (!a || !b) return false;
  double unit = nyx_tensor_dtype(a) == NYX_FLOAT64 ? 0x1p-53 : 0x1p-24;
  for (int64_t i = 0; i < nyx_tensor_numel(a); i++) {
    double x, y;
    nyx_dtype d = nyx_tensor_dtype(a);
    x = nyx__load_double(d, (char *)nyx_tensor_data(a) + (size_t)i * nyx_dtype_size(d));
    y = nyx__load_double(d, (char *)nyx_tensor_data(b) + (size_t)i * nyx_dtype_size(d));
    if (!(fabs(x - y) <= 2 * (double)(k + 1) * unit * 4 * (double)k)) return false;
  }
  return true;
}

/* weight *= 1.5 or += 1, as ops do it. */
static void change(nyx_tensor *weight) {
  nyx_tensor *one, *out = weight, *in[2];
  must(nyx_tensor_scalar(ctx, nyx_dtype_is_float(weight->dtype) ? 1.5 : 1, weight->dtype,
                         true, &one));
  in[0] = weight, in[1] = one;
  nyx__op_id id = nyx_dtype_is_float(weight->dtype) ? ID(mul) : ID(bitwise_xor);
  must(nyx_apply(ctx, nyx__op(id), in, 2, NULL, &out));
  nyx_tensor_release(one);
}

/* Calls op without, with, again with kept panels, and after a change with and without;
 * `exact`: the bits are equal. The weight is input 1. */
static void compare(nyx__op_id id, nyx_tensor *x, nyx_tensor *weight, nyx_tensor *bias,
                    const nyx_value *attrs, int64_t terms, bool exact, bool keeps,
                    const char *what) {
  nyx_tensor *plain = apply(id, x, weight, bias, attrs);
  mark(weight, true);
  CHECK_INT(nyx_tensor_packed_bytes(weight), 0);
  nyx_tensor *first = apply(id, x, weight, bias, attrs);
  CHECK_AT((nyx_tensor_packed_bytes(weight) > 0) == keeps, what, " keeps %zu bytes",
           nyx_tensor_packed_bytes(weight));
  nyx_tensor *second = apply(id, x, weight, bias, attrs);
  CHECK_AT(exact ? equal(plain, first) : near(plain, first, terms), what, " differs");
  CHECK_AT(equal(first, second), what, " differs the second time");
  change(weight);
  nyx_tensor *changed = apply(id, x, weight, bias, attrs);
  mark(weight, false);
  CHECK_INT(nyx_tensor_packed_bytes(weight), 0);
  nyx_tensor *after = apply(id, x, weight, bias, attrs);
  CHECK_AT(exact ? equal(changed, after) : near(changed, after, 2 * terms), what,
           " differs after a change");
  CHECK_AT(!equal(changed, plain), what, " did not change");
  nyx_tensor *all[] = {plain, first, second, changed, after};
  for (int i = 0; i < 5; i++) nyx_tensor_release(all[i]);
}

/* Whether the built-in product computes large products. */
static bool built_in(void) {
  return nyx__cpu_kernels()->gemm->fast || !nyx__blas();
}

/* Whether a product without kept panels goes by the kernels for few rows or columns. */
static bool by_few(nyx_dtype dtype, int64_t rows, int64_t outputs, int64_t features) {
  int64_t many = rows > outputs ? rows : outputs, few = rows + outputs - many;
  return few <= NYX_FEW_MOST &&
         many * features * (int64_t)nyx_dtype_size(dtype) > nyx__gemm_in_place_bytes();
}

static void linear(nyx_dtype dtype, int64_t rows, int64_t outputs, int64_t features,
                   bool exact, bool keeps, bool with_bias) {
  nyx_tensor *x = numbers(dtype, SHAPE(rows, features)),
             *w = numbers(dtype, SHAPE(outputs, features)),
             *b = with_bias ? numbers(dtype, SHAPE(outputs)) : NULL;
  char what[96];
  snprintf(what, sizeof what, "%s linear %dx%dx%d", nyx_dtype_name(dtype), (int)rows,
           (int)outputs, (int)features);
  compare(ID(linear), x, w, b, NULL, features, exact, keeps, what);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  nyx_tensor_release(b);
}

static void linears(void) {
  static const int64_t rows[] = {2, 3, 17, 47, 48, 61, 150, 530};
  for (int i = 0; i < 8; i++) {
    for (int d = 0; d < 2; d++) {
      nyx_dtype dtype = d ? NYX_FLOAT64 : NYX_FLOAT32;
      /* From 48 rows on the same product packs B itself, with 2 million products. */
      bool shared = rows[i] >= 48 && built_in();
      linear(dtype, rows[i], 131, 409, shared, built_in(), i % 2);
      linear(dtype, rows[i], 1030, 64, shared, built_in(), i % 3 == 0);
      linear(dtype, rows[i], 64, 1100, shared && !by_few(dtype, rows[i], 64, 1100),
             built_in(), true);
      linear(dtype, rows[i], 40, 64, true, false, false); /* too few outputs */
    }
  }
}

/* Half types by a weight's columns: few rows are not packed; more, by a large weight,
 * only if the panels are kept. */
static void half_linear(nyx_dtype dtype, int64_t rows, int64_t outputs, int64_t features,
                        bool with_bias) {
  bool tiles = nyx__gemm_low_tiles(dtype), packs = rows > (tiles ? 1 : 16);
  bool large = outputs * features * 2 > nyx__gemm_in_place_bytes();
  bool differs = packs && !tiles && large && rows <= nyx__cpu_kernels()->narrow->most;
  linear(dtype, rows, outputs, features, !differs, packs, with_bias);
}

static void narrow_types(void) {
  const nyx_dtype dtypes[] = {NYX_BFLOAT16, NYX_FLOAT16, NYX_INT8};
  static const int64_t rows[] = {1, 2, 30, 300};
  for (int d = 0; d < 3; d++) {
    bool has = d == 2 || (d ? nyx__low_kernels()->f16 : nyx__low_kernels()->bf16);
    for (int i = 0; i < 4 && d < 2 && has; i++) {
      half_linear(dtypes[d], rows[i], 4200, 100, i % 2);
      half_linear(dtypes[d], rows[i], 700, 1500, true);
    }
    for (int i = 0; i < 4 && d == 2; i++) {
      nyx_tensor *x = numbers(NYX_INT8, SHAPE(rows[i], 130)),
                 *w = numbers(NYX_INT8, SHAPE(130, 4500));
      compare(ID(int_mm), x, w, NULL, NULL, 130, true, true, "int_mm");
      nyx_tensor_release(x);
      nyx_tensor_release(w);
    }
  }
}

static void conv(int64_t images, int64_t in, int64_t out, int64_t groups, int64_t kernel,
                 int64_t size, int64_t stride, bool keeps, bool with_bias) {
  nyx_tensor *x = numbers(NYX_FLOAT32, SHAPE(images, in, size, size)),
             *w = numbers(NYX_FLOAT32, SHAPE(out, in / groups, kernel, kernel)),
             *b = with_bias ? numbers(NYX_FLOAT32, SHAPE(out)) : NULL;
  char what[96];
  snprintf(what, sizeof what, "conv %d of %d to %d in %d, %dx%d of %d by %d", (int)images,
           (int)in, (int)out, (int)groups, (int)kernel, (int)kernel, (int)size,
           (int)stride);
  const int64_t padding = kernel / 2, one = 1;
  const nyx_value attrs[] = {NYX_LIST(&stride, 1), NYX_LIST(&padding, 1),
                             NYX_LIST(&one, 1), NYX_I(groups)};
  compare(ID(conv2d), x, w, b, attrs, 0, true, keeps, what);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  nyx_tensor_release(b);
}

static void convolutions(void) {
  for (int i = 0; i < 2; i++) {
    conv(1, 16, 32, 1, 3, 30, 1, built_in(), i);
    conv(2, 16, 40, 2, 3, 20, 2, built_in(), i);
    conv(1, 128, 120, 1, 3, 7, 1, built_in(), i); /* one block of columns */
    conv(1, 128, 150, 1, 3, 7, 1, false, i);      /* few tiles of Winograd's */
    conv(3, 20, 64, 1, 5, 9, 1, built_in(), i);
    conv(1, 256, 200, 1, 1, 14, 1, built_in(), i); /* a product of one image */
    conv(1, 400, 160, 1, 1, 7, 1, built_in(), i);
    conv(1, 1000, 480, 1, 1, 7, 1, built_in(), i); /* beyond a cache */
    conv(1, 200, 200, 1, 3, 28, 2, built_in(), i); /* 49 tiles */
    conv(1, 128, 128, 2, 1, 14, 1, false, i);
    conv(1, 8, 8, 8, 3, 20, 1, false, i); /* depthwise */
  }
}

static nyx_tensor *rows_of(nyx_tensor *t, int64_t first, int64_t count) {
  nyx_tensor *out;
  must(nyx__apply1(ctx, ID(narrow), t,
                   ATTRS(NYX_I(0), NYX_I(first), NYX_I(count), NYX_I(1)), &out));
  return out;
}

/* Views have forms of their own; a change through one is seen by all; what is written
 * behind Nyx's back is said by nyx_tensor_touch; in inference mode too. */
static void changes(void) {
  for (int inference = 0; inference < 2; inference++) {
    nyx_context_set_inference(ctx, inference);
    nyx_context_set_grad_enabled(ctx, !inference);
    nyx_tensor *x = numbers(NYX_FLOAT32, SHAPE(64, 200)),
               *w = numbers(NYX_FLOAT32, SHAPE(300, 200)), *part = rows_of(w, 100, 150);
    CHECK(nyx_tensor_is_inference(w) == inference);
    mark(w, true);
    CHECK(nyx_tensor_keeps_packed(part));
    nyx_tensor *y = apply(ID(linear), x, w, NULL, NULL),
               *z = apply(ID(linear), x, part, NULL, NULL);
    CHECK(!built_in() || nyx_tensor_packed_bytes(w) >= 450 * 200 * 4);
    change(part);
    for (int i = 0; i < 2; i++) {
      nyx_tensor *copy = NULL, *y2 = apply(ID(linear), x, w, NULL, NULL),
                 *z2 = apply(ID(linear), x, part, NULL, NULL);
      CHECK(!equal(y, y2) && !equal(z, z2));
      must(nyx__apply1(ctx, ID(clone), w, NULL, &copy));
      nyx_tensor *same = apply(ID(linear), x, copy, NULL, NULL);
      CHECK(equal(same, y2));
      nyx_tensor *all[] = {y, z, copy, same};
      for (int t = 0; t < 4; t++) nyx_tensor_release(all[t]);
      y = y2, z = z2;
      *((float *)nyx_tensor_data(w) + 150 * 200) += 8;
      nyx_tensor_touch(w);
    }
    nyx_tensor *all[] = {x, w, part, y, z};
    for (int t = 0; t < 5; t++) nyx_tensor_release(all[t]);
    nyx_context_set_inference(ctx, false);
    nyx_context_set_grad_enabled(ctx, true);
  }
}

static size_t live(void) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  return stats.live;
}

/* What is kept is counted and comes back with the mark, and with the weight. */
static void memory(void) {
  nyx_tensor *x = numbers(NYX_FLOAT32, SHAPE(64, 512));
  size_t before = live();
  for (int way = 0; way < 2; way++) {
    nyx_tensor *w = numbers(NYX_FLOAT32, SHAPE(512, 512));
    size_t with_weight = live();
    mark(w, true);
    for (int i = 0; i < 3; i++) {
      nyx_tensor_release(apply(ID(linear), x, w, NULL, NULL));
      change(w);
    }
    nyx_tensor_release(apply(ID(linear), x, w, NULL, NULL));
    size_t kept = nyx_tensor_packed_bytes(w);
    CHECK_INT(kept, built_in() ? 512 * 512 * 4 : 0);
    CHECK(live() >= with_weight + kept);
    CHECK(live() < with_weight + kept + kept / 3 + 1024);
    if (way) {
      mark(w, false);
      CHECK(live() < with_weight + 512);
    }
    nyx_tensor_release(w);
    CHECK_INT(live(), before);
  }
  nyx_tensor_release(x);
}

/* Ever other views of a marked tensor do not fill memory. */
static void many_views(void) {
  nyx_tensor *x = numbers(NYX_FLOAT32, SHAPE(128, 64)),
             *w = numbers(NYX_FLOAT32, SHAPE(400, 64));
  mark(w, true);
  for (int64_t first = 0; first < 100; first++) {
    nyx_tensor *part = rows_of(w, first, 300);
    nyx_tensor *y = apply(ID(linear), x, part, NULL, NULL), *copy = NULL;
    must(nyx__apply1(ctx, ID(clone), part, NULL, &copy));
    nyx_tensor *z = apply(ID(linear), x, copy, NULL, NULL);
    CHECK(equal(y, z));
    CHECK(nyx_tensor_packed_bytes(w) <= 8 * 320 * 64 * 4);
    nyx_tensor *all[] = {part, y, copy, z};
    for (int t = 0; t < 4; t++) nyx_tensor_release(all[t]);
  }
  mark(w, true); /* twice is once */
  mark(w, false);
  mark(w, false);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
}

/* Wherever memory ends, there is an error or the right result, and what is kept then is
 * right. */
static void without_memory(void) {
  for (int kind = 0; kind < 3; kind++) {
    nyx_dtype dtype = kind == 1 ? NYX_BFLOAT16 : NYX_FLOAT32;
    nyx_tensor *x, *w, *expected, *y;
    if (kind < 2) {
      x = numbers(dtype, SHAPE(65, 200)), w = numbers(dtype, SHAPE(600, 200));
    } else {
      x = numbers(dtype, SHAPE(1, 32, 20, 20)), w = numbers(dtype, SHAPE(32, 32, 3, 3));
    }
    nyx__op_id id = kind < 2 ? ID(linear) : ID(conv2d);
    expected = apply(id, x, w, NULL, NULL);
    nyx_tensor *in[] = {x, w};
    size_t before = live();
    bool done = false, keeps = kind == 1 ? nyx__low_kernels()->bf16 != NULL : built_in();
    for (int64_t n = 0; n < 60 && !done; n++) {
      nyx_memory_fail_after(n);
      nyx_status status = nyx_tensor_keep_packed(ctx, w, true);
      y = NULL;
      if (status == NYX_OK) status = nyx__applyn(ctx, id, in, 2, NULL, &y);
      nyx_memory_fail_after(-1);
      CHECK(status == NYX_OK || status == NYX_ERR_MEMORY);
      CHECK(status != NYX_OK || equal(y, expected));
      done = status == NYX_OK && (nyx_tensor_packed_bytes(w) > 0 || !keeps);
      nyx_tensor_release(y);
      y = apply(id, x, w, NULL, NULL);
      CHECK(equal(y, expected));
      nyx_tensor_release(y);
      if (!done) mark(w, false);
    }
    CHECK(done);
    mark(w, false);
    CHECK(live() <= before + 512);
    nyx_tensor_release(x);
    nyx_tensor_release(w);
    nyx_tensor_release(expected);
  }
}

/* Two threads, each with a context of its own, use one weight while it is marked,
 * unmarked and said to have changed. */
typedef struct user {
  nyx_tensor *x, *w, *expected;
  bool toggles, right;
} user;

static void *use(void *arg) {
  user *u = arg;
  nyx_context *own;
  u->right = nyx_context_new(&own) == NYX_OK;
  for (int i = 0; i < 60 && u->right; i++) {
    nyx_tensor *in[] = {u->x, u->w}, *y = NULL;
    u->right =
        nyx__applyn(own, ID(linear), in, 2, NULL, &y) == NYX_OK && equal(y, u->expected);
    nyx_tensor_release(y);
    if (u->toggles && i % 7 == 0) nyx_tensor_touch(u->w);
    if (u->toggles && i % 5 == 0)
      u->right &= nyx_tensor_keep_packed(own, u->w, i % 10 == 0) == NYX_OK;
  }
  nyx_context_free(own);
  return NULL;
}

static void threads(void) {
  nyx_tensor *w = numbers(NYX_FLOAT32, SHAPE(200, 300));
  user users[3];
  pthread_t thread[3];
  mark(w, true);
  for (int i = 0; i < 3; i++) {
    users[i] = (user){.x = numbers(NYX_FLOAT32, SHAPE(50 + i, 300)), .w = w};
    users[i].toggles = i == 0;
    users[i].expected = apply(ID(linear), users[i].x, w, NULL, NULL);
  }
  for (int i = 0; i < 3; i++)
    if (pthread_create(&thread[i], NULL, use, &users[i]) != 0) exit(1);
  for (int i = 0; i < 3; i++) {
    pthread_join(thread[i], NULL);
    CHECK_AT(users[i].right, "thread", " %d", i);
    nyx_tensor_release(users[i].x);
    nyx_tensor_release(users[i].expected);
  }
  nyx_tensor_release(w);
}

static void run(void) {
  RUN(linears);
  RUN(narrow_types);
  RUN(convolutions);
  RUN(changes);
  RUN(memory);
  RUN(many_views);
  RUN(without_memory);
  RUN(threads);
}

int main(int argc, char **argv) {
  (void)argc;
  static const char *const names[] = {"base", "avx2", "avx512", "amx", NULL};
  return on_paths(argv[0], names, run);
}
