/* nyx.lift: what lua/nyx/func.lua builds jvp and vmap from. A level is a number that
 * scope.c's dual_level and batch_level give to the function they run. Read next:
 * core/include/nyx/transform.h, lua/nyx/func.lua. */
#include "binding.h"

static nyx_level level_at(lua_State *L, nyx__lua *s, int index, const char *function) {
  if (!lua_isnumber(L, index))
    nyx__lua_bad_argument(L, s, index, function, "level", "number");
  return (nyx_level)lua_tonumber(L, index);
}

/* A dimension, from 1 or negative. */
static int64_t dim_at(lua_State *L, nyx__lua *s, int index, const char *function) {
  double dim = lua_tonumber(L, index);
  if (!lua_isnumber(L, index) || dim != (double)(int)dim || dim == 0)
    nyx__lua_bad_argument(L, s, index, function, "dim", "dimension");
  return (int64_t)dim - (dim > 0);
}

typedef nyx_status (*lift_pair)(nyx_context *, nyx_level, nyx_tensor *, nyx_tensor *,
                                nyx_tensor **);

static int pair(lua_State *L, lift_pair fn, const char *function) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_level level = level_at(L, s, 1, function);
  nyx_tensor *first = nyx__lua_check(L, s, 2, function);
  nyx_tensor *second = nyx__lua_check(L, s, 3, function), *out = NULL;
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx__lua_try(L, s, fn(s->ctx, level, first, second, &out));
  nyx__lua_fill(s, box, out, false);
  return 1;
}

/* dual(level, value, tangent) */
static int dual(lua_State *L) {
  return pair(L, nyx_dual_lift, "jvp");
}

/* complex(level, real, imaginary) */
static int complex_number(lua_State *L) {
  return pair(L, nyx_complex_lift, "complex step");
}

typedef nyx_status (*lower_pair)(nyx_context *, nyx_level, nyx_tensor *, nyx_tensor **,
                                 nyx_tensor **);

static int both_parts(lua_State *L, lower_pair fn, const char *function) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_level level = level_at(L, s, 1, function);
  nyx_tensor *t = nyx__lua_check(L, s, 2, function), *value = NULL, *tangent = NULL;
  nyx__box *first = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx__box *second = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx__lua_try(L, s, fn(s->ctx, level, t, &value, &tangent));
  first->t = value; /* both have their box before anything may be collected */
  second->t = tangent;
  nyx__lua_fill(s, first, value, false);
  if (tangent) {
    nyx__lua_fill(s, second, tangent, false);
  } else {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  return 2;
}

/* parts(level, t): the value and the tangent, nil where that is zero. */
static int parts(lua_State *L) {
  return both_parts(L, nyx_dual_lower, "jvp");
}

/* complex_parts(level, t): the real and the imaginary part, nil where that is zero. */
static int complex_parts(lua_State *L) {
  return both_parts(L, nyx_complex_lower, "complex step");
}

typedef nyx_status (*change)(nyx_context *, nyx_level, nyx_tensor *, int64_t,
                             nyx_tensor **);

static int batch_change(lua_State *L, change fn, const char *function) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_level level = level_at(L, s, 1, function);
  nyx_tensor *t = nyx__lua_check(L, s, 2, function), *out = NULL;
  int64_t dim = dim_at(L, s, 3, function);
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx__lua_try(L, s, fn(s->ctx, level, t, dim, &out));
  nyx__lua_fill(s, box, out, false);
  return 1;
}

/* entries(level, t, dim): t's entries along a dimension, as one tensor at the level. */
static int entries(lua_State *L) {
  return batch_change(L, nyx_batch_lift, "vmap");
}

/* join(level, t, dim): the tensor of all entries. */
static int join(lua_State *L) {
  return batch_change(L, nyx_batch_lower, "vmap");
}

/* variable(t): see nyx_transform_variable. */
static int variable(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "grad"), *out = NULL;
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx__lua_try(L, s, nyx_transform_variable(s->ctx, t, &out));
  nyx__lua_fill(s, box, out, false);
  return 1;
}

/* result(t, variables): see nyx_transform_result. */
static int result(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "result"), *out = NULL;
  int n = (int)lua_rawlen(L, 2);
  nyx_tensor **variables =
      (nyx_tensor **)lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *variables, 0);
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, 2, i + 1);
    variables[i] = nyx__lua_check(L, s, -1, "result");
    lua_pop(L, 1);
  }
  nyx__lua_try(L, s, nyx_transform_result(s->ctx, t, variables, n, &out));
  nyx__lua_fill(s, box, out, false);
  return 1;
}

static int is_lifted(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  lua_pushboolean(L, nyx_tensor_is_lifted(nyx__lua_check(L, s, 1, "is_lifted")));
  return 1;
}

/* has_level(level, t): whether t is lifted to that level. */
static int has_level(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_level level = level_at(L, s, 1, "has_level");
  lua_pushboolean(L, nyx_tensor_has_level(nyx__lua_check(L, s, 2, "has_level"), level));
  return 1;
}

/* exchange(a, b): the userdata exchange their tensors, so that whoever holds one, such as
 * a module its parameter, finds the other there. */
static int exchange(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__lua_check(L, s, 1, "exchange");
  nyx__lua_check(L, s, 2, "exchange");
  nyx__box *a = nyx__lua_box(L, s, 1), *b = nyx__lua_box(L, s, 2);
  nyx_tensor *t = a->t;
  size_t bytes = a->bytes;
  a->t = b->t;
  a->bytes = b->bytes;
  b->t = t;
  b->bytes = bytes;
  return 0;
}

const luaL_Reg nyx__lua_lift_functions[] = {{"dual", dual},
                                            {"parts", parts},
                                            {"entries", entries},
                                            {"join", join},
                                            {"variable", variable},
                                            {"result", result},
                                            {"is_lifted", is_lifted},
                                            {"complex", complex_number},
                                            {"complex_parts", complex_parts},
                                            {"exchange", exchange},
                                            {"has_level", has_level},
                                            {NULL, NULL}};
