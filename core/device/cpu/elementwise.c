/* Runs elementwise kernels over tensors of any strides and dtypes: collapses dimensions,
 * splits the work, and brings blocks that do not lie ready into small buffers first.
 * Read next: kernels/cpu/elementwise.h. */
#include "../../../kernels/cpu/elementwise.h"

#include <math.h>
#include <nyx/parallel.h>
#include <stdlib.h>
#include <string.h>

#include "../../../kernels/cpu/move.h"
#include "../../base/tune.h"
#include "cpu.h"

#define MAX_IN 5
#define BLOCK_BYTES 4096  /* six fit the first-level cache */
#define TILE_BYTES 8192   /* two lines of each row or column */
#define TILE_MOST 16384   /* four of each, where the result streams */
#define STREAM_BLOCK 1024 /* of a result that streams: short bursts of both kinds */
#define TILE_COLS 64      /* and as many rows as fill a buffer */
#define PANEL_ROWS 512    /* done across before going further down: page tables */
#define TURN_ROWS 64      /* of a tile that is a copy, at least */
#define TURN_PANEL 1024
#define ROWS_STREAM (16 << 20)  /* results that are read next gain from here on only */
#define GRAIN_BYTES (128 << 10) /* of the compute type that one thread does at least */
#define TUNED_FROM (16 << 10)   /* below one thread is best, beyond any grain is good */
#define TUNED_TO (4 << 20)

/* A tensor as the loops see it. Strides are in elements; inputs' may be negative. */
typedef struct operand {
  char *data;
  int64_t item; /* bytes of an element */
  bool ready;   /* elements are of the type the kernel takes or gives */
  bool linear;  /* and lie in order: element i is at data + i * item */
  bool repeats; /* blocks that start at the same address hold the same elements */
  nyx_gather_fn
      gather; /* NULL: elements are ready and only have to be brought together */
  int64_t stride[NYX_MAX_DIMS];
} operand;

/* How the elements are cut into blocks. */
typedef enum cut {
  CUT_ROW,  /* pieces of a row */
  CUT_ROWS, /* whole rows, several at a time */
  CUT_TILES /* pieces of several rows: an operand's memory runs across the rows */
} cut;

typedef struct plan {
  nyx_elementwise_fn fn;
  nyx_elementwise_fn past; /* computes the same past the caches, or NULL */
  const double *attr;
  nyx_dtype compute;
  int64_t item;        /* bytes of the compute type */
  int64_t result_item; /* bytes of what fn writes: the compute type or bool */
  int n_in;            /* inputs the text uses; slot[i] is the place of in[i] for fn */
  int slot[MAX_IN];
  operand in[MAX_IN], out;
  _Alignas(8) char number[MAX_IN][8]; /* in[i], where a number is made another type */
  bool chooses; /* fn chooses elements of any type by the bytes of in[0] */
  bool copies;  /* fn only copies: what was brought together or converted is the result */
  bool streams; /* the result is too large for the caches */
  const nyx_move_kernels *move;
  nyx_gather_fn widen; /* turns fn's bools into the compute type before `scatter` */
  nyx_scatter_fn scatter;
  int ndim; /* at least 1; 2 for tiles */
  int64_t shape[NYX_MAX_DIMS];
  int64_t n;
  cut cut;
  int64_t block;                    /* most elements of a block */
  bool turns;                       /* tiles are copied from across: no buffers */
  int64_t panel;                    /* rows done across before going further down */
  int64_t tile_rows, tile_cols;     /* of a tile that is not at the edge */
  int64_t tiles_down, tiles_across; /* tiles of the last two dimensions */
} plan;

typedef struct buffers {
  _Alignas(64) char in[MAX_IN][TILE_MOST];
  _Alignas(64) char out[TILE_MOST];
  const char *held[MAX_IN]; /* the address a repeating operand's buffer was filled from */
  int64_t held_n[MAX_IN];
} buffers;

static int compute_index(nyx_dtype dtype) {
  switch (dtype) {
    case NYX_FLOAT32: return NYX_IN_FLOAT32;
    case NYX_FLOAT64: return NYX_IN_FLOAT64;
    case NYX_INT64: return NYX_IN_INT64;
    default: return NYX_IN_INT32;
  }
}

/* Positions and rows */

static void position(const plan *p, int64_t i, int64_t *at) {
  for (int d = p->ndim - 1; d > 0; d--) {
    at[d] = i % p->shape[d];
    i /= p->shape[d];
  }
  at[0] = i;
}

/* To the start of a row further down; `rows` do not leave the last but one dimension. */
static void next_rows(const plan *p, int64_t *at, int64_t rows) {
  int d = p->ndim - 2;
  at[d + 1] = 0;
  if (d < 0 || (at[d] += rows) < p->shape[d]) return;
  at[d] = 0;
  while (--d >= 0 && ++at[d] == p->shape[d] && d > 0) at[d] = 0;
}

static char *address(const plan *p, const operand *o, const int64_t *at) {
  int64_t offset = 0;
  for (int d = 0; d < p->ndim; d++) offset += at[d] * o->stride[d];
  return o->data + offset * o->item;
}

/* The elements from `at` to the end of its row, at most n. */
static int64_t run_length(const plan *p, const int64_t *at, int64_t n) {
  int64_t left = p->shape[p->ndim - 1] - at[p->ndim - 1];
  return left < n ? left : n;
}

/* Rows and columns between tensors and buffers */

/* Elements of `item` bytes, strides in elements. One side has its rows in order, or both
 * have; `down`: the memory of the other runs down the columns. */
#define MOVE(type)                                                                       \
  for (int64_t i = 0; i < outer; i++) {                                                  \
    const type *restrict s = (const type *)src + i * src_outer;                          \
    type *restrict d = (type *)dst + i * dst_outer;                                      \
    const type first = *s;                                                               \
    if (src_inner == 0 && dst_inner == 1)                                                \
      for (int64_t j = 0; j < inner; j++) d[j] = first;                                  \
    else if (src_inner == 1 && dst_inner == 1)                                           \
      for (int64_t j = 0; j < inner; j++) d[j] = s[j];                                   \
    else if (src_inner == -1 && dst_inner == 1)                                          \
      p->move->reverse[size](inner, s, d);                                               \
    else                                                                                 \
      for (int64_t j = 0; j < inner; j++) d[j * dst_inner] = s[j * src_inner];           \
  }
static void move(const plan *p, int64_t item, bool down, int64_t rows, int64_t cols,
                 const void *src, int64_t src_down, int64_t src_right, void *dst,
                 int64_t dst_down, int64_t dst_right) {
  const nyx_transpose_fn *transpose = p->move->transpose;
  int size = item == 8 ? 3 : item == 4 ? 2 : item == 2 ? 1 : 0;
  if (src_down == 1 && dst_right == 1 && rows > 1 && src_right != 0) {
    transpose[size](rows, cols, src, src_right, dst, dst_down);
    return;
  }
  if (dst_down == 1 && src_right == 1) {
    transpose[size](cols, rows, src, src_down, dst, dst_right);
    return;
  }
  if (!down && src_right == 1 && dst_right == 1 && src_down == 0 && dst_down == cols) {
    p->move->repeat[size](rows, cols, src, dst);
    return;
  }
  if (!down && src_right == 1 && dst_right == 1) {
    p->move->rows(rows, cols * item, src, src_down * item, dst, dst_down * item);
    return;
  }
  if (!down && src_right == 0 && dst_right == 1 && dst_down == cols) {
    p->move->fill[size](rows, cols, src, src_down, dst);
    return;
  }
  int64_t outer = down ? cols : rows, inner = down ? rows : cols;
  int64_t src_outer = down ? src_right : src_down,
          src_inner = down ? src_down : src_right;
  int64_t dst_outer = down ? dst_right : dst_down,
          dst_inner = down ? dst_down : dst_right;
  switch (size) {
    case 0: MOVE(uint8_t) break;
    case 1: MOVE(uint16_t) break;
    case 2: MOVE(uint32_t) break;
    default: MOVE(uint64_t)
  }
}

/* Bytes of an element as fn takes it. */
static int64_t taken_item(const plan *p, const operand *o) {
  return o->ready ? o->item : p->item;
}

/* To a dense buffer of the compute type. */
static void gather(const plan *p, const operand *o, int64_t rows, int64_t cols,
                   const char *src, char *dst) {
  int64_t right = o->stride[p->ndim - 1], down = p->ndim > 1 ? o->stride[p->ndim - 2] : 0;
  const bool across =
      rows > 1 && down != 0 && llabs(down) < llabs(right); /* a row that repeats is one */
  if (o->ready && (rows > 1 || !o->gather || right == 0)) {
    move(p, o->item, across, rows, cols, src, down, right, dst, cols, 1);
  } else if (rows == 1) {
    o->gather(cols, src, right, dst);
  } else if (across) {
    _Alignas(64) char turned[TILE_MOST];
    for (int64_t j = 0; j < cols; j++)
      o->gather(rows, src + j * right * o->item, down, turned + j * rows * p->item);
    move(p, p->item, true, rows, cols, turned, 1, rows, dst, cols, 1);
  } else {
    for (int64_t i = 0; i < rows; i++)
      o->gather(cols, src + i * down * o->item, right, dst + i * cols * p->item);
  }
}

/* From a dense buffer of the compute type, or of the output's when that is ready. */
static void scatter(const plan *p, int64_t rows, int64_t cols, const char *src,
                    char *dst) {
  const operand *o = &p->out;
  int64_t right = o->stride[p->ndim - 1], down = p->ndim > 1 ? o->stride[p->ndim - 2] : 0;
  if (o->ready) {
    move(p, o->item, down < right, rows, cols, src, cols, 1, dst, down, right);
  } else if (rows > 1 && down < right) {
    _Alignas(64) char turned[TILE_MOST];
    move(p, p->item, true, rows, cols, src, cols, 1, turned, 1, rows);
    for (int64_t j = 0; j < cols; j++)
      p->scatter(rows, turned + j * rows * p->item, dst + j * right * o->item, down);
  } else {
    for (int64_t i = 0; i < rows; i++)
      p->scatter(cols, src + i * cols * p->item, dst + i * down * o->item, right);
  }
}

/* Blocks of rows */

/* Calls gather or scatter for n elements that begin at `start`, piece by piece. */
static void through_rows(const plan *p, const operand *o, const int64_t *start, int64_t n,
                         char *buffer) {
  int64_t next[NYX_MAX_DIMS], length = p->shape[p->ndim - 1];
  const int64_t *at = start; /* copied only where there is a second piece: it was just */
  bool in = o != &p->out;    /* written, for which vectors wait */
  int64_t item = taken_item(p, o);
  while (n > 0) {
    int64_t rows = 1, cols = run_length(p, at, n);
    if (cols == length && p->ndim > 1) {
      rows = p->shape[p->ndim - 2] - at[p->ndim - 2];
      if (rows > n / length) rows = n / length;
    }
    if (in)
      gather(p, o, rows, cols, address(p, o, at), buffer);
    else
      scatter(p, rows, cols, buffer, address(p, o, at));
    buffer += rows * cols * item;
    n -= rows * cols;
    if (n == 0) return;
    if (at == start) at = memcpy(next, start, sizeof next);
    next_rows(p, next, rows);
  }
}

/* Where fn finds elements i..i+n-1 of in[k], whose first is at `at`. */
static const void *block_of(const plan *p, int k, buffers *b, int64_t i,
                            const int64_t *at, int64_t n) {
  const operand *o = &p->in[k];
  if (o->linear) return o->data + i * o->item;
  const char *from = address(p, o, at);
  if (o->ready && o->stride[p->ndim - 1] == 1 && run_length(p, at, n) == n) return from;
  if (!o->repeats || b->held[k] != from || b->held_n[k] < n) {
    through_rows(p, o, at, n, b->in[k]);
    b->held[k] = from;
    b->held_n[k] = n;
  }
  return b->in[k];
}

/* What fn left in the buffer, in the type `scatter` takes. */
static char *widened(const plan *p, int64_t n, buffers *b) {
  if (p->out.ready || !p->widen) return b->out;
  p->widen(n, b->out, 1, b->in[0]); /* the inputs are used up */
  b->held[0] = NULL;
  return b->in[0];
}

/* Asks for a block to come while this one is computed: the caches' own guesses end too
 * soon for functions of many instructions. */
static void fetch_block(const operand *o, int64_t i, int64_t n) {
  const char *at = o->data + i * o->item + NYX_AHEAD_BYTES;
  for (int64_t k = 0; k < n * o->item; k += 64) __builtin_prefetch(at + k);
}

/* Elements of a result that streams, by `past`. */
static void compute_past(const plan *p, int64_t i, int64_t n, const void *const *in) {
  char *to = p->out.data + i * p->out.item;
  int64_t head = (int64_t)(-(uintptr_t)to % 64) / p->item; /* to where a line begins */
  const void *rest[MAX_IN];
  if (head > n) head = n;
  if (head > 0) p->fn(head, in, to, p->attr);
  for (int k = 0; k < MAX_IN; k++) rest[k] = (const char *)in[k] + head * p->item;
  p->past(n - head, rest, to + head * p->item, p->attr);
}

/* A block of a result that streams. */
static void stream_block(const plan *p, buffers *b, int64_t i, int64_t n,
                         const void *const *in) {
  if (p->past) {
    compute_past(p, i, n, in);
    return;
  }
  for (int k = 0; k < p->n_in; k++)
    if (p->in[k].linear) fetch_block(&p->in[k], i, n);
  const void *from = in[p->slot[0]];
  if (!p->copies) p->fn(n, in, b->out, p->attr);
  p->move->stream(n * p->out.item, p->copies ? from : b->out,
                  p->out.data + i * p->out.item);
}

/* Elements that only change their type do so on the way: no kernel is called. */
static void convert_block(const plan *p, buffers *b, int64_t i, const int64_t *at,
                          int64_t n) {
  if (p->out.linear)
    through_rows(p, &p->in[0], at, n, p->out.data + i * p->out.item);
  else
    through_rows(p, &p->out, at, n, (char *)block_of(p, 0, b, i, at, n));
}

/* Whether that needs no buffer, which would limit the elements at once: pieces of a row,
 * or rows that are copied. */
static bool goes_through(const plan *p) {
  const operand *in = &p->in[0], *out = &p->out;
  const int last = p->ndim - 1;
  if (!p->copies || p->streams) return false;
  if (!out->linear && !(in->linear && in->ready)) return false;
  if (p->cut == CUT_ROW) return true;
  return !in->repeats && in->ready && out->ready && in->stride[last] == 1 &&
         out->stride[last] == 1;
}

static void run_rows(const plan *p, int64_t begin, int64_t end) {
  buffers b;
  const void *in[MAX_IN];
  int64_t at[NYX_MAX_DIMS] = {0};
  memset(b.held, 0, sizeof b.held);
  const bool through = goes_through(p);
  for (int64_t i = begin, n; i < end; i += n) {
    position(p, i, at);
    n = through || end - i < p->block ? end - i : p->block;
    if (p->cut == CUT_ROW) n = run_length(p, at, n);
    if (p->copies && !p->streams && (p->cut == CUT_ROW || !p->in[0].repeats)) {
      convert_block(p, &b, i, at, n);
      continue;
    }
    for (int k = 0; k < MAX_IN; k++) in[k] = b.in[0];
    for (int k = 0; k < p->n_in; k++) in[p->slot[k]] = block_of(p, k, &b, i, at, n);
    if (p->streams) {
      stream_block(p, &b, i, n, in);
      continue;
    }
    p->fn(n, in, p->out.linear ? p->out.data + i * p->out.item : b.out, p->attr);
    if (!p->out.linear) through_rows(p, &p->out, at, n, widened(p, n, &b));
  }
  if (p->streams) p->move->drain();
}

/* Tiles */

/* Asks for the rows of the tile below: they are too far apart for anything to guess. */
static void fetch_rows(const char *at, int64_t step, int64_t rows, int64_t bytes) {
  for (int64_t i = rows; i < 2 * rows; i++)
    for (int64_t k = 0; k < bytes; k += 64) __builtin_prefetch(at + i * step + k);
}

/* Where a tile is written, and by what. */
typedef struct tile_target {
  nyx_elementwise_fn fn;
  char *to;
  int64_t step; /* bytes from row to row */
  bool dense;
} tile_target;

static tile_target target_of(const plan *p, buffers *b, char *target, int64_t cols) {
  const int last = p->ndim - 1;
  const int64_t step = p->out.stride[last - 1] * p->out.item;
  const bool past =
      p->streams && p->past && ((uintptr_t)target | (uint64_t)step) % 64 == 0;
  if (past) return (tile_target){p->past, target, step, false};
  bool direct = p->out.ready && p->out.stride[last] == 1 && !p->streams;
  if (direct) return (tile_target){p->fn, target, step, false};
  return (tile_target){p->fn, b->out, cols * p->result_item, true};
}

/* From fn's buffer to the output. */
static void finish_tile(const plan *p, buffers *b, int64_t rows, int64_t cols,
                        const char *from, char *target) {
  const operand *o = &p->out;
  const int last = p->ndim - 1;
  if (!p->streams) {
    scatter(p, rows, cols, from == b->out ? widened(p, rows * cols, b) : from, target);
    return;
  }
  for (int64_t i = 0; i < rows; i++)
    p->move->stream(cols * o->item, from + i * cols * o->item,
                    target + i * o->stride[last - 1] * o->item);
}

static void run_tile(const plan *p, buffers *b, const int64_t *at, int64_t rows,
                     int64_t cols) {
  const int last = p->ndim - 1;
  const char *from[MAX_IN];
  const void *in[MAX_IN];
  int64_t step[MAX_IN]; /* bytes from row to row */
  char *target = address(p, &p->out, at);
  tile_target t = target_of(p, b, target, cols);
  bool dense = t.dense;
  for (int k = 0; k < p->n_in; k++) {
    const operand *x = &p->in[k];
    from[k] = address(p, x, at);
    step[k] = x->stride[last - 1] * x->item;
    if (x->ready && x->stride[last] == 1) {
      if (!p->streams) fetch_rows(from[k], step[k], rows, cols * x->item);
      dense = false;
      continue;
    }
    gather(p, x, rows, cols, from[k], b->in[k]);
    from[k] = b->in[k];
    step[k] = cols * taken_item(p, x);
  }
  if (dense && p->copies) {
    finish_tile(p, b, rows, cols, from[0], target);
    return;
  }
  int64_t calls = dense ? 1 : rows, n = dense ? rows * cols : cols;
  for (int64_t i = 0; i < calls; i++) {
    for (int k = 0; k < MAX_IN; k++) in[k] = b->in[0];
    for (int k = 0; k < p->n_in; k++) in[p->slot[k]] = from[k] + i * step[k];
    t.fn(n, in, t.to + i * t.step, p->attr);
  }
  if (t.dense) finish_tile(p, b, rows, cols, b->out, target);
}

/* A tile that is only turned goes from where it lies to where it belongs. */
static void turn_tile(const plan *p, const int64_t *at, int64_t rows, int64_t cols) {
  const int last = p->ndim - 1;
  const operand *x = &p->in[0], *y = &p->out;
  const nyx_transpose_fn *turn = p->streams ? p->move->turn_past : p->move->turn;
  turn[__builtin_ctzll(p->item)](rows, cols, address(p, x, at), x->stride[last],
                                 address(p, y, at), y->stride[last - 1]);
}

/* The first element of tile t. Down first: the next tile has the memory next to this
 * one's. But only so far that the pages of both sides are still known when it goes on
 * across. */
static void tile_position(const plan *p, int64_t t, int64_t *at) {
  const int last = p->ndim - 1;
  int64_t high = p->panel / p->tile_rows, plane = p->tiles_down * p->tiles_across;
  int64_t rest = t / plane, inside = t % plane;
  int64_t panel = inside / (high * p->tiles_across), first = panel * high;
  if (high > p->tiles_down - first) high = p->tiles_down - first;
  inside -= first * p->tiles_across;
  at[last - 1] = (first + inside % high) * p->tile_rows;
  at[last] = inside / high * p->tile_cols;
  for (int d = last - 2; d >= 0; rest /= p->shape[d--]) at[d] = rest % p->shape[d];
}

static void run_tiles(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  const int last = p->ndim - 1;
  int64_t at[NYX_MAX_DIMS] = {0};
  buffers b;
  for (int64_t t = begin; t < end; t++) {
    tile_position(p, t, at);
    int64_t rows = p->shape[last - 1] - at[last - 1], cols = p->shape[last] - at[last];
    if (rows > p->tile_rows) rows = p->tile_rows;
    if (cols > p->tile_cols) cols = p->tile_cols;
    if (p->turns)
      turn_tile(p, at, rows, cols);
    else
      run_tile(p, &b, at, rows, cols);
  }
  if (p->streams) p->move->drain();
}

static void run_range(void *arg, int64_t begin, int64_t end) {
  const plan *p = arg;
  const void *in[MAX_IN];
  bool linear = p->out.linear && (!p->streams || p->past);
  for (int k = 0; k < p->n_in; k++) linear = linear && p->in[k].linear;
  if (!linear) {
    run_rows(p, begin, end);
    return;
  }
  char *out = p->out.data + begin * p->out.item;
  for (int k = 0; k < MAX_IN; k++) in[k] = out;
  for (int k = 0; k < p->n_in; k++)
    in[p->slot[k]] = p->in[k].data + begin * p->in[k].item;
  if (p->streams) {
    compute_past(p, begin, end - begin, in);
    p->move->drain();
  } else {
    p->fn(end - begin, in, out, p->attr);
  }
}

/* Plans */

/* Copies within a dtype keep the bits, and need no kernel: whatever the type, elements of
 * a size are moved alike. So are those of a number, which is converted once. */
#define COPY(size)                                                                       \
  static void copy_##size(int64_t n, const void *const *in, void *out,                   \
                          const double *attr) {                                          \
    (void)attr;                                                                          \
    memmove(out, in[0], (size_t)n *(size));                                              \
  }
COPY(1)
COPY(2)
COPY(4)
COPY(8)
static nyx_elementwise_fn copy_of(int64_t item) {
  return item == 8 ? copy_8 : item == 4 ? copy_4 : item == 2 ? copy_2 : copy_1;
}

/* Drops dimensions of size 1, orders the others so that the output's strides fall, and
 * merges neighbours that all operands step through evenly. */
static void collapse(plan *p, const nyx_tensor *out) {
  operand *all[MAX_IN + 1] = {&p->out};
  int count = 1, ndim = 0;
  for (int k = 0; k < p->n_in; k++) all[count++] = &p->in[k];
  for (int d = 0; d < out->ndim; d++) {
    int to = ndim;
    if (out->shape[d] == 1) continue;
    while (to > 0 && p->out.stride[to - 1] < out->stride[d]) to--;
    for (int k = 0; k < count; k++) {
      int64_t stride = all[k]->stride[d];
      memmove(&all[k]->stride[to + 1], &all[k]->stride[to],
              (size_t)(ndim - to) * sizeof stride);
      all[k]->stride[to] = stride;
    }
    memmove(&p->shape[to + 1], &p->shape[to], (size_t)(ndim - to) * sizeof *p->shape);
    p->shape[to] = out->shape[d];
    ndim++;
  }
  int last = 0;
  for (int d = 1; d < ndim; d++) {
    bool even = true;
    for (int k = 0; k < count; k++)
      even = even && all[k]->stride[last] == all[k]->stride[d] * p->shape[d];
    last += !even;
    p->shape[last] = even ? p->shape[last] * p->shape[d] : p->shape[d];
    for (int k = 0; k < count; k++) all[k]->stride[last] = all[k]->stride[d];
  }
  p->ndim = last + 1;
  if (ndim == 0) {
    p->shape[0] = 1;
    for (int k = 0; k < count; k++) all[k]->stride[0] = 0;
  }
}

/* A few elements side by side that are only moved, such as the floats of a complex
 * number, are one of a larger size: squares of those can be turned. */
static void merge_pairs(plan *p) {
  operand *in = &p->in[0], *out = &p->out;
  while (p->copies && p->ndim > 1 && out->ready && in->ready && p->item < 8) {
    const int last = p->ndim - 1;
    const int64_t bytes = 2 * p->item;
    bool even = p->shape[last] * p->item <= 8 && p->shape[last] % 2 == 0 &&
                in->stride[last] == 1 && out->stride[last] == 1 &&
                ((uintptr_t)in->data | (uintptr_t)out->data) % (size_t)bytes == 0;
    for (int d = 0; d < last; d++)
      even = even && in->stride[d] % 2 == 0 && out->stride[d] % 2 == 0;
    if (!even) return;
    for (int d = 0; d < last; d++) in->stride[d] /= 2, out->stride[d] /= 2;
    p->item = p->result_item = in->item = out->item = bytes;
    p->fn = copy_of(bytes);
    p->n /= 2;
    p->shape[last] /= 2;
    if (p->shape[last] == 1) p->ndim--;
  }
}

/* Whether elements lie in order over the collapsed shape. */
static bool in_order(const plan *p, const operand *o) {
  int64_t expect = 1;
  for (int d = p->ndim - 1; d >= 0; expect *= p->shape[d--])
    if (p->shape[d] != 1 && o->stride[d] != expect) return false;
  return true;
}

static bool repeats(const plan *p, const operand *o) {
  if (p->cut == CUT_ROW) return o->stride[p->ndim - 1] == 0;
  for (int d = 0; d < p->ndim - 1; d++)
    if (o->stride[d] != 0) return false;
  return true;
}

/* The dimension along which the memory of o is dense, if rows are long and it is not the
 * last; else -1. */
static int dense_across(const plan *p, const operand *o) {
  int last = p->ndim - 1, best = -1;
  int64_t least = llabs(o->stride[last]);
  for (int d = 0; d < last; d++)
    if (p->shape[d] >= 8 && o->stride[d] != 0 && llabs(o->stride[d]) < least) {
      least = llabs(o->stride[d]);
      best = d;
    }
  return best;
}

static void swap(int64_t *list, int i, int j) {
  int64_t kept = list[i];
  list[i] = list[j];
  list[j] = kept;
}

/* Stores past the caches spare reading what is overwritten: not in place, where it is
 * read anyway. */
static bool streams(const plan *p) {
  bool apart = p->out.linear && p->n * p->out.item >= ROWS_STREAM;
  for (int k = 0; k < p->n_in; k++) apart = apart && p->in[k].data != p->out.data;
  return apart;
}

/* Whether tiles are copies whose squares are turned from place to place, in whole lines.
 */
static bool turns(const plan *p) {
  const int last = p->ndim - 1;
  bool even = (uintptr_t)p->out.data % 64 == 0;
  for (int d = 0; d < last; d++) even = even && p->out.stride[d] * p->out.item % 64 == 0;
  return even && p->copies && p->out.ready && p->in[0].ready &&
         p->out.stride[last] == 1 && p->in[0].stride[last - 1] == 1;
}

/* Tiles of the last two dimensions, down one and across the other of which some operand's
 * memory runs. */
static void lay_out_tiles(plan *p) {
  const int last = p->ndim - 1;
  p->cut = CUT_TILES;
  p->streams =
      p->out.ready && p->out.stride[last] == 1 && p->n * p->out.item >= NYX_STREAM_BYTES;
  p->turns = turns(p);
  if (p->turns) {
    p->tile_cols = NYX_TURN_BYTES / p->item;
    p->tile_rows = p->tile_cols > TURN_ROWS ? p->tile_cols : TURN_ROWS;
    p->block = p->tile_rows * p->tile_cols;
    p->panel = TURN_PANEL;
  } else {
    p->tile_cols = TILE_COLS;
    p->block = (p->streams ? TILE_MOST : TILE_BYTES) / p->item;
    p->tile_rows = p->block / TILE_COLS;
    p->panel = PANEL_ROWS;
  }
  p->tiles_down = (p->shape[last - 1] + p->tile_rows - 1) / p->tile_rows;
  p->tiles_across = (p->shape[last] + p->tile_cols - 1) / p->tile_cols;
}

/* Decides how blocks are cut and which operands need no buffer. */
static void lay_out(plan *p) {
  int last = p->ndim - 1;
  int64_t row = p->shape[last], most = BLOCK_BYTES / p->item;
  p->cut = row <= most / 2 ? CUT_ROWS : CUT_ROW;
  const int64_t plane = last > 0 ? row * p->shape[last - 1] : row;
  const int64_t whole = plane <= most ? plane : row; /* blocks begin where these do */
  p->block = p->cut == CUT_ROWS ? most / whole * whole : most;
  if (row >= 64) {
    int across = dense_across(p, &p->out);
    for (int k = 0; k < p->n_in && across < 0; k++) across = dense_across(p, &p->in[k]);
    if (across >= 0) {
      swap(p->shape, across, last - 1);
      swap(p->out.stride, across, last - 1);
      for (int k = 0; k < p->n_in; k++) swap(p->in[k].stride, across, last - 1);
      lay_out_tiles(p);
      return;
    }
  }
  p->out.linear = p->out.ready && in_order(p, &p->out);
  for (int k = 0; k < p->n_in; k++) {
    operand *o = &p->in[k];
    o->linear = o->ready && in_order(p, o);
    o->repeats = repeats(p, o);
  }
  p->streams = streams(p);
  if (p->streams && !p->past && p->cut == CUT_ROW) p->block = STREAM_BLOCK / p->item;
}

/* The common case: everything contiguous, of one geometry, of the compute type; or one
 * number. */
static bool plan_simple(plan *p, const nyx_elementwise *job) {
  if (!p->out.ready || !nyx__is_contiguous(job->out)) return false;
  for (int k = 0; k < p->n_in; k++) {
    const nyx_tensor *t = job->in[p->slot[k]];
    operand *o = &p->in[k];
    o->linear = o->ready && t->numel == p->n && nyx__is_contiguous(t);
    if (!o->linear && t->numel != 1) return false;
    o->stride[0] = o->linear;
    o->repeats = !o->linear;
  }
  p->out.linear = true;
  p->streams = streams(p);
  p->out.stride[0] = 1;
  p->ndim = 1;
  p->shape[0] = p->n;
  p->block =
      (p->streams && !p->past ? STREAM_BLOCK : BLOCK_BYTES) >> __builtin_ctzll(p->item);
  p->cut = CUT_ROW;
  return true;
}

static void plan_general(plan *p, const nyx_elementwise *job) {
  nyx__broadcast_strides(job->out, job->out->ndim, p->out.stride);
  for (int k = 0; k < p->n_in; k++)
    nyx__broadcast_strides(job->in[p->slot[k]], job->out->ndim, p->in[k].stride);
  collapse(p, job->out);
  merge_pairs(p);
  lay_out(p);
}

static bool keeps_bits(const plan *p, const nyx_elementwise *job) {
  return p->copies && (job->in[0]->dtype == job->out->dtype || job->in[0]->numel == 1);
}

/* Narrow types */

/* Whether v is in the range of a narrow type. */
static bool in_range(nyx_dtype dtype, double v) {
  double least = dtype == NYX_INT8 ? -128 : 0;
  double most = dtype == NYX_INT8 ? 127 : dtype == NYX_UINT8 ? 255 : 1;
  return !(v < least || v > most);
}

/* Whether the element of t, of another integer type, is one of `dtype`. */
static bool number_fits(const nyx_tensor *t, nyx_dtype dtype) {
  return t->numel == 1 && !nyx_dtype_is_float(t->dtype) &&
         in_range(dtype, nyx__load_double(t->dtype, nyx__data(t)));
}

/* Whether in[i] is what a kernel over `dtype` takes, or a number that can be made it. The
 * condition of `where` is only compared with 0. */
static bool operand_fits(const nyx_elementwise *job, int i, nyx_dtype dtype) {
  const nyx_tensor *t = job->in[i];
  if (!t || t->dtype == dtype) return true;
  if (i == 0 && job->row->id == NYX_KERNEL_where && t->dtype == NYX_BOOL) return true;
  return number_fits(t, dtype);
}

/* The narrow dtype of a tensor that decides: one with more elements than a number has. */
static nyx_dtype narrow_dtype(const nyx_elementwise *job) {
  if (!job->row->result_bool) return job->out->dtype;
  for (int i = 0; i < job->row->arity; i++)
    if (job->in[i] && job->in[i]->numel != 1) return job->in[i]->dtype;
  return job->in[0] ? job->in[0]->dtype : NYX_INT32;
}

/* Finds the kernel that computes in the narrow dtype all operands have, where its result
 * is what int32 gives: nothing is beyond the type's range. */
static bool plan_narrow(plan *p, const nyx_elementwise *job) {
  if (job->compute != NYX_INT32 || job->part != 0) return false;
  nyx_dtype dtype = narrow_dtype(job);
  int own = dtype == NYX_INT8    ? NYX_OWN_INT8
            : dtype == NYX_UINT8 ? NYX_OWN_UINT8
            : dtype == NYX_BOOL  ? NYX_OWN_BOOL
                                 : NYX_OWN_COUNT;
  if (own == NYX_OWN_COUNT) return false;
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  p->fn = kernels->own[own][job->row->id];
  if (!p->fn && own == NYX_OWN_UINT8) p->fn = kernels->own[NYX_OWN_INT8][job->row->id];
  if (!p->fn || job->out->dtype != (job->row->result_bool ? NYX_BOOL : dtype))
    return false;
  for (int i = 0; i < job->row->arity; i++)
    if (!operand_fits(job, i, dtype)) return false;
  if (job->row->id == NYX_KERNEL_clamp && /* cut, these do not limit anything either */
      ((job->attr[0] != -INFINITY && !in_range(dtype, job->attr[0])) ||
       (job->attr[1] != INFINITY && !in_range(dtype, job->attr[1]))))
    return false;
  p->compute = dtype;
  p->item = p->result_item = p->out.item = 1;
  p->out.ready = true;
  return true;
}

/* Whether the text is `where`, by bytes, and only moves elements of one type: whatever
 * that is, nothing is widened. */
static bool plan_choice(plan *p, const nyx_elementwise *job) {
  if (job->row->id != NYX_KERNEL_where || job->part != 0) return false;
  const nyx_tensor *mask = job->in[0];
  if (nyx__item(mask->dtype) != 1) return false;
  for (int i = 1; i < 3; i++)
    if (job->in[i]->dtype != job->out->dtype && job->in[i]->numel != 1) return false;
  p->chooses = true;
  p->compute = job->out->dtype;
  p->item = p->result_item = p->out.item;
  p->out.ready = true;
  p->fn = p->move->choose[__builtin_ctzll(p->item)];
  return true;
}

/* What is computed, and in which type. */
static void plan_kernel(plan *p, const nyx_elementwise *job) {
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  int compute = compute_index(job->compute);
  nyx_dtype result = job->row->result_bool && job->part == 0 ? NYX_BOOL : job->compute;
  p->compute = job->compute;
  p->copies = job->row->id == NYX_KERNEL_clone && job->part == 0;
  p->out.item = nyx__item(job->out->dtype);
  if (keeps_bits(p, job)) {
    p->item = p->result_item = p->out.item;
    p->out.ready = true;
    p->fn = copy_of(p->item);
    return;
  }
  if (plan_narrow(p, job) || plan_choice(p, job)) return;
  p->fn = kernels->rows[compute][job->row->id][job->part];
  if (compute == NYX_IN_FLOAT32 && job->part == 0) p->past = kernels->past[job->row->id];
  p->result_item = nyx__item(result);
  p->item = nyx__item(job->compute);
  p->out.ready = job->out->dtype == result;
  p->widen = result == job->compute ? NULL : kernels->gather[result][compute];
  p->scatter = kernels->scatter[compute][job->out->dtype];
}

/* An operand that the kernel takes as it is, once a number has been made its type. */
static void plan_ready(plan *p, const nyx_elementwise *job, operand *o,
                       const nyx_tensor *t) {
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  const int compute = compute_index(job->compute);
  nyx_dtype dtype = p->copies ? job->out->dtype : p->compute;
  o->ready = true;
  o->gather = NULL;
  if (t->dtype == dtype || t->numel != 1) return;
  int64_t wide;
  char *number = p->number[o - p->in];
  kernels->gather[t->dtype][compute](1, o->data, 1, &wide);
  kernels->scatter[compute][dtype](1, &wide, number, 1);
  o->data = number;
  o->item = p->item;
}

static void plan_operands(plan *p, const nyx_elementwise *job) {
  const nyx_elementwise_kernels *kernels = nyx__cpu_kernels()->elementwise;
  p->out.data = nyx__data(job->out);
  p->n_in = 0;
  for (int i = 0; i < MAX_IN; i++) {
    const nyx_tensor *t = job->in[i];
    if (!t) continue;
    operand *o = &p->in[p->n_in];
    o->data = nyx__data(t);
    o->item = nyx__item(t->dtype);
    p->slot[p->n_in++] = i;
    if (p->chooses && i == 0) {
      o->ready = true;
      o->gather = NULL;
      continue;
    }
    if (keeps_bits(p, job) || p->chooses || p->compute != job->compute) {
      plan_ready(p, job, o, t);
      continue;
    }
    o->ready = t->dtype == job->compute;
    o->gather = kernels->gather[t->dtype][compute_index(job->compute)];
  }
}

static void run_plan(plan *p, int64_t grain_bytes, nyx__stop *stop) {
  if (p->cut != CUT_TILES && p->n * p->item <= grain_bytes) {
    run_range(p, 0, p->n);
    return;
  }
  int64_t blocks = grain_bytes / p->item / p->block;
  nyx_range_fn fn = run_range;
  int64_t n = p->n, grain = blocks * p->block;
  if (p->cut == CUT_TILES) {
    fn = run_tiles;
    n = p->n / (p->shape[p->ndim - 1] * p->shape[p->ndim - 2]) * p->tiles_down *
        p->tiles_across;
    grain = blocks;
  }
  if (p->streams) /* nothing of it stays in a cache */
    nyx__parallel_until(stop, n, grain, fn, p);
  else
    nyx__sweep_until(stop, n, grain, fn, p);
}

/* What a thread does at least may be measured, for the sizes where it matters: every
 * grain gives the same bits. */
static const int64_t grains[] = {GRAIN_BYTES, 16 << 10, 32 << 10, 512 << 10,
                                 (int64_t)1 << 40};
static const char *const grain_names[] = {"grain_128k", "grain_16k", "grain_32k",
                                          "grain_512k", "one_thread"};
static const char *const grain_sizes[] = {"dtype", "row", "part", "elements", "numbers"};
static const nyx__choice grain_choice = {.name = "elementwise",
                                         .ways = grain_names,
                                         .sizes = grain_sizes,
                                         .n_ways = sizeof grains / sizeof *grains,
                                         .n_sizes = sizeof grain_sizes / sizeof(char *)};

static nyx_status try_grain(void *arg, int way, void *result) {
  plan p = *(const plan *)arg;
  p.out.data = result;
  run_plan(&p, grains[way], NULL);
  return NYX_OK;
}

static nyx_status measured_grain(plan *p, const nyx_elementwise *job, int *way) {
  int numbers = 0;
  for (int k = 0; k < p->n_in; k++) numbers += !p->in[k].linear;
  const nyx__tune_key key = {.choice = &grain_choice,
                             .size = {p->compute, p->copies ? 0 : job->row->id + 1,
                                      job->part, nyx__tune_class(p->n), numbers},
                             .usable = (1u << grain_choice.n_ways) - 1};
  return nyx__tune(&key, (size_t)(p->n * p->out.item), try_grain, p, way);
}

/* Whether a tensor came here that should have been seen as pairs of floats before. */
static bool has_complex(const nyx_elementwise *job) {
  bool any = nyx__complex_dtype(job->out->dtype);
  for (int k = 0; k < 5; k++)
    if (job->in[k]) any |= nyx__complex_dtype(job->in[k]->dtype);
  return any;
}

/* Whether bytes are copied to floats that kernels compute in: they become those at once,
 * where int32 between would be a pass of its own, and the same. */
static bool widens_bytes(const nyx_elementwise *job) {
  const nyx_dtype to = job->out->dtype;
  return job->row->id == NYX_KERNEL_clone && job->part == 0 &&
         (to == NYX_FLOAT32 || to == NYX_FLOAT64) && nyx__item(job->in[0]->dtype) == 1;
}

nyx_status nyx__cpu_elementwise(nyx_context *ctx, nyx_device *dev,
                                const nyx_elementwise *job) {
  (void)dev;
  NYX_TRY(nyx__cpu_path_check(ctx));
  nyx_elementwise direct;
  if (widens_bytes(job)) {
    direct = *job;
    direct.compute = job->out->dtype;
    job = &direct;
  }
  plan p;
  p.n = job->out->numel;
  p.attr = job->attr;
  p.move = nyx__cpu_kernels()->move;
  p.streams = false;
  p.past = NULL;
  p.chooses = false;
  plan_kernel(&p, job);
  if (!p.fn || has_complex(job))
    return nyx__error(ctx, DTYPE_OP, nyx_dtype_name(job->compute), "float32, float64");
  if (p.n == 0) return NYX_OK;
  plan_operands(&p, job);
  bool simple = plan_simple(&p, job);
  if (!simple) plan_general(&p, job);
  int way = 0;
  int64_t bytes = p.n * p.item;
  if (simple && bytes >= TUNED_FROM && bytes <= TUNED_TO && nyx__tuned())
    NYX_TRY(measured_grain(&p, job, &way));
  nyx__stop stop = {.ctx = ctx};
  run_plan(&p, grains[way], job->stops ? &stop : NULL);
  return nyx__stop_status(&stop);
}
