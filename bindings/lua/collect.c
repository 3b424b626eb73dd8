/* Makes Lua's collector feel tensors: to Lua a tensor is a hundred bytes, whatever it
 * holds, and a finalised one counts as alive for one more cycle, so its own pace falls
 * behind. Two things are counted of the tensors that were made since the last full
 * collection and not freed yet: their bytes, and an estimate of the time that making them
 * took. A full collection runs when it is cheap beside that time, or when too many bytes
 * have come. Where the Lua state is generational, as the programs `lua` and `nyx` are, a
 * young collection, which takes half a microsecond, runs much more often: temporaries
 * are reused while the cache still holds them. Read next: tensor.c. */
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
/* The same between young collections: half a megabyte, or a hundred small tensors. */
#define WORK_YOUNG ((size_t)30000)

/* Finds out whether L is generational. Asking changes the mode of one that is not, so it
 * is set back; in a finalizer there is no answer. */
static void ask_mode(lua_State *L, nyx__lua *s) {
#ifdef LUA_GCGEN
  int mode = lua_gc(L, LUA_GCGEN, 0, 0);
  if (mode == LUA_GCINC) lua_gc(L, LUA_GCINC, 0, 0, 0);
  if (mode >= 0) s->generational = mode == LUA_GCGEN;
#else
  (void)L;
  (void)s;
#endif
}

static int collect_now(lua_State *L) {
  bool young = lua_toboolean(L, 1);
  lua_gc(L, young ? LUA_GCSTEP : LUA_GCCOLLECT, 0);
  return 0;
}

/* When the next full collection is due. */
static void set_pace(lua_State *L, nyx__lua *s) {
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

void nyx__lua_start_pace(lua_State *L, nyx__lua *s) {
  ask_mode(L, s);
  set_pace(L, s);
}

static void collect(lua_State *L, nyx__lua *s, bool young) {
  if (s->collecting) return; /* a finalizer that makes tensors */
  luaL_checkstack(L, 4, "collection");
  s->collecting = true;
  /* In LuaJIT the error of a finalizer leaves lua_gc. */
  lua_pushcfunction(L, collect_now);
  lua_pushboolean(L, young);
  int failed = lua_pcall(L, 1, 0, 0);
  s->collecting = false;
  s->young_work = 0;
  if (!young) set_pace(L, s);
  if (failed) lua_error(L);
}

void nyx__lua_collect(lua_State *L, nyx__lua *s) {
  collect(L, s, false);
}

/* Before a new box, not after: what lives through two collections is old, and in a loop
 * the result before may still lie on the stack. A full one makes everything old, so it
 * runs only for what a young one has left: of large temporaries each would have it run
 * again for the one before. */
void nyx__lua_make_room(lua_State *L, nyx__lua *s) {
  if (s->generational && s->young_work > WORK_YOUNG) {
    ask_mode(L, s); /* the script may have changed it */
    collect(L, s, s->generational);
  }
  if (s->work > s->work_limit || s->fresh > s->fresh_limit) nyx__lua_collect(L, s);
}

static size_t work_of(size_t bytes) {
  return WORK_BASE + bytes / WORK_BYTES;
}

static void subtract(size_t *from, size_t amount) {
  *from -= *from < amount ? *from : amount;
}

static void add(nyx__lua *s, size_t bytes, size_t work) {
  s->fresh += bytes;
  s->work += work;
  s->young_work += work;
}

void nyx__lua_count(nyx__lua *s, nyx__box *box, bool owner) {
  size_t bytes = owner ? nyx_tensor_storage_bytes(box->t) : 0;
  box->bytes = bytes + OVERHEAD;
  s->live += box->bytes;
  add(s, box->bytes, work_of(bytes));
}

void nyx__lua_uncount(nyx__lua *s, nyx__box *box) {
  if (!box->bytes) return;
  s->live -= box->bytes;
  subtract(&s->fresh, box->bytes);
  subtract(&s->work, work_of(box->bytes - OVERHEAD));
  box->bytes = 0;
}

void nyx__lua_count_block(nyx__lua *s, size_t bytes) {
  s->live += bytes;
  add(s, bytes, work_of(bytes));
}

void nyx__lua_uncount_block(nyx__lua *s, size_t bytes) {
  if (!bytes) return;
  s->live -= bytes;
  subtract(&s->fresh, bytes);
  subtract(&s->work, work_of(bytes));
}

/* While t held its gradient, boxes of it cost nothing; from now on they are all there is.
 */
void nyx__lua_set_grad(lua_State *L, nyx__lua *s, nyx_tensor *t, nyx_tensor *grad) {
  nyx_tensor *old = nyx_tensor_grad(t);
  size_t bytes = 0;
  if (old && old != grad && nyx_tensor_is_shared(old))
    bytes = nyx_tensor_storage_bytes(old);
  nyx__lua_try(L, s, nyx_tensor_set_grad(s->ctx, t, grad));
  add(s, bytes, bytes / WORK_BYTES);
}
