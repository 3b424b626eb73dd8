/* x:ffi(): the elements of a tensor as LuaJIT FFI data, without copying. Plain Lua has no
 * FFI; x:data_ptr() gives the bare address there. Read next: bindings/lua/tensor.c. */
#include <nyx/nyx.h>

#include "../lua/binding.h"

#if LUA_VERSION_NUM < 502

/* Element types as C declares them; half types as their 16 bits. */
static const char *pointer_type(nyx_dtype dtype) {
  switch (dtype) {
    case NYX_FLOAT32: return "float *";
    case NYX_FLOAT64: return "double *";
    case NYX_FLOAT16:
    case NYX_BFLOAT16: return "uint16_t *";
    case NYX_INT8: return "int8_t *";
    case NYX_UINT8: return "uint8_t *";
    case NYX_INT32: return "int32_t *";
    case NYX_INT64: return "int64_t *";
    case NYX_BOOL: return "bool *";
    case NYX_COMPLEX64: return "complex float *";
    case NYX_COMPLEX128: return "complex double *";
    case NYX_DTYPE_COUNT: break;
  }
  return "void *";
}

/* x:ffi(): a pointer to the first element; p[0] is x[1]. Elements follow at x:stride().
 * The pointer does not keep x alive, and what is written through it counts as a change of
 * x. */
static int tensor_ffi(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  nyx_tensor *t = nyx__lua_check(L, s, 1, "ffi");
  void *data = nyx_tensor_data(t);
  if (!data)
    nyx__lua_fail(L, "ffi: the tensor is on %s; move it with x:to(\"cpu\")",
                  nyx_device_name(nyx_tensor_device(t)));
  nyx_tensor_touch(t);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "ffi");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "cast");
  lua_pushstring(L, pointer_type(nyx_tensor_dtype(t)));
  lua_pushlightuserdata(L, data);
  lua_call(L, 2, 1);
  return 1;
}

#else

static int tensor_ffi(lua_State *L) {
  nyx__lua_fail(L,
                "ffi: this needs LuaJIT; x:data_ptr() gives the address, x:tobytes() and "
                "nyx.frombuffer copy");
}

#endif

const luaL_Reg nyx__lua_ffi_methods[] = {{"ffi", tensor_ffi}, {NULL, NULL}};
