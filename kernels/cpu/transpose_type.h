/* Lanes of vectors in other places, and the transposition of as many vectors as each has
 * lanes, over one element type T. Included where TYPED, UNROLL, the vector type V, its
 * LANES and TYPED(lanes) are. */

#if !defined(__clang__)
static const TINT TYPED(numbers)[16]
    __attribute__((aligned(64))) = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#endif

/* Lane l is lane from[l] of a and b side by side. */
static inline V TYPED(pick)(V a, V b, TYPED(lanes) from) {
#if defined(__clang__)
  V r = a;
  UNROLL for (int l = 0; l < LANES; l++) r[l] =
      from[l] < LANES ? a[from[l]] : b[from[l] - LANES];
  return r;
#else
  return __builtin_shuffle(a, b, from);
#endif
}

/* Lane l of two vectors: the part of a LANES x LANES transposition that exchanges blocks
 * of `step` lanes. */
static inline V TYPED(exchange)(V a, V b, int step, bool second) {
#if defined(__clang__)
  V r = a;
  UNROLL for (int l = 0; l < LANES; l++) r[l] =
      l & step ? b[second ? l : l - step] : a[second ? l + step : l];
  return r;
#else
  /* In arithmetic of constant vectors: set lane by lane they are built at run time. */
  const TYPED(lanes) lane = *(const TYPED(lanes) *)TYPED(numbers);
  const TYPED(lanes) other = (lane & (TINT)step) != 0;
  const TYPED(lanes) from = second ? lane + (~other & (TINT)step) + (other & LANES)
                                   : lane + (other & (TINT)(LANES - step));
  return __builtin_shuffle(a, b, from);
#endif
}

static inline void TYPED(transpose)(V row[LANES]) {
  UNROLL for (int step = 1; step < LANES; step *= 2) {
    UNROLL for (int i = 0; i < LANES; i++) {
      if (i & step) continue;
      V a = row[i], b = row[i + step];
      row[i] = TYPED(exchange)(a, b, step, false);
      row[i + step] = TYPED(exchange)(a, b, step, true);
    }
  }
}
