/* Short lines that are transformed as they lie, real and imaginary parts by turns, over
 * one element type T; included by fft_type.h. A vector has NUMBERS numbers. Numbers are
 * not taken apart and put together again, and half as many registers hold a line: that
 * saves more than the parts being exchanged for each i costs. Lines beside each other go
 * down, one number of each in a vector. Those in one piece are rows of NUMBERS: down all
 * columns, times roots of one, turned out of the vectors, and each row (the six steps of
 * fft_packed_type.h). */

#define NUMBERS (LANES / 2)

static ALWAYS_INLINE V TYPED(swapped)(V v) {
  LANE_NUMBERS(lane);
  return TYPED(pick)(v, v, lane ^ 1);
}

/* What swapped numbers times -i are multiplied by; of inverse transforms times i. */
static ALWAYS_INLINE V TYPED(signs)(bool inverse) {
  LANE_NUMBERS(lane);
  return __builtin_convertvector(1 - 2 * ((lane ^ (TINT)inverse) & 1), V);
}

/* v times a root: its real part in all lanes, its imaginary one with the signs. */
static ALWAYS_INLINE V TYPED(by_root)(V v, const T *root) {
  return v * LOAD(root) + TYPED(swapped)(v) * LOAD(root + LANES);
}

static ALWAYS_INLINE void TYPED(whole4)(V v[4], V s) {
  V a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3], d = TYPED(swapped)(v[1] - v[3]);
  v[0] = a + c, v[1] = b + d * s, v[2] = a - c, v[3] = b - d * s;
}

static ALWAYS_INLINE void TYPED(whole8)(V v[8], V s) {
  const T h = (T)0.70710678118654752440;
  V even[4] = {v[0], v[2], v[4], v[6]}, odd[4] = {v[1], v[3], v[5], v[7]};
  TYPED(whole4)(even, s);
  TYPED(whole4)(odd, s);
  V b = (TYPED(swapped)(odd[1]) * s + odd[1]) * h, c = TYPED(swapped)(odd[2]);
  V d = (TYPED(swapped)(odd[3]) * s - odd[3]) * h;
  v[0] = even[0] + odd[0], v[4] = even[0] - odd[0];
  v[1] = even[1] + b, v[5] = even[1] - b;
  v[2] = even[2] + c * s, v[6] = even[2] - c * s;
  v[3] = even[3] + d, v[7] = even[3] - d;
}

static ALWAYS_INLINE void TYPED(whole16)(V v[16], V s) {
  const T c = (T)0.92387953251128675613, sine = (T)0.38268343236508977173;
  const T h = (T)0.70710678118654752440;
  const V by_c = s * c, by_sine = s * sine;
  V a[4][4];
  UNROLL for (int i = 0; i < 4; i++) {
    UNROLL for (int k = 0; k < 4; k++) a[i][k] = v[i + 4 * k];
    TYPED(whole4)(a[i], s);
  }
  a[1][1] = a[1][1] * c + TYPED(swapped)(a[1][1]) * by_sine;
  a[1][2] = (TYPED(swapped)(a[1][2]) * s + a[1][2]) * h;
  a[1][3] = a[1][3] * sine + TYPED(swapped)(a[1][3]) * by_c;
  a[2][1] = (TYPED(swapped)(a[2][1]) * s + a[2][1]) * h;
  a[2][2] = TYPED(swapped)(a[2][2]) * s;
  a[2][3] = (TYPED(swapped)(a[2][3]) * s - a[2][3]) * h;
  a[3][1] = a[3][1] * sine + TYPED(swapped)(a[3][1]) * by_c;
  a[3][2] = (TYPED(swapped)(a[3][2]) * s - a[3][2]) * h;
  a[3][3] = -(a[3][3] * c + TYPED(swapped)(a[3][3]) * by_sine);
  UNROLL for (int k = 0; k < 4; k++) {
    V row[4] = {a[0][k], a[1][k], a[2][k], a[3][k]};
    TYPED(whole4)(row, s);
    UNROLL for (int i = 0; i < 4; i++) v[k + 4 * i] = row[i];
  }
}

static ALWAYS_INLINE void TYPED(whole)(const int r, V *v, V s) {
  if (r == 2) {
    V a = v[0];
    v[0] = a + v[1], v[1] = a - v[1];
  }
  if (r == 4) TYPED(whole4)(v, s);
  if (r == 8) TYPED(whole8)(v, s);
  if (r == 16) TYPED(whole16)(v, s);
}

/* The transforms of NUMBERS columns of some rows, at most 16 or, with roots between, as
 * an outer and an inner one. `to` may be `from`. */
static ALWAYS_INLINE void TYPED(down)(const int rows, const T *from, int64_t from_step,
                                      const T *roots, V s, T scale, T *to,
                                      int64_t to_step) {
  const int outer = rows <= 16 ? rows : rows == 128 ? 16 : 8, inner = rows / outer;
  V v[16], middle[128];
  if (inner == 1) {
    UNROLL for (int k = 0; k < outer; k++) v[k] = LOAD(from + k * from_step);
    TYPED(whole)(outer, v, s);
    UNROLL for (int k = 0; k < outer; k++) {
      if (scale != 1) v[k] *= scale;
      STORE(to + k * to_step, v[k]);
    }
    return;
  }
  for (int i = 0; i < inner; i++, from += from_step) {
    UNROLL for (int k = 0; k < outer; k++) v[k] = LOAD(from + k * inner * from_step);
    TYPED(whole)(outer, v, s);
    middle[i * outer] = v[0];
    if (i == 0)
      UNROLL for (int k = 1; k < outer; k++) middle[k] = v[k];
    else
      UNROLL for (int k = 1; k < outer; k++, roots += 2 * LANES) middle[i * outer + k] =
          TYPED(by_root)(v[k], roots);
  }
  for (int k = 0; k < outer; k++, to += to_step) {
    UNROLL for (int i = 0; i < inner; i++) v[i] = middle[i * outer + k];
    TYPED(whole)(inner, v, s);
    UNROLL for (int i = 0; i < inner; i++) {
      if (scale != 1) v[i] *= scale;
      STORE(to + i * outer * to_step, v[i]);
    }
  }
}

static void TYPED(down_columns)(const nyx_fft_lines *j, const T *from, int64_t from_step,
                                T *to, int64_t to_step) {
  const V s = TYPED(signs)(j->inverse);
  const T scale = (T)j->scale, *roots = j->passes->down[j->inverse];
#define CASE(rows)                                                                       \
  case rows: TYPED(down)(rows, from, from_step, roots, s, scale, to, to_step); break;
  switch (j->passes->n) { CASE(4) CASE(8) CASE(16) CASE(32) CASE(64) CASE(128) }
#undef CASE
}

/* Lines whose elements lie side by side, NUMBERS at a time; those that are left by way of
 * a room. */
static void TYPED(beside_lines)(const nyx_fft_lines *j) {
  const T *from = (const T *)j->from + j->from_at[0];
  T *to = (T *)j->to + j->to_at[0], *room = j->room[0];
  int left = j->count;
  for (; left >= NUMBERS; left -= NUMBERS, from += LANES, to += LANES)
    TYPED(down_columns)(j, from, j->from_step, to, j->to_step);
  if (left == 0) return;
  const TYPED(part) part = TYPED(part_of)(0, 2 * left);
  for (int64_t k = 0; k < j->passes->n; k++)
    STORE(room + k * LANES, TYPED(load_part)(from + k * j->from_step, part));
  TYPED(down_columns)(j, room, LANES, room, LANES);
  for (int64_t k = 0; k < j->passes->n; k++)
    TYPED(store_part)(to + k * j->to_step, LOAD(room + k * LANES), part);
}

/* Whether they can be, and it pays: of many elements far apart twice as many in a row are
 * read faster. */
static bool TYPED(is_short)(const nyx_fft_lines *j) {
  switch (j->passes->n) {
    case 4:
    case 8:
    case 16: return true;
    case 128: return j->passes->down[0] && j->from_step < 1024;
    default: return j->passes->down[0];
  }
}

/* Lines in one piece, one after the other or as many at a time as fill NUMBERS rows;
 * those behind `count` are read and not written. */
static ALWAYS_INLINE void TYPED(short_lines)(const int rows, const nyx_fft_passes *t,
                                             bool inverse, T scale, int count,
                                             const T *const *from, T *const *to) {
  const int lines = rows < NUMBERS ? NUMBERS / rows : 1, all = lines * rows;
  const T *turn = (const T *)t->turn + (inverse ? 2 * LANES * rows : 0);
  const V s = TYPED(signs)(inverse);
  T middle[NYX_FFT_SHORT_ROWS * LANES] __attribute__((aligned(VECTOR_BYTES)));
  for (; count > 0; count -= lines, from += lines, to += lines) {
    UNROLL for (int g = 0; g < lines; g++) TYPED(down)(
        rows, from[g], LANES, t->down[inverse], s, 1, middle + g * rows * LANES, LANES);
    for (int k = 0; k < all; k += NUMBERS) {
      V v[LANES];
      UNROLL for (int i = 0; i < NUMBERS; i++) {
        const int row = lines > 1 ? i % rows : k + i;
        v[i] = LOAD(middle + (k + i) * LANES);
        if (i % rows > 0 || row > 0) v[i] = TYPED(by_root)(v[i], turn + row * 2 * LANES);
      }
      TYPED(transpose_blocks)(v, 2);
      TYPED(whole)(NUMBERS, v, s);
      UNROLL for (int i = 0; i < NUMBERS; i++) if (scale != 1) v[i] *= scale;
      if (lines == 1) {
        UNROLL for (int i = 0; i < NUMBERS; i++) STORE(to[0] + 2 * (rows * i + k), v[i]);
        continue;
      }
      UNROLL for (int r = 0; r < rows; r++) {
        TYPED(transpose_blocks)(v + r * lines, 2 * rows);
        UNROLL for (int g = 0; g < lines; g++) if (g < count)
            STORE(to[g] + r * LANES, v[r * lines + g]);
      }
    }
  }
}

/* Real numbers in pairs, as take_apart and put_together of fft_packed_type.h have them.
 */
static void TYPED(all_short_lines)(const nyx_fft_lines *j) {
  const int64_t m = j->passes->n * NUMBERS;
  const bool back = j->kind == NYX_FFT_TO_REAL, real = j->kind == NYX_FFT_FROM_REAL;
  const T scale = real ? 1 : (T)j->scale;
  const T *from[NYX_FFT_LANES];
  T *to[NYX_FFT_LANES];
  for (int l = 0; l < NYX_FFT_LANES; l++) {
    const int line = l < j->count ? l : 0;
    T *room = (T *)j->room[0] + line * 2 * m;
    from[l] = (const T *)j->from + j->from_at[line];
    to[l] = real ? room : (T *)j->to + j->to_at[line];
    if (!back) continue;
    if (l < j->count) TYPED(put_together)(m, 1, m / 2 + 1, j->turn, from[l], false, room);
    from[l] = room;
  }
#define CASE(rows)                                                                       \
  case rows:                                                                             \
    TYPED(short_lines)(rows, j->passes, back || j->inverse, scale, j->count, from, to);  \
    break;
  switch (j->passes->n) { CASE(2) CASE(4) CASE(8) CASE(16) CASE(32) CASE(64) }
#undef CASE
  for (int l = 0; real && l < j->count; l++) TYPED(take_apart)
  (m, 1, m / 2 + 1, j->scale, j->turn, false, to[l], (T *)j->to + j->to_at[l]);
}
#undef NUMBERS
