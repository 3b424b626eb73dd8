/* QR by Householder reflections: LAPACK's routines over batches, and a blocked form for
 * large matrices. Read next: factor.h. */
#include <nyx/parallel.h>
#include <string.h>

#include "factor_run.h"

/* Reflections that are made and applied together, and columns that they are applied to at
 * a time. */
#define PANEL 64
#define COLUMNS 128

/* QR */

typedef struct qr_run {
  const nyx__qr_job *job;
  const nyx_lapack *lapack;
  size_t item;
  int lwork;
  atomic_bool no_memory;
} qr_run;

/* The workspace that LAPACK would like for all matrices, in elements. */
static int qr_workspace(const qr_run *r) {
  const nyx__qr_job *j = r->job;
  const int m = (int)j->m, n = (int)j->n, k = (int)least(m, n), q = (int)j->q_cols;
  const int lda = m > 1 ? m : 1, ask = -1;
  double a = 0, tau = 0, best[2] = {0, 0};
  int info;
  r->lapack->geqrf(&m, &n, &a, &lda, &tau, &best[0], &ask, &info);
  double most = number(j->dtype, &best[0]);
  if (j->q) {
    r->lapack->orgqr(&m, &q, &k, &a, &lda, &tau, &best[1], &ask, &info);
  } else if (j->b) {
    const int sides = (int)j->b_cols;
    r->lapack->ormqr("L", "T", &m, &sides, &k, &a, &lda, &tau, &a, &lda, &best[1], &ask,
                     &info, 1, 1);
  }
  if (number(j->dtype, &best[1]) > most) most = number(j->dtype, &best[1]);
  const int more = (int)(j->q ? q : j->b_cols), least_work = n > more ? n : more;
  return most > least_work ? (int)most : least_work > 1 ? least_work : 1;
}

/* The upper triangle of A, once factored, to R where that lies elsewhere. */
static void take_r(const qr_run *r, const char *a, char *to) {
  const nyx__qr_job *j = r->job;
  for (int64_t c = 0; c < j->n; c++) {
    char *column = to + (size_t)(c * j->r_rows) * r->item;
    const int64_t rows = least(c + 1, j->r_rows);
    const char *from = a + (size_t)(c * j->m) * r->item;
    if (column != from) memcpy(column, from, (size_t)least(rows, j->m) * r->item);
    memset(column + (size_t)rows * r->item, 0, (size_t)(j->r_rows - rows) * r->item);
  }
}

static void qr_one(const qr_run *r, int64_t entry, char *tau) {
  const nyx__qr_job *j = r->job;
  const int m = (int)j->m, n = (int)j->n, k = (int)least(m, n), columns = (int)j->q_cols;
  char *work = tau + (size_t)k * sizeof(double);
  char *a = (char *)j->a + (size_t)(entry * j->a_step) * r->item;
  char *q = (char *)j->q + (size_t)(entry * j->m * j->q_cols) * r->item;
  char *upper = (char *)j->r + (size_t)(entry * j->r_rows * j->n) * r->item;
  int info;
  r->lapack->geqrf(&m, &n, a, &m, tau, work, &r->lwork, &info);
  if (j->q && q != a) memcpy(q, a, (size_t)(j->m * least(n, columns)) * r->item);
  take_r(r, a, upper);
  if (j->q) r->lapack->orgqr(&m, &columns, &k, q, &m, tau, work, &r->lwork, &info);
  if (j->b) {
    const int sides = (int)j->b_cols;
    char *b = (char *)j->b + (size_t)(entry * j->m * j->b_cols) * r->item;
    r->lapack->ormqr("L", "T", &m, &sides, &k, a, &m, tau, b, &m, work, &r->lwork, &info,
                     1, 1);
  }
}

static void qr_range(void *arg, int64_t begin, int64_t end) {
  qr_run *r = arg;
  const size_t bytes = (size_t)(least(r->job->m, r->job->n) + r->lwork) * sizeof(double);
  char *tau = nyx_memory_alloc(bytes);
  if (!tau) atomic_store(&r->no_memory, true);
  for (int64_t e = begin; tau && e < end; e++) qr_one(r, e, tau);
  nyx_memory_free(tau);
}

/* One matrix, by panels whose reflections are applied as I - V T V^T (Schreiber, Van
 * Loan: "A storage-efficient WY representation for products of Householder
 * transformations", 1989). */
typedef struct qr_blocked {
  nyx_context *ctx;
  const nyx_lapack *lapack;
  nyx_dtype dtype;
  size_t item;
  int64_t m, n, k, columns, sides; /* k: reflections; columns of Q, of b */
  char *a, *q, *b;
  const char *v; /* A as it was left by the factorization */
  int64_t j;     /* the panel that is applied */
  char *tau, *t; /* k; a triangle of PANEL x PANEL for each panel */
  atomic_bool no_memory;
} qr_blocked;

static char *at(const qr_blocked *r, const char *a, int64_t i, int64_t j) {
  return (char *)a + (size_t)(j * r->m + i) * r->item;
}

static char *triangle(const qr_blocked *r, int64_t j) {
  return r->t + (size_t)(j * PANEL) * r->item;
}

/* Factors the panel at j. */
static void make_panel(qr_blocked *r, int64_t j, char *work) {
  const int m = (int)r->m, rows = (int)(r->m - j), width = (int)least(PANEL, r->k - j);
  const int lwork = PANEL * COLUMNS, ldt = PANEL;
  char *panel = at(r, r->a, j, j), *tau = r->tau + (size_t)j * r->item;
  int info;
  r->lapack->geqrf(&rows, &width, panel, &m, tau, work, &lwork, &info);
  r->lapack->larft("F", "C", &rows, &width, panel, &m, tau, triangle(r, j), &ldt, 1, 1);
}

/* Applies the reflections of the panel at j, whose V is in `v`, to columns of c. */
static void reflect(const qr_blocked *r, const char *trans, int64_t j, char *c,
                    int64_t first, int64_t count, char *work) {
  const int m = (int)r->m, rows = (int)(r->m - j), width = (int)least(PANEL, r->k - j);
  const int columns = (int)count, ldt = PANEL;
  r->lapack->larfb("L", trans, "F", "C", &rows, &columns, &width, at(r, r->v, j, j), &m,
                   triangle(r, j), &ldt, at(r, c, j, first), &m, work, &columns, 1, 1, 1,
                   1);
}

static char *room(qr_blocked *r) {
  char *work = nyx_memory_alloc((size_t)(PANEL * COLUMNS) * r->item);
  if (!work) atomic_store(&r->no_memory, true);
  return work;
}

/* Columns behind the panel; the first of them are the next one, factored at once: one
 * thread does that while the others go on. */
static void behind_range(void *arg, int64_t begin, int64_t end) {
  qr_blocked *r = arg;
  char *work = room(r);
  const int64_t next = r->j + least(PANEL, r->k - r->j);
  for (int64_t p = begin; work && p < end; p++) {
    const int64_t first = next + (p ? PANEL + (p - 1) * COLUMNS : 0);
    reflect(r, "T", r->j, r->a, first, least(p ? COLUMNS : PANEL, r->n - first), work);
    if (p == 0 && next < r->k) make_panel(r, next, work);
  }
  nyx_memory_free(work);
}

/* Columns of Q: those of the identity, to which the reflections are applied from the last
 * on that reaches them. */
static void q_range(void *arg, int64_t begin, int64_t end) {
  qr_blocked *r = arg;
  char *work = room(r);
  for (int64_t p = begin; work && p < end; p++) {
    const int64_t first = p * COLUMNS, count = least(COLUMNS, r->columns - first);
    memset(at(r, r->q, 0, first), 0, (size_t)(count * r->m) * r->item);
    for (int64_t c = first; c < first + count; c++) {
      if (r->dtype == NYX_FLOAT64)
        *(double *)(void *)at(r, r->q, c, c) = 1;
      else
        *(float *)(void *)at(r, r->q, c, c) = 1;
    }
    const int64_t last = least(first + count, r->k) - 1;
    for (int64_t j = last / PANEL * PANEL; j >= 0; j -= PANEL)
      reflect(r, "N", j, r->q, first, count, work);
  }
  nyx_memory_free(work);
}

/* Columns of b, to which the reflections are applied from the first on. */
static void b_range(void *arg, int64_t begin, int64_t end) {
  qr_blocked *r = arg;
  char *work = room(r);
  for (int64_t p = begin; work && p < end; p++)
    for (int64_t j = 0; j < r->k; j += PANEL)
      reflect(r, "T", j, r->b, p * COLUMNS, least(COLUMNS, r->sides - p * COLUMNS), work);
  nyx_memory_free(work);
}

static nyx_status factor_panels(qr_blocked *r) {
  char *work = room(r);
  if (work) make_panel(r, 0, work);
  nyx_memory_free(work);
  r->v = r->a;
  for (r->j = 0; r->j < r->k; r->j += PANEL) {
    const int64_t rest = r->n - r->j - least(PANEL, r->k - r->j);
    if (rest <= 0) break;
    const int64_t pieces = 1 + (rest > PANEL ? parts(rest - PANEL, COLUMNS) : 0);
    NYX_TRY(nyx__parallel_for(r->ctx, pieces, 1, behind_range, r));
  }
  return NYX_OK;
}

/* `copy`: room for the first k columns of A, whose place Q takes; NULL where A is R. */
static nyx_status qr_large(qr_blocked *r, const qr_run *run, char *copy, char *upper) {
  NYX_TRY(factor_panels(r));
  if (copy) memcpy(copy, r->a, (size_t)(r->m * r->k) * r->item);
  if (upper != r->a) take_r(run, r->a, upper);
  r->v = copy ? copy : r->a;
  if (r->q) NYX_TRY(nyx__parallel_for(r->ctx, parts(r->columns, COLUMNS), 1, q_range, r));
  if (r->b) NYX_TRY(nyx__parallel_for(r->ctx, parts(r->sides, COLUMNS), 1, b_range, r));
  if (upper == r->a) take_r(run, r->a, upper);
  return NYX_OK;
}

static nyx_status each_large(nyx_context *ctx, const qr_run *run) {
  const nyx__qr_job *job = run->job;
  qr_blocked r = {.ctx = ctx,
                  .lapack = run->lapack,
                  .dtype = job->dtype,
                  .item = run->item,
                  .m = job->m,
                  .n = job->n,
                  .k = least(job->m, job->n),
                  .columns = job->q_cols,
                  .sides = job->b_cols};
  const int64_t copied = job->q && job->a != job->r ? r.m * r.k : 0;
  const size_t bytes =
      (size_t)(r.k + parts(r.k, PANEL) * PANEL * PANEL + copied) * r.item;
  if (!(r.tau = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  r.t = r.tau + (size_t)r.k * r.item;
  char *copy = r.t + (size_t)(parts(r.k, PANEL) * PANEL * PANEL) * r.item;
  nyx_status status = NYX_OK;
  for (int64_t e = 0; status == NYX_OK && !r.no_memory && e < job->count; e++) {
    r.a = (char *)job->a + (size_t)(e * job->a_step) * r.item;
    if (job->q) r.q = (char *)job->q + (size_t)(e * r.m * r.columns) * r.item;
    if (job->b) r.b = (char *)job->b + (size_t)(e * r.m * r.sides) * r.item;
    status = qr_large(&r, run, copied ? copy : NULL,
                      (char *)job->r + (size_t)(e * job->r_rows * r.n) * r.item);
  }
  nyx_memory_free(r.tau);
  if (status == NYX_OK && r.no_memory)
    return nyx__no_memory(ctx, (size_t)(PANEL * COLUMNS) * r.item);
  return status;
}

nyx_status nyx__qr(nyx_context *ctx, const nyx__qr_job *job) {
  qr_run r = {.job = job, .item = nyx_dtype_size(job->dtype)};
  NYX_TRY(nyx__lapack(ctx, job->dtype, &r.lapack));
  if (job->m == 0 || job->count == 0) return NYX_OK;
  if (job->count < ENOUGH && least(job->m, job->n) >= BLOCKED) return each_large(ctx, &r);
  r.lwork = qr_workspace(&r);
  const double work = 2 * (double)job->m * (double)job->n * (double)job->n;
  NYX_TRY(nyx__parallel_for(ctx, job->count, grain(work), qr_range, &r));
  return r.no_memory ? nyx__no_memory(ctx, (size_t)r.lwork * r.item) : NYX_OK;
}
