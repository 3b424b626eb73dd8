/* nyx.arena: named buffers in one block of memory. Read next: nyx/arena.h. */
#include <string.h>

#include "binding.h"

#define ARENA_KEY "nyx.arena" /* registry: the metatable */

typedef struct holder {
  nyx_arena *arena; /* NULL until it is filled and after it was released */
  nyx__lua *s;
  size_t counted; /* bytes the collector feels; 0 for an arena of the host's */
} holder;

/* Pushes an empty one. */
static holder *push_holder(lua_State *L, nyx__lua *s) {
  nyx__lua_make_room(L, s);
  holder *h = (holder *)nyx__lua_allocate(L, s, sizeof *h);
  *h = (holder){.s = s};
  luaL_getmetatable(L, ARENA_KEY);
  lua_setmetatable(L, -2);
  return h;
}

static void drop(holder *h) {
  nyx_arena *arena = h->arena;
  h->arena = NULL;
  nyx__lua_uncount_block(h->s, h->counted);
  h->counted = 0;
  nyx_arena_release(arena);
}

static holder *test_holder(lua_State *L, int index) {
  holder *h = (holder *)lua_touserdata(L, index);
  if (!h || !lua_getmetatable(L, index)) return NULL;
  luaL_getmetatable(L, ARENA_KEY);
  bool ours = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return ours ? h : NULL;
}

static nyx_arena *check_arena(lua_State *L, nyx__lua *s, const char *function) {
  holder *h = test_holder(L, 1);
  if (!h) nyx__lua_bad_argument(L, s, 1, function, NULL, "arena");
  if (!h->arena) nyx__lua_fail(L, "%s: the arena was released", function);
  return h->arena;
}

/* nyx.arena(bytes): an arena with a block of so many bytes. */
static int arena_new(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  int64_t bytes;
  if (lua_type(L, 1) != LUA_TNUMBER || !nyx__lua_integer(L, 1, &bytes))
    nyx__lua_bad_argument(L, s, 1, "arena", "bytes", "integer");
  if (bytes < 1)
    nyx__lua_fail(L, "arena: 'bytes' is %lld, expected 1 or more", (long long)bytes);
  holder *h = push_holder(L, s);
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, nyx_arena_new(s->ctx, (size_t)bytes, &h->arena));
  nyx__lua_try_in(L, s, status, "arena");
  h->counted = (size_t)bytes;
  nyx__lua_count_block(s, h->counted);
  return 1;
}

/* The name at index 2, which holds no zero: C would see another name. */
static const char *check_name(lua_State *L, nyx__lua *s, const char *function) {
  size_t length;
  if (lua_type(L, 2) != LUA_TSTRING)
    nyx__lua_bad_argument(L, s, 2, function, "name", "string");
  const char *name = lua_tolstring(L, 2, &length);
  if (strlen(name) != length)
    nyx__lua_fail(L, "%s: the name '%.40s' has a byte 0 within", function, name);
  return name;
}

/* The table {dtype} at index, if any. */
static nyx_dtype read_dtype(lua_State *L, nyx__lua *s, int index) {
  nyx_dtype dtype = nyx_context_default_dtype(s->ctx);
  if (lua_isnoneornil(L, index)) return dtype;
  if (lua_type(L, index) != LUA_TTABLE)
    nyx__lua_bad_argument(L, s, index, "buffer", "options", "table");
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(name, "dtype") != 0)
      nyx__lua_fail(L, "buffer: unknown option '%.40s'; known: dtype", name);
    dtype = nyx__lua_dtype(L, s, lua_gettop(L), "buffer", "dtype");
  }
  return dtype;
}

/* a:buffer(name, shape, {dtype}): that buffer, made where there is none; without a shape
 * one that exists. */
static int arena_buffer(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  check_arena(L, s, "buffer");
  const char *name = check_name(L, s, "buffer");
  bool made = !lua_isnoneornil(L, 3) || !lua_isnoneornil(L, 4);
  nyx_dtype dtype = NYX_FLOAT32;
  int ndim = 0;
  int64_t shape[NYX_MAX_DIMS];
  if (made) {
    if (lua_type(L, 3) != LUA_TTABLE)
      nyx__lua_bad_argument(L, s, 3, "buffer", "shape", "table of sizes");
    if (!nyx__lua_shape(L, 3, &ndim, shape))
      nyx__lua_fail(L, "buffer: the shape is not a table of at most %d sizes, 0 or more",
                    NYX_MAX_DIMS);
    dtype = read_dtype(L, s, 4);
  }
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx_arena *arena = check_arena(L, s, "buffer"); /* a finalizer may have released it */
  nyx_tensor *t = NULL;
  nyx_status status;
  if (made)
    NYX_LUA_RETRY(L, s, status,
                  nyx_arena_buffer(s->ctx, arena, name, dtype, ndim, shape, &t));
  else
    status = nyx_arena_find(s->ctx, arena, name, &t);
  nyx__lua_try_in(L, s, status, "buffer");
  nyx__lua_fill(s, box, t, false);
  return 1;
}

/* a:has(name) */
static int arena_has(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_arena *arena = check_arena(L, s, "has");
  lua_pushboolean(L, nyx_arena_has(arena, check_name(L, s, "has")));
  return 1;
}

static void set_count(lua_State *L, const char *name, size_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

/* a:list(): {name, dtype, shape, offset, bytes, in_use} of each buffer, as they lie. */
static int arena_list(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  check_arena(L, s, "list");
  lua_newtable(L);
  nyx_arena_entry e;
  for (int i = 0; nyx_arena_at(check_arena(L, s, "list"), i, &e); i++) {
    lua_createtable(L, 0, 6);
    lua_pushstring(L, e.name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, nyx_dtype_name(e.dtype));
    lua_setfield(L, -2, "dtype");
    nyx__lua_push_ints(L, e.ndim, e.shape);
    lua_setfield(L, -2, "shape");
    set_count(L, "offset", e.offset);
    set_count(L, "bytes", e.bytes);
    lua_pushboolean(L, e.in_use);
    lua_setfield(L, -2, "in_use");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* a:memory(): {bytes, used, free} */
static int arena_memory(lua_State *L) {
  nyx_arena_stats stats;
  nyx_arena_get_stats(check_arena(L, nyx__lua_state(L), "memory"), &stats);
  lua_createtable(L, 0, 3);
  set_count(L, "bytes", stats.bytes);
  set_count(L, "used", stats.used);
  set_count(L, "free", stats.free);
  return 1;
}

/* a:reset(): forgets all buffers; gives a. What Lua has dropped is collected first, where
 * one is still in use. */
static int arena_reset(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_status status = nyx_arena_reset(s->ctx, check_arena(L, s, "reset"));
  if (status == NYX_ERR_STATE && !s->collecting) {
    nyx__lua_collect(L, s);
    status = nyx_arena_reset(s->ctx, check_arena(L, s, "reset"));
  }
  nyx__lua_try_in(L, s, status, "reset");
  lua_settop(L, 1);
  return 1;
}

/* a:release(): a cannot be used any more; buffers keep the block. */
static int arena_release(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  holder *h = test_holder(L, 1);
  if (!h) nyx__lua_bad_argument(L, s, 1, "release", NULL, "arena");
  if (h->arena && !s->allocating && !s->collecting) drop(h);
  return 0;
}

static int arena_gc(lua_State *L) {
  holder *h = test_holder(L, 1);
  if (h && h->arena) drop(h);
  return 0;
}

static int arena_len(lua_State *L) {
  nyx_arena_stats stats;
  nyx_arena_get_stats(check_arena(L, nyx__lua_state(L), "#"), &stats);
  lua_pushinteger(L, stats.buffers);
  return 1;
}

static int arena_tostring(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  holder *h = test_holder(L, 1);
  if (h && !h->arena) {
    lua_pushliteral(L, "nyx.Arena (released)");
    return 1;
  }
  check_arena(L, s, "tostring");
  char **text = (char **)nyx__lua_allocate(L, s, sizeof *text);
  *text = NULL; /* freed with the userdata: lua_pushstring may fail */
  lua_getfield(L, LUA_REGISTRYINDEX, NYX_LUA_BLOCK_KEY);
  lua_setmetatable(L, -2);
  nyx_status status;
  NYX_LUA_RETRY(L, s, status,
                nyx_arena_format(s->ctx, check_arena(L, s, "tostring"), text));
  nyx__lua_try_in(L, s, status, "tostring");
  lua_pushstring(L, *text);
  nyx_memory_free(*text);
  *text = NULL;
  return 1;
}

const luaL_Reg nyx__lua_arena_functions[] = {{"arena", arena_new}, {NULL, NULL}};

static const luaL_Reg methods[] = {{"buffer", arena_buffer},
                                   {"has", arena_has},
                                   {"list", arena_list},
                                   {"memory", arena_memory},
                                   {"reset", arena_reset},
                                   {"release", arena_release},
                                   {NULL, NULL}};
static const luaL_Reg events[] = {{"__gc", arena_gc},
                                  {"__close", arena_release},
                                  {"__len", arena_len},
                                  {"__tostring", arena_tostring},
                                  {NULL, NULL}};

void nyx__lua_open_arenas(lua_State *L, nyx__lua *s, int meta) {
  luaL_newmetatable(L, ARENA_KEY);
  lua_pushlightuserdata(L, s);
  lua_pushvalue(L, meta);
  luaL_setfuncs(L, events, 2);
  lua_newtable(L);
  lua_pushlightuserdata(L, s);
  lua_pushvalue(L, meta);
  luaL_setfuncs(L, methods, 2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

nyx_arena *nyx__lua_test_arena(lua_State *L, int index) {
  holder *h = test_holder(L, index);
  return h ? h->arena : NULL;
}

void nyx__lua_push_arena(lua_State *L, nyx__lua *s, nyx_arena *arena) {
  holder *h = push_holder(L, s);
  h->arena = nyx_arena_retain(arena);
}
