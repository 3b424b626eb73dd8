/* Where `require` looks in the nyx executable. Its Lua files are found relative to the
 * executable, so that build trees, install trees and moved ones all work; the compiled-in
 * places come last. Read next: run.c. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lua/nyx_lua.h"
#include "repl.h"

#define VERSION LUA_VERSION_MAJOR "." LUA_VERSION_MINOR

static char root[PATH_MAX];  /* of the Lua files */
static char build[PATH_MAX]; /* above the executable's folder */

const char *nyx__paths_root(void) {
  return root;
}

/* Joins and normalises into out (PATH_MAX); false when there is no such file. */
static bool resolve(const char *folder, const char *name, char *out) {
  char joined[PATH_MAX];
  int n = snprintf(joined, sizeof joined, "%s/%s", folder, name);
  return n > 0 && (size_t)n < sizeof joined && realpath(joined, out) != NULL;
}

static bool exists(const char *folder, const char *name) {
  char out[PATH_MAX];
  return resolve(folder, name, out);
}

/* The folder the executable is in; "" when that cannot be found out. */
static void executable_folder(const char *argv0, char *out) {
  ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
  if (n > 0) {
    out[n] = '\0';
  } else if (strchr(argv0, '/') == NULL || realpath(argv0, out) == NULL) {
    out[0] = '\0';
  }
  char *slash = strrchr(out, '/');
  if (slash) *slash = '\0';
}

static bool is_source_tree(const char *folder) {
  return exists(folder, "lua/nyx/init.lua");
}
static bool is_install_tree(const char *folder) {
  return exists(folder, "share/lua/" VERSION "/nyx/init.lua");
}

/* Sets root: the prefix above bin, a folder further up that is a source tree, or what
 * was compiled in. */
static void find_root(const char *argv0) {
  char folder[PATH_MAX];
  executable_folder(argv0, folder);
  for (int up = 0; folder[0] && up < 4; up++) {
    char *slash = strrchr(folder, '/');
    if (slash == NULL) break;
    *slash = '\0';
    if (up == 0) snprintf(build, sizeof build, "%s", folder);
    if (is_install_tree(folder) || is_source_tree(folder)) {
      snprintf(root, sizeof root, "%s", folder);
      return;
    }
  }
  if (is_source_tree(NYX_SOURCE_DIR)) {
    snprintf(root, sizeof root, "%s", NYX_SOURCE_DIR);
  } else if (is_install_tree(NYX_PREFIX)) {
    snprintf(root, sizeof root, "%s", NYX_PREFIX);
  }
}

/* Puts templates in front of package[field], or behind them. */
static void add_templates(lua_State *L, const char *field, const char *templates,
                          bool in_front) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, field);
  const char *old = lua_tostring(L, -1);
  if (in_front) {
    lua_pushfstring(L, "%s;%s", templates, old ? old : "");
  } else {
    lua_pushfstring(L, "%s;%s", old ? old : "", templates);
  }
  lua_setfield(L, -3, field);
  lua_pop(L, 2);
}

/* The extension rocks of a source tree: rocks/nyx-NAME/lua. */
static void add_rocks(lua_State *L) {
  char folder[PATH_MAX];
  if (!resolve(root, "rocks", folder)) return;
  DIR *dir = opendir(folder);
  if (dir == NULL) return;
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    if (strncmp(entry->d_name, "nyx-", 4) != 0) continue;
    lua_pushfstring(L, "%s/%s/lua/?.lua;%s/%s/lua/?/init.lua", folder, entry->d_name,
                    folder, entry->d_name);
    add_templates(L, "path", lua_tostring(L, -1), false);
    lua_pop(L, 1);
  }
  closedir(dir);
}

/* What require "nyx.core" calls: the binding is part of the executable. */
static int open_core(lua_State *L) {
  int results = luaopen_nyx_core(L);
  nyx__run_set_context(nyx_lua_context(L));
  return results;
}

void nyx__paths_open(lua_State *L, const char *argv0) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open_core);
  lua_setfield(L, -2, "nyx.core");
  lua_pop(L, 1);

  find_root(argv0);
  if (root[0] == '\0') return;
  if (is_source_tree(root)) {
    lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua", root, root);
    add_templates(L, "path", lua_tostring(L, -1), true);
    add_rocks(L);
    lua_pushfstring(L, "%s/lib/lua/" VERSION "/?.so", build); /* their C modules */
    add_templates(L, "cpath", lua_tostring(L, -1), true);
    lua_pop(L, 1);
  } else {
    lua_pushfstring(L,
                    "%s/share/lua/" VERSION "/?.lua;%s/share/lua/" VERSION "/?/init.lua",
                    root, root);
    add_templates(L, "path", lua_tostring(L, -1), true);
    lua_pushfstring(L, "%s/" NYX_LIBDIR "/lua/" VERSION "/?.so", root);
    add_templates(L, "cpath", lua_tostring(L, -1), true);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}
