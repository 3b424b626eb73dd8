/* nyx.example.core, the C part of the extension: registers its op. lua/nyx/example.lua
 * loads it. */
#include <nyx/nyx_lua.h>

#include "softclip.h"

NYX_API int luaopen_nyx_example_core(lua_State *L);

int luaopen_nyx_example_core(lua_State *L) {
  nyx_lua_check(L, nyx_op_register(nyx_lua_context(L), &nyx_example_softclip));
  return 0;
}
