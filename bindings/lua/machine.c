/* What the machine has and how the process uses it: nyx.cpu_info, nyx.set_affinity,
 * nyx.set_numa. Read next: nyx/device.h, nyx/parallel.h, nyx/memory.h. */
#include <string.h>

#include "binding.h"

static void set_count(lua_State *L, const char *name, double value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static void set_text(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static void push_tiles(lua_State *L) {
  static const nyx_dtype dtypes[] = {NYX_FLOAT32, NYX_FLOAT64, NYX_BFLOAT16,
                                     NYX_FLOAT16, NYX_INT8,    NYX_UINT8};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    nyx_cpu_tile tile;
    if (!nyx_cpu_tile_of(dtypes[i], &tile)) continue;
    lua_createtable(L, 0, 7);
    set_text(L, "unit", tile.unit);
    set_count(L, "rows", (double)tile.rows);
    set_count(L, "columns", (double)tile.columns);
    if (tile.registers) set_count(L, "registers", tile.registers);
    set_count(L, "depth", (double)tile.depth);
    set_count(L, "a_bytes", (double)tile.a_bytes);
    set_count(L, "b_bytes", (double)tile.b_bytes);
    lua_setfield(L, -2, nyx_dtype_name(dtypes[i]));
  }
}

/* nyx.cpu_info(): name, path, cores, allowed, quota, nodes; bytes of a line and of the
 * caches; vectors; tiles of products by dtype. */
static int cpu_info(lua_State *L) {
  nyx_cpu_facts facts;
  nyx_parallel_info threads;
  nyx_cpu_get(&facts);
  nyx_parallel_get(&threads);
  lua_createtable(L, 0, 16);
  set_text(L, "name", facts.name);
  set_text(L, "path", nyx_cpu_path());
  set_count(L, "cores", facts.cores);
  set_text(L, "allowed", threads.allowed);
  if (threads.quota) set_count(L, "quota", threads.quota);
  set_count(L, "nodes", threads.nodes);
  set_count(L, "line", (double)facts.line);
  set_count(L, "l1", (double)facts.l1);
  set_count(L, "l2", (double)facts.l2);
  set_count(L, "l3", (double)facts.l3);
  set_count(L, "vector_bytes", facts.vector_bytes);
  set_count(L, "vector_registers", facts.vector_registers);
  set_count(L, "in_place_bytes", (double)facts.in_place_bytes);
  push_tiles(L);
  lua_setfield(L, -2, "tiles");
  return 1;
}

static const char *text_argument(lua_State *L, const char *function, const char *name) {
  if (lua_type(L, 1) != LUA_TSTRING)
    nyx__lua_bad_argument(L, nyx__lua_state(L), 1, function, name, "string");
  return lua_tostring(L, 1);
}

/* nyx.set_affinity("none", "compact", "spread" or a list of CPUs). */
static int set_affinity(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__lua_try(
      L, s, nyx_parallel_set_affinity(s->ctx, text_argument(L, "set_affinity", "cpus")));
  return 0;
}

static int get_affinity(lua_State *L) {
  nyx_parallel_info info;
  nyx_parallel_get(&info);
  lua_pushstring(L, info.affinity);
  return 1;
}

static const char *const policies[] = {"none", "local", "interleave"};

/* nyx.set_numa("none", "local" or "interleave"). */
static int set_numa(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  const char *text = text_argument(L, "set_numa", "policy");
  for (int i = 0; i < 3; i++) {
    if (strcmp(text, policies[i]) != 0) continue;
    nyx__lua_try(L, s, nyx_memory_set_numa(s->ctx, (nyx_numa_mode)i));
    return 0;
  }
  nyx__lua_fail(L, "set_numa: 'policy' is '%.60s', expected none, local or interleave",
                text);
}

static int get_numa(lua_State *L) {
  lua_pushstring(L, policies[nyx_memory_numa(NULL, 0)]);
  return 1;
}

/* nyx.system.thread_latency(ranges): seconds that parallel regions take: empty, with all
 * threads right after another, and after they went to sleep. */
static int thread_latency(lua_State *L) {
  nyx_parallel_latency latency;
  nyx_parallel_measure((int)luaL_checknumber(L, 1), &latency);
  lua_pushnumber(L, latency.empty);
  lua_pushnumber(L, latency.spinning);
  lua_pushnumber(L, latency.asleep);
  return 3;
}

const luaL_Reg nyx__lua_machine_functions[] = {
    {"cpu_info", cpu_info},         {"set_affinity", set_affinity},
    {"get_affinity", get_affinity}, {"set_numa", set_numa},
    {"get_numa", get_numa},         {NULL, NULL}};
const luaL_Reg nyx__lua_latency_functions[] = {{"thread_latency", thread_latency},
                                               {NULL, NULL}};
