# Generates C++ tables of the kernels of csrc/cuda.

# generate_kernel_files(VARIABLE EXTENSION HEADER NAMESPACE) writes one file for each .cu and precision.  The file includes
# the .cu, so that debuggers show its lines, and adds its kernels to the table of HEADER by NAMESPACE::describe.  Kernels
# are found by their declaration KERNEL(name).  VARIABLE receives the files.
function(generate_kernel_files variable extension header namespace)
  set(generated)
  foreach(source ${CUDA_SOURCES})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    get_filename_component(stem ${source} NAME_WE)
    file(STRINGS ${source} declarations REGEX "^KERNEL\\(")
    foreach(suffix "" "_f64")
      if(suffix STREQUAL "_f64" AND stem MATCHES "tf32|bf16")
        continue()  # tensor-core kernels have no double precision
      endif()
      set(list)
      foreach(declaration ${declarations})
        string(REGEX REPLACE "^KERNEL\\(([a-z0-9_]+)\\).*" "\\1" name "${declaration}")
        string(APPEND list "    ${namespace}::describe(\"${name}${suffix}\", &${name}${suffix}),\n")
      endforeach()
      set(define "")
      set(precision single_precision)
      if(suffix)
        set(define "#define MINIRES_DOUBLE\n")
        set(precision double_precision)
      endif()
      set(file ${CMAKE_CURRENT_BINARY_DIR}/${namespace}/${stem}${suffix}.${extension})
      string(CONCAT content "${define}#include \"${header}\"\n\n"
        "namespace ${precision} {\n#include \"${source}\"\n"
        "static const ${namespace}::Add added_${stem}{\n${list}};\n}\n")
      file(GENERATE OUTPUT ${file} CONTENT "${content}")
      list(APPEND generated ${file})
    endforeach()
  endforeach()
  set(${variable} ${generated} PARENT_SCOPE)
endfunction()
