/* The base path beside plain C: the same work as a loop that a compiler gets as it is
 * written, without instruction sets of a later CPU, and as Nyx's op with NYX_CPU=base, in
 * one thread, by turns. Prints milliseconds, the best of some turns, and their ratio;
 * nothing passes or fails. Build and run, in the tree after a release build:
 *
 *   cmake --build --preset release --target base_bench
 *   NYX_TUNE=0 build/release/spec/base_bench [BEGINNING OF A NAME ...]
 *
 * Rows are computed on a million elements, 1000 x 1000 where there are axes, from arrays
 * that exist into arrays that exist, but into new ones where it says "fresh"; ops with
 * several results, and those made of others, make theirs anew. Loops that call libm call
 * the C library's, which may choose instructions of the CPU itself. Read next:
 * base_loops.h (elements, axes, positions), base_rows.h, base_moves.h, base_layers.h. */
#include <math.h>
#include <nyx/nyx.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SIDE 1000
#define N (SIDE * SIDE)
#define TURNS 9

static nyx_context *ctx;
static nyx_tensor *in[6], *out; /* what the case at hand reads and writes */
static int n_in;
static const nyx_op *op;
static nyx_value attr[NYX_MAX_ATTRS];
static const void *p[6]; /* of `in` */
static void *result;     /* of a size that any loop may write */

static void check(nyx_status status) {
  if (status == NYX_OK) return;
  fprintf(stderr, "base_bench: %s\n", nyx_context_error(ctx));
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t state = 1;
static double random_between(double low, double high) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return low + (high - low) * (double)(state >> 11) * 0x1p-53;
}

static nyx_tensor *tensor(nyx_dtype dtype, int ndim, const int64_t *shape, double low,
                          double high) {
  nyx_tensor *t = NULL;
  check(nyx_tensor_empty(ctx, dtype, ndim, shape, &t));
  void *data = nyx_tensor_data(t);
  for (int64_t i = 0; i < nyx_tensor_numel(t); i++) {
    double v = random_between(low, high);
    switch (dtype) {
      case NYX_FLOAT32: ((float *)data)[i] = (float)v; break;
      case NYX_FLOAT64: ((double *)data)[i] = v; break;
      case NYX_INT32: ((int32_t *)data)[i] = (int32_t)v; break;
      case NYX_INT64: ((int64_t *)data)[i] = (int64_t)v; break;
      case NYX_INT8: ((int8_t *)data)[i] = (int8_t)(100 * v); break;
      case NYX_FLOAT16:
      case NYX_BFLOAT16: /* a little more than 1 */
        ((uint16_t *)data)[i] = (uint16_t)((dtype == NYX_FLOAT16 ? 0x3c00 : 0x3f80) + v);
        break;
      default: ((uint8_t *)data)[i] = (uint8_t)v;
    }
  }
  return t;
}

/* An attribute of the op at hand, where it has one of that name. */
static void set(const char *name, nyx_value value) {
  for (int i = 0; i < op->n_attrs; i++)
    if (strcmp(op->attrs[i].name, name) == 0) attr[i] = value;
}

/* The loops, and a table of each kind. */
#include "base_loops.h"

#include "base_layers.h"
#include "base_moves.h"
#include "base_rows.h"

static const struct {
  const loop *loops;
  size_t count;
} tables[] = {
#define TABLE_OF(loops)                                                                  \
  { loops, sizeof loops / sizeof *loops }
    TABLE_OF(loops), TABLE_OF(row_loops), TABLE_OF(move_loops), TABLE_OF(layer_loops)};

/* What one call makes is written again by the next; what updates its first input does so
 * in place. */
static void by_nyx(bool fresh) {
  if (op->updates && !out) out = nyx_tensor_retain(in[0]);
  nyx_tensor *made[NYX_MAX_OUTPUTS] = {op->n_out == 1 ? out : NULL};
  check(nyx_apply(ctx, op, in, n_in, attr, made));
  bool again = !fresh && op->n_out == 1 && op->kind != NYX_OP_COMPOSITE && !op->by_value;
  if (again && !out)
    out = made[0];
  else if (!out)
    for (int i = 0; i < op->n_out; i++) nyx_tensor_release(made[i]);
}

static void measure(const loop *l) {
  double best[2] = {INFINITY, INFINITY};
  for (int turn = 0; turn <= TURNS; turn++)
    for (int side = 0; side < 2; side++) {
      double start = now();
      side ? l->run() : by_nyx(l->fresh);
      __asm__ volatile("" ::: "memory");
      double seconds = now() - start;
      if (turn > 0 && seconds < best[side]) best[side] = seconds;
    }
  double ratio = best[0] / best[1];
  printf("%-28s %9.3f %9.3f %6.2f%s\n", l->name, best[0] * 1e3, best[1] * 1e3, ratio,
         ratio > 1.05 ? "  *" : "");
  fflush(stdout);
}

static bool wanted(const char *name, int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    if (strncmp(name, argv[i], strlen(argv[i])) == 0) return true;
  return argc < 2;
}

static void run_case(const loop *l) {
  op = nyx_op_find(l->op);
  if (!op) {
    fprintf(stderr, "base_bench: %s: there is no op %s\n", l->name, l->op);
    exit(1);
  }
  for (int a = 0; a < NYX_MAX_ATTRS; a++) attr[a] = NYX_NONE;
  n_in = 0;
  l->make(l);
  for (int k = 0; k < n_in; k++) p[k] = nyx_tensor_data(in[k]);
  measure(l);
  for (int k = 0; k < n_in; k++) nyx_tensor_release(in[k]);
  nyx_tensor_release(out);
  out = NULL;
}

int main(int argc, char **argv) {
  setenv("NYX_CPU", "base", 0);
  if (nyx_context_new(&ctx) != NYX_OK || nyx_parallel_set_threads(1) != NYX_OK) return 1;
  nyx_context_set_grad_enabled(ctx, false);
  result = malloc((size_t)N * 8 + 64);
  if (!result) return 1;
  printf("%-28s %9s %9s %6s\n", "", "Nyx, ms", "C, ms", "ratio");
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
    for (size_t i = 0; i < tables[t].count; i++)
      if (wanted(tables[t].loops[i].name, argc, argv)) run_case(&tables[t].loops[i]);
  free(result);
  nyx_context_free(ctx);
  return 0;
}
