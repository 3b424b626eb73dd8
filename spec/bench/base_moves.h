/* Moves of base.c: copies in another order or dtype, by position, joined, padded, sorted.
 * Plain loops over a million elements. Included by base.c. */

/* In place of x its transposed view; loops read the array under it, in tiles. */
static void turn(int k) {
  const nyx_value dims[NYX_MAX_ATTRS] = {NYX_I(0), NYX_I(1)};
  nyx_tensor *x = in[k];
  in[k] = NULL;
  check(nyx_apply(ctx, nyx_op_find("transpose"), &x, 1, dims, &in[k]));
  nyx_tensor_release(x);
}
static void make_turned(const loop *l) {
  make_arrays(l);
  turn(n_in - 1);
}
#define TILE 8
#define TURNED_LOOP(name, T, element)                                                    \
  static __attribute__((noinline)) void name(void) {                                     \
    const T *restrict x = p[0], *restrict y = p[n_in - 1];                               \
    T *restrict r = result;                                                              \
    (void)x;                                                                             \
    for (int64_t i = 0; i < SIDE; i += TILE)                                             \
      for (int64_t c = 0; c < SIDE; c += TILE)                                           \
        for (int64_t k = i; k < i + TILE; k++)                                           \
          for (int64_t q = c; q < c + TILE; q++)                                         \
            r[k * SIDE + q] = (T)(element y[q * SIDE + k]);                              \
  }
TURNED_LOOP(turned_f32, float, )
TURNED_LOOP(turned_f64, double, )
TURNED_LOOP(turned_u8, uint8_t, )
TURNED_LOOP(add_turned_f32, float, x[k * SIDE + q] +)
TURNED_LOOP(add_turned_f64, double, x[k * SIDE + q] +)

/* Between dtypes; `axis` is the one it becomes. */
static void make_cast(const loop *l) {
  const int64_t shape[1] = {N};
  in[0] = tensor(l->dtype, 1, shape, l->low, l->high);
  n_in = 1;
  set("dtype", NYX_I(l->axis));
}
ROW_LOOP(float, double, f32_f64, x)
ROW_LOOP(double, float, f64_f32, x)
ROW_LOOP(float, int32_t, f32_i32, x)
ROW_LOOP(int32_t, float, i32_f32, x)
ROW_LOOP(float, int64_t, f32_i64, x)
ROW_LOOP(int64_t, float, i64_f32, x)
ROW_LOOP(int32_t, int64_t, i32_i64, x)
ROW_LOOP(int64_t, int32_t, i64_i32, x)
ROW_LOOP(uint8_t, float, u8_f32, x)
ROW_LOOP(float, uint8_t, f32_u8, x)
ROW_LOOP(uint8_t, int64_t, u8_i64, x)
ROW_LOOP(float, uint8_t, f32_bool, x != 0)
static inline uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
static inline float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}
/* To the nearest, ties to even; NaNs stay NaNs. */
static inline uint16_t to_bfloat(float x) {
  uint32_t u = bits_of(x), rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
  return (uint16_t)(x != x ? 0x7fc0 : rounded);
}
/* F. Giesen's conversions. */
static inline float from_half(uint16_t h) {
  float x = float_of((h & 0x7fffu) << 13) * 0x1p112f;
  uint32_t u = bits_of(x);
  u |= x >= 65536.0f ? 0xffu << 23 : 0;
  return float_of(u | (uint32_t)(h & 0x8000) << 16);
}
static inline uint16_t to_half(float x) {
  uint32_t u = bits_of(x), sign = u & 0x80000000u, h;
  u ^= sign;
  uint32_t small = bits_of(float_of(u) + 0.5f) - bits_of(0.5f);
  uint32_t normal = (u + 0xc8000fffu + (u >> 13 & 1)) >> 13;
  h = u < 113u << 23 ? small : normal;
  h = u >= 143u << 23 ? (u > 255u << 23 ? 0x7e00 : 0x7c00) : h;
  return (uint16_t)(h | sign >> 16);
}
ROW_LOOP(float, uint16_t, f32_bf16, to_bfloat(x))
ROW_LOOP(uint16_t, float, bf16_f32, float_of((uint32_t)x << 16))
ROW_LOOP(float, uint16_t, f32_f16, to_half(x))
ROW_LOOP(uint16_t, float, f16_f32, from_half(x))

/* Chosen by a mask. */
static void make_masked(const loop *l) {
  const int64_t shape[1] = {N};
  in[0] = tensor(NYX_BOOL, 1, shape, 0, 2);
  n_in = 1;
  for (; n_in < l->inputs; n_in++) in[n_in] = tensor(l->dtype, 1, shape, -1, 1);
  if (strcmp(l->op, "where") == 0) return;
  nyx_tensor *mask = in[0];
  in[0] = in[1], in[1] = mask;
  set("value", NYX_F(0.5));
}
#define WHERE_LOOP(name, T)                                                              \
  static __attribute__((noinline)) void name(void) {                                     \
    const uint8_t *restrict m = p[0];                                                    \
    const T *restrict x = p[1], *restrict y = p[2];                                      \
    T *restrict r = result;                                                              \
    for (int i = 0; i < N; i++) { /* both are read: nobody could foresee which */        \
      T a = x[i], b = y[i];                                                              \
      r[i] = m[i] ? a : b;                                                               \
    }                                                                                    \
  }
WHERE_LOOP(where_f32, float)
WHERE_LOOP(where_f64, double)
WHERE_LOOP(where_u8, uint8_t)
static __attribute__((noinline)) void masked_fill_f32(void) {
  const uint8_t *restrict m = p[1];
  float *restrict x = (float *)(uintptr_t)p[0];
  for (int i = 0; i < N; i++) x[i] = m[i] ? 0.5f : x[i];
}
static __attribute__((noinline)) void masked_select_f32(void) {
  const float *restrict x = p[0];
  const uint8_t *restrict m = p[1];
  float *restrict r = result;
  for (int i = 0; i < N; i++) {
    *r = x[i];
    r += m[i] != 0;
  }
}
static void make_clamp(const loop *l) {
  make_arrays(l);
  set("min", NYX_F(l->dtype == NYX_UINT8 ? 1 : -1));
  set("max", NYX_F(l->dtype == NYX_UINT8 ? 5 : 1));
}
ROW_LOOP(float, float, clamp_f32, x<-1 ? -1 : x> 1 ? 1 : x)
ROW_LOOP(double, double, clamp_f64, x<-1 ? -1 : x> 1 ? 1 : x)
ROW_LOOP(int32_t, int32_t, clamp_i32, x<-1 ? -1 : x> 1 ? 1 : x)
ROW_LOOP(uint8_t, uint8_t, clamp_u8, x<1 ? 1 : x> 5 ? 5 : x)

/* Two halves joined, pairs interleaved. */
static void make_halves(const loop *l) {
  const int64_t rows[2] = {SIDE / 2, SIDE}, columns[2] = {SIDE, SIDE / 2};
  for (n_in = 0; n_in < 2; n_in++)
    in[n_in] = tensor(l->dtype, 2, l->axis == 1 ? columns : rows, -1, 1);
  set_dim(l->axis);
}
static void cat_rows_f32(void) {
  memcpy(result, p[0], N / 2 * sizeof(float));
  memcpy((float *)result + N / 2, p[1], N / 2 * sizeof(float));
}
static void cat_columns_f32(void) {
  for (int i = 0; i < SIDE; i++)
    for (int k = 0; k < 2; k++)
      memcpy((float *)result + i * SIDE + k * SIDE / 2,
             (const float *)p[k] + i * SIDE / 2, SIDE / 2 * sizeof(float));
}
#define STACK_LOOP(name, T)                                                              \
  static __attribute__((noinline)) void name(void) {                                     \
    const T *restrict x = p[0], *restrict y = p[1];                                      \
    T *restrict r = result;                                                              \
    for (int i = 0; i < N / 2; i++) r[2 * i] = x[i], r[2 * i + 1] = y[i];                \
  }
STACK_LOOP(stack_last_f32, float)
STACK_LOOP(stack_last_u8, uint8_t)

/* 100 images of 98 x 98, a border of one. */
static void make_padded(const loop *l) {
  static const int64_t border[4] = {1, 1, 1, 1};
  const int64_t shape[3] = {100, 98, 98};
  in[0] = tensor(NYX_FLOAT32, 3, shape, -1, 1);
  n_in = 1;
  set("pad", NYX_LIST(border, 4));
  set("mode", NYX_S(l->axis ? "reflect" : "constant"));
}
static void pad_zeros_f32(void) {
  const float *x = p[0];
  float *r = result;
  for (int k = 0; k < 100; k++)
    for (int i = -1; i < 99; i++, r += 100)
      if (i < 0 || i == 98)
        memset(r, 0, 100 * sizeof *r);
      else {
        r[0] = r[99] = 0;
        memcpy(r + 1, x + (k * 98 + i) * 98, 98 * sizeof *r);
      }
}
static void pad_reflect_f32(void) {
  const float *x = p[0];
  float *r = result;
  for (int k = 0; k < 100; k++)
    for (int i = -1; i < 99; i++, r += 100) {
      const float *from = x + (k * 98 + (i < 0 ? 1 : i == 98 ? 96 : i)) * 98;
      r[0] = from[1];
      memcpy(r + 1, from, 98 * sizeof *r);
      r[99] = from[96];
    }
}
/* 250 rows of 1003, seen as 1000 windows of 4, copied. */
static void make_windows(const loop *l) {
  const int64_t shape[2] = {SIDE / 4, SIDE + 3};
  const nyx_op *view = nyx_op_find("unfold");
  nyx_value at[NYX_MAX_ATTRS];
  nyx_tensor *x = tensor(l->dtype, 2, shape, -1, 1);
  in[0] = NULL;
  for (int a = 0; a < NYX_MAX_ATTRS; a++) at[a] = NYX_NONE;
  for (int a = 0; a < view->n_attrs; a++)
    at[a] = NYX_I(strcmp(view->attrs[a].name, "size") == 0 ? 4 : 1);
  check(nyx_apply(ctx, view, &x, 1, at, &in[0]));
  nyx_tensor_release(x);
  n_in = 1;
}
static __attribute__((noinline)) void windows_f32(void) {
  const float *restrict x = p[0];
  float *restrict r = result;
  for (int i = 0; i < SIDE / 4; i++)
    for (int c = 0; c < SIDE; c++)
      for (int k = 0; k < 4; k++) r[(i * SIDE + c) * 4 + k] = x[i * (SIDE + 3) + c + k];
}
static void make_flip(const loop *l) {
  static int64_t dims[1] = {1};
  make_arrays(l);
  set("dims", NYX_LIST(dims, 1));
}
static __attribute__((noinline)) void flip_rows_f32(void) {
  const float *restrict x = p[0];
  float *restrict r = result;
  for (int i = 0; i < SIDE; i++)
    for (int c = 0; c < SIDE; c++) r[i * SIDE + c] = x[i * SIDE + SIDE - 1 - c];
}

/* Added by position: elements, rows. In place. */
static void make_scatter(const loop *l) {
  const int64_t shape[2] = {SIDE, SIDE};
  in[0] = tensor(NYX_FLOAT32, 2, shape, -1, 1);
  in[1] = tensor(NYX_INT64, l->inputs, shape, 0, SIDE);
  in[2] = tensor(NYX_FLOAT32, 2, shape, -1, 1);
  n_in = 3;
  set_dim(l->axis);
}
#define SCATTER_LOOP(name, to, how)                                                      \
  static __attribute__((noinline)) void name(void) {                                     \
    float *restrict x = (float *)(uintptr_t)p[0];                                        \
    const int64_t *restrict at = p[1];                                                   \
    const float *restrict src = p[2];                                                    \
    for (int i = 0; i < SIDE; i++)                                                       \
      for (int c = 0; c < SIDE; c++) {                                                   \
        int64_t k = at[i * SIDE + c];                                                    \
        if ((uint64_t)k >= SIDE) return;                                                 \
        x[to] how src[i * SIDE + c];                                                     \
      }                                                                                  \
  }
SCATTER_LOOP(scatter_add_rows, i *SIDE + k, +=)
SCATTER_LOOP(scatter_add_columns, k *SIDE + c, +=)
SCATTER_LOOP(scatter_rows, i *SIDE + k, =)
static __attribute__((noinline)) void index_add_rows(void) {
  float *restrict x = (float *)(uintptr_t)p[0];
  const int64_t *restrict at = p[1];
  const float *restrict src = p[2];
  for (int i = 0; i < SIDE; i++) {
    if ((uint64_t)at[i] >= SIDE) return;
    for (int c = 0; c < SIDE; c++) x[at[i] * SIDE + c] += src[i * SIDE + c];
  }
}
static __attribute__((noinline)) void index_add_columns(void) {
  float *restrict x = (float *)(uintptr_t)p[0];
  const int64_t *restrict at = p[1];
  const float *restrict src = p[2];
  for (int c = 0; c < SIDE; c++)
    if ((uint64_t)at[c] >= SIDE) return;
  for (int i = 0; i < SIDE; i++)
    for (int c = 0; c < SIDE; c++) x[i * SIDE + at[c]] += src[i * SIDE + c];
}

/* A table of 10,000 rows of 64, and 15,625 positions. */
#define TABLE 10000
#define WORDS (N / 64)
static void make_table(const loop *l) {
  const int64_t shape[2] = {l->axis, 64}, words[1] = {WORDS};
  in[0] = tensor(NYX_FLOAT32, 2, shape, -1, 1);
  in[1] = tensor(NYX_INT64, 1, words, 0, TABLE);
  n_in = 2;
  set("rows", NYX_I(TABLE));
}
static void embedding_f32(void) {
  const int64_t *at = p[1];
  for (int i = 0; i < WORDS; i++) {
    if ((uint64_t)at[i] >= TABLE) return;
    memcpy((float *)result + i * 64, (const float *)p[0] + at[i] * 64, 64 * 4);
  }
}
static __attribute__((noinline)) void embedding_backward_f32(void) {
  const float *restrict g = p[0];
  const int64_t *restrict at = p[1];
  float *restrict r = result;
  memset(r, 0, TABLE * 64 * sizeof *r);
  for (int i = 0; i < WORDS; i++) {
    if ((uint64_t)at[i] >= TABLE) return;
    for (int c = 0; c < 64; c++) r[at[i] * 64 + c] += g[i * 64 + c];
  }
}

/* In order: a million, and the ten greatest of rows. */
static void make_line(const loop *l) {
  const int64_t shape[1] = {N};
  in[0] = tensor(l->dtype, 1, shape, l->low, l->high);
  n_in = 1;
}
static void sort_line(void) {
  memcpy(result, p[0], (size_t)N * sizeof(float));
  qsort(result, N, sizeof(float), by_size);
}
static void make_topk(const loop *l) {
  make_arrays(l);
  set("k", NYX_I(10));
}
/* The ten so far, in order; most elements are smaller than all of them. */
static __attribute__((noinline)) void topk_rows(void) {
  for (int i = 0; i < SIDE; i++) {
    const float *x = (const float *)p[0] + i * SIDE;
    float *r = (float *)result + i * 10;
    int64_t *at = (int64_t *)result + SIDE * 10 + i * 10;
    for (int k = 0; k < 10; k++) r[k] = -INFINITY;
    for (int c = 0; c < SIDE; c++) {
      if (x[c] <= r[9]) continue;
      int k = 9;
      for (; k > 0 && r[k - 1] < x[c]; k--) r[k] = r[k - 1], at[k] = at[k - 1];
      r[k] = x[c], at[k] = c;
    }
  }
}

#define MOVE(name, op, make, run, dtype, n, low, high, axis)                             \
  {name, op, make, run, NYX_##dtype, n, low, high, axis},
#define CAST(from, from_dtype, to, to_dtype, high)                                       \
  {"cast_" #from "_" #to, "cast", make_cast, from##_##to, NYX_##from_dtype, 1, 0, high,  \
   NYX_##to_dtype},
static const loop move_loops[] = {
    /* clang-format off */
  MOVE("turned_f32", "clone", make_turned, turned_f32, FLOAT32, 1, -1, 1, -1)
  MOVE("turned_f64", "clone", make_turned, turned_f64, FLOAT64, 1, -1, 1, -1)
  MOVE("turned_u8", "clone", make_turned, turned_u8, UINT8, 1, 0, 99, -1)
  MOVE("add_turned_f32", "add", make_turned, add_turned_f32, FLOAT32, 2, -1, 1, -1)
  MOVE("add_turned_f64", "add", make_turned, add_turned_f64, FLOAT64, 2, -1, 1, -1)
  CAST(f32, FLOAT32, f64, FLOAT64, 100)
  CAST(f64, FLOAT64, f32, FLOAT32, 100)
  CAST(f32, FLOAT32, i32, INT32, 100)
  CAST(i32, INT32, f32, FLOAT32, 100)
  CAST(f32, FLOAT32, i64, INT64, 100)
  CAST(i64, INT64, f32, FLOAT32, 100)
  CAST(i32, INT32, i64, INT64, 100)
  CAST(i64, INT64, i32, INT32, 100)
  CAST(u8, UINT8, f32, FLOAT32, 100)
  CAST(f32, FLOAT32, u8, UINT8, 100)
  CAST(u8, UINT8, i64, INT64, 100)
  CAST(f32, FLOAT32, bool, BOOL, 2)
  CAST(f32, FLOAT32, bf16, BFLOAT16, 100)
  CAST(bf16, BFLOAT16, f32, FLOAT32, 100)
  CAST(f32, FLOAT32, f16, FLOAT16, 100)
  CAST(f16, FLOAT16, f32, FLOAT32, 100)
  MOVE("where_f32", "where", make_masked, where_f32, FLOAT32, 3, 0, 0, -1)
  MOVE("where_f64", "where", make_masked, where_f64, FLOAT64, 3, 0, 0, -1)
  MOVE("where_u8", "where", make_masked, where_u8, UINT8, 3, 0, 0, -1)
  MOVE("masked_fill_f32", "masked_fill", make_masked, masked_fill_f32, FLOAT32, 2, 0, 0, -1)
  MOVE("masked_select_f32", "masked_select", make_masked, masked_select_f32, FLOAT32, 2, 0, 0, -1)
  MOVE("clamp_f32", "clamp", make_clamp, clamp_f32, FLOAT32, 1, -2, 2, -1)
  MOVE("clamp_f64", "clamp", make_clamp, clamp_f64, FLOAT64, 1, -2, 2, -1)
  MOVE("clamp_i32", "clamp", make_clamp, clamp_i32, INT32, 1, -9, 9, -1)
  MOVE("clamp_u8", "clamp", make_clamp, clamp_u8, UINT8, 1, 0, 9, -1)
  MOVE("cat_f32_rows", "cat", make_halves, cat_rows_f32, FLOAT32, 2, 0, 0, 0)
  MOVE("cat_f32_columns", "cat", make_halves, cat_columns_f32, FLOAT32, 2, 0, 0, 1)
  MOVE("stack_f32_last", "stack", make_halves, stack_last_f32, FLOAT32, 2, 0, 0, 2)
  MOVE("stack_u8_last", "stack", make_halves, stack_last_u8, UINT8, 2, 0, 0, 2)
  MOVE("pad_f32_zeros", "pad", make_padded, pad_zeros_f32, FLOAT32, 1, 0, 0, 0)
  MOVE("pad_f32_reflect", "pad", make_padded, pad_reflect_f32, FLOAT32, 1, 0, 0, 1)
  MOVE("windows_f32", "clone", make_windows, windows_f32, FLOAT32, 1, 0, 0, -1)
  MOVE("flip_f32_rows", "flip", make_flip, flip_rows_f32, FLOAT32, 1, -1, 1, -1)
  MOVE("scatter_add_f32_rows", "scatter_add", make_scatter, scatter_add_rows, FLOAT32, 2, 0, 0, 1)
  MOVE("scatter_add_f32_columns", "scatter_add", make_scatter, scatter_add_columns, FLOAT32, 2, 0, 0, 0)
  MOVE("scatter_f32_rows", "scatter", make_scatter, scatter_rows, FLOAT32, 2, 0, 0, 1)
  MOVE("index_add_f32_rows", "index_add", make_scatter, index_add_rows, FLOAT32, 1, 0, 0, 0)
  MOVE("index_add_f32_columns", "index_add", make_scatter, index_add_columns, FLOAT32, 1, 0, 0, 1)
  MOVE("embedding_f32", "embedding", make_table, embedding_f32, FLOAT32, 2, 0, 0, TABLE)
  MOVE("embedding_backward_f32", "embedding_backward", make_table, embedding_backward_f32, FLOAT32, 2, 0, 0, WORDS)
  MOVE("sort_f32_line", "sort", make_line, sort_line, FLOAT32, 1, -3, 3, -1)
  MOVE("topk_f32_rows", "topk", make_topk, topk_rows, FLOAT32, 1, -3, 3, 1)
    /* clang-format on */
};
