# Compiler flags for all of Nyx, as the interface target nyx_flags. What kernels need on
# top is in core.cmake.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # gnu11: vector types and POSIX clocks
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

add_library(nyx_flags INTERFACE)
target_compile_definitions(nyx_flags INTERFACE _GNU_SOURCE)
target_compile_options(nyx_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
  $<$<BOOL:${NYX_WERROR}>:-Werror>)

# Debug builds run the whole suite under sanitizers, so they optimise a little, and know
# functions and lines but no variables, which takes half as long to compile.
set(NYX_DEBUG_LEVEL -O1 CACHE STRING "How far Debug builds optimise, kernels too")
set(CMAKE_C_FLAGS_DEBUG "-g1 ${NYX_DEBUG_LEVEL} -fno-omit-frame-pointer")

if(NYX_SANITIZE)
  target_compile_options(nyx_flags INTERFACE -fsanitize=${NYX_SANITIZE}
                                             -fno-sanitize-recover=all)
  target_link_options(nyx_flags INTERFACE -fsanitize=${NYX_SANITIZE})
endif()
if(NYX_COVERAGE)
  target_compile_options(nyx_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(nyx_flags INTERFACE --coverage)
endif()
