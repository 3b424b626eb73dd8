/* Mixed precision and the edge of a graph, in C: dtypes, the casts that are kept, the
 * random state, and every allocation failing in turn. Read next: core/op/autocast.c,
 * core/grad/boundary.c. */
#include "tensors.h"

static size_t live(void) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  return stats.live;
}

static void autocast(bool on, nyx_dtype dtype) {
  must(nyx_context_set_autocast(ctx, (nyx_autocast_mode){on, dtype, NULL}));
}

static nyx_tensor *product(nyx_tensor *x, nyx_tensor *y) {
  nyx_tensor *out;
  must(nyx__apply2(ctx, ID(matmul), x, y, NULL, &out));
  return out;
}

static bool makes(nyx_dtype expected, nyx_tensor *x, nyx_tensor *y) {
  nyx_tensor *out = product(x, y);
  bool ok = nyx_tensor_dtype(out) == expected;
  nyx_tensor_release(out);
  return ok;
}

static void modes(void) {
  nyx_autocast_mode mode = nyx_context_autocast(ctx);
  CHECK(!mode.enabled);
  CHECK(nyx_context_set_autocast(ctx, (nyx_autocast_mode){true, NYX_FLOAT32, NULL}) ==
        NYX_ERR_DTYPE);
  CHECK(strstr(nyx_context_error(ctx), "expected bfloat16 or float16") != NULL);
  CHECK(!nyx_context_autocast(ctx).enabled);
  nyx_tensor *x = fresh(NYX_FLOAT32, SHAPE(3, 3)), *d = fresh(NYX_FLOAT64, SHAPE(3, 3));
  CHECK(makes(NYX_FLOAT32, x, x));
  autocast(true, NYX_BFLOAT16);
  CHECK(makes(NYX_BFLOAT16, x, x));
  CHECK(makes(NYX_FLOAT64, x, d));
  autocast(true, NYX_FLOAT16);
  CHECK(makes(NYX_FLOAT16, x, x));
  nyx_device *cpu;
  must(nyx_device_find(ctx, "cpu", &cpu));
  must(nyx_context_set_autocast(ctx, (nyx_autocast_mode){true, NYX_FLOAT16, cpu}));
  CHECK(makes(NYX_FLOAT16, x, x));
  const nyx_device *other = (const nyx_device *)(const void *)x; /* some other address */
  must(nyx_context_set_autocast(ctx, (nyx_autocast_mode){true, NYX_FLOAT16, other}));
  CHECK(makes(NYX_FLOAT32, x, x));
  autocast(false, NYX_BFLOAT16);
  nyx_tensor_release(x);
  nyx_tensor_release(d);
}

/* What a row says is what nyx_apply does, for every op with one float input. */
static void every_op(void) {
  nyx_tensor *half = fresh(NYX_FLOAT16, SHAPE(3, 3));
  autocast(true, NYX_BFLOAT16);
  int seen = 0;
  for (int i = 0; i < nyx_op_count(); i++) {
    const nyx_op *op = nyx_op_at(i);
    if (op->max_in != 1 || op->n_out != 1 || op->autocast == NYX_AUTOCAST_LOW) continue;
    if (op->kind != NYX_OP_ELEMENTWISE && op->kind != NYX_OP_REDUCTION) continue;
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    if (nyx_apply(ctx, op, &half, 1, NULL, out) != NYX_OK) continue;
    nyx_dtype dtype = nyx_tensor_dtype(out[0]);
    bool up = op->autocast == NYX_AUTOCAST_FLOAT32;
    CHECK_AT(!nyx_dtype_is_float(dtype) || dtype == (up ? NYX_FLOAT32 : NYX_FLOAT16),
             "the dtype that the row says", ": %s", op->name);
    nyx_tensor_release(out[0]);
    seen++;
  }
  CHECK(seen > 60);
  autocast(false, NYX_BFLOAT16);
  nyx_tensor_release(half);
}

/* More parameters than the table of casts starts with; every one is cast once. */
static void kept_casts(void) {
  enum { N = 200 };
  nyx_tensor *w[N], *x = fresh(NYX_BFLOAT16, SHAPE(1, 2));
  for (int i = 0; i < N; i++) {
    w[i] = fresh(NYX_FLOAT32, SHAPE(2, 2));
    must(nyx_tensor_set_requires_grad(ctx, w[i], true));
  }
  size_t before = live();
  autocast(true, NYX_BFLOAT16);
  for (int i = 0; i < N; i++) nyx_tensor_release(product(x, w[i]));
  size_t held = live();
  CHECK(held > before);
  for (int i = 0; i < N; i++) nyx_tensor_release(product(x, w[i]));
  CHECK(live() == held);
  nyx_context_set_grad_enabled(ctx, false);
  nyx_tensor *one = fresh(NYX_FLOAT32, SHAPE(2, 2)), *to[1] = {w[7]};
  must(nyx_apply(ctx, nyx__op(ID(mul)), (nyx_tensor *[]){w[7], one}, 2, NULL, to));
  nyx_context_set_grad_enabled(ctx, true);
  nyx_tensor *got = product(x, w[7]), *plain, *expected;
  must(nyx_tensor_detach(ctx, w[7], &plain));
  expected = product(x, plain);
  double a, b;
  for (int64_t i = 0; i < 2; i++) {
    nyx_tensor *p, *q;
    const nyx_value at[] = {NYX_I(-1), NYX_I(i)};
    must(nyx__apply1(ctx, ID(select), got, at, &p));
    must(nyx__apply1(ctx, ID(select), expected, at, &q));
    must(nyx_tensor_item(ctx, p, &a));
    must(nyx_tensor_item(ctx, q, &b));
    CHECK(a == b);
    nyx_tensor_release(p);
    nyx_tensor_release(q);
  }
  nyx_tensor *done[] = {one, got, plain, expected};
  for (int i = 0; i < 4; i++) nyx_tensor_release(done[i]);
  autocast(false, NYX_BFLOAT16);
  CHECK(live() == before);
  for (int i = 0; i < N; i++) nyx_tensor_release(w[i]);
  nyx_tensor_release(x);
}

/* A context that goes while casts are kept takes them along. */
static void contexts(void) {
  nyx_context *main_context = ctx;
  nyx_tensor *x = fresh(NYX_FLOAT32, SHAPE(2, 2));
  must(nyx_tensor_set_requires_grad(ctx, x, true));
  size_t before = live();
  must(nyx_context_new(&ctx));
  autocast(true, NYX_FLOAT16);
  nyx_tensor_release(product(x, x));
  nyx_context_free(ctx);
  ctx = main_context;
  CHECK(live() == before);
  nyx_tensor_release(x);
}

static nyx_status forward_backward(nyx_tensor *x, nyx_tensor *w) {
  nyx_tensor *y = NULL, *sum = NULL;
  nyx_status status = nyx__apply2(ctx, ID(matmul), x, w, NULL, &y);
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(sum), y, NULL, &sum);
  if (status == NYX_OK) status = nyx_backward_run(ctx, sum, NULL, NULL);
  nyx_tensor_release(y);
  nyx_tensor_release(sum);
  if (nyx_context_set_autocast(ctx, nyx_context_autocast(ctx)) != NYX_OK) return status;
  CHECK(nyx_tensor_set_grad(ctx, w, NULL) == NYX_OK);
  return status;
}

static void without_memory(void) {
  nyx_tensor *x = fresh(NYX_FLOAT32, SHAPE(2, 3)), *w = fresh(NYX_FLOAT32, SHAPE(3, 2));
  must(nyx_tensor_set_requires_grad(ctx, w, true));
  autocast(true, NYX_BFLOAT16);
  must(forward_backward(x, w));
  autocast(false, NYX_BFLOAT16);
  size_t before = live();
  bool done = false;
  for (int n = 0; !done && n < 200; n++) {
    autocast(true, NYX_BFLOAT16);
    nyx_memory_fail_after(n);
    nyx_status status = forward_backward(x, w);
    nyx_memory_fail_after(-1);
    CHECK(status == NYX_OK || status == NYX_ERR_MEMORY);
    autocast(false, NYX_BFLOAT16);
    CHECK_AT(live() == before, "nothing is left behind", ": allocation %d", n);
    done = status == NYX_OK && n > 10;
  }
  CHECK(done);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
}

static void random_state(void) {
  nyx_context_seed(ctx, 9);
  int64_t shape = 5;
  const nyx_value attr[] = {NYX_LIST(&shape, 1), NYX_NONE, NYX_NONE};
  nyx_tensor *t[3];
  must(nyx__applyn(ctx, ID(rand), NULL, 0, attr, &t[0]));
  nyx_random_state then = nyx_context_random_state(ctx);
  CHECK(then.seed == 9 && then.next > 0);
  must(nyx__applyn(ctx, ID(rand), NULL, 0, attr, &t[1]));
  nyx_context_seed(ctx, 10);
  nyx_context_set_random_state(ctx, then);
  CHECK(nyx_context_seed_of(ctx) == 9);
  must(nyx__applyn(ctx, ID(rand), NULL, 0, attr, &t[2]));
  CHECK(memcmp(nyx_tensor_data(t[1]), nyx_tensor_data(t[2]), 5 * sizeof(float)) == 0);
  CHECK(memcmp(nyx_tensor_data(t[0]), nyx_tensor_data(t[1]), 5 * sizeof(float)) != 0);
  for (int i = 0; i < 3; i++) nyx_tensor_release(t[i]);
}

/* y = (a * m) * b + a with m = a * b made before: the part hangs from a, m and b. */
static void graph_inputs(void) {
  nyx_tensor *a = fresh(NYX_FLOAT64, SHAPE(2)), *b = fresh(NYX_FLOAT64, SHAPE(2));
  nyx_tensor *m, *p, *q, *y, *sum, *in[4], *grad[3] = {NULL};
  must(nyx_tensor_set_requires_grad(ctx, a, true));
  must(nyx_tensor_set_requires_grad(ctx, b, true));
  must(nyx__apply2(ctx, ID(mul), a, b, NULL, &m));
  uint64_t since = nyx_graph_now();
  must(nyx__apply2(ctx, ID(mul), a, m, NULL, &p));
  must(nyx__apply2(ctx, ID(mul), p, b, NULL, &q));
  must(nyx__apply2(ctx, ID(add), q, a, NULL, &y));
  must(nyx__apply1(ctx, ID(sum), y, NULL, &sum));
  int count;
  must(nyx_graph_inputs(ctx, &sum, 1, since, NULL, 0, NULL, 0, &count));
  CHECK(count == 3);
  must(nyx_graph_inputs(ctx, &sum, 1, since, &m, 1, in, 4, &count));
  CHECK(count == 2 && in[0] == a && in[1] == b);
  for (int i = 0; i < count; i++) nyx_tensor_release(in[i]);
  must(nyx_graph_inputs(ctx, &sum, 1, since, (nyx_tensor *[]){a, b}, 2, in, 4, &count));
  CHECK(count == 1);
  CHECK(nyx_tensor_ndim(in[0]) == 1 && nyx_tensor_dtype(in[0]) == NYX_FLOAT64);
  CHECK(strcmp(nyx_tensor_grad_op(in[0]), "mul") == 0);
  /* In the graph cut at a, m and b: d/da = m b + 1, d/dm = a b, d/db = a m. */
  const nyx_backward_options cut = {.cut = true};
  nyx_tensor *wanted[] = {a, in[0], b};
  must(nyx_gradients(ctx, sum, NULL, wanted, 3, &cut, grad));
  double *av = nyx_tensor_data(a), *bv = nyx_tensor_data(b);
  for (int i = 0; i < 2; i++) {
    double mv = av[i] * bv[i];
    CHECK(((double *)nyx_tensor_data(grad[0]))[i] == mv * bv[i] + 1);
    CHECK(((double *)nyx_tensor_data(grad[1]))[i] == av[i] * bv[i]);
    CHECK(((double *)nyx_tensor_data(grad[2]))[i] == av[i] * mv);
  }
  size_t before = live();
  nyx_tensor *again[4];
  bool done = false;
  for (int n = 0; !done && n < 20; n++) {
    nyx_memory_fail_after(n);
    nyx_status status = nyx_graph_inputs(ctx, &y, 1, since, NULL, 0, again, 4, &count);
    nyx_memory_fail_after(-1);
    CHECK(status == NYX_OK || status == NYX_ERR_MEMORY);
    done = status == NYX_OK;
    for (int i = 0; done && i < count; i++) nyx_tensor_release(again[i]);
    CHECK(live() == before);
  }
  CHECK(done);
  nyx_tensor *all[] = {a, b, m, p, q, y, sum, in[0], grad[0], grad[1], grad[2]};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) nyx_tensor_release(all[i]);
}

int main(void) {
  must(nyx_context_new(&ctx));
  RUN(modes);
  RUN(every_op);
  RUN(kept_casts);
  RUN(contexts);
  RUN(without_memory);
  RUN(random_state);
  RUN(graph_inputs);
  nyx_context_free(ctx);
  return check_done();
}
