/* Transposition over one unsigned type T of TBITS; included by move.c, once for each.
 * Squares of as many elements as a vector holds are turned in registers, in as many steps
 * as their size has binary digits. */

/* Bytes and pairs are not shuffled across 16 bytes by every path. */
#define SQUARE_BYTES (TBITS >= 32 ? VECTOR_BYTES : 16)
#define SQUARE ((int)(SQUARE_BYTES * 8 / TBITS))
#define LINE ((int)(64 * 8 / TBITS))
#if TBITS >= 32 && VECTOR_BYTES > 16 /* what it shuffles by fills the registers */
#define SQUARE_INLINE __attribute__((noinline))
#else
#define SQUARE_INLINE inline
#endif
#define WHOLE_LINES (VECTOR_BYTES == 64 && TBITS >= 32)

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

static inline void TYPED(turn_rows)(V row[SQUARE]) {
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

static ALWAYS_INLINE void TYPED(turn_square_to)(const T *src, int64_t src_step, T *dst,
                                                int64_t dst_step, bool ahead, bool past) {
  V row[SQUARE];
  UNROLL for (int i = 0; i < SQUARE; i++) {
    row[i] = *(const VU *)(src + i * src_step);
    if (ahead) __builtin_prefetch(src + i * src_step + AHEAD_BYTES * 8 / TBITS);
  }
  TYPED(turn_rows)(row);
  UNROLL for (int i = 0; i < SQUARE; i++) {
    if (past)
      STREAM(dst + i * dst_step, &row[i]);
    else
      *(VU *)(dst + i * dst_step) = row[i];
  }
}

#define SQUARE_FUNCTION(name, ahead, past)                                               \
  static SQUARE_INLINE void TYPED(name)(const T *src, int64_t src_step, T *dst,          \
                                        int64_t dst_step) {                              \
    TYPED(turn_square_to)(src, src_step, dst, dst_step, ahead, past);                    \
  }
SQUARE_FUNCTION(turn_square, false, false)
SQUARE_FUNCTION(turn_square_ahead, true, false)
#if WHOLE_LINES
SQUARE_FUNCTION(turn_square_past, false, true)
#endif
#undef SQUARE_FUNCTION

static ALWAYS_INLINE void TYPED(turn_block)(int64_t rows, int64_t cols, const T *src,
                                            int64_t src_step, T *dst, int64_t dst_step,
                                            bool ahead) {
  int64_t whole_cols = cols - cols % SQUARE, whole_rows = rows - rows % SQUARE;
  for (int64_t c = 0; c < whole_cols; c += SQUARE) {
    for (int64_t r = 0; r < whole_rows; r += SQUARE) {
      const T *square = src + c * src_step + r;
      T *to = dst + r * dst_step + c;
      if (ahead)
        TYPED(turn_square_ahead)(square, src_step, to, dst_step);
      else
        TYPED(turn_square)(square, src_step, to, dst_step);
    }
    for (int64_t r = whole_rows; r < rows; r++)
      for (int64_t k = c; k < c + SQUARE; k++)
        dst[r * dst_step + k] = src[k * src_step + r];
  }
  for (int64_t c = whole_cols; c < cols; c++)
    for (int64_t r = 0; r < rows; r++) dst[r * dst_step + c] = src[c * src_step + r];
}

static void TYPED(transpose)(int64_t rows, int64_t cols, const void *src,
                             int64_t src_step, void *dst, int64_t dst_step) {
  TYPED(turn_block)(rows, cols, src, src_step, dst, dst_step, true);
}

/* A line of each column at a time. Squares whose rows are lines of dst are written as
 * they are, from others lines are put together first. */
static ALWAYS_INLINE void TYPED(turn_lines)(int64_t rows, int64_t cols, const T *src,
                                            int64_t src_step, T *dst, int64_t dst_step,
                                            bool past) {
  _Alignas(64) T block[LINE * NYX_TURN_BYTES * 8 / TBITS];
  for (int64_t r = 0; r < rows; r += LINE) {
    const int64_t n = rows - r < LINE ? rows - r : LINE;
    const T *from = src + r;
    T *to = dst + r * dst_step;
#if WHOLE_LINES
    if (n == LINE && cols % SQUARE == 0) {
      for (int64_t c = 0; c < cols; c += SQUARE) {
        if (past)
          TYPED(turn_square_past)(from + c * src_step, src_step, to + c, dst_step);
        else
          TYPED(turn_square)(from + c * src_step, src_step, to + c, dst_step);
      }
      continue;
    }
#endif
    TYPED(turn_block)(n, cols, from, src_step, block, cols, false);
    for (int64_t i = 0; i < n; i++) {
      if (past)
        stream(cols * TBITS / 8, block + i * cols, to + i * dst_step);
      else
        memcpy(to + i * dst_step, block + i * cols, (size_t)cols * sizeof(T));
    }
  }
}

static void TYPED(turn)(int64_t rows, int64_t cols, const void *src, int64_t src_step,
                        void *dst, int64_t dst_step) {
  TYPED(turn_lines)(rows, cols, src, src_step, dst, dst_step, false);
}

static void TYPED(turn_past)(int64_t rows, int64_t cols, const void *src,
                             int64_t src_step, void *dst, int64_t dst_step) {
  TYPED(turn_lines)(rows, cols, src, src_step, dst, dst_step, true);
}

static void TYPED(reverse)(int64_t n, const void *src, void *dst) {
  const T *restrict from = src;
  T *restrict to = dst;
  for (int64_t i = 0; i < n; i++) to[i] = from[-i];
}

/* Rows of `vectors`, whose ends the next row overwrites, as long as that stays inside. */
static ALWAYS_INLINE void TYPED(fill_by)(int64_t rows, int64_t cols, const T *src,
                                         int64_t src_step, T *dst, int64_t vectors) {
  typedef T vector __attribute__((vector_size(VECTOR_BYTES)));
  enum { N = VECTOR_BYTES * 8 / TBITS };
  const int64_t all = rows * cols, span = vectors * N;
  const int64_t inside = all >= span ? (all - span) / cols + 1 : 0;
  int64_t i = 0;
  for (; i < inside; i++, src += src_step, dst += cols) {
    const vector v = (vector){0} + *src;
    for (int64_t k = 0; k < vectors; k++) memcpy(dst + k * N, &v, sizeof v);
  }
  for (; i < rows; i++, src += src_step, dst += cols)
    for (int64_t k = 0; k < cols; k++) dst[k] = *src;
}

static void TYPED(fill)(int64_t rows, int64_t cols, const void *src, int64_t src_step,
                        void *dst) {
  enum { N = VECTOR_BYTES * 8 / TBITS };
  const int64_t vectors = (cols + N - 1) / N;
  switch (vectors) { /* the compiler knows how many */
    case 1: TYPED(fill_by)(rows, cols, src, src_step, dst, 1); break;
    case 2: TYPED(fill_by)(rows, cols, src, src_step, dst, 2); break;
    default: TYPED(fill_by)(rows, cols, src, src_step, dst, vectors);
  }
}

/* A row that a vector holds: as often as it fits at a time, what is beyond is overwritten
 * by the next. */
static void TYPED(repeat)(int64_t rows, int64_t cols, const void *src, void *dst) {
  typedef T vector __attribute__((vector_size(VECTOR_BYTES)));
  enum { N = VECTOR_BYTES * 8 / TBITS };
  if (cols > N) {
    copy_rows(rows, cols * TBITS / 8, src, 0, dst, cols * TBITS / 8);
    return;
  }
  const T *from = src;
  T *to = dst, line[2 * N];
  vector v;
  const int64_t step = N / cols * cols, all = rows * cols;
  int64_t at = 0;
  for (int64_t k = 0; k < N; k += cols)
    for (int64_t j = 0; j < cols; j++) line[k + j] = from[j];
  memcpy(&v, line, sizeof v);
  for (; at + N <= all; at += step) memcpy(to + at, &v, sizeof v);
  for (int64_t j = 0; at + j < all; j++) to[at + j] = line[j];
}

/* Two, three and four sources are mixed in whole vectors, by the compiler. */
static void TYPED(zip)(int64_t n, int64_t k, const void *const *src, void *dst) {
  T *restrict to = dst;
  if (k == 2) {
    const T *restrict a = src[0], *restrict b = src[1];
    for (int64_t i = 0; i < n; i++) {
      to[2 * i] = a[i];
      to[2 * i + 1] = b[i];
    }
  } else if (k == 3) {
    const T *restrict a = src[0], *restrict b = src[1], *restrict c = src[2];
    for (int64_t i = 0; i < n; i++) {
      to[3 * i] = a[i];
      to[3 * i + 1] = b[i];
      to[3 * i + 2] = c[i];
    }
  } else if (k == 4) {
    const T *restrict a = src[0], *restrict b = src[1], *restrict c = src[2],
                      *restrict d = src[3];
    for (int64_t i = 0; i < n; i++) {
      to[4 * i] = a[i];
      to[4 * i + 1] = b[i];
      to[4 * i + 2] = c[i];
      to[4 * i + 3] = d[i];
    }
  } else {
    for (int64_t j = 0; j < k; j++) {
      const T *restrict from = src[j];
      for (int64_t i = 0; i < n; i++) to[i * k + j] = from[i];
    }
  }
}

/* The compiler finds how masks are widened, once it may assume that results are no other
 * element's source; but by SSE2 alone it takes more steps, and branches in 64 bits. */
#if defined(__SSE2__) && !defined(__AVX2__)
static inline void TYPED(choose_16)(const uint8_t *mask, const T *a, const T *b, T *to) {
  __m128i no[TBITS / 8]; /* where b is chosen: each byte twice, until they are Ts */
  no[0] = _mm_cmpeq_epi8(_mm_loadu_si128((const void *)mask), _mm_setzero_si128());
  UNROLL for (int step = 1; step < TBITS / 8; step *= 2) {
    UNROLL for (int k = step - 1; k >= 0; k--) {
      no[2 * k + 1] = _mm_unpackhi_epi8(no[k], no[k]);
      no[2 * k] = _mm_unpacklo_epi8(no[k], no[k]);
    }
  }
  UNROLL for (int k = 0; k < TBITS / 8; k++) {
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)a + k);
    const __m128i y = _mm_loadu_si128((const __m128i *)(const void *)b + k);
    _mm_storeu_si128((__m128i *)(void *)to + k,
                     _mm_or_si128(_mm_and_si128(no[k], y), _mm_andnot_si128(no[k], x)));
  }
}
#endif
static void TYPED(choose)(int64_t n, const void *const *in, void *out,
                          const double *attr) {
  const uint8_t *mask = in[0];
  const T *a = in[1], *b = in[2];
  T *to = out;
  int64_t i = 0;
  (void)attr;
#if defined(__SSE2__) && !defined(__AVX2__)
  for (; i + 16 <= n; i += 16) TYPED(choose_16)(mask + i, a + i, b + i, to + i);
#endif
#if defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#else
#pragma GCC ivdep
#endif
  for (; i < n; i++) {
    const T x = a[i], y = b[i]; /* both are read: nobody foresees which */
    to[i] = mask[i] ? x : y;
  }
}

#undef V
#undef LANE_NUMBERS
#undef VU
#undef SQUARE
#undef SQUARE_BYTES
#undef LINE
#undef WHOLE_LINES
#undef SQUARE_INLINE
