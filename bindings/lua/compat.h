/* The differences between Lua 5.4 and LuaJIT 2.1 (the 5.1 API), all of them. The rest of
 * the binding is written for 5.4. Read next: binding.h. */
#ifndef NYX_LUA_COMPAT_H
#define NYX_LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#if LUA_VERSION_NUM < 502

#define lua_newuserdatauv(L, size, n) lua_newuserdata(L, size)
#define lua_rawlen lua_objlen

static inline int lua_absindex(lua_State *L, int index) {
  return index > 0 || index <= LUA_REGISTRYINDEX ? index : lua_gettop(L) + index + 1;
}

/* Whether the number at index is a 64-bit integer; stores it. */
static inline bool nyx__lua_integer(lua_State *L, int index, int64_t *out) {
  double d = lua_tonumber(L, index);
  if (!(d >= -9223372036854775808.0 && d < 9223372036854775808.0) || d != floor(d))
    return false;
  *out = (int64_t)d;
  return true;
}

#else

#define NYX_LUA_HAS_CLOSE 1 /* to-be-closed variables */
#define NYX_LUA_HAS_BITS 1  /* operators & | ~ << >> and // */

static inline bool nyx__lua_integer(lua_State *L, int index, int64_t *out) {
  int exact;
  *out = lua_tointegerx(L, index, &exact);
  return exact != 0;
}

#endif

#endif
