/* Arenas: one block of memory, made once, in which named buffers of a dtype and a shape
 * are laid out one behind the other, each on a multiple of 64 bytes. A buffer is a tensor
 * over its part of the block: a host fills it by name and a script reads it, or the other
 * way round, and nothing is copied. An arena may be used by several threads and Lua
 * states at once, and so may different buffers; who writes one that others read agrees
 * with them when.
 *
 * Each buffer is a storage of its own, with its own version and gradient history: to
 * change one in place does not invalidate what gradients saved of another. A buffer keeps
 * the block alive, also after the arena was released. Arenas lie in CPU memory. */
#ifndef NYX_ARENA_H
#define NYX_ARENA_H

#include "tensor.h"

#define NYX_ARENA_NAME 64 /* bytes of the longest name, with the zero at its end */

typedef struct nyx_arena nyx_arena;

/* What an arena holds. */
typedef struct nyx_arena_stats {
  size_t bytes; /* of the block: what was asked for, rounded up to 64 */
  size_t used;  /* by buffers, each rounded up to 64 */
  size_t free;  /* the rest */
  int buffers;
} nyx_arena_stats;

typedef struct nyx_arena_entry {
  char name[NYX_ARENA_NAME];
  nyx_dtype dtype;
  int ndim;
  int64_t shape[NYX_MAX_DIMS];
  size_t offset; /* bytes from the beginning of the block */
  size_t bytes;  /* of its elements */
  bool in_use;   /* somebody besides the arena holds the buffer, a view or its history */
} nyx_arena_entry;

/* A new arena with a block of `bytes`, at least 1, from the library's allocator (on huge
 * pages where large tensors are). Fails with NYX_ERR_ARGUMENT or NYX_ERR_MEMORY. */
NYX_API NYX_MUST_CHECK nyx_status nyx_arena_new(nyx_context *ctx, size_t bytes,
                                                nyx_arena **out);
NYX_API nyx_arena *nyx_arena_retain(nyx_arena *arena); /* gives arena; NULL is allowed */
NYX_API void nyx_arena_release(nyx_arena *arena);      /* NULL is allowed */

/* The buffer `name`, in *out, which is given: row-major, and made of zeros when there was
 * none. Who asks for the same name, dtype and shape gets the same tensor. Buffers count
 * their changes whatever the mode they were made in (inference, transforms).
 * NYX_ERR_ARGUMENT: the name has 0 or more than 63 bytes, or is that of a buffer of
 * another dtype or shape; NYX_ERR_SHAPE: not a shape; NYX_ERR_MEMORY: it does not fit
 * what is left, which the message says, or the tensor itself could not be made. */
NYX_API NYX_MUST_CHECK nyx_status nyx_arena_buffer(nyx_context *ctx, nyx_arena *arena,
                                                   const char *name, nyx_dtype dtype,
                                                   int ndim, const int64_t *shape,
                                                   nyx_tensor **out);
/* The buffer `name`, which exists: fails with NYX_ERR_ARGUMENT and the names there are.
 */
NYX_API NYX_MUST_CHECK nyx_status nyx_arena_find(nyx_context *ctx, nyx_arena *arena,
                                                 const char *name, nyx_tensor **out);
NYX_API bool nyx_arena_has(nyx_arena *arena, const char *name);

/* Forgets all buffers, so that others can be laid out in the same block. Only when nobody
 * else holds one, a view of one or what a gradient saved of one; else it changes nothing
 * and fails with NYX_ERR_STATE and the name of the first: memory is never reused under a
 * tensor. */
NYX_API NYX_MUST_CHECK nyx_status nyx_arena_reset(nyx_context *ctx, nyx_arena *arena);

NYX_API void nyx_arena_get_stats(nyx_arena *arena, nyx_arena_stats *out);
/* Buffer `i`, in the order they were made; false: there are not so many. */
NYX_API bool nyx_arena_at(nyx_arena *arena, int i, nyx_arena_entry *out);
/* The sizes and a line for each of the first 32 buffers. *out is given: free it with
 * nyx_memory_free. */
NYX_API NYX_MUST_CHECK nyx_status nyx_arena_format(nyx_context *ctx, nyx_arena *arena,
                                                   char **out);

#endif
