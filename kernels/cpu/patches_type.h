/* The loops over one element type T; included by patches.c, once for each. */
#include "pad_type.h"
#include "transpose_type.h"

#define AHEAD 6 /* vectors of a row that are asked for in time */

static void TYPED(pad)(const nyx_row_padding *g, const void *plane, int64_t height,
                       const void *limit, int64_t first, int64_t count, void *to) {
  TYPED(pad_rows)(g, plane, height, limit, first, count, to, g->phases * g->phase);
}

/* n is a constant wherever it is small: where to read and write stays in registers. */
static ALWAYS_INLINE void TYPED(pack_rows)(const int64_t n, const T *from,
                                           const int64_t *offset, int64_t depth,
                                           const nyx_patch *patches, int64_t columns,
                                           T *to) {
  for (int64_t i = 0; i < depth; i++, to += columns) {
    const T *at = from + offset[i];
    UNROLL for (int64_t v = 0; v < n; v++)
        STORE(to + patches[v].to, LOAD(at + patches[v].from));
  }
}

static void TYPED(pack)(const void *from, const int64_t *offset, int64_t depth,
                        const nyx_patch *patches, int64_t count, int64_t columns,
                        void *panel) {
  nyx_patch p[8];
  if (count <= 8) memcpy(p, patches, (size_t)count * sizeof *p);
  switch (count) {
    case 1: TYPED(pack_rows)(1, from, offset, depth, p, columns, panel); break;
    case 2: TYPED(pack_rows)(2, from, offset, depth, p, columns, panel); break;
    case 3: TYPED(pack_rows)(3, from, offset, depth, p, columns, panel); break;
    case 4: TYPED(pack_rows)(4, from, offset, depth, p, columns, panel); break;
    case 5: TYPED(pack_rows)(5, from, offset, depth, p, columns, panel); break;
    case 6: TYPED(pack_rows)(6, from, offset, depth, p, columns, panel); break;
    case 7: TYPED(pack_rows)(7, from, offset, depth, p, columns, panel); break;
    case 8: TYPED(pack_rows)(8, from, offset, depth, p, columns, panel); break;
    default: TYPED(pack_rows)(count, from, offset, depth, patches, columns, panel);
  }
}

/* One patch of LANES terms, turned: a vector for each column. */
static inline void TYPED(turn_patch)(const T *from, const int64_t *offset, int64_t terms,
                                     T *to, int64_t step) {
  V row[LANES];
  if (terms >= LANES) {
    UNROLL for (int i = 0; i < LANES; i++) {
      row[i] = LOAD(from + offset[i]);
      __builtin_prefetch(from + offset[i] + AHEAD * LANES);
    }
  } else {
    UNROLL for (int i = 0; i < LANES; i++) row[i] =
        i < terms ? LOAD(from + offset[i]) : (V){0};
  }
  TYPED(transpose)(row);
  UNROLL for (int i = 0; i < LANES; i++) STORE(to + i * step, row[i]);
}

static void TYPED(pack_turned)(const void *from, const int64_t *offset, int64_t terms,
                               const nyx_patch *patches, int64_t count, int64_t columns,
                               void *panel) {
  for (int64_t v = 0; v < count; v++) {
    T *to = (T *)panel + patches[v].to * columns;
    for (int64_t i = 0; i < columns; i += LANES) TYPED(turn_patch)
    ((const T *)from + patches[v].from, offset + i, terms - i, to + i, columns);
  }
}

#undef V
#undef LANES
#undef LOAD
#undef STORE
#undef AHEAD
