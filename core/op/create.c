/* Constructors: ops without inputs. They make CPU tensors; the bindings move them to
 * another device. Random ones are in random.c. */
#include "create.h"

#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../device/device.h"
#include "index.h"
#include "ops.h"

nyx_status nyx__create_dtype(nyx_call *c, int attr, nyx_dtype preset, uint32_t allowed,
                             const char *expected, nyx_dtype *out) {
  const nyx_value *v = &c->attr[attr];
  *out = preset;
  if (!v->given) return NYX_OK;
  *out = (nyx_dtype)v->i;
  if (allowed & NYX_DTYPES(*out)) return NYX_OK;
  return nyx__error(c->ctx, DTYPE_INPUT, "dtype", nyx_dtype_name(*out), expected);
}

nyx_status nyx__create_shape(nyx_call *c, int attr, nyx_dtype dtype) {
  const nyx_value *v = &c->attr[attr];
  if (v->n > NYX_MAX_DIMS) return nyx__error(c->ctx, NDIM_RANGE, v->n, NYX_MAX_DIMS);
  nyx__spec(&c->spec[0], dtype, v->n, v->list);
  return NYX_OK;
}

/* zeros, ones, full, empty */

static nyx_status shape_infer(nyx_call *c, int dtype_attr) {
  nyx_dtype dtype;
  NYX_TRY(nyx__create_dtype(c, dtype_attr, c->ctx->default_dtype,
                            NYX_DTYPES_ALL | NYX_DTYPES_COMPLEX, "", &dtype));
  return nyx__create_shape(c, 0, dtype);
}

typedef struct sixteen { /* bytes */
  uint64_t half[2];
} sixteen;

typedef struct fill_job {
  void *to;
  sixteen value; /* one element of `item` bytes in its first bytes */
  size_t item;
} fill_job;

#define FILL(T)                                                                          \
  {                                                                                      \
    T value;                                                                             \
    memcpy(&value, &j->value, sizeof value);                                             \
    for (int64_t i = begin; i < end; i++) ((T *)j->to)[i] = value;                       \
  }

static void fill_range(void *arg, int64_t begin, int64_t end) {
  const fill_job *j = arg;
  switch (j->item) {
    case 1: FILL(uint8_t) break;
    case 2: FILL(uint16_t) break;
    case 4: FILL(uint32_t) break;
    case 8: FILL(uint64_t) break;
    default: FILL(sixteen) break;
  }
}

static nyx_status fill(nyx_call *c, double value) {
  nyx_tensor *out = c->out[0];
  fill_job j = {.to = nyx__data(out), .item = nyx_dtype_size(out->dtype)};
  NYX_TRY(nyx__value_store(c->ctx, "fill_value", value, out->dtype, &j.value));
  nyx_parallel_for(out->numel, 1 << 16, fill_range, &j);
  return NYX_OK;
}

static nyx_status plain_infer(nyx_call *c) {
  return shape_infer(c, 1);
}
static nyx_status zeros_cpu(nyx_call *c) {
  return fill(c, 0);
}
static nyx_status ones_cpu(nyx_call *c) {
  return fill(c, 1);
}
static nyx_status full_cpu(nyx_call *c) {
  return fill(c, c->attr[1].f);
}
static nyx_status empty_cpu(nyx_call *c) {
  (void)c; /* the contents are undefined */
  return NYX_OK;
}

static nyx_status full_infer(nyx_call *c) {
  NYX_TRY(shape_infer(c, 2));
  sixteen value;
  return nyx__value_store(c->ctx, "fill_value", c->attr[1].f, c->spec[0].dtype, &value);
}

static const nyx_attr plain_attrs[] = {NYX__ATTR_SHAPE, NYX__ATTR_DTYPE};
static const nyx_attr full_attrs[] = {
    NYX__ATTR_SHAPE,
    {"fill_value", NYX_ATTR_FLOAT, true, {.given = false}, "of every element"},
    NYX__ATTR_DTYPE};

#define CONSTRUCTOR(which, text, attributes, infer_fn, cpu_fn, samples)                  \
  {                                                                                      \
    .name = which, .group = "creation", .doc = text, .kind = NYX_OP_STRUCTURAL,          \
    .dtypes = NYX_DTYPES_ALL, .inputs = "", .attrs = attributes,                         \
    .n_attrs = sizeof attributes / sizeof attributes[0], .n_out = 1, .infer = infer_fn,  \
    .cpu = cpu_fn, .cases = samples,                                                     \
  }

const nyx_op nyx__op_zeros =
    CONSTRUCTOR("zeros", "Zeros of a shape.", plain_attrs, plain_infer, zeros_cpu,
                "; shape={2,3}\n; shape={3} dtype=int64");
const nyx_op nyx__op_ones =
    CONSTRUCTOR("ones", "Ones of a shape.", plain_attrs, plain_infer, ones_cpu,
                "; shape={2,3}\n; shape={3} dtype=bool");
const nyx_op nyx__op_full =
    CONSTRUCTOR("full", "One number in every element.", full_attrs, full_infer, full_cpu,
                "; shape={2,3} fill_value=2.5\n; shape={} fill_value=3 dtype=int8");
const nyx_op nyx__op_empty =
    CONSTRUCTOR("empty", "A shape without contents: its elements are undefined.",
                plain_attrs, plain_infer, empty_cpu, "; shape={0,3}");

/* eye */

static nyx_status eye_infer(nyx_call *c) {
  nyx_dtype dtype;
  NYX_TRY(nyx__create_dtype(c, 2, c->ctx->default_dtype, NYX_DTYPES_ALL, "", &dtype));
  int64_t shape[2] = {c->attr[0].i, c->attr[1].given ? c->attr[1].i : c->attr[0].i};
  nyx__spec(&c->spec[0], dtype, 2, shape);
  return NYX_OK;
}

static nyx_status eye_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0];
  NYX_TRY(fill(c, 0));
  int64_t n = out->shape[0] < out->shape[1] ? out->shape[0] : out->shape[1];
  size_t item = nyx_dtype_size(out->dtype), step = ((size_t)out->shape[1] + 1) * item;
  char *to = nyx__data(out);
  for (int64_t i = 0; i < n; i++) nyx__store_int(out->dtype, to + (size_t)i * step, 1);
  return NYX_OK;
}

static const nyx_attr eye_attrs[] = {
    {"n", NYX_ATTR_INT, true, {.given = false}, "rows"},
    {"m", NYX_ATTR_INT, false, {.given = false}, "columns; n when left out"},
    NYX__ATTR_DTYPE};

const nyx_op nyx__op_eye =
    CONSTRUCTOR("eye", "Ones on the main diagonal, zeros elsewhere.", eye_attrs,
                eye_infer, eye_cpu, "; n=3\n; n=2 m=4 dtype=int32");

/* arange, linspace */

/* start + i * step, in 64 bits where the result holds integers. */
typedef struct steps_job {
  nyx_dtype dtype;
  char *to;
  double start, step, stop;
  int64_t n, first, by; /* integers: element i is first + i * by */
  bool middle;          /* count from the nearer end, so that the last is exactly stop */
} steps_job;

static inline double step_value(const steps_job *j, int64_t i) {
  if (j->middle && i >= j->n - i) return j->stop - (double)(j->n - 1 - i) * j->step;
  return j->start + (double)i * j->step;
}

static void steps_range(void *arg, int64_t begin, int64_t end) {
  const steps_job *j = arg;
  void *to = j->to;
  switch (j->dtype) {
    case NYX_FLOAT32: {
      bool narrow = !j->middle && end <= INT32_MAX; /* which vectors turn into doubles */
      for (int64_t i = begin; narrow && i < end; i++)
        ((float *)to)[i] = (float)(j->start + (double)(int32_t)i * j->step);
      for (int64_t i = begin; !narrow && i < end; i++)
        ((float *)to)[i] = (float)step_value(j, i);
      break;
    }
    case NYX_FLOAT64:
      for (int64_t i = begin; i < end; i++) ((double *)to)[i] = step_value(j, i);
      break;
    case NYX_FLOAT16:
    case NYX_BFLOAT16:
      for (int64_t i = begin; i < end; i++)
        nyx__store_double(j->dtype, j->to + 2 * i, step_value(j, i));
      break;
    default: {
      int64_t item = (int64_t)nyx_dtype_size(j->dtype);
      bool wide = j->dtype == NYX_INT64 && !j->middle;
      for (int64_t i = begin; wide && i < end; i++)
        ((int64_t *)to)[i] = j->first + i * j->by;
      for (int64_t i = begin; !wide && i < end; i++)
        nyx__store_int(j->dtype, j->to + item * i,
                       j->middle ? (int64_t)step_value(j, i) : j->first + i * j->by);
    }
  }
}

/* arange(5) is 0..4, arange(2, 5) is 2..4. */
static void arange_ends(const nyx_call *c, double *start, double *stop) {
  bool both = c->attr[1].given;
  *start = both ? c->attr[0].f : 0;
  *stop = both ? c->attr[1].f : c->attr[0].f;
}

static nyx_status arange_infer(nyx_call *c) {
  double start, stop, step = c->attr[2].f, last;
  int64_t ignored;
  nyx_dtype dtype;
  NYX_TRY(nyx__create_dtype(c, 3, c->ctx->default_dtype, NYX_DTYPES_NUMBER,
                            "a number dtype", &dtype));
  arange_ends(c, &start, &stop);
  if (!isfinite(start) || !isfinite(stop))
    return nyx__error(c->ctx, ATTR_NUMBER, isfinite(start) ? "stop" : "start",
                      isfinite(start) ? stop : start, "a finite number");
  double count = ceil((stop - start) / step);
  if (step == 0 || !isfinite(step) || !(count >= 0))
    return nyx__error(c->ctx, ATTR_NUMBER, "step", step,
                      "a number that leads from start to stop");
  int64_t n = count < 0x1p62 ? (int64_t)count : INT64_MAX;
  nyx__spec(&c->spec[0], dtype, 1, &n);
  if (nyx_dtype_is_float(dtype)) return NYX_OK;
  last = n ? start + (double)(n - 1) * step : start;
  NYX_TRY(nyx__value_store(c->ctx, "start", start, dtype, &ignored));
  NYX_TRY(nyx__value_store(c->ctx, "step", step, NYX_INT64, &ignored));
  return nyx__value_store(c->ctx, "stop", last, dtype, &ignored);
}

static nyx_status arange_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0];
  steps_job j = {
      .dtype = out->dtype, .to = nyx__data(out), .step = c->attr[2].f, .n = out->numel};
  arange_ends(c, &j.start, &j.stop);
  if (!nyx_dtype_is_float(out->dtype)) {
    j.first = (int64_t)j.start;
    j.by = (int64_t)j.step;
  }
  nyx_parallel_for(out->numel, 1 << 14, steps_range, &j);
  return NYX_OK;
}

static const nyx_attr arange_attrs[] = {
    {"start",
     NYX_ATTR_FLOAT,
     true,
     {.given = false},
     "the first number; where stop is left out: stop, and the first number is 0"},
    {"stop", NYX_ATTR_FLOAT, false, {.given = false}, "where to end; not reached"},
    {"step", NYX_ATTR_FLOAT, false, {.f = 1, .given = true}, "between neighbours"},
    NYX__ATTR_DTYPE};

const nyx_op nyx__op_arange =
    CONSTRUCTOR("arange", "Numbers from start to before stop, evenly spaced.",
                arange_attrs, arange_infer, arange_cpu,
                "; start=5\n; start=2 stop=3 step=0.25\n"
                "; start=5 stop=-5 step=-3 dtype=int64");

static nyx_status linspace_infer(nyx_call *c) {
  nyx_dtype dtype;
  uint64_t ignored;
  NYX_TRY(nyx__create_dtype(c, 3, c->ctx->default_dtype, NYX_DTYPES_NUMBER,
                            "a number dtype", &dtype));
  if (c->attr[2].i < 0)
    return nyx__error(c->ctx, ATTR_RANGE, "steps", (long long)c->attr[2].i, "at least 0");
  for (int i = 0; i < 2; i++)
    NYX_TRY(nyx__value_store(c->ctx, c->op->attrs[i].name,
                             nyx_dtype_is_float(dtype) ? 0 : trunc(c->attr[i].f), dtype,
                             &ignored));
  nyx__spec(&c->spec[0], dtype, 1, &c->attr[2].i);
  return NYX_OK;
}

static nyx_status linspace_cpu(nyx_call *c) {
  nyx_tensor *out = c->out[0];
  steps_job j = {.dtype = out->dtype,
                 .to = nyx__data(out),
                 .start = c->attr[0].f,
                 .stop = c->attr[1].f,
                 .n = out->numel,
                 .middle = true};
  if (j.n > 1) j.step = (j.stop - j.start) / (double)(j.n - 1);
  if (j.n == 1) j.stop = j.start;
  nyx_parallel_for(out->numel, 1 << 14, steps_range, &j);
  return NYX_OK;
}

static const nyx_attr linspace_attrs[] = {
    {"start", NYX_ATTR_FLOAT, true, {.given = false}, "the first number"},
    {"stop", NYX_ATTR_FLOAT, true, {.given = false}, "the last number"},
    {"steps", NYX_ATTR_INT, true, {.given = false}, "how many numbers"},
    NYX__ATTR_DTYPE};

const nyx_op nyx__op_linspace =
    CONSTRUCTOR("linspace", "Numbers from start to stop, both included, evenly spaced.",
                linspace_attrs, linspace_infer, linspace_cpu,
                "; start=0 stop=1 steps=5\n; start=3 stop=-3 steps=4 dtype=float64");
