/* Attention on every path of the CPU: products of factors where they lie; with dropout,
 * which weights stay, against Philox one block at a time as core/base/random.h has it;
 * results and gradients, against plain loops in double; and that threads change nothing.
 * Read next: paths.h, core/op/attention_dropout.c, kernels/cpu/attention.h. */
#include <nyx/parallel.h>

#include "core/base/random.h"
#include "core/tensor/tensor.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "paths.h"

/* Whether the weight of a query and a key stays. */
static bool stays(uint64_t seed, int64_t drop, int64_t q, int64_t k) {
  uint64_t block = (uint64_t)(k / 64 * 8 + k % 16 / 2);
  const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)q,
                               (uint32_t)((uint64_t)q >> 32)};
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  uint32_t bits[4];
  nyx__philox_rounds(7, counter, key, bits);
  uint32_t number = bits[k % 2 * 2 + k % 64 / 32];
  int64_t half = (int16_t)(k / 16 % 2 ? number >> 16 : number);
  return half >= drop - 32768;
}

static void keeps_what_philox_says(void) {
  static const int64_t queries[] = {1, 3, 8, 17, 64},
                       drops[] = {0, 1, 6554, 40000, 65535, 65536};
  static uint32_t words[2 * 5 * 64 + 1];
  bool right = true;
  for (int i = 0; i < 30; i++) {
    int64_t n = queries[i % 5], drop = drops[i % 6], groups = i % 4 + 1;
    int64_t q = i % 3 == 2 ? (int64_t)1 << 33 : i, group = i % 7 == 6 ? 1 << 29 : i % 3;
    uint64_t seed = (uint64_t)next() << 40 ^ (uint64_t)next() << 20 ^ next();
    words[2 * groups * n] = 12345;
    nyx__cpu_kernels()->attention->keep(seed, drop, q, n, group, groups, words);
    for (int64_t k = 0; k < groups * 64; k++)
      for (int64_t r = 0; r < n; r++)
        right &= (words[k / 32 * n + r] >> k % 32 & 1) ==
                 stays(seed, drop, q + r, group * 64 + k);
    CHECK_AT(right && words[2 * groups * n] == 12345, "case ", "%d", i);
  }
}

/* One call: a batch of 1, sizes, and what is computed of it. */
typedef struct sample {
  nyx_dtype dtype;
  int64_t heads, key_heads, lq, lk, d, dv;
  double p;
  bool causal;
} sample;

static const sample samples[] = {
    {NYX_FLOAT32, 2, 1, 1, 70, 5, 3, 0.3, false}, /* one by one */
    {NYX_FLOAT32, 4, 2, 8, 530, 8, 9, 0.1, true}, /* two ranges */
    {NYX_FLOAT16, 2, 2, 3, 100, 7, 5, 0.5, false},
    {NYX_BFLOAT16, 2, 1, 2, 65, 8, 4, 0.2, false},
    {NYX_FLOAT32, 2, 1, 33, 300, 6, 4, 0.1, false}, /* blocks, groups across them */
    {NYX_FLOAT32, 1, 1, 140, 140, 4, 3, 0.7, true},
    {NYX_FLOAT64, 2, 2, 131, 133, 3, 5, 0.25, true},
    {NYX_FLOAT64, 2, 1, 9, 64, 2, 2, 0.5, false},
    {NYX_BFLOAT16, 2, 2, 40, 129, 4, 4, 0.1, false},
    {NYX_FLOAT32, 1, 1, 20, 30, 2, 3, 1, false}};

enum { SAMPLES = sizeof samples / sizeof *samples };

static nyx_tensor *filled(nyx_dtype dtype, int64_t heads, int64_t rows, int64_t columns) {
  static double values[MAX];
  for (int64_t i = 0; i < heads * rows * columns; i++)
    values[i] = (double)(next() % 64) / 16 - 2; /* exact in every float dtype */
  return make(dtype, SHAPE(heads, rows, columns), values);
}

/* Results and gradients, of all heads. */
typedef struct answer {
  double out[MAX], q[MAX], k[MAX], v[MAX];
} answer;

typedef struct inputs {
  const double *q, *k, *v, *g;
  const int64_t *seeds;
} inputs;

/* Row r of the weights of a head, without dropout, and what that multiplies each by. */
static void weigh(const sample *s, const inputs *in, int64_t head, int64_t r, double *w,
                  double *m) {
  const double *q = in->q + (head * s->lq + r) * s->d;
  const double *k = in->k + head / (s->heads / s->key_heads) * s->lk * s->d;
  uint64_t seed = (uint64_t)in->seeds[head];
  int64_t drop = (int64_t)(s->p * 65536 + (double)(uint32_t)seed * 0x1p-32);
  double most = -INFINITY, sum = 0;
  for (int64_t c = 0; c < s->lk; c++) {
    w[c] = 0;
    for (int64_t j = 0; j < s->d; j++) w[c] += q[j] * k[c * s->d + j];
    w[c] = s->causal && c > r ? -INFINITY : w[c] / sqrt((double)s->d);
    most = fmax(most, w[c]);
  }
  for (int64_t c = 0; c < s->lk; c++) sum += w[c] = exp(w[c] - most);
  for (int64_t c = 0; c < s->lk; c++) {
    w[c] /= sum;
    m[c] = s->p < 1 && stays(seed, drop, r, c) ? 1 / (1 - s->p) : 0;
  }
}

static void by_loops(const sample *s, const inputs *in, answer *to) {
  static double w[1024], m[1024];
  memset(to, 0, sizeof *to);
  for (int64_t head = 0; head < s->heads; head++) {
    int64_t own = head / (s->heads / s->key_heads) * s->lk;
    for (int64_t r = 0; r < s->lq; r++) {
      int64_t row = head * s->lq + r;
      const double *g = in->g + row * s->dv;
      double *out = to->out + row * s->dv, delta = 0;
      weigh(s, in, head, r, w, m);
      for (int64_t c = 0; c < s->lk; c++)
        for (int64_t j = 0; j < s->dv; j++) {
          out[j] += w[c] * m[c] * in->v[(own + c) * s->dv + j];
          to->v[(own + c) * s->dv + j] += w[c] * m[c] * g[j];
        }
      for (int64_t j = 0; j < s->dv; j++) delta += g[j] * out[j];
      for (int64_t c = 0; c < s->lk; c++) {
        double slope = 0;
        for (int64_t j = 0; j < s->dv; j++) slope += g[j] * in->v[(own + c) * s->dv + j];
        slope = w[c] * (m[c] * slope - delta) / sqrt((double)s->d);
        for (int64_t j = 0; j < s->d; j++) {
          to->q[row * s->d + j] += slope * in->k[(own + c) * s->d + j];
          to->k[(own + c) * s->d + j] += slope * in->q[row * s->d + j];
        }
      }
    }
  }
}

static bool close_to(nyx_tensor *t, const double *want, double bound, const char *what) {
  double *got = read(t), worst = 0;
  for (int64_t i = 0; i < t->numel; i++) {
    double off = fabs(got[i] - want[i]) / (1 + fabs(want[i]));
    if (!(off <= worst)) worst = off;
  }
  if (!(worst <= bound)) printf("# %s: off by %g\n", what, worst);
  return worst <= bound;
}

/* out, lse and the gradients of one call. */
static void run_op(const sample *s, nyx_tensor *const in[8], nyx_tensor *out[2],
                   nyx_tensor *grads[3]) {
  const nyx_value attr[] = {NYX_I(s->causal), {.given = false}, NYX_I(0), NYX_F(s->p)};
  nyx_tensor *forward[5] = {in[1], in[2], in[3], NULL, in[7]};
  nyx_tensor *results[NYX_MAX_OUTPUTS] = {NULL};
  must(nyx_apply(ctx, nyx__op(ID(attention)), forward, 5, attr, results));
  memcpy(out, results, 2 * sizeof *out);
  nyx_tensor *backward[8] = {in[0], in[1], in[2], in[3], out[0], out[1], NULL, in[7]};
  memset(results, 0, sizeof results);
  must(nyx_apply(ctx, nyx__op(ID(attention_backward)), backward, 8, attr, results));
  memcpy(grads, results, 3 * sizeof *grads);
}

static bool same_bits(nyx_tensor *a, nyx_tensor *b) {
  return memcmp(nyx__data(a), nyx__data(b),
                (size_t)a->numel * nyx_dtype_size(a->dtype)) == 0;
}

static void equals_loops(const sample *s) {
  static answer want;
  nyx_tensor *in[8] = {filled(s->dtype, s->heads, s->lq, s->dv),
                       filled(s->dtype, s->heads, s->lq, s->d),
                       filled(s->dtype, s->key_heads, s->lk, s->d),
                       filled(s->dtype, s->key_heads, s->lk, s->dv)};
  nyx_tensor *out[2], *grads[3], *more[2], *others[3];
  must(nyx_tensor_empty(ctx, NYX_INT64, 1, &s->heads, &in[7]));
  int64_t *seeds = nyx__data(in[7]);
  for (int64_t h = 0; h < s->heads; h++)
    seeds[h] = (int64_t)((uint64_t)next() << 40 ^ (uint64_t)next() << 20 ^ next());
  inputs loops = {.seeds = seeds};
  loops.g = read(in[0]);
  loops.q = read(in[1]);
  loops.k = read(in[2]);
  loops.v = read(in[3]);
  by_loops(s, &loops, &want);
  double bound = s->dtype == NYX_FLOAT64   ? 1e-13
                 : s->dtype == NYX_FLOAT32 ? 2e-5
                 : s->dtype == NYX_FLOAT16 ? 4e-3
                                           : 3e-2;
  int threads = nyx_parallel_threads();
  must(nyx_parallel_set_threads(1));
  run_op(s, in, out, grads);
  CHECK(close_to(out[0], want.out, bound, "result"));
  CHECK(close_to(grads[0], want.q, 4 * bound, "gradient of the query"));
  CHECK(close_to(grads[1], want.k, 4 * bound, "gradient of the key"));
  CHECK(close_to(grads[2], want.v, 4 * bound, "gradient of the value"));
  must(nyx_parallel_set_threads(3));
  run_op(s, in, more, others);
  must(nyx_parallel_set_threads(threads));
  for (int i = 0; i < 2; i++) CHECK(same_bits(out[i], more[i]));
  for (int i = 0; i < 3; i++) CHECK(same_bits(grads[i], others[i]));
  for (int i = 0; i < 8; i++) nyx_tensor_release(in[i]);
  for (int i = 0; i < 2; i++) nyx_tensor_release(out[i]), nyx_tensor_release(more[i]);
  for (int i = 0; i < 3; i++) nyx_tensor_release(grads[i]), nyx_tensor_release(others[i]);
}

static void dropout_equals_plain_loops(void) {
  for (int i = 0; i < SAMPLES; i++) {
    printf("# case %d\n", i);
    equals_loops(&samples[i]);
  }
}

/* A left factor where it lies, by rows and by columns, gives the bits that its panels
 * give: heights and widths of tiles that are whole and that are not, sums and results. */
static void products_in_place(void) {
  enum { M = 31, N = 70, K = 41, APART = 144 };
  static double a_room[K * APART], b_room[K * N], panels[K * (N + 64)], left[K * M];
  static double got[M * N + 1], want[M * N + 1];
  for (int64_t i = 0; i < 2 * 2 * 2 * M * 15; i++) {
    bool wide = i % 2, by_rows = i / 2 % 2, add = i / 4 % 2;
    nyx_dtype dtype = wide ? NYX_FLOAT64 : NYX_FLOAT32;
    int64_t item = wide ? 8 : 4, m = i / 8 % M + 1, n = i / 8 / M % 5 * 17 + 2,
            k = K - i % 3;
    int64_t apart = wide ? NYX_APART(double) : NYX_APART(float), kind = i / 8 / M / 5;
    if (by_rows && kind > 0) apart = k + kind * 5; /* any other */
    const nyx_gemm_kernel *gemm = &nyx__cpu_kernels()->gemm->type[wide];
    for (int64_t j = 0; j < K * APART; j++)
      nyx__store_double(dtype, (char *)a_room + j * item, (double)next() / 3);
    for (int64_t j = 0; j < K * N; j++)
      nyx__store_double(dtype, (char *)b_room + j * item, (double)next() / 7);
    for (int64_t j = 0; j <= M * N; j++)
      nyx__store_double(dtype, (char *)want + j * item, (double)j);
    memcpy(got, want, sizeof got);
    nyx_product p = {.m = m, .n = n, .k = k, .a = a_room, .ldc = n, .add = add};
    p.a_rs = by_rows ? apart : 1;
    p.a_cs = by_rows ? 1 : apart;
    gemm->pack_a(a_room, p.a_rs, p.a_cs, m, gemm->tile_rows, k, left);
    gemm->pack_b(b_room, n, 1, k, n, panels);
    p.c = want;
    gemm->block(&p, gemm->tile_rows, left, panels);
    p.c = got;
    if (kind == 2) p.next = (char *)a_room + m * p.a_rs * item; /* and asks for rows */
    gemm->block(&p, gemm->tile_rows, NULL, panels);
    if (!CHECK_AT(memcmp(got, want, (size_t)((m * n + 1) * item)) == 0, "m, n, k ",
                  "%lld, %lld, %lld", (long long)m, (long long)n, (long long)k))
      return;
  }
}

static void run(void) {
  RUN(products_in_place);
  RUN(keeps_what_philox_says);
  RUN(dropout_equals_plain_loops);
}

int main(int count, char **args) {
  (void)count;
  return on_every_path(args[0], run);
}
