# Whether this build has the CUDA backend: NIBBLE_CUDA_FOUND, and where nvcc, the static CUDA runtime and cuBLAS are.
# Search: NIBBLE_CUDA_ROOT, CUDA_HOME, what deploy/install_cuda.sh made in build/cuda_toolkit, PATH, /usr/local/cuda.
set(NIBBLE_CUDA_FOUND OFF)
if(NIBBLE_CUDA STREQUAL "OFF")
  return()
endif()

set(NIBBLE_CUDA_ROOT "" CACHE PATH "A CUDA 13 toolkit; empty: search")
find_program(NIBBLE_NVCC nvcc HINTS ${NIBBLE_CUDA_ROOT} $ENV{CUDA_HOME} ${PROJECT_SOURCE_DIR}/build/cuda_toolkit
  PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NIBBLE_NVCC)
  file(REAL_PATH ${NIBBLE_NVCC} nvcc)
  cmake_path(GET nvcc PARENT_PATH root)
  cmake_path(GET root PARENT_PATH root)
  set(folders PATHS ${root} ${root}/targets/x86_64-linux NO_DEFAULT_PATH)
  find_path(NIBBLE_CUDA_INCLUDE cublas_v2.h ${folders} PATH_SUFFIXES include)
  find_library(NIBBLE_CUDART cudart_static ${folders} PATH_SUFFIXES lib64 lib)
  find_library(NIBBLE_CUBLAS cublas ${folders} PATH_SUFFIXES lib64 lib)
endif()
if(NIBBLE_NVCC AND NIBBLE_CUDA_INCLUDE AND NIBBLE_CUDART AND NIBBLE_CUBLAS)
  set(NIBBLE_CUDA_FOUND ON)
  # tests/gpu/bundle.sh puts there what a machine with a GPU may lack.
  set(CMAKE_BUILD_RPATH "$ORIGIN/lib")
  message(STATUS "CUDA backend: ${NIBBLE_NVCC}")
elseif(NIBBLE_CUDA STREQUAL "AUTO")
  message(STATUS "CUDA backend: none, no CUDA toolkit was found")
else()
  message(FATAL_ERROR "NIBBLE_CUDA=${NIBBLE_CUDA} needs a CUDA 13 toolkit; deploy/install_cuda.sh makes one in "
    "build/cuda_toolkit, and -DNIBBLE_CUDA_ROOT=... names another. Found:\n  nvcc: ${NIBBLE_NVCC}\n"
    "  cublas_v2.h: ${NIBBLE_CUDA_INCLUDE}\n  cudart_static: ${NIBBLE_CUDART}\n  cublas: ${NIBBLE_CUBLAS}")
endif()
