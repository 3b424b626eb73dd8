/* Sorting rows by keys: insertion for short ones, else a radix sort from the least
 * significant byte that skips bytes all keys have in common. Keys of up to 32 bits travel
 * in one word with their position. Read next: order.h, sort.c. */
#include "order.h"

#include <string.h>

enum { SHORT = 48 }; /* rows up to this length sort by insertion */

/* The bits of a float as an unsigned number in its order: `sign` is the sign bit, `inf`
 * the bits of infinity, `top` all bits. */
static inline uint64_t float_key(uint64_t bits, uint64_t sign, uint64_t inf,
                                 uint64_t top) {
  uint64_t size = bits & ~sign;
  if (size > inf) return top;
  if (size == 0) return sign;
  return bits & sign ? ~bits & top : bits | sign;
}

#define KEYS(T, expression)                                                              \
  for (int64_t i = 0; i < n; i++) {                                                      \
    T x;                                                                                 \
    memcpy(&x, p + i * step, sizeof x);                                                  \
    key[i] = (uint64_t)(expression) ^ flip;                                              \
  }                                                                                      \
  break

void nyx__order_keys(nyx_dtype dtype, const void *from, int64_t stride, int64_t n,
                     bool down, uint64_t *key) {
  const char *p = from;
  int64_t size = (int64_t)nyx_dtype_size(dtype), step = stride * size;
  uint64_t top = size == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
  uint64_t flip = down ? top : 0;
  switch (dtype) {
    case NYX_FLOAT32: KEYS(uint32_t, float_key(x, 0x80000000, 0x7f800000, top));
    case NYX_FLOAT64:
      KEYS(uint64_t, float_key(x, UINT64_C(1) << 63, UINT64_C(0x7ff) << 52, top));
    case NYX_FLOAT16: KEYS(uint16_t, float_key(x, 0x8000, 0x7c00, top));
    case NYX_BFLOAT16: KEYS(uint16_t, float_key(x, 0x8000, 0x7f80, top));
    case NYX_INT8: KEYS(uint8_t, x ^ 0x80u);
    case NYX_INT32: KEYS(uint32_t, x ^ 0x80000000u);
    case NYX_INT64: KEYS(uint64_t, x ^ UINT64_C(1) << 63);
    default: KEYS(uint8_t, x);
  }
}

/* A key with its position, for keys of 64 bits and rows too long for 32-bit positions. */
typedef struct pair {
  uint64_t key;
  int64_t at;
} pair;

static bool is_narrow(nyx_dtype dtype, int64_t n) {
  return nyx_dtype_size(dtype) <= 4 && n <= UINT32_MAX;
}

size_t nyx__order_scratch(nyx_dtype dtype, int64_t n) {
  return (size_t)n * 2 * (is_narrow(dtype, n) ? sizeof(uint64_t) : sizeof(pair));
}

/* One pass for each byte of the key that is not the same in all: `word(e)` is the key. */
#define RADIX(name, T, word)                                                             \
  static T *radix_##name(T *a, T *b, int64_t n, int shift, int bytes) {                  \
    int64_t count[8][256];                                                               \
    memset(count, 0, (size_t)bytes * sizeof count[0]);                                   \
    for (int64_t i = 0; i < n; i++) {                                                    \
      uint64_t w = word(a[i]) >> shift;                                                  \
      for (int k = 0; k < bytes; k++, w >>= 8) count[k][w & 255]++;                      \
    }                                                                                    \
    for (int k = 0; k < bytes; k++) {                                                    \
      int64_t *c = count[k], total = 0;                                                  \
      int at = shift + 8 * k;                                                            \
      if (c[word(a[0]) >> at & 255] == n) continue;                                      \
      for (int v = 0; v < 256; v++) {                                                    \
        int64_t here = c[v];                                                             \
        c[v] = total;                                                                    \
        total += here;                                                                   \
      }                                                                                  \
      for (int64_t i = 0; i < n; i++) b[c[word(a[i]) >> at & 255]++] = a[i];             \
      T *swap = a;                                                                       \
      a = b;                                                                             \
      b = swap;                                                                          \
    }                                                                                    \
    return a;                                                                            \
  }                                                                                      \
  static void insertion_##name(T *a, int64_t n) {                                        \
    for (int64_t i = 1; i < n; i++) {                                                    \
      T moved = a[i];                                                                    \
      int64_t k = i;                                                                     \
      for (; k > 0 && word(a[k - 1]) > word(moved); k--) a[k] = a[k - 1];                \
      a[k] = moved;                                                                      \
    }                                                                                    \
  }
#define WORD_OF_NARROW(e) (e)
#define WORD_OF_PAIR(e) ((e).key)
RADIX(narrow, uint64_t, WORD_OF_NARROW)
RADIX(pair, pair, WORD_OF_PAIR)

const int64_t *nyx__order_sort(nyx_dtype dtype, const void *from, int64_t stride,
                               int64_t n, bool down, void *scratch) {
  int bytes = nyx__order_width(dtype);
  if (is_narrow(dtype, n)) {
    uint64_t *a = scratch;
    nyx__order_keys(dtype, from, stride, n, down, a);
    for (int64_t i = 0; i < n; i++) a[i] = a[i] << 32 | (uint64_t)i;
    if (n <= SHORT)
      insertion_narrow(a, n);
    else
      a = radix_narrow(a, a + n, n, 32, bytes);
    for (int64_t i = 0; i < n; i++) a[i] &= UINT32_MAX;
    return (const int64_t *)(const void *)a;
  }
  pair *a = scratch;
  uint64_t *key = (uint64_t *)(void *)(a + n);
  nyx__order_keys(dtype, from, stride, n, down, key);
  for (int64_t i = 0; i < n; i++) a[i] = (pair){.key = key[i], .at = i};
  if (n <= SHORT)
    insertion_pair(a, n);
  else
    a = radix_pair(a, a + n, n, 0, bytes);
  int64_t *at = scratch; /* never ahead of what is read, wherever a is */
  for (int64_t i = 0; i < n; i++) at[i] = a[i].at;
  return at;
}

/* Whether a comes after b; positions decide between equal keys. */
static inline bool after(pair a, pair b) {
  return a.key > b.key || (a.key == b.key && a.at > b.at);
}

/* Restores a heap (the last in order on top) below its top. */
static void sift(pair *heap, int64_t k) {
  pair moved = heap[0];
  int64_t i = 0;
  for (int64_t child = 1; child < k; child = 2 * i + 1) {
    if (child + 1 < k && after(heap[child + 1], heap[child])) child++;
    if (!after(heap[child], moved)) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = moved;
}

/* Keeps the first k seen so far in a heap. For large k sorting everything is faster. */
const int64_t *nyx__order_top(nyx_dtype dtype, const void *from, int64_t stride,
                              int64_t n, int64_t k, bool down, void *scratch) {
  if (n <= SHORT || k > n / 16)
    return nyx__order_sort(dtype, from, stride, n, down, scratch);
  uint64_t *key = scratch; /* the heap needs 2 k more words: k <= n / 16 */
  pair *heap = (pair *)(void *)(key + (n + n % 2));
  nyx__order_keys(dtype, from, stride, n, down, key);
  for (int64_t i = 0; i < k; i++) { /* the last k elements from the front: a heap of k */
    int64_t at = i;
    pair p = {.key = key[i], .at = i};
    for (; at > 0 && after(p, heap[(at - 1) / 2]); at = (at - 1) / 2)
      heap[at] = heap[(at - 1) / 2];
    heap[at] = p;
  }
  for (int64_t i = k; k > 0 && i < n; i++) {
    if (key[i] >= heap[0].key) continue;
    heap[0] = (pair){.key = key[i], .at = i};
    sift(heap, k);
  }
  int64_t *at = scratch;
  for (int64_t left = k; left > 0; left--) {
    at[left - 1] = heap[0].at;
    heap[0] = heap[left - 1];
    sift(heap, left - 1);
  }
  return at;
}
