/* How results look: tensors and whatever has __tostring by that, plain tables by their
 * contents, the rest as print would. Read next: console.c. */
#include <stdio.h>
#include <string.h>

#include "repl.h"

#define MAX_ITEMS 40  /* of a table */
#define MAX_DEPTH 3   /* tables in tables */
#define MAX_STRING 60 /* bytes of a string inside a table */
#define MAX_NESTED 70 /* bytes of a table inside a table */
#define MAX_WIDTH 80  /* longer tables get a line per item */

static void push_text(lua_State *L, int index, int depth);

static bool is_plain_table(lua_State *L, int index) {
  if (!lua_istable(L, index)) return false;
  if (luaL_getmetafield(L, index, "__tostring") == LUA_TNIL) return true;
  lua_pop(L, 1);
  return false;
}

/* A string inside a table: quoted, cut. */
static void push_quoted(lua_State *L, int index) {
  size_t length;
  const char *s = lua_tolstring(L, index, &length);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addchar(&b, '"');
  for (size_t i = 0; i < length && i < MAX_STRING; i++) {
    unsigned char c = (unsigned char)s[i];
    char escape[8] = {(char)c, '\0'};
    if (c == '\n') {
      strcpy(escape, "\\n");
    } else if (c == '"' || c == '\\') {
      snprintf(escape, sizeof escape, "\\%c", c);
    } else if (c < 32 || c == 127) {
      snprintf(escape, sizeof escape, "\\%03d", c);
    }
    luaL_addstring(&b, escape);
  }
  luaL_addstring(&b, length > MAX_STRING ? "...\"" : "\"");
  luaL_pushresult(&b);
}

static bool is_name(const char *s) {
  if (strspn(s, "0123456789") > 0) return false;
  return s[0] && s[strspn(s,
                          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
                          "0123456789")] == '\0';
}

/* "key = " of the key at `index`. */
static void push_key(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TSTRING && is_name(lua_tostring(L, index))) {
    lua_pushfstring(L, "%s = ", lua_tostring(L, index));
    return;
  }
  push_text(L, index, MAX_DEPTH);
  lua_pushfstring(L, "[%s] = ", lua_tostring(L, -1));
  lua_remove(L, -2);
}

/* Appends the text on top of the stack to the list `items`, popping it. */
static void append(lua_State *L, int items) {
  lua_rawseti(L, items, (lua_Integer)lua_rawlen(L, items) + 1);
}

/* Pushes the list of keys outside of 1..n_list: names sorted, then the others. */
static void push_keys(lua_State *L, int table, lua_Integer n_list) {
  lua_getglobal(L, "table");
  lua_getfield(L, -1, "sort");
  lua_replace(L, -2);
  lua_newtable(L);
  int names = lua_gettop(L);
  lua_newtable(L);
  int others = names + 1;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    lua_Integer i = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
    if (i >= 1 && i <= n_list) continue;
    lua_pushvalue(L, -2);
    append(L, lua_type(L, -1) == LUA_TSTRING ? names : others);
  }
  lua_pushvalue(L, names - 1);
  lua_pushvalue(L, names);
  lua_call(L, 1, 0);
  for (lua_Integer i = 1; lua_rawgeti(L, others, i) != LUA_TNIL; i++) append(L, names);
  lua_pop(L, 2);
  lua_remove(L, names - 1);
}

/* Appends the items with keys; returns how many were left out. */
static int append_keyed(lua_State *L, int table, int items, lua_Integer n_list,
                        int depth) {
  push_keys(L, table, n_list);
  int keys = lua_gettop(L);
  int n = (int)lua_rawlen(L, keys);
  for (int i = 1; i <= n && i <= MAX_ITEMS; i++) {
    lua_rawgeti(L, keys, i);
    push_key(L, keys + 1);
    lua_pushvalue(L, keys + 1);
    lua_rawget(L, table);
    push_text(L, keys + 3, depth + 1);
    lua_remove(L, keys + 3);
    lua_concat(L, 2);
    append(L, items);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return n > MAX_ITEMS ? n - MAX_ITEMS : 0;
}

/* The contents of a table: "{1, 2, name = "x"}", over several lines when long. */
static void push_table(lua_State *L, int table, int depth) {
  luaL_checkstack(L, LUA_MINSTACK, "table too deep");
  lua_newtable(L);
  int items = lua_gettop(L), left_out = 0;
  lua_Integer n_list = (lua_Integer)lua_rawlen(L, table);
  for (lua_Integer i = 1; i <= n_list && i <= MAX_ITEMS; i++) {
    lua_rawgeti(L, table, i);
    push_text(L, lua_gettop(L), depth + 1);
    append(L, items);
    lua_pop(L, 1);
  }
  if (n_list > MAX_ITEMS) left_out = (int)(n_list - MAX_ITEMS);
  left_out += append_keyed(L, table, items, n_list, depth);
  if (left_out) {
    lua_pushfstring(L, "... %d more", left_out);
    append(L, items);
  }
  lua_Unsigned n = lua_rawlen(L, items);
  size_t width = 2;
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_rawgeti(L, items, (lua_Integer)i);
    width += lua_rawlen(L, -1) + 2;
    lua_pop(L, 1);
  }
  bool lines = depth == 0 && width > MAX_WIDTH;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, lines ? "{\n  " : "{");
  for (lua_Unsigned i = 1; i <= n; i++) {
    if (i > 1) luaL_addstring(&b, lines ? ",\n  " : ", ");
    lua_rawgeti(L, items, (lua_Integer)i);
    luaL_addvalue(&b);
  }
  luaL_addstring(&b, lines ? "\n}" : "}");
  luaL_pushresult(&b);
  lua_remove(L, items);
}

/* A text of several lines inside a table: its last line if that sums it up in brackets,
 * as for tensors, else its first. Replaces the text on top of the stack. */
static void shorten_lines(lua_State *L) {
  const char *text = lua_tostring(L, -1);
  const char *last = strrchr(text, '\n');
  if (last == NULL) return;
  if (last[1] == '[') {
    lua_pushstring(L, last + 1);
  } else {
    lua_pushlstring(L, text, strcspn(text, "\n"));
    lua_pushliteral(L, " ...");
    lua_concat(L, 2);
  }
  lua_remove(L, -2);
}

/* Pushes the text of the value at `index`, `depth` tables down. */
static void push_text(lua_State *L, int index, int depth) {
  if (is_plain_table(L, index)) {
    if (depth < MAX_DEPTH) {
      push_table(L, index, depth);
    } else {
      lua_pushliteral(L, "{...}");
    }
    if (depth > 0 && lua_rawlen(L, -1) > MAX_NESTED) {
      lua_pop(L, 1);
      lua_pushliteral(L, "{...}");
    }
  } else if (depth > 0 && lua_type(L, index) == LUA_TSTRING) {
    push_quoted(L, index);
  } else if (depth > 0 && lua_isfunction(L, index)) {
    lua_pushliteral(L, "function");
  } else {
    luaL_tolstring(L, index, NULL);
    if (depth > 0) shorten_lines(L);
  }
}

void nyx__show(lua_State *L, int first) {
  int last = lua_gettop(L);
  for (int i = first; i <= last; i++) {
    push_text(L, i, 0);
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    fwrite(text, 1, length, stdout);
    /* Values side by side as print has them, unless one is a block of lines. */
    fputc(i == last || memchr(text, '\n', length) ? '\n' : '\t', stdout);
    lua_pop(L, 1);
  }
  fflush(stdout);
}
