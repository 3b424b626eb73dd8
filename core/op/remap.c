/* Copies by tables of positions and their adjoint: see remap.h. The trailing dimensions
 * that stay as they are become one block of bytes; the dimension before them is cut into
 * runs of neighbours. Read next: pad.c, arrange.c, index.c. */
#include "remap.h"

#include <string.h>

#include "../device/device.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/move.h"

enum {
  UNIT_BYTES = 1 << 16,  /* work per parallel range, about */
  STREAM_UNIT = 1 << 19, /* past the caches: a range ends with a wait for the memory */
  STREAM_RUN = 512,      /* in runs from here on, most of them whole lines */
  FEW = 8,               /* elements that are not worth a call */
  ADD_UNITS = 16,        /* sums in fewer are cut further */
  CUT = 32               /* elements, of rows that are cut */
};

nyx_status nyx__remap_open(nyx_context *ctx, int ndim, const int64_t *shape,
                           uint32_t dims, nyx__remap *map) {
  *map = (nyx__remap){.ndim = ndim};
  int64_t total = 0;
  for (int d = 0; d < ndim; d++) {
    map->shape[d] = shape[d];
    if (dims >> d & 1) total += shape[d];
  }
  size_t bytes = (size_t)total * sizeof(int64_t);
  if (!(map->block = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  int64_t *next = map->block;
  for (int d = 0; d < ndim; d++) {
    if (!(dims >> d & 1)) continue;
    map->from[d] = next;
    next += shape[d];
  }
  return NYX_OK;
}

void nyx__remap_close(nyx__remap *map) {
  nyx_memory_free(map->block);
  *map = (nyx__remap){0};
}

/* Neighbours in the row dimension that are neighbours in the source, too, in the same
 * order (step 1), or the other way round (-1), or the same block each time (0). */
typedef struct run {
  int64_t start, count, from; /* from: element offset, or NYX__FILL */
  int64_t step;               /* in blocks; 0 of the fill */
} run;

typedef struct copy_job {
  int outer;                         /* dimensions before the row dimension */
  int64_t shape[NYX_MAX_DIMS];       /* of the output: outer dimensions, then the row */
  const int64_t *from[NYX_MAX_DIMS]; /* element offsets in the source, or NYX__FILL */
  int64_t length;                    /* of a row, in blocks */
  size_t item, block;                /* bytes of an element, of a block */
  const char *in;
  char *out;
  const char *fill; /* one block of it */
  const run *runs;
  int64_t n_runs;
  bool scattered; /* blocks in no order: faster without runs */
  int64_t step;   /* of scattered blocks, which from[outer] counts: elements */
  const nyx_move_kernels *stream; /* NULL: the result stays in the caches */
} copy_job;

/* A row of the result: its place in each dimension, and the source offsets of these added
 * up so far, or NYX__FILL. */
typedef struct place {
  int64_t at[NYX_MAX_DIMS], offset[NYX_MAX_DIMS + 1];
} place;

static void add_offsets(const copy_job *j, place *p, int first) {
  for (int d = first; d < j->outer; d++) {
    int64_t from = j->from[d][p->at[d]];
    bool none = from == NYX__FILL || p->offset[d] == NYX__FILL;
    p->offset[d + 1] = none ? NYX__FILL : p->offset[d] + from;
  }
}

static place place_of(const copy_job *j, int64_t row) {
  place p;
  p.offset[0] = 0;
  for (int d = j->outer - 1; d >= 0; d--) {
    p.at[d] = row % j->shape[d];
    row /= j->shape[d];
  }
  add_offsets(j, &p, 0);
  return p;
}

static void next_row(const copy_job *j, place *p) {
  int d = j->outer - 1;
  while (d >= 0 && ++p->at[d] == j->shape[d]) p->at[d--] = 0;
  if (d >= 0) add_offsets(j, p, d);
}

static void copy_bytes(const copy_job *j, char *to, const char *from, size_t bytes) {
  if (j->stream && bytes >= STREAM_RUN)
    j->stream->stream((int64_t)bytes, from, to);
  else
    memcpy(to, from, bytes);
}

/* n <= FEW elements, the sources `step` apart. */
#define COPY_FEW(T)                                                                      \
  static void copy_few_##T(char *out, const char *in, int64_t step, int64_t n) {         \
    const T *src = (const T *)(const void *)in;                                          \
    T *dst = (T *)(void *)out;                                                           \
    for (int64_t i = 0; i < n; i++, src += step) dst[i] = *src;                          \
  }
COPY_FEW(uint8_t)
COPY_FEW(uint16_t)
COPY_FEW(uint32_t)
COPY_FEW(uint64_t)

static void copy_few(const copy_job *j, char *to, const char *from, int64_t step,
                     int64_t n) {
  switch (j->item) {
    case 1: copy_few_uint8_t(to, from, step, n); return;
    case 2: copy_few_uint16_t(to, from, step, n); return;
    case 4: copy_few_uint32_t(to, from, step, n); return;
    default: copy_few_uint64_t(to, from, step, n); return;
  }
}

/* n blocks, the sources `step` of them apart. */
static void copy_blocks(const copy_job *j, char *to, const char *from, int64_t step,
                        int64_t n) {
  const int64_t block = (int64_t)j->block;
  if (j->block == j->item && (n <= FEW || step == 0))
    copy_few(j, to, from, step, n);
  else if (step == 1)
    copy_bytes(j, to, from, (size_t)(n * block));
  else if (step == -1 && j->block == j->item)
    nyx__cpu_kernels()->move->reverse[__builtin_ctzll(j->item)](n, from, to);
  else
    for (int64_t i = 0; i < n; i++, to += block, from += step * block)
      copy_bytes(j, to, from, j->block);
}

/* n blocks of a run, after `skip` of them. */
static void copy_run(const copy_job *j, const run *r, const char *in, char *out,
                     int64_t skip, int64_t n) {
  const char *from = r->from == NYX__FILL ? j->fill : in + r->from * (int64_t)j->item;
  copy_blocks(j, out, from + skip * r->step * (int64_t)j->block, r->step, n);
}

#define COPY_SCATTERED(T)                                                                \
  static void copy_scattered_##T(const copy_job *j, const char *in, char *out,           \
                                 int64_t begin, int64_t end) {                           \
    const int64_t *from = j->from[j->outer];                                             \
    const T *src = (const T *)(const void *)in;                                          \
    const int64_t step = j->step;                                                        \
    T *dst = (T *)(void *)out, fill = 0;                                                 \
    if (j->fill) memcpy(&fill, j->fill, sizeof fill);                                    \
    for (int64_t i = begin; i < end; i++)                                                \
      *dst++ = from[i] == NYX__FILL ? fill : src[from[i] * step];                        \
  }
COPY_SCATTERED(uint8_t)
COPY_SCATTERED(uint16_t)
COPY_SCATTERED(uint32_t)
COPY_SCATTERED(uint64_t)

static void copy_scattered(const copy_job *j, const char *in, char *out, int64_t begin,
                           int64_t end) {
  const int64_t *from = j->from[j->outer], step = j->step * (int64_t)j->item;
  if (j->block > j->item) {
    for (int64_t i = begin; i < end; i++, out += j->block)
      copy_bytes(j, out, in + from[i] * step, j->block);
    return;
  }
  switch (j->item) {
    case 1: copy_scattered_uint8_t(j, in, out, begin, end); return;
    case 2: copy_scattered_uint16_t(j, in, out, begin, end); return;
    case 4: copy_scattered_uint32_t(j, in, out, begin, end); return;
    default: copy_scattered_uint64_t(j, in, out, begin, end); return;
  }
}

/* A whole row. */
static void copy_row(const copy_job *j, const char *in, char *out) {
  for (const run *r = j->runs; r < j->runs + j->n_runs; r++) {
    copy_run(j, r, in, out, 0, r->count);
    out += r->count * (int64_t)j->block;
  }
}

static void copy_runs(const copy_job *j, const char *in, char *out, int64_t begin,
                      int64_t end) {
  int64_t low = 0, high = j->n_runs - 1; /* the run that holds `begin` */
  while (low < high) {
    int64_t middle = low + (high - low + 1) / 2;
    if (j->runs[middle].start <= begin)
      low = middle;
    else
      high = middle - 1;
  }
  for (int64_t at = begin; at < end; low++) {
    const run *r = &j->runs[low];
    int64_t skip = at - r->start, n = r->count - skip;
    if (n > end - at) n = end - at;
    copy_run(j, r, in, out, skip, n);
    out += (size_t)n * j->block;
    at += n;
  }
}

static void copy_range(void *arg, int64_t begin, int64_t end) {
  const copy_job *j = arg;
  place row = place_of(j, begin / j->length);
  for (int64_t first = begin % j->length; begin < end; first = 0, next_row(j, &row)) {
    int64_t last = end - begin < j->length - first ? first + end - begin : j->length;
    int64_t offset = row.offset[j->outer];
    char *out = j->out + (size_t)begin * j->block;
    if (offset == NYX__FILL)
      copy_blocks(j, out, j->fill, 0, last - first);
    else if (j->scattered)
      copy_scattered(j, j->in + offset * (int64_t)j->item, out, first, last);
    else if (last - first == j->length)
      copy_row(j, j->in + offset * (int64_t)j->item, out);
    else
      copy_runs(j, j->in + offset * (int64_t)j->item, out, first, last);
    begin += last - first;
  }
  if (j->stream) j->stream->drain();
}

/* Whether what lies at `from` goes on with run r, which gets its step of its second
 * block; `block` is how many elements it has. */
static bool goes_on(run *r, int64_t from, int64_t block) {
  if (from == NYX__FILL || r->from == NYX__FILL) return from == r->from;
  if (r->count == 1) {
    int64_t apart = from - r->from;
    r->step = apart == block || apart == -block ? apart / block : 0;
  }
  return from == r->from + r->step * block * r->count;
}

/* Cuts the row dimension into runs of blocks of so many elements. */
static int64_t cut_runs(const int64_t *from, int64_t length, int64_t block, run *runs) {
  int64_t n = 0;
  for (int64_t i = 0; i < length; i++) {
    if (n && goes_on(&runs[n - 1], from[i], block))
      runs[n - 1].count++;
    else
      runs[n++] =
          (run){.start = i, .count = 1, .from = from[i], .step = from[i] != NYX__FILL};
  }
  return n;
}

/* How far out a dimension of t lies: sizes of 1 outside, whatever their strides. */
static int64_t rank(const nyx_tensor *t, int d) {
  return t->shape[d] == 1 ? INT64_MAX : t->stride[d];
}

/* The map with its dimensions in the order in which `out` lies in memory, and the strides
 * of `in` in that order. */
static nyx__remap in_order_of(const nyx__remap *map, const nyx_tensor *out,
                              const nyx_tensor *in, int64_t *stride) {
  nyx__remap turned = {.ndim = map->ndim, .scattered = map->scattered};
  bool rows = nyx__is_contiguous(out);
  int order[NYX_MAX_DIMS];
  for (int d = 0; d < map->ndim; d++) {
    int at = d;
    for (; !rows && at > 0 && rank(out, order[at - 1]) < rank(out, d); at--)
      order[at] = order[at - 1];
    order[at] = d;
  }
  for (int i = 0; i < map->ndim; i++) {
    turned.shape[i] = map->shape[order[i]];
    turned.from[i] = map->from[order[i]];
    stride[i] = in->stride[order[i]];
  }
  return turned;
}

/* How many trailing dimensions keep their positions and lie row-major in the source of
 * these strides; their elements in *count. */
static int plain_tail(const nyx__remap *map, const int64_t *stride, int64_t *count) {
  int tail = 0;
  *count = 1;
  for (int d = map->ndim - 1; d >= 0 && !map->from[d]; d--) {
    if (map->shape[d] != 1 && stride[d] != *count) break;
    *count *= map->shape[d];
    tail++;
  }
  return tail;
}

/* Element offsets for `dims` dimensions, and runs of the row dimension unless its
 * positions are followed one by one; in scratch, to be freed. */
static nyx_status make_tables(nyx_context *ctx, const nyx__remap *map,
                              const int64_t *stride, const void *fill, copy_job *j,
                              char **out) {
  int64_t block = (int64_t)(j->block / j->item), total = 0;
  bool direct = map->scattered && map->from[j->outer];
  int dims = direct ? j->outer : j->outer + 1;
  for (int d = 0; d < dims; d++) total += j->shape[d];
  size_t fill_bytes = fill ? (j->block + 63) / 64 * 64 : 0;
  size_t bytes = fill_bytes + (size_t)total * sizeof(int64_t);
  if (!direct) bytes += (size_t)j->length * sizeof(run);
  char *scratch = nyx_memory_alloc(bytes);
  if (!scratch) return nyx__no_memory(ctx, bytes);
  int64_t *table = (int64_t *)(void *)(scratch + fill_bytes);
  for (int d = 0; d < dims; d++) {
    j->from[d] = table;
    for (int64_t i = 0; i < j->shape[d]; i++) {
      int64_t from = map->from[d] ? map->from[d][i] : i;
      table[i] = from == NYX__FILL ? from : from * stride[d];
    }
    table += j->shape[d];
  }
  if (fill) {
    for (int64_t i = 0; i < block; i++)
      memcpy(scratch + (size_t)i * j->item, fill, j->item);
    j->fill = scratch;
  }
  if (direct) {
    j->from[j->outer] = map->from[j->outer];
    j->step = stride[j->outer];
    j->scattered = true;
  } else {
    run *runs = (run *)(void *)table;
    j->runs = runs;
    j->n_runs = cut_runs(j->from[j->outer], j->length, block, runs);
    j->step = 1;
    j->scattered = block == 1 && j->n_runs > j->length / 8;
  }
  *out = scratch;
  return NYX_OK;
}

nyx_status nyx__remap_copy(nyx_context *ctx, const nyx__remap *asked,
                           const nyx_tensor *in, nyx_tensor *out, const void *fill) {
  if (out->numel == 0) return NYX_OK;
  int64_t block, rows = 1, stride[NYX_MAX_DIMS];
  const nyx__remap turned = in_order_of(asked, out, in, stride), *map = &turned;
  int kept = map->ndim - plain_tail(map, stride, &block);
  copy_job j = {.item = nyx_dtype_size(in->dtype),
                .in = nyx__data(in),
                .out = nyx__data(out),
                .outer = kept > 0 ? kept - 1 : 0};
  j.block = j.item * (size_t)block;
  if (kept == 0) {
    memcpy(j.out, j.in, j.block);
    return NYX_OK;
  }
  for (int d = 0; d < kept; d++) j.shape[d] = map->shape[d];
  for (int d = 0; d < j.outer; d++) rows *= j.shape[d];
  j.length = j.shape[j.outer];
  if ((size_t)out->numel * j.item >= NYX_STREAM_BYTES)
    j.stream = nyx__cpu_kernels()->move;
  char *scratch;
  NYX_TRY(make_tables(ctx, map, stride, fill, &j, &scratch));
  int64_t unit = j.stream ? STREAM_UNIT : UNIT_BYTES;
  int64_t grain = (unit + (int64_t)j.block - 1) / (int64_t)j.block;
  nyx_status status = nyx__parallel_for(ctx, rows * j.length, grain, copy_range, &j);
  nyx_memory_free(scratch);
  return status;
}

typedef struct add_job {
  const nyx__remap *map;
  int lead;        /* leading dimensions that stay: their elements are independent */
  int64_t rows;    /* of g, for each of those */
  int64_t in_part; /* elements of out for each of those */
  int64_t cuts;    /* of a row whose positions stay: they are independent, too */
  int64_t pitch;   /* elements from one row of g to the next */
  int64_t stride[NYX_MAX_DIMS]; /* of out */
  const void *g;
  void *out;
  bool wide; /* float64 */
} add_job;

/* The offset in out (within its part) that row `row` of g belongs to, or NYX__FILL. */
static int64_t add_offset(const add_job *j, int64_t row) {
  int64_t offset = 0;
  for (int d = j->map->ndim - 2; d >= j->lead; d--) {
    int64_t size = j->map->shape[d], at = row % size;
    if (j->map->from[d]) at = j->map->from[d][at];
    if (at == NYX__FILL) return NYX__FILL;
    offset += at * j->stride[d];
    row /= size;
  }
  return offset;
}

static void add_range(void *arg, int64_t begin, int64_t end) {
  const add_job *j = arg;
  int last = j->map->ndim - 1;
  int64_t length = last < j->lead ? 1 : j->map->shape[last];
  const int64_t *from = last < j->lead ? NULL : j->map->from[last];
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t part = unit / j->cuts, cut = unit % j->cuts;
    int64_t first = length * cut / j->cuts, stop = length * (cut + 1) / j->cuts;
    for (int64_t row = 0; row < j->rows; row++) {
      int64_t to = add_offset(j, row), g = (part * j->rows + row) * j->pitch;
      if (to == NYX__FILL) continue;
      to += part * j->in_part;
      for (int64_t i = first; i < stop; i++) {
        int64_t at = from ? from[i] : i;
        if (at == NYX__FILL) continue;
        if (j->wide)
          ((double *)j->out)[to + at] += ((const double *)j->g)[g + i];
        else
          ((float *)j->out)[to + at] += ((const float *)j->g)[g + i];
      }
    }
  }
}

/* Elements of g from one row to the next, g's dimensions in the order of `map`. */
static int64_t pitch_of(const nyx__remap *map, const nyx__remap *asked,
                        const nyx_tensor *g) {
  int64_t stride[NYX_MAX_DIMS];
  in_order_of(asked, g, g, stride);
  int d = map->ndim - 2;
  return d >= 0 && map->shape[d] != 1 ? stride[d] : map->shape[map->ndim - 1];
}

nyx_status nyx__remap_add(nyx_context *ctx, const nyx__remap *asked, const nyx_tensor *g,
                          nyx_tensor *out) {
  if (g->numel == 0) return NYX_OK;
  int64_t stride[NYX_MAX_DIMS];
  const nyx__remap turned = in_order_of(asked, g, out, stride), *map = &turned;
  add_job j = {.map = map,
               .rows = 1,
               .in_part = 1,
               .cuts = 1,
               .g = nyx__data(g),
               .out = nyx__data(out),
               .wide = out->dtype == NYX_FLOAT64};
  int64_t parts = 1;
  while (j.lead < map->ndim && !map->from[j.lead]) parts *= map->shape[j.lead++];
  for (int d = j.lead; d < map->ndim - 1; d++) j.rows *= map->shape[d];
  for (int d = j.lead; d < map->ndim; d++) j.stride[d] = stride[d];
  j.pitch = j.lead < map->ndim ? pitch_of(&turned, asked, g) : 1;
  j.in_part = parts > 0 ? out->numel / parts : 0;
  int last = map->ndim - 1;
  if (last >= j.lead && !map->from[last] && parts < ADD_UNITS)
    j.cuts = (map->shape[last] + CUT - 1) / CUT;
  int64_t grain = UNIT_BYTES / 8 / (g->numel / (parts * j.cuts) + 1) + 1;
  return nyx__parallel_for(ctx, parts * j.cuts, grain, add_range, &j);
}
