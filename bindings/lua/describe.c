/* The op table as Lua tables: nyx.ops() and nyx.op(name), which the help, the reference
 * and the specs read. Read next: core/include/nyx/op.h, lua/nyx/help.lua. */
#include <string.h>

#include "binding.h"

static const char *kind_name(nyx_op_kind kind) {
  switch (kind) {
    case NYX_OP_ELEMENTWISE: return "elementwise";
    case NYX_OP_REDUCTION: return "reduction";
    case NYX_OP_VIEW: return "view";
    case NYX_OP_STRUCTURAL: return "structural";
    case NYX_OP_PORTABLE: return "portable";
    case NYX_OP_COMPOSITE: return "composite";
  }
  return "?";
}

static const char *promotion_name(nyx_promotion promotion) {
  switch (promotion) {
    case NYX_PROMOTE_NONE: return "none";
    case NYX_PROMOTE_COMMON: return "common";
    case NYX_PROMOTE_FLOAT: return "float";
  }
  return "?";
}

static const char *autocast_name(nyx_autocast autocast) {
  switch (autocast) {
    case NYX_AUTOCAST_NONE: return "none";
    case NYX_AUTOCAST_LOW: return "low";
    case NYX_AUTOCAST_FLOAT32: return "float32";
  }
  return "?";
}

static const char *type_name(nyx_attr_type type) {
  switch (type) {
    case NYX_ATTR_INT: return "int";
    case NYX_ATTR_FLOAT: return "float";
    case NYX_ATTR_BOOL: return "bool";
    case NYX_ATTR_INTS: return "ints";
    case NYX_ATTR_DIM: return "dim";
    case NYX_ATTR_DIMS: return "dims";
    case NYX_ATTR_INDEX: return "index";
    case NYX_ATTR_STRING: return "string";
    case NYX_ATTR_DTYPE: return "dtype";
  }
  return "?";
}

static void set_string(lua_State *L, const char *field, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, field);
}

static void set_bool(lua_State *L, const char *field, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, field);
}

static void set_integer(lua_State *L, const char *field, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, field);
}

/* A preset as Lua would write it: dimensions and positions from 1. */
static void push_preset(lua_State *L, const nyx_attr *attr) {
  const nyx_value *v = &attr->preset;
  switch (attr->type) {
    case NYX_ATTR_FLOAT: lua_pushnumber(L, v->f); break;
    case NYX_ATTR_BOOL: lua_pushboolean(L, v->i != 0); break;
    case NYX_ATTR_INT: lua_pushinteger(L, (lua_Integer)v->i); break;
    case NYX_ATTR_DIM:
    case NYX_ATTR_INDEX: lua_pushinteger(L, (lua_Integer)(v->i + (v->i >= 0))); break;
    case NYX_ATTR_STRING: lua_pushstring(L, v->s); break;
    case NYX_ATTR_DTYPE: lua_pushstring(L, nyx_dtype_name((nyx_dtype)v->i)); break;
    case NYX_ATTR_INTS:
    case NYX_ATTR_DIMS:
      lua_createtable(L, v->n, 0);
      for (int i = 0; i < v->n; i++) {
        int64_t one = attr->type == NYX_ATTR_DIMS && v->list[i] >= 0;
        lua_pushinteger(L, (lua_Integer)(v->list[i] + one));
        lua_rawseti(L, -2, i + 1);
      }
      break;
  }
}

static void push_inputs(lua_State *L, const nyx_op *op) {
  lua_newtable(L);
  const char *p = op->inputs ? op->inputs : "";
  for (int i = 0; *p; i++) {
    size_t length = strcspn(p, " ");
    lua_newtable(L);
    lua_pushlstring(L, p, length);
    lua_setfield(L, -2, "name");
    set_bool(L, "optional", !op->variadic && i >= op->min_in);
    set_bool(L, "positions", i < 32 && (op->index_in & NYX_SAVE(i)) != 0);
    set_bool(L, "state", i < 32 && (op->state_in & NYX_SAVE(i)) != 0);
    lua_rawseti(L, -2, i + 1);
    p += length;
    p += strspn(p, " ");
  }
}

static void push_attrs(lua_State *L, const nyx_op *op) {
  lua_createtable(L, op->n_attrs, 0);
  for (int i = 0; i < op->n_attrs; i++) {
    const nyx_attr *attr = &op->attrs[i];
    lua_newtable(L);
    set_string(L, "name", attr->name);
    set_string(L, "type", type_name(attr->type));
    set_string(L, "doc", attr->doc);
    set_bool(L, "required", attr->required);
    if (attr->preset.given) {
      push_preset(L, attr);
      lua_setfield(L, -2, "preset");
    }
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_dtypes(lua_State *L, uint32_t set) {
  if (!set) set = NYX_DTYPES_ALL;
  lua_newtable(L);
  for (int d = 0, n = 0; d < NYX_DTYPE_COUNT; d++) {
    if (!(set & NYX_DTYPES(d))) continue;
    lua_pushstring(L, nyx_dtype_name((nyx_dtype)d));
    lua_rawseti(L, -2, ++n);
  }
}

/* The texts of an elementwise row: `text`, and `gradients`, false where there is none. */
static void push_texts(lua_State *L, const nyx_op *op) {
  const char *text = nyx_op_text(op, 0);
  if (!text) return;
  set_string(L, "text", text);
  lua_createtable(L, op->max_in, 0);
  for (int i = 1; i <= op->max_in; i++) {
    text = nyx_op_text(op, i);
    if (text)
      lua_pushstring(L, text);
    else
      lua_pushboolean(L, false);
    lua_rawseti(L, -2, i);
  }
  lua_setfield(L, -2, "gradients");
}

static void push_op(lua_State *L, const nyx_op *op) {
  lua_createtable(L, 0, 22);
  set_string(L, "name", op->name);
  set_string(L, "group", op->group);
  set_string(L, "doc", op->doc);
  set_string(L, "kind", kind_name(op->kind));
  set_string(L, "promotion", promotion_name(op->promotion));
  set_string(L, "autocast", autocast_name(op->autocast));
  set_string(L, "cases", op->cases);
  set_integer(L, "min_inputs", op->min_in);
  set_integer(L, "max_inputs", op->variadic ? NYX_MAX_INPUTS : op->max_in);
  set_integer(L, "outputs", op->n_out);
  set_bool(L, "variadic", op->variadic);
  set_bool(L, "updates", op->updates);
  set_bool(L, "differentiable", op->gradient != NULL);
  set_bool(L, "no_gradient", op->no_gradient);
  push_dtypes(L, op->dtypes);
  lua_setfield(L, -2, "dtypes");
  push_inputs(L, op);
  lua_setfield(L, -2, "inputs");
  push_attrs(L, op);
  lua_setfield(L, -2, "attrs");
  push_texts(L, op);
  if (op->domain[0] < op->domain[1]) {
    lua_createtable(L, 2, 0);
    for (int i = 0; i < 2; i++) {
      lua_pushnumber(L, op->domain[i]);
      lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "domain");
  }
}

static int next_op(lua_State *L) {
  int i = (int)lua_tointeger(L, lua_upvalueindex(1));
  const nyx_op *op = nyx_op_at(i);
  if (!op) return 0;
  lua_pushinteger(L, i + 1);
  lua_replace(L, lua_upvalueindex(1));
  push_op(L, op);
  return 1;
}

/* for op in nyx.ops() do: a description of every op, in the order of the table. */
static int ops(lua_State *L) {
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, next_op, 1);
  return 1;
}

/* nyx.op(name): the description of one op; nil when there is none. */
static int op(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING)
    nyx__lua_bad_argument(L, nyx__lua_state(L), 1, "op", "name", "string");
  const nyx_op *found = nyx_op_find(lua_tostring(L, 1));
  if (found)
    push_op(L, found);
  else
    lua_pushnil(L);
  return 1;
}

const luaL_Reg nyx__lua_describe_functions[] = {{"ops", ops}, {"op", op}, {NULL, NULL}};
