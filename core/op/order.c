/* Sorting rows by keys: insertion for short ones, else a radix sort from the least
 * significant digit. Digits only cover the range the keys are in. Where that fits 32
 * bits, keys travel in one word with their position. Long rows are counted and moved in
 * blocks by several threads; the order of equal elements makes the result the only one.
 * The first few of a row are kept in a heap; more of a long one are found by the digits
 * of the last of them, and only they are sorted.
 * Read next: order.h, sort.c. */
#include "order.h"

#include <nyx/parallel.h>
#include <string.h>

#include "kernels/cpu/reduce.h"

enum {
  SHORT = 48,  /* rows up to this length sort by insertion */
  FOUND = 12,  /* and those up to this one, where one element is wanted */
  FEW = 4096,  /* below, digits of 8 bits cost less than the counts of larger ones */
  GROUPS = 32, /* of elements whose extremes say what the first ones are like */
  BOUND_MOST = 8192, /* longer rows are read only once */
  BLOCK = 1 << 15,   /* elements one thread does at least */
  MOST_BLOCKS = 16,  /* each has counts of its own */
  PIECE = 1 << 18,   /* elements between two looks whether to stop */
  KEYS = 1024,       /* made at a time */
  LONG = 1 << 16,    /* shorter rows are sorted, or have a heap of any size */
  HEAP_MOST = 1024,  /* elements of a longer row's heap */
  DIGIT = 11 /* bits: as many places to write to as the second cache has lines for */
};

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

nyx__order_bits nyx__order_bits_of(const nyx__order *o) {
  uint64_t top = nyx__order_top_key(o->dtype), sign = top / 2 + 1;
  bool plain = o->dtype == NYX_UINT8 || o->dtype == NYX_BOOL;
  bool is_float = nyx_dtype_is_float(o->dtype);
  return (nyx__order_bits){.least = o->least,
                           .flip = o->down ? top : 0,
                           .sign = sign,
                           .set = plain ? 0 : sign,
                           .clear = plain      ? 0
                                    : is_float ? top
                                               : sign};
}

/* How a row of n is cut. */
static int64_t blocks_of(int64_t n) {
  int64_t blocks = n / BLOCK;
  return blocks < 1 ? 1 : blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS;
}
static int digit_of(int64_t n) {
  return n < FEW ? 8 : DIGIT;
}

static size_t sort_scratch(nyx_dtype dtype, int64_t n) {
  bool narrow = nyx_dtype_size(dtype) <= 4 && n <= UINT32_MAX;
  int64_t tables = blocks_of(n) > 8 ? blocks_of(n) : 8; /* of blocks, or of digits */
  size_t counts = n > SHORT ? (size_t)tables * sizeof(int64_t) << digit_of(n) : 0;
  return (size_t)n * 2 * (narrow ? sizeof(uint64_t) : sizeof(nyx__order_entry)) + counts;
}

/* How the first k of n are found. */
static enum { SORT, HEAP, SELECT } top_way(int64_t n, int64_t k) {
  if (n < LONG) return n <= SHORT || k > n / 16 ? SORT : HEAP;
  if (k > n / 4) return SORT;
  return k > HEAP_MOST ? SELECT : HEAP;
}

/* How many candidates a selection of k sorts at most. */
static int64_t room_of(int64_t k) {
  return 2 * k;
}

size_t nyx__order_scratch(nyx_dtype dtype, int64_t n, int64_t k) {
  switch (top_way(n, k)) {
    case HEAP: return (size_t)k * sizeof(nyx__order_entry);
    /* As if of a row of n: that decides how wide the words are. */
    case SELECT: return sort_scratch(n > UINT32_MAX ? NYX_INT64 : dtype, room_of(k));
    default: return sort_scratch(dtype, n);
  }
}

typedef struct radix_job {
  nyx__stop *stop;
  const void *a;
  void *b;
  int64_t n, blocks;
  int shift, digit;
  int64_t *count; /* of each block; then where its next element of a digit goes */
} radix_job;

/* Where block i begins. */
static int64_t block_start(const radix_job *j, int64_t i) {
  return j->n / j->blocks * i + (i < j->n % j->blocks ? i : j->n % j->blocks);
}

/* Where to look again whether to stop. */
static inline int64_t piece_end(int64_t i, int64_t last) {
  return last - i < PIECE ? last : i + PIECE;
}

/* Counts become places: those of a digit follow each other block by block. */
static void place_digits(const radix_job *j) {
  int64_t total = 0;
  for (int64_t v = 0; v >> j->digit == 0; v++)
    for (int64_t i = 0; i < j->blocks; i++) {
      int64_t *c = &j->count[(i << j->digit) + v], here = *c;
      *c = total;
      total += here;
    }
}

/* `word(e)` is the key of an element. */
#define RADIX(name, T, word)                                                             \
  static void count_##name(void *arg, int64_t first, int64_t after) {                    \
    const radix_job *j = arg;                                                            \
    const uint64_t mask = (UINT64_C(1) << j->digit) - 1;                                 \
    const int shift = j->shift;                                                          \
    const T *a = j->a;                                                                   \
    for (int64_t b = first; b < after; b++) {                                            \
      int64_t *c = j->count + (b << j->digit), last = block_start(j, b + 1);             \
      int64_t i = block_start(j, b);                                                     \
      memset(c, 0, sizeof *c << j->digit);                                               \
      while (i < last && !nyx__stopped(j->stop))                                         \
        for (int64_t end = piece_end(i, last); i < end; i++)                             \
          c[word(a[i]) >> shift & mask]++;                                               \
    }                                                                                    \
  }                                                                                      \
  static void move_##name(void *arg, int64_t first, int64_t after) {                     \
    const radix_job *j = arg;                                                            \
    const uint64_t mask = (UINT64_C(1) << j->digit) - 1;                                 \
    const int shift = j->shift;                                                          \
    const T *restrict a = j->a;                                                          \
    T *restrict to = j->b;                                                               \
    for (int64_t b = first; b < after; b++) {                                            \
      int64_t *restrict c = j->count + (b << j->digit), last = block_start(j, b + 1);    \
      int64_t i = block_start(j, b);                                                     \
      while (i < last && !nyx__stopped(j->stop))                                         \
        for (int64_t end = piece_end(i, last); i < end; i++) {                           \
          const T e = a[i];                                                              \
          to[c[word(e) >> shift & mask]++] = e;                                          \
        }                                                                                \
    }                                                                                    \
  }                                                                                      \
  static inline void count_digits_##name(const T *a, int64_t n, int digit, int passes,   \
                                         int64_t *count) {                               \
    const uint64_t mask = (UINT64_C(1) << digit) - 1;                                    \
    for (int64_t i = 0; i < n; i++) {                                                    \
      uint64_t w = word(a[i]);                                                           \
      int64_t *c = count;                                                                \
      for (int k = 0; k < passes; k++, w >>= digit, c += mask + 1) c[w & mask]++;        \
    }                                                                                    \
  }                                                                                      \
  /* All digits at once, for rows that one thread does: mostly 32 bits in bytes. */      \
  static void count_all_##name(const T *a, int64_t n, int digit, int passes,             \
                               int64_t *count) {                                         \
    memset(count, 0, (sizeof *count << digit) * (size_t)passes);                         \
    if (digit == 8 && passes == 4)                                                       \
      count_digits_##name(a, n, 8, 4, count);                                            \
    else                                                                                 \
      count_digits_##name(a, n, digit, passes, count);                                   \
  }                                                                                      \
  /* By the lowest `bits` bits of the keys. Returns a or b, where the result is. */      \
  static T *radix_##name(nyx__stop *stop, T *a, T *b, int64_t n, int bits,               \
                         int64_t *count) {                                               \
    int most = digit_of(n), passes = (bits + most - 1) / most;                           \
    int digit = passes ? (bits + passes - 1) / passes : 0;                               \
    int64_t blocks = blocks_of(n);                                                       \
    if (blocks == 1) count_all_##name(a, n, digit, passes, count);                       \
    for (int k = 0, shift = 0; k < passes; k++, shift += digit) {                        \
      radix_job j = {stop, a, b, n, blocks, shift, digit, count};                        \
      if (blocks == 1) {                                                                 \
        j.count += (int64_t)k << digit;                                                  \
        int64_t first = (int64_t)(word(a[0]) >> shift & ((UINT64_C(1) << digit) - 1));   \
        if (j.count[first] == n) continue;                                               \
        place_digits(&j);                                                                \
        move_##name(&j, 0, 1);                                                           \
      } else {                                                                           \
        nyx__parallel_until(stop, blocks, 1, count_##name, &j);                          \
        if (nyx__stopped(stop)) break;                                                   \
        place_digits(&j);                                                                \
        nyx__parallel_until(stop, blocks, 1, move_##name, &j);                           \
      }                                                                                  \
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
#define WORD_OF_NARROW(e) ((e) >> 32)
#define WORD_OF_ENTRY(e) ((e).key)
RADIX(narrow, uint64_t, WORD_OF_NARROW)
RADIX(entry, nyx__order_entry, WORD_OF_ENTRY)

/* Keys of a row, and what they have in common. */
typedef struct key_job {
  nyx_dtype dtype;
  const char *from;
  int64_t stride, n, blocks;
  bool down;
  uint64_t *key;
  uint64_t zero, nan; /* keys several elements share, or what no key is */
  struct {
    uint64_t least, most;
    bool exact;
  } of[MOST_BLOCKS];
} key_job;

static void key_range(void *arg, int64_t begin, int64_t end) {
  key_job *j = arg;
  const radix_job cut = {.n = j->n, .blocks = j->blocks};
  int64_t step = j->stride * (int64_t)nyx_dtype_size(j->dtype);
  for (int64_t b = begin; b < end; b++) {
    int64_t first = block_start(&cut, b), n = block_start(&cut, b + 1) - first;
    uint64_t least = UINT64_MAX, most = 0, *key = j->key + first;
    int64_t shared = 0;
    nyx__order_keys(j->dtype, j->from + first * step, j->stride, n, j->down, key);
    for (int64_t i = 0; i < n; i++) {
      least = key[i] < least ? key[i] : least;
      most = key[i] > most ? key[i] : most;
      shared += (key[i] == j->zero) | (key[i] == j->nan);
    }
    j->of[b].least = least;
    j->of[b].most = most;
    j->of[b].exact = shared == 0;
  }
}

/* The keys of 0 and of a NaN, which stand for more than one pattern of bits. */
static void shared_keys(key_job *j) {
  uint64_t top = nyx__order_top_key(j->dtype), flip = j->down ? top : 0;
  bool is_float = nyx_dtype_is_float(j->dtype);
  j->zero = is_float ? (top / 2 + 1) ^ flip : UINT64_MAX;
  j->nan = is_float ? top ^ flip : UINT64_MAX;
}

/* Elements with their positions, of keys less the least. */
typedef struct pair_job {
  const uint64_t *key;
  uint64_t least;
  uint64_t *words; /* may be the keys; NULL: entries */
  nyx__order_entry *entries;
} pair_job;

static void pair_range(void *arg, int64_t begin, int64_t end) {
  const pair_job *j = arg;
  const uint64_t *key = j->key, least = j->least;
  uint64_t *words = j->words;
  nyx__order_entry *entries = j->entries;
  if (words)
    for (int64_t i = begin; i < end; i++) words[i] = (key[i] - least) << 32 | (uint64_t)i;
  else
    for (int64_t i = begin; i < end; i++)
      entries[i] = (nyx__order_entry){key[i] - least, i};
}

static void pair(nyx__stop *stop, int64_t n, pair_job *j) {
  if (n < 2 * BLOCK)
    pair_range(j, 0, n);
  else
    nyx__parallel_until(stop, n, BLOCK, pair_range, j);
}

/* Where a word with the position is too small. */
static void sort_entries(nyx__stop *stop, nyx__order *o, uint64_t *key, int bits,
                         void *scratch) {
  int64_t n = o->n;
  nyx__order_entry *a = scratch;
  pair(stop, n, &(pair_job){.key = key, .least = o->least, .entries = a});
  if (n <= SHORT)
    insertion_entry(a, n);
  else
    a = radix_entry(stop, a, a + n, n, bits, (int64_t *)(void *)(a + 2 * n));
  o->entries = a;
}

/* The keys of o's row, and what they have in common. Short rows of few digits do without
 * the latter. Returns how many bits the keys have above the least. */
static int find_keys(nyx__stop *stop, nyx__order *o, const void *from, int64_t stride,
                     uint64_t *key) {
  key_job j = {.dtype = o->dtype,
               .from = from,
               .stride = stride,
               .n = o->n,
               .blocks = blocks_of(o->n),
               .down = o->down,
               .key = key};
  if (o->n < FEW && nyx_dtype_size(o->dtype) <= 4) {
    nyx__order_keys(o->dtype, from, stride, o->n, o->down, key);
    return 8 * (int)nyx_dtype_size(o->dtype);
  }
  shared_keys(&j);
  nyx__parallel_until(stop, j.blocks, 1, key_range, &j);
  if (nyx__stopped(stop)) return 0;
  uint64_t least = j.of[0].least, most = j.of[0].most;
  o->exact = true;
  for (int64_t b = 0; b < j.blocks; b++) {
    if (j.of[b].least < least) least = j.of[b].least;
    if (j.of[b].most > most) most = j.of[b].most;
    o->exact = o->exact && j.of[b].exact;
  }
  o->least = most >= least ? least : 0; /* of no keys */
  return most > least ? 64 - __builtin_clzll(most - least) : 0;
}

nyx__order nyx__order_sort(nyx__stop *stop, nyx_dtype dtype, const void *from,
                           int64_t stride, int64_t n, bool down, void *scratch) {
  nyx__order o = {.n = n, .dtype = dtype, .down = down};
  bool wide = nyx_dtype_size(dtype) > 4 || n > UINT32_MAX;
  uint64_t *a = scratch, *key = wide ? a + 2 * n : a;
  int bits = find_keys(stop, &o, from, stride, key);
  if (nyx__stopped(stop)) return o;
  if (bits > 32 || n > UINT32_MAX) {
    sort_entries(stop, &o, key, bits, scratch);
    return o;
  }
  pair(stop, n, &(pair_job){.key = key, .least = o.least, .words = a});
  int64_t *count = (int64_t *)(void *)(a + (wide ? 4 : 2) * n);
  if (n <= SHORT)
    insertion_narrow(a, n);
  else
    a = radix_narrow(stop, a, a + n, n, bits, count);
  o.words = a;
  return o;
}

/* Whether a comes after b; positions decide between equal keys. */
static inline bool after(nyx__order_entry a, nyx__order_entry b) {
  return a.key > b.key || (a.key == b.key && a.at > b.at);
}

/* Restores a heap (the last in order on top) below its top. */
static void sift(nyx__order_entry *heap, int64_t k) {
  nyx__order_entry moved = heap[0];
  int64_t i = 0;
  for (int64_t child = 1; child < k; child = 2 * i + 1) {
    if (child + 1 < k && after(heap[child + 1], heap[child])) child++;
    if (!after(heap[child], moved)) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = moved;
}

/* One more for a heap of n. */
static void heap_add(nyx__order_entry *heap, int64_t n, uint64_t key, int64_t at) {
  int64_t i = n;
  nyx__order_entry p = {.key = key, .at = at};
  for (; i > 0 && after(p, heap[(i - 1) / 2]); i = (i - 1) / 2)
    heap[i] = heap[(i - 1) / 2];
  heap[i] = p;
}

static void heap_try(nyx__order_entry *heap, int64_t k, uint64_t key, int64_t at) {
  if (key >= heap[0].key) return;
  heap[0] = (nyx__order_entry){.key = key, .at = at};
  sift(heap, k);
}

/* The kernels' number of a type they can compare as it is, or -1. */
static int compare_type(nyx_dtype dtype) {
  switch (dtype) {
    case NYX_FLOAT32: return NYX_IN_FLOAT32;
    case NYX_FLOAT64: return NYX_IN_FLOAT64;
    case NYX_INT32: return NYX_IN_INT32;
    case NYX_INT64: return NYX_IN_INT64;
    default: return -1;
  }
}

/* A row whose first k elements are wanted. */
typedef struct row {
  nyx__stop *stop;
  nyx_dtype dtype;
  int type; /* NYX_IN_*: kernels can compare its elements; else -1 */
  const char *from;
  int64_t stride, n, k;
  bool down;
} row;

/* The keys of elements i..i + n - 1. */
static void keys_at(const row *r, int64_t i, int64_t n, uint64_t *key) {
  int64_t step = r->stride * (int64_t)nyx_dtype_size(r->dtype);
  nyx__order_keys(r->dtype, r->from + i * step, r->stride, n, r->down, key);
}

static uint64_t key_at(const row *r, int64_t i) {
  uint64_t key;
  keys_at(r, i, 1, &key);
  return key;
}

/* The first position from i on of an element that comes before *value, or `end`. */
static int64_t next_before(const row *r, int64_t i, int64_t end, const void *value) {
  return i +
         nyx__cpu_kernels()->reduce->beyond[r->type](
             end - i, r->from + (size_t)i * nyx_dtype_size(r->dtype), !r->down, value);
}

/* Puts elements i..n-1 into the heap, most of which a kernel sees to be no use. */
static void search_row(const row *r, int64_t i, nyx__order_entry *heap) {
  size_t item = nyx_dtype_size(r->dtype);
  while (i < r->n && !nyx__stopped(r->stop)) {
    int64_t end = piece_end(i, r->n);
    while ((i = next_before(r, i, end, r->from + (size_t)heap[0].at * item)) < end) {
      heap_try(heap, r->k, key_at(r, i), i);
      i++;
    }
  }
}

/* Finds a value that k elements or more come before, and few of the others: one less than
 * the k-th of the extremes of GROUPS groups. False where there is none. */
static bool find_bound(const row *r, void *value) {
  _Alignas(64) char extreme[GROUPS * 8];
  uint64_t key[GROUPS], bound = 0, again;
  if (r->k > GROUPS / 2 || r->n < 8 * GROUPS || r->n > BOUND_MOST) return false;
  const nyx_reduce_kernel *kernel =
      &nyx__cpu_kernels()
           ->reduce->rows[r->type][r->down ? NYX__REDUCE_amax : NYX__REDUCE_amin];
  kernel->init(GROUPS, extreme, 0);
  kernel->columns(r->n / GROUPS, GROUPS, r->from, GROUPS, extreme, 0);
  nyx__order_keys(r->dtype, extreme, 1, GROUPS, r->down, key);
  for (int i = 0; i < GROUPS; i++) {
    int before = 0;
    for (int j = 0; j < GROUPS; j++) before += key[j] < key[i];
    if (before < r->k && key[i] > bound) bound = key[i];
  }
  /* -0 and NaNs have keys that are others' as well. */
  const nyx__order o = {.dtype = r->dtype, .down = r->down};
  nyx__order_bits bits = nyx__order_bits_of(&o);
  for (uint64_t less = 1; less <= 2; less++) {
    uint64_t element = nyx__order_value(&bits, bound + less);
    memcpy(value, &element, nyx_dtype_size(r->dtype)); /* the low bytes come first */
    nyx__order_keys(r->dtype, value, 1, 1, r->down, &again);
    if (again > bound) return true;
  }
  return false;
}

static void top_of_row(const row *r, nyx__order_entry *heap) {
  char bound[8];
  bool bounded = find_bound(r, bound);
  int64_t i = 0;
  for (int64_t count = 0; count < r->k; count++, i++) {
    if (bounded) i = next_before(r, i, r->n, bound);
    heap_add(heap, count, key_at(r, i), i);
  }
  search_row(r, i, heap);
}

/* The same by keys, for all types and strides. */
static void top_by_keys(const row *r, nyx__order_entry *heap) {
  uint64_t key[KEYS];
  for (int64_t at = 0, n; at < r->n && !nyx__stopped(r->stop); at += n) {
    n = r->n - at < KEYS ? r->n - at : KEYS;
    keys_at(r, at, n, key);
    int64_t i = 0;
    for (; i < n && at + i < r->k; i++) heap_add(heap, at + i, key[i], at + i);
    for (; i < n; i++) heap_try(heap, r->k, key[i], at + i);
  }
}

/* Keeps the first k seen so far in a heap. */
static nyx__order top_by_heap(const row *r, nyx__order_entry *heap) {
  const nyx__order o = {.n = r->k, .dtype = r->dtype, .down = r->down, .entries = heap};
  if (r->k == 0) return o;
  if (r->stride == 1 && r->type >= 0)
    top_of_row(r, heap);
  else
    top_by_keys(r, heap);
  if (nyx__stopped(r->stop)) return o;
  for (int64_t left = r->k; left > 1; left--) {
    nyx__order_entry last = heap[0];
    heap[0] = heap[left - 1];
    sift(heap, left - 1);
    heap[left - 1] = last;
  }
  return o;
}

/* Keys below `prefix` in their bits `known`, and the first `equal` of those that agree
 * with it: `count` candidates, among which are the first k. */
typedef struct selection {
  uint64_t known, prefix;
  int64_t equal, count;
} selection;

static void count_digits(const row *r, const selection *s, int shift, uint64_t mask,
                         int64_t *count) {
  uint64_t key[KEYS];
  memset(count, 0, (size_t)(mask + 1) * sizeof *count);
  for (int64_t at = 0, n; at < r->n && !nyx__stopped(r->stop); at += n) {
    n = r->n - at < KEYS ? r->n - at : KEYS;
    keys_at(r, at, n, key);
    for (int64_t i = 0; i < n; i++)
      count[key[i] >> shift & mask] += (key[i] & s->known) == s->prefix;
  }
}

/* The k-th key, digit by digit from the highest one, until there is room for all keys
 * that begin like it. */
static selection find_selection(const row *r) {
  int64_t count[1 << DIGIT], left = r->k; /* of those that begin like the k-th key */
  selection s = {.count = r->n};
  for (int shift = 8 * (int)nyx_dtype_size(r->dtype); shift > 0;) {
    int digit = shift < DIGIT ? shift : DIGIT;
    uint64_t mask = (UINT64_C(1) << digit) - 1, v = 0;
    shift -= digit;
    count_digits(r, &s, shift, mask, count);
    if (nyx__stopped(r->stop)) return s;
    for (; count[v] < left; v++) left -= count[v];
    s.known |= mask << shift;
    s.prefix |= v << shift;
    s.equal = count[v];
    s.count = r->k - left + count[v];
    if (s.count <= room_of(r->k)) return s;
  }
  s.equal = left;
  s.count = r->k;
  return s;
}

/* `entry` makes an element of a key and a position. */
#define GATHER(name, T, entry)                                                           \
  static void gather_##name(const row *r, selection s, T *to) {                          \
    uint64_t key[KEYS];                                                                  \
    for (int64_t at = 0, n; at < r->n && !nyx__stopped(r->stop); at += n) {              \
      n = r->n - at < KEYS ? r->n - at : KEYS;                                           \
      keys_at(r, at, n, key);                                                            \
      for (int64_t i = 0; i < n; i++) {                                                  \
        uint64_t begins = key[i] & s.known;                                              \
        if (begins < s.prefix || (begins == s.prefix && s.equal-- > 0)) *to++ = entry;   \
      }                                                                                  \
    }                                                                                    \
  }
GATHER(narrow, uint64_t, (key[i] << 32 | (uint64_t)(at + i)))
GATHER(entry, nyx__order_entry, ((nyx__order_entry){key[i], at + i}))

/* Sorts only what comes first. */
static nyx__order top_by_selection(const row *r, void *scratch) {
  nyx__order o = {.n = r->k, .dtype = r->dtype, .down = r->down};
  const selection s = find_selection(r);
  int bits = 8 * (int)nyx_dtype_size(r->dtype);
  if (nyx__stopped(r->stop)) return o;
  if (bits <= 32 && r->n <= UINT32_MAX) {
    uint64_t *a = scratch;
    gather_narrow(r, s, a);
    if (nyx__stopped(r->stop)) return o;
    o.words = radix_narrow(r->stop, a, a + s.count, s.count, bits,
                           (int64_t *)(void *)(a + 2 * s.count));
  } else {
    nyx__order_entry *a = scratch;
    gather_entry(r, s, a);
    if (nyx__stopped(r->stop)) return o;
    o.entries = radix_entry(r->stop, a, a + s.count, s.count, bits,
                            (int64_t *)(void *)(a + 2 * s.count));
  }
  return o;
}

nyx__order nyx__order_top(nyx__stop *stop, nyx_dtype dtype, const void *from,
                          int64_t stride, int64_t n, int64_t k, bool down,
                          void *scratch) {
  const row r = {stop, dtype, compare_type(dtype), from, stride, n, k, down};
  switch (top_way(n, k)) {
    case HEAP: return top_by_heap(&r, scratch);
    case SELECT: return top_by_selection(&r, scratch);
    default: return nyx__order_sort(stop, dtype, from, stride, n, down, scratch);
  }
}

/* The least and the greatest of some keys; two by turns, as each waits for the last. */
static void span_of(nyx__stop *stop, const uint64_t *key, int64_t n, uint64_t *least,
                    uint64_t *most) {
  uint64_t low[2] = {key[0], key[0]}, high[2] = {key[0], key[0]};
  for (int64_t i = 0; i < n && !nyx__stopped(stop);) {
    int64_t end = piece_end(i, n);
    for (; i + 1 < end; i += 2) {
      low[0] = key[i] < low[0] ? key[i] : low[0];
      high[0] = key[i] > high[0] ? key[i] : high[0];
      low[1] = key[i + 1] < low[1] ? key[i + 1] : low[1];
      high[1] = key[i + 1] > high[1] ? key[i + 1] : high[1];
    }
    for (; i < end; i++) {
      low[0] = key[i] < low[0] ? key[i] : low[0];
      high[0] = key[i] > high[0] ? key[i] : high[0];
    }
  }
  *least = low[0] < low[1] ? low[0] : low[1];
  *most = high[0] > high[1] ? high[0] : high[1];
}

/* How often each digit occurs; by turns in two tables, as neighbours are often equal. */
static void count_digit(nyx__stop *stop, const uint64_t *key, int64_t n, uint64_t least,
                        int shift, int64_t count[2][256]) {
  for (int64_t i = 0; i < n && !nyx__stopped(stop);) {
    int64_t end = piece_end(i, n);
    for (; i + 1 < end; i += 2) {
      count[0][(key[i] - least) >> shift]++;
      count[1][(key[i + 1] - least) >> shift]++;
    }
    for (; i < end; i++) count[0][(key[i] - least) >> shift]++;
  }
}

/* Those with a digit, which may stay where they are; returns how many. */
static int64_t keep_digit(nyx__stop *stop, const uint64_t *key, int64_t n, uint64_t least,
                          int shift, uint64_t digit, uint64_t *to) {
  int64_t kept = 0;
  for (int64_t i = 0; i < n && !nyx__stopped(stop);)
    for (int64_t end = piece_end(i, n); i < end; i++) {
      const uint64_t one = key[i];
      to[kept] = one;
      kept += (one - least) >> shift == digit;
    }
  return kept;
}

/* The greatest digit says which keys are kept, over and over; digits only cover the range
 * that those are in. */
uint64_t nyx__order_find(nyx__stop *stop, const uint64_t *key, int64_t n, int64_t k,
                         uint64_t *room, int64_t *before) {
  *before = 0;
  for (; n > FOUND; key = room) {
    uint64_t least, most, digit = 0;
    int64_t count[2][256], here;
    span_of(stop, key, n, &least, &most);
    const int bits = most > least ? 64 - __builtin_clzll(most - least) : 0;
    const int wide = n < FEW ? 6 : 8, shift = bits > wide ? bits - wide : 0;
    memset(count[0], 0, sizeof **count << wide);
    memset(count[1], 0, sizeof **count << wide);
    if (nyx__stopped(stop)) return least;
    count_digit(stop, key, n, least, shift, count);
    if (nyx__stopped(stop)) return least;
    for (; (here = count[0][digit] + count[1][digit]) <= k; digit++) k -= here;
    if (shift == 0) {
      *before = k;
      return least + digit;
    }
    n = keep_digit(stop, key, n, least, shift, digit, room);
    if (nyx__stopped(stop)) return least;
  }
  for (int64_t i = 0; i < n; i++) {
    const uint64_t moved = key[i];
    int64_t at = i;
    for (; at > 0 && room[at - 1] > moved; at--) room[at] = room[at - 1];
    room[at] = moved;
  }
  for (int64_t i = k; i > 0 && room[i - 1] == room[k]; i--) ++*before;
  return room[k];
}
