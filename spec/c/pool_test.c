/* max_pool2d_with_indices, averages and their gradient against plain loops: widths around
 * the vectors', steps, borders, gaps, both dtypes, NaNs, infinities and ties, on every
 * path of the CPU. Read next: kernels/cpu/pool_type.h. */
#include "layouts.h"
#include "paths.h"

typedef struct shape {
  int64_t in[2], kernel, stride, pad, dilation;
} shape;

UNTRACED static int64_t out_of(const shape *s, int i) {
  return (s->in[i] + 2 * s->pad - (s->kernel - 1) * s->dilation - 1) / s->stride + 1;
}

/* The greatest of the window of output (oy, ox), and where: the first, or the first NaN.
 */
UNTRACED static int64_t plain(const shape *s, const double *x, int64_t oy, int64_t ox) {
  int64_t best = -1;
  for (int64_t i = 0; i < s->kernel * s->kernel; i++) {
    int64_t y = oy * s->stride - s->pad + i / s->kernel * s->dilation;
    int64_t at = ox * s->stride - s->pad + i % s->kernel * s->dilation;
    if (y < 0 || at < 0 || y >= s->in[0] || at >= s->in[1]) continue;
    at += y * s->in[1];
    if (best < 0 || x[at] > x[best] || (isnan(x[at]) && !isnan(x[best]))) best = at;
  }
  return best;
}

UNTRACED static bool equal(double a, double b) {
  return a == b || (isnan(a) && isnan(b));
}

/* What inputs hold: numbers and what is none, the least, numbers only; or from 0 on,
 * where the only NaN is. */
enum { MIXED = -3, LOWEST, FINITE };

UNTRACED static double number(int64_t i, int64_t holds) {
  static const double special[] = {NAN, -INFINITY, INFINITY, -INFINITY};
  uint32_t r = (uint32_t)i * 2654435761u >> 16;
  if (holds == LOWEST) return -INFINITY;
  if (holds == i) return NAN;
  if (holds == MIXED && r % 23 == 0) return special[r / 23 % 4];
  return (double)(r % 37) / 4 - 4; /* ties */
}

UNTRACED_CHECK static void compare(nyx_dtype dtype, const shape *s, int64_t holds) {
  enum { PLANES = 3 };
  int64_t plane = s->in[0] * s->in[1], ow = out_of(s, 1), out = out_of(s, 0) * ow;
  double *x = malloc((size_t)(PLANES * plane) * sizeof *x);
  for (int64_t i = 0; i < PLANES * plane; i++) x[i] = number(i, holds);
  nyx_tensor *t = make(dtype, SHAPE(PLANES, s->in[0], s->in[1]), x);
  nyx_tensor *got[NYX_MAX_OUTPUTS] = {NULL};
  const nyx_value attrs[] = {NYX_LIST(&s->kernel, 1),
                             NYX_LIST(&s->stride, 1),
                             NYX_LIST(&s->pad, 1),
                             NYX_LIST(&s->dilation, 1),
                             NYX_I(0),
                             NYX_I(1)};
  REQUIRE(CHECK_OK(
      ctx, nyx_apply(ctx, nyx_op_find("max_pool2d_with_indices"), &t, 1, attrs, got)));
  nyx_tensor *alone[NYX_MAX_OUTPUTS] = {NULL};
  nyx_value same[6];
  memcpy(same, attrs, sizeof same);
  same[5] = NYX_I(0);
  REQUIRE(CHECK_OK(
      ctx, nyx_apply(ctx, nyx_op_find("max_pool2d_with_indices"), &t, 1, same, alone)));
  CHECK(!alone[1]);
  const int64_t *index = nyx_tensor_data(got[1]);
  int64_t wrong = 0;
  for (int64_t i = 0; i < PLANES * out; i++) {
    const double *from = x + i / out * plane;
    int64_t at = plain(s, from, i % out / ow, i % ow);
    double value = dtype == NYX_FLOAT64 ? ((double *)nyx_tensor_data(got[0]))[i]
                                        : ((float *)nyx_tensor_data(got[0]))[i];
    double most = at < 0 ? -INFINITY : from[at];
    wrong += !equal(value, most) || index[i] != (at < 0 ? 0 : at);
    double value_alone = dtype == NYX_FLOAT64 ? ((double *)nyx_tensor_data(alone[0]))[i]
                                              : ((float *)nyx_tensor_data(alone[0]))[i];
    wrong += !equal(value_alone, most);
  }
  CHECK_INT(wrong, 0);
  free(x);
  nyx_tensor_release(t);
  for (int i = 0; i < 2; i++) nyx_tensor_release(got[i]);
  nyx_tensor_release(alone[0]);
}

/* avg_pool2d and its gradient against sums in double. */

UNTRACED static double element(nyx_dtype dtype, const nyx_tensor *t, int64_t i) {
  return dtype == NYX_FLOAT64 ? ((const double *)nyx_tensor_data((nyx_tensor *)t))[i]
                              : ((const float *)nyx_tensor_data((nyx_tensor *)t))[i];
}

UNTRACED_CHECK static void compare_average(nyx_dtype dtype, const shape *s, bool padded) {
  enum { PLANES = 2 };
  int64_t plane = s->in[0] * s->in[1], ow = out_of(s, 1), out = out_of(s, 0) * ow;
  double *x = malloc((size_t)(PLANES * plane) * sizeof *x);
  double *g = malloc((size_t)(PLANES * out) * sizeof *g);
  double *back = calloc((size_t)(PLANES * plane), sizeof *back);
  for (int64_t i = 0; i < PLANES * plane; i++) x[i] = (double)(i * 37 % 101) / 16;
  for (int64_t i = 0; i < PLANES * out; i++) g[i] = (double)(i * 53 % 97) / 16 - 3;
  nyx_tensor *t = make(dtype, SHAPE(PLANES, s->in[0], s->in[1]), x), *got = NULL;
  nyx_tensor *grad = make(dtype, SHAPE(PLANES, out_of(s, 0), ow), g), *spread = NULL;
  const nyx_value attrs[] = {NYX_LIST(s->in, 2),
                             NYX_LIST(&s->kernel, 1),
                             NYX_LIST(&s->stride, 1),
                             NYX_LIST(&s->pad, 1),
                             NYX_I(0),
                             NYX_I(padded),
                             NYX_NONE};
  REQUIRE(
      CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("avg_pool2d"), &t, 1, attrs + 1, &got)));
  REQUIRE(CHECK_OK(
      ctx, nyx_apply(ctx, nyx_op_find("avg_pool2d_backward"), &grad, 1, attrs, &spread)));
  const double tolerance = dtype == NYX_FLOAT64 ? 1e-13 : 1e-5;
  int64_t wrong = 0;
  for (int64_t i = 0; i < PLANES * out; i++) {
    int64_t y0 = i % out / ow * s->stride - s->pad, x0 = i % ow * s->stride - s->pad;
    double sum = 0, count = 0;
    for (int64_t pass = 0; pass < 2; pass++)
      for (int64_t k = 0; k < s->kernel * s->kernel; k++) {
        int64_t y = y0 + k / s->kernel, c = x0 + k % s->kernel;
        bool in = y >= 0 && c >= 0 && y < s->in[0] && c < s->in[1];
        int64_t at = i / out * plane + y * s->in[1] + c;
        if (pass == 0) count += in || padded;
        if (pass == 0 && in) sum += x[at];
        if (pass == 1 && in) back[at] += g[i] / count;
      }
    const double mean = sum / count; /* sums are exact: only this is rounded */
    wrong += element(dtype, got, i) != (dtype == NYX_FLOAT32 ? (float)mean : mean);
  }
  for (int64_t i = 0; i < PLANES * plane; i++)
    wrong += fabs(element(dtype, spread, i) - back[i]) > tolerance * (1 + fabs(back[i]));
  CHECK_INT(wrong, 0);
  free(x);
  free(g);
  free(back);
  nyx_tensor_release(t);
  nyx_tensor_release(got);
  nyx_tensor_release(grad);
  nyx_tensor_release(spread);
}

static void averages(void) {
  static const int64_t width[] = {1, 2, 5, 15, 17, 33, 65, 700, 2047, 2049, 5000};
  for (size_t w = 0; w < sizeof width / sizeof *width; w++) {
    for (int64_t i = 0; i < 5 * 3 * 2; i++) {
      shape s = {.in = {7, width[w]},
                 .kernel = 1 + i % 5,
                 .stride = 1 + i / 5 % 3,
                 .dilation = 1};
      s.pad = i / 15 * (s.kernel / 2);
      if (s.kernel > s.in[1] + 2 * s.pad) continue;
      compare_average(NYX_FLOAT32, &s, i % 2 == 0);
      compare_average(NYX_FLOAT64, &s, i % 2 != 0);
    }
  }
}

static void windows(void) {
  static const int64_t width[] = {1, 2, 5, 15, 16, 17, 31, 33, 64, 65, 700, 1500, 2500};
  for (size_t w = 0; w < sizeof width / sizeof *width; w++) {
    for (int64_t i = 0; i < 5 * 3 * 3 * 2; i++) {
      shape s = {.in = {9, width[w]},
                 .kernel = 1 + i % 5,
                 .stride = 1 + i / 5 % 3,
                 .dilation = 1 + i / 45};
      s.pad = s.kernel / 2 < i / 15 % 3 ? s.kernel / 2 : i / 15 % 3;
      if ((s.kernel - 1) * s.dilation + 1 > s.in[1] + 2 * s.pad) continue;
      compare(NYX_FLOAT32, &s, MIXED);
      compare(NYX_FLOAT32, &s, FINITE);
      compare(NYX_FLOAT64, &s, i % 2 == 0 ? LOWEST : MIXED);
      compare(NYX_FLOAT64, &s, FINITE);
    }
  }
}

/* Of a whole row, which is looked for in sums. */
static void one_nan(void) {
  static const int64_t width[] = {4, 9, 16, 17, 35, 36, 67};
  for (size_t w = 0; w < sizeof width / sizeof *width; w++) {
    for (int64_t i = 0; i < 8; i++) {
      shape s = {.in = {5, width[w]},
                 .kernel = 2 + i % 2,
                 .stride = 2 - i / 4,
                 .pad = i / 2 % 2,
                 .dilation = 1};
      for (int64_t at = 0; at < s.in[0] * s.in[1]; at++)
        compare(at % 2 == 0 ? NYX_FLOAT32 : NYX_FLOAT64, &s, at);
    }
  }
}

static void run(void) {
  RUN(windows);
  RUN(one_nan);
  RUN(averages);
}

int main(int argc, char **argv) {
  (void)argc;
  return on_every_path(argv[0], run);
}
