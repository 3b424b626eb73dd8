/* The table of reduction kernels on one path. Read next: reduce.h, reduce_rows.h. */
#include "reduce.h"

#define DECLARE(type)                                                                    \
  extern const nyx_reduce_kernel NYX_PATH(reduce_##type##_rows)[NYX__REDUCE_COUNT];      \
  int64_t NYX_PATH(reduce_##type##_find)(int64_t n, const void *from,                    \
                                         const void *value);                             \
  int64_t NYX_PATH(reduce_##type##_beyond)(int64_t n, const void *from, bool least,      \
                                           const void *value);                           \
  void NYX_PATH(reduce_##type##_follow)(int64_t n, const void *from, int64_t row,        \
                                        bool least, void *best, void *where);
DECLARE(float32)
DECLARE(float64)
DECLARE(int32)
DECLARE(int64)

extern const nyx_reduce_kernels NYX_PATH(reduce);
const nyx_reduce_kernels NYX_PATH(reduce) = {
    .rows = {NYX_PATH(reduce_float32_rows), NYX_PATH(reduce_float64_rows),
             NYX_PATH(reduce_int32_rows), NYX_PATH(reduce_int64_rows)},
    .find = {NYX_PATH(reduce_float32_find), NYX_PATH(reduce_float64_find),
             NYX_PATH(reduce_int32_find), NYX_PATH(reduce_int64_find)},
    .beyond = {NYX_PATH(reduce_float32_beyond), NYX_PATH(reduce_float64_beyond),
               NYX_PATH(reduce_int32_beyond), NYX_PATH(reduce_int64_beyond)},
    .follow = {NYX_PATH(reduce_float32_follow), NYX_PATH(reduce_float64_follow),
               NYX_PATH(reduce_int32_follow), NYX_PATH(reduce_int64_follow)},
};
