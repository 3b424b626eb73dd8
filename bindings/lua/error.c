/* Lua errors of the binding. They carry the position of the innermost Lua line that is
 * not one of Nyx's own files, so a mistake in the use of a layer points at the user's
 * line. Read next: call.c. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "binding.h"

/* Pushes "file:line: " or "". */
static void push_position(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, NYX_LUA_HOME_KEY);
  const char *home = lua_tostring(L, -1);
  size_t length = home ? strlen(home) : 0;
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0) continue; /* a C function */
    if (length && strncmp(ar.source, home, length) == 0) continue;
    lua_pop(L, 1);
    lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
    return;
  }
  lua_pop(L, 1);
  lua_pushliteral(L, "");
}

void nyx__lua_fail(lua_State *L, const char *format, ...) {
  char text[1536];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  luaL_checkstack(L, 4, "error message");
  push_position(L);
  lua_pushstring(L, text);
  lua_concat(L, 2);
  lua_error(L);
  __builtin_unreachable();
}

#if LUA_VERSION_NUM < 502
static int nothing(lua_State *L) {
  (void)L;
  return 0;
}
#endif

void nyx__lua_raise(lua_State *L, nyx__lua *s) {
#if LUA_VERSION_NUM < 502
  /* A callback may have run on its own Lua thread (callback.c). LuaJIT notes that as the
   * running one and only looks again at the next call or return, but not at an error:
   * code that it has compiled would go on with the wrong stack. */
  luaL_checkstack(L, 1, "error message");
  lua_pushcfunction(L, nothing);
  lua_call(L, 0, 0);
#endif
  nyx__lua_rethrow(L, s);
  nyx__lua_fail(L, "%s", nyx_context_error(s->ctx));
}

void nyx__lua_raise_in(lua_State *L, nyx__lua *s, const char *function) {
  nyx__lua_rethrow(L, s);
  nyx__lua_fail(L, "%s: %s", function, nyx_context_error(s->ctx));
}

int nyx__lua_failure(lua_State *L, const char *message) {
  lua_pushnil(L);
  lua_pushstring(L, message);
  return 2;
}

static void describe_tensor(const nyx_tensor *t, char *text, size_t size) {
  int used =
      snprintf(text, size, "a %s tensor of shape (", nyx_dtype_name(nyx_tensor_dtype(t)));
  for (int d = 0; d < nyx_tensor_ndim(t); d++)
    used += snprintf(text + used, size - (size_t)used, "%s%lld", d ? "x" : "",
                     (long long)nyx_tensor_shape(t)[d]);
  snprintf(text + used, size - (size_t)used, ")");
}

const char *nyx__lua_describe(lua_State *L, nyx__lua *s, int index) {
  char text[256];
  nyx__box *box = nyx__lua_box(L, s, index);
  if (box) {
    strcpy(text, "a released tensor");
    if (box->t) describe_tensor(box->t, text, sizeof text);
    lua_pushstring(L, text);
    return lua_tostring(L, -1);
  }
  switch (lua_type(L, index)) {
    case LUA_TNONE: lua_pushliteral(L, "no value"); break;
    case LUA_TNUMBER:
      lua_pushvalue(L, index);
      snprintf(text, sizeof text, "number %s", lua_tostring(L, -1));
      lua_pop(L, 1);
      lua_pushstring(L, text);
      break;
    case LUA_TSTRING: {
      size_t length;
      const char *string = lua_tolstring(L, index, &length);
      snprintf(text, sizeof text, "string '%.40s%s'", string, length > 40 ? "..." : "");
      lua_pushstring(L, text);
      break;
    }
    case LUA_TBOOLEAN:
      lua_pushfstring(L, "boolean %s", lua_toboolean(L, index) ? "true" : "false");
      break;
    default: lua_pushstring(L, luaL_typename(L, index));
  }
  return lua_tostring(L, -1);
}

int nyx__lua_is_method(lua_State *L) {
  lua_Debug ar;
  if (!lua_getstack(L, 0, &ar)) return 0;
  lua_getinfo(L, "n", &ar);
  return ar.namewhat && strcmp(ar.namewhat, "method") == 0;
}

void nyx__lua_bad_argument(lua_State *L, nyx__lua *s, int index, const char *function,
                           const char *name, const char *expected) {
  const char *got = nyx__lua_describe(L, s, index);
  int number = index - nyx__lua_is_method(L);
  const char *quote = name ? " '" : "";
  if (number == 0)
    nyx__lua_fail(L, "calling '%s' on a bad self (%s expected, got %s); write x:%s(...)",
                  function, expected, got, function);
  nyx__lua_fail(L, "bad argument #%d%s%s%s to '%s' (%s expected, got %s)", number, quote,
                name ? name : "", name ? "'" : "", function, expected, got);
}

const char *nyx__lua_dtypes(char *text) {
  for (int d = 0; d < NYX_DTYPE_COUNT; d++) {
    strcat(text, d ? " " : "");
    strcat(text, nyx_dtype_name((nyx_dtype)d));
  }
  return text;
}

nyx_dtype nyx__lua_dtype(lua_State *L, nyx__lua *s, int index, const char *function,
                         const char *name) {
  nyx_dtype dtype;
  if (lua_type(L, index) != LUA_TSTRING)
    nyx__lua_bad_argument(L, s, index, function, name, "name of a dtype");
  if (nyx_dtype_find(lua_tostring(L, index), &dtype)) return dtype;
  nyx__lua_fail(L, "%s: no dtype '%.40s'; known: %s", function, lua_tostring(L, index),
                nyx__lua_dtypes((char[160]){""}));
}

nyx_device *nyx__lua_device(lua_State *L, nyx__lua *s, int index, const char *function) {
  if (lua_type(L, index) != LUA_TSTRING)
    nyx__lua_bad_argument(L, s, index, function, "device", "name of a device");
  nyx_device *device;
  if (nyx_device_find(s->ctx, lua_tostring(L, index), &device) != NYX_OK)
    nyx__lua_fail(L, "%s: %s", function, nyx_context_error(s->ctx));
  return device;
}
