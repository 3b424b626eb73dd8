/* Elementwise kernels in float32 and float64, dtype conversions, and the driver that runs
 * kernels over tensors of any strides and dtypes. Integers: elementwise_int32_test.c,
 * elementwise_int64_test.c. Read next: elementwise_rows.h. */
#define NYX_T_FLOAT64
#include "elementwise_rows.h"
#include "kernels/cpu/move.h"

DEFINE_RUN(run_float32, float)
DEFINE_RUN(run_float64, double)

/* Float32 functions: the most ulp they may be off, anywhere. kernels/dialect/README.md
 * lists the same numbers. All other rows are made of these. */
static const struct {
  const char *name;
  double ulp;
} bounds[] = {
    {"add", 0.5},       {"sub", 0.5},     {"mul", 0.5},
    {"div", 0.5},       {"sqrt", 0.5},    {"rsqrt", 1.6},
    {"reciprocal", .5}, {"abs", 0},       {"floor", 0},
    {"ceil", 0},        {"round", 0},     {"trunc", 0},
    {"fmod", 0},        {"hypot", 0.6},   {"pow", 0.6},
    {"maximum", 0},     {"minimum", 0},   {"exp", 1.2},
    {"exp2", 1.2},      {"expm1", 1.7},   {"log", 1},
    {"log1p", 1.6},     {"log2", 1.3},    {"log10", 1.2},
    {"sin", 2.1},       {"cos", 2.1},     {"tan", 3.2},
    {"asin", 1.7},      {"acos", 1.2},    {"atan", 1.5},
    {"atan2", 1.8},     {"sinh", 1.8},    {"cosh", 1.6},
    {"tanh", 2.6},      {"asinh", 1.8},   {"acosh", 2},
    {"atanh", 2.3},     {"erf", 1.3},     {"erfc", 6},
    {"ndtr", 95},       {"sigmoid", 2.5}, {"floor_divide", 0.6},
    {"remainder", 0.5}, {"silu", 3.1},    {"gelu", 95},
    {"copysign", 0},    {"heaviside", 0}, {"deg2rad", 1.2},
    {"rad2deg", 1.2},   {"lgamma", 4.2},  {"digamma", 6},
    {"erfinv", 3},      {"i0", 5},        {"i0e", 4},
    {"i1", 5},          {"i1e", 4},       {"exponent", 0},
};

/* The distance between neighbours at `want`. */
static double spacing(double want, bool single) {
  double size = fabs(want);
  if (!single) return size >= DBL_MAX ? 0x1p971 : nextafter(size, INFINITY) - size;
  float f = (float)size;
  return f >= FLT_MAX ? 0x1p104 : (double)(nextafterf(f, INFINITY) - f);
}
/* How far off `got` is in ulp of the type; infinite where only one is a NaN or infinite.
 */
static double ulps(double got, double want, bool single) {
  if (single && fabs(want) >= 0x1.ffffffp127) want = copysign(INFINITY, want);
  if (isnan(got) || isnan(want)) return isnan(got) && isnan(want) ? 0 : INFINITY;
  if (got == want) return 0;
  if (isinf(got) || isinf(want)) return INFINITY;
  return fabs(got - want) / spacing(want, single);
}

/* Functions over their whole range */

static float random_float(int how) {
  uint32_t bits = (uint32_t)random_bits();
  float f;
  if (how == 0) memcpy(&f, &bits, sizeof f);
  if (how == 1) f = (float)random_between(-10, 10);
  if (how == 2) f = (float)random_between(-120, 120);
  if (how == 3) f = rintf((float)random_between(-10, 10));
  return f;
}
/* Where some err most, which few of those meet. */
static const struct {
  const char *name;
  double from, to, other; /* x, y */
} worst[] = {{"ndtr", -7, -4, 0},
             {"gelu", -7, -4, 0},
             {"log2", 1.25, 1.5, 0},
             {"log10", 1.25, 1.5, 0},
             {"pow", 0x1p-43, 0x1p-41, 3}};
enum { WORST = sizeof worst / sizeof *worst };
static const float special[] = {
    0,       -0.0f,   1,        -1,        0.5f,     -0.5f,       1.5f,
    2,       -3,      INFINITY, -INFINITY, NAN,      FLT_MIN,     1e-45f,
    -1e-45f, FLT_MAX, -FLT_MAX, 1e-30f,    88.73f,   -103.98f,    128,
    -150,    1e5f,    1e10f,    8388609,   16777216, 0.99999994f, -0.99999994f};
enum { SPECIAL = sizeof special / sizeof *special };

/* Where the base path and avx512 have bounds of their own. */
static const struct {
  const char *name;
  double base, wide;
} apart[] = {{"tanh", 2.6, 1.9}, {"ndtr", 114, 64}, {"gelu", 114, 64},
             {"log", 1, 0.8},    {"log2", 1.3, 1},  {"log10", 1.2, 0.9}};

static double bound(size_t b, int path, double x) {
  bool ndtr = strcmp(bounds[b].name, "ndtr") == 0; /* the lower tail loses digits */
  if (ndtr && x >= -1) return path == 2 ? 1.6 : 3.1;
  if (strcmp(bounds[b].name, "silu") == 0 && x < -87) return INFINITY; /* no bound */
  for (size_t i = 0; i < sizeof apart / sizeof *apart && path != 1; i++)
    if (strcmp(apart[i].name, bounds[b].name) == 0)
      return path == 0 ? apart[i].base : apart[i].wide;
  return bounds[b].ulp;
}

/* How far off, where the terms of gamma functions cancel out in ulp of these. */
static double distance(const char *name, double x, double got, double want) {
  double size = 0;
  if (strcmp(name, "digamma") == 0 && x < 0) size = 1 + log1p(-x);
  if (strcmp(name, "lgamma") == 0 && x < 0) size = 1 + fabs(nyx_lgamma(-x));
  if (isfinite(got) && size > fabs(want)) return fabs(got - want) / spacing(size, true);
  return ulps(got, want, true);
}

static void functions(void) {
  const int rounds = CHECK_ROUNDS(1500);
  for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
    trial t = {.part = 0, .n = MOST};
    for (int id = 0; id < NYX_KERNEL_COUNT; id++)
      if (strcmp(op_of(id)->name, bounds[b].name) == 0) t.row = op_of(id)->row;
    REQUIRE(CHECK_AT(t.row != NULL, "row", "no row %s", bounds[b].name));
    bool unary = t.row->arity == 1;
    int w = 0;
    while (w < WORST && strcmp(worst[w].name, bounds[b].name)) w++;
    for (int round = 0; round < (w < WORST ? 4 : 1) * rounds; round++) {
      for (int64_t i = 0; i < t.n; i++) {
        int64_t s = round * t.n + i; /* first all special values, or pairs of them */
        bool listed = s < (unary ? SPECIAL : SPECIAL * SPECIAL);
        t.value[1][i] = listed ? special[s % SPECIAL] : random_float(round & 3);
        t.value[2][i] = listed ? special[s / SPECIAL % SPECIAL] : random_float(round & 3);
        if (round < rounds) continue;
        t.value[1][i] = (float)random_between(worst[w].from, worst[w].to);
        t.value[2][i] = worst[w].other;
      }
      for (int path = 0; path < 3; path++) {
        const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
        float out[MOST];
        if (!k) continue;
        run_float32(&t, k->elementwise->rows[NYX_IN_FLOAT32][t.row->id][0], false, out);
        for (int64_t i = 0; i < t.n; i++) {
          double x = t.value[1][i], want = expected(&t, i);
          double off = distance(bounds[b].name, x, (double)out[i], want);
          bool zero = want == 0 && out[i] == 0;
          double most = bound(b, path, x);
          CHECK_AT(!zero || !signbit(out[i]) == !signbit(want), bounds[b].name,
                   " on %s: the sign of zero, from (%.9g, %.9g)", paths[path],
                   t.value[1][i], t.value[2][i]);
          CHECK_AT(off <= most, bounds[b].name,
                   " on %s: (%.9g, %.9g) gave %.9g, %.3g ulp from %.9g", paths[path],
                   t.value[1][i], t.value[2][i], (double)out[i], off, want);
        }
      }
    }
  }
}

/* Every row in its domain: forward and gradients, all tails, in place too */

static void fill(trial *t, const nyx_op *op, bool single) {
  for (int64_t i = 0; i < t->n; i++) {
    t->value[0][i] = random_between(-2, 2);
    for (int k = 1; k < 4; k++)
      t->value[k][i] = random_between(op->domain[0], op->domain[1]);
    if (i % 7 == 3) t->value[2][i] = t->value[1][i]; /* ties */
    for (int k = 0; k < 4; k++)
      if (single) t->value[k][i] = (float)t->value[k][i];
    t->value[4][i] = oracles[t->row->id](0, 0, t->value[1][i], t->value[2][i],
                                         t->value[3][i], 0, t->attr[0], t->attr[1]);
    if (single) t->value[4][i] = (float)t->value[4][i];
  }
}

static void row(int id, int part, const nyx_cpu_kernels *k, bool single) {
  const nyx_op *op = op_of(id);
  trial t = {.row = op->row, .part = part};
  const double epsilon = single ? FLT_EPSILON : DBL_EPSILON;
  for (int a = 0; a < op->n_attrs; a++) {
    t.attr[a] = op->attrs[a].preset.f;
    if (single) t.attr[a] = (float)t.attr[a];
  }
  nyx_elementwise_fn fn =
      k->elementwise->rows[single ? NYX_IN_FLOAT32 : NYX_IN_FLOAT64][id][part];
  bool exists = (t.row->types & NYX_ROW_FLOATS) &&
                (part == 0 || (part <= t.row->arity && t.row->gradient[part - 1]));
  CHECK_AT((fn != NULL) == exists, op->name, ": part %d on %s", part, k->name);
  if (!fn || !exists) return;
  bool bytes = t.row->result_bool && part == 0;
  size_t item = bytes ? 1 : single ? 4 : 8;
  for (t.n = 0; t.n <= MOST; t.n++)
    for (int in_place = 0; in_place <= !bytes; in_place++) {
      _Alignas(64) unsigned char out[MOST * 8 + 8];
      fill(&t, op, single);
      memset(out, 0xa5, sizeof out);
      (single ? run_float32 : run_float64)(&t, fn, in_place, out);
      CHECK_AT(out[(size_t)t.n * item] == 0xa5, op->name, ": wrote beyond element %d",
               (int)t.n);
      for (int64_t i = 0; i < t.n; i++) {
        double want = expected(&t, i), scale = 1 + fabs(want) + fabs(t.value[4][i]);
        double got = bytes    ? out[i]
                     : single ? (double)((float *)out)[i]
                              : ((double *)out)[i];
        for (int v = 0; v < 4; v++) scale += fabs(t.value[v][i]);
        CHECK_AT(got == want || fabs(got - want) <= 4 * epsilon * scale, op->name,
                 ": part %d on %s, %s: x %.9g y %.9g gave %.9g, expected %.9g", part,
                 k->name, single ? "float32" : "float64", t.value[1][i], t.value[2][i],
                 got, want);
      }
    }
}
static void rows(void) {
  for (int path = 0; path < 3; path++)
    for (int id = 0; id < NYX_KERNEL_COUNT; id++)
      for (int part = 0; part < 4; part++) {
        const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
        if (!k) continue;
        row(id, part, k, true);
        row(id, part, k, false);
      }
}

/* Infinities and NaNs go through activations as the formula says. */
static void infinite(void) {
  for (int path = 0; path < 3; path++)
    for (int id = 0; id < NYX_KERNEL_COUNT; id++) {
      const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
      const nyx_op *op = op_of(id);
      trial t = {.row = op->row, .part = 0, .n = 6};
      if (!k || !oracles[id] || t.row->result_bool) continue;
      if (strcmp(op->name, "nextafter") == 0) continue; /* special_test.c */
      for (int a = 0; a < op->n_attrs; a++) t.attr[a] = (float)op->attrs[a].preset.f;
      const double values[] = {INFINITY, -INFINITY, NAN, 0, 1e30, -1e30};
      for (int64_t i = 0; i < t.n; i++) {
        t.value[1][i] = (float)values[i];
        t.value[2][i] = t.value[3][i] = 1;
      }
      float out[MOST];
      run_float32(&t, k->elementwise->rows[NYX_IN_FLOAT32][id][0], false, out);
      for (int64_t i = 0; i < t.n; i++) {
        float want = (float)expected(&t, i);
        CHECK_AT((isnan(want) && isnan(out[i])) || want == out[i] ||
                     fabsf(out[i] - want) <= 1e-5f * fabsf(want),
                 op->name, " on %s of %g gave %g, expected %g", k->name, t.value[1][i],
                 (double)out[i], (double)want);
      }
    }
}

/* An element's result does not depend on its neighbours, so neither on how work is cut:
 * many at once and one at a time give the same bits. */
static void alone(void) {
  for (int path = 0; path < 3; path++)
    for (int id = 0; id < NYX_KERNEL_COUNT; id++)
      for (int part = 0; part < 4; part++) {
        const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
        nyx_elementwise_fn fn = k ? k->elementwise->rows[NYX_IN_FLOAT32][id][part] : NULL;
        const nyx_op *op = op_of(id);
        trial t = {.row = op->row, .part = part, .n = MOST};
        size_t item = t.row->result_bool && part == 0 ? 1 : 4;
        if (!fn) continue;
        for (int a = 0; a < op->n_attrs; a++) t.attr[a] = op->attrs[a].preset.f;
        for (int v = 0; v < 5; v++)
          for (int64_t i = 0; i < t.n; i++)
            t.value[v][i] = i % 9 ? random_float((int)(i & 3)) : special[i % SPECIAL];
        unsigned char all[MOST * 4], one[4];
        run_float32(&t, fn, false, all);
        for (int64_t i = 0; i < t.n; i++) {
          trial single = {.row = t.row, .part = part, .n = 1};
          memcpy(single.attr, t.attr, sizeof t.attr);
          for (int v = 0; v < 5; v++) single.value[v][0] = t.value[v][i];
          run_float32(&single, fn, false, one);
          CHECK_AT(memcmp(one, all + (size_t)i * item, item) == 0, op->name,
                   ": part %d on %s of %.9g, %.9g", part, k->name, t.value[1][i],
                   t.value[2][i]);
        }
      }
}

/* What is written past the caches has the same bits, up to the last element. */
static void past(void) {
  for (int path = 0; path < 3; path++)
    for (int id = 0; id < NYX_KERNEL_COUNT; id++) {
      const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
      nyx_elementwise_fn plain = k ? k->elementwise->rows[NYX_IN_FLOAT32][id][0] : NULL;
      nyx_elementwise_fn fn = k ? k->elementwise->past[id] : NULL;
      const nyx_op *op = op_of(id);
      trial t = {.row = op->row};
      if (!k) continue;
      CHECK_AT((fn != NULL) == (plain && !t.row->result_bool), op->name, " on %s",
               k->name);
      if (!fn) continue;
      for (int a = 0; a < op->n_attrs; a++) t.attr[a] = op->attrs[a].preset.f;
      for (int v = 0; v < 5; v++)
        for (int64_t i = 0; i < MOST; i++)
          t.value[v][i] = i % 9 ? random_float((int)(i & 3)) : special[i % SPECIAL];
      for (t.n = 0; t.n <= MOST; t.n++) {
        _Alignas(64) unsigned char want[MOST * 4 + 4], out[MOST * 4 + 4];
        memset(want, 0xa5, sizeof want);
        memset(out, 0xa5, sizeof out);
        run_float32(&t, plain, false, want);
        run_float32(&t, fn, false, out);
        k->move->drain();
        CHECK_AT(memcmp(want, out, sizeof out) == 0, op->name, ": %d elements on %s",
                 (int)t.n, k->name);
      }
    }
}

/* The oracle's functions are those of libm. */
static void oracle(void) {
  for (int i = 0; i < 1000; i++) {
    double x = random_between(-30, 30), y = random_between(-3, 3), u = y / 3;
    CHECK(nyx_exp(x) == exp(x) && nyx_expm1(x) == expm1(x) && nyx_exp2(x) == exp2(x));
    CHECK(nyx_sin(x) == sin(x) && nyx_cos(x) == cos(x) && nyx_tan(x) == tan(x));
    CHECK(nyx_tanh(x) == tanh(x) && nyx_erf(y) == erf(y) && nyx_erfc(x) == erfc(x));
    CHECK(nyx_sinh(x) == sinh(x) && nyx_cosh(x) == cosh(x) && nyx_asinh(x) == asinh(x));
    CHECK(nyx_atan(x) == atan(x) && nyx_atan2(x, y) == atan2(x, y));
    CHECK(nyx_asin(u) == asin(u) && nyx_acos(u) == acos(u) && nyx_atanh(u) == atanh(u));
    CHECK(nyx_fmod(x, y) == fmod(x, y) && nyx_hypot(x, y) == hypot(x, y));
    x = fabs(x);
    CHECK(nyx_log(x) == log(x) && nyx_log1p(x) == log1p(x) && nyx_log2(x) == log2(x));
    CHECK(nyx_log10(x) == log10(x) && nyx_pow(x, y) == pow(x, y));
    CHECK(nyx_acosh(x + 1) == acosh(x + 1) && nyx_sqrt(x) == sqrt(x));
    CHECK_NEAR(nyx_sigmoid(y), 1 / (1 + exp(-y)), 1e-15);
  }
}

int main(void) {
  RUN(oracle);
  RUN(functions);
  RUN(rows);
  RUN(infinite);
  RUN(alone);
  RUN(past);
  return check_done();
}
