/* The binding from C: two Lua states in two threads at once, tensors that cross from Lua
 * to C and back, a state that closes with tensors alive, interruption. Runs in the root
 * of the sources. Read next: bindings/lua/nyx_lua.h. */
#include <lualib.h>
#include <pthread.h>

#include "bindings/lua/nyx_lua.h"
#include "spec/c/check.h"

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_dostring(L, "package.path = 'lua/?.lua;lua/?/init.lua;' .. package.path"))
    return L;
  luaL_requiref(L, "nyx", luaopen_nyx, 0);
  lua_settop(L, 0);
  return L;
}

/* Runs Lua; a message when it fails. */
static bool run(lua_State *L, const char *script) {
  lua_settop(L, 0);
  bool ok = luaL_dostring(L, script) == LUA_OK;
  CHECK_AT(ok, "Lua", ": %s", ok ? "" : lua_tostring(L, -1));
  return ok;
}

static const char work[] =
    "local nyx = require 'nyx'\n"
    "nyx.manual_seed(7)\n"
    "local x = nyx.randn(32, 32, {requires_grad = true})\n"
    "for i = 1, 300 do\n"
    "  local loss = (x:matmul(x) * 0.01):relu():sum()\n"
    "  loss:backward()\n"
    "  local rows = x[{{1, 3}, 2}] + i\n"
    "  if i % 100 == 0 then\n"
    "    assert(not pcall(function() return x + nyx.ones(3) end))\n"
    "    collectgarbage()\n"
    "  end\n"
    "end\n"
    "return x.grad:sum()";

static void *work_in_thread(void *result) {
  lua_State *L = open_state();
  if (run(L, work)) {
    nyx_context *ctx = nyx_lua_context(L);
    CHECK_OK(ctx, nyx_tensor_item(ctx, nyx_lua_check_tensor(L, -1), (double *)result));
  }
  lua_close(L);
  return NULL;
}

static void states_work_at_once(void) {
  pthread_t thread[3];
  double result[3] = {0};
  for (int i = 0; i < 3; i++)
    pthread_create(&thread[i], NULL, work_in_thread, &result[i]);
  for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
  CHECK(result[0] != 0);
  CHECK(result[0] == result[1] && result[1] == result[2]);
}

static void tensors_cross(void) {
  lua_State *L = open_state();
  nyx_context *ctx = nyx_lua_context(L);
  nyx_tensor *t = NULL;
  const float values[] = {1, 2, 3};
  CHECK_OK(ctx, nyx_tensor_from_data(ctx, NYX_FLOAT32, 1, (int64_t[]){3}, values, &t));
  nyx_lua_push_tensor(L, t);
  lua_setglobal(L, "x");
  run(L, "x:mul_(2); y = x:sum() ");
  CHECK(((const float *)nyx_tensor_data(t))[2] == 6);
  lua_getglobal(L, "y");
  double sum = 0;
  CHECK_OK(ctx, nyx_tensor_item(ctx, nyx_lua_check_tensor(L, -1), &sum));
  CHECK(sum == 12);
  CHECK(nyx_lua_test_tensor(L, -1) != NULL);
  lua_pushinteger(L, 1);
  CHECK(nyx_lua_test_tensor(L, -1) == NULL);
  /* The tensor outlives the state, the state's context does not. */
  nyx_tensor_release(nyx_tensor_retain(t));
  lua_close(L);
  CHECK(((const float *)nyx_tensor_data(t))[2] == 6);
  nyx_tensor_release(t);
}

static int check_first(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)nyx_tensor_numel(nyx_lua_check_tensor(L, 1)));
  return 1;
}

static void errors_are_lua_errors(void) {
  lua_State *L = open_state();
  lua_pushcfunction(L, check_first);
  lua_setglobal(L, "numel");
  run(L,
      "assert(numel(require 'nyx'.ones(3)) == 3)\n"
      "local ok, message = pcall(numel, 'a')\n"
      "assert(not ok and message:find(\"tensor expected, got string 'a'\"), message)\n"
      "local x = require 'nyx'.ones(3); x:release()\n"
      "local ok, message = pcall(numel, x)\n"
      "assert(not ok and message:find('released'), message)");
  lua_close(L);
  L = luaL_newstate();
  CHECK(nyx_lua_loaded(L) == NULL);
  lua_pushcfunction(L, check_first);
  lua_pushinteger(L, 1);
  CHECK(lua_pcall(L, 1, 1, 0) != LUA_OK);
  CHECK_CONTAINS(lua_tostring(L, -1), "require \"nyx\"");
  lua_close(L);
}

static void interruption(void) {
  lua_State *L = open_state();
  nyx_context_interrupt(nyx_lua_context(L));
  run(L,
      "local nyx = require 'nyx'\n"
      "local ok, message = pcall(function() return nyx.ones(3) + 1 end)\n"
      "assert(not ok and message:find('interrupted'), message)\n"
      "assert((nyx.ones(3) + 1):sum():item() == 6)");
  lua_close(L);
}

static void closing(void) {
  lua_State *L = open_state();
  run(L,
      "local nyx = require 'nyx'\n"
      "x = nyx.ones(10, {requires_grad = true}); y = (x * x):sum()\n"
      "late = setmetatable({}, {__gc = function()\n"
      "  local ok, err = pcall(function() return x + 1 end) end})\n"
      "setmetatable(_G, {__gc = function() pcall(function() return nyx.ones(2) end) "
      "end})");
  nyx_memory_stats before, after;
  nyx_memory_get_stats(&before);
  lua_close(L);
  nyx_memory_get_stats(&after);
  CHECK(after.live < before.live);
}

int main(void) {
  RUN(states_work_at_once);
  RUN(tensors_cross);
  RUN(errors_are_lua_errors);
  RUN(interruption);
  RUN(closing);
  return check_done();
}
