/* Transposition over one unsigned type T of TBITS; included by move.c, once for each.
 * Squares of as many elements as a vector holds are turned in registers, in as many steps
 * as their size has binary digits. */

/* Bytes and pairs are not shuffled across 16 bytes by every path. */
#define SQUARE_BYTES (TBITS >= 32 ? VECTOR_BYTES : 16)
#define SQUARE ((int)(SQUARE_BYTES * 8 / TBITS))

typedef T TYPED(square) __attribute__((vector_size(SQUARE_BYTES)));
typedef T TYPED(squareu)
    __attribute__((vector_size(SQUARE_BYTES), aligned(TBITS / 8), may_alias));

#if TBITS == 8 || (TBITS == 32 && VECTOR_BYTES == 64)
#define LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif TBITS == 16 || (TBITS == 32 && VECTOR_BYTES == 32) ||                              \
    (TBITS == 64 && VECTOR_BYTES == 64)
#define LANE_NUMBERS 0, 1, 2, 3, 4, 5, 6, 7
#elif TBITS == 32 || VECTOR_BYTES == 32
#define LANE_NUMBERS 0, 1, 2, 3
#else
#define LANE_NUMBERS 0, 1
#endif

#define V TYPED(square)
#define VU TYPED(squareu)

/* Of two rows the first halves, or the second ones, element by element in turn; or, for
 * vectors over 16 bytes, where halves do not meet cheaply, blocks of `step` exchanged. */
static inline V TYPED(mixed)(V a, V b, int step, bool second) {
  const V lane = {LANE_NUMBERS};
  V halves = lane / 2 + (T)(second ? SQUARE / 2 : 0) + (lane & 1) * SQUARE;
  V other = (V)((lane & (T)step) != 0), shift = (V){0} + (T)step;
  V blocks = second ? lane + (~other & shift) : lane - (other & shift);
  V from = SQUARE_BYTES == 16 ? halves : blocks + (other & SQUARE);
#if defined(__clang__)
  V r = a;
  UNROLL for (int l = 0; l < SQUARE; l++) r[l] =
      from[l] < SQUARE ? a[from[l] % SQUARE] : b[from[l] % SQUARE];
  return r;
#else
  return __builtin_shuffle(a, b, from);
#endif
}

static inline void TYPED(turn)(V row[SQUARE]) {
  UNROLL for (int step = 1; step < SQUARE; step *= 2) {
    V next[SQUARE];
    UNROLL for (int i = 0; i < SQUARE; i++) {
      if (SQUARE_BYTES == 16)
        next[i] = TYPED(mixed)(row[i / 2], row[i / 2 + SQUARE / 2], step, i & 1);
      else if (i & step)
        next[i] = TYPED(mixed)(row[i - step], row[i], step, true);
      else
        next[i] = TYPED(mixed)(row[i], row[i + step], step, false);
    }
    UNROLL for (int i = 0; i < SQUARE; i++) row[i] = next[i];
  }
}

static inline void TYPED(turn_square)(const T *src, int64_t src_step, T *dst,
                                      int64_t dst_step) {
  V row[SQUARE];
  UNROLL for (int i = 0; i < SQUARE; i++) {
    row[i] = *(const VU *)(src + i * src_step);
    __builtin_prefetch(src + i * src_step + AHEAD_BYTES * 8 / TBITS);
  }
  TYPED(turn)(row);
  UNROLL for (int i = 0; i < SQUARE; i++) * (VU *)(dst + i * dst_step) = row[i];
}

static void TYPED(transpose)(int64_t rows, int64_t cols, const void *from,
                             int64_t src_step, void *to, int64_t dst_step) {
  const T *src = from;
  T *dst = to;
  int64_t whole_cols = cols - cols % SQUARE, whole_rows = rows - rows % SQUARE;
  for (int64_t c = 0; c < whole_cols; c += SQUARE) {
    for (int64_t r = 0; r < whole_rows; r += SQUARE) {
      const T *square = src + c * src_step + r;
      TYPED(turn_square)(square, src_step, dst + r * dst_step + c, dst_step);
    }
    for (int64_t r = whole_rows; r < rows; r++)
      for (int64_t k = c; k < c + SQUARE; k++)
        dst[r * dst_step + k] = src[k * src_step + r];
  }
  for (int64_t c = whole_cols; c < cols; c++)
    for (int64_t r = 0; r < rows; r++) dst[r * dst_step + c] = src[c * src_step + r];
}

#undef V
#undef LANE_NUMBERS
#undef VU
#undef SQUARE
#undef SQUARE_BYTES
