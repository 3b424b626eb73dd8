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
  T old = nyx__load(most), a = old, b = old;
  int64_t r = 0;
  for (; r + 2 <= rows; r += 2) {
    a = nyx__max_or(nyx__load(x + r * width), a);
    b = nyx__max_or(nyx__load(x + (r + 1) * width), b);
  }
  if (r < rows) a = nyx__max_or(nyx__load(x + r * width), a);
  a = nyx__max_or(a, b);
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

static void rescale(void *to, int64_t rows, int64_t width, const void *factor) {
  S *x = to;
  for (int64_t i = 0; i < width; i += NYX_LANES) {
    T f = nyx__load((const S *)factor + i);
    for (int64_t r = 0; r < rows; r++)
      nyx__store(x + r * width + i, nyx__load(x + r * width + i) * f);
  }
}

static void slope(void *scores, void *grads, int64_t rows, int64_t width, const void *lse,
                  const void *delta, double scale_) {
  T scale = nyx__attr(scale_);
  for (int64_t r = 0; r < rows; r++) {
    S *x = (S *)scores + r * width, *g = (S *)grads + r * width;
    T shift = nyx__splat(((const S *)lse)[r]), d = nyx__splat(((const S *)delta)[r]);
    for (int64_t i = 0; i < width; i += NYX_LANES) {
      T p = exp_of(nyx__load(x + i) - shift);
      nyx__store(x + i, p);
      nyx__store(g + i, p * scale * (nyx__load(g + i) - d));
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
  for (int64_t q = 0; q < b->queries; q++) {
    S *x = (S *)b->scores + q * b->query;
    int64_t first = q + ahead + 1;
    for (int64_t k = first > 0 ? first : 0; k < b->keys; k++)
      x[k * b->key] = (S)-INFINITY;
  }
}

/* Four rows at a time, for each of which a sum is under way. */
static void dots(const void *q_, const void *keys, int64_t rs, int64_t n, int64_t d,
                 double scale, void *scores) {
  const S *q = q_;
  S *out = scores;
  for (int64_t i = 0; i < n; i += 4) {
    const S *row[4];
    for (int k = 0; k < 4; k++) row[k] = (const S *)keys + (i + k < n ? i + k : i) * rs;
    T a[4] = {K(0), K(0), K(0), K(0)};
    EACH_VECTOR(j, part, 0, d) {
      T x = load_lanes(q + j, part); /* 0 behind the end */
      for (int k = 0; k < 4; k++) a[k] = nyx_fma(load_lanes(row[k] + j, part), x, a[k]);
    }
    for (int k = 0; k < 4 && i + k < n; k++) out[i + k] = total(a[k]) * (S)scale;
  }
}

/* Columns j to j + 4 vectors, or one that is part of a vector. */
static void mix(const void *weights, const void *values, int64_t rs, int64_t n, int64_t d,
                void *to) {
  const S *w = weights;
  S *out = to;
  int64_t j = 0;
  for (; j + 4 * NYX_LANES <= d; j += 4 * NYX_LANES) {
    const S *row = (const S *)values + j;
    T a[4] = {K(0), K(0), K(0), K(0)};
    for (int64_t i = 0; i < n; i++, row += rs) {
      T x = nyx__splat(w[i]);
      for (int k = 0; k < 4; k++) a[k] = nyx_fma(nyx__load(row + k * NYX_LANES), x, a[k]);
    }
    for (int k = 0; k < 4; k++) nyx__store(out + j + k * NYX_LANES, a[k]);
  }
  EACH_VECTOR(i, part, j, d) {
    const S *row = (const S *)values + i;
    T a = K(0);
    for (int64_t r = 0; r < n; r++, row += rs)
      a = nyx_fma(load_lanes(row, part), nyx__splat(w[r]), a);
    store_lanes(out + i, part, a);
  }
}

extern const nyx_attention_kernel ATTENTION_KERNEL;
const nyx_attention_kernel ATTENTION_KERNEL = {
    .soften = soften,
    .rescale = rescale,
    .slope = slope,
    .mask = mask,
    .causal = causal,
    .dots = dots,
    .mix = mix,
};
