/* Kernels of attention between its matrix products. A block of scores is `keys` x
 * `queries` elements, either way around. Read next: attention_rows.h,
 * core/op/attention_cpu.c. */
#ifndef NYX_KERNELS_CPU_ATTENTION_H
#define NYX_KERNELS_CPU_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

/* Part of an attn_mask; strides in elements. */
typedef struct nyx_attention_mask {
  const void *at;
  bool flags; /* bytes, 0: left out; else numbers of the kernel's type, to add */
  int64_t key, query;
} nyx_attention_mask;

/* Where the scores of a block lie, how many there are, and their strides. */
typedef struct nyx_attention_block {
  void *scores;
  int64_t keys, queries;
  int64_t key, query;
} nyx_attention_block;

/* Which weights of a block dropout keeps. That of its query q and key k is bit (first +
 * k) % 32 of words[(first + k) / 32 * step + q]; first is a multiple of a vector's lanes.
 */
typedef struct nyx_attention_keep {
  const uint32_t *words;
  int64_t step, first;
  double by; /* what the weights that stay are multiplied by */
} nyx_attention_keep;

/* What keys and values are, where few queries use them: of the kernel's type, or halves
 * that are widened as they are loaded. */
typedef enum nyx_attention_kind {
  NYX_KEYS_OWN,
  NYX_KEYS_BFLOAT16,
  NYX_KEYS_FLOAT16
} nyx_attention_kind;

/* All of one float type; `width` is a multiple of the vector's lanes. */
typedef struct nyx_attention_kernel {
  /* One column of scores[rows][width] belongs to one query. Continues what most, sum and
   * so far unnormalized results hold of earlier rows: most becomes the greatest score,
   * factor e^(old most - new), by which results have to be multiplied, sum the sum of
   * e^(score - most), and the scores those. Of scores that are all -inf: 0. */
  void (*soften)(void *scores, int64_t rows, int64_t width, void *most, void *sum,
                 void *factor);
  /* After all rows: factor becomes 1 / sum, and sum the log-sum-exp; where nothing was
   * seen 0 and inf. */
  void (*finish)(int64_t width, const void *most, void *sum, void *factor);
  /* x[rows][width] *= factor[width] */
  void (*rescale)(void *x, int64_t rows, int64_t width, const void *factor);
  /* One row of `width` scores, rows `step` apart, belongs to one query: scores = p =
   * e^(score - lse of the row), grads = p * (grad - delta of the row) * scale. With
   * dropout (keep not NULL) the scores and the grads that came are then those that stay,
   * times keep->by, and 0 */
  void (*slope)(void *scores, void *grads, int64_t rows, int64_t width, int64_t step,
                const void *lse, const void *delta, double scale,
                const nyx_attention_keep *keep);
  /* 0 for weights that dropout does not keep; `by` is left to others. */
  void (*drop)(const nyx_attention_block *b, const nyx_attention_keep *keep);
  void (*mask)(const nyx_attention_block *b, const nyx_attention_mask *mask);
  /* -inf for keys behind their query: key k of query q where k > q + ahead */
  void (*causal)(const nyx_attention_block *b, int64_t ahead);
  /* A query as `dots` wants it beside keys of bfloat16: of each `pair` elements the even
   * ones, then the odd; zeros to a whole pair. */
  int64_t pair;
  void (*split)(const void *q, int64_t d, void *to);
  /* Few queries, which all use what is read of keys and values once.
   * scores[r * step + i] = scale * (q[r] . row i of keys); n rows of d elements, rs apart
   */
  void (*dots)(const void *const *q, int64_t queries, const void *keys,
               nyx_attention_kind kind, int64_t rs, int64_t n, int64_t d, double scale,
               void *scores, int64_t step);
  /* row r of out = the sum of weights[r * step + i] * row i of values; rows of out are
   * out_step apart; add: on top of what is there */
  void (*mix)(const void *weights, int64_t step, int64_t queries, const void *values,
              nyx_attention_kind kind, int64_t rs, int64_t n, int64_t d, void *out,
              int64_t out_step, bool add);
  bool halves; /* whether keys and values may be of a half type */
} nyx_attention_kernel;

#define NYX_KEEP_KEYS 64   /* keys whose numbers are made together */
#define NYX_KEEP_ROUNDS 7  /* of Philox: the fewest that its authors' tests let pass */
#define NYX_KEEP_ALL 65536 /* of so many numbers, so many are dropped at most */

typedef struct nyx_attention_kernels {
  const nyx_attention_kernel *type[2]; /* float32, float64 */
  /* Which weights of one head dropout keeps, for `groups` groups of 64 keys from number
   * `group` on and for queries q and after: words[2 * groups][queries], as above. A
   * weight stays where its number, of 16 bits, is not below `drop` - 32768. The numbers
   * are those of Philox 4x32-7 (core/base/random.h) with the key `seed` and the counter
   * (b, query), 64 bits each: key k has b = k / 64 * 8 + k % 16 / 2, and of the block the
   * 32 bits number k % 2 * 2 + k % 64 / 32, the lower half where k / 16 is even. */
  void (*keep)(uint64_t seed, int64_t drop, int64_t q, int64_t queries, int64_t group,
               int64_t groups, uint32_t *words);
} nyx_attention_kernels;

#endif
