/* Solutions of triangular systems over one element type T, for right-hand sides that lie
 * side by side; included by matrices_type.h. A vector holds an element of as many sides
 * as it has lanes; as many rows as there are registers for are solved for at a time, the
 * earlier rows taken out of them first. The triangle is packed in the order in which it
 * is read, so that rows a power of two apart do not throw each other out of the cache. */

#if defined(__AVX512F__)
#define ROWS 16
#else
#define ROWS 8
#endif

/* Elements before block `b` of the packed triangle: ROWS of every earlier column and the
 * block's own. */
static inline int64_t TYPED(packed_before)(int64_t b) {
  return b * (b + 1) / 2 * ROWS * ROWS;
}

/* Rows b * ROWS and following, column by column, zeros where there are no rows; one over
 * what is on the diagonal. */
static void TYPED(pack_rows)(const nyx_triangle *t, const T *a, int64_t rs, int64_t cs,
                             int64_t b, T *to) {
  const int64_t first = b * ROWS, rows = t->n - first < ROWS ? t->n - first : ROWS;
  a += first * rs;
  if (rs == 1) {
    for (int64_t j = 0; j < first; j++)
      for (int64_t i = 0; i < ROWS; i++) to[j * ROWS + i] = i < rows ? a[j * cs + i] : 0;
  } else {
    for (int64_t i = 0; i < ROWS; i++)
      for (int64_t j = 0; j < first; j++)
        to[j * ROWS + i] = i < rows ? a[i * rs + j * cs] : 0;
  }
  to += first * ROWS;
  a += first * cs;
  for (int64_t j = 0; j < ROWS; j++)
    for (int64_t i = 0; i < ROWS; i++)
      to[j * ROWS + i] = i == j     ? t->unit || j >= rows ? 1 : 1 / a[j * (rs + cs)]
                             : i < j ? 0
                         : i < rows ? a[i * rs + j * cs]
                                    : 0;
}

/* Block b of rows of as many sides as there are lanes, or some (`edge`) of both. */
static ALWAYS_INLINE void TYPED(solve_block)(const T *p, int64_t b, int64_t rows, T *x,
                                             int64_t step, TYPED(part) part, bool edge) {
  T *own = x + b * ROWS * step;
  V r[ROWS];
  UNROLL for (int i = 0; i < ROWS; i++) {
    if (!edge)
      r[i] = LOAD(own + i * step);
    else
      r[i] = i < rows ? TYPED(load_part)(own + i * step, part) : (V){0};
  }
  for (int64_t j = 0; j < b * ROWS; j++, p += ROWS) {
    const V by = edge ? TYPED(load_part)(x + j * step, part) : LOAD(x + j * step);
    UNROLL for (int i = 0; i < ROWS; i++) r[i] -= p[i] * by;
  }
  UNROLL for (int k = 0; k < ROWS; k++) {
    r[k] *= p[k * ROWS + k];
    UNROLL for (int i = k + 1; i < ROWS; i++) r[i] -= p[k * ROWS + i] * r[k];
  }
  UNROLL for (int i = 0; i < ROWS; i++) {
    if (!edge)
      STORE(own + i * step, r[i]);
    else if (i < rows)
      TYPED(store_part)(own + i * step, r[i], part);
  }
}

static __attribute__((noinline)) void TYPED(whole_block)(const T *p, int64_t b, T *x,
                                                         int64_t step) {
  TYPED(solve_block)(p, b, ROWS, x, step, TYPED(part_of)(0, LANES), false);
}

static __attribute__((noinline)) void TYPED(edge_block)(const T *p, int64_t b,
                                                        int64_t rows, T *x, int64_t step,
                                                        int64_t columns) {
  TYPED(solve_block)(p, b, rows, x, step, TYPED(part_of)(0, columns), true);
}

/* An upper triangle is a lower one whose rows and columns are counted from the end. */
static void TYPED(solve_sides)(const nyx_triangle *t) {
  const int64_t last = t->n - 1, sign = t->upper ? -1 : 1;
  const T *a = (const T *)t->a + (t->upper ? last * (t->a_rs + t->a_cs) : 0);
  T *x = (T *)t->x + (t->upper ? last * t->x_ld : 0), *packed = t->room;
  const int64_t blocks = (t->n + ROWS - 1) / ROWS, step = sign * t->x_ld;
  for (int64_t b = 0; b < blocks; b++) TYPED(pack_rows)
  (t, a, sign * t->a_rs, sign * t->a_cs, b, packed + TYPED(packed_before)(b));
  for (int64_t c = 0; c < t->count; c += LANES)
    for (int64_t b = 0; b < blocks; b++) {
      const T *p = packed + TYPED(packed_before)(b);
      const int64_t rows = t->n - b * ROWS, columns = t->count - c;
      if (rows >= ROWS && columns >= LANES)
        TYPED(whole_block)(p, b, x + c, step);
      else
        TYPED(edge_block)(p, b, rows < ROWS ? rows : ROWS, x + c, step, columns);
    }
}

#undef ROWS
