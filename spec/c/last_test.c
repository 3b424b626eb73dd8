/* Channels-last images, and slices of their channels, against the same ops on row-major
 * ones: convolutions with both gradients, pooling, batch norm, what moves elements; that
 * results do not depend on the number of threads; and that nothing is copied to another
 * layout on the way, by the memory in use. On every path of the CPU. Read next:
 * core/op/conv_last.c. */
#include <nyx/parallel.h>

#include "layouts.h"
#include "paths.h"

static const nyx_value last_format = NYX_S("channels_last");

static nyx_tensor *in_last(nyx_tensor *t) {
  nyx_tensor *out = NULL;
  must(nyx__apply1(ctx, ID(relayout), t, &last_format, &out));
  return out;
}

/* The same as a slice of the channels of images whose others are not numbers. */
static nyx_tensor *in_slice(nyx_tensor *t) {
  const int64_t pads[] = {0, 0, 0, 0, 2, 1};
  const nyx_value wider[] = {NYX_LIST(pads, 6), NYX_S("constant"), NYX_F(NAN)};
  const nyx_value part[] = {NYX_I(1), NYX_I(2), NYX_I(nyx_tensor_shape(t)[1]), NYX_I(1)};
  nyx_tensor *wide = apply(ID(pad), t, NULL, NULL, wider), *last = in_last(wide);
  nyx_tensor *slice = apply(ID(narrow), last, NULL, NULL, part);
  nyx_tensor_release(wide);
  nyx_tensor_release(last);
  return slice;
}

/* Whether both have the same elements, up to `bound` times the largest, or times 1, which
 * is what inputs are about: sums of them may cancel. Releases b. */
UNTRACED_CHECK static bool near_to(nyx_tensor *a, nyx_tensor *b, double bound) {
  double most = 1, off = 0;
  const double *x = read(a), *y = read(b);
  int64_t n = nyx_tensor_numel(a);
  CHECK_INT(nyx_tensor_numel(b), n);
  for (int64_t i = 0; i < n; i++) {
    if (fabs(y[i]) > most) most = fabs(y[i]);
    if (!(fabs(x[i] - y[i]) <= off)) off = fabs(x[i] - y[i]);
  }
  nyx_tensor_release(b);
  return CHECK_AT(off <= bound * most, "near", ": off by %g of %g", off, most);
}

static double bound_of(nyx_dtype dtype) {
  return dtype == NYX_FLOAT64 ? 1e-13 : 3e-5;
}

/* Applies an op to the inputs as they are and as `turn` makes those of four dimensions
 * that `which` names, and compares outputs. */
static void compare_turned(nyx_dtype dtype, const char *op, nyx_tensor *const *in, int n,
                           unsigned which, const nyx_value *attrs,
                           nyx_tensor *(*turn)(nyx_tensor *t)) {
  nyx_tensor *other[5] = {NULL}, *plain[NYX_MAX_OUTPUTS] = {NULL};
  nyx_tensor *last[NYX_MAX_OUTPUTS] = {NULL};
  for (int i = 0; i < n; i++)
    other[i] = which >> i & 1 ? turn(in[i]) : nyx_tensor_retain(in[i]);
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(op), in, n, attrs, plain));
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(op), other, n, attrs, last));
  for (int i = 0; i < NYX_MAX_OUTPUTS && plain[i] && last[i]; i++) {
    bool images = nyx_tensor_ndim(last[i]) == 4;
    CHECK_AT(!images || nyx_tensor_is_channels_last(last[i]), op,
             " is not channels-last");
    near_to(last[i], plain[i], bound_of(dtype));
    nyx_tensor_release(last[i]);
  }
  for (int i = 0; i < n; i++) nyx_tensor_release(other[i]);
}

static void compare(nyx_dtype dtype, const char *op, nyx_tensor *const *in, int n,
                    unsigned which, const nyx_value *attrs) {
  compare_turned(dtype, op, in, n, which, attrs, in_last);
  compare_turned(dtype, op, in, n, which, attrs, in_slice);
}

typedef struct conv {
  int64_t n, c, h, w, o, kh, kw, stride[2], pad[2], dilation[2], groups;
} conv;

/* Vectors and what is left of them, steps with and without a common divisor with gaps,
 * borders wider than the image, channels of which a page is a multiple, long sums. */
static const conv convs[] = {
    {2, 16, 9, 11, 24, 3, 3, {1, 1}, {1, 1}, {1, 1}, 1},
    {2, 40, 8, 8, 33, 1, 1, {1, 1}, {0, 0}, {1, 1}, 1},
    {3, 8, 7, 7, 40, 3, 3, {2, 2}, {1, 1}, {1, 1}, 1},
    {2, 16, 8, 8, 40, 1, 1, {2, 2}, {0, 0}, {1, 1}, 1},
    {1, 3, 23, 21, 20, 7, 7, {2, 2}, {3, 3}, {1, 1}, 1},
    {1, 1024, 3, 3, 17, 1, 1, {1, 1}, {0, 0}, {1, 1}, 1},
    {1, 512, 3, 4, 17, 1, 1, {2, 2}, {0, 0}, {1, 1}, 1},
    {1, 60, 6, 7, 130, 1, 1, {1, 1}, {0, 0}, {1, 1}, 1}, /* units share all places: */
    {1, 512, 6, 6, 36, 1, 1, {2, 2}, {0, 0}, {1, 1}, 1},
    {1, 64, 8, 7, 100, 1, 1, {3, 2}, {1, 1}, {1, 1}, 1},
    {1, 20, 9, 9, 100, 3, 3, {2, 2}, {1, 1}, {1, 1}, 1},
    {2, 24, 7, 5, 140, 3, 3, {2, 2}, {1, 1}, {1, 1}, 2},
    {2, 12, 9, 9, 18, 3, 2, {3, 2}, {2, 2}, {2, 2}, 3},
    {2, 40, 7, 9, 40, 3, 3, {1, 1}, {1, 1}, {1, 1}, 40},
    {2, 5, 9, 9, 5, 3, 3, {2, 2}, {1, 1}, {1, 1}, 5},
    {2, 5, 9, 10, 10, 5, 3, {2, 2}, {2, 2}, {1, 1}, 5},
    {1, 130, 5, 5, 16, 3, 3, {1, 1}, {1, 1}, {1, 1}, 1},
    {1, 4, 3, 300, 6, 3, 3, {1, 1}, {1, 1}, {1, 1}, 1},
    {1, 2, 20, 20, 3, 1, 1, {3, 3}, {1, 1}, {1, 1}, 1},
    {5, 7, 4, 6, 9, 4, 6, {1, 1}, {0, 0}, {1, 1}, 1},
    {2, 33, 9, 7, 35, 3, 3, {1, 2}, {1, 2}, {2, 1}, 1},
    {2, 2, 30, 30, 3, 5, 5, {4, 4}, {3, 3}, {2, 2}, 1},
    {1, 32, 24, 24, 32, 3, 3, {1, 1}, {1, 1}, {1, 1}, 1}, /* by Winograd's way */
};

static void compare_conv(nyx_dtype dtype, const conv *v) {
  nyx_tensor *x = random_tensor(dtype, SHAPE(v->n, v->c, v->h, v->w), false);
  nyx_tensor *w =
      random_tensor(dtype, SHAPE(v->o, v->c / v->groups, v->kh, v->kw), false);
  nyx_tensor *bias = random_tensor(dtype, SHAPE(v->o), false);
  const int64_t size[] = {v->h, v->w}, kernel[] = {v->kh, v->kw};
  const nyx_value attrs[] = {NYX_LIST(size, 2), NYX_LIST(v->stride, 2),
                             NYX_LIST(v->pad, 2), NYX_LIST(v->dilation, 2),
                             NYX_I(v->groups)};
  nyx_value weight_attrs[5];
  memcpy(weight_attrs, attrs, sizeof attrs);
  weight_attrs[0] = NYX_LIST(kernel, 2);
  nyx_tensor *in[] = {x, w, bias};
  nyx_tensor *g = apply(ID(conv2d), x, w, NULL, attrs + 1);
  for (unsigned which = 1; which < 4; which++) {
    compare(dtype, "conv2d", in, 3, which, attrs + 1);
    compare(dtype, "conv2d_input", (nyx_tensor *[]){g, w}, 2, which, attrs);
    compare(dtype, "conv2d_weight", (nyx_tensor *[]){g, x}, 2, which, weight_attrs);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  nyx_tensor_release(bias);
  nyx_tensor_release(g);
}

static void convolutions(void) {
  for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) {
    compare_conv(NYX_FLOAT32, &convs[i]);
    compare_conv(NYX_FLOAT64, &convs[i]);
  }
}

/* Half types: what float64 gives for the same numbers, rounded once; sums are in float32.
 * Row-major images too, which may go the same way. */
static void half_is(const char *op, nyx_tensor *const *in, int n,
                    const nyx_value *attrs) {
  nyx_tensor *wide[3] = {NULL}, *last[2][3] = {{NULL}}, *exact[NYX_MAX_OUTPUTS] = {NULL};
  nyx_dtype dtype = nyx_tensor_dtype(in[0]);
  for (int i = 0; i < n; i++) {
    wide[i] = apply(ID(cast), in[i], NULL, NULL, ATTRS(NYX_I(NYX_FLOAT64)));
    bool images = nyx_tensor_ndim(in[i]) == 4;
    last[0][i] = images ? in_last(in[i]) : nyx_tensor_retain(in[i]);
    last[1][i] = images ? in_slice(in[i]) : nyx_tensor_retain(in[i]);
  }
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(op), wide, n, attrs, exact));
  for (int turn = 0; turn < 3; turn++) {
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    nyx_tensor *const *from = turn ? last[turn - 1] : in;
    CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(op), from, n, attrs, out));
    CHECK(nyx_tensor_is_channels_last(out[0]) == (turn > 0));
    near_to(out[0], nyx_tensor_retain(exact[0]),
            dtype == NYX_BFLOAT16 ? 1.01 / 256 : 1.01 / 2048);
    nyx_tensor_release(out[0]);
  }
  nyx_tensor_release(exact[0]);
  for (int i = 0; i < n; i++) {
    nyx_tensor_release(wide[i]);
    nyx_tensor_release(last[0][i]);
    nyx_tensor_release(last[1][i]);
  }
}

static void halves_of(nyx_dtype dtype, const conv *v) {
  const int64_t size[] = {v->h, v->w}, kernel[] = {v->kh, v->kw};
  const nyx_value attrs[] = {NYX_LIST(size, 2), NYX_LIST(v->stride, 2),
                             NYX_LIST(v->pad, 2), NYX_LIST(v->dilation, 2),
                             NYX_I(v->groups)};
  nyx_value weight_attrs[5];
  memcpy(weight_attrs, attrs, sizeof attrs);
  weight_attrs[0] = NYX_LIST(kernel, 2);
  nyx_tensor *x = random_tensor(dtype, SHAPE(v->n, v->c, v->h, v->w), false);
  nyx_tensor *w =
      random_tensor(dtype, SHAPE(v->o, v->c / v->groups, v->kh, v->kw), false);
  nyx_tensor *bias = random_tensor(dtype, SHAPE(v->o), false);
  nyx_tensor *y = apply(ID(conv2d), x, w, NULL, attrs + 1);
  half_is("conv2d", (nyx_tensor *[]){x, w, bias}, 3, attrs + 1);
  half_is("conv2d_input", (nyx_tensor *[]){y, w}, 2, attrs);
  half_is("conv2d_weight", (nyx_tensor *[]){y, x}, 2, weight_attrs);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  nyx_tensor_release(bias);
  nyx_tensor_release(y);
}

static void half_types(void) {
  static const conv more[] = {
      {2, 64, 9, 7, 64, 3, 2, {3, 2}, {2, 2}, {2, 2}, 4},
      {1, 32, 6, 66, 24, 3, 1, {1, 1}, {1, 0}, {1, 1}, 1},
      {2, 20, 30, 14, 33, 3, 3, {2, 1}, {1, 2}, {1, 1}, 1},
  };
  for (int i = 0; i < 2; i++) {
    nyx_dtype dtype = i ? NYX_FLOAT16 : NYX_BFLOAT16;
    for (size_t k = 0; k < sizeof convs / sizeof *convs; k++) halves_of(dtype, &convs[k]);
    for (size_t k = 0; k < sizeof more / sizeof *more; k++) halves_of(dtype, &more[k]);
  }
}

static void pooling(void) {
  static const int64_t channels[] = {1, 3, 16, 40, 260};
  const int64_t k3[] = {3, 2}, s2[] = {2, 1}, p1[] = {1, 1}, d2[] = {1, 2},
                out[] = {2, 3};
  const nyx_value max[] = {NYX_LIST(k3, 2), NYX_LIST(s2, 2), NYX_LIST(p1, 2),
                           NYX_LIST(d2, 2), NYX_I(1),        NYX_NONE};
  const nyx_value average[] = {NYX_LIST(k3, 2), NYX_LIST(s2, 2), NYX_LIST(p1, 2),
                               NYX_I(1),        NYX_I(0),        NYX_NONE};
  const nyx_value adaptive = NYX_LIST(out, 2);
  for (int i = 0; i < 10; i++) {
    nyx_dtype dtype = i % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    nyx_tensor *x = random_tensor(dtype, SHAPE(2, channels[i / 2], 4, 5), false);
    compare(dtype, "max_pool2d_with_indices", &x, 1, 1, max);
    compare(dtype, "avg_pool2d", &x, 1, 1, average);
    compare(dtype, "adaptive_avg_pool2d", &x, 1, 1, &adaptive);
    const int64_t size[] = {7, 4};
    const nyx_value back[] = {NYX_LIST(size, 2), NYX_LIST(((int64_t[]){4, 5}), 2)};
    compare(dtype, "adaptive_avg_pool2d_backward", &x, 1, 1, back);
    nyx_value adjoint[7] = {NYX_LIST(size, 2)};
    memcpy(adjoint + 1, average, sizeof average);
    compare(dtype, "avg_pool2d_backward", &x, 1, 1, adjoint);
    nyx_tensor_release(x);
  }
}

/* What moves elements gives the same ones. */
static void moving(void) {
  static const char *const modes[] = {"constant", "reflect", "replicate", "circular"};
  const int64_t edges[] = {1, 2, 3, -1}, all[] = {-1, 2, 1, 0, 2, 0, 1, 0};
  const int64_t dims[] = {1, 3}, steps[] = {2, -9};
  static const int64_t channels[] = {5, 67, 1};
  for (int i = 0; i < 24; i++) {
    nyx_dtype dtype = i % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    int64_t c = channels[i / 8], n = i % 3;
    nyx_tensor *x = random_tensor(dtype, SHAPE(n, c, 4, 5), false);
    nyx_tensor *g = random_tensor(dtype, SHAPE(n, c, 6, 8), false);
    const nyx_value mode = NYX_S(modes[i / 2 % 4]);
    const nyx_value pad[] = {NYX_LIST(edges, 4), mode, NYX_F(0.5)};
    const nyx_value more[] = {NYX_LIST(all, 8), NYX_S("constant"), NYX_NONE};
    const int64_t shape[] = {n, c, 4, 5};
    const nyx_value back[] = {NYX_LIST(shape, 4), NYX_LIST(edges, 4), mode};
    compare(dtype, "pad", &x, 1, 1, pad);
    compare(dtype, "pad", &x, 1, 1, more);
    compare(dtype, "pad_backward", &g, 1, 1, back);
    compare(dtype, "flip", &x, 1, 1, (nyx_value[]){NYX_LIST(dims, 2)});
    compare(dtype, "roll", &x, 1, 1,
            (nyx_value[]){NYX_LIST(steps, 2), NYX_LIST(dims, 2)});
    compare(dtype, "sigmoid", &x, 1, 1, NULL);
    compare(dtype, "cat", (nyx_tensor *[]){x, x}, 2, 3, (nyx_value[]){NYX_I(1)});
    nyx_tensor_release(x);
    nyx_tensor_release(g);
  }
}

static void batch_norm(void) {
  static const int64_t channels[] = {1, 16, 70, 300};
  for (int i = 0; i < 8; i++) {
    nyx_dtype dtype = i % 2 ? NYX_FLOAT64 : NYX_FLOAT32;
    int64_t c = channels[i / 2], h = c > 100 ? 4 : 13;
    nyx_tensor *x = random_tensor(dtype, SHAPE(2, c, h, 5), false);
    nyx_tensor *g = random_tensor(dtype, SHAPE(2, c, h, 5), false);
    nyx_tensor *w = random_tensor(dtype, SHAPE(c), false);
    nyx_tensor *b = random_tensor(dtype, SHAPE(c), false);
    compare(dtype, "batch_norm_training", (nyx_tensor *[]){x, w, b}, 3, 1, NULL);
    for (unsigned which = 2; which < 4; which++)
      compare(dtype, "batch_norm_backward", (nyx_tensor *[]){g, x, w, b, w}, 5, which,
              NULL);
    nyx_tensor_release(x);
    nyx_tensor_release(g);
    nyx_tensor_release(w);
    nyx_tensor_release(b);
  }
}

/* Images of 8 MiB, and how much more memory is in use while one op runs. */

enum { CHANNELS = 32, SIZE = 256 };

static nyx_tensor *channels_of(nyx_tensor *t, int64_t first, int64_t count) {
  const nyx_value part[] = {NYX_I(1), NYX_I(first), NYX_I(count), NYX_I(1)};
  return apply(ID(narrow), t, NULL, NULL, part);
}

static nyx_tensor *images(int64_t channels, int64_t size) {
  const nyx_value attrs[] = {NYX_LIST(((int64_t[]){1, channels, size, size}), 4),
                             NYX_NONE};
  nyx_tensor *t = apply(ID(randn), NULL, NULL, NULL, attrs), *last = in_last(t);
  nyx_tensor_release(t);
  return last;
}

static void takes_little(const char *op, nyx_tensor *const *in, int n,
                         const nyx_value *attrs) {
  nyx_memory_stats before, after;
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  size_t results = 0, image = CHANNELS * SIZE * SIZE * sizeof(float);
  nyx_memory_reset_peak();
  nyx_memory_get_stats(&before);
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(op), in, n, attrs, out));
  nyx_memory_get_stats(&after);
  for (int i = 0; i < NYX_MAX_OUTPUTS && out[i]; i++) {
    results += nyx_tensor_storage_bytes(out[i]);
    if (nyx_tensor_ndim(out[i]) == 4)
      CHECK_AT(nyx_tensor_is_channels_last(out[i]), op, " is not channels-last");
    nyx_tensor_release(out[i]);
  }
  size_t taken = after.peak - before.live;
  CHECK_AT(taken < results + image / 2, op, ": %zu bytes for %zu of results", taken,
           results);
}

static void copy_nothing_convolutions(void) {
  static const struct {
    int64_t o, kernel, stride, groups;
  } kinds[] = {{CHANNELS, 3, 1, 1}, {CHANNELS, 1, 1, 1}, {CHANNELS, 1, 2, 1},
               {CHANNELS, 3, 2, 1}, {CHANNELS, 3, 1, 4}, {CHANNELS, 3, 1, CHANNELS}};
  nyx_tensor *x = images(CHANNELS, SIZE), *many = images(CHANNELS + 8, SIZE);
  nyx_tensor *slice = channels_of(many, 3, CHANNELS);
  nyx_tensor_release(many);
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    const int64_t k = kinds[i].kernel, pad = k / 2, size = SIZE, one = 1;
    const nyx_value shape[] = {
        NYX_LIST(((int64_t[]){kinds[i].o, CHANNELS / kinds[i].groups, k, k}), 4),
        NYX_NONE};
    const nyx_value attrs[] = {NYX_LIST(&size, 1), NYX_LIST(&kinds[i].stride, 1),
                               NYX_LIST(&pad, 1), NYX_LIST(&one, 1),
                               NYX_I(kinds[i].groups)};
    nyx_value weight_attrs[5];
    memcpy(weight_attrs, attrs, sizeof attrs);
    weight_attrs[0] = NYX_LIST(&k, 1);
    nyx_tensor *w = apply(ID(randn), NULL, NULL, NULL, shape), *last = in_last(w);
    nyx_tensor *y = apply(ID(conv2d), x, last, NULL, attrs + 1);
    takes_little("conv2d", (nyx_tensor *[]){x, last}, 2, attrs + 1);
    takes_little("conv2d", (nyx_tensor *[]){x, w}, 2, attrs + 1);
    takes_little("conv2d_input", (nyx_tensor *[]){y, last}, 2, attrs);
    takes_little("conv2d_weight", (nyx_tensor *[]){y, x}, 2, weight_attrs);
    takes_little("conv2d", (nyx_tensor *[]){slice, w}, 2, attrs + 1);
    takes_little("conv2d_weight", (nyx_tensor *[]){y, slice}, 2, weight_attrs);
    if (kinds[i].stride == 1) {
      takes_little("conv2d_input", (nyx_tensor *[]){slice, w}, 2, attrs);
      takes_little("conv2d_weight", (nyx_tensor *[]){slice, x}, 2, weight_attrs);
    }
    nyx_tensor_release(w);
    nyx_tensor_release(last);
    nyx_tensor_release(y);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(slice);
}

static void copy_nothing_moved(nyx_tensor *x) {
  static const char *const modes[] = {"constant", "reflect", "replicate", "circular"};
  const int64_t edges[] = {1, 1, 2, 0}, plane[] = {2, 3}, steps[] = {3, -5};
  const int64_t shape[] = {1, CHANNELS, SIZE - 2, SIZE - 2};
  const nyx_value both = NYX_LIST(plane, 2);
  nyx_tensor *inner = NULL;
  inner = apply(ID(pad), x, NULL, NULL,
                ATTRS(NYX_LIST(((int64_t[]){-1, -1, -1, -1}), 4), NYX_NONE, NYX_NONE));
  for (int i = 0; i < 4; i++) {
    const nyx_value pad[] = {NYX_LIST(edges, 4), NYX_S(modes[i]), NYX_F(2)};
    const nyx_value back[] = {NYX_LIST(shape, 4), NYX_LIST(edges, 4), NYX_S(modes[i])};
    takes_little("pad", &inner, 1, pad);
    if (i > 0) takes_little("pad_backward", &x, 1, back);
  }
  takes_little("flip", &x, 1, &both);
  takes_little("roll", &x, 1, (nyx_value[]){NYX_LIST(steps, 2), both});
  takes_little("relu", &x, 1, NULL);
  takes_little("where", (nyx_tensor *[]){x, x, x}, 3, NULL);
  takes_little("cat", (nyx_tensor *[]){x, x}, 2, (nyx_value[]){NYX_I(1)});
  takes_little("cast", &x, 1, (nyx_value[]){NYX_I(NYX_FLOAT64)});
  nyx_tensor_release(inner);
}

/* What moves elements, and what computes them one by one, on slices of channels too. */
static void copy_nothing_of_slices(void) {
  const int64_t two = 2, one = 1, zero = 0;
  const nyx_value windows[] = {NYX_LIST(&two, 1), NYX_LIST(&two, 1), NYX_LIST(&zero, 1),
                               NYX_LIST(&one, 1), NYX_I(0),          NYX_NONE};
  const nyx_value average[] = {NYX_LIST(&two, 1), NYX_LIST(&two, 1), NYX_LIST(&zero, 1),
                               NYX_I(0),          NYX_I(1),          NYX_NONE};
  nyx_tensor *x = images(CHANNELS, SIZE), *many = images(CHANNELS + 8, SIZE);
  nyx_tensor *slice = channels_of(many, 3, CHANNELS);
  copy_nothing_moved(x);
  copy_nothing_moved(slice);
  takes_little("max_pool2d_with_indices", &slice, 1, windows);
  takes_little("avg_pool2d", &slice, 1, average);
  nyx_tensor_release(x);
  nyx_tensor_release(many);
  nyx_tensor_release(slice);
}

static void copy_nothing_else(void) {
  nyx_tensor *x = images(CHANNELS, SIZE);
  const int64_t two = 2, one = 1, zero = 0, size = SIZE, half = SIZE / 2;
  const nyx_value windows[] = {NYX_LIST(&two, 1), NYX_LIST(&two, 1), NYX_LIST(&zero, 1),
                               NYX_LIST(&one, 1), NYX_I(0),          NYX_NONE};
  const nyx_value average[] = {
      NYX_LIST(&size, 1), NYX_LIST(&two, 1), NYX_LIST(&two, 1), NYX_LIST(&zero, 1),
      NYX_I(0),           NYX_I(1),          NYX_NONE};
  const nyx_value adaptive[] = {NYX_LIST(&size, 1), NYX_LIST(&half, 1)};
  const nyx_value channels[] = {NYX_LIST(((int64_t[]){CHANNELS, 1, 1}), 3), NYX_NONE};
  nyx_tensor *parameter = apply(ID(randn), NULL, NULL, NULL, channels), *flat;
  flat = apply(ID(reshape), parameter, NULL, NULL, ATTRS(LIST(CHANNELS)));
  nyx_tensor *y = apply(ID(adaptive_avg_pool2d), x, NULL, NULL, adaptive + 1);
  takes_little("max_pool2d_with_indices", &x, 1, windows);
  takes_little("avg_pool2d", &x, 1, average + 1);
  takes_little("avg_pool2d_backward", &y, 1, average);
  takes_little("adaptive_avg_pool2d", &x, 1, adaptive + 1);
  takes_little("adaptive_avg_pool2d_backward", &y, 1, adaptive);
  takes_little("batch_norm_training", (nyx_tensor *[]){x, flat, flat}, 3, NULL);
  takes_little("batch_norm_backward", (nyx_tensor *[]){x, x, flat, flat, flat}, 5, NULL);
  const nyx_value groups[] = {NYX_I(4), NYX_F(1e-5), NYX_I(1)};
  takes_little("group_norm", (nyx_tensor *[]){x, flat, flat}, 3, groups);
  takes_little("group_norm_backward", (nyx_tensor *[]){x, x, flat}, 3, groups);
  takes_little("add", (nyx_tensor *[]){x, x}, 2, NULL);
  takes_little("mul", (nyx_tensor *[]){parameter, x}, 2, NULL);
  takes_little("relu", &x, 1, NULL);
  takes_little("dropout_mask", &x, 1, NULL);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_tensor_release(parameter);
  nyx_tensor_release(flat);
}

/* The bytes of an op's first output with a number of threads. */
static void *bytes_of(const char *op, nyx_tensor *const *in, int n,
                      const nyx_value *attrs, int threads, size_t *bytes) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
  must(nyx_parallel_set_threads(threads));
  must(nyx_apply(ctx, nyx_op_find(op), in, n, attrs, out));
  *bytes = nyx_tensor_storage_bytes(out[0]);
  void *copy = malloc(*bytes);
  memcpy(copy, nyx_tensor_data(out[0]), *bytes);
  for (int i = 0; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(out[i]);
  return copy;
}

static void same_bytes(const char *op, nyx_tensor *const *in, int n,
                       const nyx_value *attrs) {
  size_t one, three;
  void *a = bytes_of(op, in, n, attrs, 1, &one),
       *b = bytes_of(op, in, n, attrs, 3, &three);
  CHECK_AT(one == three && memcmp(a, b, one) == 0, op, " depends on the threads");
  free(a);
  free(b);
}

static void threads(void) {
  nyx_tensor *x = images(24, 40);
  const int64_t size = 40, k = 3, one = 1;
  const nyx_value shape[] = {NYX_LIST(((int64_t[]){72, 24, 3, 3}), 4), NYX_NONE};
  const nyx_value attrs[] = {NYX_LIST(&size, 1), NYX_LIST(&one, 1), NYX_LIST(&one, 1),
                             NYX_LIST(&one, 1), NYX_I(1)};
  nyx_value weight_attrs[5];
  memcpy(weight_attrs, attrs, sizeof attrs);
  weight_attrs[0] = NYX_LIST(&k, 1);
  nyx_tensor *w = apply(ID(randn), NULL, NULL, NULL, shape);
  nyx_tensor *y = apply(ID(conv2d), x, w, NULL, attrs + 1);
  same_bytes("conv2d", (nyx_tensor *[]){x, w}, 2, attrs + 1);
  same_bytes("conv2d_input", (nyx_tensor *[]){y, w}, 2, attrs);
  same_bytes("conv2d_weight", (nyx_tensor *[]){y, x}, 2, weight_attrs);
  same_bytes("batch_norm_training", &x, 1, NULL);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  nyx_tensor_release(y);
}

static void run(void) {
  must(nyx_parallel_set_threads(2)); /* each has scratch of its own */
  RUN(convolutions);
  RUN(half_types);
  RUN(pooling);
  RUN(moving);
  RUN(batch_norm);
  RUN(copy_nothing_convolutions);
  RUN(copy_nothing_else);
  RUN(copy_nothing_of_slices);
  RUN(threads);
}

int main(int argc, char **argv) {
  (void)argc;
  static const char *const paths[] = {"base",       "avx2", "avx512",
                                      "avx512bf16", "amx",  NULL};
  return on_paths(argv[0], paths, run);
}
