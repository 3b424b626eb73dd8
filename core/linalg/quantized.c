/* Products with a weight of few bits. A few rows: each output's weights become
 * floats in registers, at the speed of memory. Up to 64: some outputs' in the first
 * cache. More: they become panels of the built-in product, some columns and terms at a
 * time; the whole weight is never stored as floats. All is decided by size: results do
 * not depend on the number of threads. Read next: panels.c, kernels/cpu/quantized.h,
 * narrow.h. */
#include "quantized.h"

#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/elementwise.h"
#include "../../kernels/cpu/narrow.h"
#include "panels.h"

#define RANGE_TERMS ((int64_t)1 << 18) /* weights that are worth a range */
#define PIECE 128                      /* terms unpacked at a time, for a panel */

typedef struct quantized_run {
  const nyx_quantized *w;
  const nyx_quantized_kernel *kernel;
  const nyx_gemm_kernel *gemm;
  nyx_context *ctx;
  int64_t rows, step; /* of x; floats of an arranged row */
  const float *x, *bias;
  float *packed; /* x, as the kernel for some rows has it */
  float *y;
  nyx_dtype dtype; /* of nyx__dequantize */
  char *to;
  atomic_int status;
} quantized_run;

/* Terms that are worth a range, as outputs. */
static int64_t grain_of(const nyx_quantized *w) {
  return RANGE_TERMS / (w->terms + 1) + 1;
}

/* Scales or zero points of one output as float32: where they are, or in `room`. */
static const float *numbers_of(const void *all, nyx_dtype dtype, int64_t output,
                               int64_t groups, float *room) {
  if (!all) return NULL;
  const char *from =
      (const char *)all + (size_t)(output * groups) * nyx_dtype_size(dtype);
  if (dtype == NYX_FLOAT32) return (const float *)(const void *)from;
  nyx__cpu_kernels()->elementwise->gather[dtype][NYX_IN_FLOAT32](groups, from, 1, room);
  return room;
}

static size_t room_bytes(const nyx_quantized *w) {
  return 2 * (size_t)w->groups * sizeof(float);
}

/* `room` is of room_bytes. */
static nyx_quantized_row row_of(const nyx_quantized *w, int64_t output, float *room) {
  int64_t bytes = w->int4 ? w->terms / 2 : w->terms;
  return (nyx_quantized_row){
      .q = (const char *)w->q + output * bytes,
      .scale = numbers_of(w->scale, w->scale_dtype, output, w->groups, room),
      .zero = numbers_of(w->zero, w->zero_dtype, output, w->groups, room + w->groups),
      .groups = w->groups,
      .group = w->terms / w->groups};
}

static void *scratch(quantized_run *r, size_t bytes) {
  void *block = nyx_memory_alloc(bytes);
  if (!block) atomic_store(&r->status, NYX_ERR_MEMORY);
  return block;
}

static bool going(quantized_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

/* Few rows of x: outputs begin..end-1. */
static void dot_outputs(void *arg, int64_t begin, int64_t end) {
  quantized_run *r = arg;
  const nyx_quantized *w = r->w;
  float *room = scratch(r, room_bytes(w));
  for (int64_t n = begin; n < end && room && going(r); n++) {
    nyx_quantized_row row = row_of(w, n, room);
    float *y = r->y + n;
    for (int64_t i = 0; i < r->rows; i += NYX_QUANTIZED_ROWS) {
      int64_t rows = r->rows - i;
      if (rows > NYX_QUANTIZED_ROWS) rows = NYX_QUANTIZED_ROWS;
      r->kernel->dot(&row, rows, r->x + i * r->step, r->step, y + i * w->outputs,
                     w->outputs);
    }
    for (int64_t i = 0; i < r->rows && r->bias; i++) y[i * w->outputs] += r->bias[n];
  }
  nyx_memory_free(room);
}

static nyx_status by_dots(nyx_context *ctx, quantized_run *r) {
  const nyx_quantized *w = r->w;
  int64_t group = w->terms / w->groups, block = r->kernel->block;
  r->step = (group + block - 1) / block * block * w->groups;
  size_t bytes = (size_t)(r->rows * r->step) * sizeof(float);
  float *arranged = nyx_memory_alloc(bytes);
  if (!arranged) return nyx__no_memory(ctx, bytes);
  for (int64_t i = 0; i < r->rows; i++)
    r->kernel->arrange(r->x + i * w->terms, w->groups, group, arranged + i * r->step);
  r->x = arranged;
  nyx_parallel_for(w->outputs, grain_of(w), dot_outputs, r);
  nyx_memory_free(arranged);
  return NYX_OK;
}

/* Some more rows: a few outputs at a time become floats in the first cache. */

typedef struct narrow_outputs {
  const nyx_quantized_kernel *kernel;
  nyx_quantized_row row[NYX_NARROW_COLS];
} narrow_outputs;

static void widen_output(const nyx_narrow_columns *b, int64_t column, int64_t first,
                         int64_t count, float *to) {
  const narrow_outputs *outputs = b->detail;
  outputs->kernel->unpack(&outputs->row[column], first, count, to);
}

/* Items are the outputs of one call. */
static void multiply_outputs(void *arg, int64_t begin, int64_t end) {
  quantized_run *r = arg;
  const nyx_quantized *w = r->w;
  const nyx_narrow_kernels *narrow = nyx__cpu_kernels()->narrow;
  float *room = scratch(r, NYX_NARROW_COLS * room_bytes(w));
  narrow_outputs outputs = {.kernel = r->kernel};
  nyx_narrow_columns columns = {.widen = widen_output, .detail = &outputs};
  columns.bits = w->int4 ? 4 : 8;
  columns.pitch = w->terms * columns.bits / 8;
  for (int64_t item = begin; item < end && room && going(r); item++) {
    int64_t n = item * narrow->cols, left = w->outputs - n;
    columns.from = (const char *)w->q + n * columns.pitch;
    columns.count = left < narrow->cols ? left : narrow->cols;
    for (int64_t c = 0; c < columns.count; c++)
      outputs.row[c] = row_of(w, n + c, room + c * 2 * w->groups);
    narrow->dots(&columns, r->packed, r->rows, w->terms, r->y + n, w->outputs);
    for (int64_t i = 0; i < r->rows && r->bias; i++) {
      float *y = r->y + i * w->outputs + n;
      for (int64_t c = 0; c < columns.count; c++) y[c] += r->bias[n + c];
    }
  }
  nyx_memory_free(room);
}

/* Items are four rows. */
static void pack_rows(void *arg, int64_t begin, int64_t end) {
  const quantized_run *r = arg;
  int64_t i = 4 * begin, last = 4 * end < r->rows ? 4 * end : r->rows;
  nyx__cpu_kernels()->narrow->pack(r->x + i * r->w->terms, r->w->terms, i, last - i,
                                   r->w->terms, r->packed);
}

static nyx_status by_columns(nyx_context *ctx, quantized_run *r) {
  const nyx_quantized *w = r->w;
  size_t bytes = (size_t)nyx_narrow_room(r->rows, w->terms) * sizeof(float);
  if (!(r->packed = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  nyx_parallel_for((r->rows + 3) / 4, RANGE_TERMS / (4 * w->terms) + 1, pack_rows, r);
  int64_t cols = nyx__cpu_kernels()->narrow->cols;
  nyx_parallel_for((w->outputs + cols - 1) / cols,
                   4 * RANGE_TERMS / (w->terms * cols * (r->rows + 4)) + 1,
                   multiply_outputs, r);
  nyx_memory_free(r->packed);
  return NYX_OK;
}

/* Many: the panels of some outputs and terms. Behind the panels lie a piece of each
 * output of a tile, then what row_of needs. */
static const void *make_panels(const void *arg, int64_t j, int64_t cols, int64_t l,
                               int64_t terms, void *panels) {
  const quantized_run *r = arg;
  const int64_t tile = r->gemm->tile_cols;
  float *to = panels, *piece = to + (cols + tile - 1) / tile * tile * terms;
  float *room = piece + tile * PIECE;
  for (int64_t c = 0; c < cols; c += tile) {
    int64_t live = cols - c < tile ? cols - c : tile;
    for (int64_t t = 0; t < terms; t += PIECE, to += tile * PIECE) {
      int64_t here = terms - t < PIECE ? terms - t : PIECE;
      for (int64_t n = 0; n < live; n++) {
        nyx_quantized_row row = row_of(r->w, j + c + n, room);
        r->kernel->unpack(&row, l + t, here, piece + n * PIECE);
      }
      r->gemm->pack_b(piece, 1, PIECE, here, live, to);
      if (here < PIECE) to += tile * (here - PIECE);
    }
  }
  return panels;
}

static nyx_status by_panels(nyx_context *ctx, quantized_run *r) {
  const nyx_quantized *w = r->w;
  nyx_panels b = {.get = make_panels, .arg = r, .scratch = true};
  b.extra = (size_t)r->gemm->tile_cols * PIECE * sizeof(float) + room_bytes(w);
  nyx_product p = {.m = r->rows, .n = w->outputs, .k = w->terms, .a = r->x};
  p.a_rs = w->terms;
  p.a_cs = 1;
  p.c = r->y;
  p.ldc = w->outputs;
  const nyx_epilogue after = {.n = w->outputs, .bias = r->bias};
  return nyx__panels_multiply(ctx, r->gemm, NYX_FLOAT32, &p,
                              nyx__panel_depth(r->gemm, p.k), &b, &after);
}

static const nyx_quantized_kernel *kernel_of(const nyx_quantized *w) {
  const nyx_quantized_kernels *kernels = nyx__cpu_kernels()->quantized;
  return w->int4 ? &kernels->int4 : &kernels->int8;
}

static nyx_status finish(nyx_context *ctx, quantized_run *r) {
  switch (atomic_load(&r->status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(ctx, INTERRUPTED);
    default: return nyx__no_memory(ctx, room_bytes(r->w));
  }
}

nyx_status nyx__quantized_product(nyx_context *ctx, const nyx_quantized *w,
                                  const float *x, int64_t rows, const float *bias,
                                  float *y) {
  if (rows < 1 || w->outputs < 1) return NYX_OK;
  quantized_run r = {.ctx = ctx,
                     .w = w,
                     .kernel = kernel_of(w),
                     .gemm = &nyx__cpu_kernels()->gemm->type[0],
                     .rows = rows,
                     .x = x,
                     .bias = bias,
                     .y = y};
  atomic_init(&r.status, NYX_OK);
  const nyx_narrow_kernels *narrow = nyx__cpu_kernels()->narrow;
  if (rows > narrow->most && w->terms > 0) return by_panels(ctx, &r);
  if (rows > narrow->quantized + w->int4 && w->terms > 0)
    NYX_TRY(by_columns(ctx, &r));
  else
    NYX_TRY(by_dots(ctx, &r));
  return finish(ctx, &r);
}

/* The weight as floats */

static void dequantize_double(const nyx_quantized *w, int64_t n, double *to) {
  int64_t group = w->terms / w->groups, zero = w->int4 ? 8 : 0;
  const uint8_t *q = w->q;
  for (int64_t t = 0; t < w->terms; t++) {
    int64_t at = n * w->terms + t, g = n * w->groups + t / group;
    int value = w->int4 ? q[at / 2] >> (at % 2 * 4) & 15 : ((const int8_t *)w->q)[at];
    double from = w->zero
                      ? nyx__load_double(w->zero_dtype,
                                         (const char *)w->zero +
                                             (size_t)g * nyx_dtype_size(w->zero_dtype))
                      : (double)zero;
    double scale =
        nyx__load_double(w->scale_dtype, (const char *)w->scale +
                                             (size_t)g * nyx_dtype_size(w->scale_dtype));
    to[t] = (value - from) * scale;
  }
}

static void dequantize_outputs(void *arg, int64_t begin, int64_t end) {
  quantized_run *r = arg;
  const nyx_quantized *w = r->w;
  size_t item = nyx_dtype_size(r->dtype), bytes = (size_t)w->terms * sizeof(float);
  float *room = scratch(r, room_bytes(w) + bytes),
        *line = room ? room + 2 * w->groups : 0;
  for (int64_t n = begin; n < end && room; n++) {
    char *to = r->to + (size_t)(n * w->terms) * item;
    if (r->dtype == NYX_FLOAT64) {
      dequantize_double(w, n, (double *)(void *)to);
      continue;
    }
    nyx_quantized_row row = row_of(w, n, room);
    r->kernel->unpack(&row, 0, w->terms, line);
    nyx__cpu_kernels()->elementwise->scatter[NYX_IN_FLOAT32][r->dtype](w->terms, line, to,
                                                                       1);
  }
  nyx_memory_free(room);
}

nyx_status nyx__dequantize(nyx_context *ctx, const nyx_quantized *w, nyx_dtype dtype,
                           void *to) {
  quantized_run r = {
      .ctx = ctx, .w = w, .kernel = kernel_of(w), .dtype = dtype, .to = to};
  atomic_init(&r.status, NYX_OK);
  if (w->terms > 0) nyx_parallel_for(w->outputs, grain_of(w), dequantize_outputs, &r);
  return finish(ctx, &r);
}
