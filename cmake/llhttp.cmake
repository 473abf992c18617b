# SPDX-License-Identifier: Apache-2.0
# Target llhttp, 9.2 or newer: the system's where it has it, else the pinned source package, fetched once
# into .cache/ (all build folders share it, so later configures need no network).
set(LLHTTP_PINNED 9.4.3)

find_path(LLHTTP_INCLUDE llhttp.h)
find_library(LLHTTP_LIBRARY llhttp)
mark_as_advanced(LLHTTP_INCLUDE LLHTTP_LIBRARY)
set(LLHTTP_SYSTEM_VERSION 0)
if(LLHTTP_INCLUDE AND LLHTTP_LIBRARY)
  file(STRINGS ${LLHTTP_INCLUDE}/llhttp.h lines REGEX "#define LLHTTP_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" numbers "${lines}")
  string(REPLACE ";" "." LLHTTP_SYSTEM_VERSION "${numbers}")
endif()

if(LLHTTP_SYSTEM_VERSION VERSION_GREATER_EQUAL 9.2)
  message(STATUS "llhttp ${LLHTTP_SYSTEM_VERSION} from the system (${LLHTTP_LIBRARY})")
  add_library(llhttp INTERFACE)
  target_include_directories(llhttp SYSTEM INTERFACE ${LLHTTP_INCLUDE})
  target_link_libraries(llhttp INTERFACE ${LLHTTP_LIBRARY})
else()
  set(folder ${CMAKE_SOURCE_DIR}/.cache/llhttp-${LLHTTP_PINNED})
  if(NOT EXISTS ${folder}/include/llhttp.h)
    message(STATUS "llhttp: fetching the pinned source package")
    # httptools carries an unchanged llhttp.
    execute_process(COMMAND ${CMAKE_SOURCE_DIR}/cmake/fetch_source.sh httptools 0.9.0
      d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6 vendor/llhttp ${folder}
      RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "llhttp ${LLHTTP_PINNED} could not be fetched (see above); with llhttp 9.2 or newer \
installed (header and library) it is not needed")
    endif()
  endif()
  message(STATUS "llhttp ${LLHTTP_PINNED} from ${folder}")
  add_library(llhttp STATIC ${folder}/src/llhttp.c ${folder}/src/api.c ${folder}/src/http.c)
  target_include_directories(llhttp SYSTEM PUBLIC ${folder}/include)
  target_compile_options(llhttp PRIVATE -w)
endif()
