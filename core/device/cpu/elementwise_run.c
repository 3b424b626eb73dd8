/* Carries out elementwise plans: brings blocks and tiles that do not lie ready into small
 * buffers, calls the kernel, and takes the results to where they belong. Read next:
 * elementwise_plan.h, kernels/cpu/move.h. */
#include <stdlib.h>
#include <string.h>

#include "elementwise_plan.h"

typedef struct buffers {
  _Alignas(64) char in[MAX_IN][TILE_MOST];
  _Alignas(64) char out[TILE_MOST];
  const char *held[MAX_IN]; /* the address a repeating operand's buffer was filled from */
  int64_t held_n[MAX_IN];
} buffers;

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

void nyx__run_plan(plan *p, int64_t grain_bytes, nyx__stop *stop) {
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
