/* What Tab offers: globals and keywords, fields of tables, methods of objects. Looks at
 * the chain of names before the cursor ("model.layers:for"). Read next: line.c. */
#include <ctype.h>
#include <string.h>

#include "repl.h"

#define MAX_PARENTS 16 /* __index tables followed */

static const char *const keywords[] = {
    "and",      "break",  "do",   "else", "elseif", "end",  "false", "for",
    "function", "goto",   "if",   "in",   "local",  "nil",  "not",   "or",
    "repeat",   "return", "then", "true", "until",  "while"};

static bool is_word(char c) {
  return isalnum((unsigned char)c) || c == '_';
}

/* Adds prefix .. name to the set at `set` if the name continues what was typed. */
static void add(lua_State *L, int set, const char *name, const char *typed,
                const char *prefix) {
  if (strncmp(name, typed, strlen(typed)) != 0) return;
  if (name[0] == '_' && typed[0] != '_') return; /* hidden until asked for */
  lua_pushfstring(L, "%s%s", prefix, name);
  lua_pushboolean(L, 1);
  lua_rawset(L, set);
}

/* Adds the string keys of the table on top of the stack; only functions after a colon. */
static void add_keys(lua_State *L, int set, const char *typed, const char *prefix,
                     bool methods) {
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    const char *name = lua_tostring(L, -2);
    bool identifier = name[0] && !isdigit((unsigned char)name[0]);
    for (const char *p = name; *p; p++) identifier = identifier && is_word(*p);
    if (!identifier || (methods && !lua_isfunction(L, -1))) continue;
    add(L, set, name, typed, prefix);
  }
}

/* Adds what the value on top of the stack has, following __index. Where that is a
 * function, the metatable may say with __names what can be found through it: a table with
 * the names as keys, or a function that gives one. Pops the value. */
static void add_members(lua_State *L, int set, const char *typed, const char *prefix,
                        bool methods) {
  for (int i = 0; i < MAX_PARENTS; i++) {
    if (lua_istable(L, -1)) add_keys(L, set, typed, prefix, methods);
    if (luaL_getmetafield(L, -1, "__names") != LUA_TNIL) {
      if (lua_isfunction(L, -1)) {
        lua_pushvalue(L, -2);
        lua_call(L, 1, 1);
      }
      if (lua_istable(L, -1)) add_keys(L, set, typed, prefix, methods);
      lua_pop(L, 1);
    }
    if (luaL_getmetafield(L, -1, "__index") == LUA_TNIL) break;
    lua_remove(L, -2);
    if (!lua_istable(L, -1)) break;
  }
  lua_pop(L, 1);
}

/* Pushes the value of the chain of names text[0..length-1] ("a.b.c"); false when there
 * is none. */
static bool push_value(lua_State *L, const char *text, size_t length) {
  lua_pushglobaltable(L);
  while (length > 0) {
    size_t n = 0;
    while (n < length && is_word(text[n])) n++;
    if (n == 0) return false;
    lua_pushlstring(L, text, n);
    lua_gettable(L, -2);
    lua_remove(L, -2);
    if (lua_isnil(L, -1)) return false;
    if (n < length) n++; /* the separator */
    text += n;
    length -= n;
  }
  return true;
}

/* (line as light userdata, length, word start) -> sorted list. May raise: names go
 * through metamethods. */
static int find_matches(lua_State *L) {
  const char *line = lua_touserdata(L, 1);
  size_t length = (size_t)lua_tointeger(L, 2), start = (size_t)lua_tointeger(L, 3);
  size_t name = length; /* where the last name begins */
  while (name > start && is_word(line[name - 1])) name--;
  const char *prefix = lua_pushlstring(L, line + start, name - start);
  const char *typed = lua_pushlstring(L, line + name, length - name);
  lua_newtable(L);
  int set = lua_gettop(L);
  if (name == start) {
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
      if (typed[0]) add(L, set, keywords[i], typed, prefix);
    lua_pushglobaltable(L);
    add_members(L, set, typed, prefix, false);
  } else if (push_value(L, line + start, name - start - 1)) {
    add_members(L, set, typed, prefix, line[name - 1] == ':');
  }
  lua_newtable(L);
  int list = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, set); lua_pop(L, 1)) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
  }
  lua_getglobal(L, "table");
  lua_getfield(L, -1, "sort");
  lua_pushvalue(L, list);
  lua_call(L, 1, 0);
  lua_settop(L, list);
  return 1;
}

size_t nyx__complete(lua_State *L, const char *line, size_t length) {
  /* Back over names and the single separators between them; ".." is an operator. */
  size_t start = length;
  for (; start > 0; start--) {
    char c = line[start - 1];
    bool separates = (c == '.' || c == ':') && start > 1 && is_word(line[start - 2]);
    if (!is_word(c) && !separates) break;
  }
  lua_pushcfunction(L, find_matches);
  lua_pushlightuserdata(L, (void *)(uintptr_t)line);
  lua_pushinteger(L, (lua_Integer)length);
  lua_pushinteger(L, (lua_Integer)start);
  if (lua_pcall(L, 3, 1, 0) != LUA_OK) {
    lua_pop(L, 1);
    lua_newtable(L);
  }
  return start;
}
