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

/* A model in training, with all that may happen on the way: hooks, per-sample gradients,
 * Hessian-vector products, vectorised and forward-mode derivatives, modules called with
 * other parameters. */
static const char training[] =
    "local nyx = require 'nyx'\n"
    "local nn, func = nyx.nn, nyx.func\n"
    "nyx.manual_seed(11)\n"
    "local net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))\n"
    "local adam = nyx.optim.Adam(net:parameters(), {lr = 1e-2})\n"
    "local x, labels = nyx.randn(16, 6), nyx.randint(1, 4, {16})\n"
    "local targets, seen = nyx.randn(16, 3), 0\n"
    "net[1]:register_full_backward_hook(function() seen = seen + 1 end)\n"
    "local names = {}\n"
    "for name, w in net:named_parameters() do names[name] = w:detach() end\n"
    "local function loss(p, a, b)\n"
    "  local y = func.functional_call(net, p, a:unsqueeze(1)):squeeze(1)\n"
    "  return (y - b):square():sum()\n"
    "end\n"
    "local each = func.vmap(func.grad(loss), {in_dims = {false, 1, 1}})\n"
    "local sum = 0\n"
    "for step = 1, 40 do\n"
    "  adam:zero_grad()\n"
    "  local hidden = net[2](net[1](x))\n"
    "  hidden:register_hook(function() seen = seen + 1 end)\n"
    "  net[3](hidden):cross_entropy(labels):backward()\n"
    "  adam:step()\n"
    "  if step % 5 == 0 then\n"
    "    local g = each(names, x, targets)\n"
    "    sum = sum + g['1.weight']:square():mean():item()\n"
    "    local _, h = func.hvp(function(w) return (w:tanh() * w):sum() end, x, x)\n"
    "    local j = func.jacobian(function(w) return w:softmax(1) end)(x[1])\n"
    "    sum = sum + h:sum():item() + j:abs():sum():item()\n"
    "    collectgarbage()\n"
    "  end\n"
    "end\n"
    "assert(seen >= 80, seen)\n"
    "return net(x):sum() + sum + seen";

typedef struct task {
  const char *script;
  double result;
} task;

static void *work_in_thread(void *arg) {
  task *t = arg;
  lua_State *L = open_state();
  if (run(L, t->script)) {
    nyx_context *ctx = nyx_lua_context(L);
    CHECK_OK(ctx, nyx_tensor_item(ctx, nyx_lua_check_tensor(L, -1), &t->result));
  }
  lua_close(L);
  return NULL;
}

/* The same script in three states at once gives the same result in all. */
static void all_at_once(const char *script) {
  pthread_t thread[3];
  task tasks[3];
  for (int i = 0; i < 3; i++) {
    tasks[i] = (task){script, 0};
    pthread_create(&thread[i], NULL, work_in_thread, &tasks[i]);
  }
  for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
  CHECK(tasks[0].result != 0 && isfinite(tasks[0].result));
  CHECK(tasks[0].result == tasks[1].result && tasks[1].result == tasks[2].result);
}

static void states_work_at_once(void) {
  all_at_once(work);
}

static void states_train_at_once(void) {
  all_at_once(training);
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

static int check_arena(lua_State *L) {
  nyx_arena_stats stats;
  nyx_arena_get_stats(nyx_lua_check_arena(L, 1), &stats);
  lua_pushinteger(L, stats.buffers);
  return 1;
}

/* One arena in two states and in C: all see what one has written. */
static void arenas_cross(void) {
  lua_State *L[2] = {open_state(), open_state()};
  nyx_context *ctx = nyx_lua_context(L[0]);
  nyx_arena *arena = NULL;
  nyx_tensor *t = NULL;
  REQUIRE(CHECK_OK(ctx, nyx_arena_new(ctx, 4096, &arena)));
  for (int i = 0; i < 2; i++) {
    nyx_lua_push_arena(L[i], arena);
    lua_setglobal(L[i], "arena");
    lua_pushcfunction(L[i], check_arena);
    lua_setglobal(L[i], "count");
  }
  run(L[0], "x = arena:buffer('x', {3}); x:fill_(2); assert(count(arena) == 1)");
  run(L[1], "x = arena:buffer('x'); assert(x:sum():item() == 6); x[2] = 5");
  REQUIRE(CHECK_OK(ctx, nyx_arena_find(ctx, arena, "x", &t)));
  CHECK(((const float *)nyx_tensor_data(t))[1] == 5);
  run(L[0],
      "assert(x:sum():item() == 9)\n"
      "local ok, message = pcall(count, 'a')\n"
      "assert(not ok and message:find(\"arena expected, got string 'a'\"), message)\n"
      "assert(not pcall(arena.reset, arena)); arena:release()\n"
      "assert(not pcall(count, arena))");
  nyx_arena_release(arena); /* the other state holds it */
  lua_close(L[0]);
  run(L[1], "assert(arena:buffer('x')[2]:item() == 5)");
  lua_close(L[1]);
  CHECK(((const float *)nyx_tensor_data(t))[1] == 5);
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
  RUN(states_train_at_once);
  RUN(tensors_cross);
  RUN(arenas_cross);
  RUN(errors_are_lua_errors);
  RUN(interruption);
  RUN(closing);
  return check_done();
}
