/* The loops of rotary.h over a type T; included by rotary.c. */

#define V TYPED(rotary_vector)
#define VI TYPED(rotary_lanes)
#define VU TYPED(rotary_elements)
#define LANES ((int)(VECTOR_BYTES / sizeof(T)))

typedef T V __attribute__((vector_size(VECTOR_BYTES)));
typedef TINT VI __attribute__((vector_size(VECTOR_BYTES)));
typedef T VU __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));

static void TYPED(halves)(int64_t n, const void *a_, const void *b_, const void *cos_,
                          const void *sin_, double sign_, void *to_a_, void *to_b_) {
  const T *restrict a = a_, *restrict b = b_, *restrict c = cos_, *restrict s = sin_;
  T *restrict to_a = to_a_, *restrict to_b = to_b_;
  T sign = (T)sign_;
  for (int64_t i = 0; i < n; i++) {
    T u = a[i], v = b[i], sine = sign * s[i];
    to_a[i] = u * c[i] - v * sine;
    to_b[i] = v * c[i] + u * sine;
  }
}

/* Lanes 2 l and 2 l + 1 of v are lane `first` + l of x. */
static ALWAYS_INLINE V TYPED(doubled)(V x, int first) {
  VI from;
  UNROLL for (int l = 0; l < LANES; l++) from[l] = (TINT)(first + l / 2);
  return SHUFFLE(V, VI, x, from);
}

static void TYPED(pairs)(int64_t n, const void *x_, const void *cos_, const void *sin_,
                         double sign_, void *y_) {
  const T *x = x_, *c = cos_, *s = sin_;
  T *y = y_, sign = (T)sign_;
  VI other;
  V signs;
  UNROLL for (int l = 0; l < LANES; l++) {
    other[l] = l ^ 1;
    signs[l] = l % 2 ? sign : -sign;
  }
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    V cosine = *(const VU *)(c + i), sine = *(const VU *)(s + i);
    UNROLL for (int part = 0; part < 2; part++) {
      V v = *(const VU *)(x + 2 * i + part * LANES);
      V turned = SHUFFLE(V, VI, v, other) * signs;
      *(VU *)(y + 2 * i + part * LANES) = v * TYPED(doubled)(cosine, part * LANES / 2) +
                                          turned * TYPED(doubled)(sine, part * LANES / 2);
    }
  }
  for (; i < n; i++) {
    T u = x[2 * i], v = x[2 * i + 1], sine = sign * s[i];
    y[2 * i] = u * c[i] - v * sine;
    y[2 * i + 1] = v * c[i] + u * sine;
  }
}

#undef V
#undef VI
#undef VU
#undef LANES
