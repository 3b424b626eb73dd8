/* What nyx.Function is made of: nyx.system.record_function puts a Lua function into the
 * graph as the gradient of tensors that were computed without recording. Read next:
 * lua/nyx/custom.lua, callback.c, core/grad/function.c. */
#include "binding.h"

/* The tensors of the table at `index`, 1..n, to t; NULL for what is none. */
static int read_tensors(lua_State *L, nyx__lua *s, int index, int count, const char *name,
                        const char *what, nyx_tensor **t) {
  luaL_checktype(L, index, LUA_TTABLE);
  int n = (int)luaL_checkinteger(L, count);
  if (n > NYX_MAX_INPUTS)
    nyx__lua_fail(L, "%s: %d tensors or arguments in a list, at most %d are allowed",
                  name, n, NYX_MAX_INPUTS);
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, index, i + 1);
    const nyx__box *box = nyx__lua_box(L, s, -1);
    if (box && !box->t)
      nyx__lua_fail(L, "%s: %s %d is a released tensor; keep it until then", name, what,
                    i + 1);
    t[i] = box ? box->t : NULL;
    lua_pop(L, 1);
  }
  return n;
}

/* Pushes a table of tensors; false where there is none. */
static void push_tensors(lua_State *L, nyx_tensor *const *t, int n) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    if (t[i])
      nyx_lua_push_tensor(L, t[i]);
    else
      lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
}

/* The table at the top of the stack has given its tensors away: those that nobody else
 * has, as its field `given` says, need not wait for the collector. */
static void drop_given(lua_State *L, nyx__lua *s) {
  lua_getfield(L, -1, "given");
  int n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    nyx__box *box = nyx__lua_box(L, s, -1);
    if (box) nyx__lua_drop(s, box);
    lua_pop(L, 1);
  }
}

/* Calls gradient(saved, grads, needs), which is at the top of the stack; gives a table of
 * the inputs' gradients. */
static void run_gradient(lua_State *L, nyx__lua *s, void *arg) {
  nyx_backward *b = (nyx_backward *)arg;
  push_tensors(L, b->saved, b->n_saved);
  push_tensors(L, b->grad_out, b->n_out);
  lua_createtable(L, b->n_in, 0);
  for (int i = 0; i < b->n_in; i++) {
    lua_pushboolean(L, b->need[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_call(L, 3, 1);
  for (int i = 0; i < b->n_in; i++) {
    if (!b->need[i]) continue;
    lua_rawgeti(L, -1, i + 1);
    const nyx__box *box = nyx__lua_box(L, s, -1);
    if (box && !box->t)
      nyx__lua_fail(L, "%s: backward gave a released tensor as gradient %d", b->op->name,
                    i + 1);
    if (box) b->grad_in[i] = nyx_tensor_retain(box->t);
    lua_pop(L, 1);
  }
  drop_given(L, s);
}

static nyx_status gradient(nyx_backward *b) {
  return nyx__lua_callback_run(b->ctx, (const nyx__callback *)b->payload, run_gradient,
                               b);
}

/* nyx.system.record_function(name, inputs, n, outputs, n_out, saved, n_saved, gradient,
 * holder): lists of tensors, with false for what is none. Tensors that `holder` (nil:
 * none) holds outlive the scope they were made in. */
static int record_function(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  const char *name = luaL_checkstring(L, 1);
  nyx_tensor *in[NYX_MAX_INPUTS], *out[NYX_MAX_INPUTS], *saved[NYX_MAX_INPUTS];
  luaL_checktype(L, 8, LUA_TFUNCTION);
  int n = read_tensors(L, s, 2, 3, name, "argument", in);
  int n_out = read_tensors(L, s, 4, 5, name, "result", out);
  int n_saved = read_tensors(L, s, 6, 7, name, "saved tensor", saved);
  if (!lua_isnoneornil(L, 9)) nyx__lua_keep(L, s, 9);
  nyx_function function = {.name = name,
                           .backward = gradient,
                           .payload = nyx__lua_callback(L, s, 8),
                           .free = nyx__lua_callback_free};
  nyx_status status =
      nyx_record_function(s->ctx, &function, in, n, out, n_out, saved, n_saved);
  nyx__lua_callbacks_sweep(L, s); /* it goes at once where nothing is recorded */
  nyx__lua_try(L, s, status);
  return 0;
}

const luaL_Reg nyx__lua_function_functions[] = {{"record_function", record_function},
                                                {NULL, NULL}};
