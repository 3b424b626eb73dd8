/* ZIP archives through libzip, for .npz files: their entries read one after the other,
 * and a whole archive written. What a file does wrong gives nil and a message; libzip
 * checks the sums of what is read. Read next: lua/nyx/io/npz.lua. */
#include <stdlib.h>
#include <string.h>
#ifdef NYX_HAVE_LIBZIP
#include <zip.h>
#endif

#include "binding.h"

#ifdef NYX_HAVE_LIBZIP

/* An archive and its entry that is being read, closed by the collector at the latest. */
typedef struct archive {
  zip_t *zip;
  zip_file_t *entry;
} archive;

static void shut(archive *a) {
  if (a->entry) zip_fclose(a->entry);
  if (a->zip) zip_discard(a->zip);
  *a = (archive){NULL, NULL};
}

static int collect_archive(lua_State *L) {
  shut(luaL_checkudata(L, 1, "nyx.zip"));
  return 0;
}

static archive *push_archive(lua_State *L) {
  archive *a = lua_newuserdatauv(L, sizeof *a, 0);
  *a = (archive){NULL, NULL};
  if (luaL_newmetatable(L, "nyx.zip")) {
    lua_pushcfunction(L, collect_archive);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return a;
}

static zip_t *open_zip(lua_State *L, const char *path, int flags) {
  int code = 0;
  zip_t *zip = zip_open(path, flags, &code);
  if (zip) return zip;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  lua_pushnil(L);
  lua_pushstring(L, zip_error_strerror(&error));
  zip_error_fini(&error);
  return NULL;
}

/* zip_open(path): the archive and a list of {name, size, packed}. */
static int open_archive(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  archive *a = push_archive(L);
  a->zip = open_zip(L, path, ZIP_RDONLY | ZIP_CHECKCONS);
  if (!a->zip) return 2;
  zip_int64_t n = zip_get_num_entries(a->zip, 0);
  lua_newtable(L);
  for (zip_int64_t i = 0; i < n; i++) {
    zip_stat_t about;
    const zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE;
    if (zip_stat_index(a->zip, (zip_uint64_t)i, 0, &about) != 0 ||
        (about.valid & needed) != needed) {
      shut(a);
      return nyx__lua_failure(L, "an entry has no name or size");
    }
    lua_newtable(L);
    lua_pushstring(L, about.name);
    lua_setfield(L, -2, "name");
    lua_pushnumber(L, (double)about.size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, (double)about.comp_size);
    lua_setfield(L, -2, "packed");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 2;
}

static archive *check_archive(lua_State *L) {
  archive *a = luaL_checkudata(L, 1, "nyx.zip");
  if (!a->zip) nyx__lua_fail(L, "the archive is closed");
  return a;
}

/* zip_entry(archive, i): begins to read its ith entry. */
static int begin_entry(lua_State *L) {
  archive *a = check_archive(L);
  if (a->entry) zip_fclose(a->entry);
  a->entry = zip_fopen_index(a->zip, (zip_uint64_t)luaL_checkinteger(L, 2) - 1, 0);
  if (!a->entry) return nyx__lua_failure(L, zip_strerror(a->zip));
  lua_pushboolean(L, 1);
  return 1;
}

/* Up to n bytes of the entry; how many came, or -1. */
static zip_int64_t take(archive *a, char *to, size_t n) {
  size_t got = 0;
  while (got < n) {
    zip_int64_t more = zip_fread(a->entry, to + got, n - got);
    if (more < 0) return -1;
    if (more == 0) break;
    got += (size_t)more;
  }
  return (zip_int64_t)got;
}

static archive *check_entry(lua_State *L) {
  archive *a = check_archive(L);
  if (!a->entry) nyx__lua_fail(L, "no entry of the archive is open");
  return a;
}

/* zip_text(archive, n): the entry's next bytes, at most n and 64 KiB. */
static int read_text(lua_State *L) {
  char text[1 << 16];
  archive *a = check_entry(L);
  lua_Integer n = luaL_checkinteger(L, 2);
  if (n < 0 || n > (lua_Integer)sizeof text)
    nyx__lua_fail(L, "zip_text: 'n' is %d, expected at most 65536", (int)n);
  zip_int64_t got = take(a, text, (size_t)n);
  if (got < 0) return nyx__lua_failure(L, zip_file_strerror(a->entry));
  lua_pushlstring(L, text, (size_t)got);
  return 1;
}

/* zip_fill(archive, tensor): the rest of the entry, which fits exactly and whose sum is
 * right. */
static int fill_tensor(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  archive *a = check_entry(L);
  nyx_tensor *t = nyx__lua_check_plain(L, s, 2, "zip_fill");
  size_t bytes = nyx__lua_plain_bytes(t);
  char beyond;
  zip_int64_t got = take(a, nyx_tensor_data(t), bytes);
  /* Only at the end does libzip compare the sum. */
  zip_int64_t more = got < 0 ? -1 : zip_fread(a->entry, &beyond, 1);
  nyx_tensor_touch(t);
  const char *problem = got < 0 || more < 0        ? zip_file_strerror(a->entry)
                        : (size_t)got != bytes     ? "it ends too early"
                        : more > 0                 ? "it goes on after its end"
                        : !nyx__lua_bools_valid(t) ? "a bool is neither 0 nor 1"
                                                   : NULL;
  if (problem) {
    if (bytes) memset(nyx_tensor_data(t), 0, bytes);
    return nyx__lua_failure(L, problem);
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* zip_close(archive) */
static int close_archive(lua_State *L) {
  shut(luaL_checkudata(L, 1, "nyx.zip"));
  return 0;
}

/* Adds one entry of a header and a tensor, stored as they are; false: see zip's error. */
static bool add_entry(zip_t *zip, const char *name, const char *header, size_t length,
                      const nyx_tensor *t) {
  zip_buffer_fragment_t parts[2] = {{(zip_uint8_t *)(uintptr_t)header, length},
                                    {nyx_tensor_data(t), nyx__lua_plain_bytes(t)}};
  zip_source_t *source =
      zip_source_buffer_fragment(zip, parts, parts[1].length ? 2 : 1, 0);
  if (!source) return false;
  zip_int64_t index = zip_file_add(zip, name, source, ZIP_FL_ENC_UTF_8);
  if (index < 0) {
    zip_source_free(source);
    return false;
  }
  zip_uint64_t i = (zip_uint64_t)index;
  /* Equal tensors give equal files: no time of today. */
  return zip_set_file_compression(zip, i, ZIP_CM_STORE, 0) == 0 &&
         zip_file_set_mtime(zip, i, 315619200, 0) == 0;
}

/* zip_write(path, entries): an archive of entries {name, header, tensor}, which stay
 * alive meanwhile. */
static int write_archive(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  archive *a = push_archive(L);
  a->zip = open_zip(L, path, ZIP_CREATE | ZIP_TRUNCATE);
  if (!a->zip) return 2;
  bool good = true;
  size_t n = lua_rawlen(L, 2);
  for (size_t i = 1; i <= n && good; i++) {
    lua_rawgeti(L, 2, (int)i);
    int entry = lua_gettop(L);
    size_t length;
    lua_rawgeti(L, entry, 1);
    lua_rawgeti(L, entry, 2);
    lua_rawgeti(L, entry, 3);
    const char *name = luaL_checkstring(L, entry + 1);
    const char *header = luaL_checklstring(L, entry + 2, &length);
    good = add_entry(a->zip, name, header, length,
                     nyx__lua_check_plain(L, s, entry + 3, "zip_write"));
    lua_settop(L, entry - 1);
  }
  if (good && zip_close(a->zip) == 0) {
    a->zip = NULL;
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, zip_strerror(a->zip));
  shut(a);
  return 2;
}

#else

static int absent(lua_State *L) {
  return nyx__lua_failure(
      L,
      "this build of Nyx has no libzip for .npz files; install libzip-dev and "
      "build again, or save each array as .npy");
}

#define open_archive absent
#define begin_entry absent
#define read_text absent
#define fill_tensor absent
#define close_archive absent
#define write_archive absent

#endif

const luaL_Reg nyx__lua_zip_functions[] = {
    {"zip_open", open_archive},
    {"zip_entry", begin_entry},
    {"zip_text", read_text},
    {"zip_fill", fill_tensor},
    {"zip_close", close_archive},
    {"zip_write", write_archive},
    {NULL, NULL},
};
