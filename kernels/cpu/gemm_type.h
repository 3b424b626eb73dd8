/* The product over one element type T; included by gemm.c, once for each. The way of
 * Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008):
 * blocks of A and B are copied into tile order, tiles of C are summed in registers. */

typedef T TYPED(vec) __attribute__((vector_size(VECTOR_BYTES)));
/* The same, at any address of a T. */
typedef T TYPED(vecu)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));

#define V TYPED(vec)
#define VU TYPED(vecu)
#define LANES ((int)(VECTOR_BYTES / sizeof(T)))
#define TILE_COLS (TILE_VECTORS * LANES)
#define LINE (64 / (int)sizeof(T)) /* elements of a cache line */
#define BLOCK_COLS ((int64_t)(BLOCK_COL_BYTES / sizeof(T)))

/* Copies rows x depth elements into one panel of `width` rows, depth by depth, filled up
 * with zeros. */
static inline void TYPED(pack_panel)(const T *from, int64_t rs, int64_t cs, int64_t rows,
                                     int64_t width, int64_t depth, T *to) {
  if (rs == 1 && rows == width) {
    for (int64_t p = 0; p < depth; p++) {
      for (int64_t r = 0; r < width; r++) to[p * width + r] = from[p * cs + r];
    }
    return;
  }
  /* A cache line of every row at once: their misses overlap. */
  T lines[TILE_COLS > TILE_ROWS ? TILE_COLS : TILE_ROWS][LINE];
  memset(lines, 0, sizeof lines);
  int64_t done = 0;
  for (; cs == 1 && done + LINE <= depth; done += LINE) {
    for (int64_t r = 0; r < rows; r++) {
      memcpy(lines[r], from + r * rs + done, sizeof lines[r]);
    }
    for (int64_t p = 0; p < LINE; p++) {
      for (int64_t r = 0; r < width; r++) to[(done + p) * width + r] = lines[r][p];
    }
  }
  for (int64_t p = done; p < depth; p++) {
    for (int64_t r = 0; r < rows; r++) to[p * width + r] = from[r * rs + p * cs];
    for (int64_t r = rows; r < width; r++) to[p * width + r] = 0;
  }
}

/* Rows of A become panels of TILE_ROWS rows. */
static void TYPED(pack_a)(const T *a, int64_t rs, int64_t cs, int64_t rows, int64_t depth,
                          T *to) {
  for (int64_t i = 0; i < rows; i += TILE_ROWS, to += depth * TILE_ROWS) {
    int64_t live = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
    TYPED(pack_panel)(a + i * rs, rs, cs, live, TILE_ROWS, depth, to);
  }
}

/* Columns of B become panels of TILE_COLS columns. */
static void TYPED(pack_b)(const void *b, int64_t rs, int64_t cs, int64_t depth,
                          int64_t cols, void *panels) {
  T *to = panels;
  for (int64_t j = 0; j < cols; j += TILE_COLS, to += depth * TILE_COLS) {
    int64_t live = cols - j < TILE_COLS ? cols - j : TILE_COLS;
    TYPED(pack_panel)((const T *)b + j * cs, cs, rs, live, TILE_COLS, depth, to);
  }
}

/* One tile: c = a b or c + a b, from packed panels; rows x cols of it are stored. */
static void TYPED(tile)(const T *a, const T *b, int64_t depth, T *c, int64_t ldc,
                        int64_t rows, int64_t cols, bool add) {
  V sum[TILE_ROWS][TILE_VECTORS];
  UNROLL for (int i = 0; i < TILE_ROWS; i++) {
    UNROLL for (int v = 0; v < TILE_VECTORS; v++) sum[i][v] = (V){0};
  }
  for (int64_t i = 0; i < rows; i++) {
    for (int v = 0; v < TILE_VECTORS; v++) __builtin_prefetch(c + i * ldc + v * LANES, 1);
  }
  for (int64_t p = 0; p < depth; p++, a += TILE_ROWS, b += TILE_COLS) {
    V right[TILE_VECTORS];
    UNROLL for (int v = 0; v < TILE_VECTORS; v++) right[v] = *(const V *)(b + v * LANES);
    UNROLL for (int i = 0; i < TILE_ROWS; i++) {
      UNROLL for (int v = 0; v < TILE_VECTORS; v++) sum[i][v] += a[i] * right[v];
    }
  }
  if (rows == TILE_ROWS && cols == TILE_COLS) {
    UNROLL for (int i = 0; i < TILE_ROWS; i++) {
      UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
        VU *to = (VU *)(c + i * ldc + v * LANES);
        if (add) sum[i][v] += *to;
        *to = sum[i][v];
      }
    }
    return;
  }
  T edge[TILE_ROWS * TILE_COLS] __attribute__((aligned(VECTOR_BYTES)));
  UNROLL for (int i = 0; i < TILE_ROWS; i++) {
    UNROLL for (int v = 0; v < TILE_VECTORS; v++) {
      *(V *)(edge + i * TILE_COLS + v * LANES) = sum[i][v];
    }
  }
  for (int64_t i = 0; i < rows; i++) {
    T *to = c + i * ldc;
    const T *from = edge + i * TILE_COLS;
    for (int64_t j = 0; j < cols; j++) to[j] = add ? to[j] + from[j] : from[j];
  }
}

static void TYPED(direct)(const nyx_product *p) {
  const T *a = p->a, *b = p->b;
  for (int64_t i = 0; i < p->m; i++) {
    T *restrict c = (T *)p->c + i * p->ldc;
    if (!p->add) memset(c, 0, sizeof(T) * (size_t)p->n);
    for (int64_t l = 0; l < p->k; l++) {
      T left = a[i * p->a_rs + l * p->a_cs];
      const T *restrict row = b + l * p->b_rs;
      if (p->b_cs == 1) {
        for (int64_t j = 0; j < p->n; j++) c[j] += left * row[j];
      } else {
        for (int64_t j = 0; j < p->n; j++) c[j] += left * row[j * p->b_cs];
      }
    }
  }
}

static void TYPED(block)(const nyx_product *p, const void *panels, void *work) {
  const T *b = panels;
  T *a = work;
  TYPED(pack_a)(p->a, p->a_rs, p->a_cs, p->m, p->k, a);
  for (int64_t j = 0; j < p->n; j += TILE_COLS) {
    for (int64_t i = 0; i < p->m; i += TILE_ROWS) {
      TYPED(tile)
      (a + i * p->k, b + j * p->k, p->k, (T *)p->c + i * p->ldc + j, p->ldc,
       p->m - i < TILE_ROWS ? p->m - i : TILE_ROWS,
       p->n - j < TILE_COLS ? p->n - j : TILE_COLS, p->add);
    }
  }
}

static void TYPED(product)(const nyx_product *p, void *work) {
  T *panels = (T *)((char *)work + WORK_A);
  for (int64_t j = 0; j < p->n; j += BLOCK_COLS) {
    for (int64_t l = 0; l < p->k; l += DEPTH) {
      nyx_product q = *p;
      q.n = p->n - j < BLOCK_COLS ? p->n - j : BLOCK_COLS;
      q.k = p->k - l < DEPTH ? p->k - l : DEPTH;
      q.add = p->add || l > 0;
      TYPED(pack_b)
      ((const T *)p->b + l * p->b_rs + j * p->b_cs, p->b_rs, p->b_cs, q.k, q.n, panels);
      for (int64_t i = 0; i < p->m; i += BLOCK_ROWS) {
        q.m = p->m - i < BLOCK_ROWS ? p->m - i : BLOCK_ROWS;
        q.a = (const T *)p->a + i * p->a_rs + l * p->a_cs;
        q.c = (T *)p->c + i * p->ldc + j;
        TYPED(block)(&q, panels, work);
      }
    }
  }
}

#undef V
#undef VU
#undef LANES
#undef TILE_COLS
#undef BLOCK_COLS
#undef LINE
