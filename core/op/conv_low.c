/* Convolutions of half types as products of half types (core/linalg/low.c), of
 * channels-last images: patches are copied, a block of places at a time, where the images
 * are not patches already. Sums are in float32, as a matrix product's. Read next:
 * conv_last.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "../linalg/gemm.h"
#include "conv_last.h"

#define PLACES 4096 /* of a block, about: what low.c packs at a time */
#define BLOCK_BYTES ((int64_t)16 << 20)
#define LEAST 16    /* channels and terms of a product that gains by it */
#define GRAIN 65536 /* bytes worth waking a thread for */

typedef struct low_run {
  const nyx__last_sum *s;
  int64_t item, taps, terms, rows; /* rows of places in a block */
  int64_t row0;                    /* of the block at hand */
  int64_t group;
  char *patches;
} low_run;

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

bool nyx__conv_low_takes(nyx_dtype dtype, const nyx__conv *v) {
  int64_t in = v->in_channels / v->groups, out = v->out_channels / v->groups;
  const nyx_gemm g = {.dtype = dtype,
                      .product = {.m = v->images * v->window[0].out * v->window[1].out,
                                  .n = out,
                                  .k = in * v->window[0].kernel * v->window[1].kernel}};
  if (dtype != NYX_BFLOAT16 && dtype != NYX_FLOAT16) return false;
  return out >= LEAST && g.product.k >= LEAST && nyx__gemm_low_tiles(dtype) &&
         nyx__gemm_low_takes(&g);
}

/* The patch of place (y, x) of image n. */
static void copy_patch(const low_run *r, int64_t n, int64_t y, int64_t x, char *to) {
  const nyx__last_sum *s = r->s;
  const nyx__window *wy = &s->window[0], *wx = &s->window[1];
  int64_t first = x * wx->stride - wx->pad, run = s->in * r->item;
  bool merged = wx->dilation == 1 && s->x_pixel == s->in;
  for (int64_t i = 0; i < wy->kernel; i++, to += wx->kernel * run) {
    int64_t at = y * wy->stride - wy->pad + i * wy->dilation;
    if (at < 0 || at >= wy->in) {
      memset(to, 0, (size_t)(wx->kernel * run));
      continue;
    }
    const char *line =
        s->x + (n * s->x_image + at * s->x_row + r->group * s->in) * r->item;
    if (merged && first >= 0 && first + wx->kernel <= wx->in) {
      memcpy(to, line + first * run, (size_t)(wx->kernel * run));
      continue;
    }
    for (int64_t j = 0; j < wx->kernel; j++) {
      int64_t here = first + j * wx->dilation;
      if (here >= 0 && here < wx->in)
        memcpy(to + j * run, line + here * s->x_pixel * r->item, (size_t)run);
      else
        memset(to + j * run, 0, (size_t)run);
    }
  }
}

/* Items are places of the block. */
static void copy_patches(void *arg, int64_t begin, int64_t end) {
  const low_run *r = arg;
  const nyx__window *w = r->s->window;
  for (int64_t q = begin; q < end; q++) {
    int64_t row = r->row0 + q / w[1].out, x = q % w[1].out;
    copy_patch(r, row / w[0].out, row % w[0].out, x, r->patches + q * r->terms * r->item);
  }
}

/* The rows of A of a block of places: patches, or the images themselves. */
static const char *find_patches(low_run *r, int64_t row, int64_t rows, int64_t *step) {
  const nyx__last_sum *s = r->s;
  r->row0 = row;
  if (!r->patches) {
    *step = s->x_pixel;
    return s->x + (row * s->window[1].out * s->x_pixel + r->group * s->in) * r->item;
  }
  *step = r->terms;
  int64_t grain = GRAIN / (r->terms * r->item) + 1;
  nyx_parallel_for(rows * s->window[1].out, grain, copy_patches, r);
  return r->patches;
}

static bool is_direct(const nyx__last_sum *s) {
  for (int i = 0; i < 2; i++) {
    const nyx__window *w = &s->window[i];
    if (w->kernel != 1 || w->stride != 1 || w->pad != 0 || w->in != w->out) return false;
  }
  return s->x_row == s->x_pixel * s->window[1].in &&
         s->x_image == s->x_row * s->window[0].in;
}

static nyx_status start(low_run *r, const nyx__last_sum *s) {
  const nyx__window *w = s->window;
  *r = (low_run){.s = s,
                 .item = (int64_t)nyx_dtype_size(s->dtype),
                 .taps = w[0].kernel * w[1].kernel};
  r->terms = s->in * r->taps;
  int64_t most = BLOCK_BYTES / (w[1].out * r->terms * r->item);
  r->rows = least(PLACES / w[1].out + 1, most > 0 ? most : 1);
  r->rows = least(r->rows, s->images * w[0].out);
  if (is_direct(s)) {
    r->rows = s->images * w[0].out;
    return NYX_OK;
  }
  size_t bytes = (size_t)(r->rows * w[1].out * r->terms * r->item);
  r->patches = nyx_memory_alloc(bytes);
  return r->patches ? NYX_OK : nyx__no_memory(s->ctx, bytes);
}

/* B: the weight of a group where it is, or copied to `to`: with the outputs of a term
 * side by side where they lie so, else with the terms of an output. */
static void find_weight(const low_run *r, char *to, nyx_product *p) {
  const nyx__last_sum *s = r->s;
  int64_t across = s->window[1].kernel;
  const char *from = s->weight + r->group * s->w_group * r->item;
  bool there = s->w_in == 1 && s->w_out == r->terms;
  for (int i = 0; i < 2; i++)
    there &= s->window[i].kernel == 1 || s->w_tap[i] == s->in * (i == 0 ? across : 1);
  bool outputs = !there && s->w_out == 1;
  p->b = there ? from : to;
  p->b_rs = outputs ? s->out : 1;
  p->b_cs = outputs ? 1 : r->terms;
  for (int64_t t = 0; t < r->taps && !there; t++) {
    int64_t tap = t / across * s->w_tap[0] + t % across * s->w_tap[1];
    const uint16_t *in = (const uint16_t *)(const void *)from + tap;
    uint16_t *at = (uint16_t *)(void *)to + t * s->in * p->b_rs;
    for (int64_t c = 0; c < s->in && outputs; c++)
      memcpy(at + c * s->out, in + c * s->w_in, (size_t)(s->out * r->item));
    for (int64_t o = 0; o < s->out && !outputs; o++)
      for (int64_t c = 0; c < s->in; c++)
        at[o * r->terms + c] = in[o * s->w_out + c * s->w_in];
  }
}

/* Where results do not lie evenly: from rows of s->out to where they belong. */
static void spread(const low_run *r, int64_t row0, int64_t rows, const char *from) {
  const nyx__last_sum *s = r->s;
  size_t bytes = (size_t)(s->out * r->item);
  for (int64_t row = row0; row < row0 + rows; row++) {
    int64_t n = row / s->window[0].out, y = row % s->window[0].out;
    char *to = s->y + (n * s->y_image + y * s->y_row + r->group * s->out) * r->item;
    for (int64_t x = 0; x < s->window[1].out; x++, from += bytes)
      memcpy(to + x * s->y_pixel * r->item, from, bytes);
  }
}

/* What comes after, for results that begin `at` elements after the first one, in rows of
 * `pitch`; more than a bias, where these lie evenly. */
static nyx_epilogue after_at(const low_run *r, int64_t at, int64_t pitch) {
  const nyx__last_sum *s = r->s;
  nyx_epilogue e = s->after ? *s->after : (nyx_epilogue){.n = 0};
  at *= r->item;
  e.n = pitch;
  if (s->bias) e.bias = s->bias + r->group * s->out * (int64_t)sizeof(float);
  if (e.before) e.before = (const char *)e.before + at;
  if (e.sums) e.sums = (char *)e.sums + at;
  return e;
}

static nyx_status run_group(low_run *r, bool even, char *weight, char *result) {
  const nyx__last_sum *s = r->s;
  int64_t all = s->images * s->window[0].out, width = s->window[1].out;
  nyx_product b = {
      .n = s->out, .k = r->terms, .a_cs = 1, .ldc = even ? s->y_pixel : s->out};
  find_weight(r, weight, &b);
  for (int64_t row = 0; row < all; row += r->rows) {
    int64_t rows = least(r->rows, all - row), step;
    const char *a = find_patches(r, row, rows, &step);
    int64_t at = row * width * s->y_pixel + r->group * s->out;
    const nyx_epilogue after = after_at(r, at, b.ldc);
    nyx_gemm g = {.dtype = s->dtype, .product = b, .after = &after};
    g.product.m = rows * width;
    g.product.a = a;
    g.product.a_rs = step;
    g.product.c = even ? s->y + at * r->item : result;
    NYX_TRY(nyx__gemm_low(s->ctx, &g, s->dtype));
    if (!even) spread(r, row, rows, result);
  }
  return NYX_OK;
}

nyx_status nyx__conv_low(const nyx__last_sum *s) {
  low_run r;
  NYX_TRY(start(&r, s));
  bool even = s->y_row == s->y_pixel * s->window[1].out &&
              s->y_image == s->y_row * s->window[0].out;
  int64_t places = even ? 0 : r.rows * s->window[1].out;
  size_t bytes = (size_t)((s->out * r.terms + places * s->out) * r.item);
  char *block = nyx_memory_alloc(bytes);
  nyx_status status = block ? NYX_OK : nyx__no_memory(s->ctx, bytes);
  for (; status == NYX_OK && r.group < s->groups; r.group++)
    status = run_group(&r, even, block, block + s->out * r.terms * r.item);
  nyx_memory_free(block);
  nyx_memory_free(r.patches);
  return status;
}

/* The adjoint with respect to the weight, in float32: of a block of places it is y turned
 * times the patches. */
nyx_status nyx__conv_low_weight(const nyx__last_sum *s, float *weight) {
  low_run r;
  NYX_TRY(start(&r, s));
  int64_t all = s->images * s->window[0].out, width = s->window[1].out;
  int64_t count = s->out * r.terms;
  size_t bytes = (size_t)count * sizeof(float);
  float *part = nyx_memory_alloc(bytes);
  nyx_status status = part ? NYX_OK : nyx__no_memory(s->ctx, bytes);
  for (; status == NYX_OK && r.group < s->groups; r.group++) {
    float *to = weight + r.group * count;
    for (int64_t row = 0; status == NYX_OK && row < all; row += r.rows) {
      int64_t rows = least(r.rows, all - row), step;
      const char *b = find_patches(&r, row, rows, &step);
      const nyx_gemm g = {
          .dtype = s->dtype,
          .product = {.m = s->out,
                      .n = r.terms,
                      .k = rows * width,
                      .a = s->y + (row * width * s->y_pixel + r.group * s->out) * r.item,
                      .a_rs = 1,
                      .a_cs = s->y_pixel,
                      .b = b,
                      .b_rs = step,
                      .b_cs = 1,
                      .c = row == 0 ? to : part,
                      .ldc = r.terms}};
      status = nyx__gemm_low(s->ctx, &g, NYX_FLOAT32);
      for (int64_t i = 0; row > 0 && status == NYX_OK && i < count; i++) to[i] += part[i];
    }
  }
  nyx_memory_free(part);
  nyx_memory_free(r.patches);
  return status;
}
