/* batch_norm in training, of channels-last images: all channels of a place at once.
 * Places are divided into blocks that stay in the cache, whose sums are added up in
 * double, in their order: results do not depend on the number of threads. Read next:
 * kernels/cpu/last.h, batch_norm.c. */
#include <math.h>
#include <nyx/parallel.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/last.h"
#include "norm.h"

#define BLOCK_BYTES 131072 /* of a block of places */
#define MOST_ROWS 128      /* its sums are in the type itself */
#define LEAST_ROWS 16
#define RANGE_WORK 16384 /* elements worth waking a thread for */

typedef struct last_run {
  const nyx__batch_norm_last *b;
  const nyx_last_kernel *last;
  int64_t item, block, blocks;
  char *partial; /* two sums for each block and channel */
  char *factor;  /* four values of each channel: mean, and what is multiplied */
} last_run;

static char *sums_at(const last_run *r, int64_t block, int which) {
  return r->partial + (2 * block + which) * r->b->channels * r->item;
}

static char *factors(const last_run *r, int which) {
  return r->factor + which * r->b->channels * r->item;
}

static double get(const last_run *r, const char *array, int64_t c) {
  return nyx__load_double(r->b->dtype, array + c * r->item);
}

static void set(const last_run *r, char *array, int64_t c, double value) {
  nyx__store_double(r->b->dtype, array + c * r->item, value);
}

static size_t block_at(const last_run *r, int64_t i, int64_t *rows) {
  int64_t first = i * r->block, left = r->b->rows - first;
  *rows = left < r->block ? left : r->block;
  return (size_t)(first * r->b->channels * r->item);
}

static nyx_status start(last_run *r, const nyx__batch_norm_last *b) {
  *r = (last_run){.b = b,
                  .last = &nyx__cpu_kernels()->last->type[b->dtype == NYX_FLOAT64],
                  .item = (int64_t)nyx_dtype_size(b->dtype)};
  int64_t row = b->channels * r->item;
  r->block = BLOCK_BYTES / (row + 1);
  if (r->block > MOST_ROWS) r->block = MOST_ROWS;
  if (r->block < LEAST_ROWS) r->block = LEAST_ROWS;
  r->blocks = (b->rows + r->block - 1) / r->block;
  size_t bytes = (size_t)((2 * r->blocks + 4) * row);
  if (!(r->partial = nyx_memory_alloc(bytes))) return nyx__no_memory(b->ctx, bytes);
  r->factor = r->partial + 2 * r->blocks * row;
  return NYX_OK;
}

static void run(last_run *r, nyx_range_fn blocks, nyx_range_fn channels,
                nyx_range_fn result) {
  int64_t grain = RANGE_WORK / (r->block * r->b->channels + 1) + 1;
  nyx_parallel_for(r->blocks, grain, blocks, r);
  nyx_parallel_for(r->b->channels, RANGE_WORK / (8 * r->blocks + 1) + 1, channels, r);
  nyx_parallel_for(r->blocks, grain, result, r);
}

static void moments(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(r, i, &rows);
    r->last->moments(r->b->x + at, rows, r->b->channels, sums_at(r, i, 0),
                     sums_at(r, i, 1));
  }
}

static void forward_channels(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  const nyx__batch_norm_last *b = r->b;
  for (int64_t c = begin; c < end; c++) {
    /* Chan, Golub, LeVeque: "Algorithms for computing the sample variance", 1983 */
    double mean = 0, squares = 0, count = 0;
    for (int64_t i = 0; i < r->blocks; i++) {
      int64_t rows;
      block_at(r, i, &rows);
      double size = (double)rows, delta = get(r, sums_at(r, i, 0), c) - mean;
      squares +=
          get(r, sums_at(r, i, 1), c) + delta * delta * size * count / (count + size);
      count += size;
      mean += delta * size / count;
    }
    double rstd = 1 / sqrt(squares / (double)b->rows + b->eps);
    b->variance[c] = squares;
    set(r, b->mean, c, mean);
    set(r, b->rstd, c, rstd);
    set(r, factors(r, 0), c, mean);
    set(r, factors(r, 1), c, b->weight ? rstd * get(r, b->weight, c) : rstd);
    set(r, factors(r, 2), c, b->bias ? get(r, b->bias, c) : 0);
  }
}

static void normalize(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(r, i, &rows);
    r->last->normalize(r->b->x + at, rows, r->b->channels, factors(r, 0), factors(r, 1),
                       factors(r, 2), r->b->y + at);
  }
}

nyx_status nyx__batch_norm_last_forward(const nyx__batch_norm_last *b) {
  last_run r;
  NYX_TRY(start(&r, b));
  run(&r, moments, forward_channels, normalize);
  nyx_memory_free(r.partial);
  return NYX_OK;
}

static void sums(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(r, i, &rows);
    r->last->sums(r->b->g + at, r->b->x + at, r->b->mean_in, rows, r->b->channels,
                  sums_at(r, i, 0), sums_at(r, i, 1));
  }
}

static void backward_channels(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  const nyx__batch_norm_last *b = r->b;
  double count = (double)b->rows;
  for (int64_t c = begin; c < end; c++) {
    double sum = 0, dot = 0, rstd = get(r, b->rstd_in, c);
    for (int64_t i = 0; i < r->blocks; i++) {
      sum += get(r, sums_at(r, i, 0), c);
      dot += get(r, sums_at(r, i, 1), c);
    }
    set(r, b->weight_out, c, dot * rstd);
    set(r, b->bias_out, c, sum);
    /* weight * rstd * (g - mean(g) - hat * mean(g * hat)) */
    double p = b->weight ? rstd * get(r, b->weight, c) : rstd;
    set(r, factors(r, 0), c, get(r, b->mean_in, c));
    set(r, factors(r, 1), c, p);
    set(r, factors(r, 2), c, -p * rstd * rstd * dot / count);
    set(r, factors(r, 3), c, -p * sum / count);
  }
}

static void backward(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(r, i, &rows);
    r->last->backward(r->b->g + at, r->b->x + at, rows, r->b->channels, factors(r, 0),
                      factors(r, 1), factors(r, 2), factors(r, 3), r->b->y + at);
  }
}

nyx_status nyx__batch_norm_last_backward(const nyx__batch_norm_last *b) {
  last_run r;
  NYX_TRY(start(&r, b));
  run(&r, sums, backward_channels, backward);
  nyx_memory_free(r.partial);
  return NYX_OK;
}
