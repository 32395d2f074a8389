# The emulator: csrc/cuda/*.cu compiled by the C++ compiler, each for float and for double, and bound as
# minires._emulation.
#
#   -DMINIRES_SANITIZE=address     with AddressSanitizer and UndefinedBehaviorSanitizer
#   -DMINIRES_SANITIZE=thread      with ThreadSanitizer, to which every thread of a block is a thread of its own
#   -DCMAKE_BUILD_TYPE=Debug       unoptimised, to step through the kernels

if(NOT (CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND UNIX AND NOT APPLE))
  message(STATUS "the emulator needs g++ on an ELF system: it is left out")
  return()
endif()

set(MINIRES_SANITIZE "" CACHE STRING "address or thread: build the emulator with these sanitizers")

# One file for each kernel file and precision: it includes the .cu, whose lines a debugger then shows, and lists its
# kernels, found by their declaration KERNEL(name).
set(generated)
foreach(source ${CUDA_SOURCES})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
  get_filename_component(stem ${source} NAME_WE)
  file(STRINGS ${source} declarations REGEX "^KERNEL\\(")
  foreach(suffix "" "_f64")
    if(suffix STREQUAL "_f64" AND stem MATCHES "tf32|bf16")
      continue()  # the tensor cores know no double
    endif()
    set(list)
    foreach(declaration ${declarations})
      string(REGEX REPLACE "^KERNEL\\(([a-z0-9_]+)\\).*" "\\1" name "${declaration}")
      string(APPEND list "    emulation::describe(\"${name}${suffix}\", &${name}${suffix}),\n")
    endforeach()
    set(define "")
    set(namespace single_precision)
    if(suffix)
      set(define "#define MINIRES_DOUBLE\n")
      set(namespace double_precision)
    endif()
    set(file ${CMAKE_CURRENT_BINARY_DIR}/kernels/${stem}${suffix}.cpp)
    file(GENERATE OUTPUT ${file} CONTENT
      "${define}#include \"launch.h\"\n\nnamespace ${namespace} {\n#include \"${source}\"\nstatic const emulation::Add added{\n${list}};\n}\n")
    list(APPEND generated ${file})
  endforeach()
endforeach()

# NO_EXTRAS: not stripped, so that errors, sanitizers and debuggers can name lines
pybind11_add_module(_emulation NO_EXTRAS emulation/bindings.cpp emulation/launch.cpp emulation/fiber.cpp ${generated})
target_include_directories(_emulation PRIVATE emulation)
target_compile_options(_emulation PRIVATE -g1 -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-parameter)
set_target_properties(_emulation PROPERTIES CXX_VISIBILITY_PRESET hidden)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_options(_emulation PRIVATE -g3 -O0)
endif()
if(MINIRES_SANITIZE STREQUAL "address")
  set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined -fsanitize-sections=cuda_shared)
elseif(MINIRES_SANITIZE STREQUAL "thread")
  # The scheduler is one real thread that plays many: it announces the switches, but is not watched itself.
  set(sanitizers -fsanitize=thread)
  set_source_files_properties(emulation/launch.cpp emulation/fiber.cpp PROPERTIES
    COMPILE_OPTIONS -fno-sanitize=thread COMPILE_DEFINITIONS MINIRES_THREAD_SANITIZER)
elseif(MINIRES_SANITIZE)
  message(FATAL_ERROR "MINIRES_SANITIZE must be address or thread, got ${MINIRES_SANITIZE}")
endif()
if(sanitizers)
  target_compile_options(_emulation PRIVATE ${sanitizers} -g -O1 -fno-omit-frame-pointer)
  target_link_options(_emulation PRIVATE ${sanitizers})
endif()
install(TARGETS _emulation LIBRARY DESTINATION minires)
