-- An extension rock with an op in C. In this folder, after nyx itself is installed:
--   luarocks --lua-version=5.4 make nyx-example-scm-1.rockspec
-- Copy the folder to begin one of your own.
rockspec_format = "3.0"
package = "nyx-example"
version = "scm-1"
source = { url = "git+file://." }
description = {
  summary = "An op of its own for Nyx: softclip",
  license = "MIT",
}
supported_platforms = { "unix" }
dependencies = { "lua >= 5.1, < 5.5", "nyx" }
build = {
  type = "make",
  variables = {
    CFLAGS = "$(CFLAGS)",
    LIBFLAG = "$(LIBFLAG)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LIBDIR = "$(LIBDIR)",
    LUADIR = "$(LUADIR)",
    PREFIX = "$(PREFIX)",
  },
}
