/* Products on AMX tiles: 32x32 of C in four tiles, bfloat16 and bytes. Compiled for CPUs
 * that have them; core/device/cpu/unit.c asks the system for them. A thread loads the
 * configuration before its blocks and releases the tiles after, so that nothing outside
 * ever sees them. Intel SDM vol. 2, "TDPBF16PS", "TDPBSSD". Read next: ../low.h. */
#include <immintrin.h>
#include <stdbool.h>

#include "../cpu.h"
#include "../low.h"

#define TILE_ROWS 32
#define TILE_COLS 32

#define S uint16_t
#define E 2
#define WIDEN 0
#define PACK(name) name##_bf16
#include "../low_pack.h"
#undef S
#undef E
#undef PACK

#define S uint8_t /* signs do not matter to copies */
#define E 4
#define PACK(name) name##_bytes
#include "../low_pack.h"

#define PACKERS(name, S)                                                                 \
  static void pack_a_##name(const void *a, int64_t rs, int64_t cs, int64_t rows,         \
                            int64_t depth, void *panels) {                               \
    rows_##name(a, rs, cs, rows, depth, 0, panels);                                      \
  }                                                                                      \
  static void pack_b_##name(const void *b, int64_t rs, int64_t cs, int64_t depth,        \
                            int64_t cols, void *panels) {                                \
    int64_t steps = (depth * (int64_t)sizeof(S) + 63) / 64;                              \
    columns_##name(b, rs, cs, depth, cols, steps * 64 * TILE_COLS, panels);              \
  }
PACKERS(bf16, uint16_t)
PACKERS(bytes, uint8_t)

/* Registers: 0 to 3 are C, 4 and 5 the rows of A, 6 and 7 the columns of B. */
static void begin(void) {
  static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } config __attribute__((aligned(64))) = {
      .palette = 1,
      .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
      .rows = {16, 16, 16, 16, 16, 16, 16, 16},
  };
  _tile_loadconfig(&config);
}

static void end(void) {
  _tile_release();
}

/* The instructions' operands are part of their names, so this is text. `steps` are of 64
 * bytes a row; c is 32x32 words. */
#define BLOCK(name, bytes, product)                                                      \
  static inline void tile_##name(const nyx_low_block *k, int64_t steps, const char *a,   \
                                 const char *b, char *c) {                               \
    const int64_t row_bytes = k->ldc * 4, pitch = k->a_pitch ? k->a_pitch : 64;          \
    const int64_t a_step = k->a_pitch ? 64 : 64 * TILE_ROWS;                             \
    char *below = c + 16 * row_bytes;                                                    \
    if (k->add) {                                                                        \
      _tile_loadd(0, c, row_bytes);                                                      \
      _tile_loadd(1, c + 64, row_bytes);                                                 \
      _tile_loadd(2, below, row_bytes);                                                  \
      _tile_loadd(3, below + 64, row_bytes);                                             \
    } else {                                                                             \
      _tile_zero(0);                                                                     \
      _tile_zero(1);                                                                     \
      _tile_zero(2);                                                                     \
      _tile_zero(3);                                                                     \
    }                                                                                    \
    for (; steps > 0; steps--, a += a_step, b += 64 * TILE_COLS) {                       \
      _tile_loadd(4, a, pitch);                                                          \
      _tile_loadd(6, b, 4 * TILE_COLS);                                                  \
      _tile_loadd(7, b + 64, 4 * TILE_COLS);                                             \
      product(0, 4, 6);                                                                  \
      product(1, 4, 7);                                                                  \
      _tile_loadd(5, a + 16 * pitch, pitch);                                             \
      product(2, 5, 6);                                                                  \
      product(3, 5, 7);                                                                  \
    }                                                                                    \
    _tile_stored(0, c, row_bytes);                                                       \
    _tile_stored(1, c + 64, row_bytes);                                                  \
    _tile_stored(2, below, row_bytes);                                                   \
    _tile_stored(3, below + 64, row_bytes);                                              \
  }                                                                                      \
  static void block_##name(const nyx_low_block *k) {                                     \
    int64_t steps = k->terms * bytes / 64, panel = steps * 64 * 32;                      \
    int64_t below = k->a_pitch ? k->a_pitch * TILE_ROWS : panel;                         \
    __asm__ volatile("" ::: "memory"); /* tile loads do not say that they read memory */ \
    for (int64_t j = 0; j < k->cols; j += TILE_COLS) {                                   \
      for (int64_t i = 0; i < k->rows; i += TILE_ROWS) {                                 \
        tile_##name(k, steps, (const char *)k->a + i / TILE_ROWS * below,                \
                    (const char *)k->b + j / TILE_COLS * panel,                          \
                    (char *)k->c + (i * k->ldc + j) * 4);                                \
      }                                                                                  \
    }                                                                                    \
    __asm__ volatile("" ::: "memory");                                                   \
  }
BLOCK(bf16, 2, _tile_dpbf16ps)
BLOCK(s8, 1, _tile_dpbssd)
BLOCK(u8, 1, _tile_dpbusd)

/* A panel of B for 1 KiB of a column stays in the first cache while A streams. */
#define KERNEL(name, type, bytes)                                                        \
  {                                                                                      \
    .unit = "AMX", .tile_rows = TILE_ROWS, .tile_cols = TILE_COLS, .item = bytes,        \
    .step = 64 / bytes, .depth = 1024 / bytes, .least = 16, .in_place = true,            \
    .pack_a = pack_a_##type, .pack_b = pack_b_##type, .block = block_##name,             \
    .begin = begin, .end = end                                                           \
  }
const nyx_low_kernel nyx__low_amx[3] = {KERNEL(bf16, bf16, 2), KERNEL(s8, bytes, 1),
                                        KERNEL(u8, bytes, 1)};
