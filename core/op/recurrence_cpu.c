/* Steps of a recurrent layer one after the other. The weight is packed once for all of
 * them; each step multiplies the state before (backward: the gradients that later steps
 * gave) by some columns of it and hands the product, still in the cache, to the cell's
 * kernel. Rows of a batch do not see each other: while the weight stays in a core's cache
 * some rows go through all steps as one task. Larger weights, and few rows, are divided
 * by columns, and all tasks meet after every step. All is decided by size: results do not
 * depend on the number of threads. Read next: recurrence.c, kernels/cpu/recurrence.h. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "recurrence.h"

#define ROWS 8              /* of a task: fewer waste the weight that is read for them */
#define TASKS 16            /* wanted */
#define CACHED (1 << 20)    /* bytes of a weight that a core keeps */
#define WORK (1 << 20)      /* multiplications worth waking a thread for */
#define PACK_WORK (1 << 15) /* elements, the same */

typedef struct run run;

/* Hands one product to the cell's kernel: step s, `rows` rows from r0, `width` columns
 * from j. */
typedef void (*cell_fn)(const run *u, int64_t s, int64_t r0, int64_t rows, int64_t j,
                        int64_t width, const char *product);

struct run {
  nyx__recurrence *r;
  const nyx_gemm_kernel *gemm;
  const nyx_recurrence_kernel *own;
  int64_t item, tile, gates, saved;
  bool backward;
  cell_fn cell;
  int64_t depth, blocks;          /* terms of a product; its blocks of columns */
  int64_t panels;                 /* tiles of hidden columns */
  int64_t rows, row_units;        /* rows of a unit of work; how many units they make */
  int64_t columns, column_units;  /* the same, tiles of columns */
  int64_t room;                   /* bytes of scratch of a unit */
  int64_t s;                      /* the step at hand, where all tasks meet */
  char *packed, *scratch, *zeros; /* zeros: a state that is none */
  atomic_bool stopped;
};

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t parts_of(int64_t size, int64_t part) {
  return (size + part - 1) / part;
}

static bool going(run *u) {
  if (nyx__interrupted(u->r->ctx)) atomic_store(&u->stopped, true);
  return !atomic_load_explicit(&u->stopped, memory_order_relaxed);
}

/* ------------------------------------------------------------------ one step */

/* Of an array (length, batch, blocks * hidden): step s, row, column; of one without
 * steps: s is 0. NULL stays NULL. */
static char *at(const run *u, const void *array, int64_t s, int64_t blocks, int64_t row,
                int64_t column) {
  if (!array) return NULL;
  int64_t i = ((s * u->r->batch + row) * blocks) * u->r->hidden + column;
  return (char *)array + i * u->item; /* what is read only is not written to */
}

/* The state before step s, of y and h0 or of cells and c0; NULL: zero. */
static const char *state_before(const run *u, const char *all, const char *first,
                                int64_t s, int64_t row, int64_t column) {
  if (s > 0) return at(u, all, nyx__step_at(u->r, s - 1), 1, row, column);
  return at(u, first, 0, 1, row, column);
}

static nyx_cell_step cell_step(const run *u, int64_t s, int64_t r0, int64_t rows,
                               int64_t j, int64_t width, const char *product) {
  const nyx__recurrence *r = u->r;
  int64_t t = nyx__step_at(r, s);
  nyx_cell_step c = {rows, width, r->hidden, u->tile, .product = product};
  c.before = state_before(u, r->y, r->h0, s, r0, j);
  c.cell_before = state_before(u, r->cells, r->c0, s, r0, j);
  if (!c.before) c.before = at(u, u->zeros, 0, 1, r0, j);
  if (!c.cell_before) c.cell_before = at(u, u->zeros, 0, 1, r0, j);
  c.y = at(u, r->y, t, 1, r0, j);
  c.gates = at(u, r->gates, t, u->saved, r0, j);
  c.cell = at(u, r->cells, t, 1, r0, j);
  return c;
}

static void cell_forward(const run *u, int64_t s, int64_t r0, int64_t rows, int64_t j,
                         int64_t width, const char *product) {
  const nyx__recurrence *r = u->r;
  nyx_cell_step c = cell_step(u, s, r0, rows, j, width, product);
  c.x = at(u, r->x, nyx__step_at(r, s), u->gates, r0, j);
  if (r->bias) c.bias = r->bias + j * u->item;
  u->own->forward[r->cell](&c);
}

static void cell_backward(const run *u, int64_t s, int64_t r0, int64_t rows, int64_t j,
                          int64_t width, const char *product) {
  const nyx__recurrence *r = u->r;
  int64_t t = nyx__step_at(r, s);
  nyx_cell_step c = cell_step(u, s, r0, rows, j, width, product);
  c.grad = at(u, r->grad, t, 1, r0, j);
  c.grad_cell = at(u, r->grad_cells, t, 1, r0, j);
  c.dx = at(u, r->dx, t, u->gates, r0, j);
  c.dhidden = at(u, r->dhidden, t, u->gates, r0, j);
  c.carry = at(u, r->cell == NYX_CELL_LSTM ? r->dc0 : r->dh0, 0, 1, r0, j);
  u->own->backward[r->cell](&c);
}

/* What step s multiplies by the weight, from row r0; NULL: zero. */
static const char *left_factor(const run *u, int64_t s, int64_t r0) {
  const nyx__recurrence *r = u->r;
  if (!u->backward) return state_before(u, r->y, r->h0, s, r0, 0);
  if (s == r->length - 1) return NULL;
  const char *later = r->dhidden ? r->dhidden : r->dx;
  return at(u, later, nyx__step_at(r, s + 1), u->gates, r0, 0);
}

/* Rows of a panel: as even as their number allows. */
static int64_t panel_of(const run *u, int64_t rows) {
  return parts_of(rows, parts_of(rows, u->gemm->tile_rows));
}

/* Tiles of columns of `unit`, which is some rows times some tiles. */
static void do_step(const run *u, int64_t s, int64_t unit) {
  const nyx__recurrence *r = u->r;
  int64_t r0 = unit / u->column_units * u->rows, rows = least(u->rows, r->batch - r0);
  int64_t first = unit % u->column_units * u->columns, panel = panel_of(u, rows);
  const char *left = left_factor(u, s, r0);
  char *packed = u->scratch + unit * u->room,
       *product = packed + u->rows * u->depth * u->item;
  nyx_product p = {.m = rows, .n = u->blocks * u->tile, .k = u->depth, .c = product};
  p.ldc = p.n;
  if (left)
    u->gemm->pack_a(left, u->depth, 1, rows, panel, u->depth, packed);
  else
    memset(product, 0, (size_t)(rows * p.n * u->item));
  for (int64_t i = first; i < least(first + u->columns, u->panels); i++) {
    int64_t j = i * u->tile;
    if (left)
      u->gemm->block(&p, panel, packed, u->packed + j * u->blocks * u->depth * u->item);
    u->cell(u, s, r0, rows, j, least(u->tile, r->hidden - j), product);
  }
}

/* dh0 of a unit: what the first step gives to the state before it; a GRU's has what goes
 * past its gates already. */
static void do_first_state(const run *u, int64_t unit) {
  const nyx__recurrence *r = u->r;
  int64_t r0 = unit / u->column_units * u->rows, rows = least(u->rows, r->batch - r0);
  int64_t first = unit % u->column_units * u->columns, panel = panel_of(u, rows);
  char *packed = u->scratch + unit * u->room;
  const char *left = r->dhidden ? r->dhidden : r->dx;
  u->gemm->pack_a(at(u, left, nyx__step_at(r, 0), u->gates, r0, 0), u->depth, 1, rows,
                  panel, u->depth, packed);
  nyx_product p = {.m = rows, .k = u->depth, .ldc = r->hidden};
  p.add = r->cell == NYX_CELL_GRU;
  for (int64_t i = first; i < least(first + u->columns, u->panels); i++) {
    int64_t j = i * u->tile;
    p.n = least(u->tile, r->hidden - j);
    p.c = at(u, r->dh0, 0, 1, r0, j);
    u->gemm->block(&p, panel, packed, u->packed + j * u->depth * u->item);
  }
}

/* ------------------------------------------------------------------ all steps */

static void pack_panels(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  int64_t hidden = u->r->hidden, item = u->item;
  for (int64_t i = begin; i < end; i++) {
    int64_t j = i * u->tile, live = least(u->tile, hidden - j);
    char *to = u->packed + j * u->blocks * u->depth * item;
    for (int64_t k = 0; k < u->blocks; k++, to += u->tile * u->depth * item) {
      if (u->backward)
        u->gemm->pack_b(u->r->weight + j * item, hidden, 1, u->depth, live, to);
      else
        u->gemm->pack_b(u->r->weight + (k * hidden + j) * hidden * item, 1, hidden,
                        u->depth, live, to);
    }
  }
}

/* Step number i in the order of computation, of units begin..end-1. */
static void do_units(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  for (int64_t unit = begin; unit < end; unit++) {
    if (u->s >= 0)
      do_step(u, u->s, unit);
    else
      do_first_state(u, unit);
  }
}

/* All steps of units begin..end-1. */
static void do_rows(void *arg, int64_t begin, int64_t end) {
  run *u = arg;
  for (int64_t unit = begin; unit < end; unit++) {
    for (int64_t i = 0; i < u->r->length && going(u); i++)
      do_step(u, u->backward ? u->r->length - 1 - i : i, unit);
    if (u->backward) do_first_state(u, unit);
  }
}

static void meet_after_steps(run *u) {
  int64_t units = u->row_units * u->column_units;
  for (int64_t i = 0; i < u->r->length && going(u); i++) {
    u->s = u->backward ? u->r->length - 1 - i : i;
    nyx_parallel_for(units, 1, do_units, u);
  }
  u->s = -1;
  if (u->backward) nyx_parallel_for(units, 1, do_units, u);
}

/* Sizes of units; whether each goes through all steps by itself. */
static bool divide(run *u) {
  const nyx__recurrence *r = u->r;
  int64_t one = u->gates * r->hidden * r->hidden; /* multiplications of a row */
  bool alone = one * u->item <= CACHED && r->batch >= 2 * ROWS;
  u->rows = parts_of(r->batch, TASKS);
  if (u->rows < ROWS) u->rows = ROWS;
  if (!alone) u->rows = least(r->batch, 4 * u->gemm->tile_rows);
  u->row_units = parts_of(r->batch, u->rows);
  u->columns = u->panels;
  if (!alone && one * r->batch >= 2 * WORK) {
    int64_t tiles = WORK / (one / u->panels * u->rows + 1) + 1; /* worth a thread */
    u->columns = least(u->panels, tiles);
  } else {
    alone = true;
  }
  u->column_units = parts_of(u->panels, u->columns);
  return alone;
}

static nyx_status open_run(run *u) {
  nyx__recurrence *r = u->r;
  int64_t n = u->blocks * u->tile, units = u->row_units * u->column_units;
  int64_t weight = u->panels * n * u->depth;
  u->room = parts_of(u->rows * (u->depth + n) * u->item, 64) * 64;
  size_t bytes = (size_t)(weight * u->item + units * u->room);
  size_t state = (size_t)(r->batch * r->hidden * u->item);
  u->packed = nyx_memory_alloc(bytes + state);
  if (!u->packed) return nyx__no_memory(r->ctx, bytes + state);
  u->scratch = u->packed + weight * u->item;
  u->zeros = u->packed + bytes;
  memset(u->zeros, 0, state);
  return NYX_OK;
}

static nyx_status run_all(nyx__recurrence *r, bool backward, cell_fn cell) {
  const nyx_cpu_kernels *cpu = nyx__cpu_kernels();
  bool wide = r->dtype == NYX_FLOAT64;
  if (r->batch == 0 || r->hidden == 0) return NYX_OK;
  run u = {.r = r, .backward = backward, .cell = cell};
  u.gemm = &cpu->gemm->type[wide];
  u.own = cpu->recurrence->type[wide];
  u.item = (int64_t)nyx_dtype_size(r->dtype);
  u.tile = u.gemm->tile_cols;
  u.gates = nyx__cells[r->cell].gates;
  u.saved = nyx__cells[r->cell].saved;
  u.depth = backward ? u.gates * r->hidden : r->hidden;
  u.blocks = backward ? 1 : u.gates;
  u.panels = parts_of(r->hidden, u.tile);
  atomic_init(&u.stopped, false);
  bool alone = divide(&u);
  NYX_TRY(open_run(&u));
  nyx_parallel_for(u.panels, PACK_WORK / (u.blocks * u.tile * u.depth) + 1, pack_panels,
                   &u);
  int64_t work = u.gates * r->hidden * r->hidden * u.rows * r->length;
  if (alone)
    nyx_parallel_for(u.row_units, WORK / work + 1, do_rows, &u);
  else
    meet_after_steps(&u);
  nyx_memory_free(u.packed);
  return atomic_load(&u.stopped) ? nyx__error(r->ctx, INTERRUPTED) : NYX_OK;
}

nyx_status nyx__recurrence_forward(nyx__recurrence *r) {
  return run_all(r, false, cell_forward);
}

nyx_status nyx__recurrence_backward(nyx__recurrence *r) {
  size_t state = (size_t)(r->batch * r->hidden) * nyx_dtype_size(r->dtype);
  if (state == 0) return NYX_OK;
  memset(r->dh0, 0, state);
  if (r->cell == NYX_CELL_LSTM) memset(r->dc0, 0, state);
  return run_all(r, true, cell_backward);
}
