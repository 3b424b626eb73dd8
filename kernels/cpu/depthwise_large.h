/* Depthwise convolutions by kernels of seven rows and more, stride 1, over one element
 * type T; included by depthwise_type.h. A list of taps reads a vector for every
 * multiplication, and most lie across two lines of the cache. Here a vector of a padded
 * row is read once for all rows of the result that it adds to, which are as many as
 * registers hold: a block. The first and the last rows that a block sees add to some of
 * them only, the others to all. Rows outside the image are left out. Sums of hundreds of
 * terms are made of shorter ones, which lose fewer digits. */

_Static_assert(LARGE_LEAST >= LARGE_ROWS - 1, "a block's first rows see no kernel's end");

/* The padded rows of a stripe, and what becomes of them. */
typedef struct TYPED(large) {
  const T *from;
  int64_t pitch, first, last; /* rows first..last-1 are those of the image */
  const T *w;
  int64_t high, wide; /* the kernel */
  T bias;
  T *to; /* rows of the result lie one after the other */
  int64_t rows, columns;
  T *end; /* rows narrower than a vector are written whole as far as this */
} TYPED(large);

/* Adds a padded row, from `x` on, to rows lo..hi-1 of a block, by the kernel's rows that
 * reach them: w is that of row 0, the others' are before it. Each row of the block has
 * two sums: of two vectors, `apart` from each other, or of every other column of the
 * kernel, as a single one would wait for itself. */
static ALWAYS_INLINE void TYPED(large_row)(const int lo, const int hi, const bool two,
                                           const TYPED(large) * j, const T *x,
                                           int64_t apart, const T *w, V *sum) {
  int64_t c = 0, wide = j->wide;
  const int step = two ? 1 : 2;
  for (; c + step <= wide; c += step) {
    V a = LOAD(x + c), b = LOAD(two ? x + apart + c : x + c + 1);
    HOLD(a);
    HOLD(b);
    UNROLL for (int r = lo; r < hi; r++) {
      const T *at = w + c - r * wide;
      sum[2 * r] += at[0] * a;
      sum[2 * r + 1] += at[two ? 0 : 1] * b;
    }
  }
  if (c < wide) {
    V a = LOAD(x + c);
    UNROLL for (int r = lo; r < hi; r++) sum[2 * r] += w[c - r * wide] * a;
  }
}

/* n rows of the result from `row` on, the columns from `at` on: two vectors or one. */
static ALWAYS_INLINE void TYPED(large_block)(const int n, const bool two,
                                             const TYPED(large) * j, int64_t row,
                                             int64_t at, int64_t apart) {
  V sum[2 * LARGE_ROWS];
  UNROLL for (int r = 0; r < n; r++) {
    sum[2 * r] = j->bias + (V){0};
    sum[2 * r + 1] = two ? sum[2 * r] : (V){0};
  }
  const T *x = j->from + row * j->pitch + at;
  int64_t first = j->first - row, last = j->last - row; /* of the rows it sees */
  UNROLL for (int i = 0; i < n - 1; i++) {
    if (i >= first && i < last) TYPED(large_row)
    (0, i + 1, two, j, x + i * j->pitch, apart, j->w + i * j->wide, sum);
  }
  int64_t i = first > n - 1 ? first : n - 1, end = last < j->high ? last : j->high;
  const int64_t some = LARGE_TERMS / j->wide; /* rows of terms that are summed apart */
  V whole[2 * LARGE_ROWS] = {0};
  for (int64_t left = some - (n - 1); i < end; i++) {
    TYPED(large_row)(0, n, two, j, x + i * j->pitch, apart, j->w + i * j->wide, sum);
    if (--left > 0) continue;
    UNROLL for (int r = 0; r < 2 * n; r++) whole[r] += sum[r], sum[r] = (V){0};
    left = some;
  }
  UNROLL for (int lo = 1; lo < n; lo++) {
    i = j->high - 1 + lo;
    if (i >= first && i < last)
      TYPED(large_row)(lo, n, two, j, x + i * j->pitch, apart, j->w + i * j->wide, sum);
  }
  UNROLL for (int r = 0; r < 2 * n; r++) sum[r] += whole[r];
  T *to = j->to + row * j->columns + at;
  int64_t live = j->columns < LANES ? j->columns : LANES;
  UNROLL for (int r = 0; r < n; r++, to += j->columns) {
    if (two) {
      STORE(to, sum[2 * r]);
      STORE(to + apart, sum[2 * r + 1]);
    } else {
      TYPED(put)(to, sum[2 * r] + sum[2 * r + 1], live, j->end);
    }
  }
}

/* Some columns and rows once more rather than in parts. */
static ALWAYS_INLINE void TYPED(large_rows)(const int n, const TYPED(large) * j) {
  for (int64_t row = 0; row < j->rows; row += n) {
    if (row + n > j->rows) row = j->rows - n;
    for (int64_t at = 0; at < j->columns; at += 2 * LANES) {
      int64_t left = j->columns - at;
      if (left > LANES) {
        TYPED(large_block)
        (n, true, j, row, at, left < 2 * LANES ? left - LANES : LANES);
      } else {
        if (j->columns > LANES) at = j->columns - LANES;
        TYPED(large_block)(n, false, j, row, at, 0);
      }
    }
  }
}

static void TYPED(large_sum)(const TYPED(large) * j) {
  int64_t blocks = (j->rows + LARGE_ROWS - 1) / LARGE_ROWS;
  if (j->rows > blocks * (LARGE_ROWS - 1))
    TYPED(large_rows)(LARGE_ROWS, j);
  else
    TYPED(large_rows)(LARGE_ROWS - 1, j);
}
