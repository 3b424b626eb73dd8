# C modules of the extension rocks: rocks/nyx-NAME/src/*.c as nyx/NAME/core.so beside nyx's
# own, so that the nyx of a build tree has them without any installation.
if(TARGET nyx_lua54)
  file(GLOB rock_folders CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/rocks/nyx-*/src)
  # As installed: <nyx/nyx_lua.h>.
  configure_file(${PROJECT_SOURCE_DIR}/bindings/lua/nyx_lua.h
                 ${PROJECT_BINARY_DIR}/include/nyx/nyx_lua.h COPYONLY)
  foreach(folder IN LISTS rock_folders)
    string(REGEX REPLACE ".*/rocks/nyx-(.*)/src" "\\1" name ${folder})
    file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.c)
    add_library(nyx_rock_${name} MODULE ${sources})
    target_include_directories(nyx_rock_${name} PRIVATE ${PROJECT_BINARY_DIR}/include)
    target_include_directories(nyx_rock_${name} SYSTEM PRIVATE ${LUA54_INCLUDE_DIRS})
    target_link_libraries(nyx_rock_${name} PRIVATE nyx_flags nyx_shared m)
    # The op table points into the module, also after the Lua state is closed.
    target_link_options(nyx_rock_${name} PRIVATE -Wl,-z,nodelete)
    set_target_properties(nyx_rock_${name} PROPERTIES
      PREFIX "" OUTPUT_NAME core
      LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib/lua/5.4/nyx/${name})
  endforeach()
endif()
