/* Products of a few tiles, over one element type T; included by winograd_type.h, once for
 * each. Lanes are output channels, as so few tiles would leave most lanes idle. A kernel
 * is used so little that its points must not leave the first cache: those of some input
 * channels are made, for two rows of points at a time, and multiplied at once. */

#define FEW NYX_WINOGRAD_FEW
#define CHANNELS NYX_WINOGRAD_FEW_CHANNELS
#define OUTS 2 /* vectors of output channels */
#define TAPS NYX_WINOGRAD_TAPS
#define CHUNK (CHANNELS * TAPS) /* taps of a kernel's row */
#define CHUNK_VECTORS ((CHUNK + LANES - 1) / LANES)

typedef struct TYPED(few_stage) {
  V tap[CHUNK_VECTORS * LANES][OUTS];
  V point[2 * SEEN][CHANNELS][OUTS];
  V sum[NYX_WINOGRAD_POINTS][FEW][OUTS];
} TYPED(few_stage);

/* Asks for one of 36 parts of the kernels from channel c on, as nothing guesses them. */
static ALWAYS_INLINE void TYPED(few_ask)(const nyx_winograd_few *f, int64_t c,
                                         int64_t part) {
  const int64_t line = 64 / (int64_t)sizeof(T);
  const T *from = f->kernels;
  if (!f->turned) {
    from += part * f->out_step + c * TAPS;
    for (int64_t q = 0; part < f->outs && q < CHUNK + line; q += line)
      __builtin_prefetch(from + q);
    return;
  }
  from += c * f->channel_step + part / 2 * line;
  for (int64_t i = part % 2; i < CHANNELS; i += 2)
    __builtin_prefetch(from + i * f->channel_step);
}

/* The taps of `n` channels from c on. Without `whole` output channels lack some of their
 * lanes, which see the last one again. */
static ALWAYS_INLINE void TYPED(few_taps)(const nyx_winograd_few *f, const bool whole,
                                          int64_t c, int64_t n, TYPED(few_stage) * s) {
  for (int64_t v = 0; v < OUTS; v++) {
    for (int64_t k = 0; k < CHUNK_VECTORS; k++) {
      TYPED(part) live = TYPED(part_of)(0, n * TAPS - k * LANES);
      const T *from = (const T *)f->kernels + c * TAPS + k * LANES;
      V row[LANES];
      UNROLL for (int l = 0; l < LANES; l++) {
        int64_t out = v * LANES + l;
        if (!whole && out >= f->outs) out = f->outs - 1;
        row[l] = TYPED(load_part)(from + out * f->out_step, live);
      }
      TYPED(transpose)(row);
      UNROLL for (int l = 0; l < LANES; l++) s->tap[k * LANES + l][v] = row[l];
    }
  }
}

/* The same of kernels turned round, whose output channels lie side by side. */
static ALWAYS_INLINE void TYPED(few_turned)(const nyx_winograd_few *f, int64_t c,
                                            int64_t n, TYPED(few_stage) * s) {
  const T *from = (const T *)f->kernels + c * f->channel_step;
  for (int64_t i = 0; i < n; i++, from += f->channel_step) {
    for (int64_t v = 0; v < OUTS; v++) {
      V taps[TAPS];
      TYPED(load_kernels)(from + v * LANES * TAPS, f->outs - v * LANES, taps);
      UNROLL for (int t = 0; t < TAPS; t++) s->tap[i * TAPS + t][v] = taps[t];
    }
  }
}

/* Two rows of points of `n` channels' kernels. */
static ALWAYS_INLINE void TYPED(few_points)(const int first, const int second, int64_t n,
                                            TYPED(few_stage) * s) {
  for (int64_t c = 0; c < n; c++) {
    UNROLL for (int v = 0; v < OUTS; v++) {
      V row[2][3], all[SEEN];
      UNROLL for (int j = 0; j < 3; j++) {
        const V(*tap)[OUTS] = s->tap + c * TAPS + j;
        TYPED(weight_points)(tap[0][v], tap[3][v], tap[6][v], all);
        row[0][j] = all[first];
        row[1][j] = all[second];
      }
      UNROLL for (int i = 0; i < 2; i++) {
        TYPED(weight_points)(row[i][0], row[i][1], row[i][2], all);
        UNROLL for (int j = 0; j < SEEN; j++) s->point[i * SEEN + j][c][v] = all[j];
      }
    }
  }
}

/* A point of `n` channels of kernels times that of the tiles, from[channel][tile]. */
static ALWAYS_INLINE void TYPED(few_product)(const bool whole,
                                             const V point[CHANNELS][OUTS], int64_t n,
                                             const T *from, V to[FEW][OUTS]) {
  V sum[FEW][OUTS];
  UNROLL for (int t = 0; t < FEW; t++) UNROLL for (int v = 0; v < OUTS; v++) sum[t][v] =
      to[t][v];
  UNROLL for (int c = 0; c < CHANNELS; c++) {
    if (!whole && c == n) break;
    UNROLL for (int t = 0; t < FEW; t++) UNROLL for (int v = 0; v < OUTS; v++)
        sum[t][v] += point[c][v] * from[c * FEW + t];
  }
  UNROLL for (int t = 0; t < FEW; t++) UNROLL for (int v = 0; v < OUTS; v++) to[t][v] =
      sum[t][v];
}

static ALWAYS_INLINE void TYPED(few_rows)(const nyx_winograd_few *f, const int first,
                                          const int second, int64_t c, int64_t n,
                                          const T *from, TYPED(few_stage) * s) {
  TYPED(few_points)(first, second, n, s);
  for (int64_t j = 0; j < 2 * SEEN; j++) {
    int64_t point = (j < SEEN ? first : second - 1) * SEEN + j;
    const T *at = from + point * CHANNELS * FEW;
    TYPED(few_ask)(f, c + CHANNELS, point);
    if (n == CHANNELS)
      TYPED(few_product)(true, s->point[j], n, at, s->sum[point]);
    else
      TYPED(few_product)(false, s->point[j], n, at, s->sum[point]);
  }
}

static void TYPED(few)(const nyx_winograd_few *f, void *products) {
  TYPED(few_stage) s;
  memset(s.sum, 0, sizeof s.sum);
  const T *from = f->inputs;
  for (int64_t c = 0; c < f->channels; c += CHANNELS) {
    int64_t n = f->channels - c < CHANNELS ? f->channels - c : CHANNELS;
    if (f->turned)
      TYPED(few_turned)(f, c, n, &s);
    else if (f->outs == OUTS * LANES)
      TYPED(few_taps)(f, true, c, n, &s);
    else
      TYPED(few_taps)(f, false, c, n, &s);
    TYPED(few_rows)(f, 0, 5, c, n, from, &s);
    TYPED(few_rows)(f, 1, 2, c, n, from, &s);
    TYPED(few_rows)(f, 3, 4, c, n, from, &s);
    from += NYX_WINOGRAD_POINTS * CHANNELS * FEW;
  }
  for (int64_t i = 0; i < NYX_WINOGRAD_POINTS; i++) {
    for (int64_t v = 0; v < OUTS; v++) {
      V tiles[SIDE];
      UNROLL for (int t = 0; t < FEW; t++) tiles[t] = s.sum[i][t][v];
      TYPED(interleave)
      (SIDE, tiles, (T *)products + i * f->product_step + v * LANES * FEW);
    }
  }
}

#undef FEW
#undef CHANNELS
#undef OUTS
#undef TAPS
#undef CHUNK
#undef CHUNK_VECTORS
