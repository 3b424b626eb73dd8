/* Contexts and error messages: the one place where a message is formatted. Texts are rows
 * of errors.def. Read next: context.h, random.h. */
#include "context.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "../device/device.h"
#include "parallel.h"
#include "random.h"

const char *nyx_version(void) {
  return NYX_VERSION;
}

const char *nyx_status_name(nyx_status status) {
  static const char *const names[] = {"ok",    "argument", "shape",      "dtype",
                                      "index", "memory",   "device",     "unsupported",
                                      "state", "io",       "interrupted"};
  size_t i = (size_t)status;
  return i < sizeof names / sizeof *names ? names[i] : "unknown";
}

/* A seed nobody chose: from the kernel, or from clock, process and address where it has
 * none to give yet (early boot). */
static uint64_t system_seed(const void *address) {
#ifdef GRND_NONBLOCK
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed) return seed;
#endif
  struct timespec now = {0, 0};
  clock_gettime(CLOCK_REALTIME, &now);
  uint32_t bits[4];
  nyx__random_block((uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec,
                    (uint64_t)getpid() << 40 ^ (uint64_t)(uintptr_t)address, bits);
  return (uint64_t)bits[0] << 32 | bits[1];
}

nyx_status nyx_context_new(nyx_context **out) {
  *out = NULL;
  nyx_context *ctx = nyx_memory_alloc_zeroed(sizeof *ctx);
  if (!ctx) return NYX_ERR_MEMORY;
  ctx->seed = system_seed(ctx);
  ctx->default_dtype = NYX_FLOAT32;
  ctx->grad_enabled = true;
  atomic_init(&ctx->interrupted, false);
  *out = ctx;
  return NYX_OK;
}

void nyx_context_free(nyx_context *ctx) {
  if (ctx) nyx__autocast_forget(ctx);
  if (ctx) nyx__opencl_finish(); /* what this context may have started */
  nyx_memory_free(ctx);
}

const char *nyx_context_error(const nyx_context *ctx) {
  return ctx->error;
}

/* Marks a message that did not fit with "..." and cuts it between UTF-8 characters. */
static void mark_cut(char *text, size_t size) {
  size_t end = size - 4;
  while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80) end--;
  memcpy(text + end, "...", 4);
}

static nyx_status fail(nyx_context *ctx, nyx_status status, const char *format,
                       va_list args) {
  if (!ctx) return status;
  char text[NYX_ERROR_SIZE]; /* an argument may be the old message itself */
  int prefix = 0;
  if (ctx->where) prefix = snprintf(text, sizeof text, "%s: ", ctx->where);
  if (prefix < 0) prefix = 0;
  size_t used = (size_t)prefix;
  if (used < sizeof text) {
    int n = vsnprintf(text + used, sizeof text - used, format, args);
    if (n < 0)
      text[used] = '\0'; /* an argument that cannot be encoded */
    else
      used += (size_t)n;
  }
  if (used >= sizeof text) mark_cut(text, sizeof text);
  memcpy(ctx->error, text, strlen(text) + 1);
  return status;
}

nyx_status nyx__fail(nyx_context *ctx, nyx_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status = fail(ctx, status, format, args);
  va_end(args);
  return status;
}

nyx_status nyx_context_fail(nyx_context *ctx, nyx_status status, const char *format,
                            ...) {
  va_list args;
  va_start(args, format);
  status = fail(ctx, status, format, args);
  va_end(args);
  return status;
}

void nyx__fail_memory(nyx_context *ctx, size_t bytes) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  if (stats.limit && (bytes > stats.limit || stats.live > stats.limit - bytes))
    (void)nyx__error(ctx, MEMORY_LIMIT, bytes, stats.live, stats.limit);
  else
    (void)nyx__error(ctx, NO_MEMORY, bytes, stats.live);
}

void nyx_context_seed(nyx_context *ctx, uint64_t seed) {
  ctx->seed = seed;
  ctx->random_next = 0;
}

uint64_t nyx_context_seed_of(const nyx_context *ctx) {
  return ctx->seed;
}

nyx_random_state nyx_context_random_state(const nyx_context *ctx) {
  return (nyx_random_state){ctx->seed, ctx->random_next};
}

void nyx_context_set_random_state(nyx_context *ctx, nyx_random_state state) {
  ctx->seed = state.seed;
  ctx->random_next = state.next;
}

uint64_t nyx__random_take(nyx_context *ctx, uint64_t blocks) {
  uint64_t first = ctx->random_next;
  ctx->random_next += blocks;
  return first;
}

bool nyx_context_grad_enabled(const nyx_context *ctx) {
  return ctx->grad_enabled;
}

void nyx_context_set_grad_enabled(nyx_context *ctx, bool enabled) {
  ctx->grad_enabled = enabled && !ctx->inference;
}

bool nyx_context_inference(const nyx_context *ctx) {
  return ctx->inference;
}

void nyx_context_set_inference(nyx_context *ctx, bool on) {
  if (on == ctx->inference) return;
  if (on) ctx->grad_outside = ctx->grad_enabled;
  ctx->grad_enabled = !on && ctx->grad_outside;
  ctx->inference = on;
}

nyx_dtype nyx_context_default_dtype(const nyx_context *ctx) {
  return ctx->default_dtype;
}

nyx_status nyx_context_set_default_dtype(nyx_context *ctx, nyx_dtype dtype) {
  if (!nyx_dtype_is_float(dtype))
    return nyx__error(ctx, DEFAULT_DTYPE, nyx_dtype_name(dtype));
  ctx->default_dtype = dtype;
  return NYX_OK;
}

int nyx_context_index_base(const nyx_context *ctx) {
  return ctx->index_base;
}

void nyx_context_set_index_base(nyx_context *ctx, int base) {
  ctx->index_base = base;
}

void nyx_context_interrupt(nyx_context *ctx) {
  atomic_store(&ctx->interrupted, true);
}
bool nyx_context_interrupted(nyx_context *ctx) {
  return nyx__interrupted(ctx);
}

nyx_status nyx__stop_status(nyx__stop *stop) {
  return atomic_load(&stop->stopped) ? nyx__error(stop->ctx, INTERRUPTED) : NYX_OK;
}

typedef struct stoppable {
  nyx__stop *stop;
  nyx_range_fn fn;
  void *arg;
} stoppable;

static void stoppable_range(void *arg, int64_t begin, int64_t end) {
  const stoppable *s = arg;
  if (!s->stop || !nyx__stopped(s->stop)) s->fn(s->arg, begin, end);
}

void nyx__parallel_until(nyx__stop *stop, int64_t n, int64_t grain, nyx_range_fn fn,
                         void *arg) {
  stoppable s = {.stop = stop, .fn = fn, .arg = arg};
  nyx_parallel_for(n, grain, stoppable_range, &s);
}

void nyx__sweep_until(nyx__stop *stop, int64_t n, int64_t grain, nyx_range_fn fn,
                      void *arg) {
  stoppable s = {.stop = stop, .fn = fn, .arg = arg};
  nyx__parallel_sweep(n, grain, stoppable_range, &s);
}

nyx_status nyx__parallel_for(nyx_context *ctx, int64_t n, int64_t grain, nyx_range_fn fn,
                             void *arg) {
  nyx__stop stop = {.ctx = ctx};
  nyx__parallel_until(&stop, n, grain, fn, arg);
  return nyx__stop_status(&stop);
}
