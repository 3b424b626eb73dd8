/* Lua values to tensors and back: nyx.tensor, nyx.frombuffer, x:totable, x:item,
 * x:tobytes. Read next: core/include/nyx/tensor.h. */
#include <stdio.h>
#include <string.h>

#include "binding.h"

/* ------------------------------------------------------------------ tables to tensors */

/* A nested table on its way into a tensor. */
typedef struct nest {
  lua_State *L;
  nyx__lua *s;
  const char *function;
  int ndim;
  int64_t shape[NYX_MAX_DIMS];
  int64_t at[NYX_MAX_DIMS]; /* where the walk is, from 1; for messages */
  nyx_dtype dtype;
  char *next; /* where the next element goes */
} nest;

/* "[2][3]": where the walk is, at most `depth` deep. */
static const char *path(const nest *n, int depth, char *text, size_t size) {
  int used = 0;
  text[0] = 0;
  for (int d = 0; d < depth; d++)
    used += snprintf(text + used, size - (size_t)used, "[%lld]", (long long)n->at[d]);
  return text;
}
#define PATH_SIZE (NYX_MAX_DIMS * 24)

/* Finds the shape along first elements, and the kind of the first value. The table is at
 * the top of the stack. */
static void measure(nest *n, bool *is_bool) {
  lua_State *L = n->L;
  int top = lua_gettop(L);
  n->ndim = 0;
  *is_bool = false;
  while (lua_type(L, -1) == LUA_TTABLE) {
    if (n->ndim == NYX_MAX_DIMS)
      nyx__lua_fail(L, "%s: the table is nested more than %d deep", n->function,
                    NYX_MAX_DIMS);
    int64_t size = (int64_t)lua_rawlen(L, -1);
    n->shape[n->ndim++] = size;
    if (size == 0) break;
    luaL_checkstack(L, 2, "nested table");
    lua_rawgeti(L, -1, 1);
  }
  *is_bool = lua_isboolean(L, -1);
  nyx__box *box = nyx__lua_box(L, n->s, -1);
  if (box && box->t) *is_bool = nyx_tensor_dtype(box->t) == NYX_BOOL;
  lua_settop(L, top);
}

static _Noreturn void does_not_fit(nest *n, const char *got) {
  char text[PATH_SIZE];
  const char *dtype = nyx_dtype_name(n->dtype), *at = n->ndim ? " at " : "";
  nyx__lua_fail(
      n->L,
      "%s: the value%s%s is %s, which %s does not hold; choose another dtype, or "
      "convert with nyx.tensor(value):to(\"%s\")",
      n->function, at, path(n, n->ndim, text, sizeof text), got, dtype, dtype);
}

/* The limits of integer dtypes. */
static bool fits(nyx_dtype dtype, int64_t v) {
  switch (dtype) {
    case NYX_INT8: return v >= INT8_MIN && v <= INT8_MAX;
    case NYX_UINT8: return v >= 0 && v <= UINT8_MAX;
    case NYX_INT32: return v >= INT32_MIN && v <= INT32_MAX;
    default: return true;
  }
}

static void store_integer(nyx_dtype dtype, char *p, int64_t v) {
  switch (dtype) {
    case NYX_INT8: *(int8_t *)p = (int8_t)v; break;
    case NYX_UINT8: *(uint8_t *)p = (uint8_t)v; break;
    case NYX_INT32: *(int32_t *)p = (int32_t)v; break;
    default: *(int64_t *)p = v;
  }
}

void nyx__lua_check_number(lua_State *L, nyx__lua *s, int index, nyx_dtype dtype,
                           const char *function) {
  nest n = {.L = L, .function = function, .dtype = dtype};
  int64_t i;
  if (nyx_dtype_kind_of(dtype) == NYX_KIND_INT &&
      !(nyx__lua_integer(L, index, &i) && fits(dtype, i)))
    does_not_fit(&n, nyx__lua_describe(L, s, index));
}

/* Stores the value at the top of the stack. Half and complex types pass through float64.
 */
static void store(nest *n) {
  lua_State *L = n->L;
  double d = 0;
  int64_t i = 0;
  bool integral = false;
  nyx__box *box;
  switch (lua_type(L, -1)) {
    case LUA_TNUMBER:
      integral = nyx__lua_integer(L, -1, &i);
      d = lua_tonumber(L, -1);
      break;
    case LUA_TBOOLEAN:
      if (n->dtype != NYX_BOOL) does_not_fit(n, "a boolean");
      i = lua_toboolean(L, -1);
      d = (double)i;
      integral = true;
      break;
    default:
      box = nyx__lua_box(L, n->s, -1);
      if (!box || !box->t || nyx_tensor_numel(box->t) != 1)
        does_not_fit(n, nyx__lua_describe(L, n->s, -1));
      nyx__lua_try(L, n->s, nyx_tensor_item(n->s->ctx, box->t, &d));
      integral = !nyx_dtype_is_float(nyx_tensor_dtype(box->t));
      if (integral) nyx__lua_try(L, n->s, nyx_tensor_item_int(n->s->ctx, box->t, &i));
  }
  switch (nyx_dtype_kind_of(n->dtype)) {
    case NYX_KIND_FLOAT:
      if (n->dtype == NYX_FLOAT32)
        *(float *)n->next = (float)d;
      else
        *(double *)n->next = d;
      break;
    case NYX_KIND_INT:
      if (!integral || !fits(n->dtype, i))
        does_not_fit(n, nyx__lua_describe(L, n->s, -1));
      store_integer(n->dtype, n->next, i);
      break;
    case NYX_KIND_BOOL: *(uint8_t *)n->next = d != 0; break;
    case NYX_KIND_COMPLEX: break; /* stored as float64 */
  }
  n->next += nyx_dtype_size(n->dtype);
}

/* Stores the table at the top of the stack, which is `depth` deep. */
static void fill(nest *n, int depth) {
  lua_State *L = n->L;
  char text[PATH_SIZE];
  if (lua_type(L, -1) != LUA_TTABLE)
    nyx__lua_fail(L, "%s: the value at %s is %s, expected a table of %lld", n->function,
                  path(n, depth, text, sizeof text), nyx__lua_describe(L, n->s, -1),
                  (long long)n->shape[depth]);
  int64_t size = (int64_t)lua_rawlen(L, -1);
  if (size != n->shape[depth])
    nyx__lua_fail(L,
                  "%s: the table at %s has %lld elements, the first ones at this depth "
                  "have %lld; all rows must be equally long",
                  n->function, path(n, depth, text, sizeof text), (long long)size,
                  (long long)n->shape[depth]);
  for (int64_t i = 1; i <= size; i++) {
    n->at[depth] = i;
    lua_rawgeti(L, -1, (int)i);
    if (depth + 1 < n->ndim)
      fill(n, depth + 1);
    else if (lua_type(L, -1) == LUA_TTABLE)
      nyx__lua_fail(L, "%s: the value at %s is a table, expected a number as before it",
                    n->function, path(n, n->ndim, text, sizeof text));
    else
      store(n);
    lua_pop(L, 1);
  }
}

nyx_tensor *nyx__lua_to_tensor(lua_State *L, nyx__lua *s, int index, int dtype,
                               const char *function) {
  nest n = {.L = L, .s = s, .function = function};
  bool is_bool;
  luaL_checkstack(L, NYX_MAX_DIMS + 8, "nested table");
  lua_pushvalue(L, index);
  measure(&n, &is_bool);
  nyx_dtype wanted = dtype >= 0 ? (nyx_dtype)dtype
                     : is_bool  ? NYX_BOOL
                                : nyx_context_default_dtype(s->ctx);
  bool half = wanted == NYX_FLOAT16 || wanted == NYX_BFLOAT16;
  half |= nyx_dtype_is_complex(wanted);
  n.dtype = half ? NYX_FLOAT64 : wanted;
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  lua_insert(L, -2);
  nyx_tensor *t = NULL;
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, nyx_tensor_empty(s->ctx, n.dtype, n.ndim, n.shape, &t));
  nyx__lua_try_in(L, s, status, function);
  nyx__lua_fill(s, box, t, true);
  n.next = (char *)nyx_tensor_data(t);
  if (n.ndim > 0)
    fill(&n, 0);
  else
    store(&n);
  lua_pop(L, 1);
  if (half) {
    nyx_value value = NYX_I(wanted);
    nyx__lua_apply(L, s, s->cast, &t, 1, &value);
    nyx__lua_drop(s, box);
    lua_remove(L, -2);
    t = nyx__lua_box(L, s, -1)->t;
  }
  return t;
}

/* The options {dtype, device, requires_grad} of functions that make tensors. */
typedef struct making {
  int dtype; /* -1: not given */
  nyx_device *device;
  bool requires_grad;
} making;

static void read_making(lua_State *L, nyx__lua *s, int index, const char *function,
                        making *m) {
  *m = (making){.dtype = -1};
  if (lua_isnoneornil(L, index)) return;
  if (lua_type(L, index) != LUA_TTABLE)
    nyx__lua_bad_argument(L, s, index, function, "options", "table");
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int value = lua_gettop(L);
    if (strcmp(name, "dtype") == 0) {
      m->dtype = (int)nyx__lua_dtype(L, s, value, function, "dtype");
    } else if (strcmp(name, "device") == 0) {
      m->device = nyx__lua_device(L, s, value, function);
    } else if (strcmp(name, "requires_grad") == 0) {
      if (!lua_isboolean(L, value))
        nyx__lua_fail(L, "bad option 'requires_grad' to '%s' (boolean expected, got %s)",
                      function, nyx__lua_describe(L, s, value));
      m->requires_grad = lua_toboolean(L, value);
    } else {
      nyx__lua_fail(L, "%s: unknown option '%.40s'; known: dtype device requires_grad",
                    function, name);
    }
  }
}

/* The tensor at the top of the stack as the options want it. */
static int finish(lua_State *L, nyx__lua *s, const making *m) {
  nyx_tensor *t = nyx__lua_box(L, s, -1)->t, *moved = NULL;
  if (m->device && m->device != nyx_tensor_device(t)) {
    nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
    nyx__lua_try(L, s, nyx_tensor_to(s->ctx, t, m->device, &moved));
    nyx__lua_fill(s, box, moved, true);
    t = moved;
  }
  if (m->requires_grad) nyx__lua_try(L, s, nyx_tensor_set_requires_grad(s->ctx, t, true));
  return 1;
}

/* nyx.tensor(data, {dtype, device, requires_grad}): data is a number, a boolean, a nested
 * table of them, or a tensor, which is copied. */
static int make_tensor(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  making m;
  read_making(L, s, 2, "tensor", &m);
  nyx__box *source = nyx__lua_box(L, s, 1);
  if (source) {
    nyx_tensor *t = nyx__lua_check(L, s, 1, "tensor"), *plain = NULL;
    nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
    nyx__lua_try(L, s, nyx_tensor_detach(s->ctx, t, &plain));
    nyx__lua_fill(s, box, plain, false);
    nyx_value dtype = NYX_I(m.dtype < 0 ? (int)nyx_tensor_dtype(t) : m.dtype);
    nyx__lua_apply(L, s, s->cast, &plain, 1, &dtype);
    return finish(L, s, &m);
  }
  int type = lua_type(L, 1);
  if (type != LUA_TTABLE && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
    nyx__lua_bad_argument(L, s, 1, "tensor", "data", "table, number, boolean or tensor");
  nyx__lua_to_tensor(L, s, 1, m.dtype, "tensor");
  return finish(L, s, &m);
}

/* nyx.frombuffer(string, dtype, shape, offset): row-major elements from the bytes of a
 * string, in this machine's byte order; `offset` bytes (0) are skipped. The shape may be
 * left out: all whole elements. */
static int from_buffer(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  size_t length;
  if (lua_type(L, 1) != LUA_TSTRING)
    nyx__lua_bad_argument(L, s, 1, "frombuffer", "bytes", "string");
  const char *bytes = lua_tolstring(L, 1, &length);
  nyx_dtype dtype = nyx__lua_dtype(L, s, 2, "frombuffer", "dtype");
  int64_t offset = 0, shape[NYX_MAX_DIMS];
  if (!lua_isnoneornil(L, 4) &&
      (lua_type(L, 4) != LUA_TNUMBER || !nyx__lua_integer(L, 4, &offset)))
    nyx__lua_bad_argument(L, s, 4, "frombuffer", "offset", "integer");
  if (offset < 0 || (uint64_t)offset > length)
    nyx__lua_fail(L, "frombuffer: offset %lld is outside of the string of %llu bytes",
                  (long long)offset, (unsigned long long)length);
  size_t item = nyx_dtype_size(dtype), left = length - (size_t)offset, need = item;
  int ndim = 1;
  shape[0] = (int64_t)(left / item);
  if (lua_type(L, 3) == LUA_TTABLE) {
    ndim = (int)lua_rawlen(L, 3);
    if (ndim > NYX_MAX_DIMS)
      nyx__lua_fail(L, "frombuffer: %d dimensions, at most %d are allowed", ndim,
                    NYX_MAX_DIMS);
    for (int d = 0; d < ndim; d++) {
      lua_rawgeti(L, 3, d + 1);
      if (lua_type(L, -1) != LUA_TNUMBER || !nyx__lua_integer(L, -1, &shape[d]) ||
          shape[d] < 0 || __builtin_mul_overflow(need, (size_t)shape[d], &need))
        nyx__lua_fail(L, "frombuffer: size %d of the shape is %s", d + 1,
                      nyx__lua_describe(L, s, -1));
      lua_pop(L, 1);
    }
    if (need > left)
      nyx__lua_fail(L,
                    "frombuffer: the shape needs %llu bytes, the string has %llu after "
                    "offset %lld",
                    (unsigned long long)need, (unsigned long long)left,
                    (long long)offset);
  } else if (!lua_isnoneornil(L, 3)) {
    nyx__lua_bad_argument(L, s, 3, "frombuffer", "shape", "table of sizes");
  }
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx_tensor *t = NULL;
  nyx_status status;
  NYX_LUA_RETRY(L, s, status,
                nyx_tensor_from_data(s->ctx, dtype, ndim, shape, bytes + offset, &t));
  nyx__lua_try_in(L, s, status, "frombuffer");
  if (dtype == NYX_BOOL) { /* any byte may have come; a bool is 0 or 1 */
    uint8_t *p = (uint8_t *)nyx_tensor_data(t);
    for (int64_t i = 0; i < nyx_tensor_numel(t); i++) p[i] = p[i] != 0;
  }
  nyx__lua_fill(s, box, t, true);
  return 1;
}

const luaL_Reg nyx__lua_convert_functions[] = {
    {"tensor", make_tensor}, {"frombuffer", from_buffer}, {NULL, NULL}};

/* ------------------------------------------------------------------ tensors to Lua */

/* What a dtype is read as: float64, int64, bool or complex128. */
static nyx_dtype reading(nyx_dtype dtype) {
  switch (nyx_dtype_kind_of(dtype)) {
    case NYX_KIND_FLOAT: return NYX_FLOAT64;
    case NYX_KIND_INT: return NYX_INT64;
    case NYX_KIND_COMPLEX: return NYX_COMPLEX128;
    case NYX_KIND_BOOL: break;
  }
  return NYX_BOOL;
}

/* A complex number as a table of both parts. */
static void push_pair(lua_State *L, const double *parts) {
  lua_createtable(L, 2, 0);
  for (int i = 0; i < 2; i++) {
    lua_pushnumber(L, parts[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

void nyx__lua_push_value(lua_State *L, nyx_dtype dtype, const void *p) {
  if (dtype == NYX_FLOAT64)
    lua_pushnumber(L, *(const double *)p);
  else if (dtype == NYX_INT64)
    lua_pushinteger(L, (lua_Integer) * (const int64_t *)p);
  else if (dtype == NYX_COMPLEX128)
    push_pair(L, p);
  else
    lua_pushboolean(L, *(const uint8_t *)p);
}

/* x:item(): the value of a tensor with one element; of a complex one both parts. */
static int tensor_item(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "item");
  nyx_dtype dtype = nyx_tensor_dtype(t);
  if (nyx_dtype_is_complex(dtype)) {
    double parts[2];
    nyx__lua_try(L, s, nyx_tensor_item_complex(s->ctx, t, parts));
    lua_pushnumber(L, parts[0]);
    lua_pushnumber(L, parts[1]);
    return 2;
  }
  if (nyx_dtype_is_float(dtype)) {
    double value;
    nyx__lua_try(L, s, nyx_tensor_item(s->ctx, t, &value));
    lua_pushnumber(L, value);
  } else {
    int64_t value;
    nyx__lua_try(L, s, nyx_tensor_item_int(s->ctx, t, &value));
    if (dtype == NYX_BOOL)
      lua_pushboolean(L, value != 0);
    else
      lua_pushinteger(L, (lua_Integer)value);
  }
  return 1;
}

/* Pushes dimensions `dim`.. of the elements at *p. */
static void push_nested(lua_State *L, const nyx_tensor *t, int dim, nyx_dtype dtype,
                        const char **p) {
  if (dim == nyx_tensor_ndim(t)) {
    nyx__lua_push_value(L, dtype, *p);
    *p += nyx_dtype_size(dtype);
    return;
  }
  int64_t size = nyx_tensor_shape(t)[dim];
  lua_createtable(L, size < INT32_MAX ? (int)size : 0, 0);
  for (int64_t i = 1; i <= size; i++) {
    push_nested(L, t, dim + 1, dtype, p);
    lua_rawseti(L, -2, (int)i);
  }
}

/* The elements of t as `dtype`, row-major, in a tensor of bytes that is pushed: an error
 * while they are in use leaves them to the collector. */
static nyx__box *read_all(lua_State *L, nyx__lua *s, nyx_tensor *t, nyx_dtype dtype,
                          const char *function) {
  int64_t bytes = nyx_tensor_numel(t) * (int64_t)nyx_dtype_size(dtype);
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx_tensor *copy = NULL;
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, nyx_tensor_empty(s->ctx, NYX_UINT8, 1, &bytes, &copy));
  nyx__lua_try_in(L, s, status, function);
  nyx__lua_fill(s, box, copy, true);
  NYX_LUA_RETRY(L, s, status,
                nyx_tensor_read(s->ctx, t, dtype, nyx_tensor_data(copy), (size_t)bytes));
  nyx__lua_try_in(L, s, status, function);
  return box;
}

/* x:totable(): nested tables; a number (or boolean) for a 0-dimensional x. */
static int tensor_totable(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "totable");
  nyx_dtype dtype = reading(nyx_tensor_dtype(t));
  luaL_checkstack(L, 2 * NYX_MAX_DIMS + 8, "totable");
  nyx__box *all = read_all(L, s, t, dtype, "totable");
  const char *p = (const char *)nyx_tensor_data(all->t);
  s->allocating = true;
  push_nested(L, t, 0, dtype, &p);
  s->allocating = false;
  nyx__lua_drop(s, all);
  return 1;
}

/* x:tobytes(): the elements, row-major, as a string in this machine's byte order. */
static int tensor_tobytes(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "tobytes");
  const void *data = nyx_tensor_is_contiguous(t) ? nyx_tensor_data(t) : NULL;
  size_t bytes = (size_t)nyx_tensor_numel(t) * nyx_dtype_size(nyx_tensor_dtype(t));
  nyx__box *all = data ? NULL : read_all(L, s, t, nyx_tensor_dtype(t), "tobytes");
  if (all) data = nyx_tensor_data(all->t);
  s->allocating = true;
  lua_pushlstring(L, data ? (const char *)data : "", bytes);
  s->allocating = false;
  if (all) nyx__lua_drop(s, all);
  return 1;
}

const luaL_Reg nyx__lua_convert_methods[] = {{"item", tensor_item},
                                             {"totable", tensor_totable},
                                             {"tobytes", tensor_tobytes},
                                             {NULL, NULL}};
