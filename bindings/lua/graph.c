/* The graph in Lua: x.grad_fn, an object for the node that made x, with its inputs and
 * what it keeps. Read next: lua/nyx/graph.lua, core/grad/inspect.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "binding.h"

#define NODE_KEY "nyx.node" /* registry: the nodes' metatable */

static nyx_node *check_node(lua_State *L, int index) {
  nyx_node **node = (nyx_node **)luaL_checkudata(L, index, NODE_KEY);
  if (!*node) luaL_argerror(L, index, "the node was released");
  return *node;
}

/* A new node without contents. */
static nyx_node **push_node(lua_State *L) {
  nyx_node **node = (nyx_node **)lua_newuserdatauv(L, sizeof(nyx_node *), 0);
  *node = NULL;
  lua_getfield(L, LUA_REGISTRYINDEX, NODE_KEY);
  lua_setmetatable(L, -2);
  return node;
}

void nyx__lua_push_grad_fn(lua_State *L, nyx__lua *s, nyx_tensor *t) {
  nyx_node **node = push_node(L);
  nyx__lua_try(L, s, nyx_tensor_grad_node(s->ctx, t, node));
  if (*node) return;
  lua_pop(L, 1);
  lua_pushnil(L);
}

/* Sets shape and dtype of the table at the top of the stack. */
static void set_spec(lua_State *L, nyx_dtype dtype, int ndim, const int64_t *shape) {
  nyx__lua_push_ints(L, ndim, shape);
  lua_setfield(L, -2, "shape");
  lua_pushstring(L, nyx_dtype_name(dtype));
  lua_setfield(L, -2, "dtype");
}

/* node:inputs(): a list of what its gradients go to: {input, node, index} for output
 * `index` of another node, {input, leaf} for a tensor; each with shape and dtype. */
static int node_inputs(lua_State *L) {
  const nyx_node *node = check_node(L, 1);
  int count = 0;
  lua_newtable(L);
  for (int i = 0; i < nyx_node_input_count(node); i++) {
    nyx_node_edge edge = nyx_node_input(node, i);
    if (!edge.node && !edge.leaf) continue;
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, i + 1);
    lua_setfield(L, -2, "input");
    set_spec(L, edge.spec->dtype, edge.spec->ndim, edge.spec->shape);
    if (edge.node) {
      nyx_node **next = push_node(L);
      *next = nyx_node_retain(edge.node);
      lua_setfield(L, -2, "node");
      lua_pushinteger(L, edge.index + 1);
      lua_setfield(L, -2, "index");
    } else {
      nyx_lua_push_tensor(L, edge.leaf);
      lua_setfield(L, -2, "leaf");
    }
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

/* node:outputs(): a list of {shape, dtype}. */
static int node_outputs(lua_State *L) {
  const nyx_node *node = check_node(L, 1);
  lua_newtable(L);
  for (int i = 0; i < nyx_node_output_count(node); i++) {
    const nyx_spec *spec = nyx_node_output(node, i);
    lua_createtable(L, 0, 2);
    set_spec(L, spec->dtype, spec->ndim, spec->shape);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* node:saved(): a list of {what, shape, dtype, bytes}; empty once backward freed them. */
static int node_saved(lua_State *L) {
  const nyx_node *node = check_node(L, 1);
  int n_in = nyx_node_input_count(node), n_out = nyx_node_output_count(node), count = 0;
  lua_newtable(L);
  for (int i = 0; i < nyx_node_saved_count(node); i++) {
    nyx_spec spec;
    if (!nyx_node_saved(node, i, &spec)) continue;
    int64_t bytes = (int64_t)nyx_dtype_size(spec.dtype);
    for (int d = 0; d < spec.ndim; d++) bytes *= spec.shape[d];
    lua_createtable(L, 0, 4);
    const char *what = i < n_in ? "input" : i < n_in + n_out ? "output" : "saved";
    int number = i < n_in ? i : i < n_in + n_out ? i - n_in : i - n_in - n_out;
    lua_pushfstring(L, "%s %d", what, number + 1);
    lua_setfield(L, -2, "what");
    set_spec(L, spec.dtype, spec.ndim, spec.shape);
    lua_pushinteger(L, (lua_Integer)bytes);
    lua_setfield(L, -2, "bytes");
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

static const luaL_Reg node_methods[] = {{"inputs", node_inputs},
                                        {"outputs", node_outputs},
                                        {"saved", node_saved},
                                        {NULL, NULL}};

/* node.name, node.order, node.freed, and the methods, which are in the upvalue. */
static int node_index(lua_State *L) {
  const nyx_node *node = check_node(L, 1);
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (strcmp(key, "name") == 0) {
    lua_pushstring(L, nyx_node_name(node));
  } else if (strcmp(key, "order") == 0) {
    lua_pushinteger(L, (lua_Integer)nyx_node_order(node));
  } else if (strcmp(key, "freed") == 0) {
    lua_pushboolean(L, nyx_node_freed(node));
  } else {
    lua_settop(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
  }
  return 1;
}

/* Whether both are the same node; one may be something else. */
static int node_eq(lua_State *L) {
  lua_settop(L, 2);
  bool both = lua_getmetatable(L, 1) && lua_getmetatable(L, 2) && lua_rawequal(L, 3, 4);
  lua_pushboolean(L, both && check_node(L, 1) == check_node(L, 2));
  return 1;
}

static int node_tostring(lua_State *L) {
  const nyx_node *node = check_node(L, 1);
  char order[32];
  snprintf(order, sizeof order, "%" PRIu64, nyx_node_order(node));
  lua_pushfstring(L, "%s (nyx.Node %s)", nyx_node_name(node), order);
  return 1;
}

static int node_gc(lua_State *L) {
  nyx_node **node = (nyx_node **)luaL_checkudata(L, 1, NODE_KEY);
  nyx_node *held = *node;
  *node = NULL;
  nyx_node_release(held);
  return 0;
}

void nyx__lua_open_nodes(lua_State *L) {
  luaL_newmetatable(L, NODE_KEY);
  lua_newtable(L);
  for (const luaL_Reg *m = node_methods; m->name; m++) {
    lua_pushcfunction(L, m->func);
    lua_setfield(L, -2, m->name);
  }
  lua_pushcclosure(L, node_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, node_eq);
  lua_setfield(L, -2, "__eq");
  lua_pushcfunction(L, node_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushcfunction(L, node_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

/* nyx.system.tensor_id(x): a value that is the same for the same tensor, as a key. */
static int tensor_id(lua_State *L) {
  lua_pushlightuserdata(L, nyx__lua_check(L, nyx__lua_state(L), 1, "tensor_id"));
  return 1;
}

/* nyx.system.tensor_version(x): a number that changes when x is changed in place. */
static int tensor_version(lua_State *L) {
  const nyx_tensor *t = nyx__lua_check(L, nyx__lua_state(L), 1, "tensor_version");
  lua_pushinteger(L, (lua_Integer)nyx_tensor_version(t));
  return 1;
}

const luaL_Reg nyx__lua_graph_functions[] = {
    {"tensor_id", tensor_id}, {"tensor_version", tensor_version}, {NULL, NULL}};
