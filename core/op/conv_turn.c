/* See conv_turn.h. Read next: conv_cpu.c. */
#include "conv_turn.h"

#include <nyx/parallel.h>

#define RANGE_COPIES 65536         /* elements worth waking a thread for */
#define LARGEST ((int64_t)1 << 24) /* sizes; below it products of two are in range */

bool nyx__conv_turns(const nyx__conv *v) {
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &v->window[i];
    if (w->stride != 1 || w->kernel > 64 || w->dilation > LARGEST) return false;
  }
  return true;
}

nyx__conv nyx__conv_turned(const nyx__conv *v) {
  nyx__conv t = *v;
  t.keep = NULL; /* the turned weight is made for one call */
  t.in_channels = v->out_channels;
  t.out_channels = v->in_channels;
  for (int i = 0; i < 2; i++) {
    nyx__window *w = &t.window[i];
    w->in = v->window[i].out;
    w->out = v->window[i].in;
    w->pad = (w->kernel - 1) * w->dilation - v->window[i].pad;
  }
  return t;
}

typedef struct turn_run {
  const nyx__conv *v;
  const char *from;
  char *to;
} turn_run;

/* Items are (group, input channel): its kernels of all output channels in a row, each
 * read from its end. */
#define TURN(name, T)                                                                    \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    const turn_run *r = arg;                                                             \
    const nyx__conv *v = r->v;                                                           \
    int64_t taps = v->window[0].kernel * v->window[1].kernel;                            \
    int64_t ins = v->in_channels / v->groups, outs = v->out_channels / v->groups;        \
    for (int64_t i = begin; i < end; i++) {                                              \
      const T *from = (const T *)(const void *)r->from;                                  \
      T *to = (T *)(void *)r->to + i * outs * taps;                                      \
      from += (i / ins * outs * ins + i % ins) * taps;                                   \
      for (int64_t o = 0; o < outs; o++, to += taps, from += ins * taps)                 \
        for (int64_t t = 0; t < taps; t++) to[t] = from[taps - 1 - t];                   \
    }                                                                                    \
  }
TURN(turn_f32, float)
TURN(turn_f64, double)

nyx_status nyx__conv_turn_weight(nyx_context *ctx, const nyx__conv *v, const void *weight,
                                 void **turned) {
  int64_t each = v->out_channels / v->groups * v->window[0].kernel * v->window[1].kernel;
  size_t bytes = (size_t)(v->in_channels * each) * nyx_dtype_size(v->dtype);
  turn_run r = {.v = v, .from = weight, .to = nyx_memory_alloc(bytes)};
  *turned = r.to;
  if (!r.to) return nyx__no_memory(ctx, bytes);
  nyx_parallel_for(v->in_channels, RANGE_COPIES / (each + 1) + 1,
                   v->dtype == NYX_FLOAT32 ? turn_f32 : turn_f64, &r);
  return NYX_OK;
}
