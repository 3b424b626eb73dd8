/* Watching backward passes from Lua: anomaly mode, which knows the Lua lines that ops
 * were applied at, and what lua/nyx/profile.lua makes reports of. Read next:
 * core/grad/backward.c (who calls), scope.c. */
#include <stdio.h>
#include <string.h>

#include "binding.h"

#define PROFILER_KEY "nyx.profiler" /* registry: metatable */
#define RUNNING_KEY "nyx.running"   /* registry: the Lua thread s->running */

/* ------------------------------------------------------------------ anomaly mode */

void nyx__lua_watch(lua_State *L, nyx__lua *s) {
  if (s->running == L || !lua_checkstack(L, 2)) return;
  lua_pushthread(L);
  lua_setfield(L, LUA_REGISTRYINDEX, RUNNING_KEY); /* a dead thread stays readable */
  s->running = L;
}

#define MAX_PLACES 4

/* "model.lua:12, called from train.lua:40": the lines of Lua that run, without Nyx's own.
 */
static void where(void *arg, char *text, size_t size) {
  const nyx__lua *s = (const nyx__lua *)arg;
  lua_State *L = s->running;
  if (!L || !lua_checkstack(L, 4)) return;
  lua_getfield(L, LUA_REGISTRYINDEX, NYX_LUA_HOME_KEY);
  const char *home = lua_tostring(L, -1);
  size_t length = home ? strlen(home) : 0, used = 0;
  lua_Debug ar;
  int places = 0;
  for (int level = 0; places < MAX_PLACES && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0) continue; /* a C function */
    if (length && strncmp(ar.source, home, length) == 0) continue;
    int n = snprintf(text + used, size - used, "%s%s:%d",
                     places == 0   ? ""
                     : places == 1 ? ", called from "
                                   : ", ",
                     ar.short_src, ar.currentline);
    if (n < 0 || (size_t)n >= size - used) {
      text[used] = '\0';
      break;
    }
    used += (size_t)n;
    places++;
  }
  lua_pop(L, 1);
}

static void set_anomaly(nyx__lua *s, intptr_t on) {
  s->watching = on;
  nyx_context_set_anomaly(s->ctx, on ? &s->anomaly : NULL);
}

static void prepare(lua_State *L, nyx__lua *s) {
  s->anomaly = (nyx_anomaly){.where = where, .arg = s};
  nyx__lua_watch(L, s);
}

/* nyx.set_anomaly_enabled(on): see detect_anomaly. */
static int set_anomaly_enabled(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  if (!lua_isboolean(L, 1))
    nyx__lua_bad_argument(L, s, 1, "set_anomaly_enabled", "on", "boolean");
  prepare(L, s);
  set_anomaly(s, lua_toboolean(L, 1));
  return 0;
}

static int is_anomaly_enabled(lua_State *L) {
  lua_pushboolean(L, nyx_context_anomaly(nyx__lua_state(L)->ctx) != NULL);
  return 1;
}

/* nyx.detect_anomaly(fn, ...): fn(...) with anomaly mode on; gives its results. A
 * backward pass fails at the first gradient with a NaN, naming the op and the line it was
 * applied at. */
static int detect_anomaly(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  prepare(L, s);
  return nyx__lua_with(L, s, "detect_anomaly", set_anomaly, 1,
                       nyx_context_anomaly(s->ctx) != NULL);
}

const luaL_Reg nyx__lua_anomaly_functions[] = {
    {"set_anomaly_enabled", set_anomaly_enabled},
    {"is_anomaly_enabled", is_anomaly_enabled},
    {"detect_anomaly", detect_anomaly},
    {NULL, NULL}};

/* ------------------------------------------------------------------ profiler */

/* What all steps of one name took. */
typedef struct row {
  char name[64];
  uint64_t calls, bytes;
  double seconds;
} row;

typedef struct profiler {
  nyx_profiler hook;
  row *rows;
  size_t n, room;
  bool lost; /* there was no memory for a row */
} profiler;

static row *row_of(profiler *p, const char *name) {
  for (size_t i = 0; i < p->n; i++)
    if (strncmp(p->rows[i].name, name, sizeof p->rows[i].name - 1) == 0)
      return &p->rows[i];
  if (p->n == p->room) {
    size_t room = p->room ? 2 * p->room : 32;
    row *rows = (row *)nyx_memory_alloc(room * sizeof *rows);
    if (!rows) return NULL;
    if (p->n) memcpy(rows, p->rows, p->n * sizeof *rows);
    nyx_memory_free(p->rows);
    p->rows = rows;
    p->room = room;
  }
  row *r = &p->rows[p->n++];
  memset(r, 0, sizeof *r);
  strncpy(r->name, name, sizeof r->name - 1);
  return r;
}

static void take_step(void *arg, const nyx_profile_step *step) {
  profiler *p = (profiler *)arg;
  row *r = row_of(p, step->name);
  if (!r) {
    p->lost = true;
    return;
  }
  r->calls++;
  r->seconds += step->seconds;
  r->bytes += step->bytes;
}

static void set_profiler(nyx__lua *s, intptr_t hook) {
  nyx_context_set_profiler(s->ctx, (const nyx_profiler *)hook);
}

static profiler *check_profiler(lua_State *L) {
  return (profiler *)luaL_checkudata(L, 1, PROFILER_KEY);
}

/* nyx.system.profiler() */
static int new_profiler(lua_State *L) {
  profiler *p = (profiler *)lua_newuserdatauv(L, sizeof *p, 0);
  *p = (profiler){.hook = {take_step, p}};
  lua_getfield(L, LUA_REGISTRYINDEX, PROFILER_KEY);
  lua_setmetatable(L, -2);
  return 1;
}

/* nyx.system.profile(profiler, fn, ...): fn(...), whose backward passes the profiler
 * sees; gives its results. The caller keeps the profiler. */
static int profile(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  profiler *p = check_profiler(L);
  lua_remove(L, 1);
  return nyx__lua_with(L, s, "profile_backward", set_profiler, (intptr_t)&p->hook,
                       (intptr_t)nyx_context_profiler(s->ctx));
}

/* nyx.system.profile_rows(profiler): {{name=, calls=, seconds=, bytes=}, ...} */
static int profile_rows(lua_State *L) {
  const profiler *p = check_profiler(L);
  if (p->lost) nyx__lua_fail(L, "profile_backward: not enough memory for the report");
  lua_createtable(L, (int)p->n, 0);
  for (size_t i = 0; i < p->n; i++) {
    const row *r = &p->rows[i];
    lua_createtable(L, 0, 4);
    lua_pushstring(L, r->name);
    lua_setfield(L, -2, "name");
    lua_pushinteger(L, (lua_Integer)r->calls);
    lua_setfield(L, -2, "calls");
    lua_pushnumber(L, r->seconds);
    lua_setfield(L, -2, "seconds");
    lua_pushinteger(L, (lua_Integer)r->bytes);
    lua_setfield(L, -2, "bytes");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int profiler_gc(lua_State *L) {
  profiler *p = check_profiler(L);
  nyx_memory_free(p->rows);
  p->rows = NULL;
  p->n = p->room = 0;
  return 0;
}

void nyx__lua_open_profiler(lua_State *L) {
  luaL_newmetatable(L, PROFILER_KEY);
  lua_pushcfunction(L, profiler_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

const luaL_Reg nyx__lua_profiler_functions[] = {{"profiler", new_profiler},
                                                {"profile", profile},
                                                {"profile_rows", profile_rows},
                                                {NULL, NULL}};
