# The native CPU backend.  Its kernels are compiled once for each instruction set of the target processor.
#
# MINIRES_SANITIZE=address|thread adds that sanitizer and UBSan.
find_package(Threads REQUIRED)
include(CheckCXXSourceCompiles)
set(CPU ${CMAKE_CURRENT_SOURCE_DIR}/cpu)

function(minires_instruction_set name vector_bytes tile_rows)
  add_library(cpu_${name} OBJECT ${CPU}/isa.cpp)
  target_compile_definitions(
    cpu_${name} PRIVATE MINIRES_ISA=${name} MINIRES_VECTOR_BYTES=${vector_bytes} MINIRES_TILE_ROWS=${tile_rows})
  # Contraction computes a · b + c in one instruction, rounded once.  Nothing else may change the bits.
  target_compile_options(cpu_${name} PRIVATE -O3 -ffp-contract=fast -fno-math-errno -Wall -Wextra -Wno-psabi ${ARGN})
  set_target_properties(cpu_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
  target_sources(_native PRIVATE $<TARGET_OBJECTS:cpu_${name}>)
  set(MINIRES_CPU_TARGETS ${MINIRES_CPU_TARGETS} cpu_${name} PARENT_SCOPE)
endfunction()

find_package(Python COMPONENTS NumPy REQUIRED)
target_sources(
  _native PRIVATE ${CPU}/bindings.cpp ${CPU}/dispatch.cpp ${CPU}/memory.cpp ${CPU}/numpy_memory.cpp ${CPU}/recording.cpp
                  ${CPU}/threads.cpp ${CPU}/vectors.cpp)
set_source_files_properties(${CPU}/vectors.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off;-O3")
target_link_libraries(_native PRIVATE Threads::Threads Python::NumPy)
set(MINIRES_CPU_TARGETS _native)
check_cxx_source_compiles("#if !defined(__x86_64__)\n#error\n#endif\nint main() { return 0; }" MINIRES_FOR_X86)
if(MINIRES_FOR_X86)
  set_source_files_properties(${CPU}/dispatch.cpp PROPERTIES COMPILE_DEFINITIONS MINIRES_X86=1)
  minires_instruction_set(avx512 64 14 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512)
  minires_instruction_set(avx2 32 6 -mavx2 -mfma)
endif()
minires_instruction_set(portable 16 6)

if(MINIRES_SANITIZE)
  foreach(target ${MINIRES_CPU_TARGETS})
    target_compile_options(
      ${target} PRIVATE -fsanitize=${MINIRES_SANITIZE},undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
                        -g -O1)
  endforeach()
  target_link_options(_native PRIVATE -fsanitize=${MINIRES_SANITIZE},undefined)
endif()
