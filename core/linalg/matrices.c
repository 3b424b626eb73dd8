/* Batches of small matrices: as many at a time as a vector has lanes. Read next:
 * factor_run.h, kernels/cpu/matrices.h. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/matrices.h"
#include "factor_run.h"

/* Larger ones wait for groups enough to share. */
bool nyx__in_lanes(int64_t count, int64_t rows, int64_t cols, int64_t k) {
  const int64_t most = rows > cols ? rows : cols;
  return count >= (most <= NYX_MATRICES_ROWS / 2 ? ENOUGH : 4 * ENOUGH) &&
         most <= NYX_MATRICES_ROWS && k <= 2 * NYX_MATRICES_ROWS;
}

typedef struct lanes_run {
  const nyx__small *s;
  nyx_matrices job; /* what all groups have in common */
  void (*kernel)(const nyx_matrices *);
  size_t item;
  int lanes;
  atomic_bool no_memory;
} lanes_run;

/* Rows of x (n, k), exchanged in turn. */
static void exchange(const int *pivots, int64_t n, size_t line, char *x) {
  for (int64_t i = 0; i < n; i++) {
    char *a = x + (size_t)i * line, *b = x + (size_t)(pivots[i] - 1) * line;
    for (size_t at = 0; a != b && at < line; at++) {
      const char c = a[at];
      a[at] = b[at], b[at] = c;
    }
  }
}

static void fill(const lanes_run *r, int64_t first, nyx_matrices *j) {
  const nyx__small *s = r->s;
  j->count = (int)least(r->lanes, s->count - first);
  for (int l = 0; l < j->count; l++) {
    const int64_t e = first + l, at = s->at ? s->at[e] : e * s->m * s->n;
    j->a[l] = (char *)s->a + (size_t)at * r->item;
    if (s->info) j->info[l] = s->info + e;
    if (s->pivots) j->pivots[l] = s->pivots + at / s->m / s->n * least(s->m, s->n);
    if (!s->x) continue;
    j->x[l] = (char *)s->x + (size_t)(e * s->n * s->k) * r->item;
    if (s->pivots) exchange(j->pivots[l], s->n, (size_t)s->k * r->item, j->x[l]);
  }
}

static void lanes_range(void *arg, int64_t begin, int64_t end) {
  lanes_run *r = arg;
  const nyx__small *s = r->s;
  nyx_matrices j = r->job;
  const size_t vectors = (size_t)(s->m * s->n + (s->x ? s->n * s->k : 0));
  char *room = nyx_memory_alloc(vectors * (size_t)r->lanes * r->item + 64);
  if (!room) {
    atomic_store(&r->no_memory, true);
    return;
  }
  j.room = room + (64 - (uintptr_t)room % 64) % 64;
  for (int64_t g = begin; g < end; g++) {
    fill(r, g * r->lanes, &j);
    r->kernel(&j);
  }
  nyx_memory_free(room);
}

nyx_status nyx__small_run(nyx_context *ctx, const nyx__small *s) {
  const nyx_matrices_kernels *kernels = nyx__cpu_kernels()->matrices;
  const int type = s->dtype == NYX_FLOAT64;
  lanes_run r = {.s = s, .item = nyx_dtype_size(s->dtype), .lanes = kernels->lanes[type]};
  r.job = (nyx_matrices){.m = s->m,
                         .n = s->n,
                         .k = s->k,
                         .turned = s->turned,
                         .upper = s->upper,
                         .unit = s->unit,
                         .left = s->left,
                         .lu = s->x && s->pivots};
  r.kernel = (s->x ? kernels->solve : s->pivots ? kernels->lu : kernels->cholesky)[type];
  const double most = (double)(s->m > s->n ? s->m : s->n);
  const double work = r.lanes * most * most * (s->x ? (double)s->k / 2 : most / 3);
  NYX_TRY(nyx__parallel_for(ctx, parts(s->count, r.lanes), grain(work), lanes_range, &r));
  return r.no_memory ? nyx__no_memory(ctx, r.item * 64) : NYX_OK;
}
