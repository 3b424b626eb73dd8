/* Special functions against values of 20 digits (mpmath 1.3), in float32 and float64 on
 * every path and as oracle of the other tests; nextafter against libm. Read next:
 * kernels/dialect/special.h. */
#define NYX_T_FLOAT64
#include "elementwise_rows.h"

DEFINE_RUN(run_float32, float)
DEFINE_RUN(run_float64, double)

/* Arguments are float32s. */
/* clang-format off */
static const struct {
  const char *name;
  double x, y, want;
} known[] = {
    {"lgamma", 1.0000000031710769e-30, 0.0, 69.077552786650293675},
    {"lgamma", 0.015625, 0.0, 4.1500633736539387873},
    {"lgamma", 0.25, 0.0, 1.2880225246980774574},
    {"lgamma", 0.5, 0.0, 0.57236494292470008707},
    {"lgamma", 0.984375, 0.0, 0.009221337197578781045},
    {"lgamma", 1.0009765625, 0.0, -0.0005629031799912046317},
    {"lgamma", 1.5, 0.0, -0.12078223763524522235},
    {"lgamma", 1.9990234375, 0.0, -0.00041256773597148940171},
    {"lgamma", 2.25, 0.0, 0.1248717148923965943},
    {"lgamma", 3.75, 0.0, 1.4868155785934170555},
    {"lgamma", 7.96875, 0.0, 8.4622376633991182594},
    {"lgamma", 8.0, 0.0, 8.5251613610654143002},
    {"lgamma", 10.5, 0.0, 13.940625219403763633},
    {"lgamma", 100.0, 0.0, 359.13420536957539878},
    {"lgamma", 12345.5, 0.0, 103958.24296512322913},
    {"lgamma", 1.0000000150474662e+30, 0.0, 6.807755382926351279e+31},
    {"lgamma", -9.999999682655225e-21, 0.0, 46.051701891615391645},
    {"lgamma", -0.0010000000474974513, 0.0, 6.9083332700450727147},
    {"lgamma", -0.25, 0.0, 1.5895753125511859903},
    {"lgamma", -0.5, 0.0, 1.2655121234846453965},
    {"lgamma", -1.5, 0.0, 0.86004701537648101451},
    {"lgamma", -2.25, 0.0, 0.55550154502064747059},
    {"lgamma", -2.4375, 0.0, 0.031455617127479449192},
    {"lgamma", -2.45703125, 0.0, -9.8690689990340986283e-6},
    {"lgamma", -2.75, 0.0, 0.0044878975359557733115},
    {"lgamma", -3.140625, 0.0, 0.02323102294650423353},
    {"lgamma", -5.03125, 0.0, -1.373553490078863106},
    {"lgamma", -10.0625, 0.0, -12.47256009081165579},
    {"lgamma", -100.5, 0.0, -364.90096830942735182},
    {"digamma", 1.0000000031710769e-30, 0.0, -9.9999999682892315908e+29},
    {"digamma", 0.015625, 0.0, -64.551802973167856671},
    {"digamma", 0.25, 0.0, -4.2274535333762654081},
    {"digamma", 0.5, 0.0, -1.9635100260214234794},
    {"digamma", 0.984375, 0.0, -0.60321542212322989987},
    {"digamma", 1.25, 0.0, -0.22745353337626540809},
    {"digamma", 1.4609375, 0.0, -0.00067240239024288040438},
    {"digamma", 1.4616321325302124, 0.0, -1.2036052549106669488e-8},
    {"digamma", 1.5, 0.0, 0.036489973978576520559},
    {"digamma", 2.25, 0.0, 0.57254646662373459191},
    {"digamma", 3.75, 0.0, 1.1825373886117962286},
    {"digamma", 7.96875, 0.0, 2.0114722799025746995},
    {"digamma", 8.0, 0.0, 2.0156414779556099965},
    {"digamma", 10.5, 0.0, 2.3030010342976863753},
    {"digamma", 100.0, 0.0, 4.6001618527380874002},
    {"digamma", 12345.5, 0.0, 9.4210064020526849513},
    {"digamma", 1.0000000150474662e+30, 0.0, 69.077552804868836627},
    {"digamma", -9.999999682655225e-21, 0.0, 1.0000000317344784682e+20},
    {"digamma", -0.0010000000474974513, 0.0, 999.42109070036406067},
    {"digamma", -0.25, 0.0, 2.9141391202135278304},
    {"digamma", -0.625, 0.0, -1.1539990491451395758},
    {"digamma", -1.25, 0.0, 3.7141391202135278304},
    {"digamma", -1.5, 0.0, 0.70315664064524318723},
    {"digamma", -2.75, 0.0, -1.9590552649779970098},
    {"digamma", -10.0625, 0.0, 18.151535694825249594},
    {"digamma", -100.25, 0.0, 7.7542389592086454484},
    {"zeta", 1.0625, 0.5, 18.050021021803593171},
    {"zeta", 1.0625, 100.0, 12.002063459984372455},
    {"zeta", 2.0, 0.0625, 257.50642004291541426},
    {"zeta", 2.0, 1.0, 1.6449340668482264365},
    {"zeta", 2.0, 3.25, 0.35979829030957987507},
    {"zeta", 2.0, 100.0, 0.010050166663333571395},
    {"zeta", 3.0, 0.5, 8.4143983221171599978},
    {"zeta", 3.0, 9.75, 0.0058267221439791668506},
    {"zeta", 5.5, 1.0, 1.0252045799546856946},
    {"zeta", 5.5, 0.75, 4.9167984229832729818},
    {"zeta", 5.5, 30.0, 5.3960294110093157309e-8},
    {"zeta", 20.0, 0.5, 1048576.0003007396682},
    {"zeta", 20.0, 2.0, 9.5396203387279611315e-7},
    {"zeta", 1.5, 100000.0, 0.0063245711317645879766},
    {"zeta", 2.0, -0.25, 18.541879647671606498},
    {"zeta", 2.0, -0.03125, 1025.7233651084038475},
    {"zeta", 3.0, -1.625, 15.152014187069643697},
    {"zeta", 2.0, -4.75, 19.54930139023946447},
    {"zeta", 4.0, -0.03125, 1048577.2225249104399},
    {"zeta", 3.0, -7.25, -62.004263018282866853},
    {"zeta", 7.0, -7.5, 6.1894427118656255911e-7},
    {"erfinv", 9.5367431640625e-07, 0.0, 8.4517185731217291722e-7},
    {"erfinv", 0.03125, 0.0, 0.027701675719584332137},
    {"erfinv", 0.25, 0.0, 0.22531205501217810473},
    {"erfinv", 0.5, 0.0, 0.47693627620446987338},
    {"erfinv", 0.75, 0.0, 0.81341984759761854169},
    {"erfinv", 0.9375, 0.0, 1.3171503349861307489},
    {"erfinv", 0.9921875, 0.0, 1.8809517454731394206},
    {"erfinv", 0.9960938096046448, 0.0, 2.0404554107722619996},
    {"erfinv", 0.9990234375, 0.0, 2.3314677736219476723},
    {"erfinv", 0.9999847412109375, 0.0, 3.0581795818509160902},
    {"erfinv", 0.9999999403953552, 0.0, 3.8325068569007109095},
    {"erfinv", -0.125, 0.0, -0.11123545184094995915},
    {"erfinv", -0.99951171875, 0.0, -2.4657549587227548735},
    {"i0", 0.0009765625, 0.0, 1.0000002384185933124},
    {"i0", 0.25, 0.0, 1.0156861412236079234},
    {"i0", 1.0, 0.0, 1.2660658777520083356},
    {"i0", 2.5, 0.0, 3.2898391440501230357},
    {"i0", 5.0, 0.0, 27.239871823604446895},
    {"i0", 7.96875, 0.0, 415.25063338509120735},
    {"i0", 8.0, 0.0, 427.56411572180478518},
    {"i0", 8.03125, 0.0, 440.24635575769714901},
    {"i0", 12.0, 0.0, 18948.925349296308861},
    {"i0", 20.0, 0.0, 43558282.559553533272},
    {"i0", 50.0, 0.0, 2.9325537838493363267e+20},
    {"i0", 90.0, 0.0, 5.1392383455086638353e+37},
    {"i0", -3.5, 0.0, 7.3782034322254796603},
    {"i0", -30.0, 0.0, 781672297823.97748972},
    {"i0e", 0.0009765625, 0.0, 0.99902415236785196697},
    {"i0e", 0.25, 0.0, 0.79101716213971936389},
    {"i0e", 1.0, 0.0, 0.4657596075936404365},
    {"i0e", 2.5, 0.0, 0.27004644161220273956},
    {"i0e", 5.0, 0.0, 0.18354081260932835307},
    {"i0e", 7.96875, 0.0, 0.14372295930277977929},
    {"i0e", 8.0, 0.0, 0.14343178185685031071},
    {"i0e", 8.03125, 0.0, 0.14314237275813139126},
    {"i0e", 12.0, 0.0, 0.11642622121344044298},
    {"i0e", 20.0, 0.0, 0.089780311884826021596},
    {"i0e", 50.0, 0.0, 0.05656162664745419253},
    {"i0e", 90.0, 0.0, 0.042110983880794121704},
    {"i0e", -3.5, 0.0, 0.22280243801077916331},
    {"i0e", -30.0, 0.0, 0.073145946482237293929},
    {"i0e", 10000.0, 0.0, 0.0039894726746047321064},
    {"i1", 0.0009765625, 0.0, 0.00048828130820766322643},
    {"i1", 0.25, 0.0, 0.12597910894546792591},
    {"i1", 1.0, 0.0, 0.56515910399248502721},
    {"i1", 2.5, 0.0, 2.5167162452886984415},
    {"i1", 5.0, 0.0, 24.335642142450527199},
    {"i1", 7.96875, 0.0, 388.24728695222759106},
    {"i1", 8.0, 0.0, 399.87313678256009822},
    {"i1", 8.03125, 0.0, 411.84952414806091863},
    {"i1", 12.0, 0.0, 18141.348781638831601},
    {"i1", 20.0, 0.0, 42454973.385127770181},
    {"i1", 50.0, 0.0, 2.9030785901035567968e+20},
    {"i1", 90.0, 0.0, 5.1106068152565981569e+37},
    {"i1", -3.5, 0.0, -6.2058349222583654736},
    {"i1", -30.0, 0.0, -768532038938.95699949},
    {"i1e", 0.0009765625, 0.0, 0.00048780470374751535568},
    {"i1e", 0.25, 0.0, 0.098112628697368246674},
    {"i1e", 1.0, 0.0, 0.20791041534970844887},
    {"i1e", 2.5, 0.0, 0.20658464953126655421},
    {"i1e", 5.0, 0.0, 0.16397226694454235693},
    {"i1e", 7.96875, 0.0, 0.13437679448474759304},
    {"i1e", 8.0, 0.0, 0.13414249329269817831},
    {"i1e", 8.03125, 0.0, 0.13390938354139925518},
    {"i1e", 12.0, 0.0, 0.11146429929018097642},
    {"i1e", 20.0, 0.0, 0.087506222183288665356},
    {"i1e", 50.0, 0.0, 0.055993123892895399644},
    {"i1e", 90.0, 0.0, 0.041876376760464529191},
    {"i1e", -3.5, 0.0, -0.18739997660304998737},
    {"i1e", -30.0, 0.0, -0.071916330598647554706},
    {"i1e", 10000.0, 0.0, 0.0039892731959836622645},
};
/* clang-format on */
enum { KNOWN = sizeof known / sizeof *known };

/* The most ulp that functions may be off, in float32 and float64: README.md. */
static const struct {
  const char *name;
  double ulp[2];
} bounds[] = {{"lgamma", {4, 3}}, {"digamma", {4.5, 4}}, {"zeta", {1.5, 2}},
              {"erfinv", {3, 3}}, {"i0", {4, 4}},        {"i0e", {4, 4}},
              {"i1", {4, 4}},     {"i1e", {4, 4}}};

/* That of known value i: zeta's grows with the power. */
static double bound(int i, bool single) {
  for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++)
    if (strcmp(bounds[b].name, known[i].name) == 0)
      return bounds[b].ulp[!single] + (known[i].y != 0 ? known[i].x : 0);
  return 0;
}

/* What an ulp is of: below 0 their terms, which may cancel out. */
static double size_of(int i) {
  double x = known[i].x, y = known[i].y, size = fabs(known[i].want);
  if (strcmp(known[i].name, "digamma") == 0 && x < 0) size = fmax(size, 1 + log1p(-x));
  if (strcmp(known[i].name, "lgamma") == 0 && x < 0) size = fmax(size, 1 + lgamma(-x));
  if (strcmp(known[i].name, "zeta") == 0 && y < 0)
    size = fmax(size, pow(fabs(y - rint(y)), -x));
  return size;
}

static void check_value(int i, double got, bool single, const char *where) {
  double size = size_of(i);
  double ulp = single ? (double)(nextafterf((float)size, INFINITY) - (float)size)
                      : nextafter(size, INFINITY) - size;
  if (single && fabs(known[i].want) > FLT_MAX) {
    CHECK_AT(isinf(got), known[i].name, " of %.9g on %s gave %.9g", known[i].x, where,
             got);
    return;
  }
  double off = fabs(got - known[i].want) / ulp;
  CHECK_AT(off <= bound(i, single), known[i].name,
           ": (%.9g, %.9g) in %s on %s gave %.17g, %.3g ulp from %.17g", known[i].x,
           known[i].y, single ? "float32" : "float64", where, got, off, known[i].want);
}

static const nyx_row *row_of(const char *name) {
  for (int id = 0; id < NYX_KERNEL_COUNT; id++)
    if (strcmp(op_of(id)->name, name) == 0) return op_of(id)->row;
  return NULL;
}

static void values(void) {
  for (int i = 0; i < KNOWN; i++) {
    trial t = {.row = row_of(known[i].name), .n = 1};
    REQUIRE(CHECK_AT(t.row != NULL, "row", "no row %s", known[i].name));
    t.value[1][0] = known[i].x;
    t.value[2][0] = known[i].y;
    check_value(i, expected(&t, 0), false, "the oracle");
    for (int path = 0; path < 3; path++) {
      const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
      float single[1];
      double twice[1];
      if (!k) continue;
      run_float32(&t, k->elementwise->rows[NYX_IN_FLOAT32][t.row->id][0], false, single);
      run_float64(&t, k->elementwise->rows[NYX_IN_FLOAT64][t.row->id][0], false, twice);
      check_value(i, (double)single[0], true, paths[path]);
      check_value(i, twice[0], false, paths[path]);
    }
  }
}

static bool same(double a, double b) {
  return isnan(a) ? isnan(b) : a == b && !signbit(a) == !signbit(b);
}

/* Exactly, from every value to every other. */
static void neighbours(void) {
  static const double points[] = {0,   -0.0,     1,         -1,      1.5,    FLT_MAX,
                                  NAN, INFINITY, -INFINITY, FLT_MIN, 1e-45f, -1e-45f,
                                  -2,  -FLT_MAX, 0x1p-20,   3};
  enum { POINTS = sizeof points / sizeof *points };
  trial t = {.row = row_of("nextafter"), .n = POINTS};
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    if (!k) continue;
    for (int turn = 0; turn < POINTS; turn++) {
      float single[MOST];
      double twice[MOST];
      for (int i = 0; i < POINTS; i++) {
        t.value[1][i] = points[i];
        t.value[2][i] = points[(i + turn) % POINTS];
      }
      run_float32(&t, k->elementwise->rows[NYX_IN_FLOAT32][t.row->id][0], false, single);
      run_float64(&t, k->elementwise->rows[NYX_IN_FLOAT64][t.row->id][0], false, twice);
      for (int i = 0; i < POINTS; i++) {
        double x = t.value[1][i], y = t.value[2][i];
        float next = nextafterf((float)x, (float)y);
        CHECK_AT(same((double)single[i], (double)next), "nextafter",
                 " on %s: (%.9g, %.9g) gave %.9g", k->name, x, y, (double)single[i]);
        CHECK_AT(same(twice[i], nextafter(x, y)), "nextafter",
                 " on %s: (%.17g, %.17g) gave %.17g", k->name, x, y, twice[i]);
      }
    }
  }
}

int main(void) {
  RUN(values);
  RUN(neighbours);
  return check_done();
}
