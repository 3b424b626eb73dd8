# libnyx. The core's sources are compiled once (position independent) and go into both
# libraries. The kernels are compiled once per instruction set, each exporting one table;
# the core picks one at start, so nothing here depends on the machine that builds.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

file(GLOB_RECURSE core_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/core/*.c)
file(GLOB kernel_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/*.c)

# The dialect of the rows, as the texts that open every GPU kernel.
include(cmake/embed.cmake)
nyx_embed(${PROJECT_SOURCE_DIR}/kernels/dialect/gpu.h nyx__gpu_dialect core_sources)
nyx_embed(${PROJECT_SOURCE_DIR}/kernels/dialect/special.h nyx__gpu_special core_sources)

# Internal code includes <nyx/...> and, from the root, "kernels/..." and "core/...".
add_library(nyx_internal INTERFACE)
target_include_directories(nyx_internal INTERFACE ${PROJECT_SOURCE_DIR}/core/include
                                                  ${PROJECT_SOURCE_DIR})
target_link_libraries(nyx_internal INTERFACE nyx_flags)

add_library(nyx_core OBJECT ${core_sources})
target_link_libraries(nyx_core PRIVATE nyx_internal Threads::Threads)

# -O3 where loops over elements are left to the compiler and on every call's way, -O2 with
# its vectors where neither is, or what matters is unrolled by hand: 8 % less code.
# At -O2 other kernels lose up to 1.4 (reductions), 3.4 (one row of attention) and 3.8
# times their speed (AdamW): they are unrolled and split by the compiler.
set(vectors $<$<C_COMPILER_ID:GNU>:-fvect-cost-model=dynamic>)
set(core_loops base/memory device/cpu/elementwise device/cpu/elementwise_run
    device/cpu/reduce grad/backward grad/graph grad/row op/apply op/copy op/join op/mask
    op/order op/pool op/position op/put op/random_fill op/remap op/sort op/table
    op/variance tensor/tensor)
list(TRANSFORM core_loops REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/core/\\1.c")
set_source_files_properties(${core_loops} PROPERTIES COMPILE_OPTIONS
  "$<$<NOT:$<CONFIG:Debug>>:-O3;-falign-functions;-falign-loops;-falign-jumps>")
target_compile_options(nyx_core PRIVATE ${vectors}
  $<$<CONFIG:Release>:-O2;-fno-align-functions;-fno-align-loops;-fno-align-jumps>)
set(kernels_unrolled convert depthwise int8 matrices patches winograd)
list(TRANSFORM kernels_unrolled REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/kernels/cpu/\\1.c")
set_source_files_properties(${kernels_unrolled} PROPERTIES
  COMPILE_OPTIONS "$<$<NOT:$<CONFIG:Debug>>:-O2>;${vectors}")
# Loops of these are written out by hand: a copy of a function for each constant that it is
# called with, of Fourier transforms also one of a loop for each value of a condition in it,
# is code for nothing. Others lose by it (docs/decisions/021-code-size.md), as transforms do
# on the base path.
set(optimised $<C_COMPILER_ID:GNU>,$<NOT:$<CONFIG:Debug>>)
set(wide $<NOT:$<STREQUAL:$<TARGET_PROPERTY:NAME>,nyx_kernels_base>>)
set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/cpu/gemm.c PROPERTIES
  COMPILE_OPTIONS "$<$<AND:${optimised}>:-fno-ipa-cp-clone>")
set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/cpu/fft.c PROPERTIES
  COMPILE_OPTIONS "$<$<AND:${optimised},${wide}>:-fno-unswitch-loops;-fno-ipa-cp-clone>")
set(nyx_objects $<TARGET_OBJECTS:nyx_core>)

# One object library per instruction set: nyx_kernels(<path> <flags>...).
function(nyx_kernels path)
  add_library(nyx_kernels_${path} OBJECT ${kernel_sources})
  target_compile_definitions(nyx_kernels_${path} PRIVATE NYX_CPU_PATH=${path})
  target_compile_options(nyx_kernels_${path} PRIVATE
    $<IF:$<CONFIG:Debug>,${NYX_DEBUG_LEVEL},-O3> -fno-trapping-math -fno-math-errno
    -ffp-contract=fast -fwrapv -Wno-psabi
    $<$<NOT:$<CONFIG:Debug>>:-fno-asynchronous-unwind-tables> ${ARGN})
  target_link_libraries(nyx_kernels_${path} PRIVATE nyx_internal)
  target_compile_definitions(nyx_core PRIVATE NYX_PATH_${path})
  list(APPEND nyx_objects $<TARGET_OBJECTS:nyx_kernels_${path}>)
  set(nyx_objects ${nyx_objects} PARENT_SCOPE)
endfunction()

# Products of narrow types, for what CPUs have beyond a path: nyx_unit(<name> <source>
# <flags>...), where the compiler knows the flags; core/device/cpu/unit.c chooses.
include(CheckCCompilerFlag)
function(nyx_unit name source)
  string(REPLACE ";" " " CMAKE_REQUIRED_FLAGS "${ARGN}")
  check_c_compiler_flag("" NYX_COMPILES_${name})
  if(NOT NYX_COMPILES_${name})
    message(STATUS "The compiler has no ${ARGN}: no kernels for them")
    return()
  endif()
  set(kernel_sources ${PROJECT_SOURCE_DIR}/kernels/cpu/${source})
  nyx_kernels(${name} ${ARGN})
  target_compile_definitions(nyx_core PRIVATE NYX_UNIT_${name})
  set(nyx_objects ${nyx_objects} PARENT_SCOPE)
endfunction()

# Where threads matter and not the path, as in the preset tsan, avx2 would be built for
# nothing on a machine that goes on to avx512.
option(NYX_EVERY_PATH "Build avx2 also where this machine has avx512" ON)
set(skip_avx2 OFF)
if(NOT NYX_EVERY_PATH)
  include(CheckCSourceRuns)
  check_c_source_runs("int main(void) {
    return !(__builtin_cpu_supports(\"avx512f\") && __builtin_cpu_supports(\"avx512bw\") &&
             __builtin_cpu_supports(\"avx512dq\") && __builtin_cpu_supports(\"avx512vl\"));
  }" NYX_RUNS_avx512)
  set(skip_avx2 ${NYX_RUNS_avx512})
endif()

if(kernel_sources)
  nyx_kernels(base)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    if(NOT skip_avx2)
      nyx_kernels(avx2 -mavx2 -mfma -mf16c)
      nyx_unit(avxvnni int8.c -mavxvnni -mavx2 -mfma -mf16c)
    endif()
    set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c)
    nyx_kernels(avx512 ${avx512})
    nyx_unit(avx512vnni int8.c -mavx512vnni ${avx512})
    nyx_unit(avx512bf16 unit/bf16.c -mavx512bf16 ${avx512})
    nyx_unit(amx unit/amx.c -mamx-tile -mamx-bf16 -mamx-int8 ${avx512})
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    nyx_unit(dotprod int8.c -march=armv8.2-a+dotprod)
  endif()
endif()

# Both libraries, with the same interface. Extensions and the Lua modules use the shared
# one, so that a process holds one op table and one memory pool.
foreach(kind shared static)
  string(TOUPPER ${kind} kind_upper)
  add_library(nyx_${kind} ${kind_upper} ${nyx_objects})
  set_target_properties(nyx_${kind} PROPERTIES OUTPUT_NAME nyx LINKER_LANGUAGE C)
  target_include_directories(nyx_${kind} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/core/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
set_target_properties(nyx_shared PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} EXPORT_NAME nyx)
# The tables of ops and kernels are pointers: packed, what places them is a twentieth of the
# size. The loader of glibc 2.36 is the first to know, so where the C library is older, the
# linker too, or this is no glibc, it stays as it is.
include(CheckCSourceCompiles)
include(CheckLinkerFlag)
check_c_source_compiles("#include <features.h>
#if !__GLIBC_PREREQ(2, 36)
#error too old
#endif
int main(void) { return 0; }" NYX_LOADER_PACKS)
check_linker_flag(C "LINKER:-z,pack-relative-relocs,--fatal-warnings" NYX_LINKER_PACKS)
if(NYX_LOADER_PACKS AND NYX_LINKER_PACKS)
  target_link_options(nyx_shared PRIVATE LINKER:-z,pack-relative-relocs)
endif()
# Calls within the library are bound when it is linked, not through the table by which a
# program could put a function of its own in the place of a public one.
check_linker_flag(C "LINKER:-Bsymbolic-functions" NYX_LINKER_BINDS)
if(NYX_LINKER_BINDS)
  target_link_options(nyx_shared PRIVATE LINKER:-Bsymbolic-functions)
endif()
target_link_libraries(nyx_shared PRIVATE $<BUILD_INTERFACE:nyx_flags> Threads::Threads m
                                         ${CMAKE_DL_LIBS})
# Users of the static library link what it needs themselves.
target_link_libraries(nyx_static PUBLIC Threads::Threads m ${CMAKE_DL_LIBS})
add_library(Nyx::nyx ALIAS nyx_shared)
add_library(Nyx::nyx_static ALIAS nyx_static)
