/* The kernels of attention.h over one float type: included by attention_<type>.c, which
 * chooses the type and ATTENTION_KERNEL, the symbol. Read next: attention.h,
 * softmax_lanes.h. */
#include "attention.h"
#include "cpu.h"
#include "softmax_lanes.h"

/* One vector of columns. -inf - -inf is no number, so that columns of nothing else are
 * shifted by 0. */
NYX_FN void soften_columns(S *x, int64_t rows, int64_t width, S *most, S *sum,
                           S *factor) {
  T old = nyx__load(most), a = old, b = old, c = old, d = old;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) { /* a maximum takes as long as four loads */
    a = nyx__max_or(nyx__load(x + r * width), a);
    b = nyx__max_or(nyx__load(x + (r + 1) * width), b);
    c = nyx__max_or(nyx__load(x + (r + 2) * width), c);
    d = nyx__max_or(nyx__load(x + (r + 3) * width), d);
  }
  for (; r < rows; r++) a = nyx__max_or(nyx__load(x + r * width), a);
  a = nyx__max_or(nyx__max_or(a, b), nyx__max_or(c, d));
  T shift = nyx_select(nyx_eq(a, NYX_LOWEST), K(0), a);
  T s = K(0), t = K(0);
  for (r = 0; r + 2 <= rows; r += 2) {
    T u = exp_of(nyx__load(x + r * width) - shift);
    T v = exp_of(nyx__load(x + (r + 1) * width) - shift);
    nyx__store(x + r * width, u);
    nyx__store(x + (r + 1) * width, v);
    s += u;
    t += v;
  }
  if (r < rows) {
    T u = exp_of(nyx__load(x + r * width) - shift);
    nyx__store(x + r * width, u);
    s += u;
  }
  T f = exp_of(old - shift);
  nyx__store(most, a);
  nyx__store(factor, f);
  nyx__store(sum, nyx_fma(nyx__load(sum), f, s + t));
}

static void soften(void *scores, int64_t rows, int64_t width, void *most, void *sum,
                   void *factor) {
  for (int64_t i = 0; i < width; i += NYX_LANES)
    soften_columns((S *)scores + i, rows, width, (S *)most + i, (S *)sum + i,
                   (S *)factor + i);
}

static void finish(int64_t width, const void *most, void *sum, void *factor) {
  for (int64_t i = 0; i < width; i += NYX_LANES) {
    T s = nyx__load((S *)sum + i), all = nyx__load((const S *)most + i) + nyx_log(s);
    M none = nyx_eq(s, K(0));
    nyx__store((S *)factor + i, nyx_select(none, K(0), K(1) / s));
    nyx__store((S *)sum + i, nyx_select(none, K(INFINITY), all));
  }
}

static void rescale(void *to, int64_t rows, int64_t width, const void *factor) {
  S *x = to;
  for (int64_t i = 0; i < width; i += NYX_LANES) {
    T f = nyx__load((const S *)factor + i);
    for (int64_t r = 0; r < rows; r++)
      nyx__store(x + r * width + i, nyx__load(x + r * width + i) * f);
  }
}

/* Which lanes of a vector dropout keeps, of a row of keys from key i of the block on. */
NYX_FN M kept_keys(const uint32_t *words, const nyx_attention_keep *keep, int64_t i) {
  int64_t at = keep->first + i;
  SI bits = (SI)(words[at / 32 * keep->step] >> at % 32);
  return (KI(bits) & (KI(1) << (I){NYX_LANE_NUMBERS})) != 0;
}

NYX_FN void slope_rows(S *x, S *g, int64_t rows, int64_t width, int64_t step,
                       const S *lse, const S *delta, double scale_,
                       const nyx_attention_keep *keep, const bool dropping) {
  T scale = nyx__attr(scale_), by = dropping ? nyx__attr(keep->by) : K(1);
  for (int64_t r = 0; r < rows; r++, x += step, g += step) {
    T shift = nyx__splat(lse[r]), d = nyx__splat(delta[r]);
    for (int64_t i = 0; i < width; i += NYX_LANES) {
      T p = exp_of(nyx__load(x + i) - shift), slope = nyx__load(g + i);
      if (dropping) {
        M kept = kept_keys(keep->words + r, keep, i);
        nyx__store(x + i, nyx_select(kept, p * by, K(0)));
        slope = nyx_select(kept, slope * by, K(0));
      } else {
        nyx__store(x + i, p);
      }
      nyx__store(g + i, p * scale * (slope - d));
    }
  }
}

static void slope(void *scores, void *grads, int64_t rows, int64_t width, int64_t step,
                  const void *lse, const void *delta, double scale,
                  const nyx_attention_keep *keep) {
  if (keep)
    slope_rows(scores, grads, rows, width, step, lse, delta, scale, keep, true);
  else
    slope_rows(scores, grads, rows, width, step, lse, delta, scale, NULL, false);
}

/* The words of the queries of a vector. */
NYX_FN I load_words(const uint32_t *p) {
  uint32_t words __attribute__((vector_size(NYX_LANES * sizeof(uint32_t))));
  memcpy(&words, p, sizeof words);
  return __builtin_convertvector(words, I);
}

/* Keys are rows, so that a bit of the words of some queries is that of their key. */
NYX_FN void drop_columns(S *x, int64_t keys, int64_t step, const uint32_t *words,
                         const nyx_attention_keep *keep) {
  for (int64_t k = 0; k < keys;) {
    int64_t at = keep->first + k, n = 32 - at % 32;
    n = n < keys - k ? n : keys - k;
    I word = load_words(words + at / 32 * keep->step), bit = KI(1) << (SI)(at % 32);
    for (int64_t i = 0; i < n; i++, bit += bit) {
      S *own = x + (k + i) * step;
      nyx__store(own, nyx_select((word & bit) != 0, nyx__load(own), K(0)));
    }
    k += n;
  }
}

static void drop(const nyx_attention_block *b, const nyx_attention_keep *keep) {
  S *x = b->scores;
  if (b->query == 1) {
    for (int64_t q = 0; q < b->queries; q += NYX_LANES)
      drop_columns(x + q, b->keys, b->key, keep->words + q, keep);
    return;
  }
  for (int64_t q = 0; q < b->queries; q++, x += b->query) {
    EACH_VECTOR(i, part, 0, b->keys) {
      M kept = kept_keys(keep->words + q, keep, i);
      store_lanes(x + i, part, nyx_select(kept, load_lanes(x + i, part), K(0)));
    }
  }
}

/* The mask of one query; `step`, of the scores, and `key` are 1 where that helps. */
NYX_FN void mask_query(S *x, int64_t n, int64_t step, const void *mask, bool flags,
                       int64_t key) {
  if (flags) {
    const uint8_t *m = mask;
    for (int64_t i = 0; i < n; i++) x[i * step] = m[i * key] ? x[i * step] : (S)-INFINITY;
  } else {
    const S *m = mask;
    for (int64_t i = 0; i < n; i++) x[i * step] += m[i * key];
  }
}

static void mask(const nyx_attention_block *b, const nyx_attention_mask *m) {
  for (int64_t q = 0; q < b->queries; q++) {
    S *x = (S *)b->scores + q * b->query;
    size_t item = m->flags ? 1 : sizeof(S);
    const char *at = (const char *)m->at + q * m->query * (int64_t)item;
    if (b->key == 1 && m->key == 1)
      mask_query(x, b->keys, 1, at, m->flags, 1);
    else if (m->key == 1)
      mask_query(x, b->keys, b->key, at, m->flags, 1);
    else
      mask_query(x, b->keys, b->key, at, m->flags, m->key);
  }
}

static void causal(const nyx_attention_block *b, int64_t ahead) {
  if (b->query == 1) { /* of a row of keys the first queries, ever more of them */
    for (int64_t k = ahead + 1 > 0 ? ahead + 1 : 0; k < b->keys; k++) {
      S *x = (S *)b->scores + k * b->key;
      int64_t n = k - ahead < b->queries ? k - ahead : b->queries;
      for (int64_t q = 0; q < n; q++) x[q] = (S)-INFINITY;
    }
    return;
  }
  for (int64_t q = 0; q < b->queries; q++) {
    S *x = (S *)b->scores + q * b->query;
    int64_t first = q + ahead + 1;
    for (int64_t k = first > 0 ? first : 0; k < b->keys; k++)
      x[k * b->key] = (S)-INFINITY;
  }
}

#define MOST 4 /* queries, keys or vectors at once, at most */
#if NYX_BYTES == 64
#define BESIDE 4 /* keys, or vectors, for so many queries: the registers hold no more */
#else
#define BESIDE 2
#endif

/* Whether there are instructions that widen halves; float32 only. */
#if NYX_T_BITS == 32 && defined(__AVX2__) && defined(__F16C__)
#define HALVES 1
NYX_FN T widen(const void *p) {
#if NYX_BYTES == 64
  return (T)_mm512_cvtph_ps(_mm256_loadu_si256(p));
#else
  return (T)_mm256_cvtph_ps(_mm_loadu_si128(p));
#endif
}
#else
#define HALVES 0
NYX_FN T widen(const void *p) {
  return nyx__load(p);
}
#endif

#define ASK 3072 /* bytes of keys that are asked for before they are needed, about */
#define ITEM(kind) ((kind) == NYX_KEYS_OWN ? (int64_t)sizeof(S) : 2)

/* A vector of keys or values, of which the first `part` lanes count. */
NYX_FN T load_keys(const char *p, int64_t part, const nyx_attention_kind kind) {
  if (kind == NYX_KEYS_OWN) return load_lanes((const S *)(const void *)p, part);
  if (part == NYX_LANES) return widen(p);
  uint16_t room[sizeof(T) / 2] = {0};
  memcpy(room, p, (size_t)part * 2);
  return widen(room);
}

/* Two vectors of bfloat16, which are widened as they lie, the even elements and the odd:
 * an instruction each, where their order costs two (vpermw takes both ports of the
 * multiplications). `part` elements count. */
#define PAIR (2 * NYX_LANES)
NYX_FN I load_pairs(const char *p, int64_t part) {
  I v;
  if (part < PAIR) {
    uint16_t room[sizeof(I) / 2] = {0};
    memcpy(room, p, (size_t)part * 2);
    memcpy(&v, room, sizeof v);
  } else {
    memcpy(&v, p, sizeof v);
  }
  return v;
}
NYX_FN T widen_pairs(I v, const int odd) {
  return (T)(odd ? v & KI(-65536) : v << 16);
}

#if NYX_LANES == 16
#define ZIP(a, b, i)                                                                     \
  __builtin_shufflevector(a, b, i, i + 16, i + 1, i + 17, i + 2, i + 18, i + 3, i + 19,  \
                          i + 4, i + 20, i + 5, i + 21, i + 6, i + 22, i + 7, i + 23)
#define EVERY_OTHER(a, b, i)                                                             \
  __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6, i + 8, i + 10, i + 12, i + 14,   \
                          i + 16, i + 18, i + 20, i + 22, i + 24, i + 26, i + 28,        \
                          i + 30)
#elif NYX_LANES == 8
#define ZIP(a, b, i)                                                                     \
  __builtin_shufflevector(a, b, i, i + 8, i + 1, i + 9, i + 2, i + 10, i + 3, i + 11)
#define EVERY_OTHER(a, b, i)                                                             \
  __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6, i + 8, i + 10, i + 12, i + 14)
#elif NYX_LANES == 4
#define ZIP(a, b, i) __builtin_shufflevector(a, b, i, i + 4, i + 1, i + 5)
#define EVERY_OTHER(a, b, i) __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6)
#else
#define ZIP(a, b, i) __builtin_shufflevector(a, b, i, i + 2)
#define EVERY_OTHER(a, b, i) __builtin_shufflevector(a, b, i, i + 2)
#endif

/* `part` floats, the even ones and the odd. */
NYX_FN void load_split(const S *p, int64_t part, T to[2]) {
  T a = load_lanes(p, part), b = K(0);
  if (part > NYX_LANES) b = load_lanes(p + NYX_LANES, part - NYX_LANES);
  to[0] = EVERY_OTHER(a, b, 0);
  to[1] = EVERY_OTHER(a, b, 1);
}
NYX_FN void store_split(S *p, int64_t part, const T from[2]) {
  store_lanes(p, part, ZIP(from[0], from[1], 0));
  if (part > NYX_LANES)
    store_lanes(p + NYX_LANES, part - NYX_LANES, ZIP(from[0], from[1], NYX_LANES / 2));
}

static void split(const void *q, int64_t d, void *to) {
  for (int64_t i = 0; i < d; i += PAIR) {
    T v[2];
    load_split((const S *)q + i, d - i, v);
    nyx__store((S *)to + i, v[0]);
    nyx__store((S *)to + i + NYX_LANES, v[1]);
  }
}

/* Lane l of x: that of a, or of b where bit d of l is set, and beside it the one that is
 * d apart, so that half as many vectors hold half sums of all. */
#define CROSSED(l, d) (((l) ^ (d)) + ((l) & (d) ? NYX_LANES : 0))
#if NYX_LANES == 16
#define CROSS(a, b, d)                                                                   \
  __builtin_shufflevector(a, b, CROSSED(0, d), CROSSED(1, d), CROSSED(2, d),             \
                          CROSSED(3, d), CROSSED(4, d), CROSSED(5, d), CROSSED(6, d),    \
                          CROSSED(7, d), CROSSED(8, d), CROSSED(9, d), CROSSED(10, d),   \
                          CROSSED(11, d), CROSSED(12, d), CROSSED(13, d),                \
                          CROSSED(14, d), CROSSED(15, d))
#elif NYX_LANES == 8
#define CROSS(a, b, d)                                                                   \
  __builtin_shufflevector(a, b, CROSSED(0, d), CROSSED(1, d), CROSSED(2, d),             \
                          CROSSED(3, d), CROSSED(4, d), CROSSED(5, d), CROSSED(6, d),    \
                          CROSSED(7, d))
#elif NYX_LANES == 4
#define CROSS(a, b, d)                                                                   \
  __builtin_shufflevector(a, b, CROSSED(0, d), CROSSED(1, d), CROSSED(2, d),             \
                          CROSSED(3, d))
#else
#define CROSS(a, b, d) __builtin_shufflevector(a, b, CROSSED(0, d), CROSSED(1, d))
#endif
#define HALVE(v, n, d)                                                                   \
  if (NYX_LANES > (d)) {                                                                 \
    if ((n) > (d)) {                                                                     \
      for (int i = 0; i < (n); i += 2 * (d))                                             \
        v[i] = nyx_select((M)(((I){NYX_LANE_NUMBERS} & (d)) == 0), v[i], v[i + (d)]) +   \
               CROSS(v[i], v[i + (d)], d);                                               \
    } else {                                                                             \
      v[0] += NYX_SWAPPED(v[0], d);                                                      \
    }                                                                                    \
  }

/* The lanes of each of n vectors added up, times scale; n is 4, 8 or 16. */
NYX_FN void totals(T *v, const int n, S scale, S *out) {
  for (int from = 0; from < n; from += NYX_LANES, v += NYX_LANES) {
    const int some = n < NYX_LANES ? n : NYX_LANES;
    HALVE(v, some, 1)
#if NYX_LANES >= 4
    HALVE(v, some, 2)
#endif
#if NYX_LANES >= 8
    HALVE(v, some, 4)
#endif
#if NYX_LANES >= 16
    HALVE(v, some, 8)
#endif
    v[0] *= nyx__splat(scale);
    if (some == NYX_LANES) {
      nyx__store(out + from, v[0]);
    } else {
      for (int i = 0; i < some; i++) out[i] = v[0][i];
    }
  }
}

/* How far to look ahead where rows have d elements: some whole rows. */
NYX_FN int64_t ahead(int64_t d, int64_t rs, int64_t item) {
  return (ASK / (d * item + 1) + 1) * rs * item;
}

/* Vector j of keys times that of queries. What comes next of keys is asked for. */
NYX_FN void add_products(const void *const *q, const int queries, const char **row,
                         const int keys, const nyx_attention_kind kind, int64_t j,
                         int64_t part, int64_t next, T *a) {
  const int64_t item = ITEM(kind);
  T x[MOST];
  for (int k = 0; k < keys; k++) {
    __builtin_prefetch(row[k] + j * item + next);
    x[k] = load_keys(row[k] + j * item, part, kind);
  }
  for (int r = 0; r < queries; r++) {
    T y = load_lanes((const S *)q[r] + j, part); /* 0 behind the end */
    for (int k = 0; k < keys; k++) a[r * keys + k] = nyx_fma(x[k], y, a[r * keys + k]);
  }
}

/* The same for two vectors of bfloat16, and of queries that are split like them. */
NYX_FN void add_pairs(const void *const *q, const int queries, const char **row,
                      const int keys, int64_t j, int64_t part, int64_t next, T *a) {
  I pair[MOST];
  for (int k = 0; k < keys; k++) {
    __builtin_prefetch(row[k] + 2 * j + next);
    pair[k] = load_pairs(row[k] + 2 * j, part);
  }
  for (int odd = 0; odd < 2; odd++) {
    T x[MOST];
    for (int k = 0; k < keys; k++) x[k] = widen_pairs(pair[k], odd);
    for (int r = 0; r < queries; r++) {
      T y = nyx__load((const S *)q[r] + j + odd * NYX_LANES);
      for (int k = 0; k < keys; k++) a[r * keys + k] = nyx_fma(x[k], y, a[r * keys + k]);
    }
  }
}

/* For each of `keys` keys and each query a sum is under way. */
NYX_FN void dots_of(const void *const *q, const int queries, const int keys,
                    const char *from, const nyx_attention_kind kind, int64_t rs,
                    int64_t n, int64_t d, S scale, S *scores, int64_t step) {
  const int64_t item = ITEM(kind), next = ahead(d, rs, item);
  for (int64_t i = 0; i < n; i += keys) {
    const char *row[MOST];
    T a[MOST * MOST];
    S sum[MOST * MOST];
    for (int k = 0; k < keys; k++) row[k] = from + (i + k < n ? i + k : i) * rs * item;
    for (int k = 0; k < keys * queries; k++) a[k] = K(0);
    int64_t j = 0;
    if (kind == NYX_KEYS_BFLOAT16) {
      for (; j + PAIR <= d; j += PAIR) add_pairs(q, queries, row, keys, j, PAIR, next, a);
      if (j < d) add_pairs(q, queries, row, keys, j, d - j, next, a);
    } else {
      for (; j + NYX_LANES <= d; j += NYX_LANES)
        add_products(q, queries, row, keys, kind, j, NYX_LANES, next, a);
      if (j < d) add_products(q, queries, row, keys, kind, j, d - j, next, a);
    }
    totals(a, keys * queries, scale, sum);
    for (int r = 0; r < queries; r++) {
      if (i + keys <= n) {
        memcpy(scores + r * step + i, sum + r * keys, (size_t)keys * sizeof(S));
        continue;
      }
      for (int k = 0; i + k < n; k++) scores[r * step + i + k] = sum[r * keys + k];
    }
  }
}

NYX_FN void dots_kind(const void *const *q, int64_t queries, const char *keys,
                      const nyx_attention_kind kind, int64_t rs, int64_t n, int64_t d,
                      S scale, S *to, int64_t step) {
  int64_t r = 0;
  for (; r + 4 <= queries; r += 4)
    dots_of(q + r, 4, BESIDE, keys, kind, rs, n, d, scale, to + r * step, step);
  if (r + 2 <= queries) {
    dots_of(q + r, 2, BESIDE, keys, kind, rs, n, d, scale, to + r * step, step);
    r += 2;
  }
  if (r < queries) dots_of(q + r, 1, 4, keys, kind, rs, n, d, scale, to + r * step, step);
}

static void dots(const void *const *q, int64_t queries, const void *keys,
                 nyx_attention_kind kind, int64_t rs, int64_t n, int64_t d, double scale,
                 void *scores, int64_t step) {
  S by = (S)scale;
  if (HALVES && kind == NYX_KEYS_BFLOAT16)
    dots_kind(q, queries, keys, NYX_KEYS_BFLOAT16, rs, n, d, by, scores, step);
  else if (HALVES && kind == NYX_KEYS_FLOAT16)
    dots_kind(q, queries, keys, NYX_KEYS_FLOAT16, rs, n, d, by, scores, step);
  else
    dots_kind(q, queries, keys, NYX_KEYS_OWN, rs, n, d, by, scores, step);
}

/* `vectors` vectors of columns, the last of which has `part` lanes. */
NYX_FN void mix_columns(const S *w, int64_t step, const int queries, const int vectors,
                        int64_t part, const char *row, const nyx_attention_kind kind,
                        int64_t rs, int64_t n, int64_t next, S *out, int64_t out_step,
                        bool add) {
  const int64_t item = ITEM(kind), wide = NYX_LANES * item;
  T a[MOST][MOST];
  for (int r = 0; r < queries; r++)
    for (int k = 0; k < vectors; k++)
      a[r][k] = add ? load_lanes(out + r * out_step + k * NYX_LANES,
                                 k + 1 < vectors ? NYX_LANES : part)
                    : K(0);
  for (int64_t i = 0; i < n; i++, row += rs * item) {
    T v[MOST];
    for (int k = 0; k < vectors; k++) {
      __builtin_prefetch(row + k * wide + next);
      v[k] = load_keys(row + k * wide, k + 1 < vectors ? NYX_LANES : part, kind);
    }
    for (int r = 0; r < queries; r++) {
      T x = nyx__splat(w[r * step + i]);
      for (int k = 0; k < vectors; k++) a[r][k] = nyx_fma(v[k], x, a[r][k]);
    }
  }
  for (int r = 0; r < queries; r++)
    for (int k = 0; k < vectors; k++)
      store_lanes(out + r * out_step + k * NYX_LANES, k + 1 < vectors ? NYX_LANES : part,
                  a[r][k]);
}

/* `pairs` pairs of vectors of bfloat16, the last of which has `part` elements. */
NYX_FN void mix_pairs(const S *w, int64_t step, const int queries, const int pairs,
                      int64_t part, const char *row, int64_t rs, int64_t n, int64_t next,
                      S *out, int64_t out_step, bool add) {
  const int64_t wide = 2 * PAIR;
  T a[MOST][MOST];
  for (int r = 0; r < queries; r++) {
    for (int k = 0; k < pairs; k++) {
      a[r][2 * k] = a[r][2 * k + 1] = K(0);
      if (add)
        load_split(out + r * out_step + k * PAIR, k + 1 < pairs ? PAIR : part,
                   &a[r][2 * k]);
    }
  }
  for (int64_t i = 0; i < n; i++, row += rs * 2) {
    T v[MOST];
    for (int k = 0; k < pairs; k++) {
      __builtin_prefetch(row + k * wide + next);
      I pair = load_pairs(row + k * wide, k + 1 < pairs ? PAIR : part);
      v[2 * k] = widen_pairs(pair, 0);
      v[2 * k + 1] = widen_pairs(pair, 1);
    }
    for (int r = 0; r < queries; r++) {
      T x = nyx__splat(w[r * step + i]);
      for (int k = 0; k < 2 * pairs; k++) a[r][k] = nyx_fma(v[k], x, a[r][k]);
    }
  }
  for (int r = 0; r < queries; r++)
    for (int k = 0; k < pairs; k++)
      store_split(out + r * out_step + k * PAIR, k + 1 < pairs ? PAIR : part,
                  &a[r][2 * k]);
}

NYX_FN void mix_of(const S *w, int64_t step, const int queries, const int vectors,
                   const char *values, const nyx_attention_kind kind, int64_t rs,
                   int64_t n, int64_t d, S *out, int64_t out_step, bool add) {
  const int64_t item = ITEM(kind), next = ahead(d, rs, item);
  int64_t j = 0;
  if (kind == NYX_KEYS_BFLOAT16) {
    for (; j + vectors * NYX_LANES <= d; j += vectors * NYX_LANES)
      mix_pairs(w, step, queries, vectors / 2, PAIR, values + j * item, rs, n, next,
                out + j, out_step, add);
    for (; j < d; j += PAIR)
      mix_pairs(w, step, queries, 1, d - j < PAIR ? d - j : PAIR, values + j * item, rs,
                n, next, out + j, out_step, add);
    return;
  }
  for (; j + vectors * NYX_LANES <= d; j += vectors * NYX_LANES)
    mix_columns(w, step, queries, vectors, NYX_LANES, values + j * item, kind, rs, n,
                next, out + j, out_step, add);
  EACH_VECTOR(i, part, j, d) {
    mix_columns(w, step, queries, 1, part, values + i * item, kind, rs, n, next, out + i,
                out_step, add);
  }
}

NYX_FN void mix_kind(const S *w, int64_t step, int64_t queries, const char *values,
                     const nyx_attention_kind kind, int64_t rs, int64_t n, int64_t d,
                     S *out, int64_t out_step, bool add) {
  int64_t r = 0;
  for (; r + 4 <= queries; r += 4)
    mix_of(w + r * step, step, 4, BESIDE, values, kind, rs, n, d, out + r * out_step,
           out_step, add);
  if (r + 2 <= queries) {
    mix_of(w + r * step, step, 2, BESIDE, values, kind, rs, n, d, out + r * out_step,
           out_step, add);
    r += 2;
  }
  if (r < queries)
    mix_of(w + r * step, step, 1, 4, values, kind, rs, n, d, out + r * out_step, out_step,
           add);
}

static void mix(const void *w, int64_t step, int64_t queries, const void *values,
                nyx_attention_kind kind, int64_t rs, int64_t n, int64_t d, void *out,
                int64_t out_step, bool add) {
  if (HALVES && kind == NYX_KEYS_BFLOAT16)
    mix_kind(w, step, queries, values, NYX_KEYS_BFLOAT16, rs, n, d, out, out_step, add);
  else if (HALVES && kind == NYX_KEYS_FLOAT16)
    mix_kind(w, step, queries, values, NYX_KEYS_FLOAT16, rs, n, d, out, out_step, add);
  else
    mix_kind(w, step, queries, values, NYX_KEYS_OWN, rs, n, d, out, out_step, add);
}

extern const nyx_attention_kernel ATTENTION_KERNEL;
const nyx_attention_kernel ATTENTION_KERNEL = {
    .soften = soften,
    .finish = finish,
    .rescale = rescale,
    .slope = slope,
    .drop = drop,
    .mask = mask,
    .causal = causal,
    .pair = PAIR,
    .split = split,
    .dots = dots,
    .mix = mix,
    .halves = HALVES,
};
