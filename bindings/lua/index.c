/* x[i], x[{2, {1, 3}, {}}] and the same on the left of an assignment. Keys that are or
 * hold tensors (masks, positions) are served by lua/nyx/tensor.lua. Positions count from
 * 1, from the end with -1; ranges include both ends. Read next: core/op/views.c,
 * core/op/copy.c. */
#include <string.h>

#include "binding.h"

/* What a key picks of each dimension: `length` positions from `start`, `step` apart,
 * counted from 0. A length of -1 picks one and drops the dimension. */
typedef struct region {
  int ndim;
  int64_t start[NYX_MAX_DIMS], length[NYX_MAX_DIMS], step[NYX_MAX_DIMS];
} region;

static void whole(const nyx_tensor *t, region *r) {
  r->ndim = nyx_tensor_ndim(t);
  for (int d = 0; d < r->ndim; d++) {
    r->start[d] = 0;
    r->length[d] = nyx_tensor_shape(t)[d];
    r->step[d] = 1;
  }
}

/* The position at a stack index, from 0; not yet checked against the size. */
static int64_t position(lua_State *L, nyx__lua *s, int index, int dim, int64_t size) {
  int64_t p;
  if (lua_type(L, index) != LUA_TNUMBER || !nyx__lua_integer(L, index, &p))
    nyx__lua_fail(L, "x[...]: the position in dimension %d is %s, expected an integer",
                  dim + 1, nyx__lua_describe(L, s, index));
  return p < 0 ? p + size : p - 1;
}

/* `index`: where the position is on the stack. */
static _Noreturn void out_of_range(lua_State *L, int index, int dim, int64_t size) {
  int64_t p = 0;
  nyx__lua_integer(L, index, &p);
  if (p == 0)
    nyx__lua_fail(L,
                  "x[...]: position 0 in dimension %d; positions count from 1, from the "
                  "end with -1",
                  dim + 1);
  nyx__lua_fail(L, "x[...]: position %lld is out of range for dimension %d of size %lld",
                (long long)p, dim + 1, (long long)size);
}

static void select_one(lua_State *L, nyx__lua *s, int index, int dim, region *r) {
  int64_t size = r->length[dim], p = position(L, s, index, dim, size);
  if (p < 0 || p >= size) out_of_range(L, index, dim, size);
  r->start[dim] = p;
  r->length[dim] = -1;
}

/* {}, {a}, {a, b}, {a, b, step} at the top of the stack */
static void select_range(lua_State *L, nyx__lua *s, int dim, region *r) {
  int64_t size = r->length[dim], step = 1;
  int range = lua_gettop(L), n = (int)lua_rawlen(L, range);
  if (n == 0) return;
  if (n > 3)
    nyx__lua_fail(L,
                  "x[...]: the range of dimension %d has %d numbers, expected {}, {at}, "
                  "{first, last} or {first, last, step}",
                  dim + 1, n);
  lua_rawgeti(L, range, 1);
  lua_rawgeti(L, range, n > 1 ? 2 : 1);
  int64_t first = position(L, s, -2, dim, size), last = position(L, s, -1, dim, size);
  bool empty = n > 1 && last == first - 1;
  if (first < 0 || (first >= size && !(empty && first == size)))
    out_of_range(L, -2, dim, size);
  if (last >= size || (last < 0 && !empty)) out_of_range(L, -1, dim, size);
  if (last < first - 1)
    nyx__lua_fail(L,
                  "x[...]: the range of dimension %d ends at %lld, before it begins at "
                  "%lld; a range includes both ends",
                  dim + 1, (long long)last + 1, (long long)first + 1);
  if (n == 3) {
    lua_rawgeti(L, range, 3);
    if (lua_type(L, -1) != LUA_TNUMBER || !nyx__lua_integer(L, -1, &step) || step < 1)
      nyx__lua_fail(L,
                    "x[...]: the step of dimension %d is %s, expected 1 or more; flip "
                    "reverses",
                    dim + 1, nyx__lua_describe(L, s, -1));
  }
  r->start[dim] = first;
  r->length[dim] = last < first ? 0 : (last - first) / step + 1;
  r->step[dim] = step;
  lua_settop(L, range);
}

/* Reads the key at stack index 2. False: it is or holds a tensor. */
static bool read_key(lua_State *L, nyx__lua *s, const nyx_tensor *t, region *r) {
  whole(t, r);
  int type = lua_type(L, 2);
  if (type == LUA_TUSERDATA && nyx__lua_box(L, s, 2)) return false;
  if (type == LUA_TNUMBER) {
    if (r->ndim == 0)
      nyx__lua_fail(L, "x[...]: a 0-dimensional tensor has no positions; use x:item()");
    select_one(L, s, 2, 0, r);
    return true;
  }
  if (type != LUA_TTABLE)
    nyx__lua_fail(L,
                  "x[...]: the key is %s, expected a position, a table of positions and "
                  "ranges, or a tensor",
                  nyx__lua_describe(L, s, 2));
  int n = (int)lua_rawlen(L, 2);
  if (n > r->ndim)
    nyx__lua_fail(L, "x[...]: %d positions for %s", n, nyx__lua_describe(L, s, 1));
  for (int d = 0; d < n; d++) {
    lua_rawgeti(L, 2, d + 1);
    if (lua_type(L, -1) == LUA_TTABLE)
      select_range(L, s, d, r);
    else if (nyx__lua_box(L, s, -1))
      return false;
    else
      select_one(L, s, -1, d, r);
    lua_pop(L, 1);
  }
  return true;
}

/* Calls lua/nyx/tensor.lua's read(x, key) or write(x, key, value). */
static void by_tensor(lua_State *L, int which, int results) {
  int n = lua_gettop(L) < which + 1 ? lua_gettop(L) : which + 1;
  lua_settop(L, n);
  lua_getfield(L, LUA_REGISTRYINDEX, NYX_LUA_INDEX_KEY);
  if (!lua_istable(L, -1))
    nyx__lua_fail(L, "x[tensor] needs the Lua part of Nyx; call require \"nyx\"");
  lua_rawgeti(L, -1, which);
  lua_insert(L, 1);
  lua_pop(L, 1);
  lua_call(L, n, results);
}

void nyx__lua_index(lua_State *L, nyx__lua *s) {
  nyx_tensor *t = nyx__lua_check(L, s, 1, "x[...]");
  region r;
  if (!read_key(L, s, t, &r)) {
    by_tensor(L, 1, 1);
    return;
  }
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  nyx_tensor *at = nyx_tensor_retain(t);
  nyx_status status = NYX_OK;
  bool changed = false;
  for (int d = r.ndim - 1; status == NYX_OK && d >= 0; d--) {
    if (r.length[d] == nyx_tensor_shape(t)[d] && r.step[d] == 1) continue;
    nyx_value attr[] = {NYX_I(d), NYX_I(r.start[d]), NYX_I(r.length[d]),
                        NYX_I(r.step[d])};
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    status =
        nyx_apply(s->ctx, r.length[d] == -1 ? s->select : s->narrow, &at, 1, attr, out);
    if (status != NYX_OK) break;
    nyx_tensor_release(at);
    at = out[0];
    changed = true;
  }
  if (status == NYX_OK && !changed) {
    nyx_tensor *out[NYX_MAX_OUTPUTS] = {NULL};
    status = nyx_apply(s->ctx, s->alias, &t, 1, NULL, out);
    if (status == NYX_OK) {
      nyx_tensor_release(at);
      at = out[0];
    }
  }
  if (status != NYX_OK) {
    nyx_tensor_release(at);
    nyx__lua_raise(L, s);
  }
  nyx__lua_fill(s, box, at, false);
}

#define EXACT ((int64_t)1 << 53) /* integers as far from 0 are exact as doubles */

/* What is written, at stack index `value`, by the same rule for all kinds of key: numbers
 * that t's dtype has, tensors of its kind or a lower one. Tables, and integers too long
 * for a double, become tensors, on the stack in their place. NULL: a number or boolean.
 */
static nyx_tensor *read_value(lua_State *L, nyx__lua *s, nyx_tensor *t, int value,
                              const char *function) {
  int type = lua_type(L, value);
  nyx_dtype dtype = nyx_tensor_dtype(t);
  if (type == LUA_TBOOLEAN) return NULL;
  int64_t integer = 0;
  if (type == LUA_TNUMBER) {
    nyx__lua_check_number(L, s, value, dtype, function);
    if (dtype != NYX_INT64 || !nyx__lua_integer(L, value, &integer)) return NULL;
    if (integer >= -EXACT && integer <= EXACT) return NULL;
  }
  if (type == LUA_TTABLE || type == LUA_TNUMBER) {
    nyx_tensor *made = nyx__lua_to_tensor(L, s, value, (int)dtype, function);
    lua_replace(L, value);
    return made;
  }
  if (!nyx__lua_box(L, s, value))
    nyx__lua_fail(
        L, "%s: the value is %s, expected a number, a tensor or a table of numbers",
        function, nyx__lua_describe(L, s, value));
  nyx_tensor *given = nyx__lua_check(L, s, value, function);
  if (nyx_dtype_kind_of(nyx_tensor_dtype(given)) > nyx_dtype_kind_of(dtype))
    nyx__lua_fail(
        L,
        "%s: the value is %s, which cannot be written to a tensor of %s; convert "
        "it with to(\"%s\")",
        function, nyx__lua_describe(L, s, value), nyx_dtype_name(dtype),
        nyx_dtype_name(dtype));
  return given;
}

/* Applies assign with a number at stack index `value`, or with `tensor`. */
static nyx_status assign_once(lua_State *L, nyx__lua *s, nyx_tensor *t, const region *r,
                              int value, nyx_tensor *tensor) {
  nyx_value attr[] = {NYX_LIST(r->start, r->ndim), NYX_LIST(r->length, r->ndim),
                      NYX_LIST(r->step, r->ndim)};
  nyx_tensor *in[2] = {t, tensor}, *out[NYX_MAX_OUTPUTS] = {t};
  if (!tensor) {
    bool is_bool = lua_isboolean(L, value);
    double v = is_bool ? lua_toboolean(L, value) : lua_tonumber(L, value);
    int64_t i;
    nyx_dtype dtype = NYX_FLOAT64;
    if (is_bool)
      dtype = NYX_BOOL;
    else if (nyx__lua_integer(L, value, &i))
      dtype = NYX_INT64;
    nyx_status status = nyx_tensor_scalar(s->ctx, v, dtype, true, &in[1]);
    if (status != NYX_OK) return status;
  }
  nyx_status status = nyx_apply(s->ctx, s->assign, in, 2, attr, out);
  if (!tensor) nyx_tensor_release(in[1]);
  return status;
}

/* Writes the value at stack index `value` into a region of t. */
static void assign(lua_State *L, nyx__lua *s, nyx_tensor *t, const region *r, int value,
                   const char *function) {
  nyx_tensor *tensor = read_value(L, s, t, value, function);
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, assign_once(L, s, t, r, value, tensor));
  nyx__lua_try(L, s, status);
}

void nyx__lua_newindex(lua_State *L, nyx__lua *s) {
  nyx_tensor *t = nyx__lua_check(L, s, 1, "x[...]");
  region r;
  if (!read_key(L, s, t, &r)) {
    lua_settop(L, 3);
    (void)read_value(L, s, t, 3, "x[...]");
    by_tensor(L, 2, 0);
    return;
  }
  assign(L, s, t, &r, 3, "x[...]");
}

static int copy_all(lua_State *L, nyx__lua *s, const char *function) {
  nyx_tensor *t = nyx__lua_check(L, s, 1, function);
  lua_settop(L, 2);
  region r;
  whole(t, &r);
  assign(L, s, t, &r, 2, function);
  lua_settop(L, 1);
  return 1;
}

/* A tensor at stack index 2 of a higher kind than t's, floats for integers, is converted
 * first, as by to(): what assignments refuse, a copy is asked for. */
static void lower_kind(lua_State *L, nyx__lua *s, const nyx_tensor *t) {
  if (!nyx__lua_box(L, s, 2)) return;
  nyx_tensor *given = nyx__lua_check(L, s, 2, "copy_"), *out[NYX_MAX_OUTPUTS] = {NULL};
  nyx_dtype dtype = nyx_tensor_dtype(t);
  if (nyx_dtype_kind_of(nyx_tensor_dtype(given)) <= nyx_dtype_kind_of(dtype)) return;
  nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
  const nyx_value to = NYX_I(dtype);
  nyx_status status;
  NYX_LUA_RETRY(L, s, status, nyx_apply(s->ctx, s->cast, &given, 1, &to, out));
  nyx__lua_try(L, s, status);
  nyx__lua_fill(s, box, out[0], false);
  lua_replace(L, 2);
}

/* x:copy_(value): all of x. x:fill_(number) and x:zero_() likewise. */
static int tensor_copy(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  const nyx_tensor *t = nyx__lua_check(L, s, 1, "copy_");
  lua_settop(L, 2);
  lower_kind(L, s, t);
  return copy_all(L, s, "copy_");
}

static int tensor_fill(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__lua_check(L, s, 1, "fill_");
  lua_settop(L, 2);
  if (!lua_isnumber(L, 2) && !lua_isboolean(L, 2) && !nyx__lua_box(L, s, 2))
    nyx__lua_bad_argument(L, s, 2, "fill_", "value", "number");
  return copy_all(L, s, "fill_");
}

static int tensor_zero(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx__lua_check(L, s, 1, "zero_");
  lua_settop(L, 1);
  lua_pushinteger(L, 0);
  return copy_all(L, s, "zero_");
}

const luaL_Reg nyx__lua_index_methods[] = {
    {"copy_", tensor_copy}, {"fill_", tensor_fill}, {"zero_", tensor_zero}, {NULL, NULL}};
