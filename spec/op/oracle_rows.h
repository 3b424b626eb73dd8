/* The rows over one scalar type, as functions of doubles: included by oracle_float.c and
 * oracle_int.c, which choose the type. Read next: kernels/dialect/scalar.h, oracle.c. */
#include <string.h>

#include "kernels/dialect/scalar.h"
#include "oracle.h"

#if defined(NYX_T_FLOAT64)
#define ROW_FLOATS(...) __VA_ARGS__
#define ROW_INTS(...)
#else
#define ROW_FLOATS(...)
#define ROW_INTS(...) __VA_ARGS__
#endif
#define ROW_WIDE ROW_FLOATS
#define ROW_NUMBERS(...) __VA_ARGS__
#define ROW_NUMBERS8 ROW_NUMBERS
#define ROW_ORDERED8 ROW_NUMBERS
#define ROW_SIGNED8 ROW_NUMBERS
#define ROW_INTS8 ROW_INTS
#define ROW_BITS8 ROW_INTS

/* An attribute as the type holds it: infinities are its extremes. */
static T limited(double v) {
#if defined(NYX_T_FLOAT64)
  return v;
#else
  return v >= 9.2e18 ? NYX_HIGHEST : v <= -9.2e18 ? NYX_LOWEST : (T)v;
#endif
}

#define NYX_UNARY(name, group, types, promotion, result, attrs, forward, ...)            \
  ROW_##types(if (strcmp(row, #name) == 0) return (double)(forward);)
#define NYX_BINARY NYX_UNARY
#define NYX_TERNARY NYX_UNARY
double ORACLE(forward)(const char *row, double vx, double vy, double vz, double vp,
                       double vq) {
  T x = (T)vx, y = (T)vy, z = (T)vz, p = limited(vp), q = limited(vq);
  (void)x, (void)y, (void)z, (void)p, (void)q;
#include "kernels/elementwise.def"
  return NAN;
}

/* One element after the other, which is as plain as it gets. */
#define NOTEXT K(0)
#define NYX_REDUCE(name, types, result, attrs, init, combine, merge, finish, ...)        \
  ROW_##types(if (strcmp(row, #name) == 0) {                                             \
    T a = (init);                                                                        \
    for (int i = 0; i < count; i++) {                                                    \
      T x = (T)values[i];                                                                \
      (void)x;                                                                           \
      a = (combine);                                                                     \
    }                                                                                    \
    (void)a;                                                                             \
    return (double)(finish);                                                             \
  })
double ORACLE(reduce)(const char *row, const double *values, int count, double vp) {
  T n = (T)count, p = limited(vp);
  (void)n, (void)p;
#include "kernels/reduce.def"
  return NAN;
}
