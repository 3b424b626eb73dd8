/* core/base and the dtype and shape helpers: contexts, allocator, thread pool, CPU
 * features, random numbers. Read next: core/base, core/tensor/dtype.c, shape.c. */
#include <nyx/nyx.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/base/cpu.h"
#include "core/base/parallel.h"
#include "core/op/random_fill.h"
#include "core/tensor/tensor.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/random.h"

/* The allocator keeps nothing under AddressSanitizer. */
#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define KEEPS_BLOCKS false
#else
#define KEEPS_BLOCKS true
#endif

static nyx_context *ctx;

static nyx_memory_stats stats_now(void) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  return stats;
}

/* Context */

static void versions_and_names(void) {
  CHECK_STR(nyx_version(), NYX_VERSION);
  CHECK_STR(nyx_status_name(NYX_OK), "ok");
  CHECK_STR(nyx_status_name(NYX_ERR_SHAPE), "shape");
  CHECK_STR(nyx_status_name(NYX_ERR_INTERRUPTED), "interrupted");
  CHECK_STR(nyx_status_name((nyx_status)99), "unknown");
  CHECK_STR(nyx_status_name((nyx_status)-1), "unknown");
}

static void context_defaults(void) {
  nyx_context *a, *b;
  REQUIRE(CHECK_STATUS(nyx_context_new(&a), NYX_OK));
  CHECK_STR(nyx_context_error(a), "");
  CHECK(nyx_context_grad_enabled(a));
  CHECK_INT(nyx_context_default_dtype(a), NYX_FLOAT32);
  CHECK_INT(nyx_context_index_base(a), 0);
  CHECK_STATUS(nyx_context_new(&b), NYX_OK);
  CHECK(nyx_context_seed_of(a) != nyx_context_seed_of(b));
  nyx_context_free(b);

  nyx_context_set_grad_enabled(a, false);
  CHECK(!nyx_context_grad_enabled(a));
  nyx_context_set_index_base(a, 1);
  CHECK_INT(nyx_context_index_base(a), 1);
  CHECK_STATUS(nyx_context_set_default_dtype(a, NYX_BFLOAT16), NYX_OK);
  CHECK_INT(nyx_context_default_dtype(a), NYX_BFLOAT16);
  CHECK_STATUS(nyx_context_set_default_dtype(a, NYX_INT32), NYX_ERR_DTYPE);
  CHECK_CONTAINS(nyx_context_error(a), "int32");
  CHECK_STATUS(nyx_context_set_default_dtype(a, (nyx_dtype)77), NYX_ERR_DTYPE);
  CHECK_INT(nyx_context_default_dtype(a), NYX_BFLOAT16);
  nyx_context_free(a);
  nyx_context_free(NULL);
}

static void random_stream_of_a_context(void) {
  nyx_context_seed(ctx, 42);
  CHECK_INT(nyx_context_seed_of(ctx), 42);
  CHECK_INT(nyx__random_take(ctx, 10), 0);
  CHECK_INT(nyx__random_take(ctx, 1), 10);
  CHECK_INT(nyx__random_take(ctx, 0), 11);
  nyx_context_seed(ctx, 42);
  CHECK_INT(nyx__random_take(ctx, 1), 0);
}

static void error_messages(void) {
  CHECK_STATUS(nyx__error(ctx, NDIM_RANGE, 9, 8), NYX_ERR_SHAPE);
  CHECK_STR(nyx_context_error(ctx), "9 dimensions, expected 0 to 8");
  ctx->where = "matmul";
  CHECK_STATUS(nyx_context_fail(ctx, NYX_ERR_IO, "no file %s", "x"), NYX_ERR_IO);
  CHECK_STR(nyx_context_error(ctx), "matmul: no file x");
  ctx->where = NULL;
  /* an argument that is the message itself */
  CHECK_STATUS(nyx_context_fail(ctx, NYX_ERR_IO, "again: %s", nyx_context_error(ctx)),
               NYX_ERR_IO);
  CHECK_STR(nyx_context_error(ctx), "again: matmul: no file x");
  CHECK_STATUS(nyx__fail(NULL, NYX_ERR_STATE, "nobody %d listens", 1), NYX_ERR_STATE);
}

static void long_error_messages_are_cut(void) {
  static char text[4 * NYX_ERROR_SIZE];
  for (size_t shift = 0; shift < 3; shift++) { /* cut at every byte of a character */
    memset(text, 'x', shift);
    for (size_t i = shift; i + 2 < sizeof text; i += 2) memcpy(text + i, "\xC3\xA9", 3);
    CHECK_STATUS(nyx_context_fail(ctx, NYX_ERR_ARGUMENT, "%s", text), NYX_ERR_ARGUMENT);
    const char *got = nyx_context_error(ctx);
    size_t n = strlen(got);
    CHECK(n < NYX_ERROR_SIZE && n > NYX_ERROR_SIZE - 8);
    CHECK_STR(got + n - 3, "...");
    CHECK((n - 3 - shift) % 2 == 0);
  }
  ctx->where = text; /* a hostile name */
  CHECK_STATUS(nyx_context_fail(ctx, NYX_ERR_ARGUMENT, "what"), NYX_ERR_ARGUMENT);
  CHECK(strlen(nyx_context_error(ctx)) < NYX_ERROR_SIZE);
  ctx->where = NULL;
}

static void interrupts_once(void) {
  CHECK(!nyx__interrupted(ctx));
  nyx_context_interrupt(ctx);
  CHECK(nyx__interrupted(ctx));
  CHECK(!nyx__interrupted(ctx));
}

/* Memory */

static void blocks_are_aligned_and_distinct(void) {
  enum { COUNT = 300 };
  unsigned char *block[COUNT];
  size_t size[COUNT];
  nyx_memory_stats before = stats_now();
  for (int i = 0; i < COUNT; i++) {
    size[i] = i < 200 ? (size_t)i * 7 : (size_t)1 << (i % 24);
    block[i] = nyx_memory_alloc(size[i]);
    REQUIRE(CHECK(block[i] != NULL));
    if ((uintptr_t)block[i] % 64) CHECK(false);
    memset(block[i], i & 255, size[i]);
  }
  nyx_memory_stats during = stats_now();
  size_t sum = 0;
  for (int i = 0; i < COUNT; i++) {
    sum += size[i];
    for (size_t k = 0; k < size[i]; k += size[i] / 64 + 1)
      if (block[i][k] != (i & 255)) CHECK(false);
    nyx_memory_free(block[i]);
  }
  CHECK(during.live - before.live >= sum);
  CHECK_INT(during.allocated - before.allocated, COUNT);
  CHECK_INT(stats_now().live, before.live);
  CHECK(stats_now().peak >= during.live);
  nyx_memory_free(NULL);
}

/* Every class boundary: the block must hold what was asked for. */
static void sizes_around_every_class(void) {
  for (size_t base = 64; base <= (size_t)8 << 20; base += base / 4) {
    for (size_t bytes = base - 1; bytes <= base + 1; bytes++) {
      char *block = nyx_memory_alloc(bytes);
      REQUIRE(CHECK(block != NULL));
      block[0] = block[bytes - 1] = 1;
      nyx_memory_stats stats = stats_now();
      if (stats.live < bytes) CHECK(false);
      nyx_memory_free(block);
    }
  }
}

static void freed_blocks_are_reused(void) {
  static const size_t sizes[] = {1, 100, 5000, 100000, 3 << 20};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    void *first = nyx_memory_alloc(sizes[i]);
    nyx_memory_free(first);
    nyx_memory_stats before = stats_now();
    void *second = nyx_memory_alloc(sizes[i]);
    nyx_memory_stats after = stats_now();
    CHECK_INT(after.reused - before.reused, KEEPS_BLOCKS);
    if (KEEPS_BLOCKS) CHECK(first == second);
    nyx_memory_free(second);
  }
  nyx_memory_trim();
  CHECK_INT(stats_now().cached, 0);
}

static void zeroed_blocks_are_zero(void) {
  static const size_t sizes[] = {1, 64, 1000, 70000, 1 << 20, 5 << 20};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (int round = 0; round < 2; round++) { /* fresh, then reused */
      unsigned char *block = nyx_memory_alloc_zeroed(sizes[i]);
      REQUIRE(CHECK(block != NULL));
      size_t set = 0;
      for (size_t k = 0; k < sizes[i]; k++) set += block[k] != 0;
      CHECK_INT(set, 0);
      memset(block, 0xAB, sizes[i]);
      nyx_memory_free(block);
    }
  }
}

static void impossible_sizes_give_null(void) {
  nyx_memory_stats before = stats_now();
  static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / 2, (size_t)1 << 62,
                                 (size_t)1 << 47};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    CHECK(nyx_memory_alloc(sizes[i]) == NULL);
    CHECK(nyx_memory_alloc_zeroed(sizes[i]) == NULL);
  }
  nyx_memory_stats after = stats_now();
  CHECK_INT(after.live, before.live);
  CHECK_INT(after.peak, before.peak);
  CHECK_INT(after.allocated, before.allocated);
}

static void peak_follows_live(void) {
  nyx_memory_reset_peak();
  size_t base = stats_now().live;
  CHECK_INT(stats_now().peak, base);
  void *small = nyx_memory_alloc(1000), *big = nyx_memory_alloc(4 << 20);
  size_t most = stats_now().live;
  nyx_memory_free(big);
  void *other = nyx_memory_alloc(1 << 20);
  CHECK_INT(stats_now().peak, most);
  nyx_memory_free(other);
  nyx_memory_free(small);
  CHECK_INT(stats_now().live, base);
  nyx_memory_reset_peak();
  CHECK_INT(stats_now().peak, base);
}

static void limit_holds(void) {
  nyx_memory_trim();
  size_t base = stats_now().live;
  nyx_memory_set_limit(base + (8 << 20));
  CHECK_INT(stats_now().limit, base + (8 << 20));
  void *a = nyx_memory_alloc(5 << 20);
  CHECK(a != NULL);
  CHECK(nyx_memory_alloc(5 << 20) == NULL);
  nyx_memory_free(a); /* waits in the cache now; the next one needs its room */
  void *b = nyx_memory_alloc(7 << 20);
  CHECK(b != NULL);
  nyx_memory_stats stats = stats_now();
  CHECK(stats.live + stats.cached <= stats.limit);
  CHECK_STATUS(nyx__no_memory(ctx, 123), NYX_ERR_MEMORY);
  CHECK_CONTAINS(nyx_context_error(ctx), "not enough memory for 123 bytes");
  nyx_memory_free(b);
  nyx_memory_set_limit(1); /* less than what is live: everything fails, nothing breaks */
  CHECK_INT(stats_now().cached, 0);
  CHECK(nyx_memory_alloc(100) == NULL);
  nyx_memory_set_limit(0);
  void *c = nyx_memory_alloc(20 << 20);
  CHECK(c != NULL);
  nyx_memory_free(c);
}

static void cache_is_bounded(void) {
  enum { COUNT = 40 };
  void *block[COUNT];
  for (int i = 0; i < COUNT; i++) block[i] = nyx_memory_alloc(16 << 20);
  for (int i = 0; i < COUNT; i++) nyx_memory_free(block[i]);
  nyx_memory_stats stats = stats_now();
  CHECK(stats.cached <= stats.live + (256 << 20));
  CHECK(!KEEPS_BLOCKS || stats.cached > (200 << 20));
  enum { SMALL = 300 << 10 }; /* 300 MiB of 1 KiB blocks, untouched */
  void **small = calloc(SMALL, sizeof *small);
  for (int i = 0; i < SMALL; i++) small[i] = nyx_memory_alloc(900);
  for (int i = 0; i < SMALL; i++) nyx_memory_free(small[i]);
  free(small);
  CHECK(stats_now().cached <= (257 << 20));
  nyx_memory_trim();
  CHECK_INT(stats_now().cached, 0);
}

/* What goes back to the system and is asked for again soon waits from then on, until it
 * has idled. */
static void what_is_missed_stays(void) {
  enum { COUNT = 40, BYTES = 16 << 20, ALL = COUNT * BYTES, LONG = 4096 + 2 * COUNT };
  if (!KEEPS_BLOCKS) return;
  nyx_memory_trim();
  for (int round = 0; round < 8; round++) {
    void *block[COUNT];
    nyx_memory_stats before = stats_now();
    for (int i = 0; i < COUNT; i++) block[i] = nyx_memory_alloc(BYTES);
    uint64_t reused = stats_now().reused - before.reused;
    for (int i = 0; i < COUNT; i++) nyx_memory_free(block[i]);
    nyx_memory_stats after = stats_now();
    bool learned = round % 4 > 0; /* of rounds 0 and 4 nobody knows that more follow */
    CHECK_INT(reused == COUNT, round % 4 > 1);
    CHECK_INT(after.cached >= ALL, learned);
    CHECK(learned || after.cached <= after.live + (256 << 20));
    if (round < 3) continue;
    for (int i = 0; round == 3 && i < LONG; i++)
      nyx_memory_free(nyx_memory_alloc(1 << 16));
    after = stats_now();
    if (round == 3) CHECK(after.cached <= after.live + (257 << 20));
    if (round == 3) nyx_memory_trim(); /* which forgets */
  }
  nyx_memory_trim();
}

static void allocations_fail_on_request(void) {
  nyx_memory_stats before = stats_now();
  for (int n = 0; n < 3; n++) {
    void *block[5];
    nyx_memory_fail_after(n);
    for (int i = 0; i < 5; i++) block[i] = nyx_memory_alloc(100);
    nyx_memory_fail_after(-1);
    for (int i = 0; i < 5; i++) CHECK_INT(block[i] != NULL, i < n);
    for (int i = 0; i < 5; i++) nyx_memory_free(block[i]);
  }
  nyx_memory_fail_after(0);
  nyx_context *none = ctx;
  CHECK_STATUS(nyx_context_new(&none), NYX_ERR_MEMORY);
  CHECK(none == NULL);
  CHECK(nyx_memory_alloc_zeroed(10) == NULL);
  nyx_memory_fail_after(-1);
  CHECK_INT(stats_now().live, before.live);
}

/* Threads that make, fill, pass on and free blocks of all sizes. */
enum { SLOTS = 64, ROUNDS = 4000, THREADS = 4 };
static _Atomic(unsigned char *) slots[SLOTS];

static void *churn(void *seed) {
  uint32_t bits[4];
  for (uint64_t i = 0; i < ROUNDS; i++) {
    nyx__random_block((uint64_t)(uintptr_t)seed, i, bits);
    size_t size = 1 + (bits[0] & 0xFFFFFF) % ((size_t)64 << bits[1] % 15);
    unsigned char *block = nyx_memory_alloc(size);
    if (!block) return "no memory";
    block[0] = (unsigned char)(size & 127);
    block[size - 1] = block[0];
    unsigned char *other = atomic_exchange(&slots[bits[2] % SLOTS], block);
    if (other && other[0] > 127) return "overwritten";
    nyx_memory_free(other);
    if (i % 1000 == 999) nyx_memory_trim();
    if (i % 100 == 99) stats_now();
  }
  return NULL;
}

static void many_threads_allocate(void) {
  nyx_memory_stats before = stats_now();
  pthread_t thread[THREADS];
  for (intptr_t i = 0; i < THREADS; i++)
    CHECK_INT(pthread_create(&thread[i], NULL, churn, (void *)(i + 1)), 0);
  for (int i = 0; i < THREADS; i++) {
    void *failure;
    pthread_join(thread[i], &failure);
    CHECK_STR(failure ? (const char *)failure : "fine", "fine");
  }
  for (int i = 0; i < SLOTS; i++) nyx_memory_free(atomic_exchange(&slots[i], NULL));
  nyx_memory_stats after = stats_now();
  CHECK_INT(after.live, before.live);
  CHECK_INT(after.allocated - before.allocated, THREADS * ROUNDS);
}

/* One thread only makes blocks, the other only frees them: they must come back. */
static void *free_received(void *unused) {
  (void)unused;
  for (int i = 0; i < 20000;) {
    int before = i;
    for (int k = 0; k < SLOTS; k++) {
      unsigned char *block = atomic_exchange(&slots[k], NULL);
      nyx_memory_free(block);
      i += block != NULL;
    }
    if (i == before) sched_yield();
  }
  return NULL;
}

static void blocks_return_from_other_threads(void) {
  nyx_memory_trim();
  size_t live = stats_now().live;
  pthread_t thread;
  CHECK_INT(pthread_create(&thread, NULL, free_received, NULL), 0);
  for (int i = 0; i < 20000; i++) {
    unsigned char *block = nyx_memory_alloc(4000), *empty = NULL;
    while (!atomic_compare_exchange_strong(&slots[i % SLOTS], &empty, block)) {
      empty = NULL;
      sched_yield();
    }
  }
  pthread_join(thread, NULL);
  CHECK_INT(stats_now().live, live);
  CHECK(stats_now().cached < (4 << 20)); /* 80 MB went through */
}

/* Parallel */

typedef struct tally {
  int64_t n, grain;
  atomic_int *seen;
  atomic_int wrong;
} tally;

static void count_range(void *arg, int64_t begin, int64_t end) {
  tally *t = arg;
  int64_t expected = begin + t->grain < t->n ? begin + t->grain : t->n;
  if (begin % t->grain != 0 || end != expected) atomic_fetch_add(&t->wrong, 1);
  for (int64_t i = begin; i < end; i++) atomic_fetch_add(&t->seen[i], 1);
}

/* Every item once in each call, in ranges of exactly `grain`. */
static bool covers(int64_t n, int64_t grain) {
  tally t = {.n = n, .grain = grain, .seen = calloc((size_t)n + 1, sizeof(atomic_int))};
  nyx_parallel_for(n, grain, count_range, &t);
  nyx__parallel_sweep(n, grain, count_range, &t);
  nyx__parallel_sweep(n, grain, count_range, &t);
  int64_t wrong = t.wrong;
  for (int64_t i = 0; i < n; i++) wrong += t.seen[i] != 3;
  free(t.seen);
  return wrong == 0;
}

static void ranges_cover_everything_once(void) {
  static const int threads[] = {1, 2, 3, 8};
  for (size_t k = 0; k < sizeof threads / sizeof *threads; k++) {
    CHECK_STATUS(nyx_parallel_set_threads(threads[k]), NYX_OK);
    CHECK_INT(nyx_parallel_threads(), threads[k]);
    for (int64_t n = 0; n < 40; n++)
      for (int64_t grain = 1; grain < 20; grain += 3)
        if (!covers(n, grain)) CHECK_AT(false, "covers", " %d by %d", (int)n, (int)grain);
    CHECK(covers(100000, 7));
    CHECK(covers(100000, INT64_MAX));
  }
}

static void no_work(void *arg, int64_t begin, int64_t end) {
  (void)begin;
  (void)end;
  atomic_fetch_add((atomic_int *)arg, 1);
}

static void hostile_counts(void) {
  atomic_int calls = 0;
  nyx_parallel_for(0, 1, no_work, &calls);
  nyx_parallel_for(-5, 1, no_work, &calls);
  CHECK_INT(calls, 0);
  nyx_parallel_for(3, 0, no_work, &calls); /* a grain below 1 is 1 */
  nyx_parallel_for(3, -9, no_work, &calls);
  CHECK_INT(calls, 6);
  nyx_parallel_for(INT64_MAX, INT64_MAX / 3, no_work, &calls);
  CHECK_INT(calls, 6 + 4);
  nyx_parallel_for(INT64_MAX, INT64_MAX, no_work, &calls);
  CHECK_INT(calls, 6 + 4 + 1);
}

typedef struct nest {
  pthread_t self;
  atomic_int *inner;
  atomic_int elsewhere;
} nest;

static void inner_range(void *arg, int64_t begin, int64_t end) {
  nest *n = arg;
  if (!pthread_equal(n->self, pthread_self())) atomic_fetch_add(&n->elsewhere, 1);
  atomic_fetch_add(n->inner, (int)(end - begin));
}

static atomic_int set_threads_inside;

static void outer_range(void *arg, int64_t begin, int64_t end) {
  nest n = {.self = pthread_self(), .inner = arg};
  for (int64_t i = begin; i < end; i++) nyx_parallel_for(10, 1, inner_range, &n);
  if (n.elsewhere) atomic_fetch_add(n.inner, 1000000);
  if (nyx_parallel_set_threads(2) != NYX_OK) atomic_fetch_add(&set_threads_inside, 1);
}

static void nested_calls_run_inline(void) {
  CHECK_STATUS(nyx_parallel_set_threads(4), NYX_OK);
  atomic_int inner = 0;
  atomic_store(&set_threads_inside, 0);
  nyx_parallel_for(100, 1, outer_range, &inner);
  CHECK_INT(inner, 1000);
  CHECK_INT(set_threads_inside, 100); /* refused: it would wait for itself */
}

static void *call_often(void *bad) {
  for (int i = 0; i < 300; i++)
    if (!covers(1 + i % 50, 1 + i % 3)) atomic_fetch_add((atomic_int *)bad, 1);
  return NULL;
}

static void several_threads_call_at_once(void) {
  CHECK_STATUS(nyx_parallel_set_threads(3), NYX_OK);
  atomic_int bad = 0;
  pthread_t thread[THREADS];
  for (int i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, call_often, &bad);
  for (int i = 0; i < 5; i++) CHECK_STATUS(nyx_parallel_set_threads(1 + i % 4), NYX_OK);
  for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
  CHECK_INT(bad, 0);
}

/* Each of two ranges waits until the other has begun: only two threads can do that. */
static void meet(void *arg, int64_t begin, int64_t end) {
  atomic_int *arrived = arg;
  (void)begin, (void)end;
  atomic_fetch_add(arrived, 1);
  for (int i = 0; *arrived < 2; i++) {
    if (i == 100000) { /* 10 s: the other never came */
      atomic_fetch_add(arrived, 100);
      return;
    }
    usleep(100);
  }
}

static void sleepy_workers_wake(void) {
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  for (int i = 0; i < 20; i++) {
    atomic_int arrived = 0;
    nyx_parallel_for(2, 1, meet, &arrived);
    REQUIRE(CHECK_INT(arrived, 2));
    usleep(3000 * (i % 2)); /* longer than workers spin */
  }
}

/* What each of two threads took first; both have begun before either goes on. */
typedef struct firsts {
  atomic_int begun;
  int64_t caller, worker;
  pthread_t self;
} firsts;

static void first_range(void *arg, int64_t begin, int64_t end) {
  firsts *f = arg;
  int64_t *mine = pthread_equal(f->self, pthread_self()) ? &f->caller : &f->worker;
  (void)end;
  if (*mine >= 0) return;
  *mine = begin;
  atomic_fetch_add(&f->begun, 1);
  for (int i = 0; i < 2000 && atomic_load(&f->begun) < 2; i++) usleep(1000);
}

static void threads_keep_their_part(void) {
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  for (int i = 0; i < 20; i++) {
    firsts f = {.caller = -1, .worker = -1, .self = pthread_self()};
    nyx_parallel_for(10, 1, first_range, &f);
    REQUIRE(CHECK_INT(f.caller, 0) && CHECK_INT(f.worker, 5));
    usleep(3000 * (i % 2)); /* longer than workers spin */
  }
}

/* One goes forward and the next back, whichever comes first. */
static void sweeps_begin_where_the_last_ended(void) {
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  bool forward = false;
  for (int i = 0; i < 20; i++) {
    firsts f = {.caller = -1, .worker = -1, .self = pthread_self()};
    nyx__parallel_sweep(10, 1, first_range, &f);
    if (i == 0) forward = f.caller == 0;
    REQUIRE(CHECK_INT(f.caller, forward ? 0 : 4) && CHECK_INT(f.worker, forward ? 5 : 9));
    forward = !forward;
    firsts other = {.caller = -1, .worker = -1, .self = pthread_self()};
    nyx_parallel_for(10, 1, first_range, &other); /* changes nothing */
    REQUIRE(CHECK_INT(other.caller, 0) && CHECK_INT(other.worker, 5));
  }
  CHECK_STATUS(nyx_parallel_set_threads(1), NYX_OK);
  for (int i = 0; i < 2; i++, forward = !forward) {
    firsts f = {.caller = -1, .worker = -1, .begun = 2, .self = pthread_self()};
    nyx__parallel_sweep(10, 1, first_range, &f);
    CHECK_INT(f.caller, forward ? 0 : 9);
  }
}

typedef struct sums {
  const float *x;
  double part[64];
} sums;

static void sum_range(void *arg, int64_t begin, int64_t end) {
  sums *s = arg;
  double sum = 0;
  for (int64_t i = begin; i < end; i++) sum += s->x[i];
  s->part[begin / 1000] = sum;
}

static void results_do_not_depend_on_threads(void) {
  static float x[64000];
  nyx__fill_normal_float(7, 0, 0, 64000, x);
  double first = 0;
  for (int threads = 1; threads <= 5; threads++) {
    CHECK_STATUS(nyx_parallel_set_threads(threads), NYX_OK);
    sums s = {.x = x};
    nyx_parallel_for(64000, 1000, sum_range, &s);
    double sum = 0;
    for (int i = 0; i < 64; i++) sum += s.part[i];
    if (threads == 1) first = sum;
    CHECK(sum == first);
  }
}

static void backward_jobs(void *user, int64_t count, void (*job)(void *, int64_t),
                          void *arg) {
  *(int64_t *)user += count;
  for (int64_t i = count - 1; i >= 0; i--) job(arg, i);
}

static void hosts_may_run_the_jobs(void) {
  int64_t jobs = 0;
  nyx_job_system host = {backward_jobs, &jobs, 7};
  nyx_parallel_set_jobs(&host);
  CHECK_INT(nyx_parallel_threads(), 7);
  CHECK(covers(100, 9)); /* three calls */
  CHECK_INT(jobs, 36);
  atomic_int inner = 0;
  nyx_parallel_for(5, 1, outer_range, &inner); /* nested calls stay with their job */
  CHECK_INT(inner, 50);
  CHECK_INT(jobs, 41);
  nyx_parallel_set_jobs(NULL);
  CHECK(covers(100, 9));
  CHECK_INT(jobs, 41);
}

static void thread_counts(void) {
  CHECK_STATUS(nyx_parallel_set_threads(1 << 20), NYX_ERR_ARGUMENT);
  setenv("NYX_THREADS", "3", 1);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
  CHECK_INT(nyx_parallel_threads(), 3);
  /* No such numbers: as if it were not set, and said so. */
  static const char *const bad[] = {"many", "-1", "0", "2x", "257", "99999999999"};
  nyx_parallel_info info;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    setenv("NYX_THREADS", bad[i], 1);
    CHECK_STATUS(nyx_parallel_set_threads(-1), NYX_OK);
    CHECK_INT(nyx_parallel_threads(), nyx__cpu_info()->cores);
    nyx_parallel_get(&info);
    CHECK(strstr(info.threads_problem, bad[i]) != NULL);
  }
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK); /* which is not ignored */
  nyx_parallel_get(&info);
  CHECK_INT(strlen(info.threads_problem), 0);
  setenv("NYX_THREADS", "", 1);
  CHECK_STATUS(nyx_parallel_set_threads(0), NYX_OK);
  CHECK_INT(nyx_parallel_threads(), nyx__cpu_info()->cores);
  nyx_parallel_get(&info);
  CHECK_INT(strlen(info.threads_problem), 0);
  unsetenv("NYX_THREADS");
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
}

static atomic_int busy; /* 1: a range runs and waits for 2 */

static void stay_busy(void *arg, int64_t begin, int64_t end) {
  (void)arg, (void)begin, (void)end;
  int idle = 0;
  atomic_compare_exchange_strong(&busy, &idle, 1); /* it may be over already */
  while (atomic_load(&busy) == 1) usleep(100);
}

static void *own_the_pool(void *unused) {
  nyx_parallel_for(2, 1, stay_busy, NULL);
  return unused;
}

/* A forked child has no workers, and nobody to end what another thread had begun: it must
 * neither hang at work nor at exit. */
static void forked_children_work(void) {
  CHECK_STATUS(nyx_parallel_set_threads(2), NYX_OK);
  atomic_store(&busy, 0);
  pthread_t thread;
  CHECK_INT(pthread_create(&thread, NULL, own_the_pool, NULL), 0);
  while (atomic_load(&busy) != 1) usleep(100);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    exit(covers(1000, 1) ? 7 : 8);
  }
  int status = 0;
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  atomic_store(&busy, 2);
  pthread_join(thread, NULL);
}

static void exit_in_range(void *arg, int64_t begin, int64_t end) {
  (void)arg;
  (void)end;
  if (begin == 50) exit(9);
}

static void exit_inside_a_range_ends_the_process(void) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    nyx_parallel_for(100, 1, exit_in_range, NULL);
    _exit(1);
  }
  int status = 0;
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
}

/* CPU */

static void cpu_facts(void) {
  const nyx_cpu_info *cpu = nyx__cpu_info();
  CHECK(cpu == nyx__cpu_info());
  CHECK(cpu->cores >= 1);
#if defined(__x86_64__)
  CHECK(cpu->sse2);
  CHECK_INT(strlen(cpu->vendor), 12);
  CHECK(!cpu->avx2 || cpu->avx);
  CHECK(!cpu->avx512f || cpu->avx2);
  CHECK(!cpu->avx512vnni || cpu->avx512f);
  nyx_cpu_facts facts;
  nyx_cpu_get(&facts);
  CHECK_INT(cpu->fma, strstr(facts.features, " fma") != NULL);
  CHECK_INT(cpu->amx_tile, strstr(facts.features, " amx-tile") != NULL);
  __builtin_cpu_init();
  CHECK_INT(cpu->sse42, !!__builtin_cpu_supports("sse4.2"));
  CHECK_INT(cpu->avx, !!__builtin_cpu_supports("avx"));
  CHECK_INT(cpu->avx2, !!__builtin_cpu_supports("avx2"));
  CHECK_INT(cpu->fma, !!__builtin_cpu_supports("fma"));
  CHECK_INT(cpu->bmi2, !!__builtin_cpu_supports("bmi2"));
  CHECK_INT(cpu->avx512f, !!__builtin_cpu_supports("avx512f"));
  CHECK_INT(cpu->avx512bw, !!__builtin_cpu_supports("avx512bw"));
  CHECK_INT(cpu->avx512dq, !!__builtin_cpu_supports("avx512dq"));
  CHECK_INT(cpu->avx512vl, !!__builtin_cpu_supports("avx512vl"));
  CHECK_INT(cpu->avx512cd, !!__builtin_cpu_supports("avx512cd"));
  CHECK_INT(cpu->avx512vbmi, !!__builtin_cpu_supports("avx512vbmi"));
  CHECK_INT(cpu->avx512vnni, !!__builtin_cpu_supports("avx512vnni"));
  CHECK_INT(cpu->avx512vpopcntdq, !!__builtin_cpu_supports("avx512vpopcntdq"));
  printf("# %s %d/%d, %s, L1d %zu L2 %zu L3 %zu, %d cores\n", cpu->vendor, cpu->family,
         cpu->model, cpu->brand, cpu->l1d, cpu->l2, cpu->l3, cpu->cores);
#endif
}

/* Random numbers */

/* Known answers published with Random123 1.09 (kat_vectors, philox4x32 10). */
static void philox_known_answers(void) {
  static const struct {
    uint32_t counter[4], key[2], expected[4];
  } row[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
    uint32_t out[4];
    nyx__philox(row[i].counter, row[i].key, out);
    for (int k = 0; k < 4; k++) CHECK_INT(out[k], row[i].expected[k]);
  }
  uint32_t out[4];
  nyx__random_block(0, 0, out);
  CHECK_INT(out[0], 0x6627e8d5);
}

/* An element is the same however a fill is split, and comes from the documented lane. */
static void fills_do_not_depend_on_splits(void) {
  enum { N = 37 };
  uint32_t bits[N], part_bits[N];
  uint64_t wide[N], part_wide[N];
  float u[N], n[N], part[N];
  double ud[N], nd[N], part_d[N];
  nyx__fill_bits(9, 5, 0, N, bits);
  nyx__fill_bits64(9, 5, 0, N, wide);
  nyx__fill_uniform_float(9, 5, 0, N, u);
  nyx__fill_normal_float(9, 5, 0, N, n);
  nyx__fill_uniform_double(9, 5, 0, N, ud);
  nyx__fill_normal_double(9, 5, 0, N, nd);
  for (int split = 0; split <= N; split++) {
    nyx__fill_bits(9, 5, 0, split, part_bits);
    nyx__fill_bits(9, 5, split, N, part_bits + split);
    CHECK(memcmp(bits, part_bits, sizeof bits) == 0);
    nyx__fill_bits64(9, 5, 0, split, part_wide);
    nyx__fill_bits64(9, 5, split, N, part_wide + split);
    CHECK(memcmp(wide, part_wide, sizeof wide) == 0);
    nyx__fill_uniform_float(9, 5, 0, split, part);
    nyx__fill_uniform_float(9, 5, split, N, part + split);
    CHECK(memcmp(u, part, sizeof u) == 0);
    nyx__fill_normal_float(9, 5, 0, split, part);
    nyx__fill_normal_float(9, 5, split, N, part + split);
    CHECK(memcmp(n, part, sizeof n) == 0);
    nyx__fill_uniform_double(9, 5, 0, split, part_d);
    nyx__fill_uniform_double(9, 5, split, N, part_d + split);
    CHECK(memcmp(ud, part_d, sizeof ud) == 0);
    nyx__fill_normal_double(9, 5, 0, split, part_d);
    nyx__fill_normal_double(9, 5, split, N, part_d + split);
    CHECK(memcmp(nd, part_d, sizeof nd) == 0);
  }
  for (int i = 0; i < N; i++) {
    uint32_t block[4];
    nyx__random_block(9, 5 + (uint64_t)i / 4, block);
    CHECK_INT(bits[i], block[i % 4]);
    CHECK(u[i] == nyx__uniform_float(block[i % 4]));
    nyx__random_block(9, 5 + (uint64_t)i / 2, block);
    CHECK(ud[i] == nyx__uniform_double(block[i % 2 * 2], block[i % 2 * 2 + 1]));
    CHECK_INT(wide[i], (uint64_t)block[i % 2 * 2] << 32 | block[i % 2 * 2 + 1]);
  }
  CHECK_INT(nyx__random_blocks(0, 4), 0);
  CHECK_INT(nyx__random_blocks(1, 4), 1);
  CHECK_INT(nyx__random_blocks(4, 4), 1);
  CHECK_INT(nyx__random_blocks(5, 2), 3);
}

static void uniform_ranges(void) {
  CHECK(nyx__uniform_float(0) == 0.0f);
  CHECK(nyx__uniform_float(UINT32_MAX) == 1.0f - 0x1p-24f);
  CHECK(nyx__uniform_double(0, 0) == 0.0);
  CHECK(nyx__uniform_double(UINT32_MAX, UINT32_MAX) == 1.0 - 0x1p-53);
}

/* Box and Muller in long double, of words that are at the ends, or any. */
static void normals_are_near(void) {
  enum { N = 1 << 16 };
  static uint32_t w[2 * N];
  static float f[2 * N];
  static const uint32_t ends[] = {0, 1, 0x7FFFFFFF, 0x80000000, UINT32_MAX};
  nyx__fill_bits(3, 0, 0, 2 * N, w);
  for (int i = 0; i < 25; i++) w[2 * i] = ends[i / 5], w[2 * i + 1] = ends[i % 5];
  nyx__cpu_kernels()->random->normals(N, w, f);
  double worst = 0;
  for (int i = 0; i < N; i++) {
    long double radius = sqrtl(-2 * logl(((float)w[2 * i] + 1.0f) * 0x1p-32f));
    long double angle = 6.28318530717958647692L * (w[2 * i + 1] >> 8) * 0x1p-24L;
    double off = (double)fabsl(f[2 * i] - radius * cosl(angle));
    worst = fmax(worst, off / (double)fmaxl(radius, 0x1p-20L));
    off = (double)fabsl(f[2 * i + 1] - radius * sinl(angle));
    worst = fmax(worst, off / (double)fmaxl(radius, 0x1p-20L));
  }
  CHECK(worst < 3 * 0x1p-24);
  double d[64];
  nyx__fill_normal_double(3, 0, 0, 64, d);
  for (int i = 0; i < 64; i++) CHECK(fabs(d[i]) < 8.7);
}

/* Mean, variance, skewness and kurtosis of 400,000 elements, within five deviations. */
static void check_moments(const double *x, int n, double mean, double variance,
                          double skew, double kurtosis) {
  double m = 0, m2 = 0, m3 = 0, m4 = 0;
  for (int i = 0; i < n; i++) m += x[i] / n;
  for (int i = 0; i < n; i++) {
    double d = x[i] - m;
    m2 += d * d / n;
    m3 += d * d * d / n;
    m4 += d * d * d * d / n;
  }
  double deviation = 5 / sqrt((double)n);
  CHECK_NEAR(m, mean, deviation * sqrt(variance));
  CHECK_NEAR(m2, variance, deviation * variance * sqrt(kurtosis - 1));
  CHECK_NEAR(m3 / pow(m2, 1.5), skew, deviation * sqrt(6));
  CHECK_NEAR(m4 / (m2 * m2), kurtosis, deviation * sqrt(24));
}

static void distributions_have_their_moments(void) {
  enum { N = 400000 };
  static double x[N];
  static float f[N];
  nyx__fill_uniform_float(1, 0, 0, N, f);
  for (int i = 0; i < N; i++) x[i] = f[i];
  check_moments(x, N, 0.5, 1.0 / 12, 0, 1.8);
  nyx__fill_uniform_double(1, 0, 0, N, x);
  check_moments(x, N, 0.5, 1.0 / 12, 0, 1.8);
  nyx__fill_normal_float(1, 0, 0, N, f);
  for (int i = 0; i < N; i++) x[i] = f[i];
  check_moments(x, N, 0, 1, 0, 3);
  double together = 0; /* neighbours share a radius but not a direction */
  for (int i = 0; i < N; i += 2) together += (double)f[i] * f[i + 1] / (N / 2);
  CHECK_NEAR(together, 0, 5 / sqrt(N / 2.0));
  nyx__fill_normal_double(1, 0, 0, N, x);
  check_moments(x, N, 0, 1, 0, 3);
}

/* Sanitizers do not support threads in forked children. */
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define FORKS false
#else
#define FORKS KEEPS_BLOCKS
#endif
#define RUN_IN_CHILD(test) (FORKS ? RUN(test) : check_skip(#test, "threads after fork"))

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(versions_and_names);
  RUN(context_defaults);
  RUN(random_stream_of_a_context);
  RUN(error_messages);
  RUN(long_error_messages_are_cut);
  RUN(interrupts_once);
  RUN(blocks_are_aligned_and_distinct);
  RUN(sizes_around_every_class);
  RUN(freed_blocks_are_reused);
  RUN(zeroed_blocks_are_zero);
  RUN(impossible_sizes_give_null);
  RUN(peak_follows_live);
  RUN(limit_holds);
  RUN(cache_is_bounded);
  RUN(what_is_missed_stays);
  RUN(allocations_fail_on_request);
  RUN(many_threads_allocate);
  RUN(blocks_return_from_other_threads);
  RUN(ranges_cover_everything_once);
  RUN(hostile_counts);
  RUN(nested_calls_run_inline);
  RUN(several_threads_call_at_once);
  RUN(sleepy_workers_wake);
  RUN(threads_keep_their_part);
  RUN(sweeps_begin_where_the_last_ended);
  RUN(results_do_not_depend_on_threads);
  RUN(hosts_may_run_the_jobs);
  RUN(thread_counts);
  RUN_IN_CHILD(forked_children_work);
  RUN_IN_CHILD(exit_inside_a_range_ends_the_process);
  RUN(cpu_facts);
  RUN(philox_known_answers);
  RUN(fills_do_not_depend_on_splits);
  RUN(uniform_ranges);
  RUN(normals_are_near);
  RUN(distributions_have_their_moments);
  nyx_context_free(ctx);
  return check_done();
}
