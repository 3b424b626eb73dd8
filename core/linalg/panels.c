/* The product by panels of B: the threads pack rows of A, then each multiplies all of
 * them by units of columns, whose panels it gets itself. Units depend on sizes alone, so
 * results do not depend on the number of threads; they are those of gemm_shared.c with
 * blocks of that depth, bit for bit. Read next: panels.h. */
#include "panels.h"

#include <nyx/parallel.h>

#include "../tensor/packed.h"

#define ROWS 512      /* of A, packed at a time */
#define UNIT_COLS 128 /* of B at a time, at most */
#define UNITS 16      /* wanted */

typedef struct panels_run {
  nyx_context *ctx;
  const nyx_gemm_kernel *kernel;
  const nyx_panels *b;
  const nyx_epilogue *after;
  nyx_dtype dtype;
  nyx_product p; /* the rows at hand */
  int64_t row;   /* the first of them */
  int64_t item, depth, width, unit_cols;
  char *a; /* blocks of terms, then panels */
  size_t scratch_bytes;
  atomic_int status;
} panels_run;

static int64_t parts_of(int64_t size, int64_t part) {
  return (size + part - 1) / part;
}
static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

int64_t nyx__panel_depth(const nyx_gemm_kernel *kernel, int64_t k) {
  int64_t depth = parts_of(k, parts_of(k, kernel->depth));
  return (depth + 15) / 16 * 16; /* whole vectors; kernel->depth is a multiple */
}

static bool going(panels_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->status, memory_order_relaxed) == NYX_OK;
}

static char *a_at(const panels_run *r, int64_t l, int64_t row, int64_t terms) {
  return r->a + (l * r->p.m + row * terms) * r->item;
}

/* Items are (block of terms, panel). */
static void pack_rows(void *arg, int64_t begin, int64_t end) {
  const panels_run *r = arg;
  int64_t panels = parts_of(r->p.m, r->width);
  for (int64_t i = begin; i < end; i++) {
    int64_t l = i / panels * r->depth, row = i % panels * r->width;
    int64_t terms = least(r->depth, r->p.k - l), rows = least(r->width, r->p.m - row);
    const char *from = (const char *)r->p.a + (row * r->p.a_rs + l * r->p.a_cs) * r->item;
    r->kernel->pack_a(from, r->p.a_rs, r->p.a_cs, rows, r->width, terms,
                      a_at(r, l, row, terms));
  }
}

static void multiply_units(void *arg, int64_t begin, int64_t end) {
  panels_run *r = arg;
  char *scratch = r->b->scratch ? nyx_memory_alloc(r->scratch_bytes) : NULL;
  if (r->b->scratch && !scratch) {
    atomic_store(&r->status, NYX_ERR_MEMORY);
    return;
  }
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t j = unit * r->unit_cols;
    nyx_product p = r->p;
    p.n = least(r->unit_cols, r->p.n - j);
    p.c = (char *)r->p.c + j * r->item;
    const nyx_region region = {p.c, p.ldc, r->row, p.m, j, p.n};
    if (nyx__epilogue_begin(r->after, r->dtype, &region)) p.add = true;
    for (int64_t l = 0; l < r->p.k && going(r); l += r->depth, p.add = true) {
      p.k = least(r->depth, r->p.k - l);
      const void *b = r->b->get(r->b->arg, j, p.n, l, p.k, scratch);
      r->kernel->block(&p, r->width, a_at(r, l, 0, p.k), b);
    }
    nyx__epilogue_end(r->after, r->dtype, &region);
  }
  nyx_memory_free(scratch);
}

/* Columns of a unit: whole tiles, as many units as are wanted where there are so many. */
static int64_t columns_of(const nyx_gemm_kernel *kernel, int64_t n) {
  int64_t tiles = parts_of(n, kernel->tile_cols), most = UNIT_COLS / kernel->tile_cols;
  int64_t each = least(parts_of(tiles, UNITS), most > 1 ? most : 1);
  return each * kernel->tile_cols;
}

nyx_status nyx__panels_multiply(nyx_context *ctx, const nyx_gemm_kernel *kernel,
                                nyx_dtype dtype, const nyx_product *p, int64_t depth,
                                const nyx_panels *b, const nyx_epilogue *after) {
  int64_t item = (int64_t)nyx_dtype_size(dtype);
  panels_run r = {.ctx = ctx, .kernel = kernel, .b = b, .after = after, .dtype = dtype};
  r.p = *p;
  r.item = item;
  atomic_init(&r.status, NYX_OK);
  r.depth = depth;
  r.unit_cols = columns_of(kernel, p->n);
  r.scratch_bytes = (size_t)(r.unit_cols * r.depth * item) + b->extra;
  r.width = parts_of(p->m, parts_of(p->m, kernel->tile_rows));
  int64_t rows = ROWS / r.width * r.width;
  size_t bytes = (size_t)(least(rows, p->m) * p->k * item);
  if (!(r.a = nyx_memory_alloc(bytes))) return nyx__no_memory(ctx, bytes);
  for (int64_t i = 0; i < p->m && going(&r); i += rows) {
    r.row = i;
    r.p.m = least(rows, p->m - i);
    r.p.a = (const char *)p->a + i * p->a_rs * item;
    r.p.c = (char *)p->c + i * p->ldc * item;
    nyx_parallel_for(parts_of(p->k, r.depth) * parts_of(r.p.m, r.width), 4, pack_rows,
                     &r);
    nyx_parallel_for(parts_of(p->n, r.unit_cols), 1, multiply_units, &r);
  }
  nyx_memory_free(r.a);
  switch (atomic_load(&r.status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(ctx, INTERRUPTED);
    default: return nyx__no_memory(ctx, r.scratch_bytes);
  }
}

/* Panels of the whole B: blocks of terms, each with all columns, up to a whole tile. */
typedef struct whole_b {
  const nyx_gemm_kernel *kernel;
  nyx_product p;
  int64_t item, depth, tiles;
  char *panels;
} whole_b;

static char *panel_at(const whole_b *w, int64_t j, int64_t l, int64_t terms) {
  return w->panels + (l * w->tiles * w->kernel->tile_cols + j * terms) * w->item;
}

static const void *get_kept(const void *arg, int64_t j, int64_t cols, int64_t l,
                            int64_t terms, void *scratch) {
  (void)cols;
  (void)scratch;
  return panel_at(arg, j, l, terms);
}

/* Items are (block of terms, tile). */
static void pack_tiles(void *arg, int64_t begin, int64_t end) {
  const whole_b *w = arg;
  const nyx_product *p = &w->p;
  for (int64_t i = begin; i < end; i++) {
    int64_t l = i / w->tiles * w->depth, j = i % w->tiles * w->kernel->tile_cols;
    int64_t terms = least(w->depth, p->k - l),
            cols = least(w->kernel->tile_cols, p->n - j);
    w->kernel->pack_b((const char *)p->b + (l * p->b_rs + j * p->b_cs) * w->item, p->b_rs,
                      p->b_cs, terms, cols, panel_at(w, j, l, terms));
  }
}

static bool make_whole(void *arg, void *data) {
  whole_b *w = arg;
  w->panels = data;
  nyx_parallel_for(parts_of(w->p.k, w->depth) * w->tiles, 4, pack_tiles, w);
  return true;
}

nyx_status nyx__panels_kept(nyx_context *ctx, const nyx_gemm_kernel *kernel,
                            nyx_dtype dtype, const nyx_product *p, int64_t depth,
                            nyx_storage *keep, const nyx_epilogue *after, bool *done) {
  int64_t item = (int64_t)nyx_dtype_size(dtype);
  whole_b w = {.kernel = kernel,
               .p = *p,
               .item = item,
               .depth = depth,
               .tiles = parts_of(p->n, kernel->tile_cols)};
  const nyx__packed_key key = {.kind = NYX_PACKED_B,
                               .kernel = kernel,
                               .from = p->b,
                               .size = {p->k, p->n, p->b_rs, p->b_cs, w.depth}};
  size_t bytes = (size_t)(w.tiles * kernel->tile_cols * p->k * item);
  nyx__packed *form = nyx__packed_get(keep, &key, bytes, make_whole, &w);
  *done = form != NULL;
  if (!form) return NYX_OK;
  w.panels = form->data;
  const nyx_panels b = {.get = get_kept, .arg = &w};
  nyx_status status = nyx__panels_multiply(ctx, kernel, dtype, p, depth, &b, after);
  nyx__packed_release(form);
  return status;
}
