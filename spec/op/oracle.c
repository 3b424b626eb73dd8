/* The Lua module nyx_oracle, for spec/op: the text of the rows over plain scalars, one
 * value at a time, so that kernels are compared with something that has no vectors,
 * strides, threads or instruction sets. */
#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"

/* forward(row, is_int, x, y, z, p, q) */
static int l_forward(lua_State *L) {
  const char *row = luaL_checkstring(L, 1);
  double v[5];
  for (int i = 0; i < 5; i++) v[i] = luaL_checknumber(L, 3 + i);
  lua_pushnumber(L, lua_toboolean(L, 2)
                        ? oracle_int_forward(row, v[0], v[1], v[2], v[3], v[4])
                        : oracle_float_forward(row, v[0], v[1], v[2], v[3], v[4]));
  return 1;
}

/* Reductions that find positions have no text: their meaning in a loop. */
static double position(const double *values, int count, int sign) {
  int best = 0;
  for (int i = 0; i < count; i++) {
    if (isnan(values[i])) return i + 1;
    if (sign * values[i] > sign * values[best]) best = i;
  }
  return best + 1;
}

/* reduce(row, values, is_int, p) */
static int l_reduce(lua_State *L) {
  const char *row = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  int count = 0;
  for (;; count++) {
    lua_rawgeti(L, 2, count + 1);
    if (lua_isnil(L, -1)) break;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  double *values = lua_newuserdata(L, (size_t)(count + 1) * sizeof *values);
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 2, i + 1);
    values[i] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  double p = luaL_optnumber(L, 4, 0);
  double result;
  if (strncmp(row, "arg", 3) == 0)
    result = position(values, count, strcmp(row, "argmax") == 0 ? 1 : -1);
  else if (lua_toboolean(L, 3))
    result = oracle_int_reduce(row, values, count, p);
  else
    result = oracle_float_reduce(row, values, count, p);
  lua_pushnumber(L, result);
  return 1;
}

__attribute__((visibility("default"))) int luaopen_nyx_oracle(lua_State *L) {
  lua_newtable(L);
  lua_pushcfunction(L, l_forward);
  lua_setfield(L, -2, "forward");
  lua_pushcfunction(L, l_reduce);
  lua_setfield(L, -2, "reduce");
  return 1;
}
