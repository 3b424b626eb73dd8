/* Steps of a recurrent layer one after the other. The weights are packed once for all of
 * them; each step multiplies the input and the state before, side by side, by some
 * columns of them (backward: the gradients of the later step's gates, which gives that of
 * the state) and hands the product, still in the cache, to the cell's kernel. States that
 * are projected take a second product in each step. Rows of a batch do not see each
 * other: while the weights stay in a core's cache some rows go through all steps as one
 * task. Larger weights, and few rows, are divided by columns, and all tasks meet after
 * every step. Sequences that have ended, or not begun, are no rows of a step. Only how
 * many rows are a task depends on the number of threads, and no row sees which. Read
 * next: recurrence.c, recurrence_lengths.c, kernels/cpu/recurrence.h. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "recurrence.h"

#define ROWS 8           /* of a task: fewer waste the weights that are read for them */
#define FEWEST 2         /* the same, where threads would have nothing to do otherwise */
#define TASKS 16         /* wanted */
#define CACHED (3 << 19) /* bytes of weights that a core keeps */
#define WORK (1 << 20)   /* multiplications worth waking a thread for */
#define PACK_WORK (1 << 15) /* elements, the same */

/* The parts of a step: the cells, with the products before them, and the states that come
 * of them by weight_hr. Backward the states are first, and take the product. */
enum phase { CELLS, STATES, PHASES };

/* Tiles of columns of a phase; those of a unit of work, and how many units they make. */
typedef struct share {
  int64_t tiles, columns, units;
} share;

/* Rows of a left factor times some weight. */
typedef struct factor {
  int64_t depth; /* terms */
  char *rows;    /* packed, batch x depth */
  char *weight;  /* packed, by tiles of columns */
} factor;

typedef struct run {
  nyx__recurrence *r;
  const nyx_gemm_kernel *gemm;
  const nyx_recurrence_kernel *own;
  const nyx__cell *cell;
  int64_t item, tile;
  bool backward, project; /* whether there is a weight_hr */
  bool ends;              /* sequences begin at their own ends */
  /* x and h with weight_ih and weight_hh, backward gates with weight_hh; weight_hr */
  factor gates, projection;
  int64_t blocks;             /* of columns in a product */
  int64_t tiles, state_tiles; /* of columns of the cells, and of h */
  int64_t rows, row_units;    /* rows of a unit of work; how many units they make */
  int64_t panels;             /* of the left factors, in a unit's rows */
  share share[PHASES];
  int64_t s; /* the step and its phase at hand, where all tasks meet */
  enum phase phase;
  char *products;     /* one for each unit */
  char *zeros, *bias; /* a state that is none; the sum of the biases, or NULL */
  char *raw;          /* a step's states before they are projected */
  char *mixed;        /* rows of several steps, to be packed */
  atomic_bool stopped;
} run;

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

/* Of an array (length, batch, width): a row of step s (of one without steps: s is 0),
 * from a column on. NULL stays NULL. */
static char *at(const run *u, const void *array, int64_t s, int64_t width, int64_t row,
                int64_t column) {
  if (!array) return NULL;
  return (char *)array + ((s * u->r->batch + row) * width + column) * u->item;
}

/* The state before step s, of y and h0 or of cells and c0; NULL: zero. */
static char *state_before(const run *u, const char *all, const char *first, int64_t s,
                          int64_t width, int64_t row, int64_t column) {
  if (s > 0) return at(u, all, nyx__step_at(u->r, s - 1), width, row, column);
  return at(u, first, 0, width, row, column);
}

/* ------------------------------------------------------------------ rows of a step */

/* Rows of unit number `unit`, from *r0 on. */
static int64_t rows_of(const run *u, int64_t unit, int64_t *r0) {
  *r0 = unit * u->rows;
  return least(u->rows, u->r->batch - *r0);
}

/* Of `rows` rows from r0 on, those of sequences that have step s: the first ones. */
static int64_t live_rows(const run *u, int64_t s, int64_t r0, int64_t rows) {
  const nyx__recurrence *r = u->r;
  int64_t n = s < 0 || s >= r->length ? 0 : r->batch;
  if (n > 0 && r->live) n = r->live[nyx__step_at(r, s)];
  return n < r0 ? 0 : least(n - r0, rows);
}

/* Those that step s multiplies; backward the one before the first gives dh0 of all. */
static int64_t product_rows(const run *u, int64_t s, int64_t r0, int64_t rows) {
  return s < 0 ? rows : live_rows(u, s, r0, rows);
}

/* Of rows that have step s, those that do not begin with it. */
static int64_t rows_going_on(const run *u, int64_t s, int64_t r0, int64_t rows) {
  if (s == 0) return 0;
  return u->ends ? live_rows(u, s - 1, r0, rows) : rows;
}

/* Rows of a panel: as even as their number allows. */
static int64_t panel_of(const run *u, int64_t rows) {
  return parts_of(rows, parts_of(rows, u->gemm->tile_rows));
}

/* ------------------------------------------------------------------ left factors */

/* Whether there is a later step, or backward an earlier one, that step s begins with. */
static bool has_state(const run *u, int64_t s) {
  return u->backward ? s < u->r->length - 1 : s > 0 || u->r->h0;
}

/* Packs `rows` rows from r0 on as terms from.. of f, in panels of `panel`. */
static void pack_rows(const run *u, const factor *f, int64_t from, int64_t terms,
                      const char *matrix, int64_t r0, int64_t rows, int64_t panel) {
  for (int64_t i = 0; i < rows; i += panel) {
    int64_t n = least(panel, rows - i);
    u->gemm->pack_a(matrix + i * terms * u->item, terms, 1, n, n, terms,
                    f->rows + ((r0 + i) * f->depth + from * n) * u->item);
  }
}

/* The states before step s; those of sequences that begin with it are their first. */
static const char *states_before(const run *u, int64_t s, int64_t r0, int64_t rows) {
  const nyx__recurrence *r = u->r;
  int64_t old = rows_going_on(u, s, r0, rows), width = r->state;
  const char *before = state_before(u, r->y, r->h0, s, width, r0, 0);
  if (s == 0 || old == rows || !r->h0) return before; /* y is zero behind the ends */
  char *to = at(u, u->mixed, 0, width, r0, 0);
  memcpy(to, before, (size_t)(old * width * u->item));
  memcpy(to + old * width * u->item, at(u, r->h0, 0, width, r0 + old, 0),
         (size_t)((rows - old) * width * u->item));
  return to;
}

/* Gradients of the gates in the last step of each sequence, of all of them in `all`. */
static const char *gates_at_ends(const run *u, const char *all, int64_t r0,
                                 int64_t rows) {
  int64_t width = u->gates.depth, row = width * u->item;
  char *to = at(u, u->mixed, 0, width, r0, 0);
  for (int64_t i = 0; i < rows; i++) {
    int64_t n = u->r->lengths[r0 + i];
    if (n > 0)
      memcpy(to + i * row, at(u, all, n - 1, width, r0 + i, 0), (size_t)row);
    else
      memset(to + i * row, 0, (size_t)row);
  }
  return to;
}

/* Backward: what the step after s gave to the products, or the first of each sequence. */
static const char *later_gates(const run *u, int64_t s, int64_t r0, int64_t rows) {
  const nyx__recurrence *r = u->r;
  const char *all = r->dhidden ? r->dhidden : r->dgates;
  if (s < 0 && u->ends) return gates_at_ends(u, all, r0, rows);
  return at(u, all, nyx__step_at(r, s + 1), u->gates.depth, r0, 0);
}

/* What a phase of step s multiplies by the weights: `rows` rows in panels of `panel`. */
static void pack_step(const run *u, enum phase phase, int64_t s, int64_t r0, int64_t rows,
                      int64_t panel) {
  const nyx__recurrence *r = u->r;
  int64_t t = nyx__step_at(r, s), x = r->input;
  const factor *f = &u->gates;
  if (u->project && u->backward == (phase == CELLS)) {
    const char *from = u->backward ? at(u, r->dstates, t, r->state, r0, 0)
                                   : at(u, u->raw, 0, r->hidden, r0, 0);
    f = &u->projection;
    pack_rows(u, f, 0, f->depth, from, r0, rows, panel);
  } else if (u->backward) {
    if (has_state(u, s))
      pack_rows(u, f, 0, f->depth, later_gates(u, s, r0, rows), r0, rows, panel);
  } else {
    pack_rows(u, f, 0, x, at(u, r->x, t, x, r0, 0), r0, rows, panel);
    if (has_state(u, s))
      pack_rows(u, f, x, r->state, states_before(u, s, r0, rows), r0, rows, panel);
  }
}

/* ------------------------------------------------------------------ products */

/* Some rows and one tile of columns in one step. */
typedef struct spot {
  int64_t s, r0, rows, panel, j, width; /* from column j on */
  char *product;
} spot;

/* c = (add: +=) `terms` terms from..  of the rows of f times those of panel number
 * `panel` of its weight. */
static void multiply(const run *u, const spot *p, const factor *f, int64_t from,
                     int64_t terms, int64_t panel, nyx_product q) {
  char *c = q.c;
  q.k = terms;
  for (int64_t i = 0; i < p->rows; i += p->panel) {
    q.m = least(p->panel, p->rows - i);
    q.c = c + i * q.ldc * u->item;
    u->gemm->block(&q, q.m, f->rows + ((p->r0 + i) * f->depth + from * q.m) * u->item,
                   f->weight + (panel * f->depth + from) * u->tile * u->item);
  }
}

static void clear(const run *u, const spot *p, char *product) {
  int64_t row = u->blocks * u->tile * u->item;
  for (int64_t i = 0; i < p->rows; i++)
    memset(product + i * row, 0, (size_t)(u->tile * u->item));
}

/* The cells of rows first.. of those of p, which (begin) have no step before. */
static nyx_cell_step cell_step(const run *u, const spot *p, int64_t first, int64_t rows,
                               bool begin) {
  const nyx__recurrence *r = u->r;
  int64_t hidden = r->hidden, all = u->gates.depth, row = p->r0 + first;
  int64_t t = nyx__step_at(r, p->s), s = begin ? 0 : p->s;
  nyx_cell_step c = {rows, p->width, hidden, u->tile,
                     .product = p->product + first * u->blocks * u->tile * u->item};
  c.cell_before = state_before(u, r->cells, r->c0, s, hidden, row, p->j);
  if (!u->project) c.before = state_before(u, r->y, r->h0, s, hidden, row, p->j);
  if (!c.before) c.before = at(u, u->zeros, 0, hidden, row, p->j);
  if (!c.cell_before) c.cell_before = at(u, u->zeros, 0, hidden, row, p->j);
  c.y = u->project ? at(u, u->raw, 0, hidden, row, p->j)
                   : at(u, r->y, t, hidden, row, p->j);
  c.gates = at(u, r->gates, t, u->cell->saved * hidden, row, p->j);
  c.cell = at(u, r->cells, t, hidden, row, p->j);
  if (u->bias) c.bias = u->bias + p->j * u->item;
  if (!u->backward) return c;
  if (!u->project) c.grad = at(u, r->grad, t, hidden, row, p->j);
  c.grad_cell = at(u, r->grad_cells, t, hidden, row, p->j);
  c.dgates = at(u, r->dgates, t, all, row, p->j);
  c.dhidden = at(u, r->dhidden, t, all, row, p->j);
  c.carry = at(u, r->cell == NYX_CELL_LSTM ? r->dc0 : r->dh0, 0, hidden, row, p->j);
  return c;
}

/* Asks for `blocks` blocks of a tile's columns in an array (length, batch, ..). */
static void ask(const nyx_cell_step *c, int64_t item, const void *array, int64_t blocks) {
  int64_t block = c->hidden * item, bytes = c->width * item;
  for (int64_t i = 0; array && i < c->rows * blocks; i++) {
    const char *line = (const char *)array + i * block;
    for (int64_t j = 0; j < bytes; j += 64) __builtin_prefetch(line + j);
  }
  __asm__ volatile("" ::: "memory"); /* else the whole call counts as without effect */
}

/* Backward: asks for what the cells will read and write, before the product that takes so
 * long: it lies in short pieces, which no processor guesses. */
static void ask_cells(const run *u, const spot *p) {
  nyx_cell_step c = cell_step(u, p, 0, p->rows, false);
  ask(&c, u->item, c.gates, u->cell->saved);
  ask(&c, u->item, c.cell, 1);
  if (!u->project) ask(&c, u->item, c.y, 1);
  ask(&c, u->item, c.cell_before, 1);
  ask(&c, u->item, c.grad, 1);
  ask(&c, u->item, c.dgates, u->cell->gates);
  ask(&c, u->item, c.dhidden, u->cell->gates);
}

/* The cell's kernel, for sequences that go on and those that begin. */
static void do_cells(const run *u, const spot *p) {
  int64_t old = rows_going_on(u, p->s, p->r0, p->rows);
  const int64_t end[] = {0, old, p->rows};
  for (int i = 0; i < 2; i++) {
    if (end[i] == end[i + 1]) continue;
    nyx_cell_step c = cell_step(u, p, end[i], end[i + 1] - end[i], i == 1);
    (u->backward ? u->own->backward : u->own->forward)[u->r->cell](&c);
  }
}

static void cells_forward(const run *u, const spot *p) {
  bool state = has_state(u, p->s);
  int64_t row = u->blocks * u->tile, first = p->j / u->tile * u->cell->gates;
  for (int64_t k = 0; k < u->blocks; k++) {
    int64_t x = u->cell->input[k], h = state ? u->cell->state[k] : -1;
    char *c = p->product + k * u->tile * u->item;
    int64_t from = x >= 0 ? 0 : u->r->input;
    int64_t terms = (x >= 0 ? u->r->input : 0) + (h >= 0 ? u->r->state : 0);
    if (terms == 0)
      clear(u, p, c);
    else
      multiply(u, p, &u->gates, from, terms, first + (x >= 0 ? x : h),
               (nyx_product){.n = u->tile, .c = c, .ldc = row});
  }
  do_cells(u, p);
}

/* A tile of the states, or of what reaches them, of an array (batch, state). */
static void tile_of_states(const run *u, const spot *p, const factor *f, char *to,
                           bool add) {
  nyx_product q = {.n = p->width, .c = to, .ldc = u->r->state, .add = add};
  multiply(u, p, f, 0, f->depth, p->j / u->tile, q);
}

/* The last of all, which of a GRU has what goes past its gates. */
static void first_states(const run *u, const spot *p) {
  char *dh0 = at(u, u->r->dh0, 0, u->r->state, p->r0, p->j);
  tile_of_states(u, p, &u->gates, dh0, u->r->cell == NYX_CELL_GRU);
}

static void cells_backward(const run *u, const spot *p) {
  const factor *f = u->project ? &u->projection : &u->gates;
  if (p->s < 0) {
    first_states(u, p);
    return;
  }
  ask_cells(u, p);
  if (u->project || has_state(u, p->s))
    multiply(u, p, f, 0, f->depth, p->j / u->tile,
             (nyx_product){.n = u->tile, .c = p->product, .ldc = u->tile});
  else
    clear(u, p, p->product);
  do_cells(u, p);
}

static void states_forward(const run *u, const spot *p) {
  const nyx__recurrence *r = u->r;
  char *y = at(u, r->y, nyx__step_at(r, p->s), r->state, p->r0, p->j);
  tile_of_states(u, p, &u->projection, y, false);
}

/* All that reaches the states of a step. */
static void states_backward(const run *u, const spot *p) {
  const nyx__recurrence *r = u->r;
  if (p->s < 0) {
    first_states(u, p);
    return;
  }
  int64_t t = nyx__step_at(r, p->s), row = r->state * u->item;
  char *to = at(u, r->dstates, t, r->state, p->r0, p->j);
  const char *grad = at(u, r->grad, t, r->state, p->r0, p->j);
  for (int64_t i = 0; i < p->rows; i++) {
    if (grad)
      memcpy(to + i * row, grad + i * row, (size_t)(p->width * u->item));
    else
      memset(to + i * row, 0, (size_t)(p->width * u->item));
  }
  if (has_state(u, p->s)) tile_of_states(u, p, &u->gates, to, true);
}

/* All tiles of a phase's unit, which is some rows times some tiles. */
static void do_tiles(const run *u, enum phase phase, int64_t s, int64_t unit) {
  static void (*const what[2][PHASES])(const run *u, const spot *p) = {
      {cells_forward, states_forward}, {cells_backward, states_backward}};
  const share *own = &u->share[phase];
  spot p = {.s = s};
  int64_t rows = rows_of(u, unit / own->units, &p.r0);
  p.rows = product_rows(u, s, p.r0, rows);
  if (p.rows == 0) return;
  p.panel = panel_of(u, p.rows);
  if (phase == CELLS)
    p.product = u->products + unit * u->rows * u->blocks * u->tile * u->item;
  int64_t first = unit % own->units * own->columns;
  int64_t end = least(first + own->columns, own->tiles);
  int64_t columns = phase == CELLS ? u->r->hidden : u->r->state;
  for (int64_t i = first; i < end; i++) {
    p.j = i * u->tile;
    p.width = least(u->tile, columns - p.j);
    what[u->backward][phase](u, &p);
  }
}

/* ------------------------------------------------------------------ all steps */

/* How many steps there are; backward one more, for dh0. */
static int64_t step_count(const run *u) {
  return u->r->length + u->backward;
}

/* Step number i in the order of computation. */
static int64_t step_number(const run *u, int64_t i) {
  return u->backward ? u->r->length - 1 - i : i;
}

/* Phase number i of step s; PHASES: there is none. */
static enum phase phase_number(const run *u, int64_t s, int i) {
  if (!u->project) return i == 0 ? CELLS : PHASES;
  if (i == 0) return u->backward ? STATES : CELLS;
  return i == 2 || s < 0 ? PHASES : u->backward ? CELLS : STATES;
}

/* All steps of rows of units begin..end-1. */
static void do_rows(void *arg, int64_t begin, int64_t end) {
  run *u = arg;
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t r0, rows = rows_of(u, unit, &r0), n = step_count(u);
    for (int64_t i = 0; i < n && going(u); i++) {
      int64_t s = step_number(u, i), own = product_rows(u, s, r0, rows);
      enum phase phase;
      for (int k = 0; own > 0 && (phase = phase_number(u, s, k)) != PHASES; k++) {
        pack_step(u, phase, s, r0, own, panel_of(u, own));
        do_tiles(u, phase, s, unit);
      }
    }
  }
}

/* One phase of a step of units begin..end-1. */
static void do_units(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  for (int64_t unit = begin; unit < end; unit++) do_tiles(u, u->phase, u->s, unit);
}

/* Panels begin..end-1 of the left factors. */
static void pack_panels(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t r0, rows = rows_of(u, i / u->panels, &r0);
    rows = product_rows(u, u->s, r0, rows);
    if (rows == 0) continue;
    int64_t panel = panel_of(u, rows), first = i % u->panels * panel;
    if (first < rows)
      pack_step(u, u->phase, u->s, r0 + first, least(panel, rows - first), panel);
  }
}

static void meet_after_steps(run *u) {
  int64_t terms = u->gemm->tile_rows * u->gates.depth;
  for (int64_t i = 0; i < step_count(u) && going(u); i++) {
    u->s = step_number(u, i);
    for (int k = 0; (u->phase = phase_number(u, u->s, k)) != PHASES; k++) {
      nyx_parallel_for(u->row_units * u->panels, PACK_WORK / terms + 1, pack_panels, u);
      nyx_parallel_for(u->row_units * u->share[u->phase].units, 1, do_units, u);
    }
  }
}

/* ------------------------------------------------------------------ sizes and memory */

/* Units of `tiles` tiles, which take `one` multiplications for each row. */
static share share_of(const run *u, int64_t tiles, int64_t one, bool alone) {
  share own = {.tiles = tiles, .columns = tiles};
  if (!alone) own.columns = least(tiles, WORK / (one / tiles * u->rows + 1) + 1);
  own.units = parts_of(tiles, own.columns);
  return own;
}

/* Rows of units that go through all steps by themselves: few enough that all threads are
 * at work to the end. Units of two rows take twice the time of units of eight in all (see
 * FEWEST), but a batch of 32 would leave twelve of sixteen threads without any. */
static int64_t rows_alone(int64_t batch) {
  int64_t threads = nyx_parallel_threads(), rows = parts_of(batch, TASKS);
  if (rows < ROWS) rows = ROWS;
  int64_t turns = parts_of(parts_of(batch, rows), threads);
  rows = parts_of(batch, turns * threads);
  return rows < FEWEST ? FEWEST : rows;
}

/* Sizes of units; whether each goes through all steps by itself. */
static bool divide(run *u) {
  const nyx__recurrence *r = u->r;
  int64_t gates = u->cell->gates * r->hidden * (u->backward ? r->state : u->gates.depth);
  int64_t projection = u->project ? r->hidden * r->state : 0;
  int64_t one = gates + projection; /* multiplications of a row */
  bool alone = one * u->item <= CACHED && r->batch >= 2 * ROWS;
  u->rows = alone ? rows_alone(r->batch) : least(r->batch, 4 * u->gemm->tile_rows);
  u->row_units = parts_of(r->batch, u->rows);
  u->panels = parts_of(u->rows, panel_of(u, u->rows));
  alone = alone || one * r->batch < 2 * WORK;
  int64_t cells = u->backward && u->project ? projection : gates;
  u->share[CELLS] = share_of(u, u->tiles, cells, alone);
  if (u->project) u->share[STATES] = share_of(u, u->state_tiles, one - cells, alone);
  return alone;
}

/* One block of memory for everything. */
static char *open_memory(run *u, size_t *bytes) {
  nyx__recurrence *r = u->r;
  int64_t tiles = u->backward ? u->state_tiles : u->tiles * u->cell->gates;
  int64_t projected = u->backward ? u->tiles : u->state_tiles;
  int64_t mixed = !u->ends ? 0 : u->backward ? u->gates.depth : r->state;
  int64_t size[] = {tiles * u->tile * u->gates.depth,
                    projected * u->tile * u->projection.depth,
                    r->batch * u->gates.depth,
                    r->batch * u->projection.depth,
                    u->row_units * u->share[CELLS].units * u->rows * u->blocks * u->tile,
                    r->batch * r->hidden,
                    u->project ? r->batch * r->hidden : 0,
                    r->batch * mixed,
                    r->bias_ih || r->bias_hh ? u->blocks * r->hidden : 0};
  char **part[] = {&u->gates.weight, &u->projection.weight,
                   &u->gates.rows,   &u->projection.rows,
                   &u->products,     &u->zeros,
                   &u->raw,          &u->mixed,
                   &u->bias};
  int64_t all = 0;
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    size[i] = parts_of(size[i] * u->item, 64) * 64; /* a line of the cache */
    all += size[i];
  }
  *bytes = (size_t)all;
  char *memory = nyx_memory_alloc(*bytes), *next = memory;
  for (size_t i = 0; memory && i < sizeof size / sizeof *size; next += size[i++])
    *part[i] = size[i] > 0 ? next : NULL;
  return memory;
}

/* Terms from.. of panel number i of f's weight: columns j.. of a matrix (terms x columns)
 * or, turned, rows j.. of one (.. x terms); `left` of them are left. */
static void pack_panel(const run *u, const factor *f, int64_t i, int64_t from,
                       const char *matrix, int64_t columns, bool turned, int64_t j,
                       int64_t left) {
  u->gemm->pack_b(matrix + (turned ? j * columns : j) * u->item, turned ? 1 : columns,
                  turned ? columns : 1, turned ? columns : f->depth, least(u->tile, left),
                  f->weight + (i * f->depth + from) * u->tile * u->item);
}

static void pack_forward(const run *u, int64_t i) {
  const nyx__recurrence *r = u->r;
  const factor *f = &u->gates;
  int64_t j = i * u->tile, gates = u->cell->gates, left = r->hidden - j;
  for (int64_t k = 0; i < u->tiles && k < gates; k++) {
    int64_t row = k * r->hidden + j, panel = i * gates + k, x = r->input;
    pack_panel(u, f, panel, 0, r->weight_ih, x, true, row, left);
    pack_panel(u, f, panel, x, r->weight_hh, r->state, true, row, left);
  }
  if (u->project && i < u->state_tiles)
    pack_panel(u, &u->projection, i, 0, r->weight_hr, r->hidden, true, j, r->state - j);
}

static void pack_backward(const run *u, int64_t i) {
  const nyx__recurrence *r = u->r;
  int64_t j = i * u->tile;
  if (i < u->state_tiles)
    pack_panel(u, &u->gates, i, 0, r->weight_hh, r->state, false, j, r->state - j);
  if (u->project && i < u->tiles)
    pack_panel(u, &u->projection, i, 0, r->weight_hr, r->hidden, false, j, r->hidden - j);
}

/* The weights' panels of tiles begin..end-1. */
static void pack_weights(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  for (int64_t i = begin; i < end; i++)
    (u->backward ? pack_backward : pack_forward)(u, i);
}

/* The bias of each block of a product. */
static void add_biases(const run *u) {
  const nyx__recurrence *r = u->r;
  for (int64_t i = 0; u->bias && i < u->blocks * r->hidden; i++) {
    int64_t k = i / r->hidden, j = i % r->hidden, x = u->cell->input[k];
    int64_t h = u->cell->state[k];
    double sum = 0;
    if (r->bias_ih && x >= 0)
      sum += nyx__load_double(r->dtype, r->bias_ih + (x * r->hidden + j) * u->item);
    if (r->bias_hh && h >= 0)
      sum += nyx__load_double(r->dtype, r->bias_hh + (h * r->hidden + j) * u->item);
    nyx__store_double(r->dtype, u->bias + i * u->item, sum);
  }
}

/* Everything that follows from sizes. */
static void plan(run *u) {
  const nyx__recurrence *r = u->r;
  const nyx_cpu_kernels *cpu = nyx__cpu_kernels();
  bool wide = r->dtype == NYX_FLOAT64;
  u->cell = &nyx__cells[r->cell];
  u->gemm = &cpu->gemm->type[wide];
  u->own = cpu->recurrence->type[wide];
  u->item = (int64_t)nyx_dtype_size(r->dtype);
  u->tile = u->gemm->tile_cols;
  u->project = r->weight_hr != NULL;
  u->ends = r->live && r->reverse;
  u->blocks = u->backward ? 1 : u->cell->blocks;
  u->gates.depth = u->backward ? u->cell->gates * r->hidden : r->input + r->state;
  if (u->project) u->projection.depth = u->backward ? r->state : r->hidden;
  u->tiles = parts_of(r->hidden, u->tile);
  u->state_tiles = parts_of(r->state, u->tile);
}

nyx_status nyx__recurrence_steps(nyx__recurrence *r, bool backward) {
  if (r->batch == 0 || r->hidden == 0) return NYX_OK;
  run u = {.r = r, .backward = backward};
  plan(&u);
  atomic_init(&u.stopped, false);
  bool alone = divide(&u);
  size_t bytes;
  char *memory = open_memory(&u, &bytes);
  if (!memory) return nyx__no_memory(r->ctx, bytes);
  memset(u.zeros, 0, (size_t)(r->batch * r->hidden * u.item));
  if (r->dh0) memset(r->dh0, 0, (size_t)(r->batch * r->state * u.item));
  if (r->dc0) memset(r->dc0, 0, (size_t)(r->batch * r->hidden * u.item));
  add_biases(&u);
  int64_t most = u.tiles > u.state_tiles ? u.tiles : u.state_tiles;
  int64_t columns = u.cell->gates * u.tile * (r->state + r->input);
  nyx_parallel_for(most, PACK_WORK / columns + 1, pack_weights, &u);
  if (alone)
    nyx_parallel_for(u.row_units, WORK / (columns * u.tiles * u.rows * r->length) + 1,
                     do_rows, &u);
  else
    meet_after_steps(&u);
  nyx_memory_free(memory);
  return atomic_load(&u.stopped) ? nyx__error(r->ctx, INTERRUPTED) : NYX_OK;
}
