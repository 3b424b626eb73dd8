/* The functions of float64 rows (kernels/dialect/math64.h) over their whole range,
 * against libm's in long double, on every path this CPU runs. Read next:
 * elementwise_rows.h. */
#define NYX_T_FLOAT64
#include "elementwise_rows.h"

DEFINE_RUN(run, double)

/* What is expected */

typedef long double L;
static L ndtr(L x) {
  const L root = 0x1.6a09e667f3bcc908p-1L, rest = 0x1.65f626cdd52b0p-66L; /* sqrt(1/2) */
  L t = -x * root, lost = fmal(-x, root, -t) - x * rest;
  L value = erfcl(t) / 2;
  return t > 1 && value > 0 ? value * expl(-2 * t * lost)
                            : value; /* erfc falls with e^-t^2 */
}
static L sigmoid(L x) {
  return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x));
}
static L remainder_down(L x, L y) {
  L left = fmodl(x, y);
  return left != 0 && (left < 0) != (y < 0) ? left + y : left;
}

/* The most ulp a function may be off, as kernels/dialect/README.md lists it, and where
 * half of the arguments are taken from. The base path has libm's functions. */
typedef L (*of_one)(L);
typedef L (*of_two)(L, L);
static const struct {
  const char *name;
  of_one one;
  of_two two;
  double ulp, low, high;
} functions[] = {
    {"exp", expl, 0, 1, -708, 710},        {"exp2", exp2l, 0, 1, -1022, 1024},
    {"expm1", expm1l, 0, 1.3, -2, 2},      {"log", logl, 0, 0.9, 0.4, 2.5},
    {"log1p", log1pl, 0, 1, -0.7, 3},      {"log2", log2l, 0, 0.8, 0.4, 2.5},
    {"log10", log10l, 0, 0.8, 0.4, 2.5},   {"sin", sinl, 0, 0.8, -1e9, 1e9},
    {"cos", cosl, 0, 0.8, -1e9, 1e9},      {"tan", tanl, 0, 2.1, -1e9, 1e9},
    {"asin", asinl, 0, 1.7, -1, 1},        {"acos", acosl, 0, 1.2, -1, 1},
    {"atan", atanl, 0, 1.1, -4, 4},        {"sinh", sinhl, 0, 0.9, -5, 5},
    {"cosh", coshl, 0, 1, -5, 5},          {"tanh", tanhl, 0, 2.4, -3, 3},
    {"asinh", asinhl, 0, 1.9, -3, 3},      {"acosh", acoshl, 0, 2, 1, 3},
    {"atanh", atanhl, 0, 1.9, -1, 1},      {"erf", erfl, 0, 1.1, -4, 4},
    {"erfc", erfcl, 0, 1.9, -3, 27},       {"ndtr", ndtr, 0, 2.1, -38.5, 5},
    {"sigmoid", sigmoid, 0, 2.4, -20, 20}, {"pow", 0, powl, 1, 0.2, 5},
    {"atan2", 0, atan2l, 2.1, -3, 3},      {"hypot", 0, hypotl, 1, -3, 3},
    {"fmod", 0, fmodl, 0, -90, 90},        {"remainder", 0, remainder_down, 0.5, -90, 90},
};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

static double bound(int f, int path, double x) {
  if (path) return functions[f].ulp;
  if (x < -1 && strcmp(functions[f].name, "ndtr") == 0) return INFINITY; /* no bound */
  return fmax(functions[f].ulp, 4);
}
/* How far off in ulp of a double; infinite where only one is a NaN or infinite. */
static double ulps(double got, L exact) {
  double want = (double)exact, size = fabs(want);
  if (isnan(got) || isnan(want)) return isnan(got) && isnan(want) ? 0 : INFINITY;
  if (isinf(got) || isinf(want)) return got == want ? 0 : INFINITY;
  L spacing = size < DBL_MAX ? (L)(nextafter(size, INFINITY) - size) : 0x1p971L;
  return (double)(fabsl((L)got - exact) / spacing);
}

/* Arguments */

static const double special[] = {0,
                                 -0.0,
                                 1,
                                 -1,
                                 0.5,
                                 -0.5,
                                 1.5,
                                 2,
                                 -3,
                                 INFINITY,
                                 -INFINITY,
                                 NAN,
                                 DBL_MIN,
                                 -DBL_MIN,
                                 5e-324,
                                 -5e-324,
                                 DBL_MAX,
                                 -DBL_MAX,
                                 1e-300,
                                 -1e-300,
                                 1e-320,
                                 709.78,
                                 709.79,
                                 -708.5,
                                 -745.1,
                                 -745.2,
                                 1023.999,
                                 1024,
                                 -1022.5,
                                 -1074.5,
                                 -1075.5,
                                 710.47,
                                 710.48,
                                 1e5,
                                 1e9,
                                 1.1e9,
                                 -1e22,
                                 0x1p52,
                                 0x1p53,
                                 26.5,
                                 27.2,
                                 -38.5,
                                 37.6,
                                 0x1p600,
                                 0x1p-600,
                                 3,
                                 5,
                                 -745,
                                 0x1.921fb54442d18p+0,
                                 1 - 0x1p-53,
                                 1 + 0x1p-52,
                                 -1 + 0x1p-53,
                                 0x1p-54,
                                 5.95,
                                 6};
enum { SPECIAL = sizeof special / sizeof *special };

static double random_double(int how, double low, double high) {
  uint64_t bits = random_bits();
  double x;
  switch (how) {
    case 0: memcpy(&x, &bits, sizeof x); return x;
    case 1: return random_between(low, high);
    case 2: return random_between(-10, 10);
    case 3: return random_between(-750, 750);
    case 4: return rint(random_between(-10, 10));
    default: /* near multiples of pi / 4 */
      return rint(random_between(-60, 60)) * 0.78539816339744830962 *
             (1 + random_between(-1e-9, 1e-9));
  }
}

static void everywhere(void) {
  for (int f = 0; f < FUNCTIONS; f++) {
    const char *name = functions[f].name;
    trial t = {.part = 0, .n = MOST};
    for (int id = 0; id < NYX_KERNEL_COUNT; id++)
      if (strcmp(op_of(id)->name, name) == 0) t.row = op_of(id)->row;
    REQUIRE(CHECK_AT(t.row != NULL, "row", "no row %s", name));
    double worst[3] = {0};
    for (int round = 0; round < 2400; round++) {
      for (int64_t i = 0; i < t.n; i++) {
        int64_t s = round * t.n + i; /* first all special values, or pairs of them */
        bool listed = s < (functions[f].one ? SPECIAL : SPECIAL * SPECIAL);
        int how = round % 12 < 6 ? round % 12 : 1;
        t.value[1][i] = listed ? special[s % SPECIAL]
                               : random_double(how, functions[f].low, functions[f].high);
        t.value[2][i] = listed ? special[s / SPECIAL % SPECIAL]
                               : random_double(how == 1 ? 2 : how, 0, 0);
      }
      for (int path = 0; path < 3; path++) {
        const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
        double out[MOST];
        if (!k) continue;
        run(&t, k->elementwise->rows[NYX_IN_FLOAT64][t.row->id][0], false, out);
        for (int64_t i = 0; i < t.n; i++) {
          double x = t.value[1][i], y = t.value[2][i];
          L want = functions[f].one ? functions[f].one(x) : functions[f].two(x, y);
          double off = ulps(out[i], want), most = bound(f, path, x);
          bool zero = out[i] == 0 && (double)want == 0;
          if (off > worst[path]) worst[path] = off;
          CHECK_AT(!zero || !signbit(out[i]) == !signbit(want), name,
                   " on %s: the sign of zero, from (%.17g, %.17g)", paths[path], x, y);
          CHECK_AT(off <= most, name,
                   " on %s: (%.17g, %.17g) gave %.17g, %.3g ulp from %.17Lg", paths[path],
                   x, y, out[i], off, want);
        }
      }
    }
    if (getenv("NYX_SHOW_ULP"))
      printf("# %s: %.3f base, %.3f avx2, %.3f avx512\n", name, worst[0], worst[1],
             worst[2]);
  }
}

/* An element's result does not depend on its neighbours: those in a vector may send it
 * another way. */
static void alone(void) {
  for (int path = 0; path < 3; path++)
    for (int id = 0; id < NYX_KERNEL_COUNT; id++)
      for (int part = 0; part < 4; part++) {
        const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
        nyx_elementwise_fn fn = k ? k->elementwise->rows[NYX_IN_FLOAT64][id][part] : NULL;
        const nyx_op *op = op_of(id);
        trial t = {.row = op->row, .part = part, .n = MOST};
        size_t item = t.row->result_bool && part == 0 ? 1 : 8;
        if (!fn) continue;
        for (int a = 0; a < op->n_attrs; a++) t.attr[a] = op->attrs[a].preset.f;
        for (int v = 0; v < 5; v++)
          for (int64_t i = 0; i < t.n; i++)
            t.value[v][i] = i % 5 ? random_double((int)i % 6, -800, 800)
                                  : special[random_bits() % SPECIAL];
        unsigned char all[MOST * 8], one[8];
        run(&t, fn, false, all);
        for (int64_t i = 0; i < t.n; i++) {
          trial single = {.row = t.row, .part = part, .n = 1};
          memcpy(single.attr, t.attr, sizeof t.attr);
          for (int v = 0; v < 5; v++) single.value[v][0] = t.value[v][i];
          run(&single, fn, false, one);
          double value[2]; /* which of two NaNs a product is the compiler may choose */
          bool numbers = item == 8;
          if (numbers) memcpy(&value[0], one, 8), memcpy(&value[1], all + i * 8, 8);
          CHECK_AT((numbers && isnan(value[0]) && isnan(value[1])) ||
                       memcmp(one, all + (size_t)i * item, item) == 0,
                   op->name, ": part %d on %s of %.17g, %.17g", part, k->name,
                   t.value[1][i], t.value[2][i]);
        }
      }
}

int main(void) {
  RUN(everywhere);
  RUN(alone);
  return check_done();
}
