/* Reductions on the CPU. Whatever the strides, the input is seen in one of two ways: as
 * rows (elements that are reduced together, one kernel call per chunk of them) or as
 * columns (a kept dimension's elements side by side, combined row after row). Where the
 * elements are not contiguous, or of another dtype, a chunk is gathered first. Chunks
 * depend on sizes only and are merged pairwise, so results do not depend on the number of
 * threads, and a sum of n floats is within (70 + log2(n)) u sum|x| of the exact one, u
 * half the distance from 1 to the next float; paths with wider vectors do better.
 * Read next: kernels/cpu/reduce.h, core/op/reduce.c (who asks). */
#include <nyx/parallel.h>
#include <stdlib.h>
#include <string.h>

#include "../../base/parallel.h"
#include "../../base/tune.h"
#include "../../op/reduce.h"
#include "../sides.h"
#include "cpu.h"
#include "kernels/cpu/reduce.h"

#define CHUNK 4096        /* elements reduced by one kernel call */
#define FEW 128           /* narrow elements that are not halved further */
#define COLUMN_ROWS 64    /* rows combined one after the other before merging pairwise */
#define COLUMN_WIDTH 1024 /* columns in one task */
#define WIDE 4096         /* the same of many long rows, read from end to end */
#define MANY_PARTS 8
#define MIN_COLUMNS 8       /* fewer are not worth a kernel call per row */
#define SHORT_ROW 16        /* shorter ones are not worth a kernel call each */
#define MIN_RUN 128         /* the same where a row is in several runs: they are copied */
#define FOLD_WIDTH 256      /* narrow contiguous columns are folded to at least this */
#define MIN_FOLD 16         /* or to what there are rows for, if that is a vector */
#define TASK_ELEMENTS 32768 /* elements below which a task is not worth a thread */
#define TUNED_FROM 16384    /* elements; of fewer a choice costs more than it wins */

typedef struct plan {
  const nyx_reduction *job;
  const nyx_reduce_kernel *kernel;
  const struct nyx_cpu_kernels *path;
  nyx_gather_fn gather;
  nyx_elementwise_fn extreme; /* the lesser or greater of narrow elements, or NULL */
  bool convert;               /* the elements are not of the compute type */
  size_t item_in, item;       /* bytes of an element of the input, of the compute type */
  int in;                     /* NYX_IN_* */
  bool least;                 /* positions: of the least value */
  const char *x;
  side kept, reduced;
  int64_t chunks;      /* per kept element */
  char *acc;           /* accumulators: rows [kept][chunks], columns [chunks][kept] */
  int64_t *index;      /* positions, likewise, or NULL */
  int64_t fold, count; /* of columns, see fold_columns; elements that are reduced */
  int64_t width;       /* of a task's columns */
  int64_t task;        /* elements that are worth a thread */
  bool ready;          /* columns: rows need no buffer */
  char *out;           /* where results go, or NULL */
  int64_t *positions;  /* likewise */
} plan;

static int compute_index(nyx_dtype compute) {
  switch (compute) {
    case NYX_FLOAT64: return NYX_IN_FLOAT64;
    case NYX_INT32: return NYX_IN_INT32;
    case NYX_INT64: return NYX_IN_INT64;
    default: return NYX_IN_FLOAT32;
  }
}

/* n elements of the compute type from `first` on, `stride` apart: where they are, or in
 * `buffer`. */
static const void *elements(const plan *p, int64_t first, int64_t n, int64_t stride,
                            void *buffer) {
  const char *at = p->x + (size_t)first * p->item_in;
  if (stride == 1 && !p->convert) return at;
  p->gather(n, at, stride, buffer);
  return buffer;
}

static char *acc_at(const plan *p, int64_t i) {
  return p->acc + (size_t)i * p->item;
}

/* Merges parts 0..n-1, `width` accumulators of each, into the first, pairwise. The next
 * part is `apart` accumulators further. */
static void merge_parts(const plan *p, char *parts, int64_t n, int64_t apart,
                        int64_t width) {
  size_t bytes = (size_t)apart * p->item;
  for (int64_t step = 1; step < n; step *= 2)
    for (int64_t i = 0; i + step < n; i += 2 * step)
      p->kernel->merge(width, parts + (size_t)(i + step) * bytes,
                       parts + (size_t)i * bytes, p->job->attr[0]);
}

static int64_t task_grain(const plan *p, int64_t elements_per_task) {
  int64_t grain = p->task / (elements_per_task > 0 ? elements_per_task : 1);
  return grain < 1 ? 1 : grain;
}

/* Rows: runs of equally spaced elements, in chunks. */

static int64_t chunks_per_run(const plan *p) {
  int64_t run = inner_size(&p->reduced);
  return run > CHUNK ? (run + CHUNK - 1) / CHUNK : 1;
}

/* The least and the greatest of narrow elements are found in their own type: halves are
 * compared until few enough are left to convert. Returns how many those in `to` are. */
static int64_t halve(const plan *p, const char *x, int64_t n, char *to) {
  const double none[2] = {0, 0};
  while (n > FEW) {
    int64_t half = (n + 1) / 2;
    const void *in[5] = {x, x + n - half, x, x, x};
    p->extreme(half, in, to, none);
    x = to;
    n = half;
  }
  return n;
}

static void row_tasks(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  _Alignas(64) char buffer[CHUNK * 8], halves[CHUNK / 2];
  int64_t run = inner_size(&p->reduced), stride = inner_stride(&p->reduced);
  int64_t per_run = chunks_per_run(p);
  for (int64_t task = begin; task < end; task++) {
    int64_t chunk = task % p->chunks, at = place(&p->kept, task / p->chunks);
    int64_t in_run = chunk % per_run * CHUNK, first = chunk / per_run * run + in_run;
    int64_t n = run - in_run < CHUNK ? run - in_run : CHUNK;
    if (p->reduced.count == 0) n = 0;
    if (first > 0) at += place(&p->reduced, first);
    const void *x = buffer;
    if (p->extreme && stride == 1 && n > FEW) {
      n = halve(p, p->x + at, n, halves);
      p->gather(n, halves, 1, buffer);
    } else {
      x = elements(p, at, n, stride, buffer);
    }
    p->kernel->row(n, x, acc_at(p, task), p->job->attr[0]);
    if (p->index)
      p->index[task] = first + p->path->reduce->find[p->in](n, x, acc_at(p, task));
  }
}

/* The chunk whose extreme is that of the row: the first with this value, or with a nan.
 */
static void merge_positions(plan *p, int64_t row) {
  char *acc = acc_at(p, row * p->chunks), all[8];
  int64_t *index = p->index + row * p->chunks;
  memcpy(all, acc, p->item);
  for (int64_t i = 1; i < p->chunks; i++)
    p->kernel->merge(1, acc + (size_t)i * p->item, all, 0);
  int64_t first = p->path->reduce->find[p->in](p->chunks, acc, all);
  p->index[row] = index[first < p->chunks ? first : 0];
  memcpy(acc_at(p, row), all, p->item);
}

static void reduce_rows(plan *p) {
  int64_t run = inner_size(&p->reduced);
  nyx__parallel_sweep(p->kept.count * p->chunks, task_grain(p, run < CHUNK ? run : CHUNK),
                      row_tasks, p);
  for (int64_t row = 0; p->chunks > 1 && row < p->kept.count; row++) {
    if (p->index) {
      merge_positions(p, row);
      continue;
    }
    char *parts = acc_at(p, row * p->chunks);
    merge_parts(p, parts, p->chunks, 1, 1);
    memmove(acc_at(p, row), parts, p->item);
  }
}

/* Columns: the innermost kept dimension in blocks; parts of COLUMN_ROWS rows. */

/* One part of one block: the accumulators of n columns from `at` on. */
static void combine_part(const plan *p, int64_t at, int64_t n, int64_t first,
                         int64_t last, char *acc) {
  _Alignas(64) char buffer[COLUMN_WIDTH * 8];
  int64_t stride = inner_stride(&p->kept);
  int64_t run = inner_size(&p->reduced), step = inner_stride(&p->reduced);
  p->kernel->init(n, acc, p->job->attr[0]);
  for (int64_t r = first, rows; r < last; r += rows) {
    rows = p->ready ? run - r % run : 1;
    if (rows > last - r) rows = last - r;
    p->kernel->columns(rows, n,
                       elements(p, at + place(&p->reduced, r), n, stride, buffer), step,
                       acc, p->job->attr[0]);
  }
}

/* The same of narrow elements' extremes, in their own type. */
static void extreme_part(const plan *p, int64_t at, int64_t n, int64_t first,
                         int64_t last, char *acc) {
  _Alignas(64) char extreme[WIDE], buffer[WIDE * sizeof(int32_t)];
  const double none[2] = {0, 0};
  memcpy(extreme, p->x + at + place(&p->reduced, first), (size_t)n);
  for (int64_t r = first + 1; r < last; r++) {
    const void *x = p->x + at + place(&p->reduced, r);
    const void *in[5] = {extreme, x, x, x, x};
    p->extreme(n, in, extreme, none);
  }
  p->gather(n, extreme, 1, buffer);
  p->kernel->init(n, acc, p->job->attr[0]);
  p->kernel->columns(1, n, buffer, 0, acc, p->job->attr[0]);
}

/* The same for positions: rows count from `first` on in the kernel. */
static void follow_part(const plan *p, int64_t at, int64_t n, int64_t first, int64_t last,
                        char *best, int64_t *index) {
  _Alignas(64) char buffer[COLUMN_WIDTH * 8], where[COLUMN_WIDTH * 8];
  int64_t stride = inner_stride(&p->kept);
  memset(where, 0, (size_t)n * p->item);
  memcpy(best, elements(p, at + place(&p->reduced, first), n, stride, buffer),
         (size_t)n * p->item);
  for (int64_t r = first + 1; r < last; r++)
    p->path->reduce->follow[p->in](
        n, elements(p, at + place(&p->reduced, r), n, stride, buffer), r - first,
        p->least, best, where);
  p->path->elementwise->gather[p->item == 8 ? NYX_INT64 : NYX_INT32][NYX_IN_INT64](
      n, where, 1, index);
  for (int64_t i = 0; i < n; i++) index[i] += first;
}

static void column_tasks(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  int64_t inner = inner_size(&p->kept), total = p->kept.count;
  int64_t blocks = (inner + p->width - 1) / p->width;
  const bool narrow = p->extreme && p->count > 0 && inner_stride(&p->kept) == 1;
  for (int64_t task = begin; task < end; task++) {
    int64_t part = task % p->chunks, block = task / p->chunks;
    int64_t column = block % blocks * p->width, outer = block / blocks;
    int64_t n = inner - column < p->width ? inner - column : p->width;
    int64_t kept = outer * inner + column, at = place(&p->kept, kept);
    int64_t first = part * COLUMN_ROWS, last = first + COLUMN_ROWS;
    if (last > p->reduced.count) last = p->reduced.count;
    char *acc = acc_at(p, part * total + kept);
    if (p->index)
      follow_part(p, at, n, first, last, acc, p->index + part * total + kept);
    else if (narrow)
      extreme_part(p, at, n, first, last, acc);
    else
      combine_part(p, at, n, first, last, acc);
  }
}

/* Narrow columns: a contiguous matrix, or each of several, is seen as one with 2^k of its
 * rows in each: as wide as the kernels like it. 1: not so. */
static int64_t fold_of(const plan *p) {
  int64_t width = inner_size(&p->kept), fold = 1;
  bool narrow = p->kept.n > 0 && inner_stride(&p->kept) == 1 && p->reduced.n == 1 &&
                p->reduced.stride[0] == width && !p->job->index;
  if (!narrow) return 1;
  while (fold * width < FOLD_WIDTH && p->reduced.count >= 8 * fold) fold *= 2;
  return fold * width >= MIN_FOLD ? fold : 1;
}

static void fold_columns(plan *p) {
  p->fold = fold_of(p);
  p->reduced.stride[0] *= p->fold;
  p->reduced.shape[0] = p->reduced.count = p->count / p->fold;
}

/* The rows of a matrix that fill no row of the folded one are combined with its first. */
static void combine_rest(const plan *p, int64_t at, char *acc) {
  _Alignas(64) char buffer[2 * FOLD_WIDTH * 8];
  const int64_t whole = p->reduced.count * p->fold, width = inner_size(&p->kept);
  const int64_t n = (p->count - whole) * width;
  if (n)
    p->kernel->columns(1, n, elements(p, at + whole * width, n, 1, buffer), 0, acc,
                       p->job->attr[0]);
}

/* A part of one matrix: one half of its columns is merged with the other until only as
 * many are left as it has itself. */
static void folded_tasks(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  _Alignas(64) char acc[2 * FOLD_WIDTH * 8];
  const int64_t width = inner_size(&p->kept), n = p->fold * width;
  for (int64_t task = begin; task < end; task++) {
    const int64_t part = task % p->chunks, kept = task / p->chunks * width;
    const int64_t at = place(&p->kept, kept), first = part * COLUMN_ROWS;
    int64_t last = first + COLUMN_ROWS;
    if (last > p->reduced.count) last = p->reduced.count;
    if (p->extreme)
      extreme_part(p, at, n, first, last, acc);
    else
      combine_part(p, at, n, first, last, acc);
    if (part == p->chunks - 1) combine_rest(p, at, acc);
    for (int64_t half = n / 2; half >= width; half /= 2)
      p->kernel->merge(half, acc + (size_t)half * p->item, acc, p->job->attr[0]);
    memcpy(acc_at(p, part * p->kept.count + kept), acc, (size_t)width * p->item);
  }
}

/* For every column the position in the part with its extreme, the first of equals. */
static nyx_status choose_parts(nyx_context *ctx, plan *p) {
  int64_t total = p->kept.count;
  size_t bytes = (size_t)total * p->item;
  void *where = nyx_memory_alloc_zeroed(bytes);
  if (!where) return nyx__no_memory(ctx, bytes);
  for (int64_t part = 1; part < p->chunks; part++)
    p->path->reduce->follow[p->in](total, acc_at(p, part * total), part, p->least, p->acc,
                                   where);
  for (int64_t i = 0; i < total; i++) {
    int64_t part = p->item == 8 ? ((int64_t *)where)[i] : ((int32_t *)where)[i];
    p->index[i] = p->index[part * total + i];
  }
  nyx_memory_free(where);
  return NYX_OK;
}

/* All parts of columns begin..end-1. */
static void merge_tasks(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  merge_parts(p, acc_at(p, begin), p->chunks, p->kept.count, end - begin);
}

static nyx_status reduce_columns(nyx_context *ctx, plan *p) {
  int64_t inner = inner_size(&p->kept);
  int64_t blocks = (inner + p->width - 1) / p->width;
  int64_t width = inner < p->width ? inner : p->width;
  if (p->fold > 1)
    nyx__parallel_sweep(p->kept.count / inner * p->chunks,
                        task_grain(p, p->count * inner / p->chunks), folded_tasks, p);
  else
    nyx__parallel_sweep(p->kept.count / inner * blocks * p->chunks,
                        task_grain(p, width * COLUMN_ROWS), column_tasks, p);
  if (p->index) return p->chunks > 1 ? choose_parts(ctx, p) : NYX_OK;
  if (p->chunks > 1)
    nyx_parallel_for(p->kept.count, task_grain(p, p->chunks), merge_tasks, p);
  return NYX_OK;
}

/* Results */

static void value_tasks(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  nyx_dtype out = p->job->out->dtype;
  char *to = p->out + (size_t)begin * nyx_dtype_size(out);
  p->kernel->finish(end - begin, acc_at(p, begin), (double)p->count, p->job->attr[0]);
  if (acc_at(p, begin) != to)
    p->path->elementwise->scatter[p->in][out](end - begin, acc_at(p, begin), to, 1);
}

static void write_positions(nyx_context *ctx, const plan *p) {
  for (int64_t i = 0; i < p->kept.count; i++)
    p->positions[i] = p->index[i] + ctx->index_base;
}

static nyx_status compute(nyx_context *ctx, plan *p, bool columns) {
  if (columns)
    NYX_TRY(reduce_columns(ctx, p));
  else
    reduce_rows(p);
  if (p->job->out) nyx_parallel_for(p->kept.count, p->task, value_tasks, p);
  if (p->index) write_positions(ctx, p);
  return NYX_OK;
}

/* Accumulators are the output itself where they can be. */
static nyx_status run(nyx_context *ctx, plan *p, bool columns) {
  int64_t rows = p->reduced.count;
  if (columns)
    p->chunks = rows > COLUMN_ROWS ? (rows + COLUMN_ROWS - 1) / COLUMN_ROWS : 1;
  else
    p->chunks = rows ? rows / inner_size(&p->reduced) * chunks_per_run(p) : 1;
  p->ready = inner_stride(&p->kept) == 1 && (!p->convert || p->extreme);
  p->width = p->ready && p->chunks >= MANY_PARTS && !p->job->index ? WIDE : COLUMN_WIDTH;
  size_t count = (size_t)(p->kept.count * p->chunks);
  const nyx_tensor *out = p->job->out;
  bool direct = out && out->dtype == p->job->compute && p->chunks == 1;
  p->acc = direct ? p->out : nyx_memory_alloc(count * p->item);
  if (!p->acc) return nyx__no_memory(ctx, count * p->item);
  nyx_status status = NYX_OK;
  if (p->job->index) {
    p->index = nyx_memory_alloc(count * sizeof *p->index);
    if (!p->index) status = nyx__no_memory(ctx, count * sizeof *p->index);
  }
  if (status == NYX_OK) status = compute(ctx, p, columns);
  nyx_memory_free(p->index);
  if (!direct) nyx_memory_free(p->acc);
  return status;
}

/* Whether elements of the innermost kept dimension go side by side. */
static bool choose_columns(const plan *p) {
  if (p->count == 0 || inner_size(&p->kept) < MIN_COLUMNS) return false;
  if (inner_size(&p->reduced) < SHORT_ROW) return true;
  int64_t kept = inner_stride(&p->kept);
  return kept != 0 && llabs(kept) < llabs(inner_stride(&p->reduced));
}

/* Ways to do it, which may be measured: how the input is seen, and how many elements are
 * worth a thread. All are within the bound above. */
static const struct {
  bool columns;
  int64_t task;
} ways[] = {{false, TASK_ELEMENTS},     {true, TASK_ELEMENTS},
            {false, TASK_ELEMENTS / 4}, {true, TASK_ELEMENTS / 4},
            {false, TASK_ELEMENTS * 8}, {true, TASK_ELEMENTS * 8},
            {false, (int64_t)1 << 40},  {true, (int64_t)1 << 40}};
enum { WAYS = sizeof ways / sizeof *ways };
static const char *const way_names[] = {
    "rows",      "columns",      "rows_8k",         "columns_8k",
    "rows_256k", "columns_256k", "rows_one_thread", "columns_one_thread"};
static const char *const way_sizes[] = {
    "dtype",    "from",      "row",         "positions", "kept",
    "kept_run", "kept_step", "reduced_run", "reduced",   "reduced_step"};
static const nyx__choice way_choice = {.name = "reduction",
                                       .ways = way_names,
                                       .sizes = way_sizes,
                                       .n_ways = WAYS,
                                       .n_sizes = sizeof way_sizes / sizeof(char *)};

static nyx_status reduce_by(nyx_context *ctx, const plan *from, int way) {
  plan p = *from;
  nyx_tensor *x = p.job->in, *copy = NULL;
  p.task = ways[way].task;
  if (ways[way].columns) {
    if (fold_of(&p) > 1) fold_columns(&p);
  } else if (p.reduced.n > 1 && inner_size(&p.reduced) < MIN_RUN) {
    uint32_t dims = p.job->dims;
    NYX_TRY(nyx__reduce_rows(ctx, x, dims, &copy));
    uint32_t last = (uint32_t)((1u << x->ndim) - 1) ^
                    (uint32_t)((1u << (x->ndim - __builtin_popcount(dims))) - 1);
    p.kept = side_of(copy, last, false, false);
    p.reduced = side_of(copy, last, true, false);
    p.x = nyx__data(copy);
  }
  nyx_status status = run(ctx, &p, ways[way].columns);
  nyx_tensor_release(copy);
  return status;
}

typedef struct trial {
  nyx_context *ctx;
  const plan *p;
} trial;

/* Bytes of the results, whole cache lines; behind them are their positions. */
static size_t out_bytes(const plan *p) {
  size_t item = p->out ? nyx_dtype_size(p->job->out->dtype) : 0;
  return ((size_t)p->kept.count * item + 63) / 64 * 64;
}

static nyx_status try_way(void *arg, int way, void *result) {
  const trial *t = arg;
  plan p = *t->p;
  if (p.positions) p.positions = (int64_t *)(void *)((char *)result + out_bytes(&p));
  if (p.out) p.out = result;
  return reduce_by(t->ctx, &p, way);
}

/* Elements next to one another, the same one, or others. */
static int64_t step_of(const side *s) {
  int64_t step = inner_stride(s);
  return step == 0 || step == 1 ? step : 2;
}

static nyx_status measured_way(nyx_context *ctx, const plan *p, int *way) {
  trial t = {ctx, p};
  const nyx__tune_key key = {
      .choice = &way_choice,
      .size = {p->job->compute, p->job->in->dtype, p->job->row->id, p->positions != NULL,
               nyx__tune_class(p->kept.count), nyx__tune_class(inner_size(&p->kept)),
               step_of(&p->kept), nyx__tune_class(inner_size(&p->reduced)),
               nyx__tune_class(p->count), step_of(&p->reduced)},
      .usable = (1u << WAYS) - 1,
      .rule = *way};
  size_t bytes = out_bytes(p) + (size_t)p->kept.count * sizeof(int64_t);
  return nyx__tune(&key, bytes, try_way, &t, way);
}

/* The kernel that gives the extreme of two narrow elements. Without a sign, bools are
 * ordered too, and only nothing but zeros has 0 for its greatest, whatever the type. */
static nyx_elementwise_fn extreme_of(const plan *p, int id) {
  const nyx_elementwise_fn *const *own = p->path->elementwise->own;
  const bool least = id == NYX__REDUCE_amin || id == NYX__REDUCE_min;
  const bool most = id == NYX__REDUCE_amax || id == NYX__REDUCE_max;
  const bool zeros = id == NYX__REDUCE_any || id == NYX__REDUCE_all;
  if (p->positions || p->item_in != 1 || !(least || most || zeros)) return NULL;
  const bool is_signed = p->job->in->dtype == NYX_INT8 && !zeros;
  const int row =
      least || id == NYX__REDUCE_all ? NYX_KERNEL_minimum : NYX_KERNEL_maximum;
  return own[is_signed ? NYX_OWN_INT8 : NYX_OWN_UINT8][row];
}

nyx_status nyx__cpu_reduce(nyx_context *ctx, nyx_device *dev, const nyx_reduction *job) {
  (void)dev;
  const nyx_tensor *x = job->in;
  plan p = {
      .job = job,
      .path = nyx__cpu_kernels(),
      .in = compute_index(job->compute),
      .least = job->row->id == NYX__REDUCE_argmin || job->row->id == NYX__REDUCE_min,
      .fold = 1};
  /* Rows that only find positions do so by the extreme itself. */
  int id = job->row->combine ? job->row->id
           : p.least         ? NYX__REDUCE_amin
                             : NYX__REDUCE_amax;
  p.kernel = &p.path->reduce->rows[p.in][id];
  p.kept = side_of(x, job->dims, false, false);
  p.reduced = side_of(x, job->dims, true, !job->index);
  p.count = p.reduced.count;
  p.x = nyx__data(x);
  p.item_in = nyx_dtype_size(x->dtype);
  p.item = nyx_dtype_size(job->compute);
  p.convert = x->dtype != job->compute;
  p.gather = p.path->elementwise->gather[x->dtype][p.in];
  if (job->out) p.out = nyx__data(job->out);
  if (job->index) p.positions = nyx__data(job->index);
  p.extreme = extreme_of(&p, id);
  int way = fold_of(&p) > 1 || choose_columns(&p);
  if (x->numel >= TUNED_FROM && nyx__tuned()) NYX_TRY(measured_way(ctx, &p, &way));
  return reduce_by(ctx, &p, way);
}
