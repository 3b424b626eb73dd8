/* The gradients of attention (Dao: "FlashAttention-2", 2023): weights are computed once
 * more, block by block, from the log-sum-exp of each query. A task has some blocks of
 * keys of one head: it adds up their dk and dv over all queries, and what they give to dq
 * in a sum of its own, which are added up last, in order. Weights and their gradients of
 * a block, queries x keys, are left factors of dv, dk and dq where they lie. Read next:
 * attention_cpu.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "attention.h"

#define KEYS 128    /* of a block, about: NYX_APART holds so many */
#define QUERIES 128 /* the same */
#define TASKS 32    /* wanted: with few heads, blocks of keys are dealt out to several */
#define EACH 4      /* heads for every thread are enough, if none is left */
#define CACHED (7 << 18) /* and if its copies and sums stay in the second cache */
#define COPY_WORK 32768  /* elements, and multiplications, worth waking a thread for */
#define TASK_WORK 1048576

/* What all tasks share: copies of some heads of queries, by blocks of queries, panels of
 * queries (q scaled, g), and panels of their columns (q as it is, g). */
typedef struct back {
  nyx__attention *a;
  const nyx__heads *g_of;
  int64_t first, heads, rows;      /* of keys, at once; queries of one */
  int64_t block, blocks;           /* queries of a block; blocks */
  int64_t apart;                   /* from row to row of a block */
  bool alone;                      /* heads one by one, each by one thread */
  int64_t keys, key_blocks, parts; /* keys of a block; blocks; tasks of a head */
  int64_t columns, v_columns;      /* of q and g, to whole tiles */
  char *q, *g, *q_columns, *g_columns, *delta;
  char *dq, *dk, *dv;
  char *partial; /* dq of every task but the first ones: parts - 1 x heads x lq x d */
} back;

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Copies blocks of queries, and finds each query's delta: g . out. */
static void copy_queries(void *arg, int64_t begin, int64_t end) {
  const back *b = arg;
  const nyx__attention *a = b->a;
  const nyx_gemm_kernel *gemm = a->gemm;
  int64_t item = a->item;
  for (int64_t i = begin; i < end; i++) {
    int64_t own = i / b->blocks, q0 = i % b->blocks * b->block;
    int64_t head = b->first * a->group + own, at = own * a->lq + q0;
    int64_t n = least(a->lq - q0, b->block), row = head * a->lq + q0;
    const char *q = nyx__head(&a->q, head) + q0 * a->q.row * item;
    const char *g = nyx__head(b->g_of, head) + q0 * b->g_of->row * item;
    char *rows = b->q + at * a->d * item;
    gemm->pack_a(q, a->q.row, 1, n, a->panel, a->d, rows);
    a->rows->scale(rows, n * a->d, a->scale, rows);
    gemm->pack_a(g, b->g_of->row, 1, n, a->panel, a->dv, b->g + at * a->dv * item);
    gemm->pack_b(q, a->q.row, 1, n, a->d, b->q_columns + at * b->columns * item);
    gemm->pack_b(g, b->g_of->row, 1, n, a->dv, b->g_columns + at * b->v_columns * item);
    for (int64_t r = 0; r < n; r++) {
      const char *out = a->out + (row + r) * a->dv * item;
      nyx__store_double(a->dtype, b->delta + (at + r) * item,
                        a->rows->dot(g + r * b->g_of->row * item, out, a->dv));
    }
  }
}

/* One block of keys: copies of it, and room for weights of a block of queries and their
 * gradients, whose rows lie b->apart elements apart. */
typedef struct key_block {
  int64_t head, k0, n; /* head of keys, the first one, how many */
  bool add;            /* dq has sums of keys before these */
  char *k, *v, *k_columns, *scores, *grads;
  uint32_t *words; /* which weights dropout keeps, of a block of queries */
} key_block;

/* Rows of words. */
static int64_t block_words(const back *b) {
  return b->a->seeds ? nyx__attention_words(NYX_KEEP_KEYS - 1, b->keys) : 0;
}

static int64_t scratch_elements(const back *b) {
  const nyx__attention *a = b->a;
  return b->keys * (a->d + a->dv + b->columns) +
         b->block * (2 * b->apart + block_words(b));
}

static void open_keys(const back *b, int64_t head, int64_t k0, char *scratch,
                      key_block *k) {
  const nyx__attention *a = b->a;
  int64_t item = a->item;
  *k = (key_block){.head = head, .k0 = k0, .n = least(a->lk - k0, b->keys)};
  k->k = scratch;
  k->v = k->k + b->keys * a->d * item;
  k->k_columns = k->v + b->keys * a->dv * item;
  k->scores = k->k_columns + b->keys * b->columns * item;
  k->grads = k->scores + b->block * b->apart * item;
  k->words = (uint32_t *)(void *)(k->grads + b->block * b->apart * item);
  const char *keys = nyx__head(&a->k, head) + k0 * a->k.row * item;
  const char *values = nyx__head(&a->v, head) + k0 * a->v.row * item;
  a->gemm->pack_b(keys, 1, a->k.row, a->d, k->n, k->k);
  a->gemm->pack_b(values, 1, a->v.row, a->dv, k->n, k->v);
  a->gemm->pack_b(keys, a->k.row, 1, k->n, a->d, k->k_columns);
}

/* Nobody sees keys from `first` on of a block, so far. */
static void clear_keys(const back *b, const key_block *k, int64_t first) {
  const nyx__attention *a = b->a;
  int64_t at = k->head * a->lk + k->k0 + first, n = k->n - first;
  memset(b->dk + at * a->d * a->item, 0, (size_t)(n * a->d * a->item));
  memset(b->dv + at * a->dv * a->item, 0, (size_t)(n * a->dv * a->item));
}

/* Some queries of one head. */
typedef struct query_block {
  int64_t head, q0, n, at; /* at: the first one among the copies */
  bool add;                /* dk and dv have sums of queries before these */
  char *dq;
} query_block;

/* The first query that sees key k, or some key after it. */
static int64_t first_of(const back *b, int64_t k) {
  int64_t first = b->a->causal ? k - b->a->ahead : 0;
  return first <= 0 ? 0 : least(first, b->a->lq);
}

/* The first query of a block that counts for the tile with key c: that of a panel. */
static int64_t first_query(const back *b, const key_block *k, const query_block *q,
                           int64_t c) {
  int64_t first = first_of(b, k->k0 + c / b->a->tile * b->a->tile) - q->q0;
  return first > 0 ? first / b->a->panel * b->a->panel : 0;
}

/* Weights and gradients of the tile of keys c.., of the queries that count, and zeros for
 * those that counted for the tile before: panels of keys begin in one and end in another.
 */
static void weigh_tile(const back *b, const key_block *k, const query_block *q,
                       int64_t c) {
  const nyx__attention *a = b->a;
  int64_t w = a->tile, item = a->item, live = least(k->n - c, w);
  int64_t r0 = first_query(b, k, q, c), rows = q->n - r0,
          row = q->head * a->lq + q->q0 + r0;
  char *scores = k->scores + c * item, *grads = k->grads + c * item;
  for (int64_t r = c > 0 ? first_query(b, k, q, c - w) : 0; r < r0; r++) {
    memset(scores + r * b->apart * item, 0, (size_t)(w * item));
    memset(grads + r * b->apart * item, 0, (size_t)(w * item));
  }
  scores += r0 * b->apart * item;
  grads += r0 * b->apart * item;
  nyx_product p = {.m = rows, .n = w, .k = a->d, .c = scores, .ldc = b->apart};
  a->gemm->block(&p, a->panel, b->q + (q->at + r0) * a->d * item, k->k + c * a->d * item);
  p.k = a->dv;
  p.c = grads;
  a->gemm->block(&p, a->panel, b->g + (q->at + r0) * a->dv * item,
                 k->v + c * a->dv * item);
  nyx_attention_block block = {scores, live, rows, 1, b->apart};
  nyx__attention_exclude(a, &block, q->head, q->q0 + r0, k->k0 + c);
  nyx_attention_keep keep = {k->words + r0, q->n, k->k0 % NYX_KEEP_KEYS + c, a->kept};
  a->own->slope(scores, grads, rows, w, b->apart, a->lse + row * item,
                b->delta + (q->at + r0) * item, a->scale, a->seeds ? &keep : NULL);
}

/* Rows of dk or dv += the transposed block `left` x columns of q or g: `right`, panels of
 * q->n terms, of which `columns` columns count. */
static void add_keys(const back *b, const key_block *k, const query_block *q,
                     int64_t seen, const char *left, const char *right, int64_t columns,
                     char *to) {
  const nyx__attention *a = b->a;
  int64_t w = a->tile, item = a->item;
  nyx_product p = {.a_rs = 1, .a_cs = b->apart, .ldc = columns, .add = q->add};
  to += (k->head * a->lk + k->k0) * columns * item;
  for (int64_t i = 0; i < seen; i += a->panel) {
    int64_t r0 = first_query(b, k, q, i);
    p.m = least(seen - i, a->panel);
    p.k = q->n - r0;
    p.a = left + (r0 * b->apart + i) * item;
    for (int64_t j = 0; j < columns; j += w) {
      p.n = least(columns - j, w);
      p.c = to + (i * columns + j) * item;
      a->gemm->block(&p, p.m, NULL, right + (j * q->n + r0 * w) * item);
    }
  }
}

/* dq += gradients of the scores x keys; a panel of queries sees keys up to its last, and
 * some none. */
static void add_queries(const back *b, const key_block *k, const query_block *q) {
  const nyx__attention *a = b->a;
  int64_t w = a->tile, item = a->item;
  nyx_product p = {.a_rs = b->apart, .a_cs = 1, .ldc = a->d, .add = k->add};
  for (int64_t j = 0; j < a->d; j += w) {
    p.n = least(a->d - j, w);
    for (int64_t r = 0; r < q->n; r += a->panel) {
      p.m = least(q->n - r, a->panel);
      p.k = a->causal ? least(k->n, q->q0 + r + p.m + a->ahead - k->k0) : k->n;
      if (p.k < 1) continue; /* cleared */
      p.a = k->grads + r * b->apart * item;
      p.c = q->dq + (r * a->d + j) * item;
      a->gemm->block(&p, p.m, NULL, k->k_columns + j * k->n * item);
    }
  }
}

static void block_backward(const back *b, const key_block *k, const query_block *q) {
  const nyx__attention *a = b->a;
  int64_t seen = a->causal ? least(k->n, q->q0 + q->n + a->ahead - k->k0) : k->n;
  if (!q->add) clear_keys(b, k, seen);
  if (a->seeds)
    nyx__attention_keep(a, q->head, q->q0, q->n, k->k0 / NYX_KEEP_KEYS,
                        nyx__attention_words(k->k0, k->n) / 2, k->words);
  for (int64_t c = 0; c < seen; c += a->tile) weigh_tile(b, k, q, c);
  add_keys(b, k, q, seen, k->scores, b->g_columns + q->at * b->v_columns * a->item, a->dv,
           b->dv);
  add_keys(b, k, q, seen, k->grads, b->q_columns + q->at * b->columns * a->item, a->d,
           b->dk);
  add_queries(b, k, q);
}

/* dq of task `part` of a head, as far as it is summed up. */
static char *part_of_dq(const back *b, int64_t part, int64_t own) {
  const nyx__attention *a = b->a;
  int64_t size = a->lq * a->d * a->item;
  if (part == 0) return b->dq + (b->first * a->group + own) * size;
  return b->partial + ((part - 1) * b->heads * a->group + own) * size;
}

/* Zeros for the queries of a task that see none of its keys: whole panels of them. */
static void clear_queries(const back *b, int64_t head, int64_t part) {
  const nyx__attention *a = b->a;
  int64_t n = part < b->key_blocks ? first_of(b, part * b->keys) : a->lq;
  if (n < a->lq) n = n / a->panel * a->panel;
  for (int64_t own = head * a->group; own < (head + 1) * a->group; own++)
    memset(part_of_dq(b, part, own), 0, (size_t)(n * a->d * a->item));
}

/* All queries for blocks part, part + parts, ... of keys: causal ones take less time from
 * block to block. */
static void run_task(const back *b, int64_t head, int64_t part, char *scratch) {
  nyx__attention *a = b->a;
  clear_queries(b, head, part);
  for (int64_t i = part; i < b->key_blocks; i += b->parts) {
    key_block k;
    open_keys(b, b->first + head, i * b->keys, scratch, &k);
    k.add = i > part;
    int64_t first = first_of(b, k.k0), done = 0;
    for (int64_t own = head * a->group; own < (head + 1) * a->group; own++) {
      int64_t q0 = first < a->lq ? first / b->block * b->block : a->lq;
      for (; q0 < a->lq && nyx__attention_going(a); q0 += b->block) {
        query_block q = {.head = b->first * a->group + own, .q0 = q0, .add = done++ > 0};
        q.n = least(a->lq - q0, b->block);
        q.at = own * a->lq + q0;
        q.dq = part_of_dq(b, part, own) + q0 * a->d * a->item;
        block_backward(b, &k, &q);
      }
    }
    if (!done) clear_keys(b, &k, 0);
  }
}

static void run_tasks(void *arg, int64_t begin, int64_t end) {
  const back *b = arg;
  char *scratch = nyx__attention_scratch(b->a, scratch_elements(b));
  for (int64_t i = begin; scratch && i < end && nyx__attention_going(b->a); i++)
    run_task(b, i / b->parts, i % b->parts, scratch);
  nyx_memory_free(scratch);
}

#define ADD_PARTS(name, T)                                                               \
  static void name(const back *b, int64_t own) {                                         \
    int64_t n = b->a->lq * b->a->d;                                                      \
    T *restrict to = (T *)(void *)part_of_dq(b, 0, own);                                 \
    for (int64_t part = 1; part < b->parts; part++) {                                    \
      const T *restrict from = (const T *)(void *)part_of_dq(b, part, own);              \
      for (int64_t i = 0; i < n; i++) to[i] += from[i];                                  \
    }                                                                                    \
  }
ADD_PARTS(add_parts_f32, float)
ADD_PARTS(add_parts_f64, double)

static void add_parts(void *arg, int64_t begin, int64_t end) {
  const back *b = arg;
  for (int64_t own = begin; own < end; own++)
    (b->a->dtype == NYX_FLOAT32 ? add_parts_f32 : add_parts_f64)(b, own);
}

/* Of the copies, for each query. */
static int64_t query_elements(const back *b) {
  return b->a->d + b->a->dv + b->columns + b->v_columns + 1;
}

/* Sizes of all blocks; `heads` heads of keys at once. */
static void plan(back *b) {
  nyx__attention *a = b->a;
  b->block = QUERIES / a->panel * a->panel;
  b->blocks = (a->lq + b->block - 1) / b->block;
  b->keys = KEYS / a->tile * a->tile;
  b->key_blocks = (a->lk + b->keys - 1) / b->keys;
  b->apart = a->dtype == NYX_FLOAT32 ? NYX_APART(float) : NYX_APART(double);
  b->columns = (a->d + a->tile - 1) / a->tile * a->tile;
  b->v_columns = (a->dv + a->tile - 1) / a->tile * a->tile;
  b->rows = a->group * a->lq;
  b->heads = nyx__attention_heads(a, b->rows * query_elements(b));
  b->parts = 1;
  b->alone = b->heads == 1 && a->key_heads > 1;
  if (b->alone) return;
  b->parts = least(TASKS / (b->heads + 1) + 1, b->key_blocks > 0 ? b->key_blocks : 1);
  int64_t threads = nyx_parallel_threads(); /* only who copies depends on it, not what */
  int64_t bytes = (b->rows * (query_elements(b) + (b->parts - 1) * a->d)) * a->item;
  b->alone =
      a->key_heads >= EACH * threads && a->key_heads % threads == 0 && bytes <= CACHED;
  if (b->alone) b->heads = 1;
}

/* Memory for the copies, and for what tasks sum up apart. */
static bool open_copies(back *b) {
  nyx__attention *a = b->a;
  int64_t size = b->heads * b->rows, sums = (b->parts - 1) * size * a->d;
  b->q = nyx__attention_scratch(a, size * query_elements(b) + sums + 1);
  if (!b->q) return false;
  b->g = b->q + size * a->d * a->item;
  b->q_columns = b->g + size * a->dv * a->item;
  b->g_columns = b->q_columns + size * b->columns * a->item;
  b->delta = b->g_columns + size * b->v_columns * a->item;
  b->partial = b->delta + size * a->item;
  return true;
}

/* Heads one after the other, each copied by the task that uses it. */
static void run_heads(void *arg, int64_t begin, int64_t end) {
  const back *all = arg;
  back b = *all;
  if (!open_copies(&b)) return;
  for (b.first = begin; b.first < end && nyx__attention_going(b.a); b.first++) {
    copy_queries(&b, 0, b.a->group * b.blocks);
    run_tasks(&b, 0, b.parts);
    add_parts(&b, 0, b.a->group);
  }
  nyx_memory_free(b.q);
}

static void run_shared(back *b) {
  nyx__attention *a = b->a;
  int64_t step = b->heads;
  if (!open_copies(b)) return;
  for (; b->first < a->key_heads && nyx__attention_going(a); b->first += step) {
    b->heads = least(a->key_heads - b->first, step);
    int64_t own = b->heads * a->group;
    nyx_parallel_for(own * b->blocks, COPY_WORK / (b->block * (a->d + a->dv) + 1) + 1,
                     copy_queries, b);
    nyx_parallel_for(b->heads * b->parts, 1, run_tasks, b);
    if (b->parts > 1 && nyx__attention_going(a))
      nyx_parallel_for(own, COPY_WORK / (a->lq * a->d + 1) + 1, add_parts, b);
  }
  nyx_memory_free(b->q);
}

nyx_status nyx__attention_backward(nyx__attention *a, const nyx__heads *g, char *dq,
                                   char *dk, char *dv) {
  back b = {.a = a, .g_of = g, .dq = dq, .dk = dk, .dv = dv};
  plan(&b);
  if (b.alone)
    nyx_parallel_for(a->key_heads, TASK_WORK / (b.rows * a->lk * (a->d + a->dv) + 1) + 1,
                     run_heads, &b);
  else if (a->key_heads > 0)
    run_shared(&b);
  return nyx__attention_end(a);
}
