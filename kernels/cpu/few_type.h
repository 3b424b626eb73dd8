/* A few rows times a large matrix over one element type T; included by gemm_type.h, once
 * for each. The matrix is read once, where it lies, and multiplied with all rows while it
 * is in registers or the first cache: rows of it are summed, or its columns, where these
 * are what lies together, give dot products. The few are packed in the order in which
 * they are read: rows a power of two apart would throw each other out of the cache. The
 * order of a result's sum does not depend on the rows and columns beside it. */
#if REGISTERS == 32
#define FEW_DOT_ROWS 4
#define FEW_DOT_COLS 6
#define FEW_SUM_VECTORS 2
#else
#define FEW_DOT_ROWS 2
#define FEW_DOT_COLS 4
#define FEW_SUM_VECTORS 1
#endif
#define FEW_ROWS 16 /* whose sums stay in the first cache */
#define FEW_DOT_TERMS ((int64_t)(2048 / sizeof(T))) /* that stay in the first cache */
#define FEW_SUM_TERMS 8                             /* in registers */
/* Terms of partial sums: rounding errors grow with their number. Those of dot products
 * are divided among lanes. */
#define FEW_DOT_SPAN 8192
#define FEW_SUM_SPAN 2048
#define FEW_SUM_BYTES 32768 /* of sums, half as many of up to 16 rows */
#define FEW_AHEAD 8         /* lines asked for ahead in a row */

/* Rows are those of the few, columns those of the many; C may lie either way around. */
typedef struct TYPED(few_job) {
  const T *few, *many;
  int64_t rows, cols, k, few_rs, few_cs, many_step, c_rs, c_cs;
  bool dots; /* the terms of the many lie together, else their columns */
  T *c;
  bool add;
} TYPED(few_job);

static TYPED(few_job) TYPED(few_job_of)(const nyx_product *p, bool turned) {
  TYPED(few_job) job = {.few = p->a, .many = p->b, .rows = p->m, .cols = p->n, .k = p->k};
  job.c = p->c;
  job.add = p->add;
  int64_t term = p->b_rs, other = p->b_cs; /* steps of the many */
  if (!turned) {
    job.few_rs = p->a_rs;
    job.few_cs = p->a_cs;
    job.c_rs = p->ldc;
    job.c_cs = 1;
  } else {
    job.few = p->b;
    job.many = p->a;
    job.rows = p->n;
    job.cols = p->m;
    job.few_rs = p->b_cs;
    job.few_cs = p->b_rs;
    job.c_rs = 1;
    job.c_cs = p->ldc;
    term = p->a_cs;
    other = p->a_rs;
  }
  job.dots = term == 1;
  job.many_step = job.dots ? other : term;
  return job;
}

/* Terms of a packed row. */
static inline int64_t TYPED(few_depth)(int64_t k) {
  return (k + LANES - 1) / LANES * LANES;
}

/* Of terms of the few, as many as are read together, of one row after the other; rows in
 * groups of FEW_DOT_ROWS for dot products, all for sums. What is missing are zeros. */
static void TYPED(pack_few)(const nyx_product *p, bool turned, void *packed) {
  const TYPED(few_job) job = TYPED(few_job_of)(p, turned);
  int64_t group = job.dots ? FEW_DOT_ROWS : job.rows;
  int64_t width = job.dots ? LANES : FEW_SUM_TERMS;
  T *to = packed;
  for (int64_t first = 0; first < job.rows; first += group) {
    for (int64_t l = 0; l < job.k; l += width) {
      int64_t live = job.k - l < width ? job.k - l : width;
      for (int64_t i = first; i < first + group; i++, to += width) {
        const T *from = job.few + i * job.few_rs + l * job.few_cs;
        for (int64_t t = 0; t < width; t++)
          to[t] = i < job.rows && t < live ? from[t * job.few_cs] : 0;
      }
    }
  }
}

/* sums[r][c] gain, or are, those of `terms` terms, vector by vector. Half of the columns
 * of as many terms at `next` are asked for. */
static ALWAYS_INLINE void TYPED(few_dot_tile)(const int rows, const T *a, const T *b,
                                              int64_t b_rs, int64_t terms, const T *next,
                                              V (*sums)[FEW_DOT_COLS], bool first) {
  V sum[FEW_DOT_ROWS][FEW_DOT_COLS], right[FEW_DOT_COLS];
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int c = 0; c < FEW_DOT_COLS; c++) sum[r][c] = first ? (V){0} : sums[r][c];
  }
  int64_t p = 0;
  for (; p + LANES <= terms; p += LANES, a += FEW_DOT_ROWS * LANES) {
    UNROLL for (int c = 0; c < FEW_DOT_COLS; c++) right[c] = LOAD(b + c * b_rs + p);
    UNROLL for (int c = 0; c < FEW_DOT_COLS / 2; c++)
        __builtin_prefetch(next + c * b_rs + p);
    UNROLL for (int r = 0; r < rows; r++) {
      V left = LOAD(a + r * LANES);
      UNROLL for (int c = 0; c < FEW_DOT_COLS; c++) sum[r][c] += left * right[c];
    }
  }
  if (p < terms) {
    TYPED(part) part = TYPED(part_of)(0, terms - p);
    UNROLL for (int c = 0; c < FEW_DOT_COLS; c++) right[c] =
        TYPED(load_part)(b + c * b_rs + p, part);
    UNROLL for (int r = 0; r < rows; r++) {
      V left = LOAD(a + r * LANES);
      UNROLL for (int c = 0; c < FEW_DOT_COLS; c++) sum[r][c] += left * right[c];
    }
  }
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int c = 0; c < FEW_DOT_COLS; c++) sums[r][c] = sum[r][c];
  }
}

/* Terms l..end of FEW_ROWS rows at most, in whole groups of packed ones from `a` on, and
 * FEW_DOT_COLS columns, the first `skip` of them not stored. */
static void TYPED(few_dots_part)(const TYPED(few_job) * job, const T *a, int64_t rows,
                                 int64_t l, int64_t end, int64_t j, int64_t skip, T *c) {
  V sums[FEW_ROWS][FEW_DOT_COLS];
  const T *b = job->many + j * job->many_step;
  const int64_t group = FEW_DOT_ROWS * TYPED(few_depth)(job->k), begin = l;
  for (; l < end; l += FEW_DOT_TERMS) {
    int64_t terms = end - l < FEW_DOT_TERMS ? end - l : FEW_DOT_TERMS;
    for (int64_t i = 0; i < rows; i += FEW_DOT_ROWS) {
      const T *from = a + i / FEW_DOT_ROWS * group + l * FEW_DOT_ROWS;
      const T *next = l + FEW_DOT_TERMS < end ? b + l + FEW_DOT_TERMS
                                              : b + FEW_DOT_COLS * job->many_step + begin;
      if (i == FEW_DOT_ROWS) next += FEW_DOT_COLS / 2 * job->many_step;
#if FEW_DOT_ROWS > 2
      if (rows - i > 2) TYPED(few_dot_tile)
      (FEW_DOT_ROWS, from, b + l, job->many_step, terms, next, sums + i, l == begin);
      else
#endif
          TYPED(few_dot_tile)(2, from, b + l, job->many_step, terms, next, sums + i,
                              l == begin);
    }
  }
  bool add = job->add || begin > 0;
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t x = skip; x < FEW_DOT_COLS; x++) {
      T *at = c + i * job->c_rs + (j + x) * job->c_cs;
      T total = TYPED(across)(sums[i][x]);
      *at = add ? *at + total : total;
    }
  }
}

/* Columns whose terms lie together: a few of them at a time, FEW_ROWS rows at a time. */
static void TYPED(few_dots)(const TYPED(few_job) * job, const T *packed) {
  for (int64_t l = 0; l < job->k; l += FEW_DOT_SPAN) {
    int64_t end = job->k - l < FEW_DOT_SPAN ? job->k : l + FEW_DOT_SPAN;
    for (int64_t j = 0; j < job->cols; j += FEW_DOT_COLS) {
      int64_t left = job->cols - j, skip = left < FEW_DOT_COLS ? FEW_DOT_COLS - left : 0;
      for (int64_t i = 0; i < job->rows; i += FEW_ROWS) {
        int64_t rows = job->rows - i < FEW_ROWS ? job->rows - i : FEW_ROWS;
        const T *a = packed + i * TYPED(few_depth)(job->k);
        TYPED(few_dots_part)
        (job, a, rows, l, end, j - skip, skip, job->c + i * job->c_rs);
      }
    }
  }
}

/* sums[rows][step] gain, or are, the sums of `terms` rows of the many, from b on, times
 * the few. What is read next is asked for: in these rows, then in those behind them. */
static ALWAYS_INLINE void TYPED(few_sum_terms)(const int terms, const T *a, int64_t rows,
                                               const T *b, int64_t rs, int64_t cols,
                                               T *sums, int64_t step, bool first) {
  const int64_t ahead = FEW_AHEAD * LINE < cols ? FEW_AHEAD * LINE : cols;
  int64_t x = 0;
  for (; x + FEW_SUM_VECTORS * LANES <= cols; x += FEW_SUM_VECTORS * LANES) {
    V right[FEW_SUM_TERMS][FEW_SUM_VECTORS];
    const T *ask = x + ahead < cols ? b + x + ahead : b + terms * rs + x + ahead - cols;
    UNROLL for (int t = 0; t < terms; t++) {
      UNROLL for (int v = 0; v < FEW_SUM_VECTORS; v++) {
        right[t][v] = LOAD(b + t * rs + x + v * LANES);
        if (v * LANES % LINE == 0) __builtin_prefetch(ask + t * rs + v * LANES);
      }
    }
    T *to = sums + x;
    const T *left = a;
    for (int64_t i = 0; i < rows; i++, to += step, left += FEW_SUM_TERMS) {
      V sum[FEW_SUM_VECTORS];
      UNROLL for (int v = 0; v < FEW_SUM_VECTORS; v++) sum[v] =
          first ? (V){0} : LOAD(to + v * LANES);
      UNROLL for (int t = 0; t < terms; t++)
          TILE_ROW(0, FEW_SUM_VECTORS, sum, left + t, right[t]);
      UNROLL for (int v = 0; v < FEW_SUM_VECTORS; v++) STORE(to + v * LANES, sum[v]);
    }
  }
  for (; x < cols; x += LANES) {
    TYPED(part) part = TYPED(part_of)(0, cols - x);
    V right[FEW_SUM_TERMS];
    UNROLL for (int t = 0; t < terms; t++) right[t] =
        TYPED(load_part)(b + t * rs + x, part);
    const T *left = a;
    for (int64_t i = 0; i < rows; i++, left += FEW_SUM_TERMS) {
      V sum = first ? (V){0} : LOAD(sums + i * step + x);
      UNROLL for (int t = 0; t < terms; t++) TILE_ROW(0, 1, &sum, left + t, &right[t]);
      STORE(sums + i * step + x, sum);
    }
  }
}

/* Columns j.. of terms l..end. `first`: there are no sums yet. Aligned, as its short
 * loops take up to a third longer where other code in this file moves them. */
static __attribute__((aligned(64))) void TYPED(few_sums_part)(const TYPED(few_job) * job,
                                                              const T *packed, int64_t l,
                                                              int64_t end, int64_t j,
                                                              int64_t cols, T *sums,
                                                              int64_t step, bool first) {
  const int64_t rs = job->many_step, rows = job->rows;
  const T *b = job->many + l * rs + j, *a = packed + l * rows;
  for (; l + FEW_SUM_TERMS <= end; l += FEW_SUM_TERMS, b += FEW_SUM_TERMS * rs) {
    TYPED(few_sum_terms)(FEW_SUM_TERMS, a, rows, b, rs, cols, sums, step, first);
    a += FEW_SUM_TERMS * rows;
    first = false;
  }
  for (; l < end; l++, b += rs, a++) {
    TYPED(few_sum_terms)(1, a, rows, b, rs, cols, sums, step, first);
    first = false;
  }
}

/* Rows that lie together. */
static void TYPED(few_sums)(const TYPED(few_job) * job, const T *packed) {
  T sums[FEW_SUM_BYTES / sizeof(T)] __attribute__((aligned(VECTOR_BYTES)));
  int64_t bytes = job->rows > 16 ? FEW_SUM_BYTES : FEW_SUM_BYTES / 2;
  int64_t step = bytes / (int64_t)sizeof(T) / job->rows;
  step -= step % (FEW_SUM_VECTORS * LANES);
  for (int64_t j = 0; j < job->cols; j += step) {
    int64_t cols = job->cols - j < step ? job->cols - j : step;
    for (int64_t l = 0; l < job->k; l += FEW_SUM_SPAN) {
      int64_t end = job->k - l < FEW_SUM_SPAN ? job->k : l + FEW_SUM_SPAN;
      TYPED(few_sums_part)(job, packed, l, end, j, cols, sums, step, true);
      bool add = job->add || l > 0;
      for (int64_t i = 0; i < job->rows; i++) {
        T *to = job->c + i * job->c_rs + j * job->c_cs;
        const T *from = sums + i * step;
        for (int64_t x = 0; x < cols; x++, to += job->c_cs)
          *to = add ? *to + from[x] : from[x];
      }
    }
  }
}

static void TYPED(few_near)(const nyx_product *p, const void *packed) {
  const TYPED(few_job) job = TYPED(few_job_of)(p, false);
  TYPED(few_sums_part)(&job, packed, 0, p->k, 0, p->n, p->c, p->ldc, !p->add);
}

static void TYPED(few)(const nyx_product *p, bool turned, const void *packed) {
  const TYPED(few_job) job = TYPED(few_job_of)(p, turned);
  if (job.dots)
    TYPED(few_dots)(&job, packed);
  else
    TYPED(few_sums)(&job, packed);
}

#undef FEW_DOT_ROWS
#undef FEW_DOT_COLS
#undef FEW_SUM_VECTORS
#undef FEW_ROWS
#undef FEW_DOT_TERMS
#undef FEW_SUM_TERMS
#undef FEW_DOT_SPAN
#undef FEW_SUM_SPAN
#undef FEW_SUM_BYTES
#undef FEW_AHEAD
