/* Arenas: where buffers lie, what they share and what they do not, what keeps the block
 * alive, threads, and every allocation failing in turn. Read next: core/tensor/arena.c.
 */
#include <nyx/nyx.h>
#include <pthread.h>

#include "check.h"

static nyx_context *ctx;

static size_t memory(void) {
  nyx_memory_stats s;
  nyx_memory_get_stats(&s);
  return s.live;
}

/* Bytes more than before the first test. */
static size_t at_start;
static size_t live(void) {
  return memory() - at_start;
}

static nyx_arena *make(size_t bytes) {
  nyx_arena *a = NULL;
  CHECK_OK(ctx, nyx_arena_new(ctx, bytes, &a));
  return a;
}

/* A buffer of one dimension. */
static nyx_tensor *line(nyx_arena *a, const char *name, nyx_dtype dtype, int64_t n) {
  nyx_tensor *t = NULL;
  CHECK_OK(ctx, nyx_arena_buffer(ctx, a, name, dtype, 1, &n, &t));
  return t;
}

static nyx_tensor *apply(const char *name, nyx_tensor *x, nyx_tensor *y) {
  nyx_tensor *in[] = {x, y}, *out = NULL;
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find(name), in, y ? 2 : 1, NULL, &out));
  return out;
}

static void layout(void) {
  nyx_arena *a = make(1000);
  nyx_arena_stats stats;
  nyx_arena_get_stats(a, &stats);
  CHECK_INT(stats.bytes, 1024);
  nyx_tensor *x = line(a, "x", NYX_FLOAT32, 3), *y = line(a, "y", NYX_INT8, 65);
  nyx_tensor *none = line(a, "none", NYX_FLOAT64, 0), *z = NULL;
  CHECK_OK(ctx, nyx_arena_buffer(ctx, a, "z", NYX_COMPLEX128, 0, NULL, &z));
  char *base = nyx_tensor_data(x);
  CHECK_INT((uintptr_t)base % 64, 0);
  CHECK_INT((char *)nyx_tensor_data(y) - base, 64);
  CHECK_INT((char *)nyx_tensor_data(none) - base, 192);
  CHECK_INT((char *)nyx_tensor_data(z) - base, 192);
  CHECK_INT(nyx_tensor_numel(z), 1);
  for (int i = 0; i < 65; i++) CHECK(((int8_t *)nyx_tensor_data(y))[i] == 0);
  nyx_arena_get_stats(a, &stats);
  CHECK_INT(stats.used, 256);
  CHECK_INT(stats.free, 768);
  CHECK_INT(stats.buffers, 4);
  nyx_arena_entry e;
  CHECK(nyx_arena_at(a, 1, &e) && e.in_use);
  CHECK_STR(e.name, "y");
  CHECK_INT(e.dtype, NYX_INT8);
  CHECK(e.ndim == 1 && e.shape[0] == 65 && e.offset == 64 && e.bytes == 65);
  nyx_tensor_release(y);
  CHECK(nyx_arena_at(a, 1, &e) && !e.in_use);
  CHECK(!nyx_arena_at(a, 4, &e) && !nyx_arena_at(a, -1, &e));
  char *text = NULL;
  CHECK_OK(ctx, nyx_arena_format(ctx, a, &text));
  CHECK_CONTAINS(text, "nyx.Arena of 1024 bytes: 256 used, 768 free, 4 buffers\n");
  CHECK_CONTAINS(text, "\n  y: int8 (65), 65 bytes at 64\n");
  nyx_memory_free(text);
  nyx_tensor_release(x);
  nyx_tensor_release(none);
  nyx_tensor_release(z);
  nyx_arena_release(a);
  CHECK_INT(live(), 0);
}

static void many_buffers(void) {
  nyx_arena *a = make(100 * 64);
  char name[8], *text = NULL;
  for (int i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "b%d", i);
    nyx_tensor_release(line(a, name, NYX_UINT8, 64));
  }
  CHECK_OK(ctx, nyx_arena_format(ctx, a, &text));
  CHECK_CONTAINS(text, "\n  b31: uint8 (64), 64 bytes at 1984\n  and 68 more");
  nyx_memory_free(text);
  nyx_tensor *t;
  CHECK_STATUS(nyx_arena_find(ctx, a, "b100", &t), NYX_ERR_ARGUMENT);
  CHECK_CONTAINS(nyx_context_error(ctx), "no buffer 'b100'; it has b0, b1, ");
  CHECK_CONTAINS(nyx_context_error(ctx), " more");
  CHECK_OK(ctx, nyx_arena_find(ctx, a, "b99", &t));
  nyx_tensor_release(t);
  nyx_arena_release(a);
}

static void refusals(void) {
  nyx_arena *a = NULL;
  nyx_tensor *x, *t = NULL;
  CHECK_STATUS(nyx_arena_new(ctx, 0, &a), NYX_ERR_ARGUMENT);
  CHECK_STATUS(nyx_arena_new(ctx, SIZE_MAX, &a), NYX_ERR_MEMORY);
  CHECK(a == NULL);
  a = make(256);
  x = line(a, "x", NYX_FLOAT32, 16);
  int64_t n = 16, more = 49, less = -1, most = INT64_MAX;
  CHECK_OK(ctx, nyx_arena_buffer(ctx, a, "x", NYX_FLOAT32, 1, &n, &t));
  CHECK(t == x);
  nyx_tensor_release(t);
  CHECK_STATUS(nyx_arena_buffer(ctx, a, "x", NYX_INT32, 1, &n, &t), NYX_ERR_ARGUMENT);
  CHECK_CONTAINS(nyx_context_error(ctx),
                 "buffer 'x' is float32 of shape (16), expected int32 of shape (16)");
  CHECK_STATUS(nyx_arena_buffer(ctx, a, "x", NYX_FLOAT32, 1, &more, &t),
               NYX_ERR_ARGUMENT);
  CHECK_STATUS(nyx_arena_buffer(ctx, a, "x", NYX_FLOAT32, 9, &more, &t), NYX_ERR_SHAPE);
  CHECK_STATUS(nyx_arena_buffer(ctx, a, "y", NYX_FLOAT32, 1, &more, &t), NYX_ERR_MEMORY);
  CHECK_CONTAINS(nyx_context_error(ctx),
                 "needs 196 bytes, the arena has 192 of 256 left");
  CHECK_STATUS(nyx_arena_buffer(ctx, a, "y", NYX_FLOAT32, 1, &less, &t), NYX_ERR_SHAPE);
  CHECK_STATUS(nyx_arena_buffer(ctx, a, "y", NYX_FLOAT32, 1, &most, &t), NYX_ERR_SHAPE);
  CHECK_STATUS(nyx_arena_buffer(ctx, a, "", NYX_FLOAT32, 1, &n, &t), NYX_ERR_ARGUMENT);
  char name[NYX_ARENA_NAME + 1];
  memset(name, 'n', sizeof name);
  name[NYX_ARENA_NAME] = 0;
  CHECK_STATUS(nyx_arena_buffer(ctx, a, name, NYX_INT8, 1, &n, &t), NYX_ERR_ARGUMENT);
  CHECK_CONTAINS(nyx_context_error(ctx), "has 64 bytes, expected 1 to 63");
  name[NYX_ARENA_NAME - 1] = 0;
  nyx_tensor_release(line(a, name, NYX_INT8, 16));
  CHECK(nyx_arena_has(a, name) && !nyx_arena_has(a, "y") && t == NULL);
  nyx_tensor_release(x);
  nyx_arena_release(a);
  CHECK_INT(live(), 0);
}

/* A buffer outlives its arena, and nothing is laid out under one that is still held. */
static void nothing_dangles(void) {
  nyx_arena *a = make(4096);
  nyx_tensor *x = line(a, "x", NYX_FLOAT32, 100), *y = line(a, "y", NYX_FLOAT32, 100);
  CHECK_STATUS(nyx_arena_reset(ctx, a), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "buffer 'x'");
  ((float *)nyx_tensor_data(x))[99] = 7;
  ((float *)nyx_tensor_data(y))[0] = 8;
  nyx_tensor_release(x);
  nyx_value attr[] = {NYX_I(0), NYX_I(3)};
  nyx_tensor *view = NULL;
  CHECK_OK(ctx, nyx_apply(ctx, nyx_op_find("select"), &y, 1, attr, &view));
  nyx_tensor_release(y);
  CHECK_STATUS(nyx_arena_reset(ctx, a), NYX_ERR_STATE); /* for the view */
  CHECK_CONTAINS(nyx_context_error(ctx), "buffer 'y'");
  CHECK(nyx_arena_has(a, "x") && nyx_arena_has(a, "y")); /* nothing changed */
  nyx_tensor_release(view);
  CHECK_OK(ctx, nyx_arena_reset(ctx, a));
  nyx_arena_stats stats;
  nyx_arena_get_stats(a, &stats);
  CHECK(stats.used == 0 && stats.buffers == 0);
  x = line(a, "z", NYX_UINT8, 2000); /* zeros again, and those behind them */
  for (int i = 0; i < 2000; i++)
    if (!CHECK(((uint8_t *)nyx_tensor_data(x))[i] == 0)) break;
  nyx_arena_release(a);
  ((uint8_t *)nyx_tensor_data(x))[1999] = 1;
  CHECK(live() > 4096);
  nyx_tensor_release(x);
  CHECK_INT(live(), 0);
}

/* To change one buffer is nothing to what a gradient saved of another. */
static void split(void) {
  nyx_arena *a = make(4096);
  nyx_tensor *x = line(a, "x", NYX_FLOAT32, 4), *y = line(a, "y", NYX_FLOAT32, 4);
  float *data = nyx_tensor_data(x);
  for (int i = 0; i < 4; i++) data[i] = (float)i;
  CHECK(!nyx_tensor_shares(x, y));
  CHECK_OK(ctx, nyx_tensor_set_requires_grad(ctx, x, true));
  nyx_tensor *square = apply("mul", x, x), *loss = apply("sum", square, NULL);
  uint32_t version = nyx_tensor_version(x);
  nyx_tensor_touch(y);
  CHECK_INT(nyx_tensor_version(x), version);
  CHECK_STATUS(nyx_arena_reset(ctx, a), NYX_ERR_STATE);
  CHECK_OK(ctx, nyx_backward_run(ctx, loss, NULL, NULL));
  CHECK_NEAR(((float *)nyx_tensor_data(nyx_tensor_grad(x)))[3], 6, 0);
  nyx_tensor_release(square);
  nyx_tensor_release(loss);
  square = apply("mul", x, x);
  loss = apply("sum", square, NULL);
  nyx_tensor_touch(x); /* its own it does invalidate */
  CHECK_STATUS(nyx_backward_run(ctx, loss, NULL, NULL), NYX_ERR_STATE);
  nyx_tensor_release(square);
  nyx_tensor_release(loss);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  CHECK_OK(ctx, nyx_arena_reset(ctx, a)); /* and the gradient with it */
  nyx_arena_release(a);
  CHECK_INT(live(), 0);
}

/* Others get the buffer too: it is of no mode of the one who asked first. */
static void modes(void) {
  nyx_arena *a = make(4096);
  nyx_context_set_inference(ctx, true);
  nyx_tensor *x = line(a, "x", NYX_FLOAT32, 4);
  nyx_context_set_inference(ctx, false);
  CHECK(!nyx_tensor_is_inference(x));
  uint32_t version = nyx_tensor_version(x);
  nyx_tensor_touch(x);
  CHECK_INT(nyx_tensor_version(x), version + 1);
  nyx_tensor_release(x);
  nyx_arena_release(a);
}

enum { THREADS = 4, ROUNDS = 200 };
static nyx_arena *shared;

/* Each fills a buffer of its own and asks for one of all. */
static void *worker(void *arg) {
  int me = *(int *)arg;
  nyx_context *own = NULL;
  char name[16];
  if (nyx_context_new(&own) != NYX_OK) return NULL;
  for (int r = 0; r < ROUNDS; r++) {
    nyx_tensor *t = NULL, *all = NULL;
    int64_t n = 100, one = 1;
    snprintf(name, sizeof name, "own%d.%d", me, r % 10);
    CHECK_OK(own, nyx_arena_buffer(own, shared, name, NYX_INT32, 1, &n, &t));
    CHECK_OK(own, nyx_arena_buffer(own, shared, "all", NYX_INT64, 1, &one, &all));
    for (int i = 0; t && i < 100; i++) ((int32_t *)nyx_tensor_data(t))[i] += me + 1;
    if (t) nyx_tensor_touch(t);
    nyx_arena_entry e;
    CHECK(nyx_arena_at(shared, 0, &e));
    CHECK_STATUS(nyx_arena_reset(own, shared), NYX_ERR_STATE); /* t is held */
    nyx_tensor_release(t);
    nyx_tensor_release(all);
  }
  nyx_context_free(own);
  return arg;
}

static void threads(void) {
  pthread_t thread[THREADS];
  int number[THREADS];
  shared = make(64 << 10);
  nyx_tensor *held = line(shared, "held", NYX_BOOL, 1);
  for (int i = 0; i < THREADS; i++) {
    number[i] = i;
    if (!CHECK(pthread_create(&thread[i], NULL, worker, &number[i]) == 0)) return;
  }
  for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
  for (int i = 0; i < THREADS; i++) {
    char name[16];
    snprintf(name, sizeof name, "own%d.3", i);
    nyx_tensor *t = line(shared, name, NYX_INT32, 100);
    for (int k = 0; k < 100; k++)
      CHECK_INT(((int32_t *)nyx_tensor_data(t))[k], (i + 1) * ROUNDS / 10);
    nyx_tensor_release(t);
  }
  nyx_tensor_release(held);
  nyx_arena_stats stats;
  nyx_arena_get_stats(shared, &stats);
  CHECK_INT(stats.buffers, 2 + THREADS * 10);
  CHECK_OK(ctx, nyx_arena_reset(ctx, shared));
  nyx_arena_release(shared);
  CHECK_INT(live(), 0);
}

/* What fails for want of memory leaves nothing behind and the arena as it was. */
static void without_memory(void) {
  for (int n = 0;; n++) {
    nyx_arena *a;
    nyx_memory_fail_after(n);
    nyx_status status = nyx_arena_new(ctx, 100, &a);
    nyx_memory_fail_after(-1);
    nyx_arena_release(a);
    CHECK_INT(live(), 0);
    if (status == NYX_OK) break;
    if (!CHECK(status == NYX_ERR_MEMORY && a == NULL && n < 3)) break;
  }
  nyx_arena *a = make(4096);
  nyx_tensor *held = line(a, "held", NYX_INT8, 1);
  int64_t size = 5;
  for (int n = 0; n < 5; n++) {
    nyx_tensor *t;
    nyx_arena_stats before, after;
    nyx_arena_get_stats(a, &before);
    nyx_memory_fail_after(n);
    nyx_status status = nyx_arena_buffer(ctx, a, "x", NYX_INT8, 1, &size, &t);
    nyx_memory_fail_after(-1);
    nyx_tensor_release(t);
    nyx_arena_get_stats(a, &after);
    if (status == NYX_OK) break;
    CHECK(status == NYX_ERR_MEMORY && t == NULL && n < 2);
    CHECK(before.used == after.used && before.buffers == after.buffers);
  }
  char *text;
  nyx_memory_fail_after(0);
  CHECK_STATUS(nyx_arena_format(ctx, a, &text), NYX_ERR_MEMORY);
  CHECK_STATUS(nyx_arena_reset(ctx, a), NYX_ERR_STATE);
  nyx_memory_fail_after(-1);
  nyx_tensor_release(held);
  nyx_arena_release(a);
  CHECK_INT(live(), 0);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  at_start = memory();
  RUN(layout);
  RUN(many_buffers);
  RUN(refusals);
  RUN(nothing_dangles);
  RUN(split);
  RUN(modes);
  RUN(threads);
  RUN(without_memory);
  nyx_context_free(ctx);
  return check_done();
}
