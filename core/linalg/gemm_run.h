/* What the files of float products share: the run of one product, and sizes. Read next:
 * gemm.c, gemm_shared.c. */
#ifndef NYX_LINALG_GEMM_RUN_H
#define NYX_LINALG_GEMM_RUN_H

#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "gemm.h"

/* Everything the threads share. Units are slabs of one product (of rows, or else of
 * columns), then parts along k, then the batch. */
typedef struct gemm_run {
  nyx_context *ctx;
  const nyx_gemm *g;
  nyx__gemm_way way;
  int64_t item;  /* bytes */
  int64_t range; /* multiplications worth a thread */
  bool by_rows, own;
  bool asks; /* A, read in place, comes from beyond the second cache */
  int64_t slab, slabs, depth, parts;
  char *partial; /* parts x m x n, when parts > 1 */
  char *packed;  /* few rows or columns, or all of B, of each product */
  atomic_int status;
} gemm_run;

static inline int64_t parts_of(int64_t size, int64_t part) {
  return (size + part - 1) / part;
}

/* Saturating, for sizes: exact where it matters. */
static inline int64_t work_of(int64_t m, int64_t n, int64_t k) {
  int64_t result;
  if (__builtin_mul_overflow(m, n, &result)) return INT64_MAX;
  if (__builtin_mul_overflow(result, k, &result)) return INT64_MAX;
  return result;
}

static inline const nyx_gemm_kernel *kernel_of(nyx_dtype dtype) {
  return &nyx__cpu_kernels()->gemm->type[dtype == NYX_FLOAT64];
}

/* Narrows p to `m` rows from i, `n` columns from j, `k` terms from l, as far as there
 * are. */
static inline void narrow(nyx_product *p, int64_t item, int64_t i, int64_t m, int64_t j,
                          int64_t n, int64_t l, int64_t k) {
  p->a = (const char *)p->a + (i * p->a_rs + l * p->a_cs) * item;
  p->b = (const char *)p->b + (l * p->b_rs + j * p->b_cs) * item;
  p->c = (char *)p->c + (i * p->ldc + j) * item;
  p->m = p->m - i < m ? p->m - i : m;
  p->n = p->n - j < n ? p->n - j : n;
  p->k = p->k - l < k ? p->k - l : k;
}

static inline bool going(gemm_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

/* Whether B of such a product is best read where it is. */
bool nyx__gemm_in_place(const nyx_product *p, int64_t item);

/* gemm_shared.c: one large product by all threads, in one of the ways from
 * NYX__GEMM_ROWS on. `row`: where its results begin among all. */
nyx_status nyx__gemm_shared(gemm_run *r, const nyx_product *all, int64_t row);
/* Terms of a block there. */
int64_t nyx__gemm_block(nyx__gemm_way way, const nyx_gemm_kernel *kernel, int64_t item,
                        bool packed, int64_t k);

#endif
