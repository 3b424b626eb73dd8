# Install rules. Runtime paths are relative, so an installed tree can be moved.
set(NYX_ROCK_LUA "" CACHE STRING "Install as a rock for this Lua (rocks/nyx-scm-1.rockspec)")
if(NYX_ROCK_LUA)
  include(cmake/rock.cmake)
  return()
endif()
file(RELATIVE_PATH lib_from_bin ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})

install(DIRECTORY core/include/nyx DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS nyx_shared nyx_static EXPORT NyxTargets)

foreach(target IN LISTS nyx_lua_modules)
  set(version $<IF:$<STREQUAL:${target},nyx_lua54>,5.4,5.1>)
  install(TARGETS ${target} DESTINATION ${CMAKE_INSTALL_LIBDIR}/lua/${version}/nyx)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/../../..")
endforeach()
if(TARGET nyx_lua_static)
  install(TARGETS nyx_lua_static EXPORT NyxTargets)
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/lua/nyx)
  foreach(version 5.4 5.1)
    install(DIRECTORY lua/nyx DESTINATION ${CMAKE_INSTALL_DATADIR}/lua/${version}
            FILES_MATCHING PATTERN "*.lua")
  endforeach()
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/bindings/lua/nyx_lua.h)
  install(FILES bindings/lua/nyx_lua.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/nyx)
endif()
if(TARGET nyx_exe)
  install(TARGETS nyx_exe)
  # What nyx --bench runs.
  install(DIRECTORY spec/bench/ DESTINATION ${CMAKE_INSTALL_DATADIR}/nyx/bench
          FILES_MATCHING PATTERN "*.py" PATTERN "*.[ch]" PATTERN "*.json" PATTERN "*.txt"
          PATTERN "__pycache__" EXCLUDE PATTERN "base*" EXCLUDE)
  set_target_properties(nyx_exe PROPERTIES INSTALL_RPATH "$ORIGIN/${lib_from_bin}")
endif()

# pkg-config: nyx.pc, and nyx-lua5.4.pc for programs with Lua inside; relocatable through
# ${pcfiledir}.
file(RELATIVE_PATH prefix_from_pc ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
     ${CMAKE_INSTALL_PREFIX})
configure_file(nyx.pc.in nyx.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/nyx.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET nyx_lua_static)
  set(lua_needs "")
  if(ZLIB_FOUND)
    string(APPEND lua_needs " -lz")
  endif()
  if(CJSON_FOUND)
    string(APPEND lua_needs " -lcjson")
  endif()
  if(LIBZIP_FOUND)
    string(APPEND lua_needs " -lzip")
  endif()
  configure_file(cmake/nyx-lua.pc.in nyx-lua5.4.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/nyx-lua5.4.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

# CMake: find_package(Nyx) gives Nyx::nyx (shared), Nyx::nyx_static and Nyx::lua (the
# binding for Lua 5.4, static).
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Nyx)
configure_package_config_file(cmake/NyxConfig.cmake.in NyxConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(NyxConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT NyxTargets NAMESPACE Nyx:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/NyxConfig.cmake
              ${PROJECT_BINARY_DIR}/NyxConfigVersion.cmake DESTINATION ${package_dir})
