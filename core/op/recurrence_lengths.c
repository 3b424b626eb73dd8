/* Sequences of different lengths in a recurrent layer. Sorted, the longest first, those
 * that have a step at some position are the first ones, so that every step takes rows
 * that lie together; others are brought into that order and back. Behind its end
 * everything of a sequence is zero. Read next: recurrence.h, recurrence_cpu.c. */
#include <string.h>

#include "index.h"
#include "recurrence.h"

/* ------------------------------------------------------------------ the lengths */

/* Sequence numbers by length, the longest first, equal ones in their order: by counting.
 */
static void sort_lengths(const nyx__recurrence *r, const int64_t *given) {
  int64_t *first = r->live; /* where those of a length begin; then: how many are longer */
  memset(first, 0, (size_t)(r->length + 1) * sizeof *first);
  for (int64_t b = 0; b < r->batch; b++) first[given[b]]++;
  for (int64_t n = r->length, before = 0; n >= 0; n--) {
    int64_t own = first[n];
    first[n] = before;
    before += own;
  }
  for (int64_t b = 0; b < r->batch; b++) r->order[first[given[b]]++] = b;
  for (int64_t i = 0; i < r->batch; i++) r->lengths[i] = given[r->order[i]];
  for (int64_t t = 0, n = r->batch; t < r->length; t++) {
    while (n > 0 && r->lengths[n - 1] <= t) n--;
    r->live[t] = n;
  }
}

nyx_status nyx__recurrence_lengths(nyx__recurrence *r, nyx_tensor *lengths) {
  nyx_tensor *own = NULL;
  if (!lengths) return NYX_OK;
  NYX_TRY(nyx__contiguous_as(r->ctx, lengths, NYX_INT64, &own));
  const int64_t *given = nyx__data(own);
  nyx_status status = NYX_OK;
  for (int64_t b = 0; status == NYX_OK && b < r->batch; b++)
    if (given[b] < 0 || given[b] > r->length)
      status = nyx__error(r->ctx, RECURRENCE_LENGTH, (long long)given[b],
                          (long long)(b + r->ctx->index_base), (long long)r->length);
  size_t bytes = (size_t)(2 * r->batch + r->length + 1) * sizeof *given;
  if (status == NYX_OK) {
    r->lengths = nyx_memory_alloc(bytes);
    if (!r->lengths) status = nyx__no_memory(r->ctx, bytes);
  }
  if (status == NYX_OK) {
    r->order = r->lengths + r->batch;
    r->live = r->order + r->batch;
    sort_lengths(r, given);
    if (memcmp(given, r->lengths, (size_t)r->batch * sizeof *given) == 0) r->order = NULL;
  }
  nyx_tensor_release(own);
  return status;
}

/* Zeros in rows `live`.. of every step of an array. */
static void clear(const nyx__recurrence *r, char *array, int64_t width) {
  int64_t row = width * (int64_t)nyx_dtype_size(r->dtype);
  for (int64_t t = 0; array && t < r->length; t++)
    memset(array + (t * r->batch + r->live[t]) * row, 0,
           (size_t)((r->batch - r->live[t]) * row));
}

/* The steps of sequences that lie in the order of falling lengths, or have all. */
static nyx_status run_falling(nyx__recurrence *r, bool backward) {
  const nyx__cell *cell = &nyx__cells[r->cell];
  if (r->live && backward) {
    clear(r, r->dgates, cell->gates * r->hidden);
    clear(r, r->dhidden, cell->gates * r->hidden);
    clear(r, r->dstates, r->state);
  } else if (r->live) {
    clear(r, r->y, r->state);
    clear(r, r->gates, cell->saved * r->hidden);
    clear(r, r->cells, r->hidden);
  }
  return nyx__recurrence_steps(r, backward);
}

/* ------------------------------------------------------------------ other orders */

/* A sequence's rows of an array: (steps, batch, width). */
typedef struct array {
  char **at;
  int64_t steps, width;
  bool made;   /* a result */
  char *other; /* where it lies in the caller's order */
} array;

static void move(const nyx__recurrence *r, const array *a, bool back) {
  int64_t row = a->width * (int64_t)nyx_dtype_size(r->dtype), all = r->batch * row;
  for (int64_t t = 0; t < a->steps; t++)
    for (int64_t i = 0; i < r->batch; i++) {
      char *sorted = *a->at + t * all + i * row;
      char *given = a->other + t * all + r->order[i] * row;
      memcpy(back ? given : sorted, back ? sorted : given, (size_t)row);
    }
}

/* Everything in the order of falling lengths, and the results back. */
static nyx_status run_sorted(nyx__recurrence *r, bool backward) {
  const int64_t n = r->length, h = r->hidden, gates = nyx__cells[r->cell].gates * h;
  bool forward = !backward;
  array list[] = {{&r->x, n, r->input, false, NULL},
                  {&r->h0, 1, r->state, false, NULL},
                  {&r->c0, 1, h, false, NULL},
                  {&r->y, n, r->state, forward, NULL},
                  {&r->gates, n, nyx__cells[r->cell].saved * h, forward, NULL},
                  {&r->cells, n, h, forward, NULL},
                  {&r->grad, n, r->state, false, NULL},
                  {&r->grad_cells, n, h, false, NULL},
                  {&r->dgates, n, gates, true, NULL},
                  {&r->dhidden, n, gates, true, NULL},
                  {&r->dstates, n, r->state, true, NULL},
                  {&r->dh0, 1, r->state, true, NULL},
                  {&r->dc0, 1, h, true, NULL}};
  const size_t count = sizeof list / sizeof *list;
  int64_t row = r->batch * (int64_t)nyx_dtype_size(r->dtype), bytes = 0;
  for (size_t i = 0; i < count; i++)
    if (*list[i].at) bytes += list[i].steps * list[i].width * row;
  char *memory = nyx_memory_alloc((size_t)bytes + 1), *next = memory;
  if (!memory) return nyx__no_memory(r->ctx, (size_t)bytes);
  for (size_t i = 0; i < count; i++) {
    list[i].other = *list[i].at;
    if (!list[i].other) continue;
    *list[i].at = next;
    next += list[i].steps * list[i].width * row;
    if (!list[i].made) move(r, &list[i], false);
  }
  nyx_status status = run_falling(r, backward);
  for (size_t i = 0; i < count; i++) {
    if (status == NYX_OK && list[i].other && list[i].made) move(r, &list[i], true);
    *list[i].at = list[i].other;
  }
  nyx_memory_free(memory);
  return status;
}

nyx_status nyx__recurrence_run(nyx__recurrence *r, bool backward) {
  return r->order ? run_sorted(r, backward) : run_falling(r, backward);
}
