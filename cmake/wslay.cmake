# SPDX-License-Identifier: Apache-2.0
# Target wslay. Debian's package brings no pkg-config file, so look for header and library.
find_path(WSLAY_INCLUDE wslay/wslay.h)
find_library(WSLAY_LIBRARY wslay)
mark_as_advanced(WSLAY_INCLUDE WSLAY_LIBRARY)
if(NOT WSLAY_INCLUDE OR NOT WSLAY_LIBRARY)
  message(FATAL_ERROR "wslay is missing (Debian and Ubuntu: apt-get install libwslay-dev)")
endif()
add_library(wslay INTERFACE)
target_include_directories(wslay SYSTEM INTERFACE ${WSLAY_INCLUDE})
target_link_libraries(wslay INTERFACE ${WSLAY_LIBRARY})
