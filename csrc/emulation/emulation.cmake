# The emulator, minires._emulation: csrc/cuda/*.cu compiled by the C++ compiler for float and for double.
#
#   -DMINIRES_SANITIZE=address     with AddressSanitizer and UndefinedBehaviorSanitizer
#   -DMINIRES_SANITIZE=thread      with ThreadSanitizer, which treats each thread of a block as a thread
#   -DCMAKE_BUILD_TYPE=Debug       unoptimised, to step through the kernels

if(NOT (CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND UNIX AND NOT APPLE))
  message(STATUS "the emulator needs g++ on an ELF system: not built")
  return()
endif()

set(MINIRES_SANITIZE "" CACHE STRING "address or thread: build the emulator with these sanitizers")

generate_kernel_files(generated cpp launch.h emulation)

# All kernels of a precision are one compilation, because parsing the headers takes longer than compiling a kernel.
foreach(file ${generated})
  string(REGEX MATCH "_f64" precision ${file})
  set_source_files_properties(${file} PROPERTIES UNITY_GROUP "kernels${precision}")
endforeach()

# NO_EXTRAS: not stripped, so that sanitizers and debuggers find lines
pybind11_add_module(_emulation NO_EXTRAS emulation/bindings.cpp emulation/launch.cpp emulation/fiber.cpp ${generated})
target_include_directories(_emulation PRIVATE emulation ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_options(_emulation PRIVATE -g1 -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-parameter)
set_target_properties(_emulation PROPERTIES CXX_VISIBILITY_PRESET hidden UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_options(_emulation PRIVATE -g3 -O0)
endif()
if(MINIRES_SANITIZE STREQUAL "address")
  set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined -fsanitize-sections=cuda_shared)
elseif(MINIRES_SANITIZE STREQUAL "thread")
  # The scheduler announces its switches of stacks to ThreadSanitizer, and is not instrumented itself.
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
