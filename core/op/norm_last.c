/* batch_norm in training and group_norm, of channels-last images: all channels of a place
 * at once. Places are divided into blocks that stay in the cache, whose sums are added up
 * in double, in their order: results do not depend on the number of threads, which share
 * images where there are many, otherwise the blocks of one after the other. Read next:
 * kernels/cpu/last.h, batch_norm.c, group_norm.c. */
#include <math.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/last.h"
#include "norm.h"

#define BLOCK_BYTES 131072 /* of a block of places */
#define MOST_ROWS 128      /* its sums are in the type itself */
#define LEAST_ROWS 16
#define RANGE_WORK 16384 /* elements worth waking a thread for */
#define UNITS 32         /* of images, at most: each has partial sums of its own */
#define MANY_UNITS 8     /* are divided evenly enough */

typedef struct last_run {
  const nyx__norm_last *b;
  const nyx_last_kernel *last;
  int64_t item, block, blocks; /* blocks of an image */
  int64_t chunk, units;        /* images of a unit */
  char *work;                  /* of all units */
  size_t work_bytes;           /* of one */
} last_run;

/* One image, and the places of its unit. */
typedef struct last_image {
  const last_run *r;
  int64_t image;
  const char *x, *g;
  char *y;
  double *total; /* gradients of weight and bias, of the unit's images so far */
  double *rstd;  /* of each group */
  char *partial; /* two sums for each block and channel */
  char *factor;  /* four values of each channel: mean, and what is multiplied */
} last_image;

static char *sums_at(const last_image *m, int64_t block, int which) {
  return m->partial + (2 * block + which) * m->r->b->channels * m->r->item;
}

static char *factors(const last_image *m, int which) {
  return m->factor + which * m->r->b->channels * m->r->item;
}

/* nyx__load_double and nyx__store_double, inline: small images are mostly this. */
static double get(const last_image *m, const char *array, int64_t c) {
  return m->r->b->dtype == NYX_FLOAT64 ? ((const double *)array)[c]
                                       : (double)((const float *)array)[c];
}

static void set(const last_image *m, char *array, int64_t c, double value) {
  if (m->r->b->dtype == NYX_FLOAT64)
    ((double *)array)[c] = value;
  else
    ((float *)array)[c] = (float)value;
}

static size_t block_at(const last_run *r, int64_t i, int64_t *rows) {
  int64_t first = i * r->block, left = r->b->places - first;
  *rows = left < r->block ? left : r->block;
  return (size_t)(first * r->b->channels * r->item);
}

static nyx_status start(last_run *r, const nyx__norm_last *b) {
  *r = (last_run){.b = b,
                  .last = &nyx__cpu_kernels()->last->type[b->dtype == NYX_FLOAT64],
                  .item = (int64_t)nyx_dtype_size(b->dtype)};
  int64_t row = b->channels * r->item;
  r->block = BLOCK_BYTES / (row + 1);
  if (r->block > MOST_ROWS) r->block = MOST_ROWS;
  if (r->block < LEAST_ROWS) r->block = LEAST_ROWS;
  r->blocks = (b->places + r->block - 1) / r->block;
  int64_t least = RANGE_WORK / (b->places * b->channels + 1) + 1;
  r->chunk = (b->images + UNITS - 1) / UNITS;
  if (r->chunk < least) r->chunk = least;
  r->units = (b->images + r->chunk - 1) / r->chunk;
  if (b->places == 0 || b->channels == 0) r->units = 0;
  r->work_bytes = (size_t)((2 * b->channels + b->groups) * (int64_t)sizeof(double));
  r->work_bytes += ((size_t)((2 * r->blocks + 4) * row) + 7) & ~(size_t)7;
  size_t bytes = (size_t)r->units * r->work_bytes;
  if (!(r->work = nyx_memory_alloc(bytes))) return nyx__no_memory(b->ctx, bytes);
  return NYX_OK;
}

static last_image image_of(const last_run *r, int64_t unit, int64_t image) {
  const nyx__norm_last *b = r->b;
  size_t at = (size_t)(image * b->places * b->channels * r->item);
  last_image m = {.r = r,
                  .image = image,
                  .x = b->x + at,
                  .g = b->g ? b->g + at : NULL,
                  .y = b->y + at,
                  .total = (double *)(r->work + (size_t)unit * r->work_bytes)};
  m.rstd = m.total + 2 * b->channels;
  m.partial = (char *)(m.rstd + b->groups);
  m.factor = m.partial + 2 * r->blocks * b->channels * r->item;
  return m;
}

static void each_block(last_image *m, nyx_range_fn fn) {
  const last_run *r = m->r;
  nyx_parallel_for(r->blocks, RANGE_WORK / (r->block * r->b->channels + 1) + 1, fn, m);
}

static void each_group(last_image *m, nyx_range_fn fn) {
  const nyx__norm_last *b = m->r->b;
  int64_t work = 8 * m->r->blocks * (b->channels / b->groups);
  nyx_parallel_for(b->groups, RANGE_WORK / (work + 1) + 1, fn, m);
}

static void each_unit(last_run *r, nyx_range_fn fn) {
  if (r->units >= MANY_UNITS)
    nyx_parallel_for(r->units, 1, fn, r);
  else
    fn(r, 0, r->units);
}

static void moments(void *arg, int64_t begin, int64_t end) {
  const last_image *m = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(m->r, i, &rows);
    m->r->last->moments(m->x + at, rows, m->r->b->channels, sums_at(m, i, 0),
                        sums_at(m, i, 1));
  }
}

/* The moments of channels first..last-1 together: those of the blocks, weighted. */
static double merge(const last_image *m, int64_t first, int64_t last, double *mean) {
  double sum = 0, squares = 0;
  int64_t rows;
  for (int64_t i = 0; i < m->r->blocks; i++) {
    double all = 0;
    for (int64_t c = first; c < last; c++) all += get(m, sums_at(m, i, 0), c);
    block_at(m->r, i, &rows);
    sum += (double)rows * all;
  }
  *mean = sum / (double)(m->r->b->places * (last - first));
  for (int64_t i = 0; i < m->r->blocks; i++) {
    block_at(m->r, i, &rows);
    for (int64_t c = first; c < last; c++) {
      double off = get(m, sums_at(m, i, 0), c) - *mean;
      squares += get(m, sums_at(m, i, 1), c) + (double)rows * off * off;
    }
  }
  return squares;
}

/* mean in factor 0 and rstd of each group. */
static void statistics(void *arg, int64_t begin, int64_t end) {
  const last_image *m = arg;
  const nyx__norm_last *b = m->r->b;
  int64_t size = b->channels / b->groups;
  for (int64_t group = begin; group < end; group++) {
    int64_t first = group * size, at = m->image * b->groups + group;
    double mean;
    if (b->mean_in) {
      mean = get(m, b->mean_in, at);
      m->rstd[group] = get(m, b->rstd_in, at);
    } else {
      double squares = merge(m, first, first + size, &mean);
      m->rstd[group] = 1 / sqrt(squares / (double)(b->places * size) + b->eps);
      if (b->variance) b->variance[at] = squares;
    }
    if (b->mean) set(m, b->mean, at, mean);
    if (b->rstd) set(m, b->rstd, at, m->rstd[group]);
    for (int64_t c = first; c < first + size; c++) set(m, factors(m, 0), c, mean);
  }
}

static double weight_of(const last_image *m, int64_t c) {
  return m->r->b->weight ? get(m, m->r->b->weight, c) : 1;
}

static void forward_groups(void *arg, int64_t begin, int64_t end) {
  const last_image *m = arg;
  const nyx__norm_last *b = m->r->b;
  int64_t size = b->channels / b->groups;
  statistics(arg, begin, end);
  for (int64_t c = begin * size; c < end * size; c++) {
    set(m, factors(m, 1), c, m->rstd[c / size] * weight_of(m, c));
    set(m, factors(m, 2), c, b->bias ? get(m, b->bias, c) : 0);
  }
}

static void normalize(void *arg, int64_t begin, int64_t end) {
  const last_image *m = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(m->r, i, &rows);
    m->r->last->normalize(m->x + at, rows, m->r->b->channels, factors(m, 0),
                          factors(m, 1), factors(m, 2), m->y + at);
  }
}

static void forward_units(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  for (int64_t unit = begin; unit < end; unit++)
    for (int64_t i = unit * r->chunk; i < (unit + 1) * r->chunk && i < r->b->images;
         i++) {
      last_image m = image_of(r, unit, i);
      each_block(&m, moments);
      each_group(&m, forward_groups);
      each_block(&m, normalize);
    }
}

nyx_status nyx__norm_last_forward(const nyx__norm_last *b) {
  last_run r;
  NYX_TRY(start(&r, b));
  each_unit(&r, forward_units);
  nyx_memory_free(r.work);
  return NYX_OK;
}

static void sums(void *arg, int64_t begin, int64_t end) {
  const last_image *m = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(m->r, i, &rows);
    m->r->last->sums(m->g + at, m->x + at, factors(m, 0), rows, m->r->b->channels,
                     sums_at(m, i, 0), sums_at(m, i, 1));
  }
}

/* weight * rstd * g - rstd * (mean(weight * g) + hat * mean(weight * g * hat)) */
static void backward_groups(void *arg, int64_t begin, int64_t end) {
  const last_image *m = arg;
  const nyx__norm_last *b = m->r->b;
  int64_t size = b->channels / b->groups;
  double count = (double)(b->places * size);
  for (int64_t group = begin; group < end; group++) {
    double sum = 0, dot = 0, rstd = m->rstd[group];
    for (int64_t c = group * size; c < (group + 1) * size; c++) {
      double s = 0, d = 0, weight = weight_of(m, c);
      for (int64_t i = 0; i < m->r->blocks; i++) {
        s += get(m, sums_at(m, i, 0), c);
        d += get(m, sums_at(m, i, 1), c);
      }
      m->total[c] += d * rstd;
      m->total[b->channels + c] += s;
      sum += weight * s;
      dot += weight * d;
      set(m, factors(m, 1), c, rstd * weight);
    }
    for (int64_t c = group * size; c < (group + 1) * size; c++) {
      set(m, factors(m, 2), c, -rstd * rstd * rstd * dot / count);
      set(m, factors(m, 3), c, -rstd * sum / count);
    }
  }
}

static void backward(void *arg, int64_t begin, int64_t end) {
  const last_image *m = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t rows;
    size_t at = block_at(m->r, i, &rows);
    m->r->last->backward(m->g + at, m->x + at, rows, m->r->b->channels, factors(m, 0),
                         factors(m, 1), factors(m, 2), factors(m, 3), m->y + at);
  }
}

static void backward_units(void *arg, int64_t begin, int64_t end) {
  const last_run *r = arg;
  for (int64_t unit = begin; unit < end; unit++) {
    memset(r->work + (size_t)unit * r->work_bytes, 0,
           (size_t)(2 * r->b->channels) * sizeof(double));
    for (int64_t i = unit * r->chunk; i < (unit + 1) * r->chunk && i < r->b->images;
         i++) {
      last_image m = image_of(r, unit, i);
      if (!r->b->mean_in) each_block(&m, moments);
      each_group(&m, statistics);
      each_block(&m, sums);
      each_group(&m, backward_groups);
      each_block(&m, backward);
    }
  }
}

nyx_status nyx__norm_last_backward(const nyx__norm_last *b) {
  last_run r;
  NYX_TRY(start(&r, b));
  each_unit(&r, backward_units);
  char *out[] = {b->weight_out, b->bias_out};
  for (int64_t k = 0; k < 2; k++)
    for (int64_t c = 0; out[k] && c < b->channels; c++) {
      double all = 0;
      for (int64_t unit = 0; unit < r.units; unit++)
        all += image_of(&r, unit, 0).total[k * b->channels + c];
      nyx__store_double(b->dtype, out[k] + c * r.item, all);
    }
  nyx_memory_free(r.work);
  return NYX_OK;
}
