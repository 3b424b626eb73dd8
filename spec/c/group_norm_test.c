/* group_norm and its gradient kernel against plain loops in double: channels of one place
 * and of many, contiguous and channels-last, with and without parameters, on every path
 * of the CPU; that results do not depend on the number of threads. Read next: layouts.h,
 * norm_test.c. */
#include <nyx/parallel.h>

#include "layouts.h"
#include "paths.h"

typedef struct group_case {
  nyx_dtype dtype;
  int64_t images, channels, h, w, groups;
  bool weighted, last;
  double offset; /* the mean of x */
} group_case;

typedef struct group_result {
  double y[MAX], x[MAX], weight[MAX], bias[MAX];
} group_result;

static nyx_tensor *laid(nyx_tensor *t, bool last) {
  const nyx_value format = NYX_S("channels_last");
  nyx_tensor *out = NULL;
  if (!last) return t;
  must(nyx__apply1(ctx, ID(relayout), t, &format, &out));
  nyx_tensor_release(t);
  return out;
}

/* y = hat * w + b; the gradient g to all of them. */
static void group_norm_of(const group_case *c, const double *x, const double *w,
                          const double *b, const double *g, group_result *out) {
  int64_t size = c->channels / c->groups, places = c->h * c->w, n = size * places;
  memset(out, 0, sizeof *out);
  for (int64_t at = 0, row = 0; row < c->images * c->groups; row++, at += n) {
    int64_t first = row % c->groups * size;
    double mean = 0, squares = 0, sum = 0, dot = 0;
    for (int64_t i = at; i < at + n; i++) mean += x[i] / (double)n;
    for (int64_t i = at; i < at + n; i++) squares += (x[i] - mean) * (x[i] - mean);
    double rstd = 1 / sqrt(squares / (double)n + 1e-3);
    for (int64_t i = 0; i < n; i++) {
      int64_t k = first + i / places;
      double hat = (x[at + i] - mean) * rstd, weight = w ? w[k] : 1;
      out->y[at + i] = hat * weight + (b ? b[k] : 0);
      sum += g[at + i] * weight;
      dot += g[at + i] * weight * hat;
      out->weight[k] += g[at + i] * hat;
      out->bias[k] += g[at + i];
    }
    for (int64_t i = 0; i < n; i++) {
      double hat = (x[at + i] - mean) * rstd, weight = w ? w[first + i / places] : 1;
      out->x[at + i] =
          rstd * (g[at + i] * weight - sum / (double)n - hat * dot / (double)n);
    }
  }
}

/* As a part of the largest, or of 1: sums of terms that are about 1 cancel. */
static void near_all(const group_case *c, const char *what, nyx_tensor *t,
                     const double *want, double room) {
  if (!t) return;
  double *got = read(t), most = 1;
  for (int64_t i = 0; i < t->numel; i++) most = fmax(most, fabs(want[i]));
  for (int64_t i = 0; i < t->numel; i++)
    if (!(fabs(got[i] - want[i]) <= room * most)) {
      CHECK_AT(false, what,
               " of %s, %dx%dx%dx%d in %d groups, weight %d, last %d, offset %g: element "
               "%d is %.9g, expected %.9g",
               nyx_dtype_name(c->dtype), (int)c->images, (int)c->channels, (int)c->h,
               (int)c->w, (int)c->groups, c->weighted, c->last, c->offset, (int)i, got[i],
               want[i]);
      return;
    }
}

static void compare(const group_case *c) {
  static group_result want;
  static double values[MAX], gradient[MAX];
  const int64_t shape[4] = {c->images, c->channels, c->h, c->w};
  int64_t all = c->images * c->channels * c->h * c->w;
  for (int64_t i = 0; i < all; i++) values[i] = c->offset + random_value(c->dtype, false);
  nyx_tensor *x = make(c->dtype, 4, shape, values);
  nyx_tensor *g = random_tensor(c->dtype, 4, shape, false);
  nyx_tensor *w = NULL, *b = NULL;
  if (c->weighted) {
    w = random_tensor(c->dtype, 1, &c->channels, false);
    b = random_tensor(c->dtype, 1, &c->channels, false);
  }
  memcpy(gradient, read(g), (size_t)all * sizeof *gradient);
  group_norm_of(c, read(x), w ? read(w) : NULL, b ? read(b) : NULL, gradient, &want);
  x = laid(x, c->last);
  g = laid(g, c->last);

  nyx_tensor *y = NULL, *in[] = {x, w, b}, *out[NYX_MAX_OUTPUTS] = {NULL};
  const nyx_value attr[] = {NYX_I(c->groups), NYX_F(1e-3), NYX_I(1)};
  CHECK_OK(ctx, nyx__applyn(ctx, ID(group_norm), in, 3, attr, &y));
  nyx_tensor *back[] = {g, x, w};
  CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(group_norm_backward)), back, 3, attr, out));
  double room = 16 * epsilon(c->dtype) * (1 + c->offset);
  near_all(c, "group_norm", y, want.y, room);
  near_all(c, "gradient to x", out[0], want.x, room);
  near_all(c, "gradient to weight", out[1], want.weight, room * sqrt((double)all));
  near_all(c, "gradient to bias", out[2], want.bias, room * sqrt((double)all));
  bool kept = y && out[0] &&
              nyx_tensor_is_channels_last(y) == nyx_tensor_is_channels_last(x) &&
              nyx_tensor_is_channels_last(out[0]) == nyx_tensor_is_channels_last(x);
  CHECK_AT(kept, "group_norm", " keeps the format");
  nyx_tensor *done[] = {x, g, w, b, y, out[0], out[1], out[2]};
  for (int i = 0; i < 8; i++) nyx_tensor_release(done[i]);
}

static void any_shape(void) {
  static const int64_t sizes[][5] = {
      /* images, channels, height, width, groups */
      {1, 1, 1, 2, 1},   {3, 6, 1, 1, 2},  {2, 4, 1, 3, 4},   {5, 12, 2, 2, 3},
      {2, 8, 5, 5, 1},   {2, 6, 4, 8, 2},  {3, 5, 7, 9, 5},   {1, 70, 6, 6, 7},
      {40, 6, 3, 3, 2},  {35, 6, 6, 6, 3}, {2, 64, 16, 3, 8}, {1, 300, 4, 5, 30},
      {1, 3, 60, 40, 3}, {2, 4, 31, 29, 1}};
  for (int options = 0; options < 16; options++)
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
      const int64_t *s = sizes[k];
      compare(&(group_case){options & 1 ? NYX_FLOAT64 : NYX_FLOAT32, s[0], s[1], s[2],
                            s[3], s[4], options & 2, options & 4, options & 8 ? 100 : 0});
    }
}

/* Of many images, and of one that is large; of channels that are short. */
static void any_number_of_threads(void) {
  static const int64_t shapes[][4] = {{70, 32, 10, 10}, {1, 64, 60, 60}, {100, 64, 5, 5}};
  const nyx_value attr[] = {NYX_I(8), NYX_F(1e-5), NYX_I(1)};
  for (int which = 0; which < 6; which++) {
    const nyx_value attrs[] = {NYX_LIST(shapes[which / 2], 4), NYX_NONE};
    nyx_tensor *x, *first[4] = {NULL};
    must(nyx__applyn(ctx, ID(randn), NULL, 0, attrs, &x));
    x = laid(x, which % 2);
    for (int threads = 1; threads <= 3; threads++) {
      nyx_tensor *out[NYX_MAX_OUTPUTS + 1] = {NULL}, *in[] = {x, x};
      must(nyx_parallel_set_threads(threads));
      must(nyx_apply(ctx, nyx__op(ID(group_norm_backward)), in, 2, attr, out));
      must(nyx__applyn(ctx, ID(group_norm), &x, 1, attr, &out[3]));
      for (int i = 0; i < 4; i++) {
        if (!first[i]) {
          first[i] = out[i];
          continue;
        }
        CHECK_AT(memcmp(nyx_tensor_data(out[i]), nyx_tensor_data(first[i]),
                        (size_t)out[i]->numel * sizeof(float)) == 0,
                 "group_norm", ": result %d of shape %d with %d threads", i, which,
                 threads);
        nyx_tensor_release(out[i]);
      }
    }
    for (int i = 0; i < 4; i++) nyx_tensor_release(first[i]);
    nyx_tensor_release(x);
  }
  must(nyx_parallel_set_threads(0));
}

/* No images, and images of no places: the parameters' gradients are 0. */
static void nothing(void) {
  static const int64_t shapes[][4] = {{0, 4, 2, 2}, {2, 4, 0, 3}};
  for (int which = 0; which < 4; which++) {
    const int64_t *shape = shapes[which / 2];
    nyx_tensor *x = laid(make(NYX_FLOAT32, 4, shape, NULL), which % 2), *in[] = {x, x};
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    must(nyx_apply(ctx, nyx__op(ID(group_norm_backward)), in, 2,
                   (const nyx_value[]){NYX_I(2), NYX_F(1e-5), NYX_I(1)}, out));
    CHECK(holds(out[0], 4, shape, NULL));
    CHECK(holds(out[1], SHAPE(4), VALUES(0, 0, 0, 0)));
    CHECK(holds(out[2], SHAPE(4), VALUES(0, 0, 0, 0)));
    nyx_tensor_release(x);
  }
}

/* A group of more elements than are read at once, far from 0. */
static void large_group(void) {
  const int64_t shape[] = {1, 2, 300, 300};
  const nyx_value attrs[] = {NYX_LIST(shape, 4), NYX_NONE};
  nyx_tensor *x, *far, *y, *mean, *std;
  must(nyx__applyn(ctx, ID(randn), NULL, 0, attrs, &x));
  nyx_tensor *offset = make(NYX_FLOAT32, 0, NULL, VALUES(1000));
  for (int last = 0; last < 2; last++) {
    must(nyx__apply2(ctx, ID(add), x, offset, NULL, &far));
    far = laid(far, last);
    must(nyx__applyn(ctx, ID(group_norm), &far, 1,
                     (const nyx_value[]){NYX_I(1), NYX_F(0)}, &y));
    const nyx_value over[] = {NYX_NONE, NYX_F(0), NYX_I(0)};
    must(nyx__apply1(ctx, ID(mean), y, (const nyx_value[]){NYX_NONE, NYX_I(0)}, &mean));
    must(nyx__apply1(ctx, ID(std), y, over, &std));
    CHECK_NEAR(read(mean)[0], 0, 1e-4);
    CHECK_NEAR(read(std)[0], 1, 1e-4);
    nyx_tensor *done[] = {far, y, mean, std};
    for (int i = 0; i < 4; i++) nyx_tensor_release(done[i]);
  }
  nyx_tensor_release(offset);
  nyx_tensor_release(x);
}

static void run(void) {
  RUN(any_shape);
  RUN(any_number_of_threads);
  RUN(nothing);
  RUN(large_group);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
