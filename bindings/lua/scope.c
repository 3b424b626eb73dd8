/* Functions that call a function and put something back afterwards, also when it raises
 * an error: nyx.no_grad, nyx.enable_grad, nyx.inference_mode, nyx.scope. On Lua
 * 5.4 a guard is a to-be-closed value, so the error's traceback stays whole. On LuaJIT,
 * and in coroutines, which are not unwound when they fail, the call is protected. Read
 * next: grad.c. */
#include "binding.h"

#define GUARD_KEY "nyx.guard" /* registry: the guards' metatable */

typedef struct guard {
  nyx__lua *s;
  bool is_scope, active;
  bool grad_enabled;                        /* what was before */
  nyx_level level;                          /* to be closed; 0: none */
  void (*set)(nyx__lua *s, intptr_t value); /* to be called with `before`; NULL: none */
  intptr_t before;
  nyx__box *head;      /* tensors made in this scope */
  nyx__box **previous; /* the scope around it */
} guard;

static void release_all(guard *g) {
  while (g->head) nyx__lua_drop(g->s, g->head); /* unlinks it */
}

static void leave(guard *g) {
  if (!g->active) return;
  g->active = false;
  if (g->level) {
    if (g->s->ctx) nyx_transform_end(g->s->ctx, g->level);
    return;
  }
  if (g->set) {
    if (g->s->ctx) g->set(g->s, g->before);
    return;
  }
  if (!g->is_scope) {
    if (g->s->ctx) nyx_context_set_grad_enabled(g->s->ctx, g->grad_enabled);
    return;
  }
  g->s->scope = g->previous;
  release_all(g);
}

static int guard_close(lua_State *L) {
  leave((guard *)lua_touserdata(L, 1));
  return 0;
}

void nyx__lua_open_scope(lua_State *L) {
  luaL_newmetatable(L, GUARD_KEY);
  lua_pushcfunction(L, guard_close);
  lua_setfield(L, -2, "__close");
  lua_pushcfunction(L, guard_close);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

static guard *push_guard(lua_State *L, nyx__lua *s) {
  guard *g = (guard *)lua_newuserdatauv(L, sizeof *g, 0);
  *g = (guard){.s = s};
  luaL_setmetatable(L, GUARD_KEY);
  return g;
}

/* ------------------------------------------------------------------ what escapes a scope
 */

#define MAX_DEPTH 1000

/* A walk through values: every tensor in the list `from` (NULL: in any) that is reachable
 * moves to the list `to`. */
typedef struct walk {
  nyx__lua *s;
  nyx__box **from, **to;
  int seen;     /* stack index of a table of what was visited */
  bool modules; /* what belongs to everybody is in it */
} walk;

/* Marks the global table and the modules that are loaded as visited: a function that uses
 * them does not hold what is in them. */
static void pass_modules(lua_State *L, walk *w) {
  w->modules = true;
  luaL_checkstack(L, 6, "scope");
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
  if (lua_type(L, -1) == LUA_TTABLE) {
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      lua_pushvalue(L, -1);
      lua_pushboolean(L, 1);
      lua_rawset(L, w->seen);
    }
  }
  lua_pop(L, 1);
}

/* From the value at the top of the stack. */
static void escape(lua_State *L, walk *w, int depth) {
  int value = lua_gettop(L), type = lua_type(L, value);
  if (type == LUA_TUSERDATA) {
    nyx__box *box = nyx__lua_box(L, w->s, value);
    if (box && box->link && (!w->from || box->list == w->from)) nyx__lua_link(box, w->to);
    return;
  }
  if (type != LUA_TTABLE && (type != LUA_TFUNCTION || lua_iscfunction(L, value))) return;
  if (type == LUA_TFUNCTION && !w->modules) pass_modules(L, w);
  lua_pushvalue(L, value);
  lua_rawget(L, w->seen);
  bool visited = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (visited) return;
  if (depth == MAX_DEPTH)
    nyx__lua_fail(L, "scope: the result is nested more than %d deep", MAX_DEPTH);
  lua_pushvalue(L, value);
  lua_pushboolean(L, 1);
  lua_rawset(L, w->seen);
  luaL_checkstack(L, 8, "scope");
  if (type == LUA_TFUNCTION) {
    for (int i = 1; lua_getupvalue(L, value, i); i++) {
      escape(L, w, depth + 1);
      lua_pop(L, 1);
    }
    return;
  }
  for (lua_pushnil(L); lua_next(L, value); lua_pop(L, 1)) {
    escape(L, w, depth + 1);
    lua_pushvalue(L, -2);
    escape(L, w, depth + 1);
    lua_pop(L, 1);
  }
}

static void escape_results(lua_State *L, nyx__lua *s, int first, nyx__box **from,
                           nyx__box **to) {
  int last = lua_gettop(L);
  luaL_checkstack(L, 8, "scope");
  lua_newtable(L);
  walk w = {.s = s, .from = from, .to = to, .seen = last + 1};
  for (int i = first; i <= last; i++) {
    lua_pushvalue(L, i);
    escape(L, &w, 0);
    lua_pop(L, 1);
  }
  lua_settop(L, last);
}

void nyx__lua_keep(lua_State *L, nyx__lua *s, int index) {
  if (s->scope == &s->boxes) return; /* no scope is open */
  lua_pushvalue(L, index);
  escape_results(L, s, lua_gettop(L), NULL, &s->boxes);
  lua_pop(L, 1);
}

/* ------------------------------------------------------------------ the call */

/* Calls the function at stack index 2 with the arguments after it, under the guard at 1;
 * gives the number of results, which lie from 2 on. */
static int guarded(lua_State *L) {
  guard *g = (guard *)lua_touserdata(L, 1);
  lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
  if (g->is_scope) escape_results(L, g->s, 2, &g->head, g->previous);
  return lua_gettop(L) - 1;
}

static int run_guarded(lua_State *L, guard *g) {
#ifdef NYX_LUA_HAS_CLOSE
  int is_main = lua_pushthread(L);
  lua_pop(L, 1);
  if (is_main) {
    lua_toclose(L, 1);
    int results = guarded(L);
    leave(g);
    return results;
  }
#endif
  lua_pushvalue(L, 1); /* keeps the guard while `guarded` runs */
  lua_insert(L, 1);
  lua_pushcfunction(L, guarded);
  lua_insert(L, 2);
  int failed = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
  leave(g);
  if (failed) lua_error(L);
  return lua_gettop(L) - 1;
}

/* Puts a new guard below the function and its arguments. */
static guard *enter(lua_State *L, nyx__lua *s, const char *function) {
  if (lua_type(L, 1) != LUA_TFUNCTION) {
    if (!luaL_getmetafield(L, 1, "__call"))
      nyx__lua_bad_argument(L, s, 1, function, "fn", "function");
    lua_pop(L, 1);
  }
  guard *g = push_guard(L, s);
  lua_insert(L, 1);
  g->active = true;
  return g;
}

static int with_grad(lua_State *L, bool on, const char *function) {
  nyx__lua *s = nyx__lua_state(L);
  guard *g = enter(L, s, function);
  g->grad_enabled = nyx_context_grad_enabled(s->ctx);
  nyx_context_set_grad_enabled(s->ctx, on);
  return run_guarded(L, g);
}

/* nyx.no_grad(fn, ...): fn(...) without recording; gives its results. */
static int no_grad(lua_State *L) {
  return with_grad(L, false, "no_grad");
}
static int enable_grad(lua_State *L) {
  return with_grad(L, true, "enable_grad");
}

static void set_inference(nyx__lua *s, intptr_t on) {
  nyx_context_set_inference(s->ctx, on != 0);
}

/* nyx.inference_mode(fn, ...): like no_grad, and tensors made inside are inference
 * tensors. */
static int inference_mode(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  return nyx__lua_with(L, s, "inference_mode", set_inference, true,
                       nyx_context_inference(s->ctx));
}

int nyx__lua_with(lua_State *L, nyx__lua *s, const char *function,
                  void (*set)(nyx__lua *s, intptr_t value), intptr_t on,
                  intptr_t before) {
  guard *g = enter(L, s, function);
  g->set = set;
  g->before = before;
  set(s, on);
  return run_guarded(L, g);
}

static void set_recording(nyx__lua *s, intptr_t on) {
  nyx_transform_set_recording(s->ctx, on != 0);
}

/* nyx.lift.recording(fn, ...): fn(...) as what a transform differentiates: recorded,
 * whatever mode is on. */
static int recording(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  return nyx__lua_with(L, s, "recording", set_recording, true,
                       nyx_context_grad_enabled(s->ctx));
}

/* Runs fn(level, ...) for the function at 1, under a guard that closes the level. `begin`
 * opens it; NULL: a batch. */
static int with_level(lua_State *L, nyx__lua *s, const char *function,
                      nyx_status (*begin)(nyx_context *, nyx_level *), int64_t size,
                      nyx_randomness randomness) {
  guard *g = enter(L, s, function);
  g->active = false;
  nyx__lua_try(
      L, s, begin ? begin(s->ctx, &g->level) : nyx_batch_begin(s->ctx, size, &g->level));
  g->active = true;
  if (!begin) nyx__lua_try(L, s, nyx_batch_randomness(s->ctx, g->level, randomness));
  lua_pushnumber(L, (lua_Number)g->level);
  lua_insert(L, 3);
  return run_guarded(L, g);
}

/* nyx.lift: dual_level(fn, ...), complex_level(fn, ...) and batch_level(size, randomness,
 * fn, ...) give fn(level, ...). */
static int dual_level(lua_State *L) {
  return with_level(L, nyx__lua_state(L), "jvp", nyx_dual_begin, 0, NYX_RANDOMNESS_ERROR);
}
static int complex_level(lua_State *L) {
  return with_level(L, nyx__lua_state(L), "complex step", nyx_complex_begin, 0,
                    NYX_RANDOMNESS_ERROR);
}
static int batch_level(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  static const char *const names[] = {"error", "different", "same", NULL};
  double size = lua_tonumber(L, 1);
  if (!lua_isnumber(L, 1) || size < 0)
    nyx__lua_bad_argument(L, s, 1, "vmap", "size", "number");
  nyx_randomness randomness = (nyx_randomness)luaL_checkoption(L, 2, NULL, names);
  lua_remove(L, 2);
  lua_remove(L, 1);
  return with_level(L, s, "vmap", NULL, (int64_t)size, randomness);
}

/* nyx.scope(fn, ...): fn(...), after which every tensor made inside is released, except
 * those in its results (also inside tables and closures) and those given to nyx.keep. */
static int scope(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  guard *g = enter(L, s, "scope");
  g->is_scope = true;
  g->previous = s->scope;
  s->scope = &g->head;
  return run_guarded(L, g);
}

/* nyx.keep(...): tensors, or tables of them, made in a scope outlive it; gives them back.
 */
static int keep(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  escape_results(L, s, 1, NULL, &s->boxes);
  return lua_gettop(L);
}

const luaL_Reg nyx__lua_level_functions[] = {{"recording", recording},
                                             {"dual_level", dual_level},
                                             {"complex_level", complex_level},
                                             {"batch_level", batch_level},
                                             {NULL, NULL}};

const luaL_Reg nyx__lua_scope_functions[] = {{"no_grad", no_grad},
                                             {"enable_grad", enable_grad},
                                             {"inference_mode", inference_mode},
                                             {"scope", scope},
                                             {"keep", keep},
                                             {NULL, NULL}};
