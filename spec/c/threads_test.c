/* Results do not depend on the number of threads: every op of the table, forward and
 * backward, in every dtype it takes, on sizes that are split, gives the same bits with 1,
 * 2, 3 and 5 threads. Read next: cases.h, core/base/parallel.c. */
#include <nyx/nyx.h>

#include "cases.h"
#include "check.h"

enum { LARGE = 70000 }; /* elements of all inputs together, at most */

/* Other dtypes run the same code, and what one thread does is no race: minutes under the
 * sanitizer of threads. */
#if defined(__SANITIZE_THREAD__)
enum { EVERY_DTYPE = 0 };
static const int threads[] = {2, 3};
#else
enum { EVERY_DTYPE = 1 };
static const int threads[] = {1, 2, 3, 5};
#endif

static const int64_t scales[] = {128, 32, 12, 6, 4, 3, 2, 1};

static nyx_context *ctx;
static int calls, split_calls;

/* What one call gave: outputs, then gradients of inputs. */
typedef struct results {
  nyx_tensor *t[NYX_MAX_OUTPUTS + CASES_INPUTS];
} results;

static void drop(results *r) {
  for (size_t i = 0; i < sizeof r->t / sizeof *r->t; i++) nyx_tensor_release(r->t[i]);
}

static bool backward(cases_sample *s, results *r) {
  nyx_tensor *out = r->t[0], *seed;
  if (!nyx_tensor_requires_grad(out) || nyx_tensor_is_leaf(out)) return true;
  seed = cases_filled(ctx, nyx_tensor_dtype(out), nyx_tensor_ndim(out),
                      nyx_tensor_shape(out), 0, 0.5, 1.5);
  bool ok = seed && nyx_backward_run(ctx, out, seed, NULL) == NYX_OK;
  nyx_tensor_release(seed);
  for (int i = 0; ok && i < s->n; i++) {
    if (!s->in[i]) continue;
    r->t[NYX_MAX_OUTPUTS + i] = nyx_tensor_retain(nyx_tensor_grad(s->in[i]));
    ok = nyx_tensor_set_grad(ctx, s->in[i], NULL) == NYX_OK;
  }
  return ok;
}

/* Some ops change their inputs: each call begins with the same contents. */
static void *contents[CASES_INPUTS];

static bool keep(cases_sample *s, bool restore) {
  for (int i = 0; i < s->n; i++) {
    size_t bytes = s->in[i] ? nyx_tensor_storage_bytes(s->in[i]) : 0;
    if (!restore && !(contents[i] = nyx_memory_alloc(bytes))) return false;
    void *data = bytes ? nyx_tensor_data(s->in[i]) : NULL;
    if (bytes && !restore) memcpy(contents[i], data, bytes);
    if (bytes && restore) memcpy(data, contents[i], bytes);
  }
  return true;
}

static bool once(cases_sample *s, int n, results *r) {
  *r = (results){0};
  if (!keep(s, true)) return false;
  nyx_context_seed(ctx, 7);
  return nyx_parallel_set_threads(n) == NYX_OK &&
         nyx_apply(ctx, s->op, s->in, s->n, s->attr, r->t) == NYX_OK && backward(s, r);
}

static bool same_bits(const nyx_tensor *a, const nyx_tensor *b) {
  if (!a || !b) return a == b;
  nyx_dtype dtype = nyx_tensor_dtype(a);
  size_t bytes = (size_t)nyx_tensor_numel(a) * nyx_dtype_size(dtype);
  if (nyx_tensor_numel(a) != nyx_tensor_numel(b) || dtype != nyx_tensor_dtype(b))
    return false;
  char *x = nyx_memory_alloc(bytes), *y = nyx_memory_alloc(bytes);
  bool same = x && y &&
              nyx_tensor_read(ctx, (nyx_tensor *)a, dtype, x, bytes) == NYX_OK &&
              nyx_tensor_read(ctx, (nyx_tensor *)b, dtype, y, bytes) == NYX_OK &&
              memcmp(x, y, bytes) == 0;
  nyx_memory_free(x);
  nyx_memory_free(y);
  return same;
}

static bool done; /* the sample ran at this scale */

static void compare(cases_sample *s) {
  int64_t numel = 0;
  for (int i = 0; i < s->n; i++) {
    if (!s->in[i]) continue;
    numel += nyx_tensor_numel(s->in[i]);
    if (s->op->gradient && nyx_dtype_is_float(nyx_tensor_dtype(s->in[i])))
      CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, s->in[i], true));
  }
  results first, other;
  REQUIRE(CHECK(keep(s, false)));
  done = once(s, threads[0], &first);
  for (size_t k = 1; done && k < sizeof threads / sizeof *threads; k++) {
    bool again = once(s, threads[k], &other);
    CHECK_AT(again, "the call", ": %s %.*s: %s", s->op->name, s->length, s->text,
             nyx_context_error(ctx));
    for (size_t i = 0; again && i < sizeof first.t / sizeof *first.t; i++)
      CHECK_AT(same_bits(first.t[i], other.t[i]), "the same bits",
               ": %s %.*s, %s %d, %d threads", s->op->name, s->length, s->text,
               i < NYX_MAX_OUTPUTS ? "output" : "gradient",
               (int)(i < NYX_MAX_OUTPUTS ? i : i - NYX_MAX_OUTPUTS), threads[k]);
    drop(&other);
  }
  drop(&first);
  for (int i = 0; i < s->n; i++) nyx_memory_free(contents[i]);
  if (done) calls++;
  if (done && numel > 20000) split_calls++;
}

static int64_t inputs_of_sample;
static void count(cases_sample *s) {
  inputs_of_sample = 0;
  for (int i = 0; i < s->n; i++)
    if (s->in[i]) inputs_of_sample += nyx_tensor_numel(s->in[i]);
}

/* The most dimensions of an input in a line of `cases`. */
static int most_dims(const char *line) {
  int most = 1, here = 0;
  for (const char *p = line; *p && *p != ';'; p++) {
    if (*p == '(') here = p[1] != ')';
    if (*p == ',') here++;
    if (here > most) most = here;
  }
  return most;
}

/* One line of `cases` at the largest scale that fits and that the op accepts: sizes that
 * an attribute names do not grow with the inputs. */
static void largest(const nyx_op *op, const char *line, nyx_dtype dtype) {
  nyx_op one = *op;
  one.cases = line;
  bool row = op->kind == NYX_OP_ELEMENTWISE || op->kind == NYX_OP_REDUCTION;
  done = false;
  for (size_t k = 0; !done && k < sizeof scales / sizeof *scales; k++) {
    /* measured at scale 1, so that nothing too large is made */
    cases_options options = {.dtype = dtype, .scale = 1};
    (row ? cases_of_row : cases_of_op)(ctx, &one, &options, count);
    double size = (double)inputs_of_sample;
    options.scale = scales[k];
    int dims = row ? 2 : most_dims(line);
    for (int d = 0; d < dims; d++) size *= (double)options.scale;
    if (size > LARGE && options.scale > 1) continue;
    (row ? cases_of_row : cases_of_op)(ctx, &one, &options, compare);
    if (row && !(op->dtypes & NYX_DTYPES(dtype))) return;
  }
  /* Integers: numbers that they cannot hold, and ops that say nothing of dtypes. */
  bool any = nyx_dtype_is_float(dtype) || (op->dtypes && !strstr(line, "value="));
  CHECK_AT(done || !any, "a scale that the op accepts", ": %s %s: %s", op->name, line,
           nyx_context_error(ctx));
}

/* Ops that say nothing of dtypes take what their inputs are; integers become floats where
 * an op promotes them. */
static bool takes(const nyx_op *op, nyx_dtype dtype) {
  if (op->dtypes == 0 || op->dtypes & NYX_DTYPES(dtype)) return true;
  if (op->dtypes & NYX_DTYPES_FLOAT) return false; /* other floats, or other inputs */
  return nyx_dtype_is_float(dtype) && dtype != NYX_FLOAT16;
}

static void every_op(nyx_dtype dtype) {
  for (int i = 0; i < nyx_op_count(); i++) {
    const nyx_op *op = nyx_op_at(i);
    char line[512];
    if (!takes(op, dtype)) continue;
    if (!op->cases) largest(op, "", dtype);
    for (const char *p = op->cases; p && *p;) {
      size_t length = strcspn(p, "\n");
      if (CHECK(length < sizeof line)) {
        memcpy(line, p, length);
        line[length] = '\0';
        largest(op, line, dtype);
      }
      p += length + (p[length] == '\n');
    }
  }
}

static void float32_ops(void) {
  every_op(NYX_FLOAT32);
}

static void float64_ops(void) {
  every_op(NYX_FLOAT64);
}

static void bfloat16_ops(void) {
  every_op(NYX_BFLOAT16);
}

static void float16_ops(void) {
  every_op(NYX_FLOAT16);
}

static void integer_ops(void) {
  static const nyx_dtype dtypes[] = {NYX_INT8, NYX_UINT8, NYX_INT32, NYX_INT64};
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) every_op(dtypes[i]);
}

/* Sizes of networks, which go ways that the samples are too small for. */
static const struct {
  const char *op, *line;
} networks[] = {
    {"matmul", "x(190,300) y(300,210)"},
    {"matmul", "x(3,64,80) y(3,80,70)"},
    {"matmul", "x(1,3000) y(3000,800)"},
    {"int_mm", "x(190,300)<int8 y(300,210)<int8"},
    {"int_mm", "x(190,300)<uint8 y(300,210)<int8"},
    {"int_mm_reaching",
     "x(2,9)<int8 y(30000,9)<int8 scale(30000)<float32 extra(30000)<float32 "
     "limit(2)<float32"},
    {"int_mm_reaching",
     "x(60,9)<int8 y(9000,9)<int8 scale(9000)<float32 extra(9000)<float32 "
     "limit(60)<float32"},
    {"linear_quantized", "x(40,256) packed(300,128)<uint8 scales(300,8)"},
    {"linear_quantized", "x(40,256) packed(300,256)<int8 scales(300) bias(300)"},
    {"linear_quantized", "x(1,512) packed(900,256)<uint8 scales(900,4) zeros(900,4)"},
    {"linear", "x(70,256) weight(300,256) bias(300)"},
    {"conv2d", "x(2,32,28,28) weight(48,32,3,3) bias(48); padding={1}"},
    {"conv2d", "x(2,48,20,20) weight(48,1,3,3); padding={1} groups=48"},
    {"conv2d", "x(1,64,24,24) weight(64,64,1,1); stride={2}"},
    {"scaled_dot_product_attention", "query(4,150,32) key(4,170,32) value(4,170,40)"},
    {"scaled_dot_product_attention", "query(8,1,64) key(8,900,64) value(8,900,64)"},
    {"recurrence", "x(3,32,64) weight_ih(512,64) weight_hh(512,128); mode=lstm"},
    {"sort", "x(70000)"},
    {"argsort", "x(40,3000); dim=2"},
    {"topk", "x(30,4000); k=7"},
    {"order_statistic", "x(30,4000); k=7"},
    {"sum", "x(300,700)"},
    {"sum", "x(300,700); dim={1}"},
    {"prod", "x(300,700); dim={2}"},
    {"amax", "x(300,700)"},
    {"argmin", "x(300,700)"},
    {"mean", "x(40,40,90); dim={1,3}"},
    {"cumsum", "x(300,700); dim=1"},
    {"softmax", "x(300,700); dim=2"},
    {"layer_norm", "x(300,700)"},
    {"unique", "x(70000)"},
    {"index_add", "x(90,800) index(5000)<90 src(5000,800); dim=1"},
};

static void networks_in(nyx_dtype dtype) {
  const cases_options options = {.dtype = dtype, .scale = 1};
  for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
    nyx_op one;
    const nyx_op *op = nyx_op_find(networks[i].op);
    if (!CHECK_AT(op, "an op", ": %s", networks[i].op)) continue;
    one = *op;
    one.cases = networks[i].line;
    bool given = one.cases[strcspn(one.cases, "< ")] == '<'; /* whatever dtype is */
    if (given ? dtype != NYX_INT8 : !(op->dtypes & NYX_DTYPES(dtype))) continue;
    done = false;
    cases_of_op(ctx, &one, &options, compare);
    CHECK_AT(done, "the call", ": %s %s in %s: %s", one.name, one.cases,
             nyx_dtype_name(dtype), nyx_context_error(ctx));
  }
}

static void network_sizes(void) {
  for (int d = 0; d < NYX_DTYPE_COUNT; d++)
    if (d != NYX_BOOL && d != NYX_FLOAT64) networks_in((nyx_dtype)d);
}

/* A host with sixteen threads that counts the jobs of one call, the most there are. */
enum { MANY = 16 };
static int64_t most_jobs;

static void count_jobs(void *user, int64_t n, void (*job)(void *arg, int64_t i),
                       void *arg) {
  (void)user;
  if (n > most_jobs) most_jobs = n;
  for (int64_t i = 0; i < n; i++) job(arg, i);
}

static void call_through_host(cases_sample *s) {
  const nyx_job_system system = {count_jobs, NULL, MANY};
  results r = {0};
  most_jobs = 0;
  nyx_parallel_set_jobs(&system);
  CHECK_OK(ctx, nyx_apply(ctx, s->op, s->in, s->n, s->attr, r.t));
  nyx_parallel_set_jobs(NULL);
  drop(&r);
}

/* Sequences that go through all steps by themselves are dealt out to all threads. */
static void sequences_feed_all_threads(void) {
  const cases_options options = {.dtype = NYX_FLOAT32, .scale = 1};
  const char *name[] = {"recurrence", "recurrence_backward"};
  const char *line[] = {"x(16,32,64) weight_ih(512,64) weight_hh(512,128); mode=lstm",
                        "weight_hh(512,128) result(16,32,128) gates(16,32,512) "
                        "cells(16,32,128) grad(16,32,128); mode=lstm"};
  for (int i = 0; i < 2; i++) {
    nyx_op op = *nyx_op_find(name[i]);
    op.cases = line[i];
    most_jobs = 0;
    cases_of_op(ctx, &op, &options, call_through_host);
    CHECK_AT(most_jobs >= MANY, "a job for each thread", ": %s %lld", name[i],
             (long long)most_jobs);
  }
}

static void enough_were_split(void) {
  CHECK_AT(split_calls > 100, "many calls are large enough", ": %d of %d", split_calls,
           calls);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(float32_ops);
  RUN(float64_ops);
  RUN(bfloat16_ops);
  if (EVERY_DTYPE) {
    RUN(float16_ops);
    RUN(integer_ops);
    RUN(network_sizes);
  }
  RUN(sequences_feed_all_threads);
  RUN(enough_were_split);
  nyx_context_free(ctx);
  return check_done();
}
