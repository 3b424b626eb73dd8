/* Random tensors: constructors (rand, randn, randint, randperm), fills in the shape of a
 * tensor (uniform, normal, bernoulli: x:normal_() in Lua), and multinomial. Element i
 * depends on the seed, the place in the context's stream and i alone: see
 * core/base/random.h, which also says which bits make which element. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "../device/device.h"
#include "create.h"
#include "index.h"
#include "ops.h"
#include "order.h"
#include "random_fill.h"

/* Elements of a parallel range, made at a time, between two looks whether to stop. */
enum { GRAIN = 1 << 12, CHUNK = 256, LOOK = 1 << 16 };

/* A number below `size`; the bias is below size / 2^64. */
static inline uint64_t below(uint64_t bits, uint64_t size) {
  __extension__ typedef unsigned __int128 wide;
  return (uint64_t)((wide)bits * size >> 64);
}

/* Fills of floats: uniform or normal, scaled. */
typedef struct random_job {
  uint64_t seed, first;
  nyx_dtype dtype;
  char *to;
  bool normal;
  double scale, shift;
} random_job;

/* Uniforms of the half types come from fewer bits, as those of float32 would round to 1.
 */
static void half_chunk(const random_job *j, int64_t begin, int64_t end) {
  float value[CHUNK];
  uint32_t bits[CHUNK];
  if (j->normal)
    nyx__fill_normal_float(j->seed, j->first, begin, end, value);
  else
    nyx__fill_bits(j->seed, j->first, begin, end, bits);
  uint16_t *to = (uint16_t *)(void *)j->to;
  for (int64_t i = begin; i < end; i++) {
    bool bf = j->dtype == NYX_BFLOAT16;
    float v = j->normal ? value[i - begin]
              : bf      ? (float)(bits[i - begin] >> 24) * 0x1p-8f
                        : (float)(bits[i - begin] >> 21) * 0x1p-11f;
    v = v * (float)j->scale + (float)j->shift;
    to[i] = bf ? nyx__float_to_bfloat(v) : nyx__float_to_half(v);
  }
}

static void random_range(void *arg, int64_t begin, int64_t end) {
  const random_job *j = arg;
  bool plain = j->scale == 1 && j->shift == 0;
  if (j->dtype == NYX_FLOAT32) {
    float *to = (float *)(void *)j->to + begin, scale = (float)j->scale;
    (j->normal ? nyx__fill_normal_float : nyx__fill_uniform_float)(j->seed, j->first,
                                                                   begin, end, to);
    for (int64_t i = 0; !plain && i < end - begin; i++)
      to[i] = to[i] * scale + (float)j->shift;
  } else if (j->dtype == NYX_FLOAT64) {
    double *to = (double *)(void *)j->to + begin;
    (j->normal ? nyx__fill_normal_double : nyx__fill_uniform_double)(j->seed, j->first,
                                                                     begin, end, to);
    for (int64_t i = 0; !plain && i < end - begin; i++)
      to[i] = to[i] * j->scale + j->shift;
  } else {
    for (int64_t i = begin; i < end; i += CHUNK)
      half_chunk(j, i, end - i < CHUNK ? end : i + CHUNK);
  }
}

/* Of complex numbers both parts: twice as many floats. */
static nyx_status random_fill(nyx_call *c, bool normal, double scale, double shift) {
  nyx_tensor *out = c->out[0];
  nyx_dtype dtype = nyx_dtype_real(out->dtype);
  int64_t n = out->numel * (dtype == out->dtype ? 1 : 2);
  random_job j = {.seed = c->ctx->seed,
                  .dtype = dtype,
                  .to = nyx__data(out),
                  .normal = normal,
                  .scale = scale,
                  .shift = shift};
  int lanes = dtype == NYX_FLOAT64 ? NYX_RANDOM_LANES64 : NYX_RANDOM_LANES32;
  j.first = nyx__random_take(c->ctx, nyx__random_blocks(n, lanes));
  return nyx__parallel_for(c->ctx, n, GRAIN, random_range, &j);
}

/* rand, randn */

static nyx_status rand_infer(nyx_call *c) {
  nyx_dtype dtype;
  NYX_TRY(nyx__create_dtype(c, 1, c->ctx->default_dtype,
                            NYX_DTYPES_FLOAT | NYX_DTYPES_COMPLEX,
                            "a float or complex dtype", &dtype));
  return nyx__create_shape(c, 0, dtype);
}

static nyx_status rand_cpu(nyx_call *c) {
  return random_fill(c, false, 1, 0);
}
/* The squared size of a complex number has mean 1, as the square of a real one has. */
static nyx_status randn_cpu(nyx_call *c) {
  bool complex = nyx__complex_dtype(c->out[0]->dtype);
  return random_fill(c, true, complex ? M_SQRT1_2 : 1, 0);
}

static const nyx_attr rand_attrs[] = {NYX__ATTR_SHAPE, NYX__ATTR_DTYPE};

const nyx_op nyx__op_rand = {
    .name = "rand",
    .group = "random",
    .random = true,
    .doc = "Random numbers, uniform from 0 to below 1; both parts of complex ones.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "",
    .attrs = rand_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = rand_infer,
    .cpu = rand_cpu,
    .cases = "; shape={2,3}\n; shape={5} dtype=float16",
};

const nyx_op nyx__op_randn = {
    .name = "randn",
    .group = "random",
    .random = true,
    .doc =
        "Random numbers, normal with mean 0 and variance 1 (Box and Muller, 1958); of "
        "complex ones each part has variance 1/2.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "",
    .attrs = rand_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .overwrites = true,
    .infer = rand_infer,
    .cpu = randn_cpu,
    .cases = "; shape={2,3}\n; shape={5} dtype=float64\n; shape={3} dtype=complex64",
};

/* randint */

static nyx_status randint_infer(nyx_call *c) {
  nyx_dtype dtype;
  uint64_t ignored;
  int64_t low = c->attr[0].i, high = c->attr[1].i;
  NYX_TRY(
      nyx__create_dtype(c, 3, NYX_INT64, NYX_DTYPES_NUMBER, "a number dtype", &dtype));
  if (high <= low)
    return nyx__error(c->ctx, ATTR_RANGE, "high", (long long)high,
                      "a number greater than low");
  if (!nyx_dtype_is_float(dtype) && dtype != NYX_INT64) {
    NYX_TRY(nyx__value_store(c->ctx, "low", (double)low, dtype, &ignored));
    NYX_TRY(nyx__value_store(c->ctx, "high", (double)(high - 1), dtype, &ignored));
  }
  return nyx__create_shape(c, 2, dtype);
}

typedef struct integer_job {
  uint64_t seed, first, size;
  int64_t low;
  nyx_dtype dtype;
  char *to;
} integer_job;

static void integer_range(void *arg, int64_t begin, int64_t end) {
  const integer_job *j = arg;
  int64_t item = (int64_t)nyx_dtype_size(j->dtype);
  uint64_t bits[CHUNK];
  for (int64_t at = begin; at < end; at += CHUNK) {
    int64_t n = end - at < CHUNK ? end - at : CHUNK;
    nyx__fill_bits64(j->seed, j->first, at, at + n, bits);
    for (int64_t i = 0; i < n; i++) {
      int64_t value = (int64_t)((uint64_t)j->low + below(bits[i], j->size));
      if (j->dtype == NYX_INT64)
        ((int64_t *)(void *)j->to)[at + i] = value;
      else
        nyx__store_int(j->dtype, j->to + (at + i) * item, value);
    }
  }
}

static nyx_status randint_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0];
  integer_job j = {.seed = c->ctx->seed,
                   .low = c->attr[0].i,
                   .dtype = out->dtype,
                   .size = (uint64_t)c->attr[1].i - (uint64_t)c->attr[0].i,
                   .to = nyx__data(out)};
  j.first = nyx__random_take(c->ctx, nyx__random_blocks(out->numel, NYX_RANDOM_LANES64));
  return nyx__parallel_for(c->ctx, out->numel, GRAIN, integer_range, &j);
}

static const nyx_attr randint_attrs[] = {
    {"low", NYX_ATTR_INT, true, {.given = false}, "the smallest number"},
    {"high", NYX_ATTR_INT, true, {.given = false}, "the first number not reached"},
    NYX__ATTR_SHAPE,
    {"dtype", NYX_ATTR_DTYPE, false, {.given = false}, "the element type; int64"}};

const nyx_op nyx__op_randint = {
    .name = "randint",
    .group = "random",
    .random = true,
    .doc = "Random integers from low to below high, each equally likely.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "",
    .attrs = randint_attrs,
    .n_attrs = 4,
    .n_out = 1,
    .overwrites = true,
    .infer = randint_infer,
    .cpu = randint_cpu,
    .cases = "; low=-2 high=5 shape={2,3}\n; low=0 high=256 shape={4} dtype=uint8",
};

/* randperm */

static nyx_status randperm_infer(nyx_call *c) {
  nyx_dtype dtype;
  int64_t n = c->attr[0].i;
  uint64_t ignored;
  NYX_TRY(nyx__create_dtype(c, 1, NYX_INT64, NYX_DTYPES_INT, "an integer dtype", &dtype));
  if (n < 0) return nyx__error(c->ctx, ATTR_RANGE, "n", (long long)n, "at least 0");
  NYX_TRY(nyx__value_store(c->ctx, "n", (double)n, dtype, &ignored));
  nyx__spec(&c->spec[0], dtype, 1, &n);
  return NYX_OK;
}

/* Fisher and Yates, in Durstenfeld's order. */
#define SHUFFLE(T)                                                                       \
  static bool shuffle_##T(nyx_context *ctx, uint64_t first, int64_t n, T *list) {        \
    uint64_t bits[CHUNK];                                                                \
    for (int64_t i = 0; i < n; i++) list[i] = (T)(i + ctx->index_base);                  \
    for (int64_t end = n; end > 1; end -= end % CHUNK ? end % CHUNK : CHUNK) {           \
      int64_t begin = (end - 1) / CHUNK * CHUNK;                                         \
      if (begin % LOOK == 0 && nyx__interrupted(ctx)) return false;                      \
      nyx__fill_bits64(ctx->seed, first, begin, end, bits);                              \
      for (int64_t i = end - 1; i >= begin && i > 0; i--) {                              \
        int64_t k = (int64_t)below(bits[i - begin], (uint64_t)i + 1);                    \
        T swap = list[i];                                                                \
        list[i] = list[k];                                                               \
        list[k] = swap;                                                                  \
      }                                                                                  \
    }                                                                                    \
    return true;                                                                         \
  }
SHUFFLE(int32_t) /* a list of half the size stays in nearer caches */
SHUFFLE(int64_t)

static nyx_status randperm_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0];
  int64_t n = out->numel;
  bool narrow = n < INT32_MAX;
  size_t bytes = (size_t)n * (narrow ? sizeof(int32_t) : sizeof(int64_t));
  void *list = nyx_memory_alloc(bytes);
  if (!list) return nyx__no_memory(c->ctx, bytes);
  uint64_t first = nyx__random_take(c->ctx, nyx__random_blocks(n, NYX_RANDOM_LANES64));
  const int32_t *list32 = list;
  const int64_t *list64 = list;
  bool done = narrow ? shuffle_int32_t(c->ctx, first, n, list)
                     : shuffle_int64_t(c->ctx, first, n, list);
  char *to = nyx__data(out);
  size_t item = nyx_dtype_size(out->dtype);
  for (int64_t i = 0; i < n && done; i++)
    nyx__store_int(out->dtype, to + (size_t)i * item, narrow ? list32[i] : list64[i]);
  nyx_memory_free(list);
  return done ? NYX_OK : nyx__error(c->ctx, INTERRUPTED);
}

static const nyx_attr randperm_attrs[] = {
    {"n", NYX_ATTR_INT, true, {.given = false}, "how many positions"},
    {"dtype", NYX_ATTR_DTYPE, false, {.given = false}, "the element type; int64"}};

const nyx_op nyx__op_randperm = {
    .name = "randperm",
    .group = "random",
    .random = true,
    .doc = "The positions of n elements in random order.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "",
    .attrs = randperm_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .infer = randperm_infer,
    .cpu = randperm_cpu,
    .cases = "; n=7\n; n=5 dtype=int32",
};

/* uniform, normal: new contents in the shape of x */

static nyx_status like_infer(nyx_call *c) {
  nyx__spec(&c->spec[0], c->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

/* The old contents do not matter. */
static nyx_status no_gradient(nyx_backward *b) {
  (void)b;
  return NYX_OK;
}

static nyx_status uniform_cpu(nyx_call *c) {
  return random_fill(c, false, c->attr[1].f - c->attr[0].f, c->attr[0].f);
}

static nyx_status normal_cpu(nyx_call *c) {
  return random_fill(c, true, c->attr[1].f, c->attr[0].f);
}

static nyx_status normal_infer(nyx_call *c) {
  if (!(c->attr[1].f >= 0))
    return nyx__error(c->ctx, ATTR_NUMBER, "std", c->attr[1].f, "at least 0");
  return like_infer(c);
}

/* The greatest finite number. */
static double greatest(nyx_dtype dtype) {
  switch (dtype) {
    case NYX_FLOAT16: return 65504;
    case NYX_BFLOAT16: return 0x1.fep127;
    case NYX_FLOAT32: return FLT_MAX;
    default: return DBL_MAX;
  }
}

static nyx_status uniform_infer(nyx_call *c) {
  if (!(c->attr[1].f >= c->attr[0].f))
    return nyx__error(c->ctx, ATTR_NUMBER, "to", c->attr[1].f, "at least 'from'");
  for (int i = 0; i < 2; i++)
    if (!(fabs(c->attr[i].f) <= greatest(c->dtype)))
      return nyx__error(c->ctx, ATTR_NUMBER, c->op->attrs[i].name, c->attr[i].f,
                        "a number that the dtype holds");
  double range = c->attr[1].f - c->attr[0].f; /* half types compute in float32 */
  if (!(range <= greatest(nyx__compute_dtype(c->dtype))))
    return nyx__error(c->ctx, ATTR_NUMBER, "to - from", range,
                      "a number that the dtype holds");
  return like_infer(c);
}

static const nyx_attr uniform_attrs[] = {
    {"from", NYX_ATTR_FLOAT, false, {.f = 0, .given = true}, "the lower end"},
    {"to", NYX_ATTR_FLOAT, false, {.f = 1, .given = true}, "the upper end"}};

const nyx_op nyx__op_uniform = {
    .name = "uniform",
    .group = "random",
    .random = true,
    .doc =
        "Random numbers in the shape of x, uniform between two ends; x:uniform_() fills "
        "x.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = uniform_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .infer = uniform_infer,
    .cpu = uniform_cpu,
    .gradient = no_gradient,
    .cases = "x(2,3)\nx(4); from=-1 to=3",
    .domain = {-4, 4},
};

static const nyx_attr normal_attrs[] = {
    {"mean", NYX_ATTR_FLOAT, false, {.f = 0, .given = true}, "the mean"},
    {"std", NYX_ATTR_FLOAT, false, {.f = 1, .given = true}, "the standard deviation"}};

const nyx_op nyx__op_normal = {
    .name = "normal",
    .group = "random",
    .random = true,
    .doc = "Random numbers in the shape of x, normally distributed; x:normal_() fills x.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = normal_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .infer = normal_infer,
    .cpu = normal_cpu,
    .gradient = no_gradient,
    .cases = "x(2,3)\nx(4); mean=2 std=0.5",
    .domain = {-4, 4},
};

/* bernoulli */

typedef struct coin_job {
  uint64_t seed, first;
  const float *p; /* NULL: the same for all */
  uint64_t heads; /* numbers below this are ones then */
  float *to;
} coin_job;

static void coin_range(void *arg, int64_t begin, int64_t end) {
  const coin_job *j = arg;
  uint32_t bits[CHUNK];
  for (int64_t at = begin; at < end; at += CHUNK) {
    int64_t n = end - at < CHUNK ? end - at : CHUNK;
    nyx__fill_bits(j->seed, j->first, at, at + n, bits);
    float *to = j->to + at;
    for (int64_t i = 0; j->p && i < n; i++)
      to[i] = (double)bits[i] < (double)j->p[at + i] * 0x1p32 ? 1.0f : 0.0f;
    const uint32_t most = (uint32_t)(j->heads - 1);
    for (int64_t i = 0; !j->p && i < n; i++) to[i] = bits[i] <= most ? 1.0f : 0.0f;
    if (!j->p && !j->heads) memset(to, 0, (size_t)n * sizeof *to);
  }
}

static nyx_status bernoulli_infer(nyx_call *c) {
  double p = c->attr[0].f;
  if (c->attr[0].given && !(p >= 0 && p <= 1))
    return nyx__error(c->ctx, ATTR_NUMBER, "p", p, "a probability, from 0 to 1");
  if (!c->attr[0].given && !nyx_dtype_is_float(c->dtype))
    return nyx__error(c->ctx, DTYPE_INPUT, "x", nyx_dtype_name(c->dtype),
                      "a float dtype (probabilities), or p given");
  return like_infer(c);
}

static nyx_status bernoulli_cpu(nyx_call *c) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *out = c->out[0], *p = NULL, *coins = NULL;
  nyx_status status = NYX_OK;
  if (out->dtype == NYX_FLOAT32 && nyx__is_contiguous(out) && c->attr[0].given)
    coins = nyx_tensor_retain(out);
  else
    status = nyx_tensor_empty(ctx, NYX_FLOAT32, out->ndim, out->shape, &coins);
  if (status == NYX_OK && !c->attr[0].given)
    status = nyx__contiguous_as(ctx, c->in[0], NYX_FLOAT32, &p);
  coin_job j = {.seed = ctx->seed, .heads = (uint64_t)ceil(c->attr[0].f * 0x1p32)};
  if (status == NYX_OK && p) {
    j.p = nyx__data(p);
    for (int64_t i = 0; i < p->numel && status == NYX_OK; i++)
      if (!(j.p[i] >= 0 && j.p[i] <= 1))
        status = nyx__error(ctx, PROBABILITY, "x", (double)j.p[i],
                            "probabilities, from 0 to 1");
  }
  if (status == NYX_OK) {
    j.to = nyx__data(coins);
    j.first = nyx__random_take(ctx, nyx__random_blocks(out->numel, NYX_RANDOM_LANES32));
    status = nyx__parallel_for(ctx, out->numel, GRAIN, coin_range, &j);
    if (status == NYX_OK && coins != out) status = nyx__copy_into(ctx, coins, out);
  }
  nyx_tensor_release(p);
  nyx_tensor_release(coins);
  return status;
}

static const nyx_attr bernoulli_attrs[] = {
    {"p",
     NYX_ATTR_FLOAT,
     false,
     {.given = false},
     "the probability of 1; where it is left out x holds one for each element"}};

const nyx_op nyx__op_bernoulli = {
    .name = "bernoulli",
    .group = "random",
    .random = true,
    .doc = "Zeros and ones in the shape of x, ones with probability p or x.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = bernoulli_attrs,
    .n_attrs = 1,
    .n_out = 1,
    .infer = bernoulli_infer,
    .cpu = bernoulli_cpu,
    .gradient = no_gradient,
    .cases = "x(4); p=0.5",
    .domain = {0, 1},
};

/* multinomial */

static nyx_status multinomial_infer(nyx_call *c) {
  nyx_tensor *x = c->in[0];
  int64_t k = c->attr[0].i;
  if (x->ndim < 1 || x->ndim > 2)
    return nyx__error(c->ctx, NDIM_EXPECTED, "x", NYX__SHAPE(x), "1 or 2 dimensions");
  if (k < 1)
    return nyx__error(c->ctx, ATTR_RANGE, "num_samples", (long long)k, "at least 1");
  nyx__spec(&c->spec[0], NYX_INT64, x->ndim, x->shape);
  c->spec[0].shape[x->ndim - 1] = k;
  return NYX_OK;
}

typedef struct weights {
  const double *w;
  int64_t n, positive;
  double total;
} weights;

static nyx_status check_weights(nyx_call *c, weights *r) {
  r->total = 0;
  r->positive = 0;
  for (int64_t i = 0; i < r->n; i++) {
    if (i % LOOK == 0 && nyx__interrupted(c->ctx)) return nyx__error(c->ctx, INTERRUPTED);
    if (!(r->w[i] >= 0) || isinf(r->w[i]))
      return nyx__error(c->ctx, PROBABILITY, "x", r->w[i],
                        "finite weights of at least 0");
    r->total += r->w[i];
    r->positive += r->w[i] > 0;
  }
  int64_t need = c->attr[1].i ? 1 : c->attr[0].i;
  if (r->positive < need || isinf(r->total))
    return nyx__error(c->ctx, DRAW_COUNT, (long long)r->positive, (long long)need);
  return NYX_OK;
}

/* The draws of one row. */
typedef struct draw_job {
  const weights *r;
  uint64_t seed, first;
  int64_t number; /* of the row's first random number */
  double *list;   /* one for each weight: running sums, or times */
  int64_t *to, base;
} draw_job;

static void some_bits(const draw_job *j, int64_t begin, int64_t end, uint64_t *bits) {
  if (end - begin > CHUNK) end = begin + CHUNK;
  nyx__fill_bits64(j->seed, j->first, j->number + begin, j->number + end, bits);
}

/* Where the running sum of weights passes a random part of the total. */
static void again_range(void *arg, int64_t begin, int64_t end) {
  const draw_job *j = arg;
  const weights *r = j->r;
  const double sum = j->list[r->n - 1];
  uint64_t bits[CHUNK];
  for (int64_t i = begin; i < end; i++) {
    if ((i - begin) % CHUNK == 0) some_bits(j, i, end, bits);
    double u = (double)(bits[(i - begin) % CHUNK] >> 11) * 0x1p-53 * sum;
    int64_t low = 0, high = r->n - 1;
    while (low < high) {
      int64_t middle = low + (high - low) / 2;
      if (j->list[middle] > u)
        high = middle;
      else
        low = middle + 1;
    }
    while (r->w[low] == 0) low--; /* u rounded up to the total */
    j->to[i] = low + j->base;
  }
}

static nyx_status draw_again(nyx_context *ctx, draw_job *j, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < j->r->n; i++) {
    if (i % LOOK == 0 && nyx__interrupted(ctx)) return nyx__error(ctx, INTERRUPTED);
    j->list[i] = sum += j->r->w[i];
  }
  return nyx__parallel_for(ctx, k, GRAIN, again_range, j);
}

static void time_range(void *arg, int64_t begin, int64_t end) {
  const draw_job *j = arg;
  const double *w = j->r->w;
  uint64_t bits[CHUNK];
  for (int64_t i = begin; i < end; i++) {
    if ((i - begin) % CHUNK == 0) some_bits(j, i, end, bits);
    double time = -log((double)((bits[(i - begin) % CHUNK] >> 11) + 1) * 0x1p-53) / w[i];
    /* Overflow of a small weight still comes before what never does. */
    j->list[i] = w[i] > 0 ? fmin(time, DBL_MAX) : INFINITY;
  }
}

/* Exponential times with the weights as rates: the first k to come (Efraimidis and
 * Spirakis, 2006). */
static nyx_status draw_once(nyx_context *ctx, draw_job *j, int64_t k, void *scratch) {
  nyx__stop stop = {.ctx = ctx};
  nyx__parallel_until(&stop, j->r->n, GRAIN, time_range, j);
  NYX_TRY(nyx__stop_status(&stop));
  const nyx__order o =
      nyx__order_top(&stop, NYX_FLOAT64, j->list, 1, j->r->n, k, false, scratch);
  NYX_TRY(nyx__stop_status(&stop));
  for (int64_t i = 0; i < k; i++) j->to[i] = nyx__order_at(&o, i) + j->base;
  return NYX_OK;
}

static nyx_status multinomial_cpu(nyx_call *c) {
  nyx_context *ctx = c->ctx;
  nyx_tensor *x, *out = c->out[0];
  NYX_TRY(nyx__contiguous_as(ctx, c->in[0], NYX_FLOAT64, &x));
  weights r = {.n = x->shape[x->ndim - 1]};
  int64_t rows = x->ndim == 2 ? x->shape[0] : 1, k = c->attr[0].i;
  bool again = c->attr[1].i;
  size_t bytes = (size_t)r.n * sizeof(double) +
                 (again ? 0 : nyx__order_scratch(NYX_FLOAT64, r.n, k));
  double *list = nyx_memory_alloc(bytes);
  nyx_status status = list ? NYX_OK : nyx__no_memory(ctx, bytes);
  for (int64_t row = 0; row < rows && status == NYX_OK; row++) {
    r.w = (const double *)nyx__data(x) + row * r.n;
    status = check_weights(c, &r);
  }
  if (status == NYX_OK) {
    int64_t per_row = again ? k : r.n;
    draw_job j = {.r = &r, .seed = ctx->seed, .list = list, .base = ctx->index_base};
    j.first =
        nyx__random_take(ctx, nyx__random_blocks(rows * per_row, NYX_RANDOM_LANES64));
    for (int64_t row = 0; row < rows && status == NYX_OK; row++) {
      j.number = row * per_row;
      j.to = (int64_t *)nyx__data(out) + row * k;
      r.w = (const double *)nyx__data(x) + row * r.n;
      status = again ? draw_again(ctx, &j, k) : draw_once(ctx, &j, k, list + r.n);
    }
  }
  nyx_memory_free(list);
  nyx_tensor_release(x);
  return status;
}

static const nyx_attr multinomial_attrs[] = {
    {"num_samples", NYX_ATTR_INT, true, {.given = false}, "how many from each row"},
    {"replacement",
     NYX_ATTR_BOOL,
     false,
     {.i = false, .given = true},
     "the same position may come again"}};

const nyx_op nyx__op_multinomial = {
    .name = "multinomial",
    .group = "random",
    .random = true,
    .doc = "Random positions from each row of weights x, which need not sum to 1; int64.",
    .kind = NYX_OP_STRUCTURAL,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x",
    .min_in = 1,
    .max_in = 1,
    .attrs = multinomial_attrs,
    .n_attrs = 2,
    .n_out = 1,
    .infer = multinomial_infer,
    .cpu = multinomial_cpu,
    .cases = "x(4); num_samples=2\nx(2,4); num_samples=6 replacement=true",
    .domain = {0.5, 1},
};
