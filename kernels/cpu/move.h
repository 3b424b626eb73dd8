/* Moving elements without looking at them, on one path: blocks are turned on their way
 * between two memories, one of which runs down where the other runs right.
 * Read next: move_type.h, core/device/cpu/elementwise_run.c (who calls). */
#ifndef NYX_KERNELS_CPU_MOVE_H
#define NYX_KERNELS_CPU_MOVE_H

#include "cpu.h"

/* dst[r * dst_step + c] = src[c * src_step + r] for rows x cols elements; steps are in
 * elements. What follows src's columns is asked for ahead: blocks are best taken down
 * src's memory one after the other. */
typedef void (*nyx_transpose_fn)(int64_t rows, int64_t cols, const void *src,
                                 int64_t src_step, void *dst, int64_t dst_step);

/* dst[i * k + j] = src[j][i] for n elements of each of k sources. */
typedef void (*nyx_zip_fn)(int64_t n, int64_t k, const void *const *src, void *dst);

/* Copies past the caches, in whole lines: for what will not stay there anyway, as writing
 * a line the ordinary way reads it first. drain() before another thread may look. */
#define NYX_STREAM_BYTES (4 << 20) /* results that are moved go this way from here on */
#define NYX_STREAM_ROWS (32 << 20) /* normalized rows, which the next op reads */
#define NYX_TURN_BYTES 128         /* of a row of `turn`, at most */
typedef struct nyx_move_kernels {
  void (*stream)(int64_t bytes, const void *src, void *dst);
  void (*drain)(void);
  nyx_transpose_fn transpose[4]; /* elements of 1, 2, 4, 8 bytes */
  /* The same without asking for what follows, which costs copies a quarter of their time,
   * in whole lines: rows of dst begin where a line of 64 bytes does and have at most
   * NYX_TURN_BYTES. And past the caches. */
  nyx_transpose_fn turn[4], turn_past[4];
  nyx_zip_fn zip[4];
  void (*reverse[4])(int64_t n, const void *src, void *dst); /* dst[i] = src[-i] */
  /* dst[i] = in[0][i] ? in[1][i] : in[2][i], where in[0] holds bytes and any but 0 is
   * true; dst may be one of the others. `attr` is not looked at: see nyx_elementwise_fn.
   */
  void (*choose[4])(int64_t n, const void *const *in, void *dst, const double *attr);
  /* Short rows: of bytes, copied, both sides' steps in bytes; of elements, rows of dst
   * that follow each other, filled with src[i * src_step], or copies of one. */
  void (*rows)(int64_t rows, int64_t bytes, const void *src, int64_t src_step, void *dst,
               int64_t dst_step);
  void (*fill[4])(int64_t rows, int64_t cols, const void *src, int64_t src_step,
                  void *dst);
  void (*repeat[4])(int64_t rows, int64_t cols, const void *src, void *dst);
} nyx_move_kernels;

#endif
