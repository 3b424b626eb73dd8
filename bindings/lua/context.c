/* What a context is set to for a while: mixed precision (nyx.autocast), the state of
 * random numbers; and what lua/nyx/checkpoint.lua asks about a graph. Read next: scope.c,
 * core/op/autocast.c, core/grad/boundary.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "binding.h"

/* ------------------------------------------------------------------ mixed precision */

/* A mode as one number, for nyx__lua_with: devices are aligned, two bits are free. */
#define ENABLED 1
#define HALF 2

static intptr_t pack(nyx_autocast_mode mode) {
  return (intptr_t)mode.device | (mode.enabled ? ENABLED : 0) |
         (mode.dtype == NYX_FLOAT16 ? HALF : 0);
}

static void set_autocast(nyx__lua *s, intptr_t value) {
  nyx_autocast_mode mode = {.enabled = (value & ENABLED) != 0,
                            .dtype = value & HALF ? NYX_FLOAT16 : NYX_BFLOAT16,
                            .device = (const nyx_device *)(value & ~(intptr_t)3)};
  if (nyx_context_set_autocast(s->ctx, mode) != NYX_OK) return; /* cannot be */
}

/* Reads {dtype, enabled, device} at index 1. */
static nyx_autocast_mode read_mode(lua_State *L, nyx__lua *s) {
  nyx_autocast_mode mode = {.enabled = true, .dtype = NYX_BFLOAT16};
  bool has_dtype = false;
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int value = lua_gettop(L);
    if (strcmp(name, "enabled") == 0) {
      if (!lua_isboolean(L, value))
        nyx__lua_fail(L, "bad option 'enabled' to 'autocast' (boolean expected, got %s)",
                      nyx__lua_describe(L, s, value));
      mode.enabled = lua_toboolean(L, value);
    } else if (strcmp(name, "dtype") == 0) {
      mode.dtype = nyx__lua_dtype(L, s, value, "autocast", "dtype");
      has_dtype = true;
    } else if (strcmp(name, "device") == 0) {
      mode.device = nyx__lua_device(L, s, value, "autocast");
    } else {
      nyx__lua_fail(L, "autocast: unknown option '%.40s'; known: dtype enabled device",
                    name);
    }
  }
  if (mode.dtype != NYX_BFLOAT16 && mode.dtype != NYX_FLOAT16)
    nyx__lua_fail(L, "autocast: 'dtype' is %s, expected bfloat16 or float16",
                  nyx_dtype_name(mode.dtype));
  if (!has_dtype && mode.device && strcmp(nyx_device_name(mode.device), "cpu") != 0)
    mode.dtype = NYX_FLOAT16;
  return mode;
}

static bool is_options(lua_State *L) {
  if (lua_type(L, 1) != LUA_TTABLE) return false;
  bool callable = luaL_getmetafield(L, 1, "__call");
  if (callable) lua_pop(L, 1);
  return !callable;
}

/* nyx.autocast(fn, ...), nyx.autocast({dtype, enabled, device}, fn, ...): fn(...) in
 * mixed precision; gives its results. */
static int autocast(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_autocast_mode mode = {.enabled = true, .dtype = NYX_BFLOAT16};
  if (is_options(L)) {
    mode = read_mode(L, s);
    bool callable = lua_type(L, 2) == LUA_TFUNCTION;
    if (!callable && luaL_getmetafield(L, 2, "__call")) {
      callable = true;
      lua_pop(L, 1);
    }
    if (!callable) nyx__lua_bad_argument(L, s, 2, "autocast", "fn", "function");
    lua_remove(L, 1);
  }
  return nyx__lua_with(L, s, "autocast", set_autocast, pack(mode),
                       pack(nyx_context_autocast(s->ctx)));
}

/* nyx.is_autocast_enabled() */
static int is_autocast_enabled(lua_State *L) {
  lua_pushboolean(L, nyx_context_autocast(nyx__lua_state(L)->ctx).enabled);
  return 1;
}

/* nyx.system.autocast_mode(): the options that nyx.autocast would need to bring about
 * what is the case now. */
static int autocast_mode(lua_State *L) {
  nyx_autocast_mode mode = nyx_context_autocast(nyx__lua_state(L)->ctx);
  lua_createtable(L, 0, 3);
  lua_pushboolean(L, mode.enabled);
  lua_setfield(L, -2, "enabled");
  lua_pushstring(L, mode.dtype == NYX_FLOAT16 ? "float16" : "bfloat16");
  lua_setfield(L, -2, "dtype");
  if (mode.device) {
    lua_pushstring(L, nyx_device_name(mode.device));
    lua_setfield(L, -2, "device");
  }
  return 1;
}

/* ------------------------------------------------------------------ random numbers */

/* nyx.get_rng_state(): a string for nyx.set_rng_state, which brings the same numbers
 * again. */
static int get_rng_state(lua_State *L) {
  nyx_random_state state = nyx_context_random_state(nyx__lua_state(L)->ctx);
  char text[48];
  snprintf(text, sizeof text, "%016" PRIx64 ":%016" PRIx64, state.seed, state.next);
  lua_pushstring(L, text);
  return 1;
}

static int set_rng_state(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_random_state state;
  size_t length = 0;
  const char *text = lua_type(L, 1) == LUA_TSTRING ? lua_tolstring(L, 1, &length) : "";
  bool fits = length == 33 && text[16] == ':' && strspn(text, "0123456789abcdef") == 16 &&
              strspn(text + 17, "0123456789abcdef") == 16;
  if (!fits || sscanf(text, "%" SCNx64 ":%" SCNx64, &state.seed, &state.next) != 2)
    nyx__lua_bad_argument(L, s, 1, "set_rng_state", "state", "string of get_rng_state");
  nyx_context_set_random_state(s->ctx, state);
  return 0;
}

const luaL_Reg nyx__lua_context_functions[] = {
    {"autocast", autocast},
    {"is_autocast_enabled", is_autocast_enabled},
    {"get_rng_state", get_rng_state},
    {"set_rng_state", set_rng_state},
    {NULL, NULL}};

/* ------------------------------------------------------------------ the edge of a graph
 */

/* nyx.system.graph_now(): a number that nodes made later exceed. */
static int graph_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)nyx_graph_now());
  return 1;
}

/* A list of tensors at a stack index as an array, pushed as userdata. */
static nyx_tensor **read_list(lua_State *L, nyx__lua *s, int index, int *n) {
  luaL_checktype(L, index, LUA_TTABLE);
  *n = (int)lua_rawlen(L, index);
  size_t bytes = (size_t)(*n + 1) * sizeof(nyx_tensor *);
  nyx_tensor **list = (nyx_tensor **)nyx__lua_allocate(L, s, bytes);
  for (int i = 0; i < *n; i++) {
    lua_rawgeti(L, index, i + 1);
    list[i] = nyx__lua_check(L, s, lua_gettop(L), "checkpoint");
    lua_pop(L, 1);
  }
  return list;
}

/* Pushes a table of n empty boxes and room for their tensors. */
static nyx_tensor **push_boxes(lua_State *L, nyx__lua *s, int n) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    nyx__lua_push_box(L, s, NYX_LUA_META);
    lua_rawseti(L, -2, i + 1);
  }
  size_t bytes = (size_t)(n + 1) * sizeof(nyx_tensor *);
  return (nyx_tensor **)nyx__lua_allocate(L, s, bytes);
}

/* Fills the boxes of the table at the top of the stack: false where there is no tensor.
 * All get theirs before anything may be collected. */
static void fill_boxes(lua_State *L, nyx__lua *s, nyx_tensor *const *t, int n) {
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, -1, i + 1);
    nyx__lua_box(L, s, -1)->t = t[i];
    lua_pop(L, 1);
  }
  for (int i = 0; i < n; i++) {
    if (t[i]) {
      lua_rawgeti(L, -1, i + 1);
      nyx__lua_fill(s, nyx__lua_box(L, s, -1), t[i], true);
      lua_pop(L, 1);
    } else {
      lua_pushboolean(L, 0);
      lua_rawseti(L, -2, i + 1);
    }
  }
}

/* nyx.system.graph_inputs(roots, since, known): what the part of the roots' graph made
 * after `since` took from outside besides `known`, see nyx_graph_inputs. */
static int graph_inputs(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  uint64_t since = (uint64_t)luaL_checknumber(L, 2);
  int n, n_known, count;
  nyx_tensor **roots = read_list(L, s, 1, &n);
  nyx_tensor **known = read_list(L, s, 3, &n_known), **inputs = NULL;
  nyx__lua_try(
      L, s, nyx_graph_inputs(s->ctx, roots, n, since, known, n_known, NULL, 0, &count));
  inputs = push_boxes(L, s, count);
  nyx__lua_try(
      L, s,
      nyx_graph_inputs(s->ctx, roots, n, since, known, n_known, inputs, count, &count));
  lua_insert(L, -2); /* the room lies below the table */
  fill_boxes(L, s, inputs, count);
  return 1;
}

/* nyx.system.cut_grad(root, gradient, inputs, create_graph): d(root)/d(input) in a graph
 * that ends at the inputs; false where root does not depend on one. gradient may be nil.
 */
static int cut_grad(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  lua_settop(L, 4);
  int n;
  nyx_tensor **inputs = read_list(L, s, 3, &n);
  nyx_tensor **grads = push_boxes(L, s, n);
  lua_insert(L, -2);
  nyx_tensor *root = nyx__lua_check(L, s, 1, "checkpoint");
  nyx_tensor *seed = lua_isnil(L, 2) ? NULL : nyx__lua_check(L, s, 2, "checkpoint");
  const nyx_backward_options options = {.create_graph = lua_toboolean(L, 4), .cut = true};
  nyx__lua_try(L, s, nyx_gradients(s->ctx, root, seed, inputs, n, &options, grads));
  fill_boxes(L, s, grads, n);
  return 1;
}

/* nyx.system.forget_casts(): parameters are cast anew from here on. */
static int forget_casts(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_autocast_mode mode = nyx_context_autocast(s->ctx);
  nyx__lua_try(L, s, nyx_context_set_autocast(s->ctx, (nyx_autocast_mode){false}));
  nyx__lua_try(L, s, nyx_context_set_autocast(s->ctx, mode));
  return 0;
}

/* nyx.system.in_transform(): whether a jvp or vmap runs. */
static int in_transform(lua_State *L) {
  lua_pushboolean(L, nyx_transform_depth(nyx__lua_state(L)->ctx) > 0);
  return 1;
}

const luaL_Reg nyx__lua_checkpoint_functions[] = {{"autocast_mode", autocast_mode},
                                                  {"graph_now", graph_now},
                                                  {"graph_inputs", graph_inputs},
                                                  {"cut_grad", cut_grad},
                                                  {"forget_casts", forget_casts},
                                                  {"in_transform", in_transform},
                                                  {NULL, NULL}};
