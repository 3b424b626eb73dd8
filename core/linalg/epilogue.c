/* The rows of kernels/elementwise.def, applied to a part of a product's result: the same
 * arithmetic as of the ops one after the other. Read next: epilogue.h. */
#include "epilogue.h"

#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../op/ops.h"

#define PIECE 512     /* elements of halves converted at a time */
#define TOGETHER 2048 /* elements finished at a time: of the first cache */

static int compute_in(nyx_dtype dtype) {
  return dtype == NYX_FLOAT64 ? NYX_IN_FLOAT64 : NYX_IN_FLOAT32;
}

/* to = x + y */
static void add(nyx_dtype dtype, int64_t n, const void *x, const void *y, void *to) {
  const double none[2] = {0, 0};
  const void *in[] = {x, y, x, x, x};
  nyx_elementwise_fn fn =
      nyx__cpu_kernels()
          ->elementwise->rows[compute_in(dtype)][nyx__row(NYX__OP_add)->id][0];
  fn(n, in, to, none);
}

static void activate(const nyx_epilogue *e, int64_t n, const void *x, const void *y,
                     void *to) {
  const void *in[] = {x, y, x, x, x};
  e->activation(n, in, to, e->attr);
}

bool nyx__epilogue_begin(const nyx_epilogue *e, nyx_dtype dtype, const nyx_region *r) {
  if (!e || !e->bias) return false;
  size_t item = nyx_dtype_size(dtype);
  const char *bias = (const char *)e->bias + (size_t)r->col * item;
  for (int64_t i = 0; i < r->rows; i++)
    memcpy((char *)r->c + (size_t)(i * r->ldc) * item, bias, (size_t)r->cols * item);
  return true;
}

/* n elements of C that lie together, `at` bytes from the beginning of all results. */
static void finish(const nyx_epilogue *e, nyx_dtype dtype, void *c, size_t at,
                   int64_t n) {
  void *from = c;
  if (e->before) add(dtype, n, c, (const char *)e->before + at, c);
  if (e->sums) {
    from = (char *)e->sums + at;
    memcpy(from, c, (size_t)n * nyx_dtype_size(dtype));
  }
  const char *other = e->other;
  if (e->activation) activate(e, n, from, other ? other + at : from, c);
  if (e->residual) add(dtype, n, c, (const char *)e->residual + at, c);
}

/* Rows of a region, the first `at` bytes from the beginning, then n elements further
 * each; those without a gap between them are one row. */
static void finish_rows(const nyx_epilogue *e, nyx_dtype dtype, const nyx_region *r,
                        size_t at, int64_t n) {
  int64_t rows = r->rows, cols = r->cols;
  size_t item = nyx_dtype_size(dtype);
  if (cols == n && r->ldc == n) cols *= rows, rows = rows > 0;
  for (int64_t i = 0; i < rows; i++) {
    char *c = (char *)r->c + (size_t)(i * r->ldc) * item;
    size_t from = at + (size_t)(i * n) * item;
    for (int64_t j = 0; j < cols; j += TOGETHER)
      finish(e, dtype, c + (size_t)j * item, from + (size_t)j * item,
             cols - j < TOGETHER ? cols - j : TOGETHER);
  }
}

static bool is_over(const nyx_epilogue *e) {
  return !e || (!e->before && !e->sums && !e->activation && !e->residual);
}

void nyx__epilogue_end(const nyx_epilogue *e, nyx_dtype dtype, const nyx_region *r) {
  if (is_over(e)) return;
  size_t at = (size_t)(r->row * e->n + r->col) * nyx_dtype_size(dtype);
  finish_rows(e, dtype, r, at, e->n);
}

void nyx__epilogue_there(const nyx_epilogue *e, nyx_dtype dtype, void *c, int64_t rows,
                         int64_t cols, int64_t ld) {
  if (is_over(e)) return;
  const nyx_region r = {.c = c, .ldc = ld, .rows = rows, .cols = cols};
  finish_rows(e, dtype, &r, (size_t)((char *)c - (const char *)e->results), ld);
}

/* sums += n elements of `out` at `from` */
static void add_wide(nyx_dtype out, int64_t n, const void *from, float *sums) {
  nyx_gather_fn load = nyx__cpu_kernels()->elementwise->gather[out][NYX_IN_FLOAT32];
  size_t item = nyx_dtype_size(out);
  for (int64_t j = 0; j < n; j += PIECE) {
    float wide[PIECE];
    int64_t count = n - j < PIECE ? n - j : PIECE;
    load(count, (const char *)from + (size_t)j * item, 1, wide);
    add(NYX_FLOAT32, count, sums + j, wide, sums + j);
  }
}

void nyx__epilogue_store(const nyx_epilogue *e, nyx_dtype out, float *sums, int64_t row,
                         int64_t col, int64_t cols, void *to) {
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  nyx_scatter_fn store = kernels->scatter[NYX_IN_FLOAT32][out];
  if (!e) {
    store(cols, sums, to, 1);
    return;
  }
  size_t item = nyx_dtype_size(out), at = (size_t)(row * e->n + col) * item;
  if (e->before) add_wide(out, cols, (const char *)e->before + at, sums);
  if (e->sums) store(cols, sums, (char *)e->sums + at, 1);
  nyx_gather_fn load = kernels->gather[out][NYX_IN_FLOAT32];
  if (e->activation && !e->other) activate(e, cols, sums, sums, sums);
  for (int64_t j = 0; j < cols && e->other; j += PIECE) {
    float wide[PIECE];
    int64_t n = cols - j < PIECE ? cols - j : PIECE;
    load(n, (const char *)e->other + at + (size_t)j * item, 1, wide);
    activate(e, n, sums + j, wide, sums + j);
  }
  if (e->residual) add_wide(out, cols, (const char *)e->residual + at, sums);
  store(cols, sums, to, 1);
}
