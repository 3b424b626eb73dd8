/* Matrix products of narrow types: both factors are packed by all threads, then each
 * multiplies units of C, summed in a block of scratch that stays in its cache and
 * converted when it is stored. Few threads pack all columns of bytes for themselves.
 * Where C is one unit, as of vectors, whoever multiplies packs for itself, a block of
 * terms at a time; a few rows of a half type are multiplied by floats that are made of
 * some of B at a time, where its terms or its columns lie together. Results do not depend
 * on the number of threads: sums are divided by size, and those of bytes are exact. Read
 * next: kernels/cpu/low.h; gemm_ways.c (measuring how); gemm.c, the same for wide types.
 */
#include <limits.h>
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/elementwise.h"
#include "../../kernels/cpu/gemm.h"
#include "../../kernels/cpu/low.h"
#include "../../kernels/cpu/narrow.h"
#include "../base/parallel.h"
#include "../tensor/packed.h"
#include "gemm.h"

/* Multiplications: worth a range of its own; worth more threads than one. */
#define RANGE ((int64_t)1 << 21)
#define LARGE (2 * RANGE)
/* What is packed at a time of each factor, rows of A and columns of B, all their terms.
 */
#define PACKED 4096
/* Units: the most rows and columns (scratch of 256 KiB), how many are wanted. */
#define UNIT 256
#define UNITS 16
#define UNITS_EACH 4  /* of a thread, at least: the last ends soon after the others */
#define FARTHEST 4096 /* bytes between rows in place, or their greatest power of two */
#define LONG 512      /* sums, for few elements of C */
#define FEW_ROWS 16   /* that are multiplied without packing, whatever the matrix */
#define FEW_COLS 96   /* of few rows' sums, which stay in the first cache */
/* Where columns lie together: so many, and terms of them, are floats at a time; terms of
 * partial sums, with whose number rounding errors grow. */
#define SUM_COLS 128
#define SUM_TERMS 64
#define SUM_SPAN 2048
#define PACK_GRAIN 2 /* groups of panels, about 64 KiB each */
/* A thread with so many rows packs all columns for itself, so many at a time. */
#define OWN_ROWS 200
#define OWN_COLS 128

/* What stops all threads, and how much memory there was not. */
typedef struct low_shared {
  atomic_int status;
  atomic_llong bytes;
} low_shared;

/* One product, or a block of PACKED rows and columns of it, and how it is divided: units
 * of rows, of columns, and parts of the terms where C is too small to be divided. */
typedef struct low_run {
  nyx_context *ctx;
  const nyx_low_kernel *kernel;
  nyx_product p;
  int64_t item, out_item;    /* bytes of an element of A and B, of C */
  nyx_dtype out;             /* of C: int32 sums are copied, others are float32 */
  const nyx_epilogue *after; /* NULL: nothing */
  int64_t row, col;          /* where p begins in all results */
  char *a, *b, *partial;     /* packed; parts x m x n sums when parts > 1 */
  nyx_storage *keep;         /* where B lies, if panels of all of it are to be kept */
  int64_t a_panels, b_panels, a_group, b_group; /* panels packed together */
  int64_t in_place; /* the first panels of A, as the matrix has them */
  nyx__low_way way;
  int64_t depth;             /* terms of a block, by the way */
  bool pack_b, alone;        /* alone: one unit, `a` and `b` are not used */
  bool whole;                /* p is all of the product */
  bool own;                  /* threads pack for themselves; `a` and `b` are not used */
  _Atomic int64_t *next_col; /* own: of each unit of rows, what is not begun */
  int64_t unit_rows, unit_cols, col_units, units, parts, part_terms;
  low_shared *shared;
} low_run;

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t parts_of(int64_t size, int64_t part) {
  return size / part + (size % part != 0);
}
static int64_t round_up(int64_t size, int64_t part) {
  return parts_of(size, part) * part;
}

/* Saturating product of sizes. */
static int64_t times(int64_t a, int64_t b) {
  int64_t result;
  return __builtin_mul_overflow(a, b, &result) ? INT64_MAX : result;
}

/* How many items of so much work are worth a range. */
static int64_t grain_of(int64_t work) {
  return work < RANGE ? RANGE / (work + 1) + 1 : 1;
}

static const nyx_low_kernel *kernel_of(nyx_dtype dtype) {
  const nyx_low_kernels *kernels = nyx__low_kernels();
  switch (dtype) {
    case NYX_BFLOAT16: return kernels->bf16;
    case NYX_FLOAT16: return kernels->f16;
    case NYX_INT8: return kernels->s8;
    case NYX_UINT8: return kernels->u8;
    default: return NULL;
  }
}

bool nyx__gemm_low_takes(const nyx_gemm *g) {
  const nyx_low_kernel *kernel = kernel_of(g->dtype);
  const nyx_product *p = &g->product;
  return kernel && (p->k < LONG || times(p->m, p->n) >= kernel->least);
}

bool nyx__gemm_low_tiles(nyx_dtype dtype) {
  const nyx_low_kernel *kernel = kernel_of(dtype);
  return kernel && kernel->begin; /* which sets them up */
}

/* Terms of a block; the most rows and columns of a unit. */
static int64_t depth_of(const nyx_low_kernel *kernel, nyx__low_way way) {
  return way == NYX__LOW_SHALLOW ? kernel->depth / 2
         : way == NYX__LOW_DEEP  ? kernel->depth * 2
                                 : kernel->depth;
}
static int64_t unit_of(nyx__low_way way) {
  return way == NYX__LOW_SMALL ? UNIT / 2 : way == NYX__LOW_LARGE ? UNIT * 2 : UNIT;
}

static void share(const low_run *r, int64_t n, int64_t grain, nyx_range_fn fn,
                  void *arg) {
  nyx_parallel_for(n, r->way == NYX__LOW_ONE && n > grain ? n : grain, fn, arg);
}

static bool going(const low_run *r) {
  if (nyx__interrupted(r->ctx)) atomic_store(&r->shared->status, NYX_ERR_INTERRUPTED);
  return atomic_load_explicit(&r->shared->status, memory_order_relaxed) == NYX_OK;
}

static char *scratch(const low_run *r, int64_t bytes) {
  char *block = nyx_memory_alloc((size_t)bytes);
  if (block) return block;
  atomic_store(&r->shared->bytes, bytes);
  atomic_store(&r->shared->status, NYX_ERR_MEMORY);
  return NULL;
}

/* Where panels lie: all those of the first block of terms, then the next block's. */
static int64_t block_terms(const low_run *r, int64_t l) {
  return round_up(least(r->depth, r->p.k - l), r->kernel->step);
}
static char *a_panel(const low_run *r, int64_t l, int64_t panel) {
  const nyx_low_kernel *k = r->kernel;
  int64_t packed = r->a_panels - r->in_place;
  int64_t terms = l * packed + block_terms(r, l) * (panel - r->in_place);
  return r->a + terms * k->tile_rows * k->item;
}
static char *b_panel(const low_run *r, int64_t l, int64_t panel) {
  const nyx_low_kernel *k = r->kernel;
  int64_t terms = l * r->b_panels + block_terms(r, l) * panel;
  int64_t before = l / r->depth * r->b_panels + panel;
  return r->b + terms * k->tile_cols * k->item + before * k->extra;
}

/* Panels that are packed together: whole cache lines, and whole vectors, of bytes. */
static int64_t group_of(int64_t tile) {
  int64_t group = 1;
  while (tile * group < 64 || tile * group % 16) group++;
  return group;
}

/* How many such groups a block of terms has. */
static int64_t packs(const low_run *r) {
  int64_t count = parts_of(r->a_panels - r->in_place, r->a_group);
  return r->pack_b ? count + parts_of(r->b_panels, r->b_group) : count;
}

/* Terms from l on of rows from i on, or of columns from j on. */
static void pack_a(const low_run *r, int64_t l, int64_t i, int64_t rows, char *panels) {
  const nyx_product *p = &r->p;
  int64_t terms = least(r->depth, p->k - l), at = i * p->a_rs + l * p->a_cs;
  r->kernel->pack_a((const char *)p->a + at * r->item, p->a_rs, p->a_cs,
                    least(rows, p->m - i), terms, panels);
}
static void pack_b(const low_run *r, int64_t l, int64_t j, int64_t cols, char *panels) {
  const nyx_product *p = &r->p;
  int64_t terms = least(r->depth, p->k - l), at = l * p->b_rs + j * p->b_cs;
  r->kernel->pack_b((const char *)p->b + at * r->item, p->b_rs, p->b_cs, terms,
                    least(cols, p->n - j), panels);
}

/* Items are a block of terms and some panels of it, A's before B's. */
static void pack_panels(void *arg, int64_t begin, int64_t end) {
  const low_run *r = arg;
  int64_t from_a = parts_of(r->a_panels - r->in_place, r->a_group), count = packs(r);
  int64_t rows = r->a_group * r->kernel->tile_rows;
  int64_t cols = r->b_group * r->kernel->tile_cols;
  for (int64_t item = begin; item < end && going(r); item++) {
    int64_t l = item / count * r->depth, at = item % count, of_b = at - from_a;
    if (at < from_a) {
      int64_t panel = r->in_place + at * r->a_group;
      pack_a(r, l, panel * r->kernel->tile_rows, rows, a_panel(r, l, panel));
    } else {
      pack_b(r, l, of_b * cols, cols, b_panel(r, l, of_b * r->b_group));
    }
  }
}

/* n sums of row i, from column j on, to C. */
static void store_row(const low_run *r, int64_t i, int64_t j, int64_t n, void *from) {
  void *to = (char *)r->p.c + (i * r->p.ldc + j) * r->out_item;
  if (r->out == NYX_INT32) {
    memcpy(to, from, (size_t)n * 4);
  } else {
    nyx__epilogue_store(r->after, r->out, from, r->row + i, r->col + j, n, to);
  }
}

/* What a thread that multiplies units has for itself: the sums of one, and where it packs
 * for itself panels of a block of its rows and columns. */
typedef struct low_room {
  char *c, *a, *b;
  int64_t row; /* own: the first row in `a`, or -1 */
} low_room;

static bool make_room(const low_run *r, low_room *room) {
  const nyx_low_kernel *kernel = r->kernel;
  int64_t terms = block_terms(r, 0), sums = r->unit_rows * r->unit_cols * 4;
  int64_t rows = round_up(r->unit_rows * terms * kernel->item, 64);
  int64_t cols = r->unit_cols * terms * kernel->item;
  cols += r->unit_cols / kernel->tile_cols * kernel->extra;
  *room = (low_room){.row = -1};
  room->c = scratch(r, r->own || r->alone ? sums + rows + cols : sums);
  room->a = room->c + sums;
  room->b = room->a + rows;
  return room->c != NULL;
}

/* A block of terms, from l on, of the rows from i on: those in place, then packed ones.
 */
static void multiply_rows(const low_run *r, const low_room *room, int64_t i, int64_t l,
                          nyx_low_block *all) {
  const nyx_low_kernel *kernel = r->kernel;
  int64_t here = r->in_place * kernel->tile_rows - i;
  here = least(here > 0 ? here : 0, all->rows);
  nyx_low_block block = *all;
  if (here) {
    block.rows = here;
    block.a = (const char *)r->p.a + (i * r->p.a_rs + l) * r->item;
    block.a_pitch = r->p.a_rs * r->item;
    kernel->block(&block);
  }
  if (here == all->rows) return;
  block.rows = all->rows - here;
  block.a_pitch = 0;
  block.c = (char *)all->c + here * all->ldc * 4;
  char *a = r->alone ? room->a
            : r->own ? room->a + (i - room->row) * block.terms * kernel->item
                     : a_panel(r, l, (i + here) / kernel->tile_rows);
  if (r->alone) pack_a(r, l, i + here, block.rows, a);
  block.a = a;
  kernel->block(&block);
}

/* Rows i and columns j of C, terms first to last, in `c`, whose rows are ldc apart. */
static void sum_unit(const low_run *r, const low_room *room, int64_t i, int64_t rows,
                     int64_t j, int64_t cols, int64_t first, int64_t last, char *c,
                     int64_t ldc) {
  nyx_low_block block = {.rows = rows, .cols = cols, .c = c, .ldc = ldc};
  const nyx_region region = {c, ldc, 0, rows, r->col + j, least(cols, r->p.n - j)};
  block.add = r->parts == 1 && nyx__epilogue_begin(r->after, NYX_FLOAT32, &region);
  for (int64_t l = first; l < last && going(r); l += r->depth, block.add = true) {
    block.terms = block_terms(r, l);
    char *b = r->alone || r->own ? room->b : b_panel(r, l, j / r->kernel->tile_cols);
    if (r->alone) pack_b(r, l, j, cols, b);
    block.b = b;
    multiply_rows(r, room, i, l, &block);
  }
  for (int64_t row = 0; row < rows && !block.add; row++)
    memset(c + row * ldc * 4, 0, (size_t)cols * 4);
}

/* Rows of a unit that are summed where they belong: whole tiles of int32 whose terms are
 * one block. More blocks would add to rows that are far apart. */
static int64_t rows_there(const low_run *r, int64_t rows, int64_t cols) {
  const nyx_low_kernel *kernel = r->kernel;
  if (r->out != NYX_INT32 || r->parts > 1 || r->alone || r->p.k > r->depth) return 0;
  return cols % kernel->tile_cols ? 0 : rows / kernel->tile_rows * kernel->tile_rows;
}

static void multiply_unit(const low_run *r, int64_t unit, const low_room *room) {
  const nyx_low_kernel *kernel = r->kernel;
  const nyx_product *p = &r->p;
  int64_t part = unit / r->units, at = unit % r->units;
  int64_t i = at / r->col_units * r->unit_rows, j = at % r->col_units * r->unit_cols;
  int64_t live_rows = least(r->unit_rows, p->m - i);
  int64_t live_cols = least(r->unit_cols, p->n - j);
  int64_t first = part * r->part_terms, last = least(first + r->part_terms, p->k);
  int64_t there = rows_there(r, live_rows, live_cols);
  if (there)
    sum_unit(r, room, i, there, j, live_cols, first, last,
             (char *)p->c + (i * p->ldc + j) * 4, p->ldc);
  i += there;
  live_rows -= there;
  if (live_rows)
    sum_unit(r, room, i, round_up(live_rows, kernel->tile_rows), j,
             round_up(live_cols, kernel->tile_cols), first, last, room->c, r->unit_cols);
  for (int64_t row = 0; row < live_rows; row++) {
    char *from = room->c + row * r->unit_cols * 4;
    if (r->parts > 1) {
      int64_t to = (part * p->m + i + row) * p->n + j;
      memcpy(r->partial + to * 4, from, (size_t)live_cols * 4);
    } else {
      store_row(r, i + row, j, live_cols, from);
    }
  }
}

static void multiply_units(void *arg, int64_t begin, int64_t end) {
  low_run *r = arg;
  low_room room;
  if (!make_room(r, &room)) return;
  if (r->kernel->begin) r->kernel->begin();
  for (int64_t unit = begin; unit < end && going(r); unit++)
    multiply_unit(r, unit, &room);
  if (r->kernel->end) r->kernel->end();
  nyx_memory_free(room.c);
}

/* What nobody has begun of a unit of rows, some columns at a time. */
static void multiply_left(const low_run *r, int64_t row, low_room *room) {
  const int64_t i = row * r->unit_rows;
  int64_t at;
  while (r->next_col[row] < r->col_units && going(r) &&
         (at = r->next_col[row]++) < r->col_units) {
    if (room->row != i) pack_a(r, 0, i, r->unit_rows, room->a);
    room->row = i;
    const int64_t j = at * r->unit_cols;
    pack_b(r, 0, j, r->unit_cols, room->b);
    multiply_unit(r, row * r->col_units + at, room);
  }
}

/* Items are threads: each has its own rows, then helps with what is left of others'. */
static void multiply_own(void *arg, int64_t begin, int64_t end) {
  const low_run *r = arg;
  const int64_t rows = r->units / r->col_units, threads = nyx_parallel_threads();
  low_room room;
  if (!make_room(r, &room)) return;
  for (int64_t thread = begin; thread < end; thread++) {
    int64_t last = thread;
    for (int64_t row = thread; row < rows; last = row, row += threads)
      multiply_left(r, row, &room);
    for (int64_t k = 1; k <= rows; k++)
      multiply_left(r, (last + rows - k % rows) % rows, &room);
  }
  nyx_memory_free(room.c);
}

/* Rows of C from the sums of the parts, in order. */
static void sum_parts(void *arg, int64_t begin, int64_t end) {
  const low_run *r = arg;
  const nyx_product *p = &r->p;
  union {
    float f[512];
    uint32_t u[512];
  } sum;
  for (int64_t i = begin; i < end; i++) {
    for (int64_t j = 0; j < p->n; j += 512) {
      int64_t n = least(512, p->n - j);
      memset(&sum, 0, sizeof sum);
      const nyx_region region = {&sum, n, 0, 1, r->col + j, n};
      nyx__epilogue_begin(r->after, NYX_FLOAT32, &region);
      for (int64_t part = 0; part < r->parts; part++) {
        const char *from = r->partial + ((part * p->m + i) * p->n + j) * 4;
        if (r->out != NYX_INT32) {
          for (int64_t e = 0; e < n; e++) sum.f[e] += ((const float *)from)[e];
        } else {
          for (int64_t e = 0; e < n; e++) sum.u[e] += ((const uint32_t *)from)[e];
        }
      }
      store_row(r, i, j, n, &sum);
    }
  }
}

/* Panels of A whose rows the kernel takes as they are: whole cache lines, not so far
 * apart that a unit's rows would share few places of the second cache. */
static int64_t panels_in_place(const low_run *r) {
  const nyx_product *p = &r->p;
  int64_t pitch = p->a_rs * r->item;
  if (!r->kernel->in_place || r->way == NYX__LOW_PACKED) return 0;
  if (p->a_cs != 1 && p->k > 1) return 0;
  if (pitch <= 0 || pitch % 64 || (pitch & -pitch) > FARTHEST) return 0;
  if (((uintptr_t)p->a & 63) || p->k % r->kernel->step) return 0;
  return p->m / r->kernel->tile_rows;
}

/* The sides of units in tiles: no larger than *rows and *cols, and so small that there
 * are `wanted` where C has that many tiles. */
static void shrink_units(const low_run *r, int64_t wanted, int64_t *rows, int64_t *cols) {
  while (parts_of(r->a_panels, *rows) * parts_of(r->b_panels, *cols) < wanted) {
    if (*cols > 2 && *cols >= *rows / 2) {
      *cols = (*cols + 1) / 2;
    } else if (*rows > 2) {
      *rows = (*rows + 1) / 2;
    } else {
      return;
    }
  }
}

static void set_units(low_run *r, int64_t rows, int64_t cols) {
  int64_t row_units = parts_of(r->a_panels, rows);
  r->col_units = parts_of(r->b_panels, cols);
  r->unit_rows = parts_of(r->a_panels, row_units) * r->kernel->tile_rows;
  r->unit_cols = parts_of(r->b_panels, r->col_units) * r->kernel->tile_cols;
  r->units = parts_of(r->p.m, r->unit_rows) * r->col_units;
}

/* Panels of A of a thread that packs all that it multiplies, its rows and some columns
 * after the others, which stay in its second cache: panels that another core has had are
 * written at the speed of the last one. 0: it would pack columns for too few rows, or has
 * more than fit. Measured of bytes. */
static int64_t own_panels(const low_run *r) {
  const nyx_low_kernel *kernel = r->kernel;
  if (r->out != NYX_INT32 || kernel->begin || r->keep || r->p.k > r->depth) return 0;
  if (!r->whole || nyx__parallel_inside()) return 0;
  if (r->way != NYX__LOW_SHARED && r->way != NYX__LOW_ONE) return 0;
  int64_t panels = parts_of(r->a_panels, nyx_parallel_threads());
  int64_t rows = panels * kernel->tile_rows, terms = round_up(r->p.k, kernel->step);
  bool fits = rows * terms * kernel->item <= nyx__gemm_in_place_bytes() / 2;
  return fits && rows >= OWN_ROWS ? panels : 0;
}

/* Units of equal size, as many as are wanted where C has that many tiles; a long sum for
 * few results is cut into parts of whole blocks. Many threads have smaller units, which
 * changes no result; parts would. */
static void divide(low_run *r) {
  const nyx_low_kernel *kernel = r->kernel;
  const int64_t unit = unit_of(r->way), each = nyx_parallel_threads() * UNITS_EACH;
  int64_t rows = unit / kernel->tile_rows, cols = unit / kernel->tile_cols;
  r->a_panels = parts_of(r->p.m, kernel->tile_rows);
  r->b_panels = parts_of(r->p.n, kernel->tile_cols);
  r->in_place = panels_in_place(r);
  r->a_group = group_of(kernel->tile_rows);
  r->b_group = group_of(kernel->tile_cols);
  bool large = times(times(r->p.m, r->p.n), r->p.k) >= LARGE;
  if (large) shrink_units(r, UNITS, &rows, &cols);
  set_units(r, rows, cols);
  r->alone = r->units == 1;
  int64_t blocks = parts_of(r->p.k, r->depth), parts = large ? UNITS / r->units : 1;
  if (parts > blocks / 2) parts = blocks / 2;
  r->part_terms = parts > 1 ? parts_of(blocks, parts) * r->depth : r->p.k;
  r->parts = parts > 1 ? parts_of(r->p.k, r->part_terms) : 1;
  r->own = false;
  if (!large || r->alone || r->parts > 1) return;
  const int64_t own = own_panels(r);
  if ((r->own = own > 0)) {
    set_units(r, own, OWN_COLS / kernel->tile_cols);
    return;
  }
  if (r->units >= each) return;
  shrink_units(r, each, &rows, &cols);
  set_units(r, rows, cols);
}

/* C of r->p, with the panels of A, and of B unless they are packed already. */
static void multiply(low_run *r, bool pack_b) {
  r->pack_b = pack_b;
  r->partial = NULL;
  if (r->parts > 1 && !(r->partial = scratch(r, r->parts * r->p.m * r->p.n * 4))) return;
  if (r->own) {
    const int64_t rows = r->units / r->col_units;
    r->next_col = (void *)scratch(r, rows * (int64_t)sizeof *r->next_col);
    if (!r->next_col) return;
    for (int64_t row = 0; row < rows; row++) atomic_init(&r->next_col[row], 0);
    share(r, nyx_parallel_threads(), 1, multiply_own, r);
    nyx_memory_free((void *)r->next_col);
    return;
  }
  if (!r->alone)
    share(r, parts_of(r->p.k, r->depth) * packs(r), PACK_GRAIN, pack_panels, r);
  int64_t work = times(times(r->unit_rows, r->unit_cols), r->part_terms);
  share(r, r->units * r->parts, grain_of(work), multiply_units, r);
  if (r->parts > 1 && going(r)) {
    int64_t row = r->p.n * (r->parts + 1);
    share(r, r->p.m, parts_of(RANGE / 16, row), sum_parts, r);
  }
  nyx_memory_free(r->partial);
}

/* Bytes of all panels of `lanes` rows or columns, a multiple of 64. */
static int64_t packed_bytes(const low_run *r, int64_t lanes, int64_t tile,
                            int64_t extra) {
  int64_t panels = parts_of(lanes, tile), steps = parts_of(r->p.k, r->kernel->step);
  int64_t bytes = times(times(steps, r->kernel->step * r->kernel->item), panels * tile);
  int64_t more = times(parts_of(r->p.k, r->depth) * panels, extra);
  if (bytes > INT64_MAX / 8 || more > INT64_MAX / 8) return INT64_MAX / 4;
  return round_up(bytes + more, 64);
}

/* Panels of the whole B, kept: for each PACKED columns what pack_panels makes of them. */
typedef struct whole_b {
  low_run r;
  int64_t n;
  char *panels;
} whole_b;

static int64_t block_bytes(const low_run *r, int64_t n) {
  return packed_bytes(r, n, r->kernel->tile_cols, r->kernel->extra);
}

/* Items are a block of terms and some panels. Not to be interrupted: it is kept. */
static void pack_kept(void *arg, int64_t begin, int64_t end) {
  const low_run *r = arg;
  int64_t count = parts_of(r->b_panels, r->b_group);
  int64_t cols = r->b_group * r->kernel->tile_cols;
  for (int64_t item = begin; item < end; item++) {
    int64_t l = item / count * r->depth, at = item % count;
    pack_b(r, l, at * cols, cols, b_panel(r, l, at * r->b_group));
  }
}

static bool make_whole(void *arg, void *data) {
  whole_b *w = arg;
  low_run *r = &w->r;
  const char *from = r->p.b;
  for (int64_t j = 0; j < w->n; j += PACKED) {
    r->p.n = least(w->n - j, PACKED);
    r->p.b = from + j * r->p.b_cs * r->item;
    r->b = (char *)data + j / PACKED * block_bytes(r, PACKED);
    r->b_panels = parts_of(r->p.n, r->kernel->tile_cols);
    int64_t count = parts_of(r->p.k, r->depth) * parts_of(r->b_panels, r->b_group);
    nyx_parallel_for(count, PACK_GRAIN, pack_kept, r);
  }
  return true;
}

/* The kept panels of the B of `all`; NULL: there are none. */
static nyx__packed *kept_panels(const low_run *r, const nyx_product *all) {
  if (!r->keep || r->alone) return NULL;
  whole_b w = {.r = *r, .n = all->n};
  w.r.p = *all;
  const nyx__packed_key key = {.kind = NYX_PACKED_LOW_B,
                               .kernel = r->kernel,
                               .from = all->b,
                               .size = {all->k, all->n, all->b_rs, all->b_cs}};
  int64_t full = all->n / PACKED, bytes = full * block_bytes(&w.r, PACKED);
  bytes += block_bytes(&w.r, all->n % PACKED);
  return nyx__packed_get(r->keep, &key, (size_t)bytes, make_whole, &w);
}

/* A few rows of a half type: B is read once, as it is. Its terms lie together, as those
 * of a weight do, or its columns. */
typedef struct few_run {
  const low_run *r;
  bool dots;       /* the terms do */
  nyx_low_dot dot; /* one row; else: by floats that `gather` makes */
  nyx_gather_fn gather;
  float *x, *packed; /* rows as floats; as the kernel wants them */
  int64_t cols;      /* of an item, at most FEW_COLS */
} few_run;

/* Rows of y lie `apart`. */
static void store_few(const low_run *r, int64_t j, int64_t n, float *y, int64_t apart) {
  const float *bias = r->after ? r->after->bias : NULL;
  for (int64_t i = 0; i < r->p.m; i++, y += apart) {
    for (int64_t e = 0; e < n && bias; e++) y[e] += bias[r->col + j + e];
    store_row(r, i, j, n, y);
  }
}

static void multiply_row(void *arg, int64_t begin, int64_t end) {
  const few_run *w = arg;
  const nyx_product *p = &w->r->p;
  float y[FEW_COLS];
  for (int64_t j = begin; j < end && going(w->r); j += FEW_COLS) {
    int64_t n = least(FEW_COLS, end - j);
    w->dot((const char *)p->b + j * p->b_cs * w->r->item, p->b_cs, n, w->x, p->k, y);
    store_few(w->r, j, n, y, FEW_COLS);
  }
}

static void widen_half(const nyx_narrow_columns *b, int64_t column, int64_t first,
                       int64_t count, float *to) {
  const few_run *w = b->detail;
  w->gather(count, b->from + column * b->pitch + first * w->r->item, 1, to);
}

/* Items are some columns. */
static void multiply_rows_once(void *arg, int64_t begin, int64_t end) {
  const few_run *w = arg;
  const nyx_product *p = &w->r->p;
  const nyx_narrow_kernels *kernel = nyx__cpu_kernels()->narrow;
  const int64_t pitch = p->b_cs * w->r->item;
  float y[NYX_FEW_MOST * FEW_COLS];
  for (int64_t item = begin; item < end && going(w->r); item++) {
    int64_t first = item * w->cols, n = least(w->cols, p->n - first);
    for (int64_t j = 0; j < n; j += kernel->cols) {
      const nyx_narrow_columns columns = {
          .widen = widen_half,
          .count = least(kernel->cols, n - j),
          .from = (const char *)p->b + (first + j) * pitch,
          .pitch = pitch,
          .bits = 16,
          .detail = w};
      kernel->dots(&columns, w->packed, p->m, p->k, y + j, FEW_COLS);
    }
    store_few(w->r, first, n, y, FEW_COLS);
  }
}

static const nyx_gemm_kernel *float_kernel(void) {
  return &nyx__cpu_kernels()->gemm->type[0];
}

/* The rows as floats times `cols` of B's columns as floats. */
static nyx_product few_product(const few_run *w, const float *b, int64_t cols,
                               int64_t terms, float *y) {
  return (nyx_product){.m = w->r->p.m,
                       .n = cols,
                       .k = terms,
                       .a = w->x,
                       .a_rs = w->r->p.k,
                       .a_cs = 1,
                       .b = b,
                       .b_rs = SUM_COLS,
                       .b_cs = 1,
                       .c = y,
                       .ldc = SUM_COLS};
}

/* Terms of n columns from `first` on as floats. The same columns of the terms behind them
 * are asked for: rows are too far apart to be foreseen, and to stay in the first cache.
 */
static void widen_terms(const few_run *w, int64_t l, int64_t terms, int64_t first,
                        int64_t n, float *to) {
  const nyx_product *p = &w->r->p;
  const int64_t pitch = p->b_rs * w->r->item;
  const char *from = (const char *)p->b + l * pitch + first * w->r->item;
  for (int64_t t = 0; t < terms; t++, from += pitch) {
    for (int64_t e = 0; e < n * w->r->item && l + t + SUM_TERMS < p->k; e += 64)
      __builtin_prefetch(from + SUM_TERMS * pitch + e, 0, 2);
    w->gather(n, from, 1, to + t * SUM_COLS);
  }
}

/* n columns from `first` on, terms l to `end`, in y; `floats` is room for what of B is
 * floats at a time. */
static void sum_span(const few_run *w, int64_t l, int64_t end, int64_t first, int64_t n,
                     float *floats, float *y) {
  nyx_product part = few_product(w, floats, n, 0, y);
  for (; l < end; l += SUM_TERMS, part.add = true) {
    part.k = least(SUM_TERMS, end - l);
    widen_terms(w, l, part.k, first, n, floats);
    float_kernel()->few_near(&part, w->packed + l * part.m);
  }
}

/* Items are SUM_COLS columns. */
static void sum_rows_once(void *arg, int64_t begin, int64_t end) {
  const few_run *w = arg;
  const nyx_product *p = &w->r->p;
  const int64_t sums = p->m * SUM_COLS;
  float *y = (float *)(void *)scratch(
      w->r, (SUM_TERMS * SUM_COLS + 2 * sums) * (int64_t)sizeof *y);
  if (!y) return;
  float *part = y + sums, *floats = part + sums;
  for (int64_t item = begin; item < end && going(w->r); item++) {
    int64_t first = item * SUM_COLS, n = least(SUM_COLS, p->n - first);
    sum_span(w, 0, least(p->k, SUM_SPAN), first, n, floats, y);
    for (int64_t l = SUM_SPAN; l < p->k && going(w->r); l += SUM_SPAN) {
      sum_span(w, l, least(p->k, l + SUM_SPAN), first, n, floats, part);
      for (int64_t i = 0; i < p->m; i++)
        for (int64_t e = i * SUM_COLS; e < i * SUM_COLS + n; e++) y[e] += part[e];
    }
    store_few(w->r, first, n, y, SUM_COLS);
  }
  nyx_memory_free(y);
}

/* Items are four rows of A. */
static void convert_rows(void *arg, int64_t begin, int64_t end) {
  const few_run *w = arg;
  const nyx_product *p = &w->r->p;
  for (int64_t i = 4 * begin; i < p->m && i < 4 * end; i += 4) {
    int64_t count = least(4, p->m - i);
    for (int64_t e = i; e < i + count; e++)
      w->gather(p->k, (const char *)p->a + e * p->a_rs * w->r->item, p->a_cs,
                w->x + e * p->k);
    if (w->packed && w->dots)
      nyx__cpu_kernels()->narrow->pack(w->x + i * p->k, p->k, i, count, p->k, w->packed);
  }
}

/* Whether it takes less time than panels do, of which the other ways are. Kept ones, and
 * those of a matrix that stays in the second cache, are better for more rows than some,
 * the latter only of dot products or where there is a unit; tiles for any. */
static bool few_pays(const low_run *r, bool dots) {
  const nyx_product *p = &r->p;
  if (p->m == 1) return true;
  if (r->kernel->begin || (r->way != NYX__LOW_SHARED && r->way != NYX__LOW_ONE))
    return false;
  if (p->m <= FEW_ROWS) return true;
  if (r->keep || p->m > (dots ? nyx__cpu_kernels()->narrow->most : NYX_FEW_MOST))
    return false;
  if (!dots && r->kernel->item == sizeof(float)) return true;
  return times(times(p->n, p->k), r->item) > nyx__gemm_in_place_bytes();
}

/* Whether it did so. */
static bool multiply_few(const low_run *r, nyx_dtype dtype) {
  const nyx_low_kernels *kernels = nyx__low_kernels();
  const nyx_product *p = &r->p;
  few_run w = {.r = r, .dots = p->b_rs == 1};
  const nyx_narrow_kernels *narrow = nyx__cpu_kernels()->narrow;
  if (dtype == NYX_BFLOAT16) w.dot = kernels->dot_bf16;
  if (dtype == NYX_FLOAT16) w.dot = kernels->dot_f16;
  if (!w.dot || !few_pays(r, w.dots) || p->k < 1) return false;
  if (!w.dots && p->b_cs != 1) return false;
  int64_t room = p->m > 1 || !w.dots ? nyx_narrow_room(p->m, p->k) : 0;
  float *x = (float *)(void *)scratch(r, (room + p->m * p->k) * (int64_t)sizeof *x);
  if (!x) return true;
  w.gather = nyx__cpu_kernels()->elementwise->gather[dtype][NYX_IN_FLOAT32];
  w.x = x + room;
  w.packed = room ? x : NULL;
  share(r, parts_of(p->m, 4), grain_of(4 * p->k), convert_rows, &w);
  if (!w.dots) {
    const nyx_product all = few_product(&w, NULL, p->n, p->k, NULL);
    float_kernel()->pack_few(&all, false, w.packed);
    share(r, parts_of(p->n, SUM_COLS), grain_of(SUM_COLS * p->k * (4 + p->m)),
          sum_rows_once, &w);
    nyx_memory_free(x);
    return true;
  }
  w.cols = FEW_COLS;
  if (times(times(p->m, p->n), p->k) >= LARGE)
    w.cols = least(FEW_COLS, round_up(parts_of(p->n, UNITS), narrow->cols));
  if (p->m == 1)
    share(r, p->n, grain_of(8 * p->k), multiply_row, &w);
  else
    share(r, parts_of(p->n, w.cols), grain_of(w.cols * p->k * (4 + p->m)),
          multiply_rows_once, &w);
  nyx_memory_free(x);
  return true;
}

/* One product, by blocks of PACKED rows and columns. */
static void multiply_all(low_run *r) {
  const nyx_product all = r->p;
  const int64_t row = r->row;
  const nyx_low_kernel *kernel = r->kernel;
  const int64_t most = PACKED / kernel->tile_rows * kernel->tile_rows;
  r->p.m = least(all.m, most), r->p.n = least(all.n, PACKED);
  r->whole = r->p.m == all.m && r->p.n == all.n;
  divide(r);
  int64_t packed = r->in_place ? kernel->tile_rows : r->p.m;
  int64_t a_bytes = packed_bytes(r, packed, kernel->tile_rows, 0);
  int64_t b_bytes = block_bytes(r, r->p.n);
  nyx__packed *kept = kept_panels(r, &all);
  if (!r->alone && !r->own) {
    if (!(r->a = scratch(r, kept ? a_bytes : a_bytes + b_bytes))) {
      nyx__packed_release(kept);
      return;
    }
    r->b = r->a + a_bytes;
  }
  for (int64_t j = 0; j < all.n; j += PACKED) {
    for (int64_t i = 0; i < all.m && going(r); i += most) {
      r->p.m = least(all.m - i, most), r->p.n = least(all.n - j, PACKED);
      r->p.a = (const char *)all.a + i * all.a_rs * r->item;
      r->p.b = (const char *)all.b + j * all.b_cs * r->item;
      r->p.c = (char *)all.c + (i * all.ldc + j) * r->out_item;
      r->row = row + i, r->col = j;
      if (kept) r->b = (char *)kept->data + j / PACKED * block_bytes(r, PACKED);
      divide(r);
      multiply(r, i == 0 && !kept);
    }
  }
  nyx__packed_release(kept);
  nyx_memory_free(r->a);
}

typedef struct low_batch {
  const nyx_gemm *g;
  const low_run *run;
} low_batch;

static void multiply_entries(void *arg, int64_t begin, int64_t end) {
  const low_batch *b = arg;
  const nyx_gemm *g = b->g;
  for (int64_t index = begin; index < end; index++) {
    low_run r = *b->run;
    int64_t rest = index, a = 0, c = 0;
    for (int d = g->batch_ndim - 1; d >= 0; d--) {
      a += rest % g->batch_shape[d] * g->a_batch[d];
      c += rest % g->batch_shape[d] * g->b_batch[d];
      rest /= g->batch_shape[d];
    }
    r.p.a = (const char *)r.p.a + a * r.item;
    r.p.b = (const char *)r.p.b + c * r.item;
    r.p.c = (char *)r.p.c + index * r.p.m * r.p.ldc * r.out_item;
    r.row = index * r.p.m;
    if (!going(&r)) return;
    if (!multiply_few(&r, g->dtype)) multiply_all(&r);
  }
}

uint32_t nyx__gemm_low_usable(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  const low_run r = {
      .kernel = kernel_of(g->dtype), .p = *p, .item = (int64_t)nyx_dtype_size(g->dtype)};
  uint32_t usable = 1u << NYX__LOW_SHARED;
  if (p->m == 1) return usable;
  usable |= 1u << NYX__LOW_ONE;
  if (p->k > r.kernel->depth / 2) usable |= 1u << NYX__LOW_SHALLOW;
  if (p->k > r.kernel->depth) usable |= 1u << NYX__LOW_DEEP;
  if (p->m > UNIT / 2 || p->n > UNIT / 2) usable |= 1u << NYX__LOW_SMALL;
  if (times(p->m, p->n) > UNITS * UNIT * UNIT) usable |= 1u << NYX__LOW_LARGE;
  if (panels_in_place(&r)) usable |= 1u << NYX__LOW_PACKED;
  return usable;
}

nyx_status nyx__gemm_low_by(nyx_context *ctx, const nyx_gemm *g, nyx_dtype out,
                            nyx__low_way way) {
  int64_t count = 1;
  for (int d = 0; d < g->batch_ndim; d++) count *= g->batch_shape[d];
  if (count < 1 || g->product.m < 1 || g->product.n < 1) return NYX_OK;
  low_shared shared;
  atomic_init(&shared.status, NYX_OK);
  atomic_init(&shared.bytes, 0);
  const nyx_low_kernel *kernel = kernel_of(g->dtype);
  const low_run run = {.ctx = ctx,
                       .kernel = kernel,
                       .way = way,
                       .depth = depth_of(kernel, way),
                       .p = g->product,
                       .item = (int64_t)nyx_dtype_size(g->dtype),
                       .out_item = (int64_t)nyx_dtype_size(out),
                       .out = out,
                       .after = g->after,
                       .keep = count == 1 ? g->keep_b : NULL,
                       .shared = &shared};
  low_batch b = {g, &run};
  /* Many products: one for each thread. Few large ones: all threads for each. */
  int64_t work = times(times(g->product.m, g->product.n), g->product.k);
  if (count >= UNITS || work < LARGE) {
    nyx_parallel_for(count, way == NYX__LOW_ONE ? count : grain_of(work),
                     multiply_entries, &b);
  } else {
    multiply_entries(&b, 0, count);
  }
  switch (atomic_load(&shared.status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(ctx, INTERRUPTED);
    default: return nyx__no_memory(ctx, (size_t)atomic_load(&shared.bytes));
  }
}
