/* The gradients of attention (Dao: "FlashAttention-2", 2023): weights are computed once
 * more, block by block, from the log-sum-exp of each query. A task has some blocks of
 * keys of one head: it adds up their dk and dv over all queries, and what they give to dq
 * in a sum of its own, which are added up last, in order. Blocks are queries x keys, so
 * that weights and their gradients are right factors of dv and dk as they lie; only for
 * dq they are packed. Read next: attention_cpu.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "attention.h"

#define KEYS 128    /* of a block, about */
#define QUERIES 128 /* the same */
#define TASKS 32    /* wanted: with few heads, blocks of keys are dealt out to several */
#define COPY_WORK 32768 /* elements, and multiplications, worth waking a thread for */
#define TASK_WORK 1048576

/* What all tasks share: copies of some heads of queries, by blocks of queries, panels of
 * queries (q scaled, g) and of their transposes (q as it is, g). */
typedef struct back {
  nyx__attention *a;
  const nyx__heads *g;
  int64_t first, heads, rows;      /* of keys, at once; queries of one */
  int64_t block, blocks;           /* queries of a block; blocks */
  int64_t keys, key_blocks, parts; /* keys of a block; blocks; tasks of a head */
  char *q, *g_rows, *q_turned, *g_turned, *delta;
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
    const char *g = nyx__head(b->g, head) + q0 * b->g->row * item;
    char *rows = b->q + at * a->d * item;
    gemm->pack_a(q, a->q.row, 1, n, a->panel, a->d, rows);
    a->rows->scale(rows, n * a->d, a->scale, rows);
    gemm->pack_a(g, b->g->row, 1, n, a->panel, a->dv, b->g_rows + at * a->dv * item);
    gemm->pack_a(q, 1, a->q.row, a->d, a->panel, n, b->q_turned + at * a->d * item);
    gemm->pack_a(g, 1, b->g->row, a->dv, a->panel, n, b->g_turned + at * a->dv * item);
    for (int64_t r = 0; r < n; r++) {
      const char *out = a->out + (row + r) * a->dv * item;
      nyx__store_double(a->dtype, b->delta + (at + r) * item,
                        a->rows->dot(g + r * b->g->row * item, out, a->dv));
    }
  }
}

/* One block of keys: copies of it, sums of its gradients (transposed, `padded` columns),
 * and room for one tile of scores and its gradients, and the latter packed. */
typedef struct key_block {
  int64_t head, k0, n, padded; /* head of keys, the first one, how many, to whole tiles */
  char *k, *v, *k_rows, *dk, *dv, *scores, *grads, *packed;
  uint32_t *words; /* which weights dropout keeps, of a block of queries */
} key_block;

/* Rows of words. */
static int64_t block_words(const back *b) {
  return b->a->seeds ? nyx__attention_words(NYX_KEEP_KEYS - 1, b->keys) : 0;
}

static int64_t scratch_elements(const back *b) {
  const nyx__attention *a = b->a;
  int64_t w = a->tile, columns = (a->d + w - 1) / w * w;
  return b->keys * (2 * (a->d + a->dv) + columns + b->block) +
         b->block * (2 * w + block_words(b));
}

static void open_keys(const back *b, int64_t head, int64_t k0, char *scratch,
                      key_block *k) {
  const nyx__attention *a = b->a;
  int64_t w = a->tile, columns = (a->d + w - 1) / w * w, item = a->item;
  *k = (key_block){.head = head, .k0 = k0, .n = least(a->lk - k0, b->keys)};
  k->padded = (k->n + w - 1) / w * w;
  k->k = scratch;
  k->v = k->k + b->keys * a->d * item;
  k->k_rows = k->v + b->keys * a->dv * item;
  k->dk = k->k_rows + b->keys * columns * item;
  k->dv = k->dk + b->keys * a->d * item;
  k->scores = k->dv + b->keys * a->dv * item;
  k->grads = k->scores + b->block * w * item;
  k->packed = k->grads + b->block * w * item;
  k->words = (uint32_t *)(void *)(k->packed + b->block * b->keys * item);
  const char *keys = nyx__head(&a->k, head) + k0 * a->k.row * item;
  const char *values = nyx__head(&a->v, head) + k0 * a->v.row * item;
  a->gemm->pack_b(keys, 1, a->k.row, a->d, k->n, k->k);
  a->gemm->pack_b(values, 1, a->v.row, a->dv, k->n, k->v);
  a->gemm->pack_b(keys, a->k.row, 1, k->n, a->d, k->k_rows);
  memset(k->dk, 0, (size_t)(k->padded * a->d * item));
  memset(k->dv, 0, (size_t)(k->padded * a->dv * item));
}

static void close_keys(const back *b, const key_block *k) {
  const nyx__attention *a = b->a;
  int64_t at = k->head * a->lk + k->k0;
  a->gemm->pack_a(k->dk, k->padded, 1, a->d, a->d, k->n, b->dk + at * a->d * a->item);
  a->gemm->pack_a(k->dv, k->padded, 1, a->dv, a->dv, k->n, b->dv + at * a->dv * a->item);
}

/* Some queries of one head. */
typedef struct query_block {
  int64_t head, q0, n, at; /* at: the first one among the copies */
  char *dq;
} query_block;

/* sums[rows x padded], from column c on, += left x right: `left` are transposed panels of
 * a block of q->n queries, of which those from r0 on count, `right` a tile. */
static void add_turned(const nyx__attention *a, const query_block *q, const char *left,
                       int64_t rows, int64_t r0, const char *right, char *sums,
                       int64_t padded, int64_t c) {
  nyx_product p = {.n = a->tile, .k = q->n - r0, .b = right, .b_rs = a->tile, .b_cs = 1};
  p.ldc = padded;
  p.add = true;
  for (int64_t i = 0; i < rows; i += a->panel) {
    p.m = least(rows - i, a->panel);
    p.c = sums + (i * padded + c) * a->item;
    a->gemm->block(&p, p.m, left + (i * q->n + r0 * p.m) * a->item, NULL);
  }
}

/* Keys c.. of a block, a tile, with the queries from r0 on. */
static void tile_backward(const back *b, const key_block *k, const query_block *q,
                          int64_t c, int64_t r0) {
  const nyx__attention *a = b->a;
  int64_t w = a->tile, item = a->item, rows = q->n - r0, live = least(k->n - c, w);
  nyx_product p = {.m = rows, .n = w, .k = a->d, .c = k->scores, .ldc = w};
  a->gemm->block(&p, a->panel, b->q + (q->at + r0) * a->d * item, k->k + c * a->d * item);
  p.k = a->dv;
  p.c = k->grads;
  a->gemm->block(&p, a->panel, b->g_rows + (q->at + r0) * a->dv * item,
                 k->v + c * a->dv * item);
  nyx_attention_block scores = {k->scores, live, rows, 1, w};
  nyx__attention_exclude(a, &scores, q->head, q->q0 + r0, k->k0 + c);
  nyx_attention_keep keep = {k->words + r0, q->n, k->k0 % NYX_KEEP_KEYS + c, a->kept};
  a->own->slope(k->scores, k->grads, rows, w,
                a->lse + (q->head * a->lq + q->q0 + r0) * item,
                b->delta + (q->at + r0) * item, a->scale, a->seeds ? &keep : NULL);
  add_turned(a, q, b->g_turned + q->at * a->dv * item, a->dv, r0, k->scores, k->dv,
             k->padded, c);
  add_turned(a, q, b->q_turned + q->at * a->d * item, a->d, r0, k->grads, k->dk,
             k->padded, c);
  for (int64_t r = r0; r < q->n; r += a->panel) {
    int64_t own = least(q->n - r, a->panel);
    a->gemm->pack_a(k->grads + (r - r0) * w * item, w, 1, own, own, live,
                    k->packed + (r * k->n + c * own) * item);
  }
}

/* dq += gradients of the scores x keys; a panel of queries sees keys up to its last. */
static void add_queries(const back *b, const key_block *k, const query_block *q) {
  const nyx__attention *a = b->a;
  int64_t w = a->tile, item = a->item;
  nyx_product p = {.ldc = a->d, .add = true};
  for (int64_t j = 0; j < a->d; j += w) {
    for (int64_t r = 0; r < q->n; r += a->panel) {
      p.m = least(q->n - r, a->panel);
      p.n = least(a->d - j, w);
      p.k = a->causal ? least(k->n, q->q0 + r + p.m + a->ahead - k->k0) : k->n;
      if (p.k < 1) continue;
      p.c = q->dq + (r * a->d + j) * item;
      a->gemm->block(&p, p.m, k->packed + r * k->n * item, k->k_rows + j * k->n * item);
    }
  }
}

static void block_backward(const back *b, const key_block *k, const query_block *q) {
  const nyx__attention *a = b->a;
  if (a->seeds)
    nyx__attention_keep(a, q->head, q->q0, q->n, k->k0 / NYX_KEEP_KEYS,
                        nyx__attention_words(k->k0, k->n) / 2, k->words);
  for (int64_t c = 0; c < k->n; c += a->tile) {
    /* the query that sees the tile */
    int64_t first = a->causal ? k->k0 + c - q->q0 - a->ahead : 0;
    if (first >= q->n) break;
    tile_backward(b, k, q, c, first > 0 ? first / a->panel * a->panel : 0);
  }
  add_queries(b, k, q);
}

/* dq of task `part` of a head, as far as it is summed up. */
static char *part_of_dq(const back *b, int64_t part, int64_t own) {
  const nyx__attention *a = b->a;
  int64_t size = a->lq * a->d * a->item;
  if (part == 0) return b->dq + (b->first * a->group + own) * size;
  return b->partial + ((part - 1) * b->heads * a->group + own) * size;
}

/* All queries for blocks part, part + parts, ... of keys: causal ones take less time from
 * block to block. */
static void run_task(const back *b, int64_t head, int64_t part, char *scratch) {
  nyx__attention *a = b->a;
  for (int64_t own = head * a->group; own < (head + 1) * a->group; own++)
    memset(part_of_dq(b, part, own), 0, (size_t)(a->lq * a->d * a->item));
  for (int64_t i = part; i < b->key_blocks; i += b->parts) {
    key_block k;
    open_keys(b, b->first + head, i * b->keys, scratch, &k);
    for (int64_t own = head * a->group; own < (head + 1) * a->group; own++) {
      int64_t first = a->causal ? k.k0 - a->ahead : 0;
      first = first > 0 ? first / b->block * b->block : 0;
      for (int64_t q0 = first; q0 < a->lq && nyx__attention_going(a); q0 += b->block) {
        query_block q = {.head = b->first * a->group + own, .q0 = q0};
        q.n = least(a->lq - q0, b->block);
        q.at = own * a->lq + q0;
        q.dq = part_of_dq(b, part, own) + q0 * a->d * a->item;
        block_backward(b, &k, &q);
      }
    }
    close_keys(b, &k);
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

/* Sizes of all blocks; `heads` heads of keys at once. */
static void plan(back *b) {
  nyx__attention *a = b->a;
  b->block = QUERIES / a->panel * a->panel;
  b->blocks = (a->lq + b->block - 1) / b->block;
  b->keys = KEYS / a->tile * a->tile;
  b->key_blocks = (a->lk + b->keys - 1) / b->keys;
  b->rows = a->group * a->lq;
  b->heads = nyx__attention_heads(a, b->rows * (2 * (a->d + a->dv) + 1));
  b->parts = 1;
  if (b->heads == 1 && a->key_heads > 1) return;
  b->parts = least(TASKS / (b->heads + 1) + 1, b->key_blocks > 0 ? b->key_blocks : 1);
}

/* Memory for the copies, and for what tasks sum up apart. */
static bool open_copies(back *b) {
  nyx__attention *a = b->a;
  int64_t size = b->heads * b->rows, sums = (b->parts - 1) * size * a->d;
  b->q = nyx__attention_scratch(a, size * (2 * (a->d + a->dv) + 1) + sums + 1);
  if (!b->q) return false;
  b->g_rows = b->q + size * a->d * a->item;
  b->q_turned = b->g_rows + size * a->dv * a->item;
  b->g_turned = b->q_turned + size * a->d * a->item;
  b->delta = b->g_turned + size * a->dv * a->item;
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
    run_tasks(&b, 0, 1);
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
  back b = {.a = a, .g = g, .dq = dq, .dk = dk, .dv = dv};
  plan(&b);
  if (b.heads == 1 && a->key_heads > 1)
    nyx_parallel_for(a->key_heads, TASK_WORK / (b.rows * a->lk * (a->d + a->dv) + 1) + 1,
                     run_heads, &b);
  else if (a->key_heads > 0)
    run_shared(&b);
  return nyx__attention_end(a);
}
