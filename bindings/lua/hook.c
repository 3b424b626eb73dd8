/* Hooks of tensors in Lua: x:register_hook, x:register_post_accumulate_grad_hook,
 * x:retain_grad, and the handles that remove hooks. Read next: callback.c,
 * core/grad/hook.c. */
#include "binding.h"

#define HANDLE_KEY "nyx.hook" /* registry: the handles' metatable */

/* ------------------------------------------------------------------ calls from the core
 */

typedef struct hook_job {
  nyx_tensor *grad, **replacement;
} hook_job;

/* The function is at the top of the stack. */
static void run_hook(lua_State *L, nyx__lua *s, void *arg) {
  const hook_job *job = (const hook_job *)arg;
  nyx_lua_push_tensor(L, job->grad);
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) return;
  const nyx__box *box = nyx__lua_box(L, s, -1);
  if (!box || !box->t)
    nyx__lua_fail(L, "a hook gave %s, expected the gradient, a tensor, or nothing",
                  nyx__lua_describe(L, s, -1));
  *job->replacement = nyx_tensor_retain(box->t);
}

static nyx_status call_hook(nyx_context *ctx, void *arg, nyx_tensor *grad,
                            nyx_tensor **replacement) {
  hook_job job = {grad, replacement};
  return nyx__lua_callback_run(ctx, (const nyx__callback *)arg, run_hook, &job);
}

/* What the function gives does not matter. */
static void run_post_hook(lua_State *L, nyx__lua *s, void *arg) {
  (void)s;
  nyx_lua_push_tensor(L, (nyx_tensor *)arg);
  lua_call(L, 1, 0);
}

static nyx_status call_post_hook(nyx_context *ctx, void *arg, nyx_tensor *leaf,
                                 nyx_tensor **replacement) {
  (void)replacement;
  return nyx__lua_callback_run(ctx, (const nyx__callback *)arg, run_post_hook, leaf);
}

/* ------------------------------------------------------------------ methods */

typedef nyx_status (*registrar)(nyx_context *ctx, nyx_tensor *t, const nyx_hook *hook,
                                nyx_hook_handle **handle);

static int add_hook(lua_State *L, const char *function, registrar add,
                    nyx_status (*call)(nyx_context *, void *, nyx_tensor *,
                                       nyx_tensor **)) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, function);
  if (lua_type(L, 2) != LUA_TFUNCTION) {
    if (!luaL_getmetafield(L, 2, "__call"))
      nyx__lua_bad_argument(L, s, 2, function, "hook", "function");
    lua_pop(L, 1);
  }
  nyx_hook_handle **handle = (nyx_hook_handle **)lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = NULL;
  lua_getfield(L, LUA_REGISTRYINDEX, HANDLE_KEY);
  lua_setmetatable(L, -2);
  nyx__lua_keep(L, s, 2);
  nyx_hook hook = {.call = call, .free = nyx__lua_callback_free};
  hook.arg = nyx__lua_callback(L, s, 2);
  nyx_status status = add(s->ctx, t, &hook, handle);
  if (status != NYX_OK) {
    nyx__lua_callback_free(hook.arg);
    nyx__lua_callbacks_sweep(L, s);
  }
  nyx__lua_try(L, s, status);
  return 1;
}

/* x:register_hook(function(grad) ... end): the function gets the gradient of x in a
 * backward pass, before it is handed on or added to x.grad, and may give another. Gives a
 * handle with handle:remove(). The function is a reference in the registry as long as x
 * or the graph lives, where the collector does not see that it hangs from x: one that
 * uses x itself is never collected unless it is removed. (A function kept by x's userdata
 * would be; but that has to hand it on when it goes before the tensor, in its finalizer,
 * and what the function uses has been finalised in the same collection.) */
static int register_hook(lua_State *L) {
  return add_hook(L, "register_hook", nyx_tensor_register_hook, call_hook);
}

/* x:register_post_accumulate_grad_hook(function(x) ... end): called with the leaf x after
 * x.grad has been set. */
static int register_post_hook(lua_State *L) {
  return add_hook(L, "register_post_accumulate_grad_hook",
                  nyx_tensor_register_post_accumulate_hook, call_post_hook);
}

/* x:retain_grad(): backward fills x.grad though x is not a leaf; gives x. */
static int retain_grad(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "retain_grad");
  nyx__lua_try(L, s, nyx_tensor_retain_grad(s->ctx, t));
  lua_settop(L, 1);
  return 1;
}

const luaL_Reg nyx__lua_hook_methods[] = {
    {"register_hook", register_hook},
    {"register_post_accumulate_grad_hook", register_post_hook},
    {"retain_grad", retain_grad},
    {NULL, NULL}};

/* ------------------------------------------------------------------ handles */

static nyx_hook_handle **check_handle(lua_State *L) {
  return (nyx_hook_handle **)luaL_checkudata(L, 1, HANDLE_KEY);
}

/* handle:remove(): the hook will not be called again. */
static int handle_remove(lua_State *L) {
  nyx_hook_handle **handle = check_handle(L);
  if (*handle) nyx_hook_remove(*handle);
  nyx_hook_release(*handle);
  *handle = NULL;
  nyx__lua_callbacks_sweep(L, nyx__lua_state(L)); /* the function goes now */
  return 0;
}

static int handle_gc(lua_State *L) {
  nyx_hook_handle **handle = check_handle(L);
  nyx_hook_release(*handle);
  *handle = NULL;
  return 0;
}

static int handle_tostring(lua_State *L) {
  lua_pushstring(L, *check_handle(L) ? "nyx.Hook" : "nyx.Hook (removed)");
  return 1;
}

void nyx__lua_open_hooks(lua_State *L, nyx__lua *s) {
  luaL_newmetatable(L, HANDLE_KEY);
  lua_createtable(L, 0, 1);
  lua_pushlightuserdata(L, s);
  lua_pushcclosure(L, handle_remove, 1);
  lua_setfield(L, -2, "remove");
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, handle_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, handle_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pop(L, 1);
}
