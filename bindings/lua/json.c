/* JSON through libcjson, for .nyx files and configuration: json_decode and json_encode.
 * Strict where files may be hostile: depth, duplicate keys, zero bytes and trailing bytes
 * are errors.
 * Read next: lua/nyx/io/tree.lua. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef NYX_HAVE_CJSON
#include <cjson/cJSON.h>
#endif

#include "binding.h"

enum { MAX_DEPTH = 500 }; /* of nested arrays and objects */

#ifdef NYX_HAVE_CJSON

/* A cJSON tree and its text, freed by the collector if an error comes between. */
typedef struct document {
  cJSON *root;
  char *text;
} document;

static void clear(document *d) {
  cJSON_Delete(d->root);
  cJSON_free(d->text);
  *d = (document){NULL, NULL};
}

static int collect_document(lua_State *L) {
  clear(luaL_checkudata(L, 1, "nyx.json"));
  return 0;
}

static document *push_document(lua_State *L) {
  document *d = lua_newuserdatauv(L, sizeof *d, 0);
  *d = (document){NULL, NULL};
  if (luaL_newmetatable(L, "nyx.json")) {
    lua_pushcfunction(L, collect_document);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return d;
}

/* Pushes the Lua value of a node; NULL, or what is wrong (nothing is pushed then). null
 * becomes nil: it is left out of tables. */
static const char *push_node(lua_State *L, const cJSON *node, int depth) {
  if (depth > MAX_DEPTH) return "it is nested too deeply";
  if (!lua_checkstack(L, 4)) return "it is nested too deeply";
  if (cJSON_IsString(node)) {
    lua_pushstring(L, node->valuestring);
  } else if (cJSON_IsNumber(node)) {
    double number = node->valuedouble;
    if (number >= -0x1p53 && number <= 0x1p53 && number == floor(number))
      lua_pushinteger(L, (lua_Integer)number);
    else
      lua_pushnumber(L, number);
  } else if (cJSON_IsBool(node)) {
    lua_pushboolean(L, cJSON_IsTrue(node));
  } else if (cJSON_IsNull(node)) {
    lua_pushnil(L);
  } else {
    bool array = cJSON_IsArray(node);
    int i = 0;
    lua_newtable(L);
    for (const cJSON *item = node->child; item; item = item->next) {
      const char *problem = push_node(L, item, depth + 1);
      if (!problem && !array) { /* a key that is there already is a trick */
        lua_getfield(L, -2, item->string);
        if (!lua_isnil(L, -1)) problem = "an object has a key twice";
        lua_pop(L, 1);
        if (problem) lua_pop(L, 1);
      }
      if (problem) {
        lua_pop(L, 1);
        return problem;
      }
      if (array)
        lua_rawseti(L, -2, ++i);
      else
        lua_setfield(L, -2, item->string);
    }
  }
  return NULL;
}

/* What cJSON would let pass: it ends a string at a zero byte, so that two names become
 * one, and takes any control character for a space. NULL where there is none of that. */
static const char *forbidden(const char *text, size_t length) {
  bool inside = false;
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c < 0x20 && inside)
      return "a string holds a control character that is not escaped";
    if (c < 0x20 && (c == 0 || !strchr("\t\r\n", c)))
      return "a control character stands between its values";
    if (c == '"') inside = !inside;
    if (c != '\\' || !inside) continue;
    if (length - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
      return "a string holds a zero byte (\\u0000)";
    i++; /* what is escaped ends no string */
  }
  return NULL;
}

/* json_decode(text): the value, or nil and what is wrong. */
static int decode(lua_State *L) {
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  const char *end = NULL, *problem = forbidden(text, length);
  if (problem) return nyx__lua_failure(L, problem);
  document *d = push_document(L);
  d->root = cJSON_ParseWithLengthOpts(text, length, &end, 0);
  if (!d->root) {
    long long at = end ? (long long)(end - text) + 1 : 1;
    lua_pushnil(L);
    lua_pushfstring(L, "it is not JSON at byte %d", (int)at);
    return 2;
  }
  for (const char *p = end; p < text + length; p++)
    if (!strchr(" \t\r\n", *p) || !*p) problem = "bytes follow the JSON value";
  if (!problem) problem = push_node(L, d->root, 0);
  clear(d);
  if (!problem) return 1;
  return nyx__lua_failure(L, problem);
}

/* The shortest text that reads back as the same number: cJSON's own may be off by a bit.
 */
static cJSON *number_node(double number) {
  char text[32];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, number);
    if (strtod(text, NULL) == number) break;
  }
  char *point = strpbrk(text, ","); /* a locale's */
  if (point) *point = '.';
  return cJSON_CreateRaw(text);
}

/* A new node, put into `parent` at once, so that the document owns it. */
static cJSON *attach(lua_State *L, document *d, cJSON *parent, const char *key,
                     cJSON *node) {
  bool ok = node != NULL;
  if (ok && !parent)
    d->root = node;
  else if (ok)
    ok = key ? cJSON_AddItemToObject(parent, key, node)
             : cJSON_AddItemToArray(parent, node);
  if (!ok) {
    cJSON_Delete(node);
    nyx__lua_fail(L, "json_encode: not enough memory");
  }
  return node;
}

static void add_value(lua_State *L, document *d, cJSON *parent, const char *key,
                      int depth);

/* Pushes the sorted keys of the table on the stack's top, so that equal tables give equal
 * text. */
static int push_keys(lua_State *L) {
  int table = lua_gettop(L), n = 0;
  lua_newtable(L);
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      nyx__lua_fail(L, "json_encode: a key is a %s, expected a string",
                    luaL_typename(L, -2));
    lua_pushvalue(L, -2);
    lua_rawseti(L, table + 1, ++n);
  }
  lua_getglobal(L, "table");
  lua_getfield(L, -1, "sort");
  lua_remove(L, -2);
  lua_pushvalue(L, table + 1);
  lua_call(L, 1, 0);
  return n;
}

/* The table on the top: one with [1], or an empty one, is an array. */
static void add_table(lua_State *L, document *d, cJSON *parent, const char *key,
                      int depth) {
  int table = lua_gettop(L);
  lua_pushnil(L);
  bool empty = !lua_next(L, table);
  lua_settop(L, table);
  size_t n = lua_rawlen(L, table);
  if (empty || n > 0) {
    cJSON *array = attach(L, d, parent, key, cJSON_CreateArray());
    for (size_t i = 1; i <= n; i++) {
      lua_rawgeti(L, table, (int)i);
      add_value(L, d, array, NULL, depth + 1);
      lua_pop(L, 1);
    }
    return;
  }
  cJSON *object = attach(L, d, parent, key, cJSON_CreateObject());
  int count = push_keys(L);
  for (int i = 1; i <= count; i++) {
    lua_rawgeti(L, table + 1, i);
    lua_pushvalue(L, -1);
    lua_rawget(L, table);
    add_value(L, d, object, lua_tostring(L, -2), depth + 1);
    lua_pop(L, 2);
  }
  lua_settop(L, table);
}

static void add_value(lua_State *L, document *d, cJSON *parent, const char *key,
                      int depth) {
  if (depth > MAX_DEPTH || !lua_checkstack(L, 10))
    nyx__lua_fail(L, "json_encode: tables are nested more than %d deep", MAX_DEPTH);
  switch (lua_type(L, -1)) {
    case LUA_TSTRING: {
      size_t length;
      const char *text = lua_tolstring(L, -1, &length);
      if (strlen(text) != length)
        nyx__lua_fail(L, "json_encode: a string contains a zero byte");
      attach(L, d, parent, key, cJSON_CreateString(text));
      return;
    }
    case LUA_TNUMBER: {
      double number = lua_tonumber(L, -1);
      if (!isfinite(number))
        nyx__lua_fail(L, "json_encode: %f is not a JSON number", number);
      attach(L, d, parent, key, number_node(number));
      return;
    }
    case LUA_TBOOLEAN:
      attach(L, d, parent, key, cJSON_CreateBool(lua_toboolean(L, -1)));
      return;
    case LUA_TTABLE: add_table(L, d, parent, key, depth); return;
    default: nyx__lua_fail(L, "json_encode: a %s has no JSON form", luaL_typename(L, -1));
  }
}

/* json_encode(value): its text. Tables with [1] and empty tables become arrays. */
static int encode(lua_State *L) {
  luaL_checkany(L, 1);
  document *d = push_document(L);
  lua_pushvalue(L, 1);
  add_value(L, d, NULL, NULL, 0);
  d->text = cJSON_PrintUnformatted(d->root);
  if (!d->text) nyx__lua_fail(L, "json_encode: not enough memory");
  lua_pushstring(L, d->text);
  clear(d);
  return 1;
}

#else

static int decode(lua_State *L) {
  nyx__lua_fail(L, "this build of Nyx has no JSON; install libcjson-dev and build again");
}

static int encode(lua_State *L) {
  return decode(L);
}

#endif

const luaL_Reg nyx__lua_json_functions[] = {
    {"json_decode", decode},
    {"json_encode", encode},
    {NULL, NULL},
};
