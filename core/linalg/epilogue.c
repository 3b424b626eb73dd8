/* The rows of kernels/elementwise.def, applied to a part of a product's result: the same
 * arithmetic as of the ops one after the other. Read next: epilogue.h. */
#include "epilogue.h"

#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../op/ops.h"

#define PIECE 512     /* elements of halves converted at a time */
#define TOGETHER 2048 /* elements finished at a time, about: of the first cache */

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
  if (e->sums) {
    from = (char *)e->sums + at;
    memcpy(from, c, (size_t)n * nyx_dtype_size(dtype));
  }
  const char *other = e->other;
  if (e->activation) activate(e, n, from, other ? other + at : from, c);
  if (e->residual) add(dtype, n, c, (const char *)e->residual + at, c);
}

void nyx__epilogue_end(const nyx_epilogue *e, nyx_dtype dtype, const nyx_region *r) {
  if (!e || (!e->sums && !e->activation && !e->residual)) return;
  size_t item = nyx_dtype_size(dtype);
  /* Rows without a gap between them are finished some at a time. */
  bool whole = r->cols == e->n && r->ldc == e->n;
  int64_t some = whole && r->cols < TOGETHER ? TOGETHER / r->cols : 1;
  for (int64_t i = 0; i < r->rows; i += some) {
    int64_t rows = r->rows - i < some ? r->rows - i : some;
    finish(e, dtype, (char *)r->c + (size_t)(i * r->ldc) * item,
           (size_t)((r->row + i) * e->n + r->col) * item, rows * r->cols);
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
  if (e->sums) store(cols, sums, (char *)e->sums + at, 1);
  nyx_gather_fn load = kernels->gather[out][NYX_IN_FLOAT32];
  if (e->activation && !e->other) activate(e, cols, sums, sums, sums);
  for (int64_t j = 0; j < cols && (e->other || e->residual); j += PIECE) {
    float wide[PIECE];
    int64_t n = cols - j < PIECE ? cols - j : PIECE;
    size_t from = at + (size_t)j * item;
    if (e->other) {
      load(n, (const char *)e->other + from, 1, wide);
      activate(e, n, sums + j, wide, sums + j);
    }
    if (e->residual) {
      load(n, (const char *)e->residual + from, 1, wide);
      add(NYX_FLOAT32, n, sums + j, wide, sums + j);
    }
  }
  store(cols, sums, to, 1);
}
