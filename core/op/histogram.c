/* bin_counts: how many elements, or what weights, lie between edges, which are given or
 * of equal width. Parts of the input are counted apart from each other and added up in
 * their order: results do not depend on the threads. Read next: lua/nyx/statistics.lua,
 * which makes histc, histogram and bincount of it. */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/elementwise.h"
#include "../tensor/tensor.h"
#include "ops.h"

enum { X, EDGES, WEIGHT, INPUTS };
enum { BINS, LOW, HIGH, EVEN, ATTRS };
enum {
  PIECE = 1024,     /* elements that find their bins at a time */
  PART = 1 << 16,   /* elements of a part, at least */
  PARTS = 64,       /* at most */
  LABELS = 1 << 14, /* elements of a part of integers, which take less time */
  LANES = 4,        /* that look for their bins together */
  FEW = 2048,       /* bins that are counted COPIES times, */
  COPIES = 4        /* as equal elements would wait for each other */
};

static nyx_status infer(nyx_call *c) {
  const nyx_tensor *x = c->in[X], *edges = c->in[EDGES], *weight = c->in[WEIGHT];
  int64_t bins = c->attr[BINS].given ? c->attr[BINS].i : 0;
  const double low = c->attr[LOW].f, high = c->attr[HIGH].f;
  if (edges && (edges->ndim != 1 || edges->shape[0] < 2))
    return nyx__error(c->ctx, NDIM_EXPECTED, "edges", NYX__SHAPE(edges),
                      "a vector of 2 or more");
  if (edges) bins = edges->shape[0] - 1;
  if (bins < 1 || bins >= INT32_MAX)
    return nyx__error(c->ctx, ATTR_RANGE, "bins", (long long)bins, "1 to 2^31 - 2");
  if (!edges && !(low < high && isfinite(high - low)))
    return nyx__error(c->ctx, ATTR_NUMBER, "max", high, "a finite number above min");
  if (weight && !nyx__has_shape(weight, x->ndim, x->shape))
    return nyx__error(c->ctx, NDIM_EXPECTED, "weight", NYX__SHAPE(weight),
                      "the shape of x");
  nyx__spec(&c->spec[0], weight ? weight->dtype : NYX_INT64, 1, &bins);
  return NYX_OK;
}

/* Elements and weights of a type are read as another, or where they lie. */
typedef struct source {
  const char *data;
  size_t item;
  nyx_gather_fn load; /* NULL: they are of that type */
} source;

typedef struct counting {
  source x, weight;
  bool weighted;
  bool narrow; /* bins are found in float32, else in float64 */
  bool labels; /* x is int64, each bin is of width 1: nothing is divided */
  int64_t n, part, bins, copies;
  double low, high;
  const double *edges; /* NULL: of equal width */
  bool even;           /* edges are of about equal width */
  void *counts; /* of each part and copy bins + 1: int64 or, of weights, double; the last
                 * for what lies outside */
  nyx__stop *stop;
} counting;

/* Where n elements from `at` on are, as numbers of the type they are wanted in. */
static const void *read(const source *s, int64_t at, int64_t n, void *room) {
  const char *from = s->data + (size_t)at * s->item;
  if (!s->load) return from;
  s->load(n, from, 1, room);
  return room;
}

/* bin[i] = that of x[i] among `bins` of equal width; `bins` outside of low..high. */
#define EVEN_BINS(T)                                                                     \
  static void even_##T(const counting *c, const T *x, int64_t n, int32_t *bin) {         \
    const T low = (T)c->low, high = (T)c->high, width = high - low, bins = (T)c->bins;   \
    const T last = (T)(c->bins - 1);                                                     \
    const int32_t outside = (int32_t)c->bins;                                            \
    for (int64_t i = 0; i < n; i++) {                                                    \
      const T at = (x[i] - low) / width * bins;                                          \
      const int32_t found = at < last ? (int32_t)(at > 0 ? at : 0) : outside - 1;        \
      bin[i] = ((x[i] >= low) & (x[i] <= high)) ? found : outside;                       \
    }                                                                                    \
  }
EVEN_BINS(float)
EVEN_BINS(double)

/* Of integers in bins of width 1: the first bin holds ceil(low), or nothing. */
static void label_bins(const counting *c, const int64_t *x, int64_t n, int32_t *bin) {
  const double first = ceil(c->low);
  const uint64_t base = (uint64_t)(int64_t)first, bins = (uint64_t)c->bins;
  const bool ends = first == c->low; /* on the upper edge, which is in the last bin */
  for (int64_t i = 0; i < n; i++) {
    uint64_t at = (uint64_t)x[i] - base;
    at -= ends & (at == bins);
    bin[i] = (int32_t)(at < bins ? at : bins);
  }
}

/* The last bin whose lower edge is not above x[i]; the upper edge of all belongs to it.
 */
static void search_bins(const counting *c, const double *x, int64_t n, int32_t *bin) {
  const double *edges = c->edges;
  const int32_t outside = (int32_t)c->bins;
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t at[LANES] = {0};
    double v[LANES];
    for (int l = 0; l < LANES; l++) v[l] = x[i + l < n ? i + l : i];
    for (int64_t left = c->bins; left > 1; left -= left / 2)
      for (int l = 0; l < LANES; l++) /* without branches, which nobody could foresee */
        at[l] += -(int64_t)(edges[at[l] + left / 2] <= v[l]) & (left / 2);
    for (int l = 0; l < LANES && i + l < n; l++)
      bin[i + l] = v[l] >= edges[0] && v[l] <= edges[c->bins] ? (int32_t)at[l] : outside;
  }
}

/* From where it would be if edges were of equal width. */
static void walk_bins(const counting *c, const double *x, int64_t n, int32_t *bin) {
  const double *edges = c->edges;
  const int32_t outside = (int32_t)c->bins;
  even_double(c, x, n, bin);
  for (int64_t i = 0; i < n; i++) {
    int32_t b = bin[i];
    if (b == outside) continue;
    while (b > 0 && x[i] < edges[b]) b--;
    while (b + 1 < outside && x[i] >= edges[b + 1]) b++;
    bin[i] = b;
  }
}

static void count_piece(const counting *c, int64_t at, int64_t n, void *counts) {
  double room[PIECE], weights[PIECE];
  int32_t bin[PIECE];
  const int64_t bins = c->bins + 1, copies = c->copies;
  const void *x = read(&c->x, at, n, room);
  if (c->labels)
    label_bins(c, x, n, bin);
  else if (c->narrow)
    even_float(c, x, n, bin);
  else if (!c->edges)
    even_double(c, x, n, bin);
  else
    (c->even ? walk_bins : search_bins)(c, x, n, bin);
  if (c->weighted) {
    const double *w = read(&c->weight, at, n, weights);
    for (int64_t i = 0; i < n; i++) ((double *)counts)[bin[i]] += w[i];
    return;
  }
  int64_t *count = counts, i = 0;
  for (; copies > 1 && i + COPIES <= n; i += COPIES)
    for (int k = 0; k < COPIES; k++) count[k * bins + bin[i + k]]++;
  for (; i < n; i++) count[bin[i]]++;
}

static void count_range(void *arg, int64_t begin, int64_t end) {
  const counting *c = arg;
  for (int64_t p = begin; p < end; p++) {
    char *counts =
        (char *)c->counts + (size_t)(p * c->copies * (c->bins + 1)) * sizeof(int64_t);
    const int64_t first = p * c->part, after = first + c->part;
    const int64_t stop = after < c->n ? after : c->n;
    memset(counts, 0, (size_t)(c->copies * (c->bins + 1)) * sizeof(int64_t));
    for (int64_t i = first; i < stop && !nyx__stopped(c->stop); i += PIECE)
      count_piece(c, i, stop - i < PIECE ? stop - i : PIECE, counts);
  }
}

/* All parts and copies into the first one. */
static void add_up(const counting *c, int64_t parts) {
  const int64_t bins = c->bins + 1;
  for (int64_t p = 1; p < parts * c->copies; p++) {
    if (c->weighted) {
      double *sum = c->counts;
      for (int64_t b = 0; b < bins; b++) sum[b] += sum[p * bins + b];
    } else {
      int64_t *sum = c->counts;
      for (int64_t b = 0; b < bins; b++) sum[b] += sum[p * bins + b];
    }
  }
}

static nyx_status count_all(nyx_context *ctx, counting *c, nyx_tensor *out) {
  nyx__stop stop = {.ctx = ctx};
  c->copies = !c->weighted && c->bins <= FEW && c->n >= 4 * c->bins ? COPIES : 1;
  const int64_t part = c->labels && !c->weighted ? LABELS : PART;
  const int64_t least = 4 * c->bins > part ? 4 * c->bins : part;
  int64_t parts = c->n / least;
  parts = parts < 1 ? 1 : parts > PARTS ? PARTS : parts;
  c->part = (c->n + parts - 1) / parts;
  c->stop = &stop;
  const size_t bytes = (size_t)(parts * c->copies * (c->bins + 1)) * sizeof(int64_t);
  if (!(c->counts = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  nyx__parallel_until(&stop, parts, 1, count_range, c);
  nyx_status status = nyx__stop_status(&stop);
  if (status == NYX_OK) {
    add_up(c, parts);
    if (!c->weighted)
      memcpy(nyx__data(out), c->counts, (size_t)c->bins * sizeof(int64_t));
    else
      nyx__cpu_kernels()->elementwise->scatter[NYX_IN_FLOAT64][out->dtype](
          c->bins, c->counts, nyx__data(out), 1);
  }
  nyx_memory_free(c->counts);
  return status;
}

static source source_of(const nyx_tensor *t, nyx_dtype wanted) {
  const int in = wanted == NYX_FLOAT64 ? NYX_IN_FLOAT64 : NYX_IN_FLOAT32;
  source s = {.data = nyx__data(t), .item = nyx_dtype_size(t->dtype)};
  if (t->dtype != wanted) s.load = nyx__cpu_kernels()->elementwise->gather[t->dtype][in];
  return s;
}

/* Whether bins are of width 1 and their edges numbers that float64 tells apart. */
static bool unit_bins(const counting *c) {
  return c->high - c->low == (double)c->bins && fabs(c->low) < 0x1p51;
}

static nyx_status cpu(nyx_call *c) {
  nyx_tensor *x = NULL, *edges = NULL, *weight = NULL;
  nyx_status status = nyx__contiguous(c->ctx, c->in[X], &x);
  if (status == NYX_OK && c->in[EDGES])
    status = nyx__contiguous_as(c->ctx, c->in[EDGES], NYX_FLOAT64, &edges);
  if (status == NYX_OK && c->in[WEIGHT])
    status = nyx__contiguous(c->ctx, c->in[WEIGHT], &weight);
  if (status == NYX_OK) {
    counting job = {.n = x->numel,
                    .bins = c->out[0]->numel,
                    .low = c->attr[LOW].f,
                    .high = c->attr[HIGH].f,
                    .even = c->attr[EVEN].i,
                    .weighted = weight != NULL};
    job.narrow = !edges && nyx__compute_dtype(x->dtype) == NYX_FLOAT32;
    job.labels = x->dtype == NYX_INT64 && !edges && unit_bins(&job);
    job.x = job.labels ? (source){.data = nyx__data(x), .item = sizeof(int64_t)}
                       : source_of(x, job.narrow ? NYX_FLOAT32 : NYX_FLOAT64);
    if (weight) job.weight = source_of(weight, NYX_FLOAT64);
    if (edges) {
      job.edges = nyx__data(edges);
      job.low = job.edges[0];
      job.high = job.edges[job.bins];
    }
    status = count_all(c->ctx, &job, c->out[0]);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(edges);
  nyx_tensor_release(weight);
  return status;
}

static const nyx_attr attrs[ATTRS] = {
    {.name = "bins", .type = NYX_ATTR_INT, .doc = "how many, where there are no edges"},
    {.name = "min",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 0, .given = true},
     .doc = "the lower edge of the first bin"},
    {.name = "max",
     .type = NYX_ATTR_FLOAT,
     .preset = {.f = 1, .given = true},
     .doc = "the upper edge of the last bin"},
    {.name = "even",
     .type = NYX_ATTR_BOOL,
     .preset = {.i = 0, .given = true},
     .doc = "edges are of about equal width: bins are found faster"}};

const nyx_op nyx__op_bin_counts = {
    .name = "bin_counts",
    .group = "reduction",
    .doc =
        "How many elements of x lie in each bin, int64: between neighbours of ascending "
        "edges, or `bins` of equal width from min to max; the last bin has its upper "
        "edge "
        "too. With weight, of x's shape, the sum of the weights of these, in its dtype. "
        "What lies outside, and nan, counts nowhere. See histc, histogram, bincount.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_ALL,
    .inputs = "x edges weight",
    .min_in = 1,
    .max_in = INPUTS,
    .attrs = attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .cases =
        "x(3,40); bins=5 min=-2 max=3\n"
        "x(70); bins=1",
    .domain = {-4, 4},
};
