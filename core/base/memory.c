/* The allocator: a 64-byte header before every block, size classes four to each power of
 * two, and free lists that keep blocks for reuse. Small blocks (to 32 KiB) wait in
 * shards, one spin lock each, so that threads seldom meet; large ones in one list with an
 * age order. At most 256 MiB more than is live wait, so that what lives by turns, as
 * between a host's collections, comes back; past that the oldest large ones go back to
 * the system. Where those are missed soon, as in every step of a training, more may wait
 * by as much, until some have idled for long. Read next: nyx/memory.h.
 *
 * `held` (live + cached) is exact at all times: it changes only when a block is taken
 * from the system or given back, which is where the limit is kept. `live` is gathered in
 * the shards and added up in steps of 64 KiB, so the peak is exact for one thread and at
 * most that much off for each further one.
 *
 * Under AddressSanitizer nothing is kept and blocks end where the caller's bytes end, so
 * that it sees every use after free, overflow and leak. */
#include <nyx/memory.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../device/device.h"
#include "../fft/plan.h"
#include "numa.h"

#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define CACHED false
#else
#define CACHED true
#endif

/* Thread-local without a call: this library is never so big a TLS user that opening it at
 * run time could fail for it. Other C libraries do not promise that. */
#ifdef __GLIBC__
#define FAST_TLS __attribute__((tls_model("initial-exec")))
#else
#define FAST_TLS
#endif

#define ALIGN ((size_t)64)
#define PAGE ((size_t)64 << 10) /* a multiple of every system's page */
#define HUGE_PAGE ((size_t)2 << 20)
#define MAPPED ((size_t)1 << 20) /* blocks from here on are mapped, not malloc'ed */
#define SMALL_CLASSES 32         /* 64 B .. 32 KiB */
#define CLASSES 164              /* .. 2^47 bytes, a user's whole address space */
/* AddressSanitizer aborts where 2^40 are asked for. */
#define MOST_BYTES ((size_t)1 << (CACHED ? 47 : 38))
#define SHARDS 16
#define FLUSH ((int64_t)64 << 10)
#define CACHE_CAP ((int64_t)256 << 20)
#define SOON 4096 /* large blocks; a step of training asks for hundreds */

typedef struct header header;
struct header {
  size_t bytes;     /* of the block, without this header */
  header *next;     /* in its free list */
  header *previous; /* the rest: large blocks only */
  header *younger, *older;
  uint64_t since; /* large.asked when it was freed */
  int class;
  bool fresh; /* just mapped: all zero */
};
_Static_assert(sizeof(header) <= ALIGN, "the header fits before the block");

typedef struct shard {
  _Alignas(64) atomic_flag lock;
  int64_t delta, highest; /* of `live` since the last flush */
  uint64_t allocated, reused, handed;
  header *list[SMALL_CLASSES];
} shard;

static shard shards[SHARDS];
static atomic_int shards_used;

static struct {
  _Alignas(64) atomic_flag lock;
  header *list[CLASSES];
  header *youngest, *oldest;
  uint64_t asked; /* how many were asked for, the measure of their age */
  struct {        /* blocks of a class that shrink gave back, the last one at `when` */
    uint64_t count, when;
  } given[CLASSES];
  atomic_llong missed; /* bytes of those that were asked for soon after */
} large;

static _Alignas(64) atomic_llong live;
static atomic_llong peak;
static atomic_llong held;
static atomic_llong limit; /* 0: none */
/* Allocations that still succeed before failing, plus one; 0: the hook is off. */
static atomic_llong fail_countdown;

/* Locks */

static void lock(atomic_flag *flag) {
  int tries = 0;
  while (atomic_flag_test_and_set_explicit(flag, memory_order_acquire)) {
    if (++tries % 64 == 0) sched_yield(); /* the holder may have been preempted */
#if defined(__x86_64__) || defined(__i386__)
    else
      __builtin_ia32_pause();
#endif
  }
}

static void unlock(atomic_flag *flag) {
  atomic_flag_clear_explicit(flag, memory_order_release);
}

static _Thread_local FAST_TLS shard *my_shard;

static __attribute__((noinline)) shard *choose_shard(void) {
  int i = atomic_fetch_add(&shards_used, 1);
  return my_shard = &shards[(unsigned)i % SHARDS];
}

static inline shard *get_shard(void) {
  shard *s = my_shard;
  return __builtin_expect(s != NULL, 1) ? s : choose_shard();
}

static int used_shards(void) {
  int n = atomic_load(&shards_used);
  return n >= 0 && n < SHARDS ? n : SHARDS;
}

/* Size classes: 64, 128, 192, 256, then 5/4, 6/4, 7/4 and 8/4 of each power of two. */

static inline int class_of(size_t bytes) {
  size_t m = bytes <= ALIGN ? 0 : (bytes - 1) / ALIGN;
  if (m < 4) return (int)m;
  int e = 61 - __builtin_clzll(m); /* floor(log2(m)) - 2 */
  return e * 4 + (int)(m >> e);
}

static inline size_t class_bytes(int class) {
  if (class < 4) return ((size_t) class + 1) * ALIGN;
  int e = class / 4 - 1;
  return ((size_t)(class % 4 + 4 + 1) << e) * ALIGN;
}

/* Accounting */

static void raise_peak(long long candidate) {
  long long old = atomic_load_explicit(&peak, memory_order_relaxed);
  while (candidate > old && !atomic_compare_exchange_weak(&peak, &old, candidate)) {
  }
}

/* With s locked. */
static void flush(shard *s) {
  long long before = atomic_fetch_add(&live, s->delta);
  if (s->highest > 0) raise_peak(before + s->highest);
  s->delta = s->highest = 0;
}

/* With s locked: `bytes` more (or fewer) are in use. True from time to time, when `live`
 * has been brought up to date. */
static inline bool account(shard *s, int64_t bytes) {
  s->delta += bytes;
  if (s->delta > s->highest) s->highest = s->delta;
  if (__builtin_expect(s->delta <= FLUSH && s->delta >= -FLUSH, 1)) return false;
  flush(s);
  return true;
}

static void flush_all(void) {
  for (int i = 0, n = used_shards(); i < n; i++) {
    lock(&shards[i].lock);
    flush(&shards[i]);
    unlock(&shards[i].lock);
  }
}

/* Adds to `held` unless that would pass the limit. */
static bool reserve(size_t bytes) {
  long long old = atomic_load(&held);
  do {
    long long most = atomic_load(&limit);
    if (most > 0 && old + (long long)bytes > most) return false;
  } while (!atomic_compare_exchange_weak(&held, &old, old + (long long)bytes));
  return true;
}

/* The system */

/* Maps a block whose contents start on a page, or on a huge page when it has room for
 * one; the header is in the page before. */
static header *map_block(size_t bytes) {
  size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : PAGE;
  size_t length = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
  size_t slack = align;
  char *base = mmap(NULL, length + slack, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return NULL;
  uintptr_t contents = ((uintptr_t)base + PAGE + align - 1) / align * align;
  size_t before = (size_t)(contents - PAGE - (uintptr_t)base);
  if (before) munmap(base, before);
  if (slack - before) munmap(base + before + length, slack - before);
#ifdef MADV_HUGEPAGE
  if (align == HUGE_PAGE) (void)madvise((void *)contents, length - PAGE, MADV_HUGEPAGE);
#endif
  nyx__numa_place(base + before, length);
  header *h = (header *)(contents - ALIGN);
  h->fresh = true;
  return h;
}

static header *take_from_system(size_t bytes, int class) {
  if (!reserve(bytes + ALIGN)) return NULL;
  header *h = NULL;
  if (CACHED && bytes >= MAPPED) {
    h = map_block(bytes);
  } else {
    void *p = NULL;
    if (posix_memalign(&p, ALIGN, ALIGN + bytes) == 0) h = p;
    if (h) h->fresh = false;
  }
  if (!h) {
    atomic_fetch_sub(&held, (long long)(bytes + ALIGN));
    return NULL;
  }
  h->bytes = bytes;
  h->class = class;
  return h;
}

static void give_to_system(header *h) {
  size_t bytes = h->bytes;
  if (CACHED && bytes >= MAPPED)
    munmap((char *)h + ALIGN - PAGE, (bytes + PAGE - 1) / PAGE * PAGE + PAGE);
  else
    free(h);
  atomic_fetch_sub(&held, (long long)(bytes + ALIGN));
}

/* Gives back a list linked by `next`. */
static void give_list(header *h) {
  while (h) {
    header *next = h->next;
    give_to_system(h);
    h = next;
  }
}

/* Large free blocks, with large.lock held */

static void large_add(header *h) {
  h->since = large.asked;
  header **list = &large.list[h->class];
  h->previous = NULL;
  h->next = *list;
  if (*list) (*list)->previous = h;
  *list = h;
  h->younger = NULL;
  h->older = large.youngest;
  if (large.youngest)
    large.youngest->younger = h;
  else
    large.oldest = h;
  large.youngest = h;
}

static void large_remove(header *h) {
  if (h->previous)
    h->previous->next = h->next;
  else
    large.list[h->class] = h->next;
  if (h->next) h->next->previous = h->previous;
  if (h->younger)
    h->younger->older = h->older;
  else
    large.youngest = h->older;
  if (h->older)
    h->older->younger = h->younger;
  else
    large.oldest = h->younger;
}

/* Whether shrink gave back a block of this class not long ago. */
static bool given_lately(int class) {
  return large.given[class].count > 0 && large.asked - large.given[class].when <= SOON;
}

static void note_given(const header *h) {
  if (!given_lately(h->class)) large.given[h->class].count = 0;
  large.given[h->class].count++;
  large.given[h->class].when = large.asked;
}

/* The oldest, if it has idled for so long that it need not wait; else NULL. */
static header *large_idle(void) {
  header *h = large.oldest;
  long long missed = atomic_load_explicit(&large.missed, memory_order_relaxed);
  if (missed == 0 || !h || large.asked - h->since <= SOON) return NULL;
  large_remove(h);
  long long bytes = (long long)(h->bytes + ALIGN);
  atomic_store_explicit(&large.missed, missed > bytes ? missed - bytes : 0,
                        memory_order_relaxed);
  h->next = NULL;
  return h;
}

/* Without the lock from here on */

static header *large_take(int class) {
  lock(&large.lock);
  large.asked++;
  header *h = large.list[class];
  if (h) {
    large_remove(h);
  } else if (given_lately(class)) {
    large.given[class].count--;
    atomic_fetch_add_explicit(&large.missed, (long long)(class_bytes(class) + ALIGN),
                              memory_order_relaxed);
  }
  unlock(&large.lock);
  return h;
}

static void give_cached(void) {
  for (int i = 0, n = used_shards(); i < n; i++) {
    header *lists[SMALL_CLASSES];
    lock(&shards[i].lock);
    memcpy(lists, shards[i].list, sizeof lists);
    memset(shards[i].list, 0, sizeof lists);
    unlock(&shards[i].lock);
    for (int c = 0; c < SMALL_CLASSES; c++) give_list(lists[c]);
  }
  lock(&large.lock);
  header *h = large.youngest;
  memset(large.list, 0, sizeof large.list);
  memset(large.given, 0, sizeof large.given);
  large.youngest = large.oldest = NULL;
  atomic_store_explicit(&large.missed, 0, memory_order_relaxed);
  unlock(&large.lock);
  for (; h;) {
    header *older = h->older;
    give_to_system(h);
    h = older;
  }
}

/* Gives back the oldest large blocks until no more than the cap is cached; everything,
 * where the small ones alone are more. */
static void shrink(void) {
  long long in_use = atomic_load(&live);
  long long cached = atomic_load(&held) - in_use;
  long long cap = CACHE_CAP + (in_use > 0 ? in_use : 0);
  cap += atomic_load_explicit(&large.missed, memory_order_relaxed);
  if (cached <= cap) return;
  header *give = NULL;
  lock(&large.lock);
  while (cached > cap && large.oldest) {
    header *h = large.oldest;
    large_remove(h);
    note_given(h);
    cached -= (long long)(h->bytes + ALIGN);
    h->next = give;
    give = h;
  }
  unlock(&large.lock);
  give_list(give);
  if (cached > cap) give_cached();
}

void nyx_memory_trim(void) {
  nyx__fft_trim();
  give_cached();
  nyx__opencl_trim();
}

/* A host that unloads the library gets its memory back. */
static __attribute__((destructor)) void trim_at_unload(void) {
  nyx__fft_trim();
  give_cached();
}

/* Allocation */

/* Moves up to 64 blocks of a class from another shard to s and returns one more of them:
 * where one thread makes tensors and another frees them, they come back this way. */
static header *steal(shard *s, int class) {
  for (int i = 0, n = used_shards(); i < n; i++) {
    shard *other = &shards[i];
    if (other == s) continue;
    lock(&other->lock);
    header *h = other->list[class], *last = h;
    for (int k = 0; k < 64 && last && last->next; k++) last = last->next;
    if (h) other->list[class] = last->next;
    unlock(&other->lock);
    if (!h) continue;
    if (last != h) {
      lock(&s->lock);
      last->next = s->list[class];
      s->list[class] = h->next;
      unlock(&s->lock);
    }
    return h;
  }
  return NULL;
}

/* Whether the testing hook makes this allocation fail. */
static __attribute__((noinline)) bool hook_fails(void) {
  long long n = atomic_load(&fail_countdown);
  while (n > 1)
    if (atomic_compare_exchange_weak(&fail_countdown, &n, n - 1)) return false;
  return n == 1;
}

/* All that is not in the thread's own shard. */
static __attribute__((noinline)) header *alloc_slow(shard *s, size_t bytes, int class) {
  header *h = NULL;
  if (CACHED) h = class < SMALL_CLASSES ? steal(s, class) : large_take(class);
  bool reused = h != NULL;
  if (!h) {
    size_t size = CACHED ? class_bytes(class) : bytes;
    h = take_from_system(size, class);
    if (!h && CACHED) { /* what waits in other classes may be what is missing */
      give_cached();
      h = take_from_system(size, class);
    }
    if (!h) return NULL;
  }
  lock(&s->lock);
  s->allocated++;
  s->reused += reused;
  s->handed += h->bytes + ALIGN;
  account(s, (int64_t)(h->bytes + ALIGN));
  unlock(&s->lock);
  return h;
}

static inline header *alloc(size_t bytes) {
  if (__builtin_expect(atomic_load_explicit(&fail_countdown, memory_order_relaxed) != 0,
                       0) &&
      hook_fails())
    return NULL;
  if (bytes > MOST_BYTES) return NULL;
  int class = class_of(bytes);
  shard *s = get_shard();
  if (CACHED && class < SMALL_CLASSES) {
    lock(&s->lock);
    header *h = s->list[class];
    if (h) {
      s->list[class] = h->next;
      s->allocated++;
      s->reused++;
      s->handed += h->bytes + ALIGN;
      account(s, (int64_t)(h->bytes + ALIGN));
      unlock(&s->lock);
      return h;
    }
    unlock(&s->lock);
  }
  return alloc_slow(s, bytes, class);
}

void *nyx_memory_alloc(size_t bytes) {
  header *h = alloc(bytes);
  return h ? (char *)h + ALIGN : NULL;
}

void *nyx_memory_alloc_zeroed(size_t bytes) {
  header *h = alloc(bytes);
  if (!h) return NULL;
  if (!h->fresh) memset((char *)h + ALIGN, 0, bytes);
  return (char *)h + ALIGN;
}

void nyx_memory_free(void *block) {
  if (!block) return;
  header *h = (header *)((char *)block - ALIGN);
  shard *s = get_shard();
  h->fresh = false;
  bool small = CACHED && h->class < SMALL_CLASSES;
  lock(&s->lock);
  bool flushed = account(s, -(int64_t)(h->bytes + ALIGN));
  if (small) {
    h->next = s->list[h->class];
    s->list[h->class] = h;
  }
  unlock(&s->lock);
  if (!CACHED) {
    give_to_system(h);
    return;
  }
  if (!small) {
    lock(&large.lock);
    large_add(h);
    header *idle = large_idle();
    unlock(&large.lock);
    give_list(idle);
  }
  if (flushed) shrink();
}

/* Statistics and limits */

void nyx_memory_get_stats(nyx_memory_stats *out) {
  memset(out, 0, sizeof *out);
  flush_all();
  for (int i = 0, n = used_shards(); i < n; i++) {
    lock(&shards[i].lock);
    out->allocated += shards[i].allocated;
    out->reused += shards[i].reused;
    out->handed += shards[i].handed;
    unlock(&shards[i].lock);
  }
  long long in_use = atomic_load(&live), all = atomic_load(&held);
  long long highest = atomic_load(&peak), most = atomic_load(&limit);
  if (in_use < 0) in_use = 0; /* other threads are at work between the steps */
  out->live = (size_t)in_use;
  out->peak = (size_t)(highest > in_use ? highest : in_use);
  out->cached = all > in_use ? (size_t)(all - in_use) : 0;
  out->limit = (size_t)most;
}

void nyx_memory_reset_peak(void) {
  flush_all();
  atomic_store(&peak, atomic_load(&live));
}

void nyx_memory_set_limit(size_t bytes) {
  long long most = bytes > (size_t)INT64_MAX ? INT64_MAX : (long long)bytes;
  atomic_store(&limit, most);
  if (most > 0 && atomic_load(&held) > most) give_cached();
}

void nyx_memory_fail_after(int64_t n) {
  if (n == INT64_MAX) n--;
  atomic_store(&fail_countdown, n < 0 ? 0 : n + 1);
}
