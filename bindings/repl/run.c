/* Runs Lua code for the executable: tracebacks, error messages, and Ctrl-C, which stops
 * Lua code through a debug hook and a running op through its context. Read next: main.c.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../lua/nyx_lua.h"
#include "repl.h"

#if defined _POSIX_TIMERS && _POSIX_TIMERS > 0
#define NYX_REPL_TIMER
#endif

static const char *program;  /* what messages begin with */
static nyx_context *context; /* whose ops Ctrl-C stops */
static lua_State *running;   /* what Ctrl-C stops; NULL outside of nyx__run_call */
static pthread_t running_thread;
static volatile sig_atomic_t interrupts; /* since the call began */
static volatile sig_atomic_t unheard;    /* of them since the last one that stopped Lua */

void nyx__run_set_program(const char *name) {
  program = name;
}
void nyx__run_set_context(nyx_context *ctx) {
  context = ctx;
}

/* ---- Ctrl-C */

/* A signal that comes just before a read begins to wait does not end it. So from the
 * first Ctrl-C until something was stopped a timer sends signals that do nothing but end
 * such calls; of the kind that is ignored by default, for those that come late. */
#define POKE SIGURG
#define POKE_NANOSECONDS 20000000

#ifdef NYX_REPL_TIMER
static timer_t timer;
static bool has_timer;

static void poke_every(long nanoseconds) { /* 0 stops it */
  struct itimerspec pace = {.it_value.tv_nsec = nanoseconds,
                            .it_interval.tv_nsec = nanoseconds};
  if (has_timer) timer_settime(timer, 0, &pace, NULL);
}

static void make_timer(void) {
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = POKE};
  has_timer = has_timer || timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
}
#else /* macOS: there it takes another Ctrl-C */
static void poke_every(long nanoseconds) {
  (void)nanoseconds;
}
static void make_timer(void) {}
#endif

static void on_poke(int signal_number) {
  if (!pthread_equal(pthread_self(), running_thread))
    pthread_kill(running_thread, signal_number);
}

/* Of a program that catches errors and goes on, the third Ctrl-C stops every instruction
 * after it too, until the call has ended. */
static void stop_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  poke_every(0);
  unheard = 0;
  if (interrupts < 3) lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted!");
}

/* The hook runs at the next instruction of Lua code, also of what goes on after an op was
 * stopped. Somebody who keeps pressing gets out of what neither way reaches, at the price
 * of the process. */
static void on_interrupt(int signal_number) {
  if (!pthread_equal(pthread_self(), running_thread)) { /* some worker got it */
    pthread_kill(running_thread, signal_number);
    return;
  }
  if (interrupts < 3) interrupts++; /* more do not differ */
  if (++unheard >= 3) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
    return;
  }
  if (running) lua_sethook(running, stop_hook, LUA_MASKCOUNT, 1);
  if (context) nyx_context_interrupt(context);
  poke_every(POKE_NANOSECONDS);
}

/* ---- calls */

/* Appends the traceback of the hook or backward function that the message at index 1 came
 * from, if that is where it came from, to the text at the top of the stack. */
static void add_inner_traceback(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, NYX_LUA_TRACEBACK_KEY);
  const char *inner = lua_tostring(L, -1);
  const char *trace = inner ? strstr(inner, "\nstack traceback:") : NULL;
  size_t n = trace ? (size_t)(trace - inner) : 0, length = message ? strlen(message) : 0;
  bool same = trace && n <= length && memcmp(message + length - n, inner, n) == 0;
  if (same) {
    lua_pushfstring(L, "%s\nin a hook or backward function, %s", lua_tostring(L, -2),
                    trace + 1);
    lua_replace(L, -3);
  }
  lua_pop(L, 1);
  lua_pushnil(L);
  lua_setfield(L, LUA_REGISTRYINDEX, NYX_LUA_TRACEBACK_KEY);
}

/* Turns an error value into a message with a traceback. */
static int add_traceback(lua_State *L) {
  if (interrupts) poke_every(0);
  lua_sethook(L, NULL, 0, 0); /* an op was stopped first: once is enough */
  const char *message = lua_tostring(L, 1);
  if (message == NULL) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, message, 1);
  add_inner_traceback(L);
  return 1;
}

int nyx__run_call(lua_State *L, int n_args, int n_results) {
  int base = lua_gettop(L) - n_args;
  lua_pushcfunction(L, add_traceback);
  lua_insert(L, base);
  /* No SA_RESTART: a read that waits for input ends, so that the hook can run. */
  struct sigaction action = {.sa_handler = on_interrupt}, before;
  struct sigaction poke = {.sa_handler = on_poke}, poke_before;
  sigemptyset(&action.sa_mask);
  sigemptyset(&poke.sa_mask);
  lua_State *outer = running;
  interrupts = unheard = 0;
  running = L;
  running_thread = pthread_self();
  make_timer();
  sigaction(POKE, &poke, &poke_before);
  sigaction(SIGINT, &action, &before);
  int status = lua_pcall(L, n_args, n_results, base);
  sigaction(SIGINT, &before, NULL);
  if (interrupts) poke_every(0);
  sigaction(POKE, &poke_before, NULL);
  running = outer;
  if (interrupts) {
    lua_sethook(L, NULL, 0, 0);
    /* A request that stopped Lua code is still open: it must not stop the next op. */
    if (context) (void)nyx_context_interrupted(context);
  }
  lua_remove(L, base);
  return status;
}

int nyx__run_report(lua_State *L, int status) {
  if (status == LUA_OK) return status;
  const char *message = lua_tostring(L, -1);
  fflush(stdout);
  if (program) fprintf(stderr, "%s: ", program);
  fprintf(stderr, "%s\n", message ? message : "(error object is not a string)");
  fflush(stderr);
  lua_pop(L, 1);
  return status;
}

static int run_loaded(lua_State *L, int status) {
  if (status == LUA_OK) status = nyx__run_call(L, 0, 0);
  return nyx__run_report(L, status);
}

int nyx__run_string(lua_State *L, const char *code, const char *chunk_name) {
  return run_loaded(L, luaL_loadbuffer(L, code, strlen(code), chunk_name));
}

int nyx__run_file(lua_State *L, const char *file) {
  return run_loaded(L, luaL_loadfile(L, file));
}

int nyx__run_library(lua_State *L, const char *name) {
  const char *equals = strchr(name, '=');
  if (equals) {
    lua_pushlstring(L, name, (size_t)(equals - name));
    name = equals + 1;
  } else {
    lua_pushstring(L, name);
  }
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  int status = nyx__run_call(L, 1, 1);
  if (status == LUA_OK) {
    lua_setglobal(L, lua_tostring(L, -2));
    lua_pop(L, 1);
  } else {
    lua_remove(L, -2);
  }
  return nyx__run_report(L, status);
}
