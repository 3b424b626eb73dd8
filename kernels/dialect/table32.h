/* Functions by tables, where a vector can look up 32 floats in one instruction: the range
 * is cut into 32 intervals, each with a polynomial of degree 5 in the distance from its
 * middle, and every lane picks the coefficients of its own. Fitted for the least relative
 * error (least squares, reweighted after Lawson), with coefficients rounded to float one
 * by one, the lowest first. A row has the coefficients of one power. Logarithms look up
 * where their polynomial begins. Included by math32.h.
 */

#define NYX_TANH_WIDTH 0x1.28p-2 /* of an interval: 32 reach to where tanh is 1 */
#define NYX_NDTR_WIDTH 0x1.bp-3  /* to 6.5 */

/* tanh(x), x >= 0. */
static const float nyx__tanh_table[6][32] __attribute__((aligned(64), unused)) = {
    {0x0.000000p+0f, 0x1.2005bp-2f,  0x1.0ae8p-1f,   0x1.665ed8p-1f, 0x1.a3beaap-1f,
     0x1.ca1e42p-1f, 0x1.e10f6ep-1f, 0x1.ee693ap-1f, 0x1.f60efcp-1f, 0x1.fa6644p-1f,
     0x1.fcd9dp-1f,  0x1.fe3b28p-1f, 0x1.ff01cap-1f, 0x1.ff7156p-1f, 0x1.ffaff4p-1f,
     0x1.ffd318p-1f, 0x1.ffe6cep-1f, 0x1.fff1dep-1f, 0x1.fff812p-1f, 0x1.fffb8ep-1f,
     0x1.fffd82p-1f, 0x1.fffe9ap-1f, 0x1.ffff38p-1f, 0x1.ffff9p-1f,  0x1.ffffcp-1f,
     0x1.ffffdcp-1f, 0x1.ffffecp-1f, 0x1.fffff4p-1f, 0x1.fffffap-1f, 0x1.fffffcp-1f,
     0x1.fffffep-1f, 0x1.fffffep-1f},
    {0x1p+0f,         0x1.d77e72p-1f,  0x1.74dc84p-1f,  0x1.05294cp-1f,  0x1.4fc654p-2f,
     0x1.985f72p-3f,  0x1.e01418p-4f,  0x1.1496dap-4f,  0x1.3b09fp-5f,   0x1.647958p-6f,
     0x1.91dafp-7f,   0x1.c40f86p-8f,  0x1.fbefbp-9f,   0x1.1d2b5p-9f,   0x1.401574p-10f,
     0x1.6732a2p-11f, 0x1.930b44p-12f, 0x1.c4366ap-13f, 0x1.fb5c4ap-14f, 0x1.1c9c6cp-14f,
     0x1.3f4f34p-15f, 0x1.663c54p-16f, 0x1.91e7e8p-17f, 0x1.c2e612p-18f, 0x1.f9dcfcp-19f,
     0x1.1bc388p-19f, 0x1.3e5ab2p-20f, 0x1.652944p-21f, 0x1.90b2dap-22f, 0x1.c18b0cp-23f,
     0x1.f8577cp-24f, 0x1.1ae8fap-24f},
    {0x1.584668p-21f,  -0x1.093828p-2f,  -0x1.84b9d2p-2f,  -0x1.6d990cp-2f,
     -0x1.13481cp-2f,  -0x1.6d674cp-3f,  -0x1.c3191cp-4f,  -0x1.0b0f96p-4f,
     -0x1.34ff34p-5f,  -0x1.60b8a4p-6f,  -0x1.8f98p-7f,    -0x1.c2562cp-8f,
     -0x1.fc5b3ep-9f,  -0x1.1c2a96p-9f,  -0x1.3ec2b8p-10f, -0x1.68d624p-11f,
     -0x1.8af5bap-12f, -0x1.c1af78p-13f, -0x1.e3d0b8p-14f, -0x1.328a2ap-14f,
     -0x1.7a78acp-15f, -0x1.9338e6p-16f, -0x1.7d8b8ap-16f, -0x1.f404ep-17f,
     0x1.482a5ep-18f,  0x1.03441p-18f,   -0x1.ab284cp-26f, 0x1.275fdep-17f,
     -0x1.bd6b66p-19f, 0x1.639c4ep-18f,  0x1.d90d94p-23f,  0x1.50c3a6p-17f},
    {-0x1.555fbap-2f, -0x1.df970ap-3f, -0x1.6f3e52p-5f, 0x1.47261p-4f,   0x1.c6fa0ep-4f,
     0x1.7da3c6p-4f,  0x1.07c8a2p-4f,  0x1.4b703p-5f,   0x1.8bd1bcp-6f,  0x1.cbc886p-7f,
     0x1.06f89p-7f,   0x1.2a41a2p-8f,  0x1.50a64ep-9f,  0x1.7afd5ep-10f, 0x1.a9febp-11f,
     0x1.de6ebp-12f,  0x1.0c8acep-12f, 0x1.2d607cp-13f, 0x1.522ebap-14f, 0x1.7b7032p-15f,
     0x1.a9b71ep-16f, 0x1.dda0bep-17f, 0x1.0bece6p-17f, 0x1.2c9722p-18f, 0x1.513e7cp-19f,
     0x1.7a59d6p-20f, 0x1.a877dep-21f, 0x1.dc3912p-22f, 0x1.0b20f2p-22f, 0x1.2bb228p-23f,
     0x1.5039dap-24f, 0x1.79382cp-25f},
    {0x1.7d4eap-11f,   0x1.333956p-3f,   0x1.2fa72ep-3f,   0x1.03e73cp-4f,
     -0x1.621cf4p-11f, -0x1.820e08p-6f,  -0x1.7f6f62p-6f,  -0x1.211cd8p-6f,
     -0x1.5e9f9ep-7f,  -0x1.9c79aep-8f,  -0x1.da33f2p-9f,  -0x1.364514p-9f,
     -0x1.92f4eep-11f, -0x1.fdde2ep-11f, -0x1.402562p-11f, -0x1.2101b2p-14f,
     -0x1.01591ap-11f, -0x1.0cb71p-13f,  -0x1.417f66p-12f, 0x1.d94302p-13f,
     0x1.51d2dap-12f,  0x1.f81aa6p-14f,  0x1.09db6ap-11f,  0x1.950a42p-12f,
     -0x1.b06c58p-12f, -0x1.2a57dcp-12f, -0x1.d1c80ep-15f, -0x1.d79e1p-12f,
     0x1.2506bap-13f,  -0x1.125092p-12f, -0x1.0dac06p-16f, -0x1.f6fa52p-12f},
    {0x1.07f03ap-3f,  0x1.dc9dbap-5f,  -0x1.81e1ep-5f,  -0x1.e47ecp-5f,  -0x1.d28028p-6f,
     -0x1.5f6d24p-8f, 0x1.c69634p-9f,  0x1.34457ep-8f,  0x1.e6d6acp-9f,  0x1.40bf26p-9f,
     0x1.87c4p-10f,   0x1.c9f678p-11f, 0x1.08c6c4p-11f, 0x1.2b1318p-12f, 0x1.531954p-13f,
     0x1.7ef1cp-14f,  0x1.acececp-15f, 0x1.e2cc16p-16f, 0x1.0e59dcp-16f, 0x1.30e73cp-17f,
     0x1.566406p-18f, 0x1.7f9e7ep-19f, 0x1.b0105ep-20f, 0x1.e3fc7ep-21f, 0x1.0d994cp-21f,
     0x1.2f14a8p-22f, 0x1.54bc34p-23f, 0x1.7c44e2p-24f, 0x1.ad7a24p-25f, 0x1.e01aaap-26f,
     0x1.0dd14p-26f,  0x1.2d48a2p-27f},
};

/* The normal distribution at -x, x >= 0. */
static const float nyx__ndtr_table[6][32] __attribute__((aligned(64), unused)) = {
    {0x1p-1f,         0x1.aa7698p-2f,  0x1.58a2b2p-2f,  0x1.0dc014p-2f,  0x1.98616cp-3f,
     0x1.2a90ep-3f,   0x1.a52a72p-4f,  0x1.1e4bc4p-4f,  0x1.76d04ep-5f,  0x1.d82ca4p-6f,
     0x1.1e003ep-6f,  0x1.4cfcf2p-7f,  0x1.746e3ep-8f,  0x1.8ff9dap-9f,  0x1.9c51b4p-10f,
     0x1.97da3ep-11f, 0x1.8301bep-12f, 0x1.602f42p-13f, 0x1.334c94p-14f, 0x1.010aecp-15f,
     0x1.9c2664p-17f, 0x1.3ca7p-18f,   0x1.d236fcp-20f, 0x1.48d04ep-21f, 0x1.bc4eeap-23f,
     0x1.1f87e4p-24f, 0x1.646cfcp-26f, 0x1.a720a4p-28f, 0x1.e1036cp-30f, 0x1.05cc3ap-31f,
     0x1.10da76p-33f, 0x1.1043c6p-35f},
    {-0x1.988454p-2f,  -0x1.8f8762p-2f,  -0x1.75bbep-2f,   -0x1.4e63cap-2f,
     -0x1.1e2acep-2f,  -0x1.d47b62p-3f,  -0x1.6ec914p-3f,  -0x1.12aaeep-3f,
     -0x1.8977c8p-4f,  -0x1.0d8fa6p-4f,  -0x1.614616p-5f,  -0x1.bad5bap-6f,
     -0x1.0978cap-6f,  -0x1.30709p-7f,   -0x1.4def0cp-8f,  -0x1.5e5844p-9f,
     -0x1.5f90f4p-10f, -0x1.51704ep-11f, -0x1.35c8b4p-12f, -0x1.1004d2p-13f,
     -0x1.c8eceep-15f, -0x1.6f0f86p-16f, -0x1.1a098cp-17f, -0x1.9e8de6p-19f,
     -0x1.2368ap-20f,  -0x1.87dbeap-22f, -0x1.f800bap-24f, -0x1.3603ccp-25f,
     -0x1.6cc92cp-27f, -0x1.9a8da8p-29f, -0x1.b9f448p-31f, -0x1.c70d4ep-33f},
    {0x1.1398acp-20f, 0x1.5114e2p-5f,  0x1.3b5354p-4f,  0x1.a7409ap-4f,  0x1.e2e2dp-4f,
     0x1.ee16cp-4f,   0x1.d03912p-4f,  0x1.9590dcp-4f,  0x1.4bfda6p-4f,  0x1.ffbec4p-5f,
     0x1.7498acp-5f,  0x1.00e0d8p-5f,  0x1.4ffcacp-6f,  0x1.a16aa4p-7f,  0x1.ed132ep-8f,
     0x1.15206ep-8f,  0x1.28a20ap-9f,  0x1.2e818p-10f,  0x1.260c18p-11f, 0x1.108b8cp-12f,
     0x1.e1e67ap-14f, 0x1.967a06p-15f, 0x1.473136p-16f, 0x1.f6c79cp-18f, 0x1.70c976p-19f,
     0x1.02484cp-20f, 0x1.597b12p-22f, 0x1.b959e2p-24f, 0x1.0d462ap-25f, 0x1.39dfa6p-27f,
     0x1.5d856ap-29f, 0x1.73dd44p-31f},
    {0x1.1039ep-4f,    0x1.fd01dep-5f,   0x1.99a2cp-5f,    0x1.0b33fcp-5f,
     0x1.b7e99ap-7f,   -0x1.1880dcp-8f,  -0x1.2660dp-6f,   -0x1.b046f6p-6f,
     -0x1.e4af9ep-6f,  -0x1.d3f68ep-6f,  -0x1.96382ep-6f,  -0x1.438cdep-6f,
     -0x1.de7b08p-7f,  -0x1.4ace62p-7f,  -0x1.adb81ap-8f,  -0x1.07166p-8f,
     -0x1.306ca4p-9f,  -0x1.4d7bdep-10f, -0x1.5a55dp-11f,  -0x1.5576f8p-12f,
     -0x1.3fd48p-13f,  -0x1.1cd832p-14f, -0x1.e2b7c2p-16f, -0x1.855e38p-17f,
     -0x1.2b1c96p-18f, -0x1.b5d64ep-20f, -0x1.316d4cp-21f, -0x1.963c1ep-23f,
     -0x1.01a0d2p-24f, -0x1.37adaap-26f, -0x1.67bb8cp-28f, -0x1.8c2e2ap-30f},
    {0x1.502624p-12f, -0x1.440b78p-7f, -0x1.23aadap-6f, -0x1.7c7ef8p-6f,  -0x1.6842c8p-6f,
     -0x1.31dee8p-6f, -0x1.b7b83cp-7f, -0x1.be512p-8f,  -0x1.1e404cp-10f, 0x1.99d4c2p-9f,
     0x1.650f82p-8f,  0x1.97ff02p-8f,  0x1.7d8a98p-8f,  0x1.3a1d2ap-8f,   0x1.d61ca4p-9f,
     0x1.445cbcp-9f,  0x1.9f901ep-10f, 0x1.f27874p-11f, 0x1.18ec9p-11f,   0x1.2a0a72p-12f,
     0x1.2ad054p-13f, 0x1.1b6688p-14f, 0x1.fd50fep-16f, 0x1.b212c6p-17f,  0x1.5f3bd8p-18f,
     0x1.0dffdap-19f, 0x1.8aad06p-21f, 0x1.126aaap-22f, 0x1.6b2858p-24f,  0x1.c99c78p-26f,
     0x1.129ccp-27f,  0x1.3a05e6p-29f},
    {-0x1.6e80fp-7f,   -0x1.264e7ep-7f,  -0x1.931bdap-8f,  -0x1.e05f04p-11f,
     0x1.2c1152p-10f,  0x1.1727ecp-8f,   0x1.a36164p-8f,   0x1.92b40ap-8f,
     0x1.4101cp-8f,    0x1.91322ep-9f,   0x1.86d1e4p-10f,  0x1.b71e22p-15f,
     -0x1.96a7eap-11f, -0x1.225982p-10f, -0x1.27878p-10f,  -0x1.f8e0eep-11f,
     -0x1.76f112p-11f, -0x1.fdd8c4p-12f, -0x1.434536p-12f, -0x1.726048p-13f,
     -0x1.92b412p-14f, -0x1.9996dap-15f, -0x1.88c7acp-16f, -0x1.633bf2p-17f,
     -0x1.2fc966p-18f, -0x1.ebd35ep-20f, -0x1.78a35cp-21f, -0x1.11ee88p-22f,
     -0x1.7a071cp-24f, -0x1.efc56ep-26f, -0x1.350048p-27f, -0x1.6e48f6p-29f},
};

NYX_FN T nyx__piecewise(const float table[6][32], float width, T x) {
  T shifted = nyx_fma(x, K(1 / width), K(NYX_TO_INT)), value;
  T rest = nyx_fma(shifted - K(NYX_TO_INT), K(-width), x);
  for (int power = 5; power >= 0; power--) {
    T c = (T)_mm512_permutex2var_ps(nyx__load(table[power]), (__m512i)shifted,
                                    nyx__load(table[power] + 16));
    value = power == 5 ? c : nyx_fma(value, rest, c);
  }
  return value;
}

/* The logarithm: x = 2^e m, 3/4 <= m < 3/2, and log(m) = log(1 + f) - log(r) where r, of
 * the interval of 1/32 that m is in, is about 1/m. Each r is a float whose logarithm is
 * within 2^-30 of a multiple of 2^-16: these, with e times the upper part of ln 2, add up
 * without an error. From 59/64 to 69/64 r is 1, so that f is small beside what else there
 * is where it is not all there is. The first 17 rows begin at 1, the last 8 at 3/4. */
static const float nyx__log_inverse[32] __attribute__((aligned(64), unused)) = {
    0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1.d4b2f8p-1f, 0x1.c693bp-1f,
    0x1.ba620ap-1f, 0x1.aefef6p-1f, 0x1.a48136p-1f, 0x1.99bcb4p-1f, 0x1.8f119p-1f,
    0x1.85ae74p-1f, 0x1.7d29p-1f,   0x1.73fbf4p-1f, 0x1.6bf76cp-1f, 0x1.6496d8p-1f,
    0x1.5c9af8p-1f, 0x1.5544cp-1f,  0x1p+0f,        0x1p+0f,        0x1p+0f,
    0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1.55774cp+0f,
    0x1.47d6c4p+0f, 0x1.3ac174p+0f, 0x1.2f725ep+0f, 0x1.246d98p+0f, 0x1.1a3e84p+0f,
    0x1p+0f,        0x1p+0f};
/* -log(r) */
static const float nyx__log_table[32] __attribute__((aligned(64), unused)) = {
    0x0p+0f,      0x0p+0f,       0x0p+0f,       0x1.69fp-4f,   0x1.e74p-4f,
    0x1.2b5p-3f,  0x1.60b8p-3f,  0x1.933p-3f,   0x1.c85p-3f,   0x1.fe58p-3f,
    0x1.178cp-2f, 0x1.2e3p-2f,   0x1.4724p-2f,  0x1.5d74p-2f,  0x1.726cp-2f,
    0x1.899cp-2f, 0x1.9f64p-2f,  0x0p+0f,       0x0p+0f,       0x0p+0f,
    0x0p+0f,      0x0p+0f,       0x0p+0f,       0x0p+0f,       -0x1.26fcp-2f,
    -0x1.fa9p-3f, -0x1.a728p-3f, -0x1.5c38p-3f, -0x1.1078p-3f, -0x1.8fcp-4f,
    0x0p+0f,      0x0p+0f};
/* The same of the other logarithms, of multiples of 2^-16 and 2^-17. */
static const float nyx__log2_inverse[32] __attribute__((aligned(64), unused)) = {
    0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1.d40c64p-1f, 0x1.c7106p-1f,
    0x1.ba6f6p-1f,  0x1.af2776p-1f, 0x1.a42c98p-1f, 0x1.9992dp-1f,  0x1.8fb8cep-1f,
    0x1.86390ap-1f, 0x1.7cf31p-1f,  0x1.744b42p-1f, 0x1.6c4336p-1f, 0x1.63df8ep-1f,
    0x1.5c9904p-1f, 0x1.558facp-1f, 0x1p+0f,        0x1p+0f,        0x1p+0f,
    0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1.558facp+0f,
    0x1.47c4fp+0f,  0x1.3af426p+0f, 0x1.2f7196p+0f, 0x1.2478p+0f,   0x1.1a83bap+0f,
    0x1p+0f,        0x1p+0f};
static const float nyx__log2_table[32] __attribute__((aligned(64), unused)) = {
    0x0p+0f,       0x0p+0f,       0x0p+0f,       0x1.093p-3f,  0x1.5c5p-3f,
    0x1.af78p-3f,  0x1.fbc8p-3f,  0x1.24p-2f,    0x1.49cp-2f,  0x1.6db8p-2f,
    0x1.914p-2f,   0x1.b4c8p-2f,  0x1.d6bcp-2f,  0x1.f6f4p-2f, 0x1.0cbp-1f,
    0x1.1bf2p-1f,  0x1.2b02p-1f,  0x0p+0f,       0x0p+0f,      0x0p+0f,
    0x0p+0f,       0x0p+0f,       0x0p+0f,       0x0p+0f,      -0x1.a9fcp-2f,
    -0x1.6d18p-2f, -0x1.322cp-2f, -0x1.f658p-3f, -0x1.898p-3f, -0x1.233p-3f,
    0x0p+0f,       0x0p+0f};
static const float nyx__log10_inverse[32] __attribute__((aligned(64), unused)) = {
    0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1.d41b4cp-1f, 0x1.c70b62p-1f,
    0x1.bacc38p-1f, 0x1.af2d08p-1f, 0x1.a41e0ap-1f, 0x1.999da2p-1f, 0x1.8fa84cp-1f,
    0x1.86259p-1f,  0x1.7cf4cp-1f,  0x1.745fcap-1f, 0x1.6c19cap-1f, 0x1.642c7cp-1f,
    0x1.5c98dp-1f,  0x1.552ffp-1f,  0x1p+0f,        0x1p+0f,        0x1p+0f,
    0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1p+0f,        0x1.5559fcp+0f,
    0x1.47933ap+0f, 0x1.3b0e8cp+0f, 0x1.2f6d56p+0f, 0x1.247d14p+0f, 0x1.1a8a16p+0f,
    0x1p+0f,        0x1p+0f};
static const float nyx__log10_table[32] __attribute__((aligned(64), unused)) = {
    0x0p+0f,       0x0p+0f,      0x0p+0f,      0x1.3eep-5f,   0x1.a39p-5f,  0x1.025p-4f,
    0x1.31ap-4f,   0x1.5fd8p-4f, 0x1.8cep-4f,  0x1.b8a8p-4f,  0x1.e38p-4f,  0x1.06f4p-3f,
    0x1.1b38p-3f,  0x1.2f34p-3f, 0x1.42c8p-3f, 0x1.55e8p-3f,  0x1.6904p-3f, 0x0p+0f,
    0x0p+0f,       0x0p+0f,      0x0p+0f,      0x0p+0f,       0x0p+0f,      0x0p+0f,
    -0x1.ffd8p-4f, -0x1.b69p-4f, -0x1.714p-4f, -0x1.2e58p-4f, -0x1.da1p-5f, -0x1.5efp-5f,
    0x0p+0f,       0x0p+0f};
/* f of x > 0 that is finite and normal, -log(r), and e in units of 2^-23. */
NYX_FN T nyx__log_begin(T x, const float *inverse, const float *table, T *high, T *e) {
  T m = (T)_mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  __m512i at = (__m512i)(m + K(0x1.8p18));
  T r = (T)_mm512_permutex2var_ps(nyx__load(inverse), at, nyx__load(inverse + 16));
  *high = (T)_mm512_permutex2var_ps(nyx__load(table), at, nyx__load(table + 16));
  *e = __builtin_convertvector((I)x - (I)m, T);
  return (T)_mm512_fmsub_ps(m, r, K(1));
}
NYX_FN T nyx__log_near(T x) {
  T high, e, f = nyx__log_begin(x, nyx__log_inverse, nyx__log_table, &high, &e);
  T p = nyx__poly5(f, -0x1.58113ep-3f, 0x1.9c1446p-3f, -0x1.fffe3p-3f, 0x1.5554bep-2f,
                   -0x1p-1f);
  T low = nyx_fma(f * f, p, e * K(NYX_LN2_LOW * 0x1p-23));
  return nyx_fma(e, K(NYX_LN2_HIGH * 0x1p-23), high) + (f + low);
}
/* Of the others f is taken times the logarithm's own of e, in two parts, as below. */
NYX_FN T nyx__log2_near(T x) {
  T high, e, f = nyx__log_begin(x, nyx__log2_inverse, nyx__log2_table, &high, &e);
  T p = nyx__poly5(f, -0x1.f0626p-3f, 0x1.294098p-2f, -0x1.715328p-2f, 0x1.ec6fc4p-2f,
                   -0x1.715476p-1f);
  T low = nyx_fma(f, K(0x1.547652p-8), f * f * p);
  return nyx_fma(e, K(0x1p-23), high) + nyx_fma(f, K(0x1.7p+0), low);
}
NYX_FN T nyx__log10_near(T x) {
  T high, e, f = nyx__log_begin(x, nyx__log10_inverse, nyx__log10_table, &high, &e);
  T p = nyx__poly5(f, -0x1.2ada66p-4f, 0x1.65ed6cp-4f, -0x1.bcb61ep-4f, 0x1.2879f2p-3f,
                   -0x1.bcb7b2p-3f);
  T low = nyx_fma(f, K(-0x1.a42756p-9), f * f * p);
  low = nyx_fma(e, K(0x1.04d428p-12 * 0x1p-23), low);
  return nyx_fma(e, K(0x1.34p-2 * 0x1p-23), high) + nyx_fma(f, K(0x1.cp-2), low);
}
