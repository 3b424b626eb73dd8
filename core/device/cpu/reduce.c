/* Reductions on the CPU. Whatever the strides, the elements that belong together are
 * brought to one of two forms: rows (contiguous, reduced by one kernel call per chunk) or
 * columns (the kept dimension is contiguous, rows of it are combined into one). Chunks
 * depend on sizes only and are merged pairwise, so results do not depend on the number of
 * threads. Read next: kernels/cpu/reduce.h, core/op/reduce.c (who asks). */
#include <nyx/parallel.h>
#include <string.h>

#include "../../op/reduce.h"
#include "cpu.h"
#include "kernels/cpu/reduce.h"

#define CHUNK 4096        /* elements reduced by one kernel call */
#define COLUMN_ROWS 64    /* rows combined one after the other before merging pairwise */
#define COLUMN_WIDTH 1024 /* columns in one task */
#define MIN_COLUMNS 8     /* fewer are copied into rows */
#define TASK_ELEMENTS 32768 /* elements below which a task is not worth a thread */

/* Dimensions of one side, kept or reduced: sizes of 1 dropped, neighbours in memory
 * merged. */
typedef struct side {
  int n;
  int64_t shape[NYX_MAX_DIMS], stride[NYX_MAX_DIMS];
  int64_t count;
} side;

typedef struct plan {
  const nyx_reduction *job;
  const nyx_reduce_kernel *kernel;
  const nyx_reduce_kernels *table;
  nyx_gather_fn gather; /* NULL: the elements are of the compute type already */
  size_t item_in, item; /* bytes of an element of the input, of the compute type */
  int in;               /* NYX_IN_* */
  const char *x;
  side kept, reduced;
  char *acc;      /* accumulators: [kept][chunks] */
  int64_t chunks; /* per kept element */
  int64_t *index; /* positions: [kept][chunks], or NULL */
} plan;

static int compute_index(nyx_dtype compute) {
  switch (compute) {
    case NYX_FLOAT64: return NYX_IN_FLOAT64;
    case NYX_INT32: return NYX_IN_INT32;
    case NYX_INT64: return NYX_IN_INT64;
    default: return NYX_IN_FLOAT32;
  }
}

/* The dimensions of t whose bit in `dims` is `wanted`. `any_order` allows sorting them by
 * stride, which turns a transposed tensor back into rows. */
static side side_of(const nyx_tensor *t, uint32_t dims, bool wanted, bool any_order) {
  side s = {.n = 0, .count = 1};
  for (int d = 0; d < t->ndim; d++) {
    if ((dims >> d & 1) != wanted) continue;
    s.count *= t->shape[d];
    if (t->shape[d] == 1) continue;
    int at = s.n++;
    for (; any_order && at > 0 && s.stride[at - 1] < t->stride[d]; at--) {
      s.shape[at] = s.shape[at - 1];
      s.stride[at] = s.stride[at - 1];
    }
    s.shape[at] = t->shape[d];
    s.stride[at] = t->stride[d];
  }
  int n = 0;
  for (int d = 0; d < s.n; d++) {
    if (n > 0 && s.stride[n - 1] == s.stride[d] * s.shape[d]) {
      s.shape[n - 1] *= s.shape[d];
      s.stride[n - 1] = s.stride[d];
    } else {
      s.shape[n] = s.shape[d];
      s.stride[n++] = s.stride[d];
    }
  }
  s.n = n;
  return s;
}

/* Where element i of a side is, in elements. */
static int64_t place(const side *s, int64_t i) {
  int64_t at = 0;
  for (int d = s->n - 1; d >= 0; d--) {
    at += i % s->shape[d] * s->stride[d];
    i /= s->shape[d];
  }
  return at;
}

/* n elements of the compute type from `first` on: where they are, or in `buffer`. */
static const void *elements(const plan *p, int64_t first, int64_t n, void *buffer) {
  const char *at = p->x + (size_t)first * p->item_in;
  if (!p->gather) return at;
  p->gather(n, at, 1, buffer);
  return buffer;
}

/* Merges parts 0..n-1, `width` accumulators each, into the first, pairwise. */
static void merge_parts(const plan *p, char *parts, int64_t n, int64_t width) {
  size_t bytes = (size_t)width * p->item;
  for (int64_t step = 1; step < n; step *= 2)
    for (int64_t i = 0; i + step < n; i += 2 * step)
      p->kernel->merge(width, parts + (size_t)(i + step) * bytes,
                       parts + (size_t)i * bytes, p->job->attr[0]);
}

/* Rows */

/* Finds the position of a chunk's extreme, which is in acc already. */
static void find_position(const plan *p, int64_t task, const void *x, int64_t n) {
  int64_t at = p->table->find[p->in](n, x, p->acc + (size_t)task * p->item);
  p->index[task] = task % p->chunks * CHUNK + at;
}

static void row_tasks(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  _Alignas(64) char buffer[CHUNK * 8];
  int64_t length = p->reduced.count;
  for (int64_t task = begin; task < end; task++) {
    int64_t row = task / p->chunks, from = task % p->chunks * CHUNK;
    int64_t n = length - from < CHUNK ? length - from : CHUNK;
    const void *x = elements(p, place(&p->kept, row) + from, n, buffer);
    p->kernel->row(n, x, p->acc + (size_t)task * p->item, p->job->attr[0]);
    if (p->index) find_position(p, task, x, n);
  }
}

/* The chunk whose extreme is that of the row: the first with this value, or with a nan.
 */
static void merge_positions(plan *p, int64_t row) {
  char *acc = p->acc + (size_t)(row * p->chunks) * p->item, all[8];
  int64_t *index = p->index + row * p->chunks;
  memcpy(all, acc, p->item);
  for (int64_t i = 1; i < p->chunks; i++)
    p->kernel->merge(1, acc + (size_t)i * p->item, all, 0);
  int64_t first = p->table->find[p->in](p->chunks, acc, all);
  p->index[row] = index[first < p->chunks ? first : 0];
  memcpy(p->acc + (size_t)row * p->item, all, p->item);
}

static void merge_rows(plan *p) {
  for (int64_t row = 0; row < p->kept.count; row++) {
    char *parts = p->acc + (size_t)(row * p->chunks) * p->item;
    if (p->index) {
      merge_positions(p, row);
      continue;
    }
    merge_parts(p, parts, p->chunks, 1);
    memmove(p->acc + (size_t)row * p->item, parts, p->item);
  }
}

static int64_t task_grain(int64_t elements_per_task) {
  int64_t grain = TASK_ELEMENTS / (elements_per_task > 0 ? elements_per_task : 1);
  return grain < 1 ? 1 : grain;
}

static void reduce_rows(plan *p) {
  int64_t length = p->reduced.count;
  nyx_parallel_for(p->kept.count * p->chunks, task_grain(length < CHUNK ? length : CHUNK),
                   row_tasks, p);
  if (p->chunks > 1) merge_rows(p);
}

/* Columns: the last kept dimension is contiguous; p->chunks parts of COLUMN_ROWS rows. */

static void column_tasks(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  _Alignas(64) char buffer[COLUMN_WIDTH * 8];
  int64_t inner = p->kept.shape[p->kept.n - 1], total = p->kept.count;
  int64_t blocks = (inner + COLUMN_WIDTH - 1) / COLUMN_WIDTH;
  for (int64_t task = begin; task < end; task++) {
    int64_t part = task % p->chunks, block = task / p->chunks;
    int64_t column = block % blocks * COLUMN_WIDTH, outer = block / blocks;
    int64_t n = inner - column < COLUMN_WIDTH ? inner - column : COLUMN_WIDTH;
    int64_t kept = outer * inner + column, at = place(&p->kept, kept);
    char *acc = p->acc + (size_t)(part * total + kept) * p->item;
    int64_t last = (part + 1) * COLUMN_ROWS;
    if (last > p->reduced.count) last = p->reduced.count;
    p->kernel->init(n, acc, p->job->attr[0]);
    for (int64_t r = part * COLUMN_ROWS; r < last; r++)
      p->kernel->columns(n, elements(p, at + place(&p->reduced, r), n, buffer), acc,
                         p->job->attr[0]);
  }
}

static void reduce_columns(plan *p) {
  int64_t inner = p->kept.shape[p->kept.n - 1];
  int64_t blocks = (inner + COLUMN_WIDTH - 1) / COLUMN_WIDTH;
  int64_t width = inner < COLUMN_WIDTH ? inner : COLUMN_WIDTH;
  nyx_parallel_for(p->kept.count / inner * blocks * p->chunks,
                   task_grain(width * COLUMN_ROWS), column_tasks, p);
  merge_parts(p, p->acc, p->chunks, p->kept.count);
}

/* Results */

/* The accumulators, finished, as the output's dtype. */
static nyx_status write_values(nyx_context *ctx, plan *p) {
  nyx_tensor *values;
  int64_t n = p->kept.count;
  if (!p->job->out) return NYX_OK;
  p->kernel->finish(n, p->acc, (double)p->reduced.count, p->job->attr[0]);
  NYX_TRY(nyx_tensor_wrap(ctx, p->job->compute, p->job->out->ndim, p->job->out->shape,
                          p->acc, NULL, NULL, &values));
  nyx_status status = nyx__copy_into(ctx, values, p->job->out);
  nyx_tensor_release(values);
  return status;
}

static void write_positions(nyx_context *ctx, const plan *p) {
  int64_t *out = nyx__data(p->job->index);
  for (int64_t i = 0; i < p->kept.count; i++) out[i] = p->index[i] + ctx->index_base;
}

static nyx_status run(nyx_context *ctx, plan *p, bool columns) {
  int64_t rows = p->reduced.count, per = columns ? COLUMN_ROWS : CHUNK;
  p->chunks = rows > per ? (rows + per - 1) / per : 1;
  size_t count = (size_t)(p->kept.count * p->chunks);
  p->acc = nyx_memory_alloc(count * p->item);
  if (!p->acc) return nyx__no_memory(ctx, count * p->item);
  nyx_status status = NYX_OK;
  if (p->job->index) {
    p->index = nyx_memory_alloc(count * sizeof *p->index);
    if (!p->index) status = nyx__no_memory(ctx, count * sizeof *p->index);
  }
  if (status == NYX_OK) {
    if (columns)
      reduce_columns(p);
    else
      reduce_rows(p);
    status = write_values(ctx, p);
    if (p->index) write_positions(ctx, p);
  }
  nyx_memory_free(p->index);
  nyx_memory_free(p->acc);
  return status;
}

nyx_status nyx__cpu_reduce(nyx_context *ctx, nyx_device *dev, const nyx_reduction *job) {
  (void)dev;
  const struct nyx_cpu_kernels *path = nyx__cpu_kernels();
  nyx_tensor *x = job->in, *copy = NULL;
  plan p = {.job = job, .table = path->reduce, .in = compute_index(job->compute)};
  /* Rows that only find positions do so by the extreme itself. */
  int id = job->row->id == NYX__REDUCE_argmax   ? NYX__REDUCE_amax
           : job->row->id == NYX__REDUCE_argmin ? NYX__REDUCE_amin
                                                : job->row->id;
  p.kernel = &path->reduce->rows[p.in][id];
  p.kept = side_of(x, job->dims, false, false);
  p.reduced = side_of(x, job->dims, true, !job->index);
  bool rows = p.reduced.n == 0 || (p.reduced.n == 1 && p.reduced.stride[0] == 1);
  bool columns = !rows && !job->index && p.kept.n > 0 &&
                 p.kept.stride[p.kept.n - 1] == 1 &&
                 p.kept.shape[p.kept.n - 1] >= MIN_COLUMNS;
  if (!rows && !columns) {
    NYX_TRY(nyx__reduce_rows(ctx, x, job->dims, &copy));
    uint32_t last = (uint32_t)((1u << x->ndim) - 1) ^
                    (uint32_t)((1u << (x->ndim - __builtin_popcount(job->dims))) - 1);
    x = copy;
    p.kept = side_of(x, last, false, false);
    p.reduced = side_of(x, last, true, false);
  }
  p.x = nyx__data(x);
  p.item_in = nyx_dtype_size(x->dtype);
  p.item = nyx_dtype_size(job->compute);
  if (x->dtype != job->compute) p.gather = path->elementwise->gather[x->dtype][p.in];
  nyx_status status = run(ctx, &p, columns);
  nyx_tensor_release(copy);
  return status;
}
