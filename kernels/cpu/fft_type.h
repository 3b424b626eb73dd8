/* Fourier transforms over one element type T; included by fft.c, once for each. A lane of
 * every vector belongs to one line, so that all passes are whole vectors with the same
 * factors for all lanes. Read next: fft_pass_type.h, fft_packed_type.h, fft_short_type.h.
 */

#include "part_type.h"
#include "transpose_type.h"

#define N TYPED(number)
#include "fft_pass_type.h"

#include "fft_packed_type.h" /* needs the passes */
#include "fft_short_type.h"  /* needs halves of real lines */

/* Reading and writing lines */

/* Whether the lanes of one element lie side by side, `item` floats each. */
static bool TYPED(beside)(const int64_t *at, int count, int64_t item) {
  for (int l = 1; l < count && l < LANES; l++)
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
    const TYPED(part) part = TYPED(part_of)(0, j->count);
    for (; done < n; done++) to[done] = TYPED(load_part)(line[0] + done * step, part);
  } else if (group == 2 && TYPED(beside)(j->from_at, j->count, 2)) {
    const TYPED(part) a = TYPED(part_of)(0, 2 * j->count);
    const TYPED(part) b = TYPED(part_of)(0, 2 * j->count - LANES);
    for (; done < n; done += 2) {
      const T *at = line[0] + done / 2 * step;
      N v = TYPED(split)(TYPED(load_part)(at, a), TYPED(load_part)(at + LANES, b));
      to[done] = v.re, to[done + 1] = v.im;
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
    const TYPED(part) part = TYPED(part_of)(0, j->count);
    for (; done < n; done++)
      TYPED(store_part)(to + j->to_at[0] + done * step, from[done], part);
  } else if (group == 2 && TYPED(beside)(j->to_at, j->count, 2)) {
    const TYPED(part) a = TYPED(part_of)(0, 2 * j->count);
    const TYPED(part) b = TYPED(part_of)(0, 2 * j->count - LANES);
    for (; done < n; done += 2) {
      T *at = to + j->to_at[0] + done / 2 * step;
      V first, second;
      TYPED(merge)((N){from[done], from[done + 1]}, &first, &second);
      TYPED(store_part)(at, first, a);
      TYPED(store_part)(at + LANES, second, b);
    }
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
  const T scale = (T)j->scale;
  for (int64_t k = 0; scale != 1 && k < n; k++) v[k].re *= scale, v[k].im *= scale;
  for (int64_t k = 0; j->lane_factor && k < n; k++)
    v[k] = TYPED(factored)(v[k], j->lane_factor, j->line_factor, k, j->inverse);
}

static void TYPED(complex_lines)(const nyx_fft_lines *j) {
  N *x = j->room[0];
  const int passes = j->passes->count;
  if (LANES >= 8 && !j->lane_factor && TYPED(is_short)(j) &&
      TYPED(beside)(j->from_at, j->count, 2) && TYPED(beside)(j->to_at, j->count, 2)) {
    TYPED(beside_lines)(j);
    return;
  }
  const bool whole = j->count == LANES && passes > 0;
  const bool in = whole && TYPED(beside)(j->from_at, LANES, 2);
  const bool out = whole && passes > in && TYPED(beside)(j->to_at, LANES, 2);
  TYPED(ends)
  ends = {.from_step = j->from_step,
          .to_step = j->to_step,
          .exchange_from = j->inverse,
          .exchange_to = j->inverse,
          .scale = (T)j->scale,
          .lane_factor = j->lane_factor,
          .line_factor = j->line_factor};
  if (in) ends.from = (const T *)j->from + j->from_at[0];
  if (out) ends.to = (T *)j->to + j->to_at[0];
  if (!in) TYPED(read_lines)(j, 2 * j->n, 2, (V *)x);
  if (!in && j->inverse) TYPED(exchange_parts)(x, j->n);
  x = TYPED(run_passes)(j->passes, &ends, x, j->room[1]);
  if (out) return;
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
  const TYPED(ends) rooms = {0};
  const T *w = j->turn, half = (T)0.5;
  if (n % 2) {
    V *reals = j->room[1];
    TYPED(read_lines)(j, n, 1, reals);
    for (int64_t k = 0; k < n; k++) x[k] = (N){reals[k], (V){0}};
    x = TYPED(run_passes)(j->passes, &rooms, x, j->room[1]);
    TYPED(scale_parts)(j, x, m + 1);
    TYPED(write_lines)(j, 2 * (m + 1), 2, (V *)x);
    return;
  }
  TYPED(read_lines)(j, n, 1, (V *)x);
  x = TYPED(run_passes)(j->passes, &rooms, x, j->room[1]);
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
  const TYPED(ends) rooms = {0};
  const T *w = j->turn;
  TYPED(read_lines)(j, 2 * (m + 1), 2, (V *)x);
  x[0].im = (V){0};
  if (n % 2) {
    for (int64_t k = 1; k <= m; k++) x[n - k] = (N){x[k].re, -x[k].im};
    TYPED(exchange_parts)(x, n);
    y = TYPED(run_passes)(j->passes, &rooms, x, y);
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
  y = TYPED(run_passes)(j->passes, &rooms, y, x);
  TYPED(exchange_parts)(y, m);
  TYPED(scale_parts)(j, y, m);
  TYPED(write_lines)(j, n, 1, (V *)y);
}

static void TYPED(lines)(const nyx_fft_lines *j) {
  if (j->passes->columns > 1) {
    if (LANES >= 8 && j->passes->columns == NYX_FFT_SHORT)
      TYPED(all_short_lines)(j);
    else
      TYPED(packed_lines)(j);
    return;
  }
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
