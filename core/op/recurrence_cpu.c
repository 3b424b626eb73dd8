/* Steps of a recurrent layer one after the other. The weights are packed once for all of
 * them; each step multiplies the input and the state before by some columns of them
 * (backward: the gradients of the later step's gates, which gives those of its input and
 * of the state) and hands the product, still in the cache, to the cell's kernel. Rows of
 * a batch do not see each other: while the weights stay in a core's cache some rows go
 * through all steps as one task. Larger weights, and few rows, are divided by columns,
 * and all tasks meet after every step. All is decided by size: results do not depend on
 * the number of threads. Read next: recurrence.c, kernels/cpu/recurrence.h. */
#include <nyx/parallel.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/gemm.h"
#include "recurrence.h"

#define ROWS 8           /* of a task: fewer waste the weights that are read for them */
#define TASKS 16         /* wanted */
#define CACHED (3 << 19) /* bytes of weights that a core keeps */
#define WORK (1 << 20)   /* multiplications worth waking a thread for */
#define PACK_WORK (1 << 15) /* elements, the same */

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
  bool backward;
  factor state, input;           /* what meets weight_hh, and weight_ih */
  int64_t blocks;                /* of columns in a product */
  int64_t tiles, input_tiles;    /* of hidden columns; backward: of dx */
  int64_t rows, row_units;       /* rows of a unit of work; how many units they make */
  int64_t columns, column_units; /* the same, tiles */
  int64_t panels;                /* of the left factors, in a unit's rows */
  int64_t s;                     /* the step at hand, where all tasks meet */
  char *products;                /* one for each unit */
  char *zeros, *bias; /* a state that is none; the sum of the biases, or NULL */
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
                          int64_t row, int64_t column) {
  if (s > 0) return at(u, all, nyx__step_at(u->r, s - 1), u->r->hidden, row, column);
  return at(u, first, 0, u->r->hidden, row, column);
}

/* ------------------------------------------------------------------ left factors */

/* Rows of unit number `unit`, from *r0 on. */
static int64_t rows_of(const run *u, int64_t unit, int64_t *r0) {
  *r0 = unit / u->column_units * u->rows;
  return least(u->rows, u->r->batch - *r0);
}

/* Rows of a panel: as even as their number allows. */
static int64_t panel_of(const run *u, int64_t rows) {
  return parts_of(rows, parts_of(rows, u->gemm->tile_rows));
}

/* Whether there is a later step, or backward an earlier one, that step s begins with. */
static bool has_state(const run *u, int64_t s) {
  return u->backward ? s < u->r->length - 1 : s > 0 || u->r->h0;
}

static void pack_rows(const run *u, const factor *f, const char *from, int64_t r0,
                      int64_t rows, int64_t panel) {
  u->gemm->pack_a(from, f->depth, 1, rows, panel, f->depth,
                  f->rows + r0 * f->depth * u->item);
}

/* What step s multiplies by the weights: `rows` rows in panels of `panel`. */
static void pack_step(const run *u, int64_t s, int64_t r0, int64_t rows, int64_t panel) {
  const nyx__recurrence *r = u->r;
  if (!u->backward) {
    const char *x = at(u, r->x, nyx__step_at(r, s), r->input, r0, 0);
    pack_rows(u, &u->input, x, r0, rows, panel);
    if (has_state(u, s))
      pack_rows(u, &u->state, state_before(u, r->y, r->h0, s, r0, 0), r0, rows, panel);
  } else if (has_state(u, s)) {
    int64_t later = nyx__step_at(r, s + 1), width = u->state.depth;
    pack_rows(u, &u->input, at(u, r->dgates, later, width, r0, 0), r0, rows, panel);
    if (u->state.rows != u->input.rows)
      pack_rows(u, &u->state, at(u, r->dhidden, later, width, r0, 0), r0, rows, panel);
  }
}

/* ------------------------------------------------------------------ products */

/* Some rows and one tile of columns in one step. */
typedef struct spot {
  int64_t s, r0, rows, panel, j, width; /* from column j on */
  char *product;
} spot;

/* c = (add: +=) the rows of f times panel number `panel` of its weight. */
static void multiply(const run *u, const spot *p, const factor *f, int64_t panel, char *c,
                     int64_t columns, int64_t ldc, bool add) {
  nyx_product q = {.m = p->rows, .n = columns, .k = f->depth, .c = c};
  q.ldc = ldc;
  q.add = add;
  u->gemm->block(&q, p->panel, f->rows + p->r0 * f->depth * u->item,
                 f->weight + panel * u->tile * f->depth * u->item);
}

static void clear(const run *u, const spot *p, char *product) {
  int64_t row = u->blocks * u->tile * u->item;
  for (int64_t i = 0; i < p->rows; i++)
    memset(product + i * row, 0, (size_t)(u->tile * u->item));
}

static nyx_cell_step cell_step(const run *u, const spot *p) {
  const nyx__recurrence *r = u->r;
  int64_t hidden = r->hidden, t = nyx__step_at(r, p->s);
  nyx_cell_step c = {p->rows, p->width, hidden, u->tile, .product = p->product};
  c.before = state_before(u, r->y, r->h0, p->s, p->r0, p->j);
  c.cell_before = state_before(u, r->cells, r->c0, p->s, p->r0, p->j);
  if (!c.before) c.before = at(u, u->zeros, 0, hidden, p->r0, p->j);
  if (!c.cell_before) c.cell_before = at(u, u->zeros, 0, hidden, p->r0, p->j);
  c.y = at(u, r->y, t, hidden, p->r0, p->j);
  c.gates = at(u, r->gates, t, u->cell->saved * hidden, p->r0, p->j);
  c.cell = at(u, r->cells, t, hidden, p->r0, p->j);
  return c;
}

static void tile_forward(const run *u, const spot *p) {
  bool state = has_state(u, p->s);
  for (int64_t k = 0; k < u->blocks; k++) {
    int64_t x = u->cell->input[k], h = u->cell->state[k], first = p->j / u->tile;
    char *c = p->product + k * u->tile * u->item;
    first *= u->cell->gates;
    if (x >= 0)
      multiply(u, p, &u->input, first + x, c, u->tile, u->blocks * u->tile, false);
    else if (!state)
      clear(u, p, c);
    if (h >= 0 && state)
      multiply(u, p, &u->state, first + h, c, u->tile, u->blocks * u->tile, x >= 0);
  }
  nyx_cell_step c = cell_step(u, p);
  if (u->bias) c.bias = u->bias + p->j * u->item;
  u->own->forward[u->r->cell](&c);
}

/* The last of all, s = -1, gives dh0, which of a GRU has what goes past its gates. */
static void tile_backward(const run *u, const spot *p) {
  const nyx__recurrence *r = u->r;
  if (p->s < 0) {
    char *dh0 = at(u, r->dh0, 0, r->hidden, p->r0, p->j);
    multiply(u, p, &u->state, p->j / u->tile, dh0, p->width, r->hidden,
             r->cell == NYX_CELL_GRU);
    return;
  }
  if (has_state(u, p->s))
    multiply(u, p, &u->state, p->j / u->tile, p->product, u->tile, u->tile, false);
  else
    clear(u, p, p->product);
  int64_t t = nyx__step_at(r, p->s), hidden = r->hidden, all = u->state.depth;
  nyx_cell_step c = cell_step(u, p);
  c.grad = at(u, r->grad, t, hidden, p->r0, p->j);
  c.grad_cell = at(u, r->grad_cells, t, hidden, p->r0, p->j);
  c.dgates = at(u, r->dgates, t, all, p->r0, p->j);
  c.dhidden = at(u, r->dhidden, t, all, p->r0, p->j);
  char *carry = r->cell == NYX_CELL_LSTM ? r->dc0 : r->dh0;
  c.carry = at(u, carry, 0, hidden, p->r0, p->j);
  u->own->backward[r->cell](&c);
}

/* dx of the step after s. */
static void tile_of_input(const run *u, const spot *p, int64_t i) {
  const nyx__recurrence *r = u->r;
  if (!has_state(u, p->s)) return;
  int64_t j = i * u->tile, t = nyx__step_at(r, p->s + 1);
  multiply(u, p, &u->input, i, at(u, r->dx, t, r->input, p->r0, j),
           least(u->tile, r->input - j), r->input, false);
}

/* All tiles of `unit`, which is some rows times some tiles. */
static void do_tiles(const run *u, int64_t s, int64_t unit) {
  spot p = {.s = s};
  p.rows = rows_of(u, unit, &p.r0);
  p.panel = panel_of(u, p.rows);
  p.product = u->products + unit * u->rows * u->blocks * u->tile * u->item;
  int64_t first = unit % u->column_units * u->columns;
  int64_t end = least(first + u->columns, u->tiles + u->input_tiles);
  for (int64_t i = first; i < end; i++) {
    if (i >= u->tiles) {
      tile_of_input(u, &p, i - u->tiles);
      continue;
    }
    p.j = i * u->tile;
    p.width = least(u->tile, u->r->hidden - p.j);
    (u->backward ? tile_backward : tile_forward)(u, &p);
  }
}

/* ------------------------------------------------------------------ all steps */

/* Step number i in the order of computation; backward one more than there are. */
static int64_t step_number(const run *u, int64_t i) {
  return u->backward ? u->r->length - 1 - i : i;
}

/* All steps of units begin..end-1. */
static void do_rows(void *arg, int64_t begin, int64_t end) {
  run *u = arg;
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t r0, rows = rows_of(u, unit, &r0), n = u->r->length + u->backward;
    for (int64_t i = 0; i < n && going(u); i++) {
      int64_t s = step_number(u, i);
      pack_step(u, s, r0, rows, panel_of(u, rows));
      do_tiles(u, s, unit);
    }
  }
}

/* One step of units begin..end-1. */
static void do_units(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  for (int64_t unit = begin; unit < end; unit++) do_tiles(u, u->s, unit);
}

/* Panels begin..end-1 of the left factors. */
static void pack_panels(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  for (int64_t i = begin; i < end; i++) {
    int64_t r0, rows = rows_of(u, i / u->panels * u->column_units, &r0);
    int64_t panel = panel_of(u, rows), first = i % u->panels * panel;
    if (first < rows) pack_step(u, u->s, r0 + first, least(panel, rows - first), panel);
  }
}

static void meet_after_steps(run *u) {
  int64_t terms = u->gemm->tile_rows * (u->state.depth + u->input.depth);
  for (int64_t i = 0; i < u->r->length + u->backward && going(u); i++) {
    u->s = step_number(u, i);
    nyx_parallel_for(u->row_units * u->panels, PACK_WORK / terms + 1, pack_panels, u);
    nyx_parallel_for(u->row_units * u->column_units, 1, do_units, u);
  }
}

/* ------------------------------------------------------------------ sizes and memory */

/* Sizes of units; whether each goes through all steps by itself. */
static bool divide(run *u) {
  const nyx__recurrence *r = u->r;
  int64_t columns = u->cell->gates * r->hidden, all = u->tiles + u->input_tiles;
  int64_t one = columns * (r->hidden + r->input); /* multiplications of a row */
  bool alone = one * u->item <= CACHED && r->batch >= 2 * ROWS;
  u->rows = parts_of(r->batch, TASKS);
  if (u->rows < ROWS) u->rows = ROWS;
  if (!alone) u->rows = least(r->batch, 4 * u->gemm->tile_rows);
  u->row_units = parts_of(r->batch, u->rows);
  u->panels = parts_of(u->rows, panel_of(u, u->rows));
  u->columns = all;
  if (!alone && one * r->batch >= 2 * WORK)
    u->columns = least(all, WORK / (one / all * u->rows + 1) + 1);
  else
    alone = true;
  u->column_units = parts_of(all, u->columns);
  return alone;
}

/* One block of memory for everything. */
static char *open_memory(run *u, size_t *bytes) {
  nyx__recurrence *r = u->r;
  bool own = !u->backward || r->dhidden; /* rows of input that are not those of state */
  int64_t columns = u->backward ? 1 : u->cell->gates;
  int64_t input = u->backward ? u->input_tiles : u->tiles * columns;
  int64_t size[] = {u->tiles * columns * u->tile * u->state.depth,
                    input * u->tile * u->input.depth,
                    r->batch * u->state.depth,
                    own ? r->batch * u->input.depth : 0,
                    u->row_units * u->column_units * u->rows * u->blocks * u->tile,
                    r->batch * r->hidden,
                    r->bias_ih || r->bias_hh ? u->blocks * r->hidden : 0};
  char **part[] = {&u->state.weight, &u->input.weight, &u->state.rows, &u->input.rows,
                   &u->products,     &u->zeros,        &u->bias};
  int64_t all = 0;
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    size[i] = parts_of(size[i] * u->item, 64) * 64; /* a line of the cache */
    all += size[i];
  }
  *bytes = (size_t)all;
  char *memory = nyx_memory_alloc(*bytes), *next = memory;
  for (size_t i = 0; memory && i < sizeof size / sizeof *size; next += size[i++])
    *part[i] = size[i] > 0 ? next : NULL;
  if (!own) u->input.rows = u->state.rows;
  return memory;
}

/* The weights' panels of tiles begin..end-1. */
static void pack_weights(void *arg, int64_t begin, int64_t end) {
  const run *u = arg;
  const nyx__recurrence *r = u->r;
  const char *weights[] = {r->weight_hh, r->weight_ih};
  const factor *f[] = {&u->state, &u->input};
  const int64_t width[] = {r->hidden, r->input};
  for (int64_t i = begin; i < end; i++) {
    int64_t j = i * u->tile, gates = u->cell->gates;
    for (int w = 0; w < 2; w++) {
      char *to = f[w]->weight + j * f[w]->depth * u->item;
      const char *from = weights[w];
      if (u->backward) {
        if (i >= (w ? u->input_tiles : u->tiles)) continue;
        u->gemm->pack_b(from + j * u->item, width[w], 1, f[w]->depth,
                        least(u->tile, width[w] - j), to);
        continue;
      }
      to = f[w]->weight + j * gates * f[w]->depth * u->item;
      for (int64_t k = 0; k < gates; k++, to += u->tile * f[w]->depth * u->item)
        u->gemm->pack_b(from + (k * r->hidden + j) * width[w] * u->item, 1, width[w],
                        f[w]->depth, least(u->tile, r->hidden - j), to);
    }
  }
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

static nyx_status run_all(nyx__recurrence *r, bool backward) {
  const nyx_cpu_kernels *cpu = nyx__cpu_kernels();
  bool wide = r->dtype == NYX_FLOAT64;
  if (r->batch == 0 || r->hidden == 0) return NYX_OK;
  run u = {.r = r, .backward = backward, .cell = &nyx__cells[r->cell]};
  u.gemm = &cpu->gemm->type[wide];
  u.own = cpu->recurrence->type[wide];
  u.item = (int64_t)nyx_dtype_size(r->dtype);
  u.tile = u.gemm->tile_cols;
  u.blocks = backward ? 1 : u.cell->blocks;
  u.state.depth = backward ? u.cell->gates * r->hidden : r->hidden;
  u.input.depth = backward ? u.state.depth : r->input;
  u.tiles = parts_of(r->hidden, u.tile);
  u.input_tiles = backward && r->dx ? parts_of(r->input, u.tile) : 0;
  atomic_init(&u.stopped, false);
  bool alone = divide(&u);
  size_t bytes;
  char *memory = open_memory(&u, &bytes);
  if (!memory) return nyx__no_memory(r->ctx, bytes);
  memset(u.zeros, 0, (size_t)(r->batch * r->hidden * u.item));
  add_biases(&u);
  int64_t most = u.tiles > u.input_tiles ? u.tiles : u.input_tiles;
  int64_t columns = u.cell->gates * u.tile * (r->hidden + r->input);
  nyx_parallel_for(most, PACK_WORK / columns + 1, pack_weights, &u);
  if (alone)
    nyx_parallel_for(u.row_units, WORK / (columns * u.tiles * u.rows * r->length) + 1,
                     do_rows, &u);
  else
    meet_after_steps(&u);
  nyx_memory_free(memory);
  return atomic_load(&u.stopped) ? nyx__error(r->ctx, INTERRUPTED) : NYX_OK;
}

nyx_status nyx__recurrence_forward(nyx__recurrence *r) {
  return run_all(r, false);
}

nyx_status nyx__recurrence_backward(nyx__recurrence *r) {
  size_t state = (size_t)(r->batch * r->hidden) * nyx_dtype_size(r->dtype);
  if (state == 0) return NYX_OK;
  memset(r->dh0, 0, state);
  if (r->cell == NYX_CELL_LSTM) memset(r->dc0, 0, state);
  return run_all(r, true);
}
