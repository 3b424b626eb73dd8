# Install rules of the rock, rocks/nyx-scm-1.rockspec, in place of install.cmake: for the
# one Lua named by NYX_ROCK_LUA. LuaRocks moves lib/ and lua/ of the prefix to where that
# Lua looks, <tree>/lib/lua/5.4 and <tree>/share/lua/5.4; the rest stays in the rock's own
# folder, <tree>/lib/luarocks/rocks-5.4/nyx/scm-1, where extension rocks find it.
execute_process(COMMAND ${NYX_ROCK_LUA} -e "io.write(_VERSION, jit and ' jit' or '')"
                OUTPUT_VARIABLE rock_lua RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "NYX_ROCK_LUA: '${NYX_ROCK_LUA}' does not run")
endif()
if(rock_lua STREQUAL "Lua 5.4")
  set(rock_version 5.4)
  set(module nyx_lua54)
  set(package liblua5.4-dev)
elseif(rock_lua STREQUAL "Lua 5.1 jit")
  set(rock_version 5.1)
  set(module nyx_luajit)
  set(package libluajit-5.1-dev)
else()
  # LuaRocks takes Lua 5.1 unless told otherwise on Debian 12.
  message(FATAL_ERROR "Nyx works with Lua 5.4 and LuaJIT; '${NYX_ROCK_LUA}' is ${rock_lua}. "
    "Choose one:\n"
    "  luarocks --lua-version=5.4 make rocks/nyx-scm-1.rockspec\n"
    "  luarocks --lua-version=5.1 make rocks/nyx-scm-1.rockspec LUA=$(command -v luajit)\n")
endif()
if(NOT TARGET ${module})
  message(FATAL_ERROR "the rock for ${rock_lua} needs its headers (package ${package})")
endif()
add_custom_target(rock DEPENDS ${module} nyx_shared)

# The library lies beside the module under its soname: one file, since links do not
# survive the move.
set_target_properties(nyx_shared PROPERTIES VERSION ${PROJECT_VERSION_MAJOR})
set_target_properties(${module} PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS ${module} DESTINATION lib/nyx)
install(TARGETS nyx_shared LIBRARY DESTINATION lib/nyx NAMELINK_SKIP)
install(DIRECTORY lua/nyx DESTINATION lua FILES_MATCHING PATTERN "*.lua")

# For extensions in C: headers, and a nyx.pc that knows where the library went.
install(DIRECTORY core/include/nyx DESTINATION include)
install(FILES bindings/lua/nyx_lua.h DESTINATION include/nyx)
file(WRITE ${PROJECT_BINARY_DIR}/rock/nyx.pc
"prefix=\${pcfiledir}/..
libdir=\${prefix}/../../../../lua/${rock_version}/nyx
includedir=\${prefix}/include

Name: nyx
Description: ${PROJECT_DESCRIPTION}
Version: ${PROJECT_VERSION}
Cflags: -I\${includedir}
Libs: -L\${libdir} -l:libnyx.so.${PROJECT_VERSION_MAJOR}
")
install(FILES ${PROJECT_BINARY_DIR}/rock/nyx.pc DESTINATION pkgconfig)
