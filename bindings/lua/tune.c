/* nyx.tune: measured choices between ways to compute. Read next: nyx/tune.h. */
#include <string.h>

#include "binding.h"

static const char *const modes[] = {"off", "use", "measure"};

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, (lua_Number)value);
  lua_setfield(L, -2, name);
}

static void set_count(lua_State *L, const char *name, int64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static void set_text(lua_State *L, const char *name, const char *value) {
  if (!value[0]) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

/* Pushes the list of what is known. */
static void push_sizes(lua_State *L) {
  nyx_tune_row row;
  lua_newtable(L);
  for (int i = 0; nyx_tune_at(i, &row); i++) {
    lua_createtable(L, 0, 6);
    set_text(L, "choice", row.choice);
    set_text(L, "size", row.size);
    set_text(L, "way", row.way);
    set_text(L, "rule", row.rule);
    set_number(L, "seconds", row.seconds);
    set_number(L, "rule_seconds", row.rule_seconds);
    lua_pushboolean(L, row.measured);
    lua_setfield(L, -2, "measured");
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_info(lua_State *L) {
  nyx_tune_info info;
  nyx_tune_get(&info);
  lua_createtable(L, 0, 8);
  set_text(L, "mode", modes[info.mode]);
  set_text(L, "file", info.file);
  set_text(L, "problem", info.problem);
  set_count(L, "known", info.known);
  set_count(L, "measured", info.measured);
  set_count(L, "changed", info.changed);
  set_count(L, "refused", info.refused);
  push_sizes(L);
  lua_setfield(L, -2, "sizes");
}

/* The mode at index 1; the one in use where it is nil. */
static nyx_tune_mode read_mode(lua_State *L, nyx__lua *s) {
  if (lua_isboolean(L, 1)) return lua_toboolean(L, 1) ? NYX_TUNE_MEASURE : NYX_TUNE_OFF;
  if (lua_isnil(L, 1)) {
    nyx_tune_info info;
    nyx_tune_get(&info);
    return info.mode;
  }
  const char *text = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
  for (int i = 0; i < 3; i++)
    if (strcmp(text, modes[i]) == 0) return (nyx_tune_mode)i;
  nyx__lua_bad_argument(L, s, 1, "tune", "mode",
                        "true, false, \"measure\", \"use\" or \"off\"");
}

/* The file named in the options at index 2; NULL: as it is. */
static const char *read_file(lua_State *L, nyx__lua *s) {
  const char *file = NULL;
  if (lua_isnil(L, 2)) return NULL;
  if (lua_type(L, 2) != LUA_TTABLE)
    nyx__lua_bad_argument(L, s, 2, "tune", "options", "table");
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(name, "file") != 0)
      nyx__lua_fail(L, "tune: unknown option '%.40s'; known: file", name);
    if (lua_type(L, -1) != LUA_TSTRING)
      nyx__lua_fail(L, "bad option 'file' to 'tune' (string expected, got %s)",
                    nyx__lua_describe(L, s, lua_gettop(L)));
    file = lua_tostring(L, -1); /* the table at 2 keeps it */
    if (strlen(file) != lua_rawlen(L, -1))
      nyx__lua_fail(L, "bad option 'file' to 'tune' (it has a zero byte)");
  }
  return file;
}

/* nyx.tune(mode, {file}): sets what is measured; gives what is known, or nil and a
 * message where the file cannot be used. */
static int tune(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  lua_settop(L, 2);
  if (!lua_isnil(L, 1) || !lua_isnil(L, 2)) {
    nyx_tune_mode mode = read_mode(L, s);
    nyx_status status = nyx_tune_set(s->ctx, mode, read_file(L, s));
    if (status == NYX_ERR_IO) {
      lua_pushnil(L);
      lua_pushstring(L, nyx_context_error(s->ctx));
      return 2;
    }
    nyx__lua_try(L, s, status);
  }
  push_info(L);
  return 1;
}

const luaL_Reg nyx__lua_tune_functions[] = {{"tune", tune}, {NULL, NULL}};
