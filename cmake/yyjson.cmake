# SPDX-License-Identifier: Apache-2.0
# Target yyjson, 0.10 or newer: the system's where it has it, else the pinned source package, as llhttp.
set(YYJSON_PINNED 0.10.0)
pkg_check_modules(YYJSON QUIET IMPORTED_TARGET yyjson>=0.10)
if(YYJSON_FOUND)
  message(STATUS "yyjson ${YYJSON_VERSION} from the system")
  add_library(yyjson ALIAS PkgConfig::YYJSON)
else()
  set(folder ${CMAKE_SOURCE_DIR}/.cache/yyjson-${YYJSON_PINNED})
  if(NOT EXISTS ${folder}/yyjson.h)
    message(STATUS "yyjson: fetching the pinned source package")
    # The Python package yyjson carries an unchanged yyjson.
    execute_process(COMMAND ${CMAKE_SOURCE_DIR}/cmake/fetch_source.sh yyjson 4.0.6
      fcd4dc15c1e39a30bf9fa85d56903029111506860fc3080ab0d81c6c6dacaa8c yyjson ${folder} RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "yyjson ${YYJSON_PINNED} could not be fetched (see above); with yyjson 0.10 or newer \
installed (header, library and pkg-config file) it is not needed")
    endif()
  endif()
  message(STATUS "yyjson ${YYJSON_PINNED} from ${folder}")
  add_library(yyjson STATIC ${folder}/yyjson.c)
  target_include_directories(yyjson SYSTEM PUBLIC ${folder})
  set(optimise -O2)
  if(SALVER_SANITIZE) # one file; checked and inlined it takes GCC a minute to compile, clang three
    set(optimise $<IF:$<C_COMPILER_ID:GNU>,-O1,-O0>)
  endif()
  target_compile_options(yyjson PRIVATE -w ${optimise})
  target_compile_definitions(yyjson PUBLIC YYJSON_DISABLE_UTILS=1 YYJSON_DISABLE_NON_STANDARD=1) # nobody here uses them
endif()
