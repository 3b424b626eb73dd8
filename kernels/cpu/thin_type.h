/* One column of a product whose rows are few, over one element type T; included by
 * gemm_type.h, once for each. A tile would compute a whole vector of columns for it. Lane
 * l of a sum has every LANES-th term from l on, whether the rows lie in a panel, where
 * lanes are rows and there is a sum for each l, or term by term: the bits are the same.
 */

/* The sums, turned so that lanes are rows, to one. */
static ALWAYS_INLINE V TYPED(fold)(V sum[LANES]) {
  UNROLL for (int step = LANES / 2; step > 0; step /= 2) {
    UNROLL for (int l = 0; l < step; l++) sum[l] += sum[l + step];
  }
  return sum[0];
}

/* Rows from `first` on of a panel of `rows` rows. */
static V TYPED(thin_panel)(const T *a, int64_t rows, int64_t first, int64_t depth,
                           const T *x) {
  TYPED(part) live = TYPED(part_of)(0, rows - first);
  V sum[LANES];
  UNROLL for (int l = 0; l < LANES; l++) sum[l] = (V){0};
  const T *at = a + first;
  int64_t k = 0;
  for (; k + LANES <= depth; k += LANES, at += LANES * rows) {
    UNROLL for (int l = 0; l < LANES; l++) sum[l] +=
        TYPED(load_part)(at + l * rows, live) * x[k + l];
  }
  UNROLL for (int l = 0; l < LANES; l++) {
    if (k + l < depth) sum[l] += TYPED(load_part)(at + l * rows, live) * x[k + l];
  }
  return TYPED(fold)(sum);
}

/* `live` rows that lie rs apart. */
static V TYPED(thin_rows)(const T *a, int64_t rs, int64_t live, int64_t depth,
                          const T *x) {
  V sum[LANES];
  UNROLL for (int l = 0; l < LANES; l++) sum[l] = (V){0};
  for (int64_t k = 0; k < depth; k += LANES) {
    TYPED(part) terms = TYPED(part_of)(0, depth - k);
    V right = TYPED(load_part)(x + k, terms);
    UNROLL for (int r = 0; r < LANES; r++) {
      if (r < live) sum[r] += TYPED(load_part)(a + r * rs + k, terms) * right;
    }
  }
  TYPED(transpose)(sum);
  return TYPED(fold)(sum);
}

static void TYPED(thin)(const void *a, int64_t rs, int64_t rows, int64_t depth,
                        const void *x, void *y, int64_t step, bool add) {
  for (int64_t i = 0; i < rows; i += LANES) {
    int64_t live = rows - i < LANES ? rows - i : LANES;
    V sum = rs ? TYPED(thin_rows)((const T *)a + i * rs, rs, live, depth, x)
               : TYPED(thin_panel)(a, rows, i, depth, x);
    T *to = (T *)y + i * step;
    for (int64_t r = 0; r < live; r++)
      to[r * step] = add ? to[r * step] + sum[r] : sum[r];
  }
}

/* Some vectors of kernels' taps from element i on, summed over channels; one that is not
 * whole has `live` lanes. */
static ALWAYS_INLINE void TYPED(thin_vectors)(const int vectors, const bool whole,
                                              TYPED(part) live, const T *a, int64_t step,
                                              int64_t channels, int64_t i, int64_t taps,
                                              const T *x, T *sums, bool add) {
#define PART(p) (whole ? LOAD(p) : TYPED(load_part)(p, live))
  V sum[4];
  const T *right[4];
  UNROLL for (int v = 0; v < vectors; v++) {
    sum[v] = add ? PART(sums + i + v * LANES) : (V){0};
    right[v] = x + (i + v * LANES) % taps;
  }
  const int64_t x_step = taps + LANES;
  a += i;
  for (int64_t c = 0, at = 0; c < channels; c++, a += step, at += x_step) {
    UNROLL for (int v = 0; v < vectors; v++) sum[v] +=
        PART(a + v * LANES) * LOAD(right[v] + at);
  }
  UNROLL for (int v = 0; v < vectors; v++) {
    if (whole)
      STORE(sums + i + v * LANES, sum[v]);
    else
      TYPED(store_part)(sums + i + v * LANES, sum[v], live);
  }
#undef PART
}

static void TYPED(thin_taps)(const void *a, int64_t step, int64_t channels, int64_t rows,
                             int64_t taps, const void *x, void *sums, bool add, void *y,
                             int64_t y_step) {
  const int64_t count = rows * taps;
  int64_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES) TYPED(thin_vectors)
  (4, true, TYPED(part_of)(0, LANES), a, step, channels, i, taps, x, sums, add);
  for (; i < count; i += LANES) TYPED(thin_vectors)
  (1, false, TYPED(part_of)(0, count - i), a, step, channels, i, taps, x, sums, add);
  const T *from = sums;
  for (int64_t r = 0; y && r < rows; r++, from += taps) {
    T sum = from[0];
    for (int64_t t = 1; t < taps; t++) sum += from[t];
    ((T *)y)[r * y_step] = sum;
  }
}
