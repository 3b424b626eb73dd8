/* Vectors of an element type T, whole and in part. Included where T, TINT and TYPED are
 * defined; needs vector_bytes.h. */

typedef T TYPED(vec) __attribute__((vector_size(VECTOR_BYTES)));
typedef TINT TYPED(lanes) __attribute__((vector_size(VECTOR_BYTES)));
/* The same, at any address. */
typedef T TYPED(vecu)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));

#define V TYPED(vec)
#define LANES ((int)(VECTOR_BYTES / sizeof(T)))
#define LOAD(p) ((V) * (const TYPED(vecu) *)(p))
#define STORE(p, v) (*(TYPED(vecu) *)(p) = (v))

/* Which lanes of a vector are read or written. */
#if defined(__AVX512F__)
typedef uint32_t TYPED(part);
#else
typedef TYPED(lanes) TYPED(part);
#endif

/* Lanes lo..hi-1, as far as there are. */
static inline TYPED(part) TYPED(part_of)(int64_t lo, int64_t hi) {
  if (lo < 0) lo = 0;
  if (hi > LANES) hi = LANES;
#if defined(__AVX512F__)
  return hi <= lo ? 0
                  : (uint32_t)((((uint64_t)1 << hi) - 1) & ~(((uint64_t)1 << lo) - 1));
#else
  TYPED(lanes) number;
  UNROLL for (int l = 0; l < LANES; l++) number[l] = l;
  return (number >= (TINT)(lo > LANES ? LANES : lo)) & (number < (TINT)(hi < 0 ? 0 : hi));
#endif
}

/* Zeros in the other lanes, whose memory is not touched. */
static PART_INLINE V TYPED(load_part)(const T *from, TYPED(part) part) {
#if defined(__AVX512F__)
  return sizeof(T) == 4 ? (V)_mm512_maskz_loadu_ps((__mmask16)part, from)
                        : (V)_mm512_maskz_loadu_pd((__mmask8)part, from);
#elif defined(__AVX2__)
  return sizeof(T) == 4 ? (V)_mm256_maskload_ps((const float *)from, (__m256i)part)
                        : (V)_mm256_maskload_pd((const double *)from, (__m256i)part);
#else
  V v = {0};
  UNROLL for (int l = 0; l < LANES; l++) {
    if (part[l]) v[l] = from[l];
  }
  return v;
#endif
}

static PART_INLINE void TYPED(store_part)(T *to, V v, TYPED(part) part) {
#if defined(__AVX512F__)
  if (sizeof(T) == 4)
    _mm512_mask_storeu_ps(to, (__mmask16)part, (__m512)v);
  else
    _mm512_mask_storeu_pd(to, (__mmask8)part, (__m512d)v);
#elif defined(__AVX2__)
  if (sizeof(T) == 4)
    _mm256_maskstore_ps((float *)to, (__m256i)part, (__m256)v);
  else
    _mm256_maskstore_pd((double *)to, (__m256i)part, (__m256d)v);
#else
  UNROLL for (int l = 0; l < LANES; l++) {
    if (part[l]) to[l] = v[l];
  }
#endif
}
