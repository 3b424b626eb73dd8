# The nyx executable: Lua 5.4 with the binding built in, and line editing where libedit
# is installed. It exports Lua's symbols for C modules.
file(GLOB repl_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bindings/repl/*.c)

if(repl_sources AND TARGET nyx_lua54)
  add_executable(nyx_exe ${repl_sources} $<TARGET_OBJECTS:nyx_lua54_objects>)
  set_target_properties(nyx_exe PROPERTIES OUTPUT_NAME nyx)
  target_include_directories(nyx_exe SYSTEM PRIVATE ${LUA54_INCLUDE_DIRS})
  target_link_libraries(nyx_exe PRIVATE nyx_internal nyx_lua_needs nyx_shared
                                        ${nyx_lua_libraries}
                                        ${LUA54_LINK_LIBRARIES} m
                                        ${CMAKE_DL_LIBS} Threads::Threads)
  target_link_options(nyx_exe PRIVATE -Wl,-E)
  # Where the Lua files are when neither the build nor the install tree is recognised.
  target_compile_definitions(nyx_exe PRIVATE
    NYX_SOURCE_DIR="${PROJECT_SOURCE_DIR}" NYX_PREFIX="${CMAKE_INSTALL_PREFIX}"
    NYX_LIBDIR="${CMAKE_INSTALL_LIBDIR}")
  pkg_check_modules(LIBEDIT IMPORTED_TARGET libedit)
  if(LIBEDIT_FOUND)
    target_compile_definitions(nyx_exe PRIVATE NYX_LIBEDIT)
    target_link_libraries(nyx_exe PRIVATE PkgConfig::LIBEDIT)
  else()
    message(STATUS "libedit: not found (package libedit-dev); nyx reads plain lines")
  endif()
endif()
