/* Dropout of attention's weights. Whether a weight stays follows from the seed of its
 * head, its query and its key, so that it need not be kept for backward, and no order or
 * blocks matter; attention_dropout_mask gives all of them, for gradients made of ops.
 * Read next: kernels/cpu/attention.h (which bits decide), attention.c. */
#include "../../kernels/cpu/cpu.h"
#include "attention.h"
#include "create.h"

#define QUERIES 64 /* whose words are made at a time */
#define WORK 4096  /* elements worth waking a thread for */

/* How many of NYX_KEEP_ALL numbers are dropped: what p leaves over makes it one more for
 * the share of all seeds that makes p right. */
static int64_t dropped(double p, uint64_t seed) {
  return (int64_t)(p * NYX_KEEP_ALL + (double)(uint32_t)seed * 0x1p-32);
}

nyx_status nyx__attention_probability(nyx_context *ctx, double p) {
  if (p >= 0 && p <= 1) return NYX_OK;
  return nyx__error(ctx, ATTR_NUMBER, "dropout_p", p, "0 to 1");
}

void nyx__attention_drop(nyx__attention *a, double p) {
  a->drop = p;
  a->kept = p < 1 ? 1 / (1 - p) : 0;
}

void nyx__attention_keep(const nyx__attention *a, int64_t head, int64_t q,
                         int64_t queries, int64_t group, int64_t groups,
                         uint32_t *words) {
  uint64_t seed = (uint64_t)a->seeds[head];
  nyx__cpu_kernels()->attention->keep(seed, dropped(a->drop, seed), q, queries, group,
                                      groups, words);
}

enum { DROPOUT_P, QUERY_COUNT, KEY_COUNT, DTYPE, ATTRS };

static nyx_status check_count(nyx_context *ctx, const char *name, int64_t n) {
  if (n >= 0) return NYX_OK;
  return nyx__error(ctx, ATTR_RANGE, name, (long long)n, "at least 0");
}

static nyx_status infer(nyx_call *c) {
  nyx_dtype dtype;
  const nyx_tensor *seeds = c->in[0];
  NYX_TRY(nyx__attention_probability(c->ctx, c->attr[DROPOUT_P].f));
  NYX_TRY(check_count(c->ctx, "queries", c->attr[QUERY_COUNT].i));
  NYX_TRY(check_count(c->ctx, "keys", c->attr[KEY_COUNT].i));
  NYX_TRY(nyx__create_dtype(c, DTYPE, c->ctx->default_dtype, NYX_DTYPES_FLOAT,
                            "a float dtype", &dtype));
  if (seeds->ndim + 2 > NYX_MAX_DIMS)
    return nyx__error(c->ctx, NDIM_RANGE, seeds->ndim + 2, NYX_MAX_DIMS);
  nyx__spec(&c->spec[0], dtype, seeds->ndim, seeds->shape);
  c->spec[0].shape[c->spec[0].ndim++] = c->attr[QUERY_COUNT].i;
  c->spec[0].shape[c->spec[0].ndim++] = c->attr[KEY_COUNT].i;
  return NYX_OK;
}

static void fill_group(const nyx__attention *a, const uint32_t *words, int64_t n,
                       int64_t keys, char *to) {
  for (int64_t q = 0; q < n; q++, to += a->lk * a->item) {
    for (int64_t k = 0; k < keys; k++) {
      bool stays = words[k / 32 * n + q] >> k % 32 & 1;
      nyx__store_double(a->dtype, to + k * a->item, stays ? a->kept : 0);
    }
  }
}

/* Rows are the queries of all heads, by blocks of some of one. */
static void fill_blocks(void *arg, int64_t begin, int64_t end) {
  const nyx__attention *a = arg;
  int64_t blocks = (a->lq + QUERIES - 1) / QUERIES;
  uint32_t words[2 * QUERIES];
  for (int64_t i = begin; i < end; i++) {
    int64_t head = i / blocks, q = i % blocks * QUERIES;
    int64_t n = a->lq - q < QUERIES ? a->lq - q : QUERIES;
    char *to = a->out + (head * a->lq + q) * a->lk * a->item;
    for (int64_t k = 0; k < a->lk; k += NYX_KEEP_KEYS) {
      int64_t keys = a->lk - k < NYX_KEEP_KEYS ? a->lk - k : NYX_KEEP_KEYS;
      nyx__attention_keep(a, head, q, n, k / NYX_KEEP_KEYS, 1, words);
      fill_group(a, words, n, keys, to + k * a->item);
    }
  }
}

static nyx_status cpu(nyx_call *c) {
  nyx_tensor *seeds, *out = c->out[0];
  NYX_TRY(nyx__contiguous_as(c->ctx, c->in[0], NYX_INT64, &seeds));
  nyx__attention a = {.ctx = c->ctx, .dtype = out->dtype, .seeds = nyx__data(seeds)};
  a.item = (int64_t)nyx_dtype_size(a.dtype);
  a.lq = c->attr[QUERY_COUNT].i;
  a.lk = c->attr[KEY_COUNT].i;
  a.out = nyx__data(out);
  nyx__attention_drop(&a, c->attr[DROPOUT_P].f);
  int64_t blocks = (a.lq + QUERIES - 1) / QUERIES;
  nyx_status status = nyx__parallel_for(c->ctx, seeds->numel * blocks,
                                        WORK / (QUERIES * a.lk + 1) + 1, fill_blocks, &a);
  nyx_tensor_release(seeds);
  return status;
}

static const nyx_attr attrs[] = {
    {"dropout_p", NYX_ATTR_FLOAT, true, {.given = false}, "the probability of a zero"},
    {"queries", NYX_ATTR_INT, true, {.given = false}, "how many queries"},
    {"keys", NYX_ATTR_INT, true, {.given = false}, "how many keys"},
    NYX__ATTR_DTYPE};

const nyx_op nyx__op_attention_dropout_mask = {
    .name = "attention_dropout_mask",
    .group = "neural",
    .doc =
        "what attention multiplies the weights of heads with these seeds by, int64 (.., "
        "heads): (.., heads, queries, keys), zeros with probability dropout_p, and 1 / "
        "(1 - dropout_p)",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES(NYX_INT64),
    .inputs = "seeds",
    .min_in = 1,
    .max_in = 1,
    .attrs = attrs,
    .n_attrs = ATTRS,
    .n_out = 1,
    .infer = infer,
    .cpu = cpu,
    .batch = nyx__batch_leading,
    .cases =
        "seeds(2)<int64; dropout_p=0.3 queries=3 keys=70\n"
        "seeds(2,3)<int64; dropout_p=0.5 queries=2 keys=4 dtype=float64\n"
        "seeds()<int64; dropout_p=1 queries=2 keys=3",
};
