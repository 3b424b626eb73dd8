# C tests: each spec/c/*_test.c is one program, linked with the static library so that
# internal functions can be tested. Lua specs are run by spec/run.sh.
if(NYX_TESTS)
  enable_testing()
  file(GLOB test_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/spec/c/*_test.c)
  foreach(source IN LISTS test_sources)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE nyx_internal nyx_static)
    target_compile_options(${name} PRIVATE -fwrapv) # rows in C wrap, as kernels do
    set_target_properties(${name} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  endforeach()

  # Plain C loops beside the base path: built when asked for, with a compiler's own flags.
  add_executable(base_bench EXCLUDE_FROM_ALL spec/bench/base.c)
  target_link_libraries(base_bench PRIVATE nyx_shared m)
  target_compile_options(base_bench PRIVATE -O3)
  set_target_properties(base_bench PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)

  # The headers from C++, where there is a compiler for it.
  include(CheckLanguage)
  check_language(CXX)
  if(CMAKE_CXX_COMPILER)
    enable_language(CXX)
    add_executable(header_cxx_test spec/c/header_cxx_test.cpp)
    target_include_directories(header_cxx_test PRIVATE ${PROJECT_SOURCE_DIR}/core/include)
    target_link_libraries(header_cxx_test PRIVATE nyx_shared nyx_flags)
    target_compile_options(header_cxx_test PRIVATE -Wall -Wextra -Wpedantic -Werror)
    set_target_properties(header_cxx_test PROPERTIES
      CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON
      RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)
    add_test(NAME header_cxx_test COMMAND header_cxx_test
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  endif()

  # The binding from C, with several Lua states in threads.
  if(TARGET nyx_lua54)
    add_executable(states_test spec/lua/states_test.c $<TARGET_OBJECTS:nyx_lua54_objects>)
    target_include_directories(states_test SYSTEM PRIVATE ${LUA54_INCLUDE_DIRS})
    target_link_libraries(states_test PRIVATE nyx_internal nyx_shared ${nyx_lua_libraries}
                                              ${LUA54_LINK_LIBRARIES} m Threads::Threads)
    set_target_properties(states_test PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)
    add_test(NAME states_test COMMAND states_test WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  endif()

  # What spec/op compares kernels with: the rows over plain scalars, as a Lua module for
  # each Lua that is built.
  function(nyx_oracle version headers)
    add_library(nyx_oracle_${version} MODULE spec/op/oracle.c spec/op/oracle_float.c
                                             spec/op/oracle_int.c)
    target_include_directories(nyx_oracle_${version} SYSTEM PRIVATE
                               ${${headers}_INCLUDE_DIRS})
    target_compile_options(nyx_oracle_${version} PRIVATE -fwrapv -Wno-conversion
                           -Wno-tautological-compare)
    target_link_libraries(nyx_oracle_${version} PRIVATE nyx_internal m)
    set_target_properties(nyx_oracle_${version} PROPERTIES
      PREFIX "" OUTPUT_NAME nyx_oracle
      LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib/lua/${version})
  endfunction()
  if(TARGET nyx_lua54)
    nyx_oracle(5.4 LUA54)
  endif()
  if(TARGET nyx_luajit)
    nyx_oracle(5.1 LUAJIT)
  endif()

  # What the specs of the REPL talk to it through.
  if(TARGET nyx_exe)
    add_executable(nyx_pty spec/repl/pty.c)
    target_link_libraries(nyx_pty PRIVATE nyx_flags)
    set_target_properties(nyx_pty PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec OUTPUT_NAME pty)
    if(CMAKE_SYSTEM_NAME STREQUAL Linux)
      add_library(nyx_late_signal MODULE spec/repl/late_signal.c)
      target_link_libraries(nyx_late_signal PRIVATE nyx_flags)
      set_target_properties(nyx_late_signal PROPERTIES PREFIX "" OUTPUT_NAME late_signal
        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)
    endif()
  endif()
endif()
