/* Plans elementwise work over tensors of any strides and dtypes: finds the kernel,
 * collapses dimensions, decides how elements are cut into blocks and what needs a buffer.
 * Read next: elementwise_run.c (carries it out), kernels/cpu/elementwise.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/tune.h"
#include "elementwise_plan.h"

#define BLOCK_BYTES 4096  /* six fit the first-level cache */
#define TILE_BYTES 8192   /* two lines of each row or column */
#define STREAM_BLOCK 1024 /* of a result that streams: short bursts of both kinds */
#define TILE_COLS 64      /* and as many rows as fill a buffer */
#define PANEL_ROWS 512    /* done across before going further down: page tables */
#define TURN_ROWS 64      /* of a tile that is a copy, at least */
#define TURN_PANEL 1024
#define ROWS_STREAM (16 << 20)  /* results that are read next gain from here on only */
#define GRAIN_BYTES (128 << 10) /* of the compute type that one thread does at least */
#define TUNED_FROM (16 << 10)   /* below one thread is best, beyond any grain is good */
#define TUNED_TO (4 << 20)

static int compute_index(nyx_dtype dtype) {
  switch (dtype) {
    case NYX_FLOAT32: return NYX_IN_FLOAT32;
    case NYX_FLOAT64: return NYX_IN_FLOAT64;
    case NYX_INT64: return NYX_IN_INT64;
    default: return NYX_IN_INT32;
  }
}

/* Copies within a dtype keep the bits, and need no kernel: whatever the type, elements of
 * a size are moved alike. So are those of a number, which is converted once. */
#define COPY(size)                                                                       \
  static void copy_##size(int64_t n, const void *const *in, void *out,                   \
                          const double *attr) {                                          \
    (void)attr;                                                                          \
    memmove(out, in[0], (size_t)n *(size));                                              \
  }
COPY(1)
COPY(2)
COPY(4)
COPY(8)
static nyx_elementwise_fn copy_of(int64_t item) {
  return item == 8 ? copy_8 : item == 4 ? copy_4 : item == 2 ? copy_2 : copy_1;
}

/* Drops dimensions of size 1, orders the others so that the output's strides fall, and
 * merges neighbours that all operands step through evenly. */
static void collapse(plan *p, const nyx_tensor *out) {
  operand *all[MAX_IN + 1] = {&p->out};
  int count = 1, ndim = 0;
  for (int k = 0; k < p->n_in; k++) all[count++] = &p->in[k];
  for (int d = 0; d < out->ndim; d++) {
    int to = ndim;
    if (out->shape[d] == 1) continue;
    while (to > 0 && p->out.stride[to - 1] < out->stride[d]) to--;
    for (int k = 0; k < count; k++) {
      int64_t stride = all[k]->stride[d];
      memmove(&all[k]->stride[to + 1], &all[k]->stride[to],
              (size_t)(ndim - to) * sizeof stride);
      all[k]->stride[to] = stride;
    }
    memmove(&p->shape[to + 1], &p->shape[to], (size_t)(ndim - to) * sizeof *p->shape);
    p->shape[to] = out->shape[d];
    ndim++;
  }
  int last = 0;
  for (int d = 1; d < ndim; d++) {
    bool even = true;
    for (int k = 0; k < count; k++)
      even = even && all[k]->stride[last] == all[k]->stride[d] * p->shape[d];
    last += !even;
    p->shape[last] = even ? p->shape[last] * p->shape[d] : p->shape[d];
    for (int k = 0; k < count; k++) all[k]->stride[last] = all[k]->stride[d];
  }
  p->ndim = last + 1;
  if (ndim == 0) {
    p->shape[0] = 1;
    for (int k = 0; k < count; k++) all[k]->stride[0] = 0;
  }
}

/* A few elements side by side that are only moved, such as the floats of a complex
 * number, are one of a larger size: squares of those can be turned. */
static void merge_pairs(plan *p) {
  operand *in = &p->in[0], *out = &p->out;
  while (p->copies && p->ndim > 1 && out->ready && in->ready && p->item < 8) {
    const int last = p->ndim - 1;
    const int64_t bytes = 2 * p->item;
    bool even = p->shape[last] * p->item <= 8 && p->shape[last] % 2 == 0 &&
                in->stride[last] == 1 && out->stride[last] == 1 &&
                ((uintptr_t)in->data | (uintptr_t)out->data) % (size_t)bytes == 0;
    for (int d = 0; d < last; d++)
      even = even && in->stride[d] % 2 == 0 && out->stride[d] % 2 == 0;
    if (!even) return;
    for (int d = 0; d < last; d++) in->stride[d] /= 2, out->stride[d] /= 2;
    p->item = p->result_item = in->item = out->item = bytes;
    p->fn = copy_of(bytes);
    p->n /= 2;
    p->shape[last] /= 2;
    if (p->shape[last] == 1) p->ndim--;
  }
}

/* Whether elements lie in order over the collapsed shape. */
static bool in_order(const plan *p, const operand *o) {
  int64_t expect = 1;
  for (int d = p->ndim - 1; d >= 0; expect *= p->shape[d--])
    if (p->shape[d] != 1 && o->stride[d] != expect) return false;
  return true;
}

static bool repeats(const plan *p, const operand *o) {
  if (p->cut == CUT_ROW) return o->stride[p->ndim - 1] == 0;
  for (int d = 0; d < p->ndim - 1; d++)
    if (o->stride[d] != 0) return false;
  return true;
}

/* The dimension along which the memory of o is dense, if rows are long and it is not the
 * last; else -1. */
static int dense_across(const plan *p, const operand *o) {
  int last = p->ndim - 1, best = -1;
  int64_t least = llabs(o->stride[last]);
  for (int d = 0; d < last; d++)
    if (p->shape[d] >= 8 && o->stride[d] != 0 && llabs(o->stride[d]) < least) {
      least = llabs(o->stride[d]);
      best = d;
    }
  return best;
}

static void swap(int64_t *list, int i, int j) {
  int64_t kept = list[i];
  list[i] = list[j];
  list[j] = kept;
}

/* Stores past the caches spare reading what is overwritten: not in place, where it is
 * read anyway. */
static bool streams(const plan *p) {
  bool apart = p->out.linear && p->n * p->out.item >= ROWS_STREAM;
  for (int k = 0; k < p->n_in; k++) apart = apart && p->in[k].data != p->out.data;
  return apart;
}

/* Whether tiles are copies whose squares are turned from place to place, in whole lines.
 */
static bool turns(const plan *p) {
  const int last = p->ndim - 1;
  bool even = (uintptr_t)p->out.data % 64 == 0;
  for (int d = 0; d < last; d++) even = even && p->out.stride[d] * p->out.item % 64 == 0;
  return even && p->copies && p->out.ready && p->in[0].ready &&
         p->out.stride[last] == 1 && p->in[0].stride[last - 1] == 1;
}

/* Tiles of the last two dimensions, down one and across the other of which some operand's
 * memory runs. */
static void lay_out_tiles(plan *p) {
  const int last = p->ndim - 1;
  p->cut = CUT_TILES;
  p->streams =
      p->out.ready && p->out.stride[last] == 1 && p->n * p->out.item >= NYX_STREAM_BYTES;
  p->turns = turns(p);
  if (p->turns) {
    p->tile_cols = NYX_TURN_BYTES / p->item;
    p->tile_rows = p->tile_cols > TURN_ROWS ? p->tile_cols : TURN_ROWS;
    p->block = p->tile_rows * p->tile_cols;
    p->panel = TURN_PANEL;
  } else {
    p->tile_cols = TILE_COLS;
    p->block = (p->streams ? TILE_MOST : TILE_BYTES) / p->item;
    p->tile_rows = p->block / TILE_COLS;
    p->panel = PANEL_ROWS;
  }
  p->tiles_down = (p->shape[last - 1] + p->tile_rows - 1) / p->tile_rows;
  p->tiles_across = (p->shape[last] + p->tile_cols - 1) / p->tile_cols;
}

/* Decides how blocks are cut and which operands need no buffer. */
static void lay_out(plan *p) {
  int last = p->ndim - 1;
  int64_t row = p->shape[last], most = BLOCK_BYTES / p->item;
  p->cut = row <= most / 2 ? CUT_ROWS : CUT_ROW;
  const int64_t plane = last > 0 ? row * p->shape[last - 1] : row;
  const int64_t whole = plane <= most ? plane : row; /* blocks begin where these do */
  p->block = p->cut == CUT_ROWS ? most / whole * whole : most;
  if (row >= 64) {
    int across = dense_across(p, &p->out);
    for (int k = 0; k < p->n_in && across < 0; k++) across = dense_across(p, &p->in[k]);
    if (across >= 0) {
      swap(p->shape, across, last - 1);
      swap(p->out.stride, across, last - 1);
      for (int k = 0; k < p->n_in; k++) swap(p->in[k].stride, across, last - 1);
      lay_out_tiles(p);
      return;
    }
  }
  p->out.linear = p->out.ready && in_order(p, &p->out);
  for (int k = 0; k < p->n_in; k++) {
    operand *o = &p->in[k];
    o->linear = o->ready && in_order(p, o);
    o->repeats = repeats(p, o);
  }
  p->streams = streams(p);
  if (p->streams && !p->past && p->cut == CUT_ROW) p->block = STREAM_BLOCK / p->item;
}

/* The common case: everything contiguous, of one geometry, of the compute type; or one
 * number. */
static bool plan_simple(plan *p, const nyx_elementwise *job) {
  if (!p->out.ready || !nyx__is_contiguous(job->out)) return false;
  for (int k = 0; k < p->n_in; k++) {
    const nyx_tensor *t = job->in[p->slot[k]];
    operand *o = &p->in[k];
    o->linear = o->ready && t->numel == p->n && nyx__is_contiguous(t);
    if (!o->linear && t->numel != 1) return false;
    o->stride[0] = o->linear;
    o->repeats = !o->linear;
  }
  p->out.linear = true;
  p->streams = streams(p);
  p->out.stride[0] = 1;
  p->ndim = 1;
  p->shape[0] = p->n;
  p->block =
      (p->streams && !p->past ? STREAM_BLOCK : BLOCK_BYTES) >> __builtin_ctzll(p->item);
  p->cut = CUT_ROW;
  return true;
}

static void plan_general(plan *p, const nyx_elementwise *job) {
  nyx__broadcast_strides(job->out, job->out->ndim, p->out.stride);
  for (int k = 0; k < p->n_in; k++)
    nyx__broadcast_strides(job->in[p->slot[k]], job->out->ndim, p->in[k].stride);
  collapse(p, job->out);
  merge_pairs(p);
  lay_out(p);
}

static bool keeps_bits(const plan *p, const nyx_elementwise *job) {
  return p->copies && (job->in[0]->dtype == job->out->dtype || job->in[0]->numel == 1);
}

/* Narrow types */

/* Whether v is in the range of a narrow type. */
static bool in_range(nyx_dtype dtype, double v) {
  double least = dtype == NYX_INT8 ? -128 : 0;
  double most = dtype == NYX_INT8 ? 127 : dtype == NYX_UINT8 ? 255 : 1;
  return !(v < least || v > most);
}

/* Whether the element of t, of another integer type, is one of `dtype`. */
static bool number_fits(const nyx_tensor *t, nyx_dtype dtype) {
  return t->numel == 1 && !nyx_dtype_is_float(t->dtype) &&
         in_range(dtype, nyx__load_double(t->dtype, nyx__data(t)));
}

/* Whether in[i] is what a kernel over `dtype` takes, or a number that can be made it. The
 * condition of `where` is only compared with 0. */
static bool operand_fits(const nyx_elementwise *job, int i, nyx_dtype dtype) {
  const nyx_tensor *t = job->in[i];
  if (!t || t->dtype == dtype) return true;
  if (i == 0 && job->row->id == NYX_KERNEL_where && t->dtype == NYX_BOOL) return true;
  return number_fits(t, dtype);
}

/* The narrow dtype of a tensor that decides: one with more elements than a number has. */
static nyx_dtype narrow_dtype(const nyx_elementwise *job) {
  if (!job->row->result_bool) return job->out->dtype;
  for (int i = 0; i < job->row->arity; i++)
    if (job->in[i] && job->in[i]->numel != 1) return job->in[i]->dtype;
  return job->in[0] ? job->in[0]->dtype : NYX_INT32;
}

/* Finds the kernel that computes in the narrow dtype all operands have, where its result
 * is what int32 gives: nothing is beyond the type's range. */
static bool plan_narrow(plan *p, const nyx_elementwise *job) {
  if (job->compute != NYX_INT32 || job->part != 0) return false;
  nyx_dtype dtype = narrow_dtype(job);
  int own = dtype == NYX_INT8    ? NYX_OWN_INT8
            : dtype == NYX_UINT8 ? NYX_OWN_UINT8
            : dtype == NYX_BOOL  ? NYX_OWN_BOOL
                                 : NYX_OWN_COUNT;
  if (own == NYX_OWN_COUNT) return false;
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  p->fn = kernels->own[own][job->row->id];
  if (!p->fn && own == NYX_OWN_UINT8) p->fn = kernels->own[NYX_OWN_INT8][job->row->id];
  if (!p->fn || job->out->dtype != (job->row->result_bool ? NYX_BOOL : dtype))
    return false;
  for (int i = 0; i < job->row->arity; i++)
    if (!operand_fits(job, i, dtype)) return false;
  if (job->row->id == NYX_KERNEL_clamp && /* cut, these do not limit anything either */
      ((job->attr[0] != -INFINITY && !in_range(dtype, job->attr[0])) ||
       (job->attr[1] != INFINITY && !in_range(dtype, job->attr[1]))))
    return false;
  p->compute = dtype;
  p->item = p->result_item = p->out.item = 1;
  p->out.ready = true;
  return true;
}

/* Whether the text is `where`, by bytes, and only moves elements of one type: whatever
 * that is, nothing is widened. */
static bool plan_choice(plan *p, const nyx_elementwise *job) {
  if (job->row->id != NYX_KERNEL_where || job->part != 0) return false;
  const nyx_tensor *mask = job->in[0];
  if (nyx__item(mask->dtype) != 1) return false;
  for (int i = 1; i < 3; i++)
    if (job->in[i]->dtype != job->out->dtype && job->in[i]->numel != 1) return false;
  p->chooses = true;
  p->compute = job->out->dtype;
  p->item = p->result_item = p->out.item;
  p->out.ready = true;
  p->fn = p->move->choose[__builtin_ctzll(p->item)];
  return true;
}

/* What is computed, and in which type. */
static void plan_kernel(plan *p, const nyx_elementwise *job) {
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  int compute = compute_index(job->compute);
  nyx_dtype result = job->row->result_bool && job->part == 0 ? NYX_BOOL : job->compute;
  p->compute = job->compute;
  p->copies = job->row->id == NYX_KERNEL_clone && job->part == 0;
  p->out.item = nyx__item(job->out->dtype);
  if (keeps_bits(p, job)) {
    p->item = p->result_item = p->out.item;
    p->out.ready = true;
    p->fn = copy_of(p->item);
    return;
  }
  if (plan_narrow(p, job) || plan_choice(p, job)) return;
  p->fn = kernels->rows[compute][job->row->id][job->part];
  if (compute == NYX_IN_FLOAT32 && job->part == 0) p->past = kernels->past[job->row->id];
  p->result_item = nyx__item(result);
  p->item = nyx__item(job->compute);
  p->out.ready = job->out->dtype == result;
  p->widen = result == job->compute ? NULL : kernels->gather[result][compute];
  p->scatter = kernels->scatter[compute][job->out->dtype];
}

/* An operand that the kernel takes as it is, once a number has been made its type. */
static void plan_ready(plan *p, const nyx_elementwise *job, operand *o,
                       const nyx_tensor *t) {
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  const int compute = compute_index(job->compute);
  nyx_dtype dtype = p->copies ? job->out->dtype : p->compute;
  o->ready = true;
  o->gather = NULL;
  if (t->dtype == dtype || t->numel != 1) return;
  int64_t wide;
  char *number = p->number[o - p->in];
  kernels->gather[t->dtype][compute](1, o->data, 1, &wide);
  kernels->scatter[compute][dtype](1, &wide, number, 1);
  o->data = number;
  o->item = p->item;
}

static void plan_operands(plan *p, const nyx_elementwise *job) {
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  p->out.data = nyx__data(job->out);
  p->n_in = 0;
  for (int i = 0; i < MAX_IN; i++) {
    const nyx_tensor *t = job->in[i];
    if (!t) continue;
    operand *o = &p->in[p->n_in];
    o->data = nyx__data(t);
    o->item = nyx__item(t->dtype);
    p->slot[p->n_in++] = i;
    if (p->chooses && i == 0) {
      o->ready = true;
      o->gather = NULL;
      continue;
    }
    if (keeps_bits(p, job) || p->chooses || p->compute != job->compute) {
      plan_ready(p, job, o, t);
      continue;
    }
    o->ready = t->dtype == job->compute;
    o->gather = kernels->gather[t->dtype][compute_index(job->compute)];
  }
}

/* What a thread does at least may be measured, for the sizes where it matters: every
 * grain gives the same bits. */
static const int64_t grains[] = {GRAIN_BYTES, 16 << 10, 32 << 10, 512 << 10,
                                 (int64_t)1 << 40};
static const char *const grain_names[] = {"grain_128k", "grain_16k", "grain_32k",
                                          "grain_512k", "one_thread"};
static const char *const grain_sizes[] = {"dtype", "row", "part", "elements", "numbers"};
static const nyx__choice grain_choice = {.name = "elementwise",
                                         .ways = grain_names,
                                         .sizes = grain_sizes,
                                         .n_ways = sizeof grains / sizeof *grains,
                                         .n_sizes = sizeof grain_sizes / sizeof(char *)};

static nyx_status try_grain(void *arg, int way, void *result) {
  plan p = *(const plan *)arg;
  p.out.data = result;
  nyx__run_plan(&p, grains[way], NULL);
  return NYX_OK;
}

static nyx_status measured_grain(plan *p, const nyx_elementwise *job, int *way) {
  int numbers = 0;
  for (int k = 0; k < p->n_in; k++) numbers += !p->in[k].linear;
  const nyx__tune_key key = {.choice = &grain_choice,
                             .size = {p->compute, p->copies ? 0 : job->row->id + 1,
                                      job->part, nyx__tune_class(p->n), numbers},
                             .usable = (1u << grain_choice.n_ways) - 1};
  return nyx__tune(&key, (size_t)(p->n * p->out.item), try_grain, p, way);
}

/* Whether a tensor came here that should have been seen as pairs of floats before. */
static bool has_complex(const nyx_elementwise *job) {
  bool any = nyx__complex_dtype(job->out->dtype);
  for (int k = 0; k < 5; k++)
    if (job->in[k]) any |= nyx__complex_dtype(job->in[k]->dtype);
  return any;
}

/* Whether bytes are copied to floats that kernels compute in: they become those at once,
 * where int32 between would be a pass of its own, and the same. */
static bool widens_bytes(const nyx_elementwise *job) {
  const nyx_dtype to = job->out->dtype;
  return job->row->id == NYX_KERNEL_clone && job->part == 0 &&
         (to == NYX_FLOAT32 || to == NYX_FLOAT64) && nyx__item(job->in[0]->dtype) == 1;
}

nyx_status nyx__cpu_elementwise(nyx_context *ctx, nyx_device *dev,
                                const nyx_elementwise *job) {
  (void)dev;
  NYX_TRY(nyx__cpu_path_check(ctx));
  nyx_elementwise direct;
  if (widens_bytes(job)) {
    direct = *job;
    direct.compute = job->out->dtype;
    job = &direct;
  }
  plan p;
  p.n = job->out->numel;
  p.attr = job->attr;
  p.move = nyx__cpu_kernels()->move;
  p.streams = false;
  p.past = NULL;
  p.chooses = false;
  plan_kernel(&p, job);
  if (!p.fn || has_complex(job))
    return nyx__error(ctx, DTYPE_OP, nyx_dtype_name(job->compute), "float32, float64");
  if (p.n == 0) return NYX_OK;
  plan_operands(&p, job);
  bool simple = plan_simple(&p, job);
  if (!simple) plan_general(&p, job);
  int way = 0;
  int64_t bytes = p.n * p.item;
  if (simple && bytes >= TUNED_FROM && bytes <= TUNED_TO && nyx__tuned())
    NYX_TRY(measured_grain(&p, job, &way));
  nyx__stop stop = {.ctx = ctx};
  nyx__run_plan(&p, grains[way], job->stops ? &stop : NULL);
  return nyx__stop_status(&stop);
}
