/* Inside the binding: what one Lua state owns, tensor userdata, errors and argument
 * helpers. Every C function of the binding is a closure whose first two upvalues are the
 * nyx__lua (light userdata) and the tensor metatable; nothing here is global, so Lua
 * states in different threads do not meet. Read next: tensor.c (userdata), call.c (how an
 * op is called), module.c (nyx.*). */
#ifndef NYX_LUA_BINDING_H
#define NYX_LUA_BINDING_H

#include <nyx/nyx.h>

#include "compat.h"
#include "nyx_lua.h"

/* A tensor's userdata. `t` is NULL until it is filled and after it was released. */
typedef struct nyx__box {
  nyx_tensor *t;
  size_t bytes;           /* counted against the collector, see collect.c */
  struct nyx__box **list; /* the head of the list it is in: a scope's, or the state's */
  struct nyx__box *next;
  struct nyx__box **link; /* what points to it; NULL while it is empty */
} nyx__box;

/* One per lua_State. */
typedef struct nyx__lua {
  nyx_context *ctx; /* NULL once the Lua state is closing */
  const void *meta; /* the tensor metatable's address, to recognise tensors by */
  int ops_bound;    /* how many ops of the table have functions */

  size_t live;        /* bytes of tensors that Lua holds */
  size_t fresh, work; /* since the last full collection: bytes, nanoseconds; collect.c */
  size_t fresh_limit, work_limit; /* that start the next one */
  size_t young_work;              /* since the last collection of any kind */
  bool generational, collecting;
  /* Lua is asked for memory while tensors are borrowed: finalizers that run now must not
   * release them. */
  bool allocating;

  nyx__box *boxes;  /* all tensors made outside of scopes */
  nyx__box **scope; /* the list for new ones: a scope's, or &boxes */

  struct nyx__home *home; /* callback.c: Lua functions that the core calls; NULL: none */
  int callbacks;          /* how many of them run now, one inside the other */
  bool too_deep;          /* they were too many: the error is on its way out */
  bool failed_with;       /* such a function raised a value that is no string */
  nyx_anomaly anomaly;
  bool watching;      /* anomaly mode is on: `running` is kept up to date */
  lua_State *running; /* the last to call the binding; kept in the registry */

  /* Ops that the binding itself applies. */
  const nyx_op *cast, *contiguous, *alias, *select, *narrow, *assign;
} nyx__lua;

#define NYX_LUA_STATE lua_upvalueindex(1)
#define NYX_LUA_META lua_upvalueindex(2)

/* Notes that L runs, see `running`. */
void nyx__lua_watch(lua_State *L, nyx__lua *s);

/* The state of the running function; raises an error in finalizers that a closing Lua
 * state runs after the context is gone. */
static inline nyx__lua *nyx__lua_state(lua_State *L) {
  nyx__lua *s = (nyx__lua *)lua_touserdata(L, NYX_LUA_STATE);
  if (__builtin_expect(!s->ctx, 0)) luaL_error(L, "nyx: this Lua state is closing");
  if (__builtin_expect(s->watching, 0)) nyx__lua_watch(L, s);
  return s;
}

/* Registry: the metatable of userdata that hold a block for nyx_memory_free. */
#define NYX_LUA_BLOCK_KEY "nyx.block"

/* tensor.c */

/* The box at a stack index, or NULL for a value of another kind. */
static inline nyx__box *nyx__lua_box(lua_State *L, const nyx__lua *s, int index) {
  nyx__box *box = (nyx__box *)lua_touserdata(L, index);
  if (!box || !lua_getmetatable(L, index)) return NULL;
  bool ours = lua_topointer(L, -1) == s->meta;
  lua_pop(L, 1);
  return ours ? box : NULL;
}
/* A block of Lua's memory, pushed as userdata, while tensors are borrowed. */
void *nyx__lua_allocate(lua_State *L, nyx__lua *s, size_t size);
/* Pushes an empty box, to be filled with nyx__lua_fill after a call succeeded. May run
 * the collector. */
nyx__box *nyx__lua_push_box(lua_State *L, nyx__lua *s, int meta);
/* Gives `t` to the box, which is on the stack. `owner`: t's storage is new, not shared
 * with tensors that Lua knows. */
void nyx__lua_fill(nyx__lua *s, nyx__box *box, nyx_tensor *t, bool owner);
void nyx__lua_drop(nyx__lua *s, nyx__box *box);
/* Moves a box to a list; NULL: out of all. */
void nyx__lua_link(nyx__box *box, nyx__box **list);
/* The tensor at a stack index; raises an error naming `function` and the argument. */
nyx_tensor *nyx__lua_check(lua_State *L, nyx__lua *s, int index, const char *function);
extern const luaL_Reg nyx__lua_tensor_functions[];   /* nyx.* */
extern const luaL_Reg nyx__lua_geometry_functions[]; /* nyx.system */
extern const luaL_Reg nyx__lua_tensor_methods[];
extern const luaL_Reg nyx__lua_tensor_events[]; /* metamethods */
/* __index and __newindex; the tables at the top of the stack: methods, module. */
void nyx__lua_set_access(lua_State *L);
/* Pushes `n` numbers as a table. */
void nyx__lua_push_ints(lua_State *L, int n, const int64_t *values);

/* error.c */

/* Registry: how the source names of lua/nyx begin. */
#define NYX_LUA_HOME_KEY "nyx.home"
/* Raises an error at the innermost Lua line outside of Nyx's own files. */
_Noreturn void nyx__lua_fail(lua_State *L, const char *format, ...) NYX_PRINTF(2, 3);
/* Raises the context's message. */
_Noreturn void nyx__lua_raise(lua_State *L, nyx__lua *s);
static inline void nyx__lua_try(lua_State *L, nyx__lua *s, nyx_status status) {
  if (status != NYX_OK) nyx__lua_raise(L, s);
}
/* The same after calls that are no ops, whose messages name no function. */
_Noreturn void nyx__lua_raise_in(lua_State *L, nyx__lua *s, const char *function);
static inline void nyx__lua_try_in(lua_State *L, nyx__lua *s, nyx_status status,
                                   const char *function) {
  if (status != NYX_OK) nyx__lua_raise_in(L, s, function);
}
/* Returns nil and a message: what a file or the system does wrong. */
int nyx__lua_failure(lua_State *L, const char *message);
/* "string 'abc'", "number 3", "tensor of shape (2x3)": a value in words. The text lives
 * as long as the string this leaves on the stack. */
const char *nyx__lua_describe(lua_State *L, nyx__lua *s, int index);
/* How the call of the running function is written: 1 for x:f(a), where a is argument 1
 * and not 2, else 0. */
int nyx__lua_is_method(lua_State *L);
/* "bad argument #2 'dim' to 'sum' (...)"; name may be NULL. */
_Noreturn void nyx__lua_bad_argument(lua_State *L, nyx__lua *s, int index,
                                     const char *function, const char *name,
                                     const char *expected);

/* collect.c: the collector feels tensors */

void nyx__lua_count(nyx__lua *s, nyx__box *box, bool owner);
/* The tensor of `box` is freed. */
void nyx__lua_uncount(nyx__lua *s, nyx__box *box);
/* The same of a block of memory that is no tensor. */
void nyx__lua_count_block(nyx__lua *s, size_t bytes);
void nyx__lua_uncount_block(nyx__lua *s, size_t bytes);
/* Before the first tensor. */
void nyx__lua_start_pace(lua_State *L, nyx__lua *s);
/* Replaces t's gradient by `grad`, which may be NULL; t is on the stack. What boxes that
 * x.grad made still hold of the old one is left to the collector. */
void nyx__lua_set_grad(lua_State *L, nyx__lua *s, nyx_tensor *t, nyx_tensor *grad);
/* The collections that are due before another tensor is made. */
void nyx__lua_make_room(lua_State *L, nyx__lua *s);
/* A full collection, unless one is running. */
void nyx__lua_collect(lua_State *L, nyx__lua *s);
/* Runs `call`; when memory is short, collects and runs it once more. */
#define NYX_LUA_RETRY(L, s, status, call)                                                \
  do {                                                                                   \
    (status) = (call);                                                                   \
    if ((status) == NYX_ERR_MEMORY && !(s)->collecting) {                                \
      nyx__lua_collect((L), (s));                                                        \
      (status) = (call);                                                                 \
    }                                                                                    \
  } while (0)

/* call.c: functions and methods of ops */

/* Makes functions for the ops of the table that have none yet. Stack indices of the
 * module table, the method table and the tensor metatable. */
void nyx__lua_bind_ops(lua_State *L, nyx__lua *s, int module, int methods, int meta);
/* Applies an op from C. The box that becomes the result is pushed; outputs beyond the
 * first are dropped. Raises errors. */
void nyx__lua_apply(lua_State *L, nyx__lua *s, const nyx_op *op, nyx_tensor *const *in,
                    int n, const nyx_value *attrs);

/* index.c: t[...] and t[...] = v */

/* The registry key of {read, write}: lua/nyx/tensor.lua's functions for keys that are or
 * hold tensors. */
#define NYX_LUA_INDEX_KEY "nyx.index"
void nyx__lua_index(lua_State *L, nyx__lua *s);    /* tensor at 1, key at 2; pushes */
void nyx__lua_newindex(lua_State *L, nyx__lua *s); /* and the value at 3 */
extern const luaL_Reg nyx__lua_index_methods[];

/* convert.c: Lua values to tensors and back */

extern const luaL_Reg nyx__lua_convert_functions[]; /* nyx.* */
extern const luaL_Reg nyx__lua_convert_methods[];
/* Pushes a tensor made from the value at index, borrowed. dtype < 0: by the value. */
nyx_tensor *nyx__lua_to_tensor(lua_State *L, nyx__lua *s, int index, int dtype,
                               const char *function);
/* Makes sure that `dtype`, if it holds integers, holds the number at index. */
void nyx__lua_check_number(lua_State *L, nyx__lua *s, int index, nyx_dtype dtype,
                           const char *function);
/* Pushes one value of `dtype` at p. */
void nyx__lua_push_value(lua_State *L, nyx_dtype dtype, const void *p);

/* file.c, json.c, zip.c, csv.c: nyx.system */

extern const luaL_Reg nyx__lua_file_functions[], nyx__lua_json_functions[],
    nyx__lua_zip_functions[], nyx__lua_csv_functions[];
/* A tensor whose bytes lie in one piece in host memory; raises where it does not. */
nyx_tensor *nyx__lua_check_plain(lua_State *L, nyx__lua *s, int index,
                                 const char *function);
size_t nyx__lua_plain_bytes(const nyx_tensor *t);
/* Reads the table of sizes at index; false when it is no shape. */
bool nyx__lua_shape(lua_State *L, int index, int *ndim, int64_t *shape);
/* A bool is one byte, 0 or 1: anything else is undefined behaviour waiting to happen. */
bool nyx__lua_bools_valid(const nyx_tensor *t);

/* callback.c: Lua functions that the core calls, in a Lua thread of their own */

typedef struct nyx__callback nyx__callback;
/* Keeps the function at index for C; raises an error when there is no memory. */
nyx__callback *nyx__lua_callback(lua_State *L, nyx__lua *s, int index);
/* Gives it (a void * for the core's sake) back: at any time, from anywhere, also after
 * the Lua state has closed. */
void nyx__lua_callback_free(void *callback);
/* Runs body with the function at the top of L's stack. A Lua error becomes the context's
 * message. The callback may be freed meanwhile. */
nyx_status nyx__lua_callback_run(nyx_context *ctx, const nyx__callback *callback,
                                 void (*body)(lua_State *L, nyx__lua *s, void *job),
                                 void *job);
/* When the context's message stands for a value that such a function raised, other than a
 * string: raises that. */
void nyx__lua_rethrow(lua_State *L, nyx__lua *s);
/* Lets go of the functions that were given back. */
void nyx__lua_callbacks_sweep(lua_State *L, nyx__lua *s);
/* The Lua state is closing. */
void nyx__lua_callbacks_close(nyx__lua *s);

/* hook.c, function.c */

void nyx__lua_open_hooks(lua_State *L, nyx__lua *s);
extern const luaL_Reg nyx__lua_hook_methods[];
extern const luaL_Reg nyx__lua_function_functions[]; /* nyx.system */

/* arena.c; `meta`: the stack index of the tensor metatable */

void nyx__lua_open_arenas(lua_State *L, nyx__lua *s, int meta);
extern const luaL_Reg nyx__lua_arena_functions[];
nyx_arena *nyx__lua_test_arena(lua_State *L, int index); /* NULL: none, or released */
void nyx__lua_push_arena(lua_State *L, nyx__lua *s, nyx_arena *arena); /* borrows it */

/* graph.c: x.grad_fn, nil for leaves */

void nyx__lua_open_nodes(lua_State *L);
void nyx__lua_push_grad_fn(lua_State *L, nyx__lua *s, nyx_tensor *t);
extern const luaL_Reg nyx__lua_graph_functions[]; /* nyx.system */

/* anomaly.c: anomaly mode and the profiler of backward passes */

void nyx__lua_open_profiler(lua_State *L);
extern const luaL_Reg nyx__lua_anomaly_functions[];
extern const luaL_Reg nyx__lua_profiler_functions[]; /* nyx.system */

/* scope.c: calls the function at 1 with the arguments behind it, between set(s, on) and
 * set(s, before), which comes also after an error; gives how many results it pushed. */
int nyx__lua_with(lua_State *L, nyx__lua *s, const char *function,
                  void (*set)(nyx__lua *s, intptr_t value), intptr_t on, intptr_t before);

/* scope.c: tensors made in scopes that the value at index holds (tables and functions)
 * outlive them: for what the core keeps. */
void nyx__lua_keep(lua_State *L, nyx__lua *s, int index);

/* context.c: mixed precision, the random state, the edge of a graph */

extern const luaL_Reg nyx__lua_context_functions[];
extern const luaL_Reg nyx__lua_tune_functions[], nyx__lua_machine_functions[];
extern const luaL_Reg nyx__lua_latency_functions[];    /* nyx.system */
extern const luaL_Reg nyx__lua_checkpoint_functions[]; /* nyx.system */

/* grad.c, transform.c, scope.c, describe.c */

extern const luaL_Reg nyx__lua_lift_functions[],
    nyx__lua_level_functions[]; /* nyx.lift */
extern const luaL_Reg nyx__lua_grad_functions[], nyx__lua_grad_methods[];
extern const luaL_Reg nyx__lua_describe_functions[];
extern const luaL_Reg nyx__lua_scope_functions[];
void nyx__lua_open_scope(lua_State *L);

/* bindings/ffi/ffi.c */
extern const luaL_Reg nyx__lua_ffi_methods[];

/* error.c: arguments by type, with errors of the shape above. */
nyx_dtype nyx__lua_dtype(lua_State *L, nyx__lua *s, int index, const char *function,
                         const char *name);
nyx_device *nyx__lua_device(lua_State *L, nyx__lua *s, int index, const char *function);
/* The names of all dtypes, appended to an empty text of 160 bytes. */
const char *nyx__lua_dtypes(char *text);

#endif
