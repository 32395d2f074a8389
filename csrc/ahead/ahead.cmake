# Compiles the kernels of csrc/cuda ahead of time by nvcc, as minires._ahead, for machines that should not compile at run
# time.  Off by default, because it takes minutes:
#
#   pip install . -C cmake.define.MINIRES_NVCC=ON        CMAKE_CUDA_ARCHITECTURES chooses the devices

option(MINIRES_NVCC "compile csrc/cuda ahead of time with nvcc" OFF)
if(NOT MINIRES_NVCC)
  return()
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "MINIRES_NVCC: nvcc not found; install the CUDA toolkit or add nvcc to PATH")
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)  # cp.async and tf32 need 80
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
string(APPEND CMAKE_CUDA_FLAGS " -ftz=true")  # as CuPy compiles: FLUSH of minires/backends/kernels/provider.py
find_package(CUDAToolkit REQUIRED)

generate_kernel_files(compiled_ahead cu ahead.h ahead)
pybind11_add_module(_ahead NO_EXTRAS ahead/bindings.cpp ${compiled_ahead})
target_include_directories(_ahead PRIVATE ahead ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(_ahead PRIVATE CUDA::cudart_static)
install(TARGETS _ahead LIBRARY DESTINATION minires)
