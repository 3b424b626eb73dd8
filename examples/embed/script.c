/* A host program with Lua and Nyx inside. It runs a script, calls a function of it with
 * its own numbers as a tensor, and reads the tensor that comes back. Read next:
 * script.lua, <nyx/nyx_lua.h>. */
#include <lauxlib.h>
#include <lualib.h>
#include <nyx/nyx_lua.h>
#include <stdio.h>

/* Runs inside lua_pcall: what raises here ends up as the message in main. */
static int host(lua_State *L) {
  float position[4][2] = {{0, 0}, {1, 0}, {0, 1}, {1, 1}}, score[4];
  if (luaL_dofile(L, lua_tostring(L, 1))) return lua_error(L); /* leaves its function */

  nyx_tensor *x;
  nyx_lua_check(L, nyx_tensor_from_data(nyx_lua_context(L), NYX_FLOAT32, 2,
                                        (int64_t[]){4, 2}, position, &x));
  nyx_lua_push_tensor(L, x);
  nyx_tensor_release(x); /* Lua has its own reference */
  lua_call(L, 1, 1);

  nyx_tensor *y = nyx_lua_check_tensor(L, -1);
  nyx_lua_check(L,
                nyx_tensor_read(nyx_lua_context(L), y, NYX_FLOAT32, score, sizeof score));
  for (int i = 0; i < 4; i++)
    printf("(%g, %g) scores %.3f\n", position[i][0], position[i][1], score[i]);
  return 0;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (L == NULL) return 1;
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_nyx); /* what the script's `require "nyx"` calls */
  lua_setfield(L, -2, "nyx");
  lua_pushcfunction(L, host);
  lua_pushstring(L, argc > 1 ? argv[1] : "script.lua");
  int failed = lua_pcall(L, 1, 0, 0);
  if (failed) fprintf(stderr, "script: %s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed != 0;
}
