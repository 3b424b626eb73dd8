/* Batches of tiny matrix products over one element type T, at most NYX_TINY rows, columns
 * and terms: a row of results stays in registers, and cubes without gaps of the sizes
 * that coordinates have are unrolled. Included by gemm.c. */

static ALWAYS_INLINE void TYPED(tiny_sized)(const nyx_product *p, int64_t m, int64_t n,
                                            int64_t k, int64_t count, int64_t a_next,
                                            int64_t b_next) {
  const T *a = p->a, *b = p->b;
  T *c = p->c;
  const int64_t a_rs = p->a_rs, a_cs = p->a_cs, b_rs = p->b_rs, b_cs = p->b_cs;
  const int64_t ldc = p->ldc;
  for (int64_t index = 0; index < count;
       index++, a += a_next, b += b_next, c += m * ldc) {
    T right[NYX_TINY * NYX_TINY];
    for (int64_t l = 0; l < k; l++)
      for (int64_t j = 0; j < n; j++) right[l * n + j] = b[l * b_rs + j * b_cs];
    for (int64_t i = 0; i < m; i++) {
      T row[NYX_TINY];
      for (int64_t j = 0; j < n; j++) row[j] = a[i * a_rs] * right[j];
      for (int64_t l = 1; l < k; l++) {
        const T by = a[i * a_rs + l * a_cs];
        for (int64_t j = 0; j < n; j++) row[j] += by * right[l * n + j];
      }
      for (int64_t j = 0; j < n; j++) c[i * ldc + j] = row[j];
    }
  }
}

/* Cubes without gaps. */
static ALWAYS_INLINE void TYPED(tiny_cubes)(const nyx_product *p, int64_t n,
                                            int64_t count) {
  const nyx_product q = {.a = p->a,
                         .b = p->b,
                         .c = p->c,
                         .a_rs = n,
                         .a_cs = 1,
                         .b_rs = n,
                         .b_cs = 1,
                         .ldc = n};
  TYPED(tiny_sized)(&q, n, n, n, count, n * n, n * n);
}

static void TYPED(tiny)(const nyx_product *p, int64_t count, int64_t a_next,
                        int64_t b_next) {
  const int64_t n = p->n;
  const bool dense = p->m == n && p->k == n && p->a_cs == 1 && p->a_rs == n &&
                     p->b_cs == 1 && p->b_rs == n && p->ldc == n && a_next == n * n &&
                     b_next == n * n;
  if (dense && n == 2)
    TYPED(tiny_cubes)(p, 2, count);
  else if (dense && n == 3)
    TYPED(tiny_cubes)(p, 3, count);
  else if (dense && n == 4)
    TYPED(tiny_cubes)(p, 4, count);
  else if (n == 1)
    TYPED(tiny_sized)(p, p->m, 1, p->k, count, a_next, b_next);
  else if (n == 2)
    TYPED(tiny_sized)(p, p->m, 2, p->k, count, a_next, b_next);
  else if (n == 3)
    TYPED(tiny_sized)(p, p->m, 3, p->k, count, a_next, b_next);
  else
    TYPED(tiny_sized)(p, p->m, 4, p->k, count, a_next, b_next);
}
