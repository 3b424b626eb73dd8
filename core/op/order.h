/* Elements as unsigned keys in the order of the elements, and sorting by them. NaN is
 * larger than everything else and equal to itself; -0 equals 0. Read next: order.c,
 * sort.c. */
#ifndef NYX_OP_ORDER_H
#define NYX_OP_ORDER_H

#include "../tensor/tensor.h"

/* The keys of n elements `stride` elements apart. `down`: in reverse order. */
void nyx__order_keys(nyx_dtype dtype, const void *from, int64_t stride, int64_t n,
                     bool down, uint64_t *key);
/* The greatest key: all bits of an element. */
static inline uint64_t nyx__order_top_key(nyx_dtype dtype) {
  size_t bits = 8 * nyx_dtype_size(dtype);
  return bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
}

typedef struct nyx__order_entry {
  uint64_t key;
  int64_t at;
} nyx__order_entry;

/* Elements of a row in order: words of a key, less `least`, above the position; or, where
 * words is NULL, entries. */
typedef struct nyx__order {
  int64_t n;
  const uint64_t *words;
  const nyx__order_entry *entries;
  uint64_t least;
  bool exact; /* every key stands for one element only: nyx__order_value may be used */
  nyx_dtype dtype;
  bool down;
} nyx__order;

/* The position of element i of the order, and its key less `least`. */
static inline int64_t nyx__order_at(const nyx__order *o, int64_t i) {
  return o->words ? (int64_t)(o->words[i] & UINT32_MAX) : o->entries[i].at;
}
static inline uint64_t nyx__order_key(const nyx__order *o, int64_t i) {
  return o->words ? o->words[i] >> 32 : o->entries[i].key;
}
/* How keys become the bits of elements again. */
typedef struct nyx__order_bits {
  uint64_t least, flip, sign, set,
      clear; /* changed where the key's sign is set, or not */
} nyx__order_bits;
nyx__order_bits nyx__order_bits_of(const nyx__order *o);
/* The bits of the element with this key, less `least`. */
static inline uint64_t nyx__order_value(const nyx__order_bits *b, uint64_t key) {
  key = (key + b->least) ^ b->flip;
  return key ^ (key & b->sign ? b->set : b->clear);
}

/* Bytes of scratch that nyx__order_top needs for k of n elements, nyx__order_sort for n
 * of them. */
size_t nyx__order_scratch(nyx_dtype dtype, int64_t n, int64_t k);

/* n elements in their order, in `scratch`; equal elements keep theirs. Splits long rows
 * over threads. Where it stopped there is no order. */
nyx__order nyx__order_sort(nyx__stop *stop, nyx_dtype dtype, const void *from,
                           int64_t stride, int64_t n, bool down, void *scratch);
/* The same for the first k of them. */
nyx__order nyx__order_top(nyx__stop *stop, nyx_dtype dtype, const void *from,
                          int64_t stride, int64_t n, int64_t k, bool down, void *scratch);

/* Element k, from 0, of n in their order: its key, and *before: of equal ones that come
 * earlier. `room` is for n keys. Where it stopped it may be any. */
uint64_t nyx__order_find(nyx__stop *stop, const uint64_t *key, int64_t n, int64_t k,
                         uint64_t *room, int64_t *before);

#endif
