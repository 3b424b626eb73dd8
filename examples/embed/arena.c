/* A host and a script that share memory: the program, a game say, lays its particles out
 * in an arena, a script moves them, and the program reads where they are. Nothing is
 * copied. Read next: arena.lua, <nyx/arena.h>, script.c. */
#include <lauxlib.h>
#include <lualib.h>
#include <nyx/nyx_lua.h>
#include <stdio.h>

enum { COUNT = 1000, FRAMES = 60 };

/* The elements of a buffer, which the arena keeps. */
static float *lay_out(lua_State *L, nyx_arena *arena, const char *name, int64_t columns) {
  nyx_tensor *t;
  nyx_lua_check(L, nyx_arena_buffer(nyx_lua_context(L), arena, name, NYX_FLOAT32, 2,
                                    (int64_t[]){COUNT, columns}, &t));
  float *data = nyx_tensor_data(t);
  nyx_tensor_release(t);
  return data;
}

/* Runs inside lua_pcall, with the arena as light userdata. */
static int host(lua_State *L) {
  nyx_arena *arena = lua_touserdata(L, 2);
  float *position = lay_out(L, arena, "position", 3);
  float *velocity = lay_out(L, arena, "velocity", 3);
  for (int i = 0; i < COUNT; i++) {
    velocity[3 * i] = (float)i / COUNT;
    position[3 * i + 1] = 10;
  }
  if (luaL_dofile(L, lua_tostring(L, 1))) return lua_error(L); /* leaves its function */
  nyx_lua_push_arena(L, arena);
  lua_call(L, 1, 1); /* gives the function that makes a step */
  for (int frame = 0; frame < FRAMES; frame++) {
    lua_pushvalue(L, -1);
    lua_pushnumber(L, 1.0 / FRAMES);
    lua_call(L, 1, 0);
  }
  printf("the last one is at (%.2f, %.2f)\n", position[3 * (COUNT - 1)],
         position[3 * (COUNT - 1) + 1]);
  return 0;
}

int main(int argc, char **argv) {
  nyx_context *ctx;
  nyx_arena *arena = NULL;
  lua_State *L = luaL_newstate();
  if (L == NULL || nyx_context_new(&ctx) != NYX_OK) return 1;
  if (nyx_arena_new(ctx, 64 << 10, &arena) != NYX_OK)
    fprintf(stderr, "arena: %s\n", nyx_context_error(ctx));
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_nyx); /* what `require "nyx"` calls */
  lua_setfield(L, -2, "nyx");
  luaL_requiref(L, "nyx", luaopen_nyx, 0);
  lua_pushcfunction(L, host);
  lua_pushstring(L, argc > 1 ? argv[1] : "arena.lua");
  lua_pushlightuserdata(L, arena);
  int failed = arena == NULL || lua_pcall(L, 2, 0, 0);
  if (failed && arena) fprintf(stderr, "arena: %s\n", lua_tostring(L, -1));
  lua_close(L);
  char *text;
  if (arena && nyx_arena_format(ctx, arena, &text) == NYX_OK) {
    puts(text);
    nyx_memory_free(text);
  }
  nyx_arena_release(arena);
  nyx_context_free(ctx);
  return failed;
}
