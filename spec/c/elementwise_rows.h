/* Every row of elementwise.def, in one type, on every path this CPU runs, against the
 * same text in plain C. elementwise_test.c and its siblings for integers define
 * NYX_T_FLOAT64, NYX_T_INT32 or NYX_T_INT64 and include this; the float oracle also
 * judges float32. */
#include <float.h>
#include <stdlib.h>

#include "check.h"
#include "core/device/cpu/cpu.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/dialect/scalar.h"

/* The oracle: part 0 is the forward text, 1 to 3 the gradients. */

#define NOGRAD K(0)
#define ORACLE(name, forward, gx, gy, gz)                                                \
  static T oracle_##name(int part, T g, T x, T y, T z, T r, T p, T q) {                  \
    (void)g, (void)x, (void)y, (void)z, (void)r, (void)p, (void)q;                       \
    switch (part) {                                                                      \
      case 0: return (T)(forward);                                                       \
      case 1: return (T)(gx);                                                            \
      case 2: return (T)(gy);                                                            \
      default: return (T)(gz);                                                           \
    }                                                                                    \
  }
#if defined(NYX_T_FLOAT)
#define WHEN_FLOATS(...) __VA_ARGS__
#define WHEN_INTS(...)
#define GRADIENT(text) text
#else
#define WHEN_FLOATS(...)
#define WHEN_INTS(...) __VA_ARGS__
#define GRADIENT(text) K(0)
#endif
#define WHEN_WIDE WHEN_FLOATS
#define WHEN_NUMBERS(...) __VA_ARGS__
#define WHEN_NUMBERS8 WHEN_NUMBERS
#define WHEN_ORDERED8 WHEN_NUMBERS
#define WHEN_SIGNED8 WHEN_NUMBERS
#define WHEN_INTS8 WHEN_INTS
#define WHEN_BITS8 WHEN_INTS
#define NYX_UNARY(name, group, types, promotion, result, attrs, forward, gx, ...)        \
  WHEN_##types(ORACLE(name, forward, GRADIENT(gx), K(0), K(0)))
#define NYX_BINARY(name, group, types, promotion, result, attrs, forward, gx, gy, ...)   \
  WHEN_##types(ORACLE(name, forward, GRADIENT(gx), GRADIENT(gy), K(0)))
#define NYX_TERNARY(name, group, types, promotion, result, attrs, forward, gx, gy, gz,   \
                    ...)                                                                 \
  WHEN_##types(ORACLE(name, forward, GRADIENT(gx), GRADIENT(gy), GRADIENT(gz)))
#include "kernels/elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY

typedef T (*oracle_fn)(int part, T g, T x, T y, T z, T r, T p, T q);
static const oracle_fn oracles[NYX_KERNEL_COUNT] = {
#define NYX_UNARY(name, group, types, ...)                                               \
  WHEN_##types([NYX_KERNEL_##name] = oracle_##name, )
#define NYX_BINARY NYX_UNARY
#define NYX_TERNARY NYX_UNARY
#include "kernels/elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY
};

/* Arguments */

static uint64_t random_state = 1;
static uint64_t random_bits(void) { /* splitmix64 */
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
__attribute__((unused)) static double random_between(double low, double high) {
  return low + (high - low) * (double)(random_bits() >> 11) * 0x1p-53;
}

enum { MOST = 70 }; /* elements of one call: more than four vectors, and every tail */

/* One call of a kernel: inputs g x y z r in the order of the parts, as the oracle's type
 * and as the kernel's. */
typedef struct trial {
  const nyx_row *row;
  int part;
  int64_t n;
  double attr[2];
  T value[5][MOST]; /* g x y z r */
} trial;

__attribute__((unused)) static T expected(const trial *t, int64_t i) {
  return oracles[t->row->id](t->part, t->value[0][i], t->value[1][i], t->value[2][i],
                             t->value[3][i], t->value[4][i], (T)t->attr[0],
                             (T)t->attr[1]);
}

/* Runs the kernel on elements of type E; out has room for a guard behind the last. */
#define DEFINE_RUN(name, E)                                                              \
  static void name(const trial *t, nyx_elementwise_fn fn, bool in_place, void *out) {    \
    static E in[5][MOST + 1];                                                            \
    const void *list[5];                                                                 \
    for (int k = 0; k < 5; k++)                                                          \
      for (int64_t i = 0; i < t->n; i++) in[k][i] = (E)t->value[k][i];                   \
    for (int k = 0; k < 5; k++) list[k] = in[t->part || k > 2 ? k : k + 1];              \
    if (in_place) {                                                                      \
      memcpy(out, list[0], (size_t)t->n * sizeof(E));                                    \
      list[0] = out;                                                                     \
    }                                                                                    \
    fn(t->n, list, out, t->attr);                                                        \
  }

static const char *const paths[] = {"base", "avx2", "avx512"};

static const nyx_op *op_of(int id) {
  const nyx_op *ops;
  nyx__elementwise_ops(&ops);
  return &ops[id];
}
