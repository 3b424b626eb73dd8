/* Lua functions that the core calls: hooks, gradients of nyx.Function. Each is a
 * reference in the registry, owned by a block that the core frees whenever it drops the
 * hook or the node: in the middle of a collection, on another thread, after lua_close. So
 * a block that is freed waits in a list until Lua can be asked to let go.
 *
 * The functions run on a Lua thread of their own: the core does not say which Lua thread
 * called it, and one that was noted earlier may be gone. Errors end here and travel as a
 * status. Read next: hook.c, function.c. */
#include <stdatomic.h>
#include <string.h>

#include "binding.h"

#define THREAD_KEY "nyx.callbacks" /* registry: the Lua thread */
#define VALUE_KEY "nyx.raised"     /* registry: a raised value that is no string */
#define VALUE_TEXT "(error object is a %s value)"
#define MAX_DEPTH 60 /* callbacks inside one another; C's stack has room for more */

/* What callbacks share; it outlives the Lua state until the last one is freed. */
typedef struct nyx__home {
  atomic_int refs;
  lua_State *L; /* the thread; NULL once the Lua state is closing */
  nyx__lua *s;
  _Atomic(nyx__callback *) dead; /* freed, still in the registry */
} nyx__home;

struct nyx__callback {
  nyx__home *home;
  int ref;
  nyx__callback *next; /* in home->dead */
};

static void home_release(nyx__home *home) {
  if (atomic_fetch_sub(&home->refs, 1) == 1) nyx_memory_free(home);
}

static nyx__home *home_of(lua_State *L, nyx__lua *s) {
  if (s->home) return s->home;
  lua_State *thread = lua_newthread(L);
  lua_setfield(L, LUA_REGISTRYINDEX, THREAD_KEY);
  lua_pushboolean(L, 0); /* so that setting it later needs no memory */
  lua_setfield(L, LUA_REGISTRYINDEX, VALUE_KEY);
  nyx__home *home = (nyx__home *)nyx_memory_alloc(sizeof *home);
  if (!home) nyx__lua_fail(L, "not enough memory for a callback");
  atomic_init(&home->refs, 1);
  atomic_init(&home->dead, NULL);
  home->L = thread;
  home->s = s;
  return s->home = home;
}

nyx__callback *nyx__lua_callback(lua_State *L, nyx__lua *s, int index) {
  nyx__home *home = home_of(L, s);
  nyx__lua_callbacks_sweep(L, s);
  lua_pushvalue(L, index);
  int ref = luaL_ref(L, LUA_REGISTRYINDEX);
  nyx__callback *c = (nyx__callback *)nyx_memory_alloc(sizeof *c);
  if (!c) {
    luaL_unref(L, LUA_REGISTRYINDEX, ref);
    nyx__lua_fail(L, "not enough memory for a callback");
  }
  atomic_fetch_add(&home->refs, 1);
  *c = (nyx__callback){.home = home, .ref = ref};
  return c;
}

void nyx__lua_callback_free(void *callback) {
  nyx__callback *c = (nyx__callback *)callback;
  nyx__home *home = c->home;
  bool open = home->L != NULL;
  c->next = atomic_load(&home->dead);
  while (!atomic_compare_exchange_weak(&home->dead, &c->next, c)) {
  }
  if (open) return; /* else nobody sweeps any more */
  nyx__callback *list = atomic_exchange(&home->dead, NULL);
  while (list) {
    nyx__callback *next = list->next;
    nyx_memory_free(list);
    home_release(home);
    list = next;
  }
}

void nyx__lua_callbacks_sweep(lua_State *L, nyx__lua *s) {
  if (!s->home || !atomic_load_explicit(&s->home->dead, memory_order_relaxed)) return;
  nyx__callback *list = atomic_exchange(&s->home->dead, NULL);
  while (list) {
    nyx__callback *next = list->next;
    if (L) luaL_unref(L, LUA_REGISTRYINDEX, list->ref);
    nyx_memory_free(list);
    home_release(s->home);
    list = next;
  }
}

void nyx__lua_callbacks_close(nyx__lua *s) {
  if (!s->home) return;
  nyx__lua_callbacks_sweep(NULL, s);
  s->home->L = NULL;
  home_release(s->home);
  s->home = NULL;
}

/* ------------------------------------------------------------------ calls */

typedef struct invocation {
  nyx__lua *s;
  int ref;
  void (*body)(lua_State *L, nyx__lua *s, void *job);
  void *job;
} invocation;

static int invoke(lua_State *L) {
  const invocation *i = (const invocation *)lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, i->ref);
  i->body(L, i->s, i->job);
  return 0;
}

#if LUA_VERSION_NUM >= 502
/* Notes where an error came from: the traceback of who called backward ends there, as
 * another Lua thread runs here. The nyx program shows both. */
static int note_traceback(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING) return 1;
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  lua_setfield(L, LUA_REGISTRYINDEX, NYX_LUA_TRACEBACK_KEY);
  lua_settop(L, 1);
  return 1;
}
#endif

/* invoke under protection. */
static int protect(lua_State *L, invocation *i) {
#if LUA_VERSION_NUM < 502
  return lua_cpcall(L, invoke, i); /* pushing a function may fail there */
#else
  lua_pushcfunction(L, note_traceback);
  lua_pushcfunction(L, invoke);
  lua_pushlightuserdata(L, i);
  return lua_pcall(L, 1, 0, -3);
#endif
}

static nyx_status too_deep(nyx__lua *s) {
  s->too_deep = true;
  return nyx_context_fail(s->ctx, NYX_ERR_STATE,
                          "hooks and backward functions run inside one another more than "
                          "%d deep; does one start itself again?",
                          MAX_DEPTH);
}

/* The value at the top of the stack becomes the message. */
static nyx_status report(lua_State *L, nyx__lua *s, int failed) {
  if (s->too_deep)
    return too_deep(s); /* each of them would add its line to the message */
  if (failed == LUA_ERRMEM)
    return nyx_context_fail(s->ctx, NYX_ERR_MEMORY, "Lua is out of memory");
  if (lua_type(L, -1) == LUA_TSTRING)
    return nyx_context_fail(s->ctx, NYX_ERR_STATE, "%s", lua_tostring(L, -1));
  nyx_status status =
      nyx_context_fail(s->ctx, NYX_ERR_STATE, VALUE_TEXT, luaL_typename(L, -1));
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, VALUE_KEY);
  s->failed_with = true;
  return status;
}

nyx_status nyx__lua_callback_run(nyx_context *ctx, const nyx__callback *callback,
                                 void (*body)(lua_State *L, nyx__lua *s, void *job),
                                 void *job) {
  const nyx__home *home = callback->home;
  lua_State *L = home->L;
  nyx__lua *s = home->s;
  if (!L)
    return nyx_context_fail(ctx, NYX_ERR_STATE,
                            "a Lua function of this graph is gone with its Lua state");
  if (ctx != s->ctx)
    return nyx_context_fail(ctx, NYX_ERR_STATE,
                            "a Lua function of this graph belongs to another context");
  int top = lua_gettop(L);
  if (s->callbacks >= MAX_DEPTH) return too_deep(s);
  if (!lua_checkstack(L, LUA_MINSTACK))
    return nyx_context_fail(ctx, NYX_ERR_MEMORY, "Lua is out of stack");
  lua_State *running = s->running;
  bool allocating = s->allocating;
  s->allocating = false;
  invocation i = {.s = s, .ref = callback->ref, .body = body, .job = job};
  s->callbacks++;
  int failed = protect(L, &i);
  s->callbacks--;
  s->allocating = allocating;
  if (s->watching && running && s->running != running) nyx__lua_watch(running, s);
  nyx_status status = failed ? report(L, s, failed) : NYX_OK;
  if (!failed || !s->callbacks) s->too_deep = false;
  lua_settop(L, top);
  return status;
}

void nyx__lua_rethrow(lua_State *L, nyx__lua *s) {
  if (!s->failed_with) return;
  s->failed_with = false;
  luaL_checkstack(L, 3, "error message");
  lua_getfield(L, LUA_REGISTRYINDEX, VALUE_KEY);
  lua_pushboolean(L, 0);
  lua_setfield(L, LUA_REGISTRYINDEX, VALUE_KEY);
  const char *message = nyx_context_error(s->ctx);
  const char *text = lua_pushfstring(L, VALUE_TEXT, luaL_typename(L, -1));
  bool same = strlen(message) >= strlen(text) &&
              strcmp(message + strlen(message) - strlen(text), text) == 0;
  lua_pop(L, 1);
  if (same) lua_error(L);
  lua_pop(L, 1); /* something else has failed since */
}
