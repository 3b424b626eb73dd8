/* Attention in blocks (Dao: "FlashAttention-2", 2023): scores of some keys against some
 * queries exist at a time, and results are corrected when a greater score comes. Blocks
 * are keys x queries, so that the softmax runs down the columns and the weights are the
 * right factor of the next product as they lie. Few queries, as in decoding, are bound by
 * reading keys and values: those are read once, in place, by ranges of keys whose results
 * are merged. All is divided by size: results do not depend on the number of threads.
 * Read next: kernels/cpu/attention.h, kernels/cpu/gemm.h. */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "attention.h"

#define KEYS 128          /* of a block, about */
#define TILES 4           /* blocks of queries that a task takes */
#define FEW 8             /* queries that are taken one by one */
#define RANGE 512         /* keys of a range then */
#define RANGE_WORK 32768  /* elements of keys worth waking a thread for */
#define TASK_WORK 1048576 /* the same, multiplications */
#define PACKED (64 << 20) /* bytes of packed copies at once, unless one head has more */
#define MANY_HEADS 24     /* tasks enough, so that each can have a head */
#define CACHED (1 << 20)  /* if its copies stay in the cache */

/* ------------------------------------------------------------------ shared parts */

void nyx__heads_of(const nyx_tensor *t, nyx__heads *h) {
  *h = (nyx__heads){.data = nyx__data(t), .item = (int64_t)nyx_dtype_size(t->dtype)};
  h->ndim = t->ndim - 2;
  memcpy(h->shape, t->shape, (size_t)h->ndim * sizeof *h->shape);
  memcpy(h->stride, t->stride, (size_t)h->ndim * sizeof *h->stride);
  h->row = t->stride[t->ndim - 2];
  h->column = t->stride[t->ndim - 1];
}

char *nyx__head(const nyx__heads *h, int64_t i) {
  int64_t at = 0;
  for (int d = h->ndim - 1; d >= 0; d--) {
    at += i % h->shape[d] * h->stride[d];
    i /= h->shape[d];
  }
  return h->data + at * h->item;
}

void nyx__attention_plan(nyx__attention *a) {
  const nyx_cpu_kernels *cpu = nyx__cpu_kernels();
  bool wide = a->dtype == NYX_FLOAT64;
  a->item = (int64_t)nyx_dtype_size(a->dtype);
  a->gemm = &cpu->gemm->type[wide];
  a->own = cpu->attention->type[wide];
  a->rows = cpu->softmax->type[wide];
  a->tile = a->gemm->tile_cols;
  a->panel = a->gemm->tile_rows;
  atomic_init(&a->status, NYX_OK);
}

bool nyx__attention_going(nyx__attention *a) {
  if (nyx__interrupted(a->ctx)) atomic_store(&a->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&a->status, memory_order_relaxed) == NYX_OK;
}

char *nyx__attention_scratch(nyx__attention *a, int64_t elements) {
  char *p = nyx_memory_alloc((size_t)(elements * a->item));
  if (!p) atomic_store(&a->status, NYX_ERR_MEMORY);
  return p;
}

nyx_status nyx__attention_end(nyx__attention *a) {
  switch (atomic_load(&a->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(a->ctx, INTERRUPTED);
    default: return nyx__no_memory(a->ctx, (size_t)(a->d + a->dv) * (size_t)a->item);
  }
}

int64_t nyx__attention_heads(const nyx__attention *a, int64_t elements) {
  int64_t bytes = elements * a->item, most = PACKED / (bytes + 1);
  if (a->key_heads >= MANY_HEADS && bytes <= CACHED) return 1;
  if (most < 1) most = 1;
  return most < a->key_heads ? most : a->key_heads;
}

void nyx__attention_exclude(const nyx__attention *a, const nyx_attention_block *b,
                            int64_t head, int64_t q, int64_t k) {
  if (a->mask.data) {
    nyx_attention_mask m = {.flags = a->flags, .key = a->mask.column};
    m.query = a->mask.row;
    m.at =
        nyx__head(&a->mask, head) + (q * a->mask.row + k * a->mask.column) * a->mask.item;
    a->own->mask(b, &m);
  }
  if (a->causal && k + b->keys - 1 > q) a->own->causal(b, q - k);
}

/* ------------------------------------------------------------------ many queries */

/* Keys and values of some heads, packed: by blocks of keys, panels of keys and panels of
 * transposed values. */
typedef struct many {
  nyx__attention *a;
  int64_t first, block, blocks,
      parts; /* head of keys; keys of a block; tasks of a head */
  char *k, *v;
} many;

static void pack_blocks(void *arg, int64_t begin, int64_t end) {
  const many *m = arg;
  const nyx__attention *a = m->a;
  for (int64_t i = begin; i < end; i++) {
    int64_t head = i / m->blocks, k0 = i % m->blocks * m->block;
    int64_t n = a->lk - k0 < m->block ? a->lk - k0 : m->block, at = head * a->lk + k0;
    a->gemm->pack_a(nyx__head(&a->k, m->first + head) + k0 * a->k.row * a->item, a->k.row,
                    1, n, a->panel, a->d, m->k + at * a->d * a->item);
    a->gemm->pack_a(nyx__head(&a->v, m->first + head) + k0 * a->v.row * a->item, 1,
                    a->v.row, a->dv, a->panel, n, m->v + at * a->dv * a->item);
  }
}

/* One tile of queries: transposed and scaled, their results so far, transposed too. */
typedef struct tile {
  int64_t q0, live; /* the first query; how many there are */
  char *q, *o, *most, *sum;
} tile;

/* Queries q0.. of one head. */
typedef struct task {
  const many *m;
  nyx__attention *a;
  int64_t head, tiles;
  tile tile[TILES];
  char *scores, *factor;
} task;

static void fill(const nyx__attention *a, char *to, int64_t n, double value) {
  for (int64_t i = 0; i < n; i++) nyx__store_double(a->dtype, to + i * a->item, value);
}

/* Gives every tile its part of the scratch. */
static void open_tiles(task *t, int64_t q0, char *scratch) {
  const nyx__attention *a = t->a;
  int64_t w = a->tile;
  const char *from = nyx__head(&a->q, t->head);
  t->scores = scratch;
  t->factor = t->scores + t->m->block * w * a->item;
  char *next = t->factor + w * a->item;
  for (t->tiles = 0; t->tiles < TILES && q0 < a->lq; t->tiles++, q0 += w) {
    tile *own = &t->tile[t->tiles];
    own->q0 = q0;
    own->live = a->lq - q0 < w ? a->lq - q0 : w;
    own->q = next;
    own->o = own->q + a->d * w * a->item;
    own->most = own->o + a->dv * w * a->item;
    own->sum = own->most + w * a->item;
    next = own->sum + w * a->item;
    a->gemm->pack_b(from + q0 * a->q.row * a->item, 1, a->q.row, a->d, own->live, own->q);
    a->rows->scale(own->q, a->d * w, a->scale, own->q);
    fill(a, own->most, w, -INFINITY);
    fill(a, own->sum, w, 0);
    if (a->lk == 0) fill(a, own->o, a->dv * w, 0);
  }
}

static int64_t task_elements(const many *m) {
  const nyx__attention *a = m->a;
  return a->tile * (m->block + 1 + TILES * (a->d + a->dv + 2));
}

/* Keys k0..k0+n-1, of a block of `depth`, for one tile. */
static void attend(const task *t, const tile *own, int64_t k0, int64_t n, int64_t depth) {
  const nyx__attention *a = t->a;
  int64_t w = a->tile, at = (t->head / a->group - t->m->first) * a->lk + k0;
  nyx_product p = {.m = n, .n = w, .k = a->d, .c = t->scores, .ldc = w};
  a->gemm->block(&p, a->panel, t->m->k + at * a->d * a->item, own->q);
  nyx_attention_block b = {t->scores, n, own->live, w, 1};
  nyx__attention_exclude(a, &b, t->head, own->q0, k0);
  a->own->soften(t->scores, n, w, own->most, own->sum, t->factor);
  if (k0 > 0) a->own->rescale(own->o, a->dv, w, t->factor);
  p = (nyx_product){.n = w, .k = n, .b = t->scores, .b_rs = w, .b_cs = 1, .ldc = w};
  p.add = k0 > 0;
  const char *values = t->m->v + at * a->dv * a->item;
  for (int64_t i = 0; i < a->dv; i += a->panel) { /* one by one: n < depth */
    p.m = a->dv - i < a->panel ? a->dv - i : a->panel;
    p.c = own->o + i * w * a->item;
    a->gemm->block(&p, p.m, values + i * depth * a->item, NULL);
  }
}

/* Divides by the sums and turns the results. Where nothing was seen they are 0, and the
 * log-sum-exp is inf, with which e^(score - lse) is 0 for backward, too. */
static void close_tile(const task *t, const tile *own) {
  const nyx__attention *a = t->a;
  int64_t w = a->tile, row = t->head * a->lq + own->q0;
  for (int64_t i = 0; i < w; i++) {
    double most = nyx__load_double(a->dtype, own->most + i * a->item);
    double sum = nyx__load_double(a->dtype, own->sum + i * a->item);
    nyx__store_double(a->dtype, t->factor + i * a->item, sum == 0 ? 0 : 1 / sum);
    if (i < own->live)
      nyx__store_double(a->dtype, a->lse + (row + i) * a->item,
                        sum == 0 ? INFINITY : most + log(sum));
  }
  a->own->rescale(own->o, a->dv, w, t->factor);
  a->gemm->pack_a(own->o, w, 1, a->dv, a->dv, own->live, a->out + row * a->dv * a->item);
}

static void attend_all(task *t) {
  const nyx__attention *a = t->a;
  const tile *last = &t->tile[t->tiles - 1];
  int64_t seen = last->q0 + last->live; /* by the last query, when causal */
  if (!a->causal || seen > a->lk) seen = a->lk;
  for (int64_t k0 = 0; k0 < seen && nyx__attention_going(t->a); k0 += t->m->block) {
    int64_t depth = a->lk - k0 < t->m->block ? a->lk - k0 : t->m->block;
    for (int64_t i = 0; i < t->tiles; i++) {
      const tile *own = &t->tile[i];
      int64_t n = depth;
      if (a->causal && own->q0 + own->live - k0 < n) n = own->q0 + own->live - k0;
      if (n <= 0) continue;
      n = (n + a->panel - 1) / a->panel * a->panel; /* whole panels */
      attend(t, own, k0, n < depth ? n : depth, depth);
    }
  }
  for (int64_t i = 0; i < t->tiles; i++) close_tile(t, &t->tile[i]);
}

/* Later queries, which see more keys when causal, come first. */
static void run_tasks(void *arg, int64_t begin, int64_t end) {
  const many *m = arg;
  nyx__attention *a = m->a;
  char *scratch = nyx__attention_scratch(a, task_elements(m));
  for (int64_t i = begin; scratch && i < end && nyx__attention_going(a); i++) {
    int64_t part = m->parts - 1 - i % m->parts;
    task t = {.m = m, .a = a, .head = m->first * a->group + i / m->parts};
    open_tiles(&t, part * TILES * a->tile, scratch);
    attend_all(&t);
  }
  nyx_memory_free(scratch);
}

/* Heads one after the other, each packed by the task that uses it. */
static void run_heads(void *arg, int64_t begin, int64_t end) {
  const many *m = arg;
  nyx__attention *a = m->a;
  many own = *m;
  own.k = nyx__attention_scratch(a, a->lk * (a->d + a->dv) + 1);
  own.v = own.k + a->lk * a->d * a->item;
  for (own.first = begin; own.k && own.first < end; own.first++) {
    pack_blocks(&own, 0, own.blocks);
    run_tasks(&own, 0, a->group * own.parts);
  }
  nyx_memory_free(own.k);
}

static nyx_status forward_many(nyx__attention *a) {
  many m = {.a = a, .block = KEYS / a->panel * a->panel};
  m.blocks = (a->lk + m.block - 1) / m.block;
  m.parts = (a->lq + TILES * a->tile - 1) / (TILES * a->tile);
  int64_t one = a->lk * (a->d + a->dv), heads = nyx__attention_heads(a, one);
  if (heads == 1 && a->key_heads > 1) {
    nyx_parallel_for(a->key_heads, TASK_WORK / (one * a->group * a->lq + 1) + 1,
                     run_heads, &m);
    return nyx__attention_end(a);
  }
  m.k = nyx__attention_scratch(a, heads * one + 1);
  m.v = m.k + heads * a->lk * a->d * a->item;
  int64_t work = one * (a->lq < TILES * a->tile ? a->lq : TILES * a->tile);
  for (; m.k && m.first < a->key_heads && nyx__attention_going(a); m.first += heads) {
    if (a->key_heads - m.first < heads) heads = a->key_heads - m.first;
    nyx_parallel_for(heads * m.blocks, RANGE_WORK / (m.block * (a->d + a->dv) + 1) + 1,
                     pack_blocks, &m);
    nyx_parallel_for(heads * a->group * m.parts, TASK_WORK / (work + 1) + 1, run_tasks,
                     &m);
  }
  nyx_memory_free(m.k);
  return nyx__attention_end(a);
}

/* ------------------------------------------------------------------ few queries */

/* What ranges of keys give for one query: the greatest score, the sum, dv values. */
typedef struct few {
  nyx__attention *a;
  int64_t ranges;
  char *parts; /* heads x queries x ranges x dv */
  double *most, *sum;
} few;

static void run_ranges(void *arg, int64_t begin, int64_t end) {
  const few *f = arg;
  nyx__attention *a = f->a;
  double scores[RANGE]; /* of either type */
  for (int64_t i = begin; i < end && nyx__attention_going(a); i++) {
    int64_t key_head = i / f->ranges, range = i % f->ranges, k0 = range * RANGE;
    int64_t keys = a->lk - k0 < RANGE ? a->lk - k0 : RANGE;
    const char *k = nyx__head(&a->k, key_head) + k0 * a->k.row * a->item;
    const char *v = nyx__head(&a->v, key_head) + k0 * a->v.row * a->item;
    for (int64_t r = 0; r < a->group * a->lq; r++) {
      int64_t head = key_head * a->group + r / a->lq, q = r % a->lq, n = keys;
      int64_t at = (head * a->lq + q) * f->ranges + range;
      if (a->causal && q + 1 - k0 < n) n = q + 1 < k0 ? 0 : q + 1 - k0;
      a->own->dots(nyx__head(&a->q, head) + q * a->q.row * a->item, k, a->k.row, n, a->d,
                   a->scale, scores);
      nyx_attention_block b = {scores, n, 1, 1, 1};
      nyx__attention_exclude(a, &b, head, q, k0);
      f->sum[at] = a->rows->exp_sum(scores, n, &f->most[at], scores);
      a->own->mix(scores, v, a->v.row, n, a->dv, f->parts + at * a->dv * a->item);
    }
  }
}

/* The ranges of every query, in order. */
static void merge_ranges(void *arg, int64_t begin, int64_t end) {
  const few *f = arg;
  const nyx__attention *a = f->a;
  for (int64_t r = begin; r < end; r++) {
    double *most = f->most + r * f->ranges, *sum = f->sum + r * f->ranges;
    double top = -INFINITY, all = 0;
    for (int64_t i = 0; i < f->ranges; i++)
      if (most[i] > top) top = most[i];
    for (int64_t i = 0; i < f->ranges; i++) {
      most[i] = most[i] == top ? 1 : exp(most[i] - top);
      all += most[i] * sum[i];
    }
    for (int64_t i = 0; i < f->ranges; i++) /* weights, in their type, over `sum` */
      nyx__store_double(a->dtype, (char *)sum + i * a->item,
                        all == 0 ? 0 : most[i] / all);
    a->own->mix(sum, f->parts + r * f->ranges * a->dv * a->item, a->dv, f->ranges, a->dv,
                a->out + r * a->dv * a->item);
    nyx__store_double(a->dtype, a->lse + r * a->item,
                      all == 0 ? INFINITY : top + log(all));
  }
}

static nyx_status forward_few(nyx__attention *a) {
  few f = {.a = a, .ranges = (a->lk + RANGE - 1) / RANGE};
  int64_t rows = a->key_heads * a->group * a->lq, count = rows * f.ranges;
  size_t bytes = (size_t)count * 2 * sizeof(double);
  f.most = nyx_memory_alloc(bytes + (size_t)(count * a->dv * a->item) + 1);
  if (!f.most) return nyx__no_memory(a->ctx, bytes);
  f.sum = f.most + count;
  f.parts = (char *)(f.sum + count);
  int64_t keys = a->lk < RANGE ? a->lk : RANGE;
  int64_t work = keys * (a->d + a->dv) * a->group * a->lq + 1;
  nyx_parallel_for(a->key_heads * f.ranges, RANGE_WORK / work + 1, run_ranges, &f);
  if (nyx__attention_going(a))
    nyx_parallel_for(rows, RANGE_WORK / (f.ranges * a->dv + 1) + 1, merge_ranges, &f);
  nyx_memory_free(f.most);
  return nyx__attention_end(a);
}

nyx_status nyx__attention_forward(nyx__attention *a) {
  return a->lq <= FEW ? forward_few(a) : forward_many(a);
}
