/* Depthwise convolutions for float32 and float64: how the scratch is divided. The loops
 * are in depthwise_type.h. Compiled once per instruction-set path. */
#include "depthwise.h"

#include <string.h>

#include "cpu.h"
#include "patches.h"
#include "vector_bytes.h"

#define BLOCK 4            /* rows of a result that are summed together */
#define STRIPE_BYTES 24576 /* padded rows at a time: they stay in the first cache */
#define TAPS 5             /* of a list, whose sums stay in registers */

/* Rows of a result that depthwise_large.h sums together, or one less. */
#if defined(__AVX512F__)
#define LARGE_ROWS 8
#else
#define LARGE_ROWS 6
#endif
#define LARGE_LEAST 7  /* rows of a kernel, and of what goes this way */
#define LARGE_TERMS 64 /* summed before they are added to the others */

/* What is at the beginning of the scratch. Numbers of rows and elements. */
typedef struct plan {
  const nyx_depthwise *d;
  int64_t phases, phase, pitch; /* of the padded rows */
  int64_t stripe;               /* rows of the result (or of y, for weights) at a time */
  int64_t rows;                 /* padded ones, for a stripe */
  int64_t extra;                /* of these, beyond those the stripe itself has */
  int64_t across;               /* the adjoint: padded columns left of the first needed */
  int64_t taps;
  bool large;                     /* as depthwise_large.h does it; no list */
  int64_t *offset;                /* of the taps, in the padded rows */
  int64_t *tap;                   /* the adjoint: which tap of which output it is */
  int64_t *parts;                 /* the adjoint: where the taps of each phase begin */
  char *weight, *padded, *result; /* result: rows of the adjoint before they mix */
  /* Of a kernel that depthwise_square.h computes its side, else 0; its sizes and strips.
   * Then nothing of the above is used but d. */
  int64_t side;
  const void *square;
} plan;

#define PLAN_BYTES 256 /* of the scratch */
_Static_assert(sizeof(plan) <= PLAN_BYTES, "a plan's place");

static int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

static int64_t span(const nyx_depthwise *d, int i) {
  return (d->kernel[i] - 1) * d->dilation[i] + 1;
}

/* The largest number of rows of a stripe, of `all`: whole blocks. */
static int64_t stripe_rows(int64_t all, int64_t step, int64_t extra, int64_t row_bytes,
                           int64_t block) {
  int64_t rows = (STRIPE_BYTES / row_bytes - extra) / step / block * block;
  if (rows < block) rows = block;
  return rows < all ? rows : all;
}

/* Sizes beyond this are left to others; below it products of two stay in range. */
#define LARGEST ((int64_t)1 << 24)

static bool moderate(const nyx_depthwise *d) {
  for (int i = 0; i < 2; i++) {
    const int64_t sizes[] = {d->in[i],  d->kernel[i],   d->stride[i], d->pad[i],
                             d->out[i], d->dilation[i], span(d, i)};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
      if (sizes[k] > LARGEST) return false;
    /* Strides beyond the kernel would make phases that nobody reads. */
    if (d->kernel[i] > 64 || d->stride[i] > 64) return false;
  }
  return true;
}

/* The side of a kernel that depthwise_square.h computes, or 0. */
static int64_t side_of(const nyx_depthwise *d, nyx_depthwise_mode mode) {
  int64_t side = d->kernel[0], stride = d->stride[0];
  bool same = d->kernel[1] == side && d->stride[1] == stride;
  bool dense = d->dilation[0] == 1 && d->dilation[1] == 1;
  if (!same || !dense || stride > 2 || (side != 3 && side != 5)) return 0;
  return mode == NYX_DEPTHWISE_INPUT && d->outputs > 1 ? 0 : side;
}

/* Kernels of many rows, of which neighbours add to the same rows of the result. */
static bool is_large(const nyx_depthwise *d, nyx_depthwise_mode mode, int64_t rows) {
  bool plain = d->stride[0] == 1 && d->stride[1] == 1 && d->dilation[0] == 1 &&
               d->dilation[1] == 1;
  if (mode == NYX_DEPTHWISE_WEIGHT) return false;
  if (mode == NYX_DEPTHWISE_INPUT && d->outputs > 1) return false;
  return plain && d->kernel[0] >= LARGE_LEAST && rows >= LARGE_LEAST;
}

/* Everything but the addresses. */
static plan lay_out(const nyx_depthwise *d, nyx_depthwise_mode mode, int64_t lanes,
                    int64_t item) {
  plan p = {.d = d, .phases = 1};
  int64_t step = d->stride[0], all = d->out[0], beyond;
  p.taps = d->kernel[0] * d->kernel[1];
  if (mode == NYX_DEPTHWISE_INPUT) {
    /* In the padded image u = x + pad, tap t of y's element a adds to u = a * stride + t
     * * dilation: u's phase selects the taps. */
    beyond = (span(d, 1) - 1) / d->stride[1];
    p.extra = (span(d, 0) - 1) / d->stride[0];
    int64_t first = d->pad[1] / d->stride[1];
    int64_t columns = (d->pad[1] + d->in[1] - 1) / d->stride[1] - first + 1;
    all = (d->pad[0] + d->in[0] - 1) / d->stride[0] - d->pad[0] / d->stride[0] + 1;
    p.phase = round_up(columns, lanes) + beyond;
    p.across = beyond - first;
    p.taps *= d->outputs;
    step = 1;
  } else {
    p.phases = d->stride[1] < span(d, 1) ? d->stride[1] : span(d, 1);
    beyond = (span(d, 1) - 1) / d->stride[1];
    p.phase = round_up(d->out[1], lanes) + beyond;
    p.extra = span(d, 0) - step;
  }
  if (p.phase > LARGEST) p.phase = LARGEST;
  p.phase = round_up(p.phase, lanes);
  p.pitch = p.phases * p.phase;
  int64_t planes = mode == NYX_DEPTHWISE_INPUT ? d->outputs : 1;
  p.large = is_large(d, mode, all);
  p.stripe = stripe_rows(all, step, p.extra, p.pitch * item * planes,
                         p.large ? LARGE_ROWS : BLOCK);
  if (p.large) { /* alike, as the last has as many rows */
    int64_t stripes = (all + p.stripe - 1) / p.stripe;
    p.stripe = (all + stripes - 1) / stripes;
    if (p.stripe < LARGE_LEAST) p.stripe = LARGE_LEAST;
  }
  p.rows = p.stripe * step + p.extra;
  return p;
}

/* Gives the plan its parts of the block after it; returns their size. */
static size_t divide(plan *p, nyx_depthwise_mode mode, int64_t lanes, int64_t item,
                     char *block) {
  const nyx_depthwise *d = p->d;
  bool adjoint = mode == NYX_DEPTHWISE_INPUT;
  int64_t phases = adjoint ? d->stride[0] * d->stride[1] : 0;
  const int64_t bytes[] = {
      sizeof *p,
      p->taps * 8,
      adjoint ? p->taps * 8 : 0,
      (phases + 1) * 8,
      p->taps * item,
      (adjoint ? d->outputs : 1) * p->rows * p->pitch * item + lanes * item,
      adjoint ? BLOCK * d->stride[1] * p->pitch * item + lanes * item : 0};
  char *at[7];
  size_t size = 0;
  for (int i = 0; i < 7; i++) {
    at[i] = block ? block + size : NULL;
    size += (size_t)round_up(bytes[i], 64);
  }
  p->offset = (int64_t *)(void *)at[1];
  p->tap = (int64_t *)(void *)at[2];
  p->parts = (int64_t *)(void *)at[3];
  p->weight = at[4];
  p->padded = at[5];
  p->result = at[6];
  return size;
}

static size_t scratch_for(const nyx_depthwise *d, nyx_depthwise_mode mode, int64_t item) {
  if (!moderate(d)) return 0;
  int64_t lanes = VECTOR_BYTES / item;
  plan p = lay_out(d, mode, lanes, item);
  if (p.rows > LARGEST / p.pitch) return 0;
  size_t size = divide(&p, mode, lanes, item, NULL);
  return size <= NYX_DEPTHWISE_SCRATCH ? size : 0;
}

/* Where the taps read, from where output (0, 0) of a stripe begins. Every range of planes
 * does it: a division for each tap took longer than the planes of small images. */
static void find_taps(plan *p) {
  const nyx_depthwise *d = p->d;
  int64_t *to = p->offset;
  for (int64_t i = 0; i < d->kernel[0]; i++) {
    int64_t phase = 0, column = 0, at = i * d->dilation[0] * p->pitch;
    for (int64_t j = 0; j < d->kernel[1]; j++) {
      *to++ = at + phase * p->phase + column;
      phase += d->dilation[1] % d->stride[1], column += d->dilation[1] / d->stride[1];
      if (phase >= d->stride[1]) phase -= d->stride[1], column++;
    }
  }
}

/* The taps of the phase (row, column) of the padded image, of all outputs. */
static int64_t find_phase(plan *p, int64_t row, int64_t column, int64_t n) {
  const nyx_depthwise *d = p->d;
  int64_t kernel = d->kernel[0] * d->kernel[1];
  for (int64_t i = 0; i < p->taps; i++) {
    int64_t o = i / kernel, t = i % kernel;
    int64_t y = t / d->kernel[1] * d->dilation[0] - row;
    int64_t x = t % d->kernel[1] * d->dilation[1] - column;
    if (y % d->stride[0] != 0 || x % d->stride[1] != 0) continue;
    int64_t beyond = (span(d, 1) - 1) / d->stride[1];
    p->offset[n] = (o * p->rows + p->extra - y / d->stride[0]) * p->pitch + beyond -
                   x / d->stride[1];
    p->tap[n++] = i;
  }
  return n;
}

/* Phases in the order in which the elements of x have them. */
static void find_phases(plan *p) {
  const nyx_depthwise *d = p->d;
  int64_t n = 0, part = 0;
  for (int64_t i = 0; i < d->stride[0]; i++) {
    for (int64_t j = 0; j < d->stride[1]; j++) {
      p->parts[part++] = n;
      n = find_phase(p, (d->pad[0] + i) % d->stride[0], (d->pad[1] + j) % d->stride[1],
                     n);
    }
  }
  p->parts[part] = n;
}

/* Of neighbouring rows of the result, by a large kernel: multiplications, 1.65 a cycle,
 * and 28 for each row of the image that a block of them sees. */
static double large_cycles(const nyx_depthwise *d, bool turned, int64_t lanes) {
  const int64_t *in = turned ? d->out : d->in, *out = turned ? d->in : d->out;
  int64_t pad = turned ? d->kernel[0] - 1 - d->pad[0] : d->pad[0], seen = 0;
  for (int64_t i = 0; i < d->kernel[0]; i++) {
    int64_t first = i < pad ? pad - i : 0, last = in[0] + pad - i;
    if (last > out[0]) last = out[0];
    if (last > first) seen += last - first;
  }
  int64_t vectors = (out[1] + lanes - 1) / lanes;
  double blocks = (double)out[0] / LARGE_ROWS * (double)((vectors + 1) / 2);
  double rows = (double)seen / (double)out[0] + LARGE_ROWS - 1;
  return (double)(seen * d->kernel[1] * vectors) / 1.65 + 28 * blocks * rows;
}

/* The others: shares of two vectors of multiplications a cycle, or what each row of y
 * takes for a tap. */
static double cycles_for(const nyx_depthwise *d, nyx_depthwise_mode mode, int64_t item) {
  bool turned = mode == NYX_DEPTHWISE_INPUT;
  double taps = (double)(d->kernel[0] * d->kernel[1] * d->outputs);
  int64_t lanes = VECTOR_BYTES / item;
  if (is_large(d, mode, turned ? d->in[0] : d->out[0]))
    return (double)d->outputs * large_cycles(d, turned, lanes);
  if (mode == NYX_DEPTHWISE_WEIGHT)
    return taps * (double)d->out[0] *
           (1.3 + 1.6 * (double)((d->out[1] + lanes - 1) / lanes));
  return taps * (double)d->out[0] * (double)d->out[1] / (double)(2 * lanes) /
         (turned ? 0.22 : 0.28);
}

static void prepare_for(const nyx_depthwise *d, nyx_depthwise_mode mode, int64_t item,
                        void *scratch) {
  int64_t lanes = VECTOR_BYTES / item;
  plan p = lay_out(d, mode, lanes, item);
  size_t size = divide(&p, mode, lanes, item, scratch);
  if (!p.large && mode == NYX_DEPTHWISE_INPUT) {
    find_phases(&p);
  } else if (!p.large) {
    find_taps(&p);
  }
  memset(p.padded, 0, (size_t)((char *)scratch + size - p.padded)); /* see pad_rows */
  memcpy(scratch, &p, sizeof p);
}

#define TYPED_SOURCE "depthwise_type.h"
#include "both_floats.h"

#define KERNEL(name)                                                                     \
  {                                                                                      \
    scratch_##name, cycles_##name, prepare_##name, {                                     \
      forward_##name, input_##name, weight_##name                                        \
    }                                                                                    \
  }

const nyx_depthwise_kernels NYX_PATH(depthwise) = {.type = {KERNEL(f32), KERNEL(f64)}};
