/* Average pooling and its adjoint over one element type T. Windows are boxes: sums are
 * taken over the rows of a box first, for all columns, then over neighbours; the adjoint
 * goes the opposite way. Included by pool_type.h. */

/* to[c] = the sum of rows; `to` has room for a vector more. */
static void TYPED(sum_rows)(const T *from, int64_t step, int64_t rows, int64_t columns,
                            T *to) {
  if (rows < 1 || columns < LANES) {
    for (int64_t c = 0; c < columns; c++) to[c] = 0;
    for (int64_t i = 0; i < rows; i++)
      for (int64_t c = 0; c < columns; c++) to[c] += from[i * step + c];
    return;
  }
  for (int64_t c = 0; c < columns; c += LANES) {
    if (c + LANES > columns) c = columns - LANES; /* some once more */
    const T *row = from + c;
    V sum = LOAD(row);
    for (int64_t i = 1; i < rows; i++) sum += LOAD(row += step);
    STORE(to + c, sum);
  }
}

static T TYPED(sum_run)(const T *from, int64_t n) {
  const int in = sizeof(T) == sizeof(float) ? NYX_IN_FLOAT32 : NYX_IN_FLOAT64;
  T sum = 0;
  if (n >= WIDE)
    NYX_PATH(reduce).rows[in][NYX__REDUCE_sum].row(n, from, &sum, 0);
  else
    for (int64_t c = 0; c < n; c++) sum += from[c];
  return sum;
}

/* How many boxes from b[0] on are like it, each `stride` after the one before, and within
 * the room. */
static int64_t TYPED(alike)(const nyx_pool_box *b, int64_t most, int64_t *stride) {
  int64_t n = 1, width = b->hi - b->lo;
  *stride = most > 1 ? b[1].lo - b->lo : 1;
  while (n < most && b[n].lo == b[n - 1].lo + *stride && b[n].hi - b[n].lo == width &&
         b[n].scale == b->scale && b[n].hi - b->lo <= ROOM)
    n++;
  return n;
}

/* Whether multiplying by 1 / divisor gives the same, in less time. */
static bool TYPED(divides_exactly)(T divisor) {
  TINT bits;
  memcpy(&bits, &divisor, sizeof bits);
  return (bits & (TINT)(sizeof(T) == 4 ? 0x7fffff : 0xfffffffffffff)) == 0;
}

/* The sums of `rows` rows that are `step` apart, for a vector of boxes `stride` apart:
 * of boxes of two by two, that follow each other, in one go. */
static ALWAYS_INLINE V TYPED(sums)(const T *from, int64_t step, int64_t rows,
                                   int64_t width, int64_t stride) {
  if (rows == 2 && width == 2 && stride == 2) {
    const V a = LOAD(from) + LOAD(from + step);
    const V b = LOAD(from + LANES) + LOAD(from + step + LANES);
    return __builtin_shufflevector(a, b, TYPED(OF)(EVENS)) +
           __builtin_shufflevector(a, b, TYPED(OF)(ODDS));
  }
  V sum = TYPED(spaced)(from, stride);
  for (int64_t j = 1; j < width; j++) sum += TYPED(spaced)(from + j, stride);
  return sum;
}

static ALWAYS_INLINE void TYPED(means_by)(const T *from, int64_t step, int64_t rows,
                                          int64_t width, int64_t stride, T number,
                                          bool exact, int64_t count, T *to) {
  for (int64_t i = 0; i < count; i += LANES) {
    if (count >= LANES && i + LANES > count) i = count - LANES;
    V sum = TYPED(sums)(from + i * stride, step, rows, width, stride);
    sum = exact ? sum * number : sum / number;
    if (count < LANES)
      memcpy(to, &sum, (size_t)count * sizeof(T));
    else
      STORE(to + i, sum);
  }
}

/* Of `rows` rows, of which several only where boxes are two by two and a vector or more.
 */
static ALWAYS_INLINE void TYPED(means)(const T *from, int64_t step, int64_t rows,
                                       int64_t width, int64_t stride, T divisor,
                                       int64_t count, T *to) {
  if (TYPED(divides_exactly)(divisor))
    TYPED(means_by)(from, step, rows, width, stride, 1 / divisor, true, count, to);
  else
    TYPED(means_by)(from, step, rows, width, stride, divisor, false, count, to);
}

/* `count` boxes that are alike, in one row of results. */
static void TYPED(average_row)(const nyx_average_pool *p, const T *plane,
                               const nyx_pool_box *by, const nyx_pool_box *bx,
                               int64_t count, int64_t stride, T *to) {
  const int64_t rows = by->hi - by->lo, width = bx->hi - bx->lo;
  const int64_t columns = (count - 1) * stride + width;
  const T *from = plane + by->lo * p->in[1] + bx->lo,
          divisor = (T)(by->scale * bx->scale);
  if (count == 1 && width == p->in[1] && rows > 0) { /* rows that follow each other */
    *to = TYPED(sum_run)(from, rows * width) / divisor;
  } else if (width < 1 || width >= WIDE || stride > MOST_STRIDE) {
    for (int64_t k = 0; k < count; k++, from += stride) {
      T sum = 0;
      for (int64_t i = 0; i < rows; i++)
        sum += TYPED(sum_run)(from + i * p->in[1], width);
      to[k] = sum / divisor;
    }
  } else if (stride == 2 && width == 2 && rows == 2 && count >= LANES) {
    TYPED(means)(from, p->in[1], 2, 2, 2, divisor, count, to);
  } else {
    T room[ROOM + ROOM_MORE];
    TYPED(sum_rows)(from, p->in[1], rows, columns, room);
    if (stride == 2 && width == 2)
      TYPED(means)(room, 0, 1, 2, 2, divisor, count, to);
    else if (stride == 1)
      TYPED(means)(room, 0, 1, width, 1, divisor, count, to);
    else if (stride == 2)
      TYPED(means)(room, 0, 1, width, 2, divisor, count, to);
    else
      TYPED(means)(room, 0, 1, width, stride, divisor, count, to);
  }
}

static void TYPED(average_plane)(const nyx_average_pool *p, const void *plane,
                                 void *result) {
  for (int64_t ox = 0, n, stride; ox < p->out[1]; ox += n) {
    const nyx_pool_box *bx = p->box[1] + ox;
    n = TYPED(alike)(bx, p->out[1] - ox, &stride);
    for (int64_t oy = 0; oy < p->out[0]; oy++) TYPED(average_row)
    (p, plane, p->box[0] + oy, bx, n, stride, (T *)result + oy * p->out[1] + ox);
  }
}

/* row[c] = what the boxes give to column c. */
static void TYPED(spread_row)(const nyx_pool_box *box, int64_t count, double scale,
                              const T *restrict from, int64_t width, T *restrict row) {
  memset(row, 0, (size_t)width * sizeof(T));
  for (int64_t i = 0, n; i < count; i += n) {
    int64_t stride, columns = box[i].hi - box[i].lo;
    const T *g = from + i, divisor = (T)(scale * box[i].scale);
    T *restrict to = row + box[i].lo;
    n = TYPED(alike)(box + i, count - i, &stride);
    if (columns == 2 && stride == 2)
      for (int64_t k = 0; k < n; k++) {
        T part = g[k] / divisor;
        to[2 * k] += part;
        to[2 * k + 1] += part;
      }
    else if (stride == 1)
      for (int64_t j = 0; j < columns; j++)
        for (int64_t k = 0; k < n; k++) to[k + j] += g[k] / divisor;
    else
      for (int64_t k = 0; k < n; k++) {
        T part = g[k] / divisor;
        for (int64_t j = 0; j < columns; j++) to[k * stride + j] += part;
      }
  }
}

/* A plane wider than the room: box by box. */
static void TYPED(spread_wide)(const nyx_average_pool *p, const T *from, T *plane) {
  const int64_t width = p->in[1];
  memset(plane, 0, (size_t)(p->in[0] * width) * sizeof(T));
  for (int64_t oy = 0; oy < p->out[0]; oy++)
    for (int64_t ox = 0; ox < p->out[1]; ox++, from++) {
      const nyx_pool_box by = p->box[0][oy], bx = p->box[1][ox];
      const T part = *from / (T)(by.scale * bx.scale);
      for (int64_t y = by.lo; y < by.hi; y++)
        for (int64_t x = bx.lo; x < bx.hi; x++) plane[y * width + x] += part;
    }
}

static void TYPED(spread_plane)(const nyx_average_pool *p, const void *parts,
                                void *plane) {
  const int64_t width = p->in[1];
  const size_t bytes = (size_t)width * sizeof(T);
  const T *from = parts;
  T row[ROOM], *all = plane;
  if (width > ROOM) {
    TYPED(spread_wide)(p, from, all);
    return;
  }
  int64_t known = 0; /* rows that hold something */
  for (int64_t oy = 0; oy < p->out[0]; oy++, from += p->out[1]) {
    const nyx_pool_box by = p->box[0][oy];
    if (by.lo >= by.hi) continue;
    TYPED(spread_row)(p->box[1], p->out[1], by.scale, from, width, row);
    for (; known < by.lo; known++) memset(all + known * width, 0, bytes);
    for (int64_t y = by.lo; y < by.hi; y++) {
      T *restrict to = all + y * width;
      if (y < known)
        for (int64_t x = 0; x < width; x++) to[x] += row[x];
      else
        memcpy(to, row, bytes);
    }
    if (by.hi > known) known = by.hi;
  }
  for (; known < p->in[0]; known++) memset(all + known * width, 0, bytes);
}
