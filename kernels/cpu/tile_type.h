/* What the tiles of products do for one row and one term. Included where T, TYPED and
 * vectors V of them are defined; needs vector_bytes.h.
 *
 * TILE_ROW(row, vectors, sum, a, right): sum[v] += *a right[v] for all `vectors` of row
 * `row` of a tile, both constants. With AVX-512 a product may read its left factor from
 * memory into all lanes: an instruction less for two loads instead of one. In three rows
 * of four of two vectors that gives 3 instructions a cycle instead of 4, which is what a
 * core has left for one of two busy threads: 6 to 12 % less time there, the same in a
 * core of one's own. A compiler would load once. */
#if VECTOR_BYTES == 64 && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static ALWAYS_INLINE void TYPED(tile_row)(const int row, const int vectors, V *sum,
                                          const T *a, const V *right) {
  if (vectors == 1 || (vectors == 2 && row % 4 > 0)) {
    UNROLL for (int v = 0; v < vectors; v++) {
      if (sizeof(T) == 4)
        __asm__ volatile("vfmadd231ps %1%{1to16%}, %2, %0"
                         : "+v"(sum[v])
                         : "m"(*a), "v"(right[v]));
      else
        __asm__ volatile("vfmadd231pd %1%{1to8%}, %2, %0"
                         : "+v"(sum[v])
                         : "m"(*a), "v"(right[v]));
    }
  } else {
    V left; /* in assembly too, so that the order stays as it is here */
    if (sizeof(T) == 4)
      __asm__ volatile("vbroadcastss %1, %0" : "=v"(left) : "m"(*a));
    else
      __asm__ volatile("vbroadcastsd %1, %0" : "=v"(left) : "m"(*a));
    UNROLL for (int v = 0; v < vectors; v++) {
      if (sizeof(T) == 4)
        __asm__ volatile("vfmadd231ps %1, %2, %0"
                         : "+v"(sum[v])
                         : "v"(left), "v"(right[v]));
      else
        __asm__ volatile("vfmadd231pd %1, %2, %0"
                         : "+v"(sum[v])
                         : "v"(left), "v"(right[v]));
    }
  }
}
#define TILE_ROW(row, vectors, sum, a, right) TYPED(tile_row)(row, vectors, sum, a, right)
#else /* no function: the thread sanitizer would look at every access to the sums */
#define TILE_ROW(row, vectors, sum, a, right)                                            \
  UNROLL for (int v = 0; v < (vectors); v++)(sum)[v] += *(a) * (right)[v]
#endif

/* CASE(n) for every number of rows that a tile has, which are 4, 6, 12 or 14. */
#ifndef EACH_TILE_ROWS
#define ROWS_TO_4(CASE) CASE(1) CASE(2) CASE(3) CASE(4)
#define ROWS_TO_6(CASE) ROWS_TO_4(CASE) CASE(5) CASE(6)
#define ROWS_TO_12(CASE)                                                                 \
  ROWS_TO_6(CASE) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#define ROWS_TO_14(CASE) ROWS_TO_12(CASE) CASE(13) CASE(14)
#if TILE_ROWS > 12
#define EACH_TILE_ROWS ROWS_TO_14
#elif TILE_ROWS > 6
#define EACH_TILE_ROWS ROWS_TO_12
#elif TILE_ROWS > 4
#define EACH_TILE_ROWS ROWS_TO_6
#else
#define EACH_TILE_ROWS ROWS_TO_4
#endif
#endif
