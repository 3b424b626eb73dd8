/* Arenas: tensors over parts of one block, found by name. The block and the arena are
 * counted apart: buffers hold the block only, so that none of them, nor what they are
 * recorded in, can hold itself through the arena. Read next: nyx/arena.h, tensor.c. */
#include <nyx/arena.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tensor.h"

#define ALIGN ((size_t)64)
#define LINES 32 /* of nyx_arena_format */
#define LINE_ROOM (NYX_ARENA_NAME + NYX_SHAPE_TEXT + 96)

typedef struct block {
  atomic_int refs; /* of the arena and of each buffer's storage */
  size_t bytes;
  char *data;
} block;

typedef struct slot {
  char name[NYX_ARENA_NAME];
  nyx_tensor *t;
  size_t offset;
} slot;

struct nyx_arena {
  atomic_int refs;
  pthread_mutex_t lock; /* over all that follows */
  block *block;
  size_t used;
  size_t written; /* from here on the block still holds its first zeros */
  int count, room;
  slot *slots;
};

static void block_release(void *arg) {
  block *b = arg;
  if (!nyx__last_reference(&b->refs)) return;
  nyx_memory_free(b->data);
  nyx_memory_free(b);
}

static size_t round_up(size_t bytes) {
  return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

nyx_status nyx_arena_new(nyx_context *ctx, size_t bytes, nyx_arena **out) {
  *out = NULL;
  if (bytes == 0) return nyx__error(ctx, ARENA_BYTES);
  if (bytes > SIZE_MAX - ALIGN) return nyx__no_memory(ctx, bytes);
  nyx_arena *a = nyx_memory_alloc_zeroed(sizeof *a);
  block *b = nyx_memory_alloc(sizeof *b);
  char *data = nyx_memory_alloc_zeroed(round_up(bytes));
  if (!a || !b || !data) {
    nyx_memory_free(a);
    nyx_memory_free(b);
    nyx_memory_free(data);
    return nyx__no_memory(ctx, bytes);
  }
  atomic_init(&b->refs, 1);
  b->bytes = round_up(bytes);
  b->data = data;
  atomic_init(&a->refs, 1);
  pthread_mutex_init(&a->lock, NULL);
  a->block = b;
  *out = a;
  return NYX_OK;
}

nyx_arena *nyx_arena_retain(nyx_arena *a) {
  if (a) atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
  return a;
}

static void drop_slots(slot *slots, int count) {
  for (int i = 0; i < count; i++) nyx_tensor_release(slots[i].t);
  nyx_memory_free(slots);
}

void nyx_arena_release(nyx_arena *a) {
  if (!a || !nyx__last_reference(&a->refs)) return;
  drop_slots(a->slots, a->count);
  block_release(a->block);
  pthread_mutex_destroy(&a->lock);
  nyx_memory_free(a);
}

/* ------------------------------------------------------------------ with the lock */

static slot *find(const nyx_arena *a, const char *name) {
  for (int i = 0; i < a->count; i++)
    if (strcmp(a->slots[i].name, name) == 0) return &a->slots[i];
  return NULL;
}

/* Room for one slot more. */
static nyx_status grow(nyx_context *ctx, nyx_arena *a) {
  if (a->count < a->room) return NYX_OK;
  int room = a->room ? 2 * a->room : 8;
  slot *slots = nyx_memory_alloc((size_t)room * sizeof *slots);
  if (!slots) return nyx__no_memory(ctx, (size_t)room * sizeof *slots);
  if (a->count) memcpy(slots, a->slots, (size_t)a->count * sizeof *slots);
  nyx_memory_free(a->slots);
  a->slots = slots;
  a->room = room;
  return NYX_OK;
}

/* A tensor over `bytes` of the block from a->used on. It belongs to no mode or transform
 * of the one who asked first, as others will get it too. */
static nyx_status wrap(nyx_context *ctx, nyx_arena *a, nyx_dtype dtype, int ndim,
                       const int64_t *shape, nyx_tensor **out) {
  atomic_fetch_add_explicit(&a->block->refs, 1, memory_order_relaxed);
  NYX_TRY(nyx_tensor_wrap(ctx, dtype, ndim, shape, a->block->data + a->used,
                          block_release, a->block, out)); /* releases where it fails */
  (*out)->storage->inference = false;
  (*out)->level = 0;
  return NYX_OK;
}

static nyx_status add(nyx_context *ctx, nyx_arena *a, const char *name, nyx_dtype dtype,
                      int ndim, const int64_t *shape, slot **out) {
  size_t bytes, left = a->block->bytes - a->used;
  NYX_TRY(nyx__shape_bytes(ctx, dtype, ndim, shape, &bytes));
  if (bytes > left) {
    char text[NYX_SHAPE_TEXT];
    return nyx__error(ctx, ARENA_ROOM, name, nyx_dtype_name(dtype),
                      nyx__shape_text(ndim, shape, text, sizeof text), bytes, left,
                      a->block->bytes);
  }
  NYX_TRY(grow(ctx, a));
  slot *s = &a->slots[a->count];
  NYX_TRY(wrap(ctx, a, dtype, ndim, shape, &s->t));
  strcpy(s->name, name);
  s->offset = a->used;
  if (a->used < a->written)
    memset(a->block->data + a->used, 0,
           bytes < a->written - a->used ? bytes : a->written - a->used);
  a->used += round_up(bytes);
  if (a->written < a->used) a->written = a->used;
  a->count++;
  *out = s;
  return NYX_OK;
}

static nyx_status other(nyx_context *ctx, const slot *s, nyx_dtype dtype, int ndim,
                        const int64_t *shape) {
  char text[NYX_SHAPE_TEXT];
  if (ndim < 0 || ndim > NYX_MAX_DIMS)
    return nyx__error(ctx, NDIM_RANGE, ndim, NYX_MAX_DIMS);
  return nyx__error(ctx, ARENA_OTHER, s->name, nyx_dtype_name(s->t->dtype),
                    NYX__SHAPE(s->t), nyx_dtype_name(dtype),
                    nyx__shape_text(ndim, shape, text, sizeof text));
}

/* "a, b, c and 2 more", or "none yet". */
static void names(const nyx_arena *a, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "%s", a->count ? "" : "none yet");
  for (int i = 0; i < a->count; i++) {
    if (used + NYX_ARENA_NAME + 24 > size) {
      snprintf(text + used, size - used, " and %d more", a->count - i);
      return;
    }
    used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "",
                             a->slots[i].name);
  }
}

/* ------------------------------------------------------------------ public */

nyx_status nyx_arena_buffer(nyx_context *ctx, nyx_arena *a, const char *name,
                            nyx_dtype dtype, int ndim, const int64_t *shape,
                            nyx_tensor **out) {
  *out = NULL;
  size_t length = strlen(name);
  if (length == 0 || length >= NYX_ARENA_NAME)
    return nyx__error(ctx, ARENA_NAME, name, length, NYX_ARENA_NAME - 1);
  pthread_mutex_lock(&a->lock);
  nyx_status status = NYX_OK;
  slot *s = find(a, name);
  if (!s)
    status = add(ctx, a, name, dtype, ndim, shape, &s);
  else if (s->t->dtype != dtype || !nyx__has_shape(s->t, ndim, shape))
    status = other(ctx, s, dtype, ndim, shape);
  if (status == NYX_OK) *out = nyx_tensor_retain(s->t);
  pthread_mutex_unlock(&a->lock);
  return status;
}

nyx_status nyx_arena_find(nyx_context *ctx, nyx_arena *a, const char *name,
                          nyx_tensor **out) {
  char text[400];
  *out = NULL;
  pthread_mutex_lock(&a->lock);
  slot *s = find(a, name);
  if (s)
    *out = nyx_tensor_retain(s->t);
  else
    names(a, text, sizeof text);
  pthread_mutex_unlock(&a->lock);
  return *out ? NYX_OK : nyx__error(ctx, ARENA_UNKNOWN, name, text);
}

bool nyx_arena_has(nyx_arena *a, const char *name) {
  pthread_mutex_lock(&a->lock);
  bool has = find(a, name) != NULL;
  pthread_mutex_unlock(&a->lock);
  return has;
}

nyx_status nyx_arena_reset(nyx_context *ctx, nyx_arena *a) {
  char name[NYX_ARENA_NAME];
  slot *slots = NULL;
  int count = 0;
  bool in_use = false;
  pthread_mutex_lock(&a->lock);
  for (int i = 0; i < a->count && !in_use; i++) {
    /* What only the arena holds nobody else can come to hold while it is locked. */
    in_use = nyx_tensor_is_shared(a->slots[i].t);
    if (in_use) strcpy(name, a->slots[i].name);
  }
  if (!in_use) {
    slots = a->slots;
    count = a->count;
    a->slots = NULL;
    a->count = a->room = 0;
    a->used = 0;
  }
  pthread_mutex_unlock(&a->lock);
  /* Outside of the lock: hooks of a tensor may hold anything, this arena too. */
  drop_slots(slots, count);
  return in_use ? nyx__error(ctx, ARENA_IN_USE, name) : NYX_OK;
}

void nyx_arena_get_stats(nyx_arena *a, nyx_arena_stats *out) {
  pthread_mutex_lock(&a->lock);
  *out = (nyx_arena_stats){.bytes = a->block->bytes,
                           .used = a->used,
                           .free = a->block->bytes - a->used,
                           .buffers = a->count};
  pthread_mutex_unlock(&a->lock);
}

bool nyx_arena_at(nyx_arena *a, int i, nyx_arena_entry *out) {
  pthread_mutex_lock(&a->lock);
  bool there = i >= 0 && i < a->count;
  if (there) {
    const slot *s = &a->slots[i];
    strcpy(out->name, s->name);
    out->dtype = s->t->dtype;
    out->ndim = s->t->ndim;
    memcpy(out->shape, s->t->shape, sizeof out->shape);
    out->offset = s->offset;
    out->bytes = s->t->storage->bytes;
    out->in_use = nyx_tensor_is_shared(s->t);
  }
  pthread_mutex_unlock(&a->lock);
  return there;
}

nyx_status nyx_arena_format(nyx_context *ctx, nyx_arena *a, char **out) {
  size_t room = (LINES + 2) * LINE_ROOM, length;
  *out = nyx_memory_alloc(room);
  if (!*out) return nyx__no_memory(ctx, room);
  char *text = *out;
  pthread_mutex_lock(&a->lock);
  length = (size_t)snprintf(
      text, room, "nyx.Arena of %zu bytes: %zu used, %zu free, %d %s", a->block->bytes,
      a->used, a->block->bytes - a->used, a->count, a->count == 1 ? "buffer" : "buffers");
  for (int i = 0; i < a->count && i < LINES; i++) {
    const slot *s = &a->slots[i];
    length += (size_t)snprintf(
        text + length, room - length, "\n  %s: %s (%s), %zu bytes at %zu", s->name,
        nyx_dtype_name(s->t->dtype), NYX__SHAPE(s->t), s->t->storage->bytes, s->offset);
  }
  if (a->count > LINES)
    snprintf(text + length, room - length, "\n  and %d more", a->count - LINES);
  pthread_mutex_unlock(&a->lock);
  return NYX_OK;
}
