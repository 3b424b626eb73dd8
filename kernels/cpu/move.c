/* Transposing blocks of elements of every size; the algorithm is in move_type.h, written
 * once over a vector type. Compiled once per instruction-set path. */
#include "move.h"

#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "vector_bytes.h"

#define AHEAD_BYTES                                                                      \
  128 /* down a column, which nothing else guesses: they lie far apart */

#if VECTOR_BYTES == 64
#define STREAM(to, from) _mm512_stream_si512((void *)(to), _mm512_loadu_si512(from))
#elif VECTOR_BYTES == 32
#define STREAM(to, from)                                                                 \
  _mm256_stream_si256((void *)(to), _mm256_loadu_si256((const void *)(from)))
#elif defined(__SSE2__)
#define STREAM(to, from)                                                                 \
  _mm_stream_si128((void *)(to), _mm_loadu_si128((const void *)(from)))
#else
#define STREAM(to, from) memcpy(to, from, VECTOR_BYTES)
#endif

static void stream(int64_t bytes, const void *src, void *dst) {
  const char *from = src;
  char *to = dst;
  int64_t head = (int64_t)(-(uintptr_t)to % 64), i;
  if (head > bytes) head = bytes;
  if (head) memcpy(to, from, (size_t)head);
  for (i = head; i + 64 <= bytes; i += 64)
    for (int k = 0; k < 64; k += VECTOR_BYTES) STREAM(to + i + k, from + i + k);
  if (i < bytes) memcpy(to + i, from + i, (size_t)(bytes - i));
}

/* By pieces, the last of which may overlap the one before: at least one fits. */
static ALWAYS_INLINE void rows_in(int64_t rows, int64_t bytes, const char *src,
                                  int64_t src_step, char *dst, int64_t dst_step,
                                  size_t piece, int64_t pieces) {
  const int64_t last = bytes - (int64_t)piece;
  for (int64_t i = 0; i < rows; i++, src += src_step, dst += dst_step) {
    for (int64_t k = 0; k < pieces - 1; k++)
      memcpy(dst + k * (int64_t)piece, src + k * (int64_t)piece, piece);
    memcpy(dst + last, src + last, piece);
  }
}

/* The compiler knows how many there are in short rows. */
static ALWAYS_INLINE void rows_by(int64_t rows, int64_t bytes, const char *src,
                                  int64_t src_step, char *dst, int64_t dst_step,
                                  size_t piece) {
  const int64_t pieces = (bytes + (int64_t)piece - 1) / (int64_t)piece;
  switch (pieces) {
    case 1: rows_in(rows, bytes, src, src_step, dst, dst_step, piece, 1); break;
    case 2: rows_in(rows, bytes, src, src_step, dst, dst_step, piece, 2); break;
    default: rows_in(rows, bytes, src, src_step, dst, dst_step, piece, pieces);
  }
}

static void copy_rows(int64_t count, int64_t bytes, const void *src, int64_t src_step,
                      void *dst, int64_t dst_step) {
  if (bytes >= VECTOR_BYTES)
    rows_by(count, bytes, src, src_step, dst, dst_step, VECTOR_BYTES);
  else if (VECTOR_BYTES > 32 && bytes >= 32)
    rows_by(count, bytes, src, src_step, dst, dst_step, 32);
  else if (bytes >= 16)
    rows_by(count, bytes, src, src_step, dst, dst_step, 16);
  else if (bytes >= 8)
    rows_by(count, bytes, src, src_step, dst, dst_step, 8);
  else if (bytes >= 4)
    rows_by(count, bytes, src, src_step, dst, dst_step, 4);
  else if (bytes >= 2)
    rows_by(count, bytes, src, src_step, dst, dst_step, 2);
  else
    rows_by(count, bytes, src, src_step, dst, dst_step, 1);
}

#define T uint8_t
#define TBITS 8
#define TYPED(name) name##_8
#include "move_type.h"
#undef T
#undef TBITS
#undef TYPED

#define T uint16_t
#define TBITS 16
#define TYPED(name) name##_16
#include "move_type.h"
#undef T
#undef TBITS
#undef TYPED

#define T uint32_t
#define TBITS 32
#define TYPED(name) name##_32
#include "move_type.h"
#undef T
#undef TBITS
#undef TYPED

#define T uint64_t
#define TBITS 64
#define TYPED(name) name##_64
#include "move_type.h"
#undef T
#undef TBITS
#undef TYPED

static void drain(void) {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

extern const nyx_move_kernels NYX_PATH(move);
const nyx_move_kernels NYX_PATH(move) = {
    .stream = stream,
    .drain = drain,
    .transpose = {transpose_8, transpose_16, transpose_32, transpose_64},
    .turn = {turn_8, turn_16, turn_32, turn_64},
    .turn_past = {turn_past_8, turn_past_16, turn_past_32, turn_past_64},
    .zip = {zip_8, zip_16, zip_32, zip_64},
    .reverse = {reverse_8, reverse_16, reverse_32, reverse_64},
    .choose = {choose_8, choose_16, choose_32, choose_64},
    .rows = copy_rows,
    .fill = {fill_8, fill_16, fill_32, fill_64},
    .repeat = {repeat_8, repeat_16, repeat_32, repeat_64},
};
