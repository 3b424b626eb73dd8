/* One generic C function serves every op of the table, as nyx.<op>(...), x:<op>(...) and
 * x:<op>_(...). It reads Lua arguments by the op's own description, applies the op and
 * boxes the results. Read next: core/include/nyx/op.h, tensor.c. */
#include <stdio.h>
#include <string.h>

#include "binding.h"

#define MAX_INTS 256  /* numbers in all lists of one call */
#define MAX_NUMBERS 4 /* numbers given for tensors */

typedef struct arguments {
  lua_State *L;
  nyx__lua *s;
  const nyx_op *op;
  nyx_tensor *in[NYX_MAX_INPUTS];
  int n_in;
  int self; /* stack index of the first input */
  nyx_value attr[NYX_MAX_ATTRS];
  int64_t ints[MAX_INTS];
  int n_ints;
  struct number {
    int input;
    double value;
    nyx_dtype dtype;
  } number[MAX_NUMBERS];
  int n_numbers;
  int out;    /* stack index of the tensor to write to, 0: none */
  int device; /* stack index of a device name, 0: none */
  bool requires_grad;
} arguments;

/* ------------------------------------------------------------------ errors */

/* The i-th of names separated by blanks. */
static const char *input_name(const nyx_op *op, int i, char *buffer, size_t size) {
  const char *p = op->inputs;
  while (i-- > 0 && *p) {
    p += strcspn(p, " ");
    p += strspn(p, " ");
  }
  snprintf(buffer, size, "%.*s", (int)strcspn(p, " "), *p ? p : "");
  return buffer;
}

/* "cat({tensors}, dim)": how the op is called. */
static const char *usage(const nyx_op *op, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "%s(", op->name);
  char name[40];
  const char *comma = "";
  for (int i = 0; i < (op->variadic ? 1 : op->max_in) && used < size; i++) {
    input_name(op, i, name, sizeof name);
    used += (size_t)snprintf(text + used, size - used, op->variadic ? "%s{%s}" : "%s%s",
                             comma, name);
    comma = ", ";
  }
  for (int i = 0; i < op->n_attrs && used < size; i++) {
    used += (size_t)snprintf(text + used, size - used, "%s%s", comma, op->attrs[i].name);
    comma = ", ";
  }
  if (used < size) snprintf(text + used, size - used, ")");
  return text;
}

/* A value that does not fit; argument > 0: its position, 0: it came by name. */
static _Noreturn void bad_value(arguments *a, int argument, const char *name,
                                const char *expected, int index) {
  lua_State *L = a->L;
  char text[200];
  index = lua_absindex(L, index);
  const char *got = nyx__lua_describe(L, a->s, index);
  usage(a->op, text, sizeof text);
  if (!argument)
    nyx__lua_fail(L, "bad option '%s' to '%s' (%s expected, got %s); usage: %s", name,
                  a->op->name, expected, got, text);
  int number = argument - nyx__lua_is_method(L);
  if (number == 0)
    nyx__lua_fail(L, "calling '%s' on a bad self (%s expected, got %s); usage: %s",
                  a->op->name, expected, got, text);
  nyx__lua_fail(L, "bad argument #%d '%s' to '%s' (%s expected, got %s); usage: %s",
                number, name, a->op->name, expected, got, text);
}

static const char *expected_of(nyx_attr_type type) {
  switch (type) {
    case NYX_ATTR_INT: return "integer";
    case NYX_ATTR_FLOAT: return "number";
    case NYX_ATTR_BOOL: return "boolean";
    case NYX_ATTR_INTS: return "integer or table of integers";
    case NYX_ATTR_DIM: return "dimension";
    case NYX_ATTR_DIMS: return "dimension or table of dimensions";
    case NYX_ATTR_INDEX: return "position";
    case NYX_ATTR_STRING: return "string";
    case NYX_ATTR_DTYPE: return "name of a dtype";
  }
  return "value";
}

/* ------------------------------------------------------------------ attributes */

static bool is_list(nyx_attr_type type) {
  return type == NYX_ATTR_INTS || type == NYX_ATTR_DIMS;
}

static bool is_numeric(nyx_attr_type type) {
  return type != NYX_ATTR_BOOL && type != NYX_ATTR_STRING && type != NYX_ATTR_DTYPE;
}

/* Dimensions and positions count from 1 in Lua. */
static int64_t from_one(arguments *a, const nyx_attr *attr, int64_t value) {
  if (attr->type != NYX_ATTR_DIM && attr->type != NYX_ATTR_DIMS &&
      attr->type != NYX_ATTR_INDEX)
    return value;
  if (value == 0)
    nyx__lua_fail(a->L, "%s: '%s' is 0; %s count from 1, from the end with -1",
                  a->op->name, attr->name,
                  attr->type == NYX_ATTR_INDEX ? "positions" : "dimensions");
  return value > 0 ? value - 1 : value;
}

static void list_too_long(arguments *a, const nyx_attr *attr) {
  nyx__lua_fail(a->L, "%s: the list '%s' is too long; at most %d numbers are allowed",
                a->op->name, attr->name, MAX_INTS);
}

/* Reads the table at index into a list; argument as in bad_value. */
static void read_list(arguments *a, const nyx_attr *attr, nyx_value *value, int index,
                      int argument) {
  lua_State *L = a->L;
  int64_t *list = a->ints + a->n_ints;
  size_t n = lua_rawlen(L, index);
  if (n > (size_t)(MAX_INTS - a->n_ints)) list_too_long(a, attr);
  for (int i = 0; i < (int)n; i++) {
    lua_rawgeti(L, index, i + 1);
    if (lua_type(L, -1) != LUA_TNUMBER || !nyx__lua_integer(L, -1, &list[i])) {
      char expected[64];
      snprintf(expected, sizeof expected, "%s as element %d",
               attr->type == NYX_ATTR_DIMS ? "dimension" : "integer", i + 1);
      bad_value(a, argument, attr->name, expected, -1);
    }
    list[i] = from_one(a, attr, list[i]);
    lua_pop(L, 1);
  }
  a->n_ints += (int)n;
  *value = NYX_LIST(list, (int)n);
}

/* Reads `count` numbers from the stack into a list. */
static void read_numbers(arguments *a, const nyx_attr *attr, nyx_value *value, int index,
                         int count, int argument) {
  int64_t *list = a->ints + a->n_ints;
  if (count > MAX_INTS - a->n_ints) list_too_long(a, attr);
  for (int i = 0; i < count; i++) {
    if (!nyx__lua_integer(a->L, index + i, &list[i]))
      bad_value(a, argument ? argument + i : 0, attr->name, expected_of(attr->type),
                index + i);
    list[i] = from_one(a, attr, list[i]);
  }
  a->n_ints += count;
  *value = NYX_LIST(list, count);
}

/* Reads the value at index; argument as in bad_value. */
static void read_attr(arguments *a, int which, int index, int argument) {
  lua_State *L = a->L;
  const nyx_attr *attr = &a->op->attrs[which];
  nyx_value *value = &a->attr[which];
  int type = lua_type(L, index);
  if (value->given)
    nyx__lua_fail(L, "%s: '%s' is given twice, by position and by name", a->op->name,
                  attr->name);
  bool fits = false;
  int64_t i;
  switch (attr->type) {
    case NYX_ATTR_INT:
    case NYX_ATTR_DIM:
    case NYX_ATTR_INDEX:
      fits = type == LUA_TNUMBER && nyx__lua_integer(L, index, &i);
      if (fits) *value = NYX_I(from_one(a, attr, i));
      break;
    case NYX_ATTR_FLOAT:
      fits = type == LUA_TNUMBER;
      if (fits) *value = NYX_F(lua_tonumber(L, index));
      break;
    case NYX_ATTR_BOOL:
      fits = type == LUA_TBOOLEAN;
      if (fits) *value = NYX_I(lua_toboolean(L, index));
      break;
    case NYX_ATTR_INTS:
    case NYX_ATTR_DIMS:
      fits = type == LUA_TTABLE || type == LUA_TNUMBER;
      if (type == LUA_TTABLE)
        read_list(a, attr, value, index, argument);
      else if (fits)
        read_numbers(a, attr, value, index, 1, argument);
      break;
    case NYX_ATTR_STRING:
      fits = type == LUA_TSTRING;
      if (fits) *value = NYX_S(lua_tostring(L, index));
      break;
    case NYX_ATTR_DTYPE:
      fits = type == LUA_TSTRING;
      if (fits) *value = NYX_I(nyx__lua_dtype(L, a->s, index, a->op->name, attr->name));
      break;
  }
  if (!fits) bad_value(a, argument, attr->name, expected_of(attr->type), index);
}

/* ------------------------------------------------------------------ the options table */

/* Whether the table at index has a string key. */
static bool has_names(lua_State *L, int index) {
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    lua_pop(L, 2);
    return true;
  }
  return false;
}

static _Noreturn void unknown_option(arguments *a, const char *name) {
  char known[400] = "", one[40];
  size_t used = 0;
  const nyx_op *op = a->op;
  for (int i = op->min_in; !op->variadic && i < op->max_in && used < sizeof known; i++)
    used += (size_t)snprintf(known + used, sizeof known - used, "%s ",
                             input_name(op, i, one, sizeof one));
  for (int i = 0; i < op->n_attrs && used < sizeof known; i++)
    used += (size_t)snprintf(known + used, sizeof known - used, "%s ", op->attrs[i].name);
  if (used < sizeof known)
    snprintf(known + used, sizeof known - used, "%s",
             op->max_in == 0 ? "device requires_grad out" : "out");
  nyx__lua_fail(a->L, "%s: unknown option '%.40s'; known: %s", op->name, name, known);
}

static nyx_tensor *tensor_option(arguments *a, const char *name) {
  nyx__box *box = nyx__lua_box(a->L, a->s, -1);
  if (!box) bad_value(a, 0, name, "tensor", -1);
  return nyx__lua_check(a->L, a->s, -1, a->op->name);
}

/* The option at the top of the stack. True: it will stay on the stack, one below. */
static bool read_option(arguments *a, const char *name) {
  lua_State *L = a->L;
  const nyx_op *op = a->op;
  char input[40];
  for (int i = 0; i < op->n_attrs; i++)
    if (strcmp(name, op->attrs[i].name) == 0) {
      read_attr(a, i, lua_gettop(L), 0);
      return false;
    }
  for (int i = op->min_in; !op->variadic && i < op->max_in; i++)
    if (strcmp(name, input_name(op, i, input, sizeof input)) == 0) {
      if (i < a->n_in && a->in[i])
        nyx__lua_fail(L, "%s: '%s' is given twice, by position and by name", op->name,
                      name);
      while (a->n_in <= i) a->in[a->n_in++] = NULL;
      a->in[i] = tensor_option(a, name);
      return false;
    }
  if (strcmp(name, "out") == 0) {
    tensor_option(a, name);
    if (a->out) nyx__lua_fail(L, "%s: an in-place call has no option 'out'", op->name);
    a->out = lua_gettop(L) - 1;
    return true;
  }
  if (op->max_in == 0 && strcmp(name, "device") == 0) {
    if (lua_type(L, -1) != LUA_TSTRING) bad_value(a, 0, name, "name of a device", -1);
    a->device = lua_gettop(L) - 1;
    return true;
  }
  if (op->max_in == 0 && strcmp(name, "requires_grad") == 0) {
    if (!lua_isboolean(L, -1)) bad_value(a, 0, name, "boolean", -1);
    a->requires_grad = lua_toboolean(L, -1);
    return false;
  }
  unknown_option(a, name);
}

static void read_options(arguments *a, int index) {
  lua_State *L = a->L;
  luaL_checkstack(L, 8, "options");
  lua_pushnil(L);
  while (lua_next(L, index)) {
    if (lua_type(L, -2) == LUA_TSTRING && read_option(a, lua_tostring(L, -2))) {
      lua_insert(L, -2); /* the value stays, lua_next takes the key */
      continue;
    }
    if (lua_type(L, -2) != LUA_TSTRING && lua_type(L, -2) != LUA_TNUMBER)
      unknown_option(a, luaL_typename(L, -2));
    lua_pop(L, 1);
  }
}

/* ------------------------------------------------------------------ positional arguments
 */

/* A number or boolean where a tensor is expected. */
static void take_number(arguments *a, int index) {
  lua_State *L = a->L;
  if (a->n_numbers == MAX_NUMBERS)
    nyx__lua_fail(L, "%s: at most %d tensors may be given as numbers", a->op->name,
                  MAX_NUMBERS);
  struct number *number = &a->number[a->n_numbers++];
  int64_t i;
  number->input = a->n_in;
  if (lua_type(L, index) == LUA_TBOOLEAN) {
    number->value = lua_toboolean(L, index);
    number->dtype = NYX_BOOL;
  } else {
    number->value = lua_tonumber(L, index);
    number->dtype = nyx__lua_integer(L, index, &i) ? NYX_INT64 : NYX_FLOAT64;
  }
  a->in[a->n_in++] = NULL;
}

static bool tensor_after(arguments *a, int index, int n) {
  while (++index <= n)
    if (nyx__lua_box(a->L, a->s, index)) return true;
  return false;
}

/* Whether the value at index can stand for the next input: a number for a tensor. Rows
 * take numbers anywhere; other ops not as what they change or view, and not where a
 * tensor follows: in x:gather(1, index) the number is the dimension. */
static bool stands_for_tensor(arguments *a, int index, int n) {
  int type = lua_type(a->L, index);
  if (a->n_in >= a->op->min_in || (type != LUA_TNUMBER && type != LUA_TBOOLEAN))
    return false;
  if (a->op->kind == NYX_OP_ELEMENTWISE) return true;
  return a->n_in > 0 && !tensor_after(a, index, n);
}

static int take_list_inputs(arguments *a) {
  lua_State *L = a->L;
  if (lua_type(L, 1) != LUA_TTABLE) {
    if (!nyx__lua_box(L, a->s, 1)) bad_value(a, 1, "tensors", "table of tensors", 1);
    return 1;
  }
  size_t n = lua_rawlen(L, 1);
  if (n > NYX_MAX_INPUTS)
    nyx__lua_fail(L, "%s: %d tensors at once, at most %d are allowed", a->op->name,
                  (int)n, NYX_MAX_INPUTS);
  for (int i = 1; i <= (int)n; i++) {
    lua_rawgeti(L, 1, i);
    nyx__box *box = nyx__lua_box(L, a->s, -1);
    if (!box || !box->t)
      nyx__lua_fail(L, "%s: element %d of the table is %s, expected a tensor",
                    a->op->name, i, nyx__lua_describe(L, a->s, -1));
    a->in[a->n_in++] = box->t;
    lua_pop(L, 1); /* the table holds it */
  }
  return 2;
}

/* How many arguments from index on the list attribute takes: all numbers, unless a later
 * attribute may want one. */
static int list_length(arguments *a, int which, int index, int n) {
  const nyx_op *op = a->op;
  int count = 1;
  if (index == n || lua_type(a->L, index + 1) != LUA_TNUMBER) return 1;
  for (int i = which + 1; i < op->n_attrs; i++)
    if (is_numeric(op->attrs[i].type) && (op->max_in > 0 || op->attrs[i].required))
      return 1;
  while (index + count <= n && lua_type(a->L, index + count) == LUA_TNUMBER) count++;
  return count;
}

/* An input is missing and this argument is not one. */
static _Noreturn void missing_input(arguments *a, int index) {
  char name[40];
  input_name(a->op, a->n_in, name, sizeof name);
  bad_value(a, index, name,
            a->op->kind == NYX_OP_ELEMENTWISE ? "tensor or number" : "tensor", index);
}

/* The value at index is for attribute `which`; gives how many arguments were used. */
static int take_attr(arguments *a, int which, int index, int n) {
  lua_State *L = a->L;
  const nyx_op *op = a->op;
  if (a->n_in < op->min_in && !tensor_after(a, index, n)) missing_input(a, index);
  if (which >= op->n_attrs) {
    char text[200];
    nyx__lua_fail(L, "too many arguments to '%s': argument %d is %s; usage: %s", op->name,
                  index - nyx__lua_is_method(L), nyx__lua_describe(L, a->s, index),
                  usage(op, text, sizeof text));
  }
  const nyx_attr *attr = &op->attrs[which];
  if (is_list(attr->type) && lua_type(L, index) == LUA_TNUMBER) {
    int count = list_length(a, which, index, n);
    read_numbers(a, attr, &a->attr[which], index, count, index);
    return count;
  }
  read_attr(a, which, index, index);
  return 1;
}

/* Whether the last argument, a table, holds options rather than a list. */
static bool is_options(arguments *a, int which, int index) {
  const nyx_op *op = a->op;
  if (a->n_in < op->min_in) return false;
  if (has_names(a->L, index)) return true;
  return lua_rawlen(a->L, index) == 0 &&
         (which >= op->n_attrs || !is_list(op->attrs[which].type));
}

/* Sorts the arguments 1..n: tensors are inputs, in order; the rest are attributes, in
 * order; a last table with names holds options. */
static void take_arguments(arguments *a, int n) {
  lua_State *L = a->L;
  const nyx_op *op = a->op;
  int most = op->variadic ? NYX_MAX_INPUTS : op->max_in;
  int index = op->variadic && n > 0 ? take_list_inputs(a) : 1, which = 0, options = 0;
  bool inputs_open = index == 1;
  while (index <= n) {
    nyx__box *box = nyx__lua_box(L, a->s, index);
    if (box && inputs_open && a->n_in < most) {
      if (a->n_in == 0) a->self = index;
      a->in[a->n_in++] = box->t ? box->t : nyx__lua_check(L, a->s, index, op->name);
      index++;
      continue;
    }
    int type = lua_type(L, index);
    if (type == LUA_TNIL) {
      if (a->n_in < op->min_in && !tensor_after(a, index, n)) break;
      if (inputs_open && a->n_in < most && which == 0 && !op->variadic)
        a->in[a->n_in++] = NULL;
      else
        which++;
      index++;
    } else if (stands_for_tensor(a, index, n)) {
      take_number(a, index++);
    } else if (type == LUA_TTABLE && index == n && is_options(a, which, index)) {
      if (lua_rawlen(L, index) > 0) take_attr(a, which, index, n);
      options = index++;
    } else {
      index += take_attr(a, which, index, n);
      which++;
    }
  }
  if (a->n_in < op->min_in) {
    if (op->variadic)
      nyx__lua_fail(L, "%s: %d tensors, at least %d are needed", op->name, a->n_in,
                    op->min_in);
    missing_input(a, index);
  }
  if (options) read_options(a, options);
}

/* ------------------------------------------------------------------ the call */

/* Applies the op once; numbers become tensors for the time of it. */
static nyx_status attempt(arguments *a, nyx_tensor **outputs) {
  nyx_context *ctx = a->s->ctx;
  nyx_status status = NYX_OK;
  int made = 0;
  for (; made < a->n_numbers && status == NYX_OK; made++) {
    const struct number *number = &a->number[made];
    nyx_tensor *t = NULL;
    status = nyx_tensor_scalar(ctx, number->value, number->dtype, true, &t);
    a->in[number->input] = t;
  }
  if (status == NYX_OK)
    status =
        nyx_apply(ctx, a->op, a->in, a->n_in, a->op->n_attrs ? a->attr : NULL, outputs);
  for (int i = 0; i < made; i++) nyx_tensor_release(a->in[a->number[i].input]);
  return status;
}

/* What only constructors have: where the result goes, whether it is a leaf of a graph. */
static void finish_constructor(arguments *a) {
  lua_State *L = a->L;
  nyx__lua *s = a->s;
  if (a->device) {
    nyx_device *device = nyx__lua_device(L, s, a->device, a->op->name);
    nyx_tensor *t = nyx__lua_box(L, s, -1)->t, *moved = NULL;
    if (device != nyx_tensor_device(t)) {
      nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
      nyx__lua_try(L, s, nyx_tensor_to(s->ctx, t, device, &moved));
      nyx__lua_fill(s, box, moved, true);
    }
  }
  if (a->requires_grad)
    nyx__lua_try(L, s,
                 nyx_tensor_set_requires_grad(s->ctx, nyx__lua_box(L, s, -1)->t, true));
}

/* Runs the call and pushes its results; gives how many. */
static int run(arguments *a) {
  lua_State *L = a->L;
  nyx__lua *s = a->s;
  const nyx_op *op = a->op;
  nyx_tensor *outputs[NYX_MAX_OUTPUTS] = {NULL};
  nyx__box *box[NYX_MAX_OUTPUTS] = {NULL};
  nyx_status status;
  if (a->out) {
    outputs[0] = nyx__lua_box(L, s, a->out)->t;
    NYX_LUA_RETRY(L, s, status, attempt(a, outputs));
    if (status != NYX_OK) nyx__lua_raise(L, s);
    lua_pushvalue(L, a->out);
    return 1;
  }
  for (int i = 0; i < op->n_out; i++) box[i] = nyx__lua_push_box(L, s, NYX_LUA_META);
  NYX_LUA_RETRY(L, s, status, attempt(a, outputs));
  if (status != NYX_OK) nyx__lua_raise(L, s);
  int count = 0;
  while (count < op->n_out && outputs[count]) count++;
  if (count < op->n_out) lua_pop(L, op->n_out - count);
  if (op->kind == NYX_OP_COMPOSITE && count == 1 && a->self && outputs[0] == a->in[0]) {
    nyx_tensor_release(outputs[0]); /* x:contiguous() of a contiguous x is x */
    lua_pushvalue(L, a->self);
    return 1;
  }
  /* All boxes own their tensors before the first is counted, which may collect. */
  for (int i = 0; i < count; i++) box[i]->t = outputs[i];
  bool owner =
      op->kind != NYX_OP_VIEW && !(op->kind == NYX_OP_COMPOSITE && a->n_in > 0 &&
                                   a->in[0] && nyx_tensor_shares(outputs[0], a->in[0]));
  for (int i = 0; i < count; i++) nyx__lua_fill(s, box[i], outputs[i], owner);
  if (op->max_in == 0) finish_constructor(a);
  return count == 1 || op->max_in > 0 ? count : 1;
}

static void begin(arguments *a, lua_State *L, int op) {
  a->L = L;
  a->s = nyx__lua_state(L);
  a->op = (const nyx_op *)lua_touserdata(L, lua_upvalueindex(op));
  a->n_in = a->self = a->n_ints = a->n_numbers = a->out = a->device = 0;
  a->requires_grad = false;
  for (int i = 0; i < a->op->n_attrs; i++) a->attr[i].given = false;
}

/* nyx.<op>(...) and x:<op>(...) */
static int op_call(lua_State *L) {
  arguments a; /* large: only what is used gets written */
  begin(&a, L, 3);
  take_arguments(&a, lua_gettop(L));
  return run(&a);
}

/* x:<op>_(...) */
static int op_call_in_place(lua_State *L) {
  arguments a;
  begin(&a, L, 3);
  a.out = 1;
  if (!nyx__lua_box(L, a.s, 1)) bad_value(&a, 1, "self", "tensor", 1);
  take_arguments(&a, lua_gettop(L));
  return run(&a);
}

/* Lua gives a unary operator its operand twice. */
static int op_call_unary(lua_State *L) {
  lua_settop(L, 1);
  return op_call(L);
}

#ifdef NYX_LUA_HAS_BITS
/* & | ~ of bools are the logical op, upvalue 4. */
static int op_call_bits(lua_State *L) {
  const nyx__lua *s = nyx__lua_state(L);
  bool logical = true;
  for (int i = 1; i <= 2; i++) {
    const nyx__box *box = nyx__lua_box(L, s, i);
    logical &= box ? box->t && nyx_tensor_dtype(box->t) == NYX_BOOL : lua_isboolean(L, i);
  }
  arguments a;
  begin(&a, L, logical ? 4 : 3);
  take_arguments(&a, a.op->max_in);
  return run(&a);
}
#endif

/* ------------------------------------------------------------------ binding the table */

static void push_op(lua_State *L, const nyx_op *op, lua_CFunction function, int meta,
                    const nyx_op *logical) {
  lua_pushvalue(L, NYX_LUA_STATE);
  lua_pushvalue(L, meta);
  lua_pushlightuserdata(L, (void *)op);
  if (logical) lua_pushlightuserdata(L, (void *)logical);
  lua_pushcclosure(L, function, logical ? 4 : 3);
}

/* Ops with a result like their first input can write it there. */
static bool has_in_place(const nyx_op *op) {
  return op->min_in > 0 && !op->variadic && op->n_out == 1 && op->kind != NYX_OP_VIEW &&
         op->kind != NYX_OP_REDUCTION && op->kind != NYX_OP_COMPOSITE;
}

static void bind_operators(lua_State *L, int meta) {
  static const struct {
    const char *event, *op;
    lua_CFunction function;
    const char *logical;
  } operators[] = {
      {"__add", "add", op_call, NULL},
      {"__sub", "sub", op_call, NULL},
      {"__mul", "mul", op_call, NULL},
      {"__div", "div", op_call, NULL},
      {"__mod", "remainder", op_call, NULL},
      {"__pow", "pow", op_call, NULL},
      {"__unm", "neg", op_call_unary, NULL},
#ifdef NYX_LUA_HAS_BITS
      {"__idiv", "floor_divide", op_call, NULL},
      {"__shl", "bitwise_left_shift", op_call, NULL},
      {"__shr", "bitwise_right_shift", op_call, NULL},
      {"__band", "bitwise_and", op_call_bits, "logical_and"},
      {"__bor", "bitwise_or", op_call_bits, "logical_or"},
      {"__bxor", "bitwise_xor", op_call_bits, "logical_xor"},
      {"__bnot", "bitwise_not", op_call_bits, "logical_not"},
#endif
  };
  for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
    const char *logical = operators[i].logical;
    push_op(L, nyx_op_find(operators[i].op), operators[i].function, meta,
            logical ? nyx_op_find(logical) : NULL);
    lua_setfield(L, meta, operators[i].event);
  }
}

/* Sets table[name] unless it is there: hand-written functions come first. */
static void set_new(lua_State *L, int table, const char *name) {
  lua_pushstring(L, name);
  lua_rawget(L, table);
  bool taken = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (taken) {
    lua_pop(L, 1);
    return;
  }
  lua_pushstring(L, name);
  lua_insert(L, -2);
  lua_rawset(L, table);
}

void nyx__lua_bind_ops(lua_State *L, nyx__lua *s, int module, int methods, int meta) {
  int count = nyx_op_count();
  luaL_checkstack(L, 8, "ops");
  if (s->ops_bound == 0) bind_operators(L, meta);
  for (; s->ops_bound < count; s->ops_bound++) {
    const nyx_op *op = nyx_op_at(s->ops_bound);
    push_op(L, op, op_call, meta, NULL);
    if (op->max_in > 0 || op->variadic) {
      lua_pushvalue(L, -1);
      set_new(L, methods, op->name);
    }
    set_new(L, module, op->name);
    if (!has_in_place(op)) continue;
    char name[80];
    snprintf(name, sizeof name, "%s_", op->name);
    push_op(L, op, op_call_in_place, meta, NULL);
    set_new(L, methods, name);
  }
}

void nyx__lua_apply(lua_State *L, nyx__lua *s, const nyx_op *op, nyx_tensor *const *in,
                    int n, const nyx_value *attrs) {
  nyx_tensor *outputs[NYX_MAX_OUTPUTS] = {NULL};
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, nyx_apply(s->ctx, op, in, n, attrs, outputs));
  nyx__lua_try(L, s, status);
  for (int i = 1; i < op->n_out; i++) nyx_tensor_release(outputs[i]);
  nyx__lua_fill(s, box, outputs[0], !nyx_tensor_shares(outputs[0], in[0]));
}
