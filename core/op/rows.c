/* Whole rows added or written at positions, grouped by where they go: each row of the
 * result is made at once, by one thread, and read and written once. What is added to it
 * comes in the order of the positions, so results do not depend on the threads. One
 * thread alone adds rows of a small result as they come.
 * Read next: index.h, position.c. */
#include <nyx/parallel.h>
#include <string.h>

#include "index.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/move.h"

enum {
  ROW_LEAST = 64,       /* bytes of a row: shorter ones are not worth a chain */
  BUFFER_BYTES = 4096,  /* of a row is summed up at a time */
  UNIT_BYTES = 1 << 18, /* work per parallel range, about */
  SOON = 4,             /* rows ahead that are asked for */
  LOOK = 1024           /* rows between looks whether to stop */
};

/* Row r gets the rows head[r], next[head[r]], ... of b, up to a -1. */
typedef struct row_job {
  const nyx__lanes *l;
  int64_t *head, *next;     /* next: NULL where only the last row counts */
  nyx_elementwise_fn plain; /* x + y, where there is no alpha */
  nyx__row_fn add;
  size_t item;
  int64_t width, blocks; /* elements of a row that are done at a time; how often */
  const nyx_move_kernels *stream; /* NULL: the result stays in the caches */
} row_job;

bool nyx__lanes_grouped(const nyx__lanes *l, nyx__lane_mode mode) {
  bool whole = l->at_inner == 0 && l->at_outer == 0 && !l->a.inner && !l->b.inner &&
               !l->a.outer && !l->b.outer;
  size_t bytes = (size_t)l->inner * nyx_dtype_size(l->dtype);
  if (mode == NYX__GATHER || !whole || l->rows == 0 || bytes < ROW_LEAST) return false;
  /* A chain costs some bytes for each row of a, used or not. */
  return l->fill || l->rows / l->count <= (int64_t)(bytes / sizeof(int64_t));
}

static void link_rows(const row_job *j) {
  const nyx__lanes *l = j->l;
  memset(j->head, -1, (size_t)l->rows * sizeof *j->head);
  if (!j->next) {
    for (int64_t k = 0; k < l->count; k++) j->head[l->at[k * l->at_step] - l->base] = k;
    return;
  }
  for (int64_t k = l->count - 1; k >= 0; k--) {
    int64_t *head = &j->head[l->at[k * l->at_step] - l->base];
    j->next[k] = *head;
    *head = k;
  }
}

static void put(const row_job *j, char *to, const char *from, size_t bytes) {
  if (j->stream)
    j->stream->stream((int64_t)bytes, from, to);
  else
    memcpy(to, from, bytes);
}

/* What adds without alpha, on this path; NULL for the types that have no kernels. */
static nyx_elementwise_fn plain_sum(nyx_dtype dtype) {
  const nyx_elementwise_parts *const *rows = nyx__cpu_kernels()->elementwise->rows;
  switch (dtype) {
    case NYX_FLOAT32: return rows[NYX_IN_FLOAT32][NYX_KERNEL_add][0];
    case NYX_FLOAT64: return rows[NYX_IN_FLOAT64][NYX_KERNEL_add][0];
    case NYX_INT32: return rows[NYX_IN_INT32][NYX_KERNEL_add][0];
    case NYX_INT64: return rows[NYX_IN_INT64][NYX_KERNEL_add][0];
    default: return NULL;
  }
}

/* to = x + alpha * row */
static void sum(const row_job *j, char *to, const char *x, const char *row, int64_t n) {
  if (j->plain) {
    j->plain(n, (const void *[]){x, row}, to, (const double[]){0, 0});
    return;
  }
  if (to != x) memcpy(to, x, (size_t)n * j->item);
  j->add(to, row, n, j->l->alpha);
}

/* Elements first..first + n - 1 of row r of outer element o. */
static void do_row(const row_job *j, int64_t o, int64_t r, int64_t first, int64_t n) {
  static const _Alignas(64) char zeros[BUFFER_BYTES];
  _Alignas(64) char buffer[BUFFER_BYTES];
  const nyx__lanes *l = j->l;
  size_t bytes = (size_t)n * j->item;
  size_t at = (size_t)(o * l->a.outer_step + r * l->a.step + first) * j->item;
  const char *b = l->b.data + (size_t)(o * l->b.outer_step + first) * j->item;
  const char *x = !l->fill   ? l->a.data + at
                  : l->start ? (const char *)l->start + at
                             : zeros;
  char *to = l->a.data + at, *made = l->fill ? buffer : to;
  int64_t k = j->head[r], step = l->b.step * (int64_t)j->item;
  if (k < 0) {
    if (l->fill) put(j, to, x, bytes);
  } else if (!j->next) {
    put(j, to, b + k * step, bytes);
  } else {
    for (; k >= 0; x = made, k = j->next[k]) sum(j, made, x, b + k * step, n);
    if (l->fill) put(j, to, buffer, bytes);
  }
}

static void do_rows(void *arg, int64_t begin, int64_t end) {
  const row_job *j = arg;
  const nyx__lanes *l = j->l;
  for (int64_t i = begin; i < end; i++) {
    int64_t block = i / l->rows, first = block % j->blocks * j->width;
    int64_t left = l->inner - first;
    do_row(j, block / j->blocks, i % l->rows, first, left < j->width ? left : j->width);
  }
  if (j->stream) j->stream->drain();
}

/* Whether rows are added as they come: one thread need not share them, and no row waits
 * for another where the result stays in the caches, as the elements of a chain do, which
 * are known one after the other. */
static bool as_they_come(const row_job *j) {
  const nyx__lanes *l = j->l;
  const size_t bytes = (size_t)(l->outer * l->rows * l->inner) * j->item;
  return j->plain && l->fill && bytes < NYX_STREAM_BYTES && nyx_parallel_threads() == 1;
}

/* To the same bits: sums begin with what is there or 0 and go on in the same order. */
static nyx_status add_rows(nyx_context *ctx, const row_job *j) {
  const nyx__lanes *l = j->l;
  const size_t bytes = (size_t)(l->outer * l->rows * l->inner) * j->item;
  const int64_t to_step = l->a.step * (int64_t)j->item;
  const int64_t from_step = l->b.step * (int64_t)j->item;
  const int64_t row = l->inner * (int64_t)j->item, asked = row < 1024 ? row : 1024;
  if (l->start)
    memcpy(l->a.data, l->start, bytes);
  else
    memset(l->a.data, 0, bytes);
  for (int64_t o = 0; o < l->outer; o++) {
    char *a = l->a.data + o * l->a.outer_step * (int64_t)j->item;
    const char *b = l->b.data + o * l->b.outer_step * (int64_t)j->item;
    for (int64_t k = 0; k < l->count; k++, b += from_step) {
      if (k % LOOK == 0 && nyx__interrupted(ctx)) return nyx__error(ctx, INTERRUPTED);
      char *to = a + (l->at[k * l->at_step] - l->base) * to_step;
      if (k + SOON < l->count) {
        const char *next = a + (l->at[(k + SOON) * l->at_step] - l->base) * to_step;
        for (int64_t i = 0; i < asked; i += 64) __builtin_prefetch(next + i, 1);
      }
      j->plain(l->inner, (const void *[]){to, b}, to, (const double[]){0, 0});
    }
  }
  return NYX_OK;
}

nyx_status nyx__lanes_rows(nyx_context *ctx, const nyx__lanes *l, nyx__lane_mode mode) {
  row_job j = {.l = l, .item = nyx_dtype_size(l->dtype)};
  bool sums = mode == NYX__ADD;
  if (sums) {
    j.add = nyx__add_row(l->dtype);
    if (l->alpha == 1) j.plain = plain_sum(l->dtype);
  }
  if (as_they_come(&j)) return add_rows(ctx, &j);
  size_t bytes = (size_t)(l->rows + (sums ? l->count : 0)) * sizeof(int64_t);
  if (!(j.head = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  if (sums) j.next = j.head + l->rows;
  link_rows(&j);
  int64_t most = BUFFER_BYTES / (int64_t)j.item, all = l->outer * l->rows * l->inner;
  j.width = l->inner < most ? l->inner : most;
  j.blocks = (l->inner + j.width - 1) / j.width;
  if (l->fill && (size_t)all * j.item >= NYX_STREAM_BYTES)
    j.stream = nyx__cpu_kernels()->move;
  int64_t grain = UNIT_BYTES / (j.width * (int64_t)j.item);
  nyx_status status =
      nyx__parallel_for(ctx, l->outer * j.blocks * l->rows, grain, do_rows, &j);
  nyx_memory_free(j.head);
  return status;
}
