/* LAPACK's routines over batches, and blocked forms of Cholesky's factorization and LU
 * whose products are shared by the threads; solutions by them. Read next: factor.h, qr.c,
 * matrices.c.
 */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/matrices.h"
#include "../../kernels/cpu/move.h"
#include "factor_run.h"
#include "gemm.h"

/* Columns that are factored at a time, and rows and columns of what one product updates
 * then. */
#define PANEL 128
#define TILE 192
#define CHUNK 128 /* columns of a right-hand side that are solved for at a time */

typedef struct factor_run {
  nyx_context *ctx;
  const nyx_lapack *lapack;
  nyx_dtype dtype;
  size_t item;
  int64_t m, n; /* of a matrix */
  char *a;
  int *pivots, *info;
  /* The step of a blocked form: columns from j on, `width` of them; what is left to do
   * begins at `rest`. */
  int64_t j, width, rest;
  char *panel, *next; /* minus the part of this panel below its square, of the next */
  atomic_bool no_memory;
} factor_run;

static nyx_status open_run(nyx_context *ctx, nyx_dtype dtype, factor_run *r) {
  r->ctx = ctx;
  r->dtype = dtype;
  r->item = nyx_dtype_size(dtype);
  return nyx__lapack(ctx, dtype, &r->lapack);
}

static const void *one(nyx_dtype dtype) {
  static const double wide = 1;
  static const float narrow = 1;
  return dtype == NYX_FLOAT64 ? (const void *)&wide : (const void *)&narrow;
}

/* The element (i, j) of matrix `entry`, row-major or with rows and columns exchanged. */
static char *element(const factor_run *r, int64_t entry, int64_t i, int64_t j,
                     int64_t ld) {
  return r->a + (size_t)(entry * r->m * r->n + i * ld + j) * r->item;
}

/* to = -from. */
static void negate(nyx_dtype dtype, const void *from, void *to, int64_t n) {
  if (dtype == NYX_FLOAT64)
    for (int64_t i = 0; i < n; i++) ((double *)to)[i] = -((const double *)from)[i];
  else
    for (int64_t i = 0; i < n; i++) ((float *)to)[i] = -((const float *)from)[i];
}

/* Cholesky */

/* A row-major lower triangle is a column-major upper one. */
static void cholesky_range(void *arg, int64_t begin, int64_t end) {
  const factor_run *r = arg;
  const int n = (int)r->n;
  for (int64_t e = begin; e < end; e++)
    r->lapack->potrf("U", &n, element(r, e, 0, 0, n), &n, &r->info[e], 1);
}

/* Rows of the panel, TILE at a time from `rest` on: L21 = A21 L11^-T. */
static void panel_range(void *arg, int64_t begin, int64_t end) {
  const factor_run *r = arg;
  const int n = (int)r->n, width = (int)r->width;
  for (int64_t t = begin; t < end; t++) {
    const int64_t first = r->rest + t * TILE;
    const int rows = (int)least(TILE, r->n - first);
    r->lapack->trsm("L", "U", "T", "N", &width, &rows, one(r->dtype),
                    element(r, 0, r->j, r->j, n), &n, element(r, 0, first, r->j, n), &n,
                    1, 1, 1, 1);
    for (int64_t i = first; i < first + rows; i++)
      negate(r->dtype, element(r, 0, i, r->j, n),
             r->panel + (size_t)((i - r->rest) * width) * r->item, width);
  }
}

/* Tiles of what is left, those of its lower triangle by rows: A22 -= L21 L21^T. */
static void trailing_range(void *arg, int64_t begin, int64_t end) {
  const factor_run *r = arg;
  for (int64_t t = begin; t < end; t++) {
    int64_t row = 0, column = t;
    while (column > row) column -= ++row;
    const int64_t i = r->rest + row * TILE, j = r->rest + column * TILE;
    const nyx_product p = {.m = least(TILE, r->n - i),
                           .n = least(TILE, r->n - j),
                           .k = r->width,
                           .a = element(r, 0, i, r->j, r->n),
                           .a_rs = r->n,
                           .a_cs = 1,
                           .b = r->panel + (size_t)((j - r->rest) * r->width) * r->item,
                           .b_rs = 1,
                           .b_cs = r->width,
                           .c = element(r, 0, i, j, r->n),
                           .ldc = r->n,
                           .add = true};
    nyx__gemm_here(r->dtype, &p);
  }
}

static nyx_status cholesky_blocked(factor_run *r) {
  const int n = (int)r->n;
  for (r->j = 0; r->j < n; r->j = r->rest) {
    r->width = least(PANEL, n - r->j);
    r->rest = r->j + r->width;
    const int width = (int)r->width;
    r->lapack->potrf("U", &width, element(r, 0, r->j, r->j, n), &n, r->info, 1);
    if (*r->info > 0) {
      *r->info += (int)r->j;
      return NYX_OK;
    }
    const int64_t tiles = parts(n - r->rest, TILE);
    NYX_TRY(nyx__parallel_for(r->ctx, tiles, 1, panel_range, r));
    NYX_TRY(nyx__parallel_for(r->ctx, tiles * (tiles + 1) / 2, 1, trailing_range, r));
  }
  return NYX_OK;
}

static void clear_above(void *arg, int64_t begin, int64_t end) {
  const factor_run *r = arg;
  for (int64_t i = begin; i < end; i++) {
    const int64_t row = i % r->n;
    memset(element(r, i / r->n, row, row + 1, r->n), 0,
           (size_t)(r->n - row - 1) * r->item);
  }
}

/* Not every LAPACK says that what is not a number is not positive; the first one on a
 * diagonal is where it came in. */
static void find_nan(factor_run *r, int64_t count) {
  for (int64_t e = 0; e < count; e++)
    for (int64_t i = 0; i < r->n && r->info[e] == 0; i++)
      if (isnan(number(r->dtype, element(r, e, i, i, r->n)))) r->info[e] = (int)i + 1;
}

/* Runs a blocked form on one matrix after the other. `below`: elements of a panel. */
static nyx_status each_blocked(factor_run *r, int64_t count, int64_t below,
                               nyx_status (*blocked)(factor_run *)) {
  const size_t bytes = (size_t)below * r->item;
  if (!(r->panel = nyx_memory_alloc(bytes))) return nyx__no_memory(r->ctx, bytes);
  nyx_status status = NYX_OK;
  for (int64_t e = 0; status == NYX_OK && e < count; e++) {
    factor_run own = *r;
    own.a = element(r, e, 0, 0, r->n);
    own.info = r->info + e;
    if (r->pivots) own.pivots = r->pivots + e * least(r->m, r->n);
    status = blocked(&own);
  }
  nyx_memory_free(r->panel);
  return status;
}

nyx_status nyx__cholesky(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t n,
                         void *a, int *info) {
  factor_run r = {.m = n, .n = n, .a = a, .info = info};
  NYX_TRY(open_run(ctx, dtype, &r));
  if (nyx__in_lanes(count, n, n, 0)) {
    const nyx__small small = {
        .dtype = dtype, .count = count, .m = n, .n = n, .a = a, .info = info};
    NYX_TRY(nyx__small_run(ctx, &small));
  } else if (count >= ENOUGH || n < BLOCKED) {
    const double work = (double)n * (double)n * (double)n / 6;
    NYX_TRY(nyx__parallel_for(ctx, count, grain(work), cholesky_range, &r));
  } else {
    NYX_TRY(each_blocked(&r, count, n * PANEL, cholesky_blocked));
  }
  find_nan(&r, count);
  return nyx__parallel_for(ctx, count * n, RANGE / 16 / n + 1, clear_above, &r);
}

/* LU */

/* Pivots of a panel of `rows` rows. What is not a number may have led LAPACK anywhere:
 * such a row stays. */
static void tame(int *pivots, int64_t count, int64_t rows) {
  for (int64_t i = 0; i < count; i++)
    if (pivots[i] <= i || pivots[i] > rows) pivots[i] = (int)i + 1;
}

static void lu_range(void *arg, int64_t begin, int64_t end) {
  const factor_run *r = arg;
  const int m = (int)r->m, n = (int)r->n;
  const int64_t k = least(m, n);
  for (int64_t e = begin; e < end; e++) {
    r->lapack->getrf(&m, &n, element(r, e, 0, 0, m), &m, r->pivots + e * k, &r->info[e]);
    tame(r->pivots + e * k, k, m);
  }
}

/* Factors columns j.. of what is left and keeps minus what lies below their square. */
static void lu_panel(factor_run *r, int64_t j, char *panel) {
  const int64_t most = least(r->m, r->n), columns = least(PANEL, most - j);
  const int m = (int)r->m, rows = m - (int)j, width = (int)columns;
  const int64_t below = r->m - j - columns;
  int info = 0;
  r->lapack->getrf(&rows, &width, element(r, 0, j, j, m), &m, r->pivots + j, &info);
  tame(r->pivots + j, columns, rows);
  if (info > 0 && *r->info == 0) *r->info = (int)j + info;
  for (int64_t i = j; i < j + columns; i++) r->pivots[i] += (int)j;
  for (int64_t c = 0; c < columns; c++)
    negate(r->dtype, element(r, 0, j + c, j + columns, m),
           panel + (size_t)(c * below) * r->item, below);
}

/* Room for a chunk of U12 and for the triangle that solves for it, in elements. */
#define LU_ROOM (PANEL * PANEL + NYX_TRIANGLE_ROOM)

/* U12 = L11^-1 A12 for `count` columns from `at` on, turned on the way: right-hand sides
 * lie side by side then. */
static void lu_solve_for(const factor_run *r, int64_t at, int64_t count, char *work) {
  const nyx_cpu_kernels *kernels = nyx__cpu_kernels();
  const nyx_transpose_fn turn = kernels->move->transpose[r->item == 8 ? 3 : 2];
  char *columns = element(r, 0, at, r->j, r->m);
  const nyx_triangle t = {.a = element(r, 0, r->j, r->j, r->m),
                          .n = r->width,
                          .a_rs = 1,
                          .a_cs = r->m,
                          .unit = true,
                          .x = work,
                          .x_ld = count,
                          .count = count,
                          .room = work + (size_t)(PANEL * PANEL) * r->item};
  turn(r->width, count, columns, r->m, work, count);
  kernels->matrices->triangle[r->dtype == NYX_FLOAT64](&t);
  turn(count, r->width, work, count, columns, r->m);
}

/* Columns outside the panel: exchanges their rows; of those behind it, U12 = L11^-1 A12,
 * A22 -= L21 U12. */
static void lu_update(const factor_run *r, int64_t at, int64_t count, char *work) {
  const int m = (int)r->m, first = (int)r->j + 1, step = 1;
  const int last = (int)r->rest, columns = (int)count;
  r->lapack->laswp(&columns, element(r, 0, at, 0, m), &m, &first, &last, r->pivots,
                   &step);
  if (at < r->rest) return;
  lu_solve_for(r, at, count, work);
  if (r->rest == m) return;
  const nyx_product p = {.m = columns,
                         .n = m - r->rest,
                         .k = r->width,
                         .a = element(r, 0, at, r->j, m),
                         .a_rs = m,
                         .a_cs = 1,
                         .b = r->panel,
                         .b_rs = m - r->rest,
                         .b_cs = 1,
                         .c = element(r, 0, at, r->rest, m),
                         .ldc = m,
                         .add = true};
  nyx__gemm_here(r->dtype, &p);
}

/* The next panel first, which is factored at once: one thread does that while the others
 * update what lies behind it. Then those behind and before, PANEL columns at a time. */
static void columns_range(void *arg, int64_t begin, int64_t end) {
  factor_run *r = arg;
  const int64_t behind = parts(r->n - r->rest, PANEL);
  char *work = nyx_memory_alloc((size_t)LU_ROOM * r->item);
  if (!work) atomic_store(&r->no_memory, true);
  for (int64_t t = begin; work && t < end; t++) {
    const int64_t at = t < behind ? r->rest + t * PANEL : (t - behind) * PANEL;
    lu_update(r, at, least(PANEL, (t < behind ? r->n : r->j) - at), work);
    if (t == 0 && r->rest < least(r->m, r->n)) lu_panel(r, r->rest, r->next);
  }
  nyx_memory_free(work);
}

static nyx_status lu_blocked(factor_run *r) {
  const int64_t most = least(r->m, r->n);
  r->next = r->panel + (size_t)(r->m * PANEL) * r->item;
  *r->info = 0;
  lu_panel(r, 0, r->panel);
  for (r->j = 0; r->j < most; r->j = r->rest) {
    r->width = least(PANEL, most - r->j);
    r->rest = r->j + r->width;
    const int64_t pieces = parts(r->n - r->rest, PANEL) + parts(r->j, PANEL);
    NYX_TRY(nyx__parallel_for(r->ctx, pieces, 1, columns_range, r));
    if (r->no_memory) return nyx__no_memory(r->ctx, (size_t)LU_ROOM * r->item);
    char *done = r->panel;
    r->panel = r->next;
    r->next = done;
  }
  return NYX_OK;
}

nyx_status nyx__lu(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t m, int64_t n,
                   void *a, int *pivots, int *info) {
  factor_run r = {.m = m, .n = n, .a = a, .pivots = pivots, .info = info};
  NYX_TRY(open_run(ctx, dtype, &r));
  if (nyx__in_lanes(count, m, n, 0)) {
    const nyx__small small = {.dtype = dtype,
                              .count = count,
                              .m = m,
                              .n = n,
                              .a = a,
                              .pivots = pivots,
                              .info = info};
    return nyx__small_run(ctx, &small);
  }
  if (count < ENOUGH && least(m, n) >= BLOCKED)
    return each_blocked(&r, count, 2 * m * PANEL, lu_blocked);
  const double work = (double)m * (double)n * (double)least(m, n) / 3;
  return nyx__parallel_for(ctx, count, grain(work), lu_range, &r);
}

/* Triangles */

/* One triangle and some of the columns of x, or rows where A is on the right. */
typedef struct side {
  const nyx_lapack *lapack;
  nyx_dtype dtype;
  size_t item;
  const char *a;
  int64_t n, ld;
  bool turned, upper, left, unit;
  char *x;
  int64_t x_ld, count;
  char *work; /* room for SIDE_ROOM elements: PANEL x CHUNK, a triangle */
} side;
#define SIDE_ROOM (PANEL * CHUNK + NYX_TRIANGLE_ROOM)

/* Fewer right-hand sides than this leave to LAPACK what packing a triangle would cost. */
#define SIDES 16
static bool side_by_side(const side *s) {
  return s->left && s->count >= SIDES;
}

/* Solves with the square (i, i) of A. A row-major x is a column-major x^T: A x = b is x^T
 * A^T = b^T there, and a row-major A is A^T. */
static void solve_square(const side *s, int64_t i, int64_t width) {
  const int count = (int)s->count, order = (int)width, ld = (int)s->ld,
            x_ld = (int)s->x_ld;
  if (side_by_side(s)) {
    const nyx_triangle t = {.a = s->a + (size_t)(i * (s->ld + 1)) * s->item,
                            .n = width,
                            .a_rs = s->turned ? 1 : s->ld,
                            .a_cs = s->turned ? s->ld : 1,
                            .upper = s->upper,
                            .unit = s->unit,
                            .x = s->x + (size_t)(i * s->x_ld) * s->item,
                            .x_ld = s->x_ld,
                            .count = s->count,
                            .room = s->work + (size_t)(PANEL * CHUNK) * s->item};
    nyx__cpu_kernels()->matrices->triangle[s->dtype == NYX_FLOAT64](&t);
    return;
  }
  s->lapack->trsm(
      s->left ? "R" : "L", s->upper == s->turned ? "U" : "L", s->turned ? "T" : "N",
      s->unit ? "U" : "N", s->left ? &count : &order, s->left ? &order : &count,
      one(s->dtype), s->a + (size_t)(i * (s->ld + 1)) * s->item, &ld,
      s->x + (size_t)(s->left ? i * s->x_ld : i) * s->item, &x_ld, 1, 1, 1, 1);
}

/* Takes what was solved, from i on, out of the rows (columns) `at` and following. */
static void take_out(const side *s, int64_t i, int64_t width, int64_t at, int64_t rest) {
  const int64_t rs = s->turned ? 1 : s->ld, cs = s->turned ? s->ld : 1;
  const int64_t lines = s->left ? width : s->count, length = s->left ? s->count : width;
  const char *from = s->x + (size_t)(s->left ? i * s->x_ld : i) * s->item;
  for (int64_t l = 0; l < lines; l++)
    negate(s->dtype, from + (size_t)(l * s->x_ld) * s->item,
           s->work + (size_t)(l * length) * s->item, length);
  nyx_product p = {.k = width, .ldc = s->x_ld, .add = true};
  p.c = s->x + (size_t)(s->left ? at * s->x_ld : at) * s->item;
  if (s->left) {
    p.m = rest, p.n = s->count;
    p.a = s->a + (size_t)(at * rs + i * cs) * s->item, p.a_rs = rs, p.a_cs = cs;
    p.b = s->work, p.b_rs = length, p.b_cs = 1;
  } else {
    p.m = s->count, p.n = rest;
    p.a = s->work, p.a_rs = length, p.a_cs = 1;
    p.b = s->a + (size_t)(i * rs + at * cs) * s->item, p.b_rs = rs, p.b_cs = cs;
  }
  nyx__gemm_here(s->dtype, &p);
}

static void solve_side(const side *s) {
  const int64_t blocks = s->n < BLOCKED && !side_by_side(s) ? 1 : parts(s->n, PANEL);
  const bool forward = s->left != s->upper;
  if (blocks == 1) {
    solve_square(s, 0, s->n);
    return;
  }
  for (int64_t k = 0; k < blocks; k++) {
    const int64_t i = (forward ? k : blocks - 1 - k) * PANEL;
    const int64_t width = least(PANEL, s->n - i), after = i + width;
    solve_square(s, i, width);
    if (forward && after < s->n) take_out(s, i, width, after, s->n - after);
    if (!forward && i > 0) take_out(s, i, width, 0, i);
  }
}

typedef struct solve_run {
  const nyx__triangular *t;
  const nyx_lapack *lapack;
  size_t item;
  int64_t chunks;    /* of columns of x, or of rows where A is on the right */
  const int *pivots; /* of an LU; NULL: one triangle */
  atomic_bool no_memory;
} solve_run;

/* Rows of x, exchanged in turn, or from the last exchange on; `work` is room for one. */
static void exchange(const side *s, const int *pivots, bool back) {
  const size_t bytes = (size_t)s->count * s->item;
  for (int64_t k = 0; k < s->n; k++) {
    const int64_t i = back ? s->n - 1 - k : k;
    if (pivots[i] - 1 == i) continue;
    char *a = s->x + (size_t)(i * s->x_ld) * s->item;
    char *b = s->x + (size_t)((pivots[i] - 1) * s->x_ld) * s->item;
    memcpy(s->work, a, bytes);
    memcpy(a, b, bytes);
    memcpy(b, s->work, bytes);
  }
}

static void solve_range(void *arg, int64_t begin, int64_t end) {
  solve_run *r = arg;
  const nyx__triangular *t = r->t;
  side s = {.lapack = r->lapack,
            .dtype = t->dtype,
            .item = r->item,
            .n = t->left ? t->rows : t->cols,
            .ld = t->ld,
            .turned = t->turned,
            .upper = t->upper,
            .left = t->left,
            .unit = t->unit,
            .x_ld = t->cols};
  s.work = nyx_memory_alloc((size_t)SIDE_ROOM * r->item);
  if (!s.work) atomic_store(&r->no_memory, true);
  for (int64_t i = begin; s.work && i < end; i++) {
    const int64_t e = i / r->chunks, first = i % r->chunks * CHUNK;
    const int64_t offset = t->left ? first : first * t->cols;
    s.count = least(CHUNK, (t->left ? t->cols : t->rows) - first);
    s.a = (const char *)t->a + (size_t)t->at[e] * r->item;
    s.x = (char *)t->x + (size_t)(e * t->rows * t->cols + offset) * r->item;
    if (r->pivots) { /* L, and then U */
      exchange(&s, r->pivots + t->at[e] / s.n, false);
      s.upper = false, s.unit = true;
      solve_side(&s);
      s.upper = true, s.unit = false;
    }
    solve_side(&s);
  }
  nyx_memory_free(s.work);
}

static nyx_status solve_all(nyx_context *ctx, const nyx__triangular *t,
                            const int *pivots) {
  solve_run r = {.t = t, .item = nyx_dtype_size(t->dtype), .pivots = pivots};
  NYX_TRY(nyx__lapack(ctx, t->dtype, &r.lapack));
  const int64_t sides = t->left ? t->cols : t->rows, order = t->left ? t->rows : t->cols;
  if (t->ld == order && nyx__in_lanes(t->count, order, order, sides)) {
    const nyx__small small = {.dtype = t->dtype,
                              .count = t->count,
                              .m = order,
                              .n = order,
                              .k = sides,
                              .a = (void *)t->a,
                              .at = t->at,
                              .pivots = (int *)pivots,
                              .turned = t->turned,
                              .upper = t->upper || pivots,
                              .unit = t->unit,
                              .left = t->left,
                              .x = t->x};
    return nyx__small_run(ctx, &small);
  }
  r.chunks = parts(sides, CHUNK);
  const double work = (double)order * (double)order * (double)least(sides, CHUNK) / 2;
  NYX_TRY(nyx__parallel_for(ctx, t->count * r.chunks, grain(work), solve_range, &r));
  return r.no_memory ? nyx__no_memory(ctx, (size_t)SIDE_ROOM * r.item) : NYX_OK;
}

nyx_status nyx__solve_triangles(nyx_context *ctx, const nyx__triangular *t) {
  return solve_all(ctx, t, NULL);
}

nyx_status nyx__lu_solve(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t n,
                         int64_t k, const void *lu, const int *pivots, const int64_t *at,
                         void *x) {
  const nyx__triangular t = {.dtype = dtype,
                             .count = count,
                             .rows = n,
                             .cols = k,
                             .a = lu,
                             .at = at,
                             .ld = n,
                             .turned = true,
                             .left = true,
                             .x = x};
  return solve_all(ctx, &t, pivots);
}

/* Inverses: of L L^T, and of A by P L U = A^T. In memory the factors of A^T are, row by
 * row, U^T and, above the diagonal, L^T; A^-1 = P L^-T U^-T. */

typedef struct inverse_run {
  const nyx_lapack *lapack;
  nyx_dtype dtype;
  size_t item;
  int64_t n;
  const char *l;
  char *z, *out;     /* L^-1; Z^T Z */
  const int *pivots; /* of an LU, whose inverse is made in `out` */
  const int *info;
  atomic_bool no_memory;
} inverse_run;

static char *place(const inverse_run *r, const char *a, int64_t i, int64_t j) {
  return (char *)a + (size_t)(i * r->n + j) * r->item;
}

/* What is above the diagonal of rows i and columns j of Y, m x n of them, from below: in
 * blocks, as one of both goes across lines. */
static void mirror(const inverse_run *r, int64_t i, int64_t m, int64_t j, int64_t n) {
  enum { BLOCK = 16 };
  for (int64_t row = i; row < i + m; row += BLOCK)
    for (int64_t column = j; column < least(j + n, row + BLOCK); column += BLOCK)
      for (int64_t from = row; from < least(row + BLOCK, i + m); from++) {
        const int64_t end = least(least(column + BLOCK, j + n), from);
        if (r->dtype == NYX_FLOAT64) {
          double *y = (double *)(void *)r->out;
          for (int64_t c = column; c < end; c++) y[c * r->n + from] = y[from * r->n + c];
        } else {
          float *y = (float *)(void *)r->out;
          for (int64_t c = column; c < end; c++) y[c * r->n + from] = y[from * r->n + c];
        }
      }
}

/* Columns of Z, from their diagonal down. `work` as side has it. */
static side inverse_columns(const inverse_run *r, int64_t chunk, char *work) {
  const int64_t first = chunk * CHUNK;
  const side s = {.lapack = r->lapack,
                  .dtype = r->dtype,
                  .item = r->item,
                  .a = place(r, r->l, first, first),
                  .n = r->n - first,
                  .ld = r->n,
                  .left = true,
                  .x = place(r, r->z, first, first),
                  .x_ld = r->n,
                  .count = least(CHUNK, r->n - first),
                  .work = work};
  for (int64_t i = first; i < r->n; i++)
    memset(place(r, r->z, i, first), 0, (size_t)s.count * r->item);
  for (int64_t i = first; i < first + s.count; i++)
    memcpy(place(r, r->z, i, i), one(r->dtype), r->item);
  solve_side(&s);
  return s;
}

/* Columns of A^-1: those of U^-T first, in the place of `out`. */
static void general_columns(const inverse_run *r, int64_t chunk, char *work) {
  const int64_t first = chunk * CHUNK;
  side s = inverse_columns(r, chunk, work);
  for (int64_t i = 0; i < first; i++)
    memset(place(r, r->z, i, first), 0, (size_t)s.count * r->item);
  s.a = r->l, s.x = place(r, r->z, 0, first), s.n = r->n;
  s.upper = s.unit = true;
  solve_side(&s);
  exchange(&s, r->pivots, true);
}

/* A square of the lower triangle of Z^T Z, by rows of them, and what mirrors it. */
static void inverse_square(const inverse_run *r, int64_t t) {
  int64_t row = 0, column = t;
  while (column > row) column -= ++row;
  const int64_t i = row * CHUNK, j = column * CHUNK, n = r->n;
  const nyx_product p = {.m = least(CHUNK, n - i),
                         .n = least(CHUNK, n - j),
                         .k = n - i,
                         .a = place(r, r->z, i, i),
                         .a_rs = 1,
                         .a_cs = n,
                         .b = place(r, r->z, i, j),
                         .b_rs = n,
                         .b_cs = 1,
                         .c = place(r, r->out, i, j),
                         .ldc = n};
  nyx__gemm_here(r->dtype, &p);
  mirror(r, i, p.m, j, p.n);
}

static void inverse_columns_range(void *arg, int64_t begin, int64_t end) {
  inverse_run *r = arg;
  char *work = nyx_memory_alloc((size_t)SIDE_ROOM * r->item);
  if (!work) atomic_store(&r->no_memory, true);
  for (int64_t c = begin; work && c < end; c++) {
    if (r->pivots)
      general_columns(r, c, work);
    else
      inverse_columns(r, c, work);
  }
  nyx_memory_free(work);
}

static void inverse_squares_range(void *arg, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++) inverse_square(arg, t);
}

/* Whole matrices, one after the other. */
static void inverse_range(void *arg, int64_t begin, int64_t end) {
  inverse_run *r = arg, own = *r;
  const int64_t chunks = parts(r->n, CHUNK);
  const size_t bytes = (size_t)(r->n * r->n) * r->item;
  char *room = nyx_memory_alloc(bytes + (size_t)SIDE_ROOM * r->item);
  if (!room) atomic_store(&r->no_memory, true);
  for (int64_t e = begin; room && e < end; e++) {
    own.l = r->l + (size_t)e * bytes;
    own.out = r->out + (size_t)e * bytes;
    own.z = room;
    for (int64_t c = 0; c < chunks; c++) inverse_columns(&own, c, room + bytes);
    for (int64_t t = 0; t < chunks * (chunks + 1) / 2; t++) inverse_square(&own, t);
  }
  nyx_memory_free(room);
}

static nyx_status inverse_blocked(nyx_context *ctx, inverse_run *r, int64_t count) {
  const int64_t chunks = parts(r->n, CHUNK);
  const size_t bytes = (size_t)(r->n * r->n) * r->item;
  nyx_status status = NYX_OK;
  if (!(r->z = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  for (int64_t e = 0; status == NYX_OK && !r->no_memory && e < count; e++) {
    status = nyx__parallel_for(ctx, chunks, 1, inverse_columns_range, r);
    if (status == NYX_OK && !r->no_memory)
      status =
          nyx__parallel_for(ctx, chunks * (chunks + 1) / 2, 1, inverse_squares_range, r);
    r->l += bytes, r->out += bytes;
  }
  nyx_memory_free(r->z);
  return status;
}

/* Small ones: solutions of L L^T Y = I. */
static void identity_range(void *arg, int64_t begin, int64_t end) {
  const inverse_run *r = arg;
  const size_t bytes = (size_t)(r->n * r->n) * r->item;
  memset(r->out + (size_t)begin * bytes, 0, (size_t)(end - begin) * bytes);
  for (int64_t i = begin * r->n; i < end * r->n; i++)
    memcpy(r->out + (size_t)(i * r->n + i % r->n) * r->item, one(r->dtype), r->item);
}

static void mirror_range(void *arg, int64_t begin, int64_t end) {
  inverse_run own = *(const inverse_run *)arg;
  for (int64_t e = begin; e < end; e++) {
    own.out = ((const inverse_run *)arg)->out + (size_t)(e * own.n * own.n) * own.item;
    mirror(&own, 0, own.n, 0, own.n);
  }
}

static nyx_status inverse_in_lanes(nyx_context *ctx, inverse_run *r, nyx__small *s) {
  const int64_t some = RANGE / 16 / (s->n * s->n) + 1;
  NYX_TRY(nyx__parallel_for(ctx, s->count, some, identity_range, r));
  NYX_TRY(nyx__small_run(ctx, s));
  s->turned = s->upper = true;
  NYX_TRY(nyx__small_run(ctx, s));
  return nyx__parallel_for(ctx, s->count, some, mirror_range, r);
}

/* A^-T, in its place; `arg` is of matrices that fit lanes. */
static void turn_range(void *arg, int64_t begin, int64_t end) {
  const inverse_run *r = arg;
  const nyx_transpose_fn turn = nyx__cpu_kernels()->move->transpose[r->item == 8 ? 3 : 2];
  const size_t bytes = (size_t)(r->n * r->n) * r->item;
  _Alignas(64) char turned[NYX_MATRICES_ROWS * NYX_MATRICES_ROWS * sizeof(double)];
  for (int64_t e = begin; e < end; e++) {
    char *x = r->out + (size_t)e * bytes;
    turn(r->n, r->n, x, r->n, turned, r->n);
    memcpy(x, turned, bytes);
  }
}

/* Solutions for the identity by factors of A^T. */
static nyx_status general_in_lanes(nyx_context *ctx, inverse_run *r, nyx__small *s) {
  const int64_t some = RANGE / 16 / (s->n * s->n) + 1;
  s->turned = s->upper = s->left = true;
  NYX_TRY(nyx__parallel_for(ctx, s->count, some, identity_range, r));
  NYX_TRY(nyx__small_run(ctx, s));
  return nyx__parallel_for(ctx, s->count, some, turn_range, r);
}

/* Whole matrices. */
static void general_range(void *arg, int64_t begin, int64_t end) {
  inverse_run *r = arg, own = *r;
  const size_t bytes = (size_t)(r->n * r->n) * r->item;
  char *work = nyx_memory_alloc((size_t)SIDE_ROOM * r->item);
  if (!work) atomic_store(&r->no_memory, true);
  for (int64_t e = begin; work && e < end; e++) {
    if (r->info[e]) continue;
    own.l = r->l + (size_t)e * bytes;
    own.z = own.out = r->out + (size_t)e * bytes;
    own.pivots = r->pivots + e * r->n;
    for (int64_t c = 0; c < parts(r->n, CHUNK); c++) general_columns(&own, c, work);
  }
  nyx_memory_free(work);
}

/* One after the other, their columns shared. */
static nyx_status general_blocked(nyx_context *ctx, inverse_run *r, int64_t count) {
  const size_t bytes = (size_t)(r->n * r->n) * r->item;
  for (int64_t e = 0; !r->no_memory && e < count; e++) {
    r->z = r->out;
    if (!r->info[e])
      NYX_TRY(nyx__parallel_for(ctx, parts(r->n, CHUNK), 1, inverse_columns_range, r));
    r->l += bytes, r->out += bytes, r->pivots += r->n;
  }
  return NYX_OK;
}

nyx_status nyx__inverse(nyx_context *ctx, nyx_dtype dtype, int64_t count, int64_t n,
                        void *a, int *pivots, int *info, void *out) {
  inverse_run r = {.dtype = dtype,
                   .item = nyx_dtype_size(dtype),
                   .n = n,
                   .l = a,
                   .out = out,
                   .pivots = pivots,
                   .info = info};
  NYX_TRY(nyx__lapack(ctx, dtype, &r.lapack));
  NYX_TRY(nyx__lu(ctx, dtype, count, n, n, a, pivots, info));
  if (nyx__in_lanes(count, n, n, n)) {
    nyx__small small = {.dtype = dtype,
                        .count = count,
                        .m = n,
                        .n = n,
                        .k = n,
                        .a = a,
                        .pivots = pivots,
                        .x = out};
    return general_in_lanes(ctx, &r, &small);
  }
  const double work = (double)n * (double)n * (double)n * 2 / 3;
  if (count < ENOUGH && n >= BLOCKED)
    NYX_TRY(general_blocked(ctx, &r, count));
  else
    NYX_TRY(nyx__parallel_for(ctx, count, grain(work), general_range, &r));
  return r.no_memory ? nyx__no_memory(ctx, (size_t)SIDE_ROOM * r.item) : NYX_OK;
}

nyx_status nyx__cholesky_inverse(nyx_context *ctx, nyx_dtype dtype, int64_t count,
                                 int64_t n, const void *l, void *out) {
  inverse_run r = {
      .dtype = dtype, .item = nyx_dtype_size(dtype), .n = n, .l = l, .out = out};
  NYX_TRY(nyx__lapack(ctx, dtype, &r.lapack));
  if (nyx__in_lanes(count, n, n, n)) {
    nyx__small small = {.dtype = dtype,
                        .count = count,
                        .m = n,
                        .n = n,
                        .k = n,
                        .a = (void *)l,
                        .left = true,
                        .x = out};
    return inverse_in_lanes(ctx, &r, &small);
  }
  const double work = (double)n * (double)n * (double)n / 3;
  if (count < ENOUGH && n >= BLOCKED)
    NYX_TRY(inverse_blocked(ctx, &r, count));
  else
    NYX_TRY(nyx__parallel_for(ctx, count, grain(work), inverse_range, &r));
  return r.no_memory ? nyx__no_memory(ctx, (size_t)(n * n) * r.item) : NYX_OK;
}
