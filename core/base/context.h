/* Inside a context, and how the core reports errors. Texts live in errors.def; use
 *   return nyx__error(ctx, SHAPE_INNER, a, b);
 * Read next: context.c, errors.def. */
#ifndef NYX_BASE_CONTEXT_H
#define NYX_BASE_CONTEXT_H

#include <nyx/context.h>
#include <nyx/memory.h>
#include <nyx/parallel.h>
#include <stdatomic.h>

#define NYX_ERROR_SIZE 1024
#define NYX_MAX_LEVELS 16
/* In place of the size of a batch: levels of duals, and of complex numbers. */
#define NYX__DUAL (-1)
#define NYX__COMPLEX (-2)

struct nyx_context {
  char error[NYX_ERROR_SIZE];
  const char *where; /* the op being applied, prefixed to messages; NULL outside */
  uint64_t seed;
  uint64_t random_next; /* the next unused Philox block */
  nyx_dtype default_dtype;
  int index_base;
  bool grad_enabled;
  bool inference;    /* new storage is of inference mode; nothing is recorded */
  bool grad_outside; /* grad_enabled, for when inference mode ends */
  bool inside;       /* an op that calls others: their messages carry its name */
  nyx_autocast_mode autocast;
  struct nyx__cast_cache *casts; /* core/op/autocast.c; NULL: empty */
  atomic_bool interrupted;
  const struct nyx_anomaly *anomaly;   /* grad.h; NULL: off */
  const struct nyx_profiler *profiler; /* grad.h; NULL: off */
  /* Open transforms, outermost first (core/transform). */
  int n_levels;
  int64_t last_level;
  struct {
    int64_t id, size; /* size: entries of a batch; or NYX__DUAL, NYX__COMPLEX */
    int randomness;   /* nyx_randomness */
  } levels[NYX_MAX_LEVELS];
  int64_t drawing; /* a random op draws for the entries of this level; 0: none */
};

/* Formats ctx->error as "where: message" and returns status. ctx may be NULL. */
nyx_status nyx__fail(nyx_context *ctx, nyx_status status, const char *format, ...)
    NYX_PRINTF(3, 4);

/* The rows of errors.def as nyx__text_ID and NYX__STATUS_ID; the compiler checks the
 * arguments of each use against the text. */
#define NYX_ERROR(id, status, text) static const char nyx__text_##id[] = text;
#include "errors.def"
#undef NYX_ERROR
enum {
#define NYX_ERROR(id, status, text) NYX__STATUS_##id = NYX_ERR_##status,
#include "errors.def"
#undef NYX_ERROR
};
#define nyx__error(ctx, id, ...)                                                         \
  ((void)nyx__fail(ctx, (nyx_status)NYX__STATUS_##id, nyx__text_##id, ##__VA_ARGS__),    \
   (nyx_status)                                                                          \
       NYX__STATUS_##id) /* a constant, so that callers' checks are understood */

/* The error of an allocation of `bytes` that failed. */
void nyx__fail_memory(nyx_context *ctx, size_t bytes);
NYX_MUST_CHECK static inline nyx_status nyx__no_memory(nyx_context *ctx, size_t bytes) {
  nyx__fail_memory(ctx, bytes);
  return NYX_ERR_MEMORY;
}

/* Leaves the function when a call failed. */
#define NYX_TRY(call)                                                                    \
  do {                                                                                   \
    nyx_status nyx__try = (call);                                                        \
    if (nyx__try != NYX_OK) return nyx__try;                                             \
  } while (0)

/* Drops the casts that mixed precision keeps (core/op/autocast.c). */
void nyx__autocast_forget(nyx_context *ctx);

/* Takes `blocks` Philox blocks (4 x 32 bits each) of the context's stream; returns the
 * first one's number. */
uint64_t nyx__random_take(nyx_context *ctx, uint64_t blocks);

/* True once after nyx_context_interrupt. */
static inline bool nyx__interrupted(nyx_context *ctx) {
  return atomic_load_explicit(&ctx->interrupted, memory_order_relaxed) &&
         atomic_exchange(&ctx->interrupted, false);
}

/* What the threads of one piece of work share: once one of them has taken a request to
 * stop, all see it. */
typedef struct nyx__stop {
  nyx_context *ctx;
  atomic_bool stopped;
} nyx__stop;

/* Whether to stop here: for long loops, asked every thousand elements or so. */
static inline bool nyx__stopped(nyx__stop *stop) {
  if (nyx__interrupted(stop->ctx)) atomic_store(&stop->stopped, true);
  return atomic_load_explicit(&stop->stopped, memory_order_relaxed);
}

/* NYX_OK, or fails with INTERRUPTED where something stopped. */
NYX_MUST_CHECK nyx_status nyx__stop_status(nyx__stop *stop);

/* nyx_parallel_for that looks between ranges whether it should stop; the ranges that were
 * not begun are left out. For work whose result is thrown away on failure; `stop` may be
 * NULL where it is not. */
void nyx__parallel_until(nyx__stop *stop, int64_t n, int64_t grain, nyx_range_fn fn,
                         void *arg);

/* The same of nyx__parallel_sweep. */
void nyx__sweep_until(nyx__stop *stop, int64_t n, int64_t grain, nyx_range_fn fn,
                      void *arg);

/* nyx__parallel_until as work of its own, which fails with INTERRUPTED. */
nyx_status nyx__parallel_for(nyx_context *ctx, int64_t n, int64_t grain, nyx_range_fn fn,
                             void *arg) NYX_MUST_CHECK;

#endif
