/* A convolution and its gradients by definition, in double: what conv_test, winograd_test
 * and fourier_test compare with. */
#ifndef NYX_SPEC_CONV_LOOPS_H
#define NYX_SPEC_CONV_LOOPS_H

#include "check.h"
#include "core/op/conv.h"

/* The result y, the image x, the weight: each is a sum of products of the two others. */
enum { LOOPS_Y, LOOPS_X, LOOPS_W, LOOPS };

/* Where the sums go, and where not NULL the sums of absolute products and the same sums
 * in float32, term after term. They begin with what is there. */
typedef struct loops_sums {
  double *sum, *size;
  float *narrow;
} loops_sums;

/* Adds `n` products: term i reads and writes at[k] + i * step[k]. */
UNTRACED static void loops_row(int64_t n, double *const value[LOOPS], int to,
                               const int64_t at[LOOPS], const int64_t step[LOOPS],
                               const loops_sums *s) {
  int a = to == LOOPS_Y ? LOOPS_X : LOOPS_Y, b = to == LOOPS_W ? LOOPS_X : LOOPS_W;
  const double *left = value[a] + at[a], *right = value[b] + at[b];
  for (int64_t i = 0; i < n; i++) {
    double product = left[i * step[a]] * right[i * step[b]];
    int64_t place = at[to] + i * step[to];
    s->sum[place] += product;
    if (s->size) s->size[place] += fabs(product);
    if (s->narrow) s->narrow[place] += (float)product;
  }
}

/* Adds to `s` what value[to] is by the two others of `value`, without a bias. */
UNTRACED static void conv_by_loops(const nyx__conv *v, double *const value[LOOPS], int to,
                                   const loops_sums *s) {
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  int64_t ins = v->in_channels / v->groups, outs = v->out_channels / v->groups;
  int64_t taps = wy->kernel * wx->kernel;
  const int64_t step[] = {1, wx->stride, 0};
  for (int64_t no = 0; no < v->images * v->out_channels; no++) {
    int64_t n = no / v->out_channels, o = no % v->out_channels;
    for (int64_t t = 0; t < ins * taps; t++) {
      int64_t plane = n * v->in_channels + o / outs * ins + t / taps;
      int64_t from = t % wx->kernel * wx->dilation - wx->pad, first = 0, end = wx->out;
      while (first < end && from + first * wx->stride < 0) first++;
      while (first < end && from + (end - 1) * wx->stride >= wx->in) end--;
      for (int64_t y = 0; y < wy->out; y++) {
        int64_t row =
            y * wy->stride + t / wx->kernel % wy->kernel * wy->dilation - wy->pad;
        if (row < 0 || row >= wy->in) continue;
        int64_t x = (plane * wy->in + row) * wx->in + from + first * wx->stride;
        const int64_t at[] = {(no * wy->out + y) * wx->out + first, x,
                              o * ins * taps + t};
        loops_row(end - first, value, to, at, step, s);
      }
    }
  }
}

#endif
