/* Makes Lua's collector feel tensors: to Lua a tensor is a hundred bytes, whatever it
 * holds, and a finalised one counts as alive for one more cycle, so its own pace falls
 * behind. Two things are counted since the last full collection: bytes of new tensors,
 * and an estimate of the time that making them took. A full collection runs when it is
 * cheap beside that time, or when too many bytes have come. Read next: tensor.c. */
#include "binding.h"

/* What a tensor costs outside of Lua besides its elements, bytes. */
#define OVERHEAD ((size_t)384)
/* Bytes of new tensors that are always worth a collection: this, or half of what lives,
 * or this many times Lua's own heap, which a collection has to walk. */
#define FRESH_MIN ((size_t)64 << 20)
#define FRESH_HEAP 4
/* Time to make a tensor: nanoseconds, and bytes written in one. */
#define WORK_BASE 300
#define WORK_BYTES 16
/* A collection takes about 0.25 ns for a byte of Lua's heap (measured, 0.1 to 0.2 in
 * small and large heaps); it may take a tenth of the time in between. */
#define WORK_HEAP 2.5
#define WORK_MIN ((size_t)300000)

static int collect_now(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT, 0);
  return 0;
}

void nyx__lua_set_pace(lua_State *L, nyx__lua *s) {
  int count = lua_gc(L, LUA_GCCOUNT, 0); /* KiB; negative in a finalizer of Lua 5.4 */
  size_t heap = count > 0 ? (size_t)count * 1024 : 0;
  s->fresh = 0;
  s->work = 0;
  s->fresh_limit = FRESH_MIN;
  if (s->fresh_limit < s->live / 2) s->fresh_limit = s->live / 2;
  if (s->fresh_limit < heap * FRESH_HEAP) s->fresh_limit = heap * FRESH_HEAP;
  s->work_limit = (size_t)((double)heap * WORK_HEAP);
  if (s->work_limit < WORK_MIN) s->work_limit = WORK_MIN;
}

void nyx__lua_collect(lua_State *L, nyx__lua *s) {
  if (s->collecting) return; /* a finalizer that makes tensors */
  luaL_checkstack(L, 4, "collection");
  s->collecting = true;
  /* In LuaJIT the error of a finalizer leaves lua_gc. */
  lua_pushcfunction(L, collect_now);
  int failed = lua_pcall(L, 0, 0, 0);
  s->collecting = false;
  nyx__lua_set_pace(L, s);
  if (failed) lua_error(L);
}

static void collect_if_due(lua_State *L, nyx__lua *s) {
  if (s->work > s->work_limit || s->fresh > s->fresh_limit) nyx__lua_collect(L, s);
}

void nyx__lua_count(lua_State *L, nyx__lua *s, nyx__box *box, bool owner) {
  size_t bytes = owner ? nyx_tensor_storage_bytes(box->t) : 0;
  box->bytes = bytes + OVERHEAD;
  s->live += box->bytes;
  s->fresh += box->bytes;
  s->work += WORK_BASE + bytes / WORK_BYTES;
  collect_if_due(L, s);
}

/* While t held its gradient, boxes of it cost nothing; from now on they are all there is.
 */
void nyx__lua_set_grad(lua_State *L, nyx__lua *s, nyx_tensor *t, nyx_tensor *grad) {
  nyx_tensor *old = nyx_tensor_grad(t);
  size_t bytes = 0;
  if (old && old != grad && nyx_tensor_is_shared(old))
    bytes = nyx_tensor_storage_bytes(old);
  nyx__lua_try(L, s, nyx_tensor_set_grad(s->ctx, t, grad));
  s->fresh += bytes;
  s->work += bytes / WORK_BYTES;
  collect_if_due(L, s);
}
