/* What goes into tiles and out of them, over one element type T; included by fourier.c,
 * once for each. */

/* Rows of `width` numbers, `step` apart there, into rows of `size`, zeros around them
 * from column `first` on: those before it may be outside, then `width` is less. */
static void TYPED(put_rows)(const void *from_, int64_t rows, int64_t step, int64_t first,
                            int64_t width, int64_t size, void *to_) {
  const T *from = from_;
  T *to = to_;
  for (int64_t i = 0; i < rows; i++, from += step, to += size) {
    memset(to, 0, (size_t)first * sizeof(T));
    memcpy(to + first, from, (size_t)width * sizeof(T));
    memset(to + first + width, 0, (size_t)(size - first - width) * sizeof(T));
  }
}

/* Taps of a kernel into rows of `size`, `apart` columns from one to the next; backwards:
 * rows and columns, for the adjoint. */
static void TYPED(put_taps)(const void *from_, int64_t rows, int64_t columns,
                            bool backwards, int64_t apart, int64_t size, void *to_) {
  const T *from = from_;
  T *to = to_;
  if (apart == 1 && !backwards) {
    TYPED(put_rows)(from, rows, columns, 0, columns, size, to);
    return;
  }
  memset(to, 0, (size_t)(rows * size) * sizeof(T));
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      int64_t at = i * columns + j;
      to[i * size + j * apart] = from[backwards ? rows * columns - 1 - at : at];
    }
}

static const moves TYPED(moves) = {TYPED(put_rows), TYPED(put_taps)};
