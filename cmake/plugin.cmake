# SPDX-License-Identifier: Apache-2.0
# salver_plugin(NAME SOURCE... [INTO folder]): NAME.so in that folder of the build folder, else plugins/. A
# plugin sees core/abi alone: no include path or link line leads to the rest of the core.
set(SALVER_PLUGIN_WARNINGS -Wall -Wextra -Wpedantic -Werror)

function(salver_plugin name)
  cmake_parse_arguments(A "" "INTO" "" ${ARGN})
  if(NOT A_INTO)
    set(A_INTO plugins)
  endif()
  add_library(${name} MODULE ${A_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/core/abi)
  target_compile_options(${name} PRIVATE ${SALVER_PLUGIN_WARNINGS})
  set_target_properties(${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name}
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/${A_INTO})
endfunction()
