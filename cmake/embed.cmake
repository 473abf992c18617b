# SPDX-License-Identifier: Apache-2.0
# embed(TARGET FILE...): each file becomes the NUL-ended array `embed_<name with _ for .>`, declared where
# it is used. The arrays are written at configure time, again when a file changes.
function(embed target)
  set(out ${CMAKE_BINARY_DIR}/embed/${target}.c)
  set(text "// Made by cmake/embed.cmake.\n")
  foreach(file ${ARGN})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    get_filename_component(name ${file} NAME)
    string(MAKE_C_IDENTIFIER ${name} name)
    file(READ ${file} bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    string(APPEND text "extern const char embed_${name}[];\n"
      "const char embed_${name}[] = {${bytes}0};\n")
  endforeach()
  file(CONFIGURE OUTPUT ${out} CONTENT "${text}" @ONLY)
  target_sources(${target} PRIVATE ${out})
endfunction()
