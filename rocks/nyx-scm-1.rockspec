-- Nyx through LuaRocks, from the root of a clone:
--   luarocks --lua-version=5.4 make rocks/nyx-scm-1.rockspec
--   luarocks --lua-version=5.1 make rocks/nyx-scm-1.rockspec LUA=$(command -v luajit)
-- NYX_ROCK_CMAKE in the environment is more for cmake, as -DCMAKE_C_COMPILER=clang.
-- What goes where is in cmake/rock.cmake.
rockspec_format = "3.0"
package = "nyx"
version = "scm-1"
source = { url = "git+file://." } -- this clone
description = {
  summary = "An embeddable machine-learning runtime",
  detailed = "Tensors, automatic differentiation and kernels in one C library, neural networks " ..
    "in Lua on top.",
  license = "MIT",
}
supported_platforms = { "unix" }
dependencies = { "lua >= 5.1, < 5.5" } -- of these 5.4, and LuaJIT as 5.1; others are refused
build = {
  type = "command",
  build_command = [[cmake -S . -B build/rock -DCMAKE_BUILD_TYPE=Release -DNYX_TESTS=OFF ]] ..
    [[-DNYX_ROCK_LUA="$(LUA)" -DCMAKE_INSTALL_PREFIX="$(PREFIX)" $NYX_ROCK_CMAKE ]] ..
    [[&& cmake --build build/rock --target rock --parallel `getconf _NPROCESSORS_ONLN`]],
  install_command = [[cmake --install build/rock]],
}
