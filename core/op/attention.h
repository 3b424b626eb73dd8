/* What attention's op, its forward and its backward computation share. Read next:
 * attention.c (the ops), attention_cpu.c, attention_backward.c, attention_dropout.c. */
#ifndef NYX_OP_ATTENTION_H
#define NYX_OP_ATTENTION_H

#include <stdatomic.h>

#include "../../kernels/cpu/attention.h"
#include "../../kernels/cpu/elementwise.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/softmax.h"
#include "../tensor/tensor.h"
#include "ops.h"

/* Matrices that lie side by side in a tensor: one per head, (.., rows, columns). Columns
 * are contiguous, but for masks'. Strides in elements. */
typedef struct nyx__heads {
  char *data; /* NULL: absent */
  int64_t item;
  int ndim; /* leading dimensions, heads the last of them */
  int64_t shape[NYX_MAX_DIMS], stride[NYX_MAX_DIMS];
  int64_t row, column;
} nyx__heads;

/* One computation. Queries' heads come in groups that share a head of keys. */
typedef struct nyx__attention {
  nyx_context *ctx;
  nyx_dtype dtype; /* computed in: float32 or float64 */
  int64_t item;
  bool causal, flags; /* flags: the mask is one of bytes */
  int64_t ahead;      /* causal: query i sees the keys up to i + ahead */
  double scale;
  int64_t key_heads, group, lq, lk, d, dv;
  nyx__heads q, k, v, mask; /* the mask with the heads of queries */
  char *out, *lse;          /* contiguous; of attention, or what backward gets */
  nyx_attention_kind kind;  /* of k and v where there are few queries */
  const int64_t *seeds; /* of dropout, one per head of queries; NULL: none is dropped */
  double drop, kept;    /* the probability, and what is kept is multiplied by */
  nyx_gather_fn widen;  /* of k and v that are of a half type which the kernels do not
                         * take, else NULL */

  const nyx_gemm_kernel *gemm;
  const nyx_attention_kernel *own;
  const nyx_softmax_kernel *rows;
  int64_t tile;  /* columns of a block of scores */
  int64_t panel; /* rows of a panel of a left factor */
  atomic_int status;
} nyx__attention;

/* The leading dimensions of t, and the strides of its matrices. */
void nyx__heads_of(const nyx_tensor *t, nyx__heads *h);
/* Matrix number i. */
char *nyx__head(const nyx__heads *h, int64_t i);
/* Fills in everything that follows from sizes and dtype. */
void nyx__attention_plan(nyx__attention *a);
/* Whether to go on: nobody failed, nobody asked to stop. */
bool nyx__attention_going(nyx__attention *a);
/* Scratch that a task works with; NULL and the status set when there is none. */
char *nyx__attention_scratch(nyx__attention *a, int64_t elements);
nyx_status nyx__attention_end(nyx__attention *a) NYX_MUST_CHECK;
/* How many heads of keys the threads share at once, when each needs so many elements of
 * packed copies; 1: a head is a task of its own, if there are several. */
int64_t nyx__attention_heads(const nyx__attention *a, int64_t elements);
/* Applies the mask and causality to scores of head `head`, from query q and key k on. */
void nyx__attention_exclude(const nyx__attention *a, const nyx_attention_block *b,
                            int64_t head, int64_t q, int64_t k);

/* Dropout: whether p is a probability; a's drop and kept. */
nyx_status nyx__attention_probability(nyx_context *ctx, double p) NYX_MUST_CHECK;
void nyx__attention_drop(nyx__attention *a, double p);
/* Rows of words for so many keys from key k on: whole groups. */
static inline int64_t nyx__attention_words(int64_t k, int64_t keys) {
  return ((k + keys + NYX_KEEP_KEYS - 1) / NYX_KEEP_KEYS - k / NYX_KEEP_KEYS) * 2;
}
/* Which weights of a head's queries from q on and of so many groups of keys stay: see
 * nyx_attention_keep. */
void nyx__attention_keep(const nyx__attention *a, int64_t head, int64_t q,
                         int64_t queries, int64_t group, int64_t groups, uint32_t *words);

/* Whether there are so few queries that they are taken one by one. */
bool nyx__attention_few(const nyx__attention *a);
/* out and lse. */
nyx_status nyx__attention_forward(nyx__attention *a) NYX_MUST_CHECK;
/* The gradients of q, k and v, contiguous. */
nyx_status nyx__attention_backward(nyx__attention *a, const nyx__heads *g, char *dq,
                                   char *dk, char *dv) NYX_MUST_CHECK;

#endif
