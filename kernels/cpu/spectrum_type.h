/* Spectra in vectors, and sums of their products, over one element type T; included by
 * complex.c, once for each. */

#include "part_type.h"
#include "transpose_type.h"

static void TYPED(spread)(int64_t n, const void *from_, bool conj, void *to_,
                          int64_t step) {
  const T *from = from_;
  T *to = to_;
  const T sign = conj ? -1 : 1;
  TYPED(lanes) even, odd;
  UNROLL for (int l = 0; l < LANES; l++) even[l] = 2 * l, odd[l] = 2 * l + 1;
  for (; n >= LANES; n -= LANES, from += 2 * LANES, to += step) {
    V a = LOAD(from), b = LOAD(from + LANES);
    STORE(to, TYPED(pick)(a, b, even));
    STORE(to + LANES, TYPED(pick)(a, b, odd) * sign);
  }
  for (int l = 0; n > 0 && l < LANES; l++) {
    to[l] = l < n ? from[2 * l] : 0;
    to[LANES + l] = l < n ? from[2 * l + 1] * sign : 0;
  }
}

static void TYPED(gather)(int64_t n, const void *from_, int64_t step, void *to_) {
  const T *from = from_;
  T *to = to_;
  TYPED(lanes) low, high;
  UNROLL for (int l = 0; l < LANES; l++) {
    low[l] = l / 2 + l % 2 * LANES;
    high[l] = low[l] + LANES / 2;
  }
  for (; n >= LANES; n -= LANES, from += step, to += 2 * LANES) {
    V re = LOAD(from), im = LOAD(from + LANES);
    STORE(to, TYPED(pick)(re, im, low));
    STORE(to + LANES, TYPED(pick)(re, im, high));
  }
  for (int l = 0; l < n; l++) to[2 * l] = from[l], to[2 * l + 1] = from[LANES + l];
}

/* Zero times what is finite is zero. */
static bool TYPED(take)(const void *from_, int64_t rows, int64_t columns, int64_t apart,
                        int64_t from_step, const void *bias, int64_t to_step, void *to_) {
  const T *from = from_, add = bias ? *(const T *)bias : 0;
  T *to = to_, rest = 0;
  V sum = {0};
  for (int64_t i = 0; i < rows; i++, from += from_step, to += to_step) {
    int64_t j = 0;
    for (; apart == 1 && j + LANES <= columns; j += LANES) {
      V v = LOAD(from + j);
      sum += v * 0;
      STORE(to + j, v + add);
    }
    if (apart == 1 && j < columns) {
      TYPED(part) live = TYPED(part_of)(0, columns - j);
      V v = TYPED(load_part)(from + j, live);
      sum += v * 0;
      TYPED(store_part)(to + j, v + add, live);
      continue;
    }
    for (; j < columns; j++) {
      rest += from[j * apart] * 0;
      to[j] = from[j * apart] + add;
    }
  }
  for (int l = 0; l < LANES; l++) rest += sum[l];
  return rest == 0;
}

/* A tile of c in registers. */
static ALWAYS_INLINE void TYPED(product_tile)(const int rows, const int columns,
                                              const nyx_spectrum_product *p, const T *a,
                                              const T *b, T *c) {
  V re[4][2], im[4][2];
  UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < columns; j++) {
    const T *at = c + i * p->c_row + j * p->c_column;
    re[i][j] = p->add ? LOAD(at) : (V){0};
    im[i][j] = p->add ? LOAD(at + LANES) : (V){0};
  }
  for (int64_t l = 0; l < p->k; l++, a += p->a_term, b += p->b_term) {
    V x[2], y[2];
    UNROLL for (int j = 0; j < columns; j++) {
      x[j] = LOAD(b + j * p->b_column);
      y[j] = LOAD(b + j * p->b_column + LANES);
    }
    UNROLL for (int i = 0; i < rows; i++) {
      V u = LOAD(a + i * p->a_row), v = LOAD(a + i * p->a_row + LANES);
      UNROLL for (int j = 0; j < columns; j++) {
        re[i][j] += u * x[j];
        im[i][j] += u * y[j];
        re[i][j] -= v * y[j];
        im[i][j] += v * x[j];
      }
    }
  }
  UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < columns; j++) {
    T *at = c + i * p->c_row + j * p->c_column;
    STORE(at, re[i][j]);
    STORE(at + LANES, im[i][j]);
  }
}

#if VECTOR_BYTES == 64
#define MOST_ROWS 4 /* of 32 registers 16 are sums */
#else
#define MOST_ROWS 2
#endif

static ALWAYS_INLINE void TYPED(product_rows)(const int rows,
                                              const nyx_spectrum_product *p, const T *a,
                                              T *c) {
  const T *b = p->b;
  int64_t j = 0;
  for (; j + 2 <= p->n; j += 2, b += 2 * p->b_column, c += 2 * p->c_column)
    TYPED(product_tile)(rows, 2, p, a, b, c);
  if (j < p->n) TYPED(product_tile)(rows, 1, p, a, b, c);
}

static void TYPED(products)(const nyx_spectrum_product *p) {
  const T *a = p->a;
  T *c = p->c;
  int64_t i = 0;
  for (; i + MOST_ROWS <= p->m; i += MOST_ROWS)
    TYPED(product_rows)(MOST_ROWS, p, a + i * p->a_row, c + i * p->c_row);
  for (; i < p->m; i++) TYPED(product_rows)(1, p, a + i * p->a_row, c + i * p->c_row);
}

#undef MOST_ROWS
#undef V
#undef LANES
#undef LOAD
#undef STORE
