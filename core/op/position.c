/* Positions and the loops that follow them: see index.h. Units of work are cut so that
 * two never write the same element: the order of equal positions is the order of the
 * index. Read next: rows.c. */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../device/device.h"
#include "index.h"

/* Elements of a lane block, of a parallel range, between two looks whether to stop. */
enum { WIDTH = 512, UNIT = 1 << 14, PIECE = 1 << 17 };

nyx_status nyx__index_check(nyx_context *ctx, const char *name, const nyx_tensor *t) {
  if (nyx_dtype_kind_of(t->dtype) == NYX_KIND_INT) return NYX_OK;
  return nyx__error(ctx, DTYPE_INPUT, name, nyx_dtype_name(t->dtype),
                    "an integer dtype (positions)");
}

typedef struct position_job {
  const int64_t *from;
  int64_t *to;
  nyx__range range;
  int64_t base;
  atomic_bool bad;
} position_job;

static inline bool position(const position_job *j, int64_t user, int64_t *out) {
  int64_t size = j->range.size;
  if (user >= j->base && user - j->base < size) {
    *out = user - j->base;
    return true;
  }
  if (!j->range.wrap || user >= 0 || user < -size) return false;
  *out = user + size;
  return true;
}

static void position_range(void *arg, int64_t begin, int64_t end) {
  position_job *j = arg;
  bool good = true;
  for (int64_t i = begin; i < end; i++) good &= position(j, j->from[i], &j->to[i]);
  if (!good) atomic_store_explicit(&j->bad, true, memory_order_relaxed);
}

nyx_status nyx__positions(nyx_context *ctx, nyx_tensor *index, nyx__range range,
                          int64_t **out) {
  *out = NULL;
  nyx_tensor *t;
  NYX_TRY(nyx__contiguous_as(ctx, index, NYX_INT64, &t));
  size_t bytes = (size_t)t->numel * sizeof(int64_t);
  position_job j = {.from = nyx__data(t),
                    .to = nyx_memory_alloc(bytes),
                    .range = range,
                    .base = ctx->index_base};
  if (!j.to) {
    nyx_tensor_release(t);
    return nyx__no_memory(ctx, bytes);
  }
  nyx_status status = nyx__parallel_for(ctx, t->numel, UNIT, position_range, &j);
  if (status == NYX_OK && atomic_load(&j.bad)) {
    int64_t i = 0, ignored;
    while (position(&j, j.from[i], &ignored)) i++;
    if (range.dim < 0)
      status = nyx__error(ctx, TAKE_RANGE, (long long)j.from[i], (long long)range.size);
    else
      status = nyx__error(ctx, INDEX_RANGE, (long long)j.from[i],
                          range.dim + ctx->index_base, (long long)range.size);
  }
  if (status != NYX_OK) {
    nyx_memory_free(j.to);
    j.to = NULL;
  }
  nyx_tensor_release(t);
  *out = j.to;
  return status;
}

static void check_range(void *arg, int64_t begin, int64_t end) {
  position_job *j = arg;
  const uint64_t base = (uint64_t)j->base, last = (uint64_t)j->range.size - 1;
  uint64_t signs = 0; /* of what is negative: a position, or what is left to the last */
  for (int64_t i = begin; i < end; i++) {
    const uint64_t at = (uint64_t)j->from[i] - base;
    signs |= at | (last - at);
  }
  if (signs >> 63) atomic_store_explicit(&j->bad, true, memory_order_relaxed);
}

/* Whether positions can be read where they are while `written` is. */
static bool plain_index(const nyx_tensor *index, const nyx_tensor *written) {
  return index->dtype == NYX_INT64 && nyx__is_contiguous(index) &&
         !(written && written->storage == index->storage);
}

nyx_status nyx__positions_hold(nyx_context *ctx, nyx_tensor *index, nyx__range range,
                               const nyx_tensor *written, nyx__held_positions *out) {
  *out = (nyx__held_positions){.base = ctx->index_base};
  if (plain_index(index, written)) {
    position_job j = {.from = nyx__data(index), .range = range, .base = out->base};
    NYX_TRY(nyx__parallel_for(ctx, index->numel, UNIT, check_range, &j));
    if (!atomic_load(&j.bad)) {
      out->held = nyx_tensor_retain(index);
      out->at = j.from;
      return NYX_OK;
    } /* else the long way finds the message */
  }
  NYX_TRY(nyx__positions(ctx, index, range, &out->block));
  out->at = out->block;
  out->base = 0;
  return NYX_OK;
}

void nyx__positions_drop(nyx__held_positions *positions) {
  nyx_tensor_release(positions->held);
  nyx_memory_free(positions->block);
}

nyx_status nyx__value_store(nyx_context *ctx, const char *name, double value,
                            nyx_dtype dtype, void *p) {
  double low = 0, high = 0; /* low <= value < high */
  switch (dtype) {
    case NYX_INT8: low = -0x1p7, high = 0x1p7; break;
    case NYX_UINT8: low = 0, high = 0x1p8; break;
    case NYX_INT32: low = -0x1p31, high = 0x1p31; break;
    case NYX_INT64: low = -0x1p63, high = 0x1p63; break;
    default: nyx__store_double(dtype, p, value); return NYX_OK;
  }
  if (!(value >= low && value < high) || value != floor(value))
    return nyx__error(ctx, VALUE_DTYPE, name, value, nyx_dtype_name(dtype));
  nyx__store_int(dtype, p, (int64_t)value);
  return NYX_OK;
}

nyx_status nyx__shape_check(nyx_context *ctx, const char *name, const nyx_tensor *t,
                            int ndim, const int64_t *shape) {
  bool same = t->ndim == ndim;
  for (int d = 0; same && d < ndim; d++) same = t->shape[d] == shape[d];
  if (same) return NYX_OK;
  char text[NYX_SHAPE_TEXT], expected[NYX_SHAPE_TEXT + 2] = "(";
  nyx__shape_text(ndim, shape, expected + 1, sizeof expected - 2);
  size_t end = strlen(expected);
  memcpy(expected + end, ")", 2);
  return nyx__error(ctx, NDIM_EXPECTED, name,
                    nyx__shape_text(t->ndim, t->shape, text, sizeof text), expected);
}

nyx_status nyx__expanded(nyx_context *ctx, nyx_tensor *t, int ndim, const int64_t *shape,
                         nyx_tensor **out) {
  nyx_spec spec;
  nyx__spec(&spec, t->dtype, ndim, shape);
  nyx__broadcast_strides(t, ndim, spec.stride);
  spec.offset = t->offset;
  return nyx__tensor_view(ctx, t->storage, &spec, out);
}

nyx_status nyx__expanded_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype, int ndim,
                            const int64_t *shape, nyx_tensor **out) {
  *out = NULL;
  nyx_tensor *view;
  NYX_TRY(nyx__expanded(ctx, t, ndim, shape, &view));
  nyx_status status = nyx__contiguous_as(ctx, view, dtype, out);
  nyx_tensor_release(view);
  return status;
}

nyx_status nyx__grow_to(nyx_context *ctx, nyx_tensor *t, const nyx_spec *spec,
                        nyx_tensor **out) {
  int64_t pads[2 * NYX_MAX_DIMS] = {0};
  bool same = true;
  for (int d = 0; d < t->ndim; d++) {
    int64_t more = spec->shape[d] - t->shape[d];
    pads[2 * (t->ndim - 1 - d) + 1] = more;
    if (more) same = false;
  }
  if (same) {
    *out = nyx_tensor_retain(t);
    return NYX_OK;
  }
  nyx_value attrs[] = {NYX_LIST(pads, 2 * t->ndim), NYX_S("constant"), NYX_F(0)};
  return nyx__apply1(ctx, NYX__OP_pad, t, attrs, out);
}

nyx_status nyx__update_begin(nyx_context *ctx, nyx_tensor *out, bool sums,
                             nyx_tensor **work) {
  bool half = out->dtype == NYX_FLOAT16 || out->dtype == NYX_BFLOAT16;
  return nyx__contiguous_as(ctx, out, sums && half ? NYX_FLOAT32 : out->dtype, work);
}

nyx_status nyx__update_fill(nyx_context *ctx, nyx_tensor *x, nyx_tensor *out, bool sums,
                            nyx_tensor **work, nyx_tensor **start) {
  *work = *start = NULL;
  if (out == x) return nyx__update_begin(ctx, out, sums, work);
  bool half = out->dtype == NYX_FLOAT16 || out->dtype == NYX_BFLOAT16;
  if (sums && half) return nyx__contiguous_as(ctx, x, NYX_FLOAT32, work);
  if (nyx__is_contiguous(x))
    *start = x;
  else
    NYX_TRY(nyx__copy_into(ctx, x, out));
  *work = nyx_tensor_retain(out);
  return NYX_OK;
}

nyx_status nyx__update_end(nyx_context *ctx, nyx_tensor *work, nyx_tensor *out,
                           nyx_status status) {
  if (status == NYX_OK && work != out) status = nyx__copy_into(ctx, work, out);
  nyx_tensor_release(work);
  return status;
}

nyx_status nyx__apart_as(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                         const nyx_tensor *out, nyx_tensor **result) {
  *result = NULL;
  nyx_tensor *plain;
  NYX_TRY(nyx__contiguous_as(ctx, t, dtype, &plain));
  nyx_status status = NYX_OK;
  if (plain->storage == out->storage) {
    nyx_tensor *shared = plain;
    status = nyx_tensor_empty(ctx, dtype, t->ndim, t->shape, &plain);
    if (status == NYX_OK && (status = nyx__copy_into(ctx, shared, plain)) != NYX_OK) {
      nyx_tensor_release(plain);
      plain = NULL;
    }
    nyx_tensor_release(shared);
  }
  if (status == NYX_OK) *result = plain;
  return status;
}

/* One unit: the positions of outer coordinate o, inner coordinates begin..end-1, and of
 * `count` from k on. */
typedef struct unit {
  const nyx__lanes *l;
  int64_t o, begin, end, k, count;
} unit;

static inline int64_t side_outer(const nyx__side *s, int64_t o) {
  return s->outer ? s->outer[o] : o * s->outer_step;
}

static inline int64_t side_inner(const nyx__side *s, int64_t i) {
  return s->inner ? s->inner[i] : i;
}

/* Runs `one` for each element of a unit with pa and pb pointing to it. Single elements in
 * a row, and inner coordinates without tables, need less to find theirs. */
#define EACH_ELEMENT(T, one)                                                             \
  const nyx__lanes *l = u->l;                                                            \
  const int64_t base = l->base, step = l->a.step, many = l->at_inner;                    \
  const int64_t *at = l->at + u->o * l->at_outer + u->k * l->at_step;                    \
  T *a = (T *)(void *)l->a.data + side_outer(&l->a, u->o);                               \
  T *b = (T *)(void *)l->b.data + side_outer(&l->b, u->o) + u->k * l->b.step;            \
  const bool plain = !l->a.inner && !l->b.inner;                                         \
  if (plain && l->inner == 1) {                                                          \
    const int64_t count = u->count, by = l->at_step, from = l->b.step;                   \
    const bool dense = by == 1 && from == 1 && step == 1;                                \
    _Pragma("GCC unroll 4") for (int64_t k = 0; dense && k < count; k++) {               \
      T *pa = a + (at[k] - base), *pb = b + k;                                           \
      one;                                                                               \
    }                                                                                    \
    for (int64_t k = 0; !dense && k < count; k++) {                                      \
      T *pa = a + (at[k * by] - base) * step, *pb = b + k * from;                        \
      one;                                                                               \
    }                                                                                    \
    return;                                                                              \
  }                                                                                      \
  for (int64_t k = 0; k < u->count; k++, b += l->b.step, at += l->at_step) {             \
    for (int64_t i = u->begin; plain && i < u->end; i++) {                               \
      T *pa = a + (at[i * many] - base) * step + i, *pb = b + i;                         \
      one;                                                                               \
    }                                                                                    \
    for (int64_t i = u->begin; !plain && i < u->end; i++) {                              \
      T *pa = a + (at[i * many] - base) * step + side_inner(&l->a, i);                   \
      T *pb = b + side_inner(&l->b, i);                                                  \
      one;                                                                               \
    }                                                                                    \
  }

#define MOVE(T)                                                                          \
  static void scatter_##T(const unit *u) {                                               \
    EACH_ELEMENT(T, *pa = *pb)                                                           \
  }
MOVE(uint8_t)
MOVE(uint16_t)
MOVE(uint32_t)
MOVE(uint64_t)

/* Gathers where `inside` holds for a position p, and says whether it did for all. Where
 * elements lie side by side they are taken by functions of their own, along the dimension
 * that is indexed or across it, as those keep all they need in registers. */
#define LINE(T, name, inside, from)                                                      \
  static __attribute__((noinline)) bool name##_##T(                                      \
      const T *restrict a, int64_t step, const int64_t *restrict at, int64_t base,       \
      uint64_t size, T *restrict b, int64_t n) {                                         \
    bool all = true;                                                                     \
    (void)size;                                                                          \
    _Pragma("GCC unroll 4") for (int64_t i = 0; i < n; i++) {                            \
      const int64_t p = at[i] - base;                                                    \
      if (__builtin_expect(inside, 1))                                                   \
        b[i] = a[from];                                                                  \
      else                                                                               \
        all = false;                                                                     \
    }                                                                                    \
    return all;                                                                          \
  }
#define GATHER(T, name, inside)                                                          \
  LINE(T, name##_along, inside, p *step)                                                 \
  LINE(T, name##_across, inside, p *step + i)                                            \
  static void name##_##T(const unit *u) {                                                \
    const nyx__lanes *l = u->l;                                                          \
    const int64_t base = l->base, step = l->a.step;                                      \
    const uint64_t size = (uint64_t)l->size;                                             \
    const int64_t *at = l->at + u->o * l->at_outer + u->k * l->at_step;                  \
    const T *a = (const T *)(void *)l->a.data + side_outer(&l->a, u->o);                 \
    T *b = (T *)(void *)l->b.data + side_outer(&l->b, u->o) + u->k * l->b.step;          \
    const bool plain = !l->a.inner && !l->b.inner;                                       \
    const int64_t first = u->begin, width = u->end - first;                              \
    bool all = true;                                                                     \
    (void)size;                                                                          \
    if (plain && l->inner == 1 && l->at_step == 1 && l->b.step == 1)                     \
      all = name##_along_##T(a, step, at, base, size, b, u->count);                      \
    else                                                                                 \
      for (int64_t k = 0; k < u->count; k++, b += l->b.step, at += l->at_step) {         \
        if (plain && l->at_inner == 1) {                                                 \
          all &= name##_across_##T(a + first, step, at + first, base, size, b + first,   \
                                   width);                                               \
          continue;                                                                      \
        }                                                                                \
        for (int64_t i = first; i < u->end; i++) {                                       \
          const int64_t p = at[i * l->at_inner] - base;                                  \
          if (__builtin_expect(inside, 1))                                               \
            b[side_inner(&l->b, i)] = a[p * step + side_inner(&l->a, i)];                \
          else                                                                           \
            all = false;                                                                 \
        }                                                                                \
      }                                                                                  \
    if (!all) atomic_store_explicit(l->outside, true, memory_order_relaxed);             \
  }
#define GATHERS(T)                                                                       \
  GATHER(T, gather, true)                                                                \
  GATHER(T, gather_inside, (uint64_t)p < size)
GATHERS(uint8_t)
GATHERS(uint16_t)
GATHERS(uint32_t)
GATHERS(uint64_t)

/* From the last position on: whoever meets an element first is the last to write it.
 * Without branches, which nobody could foresee. */
#define LAST(T)                                                                          \
  static void last_##T(const unit *u) {                                                  \
    const nyx__lanes l = *u->l; /* marks might change it, for all the compiler knows */  \
    const T *a = (const T *)(void *)l.a.data + side_outer(&l.a, u->o);                   \
    uint8_t *seen = l.seen + side_outer(&l.a, u->o);                                     \
    T *b = (T *)(void *)l.b.data + side_outer(&l.b, u->o);                               \
    const int64_t *at = l.at + u->o * l.at_outer, last = u->k + u->count - 1;            \
    const bool plain = !l.a.inner && !l.b.inner;                                         \
    for (int64_t k = last; plain && l.inner == 1 && k >= u->k; k--) {                    \
      const int64_t p = (at[k * l.at_step] - l.base) * l.a.step;                         \
      b[k * l.b.step] = a[p] & (T)(seen[p] - 1);                                         \
      seen[p] = 1;                                                                       \
    }                                                                                    \
    if (plain && l.inner == 1) return;                                                   \
    for (int64_t k = last; k >= u->k; k--) {                                             \
      for (int64_t i = u->begin; i < u->end; i++) {                                      \
        int64_t p = (at[k * l.at_step + i * l.at_inner] - l.base) * l.a.step;            \
        p += side_inner(&l.a, i);                                                        \
        b[k * l.b.step + side_inner(&l.b, i)] = a[p] & (T)(seen[p] - 1);                 \
        seen[p] = 1;                                                                     \
      }                                                                                  \
    }                                                                                    \
  }
LAST(uint8_t)
LAST(uint16_t)
LAST(uint32_t)
LAST(uint64_t)

/* Whole rows when one position holds for all inner elements. U is the type sums are made
 * in: unsigned for integers, whose sums wrap around. */
#define ADD(name, T, U, sum)                                                             \
  static void add_row_##name(void *to, const void *from, int64_t n, double factor) {     \
    T *pa = to;                                                                          \
    const T *pb = from;                                                                  \
    const U alpha = (U)(T)factor;                                                        \
    for (const T *end = pa + n; pa < end; pa++, pb++) *pa = (T)(sum);                    \
  }                                                                                      \
  static void add_##name(const unit *u) {                                                \
    const U alpha = (U)(T)u->l->alpha;                                                   \
    if (u->l->at_inner == 0 && u->l->inner > 1 && !u->l->a.inner && !u->l->b.inner) {    \
      const nyx__lanes *l = u->l;                                                        \
      T *a = (T *)(void *)l->a.data + side_outer(&l->a, u->o) + u->begin;                \
      const T *b = (const T *)(void *)l->b.data + side_outer(&l->b, u->o) + u->begin +   \
                   u->k * l->b.step;                                                     \
      const int64_t *at = l->at + u->o * l->at_outer;                                    \
      if (u->end - u->begin == 1) { /* one element each */                               \
        const int64_t step = l->a.step, from = l->b.step, by = l->at_step;               \
        const int64_t base = l->base, count = u->count;                                  \
        at += u->k * by;                                                                 \
        for (int64_t k = 0; k < count; k++, at += by, b += from) {                       \
          T *pa = a + (*at - base) * step;                                               \
          const T *pb = b;                                                               \
          *pa = (T)(sum);                                                                \
        }                                                                                \
        return;                                                                          \
      }                                                                                  \
      for (int64_t k = u->k; k < u->k + u->count; k++, b += l->b.step)                   \
        add_row_##name(a + (at[k * l->at_step] - l->base) * l->a.step, b,                \
                       u->end - u->begin, l->alpha);                                     \
      return;                                                                            \
    }                                                                                    \
    EACH_ELEMENT(T, *pa = (T)(sum))                                                      \
  }
#define SUM(U) (U) * pa + (U)(alpha * (U)*pb)
ADD(float32, float, float, SUM(float))
ADD(float64, double, double, SUM(double))
ADD(int8, int8_t, uint32_t, SUM(uint32_t))
ADD(uint8, uint8_t, uint32_t, SUM(uint32_t))
ADD(int32, int32_t, uint32_t, SUM(uint32_t))
ADD(int64, int64_t, uint64_t, SUM(uint64_t))
ADD(bool, uint8_t, uint8_t, *pa | (alpha ? *pb : 0))

nyx__row_fn nyx__add_row(nyx_dtype dtype) {
  switch (dtype) {
    case NYX_FLOAT64: return add_row_float64;
    case NYX_INT8: return add_row_int8;
    case NYX_UINT8: return add_row_uint8;
    case NYX_INT32: return add_row_int32;
    case NYX_INT64: return add_row_int64;
    case NYX_BOOL: return add_row_bool;
    default: return add_row_float32;
  }
}

typedef struct lane_job {
  const nyx__lanes *l;
  int64_t width, blocks;
  int64_t length, parts; /* positions of a unit: where units may write side by side */
  void (*run)(const unit *u);
  bool backwards; /* a unit's last positions come first */
  nyx__stop stop;
} lane_job;

/* Runs a unit piece by piece, and stops between them. */
static void run_unit(lane_job *j, unit *u) {
  int64_t first = u->k, last = u->k + u->count;
  int64_t width = u->end - u->begin, piece = PIECE / width;
  while (j->backwards && last > first && !nyx__stopped(&j->stop)) {
    u->count = last - first < piece ? last - first : piece;
    u->k = last -= u->count;
    j->run(u);
  }
  if (j->backwards) return;
  for (; u->k < last && !nyx__stopped(&j->stop); u->k += u->count) {
    u->count = last - u->k < piece ? last - u->k : piece;
    j->run(u);
  }
}

static void lane_range(void *arg, int64_t begin, int64_t end) {
  lane_job *j = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t part = i % j->parts, block = i / j->parts;
    unit u = {.l = j->l, .o = block / j->blocks, .begin = block % j->blocks * j->width};
    u.k = part * j->length;
    u.count = j->l->count - u.k < j->length ? j->l->count - u.k : j->length;
    u.end = u.begin + j->width < j->l->inner ? u.begin + j->width : j->l->inner;
    run_unit(j, &u);
  }
}

static void (*lane_kernel(const nyx__lanes *l, nyx__lane_mode mode))(const unit *u) {
  if (mode == NYX__ADD) {
    switch (l->dtype) {
      case NYX_FLOAT64: return add_float64;
      case NYX_INT8: return add_int8;
      case NYX_UINT8: return add_uint8;
      case NYX_INT32: return add_int32;
      case NYX_INT64: return add_int64;
      case NYX_BOOL: return add_bool;
      default: return add_float32;
    }
  }
  static void (*const moves[][4])(const unit *u) = {
      [NYX__GATHER] = {gather_uint8_t, gather_uint16_t, gather_uint32_t, gather_uint64_t},
      [NYX__SCATTER] = {scatter_uint8_t, scatter_uint16_t, scatter_uint32_t,
                        scatter_uint64_t},
      [NYX__LAST] = {last_uint8_t, last_uint16_t, last_uint32_t, last_uint64_t}};
  static void (*const inside[])(const unit *u) = {
      gather_inside_uint8_t, gather_inside_uint16_t, gather_inside_uint32_t,
      gather_inside_uint64_t};
  const int size = __builtin_ctzll(nyx_dtype_size(l->dtype));
  return l->outside ? inside[size] : moves[mode][size];
}

typedef struct fill_job {
  char *to;
  const char *from; /* NULL: zeros */
} fill_job;

static void fill_range(void *arg, int64_t begin, int64_t end) {
  const fill_job *j = arg;
  size_t bytes = (size_t)(end - begin);
  if (j->from)
    memcpy(j->to + begin, j->from + begin, bytes);
  else
    memset(j->to + begin, 0, bytes);
}

nyx_status nyx__lanes_run(nyx_context *ctx, const nyx__lanes *lanes,
                          nyx__lane_mode mode) {
  bool none = lanes->outer == 0 || lanes->count == 0 || lanes->inner == 0;
  if (!none && nyx__lanes_grouped(lanes, mode)) return nyx__lanes_rows(ctx, lanes, mode);
  if (lanes->fill) {
    fill_job f = {.to = lanes->a.data, .from = lanes->start};
    int64_t all = lanes->outer * lanes->rows * lanes->inner;
    NYX_TRY(nyx__parallel_for(ctx, all * (int64_t)nyx_dtype_size(lanes->dtype), 8 * UNIT,
                              fill_range, &f));
  }
  if (none) return NYX_OK;
  lane_job j = {.l = lanes,
                .run = lane_kernel(lanes, mode),
                .backwards = mode == NYX__LAST,
                .stop = {.ctx = ctx}};
  j.width = lanes->inner < WIDTH ? lanes->inner : WIDTH;
  j.blocks = (lanes->inner + j.width - 1) / j.width;
  int64_t most = UNIT / j.width; /* only gather never writes an element twice */
  j.length = mode == NYX__GATHER && most < lanes->count ? most : lanes->count;
  j.parts = (lanes->count + j.length - 1) / j.length;
  int64_t work = j.width * j.length;
  int64_t grain = work < UNIT ? UNIT / work : 1;
  nyx__parallel_until(&j.stop, lanes->outer * j.blocks * j.parts, grain, lane_range, &j);
  return nyx__stop_status(&j.stop);
}

/* Whether nobody but the call at hand has t: what it holds does not matter if that fails.
 */
static bool unseen(const nyx_tensor *t) {
  return atomic_load(&t->refs) == 1 && atomic_load(&t->storage->refs) == 1;
}

nyx_status nyx__lanes_gather(nyx_context *ctx, nyx__lanes *l, nyx_tensor *index,
                             nyx__range range, const nyx_tensor *out) {
  if (plain_index(index, out) && unseen(out)) {
    atomic_bool outside = false;
    l->at = nyx__data(index);
    l->base = ctx->index_base;
    l->outside = &outside;
    l->size = range.size;
    NYX_TRY(nyx__lanes_run(ctx, l, NYX__GATHER));
    if (!atomic_load(&outside)) return NYX_OK;
    l->outside = NULL; /* the message, or positions that count from the end */
  }
  nyx__held_positions p;
  NYX_TRY(nyx__positions_hold(ctx, index, range, out, &p));
  l->at = p.at;
  l->base = p.base;
  nyx_status status = nyx__lanes_run(ctx, l, NYX__GATHER);
  nyx__positions_drop(&p);
  return status;
}
