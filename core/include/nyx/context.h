/* A context: the last error, the random state, gradient mode and defaults of one thread
 * of work. One thread uses it at a time; the Lua binding keeps one per lua_State. */
#ifndef NYX_CONTEXT_H
#define NYX_CONTEXT_H

#include "dtype.h"
#include "status.h"

/* Makes a context. On NYX_ERR_MEMORY *out is NULL. Free it after the last call that names
 * it; tensors outlive it. */
NYX_API NYX_MUST_CHECK nyx_status nyx_context_new(nyx_context **out);
NYX_API void nyx_context_free(nyx_context *ctx); /* NULL is allowed */

/* The message of the last failure; "" when nothing failed. Valid until the next call. */
NYX_API const char *nyx_context_error(const nyx_context *ctx);

/* For ops of extensions: formats a message, prefixed with the op being applied, and
 * returns `status`. Messages say what, got, expected, remedy. */
NYX_API NYX_MUST_CHECK nyx_status nyx_context_fail(nyx_context *ctx, nyx_status status,
                                                   const char *format, ...)
    NYX_PRINTF(3, 4);

/* Random numbers are counter-based (Philox 4x32-10): equal seeds give equal numbers on
 * every device, with any number of threads. A new context has a seed from the system. */
NYX_API void nyx_context_seed(nyx_context *ctx, uint64_t seed);
NYX_API uint64_t nyx_context_seed_of(const nyx_context *ctx);
/* The seed and how many of its numbers are used up (in blocks): set to an earlier state,
 * the same numbers come again. */
typedef struct nyx_random_state {
  uint64_t seed, next;
} nyx_random_state;
NYX_API nyx_random_state nyx_context_random_state(const nyx_context *ctx);
NYX_API void nyx_context_set_random_state(nyx_context *ctx, nyx_random_state state);

/* Whether ops on tensors that require gradients are recorded. On in a new context. */
NYX_API bool nyx_context_grad_enabled(const nyx_context *ctx);
NYX_API void nyx_context_set_grad_enabled(nyx_context *ctx, bool enabled);

/* Inference mode: gradients are off whatever set_grad_enabled says, and new tensors are
 * inference tensors, whose changes are not counted: recorded ops outside can neither save
 * nor change them. Views of other tensors are none. Off in a new context; switching it
 * off brings gradient mode back as it was. */
NYX_API bool nyx_context_inference(const nyx_context *ctx);
NYX_API void nyx_context_set_inference(nyx_context *ctx, bool on);

/* Mixed precision: while it is enabled, ops cast their float inputs as their `autocast`
 * (op.h) says; float64 stays, and so does what is written in place. Backward passes
 * follow the forward ones. Off in a new context. Casts of leaves that require gradients
 * are kept until it is switched off or a backward pass begins; one that was changed is
 * cast anew. */
typedef struct nyx_autocast_mode {
  bool enabled;
  nyx_dtype dtype;          /* NYX_BFLOAT16 or NYX_FLOAT16 */
  const nyx_device *device; /* where the ops run that are meant; NULL: anywhere */
} nyx_autocast_mode;
NYX_API nyx_autocast_mode nyx_context_autocast(const nyx_context *ctx);
NYX_API NYX_MUST_CHECK nyx_status nyx_context_set_autocast(nyx_context *ctx,
                                                           nyx_autocast_mode mode);

/* The dtype of float constructors and of float results from integer inputs; float32. */
NYX_API nyx_dtype nyx_context_default_dtype(const nyx_context *ctx);
NYX_API NYX_MUST_CHECK nyx_status nyx_context_set_default_dtype(nyx_context *ctx,
                                                                nyx_dtype dtype);

/* What the first position is called in index tensors (argmax, gather, class labels):
 * 0 in C, which is the default; the Lua binding sets 1. */
NYX_API int nyx_context_index_base(const nyx_context *ctx);
NYX_API void nyx_context_set_index_base(nyx_context *ctx, int base);

/* Asks the op that runs in this context to stop with NYX_ERR_INTERRUPTED; where none
 * runs, or it is about to end, the next one. May be called from a signal handler or
 * another thread. The request is used up by the op it stops. */
NYX_API void nyx_context_interrupt(nyx_context *ctx);
/* Uses up such a request: true once after it. For loops that can stop half-way, in ops of
 * extensions and in hosts. */
NYX_API bool nyx_context_interrupted(nyx_context *ctx);

#endif
