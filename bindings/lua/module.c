/* luaopen_nyx_core: what `require "nyx.core"` makes of a Lua state, and the functions of
 * nyx.* about the context, memory, threads and devices. Read next: tensor.c, call.c,
 * lua/nyx/init.lua (the Lua part). */
#include <stdio.h>
#include <string.h>

#include "binding.h"

#define STATE_KEY "nyx.state" /* registry: the nyx__lua */
#define META_KEY "nyx.Tensor"

/* ------------------------------------------------------------------ functions of nyx.*
 */

static double number_argument(lua_State *L, int index, const char *function,
                              const char *name) {
  if (lua_type(L, index) != LUA_TNUMBER)
    nyx__lua_bad_argument(L, nyx__lua_state(L), index, function, name, "number");
  return lua_tonumber(L, index);
}

static int64_t integer_argument(lua_State *L, int index, const char *function,
                                const char *name) {
  int64_t i;
  if (lua_type(L, index) != LUA_TNUMBER || !nyx__lua_integer(L, index, &i))
    nyx__lua_bad_argument(L, nyx__lua_state(L), index, function, name, "integer");
  return i;
}

/* nyx.manual_seed(seed): equal seeds give equal random numbers. */
static int manual_seed(lua_State *L) {
  int64_t seed = integer_argument(L, 1, "manual_seed", "seed");
  nyx_context_seed(nyx__lua_state(L)->ctx, (uint64_t)seed);
  return 0;
}

/* nyx.initial_seed(): the seed in use. */
static int initial_seed(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)nyx_context_seed_of(nyx__lua_state(L)->ctx));
  return 1;
}

static int get_default_dtype(lua_State *L) {
  nyx_dtype dtype = nyx_context_default_dtype(nyx__lua_state(L)->ctx);
  lua_pushstring(L, nyx_dtype_name(dtype));
  return 1;
}

static int set_default_dtype(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_dtype dtype = nyx__lua_dtype(L, s, 1, "set_default_dtype", "dtype");
  nyx__lua_try(L, s, nyx_context_set_default_dtype(s->ctx, dtype));
  return 0;
}

static int get_num_threads(lua_State *L) {
  lua_pushinteger(L, nyx_parallel_threads());
  return 1;
}

/* nyx.set_num_threads(n): 0 restores the default. */
static int set_num_threads(lua_State *L) {
  int64_t n = integer_argument(L, 1, "set_num_threads", "n");
  if (n < 0 || n > 4096)
    nyx__lua_fail(L, "set_num_threads: 'n' is %lld, expected 0 (the default) to 4096",
                  (long long)n);
  if (nyx_parallel_set_threads((int)n) != NYX_OK)
    nyx__lua_fail(L, "set_num_threads: %lld threads could not be started", (long long)n);
  return 0;
}

/* nyx.memory(): bytes of tensor memory in this process. */
static int memory(lua_State *L) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  const struct {
    const char *name;
    double value;
  } fields[] = {{"live", (double)stats.live},           {"peak", (double)stats.peak},
                {"cached", (double)stats.cached},       {"limit", (double)stats.limit},
                {"allocated", (double)stats.allocated}, {"reused", (double)stats.reused}};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    lua_pushinteger(L, (lua_Integer)fields[i].value);
    lua_setfield(L, -2, fields[i].name);
  }
  return 1;
}

/* nyx.memory_limit(bytes): sets the limit (0: none) and gives the one before. */
static int memory_limit(lua_State *L) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  if (!lua_isnoneornil(L, 1)) {
    double bytes = number_argument(L, 1, "memory_limit", "bytes");
    if (!(bytes >= 0 && bytes < 9e18))
      nyx__lua_fail(L, "memory_limit: %g bytes, expected 0 (no limit) or more", bytes);
    nyx_memory_set_limit((size_t)bytes);
  }
  lua_pushinteger(L, (lua_Integer)stats.limit);
  return 1;
}

static int memory_reset_peak(lua_State *L) {
  (void)L;
  nyx_memory_reset_peak();
  return 0;
}

static int memory_trim(lua_State *L) {
  (void)L;
  nyx_memory_trim();
  return 0;
}

/* nyx.memory_fail_after(n): for tests, see nyx_memory_fail_after. */
static int memory_fail_after(lua_State *L) {
  nyx_memory_fail_after(integer_argument(L, 1, "memory_fail_after", "n"));
  return 0;
}

static int cpu_path(lua_State *L) {
  lua_pushstring(L, nyx_cpu_path());
  return 1;
}

/* nyx.blas(): the BLAS and its kernel in words; "" when none was found. */
static int blas(lua_State *L) {
  lua_pushstring(L, nyx_blas_describe());
  return 1;
}

/* nyx.devices(): {{name=, description=}, ...}; opens the drivers. */
static int devices(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  lua_newtable(L);
  for (int i = 0, n = 0; i < 65; i++) {
    char name[24] = "cpu";
    if (i == 1) strcpy(name, "opencl");
    if (i > 1) snprintf(name, sizeof name, "opencl:%d", i - 1);
    nyx_device *device;
    if (nyx_device_find(s->ctx, name, &device) != NYX_OK) break;
    lua_newtable(L);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, nyx_device_describe(device));
    lua_setfield(L, -2, "description");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* core.find(name): the function of an op that came after Nyx was opened; nil if none. */
static int find(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  if (s->ops_bound != nyx_op_count()) {
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(3)); /* module */
    lua_pushvalue(L, lua_upvalueindex(4)); /* methods */
    nyx__lua_bind_ops(L, s, 2, 3, NYX_LUA_META);
    lua_settop(L, 1);
  }
  lua_pushvalue(L, 1);
  lua_rawget(L, lua_upvalueindex(3));
  return 1;
}

/* core.set_home(prefix): source names that begin so are Nyx's own files. */
static int set_home(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, NYX_LUA_HOME_KEY);
  return 0;
}

/* core.set_index(read, write): see index.c. */
static int set_index(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_createtable(L, 2, 0);
  lua_insert(L, 1);
  lua_rawseti(L, 1, 2);
  lua_rawseti(L, 1, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, NYX_LUA_INDEX_KEY);
  return 0;
}

/* core.fail(message): raises it at the innermost line outside of Nyx's own files. */
static int fail(lua_State *L) {
  nyx__lua_fail(L, "%s", luaL_checkstring(L, 1));
}

static const luaL_Reg module_functions[] = {{"manual_seed", manual_seed},
                                            {"initial_seed", initial_seed},
                                            {"get_default_dtype", get_default_dtype},
                                            {"set_default_dtype", set_default_dtype},
                                            {"get_num_threads", get_num_threads},
                                            {"set_num_threads", set_num_threads},
                                            {"memory", memory},
                                            {"memory_limit", memory_limit},
                                            {"memory_reset_peak", memory_reset_peak},
                                            {"memory_trim", memory_trim},
                                            {"memory_fail_after", memory_fail_after},
                                            {"cpu_path", cpu_path},
                                            {"blas", blas},
                                            {"devices", devices},
                                            {"set_home", set_home},
                                            {"set_index", set_index},
                                            {"fail", fail},
                                            {NULL, NULL}};

/* ------------------------------------------------------------------ for C */

/* The state of any Lua state with Nyx in it: these functions have no upvalues. */
static nyx__lua *state_of(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, STATE_KEY);
  nyx__lua *s = (nyx__lua *)lua_touserdata(L, -1);
  lua_pop(L, 1);
  return s;
}

static nyx_context *api_context(lua_State *L) {
  return state_of(L)->ctx;
}

static nyx_tensor *api_test_tensor(lua_State *L, int index) {
  luaL_checkstack(L, 2, NULL);
  index = lua_absindex(L, index);
  nyx__box *box = nyx__lua_box(L, state_of(L), index);
  return box ? box->t : NULL;
}

static nyx_tensor *api_check_tensor(lua_State *L, int index) {
  nyx_tensor *t = api_test_tensor(L, index);
  index = lua_absindex(L, index);
  if (!t)
    luaL_argerror(L, index,
                  lua_pushfstring(L, "tensor expected, got %s",
                                  nyx__lua_describe(L, state_of(L), index)));
  return t;
}

static void api_push_tensor(lua_State *L, nyx_tensor *t) {
  nyx__lua *s = state_of(L);
  luaL_checkstack(L, 4, NULL);
  luaL_getmetatable(L, META_KEY);
  nyx__box *box = nyx__lua_push_box(L, s, lua_gettop(L));
  lua_remove(L, -2);
  nyx__lua_fill(s, box, nyx_tensor_retain(t), true);
}

static nyx_arena *api_check_arena(lua_State *L, int index) {
  luaL_checkstack(L, 3, NULL);
  index = lua_absindex(L, index);
  nyx_arena *arena = nyx__lua_test_arena(L, index);
  if (!arena)
    luaL_argerror(L, index,
                  lua_pushfstring(L, "arena expected, got %s",
                                  nyx__lua_describe(L, state_of(L), index)));
  return arena;
}

static void api_push_arena(lua_State *L, nyx_arena *arena) {
  luaL_checkstack(L, 3, NULL);
  nyx__lua_push_arena(L, state_of(L), arena);
}

static void api_check(lua_State *L, nyx_status status) {
  if (status != NYX_OK) nyx__lua_raise(L, state_of(L));
}

static const nyx_lua_functions api = {.context = api_context,
                                      .test_tensor = api_test_tensor,
                                      .check_tensor = api_check_tensor,
                                      .push_tensor = api_push_tensor,
                                      .check = api_check,
                                      .check_arena = api_check_arena,
                                      .push_arena = api_push_arena};

/* ------------------------------------------------------------------ opening */

static int state_gc(lua_State *L) {
  nyx__lua *s = (nyx__lua *)lua_touserdata(L, 1);
  nyx_context *ctx = s->ctx;
  /* What finalizers made while the state was closing will not be finalised itself. */
  while (s->boxes) nyx__lua_drop(s, s->boxes);
  nyx__lua_callbacks_close(s);
  s->ctx = NULL; /* tensors that are finalised later need none */
  nyx_context_free(ctx);
  return 0;
}

static int block_gc(lua_State *L) {
  void **holder = (void **)lua_touserdata(L, 1);
  nyx_memory_free(*holder);
  *holder = NULL;
  return 0;
}

static void set_finalizer(lua_State *L, lua_CFunction gc) {
  lua_newtable(L);
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
}

/* Pushes the state, kept in the registry. It is made before every tensor, so that a
 * closing Lua state finalises it after them. */
static nyx__lua *push_state(lua_State *L) {
  nyx__lua *s = (nyx__lua *)lua_newuserdatauv(L, sizeof *s, 0);
  memset(s, 0, sizeof *s);
  set_finalizer(L, state_gc);
  lua_setmetatable(L, -2);
  if (nyx_context_new(&s->ctx) != NYX_OK)
    luaL_error(L, "nyx: not enough memory to start");
  nyx_context_set_index_base(s->ctx, 1);
  s->scope = &s->boxes;
  nyx__lua_start_pace(L, s);
  s->cast = nyx_op_find("cast");
  s->contiguous = nyx_op_find("contiguous");
  s->alias = nyx_op_find("alias");
  s->select = nyx_op_find("select");
  s->narrow = nyx_op_find("narrow");
  s->assign = nyx_op_find("assign");
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, STATE_KEY);
  set_finalizer(L, block_gc);
  lua_setfield(L, LUA_REGISTRYINDEX, NYX_LUA_BLOCK_KEY);
  return s;
}

/* Adds functions to the table at `table`, as closures over the state and the metatable
 * and `more` values at the top of the stack, which are popped. */
static void add(lua_State *L, nyx__lua *s, int table, int meta,
                const luaL_Reg *functions) {
  lua_pushvalue(L, table);
  lua_pushlightuserdata(L, s);
  lua_pushvalue(L, meta);
  luaL_setfuncs(L, functions, 2);
  lua_pop(L, 1);
}

/* Runs with the upvalues of every function of the binding: stack 1 module, 2 methods. */
static int open_with_upvalues(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__lua_bind_ops(L, s, 1, 2, NYX_LUA_META);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 1);
  nyx__lua_set_access(L);
  return 0;
}

NYX_API int luaopen_nyx_core(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, STATE_KEY);
  if (!lua_isnil(L, -1)) {
    lua_getfield(L, LUA_REGISTRYINDEX, "nyx.core");
    return 1;
  }
  lua_settop(L, 0);
  nyx__lua *s = push_state(L);
  lua_newtable(L);                /* 2: the module */
  lua_newtable(L);                /* 3: methods */
  luaL_newmetatable(L, META_KEY); /* 4 */
  s->meta = lua_topointer(L, 4);
  lua_pushliteral(L, META_KEY);
  lua_setfield(L, 4, "__name");
  add(L, s, 4, 4, nyx__lua_tensor_events);
  const luaL_Reg *const functions[] = {nyx__lua_tensor_functions,
                                       nyx__lua_convert_functions,
                                       nyx__lua_grad_functions,
                                       nyx__lua_describe_functions,
                                       nyx__lua_scope_functions,
                                       nyx__lua_anomaly_functions,
                                       nyx__lua_context_functions,
                                       nyx__lua_tune_functions,
                                       nyx__lua_machine_functions,
                                       nyx__lua_arena_functions,
                                       module_functions};
  const luaL_Reg *const methods[] = {nyx__lua_tensor_methods, nyx__lua_convert_methods,
                                     nyx__lua_grad_methods,   nyx__lua_index_methods,
                                     nyx__lua_ffi_methods,    nyx__lua_hook_methods};
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
    add(L, s, 2, 4, functions[i]);
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
    add(L, s, 3, 4, methods[i]);
  nyx__lua_open_scope(L);
  nyx__lua_open_hooks(L, s);
  nyx__lua_open_nodes(L);
  nyx__lua_open_arenas(L, s, 4);
  nyx__lua_open_profiler(L);
  lua_newtable(L); /* nyx.system, for lua/nyx/io, data and train */
  add(L, s, 5, 4, nyx__lua_file_functions);
  add(L, s, 5, 4, nyx__lua_json_functions);
  add(L, s, 5, 4, nyx__lua_zip_functions);
  add(L, s, 5, 4, nyx__lua_csv_functions);
  add(L, s, 5, 4, nyx__lua_function_functions);
  add(L, s, 5, 4, nyx__lua_profiler_functions);
  add(L, s, 5, 4, nyx__lua_checkpoint_functions);
  add(L, s, 5, 4, nyx__lua_graph_functions);
  add(L, s, 5, 4, nyx__lua_latency_functions);
  add(L, s, 5, 4, nyx__lua_geometry_functions);
  lua_setfield(L, 2, "system");
  lua_newtable(L); /* nyx.lift, for lua/nyx/func.lua */
  add(L, s, 5, 4, nyx__lua_lift_functions);
  add(L, s, 5, 4, nyx__lua_level_functions);
  lua_setfield(L, 2, "lift");

  lua_pushlightuserdata(L, s);
  lua_pushvalue(L, 4);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, find, 4);
  lua_setfield(L, 2, "find");
  lua_pushlightuserdata(L, s);
  lua_pushvalue(L, 4);
  lua_pushcclosure(L, open_with_upvalues, 2);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_call(L, 2, 0);

  lua_pushvalue(L, 3);
  lua_setfield(L, 2, "Tensor");
  lua_pushstring(L, nyx_version());
  lua_setfield(L, 2, "version");
  lua_pushlightuserdata(L, (void *)&api);
  lua_setfield(L, LUA_REGISTRYINDEX, NYX_LUA_KEY);
  lua_pushvalue(L, 2);
  lua_setfield(L, LUA_REGISTRYINDEX, "nyx.core");
  lua_settop(L, 2);
  return 1;
}

/* The file of the Lua part, found through package.path. */
static const char *find_init(lua_State *L) {
  lua_getglobal(L, "package");
  if (!lua_istable(L, -1)) luaL_error(L, "nyx: the package library is needed");
  lua_getfield(L, -1, "searchpath");
  lua_pushliteral(L, "nyx");
  lua_getfield(L, -3, "path");
  lua_call(L, 2, 2);
  if (lua_isnil(L, -2))
    luaL_error(L, "nyx: lua/nyx/init.lua was not found; set package.path:%s",
               lua_tostring(L, -1));
  return lua_tostring(L, -2);
}

NYX_API int luaopen_nyx(lua_State *L) {
  lua_settop(L, 0);
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED"); /* package.loaded */
  lua_getfield(L, 1, "nyx");
  if (lua_istable(L, -1)) return 1;
  lua_getfield(L, 1, "nyx.core");
  if (!lua_istable(L, -1)) {
    lua_pushcfunction(L, luaopen_nyx_core);
    lua_call(L, 0, 1);
    lua_setfield(L, 1, "nyx.core");
  }
  const char *file = find_init(L);
  if (luaL_loadfile(L, file)) lua_error(L);
  lua_pushliteral(L, "nyx");
  lua_pushstring(L, file);
  lua_call(L, 2, 1);
  return 1;
}
