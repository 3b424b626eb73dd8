/* Gradients in Lua: x:backward, nyx.grad, x:detach, x:requires_grad_ and the gradient
 * mode. Read next: scope.c (nyx.no_grad), core/include/nyx/grad.h. */
#include <string.h>

#include "binding.h"

/* Reads {retain_graph, create_graph, gradient} at index; gives the gradient. */
static nyx_tensor *read_options(lua_State *L, nyx__lua *s, int index,
                                const char *function, nyx_backward_options *options) {
  nyx_tensor *seed = NULL;
  *options = (nyx_backward_options){0};
  if (lua_isnoneornil(L, index)) return NULL;
  if (lua_type(L, index) != LUA_TTABLE)
    nyx__lua_bad_argument(L, s, index, function, "options", "table");
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    bool is_flag = strcmp(name, "retain_graph") == 0 || strcmp(name, "create_graph") == 0;
    options->where_needed |= strcmp(name, "create_graph") == 0 &&
                             lua_type(L, -1) == LUA_TSTRING &&
                             strcmp(lua_tostring(L, -1), "needed") == 0;
    if (is_flag && !options->where_needed && !lua_isboolean(L, -1))
      nyx__lua_fail(L, "bad option '%s' to '%s' (boolean expected, got %s)", name,
                    function, nyx__lua_describe(L, s, -1));
    if (strcmp(name, "retain_graph") == 0)
      options->retain_graph = lua_toboolean(L, -1);
    else if (strcmp(name, "create_graph") == 0)
      options->create_graph = lua_toboolean(L, -1) && !options->where_needed;
    else if (strcmp(name, "gradient") == 0)
      seed = nyx__lua_check(L, s, -1, function); /* the options hold it */
    else
      nyx__lua_fail(L,
                    "%s: unknown option '%.40s'; known: gradient retain_graph "
                    "create_graph",
                    function, name);
  }
  return seed;
}

/* x:backward(gradient, {retain_graph, create_graph}); the gradient may be left out. */
static int tensor_backward(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "backward"), *seed = NULL;
  nyx_backward_options options;
  int last = lua_gettop(L);
  bool has_seed = last >= 2 && !lua_isnil(L, 2) && lua_type(L, 2) != LUA_TTABLE;
  if (has_seed) seed = nyx__lua_check(L, s, 2, "backward");
  int at = has_seed || lua_isnil(L, 2) ? 3 : 2;
  nyx_tensor *named = read_options(L, s, at, "backward", &options);
  if (named && seed)
    nyx__lua_fail(L, "backward: the gradient is given twice, by position and by name");
  if (named) seed = named;
  nyx_status status = nyx_backward_run(s->ctx, t, seed, &options);
  nyx__lua_callbacks_sweep(L, s);
  if (status == NYX_ERR_MEMORY) nyx__lua_collect(L, s);
  nyx__lua_try(L, s, status);
  return 0;
}

/* The i-th (from 0) of the inputs at stack index 2. */
static nyx_tensor *input_at(lua_State *L, nyx__lua *s, int i) {
  bool single = lua_type(L, 2) != LUA_TTABLE;
  if (single)
    lua_pushvalue(L, 2);
  else
    lua_rawgeti(L, 2, i + 1);
  nyx__box *box = nyx__lua_box(L, s, -1);
  if (!box && single) nyx__lua_bad_argument(L, s, 2, "grad", "inputs", "tensor or table");
  if (!box)
    nyx__lua_fail(L, "grad: element %d of the inputs is %s, expected a tensor", i + 1,
                  nyx__lua_describe(L, s, -1));
  if (!box->t)
    nyx__lua_fail(L, "grad: input %d is a released tensor; keep it until then", i + 1);
  if (!nyx_tensor_requires_grad(box->t))
    nyx__lua_fail(
        L,
        "grad: input %d is %s that requires no gradient; call requires_grad_() on "
        "it before the computation",
        i + 1, nyx__lua_describe(L, s, -1));
  lua_pop(L, 1);
  return box->t;
}

/* nyx.grad(root, inputs, {gradient, retain_graph, create_graph}): d(root)/d(input) for a
 * tensor or a table of tensors that require gradients; nil where root does not depend on
 * it. create_graph = "needed" records the pass if root depends on other variables, too.
 */
static int gradients(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  bool single = lua_type(L, 2) != LUA_TTABLE;
  int n = single ? 1 : (int)lua_rawlen(L, 2);
  lua_settop(L, 3);
  /* All of Lua's memory first: nothing may be finalised while tensors are borrowed. */
  size_t bytes = (size_t)(2 * n + 1) * sizeof(nyx_tensor *);
  nyx_tensor **in = (nyx_tensor **)lua_newuserdatauv(L, bytes, 0), **out = in + n;
  lua_createtable(L, n, 0);
  int result = lua_gettop(L);
  for (int i = 0; i < n; i++) {
    nyx__lua_push_box(L, s, NYX_LUA_META);
    lua_rawseti(L, result, i + 1);
  }
  nyx_backward_options options;
  nyx_tensor *root = nyx__lua_check(L, s, 1, "grad");
  nyx_tensor *seed = read_options(L, s, 3, "grad", &options);
  for (int i = 0; i < n; i++) {
    in[i] = input_at(L, s, i);
    out[i] = NULL;
  }
  nyx_status status = nyx_gradients(s->ctx, root, seed, in, n, &options, out);
  nyx__lua_callbacks_sweep(L, s);
  nyx__lua_try(L, s, status);
  for (int i = 0; i < n; i++) { /* first all get their tensor, then they are counted */
    lua_rawgeti(L, result, i + 1);
    nyx__lua_box(L, s, -1)->t = out[i];
    lua_pop(L, 1);
  }
  for (int i = 0; i < n; i++) {
    if (out[i]) {
      lua_rawgeti(L, result, i + 1);
      nyx__lua_fill(s, nyx__lua_box(L, s, -1), out[i], true);
      lua_pop(L, 1);
    } else {
      lua_pushnil(L);
      lua_rawseti(L, result, i + 1);
    }
  }
  if (single) lua_rawgeti(L, result, 1);
  return 1;
}

static int tensor_detach(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "detach"), *plain = NULL;
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx__lua_try(L, s, nyx_tensor_detach(s->ctx, t, &plain));
  nyx__lua_fill(s, box, plain, false);
  return 1;
}

/* x:requires_grad_(on): on is true when left out; gives x. */
static int tensor_requires_grad(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "requires_grad_");
  if (!lua_isnoneornil(L, 2) && !lua_isboolean(L, 2))
    nyx__lua_bad_argument(L, s, 2, "requires_grad_", "on", "boolean");
  bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
  nyx__lua_try(L, s, nyx_tensor_set_requires_grad(s->ctx, t, on));
  lua_settop(L, 1);
  return 1;
}

static int tensor_zero_grad(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "zero_grad");
  nyx__lua_set_grad(L, s, t, NULL);
  return 0;
}

/* x:is_inference(): whether it was made in inference mode. */
static int tensor_is_inference(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  lua_pushboolean(L, nyx_tensor_is_inference(nyx__lua_check(L, s, 1, "is_inference")));
  return 1;
}

const luaL_Reg nyx__lua_grad_methods[] = {
    {"backward", tensor_backward},   {"is_inference", tensor_is_inference},
    {"detach", tensor_detach},       {"requires_grad_", tensor_requires_grad},
    {"zero_grad", tensor_zero_grad}, {NULL, NULL}};

static int is_grad_enabled(lua_State *L) {
  lua_pushboolean(L, nyx_context_grad_enabled(nyx__lua_state(L)->ctx));
  return 1;
}

static int is_inference_mode_enabled(lua_State *L) {
  lua_pushboolean(L, nyx_context_inference(nyx__lua_state(L)->ctx));
  return 1;
}

static int set_grad_enabled(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  if (!lua_isboolean(L, 1))
    nyx__lua_bad_argument(L, s, 1, "set_grad_enabled", "on", "boolean");
  nyx_context_set_grad_enabled(s->ctx, lua_toboolean(L, 1));
  return 0;
}

const luaL_Reg nyx__lua_grad_functions[] = {
    {"grad", gradients},
    {"is_grad_enabled", is_grad_enabled},
    {"is_inference_mode_enabled", is_inference_mode_enabled},
    {"set_grad_enabled", set_grad_enabled},
    {NULL, NULL}};
