/* Nyx inside a Lua state, for programs that host Lua and for extension modules in C.
 * Works with Lua 5.4 and LuaJIT: include the headers of the Lua you build for.
 *
 * The functions below reach the binding through the Lua state, so an extension links
 * libnyx only, and gets whichever build of the binding the program runs. All but
 * nyx_lua_loaded raise a Lua error when `require "nyx"` has not happened yet. */
#ifndef NYX_LUA_H
#define NYX_LUA_H

#include <lauxlib.h>
#include <lua.h>
#include <nyx/nyx.h>

#ifdef __cplusplus
extern "C" {
#endif

/* For programs that link the binding itself: opens Nyx and leaves the module, what
 * `require "nyx"` gives, on the stack. The Lua files are found through package.path. With
 * luaL_requiref(L, "nyx", luaopen_nyx, 0) scripts find it loaded. */
NYX_API int luaopen_nyx(lua_State *L);
/* The C part alone, `require "nyx.core"`. */
NYX_API int luaopen_nyx_core(lua_State *L);

/* What the functions below call; kept in the registry under NYX_LUA_KEY. */
typedef struct nyx_lua_functions {
  nyx_context *(*context)(lua_State *L);
  nyx_tensor *(*test_tensor)(lua_State *L, int index);
  nyx_tensor *(*check_tensor)(lua_State *L, int index);
  void (*push_tensor)(lua_State *L, nyx_tensor *t);
  void (*check)(lua_State *L, nyx_status status);
  nyx_arena *(*check_arena)(lua_State *L, int index);
  void (*push_arena)(lua_State *L, nyx_arena *arena);
} nyx_lua_functions;

#define NYX_LUA_KEY "nyx.functions"

/* Registry: message and traceback of the last error in a hook or a backward function,
 * which run on a Lua thread of their own (Lua 5.4); for programs that print tracebacks.
 */
#define NYX_LUA_TRACEBACK_KEY "nyx.traceback"

/* NULL before `require "nyx"`. */
static inline const nyx_lua_functions *nyx_lua_loaded(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, NYX_LUA_KEY);
  const nyx_lua_functions *f = (const nyx_lua_functions *)lua_touserdata(L, -1);
  lua_pop(L, 1);
  return f;
}

static inline const nyx_lua_functions *nyx_lua_get(lua_State *L) {
  const nyx_lua_functions *f = nyx_lua_loaded(L);
  if (!f)
    luaL_error(L, "nyx is not loaded in this Lua state; call require \"nyx\" first");
  return f;
}

/* The state's context. It lives until the state closes; a signal handler may hand it to
 * nyx_context_interrupt. */
static inline nyx_context *nyx_lua_context(lua_State *L) {
  return nyx_lua_get(L)->context(L);
}

/* The tensor at a stack index, borrowed; NULL for any other value. */
static inline nyx_tensor *nyx_lua_test_tensor(lua_State *L, int index) {
  return nyx_lua_get(L)->test_tensor(L, index);
}

/* The tensor at a stack index, borrowed; raises an error for any other value and for a
 * released tensor. */
static inline nyx_tensor *nyx_lua_check_tensor(lua_State *L, int index) {
  return nyx_lua_get(L)->check_tensor(L, index);
}

/* Pushes a tensor, which the new Lua value retains: the caller's reference stays the
 * caller's. Raises an error only when Lua is out of memory. */
static inline void nyx_lua_push_tensor(lua_State *L, nyx_tensor *t) {
  nyx_lua_get(L)->push_tensor(L, t);
}

/* The arena (nyx/arena.h) at a stack index, borrowed; raises an error for any other value
 * and for a released one. */
static inline nyx_arena *nyx_lua_check_arena(lua_State *L, int index) {
  return nyx_lua_get(L)->check_arena(L, index);
}

/* Pushes an arena, which the new Lua value retains. Raises an error only when Lua is out
 * of memory. */
static inline void nyx_lua_push_arena(lua_State *L, nyx_arena *arena) {
  nyx_lua_get(L)->push_arena(L, arena);
}

/* Raises the context's message as a Lua error unless status is NYX_OK. */
static inline void nyx_lua_check(lua_State *L, nyx_status status) {
  if (status != NYX_OK) nyx_lua_get(L)->check(L, status);
}

#ifdef __cplusplus
}
#endif

#endif
