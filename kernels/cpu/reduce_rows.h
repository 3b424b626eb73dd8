/* The rows of reduce.def as functions over one compute type: included by reduce_<type>.c,
 * which chooses the type and REDUCE_NAME. Read next: reduce.h, kernels/dialect/vector.h.
 */
#include "../dialect/vector.h"
#include "reduce.h"

/* Rows that exist for this type. */
#if NYX_T_FLOAT
#define ROW_FLOATS(...) __VA_ARGS__
#else
#define ROW_FLOATS(...)
#endif
#define ROW_NUMBERS(...) __VA_ARGS__

#if NYX_T_FLOAT
#define IS_NAN(s) isnan(s)
#else
#define IS_NAN(s) false
#endif

#define WIDTH 4    /* vectors side by side */
#define STEPS 16   /* of them one after the other, merged then: sums of sums err less */
#define TOGETHER 4 /* rows combined by columns before the accumulators are stored */

/* Lanes merged with those 8, 4, 2 and 1 away: all of them in every lane. */
#if NYX_LANES == 16
#define MERGE_LANES(v, merge)                                                            \
  v = merge(v, NYX_SWAPPED(v, 8), p);                                                    \
  v = merge(v, NYX_SWAPPED(v, 4), p);                                                    \
  v = merge(v, NYX_SWAPPED(v, 2), p);                                                    \
  v = merge(v, NYX_SWAPPED(v, 1), p);
#elif NYX_LANES == 8
#define MERGE_LANES(v, merge)                                                            \
  v = merge(v, NYX_SWAPPED(v, 4), p);                                                    \
  v = merge(v, NYX_SWAPPED(v, 2), p);                                                    \
  v = merge(v, NYX_SWAPPED(v, 1), p);
#elif NYX_LANES == 4
#define MERGE_LANES(v, merge)                                                            \
  v = merge(v, NYX_SWAPPED(v, 2), p);                                                    \
  v = merge(v, NYX_SWAPPED(v, 1), p);
#else
#define MERGE_LANES(v, merge) v = merge(v, NYX_SWAPPED(v, 1), p);
#endif

/* A loop over n elements in vectors, the last one partial: `body` uses x and gives a. */
#define REDUCE_FUNCTIONS(name, init_, combine_, merge_, finish_)                         \
  static void name##_init(int64_t count, void *acc, double attr) {                       \
    T p = nyx__attr(attr), a = (init_);                                                  \
    S *to = acc;                                                                         \
    (void)p;                                                                             \
    for (int64_t i = 0; i < count; i++) to[i] = a[0];                                    \
  }                                                                                      \
  NYX_FN T name##_merge1(T a, T b, T p) {                                                \
    (void)p, (void)a, (void)b;                                                           \
    return (merge_);                                                                     \
  }                                                                                      \
  NYX_FN T name##_combine1(T a, T x, T p) {                                              \
    (void)p, (void)a, (void)x;                                                           \
    return (combine_);                                                                   \
  }                                                                                      \
  static void name##_row(int64_t count, const void *from, void *acc, double attr) {      \
    const S *at = from;                                                                  \
    T p = nyx__attr(attr), zero = (init_), sum[WIDTH];                                   \
    int64_t i = 0;                                                                       \
    for (int k = 0; k < WIDTH; k++) sum[k] = zero;                                       \
    while (NYX_T_FLOAT && i + STEPS * WIDTH * NYX_LANES <= count) {                      \
      T part[WIDTH];                                                                     \
      for (int k = 0; k < WIDTH; k++) part[k] = zero;                                    \
      for (int s = 0; s < STEPS; s++, i += WIDTH * NYX_LANES)                            \
        for (int k = 0; k < WIDTH; k++)                                                  \
          part[k] = name##_combine1(part[k], nyx__load(at + i + k * NYX_LANES), p);      \
      for (int k = 0; k < WIDTH; k++) sum[k] = name##_merge1(sum[k], part[k], p);        \
    }                                                                                    \
    for (; i + WIDTH * NYX_LANES <= count; i += WIDTH * NYX_LANES)                       \
      for (int k = 0; k < WIDTH; k++)                                                    \
        sum[k] = name##_combine1(sum[k], nyx__load(at + i + k * NYX_LANES), p);          \
    for (; i + NYX_LANES <= count; i += NYX_LANES)                                       \
      sum[0] = name##_combine1(sum[0], nyx__load(at + i), p);                            \
    if (i < count) {                                                                     \
      T last = name##_combine1(sum[1], nyx__load_part(at + i, count - i), p);            \
      sum[1] = nyx__first_lanes(last, count - i, sum[1]);                                \
    }                                                                                    \
    for (int half = WIDTH / 2; half > 0; half /= 2)                                      \
      for (int k = 0; k < half; k++) sum[k] = name##_merge1(sum[k], sum[k + half], p);   \
    MERGE_LANES(sum[0], name##_merge1)                                                   \
    *(S *)acc = sum[0][0];                                                               \
  }                                                                                      \
  static void name##_columns(int64_t rows, int64_t count, const void *from,              \
                             int64_t stride, void *acc, double attr) {                   \
    const S *at = from;                                                                  \
    S *to = acc;                                                                         \
    T p = nyx__attr(attr);                                                               \
    for (int64_t r = 0, k; r < rows; r += k, at += k * stride) {                         \
      k = rows - r >= TOGETHER ? TOGETHER : 1;                                           \
      int64_t i = 0;                                                                     \
      for (; i + NYX_LANES <= count && k == TOGETHER; i += NYX_LANES) {                  \
        T a = nyx__load(to + i);                                                         \
        for (int j = 0; j < TOGETHER; j++)                                               \
          a = name##_combine1(a, nyx__load(at + j * stride + i), p);                     \
        nyx__store(to + i, a);                                                           \
      }                                                                                  \
      for (; i + NYX_LANES <= count; i += NYX_LANES)                                     \
        nyx__store(to + i, name##_combine1(nyx__load(to + i), nyx__load(at + i), p));    \
      for (int64_t j = 0; j < k && i < count; j++)                                       \
        nyx__store_part(                                                                 \
            to + i, count - i,                                                           \
            name##_combine1(nyx__load_part(to + i, count - i),                           \
                            nyx__load_part(at + j * stride + i, count - i), p));         \
    }                                                                                    \
  }                                                                                      \
  static void name##_merge(int64_t count, const void *from, void *acc, double attr) {    \
    const S *at = from;                                                                  \
    S *to = acc;                                                                         \
    T p = nyx__attr(attr);                                                               \
    int64_t i = 0;                                                                       \
    for (; i + NYX_LANES <= count; i += NYX_LANES)                                       \
      nyx__store(to + i, name##_merge1(nyx__load(to + i), nyx__load(at + i), p));        \
    if (i < count)                                                                       \
      nyx__store_part(to + i, count - i,                                                 \
                      name##_merge1(nyx__load_part(to + i, count - i),                   \
                                    nyx__load_part(at + i, count - i), p));              \
  }                                                                                      \
  static void name##_finish(int64_t count, void *acc, double elements, double attr) {    \
    S *to = acc;                                                                         \
    T p = nyx__attr(attr), n = nyx__attr(elements);                                      \
    (void)p, (void)n;                                                                    \
    for (int64_t i = 0; i < count; i += NYX_LANES) {                                     \
      int64_t part = count - i;                                                          \
      T a = part < NYX_LANES ? nyx__load_part(to + i, part) : nyx__load(to + i);         \
      a = (finish_);                                                                     \
      if (part < NYX_LANES)                                                              \
        nyx__store_part(to + i, part, a);                                                \
      else                                                                               \
        nyx__store(to + i, a);                                                           \
    }                                                                                    \
  }

#define NOTEXT K(0)
#define NYX_REDUCE(name, types, result, attrs, init, combine, merge, finish, ...)        \
  ROW_##types(REDUCE_FUNCTIONS(name, init, combine, merge, finish))
#define NYX_REDUCE_PART(name, types, init, combine, merge, finish)                       \
  ROW_##types(REDUCE_FUNCTIONS(name, init, combine, merge, finish))
#include "../reduce.def"
#undef NYX_REDUCE
#undef NYX_REDUCE_PART

#define ENTRY(name)                                                                      \
  [NYX__REDUCE_##                                                                        \
      name] = {name##_init, name##_row, name##_columns, name##_merge, name##_finish},
#define NYX_REDUCE(name, types, ...) ROW_##types(ENTRY(name))
#define NYX_REDUCE_PART(name, types, ...) ROW_##types(ENTRY(name))
extern const nyx_reduce_kernel REDUCE_NAME(rows)[NYX__REDUCE_COUNT];
const nyx_reduce_kernel REDUCE_NAME(rows)[NYX__REDUCE_COUNT] = {
#include "../reduce.def"
};

int64_t REDUCE_NAME(find)(int64_t n, const void *from, const void *value);
int64_t REDUCE_NAME(find)(int64_t n, const void *from, const void *value) {
  const S *at = from;
  const S wanted = *(const S *)value;
  T same = nyx__splat(wanted);
  int64_t i = 0;
  for (; i + NYX_LANES <= n; i += NYX_LANES) {
    T x = nyx__load(at + i);
    if (nyx__any(nyx_or(nyx_eq(x, same), nyx_and(nyx_ne(x, x), nyx_ne(same, same)))))
      break;
  }
  for (; i < n; i++)
    if (at[i] == wanted || (IS_NAN(at[i]) && IS_NAN(wanted))) return i;
  return n;
}

int64_t REDUCE_NAME(beyond)(int64_t n, const void *from, bool least, const void *value);
int64_t REDUCE_NAME(beyond)(int64_t n, const void *from, bool least, const void *value) {
  const S *at = from;
  const T v = nyx__splat(*(const S *)value);
  for (int64_t i = 0; i < n; i += NYX_LANES) {
    const int64_t part = n - i;
    T x = part < NYX_LANES ? nyx__first_lanes(nyx__load_part(at + i, part), part, v)
                           : nyx__load(at + i);
    M better = least ? nyx_or(nyx_lt(x, v), nyx_and(nyx_eq(x, x), nyx_ne(v, v)))
                     : nyx_or(nyx_gt(x, v), nyx_and(nyx_ne(x, x), nyx_eq(v, v)));
    if (nyx__any(better)) return i + nyx__first_lane(better);
  }
  return n;
}

void REDUCE_NAME(follow)(int64_t n, const void *from, int64_t row, bool least, void *best,
                         void *where);
void REDUCE_NAME(follow)(int64_t n, const void *from, int64_t row, bool least, void *best,
                         void *where) {
  const T here = (T)KI(row); /* the bits of an integer */
  for (int64_t i = 0; i < n; i += NYX_LANES) {
    const int64_t part = n - i;
    const bool whole = part >= NYX_LANES;
    S *b = (S *)best + i, *at = (S *)where + i;
    T x = whole ? nyx__load((const S *)from + i)
                : nyx__load_part((const S *)from + i, part);
    T old = whole ? nyx__load(b) : nyx__load_part(b, part);
    T place = whole ? nyx__load(at) : nyx__load_part(at, part);
    M better = least ? NYX_REDUCE_LESS(x, old) : NYX_REDUCE_GREATER(x, old);
    x = nyx_select(better, x, old);
    place = nyx_select(better, here, place);
    if (whole) {
      nyx__store(b, x);
      nyx__store(at, place);
    } else {
      nyx__store_part(b, part, x);
      nyx__store_part(at, part, place);
    }
  }
}
