# SPDX-License-Identifier: Apache-2.0
# What `make install` puts under the prefix. Plugin writers need include/salver alone; pkg-config file and
# CMake package only say where it is. Plain lib/, whatever the distribution's multiarch folder is: that is
# where the binary looks, relative to itself.
if(TARGET salver)
  install(TARGETS salver RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES core/abi/plugin.h core/abi/form.h core/abi/models.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/salver)

configure_file(cmake/salver.pc.in salver.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/salver.pc DESTINATION lib/pkgconfig)

include(CMakePackageConfigHelpers)
set(package lib/cmake/salver)
configure_package_config_file(cmake/salver-config.cmake.in salver-config.cmake
  INSTALL_DESTINATION ${package} PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/salver-config-version.cmake
  COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/salver-config.cmake
  ${CMAKE_BINARY_DIR}/salver-config-version.cmake DESTINATION ${package})
