/* Sorting, arranging, constructors and random tensors. Read next: tensors.h. */
#include "tensors.h"

/* sort: compared with insertion by the same order, NaN last */

static bool before(double a, double b, bool down) {
  if (down) return isnan(a) ? !isnan(b) : a > b;
  return isnan(b) ? !isnan(a) : a < b;
}

static void sort_row(const double *row, int n, bool down, int *at) {
  for (int i = 0; i < n; i++) {
    int k = i;
    for (; k > 0 && before(row[i], row[at[k - 1]], down); k--) at[k] = at[k - 1];
    at[k] = i;
  }
}

static nyx_tensor *with_specials(nyx_dtype dtype, int rows, int n) {
  static double values[MAX];
  for (int i = 0; i < rows * n; i++) {
    uint32_t r = next() % 40;
    double v = (double)(next() % 2001) - 1000;
    if (r < 25) v = (double)(next() % 20) - 10;
    if (dtype == NYX_UINT8 || dtype == NYX_BOOL) v = fabs(v);
    if (dtype == NYX_INT8 || dtype == NYX_UINT8) v = fmod(v, 100);
    if (nyx_dtype_is_float(dtype)) {
      if (r == 39) v = NAN;
      if (r == 38) v = INFINITY;
      if (r == 37) v = -INFINITY;
      if (r == 36) v = -0.0;
      if (r == 35) v = 0.0;
      if (r == 34) v /= 1024;
    }
    values[i] = v;
  }
  return make(dtype, SHAPE(rows, n), values);
}

static void sorting(void) {
  int lengths[] = {1, 2, 7, 48, 49, 300, 1500};
  for (int dtype = 0; dtype < NYX_COMPLEX64; dtype++)
    for (int l = 0; l < 7; l++)
      for (int down = 0; down < 2; down++) {
        int n = lengths[l], k = n / 20 + 1, rows = 3;
        nyx_tensor *x = with_specials((nyx_dtype)dtype, rows, n), *outs[4] = {0};
        static double v[3 * 1500], top[3 * 1500], where[3 * 1500];
        static int at[1500];
        memcpy(v, read(x), (size_t)(rows * n) * sizeof *v);
        if (l % 2) x = scramble(x);
        static double sorted[3 * 1500], places[3 * 1500];
        for (int r = 0; r < rows; r++) {
          sort_row(v + r * n, n, down, at);
          for (int i = 0; i < n; i++) {
            sorted[r * n + i] = v[r * n + at[i]];
            places[r * n + i] = at[i];
            if (i < k) top[r * k + i] = v[r * n + at[i]], where[r * k + i] = at[i];
          }
        }
        nyx_value attrs[] = {NYX_I(1), NYX_I(down), NYX_I(true)};
        CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(sort)), &x, 1, attrs, outs));
        CHECK(holds(outs[0], SHAPE(rows, n), sorted));
        CHECK(holds(outs[1], SHAPE(rows, n), places));
        CHECK(holds(apply(ID(argsort), x, NULL, NULL, attrs), SHAPE(rows, n), places));
        outs[0] = outs[1] = NULL;
        nyx_value first[] = {NYX_I(k), NYX_I(-1), NYX_I(down), NYX_I(true)};
        CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(topk)), &x, 1, first, outs));
        CHECK(holds(outs[0], SHAPE(rows, k), top));
        CHECK(holds(outs[1], SHAPE(rows, k), where));
        nyx_tensor_release(x);
      }
  nyx_tensor *x = make(NYX_INT64, SHAPE(2, 2), VALUES(3, 1, 2, 5)), *zero;
  CHECK(holds(apply(ID(sort), x, NULL, NULL, ATTRS(NYX_I(0), NYX_NONE, NYX_NONE)),
              SHAPE(2, 2), VALUES(2, 1, 3, 5)));
  nyx_value many[] = {NYX_I(3), NYX_NONE, NYX_NONE, NYX_NONE};
  CHECK(fails(ID(topk), x, NULL, NULL, many, NYX_ERR_ARGUMENT, "'k' is 3"));
  must(nyx_tensor_scalar(ctx, 4, NYX_FLOAT32, false, &zero));
  CHECK(holds(apply(ID(sort), zero, NULL, NULL, NULL), 0, NULL, VALUES(4)));
  nyx_tensor_release(zero);
  nyx_tensor_release(x);
}

static void unique_and_search(void) {
  nyx_tensor *x = make(NYX_INT32, SHAPE(2, 3), VALUES(4, -1, 4, 7, -1, 4));
  nyx_tensor *outs[NYX_MAX_OUTPUTS] = {0};
  nyx_context_set_index_base(ctx, 1);
  CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(unique)), &x, 1, NULL, outs));
  CHECK(holds(outs[0], SHAPE(3), VALUES(-1, 4, 7)));
  CHECK(holds(outs[1], SHAPE(2, 3), VALUES(2, 1, 2, 3, 1, 2)));
  CHECK(holds(outs[2], SHAPE(3), VALUES(2, 3, 1)));
  nyx_context_set_index_base(ctx, 0);
  nyx_tensor *row = make(NYX_FLOAT32, SHAPE(4), VALUES(1, 2, 2, 5));
  nyx_tensor *v = make(NYX_FLOAT32, SHAPE(5), VALUES(0, 2, 3, 5, 6));
  CHECK(holds(apply(ID(searchsorted), row, v, NULL, NULL), SHAPE(5),
              VALUES(0, 1, 3, 3, 4)));
  CHECK(holds(apply(ID(searchsorted), row, v, NULL, ATTRS(NYX_I(true))), SHAPE(5),
              VALUES(0, 3, 3, 4, 4)));
  nyx_tensor_release(x);
  nyx_tensor_release(row);
  nyx_tensor_release(v);
}

static void arranging(void) {
  nyx_tensor *x = scramble(make(NYX_INT8, SHAPE(2, 3), VALUES(1, 2, 3, 4, 5, 6)));
  CHECK(holds(apply(ID(roll), x, NULL, NULL, ATTRS(LIST(1), LIST(1))), SHAPE(2, 3),
              VALUES(3, 1, 2, 6, 4, 5)));
  CHECK(holds(apply(ID(roll), x, NULL, NULL, ATTRS(LIST(-1, 4), LIST(0, 1))), SHAPE(2, 3),
              VALUES(6, 4, 5, 3, 1, 2)));
  CHECK(holds(apply(ID(roll), x, NULL, NULL, ATTRS(LIST(2), NYX_NONE)), SHAPE(2, 3),
              VALUES(5, 6, 1, 2, 3, 4)));
  CHECK(fails(ID(roll), x, NULL, NULL, ATTRS(LIST(2, 1), NYX_NONE), NYX_ERR_ARGUMENT,
              "shifts"));
  CHECK(holds(
      apply(ID(tile), x, NULL, NULL, ATTRS(LIST(2, 1, 2))), SHAPE(2, 2, 6),
      VALUES(1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6, 1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6)));
  CHECK(fails(ID(tile), x, NULL, NULL, ATTRS(LIST(INT64_MAX, 2)), NYX_ERR_SHAPE, "tile"));
  CHECK(holds(apply(ID(repeat_interleave), x, NULL, NULL, ATTRS(NYX_I(2), NYX_I(0))),
              SHAPE(4, 3), VALUES(1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6)));
  CHECK(holds(apply(ID(repeat_interleave), x, NULL, NULL, ATTRS(NYX_I(2), NYX_NONE)),
              SHAPE(12), VALUES(1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6)));
  CHECK(
      holds(apply(ID(tril), x, NULL, NULL, NULL), SHAPE(2, 3), VALUES(1, 0, 0, 4, 5, 0)));
  CHECK(holds(apply(ID(triu), x, NULL, NULL, ATTRS(NYX_I(1))), SHAPE(2, 3),
              VALUES(0, 2, 3, 0, 0, 6)));
  CHECK(holds(apply(ID(triu), x, NULL, NULL, ATTRS(NYX_I(INT64_MAX))), SHAPE(2, 3),
              VALUES(0, 0, 0, 0, 0, 0)));
  nyx_tensor *labels = make(NYX_UINT8, SHAPE(3), VALUES(2, 0, 1));
  CHECK(holds(apply(ID(one_hot), labels, NULL, NULL, NULL), SHAPE(3, 3),
              VALUES(0, 0, 1, 1, 0, 0, 0, 1, 0)));
  CHECK(fails(ID(one_hot), labels, NULL, NULL, ATTRS(NYX_I(2)), NYX_ERR_INDEX,
              "position 2"));
  nyx_tensor_release(labels);
  nyx_tensor_release(x);
}

static void constructors(void) {
  nyx_value none = NYX_NONE, i32 = NYX_I(NYX_INT32);
  CHECK(holds(apply(ID(zeros), NULL, NULL, NULL, ATTRS(LIST(2, 2), none)), SHAPE(2, 2),
              VALUES(0, 0, 0, 0)));
  CHECK(holds(apply(ID(full), NULL, NULL, NULL, ATTRS(LIST(2), NYX_F(7), i32)), SHAPE(2),
              VALUES(7, 7)));
  CHECK(holds(apply(ID(eye), NULL, NULL, NULL, ATTRS(NYX_I(2), NYX_I(3), none)),
              SHAPE(2, 3), VALUES(1, 0, 0, 0, 1, 0)));
  CHECK(holds(apply(ID(arange), NULL, NULL, NULL, ATTRS(NYX_F(4), none, none, i32)),
              SHAPE(4), VALUES(0, 1, 2, 3)));
  CHECK(holds(
      apply(ID(arange), NULL, NULL, NULL, ATTRS(NYX_F(1), NYX_F(2), NYX_F(0.25), none)),
      SHAPE(4), VALUES(1, 1.25, 1.5, 1.75)));
  CHECK(holds(
      apply(ID(linspace), NULL, NULL, NULL, ATTRS(NYX_F(-1), NYX_F(1), NYX_I(5), none)),
      SHAPE(5), VALUES(-1, -0.5, 0, 0.5, 1)));
  nyx_value up[] = {NYX_F(3), NYX_F(1), NYX_F(1), none};
  CHECK(fails(ID(arange), NULL, NULL, NULL, up, NYX_ERR_ARGUMENT, "step"));
  nyx_value endless[] = {NYX_F(0), NYX_F(1e300), NYX_F(1e-300), none};
  CHECK(fails(ID(arange), NULL, NULL, NULL, endless, NYX_ERR_SHAPE, "arange"));
  nyx_value nan[] = {NYX_F(0), NYX_F(NAN), NYX_F(1), none};
  CHECK(fails(ID(arange), NULL, NULL, NULL, nan, NYX_ERR_ARGUMENT, "finite"));
  nyx_value bytes[] = {NYX_F(0), NYX_F(300), NYX_F(1), NYX_I(NYX_UINT8)};
  CHECK(fails(ID(arange), NULL, NULL, NULL, bytes, NYX_ERR_DTYPE, "uint8"));
  nyx_value huge[] = {LIST(INT64_MAX, INT64_MAX), none};
  CHECK(fails(ID(zeros), NULL, NULL, NULL, huge, NYX_ERR_SHAPE, "zeros"));
  nyx_value big[] = {LIST((int64_t)1 << 55), none};
  CHECK(fails(ID(zeros), NULL, NULL, NULL, big, NYX_ERR_MEMORY, "zeros"));
  nyx_value negative[] = {LIST(2, -1), none};
  CHECK(fails(ID(rand), NULL, NULL, NULL, negative, NYX_ERR_SHAPE, "negative"));
  nyx_value ints[] = {LIST(2), i32};
  CHECK(fails(ID(randn), NULL, NULL, NULL, ints, NYX_ERR_DTYPE, "float"));
  nyx_value half[] = {LIST(2), NYX_F(0.5), i32};
  CHECK(fails(ID(full), NULL, NULL, NULL, half, NYX_ERR_DTYPE, "int32"));
}

/* The same numbers with one thread and with many, and after seeding again. */
static nyx_tensor *draw(nyx__op_id id, nyx_tensor *x, const nyx_value *attrs,
                        int threads) {
  must(nyx_parallel_set_threads(threads));
  nyx_context_seed(ctx, 42);
  nyx_tensor *out = apply(id, x, NULL, NULL, attrs);
  must(nyx_parallel_set_threads(0));
  return out;
}

static void random_repeats(void) {
  int64_t n = 15001;
  nyx_tensor *p = make(NYX_FLOAT32, SHAPE(3), VALUES(1, 2, 5));
  nyx_tensor *x = fresh(NYX_FLOAT64, SHAPE(15001));
  for (int dtype = 0; dtype < 4; dtype++) {
    struct {
      nyx__op_id id;
      nyx_tensor *x;
      nyx_value attrs[4];
    } calls[] = {
        {ID(rand), NULL, {NYX_LIST(&n, 1), NYX_I(dtype)}},
        {ID(randn), NULL, {NYX_LIST(&n, 1), NYX_I(dtype)}},
        {ID(randint), NULL, {NYX_I(-5), NYX_I(9), NYX_LIST(&n, 1), NYX_I(NYX_INT8)}},
        {ID(randperm), NULL, {NYX_I(n), NYX_NONE}},
        {ID(multinomial), p, {NYX_I(15000), NYX_I(true)}},
        {ID(bernoulli), x, {NYX_F(0.3)}},
        {ID(normal), x, {NYX_F(1), NYX_F(2)}}};
    for (int i = 0; i < 7; i++) {
      nyx_tensor *a = draw(calls[i].id, calls[i].x, calls[i].attrs, 1);
      nyx_tensor *b = draw(calls[i].id, calls[i].x, calls[i].attrs, 4);
      nyx_tensor *c = apply(calls[i].id, calls[i].x, NULL, NULL, calls[i].attrs);
      int64_t m = nyx_tensor_numel(a);
      CHECK(same(read(a), read(b), m));
      CHECK(memcmp(read(a), read(c), (size_t)m * sizeof(double)) != 0);
      nyx_tensor_release(a);
      nyx_tensor_release(b);
      nyx_tensor_release(c);
    }
  }
  nyx_tensor_release(p);
  nyx_tensor_release(x);
}

static void moments(nyx_tensor *t, double *mean, double *variance) {
  double *v = read(t), sum = 0, square = 0;
  int64_t n = nyx_tensor_numel(t);
  for (int64_t i = 0; i < n; i++) sum += v[i];
  for (int64_t i = 0; i < n; i++)
    square += (v[i] - sum / (double)n) * (v[i] - sum / (double)n);
  *mean = sum / (double)n;
  *variance = square / (double)n;
}

/* Draws without replacement: every first pair as often as its weights say, what weighs
 * nothing never. */
static void drawn_pairs(void) {
  enum { ROWS = 30000 };
  static const double weight[4] = {1, 2, 3, 0};
  nyx_tensor *x;
  must(nyx_tensor_empty(ctx, NYX_FLOAT64, 2, (const int64_t[]){ROWS, 4}, &x));
  for (int i = 0; i < ROWS; i++)
    memcpy((double *)nyx_tensor_data(x) + 4 * i, weight, sizeof weight);
  nyx_tensor *m = apply(ID(multinomial), x, NULL, NULL, ATTRS(NYX_I(2), NYX_NONE));
  const int64_t *v = nyx_tensor_data(m);
  double count[4][4] = {{0}}, off = 0;
  for (int i = 0; i < ROWS; i++) count[v[2 * i] - 1][v[2 * i + 1] - 1]++;
  for (int a = 0; a < 4; a++)
    for (int b = 0; b < 4; b++) {
      double want = a == b ? 0 : ROWS * weight[a] / 6 * weight[b] / (6 - weight[a]);
      CHECK(want > 0 || count[a][b] == 0);
      if (want > 0) off += (count[a][b] - want) * (count[a][b] - want) / want;
    }
  CHECK(off < 20.5); /* chi-square of 5 degrees of freedom: 1 in 1,000 */
  nyx_tensor_release(m);
  nyx_tensor_release(x);
}

/* Many of a long row: each once, nothing that weighs nothing, all that weighs much. */
static void drawn_from_a_long_row(void) {
  enum { N = 100000, DRAWN = 5000 };
  static int seen[N];
  nyx_tensor *x;
  must(nyx_tensor_empty(ctx, NYX_FLOAT64, 1, (const int64_t[]){N}, &x));
  double *w = nyx_tensor_data(x);
  for (int i = 0; i < N; i++) w[i] = i % 3 == 0 ? 0 : i % 50 == 1 ? 1000 : 1;
  nyx_tensor *m = apply(ID(multinomial), x, NULL, NULL, ATTRS(NYX_I(DRAWN), NYX_NONE));
  const int64_t *v = nyx_tensor_data(m);
  bool once = true, positive = true, heavy = true;
  for (int i = 0; i < DRAWN; i++) {
    once = once && ++seen[v[i] - 1] == 1;
    positive = positive && w[v[i] - 1] > 0;
  }
  for (int i = 0; i < N; i++) heavy = heavy && (w[i] < 1000 || seen[i]);
  CHECK(once && positive && heavy);
  nyx_tensor_release(m);
  nyx_tensor_release(x);
}

static void random_values(void) {
  nyx_context_seed(ctx, 7);
  double mean, variance;
  for (int dtype = 0; dtype < 4; dtype++) {
    nyx_tensor *u = apply(ID(rand), NULL, NULL, NULL, ATTRS(LIST(20000), NYX_I(dtype)));
    double *v = read(u);
    bool inside = true;
    for (int i = 0; i < 20000; i++) inside = inside && v[i] >= 0 && v[i] < 1;
    CHECK(inside);
    moments(u, &mean, &variance);
    CHECK_NEAR(mean, 0.5, 0.01);
    CHECK_NEAR(variance, 1.0 / 12, 0.002);
    nyx_tensor_release(u);
    nyx_tensor *g = apply(ID(randn), NULL, NULL, NULL, ATTRS(LIST(20000), NYX_I(dtype)));
    moments(g, &mean, &variance);
    CHECK_NEAR(mean, 0, 0.03);
    CHECK_NEAR(variance, 1, 0.04);
    nyx_tensor_release(g);
  }
  nyx_tensor *r = apply(ID(randint), NULL, NULL, NULL,
                        ATTRS(NYX_I(-2), NYX_I(3), LIST(20000), NYX_NONE));
  int count[5] = {0};
  double *v = read(r);
  for (int i = 0; i < 20000; i++)
    if (CHECK_AT(v[i] >= -2 && v[i] < 3, "range", "%g", v[i])) count[(int)v[i] + 2]++;
  for (int i = 0; i < 5; i++) CHECK_NEAR(count[i], 4000, 300);
  nyx_tensor_release(r);
  nyx_context_set_index_base(ctx, 1);
  nyx_tensor *perm = apply(ID(randperm), NULL, NULL, NULL, ATTRS(NYX_I(1000), NYX_NONE));
  bool seen[1001] = {false};
  v = read(perm);
  for (int i = 0; i < 1000; i++) seen[(int)v[i]] = true;
  int found = 0;
  for (int i = 1; i <= 1000; i++) found += seen[i];
  CHECK_INT(found, 1000);
  nyx_tensor_release(perm);
  nyx_tensor *p = make(NYX_FLOAT64, SHAPE(2, 4), VALUES(0, 1, 3, 0, 1, 1, 1, 1));
  nyx_tensor *m = apply(ID(multinomial), p, NULL, NULL, ATTRS(NYX_I(8000), NYX_I(true)));
  v = read(m);
  int row[5] = {0};
  for (int i = 0; i < 8000; i++) row[(int)v[i]]++;
  CHECK_INT(row[1] + row[4], 0);
  CHECK_NEAR(row[3], 6000, 250);
  nyx_tensor_release(m);
  m = apply(ID(multinomial), p, NULL, NULL, ATTRS(NYX_I(2), NYX_NONE));
  v = read(m);
  CHECK(v[0] + v[1] == 5 && v[0] != v[1] && v[2] != v[3]);
  nyx_tensor_release(m);
  drawn_pairs();
  drawn_from_a_long_row();
  CHECK(fails(ID(multinomial), p, NULL, NULL, ATTRS(NYX_I(3), NYX_NONE), NYX_ERR_ARGUMENT,
              "2 weights"));
  nyx_context_set_index_base(ctx, 0);
  CHECK(fails(ID(bernoulli), p, NULL, NULL, NULL, NYX_ERR_ARGUMENT, "'x' holds 3"));
  CHECK(fails(ID(bernoulli), p, NULL, NULL, ATTRS(NYX_F(1.5)), NYX_ERR_ARGUMENT, "1.5"));
  nyx_tensor_release(p);
}

int main(void) {
  must(nyx_context_new(&ctx));
  RUN(sorting);
  RUN(unique_and_search);
  RUN(arranging);
  RUN(constructors);
  RUN(random_repeats);
  RUN(random_values);
  nyx_context_free(ctx);
  return check_done();
}
