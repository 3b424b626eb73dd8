/* Which way a convolution goes: the fixed rule's, or the one that was measured to be
 * faster here. Read next: core/base/tune.h, conv_cpu.c. */
#include <string.h>

#include "../base/tune.h"
#include "../linalg/blas.h"
#include "conv.h"

#define WORTH 32768.0 /* multiplications; of fewer the choice costs more than it wins */

static const char *const ways[NYX__CONV_WAYS] = {
    [NYX__CONV_DEPTHWISE] = "depthwise", [NYX__CONV_WINOGRAD] = "winograd",
    [NYX__CONV_PRODUCT] = "product",     [NYX__CONV_FOURIER] = "fourier",
    [NYX__CONV_IMAGE] = "image",         [NYX__CONV_TILES] = "tiles"};
static const char *const sizes[] = {"dtype",  "blas",   "images",   "in",     "out",
                                    "groups", "height", "width",    "kernel", "by",
                                    "stride", "by",     "dilation", "by",     "padded"};
#define CHOICE(mode)                                                                     \
  {                                                                                      \
    .name = mode, .ways = ways, .sizes = sizes, .n_ways = NYX__CONV_WAYS,                \
    .n_sizes = sizeof sizes / sizeof *sizes                                              \
  }
static const nyx__choice choices[] = {[NYX__CONV_FORWARD] = CHOICE("conv_forward"),
                                      [NYX__CONV_INPUT] = CHOICE("conv_input"),
                                      [NYX__CONV_WEIGHT] = CHOICE("conv_weight")};

typedef struct trial {
  nyx_context *ctx;
  const nyx__conv_call *call;
} trial;

static nyx_status try_way(void *arg, int way, void *result) {
  const trial *t = arg;
  return nyx__conv_by(t->ctx, t->call, result, (nyx__conv_way)way);
}

static nyx_status compute(nyx_context *ctx, const nyx__conv_call *c, int64_t count,
                          void *result) {
  const nyx__conv *v = c->v;
  const nyx__window *wy = &v->window[0], *wx = &v->window[1];
  uint32_t usable = nyx__conv_usable(v, c->mode);
  int way = (int)nyx__conv_rule(v, c->mode, usable);
  double work = (double)v->images * (double)v->out_channels * (double)wy->out *
                (double)wx->out * (double)(v->in_channels / v->groups) *
                (double)wy->kernel * (double)wx->kernel;
  if (work >= WORTH && nyx__tuned()) {
    nyx__conv bare = *v; /* trials write elsewhere than where results are finished */
    bare.after = NULL;
    const nyx__conv_call plain = {c->mode, &bare, c->left, c->right, c->bias};
    trial t = {ctx, &plain};
    const nyx__tune_key key = {
        .choice = &choices[c->mode],
        .size = {v->dtype, nyx__blas() != NULL, nyx__tune_class(v->images),
                 nyx__tune_class(v->in_channels), nyx__tune_class(v->out_channels),
                 nyx__tune_class(v->groups), nyx__tune_class(wy->in),
                 nyx__tune_class(wx->in), wy->kernel, wx->kernel, wy->stride, wx->stride,
                 wy->dilation, wx->dilation, wy->pad != 0 || wx->pad != 0},
        .usable = usable,
        .rule = way};
    NYX_TRY(nyx__tune(&key, (size_t)count * nyx_dtype_size(v->dtype), try_way, &t, &way));
  }
  return nyx__conv_by(ctx, c, result, (nyx__conv_way)way);
}

nyx_status nyx__conv_forward(nyx_context *ctx, const nyx__conv *v, const void *x,
                             const void *weight, const void *bias, void *y) {
  int64_t count = v->images * v->out_channels * v->window[0].out * v->window[1].out;
  const nyx__conv_call c = {NYX__CONV_FORWARD, v, x, weight, bias};
  return count == 0 ? NYX_OK : compute(ctx, &c, count, y);
}

nyx_status nyx__conv_input(nyx_context *ctx, const nyx__conv *v, const void *y,
                           const void *weight, void *x) {
  int64_t count = v->images * v->in_channels * v->window[0].in * v->window[1].in;
  const nyx__conv_call c = {NYX__CONV_INPUT, v, y, weight, NULL};
  return count == 0 ? NYX_OK : compute(ctx, &c, count, x);
}

nyx_status nyx__conv_weight(nyx_context *ctx, const nyx__conv *v, const void *y,
                            const void *x, void *weight) {
  int64_t count = v->out_channels * (v->in_channels / v->groups) * v->window[0].kernel *
                  v->window[1].kernel;
  const nyx__conv_call c = {NYX__CONV_WEIGHT, v, y, x, NULL};
  if (count == 0) return NYX_OK;
  if (v->images == 0) {
    memset(weight, 0, (size_t)count * nyx_dtype_size(v->dtype));
    return NYX_OK;
  }
  return compute(ctx, &c, count, weight);
}
