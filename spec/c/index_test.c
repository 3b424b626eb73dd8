/* Ops that move elements by positions: gather, scatter, index, masks, cat, pad. Results
 * are compared with plain loops. Read next: tensors.h, arrange_test.c, index_grad_test.c.
 */
#include "tensors.h"

static const int64_t *strides_of(int ndim, const int64_t *shape) {
  static int64_t strides[4][NYX_MAX_DIMS];
  static int used;
  int64_t *s = strides[used++ % 4], step = 1;
  for (int d = ndim - 1; d >= 0; d--) {
    s[d] = step;
    step *= shape[d];
  }
  return s;
}

/* gather and scatter against loops over all coordinates */

static void compare_along(int ndim, const int64_t *xs, const int64_t *is, int dim) {
  const int64_t *xt = strides_of(ndim, xs);
  nyx_tensor *x = scramble(fresh(NYX_FLOAT64, ndim, xs));
  nyx_tensor *index = scramble(positions(xs[dim], ndim, is));
  nyx_tensor *src = scramble(fresh(NYX_FLOAT64, ndim, is));
  double *xv = read(x), *iv = read(index), *sv = read(src);
  static double gathered[MAX], set[MAX], added[MAX];
  int64_t n = nyx_tensor_numel(x), m = nyx_tensor_numel(index);
  memcpy(set, xv, (size_t)n * sizeof *set);
  memcpy(added, xv, (size_t)n * sizeof *set);
  for (int64_t i = 0; i < m; i++) {
    int64_t rest = i, at = 0;
    for (int d = ndim - 1; d >= 0; d--) {
      int64_t k = d == dim ? (int64_t)iv[i] - nyx_context_index_base(ctx) : rest % is[d];
      at += k * xt[d];
      rest /= is[d];
    }
    gathered[i] = xv[at];
    set[at] = sv[i];
    added[at] += sv[i];
  }
  nyx_value attrs[] = {NYX_I(dim), NYX_NONE};
  CHECK(holds(apply(ID(gather), x, index, NULL, attrs), ndim, is, gathered));
  nyx_tensor *dense, *dense_x; /* positions that are read where they are */
  must(nyx__apply1(ctx, ID(contiguous), index, NULL, &dense));
  must(nyx__apply1(ctx, ID(contiguous), x, NULL, &dense_x));
  CHECK(holds(apply(ID(gather), x, dense, NULL, attrs), ndim, is, gathered));
  CHECK(holds(apply(ID(gather), dense_x, dense, NULL, attrs), ndim, is, gathered));
  nyx_tensor_release(dense);
  nyx_tensor_release(dense_x);
  CHECK(holds(apply(ID(scatter), x, index, src, attrs), ndim, xs, set));
  CHECK(holds(apply(ID(scatter_add), x, index, src, attrs), ndim, xs, added));
  nyx_tensor_release(x);
  nyx_tensor_release(index);
  nyx_tensor_release(src);
}

static void gather_scatter_loops(void) {
  for (int base = 0; base < 2; base++) {
    nyx_context_set_index_base(ctx, base);
    compare_along(1, (int64_t[]){7}, (int64_t[]){12}, 0);
    compare_along(2, (int64_t[]){5, 7}, (int64_t[]){9, 6}, 0);
    compare_along(2, (int64_t[]){5, 7}, (int64_t[]){4, 30}, 1);
    compare_along(3, (int64_t[]){4, 5, 6}, (int64_t[]){3, 8, 5}, 1);
    compare_along(3, (int64_t[]){4, 5, 6}, (int64_t[]){9, 5, 6}, 0);
    compare_along(4, (int64_t[]){3, 4, 2, 5}, (int64_t[]){2, 4, 2, 9}, 3);
    compare_along(2, (int64_t[]){3, 700}, (int64_t[]){5, 650}, 0);
  }
  nyx_context_set_index_base(ctx, 0);
}

static void every_dtype_moves(void) {
  for (int dtype = 0; dtype < NYX_COMPLEX64; dtype++) {
    nyx_tensor *x = scramble(fresh((nyx_dtype)dtype, SHAPE(4, 5)));
    nyx_tensor *index = make(NYX_UINT8, SHAPE(2, 2), VALUES(4, 0, 2, 2));
    double *v = read(x);
    CHECK(holds(apply(ID(gather), x, index, NULL, ATTRS(NYX_I(1))), SHAPE(2, 2),
                VALUES(v[4], v[0], v[7], v[7])));
    nyx_tensor *list = make(NYX_INT32, SHAPE(3), VALUES(3, 0, 3));
    double rows[15];
    for (int i = 0; i < 5; i++) rows[i] = rows[10 + i] = v[15 + i], rows[5 + i] = v[i];
    CHECK(holds(apply(ID(index_select), x, list, NULL, ATTRS(NYX_I(0))), SHAPE(3, 5),
                rows));
    CHECK(holds(apply(ID(take), x, index, NULL, NULL), SHAPE(2, 2),
                VALUES(v[4], v[0], v[2], v[2])));
    double flipped[20];
    for (int i = 0; i < 20; i++) flipped[i] = v[19 - i];
    CHECK(holds(apply(ID(flip), x, NULL, NULL, ATTRS(LIST(0, 1))), SHAPE(4, 5), flipped));
    nyx_tensor_release(index);
    nyx_tensor_release(list);
    nyx_tensor_release(x);
  }
}

static void sums_in_every_dtype(void) {
  for (int dtype = 0; dtype < NYX_COMPLEX64; dtype++) {
    nyx_tensor *x = make((nyx_dtype)dtype, SHAPE(3), VALUES(1, 0, 0));
    nyx_tensor *src = make((nyx_dtype)dtype, SHAPE(4), VALUES(1, 1, 1, 0));
    nyx_tensor *index = make(NYX_INT64, SHAPE(4), VALUES(0, 2, 0, 1));
    bool flag = dtype == NYX_BOOL;
    double expected[] = {flag ? 1 : 3, 0, 1}, twice[] = {flag ? 1 : 5, 0, flag ? 1 : 2};
    CHECK(holds(apply(ID(scatter_add), x, index, src, ATTRS(NYX_I(0))), SHAPE(3),
                expected));
    CHECK(holds(apply(ID(index_add), x, index, src, ATTRS(NYX_I(0), NYX_F(2))), SHAPE(3),
                twice));
    nyx_tensor *in[] = {x, src, index}, *out;
    CHECK_OK(ctx, nyx__applyn(ctx, ID(index_put), in, 3, ATTRS(NYX_I(true)), &out));
    CHECK(holds(out, SHAPE(3), expected));
    nyx_tensor_release(x);
    nyx_tensor_release(src);
    nyx_tensor_release(index);
  }
  /* half types sum in float32: 2048 + 1 + 1 is not 2048 */
  nyx_tensor *x = make(NYX_FLOAT16, SHAPE(1), VALUES(2048));
  nyx_tensor *src = make(NYX_FLOAT16, SHAPE(2), VALUES(1, 1));
  nyx_tensor *index = make(NYX_INT64, SHAPE(2), VALUES(0, 0));
  CHECK(holds(apply(ID(scatter_add), x, index, src, ATTRS(NYX_I(0))), SHAPE(1),
              VALUES(2050)));
  nyx_tensor_release(x);
  nyx_tensor_release(src);
  nyx_tensor_release(index);
}

static void index_select_and_add(void) {
  nyx_tensor *x = scramble(fresh(NYX_FLOAT32, SHAPE(3, 4, 5)));
  nyx_tensor *list = make(NYX_INT64, SHAPE(6), VALUES(3, 1, 1, 0, 2, 3));
  double *v = read(x), picked[90], added[60];
  for (int o = 0; o < 3; o++)
    for (int k = 0; k < 6; k++)
      for (int i = 0; i < 5; i++)
        picked[(o * 6 + k) * 5 + i] = v[(o * 4 + (int[]){3, 1, 1, 0, 2, 3}[k]) * 5 + i];
  CHECK(holds(apply(ID(index_select), x, list, NULL, ATTRS(NYX_I(-2))), SHAPE(3, 6, 5),
              picked));
  nyx_tensor *source = scramble(fresh(NYX_FLOAT32, SHAPE(3, 6, 5)));
  double *s = read(source);
  memcpy(added, v, sizeof added);
  for (int o = 0; o < 3; o++)
    for (int k = 0; k < 6; k++)
      for (int i = 0; i < 5; i++)
        added[(o * 4 + (int[]){3, 1, 1, 0, 2, 3}[k]) * 5 + i] +=
            0.5 * s[(o * 6 + k) * 5 + i];
  CHECK(holds(apply(ID(index_add), x, list, source, ATTRS(NYX_I(1), NYX_F(0.5))),
              SHAPE(3, 4, 5), added));
  nyx_tensor_release(x);
  nyx_tensor_release(list);
  nyx_tensor_release(source);
}

static void index_and_put(void) {
  nyx_context_set_index_base(ctx, 1);
  nyx_tensor *x = scramble(fresh(NYX_FLOAT64, SHAPE(3, 4, 2)));
  nyx_tensor *i = make(NYX_INT64, SHAPE(2, 1), VALUES(1, -1));
  nyx_tensor *j = make(NYX_INT32, SHAPE(3), VALUES(4, 1, 4));
  double *v = read(x), expected[12];
  int ii[] = {0, 2}, jj[] = {3, 0, 3};
  for (int a = 0; a < 2; a++)
    for (int b = 0; b < 3; b++)
      for (int k = 0; k < 2; k++)
        expected[(a * 3 + b) * 2 + k] = v[(ii[a] * 4 + jj[b]) * 2 + k];
  CHECK(holds(apply(ID(index), x, i, j, NULL), SHAPE(2, 3, 2), expected));

  nyx_tensor *values = make(NYX_FLOAT64, SHAPE(3, 1), VALUES(10, 20, 30)), *out;
  nyx_tensor *in[] = {x, values, i, j};
  double put[24], sum[24];
  memcpy(put, v, sizeof put);
  memcpy(sum, v, sizeof sum);
  for (int a = 0; a < 2; a++)
    for (int b = 0; b < 3; b++)
      for (int k = 0; k < 2; k++) {
        put[(ii[a] * 4 + jj[b]) * 2 + k] = 10 * (b + 1);
        sum[(ii[a] * 4 + jj[b]) * 2 + k] += 10 * (b + 1);
      }
  CHECK_OK(ctx, nyx__applyn(ctx, ID(index_put), in, 4, NULL, &out));
  CHECK(holds(out, SHAPE(3, 4, 2), put));
  CHECK_OK(ctx, nyx__applyn(ctx, ID(index_put), in, 4, ATTRS(NYX_I(true)), &out));
  CHECK(holds(out, SHAPE(3, 4, 2), sum));
  CHECK(
      fails(ID(index), x, j, i, NULL, NYX_ERR_INDEX, "position 4 is out of range for "));
  nyx_tensor *zero = make(NYX_INT64, SHAPE(1), VALUES(0));
  CHECK(fails(ID(index), x, zero, NULL, NULL, NYX_ERR_INDEX, "position 0 is out"));
  nyx_context_set_index_base(ctx, 0);
  nyx_tensor *wide = make(NYX_FLOAT64, SHAPE(2, 2, 2), VALUES(1, 2, 3, 4, 5, 6, 7, 8));
  CHECK(fails(ID(index_put), x, wide, j, NULL, NYX_ERR_SHAPE, "2x2x2"));
  nyx_tensor *done[] = {x, i, j, values, zero, wide};
  for (int k = 0; k < 6; k++) nyx_tensor_release(done[k]);
}

static void index_errors(void) {
  nyx_tensor *x = fresh(NYX_FLOAT32, SHAPE(2, 3));
  nyx_tensor *bad = make(NYX_INT64, SHAPE(1, 2), VALUES(1, 3));
  nyx_tensor *list = make(NYX_INT64, SHAPE(2), VALUES(0, -1));
  nyx_tensor *real = make(NYX_FLOAT32, SHAPE(1, 2), VALUES(0, 1));
  nyx_tensor *big = make(NYX_INT64, SHAPE(3, 1), VALUES(0, 0, 0));
  nyx_value one[] = {NYX_I(1), NYX_NONE}, far[] = {NYX_I(2), NYX_NONE};
  CHECK(fails(ID(gather), x, bad, NULL, one, NYX_ERR_INDEX,
              "position 3 is out of range for dimension 1 of size 3"));
  CHECK(fails(ID(gather), x, real, NULL, one, NYX_ERR_DTYPE, "'index' is float32"));
  CHECK(fails(ID(gather), x, list, NULL, one, NYX_ERR_SHAPE, "'index' has shape (2)"));
  CHECK(fails(ID(gather), x, big, NULL, one, NYX_ERR_SHAPE, "(3x1)"));
  CHECK(fails(ID(gather), x, bad, NULL, far, NYX_ERR_INDEX, "dimension 2"));
  CHECK(fails(ID(index_select), x, list, NULL, one, NYX_ERR_INDEX, "position -1"));
  CHECK(fails(ID(scatter), x, bad, NULL, one, NYX_ERR_ARGUMENT, "value"));
  CHECK(fails(ID(scatter_add), x, bad, x, one, NYX_ERR_INDEX, "position 3"));
  CHECK(fails(ID(index_add), x, list, x, one, NYX_ERR_SHAPE, "expected (2x2)"));
  CHECK(fails(ID(take), x, bad, x, NULL, NYX_ERR_ARGUMENT, "inputs"));
  nyx_context_set_index_base(ctx, 1);
  CHECK(fails(ID(gather), x, big, NULL, ATTRS(NYX_I(0)), NYX_ERR_INDEX,
              "position 0 is out of range for dimension 1 of size 2"));
  nyx_context_set_index_base(ctx, 0);
  nyx_tensor *six = make(NYX_INT64, SHAPE(1), VALUES(6)), *bytes;
  CHECK(fails(ID(take), x, six, NULL, NULL, NYX_ERR_INDEX, "of 6 elements"));
  must(nyx__apply1(ctx, ID(cast), x, ATTRS(NYX_I(NYX_UINT8)), &bytes));
  nyx_tensor *zeros = make(NYX_INT64, SHAPE(1, 1), VALUES(0));
  CHECK(fails(ID(scatter), bytes, zeros, NULL, ATTRS(NYX_I(0), NYX_F(256)), NYX_ERR_DTYPE,
              "uint8"));
  nyx_tensor *done[] = {x, bad, list, real, big, six, bytes, zeros};
  for (int i = 0; i < 8; i++) nyx_tensor_release(done[i]);
}

/* New results are gathered while positions are looked at: a wrong one is found wherever
 * it is, also by one of several threads, and a result that was there stays as it was. */
static void wrong_positions(void) {
  static const nyx_dtype dtypes[] = {NYX_UINT8, NYX_FLOAT16, NYX_FLOAT32, NYX_INT64};
  static const int64_t shapes[][2] = {{1, 40}, {40, 1}, {6, 7}, {3, 6000}};
  static const int64_t wrong[] = {-1, 50, INT64_MAX, INT64_MIN};
  nyx_context_set_index_base(ctx, 0);
  for (int k = 0; k < 4 * 4 * 2; k++) {
    const int64_t *shape = shapes[k / 2 % 4];
    const int dim = k % 2;
    nyx_tensor *index = positions(50, 2, shape), *x, *out;
    must(nyx__applyn(
        ctx, ID(zeros), NULL, 0,
        ATTRS(LIST(dim ? shape[0] : 50, dim ? 50 : shape[1]), NYX_I(dtypes[k / 8])), &x));
    int64_t *at = nyx_tensor_data(index), n = nyx_tensor_numel(index);
    must(nyx_tensor_empty(ctx, dtypes[k / 8], 2, shape, &out));
    memset(nyx_tensor_data(out), 3, (size_t)n * nyx_dtype_size(dtypes[k / 8]));
    must(nyx_parallel_set_threads(1 + k % 3));
    for (int w = 0; w < 12; w++) {
      const int64_t place = w % 3 == 0 ? 0 : w % 3 == 1 ? n - 1 : n / 2, was = at[place];
      nyx_tensor *in[] = {x, index}, *outs[NYX_MAX_OUTPUTS] = {out};
      const nyx_value attr = NYX_I(dim);
      char text[64];
      at[place] = wrong[w / 3];
      snprintf(text, sizeof text, "position %lld is out of range for dimension %d",
               (long long)wrong[w / 3], dim);
      CHECK(fails(ID(gather), x, index, NULL, &attr, NYX_ERR_INDEX, text));
      CHECK_STATUS(nyx_apply(ctx, nyx__op(ID(gather)), in, 2, &attr, outs),
                   NYX_ERR_INDEX);
      at[place] = was;
    }
    const uint8_t *bytes = nyx_tensor_data(out);
    int64_t changed = 0;
    for (int64_t i = 0; i < n * (int64_t)nyx_dtype_size(dtypes[k / 8]); i++)
      changed += bytes[i] != 3;
    CHECK_INT(changed, 0);
    nyx_tensor *done[] = {x, index, out};
    for (int i = 0; i < 3; i++) nyx_tensor_release(done[i]);
  }
  must(nyx_parallel_set_threads(0));
  /* Of take some may count from the end. */
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(4), VALUES(5, 6, 7, 8));
  nyx_tensor *index = make(NYX_INT64, SHAPE(4), VALUES(1, -4, 3, -1));
  CHECK(holds(apply(ID(take), x, index, NULL, NULL), SHAPE(4), VALUES(6, 5, 8, 8)));
  ((int64_t *)nyx_tensor_data(index))[3] = -5;
  CHECK(fails(ID(take), x, index, NULL, NULL, NYX_ERR_INDEX, "-5"));
  nyx_tensor_release(x);
  nyx_tensor_release(index);
}

static void masks(void) {
  nyx_tensor *x = scramble(fresh(NYX_FLOAT32, SHAPE(2, 3)));
  nyx_tensor *mask = scramble(make(NYX_BOOL, SHAPE(2, 3), VALUES(1, 0, 1, 0, 0, 1)));
  nyx_tensor *row = make(NYX_BOOL, SHAPE(3), VALUES(0, 1, 1));
  double *v = read(x);
  CHECK(holds(apply(ID(masked_select), x, mask, NULL, NULL), SHAPE(3),
              VALUES(v[0], v[2], v[5])));
  CHECK(holds(apply(ID(masked_select), x, row, NULL, NULL), SHAPE(4),
              VALUES(v[1], v[2], v[4], v[5])));
  CHECK(holds(apply(ID(masked_fill), x, row, NULL, ATTRS(NYX_F(9))), SHAPE(2, 3),
              VALUES(v[0], 9, 9, v[3], 9, 9)));
  nyx_tensor *source = make(NYX_FLOAT32, SHAPE(5), VALUES(1, 2, 3, 4, 5));
  CHECK(holds(apply(ID(masked_scatter), x, mask, source, NULL), SHAPE(2, 3),
              VALUES(1, v[1], 2, v[3], v[4], 3)));
  nyx_tensor *few = make(NYX_FLOAT32, SHAPE(3), VALUES(1, 2, 3));
  CHECK(fails(ID(masked_scatter), x, row, few, NULL, NYX_ERR_SHAPE, "selects 4"));
  CHECK(fails(ID(masked_select), x, x, NULL, NULL, NYX_ERR_DTYPE, "expected bool"));
  CHECK(holds(apply(ID(nonzero), mask, NULL, NULL, NULL), SHAPE(3, 2),
              VALUES(0, 0, 0, 2, 1, 2)));
  nyx_context_set_index_base(ctx, 1);
  CHECK(holds(apply(ID(nonzero), row, NULL, NULL, NULL), SHAPE(2, 1), VALUES(2, 3)));
  nyx_context_set_index_base(ctx, 0);
  nyx_tensor *done[] = {x, mask, row, source, few};
  for (int i = 0; i < 5; i++) nyx_tensor_release(done[i]);
}

static void joining(void) {
  nyx_tensor *a = make(NYX_FLOAT32, SHAPE(2, 2), VALUES(1, 2, 3, 4));
  nyx_tensor *b = scramble(make(NYX_INT32, SHAPE(2, 1), VALUES(5, 6)));
  nyx_tensor *none = make(NYX_FLOAT32, SHAPE(0), VALUES(0));
  nyx_tensor *out = apply(ID(cat), a, b, none, ATTRS(NYX_I(1)));
  CHECK(out && nyx_tensor_dtype(out) == NYX_FLOAT32);
  CHECK(holds(out, SHAPE(2, 3), VALUES(1, 2, 5, 3, 4, 6)));
  CHECK(holds(apply(ID(cat), none, a, a, NULL), SHAPE(4, 2),
              VALUES(1, 2, 3, 4, 1, 2, 3, 4)));
  CHECK(fails(ID(cat), a, b, NULL, NULL, NYX_ERR_SHAPE, "input 2 has shape (2x1)"));
  CHECK(holds(apply(ID(stack), a, a, NULL, ATTRS(NYX_I(-1))), SHAPE(2, 2, 2),
              VALUES(1, 1, 2, 2, 3, 3, 4, 4)));
  CHECK(fails(ID(stack), a, b, NULL, NULL, NYX_ERR_SHAPE, "(2x1)"));
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  nyx_tensor_release(none);
}

/* pad against its definition in each dimension */
static int64_t pad_source(int64_t at, int64_t n, const char *mode) {
  if (at >= 0 && at < n) return at;
  if (mode[0] == 'c' && mode[1] == 'o') return -1;
  if (mode[2] == 'f') return at < 0 ? -at : 2 * n - 2 - at;
  if (mode[2] == 'p') return at < 0 ? 0 : n - 1;
  return (at + n) % n;
}

static void padding(void) {
  const char *modes[] = {"constant", "reflect", "replicate", "circular"};
  int64_t pads[] = {2, 1, -1, 2}, shape[] = {2, 4, 3}, wide[] = {2, 5, 6};
  for (int dtype = 0; dtype < NYX_COMPLEX64; dtype++)
    for (int m = 0; m < 4; m++) {
      nyx_tensor *x = scramble(fresh((nyx_dtype)dtype, 3, shape));
      double *v = read(x), expected[60];
      for (int o = 0; o < 2; o++)
        for (int i = 0; i < 5; i++)
          for (int j = 0; j < 6; j++) {
            int64_t a = pad_source(i + 1, 4, modes[m]),
                    b = pad_source(j - 2, 3, modes[m]);
            expected[(o * 5 + i) * 6 + j] = a < 0 || b < 0 ? 1 : v[(o * 4 + a) * 3 + b];
          }
      CHECK(holds(apply(ID(pad), x, NULL, NULL,
                        ATTRS(NYX_LIST(pads, 4), NYX_S(modes[m]), NYX_F(1))),
                  3, wide, expected));
      nyx_tensor_release(x);
    }
  nyx_tensor *x = fresh(NYX_FLOAT32, SHAPE(2, 3));
  nyx_value none = NYX_NONE;
  CHECK(fails(ID(pad), x, NULL, NULL, ATTRS(LIST(1), none, none), NYX_ERR_ARGUMENT,
              "pairs"));
  CHECK(fails(ID(pad), x, NULL, NULL, ATTRS(LIST(3, 0), NYX_S("reflect"), none),
              NYX_ERR_SHAPE, "(3, 0)"));
  CHECK(fails(ID(pad), x, NULL, NULL, ATTRS(LIST(-2, -2), none, none), NYX_ERR_SHAPE,
              "dimension 1"));
  CHECK(fails(ID(pad), x, NULL, NULL, ATTRS(LIST(INT64_MAX, 1), none, none),
              NYX_ERR_SHAPE, "pad"));
  CHECK(fails(ID(pad), x, NULL, NULL, ATTRS(LIST(1, 1), NYX_S("wrap"), none),
              NYX_ERR_ARGUMENT, "circular"));
  nyx_tensor_release(x);
}

/* Sums with equal positions do not depend on the number of threads. */
static void sums_repeat(void) {
  nyx_tensor *x, *src = NULL, *index = positions(3, SHAPE(15000)), *first = NULL;
  nyx_context_seed(ctx, 3);
  must(nyx__applyn(ctx, ID(randn), NULL, 0, ATTRS(LIST(15000), NYX_NONE), &src));
  must(nyx__applyn(ctx, ID(zeros), NULL, 0, ATTRS(LIST(3), NYX_NONE), &x));
  for (int threads = 1; threads <= 4; threads++) {
    must(nyx_parallel_set_threads(threads));
    nyx_tensor *sum = apply(ID(scatter_add), x, index, src, ATTRS(NYX_I(0)));
    if (first) CHECK(memcmp(nyx_tensor_data(first), nyx_tensor_data(sum), 12) == 0);
    nyx_tensor_release(first);
    first = sum;
  }
  must(nyx_parallel_set_threads(0));
  nyx_tensor *done[] = {x, src, index, first};
  for (int i = 0; i < 4; i++) nyx_tensor_release(done[i]);
}

static void in_place(void) {
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(3), VALUES(1, 2, 3));
  nyx_tensor *index = make(NYX_INT64, SHAPE(2), VALUES(2, 2));
  nyx_tensor *src = make(NYX_FLOAT32, SHAPE(2), VALUES(10, 20));
  nyx_tensor *in[] = {x, index, src}, *outs[NYX_MAX_OUTPUTS] = {x};
  nyx_value dim = NYX_I(0);
  CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(scatter_add)), in, 3, &dim, outs));
  CHECK(same(read(x), VALUES(1, 2, 33), 3));
  nyx_tensor *bad = make(NYX_INT64, SHAPE(2), VALUES(0, 3));
  in[1] = bad;
  CHECK_STATUS(nyx_apply(ctx, nyx__op(ID(scatter_add)), in, 3, &dim, outs),
               NYX_ERR_INDEX);
  CHECK(same(read(x), VALUES(1, 2, 33), 3));
  nyx_tensor_release(x);
  nyx_tensor_release(index);
  nyx_tensor_release(src);
  nyx_tensor_release(bad);
}

/* More positions than one thread takes: whole rows, single elements, a step. */
static void large_gathers(void) {
  static double from[3 * 6000];
  const int64_t shapes[][2] = {{18000, 1}, {1, 18000}, {6000, 3}, {3, 6000}};
  must(nyx_parallel_set_threads(3));
  for (int s = 0; s < 4; s++)
    for (int dim = 0; dim < 2; dim++)
      for (int turn = 0; turn < 2; turn++) {
        const int64_t *shape = shapes[s];
        nyx_tensor *x = fresh(NYX_FLOAT32, 2, shape);
        nyx_tensor *index = positions(shape[dim], 2, shape);
        if (turn) x = scramble(x);
        const double *v = read(x), *at = read(index);
        for (int64_t i = 0; i < 18000; i++) {
          int64_t r = i / shape[1], c = i % shape[1], k = (int64_t)at[i];
          k -= nyx_context_index_base(ctx);
          from[i] = v[dim ? r * shape[1] + k : k * shape[1] + c];
        }
        CHECK(
            holds(apply(ID(gather), x, index, NULL, ATTRS(NYX_I(dim))), 2, shape, from));
        nyx_tensor_release(x);
        nyx_tensor_release(index);
      }
  must(nyx_parallel_set_threads(0));
}

/* The positions are read as they were before anything is written. */
static void positions_written(void) {
  nyx_tensor *x = make(NYX_INT64, SHAPE(4), VALUES(3, 0, 1, 2));
  nyx_tensor *src = make(NYX_INT64, SHAPE(4), VALUES(9, 8, 7, 6));
  nyx_tensor *in[] = {x, x, src}, *outs[NYX_MAX_OUTPUTS] = {x};
  nyx_value dim[] = {NYX_I(0), NYX_NONE};
  CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(scatter)), in, 3, dim, outs));
  CHECK(same(read(x), VALUES(8, 7, 6, 9), 4));
  nyx_tensor_release(x);
  nyx_tensor_release(src);
}

/* A target that is a strided view, and sources that share its memory. */
static void in_place_views(void) {
  for (int dtype = 0; dtype < 4; dtype++) {
    nyx_tensor *x = make((nyx_dtype)dtype, SHAPE(2, 3), VALUES(1, 2, 3, 4, 5, 6)), *t;
    must(nyx__apply1(ctx, ID(transpose), x, ATTRS(NYX_I(0), NYX_I(1)), &t)); /* 3x2 */
    nyx_tensor *index = make(NYX_INT64, SHAPE(2), VALUES(2, 0));
    nyx_tensor *rows = NULL, *mask = make(NYX_BOOL, SHAPE(3, 1), VALUES(0, 1, 0));
    must(nyx__apply1(ctx, ID(narrow), t, ATTRS(NYX_I(0), NYX_I(0), NYX_I(2), NYX_I(1)),
                     &rows));
    nyx_tensor *outs[NYX_MAX_OUTPUTS] = {t};
    CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(index_add)), (nyx_tensor *[]){t, index, rows},
                            3, ATTRS(NYX_I(0), NYX_F(1)), outs));
    CHECK(same(read(x), VALUES(3, 2, 4, 9, 5, 10), 6));
    CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(index_put)), (nyx_tensor *[]){t, rows, index},
                            3, NULL, outs));
    CHECK(same(read(x), VALUES(2, 2, 3, 5, 5, 9), 6));
    CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(masked_fill)), (nyx_tensor *[]){t, mask}, 2,
                            ATTRS(NYX_F(7)), outs));
    CHECK(same(read(x), VALUES(2, 7, 3, 5, 7, 9), 6));
    CHECK_OK(ctx, nyx_apply(ctx, nyx__op(ID(masked_scatter)),
                            (nyx_tensor *[]){t, mask, rows}, 3, NULL, outs));
    CHECK(same(read(x), VALUES(2, 2, 3, 5, 5, 9), 6));
    nyx_tensor *done[] = {x, t, index, rows, mask};
    for (int i = 0; i < 5; i++) nyx_tensor_release(done[i]);
  }
}

static void empty_tensors(void) {
  nyx_tensor *x = make(NYX_FLOAT32, SHAPE(0, 3), VALUES(0));
  nyx_tensor *y = fresh(NYX_FLOAT32, SHAPE(2, 3));
  nyx_tensor *i = make(NYX_INT64, SHAPE(0, 3), VALUES(0));
  nyx_tensor *one = make(NYX_INT64, SHAPE(1), VALUES(0));
  nyx_value dim = NYX_I(0);
  int64_t none[] = {0, 3};
  CHECK(holds(apply(ID(gather), x, i, NULL, &dim), 2, none, NULL));
  CHECK(holds(apply(ID(gather), y, i, NULL, &dim), 2, none, NULL));
  CHECK(fails(ID(index_select), x, one, NULL, &dim, NYX_ERR_INDEX, "size 0"));
  CHECK(holds(apply(ID(sort), x, NULL, NULL, ATTRS(dim, NYX_NONE, NYX_NONE)), 2, none,
              NULL));
  CHECK(holds(apply(ID(sort), x, NULL, NULL, NULL), 2, none, NULL));
  CHECK(holds(apply(ID(flip), x, NULL, NULL, ATTRS(LIST(0, 1))), 2, none, NULL));
  CHECK(holds(apply(ID(roll), x, NULL, NULL, ATTRS(LIST(1), NYX_NONE)), 2, none, NULL));
  CHECK(holds(apply(ID(tril), x, NULL, NULL, NULL), 2, none, NULL));
  CHECK(holds(apply(ID(nonzero), x, NULL, NULL, NULL), SHAPE(0, 2), NULL));
  CHECK(holds(apply(ID(unique), x, NULL, NULL, NULL), SHAPE(0), NULL));
  CHECK(holds(apply(ID(tile), y, NULL, NULL, ATTRS(LIST(0, 1))), 2, none, NULL));
  CHECK(holds(apply(ID(repeat_interleave), x, NULL, NULL, ATTRS(NYX_I(2), NYX_I(0))), 2,
              none, NULL));
  CHECK(holds(apply(ID(pad), x, NULL, NULL, ATTRS(LIST(0, 0, 1, 1), NYX_NONE, NYX_F(5))),
              SHAPE(2, 3), VALUES(5, 5, 5, 5, 5, 5)));
  CHECK(holds(apply(ID(cat), x, y, NULL, NULL), SHAPE(2, 3), read(y)));
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_tensor_release(i);
  nyx_tensor_release(one);
}

int main(void) {
  must(nyx_context_new(&ctx));
  RUN(gather_scatter_loops);
  RUN(every_dtype_moves);
  RUN(sums_in_every_dtype);
  RUN(index_select_and_add);
  RUN(index_and_put);
  RUN(index_errors);
  RUN(wrong_positions);
  RUN(masks);
  RUN(joining);
  RUN(padding);
  RUN(sums_repeat);
  RUN(in_place);
  RUN(large_gathers);
  RUN(positions_written);
  RUN(in_place_views);
  RUN(empty_tensors);
  nyx_context_free(ctx);
  return check_done();
}
