/* Compiles every row of elementwise.def for one type: elementwise_float32.c and its
 * siblings define NYX_T_* and include this. A row becomes one function per text, all in
 * the table NYX_PATH(rows_<type>); in 8 bits only its value. In float32 the value has a
 * second function that writes past the caches. Read next:
 * kernels/dialect/vector.h. */
#include "../dialect/vector.h"
#include "elementwise.h"
#include "vector_bytes.h"

/* Steps through n elements; the text appears once, the last vector may be partial. Loads
 * that the text does not need are dropped by the compiler. */
#define NYX_LOAD(k)                                                                      \
  (left >= NYX_LANES ? nyx__load((const S *)in[k] + i)                                   \
                     : nyx__load_part((const S *)in[k] + i, left))
#define NYX_STORE_SAME(value)                                                            \
  do {                                                                                   \
    const T result = (value);                                                            \
    if (left >= NYX_LANES)                                                               \
      nyx__store((S *)out + i, result);                                                  \
    else                                                                                 \
      nyx__store_part((S *)out + i, left, result);                                       \
  } while (0)
#define NYX_STORE_BOOL(value)                                                            \
  do {                                                                                   \
    const M result = (value);                                                            \
    if (left >= NYX_LANES)                                                               \
      nyx__store_mask((uint8_t *)out + i, result);                                       \
    else                                                                                 \
      nyx__store_mask_part((uint8_t *)out + i, left, result);                            \
  } while (0)
/* On the base path vectors of integers need so few instructions that counting them shows:
 * several at a time. */
#if NYX_BYTES == 16 && NYX_T_BITS <= 32 && !NYX_T_FLOAT
#define NYX_STEPS 4
#else
#define NYX_STEPS 0
#endif
#define NYX_LOOP(function, declare, store, text)                                         \
  static void function(int64_t n, const void *const *in, void *out,                      \
                       const double *attr) {                                             \
    const T p = nyx__attr(attr[0]), q = nyx__attr(attr[1]);                              \
    int64_t first = 0;                                                                   \
    (void)p, (void)q, (void)in;                                                          \
    for (; NYX_STEPS && n - first >= NYX_STEPS * NYX_LANES;                              \
         first += NYX_STEPS * NYX_LANES)                                                 \
      UNROLL for (int k = 0; k < NYX_STEPS; k++) {                                       \
        const int64_t i = first + k * NYX_LANES, left = NYX_LANES;                       \
        declare store(text);                                                             \
      }                                                                                  \
    for (int64_t i = first; i < n; i += NYX_LANES) {                                     \
      const int64_t left = n - i;                                                        \
      declare store(text);                                                               \
    }                                                                                    \
  }
/* Past the caches: inputs are asked for ahead, results stored at once. Copied from a
 * buffer in the first cache, as other types are, they have computing wait for memory. */
#define NYX_ASK(k)                                                                       \
  const int64_t ahead##k = n > NYX_AHEAD_LEAST ? NYX_AHEAD_BYTES : 0;                    \
  if (NYX_BYTES == 64 || i % (64 / (int)sizeof(S)) == 0)                                 \
    __builtin_prefetch((const char *)((const S *)in[k] + i) + ahead##k);
#define NYX_ASK_1 NYX_ASK(0)
#define NYX_ASK_2 NYX_ASK(0) NYX_ASK(1)
#define NYX_ASK_3 NYX_ASK(0) NYX_ASK(1) NYX_ASK(2)
#define NYX_STORE_PAST(value)                                                            \
  do {                                                                                   \
    const T result = (value);                                                            \
    if (left >= NYX_LANES)                                                               \
      nyx__store_past((S *)out + i, result);                                             \
    else                                                                                 \
      nyx__store_part((S *)out + i, left, result);                                       \
  } while (0)
#define NYX_LOADS_1                                                                      \
  const T x = NYX_LOAD(0);                                                               \
  (void)x;
#define NYX_LOADS_2                                                                      \
  const T x = NYX_LOAD(0), y = NYX_LOAD(1);                                              \
  (void)x, (void)y;
#define NYX_LOADS_3                                                                      \
  const T x = NYX_LOAD(0), y = NYX_LOAD(1), z = NYX_LOAD(2);                             \
  (void)x, (void)y, (void)z;
#define NYX_LOADS_GRADIENT                                                               \
  const T g = NYX_LOAD(0), x = NYX_LOAD(1), y = NYX_LOAD(2), z = NYX_LOAD(3),            \
          r = NYX_LOAD(4);                                                               \
  (void)g, (void)x, (void)y, (void)z, (void)r;

/* Many instructions a vector also keep a core from asking for the next lines in time when
 * they come from the second cache and beyond. */
#if defined(NYX_ROWS_PAST) && NYX_BYTES == 64
#define NYX_ASK_SOON(k)                                                                  \
  if (n >= NYX_AHEAD_FROM)                                                               \
    __builtin_prefetch((const char *)((const S *)in[k] + i) + NYX_AHEAD_BYTES);
#else
#define NYX_ASK_SOON(k)
#endif
#define NYX_ASK_SOON_1 NYX_ASK_SOON(0)
#define NYX_ASK_SOON_2 NYX_ASK_SOON(0) NYX_ASK_SOON(1)
#define NYX_ASK_SOON_3 NYX_ASK_SOON(0) NYX_ASK_SOON(1) NYX_ASK_SOON(2)

/* Bools of several vectors at a time. */
#if NYX_MASKS > 1
#define NYX_FORWARD_BOOL(function, arity, text)                                          \
  static void function(int64_t n, const void *const *in, void *out,                      \
                       const double *attr) {                                             \
    const T p = nyx__attr(attr[0]), q = nyx__attr(attr[1]);                              \
    (void)p, (void)q, (void)in;                                                          \
    int64_t first = 0;                                                                   \
    for (; n - first >= NYX_MASKS * NYX_LANES; first += NYX_MASKS * NYX_LANES) {         \
      M masks[NYX_MASKS];                                                                \
      UNROLL for (int k = 0; k < NYX_MASKS; k++) {                                       \
        const int64_t i = first + k * NYX_LANES, left = NYX_LANES;                       \
        NYX_LOADS_##arity masks[k] = (text);                                             \
      }                                                                                  \
      nyx__store_masks((uint8_t *)out + first, masks);                                   \
    }                                                                                    \
    for (int64_t i = first; i < n; i += NYX_LANES) {                                     \
      const int64_t left = n - i;                                                        \
      NYX_LOADS_##arity NYX_STORE_BOOL(text);                                            \
    }                                                                                    \
  }
#else
#define NYX_FORWARD_BOOL(function, arity, text)                                          \
  NYX_LOOP(function, NYX_ASK_SOON_##arity NYX_LOADS_##arity, NYX_STORE_BOOL, text)
#endif
#define NYX_FORWARD_SAME(function, arity, text)                                          \
  NYX_LOOP(function, NYX_ASK_SOON_##arity NYX_LOADS_##arity, NYX_STORE_SAME, text)
#define NYX_FORWARD(name, arity, result, text)                                           \
  NYX_FORWARD_##result(forward_##name, arity, text)                                      \
      NYX_FORWARD_PAST_##result(name, arity, text)
#if defined(NYX_ROWS_PAST)
#define NYX_FORWARD_PAST_SAME(name, arity, text)                                         \
  NYX_LOOP(past_##name, NYX_ASK_##arity NYX_LOADS_##arity, NYX_STORE_PAST, text)
#else
#define NYX_FORWARD_PAST_SAME(name, arity, text)
#endif
#define NYX_FORWARD_PAST_BOOL(name, arity, text)
/* Gradients exist for float types; the text NOGRAD leaves a function nobody points to. */
#if NYX_T_FLOAT
#define NOGRAD K(0)
#define NYX_GRADIENT(name, k, text)                                                      \
  __attribute__((unused))                                                                \
  NYX_LOOP(gradient##k##_##name, NYX_LOADS_GRADIENT, NYX_STORE_SAME, text)
#define NYX_GRADIENT_SLOT(name, k, text)                                                 \
  (__builtin_strcmp(text, "NOGRAD") ? gradient##k##_##name : NULL)
#else
#define NYX_GRADIENT(name, k, text)
#define NYX_GRADIENT_SLOT(name, k, text) NULL
#endif

/* Rows whose `types` do not include T have no functions. Of uint8 only those that int8's
 * do not serve. */
#if NYX_T_FLOAT
#define NYX_WHEN_FLOATS(...) __VA_ARGS__
#define NYX_WHEN_INT(...)
#else
#define NYX_WHEN_FLOATS(...)
#define NYX_WHEN_INT(...) __VA_ARGS__
#endif
#define NYX_WHEN_WIDE NYX_WHEN_FLOATS
#if NYX_T_BITS > 8
#define NYX_WHEN_NUMBERS(...) __VA_ARGS__
#define NYX_WHEN_INTS NYX_WHEN_INT
#else
#define NYX_WHEN_NUMBERS(...)
#define NYX_WHEN_INTS(...)
#endif
#if defined(NYX_T_UINT8)
#define NYX_WHEN_NUMBERS8(...)
#define NYX_WHEN_BITS8(...)
#else
#define NYX_WHEN_NUMBERS8(...) __VA_ARGS__
#define NYX_WHEN_BITS8 NYX_WHEN_INT
#endif
#if defined(NYX_T_UINT8) || defined(NYX_T_BOOL)
#define NYX_WHEN_SIGNED8(...)
#define NYX_WHEN_INTS8(...)
#else
#define NYX_WHEN_SIGNED8(...) __VA_ARGS__
#define NYX_WHEN_INTS8 NYX_WHEN_INT
#endif
#define NYX_WHEN_ORDERED8(...) __VA_ARGS__

#define NYX_UNARY(name, group, types, promotion, result, attrs, forward, gx, lo, hi,     \
                  doc)                                                                   \
  NYX_WHEN_##types(NYX_FORWARD(name, 1, result, forward) NYX_GRADIENT(name, 0, gx))
#define NYX_BINARY(name, group, types, promotion, result, attrs, forward, gx, gy, lo,    \
                   hi, doc)                                                              \
  NYX_WHEN_##types(NYX_FORWARD(name, 2, result, forward) NYX_GRADIENT(name, 0, gx)       \
                       NYX_GRADIENT(name, 1, gy))
#define NYX_TERNARY(name, group, types, promotion, result, attrs, forward, gx, gy, gz,   \
                    lo, hi, doc)                                                         \
  NYX_WHEN_##types(NYX_FORWARD(name, 3, result, forward) NYX_GRADIENT(name, 0, gx)       \
                       NYX_GRADIENT(name, 1, gy) NYX_GRADIENT(name, 2, gz))
#include "../elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY

/* An entry of the table. */
#if NYX_T_BITS > 8
#define NYX_ENTRY(name, ...) [NYX_KERNEL_##name] = {forward_##name, __VA_ARGS__},
typedef nyx_elementwise_parts entry;
#else
#define NYX_ENTRY(name, ...) [NYX_KERNEL_##name] = forward_##name,
typedef nyx_elementwise_fn entry;
#endif
#define NYX_UNARY(name, group, types, promotion, result, attrs, forward, gx, lo, hi,     \
                  doc)                                                                   \
  NYX_WHEN_##types(NYX_ENTRY(name, NYX_GRADIENT_SLOT(name, 0, #gx)))
#define NYX_BINARY(name, group, types, promotion, result, attrs, forward, gx, gy, lo,    \
                   hi, doc)                                                              \
  NYX_WHEN_##types(                                                                      \
      NYX_ENTRY(name, NYX_GRADIENT_SLOT(name, 0, #gx), NYX_GRADIENT_SLOT(name, 1, #gy)))
#define NYX_TERNARY(name, group, types, promotion, result, attrs, forward, gx, gy, gz,   \
                    lo, hi, doc)                                                         \
  NYX_WHEN_##types(NYX_ENTRY(name, NYX_GRADIENT_SLOT(name, 0, #gx),                      \
                             NYX_GRADIENT_SLOT(name, 1, #gy),                            \
                             NYX_GRADIENT_SLOT(name, 2, #gz)))
const entry NYX_ROWS[NYX_KERNEL_COUNT] = {
#include "../elementwise.def"
};
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY

#if defined(NYX_ROWS_PAST)
#define NYX_PAST_SAME(name) [NYX_KERNEL_##name] = past_##name,
#define NYX_PAST_BOOL(name)
#define NYX_UNARY(name, group, types, promotion, result, ...)                            \
  NYX_WHEN_##types(NYX_PAST_##result(name))
#define NYX_BINARY NYX_UNARY
#define NYX_TERNARY NYX_UNARY
const nyx_elementwise_fn NYX_ROWS_PAST[NYX_KERNEL_COUNT] = {
#include "../elementwise.def"
};
#endif
