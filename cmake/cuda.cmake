# SPDX-License-Identifier: Apache-2.0
# The gate of the CUDA parts: sets SALVER_HAS_CUDA. SALVER_CUDA says what a machine without nvcc,
# cuBLASLt and cuDNN means: auto (skip, with one line; with CI=true an error), on (an error), off.
set(SALVER_CUDA auto CACHE STRING "CUDA parts: auto, on or off")
set_property(CACHE SALVER_CUDA PROPERTY STRINGS auto on off)
set(SALVER_HAS_CUDA OFF)
if(SALVER_CUDA STREQUAL off)
  return()
endif()

# The folder of the wheels that cmake/fetch_cuda.sh installs comes last.
set(CUDA_WHEELS ${CMAKE_SOURCE_DIR}/.cache/cuda/nvidia)
find_program(NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin ${CUDA_WHEELS}/cu13/bin)
mark_as_advanced(NVCC)

# Only a program that compiles and links tells whether the pieces fit together.
if(NVCC AND NOT CUDA_CHECKED STREQUAL NVCC)
  set(source ${CMAKE_BINARY_DIR}/cuda_check.cu)
  file(WRITE ${source} "#include <cublasLt.h>\n#include <cudnn.h>\n__global__ void nothing() {}\n"
    "int main() { nothing<<<1, 1>>>();"
    " return cublasLtGetVersion() == 0 || cudnnGetVersion() == 0; }\n")
  set(ENV{LIBRARY_PATH} "${CUDA_WHEELS}/cu13/lib:${CUDA_WHEELS}/cudnn/lib:$ENV{LIBRARY_PATH}")
  execute_process(
    COMMAND ${NVCC} -arch=sm_90a -I${CUDA_WHEELS}/cudnn/include -o ${CMAKE_BINARY_DIR}/cuda_check
      ${source} -lcublasLt -lcudnn
    RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(failed)
    set(why "${NVCC} can't build a program with cuBLASLt and cuDNN: ${said}")
  else()
    set(CUDA_CHECKED ${NVCC} CACHE INTERNAL "The nvcc that built the check")
  endif()
elseif(NOT NVCC)
  set(why "no nvcc in PATH, $CUDA_HOME/bin or /usr/local/cuda/bin")
endif()

if(NOT why)
  set(SALVER_HAS_CUDA ON)
  message(STATUS "CUDA: ${NVCC}")
elseif(SALVER_CUDA STREQUAL on OR "$ENV{CI}" STREQUAL true)
  message(FATAL_ERROR "CUDA is required here: ${why}\n"
    "Install the CUDA toolkit 13 with cuDNN 9, or run cmake/fetch_cuda.sh, which gets both as PyPI "
    "packages into .cache/cuda (about 1.5 GB).")
else()
  message(STATUS "CUDA: ${why}; CUDA parts are skipped")
endif()
