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
#define STEP 32           /* of which so many are used by all queries, while in a cache */
#define RANGE_WORK 32768  /* elements of keys worth waking a thread for */
#define TASK_WORK 1048576 /* the same, multiplications */
#define PACKED (64 << 20) /* bytes of packed copies at once, unless one head has more */
#define MANY_HEADS 24     /* tasks enough, so that each can have a head */
#define CACHED (1 << 20)  /* if its copies stay in the cache */
#define EACH 4 /* so many for every thread are enough forward, if none is left */

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
  q += a->ahead;
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
  uint32_t *words;      /* which weights stay, of the groups of keys from `group` on */
  int64_t group, drawn; /* the first group that is not there yet */
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

/* How many keys the queries of a tile see. */
static int64_t seen_by(const nyx__attention *a, const tile *own) {
  int64_t seen = own->q0 + own->live + a->ahead;
  return !a->causal || seen > a->lk ? a->lk : seen < 0 ? 0 : seen;
}

/* Rows of words of one tile, whose groups of keys need not begin where blocks do. */
static int64_t tile_words(const many *m) {
  return m->a->seeds ? nyx__attention_words(NYX_KEEP_KEYS - 1, m->block) : 0;
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
    own->words = (uint32_t *)(void *)next;
    own->group = own->drawn = 0;
    next += tile_words(t->m) * w * a->item;
    a->gemm->pack_b(from + q0 * a->q.row * a->item, 1, a->q.row, a->d, own->live, own->q);
    a->rows->scale(own->q, a->d * w, a->scale, own->q);
    fill(a, own->most, w, -INFINITY);
    fill(a, own->sum, w, 0);
    if (seen_by(a, own) == 0) fill(a, own->o, a->dv * w, 0);
  }
}

static int64_t task_elements(const many *m) {
  const nyx__attention *a = m->a;
  return a->tile * (m->block + 1 + TILES * (a->d + a->dv + 2 + tile_words(m)));
}

/* Dropout of the weights of keys k0..k0+n-1. The last group of keys may be part of two
 * blocks. */
static void drop_weights(const task *t, tile *own, int64_t k0, int64_t n) {
  const nyx__attention *a = t->a;
  int64_t w = a->tile, first = k0 / NYX_KEEP_KEYS, known = own->drawn - first;
  int64_t end = first + nyx__attention_words(k0, n) / 2;
  if (known > 0)
    memmove(own->words, own->words + 2 * (first - own->group) * w,
            (size_t)(2 * known * w) * sizeof *own->words);
  else
    known = 0;
  if (end > first + known)
    nyx__attention_keep(a, t->head, own->q0, w, first + known, end - first - known,
                        own->words + 2 * known * w);
  own->group = first;
  own->drawn = end;
  nyx_attention_block b = {t->scores, n, w, w, 1};
  a->own->drop(&b, &(nyx_attention_keep){own->words, w, k0 % NYX_KEEP_KEYS, 0});
}

/* Asks for where close_tile will write elements `first`.. of each result: nothing guesses
 * that before it comes. */
static void ask_results(const task *t, const tile *own, int64_t first, int64_t n) {
  const nyx__attention *a = t->a;
  char *out = a->out + (t->head * a->lq + own->q0) * a->dv * a->item;
  int64_t bytes = own->live * a->item;
  out += first * bytes;
  for (int64_t i = 0; i < n * bytes; i += 64) __builtin_prefetch(out + i, 1);
}

/* Keys k0..k0+n-1, of a block of `depth`, for one tile. */
static void attend(const task *t, tile *own, int64_t k0, int64_t n, int64_t depth) {
  const nyx__attention *a = t->a;
  int64_t w = a->tile, at = (t->head / a->group - t->m->first) * a->lk + k0;
  nyx_product p = {.m = n, .n = w, .k = a->d, .c = t->scores, .ldc = w};
  a->gemm->block(&p, a->panel, t->m->k + at * a->d * a->item, own->q);
  nyx_attention_block b = {t->scores, n, own->live, w, 1};
  nyx__attention_exclude(a, &b, t->head, own->q0, k0);
  a->own->soften(t->scores, n, w, own->most, own->sum, t->factor);
  if (k0 > 0) a->own->rescale(own->o, a->dv, w, t->factor);
  if (a->seeds) drop_weights(t, own, k0, n);
  p = (nyx_product){.n = w, .k = n, .b = t->scores, .b_rs = w, .b_cs = 1, .ldc = w};
  p.add = k0 > 0;
  const char *values = t->m->v + at * a->dv * a->item;
  bool last = k0 + depth >= seen_by(a, own);
  for (int64_t i = 0; i < a->dv; i += a->panel) { /* one by one: n < depth */
    p.m = a->dv - i < a->panel ? a->dv - i : a->panel;
    if (last) ask_results(t, own, i, p.m);
    p.c = own->o + i * w * a->item;
    a->gemm->block(&p, p.m, values + i * depth * a->item, NULL);
  }
}

/* Divides by the sums and turns the results. Where nothing was seen they are 0, and the
 * log-sum-exp is inf, with which e^(score - lse) is 0 for backward, too. */
static void close_tile(const task *t, const tile *own) {
  const nyx__attention *a = t->a;
  int64_t w = a->tile, row = t->head * a->lq + own->q0;
  a->own->finish(w, own->most, own->sum, t->factor);
  memcpy(a->lse + row * a->item, own->sum, (size_t)(own->live * a->item));
  if (a->seeds) a->rows->scale(t->factor, w, a->kept, t->factor);
  a->own->rescale(own->o, a->dv, w, t->factor);
  a->gemm->pack_a(own->o, w, 1, a->dv, a->dv, own->live, a->out + row * a->dv * a->item);
}

static void attend_all(task *t) {
  const nyx__attention *a = t->a;
  int64_t seen = seen_by(a, &t->tile[t->tiles - 1]);
  for (int64_t k0 = 0; k0 < seen && nyx__attention_going(t->a); k0 += t->m->block) {
    int64_t depth = a->lk - k0 < t->m->block ? a->lk - k0 : t->m->block;
    for (int64_t i = 0; i < t->tiles; i++) {
      tile *own = &t->tile[i];
      int64_t n = seen_by(a, own) - k0 < depth ? seen_by(a, own) - k0 : depth;
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
  int64_t threads = nyx_parallel_threads(); /* only who packs depends on it, not what */
  bool even = a->key_heads >= EACH * threads && a->key_heads % threads == 0;
  if (even && one * a->item <= CACHED) heads = 1;
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

/* What ranges of keys give for one query: the greatest score, the sum, dv values. Rows
 * are the queries of all heads that share a head of keys. */
typedef struct few {
  nyx__attention *a;
  int64_t ranges, rows; /* of keys; of one head of keys */
  char *parts;          /* heads of keys x rows x ranges x dv */
  double *most, *sum;
} few;

/* `keys` rows of d elements as numbers of the type that is computed in, *rs apart. */
static const char *rows_of(const nyx__attention *a, const char *from, int64_t keys,
                           int64_t d, int64_t *rs, char *room) {
  if (!a->widen) return from;
  if (*rs == d) {
    a->widen(keys * d, from, 1, room);
  } else {
    for (int64_t i = 0; i < keys; i++)
      a->widen(d, from + i * *rs * a->k.item, 1, room + i * d * a->item);
  }
  *rs = d;
  return room;
}

/* Dropout of the weights of one head's queries, rows of a range of keys. */
static void drop_rows(const nyx__attention *a, int64_t head, int64_t k0, int64_t keys,
                      char *weights) {
  uint32_t words[FEW * RANGE / 32];
  nyx__attention_keep(a, head, 0, a->lq, k0 / NYX_KEEP_KEYS,
                      nyx__attention_words(k0, keys) / 2, words);
  nyx_attention_block b = {weights, keys, a->lq, 1, RANGE};
  a->own->drop(&b, &(nyx_attention_keep){words, a->lq, 0, 0});
}

/* Elements of a query that is split, or none if it is used where it lies. */
static int64_t split_elements(const nyx__attention *a) {
  int64_t pair = a->own->pair;
  return a->kind == NYX_KEYS_BFLOAT16 ? (a->d + pair - 1) / pair * pair : 0;
}

/* All rows of a head of keys, as `dots` wants them. */
static void find_queries(const few *f, int64_t key_head, const void **q, char *room) {
  const nyx__attention *a = f->a;
  int64_t bytes = split_elements(a) * a->item;
  for (int64_t r = 0; r < f->rows; r++, room += bytes) {
    q[r] = nyx__head(&a->q, key_head * a->group + r / a->lq) +
           r % a->lq * a->q.row * a->item;
    if (bytes == 0) continue;
    a->own->split(q[r], a->d, room);
    q[r] = room;
  }
}

/* The scores of all rows, and their softmax within the range. */
static void weigh_range(const few *f, int64_t key_head, int64_t k0, int64_t keys,
                        const void **q, char *scores, char *room) {
  const nyx__attention *a = f->a;
  const char *from = nyx__head(&a->k, key_head);
  for (int64_t i = 0; i < keys; i += STEP) {
    int64_t n = keys - i < STEP ? keys - i : STEP, rs = a->k.row;
    const char *k =
        rows_of(a, from + (k0 + i) * a->k.row * a->k.item, n, a->d, &rs, room);
    a->own->dots(q, f->rows, k, a->kind, rs, n, a->d, a->scale, scores + i * a->item,
                 RANGE);
  }
  for (int64_t r = 0; r < f->rows; r++) {
    int64_t head = key_head * a->group + r / a->lq;
    int64_t at = (key_head * f->rows + r) * f->ranges + k0 / RANGE;
    char *own = scores + r * RANGE * a->item;
    nyx_attention_block b = {own, keys, 1, 1, 1};
    nyx__attention_exclude(a, &b, head, r % a->lq, k0);
    f->sum[at] = a->rows->exp_sum(own, keys, &f->most[at], own);
  }
  for (int64_t r = 0; a->seeds && r < f->rows; r += a->lq)
    drop_rows(a, key_head * a->group + r / a->lq, k0, keys, scores + r * RANGE * a->item);
}

static void run_ranges(void *arg, int64_t begin, int64_t end) {
  const few *f = arg;
  nyx__attention *a = f->a;
  int64_t widest = a->widen ? STEP * (a->d > a->dv ? a->d : a->dv) : 0;
  int64_t pointers = (int64_t)sizeof(void *) / a->item;
  int64_t each = RANGE + pointers + split_elements(a);
  char *scratch = nyx__attention_scratch(a, f->rows * each + widest + 1);
  const void **q = (const void **)(void *)scratch;
  char *scores = (char *)(q + f->rows), *own = scores + f->rows * RANGE * a->item;
  char *room = own + f->rows * split_elements(a) * a->item;
  for (int64_t i = begin; scratch && i < end && nyx__attention_going(a); i++) {
    int64_t key_head = i / f->ranges, range = i % f->ranges, k0 = range * RANGE;
    int64_t keys = a->lk - k0 < RANGE ? a->lk - k0 : RANGE;
    int64_t seen = a->causal && a->lq + a->ahead < a->lk ? a->lq + a->ahead : a->lk;
    if (seen - k0 < keys) keys = seen > k0 ? seen - k0 : 0; /* by the last query */
    find_queries(f, key_head, q, own);
    weigh_range(f, key_head, k0, keys, q, scores, room);
    char *out = f->parts + (key_head * f->rows * f->ranges + range) * a->dv * a->item;
    const char *from = nyx__head(&a->v, key_head);
    for (int64_t j = 0; j == 0 || j < keys; j += STEP) {
      int64_t n = keys - j < STEP ? keys - j : STEP, rs = a->v.row;
      const char *v =
          rows_of(a, from + (k0 + j) * a->v.row * a->v.item, n, a->dv, &rs, room);
      a->own->mix(scores + j * a->item, RANGE, f->rows, v, a->kind, rs, n, a->dv, out,
                  f->ranges * a->dv, j > 0);
    }
  }
  nyx_memory_free(scratch);
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
                        all == 0 ? 0 : most[i] / all * a->kept);
    a->own->mix(sum, f->ranges, 1, f->parts + r * f->ranges * a->dv * a->item,
                NYX_KEYS_OWN, a->dv, f->ranges, a->dv, a->out + r * a->dv * a->item,
                a->dv, false);
    nyx__store_double(a->dtype, a->lse + r * a->item,
                      all == 0 ? INFINITY : top + log(all));
  }
}

static nyx_status forward_few(nyx__attention *a) {
  few f = {.a = a, .ranges = (a->lk + RANGE - 1) / RANGE, .rows = a->group * a->lq};
  int64_t rows = a->key_heads * f.rows, count = rows * f.ranges;
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

bool nyx__attention_few(const nyx__attention *a) {
  return a->lq <= FEW;
}

nyx_status nyx__attention_forward(nyx__attention *a) {
  return nyx__attention_few(a) ? forward_few(a) : forward_many(a);
}
