/* Special functions: gamma and zeta functions, the inverse of erf, Bessel functions. One
 * text for the vectors of the CPU and for GPUs, over the dialect's other functions, in
 * float32 and float64; errors in README.md. Polynomials are Chebyshev interpolants (of 60
 * digits) with rounded coefficients. After math.h, or gpu.h; self-contained, as that is:
 * it is embedded as a string behind gpu.h. */
#if defined(NYX_LANES)
/* Out of line, as these are long and texts name several. */
#define NYX_LONG static __attribute__((noinline, unused, const))
#define NYX_ANY(m) __builtin_expect(nyx__any(m), 0)
#else
#define NYX_LONG NYX_FN
#define NYX_ANY(m) (m)
#endif

/* Steps of Horner's rule for p at x. */
#define NYX_STEPS1(p, x, a) p = nyx_fma(p, x, K(a))
#define NYX_STEPS2(p, x, a, b) p = nyx_fma(nyx_fma(p, x, K(a)), x, K(b))
#define NYX_STEPS3(p, x, a, b, c)                                                        \
  p = nyx_fma(nyx_fma(nyx_fma(p, x, K(a)), x, K(b)), x, K(c))
#define NYX_STEPS4(p, x, a, b, c, d)                                                     \
  p = nyx_fma(nyx_fma(nyx_fma(nyx_fma(p, x, K(a)), x, K(b)), x, K(c)), x, K(d))

#define NYX_PI 3.14159265358979323846

/* lgamma; GPUs have their own. float64 is libm's, lane by lane (lgamma itself would write
 * a variable of the process). */
#if defined(NYX_LANES)
#if NYX_T_BITS == 32
/* lgamma(t) / ((t - 1) (t - 2)) for w = (t - 2) / (t + 2), 1/2 <= t < 8. */
NYX_FN T nyx__lgamma_mid(T w) {
  T p = K(-0.139033422);
  NYX_STEPS4(p, w, 0.138351843, 0.0446412079, -0.0446278378, -0.0698528215);
  NYX_STEPS4(p, w, 0.0692247301, -0.0458258539, 0.0449455753, -0.0645860434);
  NYX_STEPS4(p, w, 0.0628000945, -0.0871342868, 0.0829160437, -0.13897787);
  NYX_STEPS3(p, w, 0.126171187, -0.401269197, 0.422784328);
  return p;
}
/* From t = 8 on, Stirling's series. */
NYX_FN T nyx__lgamma_far(T t) {
  T u = K(1) / t,
    rest = nyx_fma(u * u, K(-0.0027777777777777779), K(0.083333333333333329));
  return nyx_fma(t - K(0.5), nyx_log(t) - K(1), nyx_fma(u, rest, K(0.41893853320467274)));
}
/* Of lanes where the two terms of the reflection cancel out. */
static __attribute__((noinline, const)) T nyx__lgamma_exact(T x, M which, T other) {
  int sign;
  for (int i = 0; i < NYX_LANES; i++)
    if (which[i]) other[i] = lgammaf_r(x[i], &sign);
  return other;
}
/* Below 0 by reflection: log(pi / |x sin(pi x)|) - lgamma(-x). */
NYX_LONG T nyx_lgamma(T x) {
  T a = nyx_abs(x);
  M low = nyx_lt(a, K(0.5)), far = nyx_ge(a, K(8)), negative = nyx_lt(x, K(0));
  T t = nyx_select(far, K(4), a);
  T one = nyx_select(low, a, t - K(1)), two = nyx_select(low, a - K(1), t - K(2));
  T value = nyx__lgamma_mid(two / (two + K(4))) * (one * two) + K(0); /* not -0 */
  if (NYX_ANY(low)) value = nyx_select(low, value - nyx_log(a), value);
  if (NYX_ANY(far))
    value = nyx_select(far, nyx__lgamma_far(nyx_select(far, a, K(8))), value);
  if (NYX_ANY(negative)) {
    T size = nyx_max(a, K(0x1p-30)), r = nyx_abs(size - nyx_round(size));
    T turned = nyx_log(K(NYX_PI) / (size * nyx_sin(r * K(NYX_PI)))) - value;
    M pole = nyx_or(nyx_eq(r, K(0)), nyx_ge(a, K(0x1p23))), tiny = nyx_lt(a, K(0x1p-30));
    turned = nyx_select(pole, K(INFINITY), nyx_select(tiny, value, turned));
    M lost = nyx_lt(nyx_abs(turned), K(0.015625) * (K(1) + value));
    value = nyx_select(negative, turned, value);
    lost = nyx_and(lost, negative);
    if (NYX_ANY(lost)) value = nyx__lgamma_exact(x, lost, value);
  }
  return value;
}
#else
static __attribute__((noinline, unused, const)) T nyx_lgamma(T x) {
  int sign;
  for (int i = 0; i < NYX_LANES; i++) x[i] = lgamma_r(x[i], &sign);
  return x;
}
#endif

/* n of x = m 2^n, 1/2 <= |m| < 1; 0 where there is none. */
NYX_FN T nyx_exponent(T x) {
  const SI up = NYX_DIGITS + 2; /* what makes subnormal numbers normal */
  M small = nyx_lt(nyx_abs(x), (T)KI((SI)1 << NYX_DIGITS));
  I bits = (I)nyx_select(small, x * (T)KI((up + NYX_BIAS) << NYX_DIGITS), x);
  I n = (bits >> NYX_DIGITS & KI(2 * NYX_BIAS + 1)) - KI(NYX_BIAS - 1) - (small & KI(up));
  M usual = nyx_and(nyx_isfinite(x), nyx_ne(x, K(0)));
  return __builtin_convertvector(n & usual, T);
}

/* The neighbour of x towards y, y itself where they are equal. */
NYX_FN T nyx_nextafter(T x, T y) {
  /* In the order of bits larger sizes come later, so 1 is added or taken away: a mask is
   * -1. */
  M nearer = nyx_xor(nyx_lt(x, y), nyx_gt(x, K(0)));
  T next = (T)((I)x + KI(1) + nearer + nearer);
  T least = nyx__with_sign((T)KI(1), y);
  next = nyx_select(nyx_eq(x, K(0)), least, next);
  next = nyx_select(nyx_eq(x, y), y, next);
  return nyx_select(nyx_or(nyx_isnan(x), nyx_isnan(y)), x + y, next);
}
#endif

/* digamma(t) / (t - its zero) for w = (t - 2) / (t + 2), 1 <= t < 8. */
NYX_FN T nyx__digamma_mid(T w) {
#if NYX_T_BITS == 32
  T p = K(0.225012675);
  NYX_STEPS4(p, w, -0.652421415, 0.827073634, -0.746869683, 0.670540929);
  NYX_STEPS4(p, w, -0.680212438, 0.678587377, -0.695567608, 0.677785397);
  NYX_STEPS4(p, w, -0.726213157, 0.701042175, -1.04295588, 0.785307527);
#else
  T p = K(-0.19907118423874856);
  NYX_STEPS4(p, w, 0.71477295812969388, -1.1026569092326266, 0.96405065308215232,
             -0.63842212517290586);
  NYX_STEPS4(p, w, 0.55912521148380068, -0.65733746699890194, 0.70788997085424243,
             -0.69582589822080787);
  NYX_STEPS4(p, w, 0.68126782896613858, -0.68281068889704666, 0.6834663444866107,
             -0.68522018671244711);
  NYX_STEPS4(p, w, 0.68324916280600401, -0.68520865290841482, 0.68295377281113756,
             -0.68556677132846422);
  NYX_STEPS4(p, w, 0.68253358279237197, -0.68610402984498386, 0.68185048308922624,
             -0.68704233095566247);
  NYX_STEPS4(p, w, 0.68067995218634314, -0.68901779076445024, 0.67874747742672326,
             -0.6950676766158963);
  NYX_STEPS4(p, w, 0.67775313489752353, -0.72622458089903086, 0.70104285355004881,
             -1.0429558187320056);
  NYX_STEPS1(p, w, 0.78530753860410529);
#endif
  return p;
}
/* From t = 8 on; z = 1 / t^2. */
NYX_FN T nyx__digamma_far(T t) {
  T z = K(1) / (t * t);
#if NYX_T_BITS == 32
  T p = K(0.003968253968253968);
#else
  T p = K(-26.456212121212122);
  NYX_STEPS4(p, z, 3.0539543302701198, -0.44325980392156861, 0.083333333333333329,
             -0.021092796092796094);
  NYX_STEPS3(p, z, 0.007575757575757576, -0.0041666666666666666, 0.003968253968253968);
#endif
  NYX_STEPS2(p, z, -0.0083333333333333332, 0.083333333333333329);
  return nyx_log(t) - nyx_fma(p, z, K(0.5) / t);
}
/* For t > 0: below 1 by the step digamma(t) = digamma(t + 1) - 1 / t. The zero is the sum
 * of two constants. */
NYX_FN T nyx__digamma_positive(T t) {
  M low = nyx_lt(t, K(1)), far = nyx_ge(t, K(8));
  T u = nyx_select(low, t + K(1), nyx_select(far, K(4), t));
#if NYX_T_BITS == 32
  T from = (u - K(1.46163213)) - K(1.24381499e-08);
#else
  T from = (u - K(1.4616321449683622)) - K(9.5499954299656974e-17);
#endif
  T value = nyx__digamma_mid((u - K(2)) / (u + K(2))) * from;
  value = nyx_select(low, value - K(1) / t, value);
  if (NYX_ANY(far))
    value = nyx_select(far, nyx__digamma_far(nyx_select(far, t, K(8))), value);
  return value;
}
/* Below 0 by reflection: digamma(1 - x) - pi / tan(pi x). */
NYX_LONG T nyx_digamma(T x) {
  M negative = nyx_lt(x, K(0));
  T value = nyx__digamma_positive(nyx_select(negative, K(1) - x, x));
  if (NYX_ANY(negative)) {
    T r = x - nyx_round(x), turn = K(NYX_PI) / nyx_tan(r * K(NYX_PI));
    turn = nyx_select(nyx_eq(r, K(0)), K(NAN), turn);
    value = nyx_select(negative, value - turn, value);
  }
  value = nyx_select(nyx_eq(x, K(0)), K(-1) / x, value);
  return nyx_select(nyx_isnan(x), x, value);
}

/* zeta(s, q), the sum of (q + k)^-s from k = 0, for q > 0: some terms, and the others by
 * Euler and Maclaurin's formula. */
#if NYX_T_BITS == 32
#define NYX_ZETA_TERMS 5
#define NYX_ZETA_LEAST 1.1754943508222875e-38
#else
#define NYX_ZETA_TERMS 10
#define NYX_ZETA_LEAST 2.2250738585072014e-308
#endif
NYX_LONG T nyx__zeta_power(T x, T s) {
  return nyx_pow(x, s);
}
NYX_LONG T nyx__zeta_positive(T s, T q) {
  T sum = nyx__zeta_power(K(1) / q, s), a = q, inverse = K(1), power = K(1);
  for (int k = 1; k < NYX_ZETA_TERMS; k++) {
    a = q + K(k);
    inverse = K(1) / a;
    power = nyx__zeta_power(inverse, s);
    sum = sum + power;
  }
  T step = s * inverse, rest = step * K(0.083333333333333329);
  step = step * ((s + K(1)) * inverse) * ((s + K(2)) * inverse);
  rest = nyx_fma(step, K(-0.0013888888888888889), rest);
  step = step * ((s + K(3)) * inverse) * ((s + K(4)) * inverse);
  rest = nyx_fma(step, K(3.3068783068783071e-05), rest);
  step = step * ((s + K(5)) * inverse) * ((s + K(6)) * inverse);
  rest = nyx_fma(step, K(-8.2671957671957675e-07), rest);
#if NYX_T_BITS == 64
  step = step * ((s + K(7)) * inverse) * ((s + K(8)) * inverse);
  rest = nyx_fma(step, K(2.08767569878681e-08), rest);
  step = step * ((s + K(9)) * inverse) * ((s + K(10)) * inverse);
  rest = nyx_fma(step, K(-5.2841901386874932e-10), rest);
  step = step * ((s + K(11)) * inverse) * ((s + K(12)) * inverse);
  rest = nyx_fma(step, K(1.3382536530684679e-11), rest);
  step = step * ((s + K(13)) * inverse) * ((s + K(14)) * inverse);
  rest = nyx_fma(step, K(-3.3896802963225827e-13), rest);
#endif
  /* The last term was counted whole, of which the formula has half. */
  T others = power * (a / (s - K(1)) - K(0.5) + rest);
  /* From far away it is the integral, which is not 0 yet where a power is, or has few
   * digits. */
  M none = nyx_lt(power, K(NYX_ZETA_LEAST));
  others = nyx_select(none, K(0), others);
  if (NYX_ANY(none)) {
    T left = nyx_select(nyx_eq(power, K(0)), K(0), power * (rest - K(0.5)));
    T all = nyx__zeta_power(inverse, s - K(1)) / (s - K(1));
    others = nyx_select(none, all + left, others);
  }
  return sum + others;
}
/* Below 0, where only a whole s has values: from the first q + k above 0 on, and what is
 * before that, which is the same seen from the other side. */
NYX_LONG T nyx_zeta(T s, T q) {
  M negative = nyx_lt(q, K(0)), whole = nyx_eq(nyx_floor(q), q);
  T from = nyx_select(nyx_and(negative, nyx_not(whole)), q - nyx_floor(q), nyx_abs(q));
  T value = nyx__zeta_positive(s, from);
  M pole = nyx_and(nyx_le(q, K(0)), whole);
  if (NYX_ANY(nyx_le(q, K(0)))) {
    T up = nyx_select(nyx_and(negative, nyx_not(whole)), nyx_ceil(q) - q, K(0.5));
    T pairs = s * K(0.5), far = nyx_select(negative, K(1) - q, K(1.5));
    T before = nyx__zeta_positive(s, up), others = nyx__zeta_positive(s, far);
    M even =
        nyx_eq(nyx_floor(pairs), pairs); /* halfway between poles odd ones cancel out */
    T all = nyx_select(even, (value + before) - others, (value - before) + others);
    value = nyx_select(negative, all, value);
    value = nyx_select(nyx_and(negative, nyx_ne(nyx_floor(s), s)), K(NAN), value);
    value = nyx_select(pole, K(INFINITY), value);
  }
  value = nyx_select(nyx_gt(s, K(1)), value,
                     nyx_select(nyx_lt(s, K(1)), K(NAN), s * K(INFINITY)));
  return nyx_select(nyx_isnan(q), q, value);
}

/* The inverse of erf: x times a polynomial in w = -log(1 - x^2) where that is small, in
 * its root elsewhere; after M. Giles, "Approximating the erfinv function" (2012). */
#if NYX_T_BITS == 32
#define NYX_ERFINV_CENTRE 2.5
#else
#define NYX_ERFINV_CENTRE 3.125
#endif
/* erfinv(x) / x for v = w - NYX_ERFINV_CENTRE, w = -log(1 - x^2) below twice that. */
NYX_FN T nyx__erfinv_near(T v) {
#if NYX_T_BITS == 32
  T p = K(-8.93192631e-09);
  NYX_STEPS4(p, v, 2.33359678e-08, 4.68131361e-07, -3.46398519e-06, -4.9724199e-06);
  NYX_STEPS4(p, v, 0.000218349393, -0.00125272642, -0.00417739293, 0.24664028);
  NYX_STEPS1(p, v, 1.50140941);
#else
  T p = K(-3.5932028927020693e-22);
  NYX_STEPS4(p, v, 3.194015548136271e-21, 1.9992599888615348e-20, -3.4734793888538036e-19,
             6.0750507020724141e-19);
  NYX_STEPS4(p, v, 1.5510787009902526e-17, -1.2215637192404172e-16,
             -3.9401881223043202e-17, 6.5213335115022388e-15);
  NYX_STEPS4(p, v, -4.0020031087558496e-14, -8.0719259389900406e-14,
             2.6305268312595183e-12, -1.2978805369932565e-11);
  NYX_STEPS4(p, v, -5.4143032839195042e-11, 1.051223377050429e-09,
             -4.1126604371632185e-09, -2.907039127564132e-08);
  NYX_STEPS4(p, v, 4.2347881682224598e-07, -1.3654691758785656e-06,
             -1.3882523393957483e-05, 0.00018673420801981186);
  NYX_STEPS4(p, v, -0.00074070253415464314, -0.0060336708714268513, 0.24015818242558834,
             1.6536545626831027);
#endif
  return p;
}
/* The same in s = sqrt(w), to the numbers next to 1. */
NYX_FN T nyx__erfinv_tail(T s) {
#if NYX_T_BITS == 32
  T v = s - K(3);
  T p = K(-0.000129336811);
  NYX_STEPS4(p, v, 4.42859855e-05, 0.00126028038, -0.00361380982, 0.00577652035);
  NYX_STEPS4(p, v, -0.00764005212, 0.00943360012, 1.00167537, 2.83297706);
  return p;
#else
  T v = s - K(3.25);
  T p = K(7.680200479077053e-09);
  NYX_STEPS4(p, v, -1.5305397964152548e-08, -2.091453334773126e-08,
             1.3158663683192966e-07, -2.4549818963339823e-07);
  NYX_STEPS4(p, v, -2.7617162238162411e-08, 1.4815977874022539e-06,
             -3.985705945648173e-06, 2.93257845538535e-06);
  NYX_STEPS4(p, v, 1.2465028224217455e-05, -4.7320680665446967e-05,
             6.8287117392519552e-05, 2.4031512865758357e-05);
  NYX_STEPS4(p, v, -0.00035503781378524519, 0.00095328934157941369,
             -0.0016882755354488555, 0.0024914420979569602);
  NYX_STEPS4(p, v, -0.0037512085082247342, 0.0053709145535550326, 1.0052589676941655,
             3.0838856104922208);
  T near = p;
  v = s - K(5);
  p = K(2.752083669120488e-11);
  NYX_STEPS4(p, v, -2.2467591693364936e-11, -3.7171553416167447e-10,
             1.4895546197648135e-09, -3.5875995609819957e-09);
  NYX_STEPS4(p, v, 7.6443359835573965e-09, -1.5146221782627176e-08,
             2.9124399186491765e-08, -6.761414811460412e-08);
  NYX_STEPS4(p, v, 2.2901554497563463e-07, -9.9301191834829539e-07,
             4.5260599477720725e-06, -1.9681773483763821e-05);
  NYX_STEPS4(p, v, 7.5995277351601924e-05, -0.00021503011962944126,
             -0.00013871931835112341, 1.0103004648645413);
  NYX_STEPS1(p, v, 4.8499064014085844);
  return nyx_select(nyx_lt(s, K(4)), near, p);
#endif
}
NYX_LONG T nyx_erfinv(T x) {
  T w = -nyx_log((K(1) - x) * (K(1) + x));
  M tail = nyx_gt(w, K(2 * NYX_ERFINV_CENTRE));
  T p = nyx__erfinv_near(w - K(NYX_ERFINV_CENTRE));
  if (NYX_ANY(tail)) p = nyx_select(tail, nyx__erfinv_tail(nyx_sqrt(w)), p);
  return x * nyx_select(nyx_eq(nyx_abs(x), K(1)), K(INFINITY), p);
}

/* Modified Bessel functions of the first kind: their series to 8, which has no negative
 * terms, and what e^x / sqrt(x) leaves of them beyond. */
#define NYX_BESSEL_FAR 8
/* The sum of t^k / k!^2, and of t^k / (k! (k + 1)!), t <= 16. */
NYX_FN T nyx__bessel_series0(T t) {
#if NYX_T_BITS == 32
  T p = K(1.31578005e-22);
  NYX_STEPS4(p, t, 2.57892889e-20, 4.35838982e-18, 6.27608135e-16, 7.59405843e-14);
  NYX_STEPS4(p, t, 7.59405843e-12, 6.15118733e-10, 3.93675989e-08, 1.92901235e-06);
  NYX_STEPS4(p, t, 6.94444444e-05, 0.00173611111, 0.0277777778, 0.25);
  NYX_STEPS2(p, t, 1.0, 1.0);
#else
  T p = K(7.9152897080782617e-43);
  NYX_STEPS4(p, t, 3.8310002187098785e-40, 1.6894710964510564e-37, 6.7578843858042255e-35,
             2.4395962632753253e-32);
  NYX_STEPS4(p, t, 7.904291893012054e-30, 2.2843403570804838e-27, 5.8479113141260385e-25,
             1.3157800456783586e-22);
  NYX_STEPS4(p, t, 2.5789288895295828e-20, 4.358389823304995e-18, 6.2760813455591933e-16,
             7.5940584281266234e-14);
  NYX_STEPS4(p, t, 7.5940584281266239e-12, 6.1511873267825652e-10, 3.9367598891408417e-08,
             1.9290123456790124e-06);
  NYX_STEPS4(p, t, 6.9444444444444444e-05, 0.001736111111111111, 0.027777777777777776,
             0.25);
  NYX_STEPS2(p, t, 1.0, 1.0);
#endif
  return p;
}
NYX_FN T nyx__bessel_series1(T t) {
#if NYX_T_BITS == 32
  T p = K(1.84209206e-21);
  NYX_STEPS4(p, t, 3.35260756e-19, 5.23006779e-17, 6.90368948e-15, 7.59405843e-13);
  NYX_STEPS4(p, t, 6.83465259e-11, 4.92094986e-09, 2.75573192e-07, 1.15740741e-05);
  NYX_STEPS4(p, t, 0.000347222222, 0.00694444444, 0.0833333333, 0.5);
  NYX_STEPS1(p, t, 1.0);
#else
  T p = K(3.4414303078601135e-44);
  NYX_STEPS4(p, t, 1.7413637357772174e-41, 8.0451004592907443e-39, 3.3789421929021126e-36,
             1.2839980333028028e-33);
  NYX_STEPS4(p, t, 4.3912732738955857e-31, 1.3437296218120491e-28, 3.6549445713287741e-26,
             8.7718669711890575e-24);
  NYX_STEPS4(p, t, 1.842092063949702e-21, 3.3526075563884579e-19, 5.230067787965994e-17,
             6.9036894801151122e-15);
  NYX_STEPS4(p, t, 7.5940584281266231e-13, 6.8346525853139614e-11, 4.9209498614260522e-09,
             2.7557319223985888e-07);
  NYX_STEPS4(p, t, 1.1574074074074073e-05, 0.00034722222222222224, 0.0069444444444444441,
             0.083333333333333329);
  NYX_STEPS2(p, t, 0.5, 1.0);
#endif
  return p;
}
/* e^-x sqrt(x) I(x) for z = 16 / x - 1, x >= 8. */
NYX_FN T nyx__bessel_far0(T z) {
#if NYX_T_BITS == 32
  T p = K(1.08298984e-07);
  NYX_STEPS4(p, z, 3.6317104e-07, 1.47679214e-06, 1.11115251e-05, 0.00013621684);
  NYX_STEPS2(p, z, 0.00336055574, 0.402176499);
#else
  T p = K(2.0820835852793106e-11);
  NYX_STEPS4(p, z, -5.9050245739951481e-11, -1.5066113686101474e-10,
             4.4789181847911815e-10, 5.1222121472283882e-10);
  NYX_STEPS4(p, z, -1.5930354799216344e-09, -1.1448789558755036e-09,
             3.5985362919394714e-09, 2.1053080134403423e-09);
  NYX_STEPS4(p, z, -5.9155605651085601e-09, -3.9052306237123407e-09,
             7.4062350490015218e-09, 7.7371470337809335e-09);
  NYX_STEPS4(p, z, -5.3944567342594381e-09, -1.3466292948373959e-08,
             -6.7505522827402842e-09, 7.5663524876982374e-09);
  NYX_STEPS4(p, z, 2.1548893617586299e-08, 3.9324376995334589e-08, 8.8722143074517321e-08,
             2.9735996224521226e-07);
  NYX_STEPS4(p, z, 1.4838475687894938e-06, 1.1143033787545386e-05, 0.00013621607439186705,
             0.0033605519836678944);
  NYX_STEPS1(p, z, 0.4021765094450081);
#endif
  return p;
}
NYX_FN T nyx__bessel_far1(T z) {
#if NYX_T_BITS == 32
  T p = K(-1.22124987e-07);
  NYX_STEPS4(p, z, -4.21555427e-07, -1.82671454e-06, -1.50033229e-05, -0.000219236666);
  NYX_STEPS2(p, z, -0.00974958111, 0.389398456);
#else
  T p = K(-1.9677083272584384e-11);
  NYX_STEPS4(p, z, 6.1359327783938119e-11, 1.4176508428695361e-10,
             -4.6561597954216946e-10, -4.7987515369340228e-10);
  NYX_STEPS4(p, z, 1.6577646994563189e-09, 1.0715528639398075e-09,
             -3.7534433873591298e-09, -1.9920765512031881e-09);
  NYX_STEPS4(p, z, 6.2029841130004429e-09, 3.803814960536081e-09, -7.8630046975550564e-09,
             -7.8169682667678977e-09);
  NYX_STEPS4(p, z, 5.9636457981667073e-09, 1.4088520752025449e-08, 6.737493433374833e-09,
             -8.4388009058213693e-09);
  NYX_STEPS4(p, z, -2.3374467872424478e-08, -4.3127789201676093e-08,
             -1.0001282610189342e-07, -3.4838567401229716e-07);
  NYX_STEPS4(p, z, -1.8349101357991557e-06, -1.5038547197358572e-05,
             -0.00021923576383382282, -0.0097495771932357683);
  NYX_STEPS1(p, z, 0.38939845902587233);
#endif
  return p;
}
/* e^(x / 2), with which far values are multiplied twice, as they overflow later. */
#if NYX_T_BITS == 32
#define NYX_BESSEL_MOST 100
#else
#define NYX_BESSEL_MOST 720
#endif
NYX_FN T nyx__bessel_grown(T far, T size) {
  T grows = nyx_exp(nyx_min(size, K(NYX_BESSEL_MOST)) * K(0.5));
  return far * grows * grows;
}
NYX_FN T nyx__bessel_near_square(T size) {
  T by = nyx_min(size, K(NYX_BESSEL_FAR)) * K(0.5);
  return by * by;
}
NYX_FN T nyx__i0e_far(T size) {
  T far = nyx_max(size, K(NYX_BESSEL_FAR));
  return nyx__bessel_far0(K(16) / far - K(1)) / nyx_sqrt(far);
}
NYX_FN T nyx__i1e_far(T size) {
  T far = nyx_max(size, K(NYX_BESSEL_FAR));
  return nyx__bessel_far1(K(16) / far - K(1)) / nyx_sqrt(far);
}
NYX_LONG T nyx_i0(T x) {
  T size = nyx_abs(x), value = nyx__bessel_series0(nyx__bessel_near_square(size));
  M far = nyx_gt(size, K(NYX_BESSEL_FAR));
  if (NYX_ANY(far))
    value = nyx_select(
        far, nyx__bessel_grown(nyx__i0e_far(nyx_min(size, K(NYX_BESSEL_MOST))), size),
        value);
  return value;
}
NYX_LONG T nyx_i0e(T x) {
  T size = nyx_abs(x), value = nyx__bessel_series0(nyx__bessel_near_square(size));
  M far = nyx_gt(size, K(NYX_BESSEL_FAR));
  value = value * nyx_exp(-nyx_min(size, K(NYX_BESSEL_FAR)));
  if (NYX_ANY(far)) value = nyx_select(far, nyx__i0e_far(size), value);
  return value;
}
NYX_LONG T nyx_i1(T x) {
  T size = nyx_abs(x),
    value = nyx__bessel_series1(nyx__bessel_near_square(size)) * (K(0.5) * x);
  M far = nyx_gt(size, K(NYX_BESSEL_FAR));
  if (NYX_ANY(far)) {
    T grown = nyx__bessel_grown(nyx__i1e_far(nyx_min(size, K(NYX_BESSEL_MOST))), size);
    value = nyx_select(far, nyx_select(nyx_lt(x, K(0)), -grown, grown), value);
  }
  return value;
}
NYX_LONG T nyx_i1e(T x) {
  T size = nyx_abs(x),
    value = nyx__bessel_series1(nyx__bessel_near_square(size)) * (K(0.5) * x);
  M far = nyx_gt(size, K(NYX_BESSEL_FAR));
  value = value * nyx_exp(-nyx_min(size, K(NYX_BESSEL_FAR)));
  if (NYX_ANY(far)) {
    T flat = nyx__i1e_far(size);
    value = nyx_select(far, nyx_select(nyx_lt(x, K(0)), -flat, flat), value);
  }
  return value;
}
