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

# plugin_library(NAME [USES name...] [LIBS library...]): plugins/NAME/*.c but for NAME.c, which is the plugin
# itself, as the static library plugin_NAME: what ships inside a plugin and what the unit tests link.
function(plugin_library name)
  cmake_parse_arguments(A "" "" "USES;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${name}/*.c)
  list(FILTER sources EXCLUDE REGEX "/${name}/${name}\\.c$")
  add_library(plugin_${name} STATIC ${sources})
  target_include_directories(plugin_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_SOURCE_DIR}
    ${CMAKE_SOURCE_DIR}/core ${CMAKE_SOURCE_DIR}/core/abi)
  target_compile_definitions(plugin_${name} PRIVATE _GNU_SOURCE)
  target_compile_options(plugin_${name} PRIVATE ${SALVER_WARNINGS})
  foreach(used ${A_USES})
    target_link_libraries(plugin_${name} PUBLIC plugin_${used})
  endforeach()
  target_link_libraries(plugin_${name} PUBLIC core_base ${A_LIBS})
endfunction()
