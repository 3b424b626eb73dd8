/* Fourier transforms over one element type T; included by fft.c, once for each. A lane of
 * every vector belongs to one line, so that all passes are whole vectors with the same
 * factors for all lanes. The passes are those of Stockham (Cochran et al., "What is the
 * fast Fourier transform?", 1967): the results come out in order, without a pass that
 * turns bits around. A number in a room is two vectors: real parts, imaginary parts. */

#include "part_type.h"
#include "transpose_type.h"

typedef struct TYPED(number) {
  V re, im;
} TYPED(number);
#define N TYPED(number)

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

/* One pass over parts of `length` numbers, `s` of them side by side. */
static ALWAYS_INLINE void TYPED(pass)(const int r, int radix, int64_t length, int64_t s,
                                      const T *w, const T *root, const N *x, N *y) {
  const int64_t m = length / radix;
  for (int64_t p = 0; p < m; p++, w += 2 * (radix - 1)) {
    for (int64_t q = 0; q < s; q++) {
      N v[NYX_FFT_RADIX];
      UNROLL for (int k = 0; k < radix; k++) v[k] = x[q + s * (p + m * k)];
      switch (r) {
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
        default: TYPED(transform_odd)(radix, root, v);
      }
      N *to = y + q + s * radix * p;
      to[0] = v[0];
      if (p == 0)
        UNROLL for (int k = 1; k < radix; k++) to[s * k] = v[k];
      else
        UNROLL for (int k = 1; k < radix; k++) to[s * k] =
            TYPED(by)(v[k], w[2 * k - 2], w[2 * k - 1]);
    }
  }
}

/* All passes from room to room; gives the one with the results. */
static N *TYPED(run_passes)(const nyx_fft_passes *t, N *x, N *y) {
  int64_t length = t->n, s = 1;
  for (int i = 0; i < t->count; i++) {
    const T *w = t->twiddle[i], *root = t->root[i];
    switch (t->radix[i]) {
      case 2: TYPED(pass)(2, 2, length, s, w, root, x, y); break;
      case 3: TYPED(pass)(3, 3, length, s, w, root, x, y); break;
      case 4: TYPED(pass)(4, 4, length, s, w, root, x, y); break;
      case 5: TYPED(pass)(5, 5, length, s, w, root, x, y); break;
      case 8: TYPED(pass)(8, 8, length, s, w, root, x, y); break;
      default: TYPED(pass)(0, t->radix[i], length, s, w, root, x, y);
    }
    length /= t->radix[i];
    s *= t->radix[i];
    N *other = x;
    x = y;
    y = other;
  }
  return x;
}

/* Reading and writing lines */

/* Whether the lanes of one element lie side by side, `item` floats each. */
static bool TYPED(beside)(const int64_t *at, int count, int64_t item) {
  if (count < LANES) return false;
  for (int l = 1; l < LANES; l++)
    if (at[l] != at[0] + l * item) return false;
  return true;
}

/* `n` floats of every line, in groups of `group` neighbours that are `step` apart, into
 * (back from) vectors in that order. */
static void TYPED(read_lines)(const nyx_fft_lines *j, int64_t n, int group, V *to) {
  const T *from = j->from, *line[LANES];
  int64_t step = j->from_step, done = 0;
  for (int l = 0; l < LANES; l++) line[l] = from + j->from_at[l];
  if (step == group) { /* lines lie as they are read */
    for (; done + LANES <= n; done += LANES) {
      V v[LANES];
      UNROLL for (int l = 0; l < LANES; l++) v[l] = LOAD(line[l] + done);
      TYPED(transpose)(v);
      UNROLL for (int l = 0; l < LANES; l++) to[done + l] = v[l];
    }
  } else if (group == 1 && TYPED(beside)(j->from_at, j->count, 1)) {
    for (; done < n; done++) to[done] = LOAD(line[0] + done * step);
  } else if (group == 2 && TYPED(beside)(j->from_at, j->count, 2)) {
    for (; done < n; done += 2) {
      const T *at = line[0] + done / 2 * step;
      V re, im;
      UNROLL for (int l = 0; l < LANES; l++) re[l] = at[2 * l], im[l] = at[2 * l + 1];
      to[done] = re, to[done + 1] = im;
    }
  }
  for (; done < n; done++) {
    int64_t at = done / group * step + done % group;
    T lane[LANES] __attribute__((aligned(VECTOR_BYTES)));
    for (int l = 0; l < LANES; l++) lane[l] = line[l][at];
    to[done] = *(V *)lane;
  }
}

static void TYPED(write_lines)(const nyx_fft_lines *j, int64_t n, int group,
                               const V *from) {
  T *to = j->to;
  int64_t step = j->to_step, done = 0;
  if (step == group && j->count == LANES) {
    for (; done + LANES <= n; done += LANES) {
      V v[LANES];
      UNROLL for (int l = 0; l < LANES; l++) v[l] = from[done + l];
      TYPED(transpose)(v);
      UNROLL for (int l = 0; l < LANES; l++) STORE(to + j->to_at[l] + done, v[l]);
    }
  } else if (group == 1 && TYPED(beside)(j->to_at, j->count, 1)) {
    for (; done < n; done++) STORE(to + j->to_at[0] + done * step, from[done]);
  }
  for (; done < n; done++) {
    int64_t at = done / group * step + done % group;
    const T *lane = (const T *)&from[done];
    for (int l = 0; l < j->count && l < LANES; l++) to[j->to_at[l] + at] = lane[l];
  }
}

/* The inverse is the transform with real and imaginary parts exchanged, before and after.
 */
static void TYPED(exchange_parts)(N *v, int64_t n) {
  for (int64_t k = 0; k < n; k++) v[k] = (N){v[k].im, v[k].re};
}

static void TYPED(scale_parts)(const nyx_fft_lines *j, N *v, int64_t n) {
  const T scale = (T)j->scale, *w = j->factor;
  for (int64_t k = 0; scale != 1 && k < n; k++) v[k].re *= scale, v[k].im *= scale;
  for (int64_t k = 0; w && k < n; k++) {
    T re[LANES] __attribute__((aligned(VECTOR_BYTES))),
        im[LANES] __attribute__((aligned(VECTOR_BYTES)));
    for (int l = 0; l < LANES; l++) {
      int64_t at = k * j->factor_step[l];
      re[l] = w[2 * at];
      im[l] = j->inverse ? -w[2 * at + 1] : w[2 * at + 1];
    }
    V a = *(V *)re, b = *(V *)im;
    v[k] = (N){v[k].re * a - v[k].im * b, v[k].re * b + v[k].im * a};
  }
}

static void TYPED(complex_lines)(const nyx_fft_lines *j) {
  N *x = j->room[0];
  TYPED(read_lines)(j, 2 * j->n, 2, (V *)x);
  if (j->inverse) TYPED(exchange_parts)(x, j->n);
  x = TYPED(run_passes)(j->passes, x, j->room[1]);
  if (j->inverse) TYPED(exchange_parts)(x, j->n);
  TYPED(scale_parts)(j, x, j->n);
  TYPED(write_lines)(j, 2 * j->n, 2, (V *)x);
}

/* Of real numbers x: those at even places as real, at odd ones as imaginary parts, z, are
 * transformed in half as many numbers. Z[k] + conj Z[m - k] is twice the transform of the
 * former, Z[k] - conj Z[m - k] 2i times that of the latter. */
static void TYPED(from_real_lines)(const nyx_fft_lines *j) {
  N *x = j->room[0], *y;
  int64_t n = j->n, m = n / 2;
  const T *w = j->turn, half = (T)0.5;
  if (n % 2) {
    V *reals = j->room[1];
    TYPED(read_lines)(j, n, 1, reals);
    for (int64_t k = 0; k < n; k++) x[k] = (N){reals[k], (V){0}};
    x = TYPED(run_passes)(j->passes, x, j->room[1]);
    TYPED(scale_parts)(j, x, m + 1);
    TYPED(write_lines)(j, 2 * (m + 1), 2, (V *)x);
    return;
  }
  TYPED(read_lines)(j, n, 1, (V *)x);
  x = TYPED(run_passes)(j->passes, x, j->room[1]);
  y = x == (N *)j->room[0] ? j->room[1] : j->room[0];
  y[0] = (N){x[0].re + x[0].im, (V){0}};
  y[m] = (N){x[0].re - x[0].im, (V){0}};
  for (int64_t k = 1; k < m; k++) {
    N a = x[k], b = {x[m - k].re, -x[m - k].im};
    N even = TYPED(plus)(a, b),
      odd = TYPED(by)(TYPED(minus)(a, b), w[2 * k], w[2 * k + 1]);
    N both = TYPED(minus_i)(even, odd);
    y[k] = (N){both.re * half, both.im * half};
  }
  TYPED(scale_parts)(j, y, m + 1);
  TYPED(write_lines)(j, 2 * (m + 1), 2, (V *)y);
}

/* The opposite: x[k] and conj x[m - k] give what the even and the odd places are, twice.
 */
static void TYPED(to_real_lines)(const nyx_fft_lines *j) {
  N *x = j->room[0], *y = j->room[1];
  int64_t n = j->n, m = n / 2;
  const T *w = j->turn;
  TYPED(read_lines)(j, 2 * (m + 1), 2, (V *)x);
  x[0].im = (V){0};
  if (n % 2) {
    for (int64_t k = 1; k <= m; k++) x[n - k] = (N){x[k].re, -x[k].im};
    TYPED(exchange_parts)(x, n);
    y = TYPED(run_passes)(j->passes, x, y);
    V *reals = y == (N *)j->room[0] ? j->room[1] : j->room[0];
    for (int64_t k = 0; k < n; k++) reals[k] = y[k].im * (T)j->scale;
    TYPED(write_lines)(j, n, 1, reals);
    return;
  }
  x[m].im = (V){0};
  for (int64_t k = 0; k < m; k++) {
    N a = x[k], b = {x[m - k].re, -x[m - k].im};
    N even = TYPED(plus)(a, b);
    N odd = TYPED(by)(TYPED(minus)(a, b), w[2 * k], -w[2 * k + 1]);
    N z = TYPED(plus_i)(even, odd);
    y[k] = (N){z.im, z.re}; /* exchanged: for the inverse */
  }
  y = TYPED(run_passes)(j->passes, y, x);
  TYPED(exchange_parts)(y, m);
  TYPED(scale_parts)(j, y, m);
  TYPED(write_lines)(j, n, 1, (V *)y);
}

static void TYPED(lines)(const nyx_fft_lines *j) {
  switch (j->kind) {
    case NYX_FFT_COMPLEX: TYPED(complex_lines)(j); break;
    case NYX_FFT_FROM_REAL: TYPED(from_real_lines)(j); break;
    case NYX_FFT_TO_REAL: TYPED(to_real_lines)(j); break;
  }
}

#undef N
#undef V
#undef LANES
#undef LOAD
#undef STORE
