/* What lua/nyx/io, data and train need from C: tensor bytes to and from files, decoding
 * of binary formats, gzip, the terminal, a clock. Bad arguments raise; what a file does
 * wrong gives nil and a message. Read next: lua/nyx/io/init.lua,
 * json.c. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef NYX_HAVE_ZLIB
#define ZLIB_CONST
#include <zlib.h>
#endif

#include "binding.h"

/* The open stdio stream behind a Lua file. */
static FILE *check_stream(lua_State *L, int index) {
#if LUA_VERSION_NUM < 502
  FILE *f = *(FILE **)luaL_checkudata(L, index, "FILE*");
#else
  const luaL_Stream *stream = luaL_checkudata(L, index, LUA_FILEHANDLE);
  FILE *f = stream->closef ? stream->f : NULL;
#endif
  if (!f) nyx__lua_fail(L, "the file is closed; expected an open one");
  return f;
}

nyx_tensor *nyx__lua_check_plain(lua_State *L, nyx__lua *s, int index,
                                 const char *function) {
  nyx_tensor *t = nyx__lua_check(L, s, index, function);
  if (!nyx_tensor_data(t) || !nyx_tensor_is_contiguous(t))
    nyx__lua_fail(L,
                  "%s: expected a contiguous tensor on the CPU; use to(\"cpu\") and "
                  "contiguous()",
                  function);
  return t;
}

size_t nyx__lua_plain_bytes(const nyx_tensor *t) {
  return (size_t)nyx_tensor_numel(t) * nyx_dtype_size(nyx_tensor_dtype(t));
}

bool nyx__lua_bools_valid(const nyx_tensor *t) {
  if (nyx_tensor_dtype(t) != NYX_BOOL) return true;
  const unsigned char *p = nyx_tensor_data(t);
  for (int64_t i = 0, n = nyx_tensor_numel(t); i < n; i++)
    if (p[i] > 1) return false;
  return true;
}

/* read_tensor(file, tensor): fills the tensor with the file's next bytes. */
static int read_tensor(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  FILE *f = check_stream(L, 1);
  nyx_tensor *t = nyx__lua_check_plain(L, s, 2, "read_tensor");
  size_t bytes = nyx__lua_plain_bytes(t);
  if (bytes && fread(nyx_tensor_data(t), 1, bytes, f) != bytes)
    return nyx__lua_failure(L, ferror(f) ? strerror(errno) : "the file ends too early");
  nyx_tensor_touch(t);
  if (!nyx__lua_bools_valid(t)) {
    memset(nyx_tensor_data(t), 0, bytes);
    return nyx__lua_failure(L, "a bool is neither 0 nor 1");
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* write_tensor(file, tensor) */
static int write_tensor(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  FILE *f = check_stream(L, 1);
  nyx_tensor *t = nyx__lua_check_plain(L, s, 2, "write_tensor");
  size_t bytes = nyx__lua_plain_bytes(t);
  if (bytes && fwrite(nyx_tensor_data(t), 1, bytes, f) != bytes)
    return nyx__lua_failure(L, strerror(errno));
  lua_pushboolean(L, 1);
  return 1;
}

/* sync_file(file): everything written so far is on the disk. */
static int sync_file(lua_State *L) {
  FILE *f = check_stream(L, 1);
  if (fflush(f) != 0 || (fsync(fileno(f)) != 0 && errno != EINVAL))
    return nyx__lua_failure(L, strerror(errno));
  lua_pushboolean(L, 1);
  return 1;
}

static const char *kind_of(mode_t mode) {
  return S_ISDIR(mode)    ? "a directory"
         : S_ISFIFO(mode) ? "a pipe"
         : S_ISSOCK(mode) ? "a socket"
                          : "a device";
}

/* file_kind(path): "a regular file", "a directory", "a pipe" ...; nil where there is
 * nothing. */
static int file_kind(lua_State *L) {
  struct stat about;
  if (stat(luaL_checkstring(L, 1), &about) != 0)
    return nyx__lua_failure(L, strerror(errno));
  lua_pushstring(L, S_ISREG(about.st_mode) ? "a regular file" : kind_of(about.st_mode));
  return 1;
}

/* save_target(path): the file that a new one may take the place of, links followed, and
 * its mode where it exists; nil and a message where it is something else than a file. */
static int save_target(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct stat about;
  char real[PATH_MAX];
  if (stat(path, &about) != 0) {
    if (lstat(path, &about) == 0 && S_ISLNK(about.st_mode))
      return nyx__lua_failure(L,
                              "it is a link that leads to no file; remove it or mend it");
    lua_pushvalue(L, 1); /* a new file, or the system says what is wrong */
    return 1;
  }
  if (!S_ISREG(about.st_mode)) {
    lua_pushnil(L);
    lua_pushfstring(L, "it is %s, expected a regular file or a new name",
                    kind_of(about.st_mode));
    return 2;
  }
  if (!realpath(path, real)) return nyx__lua_failure(L, strerror(errno));
  lua_pushstring(L, real);
  lua_pushinteger(L, (lua_Integer)(about.st_mode & 0777));
  return 2;
}

/* set_mode(path, mode) */
static int set_mode(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  if (chmod(path, (mode_t)luaL_checkinteger(L, 2)) != 0)
    return nyx__lua_failure(L, strerror(errno));
  lua_pushboolean(L, 1);
  return 1;
}

/* Binary element types as NumPy writes them, and the dtype each becomes. */
typedef struct format {
  char kind; /* u unsigned, i signed, f float, b bool, v bfloat16 */
  int size;
  nyx_dtype dtype;
} format;

static const format formats[] = {{'u', 1, NYX_UINT8},   {'i', 1, NYX_INT8},
                                 {'i', 2, NYX_INT32},   {'i', 4, NYX_INT32},
                                 {'i', 8, NYX_INT64},   {'f', 2, NYX_FLOAT16},
                                 {'f', 4, NYX_FLOAT32}, {'f', 8, NYX_FLOAT64},
                                 {'b', 1, NYX_BOOL},    {'v', 2, NYX_BFLOAT16}};

/* Copies n elements of `size` bytes, reversing the bytes of each. */
static void copy_swapped(unsigned char *to, const unsigned char *from, size_t n,
                         size_t size) {
  for (size_t i = 0; i < n; i++, to += size, from += size)
    for (size_t b = 0; b < size; b++) to[b] = from[size - 1 - b];
}

/* swap_bytes(tensor): reverses the bytes of each element, or of each of its parts. */
static int swap_bytes(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check_plain(L, s, 1, "swap_bytes");
  size_t size = nyx_dtype_size(nyx_dtype_real(nyx_tensor_dtype(t)));
  size_t n = nyx__lua_plain_bytes(t) / size;
  unsigned char *p = nyx_tensor_data(t);
  for (size_t i = 0; i < n; i++, p += size)
    for (size_t b = 0; b < size / 2; b++) {
      unsigned char kept = p[b];
      p[b] = p[size - 1 - b];
      p[size - 1 - b] = kept;
    }
  nyx_tensor_touch(t);
  return 0;
}

/* There is no int16: it widens. `low` is the byte with the low bits. */
static void copy_int16(int32_t *to, const unsigned char *from, size_t n, size_t low) {
  for (size_t i = 0; i < n; i++, from += 2)
    to[i] = (int16_t)(uint16_t)(from[low] | (unsigned)from[1 - low] << 8);
}

bool nyx__lua_shape(lua_State *L, int index, int *ndim, int64_t *shape) {
  size_t n = lua_rawlen(L, index);
  if (n > NYX_MAX_DIMS) return false;
  for (size_t d = 0; d < n; d++) {
    lua_rawgeti(L, index, (int)d + 1);
    bool ok = lua_type(L, -1) == LUA_TNUMBER && nyx__lua_integer(L, -1, &shape[d]) &&
              shape[d] >= 0;
    lua_pop(L, 1);
    if (!ok) return false;
  }
  *ndim = (int)n;
  return true;
}

/* Bytes of a shape; false when they do not fit a size. */
static bool shape_bytes(int ndim, const int64_t *shape, size_t item, size_t *out) {
  size_t n = item;
  bool empty = false;
  for (int d = 0; d < ndim; d++) {
    if (shape[d] == 0)
      empty = true;
    else if (__builtin_mul_overflow(n, (size_t)shape[d], &n))
      return false;
  }
  *out = empty ? 0 : n;
  return true;
}

/* decode(bytes, position, format, shape): a tensor from the bytes of a string, from
 * `position` (1-based). format: "<f4", ">i2": byte order, kind, size. */
static int decode(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  size_t length, bytes = 0;
  const char *data = luaL_checklstring(L, 1, &length);
  double at = luaL_checknumber(L, 2);
  const char *name = luaL_checkstring(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  const format *f = NULL;
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
    if (strlen(name) == 3 && formats[i].kind == name[1] &&
        formats[i].size == name[2] - '0')
      f = &formats[i];
  if (!f || !strchr("<>|", name[0]))
    nyx__lua_fail(L, "decode: format '%s' is unknown; expected one such as '<f4'", name);
  int ndim = 0;
  int64_t shape[NYX_MAX_DIMS];
  if (!nyx__lua_shape(L, 4, &ndim, shape))
    return nyx__lua_failure(L, "the sizes are not a shape of at most 8 dimensions");
  if (!(at >= 1 && at <= (double)length + 1) ||
      !shape_bytes(ndim, shape, (size_t)f->size, &bytes) ||
      bytes > length - ((size_t)at - 1))
    return nyx__lua_failure(L, "the file ends too early");
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx_tensor *t;
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, nyx_tensor_empty(s->ctx, f->dtype, ndim, shape, &t));
  nyx__lua_try(L, s, status);
  const unsigned char *from = (const unsigned char *)data + ((size_t)at - 1);
  bool swap = name[0] == '>';
  size_t n = bytes / (size_t)f->size;
  if (f->kind == 'i' && f->size == 2)
    copy_int16(nyx_tensor_data(t), from, n, swap);
  else if (swap && f->size > 1)
    copy_swapped(nyx_tensor_data(t), from, n, (size_t)f->size);
  else if (bytes)
    memcpy(nyx_tensor_data(t), from, bytes);
  bool valid = nyx__lua_bools_valid(t);
  nyx__lua_fill(s, box, t, true);
  return valid ? 1 : nyx__lua_failure(L, "a bool is neither 0 nor 1");
}

#ifdef NYX_HAVE_ZLIB

/* A block of memory that the collector frees if an error comes between. */
static void **push_block(lua_State *L) {
  void **block = lua_newuserdatauv(L, sizeof *block, 0);
  *block = NULL;
  lua_getfield(L, LUA_REGISTRYINDEX, "nyx.block"); /* see module.c */
  lua_setmetatable(L, -2);
  return block;
}

/* Makes room for more output; false when there is none. */
static bool grow(void **block, size_t used, size_t *size, size_t limit) {
  if (*size >= limit) return false;
  size_t next = *size > limit / 2 ? limit : *size * 2;
  void *wider = nyx_memory_alloc(next);
  if (!wider) return false;
  memcpy(wider, *block, used);
  nyx_memory_free(*block);
  *block = wider;
  *size = next;
  return true;
}

/* Inflates all members of a gzip file; NULL or what went wrong. */
static const char *inflate_all(const char *data, size_t length, size_t limit,
                               void **block, size_t *used) {
  size_t size = length < 1 << 16 ? 1 << 16 : length;
  if (size > limit) size = limit;
  *block = nyx_memory_alloc(size);
  if (!*block) return "not enough memory";
  z_stream z = {.next_in = (const unsigned char *)data};
  if (inflateInit2(&z, 15 + 16) != Z_OK) return "not enough memory"; /* gzip header */
  const char *problem = NULL;
  size_t taken = 0;
  for (;;) {
    size_t in = length - taken < 1u << 30 ? length - taken : 1u << 30;
    size_t out = size - *used < 1u << 30 ? size - *used : 1u << 30;
    z.next_in = (const unsigned char *)data + taken;
    z.avail_in = (uInt)in;
    z.next_out = (unsigned char *)*block + *used;
    z.avail_out = (uInt)out;
    int code = inflate(&z, Z_NO_FLUSH);
    taken += in - z.avail_in;
    *used += out - z.avail_out;
    if (code == Z_STREAM_END) {
      if (taken == length) break;
      if (inflateReset(&z) != Z_OK) problem = "the compressed data is damaged";
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      problem = "the compressed data is damaged";
    } else if (*used == size) {
      if (!grow(block, *used, &size, limit))
        problem =
            size >= limit ? "the data is larger than the limit" : "not enough memory";
    } else if (taken == length) {
      problem = "the compressed data ends too early";
    }
    if (problem) break;
  }
  inflateEnd(&z);
  return problem;
}

/* gunzip(bytes, limit): the uncompressed bytes, at most `limit` of them. */
static int gunzip(lua_State *L) {
  size_t length, used = 0;
  const char *data = luaL_checklstring(L, 1, &length);
  double limit = luaL_checknumber(L, 2);
  if (!(limit >= 1 && limit < 9e15)) nyx__lua_fail(L, "gunzip: bad limit %g", limit);
  void **block = push_block(L);
  const char *problem = inflate_all(data, length, (size_t)limit, block, &used);
  if (!problem) lua_pushlstring(L, *block, used);
  nyx_memory_free(*block);
  *block = NULL;
  return problem ? nyx__lua_failure(L, problem) : 1;
}

#else

static int gunzip(lua_State *L) {
  return nyx__lua_failure(
      L,
      "the file is compressed and this build of Nyx has no zlib; decompress "
      "it or build with zlib");
}

#endif

/* terminal("stdout" or "stderr"): whether it is a terminal, and its columns. */
static int terminal(lua_State *L) {
  int fd = strcmp(luaL_checkstring(L, 1), "stderr") == 0 ? STDERR_FILENO : STDOUT_FILENO;
  struct winsize size;
  bool is_terminal = isatty(fd);
  bool known = is_terminal && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  lua_pushboolean(L, is_terminal);
  lua_pushinteger(L, known ? size.ws_col : 80);
  return 2;
}

/* clock(): seconds from an arbitrary start; never goes back. */
static int monotonic(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (double)now.tv_sec + (double)now.tv_nsec * 1e-9);
  return 1;
}

const luaL_Reg nyx__lua_file_functions[] = {
    {"read_tensor", read_tensor}, {"write_tensor", write_tensor},
    {"sync_file", sync_file},     {"file_kind", file_kind},
    {"save_target", save_target}, {"set_mode", set_mode},
    {"swap_bytes", swap_bytes},   {"decode", decode},
    {"gunzip", gunzip},           {"terminal", terminal},
    {"clock", monotonic},         {NULL, NULL},
};
