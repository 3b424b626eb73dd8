/* Tensor userdata: boxes, fields (x.shape, x.grad), metamethods and the methods that ask
 * about a tensor rather than compute. Read next: call.c (ops), index.c (x[...]). */
#include <stdio.h>
#include <string.h>

#include "binding.h"

void *nyx__lua_allocate(lua_State *L, nyx__lua *s, size_t size) {
  s->allocating = true;
  void *block = lua_newuserdatauv(L, size, 0);
  s->allocating = false;
  return block;
}

nyx__box *nyx__lua_push_box(lua_State *L, nyx__lua *s, int meta) {
  nyx__lua_make_room(L, s);
  nyx__box *box = (nyx__box *)nyx__lua_allocate(L, s, sizeof *box);
  box->t = NULL;
  box->bytes = 0;
  box->link = NULL;
  lua_pushvalue(L, meta);
  lua_setmetatable(L, -2);
  return box;
}

void nyx__lua_fill(nyx__lua *s, nyx__box *box, nyx_tensor *t, bool owner) {
  box->t = t;
  nyx__lua_link(box, s->scope);
  nyx__lua_count(s, box, owner);
}

void nyx__lua_link(nyx__box *box, nyx__box **list) {
  if (box->link) {
    *box->link = box->next;
    if (box->next) box->next->link = box->link;
  }
  box->list = box->link = list;
  if (!list) return;
  box->next = *list;
  if (box->next) box->next->link = &box->next;
  *list = box;
}

void nyx__lua_drop(nyx__lua *s, nyx__box *box) {
  nyx__lua_link(box, NULL);
  nyx__lua_uncount(s, box);
  nyx_tensor *t = box->t;
  box->t = NULL;
  nyx_tensor_release(t);
}

nyx_tensor *nyx__lua_check(lua_State *L, nyx__lua *s, int index, const char *function) {
  nyx__box *box = nyx__lua_box(L, s, index);
  if (!box) nyx__lua_bad_argument(L, s, index, function, NULL, "tensor");
  if (!box->t) {
    char what[32] = "a value in its table";
    if (index > 0) snprintf(what, sizeof what, "argument %d", index);
    nyx__lua_fail(L,
                  "%s: %s is a released tensor; its memory was given back by release, "
                  "<close> or the end of nyx.scope",
                  function, what);
  }
  return box->t;
}

void nyx__lua_push_ints(lua_State *L, int n, const int64_t *values) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushinteger(L, (lua_Integer)values[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

/* ------------------------------------------------------------------ fields */

typedef enum field {
  FIELD_SHAPE = 1,
  FIELD_DTYPE,
  FIELD_DEVICE,
  FIELD_GRAD,
  FIELD_REQUIRES_GRAD,
  FIELD_IS_LEAF,
  FIELD_GRAD_FN,
  FIELD_NDIM,
  FIELD_RETAINS_GRAD
} field;

static const char *const field_names[] = {"shape",   "dtype",         "device",
                                          "grad",    "requires_grad", "is_leaf",
                                          "grad_fn", "ndim",          "retains_grad"};

static void push_field(lua_State *L, nyx__lua *s, nyx_tensor *t, int which) {
  switch ((field)which) {
    case FIELD_SHAPE:
      nyx__lua_push_ints(L, nyx_tensor_ndim(t), nyx_tensor_shape(t));
      break;
    case FIELD_DTYPE: lua_pushstring(L, nyx_dtype_name(nyx_tensor_dtype(t))); break;
    case FIELD_DEVICE: lua_pushstring(L, nyx_device_name(nyx_tensor_device(t))); break;
    case FIELD_GRAD: {
      if (!nyx_tensor_grad(t)) {
        lua_pushnil(L);
        break;
      }
      nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
      nyx_tensor *grad = nyx_tensor_grad(t); /* a finalizer may have cleared it */
      if (!grad)
        lua_pushnil(L);
      else
        nyx__lua_fill(s, box, nyx_tensor_retain(grad), false);
      break;
    }
    case FIELD_REQUIRES_GRAD: lua_pushboolean(L, nyx_tensor_requires_grad(t)); break;
    case FIELD_IS_LEAF: lua_pushboolean(L, nyx_tensor_is_leaf(t)); break;
    case FIELD_GRAD_FN: nyx__lua_push_grad_fn(L, s, t); break;
    case FIELD_NDIM: lua_pushinteger(L, nyx_tensor_ndim(t)); break;
    case FIELD_RETAINS_GRAD: lua_pushboolean(L, nyx_tensor_retains_grad(t)); break;
  }
}

#define ACCESS_METHODS lua_upvalueindex(3)
#define ACCESS_FIELDS lua_upvalueindex(4)
#define ACCESS_MODULE lua_upvalueindex(5)

/* x.name, x:name(...), x[i], x[{...}], x[mask], x[positions] */
static int tensor_index(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  if (lua_type(L, 2) != LUA_TSTRING) {
    nyx__lua_index(L, s);
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_rawget(L, ACCESS_METHODS);
  if (!lua_isnil(L, -1)) return 1;
  lua_pushvalue(L, 2);
  lua_rawget(L, ACCESS_FIELDS);
  int which = (int)lua_tointeger(L, -1);
  if (which) {
    push_field(L, s, nyx__lua_check(L, s, 1, lua_tostring(L, 2)), which);
    return 1;
  }
  lua_settop(L, 2);
  if (s->ops_bound != nyx_op_count()) /* an extension brought new ops */
    nyx__lua_bind_ops(L, s, ACCESS_MODULE, ACCESS_METHODS, NYX_LUA_META);
  lua_gettable(L, ACCESS_METHODS); /* lua/nyx/late.lua may have it */
  return 1;
}

/* x.grad = g, x.requires_grad = true, x[...] = v */
static int tensor_newindex(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  if (lua_type(L, 2) != LUA_TSTRING) {
    nyx__lua_newindex(L, s);
    return 0;
  }
  const char *name = lua_tostring(L, 2);
  nyx_tensor *t = nyx__lua_check(L, s, 1, name);
  lua_pushvalue(L, 2);
  lua_rawget(L, ACCESS_FIELDS);
  int which = (int)lua_tointeger(L, -1);
  if (which == FIELD_GRAD) {
    nyx_tensor *grad = lua_isnil(L, 3) ? NULL : nyx__lua_check(L, s, 3, "grad");
    nyx__lua_set_grad(L, s, t, grad);
  } else if (which == FIELD_REQUIRES_GRAD) {
    if (!lua_isboolean(L, 3))
      nyx__lua_bad_argument(L, s, 3, "requires_grad", NULL, "boolean");
    nyx__lua_try(L, s, nyx_tensor_set_requires_grad(s->ctx, t, lua_toboolean(L, 3)));
  } else if (which) {
    nyx__lua_fail(L, "'%s' of a tensor cannot be assigned%s", name,
                  which == FIELD_SHAPE    ? "; use reshape"
                  : which == FIELD_DTYPE  ? "; use x:to(dtype)"
                  : which == FIELD_DEVICE ? "; use x:to(device)"
                                          : "");
  } else {
    nyx__lua_fail(L,
                  "a tensor has no field '%s' that could be assigned; assign x.grad, "
                  "x.requires_grad or positions, x[i] = v",
                  name);
  }
  return 0;
}

/* What x.name and x:name may be, for completion: methods with their functions, fields
 * with their numbers, in a new table. */
static int tensor_names(lua_State *L) {
  lua_getfield(L, ACCESS_METHODS, ""); /* which nothing has: lua/nyx/late.lua loads all */
  lua_settop(L, 0);
  lua_newtable(L);
  int names = lua_gettop(L);
  const int sources[] = {ACCESS_METHODS, ACCESS_FIELDS};
  for (int i = 0; i < 2; i++) {
    for (lua_pushnil(L); lua_next(L, sources[i]); lua_pop(L, 1)) {
      lua_pushvalue(L, -2);
      lua_pushvalue(L, -2);
      lua_rawset(L, names);
    }
  }
  return 1;
}

void nyx__lua_set_access(lua_State *L) {
  int module = lua_gettop(L), methods = module - 1;
  lua_newtable(L);
  for (int i = 0; i < (int)(sizeof field_names / sizeof *field_names); i++) {
    lua_pushinteger(L, i + 1);
    lua_setfield(L, -2, field_names[i]);
  }
  int fields = lua_gettop(L);
  static const luaL_Reg events[] = {{"__index", tensor_index},
                                    {"__newindex", tensor_newindex},
                                    {"__names", tensor_names}};
  for (int i = 0; i < 3; i++) {
    lua_pushvalue(L, NYX_LUA_STATE);
    lua_pushvalue(L, NYX_LUA_META);
    lua_pushvalue(L, methods);
    lua_pushvalue(L, fields);
    lua_pushvalue(L, module);
    lua_pushcclosure(L, events[i].func, 5);
    lua_setfield(L, NYX_LUA_META, events[i].name);
  }
  lua_settop(L, module);
}

/* ------------------------------------------------------------------ metamethods */

/* x:release() and the end of a block with <close>. Inside of a finalizer that the
 * collector runs in the middle of an op it is left to the collector. */
static int tensor_release(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__box *box = nyx__lua_box(L, s, 1);
  if (!box) nyx__lua_bad_argument(L, s, 1, "release", NULL, "tensor");
  if (box->t && !s->allocating && !s->collecting) nyx__lua_drop(s, box);
  return 0;
}

static int tensor_gc(lua_State *L) {
  nyx__lua *s = (nyx__lua *)lua_touserdata(L, NYX_LUA_STATE);
  nyx__box *box = nyx__lua_box(L, s, 1);
  if (box && box->t) nyx__lua_drop(s, box);
  if (s->ctx) nyx__lua_callbacks_sweep(L, s);
  return 0;
}

static int tensor_tostring(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__box *box = nyx__lua_box(L, s, 1);
  if (box && !box->t) {
    lua_pushliteral(L, "nyx.Tensor (released)");
    return 1;
  }
  nyx_tensor *t = nyx__lua_check(L, s, 1, "tostring");
  const nyx_print_options options = {.index_base = 1};
  char *text = NULL, **holder = (char **)nyx__lua_allocate(L, s, sizeof *holder);
  *holder = NULL; /* keeps the text while lua_pushstring may fail */
  lua_getfield(L, LUA_REGISTRYINDEX, NYX_LUA_BLOCK_KEY);
  lua_setmetatable(L, -2);
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, nyx_tensor_format(s->ctx, t, &options, &text));
  nyx__lua_try_in(L, s, status, "tostring");
  *holder = text;
  lua_pushstring(L, text);
  *holder = NULL;
  nyx_memory_free(text);
  return 1;
}

static int tensor_len(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "#");
  if (nyx_tensor_ndim(t) == 0)
    nyx__lua_fail(L,
                  "#x: a 0-dimensional tensor has no length; use x:item() for its value");
  lua_pushinteger(L, (lua_Integer)nyx_tensor_shape(t)[0]);
  return 1;
}

/* Whether both are the same tensor; x:eq(y) compares elements. */
static int tensor_eq(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__box *a = nyx__lua_box(L, s, 1), *b = nyx__lua_box(L, s, 2);
  lua_pushboolean(L, a && b && a->t && a->t == b->t);
  return 1;
}

/* "loss " .. x for tensors with one element */
static int tensor_concat(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  lua_settop(L, 2);
  for (int i = 1; i <= 2; i++) {
    nyx__box *box = nyx__lua_box(L, s, i);
    if (!box) {
      if (!lua_isstring(L, i))
        nyx__lua_fail(L, "attempt to concatenate a tensor and a %s", luaL_typename(L, i));
      lua_pushvalue(L, i);
      continue;
    }
    nyx_tensor *t = nyx__lua_check(L, s, i, "..");
    if (nyx_tensor_numel(t) != 1)
      nyx__lua_fail(L, "..: %s is not one number; use tostring(x)",
                    nyx__lua_describe(L, s, i));
    double value;
    nyx__lua_try(L, s, nyx_tensor_item(s->ctx, t, &value));
    char text[40];
    snprintf(text, sizeof text, nyx_tensor_dtype(t) == NYX_FLOAT64 ? "%.14g" : "%.7g",
             value);
    lua_pushstring(L, text);
  }
  lua_concat(L, 2);
  return 1;
}

/* Lua turns the result of < and <= into one boolean. */
static int tensor_order(lua_State *L) {
  nyx__lua_fail(L,
                "< <= > >= do not compare tensors, since they can only give one "
                "boolean; use x:lt(y), x:le(y), x:gt(y) or x:ge(y)");
}

const luaL_Reg nyx__lua_tensor_events[] = {
    {"__gc", tensor_gc},    {"__close", tensor_release}, {"__tostring", tensor_tostring},
    {"__len", tensor_len},  {"__eq", tensor_eq},         {"__concat", tensor_concat},
    {"__lt", tensor_order}, {"__le", tensor_order},      {NULL, NULL}};

/* ------------------------------------------------------------------ methods */

/* The dimension at stack index 2, counted from 0. */
static int dim_argument(lua_State *L, nyx__lua *s, const nyx_tensor *t,
                        const char *function) {
  int64_t dim;
  int ndim = nyx_tensor_ndim(t);
  if (lua_type(L, 2) != LUA_TNUMBER || !nyx__lua_integer(L, 2, &dim))
    nyx__lua_bad_argument(L, s, 2, function, "dim", "dimension");
  if (dim == 0)
    nyx__lua_fail(L, "%s: 'dim' is 0; dimensions count from 1, from the end with -1",
                  function);
  if (dim > ndim || dim < -ndim)
    nyx__lua_fail(L, "%s: dimension %lld is out of range for a tensor of %d dimensions",
                  function, (long long)dim, ndim);
  return (int)(dim > 0 ? dim - 1 : dim + ndim);
}

static int geometry(lua_State *L, const char *function,
                    const int64_t *(*values)(const nyx_tensor *)) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, function);
  if (lua_isnoneornil(L, 2))
    nyx__lua_push_ints(L, nyx_tensor_ndim(t), values(t));
  else
    lua_pushinteger(L, (lua_Integer)values(t)[dim_argument(L, s, t, function)]);
  return 1;
}

static int tensor_size(lua_State *L) {
  return geometry(L, "size", nyx_tensor_shape);
}
static int tensor_stride(lua_State *L) {
  return geometry(L, "stride", nyx_tensor_stride);
}

static int tensor_dim(lua_State *L) {
  lua_pushinteger(L, nyx_tensor_ndim(nyx__lua_check(L, nyx__lua_state(L), 1, "dim")));
  return 1;
}

static int tensor_numel(lua_State *L) {
  nyx_tensor *t = nyx__lua_check(L, nyx__lua_state(L), 1, "numel");
  lua_pushinteger(L, (lua_Integer)nyx_tensor_numel(t));
  return 1;
}

static int tensor_offset(lua_State *L) {
  nyx_tensor *t = nyx__lua_check(L, nyx__lua_state(L), 1, "storage_offset");
  lua_pushinteger(L, (lua_Integer)nyx_tensor_offset(t));
  return 1;
}

static const char *read_format(lua_State *L, nyx__lua *s, int index,
                               const char *function) {
  if (lua_type(L, index) != LUA_TSTRING)
    nyx__lua_bad_argument(L, s, index, function, "memory_format", "string");
  const char *format = lua_tostring(L, index);
  if (strcmp(format, "contiguous") != 0 && strcmp(format, "channels_last") != 0)
    nyx__lua_fail(L,
                  "%s: 'memory_format' is \"%.40s\", expected \"contiguous\" or "
                  "\"channels_last\"",
                  function, format);
  return format;
}

static bool lies_in(const nyx_tensor *t, const char *format) {
  return strcmp(format, "contiguous") == 0 ? nyx_tensor_is_contiguous(t)
                                           : nyx_tensor_is_channels_last(t);
}

/* x:is_contiguous(), x:is_contiguous("channels_last") */
static int tensor_is_contiguous(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "is_contiguous");
  bool given = !lua_isnoneornil(L, 2);
  const char *format = given ? read_format(L, s, 2, "is_contiguous") : "contiguous";
  lua_pushboolean(L, lies_in(t, format));
  return 1;
}

static int tensor_is_floating_point(lua_State *L) {
  nyx_tensor *t = nyx__lua_check(L, nyx__lua_state(L), 1, "is_floating_point");
  lua_pushboolean(L, nyx_dtype_is_float(nyx_tensor_dtype(t)));
  return 1;
}

static int tensor_shares(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *a = nyx__lua_check(L, s, 1, "shares"),
             *b = nyx__lua_check(L, s, 2, "shares");
  lua_pushboolean(L, nyx_tensor_shares(a, b));
  return 1;
}

static int tensor_is_same_size(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *a = nyx__lua_check(L, s, 1, "is_same_size"),
             *b = nyx__lua_check(L, s, 2, "is_same_size");
  const int ndim = nyx_tensor_ndim(a);
  lua_pushboolean(
      L, ndim == nyx_tensor_ndim(b) && memcmp(nyx_tensor_shape(a), nyx_tensor_shape(b),
                                              (size_t)ndim * sizeof(int64_t)) == 0);
  return 1;
}

static int tensor_data_ptr(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  void *data = nyx_tensor_data(nyx__lua_check(L, s, 1, "data_ptr"));
  if (!data)
    nyx__lua_fail(
        L, "data_ptr: the tensor is on %s; move it with x:to(\"cpu\")",
        nyx_device_name(nyx_tensor_device(nyx__lua_check(L, s, 1, "data_ptr"))));
  lua_pushlightuserdata(L, data);
  return 1;
}

static int tensor_touch(lua_State *L) {
  nyx_tensor_touch(nyx__lua_check(L, nyx__lua_state(L), 1, "touch"));
  lua_settop(L, 1);
  return 1;
}

/* x:keep_packed(on): on is true when left out; gives x. */
static int tensor_keep_packed(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "keep_packed");
  if (!lua_isnoneornil(L, 2) && !lua_isboolean(L, 2))
    nyx__lua_bad_argument(L, s, 2, "keep_packed", "on", "boolean");
  bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
  nyx__lua_try(L, s, nyx_tensor_keep_packed(s->ctx, t, on));
  lua_settop(L, 1);
  return 1;
}

/* x:packed_bytes(): nil where nothing is to be kept. */
static int tensor_packed_bytes(lua_State *L) {
  nyx_tensor *t = nyx__lua_check(L, nyx__lua_state(L), 1, "packed_bytes");
  if (!nyx_tensor_keeps_packed(t)) return 0;
  lua_pushinteger(L, (lua_Integer)nyx_tensor_packed_bytes(t));
  return 1;
}

/* What a tensor is to become. */
typedef struct target {
  nyx_dtype dtype;
  nyx_device *device;
  const char *format; /* of memory; NULL: as it is */
} target;

/* Reads one argument of x:to: a dtype, a device, a tensor to be like, or a table
 * {dtype, device, memory_format}. */
static void read_target(lua_State *L, nyx__lua *s, int index, target *to) {
  nyx__box *like = nyx__lua_box(L, s, index);
  if (like) {
    to->dtype = nyx_tensor_dtype(nyx__lua_check(L, s, index, "to"));
    to->device = nyx_tensor_device(like->t);
  } else if (lua_type(L, index) == LUA_TSTRING) {
    const char *name = lua_tostring(L, index);
    if (!nyx_dtype_find(name, &to->dtype) &&
        nyx_device_find(s->ctx, name, &to->device) != NYX_OK)
      nyx__lua_fail(L, "to: %s; nor is it a dtype; known: %s", nyx_context_error(s->ctx),
                    nyx__lua_dtypes((char[160]){""}));
  } else if (lua_type(L, index) == LUA_TTABLE) {
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
      const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
      int value = lua_gettop(L);
      if (strcmp(name, "dtype") == 0)
        to->dtype = nyx__lua_dtype(L, s, value, "to", "dtype");
      else if (strcmp(name, "device") == 0)
        to->device = nyx__lua_device(L, s, value, "to");
      else if (strcmp(name, "memory_format") == 0)
        to->format = read_format(L, s, value, "to");
      else
        nyx__lua_fail(L, "to: unknown option '%.40s'; known: dtype device memory_format",
                      name);
    }
  } else if (!lua_isnil(L, index)) {
    nyx__lua_bad_argument(L, s, index, "to", NULL, "dtype, device or tensor");
  }
}

/* x:to(dtype), x:to(device), x:to(device, dtype), x:to{dtype=, device=}, x:to(y): a
 * tensor of that dtype and on that device; x itself when it is so already. */
static int tensor_to(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "to");
  int n = lua_gettop(L);
  target to = {nyx_tensor_dtype(t), nyx_tensor_device(t), NULL};
  if (n < 2) nyx__lua_bad_argument(L, s, 2, "to", NULL, "dtype, device or tensor");
  for (int i = 2; i <= n; i++) read_target(L, s, i, &to);
  lua_pushvalue(L, 1);
  if (to.dtype != nyx_tensor_dtype(t)) {
    nyx_value value = NYX_I(to.dtype);
    nyx__lua_apply(L, s, s->cast, &t, 1, &value);
    t = nyx__lua_box(L, s, -1)->t;
  }
  if (to.device != nyx_tensor_device(t)) {
    nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
    nyx_tensor *moved = NULL;
    nyx_status status;
    NYX_LUA_RETRY(L, s, status, nyx_tensor_to(s->ctx, t, to.device, &moved));
    nyx__lua_try(L, s, status);
    nyx__lua_fill(s, box, moved, true);
    t = moved;
  }
  if (to.format && !lies_in(t, to.format)) {
    nyx_value value = NYX_S(to.format);
    nyx__lua_apply(L, s, s->contiguous, &t, 1, &value);
  }
  return 1;
}

const luaL_Reg nyx__lua_tensor_methods[] = {
    {"size", tensor_size},
    {"stride", tensor_stride},
    {"dim", tensor_dim},
    {"numel", tensor_numel},
    {"storage_offset", tensor_offset},
    {"is_contiguous", tensor_is_contiguous},
    {"is_floating_point", tensor_is_floating_point},
    {"shares", tensor_shares},
    {"is_same_size", tensor_is_same_size},
    {"release", tensor_release},
    {"data_ptr", tensor_data_ptr},
    {"touch", tensor_touch},
    {"keep_packed", tensor_keep_packed},
    {"packed_bytes", tensor_packed_bytes},
    {"to", tensor_to},
    {NULL, NULL}};

static int is_released(lua_State *L) {
  nyx__box *box = nyx__lua_box(L, nyx__lua_state(L), 1);
  lua_pushboolean(L, box && !box->t);
  return 1;
}

/* geometry(x): a string that tensors of equal sizes share, and equal strides where one is
 * not contiguous: a key for what follows from these. No such string begins another. */
static int tensor_geometry(lua_State *L) {
  nyx_tensor *t = nyx__lua_check(L, nyx__lua_state(L), 1, "geometry");
  const int ndim = nyx_tensor_ndim(t);
  const bool spaced = !nyx_tensor_is_contiguous(t);
  int64_t values[2 * NYX_MAX_DIMS + 1] = {2 * ndim + spaced};
  const size_t size = (size_t)ndim * sizeof *values;
  memcpy(values + 1, nyx_tensor_shape(t), size);
  if (spaced) memcpy(values + 1 + ndim, nyx_tensor_stride(t), size);
  lua_pushlstring(L, (const char *)values, sizeof *values + (spaced ? 2 : 1) * size);
  return 1;
}

const luaL_Reg nyx__lua_geometry_functions[] = {
    {"is_released", is_released}, {"geometry", tensor_geometry}, {NULL, NULL}};

static int is_tensor(lua_State *L) {
  lua_pushboolean(L, nyx__lua_box(L, nyx__lua_state(L), 1) != NULL);
  return 1;
}

const luaL_Reg nyx__lua_tensor_functions[] = {{"is_tensor", is_tensor}, {NULL, NULL}};
