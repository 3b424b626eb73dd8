/* Numbers of a Fourier transform and the passes over them, over one element type T;
 * included by fft_type.h. A number is two vectors: real parts, imaginary parts. The
 * passes are those of Stockham (Cochran et al., "What is the fast Fourier transform?",
 * 1967): the results come out in order, without a pass that turns bits around. */

#if defined(__clang__)
#define LANE_NUMBERS(name)                                                               \
  TYPED(lanes) name;                                                                     \
  UNROLL for (int lane_ = 0; lane_ < LANES; lane_++) name[lane_] = lane_
#else
#define LANE_NUMBERS(name) const TYPED(lanes) name = *(const TYPED(lanes) *)TYPED(numbers)
#endif

typedef struct TYPED(number) {
  V re, im;
} TYPED(number);

static ALWAYS_INLINE N TYPED(plus)(N a, N b) {
  return (N){a.re + b.re, a.im + b.im};
}
static ALWAYS_INLINE N TYPED(minus)(N a, N b) {
  return (N){a.re - b.re, a.im - b.im};
}
/* a - i b, a + i b */
static ALWAYS_INLINE N TYPED(minus_i)(N a, N b) {
  return (N){a.re + b.im, a.im - b.re};
}
static ALWAYS_INLINE N TYPED(plus_i)(N a, N b) {
  return (N){a.re - b.im, a.im + b.re};
}
static ALWAYS_INLINE N TYPED(by)(N a, T re, T im) {
  return (N){a.re * re - a.im * im, a.re * im + a.im * re};
}

static ALWAYS_INLINE N TYPED(times)(N a, N b) {
  return (N){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
static ALWAYS_INLINE N TYPED(exchanged)(N a, bool exchange) {
  return exchange ? (N){a.im, a.re} : a;
}

/* Numbers in memory, real and imaginary parts by turns. */
static ALWAYS_INLINE N TYPED(split)(V a, V b) {
  LANE_NUMBERS(lane);
  return (N){TYPED(pick)(a, b, 2 * lane), TYPED(pick)(a, b, 2 * lane + 1)};
}
static ALWAYS_INLINE void TYPED(merge)(N v, V *a, V *b) {
  LANE_NUMBERS(lane);
  TYPED(lanes) from = (lane >> 1) + (lane & 1) * LANES;
  *a = TYPED(pick)(v.re, v.im, from);
  *b = TYPED(pick)(v.re, v.im, from + LANES / 2);
}
static ALWAYS_INLINE N TYPED(load_numbers)(const T *at) {
  return TYPED(split)(LOAD(at), LOAD(at + LANES));
}
static ALWAYS_INLINE void TYPED(store_numbers)(T *at, N v) {
  V a, b;
  TYPED(merge)(v, &a, &b);
  STORE(at, a);
  STORE(at + LANES, b);
}
/* The last lane first. */
static ALWAYS_INLINE N TYPED(turned)(N v) {
  LANE_NUMBERS(lane);
  return (N){TYPED(pick)(v.re, v.re, LANES - 1 - lane),
             TYPED(pick)(v.im, v.im, LANES - 1 - lane)};
}

/* The transform of r numbers, in place. */
static ALWAYS_INLINE void TYPED(transform4)(N v[4]) {
  N a = TYPED(plus)(v[0], v[2]), b = TYPED(minus)(v[0], v[2]);
  N c = TYPED(plus)(v[1], v[3]), d = TYPED(minus)(v[1], v[3]);
  v[0] = TYPED(plus)(a, c);
  v[1] = TYPED(minus_i)(b, d);
  v[2] = TYPED(minus)(a, c);
  v[3] = TYPED(plus_i)(b, d);
}

static ALWAYS_INLINE void TYPED(transform8)(N v[8]) {
  const T h = (T)0.70710678118654752440;
  N even[4] = {v[0], v[2], v[4], v[6]}, odd[4] = {v[1], v[3], v[5], v[7]};
  TYPED(transform4)(even);
  TYPED(transform4)(odd);
  odd[1] = (N){(odd[1].re + odd[1].im) * h, (odd[1].im - odd[1].re) * h};
  odd[3] = (N){(odd[3].im - odd[3].re) * h, -(odd[3].re + odd[3].im) * h};
  v[0] = TYPED(plus)(even[0], odd[0]), v[4] = TYPED(minus)(even[0], odd[0]);
  v[1] = TYPED(plus)(even[1], odd[1]), v[5] = TYPED(minus)(even[1], odd[1]);
  v[2] = TYPED(minus_i)(even[2], odd[2]), v[6] = TYPED(plus_i)(even[2], odd[2]);
  v[3] = TYPED(plus)(even[3], odd[3]), v[7] = TYPED(minus)(even[3], odd[3]);
}

/* As a matrix of 4 x 4: its columns, times roots of one, then its rows. */
static ALWAYS_INLINE void TYPED(transform16)(N v[16]) {
  const T c = (T)0.92387953251128675613, s = (T)0.38268343236508977173;
  const T h = (T)0.70710678118654752440;
  N a[4][4];
  UNROLL for (int i = 0; i < 4; i++) {
    UNROLL for (int k = 0; k < 4; k++) a[i][k] = v[i + 4 * k];
    TYPED(transform4)(a[i]);
  }
  a[1][1] = TYPED(by)(a[1][1], c, -s);
  a[1][2] = (N){(a[1][2].re + a[1][2].im) * h, (a[1][2].im - a[1][2].re) * h};
  a[1][3] = TYPED(by)(a[1][3], s, -c);
  a[2][1] = (N){(a[2][1].re + a[2][1].im) * h, (a[2][1].im - a[2][1].re) * h};
  a[2][2] = (N){a[2][2].im, -a[2][2].re};
  a[2][3] = (N){(a[2][3].im - a[2][3].re) * h, -(a[2][3].re + a[2][3].im) * h};
  a[3][1] = TYPED(by)(a[3][1], s, -c);
  a[3][2] = (N){(a[3][2].im - a[3][2].re) * h, -(a[3][2].re + a[3][2].im) * h};
  a[3][3] = TYPED(by)(a[3][3], -c, s);
  UNROLL for (int k = 0; k < 4; k++) {
    N row[4] = {a[0][k], a[1][k], a[2][k], a[3][k]};
    TYPED(transform4)(row);
    UNROLL for (int i = 0; i < 4; i++) v[k + 4 * i] = row[i];
  }
}

static ALWAYS_INLINE void TYPED(transform3)(N v[3]) {
  const T s = (T)0.86602540378443864676;
  N sum = TYPED(plus)(v[1], v[2]), d = TYPED(minus)(v[1], v[2]);
  N mid = {v[0].re - (T)0.5 * sum.re, v[0].im - (T)0.5 * sum.im};
  N turned = {d.re * s, d.im * s};
  v[0] = TYPED(plus)(v[0], sum);
  v[1] = TYPED(minus_i)(mid, turned);
  v[2] = TYPED(plus_i)(mid, turned);
}

static ALWAYS_INLINE void TYPED(transform5)(N v[5]) {
  const T c1 = (T)0.30901699437494742410, c2 = (T)-0.80901699437494742410;
  const T s1 = (T)0.95105651629515357212, s2 = (T)0.58778525229247312917;
  N a = TYPED(plus)(v[1], v[4]), b = TYPED(minus)(v[1], v[4]);
  N c = TYPED(plus)(v[2], v[3]), d = TYPED(minus)(v[2], v[3]);
  N p = {v[0].re + c1 * a.re + c2 * c.re, v[0].im + c1 * a.im + c2 * c.im};
  N q = {v[0].re + c2 * a.re + c1 * c.re, v[0].im + c2 * a.im + c1 * c.im};
  N e = {s1 * b.re + s2 * d.re, s1 * b.im + s2 * d.im};
  N f = {s2 * b.re - s1 * d.re, s2 * b.im - s1 * d.im};
  v[0] = TYPED(plus)(v[0], TYPED(plus)(a, c));
  v[1] = TYPED(minus_i)(p, e), v[4] = TYPED(plus_i)(p, e);
  v[2] = TYPED(minus_i)(q, f), v[3] = TYPED(plus_i)(q, f);
}

/* By definition, with the roots of one: 7, 11, 13. */
static void TYPED(transform_odd)(int r, const T *root, N *v) {
  N out[NYX_FFT_RADIX];
  for (int j = 0; j < r; j++) {
    out[j] = v[0];
    for (int k = 1; k < r; k++) {
      const T *w = root + 2 * (j * k % r);
      out[j] = TYPED(plus)(out[j], TYPED(by)(v[k], w[0], w[1]));
    }
  }
  memcpy(v, out, sizeof *v * (size_t)r);
}

/* Of a number of parts known where it is compiled; r 0: of any odd one. */
static ALWAYS_INLINE void TYPED(transform)(const int r, int radix, const T *root, N *v) {
  switch (r) {
    case 1: break;
    case 2: {
      N a = v[0];
      v[0] = TYPED(plus)(a, v[1]);
      v[1] = TYPED(minus)(a, v[1]);
      break;
    }
    case 3: TYPED(transform3)(v); break;
    case 4: TYPED(transform4)(v); break;
    case 5: TYPED(transform5)(v); break;
    case 8: TYPED(transform8)(v); break;
    case 16: TYPED(transform16)(v); break;
    default: TYPED(transform_odd)(radix, root, v);
  }
}

/* What the first pass reads and the last one writes in memory instead of a room: where
 * the lanes of an element lie side by side. */
typedef struct TYPED(ends) {
  const T *from; /* NULL: the room */
  T *to;         /* likewise */
  int64_t from_step, to_step;
  bool exchange_from, exchange_to;
  T scale;
  const T *lane_factor, *line_factor; /* as nyx_fft_lines has them */
} TYPED(ends);

static ALWAYS_INLINE N TYPED(factored)(N v, const T *lane, const T *line, int64_t k,
                                       bool inverse) {
  N f = TYPED(by)((N){LOAD(lane + 2 * LANES * k), LOAD(lane + 2 * LANES * k + LANES)},
                  line[2 * k], line[2 * k + 1]);
  if (inverse) f.im = -f.im;
  return TYPED(times)(v, f);
}

/* Results k, k + s, ... before parts are exchanged. */
static __attribute__((noinline)) void TYPED(put)(const TYPED(ends) * e, int64_t k,
                                                 int64_t s, int count, const N *v) {
  const bool plain = e->scale == 1 && !e->lane_factor;
  for (int i = 0; i < count; i++, k += s) {
    N r = TYPED(exchanged)(v[i], e->exchange_to);
    if (!plain) {
      r = (N){r.re * e->scale, r.im * e->scale};
      if (e->lane_factor)
        r = TYPED(factored)(r, e->lane_factor, e->line_factor, k, e->exchange_to);
    }
    TYPED(store_numbers)(e->to + k * e->to_step, r);
  }
}

/* One pass over parts of `length` numbers, `s` of them side by side. Where `reads` they
 * come from memory; where `writes`, which is known when it runs, they go there by way of
 * a few numbers of its own. */
static ALWAYS_INLINE void TYPED(pass)(const int r, const bool reads, bool writes,
                                      int radix, int64_t length, int64_t s, const T *w,
                                      const T *root, const TYPED(ends) * e, const N *x,
                                      N *y) {
  const int64_t m = length / radix, to_step = writes ? 1 : s;
  N some[NYX_FFT_RADIX];
  for (int64_t p = 0; p < m; p++, w += 2 * (radix - 1)) {
    for (int64_t q = 0; q < s; q++) {
      N v[NYX_FFT_RADIX], *to = writes ? some : y + q + s * radix * p;
      if (reads)
        UNROLL for (int k = 0; k < radix; k++) v[k] = TYPED(exchanged)(
            TYPED(load_numbers)(e->from + (p + m * k) * e->from_step), e->exchange_from);
      else
        UNROLL for (int k = 0; k < radix; k++) v[k] = x[q + s * (p + m * k)];
      TYPED(transform)(r, radix, root, v);
      if (p > 0)
        UNROLL for (int k = 1; k < radix; k++) v[k] =
            TYPED(by)(v[k], w[2 * k - 2], w[2 * k - 1]);
      UNROLL for (int k = 0; k < radix; k++) to[to_step * k] = v[k];
      if (writes) TYPED(put)(e, q, s, radix, some);
    }
  }
}

/* Compiled for each radix, and once more for the first pass, which has s = 1. */
#define PASS(r, radix)                                                                   \
  if (i == 0 && e->from)                                                                 \
    TYPED(pass)(r, true, false, radix, length, 1, w, root, e, x, y);                     \
  else                                                                                   \
    TYPED(pass)(r, false, writes, radix, length, s, w, root, e, x, y);                   \
  break

/* All passes from room to room; gives the one with the results. */
static N *TYPED(run_passes)(const nyx_fft_passes *t, const TYPED(ends) * e, N *x, N *y) {
  int64_t length = t->n, s = 1;
  for (int i = 0; i < t->count; i++) {
    const T *w = t->twiddle[i], *root = t->root[i];
    const bool writes = i == t->count - 1 && e->to;
    switch (t->radix[i]) {
      case 2: PASS(2, 2);
      case 3: PASS(3, 3);
      case 4: PASS(4, 4);
      case 5: PASS(5, 5);
      case 8: PASS(8, 8);
      case 16: PASS(16, 16);
      default: PASS(0, t->radix[i]);
    }
    length /= t->radix[i];
    s *= t->radix[i];
    N *other = x;
    x = y;
    y = other;
  }
  return x;
}
#undef PASS
