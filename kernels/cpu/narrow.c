/* Few rows times columns of a narrow type, by dot products: FLOATS terms of some columns
 * at a time are turned into floats, which stay in the first cache for all rows. Compiled
 * once per instruction-set path. Read next: narrow.h, few_type.h. */
#include "narrow.h"

#include <stdbool.h>
#include <string.h>

#include "cpu.h"
#include "vector_bytes.h"

#define LANES ((int)(VECTOR_BYTES / 4))
#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define ROWS 4 /* by 6 columns: 24 sums of 32 registers */
#define COLS NYX_NARROW_COLS
#define MOST 64
#define QUANTIZED 3
#else
#define ROWS 2
#define COLS 4
#define MOST 32
#define QUANTIZED 4
#endif
#define TOGETHER 32 /* rows, whose sums stay in the first cache with the floats */
#define FLOATS 512  /* of a column at a time */
/* Terms of partial sums: rounding errors grow with their number by lanes. */
#define SPAN 8192

typedef float vec __attribute__((vector_size(VECTOR_BYTES)));
typedef float vecu __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t whole(int64_t k) {
  return (k + LANES - 1) / LANES * LANES;
}

/* Groups of ROWS rows; of LANES terms, one row after the other. */
static void pack(const float *x, int64_t apart, int64_t i, int64_t count, int64_t k,
                 float *packed) {
  for (int64_t r = 0; r < (count + ROWS - 1) / ROWS * ROWS; r++) {
    const float *from = x + r * apart;
    float *to = packed + (i + r) / ROWS * ROWS * whole(k) + (i + r) % ROWS * LANES;
    for (int64_t l = 0; l < k; l += LANES, to += ROWS * LANES) {
      vec v = {0};
      if (r < count && k - l >= LANES)
        v = *(const vecu *)(from + l);
      else if (r < count)
        memcpy(&v, from + l, (size_t)(k - l) * sizeof *from);
      *(vecu *)to = v;
    }
  }
}

/* sums[r][c] gain, or are, those of `terms` terms, whole vectors. `next`, if not NULL, is
 * what will be multiplied next; half of its columns are asked for at each step. */
static ALWAYS_INLINE void tile(const int rows, const float *a, const float *b,
                               int64_t terms, const nyx_narrow_columns *from,
                               const char *next, vec (*sums)[COLS], bool first) {
  vec sum[ROWS][COLS], right[COLS];
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int c = 0; c < COLS; c++) sum[r][c] = first ? (vec){0} : sums[r][c];
  }
  for (int64_t p = 0; p < terms; p += LANES, a += ROWS * LANES) {
    UNROLL for (int c = 0; c < COLS; c++) right[c] = *(const vec *)(b + c * FLOATS + p);
    if (next) {
      const char *at = next + p * from->bits / 8;
      if (p & LANES) at += COLS / 2 * from->pitch;
      UNROLL for (int c = 0; c < COLS / 2; c++) __builtin_prefetch(at + c * from->pitch);
    }
    UNROLL for (int r = 0; r < rows; r++) {
      vec left = *(const vecu *)(a + r * LANES);
      UNROLL for (int c = 0; c < COLS; c++) sum[r][c] += left * right[c];
    }
  }
  UNROLL for (int r = 0; r < rows; r++) {
    UNROLL for (int c = 0; c < COLS; c++) sums[r][c] = sum[r][c];
  }
}

static float sum_of(vec v) {
  float part[LANES];
  memcpy(part, &v, sizeof part);
  UNROLL for (int w = LANES / 2; w > 0; w /= 2) {
    UNROLL for (int i = 0; i < w; i++) part[i] += part[i + w];
  }
  return part[0];
}

/* Terms l to l + terms of all columns, the last vector filled up with zeros. */
static void widen(const nyx_narrow_columns *b, int64_t l, int64_t terms, float *to) {
  for (int64_t c = 0; c < b->count; c++, to += FLOATS) {
    b->widen(b, c, l, terms, to);
    for (int64_t t = terms; t % LANES; t++) to[t] = 0;
  }
}

/* Terms begin..end of TOGETHER rows at most, in whole groups of packed ones. */
static void dots_part(const nyx_narrow_columns *b, const float *a, int64_t rows,
                      int64_t k, int64_t begin, int64_t end, float *y, int64_t apart) {
  vec sums[TOGETHER][COLS];
  float floats[COLS * FLOATS] __attribute__((aligned(64)));
  const int64_t group = ROWS * whole(k);
  /* Of columns that are missing the sums are not used. */
  memset(floats + b->count * FLOATS, 0,
         (size_t)((COLS - b->count) * FLOATS) * sizeof(float));
  for (int64_t l = begin; l < end; l += FLOATS) {
    int64_t terms = least(FLOATS, end - l), after = l + FLOATS < end ? l + FLOATS : begin;
    const char *next = b->from + after * b->bits / 8;
    if (after == begin) next += COLS * b->pitch;
    widen(b, l, terms, floats);
    for (int64_t i = 0; i < rows; i += ROWS, next = NULL) {
      const float *from = a + i / ROWS * group + l * ROWS;
#if ROWS > 2
      if (rows - i > 2)
        tile(ROWS, from, floats, terms, b, next, sums + i, l == begin);
      else
#endif
        tile(2, from, floats, terms, b, next, sums + i, l == begin);
    }
  }
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t c = 0; c < b->count; c++) {
      float total = sum_of(sums[i][c]), *to = y + i * apart + c;
      *to = begin > 0 ? *to + total : total;
    }
  }
}

static void dots(const nyx_narrow_columns *b, const float *packed, int64_t rows,
                 int64_t k, float *y, int64_t apart) {
  for (int64_t l = 0; l < k; l += SPAN) {
    for (int64_t i = 0; i < rows; i += TOGETHER)
      dots_part(b, packed + i * whole(k), least(TOGETHER, rows - i), k, l,
                least(k, l + SPAN), y + i * apart, apart);
  }
}

extern const nyx_narrow_kernels NYX_PATH(narrow);
const nyx_narrow_kernels NYX_PATH(narrow) = {
    .cols = COLS, .most = MOST, .quantized = QUANTIZED, .pack = pack, .dots = dots};
