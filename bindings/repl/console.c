/* The interactive session: reads a chunk (over several lines when the first is not
 * complete), runs it, shows the values of an expression. Read next: line.c, show.c. */
#include <stdio.h>
#include <string.h>

#include "repl.h"

/* ---- reading a chunk */

static const char *prompt_text(lua_State *L, bool first) {
  lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2");
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return lua_pushstring(L, first ? "> " : ">> ");
  }
  const char *text = luaL_tolstring(L, -1, NULL);
  lua_remove(L, -2);
  return text;
}

/* Reads a line and pushes it. */
static nyx__line_end push_line(lua_State *L, bool first) {
  const char *line, *prompt = prompt_text(L, first);
  nyx__line_end end = nyx__line_read(prompt, &line);
  lua_pop(L, 1);
  if (end != NYX__LINE_TEXT) return end;
  if (line[strspn(line, " \t")] != '\0') nyx__line_remember(line);
  if (first && line[0] == '=') line++; /* "=x" shows x, an old habit */
  lua_pushstring(L, line);
  return end;
}

static bool is_incomplete(lua_State *L, int status) {
  static const char mark[] = "<eof>";
  size_t length, n = sizeof mark - 1;
  const char *message = lua_tolstring(L, -1, &length);
  return status == LUA_ERRSYNTAX && length >= n &&
         strcmp(message + length - n, mark) == 0;
}

/* Compiles the text on top of the stack, as an expression if it is one. Pushes a function
 * or a message. */
static int compile(lua_State *L, bool *incomplete) {
  const char *text = lua_tostring(L, -1);
  const char *expression = lua_pushfstring(L, "return %s", text);
  int status = luaL_loadbuffer(L, expression, strlen(expression), "=stdin");
  *incomplete = is_incomplete(L, status);
  lua_remove(L, -2);
  if (status == LUA_OK) return status;
  lua_pop(L, 1);
  status = luaL_loadbuffer(L, text, strlen(text), "=stdin");
  *incomplete = status != LUA_OK && (*incomplete || is_incomplete(L, status));
  return status;
}

/* Reads until a chunk is complete; pushes it or a message. */
static nyx__line_end read_chunk(lua_State *L, int *status) {
  nyx__line_end end = push_line(L, true);
  if (end != NYX__LINE_TEXT) return end;
  for (;;) {
    bool incomplete;
    *status = compile(L, &incomplete);
    if (incomplete) {
      end = push_line(L, false);
      if (end == NYX__LINE_TEXT) { /* text, message, line -> text "\n" line */
        lua_remove(L, -2);
        lua_pushliteral(L, "\n");
        lua_insert(L, -2);
        lua_concat(L, 3);
        continue;
      }
      if (end == NYX__LINE_CANCELLED) {
        lua_pop(L, 2);
        return end;
      }
    }
    lua_remove(L, -2);
    return NYX__LINE_TEXT; /* at the end of the input: with the message */
  }
}

/* ---- what the session adds to the globals */

static int call_help(lua_State *L) {
  int n_args = lua_gettop(L);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "nyx.help");
  lua_call(L, 1, 1);
  if (lua_istable(L, -1)) lua_getfield(L, -1, "help");
  lua_replace(L, 1); /* in place of the table `help` itself */
  lua_settop(L, n_args);
  lua_call(L, n_args - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static int describe_help(lua_State *L) {
  lua_pushliteral(L, "help \"matmul\" or help(nyx.matmul) explains a function");
  return 1;
}

static void set_globals(lua_State *L) {
  if (lua_getglobal(L, "nyx") == LUA_TNIL) nyx__run_library(L, "nyx");
  if (lua_getglobal(L, "help") == LUA_TNIL) {
    lua_newtable(L); /* callable, and typing just `help` says how */
    lua_newtable(L);
    lua_pushcfunction(L, call_help);
    lua_setfield(L, -2, "__call");
    lua_pushcfunction(L, describe_help);
    lua_setfield(L, -2, "__tostring");
    lua_setmetatable(L, -2);
    lua_setglobal(L, "help");
  }
  lua_pop(L, 2);
}

/* ---- the session */

static int show_results(lua_State *L) {
  nyx__show(L, 1);
  return 0;
}

void nyx__console_run(lua_State *L) {
  nyx__run_set_program(NULL);
  printf("Nyx %s, %s, cpu %s, %d threads. help \"matmul\" explains, Ctrl-D leaves.\n",
         nyx_version(), LUA_RELEASE, nyx_cpu_path(), nyx_parallel_threads());
  set_globals(L);
  nyx__line_open(L);
  for (;;) {
    lua_settop(L, 0);
    int status = LUA_OK;
    nyx__line_end end = read_chunk(L, &status);
    if (end == NYX__LINE_EOF) break;
    if (end == NYX__LINE_CANCELLED) continue;
    if (status == LUA_OK) status = nyx__run_call(L, 0, LUA_MULTRET);
    if (status == LUA_OK && lua_gettop(L) > 0) {
      luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
      lua_pushcfunction(L, show_results);
      lua_insert(L, 1);
      status = nyx__run_call(L, lua_gettop(L) - 1, 0);
    }
    nyx__run_report(L, status);
  }
  nyx__line_close();
  lua_settop(L, 0);
}
