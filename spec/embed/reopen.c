/* A host that knows Lua only: it opens and closes states whose scripts load Nyx as a
 * module, which Lua unloads with the state while Nyx has threads. Usage: reopen <script>.
 */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

int main(int argc, char **argv) {
  for (int round = 1; round <= 5; round++) {
    lua_State *L = luaL_newstate();
    if (L == NULL || argc != 2) return 1;
    luaL_openlibs(L);
    int failed = luaL_dofile(L, argv[1]);
    printf("%d %s\n", round, luaL_tolstring(L, -1, NULL));
    lua_close(L);
    if (failed) return 1;
  }
  return 0;
}
