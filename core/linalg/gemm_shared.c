/* One large product of the built-in kind by all threads. Each takes some rows of A, packs
 * them for itself and multiplies them with the columns of B, which lie where they are or
 * in panels that the threads have in common. What is needed next, rows or columns, is
 * packed piece by piece while tiles are multiplied, where `meanwhile` says so. Who finds
 * no more rows of its own helps with what is left of the others' columns: a core may have
 * a neighbour that makes it a third slower than the next. Read next: gemm_run.h,
 * kernels/cpu/gemm.h. */
#include <nyx/parallel.h>
#include <sched.h>

#include "../base/cpu.h"
#include "../tensor/packed.h"
#include "gemm_run.h"

/* Columns of B packed at a time, and bytes; multiplications of a block that is worth a
 * span of its own; units of a thread; terms of a block, at most. */
#define SHARED_COLS 4096
#define SPAN_BYTES (32 << 20)
#define SPAN_WORK (1 << 26)
#define UNITS 32
#define DEEPEST 1024
#define GROUP_TILES 2       /* of columns that one thread packs at a time */
#define MEANWHILE_TERMS 384 /* of a tile that is worth packing besides */
#define OWN_TILES 2         /* for itself, just before it multiplies them */
#define SPINS 1000          /* before a core is left to whoever packs what is needed */

typedef struct shared_run {
  gemm_run *r;
  const nyx_gemm_kernel *kernel;
  nyx_product p;    /* the span and the columns at hand */
  int64_t width;    /* of the panels of A */
  int64_t depth;    /* terms of a block */
  char *b;          /* panels, block by block, or NULL */
  int64_t own_cols; /* of B that a thread packs for itself, just before; 0: none */
  const char *kept; /* panels of all of A, block by block; NULL: units pack */
  int64_t panels, row_units, unit_cols, col_units;
  int64_t row, col;           /* where p begins in all results */
  bool first, last;           /* the span holds the first, the last terms */
  int64_t threads;            /* at most so many take part */
  int64_t group_cols, groups; /* columns of a group; groups of a unit */
  _Atomic int64_t *next_col;  /* of each unit of rows, what is not begun */
  atomic_uchar *group;        /* of each: NONE, PACKING, PACKED */
} shared_run;

enum { NONE, PACKING, PACKED };

/* A thread's rows: those at hand, and those that are packed meanwhile. */
typedef struct worker {
  shared_run *s;
  char *room[2];                    /* the first has those at hand */
  char *own[2];                     /* columns, the same */
  char *stage;                      /* of the rows; behind it of columns */
  int64_t row, l, next_row, next_l; /* -1: none */
  nyx_packing next;
} worker;

static int64_t padded(const shared_run *s, int64_t cols) {
  return parts_of(cols, s->kernel->tile_cols) * s->kernel->tile_cols;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Where the panels of B of the block from term l on, and from column j on, lie. */
static char *panels_at(const shared_run *s, int64_t l, int64_t j) {
  int64_t terms = least(s->depth, s->p.k - l);
  return s->b + (l * padded(s, s->p.n) + j * terms) * s->r->item;
}

/* Columns j to j + cols - 1 of B, terms from l on, on their way there. */
static nyx_packing packing_columns(const shared_run *s, int64_t l, int64_t j,
                                   int64_t cols, int64_t tiles, char *stage) {
  const nyx_product *p = &s->p;
  nyx_packing h = {.from = (const char *)p->b + (l * p->b_rs + j * p->b_cs) * s->r->item,
                   .across = p->b_cs,
                   .along = p->b_rs,
                   .count = cols,
                   .depth = least(s->depth, p->k - l),
                   .width = s->kernel->tile_cols,
                   .fill = true,
                   .panels = panels_at(s, l, j),
                   .stage = stage};
  s->kernel->divide(&h, tiles);
  return h;
}

/* Columns of group `group` of unit `unit`, from *j on; 0: there is none. */
static int64_t columns_of(const shared_run *s, int64_t unit, int64_t group, int64_t *j) {
  int64_t end = least((unit + 1) * s->unit_cols, s->p.n);
  *j = unit * s->unit_cols + group * s->group_cols;
  return *j < end ? least(end - *j, s->group_cols) : 0;
}

static bool claim(atomic_uchar *group) {
  unsigned char none = NONE;
  return atomic_load_explicit(group, memory_order_relaxed) == NONE &&
         atomic_compare_exchange_strong(group, &none, PACKING);
}

/* Whether what comes next is packed while tiles are multiplied. Where B lies in place,
 * units are small, and so are their panels: packing them at once is as good. */
static bool meanwhile(const shared_run *s) {
  return s->b && s->depth >= MEANWHILE_TERMS;
}

/* A group of columns, packed by this thread or another. false: stopped before. */
static bool need_columns(shared_run *s, int64_t unit, int64_t index) {
  atomic_uchar *group = &s->group[unit * s->groups + index];
  int64_t j, cols = columns_of(s, unit, index, &j);
  if (claim(group)) {
    for (int64_t l = 0; l < s->p.k; l += s->depth) {
      nyx_packing h = packing_columns(s, l, j, cols, 0, NULL);
      s->kernel->pack(&h);
    }
    atomic_store_explicit(group, PACKED, memory_order_release);
  }
  for (int i = 0; atomic_load_explicit(group, memory_order_acquire) != PACKED; i++) {
    if (!going(s->r)) return false;
    if (i > SPINS) sched_yield();
  }
  return true;
}

/* The columns of a unit at hand, of one block, group by group. The next group is packed
 * meanwhile where nobody has begun to, else the next rows. */
static void multiply_groups(worker *w, const nyx_product *p, int64_t l, int64_t unit,
                            int64_t next_unit, const char *panels) {
  shared_run *s = w->s;
  int64_t j, cols, next_j;
  for (int64_t i = 0; (cols = columns_of(s, unit, i, &j)) > 0 && going(s->r); i++) {
    nyx_product q = *p;
    narrow(&q, s->r->item, 0, q.m, i * s->group_cols, cols, 0, q.k);
    if (!need_columns(s, unit, i)) return;
    bool inside = columns_of(s, unit, i + 1, &next_j) > 0;
    int64_t next = inside ? unit : next_unit, at = inside ? i + 1 : 0;
    int64_t next_cols = next >= 0 ? columns_of(s, next, at, &next_j) : 0;
    nyx_packing h;
    atomic_uchar *group = NULL;
    q.packing = &w->next;
    if (next_cols && (inside || s->p.k <= s->depth)) q.next = panels_at(s, l, next_j);
    if (next_cols && s->p.k <= s->depth && meanwhile(s) &&
        claim(&s->group[next * s->groups + at])) {
      int64_t tiles = parts_of(cols, s->kernel->tile_cols) * parts_of(q.m, s->width);
      group = &s->group[next * s->groups + at];
      h = packing_columns(s, l, next_j, next_cols, tiles, w->stage + NYX_STAGE_BYTES);
      q.packing = &h;
    }
    s->kernel->block(&q, s->width, panels, panels_at(s, l, j));
    if (!group) continue;
    s->kernel->pack(&h);
    atomic_store_explicit(group, PACKED, memory_order_release);
  }
}

/* Columns of p from j on, which a thread packs for itself. */
static nyx_packing packing_own(const worker *w, const nyx_product *p, int64_t j,
                               int64_t tiles, char *to) {
  const shared_run *s = w->s;
  nyx_packing h = {.from = (const char *)p->b + j * p->b_cs * s->r->item,
                   .across = p->b_cs,
                   .along = p->b_rs,
                   .count = least(p->n - j, s->own_cols),
                   .depth = p->k,
                   .width = s->kernel->tile_cols,
                   .fill = true,
                   .panels = to,
                   .stage = w->stage};
  s->kernel->divide(&h, tiles);
  return h;
}

/* p, some columns at a time, which are packed just before: while those before them are
 * multiplied, where that pays. */
static void multiply_packing(const worker *w, const nyx_product *p, const char *panels) {
  const shared_run *s = w->s;
  int64_t step = s->own_cols, tiles = step / s->kernel->tile_cols * s->panels;
  nyx_packing h = packing_own(w, p, 0, 0, w->own[0]);
  s->kernel->pack(&h);
  for (int64_t j = 0, at = 0; j < p->n; j += step, at = !at) {
    nyx_product q = *p;
    narrow(&q, s->r->item, 0, q.m, j, step, 0, q.k);
    bool more = j + step < p->n, besides = more && q.k >= MEANWHILE_TERMS;
    if (more) h = packing_own(w, p, j + step, besides ? tiles : 0, w->own[!at]);
    q.packing = besides ? &h : NULL;
    s->kernel->block(&q, s->width, panels, w->own[at]);
    if (more) s->kernel->pack(&h);
  }
}

/* Rows of unit `row`, from *i on. */
static int64_t rows_of(const shared_run *s, int64_t row, int64_t *i) {
  *i = s->panels * row / s->row_units * s->width;
  return least(s->panels * (row + 1) / s->row_units * s->width, s->p.m) - *i;
}

/* Those of the block from term l on, on their way into panels. */
static nyx_packing packing_rows(const shared_run *s, int64_t row, int64_t l, char *to,
                                int64_t tiles, char *stage) {
  const nyx_product *p = &s->p;
  int64_t i, rows = rows_of(s, row, &i);
  nyx_packing h = {.from = (const char *)p->a + (i * p->a_rs + l * p->a_cs) * s->r->item,
                   .across = p->a_rs,
                   .along = p->a_cs,
                   .count = rows,
                   .depth = least(s->depth, p->k - l),
                   .width = s->width,
                   .panels = to,
                   .stage = stage};
  s->kernel->divide(&h, tiles);
  return h;
}

/* The panels of a unit's rows, of the block from term l on. */
static const char *need_rows(worker *w, int64_t row, int64_t l) {
  const shared_run *s = w->s;
  if (s->kept) {
    int64_t i;
    rows_of(s, row, &i);
    return s->kept + (l * s->p.m + i * least(s->depth, s->p.k - l)) * s->r->item;
  }
  if (w->row == row && w->l == l) return w->room[0];
  if (w->next_row == row && w->next_l == l) {
    char *room = w->room[0];
    w->room[0] = w->room[1];
    w->room[1] = room;
  } else {
    w->next = packing_rows(s, row, l, w->room[0], 0, NULL);
  }
  s->kernel->pack(&w->next);
  w->next_row = -1;
  w->row = row;
  w->l = l;
  return w->room[0];
}

/* Begins with the rows of a block that is needed in `tiles` tiles. */
static void begin_rows(worker *w, int64_t row, int64_t l, int64_t tiles) {
  if (!meanwhile(w->s) || w->s->kept || row < 0) return;
  if (w->next_row == row && w->next_l == l) return;
  w->next = packing_rows(w->s, row, l, w->room[1], tiles, w->stage);
  w->next_row = row;
  w->next_l = l;
}

/* Columns `col` of unit `row`, block by block; `left` other units of columns come before
 * the rows of `next_row` (-1: none), the next of which is `next_col` (-1: none). */
static void multiply_unit(worker *w, int64_t row, int64_t col, int64_t next_row,
                          int64_t next_col, int64_t left) {
  shared_run *s = w->s;
  int64_t i, rows = rows_of(s, row, &i), j = col * s->unit_cols;
  nyx_product all = s->p;
  narrow(&all, s->r->item, i, rows, j, s->unit_cols, 0, all.k);
  const nyx_region region = {all.c, all.ldc, s->row + i, all.m, s->col + j, all.n};
  nyx_dtype dtype = s->r->g->dtype;
  bool add = s->first && nyx__epilogue_begin(s->r->g->after, dtype, &region);
  int64_t tiles = parts_of(all.n, s->kernel->tile_cols) * parts_of(rows, s->width);
  for (int64_t l = 0; l < s->p.k && going(s->r); l += s->depth) {
    nyx_product p = s->p;
    narrow(&p, s->r->item, i, rows, j, s->unit_cols, l, s->depth);
    p.add = s->p.add || add || l > 0;
    const char *panels = need_rows(w, row, l);
    if (l + s->depth < s->p.k)
      begin_rows(w, row, l + s->depth, tiles);
    else if (s->p.k > s->depth && left > 0)
      begin_rows(w, row, 0, tiles);
    else if (left <= 1)
      begin_rows(w, next_row, 0, tiles * (left + 1));
    p.packing = &w->next;
    if (s->own_cols)
      multiply_packing(w, &p, panels);
    else if (s->b)
      multiply_groups(w, &p, l, col, next_col, panels);
    else
      s->kernel->block(&p, s->width, panels, NULL);
  }
  if (s->last) nyx__epilogue_end(s->r->g->after, dtype, &region);
}

/* What nobody has begun of a unit of rows. The threads begin at different columns, which
 * they pack for one another. */
static void multiply_left(worker *w, int64_t row, int64_t next_row) {
  shared_run *s = w->s;
  int64_t units = s->col_units, shift = row * units / s->threads, at;
  while (s->next_col[row] < units && going(s->r) && (at = s->next_col[row]++) < units) {
    int64_t next = at + 1 < units ? (at + 1 + shift) % units : -1;
    multiply_unit(w, row, (at + shift) % units, next_row, next, units - 1 - at);
  }
}

/* Of one thread: its own rows, then what is left of others, from the last ones on, where
 * their owners come late. */
static void multiply_and_help(void *arg, int64_t begin, int64_t end) {
  shared_run *s = arg;
  worker w = {.s = s, .row = -1, .next_row = -1};
  if (!going(s->r)) return;
  int64_t rows = parts_of(s->panels, s->row_units) * s->width, item = s->r->item;
  int64_t bytes = s->kept ? 0 : parts_of(rows * s->depth * item, 64) * 64;
  int64_t own = parts_of(s->own_cols * s->depth * item, 64) * 64;
  int64_t ahead = meanwhile(s) ? bytes + 2 * NYX_STAGE_BYTES : 0;
  if (own) ahead = NYX_STAGE_BYTES;
  char *room = nyx_memory_alloc((size_t)(bytes + 2 * own + ahead));
  if (!room) {
    atomic_store(&s->r->status, NYX_ERR_MEMORY);
    return;
  }
  w.room[0] = room;
  w.own[0] = room + bytes;
  w.own[1] = w.own[0] + own;
  w.room[1] = w.own[1] + own;
  w.stage = own ? w.room[1] : w.room[1] + bytes;
  for (int64_t thread = begin; thread < end; thread++) {
    int64_t last = thread;
    for (int64_t row = thread; row < s->row_units; row += s->threads) {
      int64_t next = row + s->threads;
      multiply_left(&w, row, next < s->row_units ? next : -1);
      last = row;
    }
    for (int64_t k = 1; k <= s->row_units; k++)
      multiply_left(&w, (last + s->row_units - k) % s->row_units, -1);
  }
  nyx_memory_free(room);
}

/* The product at hand. */
static void multiply_units(shared_run *s) {
  int64_t groups = s->b ? s->col_units * s->groups : 0;
  size_t bytes = (size_t)s->row_units * sizeof *s->next_col + (size_t)groups;
  s->next_col = nyx_memory_alloc(bytes);
  if (!s->next_col) {
    atomic_store(&s->r->status, NYX_ERR_MEMORY);
    return;
  }
  s->group = (atomic_uchar *)(s->next_col + s->row_units);
  for (int64_t row = 0; row < s->row_units; row++) atomic_init(&s->next_col[row], 0);
  for (int64_t i = 0; i < groups; i++) atomic_init(&s->group[i], NONE);
  s->threads = least(s->row_units * s->col_units, nyx_parallel_threads());
  nyx_parallel_for(s->threads, 1, multiply_and_help, s);
  nyx_memory_free((void *)s->next_col);
}

typedef struct keeping {
  const shared_run *s;
  char *to;
} keeping;

/* Items are (block of terms, panel) of all of A. */
static void pack_kept(void *arg, int64_t begin, int64_t end) {
  const keeping *k = arg;
  const shared_run *s = k->s;
  int64_t item = s->r->item, panels = parts_of(s->p.m, s->width);
  for (int64_t i = begin; i < end; i++) {
    nyx_product p = s->p;
    int64_t row = i % panels * s->width, l = i / panels * s->depth;
    narrow(&p, item, row, s->width, 0, p.n, l, s->depth);
    s->kernel->pack_a(p.a, p.a_rs, p.a_cs, p.m, s->width, p.k,
                      k->to + (l * s->p.m + row * p.k) * item);
  }
}

static bool make_rows(void *arg, void *data) {
  const shared_run *s = arg;
  keeping k = {s, data};
  nyx_parallel_for(parts_of(s->p.k, s->depth) * parts_of(s->p.m, s->width), 4, pack_kept,
                   &k);
  return true;
}

/* The panels of A that its storage keeps; NULL: none. */
static nyx__packed *kept_rows(shared_run *s) {
  if (!s->r->g->keep_a) return NULL;
  const nyx_product *p = &s->p;
  const nyx__packed_key key = {
      .kind = NYX_PACKED_A,
      .kernel = s->kernel,
      .from = p->a,
      .size = {p->m, p->k, p->a_rs, p->a_cs, s->width, s->depth}};
  return nyx__packed_get(s->r->g->keep_a, &key, (size_t)(p->m * p->k * s->r->item),
                         make_rows, s);
}

/* Units are rows of one panel, as many for each thread where they are not too few, or
 * some of their columns; of a large B, which must be read once, columns and all rows. */
static void multiply_in_place(shared_run *s) {
  int64_t threads = nyx_parallel_threads(), m = s->p.m, n = s->p.n;
  int64_t even = parts_of(s->panels, threads) * threads;
  bool large = s->r->way != NYX__GEMM_ROWS;
  if (!large && m / even >= s->kernel->tile_rows / 2) s->panels = even;
  s->width = parts_of(m, s->panels);
  if (s->own_cols) s->width = s->kernel->tile_rows; /* only whole tiles copy */
  s->panels = parts_of(m, s->width);
  s->row_units = large ? 1 : s->panels;
  int64_t cols = parts_of(n, s->kernel->tile_cols), most = parts_of(cols, 2);
  int64_t wanted = large ? n / 1024 / threads * threads : 2 * threads;
  if (wanted < threads) wanted = threads;
  s->col_units = s->row_units % threads ? parts_of(wanted, s->row_units) : 1;
  if (s->col_units > most) s->col_units = most;
  s->unit_cols = parts_of(cols, s->col_units) * s->kernel->tile_cols;
  s->col_units = parts_of(n, s->unit_cols);
  nyx__packed *kept = kept_rows(s);
  s->kept = kept ? kept->data : NULL;
  multiply_units(s);
  nyx__packed_release(kept);
}

/* Panels of A that a unit has where B is packed: about so many are to stay in the second
 * cache. */
static int64_t panels_of_unit(const nyx_gemm_kernel *kernel) {
  return kernel->block_rows / kernel->tile_rows * 4 / 3;
}

/* As many units for each thread. */
static void divide_rows(shared_run *s, int64_t most) {
  int64_t threads = nyx_parallel_threads(), m = s->p.m;
  s->width = parts_of(m, s->panels);
  s->panels = parts_of(m, s->width);
  s->row_units = parts_of(s->panels, most * threads) * threads;
  if (s->row_units > s->panels) s->row_units = s->panels;
}

/* Some columns at hand at a time, so many that all threads end soon after each other; not
 * of several blocks, as each of A would be packed again for each of them. */
static void divide_columns(shared_run *s) {
  int64_t each = s->p.k > s->depth ? 2 : UNITS;
  int64_t units = parts_of(each * nyx_parallel_threads(), s->row_units);
  int64_t cols = parts_of(s->p.n, s->kernel->tile_cols), most = parts_of(cols, 2);
  int64_t tiles = parts_of(cols, units < most ? units : most);
  if (tiles > GROUP_TILES) tiles = parts_of(tiles, GROUP_TILES) * GROUP_TILES;
  s->unit_cols = tiles * s->kernel->tile_cols;
  s->col_units = parts_of(s->p.n, s->unit_cols);
  s->group_cols = least(s->unit_cols, GROUP_TILES * s->kernel->tile_cols);
  s->groups = parts_of(s->unit_cols, s->group_cols);
}

/* As many as keep a unit's A in a quarter of the second cache, up to DEEPEST: C is read
 * less often. */
int64_t nyx__gemm_depth(const nyx_gemm_kernel *kernel, int64_t item) {
  int64_t row = panels_of_unit(kernel) * kernel->tile_rows * item;
  int64_t fit = (int64_t)nyx__cpu_info()->l2 / 4 / row / 16 * 16;
  if (fit > DEEPEST) fit = DEEPEST;
  return fit > kernel->depth ? fit : kernel->depth;
}

/* In place as few as suit the first cache. */
int64_t nyx__gemm_block(nyx__gemm_way way, const nyx_gemm_kernel *kernel, int64_t item,
                        bool packed, int64_t k) {
  int64_t most = kernel->depth;
  if (packed && way != NYX__GEMM_PACKED_SHALLOW) most = nyx__gemm_depth(kernel, item);
  if (way == NYX__GEMM_PACKED_DEEP) most *= 2;
  return (parts_of(k, parts_of(k, most)) + 15) / 16 * 16; /* whole vectors */
}

/* A span of the terms, from l on, and all columns, some thousand at a time. */
static void multiply_span(shared_run *s, const nyx_product *all, int64_t l, int64_t span,
                          const nyx__packed *kept) {
  s->kept = kept ? (const char *)kept->data + l * all->m * s->r->item : NULL;
  for (int64_t j = 0; j < all->n && going(s->r); j += SHARED_COLS) {
    s->p = *all;
    narrow(&s->p, s->r->item, 0, all->m, j, SHARED_COLS, l, span);
    s->p.add = all->add || l > 0;
    s->col = j;
    s->first = l == 0;
    s->last = l + span >= all->k;
    divide_columns(s);
    multiply_units(s);
  }
}

nyx_status nyx__gemm_shared(gemm_run *r, const nyx_product *all, int64_t row) {
  const nyx_gemm_kernel *kernel = kernel_of(r->g->dtype);
  shared_run s = {.r = r, .kernel = kernel, .p = *all, .row = row};
  s.first = s.last = true;
  s.panels = parts_of(all->m, kernel->tile_rows);
  if (r->way == NYX__GEMM_PACKING) s.own_cols = OWN_TILES * kernel->tile_cols;
  if (r->way < NYX__GEMM_PACKED) {
    bool packed = s.own_cols && !nyx__gemm_in_place(all, r->item);
    s.depth = nyx__gemm_block(r->way, kernel, r->item, packed, all->k);
    multiply_in_place(&s);
    return NYX_OK;
  }
  divide_rows(&s, panels_of_unit(kernel));
  s.depth = nyx__gemm_block(r->way, kernel, r->item, true, all->k);
  int64_t cols = padded(&s, all->n < SHARED_COLS ? all->n : SHARED_COLS);
  int64_t blocks = SPAN_BYTES / (cols * s.depth * r->item);
  if (work_of(all->m, cols, s.depth) >= SPAN_WORK) blocks = 1;
  int64_t span = s.depth * (blocks > 1 ? blocks : 1),
          k = parts_of(all->k, s.depth) * s.depth;
  size_t bytes = (size_t)(cols * (span < k ? span : k) * r->item);
  if (!(s.b = nyx_memory_alloc(bytes))) return nyx__no_memory(r->ctx, bytes);
  nyx__packed *kept = kept_rows(&s);
  for (int64_t l = 0; l < all->k && going(r); l += span)
    multiply_span(&s, all, l, span, kept);
  nyx__packed_release(kept);
  nyx_memory_free(s.b);
  return NYX_OK;
}
